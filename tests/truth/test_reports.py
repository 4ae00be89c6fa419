"""Whole reports against the oracle: every enclosure holds the true value, no verdict is ever wrong.

The heads come from all families, of one to three outputs, with and without bypass inputs, with ε and μ2 on
the edge of the point's own thresholds, and are checked in float64 alone, in float64 going on in balls where
that is needed, and in balls.
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
from families import BENIGN, FAMILIES, ONLY, draw, margin
from flint import arb, ctx, fmpq_mat
from heads import BITS, LOSSES, RATIONAL, Head, HeadTruth
from linear_heads import Minimum, attained, minimum
from oracle_algebra import largest_eigenvalue, norm
from selections import first

from resnet_cert import Enclosure, Problem, Report, Verdict, bound
from resnet_cert.compare.consequences import bound_symbols
from resnet_cert.results import CrossCheck

check_module = importlib.import_module("resnet_cert.check")  # `resnet_cert.check` is the function

MODES: dict[str, dict[str, Any]] = {
    "float64": {"escalate": False},
    "escalating": {},
    "ball": {"arithmetic": "ball"},
}


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
    """A head, and the request that is made about it."""

    head: Head
    options: dict[str, float | None]
    mode: str
    description: str

    def __str__(self) -> str:
        return f"{self.description}, {self.head.loss}, {self.head.W.shape}, {self.mode}, {self.options}"

    @property
    def truth(self) -> HeadTruth:
        return self.head.truth

    @cached_property
    def problem(self) -> Problem:
        return self.head.problem(**self.options)

    @cached_property
    def report(self) -> Report:
        return check_module.check(self.problem, break_even=False, **MODES[self.mode])

    @cached_property
    def minimum(self) -> Minimum:
        return minimum(self.truth, self.report.constants.r)


def member(family: str, seed: int, q: int | None = None) -> Head:
    """The head number `seed` of a family: the losses, d2 = 0 and 1, and with and without decay by turns."""
    losses = [loss for loss in ONLY.get(family, LOSSES) if (loss, q) != ("softmax", 1)]
    at = FAMILIES.index(family) + seed
    rng = np.random.default_rng([crc32(family.encode()), seed])
    n = None if q != 1 else int(rng.integers(1, 13))
    head = draw(seed, family, losses[at % len(losses)], q=q, n=n, d2=at // 2 % 2)
    return replace(head, l2=float(rng.choice([1e-3, 0.1, 1.0]))) if rng.random() < 0.25 else head


def case(family: str, seed: int, mode: str, q: int | None = None) -> Case:
    """ε and μ2 near the thresholds, or ε = 0, or μ2 computed; b and r given or not."""
    head = member(family, seed, q)
    rng = np.random.default_rng([crc32(family.encode()), seed, 1])
    epsilon, mu2 = margin(head.truth, rng)
    options: dict[str, float | None] = {"epsilon": epsilon, "mu2": mu2}
    kind = rng.random()
    if kind < 0.2:
        options["epsilon"] = 0.0
    elif kind < 0.4:
        options["mu2"] = None
    if rng.random() < 0.5:
        options["r"] = float(10.0 ** rng.uniform(-2, 0.5) / np.max(np.abs(head.inputs), initial=1e-300))
    if rng.random() < 0.3:
        size = max(np.linalg.norm(head.head), np.linalg.norm(head.V))
        options["b"] = float(size * 10.0 ** rng.uniform(0.1, 1.0)) or 1.0
    return Case(head, options, mode, f"{family}, seed {seed}")


def upper(x: Enclosure | None) -> Enclosure | None:
    return None if x is None else Enclosure(x.value, -math.inf, x.upper)


def quantities(at: Case) -> dict[str, tuple[Enclosure | None, arb]]:
    """Every enclosure of the report with the true value; None where the report claims nothing."""
    report, truth, least = at.report, at.truth, at.minimum
    constants, gap = report.constants, oracle_theorems.gap(truth, least)
    cut = truth.q * truth.d
    pairs: dict[str, tuple[Enclosure | None, arb]] = {
        "F": (report.objective.F, truth.F),
        "F_lin_min": (report.objective.F_lin_min, least.value),
        "gap": (report.objective.gap, gap),
        "gradient.norm": (report.gradient.norm, truth.norm),
        "gradient.norm_w": (report.gradient.norm_w, norm(truth.gradient_G[:cut])),
        "gradient.norm_V": (report.gradient.norm_V, norm(truth.gradient_G[cut:])),
        "lambda_min": (report.hessian.lambda_min, truth.lambda_min),
    }
    if not at.head.l2:
        zero, (left, right) = truth.at_zero, oracle_theorems.theorem2(truth, least)
        pairs["theorem2.gradient_norm"] = (report.theorem2.gradient_norm, zero.norm)
        pairs["theorem2.lambda_min"] = (report.theorem2.lambda_min, zero.lambda_min)
        pairs["theorem2.left"] = (report.theorem2.left, left)
        pairs["theorem2.right"] = (report.theorem2.right, right)
    if report.theorem1.applies:
        sides = oracle_theorems.theorem1(truth, least)
        assert sides is not None, f"{at}: theorem 1 applies, and W_1 has no full row rank"
        pairs["theorem1.lower_bound"] = (report.theorem1.lower_bound, sides[0])
        pairs["theorem1.lower_bound_refined"] = (report.theorem1.lower_bound_refined, sides[1])
    bounds = oracle_theorems.gap_bounds(truth, least, constants.r)
    pairs["linear_functional"] = (report.gap_bounds.linear_functional, bounds.linear_functional)
    pairs["first_order"] = (report.gap_bounds.first_order, bounds.first_order)
    pairs["local"] = (upper(report.gap_bounds.local), gap)  # the least of several bounds of it
    if constants.mu2 and math.isfinite(constants.mu2):
        pairs["smallest_epsilon"] = (report.smallest_epsilon, truth.smallest_epsilon(constants.mu2))
        pairs["threshold"] = (report.hessian.threshold, (arb(constants.mu2) * arb(report.epsilon)).sqrt())
    return pairs | _of_theorem3(at) | _of_decay(at) | _of_constants(at)


def _of_theorem3(at: Case) -> dict[str, tuple[Enclosure | None, arb]]:
    symbols, third = bound_symbols(at.problem, at.report.constants), at.report.theorem3
    if isinstance(symbols, str):
        assert not third.applies, f"{at}: theorem 3 applies, and {symbols}"
        return {}
    c = (symbols.b, symbols.r, symbols.mu0, symbols.mu1, symbols.mu2)
    if at.head.l2 or not all(map(math.isfinite, c)):
        return {}
    true = oracle_theorems.theorem3_of(symbols, at.report.epsilon)
    smaller = true.threshold_form.min(true.refined_form)
    pairs: dict[str, tuple[Enclosure | None, arb]] = {
        "theorem3.bound": (third.bound, smaller),
        "theorem3.F_upper": (third.F_upper, at.minimum.value + smaller),
    }
    for name in ("threshold_form", "polynomial_form", "refined_form", "refined_polynomial_form"):
        form = getattr(third, name)  # a float, rounded up
        pairs[f"theorem3.{name}"] = (Enclosure(form, -math.inf, form), getattr(true, name))
    if third.applies:
        pairs["gap ≤ theorem3"] = (upper(third.bound), at.truth.F - at.minimum.value)
    return pairs


def _of_decay(at: Case) -> dict[str, tuple[Enclosure | None, arb]]:
    about, truth = at.report.regularized, at.truth
    if about is None:
        assert not at.head.l2, f"{at}: nothing is said of G"
        return {}
    decayed = [p * int(on) for p, on in zip(truth.parameters, at.head.decayed, strict=True)]
    G = truth.F + arb(at.head.l2) * norm(decayed) ** 2
    on_ball = minimum(truth, at.report.constants.r, decay=True).value
    return {
        "G": (about.objective, G),
        "min G_lin": (about.objective_lin_min, minimum(truth, decay=True).value),
        "gap ≤ proposition R": (upper(about.proposition_R), truth.F - at.minimum.value),
        "G gap ≤ bound": (upper(about.gap_bound), G - on_ball),
    }


def _of_constants(at: Case) -> dict[str, tuple[Enclosure | None, arb]]:
    """μ0, μ1, μ2 of one output are the least of both formulas, rounded up by little."""
    constants, pairs = at.report.constants, {}
    if at.head.q > 1:
        return {}
    for name, sample, matrix in zip(
        ("mu0", "mu1", "mu2"), *oracle_theorems.lipschitz(at.head, constants.b), strict=True
    ):
        if constants.source[name] == "computed":
            claim, least = getattr(constants, name), sample.min(matrix * (1 - arb(10) ** -11))
            pairs[name] = (Enclosure(claim, 0.0, claim), least)
            assert claim <= float(sample.min(matrix).upper()) * (1.0 + 1e-8) + 1e-300, f"{at}: {name}"
    return pairs


def misses(at: Case) -> list[str]:
    """Every enclosure that does not hold the truth."""
    return [
        f"{at}: {name} = {true.str(25)} is not in {enclosed}"
        for name, (enclosed, true) in quantities(at).items()
        if enclosed is not None and (true < enclosed.lower or true > enclosed.upper)
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
    truth, report, found = at.truth, at.report, []
    if report.objective.attained not in (attained(at.head), None):
        found.append(f"{at}: F_lin has a minimiser: {report.objective.attained}")
    if at.head.loss in RATIONAL:
        zeros = len(truth.hessian) - fmpq_mat(truth.rational.hessian).rank()
        if report.hessian.zero_multiplicity > zeros:
            found.append(f"{at}: {report.hessian.zero_multiplicity} eigenvalues 0 claimed, there are {zeros}")
    if at.head.l2:
        return found
    if report.theorem2.left is None or report.theorem2.right is None:
        found.append(f"{at}: theorem 2 says nothing: {report.theorem2.reason}")
    W = np.array([[float(e) for e in row] for row in oracle_theorems.on_span(truth, at.head.head.tolist())])
    sigma = np.linalg.svd(W[:, : truth.d1])[1]
    has_rank = len(W) <= truth.d1 and sigma[-1] > 1e-12 * np.linalg.norm(W)
    if report.theorem1.applies != bool(at.head.W.any() and (has_rank or not at.head.V.any())):
        found.append(f"{at}: theorem 1 applies iff W_1 has full row rank, or V = 0 ≠ W")
    return found


def faults(family: str, seed: int, mode: str, q: int | None = None) -> list[str]:
    """All that is false in the report on a member of a family."""
    at = case(family, seed, mode, q)
    return [*misses(at), *wrong_verdicts(at), *other_faults(at)]


# --- Never wrong ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_crosscheck")
@pytest.mark.parametrize("turn", first(1, range(2)))
@pytest.mark.parametrize("family", FAMILIES)
def test_every_number_of_a_report_holds_the_truth_and_no_verdict_is_wrong(family: str, turn: int):
    """By turns of one, two and three outputs, in float64, going on in balls, and in balls alone."""
    at = FAMILIES.index(family)
    mode = list(MODES)[(at + turn) % 3]
    outputs = (at + at // 3 + turn) % 3
    found = faults(family, 3 + outputs, mode, 1 + outputs)
    assert not found, "\n".join(found)


@pytest.mark.long
@pytest.mark.usefixtures("without_crosscheck")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("q", [1, 2, 3, 4])
def test_every_number_of_many_reports_holds_the_truth_and_no_verdict_is_wrong(family: str, mode: str, q: int):
    seeds = range(1000, 1200 if q == 1 else 1020)
    found = [fault for seed in seeds for fault in faults(family, seed, mode, q)]
    assert not found, "\n".join(found)


@pytest.mark.usefixtures("without_crosscheck")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "family", first(1, ["W = 0", "near minimum", "uneven columns", "generic", "strict minimum", "saddle"])
)
def test_no_verdict_is_wrong_within_a_few_places_of_both_thresholds(family: str, mode: str, longer: int):
    found = []
    for seed in range(longer):
        head = member(family, seed, 1 + seed % 3)
        G, m = float(head.truth.norm.mid()), float(head.truth.m.mid())
        for ulps in (-3, -1, 0, 1, 3):
            edge = m * m / (2.0 * G) * (1.0 + ulps * 2.0**-52)
            for epsilon, mu2 in ((G + ulps * math.ulp(G), 4.0 * m * m / G), (2.0 * G, edge)):
                at = Case(head, {"epsilon": epsilon, "mu2": mu2}, mode, f"{family}, seed {seed}")
                found += wrong_verdicts(at)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("loss", first(2, ["softmax", *(loss for loss in LOSSES if loss != "softmax")]))
def test_autodiff_never_contradicts_a_point_on_the_edge(loss: str):
    for seed, W in enumerate(([0.0, 0.0], [1e-150, 0.0], [30.0, -20.0])):
        q = 2 if loss == "softmax" else 1
        head = draw(seed, "generic", loss, n=5, d1=2, k=2, q=q, d2=0, bias=False)
        head = replace(head, W=np.outer([1.0, -0.5][:q], W), x=head.x * [1e-6, 1.0])
        at = Case(head, {"epsilon": 0.1, "mu2": 1.0}, "float64", f"on the edge, {seed}")
        assert not misses(at) + wrong_verdicts(at)


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_autodiff_never_contradicts_a_point_of_any_family(family: str):
    found = [fault for seed in range(500, 510) for fault in faults(family, seed, "escalating")]
    assert not found, "\n".join(found)


# --- Narrow, and decided ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_crosscheck")
@pytest.mark.parametrize("family", first(6, BENIGN))
def test_enclosures_of_moderate_problems_are_narrow(family: str, longer: int):
    """1e−10 of the size of the problem; what depends on W* where the data determine it well."""
    free = ("F", "gap", "gradient", "lambda_min", "theorem2.gradient_norm", "theorem2.lambda_min")
    for seed in range(longer):
        at = case(family, seed, "float64", 1 + (BENIGN.index(family) + seed) % 2)
        x, truth = at.head.inputs, at.truth
        determined = len(x) >= x.shape[1] and np.linalg.svd(x)[1][-1] > 0.3 and attained(at.head)
        fixed = ("theorem1", "first", "linear") if determined and at.head.q == 1 else ()
        curved = largest_eigenvalue(truth.hessian) + largest_eigenvalue(truth.at_zero.hessian)
        size = float(1 + abs(truth.F) + abs(at.minimum.value) + curved)
        for name, (enclosed, true) in quantities(at).items():
            if enclosed is None or math.isinf(enclosed.lower):
                continue
            width = enclosed.upper - enclosed.lower
            if name.startswith((*free, *fixed)):
                assert width <= 1e-10 * size, f"{at}: {name}: {enclosed}"
            elif name in ("threshold", "theorem3.bound"):
                assert width <= 1e-10 * float(abs(true)), f"{at}: {name}: {enclosed}"
            if name.startswith("theorem3.") and math.isinf(enclosed.lower):  # the forms, rounded up
                assert enclosed.upper <= true * (1 + arb(10) ** -9), f"{at}: {name}: {enclosed}"


@pytest.mark.parametrize("r", [0.0, 1e-300, 1e-9, 1.0, 1e9])
def test_the_bound_of_theorem_3_is_rounded_up_by_little_whatever_r(r: float):
    rng = np.random.default_rng(0)
    for _ in range(20):
        eps, b, mu0, mu1, mu2 = (float(x) for x in 10.0 ** rng.uniform(-4, 2, 5))
        ours = bound(eps, b=b, r=r, mu0=mu0, mu1=mu1, mu2=mu2).rows[0]
        true = oracle_theorems.theorem3(eps, b, r, mu0, mu1, mu2)
        for name in ("threshold_form", "polynomial_form", "refined_form", "refined_polynomial_form"):
            form = getattr(true, name)
            assert form <= getattr(ours, name) <= form * (1 + arb(10) ** -9), (name, eps, b, mu0, mu1, mu2)


@pytest.mark.usefixtures("without_crosscheck")
@pytest.mark.parametrize("family", first(6, BENIGN[::-1]))
def test_a_margin_of_1e_8_is_decided_in_float64_and_every_margin_in_balls(family: str, longer: int):
    for seed in range(longer):
        head = member(family, seed, 1 + (BENIGN.index(family) + seed) % 3)
        truth = head.truth
        epsilon, mu2 = margin(truth, np.random.default_rng([crc32(family.encode()), seed, 2]))
        wide = not arb(1 - 1e-8) < truth.smallest_epsilon(mu2) / epsilon < arb(1 + 1e-8)
        for mode in (
            ("float64", "escalating", "ball") if wide and truth.norm > 1e-6 else ("escalating", "ball")
        ):
            at = Case(head, {"epsilon": epsilon, "mu2": mu2}, mode, f"{family}, seed {seed}")
            holds = truth.is_stationary(epsilon, mu2)
            assert at.report.verdict is (Verdict.CERTIFIED if holds else Verdict.REFUTED), at


APART = (
    "generic",
    "one sample",
    "x = 0",
    "dependent inputs",
    "nearly dependent inputs",
    "separable",
    "counts of 0",
)
"""Families that differ in whether F_lin has a minimiser, and in how that is seen."""


@pytest.mark.usefixtures("without_crosscheck")
@pytest.mark.parametrize(
    "family", first(len(APART), sorted(FAMILIES, key=lambda family: family not in APART))
)
def test_whether_F_lin_has_a_minimiser_is_found_out(family: str, longer: int):
    for seed in range(longer):
        at = Case(member(family, seed, 1 + seed % 3), {"epsilon": 0.1, "mu2": 1.0}, "float64", family)
        assert at.report.objective.attained == attained(at.head), at
