"""What can go wrong: the user's request (exit 2) or ourselves (exit 70)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Diagnostic:
    """One fault in the user's request, with its place in the user's file (lines and columns from 1)."""

    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        return f"{place}: error: {self.message}" if place else f"error: {self.message}"


class RequestError(Exception):
    """The request is wrong (usage, spec, data): every fault found, in the order of the file."""

    exit_code = 2

    def __init__(self, diagnostics: Sequence[Diagnostic] | str) -> None:
        if isinstance(diagnostics, str):
            diagnostics = [Diagnostic(diagnostics)]
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n".join(map(str, self.diagnostics)))


class InternalError(Exception):
    """Two of our own computations contradict each other: never a verdict, always exit 70."""

    exit_code = 70
