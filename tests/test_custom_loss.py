"""A user's loss: what is proven about it, what is refused, and with which witness."""

from __future__ import annotations

import linecache
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flint import ctx
from user_losses import BITS, LOSSES, truth

from resnet_cert.check import check
from resnet_cert.numerics.enclosure import Array
from resnet_cert.numerics.jax64 import jax, jnp
from resnet_cert.outcomes import RequestError
from resnet_cert.problem.custom_loss import CustomLoss, assumption1_fault
from resnet_cert.problem.losses import Loss, named_loss
from resnet_cert.problem.problem import Distribution, GivenFeatures, Lipschitz, Point, Problem

Function = Callable[[Any, Any], Any]

rng = np.random.default_rng(5)
P = np.concatenate([rng.normal(size=30) * 2.0, [1.0, 4.0, -1.0, 0.0, 0.5]])
Y = np.where(rng.random(len(P)) < 0.5, -1.0, 1.0)
Y[30:] = [1.0, 1.0, -1.0, 1.0, -1.0]
EXACT = 30
"""The sample at p = y."""


def lgamma_loss(p: Any, y: Any) -> Any:
    return jax.lax.lgamma(p**2 + 10.0) + (p - y) ** 2


# Derivatives.


@pytest.mark.parametrize("error", [0.0, 1e-14])
@pytest.mark.parametrize("name", ["softplus", "pseudo_huber", "huber", "poisson", "probit"])
def test_the_truth_lies_within_the_error_of_each_derivative(name: str, error: float) -> None:
    loss = LOSSES[name]
    columns = CustomLoss(loss.function, name).derivatives(P, np.full(len(P), error), Y)
    with ctx.workprec(BITS):
        for i in range(len(P)):
            for order, exact in enumerate(truth(loss, float(P[i]), float(Y[i]))):
                value, radius = float(columns[2 * order][i]), float(columns[2 * order + 1][i])
                assert abs(exact - value) <= radius * (1 + 1e-300) + 1e-300
                assert radius <= 1e-11 * (1 + abs(value)) or (name, order) == ("huber", 2)


def test_values_are_those_of_the_function() -> None:
    loss = CustomLoss(LOSSES["pseudo_huber"].function, "mine")
    np.testing.assert_array_equal(
        loss.value(P, Y), LOSSES["pseudo_huber"].function(jnp.asarray(P), jnp.asarray(Y))
    )
    assert loss.value(0.0, 1.0) == pytest.approx(2.0**0.5 - 1.0)
    assert loss.name == "mine"
    assert not loss.nonnegative


def test_the_tie_of_two_smooth_pieces_encloses_both_sides() -> None:
    at = CustomLoss(LOSSES["huber"].function, "huber").derivatives(np.zeros(1), np.zeros(1), np.ones(1))
    assert at.first_error < 1e-14
    assert at.second - at.second_error <= 0.0
    assert at.second + at.second_error >= 1.0


def test_an_unsupported_operation_makes_every_error_infinite_and_is_named() -> None:
    loss = CustomLoss(lgamma_loss, "gamma")
    at = loss.derivatives(P, np.zeros(len(P)), Y)
    assert all(np.isinf(error).all() for error in at[1::2])
    np.testing.assert_allclose(at.first, jax.vmap(jax.grad(lgamma_loss))(P, Y), rtol=1e-12)
    assert re.search("gamma.*lgamma", loss.why_unknown() or "")
    assert CustomLoss(LOSSES["softplus"].function, "softplus").why_unknown() is None


def test_where_nothing_is_known_the_value_is_that_of_jax() -> None:
    loss = CustomLoss(LOSSES["log1p_exp"].function, "naive")
    at = loss.derivatives(np.array([-800.0, 0.0]), np.zeros(2), np.ones(2))
    assert np.isinf(at.value_error).tolist() == [True, False]
    assert at.value.tolist() == [np.inf, pytest.approx(np.log(2.0))]


def test_an_unbounded_error_leaves_nothing_known() -> None:
    at = CustomLoss(LOSSES["quartic"].function, "q").derivatives(
        np.ones(2), np.array([np.inf, 0.0]), np.zeros(2)
    )
    assert np.isinf(at.first_error).tolist() == [True, False]
    assert at.first[0] == 5.0


def test_nothing_is_claimed_that_is_not_known() -> None:
    loss = CustomLoss(LOSSES["softplus"].function, "mine")
    assert loss.suprema(np.ones(3), np.ones(3)) is None
    assert loss.flat_side(np.ones(3)).tolist() == [0.0, 0.0, 0.0]


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
    np.testing.assert_allclose(loss.value(np.array([2.0, -2.0]), np.zeros(2)), [4.0, 2.0])


# Assumption 1.

SMOOTH: dict[str, Function] = {name: loss.function for name, loss in LOSSES.items()}
SMOOTH["steeper"] = lambda p, y: jnp.sqrt(1e-20 + (p - y) ** 2)
SMOOTH["steep_exponential"] = lambda p, y: jnp.exp(-30.0 * y * p)
SMOOTH["thresholded_softplus"] = lambda p, y: jnp.where(-y * p > 20.0, -y * p, jnp.log1p(jnp.exp(-y * p)))
SMOOTH["cut_off_softplus"] = lambda p, y: jnp.where(y * p > 20.0, 0.0, jnp.log1p(jnp.exp(-y * p)))
SMOOTH["linear"] = lambda p, y: -y * p
SMOOTH["constant"] = lambda p, y: 0.0 * p
SMOOTH["unknown"] = lgamma_loss


@pytest.mark.parametrize("name", SMOOTH)
def test_a_smooth_convex_loss_raises_no_alarm(name: str) -> None:
    p = np.concatenate([P, 20.0 * Y, -20.0 * Y, np.zeros(len(P)), Y + 1e-9, Y * 1e-6])
    assert assumption1_fault(CustomLoss(SMOOTH[name], name), p, np.tile(Y, 6)) is None


@pytest.mark.parametrize("kind", ["squared", "logistic", "pseudo_huber", "poisson"])
def test_the_builtin_losses_raise_no_alarm(kind: str) -> None:
    assert assumption1_fault(named_loss(kind), P, np.abs(Y)) is None


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda p, y: -((p - y) ** 2), "not convex: second derivative ≤ -2 "),
        (lambda p, y: jnp.log1p((p - y) ** 2), "not convex: second derivative ≤ -0.2"),
        (lambda p, y: jnp.cos(p), "not convex: second derivative ≤ -1 .* p = 0,"),
        (lambda p, y: -jnp.abs(p - y), r"not convex.*falls by 2 within p = -?1 ±"),
        (lambda p, y: jnp.clip(p - y, -1.0, 1.0) ** 2, "not convex.*falls by"),
        (lambda p, y: jnp.abs(p - y), r"kink.*changes by 2 more.*within p = -?1 ± 9.1e-13"),
        (lambda p, y: 1e-9 * jnp.abs(p - y), "kink.*changes by 2e-09"),
        (lambda p, y: jnp.maximum(0.0, 1.0 - y * p), "kink.*changes by 1 more"),
        (lambda p, y: jax.nn.relu(1.0 - y * p), "kink.*changes by 1 more"),
        (lambda p, y: jnp.where(p > y, 0.3 * (p - y), 0.7 * (y - p)), "kink.*changes by 1 more"),
        (lambda p, y: (p - y) ** 2 + 1e-3 * jnp.abs(p - 0.5), r"kink.*changes by 0.002.*\(sample 134\)"),
        (lambda p, y: (p - y) ** 2 + jnp.where(p > 0.5, 1.0, 0.0), "jumps.*value changes by 1"),
        (lambda p, y: jax.lax.stop_gradient(p - y) * (p - y), "wrong derivative"),
        (lambda p, y: jnp.sqrt((p - y) ** 2), r"first derivative is nan .* at p = 1, y = 1 \(sample 130\)"),
        (lambda p, y: jnp.abs(p - y) ** 1.5, r"second derivative is inf .* at p = 1, y = 1 \(sample 130\)"),
        (lambda p, y: jnp.log(p - 3.5), r"value is nan in float64 at p = "),
        (lambda p, y: jnp.exp(200.0 * p), r"value is inf in float64 at p = 4, y = 1 \(sample 131\)"),
    ],
)
def test_a_loss_against_assumption_1_is_refused_with_a_witness(function: Function, message: str) -> None:
    fault = assumption1_fault(CustomLoss(function, "mine"), P, Y, first=100)
    assert fault is not None
    assert fault.startswith("loss mine")
    assert "Assumption 1" in fault
    assert re.search(message, fault), fault
    sample = re.search(r"\(sample (\d+)\)", fault)
    assert sample
    assert 100 <= int(sample.group(1)) < 100 + len(P)


def test_a_wrong_derivative_rule_is_found() -> None:
    @jax.custom_jvp
    def square(r: Any) -> Any:
        return r**2

    square.defjvp(lambda primals, tangents: (square(*primals), primals[0] * tangents[0]))  # 2 is missing
    fault = assumption1_fault(CustomLoss(lambda p, y: square(p - y), "mine"), P, Y)
    assert fault is not None
    assert "wrong derivative" in fault


def test_the_strongest_curvature_is_the_witness() -> None:
    p = np.array([0.0, 1.5, 3.0])
    fault = assumption1_fault(CustomLoss(lambda p, y: p**2 - 0.1 * p**4, "mine"), p, np.zeros(3))
    assert fault is not None
    assert "≤ -8.8 at p = 3, y = 0 (sample 2)" in fault


def test_the_witness_of_a_kink_is_its_own_sample() -> None:
    y = np.array([-50.0, 10.0, 20.0, 90.0])
    p = np.array([500.0, 100.0, 61.0, 700.0])
    fault = assumption1_fault(CustomLoss(lambda p, y: jnp.abs(p - 3.0 * y - 1.0), "mine"), p, y)
    assert fault is not None
    assert "within p = 61 ± 5.5e-11, y = 20 (sample 2)" in fault


def test_a_kink_at_the_target_is_found_wherever_the_predictions_are() -> None:
    fault = assumption1_fault(
        CustomLoss(lambda p, y: jnp.abs(p - y), "mine"), np.zeros(2), np.array([70.0, 90.0])
    )
    assert fault is not None
    assert "within p = 70 ±" in fault


def test_one_kink_among_many_samples_is_found() -> None:
    n = 30_000
    p, y = rng.normal(size=n), np.full(n, 7.0)
    p[12_345] = -0.125
    loss = CustomLoss(lambda p, y: (p - y) ** 2 + jnp.abs(p + 0.125), "mine")
    fault = assumption1_fault(loss, p, y)
    assert fault is not None
    assert "(sample 12345)" in fault


# A check as a whole.


def residual_problem(loss: Loss, y: Array, w: Array, V: Array) -> Problem:
    generator = np.random.default_rng(2)
    return Problem(
        distribution=Distribution(generator.normal(size=(20, 2)), y),
        loss=loss,
        features=GivenFeatures(generator.normal(size=(20, 3))),
        point=Point(w, V),
        epsilon=3.0,
        lipschitz=Lipschitz(50.0, 50.0, 50.0),
    )


@pytest.mark.parametrize(("name", "builtin"), [("softplus", "logistic"), ("pseudo_huber", "pseudo_huber")])
def test_a_loss_written_by_the_user_is_checked_like_the_builtin_one(name: str, builtin: str) -> None:
    y = np.where(np.arange(20) % 3 == 0, 1.0, -1.0)
    for w in (np.array([0.3, -0.2]), np.zeros(2)):
        V = 0.1 * np.arange(6.0).reshape(2, 3)
        mine = check(residual_problem(CustomLoss(LOSSES[name].function, name), y, w, V))
        theirs = check(residual_problem(named_loss(builtin), y, w, V))
        assert mine.verdict is theirs.verdict
        for ours, other in (
            (mine.objective.F, theirs.objective.F),
            (mine.gradient.norm, theirs.gradient.norm),
            (mine.hessian.lambda_min, theirs.hessian.lambda_min),
        ):
            assert ours.lower <= other.upper
            assert other.lower <= ours.upper
            assert ours.upper - ours.lower < 1e-9


def test_a_loss_without_bounds_is_undecided() -> None:
    gamma = CustomLoss(lgamma_loss, "gamma")
    with np.errstate(invalid="ignore"):  # unknown errors are infinite
        report = check(residual_problem(gamma, np.ones(20), np.ones(2), np.ones((2, 3))))
    assert report.verdict.value == "UNDECIDED"


def test_a_check_refuses_a_kink_at_one_of_its_predictions() -> None:
    hinge = CustomLoss(lambda p, y: jnp.maximum(0.0, 1.0 - y * p), "hinge")
    with pytest.raises(RequestError, match="loss hinge has a kink"):
        check(residual_problem(hinge, np.ones(20), np.ones(2), np.ones((2, 3))))
