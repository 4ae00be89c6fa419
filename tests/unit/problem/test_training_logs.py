"""F is the number in a training log: the frameworks' losses by their names, against values of torch 2.13.0.

The values are those of torch.nn.functional in float64 on the arrays below, which are exact in binary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from resnet_cert.numerics.radius import Radius
from resnet_cert.problem.problem import Problem

N, D1, K, Q = 7, 3, 2, 4


def pattern(rows: int, columns: int, step: int, shift: int, modulus: int, scale: int) -> np.ndarray:
    i = np.arange(rows * columns).reshape(rows, columns)
    return ((step * i + shift) % modulus - modulus // 2) / scale


X, FEATURES = pattern(N, D1, 5, 3, 17, 8), pattern(N, K, 7, 1, 13, 4)
W, V = pattern(Q, D1, 3, 2, 11, 8), pattern(D1, K, 5, 1, 7, 8)
BIAS = np.array([0.5, -0.25, 0.125, 0.0])
Y = pattern(N, Q, 3, 1, 9, 4)
SHARES = ((2 * np.arange(N * Q).reshape(N, Q) + 1) % 5) / 4.0
LABELS = np.array([0, 1, 2, 3, 1, 0, 2])
CLASS_WEIGHTS = [1.0, 5.0, 0.5, 2.0]


def soft_targets() -> np.ndarray:
    """softmax(Y), rounded to multiples of 2^-10 that sum to 1."""
    e = np.exp(Y)
    soft = np.round(e / e.sum(axis=1, keepdims=True) * 1024) / 1024
    soft[:, 0] += 1.0 - soft.sum(axis=1)
    return soft


def F(loss: Any, y: np.ndarray, *, one: bool = False) -> float:
    """E[ℓ] of the problem that arrays and a loss's name make."""
    head, bias = (W[:1], BIAS[:1]) if one else (W, BIAS)
    problem = Problem.from_arrays(x=X, y=y, f=FEATURES, W=head, V=V, c=bias, loss=loss)
    total, weights = 0.0, 0.0
    for chunk in problem.chunks():
        h = chunk.x.copy()
        h[:, :D1] += chunk.f @ problem.V.T
        p = h @ problem.W.T
        value = problem.loss.derivatives(p, Radius.of(np.zeros(len(p))), chunk.y, chunk.omega).value
        total += float(chunk.weights @ value)
        weights += float(np.sum(chunk.weights))
    return total / weights


SMOOTHED, WEIGHTED = {"label_smoothing": 0.1}, {"class_weights": CLASS_WEIGHTS}
TORCH = {
    "mse": ("mse", Y, 0.8071490696498326),
    "bce_with_logits": ("bce_with_logits", SHARES, 0.7409344274529933),
    "cross_entropy": ("cross_entropy", LABELS, 1.521809171702296),
    "softmax": ("softmax", LABELS, 1.521809171702296),
    "smoothed": ({"kind": "cross_entropy", **SMOOTHED}, LABELS, 1.5311702208094389),
    "weighted": ({"kind": "cross_entropy", **WEIGHTED}, LABELS, 1.8089706880902414),
    "both": ({"kind": "cross_entropy", **SMOOTHED, **WEIGHTED}, LABELS, 1.815373080891695),
    "soft": ("cross_entropy", soft_targets(), 1.600694931328412),
    "soft, smoothed": ({"kind": "cross_entropy", **SMOOTHED}, soft_targets(), 1.6021674044729433),
    "soft, weighted": ({"kind": "cross_entropy", **WEIGHTED}, soft_targets(), 3.881383946249026),
    "soft, both": ({"kind": "cross_entropy", **SMOOTHED, **WEIGHTED}, soft_targets(), 3.894601540789433),
}


@pytest.mark.parametrize("name", TORCH)
def test_F_is_the_number_in_the_training_log(name: str) -> None:
    loss, y, value = TORCH[name]
    assert F(loss, y) == pytest.approx(value, rel=1e-12)


def test_one_output_is_a_column_or_a_row_of_numbers() -> None:
    for y in (Y[:, 0], Y[:, :1]):
        assert F("mse", y, one=True) == pytest.approx(0.9115535191127232, rel=1e-12)
    for y in (SHARES[:, 0], SHARES[:, :1]):
        assert F("bce_with_logits", y, one=True) == pytest.approx(0.6944379316624448, rel=1e-12)


def test_soft_targets_sum_to_one_within_float32() -> None:
    e = np.exp(Y.astype(np.float32))
    soft = (e / e.sum(axis=1, keepdims=True)).astype(np.float32)
    assert 1e-9 < np.max(np.abs(soft.astype(np.float64).sum(axis=1) - 1.0)) < 1e-6
    p = ((X + FEATURES @ V.T) @ W.T) + BIAS
    log_softmax = p - np.log(np.exp(p).sum(axis=1, keepdims=True))
    formula = -float(np.mean(np.sum(soft.astype(np.float64) * log_softmax, axis=1)))
    assert F("cross_entropy", soft) == pytest.approx(formula, rel=1e-12)
