"""Reports as GitLab's Code Quality artifact: an entry for every check that fails."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from resnet_cert.outcomes import Verdict
from resnet_cert.report import Style
from resnet_cert.report.failures import finding
from resnet_cert.results import Report


def check(reports: Sequence[Report], style: Style) -> str:
    """A JSON list; empty where nothing fails."""
    entries = []
    for report in reports:
        found = finding(report, style.fail_on)
        if not found.fails:
            continue
        path = found.path or report.name
        key = "\0".join((path, report.name, found.rule))
        entries.append(
            {
                "description": f"{found.title}. {found.message}",
                "check_name": f"resnet-cert/{found.rule}",
                "fingerprint": hashlib.sha256(key.encode()).hexdigest(),
                "severity": "minor" if report.verdict is Verdict.UNDECIDED else "major",
                "location": {"path": path, "lines": {"begin": 1}},
            }
        )
    return json.dumps(entries, indent=2, ensure_ascii=False) + "\n"
