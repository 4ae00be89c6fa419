"""Radii against exact rationals: at least the exact number, whatever underflows on the way."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp

from resnet_cert.numerics import radius
from resnet_cert.numerics.radius import NOTHING, UNBOUNDED, Radius, U, exponent, gamma, hypot, total

EDGES = (0.0, 5e-324, 2.0**-1022, 1e-165, 2.0**-53, 1.0, 1e130, 1e165, 1.7e308)
sizes = st.one_of(st.floats(0.0, allow_nan=False, allow_infinity=False), st.sampled_from(EDGES))
SCALES = [2.0**-1074, 1e-320, 1e-300, 1e-200, 1e-150, 1.0, 1e100, 1e154, 1e200, 1e300]


def is_bound(of: Radius, exact: Fraction) -> bool:
    return math.isinf(float(of)) or exact <= Fraction(float(of))


def squared_length(v: np.ndarray) -> Fraction:
    return sum((Fraction(float(entry)) ** 2 for entry in v.ravel()), Fraction(0))


OPERATIONS: dict[str, tuple[Callable, Callable]] = {
    "+": (Radius.__add__, Fraction.__add__),
    "*": (Radius.__mul__, Fraction.__mul__),
}


@pytest.mark.parametrize("name", OPERATIONS)
@given(a=sizes, b=sizes, c=sizes)
def test_a_chain_of_operations_is_a_bound(name, a, b, c):
    ours, exact = OPERATIONS[name]
    with np.errstate(over="ignore", invalid="ignore"):
        result = ours(ours(Radius.of(a), Radius.of(b)), Radius.of(c))
        mixed = Radius.of(a) * b * c
    assert is_bound(result, exact(exact(Fraction(a), Fraction(b)), Fraction(c)))
    assert is_bound(mixed, Fraction(a) * Fraction(b) * Fraction(c))


@given(a=sizes, b=sizes, c=sizes)
def test_what_underflows_is_still_there_when_a_large_factor_comes(a, b, c):
    with np.errstate(all="ignore"):
        product = Radius.of(a) * Radius.of(b) * Radius.of(c)
        quotient = Radius.of(a) * Radius.of(b) / c
        root = (Radius.of(a) * Radius.of(b)).sqrt() * Radius.of(c)
    assert is_bound(product, Fraction(a) * Fraction(b) * Fraction(c))
    if c:
        assert is_bound(quotient, Fraction(a) * Fraction(b) / Fraction(c))
    assert (
        math.isinf(float(root)) or Fraction(a) * Fraction(b) * Fraction(c) ** 2 <= Fraction(float(root)) ** 2
    )


@given(entries=st.lists(sizes, max_size=40))
def test_sums_and_largest_entries_are_bounds(entries):
    with np.errstate(over="ignore"):
        whole = Radius.of(np.array(entries)).sum()
    assert is_bound(whole, sum(map(Fraction, entries), Fraction(0)))
    assert is_bound(Radius.of(np.array(entries)).max(), Fraction(max(entries, default=0.0)))
    with np.errstate(over="ignore"):
        assert is_bound(total(*map(Radius.of, entries)), sum(map(Fraction, entries), Fraction(0)))
        length = hypot(*map(Radius.of, entries))
    assert math.isinf(float(length)) or squared_length(np.array(entries)) <= Fraction(float(length)) ** 2


def test_a_sum_in_the_worst_order_is_a_bound():
    """One after the other, every summand is lost."""
    small, count = 0.99 * U, 2**20
    summed = float(np.cumsum(np.concatenate([[1.0], np.full(count, small)]))[-1])
    exact = 1 + count * Fraction(small)
    assert Fraction(summed) < exact <= Fraction(float(radius._up(summed, count)))


@given(x=st.floats(0.0, 700.0))
def test_the_growth_of_an_exponential_is_a_bound(x):
    with mp.workdps(60):
        assert mp.expm1(mp.mpf(x)) <= mp.mpf(float(Radius.of(x).expm1()))


def test_zero_is_a_fact_and_not_a_number():
    assert NOTHING.exact
    assert not Radius.of(0.0).exact
    tiny = Radius.of(1e-200) * Radius.of(1e-200)
    assert not tiny.exact
    assert float(tiny) > 0.0
    assert (NOTHING * UNBOUNDED).exact
    assert (NOTHING / 0.0).exact
    assert (NOTHING + NOTHING).exact
    assert total().exact
    assert hypot(NOTHING, NOTHING).exact
    assert Radius.size(np.zeros(3)).exact
    assert Radius.norm(np.zeros((2, 0))).exact
    assert not Radius.norm(np.array([0.0, 5e-324])).exact


@pytest.mark.parametrize("entry", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_has_no_bound_and_the_other_rows_have_one(entry):
    rows = Radius.row_norms(np.array([[1.0, entry], [3.0, 4.0]]))
    assert float(rows[0]) == math.inf
    assert 5.0 <= float(rows[1]) <= 5.0 * (1 + 1e-12)
    assert not rows.known


def test_an_array_times_a_radius_is_a_radius():
    for result in (np.ones(3) * Radius.of(np.ones(3)), Radius.of(np.ones(3)) * np.ones(3)):
        assert isinstance(result, Radius)


@given(k=st.one_of(st.integers(0, 2**21 - 1), st.sampled_from([1, 2, 3, 2**20, 2**21 - 1])))
def test_gamma_is_an_upper_bound_and_close(k):
    u = Fraction(U)
    exact = k * u / (1 - k * u)
    assert exact <= Fraction(gamma(k)) <= exact * (1 + Fraction(1, 2**29))


def test_gamma_refuses_what_it_does_not_cover():
    with pytest.raises(ValueError, match=r"expected fewer than 2\^21 roundings, got 2097152"):
        gamma(2**21)


@pytest.mark.parametrize("x", [5e-324, 1e-310, 0.5, 1.0, 3.0, 1.7e308])
def test_an_exponent_is_that_of_the_next_power_of_two(x):
    e = exponent(np.array([x, -x / 2]))
    assert Fraction(2) ** (e - 1) <= Fraction(x) < Fraction(2) ** e


@pytest.mark.parametrize("scale", SCALES)
def test_row_norms_are_bounds_at_every_scale_and_close_unless_far_below_the_largest(scale):
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(60, 7)) * scale
    rows[::3] *= 10.0 ** rng.uniform(-250, 0, size=(20, 1))
    rows[1] = 0.0
    lengths = Radius.row_norms(rows)
    for row, length in zip(rows, lengths.upper, strict=True):
        exact = squared_length(row)
        assert exact <= Fraction(float(length)) ** 2
        if scale > 1e-140 and exact > Fraction(scale * 1e-130) ** 2:
            assert Fraction(float(length)) ** 2 <= exact * (1 + Fraction(1, 10**9)) ** 2


@pytest.mark.parametrize("scale", SCALES)
def test_a_norm_is_a_bound_and_close_at_every_scale(scale):
    V = np.random.default_rng(3).normal(size=(5, 9)) * scale
    exact, ours = squared_length(V), Fraction(float(Radius.norm(V))) ** 2
    assert exact <= ours
    if scale > 1e-140:
        assert ours <= exact * (1 + Fraction(1, 10**9)) ** 2


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("least", [0.0, 1e-250, 1e-120, 1.0])
def test_lengths_of_pairs_are_bounds_and_close_at_every_scale(scale, least):
    rng = np.random.default_rng(4)
    a, b = np.abs(rng.normal(size=(2, 60))) * scale
    a[::3] *= 10.0 ** rng.uniform(-250, 0, size=20)
    a[:2], b[1:3] = least * scale, least * scale
    with np.errstate(over="ignore"):
        lengths = hypot(Radius.of(a), Radius.of(b))
    for pair, length in zip(np.stack([a, b], axis=1), lengths.upper, strict=True):
        exact, ours = squared_length(pair), Fraction(float(length)) ** 2
        assert exact <= ours
        if exact > Fraction(1e-290) ** 2:
            assert ours <= exact * (1 + Fraction(1, 10**9)) ** 2


def test_row_norms_are_bounds_where_most_squares_are_lost_one_by_one():
    rows = np.full((2, 40_000), math.sqrt(0.9 * 2.0**-54))
    rows[0, 0] = 1.0
    for row, bound in zip(rows, Radius.row_norms(rows).upper, strict=True):
        exact = squared_length(row)
        assert exact <= Fraction(float(bound)) ** 2 <= exact * (1 + Fraction(1, 10**10))


def test_without_the_floor_a_product_underflows(monkeypatch):
    def product() -> Radius:
        return Radius.of(1e-200) * Radius.of(1e-200) * Radius.of(1e300)

    assert is_bound(product(), Fraction(1e-200) ** 2 * Fraction(1e300))
    monkeypatch.setattr(radius, "FLOOR", 0.0)
    assert not is_bound(product(), Fraction(1e-200) ** 2 * Fraction(1e300))


def test_over_a_number_that_may_not_be_positive_nothing_is_known():
    with np.errstate(divide="ignore"):
        for least in (0.0, -5e-324, -1.0):
            assert float(Radius.of(1.0) / least) == math.inf
