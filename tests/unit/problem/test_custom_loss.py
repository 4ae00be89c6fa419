"""A user's loss: what is proven about it, what is refused, and with which witness."""

from __future__ import annotations

import linecache
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flint import ctx
from selections import each_once
from user_losses import BITS, LOSSES, truth

from resnet_cert.numerics.jax64 import float64_scope
from resnet_cert.numerics.radius import NOTHING, Array, Radius
from resnet_cert.outcomes import RequestError
from resnet_cert.problem.custom_loss import CustomLoss
from resnet_cert.problem.losses import NUMPY, named_loss

Function = Callable[[Any, Any], Any]

rng = np.random.default_rng(5)
P = np.concatenate([rng.normal(size=30) * 2.0, [1.0, 4.0, -1.0, 0.0, 0.5]])
Y = np.where(rng.random(len(P)) < 0.5, -1.0, 1.0)
Y[30:] = [1.0, 1.0, -1.0, 1.0, -1.0]
EXACT = 30
"""The sample at p = y."""


def lgamma_loss(p: Any, y: Any) -> Any:
    return jax.lax.lgamma(p**2 + 10.0) + (p - y) ** 2


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    with float64_scope():
        yield


def at(function: Function, p: Array, error: float, y: Array) -> Any:
    """ℓ, ℓ', ℓ'' with their errors."""
    return CustomLoss(function, "mine").enclosed(p, np.full(len(p), error), y, 2)


# Derivatives.


@pytest.mark.parametrize(
    ("name", "error"), each_once(["softplus", "pseudo_huber", "huber", "poisson", "probit"], [0.0, 1e-14])
)
def test_the_truth_lies_within_the_error_of_each_derivative(name: str, error: float) -> None:
    loss = LOSSES[name]
    columns = at(loss.function, P, error, Y)
    with ctx.workprec(BITS):
        for i in range(len(P)):
            for order, exact in enumerate(truth(loss, float(P[i]), float(Y[i]))):
                value, radius = float(columns[order].value[i]), float(columns[order].error.upper[i])
                assert abs(exact - value) <= radius * (1 + 1e-300) + 1e-300
                assert radius <= 1e-11 * (1 + abs(value)) or (name, order) == ("huber", 2)


def test_it_speaks_as_a_loss_of_one_output() -> None:
    loss, p, y = CustomLoss(LOSSES["softplus"].function, "mine"), P[:, None], Y[:, None]
    builtin = named_loss("logistic").formulas
    seen = loss.derivatives(p, NOTHING, y)
    plain = builtin.derivatives(NUMPY, p, NOTHING, (1.0 + y) / 2.0, None)
    assert seen.first.shape == seen.second.shape == p.shape
    np.testing.assert_allclose(seen.value, plain.value, rtol=1e-12)
    np.testing.assert_allclose(seen.first, plain.first, rtol=1e-12)
    np.testing.assert_allclose(seen.second[:, 0], plain.second.reshape(-1), rtol=1e-10)
    first = loss.first_derivatives(p, NOTHING, y)
    np.testing.assert_array_equal(first.first, seen.first)
    form, error = loss.quadratic(p, NOTHING, y, None, 3.0 * np.ones_like(p), NOTHING)
    np.testing.assert_allclose(form, 9.0 * seen.second[:, 0], rtol=1e-12)
    assert np.all(error.upper < 1e-9)
    assert loss.targets(Y, 1).shape == p.shape
    assert loss.recession(y) is None


def test_values_are_those_of_the_function() -> None:
    loss = CustomLoss(LOSSES["pseudo_huber"].function, "mine")
    values = loss.value(jnp.asarray(P[:, None]), jnp.asarray(Y[:, None]))
    np.testing.assert_array_equal(values, LOSSES["pseudo_huber"].function(jnp.asarray(P), jnp.asarray(Y)))
    assert loss.name == "mine"
    assert not loss.nonnegative
    assert not loss.convex


def test_the_tie_of_two_smooth_pieces_encloses_both_sides() -> None:
    _, first, second = at(LOSSES["huber"].function, np.zeros(1), 0.0, np.ones(1))
    assert first.error.upper < 1e-14
    assert second.interval.lower <= 0.0
    assert second.interval.upper >= 1.0


def test_an_unsupported_operation_makes_every_error_infinite_and_is_named() -> None:
    loss = CustomLoss(lgamma_loss, "gamma")
    columns = at(lgamma_loss, P, 0.0, Y)
    assert all(np.isinf(column.error.upper).all() for column in columns)
    np.testing.assert_allclose(columns[1].value, jax.vmap(jax.grad(lgamma_loss))(P, Y), rtol=1e-12)
    assert re.search("gamma.*lgamma", loss.why_unknown() or "")
    assert CustomLoss(LOSSES["softplus"].function, "softplus").why_unknown() is None
    assert loss.suprema(Radius.of(np.ones(3)), np.ones((3, 1))) is None


def test_where_nothing_is_known_the_value_is_that_of_jax() -> None:
    value, *_ = at(LOSSES["log1p_exp"].function, np.array([-800.0, 0.0]), 0.0, np.ones(2))
    assert np.isinf(value.error.upper).tolist() == [True, False]
    assert value.value.tolist() == [np.inf, pytest.approx(np.log(2.0))]


def test_an_unbounded_error_leaves_nothing_known() -> None:
    loss = CustomLoss(LOSSES["quartic"].function, "q")
    _, first = loss.enclosed(np.ones(2), np.array([np.inf, 0.0]), np.zeros(2), 1)
    assert np.isinf(first.error.upper).tolist() == [True, False]
    assert first.value[0] == 5.0


def test_a_target_of_infinite_loss_is_named() -> None:
    loss = CustomLoss(lambda p, y: jnp.exp(p) - jnp.log(y) * p + jnp.log(y), "rate")
    assert loss.target_fault(np.array([1.0, 2.0])) is None
    fault = loss.target_fault(np.array([1.0, 0.0, 2.0]))
    assert fault is not None
    assert fault[0] == 1
    assert "loss rate" in fault[1]
    assert "y = 0" in fault[1]


# What is no loss at all.


def raises(p: Any, y: Any) -> Any:
    raise KeyError("no such target")  # the place that is reported


def branches_on_values(p: Any, y: Any) -> Any:
    if p > y:
        return p - y
    return y - p


@jax.custom_vjp
def reverse_only(p: Any, y: Any) -> Any:
    return (p - y) ** 2


reverse_only.defvjp(lambda p, y: (reverse_only(p, y), (p, y)), lambda r, g: (2 * g * (r[0] - r[1]), 0.0 * g))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda p, y: jnp.mean((p - y) ** 2), r"expected float64 of shape \(3,\).*got float64 of shape \(\)"),
        (lambda p, y: jnp.sum((p - y) ** 2, axis=-1), r"raised"),
        (lambda p, y: (p - y, p), r"expected float64 of shape \(\)"),
        (lambda p, y: None, r"expected float64 of shape \(\)"),
        (lambda p, y: jnp.stack([p, y]), r"got float64 of shape \(2,\)"),
        (lambda p, y: (p - y).astype(jnp.float32), r"got float32"),
        (lambda p, y: jnp.sign(p - y).astype(jnp.int64), r"got int64"),
        (lambda p, y: (p - jnp.mean(p)) ** 2 + y, r"one that mixes samples"),
        (lambda p: p**2, r"raised TypeError"),
        (lambda p, y: np.exp(p - y), r"raised TracerArrayConversionError"),
        (branches_on_values, r"raised TracerBoolConversionError"),
        (reverse_only, r"no derivative by jax.jvp.*custom_jvp"),
        (raises, r"raised KeyError: 'no such target'"),
    ],
)
def test_what_is_not_an_elementwise_differentiable_function_is_refused(function: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message) as refusal:
        CustomLoss(function, "mine")
    assert "loss mine" in str(refusal.value)


@pytest.mark.parametrize(
    ("function", "marker"), [(raises, "raise KeyError"), (branches_on_values, "if p > y")]
)
def test_an_exception_is_placed_in_the_users_file(function: Function, marker: str) -> None:
    with pytest.raises(RequestError) as refusal:
        CustomLoss(function, "mine")
    (diagnostic,) = refusal.value.diagnostics
    assert diagnostic.file == __file__
    assert diagnostic.line is not None
    assert marker in linecache.getline(__file__, diagnostic.line)


def test_code_for_scalars_alone_is_welcome() -> None:
    loss = CustomLoss(LOSSES["branch"].function, "branch")
    np.testing.assert_allclose(loss.elementwise(np.array([2.0, -2.0]), np.zeros(2)), [4.0, 2.0])
