"""Branch and bound for the critical points with weight decay of `decayed`, by two numbers that couple them.

With z = sb, s = ‖w_1‖² and t = ‖b‖² as unknowns of their own the equations of `decayed` are

    T(w, z) = E[ℓ'(p) (x, f)] + 2·l2 ((1 − t)w_1, Dw_2, z/s) = 0,   p = wᵀx + zᵀf :

for fixed (s, t) those of a stationary point of the sum of a convex function of (w, z) and a quadratic form.
So it is (s, t) that has to be halved, whatever d + k is; (w, z) follows, as long as the sum is convex, and is
halved as well where it is not.  A box (w, z, b, s, t) is made smaller by

tied        s = ‖w_1‖², t = ‖b‖², z = sb;
bounded     ‖V‖² = st in the range, and 2·l2 st ≤ F(w, 0) − F, G being strongly convex in V;
attainable  F + 2·l2 wᵀDw ≤ F(0) bounds the prediction of every sample;
solved      w_1 = −E[ℓ' x_1]/(2·l2 (1 − t)), b = −E[ℓ' f]/(2·l2);
convex      with T_c = T(w_c, z_c) at a point of the box and Δ = (w − w_c, z − z_c)

                ΔᵀPΔ ≤ −⟨T_c, Δ⟩,   P ≤ E[ℓ'' (x, f)(x, f)ᵀ] + 2·l2 diag(1 − t, D, 1/s) :

            where Y P Yᵀ ≥ (1 − ε)I this is ‖η‖ ≤ ‖Y T_c‖/(1 − ε) for Δ = Yᵀη;
Krawczyk    in (w, z), with T enclosed over all (s, t) of the box.

That there is one zero, and only one, is proven by `equations.HeadAndRatio` in (w, b) alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from resnet_cert.numerics.balls import QUIET, Balls, Bools, product
from resnet_cert.numerics.krawczyk import RESOLUTION, Excluded, Zeros, distinct, inverses, krawczyk
from resnet_cert.numerics.progress import told
from resnet_cert.numerics.radius import FLOOR, Array, Radius, U, gamma
from resnet_cert.problem.losses import BuiltinLoss, Loss
from resnet_cert.problem.ranges import Slopes
from resnet_cert.search.equations import HeadAndRatio, times

NEWTON_STEPS = 3
SIZES = (1.0, 0.25, 0.0625)
BEYOND = 2.0
"""T is evaluated at a point that is so many widths off a box, at most."""
LITTLE = 0.02
"""Where −2·l2 (1 − t) is at most this share of the data's curvature, the sum is nearly convex."""
PIECES = 400
LARGER = 2.0
"""A box (w, b) is examined for a single zero so much larger than it is,"""
LEAST = 1e-8
"""and by this share of ‖(w, b)‖,"""
READY = 1.0
"""where Krawczyk's operator makes it no larger than so many times itself,"""
TIGHT = 1e-5
"""or where it is so small."""
SHRUNK = 0.7
"""A box of which less than this share of one side is left is made smaller again before it is halved."""
MORE = 1.0 + 2.0**-40
"""Pays for the roundings of a bound made of few operations."""


def attainable(system: HeadAndRatio, loss: Loss) -> tuple[tuple[Array, Array], float]:
    """(n,) each: bounds of the predictions p_i of critical points; infinite where nothing is known.  And a
    bound of F(0) − inf F.

    Σ π_j ℓ_j(p_j) ≤ Σ π_j ℓ_j(0) leaves to the i-th loss at most L = m_i + (F(0) − Σ π_j m_j)/π_i, m its
    infimum.  Where ℓ is straight to the left or the right, so is the bound.
    """
    n, y = len(system.y), system.y
    low, high = np.full(n, -np.inf), np.full(n, np.inf)
    if not isinstance(loss, BuiltinLoss):
        return (low, high), np.inf
    w_low, w_high = system.weight.lower, system.weight.upper
    if loss.kind == "squared":
        least, start = np.zeros(n), 0.5 * y * y
    elif loss.kind == "pseudo_huber":
        least, start = np.zeros(n), y * y / (1.0 + np.hypot(1.0, y))
    elif loss.kind == "logistic":
        least, start = np.zeros(n), np.full(n, np.log(2.0))
    elif loss.kind == "poisson":
        least = np.where(y > 0.0, y - y * np.log(np.where(y > 0.0, y, 1.0)), 0.0)
        least, start = least - 1e-12 * (1.0 + y * np.abs(np.log(np.maximum(y, 1e-300)))), np.ones(n)
    else:
        return (low, high), np.inf
    slack = float(np.sum(w_high * (start - least))) * (1.0 + gamma(2 * n + 8)) + 1e-12 * float(
        np.sum(w_high * (np.abs(start) + np.abs(least)))
    )
    L = least + slack / np.maximum(w_low, FLOOR) * MORE
    L = L + 1e-12 * np.abs(L) + FLOOR
    if loss.kind == "squared":
        far = np.sqrt(2.0 * L) * MORE
    elif loss.kind == "pseudo_huber":
        far = np.sqrt(L) * np.sqrt(L + 2.0) * MORE
    elif loss.kind == "logistic":  # max(0, p) − yp ≤ ℓ
        return (-L / y * MORE, L / (1.0 - y) * MORE), slack
    else:
        # e^p ≥ e^a(1 + p − a), so that e^p − yp > L beyond a = log(2y + 1) + … ; −yp ≤ ℓ.
        a = np.log(2.0 * y + 2.0)
        slope = 2.0 * y + 2.0 - y  # e^a − y
        over = np.maximum(L - (2.0 * y + 2.0 - y * a), 0.0) / slope
        high = (a + over) * MORE + 1e-12 * (1.0 + a)
        for _ in range(60):  # Newton from the right, of a convex function: it stays to the right
            value, rise = np.exp(high) - y * high - L, np.exp(high) - y
            trial = high - value / rise * (1.0 - 1e-9)
            sure = np.exp(trial) * (1.0 - 1e-12) - y * np.maximum(trial * (1.0 + 1e-12), 0.0) > L
            high = np.where(sure & (np.exp(trial) > y * (1.0 + 1e-12)), trial, high)
        return (-L / y * MORE, high), slack
    return ((y - far) - 4.0 * U * np.abs(y), (y + far) + 4.0 * U * np.abs(y)), slack


class Contracted(NamedTuple):
    """low, high: (B, M), a part of what was given that holds all of its critical points;  alive: (B,) False
    where there are none.  spread: (B, m, M), which share of the reach in (w, z) that was given each unknown
    causes in Krawczyk's operator."""

    low: Array
    high: Array
    alive: Bools
    spread: Array
    at: Array


class Shells:
    """The equations, and what is the same for all boxes: of the unknowns (w, z, b, s, t), M = d + 2k + 2.

    largest: of ‖V‖² that is searched.
    """

    def __init__(self, system: HeadAndRatio, loss: Loss, largest: float) -> None:
        self.system = system
        self.d, self.d1, self.m = system.d, system.d1, system.z.shape[1]
        self.k = self.m - self.d
        self.S, self.t = self.m + self.k, self.m + self.k + 1
        self.within, self.slack = attainable(system, loss)
        self.largest = largest
        self.is_bent = not (isinstance(loss, BuiltinLoss) and loss.kind == "squared")
        self.is_steep = isinstance(loss, BuiltinLoss) and loss.kind == "poisson"
        self.has_summit = isinstance(loss, BuiltinLoss)
        self.decay = 2.0 * system.l2
        z, weight = system.z, system.weight
        each = Balls(weight.center[:, None], weight.radius[:, None])
        self.loss = loss
        scale = loss.scale if isinstance(loss, BuiltinLoss) else 1.0
        self.alone = Balls(each.center / scale, (each.radius / scale + 4.0 * U * each.center / scale))
        zero = Balls.exact(np.zeros((1, len(z))))
        start = self._mean_loss(zero)
        self.start, self.least = float(start.upper[0]), float(start.lower[0]) - self.slack
        self.pull = min(_pull(self), self.slack)
        self.means = each * Balls.exact(z)  # (n, m): π (x, f)
        self.turned = each * system.turned
        self.pairs = _pairs(self.means, z)
        self.turned_pairs = _pairs(self.turned, z)
        relative = float(np.max(weight.radius / np.maximum(weight.center, FLOOR)))
        self.typical = float(np.max(np.diagonal(self.squares)))
        self.few = 4.0 * (gamma(len(z) + 16) + relative) + 16.0 * U
        self.usual = self.decay / max(float(np.sum(np.diagonal(self.squares)[self.d :])), FLOOR)

    @property
    def squares(self) -> Array:
        return self.pairs.center.sum(axis=0).reshape(self.m, self.m)

    # One step

    def contracted(self, low: Array, high: Array, start: Array) -> Contracted:
        given = 0.5 * (high - low)[:, : self.m] + FLOOR
        alive = np.ones(len(low), dtype=bool)

        def narrowed(ends: tuple[Array, Array]) -> tuple[Array, Array]:
            """What is left, and 0 where that is nothing."""
            nonlocal alive
            alive &= np.asarray((ends[0] <= ends[1]).all(axis=1))
            return np.where(alive[:, None], ends[0], 0.0), np.where(alive[:, None], ends[1], 0.0)

        low, high = narrowed(self._tied(low, high))
        low, high = narrowed(self._bounded(low, high))
        p = times(self._head(low, high), self.system.z)
        least, most = np.maximum(p.lower, self.within[0]), np.minimum(p.upper, self.within[1])
        alive &= (least <= most).all(axis=1)
        p = Balls.between(least, np.maximum(least, most))
        first, _ = self.system.slopes(p, self.system.y)
        slope = _mean(first, self.means)
        low, high = narrowed(self._solved(low, high, slope))
        alive &= ~self._is_apart(low, high, first, p)
        low, high = narrowed((low, high))
        at = self._centre(low, high, start)
        there = times(Balls.exact(at), self.system.z)
        first, second = self._secants(p, there)
        alive &= ~self._is_high(low, high, at, there, first)
        low, high = narrowed(self._convex(low, high, at, first, second))
        low, high, spread = self._krawczyk(low, high, at, first, second, slope, given)
        low, high = narrowed((low, high))
        return Contracted(low, high, alive, spread, at)

    def _secants(self, p: Balls, there: Balls) -> Slopes:
        """ℓ'(p_c), and (ℓ'(p) − ℓ'(p_c))/(p − p_c).

        This is the mean of ℓ'' between p_c and p.  Where ℓ'' rises to one summit and falls beyond, the mean
        does so too as p moves away from p_c: it is least at p_c or at an end of the range of p.
        """
        slopes, y = self.system.slopes, self.system.y
        least, most = np.minimum(p.lower, there.lower), np.maximum(p.upper, there.upper)
        first, at_c = slopes(there, y)
        second = slopes(Balls.between(least, most), y).second
        if not self.has_summit:
            return Slopes(first, second)
        lowest = at_c.lower
        for end in (least, most):
            rise, run = slopes(Balls.exact(end), y).first - first, Balls.exact(end) - there
            mean = (rise * run.reciprocal()).lower
            lowest = np.minimum(lowest, np.where(run.has_no_zero, mean, lowest))
        low, high = np.fmax(second.lower, lowest), second.upper
        return Slopes(first, Balls.between(np.minimum(low, high), high))

    def _head(self, low: Array, high: Array) -> Balls:
        """(w, z)."""
        return Balls.between(low[:, : self.m], high[:, : self.m])

    def _number(self, low: Array, high: Array, of: int) -> Balls:
        return Balls.between(low[:, of], high[:, of])

    def _factors(self, t: Balls, of_z: Balls) -> Balls:
        """(2·l2 (1 − t), 2·l2 D, of_z) as (B, m)."""
        d, d1 = self.d, self.d1
        one_less = (Balls.exact(np.ones_like(t.center)) - t).times(self.decay)
        center = np.empty((len(t.center), self.m))
        radius = np.zeros_like(center)
        center[:, :d] = self.decay * self.system.decayed
        center[:, :d1], radius[:, :d1] = one_less.center[:, None], one_less.radius[:, None]
        center[:, d:], radius[:, d:] = of_z.center[:, None], of_z.radius[:, None]
        return Balls(center, radius)

    def _tied(self, low: Array, high: Array) -> tuple[Array, Array]:
        """s = ‖w_1‖², t = ‖b‖², z = sb."""
        low, high = low.copy(), high.copy()
        d, m, S = self.d, self.m, self.S
        for columns, total in ((slice(0, self.d1), S), (slice(m, S), self.t)):
            square = Balls.between(low[:, columns], high[:, columns]).square()
            least = np.maximum(square.lower, 0.0)
            of_all = square.sum()
            low[:, total] = np.maximum(low[:, total], np.maximum(of_all.lower, 0.0))
            high[:, total] = np.minimum(high[:, total], of_all.upper)
            others = least.sum(axis=1, keepdims=True) - least
            rest = (
                np.maximum(high[:, total, None] * (1.0 + 64.0 * U) - others * (1.0 - 64.0 * U), 0.0) + FLOOR
            )
            # The sum of the others may be rounded up by the part that was taken off again.
            far = np.sqrt(rest + 64.0 * U * least.sum(axis=1, keepdims=True)) * MORE
            low[:, columns] = np.maximum(low[:, columns], -far)
            high[:, columns] = np.minimum(high[:, columns], far)
        s = self._number(low, high, S)
        s = Balls(s.center[:, None], s.radius[:, None])
        z = s * Balls.between(low[:, m:S], high[:, m:S])
        low[:, d:m], high[:, d:m] = np.maximum(low[:, d:m], z.lower), np.minimum(high[:, d:m], z.upper)
        b = Balls.between(low[:, d:m], high[:, d:m]) * s.reciprocal()
        low[:, m:S], high[:, m:S] = np.fmax(low[:, m:S], b.lower), np.fmin(high[:, m:S], b.upper)
        return low, high

    def _bounded(self, low: Array, high: Array) -> tuple[Array, Array]:
        """‖V‖² = st ≤ largest and 2·l2 st ≤ F(w, 0) − F;  2·l2 s ≤ sup −E[ℓ'(p) p]."""
        q = times(Balls.between(low[:, : self.d], high[:, : self.d]), self.system.z[:, : self.d])
        most = (self._mean_loss(q).upper - self.least) / self.decay * MORE
        most = np.maximum(np.fmin(most, self.largest), 0.0)
        low, high = low.copy(), high.copy()
        high[:, self.S] = np.minimum(high[:, self.S], self.pull / self.decay * MORE)
        for one, other in ((self.S, self.t), (self.t, self.S)):
            high[:, one] = np.fmin(high[:, one], most / low[:, other] * MORE)
        return low, high

    def _mean_loss(self, p: Balls) -> Balls:
        """E[ℓ(p)] (B,)."""
        y = np.broadcast_to(self.system.y, p.center.shape).reshape(-1, 1)
        at = self.loss.derivatives(p.center.reshape(-1, 1), Radius.of(p.radius.ravel()), y, None)
        error = np.broadcast_to(np.asarray(at.value_error.upper), at.value.shape).reshape(p.center.shape)
        return _mean(Balls(at.value.reshape(p.center.shape), error), self.alone)[:, 0]

    def _solved(self, low: Array, high: Array, slope: Balls) -> tuple[Array, Array]:
        """The linear terms of the equations."""
        d, m, S = self.d, self.m, self.S
        of_b = Balls.exact(np.full(len(low), self.decay))
        there = -(slope * self._factors(self._number(low, high, self.t), of_b).reciprocal())
        low, high = low.copy(), high.copy()
        for to, columns in ((slice(0, d), slice(0, d)), (slice(m, S), slice(d, m))):
            known = np.isfinite(there.radius[:, columns])
            low[:, to] = np.where(known, np.fmax(low[:, to], there.lower[:, columns]), low[:, to])
            high[:, to] = np.where(known, np.fmin(high[:, to], there.upper[:, columns]), high[:, to])
        return low, high

    def _is_apart(self, low: Array, high: Array, first: Balls, p: Balls) -> Bools:
        """E[ℓ' p] + 2·l2 wᵀDw has no zero."""
        norm = Balls.between(low[:, : self.d], high[:, : self.d]).square().times(self.system.decayed).sum()
        return ((first * p).weighted(self.system.weight) + norm.times(self.decay)).has_no_zero

    def _is_high(self, low: Array, high: Array, at: Array, there: Balls, first: Balls) -> Bools:
        """F + 2·l2 wᵀDw > F(0), with F(p) ≥ F(p_c) + E[ℓ'(p_c)(p − p_c)]."""
        if not self.has_summit:
            return np.zeros(len(low), dtype=bool)
        d, m = self.d, self.m
        F = self._mean_loss(there)
        far = np.maximum(high[:, :m] - at, at - low[:, :m]) * MORE
        fall = np.einsum("bj,bj->b", _mean(first, self.means).size, far) * MORE
        norm = Balls.between(low[:, :d], high[:, :d]).square().times(self.system.decayed).sum()
        return np.asarray(F.lower - fall + norm.times(self.decay).lower > self.start)

    def _centre(self, low: Array, high: Array, start: Array, *, only_z: bool = False) -> Array:
        """Where T is small, near the box or not: by damped steps of Newton's method in float64.

        z stays at 0 where s may be as small as 0, or w in the middle.
        """
        d, m = self.d, self.m
        z, y, weight = self.system.z, self.system.y, self.system.weight.center
        s, t = (0.5 * low[:, i] + 0.5 * high[:, i] for i in (self.S, self.t))
        factor = self._factors(Balls.exact(t), Balls.exact(self.decay / s)).center
        wide = BEYOND * (high[:, :m] - low[:, :m])
        nearest, farthest = low[:, :m] - wide, high[:, :m] + wide
        if (
            self.is_bent
        ):  # where the sum is not convex by little, its stationary points are those of one that is
            little = factor[:, 0] > -LITTLE * self.typical
            factor[:, : self.d1] = np.where(
                little[:, None], np.maximum(factor[:, : self.d1], 0.0), factor[:, : self.d1]
            )
        at = np.clip(start, nearest, farthest)
        held = np.zeros(at.shape, dtype=bool)
        near_0 = low[:, self.S] < high[:, self.S] / 16.0
        if only_z:
            held[:, :d] = True
            at[:, :d] = 0.5 * low[:, :d] + 0.5 * high[:, :d]
        else:
            held[near_0, d:] = True
            at[near_0, d:] = np.clip(0.0, low[near_0, d:m], high[near_0, d:m])

        def slope(at: Array) -> tuple[Array, Array]:
            first, second = self.system.slopes(Balls.exact(at @ z.T), y)
            return np.where(held, 0.0, (first.center * weight) @ z + factor * at), second.center

        T, second = slope(at)
        for _ in range(NEWTON_STEPS):
            J = (second @ self.pairs.center).reshape(-1, m, m)
            J[:, np.arange(m), np.arange(m)] += factor
            J = np.where(held[:, :, None], np.eye(m), J)
            scale = 1.0 / (np.abs(J[:, np.arange(m), np.arange(m)]) + FLOOR)
            step = (inverses(J) @ T[:, :, None])[:, :, 0]
            for size in SIZES:
                trial = np.clip(at - size * step, nearest, farthest)
                there, bent = slope(trial)
                better = np.asarray(np.sum(there**2 * scale, axis=1) < np.sum(T**2 * scale, axis=1))[:, None]
                at, T, second = (
                    np.where(better, trial, at),
                    np.where(better, there, T),
                    np.where(better, bent, second),
                )
                step = np.where(better, 0.0, step)
                if better.all():
                    break
        return at

    def _convex(self, low: Array, high: Array, at: Array, first: Balls, second: Balls) -> tuple[Array, Array]:
        """(w, z) of a convex sum; where that may not be convex, z, in which it always is."""
        m = self.m
        s, t = self._number(low, high, self.S), self._number(low, high, self.t)
        over_s = s.reciprocal().times(self.decay)
        T = _mean(first, self.means) + _scaled(self._factors(t, over_s), at)
        ends = Balls.exact(high[:, self.t]), Balls.exact(self.decay / high[:, self.S] * (1.0 - 4.0 * U))
        reach = self._reach(second, self._factors(*ends).lower, T, slice(0, m))
        known = np.isfinite(reach).all(axis=1)
        low, high = low.copy(), high.copy()
        low[known, :m] = np.maximum(low[known, :m], (at - reach - 4.0 * U * np.abs(at))[known])
        high[known, :m] = np.minimum(high[known, :m], (at + reach + 4.0 * U * np.abs(at))[known])
        rest = np.flatnonzero((low <= high).all(axis=1))
        if len(rest):
            low[rest], high[rest] = self._convex_in_z(low[rest], high[rest], at[rest])
        return low, high

    def _convex_in_z(self, low: Array, high: Array, start: Array) -> tuple[Array, Array]:
        d, m = self.d, self.m
        z_c = self._centre(low, high, start, only_z=True)[:, d:]
        w = Balls.between(low[:, :d], high[:, :d])
        there = times(w, self.system.z[:, :d]) + times(Balls.exact(z_c), self.system.z[:, d:])
        p = times(self._head(low, high), self.system.z)
        least, most = np.maximum(p.lower, self.within[0]), np.minimum(p.upper, self.within[1])
        first, second = self._secants(Balls.between(least, np.maximum(least, most)), there)
        over_s = self._number(low, high, self.S).reciprocal().times(self.decay)
        T = _mean(first, self.means[:, d:]) + _scaled(
            Balls(over_s.center[:, None], over_s.radius[:, None]), z_c
        )
        stiff = np.repeat((self.decay / high[:, self.S] * (1.0 - 4.0 * U))[:, None], self.k, axis=1)
        reach = self._reach(second, stiff, T, slice(d, m)) + 4.0 * U * np.abs(z_c)
        low, high = low.copy(), high.copy()
        low[:, d:m], high[:, d:m] = np.fmax(low[:, d:m], z_c - reach), np.fmin(high[:, d:m], z_c + reach)
        return low, high

    def _reach(self, second: Balls, least: Array, T: Balls, columns: slice) -> Array:
        """How far from the centre a zero of T is in some of (w, z), at most; infinite if that is not known.

        Args:
            second: of every sample, the mean of ℓ'' on the way.  least: bounds of the quadratic form's
                diagonal.
        """
        m = least.shape[1]
        H = (np.maximum(second.lower, 0.0) @ self.pairs.center).reshape(-1, self.m, self.m)
        H = H[:, columns, columns]
        H = 0.5 * H + 0.5 * np.swapaxes(H, 1, 2)
        P = H + least[:, :, None] * np.eye(m)
        # In units of which every diagonal entry is 1; then the roundings of H are few·tr H in these units.
        size = np.abs(P[:, np.arange(m), np.arange(m)])
        unit = 1.0 / np.sqrt(np.where(size > 0.0, size, 1.0))
        lost = self.few * (H[:, np.arange(m), np.arange(m)] * unit**2).sum(axis=1) + 16.0 * m * U
        P = P * unit[:, :, None] * unit[:, None, :] - (lost * MORE)[:, None, None] * np.eye(m)
        usable = np.isfinite(P).all(axis=(1, 2)) & np.isfinite(unit).all(axis=1)
        P = np.where(usable[:, None, None], P, np.eye(m))
        eigenvalues, Q = np.linalg.eigh(P)
        usable &= eigenvalues[:, 0] > 0.0
        Y = np.swapaxes(Q, 1, 2) / np.sqrt(np.where(usable[:, None], eigenvalues, 1.0))[:, :, None]
        Y_exact, transposed = Balls.exact(Y), Balls.exact(np.swapaxes(Y, 1, 2))
        E = product(product(Y_exact, Balls.exact(P)), transposed) - Balls.exact(np.eye(m))
        epsilon = np.sqrt(np.sum(E.size**2, axis=(1, 2))) * MORE
        usable &= epsilon < 0.5
        eta = product(Y_exact, _column(_scaled(T, unit)))[:, :, 0].size
        length = np.sqrt(np.sum(eta**2, axis=1)) / (1.0 - epsilon) * MORE
        reach = np.sqrt(np.sum(Y**2, axis=1)) * unit * length[:, None] * MORE + FLOOR
        return np.where(usable[:, None] & np.isfinite(reach), reach, np.inf)

    def _krawczyk(
        self, low: Array, high: Array, at: Array, first: Balls, second: Balls, slope: Balls, given: Array
    ) -> tuple[Array, Array, Array]:
        """With the rows turned to the eigenvectors of the data where s > 0, and otherwise those of f times
        s/(s + s°), 2·l2/s° about the size of the data."""
        d, d1, m = self.d, self.d1, self.m
        s, t = self._number(low, high, self.S), self._number(low, high, self.t)
        whole = (low[:, self.S] > 0.0) & (
            (low[:, self.S] > self.usual) | (high[:, self.S] < 4.0 * low[:, self.S])
        )
        beyond = (s + Balls.exact(np.full_like(s.center, self.usual))).reciprocal().times(self.decay)
        of_z = _where(whole, s.reciprocal().times(self.decay), beyond)
        theta = Balls.between(
            low[:, self.S] / (low[:, self.S] + self.usual), high[:, self.S] / (high[:, self.S] + self.usual)
        )
        theta = _where(whole, Balls.exact(np.ones_like(s.center)), theta.widened(8.0 * U))
        rows = np.where(whole[:, None, None], self.system.rows, np.eye(m))
        each = Balls.exact(rows)
        factor = self._factors(t, of_z)
        ones = np.ones((len(low), m))
        share = Balls(ones.copy(), np.zeros_like(ones))
        share.center[:, d:], share.radius[:, d:] = theta.center[:, None], theta.radius[:, None]
        H = _where(whole, _mean(second, self.turned_pairs), _scaled_rows(_mean(second, self.pairs), share))
        H = Balls(H.center.reshape(-1, m, m), H.radius.reshape(-1, m, m))
        J = H + each * Balls(factor.center[:, None, :], factor.radius[:, None, :])
        T = _where(whole, _mean(first, self.turned), _mean(first, self.means) * share)
        linear = _scaled(factor, at)
        T = T + (each * Balls(linear.center[:, None, :], linear.radius[:, None, :])).sum()
        rho = np.maximum(high[:, :m] - at, at - low[:, :m]) * (1.0 + 4.0 * U) + FLOOR
        Y = inverses(J.center)
        Y_exact = Balls.exact(Y)
        step = product(Y_exact, _column(T))[:, :, 0]
        rest = Balls.exact(np.eye(m)) - product(Y_exact, J)
        K = (Balls.exact(at) - step).widened(np.einsum("bij,bj->bi", rest.size, rho) * MORE + FLOOR)
        low, high = low.copy(), high.copy()
        low[:, :m] = np.fmax(low[:, :m], K.lower)
        high[:, :m] = np.fmin(high[:, :m], K.upper)
        # What makes K wide: the range of the Jacobian over (w, z), and of the linear terms over s and t.
        size = np.abs(Y)
        by_head = (size @ H.radius) * given[:, None, :]
        largest = np.abs(at) + rho
        by_s = of_z.radius[:, None] * largest[:, d:] + theta.radius[:, None] * slope.size[:, d:]
        by_s = size @ (np.abs(rows[:, :, d:]) @ by_s[:, :, None])
        by_t = size @ (np.abs(rows[:, :, :d1]) @ (factor.radius[:, :d1] * largest[:, :d1])[:, :, None])
        none = np.zeros((len(low), m, self.k))
        return low, high, np.concatenate([by_head, none, by_s, by_t], axis=2) / given[:, :, None]

    # The search

    def unique(self, low: Array, high: Array) -> tuple[Bools, Bools, list[tuple[Array, Array, Array]]]:
        """Of boxes (w, b): those with no zero; those with one alone, and where."""
        c = 0.5 * low + 0.5 * high
        least = np.concatenate(
            [
                np.repeat(np.abs(part).max(axis=1, keepdims=True), part.shape[1], axis=1)
                for part in np.split(c, [self.d], axis=1)
            ],
            axis=1,
        )
        r = np.maximum(high - c, c - low) * LARGER + LEAST * least + FLOOR
        f = self.system(c, r)
        K = krawczyk(f, c, r)
        none = f.over.has_no_zero.any(axis=1)
        none |= (np.abs(K.center - c) - K.radius > r * (1.0 + 4.0 * U) + 4.0 * U * np.abs(c)).any(axis=1)
        alone = (np.abs(K.center - c) + K.radius < r * (1.0 - 8.0 * U)).all(axis=1) & ~none
        found = [(K.center[i], K.radius[i], np.stack([c[i], r[i]])) for i in np.flatnonzero(alone)]
        return np.asarray(none), np.asarray(alone), found


def _pull(shells: Shells) -> float:
    """sup −E[ℓ'(p) p] over the attainable predictions: of pieces of their ranges."""
    y = shells.system.y
    if isinstance(shells.loss, BuiltinLoss) and shells.loss.kind == "logistic":
        return 0.2785 * float(np.sum(shells.system.weight.upper)) * MORE  # sup p/(1 + e^p)
    least, most = shells.within
    if not (np.isfinite(least) & np.isfinite(most)).all():
        return np.inf
    ends = least + (most - least) * np.linspace(0.0, 1.0, PIECES)[:, None]
    p = Balls.between(np.minimum(ends[:-1], ends[1:]), np.maximum(ends[1:], ends[:-1]))
    along = shells.system.slopes(p, y).first * p
    worst = np.maximum((-along).upper.max(axis=0), 0.0)
    total = float(np.sum(worst * shells.system.weight.upper))
    return total * (1.0 + gamma(len(y) + 4))


def _pairs(rows: Balls, z: Array) -> Balls:
    """(n, m²): rows_i z_j."""
    all_ = Balls(rows.center[:, :, None], rows.radius[:, :, None]) * Balls.exact(z[:, None, :])
    return Balls(all_.center.reshape(len(z), -1), all_.radius.reshape(len(z), -1))


def _column(x: Balls) -> Balls:
    return Balls(x.center[:, :, None], x.radius[:, :, None])


def _scaled(x: Balls, by: Array) -> Balls:
    """x·by, 0 where `by` is, whatever x is."""
    there = by != 0.0
    found = x.times(by)
    return Balls(np.where(there, found.center, 0.0), np.where(there, found.radius, 0.0))


def _scaled_rows(flat: Balls, share: Balls) -> Balls:
    """(B, m²) with row i times share_i."""
    m = share.center.shape[1]
    each = Balls(np.repeat(share.center, m, axis=1), np.repeat(share.radius, m, axis=1))
    return flat * each


def _where(which: Bools, one: Balls, other: Balls) -> Balls:
    """One or the other, box by box."""
    chosen = which.reshape((-1,) + (1,) * (one.center.ndim - 1))
    return Balls(np.where(chosen, one.center, other.center), np.where(chosen, one.radius, other.radius))


def _mean(values: Balls, C: Balls) -> Balls:
    """values (B, n) times C (n, j)."""
    few = gamma(values.center.shape[-1] + 4)
    size = np.abs(C.center)
    spread = values.radius @ (size + C.radius) + np.abs(values.center) @ (few * size + C.radius)
    return Balls(values.center @ C.center, spread * (1.0 + few) * (1.0 + 32.0 * U) + FLOOR)


@QUIET
def all_zeros(
    shells: Shells, lower: Array, upper: Array, excluded: Excluded, most_boxes: int, batch: int
) -> Zeros:
    """All zeros (w, b) with lower ≤ (w, b) ≤ upper, (m,) each.

    Args:
        excluded: center, reach (B, m) ↦ True where a box (w, b) need not be searched.
    """
    m = shells.m
    far = np.maximum(np.abs(lower), np.abs(upper))
    d = shells.d
    s, t = (float(np.sum(far[part] ** 2)) * MORE for part in (slice(0, shells.d1), slice(d, m)))
    low = np.concatenate([lower[:d], -s * far[d:] * MORE, lower[d:], [0.0, 0.0]])[None]
    high = np.concatenate([upper[:d], s * far[d:] * MORE, upper[d:], [s, t]])[None]
    of = np.concatenate([np.arange(d), np.arange(m, shells.S)])  # (w, b)
    span = high[0] - low[0]
    start = np.zeros((1, m))
    found: list[tuple[Array, Array, Array]] = []
    stuck: list[tuple[Array, Array]] = []
    examined = 0
    while len(low):
        if examined + min(len(low), batch) > most_boxes:
            stuck.append((low, high))
            break
        order = np.arange(len(low))
        if len(low) > batch:
            order = np.argpartition(-np.sum(np.log2((high - low) / span + 1e-300), axis=1), batch)
        now, later = order[:batch], order[batch:]
        examined += len(now)
        told("boxes at most", examined, most_boxes)
        seen = shells.contracted(low[now], high[now], start[now])
        middle, reach = 0.5 * (seen.low + seen.high)[:, of], 0.5 * (seen.high - seen.low)[:, of] * MORE
        alive = seen.alive & ~excluded(middle, reach)
        a, z, spread, at = seen.low[alive], seen.high[alive], seen.spread[alive], seen.at[alive]
        width = (high[now] - low[now])[alive]
        ready = (spread.sum(axis=2) < READY).all(axis=1)
        ready |= (z - a <= TIGHT * (np.abs(a) + RESOLUTION * span)).all(axis=1)
        gone = np.zeros(len(a), dtype=bool)
        index = np.flatnonzero(ready)
        if len(index):
            none, alone, some = shells.unique(a[index][:, of], z[index][:, of])
            found += some
            gone[index] = none | alone
        a, z, spread, width, at = a[~gone], z[~gone], spread[~gone], width[~gone], at[~gone]
        small = (z - a <= RESOLUTION * (span + np.abs(a))).all(axis=1)
        stuck.append((a[small], z[small]))
        again = ((z - a) < SHRUNK * width).any(axis=1) & ~small
        halved = ~again & ~small
        following = [
            (low[later], high[later], start[later]),
            (a[again], z[again], at[again]),
            *_halves(a[halved], z[halved], at[halved], spread[halved], span, d),
        ]
        low, high, start = (np.concatenate(parts) for parts in zip(*following, strict=True))
    at, radius = distinct([shells.system], found, lower, upper, m)
    empty = np.zeros((0, m))
    left_low, left_high = (np.concatenate([empty, *[part[i][:, of] for part in stuck]]) for i in (0, 1))
    center = 0.5 * left_low + 0.5 * left_high
    reach = np.maximum(left_high - center, center - left_low) * (1.0 + 4.0 * U) + FLOOR
    return Zeros(at, radius, (center, reach))


def _halves(
    low: Array, high: Array, at: Array, spread: Array, span: Array, d: int
) -> list[tuple[Array, Array, Array]]:
    """Every box in two, across the unknown that makes Krawczyk's operator widest."""
    if not len(low):
        return []
    score = spread.sum(axis=1)
    unknown = ~np.isfinite(score).all(axis=1)
    score[unknown] = ((high - low) / span)[unknown]
    score = np.where(high > low, score, -1.0)
    k = (low.shape[1] - 2 - d) // 2
    score[:, d + k : -2] = -1.0
    rows, across = np.arange(len(low)), np.argmax(score, axis=1)
    middle = 0.5 * low[rows, across] + 0.5 * high[rows, across]
    left, right = high.copy(), low.copy()
    left[rows, across] = middle
    right[rows, across] = middle
    return [(low, left, at), (right, high, at)]
