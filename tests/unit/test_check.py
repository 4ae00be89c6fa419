"""The whole check as a function: the paper's example number by number, and what every report keeps to."""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import SCALAR, draw
from mpmath import mp, mpf
from selections import first
from threadpoolctl import threadpool_info, threadpool_limits

import resnet_cert
from resnet_cert import Enclosure, Report, RequestError, Verdict
from resnet_cert.check import bound_constants
from resnet_cert.decide import objective
from resnet_cert.moments.one_pass import Observed, observe
from resnet_cert.numerics.enclosure import Ball
from resnet_cert.numerics.jax64 import jnp
from resnet_cert.outcomes import InternalError
from resnet_cert.problem.custom_loss import CustomLoss
from resnet_cert.problem.problem import Direction, Problem
from resnet_cert.report import Style, text
from resnet_cert.results import Seconds, Source

check_module = importlib.import_module("resnet_cert.check")  # `resnet_cert.check` is the function
check = partial(check_module.check, break_even=False)  # the break-even radius has tests of its own
ROOT = Path(__file__).parents[2]
SHAPE = {"n": 8, "d1": 3, "k": 2, "q": 1, "d2": 0, "bias": False}
"""One shape, so that JAX compiles once a loss."""


def problem_of(seed: int, loss: str = "squared", **options: Any) -> Problem:
    return draw(seed, loss=loss, **SHAPE).problem(**options)


def is_exactly(ours: Enclosure | None, exact: float | Fraction, width: float = 1e-14) -> bool:
    assert ours is not None
    held = Fraction(ours.lower) <= Fraction(exact) <= Fraction(ours.upper)
    return held and ours.upper - ours.lower <= width


# --- Example 1 of the paper -------------------------------------------------------------------------------

EPS = 0.125
"""f_θ(x) = εx: F(w, v) = ½(w(1 + εv) − 1)² at (0, −1/ε)."""


def example1(**options: float) -> Problem:
    return Problem.from_arrays(x=[[1.0]], y=[1.0], f=[[EPS]], w=[0.0], V=[[-1.0 / EPS]], **options)


def test_example_1_has_its_known_numbers():
    report = check(example1(epsilon=1.0))
    assert (report.problem.n, report.problem.d, report.problem.k, report.problem.parameters) == (1, 1, 1, 2)
    assert (report.problem.norm_w, report.problem.norm_V) == (0.0, 8.0)
    assert is_exactly(report.objective.F, 0.5)
    assert is_exactly(report.objective.F_lin_min, 0)
    assert is_exactly(report.objective.gap, 0.5)
    assert report.objective.attained
    assert report.objective.norm_w_star == pytest.approx(1.0, rel=1e-15)
    for part in (report.gradient.norm, report.gradient.norm_w, report.gradient.norm_V):
        assert is_exactly(part, 0)
    assert is_exactly(report.hessian.lambda_min, -EPS)  # [[0, −ε], [−ε, 0]]
    assert report.hessian.zero_multiplicity == 0
    assert report.corollary1.verdict is Verdict.REFUTED
    for bound in (
        report.gap_bounds.linear_functional,
        report.gap_bounds.first_order,
        report.gap_bounds.local,
    ):
        assert is_exactly(bound, 1, 1e-13)  # w*·V·a = 1·(−8)·(−1/8)
    auto = report.crosscheck
    assert (auto.gradient_norm, auto.curvature_along_witness, auto.lambda_min) == pytest.approx(
        (0.0, -EPS, -EPS), abs=1e-15
    )


def test_example_1_has_the_constants_of_its_domain():
    constants = check(example1(epsilon=1.0)).constants
    b = 8.08
    J, reach = math.hypot(1.0 + b * EPS, b * EPS), b * (1.0 + b * EPS)
    assert constants.b == pytest.approx(b, rel=1e-14)
    assert constants.r == pytest.approx(1.01, rel=1e-14)
    assert constants.mu0 == pytest.approx((reach + 1.0) * J, rel=1e-10)
    assert constants.mu1 == pytest.approx(J**2 + (reach + 1.0) * EPS, rel=1e-10)
    assert constants.mu2 == pytest.approx(3.0 * J * EPS, rel=1e-10)
    assert set(constants.source.values()) == {"computed"}


def test_example_1_meets_the_theorems_as_it_must():
    report = check(example1(epsilon=1.0))
    assert not report.theorem1.applies
    assert report.theorem1.reason == "w = 0: Theorem 2 speaks of this point"
    assert is_exactly(report.theorem2.gradient_norm, 0)
    assert is_exactly(report.theorem2.lambda_min, -EPS)
    assert is_exactly(report.theorem2.left, 1)  # ‖V‖√(0 + λ²) = 8·1/8
    assert is_exactly(report.theorem2.right, 0.5, 1e-13)
    assert report.theorem2.holds
    assert report.verdict is Verdict.CERTIFIED
    assert report.theorem3.applies
    assert report.theorem3.holds
    assert report.theorem3.bound is not None
    assert report.theorem3.bound.lower >= 0.5


def test_example_1_is_stationary_from_its_smallest_epsilon_on():
    smallest = check(example1(epsilon=1.0)).smallest_epsilon
    b = Fraction(check(example1(epsilon=1.0)).constants.b)
    with mp.workdps(30):
        h, bf = 1 + mpf(b.numerator) / b.denominator * EPS, mpf(b.numerator) / b.denominator * EPS
        exact = EPS**2 / (3 * mp.sqrt(h**2 + bf**2) * EPS)
        assert abs(smallest.value - exact) <= 1e-10 * exact
    assert smallest.upper / smallest.lower <= 1 + 1e-12
    above, below = (
        check(example1(epsilon=smallest.upper)),
        check(example1(epsilon=smallest.lower * (1 - 1e-12))),
    )
    assert above.verdict is Verdict.CERTIFIED
    assert below.verdict is Verdict.REFUTED
    assert below.gradient.verdict is Verdict.CERTIFIED
    assert below.hessian.verdict is Verdict.REFUTED
    assert not below.theorem3.applies
    assert below.theorem3.reason is not None


def test_a_tie_in_example_1_is_certified():
    # √(μ2 ε) = √(1/64) = 1/8 = −λ_min, and the gradient is 0.
    assert check(example1(epsilon=1.0 / 64.0, mu2=1.0)).verdict is Verdict.CERTIFIED
    assert check(example1(epsilon=math.nextafter(1.0 / 64.0, 0.0), mu2=1.0)).verdict is Verdict.REFUTED


# --- The report -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("w_is_zero", [True, False])
@pytest.mark.parametrize("loss", SCALAR)
def test_the_parts_of_a_report_agree_with_each_other(loss, w_is_zero):
    problem = problem_of(1, loss, epsilon=0.3)
    if w_is_zero:
        problem = replace(problem, point=replace(problem.point, W=np.zeros((1, 3))))
    source = Source("there.yaml", "00")
    report = check(problem, spec=source)
    assert (report.name, report.spec, report.epsilon) == (problem.name, source, 0.3)
    assert (report.problem.n, report.problem.d, report.problem.k, report.problem.parameters) == (8, 3, 2, 9)
    assert report.problem.loss == loss
    assert report.problem.norm_w == pytest.approx(np.linalg.norm(problem.W), rel=1e-14)
    assert report.problem.norm_V == pytest.approx(np.linalg.norm(problem.point.V, 2), rel=1e-12)
    assert report.versions["resnet_cert"] == resnet_cert.__version__
    assert report.versions["numpy"] == np.__version__

    norm_w, norm_V = report.gradient.norm_w.value, report.gradient.norm_V.value
    assert report.gradient.norm.value == pytest.approx(math.hypot(norm_w, norm_V), rel=1e-12)
    assert (norm_V == 0.0) is w_is_zero
    assert report.hessian.method == "reduced"
    assert report.hessian.zero_multiplicity == (3 if w_is_zero else 2)
    assert report.hessian.threshold.value == pytest.approx(math.sqrt(report.constants.mu2 * 0.3), rel=1e-12)
    assert report.theorem1.applies is not w_is_zero
    assert (report.theorem1.lower_bound is None) is w_is_zero
    assert (report.theorem1.reason is None) is not w_is_zero
    if w_is_zero:
        assert report.theorem2.gradient_norm.value == pytest.approx(report.gradient.norm.value, rel=1e-14)
        assert report.theorem2.lambda_min == report.hessian.lambda_min
    gap = report.objective.F - report.objective.F_lin_min
    assert report.objective.gap.value == pytest.approx(gap.value, abs=1e-15)
    auto = report.crosscheck
    assert auto.gradient_norm == pytest.approx(report.gradient.norm.value, rel=1e-10)
    assert auto.lambda_min == pytest.approx(report.hessian.lambda_min.value, abs=1e-10)
    assert auto.curvature_along_witness == pytest.approx(auto.lambda_min, abs=1e-10)
    assert 0.0 < report.seconds.total < 600.0


def test_the_smallest_epsilon_is_the_larger_of_the_two_conditions():
    for seed in range(3):
        report = check(problem_of(seed, epsilon=0.1))
        m = max(0.0, -report.hessian.lambda_min.value)
        expected = max(report.gradient.norm.value, m**2 / report.constants.mu2)
        assert report.smallest_epsilon.value == pytest.approx(expected, rel=1e-12)
        for epsilon, verdict in (
            (report.smallest_epsilon.upper * (1 + 1e-9), Verdict.CERTIFIED),
            (report.smallest_epsilon.lower * (1 - 1e-9), Verdict.REFUTED),
        ):
            assert check(problem_of(seed, epsilon=epsilon)).verdict is verdict


@pytest.mark.parametrize("loss", first(2, SCALAR))
def test_reasons_are_given_for_every_verdict(loss, longer):
    for seed in range(longer):
        smallest = check(problem_of(seed, loss, epsilon=1.0)).smallest_epsilon
        for epsilon in (0.0, smallest.value * 0.5, smallest.value, smallest.value * 2.0):
            for escalate in (True, False)[: longer + (loss == "squared")]:
                report = check(problem_of(seed, loss, epsilon=epsilon), escalate=escalate)
                assert report.reasons
                assert all(reason and reason == reason.strip() for reason in report.reasons)
                if report.verdict is Verdict.UNDECIDED:
                    assert any("not separated" in reason for reason in report.reasons)


def test_a_verdict_is_that_of_both_conditions():
    seen = set()
    for seed in range(3):
        for epsilon in (0.0, 0.3, 30.0):
            report = check(problem_of(seed, epsilon=epsilon))
            seen.add(report.verdict)
            assert report.verdict is Verdict.all_of([report.gradient.verdict, report.hessian.verdict])
    assert seen == {Verdict.CERTIFIED, Verdict.REFUTED}


# --- Claims and domain ------------------------------------------------------------------------------------


def test_a_claimed_mu2_is_taken_and_named_as_given():
    plain = check(problem_of(2, epsilon=0.3))
    claimed = check(problem_of(2, epsilon=0.3, mu2=1e-3))
    assert claimed.constants.mu2 == 1e-3
    assert claimed.constants.source == {**plain.constants.source, "mu2": "given"}
    assert (claimed.constants.mu0, claimed.constants.mu1) == (plain.constants.mu0, plain.constants.mu1)
    assert is_exactly(claimed.hessian.threshold.square(), Fraction(1e-3) * Fraction(0.3))
    assert claimed.hessian.lambda_min.value == plain.hessian.lambda_min.value
    assert claimed.smallest_epsilon.value > plain.smallest_epsilon.value


def test_a_larger_mu2_never_refutes_what_a_smaller_one_certifies():
    order = {Verdict.REFUTED: 0, Verdict.UNDECIDED: 1, Verdict.CERTIFIED: 2}
    for seed in range(4):
        verdicts = [
            check(problem_of(seed, epsilon=0.5, mu2=mu2)).hessian.verdict
            for mu2 in (0.0, 1e-3, 0.1, 1.0, 1e3)
        ]
        assert [order[verdict] for verdict in verdicts] == sorted(order[verdict] for verdict in verdicts)


def test_with_mu2_zero_a_negative_lambda_min_is_never_stationary():
    report = check(problem_of(2, epsilon=1e3, mu2=0.0))
    assert report.hessian.lambda_min.upper < 0.0
    assert report.hessian.threshold == Enclosure.exact(0.0)
    assert report.verdict is Verdict.REFUTED
    assert report.smallest_epsilon is None


def test_a_given_domain_is_taken_and_named_as_given():
    report = check(problem_of(3, epsilon=0.3, b=50.0, r=0.25))
    assert (report.constants.b, report.constants.r) == (50.0, 0.25)
    assert (report.constants.source["b"], report.constants.source["r"]) == ("given", "given")
    assert report.objective.norm_w_star <= 0.25
    smaller = check(problem_of(3, epsilon=0.3))
    assert smaller.constants.b < 50.0
    assert smaller.constants.mu2 < report.constants.mu2
    assert smaller.objective.F_lin_min.upper < report.objective.F_lin_min.lower  # r is larger there
    assert smaller.gradient == report.gradient


def test_the_automatic_domain_is_a_little_larger_than_the_point():
    problem = problem_of(4, epsilon=0.3)
    for w_scale, V_scale in ((1.0, 1e-3), (1e-3, 1.0), (0.0, 0.0)):
        point = replace(problem.point, W=problem.point.W * w_scale, V=problem.point.V * V_scale)
        norms = np.linalg.norm(point.W), np.linalg.norm(point.V, 2)
        constants = check(replace(problem, point=point)).constants
        assert constants.b == pytest.approx(1.01 * max(norms) or 1.0, rel=1e-10)
        assert constants.b > max(norms)


def test_bound_constants_are_those_of_the_report():
    problem = problem_of(5, epsilon=0.3)
    constants, F_lin_min = bound_constants(problem)
    report = check(problem)
    for name in ("b", "r", "mu0", "mu1", "mu2"):
        assert getattr(constants, name) == getattr(report.constants, name)
    assert constants.d == 3
    assert F_lin_min == report.objective.F_lin_min


# --- The theorems -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", first(2, SCALAR))
def test_what_the_theorems_state_is_seen_on_random_problems(loss, longer):
    for seed in range(2 * longer):
        problem = problem_of(100 + seed, loss)
        if seed % 3 == 0:
            problem = replace(problem, point=replace(problem.point, W=np.zeros((1, 3))))
        epsilon = check(problem, escalate=False).smallest_epsilon.upper * 1.001
        report = check(replace(problem, epsilon=epsilon))
        gap, norm = report.objective.gap, report.gradient.norm
        assert report.theorem2.holds
        if report.theorem1.applies:
            assert report.theorem1.holds
            assert report.theorem1.lower_bound.lower <= norm.upper
            assert report.theorem1.lower_bound_refined.lower <= norm.upper
            assert gap.lower < 0.0 or (
                report.theorem1.lower_bound.lower <= report.theorem1.lower_bound_refined.upper
            )
        assert report.verdict is Verdict.CERTIFIED
        assert report.theorem3.applies
        assert report.theorem3.holds
        assert gap.lower <= report.theorem3.bound.upper
        assert report.objective.F.lower <= report.theorem3.F_upper.upper
        bounds = report.gap_bounds
        assert gap.lower <= bounds.linear_functional.upper
        assert bounds.linear_functional.lower <= bounds.first_order.upper
        assert bounds.first_order.lower <= bounds.local.upper


def test_a_0_sopsp_is_no_worse_than_any_linear_predictor():
    # w*ᵀ(x + V f) interpolates: a global minimum, proven by rational arithmetic.
    x, f = np.array([[1.0], [2.0], [3.0]]), np.array([[1.0], [-1.0], [2.0]])
    problem = Problem.from_arrays(x=x, f=f, y=2.0 * (x + 3.0 * f)[:, 0], w=[2.0], V=[[3.0]], epsilon=0.0)
    # The best linear predictor itself, with E[ℓ'f] = 0: the gap is 0.
    tie = Problem.from_arrays(
        x=[[1.0], [1.0]], y=[1.0, 3.0], f=[[1.0], [1.0]], w=[2.0], V=[[0.0]], epsilon=0.0
    )
    for report in (check(problem), check(tie)):
        assert report.verdict is Verdict.CERTIFIED
        assert report.corollary1.verdict is Verdict.CERTIFIED
        assert report.objective.gap.upper <= 0.0


# --- What ends it -----------------------------------------------------------------------------------------


def _moved(part: str) -> Callable[[Problem, float], Observed]:
    def falsified(problem: Problem, b: float) -> Observed:
        seen = observe(problem, b)
        ball = getattr(seen.here, part)
        moved = Ball(ball.center + 1e-6 * np.ones_like(ball.center), ball.radius)
        return replace(seen, here=replace(seen.here, **{part: moved}))

    return falsified


@pytest.mark.parametrize("part", ["g_W", "A_f", "Q"])
def test_a_moment_that_autodiff_contradicts_is_an_internal_error(part, monkeypatch):
    monkeypatch.setattr(check_module, "observed", _moved(part))
    with pytest.raises(InternalError, match=r"autodiff gives the .*, outside \["):
        check(problem_of(6, epsilon=0.3))


@pytest.mark.parametrize("part", ["gradient", "product"])
def test_an_autodiff_that_contradicts_the_moments_is_an_internal_error(part, monkeypatch):
    autodiff = objective.Objective.along

    def falsified(self: objective.Objective, direction: Direction) -> objective.Autodiff:
        auto = autodiff(self, direction)
        moved = getattr(auto, part)
        return replace(auto, **{part: Direction(moved.dW * (1.0 + 1e-6), moved.dV * (1.0 + 1e-6))})

    monkeypatch.setattr(objective.Objective, "along", falsified)
    with pytest.raises(InternalError, match="autodiff gives the"):
        check(problem_of(6, epsilon=0.3))


def test_a_loss_that_is_not_convex_is_refused():
    with pytest.raises(RequestError, match="convex"):
        check(replace(problem_of(7, epsilon=0.3), loss=CustomLoss(lambda p, y: -((p - y) ** 2), "mine")))


def test_nothing_that_rests_on_convexity_is_said_of_a_loss_with_a_kink():
    report = check(replace(problem_of(7, epsilon=0.3), loss=CustomLoss(lambda p, y: abs(p - y), "mine")))
    assert report.problem.assumption1.status == "unknown"
    assert report.problem.assumption1.reason
    assert report.objective.F_lin_min.lower == -math.inf
    assert report.objective.gap.upper == math.inf
    for theorem in (report.theorem1, report.theorem2, report.theorem3):
        assert theorem.holds is None
        assert theorem.reason


@pytest.mark.parametrize("w", [3.0, 0.85])
def test_assumption_1_is_asked_for_at_the_point_and_at_w_zero(w):
    # log(1 + (p − y)²) is convex for |p − y| ≤ 1 only: not at p = 3, nor at p = 0 for the second sample.
    loss = CustomLoss(lambda p, y: jnp.log1p((p - y) ** 2), "cauchy")
    second = 0.9 if w == 3.0 else 1.2
    data = {"x": [[1.0], [1.0]], "y": [0.5, second], "f": [[1.0], [1.0]]}
    with pytest.raises(RequestError, match="convex"):
        check(Problem.from_arrays(**data, w=[w], V=[[0.0]], loss=loss))


def test_a_loss_that_meets_assumption_1_is_checked():
    loss = CustomLoss(lambda p, y: 0.5 * (p - y) ** 2, "mine")
    mine = check(replace(problem_of(7, epsilon=0.3, mu2=1.0), loss=loss))
    builtin = check(problem_of(7, epsilon=0.3, mu2=1.0))
    assert mine.verdict is builtin.verdict
    assert mine.objective.F.value == pytest.approx(builtin.objective.F.value, rel=1e-12)
    assert mine.hessian.lambda_min.value == pytest.approx(builtin.hessian.lambda_min.value, rel=1e-10)
    assert mine.constants.source == builtin.constants.source
    for name in ("mu0", "mu1"):
        assert getattr(mine.constants, name) == pytest.approx(getattr(builtin.constants, name), rel=1e-6)


# --- Again, and on other machines -------------------------------------------------------------------------


def unequal(one: Any, other: Any, at: str = "report") -> list[str]:
    """The fields at which two reports differ, bit by bit; NaN equals NaN."""
    if is_dataclass(one):
        return [
            path
            for field in fields(one)
            if field.compare
            for path in unequal(getattr(one, field.name), getattr(other, field.name), f"{at}.{field.name}")
        ]
    both_nan = isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other)
    return [] if both_nan or one == other else [at]


def without_time(report: Report) -> Report:
    return replace(report, seconds=Seconds(0.0))


@pytest.mark.parametrize("loss", first(2, SCALAR))
def test_a_check_repeated_gives_the_same_report(loss):
    problem = problem_of(8, loss, epsilon=0.2)
    assert unequal(without_time(check(problem)), without_time(check(problem))) == []


THREADS = """
import json
import numpy as np
from families import draw
from resnet_cert import check
head = draw(0, loss="squared", n=1100, d1=32, k=32, q=1, d2=0, bias=False)
found = []
for epsilon in (1e-3, 1e6):
    report = check(head.problem(epsilon=epsilon, mu2=1.0), escalate=False)
    numbers = (report.objective.F, report.gradient.norm, report.hessian.lambda_min)
    found.append([report.verdict.value, [[x.lower, x.upper] for x in numbers]])
print(json.dumps(found))
"""


def test_one_and_eight_threads_give_the_same_verdicts(capsys: pytest.CaptureFixture[str]):
    with threadpool_limits(1):
        exec(THREADS, {})
    one = json.loads(capsys.readouterr().out)
    with threadpool_limits(8, user_api="blas"):
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {8}
        exec(THREADS, {})
    eight = capsys.readouterr().out
    assert {verdict for verdict, _ in one} == {"REFUTED", "CERTIFIED"}
    for (verdict, numbers), (its_verdict, its_numbers) in zip(one, json.loads(eight), strict=True):
        assert verdict == its_verdict
        for (lower, upper), (its_lower, its_upper) in zip(numbers, its_numbers, strict=True):
            assert max(lower, its_lower) <= min(upper, its_upper)


MEMORY = """
import sys
from pathlib import Path
import numpy as np
from resnet_cert import check
from resnet_cert.problem.problem import Distribution, GivenFeatures, MappedRows, Point, Problem
from resnet_cert.problem.losses import named_loss
folder, n = Path(sys.argv[1]), int(sys.argv[2])
x, y, f = (MappedRows(folder / name, np.dtype(float), shape, 0)
           for name, shape in (("x", (n, 1)), ("y", (n,)), ("f", (n, 1))))
point = Point(np.array([[0.5]]), np.array([[-0.5]]))
problem = Problem(Distribution(x, y), named_loss("squared"), GivenFeatures(f), point, 1.0)
assert check(problem).objective.F.known
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
def test_four_million_rows_take_no_more_memory_than_one_million(tmp_path):
    rng, rows = np.random.default_rng(9), 4_000_000
    for name in "xyf":
        rng.normal(size=rows).tofile(tmp_path / name)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    peaks = [
        int(subprocess.check_output([sys.executable, "-c", MEMORY, str(tmp_path), str(n)], env=environment))
        for n in (1_000_000, rows)
    ]
    assert peaks[1] <= 1.1 * peaks[0]  # kilobytes; the data alone grow by 72 MB
    assert peaks[1] <= 800_000


# --- Extreme, finite data ---------------------------------------------------------------------------------

EXTREMES: dict[str, dict[str, Any]] = {
    "V of 1e308": {"x": [[1.0]], "y": [1.0], "f": [[1.0]], "w": [0.5], "V": [[1.2e308]]},
    "w of 1e308": {"x": [[1.0]], "y": [1.0], "f": [[1.0]], "w": [1.7e308], "V": [[0.5]]},
    "a gradient whose square underflows": {
        "x": [[1e-200], [-5e-201]],
        "y": [1.0, -1.0],
        "f": [[5e-156], [-1e-155]],
        "w": [3e-156],
        "V": [[7e-156]],
        "loss": "logistic",
    },
    "subnormal features beside inputs of 1e308": {
        "x": [[1.7e308], [-8.5e307]],
        "y": [1e-155, 5e-156],
        "f": [[5e-321], [-1e-320]],
        "w": [0.3],
        "V": [[7e-201]],
        "epsilon": 1e155,
        "mu2": 1e200,
    },
    "subnormal features, which XLA takes for 0, beside targets of 1e300": {
        "x": [[1e-160]],
        "y": [1e300],
        "f": [[3e-311]],
        "w": [1e8],
        "V": [[0.5]],
        "epsilon": 1.0,
        "loss": "poisson",
    },
    "a subnormal w beside inputs of 1e300": {
        "x": [[6e299], [5e299]],
        "y": [1.0, -1.0],
        "f": [[1.0], [1.0]],
        "w": [-5e-310],
        "V": [[6e-301]],
        "epsilon": 1e300,
        "loss": "logistic",
    },
    "a ball whose squared radius underflows": {
        "x": [[1.0]],
        "y": [3e-200],
        "f": [[0.0]],
        "w": [1e-200],
        "V": [[0.0]],
        "norm": 1e-200,
    },
    "blocks of the Hessian 1e600 apart": {
        "x": [[1e-320], [-5e-321]],
        "y": [1.0, -1.0],
        "f": [[5e-101], [-1e-100]],
        "w": [2.9999999999999997e199],
        "V": [[7e-101]],
        "epsilon": 1.0,
        "loss": "logistic",
    },
}


@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_finite_data_end_in_a_report(name: str) -> None:
    assert check(Problem.from_arrays(**EXTREMES[name]), escalate=False).reasons


def test_the_break_even_radius_is_there_for_squared_loss_and_where_it_takes_a_moment(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(check_module, "BREAK_EVEN_WORK", 0)
    monkeypatch.setattr(check_module, "BLOCK_WORK", 0)
    for loss, there in (("squared", True), ("logistic", False)):
        report = check_module.check(problem_of(0, loss))
        found = report.objective
        assert (found.break_even_radius is not None, found.block_gap) == (there, None)
        assert not there or "--break-even computes" in text.check([report], Style())
    asked = check_module.check(problem_of(0, "logistic"), break_even=True).objective
    assert asked.break_even_radius is not None
    assert asked.block_gap is not None
