"""The main job for several outputs, in the order of the paper: a problem goes in, a report comes out."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Literal

from resnet_cert.decide.definition1 import definition1, threshold
from resnet_cert.decide.hessian import decided
from resnet_cert.moments.domain import domain_radius, lipschitz_claims
from resnet_cert.numerics.eigenvalues import spectral_norm
from resnet_cert.numerics.enclosure import QUIET, Ball
from resnet_cert.numerics.matrices import times
from resnet_cert.numerics.selftest import require_sound_arithmetic
from resnet_cert.outcomes import RequestError
from resnet_cert.results import Gradient, Hessian, Objective, Report, Seconds, Size, Source, versions
from resnet_cert.theory import theorems
from resnet_cert.vector.consequences import (
    THEOREM3,
    comparator,
    corollary1_here,
    gap_bounds_here,
    theorem1_here,
    theorem2_here,
)
from resnet_cert.vector.hessian import curvature, hessian_exceeds, reduction
from resnet_cert.vector.linear_predictor import best_linear_predictor
from resnet_cert.vector.moments import observe
from resnet_cert.vector.objective import crosscheck
from resnet_cert.vector.problem import VectorProblem


@QUIET
def check_vector(
    problem: VectorProblem,
    *,
    spec: Source | None = None,
    arithmetic: Literal["float64", "ball"] = "float64",
    augmented: bool = False,
) -> Report:
    """Is the point an ε-second-order partial stationary point, and what do the theorems say about it?

    Every `Enclosure` of the report holds the exact value for the given float64 data and features.  norm_w and
    norm_V are spectral norms, norm_w_star is ‖W*‖_F.

    Raises:
        RequestError: ball arithmetic or the comparison on (x, f_θ(x)) is asked for: there they are not.
        InternalError: autodiff of the objective contradicts the moments.
    Source: Shamir 2018, Definition 1; for the theorems, `vector.theorems`.
    """
    started = time.perf_counter()
    for asked, what in ((arithmetic == "ball", "ball arithmetic"), (augmented, "the augmented comparison")):
        if asked:
            raise RequestError(f"expected one output for {what}, got q = {problem.q}")
    require_sound_arithmetic()
    problem = problem.with_features_held()
    W, V, eps = problem.point.W, problem.point.V, problem.epsilon
    norm_W, norm_V = spectral_norm(W), spectral_norm(V)

    b = domain_radius(problem, norm_W, norm_V)
    linear = best_linear_predictor(problem, problem.domain.r, b)
    seen = observe(problem, b)
    constants = lipschitz_claims(problem, seen.lipschitz, b, linear.r)
    here, parts = seen.here, reduction(seen.here, W)

    gradient_W = here.g_W.norm()
    gradient_V = times(Ball(here.A_f.center.T, here.A_f.radius), W).norm()
    gradient_norm = theorems.hypot(gradient_W, gradient_V)
    limit = threshold(constants.mu2, eps)
    bent = decided(curvature(parts), limit, lambda t: hessian_exceeds(parts, t))
    lambda_min = bent.lambda_min
    verdicts = definition1(gradient_norm, lambda_min, eps, constants.mu2)
    m = (-lambda_min).positive_part()
    gap = here.F - linear.F_min
    star = comparator(problem, linear)

    report = Report(
        name=problem.name,
        spec=spec or Source(),
        versions=versions("float64"),
        problem=Size(
            n=problem.n,
            d=problem.d,
            k=problem.k,
            parameters=W.size + V.size,
            loss=problem.loss.name,
            norm_w=norm_W.value,
            norm_V=norm_V.value,
            outputs=problem.q,
        ),
        epsilon=eps,
        verdict=verdicts.verdict,
        reasons=verdicts.reasons,
        objective=Objective(here.F, linear.F_min, gap, linear.norm.value, linear.attained),
        gradient=Gradient(gradient_norm, gradient_W, gradient_V, verdicts.gradient),
        hessian=Hessian(lambda_min, limit, bent.zero_multiplicity, "reduced", verdicts.curvature),
        smallest_epsilon=theorems.smallest_epsilon(gradient_norm, m, constants.mu2),
        constants=constants,
        theorem1=theorem1_here(problem, gap, gradient_norm, star),
        theorem2=theorem2_here(problem, seen.origin, linear),
        theorem3=THEOREM3,
        corollary1=corollary1_here(problem, constants, gap, gradient_norm, lambda_min),
        gap_bounds=gap_bounds_here(problem, here, parts, m, linear, star),
        crosscheck=crosscheck(problem, seen, gradient_norm, parts, bent),
    )
    require_sound_arithmetic()  # what was imported or called since may have changed it
    return replace(report, seconds=Seconds(time.perf_counter() - started))
