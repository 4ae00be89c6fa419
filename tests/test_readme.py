"""What the README shows is what one gets."""

from __future__ import annotations

import doctest
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from resnet_cert import Verdict, load_problem
from resnet_cert import check as check_problem
from resnet_cert.cli import cli

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\[[^\]]*\]|-?\d[\d.]*(e-?\d+)?( ± \S+)?")


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCKS if name == language]


def words(output: str) -> list[list[str]]:
    """The output without its numbers, whose last digits depend on the processor, and without alignment."""
    return [NUMBER.sub("#", line).split() for line in output.splitlines()]


def test_the_first_two_shell_lines_run_and_test_on_a_fresh_machine():
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    fresh = "python3 -m venv .venv && .venv/bin/pip install -q "
    assert lines[0] == f"{fresh}. && .venv/bin/resnet-cert check configs/diabetes.yaml"
    assert lines[1] == f"{fresh}'.[test]' && .venv/bin/python -m pytest"


def test_the_output_shown_is_that_of_the_first_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    command = blocks("sh")[0].splitlines()[0].partition("resnet-cert ")[2]
    result = CliRunner().invoke(cli, shlex.split(command))
    assert result.exit_code == 0
    assert words(result.stdout) == words(blocks("console")[0])


@pytest.mark.parametrize("line", re.findall(r"^(?:- run: )?resnet-cert (.*)$", README, re.MULTILINE))
def test_every_command_shown_is_one(line: str):
    name, *arguments = shlex.split(line)
    command = cli.commands[name]
    assert command.make_context(name, arguments).params


@pytest.mark.parametrize("text", [text for text in blocks("yaml") if text.startswith("version:")])
def test_the_specs_shown_are_problems(text: str, tmp_path: Path):
    spec = tmp_path / "spec.yaml"
    spec.write_text(text, encoding="utf-8")
    assert check_problem(load_problem(spec)).verdict is Verdict.CERTIFIED


@pytest.mark.parametrize("text", blocks("pycon"))
def test_the_python_examples_say_what_python_says(text: str):
    test = doctest.DocTestParser().get_doctest(text, {}, "README.md", "README.md", 0)
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0


def test_every_link_to_a_file_leads_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
