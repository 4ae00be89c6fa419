"""One pass over the data: the moments that hold F, ∇F and ∇²F for several outputs, with proven radii.

With h = x + Vf, p = Wh and z = (h, f):

    F = E[ℓ],   g_W = E[∇ℓ hᵀ] (q, d),   A_f = E[∇ℓ fᵀ] (q, k),   Q = E[∇²ℓ ⊗ z zᵀ],
    ∇_W F = g_W,   ∇_V F = WᵀA_f,
    D²F(dW, dV) = ⟨B, Q B⟩ + 2⟨dW dV, A_f⟩,   B = (dW, W dV) (q, d + k).

Q is kept as small as ∇²ℓ allows: one matrix E[c z zᵀ] for ∇²ℓ = c·I, one for each output for a diagonal,
all q² blocks otherwise.  Radii are bounded as with one output (`moments.moments`): for an error E_i of
∇²ℓ at sample i, ‖E_i ⊗ z zᵀ‖ = ‖E_i‖‖z‖² in spectral norm, and rounding errors are at most γ|c|‖z‖² entry by
entry, of which the spectral norm of |∇²ℓ| times ‖z‖² is a bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from resnet_cert.moments.lipschitz import largest_prediction, weighted_terms
from resnet_cert.moments.moments import Residual, Sum, quotient, sum_of, sum_of_products, total_weight
from resnet_cert.moments.one_pass import Observed, observed
from resnet_cert.numerics.enclosure import (
    TINY,
    Array,
    Ball,
    Enclosure,
    U,
    frobenius,
    gamma,
    inflate,
    row_norms,
)
from resnet_cert.problem.problem import BLOCK_ROWS
from resnet_cert.vector.losses import VectorLoss
from resnet_cert.vector.problem import VectorChunk, VectorProblem


@dataclass(frozen=True)
class VectorMoments:
    """F, g_W (q, d), A_f (q, k) and Q: expectations with proven radii.

    The radii of g_W and A_f are Frobenius norms; that of Q is the spectral norm of it as an operator on
    R^{q×(d+k)}.  At W = 0 the Hessian needs only its part on R^{q×d}, and that alone is there.
    """

    F: Enclosure
    g_W: Ball
    A_f: Ball
    Q: Ball

    def dense(self) -> Ball:
        """Q as a symmetric matrix (q·m, q·m) over R^{q×m}, row by row; m = d + k, or d at W = 0."""
        q, blocks = len(self.g_W.center), self.Q.center
        m = blocks.shape[-1]
        full = np.zeros((q, m, q, m))
        for a in range(q):
            if blocks.ndim == 4:
                full[a] = blocks[a].transpose(1, 0, 2)
            else:
                full[a, :, a] = blocks if blocks.ndim == 2 else blocks[a]
        matrix = full.reshape(q * m, q * m)
        matrix = (matrix + matrix.T) / 2.0  # the nearest symmetric one is not further from the true one
        return Ball(matrix, inflate(self.Q.radius + U * frobenius(matrix)))


@dataclass(frozen=True)
class VectorMomentSums:
    """Unnormalised moments of some samples.  `+` merges those of disjoint sets of samples, in any order."""

    weight: Sum
    F: Sum
    g_W: Sum
    A_f: Sum
    Q: Sum

    def __add__(self, other: VectorMomentSums) -> VectorMomentSums:
        return VectorMomentSums(
            self.weight + other.weight,
            self.F + other.F,
            self.g_W + other.g_W,
            self.A_f + other.A_f,
            self.Q + other.Q,
        )

    def expectation(self) -> VectorMoments:
        """The moments: every sum over the total weight."""
        total = Enclosure.around(float(self.weight.value), self.weight.radius)
        F, *arrays = (quotient(part, total) for part in (self.F, self.g_W, self.A_f, self.Q))
        return VectorMoments(Enclosure.around(float(F.center), F.radius), *arrays)


def moment_sums(loss: VectorLoss, chunk: VectorChunk, at: Residual, W: Array) -> VectorMomentSums:
    """The moments of one chunk at (W, V), where `at` is its residual for V."""
    W_norm = frobenius(W)
    h, f, pi = at.h, chunk.f, np.ones(len(chunk.x)) if chunk.weight is None else chunk.weight
    p = h @ W.T
    # fl(Wh) is off by γ_d ‖W‖_F‖h‖, and h itself by at.error.
    p_error = gamma(W.shape[1]) * (at.norm * W_norm) + at.error * W_norm + (W.size * TINY if W_norm else 0.0)
    loss_at = loss.derivatives(p, p_error, chunk.y, chunk.omega)
    z = np.concatenate([h, f], axis=1) if W_norm else h

    h_norm, f_norm, e = at.norm, at.f_norm, at.error
    z_norm = np.hypot(h_norm, f_norm) if W_norm else h_norm
    rounding = gamma(min(BLOCK_ROWS, len(p)) + 10)
    # One TINY for every product; π∇ℓ may underflow beside a z that is large, π∇²ℓ beside its square.
    largest = 1.0 + float(np.max(h_norm + f_norm))
    floor = (len(W) * (h.shape[1] + f.shape[1] + 1.0)) ** 2 * len(p) * TINY * largest

    def radius(data: Array, size: Array, floor: float = floor) -> float:
        """What is wrong with the summands, `data`, and what rounding adds: γ times their absolute `size`."""
        return inflate(float(np.sum(pi * data)) + rounding * float(np.sum(pi * size)) + floor)

    slope = row_norms(loss_at.first)
    slope_size, bend, bend_error = slope + loss_at.first_error, loss_at.second_size, loss_at.second_error
    bend_data = bend_error * z_norm * z_norm + (bend + bend_error) * (2.0 * z_norm + e) * e
    first = pi[:, None] * loss_at.first
    return VectorMomentSums(
        weight=total_weight(chunk),
        F=sum_of(pi * loss_at.value, radius(loss_at.value_error, np.abs(loss_at.value))),
        g_W=sum_of_products(first, h, radius(loss_at.first_error * h_norm + slope_size * e, slope * h_norm)),
        A_f=sum_of_products(first, f, radius(loss_at.first_error * f_norm, slope * f_norm)),
        Q=_curvature_sum(
            (pi * loss_at.second.T).T,
            z,
            radius(bend_data, bend * z_norm * z_norm, floor * largest),
        ),
    )


def _curvature_sum(c: Array, z: Array, radius: float) -> Sum:
    """Σ_i c_i ⊗ z_i z_iᵀ for c (n,), (n, q) or symmetric (n, q, q)."""
    if c.ndim == 1:
        root = np.sqrt(np.abs(c))[:, None] * z
        return sum_of_products(root, np.sign(c)[:, None] * root, radius)
    q = c.shape[1]
    if c.ndim == 2:
        parts = [_curvature_sum(c[:, a], z, 0.0) for a in range(q)]
        return _stacked(np.stack([part.value for part in parts]), [part.radius for part in parts], radius)
    blocks = {(a, b): _curvature_sum(c[:, a, b], z, 0.0) for a in range(q) for b in range(a, q)}
    value = np.empty((q, q, z.shape[1], z.shape[1]))
    for (a, b), block in blocks.items():
        value[a, b], value[b, a] = block.value, block.value.T
    return _stacked(value, [block.radius for (a, b), block in blocks.items() for _ in {a, b}], radius)


def _stacked(value: Array, radii: list[float], radius: float) -> Sum:
    return Sum(value, inflate(math.hypot(*radii) + radius))


def observe(problem: VectorProblem, b: float) -> Observed[VectorMoments]:
    """One pass over the data, a chunk at a time."""
    loss = problem.loss
    return observed(
        problem.chunks(),
        problem.point.W,
        problem.point.V,
        lambda chunk, at, W: moment_sums(loss, chunk, at, W),
        lambda chunk, x_norm, f_norm: _lipschitz_terms(loss, chunk, x_norm, f_norm, b),
    )


def _lipschitz_terms(loss: VectorLoss, chunk: VectorChunk, x_norm: Array, f_norm: Array, b: float) -> Array:
    """Σ π (μ0, μ1, μ2 of one sample) over a chunk on {‖W‖ ≤ b, ‖V‖ ≤ b}, in spectral norms.

    The formulas are those of one output (`moments.lipschitz`) with L1, L2, L3 for ‖∇ℓ‖, ‖∇²ℓ‖, ‖∇³ℓ‖.
    For p = W(x + Vf): ‖p‖ ≤ b(‖x‖ + b‖f‖); Dp(dW, dV) = dW h + W dV f, so ‖Dp‖² ≤ ‖h‖² + b²‖f‖² ≤ J²;
    D²p(dW, dV)² = 2 dW dV f, of norm ≤ ‖f‖ on unit vectors, as 2‖dW‖‖dV‖ ≤ 1; D³p = 0.  The chain rule then
    gives DF ≤ L1 J, D²F ≤ L2 J² + L1‖f‖ and D³F ≤ L3 J³ + 3 L2 J‖f‖; the norm of a symmetric multilinear
    form is its largest value on unit vectors (Banach 1938).
    """
    suprema = loss.suprema(largest_prediction(x_norm, f_norm, b), chunk.y, chunk.omega)
    return weighted_terms(suprema, chunk.weight, x_norm, f_norm, b)
