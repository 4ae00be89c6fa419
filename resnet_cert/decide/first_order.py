"""λ_min enclosed without the Hessian: for heads of any size, from the moments of ∇F and passes over the data.

Below.  The Gauss–Newton part E[δpᵀ∇²ℓ δp] of D²F is nonnegative, and
2|⟨dW_1dV, A_f⟩| ≤ ‖A_f‖_2(‖dW_1‖_F² + ‖dV‖_F²), so λ_min(∇²F) ≥ −‖A_f‖_2: a point with ‖∇F‖ ≤ ε and
‖A_f‖_2 ≤ √(μ2 ε) is an ε-SOPSP.  Where σ_min(W_1) ≥ √(ε/μ2) (of full row rank; of NᵀW_1 where the gradients
of the loss sum to 0), ‖∇F‖ ≤ ε implies it, for ‖A_f‖_2 ≤ ‖∇_V F‖/σ_min(W_1) ≤ √(μ2 ε).

Above.  The Rayleigh quotient, verified by one more pass, of a direction that a few Lanczos steps find.  They
start from (u eᵀ, −e vᵀ), (u, v) the top singular pair of A_f and e the least right singular vector of W_1,
on which ∇²F is [[η, −‖A_f‖ − x], [·, κ]] with η = E[(eᵀh)²uᵀ∇²ℓu] and κ = E[(vᵀf)²(W_1e)ᵀ∇²ℓ(W_1e)]; x and κ
are 0 for W_1e = 0.
"""

from __future__ import annotations

import math

import numpy as np

from resnet_cert.decide.hessian import (
    Curvature,
    Shift,
    Structure,
    gauss_newton_bound,
    quotient,
    top_singular_pair,
    unit_vector,
)
from resnet_cert.decide.lagrangian import FirstOrder, Slope, shift_of, sphere_of
from resnet_cert.decide.objective import Objective, flat, unflat
from resnet_cert.moments.gradient import curvature_along
from resnet_cert.numerics.algebra import eigh
from resnet_cert.numerics.enclosure import Array, Enclosure
from resnet_cert.numerics.threads import small_algebra
from resnet_cert.problem.problem import Direction, Problem
from resnet_cert.problem.span import gradient_basis

STEPS = 12
"""Lanczos steps, each a pass over the data, where a direction may refute the point,"""
FEW_STEPS = 2
"""and where it cannot."""
BEYOND = 1.0 + 1e-6
"""A Ritz value below the threshold by this factor is worth its proof."""


def bounded(
    problem: Problem,
    here: FirstOrder,
    at: Slope,
    threshold: Enclosure | None,
    *,
    open_: bool,
    searches: bool = True,
) -> Curvature:
    """λ_min(∇²L), from below by ‖A_f‖_2, from above along a direction.

    Args:
        threshold: √(μ2 ε), if known.
        open_: whether the point is an ε-SOPSP hangs on λ_min.
        searches: take Lanczos steps for the direction; else it is the one that they would start from.
    """
    shift, sphere = shift_of(problem, at), sphere_of(problem, at)
    structure = Structure.of(problem.W, problem.d1, problem.k, sum_free=gradient_basis(problem) is not None)
    lower = gauss_newton_bound(here.A_f, shift) if problem.loss.convex_in_range else -math.inf
    goal, steps = -math.inf, FEW_STEPS if searches else 0
    if open_ and threshold is not None and -lower > threshold.lower:
        goal, steps = -threshold.upper * BEYOND, STEPS
    value, direction = lowest_direction(problem, here.A_f.center, shift, sphere, steps, goal)
    found = quotient(
        lambda u: curvature_along(problem, u, here.A_f),
        here.A_f.size(),
        direction,
        shift,
        sphere,
        convex=problem.loss.convex_in_range,
    )
    value = found.value if math.isnan(value) else value
    upper, ceiling = found.upper, structure.ceiling(shift, on_sphere=sphere is not None)
    if ceiling is not None:
        upper, value = min(upper, ceiling.upper), min(value, ceiling.value)
    zeros = max(structure.zero_multiplicity - (sphere is not None), 0)
    return Curvature(Enclosure(value, lower, max(upper, lower)), direction, zeros, "bound")


def lowest_direction(
    problem: Problem, A_f: Array, shift: Shift, sphere: Direction | None, steps: int, goal: float
) -> tuple[float, Direction]:
    """A Ritz value of ∇²L and its vector, unproven: the least after `steps`, or the first below `goal`.

    Lanczos with full orthogonalisation (twice), on z^⊥ for z = `sphere`.
    """
    F = Objective(problem, regularized=False)
    W_shape, V_shape = problem.W.shape, problem.V.shape
    added = shift.rho.value * flat(Direction(np.broadcast_to(shift.decayed, W_shape), np.ones(V_shape)))
    basis: list[Array] = []
    if sphere is not None:
        basis.append(unit_vector(flat(sphere))[0])
    fixed = len(basis)
    vector, value = flat(starting_direction(problem, A_f)), math.nan
    best = unflat(vector, W_shape, V_shape)
    images: list[Array] = []
    for _ in range(steps):
        for _ in range(2):
            for other in basis:
                vector = vector - other * float(other @ vector)
        vector, length = unit_vector(vector)
        if not (length > 0.0 and np.isfinite(vector).all()):
            break
        basis.append(vector)
        image = flat(F.along(unflat(vector, W_shape, V_shape)).product) + added * vector
        if not np.isfinite(image).all():
            break
        images.append(image)
        projected = np.array([[float(a @ b) for b in images] for a in basis[fixed:]])
        values, vectors = eigh((projected + projected.T) / 2.0)
        if not np.isfinite(vectors).all():
            break
        value = float(values[0])
        combined = sum(c * a for c, a in zip(vectors[:, 0].tolist(), basis[fixed:], strict=True))
        best = unflat(np.asarray(combined), W_shape, V_shape)
        if value < goal:
            break
        vector = image
    return value, best


def starting_direction(problem: Problem, A_f: Array) -> Direction:
    """(u eᵀ, −e vᵀ): the pair on which ⟨dW_1dV, A_f⟩ = −‖A_f‖_2, at the least cost in the Gauss–Newton
    part."""
    d1 = problem.d1
    u, _, v = top_singular_pair(A_f)
    dW = np.zeros(problem.W.shape)
    e = least_right_vector(problem)
    dW[:, :d1] = np.outer(u, e)
    return Direction(dW, -np.outer(e, v))


def least_right_vector(problem: Problem) -> Array:
    """A unit vector e ∈ R^{d1} for which ‖W_1e‖, or ‖NᵀW_1e‖, is least: float64, unproven."""
    W_1, N = problem.W[:, : problem.d1], gradient_basis(problem)
    W_1 = W_1 if N is None else N.center.T @ W_1
    q, d1 = W_1.shape
    if not W_1.any():
        return np.eye(d1)[0]
    W_1 = W_1 / float(np.max(np.abs(W_1)))
    with small_algebra(max(q, d1)):
        if d1 <= q:
            return eigh(W_1.T @ W_1)[1][:, 0]
        # Off the rows of W_1: what is left of a vector that no pattern can hold.
        rows = np.linalg.qr(W_1.T)[0]
    e = np.cos(np.arange(1.0, d1 + 1.0))
    for _ in range(2):
        e = e - rows @ (rows.T @ e)
    return unit_vector(e)[0]
