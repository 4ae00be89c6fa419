"""Designs of any condition number and scale, and the minimum of F_lin on them in 700 bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from flint import arb, arb_mat, ctx
from heads import Array, derivatives

PRECISION = 700


def design(rng: np.random.Generator, n: int, d: int, cond: float, scale: float) -> Array:
    """(n, d), with singular values from scale to scale/cond, evenly spaced in their logarithms."""
    left = np.linalg.qr(rng.normal(size=(n, d)))[0]
    right = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return (left * np.geomspace(1.0, 1.0 / cond, d)) @ right * scale


def of_a_kind(rng: np.random.Generator, n: int, d: int, cond: float, scale: float) -> Array:
    """(n, d), ill-conditioned as people's tables are: columns of all sizes, two that are nearly equal, or one
    far from zero beside an intercept."""
    x = rng.normal(size=(n, d))
    match rng.choice(["columns", "pair", "intercept"]):
        case "columns":
            x *= np.geomspace(1.0, 1.0 / cond, d)
        case "pair":
            x[:, 1] = x[:, 0] + x[:, 1] / cond
        case _:
            x[:, 0] += cond
            x[:, -1] = 1.0
    return x * scale


@dataclass(frozen=True)
class Argmin:
    """inf F_lin and ‖argmin F_lin‖."""

    value: arb
    norm: arb


def argmin(x: Array, y: Array, loss: str) -> Argmin | None:
    """By Newton's method in columns scaled to 1, with steps halved until F_lin falls; None where it does not
    arrive, as where there is no minimiser."""
    (n, d), q = x.shape, y.shape[1]
    with ctx.workprec(PRECISION):
        units = [arb(2) ** -int(np.frexp(np.max(np.abs(column)))[1]) for column in x.T]
        X = [[arb(float(e)) * unit for e, unit in zip(row, units, strict=True)] for row in x]
        Y = [[arb(float(e)) for e in row] for row in y]
        size = q * d

        def at(w: list[arb]) -> tuple[arb, list[arb], list[list[arb]]]:
            F, g, H = arb(0), [arb(0)] * size, [[arb(0)] * size for _ in range(size)]
            for row, target in zip(X, Y, strict=True):
                p = [sum((w[a * d + j] * row[j] for j in range(d)), arb(0)) for a in range(q)]
                value, slope, bend = derivatives(loss, p, target, [arb(1)] * q)
                F += value / n
                for a in range(q):
                    for j in range(d):
                        g[a * d + j] += slope[a] * row[j] / n
                        for b in range(q):
                            for l in range(d):
                                H[a * d + j][b * d + l] += bend[a][b] * row[j] * row[l] / n
            if loss == "softmax":  # flat along the mean of the rows, where the gradient is 0
                for a in range(q):
                    for b in range(q):
                        for j in range(d):
                            H[a * d + j][b * d + j] += arb(1) / q
            return F, g, H

        w = [arb(0)] * size
        for _ in range(400):
            F, g, H = at(w)
            K = arb_mat([[entry.mid() for entry in row] for row in H])
            step = K.solve(arb_mat([[-e.mid()] for e in g]), algorithm="approx").entries()
            decrement = -float(sum((a * b for a, b in zip(g, step, strict=True)), arb(0)))
            if float(F) < 1e-30 and loss in ("logistic", "softmax"):
                return None
            t = arb(1)
            while float(t) > 1e-9:
                trial = [(a + t * b).mid() for a, b in zip(w, step, strict=True)]
                if at(trial)[0] <= F:
                    w = trial
                    break
                t = t / 2
            if decrement < 1e-150:
                norm = sum(((w[i] * units[i % d]) ** 2 for i in range(size)), arb(0)).sqrt()
                return Argmin(at(w)[0], norm)
    return None
