"""One pass over the data: everything that a check needs of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np

from resnet_cert.moments.lipschitz import LipschitzConstants, lipschitz_constants, lipschitz_terms
from resnet_cert.moments.moments import Moments, Residual, Sum, merged, moment_sums, residual
from resnet_cert.numerics.enclosure import Array, norm_roundings, upper_row_norms
from resnet_cert.problem.problem import Chunk, Problem

M = TypeVar("M")
M_co = TypeVar("M_co", covariant=True)
C = TypeVar("C", bound=Chunk)


class Sums(Protocol[M_co]):
    """Unnormalised moments of some samples."""

    @property
    def weight(self) -> Sum: ...

    def __add__(self, other: Self, /) -> Self: ...

    def expectation(self) -> M_co: ...


@dataclass(frozen=True)
class Observed(Generic[M]):
    """What one pass over the data gives: the moments at (w, V) and at (0, V), and μ0, μ1, μ2 if bounded."""

    here: M
    origin: M
    lipschitz: LipschitzConstants | None


@dataclass(frozen=True)
class ObservedSums(Generic[M]):
    """The same, unnormalised and of some chunks only.  Mergeable."""

    here: Sums[M] | None  # None at w = 0, where it is the origin
    origin: Sums[M]
    lipschitz: Array | None
    chunks: int = 1

    def __add__(self, other: ObservedSums[M]) -> ObservedSums[M]:
        return ObservedSums(
            None if self.here is None or other.here is None else self.here + other.here,
            self.origin + other.origin,
            None if self.lipschitz is None or other.lipschitz is None else self.lipschitz + other.lipschitz,
            self.chunks + other.chunks,
        )


def observe(problem: Problem, b: float) -> Observed[Moments]:
    """One pass over the data, a chunk at a time."""
    loss = problem.loss
    return observed(
        problem.chunks(),
        problem.point.w,
        problem.point.V,
        lambda chunk, at, w: moment_sums(loss, chunk, at, w),
        lambda chunk, x_norm, f_norm: lipschitz_terms(loss, chunk, x_norm, f_norm, b),
    )


def observed(
    chunks: Iterable[C],
    w: Array,
    V: Array,
    moments: Callable[[C, Residual, Array], Sums[M]],
    terms: Callable[[C, Array, Array], Array | None],
) -> Observed[M]:
    """The pass, for one output or for several.

    Args:
        w: w (d,), or W (q, d).
        moments: the moments of a chunk at its residual for V and any w.
        terms: Σ π (μ0, μ1, μ2 of one sample) over a chunk, from upper bounds of ‖x‖ and ‖f‖; None if unknown.
    """

    def sums(chunk: C) -> ObservedSums[M]:
        at = residual(chunk, V)
        return ObservedSums(
            moments(chunk, at, w) if w.any() else None,
            moments(chunk, at, np.zeros_like(w)),
            terms(chunk, upper_row_norms(chunk.x), at.f_norm * norm_roundings(chunk.f)),
        )

    total: ObservedSums[Any] = merged(map(sums, chunks))
    origin = total.origin.expectation()
    least_weight = float(total.origin.weight.value) - total.origin.weight.radius
    return Observed(
        origin if total.here is None else total.here.expectation(),
        origin,
        None if total.lipschitz is None else lipschitz_constants(total.lipschitz, least_weight, total.chunks),
    )
