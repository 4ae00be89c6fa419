"""The objective on a plane of (w, V): a function of two numbers, whose derivatives JAX has in one program.

On z(s, t) = z_0 + s·z_1 + t·z_2 every prediction is a polynomial of degree 2 in (s, t), so that six numbers a
sample are all that is needed of the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from resnet_cert.compare.minimum_on_ball import best_linear_predictor
from resnet_cert.decide.hessian import Direction, curvature
from resnet_cert.decide.lagrangian import lagrangian
from resnet_cert.moments.one_pass import observe
from resnet_cert.numerics.enclosure import Array
from resnet_cert.numerics.jax64 import jax, jnp
from resnet_cert.outcomes import RequestError
from resnet_cert.problem.losses import Loss
from resnet_cert.problem.problem import Point, Problem

BATCH_ENTRIES = 2**20
"""Losses evaluated by one call,"""
MOST_ROWS = 1024
"""at so many points at most;"""
FEW_ROWS = 16
"""at so many for those who walk along a curve."""
FLAT = 1e-9
"""A gradient this small, relative to the curvature, has no direction to speak of,"""
INDEPENDENT = 1e-6
"""nor has what is left of a direction off another one."""


@dataclass(frozen=True)
class Plane:
    """z(s, t) = origin + s·first + t·second, with orthonormal directions.

    whole: d = k = 1 and (s, t) = (w, v), so that the plane is all there is.  center, radius: the circle in
    which the ball of the constraint meets the plane; None without one.
    """

    origin: Point
    first: Direction
    second: Direction
    names: tuple[str, str]
    whole: bool
    center: tuple[float, float] = (0.0, 0.0)
    radius: float | None = None

    def point(self, at: Array) -> Point:
        s, t = at
        return Point(
            self.origin.w + s * self.first.dw + t * self.second.dw,
            self.origin.V + s * self.first.dV + t * self.second.dV,
        )


def plane_of(problem: Problem, directions: tuple[Direction, Direction] | None = None) -> Plane:
    """The plane of a landscape: (w, v) itself for d = k = 1, otherwise one through the point.

    It is spanned by the gradient of the objective and the direction of its lowest curvature.  Where one of
    the two is no direction of its own, the next of these takes its place: to the best linear predictor
    (w*, 0), to 0, and the coordinates in order.

    Args:
        directions: two others in place of these.
    Raises:
        RequestError: the two given directions are dependent, or their shapes do not fit.
    """
    d, k = problem.d, problem.k
    if directions is None and d == k == 1:
        zero, one = np.zeros((1, 1)), np.ones((1, 1))
        origin, first, second = Point(zero[0], zero), Direction(one[0], zero), Direction(zero[0], one)
        return _with_circle(Plane(origin, first, second, ("w", "v"), whole=True), problem)
    candidates = _candidates(problem)
    if directions is not None:
        candidates = [("first direction", directions[0]), ("second direction", directions[1])]
    names: list[str] = []
    basis: list[Array] = []
    for name, direction in candidates:
        candidate = _flat(direction.dw, direction.dV)
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
    first, second = (Direction(b[:d], b[d:].reshape(d, k)) for b in basis)
    axes = f"s ({names[0]})", f"t ({names[1]})"
    return _with_circle(Plane(problem.point, first, second, axes, whole=False), problem)


def _candidates(problem: Problem) -> list[tuple[str, Direction]]:
    """Directions with their names, the best one first."""
    w, V = problem.point.w, problem.point.V
    here = observe(problem, 1.0).here
    judged = lagrangian(problem, here, curvature(here, w))
    rho = judged.rho.value
    slope = Direction(here.g_w.center + rho * w, np.outer(w, here.a.center) + rho * V)
    scale = abs(judged.lambda_min.value) + float(np.linalg.norm(here.A.center)) + here.a.norm().value
    w_star = best_linear_predictor(problem, None, 1.0).w_star.center
    found = [("gradient", slope)] if judged.gradient_norm.value > FLAT * scale else []
    found += [
        ("lowest curvature", judged.direction),
        ("to the best linear", Direction(w_star - w, -V)),
        ("to 0", Direction(-w, -V)),
    ]
    for unit in np.eye(w.size + V.size)[:3]:
        found.append(("coordinate", Direction(unit[: w.size], unit[w.size :].reshape(V.shape))))
    return found


def _with_circle(plane: Plane, problem: Problem) -> Plane:
    """The plane with the circle in which it meets the sphere ‖z‖ = norm."""
    if problem.constraint is None:
        return plane
    z, first, second = (
        _flat(plane.origin.w, plane.origin.V),
        _flat(plane.first.dw, plane.first.dV),
        _flat(plane.second.dw, plane.second.dV),
    )
    center = (-float(z @ first), -float(z @ second))
    off, norm = float(np.linalg.norm(z + center[0] * first + center[1] * second)), problem.constraint.norm
    radius = math.sqrt(max(norm - off, 0.0)) * math.sqrt(norm + off)
    return replace(plane, center=center, radius=radius)


def _flat(w: Array, V: Array) -> Array:
    return np.concatenate([w, V.ravel()])


@dataclass(frozen=True)
class PlaneObjective:
    """G(s, t) = Σ weight·ℓ(coefficients·(1, s, t, s², st, t²); y) + l2·(size·(1, s, t, s², st, t²)).

    coefficients: (n, 6);  weight: (n,), of sum 1;  size: (6,), those of ‖z(s, t)‖².
    """

    loss: Loss
    coefficients: Array
    y: Array
    weight: Array
    size: Array
    l2: float

    def values(self, at: Array) -> Array:
        """G at points (m, 2)."""
        return self._each(0, at)[0]

    def derivatives(self, at: Array) -> tuple[Array, Array, Array]:
        """G (m,), ∇G (m, 2) and ∇²G (m, 2, 2) at points (m, 2)."""
        value, gradient, hessian = self._each(1, at)
        return value, gradient, hessian

    def _each(self, which: int, at: Array) -> list[Array]:
        rows = max(1, min(BATCH_ENTRIES // len(self.y), MOST_ROWS))
        rows = min(rows, FEW_ROWS) if len(at) <= FEW_ROWS else rows  # two shapes to compile
        function = _compiled(self.loss)[which]
        parts = []
        for start in range(0, len(at), rows):
            batch = at[start : start + rows]
            padded = np.concatenate([batch, np.zeros((rows - len(batch), 2))])
            found = function(padded, self.coefficients, self.y, self.weight, self.size, self.l2)
            parts.append([np.asarray(array)[: len(batch)] for array in found])
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def restricted(problem: Problem, plane: Plane) -> PlaneObjective:
    """The objective of a problem on a plane."""
    ws = np.stack([plane.origin.w, plane.first.dw, plane.second.dw], axis=1)
    Vs = [plane.origin.V, plane.first.dV, plane.second.dV]
    blocks, ys, weights = [], [], []
    for chunk in problem.chunks():
        x = chunk.x @ ws
        f = [chunk.f @ V.T @ ws for V in Vs]  # [b][:, a]: w_aᵀ V_b f
        blocks.append(
            np.stack(
                [
                    x[:, 0] + f[0][:, 0],
                    x[:, 1] + f[0][:, 1] + f[1][:, 0],
                    x[:, 2] + f[0][:, 2] + f[2][:, 0],
                    f[1][:, 1],
                    f[1][:, 2] + f[2][:, 1],
                    f[2][:, 2],
                ],
                axis=1,
            )
        )
        ys.append(chunk.y)
        weights.append(np.ones(len(chunk.y)) if chunk.weight is None else chunk.weight)
    weight = np.concatenate(weights)
    z = np.array([_flat(ws[:, i], V) for i, V in enumerate(Vs)])
    g = z @ z.T
    size = np.array([g[0, 0], 2 * g[0, 1], 2 * g[0, 2], g[1, 1], 2 * g[1, 2], g[2, 2]])
    return PlaneObjective(
        problem.loss, np.concatenate(blocks), np.concatenate(ys), weight / np.sum(weight), size, problem.l2
    )


@lru_cache(maxsize=8)
def _compiled(loss: Loss) -> tuple[Any, Any]:
    """G alone, and G with ∇G and ∇²G, at many points (m, 2): compiled once a loss and shape.

    With powers = (1, s, t, s², st, t²), p = coefficients·powers and a dot for a derivative in s or t,
    Ġ = E[ℓ' coefficients]·powers˙ and G̈ = E[ℓ'' ṗ ṗ] + E[ℓ' coefficients]·powers¨.
    """

    def predictions(at: Any, coefficients: Any, y: Any) -> tuple[Any, Any, Any]:
        powers = _powers(at)
        p = powers @ coefficients.T
        return powers, p.ravel(), jnp.tile(y, len(at))

    def value(at: Any, coefficients: Any, y: Any, weight: Any, size: Any, l2: Any) -> Any:
        powers, p, ys = predictions(at, coefficients, y)
        return (loss.value(p, ys).reshape(len(at), -1) @ weight + l2 * (powers @ size),)

    def derivatives(at: Any, coefficients: Any, y: Any, weight: Any, size: Any, l2: Any) -> Any:
        powers, p, ys = predictions(at, coefficients, y)
        one = jnp.ones_like(p)

        def slope(p: Any) -> Any:
            return jax.jvp(lambda q: loss.value(q, ys), (p,), (one,))

        (ell, first), (_, second) = jax.jvp(slope, (p,), (one,))
        ell, first, second = (part.reshape(len(at), -1) for part in (ell, first, second))
        moved = jax.vmap(jax.jacfwd(lambda point: _powers(point[None])[0]))(at)  # (m, 6, 2)
        bent = jax.vmap(jax.hessian(lambda point: _powers(point[None])[0]))(at)  # (m, 6, 2, 2)
        weights = (first * weight[None]) @ coefficients + (l2 * size)[None]  # (m, 6)
        p_moved = jnp.einsum("na,mai->mni", coefficients, moved)
        curved = jnp.einsum("mn,mni,mnj->mij", second * weight[None], p_moved, p_moved)
        return (
            ell @ weight + l2 * (powers @ size),
            jnp.einsum("ma,mai->mi", weights, moved),
            curved + jnp.einsum("ma,maij->mij", weights, bent),
        )

    return jax.jit(value), jax.jit(derivatives)


def _powers(at: Any) -> Any:
    """(1, s, t, s², st, t²) at points (m, 2): (m, 6)."""
    s, t = at[:, 0], at[:, 1]
    return jnp.stack([jnp.ones_like(s), s, t, s * s, s * t, t * t], axis=1)
