"""What is said about a report, as plain data: every format lays the same words out in its own way."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.outcomes import Verdict, printable
from resnet_cert.report.numbers import DIGITS, at_least, at_most, enclosed, given, plain, slack
from resnet_cert.results import BreakEvenRadius, Regularized, Report

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


DISTRIBUTION = "On the distribution of the data"
"""Over what is statistical: a section of its own."""


@dataclass(frozen=True)
class Page:
    """A report in words, in the order of reading.

    facts: the data, the point, its objective.  conditions: Definition 1 at ε.  theorems: both sides of each.
    details: what stands behind the numbers.  sentences: each one true without the rest of the page.
    statistical: the same of what is said of the distribution, which no proof stands behind.
    next_steps: the options and commands that go on from a verdict that is not CERTIFIED.
    """

    title: str
    verdict: Verdict
    facts: Pairs
    conditions: Rows
    theorems: Rows
    details: Pairs
    sentences: tuple[str, ...]
    statistical: tuple[str, ...]
    next_steps: tuple[str, ...]


def page(report: Report, digits: int = DIGITS) -> Page:
    """The report with numbers of at most so many digits."""
    return Page(
        title=title(report),
        verdict=report.verdict,
        facts=_facts(report, digits),
        conditions=_conditions(report, digits),
        theorems=_theorems(report, digits),
        details=_details(report),
        sentences=tuple(_sentences(report)),
        statistical=tuple(_on_population(report)),
        next_steps=tuple(_next_steps(report)),
    )


def title(report: Report) -> str:
    path = report.spec.path
    return report.name if path is None else f"{report.name} ({printable(path)})"


# --- Names ------------------------------------------------------------------------------------------------


def _w(report: Report) -> str:
    """What multiplies x + V f: a vector, or with several outputs a matrix."""
    return "w" if report.problem.outputs == 1 else "W"


def point_name(report: Report) -> str:
    """What the point consists of: (w, V) for one output, (W, c, V) for several with a bias of the head."""
    return f"({_w(report)}, V)" if not report.problem.bias else f"({_w(report)}, c, V)"


def _head(report: Report, of: str = "") -> str:
    """All of the head, of which norms are taken: w, or (w, c) where it has a bias."""
    w = _w(report) + of
    return f"({w}, c{of})" if report.problem.bias else w


def _length_of_w(report: Report, of: str = "") -> str:
    """The Euclidean norm of the head or of another one, which of matrices is Frobenius'."""
    return f"‖{_head(report, of)}‖" + "_F" * (report.problem.outputs > 1)


def _in_ball(report: Report) -> str:
    """Where linear predictors are sought."""
    return f"{_length_of_w(report)} ≤ r = {plain(report.constants.r)}"


def _judged(report: Report) -> str:
    """The function whose gradient and Hessian Definition 1 speaks of."""
    if report.regularized is None:
        return "F"
    return "L" if report.regularized.active else "G"


# --- What is there ----------------------------------------------------------------------------------------


def _facts(report: Report, digits: int) -> Pairs:
    size, objective, constants, w = report.problem, report.objective, report.constants, _w(report)
    whole = _head(report)
    inputs = f"x in R^{size.d}" + (f", {size.bypass} bypass inputs" if size.bypass else "")
    rows = [("data", f"n = {size.n} samples, {inputs}, f(x) in R^{size.k}; loss {size.loss}")]
    if size.outputs > 1 or size.bias or size.bypass:
        read = "(x + V f(x), bypass)" if size.bypass else "(x + V f(x))"
        head = f"p = {w}{'ᵀ' * (w == 'w')}{read}" + (" + c" if size.bias else "")
        rows.append(("head", f"{head} in R^{size.outputs}" if size.outputs > 1 else head))
    if size.assumption1.range is not None:
        rows.append(("Assumption 1", _assumption1(report)))
    rows += [
        (
            f"point {point_name(report)}",
            f"‖{whole}‖ = {plain(size.norm_w)}, ‖V‖ = {plain(size.norm_V)}; {size.parameters} parameters; "
            f"domain ‖{whole}‖, ‖V‖ < b = {plain(constants.b)}",
        ),
        ("objective", f"F = {enclosed(objective.F, digits)}"),
        ("best linear", _best_linear(report, digits)),
        ("gap", f"F − min F_lin = {enclosed(objective.gap, digits)}"),
    ]
    if objective.break_even_radius is not None:
        rows.append(("break-even", _break_even(report, objective.break_even_radius, digits)))
    if objective.block_gap is not None:
        rows.append(
            (
                "left to gain",
                f"F − inf F over all {point_name(report)} = {enclosed(objective.block_gap, digits)}",
            )
        )
    if report.augmented is not None:
        wider = report.augmented
        least = f"min E[ℓ(Ux + Zf)] = {enclosed(wider.minimum, digits)}"
        rows.append(("on (x, f)", f"{least} over ‖(U, Z)‖ ≤ {plain(wider.r)}"))
    for other in report.comparators:
        least = f"min F_lin on {other.name} = {enclosed(other.F_lin_min, digits)}"
        rows.append((f"on {other.name}", f"{least} over {_length_of_w(report)} ≤ {plain(other.radius)}"))
    if report.regularized is not None:
        rows += _regularized(report, report.regularized, digits)
    return rows


def _assumption1(report: Report) -> str:
    about = report.problem.assumption1
    where = "" if about.range is None else f" for |p| ≤ {at_most(about.range, DIGITS)}"
    if about.status == "unknown":
        return f"not known to hold{where}" + (f": {about.reason}" if about.reason else "")
    if about.status == "claimed":
        return f"the loss is convex and smooth{where}: your claim, not proven here"
    if about.everywhere == "proven" and about.range is not None:
        return "the loss is convex and smooth for every p, proven"
    beyond = "by your claim" if about.everywhere == "claimed" else "not known"
    return f"the loss is convex and smooth{where}, proven; beyond that {beyond}"


def _best_linear(report: Report, digits: int) -> str:
    objective, chosen = report.objective, report.constants.source.get("r")
    best = f"min F_lin = {enclosed(objective.F_lin_min, digits)} over {_in_ball(report)}"
    if objective.attained is False:
        return f"{best}; no linear predictor attains inf F_lin: a larger r gives less"
    if objective.attained is None:
        about = report.problem.assumption1
        is_local = about.status == "proven" and about.everywhere == "unknown"
        best += "; not known whether inf F_lin is attained"
        best += ", for the loss is known to be convex in a range only" if is_local else ""
    if objective.falls_at_rim:
        best += "; a larger r gives less" + (", and this one is a default" if chosen == "computed" else "")
    return best


def _break_even(report: Report, radius: BreakEvenRadius, digits: int) -> str:
    return break_even_words(radius, report.problem.norm_W_frobenius, _length_of_w(report), digits)


def break_even_words(radius: BreakEvenRadius, own: float | None, length: str, digits: int) -> str:
    """From which size on a linear predictor does as well, beside the size of the network's own W.

    Args:
        length: the name of that size.
    """
    beside = "" if own is None else f"; the network's own {length} = {plain(own)}"
    if radius.infinite:
        return f"no linear predictor of any size does as well{beside}"
    upper = math.inf if radius.upper is None else radius.upper
    if 0.0 == radius.lower < upper < math.inf:
        return f"a linear predictor does as well from some {length} ≤ {at_most(upper, digits)} on{beside}"
    if math.isinf(upper):
        smaller = f"ones with {length} < {at_least(radius.lower, digits)} do not; " if radius.lower else ""
        why = "inf F_lin is not known closely enough to tell"
        return f"whether a linear predictor does as well: {smaller}{why}{beside}"
    if upper == 0.0:
        return f"the linear predictor 0 does as well{beside}"
    value = radius.lower if radius.value is None else radius.value
    shown = enclosed(Enclosure(value, radius.lower, upper), digits)
    return f"a linear predictor does as well from {length} = {shown} on{beside}"


def _regularized(report: Report, about: Regularized, digits: int) -> Pairs:
    """What Definition 1 speaks of where it is not F: G, on a ball, and on its boundary the Lagrangian L."""
    squares = _length_of_w(report) if about.decays_bias else f"‖{_w(report)}‖_F"
    point = point_name(report) if about.decays_bias else f"({_w(report)}, V)"
    added = f" + {given(about.l2)}·({squares}² + ‖V‖_F²)" if about.l2 else ""
    rows = [("judged", f"G = F{added} = {enclosed(about.objective, digits)}")]
    if about.norm is not None:
        rows += [("constraint", f"‖{point}‖ = {enclosed(about.norm_point, digits)} ≤ {given(about.norm)}")]
        if about.active and about.norm_point.upper > about.norm:
            rows[-1] = (
                "constraint",
                f"‖{point}‖ = {enclosed(about.norm_point, digits)}: on the sphere of radius "
                f"{given(about.norm)}, to a relative 1e-6",
            )
    if about.active:
        held = about.multiplier is not None and about.multiplier.lower > 0.0
        L = f"G + (μ/2)·‖{point}‖², λ_min along the sphere" if held else f"G + (max(0, μ)/2)·‖{point}‖²"
        rows += [("boundary", f"μ = {enclosed(about.multiplier, digits)}; L = {L}")]
    return [*rows, ("best at V = 0", f"min G = {enclosed(about.objective_lin_min, digits)}")]


# --- Definition 1 -----------------------------------------------------------------------------------------


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
        enclosed(allowed, digits),
        slack(None if allowed is None else hessian.lambda_min - allowed),
        hessian.verdict,
    )
    if report.smallest_epsilon is not None:
        table.add_row("smallest ε for both", enclosed(report.smallest_epsilon, digits), "", "", "")
    return table


# --- The theorems -----------------------------------------------------------------------------------------


def _theorems(report: Report, digits: int) -> Rows:
    """Both sides of every theorem at this point."""
    objective, gradient, measured = report.objective, report.gradient, report.gap_bounds
    F, gap = objective.F, objective.gap
    first, second, third = report.theorem1, report.theorem2, report.theorem3
    about = report.regularized
    table = Rows(("theorem", "left side", "right side", "slack", ""))

    def at_most_row(statement: str, left: Enclosure, right: Enclosure | None, end: str = "") -> None:
        by = None if right is None else right - left
        table.add_row(statement, enclosed(left, digits), enclosed(right, digits), slack(by), end)

    def at_least_row(statement: str, left: Enclosure | None, right: Enclosure | None, end: str) -> None:
        by = None if left is None or right is None else left - right
        table.add_row(statement, enclosed(left, digits), enclosed(right, digits), slack(by), end)

    if first.applies:
        end = _holds(first.holds)
        at_least_row("1  ‖∇F‖ ≥ gap/D", gradient.norm, first.lower_bound, end)
        at_least_row("1  ‖∇F‖ ≥ gap/D, D refined", gradient.norm, first.lower_bound_refined, end)
    if second.applies is not False:
        statement = f"2  at {_head(report)} = 0: left ≥ gap/{_length_of_w(report, '*')}"
        at_least_row(statement, second.left, second.right, _holds(second.holds))
    if third.applies:
        at_most_row("3  F ≤ min F_lin + bound(ε)", F, third.F_upper, _holds(third.holds))
        if third.augmented is not None:
            wider = f"3  F ≤ min Φ + bound, ‖Z‖ ≤ {at_least(third.augmented.s)}"
            at_most_row(wider, F, third.augmented.upper, "")
    at_most_row("F ≤ min F_lin", F, objective.F_lin_min, _yes(report.corollary1.verdict))
    if about is not None:
        less = about.gap if about.gap is not None else about.objective - about.objective_lin_min
        at_most_row("G ≤ min G at V = 0", about.objective, about.objective_lin_min, _sign(less))
        if about.theorem3 is not None and about.theorem3.applies:
            decayed = about.theorem3
            at_most_row(
                "3  G ≤ min G_lin + bound(ε)", about.objective, decayed.G_upper, _holds(decayed.holds)
            )
        if about.gap_bound is not None:
            at_most_row("G − min G_lin ≤ cost of decay", less, about.gap_bound)
        if about.proposition_R is not None:
            at_most_row("gap ≤ bound of Proposition R", gap, about.proposition_R)
    at_most_row("gap ≤ linear functional", gap, measured.linear_functional)
    at_most_row("gap ≤ first-order bound", gap, measured.first_order)
    at_most_row("gap ≤ local second-order bound", gap, measured.local)
    for other in report.comparators:
        at_most_row(f"F ≤ min F_lin on {other.name}", F, other.F_lin_min, _sign(other.gap))
    wider = report.augmented
    if wider is not None:
        at_most_row("gap to (x, f) ≤ functional", wider.gap, wider.linear_functional)
        if wider.lower_bound is not None and wider.lower_bound.known:
            at_least_row("‖∇F‖ ≥ gap to (x, f)/D", gradient.norm, wider.lower_bound, _holds(wider.holds))
    return table


def _holds(holds: bool | None) -> str:
    """The word for a theorem, which is true: what is open is open to rounding."""
    return {True: "holds", False: "fails", None: "open"}[holds]


def _yes(verdict: Verdict) -> str:
    """The word for a comparison, which may come out either way."""
    return {Verdict.CERTIFIED: "yes", Verdict.REFUTED: "no", Verdict.UNDECIDED: "undecided"}[verdict]


def _sign(gap: Enclosure) -> str:
    return "yes" if gap.upper <= 0.0 else "no" if gap.lower > 0.0 else "undecided"


# --- Sentences, each true without the rest of the page ----------------------------------------------------


def _sentences(report: Report) -> Iterator[str]:
    yield _meaning(report)
    yield from _on_expected(report)
    yield from (_sentence(report, reason) for reason in report.reasons)
    yield from _on_conditions(report)
    yield from _not_applied(report)
    yield from _on_theorem3(report)
    yield from _on_corollary1(report)
    yield from _on_decay(report)
    yield _against_linear(report)
    yield from _on_size(report)
    yield from _on_block(report)
    for other in report.comparators:
        yield _against(report, other.name, other.gap, other.radius)


EXPONENT = (r"e([+-])0(\d)\b", r"e\1\2")
PHRASES = (
    (r"gradient norm ≤ (\S+) is at most epsilon", r"‖∇F‖ is at most \1, so no more than ε"),
    (r"gradient norm ≥ (\S+) exceeds epsilon", r"‖∇F‖ is at least \1, which exceeds ε"),
    (r"gradient norm", "‖∇F‖"),
    (r"lambda_min ≥ (\S+) is at least (.*) ≤ (\S+)", r"lambda_min ≥ \1 is at least \2, which is at most \3"),
    (r"lambda_min ≥ (\S+) is at least ", r"λ_min is at least \1, so no less than "),
    (r"lambda_min ≤ (\S+) lies below (.*) ≥ (\S+)", r"λ_min is at most \1, below \2, which is at least \3"),
    (r"lambda_min ≤ (\S+) lies below ", r"λ_min is at most \1, below "),
    (r"lambda_min", "λ_min"),
    (r"-sqrt\(mu2 epsilon\)", "−√(μ2 ε)"),
    (r"\bepsilon\b", "ε"),
    (r"(?<!\.)\bmu2\b", "μ2"),
    EXPONENT,
)
"""The words of reasons, as the JSON document has them, and the symbols of the page for them."""


def _sentence(report: Report, reason: str) -> str:
    """A reason as a sentence, in the symbols of the page."""
    for words, symbols in PHRASES:
        reason = re.sub(words, symbols.replace("∇F", f"∇{_judged(report)}"), reason)
    first = reason[:1].upper() if reason[:1].isascii() else reason[:1]
    return f"{first}{reason[1:].rstrip('.')}."


def _meaning(report: Report) -> str:
    of = (
        "" if report.regularized is None else " of G" + " on the ball" * (report.regularized.norm is not None)
    )
    claim = f"an ε-second-order stationary point{of} for ε = {given(report.epsilon)}"
    point = point_name(report)
    if report.verdict is Verdict.CERTIFIED:
        return f"Certified: {point} is {claim}."
    if report.verdict is Verdict.REFUTED:
        return f"Refuted: {point} is not {claim}."
    why = "μ2 is not known" if report.hessian.threshold is None else "the numerical error exceeds the margin"
    return f"Undecided whether {point} is {claim}: {why}."


def _on_conditions(report: Report) -> Iterator[str]:
    hessian, descent = report.hessian, report.descent
    if hessian.vacuous:
        test = ""
        if hessian.informative_below is not None:
            test = f"; below ε = {at_least(hessian.informative_below)} it would be a test"
        yield (
            f"At ε = {given(report.epsilon)} the curvature condition tests nothing: √(μ2 ε) is at least "
            f"‖∇²F‖, so any curvature of that size passes it{test}."
        )
    if descent is None:
        return
    judged = "F" if report.regularized is None else "G"
    lower = f"{judged} is lower by at least {at_least(descent.decrease.lower)}"
    where = f"at a point {plain(descent.distance, 3)} away"
    spec = report.spec.path
    leave = (
        ""
        if spec is None
        else f"; `resnet-cert solve {printable(spec)} --output point.npz` goes on from here"
    )
    if descent.kind == "saddle":
        along = "along the direction of lowest curvature"
        yield f"{point_name(report)} is near a saddle of {judged}: {along} {lower} {where}{leave}."
    else:
        yield f"{point_name(report)} lies on a slope of {judged}: {lower} {where}{leave}."


def _not_applied(report: Report) -> Iterator[str]:
    theorems = ((1, report.theorem1), (2, report.theorem2), (3, report.theorem3))
    reasons: dict[str, list[int]] = {}
    about = report.regularized
    instead = about is not None and about.gap_bound is not None  # what decay can have cost is said for them
    for number, theorem in theorems:
        if theorem.applies is False and not instead:
            reasons.setdefault(theorem.reason or "", []).append(number)
    for reason, numbers in reasons.items():
        why = f": {re.sub(*EXPONENT, reason)}" if reason else ""
        if len(numbers) == 1:
            yield f"Theorem {numbers[0]} does not apply{why}."
        else:
            listed = ", ".join(map(str, numbers[:-1]))
            yield f"Theorems {listed} and {numbers[-1]} do not apply{why}."


def _on_theorem3(report: Report) -> Iterator[str]:
    """What Theorem 3 promises of the point from ε and the domain alone."""
    third, about = report.theorem3, report.regularized
    decayed = None if about is None else about.theorem3
    alone = f"From ε = {given(report.epsilon)} alone Theorem 3"
    size = f"no linear predictor of size {_in_ball(report)}"
    if decayed is not None and decayed.applies and decayed.bound is not None:
        if decayed.vacuous:
            yield f"{alone} says nothing: its bound lies above G = F_lin(0) of the predictor 0."
        else:
            most = at_most(decayed.bound.upper)
            yield f"{alone} promises that {size} has a G that is lower by more than {most}."
    elif third.applies and third.vacuous:
        yield (
            f"At ε = {given(report.epsilon)} Theorem 3 says nothing: its bound lies above F(0) = F_lin(0), "
            "the objective of the predictor 0."
        )
    elif third.applies and third.bound is not None:
        yield f"{alone} promises that {size} does better by more than {at_most(third.bound.upper)}."


def _on_corollary1(report: Report) -> Iterator[str]:
    about = report.corollary1
    if report.regularized is not None:  # it speaks of stationary points of F
        return
    if about.hypothesis is not None:
        is_point = "an exact second-order stationary point of F, ε = 0"
        met = {
            "met": f"is {is_point}: the hypothesis of Corollary 1 is met",
            "not met": f"is not {is_point}: the hypothesis of Corollary 1 is not met",
            "undecided": f"may be {is_point}: whether the hypothesis of Corollary 1 is met is undecided",
        }[about.hypothesis]
        yield f"{point_name(report)} {met}."
    if about.reason is not None:
        yield f"Corollary 1: {about.reason}."


def _on_decay(report: Report) -> Iterator[str]:
    about = report.regularized
    if about is None or about.gap_bound is None or about.norm is not None:
        return
    most = about.gap_bound.upper
    if math.isfinite(most):
        yield (
            f"Weight decay can have cost at most {at_most(max(most, 0.0))} here: no linear predictor of any "
            "size has a G that is lower by more."
        )
    if about.gap is not None and about.gap.upper < 0.0:
        ahead = at_least(-about.gap.upper)
        yield f"G is lower at the network than at every linear predictor of any size, by at least {ahead}."


def _against_linear(report: Report) -> str:
    """The tightest proven upper bound of the gap, as a sentence that names the ball."""
    gap, measured, third = report.objective.gap, report.gap_bounds, report.theorem3
    upper, proof = min(
        (gap.upper, "F and min F_lin"),
        (measured.linear_functional.upper, "the linear functional"),
        (measured.first_order.upper, "the first-order bound"),
        (measured.local.upper, "the local second-order bound"),
        (third.bound.upper if third.applies and third.bound is not None else math.inf, "Theorem 3"),
    )
    even = report.objective.break_even_radius
    if even is not None and even.infinite:
        by = f", by at least {at_least(even.margin)}" if even.margin else ""
        return f"The network does better than every linear predictor{by}."
    if even is not None and even.lower > 0.0 and _is_default(report):
        larger = f"linear predictor with {_length_of_w(report)} < {at_least(even.lower, 6)}"
        return f"The network does better than every {larger}."
    predictor = f"linear predictor with {_in_ball(report)}"
    if gap.lower > 0.0:
        return f"The best {predictor} does better, by at least {at_least(gap.lower)}."
    if upper < 0.0:
        return f"The network does better than every {predictor}, by at least {at_least(-upper)}."
    if upper == 0.0:
        return f"No {predictor} does better."
    if math.isinf(upper):
        return f"Nothing is proven about the best {predictor}."
    return f"No {predictor} does better by more than {at_most(upper)} (by {proof})."


def _is_default(report: Report) -> bool:
    """Nobody chose r, and it says nothing about the data either."""
    return report.constants.source.get("r") == "computed" and report.objective.falls_at_rim is not False


def _on_size(report: Report) -> Iterator[str]:
    """How large a linear predictor has to be: what does not hang on a radius that nobody chose."""
    radius, length = report.objective.break_even_radius, _length_of_w(report)
    own = report.problem.norm_W_frobenius
    if radius is None:
        if _is_default(report) and report.problem.assumption1.status != "unknown":
            yield (
                f"That r = {plain(report.constants.r)} is a default; --break-even computes how large a "
                "linear predictor must be to do as well."
            )
        return
    if radius.infinite or not radius.lower > 0.0:
        return
    beside = "" if own is None else f"; the network's own {length} is {plain(own)}"
    yield f"A linear predictor needs {length} ≥ {at_least(radius.lower, 6)} to do as well{beside}."


def _on_block(report: Report) -> Iterator[str]:
    left, radius = report.objective.block_gap, report.objective.break_even_radius
    if left is None and radius is not None:
        yield f"How much better any {point_name(report)} does with these features: --break-even computes it."
    if left is not None and math.isfinite(left.upper):
        most = at_most(max(left.upper, 0.0))
        better = "does better" if report.regularized is None else "has an F that is lower"
        yield f"With these features no {point_name(report)} {better} by more than {most}."


def _against(report: Report, name: str, gap: Enclosure, radius: float) -> str:
    best = f"linear predictor on {name} with {_length_of_w(report)} ≤ {plain(radius)}"
    if gap.upper < 0.0:
        return f"The network does better than every {best}, by at least {at_least(-gap.upper)}."
    if gap.lower > 0.0:
        return f"The best {best} does better, by at least {at_least(gap.lower)}."
    if math.isinf(gap.upper):
        return f"Nothing is proven about the best {best}."
    return f"No {best} does better by more than {at_most(gap.upper)}."


def _on_population(report: Report) -> Iterator[str]:
    about = report.population
    if about is None:
        return
    start = f"Statistical: with confidence {given(about.confidence)} and under the bounds you state,"
    predictor = f"linear predictor with {_in_ball(report)}"
    if about.better_than_linear:
        yield (
            f"{start} the network does better on the distribution than every {predictor}, by at least "
            f"{at_least(-about.gap_upper)}."
        )
    else:
        most = at_most(about.gap_upper)
        yield f"{start} no {predictor} does better on the distribution by more than {most}."
    if about.smallest_epsilon is not None:
        yield (
            f"{start} {point_name(report)} is an ε-second-order stationary point of the distribution for "
            f"ε = {at_most(about.smallest_epsilon)}."
        )


def _on_expected(report: Report) -> Iterator[str]:
    """Whether the spec got the verdict that it must get."""
    if report.expect is not None:
        words = " or ".join(verdict.value for verdict in report.expect)
        if report.verdict in report.expect:
            yield f"As expected: the spec must get {words}."
        else:
            yield f"Not as expected: the spec must get {words} and got {report.verdict.value}."


# --- What to do next --------------------------------------------------------------------------------------


def _next_steps(report: Report) -> Iterator[str]:
    spec = printable(report.spec.path or "run.yaml")
    least = report.smallest_epsilon
    if least is not None and math.isfinite(least.upper) and at_most(least.upper) != given(report.epsilon):
        point = "The point is" if report.population is None else "On the sample the point is"
        yield f"{point} an ε-second-order stationary point for every ε ≥ {at_most(least.upper)}."
    if report.verdict is Verdict.CERTIFIED:
        return
    if report.verdict is Verdict.REFUTED and report.spec.path is None:
        yield 'problem.save("run.npz") writes run.yaml beside it, for the commands below.'
    if report.verdict is Verdict.REFUTED:
        if report.descent is None:
            yield f"resnet-cert solve {spec} --output point.npz goes on from here to a stationary point."
        yield f"resnet-cert check {spec} --witness lower.npz writes a direction in which the objective falls."
    elif report.hessian.threshold is None and math.isfinite(report.hessian.lambda_min.lower):
        yield "--set lipschitz.mu2=NUMBER states the Lipschitz constant of the Hessian, where you know one."
    elif report.hessian.method == "bound":
        yield "--hessian exact decides what the bound of the curvature leaves open, where the size permits."


# --- What stands behind the numbers -----------------------------------------------------------------------


def _details(report: Report) -> Pairs:
    """Constants and their sources, the other forms, the cross-check."""
    constants, third, cross = report.constants, report.theorem3, report.crosscheck
    rows = []
    for symbol in ("b", "r", "mu0", "mu1", "mu2"):
        source = constants.source.get(symbol, "missing")
        form = f", {constants.form[symbol]} form" if symbol in constants.form else ""
        rows.append((symbol, f"{given(getattr(constants, symbol))}  ({source}{form})"))
    if third.applies:
        binding = "" if third.form is None else f"; the least is the {third.form} form"
        rows += [
            ("threshold form", f"{given(third.threshold_form)} (t* = {given(third.threshold)})"),
            ("refined form", f"{given(third.refined_form)}{binding}"),
            (
                "polynomials",
                f"{given(third.polynomial_form)}, refined {given(third.refined_polynomial_form)}",
            ),
        ]
    zeros = report.hessian.zero_multiplicity
    rows += [
        ("Hessian", f"{report.hessian.method}; {zeros} eigenvalues of ∇²F besides are exactly 0"),
        (_length_of_w(report, "*"), given(report.objective.norm_w_star)),
        (
            f"by {cross.method}",
            f"‖∇{_judged(report)}‖ = {given(cross.gradient_norm)}, λ_min = {given(cross.lambda_min)}, "
            f"curvature of the witness {given(cross.curvature_along_witness)}",
        ),
        ("versions", ", ".join(f"{name} {version}" for name, version in report.versions.items())),
        ("seconds", plain(report.seconds.total, 3)),
    ]
    return rows
