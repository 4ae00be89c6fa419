"""min F_lin over ‖W‖_F ≤ r for several outputs against Newton's method in 60 digits."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from mpmath import mp, mpf
from vector_families import draw
from vector_oracle import VectorSample
from vector_oracle_linear import DIGITS, linear_terms, minimum_on_ball, regularised_minimiser

from resnet_cert.compare.linear_predictor import LinearMinimum
from resnet_cert.vector.linear_predictor import best_linear_predictor, linear_objective


@pytest.fixture(autouse=True)
def _precision():
    with mp.workdps(DIGITS):
        yield


def best(sample: VectorSample, r: float | None = None, b: float = 1.0) -> LinearMinimum:
    return best_linear_predictor(sample.problem(), r, b)


def assert_holds(ours: LinearMinimum, F: mpf, W: mpmath.matrix, width: float = 1e-9) -> None:
    slack = mpf(10) ** -30
    assert mpf(ours.F_min.lower) - slack <= F <= mpf(ours.F_min.upper) + slack
    assert ours.F_min.upper - ours.F_min.lower <= width
    distance = mpmath.norm(mpmath.matrix([mpf(float(e)) for e in ours.w_star.center]) - W)
    assert distance <= mpf(ours.w_star.radius) + slack


# --- Enclosures ---------------------------------------------------------------------------------------------


CASES = [("squared", "generic"), ("weighted_squared", "weights"), ("logistic", "generic")]
CASES += [("softmax", "generic"), ("softmax", "hard labels"), ("logistic", "hard labels")]


@pytest.mark.parametrize(("loss", "corner"), CASES)
def test_the_minimum_on_a_small_ball_lies_in_its_enclosure(loss: str, corner: str) -> None:
    sample = draw(31, corner, loss, d=2, q=2, n=6)
    F, W = minimum_on_ball(sample, 0.125)
    ours = best(sample, 0.125)
    assert_holds(ours, F, W)
    assert ours.w_star.radius < 1e-6
    assert 0.124 < ours.norm.lower <= ours.norm.upper <= 0.125


@pytest.mark.parametrize(("loss", "corner"), CASES[:4])
def test_the_minimum_inside_lies_in_its_enclosure(loss: str, corner: str) -> None:
    sample = draw(32, corner, loss, d=2, q=3, n=12)
    ours = best(sample)
    assert ours.attained
    W = regularised_minimiser(sample, mpf(10) ** -45)
    assert_holds(ours, linear_terms(sample, W)[0], W)
    assert ours.w_star.radius < 1e-8
    assert ours.r == pytest.approx(1.01 * float(np.linalg.norm(ours.w_star.center)))


def test_the_best_predictor_of_a_softmax_loss_is_the_shortest() -> None:
    sample = draw(33, "generic", "softmax", d=2, q=3, n=12)
    W = best(sample).w_star.center.reshape(3, 2)
    assert np.allclose(W.sum(axis=0), 0.0, atol=1e-12)


def test_the_penalty_of_a_softmax_loss_does_not_change_the_minimum() -> None:
    sample = draw(33, "generic", "softmax", d=2, q=3, n=12)
    function = linear_objective(sample.problem())
    assert function.c > 0.0
    rng = np.random.default_rng(0)
    W = rng.normal(size=(3, 2))
    centred = W - W.mean(axis=0)
    plain, penalised = linear_objective(sample.problem()), function.at(centred.ravel())
    F = float(linear_terms(sample, mpmath.matrix(W.ravel().tolist()))[0])
    assert penalised.F.value == pytest.approx(F, abs=1e-13)
    moved = plain.at(W.ravel())
    extra = 0.5 * function.c * 3 * float(np.sum(W.mean(axis=0) ** 2))
    assert moved.F.value == pytest.approx(F + extra, rel=1e-12)
    difference = derivative(lambda w: function.at(w).F.value, W.ravel())
    assert np.allclose(moved.g_w.center, difference, atol=1e-7)
    bend = derivative(lambda w: function.at(w).g_w.center, W.ravel())
    assert np.allclose(moved.A.center, bend, atol=1e-7)


def derivative(function: Callable[[np.ndarray], object], at: np.ndarray, step: float = 1e-5) -> np.ndarray:
    columns = []
    for unit in np.eye(len(at)):
        later, before = np.asarray(function(at + step * unit)), np.asarray(function(at - step * unit))
        columns.append((later - before) / (2.0 * step))
    return np.array(columns)


# --- Attained or not ----------------------------------------------------------------------------------------


def labelled(x: list[list[float]], y: list[list[float]], loss: str, q: int) -> VectorSample:
    data, targets = np.array(x), np.array(y)
    d = data.shape[1]
    return VectorSample(data, targets, np.ones((len(x), 1)), np.zeros((q, d)), np.zeros((d, 1)), loss)


E3 = np.eye(3).tolist()
ATTAINMENT = {
    "three classes on three rays": (
        labelled([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.8]], E3, "softmax", 3),
        False,
    ),
    "every class at the same inputs": (labelled([[1.0], [1.0], [1.0]], E3, "softmax", 3), True),
    "two classes mixed, a third apart": (
        labelled([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], E3, "softmax", 3),
        False,
    ),
    "a class that no sample has": (
        labelled([[1.0], [2.0], [1.0]], [E3[0], E3[0], E3[1]], "softmax", 3),
        False,
    ),
    "probabilities of all classes": (labelled([[1.0], [-1.0]], [[0.2, 0.3, 0.5]] * 2, "softmax", 3), True),
    "a row of probabilities without one class": (
        labelled([[1.0], [1.0]], [[0.5, 0.5, 0.0], [0.3, 0.3, 0.4]], "softmax", 3),
        True,
    ),
    "one output separable": (
        labelled([[1.0], [-1.0], [1.0]], [[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]], "logistic", 2),
        False,
    ),
    "no output separable": (
        labelled([[1.0], [1.0], [2.0]], [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], "logistic", 2),
        True,
    ),
    "targets inside the interval": (labelled([[1.0], [-2.0]], [[0.3, 0.5], [0.9, 0.1]], "logistic", 2), True),
    "squares": (labelled([[1.0], [2.0]], [[0.3, 0.5], [0.9, 0.1]], "squared", 2), True),
}


@pytest.mark.parametrize("name", ATTAINMENT)
def test_attained_exactly_where_no_direction_helps_forever(name: str) -> None:
    sample, attained = ATTAINMENT[name]
    ours = best(sample, b=3.0)
    assert ours.attained is attained
    if not attained:
        assert ours.r == 3.0
        assert ours.norm.upper <= 3.0
        wider = best(sample, 6.0)
        assert wider.F_min.upper < ours.F_min.lower


def test_a_loss_of_one_output_has_the_minimum_of_the_scalar_code() -> None:
    from resnet_cert.compare.linear_predictor import best_linear_predictor as scalar
    from resnet_cert.problem.problem import Problem

    rng = np.random.default_rng(35)
    x, f, y = rng.normal(size=(20, 3)), rng.normal(size=(20, 1)), rng.choice([-1.0, 1.0], 20)
    for loss, targets in (("squared", y), ("logistic", (1.0 + y) / 2.0)):
        one = scalar(
            Problem.from_arrays(x=x, y=y, f=f, w=np.zeros(3), V=np.zeros((3, 1)), loss=loss), 0.7, 1.0
        )
        W, V = np.zeros((1, 3)), np.zeros((3, 1))
        several = best(VectorSample(x, targets[:, None], f, W, V, loss), 0.7)
        assert several.F_min.value == pytest.approx(one.F_min.value, rel=1e-12)
        assert np.allclose(several.w_star.center, one.w_star.center, atol=1e-9)
        assert math.isclose(several.r, one.r)
