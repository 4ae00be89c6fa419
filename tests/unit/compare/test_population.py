"""Statements about the distribution: how often they fail, on distributions where the truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from selections import each_once

from resnet_cert.compare.population import _bernstein, _betting, _deviation, population_here
from resnet_cert.moments.gradient import first_moments
from resnet_cert.outcomes import RequestError
from resnet_cert.problem.problem import Problem, Support
from resnet_cert.results import Population

DELTA = 0.05
FOR_LONG = 10_000
MEANS = {
    "uniform": (lambda rng, n: rng.uniform(-1.0, 1.0, n), 0.0),
    "rare": (lambda rng, n: np.where(rng.random(n) < 0.02, 1.0, -0.5), -0.5 + 1.5 * 0.02),
    "coin": (lambda rng, n: rng.choice([-1.0, 1.0], n), 0.0),
    "narrow": (lambda rng, n: 0.3 + 0.01 * rng.uniform(-1.0, 1.0, n), 0.3),
}


@pytest.fixture
def repetitions(request: pytest.FixtureRequest) -> int:
    return FOR_LONG if request.config.getoption("--long") else 150


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


def signs(n: int, seed: int, **changes: Any) -> Problem:
    """Labels that are f = x_1x_2 = ±1 with probability 0.9: logistic, and x_1, x_2 say nothing of them."""
    rng = np.random.default_rng(seed)
    x = rng.choice([-1.0, 1.0], (n, 2))
    f = x[:, :1] * x[:, 1:]
    y = f[:, 0] * rng.choice([-1.0, 1.0], n, p=[0.1, 0.9])
    arrays = {"x": x, "y": y, "f": f, "W": W, "V": V, "epsilon": 0.1, "loss": "logistic"}
    return Problem.from_arrays(**(arrays | changes))


def points(values: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """(x_1, x_2) and a third number that is one of two, all equally probable."""
    found = np.array([(a, b, e) for a in (-1.0, 1.0) for b in (-1.0, 1.0) for e in values])
    return found[:, :2], found[:, 2]


class Truth(NamedTuple):
    """F − min F_lin, ‖∇F‖, ‖A_f‖ on the distribution, and the least ε of Definition 1 for the largest μ2 that
    the stated bounds permit.
    """

    gap: float
    gradient: float
    A_f: float
    epsilon: float


def truth(exact: Problem, F_lin_min: float, L2: float, L3: float) -> Truth:
    """Of a distribution, each of whose samples `exact` has as often as it is probable; L2 and L3 bound ℓ″ and
    ℓ‴, and b = 1: μ2 = L3 J³ + 3 L2 J f̂ with J² = (x̂ + f̂)² + f̂²."""
    here = first_moments(exact)
    gradient = math.hypot(here.g_W.norm().value, float(np.linalg.norm(W.T @ here.A_f.center)))
    A_f = here.A_f.norm().value
    J = math.hypot(SUPPORT.x + SUPPORT.f, SUPPORT.f)
    mu2 = L3 * J**3 + 3.0 * L2 * J * SUPPORT.f
    return Truth(here.F.value - F_lin_min, gradient, A_f, max(gradient, A_f**2 / mu2))


def truth_of_squares() -> Truth:
    x, noise = points([-0.1, 0.1])
    f = x[:, :1] * x[:, 1:]
    y = x[:, 0] + 0.5 * f[:, 0] + noise
    exact = Problem.from_arrays(x=x, y=y, f=f, W=W, V=V)
    return truth(exact, 0.5 * float(np.mean((y - x[:, 0]) ** 2)), 1.0, 0.0)  # at u = (1, 0), by symmetry


def truth_of_signs() -> Truth:
    x, agrees = points([1.0] * 9 + [-1.0])
    f = x[:, :1] * x[:, 1:]
    exact = Problem.from_arrays(x=x, y=f[:, 0] * agrees, f=f, W=W, V=V, loss="logistic")
    return truth(exact, math.log(2.0), 0.25, 1.0 / (6.0 * math.sqrt(3.0)))  # at u = 0, by symmetry


@pytest.mark.parametrize(("draw", "of"), [(sample, truth_of_squares), (signs, truth_of_signs)])
def test_all_statements_together_fail_no_more_often_than_the_confidence_says(
    draw: Callable[[int, int], Problem], of: Callable[[], Truth], repetitions: int
) -> None:
    exact, failures = of(), 0
    runs = repetitions if repetitions == FOR_LONG else 20
    for seed in range(runs):
        said = statement(draw(60, seed))
        assert said.smallest_epsilon is not None
        failures += (
            said.gap_upper < exact.gap
            or said.gradient_norm_upper < exact.gradient
            or said.A_f_norm_upper < exact.A_f
            or said.smallest_epsilon < exact.epsilon
            or (said.better_than_linear is False and exact.gap <= 0.0)
            or (said.better_than_linear is True and exact.gap > 0.0)
        )
    assert failures <= allowed(runs, 1.0 - SUPPORT.confidence)


def test_many_samples_show_what_few_do_not() -> None:
    gap, gradient, A_f, epsilon = truth_of_squares()
    few, many = statement(sample(200, 0)), statement(sample(400_000, 0))
    assert few.better_than_linear is None
    assert many.better_than_linear is True
    assert many.rigor == "statistical"
    assert gap <= many.gap_upper < few.gap_upper
    assert many.gap_upper < 0.0
    assert gradient <= many.gradient_norm_upper <= gradient + 0.2
    assert A_f <= many.A_f_norm_upper <= A_f + 0.2
    assert many.smallest_epsilon is not None
    assert many.smallest_epsilon >= max(many.gradient_norm_upper, epsilon)


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


def test_inputs_beside_the_block_are_bounded_with_it_and_named() -> None:
    beside = sample(50, 0, bypass=np.ones((50, 1)), W=np.array([[0.8, 0.0, 0.0]]))
    with pytest.raises(RequestError, match=r"row 1: expected ‖\(x, bypass\)‖ ≤ 1\.5, got 1\.73205081"):
        statement(beside, Support(0.95, 1.5, 1.5, 2.0))


def test_only_class_labels_need_no_bound_of_their_targets() -> None:
    with pytest.raises(
        RequestError, match=r"population\.bounds\.y: expected a bound of \|y\| for squared, got none"
    ):
        statement(sample(50, 0), Support(0.95, 1.5, 1.5))
    labels = sample(50, 0, y=np.arange(50) % 2, loss="softmax", W=np.zeros((2, 2)))
    assert statement(labels, Support(0.95, 1.5, 1.5)) == statement(labels, Support(0.95, 1.5, 1.5, 1.0))


def test_weights_are_no_sample() -> None:
    with pytest.raises(RequestError, match="equal weight"):
        statement(sample(4, 0, probabilities=np.full(4, 0.25)))
