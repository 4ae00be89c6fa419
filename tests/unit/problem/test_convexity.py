"""Assumption 1 of users' losses: proven, refuted with a witness, or left open with a reason."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flint import arb, arb_series, ctx
from selections import first
from user_losses import BITS, LOSSES, truth

from resnet_cert.compare.linear_data import Data
from resnet_cert.numerics.jax64 import float64_scope
from resnet_cert.outcomes import RequestError
from resnet_cert.problem.convexity import (
    assumption1,
    convex_everywhere,
    prove_convex,
    suprema,
    with_assumption1,
)
from resnet_cert.problem.custom_loss import CustomLoss
from resnet_cert.problem.problem import Distribution, GivenFeatures, Point, Problem
from resnet_cert.results import Assumption1

Function = Callable[[Any, Any], Any]
Array = np.ndarray

SMOOTH = [
    "softplus",
    "logaddexp",
    "log1p_exp",
    "log_sigmoid",
    "pseudo_huber",
    "steep_pseudo_huber",
    "quartic",
    "log_cosh",
    "log_cosh_by_logaddexp",
    "poisson",
    "exponential",
    "softplus_of_hinge",
    "power_of_square",
    "arctan",
    "jitted_linex",
]
JOINED = ["huber", "power_2.5", "branch", "softplus_by_hand", "smooth_hinge", "squared_hinge"]


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    with float64_scope():
        yield


def bump(p: Any, y: Any) -> Any:
    """Convex but within about 1e-4 of one point, where ℓ'' falls to −89 + 1."""
    return 0.5 * (p - y) ** 2 - 1e-6 * jnp.exp(-((1e4 * (p - 0.41421356)) ** 2))


def proof(function: Function, y: Array, reach: Array) -> str | None:
    return prove_convex(CustomLoss(function, "mine"), y, reach, np.arange(100, 100 + len(y)))


@pytest.mark.parametrize("name", first(2, SMOOTH[2:] + SMOOTH[:2]))
def test_a_smooth_convex_loss_is_proven_over_a_wide_range(name: str) -> None:
    assert proof(LOSSES[name].function, np.array([-1.0, 1.0]), np.array([40.0, 300.0])) is None


@pytest.mark.parametrize("name", first(1, ["log1p_exp", "arctan", "pseudo_huber", "log_cosh"]))
def test_a_thousand_targets_take_no_more_than_seconds(name: str) -> None:
    y, loss = np.random.default_rng(0).normal(size=1000), CustomLoss(LOSSES[name].function, "mine")
    prove_convex(loss, y[:1], np.ones(1), [0])  # traces the programs
    start = time.process_time()
    assert prove_convex(loss, y, np.full(1000, 30.0), np.arange(1000)) is None
    assert time.process_time() - start < 8.0  # 0.7 s on an idle core


@pytest.mark.parametrize("name", first(4, JOINED))
def test_a_joint_is_told_with_its_place(name: str) -> None:
    reason = proof(LOSSES[name].function, np.array([1.0]), np.array([5.0]))
    assert reason is not None
    assert "joined of pieces at p = " in reason or "not decided at p = " in reason
    assert "y = 1 (sample 100)" in reason


@pytest.mark.parametrize("name", first(1, ["huber", "power_2.5", "squared_hinge", "smooth_hinge"]))
def test_joints_of_hundreds_of_targets_end_the_search_within_seconds(name: str) -> None:
    rng = np.random.default_rng(2)
    y, reach = rng.normal(size=300), 20.0 * np.abs(rng.normal(size=300))
    loss = CustomLoss(LOSSES[name].function, "mine")
    prove_convex(loss, y[:1], np.ones(1), [0])  # traces the programs
    start = time.process_time()
    reason = prove_convex(loss, y, reach, np.arange(300))
    assert reason is not None
    assert np.isinf(suprema(loss, reach, y)[0]).any()
    assert time.process_time() - start < 4.0  # 0.4 s on an idle core


@pytest.mark.parametrize(
    ("center", "steep", "height"), first(1, [(-2.7182818, 1e5, 1e-8), (3.3, 1e7, 1e-12)])
)
def test_a_bump_of_any_width_is_found_among_hundreds_of_targets(
    center: float, steep: float, height: float
) -> None:
    rng = np.random.default_rng(2)
    narrow = lambda p, y: 0.5 * (p - y) ** 2 - height * jnp.exp(-((steep * (p - center)) ** 2))  # noqa: E731
    with pytest.raises(RequestError, match="second derivative ≤ -"):
        proof(narrow, rng.normal(size=300), 20.0 * np.abs(rng.normal(size=300)))
    flat = lambda p, y: 0.5 * (p - y) ** 2 - 0.9 / steep**2 * jnp.exp(-((steep * (p - center)) ** 2))  # noqa: E731
    assert proof(flat, np.array([0.5, 1.0]), np.full(2, 5.0)) is None  # ℓ'' ≥ 1 − 0.9·4e^{−3/2} > 0


def test_the_place_of_a_joint_is_where_the_pieces_meet() -> None:
    reason = proof(LOSSES["squared_hinge"].function, np.array([0.25]), np.array([5.0]))
    assert reason is not None
    assert float(reason.partition("p = ")[2].partition(",")[0]) == pytest.approx(4.0, abs=1e-6)


def test_a_joint_outside_of_the_range_does_not_matter() -> None:
    assert proof(LOSSES["squared_hinge"].function, np.array([0.25]), np.array([3.9])) is None


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (bump, r"second derivative ≤ -\d.* at p = 0\.41\d+, y = .*\(sample 10[012]\)"),
        (lambda p, y: jnp.cos(p) + 0.1 * p, r"second derivative ≤ -"),
        (
            lambda p, y: (p - y) ** 2 - 1e-3 * jnp.abs(p - 0.3),
            r"first derivative falls by 0\.0019\d+ at p = 0\.(3|2999)",
        ),
        (lambda p, y: jnp.log1p((p - y) ** 2), r"second derivative ≤ -"),
        (lambda p, y: (p - y) ** 2 - jnp.where(y > 1.5, 2.0, 0.0) * p**2, r"y = 2 \(sample 102\)"),
    ],
)
def test_a_loss_that_is_not_convex_is_refused_with_its_witness(function: Function, message: str) -> None:
    with pytest.raises(RequestError, match="loss mine is not convex.*" + message) as refusal:
        proof(function, np.array([0.0, 1.0, 2.0]), np.full(3, 4.0))
    assert "Assumption 1" in str(refusal.value)


def test_what_bends_outside_of_the_range_of_its_own_target_is_not_refused() -> None:
    concave_beyond = lambda p, y: p**2 - 0.01 * p**4  # noqa: E731  ℓ'' < 0 for |p| > 4.08
    assert proof(concave_beyond, np.array([0.0, 1.0]), np.array([4.0, 1.0])) is None
    with pytest.raises(RequestError, match=r"y = 1 \(sample 101\)"):
        proof(concave_beyond, np.array([0.0, 1.0]), np.array([4.0, 4.2]))


def test_a_primitive_without_a_rule_is_named() -> None:
    reason = proof(lambda p, y: jax.lax.lgamma(p**2 + 10.0) + p * p, np.ones(1), np.ones(1))
    assert reason is not None
    assert "lgamma" in reason


UNDEFINED: dict[str, Function] = {
    "another value where log has none": lambda p, y: jnp.where(jnp.isnan(jnp.log(p)), p * p + 1.0, p * p),
    "another slope where log has none": lambda p, y: jnp.where(jnp.isnan(jnp.log(p)), p * p - p, p * p),
    "a jump where log ends": lambda p, y: jnp.where(jnp.isfinite(jnp.log(p)), p * p, p * p + 1.0),
    "a jump where exp overflows": lambda p, y: jnp.where(
        jnp.isfinite(jnp.exp(1e4 * p)), p * p, 1.9 * p * p - 1.0
    ),
    "a fall of the slope": lambda p, y: jnp.where(
        jnp.isfinite(jnp.log(p - 0.02)), 0.5 * (p - y) ** 2, 0.5 * (p - y) ** 2 + 0.3 * (p - 0.02)
    ),
    "no value, in a range": lambda p, y: p * p + jnp.tanh(jnp.log(p)),
    "no value, clipped": lambda p, y: p * p + jnp.clip(jnp.log(p), -1.0, -0.5),
    "no value, times 0": lambda p, y: p * p + 0.0 * jnp.log(p),
    "not a number of itself": lambda p, y: jnp.where(jnp.log(p) <= jnp.log(p), p * p, p * p + 1.0),
    "less than what is none": lambda p, y: jnp.where(jnp.log(p) <= 3.0, p * p, p * p + 1.0),
    "a power": lambda p, y: jnp.where(jnp.isnan(p**1.5), p * p + 1.0, p * p),
    "a branch": lambda p, y: jax.lax.cond(jnp.isnan(jnp.sqrt(p)), lambda: p * p + 1.0, lambda: p * p),
}


@pytest.mark.parametrize("name", UNDEFINED)
def test_where_a_function_has_no_value_nothing_is_proven(name: str) -> None:
    loss = CustomLoss(UNDEFINED[name], "mine")
    y, reach = np.array([1.0]), np.array([2.0])
    try:
        reason = prove_convex(loss, y, reach, np.zeros(1, dtype=np.intp))
    except RequestError as error:
        reason = str(error)
    assert reason is not None
    assert np.isinf(suprema(loss, reach, y)[0]).all()
    p = np.array([-0.5, 0.5, 1.5])
    value, first = loss.enclosed(p, np.zeros(3), np.ones(3), 1)
    truth = np.asarray(jax.vmap(loss.function)(p, np.ones(3)))
    known = np.isfinite(truth)
    assert np.isinf(value.error.upper[~known]).all()
    assert (np.abs(value.value - truth) <= value.error.upper)[known].all()
    assert np.isfinite(first.error.upper[2])


@pytest.mark.parametrize(
    ("function", "place"),
    [
        (lambda p, y: (p + 0.5) * jnp.log(p + 0.5), "p = -"),
        (lambda p, y: p * p - jnp.log(p + 0.3), "p = -0.3"),
    ],
)
def test_a_loss_without_a_value_is_not_called_bent(function: Function, place: str) -> None:
    with pytest.raises(RequestError, match=f"mine has no finite value at {place}"):
        proof(function, np.array([1.0]), np.array([2.0]))


BY_TARGET: dict[str, Function] = {
    "==": lambda p, y: jnp.where(y == 1.0, 5.0 * jax.nn.softplus(-p), jax.nn.softplus(p)),
    ">": lambda p, y: jnp.where(y > 0.0, 5.0 * jax.nn.softplus(-p), jax.nn.softplus(p)),
    ">=": lambda p, y: jnp.where(y >= 1.0, 5.0 * jax.nn.softplus(-p), jax.nn.softplus(p)),
    "sign": lambda p, y: jax.nn.softplus(-jnp.sign(y) * p),
    "abs": lambda p, y: (1.0 + jnp.abs(y)) * p * p,
    "max": lambda p, y: (p - jnp.maximum(y, 0.0)) ** 2,
    "xlogy": lambda p, y: jnp.exp(p) - y * p + jax.scipy.special.xlogy(y * y, y * y),
}


@pytest.mark.parametrize("name", BY_TARGET)
def test_a_branch_on_the_target_alone_joins_nothing(name: str) -> None:
    y = np.array([-1.0, 0.0, 1.0])
    assert proof(BY_TARGET[name], y, np.full(3, 3.0)) is None
    loss = CustomLoss(BY_TARGET[name], "mine")
    assert np.isfinite(suprema(loss, np.full(3, 3.0), y)).all()


@pytest.mark.parametrize(
    "function",
    [
        lambda p, y: 0.5 * jnp.sum((jnp.array([1.0, 2.0]) * (p - y)) ** 2),
        lambda p, y: 0.5 * jnp.sum(jnp.array([1.0, 2.0]) * (p - y) ** 2),
        lambda p, y: jnp.sum(jnp.logaddexp(jnp.array([0.0, -2.0]), p * y)),
        lambda p, y: jnp.linalg.norm(jnp.array([1.0, 0.0]) * (p - y) + jnp.array([0.0, 1.0])),
    ],
)
def test_a_number_meets_an_array(function: Function) -> None:
    assert proof(function, np.array([-1.0, 2.0]), np.array([3.0, 4.0])) is None


def test_a_derivative_rule_of_the_users_own_is_no_proof() -> None:
    @jax.custom_jvp
    def square(r: Any) -> Any:
        return r**2

    square.defjvp(lambda primals, tangents: (square(*primals), 2.0 * primals[0] * tangents[0]))
    reason = proof(lambda p, y: square(p - y), np.ones(1), np.ones(1))
    assert reason is not None
    assert "derivative rule of square" in reason


def test_what_a_stop_gradient_hides_is_not_taken_for_a_derivative() -> None:
    hidden = lambda p, y: jax.lax.stop_gradient(p) ** 2 * 0.1 + p * p  # noqa: E731
    reason = proof(hidden, np.ones(1), np.ones(1))
    assert reason is not None
    assert "stop_gradient" in reason
    concave = lambda p, y: p * p - jax.lax.stop_gradient(p) * 2.0 * p * y  # noqa: E731  p² − 2p²y, and 2p − 2py
    assert proof(concave, np.ones(1), np.ones(1)) is not None
    convex = lambda p, y: jax.lax.stop_gradient(p * p) * 2.0 - p * p  # noqa: E731  p², of derivative −2p for JAX
    assert proof(convex, np.ones(1), np.ones(1)) is not None


def third(name: str, p: float, y: float) -> arb:
    value = LOSSES[name].series(arb_series([arb(p), 1], prec=4), arb(y), p)
    coefficients = [*arb_series(value, prec=4).coeffs(), arb(0), arb(0), arb(0), arb(0)]
    return 6 * coefficients[3]


@pytest.mark.parametrize("name", first(2, SMOOTH[3:] + SMOOTH[:3]))
@pytest.mark.parametrize("count", first(1, [20, 300]))
def test_suprema_bound_the_derivatives_at_every_point(name: str, count: int) -> None:
    rng = np.random.default_rng(1)
    reach = np.abs(rng.normal(size=count)) * 10.0 ** rng.integers(-1, 2, count)
    y = rng.normal(size=count) if name != "poisson" else rng.poisson(2.0, count).astype(float)
    bounds = suprema(CustomLoss(LOSSES[name].function, "mine"), reach, y)
    with ctx.workprec(BITS):
        for i in range(0, count, max(1, count // 6)):
            for share in (-1.0, -0.6, 0.0, 0.2, 1.0):
                p = share * float(reach[i])
                _, first, second = truth(LOSSES[name], p, float(y[i]))
                for bound, exact in zip(bounds, (first, second, third(name, p, float(y[i]))), strict=True):
                    assert not abs(exact) > float(bound[i])


def test_suprema_are_near_what_is_reached() -> None:
    reach, y = np.array([0.5, 3.0, 50.0]), np.ones(3)
    first, second, third_one = suprema(CustomLoss(LOSSES["softplus"].function, "mine"), reach, y)
    np.testing.assert_allclose(first, 1.0 / (1.0 + np.exp(-reach)), rtol=0.15)
    np.testing.assert_allclose(second, 0.25, rtol=0.15)
    np.testing.assert_allclose(third_one[1:], 1.0 / (6.0 * 3.0**0.5), rtol=0.15)


@pytest.mark.parametrize(
    ("function", "reach"),
    [
        (lambda p, y: -jnp.log(0.5 * jax.scipy.special.erfc(-y * p / jnp.sqrt(2.0))), 4.0),
        (lambda p, y: jnp.sqrt(1.0 + ((p - y) / 0.3) ** 2), 300.0),
        (lambda p, y: p * jnp.arcsinh(p) - jnp.sqrt(1.0 + p * p), 30.0),
    ],
)
def test_suprema_of_formulas_that_intervals_widen_are_near_what_is_reached(
    function: Function, reach: float
) -> None:
    loss, grid = CustomLoss(function, "mine"), np.linspace(-reach, reach, 20_001)
    for bound, derivative in zip(
        suprema(loss, np.array([reach]), np.ones(1)), loss.derivative_functions[1:], strict=True
    ):
        reached = np.max(np.abs(jax.vmap(derivative, (0, None))(grid, 1.0)))
        assert reached <= bound[0] * (1.0 + 1e-12)
        assert bound[0] <= 1.2 * reached


def problem(function: Function, **changes: Any) -> Problem:
    rng = np.random.default_rng(2)
    return Problem(
        distribution=Distribution(rng.normal(size=(50, 2)), np.where(np.arange(50) % 3 == 0, 1.0, -1.0)),
        loss=CustomLoss(function, "mine", **changes),
        features=GivenFeatures(rng.normal(size=(50, 3))),
        point=Point(np.array([[0.3, -0.2]]), 0.1 * np.arange(6.0).reshape(2, 3)),
    )


def test_the_range_holds_every_prediction_of_the_domain() -> None:
    known = assumption1(problem(LOSSES["softplus"].function), b=0.8, r=3.0)
    assert known.status == "proven"
    assert known.reason is None
    seen = problem(LOSSES["softplus"].function)
    x, f = (np.linalg.norm(rows, axis=1) for rows in (seen.distribution.x, seen.features.f))
    assert known.range == pytest.approx(3.0 * np.max(x + 0.8 * f), rel=1e-9)
    wider = assumption1(seen, b=0.8, r=3.0, augmented=100.0)
    assert wider.range == pytest.approx(100.0 * np.max(np.hypot(x, f)), rel=1e-9)


def test_a_claim_is_told_from_a_proof_and_does_not_outweigh_a_counterexample() -> None:
    huber = LOSSES["huber"].function
    assert assumption1(problem(huber), 1.0, 1.0).status == "unknown"
    claimed = assumption1(problem(huber, convex=True), 1.0, 1.0)
    assert claimed.status == "claimed"
    assert claimed.reason is not None
    with pytest.raises(RequestError, match="not convex"):
        assumption1(problem(bump, convex=True), 1.0, 1.0)


def test_a_proof_is_of_a_range_and_a_claim_of_every_prediction() -> None:
    softplus = LOSSES["softplus"].function
    proven, about = with_assumption1(problem(softplus), 1.0, 1.0)
    assert about == Assumption1("proven", about.range, everywhere="unknown")
    assert (proven.loss.convex, proven.loss.convex_in_range) == (False, True)
    claimed, about = with_assumption1(problem(softplus, convex=True), 1.0, 1.0)
    assert about == Assumption1("proven", about.range, everywhere="claimed")
    assert (claimed.loss.convex, claimed.loss.convex_in_range) == (True, True)
    # What is proven on one domain is no claim of a larger one.
    wider = replace(proven, loss=CustomLoss(LOSSES["huber"].function, "mine").with_range(proven=True))
    assert assumption1(wider, 1.0, 1.0).status == "unknown"


def test_beyond_a_range_that_is_proven_pieces_may_meet() -> None:
    loss = CustomLoss(lambda p, y: jnp.where(p < 1.0, 0.5 * p * p, p - 0.5) + y, "mine")
    proven, y = loss.with_range(proven=True), np.zeros(1)
    inside, beyond = (suprema(proven, np.array([reach]), y) for reach in (0.5, 2.0))
    assert all(math.isfinite(bound[0]) for bound in inside)
    assert all(math.isinf(bound[0]) for bound in beyond)


def test_predictors_beyond_a_range_are_asked_for_anew() -> None:
    """log cosh p − log cosh(p − 9)/2 is convex around 0, and not around 9."""

    def loss(p: Any, y: Any) -> Any:
        return jnp.log(jnp.cosh(p - y)) - 0.5 * jnp.log(jnp.cosh(p - 9.0))

    for convex in (False, True):
        at = problem(loss, convex=convex)
        at, _ = with_assumption1(at, 0.5, 0.5)
        data = Data.of(at)
        assert data.is_convex_on(0.5)
        assert data.is_convex_on(math.inf) is convex
        if convex:
            with pytest.raises(RequestError, match="not convex"):
                data.is_convex_on(50.0)
        else:
            assert not data.is_convex_on(50.0)
        assert data.is_convex_on(0.25)


def test_the_builtin_losses_are_convex_by_their_formulas() -> None:
    rng = np.random.default_rng(2)
    seen = Problem.from_arrays(
        x=rng.normal(size=(5, 2)),
        y=rng.normal(size=5),
        f=rng.normal(size=(5, 1)),
        w=np.ones(2),
        V=np.ones((2, 1)),
    )
    assert assumption1(seen, 1.0, 1.0) == Assumption1("proven")


EVERYWHERE = {
    "log_cosh": True,
    "pseudo_huber": True,
    "quartic": True,
    "poisson": True,
    "exponential": True,
    "power_of_square": True,
    "huber": False,
    "squared_hinge": False,
    "softplus": False,  # it is, and ∞/∞ does not say so
}


@pytest.mark.parametrize("name", EVERYWHERE)
def test_formulas_that_show_their_sign_are_convex_for_every_prediction(name: str) -> None:
    at = problem(LOSSES[name].function)
    assert convex_everywhere(at) is EVERYWHERE[name]
    assert Data.of(at).is_convex_on(math.inf) is EVERYWHERE[name]
    known, about = with_assumption1(at, 1.0, 1.0)
    assert (about.everywhere == "proven") is known.loss.convex is EVERYWHERE[name]


@pytest.mark.parametrize(
    "beyond",
    [
        lambda p: -10.0 * jnp.logaddexp(0.0, p - 1e5),
        lambda p: -1e-3 * jnp.exp(-((p + 300.0) ** 2)),
        lambda p: -1e-3 * jnp.sin(p),
        lambda p: -(p**4) * 1e-12,
        lambda p: jnp.where(p > 1e6, -(p - 1e6), 0.0),
        lambda p: jnp.where(jnp.isfinite(jnp.exp(p)), 0.0, -p),
    ],
)
def test_what_bends_or_is_joined_far_away_is_not_convex_for_every_prediction(
    beyond: Callable[[Any], Any],
) -> None:
    assert not convex_everywhere(problem(lambda p, y: jnp.log(jnp.cosh(p - y)) + beyond(p)))
