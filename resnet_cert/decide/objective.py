"""F(w, V) = E[ℓ(wᵀ(x + V f); y)] exactly as the paper writes it, and its derivatives by JAX.

Nothing here is used to decide: it is the second opinion.  The moments and the reduced Hessian come from
formulas; jax.grad, a Hessian-vector product and jax.hessian come from this definition alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from resnet_cert.decide.hessian import Direction
from resnet_cert.numerics.enclosure import Array, frobenius
from resnet_cert.numerics.jax64 import jax, jnp
from resnet_cert.problem.losses import Loss
from resnet_cert.problem.problem import Problem

DENSE_PARAMETERS = 512
"""Largest d(1 + k) whose Hessian is formed densely,"""
DENSE_WORK = 2**32
"""if also n·(d(1 + k))² is at most this: a few seconds."""
TANGENT_ENTRIES = 2**22
"""Entries of the tangents of h that one dense Hessian call may hold."""


@dataclass(frozen=True)
class Autodiff:
    """‖∇F‖, D²F along a unit direction, and λ_min(∇²F) or None where a dense Hessian is too large."""

    gradient_norm: float
    curvature: float
    lambda_min: float | None


def objective(w: Any, V: Any, x: Any, f: Any, y: Any, weight: Any, loss: Loss, l2: Any = None) -> Any:
    """Σ weight · (ℓ(wᵀ(x + V f); y) + l2·(‖w‖² + ‖V‖_F²)) over the rows of x (m, d), f (m, k), y (m,)."""
    h = x + f @ V.T
    fit = jnp.sum(weight * loss.value(h @ w, y))
    return fit if l2 is None else fit + jnp.sum(weight) * l2 * (jnp.sum(w**2) + jnp.sum(V**2))


def autodiff(
    problem: Problem, direction: Direction, *, on_boundary: bool = False, tangent: bool = False
) -> Autodiff:
    """∇F and ∇²F at the problem's point by automatic differentiation, in float64 and unproven.

    F stands for the regularised objective where there is a regulariser.

    Args:
        on_boundary: the same of the Lagrangian of the constraint ‖z‖ ≤ norm, z = (w, V), whose gradient is
            ∇F + μz with μ = max(0, −⟨∇F, z⟩/‖z‖²).
        tangent: λ_min on z^⊥.
    """
    w, V = problem.point.w, problem.point.V
    parameters = w.size + V.size
    dense = parameters <= DENSE_PARAMETERS and problem.n * parameters**2 <= DENSE_WORK
    rows = problem.chunk_rows
    if dense:
        rows = min(rows, max(1, TANGENT_ENTRIES // (parameters * len(w))))
    length = math.sqrt(float(np.sum(direction.dw**2) + np.sum(direction.dV**2))) or 1.0
    along = (direction.dw / length, direction.dV / length)
    gradient: Array = np.zeros(parameters)
    curvature, total = 0.0, 0.0
    hessian: Array = np.zeros((parameters, parameters) if dense else (0, 0))
    for chunk in problem.chunks():
        weight = np.ones(len(chunk.x)) if chunk.weight is None else chunk.weight
        total += float(np.sum(weight))
        for start in range(0, len(weight), rows):
            part = [padded(a[start : start + rows], rows) for a in (chunk.x, chunk.f, chunk.y, weight)]
            g, c, H = _compiled(problem.loss, dense)(w, V, along, *part, problem.l2 or None)
            gradient += np.asarray(g)
            curvature += float(c)
            hessian += np.asarray(H)
    gradient, curvature, hessian = gradient / total, curvature / total, hessian / total
    if on_boundary:
        z = np.concatenate([w, V.ravel()])
        size = frobenius(z)
        mu = max(0.0, -float(gradient @ (z / size)) / size)
        gradient, curvature, hessian = gradient + mu * z, curvature + mu, hessian + mu * np.eye(len(hessian))
        if tangent and dense:
            basis = np.linalg.qr(np.column_stack([z, np.eye(len(z))]))[0][:, 1:]
            hessian = basis.T @ hessian @ basis
    lambda_min = None
    if dense and np.isfinite(hessian).all():
        lambda_min = float(np.linalg.eigvalsh(hessian)[0])
    return Autodiff(frobenius(gradient), curvature, lambda_min)


@lru_cache(maxsize=32)
def _compiled(loss: Loss, dense: bool) -> Any:
    """One compiled function a loss (and one compilation a shape): ∇F, D²F along a tangent, ∇²F if dense."""

    def derivatives(w: Any, V: Any, along: Any, x: Any, f: Any, y: Any, weight: Any, l2: Any) -> Any:
        def F(point: Any) -> Any:
            return objective(point[0], point[1], x, f, y, weight, loss, l2)

        def flat(tree: Any) -> Any:
            return jnp.concatenate([tree[0].ravel(), tree[1].ravel()])

        point = (w, V)
        gradient, product = jax.jvp(jax.grad(F), (point,), (along,))
        hessian = jnp.zeros((0, 0))
        if dense:
            d, k = V.shape
            hessian = jax.hessian(lambda z: F((z[:d], z[d:].reshape(d, k))))(flat(point))
        return flat(gradient), flat(along) @ flat(product), hessian

    return jax.jit(derivatives)


def padded(a: Array, rows: int) -> Array:
    """a with rows of zeros appended: zero weight, zero contribution, one shape to compile."""
    if len(a) == rows:
        return a
    return np.concatenate([a, np.zeros((rows - len(a), *a.shape[1:]))])
