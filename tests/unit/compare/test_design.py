"""Products in doubled precision against rational numbers, and coordinates that make a design orthogonal."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from ill_conditioned import design
from reports import leave_out_crosscheck
from selections import each_once, first

from resnet_cert import Problem, check
from resnet_cert.compare.design import Design, doubled_product, orthogonalised, scaled_design
from resnet_cert.compare.minimum_on_ball import best_linear_predictor
from resnet_cert.numerics.radius import U

Array = np.ndarray


@pytest.fixture(autouse=True)
def _without_crosscheck(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_crosscheck(monkeypatch)


def misses(X: Array, T: Array) -> tuple[float, float]:
    """The largest error of a row over its bound, and the largest bound over ‖row‖."""
    z, error = doubled_product(X, T)
    worst = widest = 0.0
    for row, bound, x in zip(z, np.broadcast_to(error.upper, len(X)), X, strict=True):
        exact = [
            sum(
                (Fraction(float(a)) * Fraction(float(b)) for a, b in zip(x, column, strict=True)), Fraction(0)
            )
            for column in T.T
        ]
        off = sum(((Fraction(float(a)) - b) ** 2 for a, b in zip(row, exact, strict=True)), Fraction(0))
        worst = max(worst, float(off / Fraction(float(bound)) ** 2) ** 0.5)
        length = float(np.linalg.norm(row))
        widest = max(widest, float(bound) / length if length else 0.0)
    return worst, widest


@pytest.mark.parametrize("size", [1, 2, 5, 40])
@pytest.mark.parametrize("spread", [0, 6, 15])
def test_a_product_is_within_its_bound_and_almost_rounded_once(size: int, spread: int):
    rng = np.random.default_rng(size)
    X = rng.normal(size=(6, size)) * 10.0 ** rng.uniform(-spread, spread, (6, size))
    worst, widest = misses(X, rng.normal(size=(size, size)))
    assert worst <= 1.0
    assert widest < 16 * U


def test_what_cancels_is_there_to_the_last_places():
    rng = np.random.default_rng(0)
    x = design(rng, 8, 3, 1e13, 1.0)
    T = np.linalg.svd(x)[2].T / np.geomspace(1.0, 1e-13, 3)
    worst, widest = misses(x, T)
    assert worst <= 1.0
    assert widest < 64 * U


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e150])
def test_products_at_extreme_scales_are_within_their_bounds(scale: float):
    rng = np.random.default_rng(1)
    assert misses(rng.normal(size=(4, 3)) * scale, rng.normal(size=(3, 3)))[0] <= 1.0


@pytest.mark.parametrize("cond", [1e3, 1e8, 1e12, 1e15])
@pytest.mark.parametrize("scale", [1e-150, 1.0, 1e150])
def test_in_new_coordinates_the_inputs_are_uncorrelated(cond: float, scale: float):
    x = design(np.random.default_rng(2), 12, 3, cond, scale)
    problem = Problem.from_arrays(x=x, y=np.ones(12), f=np.zeros((12, 1)), w=np.ones(3), V=np.zeros((3, 1)))
    turned = orthogonalised(scaled_design(problem), np.zeros((0, 3)))
    assert turned.second_moments == pytest.approx(np.eye(3), abs=0.2)


def test_columns_are_scaled_by_powers_of_two_without_loss():
    x = np.array([[1e-200, 3.0, 0.0], [2e-200, -5.0, 0.0]])
    problem = Problem.from_arrays(x=x, y=np.ones(2), f=np.zeros((2, 1)), w=np.ones(3), V=np.zeros((3, 1)))
    scaled = scaled_design(problem)
    (rows,) = scaled.rows()
    assert np.array_equal(rows.z / scaled.units / scaled.sigma, x)
    assert rows.error.exact
    assert 0.5 <= np.max(np.abs(rows.z)) < 1.0


@pytest.mark.parametrize("loss", ["logistic", "softmax", "squared"])
def test_what_is_not_held_is_made_again(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    q = 3 if loss == "softmax" else 1
    y = {"softmax": rng.integers(0, 3, 700), "logistic": rng.choice([-1.0, 1.0], 700)}.get(
        loss, rng.normal(size=700)
    )
    x, f = rng.normal(size=(700, 3)), rng.normal(size=(700, 2))
    problem = Problem.from_arrays(x=x, y=y, f=f, W=np.ones((q, 3)), V=np.ones((3, 2)), loss=loss)
    held = best_linear_predictor(problem, 1.0, 1.0).F_min
    monkeypatch.setattr("resnet_cert.compare.design.HELD_BYTES", 0)
    monkeypatch.setattr("resnet_cert.compare.linear_objective.HELD_BENDS", 0)
    monkeypatch.setattr("resnet_cert.problem.problem.CHUNK_BYTES", 1)
    again = best_linear_predictor(problem, 1.0, 1.0).F_min
    assert again.lower <= held.upper
    assert held.lower <= again.upper
    assert again.upper - again.lower < 1e-9


@pytest.mark.parametrize(("q", "noise"), each_once([1, 3], [0.3, 1e-9, 0.0]))
def test_squared_losses_of_data_that_are_not_held_take_a_few_passes(
    q: int, noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(q)
    x = rng.normal(size=(700, 3))
    y = x @ rng.normal(size=(3, q)) + noise * rng.normal(size=(700, q)) + 1.0
    problem = Problem.from_arrays(
        x=x, y=y, f=rng.normal(size=(700, 2)), W=0.2 * np.ones((q, 3)), V=np.ones((3, 2)), c=np.ones(q)
    )
    held = check(problem)
    monkeypatch.setattr("resnet_cert.compare.design.HELD_BYTES", 0)
    passes: list[object] = []
    summed = Design.summed

    def counted(design: Design, part: Any) -> Any:
        passes.append(part)
        return summed(design, part)

    monkeypatch.setattr(Design, "summed", counted)
    again = check(problem)
    assert len(passes) < (10 if noise == 0.3 else 40)
    for one, other in (
        (again.objective.F_lin_min, held.objective.F_lin_min),
        (again.objective.break_even_radius, held.objective.break_even_radius),
    ):
        assert one.lower <= other.upper
        assert other.lower <= one.upper
        assert one.upper - one.lower <= 1e-9 * max(abs(one.upper), 1.0)
    assert again.objective.attained is held.objective.attained is True


@pytest.mark.parametrize(
    ("n", "loss"),
    first(
        4,
        [
            *((700, loss) for loss in ("logistic", "softmax", "pseudo_huber")),
            *((17000, loss) for loss in ("poisson", "softmax", "logistic", "pseudo_huber")),
            (700, "poisson"),
        ],
    ),
)
def test_losses_that_bend_take_a_few_passes_where_data_are_not_held(
    loss: str, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(n)
    q = 3 if loss == "softmax" else 1
    x = rng.normal(size=(n, 3))
    p = x @ rng.normal(size=(3, q)) + rng.normal(size=(n, q))
    y = {
        "logistic": np.sign(p[:, 0]),
        "softmax": p.argmax(axis=1),
        "pseudo_huber": p[:, 0],
        "poisson": rng.poisson(np.exp(p[:, 0])),
    }[loss]
    problem = Problem.from_arrays(
        x=x, y=y, f=rng.normal(size=(n, 2)), W=0.2 * np.ones((q, 3)), V=np.ones((3, 2)), loss=loss
    )
    held = check(problem, break_even=False)
    monkeypatch.setattr("resnet_cert.compare.design.HELD_BYTES", 0)
    passes: list[object] = []
    summed = Design.summed

    def counted(design: Design, part: Any) -> Any:
        passes.extend([part] * (design.problem.n == n))
        return summed(design, part)

    monkeypatch.setattr(Design, "summed", counted)
    again = check(problem, break_even=False)
    assert len(passes) <= (9 if n == 17000 else 14), len(passes)
    one, other = again.objective.F_lin_min, held.objective.F_lin_min
    assert one.lower <= other.upper
    assert other.lower <= one.upper
    assert one.upper - one.lower <= 2.0 * (other.upper - other.lower)
    assert again.objective.attained == held.objective.attained
