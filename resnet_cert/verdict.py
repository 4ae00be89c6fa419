"""The three verdicts: one enum value makes the word, the JSON field and the exit code."""

from __future__ import annotations

import enum
from collections.abc import Iterable


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
