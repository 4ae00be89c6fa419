"""What the theorems say about one point with several outputs: each with the numbers of this problem in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from resnet_cert.compare.linear_predictor import LinearMinimum
from resnet_cert.decide.definition1 import corollary1_verdict
from resnet_cert.numerics.eigenvalues import largest_eigenvalue, smallest_eigenpair, spectral_norm
from resnet_cert.numerics.enclosure import Array, Ball, Enclosure, frobenius, inflate, minimum, norm
from resnet_cert.numerics.matrices import (
    largest_singular_value,
    least_solution,
    matrix_inner,
    minus,
    nuclear_norm,
    smallest_singular_value,
    times,
)
from resnet_cert.report.numbers import at_most
from resnet_cert.results import Constants, Corollary1, GapBounds, Theorem1, Theorem2, Theorem3
from resnet_cert.theory import theorems
from resnet_cert.vector import theorems as vector_theorems
from resnet_cert.vector.hessian import Reduction, curvature, gauss_newton, reduction
from resnet_cert.vector.moments import VectorMoments
from resnet_cert.vector.problem import VectorProblem

THEOREM3 = Theorem3(
    False, None, None, None, None, None, None, None, None, "it is not stated for several outputs"
)


@dataclass(frozen=True)
class Comparator:
    """W*, known to lie within a ball and in ‖W*‖_F ≤ r, as seen from the point (W, V).

    distance: ‖W − W*‖_F.  turned: W*V, with its Frobenius and nuclear norms.
    """

    W_star: Ball
    norm: Enclosure
    distance: Enclosure
    turned: Ball
    turned_norm: Enclosure
    turned_nuclear: Enclosure


def comparator(problem: VectorProblem, linear: LinearMinimum) -> Comparator:
    """The best linear predictor of the problem against its point."""
    W, V = problem.point.W, problem.point.V
    W_star = Ball(linear.w_star.center.reshape(W.shape), linear.w_star.radius)
    turned, reach = times(W_star, V), spectral_norm(V) * linear.r
    rank = Enclosure.exact(float(min(*W.shape, problem.k))).sqrt()
    return Comparator(
        W_star,
        linear.norm,
        _at_most(minus(Ball(W, 0.0), W_star).norm(), norm(W) + linear.r),
        turned,
        _at_most(turned.norm(), reach),
        _at_most(nuclear_norm(turned), rank * reach),
    )


def _at_most(x: Enclosure, most: Enclosure) -> Enclosure:
    """x ≥ 0, known besides to be at most `most`."""
    return x.intersect(0.0, max(most.upper, x.lower))


def theorem1_here(
    problem: VectorProblem, gap: Enclosure, gradient_norm: Enclosure, star: Comparator
) -> Theorem1:
    W, V, d, q = problem.point.W, problem.point.V, problem.d, problem.q
    sigma, norm_V = smallest_singular_value(W), spectral_norm(V)
    reason = None
    if not W.any():
        reason = "W = 0: theorem 2 speaks of this point"
    elif V.any() and d < q:
        reason = f"W X = W* V need not have a solution X, for d = {d} < q = {q}"
    elif V.any() and not sigma.lower > 0.0:
        reason = "W X = W* V need not have a solution X, for W is not proven to have full row rank"
    if reason is not None:
        return Theorem1(False, None, None, None, reason)
    norm_X = Enclosure.exact(0.0)
    if V.any():
        norm_X = least_solution(W, star.turned, sigma).norm()
        norm_X = _at_most(norm_X, star.turned_norm / sigma.lower)
    paper = vector_theorems.theorem1(gap, norm(W), star.norm, norm_V, sigma)
    refined = vector_theorems.theorem1_refined(gap, star.distance, norm_X)
    return Theorem1(True, paper, refined, not (paper.above(gradient_norm) or refined.above(gradient_norm)))


def theorem2_here(problem: VectorProblem, origin: VectorMoments, linear: LinearMinimum) -> Theorem2:
    parts = reduction(origin, np.zeros_like(problem.point.W))
    bent = curvature(parts).lambda_min
    gradient_norm = origin.g_W.norm()
    norm_A = largest_eigenvalue(parts.Q).intersect(lower=0.0)
    rank = min(problem.q, problem.d, problem.k)
    gap, norm_V = origin.F - linear.F_min, spectral_norm(problem.point.V)
    left, right = vector_theorems.theorem2(gap, linear.norm, gradient_norm, bent, norm_V, norm_A, rank)
    return Theorem2(gradient_norm, bent, left, right, not right.above(left))


def corollary1_here(
    problem: VectorProblem,
    constants: Constants,
    gap: Enclosure,
    gradient_norm: Enclosure,
    lambda_min: Enclosure,
) -> Corollary1:
    d, q = problem.d, problem.q
    if d >= q:
        reason = f"for d = {d} ≥ q = {q} every second-order stationary point has F ≤ inf F_lin"
    else:
        reason = f"for d = {d} < q = {q} even a strict local minimum may have F > inf F_lin"
        shift = spurious_minimum(problem, constants, gap, gradient_norm, lambda_min)
        if shift is not None:
            reason += f"; one that has lies within {at_most(shift)} of (W, V)"
    return Corollary1(corollary1_verdict(gap), reason)


def spurious_minimum(
    problem: VectorProblem,
    constants: Constants,
    gap: Enclosure,
    gradient_norm: Enclosure,
    lambda_min: Enclosure,
) -> float | None:
    """δ, if an exact strict local minimum with F > min F_lin is proven to lie within δ of (W, V).

    F is at most ½μ1δ² lower there, for ∇F = 0 at the minimum.
    """
    if constants.mu1 is None or constants.mu2 is None:
        return None
    shift = theorems.shift_of_critical_point(gradient_norm, lambda_min.lower, constants.mu2)
    if shift is None:
        return None
    delta, room = Enclosure.exact(shift), Enclosure.exact(constants.b)
    inside = all(room.above(spectral_norm(M) + delta) for M in (problem.point.W, problem.point.V))
    above = (gap - delta.square() * (0.5 * constants.mu1)).lower > 0.0
    return shift if inside and above else None


def gap_bounds_here(
    problem: VectorProblem,
    here: VectorMoments,
    parts: Reduction,
    m: Enclosure,
    linear: LinearMinimum,
    star: Comparator,
) -> GapBounds:
    """Upper bounds of the gap; first_order and local are the smaller one of two for every term with V:

    ⟨W*V, A_f⟩ ≤ ‖W*V‖_F‖A_f‖_F and ≤ ‖W*V‖_*‖A_f‖.  In `local` the bound of `local_lemma` stands for ‖A_f‖.
    """
    W, V = Ball(problem.point.W, 0.0), problem.point.V
    u = Ball(star.W_star.center, 0.0)
    lx = minus(here.g_W, times(here.A_f, V.T))  # E[∇ℓ xᵀ]
    at_u = theorems.gap_linear_functional(
        matrix_inner(here.g_W, minus(W, u)), matrix_inner(here.A_f, times(u, V))
    )
    reach = (lx.norm() * star.W_star.radius).upper
    functional = at_u + Enclosure(0.0, -reach, reach)
    on_ball = theorems.gap_linear_functional_on_ball(matrix_inner(here.g_W, W), lx.norm(), linear.r)
    functional = functional.intersect(upper=max(on_ball.upper, functional.lower))

    g, top = here.g_W.norm(), largest_singular_value(here.A_f)
    first_order = minimum(
        theorems.gap_first_order(star.distance, g, star.turned_norm, here.A_f.norm()),
        theorems.gap_first_order(star.distance, g, star.turned_nuclear, top),
    )
    local = theorems.gap_first_order(star.distance, g, star.turned_nuclear, local_lemma(parts, top, m))
    return GapBounds(functional, first_order, local)


def local_lemma(parts: Reduction, top: Enclosure, m: Enclosure) -> Enclosure:
    """√((β + m)(κ + m)) + √(βκ) + (‖A_f‖ − uᵀA_f t) ≥ ‖A_f‖ = top, for the u, t, e that are computed here.

    u, t: the top singular vectors of A_f.  e: among the vectors with We = 0 to rounding the one with the
    smallest β, else the one with the smallest ‖We‖.
    """
    W, A_f = parts.W, parts.A_f.center
    if not (np.isfinite(A_f).all() and np.isfinite(parts.Q.center).all()):
        return top
    (q, d), k = W.shape, A_f.shape[1]
    X, _, Yt = np.linalg.svd(A_f)
    u, t = X[:, 0], Yt[0]
    blocks = parts.Q.center.reshape(q, len(parts.Q.center) // q, q, -1)[:, :d, :, :d]
    e = _kernel_vector(W, np.einsum("a,ajbl,b->jl", u, blocks, u, optimize=True))
    u_ball, uu, tt, ee = Ball(u[None, :], 0.0), *(norm(v).square() for v in (u, t, e))

    direction = np.zeros((q, len(parts.Q.center) // q))
    direction[:, :d] = np.outer(u, e)
    beta = gauss_newton(parts, Ball(direction, inflate(frobenius(direction) * 2.0**-52))) / (uu * ee)
    kappa = Enclosure.exact(0.0)
    if W.any():
        image = times(Ball(W, 0.0), e[:, None])
        moved = times(image, t[None, :])
        direction = np.zeros((q, d + k))
        direction[:, d:] = moved.center
        kappa = gauss_newton(parts, Ball(direction, moved.radius)) / (ee * tt)
    along = matrix_inner(times(u_ball, A_f), Ball(t[None, :], 0.0)) / (uu * tt).sqrt()
    along = along + Enclosure(0.0, -parts.A_f.radius, parts.A_f.radius)
    return theorems.local_lemma_scalar(m, beta, kappa) + (top - along).positive_part()


def _kernel_vector(W: Array, M: Array) -> Array:
    """e with We = 0 to rounding and the smallest eᵀMe; if there is none, that with the smallest ‖We‖."""
    d = W.shape[1]
    _, S, Zt = np.linalg.svd(W)
    sizes = np.zeros(d)
    sizes[: len(S)] = S
    kernel = Zt[sizes <= sizes[0] * d * 2.0**-50]
    if not len(kernel):
        return Zt[-1]
    return np.asarray(smallest_eigenpair(kernel @ M @ kernel.T)[1] @ kernel, dtype=np.float64)
