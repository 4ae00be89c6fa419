"""Random heads with a seed, over the corners where a checker of stationary points could go wrong.

`margin` puts ε and μ2 within 1e−13 to 1e−1 of a point's own thresholds, on either side.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from flint import arb, ctx
from heads import LOSSES, Array, Head, HeadTruth

Generator = np.random.Generator
SCALAR = ("squared", "logistic", "pseudo_huber", "poisson")
"""Those of one output."""

CORNERS = (
    "generic",
    "W = 0",
    "W_1 = 0",
    "V = 0",
    "rank 1",
    "a row of zeros",
    "rows that sum to 0",
    "rows that nearly sum to 0",
    "A_f = 0",
    "f = 0",
    "one sample",
    "weights",
    "hard labels",
)
FAMILIES = (
    *CORNERS,
    "one input",
    "one feature",
    "W = 0 and V = 0",
    "x = 0",
    "A_f = 0 at W = 0",
    "repeated samples",
    "dependent inputs",
    "nearly dependent inputs",
    "separable",
    "counts of 0",
    "extreme scales",
    "uneven columns",
    "tiny W",
    "large predictions",
    "interpolating",
    "near minimum",
    "strict minimum",
    "saddle",
    "uneven weights",
    "scaled loss",
)
"""`CORNERS` are those of small numbers and any loss."""
BENIGN = (
    "generic",
    "one sample",
    "one input",
    "one feature",
    "W = 0",
    "V = 0",
    "W = 0 and V = 0",
    "repeated samples",
    "scaled loss",
    "strict minimum",
)
"""Families of moderate numbers, for which enclosures must be narrow."""

ONLY: dict[str, tuple[str, ...]] = {
    "separable": ("logistic", "softmax"),
    "counts of 0": ("poisson",),
    "interpolating": ("squared", "weighted_squared"),
    "near minimum": ("squared",),
    "strict minimum": ("squared",),
    "saddle": ("squared", "logistic", "pseudo_huber"),
}
"""The losses of a family that has not all of them."""


def _sizes(family: str, q: int) -> dict[str, int | bool]:
    """Those that a family asks for."""
    sizes: dict[str, dict[str, int | bool]] = {
        "one sample": {"n": 1},
        "one input": {"d1": 1},
        "one feature": {"k": 1},
        "repeated samples": {"n": 12},
        "dependent inputs": {"d1": 3},
        "nearly dependent inputs": {"d1": 3, "n": 12},
        "near minimum": {"d1": q + 1, "k": 2, "n": 12},
        "strict minimum": {"d1": q, "n": 12},
        "saddle": {"k": q, "d2": 0, "bias": False},
    }
    return sizes.get(family, {})


def draw(
    seed: int,
    corner: str = "generic",
    loss: str | None = None,
    *,
    q: int | None = None,
    d1: int | None = None,
    d2: int | None = None,
    n: int | None = None,
    k: int | None = None,
    bias: bool | None = None,
    l2: float = 0.0,
) -> Head:
    """A random problem of small dimensions of one of the families; its sizes where the family leaves them."""
    rng = np.random.default_rng([seed, FAMILIES.index(corner)])
    n, d1, k, q, d2 = (
        int(rng.integers(low, high)) if size is None else size
        for size, low, high in ((n, 1, 7), (d1, 1, 4), (k, 1, 4), (q, 1, 4), (d2, 0, 2))
    )
    bias = bool(rng.random() < 0.5) if bias is None else bias
    sizes = {"n": n, "d1": d1, "k": k, "d2": d2, "bias": bias} | _sizes(corner, q)
    n, d1, k, d2, bias = sizes.values()
    loss = str(rng.choice(ONLY.get(corner, LOSSES))) if loss is None else loss
    W, V = rng.normal(size=(q, d1 + d2)), rng.normal(size=(d1, k))
    x, f, y = rng.normal(size=(n, d1)), rng.normal(size=(n, k)), rng.normal(size=(n, q))
    if loss == "logistic":
        y = rng.uniform(size=(n, q)) if q > 1 else rng.integers(0, 2, (n, 1)).astype(float)
    if loss == "softmax":
        y = rng.dirichlet(np.ones(q), size=n)
    if loss == "poisson":
        y = rng.poisson(1.5, (n, q)).astype(float)
    if corner == "hard labels" and loss in ("logistic", "softmax"):
        y = np.eye(q)[rng.integers(0, q, n)]
    head = Head(
        x,
        y,
        f,
        W,
        V,
        loss,
        c=rng.normal(size=q) if bias else None,
        bypass=rng.normal(size=(n, d2)) if d2 else None,
        omega=rng.uniform(0.0, 3.0, size=(n, q)) if loss == "weighted_squared" else None,
        l2=l2,
        decay_bias=bool(rng.random() < 0.5),
    )
    return _cornered(head, corner, rng)


def _cornered(head: Head, corner: str, rng: Generator) -> Head:
    x, y, f, W, V, bypass = head.x, head.y, head.f, head.W, head.V, head.bypass
    (n, d1), d2, q, no_V = x.shape, W.shape[1] - x.shape[1], head.q, np.zeros_like(V)
    match corner:
        case "W = 0":
            return head.at_zero
        case "W = 0 and V = 0":
            return replace(head.at_zero, V=no_V)
        case "W_1 = 0":
            return replace(head, W=np.where(np.arange(d1 + d2) < d1, 0.0, W))
        case "V = 0":
            return replace(head, V=no_V)
        case "rank 1":
            return replace(head, W=np.outer(rng.integers(-3, 4, q), rng.integers(1, 4, d1 + d2)) / 2.0)
        case "a row of zeros":
            return replace(head, W=np.where(np.arange(q)[:, None] == 0, 0.0, W))
        case "rows that sum to 0" | "rows that nearly sum to 0":
            W = np.round(W * 8.0) / 8.0
            W[-1] = -W[:-1].sum(axis=0)
            if corner == "rows that nearly sum to 0":
                W[-1] += 10.0 ** rng.uniform(-17, -4) * rng.normal(size=d1 + d2)
            return replace(head, W=W)
        case "A_f = 0" | "A_f = 0 at W = 0":  # every sample comes with f and with −f
            twice = _of_samples(head, np.tile(np.arange(n), 2))
            twice = replace(twice, f=np.concatenate([f, -f]))
            return replace(twice, V=no_V) if corner == "A_f = 0" else twice.at_zero
        case "f = 0":
            return replace(head, f=np.zeros_like(f))
        case "x = 0":
            return replace(head, x=np.zeros_like(x))
        case "weights":
            return replace(head, probabilities=rng.dirichlet(np.ones(n)))
        case "uneven weights":
            weights = 10.0 ** rng.uniform(-12, 0, n)
            return replace(head, probabilities=weights / weights.sum())
        case "scaled loss":
            return replace(head, scale=float(rng.choice([2.0, 0.25, 1.0 / 3.0, 1e3, 1e-5])))
        case "repeated samples":
            return _of_samples(head, rng.integers(0, 3, n))
        case "dependent inputs" | "nearly dependent inputs":
            x = x.copy()
            x[:, -1] = x[:, 0] * rng.choice([0.0, 1.0, -2.0])
            if corner != "dependent inputs":
                x[:, -1] = x[:, 0] + 10.0 ** rng.uniform(-12, -3) * rng.normal(size=n)
            return replace(head, x=x)
        case "separable":
            p = head.inputs @ rng.normal(size=(q, head.head.shape[1])).T
            hard = np.eye(q)[np.argmax(p, axis=1)] if head.loss == "softmax" else (p > 0.0).astype(float)
            return replace(head, y=hard)
        case "counts of 0":
            return replace(head, y=np.where(rng.random(y.shape) < 0.8, 0.0, y))
        case "tiny W":
            tiny = rng.choice([1e-8, 1e-150])
            return replace(head, W=W * tiny, c=None if head.c is None else head.c * tiny)
        case "extreme scales":
            x_scale = 10.0 ** rng.choice([-100, -60, -20, 20, 60, 100])
            f_scale = 10.0 ** rng.choice([-50, -10, 0, 10, 50])
            return _scaled(head, np.full(d1 + d2, x_scale), np.full(V.shape[1], f_scale), turned=True)
        case "uneven columns":
            x_scale, f_scale = 10.0 ** rng.uniform(-6, 6, d1 + d2), 10.0 ** rng.uniform(-6, 6, V.shape[1])
            return _scaled(head, x_scale, f_scale, turned=rng.random() < 0.5 or head.loss == "poisson")
        case "large predictions":
            wanted = rng.uniform(50.0, 500.0) if head.loss == "poisson" else 10.0 ** rng.uniform(1, 4)
            size = wanted / np.max(np.abs(head.h @ head.head.T))
            return replace(head, W=W * size, c=None if head.c is None else head.c * size)
        case "interpolating":  # F = 0 and ∇F = 0 exactly
            parts = {"x": x, "f": f, "W": W, "V": V, "bypass": bypass, "c": head.c}
            head = replace(head, **{name: np.rint(3.0 * a) for name, a in parts.items() if a is not None})
            return replace(head, y=head.h @ head.head.T)
        case "near minimum":  # λ_min just below many exact zeros
            return _fitted(head, 10.0 ** rng.uniform(-16, -2) * rng.normal(size=y.shape))
        case "strict minimum":  # λ_min > 0
            return _fitted(head, np.zeros_like(y))
        case "saddle":  # W = 0 and ∇F ≈ 0: λ_min = (β − √(β² + 4‖A_f‖²))/2 down to −1e−12 for q = 1
            f = f * 10.0 ** rng.uniform(-6, 0)
            slope = {"squared": -y, "logistic": 0.5 - y, "pseudo_huber": -y / np.sqrt(1.0 + y**2)}[head.loss]
            V = -np.linalg.solve(slope.T @ f, slope.T @ x).T if n >= q else no_V
            return replace(head.at_zero, f=f, V=V)
    return head


def _of_samples(head: Head, rows: Array) -> Head:
    """The same point with these of its samples."""
    parts: dict[str, Any] = {"x": head.x, "y": head.y, "f": head.f}
    parts |= {"omega": head.omega, "bypass": head.bypass}
    return replace(head, **{name: array[rows] for name, array in parts.items() if array is not None})


def _scaled(head: Head, x_scale: Array, f_scale: Array, *, turned: bool) -> Head:
    """x and f in other units, W making up for it, and V if it is turned."""
    d1 = head.x.shape[1]
    return replace(
        head,
        x=head.x * x_scale[:d1],
        f=head.f * f_scale,
        W=head.W / x_scale,
        V=head.V * (x_scale[:d1, None] / f_scale) if turned else head.V,
        bypass=None if head.bypass is None else head.bypass * x_scale[d1:],
    )


def _fitted(head: Head, noise: Array) -> Head:
    """E[∇ℓ xᵀ] ≈ 0 and E[∇ℓ fᵀ] ≈ 0, by W and W_1V from least squares; y moved by `noise` afterwards."""
    d, d1 = head.head.shape[1], head.x.shape[1]
    solution = np.linalg.lstsq(np.hstack([head.inputs, head.f]), head.y, rcond=None)[0]
    W, Z = solution[:d].T, solution[d:].T
    c = None if head.c is None else W[:, -1].copy()
    V = np.linalg.pinv(W[:, :d1]) @ Z
    return replace(head, W=W[:, : head.W.shape[1]].copy(), c=c, V=V, y=head.y + noise)


def margin(truth: HeadTruth, rng: Generator) -> tuple[float, float]:
    """(ε, μ2) with ‖∇G‖ or −λ_min within a relative 1e−13 to 1e−1 of its threshold, above it or below.

    Where one of them is zero, or the numbers leave float64, ε and μ2 are plain random numbers.
    """
    off = 1.0 + rng.choice([-1.0, 1.0]) * 10.0 ** rng.uniform(-13, -1)
    plain = (10.0 ** rng.uniform(-6, 0), 10.0 ** rng.uniform(-3, 3))
    with ctx.workprec(truth.bits):
        if rng.random() < 0.5:
            epsilon = float(truth.norm.mid() * off)
            mu2 = float(truth.m.mid() ** 2 / arb(epsilon)) * 10.0 ** rng.uniform(0, 3) if epsilon else 0.0
        else:
            epsilon = float(truth.norm.mid()) * 10.0 ** rng.uniform(0, 2) or plain[0]
            mu2 = float((truth.m.mid() * off) ** 2 / arb(epsilon))
    if 1e-300 < epsilon < 1e300 and 1e-300 < mu2 < 1e300:
        return epsilon, mu2
    return plain
