"""Columns of a CSV file with a header, as float64."""

from __future__ import annotations

import csv
import math
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from resnet_cert.numerics.enclosure import Array
from resnet_cert.spec.arrays import existing
from resnet_cert.spec.faults import Fault, Faults, Refused, below, shortened, suggestion
from resnet_cert.spec.faults import Path as Place

MAX_REPORTED = 20  # bad cells and rows that are reported one by one

_DECIMAL = re.compile(r"\s*[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\s*")


class Column(NamedTuple):
    """A column's name and where it stands in the spec, below `data`."""

    name: str
    place: Place


def read_csv(folder: Path, name: str, columns: Sequence[Column]) -> Array:
    """The columns (n, m) of a CSV file, in the order asked for.

    Raises:
        Refused: if the file or a column is missing, and for every row and cell that is not as it should be.
    """
    with below("file"):
        path = existing(folder, name)
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            return _Reader(name, columns).read(lines)
    except (OSError, UnicodeDecodeError) as error:
        raise Refused([Fault(("file",), f"cannot read {name} as UTF-8 text: {error}")]) from None


class _Reader:
    """One pass over the rows: quick while they are as they should be, cell by cell where one is not."""

    def __init__(self, name: str, columns: Sequence[Column]) -> None:
        self.name, self.columns = name, columns
        self.faults = Faults()
        self.more = 0
        self.underscore = False  # in the lines of this row: float() reads 1_000

    def read(self, lines: Iterable[str]) -> Array:
        reader = csv.reader(self.watched(lines), strict=True)
        numbers = array("d")
        count = 0
        try:
            header = [cell.strip() for cell in next(reader, [])]
            places = self.find(header)
            for row in reader:
                if not row:  # a blank line
                    continue
                count += 1
                values: list[float] = []
                try:
                    values = [float(row[place]) for place in places]
                    sound = len(row) == len(header) and not self.underscore and math.isfinite(sum(values))
                except (ValueError, IndexError):
                    sound = False
                if not sound:
                    values = self.inspect(row, header, places, f"row {count} (line {reader.line_num})")
                    self.underscore = False
                numbers.extend(values)
        except csv.Error as error:
            raise Refused([Fault(("file",), f"{self.name}, line {reader.line_num}: {error}")]) from None
        if count == 0:
            self.faults.append(Fault(("file",), f"expected rows below the header of {self.name}, got none"))
        if self.more:
            self.faults.append(Fault(("file",), f"{self.name}: and {self.more} more such faults"))
        self.faults.refuse()
        return np.frombuffer(numbers, dtype=np.float64).reshape(count, len(self.columns))

    def watched(self, lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            if "_" in line:
                self.underscore = True
            yield line

    def find(self, header: list[str]) -> list[int]:
        """The place of each column in a row."""
        self.underscore = False
        if not any(header):
            raise Refused(
                [Fault(("file",), f"expected a header of column names in {self.name}, got nothing")]
            )
        if len(header) == 1 and re.search(r"[;\t]", header[0]):
            got = f"got the one column {shortened(header[0])!r}"
            raise Refused([Fault(("file",), f"expected columns separated by commas in {self.name}, {got}")])
        for column in self.columns:
            times = header.count(column.name.strip())
            if times == 0:
                message = f"no column {column.name!r} in {self.name}{suggestion(column.name, header)}"
                self.faults.append(Fault(column.place, message))
            if times > 1:
                message = f"expected one column {column.name!r} in {self.name}, got {times}"
                self.faults.append(Fault(column.place, message))
        self.faults.refuse()
        return [header.index(column.name.strip()) for column in self.columns]

    def inspect(self, row: list[str], header: list[str], places: list[int], where: str) -> list[float]:
        """The numbers of a row, unless something is wrong with them."""
        if len(row) != len(header):
            message = f"{self.name}, {where}: expected {len(header)} cells as in the header, got {len(row)}"
            self.report(Fault(("file",), message))
            return []
        for column, place in zip(self.columns, places, strict=True):
            cell = row[place]
            if not (_DECIMAL.fullmatch(cell) and math.isfinite(float(cell))):
                got = repr(shortened(cell)) if cell.strip() else "nothing"
                message = f"{self.name}, {where}, column {column.name!r}: expected a finite number, got {got}"
                self.report(Fault(column.place, message))
        return [] if self.faults else [float(row[place]) for place in places]

    def report(self, fault: Fault) -> None:
        if len(self.faults) < MAX_REPORTED:
            self.faults.append(fault)
        else:
            self.more += 1
