"""What the theorems say about one point: each with the numbers of this problem in it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

import numpy as np

from resnet_cert.compare.linear_minimum import LinearMinimum
from resnet_cert.compare.star import Star, quadratic_form, within_span
from resnet_cert.decide.definition1 import corollary1_verdict
from resnet_cert.moments.moments import Moments
from resnet_cert.numerics.algebra import svd
from resnet_cert.numerics.eigenvalues import smallest_eigenpair
from resnet_cert.numerics.enclosure import Array, Ball, Enclosure, difference, inner, minimum, norm, product
from resnet_cert.numerics.matrices import largest_singular_value
from resnet_cert.numerics.radius import Radius
from resnet_cert.outcomes import Verdict
from resnet_cert.problem.problem import Problem
from resnet_cert.problem.span import span
from resnet_cert.results import (
    AugmentedForm,
    BoundConstants,
    Constants,
    Corollary1,
    GapBounds,
    Theorem1,
    Theorem2,
    Theorem3,
)
from resnet_cert.theory import theorems
from resnet_cert.theory.bound import binding_form, theorem3


def not_plain(problem: Problem) -> str | None:
    """Why the theorems do not speak of this problem; None if they do."""
    if problem.objective.norm is not None:
        return "(W, V) is constrained to a ball"
    if problem.objective.l2:
        return "the objective is regularised: what weight decay can have cost is stated for it instead"
    return None


def has_enough_inputs(problem: Problem) -> bool:
    """d1 ≥ q, the span of the loss's gradients counting for q."""
    return problem.d1 >= span(problem)


def theorem1_here(problem: Problem, gap: Enclosure, gradient_norm: Enclosure, star: Star) -> Theorem1:
    """Theorem 1 at the point; gradient_norm: ‖∇F‖."""
    reason = not_plain(problem) or _no_theorem1(problem, star)
    if reason is not None:
        return Theorem1(False, None, None, None, reason)
    size = within_span(problem, problem.W).norm()
    paper = theorems.theorem1(gap, size, star.norm, star.norm_V, star.sigma)
    refined = theorems.theorem1_refined(gap, star.distance, star.norm_X)
    sides = [at_least(gradient_norm, bound) for bound in (paper, refined)]
    holds = False if False in sides else None if None in sides else True
    return Theorem1(True, paper, refined, holds)


def at_least(left: Enclosure, right: Enclosure) -> bool | None:
    """left ≥ right, as a theorem has it, is not disproven; None where it is open for want of an end."""
    if right.above(left):
        return False
    return True if right.at_most(left) or (left.known and right.known) else None


def _no_theorem1(problem: Problem, star: Star) -> str | None:
    if not problem.W.any():
        return f"{'w' if problem.q == 1 else 'W'} = 0: Theorem 2 speaks of this point"
    if star.X is not None:
        return None
    if problem.q == 1:
        return "w is 0 on the block's inputs, so that V does not move the prediction"
    if not has_enough_inputs(problem):
        return f"W X = W* V need not have a solution X, for d = {problem.d1} < q = {star.q}"
    return "W X = W* V need not have a solution X, for W is not proven to have full row rank"


def theorem2_here(
    problem: Problem,
    origin: Moments,
    lambda_min: Enclosure | None,
    norm_A: Enclosure,
    star: Star,
    gap: Enclosure,
) -> Theorem2:
    """Theorem 2 at (0, V).

    Args:
        origin: the moments there;  lambda_min, norm_A: λ_min(∇²F) and ‖∂²F/∂W²‖ there; None where not known.
        gap: F(0, V) − F_lin(W*).
    """
    reason = not_plain(problem)
    if reason is None and lambda_min is None:
        reason = "the curvature at (0, V) is not computed at this size: --hessian exact does"
    if reason is not None or lambda_min is None:
        return Theorem2(None, None, None, None, None, False, reason)
    gradient_norm = origin.g_W.norm()
    rank = min(star.q, problem.d1, problem.k)
    left, right = theorems.theorem2(gap, star.norm, gradient_norm, lambda_min, star.norm_V, norm_A, rank)
    return Theorem2(gradient_norm, lambda_min, left, right, at_least(left, right))


def bound_symbols(problem: Problem, constants: Constants, s: float | None = None) -> BoundConstants | str:
    """The numbers of Theorem 3 for this problem, or why there are none.

    Its b bounds ‖W‖_F, of which the domain's, a bound of ‖W‖, says less where there are several outputs:
    there it is the point's own, if that is larger.
    """
    mus = (constants.mu0, constants.mu1, constants.mu2)
    missing = [f"mu{i}" for i, mu in enumerate(mus) if mu is None]
    if missing:
        return f"{', '.join(missing)} not known for the loss {problem.loss.name}: give them under lipschitz"
    if not has_enough_inputs(problem):
        return (
            f"for d = {problem.d1} < q = {span(problem)} even a strict local minimum may be worse than the "
            "best linear predictor"
        )
    mu0, mu1, mu2 = (cast(float, mu) for mu in mus)
    return BoundConstants(
        constants.b if problem.q == 1 else max(constants.b, norm(problem.W).upper),
        constants.r,
        mu0,
        mu1,
        mu2,
        d=problem.d1,
        q=problem.q,
        k=problem.k,
        span=span(problem),
        bypass=problem.d > problem.d1,
        s=s,
    )


def theorem3_here(
    problem: Problem,
    constants: Constants,
    verdict: Verdict,
    gap: Enclosure,
    linear: LinearMinimum,
    F_at_0: Enclosure,
    block: LinearMinimum | None = None,
) -> Theorem3:
    """Theorem 3 at the point.

    Args:
        F_at_0: F(0, V) = F_lin(0).
        block: the best linear predictor on (x, f), where the augmented form is wanted.
    """

    def none(reason: str) -> Theorem3:
        return Theorem3(False, None, None, None, None, None, None, None, None, reason)

    reason = not_plain(problem)
    if reason is not None:
        return none(reason)
    symbols = bound_symbols(problem, constants)
    if isinstance(symbols, str):
        return none(symbols)
    row = theorem3(symbols, problem.epsilon, linear.F_min)
    upper = cast(Enclosure, row.F_upper)
    augmented = None if block is None else augmented_form_here(problem, symbols, block)
    applies = verdict is Verdict.CERTIFIED
    return Theorem3(
        applies,
        row.bound,
        row.threshold_form,
        row.threshold,
        row.polynomial_form,
        row.refined_form,
        row.refined_polynomial_form,
        upper,
        not gap.above(row.bound) if applies else None,
        None if applies else f"the point is not certified an ε-SOPSP, ε = {problem.epsilon!r}",
        form=binding_form(row),
        vacuous=True if upper.above(F_at_0) else False if upper.at_most(F_at_0) else None,
        augmented=augmented,
    )


def augmented_form_here(problem: Problem, symbols: BoundConstants, block: LinearMinimum) -> AugmentedForm:
    """Theorem 3 against the predictor (U, Z) on (x, f) that was found, with its own ‖U‖_F and ‖Z‖_F.

    Φ there is known for (U, Z) before it was rounded: the ends of the norms pay for that.
    """
    d, rounding = problem.d, block.found_radius
    U, Z = block.W_star.center[:, :d], block.W_star.center[:, d:]
    r, s = (Ball(part, rounding).norm().upper for part in (U, Z))
    row = theorem3(replace(symbols, r=r, s=s), problem.epsilon)
    bound = cast(Enclosure, row.augmented_form)
    return AugmentedForm(r, s, bound, block.F_at + bound)


def corollary1_here(
    problem: Problem,
    constants: Constants,
    verdict: Verdict,
    gap: Enclosure,
    gradient_norm: Enclosure,
    lambda_min: Enclosure,
) -> Corollary1:
    """F ≤ min F_lin?  And is the point one of which Corollary 1 says so: is it a 0-SOPSP of F, and d1 ≥ q?

    Args:
        verdict: is the point an ε-SOPSP?  gradient_norm, lambda_min: of F there.
    """
    enough = has_enough_inputs(problem)
    hypothesis = "undecided"
    if not problem.is_plain or not enough or gradient_norm.lower > 0.0 or lambda_min.upper < 0.0:
        hypothesis = "not met"
    elif verdict is Verdict.CERTIFIED and problem.epsilon == 0.0:
        hypothesis = "met"
    reason = None
    outputs = f"{'q' if span(problem) == problem.q else 'q − 1'} = {span(problem)}"
    if problem.q > 1 and enough:
        reason = (
            f"for d = {problem.d1} ≥ {outputs} every second-order stationary point of F has F ≤ inf F_lin, "
            "and is a global minimum of F over all (W, V)"
        )
    elif problem.q > 1:
        reason = f"for d = {problem.d1} < {outputs} even a strict local minimum may have F > inf F_lin"
        shift = spurious_minimum(problem, constants, gap, gradient_norm, lambda_min)
        if shift is not None:
            reason += f"; one that has lies within {_at_most(shift)} of (W, V)"
    return Corollary1(corollary1_verdict(gap), reason, hypothesis)


def _at_most(x: float) -> str:
    """x in three digits, rounded up."""
    text = f"{x:.2e}"
    return text if float(text) >= x else f"{math.nextafter(float(text) * 1.01, math.inf):.2e}"


def spurious_minimum(
    problem: Problem,
    constants: Constants,
    gap: Enclosure,
    gradient_norm: Enclosure,
    lambda_min: Enclosure,
) -> float | None:
    """δ, if an exact strict local minimum with F > min F_lin is proven to lie within δ of (W, V).

    F is at most ½μ1δ² lower there, for ∇F = 0 at the minimum.
    """
    if constants.mu1 is None or constants.mu2 is None or not problem.is_plain:
        return None
    shift = theorems.shift_of_critical_point(gradient_norm, lambda_min.lower, constants.mu2)
    if shift is None:
        return None
    delta, room = Enclosure.exact(shift), Enclosure.exact(constants.b)
    inside = all(room.above(length + delta) for length in (problem.norm_W, problem.norm_V))
    above = (gap - delta.square() * (0.5 * constants.mu1)).lower > 0.0
    return shift if inside and above else None


def gap_bounds_here(
    problem: Problem, here: Moments, m: Enclosure, linear: LinearMinimum, star: Star, *, curved: bool = True
) -> GapBounds:
    """Upper bounds of the gap; first_order and local are the smaller one of two for every term with V:

    ⟨W_1*V, A_f⟩ ≤ ‖W_1*V‖_F‖A_f‖_F and ≤ ‖W_1*V‖_*‖A_f‖.  In `local` the least bound of the local lemma
    stands for ‖A_f‖.

    Args:
        m: max(0, −λ_min(∇²F)).
        curved: the second moments are there.
    """
    W, V, d1 = problem.W, problem.V, problem.d1
    U = linear.W_star.center
    lx = gradient_of_inputs(problem, here)
    displacement = inner(here.g_W, difference(W, U))
    at_U = theorems.gap_linear_functional(displacement, inner(here.A_f, product(U[:, :d1], V)))
    functional = at_U + Enclosure.around(0.0, lx.size() * linear.W_star.radius)
    on_ball = theorems.gap_linear_functional_on_ball(inner(here.g_W, Ball.exact(W)), lx.norm(), linear.r)
    functional = functional.intersect(upper=max(on_ball.upper, functional.lower))

    A_f = within_span(problem, here.A_f)
    g, top = here.g_W.norm(), A_f.norm() if min(A_f.center.shape) == 1 else largest_singular_value(A_f)
    first_order = minimum(
        theorems.gap_first_order(star.distance, g, star.turned_norm, A_f.norm()),
        theorems.gap_first_order(star.distance, g, star.turned_nuclear, top),
    )
    size = local_lemma(problem, here, top, m, star, curved=curved)
    local = theorems.gap_first_order(star.distance, g, star.turned_nuclear, size)
    return GapBounds(functional, first_order, local)


def gradient_of_inputs(problem: Problem, here: Moments) -> Ball:
    """E[∇ℓ xᵀ] = g_W − A_f(EV)ᵀ (q, d)."""
    moved = np.zeros((problem.d, problem.k))
    moved[: problem.d1] = problem.V
    return difference(here.g_W, product(here.A_f, moved.T))


def local_lemma(
    problem: Problem, here: Moments, top: Enclosure, m: Enclosure, star: Star, *, curved: bool
) -> Enclosure:
    """The least of the bounds (i), (ii), (iii) of ‖A_f‖ = top, for the u, v, e that are computed here.

    (i) and (ii) are one, κ being 0 where W_1e is; they bound uᵀA_f v, and ‖A_f‖ − uᵀA_f v is added.  u, v:
    the top singular vectors of A_f.  e: among the vectors with W_1e = 0 to rounding the one with the smallest
    η, else the one with the smallest ‖W_1e‖.
    """
    d1 = problem.d1
    gradient_V = product(here.A_f.T, problem.W[:, :d1]).norm()
    by_gradient = theorems.local_lemma_gradient(gradient_V, star.sigma)
    A_f = here.A_f.center
    if not (curved and np.isfinite(A_f).all() and np.isfinite(here.Q.center).all() and A_f.any()):
        return minimum(by_gradient, top) if not curved else by_gradient if A_f.any() else top
    X, _, Yt = svd(A_f, full_matrices=True)
    u, v = X[:, 0], Yt[0]
    W_1 = problem.W[:, :d1]
    in_span = within_span(problem, W_1).center
    e = _kernel_vector(in_span, _curvature_along(here.Q.center, u, d1))
    uu, vv, ee = (norm(a).square() for a in (u, v, e))
    direction = np.zeros((problem.q, here.Q.center.shape[-1]))
    direction[:, :d1] = np.outer(u, e)
    rounding = Radius.norm(direction) * 2.0**-52
    eta = quadratic_form(here.Q, Ball(direction, rounding)) / (uu * ee)
    kappa = Enclosure.exact(0.0)
    if W_1.any():
        moved = product(product(W_1, e[:, None]), v[None, :])
        direction = np.zeros((problem.q, problem.d + problem.k))
        direction[:, problem.d :] = moved.center
        kappa = quadratic_form(here.Q, Ball(direction, moved.radius)) / (ee * vv)
    along = inner(product(u[None, :], here.A_f), Ball.exact(v[None, :])) / (uu * vv).sqrt()
    by_curvature = theorems.local_lemma_any(m, eta, kappa) + (top - along).positive_part()
    return minimum(by_curvature, by_gradient) if star.sigma.upper > 0.0 else by_curvature


def _curvature_along(Q: Array, u: Array, d1: int) -> Array:
    """(d1, d1) E[uᵀ∇²ℓu·h_1h_1ᵀ]."""
    match Q.ndim:
        case 2:
            return float(u @ u) * Q[:d1, :d1]
        case 3:
            return np.einsum("a,aij->ij", u * u, Q[:, :d1, :d1])
        case _:
            return np.einsum("a,abij,b->ij", u, Q[:, :, :d1, :d1], u, optimize=True)


def _kernel_vector(W: Array, M: Array) -> Array:
    """e with We = 0 to rounding and the smallest eᵀMe; if there is none, that with the smallest ‖We‖."""
    d = W.shape[1]
    _, S, Zt = svd(W, full_matrices=True)
    sizes = np.zeros(d)
    sizes[: len(S)] = S
    kernel = Zt[sizes <= (sizes[0] if len(S) else 0.0) * d * 2.0**-50]
    if not len(kernel):
        return Zt[-1]
    return np.asarray(smallest_eigenpair(kernel @ M @ kernel.T)[1] @ kernel, dtype=np.float64)
