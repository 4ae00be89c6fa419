"""What a pipeline calls a failure, in one place for all of its formats."""

from __future__ import annotations

from dataclasses import dataclass

from resnet_cert.outcomes import FailOn, Verdict, exit_code, printable
from resnet_cert.report.page import page
from resnet_cert.results import Report

RULES = {
    "certified": "The point is an ε-second-order stationary point",
    "gradient": "The gradient at the point is longer than ε",
    "curvature": "The curvature at the point is below −√(μ2 ε)",
    "undecided": "The numerical error is larger than the margin",
}
"""Every id that a finding can have, and what it stands for."""


@dataclass(frozen=True)
class Finding:
    """One report as one line of a pipeline.

    rule: a key of RULES.  fails: the run fails by it.  path: the spec, None for a problem made in Python.
    """

    rule: str
    fails: bool
    title: str
    message: str
    path: str | None


def finding(report: Report, fail_on: FailOn) -> Finding:
    said = page(report)
    return Finding(
        rule=_rule(report),
        fails=exit_code(report.verdict, report.expect, fail_on) != 0,
        title=f"{report.verdict.value}: {report.name}",
        message="\n".join(" ".join(part) for part in (said.sentences, said.statistical) if part),
        path=None if report.spec.path is None else printable(report.spec.path),
    )


def _rule(report: Report) -> str:
    if report.verdict is Verdict.REFUTED:
        return "gradient" if report.gradient.verdict is Verdict.REFUTED else "curvature"
    return report.verdict.value.lower()
