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

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import cast

import numpy as np

from resnet_cert.compare.design import Design, Largest, Rows
from resnet_cert.compare.row_space import Unseen
from resnet_cert.moments.moments import (
    MeanSums,
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
from resnet_cert.numerics.sums import BLOCK_ROWS, Blocks, Sum
from resnet_cert.problem.custom_loss import CustomLoss
from resnet_cert.problem.losses import BuiltinLoss, Derivatives, FirstDerivatives, Loss
from resnet_cert.problem.problem import Chunk

STEEPER = 20
"""The penalty on unseen directions is at most 2 to this power times as steep as λ."""
ENOUGH_ROWS = 32
"""So many samples for each input are enough to see how F_lin bends at least."""
LARGEST_IN_PASSING = 128
"""Rows of the Hessian up to which a pass over data that are read anew forms it too: that is less work than
reading them again."""
HELD_BENDS = 2**26
"""How the loss bends at each sample is kept where that takes no more than this."""
CANCELS = 2.0**-20
"""The part of the largest term of an expansion below which its sum is not taken from it."""


@dataclass(frozen=True)
class Bend:
    """ℓ (m,), ∇ℓ (m, q) and ∇²ℓ of some samples in float64: its diagonal (m, q), and its other entries −off_a
    off_b, off (m, q) or None where they are 0.
    """

    value: Array
    first: Array
    diagonal: Array
    off: Array | None


def bend(loss: Loss, p: Array, chunk: Chunk) -> Bend:
    """The loss at predictions (m, q), none of it proven, in O(mq)."""
    if loss.sum_free and p.shape[1] > 1:  # softmax: ∇ℓ = Ys − y, ∇²ℓ = Y(diag(s) − ssᵀ), Y = Σ y
        builtin = cast(BuiltinLoss, loss)
        value, first = builtin.approximate_first(p, chunk.y, chunk.omega)
        y = builtin.scale * chunk.y
        root = np.sqrt(y.sum(axis=1, keepdims=True))
        off = np.divide(np.maximum(first + y, 0.0), root, out=np.zeros_like(y), where=root > 0.0)
        rest, leader = root - off, off.argmax(axis=1)[:, None]
        others = off.sum(axis=1, where=np.arange(off.shape[1]) != leader)  # nothing cancels in it
        np.put_along_axis(rest, leader, others[:, None], axis=1)
        return Bend(value, first, off * rest, off)
    if isinstance(loss, CustomLoss):
        value, first, second = loss.approximate(p[:, 0], chunk.y[:, 0])
        return Bend(value, first[:, None], np.maximum(second, 0.0)[:, None], None)
    value, first, second = cast(BuiltinLoss, loss).approximate(p, chunk.y, chunk.omega)
    second = second[:, None] if second.ndim == 1 else second
    if second.ndim == 3:
        second = second[:, :, 0]
    return Bend(value, first, np.maximum(np.broadcast_to(second, p.shape), 0.0), None)


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
    little; else they are made again.  weight: Σ π.  blocks: `curvature_blocks`, where the pass formed them.
    """

    point: Array

    value: float
    noise: float
    gradient: Array
    bends: list[Bend] | None
    weight: float
    blocks: list[Array] | None = None


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

    @cached_property
    def may_fall_for_ever(self) -> bool:
        """Losses of this kind do with some targets."""
        return self.design.problem.loss.recession(np.zeros((0, self.q))) is not None

    @cached_property
    def constant_curvature(self) -> float | None:
        """c where ∇²ℓ = c·I for all samples and predictions, else None."""
        problem, anywhere = self.design.problem, np.zeros((1, self.q))
        if not self.is_quadratic or problem.distribution.omega is not None:
            return None
        return float(np.max(problem.loss.derivatives(anywhere, NOTHING, anywhere, None).second))

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

    def slope_in_W(self, at: Sketch) -> float:
        """‖∇(Φ + λ/2‖W‖_F²)‖ in W."""
        slope = (
            at.gradient / self.design.units
            if self.design.R is None
            else solve(self.design.T.T, at.gradient.T)
        )
        return float(np.linalg.norm(slope))

    @property
    def second_moments(self) -> Array:
        """(d, d) E[zzᵀ]."""
        return self.design.second_moments

    @cached_property
    def metric(self) -> Array:
        """(d, d) TᵀT: ‖W‖_F² = ⟨U, U TᵀT⟩."""
        T = self.design.T
        return T.T @ T

    def unseen_at(self, lam: float) -> Unseen | None:
        """The unseen directions, no longer than λ allows: where F_lin is tiny, so is λ, and the rounding of a
        penalty much steeper would hide it."""
        if self.unseen is None or not lam:
            return self.unseen
        factor = 2.0 ** min((math.frexp(lam)[1] + STEEPER) // 2, 0)
        return Unseen(self.unseen.Z * factor, self.unseen.sine * factor)

    def added(self, lam: float) -> Array:
        """(d, d): ½⟨U, U·added⟩ is λ/2‖W‖_F² and all that is added to F_lin."""
        T, unseen = self.design.T, self.unseen_at(lam)
        added = T.T @ (self.ridge[:, None] * T) if self.ridge.any() else np.zeros_like(T)
        if unseen is not None:
            seen = T.T @ unseen.Z
            added = added + seen @ seen.T
        return added + lam * self.metric if lam else added

    def _squares(self, point: Array, lam: float) -> float:
        """⟨U, U·added⟩, by squares: it is small where terms of it cancel."""
        T, squares, unseen = self.design.T, 0.0, self.unseen_at(lam)
        if lam or self.ridge.any():
            squares += float(np.sum(np.square((point @ T.T) * np.sqrt(self.ridge + lam))))
        if unseen is not None:
            squares += float(np.sum(np.square(point @ (T.T @ unseen.Z))))
        return squares

    def sketch(self, point: Array, lam: float) -> Sketch:
        """Φ + λ/2‖W‖_F² at U."""
        at = self._expanded(point) or self._passed(point)
        added = 0.5 * self._squares(point, lam)
        return replace(
            at,
            value=at.value + added,
            noise=at.noise + 2.0**-46 * abs(added),
            gradient=at.gradient + point @ self.added(lam),
        )

    def _passed(self, point: Array) -> Sketch:
        """F_lin at U, by a pass over the data."""
        curved = self.forms_in_passing
        held = not curved and 3 * point.shape[0] * self.design.problem.n * 8 <= HELD_BENDS
        sums = self.design.summed(partial(_sketch_sums, point=point, held=held, curved=curved))
        (value, size, blur, weight), g, K = np.split(sums.floats.total().center, [4, 4 + point.size])
        noise = (2.0**-46 * size + 4.0 * U * blur) / weight
        gradient = g.reshape(point.shape) / weight
        blocks = self._as_blocks(K / weight) if curved else None
        return Sketch(point, float(value / weight), float(noise), gradient, sums.bends, float(weight), blocks)

    def of_sample(self) -> LinearObjective | None:
        """The same of a few of the samples; None where these are nearly all."""
        few = self.design.of_sample()
        return None if few is None else replace(self, design=few)

    @property
    def forms_in_passing(self) -> bool:
        """Each pass forms the Hessian as well."""
        size = self.q * self.d if self.is_mean_free else self.d
        is_constant = self.constant_curvature is not None
        return size <= LARGEST_IN_PASSING and not (is_constant or self.design.is_kept)

    def _as_blocks(self, sums: Array) -> list[Array]:
        """The numbers of `_curvature_blocks` as they stand in the Hessian."""
        q, d = self.q, self.d
        return [sums.reshape(q * d, q * d)] if self.is_mean_free else list(sums.reshape(q, d, d))

    def _expanded(self, point: Array) -> Sketch | None:
        """F_lin(B) + ⟨∇F_lin(B), U − B⟩ + c/2⟨U − B, (U − B)E[zzᵀ]⟩, which it is where ∇²ℓ = c·I, for a B
        where it is known and not too much of that cancels; None for other losses, or where passes are quick.
        """
        c = self.constant_curvature
        if c is None or self.design.is_kept:
            return None
        if not self._known:
            self._known.append(self._passed(np.zeros_like(point)))
        for at in reversed(self._known):
            step = point - at.point
            bent = step @ (c * self.second_moments)
            parts = at.value, float(np.sum(at.gradient * step)), 0.5 * float(np.sum(bent * step))
            value = sum(parts)
            if value > CANCELS * max(map(abs, parts)):
                noise = at.noise + 2.0**-46 * sum(map(abs, parts))
                return Sketch(point, value, noise, at.gradient + bent, None, at.weight)
        self._known.append(self._passed(point))
        return self._known[-1]

    @cached_property
    def _known(self) -> list[Sketch]:
        """F_lin where a pass has been made to expand it."""
        return []

    def _over(self, at: Sketch, part: Callable[[Rows, Bend], Array]) -> Array:
        """Σ of a function of some rows, and of how the loss bends at their predictions."""
        if at.bends is None:
            return self.design.floats(partial(_at_bends, point=at.point, part=part))
        return functools.reduce(np.add, map(part, self.design.rows(), at.bends))

    def hessian_product(self, at: Sketch, lam: float, direction: Array) -> Array:
        """∇²(Φ + λ/2‖W‖_F²) applied to a direction (q, d)."""
        if self.constant_curvature is not None:
            return direction @ (self.constant_curvature * self.second_moments + self.added(lam))
        product = self._over(at, partial(_hessian_product, direction=direction))
        return product / at.weight + direction @ self.added(lam)

    def curvature_blocks(self, at: Sketch) -> list[Array]:
        """The blocks of E[∇²ℓ ⊗ zzᵀ] in float64: one for all outputs or q of them (d, d), or one (qd, qd)."""
        if self.constant_curvature is not None:
            return [self.constant_curvature * self.second_moments]
        return at.blocks or self._as_blocks(self._over(at, _curvature_blocks) / at.weight)

    def mean_curvature(self, at: Sketch) -> float:
        """E[tr ∇²ℓ]/q, or the mean over the directions in which ∇²ℓ does not vanish."""
        if self.constant_curvature is not None:
            return self.constant_curvature
        total = float(self._over(at, _traces))
        return total / at.weight / (self.q - 1 if self.is_mean_free else self.q)

    def enclosed(self, point: Array, *, blocks: bool) -> Enclosed:
        """Everything that is proven about F_lin at U; without the blocks, and where a part of the samples is
        enough for it, with `least`."""
        every = 1 if blocks else self._every
        sums = self.design.summed(partial(_enclosed_sums, point=point, blocks=blocks, every=every))
        at, weight = sums.moments.expectation(), total_weight(sums.moments.weight)
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
            sums.bend.total().radius[0] / weight.lower,
            Radius(sums.farthest.of[0]),
            Radius(sums.farthest.of[1]),
            None if sums.least is None else _symmetric(sums.least.expectation()),
        )

    def least_block(self, point: Array) -> Ball:
        """B (d, d) with E[∇²ℓ ⊗ zzᵀ] ⪰ I ⊗ B, or (I − Π) ⊗ B where the rows of ∇F_lin sum to 0, at U.

        B = E[c zzᵀ], c the `least_curvature` of a sample, and 0 for most where there are more samples than
        are needed: a convex loss bends no less for it.
        """
        return _symmetric(
            self.design.summed(partial(_least_sums, point=point, every=self._every)).expectation()
        )

    @property
    def _every(self) -> int:
        """Of so many samples one is enough for `least_block`."""
        problem = self.design.problem
        return max(1, problem.n // (ENOUGH_ROWS * self.d + BLOCK_ROWS)) if problem.loss.convex else 1

    def largest_third(self, point: Array, q: float) -> Radius:
        """max_i sup|ℓ‴|·‖z_i‖³ over predictions of U within q of `point`; infinite where it is not known."""
        return Radius(self.design.summed(partial(_largest_third, point=point, q=q)).of)


# What some rows contribute.


@dataclass(frozen=True)
class SketchSums:
    """Σ πℓ, Σ π|ℓ|, Σ π‖∇ℓ‖‖p‖, Σ π, Σ π∇ℓ zᵀ, and the blocks of the Hessian if they are wanted, as one
    vector; and the bends if they are kept."""

    floats: Sum
    bends: list[Bend] | None

    def __add__(self, other: SketchSums) -> SketchSums:
        bends = None if self.bends is None or other.bends is None else self.bends + other.bends
        return SketchSums(self.floats + other.floats, bends)


def _sketch_sums(
    design: Design, rows: Rows, blocks: Blocks, *, point: Array, held: bool, curved: bool
) -> SketchSums:
    p, pi = rows.z @ point.T, rows.chunk.weights
    at = bend(design.problem.loss, p, rows.chunk)
    blur = _lengths(at.first) * _lengths(p)
    numbers = [pi @ at.value, pi @ np.abs(at.value), pi @ blur, np.sum(pi)]
    g = (pi[:, None] * at.first).T @ rows.z
    K = _curvature_blocks(rows, at) if curved else np.empty(0)
    floats = blocks.whole(np.concatenate([numbers, g.ravel(), K.ravel()]), design.problem.chunk_rows)
    return SketchSums(floats, [at] if held else None)


def _lengths(a: Array) -> Array:
    return np.abs(a[:, 0]) if a.shape[1] == 1 else np.sqrt(np.einsum("ij,ij->i", a, a))


def _at_bends(design: Design, rows: Rows, *, point: Array, part: Callable[[Rows, Bend], Array]) -> Array:
    return part(rows, bend(design.problem.loss, rows.z @ point.T, rows.chunk))


def _hessian_product(rows: Rows, bend: Bend, *, direction: Array) -> Array:
    moved = rows.z @ direction.T
    if bend.off is None:
        bent = bend.diagonal * moved
    else:  # from the prediction of the likeliest class, so that nothing cancels
        moved -= np.take_along_axis(moved, bend.off.argmax(axis=1)[:, None], axis=1)
        bent = (bend.diagonal + np.square(bend.off)) * moved
        bent -= bend.off * np.einsum("ij,ij->i", bend.off, moved)[:, None]
    return (rows.chunk.weights[:, None] * bent).T @ rows.z


def _curvature_blocks(rows: Rows, bend: Bend) -> Array:
    """(q, d, d), or (q, d, q, d) where ∇²ℓ is not diagonal."""
    z, pi, (q, d) = rows.z, rows.chunk.weights, (bend.diagonal.shape[1], rows.z.shape[1])
    blocks = np.empty((q, d, d))
    for a in range(q):
        c = pi * bend.diagonal[:, a]
        if (c >= 0.0).all():  # one symmetric product: half the work
            root = np.sqrt(c)[:, None] * z
            blocks[a] = root.T @ root
        else:
            blocks[a] = z.T @ (c[:, None] * z)
    if bend.off is None:
        return blocks
    moved = ((np.sqrt(pi)[:, None] * bend.off)[:, :, None] * z[:, None, :]).reshape(len(z), -1)
    whole = -(moved.T @ moved).reshape(q, d, q, d)
    for a in range(q):
        whole[a, :, a] = blocks[a]
    return whole


def _traces(rows: Rows, bend: Bend) -> Array:
    return np.asarray(rows.chunk.weights @ bend.diagonal.sum(axis=1))


@dataclass(frozen=True)
class EnclosedSums:
    """The moments, with E[∇ℓ xᵀ] for A_f; Σ π‖∇²ℓ‖‖x‖²; max ‖z‖ and max ‖x‖; a lower bound of the blocks."""

    moments: MomentSums
    bend: Sum
    farthest: Largest
    least: MeanSums | None

    def __add__(self, other: EnclosedSums) -> EnclosedSums:
        return EnclosedSums(
            self.moments + other.moments,
            self.bend + other.bend,
            self.farthest + other.farthest,
            None if self.least is None or other.least is None else self.least + other.least,
        )


def _enclosed_sums(
    design: Design, rows: Rows, cut: Blocks, *, point: Array, blocks: bool, every: int
) -> EnclosedSums:
    chunk, z, e = rows.chunk, rows.z, rows.error
    loss, size = design.problem.loss, Radius.norm(point)
    z_norm, x_norm = Radius.row_norms(z), Radius.row_norms(rows.x) + Radius.of(2.0**-1000)
    p_error = z_norm * size * gamma(design.d + 1) + e * size
    if not p_error.exact:
        p_error = p_error + Radius.underflow(point.size)
    p = cut.times(z, point.T)
    at: Derivatives | FirstDerivatives
    curvature = cut.sum(np.zeros(len(z)), NOTHING, NOTHING)
    if blocks or not (loss.sum_free and len(point) > 1):
        at = loss.derivatives(p, p_error, chunk.y, chunk.omega)
        size = at.second_size + at.second_error
        if blocks:
            curvature = curvature_sum(at, chunk.weight, z, z_norm, e, cut)
    else:  # softmax, whose ∇²ℓ (m, q, q) may be large
        at = loss.first_derivatives(p, p_error, chunk.y, chunk.omega)
        most = loss.suprema(Radius.row_norms(p) + p_error, chunk.y, chunk.omega)
        size = UNBOUNDED if most is None else most.second
    slopes = Slopes.of(at.first, at.first_error, chunk.weight)
    turned, exact = design.R is not None, design.sigma == 1.0
    underflow = NOTHING if exact else Radius.of(np.full(len(z), 2.0**-1000))
    sums = MomentSums(
        weight=weight_sum(chunk, cut),
        F=value_sum(at.value, at.value_error, chunk.weight, cut),
        g_W=slopes.times(z, z_norm, e, cut),
        A_f=slopes.times(rows.x if turned else rows.x[:, :0], x_norm, underflow, cut),
        Q=curvature,
    )
    bend = cut.bounds(cut.inner(size * chunk.weights * x_norm, x_norm))
    farthest = np.array([(z_norm + e).max().upper, x_norm.max().upper])
    least = None if every == 1 else _least_sums(design, rows, cut, point=point, every=every)
    return EnclosedSums(sums, bend, Largest(farthest), least)


def _symmetric(B: Ball) -> Ball:
    return Ball((B.center + B.center.T) / 2.0, B.radius + Radius.norm(B.center) * U)


def _least_sums(design: Design, rows: Rows, blocks: Blocks, *, point: Array, every: int) -> MeanSums:
    """c zzᵀ of some of the rows, over Σ π of all."""
    weight, loss, size = weight_sum(rows.chunk, blocks), design.problem.loss, Radius.norm(point)
    some = rows if every == 1 else rows[::every]
    cut = Blocks(blocks.first, len(some.z))
    z_norm = Radius.row_norms(some.z)
    p_error = z_norm * size * gamma(design.d + 1) + some.error * size + Radius.underflow(point.size)
    c = least_curvature(loss, cut.times(some.z, point.T), p_error, some.chunk)
    nothing = Radius.of(np.zeros(len(c)))
    at = Derivatives(c, nothing, c[:, None], nothing, c, nothing, Radius.size(c))
    return MeanSums(weight, curvature_sum(at, some.chunk.weight, some.z, z_norm, some.error, cut))


def _largest_third(design: Design, rows: Rows, blocks: Blocks, *, point: Array, q: float) -> Largest:
    size, z_norm = Radius.norm(point), Radius.row_norms(rows.z) + rows.error
    rounding = z_norm * size * gamma(design.d + 1) + rows.error * size + Radius.underflow(point.size)
    reach = Radius.row_norms(rows.z @ point.T) + rounding + z_norm * q
    bounds = design.problem.loss.suprema(reach, rows.chunk.y, rows.chunk.omega)
    most = UNBOUNDED if bounds is None else (bounds.third * z_norm * z_norm * z_norm).max()
    return Largest(np.asarray(most.upper))


def _as_blocks(at: Moments) -> list[Ball]:
    """The blocks of E[∇²ℓ ⊗ zzᵀ]: one (d, d) for all outputs, q of them, or one (qd, qd)."""
    if at.Q.center.ndim == 4:
        return [at.dense()]
    centers = [at.Q.center] if at.Q.center.ndim == 2 else list(at.Q.center)
    return [Ball((K + K.T) / 2.0, at.Q.radius + Radius.norm(K) * U) for K in centers]
