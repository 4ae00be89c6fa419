"""min F_lin over ‖W‖_F ≤ r against r, with F, and where they meet (`break_even`)."""

from __future__ import annotations

import math

import numpy as np

from resnet_cert.compare.break_even import break_even_radius
from resnet_cert.compare.comparators import comparators_here
from resnet_cert.compare.infimum import infimum
from resnet_cert.compare.linear_minimum import LinearMinimum, enclosed_on
from resnet_cert.compare.minimum_on_ball import best_linear_predictor, minimum_on_ball
from resnet_cert.moments.domain import domain_radius
from resnet_cert.moments.gradient import first_moments
from resnet_cert.numerics.enclosure import QUIET, Enclosure, norm
from resnet_cert.numerics.selftest import require_sound_arithmetic
from resnet_cert.numerics.threads import small_algebra_within
from resnet_cert.problem.convexity import assumption1
from resnet_cert.problem.problem import Problem
from resnet_cert.results import Profile, ProfileRow

NARROW = 1e-7
"""A relative width of a minimum that inf F_lin need not make narrower."""
REACH = 10.0
"""A profile reaches so many times up from its middle, and down, or to the point's own ‖W‖: minima on small
balls are cheap, those far beyond the break-even radius are not, and say nothing of F.
"""


@QUIET
@small_algebra_within
def profile(problem: Problem, points: int = 25) -> Profile:
    """min F_lin over ‖W‖_F ≤ r against r, F, and where they meet.

    Args:
        points: how many r, log-spaced around the break-even radius; where that is 0 or infinite, around ‖W*‖,
            or the point's own ‖W‖.
    Raises:
        RequestError: the loss is proven not to be convex on the ball of the best linear predictor.
    """
    require_sound_arithmetic()
    problem = problem.with_features_held()
    b = domain_radius(problem)
    linear = best_linear_predictor(problem, problem.domain.r, b)
    assumption1(problem, 0.0, linear.r)
    F = first_moments(problem).F
    meeting = break_even_radius(F, linear)
    norm_W = norm(problem.W).value
    middle = next(r for r in (meeting.value or 0.0, linear.norm.value, norm_W, 1.0) if 0.0 < r < math.inf)
    first = middle / REACH if norm_W < middle / REACH**3 else min(middle / REACH, norm_W)
    radii = np.geomspace(first, middle * REACH, points)
    return Profile(
        problem.name,
        F,
        meeting,
        profile_rows(linear, [float(r) for r in radii]),
        norm_W,
        comparators_here(problem, F, b),
    )


def profile_rows(linear: LinearMinimum, radii: list[float]) -> tuple[ProfileRow, ...]:
    """min F_lin on balls of rising radii; one search goes on from the other.

    What a smaller ball holds bounds the minimum on a larger one from above.
    """
    data, found = linear.data, None
    rows: list[ProfileRow] = []
    lowest: float | None = None
    everywhere = linear if linear.attained and linear.falls_at_rim is False else None
    for r in radii:
        if everywhere is None and linear.attained and found is not None and not found.place.lam:
            everywhere = minimum_on_ball(data, math.inf, math.inf)
        if everywhere is not None and r >= everywhere.norm.upper:
            least = everywhere.F_min
        else:
            found = data.on_ball(r, found)
            least = enclosed_on(data, found, r, linear.attained, sharp=False).F_min
            if linear.attained is False and least.upper - least.lower > NARROW * least.upper:
                lowest = infimum(data, linear.found).F.lower if lowest is None else lowest
                least = Enclosure(least.value, min(max(least.lower, lowest), least.upper), least.upper)
        if rows:
            before = rows[-1].F_lin_min
            value = max(min(least.value, before.value), least.lower)
            least = Enclosure(value, least.lower, min(least.upper, before.upper))
        rows.append(ProfileRow(r, least))
    return tuple(rows)
