"""The main job, in the paper's order: a problem goes in, a report with proven numbers comes out."""

from __future__ import annotations

import importlib.util
import math
import time
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np

import resnet_cert
from resnet_cert import theorems
from resnet_cert.bound import theorem3
from resnet_cert.enclosure import Array, Ball, Enclosure, difference, inner, minimum, norm, product, row_norms
from resnet_cert.errors import InternalError, RequestError
from resnet_cert.hessian import (
    Curvature,
    curvature,
    curvature_off,
    hessian_exceeds,
    largest_eigenvalue,
    rayleigh_quotient,
    spectral_norm,
)
from resnet_cert.linear_predictor import LinearMinimum, best_linear_predictor
from resnet_cert.lipschitz import LipschitzConstants, lipschitz_constants, lipschitz_terms
from resnet_cert.losses import BuiltinLoss, Loss
from resnet_cert.moments import Moments, MomentSums, merged, moment_sums, residual
from resnet_cert.problem import Chunk, Problem
from resnet_cert.report.model import (
    BoundConstants,
    Constants,
    Corollary1,
    CrossCheck,
    GapBounds,
    Gradient,
    Hessian,
    Objective,
    Report,
    Seconds,
    Size,
    Source,
    Theorem1,
    Theorem2,
    Theorem3,
)
from resnet_cert.stationarity import corollary1_verdict, definition1, threshold
from resnet_cert.verdict import Verdict

ESCALATION_WORK = 5 * 10**7
"""Largest n(d + k)² for which an undecided check goes on in ball arithmetic by itself: some seconds,"""
ESCALATION_SIZE = 256
"""if also d + k is at most this: the factorisation of S(t) takes its cube."""
ROUNDING_ALLOWANCE = 1e4
"""How many of our own radii autodiff in float64 may be off: it has no bound, but errs on their scale."""


def check(
    problem: Problem,
    *,
    spec: Source | None = None,
    arithmetic: Literal["float64", "ball"] = "float64",
    escalate: bool = True,
) -> Report:
    """Is the point an ε-second-order partial stationary point, and what do the theorems say about it?

    Every `Enclosure` of the report holds the exact value for the given float64 data and features; the
    verdicts follow from them alone, or from ball arithmetic.

    Args:
        arithmetic: "ball" evaluates the loss in Arb, assuming nothing of exp and log, and decides there
            (see `ball`; needs python-flint).
        escalate: go on in ball arithmetic by itself where float64 leaves the verdict open, if that takes
            seconds only.
    Raises:
        RequestError: the loss violates Assumption 1 at one of the predictions, or ball arithmetic is asked
            for without python-flint or with a custom loss.
        InternalError: autodiff of the objective contradicts the moments.
    Source: Shamir 2018, Definition 1, Theorems 1–3, Corollary 1.
    """
    started = time.perf_counter()
    problem = problem.with_features_held()
    if arithmetic == "ball":
        problem = replace(problem, loss=with_ball_functions(problem.loss))
    w, V, eps = problem.point.w, problem.point.V, problem.epsilon
    norm_w, norm_V = norm(w), spectral_norm(V)

    b = domain_radius(problem, norm_w, norm_V)
    linear = best_linear_predictor(problem, problem.domain.r, b)
    require_assumption1(problem, linear)
    seen = observe(problem, b)
    constants = lipschitz_claims(problem, seen.lipschitz, b, linear.r)
    here, origin = seen.here, seen.origin

    gradient_w, gradient_V = here.g_w.norm(), norm_w * here.a.norm()
    gradient_norm = theorems.hypot(gradient_w, gradient_V)
    limit = threshold(constants.mu2, eps)
    bent = decided(curvature(here, w), here, w, limit)
    verdicts = definition1(gradient_norm, bent.lambda_min, eps, constants.mu2)
    undecided = verdicts.verdict is Verdict.UNDECIDED
    if arithmetic == "ball" or (undecided and escalate and is_affordable(problem)):
        from resnet_cert import ball

        arithmetic = "ball"
        finer = ball.decide(problem, cast(BuiltinLoss, problem.loss), constants.mu2)
        verdicts = definition1(gradient_norm, bent.lambda_min, eps, constants.mu2, finer.proven)
        here = replace(here, F=here.F.intersect(finer.F.lower, finer.F.upper))
        gradient_norm = finer.gradient_norm
        bent = replace(bent, lambda_min=narrowed(bent.lambda_min, verdicts.curvature, limit))
    lambda_min = bent.lambda_min
    m = (-lambda_min).positive_part()
    gap = here.F - linear.F_min
    if verdicts.verdict is Verdict.CERTIFIED and eps == 0.0:
        gap = gap.intersect(upper=0.0)  # Corollary 1

    # Distances to w*, known to lie within linear.w_star.radius of its centre and in the ball.
    w_star = linear.w_star
    norm_w_star = linear.norm
    distance = difference(Ball(w, 0.0), w_star).norm()
    distance = distance.intersect(0.0, max((norm_w + linear.r).upper, distance.lower))
    turned = product(V.T, w_star).norm()
    turned = turned.intersect(0.0, max((norm_V * linear.r).upper, turned.lower))

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
        gradient=Gradient(gradient_norm, gradient_w, gradient_V, verdicts.gradient),
        hessian=Hessian(lambda_min, limit, bent.zero_multiplicity, "reduced", verdicts.curvature),
        smallest_epsilon=theorems.smallest_epsilon(gradient_norm, m, constants.mu2),
        constants=constants,
        theorem1=_theorem1(gap, gradient_norm, norm_w, norm_V, norm_w_star, distance, turned),
        theorem2=_theorem2(origin, linear, norm_w_star, norm_V),
        theorem3=_theorem3(problem, constants, verdicts.verdict, gap, linear),
        corollary1=Corollary1(corollary1_verdict(gap)),
        gap_bounds=_gap_bounds(here, w, V, m, linear, distance, turned),
        crosscheck=crosscheck(problem, here, gradient_norm, bent),
    )
    return replace(report, seconds=Seconds(time.perf_counter() - started))


def bound_constants(problem: Problem) -> tuple[BoundConstants, Enclosure]:
    """The constants of Theorem 3 for a problem, and its min F_lin.

    Raises:
        RequestError: a Lipschitz constant is neither given nor computable.
    """
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


def domain_radius(problem: Problem, norm_w: Enclosure, norm_V: Enclosure) -> float:
    """b: as given, or 1.01·max(‖w‖, ‖V‖), or 1 if both are 0."""
    if problem.domain.b is not None:
        return problem.domain.b
    return 1.01 * max(norm_w.upper, norm_V.upper) or 1.0


@dataclass(frozen=True)
class Observed:
    """What one pass over the data gives: the moments at (w, V) and at (0, V), and μ0, μ1, μ2 if bounded."""

    here: Moments
    origin: Moments
    lipschitz: LipschitzConstants | None


@dataclass(frozen=True)
class ObservedSums:
    """The same, unnormalised and of some chunks only.  Mergeable."""

    here: MomentSums | None  # None at w = 0, where it is the origin
    origin: MomentSums
    lipschitz: Array | None
    chunks: int = 1

    def __add__(self, other: ObservedSums) -> ObservedSums:
        return ObservedSums(
            None if self.here is None or other.here is None else self.here + other.here,
            self.origin + other.origin,
            None if self.lipschitz is None or other.lipschitz is None else self.lipschitz + other.lipschitz,
            self.chunks + other.chunks,
        )


def observe(problem: Problem, b: float) -> Observed:
    """One pass over the data, a chunk at a time."""
    w, V, loss = problem.point.w, problem.point.V, problem.loss

    def sums(chunk: Chunk) -> ObservedSums:
        at = residual(chunk, V)
        return ObservedSums(
            moment_sums(loss, chunk, at, w) if w.any() else None,
            moment_sums(loss, chunk, at, np.zeros_like(w)),
            lipschitz_terms(loss, chunk, row_norms(chunk.x), at.f_norm, b),
        )

    total = merged(map(sums, problem.chunks()))
    origin = total.origin.expectation()
    least_weight = float(total.origin.weight.value) - total.origin.weight.radius
    return Observed(
        origin if total.here is None else total.here.expectation(),
        origin,
        None if total.lipschitz is None else lipschitz_constants(total.lipschitz, least_weight, total.chunks),
    )


def lipschitz_claims(problem: Problem, bounds: LipschitzConstants | None, b: float, r: float) -> Constants:
    """μ0, μ1, μ2: the user's claims, else the computed bounds, else None; and where each is from."""
    values: dict[str, float | None] = {}
    source = {
        "b": "computed" if problem.domain.b is None else "given",
        "r": "computed" if problem.domain.r is None else "given",
    }
    for name in ("mu0", "mu1", "mu2"):
        claim = getattr(problem.lipschitz, name)
        bound = None if bounds is None else getattr(bounds, name)
        values[name] = bound if claim is None else claim
        source[name] = "given" if claim is not None else "missing" if bound is None else "computed"
    return Constants(b=b, r=r, source=source, **values)


def decided(bent: Curvature, here: Moments, w: Array, limit: Enclosure | None) -> Curvature:
    """The same curvature, its lower end raised to −threshold where one factorisation at it proves that."""
    lambda_min = bent.lambda_min
    if limit is None or not w.any() or not lambda_min.lower < -limit.lower <= lambda_min.upper:
        return bent
    if not hessian_exceeds(here, w, limit.lower):
        return bent
    return replace(bent, lambda_min=lambda_min.intersect(lower=-limit.lower))


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
    from resnet_cert import ball

    return replace(loss, functions=ball.elementary())


def has_flint() -> bool:
    return importlib.util.find_spec("flint") is not None


def is_affordable(problem: Problem) -> bool:
    """Ball arithmetic is there and takes seconds only."""
    size = problem.d + problem.k
    small = problem.n * size**2 <= ESCALATION_WORK and size <= ESCALATION_SIZE
    return small and isinstance(problem.loss, BuiltinLoss) and has_flint()


def next_steps(problem: Problem, verdict: Verdict, arithmetic: str) -> tuple[str, ...]:
    """What may decide an undecided point."""
    if verdict is not Verdict.UNDECIDED or arithmetic == "ball" or not isinstance(problem.loss, BuiltinLoss):
        return ()
    if not has_flint():
        return ("ball arithmetic decides finer margins: pip install 'resnet-cert[verify]'",)
    return ("--arithmetic ball decides finer margins",)


def require_assumption1(problem: Problem, linear: LinearMinimum) -> None:
    """Refuse a custom loss that is not convex and smooth at the predictions of the point, of 0 and of w*."""
    if isinstance(problem.loss, BuiltinLoss):  # convex and smooth by their formulas
        return
    from resnet_cert.custom_loss import assumption1_fault

    w, V, first = problem.point.w, problem.point.V, 0
    for chunk in problem.chunks():
        h = residual(chunk, V).h
        for p in (h @ w, np.zeros(len(h)), chunk.x @ linear.w_star.center):
            fault = assumption1_fault(problem.loss, p, chunk.y, first)
            if fault:
                raise RequestError(fault)
        first += len(h)


def crosscheck(problem: Problem, here: Moments, gradient_norm: Enclosure, bent: Curvature) -> CrossCheck:
    """Autodiff of the objective as written, compared with every number that it can speak of.

    Raises:
        InternalError: they differ by more than the enclosure and a rounding allowance.
    """
    from resnet_cert.objective import autodiff

    w = problem.point.w
    s = float(np.linalg.norm(w))
    auto = autodiff(problem, bent.direction)
    first = ROUNDING_ALLOWANCE * (here.g_w.radius + s * here.a.radius)
    second = ROUNDING_ALLOWANCE * (
        here.A.radius + 2.0 * s * here.B.radius + s * s * here.C.radius + 2.0 * here.a.radius
    )
    along = rayleigh_quotient(here, w, bent.direction)
    for what, value, ours, allowance in (
        ("gradient norm", auto.gradient_norm, gradient_norm, first),
        ("curvature along the witness", auto.curvature, along, second),
        ("smallest Hessian eigenvalue", auto.lambda_min, bent.lambda_min, second),
    ):
        if value is None or not (math.isfinite(value) and ours.known and math.isfinite(allowance)):
            continue
        if not ours.lower - allowance <= value <= ours.upper + allowance:
            raise InternalError(
                f"autodiff gives the {what} {value!r}, outside "
                f"[{ours.lower!r}, {ours.upper!r}] ± {allowance:.1e}"
            )
    return CrossCheck(auto.gradient_norm, auto.curvature, auto.lambda_min)


def versions(arithmetic: str) -> dict[str, str]:
    """What computed this report; python_flint only where ball arithmetic had a part in it."""
    import jax

    names = {"resnet_cert": resnet_cert.__version__, "jax": jax.__version__, "numpy": np.__version__}
    if arithmetic == "ball":
        import flint

        names["python_flint"] = flint.__version__
    return names


def _theorem1(
    gap: Enclosure,
    gradient_norm: Enclosure,
    norm_w: Enclosure,
    norm_V: Enclosure,
    norm_w_star: Enclosure,
    distance: Enclosure,
    turned: Enclosure,
) -> Theorem1:
    if norm_w.upper == 0.0:
        return Theorem1(False, None, None, None, "w = 0: theorem 2 speaks of this point")
    paper = theorems.theorem1(gap, norm_w, norm_w_star, norm_V)
    refined = theorems.theorem1_refined(gap, distance, turned, norm_w)
    return Theorem1(True, paper, refined, not (paper.above(gradient_norm) or refined.above(gradient_norm)))


def _theorem2(origin: Moments, linear: LinearMinimum, norm_w_star: Enclosure, norm_V: Enclosure) -> Theorem2:
    bent = curvature(origin, np.zeros(len(origin.g_w.center))).lambda_min
    gradient_norm = origin.g_w.norm()
    norm_A = largest_eigenvalue(origin.A).intersect(lower=0.0)
    left, right = theorems.theorem2(origin.F - linear.F_min, norm_w_star, gradient_norm, bent, norm_V, norm_A)
    return Theorem2(gradient_norm, bent, left, right, not right.above(left))


def _theorem3(
    problem: Problem, constants: Constants, verdict: Verdict, gap: Enclosure, linear: LinearMinimum
) -> Theorem3:
    mus = (constants.mu0, constants.mu1, constants.mu2)
    missing = [f"mu{i}" for i, mu in enumerate(mus) if mu is None]
    if missing:
        reason = f"{', '.join(missing)} not known for the loss {problem.loss.name}: give them under lipschitz"
        return Theorem3(False, None, None, None, None, None, None, None, None, reason)
    mu0, mu1, mu2 = (cast(float, mu) for mu in mus)
    symbols = BoundConstants(constants.b, constants.r, mu0, mu1, mu2, problem.d)
    row = theorem3(symbols, problem.epsilon, linear.F_min)
    applies = verdict is Verdict.CERTIFIED
    return Theorem3(
        applies,
        row.bound,
        row.threshold_form,
        row.threshold,
        row.polynomial_form,
        row.refined_form,
        row.refined_polynomial_form,
        row.F_upper,
        not gap.above(row.bound) if applies else None,
        None if applies else f"the point is not certified an ε-SOPSP, ε = {problem.epsilon:g}",
    )


def _gap_bounds(
    here: Moments,
    w: Array,
    V: Array,
    m: Enclosure,
    linear: LinearMinimum,
    distance: Enclosure,
    turned: Enclosure,
) -> GapBounds:
    u = Ball(linear.w_star.center, 0.0)
    lx = difference(here.g_w, product(V, here.a))  # E[ℓ' x]
    at_u = theorems.gap_linear_functional(
        inner(here.g_w, difference(Ball(w, 0.0), u)), inner(here.a, product(V.T, u))
    )
    reach = (lx.norm() * linear.w_star.radius).upper
    functional = at_u + Enclosure(0.0, -reach, reach)
    on_ball = theorems.gap_linear_functional_on_ball(inner(here.g_w, Ball(w, 0.0)), lx.norm(), linear.r)
    functional = functional.intersect(upper=max(on_ball.upper, functional.lower))

    norm_a = here.a.norm()
    if len(w) >= 2:
        local = theorems.local_lemma(m, curvature_off(here.A, w))
    else:
        eta = Enclosure.around(float(here.A.center[0, 0]), here.A.radius)
        local = theorems.local_lemma_scalar(m, eta, _curvature_along_a(here, w))
    g = here.g_w.norm()
    return GapBounds(
        functional,
        theorems.gap_first_order(distance, g, turned, norm_a),
        theorems.gap_first_order(distance, g, turned, local),
    )


def _curvature_along_a(here: Moments, w: Array) -> Enclosure:
    """κ = w² tᵀCt, t = a/‖a‖, for d = 1; between 0 and w²·λ_max(C) for an unknown t."""
    if not w.any():
        return Enclosure.exact(0.0)
    most = largest_eigenvalue(here.C).intersect(lower=0.0)
    norm_a = here.a.norm()
    quotient = Enclosure(0.0, 0.0, most.upper)
    if norm_a.lower > 0.0:
        image = product(here.C.center, here.a)
        exact = inner(here.a, Ball(image.center, image.radius + here.C.radius * norm_a.upper))
        quotient = minimum(exact / norm_a.square(), Enclosure.exact(most.upper)).intersect(lower=0.0)
    return quotient * Enclosure.exact(float(w[0])).square()
