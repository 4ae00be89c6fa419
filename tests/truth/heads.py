"""Truth for any head: q outputs, bypass inputs, a bias, decay, from the definition of the loss.

F(W, V) = E[ℓ(W h; y)] with h = (x + V f, bypass, 1) is evaluated as it is written.  ∇ℓ and ∇²ℓ at a
prediction are coefficients of the power series of ℓ along coordinate directions; p is bilinear in (W, V), so
that ∇F and ∇²F are entry by entry sums of products.  No formula of a derivative of a loss is used, and no
reduction.  `linear_heads` has the best linear predictor, `oracle_theorems` what is said about the gap.

Numbers are `flint.arb` balls, proven to contain the true value; at 256 bits they carry about 70 digits, λ_min
about 50.  Of the squared losses every moment is rational, and ties are decided exactly with `flint.fmpq`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from flint import arb, arb_series, ctx, fmpq, fmpq_mat, fmpq_series
from oracle_algebra import (
    Matrix,
    Number,
    Vector,
    dot,
    exact,
    is_positive_semidefinite,
    largest,
    norm,
    rational,
    shifted,
    smallest_eigenvalue,
)

from resnet_cert import Problem

BITS = 256
MOST_BITS = 2048
"""Ties and cancellations are tried again with twice the bits up to here; then they stay open."""
Array = npt.NDArray[np.float64]
LOSSES = ("squared", "weighted_squared", "logistic", "softmax", "pseudo_huber", "poisson")
RATIONAL = ("squared", "weighted_squared")


@dataclass(frozen=True)
class Head:
    """One problem as arrays: x (n, d1), y (n, q), f (n, k), W (q, d1 + d2), V (d1, k), and what else it has.

    y: what the formulas of the losses below take; logistic with one output is given to `Problem` as ±1.
    """

    x: Array
    y: Array
    f: Array
    W: Array
    V: Array
    loss: str = "squared"
    c: Array | None = None
    bypass: Array | None = None
    omega: Array | None = None
    probabilities: Array | None = None
    l2: float = 0.0
    decay_bias: bool = True
    scale: float = 1.0

    @cached_property
    def truth(self) -> HeadTruth:
        return HeadTruth(self)

    @property
    def q(self) -> int:
        return len(self.W)

    @property
    def head(self) -> Array:
        """(q, d): all columns, the bias last."""
        return self.W if self.c is None else np.column_stack([self.W, self.c])

    @property
    def inputs(self) -> Array:
        """(n, d): all that the head reads, before the block adds to the first d1 columns."""
        parts = [self.x] + ([] if self.bypass is None else [self.bypass])
        return np.concatenate(parts + ([] if self.c is None else [np.ones((len(self.x), 1))]), axis=1)

    @property
    def h(self) -> Array:
        """(n, d), in float64."""
        moved = self.inputs
        moved[:, : self.x.shape[1]] += self.f @ self.V.T
        return moved

    @property
    def decayed(self) -> Array:
        """1 for each parameter (W, bias, V) that decays."""
        W = np.ones_like(self.head)
        if self.c is not None and not self.decay_bias:
            W[:, -1] = 0.0
        return np.concatenate([W.ravel(), np.ones(self.V.size)])

    @property
    def at_zero(self) -> Head:
        """The point (0, V)."""
        return replace(self, W=np.zeros_like(self.W), c=None if self.c is None else np.zeros_like(self.c))

    def problem(self, **options: Any) -> Problem:
        y = self.y
        if self.loss == "logistic" and self.q == 1:
            y = 2.0 * y[:, 0] - 1.0
        return Problem.from_arrays(
            x=self.x,
            y=y,
            f=self.f,
            W=self.W,
            V=self.V,
            c=self.c,
            bypass=self.bypass,
            loss={"kind": self.loss, "scale": self.scale} if self.scale != 1.0 else self.loss,
            omega=self.omega,
            probabilities=self.probabilities,
            l2=self.l2 or None,
            decay_bias=self.decay_bias,
            **options,
        )


def total(terms: Sequence[Any]) -> Any:
    whole = terms[0]
    for term in terms[1:]:
        whole = whole + term
    return whole


def _each(one: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda p, y, omega: total([c * one(a, b) for a, b, c in zip(p, y, omega, strict=True)])


def _log1p(u: arb_series) -> arb_series:
    """log(1 + u), to the relative accuracy of u where that is small."""
    return (u.derivative() / (1 + u)).integral() + u[0].log1p()


def _logistic(p: arb_series, y: arb_series) -> arb_series:
    """log(1 + e^p) − yp."""
    return (1 - y) * p + _log1p((-p).exp()) if p[0] > 0 else _log1p(p.exp()) - y * p


def _softmax(p: Sequence[arb_series], y: Sequence[arb_series], omega: Sequence[Any]) -> arb_series:
    """Σ_b y_b(log Σ_a e^{p_a} − p_b), from the largest p_a on."""
    top = max(range(len(p)), key=lambda a: p[a][0].mid())
    below = [p[a] - p[top] if a != top else 0 * p[top] for a in range(len(p))]
    excess = _log1p(total([e.exp() if a != top else e for a, e in enumerate(below)]))
    return total([b * (excess - e) for b, e in zip(y, below, strict=True)])


DEFINITIONS: dict[str, Callable[..., Any]] = {
    "squared": _each(lambda p, y: (p - y) * (p - y) / 2),
    "weighted_squared": _each(lambda p, y: (p - y) * (p - y) / 2),
    "logistic": _each(_logistic),
    "pseudo_huber": _each(lambda p, y: (p - y) * (p - y) / ((1 + (p - y) * (p - y)).sqrt() + 1)),
    "poisson": _each(lambda p, y: p.exp() - y * p),
    "softmax": _softmax,
}
"""ℓ(p; y) of power series, as it is defined but for what would cancel."""


def derivatives(loss: str, p: Vector, y: Vector, omega: Vector) -> tuple[Number, Vector, Matrix]:
    """ℓ, ∇ℓ, ∇²ℓ at p, from second-order power series along e_a and e_a + e_b."""
    q, series_of = len(p), fmpq_series if isinstance(p[0], fmpq) else arb_series
    zero, one = 0 * p[0], 0 * p[0] + 1

    def along(*places: int) -> Any:
        return DEFINITIONS[loss](
            [series_of([p_a, one if a in places else zero], prec=3) for a, p_a in enumerate(p)],
            [series_of([b], prec=3) for b in y],
            [series_of([c], prec=3) for c in omega],
        )

    series = [along(a) for a in range(q)]
    second: Matrix = [[2 * series[a][2] if a == b else zero for b in range(q)] for a in range(q)]
    if loss == "softmax":  # in the others each output counts by itself
        for a in range(q):
            for b in range(a):
                second[a][b] = second[b][a] = along(a, b)[2] - series[a][2] - series[b][2]
    return series[0][0], [s[1] for s in series], second


def balls(M: Array) -> Any:
    """The same array of balls, as nested lists."""
    return [balls(row) for row in M] if np.ndim(M) else arb(float(M))


def rationals(M: Array) -> Any:
    """The same array of rationals, as nested lists."""
    return [rationals(row) for row in M] if np.ndim(M) else rational(M)


def _at_precision(compute: Callable[[Any], Any]) -> Any:
    """A cached property, computed at the bits of its owner."""

    def at_precision(self: HeadTruth) -> Any:
        with ctx.workprec(self.bits):
            return compute(self)

    at_precision.__doc__ = compute.__doc__
    return cached_property(at_precision)


class HeadTruth:
    """F, ∇F, ∇²F, G = F + l2‖·‖², and Definition 1 of G, at a head's point: computed when asked for.

    in_rationals=True (squared losses) computes in rationals: everything but roots and eigenvalues.
    """

    def __init__(self, head: Head, bits: int | None = None, *, in_rationals: bool = False) -> None:
        if in_rationals and head.loss not in RATIONAL:
            raise ValueError(f"expected a squared loss for exact arithmetic, got {head.loss!r}")
        self.head, self.bits = head, BITS if bits is None else bits
        self.numbers = rationals if in_rationals else balls
        self.n, self.d1 = head.x.shape
        self.k, self.q, self.d = head.f.shape[1], head.q, head.head.shape[1]

    @cached_property
    def finer(self) -> HeadTruth:
        """The same point with twice the bits."""
        return HeadTruth(self.head, 2 * self.bits)

    @cached_property
    def rational(self) -> HeadTruth:
        """The same point in rationals."""
        return HeadTruth(self.head, in_rationals=True)

    @cached_property
    def at_zero(self) -> HeadTruth:
        """The point (0, V)."""
        return HeadTruth(self.head.at_zero, self.bits)

    @_at_precision
    def weights(self) -> Vector:
        pi = self.numbers(np.ones(self.n) if self.head.probabilities is None else self.head.probabilities)
        return [entry / total(pi) for entry in pi]

    @_at_precision
    def h(self) -> Matrix:
        """(n, d)."""
        V, features = self.numbers(self.head.V), self.numbers(self.head.f)
        return [
            [z[j] + dot(V[j], f) for j in range(self.d1)] + z[self.d1 :]
            for z, f in zip(self.inputs, features, strict=True)
        ]

    @cached_property
    def inputs(self) -> Matrix:
        """(n, d)."""
        return self.numbers(self.head.inputs)

    @cached_property
    def _targets(self) -> tuple[Matrix, Matrix]:
        """y and ω, (n, q)."""
        ones = np.ones((self.n, self.q))
        return self.numbers(self.head.y), self.numbers(ones if self.head.omega is None else self.head.omega)

    def at(self, rows: Matrix, W: Matrix) -> list[tuple[Number, Vector, Matrix]]:
        """ℓ, ∇ℓ, ∇²ℓ of each sample at the predictions W·row."""
        with ctx.workprec(self.bits):
            parts = [
                derivatives(self.head.loss, [dot(w, row) for w in W], y, c)
                for row, y, c in zip(rows, *self._targets, strict=True)
            ]
            if self.head.scale == 1.0:
                return parts
            s = self.numbers(np.float64(self.head.scale))
            return [
                (s * value, [s * e for e in slope], [[s * e for e in row] for row in bend])
                for value, slope, bend in parts
            ]

    @cached_property
    def parts(self) -> list[tuple[Number, Vector, Matrix]]:
        return self.at(self.h, self.numbers(self.head.head))

    @_at_precision
    def F(self) -> Number:
        return dot(self.weights, [value for value, _, _ in self.parts])

    @_at_precision
    def _slopes(self) -> Vector:
        """π_i ∂ℓ_i/∂p_a, sample by sample."""
        return [pi * e for pi, (_, slope, _) in zip(self.weights, self.parts, strict=True) for e in slope]

    @_at_precision
    def jacobian(self) -> Matrix:
        """∂p_a/∂W_bj = δ_ab h_j and ∂p_a/∂V_jl = W_aj f_l: a row for each sample and a; W before V."""
        W, zero = self.numbers(self.head.head), self.numbers(np.float64(0.0))
        return [
            [h[j] if a == b else zero for b in range(self.q) for j in range(self.d)]
            + [W[a][j] * fl for j in range(self.d1) for fl in f]
            for h, f in zip(self.h, self.numbers(self.head.f), strict=True)
            for a in range(self.q)
        ]

    @_at_precision
    def gradient(self) -> Vector:
        """∇F as one vector: the entries of W row by row, then those of V."""
        return [dot(self._slopes, column) for column in zip(*self.jacobian, strict=True)]

    @_at_precision
    def hessian(self) -> Matrix:
        """∇²F = E[Σ ∂²ℓ/∂p_a∂p_b ∇p_a ∇p_bᵀ + Σ ∂ℓ/∂p_a ∇²p_a], ∂²p_a/∂W_aj∂V_jl = f_l all of ∇²p_a."""
        columns, q = list(zip(*self.jacobian, strict=True)), self.q
        bends = [
            [[pi * e for e in row] for row in bend]
            for pi, (*_, bend) in zip(self.weights, self.parts, strict=True)
        ]
        bent = [
            [dot(row, column[i * q : (i + 1) * q]) for i, bend in enumerate(bends) for row in bend]
            for column in columns
        ]
        H = [[self.numbers(np.float64(0.0))] * len(columns) for _ in columns]
        for r, column in enumerate(columns):
            for s in range(r + 1):
                H[r][s] = H[s][r] = dot(column, bent[s])
        for a in range(q):
            for j in range(self.d1):
                for l in range(self.k):
                    r, s = a * self.d + j, q * self.d + j * self.k + l
                    H[r][s] = H[s][r] = H[r][s] + self.A_f[a][l]
        return H

    @property
    def parameters(self) -> Vector:
        return self.numbers(np.concatenate([self.head.head.ravel(), self.head.V.ravel()]))

    @_at_precision
    def _decay(self) -> Vector:
        """∂²/∂z² of l2‖·‖²."""
        twice = 2 * self.numbers(np.float64(self.head.l2))
        return [twice * int(on) for on in self.head.decayed]

    @_at_precision
    def gradient_G(self) -> Vector:
        return [g + c * z for g, c, z in zip(self.gradient, self._decay, self.parameters, strict=True)]

    @_at_precision
    def hessian_G(self) -> Matrix:
        return [
            [e + self._decay[i] if i == j else e for j, e in enumerate(row)]
            for i, row in enumerate(self.hessian)
        ]

    @_at_precision
    def norm(self) -> arb:
        """‖∇G‖, which is ‖∇F‖ without decay."""
        return norm(self.gradient_G)

    @_at_precision
    def lambda_min(self) -> arb:
        """Of ∇²G, proven.

        Accurate to 100 bits, or exactly 0 where a squared loss shows it; where no precision in reach tells it
        from zero, within 2^(−3/4·MOST_BITS) of the norm of ∇²G.
        """
        value = smallest_eigenvalue(self.hessian_G)
        if value.rel_accuracy_bits() >= 100 or value.is_exact():
            return value
        if self.is_singular and self.curvature_at_least(arb(0)):
            return arb(0)
        return value if 2 * self.bits > MOST_BITS else self.finer.lambda_min

    @cached_property
    def is_singular(self) -> bool:
        """det ∇²G = 0, where rationals tell."""
        return self.head.loss in RATIONAL and fmpq_mat(self.rational.hessian_G).det() == 0

    @_at_precision
    def m(self) -> arb:
        """max(0, −λ_min)."""
        return largest([-self.lambda_min, arb(0)])

    @_at_precision
    def g_W(self) -> Matrix:
        """E[∇ℓ hᵀ] (q, d)."""
        return self.mean_slope(self.h)

    @_at_precision
    def A_f(self) -> Matrix:
        """E[∇ℓ fᵀ] (q, k)."""
        return self.mean_slope(self.numbers(self.head.f))

    def mean_slope(self, rows: Matrix) -> Matrix:
        """E[∇ℓ rowᵀ]."""
        with ctx.workprec(self.bits):
            columns = list(zip(*rows, strict=True))
            return [[dot(self._slopes[a :: self.q], column) for column in columns] for a in range(self.q)]

    # Definition 1, of G.

    def curvature_at_least(self, t: arb) -> bool | None:
        """Whether λ_min ≥ −t, t ≥ 0; None where no precision in reach tells.

        A t whose ball is a single number is exact: with a squared loss a tie is then decided as well.
        """
        with ctx.workprec(self.bits):
            decided = is_positive_semidefinite(shifted(self.hessian_G, t))
        if decided is not None:
            return decided
        if self.head.loss in RATIONAL and t.is_exact():
            return is_positive_semidefinite(shifted(self.rational.hessian_G, exact(t)))
        return None if 2 * self.bits > MOST_BITS else self.finer.curvature_at_least(t)

    def curvature_at_threshold(self, epsilon: float, mu2: float) -> bool | None:
        """Whether λ_min ≥ −√(μ2 ε)."""
        with ctx.workprec(MOST_BITS):
            return self.curvature_at_least((arb(mu2) * arb(epsilon)).sqrt())

    def gradient_at_most(self, epsilon: float) -> bool | None:
        """Whether the gradient's norm is at most ε; None where no precision in reach tells."""
        with ctx.workprec(self.bits):
            excess = dot(self.gradient_G, self.gradient_G) - arb(epsilon) ** 2
        if excess <= 0 or excess > 0:
            return bool(excess <= 0)
        if self.head.loss in RATIONAL:
            gradient = self.rational.gradient_G
            return bool(dot(gradient, gradient) <= rational(epsilon) ** 2)
        return None if 2 * self.bits > MOST_BITS else self.finer.gradient_at_most(epsilon)

    def is_stationary(self, epsilon: float, mu2: float) -> bool | None:
        """‖∇G‖ ≤ ε and λ_min ≥ −√(μ2 ε).  None: a tie that no precision in reach breaks."""
        gradient, curvature = self.gradient_at_most(epsilon), self.curvature_at_threshold(epsilon, mu2)
        if gradient is False or curvature is False:
            return False
        return None if gradient is None or curvature is None else True

    def smallest_epsilon(self, mu2: float) -> arb:
        """ε* = max(‖∇G‖, m²/μ2), for μ2 > 0."""
        with ctx.workprec(self.bits):
            return largest([self.norm, self.m**2 / arb(mu2)])

    # Linear predictors.

    @cached_property
    def _linear(self) -> Linear:
        return Linear(self, self.inputs)

    def linear(self, W: Matrix) -> tuple[arb, Vector, Matrix]:
        """F_lin = E[ℓ(W x; y)], x all inputs of the head, its gradient and Hessian in the entries of W."""
        return self._linear.at(W)


@dataclass(frozen=True)
class Linear:
    """E[ℓ(NW row; y)] as a function of W (q', m); N (q, q'), the identity if it is left out."""

    truth: HeadTruth
    rows: Matrix
    N: Matrix | None = None

    @cached_property
    def _products(self) -> list[Matrix]:
        """row_j row_l over the samples, for each j and l ≤ j."""
        columns = list(zip(*self.rows, strict=True))
        return [
            [[x * y for x, y in zip(u, v, strict=True)] for v in columns[: j + 1]]
            for j, u in enumerate(columns)
        ]

    def at(self, W: Matrix) -> tuple[arb, Vector, Matrix]:
        """The value, its gradient and its Hessian in the entries of W, row by row."""
        with ctx.workprec(self.truth.bits):
            whole = W if self.N is None else [[dot(n, c) for c in zip(*W, strict=True)] for n in self.N]
            parts, pi = self.truth.at(self.rows, whole), self.truth.weights
            slopes, bends = [slope for _, slope, _ in parts], [bend for *_, bend in parts]
            if self.N is not None:
                columns = list(zip(*self.N, strict=True))
                slopes = [[dot(u, slope) for u in columns] for slope in slopes]
                images = [[[dot(row, u) for row in bend] for u in columns] for bend in bends]
                bends = [[[dot(u, image) for image in each] for u in columns] for each in images]
            q, m = len(W), len(self.rows[0])
            g = [
                dot([w * slope[a] for w, slope in zip(pi, slopes, strict=True)], column)
                for a in range(q)
                for column in zip(*self.rows, strict=True)
            ]
            H = [[arb(0)] * (q * m) for _ in range(q * m)]
            for a in range(q):
                for b in range(a + 1):
                    bent = [w * bend[a][b] for w, bend in zip(pi, bends, strict=True)]
                    if a != b and all(entry == 0 for entry in bent):
                        continue
                    for j in range(m):
                        for l in range(j + 1):
                            entry = dot(bent, self._products[j][l])
                            for r, s in ((a * m + j, b * m + l), (a * m + l, b * m + j)):
                                H[r][s] = H[s][r] = entry
            return dot(pi, [value for value, _, _ in parts]), g, H
