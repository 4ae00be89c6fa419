"""The pictures of the paper, a regularised and a constrained hyperbola: every digit that is shown."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from resnet_cert import Enclosure, Problem, Verdict, check, load_problem
from resnet_cert.problem.problem import Point

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def shown(enclosure: Enclosure | None, digits: str) -> bool:
    """The enclosed number, rounded to as many decimals, reads like that."""
    assert enclosure is not None
    places = len(digits.split(".")[1])
    return f"{enclosure.lower:.{places}f}" == digits == f"{enclosure.upper:.{places}f}"


def test_the_saddle_of_the_first_picture() -> None:
    report = check(load_problem(CONFIGS / "figure-1a.yaml"))
    assert shown(report.objective.F, "1.00000000")
    assert shown(report.hessian.lambda_min, "-2.00000000")
    assert report.verdict is Verdict.REFUTED


@pytest.mark.parametrize(
    ("w", "v", "objective", "F", "verdict"),
    [
        (0.65962771058362520, 0.327712943338325966, "0.15105269", "0.01542657", Verdict.CERTIFIED),
        (-0.27251826753944008, -1.06944376907882471, "1.26700280", "0.96250875", Verdict.REFUTED),
        (-0.98280626270813788, -1.60268225251807576, "1.04982771", "0.16620307", Verdict.CERTIFIED),
    ],
)
def test_the_critical_points_of_the_second_picture(
    w: float, v: float, objective: str, F: str, verdict: Verdict
) -> None:
    problem = load_problem(CONFIGS / "figure-1b.yaml")
    report = check(replace(problem, point=Point(np.array([[w]]), np.array([[v]]))))
    assert report.verdict is verdict
    assert report.gradient.norm.upper < 1e-13
    assert report.regularized is not None
    assert shown(report.regularized.objective, objective)
    assert shown(report.objective.F, F)
    assert shown(report.regularized.objective_lin_min, "0.20000000")


def test_the_constrained_minimum_of_the_third_picture() -> None:
    problem = load_problem(CONFIGS / "figure-1c.yaml")
    assert f"{problem.W[0, 0]:.8f}, {problem.V[0, 0]:.8f}" == "-1.07560665, -1.68614066"
    report = check(problem)
    assert report.regularized is not None
    assert shown(report.objective.F, "0.06863485")
    assert shown(report.regularized.multiplier, "0.33424277")
    assert shown(report.regularized.objective_lin_min, "0.00000000")
    assert report.regularized.active


@pytest.mark.parametrize("name", ["figure-1b", "figure-1c"])
def test_what_holds_a_point_away_from_the_best_linear_predictor_accounts_for_the_gap(name: str) -> None:
    """gap = −ρ‖w‖² + ρ(w*w)(1 − v²/w²) − E[D] at w* = 1, where E[D] = (w* − p)² = F."""
    report = check(load_problem(CONFIGS / f"{name}.yaml"))
    assert report.regularized is not None
    assert report.regularized.proposition_R is not None
    difference = report.regularized.proposition_R - report.objective.F
    assert difference.value == pytest.approx(report.objective.gap.value, abs=1e-12)


def test_corollary_1_is_not_applied_to_a_certified_point_of_another_objective() -> None:
    """x = −3, f = 2, y = 3/2, l2 = ¼: (1, 2) is exactly critical for G, and F = 1/8 where F_lin vanishes."""
    report = check(Problem.from_arrays(x=[[-3.0]], y=[1.5], f=[[2.0]], w=[1.0], V=[[2.0]], l2=0.25))
    assert report.verdict is Verdict.CERTIFIED
    assert report.objective.gap.lower == pytest.approx(0.125)
    assert report.corollary1.verdict is Verdict.REFUTED


def test_ball_arithmetic_decides_a_tie_of_the_regularised_gradient() -> None:
    """At (0, 2) with l2 = 1, ∇G = (−h, 2·l2·V) = (−3, 4): its norm is 5 exactly."""
    tie = Problem.from_arrays(x=[[1.0]], y=[1.0], f=[[1.0]], w=[0.0], V=[[2.0]], l2=1.0, epsilon=5.0)
    assert check(tie, escalate=False).gradient.verdict is Verdict.UNDECIDED
    assert check(tie).verdict is Verdict.CERTIFIED
    assert check(replace(tie, epsilon=math.nextafter(5.0, 0.0))).verdict is Verdict.REFUTED
