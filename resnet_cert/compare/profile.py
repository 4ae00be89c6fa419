"""The break-even radius: how large a linear predictor must be to do as well as the network.

m(r) = min F_lin over ‖W‖_F ≤ r is convex and does not rise, and r° = inf{r : m(r) ≤ F}.  No radius that
somebody chose is left in it.  From below it is proven by a ball whose enclosed minimum exceeds F; from above
by any Û
with F_lin(Û) ≤ F, r° ≤ ‖Û‖; it is 0 where F_lin(0) ≤ F, and infinite only where inf F_lin is proven to exceed
F: by the minimum on a ball that holds the minimiser, or by the infimum of the loss.

Both ends are places of one path (`path`): F_lin(W(λ)) = F is solved for λ, and two neighbours of that place,
a little inside and a little outside, are proven.
"""

from __future__ import annotations

import math

import numpy as np

from resnet_cert.compare import path
from resnet_cert.compare.minimum_on_ball import Data, Found, LinearMinimum, enclosed_at
from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.problem.problem import Problem
from resnet_cert.results import BreakEvenRadius

ASIDE = 2.0**-24
"""How far from the break-even radius, relatively, its ends are tried first; then 2^6 times as far, and so
on.
"""
TRIES = 4
DECADES = 1.5
"""A profile reaches so many decades to both sides of its middle."""

NEVER = BreakEvenRadius(None, math.inf, None, True)


def break_even_radius(problem: Problem, F: Enclosure, linear: LinearMinimum) -> BreakEvenRadius:
    """r°, enclosed.

    Args:
        F: that of the network.  linear: the best linear predictor on some ball, where the search begins.
    """
    return _break_even(Data.of(problem, np.zeros(problem.d)), F, linear)[0]


def _break_even(data: Data, F: Enclosure, linear: LinearMinimum) -> tuple[BreakEvenRadius, Found]:
    start = Found(linear.objective, linear.place)
    at_zero = enclosed_at(data, Found(linear.objective, path.origin(linear.objective, 0.0)), 0.0)
    if at_zero.F_at.upper <= F.lower:
        return BreakEvenRadius(0.0, 0.0, 0.0, False), start
    everywhere = linear
    if F.value < linear.F_min.upper and linear.falls_at_rim is not False:
        if linear.attained is not False:
            everywhere = data.minimum(math.inf)
        least = max(everywhere.F_min.lower if everywhere.attained else -math.inf, linear.least)
        if F.upper < least:
            return NEVER, start
    elif F.upper < linear.F_min.lower and linear.attained:
        return NEVER, start
    found = data.at_value(F.value, start)
    length = found.norm
    lower, upper = 0.0, math.inf
    aside = ASIDE
    for _ in range(TRIES):
        if lower == 0.0:
            inside = data.on_ball_from(found, length * (1.0 - aside))
            if enclosed_at(data, inside, length * (1.0 - aside)).F_min.lower > F.upper:
                lower = length * (1.0 - aside)
        if upper == math.inf:
            outside = data.on_ball_from(found, length * (1.0 + aside))
            at = enclosed_at(data, outside, length * (1.0 + aside))
            if at.F_at.upper <= F.lower:
                upper = at.length.upper
        aside *= 2.0**6
    infinite = False if math.isfinite(upper) else None
    return BreakEvenRadius(min(max(length, lower), upper), lower, upper, infinite), found
