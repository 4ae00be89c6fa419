"""Critical points of G = F + l2·(‖w‖² + ‖V‖_F²) for one output, in d + k unknowns whatever d·k is.

∇_V G = w_1 aᵀ + 2·l2 V = 0 makes V = w_1 bᵀ with b = −a/(2·l2) where w_1 ≠ 0, and V = 0 = w_1 bᵀ where w_1 =
0.  So the critical points are exactly the zeros (w, b) of

    E[ℓ' x] + 2·l2 (Dw − ‖b‖² E w_1) = 0,   E[ℓ' f] + 2·l2 b = 0,   p = wᵀx + ‖w_1‖² bᵀf,

E the first d1 unit vectors, D = 1 for the columns of w that are decayed.  The rows are turned to the
eigenvectors of E[(x, f)(x, f)ᵀ], as in `enclosed.InFeatures`.  Their sum with the factors (w, ‖w_1‖²b) is

    E[ℓ' p] + 2·l2 wᵀDw = 0,   and so, ℓ being convex,   F + 2·l2 wᵀDw ≤ F(0) :

no critical point is higher than 0, and w and, by E[ℓ'²] ≤ 2cF for the squared loss c/2·(p − y)², b are
bounded.  Up to `MOST_UNKNOWNS` of them branch and bound finds all with |w_i| and |V_ij| in a range, or lists
the boxes that are left (`shells`, and where ℓ'' varies and there are few unknowns `krawczyk` alone); beyond,
what a number of descents come to.  Critical points that are not isolated, `spheres` knows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from resnet_cert.numerics.balls import QUIET, Balls, Bools
from resnet_cert.numerics.krawczyk import Excluded, Zeros, zero_near, zeros
from resnet_cert.numerics.radius import NOTHING, Array, Radius, U, hypot
from resnet_cert.problem.losses import BuiltinLoss
from resnet_cert.problem.problem import Problem
from resnet_cert.problem.ranges import separable_slopes
from resnet_cert.search.branches import all_zeros
from resnet_cert.search.derivatives import Objective
from resnet_cert.search.equations import HeadAndRatio, equations
from resnet_cert.search.shells import Shells
from resnet_cert.search.solve import trust_region
from resnet_cert.search.spheres import SphereOfMinima, sphere_of_minima

MOST_UNKNOWNS = 6
BOX_WORK = 1.2e7
"""Boxes times samples, within these:"""
LEAST_BOXES, MOST_BOXES = 4_000, 300_000
BATCH_WORK = 2**16
SHELL_WORK, MOST_SHELLS = 1e6, 100_000
FEW_UNKNOWNS = 4
STARTS = 24
LESS = 1.0 - 1e-9
"""Pays for the roundings of a sum that is divided by."""


@dataclass(frozen=True)
class Found:
    """points: (w, b, how far the exact one is at most) each; complete: those are all with |w_i| ≤ reach_w and
    |V_ij| ≤ reach_V.  everywhere: it was searched, not only descended to.  left: the boxes (w, V) of which
    nothing is known, their lower and upper ends (u, d + d1·k).  sphere: further ones, wherever they are."""

    points: list[tuple[Array, Array, float]]
    complete: bool
    everywhere: bool
    left: tuple[Array, Array]
    reach_w: float
    reach_V: float
    sphere: SphereOfMinima | None


def applies(problem: Problem) -> bool:
    return (
        problem.q == 1
        and problem.objective.l2 > 0.0
        and problem.objective.norm is None
        and separable_slopes(problem.loss) is not None
        and problem.distribution.omega is None
    )


@QUIET
def search(problem: Problem, lower: Array, upper: Array) -> Found:
    """All critical points in a range, where there are few enough unknowns; otherwise what descents come to.

    Args:
        lower, upper: (2,) of the plane: |w_i| and |V_ij| go as far as it does, and to the lowest point found.
    """
    system = equations(problem)
    d, m = problem.d, problem.d + problem.k
    ends = _descents(problem, system)
    reach_w, reach_V = (float(max(abs(lower[i]), abs(upper[i]))) for i in (0, 1))
    if ends:
        lowest = min(ends, key=lambda end: end[0])[1]
        reach_w = max(reach_w, 1.2 * float(np.abs(lowest[:d]).max()))
        V = np.outer(lowest[: problem.d1], lowest[d:])
        reach_V = max(reach_V, 1.2 * float(np.abs(V).max(initial=0.0)))
    sphere = sphere_of_minima(problem, system, [end for _, end in sorted(ends, key=lambda end: end[0])])
    points: list[tuple[Array, Array, float]] = []
    complete, everywhere = False, False
    left = np.zeros((0, d + problem.d1 * problem.k))
    box = left, left
    if m <= MOST_UNKNOWNS:
        farthest = Radius.of(reach_V)
        shells = Shells(system, problem.loss, float(farthest * farthest * float(problem.d1 * problem.k)))
        most = _largest_ratio(problem, shells, reach_w, reach_V)
        if np.isfinite(most).all():
            high = np.concatenate([np.full(d, min(reach_w, _farthest_head(problem, system))), most])

            def excluded(center: Array, reach: Array) -> Bools:
                """|V_ij| = |w_i b_j| is out of the range everywhere in the box, or what is in it on the
                sphere."""
                least = np.maximum(np.abs(center) - reach, 0.0)
                entries = least[:, : problem.d1, None] * least[:, None, d:]
                beyond = np.asarray((entries * (1.0 - 8.0 * U) > reach_V).any(axis=(1, 2)))
                return beyond if sphere is None else beyond | sphere.excludes(center, reach)

            found = _all(shells, -high, high, excluded)
            complete, everywhere = found.complete, True
            box = _in_V(problem, *found.undecided)
            points = [placed(problem, *zero) for zero in zip(found.center, found.radius, strict=True)]
    if not complete:
        for _, end in ends:
            if sphere is not None and sphere.excludes(end[None], np.zeros((1, m)))[0]:
                continue
            near = zero_near(system, end)
            if near is None:
                continue
            at, radius = near
            if not any(
                np.linalg.norm(np.append(w, b) - at) <= 1e-7 * (1.0 + np.linalg.norm(at))
                for w, b, _ in points
            ):
                points.append(placed(problem, at, radius))
    return Found(points, complete, everywhere, box, reach_w, reach_V, sphere)


def _all(shells: Shells, low: Array, high: Array, excluded: Excluded) -> Zeros:
    """By one way or the other; the list of the one that is complete."""
    n, m = len(shells.system.y), shells.m

    def by_equations() -> Zeros:
        most = int(min(MOST_BOXES, max(LEAST_BOXES, BOX_WORK / n)))
        return zeros(
            [shells.system], low, high, excluded=excluded, most_boxes=most, batch=max(16, BATCH_WORK // n)
        )

    if not isinstance(shells.loss, BuiltinLoss):  # that the loss is convex is not known everywhere
        return by_equations()
    most = int(min(MOST_SHELLS, max(LEAST_BOXES, SHELL_WORK / n)))
    found = all_zeros(shells, low, high, excluded, most, max(16, BATCH_WORK // (8 * n)))
    if m > FEW_UNKNOWNS or found.complete:
        return found
    other = by_equations()
    return other if other.complete or len(other.undecided[0]) < len(found.undecided[0]) else found


def _in_V(problem: Problem, center: Array, reach: Array) -> tuple[Array, Array]:
    """Boxes (w, b) as boxes (w, V), V = w_1bᵀ."""
    d, d1, k = problem.d, problem.d1, problem.k
    w, b = Balls(center[:, :d1, None], reach[:, :d1, None]), Balls(center[:, None, d:], reach[:, None, d:])
    V = w * b
    low, high = ((end.reshape(-1, d1 * k)) for end in (V.lower, V.upper))
    return (
        np.concatenate([center[:, :d] - reach[:, :d], low], axis=1),
        np.concatenate([center[:, :d] + reach[:, :d], high], axis=1),
    )


def _largest_ratio(problem: Problem, shells: Shells, reach_w: float, reach_V: float) -> Array:
    """(k,) bounds of |b| = |E[ℓ' f]|/(2·l2) over the range."""
    d, d1, k = problem.d, problem.d1, problem.k
    system = shells.system
    if not k:
        return np.zeros(0)
    x, f = Radius(np.abs(system.z[:, :d])), Radius(np.abs(system.z[:, d:]))
    ones = Radius(np.ones_like(x.upper)), Radius(np.ones_like(f.upper))
    of_V = Radius.of(reach_w) * Radius.of(reach_V) * float(d1)
    reach = (x.inner(ones[0]) * reach_w + f.inner(ones[1]) * of_V).upper
    least, most = np.maximum(-reach, shells.within[0]), np.minimum(reach, shells.within[1])
    slopes = system.slopes(Balls.between(least, most)[None], system.y)
    weight, columns = Radius(system.weight.size), Radius(f.upper.T)

    def mean(size: Radius) -> Radius:
        """(k,) of E[size·|f|]."""
        each = size * weight
        return columns.inner(Radius(np.broadcast_to(each.upper, columns.upper.shape)))

    bound = mean(Radius(slopes.first.size[0])) / (2.0 * system.l2)
    if isinstance(problem.loss, BuiltinLoss) and problem.loss.kind == "squared":
        # E|ℓ' f| ≤ √(E r² E f²), E r² ≤ E y² with the factor of the loss in the weights
        y, square = Radius(np.abs(system.y)), columns * columns
        of_f = square.inner(Radius(np.broadcast_to(weight.upper, square.upper.shape)))
        by_level = (y * y * weight).sum().sqrt() * of_f.sqrt() / (2.0 * system.l2)
        bound = bound.capped(by_level.upper)
    return np.asarray(bound.upper)


def _farthest_head(problem: Problem, system: HeadAndRatio) -> float:
    """sup ‖w‖ of a critical point: F(0)/(2·l2) bounds its square, for a convex loss that is never below 0."""
    if not (problem.loss.nonnegative and problem.loss.convex and problem.decayed.all()):
        return math.inf
    total, weight = NOTHING, 0.0
    for chunk in problem.chunks():
        at = problem.loss.derivatives(np.zeros_like(chunk.y), NOTHING, chunk.y, chunk.omega)
        total = total + ((Radius.size(at.value) + at.value_error) * chunk.weights).sum()
        weight += float(np.sum(chunk.weights))
    return float((total / (weight * LESS) / (2.0 * system.l2)).sqrt())


def placed(problem: Problem, at: Array, radius: Array) -> tuple[Array, Array, float]:
    """w, b, and how far (w, w_1bᵀ) is at most from that of any (w, b) in the box."""
    d, d1 = problem.d, problem.d1
    w, rw = (Radius(np.abs(part)[:, None]) for part in (at[:d1], radius[:d1]))
    b, rb = (Radius(np.abs(part)) for part in (at[d:], radius[d:]))
    V = rw * (b + rb) + w * rb + w * b * (4.0 * U)
    return at[:d], at[d:], float(hypot(Radius.norm(radius[:d]), Radius.norm(V.upper)))


def _descents(problem: Problem, system: HeadAndRatio) -> list[tuple[float, Array]]:
    """(G, (w, b)) where descents from various starts end."""
    function = Objective(problem)
    rng = np.random.default_rng(0)
    z = function.flat(problem.point)
    starts = [z] + [rng.standard_normal(len(z)) * 2.0 ** rng.integers(-3, 3) for _ in range(STARTS)]
    ends = []
    for start in starts:
        if not math.isfinite(function.at(start)[0]):
            continue
        end = trust_region(function, start, 1e-11, lambda z: None, most=200)
        W, V = function.head(end)
        w_1 = W[0, : problem.d1]
        square = float(w_1 @ w_1)
        b = V.T @ w_1 / square if square > 1e-300 else np.zeros(problem.k)
        if square <= 1e-20:  # near w_1 = 0 the ratio is −a/(2·l2)
            function.at(end)
            b = -function._A_f[0] / (2.0 * problem.objective.l2)
        ends.append((function.at(end)[0], np.concatenate([W[0], b])))
    return ends
