"""Coordinates in which the data of a linear predictor are well-conditioned: W = U Tᵀ, Wx = U z, z = Tᵀx.

Nearly dependent columns (pressure beside an intercept, year and year², Unix time) make E[xxᵀ] singular to
rounding where X itself is not.  So the data are factored as they are, X = PΣQᵀ, after a scaling of the
columns by powers of two, and T = Q/Σ makes E[zzᵀ] about I.  z is computed in doubled precision, for Tᵀx
cancels where T is large; and since T is a matrix of floats, whatever it is worth, everything is exact about
the predictor U Tᵀ.  Where the scaled columns are far from dependent T is the scaling alone, and z = Tᵀx
exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from resnet_cert.moments.executors import Part, merged, summed
from resnet_cert.numerics.algebra import eigvalsh, svd
from resnet_cert.numerics.radius import NOTHING, Array, Radius, U
from resnet_cert.numerics.sums import BLOCK_ROWS, Blocks, Sum
from resnet_cert.numerics.threads import in_order
from resnet_cert.problem.losses import BuiltinLoss
from resnet_cert.problem.problem import Chunk, Distribution, Domain, GivenFeatures, Objective, Point, Problem

WELL_CONDITIONED, FAR_FROM_DEPENDENT = 1e-5, 1e-2
"""The least ratio of singular values of scaled columns that needs no change of coordinates, and the least to
which none would do any good."""
NEGLIGIBLE = 2.0**-54
"""The ratio of singular values below which a direction is dropped: the data say nothing about it in
float64.
"""
HELD_BYTES = 2**28
"""Rows in new coordinates that take no more than this are made once and kept."""
PLACES = 16
"""A sample is a block of rows from so many places."""
WIDEST = 600
"""The largest d for which coordinates other than a scaling are looked for."""


@dataclass(frozen=True)
class Rows:
    """Some samples: x (m, d), z (m, d) within `error` (m,) of Tᵀx in Euclidean norm, and the rest of them."""

    x: Array
    z: Array
    error: Radius
    chunk: Chunk

    def __getitem__(self, some: slice) -> Rows:
        """Without their features."""
        chunk = replace(self.chunk[some], f=self.chunk.f[:0])
        return Rows(self.x[some], np.ascontiguousarray(self.z[some]), self.error[some], chunk)


@dataclass(frozen=True)
class Design:
    """The inputs of a problem's linear predictors, in units of 1/sigma, in the coordinates of T =
    diag(units)·R.

    sigma: a power of two that makes the largest column about 1; predictors are in its units.
    units: (d,) powers of two ≥ 1.  R: (d, d); None for I.
    """

    problem: Problem
    sigma: float
    units: Array
    R: Array | None = None

    @property
    def d(self) -> int:
        return self.problem.d

    @cached_property
    def T(self) -> Array:
        """(d, d)."""
        return np.diag(self.units) if self.R is None else self.units[:, None] * self.R

    @cached_property
    def second_moments(self) -> Array:
        """(d, d) E[zzᵀ]."""
        (weight,), moments = np.split(self.floats(_gram), [1])
        return moments.reshape(self.d, self.d) / weight

    def rows(self) -> Iterator[Rows]:
        """All samples, some at a time."""
        if self.is_kept:
            return iter(self._held)
        return (self.of(chunk) for chunk in self.problem.chunks(features=False))

    def in_blocks(self) -> Iterator[tuple[Rows, Blocks]]:
        """The same, with their blocks."""
        first = 0
        for rows in self.rows():
            yield rows, Blocks(first, len(rows.z))
            first += -(-len(rows.z) // BLOCK_ROWS)

    def summed(self, part: Callable[[Design, Rows, Blocks], Part]) -> Part:
        """The sum of what all samples contribute; where they are kept, or by whoever adds up for the problem.

        Args:
            part: a function of a module, or a `functools.partial` of one: it may travel.
        """
        if self.is_kept:
            pieces = in_order(lambda piece: part(self, *piece), self.in_blocks(), len(self._held))
            return merged(pieces)
        about = {"sigma": self.sigma, "units": self.units, "R": self.R}
        return summed(self.problem, partial(_contribution, part=part, about=about), features=False)

    def floats(self, part: Callable[[Design, Rows], Array]) -> Array:
        """The same for numbers or arrays of which nothing is proven."""
        return self.summed(partial(_leaf, part=part)).total().center

    @property
    def is_kept(self) -> bool:
        return 3 * self.problem.n * self.d * 8 <= HELD_BYTES  # as they are, in units, and z

    @cached_property
    def _held(self) -> list[Rows]:
        return [self.of(chunk) for chunk in self.problem.chunks(features=False)]

    def of_sample(self) -> Design | None:
        """The same of a few of the samples, from all over them; None where these are nearly all."""
        problem = self.problem
        step = problem.n // PLACES // BLOCK_ROWS * BLOCK_ROWS
        if step < 2 * BLOCK_ROWS:
            return None
        firsts = range(0, PLACES * step, step)
        chunks = [problem.chunk(slice(i, i + BLOCK_ROWS), features=False) for i in firsts]
        x, y, pi = (np.concatenate([getattr(c, name) for c in chunks]) for name in ("x", "y", "weights"))
        omega = [c.omega for c in chunks if c.omega is not None]
        return replace(self, problem=linear_part(problem, x, y, pi, np.concatenate(omega) if omega else None))

    def of(self, chunk: Chunk) -> Rows:
        """The samples of a chunk in these coordinates."""
        both = self.sigma * self.units
        x = chunk.x if self.sigma == 1.0 else chunk.x * self.sigma
        scaled, error = x if (self.units == 1.0).all() else chunk.x * both, NOTHING
        if (both < 1.0).any() and not np.array_equal(scaled / both, chunk.x):  # something underflowed
            error = Radius.of(np.full(len(x), np.sqrt(self.d) * 2.0**-1021))
        if self.R is None:
            return Rows(x, scaled, error, chunk)
        z, rounding = doubled_product(scaled, self.R)
        return Rows(x, z, rounding + error * Radius.norm(self.R), chunk)


def linear_part(problem: Problem, x: Array, y: Array, pi: Array, omega: Array | None) -> Problem:
    """Some samples of a problem, for linear predictors.

    omega: with softmax which classes of each sample, else the weights of an output.
    """
    q, d = y.shape[1], x.shape[1]
    loss = problem.loss
    return replace(
        problem,
        distribution=Distribution(x, y, pi, None, omega),
        loss=replace(loss, signed=False) if isinstance(loss, BuiltinLoss) else loss,
        features=GivenFeatures(np.empty((len(x), 0))),
        point=Point(np.zeros((q, d)), np.zeros((d, 0))),
        domain=Domain(),
        objective=Objective(),
        comparators={},
        executor=None,
    )


def _contribution(
    problem: Problem,
    chunk: Chunk,
    blocks: Blocks,
    *,
    part: Callable[[Design, Rows, Blocks], Part],
    about: dict[str, Any],
) -> Part:
    design = Design(problem, **about)
    return part(design, design.of(chunk), blocks)


def _leaf(design: Design, rows: Rows, blocks: Blocks, *, part: Callable[[Design, Rows], Array]) -> Sum:
    return blocks.whole(np.asarray(part(design, rows)), design.problem.chunk_rows)


@dataclass(frozen=True)
class Largest:
    """Numbers or arrays; `+` takes the larger of each."""

    of: Array

    def __add__(self, other: Largest) -> Largest:
        return Largest(np.maximum(self.of, other.of))


def _largest_entries(problem: Problem, chunk: Chunk, blocks: Blocks) -> Largest:
    return Largest(np.max(np.abs(chunk.x), axis=0))


def scaled_design(problem: Problem, *, fixed: bool = False) -> Design:
    """Columns scaled by powers of two to a largest entry of about 1; fixed: predictors stay in their
    units."""
    largest = summed(problem, _largest_entries, features=False).of
    exponents = np.clip(-np.frexp(largest)[1], -1000, 1000)
    known = exponents[largest > 0.0]
    least = 0 if fixed or not len(known) else int(np.min(known))
    both = np.where(largest > 0.0, np.ldexp(1.0, np.clip(exponents - least, -500, 1000)), 1.0)
    return Design(problem, math.ldexp(1.0, least), both)


def _gram(design: Design, rows: Rows) -> Array:
    """Σπ, Σ π zzᵀ."""
    pi = rows.chunk.weight
    weighted = rows.z if pi is None else np.sqrt(pi)[:, None] * rows.z
    return np.append(np.sum(rows.chunk.weights), weighted.T @ weighted)


def independence(second_moments: Array) -> float:
    """How far the columns are from dependent: the ratio of their least singular value to the largest."""
    eigenvalues = eigvalsh(second_moments)
    if not eigenvalues[-1] > 0.0:
        return 1.0
    return math.sqrt(max(float(eigenvalues[0] / eigenvalues[-1]), 0.0))


def orthogonalised(at: Design, extra: Array) -> Design:
    """Coordinates in which E[zzᵀ], with further rows (m, d) of the scaled inputs, is about I."""
    found = Design(at.problem, at.sigma, at.units)
    for _ in range(2):  # the second factorisation makes up for the roundings of the first
        basis, singular = _right_factor(found, extra)
        if not singular[0] > 0.0:
            return at
        kept = np.maximum(singular, singular[0] * NEGLIGIBLE)
        turn = basis / kept
        found = Design(at.problem, at.sigma, at.units, turn if found.R is None else found.R @ turn)
        if singular[-1] > 1e-10 * singular[0]:
            break
    return found


def _right_factor(at: Design, extra: Array) -> tuple[Array, Array]:
    """Q and the singular values Σ of the weighted rows, by QR of some rows at a time."""
    total = sum(float(np.sum(rows.chunk.weights)) for rows in at.rows())
    R = extra if at.R is None else extra @ at.R
    for rows in at.rows():
        weighted = np.sqrt(rows.chunk.weights / total)[:, None] * rows.z
        R = np.linalg.qr(np.concatenate([R, weighted]), mode="r")
    R = np.concatenate([R, np.zeros((max(at.d - len(R), 0), at.d))])
    _, singular, Qt = svd(R)
    return Qt.T, singular


def doubled_product(X: Array, T: Array) -> tuple[Array, Radius]:
    """XT for X (m, d), T (d, l), as if computed in doubled precision and rounded, and bounds of the rows'
    errors.

    X and T are cut into slices of so few bits that products of slices are sums of integers below 2^53, which
    BLAS gets exactly (Ozaki, Ogita, Oishi, Rump 2012); these are added with the errors of the additions.
    """
    bits = (53 - int(np.ceil(np.log2(max(X.shape[1], 2))))) // 2
    count = -(-110 // bits)
    left, right = _slices(X, bits, count), _slices(T.T, bits, count)
    high, low = np.zeros((len(X), T.shape[1])), np.zeros((len(X), T.shape[1]))
    for order in range(count):
        for i in range(order + 1):
            term = left[i] @ right[order - i].T
            added = high + term
            back = added - high
            low += (high - (added - back)) + (term - back)
            high = added
    z = high + low
    # Left out: slices beyond `count` in all, each 2^-bits of the one before; and the roundings of `low`.
    lost = 16.0 * X.shape[1] * (count * 2.0 ** -(bits * count) + count**4 * 2.0**-106)
    return z, Radius.row_norms(z) * (2.0 * U) + Radius.row_norms(X) * Radius.norm(T) * lost + Radius.of(
        2.0**-1000
    )


def _slices(A: Array, bits: int, count: int) -> list[Array]:
    """A (m, d) as a sum of `count` matrices, each row of which is integers of so many bits times one power of
    two, up to 2^-bits·count of the row's largest entry."""
    slices = []
    largest = np.max(np.abs(A), axis=1, keepdims=True)
    exponent = np.frexp(largest)[1]
    rest = A
    for i in range(count):
        unit = np.ldexp(1.0, np.clip(exponent - bits * (i + 1), -1074, 1023))
        part = np.rint(rest / unit) * unit
        slices.append(part)
        rest = rest - part
    return slices
