"""What a certificate claims of the break-even radius r° = inf{r : min F_lin over ‖W‖_F ≤ r is at most F}.

One linear predictor U shows both ends: r° ≤ ‖U‖ where F_lin(U) ≤ F, and by convexity, over all ‖W‖_F ≤ r,

    F_lin(W) ≥ F_lin(U) − ⟨∇F_lin(U), U⟩ − r‖∇F_lin(U)‖,

which exceeds F for every r below (F_lin(U) − ⟨∇F_lin(U), U⟩ − F)/‖∇F_lin(U)‖.  Nothing computed here is
believed by the verifier; the ends are drawn in by MARGIN so that rounding does not make them false.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from resnet_cert.compare.minimum_on_ball import best_linear_predictor
from resnet_cert.numerics.enclosure import QUIET
from resnet_cert.numerics.radius import NOTHING, Array
from resnet_cert.problem.problem import Problem
from resnet_cert.results import Report

BEYOND = 2.0**-20
"""So far beyond the break-even radius, relatively, the predictor is sought: it must be a little better."""
MARGIN = 2.0**-32


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
    value, gradient, terms = _linear(problem, U)
    F, size = report.objective.F, float(np.linalg.norm(U))
    # At a minimiser the terms of the gradient cancel: what is left of them is rounding.
    slope = float(np.linalg.norm(gradient)) + MARGIN * terms
    room = MARGIN * (abs(value) + F.upper - F.lower + abs(F.value) + slope * size)
    above = value - float(np.sum(gradient * U)) - F.upper - room
    lower = above / slope * (1.0 - MARGIN) if slope > 0.0 and above > 0.0 else None
    upper = size * (1.0 + MARGIN) if value + room < F.lower else None
    if lower is not None and not np.isfinite(lower):
        lower = None
    return None if lower is None and upper is None else BreakEvenClaim(lower, upper, U)


def _linear(problem: Problem, U: Array) -> tuple[float, Array, float]:
    """F_lin(U), its gradient, and the mean length of what is added up for that, in floats."""
    total, value, gradient, terms = 0.0, 0.0, np.zeros_like(U), 0.0
    for chunk in problem.chunks(features=False):
        at = problem.loss.derivatives(chunk.x @ U.T, NOTHING, chunk.y, chunk.omega)
        total += float(np.sum(chunk.weights))
        value += float(chunk.weights @ at.value)
        first = at.first * chunk.weights[:, None]
        gradient += first.T @ chunk.x
        terms += float(np.linalg.norm(first, axis=1) @ np.linalg.norm(chunk.x, axis=1))
    return value / total, gradient / total, terms / total
