"""Upper bounds of sizes and errors: the only numbers that an error bound is made of.

A `Radius` is a number ≥ 0 that is at least some exact number, or an array of such.  Whatever is computed with
it is at least what exact arithmetic would give with the exact numbers: every operation rounds up, and adds
`FLOOR`, so that no product underflows before a large factor meets it.  That a size is exactly 0 is a fact
that is known where the number is made (`NOTHING`, a norm of zeros) and carried along in `exact`; it is
never concluded from a bound that came out as 0.

After n roundings to nearest a float is at least (1 − u)ⁿ of the exact result, or short of it by half of the
smallest subnormal number where it underflowed; `_up` makes up for either, once after every operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

U = 2.0**-53
"""Unit roundoff of float64, round to nearest."""
FLOOR = 2.0**-1022
"""The smallest normal number: more than one operation that underflows can lose, flushed to 0 or not."""
MOST_ROUNDINGS = 2**21


def gamma(k: int) -> float:
    """γ_k = ku/(1 − ku), rounded up: the relative error of k roundings (Higham 2002, Lemma 3.1)."""
    if k >= MOST_ROUNDINGS:
        raise ValueError(f"expected fewer than 2^21 roundings, got {k}")
    return k * U * (1.0 + 2.0**-30)


def _up(bound: Any, roundings: int = 1) -> Any:
    """At least the exact number of which `bound` was computed with so many roundings.

    An array is raised in place: it has to be one that nobody else holds.
    """
    factor = 1.0 + (roundings + 3) * (2.0 * U)
    if isinstance(bound, np.ndarray):
        bound *= factor
        bound += FLOOR
        return bound
    return bound * factor + FLOOR


def exponent(x: Array) -> int:
    """The e with 2^(e−1) ≤ max |x| < 2^e, for an x that is finite and not 0."""
    return int(np.frexp(np.max(np.abs(x)))[1])


@dataclass(frozen=True, slots=True, eq=False)
class Radius:
    """Upper bounds, each ≥ 0: a number, or an array.

    upper: the bounds; infinite or NaN where nothing is known.  exact: all of them stand for 0 itself.
    """

    upper: Any
    exact: bool = False

    __array_ufunc__ = None  # array · Radius is Radius.__rmul__, not an array of objects

    @staticmethod
    def of(bound: Any) -> Radius:
        """A bound that is known, ≥ 0: a float or an array."""
        return Radius(np.asarray(bound, dtype=np.float64)[()])

    @staticmethod
    def size(x: Any) -> Radius:
        """|x| of a number, or of each entry of an array: of the floats as they are, which are not exactly 0
        where they stand for something that underflowed."""
        return Radius(np.abs(np.asarray(x, dtype=np.float64))[()], not np.any(x))

    @staticmethod
    def underflow(operations: int) -> Radius:
        """What so many products, or quotients, can lose together by underflow."""
        return Radius(np.float64(operations * FLOOR))

    @staticmethod
    def norm(v: Array) -> Radius:
        """‖v‖, Euclidean; of a matrix Frobenius'."""
        rows = Radius.row_norms(np.asarray(v, dtype=np.float64).reshape(1, -1))
        return Radius(rows.upper[0], rows.exact)

    @staticmethod
    def row_norms(v: Array) -> Radius:
        """(m,) Euclidean norms of the rows of v (m, q).

        Squares are taken of numbers scaled by a power of two, so that none overflows and those that underflow
        are worth less than 2^-500 of the largest entry.
        """
        if v.shape[1] == 1:
            return Radius.size(v[:, 0])
        squares = np.einsum("ij,ij->i", v, v)
        largest = float(np.max(squares, initial=0.0))
        roundings = v.shape[1] + 4
        if 2.0**-760 < largest < 2.0**1000:
            return Radius(_up(np.sqrt(squares) + 2.0**-500, roundings))
        if not v.any():
            return Radius(np.zeros(len(v)), exact=True)
        finite = np.asarray(np.isfinite(v).all(axis=1))
        if not finite.all():
            known = Radius.row_norms(np.where(finite[:, None], v, 0.0)).upper
            return Radius(np.where(finite, known, np.inf))
        scale = 2.0 ** min(max(exponent(v), -1020), 1020)
        scaled = v / scale
        lengths = np.sqrt(np.einsum("ij,ij->i", scaled, scaled)) + 2.0**-500
        return Radius(_up(_up(lengths, roundings) * scale))

    def __add__(self, other: Radius) -> Radius:
        if self.exact:
            return other
        return self if other.exact else Radius(_up(self.upper + other.upper))

    def __mul__(self, other: Radius | Array | float) -> Radius:
        """With plain numbers ≥ 0: constants of a proof, or weights."""
        if self.exact:
            return self
        if isinstance(other, Radius):
            return other if other.exact else Radius(_up(self.upper * other.upper))
        return Radius(_up(self.upper * other))

    __rmul__ = __mul__

    def __truediv__(self, least: Array | float) -> Radius:
        """Over numbers that are at least `least` ≥ 0."""
        return self if self.exact else Radius(_up(np.divide(self.upper, least)))

    def __getitem__(self, index: Any) -> Radius:
        return NOTHING if self.exact else Radius(self.upper[index])

    def sqrt(self) -> Radius:
        return self if self.exact else Radius(_up(np.sqrt(self.upper)))

    def sum(self) -> Radius:
        """The sum of all entries."""
        if self.exact:
            return NOTHING
        return Radius(_up(np.sum(self.upper), np.size(self.upper)))

    def max(self) -> Radius:
        """The largest entry; 0 of none."""
        return NOTHING if self.exact else Radius(np.max(self.upper, initial=0.0))

    def capped(self, most: Any) -> Radius:
        """The same numbers, known besides to be at most `most`."""
        return self if self.exact else Radius(np.fmin(self.upper, most))

    def at_least(self, least: Any) -> Radius:
        """max(x, least), for a constant ≥ 0."""
        return Radius(np.maximum(self.upper, least))

    def expm1(self) -> Radius:
        """e^x − 1: how far a quantity whose logarithm is 1-Lipschitz goes within x, relatively.

        NumPy's expm1 is taken to be within 2^-40 of itself.
        """
        return self if self.exact else Radius(_up(np.expm1(self.upper) * (1.0 + 2.0**-40)))

    def __float__(self) -> float:
        """One bound as a float: infinite where it is not a number."""
        bound = float(self.upper)
        return np.inf if np.isnan(bound) else bound

    @property
    def known(self) -> bool:
        """All bounds are finite."""
        return bool(np.isfinite(self.upper).all())


NOTHING = Radius(np.float64(0.0), exact=True)
"""The error of what is exact."""
UNBOUNDED = Radius(np.float64(np.inf))


def total(*parts: Radius) -> Radius:
    """Σ parts."""
    whole = NOTHING
    for part in parts:
        whole = whole + part
    return whole


def hypot(*parts: Radius) -> Radius:
    """√Σ parts², free of overflow and underflow."""
    known = [part for part in parts if not part.exact]
    if not known:
        return NOTHING
    upper = known[0].upper * 1.0
    for part in known[1:]:
        upper = np.hypot(upper, part.upper)
    return Radius(_up(upper, 16 * len(known)))
