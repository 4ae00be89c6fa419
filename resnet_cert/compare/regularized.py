"""Against linear predictors with the same weight decay, or on the same ball.

G = F + l2(‖W‖_F² + ‖V‖_F²), G_lin(U) = F_lin(U) + l2‖U‖_F², the squares over the decayed columns.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from resnet_cert.compare.consequences import bound_symbols
from resnet_cert.compare.infimum import infimum
from resnet_cert.compare.linear_data import Data
from resnet_cert.compare.linear_minimum import LinearMinimum, Seen
from resnet_cert.compare.minimum_on_ball import (
    best_linear_predictor,
    best_regularised,
    minimum_on_ball,
    on_smaller_ball,
)
from resnet_cert.compare.star import Star, seen_from
from resnet_cert.moments.moments import Moments
from resnet_cert.numerics.enclosure import (
    QUIET,
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

INSIDE = 1.0 - 2.0**-36
"""The multiplier is that of a cylinder so much smaller, so that errors do not leave the one asked for."""
FARTHEST = 700.0
"""A power of two of a multiplier beyond which none is looked for."""
MOST_STEPS = 24
"""Towards a multiplier; where more are needed, lengths are not known well enough to tell it."""
SHORTEST = 2.0**-1022
"""A length below which none is told from another."""


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
    F_at_0: Enclosure,
) -> Regularized | None:
    """The part of the report about G; None for a plain problem.

    Args:
        linear, star: the best linear predictor of F_lin.
        rho, gradient_norm: ρ and ‖∇L‖ of L = F + (ρ/2)‖(W, V)‖².  multiplier: None off the boundary.
        verdict: is the point an ε-SOPSP of G?  F_at_0: F_lin(0).
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
    gap_bound = theorem3 = None
    if problem.objective.norm is None:
        best = best_regularised(problem)
        least = best.F_min
        gap_bound = _gap_bound(problem, here, best, gradient_norm)
        theorem3 = _theorem3(problem, constants, verdict, best, linear, G, F_at_0)
    else:
        least = least_of_objective(problem)
    return Regularized(
        l2,
        problem.objective.norm,
        point_norm(problem),
        G,
        least,
        multiplier is not None,
        multiplier,
        bound,
        G - least,
        gap_bound,
        theorem3,
        problem.objective.decays_bias,
    )


def least_on_ball(
    problem: Problem, linear: LinearMinimum, known: LinearMinimum | None = None
) -> LinearMinimum:
    """min G_lin on the ball of the best linear predictor of F_lin; known: that over all W."""
    best = known or best_regularised(problem)
    return best if best.W_star.norm().upper <= linear.r else on_smaller_ball(best, linear.r, linear.found)


def least_of_objective(problem: Problem) -> Enclosure:
    """min G_lin: the least value of the objective at V = 0, over all W that the constraint allows."""
    most = problem.objective.norm
    if most is None:
        best = best_regularised(problem)
        return best.F_min if best.attained or problem.objective.l2 else infimum(best.data, best.found).F
    if not problem.decayed.all():
        return least_in_cylinder(problem, most)
    if problem.objective.l2:
        return best_regularised(problem, most).F_min
    return best_linear_predictor(problem, most, most).F_min


@QUIET
def least_in_cylinder(problem: Problem, most: float) -> Enclosure:
    """min G_lin over ‖W'‖_F ≤ most, W' the decayed columns: the bias is as large as it likes.

    above:  G_lin(W) of some W in the cylinder, or, for a longer W', by convexity on the way to it from 0; or
            G_lin(0).
    below:  by duality, for every ρ ≥ 2·l2, min_W (F_lin + ρ/2‖W'‖²) − (ρ/2 − l2)most², which is the minimum
            at the multiplier ρ − 2·l2.  That is looked for, and need not be met.
    """
    decay, limit = 2.0 * problem.objective.l2, Enclosure.exact(most)
    found: list[Enclosure] = []

    def beyond(power: float) -> float:
        """How far W' is from a little inside the surface, in powers of two, at ρ = decay + 2^power; `found`
        is what ρ proves of the minimum."""
        rho = decay + 2.0**power
        best = minimum_on_ball(Data.of(problem, rho * problem.decayed), math.inf, math.inf)
        half = (Enclosure.exact(rho) - decay) * 0.5
        length = Ball(best.W_star.center * problem.decayed, best.found_radius).norm()
        at = best.F_at - half * length.square()
        if length.upper > most or at.upper == math.inf:
            nearer = minimum(limit / length.upper, Enclosure.exact(1.0))
            at_0 = Seen.at_0(best.data, best.found.objective).F
            on_the_way = best.data.is_convex_on(best.W_star.norm().upper)
            at = minimum(at_0, at * nearer + at_0 * (1.0 - nearer)) if on_the_way else at_0
        below = (best.F_min - half * limit.square()).lower
        found.append(Enclosure(at.value, min(below, at.upper), at.upper))
        return math.log2(max(length.value, SHORTEST)) - math.log2(most * INSIDE)

    if beyond(-math.inf) > 0.0:
        _approach_zero(beyond, math.log2(max(decay, Data.of(problem).scale)))
    least = min(found, key=lambda at: at.upper)
    return Enclosure(least.value, max(at.lower for at in found), least.upper)


def _approach_zero(of: Callable[[float], float], start: float) -> None:
    """Evaluate a decreasing function near its zero: from `start` in steps that double, then between."""
    from scipy.optimize import brentq

    of = functools.cache(of)
    step = 1.0 if of(start) > 0.0 else -1.0
    near = start
    while abs(near + step) < FARTHEST and (of(near + step) > 0.0) == (step > 0.0):
        near, step = near + step, 2.0 * step
    if abs(near + step) < FARTHEST:
        brentq(of, near, near + step, xtol=2.0**-45, maxiter=MOST_STEPS, disp=False)


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
    F_at_0: Enclosure,
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
    upper = least_on_ball(problem, linear, best).F_min + bound
    applies = verdict is Verdict.CERTIFIED
    return RegularizedTheorem3(
        applies,
        bound,
        upper,
        not G.above(upper) if applies else None,
        None if applies else f"the point is not certified an ε-SOPSP, ε = {problem.epsilon!r}",
        True if upper.above(F_at_0) else False if upper.at_most(F_at_0) else None,
    )
