"""Where the verifier's arithmetic takes place, balls (Arb) or rational numbers, and definiteness in it.

What a function returns as True is proven; False says only that it is not (not at this precision).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from flint import arb, arb_mat, fmpq, fmpq_mat

Array = npt.NDArray[np.float64]
Matrix = Any

ELIMINATED, ELIMINATED_AT_MOST = 64, 256
"""Sizes up to which a matrix is eliminated entry by entry: at once, or where its float factor is no proof."""


class Field(NamedTuple):
    """An exact number from a float, matrices over these numbers, and the root of a nonnegative fraction, None
    where it is not in the field."""

    number: Callable[[float], Any]
    matrix: Callable[..., Any]
    root: Callable[[Fraction], Any | None]
    exact: bool

    def of(self, array: Array) -> Matrix:
        """A float array as a matrix of numbers, a vector as one column."""
        rows = array.reshape(len(array), -1)
        entries = rows.ravel().tolist()
        return self.matrix(*rows.shape, entries if self is BALLS else [self.number(v) for v in entries])

    def fraction(self, value: Fraction) -> Any:
        """The number itself, or a ball around it."""
        ratio = fmpq(value.numerator, value.denominator)
        return ratio if self.exact else arb(ratio)

    def zeros(self, rows: int, columns: int) -> Matrix:
        return self.matrix(rows, columns)

    def identity(self, size: int) -> Matrix:
        result = self.matrix(size, size)
        for i in range(size):
            result[i, i] = self.number(1.0)
        return result


def _rational_root(square: Fraction) -> fmpq | None:
    root = Fraction(math.isqrt(square.numerator), math.isqrt(square.denominator))
    return fmpq(root.numerator, root.denominator) if root**2 == square else None


BALLS = Field(arb, arb_mat, lambda square: arb(fmpq(square.numerator, square.denominator)).sqrt(), False)
RATIONALS = Field(lambda v: fmpq(*v.as_integer_ratio()), fmpq_mat, _rational_root, True)


def squares(numbers: Iterable[Any], zero: Any) -> Any:
    return sum((v * v for v in numbers), zero)


def semidefinite(S: Matrix, *, strictly: bool = False) -> bool:
    """S ⪰ 0 (S ≻ 0): S = LDLᵀ with D ≥ 0, a zero pivot allowed where its column has become zero.

    Args:
        S: a symmetric matrix.
    """
    size = S.nrows()
    if size > ELIMINATED and _near_identity(S):
        return True
    if size > ELIMINATED_AT_MOST:
        return False
    for column in _columns(S):
        if not column[0] > 0 and (strictly or not all(entry == 0 for entry in column)):
            return False
    return True


def indefinite(S: Matrix) -> bool:
    """S ⋡ 0: a pivot of LDLᵀ is negative after positive ones.

    Args:
        S: a symmetric matrix, of at most ELIMINATED_AT_MOST rows.
    """
    if S.nrows() > ELIMINATED_AT_MOST:
        return False
    for column in _columns(S):
        if not column[0] > 0:
            return bool(column[0] < 0)
    return False


def _columns(S: Matrix) -> Iterator[list[Any]]:
    """What is left of each column of S, from its pivot down, before LDLᵀ eliminates it; a pivot that is not
    positive eliminates nothing."""
    size = S.nrows()
    rows = [row[: i + 1] for i, row in enumerate(S.tolist())]
    for j in range(size):
        column = [rows[i][j] for i in range(j, size)]
        yield column
        if not column[0] > 0:
            continue
        for i in range(j + 1, size):
            factor = rows[i][j] / column[0]
            for l in range(j + 1, i + 1):
                rows[i][l] -= factor * rows[l][j]


def _near_identity(S: Matrix) -> bool:
    """S ≻ 0, since T = GSGᵀ has dominant positive diagonal entries, hence T ≻ 0, for some G.

    Any G is a proof: Gᵀv = 0 contradicts vᵀTv > 0, so every z ≠ 0 is some Gᵀv and zᵀSz = vᵀTv > 0.  This
    G is the inverse of a floating-point Cholesky factor of S, about which nothing need be known.
    """
    size = range(S.nrows())
    diagonal = [S[i, i] for i in size]
    if not all(isinstance(entry, arb) and entry > 0 and entry.is_finite() for entry in diagonal):
        return False
    scale = [float(entry.rsqrt().mid()) for entry in diagonal]
    scaled = np.array([[float(scale[i] * S[i, j].mid() * scale[j]) for j in size] for i in size])
    try:
        inverse: Array = np.linalg.inv(np.linalg.cholesky(scaled)).astype(np.float64)
    except np.linalg.LinAlgError:
        return False
    if not np.isfinite(inverse).all():
        return False
    G = BALLS.of(inverse * scale)
    T = G * S * G.transpose()
    return all(T[i, i] > sum((abs(T[i, j]) for j in size if j != i), arb(0)) for i in size)


def spectral_norm_at_most(A: Matrix, c: Any, field: Field, *, strictly: bool = False) -> bool:
    """‖A‖_2 ≤ c (< c), c ≥ 0: c²I − AᵀA ⪰ 0 (≻ 0) on the shorter side; Frobenius' norm is tried first."""
    if not c >= 0:
        return False
    total = squares(A.entries(), field.number(0.0))
    if total < c * c or (not strictly and total <= c * c):
        return True
    tall = A if A.nrows() >= A.ncols() else A.transpose()
    gram = tall.transpose() * tall
    return semidefinite(c * c * field.identity(gram.nrows()) - gram, strictly=strictly)
