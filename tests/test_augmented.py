"""The best linear predictor on (x, f_θ(x)): against least squares, high precision and the formulas."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
from click.testing import CliRunner
from families import FAMILIES, make, to_problem
from flint import arb
from oracle import Truth
from oracle_linear import attained, linear_minimum

import resnet_cert.problem.problem
from resnet_cert import Problem, check, load_problem
from resnet_cert.check import examine
from resnet_cert.cli import cli
from resnet_cert.compare.augmented import augmented_here
from resnet_cert.compare.linear_predictor import LinearMinimum
from resnet_cert.numerics.enclosure import Array, Ball, Enclosure
from resnet_cert.numerics.jax64 import jnp
from resnet_cert.outcomes import RequestError
from resnet_cert.problem.custom_loss import CustomLoss
from resnet_cert.results import Augmented

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
LOSSES = ("squared", "logistic", "pseudo_huber", "poisson")
N, D, K = 24, 2, 3


def arrays(seed: int, loss: str = "squared", scale: float = 0.5) -> dict[str, Array]:
    """A problem of normal numbers, its targets as the loss wants them."""
    random = np.random.default_rng(seed)
    y = random.normal(size=N)
    if loss == "logistic":
        y = np.sign(y)
    if loss == "poisson":
        y = np.floor(np.exp(y))
    return {
        "x": random.normal(size=(N, D)),
        "y": y,
        "f": random.normal(size=(N, K)),
        "w": scale * random.normal(size=D),
        "V": scale * random.normal(size=(D, K)),
        "probabilities": random.dirichlet(np.full(N, 4.0)),
    }


def augmented(problem: Problem) -> Augmented:
    found = check(problem, augmented=True).augmented
    assert found is not None
    return found


def holds(e: Enclosure, x: float, rounding: float = 1e-12) -> bool:
    return e.lower - rounding <= x <= e.upper + rounding


def value(loss: str, data: dict[str, Array], u: Array, z: Array) -> float:
    """E[ℓ(uᵀx + zᵀf)], as it is written."""
    p, y = data["x"] @ u + data["f"] @ z, data["y"]
    ell = {
        "squared": (p - y) ** 2 / 2,
        "logistic": np.log1p(np.exp(-y * p)),
        "pseudo_huber": np.sqrt(1 + (p - y) ** 2) - 1,
        "poisson": np.exp(p) - y * p,
    }[loss]
    return float(np.average(ell, weights=data["probabilities"]))


def derivative(loss: str, p: Array, y: Array) -> Array:
    return {
        "squared": lambda: p - y,
        "logistic": lambda: -y / (1 + np.exp(y * p)),
        "pseudo_huber": lambda: (p - y) / np.sqrt(1 + (p - y) ** 2),
        "poisson": lambda: np.exp(p) - y,
    }[loss]()


@pytest.mark.parametrize("seed", range(5))
def test_for_the_squared_loss_it_is_least_squares(seed: int):
    data = arrays(seed)
    found = augmented(Problem.from_arrays(**data))
    rows, root = np.concatenate([data["x"], data["f"]], axis=1), np.sqrt(data["probabilities"])
    best, *_ = np.linalg.lstsq(root[:, None] * rows, root * data["y"], rcond=None)
    assert found.attained
    assert found.norm == pytest.approx(float(np.linalg.norm(best)), rel=1e-10)
    assert found.r == pytest.approx(1.01 * float(np.linalg.norm(best)), rel=1e-10)
    assert found.minimum.value == pytest.approx(value("squared", data, best[:D], best[D:]), rel=1e-12)

    with mpmath.workdps(60):
        pi = mpmath.diag([mpmath.mpf(float(p)) for p in data["probabilities"]])
        X, y = mpmath.matrix(rows.tolist()), mpmath.matrix(data["y"].tolist())
        residual = X * mpmath.lu_solve(X.T * pi * X, X.T * pi * y) - y
        exact = (residual.T * pi * residual)[0] / 2 / mpmath.fsum(pi[i, i] for i in range(N))
        assert found.minimum.lower <= exact <= found.minimum.upper
    assert found.minimum.upper - found.minimum.lower < 1e-12


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("seed", range(4))
def test_the_bounds_are_those_of_the_formulas_and_hold(loss: str, seed: int):
    data = arrays(seed, loss)
    report = check(Problem.from_arrays(loss=loss, **data), augmented=True)
    found = report.augmented
    assert found is not None
    assert found.attained
    w, V, x, y, f, pi = (data[name] for name in ("w", "V", "x", "y", "f", "probabilities"))

    u, z = minimiser(loss, data)
    h = x + f @ V.T
    slope = derivative(loss, h @ w, y) * pi / pi.sum()
    g_w, a = slope @ h, slope @ f
    F = value(loss, data, w, V.T @ w)
    gap, functional = F - value(loss, data, u, z), (w - u) @ g_w + (V.T @ u - z) @ a
    lower_bound = gap / np.hypot(np.linalg.norm(w - u), np.linalg.norm(V.T @ u - z) / np.linalg.norm(w))
    assert 0.0 < gap < functional
    assert holds(found.gap, gap)
    assert holds(found.linear_functional, functional, 1e-7)
    assert found.lower_bound is not None
    assert holds(found.lower_bound, lower_bound, 1e-7)
    assert found.linear_functional.upper - found.linear_functional.lower < 1e-4
    assert found.gap.lower <= found.linear_functional.upper
    assert found.lower_bound.upper < report.gradient.norm.lower
    assert found.holds


def minimiser(loss: str, data: dict[str, Array]) -> tuple[Array, Array]:
    """argmin E[ℓ(uᵀx + zᵀf)] by Newton's method, with a curvature from difference quotients."""
    rows, at = np.concatenate([data["x"], data["f"]], axis=1), np.zeros(D + K)
    pi = data["probabilities"] / data["probabilities"].sum()
    for _ in range(60):
        p, y = rows @ at, data["y"]
        bend = (derivative(loss, p + 1e-6, y) - derivative(loss, p - 1e-6, y)) / 2e-6
        step = np.linalg.solve(rows.T @ ((pi * bend)[:, None] * rows), rows.T @ (pi * derivative(loss, p, y)))
        at = at - step / max(1.0, np.linalg.norm(step))
    return at[:D], at[D:]


@pytest.mark.parametrize("loss", LOSSES)
def test_the_inequality_holds_for_every_predictor(loss: str):
    random = np.random.default_rng(1)
    for seed in range(20):
        data = arrays(seed, loss)
        problem = Problem.from_arrays(loss=loss, **data)
        examination = examine(problem)
        u, z = random.normal(size=D), random.normal(size=K)
        if seed % 2:  # close to the network's own, where the bound is nearly attained
            u, z = data["w"] + 1e-3 * u, data["V"].T @ data["w"] + 1e-3 * z
        there = Enclosure.around(value(loss, data, u, z), 1e-12)
        at = LinearMinimum(there, there, Ball(np.concatenate([u, z]), 0.0), 100.0, True, "")
        gradient_norm = examination.report.gradient.norm
        found = augmented_here(problem, examination.moments, gradient_norm, at)
        assert found.gap.upper <= found.linear_functional.lower
        assert found.lower_bound is not None
        assert found.lower_bound.upper <= gradient_norm.lower
        if seed % 2:
            assert found.linear_functional.value - found.gap.value < 1e-3


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid:RuntimeWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_in_every_family_the_minimum_is_held_and_no_bound_is_broken(
    family: str, monkeypatch: pytest.MonkeyPatch
):
    module = importlib.import_module("resnet_cert.check")
    monkeypatch.setattr(module, "crosscheck", lambda *arguments: None)
    sample = make(family, 500)
    found = check(to_problem(sample), escalate=False, augmented=True).augmented
    assert found is not None
    wider = replace(sample, x=np.concatenate([sample.x, sample.f], axis=1))
    assert found.attained == attained(wider)
    exact = linear_minimum(Truth(wider), found.r).value
    assert not exact < arb(found.minimum.lower)
    assert not exact > arb(found.minimum.upper)
    assert found.gap.upper >= 0.0  # the ball holds the network or what is better
    assert found.gap.lower <= found.linear_functional.upper
    assert found.holds is not False


def test_the_bounds_hold_for_every_place_and_value_that_the_minimum_may_have():
    random = np.random.default_rng(2)
    for seed in range(10):
        data = arrays(seed)
        problem = Problem.from_arrays(**data)
        examination = examine(problem)
        center, delta = random.normal(size=D + K), 0.5
        minimum = Enclosure(1.0, 0.75, 1.0)
        best = LinearMinimum(minimum, Enclosure.exact(1.0), Ball(center, delta), 10.0, True, "")
        found = augmented_here(problem, examination.moments, examination.report.gradient.norm, best)
        F = examination.report.objective.F.value
        assert holds(found.gap, F - 1.0, 0.0)
        assert holds(found.gap, F - 0.75, 0.0)
        w, V = data["w"], data["V"]
        residual = (data["x"] + data["f"] @ V.T) @ w - data["y"]
        for _ in range(20):
            offset = random.normal(size=D + K)
            at = center + 0.999 * delta * offset / np.linalg.norm(offset)
            u, z = at[:D], at[D:]
            difference = (data["x"] + data["f"] @ V.T) @ w - data["x"] @ u - data["f"] @ z
            functional = float(np.average(residual * difference, weights=data["probabilities"]))
            assert holds(found.linear_functional, functional, 0.0)
            length = np.hypot(np.linalg.norm(w - u), np.linalg.norm(V.T @ u - z) / np.linalg.norm(w))
            assert found.lower_bound is not None
            assert holds(found.lower_bound, (F - 1.0) / length, 0.0)
            assert holds(found.lower_bound, (F - 0.75) / length, 0.0)


def test_a_loss_that_is_not_convex_where_the_minimum_is_sought_is_refused():
    def dented(p: Any, y: Any) -> Any:
        return (p - 25.0) ** 2 / 2 - jnp.maximum(p - 20.0, 0.0) ** 4 + 0.0 * y

    problem = Problem.from_arrays(
        x=[[0.01], [-0.01]],
        y=[1.0, 1.0],
        f=[[1.0], [1.0]],
        w=[30.0],
        V=[[0.0]],
        loss=CustomLoss(dented, "dented"),
    )
    assert check(problem).augmented is None
    with pytest.raises(RequestError, match="Assumption 1"):
        check(problem, augmented=True)


def test_with_features_that_are_zero_it_is_the_best_linear_predictor():
    data = arrays(0)
    report = check(Problem.from_arrays(**{**data, "f": np.zeros((N, K))}), augmented=True)
    assert report.augmented is not None
    low, high = report.augmented.minimum, report.objective.F_lin_min
    assert max(low.lower, high.lower) <= min(low.upper, high.upper)
    assert report.augmented.norm == pytest.approx(report.objective.norm_w_star, rel=1e-12)


def test_at_a_stationary_point_with_w_nothing_linear_in_f_is_better():
    found = augmented(load_problem(CONFIGS / "diabetes.yaml"))
    assert found.attained
    assert abs(found.gap.upper) < 1e-12
    assert found.minimum.upper < check(load_problem(CONFIGS / "diabetes.yaml")).objective.F_lin_min.lower


def test_where_no_minimum_is_attained_the_ball_holds_the_network():
    data = arrays(3, "logistic", scale=2.0)
    data["f"][:, 0] = 2.0 * data["y"]  # separates the data
    found = augmented(Problem.from_arrays(loss="logistic", **data))
    assert not found.attained
    own = np.concatenate([data["w"], data["V"].T @ data["w"]])
    assert found.r == pytest.approx(1.01 * float(np.linalg.norm(own)), rel=1e-12)
    assert found.gap.upper > 0.0
    assert found.gap.lower <= found.linear_functional.upper


def test_at_w_0_there_is_no_lower_bound_and_a_ball_all_the_same():
    data = arrays(3, "logistic")
    data["f"][:, 0] = 2.0 * data["y"]
    found = augmented(Problem.from_arrays(loss="logistic", **{**data, "w": np.zeros(D)}))
    assert (found.lower_bound, found.holds, found.attained, found.r) == (None, None, False, 1.0)
    assert found.gap.lower <= found.linear_functional.upper


def test_a_regularised_point_gets_the_bounds_of_F_but_none_of_its_gradient():
    data = arrays(1)
    plain, regularised = (augmented(Problem.from_arrays(l2=l2, **data)) for l2 in (None, 0.25))
    assert regularised == replace(plain, lower_bound=None, holds=None)


def test_features_of_a_network_need_not_be_held(monkeypatch: pytest.MonkeyPatch):
    problem = load_problem(CONFIGS / "diabetes.yaml")
    held = augmented(problem)
    monkeypatch.setattr(resnet_cert.problem.problem, "HELD_BYTES", 0)
    assert augmented(problem).minimum.value == pytest.approx(held.minimum.value, rel=1e-13)


def test_every_chunk_gets_its_own_features(monkeypatch: pytest.MonkeyPatch):
    random = np.random.default_rng(0)
    x, f = random.normal(size=(1100, D)), random.normal(size=(1100, K))
    problem = Problem.from_arrays(
        x=x, y=random.normal(size=1100) + f[:, 0], f=f, w=np.ones(D), V=np.zeros((D, K))
    )
    whole = augmented(problem)
    monkeypatch.setattr(resnet_cert.problem.problem, "CHUNK_BYTES", 1)
    assert problem.chunk_rows == 512
    assert augmented(problem).minimum.value == pytest.approx(whole.minimum.value, rel=1e-13)


def test_it_is_in_the_report_when_it_is_asked_for():
    spec = str(CONFIGS / "diabetes-halfway.yaml")
    run = CliRunner().invoke
    without = json.loads(run(cli, ["check", spec, "--format", "json"]).stdout)["reports"][0]
    assert "augmented" not in without
    report = json.loads(run(cli, ["check", spec, "--augmented", "--format", "json"]).stdout)["reports"][0]
    assert list(report["augmented"]) == list(Augmented.__dataclass_fields__)
    assert {name: report[name] for name in without if name != "seconds"} == {
        name: without[name] for name in without if name != "seconds"
    }
    assert "(x, f)" not in run(cli, ["check", spec, "-v"]).stdout
    shown = run(cli, ["check", spec, "--augmented"]).stdout
    assert "min E[ℓ(uᵀx + zᵀf)]" in shown
    assert "gap to (x, f)" in shown
