"""One pass over the data: everything that a check needs of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from resnet_cert.enclosure import Array, norm_roundings, upper_row_norms
from resnet_cert.lipschitz import LipschitzConstants, lipschitz_constants, lipschitz_terms
from resnet_cert.moments import Moments, MomentSums, merged, moment_sums, residual
from resnet_cert.problem import Chunk, Problem


@dataclass(frozen=True)
class Observed:
    """What one pass over the data gives: the moments at (w, V) and at (0, V), and μ0, μ1, μ2 if bounded."""

    here: Moments
    origin: Moments
    lipschitz: LipschitzConstants | None


@dataclass(frozen=True)
class ObservedSums:
    """The same, unnormalised and of some chunks only.  Mergeable."""

    here: MomentSums | None  # None at w = 0, where it is the origin
    origin: MomentSums
    lipschitz: Array | None
    chunks: int = 1

    def __add__(self, other: ObservedSums) -> ObservedSums:
        return ObservedSums(
            None if self.here is None or other.here is None else self.here + other.here,
            self.origin + other.origin,
            None if self.lipschitz is None or other.lipschitz is None else self.lipschitz + other.lipschitz,
            self.chunks + other.chunks,
        )


def observe(problem: Problem, b: float) -> Observed:
    """One pass over the data, a chunk at a time."""
    w, V, loss = problem.point.w, problem.point.V, problem.loss

    def sums(chunk: Chunk) -> ObservedSums:
        at = residual(chunk, V)
        return ObservedSums(
            moment_sums(loss, chunk, at, w) if w.any() else None,
            moment_sums(loss, chunk, at, np.zeros_like(w)),
            lipschitz_terms(loss, chunk, upper_row_norms(chunk.x), at.f_norm * norm_roundings(chunk.f), b),
        )

    total = merged(map(sums, problem.chunks()))
    origin = total.origin.expectation()
    least_weight = float(total.origin.weight.value) - total.origin.weight.radius
    return Observed(
        origin if total.here is None else total.here.expectation(),
        origin,
        None if total.lipschitz is None else lipschitz_constants(total.lipschitz, least_weight, total.chunks),
    )
