"""The break-even radius against minima in 256 bits: its lower end is not enough, its upper end is.

And inf F_lin where no W attains it, against the minimum of what stays.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from flint import arb, ctx
from heads import BITS, Head
from linear_heads import minimum
from selections import each_once, first

from resnet_cert.compare.break_even import break_even_radius
from resnet_cert.compare.infimum import infimum
from resnet_cert.compare.linear_data import Found
from resnet_cert.compare.linear_minimum import LinearMinimum, Seen
from resnet_cert.compare.minimum_on_ball import best_linear_predictor
from resnet_cert.compare.path import origin
from resnet_cert.compare.profile import profile
from resnet_cert.moments.gradient import first_moments
from resnet_cert.numerics.enclosure import Enclosure

CASES = ("squared", "logistic", "pseudo_huber", "poisson", "softmax", "separable", "separable softmax")


@pytest.fixture(autouse=True)
def _precision():
    with ctx.workprec(BITS):
        yield


def head(name: str, seed: int = 0) -> Head:
    rng = np.random.default_rng(seed)
    n, d, loss = 12, 2, name.removeprefix("separable ").replace("separable", "logistic")
    q = 3 if loss == "softmax" else 1
    x = rng.normal(size=(n, d))
    y: Any = rng.normal(size=(n, q))
    if loss == "logistic":
        y = rng.integers(0, 2, (n, 1)).astype(float)
        y = (x @ rng.normal(size=(d, 1)) > 0.0).astype(float) if name != loss else y
    if loss == "poisson":
        y = rng.poisson(1.5, (n, q)).astype(float)
    if loss == "softmax":
        labels = np.argmax(x @ rng.normal(size=(d, q)), axis=1) if name != loss else rng.integers(0, q, n)
        y = np.eye(q)[labels]
    return Head(x, y, rng.normal(size=(n, 2)), rng.normal(size=(q, d)), rng.normal(size=(d, 2)), loss)


def at_zero(linear: LinearMinimum) -> float:
    nothing = Found(linear.found.objective, origin(linear.found.objective, 0.0))
    return Seen.of(linear.data, nothing, blocks=False).F.value


def value(at: Head, r: float, problem: Any) -> arb:
    found = best_linear_predictor(problem, r, 1.0)
    return minimum(at.truth, r, near=found.W_star.center, multiplier=found.found.place.lam).value


@pytest.mark.parametrize(("name", "share"), each_once(CASES, [1e-4, 0.3, 0.9]))
def test_its_ends_are_a_ball_that_is_not_enough_and_one_that_is(name: str, share: float):
    at = head(name)
    problem = at.problem()
    linear = best_linear_predictor(problem, None, 3.0)
    F = linear.F_min.value + share * (at_zero(linear) - linear.F_min.value)
    found = break_even_radius(Enclosure.exact(F), linear)
    assert found.infinite is False
    assert found.upper is not None
    assert found.value is not None
    assert found.lower <= found.value <= found.upper
    assert found.upper - found.lower < 1e-6 * found.upper
    assert value(at, found.lower, problem) > arb(F)
    assert value(at, found.upper * (1 + 1e-15), problem) <= arb(F) * (1 + arb(2) ** -60) + arb(2) ** -60


@pytest.mark.parametrize("name", CASES)
def test_zero_and_infinity_are_decided(name: str):
    linear = best_linear_predictor(head(name).problem(), None, 3.0)
    nothing, lowest = at_zero(linear), linear.F_min.lower
    for F in (nothing * 1.001, nothing + 5.0):
        assert break_even_radius(Enclosure.exact(F), linear).upper == 0.0
    below = -10.0 if linear.attained is False else lowest - 1e-6
    for small in (1e-3, 1e-10) if linear.attained is False else ():
        met = break_even_radius(Enclosure.exact(small), linear)
        assert met.infinite is False
        assert met.upper is not None
        assert met.upper - met.lower < 1e-6 * met.upper
    never = break_even_radius(Enclosure.exact(below), linear)
    assert (never.infinite, never.value, never.upper, never.lower) == (True, None, None, math.inf)


def test_a_network_with_no_head_is_as_good_as_nothing_exactly():
    at = head("softmax")
    found = profile(replace(at, W=np.zeros_like(at.W)).problem(), 2).break_even_radius
    assert (found.value, found.lower, found.upper, found.infinite) == (0.0, 0.0, 0.0, False)


@pytest.mark.parametrize("loss", first(1, ["softmax", "logistic"]))
@pytest.mark.parametrize("n", first(1, [4, 12]))
def test_a_certain_network_is_met_by_a_certain_predictor(loss: str, n: int, longer: int):
    """At F from 1e-15 to 1e-45: nothing cancels in the search, with fewer samples than inputs as well."""
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, 6))
    y = np.eye(3)[np.argmax(x @ rng.normal(size=(6, 3)), axis=1)]
    at = Head(x, y, rng.normal(size=(n, 1)), rng.normal(size=(3, 6)), rng.normal(size=(6, 1)), loss)
    linear = best_linear_predictor(at.problem(), None, 3.0)
    for F in (1e-15, 1e-45, 1e-30)[: 1 + longer]:
        found = break_even_radius(Enclosure.exact(F), linear)
        assert found.upper is not None
        assert found.upper - found.lower < 1e-6 * found.upper
        assert not value(at, found.lower, at.problem()) < arb(F)
        assert not value(at, found.upper * (1 + 1e-15), at.problem()) > arb(F)


@pytest.mark.parametrize("name", first(3, ["squared", "logistic", "poisson", "softmax"]))
@pytest.mark.parametrize("k", first(1, [12, 14, 17, 25]))
def test_a_network_as_good_as_the_best_to_rounding_is_met_in_balls(name: str, k: int):
    """The network is the best linear predictor, and a block that moves it by next to nothing."""
    at = head(name)
    best = best_linear_predictor(at.problem(), None, 3.0).W_star.center
    for V in (at.V * 10.0**-k, -at.V * 10.0**-k, 0.0 * at.V):
        near = replace(at, W=best * (1.0 + 10.0 ** (-k / 2)), V=V)
        F, problem = near.truth.F, near.problem()
        linear = best_linear_predictor(problem, None, 3.0)
        found = break_even_radius(first_moments(problem).F, linear)
        least = minimum(at.truth, linear.r, near=best).value
        if found.infinite:
            assert least > F
            continue
        assert found.infinite is False
        assert found.upper is not None
        assert found.upper - found.lower < 1e-6 * found.upper
        assert value(at, found.lower, problem) > F
        assert not least > F


@pytest.mark.parametrize("F", [1e-200, 1e-307, 5e-324])
def test_losses_at_the_end_of_floats_are_met(F: float):
    at = head("separable softmax")
    linear = best_linear_predictor(at.problem(), None, 3.0)
    found = break_even_radius(Enclosure.exact(F), linear)
    assert found.upper is not None
    assert found.upper - found.lower < 1e-6 * found.upper


def test_softmax_with_one_output_is_constant():
    at = head("softmax")
    alone = replace(at, y=np.ones((len(at.y), 1)), W=at.W[:1])
    assert profile(alone.problem(), 2).break_even_radius.upper == 0.0
    alike = replace(at, W=np.tile(at.W[:1], (3, 1)))
    assert profile(alike.problem(), 2).break_even_radius.upper == 0.0


@pytest.mark.parametrize("name", ["squared", "softmax"])
def test_a_network_without_features_is_a_linear_predictor_of_its_own_size(name: str):
    at = head(name)
    best = best_linear_predictor(at.problem(), None, 3.0).W_star.center
    for still in (replace(at, W=best, V=0.0 * at.V), replace(at, W=best, f=0.0 * at.f)):
        found = profile(still.problem(), 2).break_even_radius
        assert found.infinite is False
        assert found.upper is not None
        assert found.upper <= np.linalg.norm(best) * (1 + 1e-12)
        assert found.upper - found.lower < 1e-6 * found.upper


def test_a_network_that_interpolates_is_met_where_linear_predictors_do():
    rng = np.random.default_rng(3)
    x, w = rng.normal(size=(5, 7)), rng.normal(size=(1, 7))
    at = Head(x, x @ w.T, rng.normal(size=(5, 1)), w, 1e-13 * rng.normal(size=(7, 1)), "squared")
    found = profile(at.problem(), 2).break_even_radius
    assert found.upper is not None
    assert found.upper - found.lower < 1e-6 * found.upper


def test_infinity_is_not_claimed_where_a_minimum_is_met_to_rounding():
    linear = best_linear_predictor(head("squared").problem(), None, 3.0)
    found = break_even_radius(linear.F_min, linear)
    assert found.infinite is None
    assert found.lower <= linear.norm.upper


def test_a_network_worse_than_nothing_to_rounding_has_both_ends_near_zero():
    linear = best_linear_predictor(head("logistic").problem(), None, 3.0)
    found = break_even_radius(
        Enclosure(at_zero(linear), at_zero(linear) - 1e-15, at_zero(linear) + 1e-15), linear
    )
    assert found.lower == 0.0
    assert found.upper is not None
    assert found.upper < 1e-12


@pytest.mark.parametrize("name", ["squared", "separable", "softmax"])
def test_a_profile_falls_and_meets_F_in_its_middle(name: str):
    at = head(name, 2)
    found = profile(at.problem(), 7)
    values = [row.F_lin_min for row in found.rows]
    assert all(b.lower <= a.upper for a, b in pairwise(values))
    assert [row.r for row in found.rows] == sorted(row.r for row in found.rows)
    for row in found.rows[::3]:
        truth = value(at, row.r, at.problem())
        assert not truth < arb(row.F_lin_min.lower)
        assert not truth > arb(row.F_lin_min.upper)
    if found.break_even_radius.infinite is False and found.break_even_radius.value:
        assert found.rows[3].r == pytest.approx(found.break_even_radius.value)
        assert found.rows[2].F_lin_min.lower > found.F.upper
        assert found.rows[4].F_lin_min.upper < found.F.lower


def test_data_that_a_tiny_predictor_separates_are_separated():
    x = np.array([[1.0], [-2.0]])
    at = Head(x, np.array([[1.0], [0.0]]), x, np.array([[1e-12]]), np.ones((1, 1)), "logistic")
    linear = best_linear_predictor(at.problem(), None, 1e-12)
    assert infimum(linear.data, linear.found).F.upper < 1e-6


# --- Where a part of the data recedes ---------------------------------------------------------------------


def halves(seed: int, n: int = 24, d: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Inputs, and which of them have x_0 > 1; for the others x_0 < −1."""
    rng = np.random.default_rng(seed)
    x, far = rng.normal(size=(n, d)), rng.random(n) < 0.4
    x[:, 0] = np.where(far, 1.0, -1.0) * (1.0 + np.abs(x[:, 0]))
    return x, far


def one_class_recedes(seed: int) -> tuple[Head, Head, float]:
    """Softmax: the last of four classes is told from the others; they stay, with their samples."""
    rng = np.random.default_rng(seed + 100)
    x, far = halves(seed, 30)
    labels = np.where(far, 3, rng.integers(0, 3, len(x)))
    y, V, f = np.eye(4)[labels], rng.normal(size=(3, 2)), rng.normal(size=(len(x), 2))
    part = Head(x[~far], y[~far, :3], f[~far], np.zeros((3, 3)), V, "softmax")
    return Head(x, y, f, rng.normal(size=(4, 3)), V, "softmax"), part, float(np.mean(~far))


def one_group_recedes(loss: str, seed: int) -> tuple[Head, Head, float]:
    """A group with a column of its own has one target only; the others stay."""
    rng = np.random.default_rng(seed + 200)
    x, group = rng.normal(size=(24, 3)), np.arange(24) < 7
    x[:, 2] = group
    y = rng.integers(0, 2, (24, 1)).astype(float) if loss == "logistic" else rng.poisson(2.0, (24, 1)) + 1.0
    y[group] = 0.0
    V, f = rng.normal(size=(3, 2)), rng.normal(size=(24, 2))
    part = Head(x[~group, :2], y[~group], f[~group], np.zeros((1, 2)), V[:2], loss)
    return Head(x, y, f, rng.normal(size=(1, 3)), V, loss), part, float(np.mean(~group))


PARTLY = {
    "a class": one_class_recedes,
    "a group": lambda seed: one_group_recedes("logistic", seed),
    "a group without events": lambda seed: one_group_recedes("poisson", seed),
}


@pytest.mark.parametrize("seed", first(1, range(2)))
@pytest.mark.parametrize("name", PARTLY)
def test_what_stays_bounds_the_infimum_where_a_part_recedes(name: str, seed: int, longer: int):
    at, part, share = PARTLY[name](seed)
    linear = best_linear_predictor(at.problem(), None, 3.0)
    assert linear.attained is False
    within = best_linear_predictor(part.problem(), None, 3.0)
    least = float(minimum(part.truth, within.r, near=within.W_star.center).value * arb(share))
    found = infimum(linear.data, linear.found).F
    assert found.lower <= least * (1 + 1e-15)
    assert least * (1 - 1e-15) <= found.upper
    assert found.upper - found.lower < 1e-7 * abs(least)
    for r in (1e4, 3e2)[:longer]:  # λ is rounding there
        large = best_linear_predictor(at.problem(), r, 1.0)
        assert large.F_min.lower <= found.upper
        assert large.F_min.upper - large.F_min.lower < 1e-8 * abs(least)
        assert large.norm.upper <= r
    for below in (1e-6, 0.1)[:longer]:
        assert break_even_radius(Enclosure.exact(least - below), linear).infinite is True
    for above in (1e-4, 0.1)[:longer]:
        met = break_even_radius(Enclosure.exact(least + above), linear)
        assert met.infinite is False
        assert met.upper is not None
        assert met.upper - met.lower < 1e-6 * met.upper
        assert value(at, met.lower, at.problem()) > arb(least + above)
