"""Every id of a fault is used, and every fault has one that is in the table."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import resnet_cert
from resnet_cert.outcomes import FAULTS, Diagnostic, InternalError, RequestError

ROOT = Path(resnet_cert.__file__).parent


USES = (ast.Call, ast.Assign, ast.IfExp, ast.Return, ast.arguments, ast.Compare)


def used_strings(tree: ast.AST) -> Iterator[str]:
    """Every string within a use: not the table, which is an annotated assignment."""
    left = [(tree, False)]
    while left:
        node, within = left.pop()
        used = within or isinstance(node, USES)
        if used and isinstance(node, ast.Constant) and type(node.value) is str:
            yield node.value
        left += [(part, used) for part in ast.iter_child_nodes(node)]


def literals() -> set[str]:
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in ROOT.rglob("*.py"))
    return {string for tree in trees for string in used_strings(tree)}


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
