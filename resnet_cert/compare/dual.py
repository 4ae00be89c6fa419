"""min F_lin on ‖W‖_F ≤ r from below by its dual, in rational arithmetic, where rounding hides the rest.

For slopes g_i ∈ R^q with E[g xᵀ] = R and every W,

    F_lin(W) ≥ E[⟨g, Wx⟩ − ℓ*(g)] = ⟨R, W⟩ − E[ℓ*(g)] ≥ −E[ℓ*(g)] − r‖R‖_F,

ℓ*(g) = sup_p ⟨g, p⟩ − ℓ(p).  The best g is ∇ℓ at the minimiser, where R = −λW.  As floats g have an R of
their own roundings, which a large r magnifies: so some of them, of samples that bend, are moved until R is
what it should be, exactly.  No curvature is asked for, and losses that recede cost nothing.

With s = g + y, −ℓ* is −s·log s − (1−s)·log(1−s) for logistic and s − s·log s for poisson, output by output,
and −Σ_c s_c·log(s_c/Y) for softmax, where s ≥ 0 sums to Y = Σ y: there one slope of each sample, that of its
likeliest class, follows from the others.
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
"""The most n·d² for each output, n·q³·d² for softmax, of an elimination in rational numbers: some tenths of a
second."""
RECEDED = 2.0**-60
"""A slope below this may be that of a loss that recedes: without it R = 0 may be had."""
LOST = 2.0**-40
"""What logarithms, roots and sums may lose, relatively;"""
LARGEST = 2.0**1000
"""and where floats end, both ways."""

Value = tuple[float, float]
"""A number, and the size of the terms of which it is made, for the rounding."""
Conjugate = Callable[[Rational], Value | None]


def dual_bound(data: Data, found: Found, r: float) -> float:
    """A lower bound of min F_lin on ‖W‖_F ≤ r; −∞ where none is found."""
    problem, loss = data.problem, data.problem.loss
    if not isinstance(loss, BuiltinLoss) or loss.kind not in CONJUGATES or data.ridge.any():
        return -math.inf
    joint = loss.sum_free and problem.q > 1
    if problem.q ** (3 if joint else 1) * problem.n * problem.d**2 > MOST_WORK:
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
    if joint:  # E[g xᵀ] has columns of sum 0
        means = [sum(column, Fraction(0)) / problem.q for column in zip(*pulls, strict=True)]
        pulls = [[e - mean for e, mean in zip(row, means, strict=True)] for row in pulls]
    nothing = [[Fraction(0)] * problem.d] * problem.q
    at = _Samples(CONJUGATES[loss.kind], joint, x, pi)
    best = max(at.bound(y, g, R, r) for R in (pulls, nothing)) * loss.scale
    return best - abs(best) * LOST


class _Samples:
    """x (n, d) and π (n,) of the samples, as rational numbers.  joint: the slopes of a sample sum to 0."""

    def __init__(self, conjugate: Conjugate, joint: bool, x: Array, pi: Array) -> None:
        self.conjugate, self.joint = conjugate, joint
        self.pi = list(map(Fraction, pi.tolist()))
        self.total = sum(self.pi, Fraction(0))
        units = [Fraction(2) ** -int(e) for e in np.frexp(np.max(np.abs(x), axis=0))[1]]
        self.units = units
        self.rows = [
            [p * unit * Fraction(e) for p, e in zip(self.pi, column, strict=True)]
            for unit, column in zip(units, x.T.tolist(), strict=True)
        ]

    def bound(self, y: Array, g: Array, R: list[Rational], r: float) -> float:
        """−E[ℓ*(g)] − r‖R‖_F, for g moved to have that R; in a group of outputs where it cannot be g = 0 and
        R = 0."""
        values, square = list[float](), Fraction(0)
        for group in [list(range(len(R)))] if self.joint else [[a] for a in range(len(R))]:
            targets = [[Fraction(e) for e in row] for row in y[:, group].tolist()]
            pulls = [R[a] for a in group]
            value = self._mean(targets, self._moved(targets, g[:, group], pulls))
            if value is None:
                value = self._mean(targets, [[Fraction(0)] * len(group)] * len(targets))
            else:
                square += sum((e * e for row in pulls for e in row), Fraction(0))
            if value is None:
                return -math.inf
            values.append(value)
        square *= Fraction(r) ** 2 if math.isfinite(r) else Fraction(LARGEST) ** 2
        if square > LARGEST:
            return -math.inf
        pull = math.sqrt(max(float(square), 1.0 / LARGEST)) if square else 0.0
        return math.fsum(values) - LOST * (math.fsum(map(abs, values)) + pull) - pull

    def _moved(self, y: list[Rational], g: Array, R: list[Rational]) -> list[Rational] | None:
        """Slopes near those that are given with E[g xᵀ] = R: those move that are far from where ℓ* ends."""
        keeps = any(map(any, R))
        slopes = [
            [Fraction(e) if keeps or abs(e) > RECEDED else Fraction(0) for e in row] for row in g.tolist()
        ]
        s = [[e + t for e, t in zip(*rows, strict=True)] for rows in zip(slopes, y, strict=True)]
        follows = [max(range(len(row)), key=row.__getitem__) if self.joint else None for row in s]
        free = [(i, a) for i, row in enumerate(s) for a in range(len(row)) if a != follows[i]]
        steps = [_room(s[i][a]) if slopes[i][a] else Fraction(0) for i, a in free]
        rows = [
            [row[i] * step * ((a == b) - (follows[i] == b)) for (i, a), step in zip(free, steps, strict=True)]
            for b in range(len(R))
            for row in self.rows
        ]
        right = [
            self.total * unit * e for of_output in R for unit, e in zip(self.units, of_output, strict=True)
        ]
        near = [
            slopes[i][a] / step if step else Fraction(0) for (i, a), step in zip(free, steps, strict=True)
        ]
        exact = solution_near(near, rows, right)
        if exact is None:
            return None
        moved = [[Fraction(0)] * len(R) for _ in s]
        for (i, a), step, u in zip(free, steps, exact, strict=True):
            moved[i][a] = u * step
        for row, last in zip(moved, follows, strict=True):
            if last is not None:
                row[last] = -sum(row, Fraction(0))
        return moved

    def _mean(self, y: list[Rational], slopes: list[Rational] | None) -> float | None:
        """−E[ℓ*(g)], rounded down; None where ℓ* is infinite."""
        if slopes is None:
            return None
        s = [[e + t for e, t in zip(*rows, strict=True)] for rows in zip(slopes, y, strict=True)]
        known = [value for value in map(self.conjugate, s) if value is not None]
        if len(known) < len(s):
            return None
        weights = [float(p) for p in self.pi]
        value = math.fsum(p * v for p, (v, _) in zip(weights, known, strict=True))
        size = math.fsum(p * v for p, (_, v) in zip(weights, known, strict=True))
        return (value - LOST * size) / float(self.total)


def _room(s: Fraction) -> Fraction:
    """A power of two about as large as s, or 1 − s where that is less."""
    s = abs(s)
    room = float(min(s, abs(1 - s)) if s < 1 else s)
    return Fraction(2) ** (math.frexp(room)[1] if room else -1074)


def _logistic(s: Rational) -> Value | None:
    """The lesser of s and 1 − s as a float: nothing cancels."""
    if not 0 <= s[0] <= 1:
        return None
    t = float(min(s[0], 1 - s[0]))
    value = _entropy(t, 1.0) - (1.0 - t) * math.log1p(-t)
    return value, value


def _poisson(s: Rational) -> Value | None:
    if not 0 <= s[0] <= LARGEST:  # it was moved as far as that
        return None
    t = float(s[0])
    entropy = _entropy(t, 1.0)
    return t + entropy, t + abs(entropy)


def _softmax(s: Rational) -> Value | None:
    """All but the largest of s as floats, and what they leave of Y: nothing cancels."""
    if min(s) < 0:
        return None
    Y, ordered = float(sum(s, Fraction(0))), sorted(s)
    if not Y > 1.0 / LARGEST:
        return 0.0, 2.0 * Y
    rest = float(sum(ordered[:-1], Fraction(0)))
    value = math.fsum(_entropy(float(t), Y) for t in ordered[:-1]) - (Y - rest) * math.log1p(-rest / Y)
    return value, value


def _entropy(t: float, Y: float) -> float:
    """−t·log(t/Y)."""
    return -t * math.log(t / Y) if t > 1.0 / LARGEST else 0.0


CONJUGATES: dict[str, Conjugate] = {"logistic": _logistic, "poisson": _poisson, "softmax": _softmax}
"""−ℓ* of the outputs of a sample that it takes together at s = g + y; None where it is infinite."""
