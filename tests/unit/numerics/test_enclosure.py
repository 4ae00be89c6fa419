"""Enclosures and balls against exact rationals: they contain the truth, and where possible nothing else."""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable
from fractions import Fraction
from itertools import product as pairs

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mpmath import mp

from resnet_cert.numerics import enclosure
from resnet_cert.numerics.enclosure import (
    UNKNOWN,
    Ball,
    Enclosure,
    difference,
    inner,
    maximum,
    minimum,
    norm,
    product,
)
from resnet_cert.numerics.radius import UNBOUNDED, Radius, gamma

BEYOND = Fraction(10) ** 400  # stands for any real number of a side that is not known
EDGES = (0.0, -0.0, 5e-324, -5e-324, 2.0**-1022, 1.0, -1.0, math.nextafter(1.0, 2.0), 1e308, -1.7e308)

finite = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(EDGES))
lowers = st.one_of(finite, st.just(-math.inf))
uppers = st.one_of(finite, st.just(math.inf))
nonnegative = finite.map(abs)


@st.composite
def enclosures(draw, lowers=lowers, uppers=uppers) -> Enclosure:
    """Any [lower, upper], with one of its members as value."""
    lower, upper = draw(lowers), draw(uppers)
    lower, upper = (lower, upper) if lower <= upper else (upper, lower)
    return Enclosure(min(max(draw(finite), lower), upper), lower, upper)


@st.composite
def members(draw, of: Enclosure) -> Fraction:
    """A rational number in an enclosure, its ends first of all."""
    share = draw(st.sampled_from([Fraction(0), Fraction(1)]) | st.fractions(0, 1, max_denominator=10**6))
    lower, upper = _rational(of.lower), _rational(of.upper)
    return lower + share * (upper - lower)


def _rational(end: float) -> Fraction:
    return Fraction(end) if math.isfinite(end) else Fraction(int(math.copysign(1, end))) * BEYOND


def contains(result: Enclosure, exact: Fraction) -> bool:
    """lower ≤ exact ≤ upper, without rounding."""
    above = result.lower == -math.inf or Fraction(result.lower) <= exact
    return above and (result.upper == math.inf or exact <= Fraction(result.upper))


def is_float_below(end: float, exact: Fraction) -> bool:
    """`end` is the largest float (or −∞) that is at most `exact`."""
    above = math.nextafter(end, math.inf)
    return (end == -math.inf or Fraction(end) <= exact) and (above == math.inf or Fraction(above) > exact)


def is_tight(result: Enclosure, lower: Fraction, upper: Fraction) -> bool:
    """Both ends are the nearest floats outside [lower, upper]."""
    return is_float_below(result.lower, lower) and is_float_below(-result.upper, -upper)


# --- Operations on numbers ------------------------------------------------------------------------------

BINARY: dict[str, tuple[Callable, Callable]] = {
    "+": (Enclosure.__add__, Fraction.__add__),
    "-": (Enclosure.__sub__, Fraction.__sub__),
    "*": (Enclosure.__mul__, Fraction.__mul__),
    "/": (Enclosure.__truediv__, Fraction.__truediv__),
    "min": (minimum, min),
    "max": (maximum, max),
}
UNARY: dict[str, tuple[Callable, Callable]] = {
    "-": (Enclosure.__neg__, Fraction.__neg__),
    "abs": (Enclosure.__abs__, Fraction.__abs__),
    "square": (Enclosure.square, lambda x: x * x),
    "positive part": (Enclosure.positive_part, lambda x: max(x, Fraction(0))),
}


FEWER = settings(max_examples=settings().max_examples // 2)
"""Where each operation has examples of its own."""


@pytest.mark.parametrize("name", BINARY)
@FEWER
@given(data=st.data())
def test_a_binary_operation_contains_the_result_for_all_members(name, data):
    operation, exact = BINARY[name]
    a, b = data.draw(enclosures()), data.draw(enclosures())
    x, y = data.draw(members(a)), data.draw(members(b))
    assume(not (name == "/" and y == 0))
    assert contains(operation(a, b), exact(x, y))


@pytest.mark.parametrize("name", UNARY)
@FEWER
@given(data=st.data())
def test_a_unary_operation_contains_the_result_for_all_members(name, data):
    operation, exact = UNARY[name]
    a = data.draw(enclosures())
    assert contains(operation(a), exact(data.draw(members(a))))


@pytest.mark.parametrize("name", BINARY)
@FEWER
@given(a=enclosures(finite, finite), b=enclosures(finite, finite))
def test_a_binary_operation_on_known_ends_is_rounded_once(name, a, b):
    operation, exact = BINARY[name]
    assume(not (name == "/" and b.lower <= 0.0 <= b.upper))
    corners = [exact(Fraction(x), Fraction(y)) for x, y in pairs((a.lower, a.upper), (b.lower, b.upper))]
    assert is_tight(operation(a, b), min(corners), max(corners))


@pytest.mark.parametrize("name", UNARY)
@FEWER
@given(a=enclosures(finite, finite))
def test_a_unary_operation_on_known_ends_is_rounded_once(name, a):
    operation, exact = UNARY[name]
    ends = [exact(Fraction(a.lower)), exact(Fraction(a.upper))]
    straddles = a.lower < 0.0 < a.upper and name in ("abs", "square")
    assert is_tight(operation(a), Fraction(0) if straddles else min(ends), max(ends))


@pytest.mark.parametrize("apply", [operator.add, operator.sub, operator.mul, operator.truediv])
@FEWER
@given(a=enclosures(), x=finite)
def test_a_plain_float_is_an_exact_number_on_either_side(apply, a, x):
    exact = Enclosure.exact(x)
    for mixed, lifted in ((apply(a, x), apply(a, exact)), (apply(x, a), apply(exact, a))):
        assert (mixed.lower, mixed.upper) == (lifted.lower, lifted.upper)


@given(a=enclosures(), b=enclosures())
def test_division_through_zero_knows_nothing(a, b):
    b = Enclosure(0.0, -abs(b.lower), abs(b.upper))
    quotient = a / b
    assert (quotient.lower, quotient.upper) == (-math.inf, math.inf)
    assert not quotient.known


def test_an_unknown_end_leaves_known_what_does_not_depend_on_it():
    half_known = Enclosure(3.0, 2.0, math.inf)
    reciprocal, negative = 1.0 / half_known, -1.0 / half_known
    assert (reciprocal.lower, reciprocal.upper) == (0.0, 0.5)
    assert (negative.lower, negative.upper) == (-0.5, 0.0)
    assert (half_known - 1.0).lower == 1.0
    assert (half_known - half_known).lower == -math.inf
    zero = UNKNOWN * 0.0
    assert (zero.lower, zero.upper) == (0.0, 0.0)
    assert (half_known * -2.0).upper == -4.0
    assert UNKNOWN.square().lower == 0.0
    assert (abs(UNKNOWN).lower, UNKNOWN.sqrt().lower) == (0.0, 0.0)


@given(a=enclosures(nonnegative, nonnegative))
def test_a_square_root_is_rounded_once(a):
    root = a.sqrt()
    for end, square in ((root.lower, a.lower), (-math.nextafter(-root.upper, math.inf), a.upper)):
        assert end < 0.0 or Fraction(end) ** 2 <= Fraction(square)
    for end, square in ((math.nextafter(root.lower, math.inf), a.lower), (root.upper, a.upper)):
        assert Fraction(end) ** 2 >= Fraction(square)


@given(upper=st.floats(0.0), below=st.floats(max_value=0.0))
def test_a_square_root_takes_a_negative_lower_end_for_zero(upper, below):
    root = Enclosure(upper, below, upper).sqrt()
    assert root.lower == 0.0
    assert root.upper == Enclosure.exact(upper).sqrt().upper


def test_a_negative_number_has_no_square_root():
    with pytest.raises(ValueError, match=r"expected a nonnegative number, got one below -1\.0"):
        Enclosure(-1.5, -2.0, -1.0).sqrt()


@given(a=enclosures(), b=enclosures())
def test_comparisons_hold_for_all_members_or_are_not_proven(a, b):
    assert a.at_most(b) == (a.upper <= b.lower)
    assert a.above(b) == (a.lower > b.upper)
    assert not (a.at_most(b) and a.above(b))


@given(x=finite, radius=nonnegative)
def test_around_is_rounded_once(x, radius):
    center, reach = Fraction(x), Fraction(radius)
    assert is_tight(Enclosure.around(x, Radius.of(radius)), center - reach, center + reach)


@pytest.mark.parametrize(
    ("x", "radius"), [(math.nan, 1.0), (1.0, math.nan), (0.0, math.inf), (math.inf, 1.0)]
)
def test_around_something_that_is_not_finite_is_everything(x, radius):
    around = Enclosure.around(x, Radius.of(radius))
    assert (around.lower, around.upper) == (-math.inf, math.inf)


@given(a=enclosures(), lower=lowers, upper=uppers)
def test_an_intersection_keeps_the_common_members_and_refuses_to_be_empty(a, lower, upper):
    common = max(a.lower, lower), min(a.upper, upper)
    if common[0] > common[1]:
        with pytest.raises(ValueError, match="expected lower <= upper"):
            a.intersect(lower, upper)
    else:
        both = a.intersect(lower, upper)
        assert (both.lower, both.upper) == common


@given(value=st.floats(), lower=st.floats(), upper=st.floats())
def test_the_value_lies_between_the_ends_and_a_nan_end_is_unknown(value, lower, upper):
    assume(not lower > upper)
    made = Enclosure(value, lower, upper)
    assert made.lower == (-math.inf if math.isnan(lower) else lower)
    assert made.upper == (math.inf if math.isnan(upper) else upper)
    assert math.isnan(value) == math.isnan(made.value)
    assert math.isnan(value) or made.lower <= made.value <= made.upper


@given(a=enclosures(), b=enclosures())
def test_the_value_of_a_result_is_nan_or_between_its_ends(a, b):
    for result in (a + b, a - b, a * b, a / b, abs(a), a.square(), minimum(a, b), maximum(a, b)):
        assert math.isnan(result.value) or result.lower <= result.value <= result.upper


# --- Norms ----------------------------------------------------------------------------------------------

SCALES = [2.0**-1074, 1e-320, 1e-300, 1e-200, 1e-150, 1.0, 1e100, 1e154, 1e200, 1e300]


def squared_length(v: np.ndarray) -> Fraction:
    return sum((Fraction(float(entry)) ** 2 for entry in v.ravel()), Fraction(0))


def _vector(rng: np.random.Generator, scale: float) -> np.ndarray:
    v = rng.normal(size=int(rng.integers(1, 40))) * scale
    return v * np.where(rng.random(v.size) < 0.3, 10.0 ** rng.uniform(-30, 0, v.size), 1.0)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_sum_next_to_the_largest_float_is_rounded_outward(sign):
    """max − 3·2^970 is rounded up, by an amount that takes the computation of the error beyond max."""
    largest, less = sign * sys.float_info.max, sign * -3.0 * 2.0**970
    exact = Fraction(largest) + Fraction(less)
    for a, b in ((largest, less), (less, largest)):
        assert is_tight(Enclosure.exact(a) + b, exact, exact)


def test_a_norm_of_a_matrix_of_millions_of_entries_is_narrow():
    length = norm(np.full((1500, 1600), 3.0))
    assert Fraction(length.lower) ** 2 <= 9 * 1500 * 1600 <= Fraction(length.upper) ** 2
    assert length.upper <= length.lower * (1.0 + 1e-12)


@pytest.mark.parametrize("scale", SCALES)
def test_a_norm_contains_the_exact_one_at_every_scale(scale):
    rng = np.random.default_rng(1)
    for _ in range(40):
        v = _vector(rng, scale)
        length, exact = norm(v), squared_length(v)
        assert Fraction(length.lower) ** 2 <= exact <= Fraction(length.upper) ** 2
        assert length.upper - length.lower <= (v.size + 8) * 2.0**-52 * length.lower + 3 * 5e-324


@given(entries=st.lists(finite, max_size=8))
def test_a_norm_contains_the_exact_one_for_any_entries(entries):
    v = np.array(entries)
    exact, length = squared_length(v), norm(v)
    assert Fraction(length.lower) ** 2 <= exact
    assert length.upper == math.inf or exact <= Fraction(length.upper) ** 2


def test_a_norm_is_zero_only_for_a_zero_array():
    assert norm(np.zeros(3)) == Enclosure.exact(0.0)
    assert norm(np.zeros(0)) == Enclosure.exact(0.0)
    assert norm(np.array([0.0, -5e-324])).upper > 0.0


@pytest.mark.parametrize("entry", [math.nan, math.inf, -math.inf])
def test_a_norm_of_what_is_not_finite_is_unknown(entry):
    length = norm(np.array([1.0, entry]))
    assert (length.lower, length.upper) == (-math.inf, math.inf)


# --- Balls ----------------------------------------------------------------------------------------------


def fractions(v: np.ndarray) -> list[Fraction]:
    return [Fraction(float(entry)) for entry in v.ravel()]


def _inside(direction: list[Fraction], radius: float) -> list[Fraction]:
    """An exact vector along `direction` whose length is at most, and nearly, the radius."""
    length2 = sum(entry**2 for entry in direction)
    if not length2 or not radius:
        return [Fraction(0)] * len(direction)
    with mp.workdps(60):
        root = mp.sqrt(mp.mpf(length2.numerator) / length2.denominator)
        share = Fraction(radius) / Fraction(str(mp.nstr(root * (1 + mp.mpf(10) ** -40), 50)))
    return [share * entry for entry in direction]


def _add(u: list[Fraction], v: list[Fraction]) -> list[Fraction]:
    return [a + b for a, b in zip(u, v, strict=True)]


def _dot(u: list[Fraction], v: list[Fraction]) -> Fraction:
    return sum((a * b for a, b in zip(u, v, strict=True)), Fraction(0))


def _ball(rng: np.random.Generator, size: int) -> Ball:
    scale = 10.0 ** rng.uniform(-80, 80)
    radius = float(rng.choice([0.0, 1e-14, 1.0, 1e6])) * scale * rng.random()
    center = rng.normal(size=size) * scale * 10.0 ** rng.uniform(-8, 0, size)
    return Ball(center * rng.choice([0.0, 1.0], p=[0.1, 0.9]), Radius.of(radius))


def _truths(rng: np.random.Generator, ball: Ball, towards: list[Fraction]) -> list[list[Fraction]]:
    """Vectors in the ball: its centre, the farthest ones along ±`towards`, and one to the side."""
    directions = [towards, [-entry for entry in towards], fractions(rng.normal(size=ball.center.size))]
    center = fractions(ball.center)
    return [center, *(_add(center, _inside(direction, float(ball.radius))) for direction in directions)]


def test_the_norm_of_a_ball_contains_that_of_its_members():
    rng = np.random.default_rng(4)
    for _ in range(150):
        ball = _ball(rng, int(rng.integers(1, 6)))
        length = ball.norm()
        for truth in _truths(rng, ball, fractions(ball.center)):
            exact = sum(entry**2 for entry in truth)
            assert Fraction(length.lower) ** 2 <= exact <= Fraction(length.upper) ** 2
    assert Ball(np.ones(2), UNBOUNDED).norm().lower == 0.0
    assert Ball(np.ones(2), UNBOUNDED).norm().upper == math.inf


def test_an_inner_product_of_balls_contains_that_of_their_members():
    rng = np.random.default_rng(5)
    for _ in range(150):
        size = int(rng.integers(1, 6))
        u, v = _ball(rng, size), _ball(rng, size)
        result = inner(u, v)
        for x in _truths(rng, u, fractions(v.center)):
            for y in _truths(rng, v, x):
                assert contains(result, _dot(x, y))


def test_an_inner_product_of_exact_vectors_contains_the_exact_one_and_is_narrow():
    rng = np.random.default_rng(6)
    for size in (1, 2, 17, 300):
        for _ in range(20):
            u, v = (rng.normal(size=size) for _ in range(2))
            v[-1] = -float(u[:-1] @ v[:-1]) / u[-1] if rng.random() < 0.5 else v[-1]  # cancels
            result = inner(Ball.exact(u), Ball.exact(v))
            assert contains(result, _dot(fractions(u), fractions(v)))
            width = 2.0 * gamma(size + 2) * float(np.linalg.norm(u) * np.linalg.norm(v))
            assert result.upper - result.lower <= width


def test_an_inner_product_with_zero_is_zero():
    assert inner(Ball.exact(np.zeros(3)), Ball.exact(np.ones(3))) == Enclosure.exact(0.0)
    assert inner(Ball.exact(np.zeros(3)), Ball(np.ones(3), Radius.of(2.0))) == Enclosure.exact(0.0)


def test_a_product_contains_the_image_of_every_member():
    rng = np.random.default_rng(7)
    for _ in range(150):
        m, size = (int(entry) for entry in rng.integers(1, 6, size=2))
        V, v = rng.normal(size=(m, size)) * 10.0 ** rng.uniform(-60, 60), _ball(rng, size)
        result = product(V, v)
        leading = fractions(np.linalg.svd(V)[2][0])
        for truth in _truths(rng, v, leading):
            image = [_dot(fractions(row), truth) for row in V]
            off = _add(image, [-entry for entry in fractions(result.center)])
            assert _dot(off, off) <= Fraction(float(result.radius)) ** 2


def test_a_product_of_one_number_is_hardly_wider_than_the_truth():
    result = product(np.array([[3.0]]), Ball(np.array([2.0]), Radius.of(0.5)))
    assert result.center == [6.0]
    assert 1.5 <= float(result.radius) <= 1.5 * (1 + 2e-9)
    nothing = product(np.zeros((2, 1)), Ball(np.ones(1), UNBOUNDED))
    assert nothing.center.tolist() == [0.0, 0.0]
    assert nothing.radius.exact


def test_a_difference_contains_that_of_all_members():
    rng = np.random.default_rng(8)
    for _ in range(150):
        size = int(rng.integers(1, 6))
        u, v = _ball(rng, size), _ball(rng, size)
        result = difference(u, v)
        for x in _truths(rng, u, fractions(u.center - v.center)):
            for y in _truths(rng, v, fractions(v.center - u.center)):
                off = _add(_add(x, [-entry for entry in y]), [-entry for entry in fractions(result.center)])
                assert _dot(off, off) <= Fraction(float(result.radius)) ** 2


def test_a_difference_of_equal_centres_is_as_wide_as_both_radii_together():
    center = np.ones(2)
    for first, second in ((1.0, 2.0**-54), (0.1, 0.2), (1.0, 1.0), (0.0, 3.0)):
        result = difference(Ball(center, Radius.of(first)), Ball(center, Radius.of(second)))
        assert Fraction(first) + Fraction(second) <= Fraction(float(result.radius))
        assert float(result.radius) <= (first + second) * (1 + 2e-9)
    assert float(difference(Ball.exact(center), Ball.exact(center)).radius) < 1e-300


# --- The margins are needed -----------------------------------------------------------------------------


def test_without_gamma_an_inner_product_misses_the_exact_one(monkeypatch):
    rng = np.random.default_rng(9)
    vectors = [(rng.normal(size=20), rng.normal(size=20)) for _ in range(20)]

    def all_contained() -> bool:
        return all(
            contains(inner(Ball.exact(u), Ball.exact(v)), _dot(fractions(u), fractions(v)))
            for u, v in vectors
        )

    assert all_contained()
    monkeypatch.setattr(enclosure, "gamma", lambda k: 0.0)
    assert not all_contained()
