"""min F_lin on ‖W‖_F ≤ r from below by its dual, in rational arithmetic, where rounding hides the rest.

For slopes g_i ∈ R^q with E[g xᵀ] = R and every W,

    F_lin(W) ≥ E[⟨g, Wx⟩ − ℓ*(g)] = ⟨R, W⟩ − E[ℓ*(g)] ≥ −E[ℓ*(g)] − r‖R‖_F,

ℓ*(g) = sup_p ⟨g, p⟩ − ℓ(p).  The best g is ∇ℓ at the minimiser, where R = −λW.  As floats g have an R of
their own roundings, which a large r magnifies: so some of them, of samples that bend, are moved until R is
what it should be, exactly.  No curvature is asked for, and losses that recede cost nothing.

For sums over the outputs, with s = g + y: −ℓ* is −s·log s − (1−s)·log(1−s) for logistic, s − s·log s for
poisson.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from resnet_cert.compare.linear_data import Data, Found
from resnet_cert.compare.linear_objective import bend
from resnet_cert.compare.row_space import Rational, solution_near
from resnet_cert.numerics.radius import Array
from resnet_cert.problem.losses import BuiltinLoss

MOST_WORK = 2**14
"""The most q·n·d² of an elimination in rational numbers: some tenths of a second."""
RECEDED = 2.0**-60
"""A slope below this may be that of a loss that recedes: without it R = 0 may be had."""
LOST = 2.0**-40
"""What logarithms, roots and sums may lose, relatively;"""
LARGEST = 2.0**1000
"""and where floats end, both ways."""

Value = tuple[float, float]
"""A number, and the size of the terms of which it is made, for the rounding."""


def dual_bound(data: Data, found: Found, r: float) -> float:
    """A lower bound of min F_lin on ‖W‖_F ≤ r; −∞ where none is found."""
    problem, loss = data.problem, data.problem.loss
    if not isinstance(loss, BuiltinLoss) or loss.kind not in CONJUGATES or data.ridge.any():
        return -math.inf
    if problem.q * problem.n * problem.d**2 > MOST_WORK:
        return -math.inf
    rows = list(found.objective.design.rows())
    x, y, pi = (
        np.concatenate([part(some.chunk) for some in rows])
        for part in (lambda c: c.x, lambda c: c.y, lambda c: c.weights)
    )
    g = np.concatenate([bend(loss, some.z @ found.place.point.T, some.chunk).first for some in rows])
    g = g / loss.scale
    numbers = np.concatenate([g.ravel(), y.ravel(), found.W.ravel(), [found.place.lam]])
    if not (np.isfinite(numbers).all() and np.max(np.abs(g) + y) < LARGEST):
        return -math.inf
    lam = Fraction(found.place.lam) / Fraction(loss.scale) / Fraction(data.scaled.sigma) ** 2
    pulls = [[-lam * Fraction(w) for w in row] for row in found.W.tolist()]
    nothing = [[Fraction(0)] * problem.d] * problem.q
    at = _Samples(CONJUGATES[loss.kind], x, pi)
    best = max(at.bound(y, g, R, r) for R in (pulls, nothing)) * loss.scale
    return best - abs(best) * LOST


class _Samples:
    """x (n, d) and π (n,) of the samples, as rational numbers."""

    def __init__(self, conjugate: Callable[[Fraction], Value | None], x: Array, pi: Array) -> None:
        self.conjugate = conjugate
        self.pi = list(map(Fraction, pi.tolist()))
        self.total = sum(self.pi, Fraction(0))
        units = [Fraction(2) ** -int(e) for e in np.frexp(np.max(np.abs(x), axis=0))[1]]
        self.units = units
        self.rows = [
            [p * unit * Fraction(e) for p, e in zip(self.pi, column, strict=True)]
            for unit, column in zip(units, x.T.tolist(), strict=True)
        ]

    def bound(self, y: Array, g: Array, R: list[Rational], r: float) -> float:
        """−E[ℓ*(g)] − r‖R‖_F, for g moved to have that R; in outputs where it cannot be g = 0 and R = 0."""
        values, square = list[float](), Fraction(0)
        for targets, slopes, row in zip(y.T.tolist(), g.T.tolist(), R, strict=True):
            value = self._mean(targets, self._moved(targets, slopes, row))
            if value is None:
                value = self._mean(targets, [Fraction(0)] * len(targets))
            else:
                square += sum((e * e for e in row), Fraction(0))
            if value is None:
                return -math.inf
            values.append(value)
        square *= Fraction(r) ** 2 if math.isfinite(r) else Fraction(LARGEST) ** 2
        if square > LARGEST:
            return -math.inf
        pull = math.sqrt(max(float(square), 1.0 / LARGEST)) if square else 0.0
        return math.fsum(values) - LOST * (math.fsum(map(abs, values)) + pull) - pull

    def _moved(self, targets: list[float], slopes: list[float], R: Rational) -> Rational | None:
        """Slopes near those that are given with E[g x] = R: those move that are far from where ℓ* ends."""
        kept = [Fraction(g) if any(R) or abs(g) > RECEDED else Fraction(0) for g in slopes]
        steps = [_room(y, g) if g else Fraction(0) for y, g in zip(targets, kept, strict=True)]
        rows = [[e * step for e, step in zip(row, steps, strict=True)] for row in self.rows]
        right = [self.total * unit * e for unit, e in zip(self.units, R, strict=True)]
        near = [g / step if step else Fraction(0) for g, step in zip(kept, steps, strict=True)]
        exact = solution_near(near, rows, right)
        return None if exact is None else [e * step for e, step in zip(exact, steps, strict=True)]

    def _mean(self, targets: list[float], slopes: Rational | None) -> float | None:
        """−E[ℓ*(g)], rounded down; None where ℓ* is infinite."""
        if slopes is None:
            return None
        values = [self.conjugate(g + Fraction(y)) for y, g in zip(targets, slopes, strict=True)]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return None
        weights = [float(p) for p in self.pi]
        value = math.fsum(p * v for p, (v, _) in zip(weights, known, strict=True))
        size = math.fsum(p * v for p, (_, v) in zip(weights, known, strict=True))
        return (value - LOST * size) / float(self.total)


def _room(y: float, g: Fraction) -> Fraction:
    """A power of two about as large as s, or 1 − s where that is less."""
    s = abs(g + Fraction(y))
    room = float(min(s, abs(1 - s)) if s < 1 else s)
    return Fraction(2) ** (math.frexp(room)[1] if room else -1074)


def _logistic(s: Fraction) -> Value | None:
    """The lesser of s and 1 − s as a float: nothing cancels."""
    if not 0 <= s <= 1:
        return None
    t = float(min(s, 1 - s))
    value = -t * math.log(t) - (1.0 - t) * math.log1p(-t) if t > 1.0 / LARGEST else 0.0
    return value, value


def _poisson(s: Fraction) -> Value | None:
    if s < 0:
        return None
    t = float(s)
    fall = t * math.log(t) if t > 1.0 / LARGEST else t
    return t - fall, t + abs(fall)


CONJUGATES = {"logistic": _logistic, "poisson": _poisson}
"""−ℓ* of one output at s = g + y; None where it is infinite."""
