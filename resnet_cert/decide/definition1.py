"""Definition 1 and Corollary 1: the only place where a verdict is made.

M is an open set on which ∇²F_θ is μ2-Lipschitz in (w, V).  (w, V, θ) ∈ M is an ε-second-order partial
stationary point (ε-SOPSP) iff

    ‖∇F_θ(w, V)‖ ≤ ε   and   λ_min(∇²F_θ(w, V)) ≥ −√(μ2 ε)              (Shamir 2018, Definition 1).

A verdict comes from comparing proven ends of enclosures and from nothing else: CERTIFIED and REFUTED are
statements about exact arithmetic, and whatever is not proven either way is UNDECIDED.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal

from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.outcomes import InternalError, Verdict
from resnet_cert.theory.theorems import smallest_epsilon


@dataclass(frozen=True)
class Stationarity:
    """The verdict on Definition 1, on its two conditions, −√(μ2 ε) and why, in plain words."""

    verdict: Verdict
    gradient: Verdict
    curvature: Verdict
    threshold: Enclosure | None
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Proven:
    """What a finer arithmetic proves of the two conditions; None: it does not decide that either."""

    gradient: bool | None
    curvature: bool | None
    arithmetic: str


def definition1(
    gradient_norm: Enclosure,
    lambda_min: Enclosure,
    eps: float,
    mu2: float | None,
    proven: Proven | None = None,
) -> Stationarity:
    """Is the point an ε-SOPSP?  Both conditions certified: yes; one refuted: no.

    Args:
        gradient_norm: ‖∇F_θ(w, V)‖.
        lambda_min: λ_min(∇²F_θ(w, V)).
        eps: ε ≥ 0.
        mu2: μ2 ≥ 0; None where it is not known.
        proven: decides what the enclosures leave open.
    Raises:
        ValueError: ε or μ2 is negative or not finite.
        InternalError: the enclosures and `proven` contradict each other.
    """
    limit = threshold(mu2, eps)
    gradient = gradient_verdict(gradient_norm, eps)
    curvature = curvature_verdict(lambda_min, limit)
    if proven is not None:
        settled = _settled(gradient, proven.gradient), _settled(curvature, proven.curvature)
        if settled != (gradient, curvature):
            return _proven(*settled, limit, eps, proven.arithmetic)
    verdict = Verdict.all_of((gradient, curvature))
    reasons = (
        (gradient, _gradient_reason(gradient, gradient_norm, eps)),
        (curvature, _curvature_reason(curvature, lambda_min, limit, mu2, eps)),
    )
    decisive = tuple(reason for part, reason in reasons if part is verdict)
    return Stationarity(verdict, gradient, curvature, limit, decisive)


def threshold(mu2: float | None, eps: float) -> Enclosure | None:
    """√(μ2 ε).  None where μ2 is not known, unless ε = 0: then it is 0 for every μ2.

    Raises:
        ValueError: ε or μ2 is negative or not finite.
    """
    for name, number in (("epsilon", eps), ("mu2", mu2)):
        if number is not None and not (0.0 <= number < math.inf):
            raise ValueError(f"expected a finite {name} >= 0, got {number!r}")
    if eps == 0.0:
        return Enclosure.exact(0.0)
    return None if mu2 is None else Enclosure.exact(mu2).sqrt() * Enclosure.exact(eps).sqrt()


def gradient_verdict(norm: Enclosure, eps: float) -> Verdict:
    """‖∇F‖ ≤ ε?"""
    return _at_most(norm, Enclosure.exact(eps))


def curvature_verdict(lambda_min: Enclosure, threshold: Enclosure | None) -> Verdict:
    """λ_min(∇²F) ≥ −threshold?  Where the threshold is not known, λ_min ≥ 0 certifies and nothing refutes."""
    if threshold is None:
        return Verdict.CERTIFIED if lambda_min.lower >= 0.0 else Verdict.UNDECIDED
    return _at_most(-lambda_min, threshold)


def corollary1_verdict(gap: Enclosure) -> Verdict:
    """F ≤ min F_lin?  It is so at every 0-SOPSP, hence at every local minimum (Shamir 2018, Corollary 1).

    Args:
        gap: F − min F_lin.
    """
    return _at_most(gap, Enclosure.exact(0.0))


def _at_most(x: Enclosure, y: Enclosure) -> Verdict:
    if x.at_most(y):
        return Verdict.CERTIFIED
    return Verdict.REFUTED if x.above(y) else Verdict.UNDECIDED


def _settled(verdict: Verdict, proven: bool | None) -> Verdict:
    if proven is None:
        return verdict
    finer = Verdict.CERTIFIED if proven else Verdict.REFUTED
    if verdict not in (Verdict.UNDECIDED, finer):
        raise InternalError(f"float64 proves {verdict.value}, a finer arithmetic {finer.value}")
    return finer


def _proven(
    gradient: Verdict, curvature: Verdict, limit: Enclosure | None, eps: float, arithmetic: str
) -> Stationarity:
    """The verdicts after a finer arithmetic decided at least one of the conditions."""
    verdict = Verdict.all_of((gradient, curvature))
    words = {Verdict.CERTIFIED: "proven", Verdict.REFUTED: "disproven", Verdict.UNDECIDED: "not decided"}
    conditions = {
        f"gradient norm ≤ epsilon = {_show(eps)}": gradient,
        f"lambda_min ≥ -sqrt(mu2 epsilon){' = 0' if eps == 0.0 else ''}": curvature,
    }
    reasons = (
        f"{said}: {words[part]} in {arithmetic}" for said, part in conditions.items() if part is verdict
    )
    return Stationarity(verdict, gradient, curvature, limit, tuple(reasons))


# --- Why: every number below is rounded so that what is said stays true ---------------------------------


def _gradient_reason(verdict: Verdict, norm: Enclosure, eps: float) -> str:
    match verdict:
        case Verdict.CERTIFIED:
            return f"gradient norm ≤ {_show(_above(norm.upper, eps))} is at most epsilon = {_show(eps)}"
        case Verdict.REFUTED:
            return f"gradient norm ≥ {_show(_below(norm.lower, eps))} exceeds epsilon = {_show(eps)}"
        case Verdict.UNDECIDED if not norm.known:
            return _not_enclosed("gradient norm")
        case Verdict.UNDECIDED:
            return (
                f"gradient norm in {_interval(norm)} is not separated from epsilon = {_show(eps)}: "
                f"{_error_against_margin(norm - eps)}; it passes from epsilon = {_show(norm.upper)} on"
            )


def _curvature_reason(
    verdict: Verdict, lambda_min: Enclosure, limit: Enclosure | None, mu2: float | None, eps: float
) -> str:
    if verdict is Verdict.UNDECIDED and not math.isfinite(lambda_min.lower):
        return _not_enclosed("lambda_min")
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


def _not_enclosed(what: str) -> str:
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
