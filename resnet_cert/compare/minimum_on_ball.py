"""min F_lin over ‖W‖_F ≤ r, F_lin(W) = E[ℓ(Wx; y)], enclosed from both sides.

`path` finds the minimiser, `linear_minimum` proves what holds there, and `infimum` what holds where a part of
the data recedes.
"""

from __future__ import annotations

import math
from dataclasses import replace

from resnet_cert.compare import location
from resnet_cert.compare.dual import dual_bound
from resnet_cert.compare.infimum import on_large_ball
from resnet_cert.compare.linear_data import Data, Found
from resnet_cert.compare.linear_minimum import LinearMinimum, bent, enclosed_on, is_sharp
from resnet_cert.compare.recession import separates
from resnet_cert.numerics.enclosure import QUIET, Enclosure
from resnet_cert.problem.problem import Problem

WIDE = 2.0**-28
"""Relative width of an enclosure that other coordinates may mend,"""
MOST_TURNING = 2**33
"""where n·d² is at most this: some seconds."""


@QUIET
def best_linear_predictor(problem: Problem, r: float | None, b: float) -> LinearMinimum:
    """min F_lin on ‖W‖_F ≤ r; r=None: 1.01·‖argmin F_lin‖_F if inf F_lin is proven to be attained, else b."""
    return minimum_on_ball(Data.of(problem), r, b)


@QUIET
def best_regularised(problem: Problem, r: float | None = None) -> LinearMinimum:
    """min of F_lin + l2‖W‖_F² over all W, or on ‖W‖_F ≤ r: the best value of the objective at V = 0."""
    ridge = 2.0 * problem.objective.l2 * problem.decayed
    return minimum_on_ball(Data.of(problem, ridge), math.inf if r is None else r, math.inf)


@QUIET
def minimum_on_ball(data: Data, r: float | None, b: float) -> LinearMinimum:
    """min Φ on ‖W‖_F ≤ r, as in `_minimum_on_ball`; where the enclosure came out wide, or it stayed open
    whether inf Φ is attained, in better coordinates, or by the infimum over all W.
    """
    best, work = _minimum_on_ball(data, r, b), data.problem.n * data.problem.d**2
    is_settled = is_sharp(best, WIDE) and (best.attained is not None or not data.recession.known)
    if not (is_settled or data.ill_conditioned) and data.may_turn and work <= MOST_TURNING:
        turned = _minimum_on_ball(data.orthogonalised(), r, b)
        worse = turned.r == best.r and turned.F_min.upper > best.F_min.upper + WIDE * abs(best.F_min.upper)
        best = best if worse and turned.attained == best.attained else turned
    if _may_recede_in_part(best) and not is_sharp(best, WIDE):
        best = on_large_ball(best)
    return best if is_sharp(best, WIDE) else _by_duality(best)


def _by_duality(best: LinearMinimum) -> LinearMinimum:
    """The same, known from below by the dual problem too."""
    F, lower = best.F_min, dual_bound(best.data, best.found, best.r)
    if not lower > F.lower:
        return best
    return replace(best, F_min=Enclosure(F.value, min(lower, F.upper), F.upper), lower_from="duality")


def _may_recede_in_part(best: LinearMinimum) -> bool:
    data = best.data
    recedes = best.attained is not True and data.may_recede and not data.ridge.any()
    return recedes and math.isfinite(best.r) and not separates(data.problem, best.found.W)


def on_smaller_ball(best: LinearMinimum, r: float, near: Found) -> LinearMinimum:
    """min Φ on ‖W‖_F ≤ r.

    Args:
        best: that over all W, not known to be in the ball.  near: where to begin, of any Φ.
    """
    data = best.data
    found = enclosed_on(data, data.on_ball(r, near), r, best.attained)
    return found if is_sharp(found, WIDE) else minimum_on_ball(data, r, math.inf)


def _minimum_on_ball(data: Data, r: float | None, b: float) -> LinearMinimum:
    """min Φ on ‖W‖_F ≤ r; r=None: 1.01·‖argmin Φ‖_F if inf Φ is proven to be attained, else b.

    Whether it is attained is asked on the way: where it may not be, the minimum on the ball comes first, for
    its W often separates the data, and proves that there is none.
    """
    found, attained, chosen, known = None, None, True, data.recession.known
    if r is not None and math.isfinite(r) and data.may_recede:
        found = data.on_ball(r)
        if known and separates(data.problem, found.W):
            attained = False
    radius = b if r is None else r
    if attained is None:
        start, attained = data.unconstrained(found)
        if attained is None:
            attained = True if _locates(data, start) else data.recession.is_attained(start.W)
        arrived = start.place.converged if attained else not known and start.settled
        if r is None:
            chosen = arrived
            radius = 1.01 * start.norm if chosen else b
        if (attained or arrived or not math.isfinite(radius)) and start.norm <= radius:
            found = start
        elif found is None and start.place.lam:
            found = data.on_ball(radius, start)
    return enclosed_on(data, found or data.on_ball(radius), radius, attained, chosen)


def _locates(data: Data, found: Found) -> bool:
    """Proven: inf Φ over all W is attained, near the place."""
    objective, point = found.objective, found.place.point
    return data.is_convex_on(math.inf) and any(
        location.by_curvature(objective, point, 0.0, at, location.ZERO, math.inf) is not None
        for at in bent(found)
    )
