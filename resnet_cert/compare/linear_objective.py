"""F_lin(W) = E[ℓ(Wx; y)] and what may be added to it, as a convex function in well-conditioned coordinates.

    Φ(W) = F_lin(W) + ½ Σ_j ρ_j‖W_{·j}‖² + P(W),   W = U Tᵀ   (`design`).

ρ is what weight decay adds, 2·l2 for each decayed column.  P is a penalty on directions along which F_lin
does not change; it leaves min F_lin on every ball, and the minimiser of least norm there, as they are:

- where ℓ(p + c·1; y) = ℓ(p; y), ½κ‖ΠU‖_F², Π the projection that puts the mean of the rows in place of each:
  removing ΠW shortens W and leaves F_lin as it is;
- where the data leave directions Z unseen, ½κ‖WZ‖_F² (`row_space`), up to the sine that is known of Z.

In float64 there are the value, the gradient and products with the Hessian, for the search; and all of it is
enclosed, at one U, for the proof.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np

from resnet_cert.compare.design import HELD_BYTES, Design, Rows, gram
from resnet_cert.compare.row_space import Unseen
from resnet_cert.moments.executors import merged
from resnet_cert.moments.moments import (
    Moments,
    MomentSums,
    Slopes,
    curvature_sum,
    total_weight,
    value_sum,
    weight_sum,
)
from resnet_cert.numerics.algebra import solve
from resnet_cert.numerics.enclosure import Ball, Enclosure
from resnet_cert.numerics.radius import NOTHING, UNBOUNDED, Array, Radius, U, gamma
from resnet_cert.numerics.sums import BLOCK_ROWS, Blocks, Sum, quotient
from resnet_cert.problem.custom_loss import CustomLoss
from resnet_cert.problem.losses import BuiltinLoss, Derivatives, FirstDerivatives, Loss
from resnet_cert.problem.problem import Chunk

ENOUGH_ROWS = 32
"""So many samples for each input are enough to see how F_lin bends at least."""


@dataclass(frozen=True)
class Bend:
    """ℓ (m,), ∇ℓ (m, q) and ∇²ℓ = diag(diagonal) − off·offᵀ, (m, q) each, of some samples in float64.

    off: None where ∇²ℓ is diagonal.
    """

    value: Array
    first: Array
    diagonal: Array
    off: Array | None


def bend(loss: Loss, p: Array, chunk: Chunk) -> Bend:
    """The loss at predictions (m, q), none of it proven, in O(mq)."""
    if loss.sum_free and p.shape[1] > 1:  # softmax: ∇ℓ = Ys − y, ∇²ℓ = Y(diag(s) − ssᵀ), Y = Σ y
        at = loss.first_derivatives(p, NOTHING, chunk.y, chunk.omega)
        y = cast(BuiltinLoss, loss).scale * chunk.y
        share = np.maximum(at.first + y, 0.0)
        Y = y.sum(axis=1, keepdims=True)
        return Bend(
            at.value, at.first, share, np.divide(share, np.sqrt(Y), out=np.zeros_like(share), where=Y > 0)
        )
    if isinstance(loss, CustomLoss):
        value, first, second = loss.approximate(p[:, 0], chunk.y[:, 0])
        return Bend(value, first[:, None], np.maximum(second, 0.0)[:, None], None)
    full = loss.derivatives(p, NOTHING, chunk.y, chunk.omega)
    second = full.second[:, None] if full.second.ndim == 1 else full.second
    if second.ndim == 3:
        second = second[:, :, 0]
    return Bend(full.value, full.first, np.maximum(np.broadcast_to(second, p.shape), 0.0), None)


def least_curvature(loss: Loss, p: Array, error: Radius, chunk: Chunk) -> Array:
    """c (m,) with ∇²ℓ ⪰ c·I at all predictions within `error` of p (m, q), c ≥ 0 for a convex loss.

    With softmax on the complement of (1, …, 1): ∇²ℓ = Y(diag(s) − ssᵀ), and vᵀ(diag(s) − ssᵀ)v = min_t Σ s_j
    (v_j − t)² ≥ min s·‖v‖² for such a v.  min s = 1/Σ_j e^{p_j − min p}, in which each p_j − min p is off by
    √2·error at most; 2^-30 pays for the roundings where no term is infinite, and then c = 0.
    """
    if not (loss.sum_free and p.shape[1] > 1):
        at = loss.derivatives(p, error, chunk.y, chunk.omega)
        second = at.second if at.second.ndim == 1 else at.second.min(axis=1)
        c = (second - at.second_error.upper) * (1.0 - 2.0 * U)
        return np.maximum(c, 0.0) if loss.convex else np.minimum(c, c * (1.0 + 4.0 * U))
    builtin = cast(BuiltinLoss, loss)
    e = builtin.functions.exp(p - p.min(axis=1, keepdims=True) + 1.5 * np.reshape(error.upper, (-1, 1)))
    Y = builtin.scale * chunk.y.sum(axis=1)
    c = np.nan_to_num(Y / e.sum(axis=1)) * (1.0 - 2.0**-30)
    return c if chunk.omega is None else np.where((chunk.omega > 0.0).all(axis=1), c, 0.0)


@dataclass(frozen=True)
class Sketch:
    """Φ, its gradient (q, d) and what the Hessian is made of, at one U in float64; none of it proven.

    point: U.  noise: differences of values below this are rounding.  bends: of each chunk, where they take
    little; else they are made again.  weight: Σ π.
    """

    point: Array

    value: float
    noise: float
    gradient: Array
    bends: list[Bend] | None
    weight: float


@dataclass(frozen=True)
class Enclosed:
    """F_lin, E[∇ℓ zᵀ] (q, d), the blocks of E[∇²ℓ ⊗ zzᵀ], and E[∇ℓ xᵀ] (q, d), at one U.

    blocks: one (d, d) for all outputs, q of them, or one (qd, qd); None where they are not there.  least: a
    lower bound of them (`least_block`), or None.
    bend: an upper bound of ‖∇²F_lin‖ in W.  farthest, farthest_x: of ‖z_i‖, ‖x_i‖.
    """

    F: Enclosure
    slope: Ball
    blocks: list[Ball] | None
    slope_x: Ball
    bend: Radius
    farthest: Radius
    farthest_x: Radius
    least: Ball | None = None


@dataclass(frozen=True)
class LinearObjective:
    """Φ of a problem in the coordinates of a design; ridge: ρ (d,)."""

    design: Design
    ridge: Array
    unseen: Unseen | None = None

    @property
    def q(self) -> int:
        return self.design.problem.q

    @property
    def d(self) -> int:
        return self.design.d

    @property
    def is_quadratic(self) -> bool:
        return self.design.problem.loss.concordance == 0.0

    @property
    def is_mean_free(self) -> bool:
        """The rows of ∇F_lin sum to 0."""
        return self.design.problem.loss.sum_free and self.q > 1

    def W(self, point: Array) -> Array:
        """U Tᵀ (q, d), rounded, in units of sigma."""
        return self.design.units * (point if self.design.R is None else point @ self.design.R.T)

    def coordinates(self, W: Array) -> Array:
        """U (q, d) with U Tᵀ about W."""
        scaled = W / self.design.units
        if self.design.R is None:
            return scaled
        return solve(self.design.R, scaled.T).T

    @cached_property
    def second_moments(self) -> Array:
        """(d, d) E[zzᵀ]."""
        return gram(self.design)

    @cached_property
    def metric(self) -> Array:
        """(d, d) TᵀT: ‖W‖_F² = ⟨U, U TᵀT⟩."""
        T = self.design.T
        return T.T @ T

    @cached_property
    def penalty(self) -> Array:
        """(d, d): ½⟨U, U·penalty⟩ is what ρ and the unseen directions add."""
        T = self.design.T
        added = T.T @ (self.ridge[:, None] * T)
        if self.unseen is not None:
            seen = T.T @ self.unseen.Z
            added = added + seen @ seen.T
        return added

    def added(self, lam: float) -> Array:
        """(d, d): ½⟨U, U·added⟩ is λ/2‖W‖_F² and all that is added to F_lin."""
        return self.penalty + lam * self.metric if lam else self.penalty

    def _squares(self, point: Array, lam: float) -> float:
        """⟨U, U·added⟩, by squares: it is small where terms of it cancel."""
        T, squares = self.design.T, 0.0
        if lam or self.ridge.any():
            squares += float(np.sum(np.square((point @ T.T) * np.sqrt(self.ridge + lam))))
        if self.unseen is not None:
            squares += float(np.sum(np.square(point @ (T.T @ self.unseen.Z))))
        return squares

    def sketch(self, point: Array, lam: float) -> Sketch:
        """Φ + λ/2‖W‖_F² at U."""
        value = size = blur = weight = 0.0
        g = np.zeros_like(point)
        bends: list[Bend] | None = (
            [] if 3 * point.shape[0] * self.design.problem.n * 8 <= HELD_BYTES else None
        )
        for rows in self.design.rows():
            p, pi = rows.z @ point.T, rows.chunk.weights
            at = bend(self.design.problem.loss, p, rows.chunk)
            value += float(pi @ at.value)
            size += float(pi @ np.abs(at.value))
            blur += float(pi @ (np.linalg.norm(at.first, axis=1) * np.linalg.norm(p, axis=1)))
            weight += float(np.sum(pi))
            g += (pi[:, None] * at.first).T @ rows.z
            if bends is not None:
                bends.append(at)
        turned = point @ self.added(lam)
        added = 0.5 * self._squares(point, lam)
        noise = 2.0**-46 * (size / weight + abs(added)) + 4.0 * U * blur / weight
        return Sketch(point, value / weight + added, noise, g / weight + turned, bends, weight)

    def _bent(self, at: Sketch) -> Iterator[tuple[Rows, Bend]]:
        """The rows, and how the loss bends at their predictions."""
        if at.bends is not None:
            yield from zip(self.design.rows(), at.bends, strict=True)
            return
        for rows in self.design.rows():
            yield rows, bend(self.design.problem.loss, rows.z @ at.point.T, rows.chunk)

    def hessian_product(self, at: Sketch, lam: float, direction: Array) -> Array:
        """∇²(Φ + λ/2‖W‖_F²) applied to a direction (q, d)."""
        product = np.zeros_like(direction)
        for rows, bend in self._bent(at):
            moved = rows.z @ direction.T
            bent = bend.diagonal * moved
            if bend.off is not None:
                bent -= bend.off * np.einsum("ij,ij->i", bend.off, moved)[:, None]
            product += (rows.chunk.weights[:, None] * bent).T @ rows.z
        return product / at.weight + direction @ self.added(lam)

    def curvature_blocks(self, at: Sketch) -> list[Array]:
        """The blocks of E[∇²ℓ ⊗ zzᵀ] in float64: one for all outputs or q of them (d, d), or one (qd, qd)."""
        q, d = self.q, self.d
        if self.is_quadratic and all(rows.chunk.omega is None for rows in self.design.rows()):
            _, first = next(self._bent(at))
            return [float(first.diagonal[0, 0]) * self.second_moments]
        blocks = [np.zeros((d, d)) for _ in range(q)]
        whole: Array | None = None
        for rows, bend in self._bent(at):
            z, pi = rows.z, rows.chunk.weights / at.weight
            if bend.off is not None and whole is None:
                whole = np.zeros((q, d, q, d))
            for a in range(q):
                c = pi * bend.diagonal[:, a]
                if (c >= 0.0).all():  # one symmetric product: half the work
                    root = np.sqrt(c)[:, None] * z
                    blocks[a] += root.T @ root
                else:
                    blocks[a] += z.T @ (c[:, None] * z)
            if bend.off is not None and whole is not None:
                moved = ((np.sqrt(pi)[:, None] * bend.off)[:, :, None] * z[:, None, :]).reshape(len(z), -1)
                whole -= (moved.T @ moved).reshape(q, d, q, d)
        if whole is None:
            return blocks
        for a in range(q):
            whole[a, :, a] += blocks[a]
        return [whole.reshape(q * d, q * d)]

    def mean_curvature(self, at: Sketch) -> float:
        """E[tr ∇²ℓ]/q, or the mean over the directions in which ∇²ℓ does not vanish."""
        total = 0.0
        for rows, bend in self._bent(at):
            traces = bend.diagonal.sum(axis=1)
            if bend.off is not None:
                traces = traces - np.square(bend.off).sum(axis=1)
            total += float(rows.chunk.weights @ traces)
        return total / at.weight / (self.q - 1 if self.is_mean_free else self.q)

    def enclosed(self, point: Array, *, blocks: bool) -> Enclosed:
        """Everything that is proven about F_lin at U."""
        parts = [self._sums(cut, rows, point, blocks) for cut, rows in self._in_blocks()]
        sums, bend = merged(part[0] for part in parts), merged(part[1] for part in parts)
        at, weight = sums.expectation(), total_weight(sums.weight)
        units = self.design.units
        slope_x = at.A_f
        if self.design.R is None:  # E[∇ℓ xᵀ] by the exact scaling
            center = at.g_W.center / units
            lost = Radius.norm(center) * (2.0 * U) + Radius.underflow(center.size)
            slope_x = Ball(center, at.g_W.radius / float(np.min(units)) + lost)
        return Enclosed(
            at.F,
            at.g_W,
            _as_blocks(at) if blocks else None,
            slope_x,
            bend.total().radius / weight.lower,
            Radius(np.max([part[2].upper for part in parts])),
            Radius(np.max([part[3].upper for part in parts])),
        )

    def least_block(self, point: Array) -> Ball:
        """B (d, d) with E[∇²ℓ ⊗ zzᵀ] ⪰ I ⊗ B, or (I − Π) ⊗ B where the rows of ∇F_lin sum to 0, at U.

        B = E[c zzᵀ], c the `least_curvature` of a sample, and 0 for most where there are more samples than
        are needed: a convex loss bends no less for it.
        """
        problem, size = self.design.problem, Radius.norm(point)
        every = problem.n // (ENOUGH_ROWS * self.d + BLOCK_ROWS) if problem.loss.convex else 1
        weights, sums = [], []
        for cut, rows in self._in_blocks():
            weights.append(weight_sum(rows.chunk, cut))
        for cut, rows in self._in_blocks(max(1, every)):
            z_norm = Radius.row_norms(rows.z)
            p_error = z_norm * size * gamma(self.d + 1) + rows.error * size + Radius.underflow(point.size)
            p = cut.times(rows.z, point.T)
            c = least_curvature(problem.loss, p, p_error, rows.chunk)
            nothing = Radius.of(np.zeros(len(c)))
            at = Derivatives(c, nothing, c[:, None], nothing, c, nothing, Radius.size(c))
            sums.append(curvature_sum(at, rows.chunk.weight, rows.z, z_norm, rows.error, cut))
        B = quotient(merged(sums).total(), total_weight(merged(weights)))
        return Ball((B.center + B.center.T) / 2.0, B.radius + Radius.norm(B.center) * U)

    def largest_third(self, point: Array, q: float) -> Radius:
        """max_i sup|ℓ‴|·‖z_i‖³ over predictions of U within q of `point`; infinite where it is not known."""
        worst, size = NOTHING, Radius.norm(point)
        for rows in self.design.rows():
            z_norm = Radius.row_norms(rows.z) + rows.error
            rounding = z_norm * size * gamma(self.d + 1) + rows.error * size + Radius.underflow(point.size)
            reach = Radius.row_norms(rows.z @ point.T) + rounding + z_norm * q
            bounds = self.design.problem.loss.suprema(reach, rows.chunk.y, rows.chunk.omega)
            if bounds is None:
                return UNBOUNDED
            most = (bounds.third * z_norm * z_norm * z_norm).max()
            worst = Radius(np.maximum(worst.upper, most.upper))
        return worst

    def _in_blocks(self, every: int = 1) -> Iterator[tuple[Blocks, Rows]]:
        """All rows, or one of so many."""
        first = 0
        for rows in self.design.rows():
            rows = rows if every == 1 else rows[::every]
            yield Blocks(first, len(rows.z)), rows
            first += -(-len(rows.z) // BLOCK_ROWS)

    def _sums(
        self, cut: Blocks, rows: Rows, point: Array, blocks: bool
    ) -> tuple[MomentSums, Sum, Radius, Radius]:
        """The moments of some rows, with E[∇ℓ xᵀ] for A_f; Σ π‖∇²ℓ‖‖x‖²; max ‖z‖ and max ‖x‖."""
        chunk, z, e = rows.chunk, rows.z, rows.error
        loss, size = self.design.problem.loss, Radius.norm(point)
        z_norm, x_norm = Radius.row_norms(z), Radius.row_norms(rows.x) + Radius.of(2.0**-1000)
        p_error = z_norm * size * gamma(self.d + 1) + e * size
        if not p_error.exact:
            p_error = p_error + Radius.underflow(point.size)
        p = cut.times(z, point.T)
        at: Derivatives | FirstDerivatives
        curvature = cut.sum(np.zeros(len(z)), NOTHING, NOTHING)
        if blocks or not self.is_mean_free:
            at = loss.derivatives(p, p_error, chunk.y, chunk.omega)
            size = at.second_size + at.second_error
            if blocks:
                curvature = curvature_sum(at, chunk.weight, z, z_norm, e, cut)
        else:  # softmax, whose ∇²ℓ (m, q, q) may be large
            at = loss.first_derivatives(p, p_error, chunk.y, chunk.omega)
            most = loss.suprema(Radius.row_norms(p) + p_error, chunk.y, chunk.omega)
            size = UNBOUNDED if most is None else most.second
        slopes = Slopes.of(at.first, at.first_error, chunk.weight)
        turned, exact = self.design.R is not None, self.design.sigma == 1.0
        underflow = NOTHING if exact else Radius.of(np.full(len(z), 2.0**-1000))
        sums = MomentSums(
            weight=weight_sum(chunk, cut),
            F=value_sum(at.value, at.value_error, chunk.weight, cut),
            g_W=slopes.times(z, z_norm, e, cut),
            A_f=slopes.times(rows.x if turned else rows.x[:, :0], x_norm, underflow, cut),
            Q=curvature,
        )
        bend = cut.bounds(size * chunk.weights * x_norm * x_norm)
        return sums, bend, (z_norm + e).max(), x_norm.max()


def _as_blocks(at: Moments) -> list[Ball]:
    """The blocks of E[∇²ℓ ⊗ zzᵀ]: one (d, d) for all outputs, q of them, or one (qd, qd)."""
    if at.Q.center.ndim == 4:
        return [at.dense()]
    centers = [at.Q.center] if at.Q.center.ndim == 2 else list(at.Q.center)
    return [Ball((K + K.T) / 2.0, at.Q.radius + Radius.norm(K) * U) for K in centers]
