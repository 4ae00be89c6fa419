"""What the tests of every framework ask of captured arrays."""

from __future__ import annotations

from typing import Any

import numpy as np


def predictions(found: Any) -> np.ndarray:
    """W(x + V f) + c, with bypass inputs where there are some."""
    h = found.x + found.f @ found.V.T
    read = h if found.bypass is None else np.column_stack([h, found.bypass])
    return read @ found.W.T + (0.0 if found.c is None else found.c)


def assert_predicts(found: Any, outputs: Any) -> None:
    """The arrays give the network's own numbers, and say by how much they miss them."""
    outputs = np.asarray(outputs, dtype=np.float64)
    outputs = outputs.reshape(len(outputs), -1)
    np.testing.assert_allclose(predictions(found), outputs, rtol=2e-5, atol=2e-5)
    assert found.difference <= found.tolerance < 1e-2


def samples(n: int = 40, d: int = 7, q: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)).astype(np.float32), rng.integers(q, size=n)


def images(n: int = 30, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, 6, 5, 1), the channel last."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 6, 5, 1)).astype(np.float32), rng.integers(3, size=n)
