"""min F_lin over ‖w‖ ≤ r, F_lin(w) = E[ℓ(wᵀx; y)], enclosed from both sides.

A linear predictor is a residual network without features, so its moments come from the same pass with k = 0:
F_lin, g = ∇F_lin and A = ∇²F_lin.  Newton's method with the ball treated exactly finds û.  What is proven
about it does not depend on how it was found:

above:  F_lin(û), ‖û‖ ≤ r checked.
below:  convexity over the ball, F_lin(û) − gᵀû − r‖g‖; where the curvature is proven positive, the minimiser
        is located, ‖w* − û‖ ≤ δ, and F_lin(û) − ‖∇L‖δ − λ‖û‖(r − ‖û‖) is sharper; 0 for a nonnegative loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from resnet_cert.compare.row_space import Unseen, unseen_directions
from resnet_cert.moments.moments import Moments, merged, moment_sums, residual
from resnet_cert.numerics.eigenvalues import largest_eigenvalue, smallest_eigenvalue
from resnet_cert.numerics.enclosure import (
    Array,
    Ball,
    Enclosure,
    U,
    frobenius,
    gamma,
    inflate,
    inner,
    norm,
    product,
    row_norms,
    upper_product,
    upper_row_norms,
)
from resnet_cert.problem.losses import BuiltinLoss
from resnet_cert.problem.problem import Problem

NEWTON_STEPS = 100
MOST_CONVERGE = 10
"""Newton steps after which it pays to ask whether w goes to infinity."""
SHORTEST = 2.0**-30
"""The least fraction of a Newton step that is tried."""
SETTLED = 1e-6
"""Relative length of a last Newton step that has arrived."""
NOISE = 2.0**-40
"""Relative rounding of a sketch, more or less."""
SEPARATION_ENTRIES = 2**24
"""The largest n·d for which a linear programme decides whether the data are separable."""


@dataclass(frozen=True)
class LinearMinimum:
    """The best linear predictor on ‖w‖ ≤ r.

    F_min: min F_lin, enclosed.  w_star: the computed minimiser and the distance δ within which the true one
    lies (infinite if not known; it is always in the ball).  F_at: F_lin(w_star.center).  attained: whether
    inf F_lin over R^d is.  lower_from: which argument gave F_min.lower.
    """

    F_min: Enclosure
    F_at: Enclosure
    w_star: Ball
    r: float
    attained: bool
    lower_from: str

    @property
    def norm(self) -> Enclosure:
        """‖w*‖, at most r."""
        return self.w_star.norm().intersect(0.0, self.r)


class Sketch(NamedTuple):
    """The value, gradient g (size,) and Hessian A (size, size) of F_lin in float64, none of it proven.

    noise: differences of values below this are rounding.
    """

    value: float
    noise: float
    g: Array
    A: Array


class ConvexFunction(Protocol):
    """F_lin as a convex function on R^size, and what is known about it.

    nonnegative: F_lin ≥ 0.
    """

    @property
    def size(self) -> int: ...

    @property
    def nonnegative(self) -> bool: ...

    def at(self, w: Array) -> Moments:
        """F_lin, ∇F_lin (as g_w) and ∇²F_lin (as A) at w, enclosed."""
        ...

    def sketch(self, w: Array) -> Sketch:
        """The same without a proof, as quickly as it can be had."""
        ...

    def third_moment(self, r: float) -> float:
        """An upper bound of |D³F_lin(w)[u, u, u]| over ‖w‖ ≤ r, ‖u‖ = 1; infinite where none is known."""
        ...

    def unseen(self) -> Unseen | None:
        """Directions along which F_lin is constant, as far as they are proven."""
        ...

    def may_be_unattained(self) -> bool:
        """inf F_lin over R^size may lie at infinity."""
        ...

    def decreases_along(self, w: Array) -> bool:
        """Proven: t ↦ F_lin(tw) decreases for ever, so that inf F_lin over R^size is not attained."""
        ...

    def is_attained(self, w: Array, at: Moments) -> bool:
        """Is inf F_lin over R^size attained, where unconstrained Newton ended at w?"""
        ...


def best_linear_predictor(problem: Problem, r: float | None, b: float) -> LinearMinimum:
    """min F_lin on ‖w‖ ≤ r; r=None: 1.01·‖argmin F_lin‖ if inf F_lin is attained, else b."""
    return minimum_on_ball(LinearObjective(problem), r, b)


def minimum_on_ball(function: ConvexFunction, r: float | None, b: float) -> LinearMinimum:
    """min F_lin on ‖w‖ ≤ r; r=None: 1.01·‖argmin F_lin‖ if inf F_lin is attained, else b."""
    attained, u, at = True, np.zeros(function.size), None
    if r is None or function.may_be_unattained():
        u = _newton(function, math.inf, u)
        at = function.at(u)
        attained = function.is_attained(u, at)
    if r is None:
        r = 1.01 * float(np.linalg.norm(u)) if attained else b
    inside = float(np.linalg.norm(u)) <= r
    if at is None or not (attained and inside):  # else û is the minimiser on the ball too
        u = _newton(function, r, u if inside else np.zeros(function.size))
        at = function.at(u)
    return _enclosed(function, u, at, r, attained)


def linear_moments(problem: Problem, w: Array) -> Moments:
    """F_lin, ∇F_lin (as g_w) and ∇²F_lin (as A) at w."""
    V = np.zeros((problem.d, 0))
    chunks = problem.chunks(features=False)
    return merged(moment_sums(problem.loss, chunk, residual(chunk, V), w) for chunk in chunks).expectation()


def _newton(function: ConvexFunction, r: float, w: Array) -> Array:
    """A minimiser of F_lin over ‖w‖ ≤ r to rounding accuracy.

    Starting from 0, every step lies in the row space of the data: of several minimisers this is the one of
    least norm.
    """
    at = function.sketch(w)
    residue = _stationarity(w, at.g, r)
    for steps in range(NEWTON_STEPS):
        if not (residue > 0.0 and math.isfinite(residue) and np.isfinite(at.A).all()):
            break
        if steps >= MOST_CONVERGE and r == math.inf and function.decreases_along(w):
            break
        step = _model_minimiser(at.A, at.g, w, r) - w
        noise, slope = at.noise, float(at.g @ step)
        size, trial, there = 1.0, w + step, function.sketch(w + step)
        while size > SHORTEST and not there.value - at.value <= 1e-4 * size * slope + noise:
            size /= 2.0
            trial = w + size * step
            there = function.sketch(trial)
        after = _stationarity(trial, there.g, r)
        if size <= SHORTEST or (size == 1.0 and after > residue / 2.0 and at.value - there.value <= noise):
            break  # rounding is all that is left
        shrunk = after / residue
        w, at, residue = trial, there, after
        if size == 1.0 and residue * shrunk**2 <= 2.0**-10 * U * frobenius(at.A) * frobenius(w):
            return _model_minimiser(at.A, at.g, w, r)  # converging quadratically, below rounding
    return w


def _stationarity(w: Array, g: Array, r: float) -> float:
    """‖∇L‖, L the Lagrangian with the best multiplier: 0 exactly at the minimiser."""
    return float(np.linalg.norm(g + _multiplier(w, g, r) * w))


def _multiplier(w: Array, g: Array, r: float) -> float:
    """λ ≥ 0 of the constraint ‖w‖ ≤ r, where w is on its boundary to rounding; else 0."""
    if not float(np.linalg.norm(w)) >= r * (1.0 - 1e-12) or not r:
        return 0.0
    return max(0.0, -float(g @ (w / r)) / r)


def _model_minimiser(H: Array, g: Array, w: Array, r: float) -> Array:
    """argmin over ‖v‖ ≤ r of gᵀ(v − w) + ½(v − w)ᵀH(v − w), of least norm; H ⪰ 0.

    v = (H + λI)⁻¹(Hw − g) with the λ ≥ 0 that solves ‖v‖ = r, by safeguarded Newton on 1/r − 1/‖v‖.
    """
    if r == 0.0:
        return np.zeros_like(w)
    step = _solution(H, g)
    if step is not None and float(np.linalg.norm(w - step)) <= r:
        return w - step
    eigenvalues, Q = np.linalg.eigh(H)
    eigenvalues = np.maximum(eigenvalues, 0.0)
    cutoff = 16.0 * len(w) * U * float(eigenvalues[-1])
    kept = eigenvalues > cutoff
    coefficients = eigenvalues * (Q.T @ w) - Q.T @ g

    def solution(lam: float) -> Array:
        denominators = eigenvalues + lam
        usable = kept if lam <= cutoff else denominators > 0.0
        return np.divide(coefficients, denominators, out=np.zeros_like(coefficients), where=usable)

    v = solution(0.0)
    if float(np.linalg.norm(v)) > r:
        low, high, lam = 0.0, float(np.linalg.norm(coefficients)) / r, 0.0
        for _ in range(200):
            length = float(np.linalg.norm(v))
            if length > r:
                low = lam
            else:
                high = lam
            if abs(length - r) <= 4 * U * r or high <= low * (1.0 + 2 * U):
                break
            slope = float(np.sum(np.divide(v * v, eigenvalues + lam, out=np.zeros_like(v), where=v != 0.0)))
            newton = lam + (length - r) / r * length**2 / slope if slope > 0.0 else high
            lam = newton if low < newton < high else (low + high) / 2.0
            v = solution(lam)
        length = float(np.linalg.norm(v))
        if length > r:
            v *= r / length
    return Q @ v


def _solution(H: Array, b: Array) -> Array | None:
    """H⁻¹b, for an H ⪰ 0 that is far enough from singular."""
    try:
        np.linalg.cholesky(H - 16.0 * len(b) * U * float(np.trace(H)) * np.eye(len(b)))
        return np.asarray(np.linalg.solve(H, b), dtype=np.float64)
    except np.linalg.LinAlgError:
        return None


def _enclosed(function: ConvexFunction, u: Array, at: Moments, r: float, attained: bool) -> LinearMinimum:
    """Everything proven about û: min F_lin from both sides, and the place of the true minimiser."""
    length = norm(u)
    if length.upper > r:  # on the boundary: step inside by the rounding error
        u = u * (r / length.upper * (1.0 - 8 * U)) if r else np.zeros_like(u)
        at, length = function.at(u), norm(u)
    g = at.g_w
    lowers = {"convexity": (at.F - inner(g, Ball(u, 0.0)) - g.norm() * r).lower}
    if function.nonnegative:
        lowers["nonnegative loss"] = 0.0
    lam = _multiplier(u, g.center, r)
    slope = Ball(
        g.center + lam * u, inflate(g.radius + 4 * U * (frobenius(g.center) + lam * frobenius(u)))
    ).norm()
    distance = _distance(function, u, at, r, lam, slope)
    if math.isfinite(distance):
        lowers["strong convexity"] = (at.F - slope * distance - lam * length * (r - length)).lower
    source = max(lowers, key=lambda name: lowers[name])
    lower = min(lowers[source], at.F.upper)
    return LinearMinimum(
        Enclosure(at.F.value, lower, at.F.upper),
        at.F,
        Ball(u, min(distance, inflate(r + length.upper))),
        r,
        attained,
        source,
    )


def _distance(
    function: ConvexFunction, u: Array, at: Moments, r: float, lam: float, slope: Enclosure
) -> float:
    """δ with ‖w* − û‖ ≤ δ for the minimiser w* of least norm on the ball; infinite if it is not proven.

    L(w) = F_lin(w) + λ/2(‖w‖² − r²) satisfies L(w*) ≤ F_lin(w*) ≤ F_lin(û) = L(û) + c, c = λ/2(r² − ‖û‖²).
    Within q of û its curvature is at least m = λ_min(∇²F_lin(û)) + λ − qT, T = E[sup|ℓ'''|·‖x‖³] there.  A
    minimiser beyond q would give, on the segment to it, (m/2)q² ≤ ‖∇L(û)‖q + c; so it is within the root δ
    of that if δ < q.  Where λ > 0 the root is of the order √(r − ‖û‖), and `_across_the_boundary` improves
    on it.

    Where the data leave directions unseen, a penalty P on them is added to F_lin.  Then
    L(w*) + P(w*) ≤ L(û) + P(û) + c + ‖∇P(w*)‖q, for P is convex: ‖∇P(w*)‖ joins ‖∇L(û)‖.
    """
    length = norm(u)
    c = (Enclosure.exact(r).square() - length.square()).positive_part() * (lam / 2.0)
    A, convexity = at.A, smallest_eigenvalue(at.A)
    may_be_flat = not convexity.lower > 0.0 and np.isfinite(A.center).all()
    unseen = function.unseen() if may_be_flat else None
    borrowed = Enclosure.exact(0.0)
    if unseen is not None:
        A, pull, borrowed = _penalised(A, u, r, unseen)
        slope, convexity = slope + pull, smallest_eigenvalue(A)
    m0 = (convexity + lam).lower
    if not m0 > 0.0:
        return math.inf
    trace = float(np.trace(at.A.center))
    near = length.upper + max(length.upper, 1.0 / math.sqrt(trace) if trace > 0.0 else 0.0)
    T = function.third_moment(r)
    delta = _root(slope, c, m0, T, math.inf)
    if delta == math.inf and near < r:  # ℓ''' may be much smaller near û than on the ball
        T = function.third_moment(near)
        delta = _root(slope, c, m0, T, (Enclosure.exact(near) - length).lower)
    if lam == 0.0 or delta == math.inf:
        return delta
    change = Enclosure.exact(T) * delta  # of the curvature, this close to û
    least, M = convexity - borrowed - change, largest_eigenvalue(A) + change
    return min(delta, _across_the_boundary(r, lam, slope, length, least, M))


def _root(slope: Enclosure, c: Enclosure, m0: float, T: float, most: float) -> float:
    """The root δ of (m/2)δ² = slope·δ + c, m = m0 − qT, if it is less than q = min(m0/(2T), most); else ∞."""
    if not math.isfinite(T):
        return math.inf
    q = min(m0 / (2.0 * T) if T > 0.0 else math.inf, most)
    m = Enclosure.exact(m0) if T == 0.0 else Enclosure.exact(m0) - Enclosure.exact(q) * T
    if not m.lower > 0.0:
        return math.inf
    delta = ((slope + (slope.square() + m * c * 2.0).sqrt()) / m).upper
    return delta if delta < q else math.inf


def _penalised(A: Ball, u: Array, r: float, unseen: Unseen) -> tuple[Ball, Enclosure, Enclosure]:
    """What P(w) = κ/2·‖Zᵀw‖² changes, κ on the scale of the least curvature that A has on the row space.

    A + κZZᵀ; ‖∇P(û)‖ + ‖∇P(w)‖ ≤ κ‖Z‖(‖Zᵀû‖ + sine·r) and its curvature κ·sine², for w of the row space in
    the ball and directions in the row space.
    """
    Z, sine = unseen.Z, Enclosure.exact(unseen.sine)
    scale = float(np.linalg.eigvalsh(A.center)[min(Z.shape[1], len(u) - 1)])
    kappa = 2.0 ** min(max(math.frexp(scale)[1], -1000), 1000) if scale > 0.0 else 1.0
    size = norm(Z)
    center = A.center + kappa * (Z @ Z.T)
    rounding = gamma(len(u) + 4) * kappa * size.upper**2 + U * frobenius(center)
    pull = (product(Z.T, Ball(u, 0.0)).norm() + sine * r) * size * kappa
    return Ball(center, inflate(A.radius + rounding)), pull, sine.square() * kappa


def _across_the_boundary(
    r: float, lam: float, slope: Enclosure, length: Enclosure, least: Enclosure, M: Enclosure
) -> float:
    """A δ of the order r − ‖û‖ for an active constraint, with curvatures of F_lin between `least` and M.

    û is within δ1 = 2‖∇L(û)‖/(least + λ) of the minimiser v on the ball of radius ρ = ‖û‖, with multiplier
    λ' ≤ λ'' := (‖∇F_lin(û)‖ + Mδ1)/ρ.  From ∇F_lin(v) = −λ'v, ∇F_lin(w*) = −λ*w* and monotonicity of ∇F_lin,
    Δ = ‖w* − v‖ has least·Δ² ≤ (λ' − λ*)(r² − ρ²)/2 − λ'Δ²/2, and λ' − λ* ≤ λ'(r/ρ − 1) + MΔ/ρ.  So, with
    e = r − ρ: least·Δ² ≤ e·r·(λ''e + MΔ)/ρ, hence Δ ≤ e·r·M/(ρ·least) + e√(rλ''/(ρ·least)).  Both v and w*
    lie in the row space; only there need F_lin be curved.
    """
    if not (least.lower > 0.0 and length.lower > 0.0):
        return math.inf
    first = slope * 2.0 / (least + lam)
    multiplier = (slope + length * lam + M * first) / length
    e = (r - length).positive_part()
    ratio = r / (length * least)
    return (first + e * ratio * M + e * (ratio * multiplier).sqrt()).upper


def is_located(function: ConvexFunction, w: Array, at: Moments) -> bool:
    """Proven: inf F_lin over R^size is attained, near w: the minimiser on a larger ball lies inside."""
    length = norm(w)
    reach = 2.0 * length.upper + 1.0
    return _distance(function, w, at, reach, 0.0, at.g_w.norm()) < length.upper + 1.0


def some_direction_helps(rows: Array, fixed: Array) -> bool:
    """max Σ rows_i·u subject to 0 ≤ rows_i·u ≤ 1 and fixed·u = 0 is positive, by HiGHS.

    Its tolerances are absolute: every column is scaled to 1, which only changes the units of u.
    """
    from scipy.optimize import linprog

    largest = np.max(np.abs(np.concatenate([rows, fixed])), axis=0, initial=0.0)
    units = np.where(largest > 0.0, largest, 1.0)
    rows, fixed = rows / units, fixed / units
    result = linprog(
        -rows.sum(axis=0),
        A_ub=np.concatenate([-rows, rows]),
        b_ub=np.concatenate([np.zeros(len(rows)), np.ones(len(rows))]),
        A_eq=fixed if len(fixed) else None,
        b_eq=np.zeros(len(fixed)) if len(fixed) else None,
        bounds=(None, None),
    )
    return bool(result.status == 0 and -result.fun > 1e-7)


@dataclass(frozen=True)
class LinearObjective:
    """F_lin(w) = E[ℓ(wᵀx; y)] of a problem."""

    problem: Problem

    @property
    def size(self) -> int:
        return self.problem.d

    @property
    def nonnegative(self) -> bool:
        return self.problem.loss.nonnegative

    def at(self, w: Array) -> Moments:
        return linear_moments(self.problem, w)

    def sketch(self, w: Array) -> Sketch:
        value, size, total, g, A = 0.0, 0.0, 0.0, np.zeros_like(w), np.zeros((len(w), len(w)))
        for chunk in self.problem.chunks(features=False):
            p = chunk.x @ w
            at = self.problem.loss.derivatives(p, np.zeros_like(p), chunk.y)
            pi = np.ones_like(p) if chunk.weight is None else chunk.weight
            value += float(pi @ at.value)
            size += float(pi @ np.abs(at.value))
            total += float(np.sum(pi))
            g += (pi * at.first) @ chunk.x
            weighted = np.sqrt(np.maximum(pi * at.second, 0.0))[:, None] * chunk.x
            A += weighted.T @ weighted
        return Sketch(value / total, NOISE * size / total, g / total, A / total)

    def third_moment(self, r: float) -> float:
        def parts() -> Iterator[tuple[Array | None, Array, Array | None]]:
            for chunk in self.problem.chunks(features=False):
                x_norm = upper_row_norms(chunk.x)
                suprema = self.problem.loss.suprema(upper_product(r, x_norm) * (1.0 + 2.0**-48), chunk.y)
                yield None if suprema is None else suprema[2], x_norm, chunk.weight

        return mean_third_moment(parts())

    def unseen(self) -> Unseen | None:
        return unseen_directions(lambda: (chunk.x for chunk in self.problem.chunks(features=False)))

    def may_be_unattained(self) -> bool:
        """A custom loss, or some sample's loss stays bounded towards one side."""
        return not self._is_builtin() or any(side.any() for _, side in self._rows())

    def is_attained(self, w: Array, at: Moments) -> bool:
        """It is if no loss is flat on a side, or if the minimiser is located near w.

        It is not if some direction u never hurts and sometimes helps: σ_i x_iᵀu ≥ 0 for all samples (σ the
        flat side; = 0 where there is none), not all 0.  Such a direction is sought at w/‖w‖, then by a linear
        programme.  The flat sides of a custom loss are not known; there the last step of Newton tells: it
        does not shrink on the way to infinity.
        """
        if not self._is_builtin():
            step = _model_minimiser(at.A.center, at.g_w.center, w, math.inf) - w
            return float(np.linalg.norm(step)) <= SETTLED * (1.0 + float(np.linalg.norm(w)))
        if not self.may_be_unattained() or is_located(self, w, at):
            return True
        if self.decreases_along(w):
            return False
        if self.problem.n * self.problem.d > SEPARATION_ENTRIES:
            return True
        return not self._separable()

    def _is_builtin(self) -> bool:
        return isinstance(self.problem.loss, BuiltinLoss)

    def _rows(self) -> Iterator[tuple[Array, Array]]:
        for chunk in self.problem.chunks(features=False):
            yield chunk.x, self.problem.loss.flat_side(chunk.y)

    def decreases_along(self, w: Array) -> bool:
        """Proven: σ_i x_iᵀw > 0 for every sample."""
        slack = gamma(len(w)) * inflate(frobenius(w))
        return all(bool(np.all(side * (x @ w) > slack * row_norms(x) * 1.001)) for x, side in self._rows())

    def _separable(self) -> bool:
        rows, sides = zip(*self._rows(), strict=True)
        x, side = np.concatenate(rows), np.concatenate(sides)
        unit = x / (row_norms(x) + 1e-300)[:, None]
        flat = side == 0.0
        return some_direction_helps((side[:, None] * unit)[~flat], unit[flat])


def mean_third_moment(parts: Iterable[tuple[Array | None, Array, Array | None]]) -> float:
    """An upper bound of E[sup |ℓ'''| · ‖x‖³] from sup |ℓ'''|, ‖x‖, both rounded up, and π of each chunk.

    Infinite where the loss has no suprema (None).  π = None: all 1.
    """
    total = weight = 0.0
    for third, x_norm, weights in parts:
        if third is None:
            return math.inf
        pi = np.ones(len(x_norm)) if weights is None else weights
        total += float(np.sum(upper_product(third, x_norm, x_norm, x_norm, pi)))
        weight += float(np.sum(pi))
    return inflate(total / weight * (1.0 + 2.0**-30)) if total else 0.0
