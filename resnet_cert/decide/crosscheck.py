"""The second opinion: autodiff of the objective as the paper writes it, against the moments."""

from __future__ import annotations

import math
from itertools import chain

import numpy as np

from resnet_cert.decide.hessian import rayleigh_quotient
from resnet_cert.decide.lagrangian import Lagrangian
from resnet_cert.decide.objective import autodiff
from resnet_cert.moments.moments import Moments
from resnet_cert.numerics.enclosure import Enclosure, U
from resnet_cert.outcomes import InternalError
from resnet_cert.problem.problem import AnyProblem, Problem
from resnet_cert.results import CrossCheck

ROUNDING_ALLOWANCE = 1e4
"""How many of our own radii autodiff in float64 may be off: it has no bound, but errs on their scale."""
LEAST, MOST = 2.0**-250, 2.0**250


def crosscheck(problem: Problem, here: Moments, judged: Lagrangian) -> CrossCheck:
    """Autodiff of the objective as written, compared with every number that it can speak of.

    Raises:
        InternalError: they differ by more than the enclosure and a rounding allowance.
    """
    w = problem.point.w
    s = float(np.linalg.norm(w))
    on_boundary = judged.multiplier is not None
    auto = autodiff(problem, judged.direction, on_boundary=on_boundary, tangent=judged.tangent is True)
    first = ROUNDING_ALLOWANCE * (here.g_w.radius + s * here.a.radius)
    second = ROUNDING_ALLOWANCE * (
        here.A.radius + 2.0 * s * here.B.radius + s * s * here.C.radius + 2.0 * here.a.radius
    )
    along = rayleigh_quotient(here, w, judged.direction)
    if not problem.is_plain:
        along = along + judged.rho
        size = math.hypot(s, float(np.linalg.norm(problem.point.V)))
        spread = judged.rho.upper - judged.rho.lower + U * judged.rho.upper
        first, second = first + ROUNDING_ALLOWANCE * spread * size, second + ROUNDING_ALLOWANCE * spread
    require_agreement(
        problem,
        ("gradient norm", auto.gradient_norm, judged.gradient_norm, first),
        ("curvature along the witness", auto.curvature, along, second),
        ("smallest Hessian eigenvalue", auto.lambda_min, judged.lambda_min, second),
    )
    return CrossCheck(auto.gradient_norm, auto.curvature, auto.lambda_min)


def require_agreement(problem: AnyProblem, *numbers: tuple[str, float | None, Enclosure, float]) -> None:
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


def is_moderate(problem: AnyProblem) -> bool:
    """No number but 0 is smaller than LEAST or larger than MOST: XLA flushes what is below 2^-1022 to 0, and
    so may lose all of a product, or of the summand of a loss, beside large factors."""
    point = vars(problem.point).values()
    samples = (part for chunk in problem.chunks() for part in vars(chunk).values() if part is not None)
    sizes = map(np.abs, chain([getattr(problem.loss, "scale", 1.0)], point, samples))
    return all(bool(np.all((size == 0.0) | ((size >= LEAST) & (size <= MOST)))) for size in sizes)
