"""The files that a spec names, found in its tree alone: before anything is read or computed, and whatever
else is wrong with the spec."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from resnet_cert.outcomes import RequestError
from resnet_cert.problem.shards import shard_files, shard_name, shard_paths
from resnet_cert.spec.arrays import existing
from resnet_cert.spec.faults import Faults, holds

ENDINGS = (".csv", ".npy", ".npz", ".parquet", ".safetensors")
SECTIONS = ("data", "loss", "network", "point")


def files_of(tree: Any, folder: Path) -> list[Path]:
    """Every file that is there under a name in one of the sections: data, shards, code, arrays.

    Beside a file of code stand the modules that it may import; they count as well.
    """
    return _files(_named(tree), folder)


def fixed_files_of(tree: Any) -> list[Path]:
    """Those of them that are named by an absolute path: no other computer need have them there."""
    return _files(((key, word) for key, word in _named(tree) if Path(word).is_absolute()), Path())


def _files(named: Iterable[tuple[str, str]], folder: Path) -> list[Path]:
    found: dict[Path, None] = {}
    for key, word in named:
        paths = [folder / word]
        if key == "python":
            paths = [folder / word.rpartition(":")[0]]
            paths += paths[0].parent.glob("*.py") if _is_file(paths[0]) else []
        elif key == "shards":
            paths = _shards(shard_files, folder, word)
        found |= dict.fromkeys(path for path in paths if _is_file(path))
    return list(found)


def shards_of(tree: Any, folder: Path) -> list[str]:
    """The shards that are there, by the names that the spec has for them."""
    words = [word for key, word in _named(tree) if key == "shards"]
    return [shard_name(path, folder, word) for word in words for path in _shards(shard_paths, folder, word)]


def absent_files(tree: Any, folder: Path) -> list[Path]:
    """Every file that is not there, of those that a word in one of the sections can be nothing else than; a
    pattern of shards under which there is none."""
    found: dict[Path, None] = {}
    for key, word in _named(tree):
        name = word.rpartition(":")[0] if key == "python" else word
        if key == "shards":
            if not _shards(shard_paths, folder, word):
                found[folder / (f"{word}/*" if _is_folder(folder / word) else word)] = None
        elif (key == "python" or name.lower().endswith(ENDINGS)) and not _is_file(folder / name):
            found[folder / name] = None
    return list(found)


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


def _named(tree: Any) -> Iterator[tuple[str, str]]:
    """Every word of the sections that name files, with its key."""
    for section in SECTIONS:
        if holds(tree, section):
            yield from _words(tree[section])


def _shards(find: Callable[[Path, str], list[Path]], folder: Path, pattern: str) -> list[Path]:
    try:
        return find(folder, pattern)
    except (RequestError, OSError, ValueError):  # none, or a name that no path can have
        return []


def _words(tree: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every word of a tree, with the key that it stands under; comparators have names in place of keys."""
    if isinstance(tree, str):
        yield key, tree
    elif isinstance(tree, dict):
        for inner, value in tree.items():
            yield from _words(value, key if key == "compare" else inner)
    elif isinstance(tree, list) and any(not isinstance(entry, (int, float)) for entry in tree):
        for entry in tree:
            yield from _words(entry, key)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no path can have
        return False
