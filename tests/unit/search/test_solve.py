"""solve: it ends where an independent solver ends, wherever it starts, and says so when it cannot."""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from reports import leave_out_crosscheck
from selections import each_once, first

from resnet_cert import Problem, RequestError, Verdict, check, load_problem
from resnet_cert.cli import cli
from resnet_cert.commands.solve import _shown
from resnet_cert.numerics.jax64 import jnp
from resnet_cert.problem.custom_loss import CustomLoss
from resnet_cert.problem.losses import named_loss
from resnet_cert.problem.problem import GivenFeatures, Objective, Point
from resnet_cert.problem.span import span
from resnet_cert.search import derivatives as of
from resnet_cert.search.critical_points import attainment
from resnet_cert.search.solve import (
    Step,
    perturbed,
    read_point,
    solve,
    write_point,
)

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
REAL_DATA = ("diabetes", "diabetes-halfway", "breast-cancer", "breast-cancer-halfway")
SADDLES = ("saddle", "example-1", "example-1-exact", "example-1-refuted")
EPS = 1e-6


@pytest.fixture(autouse=True)
def _without_crosscheck(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_crosscheck(monkeypatch)


def random_problem(seed: int, loss: str = "squared") -> Problem:
    """Noisy targets that x and f explain in part, at a point where w may be 0."""
    rng = np.random.default_rng(seed)
    n, (d, k) = 40, ((3, 2), (1, 2), (3, 1))[seed % 3]
    x, f = rng.normal(size=(n, d)), rng.normal(size=(n, k))
    signal = x.sum(axis=1) + f.sum(axis=1)
    y = signal + rng.normal(size=n)
    if loss == "logistic":
        y = np.where(signal + 3.0 * rng.logistic(size=n) > 0.0, 1.0, -1.0)
    if loss == "poisson":
        y = rng.poisson(np.exp(0.3 * signal)).astype(np.float64)
    w = rng.normal(size=d) * (seed % 2)
    V = rng.normal(size=(d, k)) * (seed % 5)
    return Problem.from_arrays(x=x, y=y, f=f, w=w, V=V, loss=loss, epsilon=EPS)


def arrays(problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    chunks = list(problem.with_features_held().chunks())
    x, f, y = ([getattr(chunk, name) for chunk in chunks] for name in ("x", "f", "y"))
    return np.concatenate(x), np.concatenate(f), np.concatenate(y)[:, 0]


def least_squares(problem: Problem) -> float:
    """inf F for the squared loss, that of linear predictors on (x, f): with w ≠ 0 every Vᵀw is possible."""
    x, f, y = arrays(problem)
    columns = np.hstack([x, f])
    residual = columns @ np.linalg.lstsq(columns, y)[0] - y
    return float(0.5 * np.mean(residual**2))


def at_zero(problem: Problem) -> Problem:
    return replace(problem, point=Point(0.0 * problem.W, 0.0 * problem.V))


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, ["solve", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


# --- the search --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_it_ends_at_the_least_squares_solution_and_certified(seed: int):
    problem = random_problem(seed)
    solution = solve(problem)
    report = check(replace(problem, point=solution.point))
    assert report.verdict is Verdict.CERTIFIED
    assert solution.stopped is None
    assert report.objective.F.value == pytest.approx(least_squares(problem), abs=1e-9)
    assert report.corollary1.verdict is Verdict.CERTIFIED


@pytest.mark.parametrize("loss", ["logistic", "pseudo_huber", "poisson"])
@pytest.mark.parametrize("seed", first(1, [3, 0]))
def test_every_loss_comes_to_a_certified_point_no_worse_than_linear(seed: int, loss: str):
    problem = random_problem(seed, loss)
    report = check(replace(problem, point=solve(problem).point))
    assert report.verdict is Verdict.CERTIFIED
    assert report.corollary1.verdict is Verdict.CERTIFIED


@pytest.mark.parametrize("name", first(2, SADDLES))
def test_a_saddle_without_gradient_is_left_for_the_global_minimum(name: str):
    problem = replace(load_problem(CONFIGS / f"{name}.yaml"), epsilon=EPS)
    report = check(replace(problem, point=solve(problem).point))
    assert check(problem).objective.F.lower >= 0.49
    assert report.verdict is Verdict.CERTIFIED
    assert report.objective.F.upper <= 1e-12


def test_a_curvature_within_the_margin_is_still_followed_down():
    # At ε = 0.2 the start of Example 1 is an ε-SOPSP itself, but not one for ε/16.
    problem = load_problem(CONFIGS / "example-1.yaml")
    assert check(problem).verdict is Verdict.CERTIFIED
    assert check(replace(problem, point=solve(problem).point)).objective.F.upper < 1e-3


@pytest.mark.parametrize("name", first(2, REAL_DATA))
def test_real_data_from_zero_and_from_random_starts(name: str, longer: int):
    problem = at_zero(replace(load_problem(CONFIGS / f"{name}.yaml"), epsilon=EPS))
    starts = [problem.point, *(perturbed(problem, seed) for seed in range(longer))]
    reports = [check(replace(problem, point=solve(replace(problem, point=start)).point)) for start in starts]
    assert {report.verdict for report in reports} == {Verdict.CERTIFIED}
    values = [report.objective.F.value for report in reports]
    assert max(values) - min(values) < 1e-10
    if problem.loss.name == "squared":
        assert values[0] == pytest.approx(least_squares(problem), abs=1e-10)


def test_every_step_is_counted_and_none_goes_up():
    steps: list[Step] = []
    problem = random_problem(3)
    solution = solve(problem, steps.append)
    assert [step.iteration for step in steps] == list(range(solution.iterations + 1))
    assert all(later.objective <= earlier.objective * (1.0 + 1e-14) for earlier, later in pairwise(steps))
    assert np.array_equal(steps[0].point.W, problem.W)
    assert np.array_equal(steps[-1].point.V, solution.point.V)


def test_a_point_that_is_there_already_is_left_alone():
    problem = load_problem(CONFIGS / "diabetes.yaml")
    solution = solve(problem)
    assert solution.iterations == 0
    assert np.array_equal(solution.point.V, problem.point.V)


def test_it_goes_on_where_the_objective_is_flat_to_rounding():
    # Newton steps judged by F alone end near ‖∇F‖ = √u.
    problem = replace(random_problem(5), epsilon=1e-13)
    assert check(replace(problem, point=solve(problem).point)).verdict is Verdict.CERTIFIED


def test_bad_scales_of_the_columns_are_no_obstacle():
    problem = random_problem(7, "logistic")
    x, f, y = arrays(problem)
    scaled = Problem.from_arrays(
        x=x * np.geomspace(1e-3, 1e3, problem.d),
        f=f * 1e3,
        y=2.0 * y - 1.0,  # as a user has them
        w=np.zeros(problem.d),
        V=np.zeros((problem.d, problem.k)),
        loss="logistic",
        epsilon=EPS,
    )
    report = check(replace(scaled, point=solve(scaled).point))
    assert report.verdict is Verdict.CERTIFIED


def separable(epsilon: float) -> Problem:
    rng = np.random.default_rng(0)
    x, f = rng.normal(size=(30, 2)), rng.normal(size=(30, 2))
    y = np.sign(x @ np.array([1.0, 0.5]) + f[:, 0])
    return Problem.from_arrays(
        x=x, y=y, f=f, w=np.zeros(2), V=np.zeros((2, 2)), loss="logistic", epsilon=epsilon
    )


def test_where_the_infimum_is_not_attained_it_stops_and_says_so():
    problem = separable(0.0)
    solution = solve(problem)
    assert solution.stopped is not None
    assert "not attained" in solution.stopped
    assert check(replace(problem, point=solution.point)).verdict is not Verdict.CERTIFIED
    assert solution.attained is False
    assert solution.descent is not None
    away = [
        replace(problem, point=Point(problem.W + t * solution.descent.dW, solution.point.V))
        for t in (1e2, 1e4)
    ]
    near, far = (check(there).objective.F for there in away)
    assert far.upper < near.lower
    assert attainment(random_problem(2, "logistic")).attained is True


def test_of_a_loss_that_may_not_be_convex_it_is_not_said_whether_the_infimum_is_attained():
    mine = CustomLoss(lambda p, y: jnp.log(jnp.cosh(p - y)) - 10.0 * jnp.logaddexp(0.0, p - 20.0), "mine")
    found = attainment(replace(random_problem(2, "squared"), loss=mine))
    assert found == (None, None, "the loss mine is not known to be convex for every p")


def half_separable() -> Problem:
    """Two outputs, of which a linear function separates the first alone."""
    rng = np.random.default_rng(0)
    x, f = rng.normal(size=(12, 2)), rng.normal(size=(12, 1))
    y = np.stack([x[:, 0] + f[:, 0] > 0.0, rng.random(12) > 0.5], axis=1).astype(float)
    W, V = rng.normal(size=(2, 2)), rng.normal(size=(2, 1))
    return Problem.from_arrays(x=x, y=y, f=f, W=W, V=V, loss="logistic", epsilon=EPS)


@pytest.mark.parametrize("seed", first(1, [None, 41100071]))
def test_the_objective_falls_along_the_direction_of_descent(seed: int | None):
    problem = half_separable() if seed is None else hard_head(seed)
    solution, function = solve(problem), of.Objective(problem)
    assert solution.attained is False
    assert solution.descent is not None
    z, along = function.flat(solution.point), function.flat(solution.descent)
    values = [function.at(z + step * along)[0] for step in (0.0, 0.1, 1.0, 10.0, 100.0, 1000.0)]
    assert all(later <= before * (1.0 + 1e-12) for before, later in pairwise(values))
    assert values[-1] < values[0]


def test_where_only_the_infimum_is_not_attained_ε_is_reached_all_the_same():
    problem = separable(EPS)
    solution = solve(problem)
    assert solution.stopped is None
    assert check(replace(problem, point=solution.point)).verdict is Verdict.CERTIFIED


def test_a_lipschitz_bound_that_overflows_leaves_the_verdict_open():
    rng = np.random.default_rng(1)
    problem = Problem.from_arrays(
        x=np.abs(rng.normal(size=(20, 3))),
        y=np.zeros(20),
        f=rng.normal(size=(20, 2)),
        w=np.full(3, -300.0),
        V=np.zeros((3, 2)),
        loss="poisson",
        epsilon=EPS,
    )
    report = check(problem)
    assert report.constants.mu2 is None
    assert report.verdict is Verdict.UNDECIDED


def test_a_start_where_the_objective_overflows_is_refused():
    problem = random_problem(1, "poisson")
    with pytest.raises(RequestError, match="overflow"):
        solve(replace(problem, point=Point(np.full((1, problem.d), 1e5), problem.V)))


def test_a_start_where_only_the_hessian_overflows_comes_to_an_end():
    problem = Problem.from_arrays(
        x=[[1e3, 0.0], [0.0, 1.0]],
        y=[0.0, 1.0],
        f=[[1.0], [1.0]],
        w=[0.7, 0.0],
        V=[[0.0], [0.0]],
        loss="poisson",
        epsilon=EPS,
    )
    solution = solve(problem)
    assert solution.stopped is not None
    assert check(replace(problem, point=solution.point)).verdict is not Verdict.CERTIFIED


def figure(w: float, v: float, **extra: float) -> Problem:
    """F = (w(1 + v) − 1)², the picture of Shamir 2018, with a regularizer or a constraint."""
    loss = named_loss("squared", 2.0)
    return Problem.from_arrays(x=[[1.0]], y=[1.0], f=[[1.0]], w=[w], V=[[v]], loss=loss, epsilon=EPS, **extra)


@pytest.mark.parametrize(
    ("start", "end", "value"),
    [
        ((1.0, 1.0), (0.65962771, 0.32771294), 0.15105269),
        ((-1.2, -1.8), (-0.98280626, -1.60268225), 1.04982771),  # worse than the best linear predictor's 0.2
    ],
)
def test_a_regularized_objective_comes_to_the_minimum_nearby(
    start: tuple[float, float], end: tuple[float, float], value: float
):
    steps: list[Step] = []
    problem = figure(*start, l2=0.25)
    point = solve(problem, steps.append).point
    report = check(replace(problem, point=point))
    assert (point.W[0, 0], point.V[0, 0]) == pytest.approx(end, abs=1e-6)
    assert steps[-1].objective == pytest.approx(value, abs=1e-8)
    assert report.verdict is Verdict.CERTIFIED


def test_a_regularized_objective_leaves_its_saddle():
    saddle = figure(-0.27251826971, -1.06944376962, l2=0.25)
    point = solve(replace(saddle, epsilon=1e-4)).point
    assert check(replace(saddle, point=point, epsilon=1e-4)).verdict is Verdict.CERTIFIED
    assert abs(point.W[0, 0] + 0.2725) > 0.3


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_a_regularized_problem_of_any_size_is_polished_to_rounding(loss: str):
    problem = replace(random_problem(6, loss), objective=Objective(l2=0.01), epsilon=1e-12)
    solution = solve(problem)
    assert solution.stopped is None
    assert check(replace(problem, point=solution.point)).verdict is Verdict.CERTIFIED


def on_ball(problem: Problem, norm: float, **changes: Any) -> Problem:
    return replace(problem, objective=replace(problem.objective, norm=norm), **changes)


def radius(point: Point) -> float:
    return float(np.sqrt(np.sum(point.W**2) + np.sum(point.V**2)))


BEST = (-1.07560665, -1.68614066)  # of the minima of the figure on the ball ‖(w, v)‖ ≤ 2 the spurious one


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ((-1.0, -1.0), BEST),
        ((0.0, -2.0), BEST),  # on the rim
        ((-2.0, 0.0), BEST),
        ((-9.0, -9.0), BEST),  # outside
        ((1.0, 1.0), None),  # the curve w(1 + v) = 1 of global minima
        ((0.0, -1.0), None),  # the saddle
        ((1.2, 1.6), None),  # on the rim, where F falls on the way inside
    ],
)
def test_on_a_ball_it_comes_to_a_minimum_nearby(start: tuple[float, float], end: tuple[float, float] | None):
    steps: list[Step] = []
    problem = on_ball(figure(*start), 2.0)
    solution = solve(problem, steps.append)
    w, v = float(solution.point.W[0, 0]), float(solution.point.V[0, 0])
    report = check(replace(problem, point=solution.point))
    assert report.verdict is Verdict.CERTIFIED
    assert solution.stopped is None
    assert all(radius(step.point) <= 2.0 * (1.0 + 1e-15) or step.iteration == 0 for step in steps)
    if end is BEST or (start == (0.0, -1.0) and w < 0.0):
        assert (w, v) == pytest.approx(BEST, abs=1e-6)
        assert report.regularized is not None
        assert report.regularized.multiplier is not None
        assert report.regularized.multiplier.value == pytest.approx(0.33424277, abs=1e-6)
    else:
        assert w * (1.0 + v) == pytest.approx(1.0, abs=1e-5)


def ridge(problem: Problem, norm: float) -> float:
    """min ½E(wᵀx − y)² over ‖w‖ ≤ norm by its multiplier, from the eigenvalues of E[xxᵀ]."""
    x, _, y = arrays(problem)
    values, Q = np.linalg.eigh(x.T @ x / len(x))
    b = Q.T @ (x.T @ y / len(x))
    low, high = 0.0, float(np.linalg.norm(b)) / norm
    for _ in range(200):
        mu = (low + high) / 2.0
        low, high = (mu, high) if np.linalg.norm(b / (values + mu)) > norm else (low, mu)
    return float(0.5 * np.mean((x @ (Q @ (b / (values + high))) - y) ** 2))


@pytest.mark.parametrize(("seed", "norm"), each_once([0, 2, 3, 5], [1e-3, 0.5]))
def test_without_features_the_ball_is_that_of_ridge_regression(seed: int, norm: float):
    problem = random_problem(seed)
    problem = on_ball(problem, norm, features=GivenFeatures(np.zeros((problem.n, problem.k))), epsilon=1e-10)
    report = check(replace(problem, point=solve(problem).point))
    assert report.verdict is Verdict.CERTIFIED
    assert report.objective.F.value == pytest.approx(ridge(problem, norm), rel=1e-12)


@pytest.mark.parametrize(
    ("loss", "l2", "seed"), each_once(["squared", "logistic", "poisson"], [0.0, 0.01], range(2))
)
def test_on_a_ball_that_matters_the_end_is_certified_and_on_its_rim(seed: int, loss: str, l2: float):
    problem = replace(at_zero(random_problem(seed, loss)), objective=Objective(l2, 0.2), epsilon=1e-8)
    solution = solve(problem)
    report = check(replace(problem, point=solution.point))
    assert report.verdict is Verdict.CERTIFIED
    assert radius(solution.point) == pytest.approx(0.2, rel=1e-12)
    assert report.regularized is not None
    assert report.regularized.multiplier is not None
    assert report.regularized.multiplier.lower > 0.0


@pytest.mark.parametrize("seed", range(2))
def test_a_ball_that_does_not_matter_changes_nothing(seed: int):
    problem = on_ball(random_problem(seed), 100.0)
    point = solve(problem).point
    assert check(replace(problem, point=point)).verdict is Verdict.CERTIFIED
    assert check(replace(problem, point=point, objective=Objective())).objective.F.value == pytest.approx(
        least_squares(problem), abs=1e-9
    )


@pytest.mark.parametrize("name", first(0, ["diabetes", "breast-cancer"]))
def test_real_data_on_a_ball_from_random_starts(name: str):
    problem = at_zero(on_ball(load_problem(CONFIGS / f"{name}.yaml"), 0.5, epsilon=EPS))
    starts = [problem.point, *(perturbed(problem, seed) for seed in range(2))]
    points = [solve(replace(problem, point=start)).point for start in starts]
    assert {check(replace(problem, point=point)).verdict for point in points} == {Verdict.CERTIFIED}
    assert [radius(point) for point in points] == pytest.approx([0.5] * 3, rel=1e-12)


@pytest.mark.parametrize("norm", [1e-100, 1e160])
def test_tiny_and_huge_balls(norm: float):
    problem = on_ball(at_zero(random_problem(0)), norm)
    report = check(replace(problem, point=solve(problem).point))
    assert report.verdict is Verdict.CERTIFIED
    assert (report.objective.F.value == pytest.approx(least_squares(problem))) == (norm > 1.0)


def differences(function: of.Function, z: np.ndarray, along: np.ndarray) -> tuple[float, np.ndarray]:
    """Of the value and of the gradient."""
    (after, up), (before, down) = (function.at(z + h * along) for h in (1e-6, -1e-6))
    return (after - before) / 2e-6, (up - down) / 2e-6


@pytest.mark.parametrize(
    "loss", ["squared", "logistic", "pseudo_huber", "poisson", "softmax", "weighted_squared"]
)
@pytest.mark.parametrize("q", [1, 3])
def test_derivatives_are_those_of_differences(loss: str, q: int):
    if loss == "softmax" and q == 1:
        return
    rng = np.random.default_rng(q)
    n, d1, k = 20, 3, 2
    y = rng.normal(size=(n, q))
    y = {"logistic": np.sign(y) if q == 1 else (y > 0.0) * 1.0, "poisson": np.abs(y)}.get(loss, y)
    problem = Problem.from_arrays(
        x=rng.normal(size=(n, d1)),
        y=rng.integers(0, q, size=n) if loss == "softmax" else y,
        f=rng.normal(size=(n, k)),
        bypass=rng.normal(size=(n, 1)),
        W=rng.normal(size=(q, d1 + 1)),
        V=rng.normal(size=(d1, k)),
        c=rng.normal(size=q),
        omega=rng.uniform(size=(n, q)) if loss == "weighted_squared" else None,
        loss=loss,
        l2=0.1,
        decay_bias=False,
    )
    objective = of.Objective(problem)
    ball = of.OnBall(objective, 2.0, objective.decay > 0.0)
    z = objective.flat(problem.point)
    A = rng.normal(size=q * (problem.d + k))
    for function, at in (
        (objective, z),
        (ball, rng.normal(size=len(z) + 1)),
        (of.Augmented(problem), A),
        (of.Decayed(problem), A[: span(problem) * (problem.d + problem.k)]),
    ):
        along = rng.normal(size=len(at))
        slope, bent = differences(function, at, along)
        assert function.at(at)[1] @ along == pytest.approx(slope, rel=1e-6, abs=1e-7)
        assert function.hessian_product(at, along) == pytest.approx(bent, rel=1e-5, abs=1e-6)
        assert of.dense_hessian(function, at) @ along == pytest.approx(bent, rel=1e-5, abs=1e-6)
    augmented = of.Augmented(problem)
    dense = augmented.hessian(A)
    along = rng.normal(size=len(A))
    assert dense @ along == pytest.approx(augmented.hessian_product(A, along), rel=1e-9, abs=1e-11)


def test_the_lowest_curvature_of_many_unknowns_is_that_of_lanczos(monkeypatch: pytest.MonkeyPatch):
    problem = random_problem(3)
    objective = of.Objective(problem)
    z = objective.flat(problem.point)
    exact, v = of.lowest_curvature(objective, z)
    monkeypatch.setattr(of, "DENSE", 1)
    near, w = of.lowest_curvature(objective, z)
    assert near == pytest.approx(exact, rel=1e-8)
    assert abs(v @ w) == pytest.approx(1.0, abs=1e-6)


def test_a_random_start_is_repeatable_and_near_enough():
    problem = random_problem(4)
    point = problem.point
    once, again, other = (perturbed(problem, seed) for seed in (1, 1, 2))
    assert np.array_equal(once.V, again.V)
    assert not np.array_equal(once.V, other.V)
    size = np.sqrt(np.sum(point.W**2) + np.sum(point.V**2))
    moved = np.sqrt(np.sum((once.W - point.W) ** 2) + np.sum((once.V - point.V) ** 2))
    assert 0.2 * size < moved < 3.0 * size


def test_the_derivatives_are_those_of_the_formulas_over_chunks_and_weights(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.import_module("resnet_cert.problem.problem"), "CHUNK_BYTES", 2**10)
    rng = np.random.default_rng(6)
    n, d, k = 1300, 3, 2
    x, f, y = rng.normal(size=(n, d)), rng.normal(size=(n, k)), rng.normal(size=n)
    pi = rng.dirichlet(np.ones(n))
    w, V = rng.normal(size=d), rng.normal(size=(d, k))
    problem = Problem.from_arrays(x=x, y=y, f=f, w=w, V=V, probabilities=pi)
    assert problem.chunk_rows == 512
    derivatives = of.Objective(problem)
    z, u, U = np.concatenate([w, V.ravel()]), rng.normal(size=d), rng.normal(size=(d, k))
    F, gradient = derivatives.at(z)
    h = x + f @ V.T
    residual = h @ w - y
    a = (pi * residual) @ f
    assert pytest.approx(F, rel=1e-13) == 0.5 * pi @ residual**2
    assert gradient == pytest.approx(np.concatenate([(pi * residual) @ h, np.outer(w, a).ravel()]), rel=1e-11)
    # D²F(u, U)·(u', U') by polarising D²F = E[(uᵀh + wᵀU f)²] + 2 uᵀU a.
    change = h @ u + f @ (U.T @ w)
    product = np.concatenate(
        [(pi * change) @ h + U @ a, (np.outer(w, (pi * change) @ f) + np.outer(u, a)).ravel()]
    )
    tangent = np.concatenate([u, U.ravel()])
    assert derivatives.hessian_product(z, tangent) == pytest.approx(product, rel=1e-10, abs=1e-12)


def hard_problem(seed: int) -> Problem:
    """W to 400, V to 1e6, zero and saddles, every loss, tiny decay, few samples."""
    rng = np.random.default_rng(seed)
    loss = ("squared", "logistic", "pseudo_huber", "poisson")[seed % 4]
    (d, k), n = rng.integers(1, 6, size=2), int(rng.choice([3, 6, 30, 200]))
    x, f, y = rng.normal(size=(n, d)), rng.normal(size=(n, k)), rng.normal(size=n)
    y = {"logistic": np.sign(y), "poisson": np.abs(y)}.get(loss, y)
    W, V = rng.normal(size=d), rng.normal(size=(d, k))
    start = rng.integers(5)
    W = (W * 10.0 ** rng.uniform(0.0, 2.6), W * (1e-5 if loss == "poisson" else 1.0), 0.0 * W, 0.0 * W, W)[
        start
    ]
    V = (V, V * 10.0 ** rng.uniform(0.0, 6.0), 0.0 * V, V, V)[start]
    l2 = 10.0 ** rng.uniform(-10.0, 0.0) if rng.integers(2) else None
    return Problem.from_arrays(x=x, y=y, f=f, w=W, V=V, loss=loss, epsilon=EPS, l2=l2)


def hard_head(seed: int) -> Problem:
    """As hard, with up to three outputs, a bias, inputs that go round the block, decay, or on a ball."""
    rng = np.random.default_rng(seed)
    loss = ("squared", "softmax", "logistic", "poisson", "pseudo_huber")[seed % 5]
    q, n = int(rng.choice([1, 2, 3])), int(rng.choice([6, 30, 200]))
    q = 3 if loss == "softmax" else q
    d, k = rng.integers(1, 6, size=2)
    d = max(int(d), q)
    x, f, y = rng.normal(size=(n, d)), rng.normal(size=(n, k)), rng.normal(size=(n, q))
    y = {
        "logistic": np.where(y > 0.0, 1.0, 0.0 if q > 1 else -1.0),
        "poisson": np.abs(y),
    }.get(loss, y)
    if loss == "softmax":
        y = np.eye(3)[rng.integers(3, size=n)]
    W = rng.normal(size=(q, d)) * 10.0 ** rng.uniform(-1.0, 2.3)
    V = rng.normal(size=(d, k)) * 10.0 ** rng.uniform(-1.0, 5.0) * (1e-4 if loss == "poisson" else 1.0)
    more: dict[str, Any] = {}
    if rng.integers(2):
        more["c"] = rng.normal(size=q)
    if rng.integers(2):
        more["bypass"] = rng.normal(size=(n, 2))
        W = np.concatenate([W, rng.normal(size=(q, 2))], axis=1)
    kind = rng.integers(3)
    if kind == 1:
        more["l2"] = 10.0 ** rng.uniform(-10.0, 0.0)
    if kind == 2:
        size = sum(float(np.sum(part**2)) for part in (W, V, more.get("c", np.zeros(1))))
        more["norm"] = np.sqrt(size) * rng.uniform(1.0, 2.0)
    return Problem.from_arrays(x=x, y=y, f=f, W=W, V=V, loss=loss, epsilon=EPS, **more)


def is_certified(problem: Problem) -> bool:
    """At its end, or there is none, or nothing is open but that μ2 overflows.  Or F does at the start."""
    try:
        solution = solve(problem)
    except RequestError:
        return True
    report = check(replace(problem, point=solution.point))
    overflows = report.constants.mu2 is None and report.gradient.verdict is Verdict.CERTIFIED
    return report.verdict is Verdict.CERTIFIED or solution.attained is False or overflows


@pytest.mark.parametrize(
    "seeds", first(1, [[910235, 8975071], *(range(i, i + 50) for i in range(0, 400, 50))])
)
def test_hard_heads_come_to_a_certified_point_or_there_is_none(seeds: Sequence[int]):
    assert [seed for seed in seeds if not is_certified(hard_head(seed))] == []


def ends_well(problem: Problem) -> bool:
    """‖∇G‖ ≤ ε at the end, or F overflows at the start."""
    try:
        solution = solve(problem)
    except RequestError:
        return True
    function = of.Objective(problem)
    _, gradient = function.at(function.flat(solution.point))
    return bool(np.linalg.norm(gradient) <= EPS)


@pytest.mark.parametrize("seed", first(1, range(0, 40, 20)))
def test_from_hard_starts_it_ends_at_a_stationary_point(seed: int):
    assert [seed for seed in range(seed, seed + 20) if not ends_well(hard_problem(seed))] == []


@pytest.mark.long
@pytest.mark.parametrize("first", range(0, 1000, 100))
def test_from_a_thousand_hard_starts_it_ends_at_a_stationary_point(first: int):
    assert [seed for seed in range(first, first + 100) if not ends_well(hard_problem(seed))] == []


@pytest.mark.parametrize(
    ("loss", "q"), first(2, [("squared", 2), ("softmax", 3), ("softmax", 2), ("squared", 3)])
)
def test_several_outputs_come_to_the_best_that_the_block_can_do(loss: str, q: int):
    rng = np.random.default_rng(q)
    n, d1, k = 60, 3, 2
    y = rng.integers(0, q, size=n) if loss == "softmax" else rng.normal(size=(n, q))
    problem = Problem.from_arrays(
        x=rng.normal(size=(n, d1)),
        y=y,
        f=rng.normal(size=(n, k)),
        W=np.zeros((q, d1)),
        V=rng.normal(size=(d1, k)),
        c=np.zeros(q),
        loss=loss,
        epsilon=EPS,
    )
    solution = solve(problem)
    assert solution.attained is True
    report = check(replace(problem, point=solution.point))
    assert report.verdict is Verdict.CERTIFIED
    assert report.objective.block_gap is not None
    assert report.objective.block_gap.upper < 1e-9


def test_where_the_head_must_vanish_the_infimum_is_not_attained():
    """x is a coin that y and f know nothing of: argmin Φ has u = 0, and F falls to it as V grows."""
    x, f = np.array([1.0, -1.0, 1.0, -1.0]), np.array([1.0, 1.0, 2.0, 2.0])
    problem = Problem.from_arrays(x=x[:, None], y=f + f**2, f=f[:, None], w=[1.0], V=[[1.0]], epsilon=1e-4)
    solution = solve(problem)
    assert solution.attained is False
    assert solution.descent is not None
    assert not solution.descent.dW.any()
    assert check(replace(problem, point=solution.point)).verdict is Verdict.CERTIFIED


# --- the command -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "shown"), [({}, "F − F_lin "), ({"l2": 0.25, "norm": 2.0}, "G − G_lin ")]
)
def test_where_the_search_is_takes_one_line_of_80_columns(options: dict[str, float], shown: str):
    lines: list[str] = []
    problem = figure(-1.0, -1.0, **options)
    show = _shown(problem, SimpleNamespace(say=lines.append))
    step = Step(123, problem.point, 0.123456789, 1e-16, -1e-16)
    show(step)
    assert len(lines[0]) <= 78
    assert lines[0].startswith(f"step 123  {shown[0]} 0.12345679  ‖∇{shown[0]}‖ 1.00e-16")
    least = 0.0 if not options else 0.2
    show(replace(step, objective=1.0, lambda_min=None))
    assert float(lines[1].partition(shown)[2]) == pytest.approx(1.0 - least, abs=0.005)


def test_exit_code_report_and_file_agree(tmp_path: Path):
    output = str(tmp_path / "point.npz")
    result = run(str(CONFIGS / "saddle.yaml"), "--eps", "1e-8", "--output", output, "--format", "json")
    document = json.loads(result.stdout)
    assert result.exit_code == 0
    assert {"schema", "iterations", "point", "report", "attained", "before"} <= set(document)
    assert document["attained"] is True
    assert document["before"]["F"]["value"] == 1.0
    assert document["schema"] == "resnet-cert/solve/1"
    assert document["point"] == output
    assert document["iterations"] > 0
    assert document["report"]["verdict"] == "CERTIFIED"
    assert document["report"]["epsilon"] == 1e-8
    problem = replace(load_problem(CONFIGS / "saddle.yaml"), epsilon=1e-8, point=read_point(output))
    again = check(problem)
    assert document["report"]["objective"]["F"]["upper"] == again.objective.F.upper
    assert document["report"]["constants"]["b"] == again.constants.b


def test_the_point_is_one_for_a_spec(tmp_path: Path):
    spec = CONFIGS / "yun-sra-jadbabaie.yaml"
    output = tmp_path / "point.npz"
    assert run(str(spec), "--eps", "1e-9", "--output", str(output)).exit_code == 0
    setting = f"point={{file: {output}}}"
    result = CliRunner().invoke(cli, ["check", str(spec), "--eps", "1e-9", "--set", setting, "-q"])
    assert result.stdout == "CERTIFIED\n"


def test_a_point_is_read_back_to_the_bit(tmp_path: Path):
    point = Point(np.array([[0.1, -0.0, 1e-310]]), np.random.default_rng(0).normal(size=(3, 2)))
    write_point(str(tmp_path / "p.npz"), point)
    again = read_point(str(tmp_path / "p.npz"))
    assert again.W.tobytes() == point.W.tobytes()
    assert again.V.tobytes() == point.V.tobytes()


def test_the_text_names_the_file_and_ends_with_the_verdict(tmp_path: Path):
    output = str(tmp_path / "point.npz")
    result = run(str(CONFIGS / "example-1-refuted.yaml"), "--output", output, "--seed", "1")
    assert output in result.stdout.splitlines()[0]
    assert result.stdout.splitlines()[-1] == "CERTIFIED"
    assert result.stderr == ""


def test_the_seed_chooses_the_start(tmp_path: Path):
    points = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        output = str(tmp_path / f"{name}.npz")
        run(str(CONFIGS / "diabetes.yaml"), "--eps", "1e-3", "--output", output, "--seed", seed)
        points.append(read_point(output).V)
    assert np.array_equal(points[0], points[1])
    assert not np.array_equal(points[0], points[2])


def test_what_cannot_be_reached_is_said_with_the_honest_exit_code(tmp_path: Path):
    spec = tmp_path / "separable.yaml"
    spec.write_text(
        "version: 1\ndata: {x: [[1.0], [-1.0]], y: [1.0, -1.0]}\nloss: logistic\n"
        "network: {kind: identity}\npoint: {w: [0.0], V: [[0.0]]}\nepsilon: 0.0\n"
    )
    result = run(str(spec), "--output", str(tmp_path / "p.npz"))
    assert result.exit_code in (10, 20)
    assert "the infimum is not attained" in result.stderr
    assert "is not attained: F falls on as W grows" in result.stdout
    assert (tmp_path / "p.npz").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["SPEC", "--output", "p.txt"], "ends in .npz"),
        (["SPEC", "--output", "nowhere/p.npz"], "existing folder"),
        (["SPEC"], "--output"),
        (["SPEC", "--output", "p.npz", "--seed", "-1"], "--seed"),
        (["SPEC", "--output", "p.npz", "--seed", "x"], "--seed"),
        (["SPEC", "--output", "p.npz", "--eps", "-1"], ">= 0"),
        (["SPEC", "--output", "p.npz", "--set", "epsilon=x"], "epsilon"),
        (["missing.yaml", "--output", "p.npz"], "missing.yaml"),
        (["SPEC", "--output", "p.npz", "--set", "constraint={norm: 0.5}"], "norm = 0.5"),
    ],
)
def test_a_wrong_request_writes_nothing(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    spec = str(CONFIGS / "saddle.yaml")
    result = run(*(spec if argument == "SPEC" else argument for argument in arguments))
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts with it ignored
import resnet_cert.search.solve
arrive = resnet_cert.search.solve._Search.arrive
def slowly(self, *arguments, **named):
    arrive(self, *arguments, **named)
    print("step", flush=True, file=sys.stderr)
    time.sleep(0.5)
resnet_cert.search.solve._Search.arrive = slowly
sys.argv = ["resnet-cert", "solve", *sys.argv[1:]]
from resnet_cert.cli import main
main()
"""


@pytest.mark.parametrize(("how", "code"), first(1, [(signal.SIGTERM, 143), (signal.SIGINT, 130)]))
def test_an_interrupt_leaves_the_best_point_so_far(how: signal.Signals, code: int, tmp_path: Path):
    spec, output = str(CONFIGS / "breast-cancer-halfway.yaml"), str(tmp_path / "p.npz")
    command = [sys.executable, "-c", SLOW, spec, "--seed", "1", "--output", output]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for _ in range(3):
            assert process.stderr.readline() == "step\n"
        process.send_signal(how)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert stdout == ""
    assert f"the best point so far is in {output}" in stderr
    assert [path.name for path in tmp_path.iterdir()] == ["p.npz"]
    problem = load_problem(spec)
    start = replace(problem, point=perturbed(problem, 1))
    reached = check(replace(problem, point=read_point(output)))
    assert reached.objective.F.upper < check(start).objective.F.lower
    assert reached.verdict is Verdict.REFUTED


def test_on_a_ball_from_far_away_it_goes_where_F_alone_leads():
    """‖V‖ = 1e5 within a ball that hardly matters: a way along its sphere ends in rounding."""
    rng = np.random.default_rng(1)
    x, f, y = rng.normal(size=(60, 3)), rng.normal(size=(60, 2)), rng.normal(size=(60, 2))
    far = Problem.from_arrays(
        x=x, y=y, f=f, W=3.0 * rng.normal(size=(2, 3)), V=5e4 * rng.normal(size=(3, 2)), epsilon=EPS, norm=2e5
    )
    solution = solve(far)
    assert check(replace(far, point=solution.point)).verdict is Verdict.CERTIFIED
    assert solution.stopped is None


def test_from_far_away_it_comes_nearer_first():
    """‖V‖ about 1e5, a softmax that is straight there: a thousand steps, one flat piece after the other."""
    rng = np.random.default_rng(1)
    (n, d, k, q) = 100, 6, 5, 3
    problem = Problem.from_arrays(
        x=rng.normal(size=(n, d)),
        y=rng.integers(q, size=n),
        f=rng.normal(size=(n, k)),
        W=50.0 * rng.normal(size=(q, d)),
        V=3e4 * rng.normal(size=(d, k)),
        loss="softmax",
        l2=2e-8,
        epsilon=1e-6,
    )
    solution = solve(problem)
    assert solution.stopped is None
    assert solution.iterations < 100


def test_where_mu2_overflows_it_says_what_is_not_decided():
    rng = np.random.default_rng(5)
    x, f, y = rng.normal(size=(9, 2)), rng.normal(size=(9, 2)), np.abs(rng.normal(size=9))
    w, V = rng.normal(size=2), rng.normal(size=(2, 2))
    problem = Problem.from_arrays(x=x, f=f, y=y, w=w, V=V, loss="poisson", epsilon=1e-6, b=300.0)
    found = solve(problem)
    assert found.stopped is not None
    assert "no finite μ2 is known" in found.stopped
    stated = replace(problem, point=found.point, lipschitz=replace(problem.lipschitz, mu2=1.0))
    assert solve(stated).stopped is None
    assert check(stated).verdict is Verdict.CERTIFIED


def test_where_mu2_overflows_balls_prove_a_tiny_lambda_min():
    """λ_min is 2·l2 = 4e-10, of which float64 tells no sign."""
    problem = hard_head(23016588)
    found = solve(problem)
    report = check(replace(problem, point=found.point))
    assert report.constants.mu2 is None
    assert report.verdict is Verdict.CERTIFIED
    assert found.stopped is None
