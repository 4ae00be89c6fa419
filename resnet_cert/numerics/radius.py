"""Upper bounds of sizes and errors: the only numbers that an error bound is made of.

A `Radius` is a number ≥ 0 that is at least some exact number, or an array of such.  Whatever is computed with
it is at least what exact arithmetic would give with the exact numbers: every operation rounds up, and all but
sums, which do not underflow, add `FLOOR`, so that no product underflows before a large factor meets it.  That
a size is exactly 0 is a fact that is known where the number is made (`NOTHING`, a norm of zeros) and carried
along in `exact`; it is never concluded from a bound that came out as 0.

After n roundings to nearest a float is at least (1 − u)ⁿ of the exact result, or short of it by half of the
smallest subnormal number where it underflowed; `_up` makes up for either, once after every operation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

U = 2.0**-53
"""Unit roundoff of float64, round to nearest."""
FLOOR = 2.0**-1022
"""The smallest normal number: more than one operation that underflows can lose, flushed to 0 or not."""
MOST_ROUNDINGS = 2**21
WIDE = 64
"""Rows from this many numbers on are quicker to multiply one by one."""


def gamma(k: int) -> float:
    """γ_k = ku/(1 − ku), rounded up: the relative error of k roundings (Higham 2002, Lemma 3.1)."""
    if k >= MOST_ROUNDINGS:
        raise ValueError(f"expected fewer than 2^21 roundings, got {k}")
    return k * U * (1.0 + 2.0**-30)


def _up(bound: Any, roundings: int = 1, lost: float | None = None) -> Any:
    """At least the exact number of which `bound` was computed with so many roundings.

    An array is raised in place: it has to be one that nobody else holds.  lost: what underflow may take.
    """
    factor, floor = 1.0 + (roundings + 3) * (2.0 * U), FLOOR if lost is None else lost
    if isinstance(bound, np.ndarray):
        bound *= factor
        if floor:
            bound += floor
        return bound
    return bound * factor + floor


def exponent(x: Array) -> int:
    """The e with 2^(e−1) ≤ max |x| < 2^e, for an x that is finite and not 0."""
    return int(np.frexp(np.max(np.abs(x)))[1])


def squared_norms(v: Array) -> Array:
    """(m,) Σ_j v_ij², in any order."""
    if v.shape[1] < WIDE:
        return np.einsum("ij,ij->i", v, v)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.vecdot(v, v)


def _row_norms(v: Array) -> Array:
    """Upper bounds of the norms of rows, each computed in a unit near its largest entry.

    There the squares that underflow are worth less than a rounding.  Scaling back is exact, but for half of
    the smallest subnormal number.
    """
    unit = np.frexp(np.max(np.abs(v), axis=1, initial=0.0))[1]
    scaled = np.ldexp(v, -unit[:, None])
    lengths = _up(np.sqrt(np.einsum("ij,ij->i", scaled, scaled)), 2 * v.shape[1] + 4)
    bounds = np.ldexp(lengths, unit)
    bounds = np.where(bounds < 2.0 * FLOOR, np.nextafter(bounds, np.inf), bounds)
    return np.where(v.any(axis=1), bounds, 0.0)


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
        v = np.asarray(v, dtype=np.float64)
        square = float(np.vdot(v, v))
        if 2.0**-800 < square < 2.0**1000:  # as `row_norms`, for one row
            return Radius(np.float64(_up(math.sqrt(square), v.size + 4, 2.0**-499)))
        rows = Radius.row_norms(v.reshape(1, -1))
        return Radius(rows.upper[0], rows.exact)

    @staticmethod
    def row_norms(v: Array) -> Radius:
        """(m,) Euclidean norms of the rows of v (m, q), a row by itself where squares may underflow."""
        if v.shape[1] == 1:
            return Radius.size(v[:, 0])
        squares = squared_norms(v)
        largest = float(np.max(squares, initial=0.0))
        if largest < 2.0**1000:
            bounds = _up(np.sqrt(squares), v.shape[1] + 4, 2.0**-499)  # for squares that underflowed
            if float(np.min(squares, initial=1.0)) < 2.0**-800:
                small = squares < 2.0**-800
                bounds[small] = _row_norms(v[small])
            return Radius(bounds, largest == 0.0 and not v.any())
        finite = np.asarray(np.isfinite(v).all(axis=1))
        bounds = np.full(len(v), np.inf)
        bounds[finite] = _row_norms(v[finite])
        return Radius(bounds)

    @staticmethod
    def roots(squares: Array, terms: int) -> Radius:
        """(m,) Euclidean norms of rows, from the sums of their squares: so many terms, added in any order.

        Of a sum below 2^-800 nothing is known but that: squares may have underflowed.
        """
        return Radius(_up(np.sqrt(np.maximum(squares, 2.0**-800)), terms + 4, 2.0**-499))

    @staticmethod
    def stacked(parts: Sequence[Radius]) -> Radius:
        """(m,) those of consecutive rows."""
        return Radius(np.concatenate([part.upper for part in parts]), all(part.exact for part in parts))

    def __add__(self, other: Radius) -> Radius:
        if self.exact:
            return other
        return self if other.exact else Radius(_up(self.upper + other.upper, lost=0.0))  # none underflows

    def __mul__(self, other: Radius | Array | float) -> Radius:
        """With plain numbers ≥ 0: constants of a proof, or weights."""
        if self.exact:
            return self
        if isinstance(other, Radius):
            return other if other.exact else Radius(_up(self.upper * other.upper))
        if isinstance(other, float) and 2.0**-900 < other < 2.0**900:
            product = self.upper * (other * (1.0 + 8.0 * U))  # raised for its own rounding and the product's
            product += FLOOR
            return Radius(product)
        return Radius(_up(self.upper * other))

    __rmul__ = __mul__

    def __truediv__(self, least: Array | float) -> Radius:
        """Over numbers that are at least `least`; nothing is known where that is not positive."""
        return self if self.exact else Radius(_up(np.divide(self.upper, np.maximum(least, 0.0))))

    def __getitem__(self, index: Any) -> Radius:
        return NOTHING if self.exact else Radius(self.upper[index])

    def shifted(self, power: int) -> Radius:
        """Times 2^power, in steps that are floats."""
        step = max(-1000, min(power, 1000))
        if self.exact or not power:
            return self
        return (self * 2.0**step).shifted(power - step)

    def sqrt(self) -> Radius:
        return self if self.exact else Radius(_up(np.sqrt(self.upper)))

    def sum(self) -> Radius:
        """The sum of all entries."""
        if self.exact:
            return NOTHING
        return Radius(_up(np.sum(self.upper), np.size(self.upper)))

    def inner(self, other: Radius) -> Radius:
        """(b,) Σ_j x_ij y_ij of numbers x, y (b, m)."""
        if self.exact or other.exact:
            return NOTHING
        m = self.upper.shape[1]
        return Radius(_up(np.einsum("ij,ij->i", self.upper, other.upper), m, (m + 1) * FLOOR))

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


def of_sum(radius: tuple[Radius, Radius], size: tuple[Radius, Radius]) -> tuple[Radius, Radius]:
    """The radius and the size of fl(a + b), from those of a and b: r = r_a + r_b + u(s + r_a + r_b) with
    s = s_a + s_b."""
    (r_a, r_b), (s_a, s_b) = radius, size
    if r_a.exact or r_b.exact or s_a.exact or s_b.exact:
        whole, either = s_a + s_b, r_a + r_b
        return either + (whole + either) * U, whole
    up = 1.0 + 8.0 * U  # the same, operation by operation, in floats: there are many small ones
    s, r = (s_a.upper + s_b.upper) * up, (r_a.upper + r_b.upper) * up
    rounding = (s + r) * up * (U * up) + FLOOR
    return Radius((r + rounding) * up), Radius(s)


def total(*parts: Radius) -> Radius:
    """Σ parts."""
    whole = NOTHING
    for part in parts:
        whole = whole + part
    return whole


def hypot(*parts: Radius) -> Radius:
    """√Σ parts², free of overflow and underflow."""
    known = [part.upper for part in parts if not part.exact]
    if not known:
        return NOTHING
    with np.errstate(over="ignore", under="ignore"):
        squares = known[0] * known[0]
        for upper in known[1:]:
            squares = squares + upper * upper
    if np.min(squares, initial=1.0) > 2.0**-800 and np.max(squares, initial=1.0) < 2.0**1000:
        return Radius(_up(np.sqrt(squares), len(known) + 1))  # what underflowed is less than a rounding
    lengths = known[0] * 1.0
    for upper in known[1:]:
        lengths = np.hypot(lengths, upper)
    return Radius(_up(lengths, 16 * len(known)))


@dataclass(frozen=True, slots=True, eq=False)
class Scaled:
    """A bound of any scale, bound·2^power: what neither overflows nor meets `FLOOR` on its way."""

    bound: Radius
    power: int

    @staticmethod
    def of(bound: Radius, power: int = 0) -> Scaled:
        """For one number; as 2^power times one in [½, 1), if that is possible."""
        upper = float(bound)
        if bound.exact or not 0.0 < upper < math.inf:
            return Scaled(bound, 0)
        mantissa, more = math.frexp(upper)
        return Scaled(Radius.of(mantissa), power + more)

    def __add__(self, other: Scaled) -> Scaled:
        if self.bound.exact or other.bound.exact:
            return other if self.bound.exact else self
        low, high = sorted((self, other), key=lambda x: x.power)
        shifted = Radius.of(np.ldexp(float(low.bound), max(low.power - high.power, -2000)))
        return Scaled.of(high.bound + shifted, high.power)

    def __mul__(self, other: Scaled) -> Scaled:
        return Scaled.of(self.bound * other.bound, self.power + other.power)

    def sqrt(self) -> Scaled:
        odd = self.power % 2
        return Scaled.of((self.bound * (1.0 + odd)).sqrt(), (self.power - odd) // 2)

    def __lt__(self, other: Scaled) -> bool:
        """Of the bounds as they are."""
        if self.bound.exact or other.bound.exact or not (self.bound.known and other.bound.known):
            return float(self.bound) < float(other.bound)
        return (self.power, float(self.bound)) < (other.power, float(other.bound))

    def __float__(self) -> float:
        """The least float that is at least this; infinite where there is none."""
        if self.bound.exact:
            return 0.0
        upper = float(np.ldexp(float(self.bound), min(max(self.power, -3000), 3000)))
        if upper >= 2.0 * FLOOR:  # exact
            return upper
        exact = Fraction(float(self.bound)) * Fraction(2) ** max(self.power, -3000)
        return upper if upper >= exact else math.nextafter(upper, math.inf)
