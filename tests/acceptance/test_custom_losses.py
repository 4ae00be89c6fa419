"""Reports on users' losses: what rests on Assumption 1 is null where that is neither proven nor claimed."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from reports import leave_out_crosscheck
from selections import first
from user_losses import LOSSES

from resnet_cert.check import check
from resnet_cert.outcomes import RequestError, Verdict
from resnet_cert.problem.custom_loss import CustomLoss
from resnet_cert.problem.problem import Problem


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
