"""Against linear predictors with the same weight decay, or on the same ball.

G = F + l2(‖W‖_F² + ‖V‖_F²), G_lin(U) = F_lin(U) + l2‖U‖_F², the squares over the decayed columns.
"""

from __future__ import annotations

from typing import cast

from resnet_cert.compare.consequences import bound_symbols
from resnet_cert.compare.minimum_on_ball import (
    LinearMinimum,
    best_linear_predictor,
    best_regularised,
    on_smaller_ball,
)
from resnet_cert.compare.star import Star, seen_from
from resnet_cert.moments.moments import Moments
from resnet_cert.numerics.enclosure import (
    Array,
    Ball,
    Enclosure,
    added,
    difference,
    inner,
    minimum,
    norm,
    product,
    scaled,
)
from resnet_cert.outcomes import Verdict
from resnet_cert.problem.problem import Problem
from resnet_cert.results import Constants, Regularized, RegularizedTheorem3
from resnet_cert.theory import theorems


def decayed(problem: Problem, W: Ball | Array) -> Ball:
    """W with the columns that are not decayed set to 0."""
    W = W if isinstance(W, Ball) else Ball.exact(W)
    return Ball(W.center * problem.decayed, W.radius)


def point_norm(problem: Problem) -> Enclosure:
    """‖(W, V)‖ of the point, over the decayed columns."""
    return theorems.hypot(norm(decayed(problem, problem.W).center), norm(problem.V))


def objective_at(problem: Problem, F: Enclosure) -> Enclosure:
    """G at the point."""
    return F + Enclosure.exact(problem.objective.l2) * point_norm(problem).square()


def regularized_here(
    problem: Problem,
    here: Moments,
    linear: LinearMinimum,
    star: Star,
    *,
    rho: Enclosure,
    multiplier: Enclosure | None,
    gradient_norm: Enclosure,
    constants: Constants,
    verdict: Verdict,
) -> Regularized | None:
    """The part of the report about G; None for a plain problem.

    Args:
        linear, star: the best linear predictor of F_lin.
        rho, gradient_norm: ρ and ‖∇L‖ of L = F + (ρ/2)‖(W, V)‖².  multiplier: None off the boundary.
        verdict: is the point an ε-SOPSP of G?
    """
    if problem.is_plain:
        return None
    W = Ball.exact(problem.W)
    bound = None
    if star.X is not None:
        bound = theorems.proposition_R(
            rho,
            inner(difference(W, star.U), decayed(problem, W)),
            inner(star.X, Ball.exact(problem.V)),
            gradient_norm,
            star.distance if problem.decayed.all() else difference(W, star.U).norm(),
            star.norm_X,
        )
    l2, G = problem.objective.l2, objective_at(problem, here.F)
    best = _best_of_objective(problem)
    gap = G - best.F_min
    gap_bound = theorem3 = None
    if problem.objective.norm is None:
        gap_bound = _gap_bound(problem, here, best, gradient_norm)
        theorem3 = _theorem3(problem, constants, verdict, best, linear, G)
    return Regularized(
        l2,
        problem.objective.norm,
        point_norm(problem),
        G,
        best.F_min,
        multiplier is not None,
        multiplier,
        bound,
        gap,
        gap_bound,
        theorem3,
    )


def _best_of_objective(problem: Problem) -> LinearMinimum:
    """min G_lin, on the ball of the constraint if there is one."""
    l2, most = problem.objective.l2, problem.objective.norm
    if not l2:
        return best_linear_predictor(problem, most, cast(float, most))
    return best_regularised(problem, most)


def _gap_bound(problem: Problem, here: Moments, best: LinearMinimum, gradient_norm: Enclosure) -> Enclosure:
    """The least of the upper bounds of G − min G_lin at the point: its own numbers, no Lipschitz constant."""
    l2, V, W = Enclosure.exact(problem.objective.l2), Ball.exact(problem.V), problem.W
    U = best.W_star
    apart = difference(W, U)
    slope = added(here.g_W, scaled(decayed(problem, W), l2 * 2.0))
    functional = theorems.gap_linear_functional(
        inner(apart, slope), inner(product(U[:, : problem.d1], problem.V), here.A_f)
    )
    apart_decayed = decayed(problem, apart).norm()
    measured = theorems.decayed_gap(l2, functional, norm(problem.V), apart_decayed)
    star = seen_from(problem, best)
    if star.X is None:
        return measured
    by_gradient = theorems.decayed_gap_by_gradient(
        l2, norm(problem.V), apart_decayed, inner(star.X, V), gradient_norm, apart.norm(), star.norm_X
    )
    return minimum(measured, by_gradient)


def _theorem3(
    problem: Problem,
    constants: Constants,
    verdict: Verdict,
    best: LinearMinimum,
    linear: LinearMinimum,
    G: Enclosure,
) -> RegularizedTheorem3:
    symbols = bound_symbols(problem, constants)
    if isinstance(symbols, str):
        return RegularizedTheorem3(False, None, None, None, symbols)
    bound = theorems.decayed_form(
        problem.epsilon,
        symbols.b,
        symbols.r,
        symbols.mu1,
        symbols.mu2,
        problem.objective.l2,
        norm(problem.V),
        spare=symbols.d > symbols.span,
        rank=symbols.rank,
    )
    inside = best.W_star.norm().upper <= linear.r
    on_ball = best if inside else on_smaller_ball(best, linear.r, linear.found)
    upper = on_ball.F_min + bound
    applies = verdict is Verdict.CERTIFIED
    return RegularizedTheorem3(
        applies,
        bound,
        upper,
        not G.above(upper) if applies else None,
        None if applies else f"the point is not certified an ε-SOPSP, ε = {problem.epsilon:g}",
    )
