"""What JAX compiles is kept for the next process, unless the user says otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from resnet_cert.commands import surroundings

NAMES = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
         "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES")  # fmt: skip


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that what is set is taken back
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr("sys.platform", "linux")


def test_they_are_kept_in_the_users_cache_directory(tmp_path: Path) -> None:
    surroundings._keep_compilations()
    place = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    assert place.parent == tmp_path / "caches" / "resnet-cert"
    assert place.is_dir()
    assert place.stat().st_mode & 0o077 == 0


def test_jaxs_own_variable_goes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    surroundings._keep_compilations()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "elsewhere"
    assert not (tmp_path / "caches").exists()


def test_without_a_place_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    surroundings._keep_compilations()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
