"""A fault in any stage ends in 70 and leaves nothing behind: no result, no file, never a verdict."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from resnet_cert.cli import cli

ROOT = Path(__file__).parents[2]
STAGES = {
    "check": [
        "best_linear_predictor",
        "corollary1_here",
        "crosscheck",
        "curvature",
        "decide",
        "gap_bounds_here",
        "observed",
        "require_sound_arithmetic",
        "theorem1_here",
        "theorem2_here",
        "theorem3_here",
    ],
    "problem.problem": ["spectral_norm"],
    "moments.one_pass": ["lipschitz_sums", "moment_sums", "residual"],
    "decide.decision": ["by_hessian", "definition1", "slope", "threshold"],
    "decide.crosscheck": ["second_derivative"],
    "decide.lagrangian": ["curvature"],
    "numerics.eigenvalues": ["is_positive_definite"],
    "decide.hessian": ["is_block_positive_definite", "norm"],
    "certificate.writing": ["write_certificate"],
}


@pytest.mark.parametrize(
    ("module", "stage", "error"),
    [
        pytest.param(module, stage, error("boom"), marks=() if number % 3 == turn else pytest.mark.long)
        for number, (module, stage) in enumerate(
            (m, stage) for m, stages in STAGES.items() for stage in stages
        )
        for turn, error in enumerate((ValueError, AssertionError, ZeroDivisionError))
    ],
)
def test_an_exception_in_any_stage_is_an_internal_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str, stage: str, error: Exception
):
    def failing(*arguments: Any, **named: Any) -> Any:
        raise error

    monkeypatch.setattr(importlib.import_module(f"resnet_cert.{module}"), stage, failing)
    arguments = ["check", str(ROOT / "configs/yun-sra-jadbabaie.yaml"), "--format", "json"]
    for option in ("--witness",) if module == "search.witness" else ("--output", "--certificate"):
        arguments += [option, str(tmp_path / f"{option.strip('-')}.npz")]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 70
    assert result.stdout == ""
    assert "boom" in result.stderr
    assert list(tmp_path.iterdir()) == []
