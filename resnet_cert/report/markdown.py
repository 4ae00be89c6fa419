"""Reports in Markdown, as GitHub and GitLab render it: for a job's summary, a comment, a page of a wiki."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from resnet_cert.outcomes import Verdict
from resnet_cert.report import Style
from resnet_cert.report.page import DISTRIBUTION, Rows, page
from resnet_cert.results import Report

SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~#])")


def check(reports: Sequence[Report], style: Style) -> str:
    """A section for every report, after a table of the verdicts where there are several."""
    blocks = list(_overview(reports)) if len(reports) > 1 else []
    for report in reports:
        blocks += _section(report) if style.verbosity >= 0 else [_heading(report)]
    return "\n\n".join(blocks) + "\n"


def _overview(reports: Sequence[Report]) -> Iterator[str]:
    rows = Rows(("spec", "verdict"), [(page(report).title, report.verdict) for report in reports])
    yield f"# {Verdict.all_of(report.verdict for report in reports).value}"
    yield _table(rows)


def _heading(report: Report) -> str:
    return f"## {report.verdict.value}: {escaped(page(report).title)}"


def _section(report: Report) -> Iterator[str]:
    said = page(report)
    yield _heading(report)
    yield "\n".join(f"- {_words(sentence)}" for sentence in said.sentences)
    if said.statistical:
        yield "\n".join([f"{DISTRIBUTION}:", "", *(f"- {_words(sentence)}" for sentence in said.statistical)])
    if said.next_steps:
        yield "\n".join(["Next:", "", *(f"- {_words(step)}" for step in said.next_steps)])
    yield _table(said.conditions)
    yield _table(Rows(("", ""), [*said.facts]))
    yield _table(said.theorems)
    yield "<details><summary>constants, cross-check, versions</summary>"
    yield _table(Rows(("", ""), [*said.details]))
    yield "</details>"


def _table(rows: Rows) -> str:
    lines = [rows.headings, ["---"] * len(rows.headings)]
    bodies = [[_cell(cell) for cell in row] for row in rows.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [*lines, *bodies])


def _cell(cell: str | Verdict) -> str:
    return f"**{cell.value}**" if isinstance(cell, Verdict) else escaped(cell)


def _words(sentence: str) -> str:
    """A sentence, what stands in `…` as code."""
    parts = re.split(r"(`[^`]+`)", " ".join(sentence.split()))
    return "".join(part if i % 2 else SPECIAL.sub(r"\\\1", part) for i, part in enumerate(parts))


def escaped(text: str) -> str:
    """The text as it is, whatever it would mean in Markdown, on one line."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))
