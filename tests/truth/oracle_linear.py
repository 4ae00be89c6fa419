"""The best linear predictor in high precision: min F_lin over a ball, its minimiser, if there is one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from flint import arb, ctx, fmpq, fmpq_mat
from oracle import MOST_BITS, Sample, Truth
from oracle_algebra import Matrix, dot, largest, matrix_product, mid, norm, rational, shifted, solve


@dataclass(frozen=True)
class Minimum:
    """min F_lin over ‖w‖ ≤ r.

    value: a proven enclosure.  w_star: the minimiser of least norm, as balls whose radius is estimated from
    the residual of the optimality conditions (2^20 times the last correction), not proven.
    active: ‖w*‖ = r.

    Where the minimiser is out of reach (losses that vanish like e^{−1e98} within the ball), `value` is wide
    and w_star is unknown: balls of infinite radius.
    """

    value: arb
    w_star: list[arb]
    active: bool


def F_lin(truth: Truth, w: Sequence[arb]) -> arb:
    """E[ℓ(wᵀx; y)]."""
    with ctx.workprec(truth.bits):
        return _objective(truth, truth.x, w)[0]


def linear_minimum(truth: Truth, r: float = math.inf) -> Minimum:
    """min F_lin over ‖w‖ ≤ r, and its least-norm minimiser; r = inf only where the minimum is attained.

    The value is proven by convexity: F_lin(u) ≥ min ≥ F_lin(u) − gᵀu − ρ‖g‖ over the ball of radius ρ; ρ = r
    where the constraint is active, else ρ = 2‖u‖, taking for granted that the minimiser near u lies in there.
    Where Newton's method meets more rounding than curvature, it is tried again with twice the bits.
    """
    try:
        return _linear_minimum(truth, r)
    except ArithmeticError:
        if 2 * truth.bits > MOST_BITS:
            raise
        return linear_minimum(truth.finer, r)


def _linear_minimum(truth: Truth, r: float) -> Minimum:
    with ctx.workprec(truth.bits):
        Q = _row_space(truth.sample.x)
        if not Q or r == 0.0:
            origin = [arb(0)] * truth.d
            return Minimum(_objective(truth, truth.x, origin)[0], origin, active=bool(Q))
        z = [[mid(dot(row, q)) for q in Q] for row in truth.x]
        c, multiplier, active = [arb(0)] * len(Q), arb(0), not attained(truth.sample)
        if not active:
            c = _newton(truth, z, c, arb(0))
            active = bool(norm(c) > arb(r))
        if active:
            c, multiplier = _on_the_sphere(truth, z, arb(r))
        error = arb("inf") if multiplier is None else _distance_to_minimiser(truth, z, c, multiplier)
        u = [mid(dot(c, column)) for column in zip(*Q, strict=True)]
        w_star = [arb(entry, error) for entry in u]
        if not norm(u) <= arb(r):
            inside = arb(r) / norm(u) * (1 - arb(2) ** (8 - truth.bits))
            u = [mid(entry * inside) for entry in u]
        value, g, _ = _objective(truth, truth.x, u)
        reach = arb(r) if active else 2 * norm(u)
        lower = value - largest([dot(g, u) + reach * norm(g), arb(0)])
        if truth.sample.loss != "poisson":
            lower = largest([lower, arb(0)])
        return Minimum(lower.union(value), w_star, active)


def attained(sample: Sample) -> bool:
    """Whether F_lin has a minimiser, exactly.

    It has none iff along some u, not constant on the data, no loss ever grows: logistic, y_i uᵀx_i ≥ 0;
    Poisson, uᵀx_i ≤ 0 where y_i = 0 and uᵀx_i = 0 where y_i > 0.
    """
    if sample.loss in ("squared", "pseudo_huber"):
        return True
    rows = [[rational(entry) for entry in row] for row in sample.x]
    if sample.loss == "logistic":
        nonnegative = [[rational(yi) * e for e in row] for row, yi in zip(rows, sample.y, strict=True)]
    else:
        nonnegative = [[-entry for entry in row] for row in rows]
        nonnegative += [row for row, yi in zip(rows, sample.y, strict=True) if yi > 0]
    return not falls_for_ever(nonnegative)


def falls_for_ever(nonnegative: list[list[fmpq]]) -> bool:
    """Whether some u has row·u ≥ 0 for all rows, and not 0 for all.

    In coordinates in which the rows have full rank such u form a pointed cone, and it suffices to look at its
    extreme rays.
    """
    columns = _pivots(fmpq_mat(nonnegative))
    rows = [[row[j] for j in columns] for row in nonnegative]
    return bool(columns) and any(
        all(dot(row, [sign * entry for entry in ray]) >= 0 for row in rows)
        for ray in _rays(rows, len(columns))
        for sign in (1, -1)
    )


def _objective(truth: Truth, z: Matrix, c: Sequence[arb]) -> tuple[arb, list[arb], Matrix]:
    """E[ℓ(cᵀz; y)], its gradient and its Hessian in c."""
    derivatives = [truth.loss(dot(c, row), y) for row, y in zip(z, truth.y, strict=True)]
    value = truth.mean([value for value, _, _ in derivatives])
    first = [pi * first for pi, (_, first, _) in zip(truth.probability, derivatives, strict=True)]
    second = [pi * second for pi, (_, _, second) in zip(truth.probability, derivatives, strict=True)]
    weighted = [[s * entry for entry in row] for s, row in zip(second, z, strict=True)]
    return value, [dot(first, column) for column in zip(*z, strict=True)], matrix_product(weighted, z)


def _regularised(truth: Truth, z: Matrix, c: list[arb], multiplier: arb) -> tuple[arb, list[arb], Matrix]:
    """The same plus multiplier/2·‖c‖²."""
    value, g, H = _objective(truth, z, c)
    gradient = [mid(gj + multiplier * cj) for gj, cj in zip(g, c, strict=True)]
    return mid(value + multiplier * dot(c, c) / 2), gradient, shifted(H, multiplier)


def _newton(truth: Truth, z: Matrix, c: list[arb], multiplier: arb) -> list[arb]:
    """argmin E[ℓ(cᵀz; y)] + multiplier/2·‖c‖² from c, by Newton steps that decrease it."""
    for _ in range(1000):
        value, g, H = _regularised(truth, z, c, multiplier)
        step = [-entry for entry in solve(H, g)]
        trial = [mid(cj + sj) for cj, sj in zip(c, step, strict=True)]
        if norm(step) <= norm(c) * arb(2) ** (-truth.bits // 2):  # quadratic convergence: `trial` is right
            return trial
        slope, length = mid(dot(g, step)), arb(1)
        if -slope > abs(value) * arb(2) ** (-truth.bits // 2):  # else no decrease can be seen
            while not _regularised(truth, z, trial, multiplier)[0] <= value + length * slope / 4:
                length /= 2
                trial = [mid(cj + length * sj) for cj, sj in zip(c, step, strict=True)]
        c = trial
    raise ArithmeticError("expected Newton's method to converge")


def _on_the_sphere(truth: Truth, z: Matrix, r: arb) -> tuple[list[arb], arb | None]:
    """The minimiser with ‖c‖ = r and its multiplier λ > 0: Newton on 1/‖c(λ)‖ = 1/r, kept in a bracket.

    None instead of λ, and some point, where λ is below 2^−300 of its first bound.
    """
    c = [arb(0)] * len(z[0])
    above = mid(norm(_objective(truth, z, c)[1]) / r)  # λr² = −cᵀ∇F_lin(c) ≤ −cᵀ∇F_lin(0)
    below, multiplier, least = arb(0), above, above * arb(2) ** -300
    while multiplier > least:
        c = _newton(truth, z, c, multiplier)
        H = _regularised(truth, z, c, multiplier)[2]
        length = norm(c)
        below, above = (multiplier, above) if length > r else (below, multiplier)
        step = mid(dot(c, c) / dot(c, solve(H, c)) * (length / r - 1))
        if abs(step) <= arb(2) ** (-truth.bits // 3) * multiplier:
            multiplier = mid(multiplier + step)
            return _newton(truth, z, c, multiplier), multiplier
        least_next = below if below > 0 else multiplier / 2**40  # farther on, c(λ) is too far from c
        newton = mid(multiplier + step)
        inside = newton > least_next and newton < above
        multiplier = newton if inside else mid((least_next * above).sqrt() if below > 0 else least_next)
    return c, None


def _distance_to_minimiser(truth: Truth, z: Matrix, c: list[arb], multiplier: arb) -> arb:
    """An estimate of ‖c − c*‖, with 2^20 to spare."""
    _, g, H = _regularised(truth, z, c, multiplier)
    return mid((norm(solve(H, g)) + norm(c) * arb(2) ** (-truth.bits // 2)) * 2**20)


def _row_space(x: Sequence[Sequence[float]]) -> Matrix:
    """An orthonormal basis of the span of the rows, whose dimension is found exactly."""
    rows = [[rational(entry) for entry in row] for row in x]
    independent = _pivots(fmpq_mat([list(column) for column in zip(*rows, strict=True)]))
    basis: Matrix = []
    for row in ([arb(float(entry)) for entry in x[i]] for i in independent):
        for _ in range(2):  # the second pass removes what cancellation left
            for q in basis:
                along = dot(row, q)
                row = [mid(entry - along * qj) for entry, qj in zip(row, q, strict=True)]
        length = norm(row)
        basis.append([mid(entry / length) for entry in row])
    return basis


def _pivots(M: fmpq_mat) -> list[int]:
    """The first columns that are independent of those before them."""
    reduced, rank = M.rref()
    return [next(j for j in range(M.ncols()) if reduced[i, j] != 0) for i in range(rank)]


def _rays(constraints: list[list[fmpq]], rank: int) -> Iterator[list[fmpq]]:
    """The directions in R^rank on which rank − 1 independent constraints vanish."""
    if rank == 1:
        yield [fmpq(1)]
        return
    for subset in combinations(constraints, rank - 1):
        M = fmpq_mat([list(row) for row in subset])
        reduced, found = M.rref()
        if found < rank - 1:
            continue
        pivots = _pivots(M)
        free = next(j for j in range(rank) if j not in pivots)
        ray = [fmpq(0)] * rank
        ray[free] = fmpq(1)
        for i, pivot in enumerate(pivots):
            ray[pivot] = -reduced[i, free]
        yield ray
