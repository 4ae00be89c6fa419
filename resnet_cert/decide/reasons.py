"""Why a verdict is what it is, in plain words; every number is rounded so that what is said stays true."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Context, Decimal

from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.outcomes import Verdict
from resnet_cert.theory.theorems import smallest_epsilon

WORDS = {Verdict.CERTIFIED: "proven", Verdict.REFUTED: "disproven", Verdict.UNDECIDED: "not decided"}


def finer(gradient: Verdict, curvature: Verdict, eps: float, arithmetic: str) -> tuple[str, str]:
    """Of both conditions, after a finer arithmetic decided at least one of them."""
    zero = " = 0" if eps == 0.0 else ""
    return (
        f"gradient norm ≤ epsilon = {_show(eps)}: {WORDS[gradient]} in {arithmetic}",
        f"lambda_min ≥ -sqrt(mu2 epsilon){zero}: {WORDS[curvature]} in {arithmetic}",
    )


def gradient(verdict: Verdict, norm: Enclosure, eps: float, opaque: bool = False) -> str:
    """opaque: nothing of the loss is enclosed."""
    match verdict:
        case Verdict.CERTIFIED:
            return f"gradient norm ≤ {_show(_above(norm.upper, eps))} is at most epsilon = {_show(eps)}"
        case Verdict.REFUTED:
            return f"gradient norm ≥ {_show(_below(norm.lower, eps))} exceeds epsilon = {_show(eps)}"
        case Verdict.UNDECIDED if not norm.known:
            return _not_enclosed("gradient norm", opaque)
        case Verdict.UNDECIDED:
            return (
                f"gradient norm in {_interval(norm)} is not separated from epsilon = {_show(eps)}: "
                f"{_error_against_margin(norm - eps)}; it passes from epsilon = {_show(norm.upper)} on"
            )


def curvature(
    verdict: Verdict,
    lambda_min: Enclosure,
    limit: Enclosure | None,
    mu2: float | None,
    eps: float,
    opaque: bool = False,
) -> str:
    """opaque: nothing of the loss is enclosed."""
    if verdict is Verdict.UNDECIDED and not math.isfinite(lambda_min.lower):
        return _not_enclosed("lambda_min", opaque)
    if limit is None:
        least = f"lambda_min ≥ {_show(_below(lambda_min.lower, -math.inf))}"
        if verdict is Verdict.CERTIFIED:
            return f"{least} is at least 0, for every mu2"
        return (
            f"{least} may be negative and mu2 is not known: give lipschitz.mu2 "
            f"(one of at least {_show(_enough(lambda_min, eps))} passes)"
        )
    match verdict:
        case Verdict.CERTIFIED:
            low = _below(lambda_min.lower, -limit.lower)
            return f"lambda_min ≥ {_show(low)} is at least {_minus(limit, '≤', _above(-limit.lower, low))}"
        case Verdict.REFUTED:
            high = _above(lambda_min.upper, -limit.upper)
            return f"lambda_min ≤ {_show(high)} lies below {_minus(limit, '≥', _below(-limit.upper, high))}"
        case Verdict.UNDECIDED:
            return (
                f"lambda_min in {_interval(lambda_min)} is not separated from "
                f"{_minus(limit, '≈', -limit.value)}: {_error_against_margin(lambda_min + limit)}; "
                f"{_room(lambda_min, mu2)}"
            )


def _room(lambda_min: Enclosure, mu2: float | None) -> str:
    """The next step where the numerical error hides the sign of λ_min + √(μ2 ε)."""
    if mu2 is None:
        return "a positive epsilon together with lipschitz.mu2 makes room for the error"
    if mu2 == 0.0:
        return "no epsilon makes room for the error, because mu2 = 0"
    return f"it passes from epsilon = {_show(_enough(lambda_min, mu2))} on"


def _enough(lambda_min: Enclosure, factor: float) -> float:
    """A short number x with λ_min ≥ −√(factor·x) proven by `definition1`, which rounds √ twice."""
    least = smallest_epsilon(Enclosure.exact(0.0), (-lambda_min).positive_part(), factor)
    return _above(least.upper * (1.0 + 2.0**-48), math.inf) if least else math.inf


def _minus(limit: Enclosure, relation: str, shown: float) -> str:
    exact = limit.lower == limit.upper
    return f"-sqrt(mu2 epsilon) {'=' if exact else relation} {_show(-limit.lower if exact else shown)}"


def _not_enclosed(what: str, opaque: bool) -> str:
    if opaque:
        return f"{what} is not enclosed: nothing of the loss is"
    return f"{what} is not enclosed: its numerical error is unbounded; bring the data to a scale near 1"


def _error_against_margin(difference: Enclosure) -> str:
    """How much is not known of a difference whose sign decides, against the difference itself."""
    error = _above(difference.upper - difference.lower, math.inf)
    return f"the numerical error {_show(error)} is larger than the margin {abs(difference.value):.3g}"


def _interval(x: Enclosure) -> str:
    return f"[{_show(x.lower)}, {_show(x.upper)}]"


def _show(x: float) -> str:
    return repr(float(x) + 0.0).removesuffix(".0")  # + 0.0: no -0


def _above(x: float, limit: float) -> float:
    """x rounded up to few digits, as few as keep it below `limit`; x itself if none do."""
    exact = Decimal(repr(float(x)))
    rounded = (float(Context(digits, ROUND_CEILING).create_decimal(exact)) for digits in (3, 6, 12))
    return next((short for short in rounded if short < limit), x)


def _below(x: float, limit: float) -> float:
    """x rounded down to few digits, as few as keep it above `limit`; x itself if none do."""
    return -_above(-x, -limit)
