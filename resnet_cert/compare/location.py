"""Where the minimiser of a convex function is, and how low its minimum can be, seen from any point Û.

L = Φ + λ/2(‖W‖_F² − r²), Φ = F_lin + ½Σ ρ_j‖W_j‖² + P (`linear_objective`).  Where the curvature of L is at
least m around Û, in any coordinates, L ≥ L(Û) − ‖∇L(Û)‖²/(2m) wherever L is convex.  The minimiser W* of
least norm on the ball has L(W*) ≤ L(Û) + c, c = λ/2(r² − ‖Ŵ‖²), so that (m/2)δ² ≤ ‖∇L(Û)‖δ + c for its
distance δ from Û, if m holds that far.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np

from resnet_cert.compare.design import doubled_product
from resnet_cert.compare.linear_objective import Enclosed, LinearObjective
from resnet_cert.numerics.eigenvalues import smallest_eigenvalue
from resnet_cert.numerics.enclosure import Ball, Enclosure, added, product
from resnet_cert.numerics.radius import NOTHING, Array, Radius, U, gamma

ZERO = Enclosure.exact(0.0)
GROWTH = 2.0
"""The curvature changes by no more than this factor between Û and the minimiser, where that is claimed."""


@dataclass(frozen=True)
class Located:
    """L around Û: its curvature is at least m as far as `distance`, within which the minimiser lies.

    In coordinates U or in W; stretch: a distance in them is at most so much as long in W.  slope: ‖∇L(Û)‖.
    offset: P(W*) at most.
    """

    m: float
    slope: Enclosure
    distance: float
    stretch: float
    offset: Enclosure = ZERO

    @property
    def drop(self) -> Enclosure:
        """How far below L(Û) the minimum of Φ + λ/2(‖W‖² − r²) without P can lie."""
        return self.slope.square() / (2.0 * self.m) + self.offset

    @property
    def distance_in_W(self) -> float:
        return (Enclosure.exact(self.distance) * self.stretch).upper

    @property
    def curvature_in_W(self) -> float:
        return (Enclosure.exact(self.m) / Enclosure.exact(self.stretch).square()).lower


def predictor(objective: LinearObjective, point: Array) -> Ball:
    """U Tᵀ (q, d).

    In doubled precision it is off by ‖U‖‖T‖_F·2^-90 or so: a column counts as it is long in T.
    """
    design = objective.design
    if design.R is not None:
        W, error = doubled_product(point, design.T.T)
        return Ball(W, error.sum())
    W = point * design.units
    is_exact = np.array_equal(W / design.units, point)
    return Ball(W, NOTHING if is_exact else Radius.of(math.sqrt(W.size) * 2.0**-1021))


def in_coordinates(objective: LinearObjective, rows: Array) -> Ball:
    """rows·T, (m, d)."""
    design = objective.design
    if design.R is None:
        return product(rows, design.T)
    center, error = doubled_product(rows, design.T)
    return Ball(center, error.sum())


def weighted(W: Ball, column: Array) -> Ball:
    """W·diag(column), columns ≥ 0."""
    if not column.any():
        return Ball.exact(np.zeros_like(W.center))
    center = W.center * column
    rounding = Radius.norm(center) * U + Radius.underflow(center.size)
    return Ball(center, W.radius * float(np.max(column)) + rounding)


def by_curvature(
    objective: LinearObjective, point: Array, lam: float, at: Enclosed, c: Enclosure, r: float
) -> Located | None:
    """In the coordinates U, by the least eigenvalue of the Hessian; None where that is not positive."""
    if at.blocks is None and at.least is None:
        return None
    T, W, unseen = objective.design.T, predictor(objective, point), objective.unseen_at(lam)
    decay = objective.ridge + lam
    stretch = float(Radius.norm(T))
    slope, pull, offset = at.slope, ZERO, ZERO
    rows, off = [np.sqrt(decay)[:, None] * T], NOTHING
    if decay.any():
        slope = added(slope, product(weighted(W, decay), T))
    reach = r if math.isfinite(r) else (2.0 * W.norm() + 1.0).upper
    if unseen is not None:
        seen = in_coordinates(objective, unseen.Z.T)
        rows.append(seen.center)
        off = seen.radius
        slope = added(slope, product(product(point, seen.T), seen))  # WZ = U(ZᵀT)ᵀ, which cancels less
        image = Enclosure.exact(unseen.sine) * reach  # ‖W*Z‖ at most
        pull, offset = image * seen.norm(), image.square() * 0.5
    A = np.concatenate(rows)
    size = Radius.norm(A)
    off = off + size * (2.0 * U)
    error = size * off * 2.0 + off * off + size * size * gamma(len(A) + 2) + Radius.underflow(A.size * len(T))
    kappa = math.inf
    if at.blocks is None:
        Ks = [_shifted(cast(Ball, at.least), A.T @ A, error)]
        if objective.is_mean_free:
            kappa = size_of(Ks[0])
            slope = added(slope, _mean_push(kappa, point))
    elif objective.is_mean_free:
        kappa = size_of(at.blocks[0])
        Ks = [_with_mean_penalty(at.blocks[0], A.T @ A, error, kappa, objective.q)]
        slope = added(slope, _mean_push(kappa, point))
    else:
        Ks = [_shifted(block, A.T @ A, error) for block in at.blocks]
    m0 = min(kappa, *(smallest_eigenvalue(K).lower for K in Ks))
    steep = slope.norm() + pull
    if not (m0 > 0.0 and math.isfinite(steep.upper)):
        return None
    found = reached(objective, point, steep, c, m0, float(at.farthest))
    if found is None:
        return None
    located = Located(found[0], steep, found[1], stretch, offset)
    # Where r is infinite the ball of radius `reach` stood for the whole space.
    inside = unseen is None or math.isfinite(r) or (W.norm() + located.distance_in_W).upper < reach
    return located if inside else None


def _shifted(block: Ball, more: Array, error: Radius) -> Ball:
    K = block.center + more
    return Ball(K, block.radius + error + Radius.norm(K) * (2.0 * U))


def size_of(K: Ball) -> float:
    """κ of P = κ/2‖ΠU‖_F²: a power of two of the size of K's eigenvalues."""
    return 2.0 ** math.frexp(float(np.trace(K.center)) / len(K.center) or 1.0)[1]


def _mean_push(kappa: float, point: Array) -> Ball:
    """∇P."""
    q = len(point)
    lost = Radius.underflow(q * point.size) if point.any() else NOTHING
    return Ball(
        kappa * (np.full((q, q), 1.0 / q) @ point), (Radius.norm(point) * gamma(q + 4) + lost) * kappa
    )


def _with_mean_penalty(block: Ball, more: Array, error: Radius, kappa: float, q: int) -> Ball:
    d = len(more)
    K = block.center + np.kron(np.eye(q), more) + np.kron(np.full((q, q), kappa / q), np.eye(d))
    rounding = Radius.norm(K) * (8.0 * U) + Radius.of(kappa) * (8.0 * U * math.sqrt(q * d))
    return Ball(K, block.radius + error + rounding)


def reached(
    objective: LinearObjective, point: Array, slope: Enclosure, c: Enclosure, m0: float, farthest: float
) -> tuple[float, float] | None:
    """m and the root δ of (m/2)δ² = slope·δ + c, where m ≥ m0/GROWTH holds as far as q > δ.

    By self-concordance m0·e^{−Mq·max‖z‖}; where that is not known, m0 − qT, T = max sup|ℓ‴|·‖z‖³.
    """
    M = objective.design.problem.loss.concordance
    base = ((slope + (slope.square() + c * (2.0 * m0)).sqrt()) / m0).upper
    for factor in (1.0 + 2.0**-20, 1.1, GROWTH):
        q = base * factor + 2.0**-1000
        if M is not None:
            m = m0 * _falling(Enclosure.exact(q) * M * farthest)
        else:
            m = (m0 - Enclosure.exact(q) * float(objective.largest_third(point, q))).lower
        if not m >= m0 / GROWTH:
            return None
        delta = ((slope + (slope.square() + c * (2.0 * m)).sqrt()) / m).upper
        if delta < q:
            return m, delta
    return None


def _falling(x: Enclosure) -> float:
    """e^{−x}, rounded down."""
    if x.upper == 0.0:
        return 1.0
    return math.exp(-x.upper) * (1.0 - 2.0**-40) if x.upper < 700.0 else 0.0


def by_multiplier(slope: Enclosure, lam: float, c: Enclosure) -> Located | None:
    """In W itself, where the curvature of L is at least λ everywhere; slope: ‖∇L‖ there."""
    if not (lam > 0.0 and math.isfinite(slope.upper)):
        return None
    distance = ((slope + (slope.square() + c * (2.0 * lam)).sqrt()) / lam).upper
    return Located(lam, slope, distance, 1.0)


def is_steady(objective: LinearObjective, at: Enclosed, distance: float) -> bool:
    """Proven: ∇²F_lin grows by no more than GROWTH within so far of Ŵ."""
    M = objective.design.problem.loss.concordance
    if M is None or not math.isfinite(distance):
        return False
    return _falling(Enclosure.exact(distance) * M * float(at.farthest_x)) >= 1.0 / GROWTH


def across_the_boundary(
    r: float, lam: float, located: Located, m: float, length: Enclosure, bend: float
) -> float:
    """A distance of W* from Ŵ of the order r − ‖Ŵ‖, for an active constraint.

    Ŵ is within `first` of the minimiser v of Φ + λ/2‖W‖², which is that on the ball of its own radius ρ.
    With ∇Φ(v) = −λv, ∇Φ(W*) = −λ*W*, and m a lower bound of the curvature of Φ + λ/2‖W‖² between them, Δ =
    ‖W* − v‖ has mΔ² ≤ (λ − λ*)⟨W*, W* − v⟩ = (λ − λ*)(r² − ρ² + Δ²)/2, and λ*r ≥ λρ − MΔ for ∇Φ M-Lipschitz.
    So, with e = r − ρ ≥ 0: mΔ² ≤ (λe + MΔ)/r·(e(r + ρ) + Δ²)/2.  Knowing Δ ≤ Δ_0, where s = (λe + MΔ_0)/(2r)
    ≤ m/2: (m − s)Δ² ≤ λe² + MeΔ.

    Args:
        bend: M.
    """
    first = located.slope * 2.0 / located.m * located.stretch
    e = Enclosure.exact(r) - length + first
    if not (math.isfinite(bend) and m > 0.0 and r > 0.0):
        return math.inf
    if not (Enclosure.exact(r) - length - first).lower >= 0.0:
        return math.inf
    wide = Enclosure.exact(located.distance_in_W) + first
    left = (Enclosure.exact(m) - (e * lam + wide * bend) / (2.0 * r)).lower
    if not left >= 0.5 * m:
        return math.inf
    Me = e * bend
    delta = (Me + (Me.square() + 4.0 * left * lam * e.square()).sqrt()) / (2.0 * left)
    return (delta + first).upper
