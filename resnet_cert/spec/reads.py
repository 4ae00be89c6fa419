"""The files that a spec names, found in its tree alone: before anything is read or computed, and whatever
else is wrong with the spec."""

from __future__ import annotations

import glob
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from resnet_cert.spec.arrays import existing
from resnet_cert.spec.faults import Faults, holds

ENDINGS = (".csv", ".npy", ".npz", ".parquet", ".safetensors")
SECTIONS = ("data", "loss", "network", "point")


def files_of(tree: Any, folder: Path) -> list[Path]:
    """Every file that is there under a name in one of the sections: data, shards, code, arrays.

    Beside a file of code stand the modules that it may import; they count as well.
    """
    found: dict[Path, None] = {}
    for section in SECTIONS:
        if not holds(tree, section):
            continue
        for key, word in _words(tree[section]):
            paths = [folder / word]
            if key == "python":
                paths = [folder / word.rpartition(":")[0]]
                paths += paths[0].parent.glob("*.py") if _is_file(paths[0]) else []
            elif key == "shards":
                pattern = folder / word
                paths = [*pattern.iterdir()] if _is_folder(pattern) else map(Path, glob.glob(str(pattern)))
            found |= dict.fromkeys(path for path in paths if _is_file(path))
    return list(found)


def absent_files(tree: Any, folder: Path) -> list[Path]:
    """Every file that is not there, of those that a word in one of the sections can be nothing else than."""
    found: dict[Path, None] = {}
    for section in SECTIONS:
        for key, word in _words(tree[section]) if holds(tree, section) else ():
            name = word.rpartition(":")[0] if key == "python" else word
            if key == "python" or name.lower().endswith(ENDINGS):
                found[folder / name] = None
    return [path for path in found if not _is_file(path)]


def missing_files(tree: Any, folder: Path, sound: Collection[str]) -> Faults:
    """Files that are not there, of sections with other faults: those of the others are for their readers."""
    faults = Faults()
    for section in SECTIONS:
        if section not in sound and holds(tree, section) and isinstance(tree[section], dict):
            name = tree[section].get("file")
            with faults.under(section, "file"):
                if isinstance(name, str) and name.strip():
                    existing(folder, name)
    return Faults(fault for fault in faults if fault.id == "file-missing")


def _words(tree: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every word of a tree, with the key of the mapping that it stands in."""
    if isinstance(tree, str):
        yield key, tree
    elif isinstance(tree, dict):
        for inner, value in tree.items():
            yield from _words(value, inner)
    elif isinstance(tree, list) and any(not isinstance(entry, (int, float)) for entry in tree):
        for entry in tree:
            yield from _words(entry, key)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no path can have
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
