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

from resnet_cert.decide import reasons
from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.outcomes import InternalError, Verdict


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
    opaque: bool = False,
) -> Stationarity:
    """Is the point an ε-SOPSP?  Both conditions certified: yes; one refuted: no.

    Args:
        gradient_norm: ‖∇F_θ(w, V)‖.
        lambda_min: λ_min(∇²F_θ(w, V)).
        eps: ε ≥ 0.
        mu2: μ2 ≥ 0; None where it is not known.
        proven: decides what the enclosures leave open.
        opaque: nothing of the loss is enclosed.
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
            why = reasons.finer(*settled, eps, proven.arithmetic)
            return _decisive(*settled, limit, why)
    why = (
        reasons.gradient(gradient, gradient_norm, eps, opaque),
        reasons.curvature(curvature, lambda_min, limit, mu2, eps, opaque),
    )
    return _decisive(gradient, curvature, limit, why)


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


def _decisive(
    gradient: Verdict, curvature: Verdict, limit: Enclosure | None, why: tuple[str, str]
) -> Stationarity:
    """The verdict on both, and why: the reasons of the conditions that made it."""
    verdict = Verdict.all_of((gradient, curvature))
    decisive = (reason for part, reason in zip((gradient, curvature), why, strict=True) if part is verdict)
    return Stationarity(verdict, gradient, curvature, limit, tuple(decisive))
