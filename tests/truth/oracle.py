"""Truth from the definitions, in ball arithmetic and exact rationals, for tests.

Nothing here comes from the package: F, ∇F and ∇²F are assembled entry by entry from the per-sample
prediction p = wᵀ(x + V f) and its partial derivatives.  `oracle_linear` has the best linear predictor,
`oracle_theorems` what is said about the gap between the two.

Numbers are `flint.arb` balls, proven to contain the true value; at the default 256 bits they carry about
70 digits, λ_min about 50.  For the squared loss every moment is rational, and ties are decided exactly
with `flint.fmpq`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations_with_replacement, product
from typing import Any

import numpy as np
import numpy.typing as npt
from flint import arb, ctx, fmpq_mat
from oracle_algebra import (
    Matrix,
    Number,
    Vector,
    dot,
    exact,
    is_positive_semidefinite,
    largest,
    matrix_product,
    norm,
    rational,
    shifted,
    smallest_eigenvalue,
)

BITS = 256
MOST_BITS = 2048
"""Ties and cancellations are tried again with twice the bits up to here; then they stay open."""


@dataclass(frozen=True)
class Sample:
    """One problem as arrays: x (n, d), y (n,), f (n, k), w (d,), V (d, k), probabilities (n,) or None."""

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    f: npt.NDArray[np.float64]
    w: npt.NDArray[np.float64]
    V: npt.NDArray[np.float64]
    loss: str = "squared"
    scale: float = 1.0
    probabilities: npt.NDArray[np.float64] | None = None
    description: str = ""


def _squared(p: Number, y: Number) -> tuple[Number, Number, Number]:
    return (p - y) * (p - y) / 2, p - y, p * 0 + 1


def _logistic(p: arb, y: arb) -> tuple[arb, arb, arb]:
    margin = y * p
    decay = (-abs(margin)).exp()  # e^{−|yp|} ≤ 1: neither overflow nor cancellation
    value = decay.log1p() if margin > 0 else decay.log1p() - margin
    sigmoid = (decay if margin > 0 else arb(1)) / (1 + decay)
    return value, -y * sigmoid, decay / (1 + decay) ** 2


def _pseudo_huber(p: arb, y: arb) -> tuple[arb, arb, arb]:
    q = p - y
    root = (1 + q * q).sqrt()
    return q * q / (1 + root), q / root, 1 / root**3


def _poisson(p: arb, y: arb) -> tuple[arb, arb, arb]:
    return p.exp() - y * p, p.exp() - y, p.exp()


LOSSES: dict[str, Callable[[Number, Number], tuple[Number, Number, Number]]] = {
    "squared": _squared,
    "logistic": _logistic,
    "pseudo_huber": _pseudo_huber,
    "poisson": _poisson,
}
"""ℓ, ℓ', ℓ'' as functions of (p, y), at scale 1."""


def _at_precision(compute: Callable[[Any], Any]) -> Any:
    """A cached property, computed at the bits of its owner."""

    def at_precision(self: Truth) -> Any:
        with ctx.workprec(self.bits):
            return compute(self)

    at_precision.__doc__ = compute.__doc__
    return cached_property(at_precision)


class Truth:
    """F, ∇F, ∇²F and Definition 1 at one sample: computed when asked for, and kept, at `bits` of precision.

    in_rationals=True (squared loss only) computes in rationals: everything but roots and eigenvalues.
    """

    def __init__(self, sample: Sample, bits: int = BITS, *, in_rationals: bool = False) -> None:
        if in_rationals and sample.loss != "squared":
            raise ValueError(f"expected the squared loss for exact arithmetic, got {sample.loss!r}")
        self.sample, self.bits, self.in_rationals = sample, bits, in_rationals
        self.n, self.d = sample.x.shape
        self.k = sample.f.shape[1]

    def number(self, x: float) -> Number:
        """The float itself, in this arithmetic."""
        return rational(x) if self.in_rationals else arb(float(x))

    @cached_property
    def finer(self) -> Truth:
        """The same sample with twice the bits."""
        return Truth(self.sample, 2 * self.bits)

    @cached_property
    def rational(self) -> Truth:
        """The same sample in rationals."""
        return Truth(self.sample, in_rationals=True)

    @cached_property
    def at_zero(self) -> Truth:
        """The point (0, V)."""
        return Truth(replace(self.sample, w=np.zeros_like(self.sample.w)), self.bits)

    # The data, and what one sample contributes.

    @cached_property
    def x(self) -> Matrix:
        return [[self.number(entry) for entry in row] for row in self.sample.x]

    @cached_property
    def y(self) -> Vector:
        return [self.number(entry) for entry in self.sample.y]

    @cached_property
    def f(self) -> Matrix:
        return [[self.number(entry) for entry in row] for row in self.sample.f]

    @cached_property
    def w(self) -> Vector:
        return [self.number(entry) for entry in self.sample.w]

    @cached_property
    def V(self) -> Matrix:
        return [[self.number(entry) for entry in row] for row in self.sample.V]

    @_at_precision
    def probability(self) -> Vector:
        """π_i / Σ π."""
        given = self.sample.probabilities
        weights = [self.number(weight) for weight in (np.ones(self.n) if given is None else given)]
        total = sum(weights[1:], weights[0])
        return [weight / total for weight in weights]

    def mean(self, terms: Sequence[Number]) -> Number:
        """E[·] = Σ π_i term_i / Σ π."""
        return dot(self.probability, terms)

    def loss(self, p: Number, y: Number) -> tuple[Number, Number, Number]:
        """(ℓ, ℓ', ℓ'') at one prediction."""
        scale = self.number(self.sample.scale)
        value, first, second = LOSSES[self.sample.loss](p, y)
        return scale * value, scale * first, scale * second

    @_at_precision
    def h(self) -> Matrix:
        """h_i = x_i + V f_i."""
        return [
            [xj + dot(row, f) for xj, row in zip(x, self.V, strict=True)]
            for x, f in zip(self.x, self.f, strict=True)
        ]

    @_at_precision
    def p(self) -> Vector:
        """p_i = wᵀh_i."""
        return [dot(self.w, h) for h in self.h]

    @_at_precision
    def derivatives(self) -> list[tuple[Number, Number, Number]]:
        """(ℓ, ℓ', ℓ'') at p_i."""
        return [self.loss(p, y) for p, y in zip(self.p, self.y, strict=True)]

    # The moments.

    @_at_precision
    def F(self) -> Number:
        """E[ℓ]."""
        return self.mean([value for value, _, _ in self.derivatives])

    @_at_precision
    def first(self) -> Vector:
        """π_i ℓ'_i: the weights of the first moments."""
        return [pi * first for pi, (_, first, _) in zip(self.probability, self.derivatives, strict=True)]

    @_at_precision
    def second(self) -> Vector:
        """π_i ℓ''_i: the weights of the second moments."""
        return [pi * second for pi, (_, _, second) in zip(self.probability, self.derivatives, strict=True)]

    @_at_precision
    def g_w(self) -> Vector:
        """E[ℓ' h]."""
        return [dot(self.first, column) for column in zip(*self.h, strict=True)]

    @_at_precision
    def a(self) -> Vector:
        """E[ℓ' f]."""
        return [dot(self.first, column) for column in zip(*self.f, strict=True)]

    def _second_moment(self, left: Matrix, right: Matrix) -> Matrix:
        weighted = [[c * entry for entry in row] for c, row in zip(self.second, left, strict=True)]
        return matrix_product(weighted, right)

    @_at_precision
    def A(self) -> Matrix:
        """E[ℓ'' h hᵀ]."""
        return self._second_moment(self.h, self.h)

    @_at_precision
    def B(self) -> Matrix:
        """E[ℓ'' h fᵀ]."""
        return self._second_moment(self.h, self.f)

    @_at_precision
    def C(self) -> Matrix:
        """E[ℓ'' f fᵀ]."""
        return self._second_moment(self.f, self.f)

    # Gradient and Hessian in (w, V), V row by row, by the chain rule on p.

    @_at_precision
    def jacobian(self) -> Matrix:
        """∂p_i/∂(w, V): ∂p/∂w_j = h_j, ∂p/∂V_jl = w_j f_l."""
        return [[*h, *(wj * fl for wj in self.w for fl in f)] for h, f in zip(self.h, self.f, strict=True)]

    @_at_precision
    def gradient(self) -> Vector:
        """∇F = E[ℓ' ∇p]."""
        return [dot(self.first, column) for column in zip(*self.jacobian, strict=True)]

    @_at_precision
    def hessian(self) -> Matrix:
        """∇²F = E[ℓ'' ∇p ∇pᵀ + ℓ' ∇²p], where ∂²p/∂w_j∂V_jl = f_l is all of ∇²p."""
        columns = list(zip(*self.jacobian, strict=True))
        weighted = [[c * entry for c, entry in zip(self.second, column, strict=True)] for column in columns]
        H = [[self.number(0.0)] * len(columns) for _ in columns]
        for i, j in combinations_with_replacement(range(len(columns)), 2):
            H[i][j] = H[j][i] = dot(weighted[i], columns[j])
        for j, l in product(range(self.d), range(self.k)):
            at = self.d + j * self.k + l
            H[j][at] = H[at][j] = H[j][at] + dot(self.first, [f[l] for f in self.f])
        return H

    @_at_precision
    def norm_w(self) -> arb:
        """‖∇_w F‖."""
        return norm(self.gradient[: self.d])

    @_at_precision
    def norm_V(self) -> arb:
        """‖∇_V F‖."""
        return norm(self.gradient[self.d :])

    @_at_precision
    def norm(self) -> arb:
        """‖∇F‖."""
        return norm(self.gradient)

    @_at_precision
    def lambda_min(self) -> arb:
        """λ_min(∇²F), proven.

        Accurate to 100 bits, or exactly 0 where the squared loss shows it; where no precision in reach tells
        it from zero, within 2^(−3/4·MOST_BITS) of the norm of ∇²F.
        """
        value = smallest_eigenvalue(self.hessian)
        if value.rel_accuracy_bits() >= 100 or value.is_exact():
            return value
        if self.sample.loss == "squared" and self.rational.is_singular and self.curvature_at_least(arb(0)):
            return arb(0)
        return value if 2 * self.bits > MOST_BITS else self.finer.lambda_min

    @cached_property
    def is_singular(self) -> bool:
        """det ∇²F = 0 (in rationals)."""
        return fmpq_mat(self.hessian).det() == 0

    @_at_precision
    def m(self) -> arb:
        """max(0, −λ_min)."""
        return largest([-self.lambda_min, arb(0)])

    # Definition 1.

    def curvature_at_least(self, t: arb) -> bool | None:
        """Whether λ_min(∇²F) ≥ −t, t ≥ 0; None where no precision in reach tells.

        A t whose ball is a single number is exact: with the squared loss a tie is then decided as well.
        """
        with ctx.workprec(self.bits):
            decided = is_positive_semidefinite(shifted(self.hessian, t))
        if decided is not None:
            return decided
        if self.sample.loss == "squared" and t.is_exact():
            return is_positive_semidefinite(shifted(self.rational.hessian, exact(t)))
        return None if 2 * self.bits > MOST_BITS else self.finer.curvature_at_least(t)

    def curvature_at_threshold(self, epsilon: float, mu2: float) -> bool | None:
        """Whether λ_min(∇²F) ≥ −√(μ2 ε)."""
        with ctx.workprec(MOST_BITS):
            return self.curvature_at_least((arb(mu2) * arb(epsilon)).sqrt())

    def gradient_at_most(self, epsilon: float) -> bool | None:
        """Whether ‖∇F‖ ≤ ε; None where no precision in reach tells."""
        with ctx.workprec(self.bits):
            excess = dot(self.gradient, self.gradient) - arb(epsilon) ** 2
        if excess <= 0 or excess > 0:
            return bool(excess <= 0)
        if self.sample.loss == "squared":
            gradient = self.rational.gradient
            return bool(dot(gradient, gradient) <= rational(epsilon) ** 2)
        return None if 2 * self.bits > MOST_BITS else self.finer.gradient_at_most(epsilon)

    def is_stationary(self, epsilon: float, mu2: float) -> bool | None:
        """Definition 1: ‖∇F‖ ≤ ε and λ_min ≥ −√(μ2 ε).  None: a tie that no precision in reach breaks."""
        gradient, curvature = self.gradient_at_most(epsilon), self.curvature_at_threshold(epsilon, mu2)
        if gradient is False or curvature is False:
            return False
        return None if gradient is None or curvature is None else True

    def smallest_epsilon(self, mu2: float) -> arb:
        """ε* = max(‖∇F‖, m²/μ2), for μ2 > 0."""
        with ctx.workprec(self.bits):
            return largest([self.norm, self.m**2 / arb(mu2)])
