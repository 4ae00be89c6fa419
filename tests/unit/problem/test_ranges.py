"""ℓ' and ℓ'' over ranges hold what mpmath finds inside, and are no wider than they must be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

from resnet_cert.numerics.balls import Balls
from resnet_cert.problem.losses import named_loss
from resnet_cert.problem.ranges import separable_slopes, softmax_shares

FORMULAS: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {
    "squared": (lambda p, y: p - y, lambda p, y: mpmath.mpf(1)),
    "logistic": (
        lambda p, y: 1 / (1 + mpmath.exp(-p)) - y,
        lambda p, y: 1 / ((1 + mpmath.exp(-p)) * (1 + mpmath.exp(p))),
    ),
    "pseudo_huber": (
        lambda p, y: (p - y) / mpmath.sqrt(1 + (p - y) ** 2),
        lambda p, y: (1 + (p - y) ** 2) ** mpmath.mpf(-1.5),
    ),
    "poisson": (lambda p, y: mpmath.exp(p) - y, lambda p, y: mpmath.exp(p)),
}


@pytest.mark.parametrize("loss", FORMULAS)
@pytest.mark.parametrize("width", [0.0, 1e-12, 1e-3, 1.0, 30.0])
def test_slopes_hold_every_value_inside(loss: str, width: float) -> None:
    slopes = separable_slopes(named_loss(loss))
    assert slopes is not None
    rng = np.random.default_rng(2)
    p = rng.normal(size=40) * 10.0 ** rng.integers(-3, 2, size=40)
    y = rng.choice([0.0, 1.0, 0.3], size=40) if loss == "logistic" else np.abs(rng.normal(size=40))
    with np.errstate(all="ignore"):
        at = slopes(Balls(p, np.full(40, width)), y)
    with mpmath.workdps(50):
        for i in range(40):
            for t in rng.uniform(-1.0, 1.0, size=5):
                inside = mpmath.mpf(p[i]) + mpmath.mpf(width) * mpmath.mpf(t)
                for ball, formula in zip((at.first, at.second), FORMULAS[loss], strict=True):
                    true = formula(inside, mpmath.mpf(y[i]))
                    assert abs(mpmath.mpf(ball.center[i]) - true) <= mpmath.mpf(ball.radius[i])


def test_over_a_wide_range_the_curvature_is_between_its_ends_and_its_peak() -> None:
    logistic = separable_slopes(named_loss("logistic"))
    assert logistic is not None
    second = logistic(Balls(np.array([0.0, 60.0]), np.array([50.0, 10.0])), np.ones(2)).second
    assert second.upper[0] == pytest.approx(0.25)
    assert 0.0 <= second.center[1] + second.radius[1] < 1e-21


def test_shares_of_softmax_hold_every_value_inside() -> None:
    rng = np.random.default_rng(3)
    p, width = 5.0 * rng.normal(size=(30, 4)), np.abs(rng.normal(size=(30, 4)))
    s = softmax_shares(Balls(p, width))
    with mpmath.workdps(40):
        for i in range(30):
            for _ in range(5):
                inside = [
                    mpmath.mpf(a) + mpmath.mpf(t) * b
                    for a, b, t in zip(p[i], width[i], rng.uniform(-1, 1, 4), strict=True)
                ]
                total = sum(map(mpmath.exp, inside))
                for j in range(4):
                    true = mpmath.exp(inside[j]) / total
                    assert abs(mpmath.mpf(s.center[i, j]) - true) <= mpmath.mpf(s.radius[i, j])
    narrow = softmax_shares(Balls(p, 0.0 * width))
    assert narrow.radius.max() < 1e-12
