"""What the theorems say at a point: check values, softmax as two-class logistic, bounds that must hold."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from selections import first

from resnet_cert import Problem, Verdict, check
from resnet_cert.compare.augmented import best_augmented, block_gap
from resnet_cert.compare.consequences import at_least
from resnet_cert.compare.minimum_on_ball import best_linear_predictor
from resnet_cert.compare.star import seen_from
from resnet_cert.moments.one_pass import observe
from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.results import Report

Array = np.ndarray


def overlap(a: Enclosure | None, b: Enclosure | None) -> bool:
    assert a is not None
    assert b is not None
    slack = 1e-9 * max(abs(a.value), abs(b.value), 1e-9)
    return a.lower - slack <= b.upper and b.lower - slack <= a.upper


def scaled(x: Enclosure | None, factor: float) -> Enclosure | None:
    return None if x is None else x * factor


def decayed_softmax() -> Problem:
    """A head as weight decay leaves it: the rows of W sum to 0."""
    f = [[0.75, 2], [0, 1.75], [1.75, -1.875], [1.125, 1.125], [0.875, -1.375], [-0.5, -0.875],
         [1.75, 0.375], [0.75, 1.125], [0.75, -1.375], [-1.625, 1.75]]  # fmt: skip
    x = [[0.625, 1.875, 1.375], [1.125, 0.875, -1.5], [-1, 1.375, -0.625], [1.5, -1.375, -0.625],
         [2, 0, 1.375], [0.375, -1.75, -0.625], [0, 0.5, 2], [1, -0.625, 1.5],
         [-0.375, -0.625, -1.875], [-0.25, -1.125, 0.375]]  # fmt: skip
    y = [[0.3125, 0.3125, 0.375], [0.625, 0.078125, 0.296875], [0.4375, 0.21875, 0.34375],
         [0.375, 0.3125, 0.3125], [0.53125, 0.21875, 0.25], [0.453125, 0.1875, 0.359375],
         [0.171875, 0.265625, 0.5625], [0.375, 0.328125, 0.296875], [0.53125, 0.140625, 0.328125],
         [0.25, 0.578125, 0.171875]]  # fmt: skip
    W = [[0.375, -0.28125, -0.0625], [-0.34375, 0.09375, 0.375], [-0.03125, 0.1875, -0.3125]]
    V = [[0.0625, -0.15625], [-0.375, 0.34375], [-0.34375, 0.40625]]
    return Problem.from_arrays(
        x=x, y=y, f=f, W=W, V=V, loss="softmax", b=3.0, r=0.61, epsilon=0.71, mu0=1.0, mu1=4.0, mu2=100.0
    )


def test_the_head_that_weight_decay_leaves():
    report = check(decayed_softmax())
    star = seen_from(decayed_softmax(), best_linear_predictor(decayed_softmax(), 0.61, 3.0))
    root = math.hypot(star.distance.value, star.norm_X.value)
    assert report.objective.gap.value == pytest.approx(0.0956286753, abs=1e-10)
    assert root == pytest.approx(0.7290142698, abs=1e-9)
    assert report.theorem1.applies
    assert report.theorem1.lower_bound_refined is not None
    assert report.theorem1.lower_bound_refined.value == pytest.approx(0.1311753134, abs=1e-9)
    assert report.gradient.norm.value == pytest.approx(0.3569660503, abs=1e-10)
    assert report.theorem3.refined_form == pytest.approx(29.0449893549, abs=1e-9)
    assert report.theorem3.form == "refined"
    assert report.theorem3.vacuous is True


def two_classes(seed: int) -> tuple[Problem, Problem]:
    """The same network with one logistic output, and with two softmax outputs ±w/2."""
    rng = np.random.default_rng(seed)
    n, d, k = int(rng.integers(4, 12)), int(rng.integers(1, 4)), int(rng.integers(1, 4))
    x, f, w, V = (rng.normal(size=s) for s in ((n, d), (n, k), (1, d), (d, k)))
    y = rng.integers(0, 2, n).astype(float)
    shared: dict[str, Any] = {"x": x, "f": f, "V": V, "epsilon": 0.5}
    one = Problem.from_arrays(**shared, y=2.0 * y - 1.0, W=w, loss="logistic", r=1.0)
    two = Problem.from_arrays(
        **shared, y=y, W=np.concatenate([-w, w]) / 2.0, loss="softmax", r=1.0 / math.sqrt(2.0)
    )
    return one, two


@pytest.mark.parametrize("seed", first(1, range(6)))
def test_two_classes_are_one_logistic_output_up_to_the_root_of_two(seed: int):
    """W = (−w, w)/2: ‖W‖_F = ‖w‖/√2, ∂F/∂W is √2 times as long along it, V's part is the same."""
    one, two = (check(problem) for problem in two_classes(seed))
    root = math.sqrt(2.0)
    assert overlap(one.objective.F, two.objective.F)
    assert overlap(one.objective.F_lin_min, two.objective.F_lin_min)
    assert overlap(one.objective.gap, two.objective.gap)
    assert overlap(scaled(one.gradient.norm_w, root), two.gradient.norm_w)
    assert overlap(one.gradient.norm_V, two.gradient.norm_V)
    assert one.theorem1.applies == two.theorem1.applies
    assert overlap(one.gap_bounds.linear_functional, two.gap_bounds.linear_functional)
    assert overlap(one.gap_bounds.first_order, two.gap_bounds.first_order)
    assert one.corollary1.verdict is two.corollary1.verdict
    assert one.objective.break_even_radius is not None
    assert two.objective.break_even_radius is not None
    assert one.objective.break_even_radius.infinite == two.objective.break_even_radius.infinite
    if one.objective.break_even_radius.value and two.objective.break_even_radius.value:
        assert one.objective.break_even_radius.value / root == pytest.approx(
            two.objective.break_even_radius.value, rel=1e-6
        )


def network(seed: int, q: int = 2, d: int = 2, **options: Any) -> Problem:
    rng = np.random.default_rng(seed)
    n, k = 9, 2
    return Problem.from_arrays(
        x=rng.normal(size=(n, d)),
        y=rng.normal(size=(n, q)),
        f=rng.normal(size=(n, k)),
        W=rng.normal(size=(q, d)),
        V=rng.normal(size=(d, k)),
        **options,
    )


def least_squares(problem: Problem) -> tuple[float, Array, Array]:
    """inf Φ, and a (W, V) that reaches it."""
    chunk = problem.chunk(slice(0, problem.n))
    Z = np.concatenate([chunk.x, chunk.f], axis=1)
    B = np.linalg.lstsq(Z, chunk.y, rcond=None)[0].T
    value = 0.5 * float(np.mean(np.sum((Z @ B.T - chunk.y) ** 2, axis=1)))
    U, Zf = B[:, : problem.d], B[:, problem.d :]
    return value, U, np.linalg.pinv(U) @ Zf


@pytest.mark.parametrize("seed", first(2, range(4)))
def test_the_block_gap_is_the_distance_to_the_best_head_and_block(seed: int):
    problem = network(seed)
    lowest, W, V = least_squares(problem)
    here, best = observe(problem, 1.0).here, best_augmented(problem)
    gap = block_gap(problem, here, best)
    assert gap.lower - 1e-12 <= here.F.value - lowest <= gap.upper + 1e-12
    at_best = replace(problem, point=replace(problem.point, W=W, V=V))
    there = check(at_best)
    assert there.objective.block_gap is not None
    assert there.objective.block_gap.upper < 1e-12
    assert there.theorem3.augmented is not None
    assert there.theorem3.augmented.upper.upper >= there.objective.F.lower


def test_theorem_3_counts_the_whole_of_W_where_it_is_longer_than_the_domain_says():
    """Its b bounds ‖W‖_F, the domain's ‖W‖: for W = I of two rows √2 against 1."""
    problem = network(5, epsilon=0.1, mu0=1.0, mu1=1.0, mu2=1.0, r=1.0)
    problem = replace(problem, point=replace(problem.point, W=np.eye(2), V=np.eye(2)))
    report = check(problem)
    assert report.constants.b == pytest.approx(1.01)
    b, m0 = math.sqrt(2.0), math.sqrt(0.1)
    expected = (b + 1.0) * 0.1 + b * (1 + b) * b * math.sqrt(m0**2 + m0)
    assert report.theorem3.refined_form == pytest.approx(expected)


def report_of(seed: int, **options: Any) -> Report:
    return check(network(seed, **options), augmented=True)


@pytest.mark.parametrize("seed", range(4))
def test_the_bounds_of_the_augmented_comparison_hold(seed: int):
    found = report_of(seed).augmented
    assert found is not None
    assert found.gap.lower <= found.linear_functional.upper
    assert found.holds
    assert found.attained is True


def test_a_point_at_zero_and_one_with_few_inputs_have_their_reasons():
    zero = network(0)
    zero = replace(zero, point=replace(zero.point, W=np.zeros((2, 2))))
    assert "Theorem 2" in (check(zero).theorem1.reason or "")
    few = check(network(1, q=3, d=2))
    assert not few.theorem1.applies
    assert "d = 2 < q = 3" in (few.theorem1.reason or "")
    assert few.corollary1.hypothesis == "not met"
    assert few.theorem3.bound is None


def test_the_hypothesis_of_corollary_1():
    problem = network(2)
    assert check(problem).corollary1.hypothesis == "not met"
    x = np.array([[1.0], [-1.0]])
    exact = Problem.from_arrays(x=x, y=[1.0, -1.0], f=x, w=[1.0], V=[[0.0]], epsilon=0.0)
    report = check(exact)
    assert report.verdict is Verdict.CERTIFIED
    assert report.corollary1.hypothesis == "met"
    assert report.corollary1.verdict is Verdict.CERTIFIED


@pytest.mark.parametrize(
    ("l2", "seed"), first(2, [(1e-3, 0), (0.1, 1), (0.1, 0), (1e-3, 1), (1e-3, 2), (0.1, 2)])
)
def test_what_weight_decay_can_have_cost(l2: float, seed: int):
    """At the minimum of a ridge regression with V = 0, W the best regularised predictor, the gap is 0."""
    problem = network(seed, l2=l2, epsilon=1e9)
    report = check(problem)
    about = report.regularized
    assert about is not None
    assert about.gap is not None
    assert about.gap_bound is not None
    assert about.theorem3 is not None
    assert about.gap.lower <= about.gap_bound.upper
    assert about.theorem3.applies == (report.verdict is Verdict.CERTIFIED)
    assert about.theorem3.G_upper is not None
    assert about.objective.lower <= about.theorem3.G_upper.upper
    chunk = problem.chunk(slice(0, problem.n))
    S = chunk.x.T @ chunk.x / problem.n + 2 * l2 * np.eye(problem.d)
    W = np.linalg.solve(S, chunk.x.T @ chunk.y / problem.n).T
    ridge = check(replace(problem, point=replace(problem.point, W=W, V=np.zeros_like(problem.V))))
    assert ridge.regularized is not None
    assert ridge.regularized.gap is not None
    assert abs(ridge.regularized.gap.value) < 1e-12


@pytest.mark.parametrize("seed", first(1, range(3)))
def test_what_all_rows_of_w_share_counts_for_nothing_with_softmax(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, f = rng.normal(size=(12, 4)), rng.integers(0, 3, 12), rng.normal(size=(12, 2))
    W, V, shared = rng.normal(size=(3, 4)), rng.normal(size=(4, 2)), 50.0 * rng.normal(size=4)
    near, far = (
        check(Problem.from_arrays(x=x, y=y, f=f, W=head, V=V, loss="softmax", r=1.0)).theorem1
        for head in (W, W + shared)
    )
    for form in ("lower_bound", "lower_bound_refined"):
        assert getattr(far, form).value == pytest.approx(getattr(near, form).value, rel=1e-9)


def test_features_that_are_inputs_but_for_rounding_leave_the_gap_of_the_block_narrow():
    """A unit of a ReLU layer that is always on, one that is never, and targets that no one meets."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0.5, 1.0, size=(40, 3))
    f = np.column_stack([x @ rng.uniform(0.3, 1.0, 3), np.zeros(40), np.tanh(x[:, 0])])
    y = 0.9 * np.eye(2)[rng.integers(0, 2, 40)] + 0.05
    W, V = rng.normal(size=(2, 3)), rng.normal(size=(3, 3))
    problem = Problem.from_arrays(x=x, y=y, f=f, W=W, V=V, loss="softmax")
    gap = block_gap(problem, observe(problem, 10.0).here, best_augmented(problem))
    assert gap.lower > 0.0
    assert gap.upper - gap.lower < 1e-8


@pytest.mark.parametrize(
    ("left", "right", "holds"),
    [
        ((0.0, 1.0), (0.5, 2.0), True),  # to rounding
        ((0.0, 1.0), (1.5, 2.0), False),
        ((0.0, math.inf), (-1.0, 0.0), True),  # whatever the left side is
        ((0.0, math.inf), (1.0, 1.0), None),
        ((0.0, 1.0), (-math.inf, math.inf), None),
        ((0.0, 1.0), (2.0, math.inf), False),
    ],
)
def test_an_inequality_with_a_side_that_is_not_known_is_open(
    left: tuple[float, float], right: tuple[float, float], holds: bool | None
) -> None:
    assert at_least(Enclosure(0.0, *left), Enclosure(0.0, *right)) is holds
