"""Which of many cases every run has, and which only the long ones."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest


def first(count: int, cases: Iterable[Any]) -> list[Any]:
    """The cases, all but the first `count` for long runs: arguments, or tuples of them."""
    whole = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*case, marks=pytest.mark.long if i >= count else ()) for i, case in enumerate(whole)]


def each_once(*axes: Iterable[Any]) -> list[Any]:
    """The tuples of a product, all but as few as hold each value of each axis for long runs."""
    values = [list(axis) for axis in axes]
    kept = {tuple(i % len(axis) for axis in values) for i in range(max(map(len, values)))}
    return [
        pytest.param(
            *(axis[i] for axis, i in zip(values, at, strict=True)),
            marks=() if at in kept else pytest.mark.long,
        )
        for at in product(*(range(len(axis)) for axis in values))
    ]
