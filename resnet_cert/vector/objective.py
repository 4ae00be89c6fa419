"""The second opinion: F(W, V) = E[ℓ(W(x + V f); y)] as it is written, by JAX, against the moments."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from resnet_cert.decide.crosscheck import ROUNDING_ALLOWANCE, require_agreement
from resnet_cert.decide.hessian import Curvature, Direction
from resnet_cert.decide.objective import DENSE_PARAMETERS, DENSE_WORK, TANGENT_ENTRIES, Autodiff, padded
from resnet_cert.moments.one_pass import Observed
from resnet_cert.numerics.enclosure import Array, Enclosure, U, frobenius
from resnet_cert.numerics.jax64 import jax, jnp
from resnet_cert.results import CrossCheck
from resnet_cert.vector.hessian import Reduction, rayleigh_quotient
from resnet_cert.vector.losses import VectorLoss
from resnet_cert.vector.moments import VectorMoments
from resnet_cert.vector.problem import VectorProblem


def objective(W: Any, V: Any, x: Any, f: Any, y: Any, omega: Any, weight: Any, loss: VectorLoss) -> Any:
    """Σ weight · ℓ(W(x + V f); y) over the rows of x (m, d), f (m, k), y (m, q)."""
    h = x + f @ V.T
    return jnp.sum(weight * loss.value(h @ W.T, y, omega))


def crosscheck(
    problem: VectorProblem,
    seen: Observed[VectorMoments],
    gradient_norm: Enclosure,
    parts: Reduction,
    bent: Curvature,
) -> CrossCheck:
    """Autodiff of the objective as written, compared with every number that it can speak of.

    Our radii are relative to a derivative, even where it is e^{−50}; autodiff takes it from numbers of the
    size of the largest one on the domain, μ0 or μ1, and errs on that scale.

    Raises:
        InternalError: they differ by more than the enclosure and a rounding allowance.
    """
    here, bounds, s = seen.here, seen.lipschitz, frobenius(problem.point.W)
    assert bounds is not None  # every loss of several outputs has suprema
    size = max(1.0, s)
    auto = autodiff(problem, bent.direction)
    first = ROUNDING_ALLOWANCE * (here.g_W.radius + s * here.A_f.radius + U * bounds.mu0)
    second = here.Q.radius * size * size + 2.0 * here.A_f.radius
    second = ROUNDING_ALLOWANCE * (second + U * bounds.mu1)
    along = rayleigh_quotient(parts, bent.direction)
    require_agreement(
        problem,
        ("gradient norm", auto.gradient_norm, gradient_norm, first),
        ("curvature along the witness", auto.curvature, along, second),
        ("smallest Hessian eigenvalue", auto.lambda_min, bent.lambda_min, second),
    )
    return CrossCheck(auto.gradient_norm, auto.curvature, auto.lambda_min)


def autodiff(problem: VectorProblem, direction: Direction) -> Autodiff:
    """∇F and ∇²F at the problem's point by automatic differentiation, in float64 and unproven."""
    W, V = problem.point.W, problem.point.V
    parameters = W.size + V.size
    dense = parameters <= DENSE_PARAMETERS and problem.n * parameters**2 <= DENSE_WORK
    rows = problem.chunk_rows
    if dense:
        rows = min(rows, max(1, TANGENT_ENTRIES // (parameters * sum(W.shape))))
    length = math.hypot(frobenius(direction.dw), frobenius(direction.dV)) or 1.0
    tangent = (direction.dw / length, direction.dV / length)
    gradient: Array = np.zeros(parameters)
    curvature, total = 0.0, 0.0
    hessian: Array = np.zeros((parameters, parameters) if dense else (0, 0))
    for chunk in problem.chunks():
        weight = np.ones(len(chunk.x)) if chunk.weight is None else chunk.weight
        omega = np.ones_like(chunk.y) if chunk.omega is None else chunk.omega
        total += float(np.sum(weight))
        for start in range(0, len(weight), rows):
            arrays = (chunk.x, chunk.f, chunk.y, omega, weight)
            part = [padded(a[start : start + rows], rows) for a in arrays]
            g, c, H = _compiled(problem.loss, dense)(W, V, tangent, *part)
            gradient += np.asarray(g)
            curvature += float(c)
            hessian += np.asarray(H)
    lambda_min = None
    if dense and np.isfinite(hessian).all():
        lambda_min = float(np.linalg.eigvalsh(hessian / total)[0])
    return Autodiff(frobenius(gradient) / total, curvature / total, lambda_min)


@lru_cache(maxsize=32)
def _compiled(loss: VectorLoss, dense: bool) -> Any:
    """One compiled function a loss (and one compilation a shape): ∇F, D²F along a tangent, ∇²F if dense."""

    def derivatives(W: Any, V: Any, tangent: Any, x: Any, f: Any, y: Any, omega: Any, weight: Any) -> Any:
        def F(point: Any) -> Any:
            return objective(point[0], point[1], x, f, y, omega, weight, loss)

        def flat(tree: Any) -> Any:
            return jnp.concatenate([tree[0].ravel(), tree[1].ravel()])

        def F_flat(at: Any) -> Any:
            return F((at[: W.size].reshape(W.shape), at[W.size :].reshape(V.shape)))

        gradient, product = jax.jvp(jax.grad(F), ((W, V),), (tangent,))
        hessian = jax.hessian(F_flat)(flat((W, V))) if dense else jnp.zeros((0, 0))
        return flat(gradient), flat(tangent) @ flat(product), hessian

    return jax.jit(derivatives)
