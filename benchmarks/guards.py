"""What it costs a check that its error bounds round up and do not underflow, at ordinary scales.

    python benchmarks/guards.py [--size n,d,k] [--repetitions R]

The whole of `check` as it is, and with bounds that are bare floats: no bound is raised after an operation,
norms are roots of plain sums of squares, and matrices are factored in the units that they have.  The least
seconds of the processor, warm, in turns, for the difference is less than what a busy machine adds; the goal
is 3 per cent.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from timing import random_logistic_problem

from resnet_cert import check
from resnet_cert.numerics import eigenvalues, radius
from resnet_cert.numerics.radius import Array, Radius
from resnet_cert.results import Report


def bare_norms(v: Array) -> Radius:
    return Radius(np.sqrt(np.einsum("ij,ij->i", v, v)), not v.any())


@contextmanager
def bare() -> Iterator[None]:
    with (
        patch.object(radius, "_up", lambda bound, *_, **__: bound),
        patch.object(Radius, "row_norms", staticmethod(bare_norms)),
        patch.object(eigenvalues, "exponent", lambda x: 0),
    ):
        yield


def without(task: Callable[[], Report]) -> Callable[[], Any]:
    def timed() -> Report:
        with bare():
            return task()

    return timed


def main() -> None:
    parser = argparse.ArgumentParser(description="Time `check` with and without bounds that round up.")
    parser.add_argument("--size", default="20000,64,128")
    parser.add_argument("--repetitions", type=int, default=15)
    arguments = parser.parse_args()
    n, d, k = map(int, arguments.size.split(","))
    problem = random_logistic_problem(n, d, k)
    tasks = {"guarded": lambda: check(problem), "bare": without(lambda: check(problem))}
    seconds = dict.fromkeys(tasks, math.inf)
    for _ in range(arguments.repetitions + 1):  # the first one compiles
        for name, task in tasks.items():
            started = time.process_time()
            task()
            seconds[name] = min(seconds[name], time.process_time() - started)
    guarded, plain = seconds.values()
    sys.stdout.write(
        f"n, d, k = {n}, {d}, {k}: check {guarded:.3f} s, with bare bounds {plain:.3f} s: "
        f"{100.0 * (guarded / plain - 1.0):+.1f} %\n"
    )


if __name__ == "__main__":
    main()
