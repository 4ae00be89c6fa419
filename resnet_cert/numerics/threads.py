"""How many threads linear algebra takes: one, where more would only wait for each other.

On busy cores the threads of a BLAS spin while they wait, and a factorisation of a few hundred rows takes ten
times as long with them as without.  Where there are many pieces of data, its threads do better with a piece
each.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

SMALL = 2048
"""Up to this many rows one thread is as good as many."""
MOST_PIECES = 8
"""How many pieces of data are worked on at once, at most."""

Piece = TypeVar("Piece")
Made = TypeVar("Made")
Others = ParamSpec("Others")


class Sized(Protocol):
    @property
    def side(self) -> int:
        """Of its largest matrices."""
        ...


OfSize = TypeVar("OfSize", bound=Sized)


class _Cap:
    """The cap, shared by all Python threads: who comes first sets it, and takes it back; inside, that thread
    may set it again.

    Another one that comes in between does without one when the first leaves, which costs time and nothing
    else.  (OpenBLAS takes no number from threads but the main one.)

    free: how many threads there are for pieces of data.
    """

    def __init__(self) -> None:
        self.held = threading.RLock()
        self.libraries = -1
        self.controllers: list[Any] = []
        self.free = 1

    def set(self) -> list[tuple[Any, int]]:
        """One thread everywhere; what to give back."""
        libraries = sum(name in sys.modules for name in ("numpy.linalg", "scipy.linalg"))
        if libraries != self.libraries:  # SciPy brings its own BLAS
            from threadpoolctl import ThreadpoolController

            self.libraries = libraries
            self.controllers = ThreadpoolController().select(user_api="blas").lib_controllers
        before = [(library, library.num_threads) for library in self.controllers]
        before = [(library, threads) for library, threads in before if threads != 1]
        for library, _ in before:
            library.set_num_threads(1)
        return before


_CAP = _Cap()


def have_threads(count: int) -> None:
    """So many are free for pieces of data, though BLAS takes one."""
    _CAP.free = count


@contextmanager
def small_algebra(size: int = 0) -> Iterator[int]:
    """One thread for factorisations of matrices of at most `size` ≤ SMALL rows; the caller's setting is
    given back.  Larger matrices take what they get.

    Yields: how many threads are free for something else, with the caller's own.
    """
    if size > SMALL or not _CAP.held.acquire(blocking=False):
        yield 1
        return
    before, free = [], _CAP.free
    try:
        before = _CAP.set()
        _CAP.free = max([free, *(threads for _, threads in before)])
        yield _CAP.free
    finally:
        _CAP.free = free
        for library, threads in before:
            library.set_num_threads(threads)
        _CAP.held.release()


def small_algebra_within(
    task: Callable[Concatenate[OfSize, Others], Made],
) -> Callable[Concatenate[OfSize, Others], Made]:
    """`small_algebra` for all of a task, by the size of its first argument: products of a few thousand rows
    gain nothing by threads that wait for each other, and there are hundreds of them."""

    @wraps(task)
    def capped(of: OfSize, *arguments: Others.args, **options: Others.kwargs) -> Made:
        with small_algebra(of.side):
            return task(of, *arguments, **options)

    return capped


def in_order(task: Callable[[Piece], Made], pieces: Iterable[Piece], count: int) -> Iterator[Made]:
    """task(piece) of each of `count` pieces, in their order, on as many threads as BLAS may take, which takes
    one meanwhile.

    The pieces are made on the calling thread, one ahead of the work.
    """
    if count < 2:
        yield from map(task, pieces)
        return
    with small_algebra() as threads:
        if threads == 1:
            yield from map(task, pieces)
            return
        from concurrent.futures import ThreadPoolExecutor

        at_once = min(threads, count, MOST_PIECES)
        with ThreadPoolExecutor(at_once, "piece") as pool:
            waiting: deque[Future[Made]] = deque()
            for piece in pieces:
                waiting.append(pool.submit(copy_context().run, task, piece))
                if len(waiting) > at_once:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
