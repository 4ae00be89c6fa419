"""The minimisers of Φ + λ/2‖W‖_F² for λ ≥ 0, one after the other: the search for min F_lin on a ball.

Each is the minimiser on the ball of its own radius, which falls as λ grows; so a ball, and a value of F_lin,
are found by their λ.  Newton's method, its equations solved densely where they are few and by conjugate
gradients with products otherwise.  Nothing here is proven, and nothing that is proven rests on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from resnet_cert.compare.linear_objective import LinearObjective, Sketch
from resnet_cert.numerics.radius import Array
from resnet_cert.numerics.threads import small_algebra

NEWTON_STEPS = 60
LARGEST_DENSE = 300
"""The largest block of the Hessian that is formed and factored in the search."""
SHORTEST = 2.0**-40
"""The least fraction of a Newton step that is tried."""
LARGEST_POLISHED, ENOUGH = 10**5, 1e-13
"""The largest q·d that Newton's method polishes to rounding, and the accuracy of what is larger."""
CG_STEPS = 400
TIGHT, FIRM, LOOSE = 2.0**-40, 1e-6, 1e-3
"""What conjugate gradients may leave out: of a step that is final, of one near the end, of one on the way."""
FAR = 1e-2
"""The decrement, relative to Φ, above which a step is one on the way."""
NOTHING_LEFT = 2.0**-100
"""The same of a step that moves U by no more than rounding does."""
GOES_WELL = 1e-3
"""How much of the decrement a step with an old Hessian may leave."""
STEPS_TO_LAMBDA, ARRIVED = 80, 2.0**-46
"""Steps of the search for a λ, and the relative length of one that ends it."""
LEAST_FLOAT = 5e-324
GROWN, LEAST_LAMBDA = 2.0**-46, 2.0**-800
"""A part of ‖W‖², more than which it would grow by to first order: else W is as long at λ = 0; and the λ at
which that is believed."""
MOST_ASTRAY = 4
"""So many λ, one smaller than the other, at which Newton's method does not arrive: these coordinates show no
more."""
LOOSELY = 1e-8
"""The accuracy of a place on the way to another one."""
CLOSE = 2.0**-30
"""How near a value of F_lin is met, relative to λ‖W‖²; ‖W‖² moves by twice that, relatively."""
NEARBY = 2.0**-4
"""How much of ‖W‖², at most, is lost where the path is told by its end."""
NEARER, FARTHEST = 2.0**-10, 2.0**-150
"""A part of F_lin to which λ leaps, and the least part of λ to which it does at once."""
NO_LARGER = 2.0**20
"""A predictor so many times larger that differs by rounding only is no longer looked for."""


@dataclass(frozen=True)
class Place:
    """The minimiser U (q, d) of Φ + λ/2‖W‖_F² to rounding, and Φ + λ/2‖W‖_F² there."""

    point: Array
    lam: float
    at: Sketch
    converged: bool


def origin(objective: LinearObjective, lam: float) -> Place:
    """W = 0, where every path starts."""
    point = np.zeros((objective.q, objective.d))
    return Place(point, lam, objective.sketch(point, lam), converged=False)


def start(objective: LinearObjective, lam: float) -> Place:
    """W = 0; or where passes take long the minimiser of a sample, if that is lower."""
    few = objective.of_sample() if objective.forms_in_passing else None
    if few is not None:
        zero = origin(few, lam)
        place = minimised(few, zero, lam, LOOSELY)
        at = objective.sketch(place.point, lam) if place.converged else None
        if at is not None and at.value < zero.at.value:
            return Place(place.point, lam, at, converged=False)
    return origin(objective, lam)


def norm_W(objective: LinearObjective, place: Place) -> float:
    """‖W‖_F."""
    W = objective.W(place.point)
    largest = float(np.max(np.abs(W), initial=0.0))
    return largest * float(np.linalg.norm(W / largest)) if 0.0 < largest < math.inf else largest


def loss_value(objective: LinearObjective, place: Place) -> float:
    """Φ, without λ/2‖W‖_F²."""
    if not place.lam:
        return place.at.value
    turned = place.point @ objective.metric
    return place.at.value - 0.5 * place.lam * float(np.sum(place.point * turned))


def minimised(
    objective: LinearObjective,
    start: Place,
    lam: float,
    accuracy: float = 0.0,
    steps: int = NEWTON_STEPS,
    stop: Callable[[Array], bool] | None = None,
) -> Place:
    """The place of λ, by Newton's method from another one.

    Most of a step's time is its Hessian's: a factored one serves for as long as the steps go well, and at
    W = 0, where E[tr ∇²ℓ]/q·E[zzᵀ] is mostly right, that is the first.  Where passes form it all are new.

    accuracy: the decrement relative to Φ that is enough; 0: go on to rounding.  stop: leave off at such a U.
    """
    point, dense = start.point, is_dense(objective)
    if point.size > LARGEST_POLISHED:
        accuracy = max(accuracy, ENOUGH)
    at = start.at if start.lam == lam else objective.sketch(point, lam)
    fresh = objective.forms_in_passing
    rough = None if fresh or (dense and point.any()) else Rough.of(objective, at, lam)
    solve, is_old = None if rough is None or point.any() else rough.solve, True
    before, highest = math.inf, abs(at.value)
    decrement = math.inf
    for _ in range(steps):
        if solve is None:
            rough = None if dense else Rough.of(objective, at, lam, rough)
            tolerance = LOOSE if accuracy or decrement > FAR * highest else FIRM
            solve, is_old = solver(objective, at, lam, tolerance, rough), False
        step = -solve(at.gradient)
        if objective.is_mean_free:  # which rounding would make grow where K is nearly singular
            step = step - step.mean(axis=0)
        decrement = -float(np.sum(step * at.gradient))
        if is_old and not 0.0 < decrement <= before * GOES_WELL:
            solve = None
            continue
        if not (decrement > 0.0 and math.isfinite(decrement)):
            return Place(point, lam, at, converged=decrement == 0.0)
        if decrement <= at.noise and decrement >= before / 4.0:  # rounding is all that is left
            return Place(point, lam, at, converged=True)
        size, trial = 1.0, point + step
        there = objective.sketch(trial, lam)
        if decrement > at.noise:
            while size > SHORTEST and not there.value <= at.value - 1e-4 * size * decrement + at.noise:
                size /= 2.0
                trial = point + size * step
                there = objective.sketch(trial, lam)
            if size <= SHORTEST or (size < 1.0 and not there.value < at.value):  # as below
                return Place(point, lam, at, converged=True)
        point, at = trial, there
        if decrement <= NOTHING_LEFT * abs(at.value):
            return Place(point, lam, at, converged=True)
        if decrement <= accuracy * max(abs(at.value), at.noise) or (stop is not None and stop(point)):
            return Place(point, lam, at, converged=True)
        before, is_old = decrement if size == 1.0 else math.inf, True
        if fresh or not (objective.is_quadratic or (dense and size == 1.0)):
            solve = None
    return Place(point, lam, at, converged=decrement <= 2.0**-40 * highest)


@dataclass(frozen=True)
class Departure:
    """How the path leaves the minimiser Û of Φ, its end at λ = 0:

    U(λ) ≈ Û − λ·turn,   Φ ≈ Φ(Û) + λ²/2·bend,   ‖W‖² ≈ ‖Ŵ‖² − 2λ·bend,   bend = ⟨ÛM, K⁻¹ÛM⟩, M = TᵀT.
    """

    objective: LinearObjective
    end: Place
    turn: Array
    bend: float
    square: float

    @staticmethod
    def of(objective: LinearObjective, end: Place) -> Departure:
        pull = end.point @ objective.metric
        turn = solver(objective, end.at, 0.0, LOOSE)(pull)
        return Departure(objective, end, turn, float(np.sum(pull * turn)), float(np.sum(pull * end.point)))

    def multiplier(self, more: float) -> float:
        """The λ where Φ is larger by so much."""
        return math.sqrt(2.0 * more / self.bend) if self.bend > 0.0 else 0.0

    def best(self, more: float, slope: float) -> float:
        """The λ from which duality sees the radius of Φ(Û) + more best: where λ·bend, 2·more/λ and slope²/λ²,
        for a gradient that is off by `slope`, are about equal."""
        if not self.bend > 0.0:
            return 0.0
        return max(self.multiplier(more), math.cbrt(2.0 * slope * (slope / self.bend)))

    def reaches(self, more: float) -> bool:
        """‖W‖ is much the same there."""
        return 0.0 < self.multiplier(more) * self.bend < NEARBY * self.square

    def far(self, more: float) -> Place:
        """A place to begin with where Φ is larger by so much.

        Where K is a multiple c of M, Φ(λ) − Φ(Û) is (1 + c/λ)^−2 of Φ(0) − Φ(Û).  Elsewhere c is about
        √(2(Φ(0) − Φ(Û))/bend) near the end, and ‖∇Φ(0)‖²/2(Φ(0) − Φ(Û)) near W = 0.
        """
        zero = origin(self.objective, 0.0)
        fall = zero.at.value - self.end.at.value
        share = math.sqrt(more / fall) if 0.0 < more < fall < math.inf else 1.0
        if not (self.bend > 0.0 and share < 1.0):
            return self.end
        slope = self.objective.slope_in_W(zero.at)
        near, beyond = self.multiplier(fall), slope * (slope / (2.0 * fall))
        lam = near ** (1.0 - share) * beyond**share * share / (1.0 - share)
        if not 0.0 < lam < math.inf:
            return self.end
        return replace(zero, lam=lam, at=self.objective.sketch(zero.point, lam))

    def at(self, lam: float) -> Place:
        return minimised(
            self.objective, Place(self.end.point - lam * self.turn, math.nan, self.end.at, False), lam
        )


def at_radius(objective: LinearObjective, start: Place, r: float, *, least: float = 0.0) -> Place:
    """The place with ‖W‖_F = r to about 1e-12, or that of `least` ≤ λ where it is in the ball already."""
    place, polished, astray = minimised(objective, start, max(start.lam, least), LOOSELY), False, 0
    low, high, leaps = 0.0, math.inf, True  # ‖W‖ > r at low, < r at high
    for _ in range(STEPS_TO_LAMBDA):
        length = norm_W(objective, place)
        excess = length / r - 1.0 if r else math.inf
        if excess > 0.0:
            low = place.lam
        elif place.lam <= least or astray == MOST_ASTRAY:
            break
        else:
            high = place.lam
        pull = place.point @ objective.metric
        turn = solver(objective, place.at, place.lam, LOOSE)(pull)
        bend = float(np.sum(pull * turn))
        if leaps and excess < 0.0 and low == 0.0 and place.lam * bend <= GROWN * length * length:
            # nearly as long at λ = 0, but for what bends by less than λ: that is looked for in leaps
            if place.lam <= LEAST_LAMBDA:
                break
            lam = max(place.lam * FARTHEST, LEAST_LAMBDA, least)
            there = minimised(objective, replace(place, lam=math.nan), lam, LOOSELY)
            leaps = there.converged and norm_W(objective, there) <= r  # else in steps: there is no way back
            if leaps:
                place, polished = there, False
                continue
        # ‖W(λ)‖ has the derivative −⟨UM, K⁻¹UM⟩/‖W‖; 1/‖W(λ)‖ is nearly linear in λ.
        newton = place.lam + excess * length * (length / bend) if bend > 0.0 else math.nan
        if polished and abs(newton - place.lam) <= ARRIVED * place.lam:
            return place
        if not polished and newton > 0.0 and abs(newton - place.lam) <= 1e-3 * place.lam:
            low, high = 0.0, math.inf  # what was found loosely is no bound this near
        lam = _between(newton, place.lam, low, high, least)
        polished = abs(lam - place.lam) <= 1e-3 * place.lam
        arrived = abs(lam - place.lam) <= ARRIVED * place.lam
        accuracy = 0.0 if polished else LOOSELY
        place = minimised(objective, _predicted(objective, place, lam, turn), lam, accuracy)
        astray = 0 if place.converged else astray + 1
        if arrived or high <= low * (1.0 + 2.0**-50):
            break
    return place if polished else minimised(objective, place, place.lam)


def at_value(
    objective: LinearObjective, start: Place, value: float, *, least: float = 0.0, reach: float = math.inf
) -> Place:
    """The place with F_lin = value − CLOSE·λ‖W‖², to a part of that, or that of `least` ≤ λ where F_lin is
    larger there; or one with F_lin − value > reach·λ‖W‖² on the way.

    By convexity a predictor with that value then has reach·‖W‖ at least: it is no use to go on.
    """
    place = minimised(objective, start, max(start.lam, least), LOOSELY)
    low, high, is_near = 0.0, math.inf, False  # excess > 0 at low, < 0 at high
    for _ in range(STEPS_TO_LAMBDA):
        length = norm_W(objective, place)
        square = place.lam * length * length
        excess = value - CLOSE * square - loss_value(objective, place)
        there = abs(excess) <= max(0.5 * CLOSE * square, place.at.noise)
        flat = objective.slope_in_W(place.at) <= math.sqrt(CLOSE * place.lam) * math.sqrt(square)
        if (there and (flat or is_near)) or -excess > reach * square:
            break
        if excess > 0.0:
            low = place.lam
        elif place.lam <= least or square * NO_LARGER < place.at.noise:
            break
        else:
            high = place.lam
        pull = place.point @ objective.metric
        turn = solver(objective, place.at, place.lam, LOOSE)(pull)
        slope = place.lam * float(np.sum(pull * turn))  # dF_lin/dλ = λ⟨UM, K⁻¹UM⟩
        newton = place.lam if there else place.lam + excess / slope if slope > 0.0 else math.nan
        is_near = abs(newton - place.lam) <= 1e-3 * place.lam
        if is_near:
            low, high = 0.0, math.inf  # what was found loosely is no bound this near
        here = loss_value(objective, place) if objective.may_fall_for_ever else 0.0
        lam = _leap(place.lam, slope, here, value)
        if not low < lam:
            lam = _between(newton, place.lam, low, high, least)
        lam = max(lam, least)
        accuracy = (CLOSE * 2.0**-10 if is_near else LOOSELY) * min(
            1.0, square / (abs(place.at.value) or 1.0)
        )
        place = minimised(objective, _predicted(objective, place, lam, turn), lam, accuracy)
        if high <= low * (1.0 + 2.0**-50):
            break
    return place


def _leap(lam: float, slope: float, here: float, value: float) -> float:
    """The λ of a value that is smaller by orders of magnitude, log F_lin about a linear function of log λ, as
    it is where losses fall for ever; 0 for none.

    Args:
        slope: dF_lin/dλ.
    """
    exponent = lam * slope / here if here > 0.0 else 0.0
    if not (0.0 < value < here * NEARER and 0.5 < exponent < 1.5):
        return 0.0
    return float(lam * max((value / here) ** (1.0 / exponent), FARTHEST))


def _between(lam: float, here: float, low: float, high: float, least: float) -> float:
    """The next λ: that of Newton's method, if it is between those that are known, and not too far."""
    floor = max(least, here / 1e3 or LEAST_FLOAT if high == math.inf or low == 0.0 else 0.0)
    if lam <= low == 0.0 and high < math.inf:
        lam = floor
    elif math.isnan(lam) or not low < lam < high:
        lam = here * 100.0 if high == math.inf else math.sqrt(max(low, least, high * 1e-6) * high)
    return min(max(lam, floor, least), here * 1e4 if here else math.inf)


def _predicted(objective: LinearObjective, place: Place, lam: float, turn: Array) -> Place:
    """The place of λ to first order, dU/dλ = −K⁻¹(U·metric) = −turn; far away in log λ, of which it is about
    a linear function where losses fall for ever."""
    if lam == place.lam or not (lam and place.lam and np.isfinite(turn).all()):
        return place
    ratio = lam / place.lam
    if 0.5 < ratio < 2.0:
        return replace(place, point=place.point - (lam - place.lam) * turn, lam=math.nan)
    point = place.point - place.lam * math.log(ratio) * turn
    here, there = objective.sketch(place.point, lam), objective.sketch(point, lam)
    return (
        Place(point, lam, there, False) if there.value < here.value else Place(place.point, lam, here, False)
    )


@dataclass(frozen=True)
class Rough:
    """What K is about: E[tr ∇²ℓ]/q·E[zzᵀ] for each output, and what is added."""

    curvature: float
    solve: Callable[[Array], Array]

    @staticmethod
    def of(objective: LinearObjective, at: Sketch, lam: float, known: Rough | None = None) -> Rough:
        """known: of another place on the way to the same λ, which serves where the loss bends alike."""
        size = objective.mean_curvature(at)
        if known is not None and 0.5 * known.curvature <= size <= 2.0 * known.curvature:
            return known
        solve = factored(size * objective.second_moments + objective.added(lam))
        return Rough(size, lambda g: solve(g.T).T)


def is_dense(objective: LinearObjective) -> bool:
    """K is formed and factored."""
    return (objective.q * objective.d if objective.is_mean_free else objective.d) <= LARGEST_DENSE


def solver(
    objective: LinearObjective, at: Sketch, lam: float, tolerance: float = TIGHT, rough: Rough | None = None
) -> Callable[[Array], Array]:
    """g (q, d) ↦ K⁻¹g, K the Hessian of Φ + λ/2‖W‖_F².

    tolerance: the part of the energy gᵀK⁻¹g that conjugate gradients may leave out.  rough: what
    preconditions them.
    """
    q, d = objective.q, objective.d
    coupled, added = objective.is_mean_free, objective.added(lam)
    if is_dense(objective):
        blocks = objective.curvature_blocks(at)
        if coupled:
            K = blocks[0] + np.kron(np.eye(q), added)
            K += _mean_penalty(q, np.diagonal(K).reshape(q, d).mean(axis=0))
            solve = factored(K)
            return lambda g: solve(g.ravel()).reshape(q, d)
        solves = [factored(block + added) for block in blocks]
        if len(solves) == 1:
            return lambda g: solves[0](g.T).T
        return lambda g: np.stack([solve(row) for solve, row in zip(solves, g, strict=True)])
    precondition = Rough.of(objective, at, lam) if rough is None else rough

    def free(g: Array) -> Array:
        """Without the mean of the rows, along which K may vanish and g does."""
        return g - g.mean(axis=0) if coupled else g

    def by_products(g: Array) -> Array:
        return conjugate_gradients(
            lambda direction: free(objective.hessian_product(at, lam, direction)),
            free(g),
            precondition.solve,
            tolerance,
        )

    return by_products


def _mean_penalty(q: int, sizes: Array) -> Array:
    """Π ⊗ diag(sizes), on the mean of the rows: where K vanishes on it, g does as well.

    sizes (d,): of the size of K for each column, whose units may be orders of magnitude apart.
    """
    return np.asarray(np.kron(np.full((q, q), 1.0 / q), np.diag(sizes)), dtype=np.float64)


def factored(K: Array) -> Callable[[Array], Array]:
    """b ↦ K⁻¹b for K ⪰ 0, in units in which its diagonal is 1; a singular one is shifted by its rounding."""
    diagonal = np.sqrt(np.maximum(np.diagonal(K), 0.0))
    units = np.divide(1.0, diagonal, out=np.zeros_like(diagonal), where=diagonal > 0.0)
    scaled = K * units * units[:, None]
    if not np.isfinite(scaled).all():
        return lambda b: np.full_like(b, np.nan)
    shift = 0.0
    for _ in range(20):
        try:
            with small_algebra(len(K)):
                half = np.linalg.inv(
                    np.linalg.cholesky(scaled + np.diag(np.where(diagonal > 0.0, shift, 1.0)))
                )
            break
        except np.linalg.LinAlgError:
            shift = max(4.0 * shift, len(K) * 2.0**-52)
    else:
        return lambda b: np.full_like(b, np.nan)

    def solve(b: Array) -> Array:
        column = units if b.ndim == 1 else units[:, None]
        return column * (half.T @ (half @ (column * b)))

    return solve


def conjugate_gradients(
    product: Callable[[Array], Array], b: Array, precondition: Callable[[Array], Array], tolerance: float
) -> Array:
    """About K⁻¹b: the preconditioned energy of what is left is below `tolerance` of that of b."""
    x, residual = np.zeros_like(b), b
    z = precondition(residual)
    direction, energy = z, float(np.sum(residual * z))
    first = energy
    for _ in range(CG_STEPS):
        image = product(direction)
        bend = float(np.sum(direction * image))
        if not bend > 0.0:
            break
        x = x + (energy / bend) * direction
        residual = residual - (energy / bend) * image
        z = precondition(residual)
        after = float(np.sum(residual * z))
        if not after > first * tolerance:
            break
        direction, energy = z + (after / energy) * direction, after
    return x
