"""How accurate are the elementary functions of NumPy and the C library here?  On a grid, against many digits.

The proofs assume that each is within `ULPS` units in the last place of the truth, or within as many times
2^-1022 where that is more.  The losses that are built in need four of them; the rest are those of the
interval rules (`jaxpr`), on which the bounds of a loss in code rest.  The truth is `decimal`'s: its exp, ln
and square root are correctly rounded, and the series of the others are summed with twenty digits to spare.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

from resnet_cert.numerics.radius import Array
from resnet_cert.outcomes import InternalError

D = decimal.Decimal
ULPS = 8
"""What the proofs assume of a function, in units in the last place (`problem.losses`, `intervals`)."""
DIGITS = 90
COARSE = 6
"""Every sixth point of the grid is looked at before a check."""


class Function(NamedTuple):
    """ours: of arrays, or of two.  exact: the same of decimals.  points: where they are compared."""

    ours: Callable[..., Array]
    exact: Callable[..., D]
    points: Array
    exponents: Array | None = None


def of_losses() -> dict[str, Function]:
    """What the losses that are built in are made of."""
    t = _grid()
    return {
        "exp": Function(np.exp, D.exp, np.concatenate([17.0 * t, t])),
        "expm1": Function(np.expm1, lambda x: x.exp() - 1, t),
        "log1p": Function(np.log1p, lambda x: (1 + x).ln(), np.concatenate([np.exp(-np.abs(t)), np.abs(t)])),
        "hypot": Function(lambda r: np.hypot(1.0, r), lambda x: (1 + x * x).sqrt(), t),
    }


def of_intervals(step: int = 1) -> dict[str, Function]:
    """What the interval rules use besides, at every so many points of the grid."""
    far, near = (part[::step] for part in np.split(_grid(), [161]))
    t, positive = np.concatenate([far, near]), np.exp(17.0 * far)
    wide, every = np.concatenate([15.0 * far, near]), np.concatenate([near, positive, -positive])
    return {
        "log": Function(np.log, D.ln, np.concatenate([positive, 1.0 + near, 1.0 - near])),
        "log1p": Function(np.log1p, lambda x: (1 + x).ln(), -np.exp(-np.abs(far))),
        "exp2": Function(np.exp2, lambda x: (x * D(2).ln()).exp(), wide),
        "tanh": Function(np.tanh, _tanh, t),
        "sinh": Function(np.sinh, lambda x: (x.exp() - (-x).exp()) / 2, wide),
        "cosh": Function(np.cosh, lambda x: (x.exp() + (-x).exp()) / 2, wide),
        "arcsinh": Function(np.arcsinh, _asinh, every),
        "arctan": Function(np.arctan, _atan, every),
        "cbrt": Function(np.cbrt, lambda x: (abs(x).ln() / 3).exp().copy_sign(x), every),
        "sin": Function(np.sin, _sin, t),
        "cos": Function(np.cos, _cos, t),
        "power": Function(np.power, lambda x, y: (x.ln() * y).exp(), np.exp(far), far[::-1] / 3.0),
        "erf": Function(np.vectorize(math.erf), _erf, t / 8.0),
        "erfc": Function(np.vectorize(math.erfc), _erfc, np.append(t / 8.0, [9.1, 26.0])),
    }


def fault(functions: dict[str, Function]) -> str | None:
    """Where one is less accurate than assumed; None: nowhere that was looked at."""
    for name, (ours, exact, points, exponents) in functions.items():
        arguments = (points,) if exponents is None else (points, exponents)
        with decimal.localcontext(decimal.Context(prec=DIGITS, Emin=-99999, Emax=99999)):
            for *x, y in zip(*(of.tolist() for of in (*arguments, ours(*arguments))), strict=True):
                if not abs(D(y) - exact(*map(D, x))) <= ULPS * D(max(math.ulp(y), 2.0**-1022)):
                    where = ", ".join(map(repr, x))
                    return (
                        f"{name}({where}) is {y!r}, which is off by more than {ULPS} units in the last place"
                    )
    return None


@cache
def require_accurate_functions() -> None:
    """Once in a process, before the bounds of a loss in code are relied on.

    Raises:
        InternalError: a function of the interval rules is less accurate than assumed.
    """
    wrong = fault(of_intervals(COARSE))
    if wrong:
        raise InternalError(f"float64 arithmetic cannot be trusted here: {wrong}")


def _grid() -> Array:
    """From −40 to 40, and towards 0."""
    return np.concatenate([np.linspace(-40.0, 40.0, 161) + 0.0123, 10.0 ** np.linspace(-30.0, -1.0, 59)])


def _summed(term: D, ratios: Iterator[D]) -> D:
    """term·(1 + r_1 + r_1 r_2 + …), up to terms that do not count beside the largest seen."""
    total, most = term, abs(term)
    for ratio in ratios:
        term *= ratio
        total, most = total + term, max(most, abs(term))
        if abs(term) < most.scaleb(-decimal.getcontext().prec):
            return total
    return total


def _ratios(of: Callable[[int], D]) -> Iterator[D]:
    return map(of, range(1, 100_000))


def _sin(x: D) -> D:
    return _summed(x, _ratios(lambda n: -x * x / (2 * n * (2 * n + 1))))


def _cos(x: D) -> D:
    return _summed(D(1), _ratios(lambda n: -x * x / (2 * n * (2 * n - 1))))


def _tanh(x: D) -> D:
    return 1 - 2 / ((2 * x).exp() + 1)


def _asinh(x: D) -> D:
    if abs(x) < D("1e-20"):
        return x - x**3 / 6
    return (abs(x) + (x * x + 1).sqrt()).ln().copy_sign(x)


def _atan(x: D) -> D:
    """atan x = 2 atan(x/(1 + √(1 + x²))), until the series is short."""
    if abs(x) > D("0.1"):
        return 2 * _atan(x / (1 + (1 + x * x).sqrt()))
    total, power, n = D(0), x, 0
    while abs(power) > abs(x).scaleb(-decimal.getcontext().prec):
        total, power, n = total + power / (2 * n + 1), -power * x * x, n + 1
    return total


@cache
def _root_of_pi(digits: int) -> D:
    with decimal.localcontext(decimal.Context(prec=digits + 10)):
        return (4 * _atan(D(1))).sqrt()


def _erf(x: D) -> D:
    """2/√π e^{−x²} Σ 2ⁿ x^{2n+1}/(2n + 1)!!"""
    factor = 2 * (-x * x).exp() / _root_of_pi(decimal.getcontext().prec)
    return factor * _summed(x, _ratios(lambda n: 2 * x * x / (2 * n + 1)))


def _erfc(x: D) -> D:
    """1 − erf x, with e^{−x²} of digits to spare."""
    with decimal.localcontext() as context:
        context.prec += int(x * x / 2) if x > 0 else 0
        return 1 - _erf(x)
