"""One pass over the data: everything that a check needs of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from resnet_cert.moments.executors import summed
from resnet_cert.moments.gradient import (
    FirstMoments,
    FirstSums,
    Linear,
    first_sums,
    first_sums_at_0,
    head,
    row_norms,
)
from resnet_cert.moments.lipschitz import (
    LipschitzConstants,
    LipschitzSums,
    forms_matrices,
    lipschitz_constants,
    lipschitz_sums,
)
from resnet_cert.moments.moments import Moments, MomentSums, moment_sums, residual, total_weight
from resnet_cert.numerics.enclosure import QUIET
from resnet_cert.numerics.radius import Radius
from resnet_cert.numerics.sums import Blocks
from resnet_cert.problem.problem import Chunk, Problem

M = TypeVar("M")
S = TypeVar("S", MomentSums, FirstSums)


@dataclass(frozen=True)
class Observed(Generic[M]):
    """What one pass over the data gives: the moments at (W, V) and at (0, V), and μ0, μ1, μ2 if bounded."""

    here: M
    origin: M
    lipschitz: LipschitzConstants | None


@dataclass(frozen=True)
class ObservedSums(Generic[S]):
    """The same, unnormalised and of some chunks only.  `+` merges those of disjoint sets of rows, in any
    order, to the same floats."""

    here: S | None  # None at W = 0, where it is the origin
    origin: S
    lipschitz: LipschitzSums | None

    def __add__(self, other: ObservedSums[S]) -> ObservedSums[S]:
        return ObservedSums(
            None if self.here is None or other.here is None else self.here + other.here,
            self.origin + other.origin,
            None if self.lipschitz is None or other.lipschitz is None else self.lipschitz + other.lipschitz,
        )

    def observed(self, problem: Problem, b: float, expectation: Callable[[S], M]) -> Observed[M]:
        """The expectations, once all rows are there."""
        origin = expectation(self.origin)
        mus = None
        if self.lipschitz is not None:
            mus = lipschitz_constants(self.lipschitz, total_weight(self.origin.weight), b, problem.k)
        return Observed(origin if self.here is None else expectation(self.here), origin, mus)


@QUIET
def observe(problem: Problem, b: float) -> Observed[Moments]:
    """F, ∇F and ∇²F in one pass over the data, a chunk at a time."""
    sums = summed(problem, functools.partial(observed_sums, b=b))
    return sums.observed(problem, b, MomentSums.expectation)


@QUIET
def observe_first(problem: Problem, b: float) -> Observed[FirstMoments]:
    """F and ∇F in one pass of O(nq(d + k))."""
    sums = summed(problem, functools.partial(first_observed_sums, b=b, p=head(problem)), second=False)
    return sums.observed(problem, b, lambda part: part.expectation(problem.V))


def observed_sums(problem: Problem, chunk: Chunk, blocks: Blocks, b: float) -> ObservedSums[MomentSums]:
    """What some rows contribute, which begin with a block."""
    loss, W = problem.loss, problem.W
    at = residual(chunk, problem.V, blocks)
    here = moment_sums(loss, chunk, at, W, blocks) if W.any() else None
    # ∇²ℓ of a quadratic loss is the same at every prediction.
    Q = None if here is None or loss.concordance != 0.0 else here.Q.corner(problem.d)
    return ObservedSums(
        here,
        moment_sums(loss, chunk, at, np.zeros_like(W), blocks, Q),
        _lipschitz(problem, chunk, (at.x_norm, at.f_norm), b, blocks),
    )


def first_observed_sums(
    problem: Problem, chunk: Chunk, blocks: Blocks, b: float, p: Linear
) -> ObservedSums[FirstSums]:
    """The same without second derivatives."""
    norms = row_norms(chunk)
    return ObservedSums(
        first_sums(problem, chunk, blocks, p, norms) if problem.W.any() else None,
        first_sums_at_0(problem, chunk, blocks, p, norms),
        _lipschitz(problem, chunk, norms, b, blocks),
    )


def _lipschitz(
    problem: Problem, chunk: Chunk, norms: tuple[Radius, Radius], b: float, blocks: Blocks
) -> LipschitzSums | None:
    matrices = forms_matrices(problem.n, problem.d + problem.k)
    return lipschitz_sums(problem.loss, chunk, *norms, b, blocks, matrices=matrices)
