"""What the README shows is what one gets."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml
from reports import leave_out_crosscheck
from sessions import alike, assert_is_a_command, assert_prints, blocks, commands

from resnet_cert import Verdict, load_problem
from resnet_cert import check as check_problem

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_first_two_shell_lines_run_and_test_on_a_fresh_machine() -> None:
    lines = [line for block in blocks(README, "sh") for line in block.splitlines()]
    fresh = "python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt "
    assert lines[0] == f"{fresh}. && .venv/bin/resnet-cert check configs/diabetes.yaml"
    assert lines[1] == f"{fresh}'.[test]' && .venv/bin/python -m pytest"


@pytest.mark.parametrize("session", blocks(README, "console"))
def test_every_command_prints_what_is_shown(
    session: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    assert_prints(session)


def test_other_numbers_and_other_words_are_not_alike() -> None:
    assert alike("at 0.65962771  [0, 1e-32], 13 steps", "at 0.6596  [0, 2e-32], 14 steps")
    assert not alike("at 0.65962771", "at 0.66")
    assert not alike("minimum 1", "maximum 1")


@pytest.mark.parametrize("line", commands(README))
def test_every_command_shown_is_one(line: str) -> None:
    assert_is_a_command(line)


@pytest.mark.parametrize("text", [text for text in blocks(README, "yaml") if text.startswith("version:")])
def test_the_specs_shown_are_problems(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_crosscheck(monkeypatch)
    spec = tmp_path / "spec.yaml"
    spec.write_text(text, encoding="utf-8")
    assert check_problem(load_problem(spec)).verdict is Verdict.CERTIFIED


def test_every_block_is_short_enough_for_ten_lines_of_python() -> None:
    for text in blocks(README, "python"):
        assert len([line for line in text.splitlines() if line and not line.startswith("#")]) <= 10
    for text in blocks(README, "yaml"):
        yaml.safe_load(text)


def test_every_link_to_a_file_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
