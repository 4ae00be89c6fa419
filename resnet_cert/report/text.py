"""Reports to be read: one screen each, at most `style.width` columns, complete without colour."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from resnet_cert.compare.theorem4 import theorem4_terms
from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.numerics.radius import Array
from resnet_cert.outcomes import Verdict, printable
from resnet_cert.report import Style
from resnet_cert.report.contour_map import contour_map
from resnet_cert.report.listing import Listing
from resnet_cert.report.numbers import ALL_DIGITS, DIGITS, at_least, at_most, enclosed, given, plain
from resnet_cert.report.page import DISTRIBUTION, Rows, break_even_words, page, point_name, title
from resnet_cert.results import BoundTable, Profile, Report, Sgd, Solved
from resnet_cert.theory.bound import binding_form

if TYPE_CHECKING:
    from resnet_cert.certificate.verification import Claim, Verification
    from resnet_cert.search.landscape import CriticalPoint, Landscape, UndecidedInSpace

COLOR = {Verdict.CERTIFIED: "bold green", Verdict.REFUTED: "bold red", Verdict.UNDECIDED: "bold yellow"}
INDENT = (0, 0, 0, 2)
MOST_COLUMNS = 10**5
MOST_BOXES = 3
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
    symbols: dict[str, float] = {"b": constants.b, "r": constants.r}
    symbols |= {"μ0": constants.mu0, "μ1": constants.mu1, "μ2": constants.mu2, "d": constants.d}
    if constants.q > 1:
        symbols |= {"q": constants.q, "k": constants.k}
    if constants.s is not None:
        symbols |= {"s": constants.s}
    if constants.l2:
        symbols |= {"l2": constants.l2, "‖V‖_F": constants.norm_V or 0.0}
    augmented = ["augmented: F − E[ℓ(Ux + Zf)], ‖U‖_F ≤ r, ‖Z‖_F ≤ s."] * (constants.s is not None)
    parts: list[RenderableType] = []
    if table.rows and constants.l2:
        parts += [
            "Theorem 3 with weight decay, G = F + l2(‖W‖_F² + ‖V‖_F²): G − min G_lin (‖W‖_F ≤ r) at any "
            "ε-second-order stationary point of G is at most",
            "",
            _forms(table),
            "",
        ]
    elif table.rows:
        parts += [
            "Theorem 3: F − min F_lin (‖W‖_F ≤ r) at any ε-second-order stationary point is at most",
            "",
            _forms(table),
            "",
            "* the smaller of the two sharp forms: the bound.  t*: where the threshold form splits.",
            *augmented,
        ]
    parts += [", ".join(f"{symbol} = {plain(value, DIGITS)}" for symbol, value in symbols.items())]
    if constants.q > 1:
        parts += ["b bounds ‖W‖_F and ‖V‖."]
    if constants.span < constants.q:
        parts += [f"The loss's gradients sum to 0: so many outputs count as {constants.span}."]
    if table.F_lin_min is not None:
        parts += [f"min {'G' if constants.l2 else 'F'}_lin = {enclosed(table.F_lin_min)}"]
    if table.target_gap is not None:
        parts += [_target(table.target_gap, table.target_eps)]
    return _rendered(parts, style)


def sgd(run: Sgd, style: Style) -> str:
    """The averages of a run beside the bound of Theorem 4, and what that speaks of."""
    theta = "frozen" if run.theta == "frozen" else "trained as well"
    model = "wᵀx + vᵀf(x), ‖(w, v)‖ ≤ B" if run.outputs == 1 else "Ux + Zf(x), ‖(U, Z)‖ ≤ B"
    parts = [
        Text(f"{run.name}: SGD on {model}, θ {theta}", style="bold"),
        Padding(_sgd_setting(run), INDENT_AND_GAP),
        Padding(_sgd_values(run), INDENT_AND_GAP),
        *(Padding(sentence, INDENT) for sentence in _sgd_meaning(run)),
    ]
    return _rendered(parts, style)


def _sgd_setting(run: Sgd) -> Table:
    constants = run.constants
    at_most = f"R = min(M, B·l) = {plain(min(constants.r, constants.b * constants.l))}"
    ball = "‖(w, v)‖" if run.outputs == 1 else "‖(U, Z)‖"
    return _pairs(
        [
            ("steps", f"T = {run.steps} of size η = D/(l√T) = {plain(run.eta)}, seed {run.seed}"),
            ("on the ball", f"{ball} ≤ B = {plain(constants.b)}: distance to z_1 = 0 at most D = B"),
            ("loss there", f"l = {plain(constants.l)}-Lipschitz, |ℓ| ≤ M = {plain(constants.r)}; {at_most}"),
        ]
    )


def _sgd_values(run: Sgd) -> Listing:
    steps = "all steps" if run.evaluated == run.steps else f"{run.evaluated} evenly spaced steps"
    table = Listing("objective", "value", "above min F_lin")
    least = "min F_lin, ‖w‖ ≤ B" if run.outputs == 1 else "min F_lin, ‖U‖ ≤ B"
    table.add_row(least, plain(run.F_lin_min, DIGITS), "")
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
        yield "It says nothing of the last step; at the average of all of them the convex F is no larger."
    else:
        yield "It says nothing of the last step, nor of averaged parameters."
    if run.repeats is not None:
        promised = plain(100.0 * run.repeats.required)
        if run.repeats.within_bound is None:
            yield f"{run.repeats.n} runs cost too much to evaluate at every step: how many hold is open."
        else:
            within = plain(100.0 * run.repeats.within_bound)
            yield f"Of {run.repeats.n} runs {within} % are within the bound, where it promises {promised} %."


def solve(solved: Solved, style: Style) -> str:
    """How many steps it took, where the point is, before and after, and the screen of its check; quiet: the
    verdict alone."""
    if style.verbosity < 0:
        return check([solved.report], style)
    steps = f"{solved.iterations} iteration{'' if solved.iterations == 1 else 's'}"
    after = solved.report
    name = "F" if after.regularized is None else "G"
    parts: list[RenderableType] = []
    if solved.start is not None:
        table = Listing("", name, f"‖∇{name}‖", "λ_min", f"{name} − min {name}_lin")
        for when, report in (("before", solved.start), ("after", after)):
            table.add_row(when, *(enclosed(x) for x in _position(report)))
        both = f"Both by the constants of one domain, b = {plain(after.constants.b)}."
        parts += ["", table, "", both]
    if solved.attained is True:
        parts += ["", f"The infimum of {name} over all (W, V) is attained."]
    if solved.attained is False:
        parts += ["", f"The infimum of {name} over all (W, V) is not attained: {solved.reason}."]
    first = f"{steps}; the point {point_name(after)} is in {solved.point}\n"
    return first + _rendered([*parts, ""], style) + check([after], style)


def _position(report: Report) -> tuple[Enclosure | None, ...]:
    """The objective, ‖∇‖, λ_min and the gap, of what the report judges."""
    judged = report.regularized
    value = report.objective.F if judged is None else judged.objective
    gap = report.objective.gap if judged is None else judged.gap
    return value, report.gradient.norm, report.hessian.lambda_min, gap


def profile(profile: Profile, style: Style, picture: str | None) -> str:
    """min F_lin against r as a table, and where it meets F."""
    first = "" if picture is None else f"; the picture is in {picture}"
    rows = Listing("r", "min F_lin, ‖W‖_F ≤ r", "the network")
    for row in profile.rows:
        rows.add_row(plain(row.r, 4), enclosed(row.F_lin_min), _beside(profile.F, row.F_lin_min))
    facts = [
        ("F", f"{enclosed(profile.F)} at the point"),
        ("break-even", break_even_words(profile.break_even_radius, profile.norm_W, "‖W‖_F", DIGITS)),
    ]
    for other in profile.comparators:
        least = f"min F_lin = {enclosed(other.F_lin_min)} over ‖W‖_F ≤ {plain(other.radius)}"
        facts.append((f"on {other.name}", least))
    name = Text(f"{profile.name}: the best linear predictor against its size{first}", "bold")
    return _rendered([name, "", rows, "", _pairs(facts)], style)


def _beside(F: Enclosure, F_lin_min: Enclosure) -> str:
    if F.upper < F_lin_min.lower:
        return "is better"
    return "is worse" if F_lin_min.upper < F.lower else "as good, or open"


def landscape(found: Landscape, style: Style, picture: str | None) -> str:
    """A map, unless there is a picture, and the critical points."""
    G = _objective(found)
    first = "" if picture is None else f"; the picture is in {picture}"
    parts: list[RenderableType] = [Text(f"{found.name}: the landscape of {G}{first}", "bold")]
    parts += ["", *contour_map(found), ""] if picture is None else [""]
    if found.critical_points:
        parts += [_points(found), ""]
    elif not found.critical_sets:
        parts += ["No critical points here.", ""]
    parts += [*_sets(found), *_landscape_meaning(found)]
    return _rendered(parts, style)


def _objective(found: Landscape) -> str:
    name = f"G = F + {given(found.l2)}·(‖W‖_F² + ‖V‖_F²)" if found.l2 else "F"
    return name if found.norm is None else f"{name} on ‖(W, V)‖ ≤ {given(found.norm)}"


def _points(found: Landscape) -> Listing:
    """A column of multipliers is there where there are some."""
    plane, name = found.plane, "G" if found.l2 else "F"
    with_multiplier = any(point.multiplier is not None for point in found.critical_points)
    on_plane = any(point.at is not None for point in found.critical_points)
    headings = [*(plane.names if on_plane else ("W", "V")), name, "eigenvalues"] + ["μ"] * with_multiplier
    table = Listing("critical point", *headings)
    for point in found.critical_points:
        place = ("", "") if point.at is None else tuple(plain(float(x), 8) for x in point.at)
        if not on_plane:
            place = _array(point.point.W), _array(point.point.V)
        curvatures = ", ".join(plain(value, 3) for value in point.eigenvalues)
        cells = [*place, plain(point.objective.value, 8), curvatures]
        if with_multiplier:
            cells.append("" if point.multiplier is None else plain(point.multiplier, 8))
        table.add_row(_kind(found, point), *cells)
    return table


def _kind(found: Landscape, point: CriticalPoint) -> str:
    name = point.name
    if not found.plane.whole and point.kind_in_space not in (None, point.kind):
        name += f" on the plane, {point.kind_in_space} of all"
    if point.touching:
        name += ", touching the rim"
    elif point.on_rim:
        name += ", on the rim"
    return name if point.proven else name + ", not proven"


def _sets(found: Landscape) -> Iterator[str]:
    name = "G" if found.l2 else "F"
    for part in found.critical_sets:
        what = f"Global minima of {name} over all (W, V)" if part.kind == "minimum" else "Saddles at W = 0"
        size = {None: "of a dimension that is not proven", 0: "one point", 1: "a curve"}
        extent = size.get(part.dimension, f"of dimension {part.dimension}")
        at = part.through
        c = "" if at.c is None else f", c = {_array(at.c)}"
        through = f"W = {_array(at.W)}{c}, V = {_array(at.V)}"
        bent = "" if part.lambda_min is None else f", λ_min = {enclosed(part.lambda_min, 4)} there"
        yield f"{what}: {name} = {enclosed(part.value)}, {extent}, through {through}{bent}."


def _array(a: Array) -> str:
    """All of a small array; the size of a large one."""
    flat = a.ravel()
    if flat.size == 1:
        return plain(float(flat[0]), 8)
    if flat.size > 6:
        return f"an array {' × '.join(map(str, a.shape))}"
    return "(" + ", ".join(plain(float(x), 5) for x in flat) + ")"


def _landscape_meaning(found: Landscape) -> Iterator[str]:
    name = "G" if found.l2 else "F"
    least = enclosed(found.objective_lin_min)
    at_zero = "the best predictor without the block" if name == "F" else "the best G at V = 0"
    yield f"min F_lin = {enclosed(found.F_lin_min)}; {at_zero}, over all W allowed, has {name} = {least}."
    if not found.plane.whole and found.searched == "plane":
        yield (
            f"The plane goes through the point P = (0, 0), {found.plane.names[0]} along "
            f"{found.plane.words[0]}, {found.plane.names[1]} along {found.plane.words[1]}; what is listed is "
            "critical on it."
        )
    spurious = [point for point in found.critical_points if point.spurious]
    closed = found.closed_form
    where = _where(found)
    if closed is not None and not spurious:
        infimum = f"inf F over all (W, V) is {enclosed(closed.infimum)}"
        if closed.attained is False:
            yield f"{infimum}, not attained: {closed.why}."
        if closed.attained is None:
            yield f"{infimum}; whether it is attained is open: {closed.why}."
        if found.complete and found.plane.whole:
            yield "These are all critical points of F over all (w, v), proven."
        yield (
            "No minimum of F is spurious: every second-order stationary point is a global minimum over "
            "all (W, V)."
        )
    elif found.complete:
        yield f"These are all critical points of {name} {where}, proven."
    if spurious:
        worst = max(point.objective.value for point in spurious)
        above = plain(worst - found.objective_lin_min.value)
        yield f"A spurious minimum is a local minimum above the best {name} at V = 0, here by up to {above}."
    elif closed is None and found.complete and math.isfinite(found.objective_lin_min.lower):
        yield f"No spurious minimum {where}, proven."
    elif closed is None:
        yield f"No spurious minimum was found {where}; that there is none is not proven."
    if found.why_open is not None:
        yield (
            f"Minima of F may be spurious, and lie off this plane or range: {found.why_open}; "
            "loss.convex: true is your claim of it."
        )
    if any(part.kind == "saddle" and len(part.through.W) > 1 for part in found.critical_sets):
        yield (
            "Other saddles may lie where W_1, the columns of W on the block, is neither 0 nor of full row "
            "rank; they are not listed."
        )
    if found.l2 and found.norm is not None and found.searched == "plane" and not found.plane.whole:
        yield "With weight decay within a ball, critical points off this plane are not searched for."
    if found.searched == "multi-start":
        yield (
            "For so many unknowns (d + k) nothing is searched with proof: these are the critical points that "
            "descents from many starts come to, each one proven to exist."
        )
    if found.undecided_in_space:
        yield _listed([_box_in_space(box) for box in found.undecided_in_space], found.undecided_boxes)
    elif found.undecided:
        s, t = found.plane.names
        shown = [f"{s} ∈ {_interval(box.s)}, {t} ∈ {_interval(box.t)}" for box in found.undecided]
        yield _listed(shown, found.undecided_boxes)
    elif not found.complete and closed is None and found.searched != "multi-start":
        yield "Not decided everywhere: the search ran out of its budget."


def _listed(boxes: list[str], total: int) -> str:
    """The first of the boxes that are not decided."""
    first = "; ".join(boxes[:MOST_BOXES])
    if len(boxes) == 1:
        return f"Not decided here: {first}."
    more = (
        f"; and {len(boxes) - MOST_BOXES} more, all in the JSON document" if len(boxes) > MOST_BOXES else ""
    )
    parts = f", put together from the {total} that are left" if total > len(boxes) else ""
    return f"Not decided here, in {len(boxes)} boxes{parts}: {first}{more}."


def _box_in_space(box: UndecidedInSpace) -> str:
    w, V = (
        " × ".join(_interval(ends) for ends in zip(low.ravel(), high.ravel(), strict=True))
        for low, high in (box.w, box.V)
    )
    return f"w ∈ {w}, V ∈ {V}"


def _where(found: Landscape) -> str:
    """The range that a statement is about."""
    if found.searched in ("d + k unknowns", "d + k unknowns, in part", "multi-start"):
        w, V = (plain(found.reach[name], 4) for name in ("w", "V"))
        return f"with |w_i| ≤ {w}, |V_ij| ≤ {V}"
    s0, s1, t0, t1 = found.range
    s, t = found.plane.names
    on = "" if found.plane.whole else "on the plane "
    return f"{on}with {s} ∈ {_interval((s0, s1))}, {t} ∈ {_interval((t0, t1))}"


def _interval(ends: tuple[float, float]) -> str:
    return f"[{plain(ends[0], 5)}, {plain(ends[1], 5)}]"


def verify(verification: Verification, style: Style) -> str:
    """First the verdict with what it is about (quiet: no more), then the claim, and what is proven."""
    verdict, claim, spec = verification.verdict, verification.claim, verification.spec
    color = COLOR[Verdict.REFUTED if verdict is None else verdict]
    whole = replace(style, width=MOST_COLUMNS)  # a path is not broken: the first line says it all
    headline = _rendered([Text(verification.headline, style=color)], whole)
    if style.verbosity < 0:
        return headline
    lines: list[RenderableType] = []
    if verdict is not None and claim is not None:
        lines += map(Text, _claimed(claim))
    if spec is not None:
        lines.append(Text(f"spec        {printable(spec.path)}, sha256 {spec.sha256}"))
    if verification.features is not None:
        features = verification.features
        within = f"within {features:.3g} of what is stored" if isinstance(features, float) else features
        lines.append(Text(f"features    {within}"))
    lines += [Text(f"because     {printable(reason)}") for reason in verification.reasons]
    return headline + _rendered([*lines, *map(Text, verification.statements)], style)


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
    if said.statistical:
        yield Padding(Text(DISTRIBUTION, style="bold"), (1, 0, 0, 2))
    for sentence in said.statistical:
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
    if table.constants.l2:
        listing = Listing("ε", "bound", *(() if table.F_lin_min is None else ("G ≤",)))
        for row in table.rows:
            upper = [] if row.F_upper is None else [at_most(row.F_upper.upper, DIGITS)]
            listing.add_row(given(row.eps), at_most(row.bound.upper, DIGITS), *upper)
        return listing
    last = () if table.constants.s is None else ("augmented",)
    last += () if table.F_lin_min is None else ("F ≤",)
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
        if row.augmented_form is not None:
            cells += [at_most(row.augmented_form.upper, DIGITS)]
        if row.F_upper is not None:
            cells += [at_most(row.F_upper.upper, DIGITS)]
        listing.add_row(*cells)
    return listing


def _target(gap: float, eps: float | None) -> str:
    if eps is None:
        return f"The bound is above {given(gap)} for every ε: what weight decay can cost is more."
    range_of_eps = "every ε" if math.isinf(eps) else f"every ε ≤ {at_least(eps, ALL_DIGITS)}"
    return f"The bound is at most {given(gap)} for {range_of_eps}."
