"""What is said about a report, as plain data: every format lays the same words out in its own way."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from resnet_cert.decide.definition1 import corollary1_verdict
from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.outcomes import Verdict
from resnet_cert.report.numbers import DIGITS, at_least, at_most, enclosed, given, plain, slack
from resnet_cert.results import Regularized, Report

KNOWN = {Verdict.CERTIFIED: True, Verdict.REFUTED: False, Verdict.UNDECIDED: None}

Cell = str | Verdict


@dataclass
class Rows:
    """Rows of a name and a value for each of the other headings."""

    headings: tuple[str, ...]
    rows: list[tuple[Cell, ...]] = field(default_factory=list)

    def add_row(self, *cells: Cell) -> None:
        self.rows.append(cells)


Pairs = list[tuple[str, str]]
"""Rows of a name and what is said of it."""


@dataclass(frozen=True)
class Page:
    """A report in words, in the order of reading.

    facts: the data, the point, its objective.  conditions: Definition 1 at ε.  theorems: both sides of each.
    details: what stands behind the numbers.  sentences: each one true without the rest of the page.
    """

    title: str
    verdict: Verdict
    facts: Pairs
    conditions: Rows
    theorems: Rows
    details: Pairs
    sentences: tuple[str, ...]


def page(report: Report, digits: int = DIGITS) -> Page:
    """The report with numbers of at most so many digits."""
    about = (*_not_applied(report), *_on_corollary1(report), _against_linear(report))
    return Page(
        title=title(report),
        verdict=report.verdict,
        facts=_point(report, digits),
        conditions=_conditions(report, digits),
        theorems=_theorems(report),
        details=_details(report),
        sentences=(_meaning(report), *report.reasons, *about),
    )


def title(report: Report) -> str:
    path = report.spec.path
    return report.name if path is None else f"{report.name} ({path})"


def _point(report: Report, digits: int) -> Pairs:
    size, objective, constants, w = report.problem, report.objective, report.constants, _w(report)
    best = f"min F_lin = {enclosed(objective.F_lin_min, digits)} over {_in_ball(report)}"
    if not objective.attained:
        best += "; without the ball no minimum is attained"
    rows = _regularized(report.regularized, digits) if report.regularized is not None else []
    if report.augmented is not None:
        wider = report.augmented
        least = f"min E[ℓ(uᵀx + zᵀf)] = {enclosed(wider.minimum, digits)}"
        rows = [("on (x, f)", f"{least} over ‖(u, z)‖ ≤ {plain(wider.r)}"), *rows]
    outputs = []
    if size.outputs is not None:
        outputs = [("outputs", f"q = {size.outputs}: p = W(x + V f(x)), W in R^({size.outputs}×{size.d})")]
    return [
        ("data", f"n = {size.n} samples, x in R^{size.d}, f(x) in R^{size.k}; loss {size.loss}"),
        *outputs,
        (
            f"point ({w}, V)",
            f"‖{w}‖ = {plain(size.norm_w)}, ‖V‖ = {plain(size.norm_V)}; {size.parameters} parameters; "
            f"domain ‖{w}‖, ‖V‖ < b = {plain(constants.b)}",
        ),
        ("objective", f"F = {enclosed(objective.F, digits)}"),
        ("best linear", best),
        *rows,
    ]


def _w(report: Report) -> str:
    """What multiplies x + V f: a vector, or with several outputs a matrix."""
    return "w" if report.problem.outputs is None else "W"


def _length_of_w(report: Report, of: str = "") -> str:
    """The Euclidean norm of w or of another such vector, which of matrices is Frobenius'."""
    return f"‖w{of}‖" if report.problem.outputs is None else f"‖W{of}‖_F"


def _in_ball(report: Report) -> str:
    """Where linear predictors are sought."""
    return f"{_length_of_w(report)} ≤ r = {plain(report.constants.r)}"


def _regularized(about: Regularized, digits: int) -> list[tuple[str, str]]:
    """What Definition 1 speaks of where it is not F: G, on a ball, and on its boundary the Lagrangian L."""
    added = f" + {given(about.l2)}·(‖w‖² + ‖V‖²)" if about.l2 else ""
    rows = [("judged", f"G = F{added} = {enclosed(about.objective, digits)}")]
    if about.norm is not None:
        rows += [("constraint", f"‖(w, V)‖ = {enclosed(about.norm_point, digits)} ≤ {given(about.norm)}")]
    if about.active:
        held = about.multiplier is not None and about.multiplier.lower > 0.0
        L = "G + (μ/2)·‖(w, V)‖², λ_min along the sphere" if held else "G + (max(0, μ)/2)·‖(w, V)‖²"
        rows += [("boundary", f"μ = {enclosed(about.multiplier, digits)}; L = {L}")]
    return [*rows, ("best at V = 0", f"min G = {enclosed(about.objective_lin_min, digits)}")]


def _judged(report: Report) -> str:
    """The function whose gradient and Hessian Definition 1 speaks of."""
    if report.regularized is None:
        return "F"
    return "L" if report.regularized.active else "G"


def _conditions(report: Report, digits: int) -> Rows:
    """Definition 1 at ε: both conditions with value, threshold, margin and verdict."""
    gradient, hessian = report.gradient, report.hessian
    table = Rows((f"ε = {given(report.epsilon)}", "value", "threshold", "margin", "verdict"))
    table.add_row(
        f"‖∇{_judged(report)}‖ ≤ ε",
        enclosed(gradient.norm, digits),
        given(report.epsilon),
        slack(report.epsilon - gradient.norm),
        gradient.verdict,
    )
    allowed = None if hessian.threshold is None else -hessian.threshold
    table.add_row(
        "λ_min ≥ −√(μ2 ε)",
        enclosed(hessian.lambda_min, digits),
        enclosed(allowed),
        slack(None if allowed is None else hessian.lambda_min - allowed),
        hessian.verdict,
    )
    if report.smallest_epsilon is not None:
        table.add_row("smallest ε for both", enclosed(report.smallest_epsilon, digits), "", "", "")
    return table


def _theorems(report: Report) -> Rows:
    """Both sides of every theorem at this point."""
    objective, gradient, measured = report.objective, report.gradient, report.gap_bounds
    F, gap = objective.F, objective.gap
    first, second, third = report.theorem1, report.theorem2, report.theorem3
    about = report.regularized
    table = Rows(("theorem", "left side", "right side", "slack", ""))

    def at_most_row(statement: str, left: Enclosure, right: Enclosure | None, end: str = "") -> None:
        by = None if right is None else right - left
        table.add_row(statement, enclosed(left), enclosed(right), slack(by), end)

    def at_least_row(statement: str, left: Enclosure | None, right: Enclosure | None, end: str) -> None:
        by = None if left is None or right is None else left - right
        table.add_row(statement, enclosed(left), enclosed(right), slack(by), end)

    if first.applies:
        end = _holds(first.holds)
        at_least_row("1  ‖∇F‖ ≥ gap/D", gradient.norm, first.lower_bound, end)
        at_least_row("1  ‖∇F‖ ≥ gap/D, D refined", gradient.norm, first.lower_bound_refined, end)
    if second.applies is not False:
        statement = f"2  at {_w(report)} = 0: left ≥ gap/{_length_of_w(report, '*')}"
        at_least_row(statement, second.left, second.right, _holds(second.holds))
    if third.applies:
        at_most_row("3  F ≤ min F_lin + bound(ε)", F, third.F_upper, _holds(third.holds))
    table.add_row(
        "Corollary 1  F ≤ min F_lin" if about is None else "F ≤ min F_lin",
        enclosed(F),
        enclosed(objective.F_lin_min),
        slack(-gap),
        _holds(KNOWN[report.corollary1.verdict]),
    )
    if about is not None:
        end = _holds(KNOWN[corollary1_verdict(about.objective - about.objective_lin_min)])
        at_most_row("G ≤ min G at V = 0", about.objective, about.objective_lin_min, end)
        at_most_row("gap ≤ bound of Proposition R", gap, about.proposition_R)
    at_most_row("gap ≤ linear functional", gap, measured.linear_functional)
    at_most_row("gap ≤ first-order bound", gap, measured.first_order)
    at_most_row("gap ≤ local second-order bound", gap, measured.local)
    wider = report.augmented
    if wider is not None:
        at_most_row("gap to (x, f) ≤ functional", wider.gap, wider.linear_functional)
        if wider.lower_bound is not None and wider.lower_bound.known:
            at_least_row("‖∇F‖ ≥ gap to (x, f)/D", gradient.norm, wider.lower_bound, _holds(wider.holds))
    return table


def _holds(holds: bool | None) -> str:
    return {True: "holds", False: "fails", None: "open"}[holds]


def _not_applied(report: Report) -> Iterator[str]:
    if report.theorem2.applies is False:
        yield f"Theorems 1, 2 and 3 do not apply: {report.theorem2.reason}."
        return
    for number, theorem in ((1, report.theorem1), (3, report.theorem3)):
        if not theorem.applies:
            reason = "" if theorem.reason is None else f": {theorem.reason}"
            yield f"Theorem {number} does not apply{reason}."


def _on_corollary1(report: Report) -> Iterator[str]:
    if report.corollary1.reason is not None:
        yield f"Corollary 1: {report.corollary1.reason}."


def _details(report: Report) -> Pairs:
    """What stands behind the numbers: constants and their sources, the other forms, the cross-check."""
    constants, third, cross = report.constants, report.theorem3, report.crosscheck
    rows = [
        (symbol, f"{given(getattr(constants, symbol))}  ({constants.source.get(symbol, 'missing')})")
        for symbol in ("b", "r", "mu0", "mu1", "mu2")
    ]
    if third.applies:
        rows += [
            ("threshold form", f"{plain(third.threshold_form)} (t* = {plain(third.threshold)})"),
            ("refined form", plain(third.refined_form)),
            (
                "polynomials",
                f"{plain(third.polynomial_form)}, refined {plain(third.refined_polynomial_form)}",
            ),
        ]
    zeros = report.hessian.zero_multiplicity
    rows += [
        ("Hessian", f"{report.hessian.method}; {zeros} eigenvalues of ∇²F besides are exactly 0"),
        (_length_of_w(report, "*"), given(report.objective.norm_w_star)),
        (
            f"by {cross.method}",
            f"‖∇F‖ = {given(cross.gradient_norm)}, λ_min = {given(cross.lambda_min)}, "
            f"curvature of the witness {given(cross.curvature_along_witness)}",
        ),
        ("versions", ", ".join(f"{name} {version}" for name, version in report.versions.items())),
        ("seconds", plain(report.seconds.total, 3)),
    ]
    return rows


def _meaning(report: Report) -> str:
    of = (
        "" if report.regularized is None else " of G" + " on the ball" * (report.regularized.norm is not None)
    )
    claim = f"an ε-second-order stationary point{of} for ε = {given(report.epsilon)}"
    point = f"({_w(report)}, V)"
    if report.verdict is Verdict.CERTIFIED:
        return f"Certified: {point} is {claim}."
    if report.verdict is Verdict.REFUTED:
        return f"Refuted: {point} is not {claim}."
    why = "μ2 is not known" if report.hessian.threshold is None else "the numerical error exceeds the margin"
    return f"Undecided whether {point} is {claim}: {why}."


def _against_linear(report: Report) -> str:
    """The tightest proven upper bound of the gap, as a sentence."""
    predictor = f"linear predictor with {_in_ball(report)}"
    gap, measured, third = report.objective.gap, report.gap_bounds, report.theorem3
    upper, proof = min(
        (gap.upper, "F and min F_lin"),
        (measured.linear_functional.upper, "the linear functional"),
        (measured.first_order.upper, "the first-order bound"),
        (measured.local.upper, "the local second-order bound"),
        (third.bound.upper if third.applies and third.bound is not None else math.inf, "Theorem 3"),
    )
    if gap.lower > 0.0:
        return f"The best {predictor} does better, by at least {at_least(gap.lower)}."
    if upper < 0.0:
        return f"The network does better than every {predictor}, by at least {at_least(-upper)}."
    if upper == 0.0:
        return f"No {predictor} does better."
    if math.isinf(upper):
        return f"Nothing is proven about the best {predictor}."
    return f"No {predictor} does better by more than {at_most(upper)} (by {proof})."
