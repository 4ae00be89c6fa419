"""Landscapes on planes, of any number of outputs, with decay and on balls: nothing missed, none invented."""

from __future__ import annotations

import pytest
from planes import faults, random_plane
from selections import first

UNDECIDED = 0.01
"""The share of landscapes that may be left open."""


@pytest.mark.parametrize("seed", first(1, [21000008, 1, 2, 31920159, 31040128]))
def test_a_plane_has_the_critical_points_that_a_scan_finds(seed: int) -> None:
    assert faults(random_plane(seed)) == ([], True)


@pytest.mark.long
@pytest.mark.parametrize("start", range(100, 2100, 100))
def test_two_thousand_planes_are_right(start: int) -> None:
    found = {seed: faults(random_plane(seed)) for seed in range(start, start + 100)}
    assert {seed: wrong for seed, (wrong, _) in found.items() if wrong} == {}
    assert sum(not decided for _, decided in found.values()) <= 3 + UNDECIDED * len(found)
