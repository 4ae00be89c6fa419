"""Ball arithmetic and rational numbers decide what float64 cannot, and never otherwise than the truth."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np
import pytest

from resnet_cert import Problem, check
from resnet_cert.decide.ball import elementary
from resnet_cert.outcomes import Verdict
from resnet_cert.problem.losses import LOSSES

CERTIFIED, REFUTED, UNDECIDED = Verdict.CERTIFIED, Verdict.REFUTED, Verdict.UNDECIDED


def example_1(w: float, v: float, *, slope: float = 0.125, epsilon: float = 0.0, **named: float) -> Problem:
    """Example 1 of the paper: x = y = 1, f = slope·x, squared loss: F = ½(w(1 + slope·v) − 1)²."""
    return Problem.from_arrays(x=[[1.0]], y=[1.0], f=[[slope]], w=[w], V=[[v]], epsilon=epsilon, **named)


@pytest.mark.parametrize(("w", "v"), [(0.5, 8.0), (1.0, 0.0), (0.25, 24.0), (-1.0, -16.0)])
@pytest.mark.parametrize("arithmetic", ["float64", "ball"])
def test_a_global_minimum_in_rational_numbers_is_a_0_sopsp(w: float, v: float, arithmetic: str):
    report = check(example_1(w, v), arithmetic=arithmetic)
    assert report.verdict is CERTIFIED
    assert report.gradient.norm.lower == report.gradient.norm.upper == 0.0
    assert report.hessian.lambda_min.lower == 0.0
    assert report.objective.gap.upper == 0.0
    assert report.corollary1.verdict is CERTIFIED
    assert any("rational" in reason for reason in report.reasons)


def test_without_escalation_an_exact_zero_stays_undecided():
    assert check(example_1(0.5, 8.0), escalate=False).verdict is UNDECIDED


def test_the_saddle_of_example_1_is_no_0_sopsp():
    report = check(example_1(0.0, -8.0), arithmetic="ball")
    assert (report.verdict, report.gradient.verdict, report.hessian.verdict) == (REFUTED, CERTIFIED, REFUTED)


@pytest.mark.parametrize("relative", [1e-14, 1e-15])
def test_margins_below_float64_are_decided_on_both_sides(relative: float):
    """At (0, −8), λ_min = −1/8 exactly: ε = 1/64 with μ2 = 1 is the tie."""
    assert (
        check(example_1(0.0, -8.0, epsilon=2.0**-6 * (1.0 + relative), mu2=1.0, b=9.0)).verdict is CERTIFIED
    )
    assert check(example_1(0.0, -8.0, epsilon=2.0**-6 * (1.0 - relative), mu2=1.0, b=9.0)).verdict is REFUTED


def test_an_exact_tie_of_the_curvature_is_certified():
    report = check(example_1(0.0, -8.0, epsilon=2.0**-6, mu2=1.0, b=9.0))
    assert report.verdict is CERTIFIED


def test_an_exact_tie_of_the_gradient_is_certified():
    """At (1, 4): p = 3/2, gradient (½·(3/2), ½·(1/8)) = (3/4, 1/16)."""
    norm = Fraction(9, 16) + Fraction(1, 256)
    below, above = math.nextafter(math.sqrt(norm), 0.0), math.nextafter(math.sqrt(norm), 1.0)
    assert Fraction(below) ** 2 < norm < Fraction(above) ** 2
    assert check(example_1(1.0, 4.0, epsilon=below, mu2=100.0)).gradient.verdict is REFUTED
    assert check(example_1(1.0, 4.0, epsilon=above, mu2=100.0)).gradient.verdict is CERTIFIED


@pytest.mark.parametrize("side", [-1, 1])
def test_one_ulp_from_an_irrational_curvature(side: int):
    """At (0, v), two samples: λ_min = (β − √(β² + 4‖a‖²))/2 is irrational; ε is put one float beside it."""
    x, y, f, v = [[1.0], [2.0]], [1.0, 0.5], [[0.5], [-0.25]], [[0.75]]
    with mpmath.workdps(60):
        h = [1 + mpmath.mpf("0.375"), 2 - mpmath.mpf("0.1875")]
        beta = (h[0] ** 2 + h[1] ** 2) / 2
        a = (-mpmath.mpf(1) * 0.5 + mpmath.mpf("0.5") * 0.25) / 2
        lambda_min = (beta - mpmath.sqrt(beta**2 + 4 * a**2)) / 2
        tie = float(lambda_min**2)
        if mpmath.mpf(tie) < lambda_min**2:
            low, high = tie, math.nextafter(tie, 1.0)
        else:
            low, high = math.nextafter(tie, 0.0), tie
    # The gradient is not small: only the verdict on the curvature is looked at.
    problem = Problem.from_arrays(
        x=x, y=y, f=f, w=[0.0], V=v, epsilon=high if side > 0 else low, mu2=1.0, b=2.0
    )
    assert check(problem, arithmetic="ball").hessian.verdict is (CERTIFIED if side > 0 else REFUTED)


@pytest.mark.parametrize("loss", LOSSES)
def test_both_arithmetics_agree_where_float64_decides(loss: str):
    random = np.random.default_rng(3)
    n, d, k = 40, 3, 2
    y = random.choice([-1.0, 1.0], n) if loss == "logistic" else random.uniform(0.0, 2.0, n)
    problem = Problem.from_arrays(
        x=random.normal(size=(n, d)), y=y, f=random.normal(size=(n, k)),
        w=random.normal(size=d), V=random.normal(size=(d, k)), loss=loss, epsilon=0.1,
    )  # fmt: skip
    plain, fine = check(problem), check(problem, arithmetic="ball")
    assert plain.verdict is fine.verdict
    for name in ("objective.F", "objective.F_lin_min", "gradient.norm", "hessian.lambda_min"):
        section, field = name.split(".")
        one, other = (getattr(getattr(report, section), field) for report in (plain, fine))
        assert max(one.lower, other.lower) <= min(one.upper, other.upper), name
    assert fine.gradient.norm.upper - fine.gradient.norm.lower <= 2.0**-52 * fine.gradient.norm.upper
    assert fine.versions.keys() - plain.versions.keys() == {"python_flint"}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(elementary())])
def test_elementary_functions_in_balls_are_within_one_ulp(name: str):
    random = np.random.default_rng(1)
    x = np.concatenate([random.normal(size=50) * 10.0 ** random.uniform(-12, 2, 50), [0.0, 1e-300, 0.5]])
    x = np.abs(x) if name == "log1p" else x
    truth = {
        "exp": mpmath.exp,
        "expm1": mpmath.expm1,
        "log1p": mpmath.log1p,
        "hypot1": lambda r: mpmath.hypot(1, r),
    }[name]
    with mpmath.workdps(50):
        for given, got in zip(x.tolist(), getattr(elementary(), name)(x).tolist(), strict=True):
            exact = truth(mpmath.mpf(given))
            assert abs(mpmath.mpf(got) - exact) <= math.ulp(got)


def test_a_custom_loss_is_refused(tmp_path: Path):
    from resnet_cert.outcomes import RequestError
    from resnet_cert.problem.custom_loss import CustomLoss

    problem = dataclasses.replace(example_1(0.5, 8.0), loss=CustomLoss(lambda p, y: (p - y) ** 2, "mine"))
    with pytest.raises(RequestError, match="built-in"):
        check(problem, arithmetic="ball")
