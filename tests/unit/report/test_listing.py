"""A listing takes the widest layout that fits, and loses nothing in any of them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from resnet_cert.report.listing import Listing

TABLE = """\
name         value      limit  margin
first        1.25       2      0.75
second name  0.0078125
"""
NAMES_ABOVE = """\
name
    value      limit  margin
first
    1.25       2      0.75
second name
    0.0078125
"""
LINE_BY_LINE = """\
name
first
    value   1.25
    limit   2
    margin  0.75
second name
    value  0.0078125
"""


@pytest.mark.parametrize(
    ("width", "expected"),
    [(100, TABLE), (37, TABLE), (36, NAMES_ABOVE), (28, NAMES_ABOVE), (27, LINE_BY_LINE), (21, LINE_BY_LINE)],
)
def test_the_first_layout_that_fits_is_taken(width: int, expected: str) -> None:
    listing = Listing("name", "value", "limit", "margin")
    listing.add_row("first", "1.25", "2", "0.75")
    listing.add_row("second name", "0.0078125", "", "")
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as capture:
        console.print(listing)
    assert [line.rstrip() for line in capture.get().splitlines()] == expected.splitlines()


def test_a_heading_of_two_lines_stays_above_its_column() -> None:
    listing = Listing("name", "one\nvalue")
    listing.add_row("a name as long as can be", "1")
    console = Console(file=io.StringIO(), width=20)
    with console.capture() as capture:
        console.print(listing)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    assert lines[:3] == ["name", "    one", "    value"]
    assert lines[-1] == "    1"
