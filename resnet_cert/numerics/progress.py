"""How far long work has got, for whoever watches: nobody, unless a command shows it on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Watch = Callable[[str, int, int | None], None]
"""(what is counted, how many are done, how many there are; None where nobody knows)."""

_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """`watch` is told of everything that is counted in the block, on this thread."""
    before = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(before)


def is_watched() -> bool:
    return _watch.get() is not None


def told(what: str, done: int, total: int | None = None) -> None:
    """Say how far it is: `done` of `total` are behind us."""
    watch = _watch.get()
    if watch is not None:
        watch(what, done, total)
