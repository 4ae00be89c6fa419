"""The break-even radius: how large a linear predictor must be to do as well as the network.

m(r) = min F_lin over ‖W‖_F ≤ r is convex and does not rise, and r° = inf{r : m(r) ≤ F}.  No radius that
somebody chose is left in it.  It is 0 where F_lin(0) ≤ F; and infinite only where inf F_lin is proven to
exceed F, by the minimum on a ball that holds a minimiser, or by the infimum of the loss.  Else F_lin(W(λ)) =
F is solved along the path of minimisers (`path`), and one place W a little beyond proves both ends:

above:  F_lin(W) ≤ F gives r° ≤ ‖W‖.
below:  by duality m(ρ) ≥ F_lin(W) − λ/2(ρ² − ‖W‖²) − δ for every ρ, δ for what is left of the gradient, and
        this exceeds F where ρ² < ‖W‖² − 2(F − F_lin(W) + δ)/λ.
"""

from __future__ import annotations

import math

import numpy as np

from resnet_cert.compare import path
from resnet_cert.compare.comparators import comparators_here
from resnet_cert.compare.infimum import infimum
from resnet_cert.compare.linear_data import Data, Found
from resnet_cert.compare.linear_minimum import LinearMinimum, Seen, enclosed_on
from resnet_cert.compare.location import ZERO
from resnet_cert.compare.minimum_on_ball import best_linear_predictor, minimum_on_ball
from resnet_cert.compare.star import within_span
from resnet_cert.moments.domain import domain_radius
from resnet_cert.moments.gradient import first_moments
from resnet_cert.numerics.enclosure import QUIET, Enclosure, norm
from resnet_cert.numerics.selftest import require_sound_arithmetic
from resnet_cert.numerics.threads import small_algebra_within
from resnet_cert.problem.problem import Problem
from resnet_cert.results import BreakEvenRadius, Profile, ProfileRow

MARGIN, FARTHER, TRIES = 4.0, 2.0**6, 5
"""How far below F, in widths of its enclosure, the place lies whose F_lin is to be at most F; how many times
as far where it is not, and how often.
"""
OUT_OF_REACH = 2.0**10
"""A path is left, and inf F_lin asked for, where what is as good as the network is so many times larger."""
LEAST, HIGHER = 2.0**-60, 2.0**6
"""From this λ, relative to the curvature, and by such steps, rounding troubles places less and less."""
NARROW = 1e-7
"""A relative width of the break-even radius that needs no second derivatives to be narrower."""
REACH = 10.0
"""A profile reaches so many times up from its middle, and down, or to the point's own ‖W‖: minima on small
balls are cheap, those far beyond the break-even radius are not, and say nothing of F.
"""


@QUIET
def break_even_radius(
    F: Enclosure, linear: LinearMinimum, F_at_0: Enclosure | None = None
) -> BreakEvenRadius:
    """r°, enclosed.

    Args:
        F: that of the network.  linear: the best linear predictor on any ball, where the search begins.
        F_at_0: F_lin(0), where it is known.
    """
    return _break_even(F, linear, F_at_0)[0]


def _break_even(
    F: Enclosure, linear: LinearMinimum, F_at_0: Enclosure | None = None
) -> tuple[BreakEvenRadius, Found]:
    """The same, and the place of the path where F_lin is about F; that of `linear` where there is none."""
    data, start, own = linear.data, linear.found, _size_as_linear(linear.data.problem)
    if F_at_0 is None:
        nothing = Found(start.objective, path.origin(start.objective, 0.0))
        F_at_0 = Seen.of(data, nothing, blocks=False).F
    if own == 0.0 or F_at_0.upper <= F.lower:
        return BreakEvenRadius(0.0, 0.0, 0.0, False), start
    least, width = _known_infimum(F, linear), F.upper - F.lower
    if not F.lower > least.upper and linear.attained is not True:
        start = data.at_value(F.lower - MARGIN * width, start, OUT_OF_REACH)
        if start.value > F.lower:
            least = infimum(data, linear.found, F.upper).F
    if F.upper < least.lower and own == math.inf:
        return BreakEvenRadius(None, math.inf, None, True, (least - F).lower), linear.found
    lower, upper, value = 0.0, own, None
    lowest = (F.lower + least.upper) / 2.0 if least.upper < F.lower else -math.inf
    for trial in range(TRIES):
        target = max(F.lower - MARGIN * width * FARTHER**trial, lowest)
        start = data.at_value(target, start)
        seen = Seen.of(data, start, blocks=False)
        lower = max(lower, _below(F, seen, lower))
        if seen.F.upper <= F.lower:
            upper, value = min((seen.length * data.scaled.sigma).upper, own), _crossing(F, seen)
        if seen.F.upper <= F.lower or seen.F.lower > F.upper or start.value > target:  # so is the path's end
            break
    if not upper - lower <= NARROW * upper < math.inf:
        lower = _lifted(F, data, start, lower)
    if upper == math.inf:
        return BreakEvenRadius(None, lower, math.inf, None), start
    lower = min(lower, upper)
    value = upper if value is None else min(max(value, lower), upper)
    return BreakEvenRadius(value, lower, upper, False), start


def _lifted(F: Enclosure, data: Data, place: Found, lower: float) -> float:
    """The lower end by second derivatives too, and, where F is about inf F_lin and λ about 0, from places of
    larger λ: there rounding counts for less."""
    lam, worse = max(place.place.lam, data.scale * LEAST), 0
    while lam < data.scale and worse < 2:
        proven = _below(F, Seen.of(data, place, blocks=True), 0.0)
        worse = worse + 1 if 0.0 < proven <= lower else 0
        lower, lam = max(lower, proven), lam * HIGHER
        place = data.at_multiplier(lam, place)
    return lower


def _size_as_linear(problem: Problem) -> float:
    """‖W‖_F, or less of what shifts all predictions alike, where the block moves nothing and the network is a
    linear predictor itself; else ∞."""
    W, d1 = problem.W, problem.d1
    if problem.loss.sum_free and (W[0] == W).all():
        return 0.0
    may_move = bool((W[:, :d1].any(axis=0) & problem.V.any(axis=1)).any())
    if may_move and any(chunk.f.any() for chunk in problem.chunks(features=True)):
        return math.inf
    return within_span(problem, W).norm().upper


def _known_infimum(F: Enclosure, linear: LinearMinimum) -> Enclosure:
    """inf F_lin over all W, as far as it matters for F and is known soon; else its lower end is −∞."""
    lowest = linear.data.infimum_of_loss
    known = Enclosure(linear.F_min.value, -math.inf if lowest is None else lowest, linear.F_min.upper)
    if linear.attained is not True or F.upper < known.lower or F.lower > known.upper:
        return known
    if linear.falls_at_rim is False:
        return linear.F_min
    return minimum_on_ball(linear.data, math.inf, math.inf).F_min


def _below(F: Enclosure, seen: Seen, known: float) -> float:
    """A ρ with m(ρ) > F, by what is proven at a place; `known` where it proves none."""
    lam = seen.found.place.lam
    convex = seen.data.is_convex_on((seen.length * seen.data.scaled.sigma).upper)
    drops = [located.drop for located in seen.places(ZERO, math.inf)] if lam and convex else []
    if not drops:
        return known
    drop = min(drops, key=lambda d: d.upper)
    square = seen.length.square() - (Enclosure.exact(F.upper) - seen.F + drop) * (2.0 / Enclosure.exact(lam))
    if not square.lower > 0.0:
        return known
    return (square.sqrt() * seen.data.scaled.sigma).lower * (1.0 - 2.0**-52)


def _crossing(F: Enclosure, seen: Seen) -> float:
    """r° to first order, from a place nearby."""
    length, lam = seen.length.value, seen.found.place.lam
    if not lam:
        return length * seen.data.scaled.sigma
    square = length * length - 2.0 * (F.value - seen.F.value) / lam
    return math.sqrt(max(square, 0.0)) * seen.data.scaled.sigma


@QUIET
@small_algebra_within
def profile(problem: Problem, points: int = 25) -> Profile:
    """min F_lin over ‖W‖_F ≤ r against r, F, and where they meet.

    Args:
        points: how many r, log-spaced around the break-even radius; where that is 0 or infinite, around ‖W*‖,
            or the point's own ‖W‖.
    """
    require_sound_arithmetic()
    problem = problem.with_features_held()
    b = domain_radius(problem)
    linear = best_linear_predictor(problem, problem.domain.r, b)
    F = first_moments(problem).F
    meeting, _ = _break_even(F, linear)
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
