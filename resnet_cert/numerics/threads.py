"""How many threads linear algebra takes: one, where more would only wait for each other.

On busy cores the threads of a BLAS spin while they wait, and a factorisation of a few hundred rows takes ten
times as long with them as without.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SMALL = 2048
"""Up to this many rows one thread is as good as many."""


class _Cap:
    """The cap, shared by all Python threads: who comes first sets it, and takes it back.

    Who comes in between does without one when the first leaves, which costs time and nothing else.  (OpenBLAS
    takes no number from threads but the main one.)
    """

    def __init__(self) -> None:
        self.held = threading.Lock()
        self.libraries = -1
        self.controllers: list[Any] = []

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


@contextmanager
def small_algebra(size: int = 0) -> Iterator[None]:
    """One thread for factorisations of matrices of at most `size` ≤ SMALL rows; the caller's setting is
    given back.  Larger matrices take what they get."""
    if size > SMALL or not _CAP.held.acquire(blocking=False):
        yield
        return
    before: list[tuple[Any, int]] = []
    try:
        before = _CAP.set()
        yield
    finally:
        for library, threads in before:
            library.set_num_threads(threads)
        _CAP.held.release()
