"""The break-even radius: how large a linear predictor must be to do as well as the network.

m(r) = min F_lin over ‖W‖_F ≤ r is convex and does not rise, and r° = inf{r : m(r) ≤ F}.  No radius that
somebody chose is left in it.  It is 0 where F_lin(0) ≤ F; and infinite only where inf F_lin is proven to
exceed F, by the minimum on a ball that holds a minimiser, or by the infimum of the loss.  Else F_lin(W(λ)) =
F is solved along the path of minimisers (`path`), and one place W a little beyond proves both ends:

above:  F_lin(W) ≤ F gives r° ≤ ‖W‖.
below:  by duality m(ρ) ≥ F_lin(W) − λ/2(ρ² − ‖W‖²) − δ for every ρ, δ for what is left of the gradient, and
        this exceeds F where ρ² < ‖W‖² − 2(F − F_lin(W) + δ)/λ.

Where F is inf F_lin to rounding, and that is attained, the place is one near the end of the path: what it
loses below, λs + 2D/λ for F − inf F_lin ≤ D and s = −½ d‖W(λ)‖²/dλ, is least at λ = √(2D/s).  There F is told
from F_lin by convexity, F − F_lin(W) ≤ ‖∇F_lin(W_0)‖‖W_0 − W‖ for a network that is a linear predictor W_0
itself, and by balls for others, if they are affordable (`finely`).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from resnet_cert.compare import path
from resnet_cert.compare.infimum import infimum
from resnet_cert.compare.linear_data import Data, Found
from resnet_cert.compare.linear_minimum import LinearMinimum, Seen
from resnet_cert.compare.location import ZERO
from resnet_cert.compare.minimum_on_ball import minimum_on_ball
from resnet_cert.compare.path import Departure
from resnet_cert.compare.star import within_span
from resnet_cert.decide.decision import has_flint
from resnet_cert.numerics.enclosure import QUIET, Enclosure, difference
from resnet_cert.problem.losses import BuiltinLoss
from resnet_cert.problem.problem import Problem
from resnet_cert.results import BreakEvenRadius

MARGIN, FARTHER, TRIES = 4.0, 2.0**6, 5
"""How far below F, in widths of its enclosure, the place lies whose F_lin is to be at most F; how many times
as far where it is not, and how often.
"""
OUT_OF_REACH = 2.0**10
"""A path is left, and inf F_lin asked for, where what is as good as the network is so many times larger."""
LEAST, HIGHER = 2.0**-60, 2.0**6
"""From this λ, relative to the curvature, and by such steps, rounding troubles places less and less."""
NARROW = 5e-7
"""A relative width of the break-even radius that need not be less."""
MOST_BALLS = 2**16
"""The most n·q(d + k + 32) for which F_lin is looked at in balls: some hundredths of a second a place."""
RESOLVED = 2.0**16
"""How many times the rounding of F_lin λ‖W‖² is where float64 knows the place of λ."""
SHORT = 2.0**-10
"""How far below F, relative to F − inf F_lin, the place lies whose F_lin is to be at most F in balls."""


@QUIET
def break_even_radius(
    F: Enclosure, linear: LinearMinimum, F_at_0: Enclosure | None = None
) -> BreakEvenRadius:
    """r°, enclosed.

    Args:
        F: that of the network.  linear: the best linear predictor on any ball, where the search begins.
        F_at_0: F_lin(0), where it is known.
    """
    data, start, own = linear.data, linear.found, _size_as_linear(linear.data.problem)
    if F_at_0 is None:
        F_at_0 = Seen.at_0(data, start.objective).F
    if own == 0.0 or F_at_0.upper <= F.lower:
        return BreakEvenRadius(0.0, 0.0, 0.0, False)
    whole, lowest = _everywhere(F, linear), data.infimum_of_loss
    least = Enclosure(linear.F_min.value, -math.inf if lowest is None else lowest, linear.F_min.upper)
    width = F.upper - F.lower
    if whole is not None:
        least, start = whole.F_min, whole.found
    elif not _is_resolved(data, start):
        start = Found(start.objective, path.origin(start.objective, data.scale))
    if whole is None and not F.lower > least.upper:
        start = data.at_value(F.lower - MARGIN * width, start, OUT_OF_REACH)
        if start.value > F.lower:
            least = infimum(data, linear.found, F.upper).F
    if F.upper < least.lower and own == math.inf:
        return BreakEvenRadius(None, math.inf, None, True, (least - F).lower)
    if whole is not None and not start.place.lam:
        width += least.upper - least.lower
        leaving = Departure.of(start.objective, start.place)
        clear = (F - least).lower - MARGIN * width
        if clear < MARGIN * width or _is_at_end(data, leaving, clear, width):
            return _at_infimum(F, whole, leaving, own)
        near = leaving.reaches(clear)
        place = leaving.at(leaving.multiplier(clear)) if near else leaving.far(clear)
        start = Found(start.objective, place)
    return _along_path(F, data, start, least, width, own)


def _everywhere(F: Enclosure, linear: LinearMinimum) -> LinearMinimum | None:
    """The best linear predictor of all, where there is one and F may be about as low."""
    lowest = linear.data.infimum_of_loss
    if linear.attained is not True:
        return None
    if linear.falls_at_rim is False:
        return linear
    if F.lower > linear.F_min.upper or (lowest is not None and F.upper < lowest):
        return None
    return minimum_on_ball(linear.data, math.inf, math.inf)


def _along_path(
    F: Enclosure, data: Data, start: Found, least: Enclosure, width: float, own: float
) -> BreakEvenRadius:
    """By the place where F_lin is F, less a little.

    Args:
        least: inf F_lin, as far as it is known.  width: the rounding of F.  own: a radius that is enough.
    """
    lower, upper, value = 0.0, own, None
    lowest = (F.lower + least.upper) / 2.0 if least.upper < F.lower else -math.inf
    for trial in range(TRIES):
        target = max(F.lower - MARGIN * width * FARTHER**trial, lowest)
        start = data.at_value(target, start)
        seen = Seen.of(data, start, blocks=False)
        lower, width = max(lower, _below(F, seen, lower)), max(width, seen.F.upper - seen.F.lower)
        if seen.F.upper <= F.lower:
            upper, value = min((seen.length * data.scaled.sigma).upper, own), _crossing(F, seen)
        if seen.F.upper <= F.lower or seen.F.lower > F.upper or start.value > target:  # so is the path's end
            break
    if lower < upper * (1.0 - NARROW) and _has_balls(data.problem):
        from resnet_cert.compare.finely import Fine

        fine = Fine(data.problem, F)
        there = fine.at(start.W)
        if not (there.is_enough and there.too_small >= there.norm * (1.0 - NARROW)):
            start = _resolved(data, start)
            lam = start.place.lam / data.scaled.sigma / data.scaled.sigma
            there = fine.on_path(start.W, lam, NARROW) or there
        lower, upper = max(lower, there.too_small), min(upper, there.is_enough_from)
    if lower < upper * (1.0 - NARROW):
        lower = _lifted(F, data, start, lower)
    return _between(lower, upper, value)


def _square(data: Data, found: Found) -> float:
    """‖W‖² in the units of the design; infinite where that is no float."""
    length = found.norm / data.scaled.sigma
    return length * length


def _is_resolved(data: Data, found: Found) -> bool:
    """float64 knows the place of λ there."""
    return found.place.lam * _square(data, found) >= RESOLVED * found.place.at.noise


def _resolved(data: Data, found: Found) -> Found:
    """The place, or one of a λ that is more than rounding."""
    square = _square(data, found)
    if _is_resolved(data, found) or not square:
        return found
    return data.at_multiplier(RESOLVED * found.place.at.noise / square, found)


def _between(lower: float, upper: float, value: float | None = None) -> BreakEvenRadius:
    if upper == math.inf:
        return BreakEvenRadius(None, lower, math.inf, None)
    lower = min(lower, upper)
    value = upper if value is None else min(max(value, lower), upper)
    return BreakEvenRadius(value, lower, upper, False)


def _is_at_end(data: Data, leaving: Departure, clear: float, width: float) -> bool:
    """The end of the path is as good as the place where F_lin is less than F by `clear`, or that place is not
    seen well enough in float64, but in balls."""
    lam, square = leaving.multiplier(clear), leaving.square
    if 4.0 * lam * leaving.bend < NARROW * square:
        return True
    return NARROW * lam * square < 4.0 * MARGIN * width and _has_balls(data.problem)


def _at_infimum(F: Enclosure, whole: LinearMinimum, leaving: Departure, own: float) -> BreakEvenRadius:
    """Where F is about inf F_lin, both ends by places near the minimiser; in balls, if float64 does not tell
    enough."""
    data, found, sigma = whole.data, whole.found, whole.data.scaled.sigma
    end = Seen.of(data, found, blocks=False)
    lower, upper = 0.0, min(own, (end.length * sigma).upper) if end.F.upper <= F.lower else own
    in_balls = _has_balls(data.problem)
    if upper < math.inf or not in_balls:
        rounding = whole.F_min.upper - whole.F_min.lower
        more = max((F - whole.F_min).upper, 0.0) + rounding
        itself = _itself(data, found) if own < math.inf else None
        if itself is not None:
            more = min(more, _apart(itself, end).upper)
        place = Found(found.objective, leaving.at(leaving.best(more, end.gradient.norm().upper)))
        lower = _below(F, Seen.of(data, place, blocks=False), 0.0, itself)
    if lower >= upper * (1.0 - NARROW) or not in_balls:
        return _between(lower, upper)
    from resnet_cert.compare.finely import Fine

    fine, W = Fine(data.problem, F), end.W.center * sigma
    here = fine.at(W)
    if upper == math.inf and not here.is_enough:
        places = Seen.of(data, found, blocks=True).places(ZERO, math.inf)
        distance = min((located.distance_in_W for located in places), default=math.inf)
        distance = ((Enclosure.exact(distance) + float(end.W.radius)) * sigma).upper
        margin = here.margin(W, distance)
        if not margin > 0.0 and distance < math.inf:
            here = fine.minimiser(W)
            margin = here.margin(W, distance)
        if margin > 0.0:
            return BreakEvenRadius(None, math.inf, None, True, margin)
    lam = leaving.best(here.above_at_most * (1.0 - SHORT), here.steepness)
    place = Found(found.objective, leaving.at(lam))
    there = fine.at(place.W)
    lower, upper = max(lower, there.too_small), min(upper, here.is_enough_from, there.is_enough_from)
    if here.is_enough and lower < upper * (1.0 - NARROW):
        there = fine.on_path(place.W, lam / sigma / sigma, NARROW) or there
        lower, upper = max(lower, there.too_small), min(upper, there.is_enough_from)
    return _between(lower, upper)


def _has_balls(problem: Problem) -> bool:
    """There are balls for this loss, and they take no longer than a search in float64."""
    work = problem.n * problem.q * (problem.d + problem.k + 32)
    return work <= MOST_BALLS and isinstance(problem.loss, BuiltinLoss) and has_flint()


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


def _itself(data: Data, found: Found) -> Seen | None:
    """The network, which is a linear predictor; None where that is none of the objective's coordinates."""
    objective = found.objective
    point = objective.coordinates(data.problem.W / data.scaled.sigma)
    seen = Seen.of(data, Found(objective, replace(found.place, point=point)), blocks=False)
    is_exact = seen.W.radius.exact and np.array_equal(seen.W.center * data.scaled.sigma, data.problem.W)
    return seen if is_exact else None


def _apart(itself: Seen, other: Seen) -> Enclosure:
    """F − F_lin(W) at most, for a network that is linear itself: F_lin is convex."""
    return itself.gradient.norm() * difference(itself.W, other.W).norm()


def _below(F: Enclosure, seen: Seen, known: float, itself: Seen | None = None) -> float:
    """A ρ with m(ρ) > F, by what is proven at a place; `known` where it proves none."""
    lam, farthest = seen.found.place.lam, max(at.length.upper for at in (seen, itself or seen))
    convex = seen.data.is_convex_on((Enclosure.exact(farthest) * seen.data.scaled.sigma).upper)
    drops = [located.drop for located in seen.places(ZERO, math.inf)] if lam and convex else []
    if not drops:
        return known
    above = (Enclosure.exact(F.upper) - seen.F).upper
    if itself is not None:
        above = min(above, _apart(itself, seen).upper)
    drop = min(drops, key=lambda d: d.upper)
    square = seen.length.square() - (Enclosure.exact(above) + drop) * (2.0 / Enclosure.exact(lam))
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
