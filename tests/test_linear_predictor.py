"""min F_lin over a ball against rational least squares, a secular equation, Arb, SciPy and an exact cone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from families import BENIGN, FAMILIES, LOSSES, gaussian, make, random_sample, to_problem
from flint import arb, ctx, fmpq, fmpq_mat
from mpmath import mp, mpf
from oracle import BITS, Sample, Truth
from oracle_algebra import norm, rational
from oracle_linear import F_lin, attained, linear_minimum
from scipy.optimize import minimize

from resnet_cert.compare import linear_predictor
from resnet_cert.compare.linear_predictor import (
    LinearMinimum,
    LinearObjective,
    best_linear_predictor,
    linear_moments,
)
from resnet_cert.decide.lagrangian import RegularizedLinearObjective
from resnet_cert.problem.losses import BuiltinLoss
from resnet_cert.problem.problem import Problem

Array = np.ndarray


@pytest.fixture(autouse=True)
def _precision():
    with ctx.workprec(BITS), mp.workdps(50):
        yield


def best(sample: Sample, r: float | None = None, b: float = 10.0) -> LinearMinimum:
    return best_linear_predictor(to_problem(sample), r, b)


def holds(ours: LinearMinimum, value: arb) -> bool:
    return bool(not value < arb(ours.F_min.lower) and not value > arb(ours.F_min.upper))


def is_within(ours: LinearMinimum, w_star: list) -> bool:
    """w* lies in the ball around the computed one."""
    if math.isinf(ours.w_star.radius):
        return True
    off = [arb(float(u)) - v for u, v in zip(ours.w_star.center, w_star, strict=True)]
    return not norm(off) > arb(ours.w_star.radius)


def in_the_ball(ours: LinearMinimum) -> bool:
    return sum(rational(u) ** 2 for u in ours.w_star.center) <= rational(ours.r) ** 2


# --- Least squares ----------------------------------------------------------------------------------------


def least_squares(sample: Sample) -> tuple[list[fmpq], fmpq]:
    """The minimiser and the minimum of E[½(wᵀx − y)²], full column rank, in rationals."""
    x = fmpq_mat([[rational(entry) for entry in row] for row in sample.x])
    y = fmpq_mat([[rational(entry)] for entry in sample.y])
    w = (x.transpose() * x).solve(x.transpose() * y)
    r = x * w - y
    return w.entries(), (r.transpose() * r)[0, 0] / (2 * len(sample.y))


@pytest.mark.parametrize("seed", range(6))
def test_the_unconstrained_minimum_is_that_of_least_squares(seed):
    sample = gaussian(np.random.default_rng(seed), n=20, d=1 + seed % 4, losses=("squared",))
    w_star, value = least_squares(sample)
    ours = best(sample)
    length = float(norm([arb(entry) for entry in w_star]).mid())
    assert ours.attained
    assert rational(ours.F_min.lower) <= value <= rational(ours.F_min.upper)
    assert sum((rational(u) - v) ** 2 for u, v in zip(ours.w_star.center, w_star, strict=True)) <= (
        rational(ours.w_star.radius) ** 2
    )
    assert ours.w_star.radius <= 1e-12
    assert ours.F_min.upper - ours.F_min.lower <= 1e-13
    assert ours.r == pytest.approx(1.01 * length, rel=1e-12)
    assert ours.norm.lower <= length <= ours.norm.upper
    assert ours.lower_from == "strong convexity"


def on_the_sphere(sample: Sample, r: float) -> tuple[list[mpf], mpf]:
    """argmin of E[½(wᵀx − y)²] on ‖w‖ = r by the secular equation ‖(A + λI)⁻¹c‖ = r, and the minimum."""
    x, y = mp.matrix(sample.x.tolist()), mp.matrix(sample.y.tolist())
    n, d = x.rows, x.cols
    A, c = x.T * x / n, x.T * y / n

    def w(multiplier: mpf) -> mp.matrix:
        return mp.lu_solve(A + multiplier * mp.eye(d), c)

    low, high = mpf(0), mp.norm(c) / r
    while (high - low) > mpf(10) ** -45 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if mp.norm(w(middle)) > r else (low, middle)
    minimiser = w(high)
    return list(minimiser), mp.norm(x * minimiser - y) ** 2 / (2 * n)


@pytest.mark.parametrize("share", [1e-6, 0.1, 0.7, 0.999999, 1.0 - 1e-12])
def test_with_an_active_ball_the_minimum_is_that_of_the_secular_equation(share):
    rng = np.random.default_rng(10)
    for d in (1, 2, 4):
        sample = gaussian(rng, n=15, d=d, losses=("squared",))
        r = share * float(np.linalg.norm(np.linalg.lstsq(sample.x, sample.y, rcond=None)[0]))
        w_star, value = on_the_sphere(sample, r)
        ours = best(sample, r)
        assert mpf(ours.F_min.lower) <= value <= mpf(ours.F_min.upper)
        assert ours.F_min.upper - ours.F_min.lower <= 1e-12
        off = mp.norm(mp.matrix([mpf(float(u)) - v for u, v in zip(ours.w_star.center, w_star, strict=True)]))
        assert off <= ours.w_star.radius <= 1e-11
        assert in_the_ball(ours)
        assert ours.r == r
        assert ours.attained


@pytest.mark.parametrize("columns", ["copy", "zero", "sum", "n < d"])
def test_of_several_minimisers_the_computed_one_has_the_least_norm(columns):
    rng = np.random.default_rng(11)
    x = rng.integers(-9, 10, size=(3 if columns == "n < d" else 12, 4)).astype(float)
    if columns != "n < d":
        x[:, 3] = {"copy": x[:, 0], "zero": 0.0, "sum": x[:, 0] - 2.0 * x[:, 1]}[columns]
    sample = gaussian(rng, n=len(x), d=4, losses=("squared",))
    sample = replace(sample, x=x)
    length = float(np.linalg.norm(np.linalg.pinv(x) @ sample.y))
    for r in (None, 0.5 * length, 1e3):
        ours = best(sample, r)
        assert r or ours.r == pytest.approx(1.01 * length, rel=1e-12)
        expected = linear_minimum(Truth(sample), ours.r)
        assert holds(ours, expected.value)
        assert np.allclose(ours.w_star.center, [float(e.mid()) for e in expected.w_star], atol=1e-10)
        assert is_within(ours, expected.w_star)


# --- Every loss -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("loss", LOSSES)
def test_minimum_and_minimiser_are_held_for_every_loss(loss, radius):
    rng = np.random.default_rng(12)
    for _ in range(4):
        sample = gaussian(rng, losses=(loss,))
        expected, ours = linear_minimum(Truth(sample), radius), best(sample, radius)
        assert holds(ours, expected.value)
        assert is_within(ours, expected.w_star)
        assert in_the_ball(ours)
        assert ours.F_min.upper - ours.F_min.lower <= 1e-9


@pytest.mark.parametrize("family", BENIGN)
def test_without_a_radius_minimum_and_minimiser_are_held(family):
    for seed in range(3):
        sample = make(family, 300 + seed)
        expected_attained = attained(sample)
        ours = best(sample, None, 2.5)
        assert ours.attained == expected_attained
        expected = linear_minimum(Truth(sample), ours.r)
        assert holds(ours, expected.value)
        assert is_within(ours, expected.w_star)
        if not expected_attained:
            assert ours.r == 2.5


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid:RuntimeWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_in_every_family_the_minimum_over_a_ball_is_held(family):
    for seed in range(2):
        sample = make(family, 400 + seed)
        r = 1.0 / (float(np.max(np.abs(sample.x))) or 1.0)
        expected, ours = linear_minimum(Truth(sample), r), best(sample, r)
        assert holds(ours, expected.value)
        assert is_within(ours, expected.w_star)
        assert in_the_ball(ours)


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_proven_does_not_depend_on_where_the_optimiser_stops(loss, monkeypatch):
    rng, located = np.random.default_rng(24), 0
    for _ in range(12):
        sample = gaussian(rng, n=12, losses=(loss,))
        r = float(10.0 ** rng.uniform(-1.5, 0.5))
        expected = linear_minimum(Truth(sample), r)
        for off in (1e-1, 1e-3, 1e-6, 1e-9):
            u = np.array([float(entry.mid()) for entry in expected.w_star]) * rng.choice([1.0, 1.0 - 1e-12])
            u += off * rng.choice([0.0, 1.0], p=[0.2, 0.8]) * rng.normal(size=len(u))
            u *= min(1.0, r / float(np.linalg.norm(u)))
            monkeypatch.setattr(linear_predictor, "_newton", lambda *_, u=u: u)
            ours = best(sample, r)
            assert holds(ours, expected.value)
            assert is_within(ours, expected.w_star)
            assert in_the_ball(ours)
            located += ours.w_star.radius < min(r, 1e3 * off)
    assert located > 10


def test_separable_data_stay_so_where_cubes_of_x_underflow():
    sample = gaussian(np.random.default_rng(25), n=2, d=1, k=1, losses=("logistic",))
    for x in (1.0, 1e-110):
        separable = replace(sample, x=np.array([[x], [2.0 * x]]), y=np.ones(2))
        assert attained(separable) is False
        with np.errstate(all="ignore"):
            assert best(separable, None, 1.0).attained is False


@pytest.mark.parametrize("loss", LOSSES)
def test_the_minimiser_agrees_with_another_optimiser(loss):
    sample = gaussian(np.random.default_rng(13), n=60, d=3, losses=(loss,))
    problem = to_problem(sample)

    def at(w: Array) -> tuple[float, Array]:
        moments = linear_moments(problem, w)
        return moments.F.value, moments.g_w.center

    theirs = minimize(at, np.ones(3), jac=True, method="BFGS", options={"gtol": 1e-10})
    ours = best(sample)
    assert np.allclose(ours.w_star.center, theirs.x, atol=1e-7)
    assert ours.F_min.value == pytest.approx(theirs.fun, abs=1e-12)


def test_weights_and_a_scale_count():
    sample = gaussian(np.random.default_rng(14), n=9, d=2, losses=("logistic",))
    weights = np.arange(1.0, 10.0) / 45.0
    sample = replace(sample, probabilities=weights, scale=0.25)
    for r in (0.2, 3.0):
        expected, ours = linear_minimum(Truth(sample), r), best(sample, r)
        assert holds(ours, expected.value)
        assert is_within(ours, expected.w_star)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_moments_of_a_linear_predictor_are_those_without_features(loss):
    sample = gaussian(np.random.default_rng(15), d=3, losses=(loss,))
    truth = Truth(replace(sample, V=np.zeros_like(sample.V)))
    at = linear_moments(to_problem(sample), sample.w)
    assert arb(at.F.lower) <= truth.F <= arb(at.F.upper)
    for ball, exact in ((at.g_w, truth.g_w), (at.A, [e for row in truth.A for e in row])):
        off = norm([arb(float(u)) - v for u, v in zip(ball.center.ravel(), exact, strict=True)])
        assert off <= ball.radius
    assert at.a.center.size == 0


@pytest.mark.parametrize("loss", LOSSES)
def test_a_sketch_is_what_is_enclosed_up_to_rounding(loss, monkeypatch):
    monkeypatch.setattr(Problem, "chunk_rows", 3)
    sample = gaussian(np.random.default_rng(25), n=10, d=3, losses=(loss,))
    sample = replace(sample, probabilities=np.arange(1.0, 11.0) / 55.0)
    for function in (
        LinearObjective(to_problem(sample)),
        RegularizedLinearObjective(to_problem(sample, l2=0.3)),
    ):
        at, sketch = function.at(sample.w), function.sketch(sample.w)
        assert sketch.value == pytest.approx(at.F.value, abs=sketch.noise)
        assert 0.0 < sketch.noise < 1e-10
        assert np.allclose(sketch.g, at.g_w.center, rtol=0.0, atol=1e-13)
        assert np.allclose(sketch.A, at.A.center, rtol=0.0, atol=1e-13)


@pytest.mark.parametrize("loss", LOSSES)
def test_F_at_is_F_lin_at_the_computed_minimiser(loss):
    sample = gaussian(np.random.default_rng(16), losses=(loss,))
    for r in (0.0, 0.5, 2.0):
        ours = best(sample, r)
        exact = F_lin(Truth(sample), [arb(float(u)) for u in ours.w_star.center])
        assert arb(ours.F_at.lower) <= exact <= arb(ours.F_at.upper)
        assert ours.F_min.upper == ours.F_at.upper


def labelled(x: list[list[float]], y: list[float], loss: str = "logistic") -> Sample:
    rows, d = len(y), len(x[0])
    return Sample(np.array(x), np.array(y), np.ones((rows, 1)), np.ones(d), np.ones((d, 1)), loss=loss)


# --- Corners ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_in_a_ball_of_radius_zero_there_is_only_zero(loss):
    sample = gaussian(np.random.default_rng(17), losses=(loss,))
    ours = best(sample, 0.0)
    assert not ours.w_star.center.any()
    assert ours.norm.upper == 0.0
    exact = F_lin(Truth(sample), [arb(0)] * sample.x.shape[1])
    assert holds(ours, exact)
    assert ours.F_min.upper - ours.F_min.lower <= 1e-14 * (1.0 + abs(ours.F_min.value))


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid:RuntimeWarning")
@pytest.mark.parametrize("radius", [1e-150, 1e-200, 1e-307, 5e-324])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_ball_whose_square_underflows_holds_its_minimum(loss, radius):
    sample = gaussian(np.random.default_rng(1), losses=(loss,))
    ours = best(sample, radius)
    assert holds(ours, F_lin(Truth(sample), [arb(0)] * sample.x.shape[1]))  # the minimum, to 1e-149
    assert ours.F_min.upper - ours.F_min.lower < 1e-12
    assert in_the_ball(ours)


@pytest.mark.parametrize("loss", LOSSES)
def test_without_inputs_every_predictor_is_a_minimiser_and_zero_is_the_least(loss):
    sample = make("no_inputs", 3)
    sample = replace(gaussian(np.random.default_rng(18), losses=(loss,)), description=sample.description)
    sample = replace(sample, x=np.zeros_like(sample.x))
    ours = best(sample, None)
    assert ours.attained
    assert ours.r == 0.0
    assert not ours.w_star.center.any()
    assert holds(ours, F_lin(Truth(sample), [arb(0)] * sample.x.shape[1]))


def test_a_minimum_at_zero_needs_no_radius():
    ours = best(labelled([[1.0], [-1.0]], [2.0, 2.0], "squared"))
    assert ours.r == 0.0
    assert ours.F_min.lower <= 2.0 <= ours.F_min.upper
    assert ours.F_min.upper - ours.F_min.lower < 1e-14


def test_an_interpolated_target_has_minimum_zero():
    rng = np.random.default_rng(19)
    x, w = rng.integers(-5, 6, size=(9, 3)).astype(float), np.array([2.0, -1.0, 3.0])
    sample = Sample(x, x @ w, np.ones((9, 1)), w, np.ones((3, 1)))
    ours = best(sample)
    assert ours.F_min.lower == 0.0 <= ours.F_min.upper < 1e-20  # a nonnegative loss
    assert np.allclose(ours.w_star.center, w, atol=1e-12)
    assert is_within(ours, [arb(entry) for entry in w])


def test_a_nonnegative_loss_has_a_nonnegative_minimum():
    for seed in range(20):
        sample = gaussian(np.random.default_rng(seed), losses=("squared", "logistic", "pseudo_huber"))
        assert best(sample, 5.0).F_min.lower >= 0.0


def test_curvature_locates_the_minimiser_and_convexity_alone_bounds_the_minimum(monkeypatch):
    sample = gaussian(np.random.default_rng(20), n=30, d=3, losses=("logistic",))
    located = best(sample, 50.0)
    assert located.lower_from == "strong convexity"
    assert located.w_star.radius < 1e-10
    monkeypatch.setattr(LinearObjective, "third_moment", lambda self, r: math.inf)
    bounded = best(sample, 50.0)
    assert bounded.lower_from in ("convexity", "nonnegative loss")
    assert bounded.w_star.radius > 1.0
    assert bounded.F_min.lower <= located.F_min.lower <= located.F_min.upper <= bounded.F_min.upper
    assert bounded.F_min.upper - bounded.F_min.lower < 1e-9


@pytest.mark.parametrize("loss", LOSSES)
def test_the_third_moment_bounds_how_fast_the_curvature_changes(loss):
    rng = np.random.default_rng(25)
    sample = gaussian(rng, n=10, d=3, losses=(loss,))
    problem, r = to_problem(replace(sample, probabilities=np.arange(1.0, 11.0) / 55.0)), 1.5
    T = LinearObjective(problem).third_moment(r)
    x_norm = np.linalg.norm(sample.x, axis=1)
    third = BuiltinLoss(loss).suprema(r * x_norm, sample.y)[2]
    assert pytest.approx(float(np.average(third * x_norm**3, weights=np.arange(1.0, 11.0))), rel=1e-8) == T
    for _ in range(30):
        u, v = rng.normal(size=(2, 3))
        u, v = (1.5 * rng.random() * z / np.linalg.norm(z) for z in (u, v))
        change = linear_moments(problem, u).A.center - linear_moments(problem, v).A.center
        assert np.linalg.norm(change, 2) <= T * np.linalg.norm(u - v) + 1e-12


# --- Attained or not ----------------------------------------------------------------------------------------


ATTAINMENT = {
    "separable": (labelled([[1.0, 0.2], [2.0, -0.1], [-1.0, 0.3]], [1.0, 1.0, -1.0]), False),
    "quasi-separable: one row on the boundary twice": (
        labelled([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], [1.0, 1.0, -1.0]),
        False,
    ),
    "overlapping": (labelled([[1.0], [2.0], [1.5]], [1.0, -1.0, 1.0]), True),
    "overlapping in one of two directions": (
        labelled([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], [1.0, -1.0, 1.0, -1.0]),
        True,
    ),
    "no information": (labelled([[0.0], [0.0]], [1.0, -1.0]), True),
    "poisson, all silent": (labelled([[1.0], [2.0]], [0.0, 0.0], "poisson"), False),
    "poisson, silent on both sides": (labelled([[1.0], [-2.0]], [0.0, 0.0], "poisson"), True),
    "poisson, one count in another direction": (
        labelled([[1.0, 0.0], [0.0, 1.0]], [3.0, 0.0], "poisson"),
        False,
    ),
    "poisson, counts everywhere": (labelled([[1.0, 0.0], [0.0, 1.0]], [3.0, 1.0], "poisson"), True),
}


@pytest.mark.parametrize("name", ATTAINMENT)
def test_a_minimum_at_infinity_is_seen(name):
    sample, expected = ATTAINMENT[name]
    assert attained(sample) is expected
    ours = best(sample, None, 3.0)
    assert ours.attained is expected
    assert ours.r == 3.0 if not expected else ours.r < 3.0
    assert holds(ours, linear_minimum(Truth(sample), ours.r).value)
    assert best(sample, 1.0).attained is expected


def _logistic(rng: np.random.Generator, n: int, d: int) -> Sample:
    x = rng.integers(-2, 3, size=(n, d)).astype(float)
    return labelled(x.tolist(), rng.choice([-1.0, 1.0], n).tolist())


def _poisson(rng: np.random.Generator, n: int, d: int) -> Sample:
    x = rng.integers(-2, 3, size=(n, d)).astype(float)
    return labelled(x.tolist(), rng.choice([0.0, 0.0, 0.0, 2.0], n).tolist(), "poisson")


@pytest.mark.parametrize("make_one", [_logistic, _poisson])
def test_attainment_agrees_with_the_exact_cone(make_one: Callable[..., Sample]):
    rng, seen = np.random.default_rng(21), set()
    for _ in range(30):
        sample = make_one(rng, int(rng.integers(1, 8)), int(rng.integers(1, 4)))
        expected = attained(sample)
        seen.add(expected)
        assert best(sample, None, 2.0).attained is expected
    assert seen == {True, False}


def test_a_search_that_goes_to_infinity_ends_soon(monkeypatch):
    sketches = []
    sketch = LinearObjective.sketch
    monkeypatch.setattr(LinearObjective, "sketch", lambda *at: sketches.append(at) or sketch(*at))
    for seed in range(10):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(8, 2))
        sample = labelled(x.tolist(), np.where(x @ [1.0, 2.0] > 0.0, 1.0, -1.0).tolist())
        assert best(sample, None, 2.0).attained is False
    assert len(sketches) < 10 * 30


def test_columns_of_very_different_scales_do_not_hide_a_direction():
    """The tolerances of a linear programme are absolute; these columns are 1e11 apart."""
    sample = random_sample(10287)
    with np.errstate(all="ignore"):
        assert best(sample, None, 1.0).attained is attained(sample) is False


def test_separation_by_a_hair_is_seen():
    for gap in (1e-3, 1e-6):
        sample = labelled([[1.0, gap], [-1.0, gap], [1.0, -gap]], [1.0, 1.0, -1.0])  # u = (0, 1) separates
        assert attained(sample) is False
        assert best(sample, None, 2.0).attained is False


def test_many_rows_are_read_in_chunks(monkeypatch):
    sample = gaussian(np.random.default_rng(22), n=3000, d=2, losses=("logistic",))
    whole = best(sample)
    monkeypatch.setattr("resnet_cert.problem.problem.CHUNK_BYTES", 2**14)
    cut = best(sample)
    assert max(whole.F_min.lower, cut.F_min.lower) <= min(whole.F_min.upper, cut.F_min.upper)
    assert np.allclose(whole.w_star.center, cut.w_star.center, atol=1e-12)


def test_features_are_never_read():
    class Refusing:
        k = 2

        def rows(self, rows: slice, x: Array, pad_to: int) -> Array:
            raise AssertionError("a linear predictor has no features")

    problem: Problem = replace(to_problem(gaussian(np.random.default_rng(23), k=2)), features=Refusing())
    assert best_linear_predictor(problem, 1.0, 1.0).F_min.known
