"""The second opinion: autodiff of the objective as the paper writes it, against the moments."""

from __future__ import annotations

import math
from itertools import chain

import numpy as np

from resnet_cert.decide.decision import Decision, FirstOrder
from resnet_cert.decide.hessian import hessian_size, second_derivative
from resnet_cert.decide.lagrangian import decayed, shift_of, sphere_of
from resnet_cert.decide.objective import Objective, flat
from resnet_cert.moments.gradient import curvature_along
from resnet_cert.moments.lipschitz import LipschitzConstants
from resnet_cert.numerics.algebra import eigvalsh
from resnet_cert.numerics.enclosure import QUIET, Array, Enclosure, norm
from resnet_cert.numerics.radius import Radius, U, total
from resnet_cert.outcomes import InternalError
from resnet_cert.problem.custom_loss import CustomLoss
from resnet_cert.problem.problem import Direction, Problem
from resnet_cert.results import CrossCheck

ROUNDING_ALLOWANCE = 1e4
"""How many of our own radii autodiff in float64 may be off: it has no bound, but errs on their scale."""
LEAST, MOST = 2.0**-250, 2.0**250


@QUIET
def crosscheck(
    problem: Problem, here: FirstOrder, decision: Decision, lipschitz: LipschitzConstants | None
) -> CrossCheck:
    """Autodiff of the objective as written, compared with every number that it can speak of.

    Our radii are relative to a derivative, even where it is e^{−50}; autodiff takes it from numbers of the
    size of the largest one on the domain, μ0 or μ1, and errs on that scale.

    Args:
        here: the moments in float64.
    Raises:
        InternalError: they differ by more than the enclosure and a rounding allowance.
    """
    at, direction = decision.slope, _unit(decision.curvature.direction)
    G = Objective(problem)
    autodiff = G.along(direction)
    z, gradient = flat(decayed(problem)), flat(autodiff.gradient)
    curvature = float(flat(direction) @ flat(autodiff.product))
    hessian = G.dense_hessian()
    if at.multiplier is not None:  # of G + (μ/2)‖z‖², μ = max(0, −⟨∇G, z⟩/‖z‖²)
        on = flat(Direction(np.broadcast_to(problem.decayed, problem.W.shape), np.ones_like(problem.V)))
        size = float(Radius.norm(z))
        mu = max(0.0, -float(gradient @ (z / size)) / size)
        gradient, curvature = gradient + mu * z, curvature + mu * float(on @ flat(direction) ** 2)
        hessian = None if hessian is None else hessian + mu * np.diag(on)
    gradient_norm = float(Radius.norm(gradient))

    reach, mu0, mu1 = Radius.norm(problem.W[:, : problem.d1]).at_least(1.0), 0.0, 0.0
    if lipschitz is not None:
        mu0, mu1 = lipschitz.mu0, lipschitz.mu1
    first = total(here.g_W.radius, reach * here.A_f.radius, Radius.of(mu0) * U)
    along, second = _along(problem, here, decision, direction)
    second = total(second, here.A_f.radius * 2.0, Radius.of(mu1) * U)
    if not problem.is_plain:
        spread = Radius.of((at.rho - at.rho.lower).upper) + Radius.of(at.rho.magnitude) * U
        first, second = first + spread * Radius.norm(z), second + spread
    lambda_min = _smallest(hessian, flat(sphere) if (sphere := sphere_of(problem, at)) else None)
    first, second = first * ROUNDING_ALLOWANCE, second * ROUNDING_ALLOWANCE
    penalty, value = problem.objective.l2 * float(z @ z), None
    if isinstance(problem.loss, CustomLoss):  # a built-in one is good where plain formulas lose all digits
        value = autodiff.value - penalty
    length = Radius.norm(z)
    size = Radius.of(here.F.magnitude) + length * length * problem.objective.l2
    rounding = Radius.of((here.F - here.F.lower).upper) + size * U
    require_agreement(
        problem,
        ("objective", value, here.F, float(rounding * ROUNDING_ALLOWANCE)),
        ("gradient norm", gradient_norm, at.norm, float(first)),
        ("curvature along the witness", curvature, along, float(second)),
        ("smallest Hessian eigenvalue", lambda_min, decision.curvature.lambda_min, float(second)),
    )
    return CrossCheck(gradient_norm, curvature, lambda_min)


def _unit(direction: Direction) -> Direction:
    length = float(Radius.norm(flat(direction))) or 1.0
    return Direction(direction.dW / length, direction.dV / length)


def _along(
    problem: Problem, here: FirstOrder, decision: Decision, direction: Direction
) -> tuple[Enclosure, Radius]:
    """D²L along a unit direction as the moments have it, and the scale on which they err."""
    moments = decision.moments
    if moments is None:
        second = curvature_along(problem, direction, here.A_f)
        error = Radius.of((second - second.lower).upper)
    else:
        second = second_derivative(moments, problem.W, problem.d1, direction)
        reach = Radius.norm(problem.W[:, : problem.d1]).at_least(1.0)
        error = moments.Q.radius * reach * reach
        error = error + hessian_size(moments, problem.W, problem.d1) * U
    length = norm(direction.dW).square() + norm(direction.dV).square()
    if not length.lower > 0.0:
        return second, error
    return (second + shift_of(problem, decision.slope).along(direction)) / length, error


def _smallest(hessian: Array | None, z: Array | None) -> float | None:
    """λ_min, on z^⊥ if there is a z."""
    if hessian is None or not np.isfinite(hessian).all():
        return None
    if z is not None:
        basis = np.linalg.qr(np.column_stack([z, np.eye(len(z))]))[0][:, 1:]
        hessian = basis.T @ hessian @ basis
    return float(eigvalsh(hessian)[0]) if len(hessian) else None


def require_agreement(problem: Problem, *numbers: tuple[str, float | None, Enclosure, float]) -> None:
    """Raises InternalError where a number by autodiff lies outside our enclosure of it and the allowance.

    Not where the problem is not `is_moderate`: autodiff may be right or wrong there.

    Args:
        numbers: what it is, its value by autodiff, our enclosure, the allowance.
    """
    for what, value, ours, allowance in numbers:
        if value is None or not (math.isfinite(value) and ours.known and math.isfinite(allowance)):
            continue
        if not ours.lower - allowance <= value <= ours.upper + allowance and is_moderate(problem):
            raise InternalError(
                f"autodiff gives the {what} {value!r}, outside "
                f"[{ours.lower!r}, {ours.upper!r}] ± {allowance:.1e}"
            )


def is_moderate(problem: Problem) -> bool:
    """No number but 0 is smaller than LEAST or larger than MOST: XLA flushes what is below 2^-1022 to 0, and
    so may lose all of a product, or of the summand of a loss, beside large factors."""
    point = (part for part in vars(problem.point).values() if part is not None)
    samples = (part for chunk in problem.chunks() for part in vars(chunk).values() if part is not None)
    sizes = map(np.abs, chain([getattr(problem.loss, "scale", 1.0)], point, samples))
    return all(bool(np.all((size == 0.0) | ((size >= LEAST) & (size <= MOST)))) for size in sizes)
