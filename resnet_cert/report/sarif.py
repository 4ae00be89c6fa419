"""Reports as SARIF 2.1.0, which code scanning services read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

import resnet_cert
from resnet_cert.outcomes import Verdict
from resnet_cert.report import Style
from resnet_cert.report.failures import RULES, finding
from resnet_cert.results import Report

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def check(reports: Sequence[Report], style: Style) -> str:
    """One run, with a result for every report: pass, fail, or open where the verdict is UNDECIDED."""
    driver = {
        "name": "resnet-cert",
        "semanticVersion": resnet_cert.__version__,
        "rules": [{"id": rule, "shortDescription": {"text": text}} for rule, text in RULES.items()],
    }
    results = [_result(report, style) for report in reports]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    document = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _result(report: Report, style: Style) -> dict[str, Any]:
    found = finding(report, style.fail_on)
    kind = "fail" if found.fails else "open" if report.verdict is Verdict.UNDECIDED else "pass"
    result: dict[str, Any] = {
        "ruleId": found.rule,
        "ruleIndex": list(RULES).index(found.rule),
        "kind": kind,
        "level": "error" if found.fails else "none",
        "message": {"text": f"{found.title}. {found.message}"},
    }
    if found.path is not None:
        path = PurePath(found.path)
        place = {"uri": path.as_uri() if path.is_absolute() else quote(path.as_posix())}
        result["locations"] = [{"physicalLocation": {"artifactLocation": place, "region": {"startLine": 1}}}]
    return result
