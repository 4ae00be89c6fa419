"""min F_lin over ‖W‖_F ≤ r from a guess, by Newton's method on the conditions of a minimum, in 256 bits.

The guess only saves time: what comes out is proven by convexity, for any U in the ball
F_lin(U) ≥ min ≥ F_lin(U) − ⟨g, U⟩ − r‖g‖.
"""

from __future__ import annotations

from flint import arb, arb_mat, ctx
from heads import BITS, Array, HeadTruth
from linear_heads import LinearTruth
from oracle_algebra import Vector, dot, norm

NEGLIGIBLE = 2.0**-150


def polished(truth: HeadTruth, r: float, guess: Array, lam: float) -> LinearTruth:
    """The minimum and its minimiser of least norm.

    Args:
        guess: (q, d) about W*.  lam: about its multiplier; 0 where it is inside the ball, or next to it.
    """
    with ctx.workprec(BITS):
        size, d = guess.size, guess.shape[1]
        w, active = [arb(float(e)) for e in guess.ravel()], lam > NEGLIGIBLE
        multiplier = arb(lam) if active else arb(NEGLIGIBLE)
        for _ in range(40):
            _, g, H = truth.linear([w[a * d : (a + 1) * d] for a in range(truth.q)])
            residual = [(gi + multiplier * wi).mid() for gi, wi in zip(g, w, strict=True)]
            rows = [
                [(H[i][j] + (multiplier if i == j else 0)).mid() for j in range(size)]
                + ([w[i]] if active else [])
                for i in range(size)
            ]
            right = [-e for e in residual]
            if active:
                rows.append([*w, arb(0)])
                right.append(((arb(r) ** 2 - dot(w, w)) / 2).mid())
            step = arb_mat(rows).solve(arb_mat([[e] for e in right]), algorithm="approx").entries()
            w = [(wi + s).mid() for wi, s in zip(w, step[:size], strict=True)]
            if active:
                multiplier = (multiplier + step[size]).mid()
            if norm(list(step[:size])) < arb(2) ** -120 * (norm(w) + arb(2) ** -100):
                break
        return LinearTruth(_proven(truth, w, r, d), w, active)


def _proven(truth: HeadTruth, w: Vector, r: float, d: int) -> arb:
    if not norm(w) <= r:
        shrink = arb(r) / norm(w) * (1 - arb(2) ** (20 - BITS))
        w = [(e * shrink).mid() for e in w]
    value, g, _ = truth.linear([w[a * d : (a + 1) * d] for a in range(truth.q)])
    lower = value - dot(g, w) - arb(r) * norm(g)
    return lower.union(value)
