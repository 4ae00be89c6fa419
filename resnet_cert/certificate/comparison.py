"""What a certificate claims of the break-even radius r° = inf{r : min F_lin over ‖W‖_F ≤ r is at most F}.

One linear predictor U shows both ends: r° ≤ ‖U‖ where F_lin(U) ≤ F, and by convexity, over all ‖W‖_F ≤ r,

    F_lin(W) ≥ F_lin(U) − ⟨∇F_lin(U), U⟩ − r‖∇F_lin(U)‖,

which exceeds F for every r below (F_lin(U) − ⟨∇F_lin(U), U⟩ − F)/‖∇F_lin(U)‖.  Both ends are proven here, in
float64; the verifier believes nothing of that, and proves them again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from resnet_cert.compare.minimum_on_ball import best_linear_predictor
from resnet_cert.moments.gradient import first_moments
from resnet_cert.numerics.enclosure import QUIET, Ball, Enclosure, inner, norm
from resnet_cert.numerics.radius import Array
from resnet_cert.problem.problem import Point, Problem
from resnet_cert.results import Report

BEYOND = 2.0**-20
"""So far beyond the break-even radius, relatively, the predictor is sought: it must be a little better."""


@dataclass(frozen=True)
class BreakEvenClaim:
    """lower ≤ r° ≤ upper, each if it is claimed, shown by U (q, d)."""

    lower: float | None
    upper: float | None
    U: Array


@QUIET
def break_even_claim(problem: Problem, report: Report) -> BreakEvenClaim | None:
    """What can be shown, where `check` found something; None where there is nothing to say."""
    found = report.objective.break_even_radius
    if found is None or (found.lower == 0.0 and found.upper == 0.0):
        return None
    known = found.upper is not None and np.isfinite(found.upper)
    radius = found.upper * (1.0 + BEYOND) if known and found.upper is not None else report.constants.r
    U = best_linear_predictor(problem, radius, report.constants.b).W_star.center
    if not np.isfinite(U).all():
        return None
    W, c = (U[:, :-1], U[:, -1]) if problem.has_bias else (U, None)
    at = first_moments(replace(problem, point=Point(W, np.zeros_like(problem.V), c)))  # of F_lin
    room, steep = at.F - inner(at.g_W, Ball.exact(U)) - report.objective.F, Enclosure.up_to(at.g_W.size())
    lower = room.lower / steep.upper if room.lower > 0.0 else 0.0
    lower = float(np.nextafter(lower, 0.0)) if np.isfinite(lower) else 0.0
    upper = norm(U).upper if at.F.upper <= report.objective.F.lower else np.inf
    claim = BreakEvenClaim(lower or None, upper if np.isfinite(upper) else None, U)
    return None if claim.lower is None and claim.upper is None else claim
