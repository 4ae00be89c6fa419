"""Definition 1 for a regularised objective, on a ball: G = F + l2·‖z‖² subject to ‖z‖ ≤ norm, z = (W, V).

Here ‖z‖² = ‖W‖_F² + ‖V‖_F², a bias that is not decayed left out; z stands for what is decayed.  On the
boundary, with the multiplier μ = −⟨∇G, z⟩/‖z‖², both cases and the case without a constraint are those of one
function,

    L = F + (ρ/2)‖z‖²,   ρ = 2·l2 + max(0, μ)   (μ = 0 inside),   ∇L = ∇F + ρz,   ∇²L = ∇²F + ρ·diag(1 on z):

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

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

import numpy as np

from resnet_cert.decide.hessian import Curvature, Reduction, Shift, curvature
from resnet_cert.numerics.enclosure import (
    QUIET,
    Ball,
    Enclosure,
    added,
    compared,
    inner,
    norm,
    product,
    scaled,
)
from resnet_cert.problem.problem import BOUNDARY_WIDTH, Direction, Problem
from resnet_cert.theory.theorems import hypot


class FirstOrder(Protocol):
    """The moments that ∇F is made of: g_W (q, d) and A_f (q, k)."""

    @property
    def g_W(self) -> Ball: ...

    @property
    def A_f(self) -> Ball: ...


@dataclass(frozen=True)
class Slope:
    """∇L at the problem's point, ∇_W L (q, d) and ∇_V L (d1, k).

    rho: ρ.  multiplier: μ, None inside the ball and without one.  tangent: λ_min is that on z^⊥; None where
    the sign of μ is not known, and λ_min must hold both.
    """

    rho: Enclosure
    multiplier: Enclosure | None
    tangent: bool | None
    of_W: Ball
    of_V: Ball
    norm: Enclosure
    norm_W: Enclosure
    norm_V: Enclosure


@QUIET
def slope(problem: Problem, here: FirstOrder) -> Slope:
    """The gradient that Definition 1 speaks of, from the moments at the problem's point."""
    z, W_1 = decayed(problem), problem.W[:, : problem.d1]
    of_W, of_V = here.g_W, product(W_1.T, here.A_f)
    decay = Enclosure.exact(problem.objective.l2) * 2.0
    multiplier = None
    if on_boundary(problem):
        along = inner(of_W, Ball.exact(z.dW)) + inner(of_V, Ball.exact(z.dV))
        multiplier = -(along / length(problem).square()) - decay
    rho = decay if multiplier is None else decay + multiplier.positive_part()
    tangent: bool | None = False
    if multiplier is not None and multiplier.upper > 0.0:
        tangent = True if multiplier.lower > 0.0 else None
    if rho.upper:
        of_W, of_V = added(of_W, scaled(z.dW, rho)), added(of_V, scaled(z.dV, rho))
        norm_V = of_V.norm()
    else:
        # W_1ᵀA_f of a W_1 with one row is an outer product: nothing is lost in ‖w_1‖‖a‖.
        norm_V = norm(W_1) * here.A_f.norm() if problem.q == 1 else of_V.norm()
    norm_W = of_W.norm()
    return Slope(rho, multiplier, tangent, of_W, of_V, hypot(norm_W, norm_V), norm_W, norm_V)


@dataclass(frozen=True)
class Lagrangian:
    """∇L and ∇²L at the problem's point: what Definition 1 speaks of.

    of_F: the curvature of F itself, on the whole space.
    """

    slope: Slope
    curvature: Curvature
    of_F: Curvature

    @property
    def gradient_norm(self) -> Enclosure:
        return self.slope.norm

    @property
    def lambda_min(self) -> Enclosure:
        return self.curvature.lambda_min

    @property
    def direction(self) -> Direction:
        return self.curvature.direction

    @property
    def rho(self) -> Enclosure:
        return self.slope.rho


def lagrangian(problem: Problem, at: Slope, parts: Reduction) -> Lagrangian:
    """The curvature, from the moments at the problem's point, reduced.

    Args:
        parts: of F; on a sphere without an N.
    """
    of_F, shift = curvature(parts), shift_of(problem, at)
    if at.tangent is None:  # both hold: the least of the one and the largest of the other
        decay = Enclosure.exact(problem.objective.l2) * 2.0
        whole = curvature(parts, Shift(decay, problem.decayed))
        on_sphere = curvature(parts, shift, decayed(problem))
        lower, upper = whole.lambda_min.lower, on_sphere.lambda_min.upper
        lambda_min = Enclosure(whole.lambda_min.value, lower, max(lower, upper))
        return Lagrangian(at, replace(whole, lambda_min=lambda_min), of_F)
    if at.tangent:
        on_sphere = curvature(parts, shift, decayed(problem))
        return Lagrangian(at, replace(on_sphere, method="reduced, on the tangent space of the sphere"), of_F)
    if problem.decayed.all():
        return Lagrangian(at, shifted(of_F, at.rho), of_F)
    return Lagrangian(at, curvature(parts, shift), of_F)


def shifted(of_F: Curvature, rho: Enclosure) -> Curvature:
    """That of L, where all of (W, V) is decayed."""
    return replace(of_F, lambda_min=of_F.lambda_min + rho) if rho.upper else of_F


def shift_of(problem: Problem, at: Slope) -> Shift:
    """What ∇²L has beyond ∇²F."""
    return Shift(at.rho, problem.decayed)


def sphere_of(problem: Problem, at: Slope) -> Direction | None:
    """z, where λ_min is that on z^⊥."""
    return decayed(problem) if at.tangent else None


def decayed(problem: Problem) -> Direction:
    """z: the point, with 0 for a bias that is not decayed."""
    return Direction(problem.W * problem.decayed, problem.V)


def on_boundary(problem: Problem) -> bool:
    """‖z‖ is the norm of the constraint, to BOUNDARY_WIDTH."""
    most = problem.objective.norm
    if most is None:
        return False
    z = decayed(problem)
    entries = np.concatenate([z.dW.ravel(), z.dV.ravel()])
    return compared(entries, Fraction(most) * Fraction(1.0 - BOUNDARY_WIDTH)) >= 0


def length(problem: Problem) -> Enclosure:
    """‖z‖."""
    z = decayed(problem)
    return hypot(norm(z.dW), norm(z.dV))


def objective(problem: Problem, F: Enclosure) -> Enclosure:
    """G = F + l2·‖z‖²."""
    l2 = problem.objective.l2
    return F + length(problem).square() * l2 if l2 else F
