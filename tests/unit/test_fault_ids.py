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
    """Every string within a use: not the table, which only `FAULTS` is assigned."""
    left = [(tree, False)]
    while left:
        node, within = left.pop()
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FAULTS":
            continue
        used = within or isinstance(node, USES)
        if used and isinstance(node, ast.Constant) and type(node.value) is str:
            yield node.value
        left += [(part, used) for part in ast.iter_child_nodes(node)]


def unused(ids: set[str]) -> set[str]:
    """Those that no module uses; a module is parsed only for what is somewhere in its text."""
    for path in ROOT.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if any(f'"{id}"' in text for id in ids):
            ids = ids - set(used_strings(ast.parse(text)))
    return ids


def test_every_id_is_one_of_a_fault() -> None:
    assert unused(set(FAULTS)) == set()


def test_a_name_in_the_table_alone_is_not_used() -> None:
    assert list(used_strings(ast.parse('FAULTS = {"usage": "a"}'))) == []


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
