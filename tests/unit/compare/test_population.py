"""Statements about the distribution: how often they fail, on distributions where the truth is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from selections import each_once

from resnet_cert.compare.population import _bernstein, _betting, _deviation, population_here
from resnet_cert.moments.gradient import first_moments
from resnet_cert.outcomes import RequestError
from resnet_cert.problem.problem import Problem, Support
from resnet_cert.results import Population

DELTA = 0.05
MEANS = {
    "uniform": (lambda rng, n: rng.uniform(-1.0, 1.0, n), 0.0),
    "rare": (lambda rng, n: np.where(rng.random(n) < 0.02, 1.0, -0.5), -0.5 + 1.5 * 0.02),
    "coin": (lambda rng, n: rng.choice([-1.0, 1.0], n), 0.0),
    "narrow": (lambda rng, n: 0.3 + 0.01 * rng.uniform(-1.0, 1.0, n), 0.3),
}


@pytest.fixture
def repetitions(request: pytest.FixtureRequest) -> int:
    return 10_000 if request.config.getoption("--long") else 150


def allowed(repetitions: int, delta: float) -> int:
    """Failures that a right bound exceeds once in some thousand runs of this test."""
    return math.ceil(repetitions * delta + 4.0 * math.sqrt(repetitions * delta) + 2)


@pytest.mark.parametrize(("name", "n"), each_once(MEANS, [30, 300]))
def test_a_bound_of_a_mean_fails_no_more_often_than_it_may(name: str, n: int, repetitions: int) -> None:
    draw, truth = MEANS[name]
    rng = np.random.default_rng(1)
    failures = {"bernstein": 0, "betting": 0}
    for _ in range(repetitions):
        D = draw(rng, n)
        failures["bernstein"] += _bernstein(float(D.mean()), float(D.var(ddof=1)), n, 1.0, DELTA) < truth
        failures["betting"] += _betting(D, 1.0, DELTA) < truth
    assert max(failures.values()) <= allowed(repetitions, DELTA), failures


def test_the_betting_bound_is_the_tighter_one_for_few_samples() -> None:
    rng, wins = np.random.default_rng(2), 0
    for _ in range(20):
        D = MEANS["narrow"][0](rng, 200)
        wins += _betting(D, 1.0, DELTA) < _bernstein(float(D.mean()), float(D.var(ddof=1)), 200, 1.0, DELTA)
    assert wins == 20


def test_a_mean_of_vectors_deviates_no_more_often_than_it_may(repetitions: int) -> None:
    rng, n = np.random.default_rng(3), 50
    failures = 0
    for _ in range(repetitions):
        v = rng.normal(size=(n, 4))
        v /= np.linalg.norm(v, axis=1, keepdims=True)  # of expectation 0
        failures += np.linalg.norm(v.mean(axis=0)) > _deviation(1.0, n, DELTA)
    assert failures <= allowed(repetitions, DELTA)


# The section as a whole.

SUPPORT = Support(confidence=0.95, x=1.42, f=1.01, y=1.61)
W, V = np.array([[0.8, 0.0]]), np.array([[0.5], [0.0]])
THETA = 1.0


def sample(n: int, seed: int, **changes: Any) -> Problem:
    """y = x_1 + ½·x_1x_2 up to noise, f = x_1x_2: the network has what linear predictors have not."""
    rng = np.random.default_rng(seed)
    x = rng.choice([-1.0, 1.0], (n, 2))
    f = x[:, :1] * x[:, 1:]
    y = x[:, 0] + 0.5 * f[:, 0] + 0.1 * rng.choice([-1.0, 1.0], n)
    arrays = {"x": x, "y": y, "f": f, "W": W, "V": V, "epsilon": 0.1}
    return Problem.from_arrays(**(arrays | changes))


def statement(problem: Problem, support: Support = SUPPORT, r: float = 1.2) -> Population:
    return population_here(problem, support, first_moments(problem), r, 1.0)


def truth() -> tuple[float, float, float]:
    """F − min F_lin, ‖∇F‖ and ‖A_f‖ over the eight equally probable points of the distribution."""
    points = [(a, b, e) for a in (-1.0, 1.0) for b in (-1.0, 1.0) for e in (-0.1, 0.1)]
    x = np.array([(a, b) for a, b, _ in points])
    f = x[:, :1] * x[:, 1:]
    y = np.array([a + 0.5 * a * b + e for a, b, e in points])
    exact = Problem.from_arrays(x=x, y=y, f=f, W=W, V=V)
    here = first_moments(exact)
    F_lin_min = 0.5 * float(np.mean((y - x[:, 0]) ** 2))  # at u = (1, 0), by symmetry
    gradient = math.hypot(here.g_W.norm().value, float(np.linalg.norm(W.T @ here.A_f.center)))
    return here.F.value - F_lin_min, gradient, here.A_f.norm().value


def test_all_statements_together_fail_no_more_often_than_the_confidence_says(repetitions: int) -> None:
    gap, gradient, A_f = truth()
    runs, failures = max(20, repetitions // 20), 0
    for seed in range(runs):
        said = statement(sample(400, seed))
        failures += said.gap_upper < gap or said.gradient_norm_upper < gradient or said.A_f_norm_upper < A_f
        assert said.better_than_linear is not False
    assert failures <= allowed(runs, 1.0 - SUPPORT.confidence)


def test_many_samples_show_what_few_do_not() -> None:
    gap, gradient, A_f = truth()
    few, many = statement(sample(200, 0)), statement(sample(400_000, 0))
    assert few.better_than_linear is None
    assert many.better_than_linear is True
    assert many.rigor == "statistical"
    assert gap <= many.gap_upper < few.gap_upper
    assert many.gap_upper < 0.0
    assert gradient <= many.gradient_norm_upper <= gradient + 0.2
    assert A_f <= many.A_f_norm_upper <= A_f + 0.2
    assert many.smallest_epsilon is not None
    assert many.smallest_epsilon >= many.gradient_norm_upper


@pytest.mark.parametrize("loss", ["squared", "pseudo_huber"])
def test_where_every_loss_is_exactly_zero_the_gap_is_the_width_of_what_is_not_seen(loss: str) -> None:
    zeros, support = np.zeros((6, 2)), Support(confidence=0.95, x=1.0, f=1.0, y=1.0)
    nothing = Problem.from_arrays(
        x=zeros, y=zeros, f=zeros, W=np.zeros((2, 2)), V=zeros[:2], loss=loss, epsilon=1.0
    )
    assert statement(nothing, support).gap_upper >= 0.0


def test_a_linear_predictor_that_does_better_is_seen() -> None:
    worse = sample(400_000, 0, V=np.array([[-2.0], [0.0]]))
    assert statement(worse, Support(0.95, 1.5, 1.5, 2.0)).better_than_linear is False


@pytest.mark.parametrize("loss", ["logistic", "pseudo_huber", "poisson", "softmax"])
def test_every_loss_has_its_statements(loss: str) -> None:
    rng = np.random.default_rng(0)
    q = 3 if loss == "softmax" else 1
    y = {"logistic": rng.choice([-1.0, 1.0], 300), "softmax": rng.integers(0, 3, 300)}.get(
        loss, rng.integers(0, 3, 300)
    )
    x, f = rng.uniform(-1, 1, (300, 2)), rng.uniform(-1, 1, (300, 2))
    problem = Problem.from_arrays(
        x=x, y=y, f=f, W=0.1 * rng.normal(size=(q, 2)), V=0.1 * np.ones((2, 2)), c=np.zeros(q), loss=loss
    )
    said = population_here(problem, Support(0.9, 2.0, 2.0, 2.0), first_moments(problem), 1.0, 1.0)
    here = first_moments(problem)
    assert here.A_f.norm().upper < said.A_f_norm_upper < math.inf
    assert math.isfinite(said.gap_upper)


@pytest.mark.parametrize(
    ("support", "message"),
    [
        (Support(0.95, 1.0, 1.5, 2.0), r"row 1: expected ‖x‖ ≤ 1\.0, got 1\.41421356"),
        (Support(0.95, 1.5, 0.5, 2.0), r"row 1: expected ‖f‖ ≤ 0\.5, got 1"),
        (Support(0.95, 1.5, 1.5, 1.0), r"row \d+: expected \|y\| ≤ 1\.0, got 1\.[46]"),
    ],
)
def test_a_sample_outside_of_the_stated_bounds_is_named(support: Support, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        statement(sample(50, 0), support)


def test_weights_are_no_sample() -> None:
    with pytest.raises(RequestError, match="equal weight"):
        statement(sample(4, 0, probabilities=np.full(4, 0.25)))
