"""A bundle: certificate, arrays, spec, and every file that the spec reads, in one .zip to hand over.

    certificate.json, certificate.json.data, files/...      the last with the spec's own relative paths

Its reading trusts nothing of it: no member leaves the folder, is a link, comes twice, or unpacks to more than
it says and is allowed.
"""

from __future__ import annotations

import os
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from resnet_cert.certificate.files import Undecided, opened
from resnet_cert.certificate.reading import Rejected
from resnet_cert.outcomes import Diagnostic, RequestError
from resnet_cert.problem.files import written

if TYPE_CHECKING:
    from resnet_cert.results import Source

ENDING = ".zip"
CERTIFICATE = "certificate.json"
FILES = "files"
MOST_MEMBERS = 10**4
MOST_BYTES = 2**32
"""Of all that is in a bundle, unpacked."""
PART = 2**20
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every member: a bundle of the same files is the same file."""


def require_packable(spec: Source) -> None:
    """Raises RequestError, if no bundle can hold the files that a spec reads, or is unpacked again."""
    instead = "name it FILE.json in place of FILE.zip, and hand the files over beside it"
    if spec.fixed:
        wanted = f"expected a path relative to the spec for a bundle: change it, or {instead}"
        raise RequestError([Diagnostic(wanted, path, id="unfit-part") for path in spec.fixed])
    size = sum(os.path.getsize(path) for path in spec.reads)
    for most, found, what in ((MOST_MEMBERS - 2, len(spec.reads), "files"), (MOST_BYTES, size, "bytes")):
        if found > most:
            raise RequestError(
                f"expected at most {most} {what} in a bundle, got {found}: {instead}", "too-large"
            )


@contextmanager
def write_bundle(target: Path, spec: Source | None) -> Iterator[tuple[Path, str | None]]:
    """A folder for the certificate, and the path of the spec from there; packed into `target` at the end.

    Raises:
        RequestError: as in `require_packable`.
    """
    names: dict[Path, str] = {}
    if spec is not None:
        require_packable(spec)
        names = _names(spec)
    with tempfile.TemporaryDirectory(prefix="resnet-cert-") as folder:
        yield Path(folder), None if spec is None else names[Path(os.path.abspath(str(spec.path)))]
        with written(str(target)) as (packed,), zipfile.ZipFile(packed, "w", allowZip64=True) as bundle:
            for file in sorted(Path(folder).iterdir()):
                _pack(bundle, file, file.name)
            for file, name in names.items():
                _pack(bundle, file, name)


def _names(spec: Source) -> dict[Path, str]:
    """The names in the bundle of the spec's files, which are to each other as the spec has them, wherever
    links lead."""
    files = [Path(os.path.abspath(path)) for path in (str(spec.path), *spec.reads)]
    try:
        top = os.path.commonpath([file.parent for file in files])
    except ValueError as fault:
        raise RequestError(f"expected files on one drive for a bundle: {fault}", id="unfit-part") from fault
    return {file: f"{FILES}/{Path(os.path.relpath(file, top)).as_posix()}" for file in files}


def _pack(bundle: zipfile.ZipFile, file: Path, name: str) -> None:
    member = zipfile.ZipInfo(name, EPOCH)
    member.external_attr = (stat.S_IFREG | 0o644) << 16
    member.compress_type = zipfile.ZIP_DEFLATED
    with file.open("rb") as source, bundle.open(member, "w", force_zip64=True) as sink:
        while part := source.read(PART):
            sink.write(part)


def unpack(path: Path, folder: Path, most: int = MOST_BYTES) -> Path:
    """The certificate of a bundle, which is unpacked into an empty folder.

    Raises:
        RequestError: it cannot be read, or has no certificate.
        Rejected: a member is something that no bundle has.
        Undecided: it unpacks to more than `most` bytes.
    """
    try:
        with opened(path) as file, zipfile.ZipFile(file) as bundle:
            members = bundle.infolist()
            _require_sound(members, most)
            for member in members:
                _unpack(bundle, member, folder / member.filename)
    except (OSError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError) as fault:
        raise RequestError([Diagnostic(f"cannot read it as a bundle: {fault}", str(path))]) from fault
    if not (folder / CERTIFICATE).is_file():
        raise RequestError([Diagnostic(f"expected {CERTIFICATE} in the bundle, got none", str(path))])
    return folder / CERTIFICATE


def _require_sound(members: list[zipfile.ZipInfo], most: int) -> None:
    if len(members) > MOST_MEMBERS:
        raise Rejected(f"bundle: expected at most {MOST_MEMBERS} members, got {len(members)}")
    seen: set[str] = set()
    for member in members:
        name, parts = member.filename, PurePosixPath(member.filename).parts
        plain = parts and "/".join(parts) == name and not {"..", ".", "/"} & set(parts)
        if not plain or "\\" in name or ":" in name or not name.isprintable() or len(name) > 1000:
            raise Rejected(f"bundle: expected members with plain relative names, got {name!a}")
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG) or member.is_dir():
            raise Rejected(f"bundle: expected ordinary files, got {name!a}, which is none")
        if member.flag_bits & 0x1:
            raise Rejected(f"bundle: expected no encrypted member, got {name!a}")
        if name.casefold() in seen:
            raise Rejected(f"bundle: expected every member once, got {name!a} twice")
        seen.add(name.casefold())
    total = sum(member.file_size for member in members)
    if total > most:
        raise Undecided(f"the bundle unpacks to {total} bytes, more than the {most} that are unpacked")


def _unpack(bundle: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """One member, of exactly the size that it says."""
    target.parent.mkdir(parents=True, exist_ok=True)
    left = member.file_size
    with bundle.open(member) as source, target.open("xb") as sink:
        while part := source.read(min(PART, left + 1)):
            left -= len(part)
            if left < 0:
                raise Rejected(f"bundle: {member.filename!a} is larger than it says")
            sink.write(part)
    if left:
        raise Rejected(f"bundle: {member.filename!a} is smaller than it says")
