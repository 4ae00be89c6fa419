"""Every stage of the pass against 256-bit truth, and problems where float64 under- and overflows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import heads
import numpy as np
from families import draw
from flint import arb, ctx
from heads import Head, HeadTruth, balls
from oracle_algebra import Matrix, dot, norm

from resnet_cert.moments.gradient import first_moments
from resnet_cert.moments.moments import Moments, residual
from resnet_cert.moments.one_pass import observe
from resnet_cert.numerics.enclosure import Ball, Enclosure
from resnet_cert.numerics.radius import Radius
from resnet_cert.numerics.sums import Blocks
from resnet_cert.problem.problem import Problem

Array = np.ndarray


def holds(enclosure: Enclosure, truth: arb) -> bool:
    """Not proven to be wrong."""
    return not (truth < arb(enclosure.lower) or truth > arb(enclosure.upper))


def holds_ball(ball: Ball, truth: Any) -> bool:
    """Is the true array within the radius (Frobenius norm)?"""
    if not ball.radius.known:
        return True
    entries = np.array(truth, dtype=object).reshape(-1)
    assert len(entries) == ball.center.size
    if not len(entries):
        return True
    off = [arb(float(mine)) - entry for mine, entry in zip(ball.center.ravel(), entries, strict=True)]
    return not norm(off) > arb(float(ball.radius))


def holds_operator(ball: Ball, truth: Matrix) -> bool:
    """The same for a symmetric matrix and the spectral norm."""
    if holds_ball(ball, truth):
        return True
    off = [
        [arb(float(m)) - t for m, t in zip(*rows, strict=True)]
        for rows in zip(ball.center, truth, strict=True)
    ]
    size = norm([entry for row in off for entry in row])
    scaled = np.array([[float((entry / size).mid()) for entry in row] for row in off])
    return not bool(size * arb(np.linalg.norm(scaled, 2) * (1 - 1e-12)) > arb(float(ball.radius)))


def true_curvature(truth: HeadTruth, *, with_f: bool) -> Matrix:
    """Q over R^{q×m}, row by row."""
    features, q = balls(truth.head.f), truth.q
    z = [h + (list(f) if with_f else []) for h, f in zip(truth.h, features, strict=True)]
    m = len(z[0])
    whole = [[arb(0)] * (q * m) for _ in range(q * m)]
    for pi, row, (_, _, bend) in zip(truth.weights, z, truth.parts, strict=True):
        for a in range(q):
            for b in range(q):
                for i in range(m):
                    for j in range(m):
                        whole[a * m + i][b * m + j] += pi * bend[a][b] * row[i] * row[j]
    return whole


def missed_moments(ours: Moments, truth: HeadTruth, *, with_f: bool) -> list[str]:
    """The moments whose enclosure does not hold the true ones."""
    found = {
        "F": holds(ours.F, truth.F),
        "g_W": holds_ball(ours.g_W, truth.g_W),
        "A_f": holds_ball(ours.A_f, truth.A_f),
        "Q": holds_operator(ours.dense(), true_curvature(truth, with_f=with_f)),
    }
    return [name for name, held in found.items() if not held]


def missed(head: Head, problem: Problem | None = None, bits: int = heads.BITS) -> list[str]:
    """All stages of the pass whose enclosures do not hold the truth."""
    with ctx.workprec(bits):
        return _missed(head, head.problem() if problem is None else problem, HeadTruth(head, bits))


def _missed(head: Head, problem: Problem, truth: HeadTruth) -> list[str]:
    names = []
    with np.errstate(all="ignore"):
        (chunk,) = problem.chunks()
        at = residual(chunk, problem.V, Blocks(0, len(chunk.x)))
    error = np.broadcast_to(at.error.upper, len(chunk.x))
    for i, row in enumerate(truth.h):
        if not holds_ball(Ball(at.h[i], Radius.of(error[i])), row):
            names.append("h")
        for name, part, bound in (("h_norm", at.h[i], at.h_norm), ("f_norm", at.f[i], at.f_norm)):
            length = norm(balls(part)) if len(part) else arb(0)
            if length > arb(float(bound[i]) if not bound.exact else 0.0) * (1 + arb(2) ** -200):
                names.append(name)
    seen = observe(problem, 1.0)
    names += missed_moments(seen.here, truth, with_f=bool(problem.W.any()))
    names += [f"{name} at 0" for name in missed_moments(seen.origin, truth.at_zero, with_f=False)]
    first = first_moments(problem)
    if not holds(first.F, truth.F):
        names.append("first F")
    for name, ball, rows in (
        ("first g_W", first.g_W, truth.h),
        ("first A_f", first.A_f, balls(head.f)),
        ("slope_x", first.slope_x, balls(head.inputs)),
    ):
        if not holds_ball(ball, truth.mean_slope(rows)):
            names.append(name)
    return names


def true_form(truth: HeadTruth, dW: Array, dV: Array) -> arb:
    """D²F(dW, dV), from its definition: E[δpᵀ∇²ℓδp] + 2E[∇ℓᵀ dW_1 dV f]."""
    W, step, turn = balls(truth.head.head), balls(dW), balls(dV)
    whole = arb(0)
    parts = zip(truth.weights, truth.h, balls(truth.head.f), truth.parts, strict=True)
    for pi, h, f, (_, slope, bend) in parts:
        moved = [dot(row, f) for row in turn]  # dV f
        delta = [dot(s, h) + dot(w[: truth.d1], moved) for s, w in zip(step, W, strict=True)]
        second = [2 * dot(s[: truth.d1], moved) for s in step]
        whole += pi * (dot(delta, [dot(row, delta) for row in bend]) + dot(slope, second))
    return whole


SMALL = (0.0, 5e-324, 1e-310, 2.0**-1022)


def extreme(seed: int, loss: str, shape: dict[str, int] | None = None) -> Head:
    """Entries from 5e-324 to 1e300: free scales, or scales that balance each other so that p is near 1.

    shape: arguments of `families.draw` in place of drawn ones.
    """
    rng = np.random.default_rng([seed, 77])
    drawn = {"q": int(rng.integers(1, 4)), "d1": int(rng.integers(1, 3))}
    head = draw(seed, loss=loss, **(shape or drawn))
    s_x, s_f, s_V, s_W, s_y = 10.0 ** rng.uniform(-320.0, 290.0, 5)
    if rng.random() < 0.6:  # balanced
        power = rng.uniform(-150.0, 150.0, 2)
        s_x, s_f = 10.0**power
        s_V, s_W = 10.0 ** (power[0] - power[1]), 10.0 ** (-power[0])
        s_y = 1.0 if rng.random() < 0.5 else s_y
    targets = loss in ("squared", "weighted_squared", "pseudo_huber")

    def scaled(a: Array | None, scale: float) -> Array | None:
        if a is None:
            return None
        a = np.clip(a, -4.0, 4.0) * scale
        a = np.where(rng.random(a.shape) < 0.2, rng.choice(SMALL, a.shape), a)
        return np.where(rng.random(a.shape) < 0.1, a * 10.0 ** rng.uniform(-300, 0, a.shape), a)

    weights = None
    if rng.random() < 0.3:
        weights = 10.0 ** rng.uniform(-320.0, 0.0, len(head.x))
        weights[-1] = 1.0
    return replace(
        head,
        x=scaled(head.x, s_x),
        f=scaled(head.f, s_f),
        V=scaled(head.V, s_V),
        W=scaled(head.W, s_W),
        y=scaled(head.y, s_y) if targets else head.y,
        bypass=scaled(head.bypass, s_x),
        probabilities=weights / weights.sum() if weights is not None else head.probabilities,
    )
