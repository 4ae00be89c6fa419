"""The best linear predictor on (x, f_θ(x)): what one gets by training the last layer alone.

For all u ∈ R^d, z ∈ R^k convexity of ℓ gives, with p − uᵀx − zᵀf = (w − u)ᵀh + (Vᵀu − z)ᵀf,

    F − E[ℓ(uᵀx + zᵀf)] ≤ (w − u)ᵀg_w + (Vᵀu − z)ᵀa.

u = w, z = Vᵀw is the network itself.  With z = 0 it is the bound behind Shamir 2018, Theorem 1, whose proof
carries over: for w ≠ 0 the right side is at most ‖∇F‖√(‖w − u‖² + ‖Vᵀu − z‖²/‖w‖²).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from resnet_cert.compare.linear_predictor import LinearMinimum
from resnet_cert.moments.moments import Moments
from resnet_cert.numerics.enclosure import Array, Ball, Enclosure, difference, inner, norm, product
from resnet_cert.problem.problem import Distribution, Domain, GivenFeatures, Point, Problem
from resnet_cert.results import Augmented
from resnet_cert.theory import theorems


@dataclass(frozen=True)
class JoinedRows:
    """The rows (x, f_θ(x)) of a problem, (n, d + k), made where they are read."""

    problem: Problem

    @property
    def shape(self) -> tuple[int, int]:
        return self.problem.n, self.problem.d + self.problem.k

    def __getitem__(self, rows: slice) -> Array:
        problem = self.problem
        x = np.asarray(problem.distribution.x[rows], dtype=np.float64)
        return np.concatenate([x, problem.features.rows(rows, x, problem.chunk_rows)], axis=1)


def joined(problem: Problem) -> Problem:
    """The problem whose linear predictors are those on (x, f_θ(x)), at the network's own, (w, Vᵀw)."""
    data, point = problem.distribution, problem.point
    return replace(
        problem,
        distribution=Distribution(JoinedRows(problem), data.y, data.probabilities),
        features=GivenFeatures(np.empty((problem.n, 0))),
        point=Point(np.concatenate([point.w, point.V.T @ point.w]), np.zeros((problem.d + problem.k, 0))),
        domain=Domain(),
        regularizer=None,
        constraint=None,
    )


def network_radius(problem: Problem) -> float:
    """1.01·‖(w, Vᵀw)‖, or 1 at w = 0: a ball that holds the network's own (u, z)."""
    w, V = problem.point.w, problem.point.V
    if not w.any():
        return 1.0
    return 1.01 * theorems.hypot(norm(w), product(V.T, Ball(w, 0.0)).norm()).upper


def augmented_here(
    problem: Problem, here: Moments, gradient_norm: Enclosure, best: LinearMinimum
) -> Augmented:
    """What both bounds say at the problem's point.

    Args:
        here: the moments there.  gradient_norm: ‖∇F‖.  best: the best linear predictor of `joined`.
    """
    w, V = Ball(problem.point.w, 0.0), problem.point.V
    center, delta = best.w_star.center, best.w_star.radius
    u, z = center[: problem.d], center[problem.d :]

    def turned(radius: float) -> Ball:  # Vᵀu − z, for all (u, z) that close to the centre
        return difference(product(V.T, Ball(u, radius)), Ball(z, radius))

    lx = difference(here.g_w, product(V, here.a))  # E[ℓ' x]; with a it is E[ℓ' (x, f)]
    steepness = theorems.hypot(lx.norm(), here.a.norm())
    at_center = theorems.gap_linear_functional(
        inner(here.g_w, difference(w, Ball(u, 0.0))), inner(here.a, turned(0.0))
    )
    reach = (steepness * delta).upper
    functional = at_center + Enclosure(0.0, -reach, reach)
    on_ball = theorems.gap_linear_functional_on_ball(inner(here.g_w, w), steepness, best.r)
    functional = functional.intersect(upper=max(on_ball.upper, functional.lower))

    gap = here.F - best.F_min
    lower_bound = holds = None
    if problem.is_plain and w.center.any():
        distance = difference(w, Ball(u, delta)).norm()
        lower_bound = theorems.theorem1_refined(gap, distance, turned(delta).norm(), norm(w.center))
        holds = not lower_bound.above(gradient_norm)
    return Augmented(best.F_min, gap, functional, lower_bound, holds, best.r, best.norm.value, best.attained)
