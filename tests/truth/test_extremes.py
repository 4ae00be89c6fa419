"""Whole checks of heads with entries from 5e-324 to 1e300, in balance or not, against 4,000 bits.

No enclosure misses, no verdict is wrong, and no run ends in an error.
"""

from __future__ import annotations

import heads
import numpy as np
import pytest
from flint import arb, ctx
from heads import LOSSES, HeadTruth
from oracle_algebra import root
from stages import extreme, holds

from resnet_cert import check
from resnet_cert.outcomes import Verdict
from resnet_cert.results import Report

BITS = 4000


def misses(seed: int, loss: str) -> list[str]:
    """What a report says and is not so."""
    head, rng = extreme(seed, loss), np.random.default_rng([seed, 5])
    epsilon = 10.0 ** rng.uniform(-320.0, 10.0)
    mu2 = 10.0 ** rng.uniform(-300.0, 200.0) if rng.random() < 0.5 else None
    r = 1.0 if rng.random() < 0.5 else None
    report = check(head.problem(epsilon=epsilon, r=r, mu2=mu2))
    with ctx.workprec(BITS):
        truth = HeadTruth(head)
        try:
            bent = truth.lambda_min
        except ArithmeticError:  # e^p overflows in balls too
            bent = None
        found = [
            name
            for name, ours, exact in (
                ("F", report.objective.F, truth.F),
                ("‖∇F‖", report.gradient.norm, truth.norm),
                ("λ_min", report.hessian.lambda_min, bent),
            )
            if exact is not None and not holds(ours, exact)
        ]
        return found + (["verdict"] if bent is not None and _is_wrong(report, truth) else [])


def _is_wrong(report: Report, truth: HeadTruth) -> bool:
    """The verdict is proven to be false."""
    mu2, epsilon = report.constants.mu2, arb(report.epsilon)
    threshold = arb(0) if mu2 is None else root(arb(mu2) * epsilon)
    slope, bent = truth.norm, truth.lambda_min
    if report.verdict is Verdict.CERTIFIED:
        return slope > epsilon or (mu2 is not None and bent < -threshold)
    return report.verdict is Verdict.REFUTED and slope <= epsilon and bent >= -threshold


@pytest.fixture(autouse=True)
def _precision(monkeypatch):
    monkeypatch.setattr(heads, "BITS", BITS)


@pytest.mark.parametrize("loss", LOSSES)
def test_no_report_misses_at_any_scale(loss):
    for seed in range(5):
        assert not misses(seed, loss), seed


@pytest.mark.long
@pytest.mark.parametrize("loss", LOSSES)
def test_no_report_misses_at_any_scale_for_long(loss):
    for seed in range(2000):
        assert not misses(10_000 + seed, loss), seed
