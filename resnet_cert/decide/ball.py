"""`--arithmetic ball`: Definition 1 decided in Arb, and exactly where the numbers are rational.

float64 cannot tell margins of a few units in the last place, nor an exact zero.  Here the moments are formed
again from the same float64 data, in ball arithmetic at rising precision (python-flint), with ℓ, ℓ', ℓ''
evaluated there as well, so that nothing is assumed of an elementary function.  For the squared loss they are
rational numbers and are formed as such; then every comparison is decided, equality included:

    a point is a 0-SOPSP   ⇔   g_w = 0 and a = 0.

For w ≠ 0 the gradient (g_w, w aᵀ) vanishes iff both do, and a = 0 leaves the Gram matrix of ℓ'', which is
positive semidefinite; at w = 0, λ_min = (β − √(β² + 4‖a‖²))/2 with β ≥ 0 is nonnegative iff a = 0.

With a regulariser l2·‖(w, V)‖² the gradient has 2·l2·(w, V) added, and the question is whether
λ_min(∇²F) ≥ −(t + 2·l2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from flint import arb, arb_mat, ctx, fmpq, fmpq_mat

from resnet_cert.decide.definition1 import Proven
from resnet_cert.moments.moments import Moments as Float64Moments
from resnet_cert.numerics.enclosure import Array, Ball, Enclosure, inflate
from resnet_cert.problem.losses import BuiltinLoss, Elementary
from resnet_cert.problem.problem import Chunk, Problem

PRECISIONS = (128, 256, 512, 1024)
"""Bits of the balls, tried in turn until both conditions are decided."""
EXACT_WORK = 10**7
"""Largest n(d + k)² whose moments are formed as rational numbers."""


def elementary() -> Elementary:
    """exp, expm1, log1p and hypot of float64 arrays, evaluated in Arb: within one unit in the last place."""

    def each(function: Callable[[Any], Any]) -> Callable[[Array], Array]:
        def apply(x: Array) -> Array:
            with ctx.workprec(128):
                values = [_nearest(function(arb(v))) for v in np.ravel(x).tolist()]
            return np.array(values, dtype=np.float64).reshape(np.shape(x))

        return apply

    root = each(lambda r: (1 + r * r).sqrt())
    return Elementary(
        exp=each(lambda x: x.exp()),
        expm1=each(lambda x: x.expm1()),
        log1p=each(lambda x: x.log1p()),
        hypot1=root,
    )


def _nearest(x: Any) -> float:
    """The midpoint as a float; what overflows is infinite."""
    return float(x.mid()) if abs(x) < arb(2) ** 1024 else math.inf


@dataclass(frozen=True)
class Field:
    """The numbers that a computation runs in: balls or rationals."""

    number: Callable[[Any], Any]
    matrix: Callable[..., Any]
    exact: bool


def _rational(x: Any) -> fmpq:
    if isinstance(x, fmpq):
        return x
    ratio = Fraction(x)
    return fmpq(ratio.numerator, ratio.denominator)


def _ball(x: Any) -> arb:
    if isinstance(x, Fraction):
        return arb(x.numerator) / x.denominator
    return arb(x)


BALLS = Field(_ball, arb_mat, exact=False)
RATIONALS = Field(_rational, fmpq_mat, exact=True)


@dataclass(frozen=True)
class Moments:
    """F, g_w (d, 1), a (k, 1), A (d, d), B (d, k), C (k, k) of a problem's point, in a field."""

    F: Any
    g_w: Any
    a: Any
    A: Any
    B: Any
    C: Any

    def __add__(self, other: Moments) -> Moments:
        return Moments(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Decision:
    """What ball arithmetic proves at a point: the two conditions; F, ‖∇F‖, moments to the last place."""

    proven: Proven
    F: Enclosure
    gradient_norm: Enclosure
    moments: Float64Moments


def decide(problem: Problem, loss: BuiltinLoss, mu2: float | None) -> Decision:
    """Decide Definition 1 for a built-in loss, at the least precision that does.

    Args:
        mu2: as in Definition 1; None where it is not known (then only ε = 0 fixes the threshold).
    """
    work = problem.n * (problem.d + problem.k) ** 2
    fields: list[tuple[Field, int | None]] = [(BALLS, bits) for bits in PRECISIONS]
    if loss.kind == "squared" and work <= EXACT_WORK:  # the only loss with rational derivatives
        fields = [(BALLS, PRECISIONS[0]), (RATIONALS, None)]
    decision = None
    for field, bits in fields:
        precision: AbstractContextManager[Any] = nullcontext() if bits is None else ctx.workprec(bits)
        with precision:
            decision = _decide(field, problem, loss, mu2, bits, decision)
        if decision.proven.gradient is not None and decision.proven.curvature is not None:
            break
    assert decision is not None
    return decision


def _decide(
    field: Field,
    problem: Problem,
    loss: BuiltinLoss,
    mu2: float | None,
    bits: int | None,
    before: Decision | None,
) -> Decision:
    at = moments(field, problem, loss)
    eps = field.number(problem.epsilon)
    squared_norm = _squared_gradient(field, problem, at)
    gradient = _at_most(squared_norm, eps * eps)
    curvature = None if before is None else before.proven.curvature
    if curvature is None:
        curvature = _curvature(field, problem, at, mu2)
    arithmetic = "rational numbers" if bits is None else f"balls of {bits} bits"
    with ctx.workprec(bits or PRECISIONS[-1]):
        root = arb(squared_norm).nonnegative_part().sqrt()
        proven = Proven(gradient, curvature, arithmetic)
        return Decision(proven, outward(arb(at.F)), outward(root), in_float64(at))


def _squared_gradient(field: Field, problem: Problem, at: Moments) -> Any:
    """‖∇F‖², or with a regulariser and c = 2·l2:  ‖g_w + cw‖² + ‖w aᵀ + cV‖_F²."""
    w = _column(field, problem.point.w)
    squared_norm = _square(at.g_w) + _square(w) * _square(at.a)
    if problem.l2:
        c = 2 * field.number(problem.l2)
        V = _matrix(field, problem.point.V)
        across = (w.transpose() * (at.g_w + V * at.a))[0, 0]  # ⟨∇F, (w, V)⟩
        size = _square(w) + sum((x * x for x in V.entries()), field.number(0))
        squared_norm += 2 * c * across + c * c * size
    return squared_norm


def moments(field: Field, problem: Problem, loss: BuiltinLoss) -> Moments:
    """The moments at the problem's point, every operation carried out in the field."""
    w, V = _column(field, problem.point.w), _matrix(field, problem.point.V)
    total, weight = None, field.number(0)
    for chunk in _pieces(problem):
        weights = [field.number(1)] * len(chunk.y) if chunk.weight is None else _numbers(field, chunk.weight)
        f = _matrix(field, chunk.f)
        h = _matrix(field, chunk.x) + f * V.transpose()
        p = (h * w).entries()
        at = [loss.ball(p_i, y_i, field.number) for p_i, y_i in zip(p, _numbers(field, chunk.y), strict=True)]
        first = field.matrix(len(at), 1, [pi * l[1] for pi, l in zip(weights, at, strict=True)])
        second = [pi * l[2] for pi, l in zip(weights, at, strict=True)]
        ch, cf = _scaled_rows(field, second, h), _scaled_rows(field, second, f)
        hT, fT = h.transpose(), f.transpose()
        value = sum((pi * l[0] for pi, l in zip(weights, at, strict=True)), field.number(0))
        part = Moments(value, hT * first, fT * first, hT * ch, hT * cf, fT * cf)
        total = part if total is None else total + part
        weight = sum(weights, weight)
    assert total is not None
    inverse = field.number(1) / weight
    return Moments(total.F * inverse, *(m * inverse for m in (total.g_w, total.a, total.A, total.B, total.C)))


def _curvature(field: Field, problem: Problem, at: Moments, mu2: float | None) -> bool | None:
    """λ_min(∇²F) ≥ −t, t = √(μ2 ε), by S(t) ⪰ 0 with rows and columns scaled by ‖w‖: no root but t."""
    if not problem.l2 and (problem.epsilon == 0.0 or mu2 == 0.0):
        return _flat(problem, at)
    if mu2 is None and problem.epsilon != 0.0:
        return None
    t_squared = Fraction(mu2 or 0.0) * Fraction(problem.epsilon)
    t = _root(field, t_squared)
    if t is None:  # irrational: no element of this field
        with ctx.workprec(PRECISIONS[-1]):
            return _curvature(BALLS, problem, _as_balls(at), mu2)
    shift = t + 2 * field.number(problem.l2)
    return _is_positive_semidefinite(field, shifted_hessian(field, problem.point.w, at, shift))


def _flat(problem: Problem, at: Moments) -> bool | None:
    """λ_min(∇²F) ≥ 0, for threshold 0.

    For d ≥ 2 or w = 0 the Hessian has a zero diagonal block, whose rows must vanish: a = 0, and then ∇²F is a
    Gram matrix.  For d = 1, w ≠ 0 it is [[A, wB + aᵀ], [·, w²C]] itself.
    """
    w = problem.point.w
    if len(w) > 1 or not w.any():
        return _at_most(_square(at.a), 0)
    field = RATIONALS if isinstance(at.F, fmpq) else BALLS
    return _is_positive_semidefinite(field, shifted_hessian(field, w, at, field.number(0)))


def shifted_hessian(field: Field, w: Array, at: Moments, t: Any) -> Any:
    """A matrix that is positive semidefinite iff ∇²F + tI is, for t > 0 (for d = 1, w ≠ 0: for every t).

    With ω = ‖w‖² it is [[A + tI − (‖a‖²/t)(I − wwᵀ/ω), ωB + waᵀ], [·, ω²C + tωI]]; at w = 0 it is
    A + (t − ‖a‖²/t)I.
    """
    column = _column(field, w)
    d, k = len(w), at.a.nrows()
    identity = field.matrix(d, d, [field.number(int(i == j)) for i in range(d) for j in range(d)])
    top = at.A + identity * t
    if not w.any():
        return top - identity * (_square(at.a) / t)
    omega = _square(column)
    if d > 1:
        top = top - (identity - column * column.transpose() * (1 / omega)) * (_square(at.a) / t)
    cross = at.B * omega + column * at.a.transpose()
    last = at.C * (omega * omega)
    rows = [[top[i, j] for j in range(d)] + [cross[i, j] for j in range(k)] for i in range(d)]
    for i in range(k):
        rows.append(
            [cross[j, i] for j in range(d)] + [last[i, j] + (t * omega if i == j else 0) for j in range(k)]
        )
    return field.matrix(d + k, d + k, [field.number(x) for row in rows for x in row])


def _is_positive_semidefinite(field: Field, S: Any) -> bool | None:
    """By LDLᵀ: positive pivots prove it, a negative one disproves it, a rational 0 needs a zero row.

    None where a ball straddles 0.
    """
    m = S.nrows()
    rows = [[S[i, j] for j in range(i + 1)] for i in range(m)]  # lower triangle
    for j in range(m):
        pivot = rows[j][j]
        if pivot < 0:
            return False
        if field.exact and pivot == 0:
            if any(rows[i][j] != 0 for i in range(j + 1, m)):
                return False
            continue
        if not pivot > 0:
            return None
        inverse = 1 / pivot
        for i in range(j + 1, m):
            factor = rows[i][j] * inverse
            for l in range(j + 1, i + 1):
                rows[i][l] -= factor * rows[l][j]
    return True


def in_float64(at: Moments) -> Float64Moments:
    """The same moments, each a ball around the nearest floats."""

    def rounded(part: Any) -> Ball:
        entries = [outward(arb(entry)) for entry in part.entries()]
        center = np.array([entry.value for entry in entries]).reshape(part.nrows(), part.ncols())
        radius = math.hypot(*(max(entry.upper - entry.value, entry.value - entry.lower) for entry in entries))
        return Ball(center, inflate(radius) if np.isfinite(center).all() else math.inf)

    vectors = (replace(ball, center=ball.center.ravel()) for ball in map(rounded, (at.g_w, at.a)))
    return Float64Moments(outward(arb(at.F)), *vectors, *map(rounded, (at.A, at.B, at.C)))


def outward(x: Any) -> Enclosure:
    """The float64 enclosure of a ball."""
    lower, upper = x.lower(), x.upper()
    value = float(x.mid())
    return Enclosure(value, _float(lower, -math.inf), _float(upper, math.inf))


def _float(x: Any, towards: float) -> float:
    """The nearest float to an exact ball, on the side of `towards`."""
    if not x.is_finite():
        return towards
    rounded = float(x)
    if math.isinf(rounded):
        return towards if rounded == towards else math.nextafter(rounded, -rounded)
    inside = arb(rounded) < x if towards > 0 else arb(rounded) > x
    return math.nextafter(rounded, towards) if inside else rounded


def _root(field: Field, square: Fraction) -> Any:
    """√square in the field; None where it is irrational and the field is exact."""
    if not field.exact:
        return (arb(square.numerator) / square.denominator).sqrt()
    roots = [math.isqrt(part) for part in (square.numerator, square.denominator)]
    if [root * root for root in roots] != [square.numerator, square.denominator]:
        return None
    return fmpq(*roots)


def _at_most(x: Any, y: Any) -> bool | None:
    if x <= y:
        return True
    return False if x > y else None


def _square(column: Any) -> Any:
    return (column.transpose() * column)[0, 0]


def _as_balls(at: Moments) -> Moments:
    return Moments(arb(at.F), *(arb_mat(m) for m in (at.g_w, at.a, at.A, at.B, at.C)))


def _numbers(field: Field, a: Array) -> list[Any]:
    return [field.number(v) for v in a.tolist()]


def _matrix(field: Field, a: Array) -> Any:
    return field.matrix(*a.shape, _numbers(field, a.ravel()))


def _column(field: Field, a: Array) -> Any:
    return _matrix(field, a.reshape(-1, 1))


def _scaled_rows(field: Field, factors: list[Any], a: Any) -> Any:
    columns = a.ncols()
    entries = a.entries()
    return field.matrix(
        a.nrows(),
        columns,
        [c * entries[i * columns + j] for i, c in enumerate(factors) for j in range(columns)],
    )


PIECE_ROWS = 1024


def _pieces(problem: Problem) -> Iterator[Chunk]:
    """The samples in pieces small enough to hold as balls."""
    for chunk in problem.chunks():
        for start in range(0, len(chunk.y), PIECE_ROWS):
            rows = slice(start, start + PIECE_ROWS)
            weight = None if chunk.weight is None else chunk.weight[rows]
            yield replace(chunk, x=chunk.x[rows], y=chunk.y[rows], f=chunk.f[rows], weight=weight)
