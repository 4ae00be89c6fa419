"""min F_lin, its minimiser and whether it is attained, against high precision, at any condition and scale."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any, cast

import numpy as np
import pytest
from families import draw
from flint import arb, arb_mat, ctx
from heads import BITS, LOSSES, Array, Head
from ill_conditioned import argmin, design, of_a_kind
from linear_heads import Minimum, attained, minimum
from selections import each_once, first

from resnet_cert import Problem
from resnet_cert.compare import path
from resnet_cert.compare.dual import dual_bound
from resnet_cert.compare.linear_data import Data
from resnet_cert.compare.linear_minimum import LinearMinimum
from resnet_cert.compare.minimum_on_ball import best_linear_predictor, best_regularised, minimum_on_ball
from resnet_cert.compare.recession import receding_faces
from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.problem.losses import named_loss

KINDS = ("generic", "one sample", "weights", "hard labels")


@pytest.fixture(autouse=True)
def _precision():
    with ctx.workprec(BITS):
        yield


def linear(x: Array, y: Array, loss: str = "squared", q: int = 1, **options: Any) -> Problem:
    """A problem of which only the linear predictors matter."""
    n, d = x.shape
    return Problem.from_arrays(
        x=x, y=y, f=np.zeros((n, 1)), W=np.ones((q, d)), V=np.zeros((d, 1)), loss=loss, **options
    )


def holds(x: Enclosure, truth: arb) -> bool:
    return not (truth < arb(x.lower) or truth > arb(x.upper))


def width(x: Enclosure) -> float:
    return (x.upper - x.lower) / abs(x.upper) if x.upper else 0.0


def truth_near(head: Head, r: float, found: LinearMinimum) -> Minimum:
    return minimum(head.truth, r, near=found.W_star.center, multiplier=found.found.place.lam)


def off(found: LinearMinimum, truth: Minimum) -> arb:
    """‖Ŵ − W*‖_F."""
    entries = [entry for row in truth.W for entry in row]
    pairs = zip(entries, found.W_star.center.ravel(), strict=True)
    return sum(((a.mid() - arb(float(b))) ** 2 for a, b in pairs), arb(0)).sqrt()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", KINDS)
def test_minimum_and_minimiser_lie_where_they_are_said_to(loss: str, kind: str, longer: int):
    for seed in range(longer):
        head = draw(seed, kind, loss)
        r = float(10.0 ** np.random.default_rng(seed).uniform(-1.0, 0.5))
        found = best_linear_predictor(head.problem(), r, 1.0)
        truth = truth_near(head, r, found)
        assert holds(found.F_min, truth.value), (seed, r)
        assert not off(found, truth) > arb(float(found.W_star.radius)) + arb(10) ** -30, (seed, r)
        assert found.W_star.norm().lower <= r
        if found.falls_at_rim is not None and found.attained is not None:
            assert found.falls_at_rim == truth.active
        tiny = found.F_min.upper < 1e-12
        assert tiny or width(found.F_min) < 1e-11, (seed, r, found)


def hard(loss: str, q: int, seed: int) -> tuple[Array, Array, Array, float]:
    """x, targets as the formulas know them, targets as they are given, cond(X)."""
    rng = np.random.default_rng([seed, q, len(loss)])
    d, n, cond = int(rng.integers(2, 4)), int(rng.integers(8, 12)), 10.0 ** rng.uniform(0, 15)
    made = design if seed % 2 == 0 else of_a_kind
    x = made(rng, n, d, cond, 10.0 ** rng.choice([0, -150, 150, -60, 5]))
    y = {
        "logistic": rng.uniform(0.1, 0.9, (n, q)) if q > 1 else rng.integers(0, 2, (n, 1)).astype(float),
        "softmax": rng.dirichlet(np.ones(q), size=n),
        "poisson": rng.poisson(2.0, (n, q)) + 1.0,
    }.get(loss, rng.normal(size=(n, q)))
    return x, y, 2.0 * y[:, 0] - 1.0 if loss == "logistic" and q == 1 else y, cond


@pytest.mark.parametrize(
    ("loss", "q"), each_once(["squared", "logistic", "pseudo_huber", "poisson", "softmax"], [3, 1])
)
def test_ill_conditioned_designs_at_any_scale(loss: str, q: int, longer: int):
    if (loss, q) == ("softmax", 1):
        pytest.skip("one class")
    for seed in range(2 * longer):
        x, y, given, cond = hard(loss, q, seed)
        found, truth = best_linear_predictor(linear(x, given, loss, q), None, 1.0), argmin(x, y, loss)
        if truth is None:
            assert found.attained is False
            continue
        assert found.attained
        assert holds(found.F_min, truth.value), (seed, cond)
        assert holds(found.norm, truth.norm), (seed, cond)
        assert found.r == pytest.approx(1.01 * float(truth.norm), rel=1e-6 if cond < 1e12 else 1e-3)
        if cond < 1e12:
            assert width(found.F_min) < 1e-6, (seed, cond)
            assert width(found.norm) < 1e-6, (seed, cond)


def labelled(loss: str, q: int, seed: int) -> tuple[Array, Array, float]:
    """x, hard targets as the formulas know them, and cond(X): often a part of them can be separated."""
    rng = np.random.default_rng([seed, q, len(loss), 77])
    d, cond = int(rng.integers(1, 5)), 10.0 ** rng.uniform(0, 15)
    n = max(int(rng.integers(3, 14)), d)
    made = design if rng.random() < 0.5 or d == 1 else of_a_kind
    x = made(rng, n, d, cond, 10.0 ** rng.choice([0, -150, 150, -60, 5, 0, 0]))
    p = (x / np.max(np.abs(x), axis=0)) @ rng.normal(size=(q, d)).T
    p = p + rng.choice([0, 0.3, 3.0]) * rng.normal(size=p.shape) * np.abs(p).mean()
    if rng.random() < 0.4:  # an input that only some samples see
        group = rng.random(n) < 0.5
        if d > 1:
            x[group, -1] = 0.0
        if rng.random() < 0.5:
            p[~group] = np.abs(p[~group])
    if loss == "softmax":
        return x, np.eye(q)[np.argmax(p, axis=1)], cond
    return x, (p > 0.0).astype(float) if loss == "logistic" else np.clip(np.rint(p), 0.0, 9.0), cond


def is_attained(x: Array, y: Array, loss: str) -> bool:
    """Exactly; y (n, q) as the formulas know it."""
    (n, d), q = x.shape, y.shape[1]
    return attained(Head(x, y, np.zeros((n, 1)), np.ones((q, d)), np.zeros((d, 1)), loss))


@pytest.mark.parametrize(
    ("loss", "q"),
    first(3, [("logistic", 1), ("poisson", 3), ("softmax", 2), ("logistic", 3), ("softmax", 3)]),
)
def test_hard_labels_on_ill_conditioned_designs(loss: str, q: int, longer: int):
    """`attained` agrees with the exact cone of each output, and no enclosure is wide."""
    for seed in range(2 * longer):
        x, y, cond = labelled(loss, q, seed)
        if (loss, q) == ("softmax", 3):
            x = x[:, :2]  # more takes the exact cone too long
        given = 2.0 * y - 1.0 if loss == "logistic" else y
        exact = is_attained(x, y, loss)
        for r in (None, 10.0 ** np.random.default_rng(seed).uniform(-3, 6) / np.max(np.abs(x))):
            found = best_linear_predictor(linear(x, given[:, 0] if q == 1 else y, loss, q), r, 1.0)
            assert found.attained is exact or (found.attained is None and cond > 1e12), (seed, r)
            assert cond > 1e12 or found.F_min.upper < 1e-12 or width(found.F_min) < 1e-6, (seed, r)


@pytest.mark.parametrize(
    ("q", "seed", "on_ball"), first(3, [(3, 24, True), (3, 7, False), (2, 34, False), (3, 177, False)])
)
def test_softmax_whatever_the_units_of_the_columns(q: int, seed: int, on_ball: bool):
    """Columns 1e9 apart; a direction that is nearly alike for all samples, or all classes but one."""
    x, y, _ = labelled("softmax", q, seed)
    r = 10.0 ** np.random.default_rng(seed).uniform(-3, 6) / np.max(np.abs(x)) if on_ball else None
    found = best_linear_predictor(linear(x, y, "softmax", q), r, 1.0)
    assert found.attained is False
    assert width(found.F_min) < 1e-9


@pytest.mark.parametrize(("loss", "q"), [("logistic", 3), ("poisson", 1), ("softmax", 3)])
def test_the_dual_is_below_the_minimum_and_close(loss: str, q: int, longer: int):
    compared = 0
    for seed in range(2 * longer):
        x, y, given, cond = hard(loss, q, seed)
        truth = argmin(x, y, loss)
        if truth is None:
            continue
        compared += 1
        problem = replace(linear(x, given, loss, q), loss=named_loss(loss, 0.3))
        found = best_linear_predictor(problem, None, 1.0)
        for r in (math.inf, found.r):
            lower = dual_bound(found.data, found.found, r)
            assert arb(lower) <= truth.value * arb(0.3), (seed, r)
            assert lower >= found.F_min.upper * (1.0 - 1e-9) - 1e-9, (seed, r)
        length = found.found.norm / 3.0
        smaller = best_linear_predictor(problem, length, 1.0)
        lower = dual_bound(smaller.data, smaller.found, length)
        assert lower <= smaller.F_min.upper, seed
        assert cond > 1e12 or lower >= smaller.F_min.upper * (1.0 - 1e-9) - 1e-9, seed
    assert compared


CASES: dict[str, tuple[list[list[float]], list[float], list[float], float]] = {
    "exact fit": ([[1e4, 1], [10001, 1], [10002, 1]], [-1, 0, 1], [1, -10001], 0.0),
    "pressure": (
        [[101325, 1], [101300, 1], [101280, 1], [101340, 1]],
        [25, 0, -20, 40],
        [1, -101300],
        0.0,
    ),
    "near twins": (
        [[1, 1.00000001], [1, 0.99999999], [-1, -1], [2, 2]],
        [1, -1, 0, 0],
        [-100000000.0526, 100000000.0526],
        5.5027e-18,
    ),
    "tiny inputs": ([[1e-165], [2e-165]], [1, 2], [1e165], 0.0),
}
"""x, y, w*, min F_lin."""


@pytest.mark.parametrize("name", CASES)
def test_columns_that_nearly_depend_on_each_other(name: str):
    x, y, w_star, least = CASES[name]
    found = best_linear_predictor(linear(np.array(x, float), np.array(y, float)), None, 1.0)
    length = float(np.max(np.abs(w_star))) * float(np.linalg.norm(w_star / np.max(np.abs(w_star))))
    assert found.attained is True
    assert found.chosen
    assert found.falls_at_rim is False
    assert found.r == pytest.approx(1.01 * length, rel=1e-6)
    assert found.W_star.center[0] == pytest.approx(w_star, rel=1e-6)
    assert found.F_min.lower <= least * (1 + 1e-4)
    assert found.F_min.upper <= least * (1 + 1e-4) + 1e-20
    assert found.norm.lower <= length * (1 + 1e-12)


def test_data_that_a_plane_separates_have_no_minimum():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 3))
    found = best_linear_predictor(linear(x, np.sign(x @ rng.normal(size=3)), "logistic"), None, 2.0)
    assert (found.attained, found.falls_at_rim, found.chosen, found.r) == (False, True, False, 2.0)
    assert found.norm == Enclosure.exact(2.0)
    classes = np.argmax(x @ rng.normal(size=(3, 3)), axis=1).astype(float)
    assert best_linear_predictor(linear(x, classes, "softmax", 3), 5.0, 1.0).attained is False


@pytest.mark.parametrize(
    ("x", "y", "attained"),
    [
        ([[1, 0], [1, 0], [0, 1], [1, 1]], [1, -1, 1, 1], False),  # along (0, 1) no loss grows
        ([[0.1, 0.3], [0.1, 0.3], [0, 1], [1, 1]], [1, -1, 1, 1], True),
        ([[1, 3], [1, 3], [3, -1], [2, 6]], [1, -1, 1, 1], False),
        ([[0.1, 0.3], [0.1, 0.3], [0.3, -0.1], [1, 3]], [1, -1, 1, 1], True),  # 3·0.1 is not 0.3 in floats
        ([[1, 0], [1, 0]], [1, -1], True),
        ([[1, 5e-324], [1, 1e-323]], [-1, 1], False),  # along (−1.5, 2^1074), which is no float
    ],
)
def test_where_some_products_vanish_it_is_decided_exactly(
    x: list[list[float]], y: list[float], attained: bool
):
    found = best_linear_predictor(linear(np.array(x, float), np.array(y, float), "logistic"), 5.0, 1.0)
    assert found.attained is attained


@pytest.mark.parametrize(
    ("loss", "x"),
    each_once(["logistic", "poisson"], [[[0.0, 0.0]], [[0.0], [5e-324]], [[1e308, 5e-324], [5e-324, 1e308]]]),
)
def test_it_is_decided_where_little_or_nothing_recedes(loss: str, x: list[list[float]]):
    """All inputs zero, no loss that falls for ever, and entries where floats end."""
    for label in (0.0, 1.0):
        problem = linear(np.array(x), np.full(len(x), 2.0 * label - (loss == "logistic")), loss)
        attains = not np.any(x) or (loss == "poisson" and label == 1.0)
        assert best_linear_predictor(problem, None, 1.0).attained is attains
        assert bool(list(receding_faces(problem))) is not attains


def test_attainment_agrees_with_the_exact_cone(longer: int):
    """Small integers and decimals, many of whose products vanish: every one is decided, and none wrongly."""
    for seed in range(24 * longer):
        rng = np.random.default_rng(seed)
        n, d = int(rng.integers(1, 8)), int(rng.integers(1, 4))
        x = rng.integers(-2, 3, (n, d)).astype(float) if seed % 2 else rng.normal(size=(n, d)).round(1)
        loss = "logistic" if seed % 3 else "poisson"
        y = rng.choice([-1.0, 1.0], n) if loss == "logistic" else rng.poisson(0.5, n).astype(float)
        exact = is_attained(x, (y[:, None] + 1.0) / 2.0 if loss == "logistic" else y[:, None], loss)
        assert best_linear_predictor(linear(x, y, loss), None, 2.0).attained is exact, seed


def test_counts_of_zero_may_leave_no_minimum():
    x = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    assert best_linear_predictor(linear(x, np.array([2.0, 0.0, 0.0]), "poisson"), None, 3.0).attained is False
    assert best_linear_predictor(linear(x, np.array([2.0, 1.0, 0.0]), "poisson"), None, 3.0).attained is True


@pytest.mark.parametrize("loss", ["squared", "logistic", "softmax", "poisson"])
def test_a_bad_search_costs_width_and_never_truth(loss: str, monkeypatch: pytest.MonkeyPatch):
    head = draw(3, "generic", loss, q=2, d1=2)
    problem = head.problem()
    good = best_linear_predictor(problem, 0.7, 1.0)
    truth = truth_near(head, 0.7, good)
    right = path.minimised
    for size in (1e-9, 1e-3, 1.0):

        def astray(*arguments: Any, size: float = size, **options: Any) -> path.Place:
            place = right(*arguments, **options)
            rng = np.random.default_rng(0)
            point = place.point + size * rng.normal(size=place.point.shape)
            return path.Place(point, place.lam, arguments[0].sketch(point, place.lam), converged=True)

        monkeypatch.setattr(path, "minimised", astray)
        monkeypatch.setattr(path, "STEPS_TO_LAMBDA", 3)
        found = best_linear_predictor(problem, 0.7, 1.0)
        assert holds(found.F_min, truth.value)
        assert not off(found, truth) > arb(float(found.W_star.radius))
        assert found.W_star.norm().lower <= 0.7


@pytest.mark.parametrize("loss", ["softmax", "logistic", "squared"])
def test_products_alone_find_the_same(loss: str, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 5))
    y = rng.integers(0, 3, 60).astype(float) if loss == "softmax" else rng.uniform(size=(60, 3))
    problem = linear(x, y, loss, 3)
    for r in (0.2, 50.0):
        dense = best_linear_predictor(problem, r, 1.0)
        monkeypatch.setattr(path, "LARGEST_DENSE", 0)
        products = best_linear_predictor(problem, r, 1.0)
        monkeypatch.undo()
        assert products.F_min.value == pytest.approx(dense.F_min.value, rel=1e-12)
        assert width(products.F_min) < 1e-11


@pytest.mark.parametrize("loss", ["softmax", "logistic"])
def test_that_the_minimiser_lies_inside_of_the_ball_is_seen_in_a_few_steps(
    loss: str, monkeypatch: pytest.MonkeyPatch
):
    rng, right, places = np.random.default_rng(0), path.minimised, []

    def counted(*arguments: Any, **options: Any) -> path.Place:
        places.append(right(*arguments, **options))
        return places[-1]

    monkeypatch.setattr(path, "minimised", counted)
    x, y = rng.normal(size=(60, 3)), rng.integers(0, 3, 60).astype(float)
    problem = linear(
        x, y if loss == "softmax" else np.where(y > 0.0, 1.0, -1.0), loss, 3 if loss == "softmax" else 1
    )
    free, inside = best_linear_predictor(problem, None, 1.0), best_linear_predictor(problem, 50.0, 1.0)
    assert free.attained
    assert inside.F_min.lower <= free.F_min.upper
    assert free.F_min.lower <= inside.F_min.upper
    assert width(inside.F_min) < 1e-12
    assert len(places) < 40  # 80 on the way to the least λ there is


def extreme(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """One scale, one for each entry, the ends of float64, or about 1."""
    match int(rng.integers(4)):
        case 0:
            return rng.normal(size=shape) * 10.0 ** rng.uniform(-300, 290)
        case 1:
            return rng.normal(size=shape) * 10.0 ** rng.uniform(-300, 290, size=shape)
        case 2:
            return rng.choice([0.0, 5e-324, 1e-310, 1e-160, 1.0, 1e160, 1e300, -1e300], size=shape)
    return rng.normal(size=shape)


def exact_value(x: Array, y: Array, W: Array) -> Fraction:
    """½E‖Wx − y‖²."""
    total = Fraction(0)
    for row, targets in zip(x, y, strict=True):
        for w, target in zip(W, targets, strict=True):
            products = (Fraction(float(a)) * Fraction(float(b)) for a, b in zip(w, row, strict=True))
            p = sum(products, Fraction(0))
            total += (p - Fraction(float(target))) ** 2
    return total / (2 * len(x))


def test_at_no_scale_is_a_predictor_in_the_ball_better_than_the_minimum(longer: int):
    for seed in range(20 * longer):
        rng = np.random.default_rng(seed)
        n, d, q = (int(rng.integers(1, most)) for most in (6, 4, 3))
        x, y = extreme(rng, (n, d)), extreme(rng, (n, q))
        wide = float(10.0 ** rng.uniform(-300, 300))
        r = (None, wide, float(10.0 ** rng.uniform(-2, 2)))[int(rng.integers(3))]
        found = best_linear_predictor(linear(x, y, q=q), r, 1.0)
        if not (math.isfinite(found.F_min.lower) and math.isfinite(found.r)):
            continue
        units = rng.normal(size=(3, q, d))
        length = min(found.r, 1e300) * 0.999
        tries = [u / np.linalg.norm(u) * (length * rng.uniform() ** 3) for u in units]
        for W in (np.zeros((q, d)), found.W_star.center, *tries):
            if not np.isfinite(W).all():
                continue
            square = sum((Fraction(float(e)) ** 2 for e in W.ravel()), Fraction(0))
            if square <= Fraction(found.r) ** 2:
                assert exact_value(x, y, W) >= Fraction(found.F_min.lower), seed


def test_a_ball_of_radius_zero_and_one_without_end():
    rng = np.random.default_rng(2)
    problem = linear(rng.normal(size=(9, 3)), rng.normal(size=9))
    nothing = best_linear_predictor(problem, 0.0, 1.0)
    assert not nothing.W_star.center.any()
    everywhere = minimum_on_ball(Data.of(problem), math.inf, math.inf)
    assert everywhere.F_min.upper < nothing.F_min.lower
    assert width(everywhere.F_min) < 1e-12


def test_of_many_minimisers_that_of_least_norm_is_located():
    rng = np.random.default_rng(3)
    category = np.eye(3)[rng.integers(0, 3, 30)]
    x = np.column_stack([np.ones(30), category, rng.normal(size=30)])
    y = rng.normal(size=30)
    found = best_linear_predictor(linear(x, y), None, 1.0)
    expected = np.linalg.pinv(x) @ y
    assert found.attained
    assert found.W_star.center[0] == pytest.approx(expected, abs=1e-12)
    assert float(found.W_star.radius) < 1e-9
    few = best_linear_predictor(linear(x[:3], y[:3]), None, 1.0)
    assert few.W_star.center[0] == pytest.approx(np.linalg.pinv(x[:3]) @ y[:3], abs=1e-10)


def test_weight_decay_gives_the_ridge_solution():
    from resnet_cert.compare.minimum_on_ball import best_regularised

    rng = np.random.default_rng(4)
    x, y, l2 = rng.normal(size=(20, 3)), rng.normal(size=20), 0.3
    found = best_regularised(linear(x, y, l2=l2))
    expected = np.linalg.solve(x.T @ x / 20 + 2 * l2 * np.eye(3), x.T @ y / 20)
    assert found.W_star.center[0] == pytest.approx(expected, abs=1e-12)
    value = float(np.mean((x @ expected - y) ** 2)) / 2 + l2 * float(expected @ expected)
    assert found.F_min.lower - 1e-14 <= value <= found.F_min.upper + 1e-14
    bias = Problem.from_arrays(
        x=x, y=y + 5.0, f=np.zeros((20, 1)), W=np.ones((1, 3)), V=np.zeros((3, 1)), c=[0.0], l2=l2,
        decay_bias=False,
    )  # fmt: skip
    free = best_regularised(bias)
    assert free.W_star.center[0, -1] == pytest.approx(np.mean(y + 5.0 - x @ free.W_star.center[0, :3]))


@pytest.mark.parametrize("seed", range(6))
def test_with_fewer_samples_than_inputs_and_a_bias_without_decay(seed: int):
    """Σ(Wx + c − y)²/2n + l2‖W‖²: where the data leave directions unseen, c may have a part in them."""
    rng = np.random.default_rng(seed)
    n, d, l2 = 1 + seed % 3, 4, float(10.0 ** rng.uniform(-3.0, 0.0))
    x, y = rng.normal(size=(n, d)), rng.normal(size=n)
    problem = Problem.from_arrays(
        x=x,
        y=y,
        f=np.ones((n, 1)),
        W=np.zeros((1, d)),
        V=np.zeros((d, 1)),
        c=[0.0],
        loss="squared",
        weight_decay=2.0 * l2,
        decay_bias=False,
    )
    with ctx.workprec(BITS):
        inputs = arb_mat([[*map(float, row), 1.0] for row in x])
        targets = arb_mat([[float(t)] for t in y])
        decay = arb_mat([[2 * arb(l2) * int(i == j < d) for i in range(d + 1)] for j in range(d + 1)])
        best = (inputs.transpose() * inputs / n + decay).solve(inputs.transpose() * targets / n)
        missed = inputs * best - targets
        squares = [sum((entry * entry for entry in part), arb(0)) for part in (missed, best.entries()[:d])]
        truth = squares[0] / (2 * n) + arb(l2) * squares[1]
        found = best_regularised(problem).F_min
        assert arb(found.lower).union(arb(found.upper)).overlaps(truth)
    assert found.upper - found.lower <= 1e-9


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("n", [3, 700])
def test_the_lower_bound_of_the_curvature_is_below_all_of_it(loss: str, n: int):
    head = draw(1, "weights", loss, q=3, d1=2)
    rng = np.random.default_rng(n)
    times = -(-n // len(head.x))
    x = np.concatenate([head.x * rng.normal(1.0, 0.2, head.x.shape) for _ in range(times)])
    rows = {"omega": np.tile(head.omega, (times, 1))} if head.omega is not None else {}
    problem = linear(x, np.tile(head.y, (times, 1)), loss, 3, **rows)
    objective = Data.of(problem).objective(0.0)
    d = objective.d
    for scale in (0.0, 1.0, 5.0):
        point = scale * rng.normal(size=(3, d))
        point -= point.mean(axis=0)
        B, whole = objective.least_block(point), np.zeros((3, d, 3, d))
        blocks = [block.center for block in cast("list[Any]", objective.enclosed(point, blocks=True).blocks)]
        if len(blocks[0]) == 3 * d:
            whole = blocks[0].reshape(3, d, 3, d)
        else:
            for a in range(3):
                whole[a, :, a] = blocks[min(a, len(blocks) - 1)]
        across = np.eye(3) - (1.0 / 3.0 if objective.is_mean_free else 0.0)
        excess = whole.reshape(3 * d, 3 * d) - np.kron(across, B.center)
        size = float(np.max(np.abs(whole)))
        assert np.linalg.eigvalsh(excess)[0] >= -1e-13 * size - float(B.radius)
        assert np.linalg.eigvalsh(B.center)[0] > 0.0


def test_on_a_tiny_ball_the_search_ends_where_it_has_arrived():
    """Where Newton's step on λ is rounding, it is no reason to look elsewhere."""
    rng = np.random.default_rng(7)
    for _ in range(20):
        x, y = rng.normal(size=(11, 3)), rng.choice([-1.0, 1.0], 11)
        found = best_linear_predictor(linear(x, y, "logistic"), float(10.0 ** rng.uniform(-4.0, -2.0)), 1.0)
        assert found.F_min.upper - found.F_min.lower <= 1e-13


def test_nearly_equal_columns_with_softmax_leave_a_minimum():
    for seed, has_minimum in ((5, True), (7, False), (8, True)):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(11, 2))
        x[:, 1] = x[:, 0] + 1e-4 * rng.normal(size=11)
        y = np.eye(2)[rng.integers(0, 2, 11)]
        found = best_linear_predictor(linear(x, y, "softmax", 2), None, 1.0)
        assert found.attained is has_minimum, seed
        assert not has_minimum or width(found.norm) < 1e-6, seed
