"""What is written about a report: everything that was found, nothing more than is proven."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports import bound_table, certified, exact, refuted, undecided
from selections import first

from resnet_cert.certificate.verification import Verification
from resnet_cert.numerics.enclosure import UNKNOWN, Enclosure
from resnet_cert.outcomes import Verdict
from resnet_cert.report import FORMATS, Style, formatter, numbers
from resnet_cert.report.json import plain
from resnet_cert.report.page import break_even_words, page
from resnet_cert.results import BreakEvenRadius, GapBounds, Objective, Report

REPORTS = {"certified": certified(), "refuted": refuted(), "undecided": undecided()}
text, as_json = formatter("text"), formatter("json")

E = {"value", "lower", "upper"}
CONSTANTS = ("b", "r", "mu0", "mu1", "mu2")
FIELDS: dict[str, Any] = {  # of one report in resnet-cert/check/1
    "name": None,
    "spec": {"path", "sha256"},
    "versions": {"resnet_cert", "jax", "numpy"},
    "problem": {
        "n": None,
        "d": None,
        "k": None,
        "parameters": None,
        "loss": None,
        "norm_w": None,
        "norm_V": None,
        "outputs": None,
        "bypass": None,
        "bias": None,
        "norm_W_frobenius": None,
        "assumption1": {"status", "range", "everywhere"},
    },
    "epsilon": None,
    "verdict": None,
    "reasons": None,
    "objective": {
        "F": E,
        "F_lin_min": E,
        "gap": E,
        "norm_w_star": None,
        "attained": None,
        "falls_at_rim": None,
        "break_even_radius": None,
        "block_gap": None,
    },
    "gradient": {"norm": E, "norm_w": E, "norm_V": E, "verdict": None},
    "hessian": {
        "lambda_min": E,
        "threshold": E,
        "zero_multiplicity": None,
        "method": None,
        "verdict": None,
        "vacuous": None,
        "informative_below": None,
    },
    "smallest_epsilon": E,
    "constants": {**dict.fromkeys(CONSTANTS), "source": set(CONSTANTS), "form": set()},
    "theorem1": {"applies": None, "lower_bound": E, "lower_bound_refined": E, "holds": None},
    "theorem2": {"gradient_norm": E, "lambda_min": E, "left": E, "right": E, "holds": None},
    "theorem3": {
        "applies": None,
        "bound": E,
        "threshold_form": None,
        "threshold": None,
        "polynomial_form": None,
        "refined_form": None,
        "refined_polynomial_form": None,
        "F_upper": E,
        "holds": None,
        "form": None,
        "vacuous": None,
    },
    "corollary1": {"verdict", "hypothesis"},
    "gap_bounds": {"linear_functional": E, "first_order": E, "local": E},
    "crosscheck": {"gradient_norm", "curvature_along_witness", "lambda_min", "method"},
    "comparators": None,
    "population": None,
    "descent": None,
    "seconds": {"total"},
}


def fields(value: Any) -> Any:
    """The names in a JSON value, in the form of FIELDS."""
    if not isinstance(value, dict):
        return None
    members = {name: fields(item) for name, item in value.items()}
    return set(members) if not any(members.values()) else members


# --- JSON ------------------------------------------------------------------------------------------------


def test_a_report_has_the_fields_of_the_schema_in_its_order():
    document = json.loads(as_json.check([certified()], Style()))
    assert list(document) == ["schema", "verdict", "exit_code", "reports"]
    assert document["schema"] == "resnet-cert/check/1"
    [report] = document["reports"]
    assert fields(report) == FIELDS
    assert list(report) == list(FIELDS)


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_a_field_that_is_not_known_is_there_and_null(report: Report):
    written = json.loads(as_json.check([report], Style()))["reports"][0]
    assert list(written) == list(FIELDS)
    assert set(written["theorem1"]) - {"reason"} == set(FIELDS["theorem1"])
    assert ("reason" in written["theorem1"]) == (report.theorem1.reason is not None)
    assert (written["theorem1"]["lower_bound"] is None) == (report.theorem1.lower_bound is None)
    assert (written["smallest_epsilon"] is None) == (report.smallest_epsilon is None)
    assert written["spec"] == {"path": report.spec.path, "sha256": report.spec.sha256}


@given(st.floats(allow_nan=False), st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_floats_read_back_to_the_same_bits(a: float, b: float, c: float):
    lower, value, upper = sorted((a, b, c))
    written = json.loads(json.dumps(plain(Enclosure(value, lower, upper)), allow_nan=False))
    for name, x in (("lower", lower), ("value", value), ("upper", upper)):
        assert written[name] is None if math.isinf(x) else written[name].hex() == float(x).hex()


def test_an_end_that_is_not_known_is_null():
    assert plain(UNKNOWN) == {"value": None, "lower": None, "upper": None}
    assert plain(math.nan) is None


def test_what_is_no_report_data_is_refused():
    with pytest.raises(TypeError, match="expected report data, got complex"):
        plain({"x": [1j]})


def test_the_worst_verdict_stands_at_the_top():
    document = json.loads(as_json.check([certified(), undecided(), refuted()], Style()))
    assert (document["verdict"], document["exit_code"]) == ("REFUTED", 10)
    assert [report["verdict"] for report in document["reports"]] == ["CERTIFIED", "UNDECIDED", "REFUTED"]


def test_a_bound_has_the_fields_of_its_schema():
    document = json.loads(as_json.bound(bound_table(), Style()))
    assert document["schema"] == "resnet-cert/bound/1"
    given = {"b": 1.0, "r": 1.0, "mu0": 1.0, "mu1": 1.0, "mu2": 1.0, "d": 2}
    assert document["constants"].items() >= given.items()
    assert document["F_lin_min"] is None
    forms = [
        "eps",
        "threshold_form",
        "threshold",
        "polynomial_form",
        "refined_form",
        "refined_polynomial_form",
    ]
    assert [list(row) for row in document["rows"]] == 2 * [
        [*forms, "bound", "F_upper", "augmented_form", "form"]
    ]
    assert set(document) == {"schema", "constants", "F_lin_min", "rows"}
    asked = json.loads(as_json.bound(bound_table(target_gap=0.5, target_eps=1e-3), Style()))
    assert (asked["target_gap"], asked["target_eps"]) == (0.5, 1e-3)


# --- numbers for a reader --------------------------------------------------------------------------------


def stated(text: str) -> tuple[Fraction | float, Fraction | float]:
    """The interval that a text claims, read exactly."""
    if text == "unknown":
        return -math.inf, math.inf
    if text.startswith("["):
        lower, upper = text[1:-1].split(", ")
        return Fraction(lower), Fraction(upper)
    if text[0] in "≥≤":
        end = Fraction(text[2:])
        return (end, math.inf) if text[0] == "≥" else (-math.inf, end)
    value, _, radius = text.partition(" ± ")
    return Fraction(value) - Fraction(radius or 0), Fraction(value) + Fraction(radius or 0)


@st.composite
def enclosures(draw: st.DrawFn) -> Enclosure:
    """Enclosures from a few ulps to very wide, around numbers of every size."""
    value = draw(st.floats(allow_nan=False, allow_infinity=False))
    reach = st.one_of(st.just(0.0), st.floats(0.0, 1e-12), st.floats(0.0, 10.0), st.just(math.inf))
    below, above = (draw(reach) * (abs(value) or 1.0) for _ in range(2))
    return Enclosure(value, value - below, value + above)


@given(enclosures(), st.sampled_from([3, numbers.DIGITS, numbers.ALL_DIGITS]))
def test_a_shown_enclosure_claims_no_more_than_is_proven(e: Enclosure, digits: int):
    lower, upper = stated(numbers.enclosed(e, digits))
    assert lower <= e.lower
    assert upper >= e.upper


@given(enclosures())
def test_a_shown_slack_claims_no_more_than_is_proven(e: Enclosure):
    lower, upper = stated(numbers.slack(e))
    assert lower <= e.lower
    assert upper >= e.upper


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 17))
def test_rounded_bounds_stay_bounds(x: float, digits: int):
    assert Fraction(numbers.at_least(x, digits)) <= Fraction(x) <= Fraction(numbers.at_most(x, digits))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_given_number_reads_back(x: float):
    assert float(numbers.given(x)) == x


@pytest.mark.parametrize(
    ("e", "shown"),
    [
        (exact(0.5), "0.5"),
        (exact(0.0), "0"),
        (exact(-3e-20), "-3e-20 ± 2.9e-36"),  # the float is not that decimal
        (Enclosure.around(-0.1, 2.8e-17), "-0.1 ± 4.8e-17"),
        (Enclosure.around(0.123456789, 1e-16), "0.1234568 ± 1.2e-8"),
        (Enclosure(0.25, 0.0, 0.5), "[0, 0.5]"),
        (Enclosure(3.0, 1.0, math.inf), "≥ 1"),
        (UNKNOWN, "unknown"),
        (None, "unknown"),
    ],
)
def test_shown_enclosures(e: Enclosure | None, shown: str):
    assert numbers.enclosed(e) == shown


# --- text ------------------------------------------------------------------------------------------------

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def texts() -> Iterator[tuple[str, str]]:
    for verbosity in (-1, 0, 1):
        for name, report in REPORTS.items():
            yield f"{name}{verbosity:+}", text.check([report], Style(verbosity))
        yield f"all{verbosity:+}", text.check(list(REPORTS.values()), Style(verbosity))
    yield "bound", text.bound(bound_table(F_lin_min=exact(0.25), target_gap=0.5, target_eps=1e-3), Style())


def test_text_fits_a_hundred_columns_and_needs_no_colour():
    for name, shown in texts():
        assert max(map(len, shown.splitlines())) <= 100, name
        assert "\x1b" not in shown, name
        assert "…" not in shown, name  # nothing cut off
        assert shown.endswith("\n"), name


@pytest.mark.parametrize("verbosity", [0, 1])
@pytest.mark.parametrize("name", [*REPORTS, "bound"])
@pytest.mark.parametrize("width", first(1, [60, 80, 90]))
def test_a_narrow_terminal_shows_every_word_of_a_wide_one(width: int, name: str, verbosity: int):
    def shown(width: int) -> str:
        if name == "bound":
            return text.bound(bound_table(F_lin_min=exact(0.25)), Style(verbosity, width=width))
        return text.check([REPORTS[name]], Style(verbosity, width=width))

    def words(shown: str) -> list[str]:
        return re.findall(r"[^\s,;:]+", shown)

    assert max(map(len, shown(width).splitlines())) <= width
    assert "…" not in shown(width)
    assert sorted(set(words(shown(200))) - set(words(shown(width)))) == []


@pytest.mark.parametrize("verbosity", [-1, 0, 1])
@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_the_last_line_is_the_verdict(report: Report, verbosity: int):
    assert text.check([report], Style(verbosity)).splitlines()[-1] == report.verdict.value
    both = [certified(), report]
    worst = Verdict.all_of(each.verdict for each in both).value
    assert text.check(both, Style(verbosity)).splitlines()[-1] == worst


def test_quiet_says_the_verdicts_alone():
    assert text.check([certified()], Style(-1)) == "CERTIFIED\n"
    assert text.check([certified(), refuted()], Style(-1)).splitlines() == [
        "CERTIFIED  diabetes (configs/diabetes.yaml)",
        "REFUTED  saddle (configs/saddle.yaml)",
        "REFUTED",
    ]


def test_several_reports_end_with_a_summary():
    reports = [certified(), refuted(), certified()]
    assert text.check(reports, Style()).splitlines()[-2:] == ["3 checks: 2 CERTIFIED, 1 REFUTED", "REFUTED"]


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_colour_changes_no_word(report: Report):
    colored = text.check([report], Style(0, color=True))
    assert ESCAPES.search(colored)
    assert [line.rstrip() for line in ESCAPES.sub("", colored).splitlines()] == text.check(
        [report], Style(0)
    ).splitlines()


def test_a_screen_shows_both_conditions_with_margin_and_verdict():
    lines = text.check([refuted()], Style()).splitlines()
    [gradient] = [line.split() for line in lines if "‖∇F‖ ≤ ε" in line]
    [curvature] = [line.split() for line in lines if "λ_min ≥ −√(μ2 ε)" in line]
    assert gradient[-4:] == ["0.2", "≥", "0.0765", "CERTIFIED"]
    assert curvature[-3:] == ["≤", "-0.55", "REFUTED"]


def against_linear(gap: Enclosure, measured: float, theorem3: float | None) -> str:
    """The sentence of a report with these upper bounds of the gap."""
    report = certified(objective=Objective(exact(0.5), exact(0.5), gap, 1.0, True))
    bounds = GapBounds(exact(measured), exact(measured + 1.0), exact(measured + 2.0))
    third = replace(
        report.theorem3,
        applies=theorem3 is not None,
        bound=exact(0.0 if theorem3 is None else theorem3),  # one that does not apply proves nothing
    )
    sentences = page(replace(report, gap_bounds=bounds, theorem3=third)).sentences
    [found] = [sentence for sentence in sentences if "linear predictor with" in sentence]
    return found


def test_the_sentence_about_linear_predictors_takes_the_tightest_proof():
    ball = "linear predictor with ‖w‖ ≤ r = 0.909"
    unsure = Enclosure(0.25, -0.25, 0.5)
    assert against_linear(unsure, 0.75, 0.875).startswith(f"No {ball} does better by more than 0.5 (by F and")
    assert against_linear(unsure, 0.125, 0.875).endswith("by more than 0.125 (by the linear functional).")
    assert against_linear(unsure, 0.75, 0.25).endswith("by more than 0.25 (by Theorem 3).")
    assert against_linear(unsure, 0.75, None).endswith("by more than 0.5 (by F and min F_lin).")
    assert against_linear(Enclosure(-1.0, -1.5, -0.75), 1.0, None) == (
        f"The network does better than every {ball}, by at least 0.75."
    )
    assert against_linear(Enclosure(0.0, -0.5, 0.0), 1.0, None) == f"No {ball} does better."
    assert against_linear(Enclosure(0.5, 0.375, 0.625), 1.0, None) == (
        f"The best {ball} does better, by at least 0.375."
    )
    assert against_linear(UNKNOWN, math.inf, None) == f"Nothing is proven about the best {ball}."


def test_a_bound_marks_the_binding_form_and_rounds_up():
    rows = [
        line.split() for line in text.bound(bound_table(), Style()).splitlines() if line.startswith("0.0")
    ]
    assert [row[0] for row in rows] == ["0.0001", "0.01"]
    assert [row[2:4] for row in rows] == [["0.1006988*", "0.1071018"], ["2.390404", "2*"]]
    for row, shown in zip(bound_table().rows, rows, strict=True):
        assert Fraction(shown[1]) >= Fraction(row.bound.upper)


@pytest.mark.parametrize(("eps", "answer"), [(2.0**-10, "every ε ≤ 0.0009765625"), (math.inf, "every ε")])
def test_a_bound_answers_which_epsilon_is_enough(eps: float, answer: str):
    shown = text.bound(bound_table(rows=(), target_gap=0.5, target_eps=eps), Style())
    assert shown.splitlines()[-1] == f"The bound is at most 0.5 for {answer}."


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_writes_every_result(name: str):
    written = formatter(name)
    assert written.check([certified()], Style()).endswith("\n")
    assert written.bound(bound_table(), Style()).endswith("\n")
    assert written.verify(Verification(True, Verdict.CERTIFIED, ()), Style()).endswith("\n")


def test_a_rejected_certificate_says_why_and_ends_with_that_word():
    rejected = Verification(False, None, ("claim.b: ‖w‖ < b, ‖V‖ < b",))
    first, *reasons = text.verify(rejected, Style()).splitlines()
    assert first.startswith("REJECTED")
    assert [reason.split(maxsplit=1)[1] for reason in reasons] == ["claim.b: ‖w‖ < b, ‖V‖ < b"]


def test_a_break_even_radius_that_is_open_says_why():
    found = BreakEvenRadius(None, 1.5, math.inf, None)
    assert break_even_words(found, None, "‖W‖_F", 6) == (
        "whether a linear predictor does as well: ones with ‖W‖_F < 1.5 do not; inf F_lin is not known "
        "closely enough to tell"
    )
