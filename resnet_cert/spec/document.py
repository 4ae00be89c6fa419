"""A spec after the settings KEY=VALUE of the command line, and the place of each fault in either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from resnet_cert.outcomes import Diagnostic, RequestError
from resnet_cert.spec.faults import Fault, Path, describe, holds, shortened
from resnet_cert.spec.source import Source, parse, require_text


@dataclass(frozen=True)
class Override:
    """One KEY=VALUE of the command line: the value at `keys`, where each key's column is in the text."""

    keys: tuple[str, ...]
    columns: tuple[int, ...]
    source: Source


@dataclass(frozen=True)
class Document:
    """The tree of a spec after its overrides; a place is in the text that a value came from."""

    value: Any
    source: Source
    overrides: tuple[Override, ...] = ()
    faults: tuple[Diagnostic, ...] = ()

    def diagnostic(self, fault: Fault) -> Diagnostic:
        """The fault with its place."""
        path = fault.path
        for override in reversed(self.overrides):
            depth = len(override.keys)
            inside, above = path[:depth] == override.keys, path == override.keys[: len(path)]
            if inside and not (above and fault.at_key):
                line, column = override.source.place(path[depth:], key=fault.at_key)
                return Diagnostic(fault.named(), override.source.file, line, column, fault.id)
            if path and above and (inside or not _has(self.source.value, path)):
                column = override.columns[len(path) - 1]
                return Diagnostic(fault.named(), override.source.file, 1, column, fault.id)
        line, column = self.source.place(path, key=fault.at_key)
        return Diagnostic(fault.named(), self.source.file, line, column, fault.id)


def _has(tree: Any, path: Path) -> bool:
    for part in path:
        if not holds(tree, part):
            return False
        tree = tree[part]
    return True


def with_overrides(source: Source, settings: Sequence[str]) -> Document:
    """The document of a source in which each KEY=VALUE has set the value at the dotted KEY.

    A setting that is no KEY=VALUE, whose VALUE is no YAML, or that leads into a scalar changes nothing and is
    among the document's faults.
    """
    document = Document(source.value, source, (), source.faults)
    for setting in settings:
        try:
            override = _override(setting)
            document = Document(
                _replaced(document.value, override, 0),
                source,
                (*document.overrides, override),
                (*document.faults, *override.source.faults),
            )
        except RequestError as error:
            document = replace(document, faults=(*document.faults, *error.diagnostics))
    return document


def _override(setting: str) -> Override:
    label = f"--set {shortened(setting)}"
    key, equals, text = setting.partition("=")
    keys = tuple(key.split("."))
    require_text(key, label)
    if not (equals and all(keys)):
        fault = f"expected KEY=VALUE, got {shortened(setting)!r}"
        raise RequestError([Diagnostic(fault, label, 1, 1, "override-syntax")])
    columns = tuple(1 + sum(len(part) + 1 for part in keys[:i]) for i in range(len(keys)))
    return Override(keys, columns, parse(text, label, column=len(key) + 2))


def _replaced(tree: Any, override: Override, depth: int) -> Any:
    """A copy of the tree along the override's keys: an aliased mapping is changed in one place only."""
    if depth == len(override.keys):
        return override.source.value
    if tree is None and depth > 0:
        tree = {}
    if not isinstance(tree, dict):
        at = ".".join(override.keys[:depth]) or "the spec"
        message = f"expected a mapping at {at} to set {override.keys[depth]!r} in, got {describe(tree)}"
        place = (override.source.file, 1, override.columns[depth])
        raise RequestError([Diagnostic(message, *place, "override-place")])
    key = override.keys[depth]
    return {**tree, key: _replaced(tree.get(key), override, depth + 1)}
