"""What lasts is shown on terminals, with its rate, and nowhere else."""

from __future__ import annotations

import io
import time

import pytest

from resnet_cert.commands import bar
from resnet_cert.commands.common import progress
from resnet_cert.numerics.progress import is_watched, told


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def wait_for(stream: Terminal, words: str) -> None:
    """Until another thread has written them, however busy the processor is."""
    end = time.monotonic() + 60.0
    while words not in stream.getvalue():
        assert time.monotonic() < end, stream.getvalue()
        time.sleep(0.01)


def shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, *, quiet: bool = False) -> str:
    """What two passes over three pieces show."""
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(bar, "PATIENCE", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with progress("adding up", quiet=quiet):
        time.sleep(0.1)
        for done in (1, 2, 3, 1, 2):
            told("pieces", done, 3)
            time.sleep(0.02)
    assert not is_watched()
    return stream.getvalue()


def test_a_terminal_shows_how_far_and_how_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    last = shown(monkeypatch, Terminal())
    assert "adding up" in last
    assert "2/3 pieces" in last
    assert "/s" in last


def test_what_has_no_end_is_not_shown_with_that_of_what_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(bar, "PATIENCE", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress("exploring", quiet=False):
        told("samples", 1797, 1797)
        wait_for(stream, "/1797")
        told("boxes", 100)
        wait_for(stream, "100 boxes")
        stream.truncate(0)
        told("boxes", 200)
        wait_for(stream, "200 boxes")
    assert "/1797" not in stream.getvalue()


def test_nothing_is_shown_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, io.StringIO()) == ""
    assert shown(monkeypatch, Terminal(), quiet=True) == ""


def test_what_ends_at_once_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    with progress("adding up", quiet=False):
        told("pieces", 1, 3)
    assert stream.getvalue() == ""
