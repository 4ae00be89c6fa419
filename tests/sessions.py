"""Sessions of a shell and of Python as documents show them, run again."""

from __future__ import annotations

import doctest
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from resnet_cert.cli import cli

NUMBER = re.compile(r"\[[^\]]*\]|-?\d[\d.]*(e-?\d+)?( ± \S+)?")
LINE = re.compile(r"^\s*(?:- run: |- |\$ )?resnet-cert (.*)$", re.MULTILINE)


def blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of a language, less their common indentation."""
    fence = re.compile(rf"^( *)```{language}\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
    return [re.sub(f"^{indent}", "", text, flags=re.MULTILINE) for indent, text in fence.findall(document)]


def words(output: str) -> list[list[str]]:
    """The output without its numbers, whose last digits depend on the processor, and without alignment."""
    return [NUMBER.sub("#", line).split() for line in output.splitlines()]


def numbers(line: str) -> list[str]:
    """All but the ends of intervals, which are rounding."""
    return [
        found[0].split(" ±")[0].rstrip(".") for found in NUMBER.finditer(line) if not found[0].startswith("[")
    ]


def alike(shown: str, printed: str) -> bool:
    """The same words and numbers, as far as these do not depend on the processor."""
    pairs = zip(numbers(shown), numbers(printed), strict=False)
    return words(shown) == words(printed) and all(
        float(a) == pytest.approx(float(b), rel=1e-4 if "." in a else 0.3, abs=1e-7) for a, b in pairs
    )


def assert_prints(session: str) -> None:
    """Every command of a session `$ resnet-cert ...` prints what is shown; `...` stands for any lines."""
    for step in re.split(r"^\$ resnet-cert ", session, flags=re.MULTILINE)[1:]:
        command, _, shown = step.partition("\n")
        result = CliRunner().invoke(cli, shlex.split(command))
        printed = result.stdout.splitlines()
        parts = [part.splitlines() for part in re.split(r"^\.\.\.\n", shown, flags=re.MULTILINE)]
        assert len(parts) > 1 or len(printed) == len(parts[0]), result.output
        for part in filter(None, parts):
            places = [printed[i : i + len(part)] for i in range(len(printed) - len(part) + 1)]
            assert any(all(map(alike, part, place)) for place in places), (part, printed)


def commands(document: str) -> list[str]:
    """The arguments of every `resnet-cert` line of a document's blocks."""
    shells = [*blocks(document, "sh"), *blocks(document, "yaml"), *blocks(document, "console")]
    return [line.partition("#")[0] for text in shells for line in LINE.findall(text)]


def assert_is_a_command(line: str) -> None:
    """click takes its options; what stands for a file or a shell's variable is not looked at."""
    name, *arguments = shlex.split(line)
    assert cli.commands[name].make_context(name, arguments).params


def assert_python_says(document: str, path: Path) -> None:
    """The `>>>` examples of a document, one after the other."""
    text = "\n".join(blocks(document, "pycon"))
    test = doctest.DocTestParser().get_doctest(text, {}, path.name, str(path), 0)
    assert doctest.DocTestRunner().run(test).failed == 0
