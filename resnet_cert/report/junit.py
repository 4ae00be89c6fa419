"""Reports as JUnit XML: one suite with a test case for every report."""

from __future__ import annotations

from collections.abc import Sequence

from resnet_cert.outcomes import RequestError
from resnet_cert.report import Style, formatter
from resnet_cert.report.failures import finding
from resnet_cert.results import Report

try:
    from junitparser import Failure, JUnitXml, TestCase, TestSuite  # pyright: ignore[reportMissingImports]
except ImportError:
    raise RequestError(
        "the format junit needs junitparser: pip install 'resnet-cert[junit]'", id="needs-package"
    ) from None


def check(reports: Sequence[Report], style: Style) -> str:
    """A case fails where the run fails by it; what the report says in full is its output."""
    suite = TestSuite("resnet-cert")
    for report in reports:
        found = finding(report, style.fail_on)
        case = TestCase(report.name, classname=found.path or "python", time=report.seconds.total)
        if found.fails:
            case.result = [Failure(found.message, report.verdict.value)]
        case.system_out = formatter("text").check([report], Style())
        suite.add_testcase(case)
    document = JUnitXml("resnet-cert")
    document.add_testsuite(suite)
    document.update_statistics()
    return document.tostring().decode("utf-8") + "\n"
