"""min F_lin over ‖W‖_F ≤ r, F_lin(W) = E[ℓ(Wx; y)], enclosed from both sides.

`path` finds Û.  What is proven about it does not depend on how it was found.  With Φ = F_lin + ½Σ ρ_j‖W_j‖² +
P (`linear_objective`), λ ≥ 0 the multiplier at Û and c = λ/2(r² − ‖Ŵ‖²), L = Φ + λ/2(‖W‖² − r²):

above:  F_lin(Ŵ), ‖Ŵ‖ ≤ r checked.
below:  convexity over the ball, F_lin(Ŵ) − ⟨g, Ŵ⟩ − r‖g‖; the infimum of the loss; and, where the curvature
        of L is proven to be at least m around Û, in any coordinates, L ≥ L(Û) − ‖∇L(Û)‖²/(2m) everywhere, for
        L is convex: so min F_lin ≥ F_lin(Ŵ) − c − ‖∇L‖²/(2m).
where:  the minimiser W* of least norm on the ball has L(W*) ≤ F_lin(Ŵ) = L(Û) + c, so (m/2)δ² ≤ ‖∇L(Û)‖δ + c
        for its distance δ from Û, if m holds that far.  By self-concordance of the loss m falls by no more
        than e^{−M δ max‖z‖}.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from resnet_cert.compare import path
from resnet_cert.compare.design import (
    WIDEST,
    Design,
    doubled_product,
    gram,
    is_ill_conditioned,
    orthogonalised,
    scaled_design,
)
from resnet_cert.compare.linear_objective import Enclosed, LinearObjective
from resnet_cert.compare.path import Place
from resnet_cert.compare.recession import Recedes, recedes, separates
from resnet_cert.compare.row_space import Unseen, unseen_directions
from resnet_cert.numerics.eigenvalues import smallest_eigenvalue
from resnet_cert.numerics.enclosure import Ball, Enclosure, added, inner, product
from resnet_cert.numerics.radius import NOTHING, Array, Radius, U, gamma
from resnet_cert.problem.losses import BuiltinLoss
from resnet_cert.problem.problem import Problem

LARGEST_BLOCK = 2000
"""The largest block of the Hessian whose least eigenvalue is enclosed,"""
MOST_WORK = 10**11
"""if n times the squares of the blocks is at most this."""
INSIDE = 1.0 - 2.0**-40
"""The search aims at this fraction of the ball's radius, so that its errors do not leave the ball."""
SETTLED = 1e-6
"""Relative length of a Newton step of a custom loss that has arrived."""


@dataclass(frozen=True)
class LinearMinimum:
    """The best linear predictor on ‖W‖_F ≤ r.

    F_min: min F_lin, enclosed, or that of F_lin + ½Σ ρ_j‖W_j‖².  F_at: its value at the predictor that was
    found.  W_star: (q, d) that predictor, rounded, and the distance within which the minimiser of least norm
    lies; it is always in the ball.  attained: inf F_lin over all W is, or is not, each proven; else None.
    lower_from: which argument gave F_min.lower.  falls_at_rim: F_lin still falls beyond the ball, or does
    not, each proven.  chosen: r is 1.01·‖W*‖ or given; else it is a default that says nothing about the data.
    """

    F_min: Enclosure
    F_at: Enclosure
    W_star: Ball
    r: float
    attained: bool | None
    lower_from: str
    falls_at_rim: bool | None
    chosen: bool
    place: Place
    objective: LinearObjective

    @property
    def norm(self) -> Enclosure:
        """‖W*‖_F, at most r."""
        if self.falls_at_rim:
            return Enclosure.exact(self.r)
        length = self.W_star.norm()
        return length.intersect(0.0, max(self.r, length.lower))


def best_linear_predictor(problem: Problem, r: float | None, b: float) -> LinearMinimum:
    """min F_lin on ‖W‖_F ≤ r; r=None: 1.01·‖argmin F_lin‖_F if inf F_lin is proven to be attained, else b."""
    return minimum_on_ball(problem, r, b)


def best_regularised(problem: Problem, r: float | None = None) -> LinearMinimum:
    """min of F_lin + l2‖W‖_F² over all W, or on ‖W‖_F ≤ r: the best value of the objective at V = 0."""
    return minimum_on_ball(
        problem, math.inf if r is None else r, math.inf, ridge=2.0 * problem.objective.l2 * problem.decayed
    )


def minimum_on_ball(
    problem: Problem, r: float | None, b: float, *, ridge: Array | None = None
) -> LinearMinimum:
    """min F_lin + ½Σ ρ_j‖W_j‖² on ‖W‖_F ≤ r; r=None: 1.01·‖argmin‖_F if the infimum is attained, else b.

    Args:
        ridge: ρ (d,) ≥ 0; none by default.
    """
    data = Data.of(problem, np.zeros(problem.d) if ridge is None else ridge)
    found, attained, chosen = None, None, True
    if r is not None and data.may_recede:
        found = data.on_ball(r / data.scaled.sigma)
        W = data.scaled.sigma * found.objective.W(found.place.point)
        attained = False if data.recession.known and separates(problem, W) else None
    if attained is None:
        start, attained = data.unconstrained(found)
        if r is None:
            arrived = start.place.converged if attained else attained is None and start.settled
            r, chosen = (1.01 * start.norm, True) if arrived else (b, False)
        if attained and start.norm <= r:
            found = start
    found = found or data.on_ball(r / data.scaled.sigma)
    return _enclosed(data, found.objective, found.place, r, attained, chosen)


@dataclass(frozen=True)
class Found:
    """A place on the path, in the coordinates of its objective."""

    objective: LinearObjective
    place: Place

    @property
    def norm(self) -> float:
        return path.norm_W(self.objective, self.place) * self.objective.design.sigma

    @property
    def settled(self) -> bool:
        """A Newton step is short: what is known of an attained infimum where nothing is known of the loss."""
        step = path.solver(self.objective, self.place.at, 0.0)(self.place.at.gradient)
        length = float(np.linalg.norm(self.place.point))
        return float(np.linalg.norm(step)) <= SETTLED * (1.0 + length)


@dataclass(frozen=True)
class Data:
    """What is known of the data of a linear predictor before anything is minimised.

    extra: rows of the scaled inputs that count like data: unseen directions and ρ.
    """

    problem: Problem
    ridge: Array
    scaled: Design
    ill_conditioned: bool
    unseen: Unseen | None
    recession: Recedes

    @staticmethod
    def of(problem: Problem, ridge: Array) -> Data:
        scaled = scaled_design(problem, fixed=bool(ridge.any()))
        ill, unseen = False, None
        if problem.d <= WIDEST:
            plain = np.diag(np.sqrt(ridge)) * scaled.units
            ill = is_ill_conditioned(gram(scaled, plain))
            if ill:
                unseen = unseen_directions(lambda: (chunk.x for chunk in problem.chunks(features=False)))
            if unseen is not None:
                unseen = _in_units(unseen, scaled.units)
        return Data(problem, ridge, scaled, ill, unseen, recedes(problem))

    @property
    def may_recede(self) -> bool:
        return self.recession.possible and not self.ridge.all()

    def extra(self, lam: float) -> Array:
        rows = np.diag(np.sqrt(self.ridge + lam)) * self.scaled.units
        seen = [] if self.unseen is None else [(self.scaled.units[:, None] * self.unseen.Z).T]
        return np.concatenate([rows[np.any(rows != 0.0, axis=1)], *seen])

    def objective(self, lam: float) -> LinearObjective:
        """In coordinates that suit Φ + λ/2‖W‖_F²."""
        design = orthogonalised(self.scaled, self.extra(lam)) if self.ill_conditioned else self.scaled
        return LinearObjective(design, self.ridge, self.unseen)

    @property
    def scale(self) -> float:
        """λ of the size of the largest curvature of F_lin at 0."""
        objective = LinearObjective(self.scaled, self.ridge, None)
        at = path.origin(objective, 0.0).at
        bend = (
            objective.mean_curvature(at)
            * np.diagonal(objective.second_moments)
            / self.scaled.units
            / self.scaled.units
        )
        size = float(np.sum(bend[np.isfinite(bend)]))
        return size if size > 0.0 else 1.0

    def unconstrained(self, known: Found | None = None) -> tuple[Found, bool | None]:
        """A minimiser of Φ, and whether inf Φ is proven to be attained, or not.

        Where it may lie at infinity the path is followed to λ = 0: W(λ) tends to a direction along which the
        loss falls for ever, if there is one.
        """
        objective = self.objective(0.0)
        if not self.may_recede:
            place = path.minimised(objective, path.origin(objective, 0.0), 0.0)
            return Found(objective, place), True if self.recession.known else None
        lam = known.place.lam if known is not None and known.place.lam else self.scale
        place = path.origin(objective, lam)
        if known is not None:
            point = objective.coordinates(known.objective.W(known.place.point))
            place = Place(point, lam, objective.sketch(point, lam), converged=False)
        for _ in range(12):
            place = path.minimised(objective, place, lam, 1e-8)
            if self.recession.known and separates(self.problem, self.scaled.sigma * objective.W(place.point)):
                return Found(objective, place), False
            lam *= 2.0**-8
        place = path.minimised(objective, place, 0.0)
        found = Found(objective, place)
        if _locates(self, found):
            return found, True
        unattained = self.recession.is_unattained(self.scaled.sigma * objective.W(place.point))
        return found, False if unattained else None

    def on_ball(self, r: float) -> Found:
        """The minimiser on ‖W‖_F ≤ r."""
        scale = self.scale
        target = r * INSIDE
        if r == 0.0:
            objective = self.objective(scale)
            return Found(objective, path.origin(objective, 0.0))
        least = scale * 2.0**-33 if self.ill_conditioned else 0.0
        objective = self.objective(least)
        place = path.at_radius(objective, path.origin(objective, scale), target, least=least)
        if self.ill_conditioned:
            if place.lam <= least:
                objective, place = _moved(objective, place, self.objective(0.0))
                place = path.at_radius(objective, place, target)
            objective, place = _moved(objective, place, self.objective(place.lam))
            place = path.at_radius(objective, place, target)
        return Found(objective, place)


def _moved(before: LinearObjective, place: Place, after: LinearObjective) -> tuple[LinearObjective, Place]:
    """The same predictor in other coordinates."""
    point = after.coordinates(before.W(place.point))
    return after, Place(point, place.lam, after.sketch(point, place.lam), converged=False)


def _in_units(unseen: Unseen, units: Array) -> Unseen:
    """The same directions, as long as the scaled data."""
    size = float(np.max(np.abs(units[:, None] * unseen.Z), initial=0.0))
    return (
        Unseen(unseen.Z * 2.0 ** -math.frexp(size)[1], unseen.sine * 2.0 ** -math.frexp(size)[1])
        if size
        else unseen
    )


# --- What is proven ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Located:
    """L around Û: its curvature is at least m as far as `distance`, within which the minimiser lies.

    Both in the coordinates U, or both in W.  slope: ‖∇L(Û)‖.
    """

    m: float
    slope: Enclosure
    distance: float


def _locates(data: Data, found: Found) -> bool:
    """Proven: inf Φ over all W is attained, near the place."""
    objective, point = found.objective, found.place.point
    at = objective.enclosed(point, blocks=_is_affordable(objective))
    located = _by_curvature(objective, point, 0.0, at, Enclosure.exact(0.0), math.inf)
    return located is not None and math.isfinite(located.distance)


def _is_affordable(objective: LinearObjective) -> bool:
    problem = objective.design.problem
    coupled = objective.is_mean_free
    size = problem.q * problem.d if coupled else problem.d
    blocks = 1 if coupled else problem.q
    return size <= LARGEST_BLOCK and problem.n * size**2 * blocks <= MOST_WORK


def _enclosed(
    data: Data, objective: LinearObjective, place: Place, r: float, attained: bool | None, chosen: bool
) -> LinearMinimum:
    """Everything proven about Û: min F_lin from both sides, and the place of the minimiser."""
    problem, point, lam, sigma = data.problem, place.point, place.lam, data.scaled.sigma
    given, ball = r, Enclosure.exact(r) / sigma if math.isfinite(r) else Enclosure(math.inf, 0.0, math.inf)
    r = ball.lower if math.isfinite(given) else math.inf  # in the units of the predictors
    W = predictor(objective, point)
    length = W.norm()
    if length.upper > r:
        point = point * (r / length.upper * (1.0 - 8 * U)) if r else np.zeros_like(point)
        W = predictor(objective, point)
        length = W.norm()
        if length.upper > r:  # nothing but 0 is known to be inside
            point = np.zeros_like(point)
            W, length = predictor(objective, point), Enclosure.exact(0.0)
    at = objective.enclosed(point, blocks=_is_affordable(objective))
    F = at.F + _ridge_value(data.ridge, W)
    g = added(at.slope_x, _weighted(W, data.ridge))
    inside = ball
    lowers = {"convexity": (F - inner(g, W) - g.norm() * inside).lower if math.isfinite(r) else -math.inf}
    infimum = _infimum(problem)
    if infimum is not None:
        lowers["infimum of the loss"] = infimum
    c = Enclosure.exact(0.0)
    if lam > 0.0:
        c = (inside.square() - length.square()).positive_part() * (lam / 2.0)
    places = [
        _by_curvature(objective, point, lam, at, c, r),
        _by_multiplier(g, W, lam, c),
    ]
    distances = [(inside + length).upper]
    stretch = float(Radius.norm(objective.design.T))
    for located, factor in zip(places, (stretch, 1.0), strict=True):
        if located is None:
            continue
        bound = F - c - located.slope.square() / (2.0 * located.m)
        lowers["strong convexity"] = max(lowers.get("strong convexity", -math.inf), bound.lower)
        far = (Enclosure.exact(located.distance) * factor).upper
        distances.append(far)
        if lam > 0.0 and math.isfinite(far):
            least = max(lam, (Enclosure.exact(located.m) / Enclosure.exact(factor).square()).lower)
            first = located.slope * 2.0 / located.m * factor
            distances.append(_across_the_boundary(r, lam, first, length, least, at.bend, far))
    source = max(lowers, key=lambda name: lowers[name])
    lower = min(lowers[source], F.upper)
    distance = min(distance for distance in distances if not math.isnan(distance))
    W_star = Ball(W.center * sigma, (W.radius + Radius.of(distance)) * sigma + Radius.of(0.0))
    falls = False if attained and (length + distance).upper < r else None
    if attained is False and not data.ridge.any():
        falls = True
    elif falls is None and (g.norm() - Enclosure.exact(float(at.bend)) * (2.0 * distance)).lower > 0.0:
        falls = True  # ∇F(W*) ≠ 0
    return LinearMinimum(
        Enclosure(F.value, lower, F.upper),
        F,
        W_star,
        given,
        attained,
        source,
        falls,
        chosen,
        Place(point, lam, place.at, place.converged),
        objective,
    )


def predictor(objective: LinearObjective, point: Array) -> Ball:
    """U Tᵀ (q, d)."""
    units, R = objective.design.units, objective.design.R
    turned, error = (point, NOTHING) if R is None else doubled_product(point, R.T)
    W = turned * units
    is_exact = np.array_equal(W / units, turned)
    rounding = NOTHING if is_exact else Radius.of(math.sqrt(W.size) * 2.0**-1021)
    return Ball(W, error.sum() * float(np.max(units)) + rounding)


def _by_curvature(
    objective: LinearObjective, point: Array, lam: float, at: Enclosed, c: Enclosure, r: float
) -> Located | None:
    """L in the coordinates U, by the least eigenvalue of its Hessian."""
    if at.blocks is None:
        return None
    T, unseen = objective.design.T, objective.unseen
    decay = objective.ridge + lam
    rows = [np.sqrt(decay)[:, None] * T]
    slope = at.slope
    W = predictor(objective, point)
    if decay.any():
        slope = added(slope, product(_weighted(W, decay), T))
    pull = Enclosure.exact(0.0)
    if unseen is not None:
        seen = unseen.Z.T @ T
        rows.append(seen)
        Z = Ball(unseen.Z, NOTHING)
        image = product(W, unseen.Z)
        turned = product(Ball(Z.center.T, NOTHING), T)
        slope = added(slope, product(image, turned))
        reach = min(r, 4.0 * W.norm().upper + 1.0) if not math.isfinite(r) else r
        pull = Enclosure.exact(unseen.sine) * reach * float(Radius.norm(Z.center)) * turned.norm()
    A = np.concatenate(rows)
    size = Radius.norm(A)
    center = A.T @ A
    error = size * size * gamma(len(A) + 6) + Radius.norm(T) * Radius.norm(T) * (
        0.0 + gamma(objective.d + 4) if unseen is not None else 2.0**-200
    ) * (float(Radius.norm(unseen.Z)) if unseen is not None else 1.0)
    blocks = at.blocks
    if objective.is_mean_free:
        q, d = objective.q, objective.d
        scale = float(np.trace(blocks[0].center)) / (q * d) or 1.0
        scale = 2.0 ** math.frexp(scale)[1]
        mean = np.full((q, q), 1.0 / q)
        K = blocks[0].center + np.kron(np.eye(q), center) + np.kron(mean * scale, np.eye(d))
        rounding = Radius.norm(K) * (8.0 * U) + Radius.of(8.0 * U * scale * math.sqrt(q * d))
        Ks = [Ball(K, blocks[0].radius + error + rounding)]
        slope = added(slope, Ball(scale * (mean @ point), Radius.norm(point) * (scale * gamma(q + 4))))
    else:
        Ks = [
            Ball(block.center + center, block.radius + error + Radius.norm(block.center + center) * (2.0 * U))
            for block in blocks
        ]
    m0 = min(smallest_eigenvalue(K).lower for K in Ks)
    steep = slope.norm() + pull
    if not (m0 > 0.0 and math.isfinite(steep.upper)):
        return None
    return _root(objective, steep, c, m0, float(at.farthest))


def _root(
    objective: LinearObjective, slope: Enclosure, c: Enclosure, m0: float, farthest: float
) -> Located | None:
    """The root δ of (m/2)δ² = slope·δ + c, where m = m0·e^{−Mq·max‖z‖} holds as far as q > δ."""
    M = objective.design.problem.loss.concordance
    if M is None:
        return None
    base = ((slope + (slope.square() + c * (2.0 * m0)).sqrt()) / m0).upper
    for factor in (1.0 + 2.0**-20, 1.1, 4.0):
        q = base * factor + 2.0**-1000
        m = m0 * _falling(Enclosure.exact(q) * M * farthest)
        if not m > 0.0:
            continue
        delta = ((slope + (slope.square() + c * (2.0 * m)).sqrt()) / m).upper
        if delta < q:
            return Located(m, slope, delta)
    return None


def _falling(x: Enclosure) -> float:
    """e^{−x}, rounded down."""
    if x.upper == 0.0:
        return 1.0
    return max(math.exp(-min(x.upper, 700.0)) * (1.0 - 2.0**-40), 0.0) if x.upper < 700.0 else 0.0


def _by_multiplier(g: Ball, W: Ball, lam: float, c: Enclosure) -> Located | None:
    """L in W itself, whose curvature is at least λ everywhere."""
    if not lam > 0.0:
        return None
    slope = added(g, _weighted(W, np.full(W.center.shape[1], lam))).norm()
    distance = ((slope + (slope.square() + c * (2.0 * lam)).sqrt()) / lam).upper
    return Located(lam, slope, distance)


def _across_the_boundary(
    r: float, lam: float, first: Enclosure, length: Enclosure, m: float, bend: Radius, before: float
) -> float:
    """A distance of the order r − ‖Ŵ‖ for an active constraint.

    Ŵ is within `first` of the minimiser v of Φ + λ/2‖W‖², which is that on the ball of its own radius ρ.
    With ∇Φ(v) = −λv, ∇Φ(W*) = −λ*W*, and m a lower bound of the curvature of Φ + λ/2‖W‖² between them, Δ =
    ‖W* − v‖ has mΔ² ≤ (λ − λ*)⟨W*, W* − v⟩ = (λ − λ*)(r² − ρ² + Δ²)/2, and λ*r ≥ λρ − MΔ for ∇Φ M-Lipschitz.
    So, with e = r − ρ ≥ 0: mΔ² ≤ (λe + MΔ)/r·(e(r + ρ) + Δ²)/2.  Knowing Δ ≤ Δ_0, where s = (λe + MΔ_0)/(2r)
    ≤ m/2: (m − s)Δ² ≤ λe² + MeΔ.
    """
    M = 2.0 * float(bend)
    e = Enclosure.exact(r) - length + first
    if not (math.isfinite(M) and (Enclosure.exact(r) - length - first).lower >= 0.0 and m > 0.0 and r > 0.0):
        return math.inf
    wide = Enclosure.exact(before) + first
    s = (e * lam + wide * M) / (2.0 * r)
    left = (Enclosure.exact(m) - s).lower
    if not left >= 0.5 * m:
        return math.inf
    Me = e * M
    delta = (Me + (Me.square() + 4.0 * left * lam * e.square()).sqrt()) / (2.0 * left)
    return (delta + first).upper


def _infimum(problem: Problem) -> float | None:
    """E[inf_p ℓ(p; y)], rounded down; None where the loss does not know it."""
    loss = problem.loss
    if not isinstance(loss, BuiltinLoss):
        return 0.0 if loss.nonnegative else None
    value = weight = 0.0
    size = 0.0
    for chunk in problem.chunks(features=False):
        least, pi = loss.infimum(chunk.y, chunk.omega), chunk.weights
        value += float(pi @ least)
        size += float(pi @ np.abs(least))
        weight += float(np.sum(pi))
    if size == 0.0:
        return 0.0
    return (
        Enclosure.around(value, Radius.of(size) * gamma(problem.n + 8))
        / Enclosure.around(weight, Radius.of(weight) * gamma(problem.n))
    ).lower


def _weighted(W: Ball, column: Array) -> Ball:
    """W·diag(column), columns ≥ 0."""
    if not column.any():
        return Ball.exact(np.zeros_like(W.center))
    center = W.center * column
    rounding = Radius.norm(center) * U + Radius.underflow(center.size)
    return Ball(center, W.radius * float(np.max(column)) + rounding)


def _ridge_value(ridge: Array, W: Ball) -> Enclosure:
    """½Σ ρ_j‖W_j‖²."""
    if not ridge.any():
        return Enclosure.exact(0.0)
    squares = np.square(np.sqrt(ridge) * W.center)
    value = 0.5 * float(np.sum(squares))
    size = Radius.norm(W.center) + W.radius
    error = Radius.of(value) * gamma(squares.size + 8) + W.radius * size * (2.0 * float(np.max(ridge)))
    return Enclosure.around(value, error)
