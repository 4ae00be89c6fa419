"""The objective on a plane of (W, V): a function of two numbers.

On z(s, t) = z_0 + s·z_1 + t·z_2 every prediction is a polynomial of degree 2 in (s, t), so that six numbers a
sample and an output are all that is needed of the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from resnet_cert.numerics.balls import QUIET, Balls
from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.numerics.radius import NOTHING, Array, Radius, U, gamma
from resnet_cert.outcomes import RequestError
from resnet_cert.problem.losses import Loss
from resnet_cert.problem.problem import Direction, Point, Problem
from resnet_cert.search.derivatives import Objective, lowest_curvature
from resnet_cert.search.enclosed import PlaneGradient, polynomials, samples, shares

BATCH_ENTRIES = 2**20
"""Losses evaluated by one call."""
FLAT = 1e-9
"""A gradient this small, relative to the curvature, has no direction to speak of,"""
INDEPENDENT = 1e-6
"""nor has what is left of a direction off another one."""


@dataclass(frozen=True)
class Plane:
    """z(s, t) = origin + s·first + t·second, with directions that are orthonormal to rounding.

    whole: there is one w and one v and (s, t) = (w, v), so that the plane is all there is.  names: of the
    axes, as formulas; words: what they are.  center, radius: about the circle in which the ball of the
    constraint meets the plane; None without one.
    """

    origin: Point
    first: Direction
    second: Direction
    names: tuple[str, str]
    words: tuple[str, str]
    whole: bool
    center: tuple[float, float] = (0.0, 0.0)
    radius: float | None = None

    def point(self, at: Array) -> Point:
        s, t = at
        W = self.origin.head + s * self.first.dW + t * self.second.dW
        V = self.origin.V + s * self.first.dV + t * self.second.dV
        return Point(W, V) if self.origin.c is None else Point(W[:, :-1], V, W[:, -1])


def is_whole(problem: Problem) -> bool:
    """The head is one number w and the block one number v."""
    return problem.q == problem.d == problem.d1 == problem.k == 1


def plane_of(
    problem: Problem, best_linear: Array, directions: tuple[Direction, Direction] | None = None
) -> Plane:
    """The plane of a landscape: (w, v) itself where that is all, otherwise one through the point.

    It is spanned by the gradient of the objective and the direction of its lowest curvature.  Where one of
    the two is no direction of its own, the next of these takes its place: to the best linear predictor
    (W*, 0), to 0, and the coordinates in order.

    Args:
        best_linear: W* (q, d).  directions: two others in place of these.
    Raises:
        RequestError: the two given directions are dependent, or their shapes do not fit.
    """
    if directions is None and is_whole(problem):
        zero, one = np.zeros((1, 1)), np.ones((1, 1))
        origin, first, second = Point(zero, zero), Direction(one, zero), Direction(zero, one)
        words = "the head's weight", "the block's weight"
        return _with_circle(Plane(origin, first, second, ("w", "v"), words, whole=True), problem)
    function = Objective(problem)
    candidates = _candidates(problem, function, best_linear)
    if directions is not None:
        candidates = [("first given direction", directions[0]), ("second given direction", directions[1])]
    names: list[str] = []
    basis: list[Array] = []
    for name, direction in candidates:
        candidate = function.flat(direction)
        rest = candidate
        for _ in range(2):  # once more, for rounding
            rest = rest - sum((float(rest @ b) * b for b in basis), np.zeros_like(rest))
        if float(np.linalg.norm(rest)) > INDEPENDENT * float(np.linalg.norm(candidate)):
            names.append(name)
            basis.append(rest / float(np.linalg.norm(rest)))
        if len(basis) == 2:
            break
    if len(basis) < 2:
        raise RequestError("expected two independent directions, got dependent ones", id="wrong-value")
    first, second = (function.direction(b) for b in basis)
    return _with_circle(
        Plane(problem.point, first, second, ("s", "t"), (names[0], names[1]), whole=False), problem
    )


def _candidates(problem: Problem, function: Objective, best_linear: Array) -> list[tuple[str, Direction]]:
    """Directions with their names, the best one first."""
    z = function.flat(problem.point)
    with np.errstate(all="ignore"):
        _, gradient = function.at(z)
        lambda_min, lowest = lowest_curvature(function, z)
        bent = float(np.linalg.norm(function.hessian_product(z, gradient)))
    size = float(np.linalg.norm(gradient))
    found = []
    if size > 0.0 and size * size > FLAT * bent and size > FLAT * abs(lambda_min):
        found.append(("gradient", function.direction(gradient)))
    if lowest.any():
        found.append(("lowest curvature", function.direction(lowest)))
    found += [
        ("to the best linear predictor", Direction(best_linear - problem.W, -problem.V)),
        ("to 0", Direction(-problem.W, -problem.V)),
    ]
    return found + [("a coordinate", function.direction(unit)) for unit in np.eye(len(z))[:3]]


def _with_circle(plane: Plane, problem: Problem) -> Plane:
    """The plane with the circle in which it meets the sphere ‖z‖ = norm (an ellipse where a bias is free)."""
    norm = problem.objective.norm
    if norm is None:
        return plane
    z, first, second = (_decayed(problem, part) for part in _parts(plane))
    center = (-float(z @ first), -float(z @ second))
    off = float(np.linalg.norm(z + center[0] * first + center[1] * second))
    radius = math.sqrt(max(norm - off, 0.0)) * math.sqrt(norm + off)
    return replace(plane, center=center, radius=radius)


def _parts(plane: Plane) -> tuple[tuple[Array, Array], ...]:
    return (
        (plane.origin.head, plane.origin.V),
        (plane.first.dW, plane.first.dV),
        (plane.second.dW, plane.second.dV),
    )


def _decayed(problem: Problem, part: tuple[Array, Array]) -> Array:
    """(W, V) as one vector, without what no decay and no ball speaks of."""
    W, V = part
    return np.concatenate([(W * problem.decayed).ravel(), V.ravel()])


@dataclass(frozen=True)
class PlaneObjective:
    """G(s, t), and what encloses its derivatives.

    coefficients: (n, q, 6) of the predictions, for (1, s, t, s², st, t²);  y, omega: (n, q);  weight: (n,).
    """

    loss: Loss
    coefficients: Balls
    y: Array
    omega: Array | None
    weight: Array
    gradient: PlaneGradient

    @QUIET
    def values(self, at: Array) -> Array:
        """G at points (m, 2)."""
        n, q, _ = self.coefficients.center.shape
        rows = max(1, BATCH_ENTRIES // (n * q))
        flat = self.coefficients.center.reshape(n * q, 6)
        share = self.weight / float(np.sum(self.weight))
        found = []
        for start in range(0, len(at), rows):
            phi = powers(at[start : start + rows])
            m = len(phi)
            p = (phi @ flat.T).reshape(m * n, q)
            y = np.broadcast_to(self.y, (m, n, q)).reshape(m * n, q)
            omega = None if self.omega is None else np.broadcast_to(self.omega, (m, n, q)).reshape(m * n, q)
            losses = self.loss.first_derivatives(p, NOTHING, y, omega).value.reshape(m, n)
            found.append(losses @ share + self.gradient.l2 * (phi @ self.gradient.size.center))
        return np.concatenate(found)

    @QUIET
    def enclosed(self, center: Array, reach: Array) -> tuple[Enclosure, Enclosure]:
        """F and G anywhere in one small box, (2,) each."""
        p, _, _ = polynomials(self.coefficients, center[None], reach[None])
        error = Radius.row_norms(p.radius[0])
        at = self.loss.derivatives(p.center[0], error, self.y, self.omega)
        losses = Balls(at.value, np.broadcast_to(np.asarray(at.value_error.upper), at.value.shape))
        F = losses.weighted(shares(self.weight))
        N, _, _ = self.gradient.norm_squared(center[None], reach[None])
        G = F + N.times(self.gradient.l2)[0] if self.gradient.l2 else F
        return _enclosure(F), _enclosure(G)


def _enclosure(x: Balls) -> Enclosure:
    return Enclosure(float(x.center), float(x.lower), float(x.upper))


def restricted(problem: Problem, plane: Plane) -> PlaneObjective:
    """The objective of a problem on a plane.

    Raises:
        RequestError: nothing is proven of its loss.
    """
    parts = _parts(plane)
    d1 = problem.d1
    blocks, ys, omegas, weights = [], [], [], []
    for chunk in problem.chunks():
        x = [chunk.x @ W.T for W, _ in parts]
        f = [[chunk.f @ (V.T @ W[:, :d1].T) for _, V in parts] for W, _ in parts]
        size_x = [np.abs(chunk.x) @ np.abs(W.T) for W, _ in parts]
        size_f = [[np.abs(chunk.f) @ np.abs(V.T) @ np.abs(W[:, :d1].T) for _, V in parts] for W, _ in parts]
        terms = (_quadratic(x, f), _quadratic(size_x, size_f))
        blocks.append(np.stack(terms))
        ys.append(chunk.y)
        weights.append(chunk.weights)
        if chunk.omega is not None:
            omegas.append(chunk.omega)
    center, size = np.concatenate(blocks, axis=1)
    exact = plane.whole  # there every coefficient is an entry of x or f
    few = 0.0 if exact else gamma(problem.d + problem.d1 + problem.k + 16)
    y, weight = np.concatenate(ys), np.concatenate(weights)
    omega = np.concatenate(omegas) if omegas else None
    data = samples(problem.loss, Balls(center, few * size), y, omega, weight)
    z = np.stack([_decayed(problem, part) for part in parts])
    return PlaneObjective(
        problem.loss,
        Balls(center, few * size),
        y,
        omega,
        weight,
        PlaneGradient(data, _norm_squared(z, exact=exact), problem.objective.l2),
    )


def _quadratic(x: list[Array], f: list[list[Array]]) -> Array:
    """(m, q, 6) from W_a x and W_aV_b f, f[a][b]."""
    return np.stack(
        [
            x[0] + f[0][0],
            x[1] + f[1][0] + f[0][1],
            x[2] + f[2][0] + f[0][2],
            f[1][1],
            f[1][2] + f[2][1],
            f[2][2],
        ],
        axis=-1,
    )


def _norm_squared(z: Array, *, exact: bool) -> Balls:
    """(6,) the coefficients of ‖z_0 + s·z_1 + t·z_2‖²."""
    g, size = z @ z.T, np.abs(z) @ np.abs(z).T
    few = 0.0 if exact else 2.0 * gamma(z.shape[1] + 4) * (1.0 + 8.0 * U)

    def six(g: Array) -> Array:
        return np.array([g[0, 0], 2 * g[0, 1], 2 * g[0, 2], g[1, 1], 2 * g[1, 2], g[2, 2]])

    return Balls(six(g), few * six(size))


def powers(at: Array) -> Array:
    """(1, s, t, s², st, t²) at points (m, 2): (m, 6)."""
    s, t = at[:, 0], at[:, 1]
    return np.stack([np.ones_like(s), s, t, s * s, s * t, t * t], axis=1)
