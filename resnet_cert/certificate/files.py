"""Files as the verifier reads them: once, into memory, and no more than was expected."""

from __future__ import annotations

import functools
import operator
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from resnet_cert.outcomes import Diagnostic, RequestError


class Undecided(Exception):
    """No verdict can be reached, for want of time, memory or knowledge: the reason.  Nothing is false."""


def read_file(path: Path, most: int) -> bytes:
    """The bytes of an ordinary file, read once: what changes on the disk afterwards changes nothing here.

    Raises:
        RequestError: there is none, or it cannot be read.
        Undecided: it has more than `most` bytes.
    """
    try:
        with opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise Undecided(f"{path} has {size} bytes, more than the {most} that are read")
            parts = bytearray()
            while len(parts) <= most and (part := file.read(min(2**24, most + 1 - len(parts)))):
                parts += part
    except (OSError, ValueError) as fault:  # ValueError: a name that no path can have
        reason = fault.strerror if isinstance(fault, OSError) and fault.strerror else str(fault)
        raise RequestError([Diagnostic(f"cannot read it: {reason}", str(path))]) from fault
    if len(parts) > most:
        raise Undecided(f"{path} has more than the {most} bytes that are read")
    return bytes(parts)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """An ordinary file; one of another kind, which nobody may ever write into, is not waited for.

    Raises:
        RequestError: it is none.
    """
    flags = (getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))  # by system
    descriptor = os.open(path, functools.reduce(operator.or_, flags, os.O_RDONLY))
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise RequestError([Diagnostic("expected an ordinary file", str(path))])
        yield file


def require_all(paths: Iterable[Path]) -> None:
    """Raises RequestError, naming every one of the files that is missing or cannot be read."""
    faults = []
    for path in dict.fromkeys(paths):
        try:
            reason = None if path.is_file() else "it is not there" if not path.exists() else "it is no file"
            if reason is None and not os.access(path, os.R_OK):
                reason = "permission denied"
        except (OSError, ValueError) as fault:
            reason = str(fault)
        if reason is not None:
            faults.append(Diagnostic(f"a file that the certificate needs: {reason}", str(path)))
    if faults:
        raise RequestError(faults)
