"""The data of a linear predictor, and where the search for min F_lin goes in them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np

from resnet_cert.compare import path
from resnet_cert.compare.design import (
    FAR_FROM_DEPENDENT,
    WELL_CONDITIONED,
    WIDEST,
    Design,
    independence,
    orthogonalised,
    scaled_design,
)
from resnet_cert.compare.linear_objective import Enclosed, LinearObjective
from resnet_cert.compare.path import Place
from resnet_cert.compare.recession import Recedes, recedes, separates
from resnet_cert.compare.row_space import Unseen, unseen_directions
from resnet_cert.moments.executors import summed
from resnet_cert.moments.moments import MeanSums, value_sum, weight_sum
from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.numerics.radius import NOTHING, Array
from resnet_cert.numerics.sums import Blocks
from resnet_cert.outcomes import RequestError
from resnet_cert.problem.convexity import assumption1, convex_everywhere
from resnet_cert.problem.losses import BuiltinLoss
from resnet_cert.problem.problem import Chunk, Problem

INSIDE = 1.0 - 2.0**-42
"""The search aims at this fraction of a ball's radius, so that its errors do not leave the ball."""
SETTLED = 1e-6
"""Relative length of a Newton step of a custom loss that has arrived."""
SHORT_OF_NOTHING = 2.0**-33
"""The λ, relative to the curvature, from which on ill-conditioned data need coordinates of their own."""
ABOUT, CLOSER, MOST_TURNS = 2.0**4, 2.0**-36, 6
"""Coordinates suit a λ that is larger or smaller by no more than the first factor; where the search in them
does not arrive, those of a λ smaller by the second; so often others are taken."""
ALIKE = 2.0**-10
"""What a predictor may change when it is moved to them."""
STEPS_TO_INFINITY = 12
"""Steps of the path, each to a 2^-8 of λ, after which no direction of recession is looked for along it."""
ACCURACY = 1e-12
"""Of a place whose λ is given, relative to Φ."""
STEPS_OF_A_LEAP = 20
"""λ = 0 is tried first, in so many steps of Newton's method: where there is a minimiser it is mostly found
so, and where there is none the data are mostly separated."""


@dataclass(frozen=True)
class Found:
    """A place on the path, in the coordinates of its objective."""

    objective: LinearObjective
    place: Place

    @property
    def norm(self) -> float:
        """‖W‖_F."""
        return path.norm_W(self.objective, self.place) * self.objective.design.sigma

    @property
    def W(self) -> Array:
        """(q, d)."""
        return self.objective.design.sigma * self.objective.W(self.place.point)

    @property
    def value(self) -> float:
        """Φ."""
        return path.loss_value(self.objective, self.place)

    @cached_property
    def enclosed(self) -> Enclosed:
        """What is proven here by one pass, without second derivatives where they cost more than it,"""
        return self.objective.enclosed(self.place.point, blocks=self.objective.forms_in_passing)

    @cached_property
    def enclosed_from_below(self) -> Enclosed:
        """with a lower bound of them, or with all of them."""
        at = self.enclosed
        return (
            at if at.least or at.blocks else replace(at, least=self.objective.least_block(self.place.point))
        )

    @cached_property
    def enclosed_whole(self) -> Enclosed:
        at = self.enclosed
        return at if at.blocks else self.objective.enclosed(self.place.point, blocks=True)

    @property
    def settled(self) -> bool:
        """A Newton step is short: what is known of an attained infimum where nothing is known of the loss.

        Where the loss is straight no step is one of Newton's: then only a gradient that is rounding will do.
        """
        objective, at = self.objective, self.place.at
        step = path.solver(objective, at, 0.0)(at.gradient)
        left = float(np.linalg.norm(objective.hessian_product(at, 0.0, step) - at.gradient))
        slope, size = float(np.linalg.norm(at.gradient)), 1.0 + float(np.linalg.norm(self.place.point))
        is_step = left <= 0.5 * slope or slope * size <= at.noise
        return is_step and float(np.linalg.norm(step)) <= SETTLED * size

    def is_as(self, other: Found) -> bool:
        """‖W‖ and Φ are those of another place, whose coordinates may not be good enough for it."""
        pairs = (self.norm, other.norm), (self.value, other.value)
        return all(math.isclose(one, two, rel_tol=ALIKE) for one, two in pairs)

    def moved(self, objective: LinearObjective) -> Found:
        """The same predictor in other coordinates."""
        ratio = self.objective.design.sigma / objective.design.sigma
        point = objective.coordinates(ratio * self.objective.W(self.place.point))
        lam = float(np.float64(self.place.lam) / ratio / ratio)  # inf or NaN where floats end, and no fault
        return Found(objective, Place(point, lam, objective.sketch(point, lam), converged=False))


Search = Callable[[Found, float], Place]
"""From a place, and the least λ that it may go to, to another place."""
Judge = Callable[[Found], tuple[bool, float]]
"""Of a place: it is what was looked for, and how far from the best it is."""


@dataclass(frozen=True)
class Data:
    """What is known of the data of a linear predictor before anything is minimised.

    ridge: ρ (d,) of ½Σ ρ_j‖W_j‖².  may_turn: other coordinates may be better.  unseen: directions that the
    data do not see, in the scaled inputs; is_asked: they were looked for.
    """

    problem: Problem
    ridge: Array
    scaled: Design
    ill_conditioned: bool
    may_turn: bool
    unseen: Unseen | None
    recession: Recedes
    is_asked: bool = False

    @staticmethod
    def of(problem: Problem, ridge: Array | None = None) -> Data:
        ridge = np.zeros(problem.d) if ridge is None else ridge
        scaled = scaled_design(problem, fixed=bool(ridge.any()))
        plain = Data(problem, ridge, scaled, False, False, None, recedes(problem))
        if problem.d > WIDEST:
            return plain
        decay = np.diag(np.square(np.sqrt(ridge) * scaled.units))
        moments = plain._plain.second_moments + decay
        apart, data = independence(moments), plain
        if apart < WELL_CONDITIONED:
            data = plain.with_unseen()
            if data.unseen is not None:
                across = scaled.units[:, None] * data.unseen.Z
                apart = independence(moments + across @ across.T)
        return replace(data, ill_conditioned=apart < WELL_CONDITIONED, may_turn=apart < FAR_FROM_DEPENDENT)

    def with_unseen(self) -> Data:
        """With what the data do not see.

        With decay no direction is set apart that they do not see: taking it out of W shortens W, but a column
        that is not decayed may do better with it.
        """
        if self.is_asked or self.ridge.any():
            return self
        unseen = unseen_directions(lambda: (chunk.x for chunk in self.problem.chunks(features=False)))
        unseen = None if unseen is None else _in_units(unseen, self.scaled.units)
        return replace(self, unseen=unseen, is_asked=True)

    def orthogonalised(self) -> Data:
        """The same, in coordinates of its own."""
        return replace(self.with_unseen(), ill_conditioned=True)

    @cached_property
    def infimum_of_loss(self) -> float | None:
        """E[inf_p ℓ(p; y)], rounded down; None where the loss does not know it."""
        loss = self.problem.loss
        if not isinstance(loss, BuiltinLoss):
            return 0.0 if loss.nonnegative else None
        if loss.reaches_zero:
            return 0.0
        whole = summed(self.problem, _infimum_sums, features=False).expectation()
        return Enclosure.around(float(whole.center), whole.radius).lower

    @cached_property
    def _convex(self) -> dict[float, bool]:
        return {}

    def is_convex_on(self, r: float) -> bool:
        """The loss is known to be convex at every prediction of ‖W‖_F ≤ r; of all W for r = ∞.

        Raises:
            RequestError: it is claimed to be, and proven not to be.
        """
        loss, known = self.problem.loss, self._convex
        if not math.isfinite(r):
            if not loss.convex and r not in known:
                known[r] = convex_everywhere(self.problem)
            return loss.convex or known[r]
        if any(not is_convex and radius <= r for radius, is_convex in known.items()):
            return False
        if not any(is_convex and r <= radius for radius, is_convex in known.items()):
            try:
                known[r] = assumption1(self.problem, 0.0, r).status != "unknown"
            except RequestError:
                if loss.convex:
                    raise
                known[r] = False
            return known[r]
        return True

    @property
    def may_recede(self) -> bool:
        """inf Φ may lie at infinity."""
        return self.recession.possible and not self.ridge.all()

    def objective(self, lam: float) -> LinearObjective:
        """Φ in coordinates that suit Φ + λ/2‖W‖_F²."""
        if not self.ill_conditioned:
            return self._plain
        return LinearObjective(orthogonalised(self.scaled, self._extra(lam)), self.ridge, self.unseen)

    @cached_property
    def _plain(self) -> LinearObjective:
        return LinearObjective(self.scaled, self.ridge, self.unseen)

    def _extra(self, lam: float) -> Array:
        """Rows of the scaled inputs that count like data."""
        rows = np.diag(np.sqrt(self.ridge + lam)) * self.scaled.units
        seen = [] if self.unseen is None else [(self.scaled.units[:, None] * self.unseen.Z).T]
        return np.concatenate([rows[np.any(rows != 0.0, axis=1)], *seen])

    @cached_property
    def scale(self) -> float:
        """λ of the size of the curvature of F_lin at 0."""
        objective = self._plain
        moments = np.diagonal(objective.second_moments) / self.scaled.units / self.scaled.units
        size = objective.mean_curvature(path.origin(objective, 0.0).at) * float(np.sum(moments))
        return size if 0.0 < size < math.inf else 1.0

    def unconstrained(self, known: Found | None = None) -> tuple[Found, bool | None]:
        """A minimiser of Φ, and whether inf Φ is proven to be attained by the loss alone, or not to be.

        Where it may lie at infinity, and Newton's method neither arrives nor comes by a W that separates the
        data, the path is followed to λ = 0: W(λ) tends to a direction along which the loss falls for ever,
        if there is one.
        """
        objective = self.objective(0.0)
        start = path.start(objective, 0.0) if known is None else known.moved(objective).place
        if not self.may_recede:
            place = path.minimised(objective, start, 0.0)
            return Found(objective, place), True if self.recession.known else None

        def is_separating(point: Array) -> bool:
            W = self.scaled.sigma * objective.W(point)
            return self.recession.known and separates(self.problem, W)

        place = path.minimised(objective, start, 0.0, steps=STEPS_OF_A_LEAP, stop=is_separating)
        if is_separating(place.point):
            return Found(objective, place), False
        if place.converged:
            return Found(objective, place), None
        lam = known.place.lam if known is not None and known.place.lam else self.scale
        found = Found(objective, path.origin(objective, lam)) if known is None else known.moved(objective)
        place = found.place
        for _ in range(STEPS_TO_INFINITY):
            place = path.minimised(objective, place, lam, 1e-8)
            if is_separating(place.point):
                return Found(objective, place), False
            lam *= 2.0**-8
        return Found(objective, path.minimised(objective, place, 0.0)), None

    def at_multiplier(self, lam: float, known: Found) -> Found:
        """The place of λ, from another one."""
        start = known.moved(self.objective(lam))
        return Found(start.objective, path.minimised(start.objective, start.place, lam, ACCURACY))

    def on_ball(self, r: float, known: Found | None = None) -> Found:
        """The minimiser on ‖W‖_F ≤ r."""
        target = r / self.scaled.sigma * INSIDE
        if not target:
            objective = self.objective(self.scale)
            return Found(objective, path.origin(objective, 0.0))
        return self._on_path(
            lambda at, least: path.at_radius(at.objective, at.place, target, least=least),
            lambda at: (
                math.isclose(at.norm, r, rel_tol=ALIKE),
                at.value if at.norm <= r * (1.0 + ALIKE) else math.inf,
            ),
            known,
        )

    def at_value(self, value: float, known: Found, reach: float = math.inf) -> Found:
        """The place of the path where Φ = value, or less by a little (`path.at_value`)."""
        return self._on_path(
            lambda at, least: path.at_value(at.objective, at.place, value, least=least, reach=reach),
            lambda at: (math.isclose(at.value, value, rel_tol=ALIKE), abs(at.value - value)),
            known,
        )

    def _on_path(self, search: Search, judge: Judge, known: Found | None) -> Found:
        least = self.scale * SHORT_OF_NOTHING if self.ill_conditioned else 0.0
        objective = self.objective(least)
        start = Found(objective, path.origin(objective, self.scale))
        if known is not None and known.place.lam > least:
            start = known if known.objective.design is objective.design else known.moved(objective)
        found = spare = Found(objective, search(start, least))
        if self.ill_conditioned:
            lam = found.place.lam
            for _ in range(MOST_TURNS):
                moved = found.moved(self.objective(lam))
                if not moved.is_as(found):
                    break
                place, before = search(moved, 0.0), lam
                there = Found(moved.objective, place)
                if not (place.converged or judge(there)[0]):  # too far at once
                    spare, lam = there, lam * CLOSER
                    continue
                found, lam = there, place.lam
                if before / ABOUT <= lam <= before * ABOUT:
                    break
        return min(found, spare, key=lambda at: judge(at)[1])


def _in_units(unseen: Unseen, units: Array) -> Unseen:
    """The same directions, as long as the scaled data."""
    size = float(np.max(np.abs(units[:, None] * unseen.Z), initial=0.0))
    factor = 2.0 ** -math.frexp(size)[1]
    return Unseen(unseen.Z * factor, unseen.sine * factor)


def _infimum_sums(problem: Problem, chunk: Chunk, blocks: Blocks) -> MeanSums:
    least = cast(BuiltinLoss, problem.loss).infimum(chunk.y, chunk.omega)
    return MeanSums(weight_sum(chunk, blocks), value_sum(least, NOTHING, chunk.weight, blocks))
