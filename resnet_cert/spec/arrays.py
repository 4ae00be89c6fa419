"""Arrays of numbers from the spec itself, from .npy, .npz and .safetensors files.

Everything becomes float64: integers and float32 are widened.  A .npy file is mapped and not read, so that it
may be larger than the memory.  Pickles are never opened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import MAGIC_PREFIX, open_memmap, read_array

from resnet_cert.numerics.enclosure import Array
from resnet_cert.problem.arrays import is_narrow
from resnet_cert.problem.problem import MappedRows, Rows
from resnet_cert.spec.faults import Refused, listed, nearest, shortened, suggestion

PAGE_BYTES = 2**20
"""So many bytes are read at a time of what is not kept."""


def inline(numbers: list[Any]) -> Array:
    """Numbers of the spec: a list of them, or a list of rows of one length."""
    return np.array(numbers, dtype=np.float64)


def optional(numbers: list[Any] | None) -> Array | None:
    return None if numbers is None else inline(numbers)


def existing(folder: Path, name: str) -> Path:
    """The path of a file that a spec in `folder` names.

    Raises:
        Refused: if there is none, with the nearest name that there is.
    """
    path = folder / name
    with readable(name):
        if path.is_file():
            return path
        if path.exists():
            raise Refused(f"expected a file, got something else: {name}", "file-missing")
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = nearest(path.name, beside)
    hint = f"; did you mean {str(Path(name).with_name(near))!r}?" if near else ""
    raise Refused(f"no such file: {name}{hint}", "file-missing")


@contextmanager
def readable(name: str, kind: str = "") -> Iterator[None]:
    """Around NumPy's reading of a user's file, and nothing else: what goes wrong there is `Refused`.

    On a damaged file NumPy raises whatever its parsers raise: of zip, of zlib, of Python's own syntax.
    """
    try:
        yield
    except Refused:
        raise
    except OSError as error:
        raise Refused(f"cannot read {name}: {error.strerror or error}", "file-unreadable") from None
    except MemoryError as error:
        size = f" ({error})" if str(error) else ""
        raise Refused(f"cannot read {name}: it does not fit into memory{size}", "too-large") from None
    except Exception as error:
        if "allow_pickle" in str(error):
            objects = "it holds Python objects: write numbers, numpy.array(…, dtype=float)"
            raise Refused(f"cannot read {name}{kind}: {objects}", "file-unreadable") from None
        reason = shortened(str(error) or type(error).__name__, 200)
        raise Refused(f"cannot read {name}{kind}: {reason}", "file-unreadable") from None


def load_npy(folder: Path, name: str) -> Rows:
    """The array of a .npy file: mapped where its rows lie one after the other, else read.

    Raises:
        Refused: for a file that is missing, damaged, or holds no real numbers.
    """
    path = existing(folder, name)
    with readable(name, " as a .npy file"):
        mapped = open_memmap(path, mode="r")
        _require_real(mapped.dtype, name)
        if mapped.flags.c_contiguous and mapped.ndim > 0:
            return MappedRows(path, mapped.dtype, mapped.shape, mapped.offset)
        return np.array(mapped, dtype=np.float64, order="C")


def read_npy(folder: Path, name: str) -> np.ndarray[Any, np.dtype[Any]]:
    """The array of a .npy file as it is, of any type but pickled objects."""
    path = existing(folder, name)
    with readable(name, " as a .npy file"):
        return np.load(path, allow_pickle=False)


@dataclass(frozen=True)
class Archive:
    """The arrays of an open file by name, in float64; one that cannot be had raises `Refused`."""

    file: str
    names: tuple[str, ...]
    read: Callable[[str], Any]

    def __call__(self, key: str) -> Array:
        values = self.raw(key)
        _require_real(values.dtype, f"array {key!r} in {self.file}")
        return np.array(values, dtype=np.float64, order="C")

    def raw(self, key: str) -> np.ndarray[Any, np.dtype[Any]]:
        """As it is in the file, of any type."""
        if key not in self.names:
            raise Refused(f"no array {key!r} in {self.file}{suggestion(key, self.names)}", "array-missing")
        with readable(self.file, f": array {key!r}"):
            values = self.read(key)
            if not isinstance(values, np.ndarray):
                raise Refused(f"expected an array {key!r} in {self.file}, got something else", "array-type")
            return values


@contextmanager
def open_arrays(folder: Path, name: str) -> Iterator[Archive]:
    """The arrays of a .npz or a .safetensors file.

    Raises:
        Refused: for a file that is missing or damaged.
    """
    opened = _open_safetensors if name.lower().endswith(".safetensors") else open_npz
    with opened(folder, name) as archive:
        yield archive


@contextmanager
def _open_safetensors(folder: Path, name: str) -> Iterator[Archive]:
    path = existing(folder, name)
    try:
        from safetensors import safe_open
    except ModuleNotFoundError:
        needs = f"{name} needs the package safetensors: pip install 'resnet-cert[safetensors]'"
        raise Refused(needs, "needs-package") from None
    import ml_dtypes  # noqa: F401  bfloat16 is no type of NumPy's own

    with readable(name, " as a .safetensors file"):
        opened = safe_open(path, framework="numpy")
    with opened as file:
        yield Archive(name, tuple(file.keys()), file.get_tensor)


@contextmanager
def open_npz(folder: Path, name: str) -> Iterator[Archive]:
    """The arrays of a .npz file.

    Raises:
        Refused: for a file that is missing or damaged.
    """
    from zipfile import is_zipfile

    path = existing(folder, name)
    with readable(name, " as a .npz file"):
        if not is_zipfile(path):
            fault = f"cannot read {name} as a .npz file: it is no zip archive, or a part of one"
            raise Refused(fault, "file-unreadable")
        archive = np.load(path, allow_pickle=False)
    with archive:
        twice = sorted(key for key, times in Counter(archive.files).items() if times > 1)
        if twice:
            raise Refused(f"expected each array of {name} once, got {listed(twice)} twice", "array-repeated")
        yield Archive(name, tuple(archive.files), partial(_member, archive))


def _member(archive: Any, key: str) -> Any:
    """An array of a .npz file, or bytes; the member is read to its end, where zipfile looks at its checksum,
    also where its header tells of fewer rows than there are."""
    name = f"{key}.npy" if f"{key}.npy" in archive.zip.namelist() else key
    with archive.zip.open(name) as file:
        is_array = file.peek(len(MAGIC_PREFIX)).startswith(MAGIC_PREFIX)
        values = read_array(file, allow_pickle=False) if is_array else file.read()
        while file.read(PAGE_BYTES):
            pass
    return values


def _require_real(dtype: np.dtype[Any], what: str) -> None:
    """float64 holds every float16, bfloat16, float32, float64; integers beyond 2^53 are rounded, as decimals
    are."""
    if (dtype.kind not in "iuf" or dtype.itemsize > 8) and not is_narrow(dtype):
        wanted = "expected real numbers (floats of at most 64 bits or integers)"
        raise Refused(f"{what}: {wanted}, got {dtype}", "array-type")
