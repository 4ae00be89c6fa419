"""How a run can end: one of three verdicts, a wrong request (exit 2), or a fault of our own (exit 70).

One enum value makes the word of a verdict, its JSON field and its exit code.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
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


class Verdict(enum.Enum):
    """A statement about exact real arithmetic: proven, disproven, or not decided at this precision."""

    CERTIFIED = "CERTIFIED"
    REFUTED = "REFUTED"
    UNDECIDED = "UNDECIDED"

    @property
    def exit_code(self) -> int:
        return {Verdict.CERTIFIED: 0, Verdict.REFUTED: 10, Verdict.UNDECIDED: 20}[self]

    @classmethod
    def all_of(cls, verdicts: Iterable[Verdict]) -> Verdict:
        """The verdict on a conjunction: one REFUTED refutes it, all CERTIFIED certify it."""
        seen = set(verdicts)
        if cls.REFUTED in seen:
            return cls.REFUTED
        return cls.UNDECIDED if cls.UNDECIDED in seen else cls.CERTIFIED


class FailOn(enum.Enum):
    """The mildest verdict that makes a run fail, where a spec does not say which verdict it must get."""

    UNDECIDED = "undecided"
    REFUTED = "refuted"
    NEVER = "never"

    @property
    def passing(self) -> tuple[Verdict, ...]:
        return {
            FailOn.UNDECIDED: (Verdict.CERTIFIED,),
            FailOn.REFUTED: (Verdict.CERTIFIED, Verdict.UNDECIDED),
            FailOn.NEVER: tuple(Verdict),
        }[self]


def exit_code(verdict: Verdict, expect: Sequence[Verdict] | None, fail_on: FailOn) -> int:
    """0 where the verdict is one that passes; else its own code, or 10 where another one was expected."""
    if verdict in (fail_on.passing if expect is None else expect):
        return 0
    return verdict.exit_code if expect is None else Verdict.REFUTED.exit_code


def worst(codes: Iterable[int]) -> int:
    """The exit code of several checks: 10 before 20 before 0."""
    order = (Verdict.REFUTED.exit_code, Verdict.UNDECIDED.exit_code, 0)
    return min(codes, key=order.index)
