"""Arrays that no memory has to hold: rows in many files, read some at a time in one order.

The shards of a pattern, or of a folder, are taken in the order of their names: .npz files, .parquet files,
or folders of .npy files, one array a file.  Their rows are numbered through, so that nothing depends on where
one file ends and the next begins.  Arrays that lie in a file as they are (.npy, uncompressed .npz) are read
at their place; what has to be decoded (Parquet, compressed .npz) comes batch by batch, one batch ahead.

A shard is held to what it was when it was opened: one that is gone, shorter or changed since is refused by
its name, and nothing that was read of it is used.  Checksums are held where a file has them: those of arrays
that lie in a .npz file as they are once, when it is opened, those of what is decoded whenever it is.  Arrays
that nobody asks for are not looked at.
"""

from __future__ import annotations

import glob
import math
import os
import stat
import threading
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from resnet_cert.numerics.threads import in_order
from resnet_cert.outcomes import Diagnostic, RequestError

AnyArray = npt.NDArray[Any]
Form = tuple[np.dtype[Any], tuple[int, ...]]
"""dtype and shape of an array."""
Columns = str | Sequence[str]
"""The name of an array, or a list of those that stand beside each other as columns."""
Label = Callable[[str], float]
"""The number of a label.  Raises: ValueError, saying what was expected, for a word that is none."""

BATCH_BYTES = 2**24
"""About so many bytes of Parquet are decoded at a time."""
LEAST_ROWS = 1024
READ_BYTES = 2**25
"""How far ahead the system is asked to read."""
PAGE_BYTES = 2**20
"""So many bytes are read at a time of what is not kept: for a checksum, or for one column of Parquet."""
MOST_NAMES = 3
"""So many files that are no shards are named."""


@dataclass(frozen=True)
class State:
    """A file as it was when it was opened.

    here: when its inode was last changed, as this process saw it first.  It gives away a change under the
    same size and time, but is not sent along: another machine may tell another time of the same file.  The
    inode's own number says nothing more, and some file systems make it up anew.
    """

    path: Path
    name: str
    size: int
    modified: int
    here: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    def __reduce__(self) -> Any:
        return State, (self.path, self.name, self.size, self.modified)

    @staticmethod
    def of(path: Path, name: str) -> State:
        try:
            seen = os.stat(path)
        except OSError as error:
            raise _gone(name, error) from None
        if not (stat.S_ISREG(seen.st_mode) or stat.S_ISDIR(seen.st_mode)):  # a pipe would be waited for
            raise _damaged(name, "expected an ordinary file")
        return State(path, name, seen.st_size, seen.st_mtime_ns, {"changed": seen.st_ctime_ns})

    def require_unchanged(self) -> None:
        """Raises: RequestError, if it is not that file any more."""
        now = State.of(self.path, self.name)
        first = self.here.setdefault("changed", now.here["changed"])
        if now != self or now.here["changed"] != first:
            sizes = f"{self.size} bytes, got {now.size}" if now.size != self.size else "the same contents"
            raise _changed(self.name, f"expected {sizes}")

    @contextmanager
    def reading(self) -> Iterator[int]:
        """A descriptor of the file, which must still be that one when all is read.

        Raises: RequestError, if it is not, or cannot be read.
        """
        try:
            handle = os.open(self.path, os.O_RDONLY)
            try:
                yield handle
            finally:
                os.close(handle)
        except OSError as error:
            raise _gone(self.name, error) from None
        self.require_unchanged()

    def fill(self, handle: int, view: memoryview, place: int) -> None:
        """The bytes from a place on.  Raises: RequestError, if there are fewer."""
        while len(view):
            got = os.preadv(handle, [view], place)
            if not got:
                raise _damaged(self.name, "it ends before its last row")
            view, place = view[got:], place + got


def _changed(name: str, how: str) -> RequestError:
    return RequestError(f"shard {name} changed while it was in use: {how}", "file-unreadable")


def _gone(name: str, error: OSError) -> RequestError:
    id = "file-missing" if isinstance(error, FileNotFoundError) else "file-unreadable"
    return RequestError(f"cannot read shard {name}: {error.strerror or error}", id)


def _damaged(name: str, why: Any) -> RequestError:
    return RequestError(f"cannot read shard {name}: {why}", "file-unreadable")


@dataclass(frozen=True)
class Stored:
    """An array that lies in a file as it is from an offset on, row by row, or column by column (Fortran)."""

    state: State
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    offset: int

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)

    def rows(self, start: int, stop: int) -> AnyArray:
        n, *rest = self.shape
        columns = math.prod(rest) if self.fortran else 1
        row = self.dtype.itemsize * math.prod(rest) // max(columns, 1)
        into = np.empty((columns, (stop - start) * row), np.uint8)
        with self.state.reading() as handle:
            for i, part in enumerate(into):
                place = self.offset + (i * n + start) * row
                self.state.fill(handle, part.data, place)
                if hasattr(os, "posix_fadvise"):
                    ahead = min(part.nbytes, READ_BYTES)
                    os.posix_fadvise(handle, place + part.nbytes, ahead, os.POSIX_FADV_WILLNEED)
        values = into.reshape(-1).view(self.dtype)
        if not self.fortran:
            return values.reshape(stop - start, *rest)
        return np.ascontiguousarray(values.reshape(*rest[::-1], stop - start).T)


class Shard(Protocol):
    """One of the files: the forms of its arrays, and their rows."""

    @property
    def state(self) -> State: ...

    @property
    def names(self) -> Collection[str]:
        """Of all arrays that there are."""
        ...

    def called(self, name: str) -> str:
        """What messages call an array."""
        ...

    def form(self, name: str) -> Form:
        """Raises: RequestError, if there is no such array."""
        ...

    def verify(self, name: str) -> None:
        """Raises: RequestError, if a stored array is not what its checksum says."""
        ...

    def stored(self, name: str) -> Stored | None:
        """The array, if it lies in the file as it is."""
        ...

    def batches(self, names: Sequence[str], start: int) -> Iterator[tuple[int, dict[str, AnyArray]]]:
        """Decoded arrays with the number of their first row, from a batch that holds row `start` on."""
        ...


@dataclass(frozen=True)
class Member:
    """An array in a .npz file: its header and its values, `size` bytes of which the CRC-32 is `crc`.

    place: where they begin, if they lie in the file as they are.
    values: the array as if it began there.
    """

    values: Stored
    size: int
    crc: int
    place: int | None


@dataclass(frozen=True)
class NpzShard:
    """names: of all arrays; arrays: those that are asked for."""

    state: State
    names: tuple[str, ...]
    arrays: Mapping[str, Member]

    @staticmethod
    def open(path: Path, name: str, wanted: Collection[str]) -> NpzShard:
        state, arrays = State.of(path, name), {}
        try:
            with zipfile.ZipFile(path) as archive, open(path, "rb") as raw:
                names = tuple(one[:-4] for one in archive.namelist() if one.endswith(".npy"))
                for array in dict.fromkeys(names):
                    if array in wanted:
                        arrays[array] = _member(archive, raw, array, state)
        except (RequestError, MemoryError):
            raise
        except OSError as error:
            raise _gone(name, error) from None
        except Exception as error:  # zlib's, zipfile's, NumPy's: whatever a damaged file makes them raise
            raise _damaged(name, error) from None
        return NpzShard(state, names, arrays)

    def called(self, name: str) -> str:
        return _array(self, name)

    def form(self, name: str) -> Form:
        if name not in self.arrays:
            raise _absent(self.state.name, name, self.names)
        return self.arrays[name].values.dtype, self.arrays[name].values.shape

    def verify(self, name: str) -> None:
        member = self.arrays[name]
        if member.place is None:
            return
        found, page = 0, memoryview(bytearray(min(member.size, PAGE_BYTES)))
        with self.state.reading() as handle:
            for done in range(0, member.size, PAGE_BYTES):
                part = page[: member.size - done]
                self.state.fill(handle, part, member.place + done)
                found = zlib.crc32(part, found)
        if found != member.crc:
            sums = f"expected the CRC-32 {member.crc:08x} that the file gives, got {found:08x}"
            raise _damaged(self.state.name, f"array {name!r} is damaged: {sums}; copy or write the file anew")

    def stored(self, name: str) -> Stored | None:
        member = self.arrays[name]
        return None if member.place is None else member.values

    def batches(self, names: Sequence[str], start: int) -> Iterator[tuple[int, dict[str, AnyArray]]]:
        try:
            with zipfile.ZipFile(self.state.path) as archive:
                arrays = {name: _read(archive, name) for name in names}
        except MemoryError:
            raise
        except OSError as error:
            raise _gone(self.state.name, error) from None
        except Exception as error:  # as above
            raise _damaged(self.state.name, error) from None
        self.state.require_unchanged()
        yield 0, arrays


def _member(archive: zipfile.ZipFile, raw: Any, array: str, state: State) -> Member:
    info = archive.getinfo(f"{array}.npy")
    with archive.open(info) as file:
        dtype, shape, fortran, header = _header(file)
    packed = info.compress_type != zipfile.ZIP_STORED
    place = None if packed else _contents(raw, info.header_offset)
    values = Stored(state, dtype, shape, fortran, (place or 0) + header)
    if not dtype.hasobject and info.file_size < header + values.nbytes:
        raise _damaged(state.name, f"array {array!r} ends before its last row")
    return Member(values, info.file_size, info.CRC, place)


def _read(archive: zipfile.ZipFile, name: str) -> AnyArray:
    with archive.open(f"{name}.npy") as file:
        array = npy.read_array(file, allow_pickle=False)
        while file.read(PAGE_BYTES):  # to its end, where zipfile looks at the checksum
            pass
    return array


def _header(file: Any) -> tuple[np.dtype[Any], tuple[int, ...], bool, int]:
    """dtype, shape, Fortran order and length of the header of an open .npy file."""
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return dtype, shape, fortran and len(shape) > 1, file.tell()


def _contents(raw: Any, header_offset: int) -> int:
    """Where a member's bytes begin: behind its local header, whose names' lengths stand at 26 and 28."""
    raw.seek(header_offset + 26)
    lengths = raw.read(4)
    if len(lengths) < 4:
        raise EOFError("it ends in the header of an array")
    return header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")


@dataclass(frozen=True)
class FolderShard:
    """A folder of .npy files, one array each.  names: of all; arrays: those that are asked for."""

    state: State
    names: tuple[str, ...]
    arrays: Mapping[str, Stored]

    @staticmethod
    def open(path: Path, name: str, wanted: Collection[str]) -> FolderShard:
        names = tuple(file.stem for file in npy_files(path))
        arrays = {}
        for array in names:
            if array not in wanted:
                continue
            file = path / f"{array}.npy"
            state = State.of(file, f"{name}/{file.name}")
            try:
                with open(file, "rb") as handle:
                    dtype, shape, fortran, header = _header(handle)
            except OSError as error:
                raise _gone(state.name, error) from None
            except Exception as error:  # NumPy's parser's: whatever a damaged header makes it raise
                raise _damaged(state.name, error) from None
            arrays[array] = values = Stored(state, dtype, shape, fortran, header)
            if not dtype.hasobject and state.size < header + values.nbytes:
                wants = f"expected {header + values.nbytes} bytes, got {state.size}"
                raise _damaged(state.name, wants)
        return FolderShard(State.of(path, name), names, arrays)

    def called(self, name: str) -> str:
        return _array(self, name)

    def form(self, name: str) -> Form:
        if name not in self.arrays:
            raise _absent(self.state.name, name, self.names, "file-missing")
        return self.arrays[name].dtype, self.arrays[name].shape

    def verify(self, name: str) -> None:
        """.npy files have no checksums."""

    def stored(self, name: str) -> Stored | None:
        return self.arrays[name]

    def batches(self, names: Sequence[str], start: int) -> Iterator[tuple[int, dict[str, AnyArray]]]:
        rows = self.arrays[names[0]].shape[0]
        size = max(1, BATCH_BYTES // sum(max(1, self.arrays[name].nbytes // rows) for name in names))
        for first in range(start, rows, size):
            stop = min(first + size, rows)
            yield first, {name: self.arrays[name].rows(first, stop) for name in names}


@dataclass(frozen=True)
class ParquetShard:
    """Columns of numbers or words, of lists of them of one length, or of lists of such lists, laid flat.

    groups: the first row of each row group, and the number of all rows.
    """

    state: State
    names: tuple[str, ...]
    groups: tuple[int, ...]

    @staticmethod
    def open(path: Path, name: str) -> ParquetShard:
        state = State.of(path, name)
        with _parquet(state) as file:
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            names = tuple(file.schema_arrow.names)
        return ParquetShard(state, names, tuple(np.cumsum([0, *sizes]).tolist()))

    def called(self, name: str) -> str:
        return f"column {name!r} of shard {self.state.name}"

    def form(self, name: str) -> Form:
        if name not in self.names:
            raise _absent(self.state.name, name, self.names)
        for _, arrays in self.batches([name], 0, most=0):
            dtype = np.dtype(str) if arrays[name].dtype.hasobject else arrays[name].dtype
            return dtype, (self.groups[-1], *arrays[name].shape[1:])
        return np.dtype(float), (0,)

    def verify(self, name: str) -> None:
        """Each page, when it is decoded."""

    def stored(self, name: str) -> Stored | None:
        return None

    def batches(
        self, names: Sequence[str], start: int, most: int | None = None
    ) -> Iterator[tuple[int, dict[str, AnyArray]]]:
        """most: about so many bytes at a time, BATCH_BYTES by default, and no fewer than LEAST_ROWS."""
        group = max(i for i, first in enumerate(self.groups[:-1] or (0,)) if first <= start)
        row = self.groups[group]
        with _parquet(self.state) as file:
            sizes = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
            bytes_a_row = max((g.total_byte_size // max(g.num_rows, 1) for g in sizes), default=1)
            rows = max(LEAST_ROWS, (BATCH_BYTES if most is None else most) // max(bytes_a_row, 1))
            groups = range(group, file.num_row_groups)
            for batch in file.iter_batches(rows, row_groups=groups, columns=list(names)):
                self.state.require_unchanged()
                yield row, {name: self._values(batch.column(name), name, row) for name in names}
                row += batch.num_rows

    def _values(self, column: Any, name: str, first: int) -> AnyArray:
        """(m, ...) of a column's numbers or words, those of lists in one row."""
        import pyarrow.compute as compute  # pyright: ignore[reportMissingImports]

        where, rows, width, kind = self.called(name), len(column), 1, column.type
        column = _plain(column)
        is_list = _is(column, *LISTS)
        while True:
            if column.null_count:
                row = first + int(np.flatnonzero(np.asarray(column.is_null()))[0]) // width + 1
                raise RequestError(f"{where}: expected a number in row {row}, got none", "not-finite")
            if not _is(column, *LISTS):
                break
            lengths = np.asarray(compute.call_function("list_value_length", [column]))
            odd = np.flatnonzero(lengths != lengths[0])
            if odd.size:
                found = f"lists of one length {lengths[0]}, got {lengths[odd[0]]} in row"
                raise RequestError(f"{where}: expected {found} {first + odd[0] // width + 1}", "ragged-rows")
            width *= int(lengths[0])
            column = _plain(column.flatten())
        if not _is(column, *NUMBERS, *WORDS):
            raise RequestError(f"{where}: expected real numbers, got {column.type}", "array-type")
        values = column.to_numpy(zero_copy_only=False)
        turned = getattr(kind, "permutation", None)  # of a tensor whose axes lie in another order
        if turned:
            values = values.reshape(rows, *kind.shape).transpose(0, *(1 + axis for axis in turned))
        return values.reshape(rows, width) if is_list else values


LISTS = ("list", "large_list", "fixed_size_list", "list_view", "large_list_view")
NUMBERS = ("floating", "integer", "boolean")
WORDS = ("string", "large_string", "string_view")


def _is(column: Any, *kinds: str) -> bool:
    """Whether a column is of one of some kinds, which older versions of pyarrow do not all have."""
    import pyarrow as arrow  # pyright: ignore[reportMissingImports]

    return any(getattr(arrow.types, f"is_{kind}", lambda _: False)(column.type) for kind in kinds)


def _plain(column: Any) -> Any:
    """The column without a dictionary, or a type of somebody's own, around it."""
    import pyarrow as arrow  # pyright: ignore[reportMissingImports]

    if isinstance(column, arrow.ExtensionArray):
        column = column.storage
    return column.dictionary_decode() if _is(column, "dictionary") else column


@contextmanager
def _parquet(state: State) -> Iterator[Any]:
    """An open Parquet file that fetches its pages when they are decoded, and holds them to their checksums.

    Raises: RequestError, if it cannot be read, or pyarrow is not there.
    """
    try:
        import pyarrow.parquet as parquet  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise RequestError(
            f"{state.name} needs the package pyarrow: pip install 'resnet-cert[parquet]'", "needs-package"
        ) from None
    try:
        with parquet.ParquetFile(
            state.path, buffer_size=PAGE_BYTES, pre_buffer=False, page_checksum_verification=True
        ) as file:
            yield file
    except (RequestError, MemoryError):
        raise
    except OSError as error:
        raise _gone(state.name, error) from None
    except Exception as error:  # pyarrow's own, of any kind
        raise _damaged(state.name, error) from None


def _array(shard: Shard, name: str) -> str:
    return f"array {name!r} in shard {shard.state.name}"


def _absent(shard: str, name: str, names: Any, id: str = "array-missing") -> RequestError:
    there = ", ".join(map(repr, names)) or "none"
    return RequestError(f"no array {name!r} in shard {shard}; there are {there}", id)


def _require_numbers(where: str, dtype: np.dtype[Any], *, labelled: bool) -> None:
    """Raises: RequestError, unless it is one of numbers, or of words that have labels."""
    if dtype.kind in "iufb" or (labelled and dtype.kind == "U"):
        return
    got = "words; data.labels gives those of y their numbers" if dtype.kind == "U" else dtype
    raise RequestError(f"{where}: expected real numbers, got {got}", "array-type")


class Window:
    """Decoded batches around the rows that are asked for, and the next one on its way.

    Rows are asked for in order, those of every array before the next ones; going back starts anew.
    """

    def __init__(self, shards: Sequence[tuple[int, Shard]], names: Sequence[str]) -> None:
        """shards: each with the number of its first row."""
        self._shards, self.names, self._lock = shards, names, threading.Lock()
        self._held: list[tuple[int, dict[str, AnyArray]]] = []
        self._source: Iterator[tuple[int, dict[str, AnyArray]]] = iter(())
        self._ahead: Future[tuple[int, dict[str, AnyArray]] | None] | None = None
        self._thread: ThreadPoolExecutor | None = None

    def __reduce__(self) -> Any:
        return Window, (self._shards, self.names)

    def rows(self, name: str, start: int, stop: int) -> AnyArray:
        """Rows of an array, start < stop."""
        with self._lock:
            if not self._held or start < self._held[0][0]:
                self._restart(start)
            while not self._held or self._end(self._held[-1]) < stop:
                self._held.append(self._next())
                self._held = [batch for batch in self._held if self._end(batch) > start]
            self._held = [batch for batch in self._held if self._end(batch) > start]
            parts = [
                arrays[name][max(start - first, 0) : stop - first]
                for first, arrays in self._held
                if first < stop
            ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _end(self, batch: tuple[int, dict[str, AnyArray]]) -> int:
        return batch[0] + len(batch[1][self.names[0]])

    def _restart(self, start: int) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "read-ahead")
        if self._ahead is not None:
            self._ahead.exception()  # let it end: its iterator is left behind
        self._held, self._source = [], self._from(start)
        self._ahead = self._thread.submit(next, self._source, None)

    def _next(self) -> tuple[int, dict[str, AnyArray]]:
        assert self._ahead is not None
        assert self._thread is not None
        batch = self._ahead.result()
        if batch is None:
            raise RequestError("the shards have fewer rows than when they were opened", "file-unreadable")
        self._ahead = self._thread.submit(next, self._source, None)
        return batch

    def _from(self, start: int) -> Iterator[tuple[int, dict[str, AnyArray]]]:
        for i, (first, shard) in enumerate(self._shards):
            if i + 1 < len(self._shards) and self._shards[i + 1][0] <= start:
                continue
            for row, arrays in shard.batches(self.names, max(start - first, 0)):
                yield first + row, arrays


class UnreadRows(RequestError):
    """Rows that could not be had when they were asked for, though their shards could be opened."""


@dataclass(frozen=True)
class ShardedRows:
    """The rows of one array, or of columns beside each other, through all shards: `problem.Rows`.

    parts: (number of its first row, shard) in order.
    label: what makes numbers of the words or numbers in the files.
    """

    parts: tuple[tuple[int, Shard], ...]
    columns: str | tuple[str, ...]
    shape: tuple[int, ...]
    window: Window = field(compare=False, repr=False)
    label: Label | None = None

    def __getitem__(self, rows: slice, /) -> AnyArray:
        start, stop, step = rows.indices(self.shape[0])
        if step != 1:
            raise ValueError(f"expected consecutive rows, got the step {step}")
        if start >= stop:
            return np.empty((0, *self.shape[1:]))
        try:
            return self._rows(start, stop)
        except RequestError as error:
            raise UnreadRows(error.diagnostics) from None

    def _rows(self, start: int, stop: int) -> AnyArray:
        if isinstance(self.columns, str):
            column = self._column(self.columns, start, stop)
            return column.reshape(stop - start, -1) if column.ndim > 2 else column
        columns = [self._column(name, start, stop).reshape(stop - start, -1) for name in self.columns]
        return columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1)

    def _column(self, name: str, start: int, stop: int) -> AnyArray:
        pieces = []
        for i, (first, shard) in enumerate(self.parts):
            end = self.parts[i + 1][0] if i + 1 < len(self.parts) else self.shape[0]
            low, high = max(start, first), min(stop, end)
            if low >= high:
                continue
            stored = None if name in self.window.names else shard.stored(name)
            if stored is None:
                piece = self.window.rows(name, low, high)
            else:
                piece = stored.rows(low - first, high - first)
            if self.label is not None:
                piece = _labelled(piece, self.label, shard.called(name), low - first)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


class _Numbers(dict[Any, float]):
    """The number of each word, found once."""

    def __init__(self, label: Label) -> None:
        self.label = label

    def __missing__(self, word: Any) -> float:
        self[word] = number = self.label(str(word))
        return number


def _labelled(values: AnyArray, label: Label, where: str, first: int) -> AnyArray:
    """The numbers of labels, the first of which stand in the row `first` of a shard.

    Raises: RequestError, naming the row of a word that is none.
    """
    numbers, words = _Numbers(label), values.ravel().tolist()
    try:
        return np.fromiter(map(numbers.__getitem__, words), float, len(words)).reshape(values.shape)
    except ValueError as error:
        at = next(i for i, word in enumerate(words) if word not in numbers)
        row = first + at * len(values) // len(words) + 1
        raise RequestError(f"{where}, row {row}: {error}", "labels") from None


def open_shards(
    folder: Path,
    pattern: str,
    wanted: Mapping[str, Columns],
    *,
    labels: Mapping[str, Label] | None = None,
    optional: Collection[str] = (),
) -> dict[str, ShardedRows]:
    """The arrays of all shards under a pattern, or in a folder, by the keys of `wanted`.

    Args:
        wanted: the name of an array, as it is, or a list of names of columns, (n, ·), for each key.
        labels: for the keys whose words, or numbers, stand for others.
        optional: keys that are left out where no shard has what they name.
    Raises:
        RequestError: for shards that are missing, damaged, or do not fit each other: all of them.
    """
    faults: list[Diagnostic] = []
    shards: list[Shard] = []
    columns = {key: words if isinstance(words, str) else tuple(words) for key, words in wanted.items()}
    asked = _names(columns)
    for path in shard_paths(folder, pattern):
        try:
            shards.append(_opened(path, shard_name(path, folder, pattern), asked))
        except RequestError as error:
            faults += error.diagnostics
    there = {name for shard in shards for name in shard.names}
    columns = {key: group for key, group in columns.items() if key not in optional or there & {*_of(group)}}
    labels, names = labels or {}, _names(columns)
    numbers = _names({key: group for key, group in columns.items() if key not in labels})
    starts, total = [0], 0
    widths: dict[str, tuple[str, tuple[int, ...]]] = {}
    for shard in shards:
        try:
            forms = {name: shard.form(name) for name in names}
            for name, (dtype, _) in forms.items():
                _require_numbers(shard.called(name), dtype, labelled=name not in numbers)
            shapes = {name: shape for name, (_, shape) in forms.items()}
            total += _rows(shard, shapes, widths)
        except RequestError as error:
            faults += error.diagnostics
        starts.append(total)
    spans = zip(starts, shards, starts[1:], strict=False)
    parts = tuple((start, shard) for start, shard, end in spans if end > start)
    if not faults and not parts:
        raise RequestError(f"no rows in the shards under {pattern}: expected samples", "shape")
    arrays = [(shard, name) for _, shard in parts for name in names]
    for found in in_order(_damage, arrays, len(arrays)):
        faults += found
    if faults:
        raise RequestError(faults)
    packed = [name for name in names if any(shard.stored(name) is None for _, shard in parts)]
    window = Window(parts, packed)
    shapes = {key: (total, *_width(group, widths)) for key, group in columns.items()}
    return {
        key: ShardedRows(parts, group, shapes[key], window, labels.get(key)) for key, group in columns.items()
    }


def _of(group: str | tuple[str, ...]) -> tuple[str, ...]:
    return (group,) if isinstance(group, str) else group


def _names(columns: Mapping[str, str | tuple[str, ...]]) -> tuple[str, ...]:
    """Each name once."""
    return tuple(dict.fromkeys(name for group in columns.values() for name in _of(group)))


def _rows(
    shard: Shard,
    shapes: Mapping[str, tuple[int, ...]],
    widths: dict[str, tuple[str, tuple[int, ...]]],
) -> int:
    """How many rows a shard has.

    Args:
        widths: where each array was seen first, and the shape of its rows; those of this shard are added, if
            it has any.
    Raises:
        RequestError: its arrays do not fit each other, or the shards before it.
    """
    rows = {shape[0] if shape else 0 for shape in shapes.values()}
    if len(rows) > 1:
        told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise RequestError(
            f"shard {shard.state.name}: expected as many rows in each array, got {told}", "shape"
        )
    for name, shape in shapes.items() if rows != {0} else ():
        where, width = widths.setdefault(name, (shard.state.name, shape[1:]))
        if width != shape[1:]:
            raise RequestError(
                f"shard {shard.state.name}: expected {name} of the shape "
                f"({', '.join(map(str, ('·', *width)))}) as in {where}, got {shape}",
                "shape",
            )
    return rows.pop()


def _damage(array: tuple[Shard, str]) -> tuple[Diagnostic, ...]:
    shard, name = array
    try:
        shard.verify(name)
    except RequestError as error:
        return tuple(error.diagnostics)
    return ()


def _width(
    group: str | tuple[str, ...], widths: Mapping[str, tuple[str, tuple[int, ...]]]
) -> tuple[int, ...]:
    """The shape of a row: of an array's, or of columns beside each other."""
    shapes = [widths[name][1] for name in _of(group)]
    if isinstance(group, str) and len(shapes[0]) < 2:
        return shapes[0]
    return (sum(map(math.prod, shapes)),)


def _opened(path: Path, name: str, wanted: Collection[str]) -> Shard:
    if path.is_dir():
        return FolderShard.open(path, name, wanted)
    parquet = path.suffix.lower() == ".parquet"
    return ParquetShard.open(path, name) if parquet else NpzShard.open(path, name, wanted)


def shard_paths(folder: Path, pattern: str) -> list[Path]:
    """The shards in the order of their names: the one of this name, those in the folder of this name, or all
    under the pattern, in which ** stands for folders of any depth.  What is hidden is none.

    Raises:
        RequestError: there is none.
    """
    place = folder / pattern
    if place.exists() and _is_shard(place):
        return [place]
    if place.is_dir():
        found = {*_visible(place)}
    else:
        found = {folder / name for name in glob.glob(pattern, root_dir=folder, recursive=True)}
    shards = [path for path in found if _is_shard(path)]
    if not shards:
        told = _instead(sorted(found), folder, pattern)
        raise RequestError(f"no shards under {pattern}: {told}", "file-missing")
    return sorted(shards, key=lambda path: path.as_posix())


def _instead(found: Sequence[Path], folder: Path, pattern: str) -> str:
    """What was expected, what is there instead of shards, and what to do."""
    wanted = "expected .npz or .parquet files, or folders of .npy files"
    is_folder = (folder / pattern).is_dir()
    if not found:
        nothing = "nothing of this name: a pattern begins in the spec's folder"
        return f"{wanted}, got {'a folder without any' if is_folder else nothing}"
    more = f" and {len(found) - MOST_NAMES} more" if len(found) > MOST_NAMES else ""
    got = f"got {', '.join(path.name for path in found[:MOST_NAMES])}{more}"
    if any(path.is_dir() for path in found):
        deep = (Path(pattern) if is_folder else Path(pattern).parent) / "**" / "*.npz"
        return f"{wanted}, {got}: name those further down as {deep.as_posix()}"
    return f"{wanted}, {got}: save their arrays as one of these"


def shard_name(path: Path, folder: Path, pattern: str) -> str:
    """The name of a shard as the pattern has it: from the folder, or from the root of the file system."""
    return (path if Path(pattern).is_absolute() else path.relative_to(folder)).as_posix()


def shard_files(folder: Path, pattern: str) -> list[Path]:
    """The ordinary files that the shards are read from.

    Raises:
        RequestError: there is none.
    """
    found = ([*npy_files(path)] if path.is_dir() else [path] for path in shard_paths(folder, pattern))
    return [file for files in found for file in files]


def npy_files(folder: Path) -> list[Path]:
    """The arrays of a shard that is a folder."""
    return sorted(path for path in _visible(folder) if path.suffix == ".npy")


def rows_by_shard(rows: ShardedRows) -> dict[str, int]:
    """The shards that have rows, by their names and in their order, and how many each has."""
    ends = [*(first for first, _ in rows.parts[1:]), rows.shape[0]]
    return {shard.state.name: end - first for (first, shard), end in zip(rows.parts, ends, strict=True)}


def shard_of(rows: ShardedRows, row: int) -> str:
    """The name of the shard that a row lies in."""
    return next(shard.state.name for first, shard in reversed(rows.parts) if first <= row)


def _visible(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if not path.name.startswith("."))


def _is_shard(path: Path) -> bool:
    if path.is_dir():
        return bool(npy_files(path))
    return path.suffix.lower() in (".npz", ".parquet")
