"""F and F_lin(W) in balls, where their difference is lost in the rounding of float64.

The data are the same floats, and only the working precision is rounded.  With ∇F_lin(W) beside it, for every
λ > 0 and every ρ

    min F_lin on ‖W‖_F ≤ ρ  ≥  F_lin(W) + λ/2(‖W‖² − ρ²) − ‖∇F_lin(W) + λW‖²/(2λ).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from flint import arb, ctx

from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.numerics.fields import BALLS, inner, outward
from resnet_cert.numerics.radius import Array
from resnet_cert.problem.losses import BuiltinLoss
from resnet_cert.problem.problem import Problem

BITS = 192
STEPS, STEPS_TO_END = 40, 2
ON_PATH, AIM, LEAP = 2.0**-8, 2.0**-26, 2.0**-16
"""Of Newton's method: the decrement at which λ moves on, and how far below F it is to end, both relative to
λ‖W‖²; and to which part of itself λ falls at most in a step."""


@dataclass(frozen=True)
class Fine:
    """A problem with a built-in loss in balls.

    known: what encloses F; the network's own F is taken where it lies in there.
    """

    problem: Problem
    known: Enclosure

    @cached_property
    def F(self) -> arb:
        with ctx.workprec(BITS):
            known = arb(self.known.lower).union(arb(self.known.upper))
            if self.known.lower == self.known.upper:
                return known
            W_1 = BALLS.of(np.ascontiguousarray(self.problem.W[:, : self.problem.d1]))
            own = self._sums(BALLS.of(self.problem.W), W_1 * BALLS.of(self.problem.V)).value
            return own if known.contains(own) else known

    def at(self, W: Array) -> FineAt:
        """F_lin at W (q, d)."""
        with ctx.workprec(BITS):
            exact = BALLS.of(W)
            at = self._sums(exact, None)
            return FineAt(exact, self.F - at.value, at.slope)

    def minimiser(self, W: Array) -> FineAt:
        """The minimiser of F_lin, from W (q, d) that is the one to float64, by Newton's method."""
        with ctx.workprec(BITS):
            at = BALLS.of(W)
            for _ in range(1 if self.problem.loss.concordance == 0.0 else STEPS_TO_END):
                here = self._sums(at, None, curved=True)
                solved = _solved(here.curvature, here.slope)
                if solved is None:
                    break
                at = _middle(at - solved[0])
            here = self._sums(at, None)
            return FineAt(at, self.F - here.value, here.slope)

    def on_path(self, W: Array, lam: float, narrow: float) -> FineAt | None:
        """The minimiser of F_lin + λ/2‖W‖_F², for a λ where F_lin is about F, by Newton's method.

        It says which predictors do as well as F up to a relative width of `narrow`; None where it does not.

        Args:
            W: (q, d) that for `lam`, to float64.
        """
        if not (0.0 < lam < math.inf and np.isfinite(W).all()):
            return None
        with ctx.workprec(BITS):
            at, multiplier = BALLS.of(W), arb(lam)
            for _ in range(STEPS):
                here = self._sums(at, None, curved=True)
                found = FineAt(at, self.F - here.value, here.slope)
                if found.is_enough and found.too_small >= found.norm * (1.0 - narrow):
                    return found
                rest, square = here.slope + at * multiplier, inner(at, at)
                K = here.curvature + BALLS.identity(W.size) * multiplier
                solved = _solved(K, rest, at)
                if solved is None:
                    return None
                step, turn = solved
                bend = multiplier * inner(at, turn)
                at = _middle(at - step)
                if not (bend > 0 and inner(rest, step) < ON_PATH * multiplier * square):
                    continue
                less = multiplier * min(square, bend, key=lambda size: float(size.mid())) * AIM
                excess = inner(here.slope, step) + found.above - less  # F, a little less, minus F_lin
                ratio = float((1 + excess / (multiplier * bend)).mid())
                ratio = min(max(ratio, LEAP), 1.0 / LEAP) if math.isfinite(ratio) else LEAP
                at = _middle(at - turn * multiplier * (ratio - 1.0 if 0.5 < ratio < 2.0 else math.log(ratio)))
                multiplier = (multiplier * ratio).mid()
            return None

    @cached_property
    def _data(self) -> tuple[Any, Any, list[list[Any]], list[list[Any] | None], list[Any]]:
        """x, f, the rows of y and ω, and π, of all samples."""
        chunks = list(self.problem.chunks())
        x, f, y = (np.concatenate([getattr(c, part) for c in chunks]) for part in ("x", "f", "y"))
        some = [c.omega for c in chunks if c.omega is not None]
        weights = np.concatenate(some) if some else []
        omega: list[list[Any] | None] = [BALLS.numbers(row) for row in weights] or [None] * len(y)
        pi = BALLS.numbers(np.concatenate([c.weights for c in chunks]))
        return BALLS.of(x), BALLS.of(f), [BALLS.numbers(row) for row in y], omega, pi

    def _sums(self, W: Any, Z: Any | None, *, curved: bool = False) -> Sums:
        """E[ℓ(Wx + Zf; y)] and its derivatives in W."""
        x, f, y, omega, pi = self._data
        loss, q = cast(BuiltinLoss, self.problem.loss), self.problem.q
        p = x * W.transpose()
        p = (p if Z is None else p + f * Z.transpose()).entries()
        at = [
            loss.ball(p[i * q : (i + 1) * q], targets, weights, BALLS.number)
            for i, (targets, weights) in enumerate(zip(y, omega, strict=True))
        ]
        total = BALLS.sum(pi)
        pi = [weight / total for weight in pi]
        value = BALLS.sum(weight * here.value for weight, here in zip(pi, at, strict=True))
        slopes = [weight * g for weight, here in zip(pi, at, strict=True) for g in here.first]
        slope = BALLS.matrix(len(pi), q, slopes).transpose() * x
        return Sums(value, slope, self._curvature(pi, at) if curved else None)

    def _curvature(self, pi: list[Any], at: list[Any]) -> Any:
        """(qd, qd) E[∇²ℓ ⊗ xxᵀ]."""
        x, q, d = self._data[0], self.problem.q, self.problem.d
        rows, xT = x.tolist(), x.transpose()
        K = [[BALLS.number(0)] * (q * d) for _ in range(q * d)]
        for a in range(q):
            for b in range(a + 1):
                c = [weight * here.second[a][b] for weight, here in zip(pi, at, strict=True)]
                if a != b and not any(c):
                    continue
                block = xT * BALLS.matrix([[ci * v for v in row] for ci, row in zip(c, rows, strict=True)])
                for i in range(d):
                    for j in range(d):
                        K[a * d + i][b * d + j] = K[b * d + j][a * d + i] = block[i, j]
        return BALLS.matrix(K)


@dataclass(frozen=True)
class Sums:
    """E[ℓ], its gradient (q, d) and its second derivatives (qd, qd), if they are wanted."""

    value: arb
    slope: Any
    curvature: Any | None


@dataclass(frozen=True)
class FineAt:
    """At W (q, d), above: F − F_lin(W), and slope: ∇F_lin(W)."""

    W: Any
    above: arb
    slope: Any

    @property
    def is_enough(self) -> bool:
        """Proven: F_lin(W) ≤ F."""
        return bool(self.above >= 0)

    @property
    def above_at_most(self) -> float:
        """F − F_lin(W), or 0 where it is less."""
        return max(outward(self.above).upper, 0.0)

    @property
    def norm(self) -> float:
        """‖W‖_F, rounded up."""
        return _norm(self.W).upper

    @property
    def is_enough_from(self) -> float:
        """A radius on which some predictor does as well as F; ∞ where this one is not known to."""
        return self.norm if self.is_enough else math.inf

    @property
    def steepness(self) -> float:
        """‖∇F_lin(W)‖, rounded up."""
        return _norm(self.slope).upper

    @property
    def too_small(self) -> float:
        """A ρ such that F_lin > F on ‖W‖_F ≤ ρ, by duality; 0 where it proves none."""
        with ctx.workprec(BITS):
            square = inner(self.W, self.W)
            lam = -inner(self.slope, self.W) / square  # ∇F_lin(W) is about −λW
            if not lam > 0:
                return 0.0
            rest = self.slope + self.W * lam
            square = square - 2 * self.above / lam - inner(rest, rest) / lam**2
            return outward(square.sqrt()).lower * (1.0 - 2.0**-52) if square > 0 else 0.0

    def margin(self, U: Array, distance: float) -> float:
        """inf F_lin − F at least, where it is attained within that distance of U (q, d): by convexity it is
        at least F_lin(W) − ‖∇F_lin(W)‖‖W − W*‖."""
        with ctx.workprec(BITS):
            away = arb(_norm(self.W - BALLS.of(U)).upper) + distance
            return outward(-self.above - arb(self.steepness) * away).lower


def _norm(M: Any) -> Enclosure:
    with ctx.workprec(BITS):
        return outward(inner(M, M).nonnegative_part().sqrt())


def _middle(M: Any) -> Any:
    return BALLS.matrix(M.nrows(), M.ncols(), [entry.mid() for entry in M.entries()])


def _solved(K: Any, *right: Any) -> list[Any] | None:
    """About K⁻¹ of some (q, d), row by row; None where K is singular."""
    q, d = right[0].nrows(), right[0].ncols()
    rows = [list(row) for row in zip(*(M.entries() for M in right), strict=True)]
    try:
        columns = K.solve(BALLS.matrix(rows), algorithm="approx").entries()
    except ZeroDivisionError:
        return None
    return [BALLS.matrix(q, d, columns[first :: len(right)]) for first in range(len(right))]
