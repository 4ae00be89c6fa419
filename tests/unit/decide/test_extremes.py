"""At any scale: every enclosure holds its number and no verdict is wrong, against rational numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from rational import Rational, extreme

from resnet_cert import Problem
from resnet_cert.decide.decision import Decision, decide, takes_second_moments
from resnet_cert.moments.gradient import first_moments
from resnet_cert.moments.one_pass import observe
from resnet_cert.outcomes import Verdict

CERTIFIED, REFUTED, UNDECIDED = Verdict.CERTIFIED, Verdict.REFUTED, Verdict.UNDECIDED
MOST = 1e300


def decided(problem: Problem, mu2: float, *, escalate: bool = True) -> Decision:
    def second():
        return observe(problem, 1.0).here

    here = second() if takes_second_moments(problem) else first_moments(problem)
    return decide(problem, here, mu2, second_moments=second, escalate=escalate)


def assert_right(seed: int) -> None:
    rng = np.random.default_rng([seed, 1])
    problem = extreme(seed)
    truth = Rational(problem)
    near = rng.choice([1.0, 1.0 + 1e-12, 1.0 - 1e-12, 2.0, 0.5, 10.0 ** rng.uniform(-5, 5)])
    eps = 0.0 if rng.random() < 0.1 else min(truth.norm * float(near), MOST)
    mu2 = 2.0 ** int(rng.integers(-600, 600)) if rng.random() < 0.7 else 1.0
    problem = replace(problem, epsilon=eps, hessian=str(rng.choice(["auto", "exact", "bound"])))
    stationary = truth.is_stationary(eps, mu2)
    for escalate in (False, True):
        found = decided(problem, mu2, escalate=escalate)
        assert truth.holds_norm(found.slope.norm), (seed, found.slope.norm)
        assert truth.holds_lambda_min(found.curvature.lambda_min), (seed, found.curvature.lambda_min)
        assert stationary is not False or found.verdict is not CERTIFIED, seed
        assert stationary is not True or found.verdict is not REFUTED, seed
        assert stationary is None or found.verdict is not UNDECIDED or not escalate, seed


@pytest.mark.parametrize("start", range(0, 60, 20))
def test_no_verdict_is_wrong_at_any_scale(start: int, longer: int) -> None:
    for seed in range(start, start + 5 * longer):
        assert_right(seed)


@pytest.mark.long
@pytest.mark.parametrize("start", range(1000, 101000, 1000))
def test_no_verdict_is_wrong_in_a_hundred_thousand(start: int) -> None:
    for seed in range(start, start + 1000):
        assert_right(seed)


def test_a_product_that_underflows_before_it_is_divided_counts() -> None:
    """λ_min = −8.93e-185 lies below −√(μ2 ε) = −7.6e-193."""
    tiny = 1e-72
    problem = Problem.from_arrays(
        x=[[0.0, 0.0], [-0.07 * tiny, -4.9 * tiny], [-0.11 * tiny, -5.5 * tiny]],
        y=[[2.4046804075921976e-91, 1.7519916796082106e-91], [0.0, 0.0], [0.0, 0.0]],
        f=[[9.322242277934567e-76, -8.22853516209071e-75], [0.0, 0.0], [0.0, 0.0]],
        W=[[0.0, 0.0], [0.0, 0.0]], V=[[0.0, 0.0], [0.0, 0.0]], epsilon=1e-236,
    )  # fmt: skip
    truth = Rational(problem)
    for escalate in (False, True):
        found = decided(problem, 5.8e-149, escalate=escalate)
        assert found.verdict is REFUTED
        assert truth.holds_lambda_min(found.curvature.lambda_min)
        width = found.curvature.lambda_min.upper - found.curvature.lambda_min.lower
        assert width <= 1e-6 * abs(found.curvature.lambda_min.value)


def test_a_square_that_is_subnormal_is_off_by_more_than_a_few_units() -> None:
    problem = Problem.from_arrays(
        x=[[0.0], [2.066916013855867e45]], y=[-4.381432945804857e-207, 3.26572730189227e-207],
        f=[[1e120], [0.0]], w=[1.58e-162], V=[[0.0]], loss={"kind": "squared", "scale": 1e24}, epsilon=1e-190,
    )  # fmt: skip
    truth = Rational(problem)
    assert truth.holds_lambda_min(decided(problem, 1.0, escalate=False).curvature.lambda_min)
    found = decided(problem, 1.0)  # the verdict needs no more, but float64 knows nothing of λ_min from above
    assert truth.holds_lambda_min(found.curvature.lambda_min)
    assert found.curvature.lambda_min.upper == pytest.approx(-1.708851459e-66, rel=1e-8)


def test_a_number_that_no_float_holds_is_told_from_one_that_is_not_known() -> None:
    """F = 5e599; ‖∇F‖ is the product of 5e-324·√2 and 1e300."""
    problem = Problem.from_arrays(
        x=[[5e-324, 5e-324]], y=[1e300], f=[[0.0]], w=[0.0, 0.0], V=[[0.0], [0.0]], epsilon=1.0
    )
    found = decided(problem, 1.0)
    assert found.F.lower == np.finfo(float).max
    assert found.slope.norm.value == pytest.approx(6.987143370513133e-24, rel=1e-9)
    assert found.slope.norm.upper <= 6.9872e-24


def test_a_slope_and_a_multiplier_that_float64_loses_are_found_in_balls() -> None:
    residual = Problem.from_arrays(
        x=[[-1.9832216626133422e-180]], y=[0.0], f=[[1.2283797216670256e130]],
        w=[1.0], V=[[1.6145021182228e-310]], epsilon=1e-100,
    )  # fmt: skip
    found = decided(residual, 1.0)
    assert found.verdict is REFUTED
    assert found.slope.norm.value == pytest.approx(2.475111748e-66, rel=1e-9)
    multiplier = Problem.from_arrays(
        x=[[1.622901694889702], [-1.0]], y=[1.7417869892607295e-150, 2.8267490566446875e-150],
        f=[[1e100], [0.0]], w=[1e-160], V=[[0.0]], norm=1e-160, epsilon=1e-208,
    )  # fmt: skip
    found = decided(multiplier, 1e-10)
    assert found.verdict is CERTIFIED
    assert found.slope.multiplier is not None
    assert found.slope.multiplier.value == pytest.approx(2.266e-6, rel=1e-3)
    assert found.curvature.lambda_min.value == pytest.approx(2.266e-6, rel=1e-3)
