"""One pass over the data: everything that a check needs of it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from resnet_cert.moments.executors import summed
from resnet_cert.moments.lipschitz import (
    LipschitzConstants,
    LipschitzSums,
    forms_matrices,
    lipschitz_constants,
    lipschitz_sums,
)
from resnet_cert.moments.moments import Moments, MomentSums, moment_sums, residual, total_weight
from resnet_cert.numerics.enclosure import QUIET
from resnet_cert.numerics.sums import Blocks
from resnet_cert.problem.problem import Chunk, Problem

M = TypeVar("M")


@dataclass(frozen=True)
class Observed(Generic[M]):
    """What one pass over the data gives: the moments at (W, V) and at (0, V), and μ0, μ1, μ2 if bounded."""

    here: M
    origin: M
    lipschitz: LipschitzConstants | None


@dataclass(frozen=True)
class ObservedSums:
    """The same, unnormalised and of some chunks only.  `+` merges those of disjoint sets of rows, in any
    order, to the same floats."""

    here: MomentSums | None  # None at W = 0, where it is the origin
    origin: MomentSums
    lipschitz: LipschitzSums | None

    def __add__(self, other: ObservedSums) -> ObservedSums:
        return ObservedSums(
            None if self.here is None or other.here is None else self.here + other.here,
            self.origin + other.origin,
            None if self.lipschitz is None or other.lipschitz is None else self.lipschitz + other.lipschitz,
        )

    def observed(self, problem: Problem, b: float) -> Observed[Moments]:
        """The expectations, once all rows are there."""
        origin = self.origin.expectation()
        mus = None
        if self.lipschitz is not None:
            mus = lipschitz_constants(self.lipschitz, total_weight(self.origin.weight), b, problem.k)
        return Observed(origin if self.here is None else self.here.expectation(), origin, mus)


@QUIET
def observe(problem: Problem, b: float) -> Observed[Moments]:
    """One pass over the data, a chunk at a time."""
    return summed(problem, functools.partial(observed_sums, b=b)).observed(problem, b)


def observed_sums(problem: Problem, chunk: Chunk, blocks: Blocks, b: float) -> ObservedSums:
    """What some rows contribute, which begin with a block."""
    loss, W = problem.loss, problem.W
    matrices = forms_matrices(problem.n, problem.d + problem.k)
    at = residual(chunk, problem.V, blocks)
    return ObservedSums(
        moment_sums(loss, chunk, at, W, blocks) if W.any() else None,
        moment_sums(loss, chunk, at, np.zeros_like(W), blocks),
        lipschitz_sums(loss, chunk, at.x_norm, at.f_norm, b, blocks, matrices=matrices),
    )
