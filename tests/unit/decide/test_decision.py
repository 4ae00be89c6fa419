"""The way to a verdict: every method on every head is right, and what is left open says what would decide."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mpmath as mp
import numpy as np
import pytest
from curvature import DIGITS, Exact, constrained
from families import CORNERS, draw
from heads import Head
from selections import first

from resnet_cert import Problem, check
from resnet_cert.decide import decision as deciding
from resnet_cert.decide.crosscheck import crosscheck
from resnet_cert.decide.decision import Decision, decide, informative, takes_second_moments
from resnet_cert.decide.hessian import Shift
from resnet_cert.moments.gradient import first_moments
from resnet_cert.moments.one_pass import observe
from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.numerics.radius import Radius
from resnet_cert.outcomes import InternalError, RequestError, Verdict
from resnet_cert.problem.custom_loss import CustomLoss, Enclosed

CERTIFIED, REFUTED, UNDECIDED = Verdict.CERTIFIED, Verdict.REFUTED, Verdict.UNDECIDED


def decided(problem: Problem, mu2: float | None, *, check: bool = True, **options) -> Decision:
    seen = observe(problem, 10.0)
    here = seen.here if takes_second_moments(problem) else first_moments(problem)
    found = decide(problem, here, mu2, second_moments=lambda: seen.here, **options)
    if check:
        crosscheck(problem, here, found, seen.lipschitz)
    return found


def head_of(seed: int, corner: str) -> Head:
    head = draw(seed, corner, l2=[0.0, 0.3][seed % 2])
    return replace(head, loss="squared") if head.loss == "softmax" and head.q == 1 else head


def assert_right(found: Decision, truth: Exact, eps: float, mu2: float) -> None:
    with mp.workdps(DIGITS):
        margin = truth.lambda_min + mp.sqrt(mp.mpf(mu2) * mp.mpf(eps))
        slack = mp.mpf(10) ** -35 * max(1.0, truth.size)
        true = bool(truth.norm <= eps + slack and margin >= -slack)
        false = bool(truth.norm > eps - slack or margin < slack)
    assert true or found.verdict is not CERTIFIED
    assert false or found.verdict is not REFUTED
    lambda_min, norm = found.curvature.lambda_min, found.slope.norm
    assert truth.holds(lambda_min.lower, lambda_min.upper), (truth.lambda_min, lambda_min)
    assert norm.lower <= truth.norm + 1e-50 * truth.size
    assert truth.norm - 1e-50 * truth.size <= norm.upper
    if found.curvature.method != "bound":
        of_F = found.of_F.lambda_min
        assert truth.holds(of_F.lower, of_F.upper, truth.lambda_min_of_F)


COMPARED = ("generic", "V = 0", "A_f = 0")
"""Corners at which every run has JAX compile the derivatives along a direction: each has its own shapes."""


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("method", first(1, ["auto", "bound", "exact"]))
def test_no_verdict_is_wrong_beside_its_threshold(corner: str, method: str, longer: int) -> None:
    for seed, on_sphere in ((0, False), (2, True), (1, False))[: 1 + longer]:
        head = head_of(seed, corner)
        truth = Exact(head, constrained=on_sphere)
        if on_sphere and (truth.multiplier is None or len(truth.z) == 1):
            continue
        problem = replace(constrained(head) if on_sphere else head.problem(), hessian=method)
        for off in (-1e-12, 1e-12, 1e-2):
            eps = float(truth.norm) * (1.0 + abs(off)) or 1.0
            t = -float(truth.lambda_min) * (1.0 + off)
            mu2 = t * t / eps if t > 0.0 else 0.0
            found = decided(
                replace(problem, epsilon=eps),
                mu2,
                check=off == 1e-2 and on_sphere and (longer > 1 or corner in COMPARED),
                escalate=method != "bound",
            )
            assert_right(found, truth, eps, mu2)
            if method != "bound" and truth.norm > 0:
                tie = abs(truth.lambda_min) < 1e-30 * truth.size
                assert tie or found.verdict is not UNDECIDED


@pytest.mark.parametrize("corner", first(3, sorted(CORNERS, key=lambda corner: corner not in COMPARED)))
def test_the_bound_needs_no_hessian(corner: str) -> None:
    """Certified where ‖A_f‖ is small enough, whatever the rest."""
    head = head_of(0, corner)
    problem = replace(head.problem(epsilon=1e4), hessian="bound")
    found = decide(problem, first_moments(problem), 1e4, second_moments=lambda: pytest.fail("a second pass"))
    assert found.verdict is CERTIFIED
    assert found.curvature.method == "bound"
    assert found.moments is None


def test_a_direction_refutes_without_a_hessian() -> None:
    """Example 1 at its saddle (0, −1/slope): λ_min = −slope."""
    problem = Problem.from_arrays(
        x=[[1.0]], y=[1.0], f=[[0.125]], w=[0.0], V=[[-8.0]], epsilon=1e-3, hessian="bound"
    )
    found = decide(problem, first_moments(problem), 1.0, second_moments=lambda: pytest.fail("a second pass"))
    assert found.verdict is REFUTED
    assert found.curvature.lambda_min.upper == pytest.approx(-0.125)


def test_what_the_bound_leaves_open_the_exact_method_decides_if_it_is_quick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head = draw(4, "generic", "squared", q=1, d1=3, d2=0, bias=False)
    truth = Exact(head)
    eps, t = float(truth.norm) * 1.1, -float(truth.lambda_min) * 1.0001
    problem = head.problem(epsilon=eps)
    monkeypatch.setattr(deciding, "MOMENT_OPERATIONS", 0.0)
    monkeypatch.setattr(deciding, "PASS_OPERATIONS", 0.0)
    auto = decided(problem, t * t / eps, escalate=False)
    assert (auto.verdict, auto.curvature.method) == (CERTIFIED, "reduced")
    monkeypatch.setattr(deciding, "SECONDS_OPERATIONS", 0.0)
    bound = decided(problem, t * t / eps, escalate=False)
    assert (bound.verdict, bound.curvature.method) == (UNDECIDED, "bound")
    assert any("--hessian exact" in reason for reason in bound.reasons)


def test_an_exact_method_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deciding, "MOST_ROWS", 3)
    problem = replace(draw(1, "generic", "squared", q=2).problem(), hessian="exact")
    with pytest.raises(RequestError, match="rows"):
        takes_second_moments(problem)


def test_without_escalation_an_exact_zero_stays_undecided() -> None:
    problem = Problem.from_arrays(x=[[1.0]], y=[1.0], f=[[0.125]], w=[0.5], V=[[8.0]])
    assert decided(problem, 1.0, escalate=False).verdict is UNDECIDED
    found = decided(problem, 1.0)
    assert found.verdict is CERTIFIED
    assert any("--arithmetic ball" not in reason for reason in found.reasons)


def test_both_arithmetics_give_one_verdict() -> None:
    for seed in range(4):
        head = head_of(seed, "generic")
        problem = head.problem(epsilon=0.3)
        plain, fine = decided(problem, 1.0), decided(problem, 1.0, arithmetic="ball")
        assert plain.verdict is fine.verdict
        assert fine.arithmetic == "ball"
        for one, other in (
            (plain.F, fine.F),
            (plain.slope.norm, fine.slope.norm),
            (plain.curvature.lambda_min, fine.curvature.lambda_min),
        ):
            assert max(one.lower, other.lower) <= min(one.upper, other.upper)


def test_a_test_that_every_point_passes_says_so() -> None:
    size = Radius.of(2.0)
    assert informative(Enclosure.exact(3.0), size, 1.0) == (True, 4.0)
    assert informative(Enclosure.exact(1.0), size, 1.0) == (False, 4.0)
    assert informative(None, size, 1.0) == (None, None)
    assert informative(Enclosure.exact(1.0), None, 1.0) == (None, None)
    head = draw(1, "generic", "squared", q=2)
    assert decided(head.problem(epsilon=1e6), 1.0).vacuous is True
    assert decided(head.problem(epsilon=1e-6), 1.0).vacuous is False


def test_a_contradiction_of_autodiff_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = draw(1, "generic", "squared", q=2).problem(epsilon=0.1)
    right = Shift.along
    monkeypatch.setattr(Shift, "along", lambda self, u: right(self, u) + 0.1)
    with pytest.raises(InternalError, match="curvature along the witness"):
        decided(problem, 1.0)


def test_large_heads_are_decided_by_their_first_derivatives() -> None:
    rng = np.random.default_rng(0)
    n, d1, k, q = 300, 64, 80, 20
    problem = Problem.from_arrays(
        x=rng.normal(size=(n, d1)) / 8.0, y=rng.integers(0, q, n).astype(float), f=rng.normal(size=(n, k)) /
        9.0, W=rng.normal(size=(q, d1)) / 8.0, V=rng.normal(size=(d1, k)) / 8.0, c=np.zeros(q),
        loss="softmax", epsilon=0.5,
    )  # fmt: skip
    assert not takes_second_moments(problem)
    found = decide(problem, first_moments(problem), 1.0, second_moments=lambda: pytest.fail("a second pass"))
    assert found.verdict is CERTIFIED
    crosscheck(problem, first_moments(problem), found, None)
    assert -0.1 < found.curvature.lambda_min.lower <= found.curvature.lambda_min.upper <= 0.0


@pytest.mark.parametrize("l2", [None, 0.25])
def test_autodiff_sees_a_users_loss_whose_value_alone_is_wrong(
    l2: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A constant that the enclosure of ℓ misses changes no derivative."""
    loss = CustomLoss(lambda p, y: (p - y) ** 2 + 0.0 * y, "mine")
    x = np.array([[1.0, 0.5], [0.0, 1.0], [2.0, -1.0]])
    problem = Problem.from_arrays(
        x=x, y=x[:, 0], f=x, W=[[1.0, 0.5]], V=0.1 * np.eye(2), loss=loss, epsilon=1.0, l2=l2
    )
    check(problem)
    enclosed = CustomLoss.enclosed

    def shifted(*arguments: Any) -> Any:
        (value, error), *others = enclosed(*arguments)
        return [Enclosed(value + 0.125, error), *others]

    monkeypatch.setattr(CustomLoss, "enclosed", shifted)
    with pytest.raises(InternalError, match="autodiff gives the objective"):
        check(problem)
