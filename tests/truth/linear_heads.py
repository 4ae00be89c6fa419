"""The best linear predictor of any head in high precision: min F_lin over a ball, its minimiser, if any."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from flint import arb, ctx, fmpq
from heads import MOST_BITS, Array, Head, HeadTruth, Linear, balls, rationals
from oracle_algebra import (
    Matrix,
    Vector,
    dot,
    kernel,
    largest,
    mean_free,
    mid,
    norm,
    pivots,
    row_space,
    solve,
)

FAR = 1024.0
"""The radius of a ball where an infimum over all W is asked for that none attains."""


@dataclass(frozen=True)
class Minimum:
    """min F_lin over ‖W‖_F ≤ r.

    value: a proven enclosure.  W: the minimiser of least norm (q, m), as balls whose radius is estimated from
    the residual of the optimality conditions (2^20 times the last correction), not proven.
    active: ‖W‖_F = r.

    Where the minimiser is out of reach (losses that vanish like e^{−1e98} within the ball), `value` is wide
    and W is unknown: balls of infinite radius.
    """

    value: arb
    W: Matrix
    active: bool

    @property
    def norm(self) -> arb:
        return norm([entry for row in self.W for entry in row])


def minimum(
    truth: HeadTruth,
    r: float = math.inf,
    *,
    rows: Array | None = None,
    decay: bool = False,
    near: Array | None = None,
    multiplier: float = 0.0,
) -> Minimum:
    """min over ‖W‖_F ≤ r of F_lin, with decay of G_lin = F_lin + l2‖W‖², and its least-norm minimiser.

    The value is proven by convexity: F_lin(U) ≥ min ≥ F_lin(U) − ⟨g, U⟩ − ρ‖g‖ over the ball of radius ρ;
    ρ = r where the constraint is active, else ρ = 2‖U‖, taking for granted that the minimiser near U lies in
    there.  Where Newton's method meets more rounding than curvature, it is tried again with twice the bits.

    Args:
        r: infinite only where the minimum is attained, or with decay.
        rows: (n, m), the inputs of the head by default.
        near, multiplier: about the minimiser and the multiplier λ of ‖W‖²/2, 0 inside the ball or next to
            it: where the search begins.
    """
    try:
        return _Search(truth, truth.head.inputs if rows is None else rows, decay).minimum(r, near, multiplier)
    except ArithmeticError:
        if 2 * truth.bits > MOST_BITS:
            raise
        return minimum(truth.finer, r, rows=rows, decay=decay, near=near, multiplier=multiplier)


class _Search:
    """F_lin (G_lin) as a function of c, W = N C Q: the coordinates in which it has one minimiser at most.

    N: the span of the gradients of the loss.  Q: the rows' span; with decay all of R^m.
    """

    def __init__(self, truth: HeadTruth, rows: Array, decay: bool) -> None:
        self.truth, m, q = truth, rows.shape[1], truth.q
        head = truth.head
        with ctx.workprec(truth.bits):
            self.N = mean_free(q) if head.loss == "softmax" else balls(np.eye(q))
            self.Q: Matrix = balls(np.eye(m)) if decay else row_space(rationals(rows))
            self.whole = Linear(truth, balls(rows))
            z = [[mid(dot(row, e)) for e in self.Q] for row in self.whole.rows]
            self.reduced = Linear(truth, z, self.N)
            self.size = len(self.N[0]) * len(self.Q)
            decays = np.ones(m)
            if head.c is not None and not head.decay_bias:
                decays[truth.d - 1] = 0.0
            self.decays = [2 * arb(head.l2 if decay else 0.0) * int(on) for on in decays]
            self.free = rows[:, decays == 0.0] if decay and head.l2 else rows

    def minimum(self, r: float, near: Array | None, multiplier: float) -> Minimum:
        with ctx.workprec(self.truth.bits):
            if not self.size or r == 0.0:
                origin = [[arb(0)] * len(self.whole.rows[0]) for _ in self.N]
                return Minimum(self.whole.at(origin)[0], origin, active=bool(self.size))
            c = [arb(0)] * self.size if near is None else self._coordinates(balls(near))
            lam, active = arb(0), multiplier > 0.0
            if near is None and not attained(self.truth.head, self.free):
                r, active = FAR if math.isinf(r) else r, True
            if not active:
                c = self.newton(c, lam)
                active = bool(norm(c) > arb(r))
            if active:
                c, lam = self.on_sphere(arb(r), c, arb(multiplier))
            error = arb("inf") if lam is None else self.distance(c, lam)
            U = self._predictor(c)
            W = [[arb(entry, error) for entry in row] for row in U]
            size = norm([e for row in U for e in row])
            if not size <= arb(r):
                inside = arb(r) / size * (1 - arb(2) ** (8 - self.truth.bits))
                U = [[mid(entry * inside) for entry in row] for row in U]
            u = [entry for row in U for entry in row]
            value, g, _ = self.whole.at(U)
            decays = self.decays * len(U)
            value += dot(decays, [e * e for e in u]) / 2
            g = [gj + l * e for gj, l, e in zip(g, decays, u, strict=True)]
            reach = arb(r) if active else 2 * norm(u)
            lower = value - largest([dot(g, u) + reach * norm(g), arb(0)])
            if self.truth.head.loss != "poisson":
                lower = largest([lower, arb(0)])
            return Minimum(lower.union(value), W, active)

    def _coordinates(self, W: Matrix) -> Vector:
        rows = [[dot(n, column) for column in zip(*W, strict=True)] for n in zip(*self.N, strict=True)]
        return [mid(dot(row, e)) for row in rows for e in self.Q]

    def _matrix(self, c: Vector) -> Matrix:
        m = len(self.Q)
        return [c[i : i + m] for i in range(0, len(c), m)]

    def _predictor(self, c: Vector) -> Matrix:
        turned = [[dot(row, column) for column in zip(*self.Q, strict=True)] for row in self._matrix(c)]
        return [[mid(dot(n, column)) for column in zip(*turned, strict=True)] for n in self.N]

    def at(self, c: Vector, lam: arb) -> tuple[arb, Vector, Matrix]:
        """The value, gradient and Hessian in c, with λ/2·‖c‖² added."""
        try:
            value, g, H = self.reduced.at(self._matrix(c))
        except ValueError as fault:  # of a power series about a ball that is too wide
            raise ArithmeticError("expected narrower predictions") from fault
        square = [lam] * self.size
        if len(self.Q) == len(self.decays):  # with decay Q is the identity
            square = [lam + e for e in self.decays * len(self.N[0])]
        gradient = [mid(gj + s * cj) for gj, s, cj in zip(g, square, c, strict=True)]
        H = [[e + square[i] if i == j else e for j, e in enumerate(row)] for i, row in enumerate(H)]
        return mid(value + dot(square, [cj * cj for cj in c]) / 2), gradient, H

    def newton(self, c: Vector, lam: arb) -> Vector:
        """argmin of `at`, from c, by Newton steps that decrease it."""
        for _ in range(1000):
            value, g, H = self.at(c, lam)
            step = [-entry for entry in solve(H, g)]
            trial = [mid(cj + sj) for cj, sj in zip(c, step, strict=True)]
            if norm(step) <= norm(c) * arb(2) ** (-self.truth.bits // 2):  # quadratic convergence
                return trial
            slope, length = mid(dot(g, step)), arb(1)
            if -slope > abs(value) * arb(2) ** (-self.truth.bits // 2):  # else no decrease can be seen
                while not self.at(trial, lam)[0] <= value + length * slope / 4:
                    length /= 2
                    trial = [mid(cj + length * sj) for cj, sj in zip(c, step, strict=True)]
            c = trial
        raise ArithmeticError("expected Newton's method to converge")

    def on_sphere(self, r: arb, c: Vector, near: arb) -> tuple[Vector, arb | None]:
        """The minimiser with ‖c‖ = r and its multiplier λ > 0: Newton on 1/‖c(λ)‖ = 1/r, kept in a bracket.

        None instead of λ, and some point, where λ is below 2^−300 of its first bound.
        """
        if near > 0:
            found = self.met(r, c, near)
            if found is not None:
                return found
        at_zero = self.at([arb(0)] * self.size, arb(0))[1]
        above = mid(norm(at_zero) / r)  # λr² = −cᵀ∇F_lin(c) ≤ −cᵀ∇F_lin(0)
        below, lam, least = arb(0), above, above * arb(2) ** -300
        while lam > least:
            c = self.newton(c, lam)
            H, length = self.at(c, lam)[2], norm(c)
            below, above = (lam, above) if length > r else (below, lam)
            step = mid(dot(c, c) / dot(c, solve(H, c)) * (length / r - 1))
            if abs(step) <= arb(2) ** -20 * lam:
                found = self.met(r, c, lam)
                if found is not None:
                    return found
            least_next = below if below > 0 else lam / 2**40  # farther on, c(λ) is too far from c
            newton = mid(lam + step)
            inside = newton > least_next and newton < above
            lam = newton if inside else mid((least_next * above).sqrt() if below > 0 else least_next)
        return c, None

    def met(self, r: arb, c: Vector, lam: arb) -> tuple[Vector, arb] | None:
        """c and λ with ‖c‖ = r by Newton's method on both, from near by; None where it does not arrive."""
        for _ in range(12):
            _, g, H = self.at(c, lam)
            bordered = [[*row, cj] for row, cj in zip(H, c, strict=True)] + [[*c, arb(0)]]
            *step, of_lam = solve(bordered, [*g, (dot(c, c) - r * r) / 2])
            c = [mid(cj - sj) for cj, sj in zip(c, step, strict=True)]
            lam = mid(lam - of_lam)
            if norm(step) <= norm(c) * arb(2) ** (-self.truth.bits // 2):
                return (c, lam) if lam > 0 else None
        return None

    def distance(self, c: Vector, lam: arb) -> arb:
        """An estimate of ‖c − c*‖, with 2^20 to spare."""
        _, g, H = self.at(c, lam)
        return mid((norm(solve(H, g)) + norm(c) * arb(2) ** (-self.truth.bits // 2)) * 2**20)


def attained(head: Head, rows: Array | None = None) -> bool:
    """Whether F_lin has a minimiser, exactly; rows: the inputs of the head by default.

    It has none iff along some U, not constant on the data, no loss ever grows: where a label is 1 or 0 (u·x
    of an output: ≥ 0 or ≤ 0), a count is 0 (≤ 0), and a class has no part (none of these ever gains on one
    that has, all of which stay level); u·x = 0 for any other label and count.
    """
    x, y, q = rationals(head.inputs if rows is None else rows), head.y, head.q
    if head.loss == "softmax":
        nonnegative, zero = [], []
        for row, target in zip(x, y, strict=True):
            own = int(np.argmax(target))
            for a in set(range(q)) - {own}:
                signs = [(b == own) - (b == a) for b in range(q - 1)]  # the last row of U is 0
                ahead = [sign * e for sign in signs for e in row]
                (zero if target[a] > 0.0 else nonnegative).append(ahead)
        return not falls_for_ever(nonnegative, zero)
    if head.loss not in ("logistic", "poisson"):
        return True
    signs = {0.0: -1, 1.0: 1} if head.loss == "logistic" else {0.0: -1}
    return not any(
        falls_for_ever(
            [[signs[t] * e for e in row] for row, t in zip(x, column, strict=True) if t in signs],
            [row for row, t in zip(x, column, strict=True) if t not in signs],
        )
        for column in y.T.tolist()
    )


def falls_for_ever(nonnegative: Matrix, zero: Sequence[Vector] = ()) -> bool:
    """Whether some u has row·u ≥ 0 for all of the first rows, not 0 for all, and row·u = 0 for the others.

    In coordinates in which the rows have full rank such u form a pointed cone, and it suffices to look at its
    extreme rays.
    """
    if not nonnegative or not nonnegative[0]:
        return False
    free = kernel(list(zero), len(nonnegative[0]))
    if not free:
        return False
    nonnegative = [[dot(row, z) for z in free] for row in nonnegative]
    columns = pivots(nonnegative)
    rows = [[row[j] for j in columns] for row in nonnegative]
    return bool(columns) and any(
        all(dot(row, [sign * entry for entry in ray]) >= 0 for row in rows)
        for ray in _rays(rows, len(columns))
        for sign in (1, -1)
    )


def _rays(constraints: Sequence[Vector], rank: int) -> Iterator[list[fmpq]]:
    """The directions in R^rank on which rank − 1 independent constraints vanish."""
    for subset in combinations(constraints, rank - 1):
        found = kernel(list(subset), rank)
        if len(found) == 1:
            yield found[0]
