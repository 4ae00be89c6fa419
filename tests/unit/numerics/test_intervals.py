"""Enclosures of JAX programs against Arb: of single operations, of losses, of their derivatives."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flint import arb, ctx, fmpq
from hypothesis import given
from hypothesis import strategies as st
from selections import first
from user_losses import BITS, LOSSES, truth

from resnet_cert.numerics import intervals as interval_arithmetic
from resnet_cert.numerics.jax64 import float64_scope
from resnet_cert.numerics.jaxpr import Interval, UnsupportedPrimitive, enclose
from resnet_cert.problem.custom_loss import CustomLoss

INF = float("inf")


@pytest.fixture(autouse=True)
def _float64():
    with float64_scope():
        yield


def inside(value: arb, lower: float, upper: float) -> bool:
    """lower ≤ value ≤ upper, up to the radius of the truth (less than 2^−2000 of what was added up)."""
    return not (value < arb(lower) or value > arb(upper))


# One operation at a time.

REALS = st.floats(-1e3, 1e3) | st.floats(-1e-3, 1e-3) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 5e-324])

UNARY: dict[str, tuple[Callable[[Any], Any], Callable[[arb], arb], float, float]] = {
    "exp": (jnp.exp, arb.exp, -800.0, 800.0),
    "exp2": (jnp.exp2, lambda x: (x * arb(2).log()).exp(), -1100.0, 1100.0),
    "expm1": (jnp.expm1, arb.expm1, -50.0, 50.0),
    "log": (jnp.log, arb.log, 1e-300, 1e3),
    "log1p": (jnp.log1p, arb.log1p, -0.999, 1e3),
    "logistic": (jax.nn.sigmoid, lambda x: 1 / (1 + (-x).exp()), -800.0, 800.0),
    "tanh": (jnp.tanh, arb.tanh, -30.0, 30.0),
    "sinh": (jnp.sinh, arb.sinh, -30.0, 30.0),
    "cosh": (jnp.cosh, arb.cosh, -30.0, 30.0),
    "asinh": (jnp.arcsinh, arb.asinh, -1e3, 1e3),
    "atan": (jnp.arctan, arb.atan, -1e3, 1e3),
    "cbrt": (jnp.cbrt, lambda x: x.sgn() * abs(x).root(3), -1e3, 1e3),
    "sin": (jnp.sin, arb.sin, -1e3, 1e3),
    "cos": (jnp.cos, arb.cos, -1e3, 1e3),
    "tan": (jnp.tan, arb.tan, -1.5, 1.5),
    "erf": (jax.lax.erf, arb.erf, -6.0, 6.0),
    "erfc": (jax.lax.erfc, arb.erfc, -6.0, 26.0),
    "pow": (lambda x: x**2.3, lambda x: x ** arb(2.3), 0.0, 1e3),
    "pow_negative": (lambda x: x**-0.7, lambda x: x ** arb(-0.7), 1e-3, 1e3),
    "sqrt": (jnp.sqrt, arb.sqrt, 0.0, 1e3),
    "rsqrt": (jax.lax.rsqrt, arb.rsqrt, 1e-3, 1e3),
    "square": (jnp.square, lambda x: x * x, -1e3, 1e3),
    "product": (lambda x: x * 1.1, lambda x: x * arb(1.1), -1e3, 1e3),
    "self_product": (lambda x: x * x, lambda x: x * x, -1e3, 1e3),
    "sum": (lambda x: x + 0.1, lambda x: x + arb(0.1), -1e3, 1e3),
    "difference": (lambda x: 0.1 - x, lambda x: arb(0.1) - x, -1e3, 1e3),
    "quotient": (lambda x: x / 3.0, lambda x: x / 3, -1e3, 1e3),
    "reciprocal": (lambda x: 1.0 / x, lambda x: 1 / x, 1e-3, 1e3),
    "cube": (lambda x: x**3, lambda x: x**3, -1e3, 1e3),
    "seventh_inverse": (lambda x: x**-7, lambda x: x**-7, 1e-3, 1e3),
    "float_exponent": (lambda x: x**3.0, lambda x: x**3, -1e3, 1e3),
}
CORRECTLY_ROUNDED = {"sqrt", "product", "self_product", "square", "sum", "difference", "quotient", "cube"}
CORRECTLY_ROUNDED |= {"reciprocal", "seventh_inverse", "float_exponent", "rsqrt"}


def contained(name: str, width: float, count: int = 200) -> list[bool]:
    """Is the truth at a random point of each of many random intervals inside its enclosure?"""
    function, exact, low, high = UNARY[name]
    rng = np.random.default_rng(7)
    scale = np.where(rng.random(count) < 0.5, 1.0, 10.0 ** rng.uniform(-8, 0, count))
    x = np.clip(rng.uniform(low, high, count) * scale, low, high)
    ends = np.clip(np.stack([x, x + width * np.abs(x) * rng.random(count)]), low, high)
    bounds = enclose(function, Interval(*ends))
    where = [Fraction(a) + (Fraction(b) - Fraction(a)) * random.Random(3).randrange(9) / 8 for a, b in ends.T]
    with ctx.workprec(BITS):
        return [
            inside(exact(arb(fmpq(q.numerator, q.denominator))), a, b)
            for q, a, b in zip(where, bounds.lower, bounds.upper, strict=True)
        ]


@pytest.mark.parametrize("width", first(2, [0.0, 0.3, 1e-12]))
@pytest.mark.parametrize("name", UNARY)
def test_the_truth_is_enclosed_for_each_operation(name: str, width: float) -> None:
    assert all(contained(name, width))


@pytest.mark.parametrize("name", UNARY)
def test_without_its_margin_no_operation_encloses_the_truth(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in CORRECTLY_ROUNDED:
        monkeypatch.setattr(interval_arithmetic, "_down", lambda x: x)
        monkeypatch.setattr(interval_arithmetic, "_up", lambda x: x)
    else:
        monkeypatch.setattr(interval_arithmetic, "FUNCTION_ULPS", 0.0)
        monkeypatch.setattr(interval_arithmetic, "_down", lambda x: x)
        monkeypatch.setattr(interval_arithmetic, "_up", lambda x: x)
    assert not all(contained(name, 0.0))


@pytest.mark.parametrize("name", sorted(UNARY.keys() - CORRECTLY_ROUNDED))
def test_an_operation_is_tight(name: str) -> None:
    function, _, low, high = UNARY[name]
    x = np.linspace(max(low, 0.1), min(high, 20.0), 999)
    if name == "tan":
        x = np.linspace(0.1, 1.2, 999)
    bounds = enclose(function, Interval.exact(x))
    floor = 1e-2 if name in ("sin", "cos", "log") else 0.0
    assert np.all(bounds.upper - bounds.lower <= 1e-14 * np.maximum(np.abs(bounds.upper), floor))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=4, max_size=4))
def test_arithmetic_encloses_exact_rationals(ends: list[float]) -> None:
    a, b, c, d = ends
    x, y = Interval(min(a, b), max(a, b)), Interval(min(c, d), max(c, d))
    pairs = [(Fraction(p), Fraction(q)) for p in (a, b) for q in (c, d)]
    with np.errstate(all="ignore"):
        results = {"+": x + y, "-": x - y, "*": x * y, "/": x / y}
    for symbol, bounds in results.items():
        for p, q in pairs:
            if symbol == "/" and y.lower <= 0.0 <= y.upper:
                assert (bounds.lower, bounds.upper) == (-INF, INF)
                continue
            exact = {"+": p + q, "-": p - q, "*": p * q, "/": p / q if q else None}[symbol]
            assert exact is not None
            assert bounds.lower == -INF or Fraction(float(bounds.lower)) <= exact
            assert bounds.upper == INF or exact <= Fraction(float(bounds.upper))


def test_exact_results_stay_exact() -> None:
    x = Interval.exact(np.array([0.75, -3.0, 0.0]))
    bounds = enclose(lambda x: 1.0 * x + 0.0 * x + 2.0, x)
    np.testing.assert_array_equal(bounds.lower, [2.75, -1.0, 2.0])
    np.testing.assert_array_equal(bounds.upper, bounds.lower)


def test_underflow_does_not_cross_zero() -> None:
    tiny = Interval.exact(np.array([1e-200]))
    for function in (lambda x: x * x, lambda x: x * (0.5 * x), lambda x: x / (1.0 / x)):
        bounds = enclose(function, tiny)
        assert bounds.lower == 0.0
        assert 0.0 < bounds.upper < 1e-300


# What is not known.


@pytest.mark.parametrize(
    "function",
    [
        lambda x: 1.0 / x,
        lambda x: jnp.sqrt(x),
        lambda x: jnp.log(x),
        lambda x: x**0.5,
        lambda x: (x - x) * jnp.exp(1e3 * (x + 2.0)),
        lambda x: x + jnp.nan,
    ],
)
def test_an_operation_outside_its_domain_is_unknown(function: Callable[[Any], Any]) -> None:
    bounds = enclose(function, Interval(np.array([-1.0]), np.array([1.0])))
    assert (bounds.lower[0], bounds.upper[0]) == (-INF, INF)


def test_zero_times_something_unknown_is_unknown() -> None:
    bounds = enclose(lambda x: 0.0 * jnp.exp(x), Interval.exact(np.array([1e3])))
    assert (bounds.lower[0], bounds.upper[0]) == (-INF, INF)


def test_an_overflow_is_bounded_from_below() -> None:
    bounds = enclose(jnp.exp, Interval.exact(np.array([710.0])))
    assert bounds.upper == INF
    with ctx.workprec(BITS):
        assert arb(float(bounds.lower[0])) < arb(710).exp()
    assert bounds.lower > 1e308


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("lgamma", jax.lax.lgamma),
        ("floor", jnp.floor),
        ("scan", lambda x: jax.lax.fori_loop(0, 3, lambda i, c: c * x, 1.0)),
        ("convert_element_type to float32", lambda x: x.astype(jnp.float32).astype(jnp.float64)),
        ("convert_element_type to int64", lambda x: x.astype(jnp.int64).astype(jnp.float64)),
        ("pure_callback", lambda x: jax.pure_callback(np.sin, jax.ShapeDtypeStruct((), jnp.float64), x)),
    ],
)
def test_an_operation_without_a_rule_is_named(name: str, function: Callable[[Any], Any]) -> None:
    with pytest.raises(UnsupportedPrimitive, match=name):
        enclose(function, Interval.exact(np.ones(2)))


def test_operations_that_do_not_matter_need_no_rule() -> None:
    def function(x: Any) -> Any:
        jax.lax.lgamma(x)
        return x + 1.0

    assert enclose(function, Interval.exact(np.ones(1))).upper == 2.0


def test_the_function_must_return_one_scalar() -> None:
    with pytest.raises(ValueError, match="expected one scalar"):
        enclose(lambda x: (x, x), Interval.exact(np.ones(1)))
    with pytest.raises(ValueError, match="expected one scalar"):
        enclose(lambda x: jnp.stack([x, x]), Interval.exact(np.ones(1)))


def test_an_interval_keeps_its_ends_in_order() -> None:
    with pytest.raises(ValueError, match="lower <= upper"):
        Interval(np.array([1.0]), np.array([0.0]))


# Branches.


def test_an_undecided_branch_gives_the_hull_of_both() -> None:
    around_zero = Interval(np.array([-1.0, 1.0]), np.array([2.0, 2.0]))
    bounds = enclose(lambda x: jnp.where(x > 0.0, 10.0, -3.0), around_zero)
    np.testing.assert_array_equal(bounds.lower, [-3.0, 10.0])
    np.testing.assert_array_equal(bounds.upper, [10.0, 10.0])


@pytest.mark.parametrize(
    "holds", [jnp.equal, jnp.not_equal, jnp.less, jnp.less_equal, jnp.greater, jnp.greater_equal]
)
def test_a_comparison_is_decided_only_by_disjoint_bounds(holds: Callable[[Any, Any], Any]) -> None:
    x = Interval(np.array([1.0, 0.0, 2.0, 0.0, 3.0]), np.array([1.0, 0.5, 3.0, 2.0, 3.0]))
    bounds = enclose(lambda x: jnp.where(holds(x, 1.0), 1.0, 0.0), x)
    for i, point in enumerate((1.0, 0.25, 2.5)):
        assert bounds.lower[i] == bounds.upper[i] == float(holds(point, 1.0))
    assert (bounds.lower[3], bounds.upper[3]) == (0.0, 1.0)


def test_a_selection_that_is_decided_is_sharp() -> None:
    x = Interval.exact(np.array([-1.0, 0.5, 2.0]))
    bounds = enclose(lambda x: jnp.select([x < 0.0, x < 1.0], [-1.0 * x, x], 3.0), x)
    np.testing.assert_array_equal(bounds.lower, [1.0, 0.5, 3.0])
    np.testing.assert_array_equal(bounds.upper, bounds.lower)


def test_the_derivative_of_a_maximum_is_sharp_off_its_tie() -> None:
    wide = Interval(np.array([1.0]), np.array([2.0]))
    bounds = enclose(jax.grad(lambda x: jnp.maximum(x, 0.5) + jnp.minimum(x, 0.5)), wide)
    assert (bounds.lower[0], bounds.upper[0]) == (1.0, 1.0)


def test_one_interval_given_twice_is_two_variables() -> None:
    x = Interval(np.array([-1.0]), np.array([1.0]))
    assert enclose(lambda p, y: p * y, x, x).lower == pytest.approx(-1.0)
    assert enclose(lambda p, y: p * p, x, x).lower == 0.0
    assert enclose(lambda p, y: jnp.where(p == y, 0.0, 1.0), x, x).upper == 1.0


def test_where_autodiff_errs_at_a_tie_the_enclosure_does_not() -> None:
    loss = LOSSES["softplus_by_hand"].function
    first = CustomLoss(loss, "softplus").derivative_functions[1]
    assert abs(float(jax.grad(loss)(0.0, 1.0)) - (-0.5)) > 0.4  # JAX differentiates |z| at 0 as if z > 0
    bounds = enclose(first, Interval.around(np.zeros(1), 0.0), Interval.exact(np.ones(1)))
    assert bounds.lower <= -0.5 <= bounds.upper


# Losses and their derivatives.

rng = np.random.default_rng(11)
PREDICTIONS = np.concatenate(
    [
        rng.normal(size=24) * 3.0,
        rng.normal(size=6) * 1e-9,
        [0.0, 1.0, -1.0, 25.0, -40.0, 300.0, -705.0, 1e5, 1e-300],
    ]
)
TARGETS = np.where(rng.random(len(PREDICTIONS)) < 0.5, -1.0, 1.0)


@pytest.mark.parametrize("name", first(6, LOSSES))
def test_a_loss_and_its_derivatives_are_enclosed(name: str) -> None:
    loss = LOSSES[name]
    functions = CustomLoss(loss.function, name).derivative_functions[:3]
    for error in (0.0, 1e-13, 1e-3):
        step = (error * rng.uniform(-1.0, 1.0, len(PREDICTIONS))).tolist()
        at = [Fraction(p) + Fraction(s) for p, s in zip(PREDICTIONS.tolist(), step, strict=True)]
        truths = [
            truth(loss, fmpq(q.numerator, q.denominator), y)
            for q, y in zip(at, TARGETS.tolist(), strict=True)
        ]
        # Arb has no series of a power of zero: at p = y there may be nothing to compare with.
        assert sum(exact[2].is_finite() for exact in truths) >= len(truths) - 2
        for order, function in enumerate(functions):
            bounds = enclose(function, Interval.around(PREDICTIONS, error), Interval.exact(TARGETS))
            with ctx.workprec(BITS):
                for i, exact in enumerate(truths):
                    if exact[order].is_finite():
                        assert exact[order].rad() <= 1e-300 * (1 + abs(exact[order]).upper())
                        assert inside(exact[order], float(bounds.lower[i]), float(bounds.upper[i])), i


SHARP = [
    "softplus",
    "logaddexp",
    "log1p_exp",
    "log_sigmoid",
    "cross_entropy",
    "exponential",
    "power_of_square",
]


@pytest.mark.parametrize("name", SHARP)
def test_benign_losses_are_enclosed_to_thirteen_digits(name: str) -> None:
    p = np.linspace(-1.0, 1.0, 101)
    for order, function in enumerate(CustomLoss(LOSSES[name].function, name).derivative_functions[:3]):
        bounds = enclose(function, Interval.around(p, 0.0), Interval.exact(np.ones(101)))
        size = np.maximum(np.abs(bounds.upper), 1.0 if name == "power_of_square" and order else 0.0)
        assert np.all(bounds.upper - bounds.lower <= 1e-13 * size)


@pytest.mark.parametrize("margin", ["functions", "rounding"])
def test_without_margins_some_loss_is_not_enclosed(margin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if margin == "functions":
        monkeypatch.setattr(interval_arithmetic, "FUNCTION_ULPS", 0.0)
        function, series = (lambda p, y: jnp.exp(p)), lambda p: p.exp()
    else:
        monkeypatch.setattr(interval_arithmetic, "_down", lambda x: x)
        monkeypatch.setattr(interval_arithmetic, "_up", lambda x: x)
        function, series = (lambda p, y: jnp.sqrt(1.0 + (p - y) ** 2)), lambda p: (1 + (p - 1) ** 2).sqrt()
    p = np.linspace(-3.0, 3.0, 101) + 1e-3
    bounds = enclose(function, Interval.exact(p), Interval.exact(np.ones(101)))
    with ctx.workprec(BITS):
        assert not all(
            inside(series(arb(q)), a, b) for q, a, b in zip(p, bounds.lower, bounds.upper, strict=True)
        )


def test_a_function_is_traced_once_for_all_shapes() -> None:
    traced = []

    def function(p: Any, y: Any) -> Any:
        traced.append(1)
        return p * y

    for n in (1, 5, 1000):
        assert enclose(function, Interval.exact(np.ones(n)), Interval.exact(np.ones(n))).lower.shape == (n,)
    assert len(traced) == 1
