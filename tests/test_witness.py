"""A witness is a direction of descent, and a point where F is lower, that anyone can check."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from resnet_cert import Problem, load_problem
from resnet_cert.check import examine
from resnet_cert.outcomes import Verdict
from resnet_cert.search.witness import find_witness, write_witness

CONFIGS = Path(__file__).parent.parent / "configs"
REFUTED = ("example-1-refuted", "saddle", "diabetes-halfway", "breast-cancer-halfway", "yun-sra-jadbabaie")


def objective(problem: Problem, w: np.ndarray, V: np.ndarray) -> float:
    [chunk] = problem.chunks()
    weight = np.ones(len(chunk.y)) if chunk.weight is None else chunk.weight
    losses = problem.loss.value((chunk.x + chunk.f @ V.T) @ w, chunk.y)
    return float(np.average(losses, weights=weight))


@pytest.mark.parametrize("name", REFUTED)
def test_a_witness_names_the_condition_and_leads_to_a_lower_point(name: str):
    problem = load_problem(CONFIGS / f"{name}.yaml")
    examination = examine(problem)
    witness = find_witness(examination)
    assert witness is not None
    violated = {"gradient": examination.report.gradient, "curvature": examination.report.hessian}
    assert violated[witness.condition].verdict is Verdict.REFUTED
    assert witness.rate.upper < 0.0
    assert witness.lower_point is not None
    assert witness.F_there is not None
    before = objective(problem, problem.point.w, problem.point.V)
    after = objective(problem, witness.lower_point.w, witness.lower_point.V)
    assert after < before
    assert witness.F_there.lower - 1e-12 <= after <= witness.F_there.upper + 1e-12
    assert witness.F_there.upper < witness.F.lower


@pytest.mark.parametrize("name", REFUTED)
def test_the_rate_is_the_derivative_along_the_direction(name: str):
    problem = load_problem(CONFIGS / f"{name}.yaml")
    witness = find_witness(examine(problem))
    assert witness is not None
    [chunk] = problem.chunks()
    weight = np.ones(len(chunk.y)) if chunk.weight is None else chunk.weight

    def along(t: jax.Array) -> jax.Array:
        w, V = problem.point.w + t * witness.direction.dw, problem.point.V + t * witness.direction.dV
        return jax.numpy.average(problem.loss.value((chunk.x + chunk.f @ V.T) @ w, chunk.y), weights=weight)

    slope = jax.grad(along)
    rate = slope(0.0) if witness.condition == "gradient" else jax.grad(slope)(0.0)
    assert float(rate) == pytest.approx(witness.rate.value, rel=1e-9, abs=1e-12)


def test_a_certified_point_has_no_witness():
    assert find_witness(examine(load_problem(CONFIGS / "example-1.yaml"))) is None


def test_a_gradient_that_float64_takes_for_zero_has_a_witness():
    """E[ℓ' x] = −2^−60/9, which a float64 sum of residuals between −1 and 1 does not see."""
    y = [1.0, 2.0**-60, -1.0, *[0.0] * 6]
    witness = find_witness(
        examine(Problem.from_arrays(x=[[1.0]] * 9, y=y, f=[[0.0]] * 9, w=[0.0], V=[[0.0]], epsilon=0.0))
    )
    assert witness is not None
    assert witness.condition == "gradient"
    assert witness.rate.lower <= -(2.0**-60) / 9.0 <= witness.rate.upper < 0.0


def test_a_gradient_that_underflows_has_none():
    problem = Problem.from_arrays(x=[[1e-200]], y=[1e-200], f=[[0.0]], w=[0.0], V=[[0.0]], epsilon=0.0)
    examination = examine(problem)
    assert examination.report.verdict is Verdict.REFUTED
    assert find_witness(examination) is None


def test_the_file_holds_numbers_only_and_reads_back(tmp_path: Path):
    witness = find_witness(examine(load_problem(CONFIGS / "saddle.yaml")))
    assert witness is not None
    assert witness.lower_point is not None
    write_witness(str(tmp_path / "witness.npz"), witness)
    with np.load(tmp_path / "witness.npz", allow_pickle=False) as read:
        assert str(read["condition"]) == witness.condition
        np.testing.assert_array_equal(read["dw"], witness.direction.dw)
        np.testing.assert_array_equal(read["dV"], witness.direction.dV)
        np.testing.assert_array_equal(read["rate"], [witness.rate.lower, witness.rate.upper])
        np.testing.assert_array_equal(read["w"], witness.lower_point.w)
        np.testing.assert_array_equal(read["V"], witness.lower_point.V)
        assert read["F_there"][1] < read["F"][0]
