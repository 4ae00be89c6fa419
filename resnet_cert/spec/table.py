"""Columns of a CSV file with a header, as float64; True and False are 1 and 0, labels have their numbers."""

from __future__ import annotations

import codecs
import csv
import math
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from resnet_cert.numerics.enclosure import Array
from resnet_cert.spec.arrays import existing
from resnet_cert.spec.faults import Fault, Faults, Refused, below, describe, listed, shortened, suggestion
from resnet_cert.spec.faults import Path as Place
from resnet_cert.spec.values import DELIMITERS

MAX_REPORTED = 20  # bad cells and rows that are reported one by one
LONGEST_CELL = 80  # characters of a cell that a message repeats
EXAMPLES = 3  # words of a column of words that a message repeats

_DECIMAL = re.compile(r"\s*[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\s*")
ABSENT = ("nan", "inf", "na", "null", "none")
REMEDIES = tuple(
    (re.compile(pattern), remedy)
    for pattern, remedy in (
        (r"\s*(|[-+]?nan|n/?a|null|none|-|\?)\s*", "fill it in, or leave the row out"),
        (
            r"\s*[-+]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]*)?\s*",
            "a decimal comma: write a point; thousands: no comma",
        ),
        (r"\s*[-+]?[0-9]+,[0-9]+\s*", "a decimal comma: write a point"),
        (r"\s*[0-9]+[-/.][0-9]+[-/.][0-9]+.*", "a date: write a number, such as days since a first one"),
        (r"\s*[0-9]+:[0-9]+.*", "a time: write a number, such as seconds"),
        (r"\s*[-+]?[0-9.]+\s*%\s*", "write it without %"),
        (r"\s*[^\w\s]?\s*[0-9.]+\s*[^\W\d_.]+\s*", "write the number without its unit"),
    )
)
"""Of cells that are no numbers, by what they look like."""
BOOLEANS = {"true": 1.0, "false": 0.0}


class Column(NamedTuple):
    """A column's name, where it stands in the spec below `data`, and the numbers of its labels, if it has."""

    name: str
    place: Place
    labels: Mapping[str, float] | None = None


def read_csv(folder: Path, name: str, columns: Sequence[Column], delimiter: str = "comma") -> Array:
    """The columns (n, m) of a CSV file, in the order asked for.

    Raises:
        Refused: if the file or a column is missing, and for every row and cell that is not as it should be.
    """
    with below("file"):
        path = existing(folder, name)
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            return _Reader(name, columns, delimiter).read(lines)
    except UnicodeDecodeError:
        raise Refused([_not_utf8(path, name)]) from None
    except OSError as error:
        reason = f"cannot read {name}: {error.strerror or error}"
        raise Refused([Fault(("file",), reason, "file-unreadable")]) from None
    except MemoryError:
        raise Refused([Fault(("file",), f"cannot read {name}: not enough memory", "too-large")]) from None


def _not_utf8(path: Path, name: str) -> Fault:
    """Where the first byte stands that is no UTF-8, and what the encoding may be."""
    with path.open("rb") as file:
        start = file.read(len(codecs.BOM_UTF16_LE))
        if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            message = f"{name}, line 1: expected UTF-8 text, got UTF-16: save it as UTF-8"
            return Fault(("file",), message, "not-utf8")
        file.seek(len(codecs.BOM_UTF8) if start + file.read(1) == codecs.BOM_UTF8 else 0)
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                at = f"line {number}, column {len(line[: error.start].decode()) + 1}"
                byte = line[error.start]
                guess = bytes([byte]).decode("cp1252", "replace")
                known = guess.isprintable() and guess != "\N{REPLACEMENT CHARACTER}"
                hint = f" ({guess} in Windows-1252)" if known else ""
                message = (
                    f"{name}, {at}: expected UTF-8 text, got the byte 0x{byte:02x}{hint}: save it as UTF-8"
                )
                return Fault(("file",), message, "not-utf8")
    return Fault(("file",), f"expected UTF-8 text in {name}: save it as UTF-8", "not-utf8")


def read_header(folder: Path, name: str, delimiter: str) -> list[str]:
    """The names of the columns; none where the file cannot be read, which `read_csv` says."""
    try:
        with (folder / name).open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, strict=True, delimiter=DELIMITERS.get(delimiter, delimiter))
            return [cell.strip() for cell in next(reader, [])]
    except (OSError, ValueError, csv.Error):
        return []


@dataclass
class _Cells:
    """How the cells of one column are read, and those that could not be."""

    column: Column
    place: int
    convert: Callable[[str], float]
    wrong: list[tuple[str, str]] = field(default_factory=list)  # (row, cell), the first ones
    count: int = 0
    words: dict[str, None] = field(default_factory=dict)  # the first different ones among them
    other: list[tuple[str, str]] = field(default_factory=list)  # the first that are no words either
    others: int = 0

    def refuse(self, row: str, text: str) -> None:
        self.count += 1
        if self.count <= MAX_REPORTED:
            self.wrong.append((row, text))
        if not _is_word(text):
            self.others += 1
            if self.others <= MAX_REPORTED:
                self.other.append((row, text))
        elif len(self.words) <= EXAMPLES:
            self.words[shortened(text.strip(), LONGEST_CELL)] = None

    @property
    def expected(self) -> str:
        if self.column.labels is not None:
            return f"one of {listed(self.column.labels)} as in data.labels"
        return "True or False as in the rows before" if self.convert is _boolean else "a finite number"


def _boolean(cell: str) -> float:
    return BOOLEANS[cell.strip().lower()]


def labelled(labels: Mapping[str, float]) -> Callable[[str], float]:
    """The number of a label; 1 and 1.0 are the same one, and so are True and true, and True is 1 too."""
    numbers = {float(word): number for word, number in labels.items() if _DECIMAL.fullmatch(word)}
    booleans = {word.lower(): number for word, number in labels.items() if word.lower() in BOOLEANS}

    def convert(cell: str) -> float:
        word = cell.strip()
        if word in labels:
            return labels[word]
        truth = word.lower()
        if truth in booleans:
            return booleans[truth]
        return numbers[BOOLEANS[truth] if truth in BOOLEANS else float(word)]

    return convert


def labels_hint(words: Sequence[str]) -> str:
    """What to write so that labels have numbers."""
    shown = [shortened(word) for word in sorted(words)[:EXAMPLES]]  # no before yes, False before True
    if len(words) == 2:
        two = f"data.labels: {{{shown[0]}: 0, {shown[1]}: 1}}"
        return f"write what they stand for, {two} (for logistic −1 and 1)"
    more = ", …" if len(words) > EXAMPLES else ""
    numbered = ", ".join(f"{word}: {i}" for i, word in enumerate(shown))
    return f"write what they stand for, data.labels: {{{numbered}{more}}}"


class _Reader:
    """One pass over the rows: quick while they are as they should be, cell by cell where one is not."""

    def __init__(self, name: str, columns: Sequence[Column], delimiter: str) -> None:
        words = {character: word for word, character in DELIMITERS.items()}
        self.name, self.columns, self.delimiter = name, columns, words.get(delimiter, delimiter)
        self.faults = Faults()
        self.more = 0
        self.uneven = 0  # rows with more or fewer cells than the header
        self.underscore = False  # in the lines of this row: float() reads 1_000
        self.lines: list[str] = []  # those of this row
        self.line = 1  # where it began

    def read(self, lines: Iterable[str]) -> Array:
        reader = csv.reader(
            self.watched(lines), strict=True, delimiter=DELIMITERS.get(self.delimiter, self.delimiter)
        )
        numbers = array("d")
        count = 0
        try:
            header = [cell.strip() for cell in next(reader, [])]
            self.next_row()
            cells = self.find(header)
            for row in reader:
                if row:  # no blank line
                    count += 1
                    try:
                        values = [cell.convert(row[cell.place]) for cell in cells]
                        sound = len(row) == len(header) and not self.underscore and math.isfinite(sum(values))
                    except (ValueError, IndexError, KeyError):
                        values, sound = [], False
                    if not sound:
                        values = self.inspect(row, header, cells, count)
                    numbers.extend(values)
                self.next_row()
        except csv.Error as error:
            raise Refused([self.broken(error)]) from None
        if count == 0:
            got = f"expected rows below the header of {self.name}, got none"
            self.faults.append(Fault(("file",), got, "csv-header"))
        for cell in cells:
            self.tell(cell, count - self.uneven)
        if self.more:
            self.faults.append(
                Fault(("file",), f"{self.name}: and {self.more} more such faults", "csv-number")
            )
        self.faults.refuse()
        return np.frombuffer(numbers, dtype=np.float64).reshape(count, len(self.columns))

    def watched(self, lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            if "_" in line:
                self.underscore = True
            self.lines.append(line)
            yield line

    def next_row(self) -> None:
        self.line += len(self.lines)
        self.lines.clear()
        self.underscore = False

    def broken(self, error: csv.Error) -> Fault:
        """A break of CSV's rules; of a quote that does not close, the line where it opened."""
        opened = None
        for number, line in enumerate(self.lines, self.line):
            for _ in range(line.count('"')):
                opened = None if opened is not None else number
        at, what = (self.line + len(self.lines) - 1, str(error)) if opened is None else (opened, "")
        unclosed = 'a quote " opens here and does not close'
        return Fault(("file",), f"{self.name}, line {at}: {what or unclosed}", "csv-syntax")

    def find(self, header: list[str]) -> list[_Cells]:
        """How each column is read; of one that is not there a fault, and the others are read all the same."""
        if not any(header):
            got = f"expected a header of column names in {self.name}, got nothing"
            raise Refused([Fault(("file",), got, "csv-header")])
        seen = next((word for word, c in DELIMITERS.items() if c != " " and c in header[0]), None)
        if len(header) == 1 and seen not in (None, self.delimiter):
            got = f"got the one column {shortened(header[0])!r}: write data.delimiter: {seen}"
            wanted = f"expected columns separated by {self.delimiter}s in {self.name}"
            raise Refused([Fault(("file",), f"{wanted}, {got}", "csv-delimiter")])
        found = []
        for column in self.columns:
            times = header.count(column.name.strip())
            if times == 0:
                message = f"no column {describe(column.name)} in {self.name}{suggestion(column.name, header)}"
                self.faults.append(Fault(column.place, message, "column-missing"))
            elif times > 1:
                message = f"expected one column {describe(column.name)} in {self.name}, got {times}"
                self.faults.append(Fault(column.place, message, "column-repeated"))
            else:
                convert = float if column.labels is None else labelled(column.labels)
                found.append(_Cells(column, header.index(column.name.strip()), convert))
        return found

    def inspect(self, row: list[str], header: list[str], cells: list[_Cells], count: int) -> list[float]:
        """The numbers of a row, unless something is wrong with them."""
        last = self.line + len(self.lines) - 1
        lines = f"line {self.line}" if last == self.line else f"lines {self.line} to {last}, in quotes"
        where = f"row {count} ({lines})"
        if len(row) != len(header):
            self.uneven += 1
            message = f"{self.name}, {where}: expected {len(header)} cells as in the header, got {len(row)}"
            self.report(Fault(("file",), message, "csv-row"))
            return []
        values = []
        for cell in cells:
            text = row[cell.place]
            if cell.convert is float and count == 1 and text.strip().lower() in BOOLEANS:
                cell.convert = _boolean
            try:
                if cell.convert is float and not _DECIMAL.fullmatch(text):
                    raise ValueError
                value = cell.convert(text)
                if not math.isfinite(value):
                    raise ValueError
                values.append(value)
            except (ValueError, KeyError):
                cell.refuse(where, text)
        return values if len(values) == len(cells) else []

    def tell(self, cell: _Cells, rows: int) -> None:
        """What is wrong with a column: of one of words alone a line for them, of another one each cell."""
        column = cell.column
        name = f"column {describe(column.name)}"
        wrong, count, expected = cell.wrong, cell.count, cell.expected
        if cell.count == rows > 1 and 2 * cell.others < cell.count:
            wrong, count, words = cell.other, cell.others, list(cell.words)
            shown = ", ".join(map(repr, words[:EXAMPLES])) + (", …" if len(words) > EXAMPLES else "")
            id, hint = "labels", f"expected {expected}, got {shown}"
            if column.labels is None and column.place == ("y",):
                hint = f"expected numbers, got {shown}: {labels_hint(words)}"
            elif column.labels is None:
                id, remedy = "csv-text", "write one column of 0 and 1 for each word"
                hint = f"expected numbers, got {shown}: {remedy}"
            self.faults.append(Fault(column.place, f"{self.name}, {name}: {hint}", id))
            expected = "a word as in the other rows" if column.labels is None else expected
        elif cell.count == rows > 1 and column.labels is None and _alike(wrong):
            shown = dict.fromkeys(_quoted(text) for _, text in wrong)
            cells = ", ".join([*shown][:EXAMPLES]) + (", …" if len(shown) > EXAMPLES else "")
            message = f"{self.name}, column {describe(column.name)}: expected {expected}, got {cells}"
            self.report(Fault(column.place, f"{message}{_remedy(wrong[0][1])}, in every row", "csv-number"))
            return
        for where, text in wrong:
            message = f"{self.name}, {where}, {name}: expected {expected}, got {_quoted(text)}{_remedy(text)}"
            id = "csv-number" if column.labels is None else "labels"
            self.report(Fault(column.place, message, id))
        self.more += count - len(wrong)

    def report(self, fault: Fault) -> None:
        if len(self.faults) < MAX_REPORTED:
            self.faults.append(fault)
        else:
            self.more += 1


def _quoted(text: str) -> str:
    return repr(shortened(text, LONGEST_CELL)) if text.strip() else "nothing"


def _alike(wrong: list[tuple[str, str]]) -> bool:
    """All of them are of one kind that has a remedy."""
    remedies = {_remedy(text) for _, text in wrong}
    return len(remedies) == 1 and "" not in remedies


def _remedy(text: str) -> str:
    """What to write in place of such a cell."""
    return next((f" ({words})" for looks, words in REMEDIES if looks.fullmatch(text.lower())), "")


def _is_word(text: str) -> bool:
    return bool(re.search(r"[^\W\d_]", text)) and text.strip().lower() not in ABSENT
