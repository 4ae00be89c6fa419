"""What is proven at a place of the path about min F_lin over ‖W‖_F ≤ r, from both sides.

It does not depend on how Û was found:

above:  F_lin(Ŵ), ‖Ŵ‖ ≤ r checked.
below:  convexity over the ball, F_lin(Ŵ) − ⟨g, Ŵ⟩ − r‖g‖; the infimum of the loss; and, with the multiplier λ
        and a lower bound m of the curvature (`location`), F_lin(Ŵ) − λ/2(r² − ‖Ŵ‖²) − ‖∇L‖²/(2m).
where:  the minimiser W* of least norm, within δ of Ŵ (`location`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from resnet_cert.compare import location, path
from resnet_cert.compare.linear_data import Data, Found
from resnet_cert.compare.linear_objective import Enclosed, LinearObjective
from resnet_cert.compare.location import Located, across_the_boundary, predictor, weighted
from resnet_cert.compare.path import Place
from resnet_cert.numerics.enclosure import Ball, Enclosure, added, inner
from resnet_cert.numerics.radius import Array, Radius, U, gamma

LARGEST_BLOCK = 2000
"""The largest block of the Hessian whose least eigenvalue is enclosed,"""
MOST_WORK = 10**11
"""if n times the squares of the blocks is at most this."""
SHARP = 2.0**-40
"""Relative width of an enclosure that needs no second derivatives to be sharper,"""
NEAR = 2.0**-30
"""and the same of a place."""


@dataclass(frozen=True)
class LinearMinimum:
    """The best linear predictor on ‖W‖_F ≤ r.

    F_min: min F_lin, enclosed, or that of F_lin + ½Σ ρ_j‖W_j‖².  F_at: its value at the predictor that was
    found.  W_star: (q, d) that predictor, rounded, and the distance within which the minimiser of least norm
    lies; it is always in the ball.  attained: inf F_lin over all W is, or is not, each proven; else None.
    lower_from: which argument gave F_min.lower.  falls_at_rim: F_lin still falls beyond the ball, or does
    not, each proven.  chosen: r is 1.01·‖W*‖ or given; else it is a default that says nothing about the data.
    data, found: where it was looked for, and found; found_radius: how far that place is from its rounded W.
    """

    F_min: Enclosure
    F_at: Enclosure
    W_star: Ball
    r: float
    attained: bool | None
    lower_from: str
    falls_at_rim: bool | None
    chosen: bool
    data: Data
    found: Found
    found_radius: Radius

    @property
    def norm(self) -> Enclosure:
        """‖W*‖_F, at most r."""
        if self.falls_at_rim:
            return Enclosure.exact(self.r)
        length = self.W_star.norm()
        return length.intersect(0.0, max(self.r, length.lower))


def bent(found: Found) -> Iterator[Enclosed]:
    """What is proven at a place with second derivatives, bounded from below and then all of them, where they
    are affordable."""
    problem, d = found.objective.design.problem, found.objective.d
    size, blocks = (problem.q * d, 1) if found.objective.is_mean_free else (d, problem.q)
    if d <= LARGEST_BLOCK and problem.n * d**2 <= MOST_WORK:
        yield found.enclosed_from_below
    if size <= LARGEST_BLOCK and problem.n * size**2 * blocks <= MOST_WORK:
        yield found.enclosed_whole


@dataclass(frozen=True)
class Seen:
    """What one pass proves at Û, in the units of the design: Φ without P, ∇Φ and W."""

    data: Data
    found: Found
    W: Ball
    at: Enclosed

    @staticmethod
    def of(data: Data, found: Found, *, blocks: bool) -> Seen:
        """blocks: with second derivatives."""
        at = next(reversed(list(bent(found))), found.enclosed) if blocks else found.enclosed
        return Seen(data, found, predictor(found.objective, found.place.point), at)

    @staticmethod
    def at_0(data: Data, objective: LinearObjective) -> Seen:
        """The same at W = 0."""
        return Seen.of(data, Found(objective, path.origin(objective, 0.0)), blocks=False)

    @cached_property
    def length(self) -> Enclosure:
        return self.W.norm()

    @cached_property
    def F(self) -> Enclosure:
        return self.at.F + _ridge_value(self.data.ridge, self.W)

    @cached_property
    def gradient(self) -> Ball:
        """∇Φ in W."""
        return added(self.at.slope_x, weighted(self.W, self.data.ridge))

    def places(self, c: Enclosure, r: float) -> list[Located]:
        """The minimiser on the ball of radius r, in every way that there is."""
        objective, place = self.found.objective, self.found.place
        slope = added(self.gradient, weighted(self.W, np.full(self.W.center.shape[1], place.lam))).norm()
        ways = (
            location.by_multiplier(slope, place.lam, c),
            location.by_curvature(objective, place.point, place.lam, self.at, c, r),
        )
        return [located for located in ways if located is not None]

    def least_on(self, ball: Enclosure) -> Enclosure | None:
        """A lower bound of Φ on the ball of that radius, as the lower end: by duality, from any ball's Û."""
        lam = self.found.place.lam
        drops = [located.drop for located in self.places(location.ZERO, math.inf)]
        if not drops or not lam:
            return None
        return (
            self.F - (ball.square() - self.length.square()) * (0.5 * lam) - min(drops, key=lambda d: d.upper)
        )


def enclosed_on(
    data: Data, found: Found, r: float, attained: bool | None, chosen: bool = True, *, sharp: bool = True
) -> LinearMinimum:
    """Everything proven about Û: min Φ from both sides, and the place of the minimiser.

    sharp: form second derivatives where the enclosure is wide without them.
    """
    ball = Enclosure.exact(r) / data.scaled.sigma if math.isfinite(r) else Enclosure(math.inf, 0.0, math.inf)
    outside, found = found, _inside(found, ball.lower if math.isfinite(r) else math.inf)
    if not data.is_convex_on(r):
        return without_convexity(_from(Seen.of(data, found, blocks=False), ball, r, attained, chosen))
    plain = Seen.of(data, found, blocks=False)
    best, curved = _from(plain, ball, r, attained, chosen), bent(found) if sharp else iter(())
    while not (is_sharp(best) and best.falls_at_rim is not None):
        at = next(curved, None)
        if at is None:
            break
        best = _from(replace(plain, at=at), ball, r, attained, chosen)
    if sharp and found is not outside and not is_sharp(best):
        beyond = Seen.of(data, outside, blocks=True)
        if data.is_convex_on((beyond.length * data.scaled.sigma).upper):
            return _raised(best, beyond.least_on(ball))
    return best


def _raised(linear: LinearMinimum, least: Enclosure | None) -> LinearMinimum:
    """The same, known from below by duality from a place a little outside of the ball as well."""
    F = linear.F_min
    if least is None or not least.lower > F.lower:
        return linear
    return replace(
        linear, F_min=Enclosure(F.value, min(least.lower, F.upper), F.upper), lower_from="strong convexity"
    )


def without_convexity(linear: LinearMinimum) -> LinearMinimum:
    """The predictor that was found, with nothing said of its being the best."""
    F, W = linear.F_min, linear.W_star.center
    anywhere = Radius.of(linear.r) + Radius.norm(W)
    return replace(
        linear,
        F_min=Enclosure(F.value, -math.inf, F.upper),
        W_star=Ball(W, anywhere),
        attained=None,
        falls_at_rim=None,
        lower_from="Assumption 1 is not known to hold there",
    )


def is_sharp(best: LinearMinimum, enough: float = SHARP) -> bool:
    """The relative width of the minimum is that small; and its place is known as well as float64 knows it,
    which on the rim of the ball no second derivative and no coordinates change much."""
    width = best.F_min.upper - best.F_min.lower
    near = best.found.place.lam > 0.0 or float(best.W_star.radius) <= NEAR * best.norm.value
    return width <= enough * abs(best.F_min.upper) and (near or not best.r)


def _inside(found: Found, r: float) -> Found:
    """The place, or one beside it whose W is proven to be in the ball of radius r."""
    objective, place = found.objective, found.place
    upper = predictor(objective, place.point).norm().upper
    if upper <= r:
        return found
    for point in (place.point * (r / upper * (1.0 - 8 * U)), np.zeros_like(place.point)):
        if predictor(objective, point).norm().upper <= r:
            break
    return Found(objective, Place(point, place.lam, place.at, place.converged))


def _from(seen: Seen, ball: Enclosure, r: float, attained: bool | None, chosen: bool) -> LinearMinimum:
    data, F, W, g, length = seen.data, seen.F, seen.W, seen.gradient, seen.length
    lam, sigma, bounded = seen.found.place.lam, data.scaled.sigma, math.isfinite(r)
    lowers = {"convexity": (F - inner(g, W) - g.norm() * ball).lower if bounded else -math.inf}
    infimum = data.infimum_of_loss
    if infimum is not None:
        lowers["infimum of the loss"] = infimum
    c = location.ZERO
    if lam > 0.0 and bounded:
        c = (ball.square() - length.square()).positive_part() * (0.5 * lam)
    inside = ball.lower if bounded else math.inf
    distance = (ball + length).upper
    places = seen.places(c, inside) if bounded or not lam else []
    for located in places:
        lowers["strong convexity"] = max(
            lowers.get("strong convexity", -math.inf), (F - c - located.drop).lower
        )
        distance = min(distance, located.distance_in_W)
    bend = location.GROWTH * float(seen.at.bend)
    steady = location.is_steady(seen.found.objective, seen.at, distance)
    if lam > 0.0 and steady and places:
        m = max(max(located.curvature_in_W for located in places), lam)
        ways = (across_the_boundary(inside, lam, located, m, length, bend) for located in places)
        distance = min(distance, *ways)
    source = max(lowers, key=lambda name: lowers[name])
    falls = None
    if attained is False:
        falls = True
    elif attained and (length + distance).upper < inside:
        falls = False
    elif steady and (g.norm() - Enclosure.exact(bend) * distance).lower > 0.0:
        falls = True  # ∇Φ(W*) ≠ 0
    W_star = Ball(W.center * sigma, (W.radius + Radius.of(distance)) * sigma)
    return LinearMinimum(
        Enclosure(F.value, min(lowers[source], F.upper), F.upper),
        F,
        W_star,
        r,
        attained,
        source,
        falls,
        chosen,
        data,
        seen.found,
        W.radius * sigma,
    )


def _ridge_value(ridge: Array, W: Ball) -> Enclosure:
    """½Σ ρ_j‖W_j‖²."""
    if not ridge.any():
        return Enclosure.exact(0.0)
    squares = np.square(np.sqrt(ridge) * W.center)
    value = 0.5 * float(np.sum(squares))
    size = Radius.norm(W.center) + W.radius
    rounding = Radius.of(value) * gamma(squares.size + 8) + Radius.underflow(2 * squares.size)
    error = rounding + W.radius * size * (2.0 * float(np.max(ridge)))
    return Enclosure.around(value, error)
