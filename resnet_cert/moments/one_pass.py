"""One pass over the data: everything that a check needs of it."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import numpy as np

from resnet_cert.moments.lipschitz import (
    LipschitzConstants,
    LipschitzSums,
    forms_matrices,
    lipschitz_constants,
    lipschitz_sums,
)
from resnet_cert.moments.moments import Moments, MomentSums, moment_sums, residual, total_weight
from resnet_cert.numerics.enclosure import QUIET
from resnet_cert.numerics.sums import BLOCK_ROWS, Blocks
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
    sums = merged(observed_sums(problem, chunk, blocks, b) for blocks, chunk in in_blocks(problem.chunks()))
    return sums.observed(problem, b)


@QUIET
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


def in_blocks(chunks: Iterable[Chunk]) -> Iterator[tuple[Blocks, Chunk]]:
    """Chunks with the numbers of their blocks.

    Raises:
        ValueError: a chunk but the last ends inside a block.
    """
    rows = 0
    for chunk in chunks:
        if rows % BLOCK_ROWS:
            raise ValueError(
                f"expected chunks of whole blocks of {BLOCK_ROWS} rows, got one that ends at {rows}"
            )
        yield Blocks(rows // BLOCK_ROWS, len(chunk.x)), chunk
        rows += len(chunk.x)


class Mergeable(Protocol):
    def __add__(self, other: Self, /) -> Self: ...


Part = TypeVar("Part", bound=Mergeable)


def merged(parts: Iterable[Part]) -> Part:
    """The sum of one part or more."""
    return functools.reduce(operator.add, parts)
