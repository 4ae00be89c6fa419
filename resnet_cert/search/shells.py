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

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from resnet_cert.numerics import algebra
from resnet_cert.numerics.balls import Balls, Bools, product
from resnet_cert.numerics.krawczyk import System, inverses, krawczyk
from resnet_cert.numerics.radius import FLOOR, Array, Radius, U, gamma
from resnet_cert.problem.losses import BuiltinLoss, Loss
from resnet_cert.search.equations import HeadAndRatio, times

NEWTON_STEPS = 40
CLOSE = 1e-11
SETTLED = 1e-3
"""Where one more step of Newton's method changes the predictions by less, it has converged."""
FIRST, GROWTH, SHELLS = 0.05, 1.25, 40
NARROW = 1e-3
WIDER = (2.0, 2.0, 2.0)
SIZES = (1.0, 0.5, 0.125, 2.0**-6, 2.0**-10)
LITTLE = 0.05
PIECES = 400
LARGER = 1.5
"""A box (w, b) is examined for a single zero so much larger than it is,"""
LEAST = 1e-8, 1e-9, 1e-10, 1e-11
"""and by this share of the largest one of its kind, the next one if the box is smaller by far"""
SMALLER = 0.1
"""than that."""
MORE = 1.0 + 2.0**-40
"""Pays for the roundings of a bound made of few operations."""
SQUARES = 2.0**-499
"""More than squares that underflow can take from the root of their sum."""


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
    slack += 4 * n * FLOOR  # for what underflowed, before it is divided
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


Ints = npt.NDArray[np.int_]


class Ellipsoid(NamedTuple):
    """{Yᵀη : ‖η‖ ≤ length}: Y (B, j, j) with YPYᵀ ≥ I, length (B,)."""

    Y: Array
    length: Array

    @property
    def reach(self) -> Array:
        """(B, j) of each coordinate."""
        known = np.isfinite(self.length)[:, None]
        length = np.where(known, self.length[:, None], 0.0)
        return np.where(known, (np.sqrt(np.sum(self.Y**2, axis=1)) + SQUARES) * length * MORE + FLOOR, np.inf)

    def sizes(self, rows: Array) -> Array:
        """(B, n): sup of ⟨row, Yᵀη⟩ over ‖η‖ ≤ 1, rows (1 or B, n, j)."""
        few = 4.0 * gamma(self.Y.shape[1] + 4)
        moved = np.matmul(rows, np.swapaxes(self.Y, 1, 2))
        of_Y = np.sqrt(np.sum(self.Y**2, axis=(1, 2)))[:, None] + SQUARES
        size = of_Y * (np.sqrt(np.sum(rows**2, axis=2)) + SQUARES)
        return (np.sqrt(np.sum(moved**2, axis=2)) + SQUARES + few * size) * MORE + FLOOR

    def spread(self, rows: Array) -> Array:
        """(B, n): sup of ⟨row, ·⟩ over it."""
        known = np.isfinite(self.length)[:, None]
        length = np.where(known, self.length[:, None], 0.0)
        return np.where(known, self.sizes(rows) * length * MORE + FLOOR, np.inf)


class Examined(NamedTuple):
    """low, high: (B, M), a part of what was given that holds all of its critical points;  alive: (B,) False
    where there are none, or the one there is is among `found`.  at: (B, m), where (w, z) is about."""

    low: Array
    high: Array
    alive: Bools
    at: Array
    score: Array
    found: list[tuple[Array, Array, Array]]


class Shells:
    """The equations, and what is the same for all boxes: of the unknowns (w, z, b, s, t), M = d + 2k + 2.

    largest: of ‖V‖² that is searched.
    """

    def __init__(self, system: HeadAndRatio, loss: Loss, largest: float) -> None:
        self.system = system
        self.d, self.d1, self.m = system.d, system.d1, system.z.shape[1]
        self.k = self.m - self.d
        self.S, self.t = self.m + self.k, self.m + self.k + 1
        self.of = np.concatenate([np.arange(self.d), np.arange(self.m, self.S)])
        self.within, self.slack = attainable(system, loss)
        self.largest = largest
        self.is_bent = not (isinstance(loss, BuiltinLoss) and loss.kind == "squared")
        self.decay = 2.0 * system.l2
        z, weight = system.z, system.weight
        each = Balls(weight.center[:, None], weight.radius[:, None])
        self.loss = loss
        scale = loss.scale if isinstance(loss, BuiltinLoss) else 1.0
        self.alone = Balls(each.center / scale, (each.radius / scale + 4.0 * U * each.center / scale))
        zero = Balls.exact(np.zeros((1, len(z))))
        start = self.mean_loss(zero)
        self.start = float(start.upper[0])
        self.least = math.nextafter(float(start.lower[0]) - self.slack, -math.inf)
        self.pull = min(_pull(self), self.slack)
        self.means = each * Balls.exact(z)  # (n, m): π (x, f)
        self.pairs = _pairs(self.means, z)
        relative = float(np.max(weight.radius / np.maximum(weight.center, FLOOR)))
        self.few = 4.0 * (gamma(len(z) + 16) + relative) + 16.0 * U
        usual = self.decay / max(float(np.sum(np.diagonal(self.squares)[self.d :])), FLOOR)
        self.little = LITTLE * usual, LITTLE
        self._bound_level()

    def _bound_level(self) -> None:
        """Bounds of all (w, z) with Φ ≤ F(0), and so of critical points; `edge`: of t up to which the sum is
        convex there.

        Along a ray from the minimum, v_c + ρYᵀη, the slope is at least −‖YT_c‖ + ∫θ, where ℓ'' is at least θ
        times what it is at v_c; where that is positive it stays so, Φ being convex.
        """
        self.edge, self.reach_v, self.middle_v = 0.75, np.full(self.m, np.inf), np.zeros(self.m)
        if not isinstance(self.loss, BuiltinLoss):
            return
        z, y, weight = self.system.z, self.system.y, self.system.weight.center
        v = np.zeros(self.m)
        for _ in range(NEWTON_STEPS):
            first, second = self.system.slopes(Balls.exact(z @ v), y)
            H = (z.T * (weight * second.center)) @ z
            T = (weight * first.center) @ z
            step = algebra.lstsq(H, T, rcond=1e-14)
            v = v - step * min(1.0, 2.0 / (float(np.abs(z @ step).max()) + FLOOR))
        if not np.isfinite(v).all():
            return
        self.middle_v = v
        at = times(Balls.exact(v[None]), z)
        first, second = self.system.slopes(at, y)
        sigma = np.maximum(second.lower, 0.0)
        around = self.ellipsoid(
            sigma, np.zeros((1, self.m)), _mean(first, self.means), slice(0, self.m), z, None
        )
        if not np.isfinite(around.length).all():
            return
        norms = around.sizes(z[None])
        value, slope, before = float(self.mean_loss(at).lower[0]), -float(around.length[0]), 0.0
        best = np.inf
        for rho in FIRST / norms.max() * GROWTH ** np.arange(SHELLS):
            there = self.system.slopes(at.widened(norms * rho * MORE), y).second.lower
            theta = float(np.clip((there / np.maximum(sigma, FLOOR)).min(), 0.0, 1.0)) * (1.0 - 64.0 * U)
            run = rho - before
            value += run * (slope + 0.5 * theta * run) - 64.0 * U * (abs(value) + run * abs(slope))
            slope += theta * run * (1.0 - 64.0 * U)
            before = rho
            if slope > 0.0:
                best = min(best, rho + max(0.0, self.start - value) / slope * MORE + FLOOR)
        if not np.isfinite(best):
            return
        spread = norms * best * MORE
        least, most = self.within
        inside = at.widened(spread)
        self.within = np.fmax(least, inside.lower[0]), np.fmin(most, inside.upper[0])
        reach = (Radius.row_norms(around.Y[0].T) * best).upper
        self.reach_v = (np.abs(v) + reach) * MORE + FLOOR
        sigma = np.maximum(self.system.slopes(Balls.between(*self.within)[None], y).second.lower, 0.0)
        H = (sigma @ self.pairs.center).reshape(self.m, self.m)
        lost = self.few * float(np.trace(H)) + 64.0 * self.m * U * float(np.abs(H).sum())
        bent = float(algebra.eigvalsh(0.5 * H + 0.5 * H.T)[0]) - lost
        self.edge = max(self.edge, 1.0 + 0.9 * bent / self.decay)

    @property
    def squares(self) -> Array:
        return self.pairs.center.sum(axis=0).reshape(self.m, self.m)

    # One step

    def __call__(self, low: Array, high: Array, start: Array) -> Examined:
        alive = np.ones(len(low), dtype=bool)

        def narrowed(ends: tuple[Array, Array]) -> tuple[Array, Array]:
            """What is left, and 0 where that is nothing."""
            nonlocal alive
            alive &= ~(ends[0] > ends[1]).any(axis=1)
            return np.where(alive[:, None], ends[0], 0.0), np.where(alive[:, None], ends[1], 0.0)

        low, high = narrowed(self._tied(low, high))
        low, high = narrowed(self._bounded(low, high))
        at, reach = self._pinned(low, high, start)
        m = self.m
        low[:, :m] = np.fmax(low[:, :m], at - reach - 4.0 * U * np.abs(at))
        high[:, :m] = np.fmin(high[:, :m], at + reach + 4.0 * U * np.abs(at))
        low, high = narrowed((low, high))
        p = times(self._head(low, high), self.system.z)
        least, most = np.maximum(p.lower, self.within[0]), np.minimum(p.upper, self.within[1])
        alive &= ~(least > most).any(axis=1)
        p = Balls.between(least, np.maximum(least, most))
        first, _ = self.system.slopes(p, self.system.y)
        low, high = narrowed(self._solved(low, high, _mean(first, self.means)))
        alive &= ~self._is_apart(low, high, first, p)
        low, high = narrowed(self._tied(*narrowed((low, high))))
        index = np.flatnonzero(alive)
        a, z, none, found = self.by_equations(low[index][:, self.of], high[index][:, self.of])
        low[np.ix_(index, self.of)], high[np.ix_(index, self.of)] = a, z
        alive[index[none]] = False
        low, high = narrowed((low, high))
        return Examined(low, high, alive, at, self.widths(low, high), found)

    def _head(self, low: Array, high: Array) -> Balls:
        """(w, z)."""
        return Balls.between(low[:, : self.m], high[:, : self.m])

    def _number(self, low: Array, high: Array, of: int) -> Balls:
        return Balls.between(low[:, of], high[:, of])

    def head_factors(self, t: Balls) -> Balls:
        """2·l2 (D − t E) as (B, d)."""
        return self._factors(t, t)[:, : self.d]

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
        tied(low, high, slice(0, self.d1), S)
        tied(low, high, slice(m, S), self.t)
        s = self._number(low, high, S)
        s = Balls(s.center[:, None], s.radius[:, None])
        z = s * Balls.between(low[:, m:S], high[:, m:S])
        low[:, d:m], high[:, d:m] = np.fmax(low[:, d:m], z.lower), np.fmin(high[:, d:m], z.upper)
        b = Balls.between(low[:, d:m], high[:, d:m]) * s.reciprocal()
        low[:, m:S], high[:, m:S] = np.fmax(low[:, m:S], b.lower), np.fmin(high[:, m:S], b.upper)
        return low, high

    def _bounded(self, low: Array, high: Array) -> tuple[Array, Array]:
        """‖V‖² = st ≤ largest and 2·l2 st ≤ F(w, 0) − F;  2·l2 s ≤ sup −E[ℓ'(p) p]."""
        q = times(Balls.between(low[:, : self.d], high[:, : self.d]), self.system.z[:, : self.d])
        most = self.product_of_squares(self.mean_loss(q).upper)
        low, high = low.copy(), high.copy()
        high[:, self.S] = np.fmin(high[:, self.S], (Radius.of(self.pull) / self.decay).upper)
        for one, other in ((self.S, self.t), (self.t, self.S)):
            high[:, one] = np.fmin(high[:, one], (most / low[:, other]).upper)
        return low, high

    def product_of_squares(self, value: Array) -> Radius:
        """(B,) bounds of st = ‖V‖², from those of F(w, 0)."""
        rise = np.nextafter(np.maximum(value - self.least, 0.0), np.inf)
        return (Radius.of(rise) / self.decay).capped(self.largest)

    def mean_loss(self, p: Balls) -> Balls:
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

    def _centre(self, low: Array, high: Array, start: Array) -> Array:
        """Where the sum is least, in float64; with z = 0 where s may be as small as 0."""
        m = self.m
        z, weight = self.system.z, self.system.weight.center
        s, t = (0.5 * low[:, i] + 0.5 * high[:, i] for i in (self.S, self.t))
        factor = self._factors(Balls.exact(t), Balls.exact(self.decay / s)).center
        held = np.zeros(start.shape, dtype=bool)
        held[low[:, self.S] < high[:, self.S] / 16.0, self.d :] = True
        at = np.where(held, 0.0, start)

        def derivatives(at: Array, of: Ints, *, stiff: bool = False) -> tuple[Array, Array]:
            first, second = bent(self.system, at @ z.T, stiff=stiff)
            J = (second @ self.pairs.center).reshape(-1, m, m)
            J[:, np.arange(m), np.arange(m)] += factor[of]
            still = held[of]
            J = np.where(still[:, :, None] | still[:, None, :], np.eye(m), J)
            return np.where(still, 0.0, (first * weight) @ z + factor[of] * at), J

        return least(derivatives, at, lambda step, of: step @ z.T)

    def _pinned(self, low: Array, high: Array, start: Array) -> tuple[Array, Array]:
        """(w, z) about, and how far from there it is in a critical point, at most; infinite if not known."""
        at = self._centre(low, high, start)
        if self.is_bent:
            at = self._inside(at, high[:, self.t] > 1.0)
        z, y = self.system.z, self.system.y
        s, t = self._number(low, high, self.S), self._number(low, high, self.t)
        p = times(Balls.exact(at), z)
        first, second = self.system.slopes(p, y)
        T = _mean(first, self.means) + _scaled(self._factors(t, s.reciprocal().times(self.decay)), at)
        ends = Balls.exact(high[:, self.t]), Balls.exact(self.decay / high[:, self.S] * (1.0 - 4.0 * U))
        found = self.settled(
            second.lower,
            self._factors(*ends).lower,
            T,
            slice(0, self.m),
            z,
            lambda spread: self.system.slopes(p.widened(spread), y).second.lower,
        )
        # Beyond t = 1 the sum is known to be convex where the predictions are attainable.
        inside = ((p.lower >= self.within[0]) & (p.upper <= self.within[1])).all(axis=1)
        known = inside | (high[:, self.t] <= 1.0) | (not self.is_bent)
        return at, np.where(known[:, None], found.reach, np.inf)

    def _inside(self, at: Array, which: Bools) -> Array:
        """Points where all predictions are attainable, on the way from those to the minimum of Φ."""
        p, q = at @ self.system.z.T, self.system.z @ self.middle_v
        room = np.where(p > q, self.within[1] - q, q - self.within[0])
        part = np.min(np.where(np.abs(p - q) > 0.999 * room, 0.999 * room / np.abs(p - q), 1.0), axis=1)
        part = np.where(which & np.isfinite(part), np.clip(part, 0.0, 1.0), 1.0)
        return np.where(part[:, None] < 1.0, self.middle_v + part[:, None] * (at - self.middle_v), at)

    def ellipsoid(
        self, second: Array, least: Array, T: Balls, columns: slice, rows: Array, drift: Array | None
    ) -> Ellipsoid:
        """Where a zero of the gradient T of a convex function is, if its Hessian is at least
        P = E[second (x, f)(x, f)ᵀ] + diag(least) there.

        Args:
            second: (B, n), of every sample, at least 0.  least: (B, j).  T: at the centre;
                with drift (B, n) there is Σ_i δ_i rows_i besides, |δ_i| ≤ drift_i.  rows: (n, j) (x, f).
        """
        m = least.shape[1]
        H = (second @ self.pairs.center).reshape(-1, self.m, self.m)
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
        eigenvalues, Q = algebra.eigh(P)
        usable &= eigenvalues[:, 0] > 0.0
        Y = np.swapaxes(Q, 1, 2) / np.sqrt(np.where(usable[:, None], eigenvalues, 1.0))[:, :, None]
        Y_exact, transposed = Balls.exact(Y), Balls.exact(np.swapaxes(Y, 1, 2))
        E = product(product(Y_exact, Balls.exact(P)), transposed) - Balls.exact(np.eye(m))
        epsilon = np.sqrt(np.sum(E.size**2, axis=(1, 2))) * MORE
        usable &= epsilon < 0.5
        eta = product(Y_exact, _column(_scaled(T, unit)))[:, :, 0].size
        Y = Y * unit[:, None, :]
        if drift is not None:
            few = 4.0 * gamma(m + 4)
            moved = np.abs(np.matmul(rows[None], np.swapaxes(Y, 1, 2)))
            moved += few * np.matmul(np.abs(rows)[None], np.swapaxes(np.abs(Y), 1, 2))
            eta = eta + np.einsum("bnj,bn->bj", moved, drift) * MORE + FLOOR
        # Y P Yᵀ ≥ (1 − ε)I
        root = 1.0 / np.sqrt(1.0 - np.where(usable, epsilon, 0.0)) * MORE
        Y = Y * root[:, None, None]
        length = (np.sqrt(np.sum(eta**2, axis=1)) + SQUARES) * root * MORE
        return Ellipsoid(Y, np.where(usable & np.isfinite(length), length, np.inf))

    def settled(
        self,
        second: Array,
        least: Array,
        T: Balls,
        columns: slice,
        rows: Array,
        second_within: Callable[[Array], Array],
        drift: Array | None = None,
    ) -> Ellipsoid:
        """The same where P bounds the Hessian over the ellipsoid itself; of infinite length where that is
        open.

        Args:
            second_within: ℓ'' at least, of predictions that change by at most so much
                (B, n): ranges in which the ellipsoid is then seen to lie.
        """
        found = self.ellipsoid(np.maximum(second, 0.0), least, T, columns, rows, drift)
        Y, length = found.Y.copy(), np.full_like(found.length, np.inf)
        for wider in WIDER:
            within = found.sizes(rows[None]) * found.length[:, None] * wider + FLOOR
            there = second_within(within)
            found = self.ellipsoid(np.maximum(there, 0.0), least, T, columns, rows, drift)
            good = (found.sizes(rows[None]) * found.length[:, None] * MORE <= within).all(axis=1)
            good &= found.length < length
            Y[good], length[good] = found.Y[good], found.length[good]
            if not self.is_bent or np.isfinite(length).all():
                break
        return Ellipsoid(Y, length)

    def widths(self, low: Array, high: Array) -> Array:
        """Of s and t, in halvings of s + s° and t + t°: by these alone a box is halved."""
        score = np.full(low.shape, -1.0)
        for of, least in ((self.S, self.little[0]), (self.t, self.little[1])):
            score[:, of] = np.log2((high[:, of] + least) / (low[:, of] + least))
        return score

    def middle(self, low: Array, high: Array, across: Ints) -> Array:
        """Where boxes are halved."""
        least = np.where(across == self.S, *self.little)
        return np.asarray(np.sqrt(low + least) * np.sqrt(high + least) - least)

    def by_equations(
        self, low: Array, high: Array
    ) -> tuple[Array, Array, Bools, list[tuple[Array, Array, Array]]]:
        """Of boxes (w, b) what is left by the equations in these alone; those of which nothing is; the zeros
        that are alone in one."""
        K, settled, found = by_krawczyk(self.system, low, high, self.d)
        return np.fmax(low, K.lower), np.fmin(high, K.upper), settled, found


def by_krawczyk(
    system: System, low: Array, high: Array, first: int
) -> tuple[Balls, Bools, list[tuple[Array, Array, Array]]]:
    """Krawczyk's operator on boxes that are a little larger than those that are given: where all of their
    zeros are; those of which nothing is left to examine, and the zeros that are alone in one.

    first: so many unknowns are of one kind, the others of another, each with a size of its own.
    """
    c = 0.5 * low + 0.5 * high
    own = np.maximum(high - c, c - low) * LARGER
    parts = np.split(np.abs(c), [first], axis=1)
    size = np.concatenate(
        [np.repeat(part.max(axis=1, keepdims=True), part.shape[1], axis=1) for part in parts], axis=1
    )
    center, radius = np.zeros_like(c), np.full_like(c, np.inf)
    settled = np.zeros(len(c), dtype=bool)
    found: list[tuple[Array, Array, Array]] = []
    rows = np.arange(len(c))
    for share in LEAST:
        x, r = c[rows], own[rows] + share * size[rows] + FLOOR
        f = system(x, r)
        K = krawczyk(f, x, r)
        center[rows], radius[rows] = K.center, K.radius
        none = f.over.has_no_zero.any(axis=1)
        none |= (np.abs(K.center - x) - K.radius > r * (1.0 + 4.0 * U) + 4.0 * U * np.abs(x)).any(axis=1)
        alone = (np.abs(K.center - x) + K.radius < r * (1.0 - 8.0 * U)).all(axis=1) & ~none
        found += [(K.center[i], K.radius[i], np.stack([x[i], r[i]])) for i in np.flatnonzero(alone)]
        settled[rows[none | alone]] = True
        # A zero may be alone in less than that where the box itself is smaller still.
        rows = rows[~(none | alone) & (own[rows] < SMALLER * share * size[rows]).all(axis=1)]
        if not len(rows):
            break
    return Balls(center, radius), settled, found


def tied(low: Array, high: Array, columns: slice, total: int) -> None:
    """Makes boxes smaller in which one unknown is the sum of the squares of others."""
    square = Balls.between(low[:, columns], high[:, columns]).square()
    least = np.maximum(square.lower, 0.0)
    of_all = square.sum()
    low[:, total] = np.fmax(low[:, total], np.maximum(of_all.lower, 0.0))
    high[:, total] = np.fmin(high[:, total], of_all.upper)
    others = least.sum(axis=1, keepdims=True) - least
    rest = np.maximum(high[:, total, None] * (1.0 + 64.0 * U) - others * (1.0 - 64.0 * U), 0.0) + FLOOR
    # The sum of the others may be rounded up by the part that was taken off again.
    far = np.sqrt(rest + 64.0 * U * least.sum(axis=1, keepdims=True)) * MORE
    low[:, columns] = np.fmax(low[:, columns], -far)
    high[:, columns] = np.fmin(high[:, columns], far)


def stationary(
    derivatives: Callable[[Array, Ints], tuple[Array, Array]], start: Array, *, convex: bool = False
) -> Array:
    """Where T is about 0, by damped steps of Newton's method in float64.

    Args:
        derivatives: points (b, j) and their rows ↦ T (b, j) and its Jacobian.
        convex: T is the gradient of a convex function: where that still falls at the end of a step, it has
            fallen all the way.
    """
    at = start.copy()
    rows = np.arange(len(at))
    T, J = derivatives(at, rows)
    for _ in range(NEWTON_STEPS):
        step = (inverses(J[rows]) @ T[rows][:, :, None])[:, :, 0]
        moving = (np.abs(step) > CLOSE * (np.abs(at[rows]) + FLOOR)).any(axis=1)
        rows, step = rows[moving], step[moving]
        left = np.arange(len(rows))
        for size in SIZES:
            trial = at[rows[left]] - size * step[left]
            there = derivatives(trial, rows[left])
            better = np.asarray(np.sum(there[0] ** 2, axis=1) < np.sum(T[rows[left]] ** 2, axis=1))
            if convex:
                better |= np.sum(there[0] * step[left], axis=1) > 0.0
            to = rows[left[better]]
            at[to], T[to], J[to] = trial[better], there[0][better], there[1][better]
            left = left[~better]
        rows = np.delete(rows, left)
        if not len(rows):
            break
    return at


class Derivatives(Protocol):
    """Points (b, j) and their rows ↦ T (b, j) and its Jacobian, by `bent`, stiff or not."""

    def __call__(self, at: Array, of: Ints, /, *, stiff: bool = False) -> tuple[Array, Array]: ...


def bent(system: HeadAndRatio, p: Array, *, stiff: bool) -> tuple[Array, Array]:
    """ℓ' and ℓ'' in float64; stiff: ℓ'' is at least |ℓ'|/(1 + |p|).

    Far on the wrong side ℓ'' is next to 0 and ℓ' is not, and Newton's method takes steps of any length; the
    right side is about as far as 0 is.
    """
    first, second = (part.center for part in system.slopes(Balls.exact(p), system.y))
    return first, np.maximum(second, np.abs(first) / (1.0 + np.abs(p))) if stiff else second


def least(derivatives: Derivatives, start: Array, change: Callable[[Array, Ints], Array]) -> Array:
    """Where the gradient T of a convex function is about 0, in float64: from `start`, or else from 0, first
    by steps that are stiff.

    Args:
        change: steps (b, j) and their rows ↦ what they change of the predictions (b, n).
    """
    at = stationary(derivatives, start, convex=True)
    every = np.arange(len(at))
    T, J = derivatives(at, every)
    off = np.abs(change((inverses(J) @ T[:, :, None])[:, :, 0], every)).max(axis=1)
    far = np.flatnonzero(~(off < SETTLED))
    if len(far):
        from_0 = np.zeros((len(far), start.shape[1]))
        stiff = stationary(lambda z, of: derivatives(z, far[of], stiff=True), from_0, convex=True)
        at[far] = stationary(lambda z, of: derivatives(z, far[of]), stiff, convex=True)
    return at


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
    worst = Radius.of(np.maximum((-along).upper.max(axis=0), 0.0))
    return float((worst * shells.system.weight.upper).sum())


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
