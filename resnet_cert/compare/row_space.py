"""The directions that the data do not see: F_lin is constant along every z with zᵀx_i = 0 for all i.

Where there are some, F_lin has many minimisers, and no curvature along z to locate one.  The minimiser of
least norm lies in the row space, the span of the x_i.  So a penalty on directions known to be orthogonal to
the row space leaves it where it is, and makes F_lin curved.  Such directions are proven in three ways: as the
complement of fewer samples than inputs, or as linear relations between the inputs with integer coefficients,
such as the columns of a category that sum to 1, or as the kernel of a few rows in rational arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from resnet_cert.numerics.algebra import eigh
from resnet_cert.numerics.eigenvalues import smallest_eigenvalue
from resnet_cert.numerics.enclosure import Ball
from resnet_cert.numerics.radius import Array, Radius, U, gamma

MOST_DISTINCT = 64
"""Rows an input above which it is not asked whether fewer than d of them are distinct."""
LARGEST_COEFFICIENT = 64
"""The largest coefficient of a relation that is looked for."""
MOST_RATIONAL = 2**12
"""The most operations of an elimination in rational arithmetic."""
NEGLIGIBLE = 1e-6
"""Relative size below which an entry, squared an eigenvalue, may be rounding."""


@dataclass(frozen=True)
class Unseen:
    """The columns of Z (size, m), with ‖Zᵀw‖ ≤ sine·‖w‖ for every w in the row space of the data."""

    Z: Array
    sine: float


def unseen_directions(rows: Callable[[], Iterable[Array]]) -> Unseen | None:
    """Directions proven to be unseen by the data, or None.

    Args:
        rows: gives x (m, d) of all samples, some at a time, each time it is called.
    """
    n = d = 0
    for x in rows():
        n, d = n + len(x), x.shape[1]
    if n <= MOST_DISTINCT * d:
        distinct = np.unique(np.concatenate(list(rows())), axis=0)
        complement = _complement(distinct[distinct.any(axis=1)])
        if complement is not None:
            return complement
    with np.errstate(over="ignore", invalid="ignore"):
        gram = sum((x.T @ x for x in rows()), start=np.zeros((d, d)))
    if not np.isfinite(gram).all():
        return None
    candidates = _candidates(gram)
    relations = [z for z in candidates if z is not None and all(_vanishes(x, z) for x in rows())]
    if len(relations) < len(candidates) and n <= MOST_DISTINCT * d:
        distinct = np.unique(np.concatenate(list(rows())), axis=0)
        kernel = _kernel(distinct) if distinct.size * d <= MOST_RATIONAL else None
        if kernel is not None:
            return kernel
    return Unseen(_scaled(np.stack(relations)).T, 0.0) if relations else None


def _kernel(rows: Array) -> Unseen | None:
    """The kernel, rounded: w in the row space is orthogonal to the kernel itself, so that ‖Zᵀw‖ is at most
    what rounding moves times ‖w‖."""
    pivots, d = eliminated(rows), rows.shape[1]
    free = [j for j in range(d) if j not in {column for column, _ in pivots}]
    if not free:
        return None
    vectors: list[list[Fraction]] = []
    for j in free:
        entries = {column: -row[j] for column, row in pivots} | {j: Fraction(1)}
        largest = max(abs(entry) for entry in entries.values())
        vectors.append([entries.get(i, Fraction(0)) / largest for i in range(d)])
    Z = np.array(vectors, dtype=np.float64).T
    if all(Fraction(float(entry)) == entry for vector in vectors for entry in vector):
        return Unseen(Z, 0.0)
    return Unseen(Z, float(Radius.norm(Z) * (2.0 * U) + Radius.underflow(Z.size)))


Rational = list[Fraction]


def solution_near(near: Rational, rows: list[Rational], right: Rational) -> Rational | None:
    """u near one that is given with row·u = b for all rows and their b, where it is about so; None for none.

    The columns without a pivot of Gauss–Jordan elimination keep their entries, the others follow.
    """
    size = len(near)
    pivots = eliminated([[*row, b] for row, b in zip(rows, right, strict=True)], size)
    if any(column == size for column, _ in pivots):
        return None
    exact, bound = list(near), {column for column, _ in pivots}
    for column, row in pivots:
        given = sum((row[j] * near[j] for j in range(size) if j not in bound), Fraction(0))
        exact[column] = row[size] - given
    return exact


def eliminated(rows: Array | list[Rational], width: int | None = None) -> list[tuple[int, Rational]]:
    """The columns of the pivots of Gauss–Jordan elimination, and its rows.

    width: so many columns are for pivots, and others only where they are all that is left of a row.
    """
    work = [[Fraction(e) for e in row] for row in rows if any(row)]
    pivots: list[tuple[int, Rational]] = []
    for row in work:
        for column, pivot in pivots:
            if row[column]:
                factor = row[column]
                row = [e - factor * p for e, p in zip(row, pivot, strict=True)]
        if not any(row):
            continue
        column = max(range(len(row)), key=lambda j: abs(row[j]) if width is None or j < width else 0)
        column = column if row[column] else len(row) - 1
        row = [e / row[column] for e in row]
        pivots = [
            (at, [e - other[column] * p for e, p in zip(other, row, strict=True)]) for at, other in pivots
        ]
        pivots.append((column, row))
    return pivots


def _complement(rows: Array) -> Unseen | None:
    """The complement Q of rows X (m, d), if they are independent and fewer than the columns.

    w = Xᵀc has ‖Qᵀw‖ = ‖(XQ)ᵀc‖ ≤ ‖XQ‖‖c‖ and ‖w‖ ≥ σ_min‖c‖: the sine is ‖XQ‖/σ_min.
    """
    m, d = rows.shape
    if not m < d:
        return None
    if not m:
        return Unseen(np.eye(d), 0.0)
    X = _scaled(rows)
    Q = np.linalg.qr(X.T, mode="complete")[0][:, m:]
    size = Radius.norm(X)
    off = Radius.norm(X @ Q) + size * Radius.norm(Q) * gamma(d) + Radius.underflow(X.size * Q.shape[1])
    gram = Ball(X @ X.T, size * size * gamma(d) + Radius.underflow(X.size * m))
    square = smallest_eigenvalue(gram)
    if not square.lower > 0.0:
        return None
    return Unseen(Q, float(off / square.sqrt().lower))


def _scaled(rows: Array) -> Array:
    """Each row times the power of two that makes its largest entry about 1."""
    exponents = np.frexp(np.max(np.abs(rows), axis=1, keepdims=True))[1]
    return np.asarray(np.ldexp(rows, -exponents), dtype=np.float64)


def _candidates(gram: Array) -> list[Array | None]:
    """Integer vectors that may be orthogonal to the data, from the numerical kernel of XᵀX; None for one of
    it that is not of integers."""
    units = np.sqrt(np.diagonal(gram))
    units = np.where(units > 0.0, units, 1.0)
    eigenvalues, vectors = eigh(gram / units / units[:, None])
    kernel = vectors[:, eigenvalues <= NEGLIGIBLE**2 * float(eigenvalues[-1])].T.copy()
    for i in range(len(kernel)):  # Gauss–Jordan elimination: as many zeros as can be had
        row, column = np.unravel_index(int(np.argmax(np.abs(kernel[i:]))), kernel[i:].shape)
        kernel[[i, i + int(row)]] = kernel[[i + int(row), i]]
        kernel[i] /= kernel[i, column]
        others = np.arange(len(kernel)) != i
        kernel[others] -= np.outer(kernel[others, column], kernel[i])
    return [_as_integers(np.where(np.abs(z) > NEGLIGIBLE, z, 0.0) / units) for z in kernel]


def _as_integers(z: Array) -> Array | None:
    """The least multiple of z with integer entries, if they are small."""
    least = float(np.min(np.abs(z[z != 0.0])))
    for q in range(1, LARGEST_COEFFICIENT + 1):
        integers = np.round(z * (q / least))
        if np.max(np.abs(integers)) > LARGEST_COEFFICIENT:
            return None
        if np.max(np.abs(integers - z * (q / least))) < 1e-3:
            return integers
    return None


def _vanishes(x: Array, z: Array) -> bool:
    """Proven: x z = 0 for each row of x, by operations none of which rounds.

    Products by the powers of two that make up a coefficient are exact; a sum is, where its error, which is
    computed without one (Knuth), is 0.
    """
    total = np.zeros(len(x))
    for j in np.flatnonzero(z):
        for bit in range(LARGEST_COEFFICIENT.bit_length()):
            if int(abs(z[j])) >> bit & 1:
                term = np.copysign(2.0**bit, z[j]) * x[:, j]
                added = total + term
                back = added - total
                if not np.isfinite(added).all() or ((total - (added - back)) + (term - back)).any():
                    return False
                total = added
    return not total.any()
