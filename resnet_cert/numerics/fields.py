"""Exact and ball arithmetic by python-flint: the numbers that decide what float64 leaves open.

A `Field` is one kind of number, with its matrices: balls of a working precision, which say "more", "less" or
nothing, or rational numbers, which decide every comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from flint import arb, arb_mat, ctx, fmpq, fmpq_mat

from resnet_cert.numerics.enclosure import Array, Ball, Enclosure
from resnet_cert.numerics.radius import UNBOUNDED, Radius


@dataclass(frozen=True)
class Field:
    """The numbers that a computation runs in: `number` makes one of a float, an integer or another
    field's."""

    number: Callable[[Any], Any]
    matrix: Callable[..., Any]
    exact: bool

    def of(self, a: Array) -> Any:
        """A float64 matrix."""
        return self.matrix(*a.shape, self.numbers(a))

    def numbers(self, a: Array) -> list[Any]:
        return [self.number(v) for v in np.ravel(a).tolist()]

    def cast(self, M: Any) -> Any:
        """A matrix of another field."""
        return self.matrix(M.nrows(), M.ncols(), [self.number(x) for x in M.entries()])

    def zeros(self, rows: int, columns: int) -> Any:
        return self.matrix(rows, columns, [self.number(0)] * (rows * columns))

    def identity(self, size: int) -> Any:
        return self.matrix(size, size, [self.number(int(i == j)) for i in range(size) for j in range(size)])

    def sum(self, terms: Iterable[Any]) -> Any:
        return sum(terms, self.number(0))


def _rational(x: Any) -> fmpq:
    if isinstance(x, fmpq):
        return x
    ratio = Fraction(x)
    return fmpq(ratio.numerator, ratio.denominator)


def _ball(x: Any) -> arb:
    return arb(x.numerator) / x.denominator if isinstance(x, Fraction) else arb(x)


BALLS = Field(_ball, arb_mat, exact=False)
RATIONALS = Field(_rational, fmpq_mat, exact=True)


def root(field: Field, square: Fraction) -> Any:
    """√square in the field; None where it is irrational and the field is exact."""
    if not field.exact:
        return (arb(square.numerator) / square.denominator).sqrt()
    roots = [math.isqrt(part) for part in (square.numerator, square.denominator)]
    if [root * root for root in roots] != [square.numerator, square.denominator]:
        return None
    return fmpq(*roots)


def at_most(x: Any, y: Any) -> bool | None:
    """x ≤ y?  None where balls overlap."""
    if x <= y:
        return True
    return False if x > y else None


def inner(M: Any, N: Any) -> Any:
    """⟨M, N⟩ = Σ_ij M_ij N_ij."""
    return sum((a * b for a, b in zip(M.entries(), N.entries(), strict=True)), M[0, 0] * 0)


def is_positive_semidefinite(field: Field, rows: list[list[Any]]) -> bool | None:
    """By LDLᵀ: positive pivots prove it, a negative one disproves it, a rational 0 needs a zero row.

    None where a ball straddles 0.

    Args:
        rows: the lower triangle, row i of i + 1 numbers; overwritten.
    """
    m = len(rows)
    for j in range(m):
        pivot = rows[j][j]
        if pivot < 0:
            return False
        if field.exact and pivot == 0:
            if any(rows[i][j] != 0 for i in range(j + 1, m)):
                return False
            continue
        if not pivot > 0:
            return None
        inverse = 1 / pivot
        column = [rows[i][j] for i in range(j + 1, m)]
        for i in range(j + 1, m):
            if column[i - j - 1] == 0:
                continue
            factor, row = column[i - j - 1] * inverse, rows[i]
            for l in range(j + 1, i + 1):
                row[l] -= factor * column[l - j - 1]
    return True


def independent_rows(M: fmpq_mat) -> fmpq_mat:
    """Rows that span those of a rational matrix, as many as its rank."""
    echelon, rank = M.rref()
    columns = M.ncols()
    return fmpq_mat(rank, columns, echelon.entries()[: rank * columns])


# --- To float64 ---------------------------------------------------------------------------------------------


def outward(x: Any) -> Enclosure:
    """The float64 enclosure of a number of a field."""
    x = arb(x)
    return Enclosure(float(x.mid()), _float(x.lower(), -math.inf), _float(x.upper(), math.inf))


def _float(x: Any, towards: float) -> float:
    """The nearest float to an exact ball, on the side of `towards`."""
    if not x.is_finite():
        return towards
    rounded = float(x)
    if math.isinf(rounded):
        return towards if rounded == towards else math.nextafter(rounded, -rounded)
    inside = arb(rounded) < x if towards > 0 else arb(rounded) > x
    return math.nextafter(rounded, towards) if inside else rounded


def in_float64(entries: Sequence[Any], shape: tuple[int, ...]) -> Ball:
    """An array of numbers as a ball around the nearest floats, in Frobenius norm."""
    rounded = [outward(entry) for entry in entries]
    center = np.array([entry.value for entry in rounded]).reshape(shape)
    exact = all(entry.lower == entry.upper for entry in rounded)
    if exact or not rounded:
        return Ball.exact(center)
    spread = [max(entry.upper - entry.value, entry.value - entry.lower) for entry in rounded]
    radius = Radius.norm(np.array(spread)) * (
        1.0 + 2.0**-50
    )  # a difference of neighbours is rounded, if at all, once
    return Ball(center, radius if np.isfinite(center).all() else UNBOUNDED)


def elementary() -> dict[str, Callable[[Array], Array]]:
    """exp, expm1, log1p and √(1 + r²) of float64 arrays, evaluated in balls: within one unit in the last
    place."""

    def each(function: Callable[[Any], Any]) -> Callable[[Array], Array]:
        def apply(x: Array) -> Array:
            with ctx.workprec(128):
                values = [_nearest(function(arb(v))) for v in np.ravel(x).tolist()]
            return np.array(values, dtype=np.float64).reshape(np.shape(x))

        return apply

    return {
        "exp": each(lambda x: x.exp()),
        "expm1": each(lambda x: x.expm1()),
        "log1p": each(lambda x: x.log1p()),
        "hypot1": each(lambda r: (1 + r * r).sqrt()),
    }


def _nearest(x: Any) -> float:
    """The midpoint as a float; what overflows is infinite."""
    return float(x.mid()) if abs(x) < arb(2) ** 1024 else math.inf
