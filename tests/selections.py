"""Which of many cases every run has, and which only the long ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def first(count: int, cases: Iterable[Any]) -> list[Any]:
    """The cases, all but the first `count` for long runs: arguments, or tuples of them."""
    whole = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*case, marks=pytest.mark.long if i >= count else ()) for i, case in enumerate(whole)]
