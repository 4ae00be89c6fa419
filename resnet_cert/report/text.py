"""Reports to be read: one screen each, at most `style.width` columns, complete without colour."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from resnet_cert.compare.theorem4 import theorem4_terms
from resnet_cert.decide.definition1 import corollary1_verdict
from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.outcomes import Verdict
from resnet_cert.report import Style
from resnet_cert.report.contour_map import contour_map
from resnet_cert.report.listing import Listing
from resnet_cert.report.numbers import ALL_DIGITS, DIGITS, at_least, at_most, enclosed, given, plain, slack
from resnet_cert.results import BoundTable, Regularized, Report, Sgd, Solved
from resnet_cert.theory.bound import binding_form

if TYPE_CHECKING:
    from resnet_cert.certificate.decision import Verification
    from resnet_cert.search.landscape import Landscape

COLOR = {Verdict.CERTIFIED: "bold green", Verdict.REFUTED: "bold red", Verdict.UNDECIDED: "bold yellow"}
KNOWN = {Verdict.CERTIFIED: True, Verdict.REFUTED: False, Verdict.UNDECIDED: None}
INDENT = (0, 0, 0, 2)
INDENT_AND_GAP = (0, 0, 1, 2)


def check(reports: Sequence[Report], style: Style) -> str:
    """A screen for every report and, last, a line with nothing but the verdict on all of them."""
    verdict = Verdict.all_of(report.verdict for report in reports)
    parts: list[RenderableType] = []
    if style.verbosity >= 0:
        for report in reports:
            parts += [*_screen(report, style), ""]
    if len(reports) > 1:
        parts += [Text.assemble(_word(report.verdict), f"  {_title(report)}") for report in reports]
        if style.verbosity >= 0:
            parts += [_tally(reports)]
    return _rendered([*parts, _word(verdict)], style)


def _tally(reports: Sequence[Report]) -> str:
    count = Counter(report.verdict for report in reports)
    counts = ", ".join(f"{count[verdict]} {verdict.value}" for verdict in Verdict if count[verdict])
    return f"{len(reports)} checks: {counts}"


def bound(table: BoundTable, style: Style) -> str:
    """Theorem 3 as a table over ε, the binding one of the two sharp forms marked."""
    constants = table.constants
    symbols = {"b": constants.b, "r": constants.r}
    symbols |= {"μ0": constants.mu0, "μ1": constants.mu1, "μ2": constants.mu2, "d": constants.d}
    parts: list[RenderableType] = []
    if table.rows:
        parts += [
            "Theorem 3: F − min F_lin (‖w‖ ≤ r) at any ε-second-order stationary point is at most",
            "",
            _forms(table),
            "",
            "* the smaller of the two sharp forms: the bound.  t*: where the threshold form splits.",
        ]
    parts += [", ".join(f"{symbol} = {plain(value, DIGITS)}" for symbol, value in symbols.items())]
    if table.F_lin_min is not None:
        parts += [f"min F_lin = {enclosed(table.F_lin_min)}"]
    if table.target_gap is not None and table.target_eps is not None:
        parts += [_target(table.target_gap, table.target_eps)]
    return _rendered(parts, style)


def sgd(run: Sgd, style: Style) -> str:
    """The averages of a run beside the bound of Theorem 4, and what that speaks of."""
    theta = "frozen" if run.theta == "frozen" else "trained as well"
    parts = [
        Text(f"{run.name}: SGD on wᵀx + vᵀf(x), ‖(w, v)‖ ≤ b, θ {theta}", style="bold"),
        Padding(_sgd_setting(run), INDENT_AND_GAP),
        Padding(_sgd_values(run), INDENT_AND_GAP),
        *(Padding(sentence, INDENT) for sentence in _sgd_meaning(run)),
    ]
    return _rendered(parts, style)


def _sgd_setting(run: Sgd) -> Table:
    constants = run.constants
    at_most = f"R = min(r, b·l) = {plain(min(constants.r, constants.b * constants.l))}"
    return _pairs(
        [
            ("steps", f"T = {run.steps} of size η = D/(l√T) = {plain(run.eta)}, seed {run.seed}"),
            ("on the ball", f"‖(w, v)‖ ≤ b = {plain(constants.b)}: distance to z_1 = 0 at most D = b"),
            ("loss there", f"l = {plain(constants.l)}-Lipschitz, |ℓ| ≤ r = {plain(constants.r)}; {at_most}"),
        ]
    )


def _sgd_values(run: Sgd) -> Listing:
    steps = "all steps" if run.evaluated == run.steps else f"{run.evaluated} evenly spaced steps"
    table = Listing("objective", "value", "above min F_lin")
    table.add_row("min F_lin, ‖w‖ ≤ b", plain(run.F_lin_min, DIGITS), "")
    for name, value in (("best step", run.best_objective), (f"average of {steps}", run.average_objective)):
        table.add_row(name, plain(value, DIGITS), plain(value - run.F_lin_min))
    above = sum(theorem4_terms(run.constants, run.steps, run.delta))
    table.add_row(f"bound, probability {plain(1.0 - run.delta)}", plain(run.bound, DIGITS), plain(above))
    return table


def _sgd_meaning(run: Sgd) -> Iterator[str]:
    regret, sampling = theorem4_terms(run.constants, run.steps, run.delta)
    terms = f"D·l/√T + 2R√(2 ln(1/δ)/T) = {plain(regret, 4)} + {plain(sampling, 4)}"
    yield f"The bound is min F_lin + {terms}."
    claim = "By Theorem 4 the average of all steps, hence the best one, is at most the bound"
    if run.holds is None:
        yield f"{claim}: left open here, for F was too costly to be evaluated at every step."
    elif run.holds:
        yield f"{claim}, with probability ≥ {plain(1.0 - run.delta)}: it is."
    else:
        yield f"{claim}, except with probability ≤ {plain(run.delta)}: it is not."
    if run.theta == "frozen":
        yield "It says nothing of the last step; at the average of all (w, v) the convex F is no larger."
    else:
        yield "It says nothing of the last step, nor of averaged parameters."
    if run.repeats is not None:
        within, promised = plain(100.0 * run.repeats.within_bound), plain(100.0 * run.repeats.required)
        yield f"Of {run.repeats.n} runs {within} % are within the bound, where it promises {promised} %."


def solve(solved: Solved, style: Style) -> str:
    """How many steps it took, where the point is, and the screen of its check."""
    steps = f"{solved.iterations} iteration{'' if solved.iterations == 1 else 's'}"
    return f"{steps}; the point (w, V) is in {solved.point}\n\n" + check([solved.report], style)


def landscape(found: Landscape, style: Style, picture: str | None) -> str:
    """A map, unless there is a picture, and the critical points."""
    plane = found.plane
    first = "" if picture is None else f"; the picture is in {picture}"
    parts: list[RenderableType] = [
        Text(f"{found.name}: the landscape of G = {found.objective}{first}", "bold")
    ]
    parts += ["", *contour_map(found), ""] if picture is None else [""]
    table = Listing("critical point", plane.names[0][0], plane.names[1][0], "G", "eigenvalues", "μ")
    for point in found.critical_points:
        numbers = (plain(value, 8) for value in (*point.at, point.objective))
        curvatures = ", ".join(plain(value, 3) for value in point.eigenvalues)
        multiplier = "" if point.multiplier is None else plain(point.multiplier, 8)
        remark = "" if point.proven else ", not proven" if point.isolated else ", not isolated"
        table.add_row(point.name + remark, *numbers, curvatures, multiplier)
    parts += [table] if found.critical_points else ["No critical points here."]
    parts += ["", *_landscape_meaning(found)]
    return _rendered(parts, style)


def _landscape_meaning(found: Landscape) -> Iterator[str]:
    least = enclosed(found.objective_lin_min)
    yield f"min F_lin = {enclosed(found.F_lin_min)}; the best G at V = 0 is {least}."
    if not found.plane.whole:
        yield (
            "These are the critical points of G on a plane through the point P, not of G as a whole; "
            "P is (0, 0)."
        )
    spurious = [point for point in found.critical_points if point.spurious]
    if spurious:
        worst = max(point.objective for point in spurious)
        above = plain(worst - found.objective_lin_min.value)
        yield f"A spurious minimum is a local minimum above the best G at V = 0, here by up to {above}."
    elif found.plane.whole:
        yield "No spurious minimum was found."


def verify(verification: Verification, style: Style) -> str:
    """Why, and last a line with nothing but the verdict or REJECTED."""
    verdict = verification.verdict
    word = Text("REJECTED", style=COLOR[Verdict.REFUTED]) if verdict is None else _word(verdict)
    return _rendered([*verification.reasons, word], style)


def _rendered(parts: Sequence[RenderableType], style: Style) -> str:
    console = Console(
        file=io.StringIO(),
        width=style.width,
        force_terminal=style.color,
        color_system="standard" if style.color else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return "".join(line.rstrip() + "\n" for line in capture.get().splitlines())


def _screen(report: Report, style: Style) -> Iterator[RenderableType]:
    digits = ALL_DIGITS if style.verbosity > 0 else DIGITS
    yield Text(_title(report), style="bold")
    yield Padding(_point(report, digits), INDENT_AND_GAP)
    yield Padding(_conditions(report, digits), INDENT_AND_GAP)
    yield Padding(_theorems(report), INDENT_AND_GAP)
    if style.verbosity > 0:
        yield Padding(_details(report), INDENT_AND_GAP)
    about = (*_not_applied(report), *_on_corollary1(report), _against_linear(report))
    for sentence in (_meaning(report), *report.reasons, *about):
        yield Padding(sentence, INDENT)


def _title(report: Report) -> str:
    path = report.spec.path
    return report.name if path is None else f"{report.name} ({path})"


def _word(verdict: Verdict) -> Text:
    return Text(verdict.value, style=COLOR[verdict])


def _pairs(rows: Sequence[tuple[str, str]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _point(report: Report, digits: int) -> Table:
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
    return _pairs(
        [
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
    )


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


def _conditions(report: Report, digits: int) -> Listing:
    """Definition 1 at ε: both conditions with value, threshold, margin and verdict."""
    gradient, hessian = report.gradient, report.hessian
    table = Listing(f"ε = {given(report.epsilon)}", "value", "threshold", "margin", "verdict")
    table.add_row(
        f"‖∇{_judged(report)}‖ ≤ ε",
        enclosed(gradient.norm, digits),
        given(report.epsilon),
        slack(report.epsilon - gradient.norm),
        _word(gradient.verdict),
    )
    allowed = None if hessian.threshold is None else -hessian.threshold
    table.add_row(
        "λ_min ≥ −√(μ2 ε)",
        enclosed(hessian.lambda_min, digits),
        enclosed(allowed),
        slack(None if allowed is None else hessian.lambda_min - allowed),
        _word(hessian.verdict),
    )
    if report.smallest_epsilon is not None:
        table.add_row("smallest ε for both", enclosed(report.smallest_epsilon, digits), "", "", "")
    return table


def _theorems(report: Report) -> Listing:
    """Both sides of every theorem at this point."""
    objective, gradient, measured = report.objective, report.gradient, report.gap_bounds
    F, gap = objective.F, objective.gap
    first, second, third = report.theorem1, report.theorem2, report.theorem3
    about = report.regularized
    table = Listing("theorem", "left side", "right side", "slack", "")

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


def _details(report: Report) -> Table:
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
    return _pairs(rows)


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


def _forms(table: BoundTable) -> Listing:
    last = () if table.F_lin_min is None else ("F ≤",)
    listing = Listing("ε", "bound", "refined", "threshold", "t*", "refined\npoly.", "threshold\npoly.", *last)
    for row in table.rows:
        forms = {"refined": row.refined_form, "threshold": row.threshold_form}
        binding = binding_form(row)
        cells = [
            given(row.eps),
            at_most(row.bound.upper, DIGITS),
            *(at_most(value, DIGITS) + "*" * (form == binding) for form, value in forms.items()),
            plain(row.threshold, 4),
            at_most(row.refined_polynomial_form, 4),
            at_most(row.polynomial_form, 4),
        ]
        if row.F_upper is not None:
            cells += [at_most(row.F_upper.upper, DIGITS)]
        listing.add_row(*cells)
    return listing


def _target(gap: float, eps: float) -> str:
    range_of_eps = "every ε" if math.isinf(eps) else f"every ε ≤ {at_least(eps, ALL_DIGITS)}"
    return f"The bound is at most {given(gap)} for {range_of_eps}."
