"""Whole reports on any head against the oracle: every enclosure holds the true value, no verdict is wrong.

ε and μ2 lie within 1e−13 to 1e−1 of the point's own thresholds, on either side.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import mpmath
import numpy as np
import pytest
from curvature import number
from flint import arb, ctx
from heads import BITS, CORNERS, LOSSES, Head, HeadTruth, draw
from linear_heads import LinearTruth, minimum
from mpmath import mpf
from oracle_algebra import norm
from selections import first

from resnet_cert import Enclosure, Report, Verdict, check
from resnet_cert.results import CrossCheck


@pytest.fixture(autouse=True)
def _precision() -> Iterator[None]:
    with ctx.workprec(BITS), mpmath.workdps(70):
        yield


def matrix(rows: Any) -> mpmath.matrix:
    entries = [[number(e) if isinstance(e, arb) else mpf(float(e)) for e in row] for row in rows]
    return mpmath.matrix(entries)


def frobenius(M: mpmath.matrix) -> mpf:
    return mpmath.sqrt(sum(entry**2 for entry in M))


def inner(M: mpmath.matrix, N: mpmath.matrix) -> mpf:
    return sum(a * b for a, b in zip(M, N, strict=True))


def singular_values(M: mpmath.matrix) -> list[mpf]:
    """In descending order."""
    return sorted(mpmath.svd_r(M, compute_uv=False), reverse=True)


def on_span(loss: str, M: mpmath.matrix) -> mpmath.matrix:
    """NᵀM: for softmax in coordinates of 1^⊥ (Helmert's), else M itself."""
    q = M.rows
    if loss != "softmax" or q == 1:
        return M
    N = mpmath.zeros(q, q - 1)
    for j in range(1, q):
        length = mpmath.sqrt(mpf(j) * (j + 1))
        for i in range(j):
            N[i, j - 1] = 1 / length
        N[j, j - 1] = -j / length
    return N.T * M


@dataclass(frozen=True)
class Case:
    head: Head
    options: dict[str, Any]
    description: str

    @property
    def truth(self) -> HeadTruth:
        return self.head.truth

    @cached_property
    def report(self) -> Report:
        return check(self.head.problem(**self.options))

    @cached_property
    def linear(self) -> LinearTruth:
        return minimum(self.truth, self.report.constants.r)


def near(rng: np.random.Generator, threshold: float) -> float:
    """A positive number within 1e−13 to 1e−1 of a threshold, on either side, or far from 0."""
    if not threshold > 1e-30:
        return float(10.0 ** rng.uniform(-6, 0))
    return threshold * (1.0 + float(rng.choice([-1.0, 1.0])) * 10.0 ** rng.uniform(-13, -1))


def case(loss: str, corner: str, seed: int, q: int | None = None) -> Case:
    """A head of one to three outputs, or of q, with d1 from q − 2 to q + 1 inputs of the block."""
    rng = np.random.default_rng([seed, LOSSES.index(loss), CORNERS.index(corner), 7])
    d1 = None if q is None else int(rng.integers(max(1, q - 2), q + 2))
    head = draw(seed * 1000 + LOSSES.index(loss), corner, loss, q=q, d1=d1)
    if rng.random() < 0.4:
        head = replace(head, l2=float(rng.choice([1e-3, 0.1, 1.0])))
    truth = head.truth
    with ctx.workprec(BITS):
        epsilon = near(rng, float(truth.norm.mid()))
        m = max(0.0, -float(truth.lambda_min.mid()))
    mu2 = near(rng, m * m / epsilon)
    options = {"epsilon": epsilon, "mu2": mu2, "r": float(10.0 ** rng.uniform(-1.0, 0.5))}
    return Case(head, options, f"{loss}, {corner}, seed {seed}, {options}")


def misses(at: Case) -> dict[str, str]:
    """Every enclosure of the report that does not hold the true value."""
    report, truth = at.report, at.truth
    head, loss = at.head, at.head.loss
    gap = truth.F - at.linear.value
    pairs: dict[str, tuple[Enclosure | None, arb]] = {
        "F": (report.objective.F, truth.F),
        "F_lin_min": (report.objective.F_lin_min, at.linear.value),
        "gap": (report.objective.gap, gap),
        "gradient": (report.gradient.norm, truth.norm),
        "lambda_min": (report.hessian.lambda_min, truth.lambda_min),
    }
    bounds = report.gap_bounds
    for name in ("linear_functional", "first_order", "local"):
        pairs[f"gap ≤ {name}"] = (_upper(getattr(bounds, name)), gap)
    if report.regularized is not None:
        about = report.regularized
        parameters = norm([p * int(on) for p, on in zip(truth.parameters, head.decayed, strict=True)])
        G = truth.F + arb(head.l2) * parameters * parameters
        lowest = minimum(truth, math.inf, decay=True).value
        pairs["G"] = (about.objective, G)
        pairs["min G_lin"] = (about.objective_lin_min, lowest)
        pairs["gap ≤ proposition R"] = (_upper(about.proposition_R), gap)
        pairs["G gap ≤ bound"] = (
            _upper(about.gap_bound),
            G - minimum(truth, report.constants.r, decay=True).value,
        )
    if report.theorem1.applies:
        paper, refined = theorem1(at)
        pairs["theorem1 refined"] = (report.theorem1.lower_bound_refined, _arb(refined))
        pairs["theorem1"] = (report.theorem1.lower_bound, _arb(paper))
    elif report.regularized is None and loss:
        W1 = on_span(loss, matrix(head.W[:, : truth.d1]))
        full = W1.rows <= W1.cols and min(singular_values(W1), default=mpf(1)) > mpf(10) ** -12
        if full and head.V.any():
            return {"theorem1": f"does not apply: {report.theorem1.reason}"}
    if report.theorem3.applies and report.theorem3.bound is not None:
        pairs["gap ≤ theorem3"] = (_upper(report.theorem3.bound), gap)
    return {
        name: f"{ours} does not hold {true.str(20)}"
        for name, (ours, true) in pairs.items()
        if ours is not None and not (true.overlaps(_ball(ours)))
    }


def theorem1(at: Case) -> tuple[mpf, mpf]:
    """Both right sides, with W* the minimiser of least norm."""
    truth, head = at.truth, at.head
    d1, q, loss = truth.d1, truth.q, head.loss
    W = matrix(head.head)
    W_star = mpmath.matrix(q, truth.d)
    for i, entry in enumerate(at.linear.W):
        W_star[i // truth.d, i % truth.d] = number(entry)
    W1, W1_star = (on_span(loss, M[:, :d1]) for M in (W, W_star))
    V = matrix(head.V)
    gap = number(truth.F - at.linear.value)
    distance = frobenius(on_span(loss, W - W_star))
    X = W1.T * mpmath.inverse(W1 * W1.T) * W1_star * V if head.V.any() else mpmath.zeros(1, 1)
    sigma = min(singular_values(W1))
    norm_V = max(singular_values(V))
    norm_W, norm_star = frobenius(on_span(loss, W)), frobenius(on_span(loss, W_star))
    root = 2 * norm_W**2 + norm_star**2 * (2 + (norm_V / sigma) ** 2)
    refined = mpmath.hypot(distance, frobenius(X))
    return gap / mpmath.sqrt(root), gap / refined if refined else mpf(0)


def _arb(x: mpf) -> arb:
    return arb(mpmath.nstr(x, 60), mpmath.nstr(abs(x) * mpf(10) ** -20 + mpf(10) ** -25, 5))


def _upper(x: Enclosure | None) -> Enclosure | None:
    return None if x is None else Enclosure(x.value, -math.inf, x.upper)


def _ball(x: Enclosure) -> arb:
    lower = arb(x.lower) if math.isfinite(x.lower) else arb("-1e400")
    upper = arb(x.upper) if math.isfinite(x.upper) else arb("1e400")
    return lower.union(upper)


def wrong_verdict(at: Case) -> str | None:
    """Why the verdict is false, if it is."""
    truth, report = at.truth, at.report
    eps, mu2 = arb(at.options["epsilon"]), arb(at.options["mu2"])
    point = bool(truth.norm <= eps) and bool(truth.lambda_min >= -(mu2 * eps).sqrt())
    off = bool(truth.norm > eps) or bool(truth.lambda_min < -(mu2 * eps).sqrt())
    if report.verdict is Verdict.CERTIFIED and off:
        return "CERTIFIED, and it is none"
    if report.verdict is Verdict.REFUTED and point:
        return "REFUTED, and it is one"
    return None


@pytest.fixture(autouse=True)
def _without_crosscheck(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autodiff has tests of its own, and no enclosure depends on it."""
    module = importlib.import_module("resnet_cert.check")
    monkeypatch.setattr(module, "crosscheck", lambda *_: CrossCheck(0.0, 0.0, None))


def hold(at: Case) -> None:
    assert misses(at) == {}, at.description
    assert wrong_verdict(at) is None, at.description


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("shift", first(1, range(2)))
def test_every_enclosure_holds_and_no_verdict_is_wrong(corner: str, shift: int):
    hold(case(LOSSES[(CORNERS.index(corner) + 3 * shift) % len(LOSSES)], corner, shift))


@pytest.mark.long
@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_many_enclosures_hold_and_no_verdict_is_wrong(loss: str, corner: str):
    for seed in range(100, 160):
        hold(case(loss, corner, seed))


@pytest.mark.long
@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_heads_of_four_outputs(loss: str, corner: str):
    for seed in range(10):
        hold(case(loss, corner, seed, 4))
