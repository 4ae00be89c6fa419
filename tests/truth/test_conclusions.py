"""What a report concludes, on random heads of up to four outputs.

That is Theorem 3 in all forms, what decay can have cost, the break-even radius, and what is left to gain.
Bounds are compared with their formulas at 40 digits, radii with minima of 256 bits, and infima with what a
descent of plain float64 finds.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import mpmath
import numpy as np
import pytest
from families import CORNERS, draw
from flint import arb, ctx
from heads import BITS, LOSSES, Array, Head
from linear_heads import minimum
from mpmath import mpf
from oracle_theorems import theorem3_of
from scipy.optimize import minimize
from scipy.special import expit, logsumexp, softmax

from resnet_cert import Problem, Report, check
from resnet_cert.compare.consequences import bound_symbols
from resnet_cert.compare.minimum_on_ball import best_linear_predictor
from resnet_cert.results import BoundConstants, CrossCheck


@pytest.fixture(autouse=True)
def _precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = importlib.import_module("resnet_cert.check")
    monkeypatch.setattr(
        module, "crosscheck", lambda *_: CrossCheck(0.0, 0.0, None)
    )  # no conclusion rests on it
    with ctx.workprec(BITS), mpmath.workdps(40):
        yield


def trained(seed: int) -> tuple[Head, dict[str, Any]]:
    """A head of 1 to 4 outputs, with d1 from q − 2 to q + 1 inputs of the block, and what a spec would add.

    Most are near a minimum in W.
    """
    rng = np.random.default_rng([seed, 99])
    loss, q = str(rng.choice(LOSSES)), int(rng.integers(1, 5))
    q = max(q, 2) if loss == "softmax" else q
    d1, corner = int(rng.integers(max(1, q - 2), q + 2)), str(rng.choice(CORNERS))
    head = draw(seed, corner, loss, q=q, d1=d1, l2=float(rng.choice([0.0, 0.0, 1e-3, 0.1])))
    if rng.random() < 0.5 and corner != "one sample":
        head = _larger(head, int(rng.integers(6, 25)), rng)
    if corner in ("generic", "V = 0", "f = 0", "weights", "hard labels", "A_f = 0") and rng.random() < 0.85:
        moved = head.inputs.copy()
        moved[:, :d1] += head.f @ head.V.T
        W = descended(head, moved, int(rng.choice([3, 300])))[1]
        c = None if head.c is None else W[:, -1].copy()
        head = replace(head, W=W[:, : head.W.shape[1]].copy(), c=c)
    r = float(10.0 ** rng.uniform(-1.0, 0.5)) if rng.random() < 0.5 else None
    return head, {"epsilon": max(1.5 * float(head.truth.norm.mid()), 1e-3), "r": r}


def _larger(head: Head, n: int, rng: np.random.Generator) -> Head:
    """The same point with n other samples, of hard labels where the loss knows any."""
    q = head.q
    y = rng.normal(size=(n, q))
    y = rng.integers(0, 2, (n, q)).astype(float) if head.loss == "logistic" else y
    y = np.eye(q)[rng.integers(0, q, n)] if head.loss == "softmax" else y
    y = rng.poisson(1.0, (n, q)).astype(float) if head.loss == "poisson" else y
    return replace(
        head,
        x=rng.normal(size=(n, head.x.shape[1])),
        f=rng.normal(size=(n, head.f.shape[1])),
        y=y,
        bypass=None if head.bypass is None else rng.normal(size=(n, head.bypass.shape[1])),
        omega=None if head.omega is None else rng.uniform(0.0, 3.0, (n, q)),
        probabilities=None,
    )


def values(head: Head, p: Array) -> tuple[Array, Array]:
    """ℓ (n,) and ∇ℓ (n, q) in float64."""
    y, r = head.y, p - head.y
    match head.loss:
        case "squared" | "weighted_squared":
            omega = np.ones_like(y) if head.omega is None else head.omega
            return 0.5 * (omega * r * r).sum(axis=1), omega * r
        case "logistic":
            return (np.logaddexp(0.0, p) - y * p).sum(axis=1), expit(p) - y
        case "pseudo_huber":
            s = np.hypot(1.0, r)
            return (r * r / (1.0 + s)).sum(axis=1), r / s
        case "poisson":
            rate = np.exp(np.minimum(p, 300.0))
            return (rate - y * p).sum(axis=1), rate - y
        case _:
            mass = y.sum(axis=1, keepdims=True)
            value = (y * (logsumexp(p, axis=1, keepdims=True) - p)).sum(axis=1)
            return value, mass * softmax(p, axis=1) - y


def descended(head: Head, rows: Array, steps: int = 3000) -> tuple[float, Array]:
    """The least E[ℓ(Wz; y)] that a descent finds, and its W."""
    pi = np.ones(len(rows)) if head.probabilities is None else head.probabilities

    def objective(w: Array) -> tuple[float, Array]:
        value, slope = values(head, rows @ w.reshape(head.q, -1).T)
        return float(pi @ value) / pi.sum(), ((pi[:, None] * slope).T @ rows).ravel() / pi.sum()

    start, options = np.zeros(head.q * rows.shape[1]), {"maxiter": steps, "ftol": 0.0, "gtol": 1e-14}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    return float(found.fun), found.x.reshape(head.q, -1)


# --- The formulas -----------------------------------------------------------------------------------------


def decayed_form(c: BoundConstants, epsilon: float, l2: float, norm_V: float) -> mpf:
    """Theorem 3 with weight decay."""
    b, r, mu1, mu2, eps, decay, V = map(mpf, (c.b, c.r, c.mu1, c.mu2, epsilon, l2, norm_V))
    mu = mpmath.sqrt(mu2 * eps) + 2 * decay
    curved = mpmath.sqrt(mu * (mu1 + mu))
    if c.d == c.span:
        low, high = b * mpf(10) ** -400, b
        for _ in range(160):
            s = mpmath.sqrt(low * high)
            rising = mpmath.sqrt((mu1 + mu) * (mu2 * s + mu)) + mpmath.sqrt(mu1 * mu2 * s)
            low, high = (s, high) if rising < (eps + 2 * decay * V) / s else (low, s)
        rising = mpmath.sqrt((mu1 + mu) * (mu2 * high + mu)) + mpmath.sqrt(mu1 * mu2 * high)
        curved = max(rising, (eps + 2 * decay * V) / high)
    return (b + r) * eps + decay * V**2 + mpmath.sqrt(min(c.span, c.k)) * b * r * curved


# --- The checks -------------------------------------------------------------------------------------------


def hold(seed: int) -> None:
    head, options = trained(seed)
    problem = head.problem(**options)
    report = check(problem, break_even=True)
    about = (seed, head.loss, head.W.shape, head.l2)
    _theorem3_holds(head, problem, report, about)
    _break_even_holds(head, problem, report, about)
    _block_gap_holds(head, problem, report, about)


def _theorem3_holds(head: Head, problem: Problem, report: Report, about: Any) -> None:
    third, gap = report.theorem3, report.objective.gap
    symbols = bound_symbols(problem, report.constants)
    if isinstance(symbols, str):
        assert not third.applies, about
        return
    if third.applies:
        assert third.bound is not None
        assert not gap.lower > third.bound.upper, about
        exact = theorem3_of(symbols, report.epsilon)
        for name in ("threshold_form", "polynomial_form", "refined_form", "refined_polynomial_form"):
            true, ours = getattr(exact, name), getattr(third, name)
            assert true * (1 - arb(10) ** -16) <= ours <= true * (1 + arb(10) ** -9), about
        assert third.augmented is None or third.augmented.upper.upper >= report.objective.F.lower, about
    decayed = report.regularized
    if decayed is not None and decayed.theorem3 is not None and decayed.theorem3.bound is not None:
        true = decayed_form(symbols, report.epsilon, head.l2, float(np.linalg.norm(head.V)))
        ours = decayed.theorem3.bound.upper
        assert true * (1 - mpf(10) ** -12) <= ours <= true * (1 + mpf(10) ** -6), about
        assert decayed.theorem3.holds is not False, about


def _break_even_holds(head: Head, problem: Problem, report: Report, about: Any) -> None:
    found, truth = report.objective.break_even_radius, head.truth
    assert found is not None
    F, slack = truth.F, arb(2) ** -48 * (1 + abs(truth.F))
    least = descended(head, head.inputs)[0]
    if found.infinite:
        assert least >= float((F - slack).mid()), about
        return
    width = report.objective.F.upper - report.objective.F.lower
    at_infimum = float(F.mid()) - least < 1e7 * width  # to the accuracy of F so are all large predictors
    if found.infinite is None:
        assert at_infimum, about
    else:
        assert found.infinite is False, about
        assert found.upper is not None
        assert at_infimum or found.upper - found.lower <= max(1e-6 * found.upper, 1e-11), about
    for r, is_enough in ((found.lower, False), (found.upper, True)):
        if r is not None and 0.0 < r < math.inf:
            r = r * (1.0 + 1e-15) if is_enough else r
            near = best_linear_predictor(problem, r, 1.0)
            m = minimum(truth, r, near=near.W_star.center, multiplier=near.found.place.lam).value
            assert m <= F + slack if is_enough else m >= F - slack, about


def _block_gap_holds(head: Head, problem: Problem, report: Report, about: Any) -> None:
    gap, F = report.objective.block_gap, float(head.truth.F.mid())
    assert gap is not None
    least = descended(head, np.concatenate([head.inputs, head.f], axis=1))[0]
    size = 1.0 + abs(F)
    assert F - least <= gap.upper + 1e-12 * size, about
    span = head.q - (head.loss == "softmax" and head.q > 1)
    if problem.d1 < span:
        assert gap.lower == 0.0, about
    else:
        if not gap.lower <= F - least + 1e-5 * size:  # the descent was slow
            least = float(minimum(head.truth, 1e6, rows=np.hstack([head.inputs, head.f])).value.upper())
        assert gap.lower <= F - least + 1e-5 * size, about
        assert math.isfinite(gap.upper), about
        assert gap.upper - gap.lower <= 1e-6 * size, about


@pytest.mark.parametrize("seed", range(300, 304))
def test_conclusions_hold(seed: int):
    hold(seed)


@pytest.mark.long
@pytest.mark.parametrize("first", range(1000, 4000, 100))
def test_many_conclusions_hold(first: int):
    for seed in range(first, first + 100):
        hold(seed)
