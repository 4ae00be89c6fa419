"""Faults of a spec by their place in its tree, and the words for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

Path = tuple[str | int, ...]
"""From the top of the spec down: keys of mappings and indices of lists."""

LONGEST = 40  # characters of the user's text that a message repeats
LONGEST_NAME, MOST_COMPARED = 100, 5000  # of names that are compared with a misspelt one
MOST_NAMES = 20  # names that a message repeats
SYNONYMS = {
    **dict.fromkeys(("weight", "class_weight", "pos_weight"), "class_weights"),
    **dict.fromkeys(("smoothing", "label_smooth"), "label_smoothing"),
    **dict.fromkeys(("lambda", "lam", "wd", "decay", "ridge", "alpha"), "weight_decay"),
    **dict.fromkeys(("radius", "max_norm", "bound"), "norm"),
    **dict.fromkeys(("eps", "tolerance", "tol"), "epsilon"),
    **dict.fromkeys(("features", "hidden", "phi"), "f"),
    **dict.fromkeys(("inputs", "input", "data_x"), "x"),
    **dict.fromkeys(("targets", "target", "outputs", "response"), "y"),
    **dict.fromkeys(("sep", "separator"), "delimiter"),
    **dict.fromkeys(("sample_weight", "sample_weights", "pi"), "probabilities"),
    **dict.fromkeys(("skip", "shortcut"), "bypass"),
    **dict.fromkeys(("nonlinearity", "act"), "activation"),
    **dict.fromkeys(("hidden_sizes", "units", "sizes"), "widths"),
    **dict.fromkeys(("path", "filename"), "file"),
}
"""The field's own words for keys and arrays, where they are not near in spelling."""


class Fault(NamedTuple):
    """What is wrong with the value at `path`; with at_key, with its being there at all.  id: of `FAULTS`."""

    path: Path
    message: str
    id: str
    at_key: bool = False

    def named(self) -> str:
        """The message behind the keys that lead to the value, where it is about one.

        A message that begins with the last key itself goes on from there: it says the row and the column.
        """
        depth = max((i + 1 for i, part in enumerate(self.path) if isinstance(part, str)), default=0)
        if self.at_key or not depth:
            return self.message
        keys = "".join(f".{part}" if isinstance(part, str) else f"[{part}]" for part in self.path[:depth])[1:]
        last = str(self.path[depth - 1])
        if self.message.startswith((f"{last}:", f"{last} ")):
            return keys + self.message.removeprefix(last)
        match self.path[depth:]:
            case (i, j):
                return f"{keys} row {int(i) + 1}, column {int(j) + 1}: {self.message}"
            case (i,) if self.message.startswith("row "):
                return f"{keys} {self.message}"
            case (i,):
                return f"{keys} entry {int(i) + 1}: {self.message}"
        return f"{keys}: {self.message}"


class Refused(Exception):
    """A part of the spec cannot be had; the paths of its faults start at that part."""

    def __init__(self, faults: Iterable[Fault] | str, id: str = "wrong-value") -> None:
        self.faults = (Fault((), faults, id),) if isinstance(faults, str) else tuple(faults)
        super().__init__("\n".join(fault.message for fault in self.faults))

    def below(self, *path: str | int) -> Refused:
        """The same, of a part that holds this one at `path`."""
        return Refused(fault._replace(path=(*path, *fault.path)) for fault in self.faults)


@contextmanager
def below(*path: str | int) -> Iterator[None]:
    """What is refused in the block is a part at `path` of what the caller builds."""
    try:
        yield
    except Refused as refused:
        raise refused.below(*path) from None


class Faults(list[Fault]):
    """Faults as they are found, so that all of them are reported."""

    @contextmanager
    def under(self, *path: str | int) -> Iterator[None]:
        """Keeps the faults of the part of the spec at `path`, and goes on after the block."""
        try:
            yield
        except Refused as refused:
            self.extend(refused.below(*path).faults)

    def refuse(self) -> None:
        """Raises `Refused` if there are any."""
        if self:
            raise Refused(self)


def holds(tree: Any, part: str | int) -> bool:
    """Whether a value of the spec is a mapping with this key, or a list with this index."""
    if isinstance(tree, dict):
        return part in tree
    return isinstance(tree, list) and isinstance(part, int) and part < len(tree)


def describe(value: Any) -> str:
    """A value of the spec as a message names it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(shortened(value))
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    return repr(value)


def shortened(text: str, longest: int = LONGEST) -> str:
    """The text on one line, and not too much of it."""
    text = " ".join(text.split())
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: longest + 1])
    return text if len(text) <= longest else text[: longest - 1] + "…"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` is most likely a misspelling of."""
    import difflib

    known = list(known)
    if SYNONYMS.get(name.lower()) in known:
        return SYNONYMS[name.lower()]
    by_lower = {word.lower()[:LONGEST_NAME]: word for word in islice(known, MOST_COMPARED)}
    close = difflib.get_close_matches(name.lower()[:LONGEST_NAME], by_lower, n=1)
    return by_lower[close[0]] if close else None


def suggestion(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, or else all of them."""
    known = list(known)
    near = nearest(name, known)
    if near is not None:
        return f"; did you mean {describe(near)}?"
    return f"; expected one of {listed(known)}" if known else ""


def listed(names: Iterable[str]) -> str:
    """Names as a message repeats them: not more than the first ones, and how many there are."""
    names = list(names)
    shown = ", ".join(shortened(name) for name in names[:MOST_NAMES])
    return shown if len(names) <= MOST_NAMES else f"{shown}, … ({len(names)} in all)"
