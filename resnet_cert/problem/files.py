"""Files that are there whole or not at all, and never in the place of one that is read."""

from __future__ import annotations

import contextlib
import io
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from resnet_cert.outcomes import Diagnostic, RequestError

LINKS = 40  # as the kernel follows


def require_writable(path: str) -> None:
    """Find out before the work that a file cannot be written to `path`.

    Raises:
        RequestError: if `path` is a folder, or its folder is missing or may not be written to.
    """
    try:
        fault = _fault(path)
    except (OSError, ValueError) as error:  # ValueError: a name that no path can have
        fault = f"expected a place to write to: {_words(error)}"
    if fault is not None:
        raise RequestError([Diagnostic(fault, file=path, id="output-place")])


def _fault(path: str) -> str | None:
    if not path:
        return "expected the name of a file to write to, got nothing"
    fd = _descriptor(path)
    if fd is not None:
        os.fstat(fd)
        return None
    if not os.path.isabs(path):
        os.getcwd()  # raises where the working directory was deleted
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.stat(target)  # raises for a name that is too long
    if os.path.isdir(target):
        return "expected a file to write to, got a folder"
    if not os.path.isdir(folder):
        return f"expected an existing folder {folder!r} to write to, got none"
    if not os.access(folder if _is_replaced(target) else target, os.W_OK):
        return "expected a place to write to, got one without write permission"
    return None


def require_apart(writes: Sequence[str], reads: Iterable[str]) -> None:
    """Find out before the work that a file would be lost: one that is read, or one that is written twice.

    Two paths are the same file whatever they are called: by another spelling, a symbolic or a hard link.

    Raises:
        RequestError: if two of the paths to write to, or one of them and one to read from, are the same file.
    """
    taken = {identity: "which is read" for path in reads for identity in _identities(path)}
    for path in writes:
        identities = _identities(path)
        lost = next((taken[identity] for identity in identities if identity in taken), None)
        if lost is not None:
            id = "output-read" if lost == "which is read" else "output-twice"
            fault = f"expected another file, not one {lost}: name a new one"
            raise RequestError([Diagnostic(fault, file=path, id=id)])
        taken.update(dict.fromkeys(identities, "which is written too"))


def _identities(path: str) -> list[object]:
    """What tells a plain file from others: its path without links, and its inode."""
    with contextlib.suppress(OSError, ValueError):
        fd = _descriptor(path)
        target = os.path.realpath(path)
        if fd is None and not os.path.lexists(target):
            return [target]
        found = os.stat(target) if fd is None else os.fstat(fd)
        if stat.S_ISREG(found.st_mode):
            return [target, (found.st_dev, found.st_ino)]
    return []


def write_whole(path: str, content: bytes) -> None:
    """Write the content to `path`, as `written` does.

    Raises:
        RequestError: it cannot be written there.
    """
    try:
        with written(path) as (file,):
            file.write(content)
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        raise RequestError([Diagnostic(f"cannot write: {_words(error)}", path, id="output-place")]) from None


@contextlib.contextmanager
def written(*paths: str) -> Iterator[list[BinaryIO]]:
    """Files to write to, which take the place of those at `paths` when the block ends, and not before: no
    reader and no interrupt ever sees a part of one, and what the block raises leaves all as they were.

    An ordinary file keeps its mode and its owner.  Where a new file would not be the same thing (a device, a
    pipe, an open descriptor such as /dev/stdout, a file with another name too) the content is written into
    what is there, at the end.
    """
    with contextlib.ExitStack() as stack:
        files: list[BinaryIO] = []
        beside: list[str | None] = []
        for path in paths:
            target = os.path.realpath(path)
            if _descriptor(path) is None and _is_replaced(target):
                new = os.path.join(os.path.dirname(target), f".resnet-cert-{secrets.token_hex(8)}.tmp")
                stack.callback(_unlink, new)
                files.append(stack.enter_context(open(new, "xb")))
                beside.append(new)
            else:
                beside.append(None)
                files.append(io.BytesIO())
        yield files
        for path, file, new in zip(paths, files, beside, strict=True):
            if new is not None:
                file.flush()
                _keep_mode(new, os.path.realpath(path))
        for path, file, new in zip(paths, files, beside, strict=True):
            if new is None:
                file.seek(0)
                _write_into(path, file)
        for path, new in zip(paths, beside, strict=True):
            if new is not None:
                os.replace(new, os.path.realpath(path))


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _keep_mode(new: str, old: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        found = os.stat(old)
        if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
            with contextlib.suppress(PermissionError):
                os.chown(new, found.st_uid, found.st_gid)
        os.chmod(new, stat.S_IMODE(found.st_mode))


def _write_into(path: str, content: BinaryIO) -> None:
    fd = _descriptor(path)
    if fd is None:
        with open(path, "wb") as file:
            shutil.copyfileobj(content, file)
        return
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # what was printed before comes before
    with os.fdopen(os.dup(fd), "wb") as file:  # as it is open: at its place, appending where it appends
        shutil.copyfileobj(content, file)


def _is_replaced(target: str) -> bool:
    """Whether a new file may take the place of what is at `target`."""
    try:
        found = os.stat(target)
    except OSError:
        return True
    ours = found.st_uid == os.geteuid() or os.geteuid() == 0
    folder = os.access(os.path.dirname(target), os.W_OK)
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and ours and folder


def _descriptor(path: str) -> int | None:
    """The number of the open descriptor that a path names, such as /dev/stdout or a link to it."""
    for _ in range(LINKS):
        folder, name = os.path.split(path)
        at = os.path.join(os.path.realpath(folder or "."), name)
        named = re.fullmatch(rf"(?:/proc/{os.getpid()}(?:/task/[0-9]+)?|/dev)/fd/([0-9]+)", at)
        if named:
            return int(named[1])
        if not os.path.islink(at):
            return None
        path = os.path.join(os.path.dirname(at), os.readlink(at))
    return None


def _words(error: OSError | ValueError) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
