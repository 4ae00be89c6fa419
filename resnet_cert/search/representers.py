"""Critical points with weight decay, by branch and bound, where there are few samples.

With γ = −πℓ'(p)/(2·l2), one number for every sample, the equations of `decayed` are b = Fᵀγ and

    (1 − t)w_1 = X_1ᵀγ,   Dw_2 = X_2ᵀγ,   X_1w_1 + X_2w_2 + sFFᵀγ = p(γ),   s = ‖w_1‖², t = ‖b‖²,

(X_1, X_2, F) the rows of the data.  In each sample p(γ) is the inverse of a falling function, ℓ being
strictly convex.  For fixed (s, t) all of this is linear but for p(γ), and that is all in which l2 appears:
the smaller l2, the less p depends on γ.  So (s, t) are halved, and (w, γ) follow by Krawczyk's operator; p is
halved as well where ℓ'' varies too much over a box.  It does not matter whether anything is convex, t ≤ 1 or
not, nor that the data leave directions of (w, V) open.

**Fewer samples than inputs of the block.**  X_1 = X'Qᵀ with an orthonormal Q (d1, n), and w_1 = Qw' + w_⊥
with X_1w_⊥ = 0 has (1 − t)w_⊥ = 0.  Where the rows of X_1 are independent w_⊥ is 0: else t = 1, so that
X_1ᵀγ = 0, so that γ = 0, b = 0 and t = 0.  So w' and X' take the places of w_1 and X_1, ‖w'‖ = ‖w_1‖.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from resnet_cert.numerics import algebra
from resnet_cert.numerics.balls import QUIET, Balls, Bools, product, stacked, transposed
from resnet_cert.numerics.intervals import Interval
from resnet_cert.numerics.krawczyk import Enclosed, Excluded, distinct, inverses
from resnet_cert.numerics.radius import FLOOR, Array, U
from resnet_cert.problem.losses import BuiltinLoss
from resnet_cert.problem.ranges import inverse_slope
from resnet_cert.search.boxes import searched
from resnet_cert.search.equations import HeadAndRatio
from resnet_cert.search.shells import (
    MORE,
    SQUARES,
    Examined,
    Ints,
    Shells,
    by_krawczyk,
    stationary,
    tied,
)

BATCH_WORK = 2**16
"""Boxes times entries of their Jacobians that are examined at once."""
FEW, MANY = 5, 12
"""So many samples are few, at most: where ℓ' is bent, unless there are more unknowns, and where it is not."""
CLOSE = 4.0
"""p(γ) is looked for within so many times what its roundings may be."""
ABOUT = 0.125
"""t is about 1 within this."""
SMALL, SMALL_S = 0.05, 1e-5
"""Of t and σ, and of s: below, they are halved as they are, above, their logarithms."""
LEVEL = 16.0
"""What is so many times narrower, in halvings, than another unknown is halved the less."""
MOST_VARIED = 64.0
"""Halvings of an ℓ'' that may be 0."""


def applies(shells: Shells) -> bool:
    """Few samples, and a loss of which p(γ) is known."""
    if not (isinstance(shells.loss, BuiltinLoss) and inverse_slope(shells.loss) is not None):
        return False
    return len(shells.system.y) <= (max(shells.m, FEW) if shells.is_bent else MANY)


@QUIET
def all_with(
    shells: Shells, least_t: float, lower: Array, upper: Array, excluded: Excluded, most_boxes: int
) -> tuple[list[tuple[Array, Array]], tuple[Array, Array]] | None:
    """The zeros (w, b) with t ≥ least_t in a range, a centre and a radius each, and boxes (w, b) that are
    left, by their ends; None where the rows of X_1 may be dependent.

    Args:
        lower, upper, excluded: as in `branches.all_zeros`.
    """
    system = Multipliers.of(shells)
    if system is None:
        return None

    def out(center: Array, reach: Array) -> Bools:
        whole = system.turned_back(Balls(center, reach))
        beyond = (whole.lower > upper) | (whole.upper < lower)
        return excluded(whole.center, whole.radius) | np.asarray(beyond.any(axis=1))

    far = float(np.sum(np.maximum(np.abs(lower), np.abs(upper))[shells.d :] ** 2)) * MORE + FLOOR
    parts = [(True, 0.0, 1.0), (True, 1.0, far)]
    if system.r < system.n:
        parts = [(True, 0.0, 1.0 - ABOUT), (False, 1.0 - ABOUT, 1.0 + ABOUT), (True, 1.0 + ABOUT, far)]
    m = system.head + system.n
    found: list[tuple[Array, Array, Array]] = []
    nothing = np.zeros((0, shells.m))
    left = [Balls(nothing, nothing)]
    for divided, start, end in parts:
        ends = max(start, least_t), min(end, far)
        if ends[0] >= ends[1]:
            continue
        examine = Examiner(shells, system, divided=divided)
        low, high = examine.range(lower, upper, ends)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            return None
        zeros, boxes = searched(examine, low, high, m, out, most_boxes // 2, max(64, BATCH_WORK // m**2))
        found += zeros
        left.append(system.turned_back(Balls.between(*boxes)))
    at, radius = distinct([system], found, np.full(m, -np.inf), np.full(m, np.inf), m)
    those = system.turned_back(system.ratios(Balls(at, radius)))
    inside = ((those.lower <= upper) & (those.upper >= lower)).all(axis=1)
    pairs = list(zip(those.center[inside], those.radius[inside], strict=True))
    return pairs, (np.concatenate([box.lower for box in left]), np.concatenate([box.upper for box in left]))


@dataclass(frozen=True)
class Multipliers:
    """The equations in (w', w_2, γ): a `krawczyk.System`.

    X: (n, head) rows (X', X_2);  r: columns of X';  Q: (d1, r), None for the identity;  K = FFᵀ.
    inverse: of ℓ', in float64.
    """

    whole: HeadAndRatio
    X: Balls
    F: Array
    K: Balls
    Q: Balls | None
    r: int
    decayed: Array
    inverse: Callable[[Array, Array], Array]

    @staticmethod
    def of(shells: Shells) -> Multipliers | None:
        whole, d, d1 = shells.system, shells.d, shells.d1
        assert isinstance(shells.loss, BuiltinLoss)
        inverse = inverse_slope(shells.loss)
        assert inverse is not None
        x, F = whole.z[:, :d], whole.z[:, d:]
        K = product(Balls.exact(F), Balls.exact(F.T))
        if len(x) >= d1:
            return Multipliers(whole, Balls.exact(x), F, K, None, d1, whole.decayed, inverse)
        turned = orthonormal_rows(x[:, :d1])
        if turned is None:
            return None
        X, Q = turned
        decayed = np.delete(whole.decayed, np.s_[len(x) : d1])
        return Multipliers(whole, _joined(X, Balls.exact(x[:, d1:])), F, K, Q, len(x), decayed, inverse)

    @property
    def n(self) -> int:
        return len(self.F)

    @property
    def head(self) -> int:
        """Columns of (w', w_2)."""
        return self.X.center.shape[1]

    @property
    def decay(self) -> float:
        return 2.0 * self.whole.l2

    def ratios(self, u: Balls) -> Balls:
        """(w, b) of (w, γ)."""
        b = applied(Balls.exact(self.F.T), u[:, self.head :])
        return _joined(u[:, : self.head], b)

    def turned_back(self, u: Balls) -> Balls:
        """(w_1, …) of (w', …)."""
        if self.Q is None:
            return u
        return _joined(applied(self.Q, u[:, : self.r]), u[:, self.r :])

    def __call__(self, center: Array, reach: Array) -> Enclosed:
        u_c, u = Balls.exact(center), Balls(center, reach)
        p_c, p = self.predictions(u_c[:, self.head :]), self.predictions(u[:, self.head :])
        at = self.left(u_c, *self.squares(u_c)[:2], p_c)
        s, t, beta = self.squares(u)
        jacobian = self.jacobian(s, t, self.slack(p))
        # ∂s = 2w'ᵀ∂w', ∂t = 2(Fb)ᵀ∂γ
        r, head = self.r, self.head
        w = u[:, :r]
        by_s, by_t = _outer(beta, w).times(2.0), _outer(w, beta).times(-2.0)
        grown = Balls(jacobian.center.copy(), jacobian.radius.copy())
        for rows, columns, more in (
            (slice(head, None), slice(0, r), by_s),
            (slice(0, r), slice(head, None), by_t),
        ):
            sum_ = jacobian[:, rows, columns] + more
            grown.center[:, rows, columns], grown.radius[:, rows, columns] = _ends(sum_)
        return Enclosed(at, self.left(u, s, t, p), grown)

    def squares(self, u: Balls) -> tuple[Balls, Balls, Balls]:
        """s and t (B,), and Fb (B, n)."""
        b = applied(Balls.exact(self.F.T), u[:, self.head :])
        return u[:, : self.r].square().sum(), b.square().sum(), applied(Balls.exact(self.F), b)

    def left(self, u: Balls, s: Balls, t: Balls, p: Balls) -> Balls:
        """The equations (B, head + n), their left sides less their right ones."""
        w, gamma = u[:, : self.head], u[:, self.head :]
        of_w = self.factors(t) * w - applied(transposed(self.X), gamma)
        of_p = applied(self.X, w) + _column(s) * applied(self.K, gamma) - p
        return _joined(of_w, of_p)

    def factors(self, t: Balls) -> Balls:
        """(1 − t, D) as (B, head)."""
        less = Balls.exact(np.ones_like(t.center)) - t
        center = np.broadcast_to(self.decayed, (len(t.center), self.head)).copy()
        radius = np.zeros_like(center)
        center[:, : self.r], radius[:, : self.r] = less.center[:, None], less.radius[:, None]
        return Balls(center, radius)

    def jacobian(self, s: Balls, t: Balls, slack: Balls) -> Balls:
        """For fixed (s, t), with −∂p/∂γ (B, n)."""
        head, m = self.head, self.head + self.n
        shape = (len(s.center), m, m)
        J = Balls(np.zeros(shape), np.zeros(shape))
        factors = self.factors(t)
        moved = s[:, None, None] * self.K[None]
        moved = moved + slack[:, :, None] * Balls.exact(np.eye(self.n))
        for whole, f, k, X in zip(_ends(J), _ends(factors), _ends(moved), _ends(self.X), strict=True):
            whole[:, np.arange(head), np.arange(head)] = f
            whole[:, head:, head:] = k
            whole[:, head:, :head] = X
            whole[:, :head, head:] = X.T
        J.center[:, :head, head:] *= -1.0
        return J

    # p(γ)

    def slack(self, p: Balls) -> Balls:
        """−∂p/∂γ = 2·l2/(πℓ'') over a range of predictions."""
        bent = (self.whole.slopes(p, self.whole.y).second * self.whole.weight[None]).times(1.0 / self.decay)
        bent = bent.widened(4.0 * U * np.abs(bent.center))
        low = np.where(bent.lower > 0.0, bent.lower, 0.0)
        return Balls.between(1.0 / bent.upper * (1.0 - 4.0 * U), 1.0 / low * (1.0 + 4.0 * U))

    def multipliers(self, p: Balls) -> Balls:
        """γ(p)."""
        first = self.whole.slopes(p, self.whole.y).first
        weight = self.whole.weight[None]
        there = (first * weight).times(-1.0 / self.decay)
        return there.widened(4.0 * U * np.abs(there.center))

    def predictions(self, gamma: Balls) -> Balls:
        """p(γ); unknown where it is not seen to exist."""
        return Balls.between(*self.range(gamma.lower, gamma.upper))

    def range(self, low: Array, high: Array) -> tuple[Array, Array]:
        """The ends of p(γ) for low ≤ γ ≤ high; infinite where there is none to be seen."""
        return self._end(high, -1.0), self._end(low, 1.0)

    def _end(self, gamma: Array, side: float) -> Array:
        """A p that is certainly on this side of p(γ)."""
        whole, weight = self.whole, self.whole.weight
        y = whole.y
        slope = (Balls.exact(gamma).times(-self.decay)) * Balls(weight.center, weight.radius).reciprocal()
        p = self.inverse(slope.center, y)
        first, second = whole.slopes(Balls.exact(p), y)
        step = (first.center - slope.center) / second.center
        p = np.where(np.isfinite(step), p - step, p)
        first, second = whole.slopes(Balls.exact(p), y)
        off = np.abs(first.center - slope.center) + first.radius + slope.radius
        p = p + side * (CLOSE * (off / second.center + 4.0 * U * np.abs(p)) + FLOOR)
        beyond = whole.slopes(Balls.exact(p), y).first
        sure = (beyond.lower > slope.upper) if side > 0.0 else (beyond.upper < slope.lower)
        return np.where(sure, p, side * np.inf)


Known = Callable[[Any, Balls | Interval], None]
"""Columns, and in what their unknowns lie."""


class Examiner:
    """Boxes of the unknowns (w', w_2, b, v, p, s, t, σ) in one of two forms of the equations,

        αw' + βX'ᵀv = 0,   Dw_2 − κX_2ᵀv = 0,   X'w' + X_2w_2 + σKv = p(κv),   b = κFᵀv :

    divided    v = γ/(t − 1), κ = t − 1, σ = s(t − 1), α = β = 1: what is linear in (w, v) depends on σ alone,
               so that t need not be halved where it is singular;
    as it is   v = γ, κ = 1, σ = s, α = 1 − t, β = −1, for t about 1, unless the rows of X' are independent.
    """

    def __init__(self, shells: Shells, system: Multipliers, *, divided: bool) -> None:
        self.shells, self.system, self.divided = shells, system, divided
        self.head, self.n, self.k = system.head, system.n, shells.k
        widths = (self.head, self.k, self.n, self.n, 1, 1, 1)
        ends = np.cumsum((0, *widths))
        self.w, self.b, self.v, self.p = (slice(*ends[i : i + 2]) for i in range(4))
        self.w_1 = slice(0, system.r)
        self.s, self.t, self.sigma = (int(end) for end in ends[4:7])
        self.of, self.wv = np.arange(self.head + self.k), np.r_[self.w, self.v]
        rows = _joined(system.X, Balls.exact(system.F))
        self.onto = Balls.exact(algebra.pinv(rows.center.T))
        self.rest = Balls.exact(np.eye(self.n)) - product(self.onto, transposed(rows))
        usual = float(np.sum(system.X.center[:, self.w_1] ** 2) / max(np.trace(system.K.center), FLOOR))
        self.least = np.ones(int(ends[-1]))
        self.least[[self.s, self.t, self.sigma]] = SMALL_S * usual, SMALL, SMALL * usual

    def range(self, lower: Array, upper: Array, t: tuple[float, float]) -> tuple[Array, Array]:
        """All of them where (w, b) are in a range, (d + k,) each, and t is."""
        system, shells = self.system, self.shells
        d1, r = shells.d1, system.r
        far = np.maximum(np.abs(lower), np.abs(upper))
        s = min(float(np.sum(far[:d1] ** 2)), shells.pull / shells.decay) * MORE + FLOOR
        low, high = lower.copy(), upper.copy()
        if system.Q is not None:
            of_w = np.full(r, np.sqrt(s) * MORE)
            low, high = np.concatenate([-of_w, low[d1:]]), np.concatenate([of_w, high[d1:]])
        u = np.maximum(np.abs(low), np.abs(high))
        lengths = np.sqrt(np.sum(system.F**2, axis=1)) * MORE + SQUARES
        reach = np.fmin(s * (np.abs(system.F) @ u[self.head :]), self._farthest(np.array(s)) * lengths)
        reach = (system.X.size @ u[: self.head] + reach) * MORE + FLOOR
        p = np.fmax(-reach, shells.within[0]), np.fmin(reach, shells.within[1])
        v, sigma = system.multipliers(Balls.between(*p)[None]), (0.0, s)
        if self.divided:
            v = Interval(v.lower, v.upper) / (Interval(*np.array(t)[:, None]) - Interval.exact(1.0))
            sigma = s * min(t[0] - 1.0, 0.0), s * max(t[1] - 1.0, 0.0)
        v_low, v_high = np.nan_to_num(v.lower[0], nan=-np.inf), np.nan_to_num(v.upper[0], nan=np.inf)
        if self.divided and t[0] <= 1.0 <= t[1]:
            far_v = self._farthest_v(np.sqrt(s) * MORE)
            v_low, v_high = np.fmax(v_low, -far_v), np.fmin(v_high, far_v)
        return (
            np.concatenate([low, v_low, p[0], [0.0, t[0], sigma[0] * MORE]]),
            np.concatenate([high, v_high, p[1], [s, t[1], sigma[1] * MORE]]),
        )

    def _farthest_v(self, size: float) -> float:
        """sup |v_i| for w' = −X'ᵀv with ‖w'‖ ≤ size: by v = L(X'ᵀv) + (I − LX'ᵀ)v."""
        rows = transposed(self.system.X[:, self.w_1])
        L = algebra.pinv(rows.center)
        rest = Balls.exact(np.eye(self.n)) - product(Balls.exact(L), rows)
        kept = 1.0 - float(np.sum(rest.size, axis=1).max()) * MORE
        longest = float(np.sqrt(np.sum(L**2, axis=1)).max()) + SQUARES
        return longest * size / kept * MORE if kept > 0.0 else np.inf

    def widths(self, low: Array, high: Array) -> Array:
        """Of s, t and σ, in halvings, and of p."""
        score = np.full(low.shape, -1.0)
        score[:, self.p] = high[:, self.p] - low[:, self.p]
        for of in (self.s, self.t, self.sigma):
            ends = (np.arcsinh(end[:, of] / self.least[of]) for end in (high, low))
            score[:, of] = (next(ends) - next(ends)) / np.log(2.0)
        return score

    def middle(self, low: Array, high: Array, across: Ints) -> Array:
        least = self.least[across]
        by_ratio = least * np.sinh(0.5 * np.arcsinh(low / least) + 0.5 * np.arcsinh(high / least))
        return np.asarray(np.where(across >= self.s, by_ratio, 0.5 * low + 0.5 * high))

    def __call__(self, low: Array, high: Array, start: Array) -> Examined:
        alive = np.ones(len(low), dtype=bool)
        low, high = low.copy(), high.copy()

        def settle() -> None:
            nonlocal low, high
            np.logical_and(alive, ~(low > high).any(axis=1), out=alive)
            low, high = np.where(alive[:, None], low, 0.0), np.where(alive[:, None], high, 0.0)

        def known(columns: slice, found: Balls | Interval) -> None:
            low[:, columns] = np.fmax(low[:, columns], found.lower)
            high[:, columns] = np.fmin(high[:, columns], found.upper)

        self._tied(low, high, known)
        settle()
        self._by_predictions(low, high, known)
        settle()
        self._by_rows(low, high, known)
        settle()
        u, at = self._centre(low, high, start)
        score = self._by_newton(low, high, u, known)
        settle()
        self._tied(low, high, known)
        settle()
        index = np.flatnonzero(alive)
        none, found = self._by_equations(low, high, index)
        alive[index[none]] = False
        settle()
        return Examined(low, high, alive, at, score, found)

    def _number(self, low: Array, high: Array, of: int | slice) -> Balls:
        return Balls.between(low[:, of], high[:, of])

    def _farthest(self, s: Array) -> Array:
        """sup ‖sb‖ = √(s·st)."""
        return np.asarray(np.sqrt(s) * np.sqrt(self.shells.largest) * MORE)

    def _interval(self, low: Array, high: Array, of: int | slice) -> Interval:
        """By its ends: where these are apart by factors, a product or a quotient loses nothing."""
        return Interval(low[:, of], np.maximum(low[:, of], high[:, of]))

    def _beyond(self, low: Array, high: Array) -> Interval:
        """t − 1 (B, 1)."""
        return self._interval(low, high, slice(self.t, self.t + 1)) - Interval.exact(1.0)

    def _scale(self, low: Array, high: Array) -> Interval:
        """κ (B, 1)."""
        return self._beyond(low, high) if self.divided else Interval.exact(np.ones((len(low), 1)))

    def _tied(self, low: Array, high: Array, known: Known) -> None:
        """s = ‖w'‖², t = ‖b‖², σ, and ‖V‖² = st in the range."""
        tied(low, high, self.w_1, self.s)
        tied(low, high, self.b, self.t)
        for one, other in ((self.s, self.t), (self.t, self.s)):
            high[:, one] = np.fmin(high[:, one], self.shells.largest / low[:, other] * MORE)
        if not self.divided:
            for to, of in ((self.s, self.sigma), (self.sigma, self.s)):
                low[:, to], high[:, to] = np.fmax(low[:, to], low[:, of]), np.fmin(high[:, to], high[:, of])
            return
        s, t, sigma = (slice(of, of + 1) for of in (self.s, self.t, self.sigma))
        known(sigma, self._interval(low, high, s) * self._beyond(low, high))
        known(
            t, quotient(self._interval(low, high, sigma), self._interval(low, high, s)) + Interval.exact(1.0)
        )
        known(s, quotient(self._interval(low, high, sigma), self._beyond(low, high)))

    def _by_predictions(self, low: Array, high: Array, known: Known) -> None:
        """p = Xw + sFb, and p and γ = κv from each other."""
        system, p = self.system, self.p
        z = _column(self._number(low, high, self.s)) * self._number(low, high, self.b)
        far = self._farthest(high[:, self.s, None])
        z = Balls.between(np.maximum(z.lower, -far), np.minimum(z.upper, far))
        head = applied(system.X, self._number(low, high, self.w))
        known(p, head + applied(Balls.exact(system.F), z))
        K_v = applied(system.K, self._number(low, high, self.v))
        of_v = self._interval(low, high, slice(self.sigma, self.sigma + 1)) * Interval(K_v.lower, K_v.upper)
        known(p, head + Balls.between(*_both(of_v)))
        at = Balls.between(low[:, p], np.maximum(low[:, p], high[:, p]))
        scale, there = self._scale(low, high), system.multipliers(at)
        known(self.v, quotient(Interval(there.lower, there.upper), scale))
        gamma = scale * self._interval(low, high, self.v)
        if self.divided:
            least, most = np.fmax(gamma.lower, there.lower), np.fmin(gamma.upper, there.upper)
            gamma = Interval(np.minimum(least, most), np.maximum(least, most))
            known(self.b, applied(transposed(Balls.exact(system.F)), Balls.between(*_both(gamma))))
        least, most = system.range(gamma.lower, gamma.upper)
        low[:, p], high[:, p] = np.fmax(low[:, p], least), np.fmin(high[:, p], most)

    def _by_rows(self, low: Array, high: Array, known: Known) -> None:
        """Xᵀv and Fᵀv by (w, b), for v and for (w, b)."""
        system, r = self.system, self.system.r
        w, b = (self._interval(low, high, of) for of in (self.w, self.b))
        v = self._number(low, high, self.v)
        beyond, scale = self._beyond(low, high), self._scale(low, high)
        of_w = Interval(w.lower[:, :r], w.upper[:, :r])
        of_w = -of_w if self.divided else -(beyond * of_w)
        others = Interval(
            np.concatenate([w.lower[:, r:] * system.decayed[r:], b.lower], axis=1),
            np.concatenate([w.upper[:, r:] * system.decayed[r:], b.upper], axis=1),
        )
        others = quotient(others, scale)
        rows = (np.concatenate(parts, axis=1) for parts in zip(_both(of_w), _both(others), strict=True))
        known(self.v, applied(self.onto, Balls.between(*rows)) + applied(self.rest, v))
        v = Balls.between(low[:, self.v], np.maximum(low[:, self.v], high[:, self.v]))
        X_v, F_v = applied(transposed(system.X), v), applied(transposed(Balls.exact(system.F)), v)
        known(self.b, Interval(F_v.lower, F_v.upper) * scale)
        of_w = -Interval(X_v.lower[:, :r], X_v.upper[:, :r])
        known(self.w_1, of_w if self.divided else quotient(of_w, beyond))
        if system.decayed[r:].all():
            known(slice(r, self.head), Interval(X_v.lower[:, r:], X_v.upper[:, r:]) * scale)

    def _centre(self, low: Array, high: Array, start: Array) -> tuple[Array, Array]:
        """(w, v) in the box and near where the equations hold for the middle of (s, t); (w, p) there."""
        system, head, n = self.system, self.head, self.n
        X, y, weight = system.X.center, system.whole.y, system.whole.weight.center
        t, sigma = (0.5 * low[:, i] + 0.5 * high[:, i] for i in (self.t, self.sigma))
        s = sigma / (t - 1.0) if self.divided else sigma
        s = np.where(np.isfinite(s), s, 0.5 * low[:, self.s] + 0.5 * high[:, self.s])
        factor = system.factors(Balls.exact(t)).center * system.decay
        K = system.K.center

        def derivatives(at: Array, of: Ints) -> tuple[Array, Array]:
            """2·l2 (1 − t, D)w + Xᵀ(πℓ') and p − Xw + sK(πℓ')/(2·l2)."""
            w, p = at[:, :head], at[:, head:]
            first, second = (part.center * weight for part in system.whole.slopes(Balls.exact(p), y))
            push = s[of, None] / system.decay
            T = np.concatenate([factor[of] * w + first @ X, p - w @ X.T + push * (first @ K)], axis=1)
            J = np.zeros((len(at), head + n, head + n))
            J[:, np.arange(head), np.arange(head)] = factor[of]
            J[:, :head, head:] = X.T * second[:, None, :]
            J[:, head:, :head] = -X
            J[:, head:, head:] = np.eye(n) + push[:, :, None] * K * second[:, None, :]
            return T, J

        at = stationary(derivatives, start)
        first = system.whole.slopes(Balls.exact(at[:, head:]), y).first.center
        v = -first * weight / system.decay
        u = np.concatenate([at[:, :head], v / (t - 1.0)[:, None] if self.divided else v], axis=1)
        middle = 0.5 * low[:, self.wv] + 0.5 * high[:, self.wv]
        u = np.where(np.isfinite(u), u, middle)
        return np.clip(u, low[:, self.wv], high[:, self.wv]), np.nan_to_num(at)

    def _by_newton(self, low: Array, high: Array, u: Array, known: Known) -> Array:
        """Krawczyk's operator in (w, v) for all (σ, t) of the box; how much each of p, t, σ widens it."""
        system, head = self.system, self.head
        reach = np.maximum(high[:, self.wv] - u, u - low[:, self.wv]) * (1.0 + 4.0 * U) + FLOOR
        u_c = Balls.exact(u)
        w_c, v_c = u_c[:, :head], u_c[:, head:]
        t, sigma = self._number(low, high, self.t), self._number(low, high, self.sigma)
        middle = Balls.exact(t.center) - Balls.exact(np.ones_like(t.center))
        mid_scale = middle if self.divided else Balls.exact(np.ones_like(t.center))
        p_c = system.predictions(_column(mid_scale) * v_c)
        # Between p(κv) at u and in the zero; NaN, where one is not known, stays.
        pushed = self._scale(low, high) * Interval.exact(u[:, head:])
        least, most = system.range(*_both(pushed))
        p = np.minimum(low[:, self.p], least), np.maximum(high[:, self.p], most)
        slack = system.slack(Balls.between(*p))
        at = self._left(w_c, v_c, Balls.exact(sigma.center), middle, mid_scale, p_c)
        J = self._jacobian(Balls.exact(sigma.center), middle, mid_scale, slack)
        Y = Balls.exact(inverses(J.center))
        K = u_c - product(Y, at[:, :, None])[:, :, 0]
        rest = Balls.exact(np.eye(len(self.wv))) - product(Y, J)
        K = K.widened(np.einsum("bij,bj->bi", rest.size, reach) * MORE)
        # What σ and t change, they change alike in every row: of the equations at u, and of J.
        score = np.full(low.shape, -1.0)
        for of_it, column, (moved, turned) in (
            (sigma, self.sigma, self._by_sigma(v_c)),
            (t, self.t, self._by_t(w_c, v_c, slack)),
        ):
            at_u = product(Y, moved[:, :, None])[:, :, 0].size
            elsewhere = np.einsum("bij,bj->bi", product(Y, turned).size, reach)
            widened = (at_u + elsewhere) * of_it.radius[:, None] * MORE
            K = K.widened(widened)
            score[:, column] = (widened / reach).max(axis=1)
        sizes = np.abs(Y.center)
        of_p = sizes[:, :, head:] * (slack.radius * mid_scale.size[:, None] * reach[:, head:])[:, None]
        score[:, self.p] = (of_p / reach[:, :, None]).max(axis=1)
        halvings = self._unknown(low, high)
        share = np.minimum(1.0, LEVEL * halvings / halvings.max(axis=1, keepdims=True))
        score = np.where(halvings > 0.0, score * share, -1.0)
        failed = ~np.isfinite(score).all(axis=1)
        score[failed] = halvings[failed]
        score[~failed, self.s] = -1.0
        known(self.w, K[:, :head])
        known(self.v, K[:, head:])
        return score

    def _by_sigma(self, v: Balls) -> tuple[Balls, Balls]:
        """The derivatives in σ of the equations and of their Jacobian: Kv and K in their last rows."""
        system, head = self.system, self.head
        shape = head + self.n, head + self.n
        turned = Balls(np.zeros(shape), np.zeros(shape))
        turned.center[head:, head:], turned.radius[head:, head:] = _ends(system.K)
        nothing = Balls.exact(np.zeros((len(v.center), head)))
        return _joined(nothing, applied(system.K, v)), turned

    def _by_t(self, w: Balls, v: Balls, slack: Balls) -> tuple[Balls, Balls]:
        """Those in t: of κ in −κX_2ᵀv − p(κv), or of (1 − t)w'."""
        system, head, r = self.system, self.head, self.system.r
        shape = len(v.center), head + self.n, head + self.n
        turned = Balls(np.zeros(shape), np.zeros(shape))
        if not self.divided:
            turned.center[:, np.arange(r), np.arange(r)] = -1.0
            return _joined(-w[:, :r], Balls.exact(np.zeros((shape[0], shape[1] - r)))), turned
        rows = transposed(system.X)[r:]
        turned.center[:, r:head, head:], turned.radius[:, r:head, head:] = _ends(-rows)
        own = head + np.arange(self.n)
        turned.center[:, own, own], turned.radius[:, own, own] = _ends(slack)
        nothing = Balls.exact(np.zeros((shape[0], r)))
        return _joined(nothing, -applied(rows, v), slack * v), turned

    def _left(self, w: Balls, v: Balls, sigma: Balls, beyond: Balls, scale: Balls, p: Balls) -> Balls:
        """The equations (B, head + n), their left sides less their right ones."""
        system, r = self.system, self.system.r
        rows = applied(transposed(system.X), v)
        of_w = w[:, :r] + rows[:, :r] if self.divided else -(_column(beyond) * w[:, :r] + rows[:, :r])
        others = w[:, r:].times(system.decayed[r:]) - _column(scale) * rows[:, r:]
        of_p = applied(system.X, w) + _column(sigma) * applied(system.K, v) - p
        return _joined(of_w, others, of_p)

    def _jacobian(self, sigma: Balls, beyond: Balls, scale: Balls, slack: Balls) -> Balls:
        """Of these in (w, v), with −∂p/∂γ (B, n)."""
        system, head, r = self.system, self.head, self.system.r
        if not self.divided:
            one = Balls.exact(np.ones_like(beyond.center))
            return system.jacobian(sigma, one + beyond, slack)
        moved = Interval(scale.lower[:, None], scale.upper[:, None]) * Interval(slack.lower, slack.upper)
        J = system.jacobian(sigma, scale.times(0.0), Balls.between(*_both(moved)))
        J.center[:, :r, head:] *= -1.0
        others = _cube(-scale) * transposed(system.X)[None, r:]
        J.center[:, r:head, head:], J.radius[:, r:head, head:] = _ends(others)
        return J

    def _unknown(self, low: Array, high: Array) -> Array:
        """How large boxes are of which Krawczyk's operator says nothing: in halvings of s, t, σ and ℓ''."""
        score = self.widths(low, high)
        slack = self.system.slack(Balls.between(low[:, self.p], high[:, self.p]))
        varied = np.fmin(np.nan_to_num(np.log2(slack.upper / slack.lower), nan=MOST_VARIED), MOST_VARIED)
        score[:, self.p] = np.where(slack.lower > 0.0, varied, MOST_VARIED)
        return score

    def _by_equations(
        self, low: Array, high: Array, index: Ints
    ) -> tuple[Bools, list[tuple[Array, Array, Array]]]:
        """Krawczyk's operator for (w, γ) in these alone: where nothing is left, and the zeros."""
        a, z = low[np.ix_(index, self.wv)], high[np.ix_(index, self.wv)]
        scale = self._scale(low[index], high[index])
        gamma = scale * Interval(a[:, self.head :], z[:, self.head :])
        a[:, self.head :], z[:, self.head :] = gamma.lower, gamma.upper
        K, settled, found = by_krawczyk(self.system, a, z, self.head)
        low[index, self.w], high[index, self.w] = (
            np.fmax(a, K.lower)[:, : self.head],
            np.fmin(z, K.upper)[:, : self.head],
        )
        there = quotient(Interval(K.lower[:, self.head :], K.upper[:, self.head :]), scale)
        low[index, self.v] = np.fmax(low[index, self.v], there.lower)
        high[index, self.v] = np.fmin(high[index, self.v], there.upper)
        return settled, found


def orthonormal_rows(x: Array) -> tuple[Balls, Balls] | None:
    """x = X'Qᵀ with an orthonormal Q, for fewer rows than columns: (n, n) and (d1, n).

    Returns:
        None where the rows may be dependent.
    """
    n = len(x)
    X, Q = Balls(np.zeros((n, n)), np.zeros((n, n))), []
    for i, row in enumerate(x):
        rest = Balls.exact(row)
        for j, q in enumerate(Q):
            along = (rest * q).sum()
            X.center[i, j], X.radius[i, j] = along.center, along.radius
            rest = rest - q * Balls(np.full_like(row, along.center), np.full_like(row, along.radius))
        square = rest.square().sum()
        if not square.lower > 0.0:
            return None
        length = Balls.between(
            np.sqrt(square.lower) * (1.0 - 4.0 * U), np.sqrt(square.upper) * (1.0 + 4.0 * U)
        )
        X.center[i, i], X.radius[i, i] = length.center, length.radius
        inverse = length.reciprocal()
        Q.append(rest * Balls(np.full_like(row, inverse.center), np.full_like(row, inverse.radius)))
    return X, stacked(Q)


def applied(A: Balls, x: Balls) -> Balls:
    """A x for a matrix A (i, j) and x (B, j)."""
    return product(x[:, None, :], transposed(A))[:, 0]


def _outer(x: Balls, y: Balls) -> Balls:
    return x[:, :, None] * y[:, None, :]


def _column(x: Balls) -> Balls:
    return x[:, None]


def _joined(*parts: Balls) -> Balls:
    return Balls(
        np.concatenate([part.center for part in parts], axis=-1),
        np.concatenate([part.radius for part in parts], axis=-1),
    )


def _ends(x: Balls) -> tuple[Array, Array]:
    return x.center, x.radius


def quotient(x: Interval, y: Interval) -> Interval:
    """x/y, where y ≥ 0 or y ≤ 0 may be 0 as well: x = qy then says of a positive x that |q| ≥ x/sup |y|."""
    found = x / y
    rising, falling = (y.lower >= 0.0) & (y.upper > 0.0), (y.upper <= 0.0) & (y.lower < 0.0)
    far = np.where(rising, y.upper, np.where(falling, -y.lower, np.inf))
    low = np.where(x.lower > 0.0, np.nextafter(x.lower / far, 0.0), -np.inf)
    high = np.where(x.upper < 0.0, np.nextafter(x.upper / far, 0.0), np.inf)
    low, high = np.where(falling, -high, low), np.where(falling, -low, high)
    known = rising | falling
    return Interval(
        np.where(known, np.fmax(found.lower, low), found.lower),
        np.where(known, np.fmin(found.upper, high), found.upper),
    )


def _both(x: Interval) -> tuple[Array, Array]:
    return x.lower, x.upper


def _ball(x: Interval) -> Balls:
    """(B,) of (B, 1)."""
    return Balls.between(x.lower[:, 0], x.upper[:, 0])


def _cube(x: Balls) -> Balls:
    return x[:, None, None]
