"""Is inf F_lin over all W attained?

It is not iff along some U no loss ever grows, and some falls: v·Ux_i ≥ 0 for all helping rays v of all
samples (`losses.Recession`), = 0 for the fixed ones, and not all 0.  That it is, is proven where its
minimiser is located (`linear_minimum`).  That it is not, by such a U: where all products are clearly
positive in float64, or one found by a linear programme and put, in rational arithmetic, exactly where the
products that vanish do so.  Where the programme finds none, the weights of its dual, made exact, prove that
there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import numpy as np

from resnet_cert.compare.design import NEGLIGIBLE, doubled_product
from resnet_cert.compare.row_space import Rational, solution_near
from resnet_cert.moments.executors import some_rows
from resnet_cert.numerics.algebra import svd
from resnet_cert.numerics.radius import Array, Radius, gamma
from resnet_cert.problem.losses import Bools, BuiltinLoss, Rays
from resnet_cert.problem.problem import Chunk, Problem

LARGEST_PROGRAMME = 2**20
"""The most numbers in the rows of a linear programme,"""
MOST_RATIONAL = 2**17
"""and in those that are gone through in rational arithmetic: some seconds."""
UNSEEN = 1e-6
"""A singular value of rows that were scaled to 1 before which is rounding."""
MOST_LEVELS = 4
"""So often what does not seem to recede is looked at more closely."""


@dataclass(frozen=True)
class Recedes:
    """possible: the loss of some sample has a helping ray.  known: the rays of the loss are known at all."""

    problem: Problem
    possible: bool
    known: bool

    def is_attained(self, W: Array) -> bool | None:
        """Where it is proven: not, along W or along a direction that a linear programme finds; or that there
        is no such direction."""
        if not self.known:
            return None
        return False if separates(self.problem, W) else _is_attained(self.problem)


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
    if not np.all(margins > 0.0):  # as on most of a search, where norms take longer than that
        return True
    least = size * Radius.row_norms(x)[helping.sample] * Radius.row_norms(helping.vector)
    return not bool(np.all(margins > least.upper))


def _trails(problem: Problem, chunk: Chunk, W: Array, size: Radius) -> bool:
    """Not proven: every sample has one class, whose prediction is above all others'."""
    x, y = chunk.x, chunk.y
    if not bool(((y > 0.0).sum(axis=1) == 1).all()):
        return True
    p, own = x @ W.T, y > 0.0
    margins = p[own] - np.where(own, -np.inf, p).max(axis=1)
    if not np.all(margins > 0.0):
        return True
    return not bool(np.all(margins > (size * Radius.row_norms(x) * 2.0).upper))


@dataclass(frozen=True)
class Face:
    """How the losses recede, as a linear programme has it; nothing of it is proven.

    direction: U, flat, along which as many losses fall for ever as can.  recedes: which of the helping rays
    have v·Ux > 0.
    """

    direction: Rational
    recedes: Bools

    def stays(self, problem: Problem) -> Bools:
        """(n, q): the outputs of a sample, or its classes, that do not recede."""
        stays, rest = [], self.recedes
        for chunk in problem.chunks(features=False):
            of_chunk, found = np.ones(chunk.y.shape, dtype=bool), problem.loss.recession(chunk.y)
            if found is not None:
                sample, vector = found.helping
                here, rest = np.split(rest, [len(sample)])
                losing = -vector if is_softmax(problem) else np.abs(vector)
                of_chunk[sample, np.argmax(losing, axis=1)] = ~here
            stays.append(of_chunk)
        return np.concatenate(stays)


def receding_faces(problem: Problem) -> Iterator[Face]:
    """What may recede; none where it costs too much to ask, or nothing does."""
    rows = _affordable(problem)
    if rows is not None:
        yield from (face for _, face in _faces(*rows) if face.recedes.any())


def _is_attained(problem: Problem) -> bool | None:
    """In rational arithmetic: not, for a direction along which no loss grows and some falls; it is, where
    there is none, for weights λ > 0 with Σ λ_i h_i = 0 over all helping rays, up to fixed ones (Stiemke)."""
    rows = _affordable(problem)
    if rows is None or sum(part.size for part in rows) > MOST_RATIONAL:
        return None
    helping, fixed = rows
    for seen, face in _faces(helping, fixed):
        if face.recedes.any():
            u = _vanishing(face.direction, np.concatenate([helping[~face.recedes], fixed]))
            products = [_product(row, u) for row in helping]
            if all(p >= 0 for p in products) and any(p > 0 for p in products):
                return False
        elif (weights := _balancing(seen, len(helping))) is not None:
            exact = _vanishing(weights, np.concatenate([helping, fixed]).T)
            if all(weight > 0 for weight in exact[: len(helping)]):
                return True
    return None


def _affordable(problem: Problem) -> tuple[Array, Array] | None:
    """v xᵀ, row by row, for all helping and all fixed rays; None where none helps, or they are too many."""
    size = problem.q * problem.d
    if problem.n * problem.q * size > LARGEST_PROGRAMME:
        return None
    parts = list(_rows(problem))
    if not parts:
        return None
    helping, fixed = (np.concatenate(rows) for rows in zip(*parts, strict=True))
    if not len(helping) or (len(helping) + len(fixed)) * size > LARGEST_PROGRAMME:
        return None
    return helping, fixed


def _rows(problem: Problem) -> Iterator[tuple[Array, Array]]:
    """v xᵀ, row by row, for the helping and for the fixed rays of each chunk.

    With softmax without the last class: v sums to 0, so that U may be taken with a last row of 0.
    """
    outputs = problem.q - is_softmax(problem)
    for x, *both in _rays(problem):
        helping, fixed = (
            (rays.vector[:, :outputs, None] * x[rays.sample][:, None, :]).reshape(-1, outputs * problem.d)
            for rays in both
        )
        yield helping, fixed


@dataclass(frozen=True)
class Seen:
    """Rows in coordinates diag(2^−columns)·T, each about 1 long in units of 2^exponents."""

    columns: Array
    T: Array
    rows: Array
    exponents: Array

    @staticmethod
    def of(rows: Array) -> Seen:
        """In coordinates in which they have singular values about 1, in doubled precision."""
        lengths = _exponents(rows, axis=1)
        columns = _exponents(np.ldexp(rows, -lengths), axis=0)
        scaled = np.ldexp(rows, -lengths - columns)
        T, is_seen = _turned(scaled, np.eye(rows.shape[1]))
        return Seen._in(columns[0], lengths, scaled, T[:, is_seen])

    def by(self, rows: Array, some: Bools) -> Seen:
        """In coordinates in which some of the rows have, and what these do not see is much longer."""
        lengths = _exponents(rows, axis=1)
        scaled = np.ldexp(rows, -lengths - self.columns)
        return Seen._in(self.columns, lengths, scaled, _turned(scaled[some], self.T)[0])

    @staticmethod
    def _in(columns: Array, lengths: Array, scaled: Array, T: Array) -> Seen:
        turned = doubled_product(scaled, T)[0]
        more = _exponents(turned, axis=1)
        return Seen(columns, T, np.ldexp(turned, -more), (lengths + more)[:, 0])

    def direction(self, u: Array) -> Rational:
        """In the coordinates that were given, where it may be beyond all floats."""
        exact = list(map(Fraction, u.tolist()))
        units = [Fraction(2) ** -exponent for exponent in self.columns.tolist()]
        return [_product(row, exact) * unit for row, unit in zip(self.T, units, strict=True)]


def _turned(rows: Array, T: Array) -> tuple[Array, Bools]:
    """T times a matrix such that rows·T has singular values about 1, and which columns the rows see."""
    is_seen = np.ones(T.shape[1], dtype=bool)
    for step in range(2):  # the second factorisation makes up for the roundings of the first
        _, singular, Qt = svd(doubled_product(rows, T)[0], full_matrices=True)
        singular = np.append(singular, np.zeros(len(Qt) - len(singular)))
        is_seen = singular > singular[0] * (0.0 if step == 0 else UNSEEN)
        least = singular[0] * NEGLIGIBLE if step == 0 and singular[0] else 1.0
        T = T @ (Qt.T / np.where(is_seen, np.maximum(singular, least), least))
    return T, is_seen


def _exponents(rows: Array, axis: int) -> Array:
    return np.frexp(np.max(np.abs(rows), axis=axis, keepdims=True, initial=0.0))[1]


def _faces(helping: Array, fixed: Array) -> Iterator[tuple[Seen, Face]]:
    """What recedes as it is seen in coordinates that suit all rows; then in such as suit those that did not,
    which may only have been too nearly alike to be told apart."""
    rows = np.concatenate([helping, fixed])
    some, seen = np.ones(len(rows), dtype=bool), Seen.of(rows)
    for _ in range(MOST_LEVELS):
        face = _face(seen, len(helping)) if np.isfinite(seen.rows).all() else None
        if face is None:
            return
        yield seen, face
        left = np.append(~face.recedes, np.ones(len(fixed), dtype=bool))
        if not left.any() or left.all() or (left == some).all():
            return
        some, seen = left, seen.by(rows, left)


def _face(seen: Seen, m: int) -> Face | None:
    """The most Σ t_i with h_i·u ≥ t_i, 0 ≤ t_i ≤ 1, and fixed·u = 0, by HiGHS: t_i is 1 for all of the m rays
    that can recede, and else 0.  None where it does not say.
    """
    from scipy.optimize import linprog
    from scipy.sparse import csr_array, eye_array, hstack

    size = seen.rows.shape[1]
    falls, still = np.split(seen.rows, [m])
    found = linprog(
        np.repeat([0.0, -1.0], [size, m]),
        A_ub=hstack([csr_array(-falls), eye_array(m)]),
        b_ub=np.zeros(m),
        A_eq=hstack([csr_array(still), csr_array((len(still), m))]) if len(still) else None,
        b_eq=np.zeros(len(still)) if len(still) else None,
        bounds=[(None, None)] * size + [(0.0, 1.0)] * m,
    )
    if found.status != 0:
        return None
    u, t = np.split(found.x, [size])
    return Face(seen.direction(u), t > 0.5)


def _balancing(seen: Seen, m: int) -> Rational | None:
    """λ ≤ 1, the least of them as large as it can be, with Σ λ_i h_i = 0 up to fixed rays; None for none."""
    from scipy.optimize import linprog

    count, size = seen.rows.shape
    found = linprog(
        np.append(np.zeros(count), -1.0),
        A_ub=np.concatenate([-np.eye(m, count), np.ones((m, 1))], axis=1),
        b_ub=np.zeros(m),
        A_eq=np.concatenate([seen.rows.T, np.zeros((size, 1))], axis=1),
        b_eq=np.zeros(size),
        bounds=[(0.0, 1.0)] * m + [(None, None)] * (count - m) + [(None, None)],
    )
    if found.status != 0 or not found.x[-1] > 0.0:
        return None
    pairs = zip(found.x[:-1].tolist(), seen.exponents.tolist(), strict=True)
    return [Fraction(weight) / Fraction(2) ** exponent for weight, exponent in pairs]


def _vanishing(u: Rational, rows: Array) -> Rational:
    """A vector near u with which the products of the rows vanish exactly, where they do so about with u."""
    exact = solution_near(u, rows.tolist(), [Fraction(0)] * len(rows))
    return u if exact is None else exact  # there is one: 0


def _product(row: Array, u: Rational) -> Fraction:
    return sum((Fraction(float(a)) * b for a, b in zip(row, u, strict=True) if a), Fraction(0))
