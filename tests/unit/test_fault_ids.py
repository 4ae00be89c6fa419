"""Every id of a fault is used, and every fault has one that is in the table."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import resnet_cert
from resnet_cert.outcomes import FAULTS, Diagnostic, InternalError, RequestError

ROOT = Path(resnet_cert.__file__).parent


def literals() -> set[str]:
    """Every string that stands by itself in the code, the table apart."""
    found: set[str] = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Dict) and path.name == "outcomes.py":
                continue
            if isinstance(node, (ast.Call, ast.Assign, ast.IfExp, ast.Return, ast.arguments, ast.Compare)):
                parts = ast.walk(node)
                found |= {
                    part.value for part in parts if isinstance(part, ast.Constant) and type(part.value) is str
                }
    return found


def test_every_id_is_one_of_a_fault() -> None:
    assert set(FAULTS) <= literals()


def test_ids_are_words_and_say_what_they_stand_for() -> None:
    for id, meaning in FAULTS.items():
        assert id == id.lower()
        assert id.replace("-", "").isalnum()
        assert meaning[0].isupper()
        assert not meaning.endswith(".")


def test_an_id_that_is_not_in_the_table_is_a_fault_of_our_own() -> None:
    with pytest.raises(InternalError):
        Diagnostic("message", id="nonsense")
    assert RequestError("message").diagnostics[0].id == "request"
