"""What the theorems say about one point: each with the numbers of this problem in it."""

from __future__ import annotations

from typing import cast

import numpy as np

from resnet_cert.compare.linear_predictor import LinearMinimum
from resnet_cert.decide.hessian import curvature, curvature_off
from resnet_cert.moments.moments import Moments
from resnet_cert.numerics.eigenvalues import largest_eigenvalue
from resnet_cert.numerics.enclosure import Array, Ball, Enclosure, difference, inner, minimum, product
from resnet_cert.outcomes import Verdict
from resnet_cert.problem.problem import Problem
from resnet_cert.results import BoundConstants, Constants, GapBounds, Theorem1, Theorem2, Theorem3
from resnet_cert.theory import theorems
from resnet_cert.theory.bound import theorem3


def not_plain(problem: Problem) -> str | None:
    """Why the theorems do not speak of this problem; None if they do."""
    if problem.constraint is not None:
        return "(w, V) is constrained to a ball"
    return "the objective is regularised" if problem.l2 else None


def theorem1_here(
    problem: Problem,
    gap: Enclosure,
    gradient_norm: Enclosure,
    norm_w: Enclosure,
    norm_V: Enclosure,
    norm_w_star: Enclosure,
    distance: Enclosure,
    turned: Enclosure,
) -> Theorem1:
    reason = not_plain(problem)
    if reason is not None:
        return Theorem1(False, None, None, None, reason)
    if norm_w.upper == 0.0:
        return Theorem1(False, None, None, None, "w = 0: theorem 2 speaks of this point")
    paper = theorems.theorem1(gap, norm_w, norm_w_star, norm_V)
    refined = theorems.theorem1_refined(gap, distance, turned, norm_w)
    return Theorem1(True, paper, refined, not (paper.above(gradient_norm) or refined.above(gradient_norm)))


def theorem2_here(
    problem: Problem, origin: Moments, linear: LinearMinimum, norm_w_star: Enclosure, norm_V: Enclosure
) -> Theorem2:
    reason = not_plain(problem)
    if reason is not None:
        return Theorem2(None, None, None, None, None, False, reason)
    bent = curvature(origin, np.zeros(len(origin.g_w.center))).lambda_min
    gradient_norm = origin.g_w.norm()
    norm_A = largest_eigenvalue(origin.A).intersect(lower=0.0)
    left, right = theorems.theorem2(origin.F - linear.F_min, norm_w_star, gradient_norm, bent, norm_V, norm_A)
    return Theorem2(gradient_norm, bent, left, right, not right.above(left))


def theorem3_here(
    problem: Problem, constants: Constants, verdict: Verdict, gap: Enclosure, linear: LinearMinimum
) -> Theorem3:
    reason = not_plain(problem)
    if reason is not None:
        return Theorem3(False, None, None, None, None, None, None, None, None, reason)
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


def gap_bounds_here(
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
