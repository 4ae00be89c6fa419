"""Reports in one table: the blocks of a deep network, and the comparators of each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from resnet_cert.check import check
from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.problem.problem import Problem
from resnet_cert.report import Style, formatter


def test_each_report_is_a_line_with_its_comparators_below() -> None:
    rng = np.random.default_rng(0)
    x, f = rng.normal(size=(40, 2)), rng.normal(size=(40, 2))
    raw = rng.normal(size=(40, 3))
    problem = Problem.from_arrays(
        x=x, y=x[:, 0] + f[:, 0], f=f, w=[1.0, 0.1], V=np.eye(2), epsilon=1.0, compare={"pixels": raw}
    )
    report = check(replace(problem, name="block 1"))
    worse = replace(
        report,
        name="block 2",
        objective=replace(report.objective, gap=Enclosure(0.5, 0.4, 0.6)),
        comparators=(),
    )
    lines = formatter("chain").check([report, worse], Style()).splitlines()
    assert [line.split()[0] for line in lines] == ["block", "block", "linear", "block"]
    assert lines[1].split()[:3] == ["block", "1", report.verdict.value]
    assert "linear in pixels" in lines[2]
    assert f"{report.constants.r:.4g}" in lines[1]
    assert f"{report.comparators[0].radius:.4g}" in lines[2]
    assert "≥" in lines[1]
    assert lines[3].endswith("worse by ≥ 0.4")
