"""Heads of any scale with a squared loss, in rational numbers: ∇L, ∇²L and every comparison exactly.

Entries from 5e-324 to 1e300, cancelling by design; ∇F and ∇²F are sums of products as the definition has
them, over all of (W, V): no reduction, no root, no rounding.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

from resnet_cert import Problem
from resnet_cert.numerics.enclosure import Enclosure

Matrix = list[list[Fraction]]


def exactly(a: Any) -> Any:
    """A float64 array as nested lists of fractions."""
    return [exactly(row) for row in a] if np.ndim(a) else Fraction(float(a))


class Rational:
    """∇L and ∇²L of a problem with a squared loss, weighted or not, and no constraint."""

    def __init__(self, problem: Problem) -> None:
        W, V = exactly(problem.W), exactly(problem.V)
        q, d, d1, k, n = problem.q, problem.d, problem.d1, problem.k, problem.n
        size = q * d + d1 * k
        self.gradient = [Fraction(0)] * size
        self.hessian: Matrix = [[Fraction(0)] * size for _ in range(size)]
        (chunk,) = problem.chunks()
        omega = np.ones_like(chunk.y) if chunk.omega is None else chunk.omega
        scale = Fraction(getattr(problem.loss, "scale", 1.0)) / n
        for x, f, y, weight in zip(*map(exactly, (chunk.x, chunk.f, chunk.y, omega)), strict=True):
            h = [x[j] + (sum(V[j][l] * f[l] for l in range(k)) if j < d1 else 0) for j in range(d)]
            for a in range(q):
                c, slope = scale * weight[a], sum(W[a][j] * h[j] for j in range(d)) - y[a]
                J = [h[j] if a == b else Fraction(0) for b in range(q) for j in range(d)]
                J += [W[a][j] * f[l] for j in range(d1) for l in range(k)]
                for r in range(size):
                    if J[r]:
                        self.gradient[r] += c * slope * J[r]
                        for s in range(size):
                            self.hessian[r][s] += c * J[r] * J[s]
                for j in range(d1):
                    for l in range(k):
                        r, s = a * d + j, q * d + j * k + l
                        self.hessian[r][s] += c * slope * f[l]
                        self.hessian[s][r] += c * slope * f[l]
        rho = 2 * Fraction(problem.objective.l2)
        on = [Fraction(v) for v in problem.decayed.tolist()] * q + [Fraction(1)] * (d1 * k)
        z = [v for row in W for v in row] + [v for row in V for v in row]
        self.gradient = [g + rho * c * v for g, c, v in zip(self.gradient, on, z, strict=True)]
        for i in range(size):
            self.hessian[i][i] += rho * on[i]
        self.squared_norm = sum(g * g for g in self.gradient)

    @property
    def norm(self) -> float:
        """‖∇L‖, about."""
        numerator, denominator = self.squared_norm.numerator, self.squared_norm.denominator
        shift = (numerator.bit_length() - denominator.bit_length()) // 2
        scaled = (
            self.squared_norm / Fraction(4) ** shift
            if shift > 0
            else self.squared_norm * Fraction(4) ** -shift
        )
        try:
            return math.ldexp(math.sqrt(scaled), shift)
        except OverflowError:
            return math.inf

    def exceeds(self, x: Fraction, *, strictly: bool = False) -> bool:
        """λ_min ≥ x, or > x."""
        return is_semidefinite(
            [[v - x if i == j else v for j, v in enumerate(row)] for i, row in enumerate(self.hessian)],
            strictly=strictly,
        )

    def holds_norm(self, found: Enclosure) -> bool:
        above = math.isinf(found.upper) or self.squared_norm <= Fraction(found.upper) ** 2
        return above and (found.lower <= 0.0 or Fraction(found.lower) ** 2 <= self.squared_norm)

    def holds_lambda_min(self, found: Enclosure) -> bool:
        above = math.isinf(found.upper) or not self.exceeds(Fraction(found.upper), strictly=True)
        return above and (math.isinf(found.lower) or self.exceeds(Fraction(found.lower)))

    def is_stationary(self, eps: float, mu2: float) -> bool | None:
        """Definition 1; None where √(μ2 ε) is irrational and λ_min within 1e-400 of it."""
        if self.squared_norm > Fraction(eps) ** 2:
            return False
        least, most = roots(Fraction(mu2) * Fraction(eps))
        if self.exceeds(-least):
            return True
        return None if self.exceeds(-most) else False


def roots(square: Fraction) -> tuple[Fraction, Fraction]:
    """Rational numbers on both sides of √square, the same where it is one of them."""
    scale = 10**400
    n = square.numerator * scale * scale
    root = math.isqrt(n // square.denominator)
    exact = root * root * square.denominator == n
    return Fraction(root, scale), Fraction(root + (not exact), scale)


def is_semidefinite(H: Matrix, *, strictly: bool = False) -> bool:
    """By LDLᵀ."""
    rows = [row[:] for row in H]
    for j, column in enumerate(rows):
        pivot = column[j]
        if pivot < 0:
            return False
        if pivot == 0:
            if strictly or any(rows[i][j] for i in range(j + 1, len(rows))):
                return False
            continue
        for i in range(j + 1, len(rows)):
            if rows[i][j]:
                factor = rows[i][j] / pivot
                for l in range(j + 1, i + 1):
                    rows[i][l] -= factor * rows[l][j]
    return True


def extreme(seed: int) -> Problem:
    """A small head of extreme scales: each array of its own magnitude, more or less spread, with zeros in
    it."""
    rng = np.random.default_rng(seed)
    n, d1, k, q, d2 = (int(rng.integers(*span)) for span in ((1, 4), (1, 3), (1, 3), (1, 4), (0, 2)))
    widest = 155.0 if rng.random() < 2 / 3 else 300.0
    spread = float(rng.choice([0.0, 3.0, 60.0]))

    def array(*shape: int) -> np.ndarray:
        exponent = rng.uniform(-widest, widest) + rng.uniform(-spread, spread, shape)
        a = (
            rng.choice([-1.0, 1.0], shape)
            * 10.0 ** np.clip(exponent, -323.0, 299.0)
            * rng.uniform(0.5, 2.0, shape)
        )
        return np.where(rng.random(shape) < 0.15, 0.0, a)

    W, V, x, f = array(q, d1 + d2), array(d1, k), array(n, d1), array(n, k)
    z = array(n, d2) if d2 else None
    if rng.random() < 0.2:
        W = np.zeros_like(W)
    with np.errstate(all="ignore"):
        h = x + f @ V.T
        p = (h if z is None else np.concatenate([h, z], axis=1)) @ W.T
        y = p * (1.0 + 10.0 ** rng.uniform(-18, 0, p.shape) * rng.choice([-1, 1, 0], p.shape))
    if rng.random() < 0.4 or not np.isfinite(y).all() or np.abs(y).max() > 1e300:
        y = array(n, q)
    weighted = rng.random() < 0.2
    return Problem.from_arrays(
        x=x, y=y, f=f, W=W, V=V, bypass=z,
        c=array(q) if rng.random() < 0.3 else None,
        omega=np.abs(array(n, q)) if weighted else None,
        loss="weighted_squared" if weighted else "squared",
        l2=float(10.0 ** rng.uniform(-300, 200)) if rng.random() < 0.25 else None,
        decay_bias=bool(rng.random() < 0.5),
    )  # fmt: skip
