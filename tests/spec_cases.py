"""Wrong specs as blocks of text: parts that replace those of a base spec, and below them the faults."""

from __future__ import annotations

BASE = """\
version: 1
data: {x: [[1.0, 2.0], [3.0, 4.0]], y: [1.0, -1.0]}
loss: squared
network: {kind: identity}
point: {w: [0.0, 0.0], V: [[0.0, 0.0], [0.0, 0.0]]}
epsilon: 0.1
"""


def spec_with(**parts: str) -> str:
    """The base spec with other parts; an empty one is left out."""
    lines = dict(line.split(": ", 1) for line in BASE.splitlines()) | parts
    return "".join(f"{key}: {value}\n" for key, value in lines.items() if value)


def wrong_specs(text: str) -> list[tuple[dict[str, str], list[str]]]:
    """(parts, faults) of every block; a fault is indented, and goes on where more indented."""
    cases = []
    for block in text.strip().split("\n\n"):
        lines = block.replace("\n    ", " ").split("\n")
        parts = dict(line.split(":", 1) for line in lines if not line.startswith(" "))
        faults = [line.strip() for line in lines if line.startswith(" ")]
        cases.append(({key: value.strip() for key, value in parts.items()}, faults))
    return cases
