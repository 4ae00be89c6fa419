"""A table without rules that loses nothing where the terminal is too narrow for it."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

INDENT = 4
ANY_WIDTH = 10_000

Cell = str | RenderableType


class Listing:
    """Rows of a name and some values, in the first of three ways that fits:

    a table; every row's name above its values; every value on a line of its own, after its heading.
    """

    def __init__(self, *headings: str) -> None:
        self._headings = headings
        self._rows: list[tuple[Cell, ...]] = []

    def add_row(self, *cells: Cell) -> None:
        """A name and a value for each of the other headings."""
        self._rows.append(cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = options.update(width=ANY_WIDTH)
        whole, values = self._table(0), self._table(1)
        if Measurement.get(console, room, whole).maximum <= options.max_width:
            yield whole
        elif Measurement.get(console, room, values).maximum + INDENT <= options.max_width:
            yield from self._names_above(console, options, values)
        else:
            yield from self._line_by_line()

    def _table(self, first: int) -> Table:
        """The columns from the given one on."""
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        for heading in self._headings[first:]:
            table.add_column(heading, no_wrap=True)
        for row in self._rows:
            table.add_row(*row[first:])
        return table

    def _names_above(self, console: Console, options: ConsoleOptions, values: Table) -> RenderResult:
        lines = console.render_lines(values, options.update(width=options.max_width - INDENT), pad=False)
        headings = len(lines) - len(self._rows)
        yield Text(self._headings[0], style="dim")
        for number, line in enumerate(lines):
            if number >= headings:
                yield self._rows[number - headings][0]
            yield Segment(" " * INDENT)
            yield from line
            yield Segment.line()

    def _line_by_line(self) -> Iterator[RenderableType]:
        yield Text(self._headings[0], style="dim")
        for name, *values in self._rows:
            yield name
            lines = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
            lines.add_column(no_wrap=True, style="dim")
            lines.add_column(overflow="fold")
            for heading, value in zip(self._headings[1:], values, strict=False):
                if value:
                    lines.add_row(heading.replace("\n", " "), value)
            yield Padding(lines, (0, 0, 0, INDENT))
