"""How many threads linear algebra takes: one, where more would only wait for each other.

On busy cores the threads of a BLAS spin while they wait, and a factorisation of a few hundred rows takes ten
times as long with them as without.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

SMALL = 2048
"""Up to this many rows one thread is as good as many."""


class _Limit:
    """The cap, shared by all Python threads: the first to come sets it, the last to go takes it back."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.users = 0
        self.libraries = -1
        self.controller: ThreadpoolController | None = None
        self.before: list[tuple[Any, int]] = []

    def enter(self) -> None:
        with self.lock:
            self.users += 1
            if self.users > 1:
                return
            libraries = sum(name in sys.modules for name in ("numpy.linalg", "scipy.linalg"))
            from threadpoolctl import ThreadpoolController

            if self.controller is None or libraries != self.libraries:  # SciPy brings its own BLAS
                self.controller, self.libraries = ThreadpoolController().select(user_api="blas"), libraries
            self.before = [(library, library.num_threads) for library in self.controller.lib_controllers]
            for library, threads in self.before:
                if threads != 1:
                    library.set_num_threads(1)

    def leave(self) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                for library, threads in self.before:
                    if threads != 1:
                        library.set_num_threads(threads)


_LIMIT = _Limit()


@contextmanager
def small_algebra(size: int = 0) -> Iterator[None]:
    """One thread for factorisations of matrices of at most `size` ≤ SMALL rows; the caller's setting is
    given back.  Larger matrices take what they get."""
    if size > SMALL:
        yield
        return
    _LIMIT.enter()
    try:
        yield
    finally:
        _LIMIT.leave()
