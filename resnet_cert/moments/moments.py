"""The moments that hold F, ∇F and ∇²F, each with a proven radius.

With h = x + EVf (E the first d1 unit vectors of R^d), p = Wh and z = (h, f):

    F = E[ℓ],   g_W = E[∇ℓ hᵀ] (q, d),   A_f = E[∇ℓ fᵀ] (q, k),   Q = E[∇²ℓ ⊗ z zᵀ],
    ∇_W F = g_W,   ∇_V F = W_1ᵀA_f,
    D²F(dW, dV) = ⟨B, Q B⟩ + 2⟨dW_1 dV, A_f⟩,   B = (dW, W_1 dV) (q, d + k).

Q is kept as small as ∇²ℓ allows: one matrix E[c z zᵀ] for ∇²ℓ = c·I, one for each output for a diagonal,
all q² blocks otherwise.

Where the radii come from.  Every per-sample quantity carries one scalar error (of h and p in Euclidean
norm, of ℓ, of ∇ℓ in Euclidean and of ∇²ℓ in spectral norm), and product-sums theirs (`numerics.sums`).  For
an error E_i of ∇²ℓ at sample i, ‖E_i ⊗ z zᵀ‖ = ‖E_i‖‖z‖² in spectral norm; rounding errors are at most
γ|∇²ℓ||z||zᵀ| entry by entry, of which the spectral norm of |∇²ℓ| times ‖z‖² is a bound.  So the proof costs
O(n(d + k)).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from resnet_cert.numerics.enclosure import Ball, Enclosure
from resnet_cert.numerics.radius import FLOOR, NOTHING, Array, Radius, U, gamma, hypot, total
from resnet_cert.numerics.sums import BLOCK_ROWS, Blocks, Sum, quotient
from resnet_cert.problem.losses import Derivatives, Loss
from resnet_cert.problem.problem import Chunk


@dataclass(frozen=True)
class Moments:
    """F, g_W (q, d), A_f (q, k) and Q: expectations with proven radii.

    The radii of g_W and A_f are Frobenius norms; that of Q is the spectral norm of it as an operator on
    R^{q×m}, m = d + k.  At W = 0 the Hessian needs only its part on R^{q×d}, and that alone is there: m = d.

    Q: (m, m) for ∇²ℓ = c·I, and for one output; (q, m, m) for a diagonal; (q, q, m, m) otherwise.
    """

    F: Enclosure
    g_W: Ball
    A_f: Ball
    Q: Ball

    def dense(self) -> Ball:
        """Q as a symmetric matrix (q·m, q·m) over R^{q×m}, row by row."""
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
        return Ball(matrix, self.Q.radius + Radius.norm(matrix) * U)


@dataclass(frozen=True)
class MomentSums:
    """Unnormalised moments of some samples.  `+` merges those of disjoint sets of blocks, in any order."""

    weight: Sum
    F: Sum
    g_W: Sum
    A_f: Sum
    Q: Sum

    def __add__(self, other: MomentSums) -> MomentSums:
        return MomentSums(
            self.weight + other.weight,
            self.F + other.F,
            self.g_W + other.g_W,
            self.A_f + other.A_f,
            self.Q + other.Q,
        )

    def expectation(self) -> Moments:
        """The moments: every sum over the total weight."""
        whole = total_weight(self.weight)
        F, *arrays = (quotient(part.total(), whole) for part in (self.F, self.g_W, self.A_f, self.Q))
        return Moments(Enclosure.around(float(F.center), F.radius), *arrays)


@dataclass(frozen=True)
class MeanSums:
    """Σ π and Σ π g of some samples, for one quantity g.  Mergeable."""

    weight: Sum
    part: Sum

    def __add__(self, other: MeanSums) -> MeanSums:
        return MeanSums(self.weight + other.weight, self.part + other.part)

    def expectation(self) -> Ball:
        """E[g]."""
        return quotient(self.part.total(), total_weight(self.weight))


def total_weight(weight: Sum) -> Enclosure:
    """Σ π."""
    ball = weight.total()
    return Enclosure.around(float(ball.center), ball.radius)


@dataclass(frozen=True)
class Residual:
    """z = (h, f) of a chunk, h = x + EVf: z (m, d + k), the Euclidean norms of its parts as they are in
    floats, and the error of h (m,)."""

    z: Array
    d: int
    x_norm: Radius
    h_norm: Radius
    f_norm: Radius
    error: Radius

    @cached_property
    def probe(self) -> Array:
        return Blocks.probe(self.z)

    @property
    def h(self) -> Array:
        return self.z[:, : self.d]

    @property
    def f(self) -> Array:
        return self.z[:, self.d :]


def residual(chunk: Chunk, V: Array, blocks: Blocks) -> Residual:
    """z = (h, f) for each row, with |h − exact| ≤ error in Euclidean norm."""
    d, (d1, k) = chunk.x.shape[1], V.shape
    x_norm, f_norm, V_norm = Radius.row_norms(chunk.x), Radius.row_norms(chunk.f), Radius.norm(V)
    if V_norm.exact or f_norm.exact:
        return Residual(np.concatenate([chunk.x, chunk.f], axis=1), d, x_norm, x_norm, f_norm, NOTHING)
    h = blocks.times(chunk.f, V.T)
    h += chunk.x[:, :d1]
    if d1 < d:
        h = np.concatenate([h, chunk.x[:, d1:]], axis=1)
    h_norm = Radius.row_norms(h)
    z = np.concatenate([h, chunk.f], axis=1)
    # Entry j: k products and k − 1 sums, then one more sum; Σ_l |V_jl||f_l| has norm ≤ ‖V‖_F ‖f‖.
    error = total(h_norm * U, f_norm * (V_norm * gamma(k + 1)), Radius.underflow(V.size))
    return Residual(z, d, x_norm, h_norm, f_norm, error)


def moment_sums(
    loss: Loss, chunk: Chunk, at: Residual, W: Array, blocks: Blocks, Q: Sum | None = None
) -> MomentSums:
    """The moments of one chunk at (W, V), where `at` is its residual for V.

    At W = 0 the sum for Q is that over h alone: ∇²F does not need the rest there.

    Args:
        Q: that sum, where it is known already.
    """
    W_norm = Radius.norm(W)
    p = np.zeros((len(at.z), len(W))) if W_norm.exact else blocks.times(at.h, W.T)
    # fl(Wh) is off by γ_d ‖W‖_F‖h‖, and h itself by at.error.
    p_error = (W_norm * gamma(W.shape[1])) * at.h_norm + W_norm * at.error
    if not p_error.exact:
        p_error = p_error + Radius.underflow(W.size)
    loss_at = loss.derivatives(p, p_error, chunk.y, chunk.omega)
    at_0 = W_norm.exact
    z, probe = (at.h, None) if at_0 else (at.z, at.probe)
    z_norm = at.h_norm if at_0 else hypot(at.h_norm, at.f_norm)
    slopes = Slopes.of(loss_at.first, loss_at.first_error, chunk.weight)
    of_h = slopes.part(at.d, at.h_norm, at.error, blocks)
    of_f = slopes.part(at.f.shape[1], at.f_norm, NOTHING, blocks)
    g_W, A_f = blocks.sums_of_products(slopes.center, at.z, [of_h, of_f], roundings=1, probe=at.probe)
    return MomentSums(
        weight=weight_sum(chunk, blocks),
        F=value_sum(loss_at.value, loss_at.value_error, chunk.weight, blocks),
        g_W=g_W,
        A_f=A_f,
        Q=curvature_sum(loss_at, chunk.weight, z, z_norm, at.error, blocks, probe) if Q is None else Q,
    )


def weight_sum(chunk: Chunk, blocks: Blocks) -> Sum:
    """Σ π."""
    if chunk.weight is None:
        return blocks.count_rows()
    return blocks.sum(chunk.weight, NOTHING, Radius.size(chunk.weight))


def value_sum(value: Array, error: Radius, weight: Array | None, blocks: Blocks) -> Sum:
    """Σ π ℓ."""
    if weight is None:
        return blocks.sum(value, error, Radius.size(value))
    weighted = weight * value
    size = Radius.size(weighted)
    return blocks.sum(weighted, error * weight + size * U + Radius.of(FLOOR), size)


@dataclass(frozen=True)
class Slopes:
    """π∇ℓ (m, q), its Euclidean norm (m,) and its error."""

    center: Array
    size: Radius
    error: Radius

    @staticmethod
    def of(first: Array, error: Radius, weight: Array | None, size: Radius | None = None) -> Slopes:
        """size: the norms of `first`, where they are known."""
        if weight is None:
            return Slopes(first, Radius.row_norms(first) if size is None else size, error)
        center = weight[:, None] * first
        size = Radius.row_norms(center)
        lost = size * U + Radius.underflow(first.shape[1]) if first.any() else NOTHING
        return Slopes(center, size, error * weight + lost)

    def times(self, data: Array, norm: Radius, off: Radius, blocks: Blocks) -> Sum:
        """Σ π∇ℓ gᵀ for vectors g that are data (m, l), with these norms, up to errors `off` (m,)."""
        part = self.part(data.shape[1], norm, off, blocks)
        return blocks.sums_of_products(self.center, data, [part], roundings=1)[0]

    def part(self, columns: int, norm: Radius, off: Radius, blocks: Blocks) -> tuple[int, Radius, Radius]:
        """So many columns of such data, as `Blocks.sums_of_products` takes them."""
        errors = blocks.inner(self.error, norm)
        if not off.exact:
            errors = errors + blocks.inner(self.size + self.error, off)
        return columns, errors, blocks.inner(self.size, norm)


def curvature_sum(
    at: Derivatives,
    weight: Array | None,
    z: Array,
    norm: Radius,
    off: Radius,
    blocks: Blocks,
    probe: Array | None = None,
) -> Sum:
    """Σ π ∇²ℓ ⊗ z zᵀ for vectors that are z (m, l), with these norms, up to errors `off` (m,).

    Args:
        probe: `Blocks.probe(z)`, where it is known.
    """
    c, size, error = at.second, at.second_size, at.second_error
    if weight is not None:
        c = (weight * c.T).T
        size = size * weight
        error = error * weight + size * U + Radius.underflow(at.first.shape[1])
    if c.ndim == 2 and (c.shape[1] == 1 or (c == c[:, :1]).all()):
        c = c[:, 0]
    q, m = at.first.shape[1], z.shape[1]
    square = norm * norm
    sizes, errors = blocks.inner(size, square), blocks.inner(error, square)
    if not off.exact:
        errors = errors + blocks.inner((size + error) * (norm * 2.0 + off), off)
    radius = errors + sizes * blocks.roundings(8)
    if not radius.exact:
        # √c·z may underflow beside another entry of it, c·z beside z, and so may the products.
        entries = FLOOR * BLOCK_ROWS * (q * m) ** 2
        radius = radius + (sizes + square.max() + Radius.of(1.0)) * (8.0 * entries)
    return blocks.sum_of_blocks(_blocks_of_curvature(c, z, sizes, blocks, probe), radius, sizes)


def _blocks_of_curvature(
    c: Array, z: Array, sizes: Radius, blocks: Blocks, probe: Array | None = None
) -> Array:
    """(blocks, ...) the sums Σ c_i ⊗ z_i z_iᵀ over each block, for c (n,), (n, q) or symmetric (n, q, q)."""
    m = z.shape[1]
    if c.ndim == 1:
        if (c >= 0.0).all():  # one symmetric product: half the work
            if (c == 1.0).all():
                return blocks.products(z, z, sizes, probe=probe)
            root = np.sqrt(c)[:, None] * z
            return blocks.products(root, root, sizes)
        return blocks.products(c[:, None] * z, z, sizes)
    q = c.shape[1]
    if c.ndim == 2:
        values = np.empty((blocks.count, q, m, m))
        for a in range(q):
            values[:, a] = _blocks_of_curvature(c[:, a], z, sizes, blocks)
        return values
    values = np.empty((blocks.count, q, q, m, m))
    for a in range(q):
        weighted = (c[:, a, a:, None] * z[:, None, :]).reshape(len(z), -1)
        row = blocks.products(z, weighted, sizes * float(q - a)).reshape(blocks.count, m, q - a, m)
        values[:, a, a:] = row.transpose(0, 2, 1, 3)
        values[:, a:, a] = row.transpose(0, 2, 3, 1)
    return values
