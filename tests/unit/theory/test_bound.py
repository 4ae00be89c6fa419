"""Theorem 3 in numbers: check values, the requests that are refused, and the way back from a gap to ε."""

from __future__ import annotations

import math

import numpy as np
import pytest

from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.outcomes import RequestError
from resnet_cert.results import BoundConstants
from resnet_cert.theory.bound import binding_form, bound, largest_epsilon, parse_epsilons, theorem3

ONES = {"b": 1.0, "r": 1.0, "mu0": 1.0, "mu1": 1.0, "mu2": 1.0}
OTHER = {"b": 2.0, "r": 1.0, "mu0": 3.0, "mu1": 5.0, "mu2": 7.0}


@pytest.mark.parametrize(
    ("eps", "constants", "refined", "refined_scalar", "threshold", "t", "polynomial", "refined_polynomial"),
    [
        (1e-4, ONES, ".100698756", ".242825460", ".107101770", "9.33693e-04", ".85085", ".4004"),
        (
            1e-2,
            OTHER,
            "2.390403063",
            "5.728517089",
            "2.666851925",
            "7.49995e-03",
            "16.637616067",
            "6.524555320",
        ),
    ],
)
def test_check_values_to_every_digit_shown(
    eps: float,
    constants: dict[str, float],
    refined: str,
    refined_scalar: str,
    threshold: str,
    t: str,
    polynomial: str,
    refined_polynomial: str,
) -> None:
    def shown(x: float, like: str) -> str:
        return f"{x:.{len(like) - like.index('.') - 1}f}".removeprefix("0")

    (row,) = bound(eps, **constants).rows
    (scalar,) = bound(eps, **constants, d=1).rows
    assert shown(row.refined_form, refined) == refined
    assert shown(scalar.refined_form, refined_scalar) == refined_scalar
    assert shown(row.threshold_form, threshold) == shown(scalar.threshold_form, threshold) == threshold
    assert f"{row.threshold:.5e}" == t
    assert shown(row.polynomial_form, polynomial) == polynomial
    assert shown(row.refined_polynomial_form, refined_polynomial) == refined_polynomial
    assert (binding_form(row), binding_form(scalar)) == ("refined", "threshold")


def test_the_head_that_weight_decay_leaves() -> None:
    """cases/decayed-softmax: three classes, W of rank 2, d1 = 3, k = 2."""
    (row,) = bound(0.71, b=3.0, r=0.61, mu0=1.0, mu1=4.0, mu2=100.0, d=3, q=3, k=2, loss="softmax").rows
    assert row.refined_form == pytest.approx(29.0449893549, abs=1e-10)
    (row,) = bound(0.71, b=3.0, r=0.61, mu0=1.0, mu1=4.0, mu2=100.0, d=3, q=3, k=2).rows
    assert row.refined_form > 2.0 * 29.0  # C = 1 + √2


def test_the_augmented_form_is_there_where_s_is() -> None:
    (row,) = bound(1e-3, **OTHER, q=2, k=3, s=0.0).rows
    assert row.augmented_form is not None
    assert row.augmented_form.upper == row.refined_form
    (more,) = bound(1e-3, **OTHER, q=2, k=3, s=1.0).rows
    assert more.augmented_form is not None
    assert more.augmented_form.lower > row.refined_form
    assert bound(1e-3, **OTHER).rows[0].augmented_form is None


def test_fewer_inputs_than_outputs_have_no_bound() -> None:
    with pytest.raises(RequestError, match=r"expected d >= 3, got d = 2: .*even a strict local minimum"):
        bound(0.1, **ONES, d=2, q=3)
    assert bound(0.1, **ONES, d=2, q=3, loss="softmax").rows


def test_one_row_for_each_epsilon_as_given() -> None:
    table = bound([0.1, 0.0, 1e-3, 0.1], **ONES)
    assert [row.eps for row in table.rows] == [0.1, 0.0, 1e-3, 0.1]
    assert table.constants == BoundConstants(**ONES, d=2)
    assert bound(0.1, **ONES, q=3).constants.d == 4
    assert bound(0.1, **ONES, q=3, loss="softmax").constants.d == 3
    assert bound(np.array([0.1, 1e-3]), **ONES).rows == table.rows[::2]
    assert bound(0.1, **ONES).rows == table.rows[:1]
    assert (table.F_lin_min, table.target_gap, table.target_eps) == (None, None, None)


def test_the_bound_is_the_smaller_sharp_form_and_vanishes_at_epsilon_zero() -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(40):
        constants = BoundConstants(
            *(float(c) for c in 10.0 ** rng.uniform(-2, 2, 5)), d=int(rng.integers(1, 3))
        )
        row = theorem3(constants, float(10.0 ** rng.uniform(-6, 0)))
        assert row.bound.upper == min(row.threshold_form, row.refined_form)
        assert row.threshold_form <= row.polynomial_form
        assert row.refined_form <= row.refined_polynomial_form
        assert 0.0 < row.threshold <= constants.b
        zero = theorem3(constants, 0.0)
        assert (zero.bound, zero.polynomial_form, zero.refined_polynomial_form) == (
            Enclosure.exact(0.0),
            0.0,
            0.0,
        )
        seen.add(binding_form(row))
    assert seen == {"threshold", "refined"}


def test_F_upper_is_the_best_linear_predictor_and_the_bound_together() -> None:
    (row,) = bound(
        0.5, **{**ONES, "mu0": 0.0, "mu1": 0.0, "mu2": 0.0}, F_lin_min=Enclosure(1.0, 0.5, 1.5)
    ).rows
    assert row.bound == Enclosure.exact(0.5)  # r·ε
    assert row.F_upper == Enclosure(1.5, 1.0, 2.0)


def test_the_largest_epsilon_for_a_target_gap_is_proven_and_its_neighbour_is_not() -> None:
    rng = np.random.default_rng(1)
    for _ in range(6):
        constants = BoundConstants(
            *(float(c) for c in 10.0 ** rng.uniform(-1, 1, 5)), d=int(rng.integers(1, 3))
        )
        target = float(10.0 ** rng.uniform(-8, 1))
        eps = largest_epsilon(constants, target)
        assert theorem3(constants, eps).bound.upper <= target
        assert theorem3(constants, math.nextafter(eps, 1e300)).bound.upper > target
        assert theorem3(constants, eps * (1 + 1e-12)).bound.lower > target


def test_a_target_gap_that_no_or_every_epsilon_meets() -> None:
    assert bound(0.1, **ONES, target_gap=0.0).target_eps == 0.0
    flat = {**ONES, "r": 0.0}  # against w* = 0 alone the gap is at most μ0·b
    assert bound(0.1, **flat, target_gap=1.0).target_eps == math.inf
    assert bound(0.1, **flat, target_gap=0.5).target_eps == 0.5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"b": 0.0}, "expected a finite number > 0 for b (--b or domain.b), got 0.0"),
        ({"b": None}, "expected a finite number > 0 for b (--b or domain.b), got none"),
        ({"r": -1}, "expected a finite number >= 0 for r (--r or domain.r), got -1.0"),
        ({"mu0": math.nan}, "expected a finite number >= 0 for mu0 (--mu0 or lipschitz.mu0), got nan"),
        ({"mu1": math.inf}, "expected a finite number >= 0 for mu1 (--mu1 or lipschitz.mu1), got inf"),
        ({"mu2": None}, "expected a finite number >= 0 for mu2 (--mu2 or lipschitz.mu2), got none"),
        ({"d": 0}, "expected an integer >= 1 for d (--d), got 0"),
        ({"q": 0, "d": 1}, "expected an integer >= 1 for q (--q), got 0"),
        ({"s": -1.0}, "expected a finite number >= 0 for s (--s), got -1.0"),
        ({"eps": [0.1, -0.1]}, "expected a finite number >= 0 for epsilon (--eps), got -0.1"),
        ({"target_gap": -1.0}, "expected a finite number >= 0 for the target gap (--target-gap), got -1.0"),
    ],
)
def test_a_wrong_number_is_named(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        bound(**{"eps": 0.1, **ONES, **wrong})
    assert [fault.message for fault in caught.value.diagnostics] == [message]


def test_all_wrong_numbers_are_named_at_once() -> None:
    with pytest.raises(RequestError) as caught:
        bound([-1.0, 0.1, math.nan], r=1.0, mu0=1.0)
    assert len(caught.value.diagnostics) == 5  # b, mu1, mu2 and two epsilons


def test_epsilons_are_a_list_or_evenly_spaced_in_the_logarithm() -> None:
    assert parse_epsilons("1e-4") == (1e-4,)
    assert parse_epsilons("1e-4, 0,.5") == (1e-4, 0.0, 0.5)
    assert parse_epsilons("1e-4:1e-2:3") == (1e-4, 1e-3, 1e-2)
    assert parse_epsilons("1e-2:1e-4:3") == (1e-2, 1e-3, 1e-4)
    assert parse_epsilons("0.3:0.7:2") == (0.3, 0.7)
    many = parse_epsilons("2e-5:3e-1:7")
    assert many[0] == 2e-5
    assert many[-1] == 3e-1
    assert np.diff(np.log(many)) == pytest.approx([math.log(3e-1 / 2e-5) / 6] * 6)


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("", ["expected a number in --eps X[,X...], got ''"]),
        (
            "1e-4,x,",
            ["expected a number in --eps X[,X...], got 'x'", "expected a number in --eps X[,X...], got ''"],
        ),
        (
            "nan,-1",
            [
                "expected a finite number >= 0 for --eps X[,X...], got nan",
                "expected a finite number >= 0 for --eps X[,X...], got -1.0",
            ],
        ),
        ("inf", ["expected a finite number >= 0 for --eps X[,X...], got inf"]),
        ("1:2", ["expected --eps X[,X...] or A:B:N, got '1:2'"]),
        ("1:2:3:4", ["expected --eps X[,X...] or A:B:N, got '1:2:3:4'"]),
        (
            "0:x:3",
            [
                "expected a finite number > 0 for --eps A:B:N, got 0.0",
                "expected a number in --eps A:B:N, got 'x'",
            ],
        ),
        ("1e-4:1:1", ["expected an integer N from 2 to 100000 in --eps A:B:N, got '1'"]),
        ("1e-4:1:2.5", ["expected an integer N from 2 to 100000 in --eps A:B:N, got '2.5'"]),
        ("1e-4:1:1000000", ["expected an integer N from 2 to 100000 in --eps A:B:N, got '1000000'"]),
    ],
)
def test_a_text_that_gives_no_epsilons_is_refused(text: str, messages: list[str]) -> None:
    with pytest.raises(RequestError) as caught:
        parse_epsilons(text)
    assert [fault.message for fault in caught.value.diagnostics] == messages
