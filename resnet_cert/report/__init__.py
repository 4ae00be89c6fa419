"""What was found out, in the user's format: a format is one module here and one line in FORMATS."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from resnet_cert.outcomes import FailOn, exit_code, worst

if TYPE_CHECKING:
    from resnet_cert.certificate.verification import Verification
    from resnet_cert.results import BoundTable, Profile, Report, Sgd, Solved
    from resnet_cert.search.landscape import Landscape

FORMATS = {
    "text": "resnet_cert.report.text",
    "json": "resnet_cert.report.json",
}
"""Those of every command."""
CHECK_FORMATS = {
    **FORMATS,
    "chain": "resnet_cert.report.chain",
    "markdown": "resnet_cert.report.markdown",
    "html": "resnet_cert.report.html",
    "junit": "resnet_cert.report.junit",
    "github": "resnet_cert.report.github",
    "gitlab": "resnet_cert.report.gitlab",
    "sarif": "resnet_cert.report.sarif",
}
"""Those of `check`: for people, and for what reads a pipeline's results."""
ENDINGS = {".txt": "text", ".json": "json", ".md": "markdown", ".html": "html"}
"""The formats of files by their names."""


@dataclass(frozen=True)
class Style:
    """How a format may write: verbosity −1 (quiet), 0 or 1 (verbose), colour, columns; and which verdicts it
    is to show as failures, where a spec does not say which one it must get."""

    verbosity: int = 0
    color: bool = False
    width: int = 100
    fail_on: FailOn = FailOn.UNDECIDED


class Formatter(Protocol):
    """One format: a function for every command's result, text with a closing newline."""

    def check(self, reports: Sequence[Report], style: Style) -> str: ...

    def bound(self, table: BoundTable, style: Style) -> str: ...

    def sgd(self, run: Sgd, style: Style) -> str: ...

    def solve(self, solved: Solved, style: Style) -> str: ...

    def profile(self, profile: Profile, style: Style, picture: str | None) -> str: ...

    def landscape(self, found: Landscape, style: Style, picture: str | None) -> str: ...

    def verify(self, verification: Verification, style: Style) -> str: ...


def formatter(name: str) -> Formatter:
    """The format of that name, loaded when it is asked for."""
    return cast(Formatter, importlib.import_module(CHECK_FORMATS[name]))


def run_code(reports: Sequence[Report], fail_on: FailOn) -> int:
    """The exit code of the run that these reports are of."""
    return worst(exit_code(report.verdict, report.expect, fail_on) for report in reports)
