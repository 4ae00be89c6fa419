"""Reports one below the other, a line each: the blocks of a deep network, from its raw inputs to its head.

r: of the ball of linear predictors that F is compared with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.outcomes import printable
from resnet_cert.report import Style
from resnet_cert.report.numbers import at_least, at_most, enclosed, given, plain
from resnet_cert.results import Report

DIGITS = 4
HEAD = ("block", "verdict", "ε", "smallest ε", "F", "r", "min F_lin", "better than linear by")


def check(reports: Sequence[Report], style: Style) -> str:
    """A line for each report, and one for each comparator below it."""
    rows = [HEAD, *(row for report in reports for row in _rows(report))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(line.rstrip() + "\n" for line in lines)


def _rows(report: Report) -> Iterator[tuple[str, ...]]:
    objective = report.objective
    yield (
        printable(report.name),
        report.verdict.value,
        given(report.epsilon),
        enclosed(report.smallest_epsilon, DIGITS),
        enclosed(objective.F, DIGITS),
        plain(report.constants.r, DIGITS),
        enclosed(objective.F_lin_min, DIGITS),
        _advantage(objective.gap),
    )
    for other in report.comparators:
        least = enclosed(other.F_lin_min, DIGITS)
        r = plain(other.radius, DIGITS)
        yield (f"  linear in {printable(other.name)}", "", "", "", "", r, least, _advantage(other.gap))


def _advantage(gap: Enclosure) -> str:
    """−gap, in words where its sign is not proven."""
    if gap.upper <= 0.0 and math.isfinite(gap.upper):
        return f"≥ {at_least(-gap.upper)}"
    if gap.lower > 0.0 and math.isfinite(gap.lower):
        return f"worse by ≥ {at_least(gap.lower)}"
    return f"no worse than by {at_most(gap.upper)}" if math.isfinite(gap.upper) else "unknown"
