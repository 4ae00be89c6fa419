"""Interval arithmetic with forms: it holds the truth, and keeps signs where plain intervals lose them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flint import ctx
from selections import first
from user_losses import BITS, LOSSES, truth

from resnet_cert.numerics.forms import enclose_forms
from resnet_cert.numerics.intervals import Interval
from resnet_cert.numerics.jax64 import float64_scope
from resnet_cert.numerics.jaxpr import enclose

Function = Callable[[Any, Any], Any]


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    with float64_scope():
        yield


def derivative(function: Function, order: int) -> Function:
    for _ in range(order):
        function = lambda p, y, f=function: jax.jvp(lambda q: f(q, y), (p,), (jnp.ones_like(p),))[1]  # noqa: E731
    return function


ALIKE = (
    "log1p_exp",
    "log_sigmoid",
    "logaddexp",
    "softplus_of_hinge",
    "log_cosh_by_logaddexp",
    "steep_pseudo_huber",
    "squared_hinge",
    "power_3",
)
"""Losses of the operations of others."""


@pytest.mark.parametrize(
    "name", first(len(LOSSES) - len(ALIKE), sorted(LOSSES, key=lambda name: name in ALIKE))
)
def test_the_derivatives_of_a_loss_over_a_box_hold_those_at_its_points(name: str, longer: int) -> None:
    loss, rng, count = LOSSES[name], np.random.default_rng(3), 6 * longer
    lower = rng.normal(size=count) * 10.0 ** rng.integers(-3, 2, count)
    width = rng.random(count) * 10.0 ** rng.integers(-9, 1, count)
    upper, y = lower + width, np.where(rng.random(count) < 0.5, -1.0, 1.0)
    for order in range(3):
        box = Interval(lower, upper), Interval.exact(y)
        forms, plain = (read(derivative(loss.function, order), *box) for read in (enclose_forms, enclose))
        assert np.all(forms.lower >= plain.lower)
        assert np.all(forms.upper <= plain.upper)
        with ctx.workprec(BITS):
            for i in range(count):
                for share in (0.0, 0.3, 0.7, 1.0):
                    p = min(float(lower[i] + share * width[i]), float(upper[i]))
                    exact = truth(loss, p, float(y[i]))[order]
                    assert not exact < float(forms.lower[i])
                    assert not exact > float(forms.upper[i])


@pytest.mark.parametrize(
    "function",
    [
        lambda p, y: (p + y) - p - y,
        lambda p, y: jnp.exp(p + y) * jnp.exp(-p) - jnp.exp(y),
        lambda p, y: jnp.log(jnp.exp(p)) - p,
        lambda p, y: 0.5 * (2.0 * p) - p,
        lambda p, y: (3.0 * p) / 3.0 - p,
        lambda p, y: jnp.sqrt(1.0 + p**2) ** 2 / (1.0 + p**2) - 1.0,
        lambda p, y: jnp.abs(p) - jnp.maximum(p, -p),
    ],
)
def test_what_cancels_leaves_at_most_roundings(function: Function) -> None:
    at = enclose_forms(function, Interval(np.array([1.0]), np.array([7.0])), Interval.exact(np.array([0.3])))
    assert at.lower <= 0.0 <= at.upper
    assert at.upper - at.lower < 1e-9


@pytest.mark.parametrize(
    ("name", "lower", "upper"),
    [
        ("softplus", -1000.0, -40.0),
        ("log1p_exp", -300.0, -5.0),
        ("log_cosh", 40.0, 600.0),
        ("pseudo_huber", -1000.0, -40.0),
        ("steep_pseudo_huber", 3.0, 1000.0),
        ("arctan", -1000.0, -5.0),
    ],
)
def test_a_second_derivative_keeps_its_sign_over_a_wide_box(name: str, lower: float, upper: float) -> None:
    box = Interval(np.array([lower]), np.array([upper])), Interval.exact(np.ones(1))
    second = derivative(LOSSES[name].function, 2)
    assert enclose(second, *box).lower < 0.0
    assert enclose_forms(second, *box).lower >= 0.0
