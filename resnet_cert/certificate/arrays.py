"""The data file of a certificate: float64 numbers, one array after another, each bound by its hash."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from resnet_cert.certificate.files import Undecided, read_file
from resnet_cert.certificate.reading import Certificate, Rejected, Shape

Array = npt.NDArray[np.float64]

ENDING = ".data"


def data_files(certificate: Certificate, path: Path) -> list[Path]:
    """Where the data file may be: under the name in the certificate, or renamed together with it."""
    return [path.with_name(path.name + ENDING), path.with_name(certificate.data)]


def read_arrays(certificate: Certificate, path: Path) -> dict[str, Array]:
    """The arrays by name, from bytes that are read once: those that are hashed are those that are used.

    Args:
        path: of the certificate.
    """
    expected = 8 * certificate.numbers
    fault = "file: there is none"
    for file in dict.fromkeys(data_files(certificate, path)):
        if not file.is_file():
            continue
        try:
            raw = read_file(file, expected)
        except Undecided:
            fault = f"file: expected {expected} bytes in {file}, got more"
            continue
        if len(raw) != expected:
            fault = f"file: expected {expected} bytes in {file}, got {len(raw)}"
            continue
        arrays, fault = _arrays(certificate, raw)
        if not fault:
            return arrays
    raise Rejected(f"inputs.{fault}")


def _arrays(certificate: Certificate, raw: bytes) -> tuple[dict[str, Array], str]:
    """The arrays in the bytes, and what is wrong with them."""
    numbers = np.frombuffer(raw, dtype="<f8")
    arrays: dict[str, Array] = {}
    start = 0
    for name, (shape, sha256) in certificate.arrays.items():
        size = math.prod(shape)
        array = numbers[start : start + size].reshape(shape)
        start += size
        if array_hash(shape, array) != sha256:
            return {}, f"{name}: expected the array with this hash, got another"
        if not np.isfinite(array).all():
            return {}, f"{name}: expected finite numbers, got NaN or Inf"
        arrays[name] = array
    return arrays, ""


def array_hash(shape: Shape, array: Array) -> str:
    """SHA-256 of dtype, shape and bytes: the line `<f8 NxM`, then the numbers in C order."""
    digest = hashlib.sha256(f"<f8 {'x'.join(map(str, shape))}\n".encode("ascii"))
    digest.update(np.ascontiguousarray(array, dtype="<f8").data)
    return digest.hexdigest()
