"""Text to a plain tree whose every key and value keeps its line and column.

YAML with the scalars of the YAML 1.2 core schema, so that `1e-3` is a number and `yes` a word.  What a spec
cannot mean is an error with its place: a key twice, a tag that would build an object, a number that is not
finite, aliases that unfold into more than a file can hold.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import yaml

from resnet_cert.outcomes import Diagnostic, RequestError
from resnet_cert.spec.faults import Fault, Path, describe, shortened

MAX_DEPTH = 64  # a spec needs eight levels
MAX_UNFOLDED = 10**6  # values that aliases may repeat in all
BEYOND = 2**1024 - 2**970  # what is not below it rounds to infinity
MAX_DIGITS = 400  # float64 ends before; Python does not read longer integers at any length

_ZIP = b"PK\x03\x04"
_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same events and marks, ten times as fast
_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_BASES = {"0o": (re.compile("0o[0-7]+"), 8), "0x": (re.compile("0x[0-9a-fA-F]+"), 16)}
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((sign + word for sign in ("", "+") for word in (".inf", ".Inf", ".INF")), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_TAG = "tag:yaml.org,2002:"
_TAGGED: dict[str, tuple[type, ...]] = {
    "null": (type(None),), "bool": (bool,), "int": (int,), "float": (int, float)
}  # fmt: skip


@dataclass(slots=True)
class Node:
    """A value and its place, and those of its parts; `size` counts the values in it, aliases unfolded."""

    value: Any
    line: int
    column: int
    items: list[Node] | None = None
    entries: dict[str, Entry] | None = None
    size: int = 1


@dataclass(slots=True)
class Entry:
    """A key of a mapping, with its place, and its value."""

    line: int
    column: int
    node: Node


@dataclass(frozen=True)
class Source:
    """One text as a tree, and what is wrong with it; lines and columns count from 1."""

    file: str
    root: Node
    faults: tuple[Diagnostic, ...] = ()

    @property
    def value(self) -> Any:
        return self.root.value

    def place(self, path: Path, *, key: bool = False) -> tuple[int, int]:
        """Line and column of the value at `path` (of its key); of the last part of the path that there is."""
        node, at = self.root, (self.root.line, self.root.column)
        for part in path:
            if isinstance(part, str) and node.entries and part in node.entries:
                entry = node.entries[part]
                node, at = entry.node, (entry.line, entry.column)
            elif isinstance(part, int) and node.items and part < len(node.items):
                node = node.items[part]
                at = (node.line, node.column)
            else:
                break
        return at if key else (node.line, node.column)


def read(data: bytes, file: str) -> Source:
    """The source of a file's bytes.

    Raises:
        RequestError: if the bytes are no UTF-8, or as `parse` does.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if data.startswith(_ZIP):
            fault = (
                "expected a spec in YAML, got a zip archive: of an .npz the spec says data: {file: NAME.npz}"
            )
            raise RequestError([Diagnostic(fault, file, 1, 1, "not-text")]) from None
        line, column = _position(data[: error.start].decode("utf-8", "replace"))
        fault = f"expected UTF-8 text, got the byte 0x{data[error.start]:02x}"
        raise RequestError([Diagnostic(fault, file, line, column, "not-utf8")]) from None
    return parse(text, file)


def parse(text: str, file: str, *, column: int = 1) -> Source:
    """The tree of a YAML text whose first character stands in `column`.

    Raises:
        RequestError: where there is no tree.  Faults that leave one are in its `faults`.
    """
    require_text(text, file, column)
    composer = _Composer(file, column - 1, text)
    try:
        for event in yaml.parse(text, Loader=_PARSER):
            composer.take(event)
    except yaml.MarkedYAMLError as error:
        raise composer.syntax_error(error) from None
    root = composer.root or Node(None, 1, column)
    return Source(file, root, tuple(composer.faults))


def require_text(text: str, file: str, column: int = 1) -> None:
    """Refuse characters that no text has; the first one stands in `column`.

    Raises:
        RequestError: at the first of them.
    """
    unprintable = _UNPRINTABLE.search(text)
    if unprintable:
        line, at = _position(text[: unprintable.start()])
        at = at + column - 1 if line == 1 else at
        fault = f"expected text, got the character U+{ord(unprintable.group()):04X} (a binary file?)"
        raise RequestError([Diagnostic(fault, file, line, at, "not-text")])


_Key = tuple[str | None, int, int]


class _Composer:
    """Events to nodes, with a stack of its own: no depth of nesting reaches Python's."""

    def __init__(self, file: str, shift: int, text: str) -> None:
        self.file, self.shift, self.text = file, shift, text
        self.root: Node | None = None
        self.stack: list[Node] = []
        self.keys: list[_Key | None] = []  # one for each of the stack: the key whose value comes next
        self.anchors: dict[str, Node] = {}
        self.faults: list[Diagnostic] = []
        self.documents = 0
        self.unfolded = 0

    def take(self, event: Any) -> None:
        if isinstance(event, yaml.ScalarEvent):
            node = self.scalar(event)
            at_key = self.stack and self.stack[-1].entries is not None and self.keys[-1] is None
            if at_key and isinstance(node.value, (bool, int, float)):
                node.value = event.value  # a key is a word: labels 0 and 1 as they are written
            self.add(node, event.start_mark)
        elif isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            self.open(event)
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            closed = self.stack.pop()
            self.keys.pop()
            if self.stack:
                self.stack[-1].size += closed.size
        elif isinstance(event, yaml.AliasEvent):
            self.add(self.alias(event), event.start_mark)
        elif isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise self.error("expected one document, got a second one", event.start_mark, "yaml-syntax")

    def place(self, mark: Any) -> tuple[int, int]:
        return mark.line + 1, mark.column + 1 + (self.shift if mark.line == 0 else 0)

    def path(self) -> Path:
        """Of the value that comes next; of the mapping around it where a key comes next."""
        parts: list[str | int] = []
        for node in self.stack[:-1]:  # the last part of each is the next one of the stack
            parts.append(len(node.items) - 1 if node.items is not None else next(reversed(node.value), ""))
        if self.stack and self.stack[-1].items is not None:
            parts.append(len(self.stack[-1].items))
        elif self.stack and self.keys[-1] is not None:
            parts.append(self.keys[-1][0] or "")
        return tuple(part for part in parts if part != "")

    def character(self, mark: Any) -> str:
        """What stands there."""
        lines = self.text.splitlines()
        return lines[mark.line][mark.column : mark.column + 1] if mark.line < len(lines) else ""

    def fault(self, message: str, mark: Any, id: str) -> None:
        self.faults.append(Diagnostic(message, self.file, *self.place(mark), id))

    def error(self, message: str, mark: Any, id: str) -> RequestError:
        """What ends the reading, after the faults so far."""
        return RequestError([*self.faults, Diagnostic(message, self.file, *self.place(mark), id)])

    def syntax_error(self, error: yaml.MarkedYAMLError) -> RequestError:
        message = f"{error.context}: {error.problem}" if error.context else str(error.problem)
        at, since = error.problem_mark or error.context_mark, error.context_mark
        if self.character(at) == "\t":
            return self.error("found a tab, with which YAML does not indent: write spaces", at, "yaml-syntax")
        if since is not None and self.place(since) != self.place(at):
            line, column = self.place(since)
            message += f" (it began at line {line}, column {column})"
        return self.error(message, at, "yaml-syntax")

    def add(self, node: Node, mark: Any) -> None:
        """A finished node as the next part of the innermost open collection."""
        self.attach(node, mark)
        if self.stack:
            self.stack[-1].size += node.size

    def attach(self, node: Node, mark: Any) -> None:
        if not self.stack:
            self.root = node
            return
        parent, key = self.stack[-1], self.keys[-1]
        if parent.entries is None:
            assert parent.items is not None
            parent.items.append(node)
            parent.value.append(node.value)
        elif key is None:
            self.keys[-1] = self.key(parent.entries, node.value, mark)
        else:
            word, line, column = key
            if word is not None:
                parent.entries[word] = Entry(line, column, node)
                parent.value[word] = node.value
            self.keys[-1] = None

    def key(self, entries: dict[str, Entry], word: Any, mark: Any) -> _Key:
        """A key and its place; None in place of a wrong one, whose value goes nowhere."""
        place = self.place(mark)
        if not isinstance(word, str):
            got = "a collection" if isinstance(word, (list, dict)) else describe(word)
            self.fault(f"expected a word as a key, got {got}", mark, "key-type")
        elif word in entries:
            first = entries[word]
            given = f"first given at line {first.line}, column {first.column}"
            self.fault(f"duplicate key {word!r}, {given}", mark, "duplicate-key")
        else:
            return word, *place
        return None, *place

    def open(self, event: Any) -> None:
        if len(self.stack) >= MAX_DEPTH:
            raise self.error(
                f"expected at most {MAX_DEPTH} levels of nesting", event.start_mark, "yaml-depth"
            )
        place = self.place(event.start_mark)
        if isinstance(event, yaml.SequenceStartEvent):
            node, tag = Node([], *place, items=[]), "seq"
        else:
            node, tag = Node({}, *place, entries={}), "map"
        if event.tag not in (None, "!", _TAG + tag):
            self.unknown_tag(event)
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        self.attach(node, event.start_mark)
        self.stack.append(node)
        self.keys.append(None)

    def alias(self, event: Any) -> Node:
        line, column = self.place(event.start_mark)
        node = self.anchors.get(event.anchor)
        if node is None:
            self.fault(f"unknown alias *{event.anchor}", event.start_mark, "yaml-alias")
            return Node(None, line, column)
        if any(node is open_node for open_node in self.stack):
            inside = f"alias *{event.anchor} refers to a value that it is a part of"
            self.fault(inside, event.start_mark, "yaml-alias")
            return Node(None, line, column)
        self.unfolded += node.size
        if self.unfolded > MAX_UNFOLDED:
            too_many = f"aliases unfold into more than {MAX_UNFOLDED} values"
            raise self.error(too_many, event.start_mark, "yaml-alias-size")
        return node

    def scalar(self, event: Any) -> Node:
        tag, text = event.tag, event.value
        if event.implicit[0]:
            value = _plain(text)
        elif tag in (None, "!", _TAG + "str"):
            value = text
        else:
            value = _plain(text)
            if not isinstance(value, _TAGGED.get(tag.removeprefix(_TAG), ())):
                self.unknown_tag(event)
                value = None
        if isinstance(value, float) and not math.isfinite(value):
            got = f"expected a finite number, got {shortened(text)}"
            self.fault(Fault(self.path(), got, "not-finite").named(), event.start_mark, "not-finite")
            value = None
        node = Node(value, *self.place(event.start_mark))
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        return node

    def unknown_tag(self, event: Any) -> None:
        tag = event.tag.replace(_TAG, "!!", 1)
        self.fault(f"expected plain data, got the tag {shortened(tag)}", event.start_mark, "yaml-tag")


def _plain(text: str) -> Any:
    """A scalar without quotes, by the core schema; a number beyond float64 is infinite."""
    if _FLOAT.fullmatch(text):
        number = float(text)
        whole = len(text) < MAX_DIGITS and text.lstrip("+-").isdigit() and math.isfinite(number)
        return int(text) if whole else number
    if text in _WORDS:
        return _WORDS[text]
    if text[:2] in _BASES:
        pattern, base = _BASES[text[:2]]
        if pattern.fullmatch(text):
            number = int(text, base)
            return number if number < BEYOND else math.inf
    return text


def _position(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - before.rfind("\n")
