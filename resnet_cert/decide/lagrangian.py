"""Definition 1 for a regularised objective, on a ball: G = F + l2·‖z‖² subject to ‖z‖ ≤ norm, z = (w, V).

Here ‖z‖² = ‖w‖² + ‖V‖_F².  On the boundary, with the multiplier μ = −⟨∇G, z⟩/‖z‖², both cases and the case
without a constraint are those of one function,

    L = F + (ρ/2)‖z‖²,   ρ = 2·l2 + max(0, μ)   (μ = 0 inside),   ∇L = ∇F + ρz,   ∇²L = ∇²F + ρI:

- ‖∇L‖ is the length of the projection of −∇G onto the tangent cone of the ball.  For μ ≥ 0, ∇L = ∇G + μz is
  orthogonal to z; for μ < 0 the objective falls on the way inside, and ∇L = ∇G.
- λ_min is that of ∇²L on z^⊥ where μ > 0, and on the whole space otherwise: for μ = 0 the critical cone is a
  half-space, on which a quadratic form takes no other values than on the whole space.

A point is an ε-SOPSP iff ‖∇L‖ ≤ ε and λ_min ≥ −√(μ2 ε).  For ε = 0 these are the necessary conditions of
second order for a local minimum of G on the ball; a quadratic has no third derivative, so μ2 is that of F.

A float64 point lies on no given sphere.  One with | ‖z‖ − norm | ≤ BOUNDARY_WIDTH·norm counts as on the
boundary of the ball of radius ‖z‖, about which everything here is exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from resnet_cert.compare.linear_predictor import (
    NOISE,
    LinearMinimum,
    LinearObjective,
    Sketch,
    minimum_on_ball,
)
from resnet_cert.decide.hessian import (
    Curvature,
    Direction,
    curvature_off,
    orthogonal_complement,
    reduced_hessian,
    unit_vector,
)
from resnet_cert.moments.moments import Moments
from resnet_cert.numerics.eigenvalues import smallest_eigenpair
from resnet_cert.numerics.enclosure import (
    TINY,
    Array,
    Ball,
    Enclosure,
    U,
    frobenius,
    gamma,
    inflate,
    inner,
    norm,
    product,
)
from resnet_cert.problem.problem import BOUNDARY_WIDTH, Problem
from resnet_cert.results import Regularized
from resnet_cert.theory.theorems import hypot, proposition_R


@dataclass(frozen=True)
class Lagrangian:
    """∇L and ∇²L at the problem's point.

    rho: ρ.  multiplier: μ, None inside the ball and without one.  tangent: λ_min is that on z^⊥; None where
    the sign of μ is not known, and lambda_min holds both.  direction: attains λ_min numerically.
    """

    rho: Enclosure
    multiplier: Enclosure | None
    tangent: bool | None
    gradient_norm: Enclosure
    gradient_w: Enclosure
    gradient_V: Enclosure
    lambda_min: Enclosure
    direction: Direction
    zero_multiplicity: int

    @property
    def method(self) -> str:
        """How λ_min was found, as in the report."""
        return "reduced, on the tangent space of the sphere" if self.tangent else "reduced"


def lagrangian(problem: Problem, here: Moments, bent: Curvature) -> Lagrangian:
    """The gradient and the curvature that Definition 1 speaks of.

    Args:
        here, bent: the moments and the curvature of F at the problem's point.
    """
    w, V = problem.point.w, problem.point.V
    c = Enclosure.exact(problem.l2) * 2.0
    multiplier = _multiplier(problem, here) if on_boundary(problem) else None
    rho = c if multiplier is None else c + multiplier.positive_part()
    tangent: bool | None = False
    if multiplier is not None and multiplier.upper > 0.0:
        tangent = True if multiplier.lower > 0.0 else None
        on_sphere = tangent_curvature(here, w, V)
        if tangent:
            bent = on_sphere
        else:
            lower, upper = bent.lambda_min.lower, on_sphere.lambda_min.upper
            bent = replace(bent, lambda_min=Enclosure(bent.lambda_min.value, lower, max(lower, upper)))
    gradient_w = _shifted(here.g_w, rho, w).norm()
    gradient_V = norm(w) * here.a.norm()  # L = F
    if rho.upper:
        outer = Ball(np.outer(w, here.a.center), _outer_error(w, here.a))
        gradient_V = _shifted(outer, rho, V).norm()
    return Lagrangian(
        rho,
        multiplier,
        tangent,
        hypot(gradient_w, gradient_V),
        gradient_w,
        gradient_V,
        _shift(bent.lambda_min, rho, c if tangent is None else rho),
        bent.direction,
        bent.zero_multiplicity,
    )


def _shift(lambda_min: Enclosure, rho: Enclosure, least: Enclosure) -> Enclosure:
    """λ_min + ρ, where λ_min.lower goes with an eigenvalue that is shifted by `least` only."""
    lower = (lambda_min + least).lower
    return Enclosure((lambda_min + rho).value, lower, max(lower, (lambda_min + rho).upper))


def on_boundary(problem: Problem) -> bool:
    """‖(w, V)‖ is the norm of the constraint, to BOUNDARY_WIDTH."""
    if problem.constraint is None:
        return False
    return length(problem).upper >= problem.constraint.norm * (1.0 - BOUNDARY_WIDTH)


def length(problem: Problem) -> Enclosure:
    """‖(w, V)‖."""
    return hypot(norm(problem.point.w), norm(problem.point.V))


def objective(problem: Problem, F: Enclosure) -> Enclosure:
    """G = F + l2·‖(w, V)‖²."""
    return F + length(problem).square() * problem.l2 if problem.l2 else F


def _multiplier(problem: Problem, here: Moments) -> Enclosure:
    """μ = −⟨∇G, z⟩/‖z‖² = −(g_wᵀw + aᵀVᵀw)/‖z‖² − 2·l2."""
    w, V = problem.point.w, problem.point.V
    slope = inner(here.g_w, Ball(w, 0.0)) + inner(here.a, product(V.T, Ball(w, 0.0)))
    return -(slope / length(problem).square()) - Enclosure.exact(problem.l2) * 2.0


def _shifted(g: Ball, rho: Enclosure, z: Array) -> Ball:
    """g + ρz."""
    if not rho.upper:
        return g
    center = g.center + rho.value * z
    size = frobenius(z)
    spread = max(rho.upper - rho.value, rho.value - rho.lower)
    rounding = 3 * U * (frobenius(center) + abs(rho.value) * size)
    radius = inflate(g.radius + spread * size + rounding) + z.size * TINY
    return Ball(center, radius if math.isfinite(radius) else math.inf)


def _outer_error(w: Array, a: Ball) -> float:
    """How far w âᵀ in float64 is from w aᵀ."""
    size = frobenius(w)
    if not size:
        return 0.0
    return inflate(size * (a.radius + 2 * U * frobenius(a.center))) + w.size * a.center.size * TINY


def tangent_curvature(here: Moments, w: Array, V: Array) -> Curvature:
    """λ_min of ∇²F on z^⊥, z = (w, V) ≠ 0, enclosed.

    ∇²F vanishes on the complement of the reduced space N of `hessian`, which is spanned by the directions
    (dw, evᵀ + u tᵀ), t = a/‖a‖, u ⊥ e.  With z = z_N + z_R, z_R ∈ N^⊥, z lies in N ⊕ span(z_R), where ∇²F is
    the reduced matrix with one more row and column of zeros; what is left of N^⊥ is orthogonal to z, with
    (d − 1)(k − 1) − 1 eigenvalues 0.  (Where z_R = 0, any unit vector of N^⊥ takes its place, and where
    N^⊥ = 0 there is none.)  Those zeros are never below the rest: where z_R is, ∇²F vanishes on u and z_R
    together, of dimension d ≥ 2, and so on some direction of theirs off z.  So λ_min on z^⊥ is that of a
    matrix of size 2d + k at most off one vector, the coordinates (w, Vᵀe, Pᵀ V t, ‖z_R‖) of z.

    The reduced matrix of the float64 moments is within their radii of the exact one.  Its rounding and that
    of the coordinates is below 32·γ of its size, γ = γ_{8(d+k)+40}: a rotation that takes one unit vector to
    another at distance δ changes λ_min off it by (2δ + δ²)·‖·‖ at most.
    """
    H, P = reduced_hessian(here, w)
    e, s = unit_vector(w)
    t = unit_vector(here.a.center)[0]
    d, k = V.shape
    v, u = V.T @ e, P.T @ (V @ t)
    rest = V - np.outer(e, v) - np.outer(P @ u, t)
    z = np.concatenate([w, v, u])
    zeros = (d - 1) * (k - 1)
    if zeros:
        z = np.append(z, frobenius(rest))
        H = np.pad(H, (0, 1))
    data = here.A.radius + s * here.B.radius + s * s * here.C.radius + here.a.radius
    radius = inflate(data + 32 * gamma(8 * (d + k) + 40) * frobenius(H))
    lambda_min = curvature_off(Ball(H, radius), z)
    direction = Direction(np.zeros(d), np.zeros((d, k)))
    if np.isfinite(H).all():
        T = orthogonal_complement(unit_vector(z)[0])
        projected = T.T @ H @ T
        y = T @ smallest_eigenpair((projected + projected.T) / 2.0)[1]
        dV = np.outer(e, y[d : d + k]) + np.outer(P @ y[d + k : 2 * d + k - 1], t)
        if zeros and rest.any():
            dV += y[-1] / frobenius(rest) * rest
        direction = Direction(y[:d], dV)
    return Curvature(lambda_min, direction, max(zeros - 1, 0))


# --- Against linear predictors ----------------------------------------------------------------------------


@dataclass(frozen=True)
class RegularizedLinearObjective(LinearObjective):
    """F_lin + l2·‖w‖²: the objective at V = 0."""

    def at(self, w: Array) -> Moments:
        at, l2 = super().at(w), self.problem.l2
        A = at.A.center + 2.0 * l2 * np.eye(len(w))
        rounding = 2 * U * (frobenius(np.diagonal(A)) + 2.0 * l2)
        return replace(
            at,
            F=at.F + norm(w).square() * l2,
            g_w=_shifted(at.g_w, Enclosure.exact(l2) * 2.0, w),
            A=Ball(A, inflate(at.A.radius + rounding)),
        )

    def sketch(self, w: Array) -> Sketch:
        at, l2 = super().sketch(w), self.problem.l2
        penalty = l2 * float(w @ w)
        return Sketch(
            at.value + penalty,
            at.noise + NOISE * penalty,
            at.g + 2.0 * l2 * w,
            at.A + 2.0 * l2 * np.eye(len(w)),
        )

    def may_be_unattained(self) -> bool:
        return False  # strongly convex

    def decreases_along(self, w: Array) -> bool:
        return False


def objective_lin_min(problem: Problem, r: float, F_lin_min: Enclosure) -> Enclosure:
    """The least G at V = 0: min F_lin(w) + l2·‖w‖² over ‖w‖ ≤ norm, or over all w without a constraint.

    Without one, G_lin is 2·l2-strongly convex: G_lin ≥ G_lin(û) − ‖∇G_lin(û)‖²/(4·l2) for any û; for a
    nonnegative loss G_lin ≥ 0, which says more for a tiny l2.

    Args:
        r, F_lin_min: min F_lin over ‖w‖ ≤ r; that is the answer for a plain problem.
    """
    if problem.is_plain:
        return F_lin_min
    function = RegularizedLinearObjective(problem) if problem.l2 else LinearObjective(problem)
    if problem.constraint is not None:
        return minimum_on_ball(function, problem.constraint.norm, r).F_min
    at = function.at(minimum_on_ball(function, None, r).w_star.center)
    below = at.g_w.norm().square() / (Enclosure.exact(problem.l2) * 4.0)
    least = max((at.F - below).lower, 0.0 if problem.loss.nonnegative else -math.inf)
    return Enclosure(at.F.value, min(least, at.F.upper), at.F.upper)


def regularized_here(
    problem: Problem,
    judged: Lagrangian,
    here: Moments,
    linear: LinearMinimum,
    distance: Enclosure,
    turned: Enclosure,
) -> Regularized | None:
    """The part of the report about G; None for a plain problem.

    Args:
        distance, turned: ‖w − w*‖ and ‖Vᵀw*‖.
    """
    if problem.is_plain:
        return None
    w, V = Ball(problem.point.w, 0.0), problem.point.V
    bound = None
    if w.center.any():
        bound = proposition_R(
            judged.rho,
            norm(w.center),
            inner(linear.w_star, w),
            inner(product(V.T, linear.w_star), product(V.T, w)),
            judged.gradient_norm,
            distance,
            turned,
        )
    return Regularized(
        problem.l2,
        None if problem.constraint is None else problem.constraint.norm,
        length(problem),
        objective(problem, here.F),
        objective_lin_min(problem, linear.r, linear.F_min),
        judged.multiplier is not None,
        judged.multiplier,
        bound,
    )
