"""Interval arithmetic on NumPy arrays, rounded outward without ever switching a rounding mode.

+ − × ÷ √ are correctly rounded (IEEE 754), so one float further out bounds them; where they are exact
they stay exact.  The other functions carry one assumption: NumPy's (libm's erf) lie within 8 ulp of the
truth, or within 8·2^−1022 of it near zero.

Ends may overflow and unknown ends are infinite: callers run under np.errstate(all="ignore").
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from resnet_cert.numerics.enclosure import Array

FUNCTION_ULPS = 9.0
"""Eight ulp for the function itself, one for the rounding of value ± slack."""
SMALLEST_NORMAL = 2.0**-1022
TOP_BINADE = 2.0**1023
LARGEST = float(np.finfo(np.float64).max)

Binary = Callable[[Array, Array], Array]
Mask = npt.NDArray[np.bool_]
Rule = Callable[["Interval"], "Interval"]


@dataclass(frozen=True, eq=False)
class Interval:
    """Real numbers known to lie in [lower, upper], elementwise; an infinite end is one that is not known.

    Two operands that are one object are one number: x·x is a square, x = x is true.
    extremum: ("max" or "min", x, y) where this is max(x, y) or min(x, y); JAX differentiates these by asking
    whether the extremum equals x, which its bounds alone would not tell.
    undefined: (n,), or (1,) for all samples: which of them may have no such number, as log(−1); None: none.
    """

    lower: Array
    upper: Array
    extremum: tuple[str, Interval, Interval] | None = None
    undefined: Mask | None = None

    def __post_init__(self) -> None:
        lower, upper = np.asarray(self.lower, dtype=np.float64), np.asarray(self.upper, dtype=np.float64)
        ordered = lower <= upper
        if not ordered.all():
            if (lower > upper).any():
                raise ValueError("expected lower <= upper")
            lower, upper = np.where(ordered, lower, -np.inf), np.where(ordered, upper, np.inf)
        object.__setattr__(self, "lower", lower)
        object.__setattr__(self, "upper", upper)

    @property
    def unknown(self) -> Mask:
        """Nothing is known of it."""
        return np.isinf(self.lower) & np.isinf(self.upper) & (self.lower < self.upper)

    @staticmethod
    def exact(x: Any) -> Interval:
        """The floats x themselves."""
        return Interval(x, x)

    @staticmethod
    def around(center: Array, radius: Array | float) -> Interval:
        """A neighbourhood of [center − radius, center + radius]: strictly larger at both ends."""
        with np.errstate(all="ignore"):
            return Interval(_down(center - radius), _up(center + radius))

    def __neg__(self) -> Interval:
        return Interval(-self.upper, -self.lower)

    def __add__(self, other: Interval) -> Interval:
        lower, lower_error = _two_sum(self.lower, other.lower)
        upper, upper_error = _two_sum(self.upper, other.upper)
        # Overflow makes the error nan: then the end takes its step, from infinity to the largest float.
        return Interval(
            np.where(lower_error >= 0.0, lower, _down(lower)),
            np.where(upper_error <= 0.0, upper, _up(upper)),
        )

    def __sub__(self, other: Interval) -> Interval:
        return self + -other

    def __mul__(self, other: Interval) -> Interval:
        if self is other:
            return integer_power(self, 2)
        exact = _is_point(self, (-1.0, 0.0, 1.0)) | _is_point(other, (-1.0, 0.0, 1.0))
        return _from_corners(np.multiply, self, other, exact)

    def __truediv__(self, other: Interval) -> Interval:
        exact = _is_point(self, (0.0,)) | _is_point(other, (-1.0, 1.0))
        quotient = _from_corners(np.divide, self, other, exact)
        return _unknown_where((other.lower <= 0.0) & (other.upper >= 0.0), quotient)


def _down(x: Array) -> Array:
    return np.nextafter(x, -np.inf)


def _up(x: Array) -> Array:
    return np.nextafter(x, np.inf)


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """fl(a + b) and the exact a + b − fl(a + b) (Knuth; Higham 2002, section 4.3)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _is_point(x: Interval, values: tuple[float, ...]) -> Mask:
    return (x.lower == x.upper) & functools.reduce(np.logical_or, [x.lower == value for value in values])


def _unknown_where(where: Mask, x: Interval) -> Interval:
    return Interval(np.where(where, -np.inf, x.lower), np.where(where, np.inf, x.upper))


def _clip(x: Interval, least: float, greatest: float = math.inf) -> Interval:
    """x, known besides to lie in [least, greatest]."""
    return Interval(np.clip(x.lower, least, greatest), np.clip(x.upper, least, greatest))


def _hull_of_corners(operation: Binary, x: Interval, y: Interval) -> Interval:
    """The values, as computed, of an operation that is monotone in each operand."""
    ends = [operation(a, b) for a in (x.lower, x.upper) for b in (y.lower, y.upper)]
    return Interval(functools.reduce(np.minimum, ends), functools.reduce(np.maximum, ends))


def _from_corners(operation: Binary, x: Interval, y: Interval, exact: Mask) -> Interval:
    """x·y or x/y: rounded outward, but across zero only where the signs allow it (underflow does not)."""
    hull = _hull_of_corners(operation, x, y)
    lower = np.where(exact, hull.lower, _down(hull.lower))
    upper = np.where(exact, hull.upper, _up(hull.upper))
    same = ((x.lower >= 0.0) & (y.lower >= 0.0)) | ((x.upper <= 0.0) & (y.upper <= 0.0))
    opposite = ((x.lower >= 0.0) & (y.upper <= 0.0)) | ((x.upper <= 0.0) & (y.lower >= 0.0))
    known = ~np.isinf(hull.lower) | ~np.isinf(hull.upper)
    lower = np.where(same & known, np.maximum(lower, 0.0), lower)
    return Interval(lower, np.where(opposite & known, np.minimum(upper, 0.0), upper))


def absolute(x: Interval) -> Interval:
    return Interval(np.maximum(0.0, np.maximum(x.lower, -x.upper)), np.maximum(-x.lower, x.upper))


def square_root(x: Interval) -> Interval:
    """√x; unknown if x may be negative."""
    return Interval(np.maximum(_down(np.sqrt(x.lower)), 0.0), _up(np.sqrt(x.upper)))


def reciprocal(x: Interval) -> Interval:
    return Interval.exact(1.0) / x


def integer_power(x: Interval, n: int) -> Interval:
    """xⁿ by multiplications of |x|."""
    if n < 0:
        return reciprocal(integer_power(x, -n))
    if n % 2 == 0:
        size = absolute(x)
        return Interval(_power(size.lower, n, _down), _power(size.upper, n, _up))
    return Interval(
        np.where(x.lower >= 0.0, _power(x.lower, n, _down), -_power(-x.lower, n, _up)),
        np.where(x.upper >= 0.0, _power(x.upper, n, _up), -_power(-x.upper, n, _down)),
    )


def _power(x: Array, n: int, rounded: Callable[[Array], Array]) -> Array:
    """An end of xⁿ for x ≥ 0; exact for 0, 1 and n ≤ 1."""
    power = x if n else np.ones_like(x)
    for _ in range(n - 1):
        power = np.where((x == 0.0) | (x == 1.0), x, np.maximum(rounded(power * x), 0.0))
    return power


def power(x: Interval, y: Interval) -> Interval:
    """x^y for x ≥ 0, where it is monotone in x and in y; for any x if y is one integer for all samples."""
    n = _whole_exponent(y)
    if n is not None:
        return integer_power(x, n)
    return _unknown_where(x.lower < 0.0, _clip(_widen(_hull_of_corners(np.power, x, y)), 0.0))


def _whole_exponent(y: Interval) -> int | None:
    """One small integer for all samples."""
    exponent = float(y.lower.flat[0])
    if y.lower.size == 1 and y.upper == exponent and exponent.is_integer() and abs(exponent) <= 64.0:
        return int(exponent)
    return None


def outside_of_powers(x: Interval, y: Interval) -> Mask:
    """Where x^y may have no value."""
    n = _whole_exponent(y)
    falls = y.lower <= 0.0 if n is None else np.asarray(n < 0)
    at_0 = (x.lower <= 0.0) & (x.upper >= 0.0) & falls
    return at_0 | (x.lower < 0.0) if n is None else at_0


def _widen(x: Interval) -> Interval:
    """x, its ends computed by functions with the errors that are assumed."""

    def slack(end: Array) -> Array:
        ulp = np.spacing(np.minimum(np.abs(end), TOP_BINADE))
        return FUNCTION_ULPS * np.maximum(ulp, SMALLEST_NORMAL)

    # A value that overflowed exceeds the largest float, up to its error.
    return Interval(
        np.minimum(x.lower, LARGEST) - slack(x.lower), np.maximum(x.upper, -LARGEST) + slack(x.upper)
    )


def increasing(
    function: Callable[[Array], Array],
    *,
    root: float = math.nan,
    least: float = -math.inf,
    greatest: float = math.inf,
) -> Rule:
    """The rule of an increasing function with values in [least, greatest] that is zero at `root`.

    Below its domain the function returns nan: there nothing is known.
    """

    def rule(x: Interval) -> Interval:
        ends = function(x.lower), function(x.upper)  # not in order where rounding is not monotone
        wide = _widen(Interval(np.minimum(*ends), np.maximum(*ends)))
        lower = np.where(x.lower >= root, np.maximum(wide.lower, 0.0), wide.lower)
        upper = np.where(x.upper <= root, np.minimum(wide.upper, 0.0), wide.upper)
        return _unknown_where(np.isnan(ends[0]), _clip(Interval(lower, upper), least, greatest))

    return rule


def wave(function: Callable[[Array], Array]) -> Rule:
    """The rule of sine or cosine, which differ by at most r within r of a midpoint."""

    def rule(x: Interval) -> Interval:
        middle = 0.5 * x.lower + 0.5 * x.upper
        reach = _up(np.maximum(x.upper - middle, middle - x.lower))
        return _clip(_widen(Interval.exact(function(middle))) + Interval(-reach, reach), -1.0, 1.0)

    return rule


def maximum(x: Interval, y: Interval) -> Interval:
    return Interval(np.maximum(x.lower, y.lower), np.maximum(x.upper, y.upper), ("max", x, y))


def minimum(x: Interval, y: Interval) -> Interval:
    return Interval(np.minimum(x.lower, y.lower), np.minimum(x.upper, y.upper), ("min", x, y))


exp = increasing(np.exp, least=0.0)
sine, cosine = wave(np.sin), wave(np.cos)


def logistic(x: Interval) -> Interval:
    """1/(1 + e^{−x})."""
    return _clip(reciprocal(Interval.exact(1.0) + exp(-x)), 0.0, 1.0)


def cosh(x: Interval) -> Interval:
    return increasing(np.cosh, least=1.0)(absolute(x))


def erf(x: Interval) -> Interval:
    return increasing(np.vectorize(math.erf, otypes=[np.float64]), root=0.0, least=-1.0, greatest=1.0)(x)


def erfc(x: Interval) -> Interval:
    falling = np.vectorize(lambda t: math.erfc(-t), otypes=[np.float64])
    return increasing(falling, least=0.0, greatest=2.0)(-x)


# Truth values are intervals in [0, 1].


def _truth(certain: Mask, possible: Mask) -> Interval:
    return Interval(certain.astype(np.float64), possible.astype(np.float64))


def less(x: Interval, y: Interval) -> Interval:
    return Interval.exact(0.0) if x is y else _truth(x.upper < y.lower, x.lower < y.upper)


def negation(x: Interval) -> Interval:
    return Interval(1.0 - x.upper, 1.0 - x.lower)


def equal(x: Interval, y: Interval) -> Interval:
    """x = y; that x = max(x, z) is taken as x ≥ z."""
    if x is y:
        return Interval.exact(1.0)
    for one, other in ((x, y), (y, x)):
        if other.extremum is not None:
            kind, first, second = other.extremum
            if one is first or one is second:
                rest = second if one is first else first
                return negation(less(one, rest) if kind == "max" else less(rest, one))
    same = (x.lower == x.upper) & (y.lower == y.upper) & (x.lower == y.lower)
    return _truth(same, (x.lower <= y.upper) & (y.lower <= x.upper))


def is_finite(x: Interval) -> Interval:
    known = np.isfinite(x.lower) & np.isfinite(x.upper)
    return _truth(known, np.ones_like(known))


def select(which: Interval, *cases: Interval) -> Interval:
    """cases[which]: the case itself where it is the same for all samples, hulls where it is not decided."""
    first, last = int(np.min(which.lower)), int(np.max(which.upper))
    if first == last:
        return cases[first]
    lower, upper = np.asarray(np.inf), np.asarray(-np.inf)
    extra = (1,) * (max(case.lower.ndim for case in cases) - which.lower.ndim)  # one choice for a whole array
    which = Interval(
        which.lower.reshape(which.lower.shape + extra), which.upper.reshape(which.upper.shape + extra)
    )
    for index, case in enumerate(cases):
        possible = (which.lower <= index) & (index <= which.upper)
        lower = np.where(possible, np.minimum(lower, case.lower), lower)
        upper = np.where(possible, np.maximum(upper, case.upper), upper)
    return Interval(lower, upper)


def first_largest(*values: Interval) -> Interval:
    """The index of the first of the largest values."""
    floor = functools.reduce(np.maximum, [value.lower for value in values])
    first, last, before = np.asarray(np.inf), np.asarray(0.0), np.asarray(-np.inf)
    for index, value in enumerate(values):
        possible = (value.upper >= floor) & (before < value.upper)
        first, last = np.where(possible, np.minimum(first, index), first), np.where(possible, index, last)
        before = np.maximum(before, value.lower)
    return Interval(first, last)
