"""How a run can end: one of three verdicts, a wrong request (exit 2), or a fault of our own (exit 70).

One enum value makes the word of a verdict, its JSON field and its exit code.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MOST_TOLD = 100  # faults of one request

FAULTS = {
    "request": "What was asked for cannot be done, as the message says",
    "usage": "An option, argument or command that there is not, that is missing, or that has another form"
    " than the command takes",
    # the text of a spec
    "spec-unreadable": "A spec that is missing or cannot be read",
    "spec-size": "A spec larger than the stated size",
    "not-utf8": "Bytes that are no UTF-8 text",
    "not-text": "Characters that no text has",
    "yaml-syntax": "No YAML",
    "yaml-depth": "Collections nested too deep",
    "yaml-alias": "An alias without its anchor, or inside it",
    "yaml-alias-size": "Aliases that unfold into more than a spec can hold",
    "yaml-tag": "A tag, where plain data is expected",
    "duplicate-key": "A key given twice",
    "key-type": "A key that is no word",
    "override-syntax": "A setting that is not KEY=VALUE",
    "override-place": "A setting inside something that is no mapping",
    # what stands in a spec
    "unknown-key": "A key that there is not",
    "missing-key": "A key that must be there",
    "unknown-name": "A name that is not in the table of its kind",
    "wrong-value": "A value of another type, or outside its range",
    "ragged-rows": "Rows of different lengths",
    "unfit-part": "A part that does not go with another part of the spec",
    # files of data
    "file-missing": "A file that is not there",
    "file-unreadable": "A file that is there and cannot be read, or is damaged",
    "array-missing": "An array that the file does not have",
    "array-type": "An array of something else than real numbers, or that cannot be taken without loss",
    "array-repeated": "A file with two arrays of one name",
    "csv-syntax": "A quote that does not close, or another break of CSV's rules",
    "csv-header": "No header, or no rows below it",
    "csv-delimiter": "Columns separated by another character than expected",
    "csv-row": "A row with more or fewer cells than the header",
    "csv-number": "A cell that is no finite number",
    "csv-text": "A column of words, where numbers are expected",
    "column-missing": "A column that the file does not have",
    "column-repeated": "A column that the file has twice",
    "labels": "Labels that have no number yet",
    "too-large": "More numbers than can be drawn, read or formed here",
    # numbers
    "shape": "An array whose shape does not fit the others",
    "not-finite": "NaN or Inf",
    "target": "A target that the loss does not allow",
    "probability": "A probability that is not positive",
    "probability-sum": "Probabilities that do not sum to 1",
    "domain": "A point outside its domain or its constraint, or a bound that is none",
    # code of the user's
    "code-not-allowed": "Python code without --allow-code",
    "code-failed": "Python code that raised an exception",
    "code-result": "Python code that returned something else than expected",
    "not-convex": "A loss that is proven not to be convex",
    "model": "A network of a framework that is not built as it must be",
    "theorem": "A theorem that does not apply, where it was asked for",
    # places to write to
    "output-place": "A place where no file can be written",
    "output-name": "A file name with another ending than expected",
    "output-read": "A file that would be written over what the command reads",
    "output-twice": "A file that would be written twice",
    # surroundings
    "environment": "A setting of the process that the work cannot be done under",
    "needs-package": "A package that is not installed",
}
"""Every fault's id, which stays, and what it stands for; messages may change their words."""


def printable(text: str) -> str:
    """The text on one line: what is no printable character becomes its escape, as in a Python string."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


@dataclass(frozen=True)
class Diagnostic:
    """One fault in the user's request, with its place in the user's file (lines and columns from 1).

    id: a key of `FAULTS`.
    """

    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    id: str = "request"

    def __post_init__(self) -> None:
        if self.id not in FAULTS:
            raise InternalError(f"expected the id of a fault, got {self.id!r}")

    def __str__(self) -> str:
        parts = (self.file, self.line, self.column)
        place = ":".join(printable(str(part)) for part in parts if part is not None)
        message = printable(self.message)
        return f"{place}: error: {message}" if place else f"error: {message}"

    def to_dict(self) -> dict[str, str | int | None]:
        return {
            "id": self.id,
            "message": self.message,
            "file": self.file,
            "line": self.line,
            "column": self.column,
        }


class RequestError(Exception):
    """The request is wrong (usage, spec, data): every fault found, in the order of the file."""

    exit_code = 2

    def __init__(self, diagnostics: Sequence[Diagnostic] | str, id: str = "request") -> None:
        if isinstance(diagnostics, str):
            diagnostics = [Diagnostic(diagnostics, id=id)]
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n".join(self.lines()))

    def lines(self, *, ids: bool = False) -> list[str]:
        """A line for each fault, with its id if asked for; of very many the first, and how many there are."""
        shown = self.diagnostics[:MOST_TOLD]
        lines = [f"{diagnostic} [{diagnostic.id}]" if ids else str(diagnostic) for diagnostic in shown]
        more = len(self.diagnostics) - len(shown)
        return [*lines, f"error: and {more} more errors"] if more else lines


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
