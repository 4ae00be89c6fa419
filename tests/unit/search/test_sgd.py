"""sgd: the run is the plain loop of the theorem, its averages are exact, and the bound holds as promised."""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from selections import each_once, first

from resnet_cert import Problem, RequestError, load_problem
from resnet_cert.cli import cli
from resnet_cert.compare.theorem4 import GROWTH, largest_features, layer_norms, theorem4_constants
from resnet_cert.numerics.jax64 import jax, jnp
from resnet_cert.numerics.radius import NOTHING
from resnet_cert.problem.custom_loss import CustomLoss
from resnet_cert.problem.losses import named_loss
from resnet_cert.problem.networks import ACTIVATIONS, NetworkFeatures, draw_layers
from resnet_cert.problem.problem import Domain, GivenFeatures
from resnet_cert.search import sgd as module
from resnet_cert.search.sgd import SgdRun, sgd

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
Array = np.ndarray

# ℓ(p; y) and ℓ'(p; y), from their definitions
LOSSES = {
    "squared": (lambda p, y: (p - y) ** 2 / 2.0, lambda p, y: p - y),
    "logistic": (lambda p, y: np.log1p(np.exp(-y * p)), lambda p, y: -y / (1.0 + np.exp(y * p))),
    "pseudo_huber": (
        lambda p, y: np.sqrt(1.0 + (p - y) ** 2) - 1.0,
        lambda p, y: (p - y) / np.sqrt(1.0 + (p - y) ** 2),
    ),
    "poisson": (lambda p, y: np.exp(p) - y * p, lambda p, y: np.exp(p) - y),
}


def problem_of(loss: str, seed: int = 0, *, weighted: bool = False) -> Problem:
    rng = np.random.default_rng(seed)
    n, d, k = 30, 3, 2
    x, f = rng.normal(size=(n, d)), rng.normal(size=(n, k))
    y = x.sum(axis=1) + f[:, 0] + rng.normal(size=n)
    if loss == "logistic":
        y = np.where(y > 0.0, 1.0, -1.0)
    if loss == "poisson":
        y = rng.poisson(1.0, n).astype(np.float64)
    pi = rng.dirichlet(np.full(n, 0.5)) if weighted else None
    return Problem.from_arrays(x=x, y=y, f=f, w=np.zeros(d), V=np.zeros((d, k)), loss=loss, probabilities=pi)


def arrays(problem: Problem) -> tuple[Array, Array, Array, Array]:
    [chunk] = problem.chunks()
    y = chunk.y[:, 0]
    y = 2.0 * y - 1.0 if problem.loss.name == "logistic" else y  # as a user has them
    return chunk.x, y, chunk.f, chunk.weights / chunk.weights.sum()


def constants_of(problem: Problem, b: float, loss: Any = None) -> Any:
    [chunk] = problem.chunks()
    f_norm = np.linalg.norm(chunk.f, axis=1)
    return theorem4_constants(loss or problem.loss, chunk.x, chunk.y, chunk.omega, f_norm, b)


def draws(problem: Problem, seed: int, run: int, steps: int) -> Array:
    """The samples of one run: the first whose cumulated probability exceeds a uniform number."""
    rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(run + 1)[run])
    cumulated = np.cumsum(arrays(problem)[3])
    return np.array([int(np.sum(cumulated <= u * cumulated[-1])) for u in rng.random(steps)])


def projected(z: Array, radius: float) -> Array:
    return z * min(1.0, radius / max(float(np.linalg.norm(z)), 1e-300))


def plain_loop(problem: Problem, result: SgdRun, run: int = 0) -> tuple[Array, Array, Array]:
    """F(z_t) and z_t for every step, and the sampled losses ℓ_t(z_t): Theorem 4 step by step in NumPy."""
    report = result.report
    x, y, f, pi = arrays(problem)
    value, slope = LOSSES[problem.loss.name]
    g, z = np.hstack([x, f]), np.zeros(x.shape[1] + f.shape[1])
    eta = report.constants.D / (report.constants.l * math.sqrt(report.steps))
    F, points, sampled = [], [], []
    for i in draws(problem, report.seed, run, report.steps):
        F.append(float(pi @ value(g @ z, y)))
        points.append(z)
        sampled.append(float(value(g[i] @ z, y[i])))
        z = projected(z - eta * slope(g[i] @ z, y[i]) * g[i], report.constants.b)
    return np.array(F), np.array(points), np.array(sampled)


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, ["sgd", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


# --- θ frozen ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("loss", "weighted"), each_once(LOSSES, [False, True]))
def test_the_run_is_the_plain_loop_and_its_averages_are_exact(loss: str, weighted: bool):
    problem = problem_of(loss, weighted=weighted)
    result = sgd(problem, 300, radius=0.7, seed=4)
    F, points, _ = plain_loop(problem, result)
    report = result.report
    assert report.average_objective == pytest.approx(F.mean(), rel=1e-12)
    assert report.best_objective == pytest.approx(F.min(), rel=1e-12)
    assert report.evaluated == report.steps == len(F)
    assert np.array_equal(result.at, np.arange(1, 301))
    assert result.curve[:, 0] == pytest.approx(F, rel=1e-11)
    assert result.average[:, 0] == pytest.approx(np.cumsum(F) / np.arange(1, 301), rel=1e-11)
    assert F.mean() < F[0]  # it learns
    if loss == "squared":
        assert np.linalg.norm(points, axis=1).max() == pytest.approx(0.7)  # and the projection is at work


def test_the_regret_of_every_run_is_within_its_part_of_the_bound():
    # Online gradient descent: Σ ℓ_t(z_t) − ℓ_t(u, 0) ≤ D l √T on every path, whatever was drawn.
    for seed, loss in enumerate(LOSSES):
        problem = problem_of(loss, seed)
        result = sgd(problem, 200, radius=0.9, seed=seed)
        x, y, _, _ = arrays(problem)
        _, _, sampled = plain_loop(problem, result)
        picked = draws(problem, seed, 0, 200)
        constants = result.report.constants
        for u in np.random.default_rng(seed).normal(size=(50, x.shape[1])):
            value = LOSSES[loss][0](x[picked] @ projected(u, 0.9), y[picked])
            assert np.sum(sampled - value) <= constants.D * constants.l * math.sqrt(200)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_constants_bound_the_losses_and_slopes_on_the_ball(loss: str):
    problem, b = problem_of(loss), 0.8
    x, y, f, _ = arrays(problem)
    constants = constants_of(problem, b)
    value, slope = LOSSES[loss]
    g = np.hstack([x, f])
    rng = np.random.default_rng(1)
    aimed = g / np.linalg.norm(g, axis=1, keepdims=True)
    z = b * np.concatenate([aimed, -aimed, [projected(z, 1.0) for z in rng.normal(size=(500, 5))]])
    values = np.abs(value(z @ g.T, y))
    slopes = np.abs(slope(z @ g.T, y)) * np.linalg.norm(g, axis=1)
    assert values.max() <= constants.r
    assert slopes.max() <= constants.l * (1.0 + 1e-12)
    assert values.max() == pytest.approx(constants.r)  # both are met where z points along a sample
    assert slopes.max() == pytest.approx(constants.l)
    assert (constants.b, constants.D) == (b, b)


def linex(p: Any, y: Any) -> Any:
    """e^{p−y} − (p − y) − 1 (Varian 1975), lowered by 1000, so that its least value counts."""
    return jnp.exp(p - y) - (p - y) - 1001.0


def test_the_constants_of_a_custom_loss_bound_it_on_the_ball():
    problem, b = problem_of("squared"), 0.4
    x, y, f, _ = arrays(problem)
    constants = constants_of(problem, b, CustomLoss(linex, "linex"))
    size = np.linalg.norm(np.hstack([x, f]), axis=1)
    p = b * size * np.linspace(-1.0, 1.0, 2001)[:, None]
    values, slopes = np.exp(p - y) - (p - y) - 1001.0, np.expm1(p - y)
    assert np.abs(values).max() <= constants.r <= 1.1 * np.abs(values).max()
    assert constants.l == pytest.approx(float(np.max(np.abs(slopes) * size)), rel=1e-12)


def test_a_custom_loss_runs_as_the_built_in_one_that_it_is():
    problem = problem_of("logistic")
    mine = CustomLoss(lambda p, y: jnp.logaddexp(0.0, p) - y * p, "mine")
    data = replace(problem.distribution, y=(1.0 + np.asarray(problem.distribution.y)) / 2.0)
    one, other = sgd(problem, 50).report, sgd(replace(problem, loss=mine, distribution=data), 50).report
    assert (other.bound, other.average_objective) == pytest.approx(
        (one.bound, one.average_objective), rel=1e-9
    )


def test_the_numbers_of_one_sample_are_those_of_the_formulas():
    # x = y = 1, f = 0.1, squared loss on ‖(w, v)‖ ≤ 1: min F_lin = 0 at w = 1.
    problem = Problem.from_arrays(x=[[1.0]], y=[1.0], f=[[0.1]], w=[0.0], V=[[0.0]])
    report = sgd(problem, 100, radius=1.0, delta=0.1).report
    size = math.sqrt(1.01)
    l, r = (size + 1.0) * size, (size + 1.0) ** 2 / 2.0
    R = min(r, l)
    assert report.constants.l == pytest.approx(l)
    assert report.constants.r == pytest.approx(r)
    assert report.eta == pytest.approx(1.0 / (l * 10.0))
    assert report.F_lin_min == pytest.approx(0.0, abs=1e-15)
    assert report.bound == pytest.approx(l / 10.0 + 2.0 * R * math.sqrt(2.0 * math.log(10.0) / 100.0))


@pytest.mark.parametrize("loss", first(2, LOSSES))
def test_the_bound_holds_as_often_as_promised(loss: str, longer: int):
    for seed in range(longer):
        report = sgd(problem_of(loss, seed), 50, delta=0.2, seed=seed, repeat=100).report
        assert report.repeats is not None
        assert report.repeats.n == 100
        assert report.repeats.within_bound >= report.repeats.required == 0.8
        assert report.holds is (report.average_objective <= report.bound)


def test_rounding_does_not_break_the_bound():
    report = sgd(problem_of("squared"), 10, radius=1e-100, repeat=3).report
    assert report.bound - report.F_lin_min < 1e-16
    assert report.holds
    assert report.repeats is not None
    assert report.repeats.within_bound == 1.0


def test_a_bound_that_fails_is_reported_as_failing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "theorem4_terms", lambda constants, steps, delta: (0.0, 0.0))
    report = sgd(problem_of("logistic"), 20, repeat=4).report
    assert report.holds is False
    assert report.repeats is not None
    assert report.repeats.within_bound == 0.0


@pytest.mark.parametrize(
    ("loss", "theta"),
    first(1, [("logistic", "frozen"), ("squared", "sgd"), ("squared", "frozen"), ("logistic", "sgd")]),
)
def test_neither_blocks_nor_repeats_change_a_run(loss: str, theta: str, monkeypatch: pytest.MonkeyPatch):
    problem = with_network(problem_of(loss))
    whole = sgd(problem, 100, theta=theta, seed=2, repeat=3)
    monkeypatch.setattr(module, "BLOCK_ENTRIES", 400 if theta == "frozen" else 240)  # two runs at a time
    seen: list[int] = []
    blocks = sgd(problem, 100, theta=theta, seed=2, repeat=3, watch=seen.append)
    alone = sgd(problem, 100, theta=theta, seed=2)
    other = sgd(problem, 100, theta=theta, seed=3)
    assert len(seen) > 2
    assert seen[-1] == 100
    assert blocks.curve == pytest.approx(whole.curve, rel=1e-12)
    assert blocks.report.average_objective == pytest.approx(whole.report.average_objective, rel=1e-13)
    assert alone.curve[:, 0] == pytest.approx(whole.curve[:, 0], rel=1e-12)
    assert abs(other.report.average_objective - alone.report.average_objective) > 1e-6
    assert not np.allclose(whole.curve[:, 0], whole.curve[:, 1])


@pytest.mark.parametrize("theta", first(1, ["sgd", "frozen"]))
def test_where_every_step_is_too_costly_the_average_is_over_some_and_says_so(
    theta: str, monkeypatch: pytest.MonkeyPatch
):
    problem = with_network(problem_of("logistic"))
    every = sgd(problem, 101, theta=theta)
    monkeypatch.setattr(
        module, "EVALUATION_WORK", 30 * 5 * 101 // 4 if theta == "frozen" else 30 * 20 * 101 // 4
    )
    monkeypatch.setattr(module, "BLOCK_ENTRIES", 300)
    some = sgd(problem, 101, theta=theta)
    stride = int(some.at[1] - some.at[0])
    assert stride > 1
    assert some.report.evaluated == len(some.at) == -(-101 // stride)
    assert some.report.holds is None
    kept = every.curve[some.at - 1, 0]
    assert some.curve[:, 0] == pytest.approx(kept, rel=1e-12)
    assert some.report.average_objective == pytest.approx(kept.mean(), rel=1e-12)


def test_a_long_curve_is_thinned_evenly_but_averaged_in_full(monkeypatch: pytest.MonkeyPatch):
    problem = problem_of("squared")
    full = sgd(problem, 95)
    monkeypatch.setattr(module, "CURVE_POINTS", 10)
    monkeypatch.setattr(module, "BLOCK_ENTRIES", 70)
    thin = sgd(problem, 95)
    assert np.array_equal(thin.at, np.arange(1, 96, 10))
    assert thin.curve == pytest.approx(full.curve[thin.at - 1], rel=1e-12)
    assert thin.average == pytest.approx(full.average[thin.at - 1], rel=1e-12)
    assert thin.report.average_objective == pytest.approx(full.report.average_objective, rel=1e-13)


def test_the_radius_is_that_of_the_linear_predictors_unless_given():
    problem = load_problem(CONFIGS / "diabetes.yaml")
    by_default = sgd(problem, 10).report
    assert by_default.constants.b == pytest.approx(0.8595798, rel=1e-6)  # r of `check`
    assert by_default.F_lin_min == pytest.approx(0.24112579, rel=1e-6)
    assert sgd(problem, 10, radius=0.5).report.constants.b == 0.5
    no_predictor = Problem.from_arrays(x=[[1.0], [-1.0]], y=[1.0, 1.0], f=[[1.0], [1.0]], w=[0.0], V=[[0.0]])
    assert sgd(no_predictor, 10).report.constants.b == 1.0


def test_a_radius_of_zero_that_is_asked_for_is_used():
    problem = replace(problem_of("squared"), domain=Domain(r=0.0))
    report = sgd(problem, 20).report
    assert (report.constants.b, report.constants.D, report.eta) == (0.0, 0.0, 0.0)
    assert report.average_objective == pytest.approx(report.F_lin_min, rel=1e-12)
    assert report.holds


@pytest.mark.parametrize("loss", first(1, ["softmax", "logistic", "squared", "weighted_squared"]))
def test_several_outputs_take_the_steps_of_the_plain_loop(loss: str):
    rng = np.random.default_rng(4)
    n, d1, k, q = 25, 3, 2, 3
    y = {"softmax": rng.integers(0, q, size=n), "logistic": (rng.normal(size=(n, q)) > 0.0) * 1.0}
    problem = Problem.from_arrays(
        x=rng.normal(size=(n, d1)),
        y=y.get(loss, rng.normal(size=(n, q))),
        f=rng.normal(size=(n, k)),
        bypass=rng.normal(size=(n, 1)),
        W=np.zeros((q, d1 + 1)),
        V=np.zeros((d1, k)),
        c=np.zeros(q),
        omega=rng.uniform(size=(n, q)) if loss == "weighted_squared" else None,
        loss=loss,
    )
    result = sgd(problem, 200, radius=0.8, seed=2)
    [chunk] = problem.chunks()
    report, g = result.report, np.hstack([chunk.x, chunk.f])
    assert g.shape[1] == d1 + 2 + k

    def slopes(p: Array, rows: Any) -> tuple[Array, Array]:
        omega = None if chunk.omega is None else chunk.omega[rows]
        at = problem.loss.derivatives(p, NOTHING, chunk.y[rows], omega)
        return at.value, at.first

    Z, F, sampled = np.zeros((q, g.shape[1])), [], []
    rngs = np.random.default_rng(np.random.SeedSequence(2).spawn(1)[0])
    for i in (rngs.random(200) * n).astype(int):
        value, _ = slopes(g @ Z.T, slice(None))
        F.append(float(value.mean()))
        one, slope = slopes((g[i] @ Z.T)[None], slice(i, i + 1))
        sampled.append(abs(float(one[0])))
        assert np.linalg.norm(slope) * np.linalg.norm(g[i]) <= report.constants.l
        Z = projected(Z - report.eta * np.outer(slope[0], g[i]), 0.8)
    assert result.curve[:, 0] == pytest.approx(np.array(F), rel=1e-9)
    assert max(sampled) <= report.constants.r
    assert report.outputs == q
    assert report.holds
    assert report.curve is not None
    assert pytest.approx(F, rel=1e-9) == report.curve.F


# --- θ moving ----------------------------------------------------------------------------------------------


def with_network(problem: Problem, activation: str = "tanh") -> Problem:
    """The same data with a 3-4-2 network in the place of the features."""
    layers = draw_layers(problem.d1, (4, 2), seed=5)
    biased = tuple(replace(layer, bias=np.full(len(layer.weight), 0.1)) for layer in layers)
    return replace(problem, features=NetworkFeatures(biased, activation))


@pytest.mark.parametrize("loss", first(1, ["logistic", "squared"]))
def test_a_trained_network_takes_the_steps_of_plain_backpropagation(loss: str):
    problem = with_network(problem_of(loss))
    result = sgd(problem, 150, radius=1.5, theta="sgd", seed=1)
    report, network = result.report, problem.features
    assert isinstance(network, NetworkFeatures)
    x, y, _, pi = arrays(problem)
    value, slope = LOSSES[loss]
    (W1, c1), (W2, c2) = ((layer.weight, layer.bias) for layer in network.layers)
    limits = layer_norms(network)
    w, v, F, reached = np.zeros(3), np.zeros(2), [], np.zeros(2)
    for i in draws(problem, 1, 0, 150):
        hidden = np.tanh(x @ W1.T + c1)
        features = hidden @ W2.T + c2
        p = x @ w + features @ v
        F.append(float(pi @ value(p, y)))
        e = report.eta * slope(p[i], y[i])
        back = (W2.T @ v) * (1.0 - hidden[i] ** 2)
        z = projected(np.concatenate([w - e * x[i], v - e * features[i]]), 1.5)
        parts = [
            (W1 - e * np.outer(back, x[i]), c1 - e * back),
            (W2 - e * np.outer(v, hidden[i]), c2 - e * v),
        ]
        flat = [np.concatenate([W.ravel(), c]) for W, c in parts]
        reached = np.maximum(reached, [np.linalg.norm(part) for part in flat])
        flat = [projected(part, limit) for part, limit in zip(flat, limits, strict=True)]
        (W1, c1), (W2, c2) = (
            (part[: W.size].reshape(W.shape), part[W.size :]) for part, W in zip(flat, (W1, W2), strict=True)
        )
        w, v = z[:3], z[3:]
    assert (reached > limits).any()  # the projection of θ is at work
    assert result.curve[:, 0] == pytest.approx(np.array(F), rel=1e-10)
    assert report.average_objective == pytest.approx(np.mean(F), rel=1e-10)
    assert report.theta == "sgd"
    assert report.holds


def test_every_activation_has_a_bound_of_its_features():
    assert set(GROWTH) == set(ACTIVATIONS)


@pytest.mark.parametrize("activation", first(4, ACTIVATIONS))
def test_no_network_in_M2_has_larger_features_than_the_bound(activation: str, longer: int):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(20, 3)) * np.geomspace(0.01, 30.0, 20)[:, None]
    layers = draw_layers(3, (4, 5, 2), seed=2)
    start = NetworkFeatures(
        tuple(replace(layer, bias=rng.normal(size=len(layer.weight))) for layer in layers), activation
    )
    bound = largest_features(start, x)
    largest = np.zeros(20)
    for _ in range(50 * longer):
        moved = []
        for layer, limit in zip(start.layers, layer_norms(start), strict=True):
            flat = rng.normal(size=layer.weight.size + len(layer.weight)) * rng.choice(
                [0.0, 1.0], layer.weight.size + len(layer.weight)
            )
            flat *= limit / max(float(np.linalg.norm(flat)), 1e-9)
            size = layer.weight.size
            moved.append(replace(layer, weight=flat[:size].reshape(layer.weight.shape), bias=flat[size:]))
        f = NetworkFeatures(tuple(moved), activation).rows(slice(0, 20), x, 20)
        largest = np.maximum(largest, np.linalg.norm(f, axis=1))
    assert (largest <= bound).all()
    one = NetworkFeatures(start.layers[:1], activation)
    aligned = np.linalg.norm(start.layers[0].weight) * np.linalg.norm(x, axis=1)
    assert (largest_features(one, x) >= aligned).all()


def test_a_loaded_problem_remembers_the_network_behind_its_features():
    features = load_problem(CONFIGS / "diabetes.yaml").features
    assert isinstance(features, GivenFeatures)
    assert isinstance(features.network, NetworkFeatures)
    assert sgd(load_problem(CONFIGS / "example-1.yaml"), 20, theta="sgd").report.holds


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda p, y: jnp.cos(p) + y, "is not convex"),
        (lambda p, y: jax.scipy.special.gammaln(jnp.exp(p)) + y * y, "no proven bounds"),
    ],
)
def test_a_custom_loss_that_is_not_convex_or_not_enclosed_is_refused(loss: Any, message: str):
    few = Problem.from_arrays(x=[[1.0]], y=[0.5], f=[[1.0]], w=[0.0], V=[[0.0]])
    problem = replace(few, loss=CustomLoss(loss, "mine"))
    with pytest.raises(RequestError, match=message):
        sgd(problem, 10)


def test_a_network_without_parameters_cannot_move():
    with pytest.raises(RequestError, match="network with parameters"):
        sgd(problem_of("squared"), 10, theta="sgd")
    with pytest.raises(RequestError, match="network with parameters"):
        sgd(load_problem(CONFIGS / "saddle.yaml"), 10, theta="sgd")


def test_a_ball_on_which_the_loss_overflows_is_refused():
    with pytest.raises(RequestError, match="smaller radius"):
        sgd(problem_of("poisson"), 10, radius=1e4)


def test_data_too_large_to_hold_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "DATA_BYTES", 1000)
    with pytest.raises(RequestError, match="MiB"):
        sgd(problem_of("squared"), 10)


def test_a_loss_that_nothing_moves_keeps_its_value():
    problem = Problem.from_arrays(x=[[0.0]], y=[1.0], f=[[0.0]], w=[0.0], V=[[0.0]])
    report = sgd(problem, 1000).report
    assert (report.eta, report.constants.l) == (0.0, 0.0)
    assert report.average_objective == report.best_objective == 0.5
    assert report.holds


def test_every_number_out_of_range_is_named():
    with pytest.raises(RequestError) as refused:
        sgd(problem_of("squared"), 0, delta=1.0, radius=0.0, repeat=0)
    assert [d.message.split(" for ")[1].split(",")[0] for d in refused.value.diagnostics] == [
        "steps",
        "delta",
        "radius",
        "repeat",
    ]


@pytest.mark.parametrize("extra", [{"l2": 0.25}, {"norm": 2.0}])
def test_a_regularizer_or_a_constraint_is_refused(extra: dict[str, float]):
    problem = Problem.from_arrays(x=[[1.0]], y=[1.0], f=[[1.0]], w=[0.0], V=[[-1.0]], **extra)
    with pytest.raises(RequestError, match="regularizer"):
        sgd(problem, 10)


def test_constants_of_a_scaled_loss_scale():
    problem = problem_of("logistic")
    one, two = (constants_of(problem, 1.0, named_loss("logistic", scale)) for scale in (1.0, 2.0))
    assert two.l == pytest.approx(2.0 * one.l)
    assert two.r == pytest.approx(2.0 * one.r)


# --- the command -------------------------------------------------------------------------------------------


def test_the_json_document_has_its_fields_and_the_bound_is_its_formula():
    result = run(str(CONFIGS / "diabetes.yaml"), "--steps", "500", "--seed", "3", "--format", "json")
    document = json.loads(result.stdout)
    assert result.exit_code == 0
    assert list(document)[:11] == [
        "schema",
        "steps",
        "delta",
        "seed",
        "eta",
        "constants",
        "F_lin_min",
        "average_objective",
        "best_objective",
        "bound",
        "holds",
    ]
    assert document["schema"] == "resnet-cert/sgd/1"
    assert (document["steps"], document["delta"], document["seed"]) == (500, 0.05, 3)
    b, l, r, D = (document["constants"][name] for name in "blrD")
    chance = 2.0 * min(r, b * l) * math.sqrt(2.0 * math.log(20.0) / 500.0)
    assert document["bound"] == pytest.approx(document["F_lin_min"] + D * l / math.sqrt(500.0) + chance)
    assert document["eta"] == pytest.approx(D / (l * math.sqrt(500.0)))
    assert document["holds"] is True
    assert document["best_objective"] <= document["average_objective"] <= document["bound"]
    assert document["evaluated"] == 500
    assert "repeats" not in document


def test_repeats_are_counted():
    result = run(str(CONFIGS / "example-1.yaml"), "--steps", "50", "--repeat", "7", "--format", "json")
    assert json.loads(result.stdout)["repeats"] == {"n": 7, "within_bound": 1.0, "required": 0.95}


@pytest.mark.parametrize("theta", first(1, ["sgd", "frozen"]))
def test_the_text_fits_the_screen_and_says_what_the_theorem_is_about(theta: str):
    result = run(str(CONFIGS / "breast-cancer.yaml"), "--steps", "100", "--theta", theta, "--repeat", "3")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert len(lines) <= 24
    assert "average of all steps" in result.stdout
    assert "nothing of the last step" in result.stdout
    assert "Of 3 runs 100 %" in result.stdout


@pytest.mark.parametrize(
    ("ending", "magic"), first(1, [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
)
def test_the_picture_is_written_in_the_format_of_its_name(ending: str, magic: bytes, tmp_path: Path):
    output = tmp_path / f"run.{ending}"
    arguments = (str(CONFIGS / "saddle.yaml"), "--steps", "40", "--repeat", "3", "--output", str(output))
    assert run(*arguments).exit_code == 0
    first = output.read_bytes()
    assert first.startswith(magic)
    assert run(*arguments).exit_code == 0
    assert output.read_bytes() == first


def test_without_matplotlib_a_picture_is_refused_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "matplotlib" else find(name, *rest)
    )
    result = run(str(CONFIGS / "saddle.yaml"), "--steps", "5", "--output", str(tmp_path / "run.png"))
    assert result.exit_code == 2
    assert "resnet-cert[plot]" in result.stderr
    assert result.stdout == ""
    assert run(str(CONFIGS / "saddle.yaml"), "--steps", "5").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--steps"),
        (["--steps", "0"], "--steps"),
        (["--steps", "1.5"], "--steps"),
        (["--steps", "10", "--delta", "0"], "--delta': expected a finite number > 0 and < 1, got '0'"),
        (["--steps", "10", "--delta", "1"], "> 0 and < 1, got '1'"),
        (["--steps", "10", "--delta", "nan"], "--delta"),
        (["--steps", "10", "--radius", "0"], "--radius': expected a finite number > 0, got '0'"),
        (["--steps", "10", "--radius", "inf"], "--radius"),
        (["--steps", "10", "--theta", "moving"], "--theta"),
        (["--steps", "10", "--theta", "sgd"], "network with parameters"),
        (["--steps", "10", "--seed", "-1"], "--seed"),
        (["--steps", "10", "--repeat", "0"], "--repeat"),
        (["--steps", "10", "--output", "run.jpg"], "ends in .png or .svg or .pdf"),
        (["--steps", "10", "--output", "nowhere/run.png"], "existing folder"),
        (["--steps", "10", "--set", "loss=squarred"], "squared"),
    ],
)
def test_a_wrong_request_is_refused_and_writes_nothing(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    result = run(str(CONFIGS / "saddle.yaml"), *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []
