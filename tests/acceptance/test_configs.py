"""Every spec in configs/ gets the verdict it names and the numbers it claims.

The claims are closed forms, or computed here once more from the CSV files with plain NumPy.
"""

from __future__ import annotations

import csv
import functools
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from reports import leave_out_crosscheck

from resnet_cert import Enclosure, Problem, Report, check, load_problem
from resnet_cert.problem.losses import named_loss
from resnet_cert.problem.problem import Lipschitz

pytestmark = pytest.mark.drift

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
EXPECT = "# expect: "
CROSSCHECKED = ("example-1", "breast-cancer")
"""A loss each; the derivatives of the others, which would be compiled anew, are compared in long runs."""


@functools.cache
def report(name: str, epsilon: float | None = None) -> Report:
    """The report on configs/name.yaml, at another ε if one is given, without automatic differentiation."""
    problem = load_problem(CONFIGS / f"{name}.yaml")
    with pytest.MonkeyPatch.context() as patch:
        leave_out_crosscheck(patch)
        return check(problem if epsilon is None else replace(problem, epsilon=epsilon))


def assert_encloses(enclosure: Enclosure | None, exact: Fraction | float, width: float = 1e-11) -> None:
    """The exact value lies inside, and the enclosure is no wider than `width`."""
    assert enclosure is not None
    assert Fraction(enclosure.lower) <= Fraction(exact) <= Fraction(enclosure.upper)
    assert enclosure.upper - enclosure.lower <= width


@pytest.mark.parametrize("name", NAMES)
def test_each_config_gets_the_verdict_it_names(name: str, pytestconfig: pytest.Config) -> None:
    first = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith(EXPECT)
    assert report(name).verdict.value == first.removeprefix(EXPECT)
    if name in CROSSCHECKED or pytestconfig.getoption("--long"):
        assert check(load_problem(CONFIGS / f"{name}.yaml")).verdict is report(name).verdict


def test_the_configs_show_all_three_verdicts() -> None:
    assert {report(name).verdict.value for name in NAMES} == {"CERTIFIED", "REFUTED", "UNDECIDED"}


def test_example_1_is_stationary_and_far_above_the_linear_predictor() -> None:
    found = report("example-1")
    assert found.gradient.norm.upper < 1e-12
    assert_encloses(found.objective.F, 0.5, width=1e-14)
    assert found.objective.F_lin_min.upper < 1e-12
    assert found.hessian.lambda_min.value == pytest.approx(-0.1, abs=1e-14)
    # μ2 = 3·J·‖f‖ with b = 10.1: J² = (1 + 1.01)² + 1.01².
    smallest = 0.1**2 / (3 * math.hypot(2.01, 1.01) * 0.1)
    assert found.smallest_epsilon is not None
    assert found.smallest_epsilon.value == pytest.approx(smallest, rel=1e-9)
    assert report("example-1", smallest * 1.001).verdict.value == "CERTIFIED"
    assert report("example-1", smallest * 0.999).verdict.value == "REFUTED"


def test_the_exact_example_encloses_its_exact_numbers() -> None:
    found = report("example-1-exact")
    assert_encloses(found.objective.F, Fraction(1, 2))
    assert_encloses(found.objective.F_lin_min, 0)
    assert_encloses(found.gradient.norm, 0)
    assert_encloses(found.hessian.lambda_min, Fraction(-1, 8))
    assert_encloses(found.smallest_epsilon, Fraction(1, 64))
    assert found.constants.source["mu2"] == "given"


def test_the_sharp_family_has_the_gap_and_the_smallest_epsilon_it_claims() -> None:
    found = report("sharp")
    assert_encloses(found.objective.F, Fraction(1, 2))
    a = Fraction(1, 16)
    assert_encloses(found.objective.F_lin_min, (1 - a) ** 2 / 2)
    assert_encloses(found.objective.gap, a - a**2 / 2)
    assert_encloses(found.gradient.norm, 0)
    curvature = (1.0 - math.sqrt(1.0 + 4.0 / 256.0)) / 2.0
    assert found.hessian.lambda_min.value == pytest.approx(curvature, rel=1e-11)
    assert report("sharp", 3.412e-6).verdict.value == "REFUTED"  # one step of the last digit below


def test_the_gap_of_the_sharp_family_shrinks_like_the_fourth_root_of_epsilon() -> None:
    found = report("sharp")
    assert found.smallest_epsilon is not None
    assert found.constants.mu2 is not None
    fourth_root = (found.constants.mu2 * found.smallest_epsilon.value) ** 0.25
    assert found.objective.gap.value / fourth_root == pytest.approx(1.0, abs=0.05)


def test_the_block_of_yun_sra_jadbabaie_reaches_their_value() -> None:
    rho = Fraction(1)
    claimed = rho**2 * (12 * rho**2 + 82 * rho + 215) / (21 * rho**2 + 156 * rho + 420)
    assert claimed == Fraction(103, 199)
    for name, F in (("yun-sra-jadbabaie", claimed), ("yun-sra-jadbabaie-optimum", Fraction(29, 57))):
        found = report(name)
        assert_encloses(found.objective.F, F)
        assert_encloses(found.objective.F_lin_min, 8 * rho**2 / 15, width=1e-9)
        assert found.corollary1.verdict.value == "CERTIFIED"
    assert report("yun-sra-jadbabaie").gradient.norm.value == pytest.approx(0.0929, abs=1e-4)


@pytest.mark.parametrize("rho", [0.125, 0.5, 2.0, 3.75])
def test_the_block_of_yun_sra_jadbabaie_reaches_their_value_for_every_rho(rho: float) -> None:
    """h = x + (ρ/2)·relu(x − 3) and least squares on (h, 1), the mean of squares without ½."""
    X, y = np.arange(6.0), np.array([-rho, 1 - rho, 2 + rho, 3 - rho, 4 + rho, 5 + rho])
    x, f = np.stack([X, np.ones(6)], axis=1), np.maximum(X - 3.0, 0.0)[:, None]
    V = np.array([[rho / 2.0], [0.0]])
    w = np.linalg.lstsq(x + f @ V.T, y)[0]
    found = check(Problem.from_arrays(x=x, y=y, f=f, w=w, V=V, loss=named_loss("squared", 2.0)))
    reached = rho**2 * (12 * rho**2 + 82 * rho + 215) / (21 * rho**2 + 156 * rho + 420)
    assert found.objective.F.value == pytest.approx(reached, rel=1e-13)
    assert found.objective.F_lin_min.value == pytest.approx(8 * rho**2 / 15, rel=1e-12)


def test_the_saddle_is_refuted_by_its_curvature_alone() -> None:
    found = report("saddle")
    assert found.gradient.verdict.value == "CERTIFIED"
    assert found.hessian.verdict.value == "REFUTED"
    assert_encloses(found.hessian.lambda_min, -2)
    assert_encloses(found.objective.F, 1)


def test_the_point_too_close_to_call_is_decided_a_little_further_off() -> None:
    found = report("too-close")
    assert found.hessian.threshold is not None
    assert_encloses(found.hessian.lambda_min, Fraction(-1, 16))
    assert_encloses(found.hessian.threshold, Fraction(1, 16))
    assert found.gradient.verdict.value == "CERTIFIED"
    assert found.hessian.verdict.value == "UNDECIDED"
    assert report("too-close", found.epsilon * (1.0 + 1e-9)).verdict.value == "CERTIFIED"
    assert report("too-close", found.epsilon * (1.0 - 1e-9)).verdict.value == "REFUTED"


@pytest.mark.parametrize(("name", "bound"), [("example-1-exact", 0.8436), ("too-close", 1.307)])
def test_claimed_constants_are_valid(name: str, bound: float, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_crosscheck(monkeypatch)
    problem = load_problem(CONFIGS / f"{name}.yaml")
    claimed, computed = problem.lipschitz.mu2, check(replace(problem, lipschitz=Lipschitz())).constants.mu2
    assert claimed is not None
    assert computed is not None
    assert computed <= claimed
    assert computed == pytest.approx(bound, abs=1e-3)


MEANS = ("texture", "area", "smoothness", "concavity", "symmetry", "fractal dimension")
REAL = {
    "diabetes": (["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6", "one"], "progression"),
    "breast-cancer": ([*(f"mean {name}" for name in MEANS), "one"], "benign"),
}


def real_data(name: str) -> tuple[np.ndarray, np.ndarray]:
    inputs, target = REAL[name]
    with (CONFIGS / "data" / f"{name}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    x = np.array([[float(row[column]) for column in inputs] for row in rows])
    return x, np.array([float(row[target]) for row in rows])


def slope(name: str, p: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ℓ, ℓ', ℓ'' of the loss of that data set."""
    if name == "diabetes":
        return 0.5 * (p - y) ** 2, p - y, np.ones_like(p)
    sigmoid = 1.0 / (1.0 + np.exp(y * p))
    return np.logaddexp(0.0, -y * p), -y * sigmoid, sigmoid * (1.0 - sigmoid)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("stage", ["", "-halfway"])
def test_trained_points_have_the_objective_and_gradient_of_a_plain_computation(name: str, stage: str) -> None:
    x, y = real_data(name)
    at = np.load(CONFIGS / "data" / f"{name}{stage}.npz")
    f = np.tanh(x @ at["l1.w"].T + at["l1.b"]) @ at["l2.w"].T + at["l2.b"]
    h = x + f @ at["V"].T
    value, first, _ = slope(name, h @ at["w"], y)
    g_w, a = (first[:, None] * h).mean(axis=0), (first[:, None] * f).mean(axis=0)
    found = report(f"{name}{stage}")
    assert found.problem.n == len(y)
    assert found.objective.F.value == pytest.approx(value.mean(), rel=1e-11)
    gradient = math.hypot(np.linalg.norm(g_w), np.linalg.norm(at["w"]) * np.linalg.norm(a))
    assert found.gradient.norm.value == pytest.approx(gradient, abs=1e-11)


@pytest.mark.parametrize("name", REAL)
def test_trained_blocks_beat_the_best_linear_predictor(name: str) -> None:
    x, y = real_data(name)
    w = np.zeros(x.shape[1])
    for _ in range(30):  # Newton's method
        _, first, second = slope(name, x @ w, y)
        w -= np.linalg.solve(x.T @ (second[:, None] * x), x.T @ first)
    found = report(name)
    assert found.objective.F_lin_min.value == pytest.approx(slope(name, x @ w, y)[0].mean(), rel=1e-8)
    assert found.objective.attained
    assert found.objective.gap.upper < -0.04
    assert found.corollary1.verdict.value == "CERTIFIED"
    assert found.hessian.lambda_min.lower > -1e-6


@pytest.mark.parametrize("name", REAL)
def test_points_half_way_through_training_fail_by_their_gradient(name: str) -> None:
    assert report(f"{name}-halfway").gradient.verdict.value == "REFUTED"
    assert report(f"{name}-halfway", 1e-3).verdict.value == "REFUTED"


def wine() -> tuple[np.ndarray, np.ndarray]:
    """x (n, 4) and the classes as unit vectors (n, 3)."""
    with (CONFIGS / "data" / "wine.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    x = [[float(row[name]) for name in ("alcohol", "malic_acid", "color_intensity", "one")] for row in rows]
    return np.array(x), np.eye(3)[[int(float(row["cultivar"])) for row in rows]]


def softmax_terms(p: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ℓ, ∇ℓ, ∇²ℓ of the cross-entropy of rows p against unit vectors y."""
    e = np.exp(p - p.max(axis=1, keepdims=True))
    s = e / e.sum(axis=1, keepdims=True)
    return -np.log((s * y).sum(axis=1)), s - y, s[:, :, None] * np.eye(3) - s[:, :, None] * s[:, None, :]


@pytest.mark.parametrize("name", ["wine", "wine-halfway"])
def test_the_block_of_three_classes_has_the_numbers_of_a_plain_computation(name: str) -> None:
    x, y = wine()
    at = np.load(CONFIGS / "data" / f"{name}.npz")
    f = np.tanh(x @ at["l1.w"].T + at["l1.b"]) @ at["l2.w"].T + at["l2.b"]
    h = x + f @ at["V"].T
    value, first, second = softmax_terms(h @ at["W"].T, y)
    g_W, A_f = first.T @ h / len(y), first.T @ f / len(y)
    found = report(name)
    assert (found.problem.n, found.problem.d, found.problem.k, found.problem.outputs) == (178, 4, 2, 3)
    assert found.objective.F.value == pytest.approx(value.mean(), rel=1e-11)
    gradient = math.hypot(np.linalg.norm(g_W), np.linalg.norm(at["W"].T @ A_f))
    assert found.gradient.norm.value == pytest.approx(gradient, abs=1e-11)
    assert found.gradient.norm.upper - found.gradient.norm.lower < 1e-7

    # min F_lin by Newton's method; the Hessian is singular along equal rows of W.
    W = np.zeros((3, 4))
    for _ in range(30):
        value, first, second = softmax_terms(x @ W.T, y)
        gradient = (first.T @ x / len(y)).ravel()
        bend = np.einsum("iab,ij,il->ajbl", second, x, x).reshape(12, 12) / len(y)
        W -= (np.linalg.pinv(bend, rcond=1e-10) @ gradient).reshape(3, 4)
    assert found.objective.F_lin_min.value == pytest.approx(softmax_terms(x @ W.T, y)[0].mean(), rel=1e-8)
    assert found.objective.attained
    assert found.objective.norm_w_star == pytest.approx(np.linalg.norm(W), rel=1e-6)


def test_the_trained_block_of_three_classes_is_certified_and_beats_the_best_linear_predictor() -> None:
    found = report("wine")
    assert found.gradient.norm.upper < 1e-11
    assert found.hessian.lambda_min.lower > -1e-8
    assert found.objective.gap.upper < -0.08
    assert found.corollary1.verdict.value == "CERTIFIED"
    assert report("wine-halfway").gradient.verdict.value == "REFUTED"
    assert report("wine-halfway", 1e-2).verdict.value == "REFUTED"


def test_one_input_and_two_outputs_have_a_strict_spurious_minimum() -> None:
    found = report("one-input-two-outputs")
    assert found.gradient.norm.upper < 1e-15
    assert_encloses(found.objective.F, Fraction(1, 4))
    assert_encloses(found.objective.F_lin_min, Fraction(1, 16))
    assert_encloses(found.objective.gap, Fraction(3, 16))
    # ½ times the Hessian of the sum over both samples, in (W_1, W_2, V).
    hessian = np.array([[3.0, 0.0, 1.0], [0.0, 1.0, 0.5], [1.0, 0.5, 1.0]]) / 2.0
    assert found.hessian.lambda_min.value == pytest.approx(np.linalg.eigvalsh(hessian)[0], abs=1e-12)
    assert found.hessian.lambda_min.lower > 0.1415
    assert found.corollary1.verdict.value == "REFUTED"
    assert found.corollary1.reason is not None
    assert "d = 1 < q = 2" in found.corollary1.reason
