"""The best linear predictor on (x, f_θ(x)): what one gets by training the last layer alone.

For all U ∈ R^{q×d}, Z ∈ R^{q×k} convexity of ℓ gives, with p − Ux − Zf = (W − U)h + (U_1V − Z)f,

    F − E[ℓ(Ux + Zf)] ≤ ⟨W − U, g_W⟩ + ⟨U_1V − Z, A_f⟩.

U = W, Z = W_1V is the network itself.  With Z = 0 it is the bound behind Shamir 2018, Theorem 1, whose proof
carries over: for W_1 of full row rank the right side is at most ‖∇F‖√(‖W − U‖_F² + ‖W_1⁺(U_1V − Z)‖_F²).

Φ(U, Z) = E[ℓ(Ux + Zf)] is convex.  Where d1 ≥ q every Z is W_1V for a V once W_1 has full row rank, and such
W are dense: the infimum of F_θ over all (W, V) is inf Φ (`block_gap`).  For d1 < q it is a lower bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from resnet_cert.compare.consequences import gradient_of_inputs, has_enough_inputs
from resnet_cert.compare.infimum import infimum
from resnet_cert.compare.linear_minimum import LinearMinimum
from resnet_cert.compare.minimum_on_ball import best_linear_predictor, minimum_on_ball
from resnet_cert.compare.star import star
from resnet_cert.moments.executors import light
from resnet_cert.moments.moments import Moments
from resnet_cert.numerics.eigenvalues import spectral_norm
from resnet_cert.numerics.enclosure import Array, Ball, Enclosure, difference, inner, norm, product
from resnet_cert.problem.problem import Distribution, Domain, GivenFeatures, Objective, Point, Problem, Rows
from resnet_cert.results import Augmented
from resnet_cert.theory import theorems

LARGER = 10.0
"""How many times larger than the network's own (U, Z) those are that Theorem 3 compares with."""
FAR_LARGER = 1e8
"""How many times larger a predictor is that only rounding makes one: where (x, f) is dependent but for it."""
WIDE = 1e-9
"""A relative width of the infimum that may be mended."""


@dataclass(frozen=True)
class JoinedRows:
    """The rows (x, f_θ(x)) of a problem, x all that the head reads, (n, d + k), made where they are read."""

    problem: Problem

    @property
    def shape(self) -> tuple[int, int]:
        return self.problem.n, self.problem.d + self.problem.k

    def __getitem__(self, rows: slice) -> Array:
        chunk = self.problem.chunk(slice(*rows.indices(self.problem.n)))
        return np.concatenate([chunk.x, chunk.f], axis=1)


def joined(problem: Problem) -> Problem:
    """The problem whose linear predictors are those on (x, f_θ(x)), at the network's own, (W, W_1V)."""
    W = np.concatenate([problem.W, problem.W[:, : problem.d1] @ problem.V], axis=1)
    return on_inputs(problem, JoinedRows(light(problem)), W)


def on_inputs(problem: Problem, rows: Rows, W: Array, *, bias: Array | None = None) -> Problem:
    """The problem of linear predictors on other inputs: targets, weights and loss as they are."""
    data = problem.distribution
    return replace(
        problem,
        distribution=Distribution(rows, data.y, data.probabilities, None, data.omega),
        features=GivenFeatures(np.empty((problem.n, 0))),
        point=Point(W, np.zeros((W.shape[1], 0)), bias),
        domain=Domain(),
        objective=Objective(),
        comparators={},
    )


def network_radius(problem: Problem) -> float:
    """1.01·‖(W, W_1V)‖_F, or 1 at W = 0: a ball that holds the network's own (U, Z)."""
    if not problem.W.any():
        return 1.0
    moved = product(problem.W[:, : problem.d1], problem.V).norm()
    return 1.01 * theorems.hypot(norm(problem.W), moved).upper


def best_augmented(problem: Problem) -> LinearMinimum:
    """min Φ over ‖(U, Z)‖_F ≤ r; see `Augmented` for its ball.

    Where (x, f) is dependent but for rounding, the minimiser is as large as rounding is small, and what
    float64 says of F_lin there is worth nothing: then a ball of the network's own order.
    """
    size = network_radius(problem)
    best = best_linear_predictor(joined(problem), None, size)
    if best.norm.value <= FAR_LARGER * size:
        return best
    return minimum_on_ball(best.data, LARGER * size, size)


def of_like_size(problem: Problem, best: LinearMinimum) -> LinearMinimum:
    """The best predictor on (x, f), or where it is far larger than the network's own the best of that order.

    Theorem 3's bound grows with its size, and features that are linear up to rounding make it as large as
    rounding is small.
    """
    r = LARGER * network_radius(problem)
    return best if best.norm.value <= r else minimum_on_ball(best.data, r, r)


def augmented_here(
    problem: Problem, here: Moments, gradient_norm: Enclosure, best: LinearMinimum
) -> Augmented:
    """What both bounds say at the problem's point.

    Args:
        here: the moments there.  gradient_norm: ‖∇F‖.  best: the best linear predictor of `joined`.

    On a ball where the loss is not known to be convex nothing bounds the gap.
    """
    V, d, d1 = problem.V, problem.d, problem.d1
    center = best.W_star.center
    U, Z = center[:, :d], center[:, d:]
    lx = gradient_of_inputs(problem, here)
    steepness = theorems.hypot(lx.norm(), here.A_f.norm())  # ‖E[∇ℓ (x, f)ᵀ]‖_F
    turned = difference(product(U[:, :d1], V), Z)
    at_center = theorems.gap_linear_functional(
        inner(here.g_W, difference(problem.W, U)), inner(here.A_f, turned)
    )
    functional = at_center + Enclosure.around(0.0, (lx.size() + here.A_f.size()) * best.W_star.radius)
    on_ball = theorems.gap_linear_functional_on_ball(
        inner(here.g_W, Ball.exact(problem.W)), steepness, best.r
    )
    functional = functional.intersect(upper=max(on_ball.upper, functional.lower))

    gap = here.F - best.F_min
    lower_bound = holds = None
    is_convex = best.data.is_convex_on(best.r)
    if not is_convex:
        functional = Enclosure(functional.value, -math.inf, math.inf)
    if problem.is_plain and is_convex:
        U_ball, Z_ball = best.W_star[:, :d], best.W_star[:, d:]
        moved = difference(product(U_ball[:, :d1], V), Z_ball)
        norm_V = spectral_norm(V)
        seen = star(problem, U_ball, moved, best.norm, (norm_V + 1.0) * best.norm, norm_V)
        if seen.X is not None:
            lower_bound = theorems.theorem1_refined(gap, seen.distance, seen.norm_X)
            holds = not lower_bound.above(gradient_norm)
    return Augmented(best.F_min, gap, functional, lower_bound, holds, best.r, best.norm.value, best.attained)


def _is_narrow(x: Enclosure) -> bool:
    return math.isfinite(x.upper) and x.upper - x.lower <= WIDE * abs(x.upper)


def block_infimum(best: LinearMinimum) -> Enclosure:
    """inf Φ over all (U, Z), from its minimum on a ball: no radius is left in it."""
    if not best.attained:
        return infimum(best.data, best.found).F
    inside = best.falls_at_rim is False
    least = best.F_min if inside else minimum_on_ball(best.data, math.inf, math.inf).F_min
    if _is_narrow(least):
        return least
    limit = infimum(best.data).F  # of a kernel that is not known as one: a smaller predictor is about as good
    return min(least, limit, key=lambda at: at.upper).intersect(lower=max(least.lower, limit.lower))


def block_gap(problem: Problem, here: Moments, best: LinearMinimum) -> Enclosure:
    """F − inf F_θ over all (W, V): with these features none does better by more.

    It lies between 0 and F − inf Φ, and is the latter where d1 ≥ q.  For d1 < q not every (U, Z) is that of
    some (W, V).
    """
    gap = here.F - block_infimum(best)
    return Enclosure(gap.value, max(gap.lower, 0.0) if has_enough_inputs(problem) else 0.0, gap.upper)
