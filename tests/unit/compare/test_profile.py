"""The break-even radius against minima in 256 bits: its lower end is not enough, its upper end is."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from flint import arb, ctx
from heads import BITS, Head, HeadTruth
from polished import polished

from resnet_cert.compare.linear_data import Found
from resnet_cert.compare.minimum_on_ball import LinearMinimum, Seen, best_linear_predictor
from resnet_cert.compare.path import origin
from resnet_cert.compare.profile import break_even_radius, profile
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
    return polished(HeadTruth(at), r, found.W_star.center, found.found.place.lam).value


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("share", [1e-4, 0.3, 0.9])
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
    if linear.attained is False:
        assert break_even_radius(Enclosure.exact(1e-3), linear).infinite is False
    never = break_even_radius(Enclosure.exact(below), linear)
    assert (never.infinite, never.value, never.upper, never.lower) == (True, None, None, math.inf)


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
