"""The main job, in the paper's order: a problem goes in, a report with proven numbers comes out.

decide: Definition 1 at the point.  compare: the best linear predictors and what the theorems say beside them.
report: both as plain data.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from resnet_cert.compare.assumption import (
    open_bounds,
    open_comparator,
    open_corollary,
    open_regularized,
    open_theorem,
    why_open,
)
from resnet_cert.compare.augmented import augmented_here, best_augmented, block_gap, of_like_size
from resnet_cert.compare.break_even import break_even_radius
from resnet_cert.compare.comparators import comparators_here
from resnet_cert.compare.consequences import (
    bound_symbols,
    corollary1_here,
    gap_bounds_here,
    not_plain,
    theorem1_here,
    theorem2_here,
    theorem3_here,
)
from resnet_cert.compare.linear_minimum import LinearMinimum, without_convexity
from resnet_cert.compare.minimum_on_ball import best_linear_predictor
from resnet_cert.compare.population import population_here
from resnet_cert.compare.regularized import least_on_ball, regularized_here
from resnet_cert.compare.star import Star, seen_from
from resnet_cert.decide.crosscheck import crosscheck
from resnet_cert.decide.decision import (
    Arithmetic,
    Decision,
    FirstOrder,
    decide,
    observed,
    with_ball_functions,
)
from resnet_cert.decide.hessian import curvature, reduction
from resnet_cert.moments.domain import domain_radius, lipschitz_claims
from resnet_cert.moments.gradient import first_moments
from resnet_cert.moments.moments import Moments
from resnet_cert.moments.one_pass import Observed, observe
from resnet_cert.numerics.eigenvalues import largest_eigenvalue
from resnet_cert.numerics.enclosure import QUIET, Enclosure, norm, product
from resnet_cert.numerics.selftest import require_sound_arithmetic
from resnet_cert.numerics.threads import small_algebra_within
from resnet_cert.outcomes import RequestError, Verdict
from resnet_cert.problem.convexity import with_assumption1
from resnet_cert.problem.problem import Problem, Support
from resnet_cert.problem.span import gradient_basis, span
from resnet_cert.results import (
    Assumption1,
    BoundConstants,
    Constants,
    GapBounds,
    Gradient,
    Hessian,
    Objective,
    Report,
    Seconds,
    Size,
    Source,
    Theorem2,
    versions,
)
from resnet_cert.theory import theorems

BREAK_EVEN_WORK, BLOCK_WORK = 10**8, 5 * 10**8
"""Largest n(qd)², but for squared losses, and n(q(d + k))², for these without q, for which break-even radius
and block gap are computed without being asked for."""


@dataclass(frozen=True)
class Examination:
    """A report and what it was made from.

    problem: with its features held, and a loss whose functions are those of the arithmetic.  seen: the pass
    over its data.  linear: the best linear predictor.
    """

    report: Report
    problem: Problem
    seen: Observed
    decision: Decision
    linear: LinearMinimum


def check(
    problem: Problem,
    *,
    spec: Source | None = None,
    arithmetic: Arithmetic = "float64",
    escalate: bool = True,
    augmented: bool = False,
    break_even: bool | None = None,
    population: Support | None = None,
    client: Any = None,
) -> Report:
    """Is the point an ε-second-order partial stationary point, and what do the theorems say about it?

    Every `Enclosure` of the report holds the exact value for the given float64 data and features; the
    verdicts follow from them alone, or from ball arithmetic.

    Args:
        arithmetic: "ball" evaluates the loss in Arb, assuming nothing of exp and log, and decides there
            (see `decide.ball`; needs python-flint).
        escalate: go on in ball arithmetic by itself where float64 leaves the verdict open, if that takes
            seconds only.
        augmented: compare with the best linear predictor on (x, f_θ(x)) too: one more minimisation.
        break_even: how large a linear predictor must be to do as well, and how much better any (W, V) can do
            with these features; None: where that takes a moment.
        population: what the data are an independent hold-out sample of: a section of statistical statements.
        client: a `distributed.Client`, whose workers add up over the samples.
    Raises:
        RequestError: the loss violates Assumption 1, the exact Hessian is asked for and too large, or ball
            arithmetic is asked for without python-flint or with a custom loss.
        InternalError: autodiff of the objective contradicts the moments.
    Source: Shamir 2018, Definition 1, Theorems 1–3, Corollary 1.
    """
    return examine(
        problem,
        spec=spec,
        arithmetic=arithmetic,
        escalate=escalate,
        augmented=augmented,
        break_even=break_even,
        population=population,
        client=client,
    ).report


@QUIET
@small_algebra_within
def examine(
    problem: Problem,
    *,
    spec: Source | None = None,
    arithmetic: Arithmetic = "float64",
    escalate: bool = True,
    augmented: bool = False,
    break_even: bool | None = None,
    population: Support | None = None,
    client: Any = None,
) -> Examination:
    """`check`, with what a certificate or a witness is made from."""
    started = time.perf_counter()
    require_sound_arithmetic()
    if client is not None:
        from resnet_cert.moments.executors import on_cluster

        problem = on_cluster(problem, client)
    problem = problem.with_features_held()
    if arithmetic == "ball":
        problem = replace(problem, loss=with_ball_functions(problem.loss))
    b = domain_radius(problem)
    linear = best_linear_predictor(problem, problem.domain.r, b)
    problem, convex = with_assumption1(problem, b, linear.r)
    seen = observed(problem, b)
    constants = lipschitz_claims(problem, seen.lipschitz, b, linear.r)
    decision = decide(
        problem,
        seen.here,
        constants.mu2,
        second_moments=lambda: observe(problem, b).here,
        mu1=None if seen.lipschitz is None else seen.lipschitz.mu1,
        arithmetic=arithmetic,
        escalate=escalate,
    )
    gap_of_block = break_even
    if break_even is None:
        is_quadratic = problem.loss.concordance == 0.0
        rows = 1 if is_quadratic else problem.q  # of the Hessian that are not alike
        work, block = (problem.n * (rows * size) ** 2 for size in (problem.d, problem.d + problem.k))
        break_even = work <= BREAK_EVEN_WORK or is_quadratic
        gap_of_block = break_even and block <= BLOCK_WORK
    report = Report(
        name=problem.name,
        spec=spec or Source(),
        versions=versions(decision.arithmetic),
        problem=size(problem, convex),
        epsilon=problem.epsilon,
        verdict=decision.verdict,
        reasons=decision.reasons,
        crosscheck=crosscheck(problem, seen.here, decision, seen.lipschitz),
        **decided(problem, decision, constants),
        **compared(
            problem,
            seen,
            decision,
            constants,
            linear,
            convex,
            augmented=augmented,
            break_even=break_even,
            gap_of_block=bool(gap_of_block),
        ),
        population=None
        if population is None
        else population_here(problem, population, first_moments(problem), linear.r, b),
    )
    require_sound_arithmetic()  # what was imported or called since may have changed it
    report = replace(report, seconds=Seconds(time.perf_counter() - started))
    examined = Examination(report, problem, seen, decision, linear)
    return replace(examined, report=replace(report, _made_from=examined))


def certify(problem: Problem, path: str | Path, *, arithmetic: Arithmetic = "float64") -> Report:
    """`check`, with its certificate written to `path` and its data beside it: what `verify` decides again."""
    report = check(problem, arithmetic=arithmetic)
    report.certificate(path)
    return report


def size(problem: Problem, convex: Assumption1) -> Size:
    """What the problem is, and where its point lies."""
    return Size(
        n=problem.n,
        d=problem.d1,
        k=problem.k,
        parameters=problem.parameters,
        loss=problem.loss.name,
        norm_w=problem.norm_W.value,
        norm_V=problem.norm_V.value,
        outputs=problem.q,
        bypass=problem.d2,
        bias=problem.has_bias,
        norm_W_frobenius=norm(problem.W).value,
        assumption1=convex,
    )


# --- Decide -----------------------------------------------------------------------------------------------


def decided(problem: Problem, decision: Decision, constants: Constants) -> dict[str, Any]:
    """Definition 1: both conditions, and the ε for which it would hold."""
    slope, bent, verdicts = decision.slope, decision.curvature, decision.verdicts
    m = (-bent.lambda_min).positive_part()
    return {
        "gradient": Gradient(slope.norm, slope.norm_W, slope.norm_V, verdicts.gradient),
        "hessian": Hessian(
            bent.lambda_min,
            verdicts.threshold,
            bent.zero_multiplicity,
            bent.method,
            verdicts.curvature,
            decision.vacuous,
            decision.informative_below,
        ),
        "smallest_epsilon": theorems.smallest_epsilon(slope.norm, m, constants.mu2),
        "constants": constants,
    }


# --- Compare ----------------------------------------------------------------------------------------------


def compared(
    problem: Problem,
    seen: Observed,
    decision: Decision,
    constants: Constants,
    linear: LinearMinimum,
    convex: Assumption1,
    *,
    augmented: bool,
    break_even: bool,
    gap_of_block: bool,
) -> dict[str, Any]:
    """The best linear predictors, and every theorem with the numbers of this point in it."""
    is_open = convex.status == "unknown"
    if is_open:
        linear, augmented, break_even, gap_of_block = without_convexity(linear), False, False, False
    F, here, star = decision.F, seen.here, seen_from(problem, linear)
    gap = F - linear.F_min
    exactly = decision.verdict is Verdict.CERTIFIED and problem.epsilon == 0.0 and problem.is_plain
    if exactly and problem.d1 >= span(problem) and not is_open:
        gap = gap.intersect(upper=0.0)  # Corollary 1
    m = (-decision.of_F.lambda_min).positive_part()
    gradient_norm = decision.slope.norm if problem.is_plain else gradient_of_F(problem, here)
    best = best_augmented(problem) if augmented or gap_of_block else None
    first = theorem1_here(problem, gap, gradient_norm, star)
    second = theorem2_at_origin(problem, seen, linear, star)
    block = None if best is None else of_like_size(problem, best)
    if block is not None and not block.data.is_convex_on(block.r):
        block = None
    third = theorem3_here(problem, constants, decision.verdict, gap, linear, seen.origin.F, block)
    bounds = gap_bounds(problem, decision, seen, m, linear, star)
    others = comparators_here(problem, F, constants.b)
    corollary = corollary1_here(
        problem, constants, decision.verdict, gap, gradient_norm, decision.of_F.lambda_min
    )
    regularized = regularized_here(
        problem,
        here,
        linear,
        star,
        rho=decision.slope.rho,
        multiplier=decision.slope.multiplier,
        gradient_norm=decision.slope.norm,
        constants=constants,
        verdict=decision.verdict,
        F_at_0=seen.origin.F,
    )
    if is_open:
        first, second, third = (
            open_theorem(first, convex),
            open_theorem(second, convex),
            open_theorem(third, convex),
        )
        bounds, others = open_bounds(bounds), tuple(map(open_comparator, others))
        corollary = open_corollary(corollary, convex)
        regularized = None if regularized is None else open_regularized(regularized, convex)
    return {
        "objective": Objective(
            F,
            linear.F_min,
            gap,
            linear.norm.value,
            linear.attained,
            linear.falls_at_rim,
            break_even_radius(F, linear, seen.origin.F) if break_even else None,
            block_gap(problem, here, best) if best is not None and gap_of_block else None,
        ),
        "theorem1": first,
        "theorem2": second,
        "theorem3": third,
        "corollary1": corollary,
        "gap_bounds": bounds,
        "regularized": regularized,
        "augmented": augmented_here(problem, here, gradient_norm, best) if augmented and best else None,
        "comparators": others,
    }


def gradient_of_F(problem: Problem, here: FirstOrder) -> Enclosure:
    """‖∇F‖ = ‖(g_W, W_1ᵀA_f)‖, where G is what is judged."""
    return theorems.hypot(here.g_W.norm(), product(problem.W[:, : problem.d1].T, here.A_f).norm())


def theorem2_at_origin(problem: Problem, seen: Observed, linear: LinearMinimum, star: Star) -> Theorem2:
    """Theorem 2 at (0, V), where the second moments are there."""
    origin, bent, size_of_A = seen.origin, None, Enclosure(np.nan, 0.0, np.inf)
    if isinstance(origin, Moments) and not_plain(problem) is None:
        parts = reduction(origin, np.zeros_like(problem.W), problem.d1, gradient_basis(problem))
        parts = replace(parts, convex=problem.loss.convex_in_range)
        bent, size_of_A = curvature(parts).lambda_min, largest_eigenvalue(parts.first).intersect(lower=0.0)
    return theorem2_here(problem, origin, bent, size_of_A, star, origin.F - linear.F_min)


def gap_bounds(
    problem: Problem, decision: Decision, seen: Observed, m: Enclosure, linear: LinearMinimum, star: Star
) -> GapBounds:
    """The measured bounds of the gap, by the best moments that there are."""
    here = seen.here if decision.moments is None else decision.moments
    return gap_bounds_here(problem, here, m, linear, star, curved=isinstance(here, Moments))


# --- Theorem 3 alone --------------------------------------------------------------------------------------


@QUIET
@small_algebra_within
def bound_constants(problem: Problem, s: float | None = None) -> tuple[BoundConstants, Enclosure]:
    """The constants of Theorem 3 for a problem, and its min F_lin; with weight decay min G_lin.

    Args:
        s: ‖Z‖_F of the predictors Ux + Zf, where the bound against them is wanted.
    Raises:
        RequestError: a Lipschitz constant is neither given nor computable, or Theorem 3 does not apply: the
            loss is not known to be convex, say.
    """
    if problem.objective.norm is not None:
        raise RequestError(f"Theorem 3 does not apply: {not_plain(problem)}", id="theorem")
    require_sound_arithmetic()
    problem = problem.with_features_held()
    b = domain_radius(problem)
    linear = best_linear_predictor(problem, problem.domain.r, b)
    problem, about = with_assumption1(problem, b, linear.r)
    if about.status == "unknown":
        raise RequestError(f"Theorem 3 does not apply: {why_open(about)}", id="theorem")
    claims = lipschitz_claims(problem, observed(problem, b).lipschitz, b, linear.r)
    symbols = bound_symbols(problem, claims, s)
    if isinstance(symbols, str):
        raise RequestError(f"Theorem 3 does not apply: {symbols}", id="theorem")
    if problem.objective.l2:
        decay = {"l2": problem.objective.l2, "norm_V": norm(problem.V).upper}
        return replace(symbols, **decay), least_on_ball(problem, linear).F_min
    return symbols, linear.F_min
