"""Is inf F_lin over all W attained?

It is not iff along some U no loss ever grows, and some falls: v·Ux_i ≥ 0 for all helping rays v of all
samples (`losses.Recession`), = 0 for the fixed ones, and not all 0.  That it is, is proven where its
minimiser is located (`linear_minimum`).  That it is not, by such a U: where all products are clearly
positive in float64, or one found by a linear programme and put, in rational arithmetic, exactly where the
products that vanish do so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import numpy as np

from resnet_cert.compare.row_space import eliminated
from resnet_cert.moments.executors import some_rows
from resnet_cert.numerics.radius import Array, Radius, gamma
from resnet_cert.problem.losses import Bools, BuiltinLoss, Rays
from resnet_cert.problem.problem import Chunk, Problem

LARGEST_PROGRAMME = 2**20
"""The most numbers in the rows of a linear programme,"""
MOST_RATIONAL = 2**17
"""and in those that are gone through in rational arithmetic: some seconds."""
VANISHES = 1e-7
"""What a product of the linear programme, at most 1, may be and stand for 0."""


@dataclass(frozen=True)
class Recedes:
    """possible: the loss of some sample has a helping ray.  known: the rays of the loss are known at all."""

    problem: Problem
    possible: bool
    known: bool

    def is_unattained(self, W: Array) -> bool | None:
        """True where it is proven, along W or along a direction that a linear programme finds; else None."""
        if not self.known:
            return None
        return True if separates(self.problem, W) or _recedes_exactly(self.problem) else None


def recedes(problem: Problem) -> Recedes:
    """What is known of the loss and the targets."""
    if not isinstance(problem.loss, BuiltinLoss):
        return Recedes(problem, possible=True, known=False)
    no_samples = np.zeros((0, problem.q))
    ever = problem.loss.recession(no_samples) is not None
    return Recedes(problem, possible=ever and some_rows(problem, _helps), known=True)


def _helps(problem: Problem, chunk: Chunk) -> bool:
    """A sample whose prediction a linear predictor can change, x ≠ 0, has a helping ray.

    With softmax, where rays are many, it is one that has not every class.
    """
    y = chunk.y[chunk.x.any(axis=1)]
    if is_softmax(problem):
        return bool((y == 0.0).any())
    found = problem.loss.recession(y)
    return found is not None and bool(len(found.helping.sample))


def is_softmax(problem: Problem) -> bool:
    """The rays of a sample say that the class it has stays ahead of those that it has not."""
    return problem.loss.sum_free and problem.q > 1


def _rays(problem: Problem) -> Iterator[tuple[Array, Rays, Rays]]:
    """x of each chunk with the helping and the fixed rays of its samples."""
    for chunk in problem.chunks(features=False):
        found = problem.loss.recession(chunk.y)
        if found is not None:
            yield chunk.x, found.helping, found.fixed


def separates(problem: Problem, W: Array) -> bool:
    """Proven: v·Wx_i > 0 for all helping rays of a loss that has some, and there are no fixed ones."""
    size = Radius.norm(W) * gamma(sum(W.shape) + 4)
    if is_softmax(problem):
        return not some_rows(problem, partial(_trails, W=W, size=size))
    return some_rows(problem, _has_helping) and not some_rows(problem, partial(_misses, W=W, size=size))


def _has_helping(problem: Problem, chunk: Chunk) -> bool:
    found = problem.loss.recession(chunk.y)
    return found is not None and bool(len(found.helping.sample))


def _misses(problem: Problem, chunk: Chunk, W: Array, size: Radius) -> bool:
    """A ray is fixed, or a helping one is not proven to have v·Wx > 0."""
    found = problem.loss.recession(chunk.y)
    if found is None:
        return False
    if len(found.fixed.sample):
        return True
    x, helping = chunk.x, found.helping
    margins = np.einsum("ij,ij->i", helping.vector, (x @ W.T)[helping.sample])
    least = size * Radius.row_norms(x)[helping.sample] * Radius.row_norms(helping.vector)
    return not bool(np.all(margins > least.upper))


def _trails(problem: Problem, chunk: Chunk, W: Array, size: Radius) -> bool:
    """Not proven: every sample has one class, whose prediction is above all others'."""
    x, y = chunk.x, chunk.y
    if not bool(((y > 0.0).sum(axis=1) == 1).all()):
        return True
    p, own = x @ W.T, y > 0.0
    margins = p[own] - np.where(own, -np.inf, p).max(axis=1)
    return not bool(np.all(margins > (size * Radius.row_norms(x) * 2.0).upper))


def _recedes_exactly(problem: Problem) -> bool:
    """Proven in rational arithmetic: a direction along which no loss grows and some falls."""
    size = problem.q * problem.d
    if problem.n * problem.q * size > LARGEST_PROGRAMME:
        return False
    helping, fixed = (np.concatenate(parts) for parts in zip(*_rows(problem), strict=True))
    if (len(helping) + len(fixed)) * size > LARGEST_PROGRAMME:
        return False
    direction = _direction(helping, fixed)
    if direction is None or (len(helping) + len(fixed)) * size > MOST_RATIONAL:
        return False
    vanishing, exact = direction
    u = _made_exact(exact, np.concatenate([helping[vanishing], fixed]))
    products = [_product(row, u) for row in helping]
    return all(p >= 0 for p in products) and any(p > 0 for p in products)


def _rows(problem: Problem) -> Iterator[tuple[Array, Array]]:
    """v xᵀ, row by row, for the helping and for the fixed rays of each chunk."""
    size = problem.q * problem.d
    for x, *both in _rays(problem):
        helping, fixed = (
            (rays.vector[:, :, None] * x[rays.sample][:, None, :]).reshape(-1, size) for rays in both
        )
        yield helping, fixed


def _scaled(rows: Array) -> Array:
    """Rows times powers of two that make the largest entry of each about 1."""
    largest = np.max(np.abs(rows), axis=1, keepdims=True, initial=0.0)
    return np.ldexp(rows, -np.frexp(largest)[1])


def _direction(helping: Array, fixed: Array) -> tuple[Bools, list[Fraction]] | None:
    """The u that maximises Σ h_i·u subject to 0 ≤ h_i·u ≤ 1 and fixed·u = 0, by HiGHS; None for 0.

    Which of the products vanish, and u, whose entries may be beyond all floats.  Its tolerances are absolute:
    rows are scaled to 1, and columns, which only changes the units of u.
    """
    from scipy.optimize import linprog

    rows, still = _scaled(helping), _scaled(fixed)
    largest = np.max(np.abs(np.concatenate([rows, still])), axis=0, initial=0.0)
    units = np.where(largest > 0.0, largest, 1.0)
    rows, still = rows / units, still / units
    found = linprog(
        -rows.sum(axis=0),
        A_ub=np.concatenate([-rows, rows]),
        b_ub=np.concatenate([np.zeros(len(rows)), np.ones(len(rows))]),
        A_eq=still if len(still) else None,
        b_eq=np.zeros(len(still)) if len(still) else None,
        bounds=(None, None),
    )
    if found.status != 0 or not -found.fun > VANISHES:
        return None
    u = [Fraction(x) / Fraction(unit) for x, unit in zip(found.x.tolist(), units.tolist(), strict=True)]
    return np.abs(rows @ found.x) <= VANISHES, u


def _made_exact(u: list[Fraction], rows: Array) -> list[Fraction]:
    """A vector near u with which the products of the rows vanish exactly, where they do so about with u.

    The columns without a pivot of Gauss–Jordan elimination keep their entries of u, the others follow.
    """
    exact, pivots = list(u), eliminated(rows)
    bound = {column for column, _ in pivots}
    for column, row in pivots:
        exact[column] = -sum((row[j] * exact[j] for j in range(len(row)) if j not in bound), Fraction(0))
    return exact


def _product(row: Array, u: list[Fraction]) -> Fraction:
    return sum((Fraction(float(a)) * b for a, b in zip(row, u, strict=True) if a), Fraction(0))
