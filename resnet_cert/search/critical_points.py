"""Every critical point of plain F, in closed form, for d1 ≥ q (softmax: q − 1) and ℓ convex for every p.

Φ(U, Z) = E[ℓ(Ux + Zf; y)] is convex and F(W, V) = Φ(W, W_1V), so that ∇_V F = W_1ᵀA_f and E[∇ℓ xᵀ] = g_W −
A_f(EV)ᵀ:

W_1 of full row rank   ∇F = 0 makes A_f = 0 and then ∇Φ = 0 at (W, W_1V): a global minimum of F over all (W,
V). W_1 of less rank       A_f = 0 is the same; A_f ≠ 0 makes λ_min(∇²F) < 0: a strict saddle.

So no minimum of F is spurious.  The global minima are {(W, V) : (W, W_1V) ∈ argmin Φ}; inf Φ is inf F, for
heads of full row rank are dense, but it is attained only where some (U, Z) ∈ argmin Φ has a V with U_1V = Z.
At W_1 = 0 the critical points are those V with E[∇ℓ x_1ᵀ] + A_f Vᵀ = 0, at the best predictor on what goes
round the block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

import numpy as np

from resnet_cert.compare.augmented import block_infimum, joined, on_inputs
from resnet_cert.compare.linear_minimum import LinearMinimum
from resnet_cert.compare.minimum_on_ball import best_linear_predictor
from resnet_cert.compare.recession import receding_faces, separates
from resnet_cert.decide.hessian import reduction
from resnet_cert.decide.lagrangian import Lagrangian, lagrangian, slope
from resnet_cert.moments.one_pass import observe
from resnet_cert.numerics import algebra
from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.numerics.radius import NOTHING, Array, Radius, gamma
from resnet_cert.problem.convexity import convex_everywhere
from resnet_cert.problem.losses import BuiltinLoss
from resnet_cert.problem.problem import Direction, Domain, Objective, Point, Problem
from resnet_cert.problem.span import gradient_basis, span
from resnet_cert.search.derivatives import basis

EXACT_WORK = 100_000
"""Up to so many rational operations the rank of the data is found exactly."""


@dataclass(frozen=True)
class CriticalSet:
    """Critical points that are not isolated, or not of one plane.

    kind: "minimum" (global) or "saddle".  dimension: of the set; None where it is not proven.
    value: of the objective on it.  through: one of its points, to rounding.  directions: tangent to it there.
    lambda_min: at `through`, of a saddle.
    """

    kind: str
    dimension: int | None
    value: Enclosure
    through: Point
    directions: tuple[Direction, ...] = ()
    lambda_min: Enclosure | None = None


@dataclass(frozen=True)
class ClosedForm:
    """The list.

    attained: is inf F over all (W, V)?  None where that is not proven either way.  descent: where it is not,
    a direction along which F falls without end.  why: in words.  best: the minimum of Φ.
    """

    attained: bool | None
    descent: Direction | None
    why: str
    best: LinearMinimum
    sets: tuple[CriticalSet, ...]

    @cached_property
    def infimum(self) -> Enclosure:
        """inf F over all (W, V)."""
        return block_infimum(self.best)


def why_not_listed(problem: Problem) -> str | None:
    """Why the list does not apply to F of this problem; None where it does."""
    if problem.d1 < span(problem):
        return "the block has fewer inputs than the head has outputs"
    if not convex_everywhere(problem):
        return f"the loss {problem.loss.name} is not known to be convex for every p"
    return None


def closed_form(problem: Problem) -> ClosedForm:
    """The critical points of F alone, whatever is added to it."""
    plain = replace(problem.with_features_held(), objective=Objective())
    best = best_of_block(plain)
    attained, descent, why = _attained(plain, best)
    sets = []
    if attained:
        sets.append(_minima(plain, best))
    saddle = _saddles(plain)
    if saddle is not None:
        sets.append(saddle)
    return ClosedForm(attained, descent, why, best, tuple(sets))


class Attainment(NamedTuple):
    """Is the infimum of the objective over all (W, V) attained?  None where that is not proven either way.

    descent: where it is not, a direction along which the objective falls without end.  why: in words.
    """

    attained: bool | None
    descent: Direction | None
    why: str


def attainment(problem: Problem, reached: Point | None = None) -> Attainment:
    """Is the infimum of the objective attained?

    Args:
        reached: where a search has come to, which may lie along a direction of descent.
    """
    objective = problem.objective
    if objective.is_plain:
        missing = why_not_listed(problem)
        if missing is not None:
            return Attainment(None, None, missing)
        plain = problem.with_features_held()
        return _attained(plain, best_of_block(plain), reached)
    if not problem.decayed.all() or not isinstance(problem.loss, BuiltinLoss):
        return Attainment(None, None, "not all of W is held")
    if objective.norm is not None:
        return Attainment(True, None, "a continuous function on a ball")
    return Attainment(True, None, "the objective grows on all sides")


def best_of_block(problem: Problem) -> LinearMinimum:
    """min Φ: the best linear predictor on (x, f), in the unit ball where it is not attained."""
    return best_linear_predictor(joined(problem), None, 1.0)


def head_above(problem: Problem, A: Array) -> Point:
    """(W, V) with W = U and U_1V = Z as nearly as can be, V the shortest; A = (U, Z)."""
    d, d1 = problem.d, problem.d1
    N = basis(problem)
    V = algebra.lstsq(N.T @ A[:, :d1], N.T @ A[:, d:])
    W = A[:, :d]
    return Point(W[:, :-1], V, W[:, -1]) if problem.has_bias else Point(W, V)


def _attained(problem: Problem, best: LinearMinimum, reached: Point | None = None) -> Attainment:
    U_1 = basis(problem).T @ best.W_star.center[:, : problem.d1]
    if best.attained is False:
        away = _away(problem, best, reached)
        return Attainment(
            False, away, "F falls on as W grows, for a linear function of (x, f) separates a part of the data"
        )
    if best.attained is None:
        return Attainment(None, None, "it is not known whether min Φ is attained")
    least = float(algebra.svd(U_1)[1][-1])
    radius = float(best.W_star.radius)
    slack = 64.0 * gamma(U_1.size) * float(np.linalg.norm(U_1))
    if least > radius + slack:
        return Attainment(True, None, "the minimiser of Φ has a head of full row rank")
    Z = best.W_star.center[:, problem.d :]
    if _is_blind(problem) and float(np.linalg.norm(Z)) > radius:
        V = np.zeros_like(problem.V)
        V[0] = Z[0] / float(np.linalg.norm(Z[0]))
        why = "min Φ needs features but no x: F falls to it as V grows and W goes to 0"
        return Attainment(False, Direction(np.zeros_like(problem.W), V), why)
    return Attainment(None, None, "the minimiser of Φ may have W_1 without full row rank, and then no V")


def _away(problem: Problem, best: LinearMinimum, reached: Point | None) -> Direction:
    """(U, 0) along which no loss grows, from the point reached if that is known, else for some V."""
    lifted, U = joined(problem), best.W_star.center
    if reached is not None:
        head = reached.head
        own = np.concatenate([head, head[:, : problem.d1] @ reached.V], axis=1)
        if separates(lifted, own):
            U = own
        elif (receding := _receding_head(problem, reached.V)) is not None:
            U = receding
        elif not separates(lifted, U):
            U = own
    W = U[:, : problem.d]
    return Direction(W / (float(np.linalg.norm(W)) or 1.0), np.zeros_like(problem.V))


@dataclass(frozen=True)
class _BlockRows:
    """The rows x + Vf that the head reads, made where they are read."""

    problem: Problem
    V: Array

    @property
    def shape(self) -> tuple[int, int]:
        return self.problem.n, self.problem.d

    def __getitem__(self, rows: slice) -> Array:
        chunk = self.problem.chunk(slice(*rows.indices(self.problem.n)))
        h = np.array(chunk.x)
        h[:, : self.problem.d1] += chunk.f @ self.V.T
        return h


def _receding_head(problem: Problem, V: Array) -> Array | None:
    """U along which, with this V, as many losses fall for ever as can and none grows; nothing is proven."""
    face = next(receding_faces(on_inputs(problem, _BlockRows(problem, V), problem.W)), None)
    if face is None:
        return None
    largest = max(map(abs, face.direction))
    U = np.zeros_like(problem.W)  # with softmax the last class stays where it is
    U.flat[: len(face.direction)] = [float(entry / largest) for entry in face.direction]
    return U


def _is_blind(problem: Problem) -> bool:
    """Proven: min Φ has u_1 = 0 only, for one output.

    Where Σ x_1 = 0 over the samples that agree in all else, ∂Φ/∂u_1 = E[ℓ'(zᵀf + …)x_1] = 0 at u_1 = 0 for
    every z; and where no x_1 depends on the rest, Φ is strictly convex.
    """
    if problem.q > 1 or problem.distribution.probabilities is not None:
        return False
    chunk = problem.chunk(slice(0, problem.n))
    d1 = problem.d1
    rest = np.concatenate([chunk.x[:, d1:], chunk.f, chunk.y], axis=1)
    _, group = np.unique(rest, axis=0, return_inverse=True)
    group = group.ravel()
    if group.max() + 1 > problem.n // 2:
        return False
    for member in range(int(group.max()) + 1):
        rows = chunk.x[group == member, :d1]
        if any(math.fsum(column) != 0.0 for column in rows.T):
            return False
    rank = exact_rank(np.concatenate([chunk.x, chunk.f], axis=1))
    return rank == problem.d + problem.k


# --- The sets -----------------------------------------------------------------------------------------------


def _minima(problem: Problem, best: LinearMinimum) -> CriticalSet:
    """{(W, V) : (W, W_1V) ∈ argmin Φ}: argmin Φ is the minimiser plus what the data do not see, and above
    each of its points lie the V of an affine space."""
    point = head_above(problem, best.W_star.center)
    q, effective = problem.q, span(problem)
    rank = data_rank(problem)
    dimension = None
    if rank is not None and is_strictly_convex(problem):
        unseen = effective * (problem.d + problem.k - rank)
        dimension = unseen + problem.k * (problem.d1 - effective) + problem.d * (q - effective)
    return CriticalSet("minimum", dimension, best.F_min, point, _tangents(problem, point))


def _tangents(problem: Problem, point: Point) -> tuple[Direction, ...]:
    """A basis of the kernel of (dW, dV) ↦ Nᵀ(dW x + (dW_1V + W_1dV)f) on all samples; none for large
    problems."""
    size = problem.parameters
    if size > 400 or problem.n * problem.q * size > 10**7:
        return ()
    chunk = problem.chunk(slice(0, problem.n))
    z = np.concatenate([chunk.x, chunk.f], axis=1)
    s, right = algebra.svd(z)[1:]
    seen = right[: int(np.sum(s > 1e-12 * max(s[0], 1e-300)))]
    d1, N = problem.d1, basis(problem)
    columns = []
    W_1 = point.W[:, :d1]
    for unit in np.eye(size):
        dW, dV = np.split(unit, [problem.q * problem.d])
        dW, dV = dW.reshape(problem.q, -1), dV.reshape(d1, problem.k)
        moved = np.concatenate([dW, dW[:, :d1] @ point.V + W_1 @ dV], axis=1)
        columns.append((N.T @ moved @ seen.T).ravel())
    A = np.stack(columns, axis=1)
    s, right = algebra.svd(A, full_matrices=True)[1:]
    kernel = right[int(np.sum(s > 1e-11 * max(s[0], 1e-300))) :]
    split = problem.q * problem.d
    return tuple(
        Direction(row[:split].reshape(problem.q, -1), row[split:].reshape(d1, problem.k)) for row in kernel
    )


def is_strictly_convex(problem: Problem) -> bool:
    """ℓ in the space that its gradients span, for every sample."""
    if not isinstance(problem.loss, BuiltinLoss):
        return False
    omega = problem.distribution.omega
    return omega is None or bool(np.all(np.asarray(omega[slice(None)]) > 0.0))


def data_rank(problem: Problem) -> int | None:
    """The rank of the rows (x, f), proven; None where it is not known."""
    m = problem.d + problem.k
    gram = np.zeros((m, m))
    parts = []
    small = problem.n * m * m <= EXACT_WORK
    for chunk in problem.chunks():
        z = np.concatenate([chunk.x, chunk.f], axis=1)
        gram += z.T @ z
        if small:
            parts.append(z)
    scale = np.sqrt(np.maximum(np.diagonal(gram), 0.0))
    if (scale > 0.0).all():
        scaled = gram / np.outer(scale, scale)
        # λ_min of the true matrix is at least that of the float one less its rounding.
        if float(algebra.eigvalsh(scaled)[0]) > 1e3 * m * gamma(problem.n + m + 8):
            return m
    return exact_rank(np.concatenate(parts)) if small else None


def exact_rank(rows: Array) -> int | None:
    """The rank of a matrix of floats, in rational arithmetic; None where that would take long."""
    reduced = exactly_reduced(rows)
    return None if reduced is None else len(reduced)


def exactly_reduced(rows: Array) -> dict[int, list[Fraction]] | None:
    """The reduced echelon form of a matrix of floats, in rational arithmetic: the rows that are not 0, by the
    columns of their leading 1; None where that would take long."""
    rows = np.unique(rows, axis=0)
    if rows.size * rows.shape[1] > EXACT_WORK:
        return None
    reduced: dict[int, list[Fraction]] = {}
    for row in rows:
        rest = [Fraction(float(entry)) for entry in row]
        for column, other in reduced.items():
            rest = _without(rest, other, column)
        lead = next((j for j, entry in enumerate(rest) if entry), None)
        if lead is not None:
            unit = [entry / rest[lead] for entry in rest]
            reduced = {column: _without(other, unit, lead) for column, other in reduced.items()}
            reduced[lead] = unit
        if len(reduced) == rows.shape[1]:
            break
    return reduced


def _without(row: list[Fraction], unit: list[Fraction], column: int) -> list[Fraction]:
    factor = row[column]
    return [a - factor * b for a, b in zip(row, unit, strict=True)] if factor else row


def _saddles(problem: Problem) -> CriticalSet | None:
    """The critical points at W_1 = 0 with A_f ≠ 0; None where they are not proven to exist."""
    q, d, d1, k = problem.q, problem.d, problem.d1, problem.k
    effective = span(problem)
    W = np.zeros((q, d))
    off = Radius.of(0.0)
    value: Enclosure | None = None
    if d > d1:
        around = best_linear_predictor(_around_the_block(problem), None, 1.0)
        if around.attained is not True or not math.isfinite(float(around.W_star.radius)):
            return None
        W[:, d1:] = around.W_star.center
        off, value = around.W_star.radius, around.F_min
    head = Point(W[:, :-1], np.zeros((d1, k)), W[:, -1]) if problem.has_bias else Point(W, np.zeros((d1, k)))
    there = replace(problem, point=head, domain=Domain())
    here = observe(there, 1.0).here
    N = basis(problem)
    A_f, G = N.T @ here.A_f.center, N.T @ here.g_W.center[:, :d1]
    # The head off the block is known within `off`, and ∇ℓ changes by at most μ·off along it.
    spread = here.A_f.radius
    if float(off):
        chunk_bound = _largest_slope_change(problem, W, off)
        if chunk_bound is None:
            return None
        spread = spread + chunk_bound
    s = algebra.svd(A_f)[1]
    if len(s) < effective or not s[-1] > 4.0 * float(spread) + 64.0 * gamma(A_f.size) * s[0]:
        return None
    V = -algebra.lstsq(A_f, G).T
    through = replace(head, V=V)
    point = replace(problem, point=through, domain=Domain())
    return CriticalSet(
        "saddle",
        d1 * (k - effective),
        here.F if value is None else value,
        through,
        lambda_min=judged(point).of_F.lambda_min,
    )


def _around_the_block(problem: Problem) -> Problem:
    """The linear predictors on what goes round the block."""
    d1 = problem.d1
    x = np.concatenate([chunk.x[:, d1:] for chunk in problem.chunks(features=False)])
    return on_inputs(problem, x, np.zeros((problem.q, problem.d - d1)))


def _largest_slope_change(problem: Problem, W: Array, off: Radius) -> Radius | None:
    """‖E[∇ℓ fᵀ]‖ changes by at most E[L2‖x‖‖f‖]·off over heads that close to W."""
    whole, weight = NOTHING, 0.0
    for chunk in problem.chunks():
        x, f = Radius.row_norms(chunk.x), Radius.row_norms(chunk.f)
        suprema = problem.loss.suprema((Radius.norm(W) + off) * x, chunk.y, chunk.omega)
        if suprema is None:
            return None
        whole = whole + (suprema.second * x * f * chunk.weights).sum()
        weight += float(np.sum(chunk.weights))
    return whole / (weight * (1.0 - 2.0 * gamma(problem.n + 8))) * off


def judged(problem: Problem) -> Lagrangian:
    """∇G and λ_min(∇²G) at the problem's point, those of the Lagrangian on the rim of a ball."""
    here = observe(problem, 1.0).here
    at = slope(problem, here)
    N = None if at.tangent or at.tangent is None else gradient_basis(problem)
    parts = replace(reduction(here, problem.W, problem.d1, N), convex=problem.loss.convex)
    return lagrangian(problem, at, parts)
