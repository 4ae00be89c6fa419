"""Arrays that no memory has to hold: rows in many files, read some at a time in one order.

The shards of a pattern, or of a folder, are taken in the order of their names: .npz files, .parquet files,
or folders of .npy files, one array a file.  Their rows are numbered through, so that nothing depends on where
one file ends and the next begins.  Arrays that lie in a file as they are (.npy, uncompressed .npz) are read
at their place; what has to be decoded (Parquet, compressed .npz) comes batch by batch, one batch ahead.

A shard is held to what it was when it was opened: one that is gone, shorter or changed since is refused by
its name, and nothing that was read of it is used.
"""

from __future__ import annotations

import glob
import os
import stat
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from resnet_cert.outcomes import Diagnostic, RequestError

AnyArray = npt.NDArray[Any]
Columns = str | Sequence[str]
"""The name of an array, or those of columns that stand beside each other."""

BATCH_BYTES = 2**24
"""About so many bytes of Parquet are decoded at a time."""
READ_BYTES = 2**25
"""How far ahead the system is asked to read."""
MOST_NAMES = 3
"""So many files that are no shards are named."""


@dataclass(frozen=True)
class State:
    """A file as it was when it was opened."""

    path: Path
    name: str
    size: int
    modified: int

    @staticmethod
    def of(path: Path, name: str) -> State:
        try:
            seen = os.stat(path)
        except OSError as error:
            raise _gone(name, error) from None
        if not (stat.S_ISREG(seen.st_mode) or stat.S_ISDIR(seen.st_mode)):  # a pipe would be waited for
            raise _damaged(name, "expected an ordinary file")
        return State(path, name, seen.st_size, seen.st_mtime_ns)

    def require_unchanged(self) -> None:
        """Raises: RequestError, if it is not that file any more."""
        now = State.of(self.path, self.name)
        if now != self:
            sizes = f"{self.size} bytes, got {now.size}" if now.size != self.size else "the same contents"
            raise _changed(self.name, f"expected {sizes}")


def _changed(name: str, how: str) -> RequestError:
    return RequestError(f"shard {name} changed while it was in use: {how}", "file-unreadable")


def _gone(name: str, error: OSError) -> RequestError:
    id = "file-missing" if isinstance(error, FileNotFoundError) else "file-unreadable"
    return RequestError(f"cannot read shard {name}: {error.strerror or error}", id)


def _damaged(name: str, why: Any) -> RequestError:
    return RequestError(f"cannot read shard {name}: {why}", "file-unreadable")


@dataclass(frozen=True)
class Stored:
    """An array that lies in a file as it is, in C order, from an offset on."""

    state: State
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))

    def rows(self, start: int, stop: int) -> AnyArray:
        row = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))
        into = np.empty((stop - start, *self.shape[1:]), self.dtype)
        try:
            handle = os.open(self.state.path, os.O_RDONLY)
        except OSError as error:
            raise _gone(self.state.name, error) from None
        try:
            view = memoryview(into.reshape(-1).view(np.uint8))  # pyright: ignore[reportArgumentType]
            place = self.offset + start * row
            while len(view):
                got = os.preadv(handle, [view], place)
                if not got:
                    raise _damaged(self.state.name, "it ends before its last row")
                view, place = view[got:], place + got
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(handle, place, min(into.nbytes, READ_BYTES), os.POSIX_FADV_WILLNEED)
        finally:
            os.close(handle)
        self.state.require_unchanged()
        return into


class Shard(Protocol):
    """One of the files: the shapes of its arrays, and their rows."""

    @property
    def state(self) -> State: ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises: RequestError, if there is no such array of real numbers."""
        ...

    def stored(self, name: str) -> Stored | None:
        """The array, if it lies in the file as it is."""
        ...

    def batches(self, names: Sequence[str], start: int) -> Iterator[tuple[int, dict[str, AnyArray]]]:
        """Decoded arrays with the number of their first row, from a batch that holds row `start` on."""
        ...


@dataclass(frozen=True)
class NpzShard:
    """arrays: (dtype, shape, offset in the file or None where it is packed) by name."""

    state: State
    arrays: Mapping[str, tuple[np.dtype[Any], tuple[int, ...], int | None]]

    @staticmethod
    def open(path: Path, name: str) -> NpzShard:
        state, arrays = State.of(path, name), {}
        try:
            with zipfile.ZipFile(path) as archive, open(path, "rb") as raw:
                for member in archive.infolist():
                    if not member.filename.endswith(".npy"):
                        continue
                    with archive.open(member) as file:
                        dtype, shape, fortran, header = _header(file)
                    packed = member.compress_type != zipfile.ZIP_STORED or (fortran and len(shape) > 1)
                    offset = None if packed else _contents(raw, member.header_offset) + header
                    arrays[member.filename[:-4]] = dtype, shape, offset
        except RequestError:
            raise
        except OSError as error:
            raise _gone(name, error) from None
        except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError) as error:
            raise _damaged(name, error) from None
        return NpzShard(state, arrays)

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self.arrays:
            raise _absent(self.state.name, name, self.arrays)
        dtype, shape, _ = self.arrays[name]
        _require_real(self.state.name, name, dtype)
        return shape

    def stored(self, name: str) -> Stored | None:
        dtype, shape, offset = self.arrays[name]
        return None if offset is None else Stored(self.state, dtype, shape, offset)

    def batches(self, names: Sequence[str], start: int) -> Iterator[tuple[int, dict[str, AnyArray]]]:
        try:
            with zipfile.ZipFile(self.state.path) as archive:
                arrays = {name: _read(archive, name) for name in names}
        except MemoryError:
            raise
        except OSError as error:
            raise _gone(self.state.name, error) from None
        except Exception as error:  # zlib's, zipfile's, NumPy's: whatever a damaged file makes them raise
            raise _damaged(self.state.name, error) from None
        self.state.require_unchanged()
        yield 0, arrays


def _read(archive: zipfile.ZipFile, name: str) -> AnyArray:
    with archive.open(f"{name}.npy") as file:
        return npy.read_array(file, allow_pickle=False)


def _header(file: Any) -> tuple[np.dtype[Any], tuple[int, ...], bool, int]:
    """dtype, shape, Fortran order and length of the header of an open .npy file."""
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return dtype, shape, fortran, file.tell()


def _contents(raw: Any, header_offset: int) -> int:
    """Where a member's bytes begin: behind its local header, whose names' lengths stand at 26 and 28."""
    raw.seek(header_offset + 26)
    lengths = raw.read(4)
    if len(lengths) < 4:
        raise EOFError("it ends in the header of an array")
    return header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")


@dataclass(frozen=True)
class FolderShard:
    """A folder of .npy files, one array each."""

    state: State
    arrays: Mapping[str, Stored]

    @staticmethod
    def open(path: Path, name: str) -> FolderShard:
        arrays = {}
        for file in npy_files(path):
            state = State.of(file, f"{name}/{file.name}")
            try:
                with open(file, "rb") as handle:
                    dtype, shape, fortran, header = _header(handle)
            except (ValueError, EOFError) as error:
                raise _damaged(state.name, error) from None
            if fortran and len(shape) > 1:
                raise _damaged(state.name, "expected rows one after the other (C order), got Fortran's order")
            arrays[file.stem] = array = Stored(state, dtype, shape, header)
            if state.size < header + array.nbytes:
                wanted = f"expected {header + array.nbytes} bytes, got {state.size}"
                raise _damaged(state.name, wanted)
        return FolderShard(State.of(path, name), arrays)

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self.arrays:
            raise _absent(self.state.name, name, self.arrays, "file-missing")
        _require_real(self.state.name, name, self.arrays[name].dtype)
        return self.arrays[name].shape

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
    """Columns of numbers, of lists of numbers of one length, or of lists of such lists, laid flat.

    groups: the first row of each row group, and the number of all rows.
    """

    state: State
    names: tuple[str, ...]
    groups: tuple[int, ...]

    @staticmethod
    def open(path: Path, name: str) -> ParquetShard:
        try:
            import pyarrow.parquet as parquet  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError:
            raise RequestError(
                f"{name} needs the package pyarrow: pip install 'resnet-cert[parquet]'", "needs-package"
            ) from None
        state = State.of(path, name)
        try:
            with parquet.ParquetFile(path) as file:
                sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
                names = tuple(file.schema_arrow.names)
        except MemoryError:
            raise
        except OSError as error:
            raise _gone(name, error) from None
        except Exception as error:  # pyarrow's own, of any kind
            raise _damaged(name, error) from None
        return ParquetShard(state, names, tuple(np.cumsum([0, *sizes]).tolist()))

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self.names:
            raise _absent(self.state.name, name, self.names)
        for _, arrays in self.batches([name], 0):
            return (self.groups[-1], *arrays[name].shape[1:])
        return (0,)

    def stored(self, name: str) -> Stored | None:
        return None

    def batches(self, names: Sequence[str], start: int) -> Iterator[tuple[int, dict[str, AnyArray]]]:
        import pyarrow.parquet as parquet  # pyright: ignore[reportMissingImports]

        group = max(i for i, first in enumerate(self.groups[:-1] or (0,)) if first <= start)
        row, rows = self.groups[group], 1024
        try:
            with parquet.ParquetFile(self.state.path) as file:
                sizes = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
                bytes_a_row = max((g.total_byte_size // max(g.num_rows, 1) for g in sizes), default=1)
                rows = max(1024, BATCH_BYTES // max(bytes_a_row, 1))
                groups = range(group, file.num_row_groups)
                for batch in file.iter_batches(rows, row_groups=groups, columns=list(names)):
                    self.state.require_unchanged()
                    yield row, {name: self._numbers(batch.column(name), name, row) for name in names}
                    row += batch.num_rows
        except (RequestError, MemoryError):
            raise
        except OSError as error:
            raise _gone(self.state.name, error) from None
        except Exception as error:  # pyarrow's own, of any kind
            raise _damaged(self.state.name, error) from None

    def _numbers(self, column: Any, name: str, first: int) -> AnyArray:
        """(m, ...) of a column's numbers."""
        import pyarrow as arrow  # pyright: ignore[reportMissingImports]
        import pyarrow.compute as compute  # pyright: ignore[reportMissingImports]

        where = f"column {name!r} of shard {self.state.name}"
        if column.null_count:
            row = first + int(np.flatnonzero(np.asarray(column.is_null()))[0]) + 1
            raise RequestError(f"{where}: expected a number in row {row}, got none", "not-finite")
        rows, width, types = len(column), 1, arrow.types
        nested = (types.is_list, types.is_large_list, types.is_fixed_size_list)
        is_list = any(is_one(column.type) for is_one in nested)
        while any(is_one(column.type) for is_one in nested):
            lengths = np.asarray(compute.call_function("list_value_length", [column]))
            odd = np.flatnonzero(lengths != lengths[0])
            if odd.size:
                found = f"lists of one length {lengths[0]}, got {lengths[odd[0]]} in row"
                raise RequestError(f"{where}: expected {found} {first + odd[0] // width + 1}", "ragged-rows")
            width *= int(lengths[0])
            column = column.flatten()
            if column.null_count:
                raise RequestError(f"{where}: expected numbers, got an empty entry", "not-finite")
        if not any(is_one(column.type) for is_one in (types.is_floating, types.is_integer, types.is_boolean)):
            raise RequestError(f"{where}: expected real numbers, got {column.type}", "array-type")
        values = column.to_numpy(zero_copy_only=False)
        return values.reshape(rows, width) if is_list else values


def _absent(shard: str, name: str, names: Any, id: str = "array-missing") -> RequestError:
    there = ", ".join(map(repr, names)) or "none"
    return RequestError(f"no array {name!r} in shard {shard}; there are {there}", id)


def _require_real(shard: str, name: str, dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "iufb":
        raise RequestError(
            f"array {name!r} in shard {shard}: expected real numbers, got {dtype}", "array-type"
        )


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


@dataclass(frozen=True)
class ShardedRows:
    """The rows of one array, or of columns beside each other, through all shards: `problem.Rows`.

    parts: (number of its first row, shard) in order.
    """

    parts: tuple[tuple[int, Shard], ...]
    columns: tuple[str, ...]
    shape: tuple[int, ...]
    window: Window = field(compare=False, repr=False)

    def __getitem__(self, rows: slice, /) -> AnyArray:
        start, stop, step = rows.indices(self.shape[0])
        if step != 1:
            raise ValueError(f"expected consecutive rows, got the step {step}")
        if start >= stop:
            return np.empty((0, *self.shape[1:]))
        columns = [self._column(name, start, stop) for name in self.columns]
        if len(columns) == 1:
            return columns[0]
        return np.concatenate([column.reshape(stop - start, -1) for column in columns], axis=1)

    def _column(self, name: str, start: int, stop: int) -> AnyArray:
        pieces = []
        for i, (first, shard) in enumerate(self.parts):
            end = self.parts[i + 1][0] if i + 1 < len(self.parts) else self.shape[0]
            low, high = max(start, first), min(stop, end)
            if low >= high:
                continue
            stored = None if name in self.window.names else shard.stored(name)
            if stored is None:
                pieces.append(self.window.rows(name, low, high))
            else:
                pieces.append(stored.rows(low - first, high - first))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def open_shards(folder: Path, pattern: str, wanted: Mapping[str, Columns]) -> dict[str, ShardedRows]:
    """The arrays of all shards under a pattern, or in a folder, by the keys of `wanted`.

    Args:
        wanted: the name of an array, or names of columns, for each key.
    Raises:
        RequestError: for shards that are missing, damaged, or do not fit each other: all of them.
    """
    faults: list[Diagnostic] = []
    shards: list[Shard] = []
    for path in shard_paths(folder, pattern):
        try:
            shards.append(_opened(path, shard_name(path, folder, pattern)))
        except RequestError as error:
            faults += error.diagnostics
    columns = {key: (words,) if isinstance(words, str) else tuple(words) for key, words in wanted.items()}
    names = tuple(dict.fromkeys(name for group in columns.values() for name in group))
    starts, total = [0], 0
    widths: dict[str, tuple[str, tuple[int, ...]]] = {}
    for shard in shards:
        try:
            shapes = {name: shard.shape(name) for name in names}
            rows = {shape[0] if shape else 0 for shape in shapes.values()}
            if len(rows) > 1:
                told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
                many = f"shard {shard.state.name}: expected as many rows in each array"
                raise RequestError(f"{many}, got {told}", "shape")
            for name, shape in shapes.items():
                where, width = widths.setdefault(name, (shard.state.name, shape[1:]))
                if width != shape[1:]:
                    raise RequestError(
                        f"shard {shard.state.name}: expected {name} of the shape "
                        f"({', '.join(map(str, ('·', *width)))}) as in {where}, got {shape}",
                        "shape",
                    )
            total += rows.pop()
        except RequestError as error:
            faults += error.diagnostics
        starts.append(total)
    if faults:
        raise RequestError(faults)
    spans = zip(starts, shards, starts[1:], strict=False)
    parts = tuple((start, shard) for start, shard, end in spans if end > start)
    packed = [name for name in names if any(shard.stored(name) is None for _, shard in parts)]
    window = Window(parts, packed)
    return {
        key: ShardedRows(parts, group, (total, *_width([widths[name][1] for name in group])), window)
        for key, group in columns.items()
    }


def _width(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Of columns beside each other."""
    if len(shapes) == 1:
        return shapes[0]
    return (sum(int(np.prod(shape)) for shape in shapes),)


def _opened(path: Path, name: str) -> Shard:
    if path.is_dir():
        return FolderShard.open(path, name)
    return ParquetShard.open(path, name) if path.suffix.lower() == ".parquet" else NpzShard.open(path, name)


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
