"""Trains the heads that lie beside this file: `python train.py` writes the .npz files and their specs again.

Each is a residual block with fixed features, minimised by L-BFGS from a random start in float64, as a user's
script would: what comes out is a point near a minimum, not one made to please.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax

HERE = Path(__file__).parent
Array = np.ndarray


def mixture(rng: np.random.Generator, n: int, d: int, q: int, spread: float) -> tuple[Array, Array]:
    """x (n, d) around q centres, and the labels."""
    labels = rng.integers(0, q, n)
    return rng.normal(size=(q, d))[labels] + spread * rng.normal(size=(n, d)), labels


def head_loss(name: str, p: Array, y: Array) -> tuple[float, Array]:
    """The mean loss and its gradient in p (n, q), as frameworks have it."""
    n, q = p.shape
    if name == "cross_entropy":
        onehot = np.eye(q)[y]
        return -float(np.mean((onehot * log_softmax(p, axis=1)).sum(axis=1))), (
            softmax(p, axis=1) - onehot
        ) / n
    if name == "bce_with_logits":
        t = y.reshape(n, q)
        return float(np.mean(np.logaddexp(0.0, p) - t * p)), (expit(p) - t) / (n * q)
    r = p - y.reshape(n, q)
    return float(np.mean(r**2)), 2 * r / (n * q)


def train(
    x: Array, f: Array, y: Array, q: int, loss: str, weight_decay: float, rng: np.random.Generator
) -> dict[str, Array]:
    """W, V, c at a minimum of mean loss + (λ/2)(‖W‖² + ‖c‖² + ‖V‖²)."""
    (_n, d), k = x.shape, f.shape[1]
    sizes = (q * d, d * k, q)
    start = np.concatenate([rng.normal(size=size) * 0.3 for size in sizes[:2]] + [np.zeros(q)])

    def parts(z: Array) -> tuple[Array, Array, Array]:
        W, V, c = np.split(z, np.cumsum(sizes)[:-1])
        return W.reshape(q, d), V.reshape(d, k), c

    def objective(z: Array) -> tuple[float, Array]:
        W, V, c = parts(z)
        h = x + f @ V.T
        value, slope = head_loss(loss, h @ W.T + c, y)
        gradient = [slope.T @ h, W.T @ slope.T @ f, slope.sum(axis=0)]
        flat = np.concatenate([part.ravel() for part in gradient])
        return value + 0.5 * weight_decay * float(z @ z), flat + weight_decay * z

    options = {"maxiter": 50000, "maxfun": 100000, "ftol": 0.0, "gtol": 1e-9, "maxcor": 50}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    return dict(zip(("W", "V", "c"), parts(found.x), strict=True))


def write(name: str, loss: str, weight_decay: float, epsilon: float, **arrays: Array) -> None:
    np.savez(HERE / f"{name}.npz", **arrays)
    decay = f"regularizer: {{weight_decay: {weight_decay!r}}}\n" if weight_decay else ""
    (HERE / f"{name}.yaml").write_text(
        f"version: 1\ndata: {{file: {name}.npz}}\nloss: {loss}\nnetwork: {{kind: given}}\n"
        f"point: {{file: {name}.npz}}\n{decay}epsilon: {epsilon!r}\n",
        encoding="utf-8",
    )


def main() -> None:
    rng = np.random.default_rng(20)

    def relu(x: Array, k: int, shift: float = 0.0) -> Array:
        d = x.shape[1]
        return np.maximum(x @ rng.normal(size=(d, k)) / np.sqrt(d) + 0.3 * rng.normal(size=k) + shift, 0.0)

    def point(
        name: str, x: Array, f: Array, y: Array, q: int, loss: str, decay: float, epsilon: float
    ) -> None:
        trained: dict[str, Any] = train(x, f, y, q, loss, decay, rng)
        if q == 1:
            trained = {"w": trained["W"][0], "V": trained["V"], "c": trained["c"]}
        write(name, loss, decay, epsilon, x=x, f=f, y=y.astype(np.float64), **trained)

    x, y = mixture(rng, 90, 6, 4, 1.0)
    point("softmax-decay", x, relu(x, 5), y, 4, "cross_entropy", 1e-3, 1e-4)
    x, y = mixture(rng, 120, 4, 3, 1.6)
    point("softmax", x, relu(x, 3), y, 3, "cross_entropy", 0.0, 1e-4)
    x, y = mixture(rng, 120, 3, 2, 2.5)
    point("two-classes", x, relu(x, 4), y, 1, "bce_with_logits", 0.0, 1e-4)
    x = rng.normal(size=(100, 5))
    y = np.sin(x[:, 0]) + x[:, 1] * 0.5 + 2.0 + 0.1 * rng.normal(size=100)
    point("regression", x, relu(x, 6), y, 1, "mse", 0.0, 1e-4)
    x, y = mixture(rng, 60, 4, 3, 1.0)
    point("dead-features", x, relu(x, 3, shift=-50.0), y, 3, "cross_entropy", 1e-2, 1e-4)


if __name__ == "__main__":
    main()
