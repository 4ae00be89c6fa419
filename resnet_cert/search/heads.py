"""Critical points with weight decay over boxes of w: what `shells` leaves open.

For a fixed w the second equation, T(w, b) = E[ℓ' f] + 2·l2 b = 0 with p = wᵀx + sβ, s = ‖w_1‖², β = bᵀf, is
that of the minimum of a strictly convex function, whose place `Shells.settled` encloses.  Over a box w_c ± r
the zero is followed by b_c + B'(w − w_c), B' = −(∂T/∂b)⁻¹ ∂T/∂w at w_c, so that what is left, η, is of the
order r².  The first equation then is one in w,

    R − MᵀT = R_c + J(w − w_c) + Kη,   M such that K is 0 at w_c,

to which Krawczyk's operator is applied, in rows turned by J⁻¹ before they are enclosed: where the data do not
vary in a direction, all that is left there is of the order of l2.  Where ‖w_1‖ changes little z = sb is
followed in place of b, for with a tiny l2 it is z that hardly depends on s.  That there is one zero, and only
one, is proven by `equations.HeadAndRatio` in (w, b).
"""

from __future__ import annotations

import numpy as np

from resnet_cert.numerics.balls import Balls, Bools, product, transposed
from resnet_cert.numerics.krawczyk import inverses
from resnet_cert.numerics.radius import FLOOR, Array, Radius, U
from resnet_cert.search.equations import times
from resnet_cert.search.shells import MORE, Ellipsoid, Examined, Ints, Shells, _column, _mean, bent, least

AWAY = 0.5


class Heads:
    """Boxes (w, b), of which w is halved."""

    def __init__(self, shells: Shells, least_t: float) -> None:
        self.shells, self.least_t = shells, least_t
        system = shells.system
        self.system, self.d, self.d1, self.k = system, shells.d, shells.d1, shells.k
        self.x, self.f = system.z[:, : self.d], system.z[:, self.d :]
        self.decay = shells.decay
        self.of = np.arange(shells.m)

    def widths(self, low: Array, high: Array) -> Array:
        score = np.full(low.shape, -1.0)
        score[:, : self.d] = (high - low)[:, : self.d]
        return score

    def middle(self, low: Array, high: Array, across: Ints) -> Array:
        return np.asarray(0.5 * low + 0.5 * high)

    def __call__(self, low: Array, high: Array, start: Array) -> Examined:
        shells, d = self.shells, self.d
        alive = np.ones(len(low), dtype=bool)

        def narrowed(a: Array, z: Array) -> tuple[Array, Array]:
            nonlocal alive
            alive &= ~(a > z).any(axis=1)
            return np.where(alive[:, None], a, 0.0), np.where(alive[:, None], z, 0.0)

        low, high, possible = self._bounded(low, high)
        alive &= possible
        low, high = narrowed(low, high)
        w_c = 0.5 * low[:, :d] + 0.5 * high[:, :d]
        r = np.maximum(high[:, :d] - w_c, w_c - low[:, :d]) * (1.0 + 4.0 * U) + FLOOR
        b_c, slope = self._followed(w_c, start)
        score = np.full(low.shape, -1.0)
        away = self._is_away(w_c, r)
        for rows, reduced in ((away, self._reduced_by_z), (~away, self._reduced)):
            if rows.any():
                some = (low[rows], high[rows], w_c[rows], r[rows], b_c[rows], slope[rows])
                low[rows], high[rows], score[rows] = reduced(*some)
        low, high = narrowed(low, high)
        index = np.flatnonzero(alive)
        a, z, none, zeros = shells.by_equations(low[index], high[index])
        low[index], high[index] = a, z
        alive[index[none]] = False
        low, high = narrowed(low, high)
        z_c = np.sum(w_c[:, : self.d1] ** 2, axis=1, keepdims=True) * b_c
        return Examined(low, high, alive, numbers(z_c), score, zeros)

    def _bounded(self, low: Array, high: Array) -> tuple[Array, Array, Bools]:
        """The bounds of `shells` for (w, b): of s and t, of the predictions, and by the linear terms."""
        shells, d, d1 = self.shells, self.d, self.d1
        w, b = Balls.between(low[:, :d], high[:, :d]), Balls.between(low[:, d:], high[:, d:])
        s, t = w[:, :d1].square().sum(), b.square().sum()
        s_low, t_low = np.maximum(s.lower, 0.0), np.maximum(t.lower, 0.0)
        q = times(w, self.x)
        value = shells.mean_loss(q)
        most_t = (shells.product_of_squares(value.upper) / s_low).capped(t.upper).upper
        impossible = (t_low > most_t * MORE) | (s_low * self.decay > shells.pull * MORE)
        impossible |= most_t < self.least_t
        low, high = low.copy(), high.copy()
        of_z = Radius.of(shells.reach_v[d:]) / s_low[:, None]
        ratio = of_z.capped(Radius.of(most_t).sqrt().upper[:, None]).upper
        low[:, d:], high[:, d:] = np.fmax(low[:, d:], -ratio), np.fmin(high[:, d:], ratio)
        b = Balls.between(low[:, d:], np.maximum(low[:, d:], high[:, d:]))
        p = q + Balls(s.center[:, None], s.radius[:, None]) * times(b, self.f)
        least, farthest = np.maximum(p.lower, shells.within[0]), np.minimum(p.upper, shells.within[1])
        impossible |= (least > farthest).any(axis=1)
        p = Balls.between(least, np.maximum(least, farthest))
        first, _ = self.system.slopes(p, self.system.y)
        norm = w.square().times(self.system.decayed).sum()
        impossible |= ((first * p).weighted(self.system.weight) + norm.times(self.decay)).has_no_zero
        pulled = _mean(first, shells.means)
        of_w = shells.head_factors(t)
        there = -(pulled[:, :d] * of_w.reciprocal())
        far = pulled[:, d:].times(-1.0 / self.decay)
        for columns, known in ((slice(0, d), there), (slice(d, None), far)):
            slack = 8.0 * U * known.size + FLOOR
            low[:, columns] = np.fmax(low[:, columns], known.lower - slack)
            high[:, columns] = np.fmin(high[:, columns], known.upper + slack)
        return low, high, ~impossible

    def _followed(self, w: Array, start: Array) -> tuple[Array, Array]:
        """b with T(w, b) about 0, and its derivative B' in w, in float64; start: of z = sb."""
        x, f, weight, y = self.x, self.f, self.system.weight.center, self.system.y
        d1, decay, k = self.d1, self.decay, self.k
        s = np.sum(w[:, :d1] ** 2, axis=1)
        head = w @ x.T
        pairs = (f[:, :, None] * f[:, None, :] * weight[:, None, None]).reshape(len(f), -1)

        def derivatives(b: Array, of: Ints, *, stiff: bool = False) -> tuple[Array, Array]:
            first, second = bent(self.system, head[of] + s[of, None] * (b @ f.T), stiff=stiff)
            J = s[of, None, None] * (second @ pairs).reshape(-1, k, k) + decay * np.eye(k)
            return (first * weight) @ f + decay * b, J

        every = np.arange(len(w))
        start = numbers(start / s[:, None])
        size, at_0 = (np.sum(derivatives(b, every)[0] ** 2, axis=1) for b in (start, np.zeros_like(start)))
        start = np.where((size <= at_0)[:, None], start, 0.0)
        b = least(derivatives, start, lambda step, of: s[of, None] * (step @ f.T))
        second = self.system.slopes(Balls.exact(head + s[:, None] * (b @ f.T)), y).second.center
        moved = self._moved(w, b, None)
        across = np.einsum("bn,nk,bnd->bkd", second * weight, f, moved)
        return b, np.nan_to_num(
            -(inverses(derivatives(b, every)[1]) @ across), nan=0.0, posinf=0.0, neginf=0.0
        )

    def _moved(self, w: Array, b: Array, slope: Array | None) -> Array:
        """∂p/∂w (B, n, d) in float64, along b + B'(w − w_c) if a slope B' is given."""
        moved = np.broadcast_to(self.x, (len(w), *self.x.shape)).copy()
        moved[:, :, : self.d1] += 2.0 * (b @ self.f.T)[:, :, None] * w[:, None, : self.d1]
        if slope is not None:
            s = np.sum(w[:, : self.d1] ** 2, axis=1)
            moved += s[:, None, None] * (self.f @ slope)
        return moved

    def _eliminated(self, w: Array, b: Array, slope: Array, second: Array, Q: Array) -> tuple[Array, Array]:
        """M (B, k, d) with MᵀT_b = R_b, and the inverse of the derivative of R − MᵀT, in float64."""
        x, f, d1 = self.x, self.f, self.d1
        weighted = second * self.system.weight.center
        s = np.sum(w[:, :d1] ** 2, axis=1)[:, None, None]
        T_b = s * np.einsum("bn,nk,nl->bkl", weighted, f, f) + self.decay * np.eye(self.k)
        wb = np.zeros((len(w), self.d, self.k))
        wb[:, :d1] = 2.0 * self.decay * w[:, :d1, None] * b[:, None, :]
        R_b = s * np.einsum("bn,nd,nk->bdk", weighted, x, f) - wb
        M = numbers(inverses(T_b) @ np.swapaxes(R_b, 1, 2))
        M_t = self.decay * np.swapaxes(M, 1, 2)
        factors = self.decay * np.broadcast_to(self.system.decayed, w.shape).copy()
        factors[:, :d1] -= self.decay * np.sum(b**2, axis=1)[:, None]
        J = np.einsum("bn,bnd,bne->bde", weighted, x[None] - f @ M, Q) - (M_t + wb) @ slope
        J[:, np.arange(self.d), np.arange(self.d)] += factors
        return M, inverses(J)

    def _reduced(
        self, low: Array, high: Array, w_c: Array, r: Array, b_c: Array, slope: Array
    ) -> tuple[Array, Array, Array]:
        """What is left of the boxes, and on which w_j R depends most."""
        shells, d, d1, k = self.shells, self.d, self.d1, self.k
        system, x, f = self.system, self.x, self.f
        w = Balls(w_c, r)
        s = w[:, :d1].square().sum()
        column = Balls(s.center[:, None], s.radius[:, None])
        s_c = Balls.exact(w_c[:, :d1]).square().sum()
        beta_c = times(Balls.exact(b_c), f)
        p_c = times(Balls.exact(w_c), x) + Balls(s_c.center[:, None], s_c.radius[:, None]) * beta_c
        first_c, second_c = system.slopes(p_c, system.y)
        turned = product(Balls.exact(f), Balls.exact(slope))  # (B, n, d): B'ᵀf
        grown = column[:, :, None] * turned
        # Along b_c + B'(w − w_c): β, ∂p/∂w, p, and their ranges with η besides.
        sway = np.einsum("bnd,bd->bn", turned.size, r) * MORE + FLOOR

        def along(off: Array) -> tuple[Balls, Balls, Balls]:
            """off: (B, n) bounds of |fᵀη|."""
            beta = beta_c.widened(sway + off)
            Q = grown + Balls.exact(np.broadcast_to(x, grown.center.shape))
            bent = _column(beta) * Balls(w.center[:, None, :d1], w.radius[:, None, :d1])
            bent = bent.times(2.0)
            head = Q[:, :, :d1] + bent
            Q = Balls(
                np.concatenate([head.center, Q.center[:, :, d1:]], axis=2),
                np.concatenate([head.radius, Q.radius[:, :, d1:]], axis=2),
            )
            p = p_c.widened(np.einsum("bnd,bd->bn", Q.size, r) * MORE + column.size * off * MORE + FLOOR)
            return beta, Q, p

        _, Q, p = along(np.zeros_like(p_c.center))
        second = system.slopes(p, system.y).second
        T = _mean(first_c, shells.means)[:, d:] + Balls.exact(b_c).times(self.decay)
        # T along b_c + B'(w − w_c) changes by N(w − w_c), N about 0, and what each ℓ' does besides.
        Q_c = self._moved(w_c, b_c, slope)
        weight = Balls(system.weight.center[None], system.weight.radius[None])
        N = _moments(Balls.exact(second_c.center) * weight, f, Balls.exact(Q_c))
        N = N + Balls.exact(slope).times(self.decay)
        T = T.widened(np.einsum("bij,bj->bi", N.size, r) * MORE + FLOOR)
        off_line = _column(second) * Q - _column(Balls.exact(second_c.center)) * Balls.exact(Q_c)
        drift = np.einsum("bnd,bd->bn", off_line.size, r) * weight.size * MORE + FLOOR
        stiff = np.full((len(w_c), k), self.decay * (1.0 - 4.0 * U))
        s_low = np.maximum(s.lower, 0.0)[:, None] * (1.0 - 4.0 * U)

        def bent_by(off: Array) -> Array:
            return system.slopes(along(off)[2], system.y).second.lower * s_low

        around = shells.settled(second.lower * s_low, stiff, T, slice(d, None), f, bent_by, drift)
        off = around.spread(f[None])
        low, high = low.copy(), high.copy()
        far = np.einsum("bij,bj->bi", np.abs(slope), r) * MORE + around.reach + 4.0 * U * np.abs(b_c) + FLOOR
        low[:, d:], high[:, d:] = np.fmax(low[:, d:], b_c - far), np.fmin(high[:, d:], b_c + far)
        # R − MᵀT over the box.
        _, Q, p = along(off)
        weighted = system.slopes(p, system.y).second * weight
        b = Balls(b_c, far)
        t, t_c = b.square().sum(), Balls.exact(b_c).square().sum()
        M, Y = self._eliminated(w_c, b_c, slope, second_c.center, Q_c)
        Y_exact = Balls.exact(Y)
        rows = Balls.exact(np.broadcast_to(x, (len(w_c), *x.shape))) - product(Balls.exact(f), Balls.exact(M))
        rows = product(rows, Balls.exact(np.swapaxes(Y, 1, 2)))  # (B, n, d)
        M_t = Balls.exact(np.swapaxes(M, 1, 2)).times(self.decay)

        one = _column(Balls(b_c, far))
        row_b = transposed(one)  # (B, 1, k)
        w_1 = Balls(w.center[:, :d1, None], w.radius[:, :d1, None]).times(2.0 * self.decay)
        wb = in_head(w_1 * row_b, d)  # 2·(2·l2) w_1bᵀ
        R = shells.head_factors(t_c) * Balls.exact(w_c) - product(M_t, _column(Balls.exact(b_c)))[:, :, 0]
        share = (first_c * weight)[:, None, :]
        R = product(share, rows)[:, 0] + product(Y_exact, _column(R))[:, :, 0]
        factors = shells.head_factors(t)
        J = _column(factors) * Balls.exact(np.eye(d)[None]) - product(M_t + wb, Balls.exact(slope))
        J = product(transposed(_column(weighted) * rows), Q) + product(Y_exact, J)
        of_b = _column(weighted * column) * rows
        K = product(transposed(of_b), Balls.exact(f[None])) - product(Y_exact, M_t + wb)
        return self._ended(low, high, w_c, r, around, R, J, K)

    def _ended(
        self, low: Array, high: Array, w_c: Array, r: Array, around: Ellipsoid, R: Balls, J: Balls, K: Balls
    ) -> tuple[Array, Array, Array]:
        """By Krawczyk's operator for R + J(w − w_c) + Kη, J about 1."""
        d = self.d
        by_eta = around.spread(K.center) + np.einsum("bij,bj->bi", K.radius, around.reach)
        R = R.widened(by_eta * MORE + FLOOR)
        rest = Balls.exact(np.eye(d)) - J
        there = (Balls.exact(w_c) - R).widened(np.einsum("bij,bj->bi", rest.size, r) * MORE + FLOOR)
        low[:, :d] = np.fmax(low[:, :d], there.lower)
        high[:, :d] = np.fmin(high[:, :d], there.upper)
        apart = (np.abs(R.center) > (R.radius + np.einsum("bij,bj->bi", J.size, r)) * MORE).any(axis=1)
        high[apart, 0], low[apart, 0] = -1.0, 1.0
        score = np.full(low.shape, -1.0)
        smear = np.einsum("bij,bj->bj", J.radius, r)
        unknown = ~np.isfinite(smear).all(axis=1)
        smear[unknown] = r[unknown]
        score[:, :d] = smear
        return low, high, score

    def _is_away(self, w_c: Array, r: Array) -> Bools:
        """‖w_1‖ changes little over the box."""
        size = np.sqrt(np.sum(w_c[:, : self.d1] ** 2, axis=1))
        return np.asarray(np.sqrt(np.sum(r[:, : self.d1] ** 2, axis=1)) < AWAY * size)

    def _reduced_by_z(
        self, low: Array, high: Array, w_c: Array, r: Array, b_c: Array, slope: Array
    ) -> tuple[Array, Array, Array]:
        """The same with z = sb followed in place of b, p = wᵀx + zᵀf and T = E[ℓ' f] + 2·l2 z/s."""
        shells, d, d1, k = self.shells, self.d, self.d1, self.k
        system, x, f, decay = self.system, self.x, self.f, self.decay
        w = Balls(w_c, r)
        i = w[:, :d1].square().sum().reciprocal()
        i = Balls(i.center[:, None, None], i.radius[:, None, None])
        s_f = np.sum(w_c[:, :d1] ** 2, axis=1)
        z_c = s_f[:, None] * b_c
        w_1c = w_c[:, :d1]
        p_c = times(Balls.exact(np.concatenate([w_c, z_c], axis=1)), system.z)
        first_c, second_c = system.slopes(p_c, system.y)
        weight = Balls(system.weight.center[None], system.weight.radius[None])
        eye_k, eye_d = np.eye(k), np.eye(d)
        # In float64: Z', M and Y.
        bent = second_c.center * weight.center
        i_c = (1.0 / s_f)[:, None, None]
        zw = np.zeros((len(w_c), k, d))
        zw[:, :, :d1] = 2.0 * z_c[:, :, None] * w_1c[:, None, :] * i_c * i_c
        T_z = np.einsum("bn,nk,nl->bkl", bent, f, f) + decay * i_c * eye_k
        T_w = np.einsum("bn,nk,nd->bkd", bent, f, x) - decay * zw
        inverse = inverses(T_z)
        M = numbers(inverse @ T_w)  # T_w = R_zᵀ
        slope = -M
        Q_c = x[None] + f @ slope
        t_f = np.sum(z_c**2, axis=1) / s_f**2
        J_c = np.einsum("bn,bnd,bne->bde", bent, x[None] - f @ M, Q_c)
        J_c += decay * np.diag(self.system.decayed)[None]
        head = np.zeros((len(w_c), d, d))
        head[:, :d1, :d1] = t_f[:, None, None] * np.eye(d1) - 4.0 * (t_f / s_f)[:, None, None] * (
            w_1c[:, :, None] * w_1c[:, None, :]
        )
        head += np.swapaxes(zw, 1, 2) @ slope
        J_c -= decay * head + np.swapaxes(M, 1, 2) @ (decay * (slope * i_c - zw))
        Y = inverses(J_c)
        # Enclosed: p = p_c + Q(w − w_c) + fᵀη.
        Q = product(Balls.exact(f), Balls.exact(slope)) + Balls.exact(x[None])
        p = p_c.widened(np.einsum("bnd,bd->bn", Q.size, r) * MORE + FLOOR)
        second = system.slopes(p, system.y).second
        w_1 = in_head(w[:, :d1], d)
        row_w = Balls(w_1.center[:, None, :], w_1.radius[:, None, :])
        column_w = _column(w_1)

        def by_head(z: Balls) -> Balls:
            """The derivative of z/s along the way: Z'/s − 2 z w_1ᵀ/s² (B, k, d)."""
            return i * Balls.exact(slope) - (_column(z) * row_w * i * i).times(2.0)

        moved = Balls(z_c, np.einsum("bij,bj->bi", np.abs(slope), r) * MORE + FLOOR)
        # T(w) − T(w_c): z/s by its derivative, ℓ' by the ℓ'' of the centre and a drift.
        s_c = Balls.exact(w_1c).square().sum().reciprocal()
        T = _mean(first_c, shells.means)[:, d:] + (
            Balls(s_c.center[:, None], s_c.radius[:, None]) * Balls.exact(z_c)
        ).times(decay)
        N = _moments(Balls.exact(second_c.center) * weight, f, Q) + by_head(moved).times(decay)
        T = T.widened(np.einsum("bij,bj->bi", N.size, r) * MORE + FLOOR)
        off_line = (second - Balls.exact(second_c.center)).size
        drift = off_line * np.einsum("bnd,bd->bn", Q.size, r) * weight.size * MORE + FLOOR
        stiff = np.repeat(np.maximum(i.lower[:, :, 0], 0.0) * decay * (1.0 - 8.0 * U), k, axis=1)
        around = shells.settled(
            second.lower,
            stiff,
            T,
            slice(d, None),
            f,
            lambda off: system.slopes(p.widened(off), system.y).second.lower,
            drift,
        )
        off = around.spread(f[None])
        z = Balls(z_c, moved.radius + around.reach)
        b = z * i[:, :, 0]
        low, high = low.copy(), high.copy()
        low[:, d:], high[:, d:] = np.fmax(low[:, d:], b.lower), np.fmin(high[:, d:], b.upper)
        weighted = system.slopes(p.widened(off), system.y).second * weight
        Y_exact, M_t = Balls.exact(Y), Balls.exact(np.swapaxes(M, 1, 2)).times(decay)
        rows = Balls.exact(np.broadcast_to(x, (len(w_c), *x.shape))) - product(Balls.exact(f), Balls.exact(M))
        rows = product(rows, Balls.exact(np.swapaxes(Y, 1, 2)))
        t = b.square().sum()
        b_at = Balls(s_c.center[:, None], s_c.radius[:, None]) * Balls.exact(z_c)
        R = shells.head_factors(b_at.square().sum()) * Balls.exact(w_c) - product(M_t, _column(b_at))[:, :, 0]
        R = product((first_c * weight)[:, None, :], rows)[:, 0] + product(Y_exact, _column(R))[:, :, 0]
        # ∂t = 2 bᵀ(Z'/s − 2 z w_1ᵀ/s²)
        ways = by_head(z)
        row_b = Balls(b.center[:, None, :], b.radius[:, None, :])
        wb = (column_w * row_b).times(2.0 * decay)
        J = _column(shells.head_factors(t)) * Balls.exact(eye_d[None]) - product(wb + M_t, ways)
        J = product(transposed(_column(weighted) * rows), Q) + product(Y_exact, J)
        K = product(transposed(_column(weighted) * rows), Balls.exact(f[None]))
        K = K - product(Y_exact, (wb + M_t) * i)
        return self._ended(low, high, w_c, r, around, R, J, K)


def in_head(wide: Balls, d: int) -> Balls:
    """(B, d, …) of (B, d1, …), 0 beyond."""
    nothing = np.zeros((len(wide.center), d - wide.center.shape[1], *wide.center.shape[2:]))
    return Balls(
        np.concatenate([wide.center, nothing], axis=1), np.concatenate([wide.radius, nothing], axis=1)
    )


def numbers(x: Array) -> Array:
    """0 where it is not a number."""
    return np.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0)


def _moments(weighted: Balls, rows: Array, Q: Balls) -> Balls:
    """Σ_i weighted_i rows_i Q_iᵀ: (B, j, d) for weighted (B, n), rows (n, j), Q (B, n, d)."""
    scaled = _column(weighted) * Balls.exact(rows[None])  # (B, n, j)
    return product(transposed(scaled), Q)
