"""Definition 1 decided in Arb, and exactly where the numbers are rational (`--arithmetic ball`).

float64 cannot tell margins of a few units in the last place, nor an exact zero, and at extreme scales it
loses all of a number.  Here the moments are formed again from the same float64 data, in ball arithmetic at
rising precision (python-flint), with ℓ, ∇ℓ, ∇²ℓ evaluated there as well, so that nothing is assumed of an
elementary function.  For the squared losses they are rational numbers and are formed as such; then every
comparison is decided, equality included:

    a point where ker W_1 ≠ 0 is a 0-SOPSP   ⇔   g_W = 0 and A_f = 0.

The curvature is decided by the S(t) of `decide.hessian` with the rows Y of W_1 that are independent in place
of an orthonormal basis, dV = YᵀM + dV_⊥: with G = YYᵀ, T = W_1Yᵀ, P = I − YᵀG⁻¹Y and τ = c_V + t > 0,

    S(t) = [ Q_hh + c + t − A_fA_fᵀ/τ ⊗ P    Q_hf(I ⊗ T) + A_f ⊗ Yᵀ ]
           [ ·                               TᵀQ_ff T + τ G ⊗ I      ],

rational operations only, t = √(μ2 ε) apart.  ∇²L + tI is positive semidefinite iff S(t) is.  For τ = 0 the
block of dV_⊥ vanishes, and then it is so iff A_f = 0.  Where W_1 has the rank d1, Y = I and there is no
condition on τ.  On z^⊥ it is S(t) + τ/‖P z_V‖² ζζᵀ, or S(t) on ζ^⊥ where P z_V = 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from flint import arb, ctx, fmpq_mat

from resnet_cert.decide.definition1 import Proven
from resnet_cert.decide.lagrangian import decayed, on_boundary
from resnet_cert.moments.moments import Moments as Float64Moments
from resnet_cert.numerics import fields
from resnet_cert.numerics.enclosure import QUIET, Enclosure
from resnet_cert.numerics.fields import (
    BALLS,
    RATIONALS,
    Field,
    at_most,
    in_float64,
    independent_rows,
    inner,
    is_positive_semidefinite,
    outward,
    root,
)
from resnet_cert.numerics.progress import told
from resnet_cert.problem.losses import BuiltinLoss, Elementary
from resnet_cert.problem.problem import Chunk, Direction, Problem

PRECISIONS = (128, 512, 4096)
"""Bits of the balls, tried in turn until both conditions are decided."""
EXACT_WORK = 10**7
"""Largest n·q(d + k)² whose moments are formed as rational numbers."""
RATIONAL_LOSSES = ("squared", "weighted_squared")
PIECE_ROWS = 1024


def elementary() -> Elementary:
    """The functions of a loss on float64 arrays, evaluated in Arb: within one unit in the last place."""
    return Elementary(**fields.elementary())


@dataclass(frozen=True)
class Moments:
    """F, g_W (q, d), A_f (q, k), and Q as its blocks (m, m) by pairs (a, b), a ≤ b, of outputs, in a field.

    A pair whose block vanishes for every data is left out.
    """

    F: Any
    g_W: Any
    A_f: Any
    Q: dict[tuple[int, int], Any]

    def __add__(self, other: Moments) -> Moments:
        Q = {pair: block + other.Q[pair] for pair, block in self.Q.items()}
        return Moments(self.F + other.F, self.g_W + other.g_W, self.A_f + other.A_f, Q)

    def __mul__(self, factor: Any) -> Moments:
        Q = {pair: block * factor for pair, block in self.Q.items()}
        return Moments(self.F * factor, self.g_W * factor, self.A_f * factor, Q)

    def block(self, a: int, b: int) -> Any:
        """Q_ab, or None where it vanishes."""
        if a <= b:
            return self.Q.get((a, b))
        block = self.Q.get((b, a))
        return None if block is None else block.transpose()

    def cast(self, field: Field) -> Moments:
        Q = {pair: field.cast(block) for pair, block in self.Q.items()}
        return Moments(field.number(self.F), field.cast(self.g_W), field.cast(self.A_f), Q)


@dataclass(frozen=True)
class Decision:
    """What ball arithmetic proves at a point: the two conditions; F, ‖∇L‖, ρ, μ, moments to the last place.

    multiplier: μ, None inside the ball and without one.  tangent: as in `Slope`.
    at_least: λ_min(∇²L) ≥ x?  None where that is not decided.
    """

    proven: Proven
    F: Enclosure
    gradient_norm: Enclosure
    rho: Enclosure
    multiplier: Enclosure | None
    tangent: bool | None
    moments: Float64Moments
    at_least: Callable[[float], bool | None]


@QUIET
def decide(problem: Problem, loss: BuiltinLoss, mu2: float | None) -> Decision:
    """Decide Definition 1 for a built-in loss, at the least precision that does.

    Args:
        mu2: as in Definition 1; None where it is not known (then only ε = 0 fixes the threshold).
    """
    geometry = Geometry(problem)
    work = problem.n * problem.q * (problem.d + problem.k) ** 2
    tries: list[tuple[Field, int | None]] = [(BALLS, bits) for bits in PRECISIONS]
    if loss.kind in RATIONAL_LOSSES and work <= EXACT_WORK:
        tries = [(BALLS, PRECISIONS[0]), (RATIONALS, None)]
    gradient = curvature = None
    for field, bits in tries:
        with _precision(bits):
            at = moments(field, problem, loss)
            lagrange = Lagrange.at(field, problem, at)
            if gradient is None:
                gradient = lagrange.gradient_at_most(field.number(problem.epsilon))
            if curvature is None:
                curvature = curvature_at_least(field, geometry, at, lagrange, mu2)
        found = field, bits, at, lagrange
        if gradient is not None and curvature is not None:
            break
    field, bits, at, lagrange = found  # pyright: ignore[reportPossiblyUnboundVariable]
    if curvature is None and is_gram(at, lagrange):
        curvature = True

    with _precision(bits or PRECISIONS[-1]):
        in_balls = (
            (at.cast(BALLS), replace(lagrange, rho=arb(lagrange.rho))) if field.exact else (at, lagrange)
        )

    def at_least(x: float) -> bool | None:
        with _precision(bits or PRECISIONS[-1]):
            decided = holds(BALLS, geometry, *in_balls, -arb(x))
        if decided is None and field.exact:  # rational numbers take far longer, at uneven scales
            return holds(field, geometry, at, lagrange, -field.number(x))
        return decided

    arithmetic = "rational numbers" if bits is None else f"balls of {bits} bits"
    with ctx.workprec(PRECISIONS[-1]):
        norm = arb(lagrange.squared_norm).nonnegative_part().sqrt()
        return Decision(
            proven=Proven(gradient, curvature, arithmetic),
            F=outward(at.F),
            gradient_norm=outward(norm),
            rho=outward(lagrange.rho),
            multiplier=None if lagrange.multiplier is None else outward(lagrange.multiplier),
            tangent=lagrange.tangent,
            moments=rounded(problem, at),
            at_least=at_least,
        )


def _precision(bits: int | None) -> AbstractContextManager[Any]:
    return nullcontext() if bits is None else ctx.workprec(bits)


def moments(field: Field, problem: Problem, loss: BuiltinLoss) -> Moments:
    """The moments at the problem's point, every operation carried out in the field."""
    W, V, q = field.of(problem.W), field.of(problem.V), problem.q
    total: Moments | None = None
    weight = field.number(0)
    for chunk in _pieces(problem):
        weights, f = field.numbers(chunk.weights), field.of(chunk.f)
        z = _beside(field, _moved(field, field.of(chunk.x), f * V.transpose()), f)
        p, y = (_rows(_left(field, z, problem.d) * W.transpose())), _rows(field.of(chunk.y))
        omega = [None] * len(y) if chunk.omega is None else _rows(field.of(chunk.omega))
        at = [loss.ball(*args, field.number) for args in zip(p, y, omega, strict=True)]
        part = [
            (pi * l.value, [pi * g for g in l.first], [[pi * H for H in row] for row in l.second])
            for pi, l in zip(weights, at, strict=True)
        ]
        zT = z.transpose()
        first = field.matrix(len(at), q, [g for _, slope, _ in part for g in slope])
        slopes = first.transpose() * z
        Q = {}
        for a in range(q):
            for b in range(a, q):
                c = [bend[a][b] for _, _, bend in part]
                if (
                    a == b
                    or not all(_is_zero(entry) for entry in c)
                    or (total is not None and (a, b) in total.Q)
                ):
                    Q[a, b] = zT * _scaled_rows(field, c, z)
        if total is not None:
            for pair in Q.keys() - total.Q.keys():
                total.Q[pair] = field.zeros(z.ncols(), z.ncols())
        F = field.sum(value for value, _, _ in part)
        here = Moments(F, _left(field, slopes, problem.d), _right(field, slopes, problem.d), Q)
        total = here if total is None else total + here
        weight = field.sum([weight, *weights])
    assert total is not None
    return total * (field.number(1) / weight)


def _is_zero(x: Any) -> bool:
    """It is 0 itself, not a ball around it."""
    return x == 0 and (not isinstance(x, arb) or x.is_exact())


class Geometry:
    """What S(t) needs of the point alone, in rational numbers: W_1, its independent rows and their
    complement."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.z: Direction = decayed(problem)

    @property
    def sum_free(self) -> bool:
        return bool(self.problem.loss.sum_free) and self.problem.q > 1

    @cached_property
    def W_1(self) -> Any:
        return RATIONALS.of(np.ascontiguousarray(self.problem.W[:, : self.problem.d1]))

    @cached_property
    def Y(self) -> Any:
        """(ρ, d1): rows that span those of W_1, or of its differences where 1ᵀ∇ℓ = 0; I where ρ = d1."""
        d1, rows = self.problem.d1, self.W_1
        if self.sum_free:
            q = rows.nrows()
            rows = fmpq_mat(q - 1, d1, [rows[a, j] - rows[q - 1, j] for a in range(q - 1) for j in range(d1)])
        echelon = independent_rows(rows)
        return RATIONALS.identity(d1) if echelon.nrows() == d1 else echelon

    @property
    def rho(self) -> int:
        return self.Y.nrows()

    @cached_property
    def G(self) -> Any:
        return self.Y * self.Y.transpose()

    @cached_property
    def T(self) -> Any:
        """W_1Yᵀ (q, ρ)."""
        return self.W_1 * self.Y.transpose()

    @cached_property
    def P(self) -> Any:
        """(d1, d1) the projection off the rows of Y; None where ρ = d1."""
        d1 = self.problem.d1
        if self.rho == d1:
            return None
        if not self.rho:
            return RATIONALS.identity(d1)
        return RATIONALS.identity(d1) - self.Y.transpose() * self.G.inv() * self.Y

    @cached_property
    def outside(self) -> Any:
        """P z_V (d1, k); None where ρ = d1."""
        return None if self.P is None else self.P * RATIONALS.of(self.z.dV)


@dataclass(frozen=True)
class Lagrange:
    """∇L in a field: ρ, μ (None inside) and ‖∇L‖².

    tangent: λ_min is that on z^⊥; None where the sign of μ is not known, and ρ holds both.
    """

    rho: Any
    multiplier: Any
    tangent: bool | None
    squared_norm: Any

    @staticmethod
    def at(field: Field, problem: Problem, here: Moments) -> Lagrange:
        z_W, z_V = field.of(decayed(problem).dW), field.of(problem.V)
        W_1 = field.of(np.ascontiguousarray(problem.W[:, : problem.d1]))
        of_V = W_1.transpose() * here.A_f
        rho, mu, tangent = 2 * field.number(problem.objective.l2), None, False
        if on_boundary(problem):
            length = inner(z_W, z_W) + inner(z_V, z_V)
            mu = -(inner(here.g_W, z_W) + inner(of_V, z_V)) / length - rho
            if mu > 0:
                rho, tangent = rho + mu, True
            elif not mu <= 0:
                rho, tangent = rho + arb(mu).nonnegative_part(), None
        of_W, of_V = here.g_W + z_W * rho, of_V + z_V * rho
        return Lagrange(rho, mu, tangent, inner(of_W, of_W) + inner(of_V, of_V))

    def gradient_at_most(self, eps: Any) -> bool | None:
        return at_most(self.squared_norm, eps * eps)


def is_gram(here: Moments, lagrange: Lagrange) -> bool:
    """A_f = 0: ∇²L is a Gram matrix and what is added to it, so that λ_min ≥ 0.  Where it is 0, a pivot in
    balls does not tell."""
    return bool(lagrange.rho >= 0) and all(map(_is_zero, here.A_f.entries()))


def curvature_at_least(
    field: Field, at_point: Geometry, here: Moments, lagrange: Lagrange, mu2: float | None
) -> bool | None:
    """λ_min(∇²L) ≥ −√(μ2 ε), on z^⊥ where the multiplier is positive?  It is so for every μ2 where λ_min ≥
    0."""
    eps = at_point.problem.epsilon
    if mu2 is None and eps != 0.0:
        return holds(field, at_point, here, lagrange, field.number(0)) or None
    t = root(field, Fraction(mu2 or 0.0) * Fraction(eps))
    if t is None:  # irrational: no element of this field
        with ctx.workprec(PRECISIONS[-1]):
            return curvature_at_least(
                BALLS, at_point, here.cast(BALLS), replace(lagrange, rho=arb(lagrange.rho)), mu2
            )
    return holds(field, at_point, here, lagrange, t)


def holds(field: Field, at_point: Geometry, here: Moments, lagrange: Lagrange, t: Any) -> bool | None:
    """λ_min(∇²L) ≥ −t, on z^⊥ where the multiplier is positive?"""
    if lagrange.tangent is not None:
        return exceeds(field, at_point, here, lagrange.rho, t, on_sphere=lagrange.tangent)
    both = {
        exceeds(field, at_point, here, lagrange.rho, t, on_sphere=on_sphere) for on_sphere in (False, True)
    }
    return both.pop() if len(both) == 1 else None


def exceeds(
    field: Field, at_point: Geometry, here: Moments, rho: Any, t: Any, *, on_sphere: bool
) -> bool | None:
    """∇²L ⪰ −tI, on z^⊥?"""
    problem, tau = at_point.problem, t + rho
    if at_point.P is not None and not tau > 0:
        if not tau <= 0:
            return None
        if tau < 0:  # D²L is below −t on some dV_⊥; on z^⊥ there may be none
            return None if on_sphere else False
        # dV_⊥ has no curvature: its rows must vanish.  Then ∇²F is a Gram matrix, and D ⪰ −tI.
        return at_most(inner(here.A_f, here.A_f), 0) if t >= 0 or problem.decayed.all() else None
    S = shifted_hessian(field, at_point, here, rho, t)
    if on_sphere:
        S = _on_sphere(field, at_point, here, S, tau)
    elif at_point.sum_free:
        # Where c + t = 0 for a column, 1eᵀ is a null direction, and dW counts up to multiples of it alone.
        null = [j for j, on in enumerate(problem.decayed.tolist()) if _is_zero(t + (rho if on else 0))]
        last = {(problem.q - 1) * problem.d + j for j in null}
        keep = [i for i in range(len(S)) if i not in last]
        S = [[S[i][j] for j in keep if j <= i] for i in keep]
    return is_positive_semidefinite(field, S)


def shifted_hessian(field: Field, at_point: Geometry, here: Moments, rho: Any, t: Any) -> list[list[Any]]:
    """The lower triangle of S(t), over dW and M row by row, for τ = ρ + t > 0 where ρ < d1."""
    problem, rank, tau = at_point.problem, at_point.rho, t + rho
    q, d, d1, k = problem.q, problem.d, problem.d1, problem.k
    Y, T, G = field.cast(at_point.Y), field.cast(at_point.T), field.cast(at_point.G)
    A_f, zero = here.A_f, field.number(0)
    size, whole = q * d, q * d + rank * k
    S = [[zero] * (i + 1) for i in range(whole)]

    def add(i: int, j: int, value: Any) -> None:
        if j <= i:
            S[i][j] += value

    on = problem.decayed.tolist()
    for a in range(q):
        for j in range(d):
            S[a * d + j][a * d + j] += t + (rho if on[j] else 0)
    for a in range(q):
        for b in range(q):
            block = here.block(a, b)
            if block is None:
                continue
            for j in range(d):
                for l in range(d):
                    add(a * d + j, b * d + l, block[j, l])
            for r in range(rank):  # Q_hf(I ⊗ T), below the diagonal: rows of M, columns of dW
                factor = T[b, r]
                for l in range(k):
                    row = S[size + r * k + l]
                    for j in range(d):
                        row[a * d + j] += factor * block[j, d + l]
                    for s in range(rank):  # TᵀQ_ff T
                        other = factor * T[a, s]
                        for l2 in range(k):
                            add(size + r * k + l, size + s * k + l2, other * block[d + l2, d + l])
    for r in range(rank):
        for l in range(k):
            row = S[size + r * k + l]
            for a in range(q):
                for j in range(d1):
                    row[a * d + j] += A_f[a, l] * Y[r, j]
            for s in range(rank):
                add(size + r * k + l, size + s * k + l, tau * G[r, s])
    if at_point.P is not None:
        P, AA = field.cast(at_point.P), A_f * A_f.transpose() * (1 / tau)
        for a in range(q):
            for b in range(q):
                for j in range(d1):
                    for l in range(d1):
                        add(a * d + j, b * d + l, -AA[a, b] * P[j, l])
    return S


def _on_sphere(
    field: Field, at_point: Geometry, here: Moments, S: list[list[Any]], tau: Any
) -> list[list[Any]]:
    """A form that is positive semidefinite iff ∇²L + tI is on z^⊥."""
    problem, outside = at_point.problem, at_point.outside
    z_W, Y = field.of(at_point.z.dW), field.cast(at_point.Y)
    inside = Y * field.of(at_point.z.dV)
    gain = None
    if outside is not None and inner(outside, outside) != 0:
        far = field.cast(outside)
        pulled = here.A_f * far.transpose() * (1 / tau)
        z_W = field.matrix(
            problem.q,
            problem.d,
            [
                z_W[a, j] - (pulled[a, j] if j < problem.d1 else 0)
                for a in range(problem.q)
                for j in range(problem.d)
            ],
        )
        gain = tau / inner(far, far)
    zeta = [*z_W.entries(), *inside.entries()]
    if gain is not None:
        return [[entry + gain * zeta[i] * zeta[j] for j, entry in enumerate(row)] for i, row in enumerate(S)]
    pivot = max(range(len(zeta)), key=lambda i: abs(arb(zeta[i]).mid()))
    ratios = [entry / zeta[pivot] for entry in zeta]

    def at(i: int, j: int) -> Any:
        return S[i][j] if j <= i else S[j][i]

    keep = [i for i in range(len(S)) if i != pivot]
    corner = S[pivot][pivot]
    return [
        [
            at(i, j) - ratios[i] * at(pivot, j) - ratios[j] * at(i, pivot) + ratios[i] * ratios[j] * corner
            for j in keep
            if j <= i
        ]
        for i in keep
    ]


def rounded(problem: Problem, at: Moments) -> Float64Moments:
    """The same moments, each a ball around the nearest floats."""
    q, d, k = problem.q, problem.d, problem.k
    m = d + k
    if q == 1:
        Q = in_float64(at.Q[0, 0].entries(), (m, m))
    elif len(at.Q) == q:
        Q = in_float64([entry for a in range(q) for entry in at.Q[a, a].entries()], (q, m, m))
    else:
        zero = [at.F * 0] * (m * m)
        blocks = [at.block(a, b) for a in range(q) for b in range(q)]
        Q = in_float64(
            [entry for block in blocks for entry in (zero if block is None else block.entries())],
            (q, q, m, m),
        )
    return Float64Moments(
        F=outward(at.F),
        g_W=in_float64(at.g_W.entries(), (q, d)),
        A_f=in_float64(at.A_f.entries(), (q, k)),
        Q=Q,
    )


# --- Matrices of a field ------------------------------------------------------------------------------------


def _rows(M: Any) -> list[list[Any]]:
    entries, columns = M.entries(), M.ncols()
    return [entries[i * columns : (i + 1) * columns] for i in range(M.nrows())]


def _moved(field: Field, x: Any, by: Any) -> Any:
    """x with `by` added to its first columns."""
    entries, columns, moved = x.entries(), x.ncols(), by.ncols()
    if moved == columns:
        return x + by
    for i in range(x.nrows()):
        for j in range(moved):
            entries[i * columns + j] = entries[i * columns + j] + by[i, j]
    return field.matrix(x.nrows(), columns, entries)


def _beside(field: Field, x: Any, f: Any) -> Any:
    return field.matrix(
        x.nrows(), x.ncols() + f.ncols(), [v for a, b in zip(_rows(x), _rows(f), strict=True) for v in a + b]
    )


def _left(field: Field, M: Any, columns: int) -> Any:
    return field.matrix(M.nrows(), columns, [v for row in _rows(M) for v in row[:columns]])


def _right(field: Field, M: Any, columns: int) -> Any:
    return field.matrix(M.nrows(), M.ncols() - columns, [v for row in _rows(M) for v in row[columns:]])


def _scaled_rows(field: Field, factors: list[Any], a: Any) -> Any:
    return field.matrix(
        a.nrows(), a.ncols(), [c * v for c, row in zip(factors, _rows(a), strict=True) for v in row]
    )


def _pieces(problem: Problem) -> Iterator[Chunk]:
    """The samples in pieces small enough to hold as balls."""
    done = 0
    for chunk in problem.chunks():
        for start in range(0, len(chunk.y), PIECE_ROWS):
            rows = slice(start, start + PIECE_ROWS)
            parts = {name: part[rows] for name, part in vars(chunk).items() if part is not None}
            yield replace(chunk, **parts)
            done += len(parts["y"])
            told("samples in balls", done, problem.n)
