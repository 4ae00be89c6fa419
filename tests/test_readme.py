"""What the README shows is what one gets."""

from __future__ import annotations

import doctest
import re
import shlex
import shutil
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
    fresh = "python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt "
    assert lines[0] == f"{fresh}. && .venv/bin/resnet-cert check configs/diabetes.yaml"
    assert lines[1] == f"{fresh}'.[test]' && .venv/bin/python -m pytest"


def test_the_output_shown_is_that_of_the_first_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    command = blocks("sh")[0].splitlines()[0].partition("resnet-cert ")[2]
    result = CliRunner().invoke(cli, shlex.split(command))
    assert result.exit_code == 0
    assert words(result.stdout) == words(blocks("console")[0])


SESSIONS = [text for text in blocks("console") if text.startswith("$ ")]


@pytest.mark.parametrize("session", SESSIONS, ids=[session.splitlines()[0] for session in SESSIONS])
def test_every_command_prints_what_is_shown(session: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    for step in re.split(r"^\$ resnet-cert ", session, flags=re.MULTILINE)[1:]:
        command, _, shown = step.partition("\n")
        printed = CliRunner().invoke(cli, shlex.split(command)).stdout.splitlines()
        parts = [part.splitlines() for part in re.split(r"^\.\.\.\n", shown, flags=re.MULTILINE)]
        assert len(parts) > 1 or len(printed) == len(parts[0])
        for part in filter(None, parts):
            places = [printed[i : i + len(part)] for i in range(len(printed) - len(part) + 1)]
            assert any(all(map(alike, part, place)) for place in places), part


def alike(shown: str, printed: str) -> bool:
    """The same words and numbers, as far as these do not depend on the processor."""
    pairs = zip(numbers(shown), numbers(printed), strict=False)
    return words(shown) == words(printed) and all(
        float(a) == pytest.approx(float(b), rel=1e-4 if "." in a else 0.3, abs=1e-7) for a, b in pairs
    )


def numbers(line: str) -> list[str]:
    """All but the ends of intervals, which are rounding."""
    return [
        found[0].split(" ±")[0].rstrip(".") for found in NUMBER.finditer(line) if not found[0].startswith("[")
    ]


def test_other_numbers_and_other_words_are_not_alike():
    assert alike("at 0.65962771  [0, 1e-32], 13 steps", "at 0.6596  [0, 2e-32], 14 steps")
    assert not alike("at 0.65962771", "at 0.66")
    assert not alike("minimum 1", "maximum 1")


@pytest.mark.parametrize("line", re.findall(r"^(?:- run: |\$ )?resnet-cert (.*)$", README, re.MULTILINE))
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
