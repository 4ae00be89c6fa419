"""The main job, in the paper's order: a problem goes in, a report with proven numbers comes out."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np

from resnet_cert.compare.augmented import augmented_here, joined, network_radius
from resnet_cert.compare.consequences import (
    gap_bounds_here,
    not_plain,
    theorem1_here,
    theorem2_here,
    theorem3_here,
)
from resnet_cert.compare.minimum_on_ball import best_linear_predictor
from resnet_cert.decide.crosscheck import crosscheck
from resnet_cert.decide.definition1 import corollary1_verdict, definition1, threshold
from resnet_cert.decide.hessian import Curvature, curvature, decided, hessian_exceeds, refuting_direction
from resnet_cert.decide.lagrangian import lagrangian, regularized_here
from resnet_cert.moments.domain import domain_radius, lipschitz_claims
from resnet_cert.moments.moments import Moments, residual
from resnet_cert.moments.one_pass import observe
from resnet_cert.numerics.eigenvalues import spectral_norm
from resnet_cert.numerics.enclosure import QUIET, Ball, Enclosure, difference, norm, product
from resnet_cert.numerics.selftest import require_sound_arithmetic
from resnet_cert.outcomes import RequestError, Verdict
from resnet_cert.problem.custom_loss import CustomLoss, assumption1_fault
from resnet_cert.problem.losses import BuiltinLoss, Loss
from resnet_cert.problem.problem import Point, Problem
from resnet_cert.results import (
    Augmented,
    BoundConstants,
    Corollary1,
    Gradient,
    Hessian,
    Objective,
    Report,
    Seconds,
    Size,
    Source,
    versions,
)
from resnet_cert.theory import theorems
from resnet_cert.vector.problem import VectorProblem

ESCALATION_WORK = 5 * 10**7
"""Largest n(d + k)² for which an undecided check goes on in ball arithmetic by itself: some seconds,"""
ESCALATION_SIZE = 256
"""if also d + k is at most this: the factorisation of S(t) takes its cube."""


@dataclass(frozen=True)
class Examination:
    """A report and what it was made from.

    problem: with its features held, and a loss whose functions are those of the arithmetic.  moments: at its
    point.  curvature: of F there; its direction refutes what the report calls refuted by the curvature.
    """

    report: Report
    problem: Problem
    moments: Moments
    curvature: Curvature


def check(
    problem: Problem | VectorProblem,
    *,
    spec: Source | None = None,
    arithmetic: Literal["float64", "ball"] = "float64",
    escalate: bool = True,
    augmented: bool = False,
) -> Report:
    """Is the point an ε-second-order partial stationary point, and what do the theorems say about it?

    Every `Enclosure` of the report holds the exact value for the given float64 data and features; the
    verdicts follow from them alone, or from ball arithmetic.

    Args:
        arithmetic: "ball" evaluates the loss in Arb, assuming nothing of exp and log, and decides there
            (see `ball`; needs python-flint).
        escalate: go on in ball arithmetic by itself where float64 leaves the verdict open, if that takes
            seconds only.
        augmented: compare with the best linear predictor on (x, f_θ(x)) too: one more minimisation.
    Raises:
        RequestError: the loss violates Assumption 1 at one of the predictions, or ball arithmetic is asked
            for without python-flint, with a custom loss or under a constraint.
        InternalError: autodiff of the objective contradicts the moments.
    Source: Shamir 2018, Definition 1, Theorems 1–3, Corollary 1.
    """
    if isinstance(problem, VectorProblem):
        from resnet_cert.vector.check import check_vector

        return check_vector(problem, spec=spec, arithmetic=arithmetic, augmented=augmented)
    return examine(problem, spec=spec, arithmetic=arithmetic, escalate=escalate, augmented=augmented).report


@QUIET
def examine(
    problem: Problem,
    *,
    spec: Source | None = None,
    arithmetic: Literal["float64", "ball"] = "float64",
    escalate: bool = True,
    augmented: bool = False,
) -> Examination:
    """`check`, with what a certificate or a witness is made from."""
    started = time.perf_counter()
    require_sound_arithmetic()
    problem = problem.with_features_held()
    if arithmetic == "ball":
        if problem.constraint is not None:
            raise RequestError("expected no constraint for ball arithmetic, got constraint.norm")
        problem = replace(problem, loss=with_ball_functions(problem.loss))
    w, V, eps = problem.point.w, problem.point.V, problem.epsilon
    norm_w, norm_V = norm(w), spectral_norm(V)

    b = domain_radius(problem, norm_w, norm_V)
    require_assumption1(problem, problem.point, Point(np.zeros_like(w), V))
    linear = best_linear_predictor(problem, problem.domain.r, b)
    require_assumption1(problem, Point(linear.w_star.center, np.zeros_like(V)))
    seen = observe(problem, b)
    constants = lipschitz_claims(problem, seen.lipschitz, b, linear.r)
    moments = here = seen.here
    origin = seen.origin

    limit = threshold(constants.mu2, eps)
    bent = curvature(here, w)
    if problem.is_plain and w.any():
        bent = decided(bent, limit, lambda t: hessian_exceeds(here, w, t))
    judged = lagrangian(problem, here, bent)  # of F itself, unless it is regularised or constrained
    verdicts = definition1(judged.gradient_norm, judged.lambda_min, eps, constants.mu2)
    undecided = verdicts.verdict is Verdict.UNDECIDED
    if arithmetic == "ball" or (undecided and escalate and is_affordable(problem)):
        from resnet_cert.decide import ball

        arithmetic = "ball"
        finer = ball.decide(problem, cast(BuiltinLoss, problem.loss), constants.mu2)
        before = verdicts.curvature
        verdicts = definition1(judged.gradient_norm, judged.lambda_min, eps, constants.mu2, finer.proven)
        here = replace(here, F=here.F.intersect(finer.F.lower, finer.F.upper))
        narrow = narrowed(judged.lambda_min, verdicts.curvature, limit)
        judged = replace(judged, gradient_norm=finer.gradient_norm, lambda_min=narrow)
        moments = finer.moments
        if problem.is_plain:
            bent = replace(bent, lambda_min=narrow)
        if limit is not None and before is not verdicts.curvature is Verdict.REFUTED:
            bent = replace(bent, direction=refuting_direction(moments, w, limit.upper))
    gradient_norm, lambda_min = judged.gradient_norm, judged.lambda_min
    m = (-lambda_min).positive_part()
    gap = here.F - linear.F_min
    if verdicts.verdict is Verdict.CERTIFIED and eps == 0.0 and problem.is_plain:
        gap = gap.intersect(upper=0.0)  # Corollary 1

    # Distances to w*, known to lie within linear.w_star.radius of its centre and in the ball.
    w_star = linear.w_star
    norm_w_star = linear.norm
    distance = difference(Ball(w, 0.0), w_star).norm()
    distance = distance.intersect(0.0, max((norm_w + linear.r).upper, distance.lower))
    turned = product(V.T, w_star).norm()
    turned = turned.intersect(0.0, max((norm_V * linear.r).upper, turned.lower))
    F_bent = (-bent.lambda_min).positive_part()

    report = Report(
        name=problem.name,
        spec=spec or Source(),
        versions=versions(arithmetic),
        problem=Size(
            problem.n, problem.d, problem.k, w.size + V.size, problem.loss.name, norm_w.value, norm_V.value
        ),
        epsilon=eps,
        verdict=verdicts.verdict,
        reasons=(*verdicts.reasons, *next_steps(problem, verdicts.verdict, arithmetic)),
        objective=Objective(here.F, linear.F_min, gap, norm_w_star.value, linear.attained),
        gradient=Gradient(gradient_norm, judged.gradient_w, judged.gradient_V, verdicts.gradient),
        hessian=Hessian(lambda_min, limit, judged.zero_multiplicity, judged.method, verdicts.curvature),
        smallest_epsilon=theorems.smallest_epsilon(gradient_norm, m, constants.mu2),
        constants=constants,
        theorem1=theorem1_here(problem, gap, gradient_norm, norm_w, norm_V, norm_w_star, distance, turned),
        theorem2=theorem2_here(problem, origin, linear, norm_w_star, norm_V),
        theorem3=theorem3_here(problem, constants, verdicts.verdict, gap, linear),
        corollary1=Corollary1(corollary1_verdict(gap)),
        gap_bounds=gap_bounds_here(here, w, V, F_bent, linear, distance, turned),
        crosscheck=crosscheck(problem, here, judged),
        regularized=regularized_here(problem, judged, here, linear, distance, turned),
        augmented=against_augmented(problem, here, gradient_norm) if augmented else None,
    )
    require_sound_arithmetic()  # what was imported or called since may have changed it
    report = replace(report, seconds=Seconds(time.perf_counter() - started))
    return Examination(report, problem, moments, bent)


@QUIET
def bound_constants(problem: Problem) -> tuple[BoundConstants, Enclosure]:
    """The constants of Theorem 3 for a problem, and its min F_lin.

    Raises:
        RequestError: a Lipschitz constant is neither given nor computable, or Theorem 3 does not apply.
    """
    reason = not_plain(problem)
    if reason is not None:
        raise RequestError(f"Theorem 3 does not apply: {reason}")
    problem = problem.with_features_held()
    b = domain_radius(problem, norm(problem.point.w), spectral_norm(problem.point.V))
    linear = best_linear_predictor(problem, problem.domain.r, b)
    claims = lipschitz_claims(problem, observe(problem, b).lipschitz, b, linear.r)
    missing = [name for name in ("mu0", "mu1", "mu2") if getattr(claims, name) is None]
    if missing:
        raise RequestError(
            f"expected {', '.join(missing)}: not known for the loss {problem.loss.name}; give them"
        )
    mu0, mu1, mu2 = (cast(float, mu) for mu in (claims.mu0, claims.mu1, claims.mu2))
    return BoundConstants(b, linear.r, mu0, mu1, mu2, problem.d), linear.F_min


def against_augmented(problem: Problem, here: Moments, gradient_norm: Enclosure) -> Augmented:
    """The comparison with the best linear predictor on (x, f_θ(x)); see `Augmented` for its ball."""
    wider = joined(problem)
    best = best_linear_predictor(wider, None, network_radius(problem))
    require_assumption1(wider, Point(best.w_star.center, wider.point.V))
    return augmented_here(problem, here, gradient_norm, best)


def narrowed(lambda_min: Enclosure, verdict: Verdict, limit: Enclosure | None) -> Enclosure:
    """λ_min, known besides to lie above or below −threshold."""
    if limit is None or verdict is Verdict.UNDECIDED:
        return lambda_min
    if verdict is Verdict.CERTIFIED:
        return lambda_min.intersect(lower=0.0 - limit.upper)
    return lambda_min.intersect(upper=0.0 - limit.lower)


def with_ball_functions(loss: Loss) -> Loss:
    """The same loss with its elementary functions evaluated in ball arithmetic.

    Raises:
        RequestError: the loss is a custom one, or python-flint is not installed.
    """
    if not isinstance(loss, BuiltinLoss):
        raise RequestError(f"expected a built-in loss for ball arithmetic, got {loss.name}")
    if not has_flint():
        raise RequestError("ball arithmetic needs python-flint: pip install 'resnet-cert[verify]'")
    from resnet_cert.decide import ball

    return replace(loss, functions=ball.elementary())


def has_flint() -> bool:
    return importlib.util.find_spec("flint") is not None


def is_affordable(problem: Problem) -> bool:
    """Ball arithmetic is there and takes seconds only."""
    size = problem.d + problem.k
    small = problem.n * size**2 <= ESCALATION_WORK and size <= ESCALATION_SIZE
    known = isinstance(problem.loss, BuiltinLoss) and problem.constraint is None
    return small and known and has_flint()


def next_steps(problem: Problem, verdict: Verdict, arithmetic: str) -> tuple[str, ...]:
    """What may decide an undecided point."""
    if isinstance(problem.loss, CustomLoss):
        why = problem.loss.why_unknown()
        return (why,) if why and verdict is Verdict.UNDECIDED else ()
    if verdict is not Verdict.UNDECIDED or arithmetic == "ball" or not isinstance(problem.loss, BuiltinLoss):
        return ()
    if problem.constraint is not None:
        return ()
    if not has_flint():
        return ("ball arithmetic decides finer margins: pip install 'resnet-cert[verify]'",)
    return ("--arithmetic ball decides finer margins",)


def require_assumption1(problem: Problem, *points: Point) -> None:
    """Refuse a custom loss that is not convex and smooth at the predictions of some point."""
    if isinstance(problem.loss, BuiltinLoss):  # convex and smooth by their formulas
        return
    first = 0
    for chunk in problem.chunks():
        for point in points:
            p = residual(chunk, point.V).h @ point.w
            fault = assumption1_fault(problem.loss, p, chunk.y, first)
            if fault:
                raise RequestError(fault)
        first += len(chunk.y)
