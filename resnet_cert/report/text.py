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
from resnet_cert.outcomes import Verdict, printable
from resnet_cert.report import Style
from resnet_cert.report.contour_map import contour_map
from resnet_cert.report.listing import Listing
from resnet_cert.report.numbers import ALL_DIGITS, DIGITS, at_least, at_most, enclosed, given, plain
from resnet_cert.report.page import Rows, page, title
from resnet_cert.results import BoundTable, Report, Sgd, Solved
from resnet_cert.theory.bound import binding_form

if TYPE_CHECKING:
    from resnet_cert.certificate.verification import Claim, Verification
    from resnet_cert.search.landscape import Landscape

COLOR = {Verdict.CERTIFIED: "bold green", Verdict.REFUTED: "bold red", Verdict.UNDECIDED: "bold yellow"}
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
        parts += [Text.assemble(_word(report.verdict), f"  {title(report)}") for report in reports]
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
    """First the verdict with what it is about, then the claim, why, and what is proven and what is not."""
    verdict, claim, spec = verification.verdict, verification.claim, verification.spec
    color = COLOR[Verdict.REFUTED if verdict is None else verdict]
    lines: list[RenderableType] = [Text(verification.headline, style=color)]
    if verdict is not None and claim is not None:
        lines += map(Text, _claimed(claim))
    if spec is not None:
        lines.append(Text(f"spec        {printable(spec.path)}, sha256 {spec.sha256}"))
    if verification.features is not None:
        features = verification.features
        within = f"within {features:.3g} of what is stored" if isinstance(features, float) else features
        lines.append(Text(f"features    {within}"))
    lines += [Text(f"because     {printable(reason)}") for reason in verification.reasons]
    return _rendered([*lines, *map(Text, verification.statements)], style)


def _claimed(claim: Claim) -> Iterator[str]:
    head = f"q = {claim.q}, bypass = {claim.bypass}, " + ("with a bias" if claim.bias else "without a bias")
    yield f"problem     {claim.loss}, n = {claim.n}, d = {claim.d}, k = {claim.k}, {head}"
    if claim.l2 or claim.norm is not None:
        limit = "" if claim.norm is None else f", ‖(W, V)‖ ≤ {claim.norm!r}"
        yield f"objective   l2 = {claim.l2!r}{limit}"
    enclosed = (("F", claim.F), ("‖∇F‖", claim.gradient_norm), ("λ_min", claim.lambda_min))
    for name, ends in (*enclosed, ("r°", claim.break_even_radius)):
        if ends.lower is not None or ends.upper is not None:
            lower, upper = ("?" if end is None else f"{end:.9g}" for end in (ends.lower, ends.upper))
            yield f"{name:<11} in [{lower}, {upper}]"
    yield f"b           {claim.b!r} ({claim.b_source or 'as in the spec'})"
    yield f"μ2          {'unknown' if claim.mu2 is None else repr(claim.mu2)} ({claim.mu2_source})"


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
    said = page(report, ALL_DIGITS if style.verbosity > 0 else DIGITS)
    yield Text(said.title, style="bold")
    yield Padding(_pairs(said.facts), INDENT_AND_GAP)
    yield Padding(_listing(said.conditions), INDENT_AND_GAP)
    yield Padding(_listing(said.theorems), INDENT_AND_GAP)
    if style.verbosity > 0:
        yield Padding(_pairs(said.details), INDENT_AND_GAP)
    for sentence in said.sentences:
        yield Padding(sentence, INDENT)
    for step in said.next_steps:
        yield Padding(f"→ {step}", INDENT)


def _listing(rows: Rows) -> Listing:
    listing = Listing(*rows.headings)
    for row in rows.rows:
        listing.add_row(*(_word(cell) if isinstance(cell, Verdict) else cell for cell in row))
    return listing


def _word(verdict: Verdict) -> Text:
    return Text(verdict.value, style=COLOR[verdict])


def _pairs(rows: Sequence[tuple[str, str]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


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
