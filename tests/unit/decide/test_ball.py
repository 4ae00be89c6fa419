"""Ball arithmetic and rational numbers decide what float64 cannot, and never otherwise than the truth."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import replace
from fractions import Fraction

import mpmath as mp
import numpy as np
import pytest
from curvature import DIGITS, Exact, constrained
from families import CORNERS, draw
from flint import ctx, fmpq, fmpq_mat
from heads import Head

from resnet_cert import Problem
from resnet_cert.decide import ball
from resnet_cert.decide.ball import Decision, elementary
from resnet_cert.moments.one_pass import observe
from resnet_cert.numerics.fields import RATIONALS, independent_rows, is_positive_semidefinite, root
from resnet_cert.problem.losses import LOSSES, BuiltinLoss
from resnet_cert.problem.problem import Objective


def decide(problem: Problem, mu2: float | None = None) -> Decision:
    assert isinstance(problem.loss, BuiltinLoss)
    return ball.decide(problem, problem.loss, mu2)


def head_of(seed: int, corner: str) -> Head:
    head = draw(seed, corner, l2=[0.0, 0.3][seed % 2])
    return replace(head, loss="squared") if head.loss == "softmax" and head.q == 1 else head


def assert_never_wrong(head: Head, *, on_sphere: bool) -> None:
    """ε and μ2 within 1e-12 of the thresholds, on both sides."""
    truth = Exact(head, constrained=on_sphere)
    if on_sphere and (truth.multiplier is None or len(truth.z) == 1):
        return
    problem = constrained(head) if on_sphere else head.problem()
    for off in (-1e-3, -1e-12, 1e-12, 1e-3):
        eps = float(truth.norm) * (1.0 - off) or 1.0
        t = -float(truth.lambda_min) * (1.0 + off)
        mu2 = t * t / eps if t > 0.0 else 0.0
        proven = decide(replace(problem, epsilon=eps), mu2).proven
        with mp.workdps(DIGITS):
            margin = truth.lambda_min + mp.sqrt(mp.mpf(mu2) * mp.mpf(eps))
            gradient, curvature = bool(truth.norm <= eps or truth.norm < 1e-35), bool(margin >= 0)
            tie = abs(margin) <= mp.mpf(10) ** -35 * max(1.0, truth.size)
        assert proven.gradient is gradient
        assert tie or proven.curvature is curvature


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("on_sphere", [False, True])
def test_no_condition_is_decided_wrong_beside_its_threshold(
    corner: str, on_sphere: bool, longer: int
) -> None:
    for seed in range(longer):
        assert_never_wrong(head_of(seed, corner), on_sphere=on_sphere)


@pytest.mark.long
@pytest.mark.parametrize("corner", CORNERS)
def test_many_conditions_are_decided_right(corner: str) -> None:
    for seed in range(100, 160):
        for on_sphere in (False, True):
            assert_never_wrong(head_of(seed, corner), on_sphere=on_sphere)


@pytest.mark.parametrize("corner", CORNERS)
def test_both_arithmetics_agree(corner: str) -> None:
    """F, ‖∇L‖ and the moments to the last place, inside what float64 encloses."""
    head = head_of(5, corner)
    problem, truth = head.problem(epsilon=0.1), head.truth
    fine, here = decide(problem, 1.0), observe(problem, 1.0).here
    assert here.F.lower <= fine.F.value <= here.F.upper
    assert float(truth.F) == pytest.approx(fine.F.value, rel=1e-15)
    assert fine.gradient_norm.value == pytest.approx(float(truth.norm), rel=1e-14)
    assert fine.gradient_norm.upper - fine.gradient_norm.lower <= 2.0**-51 * fine.gradient_norm.upper
    for ours, theirs in ((fine.moments.g_W, here.g_W), (fine.moments.A_f, here.A_f)):
        assert np.linalg.norm(ours.center - theirs.center) <= float(theirs.radius) * (1.0 + 1e-9) + 1e-300
    q = head.q
    A = np.array([[float(entry) for entry in row] for row in truth.hessian])[
        : problem.W.size, : problem.W.size
    ]
    d, blocks = problem.d, fine.moments.Q.center
    full = np.zeros((q, d, q, d))
    for a in range(q):
        for b in range(q):
            if blocks.ndim == 4:
                full[a, :, b] = blocks[a, b, :d, :d]
            elif a == b:
                full[a, :, a] = blocks[:d, :d] if blocks.ndim == 2 else blocks[a, :d, :d]
    np.testing.assert_allclose(full.reshape(q * d, q * d), A, rtol=1e-12, atol=1e-14 * np.abs(A).max())


# --- Exactly ------------------------------------------------------------------------------------------------


def example_1(w: float, v: float, *, slope: float = 0.125, epsilon: float = 0.0, **named: float) -> Problem:
    """Example 1 of the paper: x = y = 1, f = slope·x, squared loss: F = ½(w(1 + slope·v) − 1)²."""
    return Problem.from_arrays(x=[[1.0]], y=[1.0], f=[[slope]], w=[w], V=[[v]], epsilon=epsilon, **named)


@pytest.mark.parametrize(("w", "v"), [(0.5, 8.0), (1.0, 0.0), (0.25, 24.0), (-1.0, -16.0)])
def test_a_global_minimum_in_rational_numbers_is_a_0_sopsp(w: float, v: float) -> None:
    found = decide(example_1(w, v))
    assert (found.proven.gradient, found.proven.curvature) == (True, True)
    assert found.proven.arithmetic == "rational numbers"
    assert found.gradient_norm.lower == found.gradient_norm.upper == 0.0


def test_the_saddle_of_example_1_is_no_0_sopsp() -> None:
    proven = decide(example_1(0.0, -8.0)).proven
    assert (proven.gradient, proven.curvature) == (True, False)


@pytest.mark.parametrize("relative", [1e-14, 1e-15])
def test_margins_below_float64_are_decided_on_both_sides(relative: float) -> None:
    """At (0, −8), λ_min = −1/8 exactly: ε = 1/64 with μ2 = 1 is the tie."""
    assert decide(example_1(0.0, -8.0, epsilon=2.0**-6 * (1.0 + relative)), 1.0).proven.curvature is True
    assert decide(example_1(0.0, -8.0, epsilon=2.0**-6 * (1.0 - relative)), 1.0).proven.curvature is False
    assert decide(example_1(0.0, -8.0, epsilon=2.0**-6), 1.0).proven.curvature is True


def test_an_exact_tie_of_the_gradient_is_certified() -> None:
    """At (1, 4): p = 3/2, gradient (½·(3/2), ½·(1/8)) = (3/4, 1/16)."""
    square = Fraction(9, 16) + Fraction(1, 256)
    below, above = math.nextafter(math.sqrt(square), 0.0), math.nextafter(math.sqrt(square), 1.0)
    assert Fraction(below) ** 2 < square < Fraction(above) ** 2
    assert decide(example_1(1.0, 4.0, epsilon=below), 100.0).proven.gradient is False
    assert decide(example_1(1.0, 4.0, epsilon=above), 100.0).proven.gradient is True


@pytest.mark.parametrize("q", [1, 2, 3])
@pytest.mark.parametrize("loss", ["squared", "weighted_squared", "pseudo_huber"])
def test_an_exact_fit_is_a_0_sopsp_and_its_neighbours_are_not(q: int, loss: str) -> None:
    """p = y at every sample: g_W = 0 and A_f = 0, and ∇²F is a Gram matrix, singular or not."""
    rng = np.random.default_rng(q)
    x, f, z = (rng.integers(-3, 4, (4, m)).astype(float) for m in (3, 2, 1))
    W, V, c = (rng.integers(-2, 3, shape) / 2.0 for shape in ((q, 4), (3, 2), (q,)))
    y = np.concatenate([x + f @ V.T, z], axis=1) @ W.T + c
    omega = rng.integers(1, 5, y.shape).astype(float) if loss == "weighted_squared" else None
    fit = Problem.from_arrays(x=x, y=y, f=f, W=W, V=V, c=c, bypass=z, loss=loss, omega=omega)
    proven = decide(fit).proven
    assert (proven.gradient, proven.curvature) == (True, True)
    off = y.copy()
    off[0, 0] += 2.0**-40
    beside = Problem.from_arrays(x=x, y=off, f=f, W=W, V=V, c=c, bypass=z, loss=loss, omega=omega)
    assert decide(beside).proven.gradient is False


def test_a_strict_minimum_with_fewer_inputs_than_outputs_is_one() -> None:
    """d = 1, q = 2: every t counts, and λ_min = .14158384 > 0."""
    problem = Problem.from_arrays(
        x=[[1.0], [0.0]], f=[[-1.0], [1.0]], y=[[1.0, 0.0], [0.0, 0.5]], omega=[[1.0, 3.0], [3.0, 1.0]],
        W=[[0.0], [0.5]], V=[[1.0]], loss="weighted_squared",
    )  # fmt: skip
    proven = decide(problem).proven
    assert (proven.gradient, proven.curvature) == (True, True)


def test_an_irrational_threshold_is_decided_in_balls() -> None:
    problem = example_1(0.0, -8.0, epsilon=0.3)
    assert decide(problem, 0.7).proven.curvature is True
    assert decide(problem, 1e-3).proven.curvature is False


def test_without_mu2_the_threshold_is_known_at_epsilon_zero_only() -> None:
    """But λ_min ≥ 0 is enough for every μ2: here it is 1e-25, and 0 in an exact fit."""
    assert decide(example_1(0.0, -8.0, epsilon=0.1)).proven.curvature is None
    assert decide(example_1(0.0, -8.0)).proven.curvature is False
    flat = Problem.from_arrays(
        x=[[1.0]], f=[[1.0]], y=[1.0], w=[1.0], V=[[0.0]], l2=5e-26, epsilon=1.0, norm=2.0
    )
    assert decide(flat).proven.curvature is True
    assert decide(replace(flat, objective=Objective(0.0, None))).proven.curvature is True


# --- Extreme scales -----------------------------------------------------------------------------------------


def test_a_slope_that_underflows_beside_a_large_feature_is_seen() -> None:
    problem = Problem.from_arrays(
        x=[[-1.9832216626133422e-180]], y=[0.0], f=[[1.2283797216670256e130]],
        w=[1.0], V=[[1.6145021182228e-310]], epsilon=1e-100,
    )  # fmt: skip
    found = decide(problem, 1.0)
    assert found.proven.gradient is False
    assert found.gradient_norm.value == pytest.approx(2.475111748e-66, rel=1e-9)


def test_a_multiplier_that_cancels_is_known() -> None:
    problem = Problem.from_arrays(
        x=[[1.622901694889702], [-1.0]], y=[1.7417869892607295e-150, 2.8267490566446875e-150],
        f=[[1e100], [0.0]], w=[1e-160], V=[[0.0]], norm=1e-160, epsilon=1e-208,
    )  # fmt: skip
    found = decide(problem, 1e-10)
    assert (found.proven.gradient, found.proven.curvature) == (True, True)
    assert found.gradient_norm.value == pytest.approx(8.7e-211, rel=1e-2)


# --- The numbers themselves ---------------------------------------------------------------------------------


def test_ldl_decides_singular_matrices_in_rational_numbers() -> None:
    def lower(rows: list[list[int]]) -> list[list[fmpq]]:
        return [[fmpq(v) for v in row[: i + 1]] for i, row in enumerate(rows)]

    assert is_positive_semidefinite(RATIONALS, lower([[1, 1, 0], [1, 1, 0], [0, 0, 2]])) is True
    assert is_positive_semidefinite(RATIONALS, lower([[1, 1, 0], [1, 1, 1], [0, 1, 2]])) is False
    assert is_positive_semidefinite(RATIONALS, lower([[0, 0], [0, 0]])) is True
    assert is_positive_semidefinite(RATIONALS, lower([[0, 1], [1, 9]])) is False
    assert is_positive_semidefinite(RATIONALS, []) is True


def test_the_rank_of_rows_is_exact() -> None:
    rows = RATIONALS.of(np.array([[0.1, 0.2, 0.3], [0.2, 0.4, 0.6], [0.1, 0.2, 0.3 + 2.0**-54]]))
    assert independent_rows(rows).nrows() == 2
    assert independent_rows(fmpq_mat(2, 2)).nrows() == 0


def test_roots_are_rational_where_they_are() -> None:
    assert root(RATIONALS, Fraction(9, 16)) == fmpq(3, 4)
    assert root(RATIONALS, Fraction(1, 2)) is None


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(elementary())])
def test_elementary_functions_in_balls_are_within_one_ulp(name: str) -> None:
    random = np.random.default_rng(1)
    x = np.concatenate([random.normal(size=50) * 10.0 ** random.uniform(-12, 2, 50), [0.0, 1e-300, 0.5]])
    x = np.abs(x) if name == "log1p" else x
    truth = {"exp": mp.exp, "expm1": mp.expm1, "log1p": mp.log1p, "hypot1": lambda r: mp.hypot(1, r)}[name]
    with mp.workdps(50):
        for given, got in zip(x.tolist(), getattr(elementary(), name)(x).tolist(), strict=True):
            assert abs(mp.mpf(got) - truth(mp.mpf(given))) <= math.ulp(got)


def test_every_loss_has_its_balls() -> None:
    for loss in LOSSES:
        head = draw(7, "generic", loss, q=2)
        with ctx.workprec(200):
            assert decide(head.problem(epsilon=1e3), 1.0).proven.gradient is True
