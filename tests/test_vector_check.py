"""The check of several outputs as a whole: every number of a report, every verdict, what must not matter."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flint import arb, ctx
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf
from oracle_algebra import norm
from vector_families import CORNERS, LOSSES, draw
from vector_oracle import BITS, VectorSample, VectorTruth
from vector_oracle_report import ReportTruth

from resnet_cert import Enclosure, Problem, Report, VectorProblem, Verdict, check

SLACK = mpf(10) ** -30
"""Of a truth in 60 digits: its own error, with room for the condition of the problem."""


@pytest.fixture(autouse=True)
def _precision():
    with mp.workdps(60), ctx.workprec(BITS):
        yield


def holds(ours: Enclosure | None, truth: mpf, width: float = 1e-7) -> bool:
    """The truth lies inside, and the enclosure is no wider than `width` of its size."""
    assert ours is not None
    slack = SLACK * (1 + abs(truth))
    inside = mpf(ours.lower) - slack <= truth <= mpf(ours.upper) + slack
    return inside and ours.upper - ours.lower <= width * max(1.0, abs(float(truth)))


# --- Every number of a report -------------------------------------------------------------------------------

WELL_POSED = [corner for corner in CORNERS if corner not in ("one sample", "hard labels", "f = 0")]


WIDE, NARROW, SQUARE = (
    {"d": 3, "k": 2, "q": 2, "n": 8},
    {"d": 2, "k": 1, "q": 3, "n": 10},
    {"d": 2, "k": 3, "q": 2, "n": 8},
)
SHAPES = (WIDE, NARROW, SQUARE)
"""Few, so that JAX compiles one objective for each of them and each loss."""
REPORTED = ("generic", "weights", "W = 0", "V = 0", "rank 1")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("corner", REPORTED)
def test_every_number_of_a_report_holds_the_truth(corner: str, loss: str) -> None:
    shape = SHAPES[(REPORTED.index(corner) + LOSSES.index(loss)) % 3]
    assert_every_number_is_true(draw(50, corner, loss, **shape), corner)


@pytest.mark.long
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("corner", REPORTED)
def test_every_number_of_many_reports_holds_the_truth(corner: str, loss: str) -> None:
    for seed in range(400, 404):
        for shape in SHAPES:
            assert_every_number_is_true(draw(seed, corner, loss, **shape), corner)


def assert_every_number_is_true(sample: VectorSample, corner: str) -> None:
    (q, d), k = sample.W.shape, sample.V.shape[1]
    truth, report = ReportTruth(sample), check(sample.problem(epsilon=0.3))
    assert (report.problem.n, report.problem.d, report.problem.k) == (len(sample.x), d, k)
    assert (report.problem.outputs, report.problem.parameters) == (q, d * (q + k))
    assert report.problem.norm_w == pytest.approx(np.linalg.norm(sample.W, 2), rel=1e-12)
    assert report.problem.norm_V == pytest.approx(np.linalg.norm(sample.V, 2), rel=1e-12)

    objective, gradient, hessian = report.objective, report.gradient, report.hessian
    assert holds(objective.F, truth.F, 1e-12)
    assert holds(objective.F_lin_min, truth.F_lin_min)
    assert holds(objective.gap, truth.gap)
    assert objective.attained
    assert objective.norm_w_star == pytest.approx(float(truth.norm_W_star), rel=1e-6)
    assert report.constants.r == pytest.approx(1.01 * float(truth.norm_W_star), rel=1e-6)
    assert holds(gradient.norm, truth.gradient_norm, 1e-11)
    assert holds(gradient.norm_w, truth.gradient_W, 1e-11)
    assert holds(gradient.norm_V, truth.gradient_V, 1e-11)
    assert holds(hessian.lambda_min, truth.lambda_min, 1e-8)
    mu2 = mpf(report.constants.mu2)
    assert holds(hessian.threshold, mp.sqrt(mu2 * mpf(0.3)), 1e-12)
    assert holds(report.smallest_epsilon, max(truth.gradient_norm, truth.m**2 / mu2), 1e-8)

    left, right = truth.theorem2
    assert holds(report.theorem2.left, left, 1e-6)
    assert holds(report.theorem2.right, right, 1e-6)
    assert report.theorem2.holds
    full_rank = d >= q and corner in ("generic", "weights")
    assert report.theorem1.applies is (full_rank or corner == "V = 0")
    if full_rank:
        paper, refined = truth.theorem1
        assert holds(report.theorem1.lower_bound, paper, 1e-6)
        assert holds(report.theorem1.lower_bound_refined, refined, 1e-6)
        assert report.theorem1.holds

    bounds = report.gap_bounds
    assert holds(bounds.linear_functional, truth.linear_functional, 1e-6)
    assert holds(bounds.first_order, truth.first_order, 1e-6)
    lemma = mpf(bounds.local.upper) - truth.distance * truth.gradient_W
    assert lemma >= truth.nuclear * truth.top - SLACK
    assert truth.gap <= mpf(bounds.local.upper) + SLACK
    expected = Verdict.REFUTED if truth.gap > 0 else Verdict.CERTIFIED
    assert report.corollary1.verdict in (expected, Verdict.UNDECIDED)

    auto = report.crosscheck
    assert auto.gradient_norm == pytest.approx(float(truth.gradient_norm), rel=1e-9)
    assert auto.lambda_min == pytest.approx(float(truth.lambda_min), abs=1e-9)
    assert report.hessian.zero_multiplicity >= 0
    assert report.versions["resnet_cert"]


@pytest.mark.parametrize("loss", LOSSES)
def test_on_a_small_ball_too(loss: str) -> None:
    sample = draw(51, "generic", loss, d=2, k=2, q=2, n=6)
    truth, report = ReportTruth(sample, 0.125), check(sample.problem(epsilon=0.3, r=0.125))
    assert holds(report.objective.F_lin_min, truth.F_lin_min)
    assert holds(report.gap_bounds.linear_functional, truth.linear_functional, 1e-5)
    assert holds(report.gap_bounds.first_order, truth.first_order, 1e-5)
    assert holds(report.theorem1.lower_bound_refined, truth.theorem1[1], 1e-5)
    assert report.constants.source["r"] == "given"


@pytest.mark.parametrize("loss", ["softmax", "logistic"])
@pytest.mark.parametrize("margin", [5.0, 20.0, 40.0, 100.0, 800.0])
def test_where_all_samples_are_fitted_a_tiny_gradient_is_no_contradiction(margin: float, loss: str) -> None:
    """∇ℓ is of the order e^{−margin}: autodiff, which subtracts 1 from nearly 1, sees nothing of it."""
    report = check(
        VectorProblem.from_arrays(
            x=[[1.0, 0.5], [1.0, -0.5]],
            y=[[1.0, 0.0], [1.0, 0.0]],
            f=[[1.0], [0.5]],
            W=[[margin, 1.0], [-margin, 0.0]],
            V=[[0.0], [0.1]],
            loss=loss,
            epsilon=0.1,
        )
    )
    assert report.verdict is Verdict.CERTIFIED
    assert (report.gradient.norm.lower > 0.0) == (margin < 800.0)


def test_one_class_has_a_loss_of_0() -> None:
    sample = draw(95, "generic", "softmax", n=5, d=3, k=2, q=1)
    report = check(replace(sample, W=np.zeros((1, 3))).problem(epsilon=1e-9))
    assert report.verdict is Verdict.CERTIFIED
    assert report.objective.F.upper <= 1e-300


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", ["x", "y", "f", "W", "V"])
@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_extreme_numbers_get_a_verdict_that_is_true(name: str, loss: str, scale: float) -> None:
    """Every exception is a failure; what overflows is unknown and decides nothing."""
    sample = draw(96, "generic", loss, n=3, d=2, k=2, q=2)
    if name == "y" and loss in ("softmax", "logistic"):
        return
    extreme = replace(sample, **{name: getattr(sample, name) * scale})
    report = check(extreme.problem(epsilon=1.0))
    if report.gradient.norm.known:
        truth = norm(VectorTruth(extreme).gradient)
        assert arb(report.gradient.norm.lower) <= truth <= arb(report.gradient.norm.upper)


# --- Verdicts -----------------------------------------------------------------------------------------------

OFF = (1e-1, 1e-8, 1e-12, 1e-14, 3e-16, 0.0)
"""Relative distances of a threshold from what is compared with it."""


def true_verdict(truth: VectorTruth, eps: float, mu2: float) -> bool | None:
    """Definition 1 in 256 bits."""
    norm2 = sum((entry * entry for entry in truth.gradient), arb(0))
    m2, limit = truth.lambda_min * truth.lambda_min, arb(mu2) * arb(eps)
    gradient = True if norm2 <= arb(eps) ** 2 else False if norm2 > arb(eps) ** 2 else None
    curved = True if truth.lambda_min >= 0 or m2 <= limit else False if m2 > limit else None
    if False in (gradient, curved):
        return False
    return None if None in (gradient, curved) else True


def verdicts_around(sample: VectorSample, condition: str) -> dict[float, list[Verdict]]:
    """The verdicts where one condition is met, or missed, by a relative distance, and the other by far."""
    truth = VectorTruth(sample)
    G = float(sum((entry * entry for entry in truth.gradient), arb(0)).sqrt().mid())
    m = max(0.0, -float(truth.lambda_min.mid()))
    found: dict[float, list[Verdict]] = {}
    for off in OFF:
        for sign in (1.0, -1.0):
            by = 1.0 + sign * off
            if condition == "gradient":
                eps, mu2 = G * by, 1e9 * (1.0 + m * m) / G
            else:
                eps = 2.0 * G + 1.0
                mu2 = m * m / eps * by
            report = check(sample.problem(epsilon=eps, mu2=mu2))
            true = true_verdict(truth, eps, mu2)
            if report.verdict is Verdict.CERTIFIED:
                assert true is not False, (condition, off, sign)
            if report.verdict is Verdict.REFUTED:
                assert true is not True, (condition, off, sign)
            assert report.verdict is Verdict.all_of((report.gradient.verdict, report.hessian.verdict))
            other = report.hessian if condition == "gradient" else report.gradient
            assert other.verdict is Verdict.CERTIFIED
            found.setdefault(off, []).append(report.verdict)
    return found


@pytest.mark.parametrize("condition", ["gradient", "curvature"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("shape", [WIDE, NARROW], ids=["d ≥ q", "d < q"])
def test_margins_are_decided_rightly_or_not_at_all(shape: dict[str, int], loss: str, condition: str) -> None:
    seen = verdicts_around(draw(60, "generic", loss, **shape), condition)
    for off in (1e-1, 1e-8):
        assert seen[off] == [Verdict.CERTIFIED, Verdict.REFUTED], off
    assert Verdict.UNDECIDED in {*seen[0.0], *seen[3e-16]}


@pytest.mark.parametrize("corner", [corner for corner in CORNERS if corner != "f = 0"])
def test_margins_in_the_corners(corner: str) -> None:
    for condition in ("gradient", "curvature"):
        sample = draw(61, corner, LOSSES[CORNERS.index(corner) % 4], **SQUARE)
        if condition == "curvature" and not VectorTruth(sample).lambda_min < -1e-6:
            continue
        seen = verdicts_around(sample, condition)
        assert seen[1e-1] == [Verdict.CERTIFIED, Verdict.REFUTED]


@pytest.mark.long
@pytest.mark.parametrize("corner", CORNERS)
def test_many_margins_are_decided_rightly_or_not_at_all(corner: str) -> None:
    for seed in range(300, 306):
        sample = draw(seed, corner)
        truth = VectorTruth(sample)
        if any(abs(entry) > 1e-6 for entry in truth.gradient):  # it is 0 for softmax with one class
            verdicts_around(sample, "gradient")
        if truth.lambda_min < -1e-6:
            verdicts_around(sample, "curvature")


def test_one_factorisation_at_the_threshold_decides_where_the_enclosure_is_wide(monkeypatch) -> None:
    from resnet_cert.vector import hessian

    def wide(parts: hessian.Reduction) -> hessian.Curvature:
        bent = hessian.curvature(parts)
        return replace(bent, lambda_min=bent.lambda_min + Enclosure(0.0, -1.0, 0.0))

    sample = draw(60, "generic", "squared", **WIDE)
    m = -check(sample.problem(epsilon=1.0)).hessian.lambda_min.value
    monkeypatch.setattr("resnet_cert.vector.check.curvature", wide)
    for by, verdict in ((1.0 + 1e-8, Verdict.CERTIFIED), (1.0 - 1e-8, Verdict.REFUTED)):
        report = check(sample.problem(epsilon=100.0, mu2=m * m / 100.0 * by))
        assert report.hessian.verdict is verdict


def test_a_positive_hessian_is_certified_even_for_mu2_0() -> None:
    assert check(spurious().problem(epsilon=1e-9, mu2=0.0)).verdict is Verdict.CERTIFIED


# --- One output: the scalar check ---------------------------------------------------------------------------


def both(corner: str, loss: str, seed: int, **options: Any) -> tuple[Report, Report]:
    """The reports on one problem with one output, as a vector and as a number."""
    sample = draw(seed, corner, loss, q=1, d=3, k=2, n=7)
    if loss == "logistic":
        sample = replace(sample, y=(sample.y > 0.5).astype(float))
    y = 2.0 * sample.y[:, 0] - 1.0 if loss == "logistic" else sample.y[:, 0]
    scalar = Problem.from_arrays(
        x=sample.x,
        y=y,
        f=sample.f,
        w=sample.W[0],
        V=sample.V,
        loss=loss,
        probabilities=sample.probabilities,
        **options,
    )
    return check(sample.problem(**options)), check(scalar, escalate=False)


def same(ours: Enclosure | None, theirs: Enclosure | None) -> bool:
    """Two enclosures of one number, about equally narrow."""
    if ours is None or theirs is None:
        return ours is theirs
    meet = ours.lower <= theirs.upper and theirs.lower <= ours.upper
    wide, width = ours.upper - ours.lower, theirs.upper - theirs.lower
    return meet and (wide <= 1e-6 * max(1.0, abs(theirs.value)) or wide <= 2.0 * width)


OF_ONE_SIZE = ("generic", "weights", "W = 0", "V = 0", "f = 0")
LONGER = [pytest.param(corner, marks=pytest.mark.long) for corner in ("A_f = 0", "one sample", "rank 1")]


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("corner", [*OF_ONE_SIZE, *LONGER])
def test_one_output_has_the_numbers_and_verdicts_of_the_scalar_check(corner: str, loss: str) -> None:
    for epsilon in (0.3, 30.0):
        vector, scalar = both(corner, loss, 70, epsilon=epsilon)
        assert vector.verdict is scalar.verdict
        assert vector.gradient.verdict is scalar.gradient.verdict
        assert vector.hessian.verdict is scalar.hessian.verdict
        assert vector.corollary1.verdict is scalar.corollary1.verdict
    pairs = {
        "F": (vector.objective.F, scalar.objective.F),
        "F_lin_min": (vector.objective.F_lin_min, scalar.objective.F_lin_min),
        "gap": (vector.objective.gap, scalar.objective.gap),
        "gradient": (vector.gradient.norm, scalar.gradient.norm),
        "gradient_w": (vector.gradient.norm_w, scalar.gradient.norm_w),
        "gradient_V": (vector.gradient.norm_V, scalar.gradient.norm_V),
        "lambda_min": (vector.hessian.lambda_min, scalar.hessian.lambda_min),
        "theorem1": (vector.theorem1.lower_bound, scalar.theorem1.lower_bound),
        "refined": (vector.theorem1.lower_bound_refined, scalar.theorem1.lower_bound_refined),
        "theorem2 gradient": (vector.theorem2.gradient_norm, scalar.theorem2.gradient_norm),
        "theorem2 lambda_min": (vector.theorem2.lambda_min, scalar.theorem2.lambda_min),
        "theorem2 left": (vector.theorem2.left, scalar.theorem2.left),
        "theorem2 right": (vector.theorem2.right, scalar.theorem2.right),
        "functional": (vector.gap_bounds.linear_functional, scalar.gap_bounds.linear_functional),
        "first_order": (vector.gap_bounds.first_order, scalar.gap_bounds.first_order),
    }
    different = [name for name, (ours, theirs) in pairs.items() if not same(ours, theirs)]
    assert different == []
    assert vector.hessian.zero_multiplicity == scalar.hessian.zero_multiplicity
    for name in ("b", "r", "mu0", "mu1", "mu2"):  # proven bounds, by different roundings
        ours, theirs = getattr(vector.constants, name), getattr(scalar.constants, name)
        assert ours == pytest.approx(theirs, rel=1e-6)
    assert vector.hessian.threshold.value == pytest.approx(scalar.hessian.threshold.value, rel=1e-6)
    assert vector.smallest_epsilon.value == pytest.approx(scalar.smallest_epsilon.value, rel=1e-6)
    assert vector.objective.attained is scalar.objective.attained
    assert vector.theorem1.applies is scalar.theorem1.applies


# --- Conditions and reasons ---------------------------------------------------------------------------------


def spurious() -> VectorSample:
    """d = 1 < q = 2: a strict local minimum with F = 1/4, where a linear predictor has 1/16."""
    return VectorSample(
        x=np.array([[1.0], [0.0]]),
        y=np.array([[1.0, 0.0], [0.0, 0.5]]),
        f=np.array([[-1.0], [1.0]]),
        W=np.array([[0.0], [0.5]]),
        V=np.array([[1.0]]),
        loss="weighted_squared",
        omega=np.array([[1.0, 3.0], [3.0, 1.0]]),
    )


@pytest.mark.parametrize(
    ("corner", "sizes", "reason"),
    [
        ("generic", WIDE, None),
        ("generic", SQUARE, None),
        ("V = 0", NARROW, None),
        ("W = 0", WIDE, "W = 0: theorem 2 speaks of this point"),
        ("generic", NARROW, "W X = W* V need not have a solution X, for d = 2 < q = 3"),
        (
            "a row of zeros",
            WIDE,
            "W X = W* V need not have a solution X, for W is not proven to have full row rank",
        ),
        (
            "rank 1",
            WIDE,
            "W X = W* V need not have a solution X, for W is not proven to have full row rank",
        ),
    ],
)
def test_theorem_1_applies_or_says_why_not(corner: str, sizes: dict[str, int], reason: str | None) -> None:
    report = check(draw(80, corner, "squared", **sizes).problem(epsilon=0.1))
    assert report.theorem1.reason == reason
    assert report.theorem1.applies is (reason is None)
    assert (report.theorem1.lower_bound is None) is (reason is not None)
    assert report.theorem1.holds is (None if reason else True)
    assert not report.theorem3.applies
    assert report.theorem3.reason == "it is not stated for several outputs"


def test_corollary_1_is_said_to_hold_for_d_at_least_q_only() -> None:
    for shape in SHAPES:
        d, q = shape["d"], shape["q"]
        reason = check(draw(81, "generic", "squared", **shape).problem()).corollary1.reason
        assert reason is not None
        if d >= q:
            assert reason == f"for d = {d} ≥ q = {q} every second-order stationary point has F ≤ inf F_lin"
        else:
            assert reason == f"for d = {d} < q = {q} even a strict local minimum may have F > inf F_lin"


@pytest.mark.parametrize("moved", [0.0, 1e-9, 1e-5, 1e-4])
def test_a_strict_spurious_minimum_is_within_the_distance_that_is_named(moved: float) -> None:
    exact = spurious()
    direction = np.array([[0.6], [-0.8]])
    report = check(replace(exact, W=exact.W + moved * direction).problem(epsilon=0.1))
    assert report.corollary1.verdict is Verdict.REFUTED
    assert report.corollary1.reason is not None
    named = re.search(r"; one that has lies within (\S+) of \(W, V\)$", report.corollary1.reason)
    assert named is not None
    assert moved <= float(named[1]) <= 30.0 * moved + 1e-13


def test_no_spurious_minimum_is_named_where_none_is_proven() -> None:
    exact = spurious()
    saddle = replace(exact, W=np.zeros((2, 1)))
    far = replace(exact, W=exact.W + 0.05)
    better = replace(exact, y=np.array([[0.0, 0.0], [0.0, 0.5]]))  # the point itself has F = 0
    outside = exact.problem(epsilon=0.1, b=1.0 + 1e-15)
    claimed = exact.problem(epsilon=0.1, mu2=1e18)
    for problem in (*(sample.problem(epsilon=0.1) for sample in (saddle, far, better)), outside, claimed):
        reason = check(problem).corollary1.reason
        assert reason == "for d = 1 < q = 2 even a strict local minimum may have F > inf F_lin"


# --- What must not matter -----------------------------------------------------------------------------------


def assert_same_report(ours: VectorProblem, theirs: VectorProblem, scale: float = 1.0) -> None:
    """Two reports on one truth; `scale`: ours is of the objective times this."""
    first, second = check(ours), check(theirs)
    assert first.verdict is second.verdict
    for name in ("F", "F_lin_min", "gap"):
        assert same(getattr(first.objective, name), getattr(second.objective, name) * scale), name
    for name in ("norm", "norm_w", "norm_V"):
        assert same(getattr(first.gradient, name), getattr(second.gradient, name) * scale), name
    assert same(first.hessian.lambda_min, second.hessian.lambda_min * scale)
    assert first.hessian.zero_multiplicity == second.hessian.zero_multiplicity
    assert first.theorem1.applies is second.theorem1.applies
    assert same(first.gap_bounds.first_order, second.gap_bounds.first_order * scale)
    assert first.corollary1.verdict is second.corollary1.verdict


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6), corner=st.sampled_from(WELL_POSED), loss=st.sampled_from(LOSSES))
def test_the_order_of_samples_outputs_and_inputs_does_not_matter(seed: int, corner: str, loss: str) -> None:
    rng = np.random.default_rng(seed)
    sample = draw(seed, corner, loss, **NARROW)
    rows, outputs, inputs, features = (rng.permutation(size) for size in (len(sample.x), 3, 2, 1))

    def taken(array: np.ndarray | None, *axes: np.ndarray) -> np.ndarray | None:
        return None if array is None else array[np.ix_(*axes)] if len(axes) > 1 else array[axes[0]]

    moved = VectorSample(
        x=taken(sample.x, rows, inputs),
        y=taken(sample.y, rows, outputs),
        f=taken(sample.f, rows, features),
        W=taken(sample.W, outputs, inputs),
        V=taken(sample.V, inputs, features),
        loss=loss,
        omega=taken(sample.omega, rows, outputs),
        probabilities=taken(sample.probabilities, rows),
    )
    assert_same_report(moved.problem(epsilon=0.5), sample.problem(epsilon=0.5))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_sample_twice_is_one_of_twice_the_probability(loss: str) -> None:
    sample = draw(90, "generic", loss, **SQUARE)
    twice = {
        name: np.concatenate([getattr(sample, name), getattr(sample, name)[:1]])
        for name in ("x", "y", "f", "omega")
        if getattr(sample, name) is not None
    }
    weights = np.array([2.0] + 7 * [1.0]) / 9.0
    assert_same_report(
        replace(sample, **twice).problem(epsilon=0.5),
        replace(sample, probabilities=weights).problem(epsilon=0.5),
    )


@pytest.mark.parametrize("kind", ["squared", "logistic", "softmax"])
def test_a_power_of_two_before_the_loss_is_one_before_every_number(kind: str) -> None:
    from resnet_cert.vector.losses import named_loss

    sample = draw(91, "generic", kind, **SQUARE)
    scaled = replace(sample.problem(epsilon=2.0), loss=named_loss(kind, 4.0))
    assert_same_report(scaled, sample.problem(epsilon=0.5), 4.0)


def test_labels_are_rows_of_probabilities() -> None:
    sample = draw(92, "hard labels", "softmax", **NARROW)
    labels = sample.problem(epsilon=0.5)
    labels = VectorProblem.from_arrays(
        x=sample.x, y=sample.y.argmax(axis=1), f=sample.f, W=sample.W, V=sample.V, loss="softmax", epsilon=0.5
    )
    assert check(labels).objective == check(sample.problem(epsilon=0.5)).objective
    assert_same_report(labels, sample.problem(epsilon=0.5))


def test_weights_of_one_are_none() -> None:
    sample = draw(93, "generic", "squared", **SQUARE)
    weighted = replace(sample, loss="weighted_squared", omega=np.ones_like(sample.y))
    assert_same_report(weighted.problem(epsilon=0.5), sample.problem(epsilon=0.5))


def test_two_classes_have_the_objective_of_a_logistic_output() -> None:
    """log Σ e^{p_j} − p_y for p = (0, wᵀh) is log(1 + e^{wᵀh}) − y wᵀh."""
    sample = draw(94, "hard labels", "logistic", n=9, d=2, k=2, q=1)
    W = np.concatenate([np.zeros((1, 2)), sample.W])
    y = np.concatenate([1.0 - sample.y, sample.y], axis=1)
    softmax, logistic = check(replace(sample, W=W, y=y, loss="softmax").problem()), check(sample.problem())
    assert same(softmax.objective.F, logistic.objective.F)
    assert same(softmax.objective.F_lin_min, logistic.objective.F_lin_min)
    assert math.isclose(softmax.gradient.norm_w.value, math.sqrt(2.0) * logistic.gradient.norm_w.value)
    assert same(softmax.gradient.norm_V, logistic.gradient.norm_V)


def test_a_report_from_arrays_is_that_of_a_python_user(capsys: pytest.CaptureFixture[str]) -> None:
    """Lists, integers and float32 will do; nothing is printed."""
    report = check(
        VectorProblem.from_arrays(
            x=[[1, 0], [0, 1], [1, 1], [1, 2]],
            y=[0, 1, 2, 1],
            f=np.ones((4, 1), dtype=np.float32),
            W=[[1, 0], [0, 1], [0, 0]],
            V=[[0.5], [0.25]],
            loss="softmax",
            epsilon=0.1,
        )
    )
    assert report.verdict is Verdict.REFUTED
    assert capsys.readouterr() == ("", "")
