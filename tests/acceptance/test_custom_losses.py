"""Reports on users' losses: what rests on Assumption 1 is null where that is neither proven nor claimed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reports import leave_out_crosscheck
from selections import first
from user_losses import LOSSES

from resnet_cert.check import bound_constants, check
from resnet_cert.compare.profile import profile
from resnet_cert.outcomes import RequestError, Verdict
from resnet_cert.problem.custom_loss import CustomLoss
from resnet_cert.problem.problem import Point, Problem
from resnet_cert.report import Style, formatter
from resnet_cert.results import Assumption1


def problem(loss: Any, n: int = 12, **changes: Any) -> Problem:
    rng = np.random.default_rng(2)
    arrays = {
        "x": rng.normal(size=(n, 2)),
        "y": np.where(np.arange(n) % 3 == 0, 1.0, -1.0),
        "f": rng.normal(size=(n, 3)),
        "w": np.array([0.3, -0.2]),
        "V": 0.1 * np.arange(6.0).reshape(2, 3),
    }
    return Problem.from_arrays(**arrays, loss=loss, epsilon=3.0, **changes)


def log_cosh(p: Any, y: Any) -> Any:
    return jnp.log(jnp.cosh(p - y))


def log_cosh_at_infinity_unknown(p: Any, y: Any) -> Any:
    """The same, up to a constant: convex in any range, and ∞ − ∞ beyond."""
    return jnp.logaddexp(p - y, y - p)


def unbounded(p: Any, y: Any) -> Any:
    """log cosh(p − y) as long as p is much less than 20, and −9p far beyond."""
    return log_cosh(p, y) - 10.0 * jnp.logaddexp(0.0, p - 20.0)


def hollow(p: Any, y: Any) -> Any:
    """log cosh(p − y) beside a hollow of depth 40 around p = 9."""
    return log_cosh(p, y) - 40.0 * jnp.exp(-4.0 * (p - 9.0) ** 2)


def text(report: Any) -> str:
    return " ".join(formatter("text").check([report], Style()).split())


@pytest.mark.parametrize(
    ("name", "builtin"), first(1, [("softplus", "logistic"), ("pseudo_huber", "pseudo_huber")])
)
def test_a_loss_that_is_proven_convex_is_checked_like_the_builtin_one(name: str, builtin: str) -> None:
    given = problem(CustomLoss(LOSSES[name].function, name)), problem(builtin)
    mine, theirs = (check(each, break_even=False) for each in given)
    assert mine.problem.assumption1.status == "proven"
    assert mine.verdict is theirs.verdict is Verdict.CERTIFIED
    assert theirs.constants.mu2 is not None
    assert mine.constants.mu2 == pytest.approx(theirs.constants.mu2, rel=0.15)
    assert mine.theorem1.holds is theirs.theorem1.holds is True
    for ours, other in (
        (mine.objective.F, theirs.objective.F),
        (mine.objective.F_lin_min, theirs.objective.F_lin_min),
        (mine.gradient.norm, theirs.gradient.norm),
        (mine.hessian.lambda_min, theirs.hessian.lambda_min),
    ):
        assert ours.lower <= other.upper
        assert other.lower <= ours.upper
        assert ours.upper - ours.lower < 1e-6


def test_what_rests_on_a_convexity_that_is_not_known_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_crosscheck(monkeypatch)
    huber = LOSSES["huber"].function
    report = check(problem(CustomLoss(huber, "huber"), mu0=50.0, mu1=50.0, mu2=50.0), break_even=False)
    about = report.problem.assumption1
    assert about.status == "unknown"
    assert about.reason is not None
    assert report.theorem1.reason is not None
    assert report.verdict is Verdict.CERTIFIED  # Definition 1 does not ask for convexity
    assert report.objective.F_lin_min.lower == -math.inf
    assert math.isfinite(report.objective.F_lin_min.upper)
    assert report.objective.gap.upper == math.inf
    assert report.objective.attained is None
    assert report.theorem1.holds is report.theorem3.holds is report.theorem2.holds is None
    assert not report.gap_bounds.local.known
    claimed = check(problem(CustomLoss(huber, "huber", convex=True)), break_even=False)
    assert claimed.problem.assumption1.status == "claimed"
    assert claimed.objective.F_lin_min.known
    assert claimed.theorem1.holds


def test_constants_of_a_loss_of_pieces_are_the_users_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_crosscheck(monkeypatch)
    report = check(problem(CustomLoss(LOSSES["huber"].function, "huber")), break_even=False)
    assert report.constants.source["mu2"] == "missing"
    assert report.verdict is Verdict.UNDECIDED


def test_a_loss_that_is_not_convex_anywhere_in_its_range_is_refused() -> None:
    def bump(p: Any, y: Any) -> Any:
        return 0.5 * (p - y) ** 2 - 1e-6 * jnp.exp(-((1e4 * (p - 0.41421356)) ** 2))

    with pytest.raises(RequestError, match=r"not convex: second derivative ≤ -.* p = 0\.41.*\(sample \d+\)"):
        check(problem(CustomLoss(bump, "bump")))


# --- Convex in a range, and everywhere ----------------------------------------------------------------------


@pytest.mark.parametrize("loss", [unbounded, hollow])
def test_a_convexity_of_a_range_says_nothing_of_all_predictors(loss: Any) -> None:
    at = problem(CustomLoss(loss, "mine"))
    report = check(at, break_even=True, augmented=True)
    about, found = report.problem.assumption1, report.objective
    assert about == Assumption1("proven", about.range, everywhere="unknown")
    # On the ball it is the best, and far beyond there is a better one.
    assert found.F_lin_min.known
    head = np.array([[1.0, 0.0]])
    far = [float(np.mean(loss(c * (at.chunk(slice(0, at.n)).x @ head.T), at.distribution.y))) for c in RAYS]
    assert min(far) < found.F_lin_min.lower - 0.1
    assert found.attained is found.falls_at_rim is None
    assert found.block_gap is not None
    assert found.block_gap.upper == math.inf
    assert report.augmented is not None
    assert report.augmented.attained is None
    assert "for the loss is known to be convex in a range only" in text(report)
    assert "proven; beyond that not known" in text(report)


RAYS = [sign * c for c in np.geomspace(1.0, 1e3, 4000) for sign in (-1.0, 1.0)]


def test_what_a_claim_says_of_all_predictors() -> None:
    range_only, claimed = (
        check(problem(CustomLoss(log_cosh_at_infinity_unknown, "mine", convex=convex)), break_even=True)
        for convex in (False, True)
    )
    about = claimed.problem.assumption1
    assert (about.status, about.everywhere) == ("proven", "claimed")
    assert claimed.objective.attained is True
    assert claimed.objective.falls_at_rim is False
    assert claimed.objective.block_gap is not None
    assert claimed.objective.block_gap.known
    assert "beyond that by your claim" in text(claimed)
    # What is said of the point and of the ball hangs on the range alone.
    assert range_only.constants.r == claimed.constants.r
    assert range_only.objective.gap == claimed.objective.gap
    assert range_only.theorem1 == claimed.theorem1
    assert range_only.theorem3 == claimed.theorem3
    assert range_only.gap_bounds == claimed.gap_bounds
    one, other = range_only.objective.break_even_radius, claimed.objective.break_even_radius
    assert one is not None
    assert other is not None
    assert one.lower == pytest.approx(other.lower, rel=1e-6)
    assert one.upper == pytest.approx(other.upper, rel=1e-6)


def test_what_a_proof_says_of_all_predictors() -> None:
    report = check(problem(CustomLoss(log_cosh, "mine")), break_even=True)
    about, found = report.problem.assumption1, report.objective
    assert (about.status, about.everywhere) == ("proven", "proven")
    assert found.attained is True
    assert found.block_gap is not None
    assert found.block_gap.known
    assert "the loss is convex and smooth for every p, proven" in text(report)


def test_with_decay_the_best_of_all_predictors_is_not_known_from_below() -> None:
    range_only, claimed = (
        check(problem(CustomLoss(log_cosh_at_infinity_unknown, "mine", convex=convex), l2=0.1)).regularized
        for convex in (False, True)
    )
    assert range_only is not None
    assert claimed is not None
    assert range_only.objective_lin_min.lower == -math.inf
    assert range_only.objective_lin_min.upper >= claimed.objective_lin_min.lower
    assert range_only.gap is not None
    assert range_only.gap.upper == math.inf
    assert range_only.gap_bound is not None
    assert range_only.gap_bound.upper == math.inf
    assert claimed.objective_lin_min.known
    assert claimed.gap_bound is not None
    assert claimed.gap_bound.known
    # Theorem 3 speaks of a ball.
    assert range_only.theorem3 is not None
    assert claimed.theorem3 is not None
    assert range_only.theorem3.holds is claimed.theorem3.holds is True


def test_with_decay_nothing_rests_on_a_convexity_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_crosscheck(monkeypatch)
    mine = CustomLoss(LOSSES["huber"].function, "huber")
    for options in ({"l2": 0.1}, {"norm": 2.0}):
        report = check(problem(mine, mu0=50.0, mu1=50.0, mu2=50.0, **options))
        assert report.regularized is not None
        assert report.regularized.proposition_R is None
        assert report.regularized.gap_bound is None
        third = report.regularized.theorem3
        assert third is None or third.holds is None


def test_a_ball_beyond_the_range_of_the_proof_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """(x, f) has predictors that reach the hollow, on balls where (w, V) and the linear ones do not."""
    leave_out_crosscheck(monkeypatch)
    at = problem(CustomLoss(lambda p, y: log_cosh(p, y) - 1e-3 * jnp.exp(-4.0 * (p - 20.0) ** 2), "mine"))
    widened = Problem.from_arrays(
        x=at.chunk(slice(0, at.n)).x,
        y=at.distribution.y,
        f=8.0 * at.chunk(slice(0, at.n)).f,
        w=at.W[0],
        V=at.V / 8.0,
        b=0.37,
        loss=at.loss,
        epsilon=3.0,
    )
    report = check(widened, augmented=True, break_even=True)
    assert report.problem.assumption1.status == "proven"
    assert report.augmented is not None
    assert report.augmented.minimum.lower == -math.inf
    assert report.augmented.linear_functional.upper == math.inf
    assert report.augmented.holds is None
    assert report.theorem3.augmented is None


@pytest.mark.parametrize("convex", [False, True])
def test_where_a_loss_is_straight_no_best_predictor_is_taken_to_be_there(
    convex: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Huber's loss is straight at p = 0 for y = ±1, where Newton's method has no step, and no minimum is."""
    leave_out_crosscheck(monkeypatch)
    at = problem(CustomLoss(LOSSES["huber"].function, "huber", convex=convex))
    report = check(at, break_even=False)
    assert report.constants.r == report.constants.b
    assert report.objective.F_lin_min.upper < 0.49  # F_lin(0) = 0.5


def test_what_is_open_is_no_number_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_crosscheck(monkeypatch)
    raw = 3.0 * np.random.default_rng(1).normal(size=(12, 2))
    at = problem(CustomLoss(LOSSES["huber"].function, "huber"), compare={"raw": raw})
    at = replace(at, point=Point(np.array([[0.2, -0.1]]), np.zeros((2, 3))))
    words = text(check(at, break_even=False))
    assert "than inf" not in words
    assert "--break-even" not in words  # it would not tell more


def test_a_profile_goes_on_where_the_loss_is_no_longer_convex() -> None:
    rows = profile(problem(CustomLoss(hollow, "mine"))).rows
    known = [math.isfinite(row.F_lin_min.lower) for row in rows]
    assert known[0]
    assert not known[-1]
    assert known == sorted(known, reverse=True)


def test_the_bound_of_theorem_3_is_of_a_convex_loss() -> None:
    huber = LOSSES["huber"].function
    constants: dict[str, Any] = {"mu0": 1.0, "mu1": 1.0, "mu2": 1.0}
    with pytest.raises(RequestError, match="Theorem 3 does not apply: the loss is not known to be convex"):
        bound_constants(problem(CustomLoss(huber, "huber"), **constants))
    bound_constants(problem(CustomLoss(huber, "huber", convex=True), **constants))


def test_a_loss_of_which_nothing_is_enclosed_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_crosscheck(monkeypatch)
    for convex in (False, True):
        loss = CustomLoss(lambda p, y: jax.lax.lgamma(p * p + 10.0) + p * p + y, "mine", convex=convex)
        report = check(problem(loss), break_even=False)
        words = text(report)
        assert "‖∇F‖ is not enclosed: nothing of the loss is." in words
        assert "lgamma" in words
        assert "scale near 1" not in words
        assert "lipschitz.mu2=" not in words
        assert report.theorem1.holds is None
        assert report.theorem1.lower_bound is not None
        assert not report.theorem1.lower_bound.known
