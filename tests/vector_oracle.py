"""Truth for several outputs, from the definition of the loss alone, in ball arithmetic.

F(W, V) = E[ℓ(W(x + V f); y)] is evaluated as it is written.  ∇ℓ and ∇²ℓ at a prediction are coefficients of
the power series of ℓ along coordinate directions; p is bilinear in (W, V), so that ∇F and ∇²F are entry by
entry sums of products.  No formula of a derivative of a loss is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from flint import arb, arb_series, ctx
from oracle_algebra import Matrix, Vector, dot, smallest_eigenvalue

from resnet_cert.vector.problem import VectorProblem

BITS = 256
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class VectorSample:
    """One problem as arrays: x (n, d), y (n, q), f (n, k), W (q, d), V (d, k), and what else it may have."""

    x: Array
    y: Array
    f: Array
    W: Array
    V: Array
    loss: str = "squared"
    omega: Array | None = None
    probabilities: Array | None = None

    def problem(self, **options: Any) -> VectorProblem:
        return VectorProblem.from_arrays(
            x=self.x,
            y=self.y,
            f=self.f,
            W=self.W,
            V=self.V,
            loss=self.loss,
            omega=self.omega,
            probabilities=self.probabilities,
            **options,
        )


def _total(terms: Sequence[Any]) -> Any:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _squared(p: Sequence[Any], y: Vector, omega: Vector) -> Any:
    return _total([(a - b) * (a - b) / 2 for a, b in zip(p, y, strict=True)])


def _weighted(p: Sequence[Any], y: Vector, omega: Vector) -> Any:
    return _total([c * (a - b) * (a - b) / 2 for a, b, c in zip(p, y, omega, strict=True)])


def _logistic(p: Sequence[Any], y: Vector, omega: Vector) -> Any:
    return _total([(1 + a.exp()).log() - b * a for a, b in zip(p, y, strict=True)])


def _softmax(p: Sequence[Any], y: Vector, omega: Vector) -> Any:
    log_sum = _total([a.exp() for a in p]).log()
    return _total([b * (log_sum - a) for a, b in zip(p, y, strict=True)])


LOSSES: dict[str, Callable[[Sequence[Any], Vector, Vector], Any]] = {
    "squared": _squared,
    "weighted_squared": _weighted,
    "logistic": _logistic,
    "softmax": _softmax,
}
"""ℓ(p; y) as it is defined, of numbers or of power series."""


def loss_and_derivatives(loss: str, p: Vector, y: Vector, omega: Vector) -> tuple[arb, Vector, Matrix]:
    """ℓ, ∇ℓ, ∇²ℓ at p, from second-order power series along e_a and e_a + e_b."""
    q, zero, one = len(p), arb(0), arb(1)

    def along(direction: Sequence[arb]) -> arb_series:
        return LOSSES[loss](
            [arb_series([a, v], 3) for a, v in zip(p, direction, strict=True)],
            [arb_series([b], 3) for b in y],
            [arb_series([c], 3) for c in omega],
        )

    def unit(*places: int) -> Vector:
        return [one if a in places else zero for a in range(q)]

    series = [along(unit(a)) for a in range(q)]
    second: Matrix = [[2 * series[a][2] if a == b else zero for b in range(q)] for a in range(q)]
    for a in range(q):
        for b in range(a):
            second[a][b] = second[b][a] = along(unit(a, b))[2] - series[a][2] - series[b][2]
    return series[0][0], [s[1] for s in series], second


class VectorTruth:
    """F, ∇F and ∇²F at a sample, with 256 bits."""

    def __init__(self, sample: VectorSample) -> None:
        self.sample = sample
        (self.n, self.d), self.k, self.q = sample.x.shape, sample.f.shape[1], len(sample.W)

    def weights(self) -> Vector:
        pi = np.ones(self.n) if self.sample.probabilities is None else self.sample.probabilities
        exact = [arb(float(entry)) for entry in pi]
        total = _total(exact)
        return [entry / total for entry in exact]

    def predictions(self) -> tuple[Matrix, Matrix]:
        """h (n, d) and p (n, q)."""
        sample = self.sample
        V, W = [[[arb(float(entry)) for entry in row] for row in M] for M in (sample.V, sample.W)]
        h = []
        for x, f in zip(sample.x, sample.f, strict=True):
            features = [arb(float(entry)) for entry in f]
            h.append([arb(float(xj)) + dot(row, features) for xj, row in zip(x, V, strict=True)])
        return h, [[dot(row, hi) for row in W] for hi in h]

    @cached_property
    def parts(self) -> list[tuple[arb, arb, Vector, Matrix]]:
        """π, ℓ, ∇ℓ, ∇²ℓ of each sample."""
        sample = self.sample
        omega = np.ones_like(sample.y) if sample.omega is None else sample.omega
        found = []
        with ctx.workprec(BITS):
            for i, (pi, p) in enumerate(zip(self.weights(), self.predictions()[1], strict=True)):
                y, c = ([arb(float(entry)) for entry in row] for row in (sample.y[i], omega[i]))
                found.append((pi, *loss_and_derivatives(sample.loss, p, y, c)))
        return found

    @cached_property
    def F(self) -> arb:
        with ctx.workprec(BITS):
            return _total([pi * value for pi, value, _, _ in self.parts])

    @cached_property
    def gradient(self) -> Vector:
        """∇F as one vector: the entries of W row by row, then those of V."""
        with ctx.workprec(BITS):
            total = [arb(0)] * (self.d * (self.q + self.k))
            for i, (pi, _, slope, _) in enumerate(self.parts):
                for a, gradient in enumerate(self._of_prediction(i)):
                    total = [t + pi * slope[a] * g for t, g in zip(total, gradient, strict=True)]
            return total

    @cached_property
    def hessian(self) -> Matrix:
        with ctx.workprec(BITS):
            d, k, q, size = self.d, self.k, self.q, self.d * (self.q + self.k)
            H = [[arb(0)] * size for _ in range(size)]
            for i, (pi, _, slope, bend) in enumerate(self.parts):
                J = self._of_prediction(i)
                BJ = [[dot(bend[a], [J[b][s] for b in range(q)]) for s in range(size)] for a in range(q)]
                for r in range(size):
                    for s in range(size):
                        H[r][s] += pi * dot([J[a][r] for a in range(q)], [BJ[a][s] for a in range(q)])
                # ∂²p_a / ∂W_aj ∂V_jl = f_l
                for a in range(q):
                    for j in range(d):
                        for l in range(k):
                            term = pi * slope[a] * arb(float(self.sample.f[i, l]))
                            r, s = a * d + j, q * d + j * k + l
                            H[r][s] += term
                            H[s][r] += term
            return H

    @cached_property
    def lambda_min(self) -> arb:
        with ctx.workprec(BITS):
            return smallest_eigenvalue(self.hessian)

    @cached_property
    def at_zero(self) -> VectorTruth:
        """The point (0, V)."""
        return VectorTruth(replace(self.sample, W=np.zeros_like(self.sample.W)))

    @cached_property
    def g_W(self) -> Matrix:
        flat = self.gradient[: self.q * self.d]
        return [flat[a * self.d : (a + 1) * self.d] for a in range(self.q)]

    @cached_property
    def A_f(self) -> Matrix:
        """E[∇ℓ fᵀ]."""
        with ctx.workprec(BITS):
            total = [[arb(0)] * self.k for _ in range(self.q)]
            for i, (pi, _, slope, _) in enumerate(self.parts):
                for a in range(self.q):
                    for l in range(self.k):
                        total[a][l] += pi * slope[a] * arb(float(self.sample.f[i, l]))
            return total

    def _of_prediction(self, i: int) -> Matrix:
        """∂p_a/∂W_bj = δ_ab h_j and ∂p_a/∂V_jl = W_aj f_l, one row for each a."""
        h = self.predictions_once[0][i]
        W, f = self.sample.W, [arb(float(entry)) for entry in self.sample.f[i]]
        rows = []
        for a in range(self.q):
            of_W = [h[j] if a == b else arb(0) for b in range(self.q) for j in range(self.d)]
            rows.append(of_W + [arb(float(W[a, j])) * fl for j in range(self.d) for fl in f])
        return rows

    @cached_property
    def predictions_once(self) -> tuple[Matrix, Matrix]:
        with ctx.workprec(BITS):
            return self.predictions()
