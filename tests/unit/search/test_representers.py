"""The search by one number for every sample: no step loses a critical point, and few samples are decided."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from selections import first
from stationary import LOSSES, assert_stationary, critical_points, problem_of

from resnet_cert import Problem
from resnet_cert.numerics.balls import Balls, product
from resnet_cert.numerics.intervals import Interval
from resnet_cert.problem.losses import BuiltinLoss
from resnet_cert.problem.ranges import inverse_slope, separable_slopes
from resnet_cert.search import branches, decayed
from resnet_cert.search.derivatives import Objective
from resnet_cert.search.equations import equations
from resnet_cert.search.representers import Examiner, Multipliers, orthonormal_rows, quotient
from resnet_cert.search.shells import Shells

Array = np.ndarray[Any, Any]


def with_bias(problem: Problem) -> Problem:
    chunk = problem.chunk(slice(0, problem.n))
    y = chunk.y[:, 0] if problem.loss.name != "logistic" else 2.0 * chunk.y[:, 0] - 1.0
    return Problem.from_arrays(
        x=chunk.x,
        y=y,
        f=chunk.f,
        w=problem.W[0],
        V=problem.V,
        c=[0.5],
        loss=problem.loss.name,
        l2=problem.objective.l2,
        decay_bias=False,
    )


def exact(system: Multipliers, w: Array, b: Array) -> Array:
    """(w', w_2, γ) of the critical point near (w, b), by Newton's method."""
    d1, r, s, t = system.whole.d1, system.r, float(np.sum(w[: system.whole.d1] ** 2)), float(b @ b)
    turned = w if system.Q is None else np.concatenate([system.Q.center.T @ w[:d1], w[d1:]])
    rows = np.concatenate([system.X.center, system.F], axis=1)
    of_w = np.concatenate([(1.0 - t) * turned[:r], turned[r:] * system.decayed[r:]])
    gamma = np.linalg.lstsq(rows.T, np.concatenate([of_w, b]), rcond=None)[0]
    u: Array = np.concatenate([turned, gamma]).astype(np.float64)
    for _ in range(30):
        at = system(u[None], np.zeros((1, len(u))))
        u = u - np.linalg.solve(at.jacobian.center[0], at.at.center[0])
    assert s > 0.0
    return u


APART = [("squared", (1, 2, 3), False), ("logistic", (3, 2, 2), True)]


@pytest.mark.parametrize(
    ("loss", "size", "bias"),
    first(
        2,
        sorted(
            itertools.product(LOSSES, [(1, 2, 3), (3, 2, 2)], [False, True]),
            key=lambda case: case not in APART,
        ),
    ),
)
def test_no_box_loses_a_critical_point(loss: str, size: tuple[int, int, int], bias: bool) -> None:
    d, k, n = size
    problem = problem_of(5, d, k, 0.02, loss, n)
    problem = with_bias(problem) if bias else problem
    rng = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        shells = Shells(equations(problem), problem.loss, 1e4)
        system = Multipliers.of(shells)
        assert system is not None
        tried = 0
        for z in critical_points(problem, 30, 2):
            W, V = Objective(problem).head(z)
            s = float(W[0, :d] @ W[0, :d])
            if s < 1e-12:
                continue
            u = exact(system, W[0], V.T @ W[0, :d] / s)
            w, gamma = u[: system.head], u[system.head :]
            b, s = system.F.T @ gamma, float(w[: system.r] @ w[: system.r])
            t, p = float(b @ b), system.X.center @ w + s * (system.F @ b)
            for divided in (True, False):
                examine = Examiner(shells, system, divided=divided)
                v, sigma = (gamma / (t - 1.0), s * (t - 1.0)) if divided else (gamma, s)
                at = np.concatenate([w, b, v, p, [s, t, sigma]])
                reach = np.abs(at) * 10.0 ** rng.uniform(-5.0, 1.5, size=(100, len(at)))
                low, high = (at + sign * reach * rng.uniform(size=reach.shape) for sign in (-1.0, 1.0))
                low[:, [examine.s, examine.t]] = np.maximum(low[:, [examine.s, examine.t]], 0.0)
                seen = examine(low, high, np.zeros((100, len(u))))
                held = [alone for *_, alone in seen.found]  # a box whose one zero is found is not kept
                assert all((np.abs(u - c) <= r + 1e-9 * np.abs(u)).all() for c, r in held)
                assert seen.alive.sum() + len(held) == len(low)
                slack = 1e-9 * np.abs(at) + 1e-300
                assert (seen.low <= at + slack)[seen.alive].all()
                assert (seen.high >= at - slack)[seen.alive].all()
                tried += 1
    assert tried or (bias and d == 1)


@pytest.mark.parametrize(
    ("seed", "d", "k", "n", "l2", "loss"),
    [
        pytest.param(1, 3, 3, 1, 1e-6, "squared", marks=pytest.mark.long),
        pytest.param(2, 3, 3, 2, 1e-7, "squared", marks=pytest.mark.long),
        (3, 2, 1, 2, 2e-6, "poisson"),
        pytest.param(4, 1, 2, 2, 1e-8, "pseudo_huber", marks=pytest.mark.long),
        pytest.param(5, 3, 3, 2, 1e-9, "logistic", marks=pytest.mark.long),
        pytest.param(6, 2, 2, 4, 1e-7, "poisson", marks=pytest.mark.long),
        pytest.param(7, 3, 3, 5, 5e-6, "pseudo_huber", marks=pytest.mark.long),
    ],
)
def test_few_samples_are_decided(
    monkeypatch: pytest.MonkeyPatch, seed: int, d: int, k: int, n: int, l2: float, loss: str
) -> None:
    monkeypatch.setattr(decayed, "STARTS", 1)
    monkeypatch.setattr(branches, "SOON", 100)
    problem = problem_of(seed, d, k, l2, loss, n)
    found = decayed.search(problem, np.array([-10.0, -10.0]), np.array([10.0, 10.0]))
    assert found.complete
    listed = assert_stationary(problem, found.points)
    function = Objective(problem)
    for z in critical_points(problem, 3):
        if np.abs(z).max() < 10.0 and np.linalg.norm(function.at(z)[1]) < 1e-3 * l2:
            assert min(float(np.linalg.norm(z - other)) for other in listed) < 1e-4


def test_rows_are_turned_into_a_square() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 5))
    turned = orthonormal_rows(x)
    assert turned is not None
    X, Q = turned
    back = product(X, Balls(Q.center.T, Q.radius.T))
    assert (np.abs(back.center - x) <= back.radius).all()
    square = product(Balls(Q.center.T, Q.radius.T), Q)
    assert (np.abs(square.center - np.eye(3)) <= square.radius).all()
    assert max(X.radius.max(), Q.radius.max()) < 1e-13
    x[2] = 2.0 * x[0] - x[1]
    assert orthonormal_rows(x) is None


@pytest.mark.parametrize("loss", LOSSES)
def test_a_slope_has_its_prediction(loss: str) -> None:
    kind = BuiltinLoss(loss)
    inverse, slopes = inverse_slope(kind), separable_slopes(kind)
    assert inverse is not None
    assert slopes is not None
    p, y = np.linspace(-3.0, 3.0, 7), np.array([0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    assert inverse(slopes(Balls.exact(p), y).first.center, y) == pytest.approx(p, abs=1e-12)


def test_a_quotient_by_what_may_be_0_keeps_what_is_known() -> None:
    def ends(x: tuple[float, float], y: tuple[float, float]) -> tuple[float, float]:
        with np.errstate(all="ignore"):
            found = quotient(Interval(*np.array(x)[:, None]), Interval(*np.array(y)[:, None]))
        return float(found.lower[0]), float(found.upper[0])

    assert ends((2.0, 3.0), (0.0, 4.0)) == pytest.approx((0.5, np.inf))
    assert ends((-3.0, -2.0), (0.0, 4.0)) == pytest.approx((-np.inf, -0.5))
    assert ends((2.0, 3.0), (-4.0, 0.0)) == pytest.approx((-np.inf, -0.5))
    assert ends((-3.0, -2.0), (-4.0, 0.0)) == pytest.approx((0.5, np.inf))
    assert ends((-1.0, 2.0), (0.0, 4.0)) == (-np.inf, np.inf)
    assert ends((2.0, 3.0), (-1.0, 4.0)) == (-np.inf, np.inf)
    assert ends((2.0, 4.0), (1.0, 2.0)) == pytest.approx((1.0, 4.0))
