"""Random problems with several outputs, over the corners where their checker could go wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from vector_oracle import VectorSample

LOSSES = ("squared", "weighted_squared", "logistic", "softmax")
CORNERS = (
    "generic",
    "W = 0",
    "V = 0",
    "rank 1",
    "a row of zeros",
    "A_f = 0",
    "f = 0",
    "one sample",
    "weights",
    "hard labels",
)


def draw(
    seed: int,
    corner: str = "generic",
    loss: str | None = None,
    *,
    d: int | None = None,
    k: int | None = None,
    q: int | None = None,
    n: int | None = None,
) -> VectorSample:
    """A random problem of small dimensions with one of the corners."""
    rng = np.random.default_rng([seed, CORNERS.index(corner)])
    n, d, k, q = (
        int(rng.integers(low, high)) if size is None else size
        for size, low, high in ((n, 1, 7), (d, 1, 4), (k, 1, 4), (q, 1, 4))
    )
    n = 1 if corner == "one sample" else n
    loss = str(rng.choice(LOSSES)) if loss is None else loss
    x, f = rng.normal(size=(n, d)), rng.normal(size=(n, k))
    W, V = rng.normal(size=(q, d)), rng.normal(size=(d, k))
    y = rng.normal(size=(n, q))
    if loss == "logistic":
        y = rng.uniform(size=(n, q))
    if loss == "softmax":
        y = rng.dirichlet(np.ones(q), size=n)
    if corner == "hard labels" and loss in ("logistic", "softmax"):
        y = np.eye(q)[rng.integers(0, q, n)]
    omega = rng.uniform(0.0, 3.0, size=(n, q)) if loss == "weighted_squared" else None
    sample = VectorSample(x, y, f, W, V, loss, omega)
    match corner:
        case "W = 0":
            return replace(sample, W=np.zeros_like(W))
        case "V = 0":
            return replace(sample, V=np.zeros_like(V))
        case "rank 1":
            return replace(sample, W=np.outer(rng.integers(-3, 4, q), rng.integers(1, 4, d)) / 2.0)
        case "a row of zeros":
            return replace(sample, W=np.where(np.arange(q)[:, None] == 0, 0.0, W))
        case "A_f = 0":  # every sample comes with f and with −f, at V = 0
            twice = {
                name: np.concatenate([array, array])
                for name, array in (("x", x), ("y", y), ("omega", omega))
                if array is not None
            }
            return replace(sample, **twice, f=np.concatenate([f, -f]), V=np.zeros_like(V))
        case "f = 0":
            return replace(sample, f=np.zeros_like(f))
        case "weights":
            return replace(sample, probabilities=rng.dirichlet(np.ones(n)))
    return sample
