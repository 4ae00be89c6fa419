"""What the benchmarks share: interleaved medians, a table, and random problems."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from resnet_cert import Problem

PATIENCE = 20.0  # seconds; what takes longer runs once


def interleaved_medians(
    tasks: Mapping[str, Callable[[], object]],
    repetitions: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """The median seconds of each task.

    One round runs every task once, so that a slow minute of the machine meets all of them.  The first round
    compiles and warms up and is not counted, except for a task that takes longer than PATIENCE.
    """
    seconds: dict[str, list[float]] = {name: [_timed(task, clock)] for name, task in tasks.items()}
    for _ in range(repetitions):
        for name, task in tasks.items():
            if seconds[name][0] <= PATIENCE:
                seconds[name].append(_timed(task, clock))
    return {name: statistics.median(times[1:] or times) for name, times in seconds.items()}


def _timed(task: Callable[[], object], clock: Callable[[], float]) -> float:
    started = clock()
    task()
    return clock() - started


def write_table(rows: Sequence[Sequence[str]]) -> None:
    """Rows of text on stdout, the columns aligned: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
    sys.stdout.flush()


def random_logistic_problem(
    n: int, d: int, k: int, *, trained: bool = False, off: float = 1e-3, seed: int = 0
) -> Problem:
    """Gaussian x, f = tanh of random directions, noisy linear labels y = ±1, and a random point (w, V).

    trained: the point lies near a minimiser over (w, V) instead, where λ_min is tiny, below a heap of exact
    zeros.  off: how far V is off, relatively; at 0 λ_min is 0 to within rounding.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    f = np.tanh(x @ rng.normal(size=(d, k)) / np.sqrt(d))
    y = np.where(x[:, 0] + rng.normal(size=n) > 0.0, 1.0, -1.0)
    w = rng.normal(size=d) / np.sqrt(d)
    V = rng.normal(size=(d, k)) / np.sqrt(d * k)
    if trained:
        w, z = np.split(logistic_regression(np.hstack([x, f]), y), [d])
        V = np.outer(w, z) / (w @ w) + off * V
    name = f"{n} {d} {k}"
    return Problem.from_arrays(x=x, y=y, f=f, w=w, V=V, loss="logistic", epsilon=1e-3, name=name)


def logistic_regression(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """argmin over c (d,) of E[log(1 + e^{−y xᵀc})] by Newton's method; the data must not be separable."""
    c = np.zeros(x.shape[1])
    for _ in range(12):
        sigmoid = 1.0 / (1.0 + np.exp(y * (x @ c)))
        c += np.linalg.solve((x.T * (sigmoid * (1.0 - sigmoid))) @ x, x.T @ (y * sigmoid))
    return c
