"""A witness is a direction of descent, and a point where the objective is lower, that anyone can check."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reports import leave_out_crosscheck
from selections import each_once, first

from resnet_cert import Problem, load_problem
from resnet_cert.check import examine
from resnet_cert.numerics.jax64 import float64_scope, jax
from resnet_cert.outcomes import Verdict
from resnet_cert.problem.problem import Point
from resnet_cert.search.witness import Witness, descent, find_witness, unit, write_witness

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
REFUTED = (
    "example-1-refuted",
    "saddle",
    "diabetes-halfway",
    "breast-cancer-halfway",
    "wine-halfway",
    "yun-sra-jadbabaie",
)


@pytest.fixture(autouse=True)
def _without_crosscheck(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_crosscheck(monkeypatch)


def found(problem: Problem) -> Witness:
    witness = find_witness(examine(problem))
    assert isinstance(witness, Witness), witness
    return witness


def objective(problem: Problem, W: Any, V: Any) -> Any:
    """G by JAX, as the paper writes it."""
    [chunk] = problem.chunks()
    d1 = problem.d1
    p = chunk.x @ W.T + chunk.f @ (W[:, :d1] @ V).T
    losses = problem.loss.value(p, chunk.y, chunk.omega)
    F = losses @ (chunk.weights / np.sum(chunk.weights))
    return F + problem.objective.l2 * (((W * problem.decayed[None]) ** 2).sum() + (V**2).sum())


def random_head(seed: int, **options: Any) -> Problem:
    rng = np.random.default_rng(seed)
    q, d1, k, n = int(rng.integers(1, 4)), 3, 2, 12
    return Problem.from_arrays(
        x=rng.normal(size=(n, d1)),
        y=rng.normal(size=(n, q)),
        f=rng.normal(size=(n, k)),
        bypass=rng.normal(size=(n, 1)),
        W=0.3 * rng.normal(size=(q, d1 + 1)),
        V=0.3 * rng.normal(size=(d1, k)),
        c=rng.normal(size=q) * 0.3,
        epsilon=1e-9,
        **options,
    )


@pytest.mark.parametrize("name", first(3, REFUTED))
def test_a_witness_names_the_condition_and_leads_to_a_lower_point(name: str) -> None:
    problem = load_problem(CONFIGS / f"{name}.yaml")
    examination = examine(problem)
    witness = find_witness(examination)
    assert isinstance(witness, Witness)
    violated = {"gradient": examination.report.gradient, "curvature": examination.report.hessian}
    assert violated[witness.condition].verdict is Verdict.REFUTED
    assert witness.rate.upper < 0.0
    assert witness.lower_point is not None
    assert witness.objective_there is not None
    with float64_scope():
        before = float(objective(problem, problem.W, problem.V))
        after = float(objective(problem, witness.lower_point.head, witness.lower_point.V))
    assert after < before
    assert witness.objective_there.lower - 1e-12 <= after <= witness.objective_there.upper + 1e-12
    assert witness.objective_there.upper < witness.objective.lower


@pytest.mark.parametrize("name", first(3, REFUTED))
def test_the_rate_is_the_derivative_along_the_direction(name: str) -> None:
    problem = load_problem(CONFIGS / f"{name}.yaml")
    witness = found(problem)

    def along(t: Any) -> Any:
        return objective(problem, problem.W + t * witness.direction.dW, problem.V + t * witness.direction.dV)

    with float64_scope():
        slope = jax.grad(along)
        rate = jax.jit(slope if witness.condition == "gradient" else jax.grad(slope))(0.0)
    assert float(rate) == pytest.approx(witness.rate.value, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("options", "seed"),
    each_once([{}, {"l2": 0.1}, {"l2": 0.1, "decay_bias": False}, {"norm": 3.0}], range(3)),
)
def test_any_head_with_decay_or_on_a_ball_has_one(seed: int, options: dict[str, Any]) -> None:
    problem = random_head(seed, **options)
    witness = found(problem)
    assert witness.lower_point is not None
    assert witness.objective_there is not None
    with float64_scope():
        after = float(objective(problem, witness.lower_point.head, witness.lower_point.V))
    assert witness.objective_there.lower - 1e-12 <= after <= witness.objective_there.upper + 1e-12
    size = np.linalg.norm(witness.lower_point.head) ** 2 + np.linalg.norm(witness.lower_point.V) ** 2
    assert size <= (problem.objective.norm or np.inf) ** 2
    fall = descent(examine(problem))
    assert fall is not None
    assert fall.kind == "slope"
    assert fall.decrease.lower > 0.0


def test_on_the_rim_the_lower_point_is_in_the_ball() -> None:
    problem = random_head(3, norm=2.0)
    size = np.sqrt(np.linalg.norm(problem.W) ** 2 + np.linalg.norm(problem.V) ** 2)
    point = problem.point
    assert point.c is not None
    scale = 2.0 / size * (1.0 - 1e-15)
    problem = replace(problem, point=Point(point.W * scale, point.V * scale, point.c * scale))
    there = found(problem).lower_point
    assert there is not None
    assert np.linalg.norm(there.head) ** 2 + np.linalg.norm(there.V) ** 2 <= 4.0


@pytest.mark.parametrize("scale", first(2, [1e-300, 1e60, 1e-150, 1e-80]))
def test_a_direction_is_of_length_one_at_every_scale(scale: float) -> None:
    problem = random_head(5)
    point = problem.point
    assert point.c is not None
    problem = replace(problem, point=Point(point.W * scale, point.V * scale, point.c * scale))
    direction = found(problem).direction
    length = np.hypot(np.linalg.norm(direction.dW), np.linalg.norm(direction.dV))
    assert length == pytest.approx(1.0, abs=1e-14)


def test_squares_that_overflow_do_not_make_a_direction_of_zeros() -> None:
    """e^p for p about 400: the gradient is 1e174 long."""
    problem = Problem.from_arrays(
        x=[[1.0], [0.5]], y=[1.0, 2.0], f=[[1.0], [0.0]], w=[400.0], V=[[0.0]], loss="poisson"
    )
    witness = found(problem)
    assert np.hypot(
        np.linalg.norm(witness.direction.dW), np.linalg.norm(witness.direction.dV)
    ) == pytest.approx(1.0)
    assert witness.lower_point is not None
    tiny = unit(witness.direction)
    assert tiny is not None


def scaled_point(seed: int) -> Problem:
    """Data and points from 1e-140 to 1e140, w = 0 or out to where rates overflow, decay, and the rim."""
    rng = np.random.default_rng(seed)
    loss = ("squared", "logistic", "pseudo_huber", "poisson", "softmax")[seed % 5]
    n, q = int(rng.choice([1, 3, 6])), 3 if loss == "softmax" else int(rng.integers(1, 3))
    d, k = max(q, int(rng.integers(1, 4))), int(rng.integers(1, 4))
    of_x = 10.0 ** rng.uniform(-140.0, 1.0 if loss == "poisson" else 140.0)
    of_f, of_W = of_x * 10.0 ** rng.uniform(-3.0, 3.0), 10.0 ** rng.uniform(-3.0, 2.5) / of_x
    x, f, y = rng.normal(size=(n, d)) * of_x, rng.normal(size=(n, k)) * of_f, rng.normal(size=(n, q))
    y = {
        "logistic": np.where(y > 0.0, 1.0, 0.0 if q > 1 else -1.0),
        "poisson": np.abs(y),
        "softmax": np.eye(3)[np.arange(n) % 3],
    }.get(loss, y * 10.0 ** rng.uniform(-100.0, 100.0))
    W = rng.normal(size=(q, d)) * of_W * (rng.integers(3) > 0)
    V = rng.normal(size=(d, k)) * 10.0 ** rng.uniform(-3.0, 3.0) * of_x / of_f
    size = float(np.hypot(np.linalg.norm(W), np.linalg.norm(V)))
    kind = rng.integers(4)
    more = ({}, {}, {"l2": 10.0 ** rng.uniform(-10.0, 0.0)}, {"norm": 1.0000001 * size})[kind]
    return Problem.from_arrays(x=x, y=y, f=f, W=W, V=V, loss=loss, epsilon=0.0, **more)


def squared_exactly(problem: Problem, point: Point) -> Fraction:
    """n·(F + l2‖(W, V)‖²)·2 of the squared loss in rationals, at scale 1."""
    exactly = np.vectorize(Fraction, otypes=[object])
    [chunk] = problem.chunks()
    x, f, y, W, V = (exactly(a) for a in (chunk.x, chunk.f, chunk.y, point.W, point.V))
    square = ((W**2).sum() + (V**2).sum()) * Fraction(problem.objective.l2)
    return (((x + f @ V.T) @ W.T - y) ** 2).sum() + 2 * len(y) * square


@pytest.mark.parametrize("seeds", first(1, [range(2), *(range(i, i + 50) for i in range(0, 400, 50))]))
def test_at_every_scale_a_witness_is_one_or_refused(seeds: range) -> None:
    for seed in seeds:
        is_one_or_refused(seed)


def is_one_or_refused(seed: int) -> None:
    problem = scaled_point(seed)
    examination = examine(problem)
    if examination.report.verdict is not Verdict.REFUTED:
        return
    witness = find_witness(examination)
    if isinstance(witness, str):
        assert "underflows or overflows" in witness
        return
    length = np.hypot(np.linalg.norm(witness.direction.dW), np.linalg.norm(witness.direction.dV))
    assert length == pytest.approx(1.0, abs=1e-14)
    assert witness.rate.upper < 0.0
    if witness.lower_point is not None:
        assert witness.objective_there is not None
        assert witness.objective_there.upper < witness.objective.lower
        if problem.loss.name == "squared":
            assert squared_exactly(problem, witness.lower_point) < squared_exactly(problem, problem.point)


def test_a_certified_point_has_no_witness() -> None:
    assert find_witness(examine(load_problem(CONFIGS / "example-1.yaml"))) == "the verdict is CERTIFIED"


def test_a_gradient_that_float64_takes_for_zero_has_a_witness() -> None:
    """E[ℓ' x] = −2^−60/9, which a float64 sum of residuals between −1 and 1 does not see."""
    y = [1.0, 2.0**-60, -1.0, *[0.0] * 6]
    witness = found(Problem.from_arrays(x=[[1.0]] * 9, y=y, f=[[0.0]] * 9, w=[0.0], V=[[0.0]], epsilon=0.0))
    assert witness.condition == "gradient"
    assert witness.rate.lower <= -(2.0**-60) / 9.0 <= witness.rate.upper < 0.0


def test_a_gradient_that_underflows_has_none_and_says_so() -> None:
    problem = Problem.from_arrays(x=[[1e-200]], y=[1e-200], f=[[0.0]], w=[0.0], V=[[0.0]], epsilon=0.0)
    examination = examine(problem)
    assert examination.report.verdict is Verdict.REFUTED
    refusal = find_witness(examination)
    assert isinstance(refusal, str)
    assert "underflows" in refusal


def test_the_file_holds_numbers_only_and_reads_back(tmp_path: Path) -> None:
    witness = found(load_problem(CONFIGS / "saddle.yaml"))
    assert witness.lower_point is not None
    write_witness(str(tmp_path / "witness.npz"), witness)
    with np.load(tmp_path / "witness.npz", allow_pickle=False) as read:
        assert str(read["condition"]) == witness.condition
        np.testing.assert_array_equal(read["dw"], witness.direction.dW[0])
        np.testing.assert_array_equal(read["dV"], witness.direction.dV)
        np.testing.assert_array_equal(read["rate"], [witness.rate.lower, witness.rate.upper])
        np.testing.assert_array_equal(read["w"], witness.lower_point.W[0])
        np.testing.assert_array_equal(read["V"], witness.lower_point.V)
        assert read["objective_there"][1] < read["objective"][0]
