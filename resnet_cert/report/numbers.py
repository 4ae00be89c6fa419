"""Numbers for a reader: few digits, and none of them says more than is proven."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal, localcontext
from fractions import Fraction

from resnet_cert.numerics.enclosure import Enclosure

DIGITS = 7
ALL_DIGITS = 17
"""Every float64 is told from its neighbours by 17 significant digits."""


def given(x: float | None) -> str:
    """A number as the user wrote it: the shortest decimal that reads back to it."""
    if x is None:
        return "unknown"
    return _written(Decimal(repr(float(x))).normalize()) if math.isfinite(x) else str(x)


def plain(x: float | None, digits: int = 6) -> str:
    """A number that is not proven, to `digits` significant digits."""
    if x is None:
        return "unknown"
    return _written(_rounded(x, digits, ROUND_HALF_EVEN)) if math.isfinite(x) else str(x)


def at_most(x: float, digits: int = 3) -> str:
    """A decimal ≥ x, hence still an upper bound."""
    return _written(_rounded(x, digits, ROUND_CEILING)) if math.isfinite(x) else str(x)


def at_least(x: float, digits: int = 3) -> str:
    """A decimal ≤ x, hence still a lower bound."""
    return _written(_rounded(x, digits, ROUND_FLOOR)) if math.isfinite(x) else str(x)


def enclosed(e: Enclosure | None, digits: int = DIGITS) -> str:
    """A text that every number in [e.lower, e.upper] satisfies: `value ± radius`, where the radius covers the
    digits left out too, or `[lower, upper]` where that says more, `≥ lower`, `≤ upper`, or `unknown`."""
    if e is None or (math.isinf(e.lower) and math.isinf(e.upper)):
        return "unknown"
    if math.isinf(e.upper):
        return f"≥ {at_least(e.lower, digits)}"
    if math.isinf(e.lower):
        return f"≤ {at_most(e.upper, digits)}"
    lower, upper = Fraction(e.lower), Fraction(e.upper)
    value = e.value if math.isfinite(e.value) else float((lower + upper) / 2)
    shown = Decimal(repr(float(value))).normalize()
    if digits < ALL_DIGITS:
        shown = _rounded(value, _useful_digits(value, upper - lower, digits), ROUND_HALF_EVEN)
    radius = max(upper - Fraction(shown), Fraction(shown) - lower)
    if radius == 0:
        return _written(shown)
    if radius > abs(Fraction(shown)) / 100:
        return f"[{at_least(e.lower)}, {at_most(e.upper)}]"
    return f"{_written(shown)} ± {_written(_rounded(radius, 2, ROUND_CEILING))}"


def slack(e: Enclosure | None) -> str:
    """By how much an inequality holds (≥) or fails (≤ a negative number); an interval where that is open."""
    if e is None:
        return "unknown"
    if e.lower >= 0.0:
        return f"≥ {at_least(e.lower)}"
    return f"≤ {at_most(e.upper)}" if e.upper < 0.0 else enclosed(e)


def _useful_digits(value: float, width: Fraction, digits: int) -> int:
    """Digits of `value` down to a tenth of `width`, at most `digits`."""
    if not value or not width:
        return digits
    magnitude = _rounded(value, 1, ROUND_FLOOR).adjusted() - _rounded(width, 1, ROUND_FLOOR).adjusted()
    return min(digits, max(1, magnitude + 2))


def _rounded(x: float | Fraction, digits: int, rounding: str) -> Decimal:
    exact = Fraction(x)
    with localcontext(Context(prec=digits, rounding=rounding, Emin=-9999, Emax=9999)):
        return (Decimal(exact.numerator) / Decimal(exact.denominator)).normalize()


def _written(x: Decimal) -> str:
    if not x:
        return "0"
    return f"{x:f}" if -4 <= x.adjusted() < DIGITS else f"{x:e}"
