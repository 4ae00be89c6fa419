"""From a captured problem to a certified one: what the training examples share after the training."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from resnet_cert import Problem, Report, check


def finish(trained: Problem, directory: Path) -> tuple[Report, Report]:
    """Check the trained head, polish it, check that; write both problems with their specs.

    Returns the reports before and after.
    """
    directory.mkdir(parents=True, exist_ok=True)
    from resnet_cert.search.solve import solve

    before = check(trained)
    polished = replace(trained, point=solve(trained).point, name=f"{trained.name}-polished")
    after = check(polished)
    for problem, report in ((trained, before), (polished, after)):
        spec = problem.save(directory / f"{problem.name}.npz")
        gradient, gap = report.gradient.norm.upper, report.objective.gap.upper
        sys.stdout.write(
            f"{spec}: {report.verdict.value} at ε = {problem.epsilon:g}; ‖∇G‖ ≤ {gradient:.2g}, "
            f"F − min F_lin ≤ {gap:.3g}\n"
        )
    return before, after
