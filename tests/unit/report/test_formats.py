"""The formats for people and for pipelines say what the report says, in a form that their readers take."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from markdown_it import MarkdownIt
from reports import certified, refuted, undecided, verify_here

from resnet_cert import Problem, RequestError, certify, check, verify
from resnet_cert.outcomes import FailOn, Verdict, exit_code, worst
from resnet_cert.report import CHECK_FORMATS, Style, formatter, run_code
from resnet_cert.report.page import page
from resnet_cert.results import Report

REPORTS = [certified(), refuted(), undecided()]
IDS = ["certified", "refuted", "undecided"]
SARIF = json.loads(
    (Path(__file__).parents[2] / "data" / "sarif-2.1.0-rtm.5.json").read_text(encoding="utf-8")
)
HOSTILE = "a|b*c_d`e<script>&\"'\n::error::x%0A,y:z"


def written(name: str, *reports: Report, **style: Any) -> str:
    return formatter(name).check(reports, Style(**style))


def said(report: Report) -> list[str]:
    """Every word of the page."""
    words = page(report)
    rows = [*words.conditions.rows, *words.theorems.rows, *words.facts, *words.details]
    cells = [cell.value if isinstance(cell, Verdict) else cell for row in rows for cell in row]
    return [words.title, *words.sentences, *words.next_steps, *filter(None, cells)]


def spaced(text: str) -> str:
    return " ".join(text.split())


class Text(HTMLParser):
    """The text of a page, and a check that its elements close in order."""

    VOID = frozenset({"meta"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.parts.append(data)


@pytest.mark.parametrize("report", REPORTS, ids=IDS)
def test_html_says_every_word_of_the_report_and_needs_nothing_else(report: Report) -> None:
    html = written("html", report)
    text = Text(html)
    shown = spaced("".join(text.parts))
    for words in said(report):
        assert spaced(words) in shown
    assert text.links == []
    assert "url(" not in html
    assert "@import" not in html


def test_html_escapes_what_the_user_wrote() -> None:
    report = certified(name=HOSTILE)
    assert "<script" not in written("html", report)
    assert spaced(HOSTILE) in spaced("".join(Text(written("html", report)).parts))


def test_a_notebook_shows_the_page_of_the_report() -> None:
    fragment = certified()._repr_html_()
    assert "<html" not in fragment
    assert "does better than every linear predictor" in "".join(Text(fragment).parts)


@pytest.mark.parametrize("place", re.findall(r"(?:left|width):(-?[\d.]+)%", written("html", *REPORTS)))
def test_every_place_on_a_scale_is_on_it(place: str) -> None:
    assert 0.0 <= float(place) <= 100.0


def markdown_text(markdown: str) -> str:
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    return spaced(" ".join(child.content for token in tokens for child in token.children or ()))


@pytest.mark.parametrize("report", REPORTS, ids=IDS)
def test_markdown_reads_back_as_every_word_of_the_report(report: Report) -> None:
    shown = markdown_text(written("markdown", report)).replace(" ", "")
    for words in said(report):
        assert spaced(words).replace(" ", "") in shown


def test_markdown_escapes_what_the_user_wrote() -> None:
    shown = markdown_text(written("markdown", certified(name=HOSTILE))).replace(" ", "")
    assert spaced(HOSTILE).replace(" ", "") in shown


def test_several_reports_begin_with_a_table_of_their_verdicts() -> None:
    first = written("markdown", *REPORTS).splitlines()[:6]
    assert first[0] == "# REFUTED"
    assert first[4].endswith("| **CERTIFIED** |")


def cases(text: str) -> list[Any]:
    junitparser = pytest.importorskip("junitparser", reason="junitparser is not installed")
    return [case for suite in junitparser.JUnitXml.fromstring(text.encode()) for case in suite]


def test_junit_has_a_case_for_every_report_and_a_failure_where_the_run_fails() -> None:
    pytest.importorskip("junitparser", reason="junitparser is not installed")
    found = cases(written("junit", *REPORTS))
    assert [case.name for case in found] == ["diabetes", "saddle", "close"]
    assert [case.classname for case in found] == ["configs/diabetes.yaml", "configs/saddle.yaml", "python"]
    assert [bool(case.result) for case in found] == [False, True, True]
    assert found[1].result[0].type == "REFUTED"
    assert "λ_min(∇²F) ≤ -2" in found[1].result[0].message
    assert found[0].system_out.endswith("CERTIFIED\n")
    lenient = cases(written("junit", *REPORTS, fail_on=FailOn.NEVER))
    assert not any(case.result for case in lenient)


def test_github_gets_one_command_a_report_whatever_its_words() -> None:
    lines = written("github", *REPORTS).splitlines()
    assert [line.split(" ")[0] for line in lines] == ["::notice", "::error", "::error"]
    assert lines[1].startswith("::error file=configs/saddle.yaml,line=1,title=REFUTED%3A saddle::Refuted")
    assert written("github", undecided(), fail_on=FailOn.REFUTED).startswith("::warning title=")
    hostile = written("github", certified(name=HOSTILE))
    assert hostile.count("\n") == 1
    assert hostile.split("title=")[1].startswith("CERTIFIED%3A a|b*c_d`e<script>&\"'%0A%3A%3Aerror")


def test_gitlab_lists_what_fails_and_nothing_else() -> None:
    entries = json.loads(written("gitlab", *REPORTS))
    assert [entry["check_name"] for entry in entries] == ["resnet-cert/curvature", "resnet-cert/undecided"]
    assert [entry["severity"] for entry in entries] == ["major", "minor"]
    assert entries[0]["location"] == {"path": "configs/saddle.yaml", "lines": {"begin": 1}}
    assert len({entry["fingerprint"] for entry in entries}) == 2
    assert json.loads(written("gitlab", certified())) == []


@pytest.mark.parametrize("fail_on", FailOn)
def test_sarif_is_valid_and_says_pass_fail_and_open(fail_on: FailOn) -> None:
    absolute = refuted(spec=replace(refuted().spec, path="/a b/ü.yaml"))
    document = json.loads(written("sarif", *REPORTS, absolute, fail_on=fail_on))
    jsonschema.Draft4Validator(SARIF).validate(document)
    results = document["runs"][0]["results"]
    refuted_is = "pass" if fail_on is FailOn.NEVER else "fail"
    undecided_is = "fail" if fail_on is FailOn.UNDECIDED else "open"
    assert [result["kind"] for result in results] == ["pass", refuted_is, undecided_is, refuted_is]
    uris = [result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for result in results[:2]]
    assert uris == ["configs/diabetes.yaml", "configs/saddle.yaml"]
    assert "file:///a%20b/%C3%BC.yaml" in json.dumps(results[3])


def test_every_format_is_there_and_ends_with_a_newline() -> None:
    pytest.importorskip("junitparser", reason="junitparser is not installed")
    for name in CHECK_FORMATS:
        assert written(name, *REPORTS).endswith("\n")


@pytest.mark.parametrize(
    ("verdict", "fail_on", "code"),
    [
        ("CERTIFIED", "undecided", 0),
        ("REFUTED", "undecided", 10),
        ("UNDECIDED", "undecided", 20),
        ("REFUTED", "refuted", 10),
        ("UNDECIDED", "refuted", 0),
        ("REFUTED", "never", 0),
        ("UNDECIDED", "never", 0),
    ],
)
def test_fail_on_says_which_verdicts_have_an_exit_code(verdict: str, fail_on: str, code: int) -> None:
    assert exit_code(Verdict(verdict), None, FailOn(fail_on)) == code


@pytest.mark.parametrize("fail_on", FailOn)
def test_where_a_verdict_is_expected_nothing_else_counts(fail_on: FailOn) -> None:
    expect = (Verdict.REFUTED, Verdict.UNDECIDED)
    assert [exit_code(verdict, expect, fail_on) for verdict in Verdict] == [10, 0, 0]


def test_the_worst_exit_code_is_that_of_the_run() -> None:
    assert worst([0, 20, 10]) == 10
    assert worst([0, 20]) == 20
    assert run_code(REPORTS, FailOn.UNDECIDED) == 10
    assert run_code([refuted(expect=(Verdict.REFUTED,))], FailOn.UNDECIDED) == 0


def test_the_report_names_the_expected_verdict_and_the_one_it_got() -> None:
    met, missed = (
        certified(expect=(Verdict.CERTIFIED,)),
        refuted(expect=(Verdict.CERTIFIED, Verdict.UNDECIDED)),
    )
    assert "As expected: the spec must get CERTIFIED." in str(met)
    assert "Not as expected: the spec must get CERTIFIED or UNDECIDED and got REFUTED." in str(missed)
    assert met.to_dict()["expect"] == ["CERTIFIED"]
    assert "expect" not in certified().to_dict()


def test_the_python_report_prints_as_the_text_report_and_as_the_json_document() -> None:
    report = certified()
    assert str(report) + "\n" == written("text", report)
    assert json.loads(report.to_json()) == json.loads(written("json", report))
    assert report.to_dict() == json.loads(report.to_json())["reports"][0]


@pytest.mark.parametrize(
    ("ending", "name"), [("txt", "text"), ("json", "json"), ("md", "markdown"), ("html", "html")]
)
def test_a_report_is_saved_in_the_format_of_the_ending(ending: str, name: str, tmp_path: Path) -> None:
    certified().save(tmp_path / f"report.{ending}")
    assert (tmp_path / f"report.{ending}").read_text(encoding="utf-8") == written(name, certified())


def test_a_report_with_another_ending_and_a_certificate_of_a_hand_made_report_are_refused(
    tmp_path: Path,
) -> None:
    with pytest.raises(RequestError, match=r"ends in \.txt, \.json, \.md, \.html"):
        certified().save(tmp_path / "report.pdf")
    with pytest.raises(RequestError, match="expected a report that check returned"):
        certified().certificate(tmp_path / "report.certificate")


def test_the_certificate_of_a_report_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verify_here(monkeypatch)
    problem = Problem.from_arrays(x=[[1.0]], y=[1.0], f=[[1.0]], w=[1.0], V=[[0.0]], epsilon=1e-6)
    for name, report in (("a", check(problem)), ("b", certify(problem, tmp_path / "b"))):
        assert report.verdict is Verdict.CERTIFIED
        report.certificate(tmp_path / name)
        found = verify(tmp_path / name)
        assert found.verdict is Verdict.CERTIFIED
