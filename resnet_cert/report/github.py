"""Reports as GitHub's workflow commands: each one an annotation of the spec's file."""

from __future__ import annotations

from collections.abc import Sequence

from resnet_cert.outcomes import Verdict
from resnet_cert.report import Style
from resnet_cert.report.failures import Finding, finding
from resnet_cert.results import Report


def check(reports: Sequence[Report], style: Style) -> str:
    """An error for what fails, a warning for what is undecided and may be, a notice for the rest."""
    lines = []
    for report in reports:
        found = finding(report, style.fail_on)
        level = "error" if found.fails else "warning" if report.verdict is Verdict.UNDECIDED else "notice"
        lines.append(f"::{level} {_properties(found)}::{_data(found.message)}\n")
    return "".join(lines)


def _properties(found: Finding) -> str:
    place = {} if found.path is None else {"file": found.path, "line": "1"}
    pairs = {**place, "title": found.title}
    return ",".join(f"{name}={_property(value)}" for name, value in pairs.items())


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
