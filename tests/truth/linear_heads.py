"""min F_lin over ‖W‖_F ≤ r, and min G_lin, for any head, by Newton's method on balls of 256 bits.

What comes out is proven by convexity: for any U in the ball, F_lin(U) ≥ min ≥ F_lin(U) − ⟨g, U⟩ − r‖g‖.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from flint import arb, arb_mat, ctx
from heads import BITS, Array, HeadTruth
from oracle_algebra import Matrix, Vector, dot, norm, shifted

TOWARDS_LEAST = 2.0**-150
"""λ of F_lin + λ/2‖W‖² whose minimiser stands for the least one of F_lin."""


@dataclass(frozen=True)
class LinearTruth:
    """value: a proven enclosure.  W: the minimiser (q·m), to about 40 digits.  active: on the sphere."""

    value: arb
    W: Vector
    active: bool


def minimum(truth: HeadTruth, r: float, *, extra: Array | None = None, decay: bool = False) -> LinearTruth:
    """min of F_lin, or with decay of G_lin = F_lin + l2‖W‖², over ‖W‖_F ≤ r."""
    with ctx.workprec(BITS):
        m = truth.d + (0 if extra is None else extra.shape[1])
        l2 = truth.head.l2 if decay else 0.0
        mask = np.tile(_decayed(truth, m), truth.q) if decay else np.zeros(truth.q * m)

        def at(w: Vector) -> tuple[arb, Vector, Matrix]:
            value, g, H = truth.linear([w[a * m : (a + 1) * m] for a in range(truth.q)], extra)
            if l2:
                c, on = arb(l2), [arb(float(x)) for x in mask]
                value = value + c * sum((o * x * x for o, x in zip(on, w, strict=True)), arb(0))
                g = [gi + 2 * c * o * x for gi, o, x in zip(g, on, w, strict=True)]
                H = [
                    [h + (2 * c * on[i] if i == j else 0) for j, h in enumerate(row)]
                    for i, row in enumerate(H)
                ]
            return value, g, H

        def solved(lam: arb, w: Vector) -> Vector:
            here = at(w)
            for _ in range(300):
                value, g, H = here
                g = [(gi + lam * x).mid() for gi, x in zip(g, w, strict=True)]
                value = value + lam * dot(w, w) / 2
                if norm(g) < arb(2) ** -200 * (1 + norm(w) * lam):
                    return w
                S = arb_mat(
                    [
                        [(h + (lam if i == j else 0)).mid() for j, h in enumerate(row)]
                        for i, row in enumerate(H)
                    ]
                )
                step = [-e for e in S.solve(arb_mat([[gi] for gi in g]), algorithm="approx").entries()]
                if norm(step) <= norm(w) * arb(2) ** -120:  # quadratic convergence: what is left is rounding
                    return [(x + s).mid() for x, s in zip(w, step, strict=True)]
                t = arb(1)
                while True:
                    trial = [(x + t * s).mid() for x, s in zip(w, step, strict=True)]
                    there = at(trial)
                    lower = there[0] + lam * dot(trial, trial) / 2
                    if lower <= value or float(t) < 2.0**-60:
                        break
                    t = t / 2
                if not lower < value:
                    return w if norm(g) < norm(list(there[1])) else trial
                w, here = trial, there
            return w

        # Down from λ = 1, each start near the last: to the least minimiser, or to where the ball is left.
        low = high = lam = arb(1)
        w = solved(lam, [arb(0)] * (truth.q * m)) if r > 0 else [arb(0)] * (truth.q * m)
        active = bool(norm(w) > r)
        while r > 0 and norm(w) > r:
            low = high
            high = lam = high * 16
            w = solved(lam, w)
        while r > 0 and not active and lam > TOWARDS_LEAST:
            high, low = lam, lam / 2**10
            lam = low
            w = solved(lam, w)
            active = bool(norm(w) > r)
        for _ in range(60 if active and r > 0 else 0):
            # 1/r − 1/‖W_λ‖ is nearly linear in λ: Newton on it, between a λ too small and one too large.
            excess = norm(w) - r
            if abs(float(excess)) < 1e-40 * r:
                break
            slope = -dot(w, _solution(at(w)[2], lam, w)) / norm(w)
            if excess > 0:
                low = lam
            else:
                high = lam
            newton = (lam - (norm(w) / r) * excess / slope).mid()
            lam = newton if newton > low and newton < high else ((low * high).sqrt()).mid()
            w = solved(lam, w)
        u = [x.mid() for x in w]
        if not norm(u) <= r:
            shrink = arb(r) / norm(u) * (1 - arb(2) ** (20 - BITS))
            u = [(x * shrink).mid() for x in u]
        value, g, _ = at(u)
        reach = arb(r) if active or math.isfinite(r) else 2 * norm(u)
        lower = value - dot(g, u) - reach * norm(g)
        return LinearTruth(lower.union(value), w, active)


def _decayed(truth: HeadTruth, m: int) -> Array:
    columns = np.ones(m)
    if truth.head.c is not None and not truth.head.decay_bias:
        columns[truth.d - 1] = 0.0
    return columns


def _solution(H: Matrix, lam: arb, b: Vector) -> Vector:
    """(H + λI)⁻¹b, not proven."""
    S = [[entry.mid() for entry in row] for row in shifted(H, lam)]
    return arb_mat(S).solve(arb_mat([[x] for x in b]), algorithm="approx").entries()
