"""inf F_lin over all W from both sides, where no W attains it.

Along some directions losses fall for ever, those of classes that recede.  Yet for every W

    F_lin(W) ≥ E[ℓ'(Wx; y)],

ℓ' without some of the classes that a sample does not have, for log Σ_j e^{p_j} over fewer j is less; or
without a whole sample, whose loss is at least 0.  Every choice of what is left out gives a bound.  The best
leaves out what recedes: the minimum of what stays is attained, and is proven by its curvature on the row
space.  What recedes is seen on the path of minimisers of F_lin + λ/2‖W‖² as λ falls, or by a linear
programme, and need not be proven.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from resnet_cert.compare import location, path
from resnet_cert.compare.design import linear_part
from resnet_cert.compare.linear_data import Data, Found
from resnet_cert.compare.linear_minimum import MOST_WORK, LinearMinimum, Seen, enclosed_on
from resnet_cert.compare.linear_objective import LinearObjective, bend
from resnet_cert.compare.path import Place
from resnet_cert.compare.recession import is_softmax, receding_faces, separates
from resnet_cert.compare.row_space import unseen_directions
from resnet_cert.numerics.eigenvalues import smallest_eigenvalue
from resnet_cert.numerics.enclosure import Ball, Enclosure
from resnet_cert.numerics.radius import Array, Radius, U, gamma
from resnet_cert.problem.losses import BuiltinLoss
from resnet_cert.problem.problem import Problem

Bools = npt.NDArray[np.bool_]

DOWN = 2.0**-8
"""λ falls by this factor at each step, from the size of the curvature."""
LOOKS = (4, 5, 6)
"""After these steps what recedes is told from what stays: it falls about as λ does,"""
FALLS = 2.0**-3
"""and this much at least."""
CLOSE = 2.0**-40
"""A relative distance of both ends that need not be less."""
DESCENT = (2.0**-10, 2.0**-25, 2.0**-45, 0.0)
"""The λ, relative to the curvature, on the way to the minimum of what stays."""
MOST_STEPS = 20
"""Of Newton's method: what takes more is no minimum that is attained."""
MOST_HELD = 2**25
"""The most numbers in the inputs from which a part is taken."""
STRETCHES = (2.0**4, 2.0**8, 2.0**12, 2.0**20, 2.0**40)
"""How long, in units of the inputs, a predictor that separates the data is made, or how many times longer, to
see how low its loss falls."""


@dataclass(frozen=True)
class Infimum:
    """inf F_lin over all W, and the places of the path on the way there, ‖W‖ rising."""

    F: Enclosure
    places: tuple[Found, ...]


def infimum(data: Data, start: Found | None = None, enough: float = math.inf) -> Infimum:
    """inf F_lin over all W, of data without ρ.

    Args:
        start: a predictor to begin with, W = 0 by default.
        enough: a lower end above this need not be sharper.
    """
    problem = data.problem
    if start is None:
        objective = data.objective(data.scale)
        start = Found(objective, path.origin(objective, data.scale))
    small = problem.n * (problem.q * problem.d) ** 2 <= MOST_WORK and problem.n * problem.d <= MOST_HELD
    known = data.infimum_of_loss
    lower, best = -math.inf if known is None else known, Seen.of(data, start, blocks=False).F
    place, before = start, np.zeros((problem.n, problem.q))
    tried: Bools | None = None
    places: list[Found] = []
    for step in range(1, LOOKS[-1] + 1):
        if separates(problem, place.W):
            return Infimum(_between(lower, [best, *_stretched(data, place)]), tuple(places))
        place = data.at_multiplier(data.scale * DOWN**step, place)
        places.append(place)
        if step < LOOKS[0] - 1 or not (small and isinstance(problem.loss, BuiltinLoss)):
            continue
        now = _shares(problem, place.W)
        if step in LOOKS:
            stays = (now > FALLS * before) | np.isinf(now)
            best = min(best, Seen.of(data, place, blocks=False).F, key=lambda F: F.upper)
            if tried is None or (stays != tried).any():
                lower, tried = max(lower, _by_what_stays(problem, stays)), stays
            if lower > enough or _is_close(_between(lower, [best])):
                break
        before = now
    found = _between(lower, [best])
    if small and not (lower > enough or _is_close(found)):
        for face in receding_faces(problem):
            lower = max(lower, _by_what_stays(problem, face.stays(problem)))
        found = _between(lower, [best])
    return Infimum(found, tuple(places))


def on_large_ball(linear: LinearMinimum) -> LinearMinimum:
    """The same, known from below by inf F_lin where a part of the data recedes.

    On a ball so large that λ is rounding, a place of the path with a smaller W is about as good.
    """
    data, r = linear.data, linear.r
    limit = infimum(data)
    inside = [place for place in limit.places if place.norm <= r]
    if not inside or limit.F.lower <= linear.F_min.lower:
        return linear
    other = enclosed_on(data, inside[-1], r, linear.attained, linear.chosen, sharp=False)
    best = min(linear, other, key=lambda at: at.F_min.upper)
    F = best.F_min
    F = Enclosure(F.value, min(max(F.lower, limit.F.lower), F.upper), F.upper)
    return replace(best, F_min=F, lower_from="infimum of F_lin")


def _between(lower: float, found: list[Enclosure]) -> Enclosure:
    best = min(found, key=lambda F: F.upper)
    return Enclosure(max(best.value, lower), min(lower, best.upper), best.upper)


def _stretched(data: Data, found: Found) -> Iterator[Enclosure]:
    place = found.place
    length = min(1.0, float(np.max(np.abs(place.point))))
    for times in STRETCHES:
        longer = Place(place.point / length * times, 0.0, place.at, converged=False)
        yield Seen.of(data, Found(found.objective, longer), blocks=False).F


def _shares(problem: Problem, W: Array) -> Array:
    """(n, q): with softmax the probability of each class that a sample does not have, else |∇ℓ| of each
    output that may fall for ever; infinite for what has to stay."""
    shares = []
    for chunk in problem.chunks(features=False):
        at = bend(problem.loss, chunk.x @ W.T, chunk)
        if is_softmax(problem):
            shares.append(np.where(chunk.y > 0.0, np.inf, at.first))
        else:
            found = problem.loss.recession(chunk.y)
            share = np.full(chunk.y.shape, np.inf)
            if found is not None:
                helping = found.helping
                output = np.argmax(np.abs(helping.vector), axis=1)
                share[helping.sample, output] = np.abs(at.first[helping.sample, output])
            shares.append(share)
    return np.concatenate(shares)


def _by_what_stays(problem: Problem, stays: Bools) -> float:
    """A lower bound of F_lin by what of each sample is left, (n, q); −∞ where none is proven."""
    q = problem.q
    chunks = list(problem.chunks(features=False))
    x, y = np.concatenate([c.x for c in chunks]), np.concatenate([c.y for c in chunks])
    pi = np.concatenate([c.weights for c in chunks])
    if is_softmax(problem):
        parts = [
            (stays[:, classes].sum(axis=1) > 1, y[:, classes], stays[:, classes].astype(np.float64))
            for classes in _together(stays)
        ]
    else:
        weights = [c.omega for c in chunks if c.omega is not None]
        omega = np.concatenate(weights) if weights else None
        parts = [(stays[:, a], y[:, [a]], None if omega is None else omega[:, [a]]) for a in range(q)]
    total = Enclosure.exact(0.0)
    for kept, targets, other in parts:
        if pi[kept].any():
            omega = None if other is None else other[kept]
            weight = np.ldexp(pi[kept], -int(np.frexp(np.max(pi[kept]))[1]))  # it may be next to nothing
            least = _least(linear_part(problem, x[kept], targets[kept], weight, omega))
            total = total + least * (_sum(pi[kept]) / _sum(pi))
    return total.lower


def _together(stays: Bools) -> Iterator[list[int]]:
    """Classes that samples compare with each other, directly or by way of others: the predictions of such a
    part may be moved alone, and the rest of F_lin does not change."""
    count = stays.astype(np.float64)
    near = (count.T @ count > 0.0) | np.eye(stays.shape[1], dtype=bool)
    for _ in range(stays.shape[1].bit_length()):
        near = near @ near
    first = near.argmax(axis=1)  # the least class of its part
    yield from (np.flatnonzero(first == a).tolist() for a in np.unique(first))


def _sum(weights: Array) -> Enclosure:
    total = float(np.sum(weights))
    return Enclosure.around(total, Radius.of(total) * gamma(len(weights)))


def _least(part: Problem) -> Enclosure:
    """inf F_lin of a part, its lower end proven in the scaled inputs, or in coordinates of their own."""
    data = Data.of(part)
    best = _least_as_scaled(data)
    if _is_close(best) or not data.may_turn:
        return best
    data = data.orthogonalised()
    other = enclosed_on(data, data.unconstrained()[0], math.inf, None).F_min
    return max(best, other, key=lambda F: F.lower)


def _is_close(F: Enclosure) -> bool:
    return F.upper - F.lower <= CLOSE * abs(F.upper)


def _least_as_scaled(data: Data) -> Enclosure:
    """By L ≥ L(Û) − ‖∇L(Û)‖²/(2m) on the row space, or by the infimum of the loss."""
    objective = LinearObjective(data.scaled, data.ridge)
    place = path.origin(objective, data.scale)
    for share in DESCENT:
        place = path.minimised(objective, place, data.scale * share, steps=MOST_STEPS)
    at = objective.enclosed(place.point, blocks=True)
    lowest = data.infimum_of_loss
    unknown = Enclosure(at.F.value, -math.inf if lowest is None else min(lowest, at.F.value), at.F.upper)
    if at.blocks is None or not all(rows.error.exact for rows in objective.design.rows()):
        return unknown
    K, sine = at.blocks[0], 0.0
    size = location.size_of(K)
    unseen = unseen_directions(lambda: _rays(objective))
    if unseen is not None:
        sine = unseen.sine
        more = size * (unseen.Z @ unseen.Z.T)
        square = Radius.norm(unseen.Z) * Radius.norm(unseen.Z)
        rounding = (square * gamma(unseen.Z.shape[1] + 2) + Radius.underflow(more.size)) * size
        center = K.center + more
        K = Ball(center, K.radius + rounding + Radius.norm(center) * (2.0 * U))
    # δ in the row space has ‖Zᵀδ‖ ≤ sine·‖δ‖; another minimiser, if there is one, differs by what is unseen.
    m = (Enclosure.exact(smallest_eigenvalue(K).lower) - Enclosure.exact(sine).square() * size).lower
    slope = at.slope.norm()
    found = None
    if m > 0.0 and math.isfinite(slope.upper):
        found = location.reached(objective, place.point, slope, location.ZERO, m, float(at.farthest))
    if found is None:
        return unknown
    lower = (at.F - slope.square() / (2.0 * found[0])).lower
    return replace(unknown, lower=max(lower, unknown.lower))


def _rays(objective: LinearObjective) -> Iterator[Array]:
    """v zᵀ, row by row (·, qd), for the differences v of predictions that the loss of a sample sees."""
    q = objective.q
    for rows in objective.design.rows():
        if q == 1 or rows.chunk.omega is None:
            yield rows.z
            continue
        unit, leader = np.eye(q), np.argmax(rows.chunk.y, axis=1)
        i, c = np.nonzero((rows.chunk.omega > 0.0) & (np.arange(q) != leader[:, None]))
        vectors = unit[leader[i]] - unit[c]
        yield (vectors[:, :, None] * rows.z[i][:, None, :]).reshape(len(i), -1)
