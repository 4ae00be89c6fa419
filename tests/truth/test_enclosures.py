"""Whole reports against the oracle: every enclosure holds the true value, no verdict is ever wrong.

The problems come from all families, with ε and μ2 on the edge of the point's own thresholds, and are checked
in float64 alone, in float64 going on in balls where that is needed, and in balls.  The last tests take the
margins away and expect the first ones to notice.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from zlib import crc32

import numpy as np
import oracle_theorems
import pytest
from families import BENIGN, FAMILIES, LOSSES, gaussian, make, margin, to_problem
from flint import arb, ctx, fmpq_mat
from oracle import BITS, Sample, Truth
from oracle_algebra import largest, largest_eigenvalue
from oracle_linear import Minimum, attained, linear_minimum
from selections import first

from resnet_cert import Enclosure, Report, Verdict, bound
from resnet_cert.results import CrossCheck

check_module = importlib.import_module("resnet_cert.check")  # `resnet_cert.check` is the function

MODES: dict[str, dict[str, Any]] = {
    "float64": {"escalate": False},
    "escalating": {},
    "ball": {"arithmetic": "ball"},
}
SEEDS, LONG_SEEDS = range(1), range(1000, 1200)


@pytest.fixture(autouse=True)
def _precision() -> Iterator[None]:
    with ctx.workprec(BITS):
        yield


@pytest.fixture
def without_crosscheck(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autodiff is compiled anew for every shape, and no enclosure depends on it."""
    monkeypatch.setattr(check_module, "crosscheck", lambda *_: CrossCheck(0.0, 0.0, None))


@dataclass(frozen=True)
class Case:
    """A sample, and the request that is made about it."""

    sample: Sample
    options: dict[str, float | None]
    mode: str

    def __str__(self) -> str:
        return f"{self.sample.description}, {self.sample.loss}, {self.mode}, {self.options}"

    @cached_property
    def truth(self) -> Truth:
        return Truth(self.sample)

    @cached_property
    def report(self) -> Report:
        problem = to_problem(self.sample, **self.options)
        return check_module.check(problem, break_even=False, **MODES[self.mode])

    @cached_property
    def minimum(self) -> Minimum:
        return linear_minimum(self.truth, self.report.constants.r)


def case(family: str, seed: int, mode: str) -> Case:
    """ε and μ2 near the thresholds, or ε = 0, or μ2 computed; b and r given or not."""
    sample = make(family, seed)
    rng = np.random.default_rng([crc32(family.encode()), seed, 1])
    epsilon, mu2 = margin(Truth(sample), rng)
    options: dict[str, float | None] = {"epsilon": epsilon, "mu2": mu2}
    kind = rng.random()
    if kind < 0.2:
        options["epsilon"] = 0.0
    elif kind < 0.4:
        options["mu2"] = None
    if rng.random() < 0.5:
        options["r"] = float(10.0 ** rng.uniform(-2, 0.5) / np.max(np.abs(sample.x), initial=1e-300))
    if rng.random() < 0.3:
        largest_norm = max(np.linalg.norm(sample.w), np.linalg.norm(sample.V))
        options["b"] = float(largest_norm * 10.0 ** rng.uniform(0.1, 1.0)) or 1.0
    return Case(sample, options, mode)


def quantities(at: Case) -> dict[str, tuple[Enclosure | None, arb]]:
    """Every enclosure of the report with the true value; None where the report claims nothing."""
    report, truth, minimum = at.report, at.truth, at.minimum
    constants, zero = report.constants, truth.at_zero
    pairs: dict[str, tuple[Enclosure | None, arb]] = {
        "F": (report.objective.F, truth.F),
        "F_lin_min": (report.objective.F_lin_min, minimum.value),
        "gap": (report.objective.gap, oracle_theorems.gap(truth, minimum)),
        "gradient.norm": (report.gradient.norm, truth.norm),
        "gradient.norm_w": (report.gradient.norm_w, truth.norm_w),
        "gradient.norm_V": (report.gradient.norm_V, truth.norm_V),
        "lambda_min": (report.hessian.lambda_min, truth.lambda_min),
        "theorem2.gradient_norm": (report.theorem2.gradient_norm, zero.norm),
        "theorem2.lambda_min": (report.theorem2.lambda_min, zero.lambda_min),
    }
    left, right = oracle_theorems.theorem2(truth, minimum)
    pairs |= {"theorem2.left": (report.theorem2.left, left), "theorem2.right": (report.theorem2.right, right)}
    if at.sample.w.any():
        paper, refined = oracle_theorems.theorem1(truth, minimum)
        pairs["theorem1.lower_bound"] = (report.theorem1.lower_bound, paper)
        pairs["theorem1.lower_bound_refined"] = (report.theorem1.lower_bound_refined, refined)
    bounds = oracle_theorems.gap_bounds(truth, minimum, constants.r)
    pairs["linear_functional"] = (report.gap_bounds.linear_functional, bounds.linear_functional)
    pairs["first_order"] = (report.gap_bounds.first_order, bounds.first_order)
    local = report.gap_bounds.local  # the least of several bounds: one of the gap
    pairs["local"] = (Enclosure(local.value, -math.inf, local.upper), oracle_theorems.gap(truth, minimum))
    mus = (constants.mu0, constants.mu1, constants.mu2)
    if constants.mu2 and math.isfinite(constants.mu2):
        pairs["smallest_epsilon"] = (report.smallest_epsilon, truth.smallest_epsilon(constants.mu2))
        pairs["threshold"] = (report.hessian.threshold, (arb(constants.mu2) * arb(report.epsilon)).sqrt())
    if all(mu is not None and math.isfinite(mu) for mu in mus):
        third = oracle_theorems.theorem3(report.epsilon, constants.b, constants.r, *mus, d=truth.d)
        smaller = -largest([-third.threshold_form, -third.refined_form])
        pairs["theorem3.bound"] = (report.theorem3.bound, smaller)
        pairs["theorem3.F_upper"] = (report.theorem3.F_upper, minimum.value + smaller)
        for name in ("threshold_form", "polynomial_form", "refined_form", "refined_polynomial_form"):
            form = getattr(report.theorem3, name)  # a float, rounded up
            pairs[f"theorem3.{name}"] = (Enclosure(form, -math.inf, form), getattr(third, name))
    mu = oracle_theorems.lipschitz(truth, constants.b)
    for name in ("mu0", "mu1", "mu2"):
        if constants.source[name] == "computed":  # the matrix form may be smaller than this one
            claim = getattr(constants, name)
            pairs[name] = (Enclosure(claim, 0.0, math.inf), getattr(mu, name))
            assert claim <= float(getattr(mu, name).upper()) * (1.0 + 1e-9) + 1e-300
    return pairs


def misses(at: Case) -> list[str]:
    """Every enclosure that does not hold the truth."""
    return [
        f"{at}: {name} = {truth.str(25)} is not in {enclosed}"
        for name, (enclosed, truth) in quantities(at).items()
        if enclosed is not None and (truth < enclosed.lower or truth > enclosed.upper)
    ]


def wrong_verdicts(at: Case) -> list[str]:
    """Every verdict that contradicts the truth, in whole and in part."""
    report, truth = at.report, at.truth
    epsilon, mu2 = report.epsilon, report.constants.mu2
    decided: dict[str, tuple[Verdict, bool | None]] = {
        "gradient": (report.gradient.verdict, truth.gradient_at_most(epsilon)),
        "corollary 1": (report.corollary1.verdict, sign(-oracle_theorems.gap(truth, at.minimum))),
    }
    if mu2 is not None or epsilon == 0.0:
        decided["whole"] = (report.verdict, truth.is_stationary(epsilon, mu2 or 0.0))
        decided["curvature"] = (report.hessian.verdict, truth.curvature_at_threshold(epsilon, mu2 or 0.0))
    found = [
        f"{at}: {name} is {verdict.name}, in truth {holds}"
        for name, (verdict, holds) in decided.items()
        if holds is not None and verdict is (Verdict.REFUTED if holds else Verdict.CERTIFIED)
    ]
    theorems = {"1": report.theorem1.holds, "2": report.theorem2.holds, "3": report.theorem3.holds}
    return found + [f"{at}: theorem {name} is violated" for name, holds in theorems.items() if holds is False]


def sign(x: arb) -> bool | None:
    """Whether x ≥ 0; None for a ball around 0."""
    return True if x >= 0 else False if x < 0 else None


def other_faults(at: Case) -> list[str]:
    """Claims about the problem that are not enclosures."""
    truth, report = at.truth, at.report
    found = []
    if at.sample.loss == "squared":
        zeros = len(truth.hessian) - fmpq_mat(truth.rational.hessian).rank()
        if report.hessian.zero_multiplicity > zeros:
            found.append(f"{at}: {report.hessian.zero_multiplicity} eigenvalues 0 claimed, there are {zeros}")
    if report.theorem1.applies != bool(at.sample.w.any()):
        found.append(f"{at}: theorem 1 applies iff w ≠ 0")
    return found


def faults(family: str, seeds: range, mode: str) -> list[str]:
    """All that is false in the reports on some problems of a family."""
    cases = [case(family, seed, mode) for seed in seeds]
    return [fault for at in cases for fault in (*misses(at), *wrong_verdicts(at), *other_faults(at))]


# --- Never wrong ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_crosscheck")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_number_of_a_report_holds_the_truth_and_no_verdict_is_wrong(family, mode):
    found = faults(family, SEEDS, mode)
    assert not found, "\n".join(found)


@pytest.mark.long
@pytest.mark.usefixtures("without_crosscheck")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_number_of_many_reports_holds_the_truth_and_no_verdict_is_wrong(family, mode):
    found = faults(family, LONG_SEEDS, mode)
    assert not found, "\n".join(found)


@pytest.mark.usefixtures("without_crosscheck")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "family",
    first(1, ["zero_w", "near_minimum", "uneven_columns", "gaussian", "strict_minimum", "saddle"]),
)
def test_no_verdict_is_wrong_within_a_few_places_of_both_thresholds(family, mode, longer):
    found = []
    for seed in range(longer):
        truth = Truth(make(family, seed))
        G, m = float(truth.norm.mid()), float(truth.m.mid())
        for ulps in (-3, -1, 0, 1, 3):
            epsilon, mu2 = G + ulps * math.ulp(G), 4.0 * m * m / G
            on_the_edge = [(epsilon, mu2), (2.0 * G, m * m / (2.0 * G) * (1.0 + ulps * 2.0**-52))]
            for epsilon, mu2 in on_the_edge:
                found += wrong_verdicts(Case(truth.sample, {"epsilon": epsilon, "mu2": mu2}, mode))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("loss", LOSSES)
def test_autodiff_never_contradicts_a_point_on_the_edge(loss):
    for seed, w in enumerate(([0.0, 0.0], [1e-150, 0.0], [30.0, -20.0])):
        sample = gaussian(np.random.default_rng(seed), n=5, d=2, k=2, losses=(loss,))
        sample = replace(sample, w=np.array(w), x=sample.x * [1e-6, 1.0])
        at = Case(sample, {"epsilon": 0.1, "mu2": 1.0}, "float64")
        assert not misses(at) + wrong_verdicts(at)


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_autodiff_never_contradicts_a_point_of_any_family(family):
    assert not faults(family, range(500, 510), "escalating")


# --- Narrow, and decided ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_crosscheck")
@pytest.mark.parametrize("family", BENIGN)
def test_enclosures_of_moderate_problems_are_narrow(family, longer):
    """1e−10 of the size of the problem; what depends on w* where the data determine it well."""
    free = (
        "F",
        "F_lin_min",
        "gap",
        "gradient",
        "lambda_min",
        "theorem2.gradient_norm",
        "theorem2.lambda_min",
    )
    for seed in range(2 * longer):
        at = case(family, seed, "float64")
        x, truth = at.sample.x, at.truth
        determined = len(x) >= x.shape[1] and np.linalg.svd(x)[1][-1] > 0.3 and attained(at.sample)
        curved = largest_eigenvalue(truth.hessian) + largest_eigenvalue(truth.at_zero.hessian)
        size = float(1 + abs(truth.F) + abs(at.minimum.value) + curved)
        for name, (enclosed, true) in quantities(at).items():
            if enclosed is None or math.isinf(enclosed.lower):
                continue
            width = enclosed.upper - enclosed.lower
            if name.startswith(free) or (determined and name.startswith(("theorem1", "first", "linear"))):
                assert width <= 1e-10 * size, f"{at}: {name}: {enclosed}"
            elif name in ("threshold", "theorem3.bound"):
                assert width <= 1e-10 * float(abs(true)), f"{at}: {name}: {enclosed}"


@pytest.mark.usefixtures("without_crosscheck")
@pytest.mark.parametrize("family", BENIGN)
def test_the_forms_of_theorem_3_are_rounded_up_by_little(family, longer):
    for seed in range(longer):
        at = case(family, seed, "float64")
        for name, (enclosed, true) in quantities(at).items():
            if enclosed is not None and name.startswith("theorem3.") and math.isinf(enclosed.lower):
                assert enclosed.upper <= true * (1 + arb(10) ** -9), f"{at}: {name}: {enclosed}"


@pytest.mark.parametrize("r", [0.0, 1e-300, 1e-9, 1.0, 1e9])
def test_the_bound_of_theorem_3_is_rounded_up_by_little_whatever_r(r):
    rng = np.random.default_rng(0)
    for _ in range(20):
        eps, b, mu0, mu1, mu2 = (float(x) for x in 10.0 ** rng.uniform(-4, 2, 5))
        ours = bound(eps, b=b, r=r, mu0=mu0, mu1=mu1, mu2=mu2).rows[0]
        true = oracle_theorems.theorem3(eps, b, r, mu0, mu1, mu2, d=2)
        for name in ("threshold_form", "polynomial_form", "refined_form", "refined_polynomial_form"):
            form = getattr(true, name)
            assert form <= getattr(ours, name) <= form * (1 + arb(10) ** -9), (name, eps, b, mu0, mu1, mu2)


@pytest.mark.usefixtures("without_crosscheck")
@pytest.mark.parametrize("family", BENIGN)
def test_a_margin_of_1e_8_is_decided_in_float64_and_every_margin_in_balls(family, longer):
    for seed in range(longer):
        sample = make(family, seed)
        truth = Truth(sample)
        epsilon, mu2 = margin(truth, np.random.default_rng([crc32(family.encode()), seed, 2]))
        request: dict[str, float | None] = {"epsilon": epsilon, "mu2": mu2}
        wide = not arb(1 - 1e-8) < truth.smallest_epsilon(mu2) / epsilon < arb(1 + 1e-8)
        for mode in (
            ("float64", "escalating", "ball") if wide and truth.norm > 1e-6 else ("escalating", "ball")
        ):
            at = Case(sample, request, mode)
            holds = truth.is_stationary(epsilon, mu2)
            assert at.report.verdict is (Verdict.CERTIFIED if holds else Verdict.REFUTED), at


@pytest.mark.usefixtures("without_crosscheck")
@pytest.mark.parametrize("family", FAMILIES)
def test_whether_F_lin_has_a_minimiser_is_found_out(family, longer):
    for seed in range(longer):
        sample = make(family, seed)
        at = Case(sample, {"epsilon": 0.1, "mu2": 1.0}, "float64")
        assert at.report.objective.attained == attained(sample), at
