"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from resnet_cert.outcomes import Diagnostic, RequestError


def require_writable(path: str) -> None:
    """Find out before the work that a file cannot be written to `path`.

    Raises:
        RequestError: if `path` is a folder, or its folder is missing or may not be written to.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        fault = "expected a file to write to, got a folder"
    elif not target.parent.is_dir():
        fault = f"expected an existing folder {str(target.parent)!r} to write to, got none"
    elif not os.access(target.parent if _is_replaceable(target) else target, os.W_OK):
        fault = "expected a place to write to, got one without write permission"
    else:
        return
    raise RequestError([Diagnostic(fault, file=path)])


def require_apart(writes: Sequence[str], reads: Sequence[str]) -> None:
    """Find out before the work that a file would be lost: one that is read, or one that is written twice.

    Raises:
        RequestError: if two of the paths to write to, or one of them and one to read from, are the same file.
    """
    taken = {os.path.realpath(path): "which is read" for path in reads}
    for path in writes:
        target = os.path.realpath(path)
        if target in taken and _is_replaceable(Path(target)):
            raise RequestError([Diagnostic(f"expected another file, not one {taken[target]}", file=path)])
        taken[target] = "which is written too"


def write_whole(path: str, content: bytes) -> None:
    """Write a file beside `path` and rename it, so that no reader and no interrupt ever sees a part of it.

    What is no ordinary file (a device, a pipe) is written to as it is.
    """
    target = Path(os.path.realpath(path))
    if not _is_replaceable(target):
        target.write_bytes(content)
        return
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        beside.write_bytes(content)
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


def _is_replaceable(target: Path) -> bool:
    return target.is_file() or not target.exists()
