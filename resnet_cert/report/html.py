"""Reports as one HTML page that needs nothing else: no network, no script; light or dark, any width."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from resnet_cert.outcomes import Verdict
from resnet_cert.report import Style
from resnet_cert.report.page import DISTRIBUTION, Page, Pairs, Rows, page
from resnet_cert.report.scales import Scale, gap_scale, threshold_scale
from resnet_cert.results import Report

STYLE = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
"""Of everything inside a report, wherever it stands."""
PAGE_STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")

SAYS = (
    (
        "Theorem 1",
        "Where a linear predictor does better by much, the gradient is not small.",
    ),
    ("Theorem 2", "At w = 0 either the gradient or a direction of negative curvature shows a way down."),
    (
        "Theorem 3",
        "At an ε-second-order stationary point F is at most min F_lin + bound(ε).",
    ),
    ("Corollary 1", "At an exact second-order stationary point (ε = 0) no linear predictor does better."),
    (
        "gap ≤ …",
        "Upper bounds of gap = F − min F_lin measured at this point, without Lipschitz constants.",
    ),
)


def check(reports: Sequence[Report], style: Style) -> str:
    """The whole page."""
    verdict = Verdict.all_of(report.verdict for report in reports)
    names = ", ".join(report.name for report in reports)
    return "".join(
        (
            '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            f"<title>{verdict.value}: {escape(names)}</title>\n<style>{PAGE_STYLE}{STYLE}</style>\n",
            *(_overview(reports) if len(reports) > 1 else ()),
            *(part for report in reports for part in _section(report)),
            "</html>\n",
        )
    )


def fragment(report: Report) -> str:
    """One report for a page of somebody else's, such as a notebook."""
    return f"<style>{STYLE}</style>\n{''.join(_section(report))}"


def _overview(reports: Sequence[Report]) -> Iterator[str]:
    rows = Rows(("spec", "verdict"), [(page(report).title, report.verdict) for report in reports])
    yield f'<div class="resnet-cert"><h1>{len(reports)} checks</h1>{_table(rows)}</div>\n'


def _section(report: Report) -> Iterator[str]:
    said = page(report)
    yield '<section class="resnet-cert">\n'
    yield f"<h2>{_word(report.verdict)} {escape(said.title)}</h2>\n"
    yield f'<p class="lead">{_words(said.sentences[0])}</p>\n'
    yield "".join(f"<p>{_words(sentence)}</p>\n" for sentence in said.sentences[1:])
    if said.statistical:
        yield f"<h3>{DISTRIBUTION}</h3>\n"
        yield "".join(f"<p>{_words(sentence)}</p>\n" for sentence in said.statistical)
    yield _next_steps(said)
    yield _figure("Against the best linear predictor", gap_scale(report))
    yield _figure("Against the thresholds of ε", threshold_scale(report))
    yield f"<h3>Definition 1</h3>\n{_table(said.conditions)}"
    yield f"<h3>What the theorems say here</h3>\n{_table(said.theorems)}"
    yield f"<details><summary>What each theorem says</summary>{_pairs([*SAYS])}</details>\n"
    yield f"<h3>The problem</h3>\n{_pairs(said.facts)}"
    yield f"<details><summary>Constants, cross-check, versions</summary>{_pairs(said.details)}</details>\n"
    yield "</section>\n"


def _words(sentence: str) -> str:
    """A sentence, what stands in `…` as code."""
    return re.sub(r"`(.+?)`", r"<code>\1</code>", escape(sentence))


def _next_steps(said: Page) -> str:
    items = "".join(f"<li>{_words(step)}</li>" for step in said.next_steps)
    return f"<h3>What to do next</h3>\n<ul>{items}</ul>\n" if items else ""


def _figure(heading: str, scale: Scale | None) -> str:
    if scale is None:
        return ""
    rows = "".join(
        f'<div class="row"><span>{escape(bar.name)}</span><span class="track" aria-hidden="true">'
        f'<b style="left:{scale.mark:.2f}%"></b>'
        f'<i class="{bar.kind}" style="left:{bar.left:.2f}%;width:{bar.right - bar.left:.2f}%"></i></span>'
        f"<span>{escape(bar.value)}</span></div>\n"
        for bar in scale.bars
    )
    ends = "".join(f"<span>{escape(end)}</span>" for end in scale.ends)
    axis = f'<div class="row"><span></span><span class="ends">{ends}</span><span></span></div>\n'
    caption = f"<figcaption>{escape(scale.caption)}</figcaption>"
    return f"<h3>{escape(heading)}</h3>\n<figure>{caption}\n{rows}{axis}</figure>\n"


def _table(rows: Rows) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in rows.headings)
    body = "".join(f"<tr>{_cells(rows, row)}</tr>\n" for row in rows.rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>\n"


def _cells(rows: Rows, row: tuple[str | Verdict, ...]) -> str:
    name, *values = row
    first = f"<th>{_cell(name)}</th>"
    named = zip(rows.headings[1:], values, strict=True)
    return first + "".join(f'<td data-name="{escape(heading)}">{_cell(cell)}</td>' for heading, cell in named)


def _pairs(pairs: Pairs) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>\n" for name, text in pairs)
    return f"<table><tbody>\n{rows}</tbody></table>\n"


def _cell(cell: str | Verdict) -> str:
    return _word(cell) if isinstance(cell, Verdict) else escape(cell)


def _word(verdict: Verdict) -> str:
    return f'<strong class="{verdict.value}">{verdict.value}</strong>'
