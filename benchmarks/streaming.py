"""A pass over shards against one plain NumPy pass that reads the same files and forms the same Gram matrix.

    python benchmarks/streaming.py [--rows N] [--folder DIR] [--workers 2] [--rounds 3]
    python benchmarks/streaming.py --heads softmax [--rows N] [--folder DIR] [--rounds 3]

Makes shards of n rows, d = k = 16, one output, where there are none, and times in processes of their own:

    numpy      np.load of each shard, and ZᵀZ of z = (x, f), 64k rows at a time
    ours       one pass of ours: moments with radii at the point and at the origin, and the constants' sums
    local:1    the same on a worker, a process with one thread
    local:2    the same on so many
    plain:1    the same by one plain process with one thread, which keeps its memory as workers do
    plain:2    by so many plain processes, each with its part of the rows, that know nothing of each other
    halves     two plain NumPy processes at once, half of the files each

with the peak of memory (of the largest process).  What two processes can gain here is what the last two rows
say.  The first two take the threads that BLAS may take.

With --heads the shards have d = k = 256 and q = 100, class labels for softmax, targets for the others, and

    products   np.load of each shard, and the products that a pass by the bound method needs, 4k rows at once:
               p = xWᵀ + f(WV)ᵀ and pᵀx, pᵀf; with targets, which are the slopes at W = 0, yᵀx, yᵀf as well
    ours       one pass: F, ∇F and ‖A_f‖ with radii at the point and at W = 0, and the constants' sums

are timed in turn, with one thread of BLAS.  The last lines compare: the median of the rounds.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from resnet_cert.problem.problem import Problem

D = K = 16
WIDE, OUTPUTS = 256, 100
SHARD_ROWS, WIDE_ROWS = 250_000, 10_000
PRODUCT_ROWS = 4096
NUMPY_ROWS = 65_536


def make(folder: Path, rows: int) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for i, start in enumerate(range(0, rows, SHARD_ROWS)):
        m = min(SHARD_ROWS, rows - start)
        x, f = rng.normal(size=(m, D)), rng.normal(size=(m, K))
        y = x[:, 0] + 0.1 * rng.normal(size=m)
        np.savez(folder / f"{i:05}.npz", x=x, f=f, y=y)


def make_heads(folder: Path, rows: int, loss: str) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for i, start in enumerate(range(0, rows, WIDE_ROWS)):
        m = min(WIDE_ROWS, rows - start)
        x, f = rng.normal(size=(m, WIDE)), rng.normal(size=(m, WIDE))
        y = rng.integers(0, 2 if loss == "logistic" else OUTPUTS, m if loss == "softmax" else (m, OUTPUTS))
        np.savez(folder / f"{i:05}.npz", x=x, f=f, y=y.astype(np.float64))


def head_of_all() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(OUTPUTS, WIDE)) / WIDE, rng.normal(size=(WIDE, WIDE)) / WIDE


def products(folder: Path, loss: str) -> float:
    W, V = head_of_all()
    total, N = np.zeros((2, OUTPUTS, 2 * WIDE)), W @ V
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as shard:
            x, f, y = shard["x"], shard["f"], shard["y"]
        for start in range(0, len(y), PRODUCT_ROWS):
            rows = slice(start, start + PRODUCT_ROWS)
            p = x[rows] @ W.T
            p += f[rows] @ N.T
            for into, slopes in zip(total, (p,) if loss == "softmax" else (p, y[rows]), strict=False):
                into[:, :WIDE] += slopes.T @ x[rows]
                into[:, WIDE:] += slopes.T @ f[rows]
    return float(np.sum(total))


def pass_of_heads(folder: Path, loss: str) -> tuple[float, float]:
    from resnet_cert.moments.one_pass import observe_first
    from resnet_cert.problem.problem import Distribution, GivenFeatures, Point, Problem
    from resnet_cert.problem.shards import open_shards
    from resnet_cert.problem.targets import with_loss

    rows = open_shards(folder.parent, folder.name, {"x": "x", "y": "y", "f": "f"})
    data, known = with_loss(Distribution(rows["x"], rows["y"]), loss, OUTPUTS)
    problem = Problem(data, known, GivenFeatures(rows["f"]), Point(*head_of_all()), hessian="bound")
    return timed(lambda: observe_first(problem, 1.0))


def numpy_pass(folder: Path) -> float:
    return numpy_pass_over(sorted(folder.glob("*.npz")))


def numpy_pass_over(paths: list[Path]) -> float:
    total = np.zeros((D + K, D + K))
    for path in paths:
        with np.load(path) as shard:
            x, f, y = shard["x"], shard["f"], shard["y"]
        for start in range(0, len(y), NUMPY_ROWS):
            rows = slice(start, start + NUMPY_ROWS)
            z = np.hstack([x[rows], f[rows]])
            total += z.T @ z
    return float(np.trace(total))


def in_halves(folder: Path) -> tuple[float, float]:
    """Seconds of two processes that stand ready."""
    from multiprocessing import get_context

    paths = sorted(folder.glob("*.npz"))
    with get_context("spawn").Pool(2) as pool:
        pool.map(numpy_pass_over, [paths[:1], paths[:1]])  # NumPy is loaded, and the first file read
        return timed(lambda: pool.map(numpy_pass_over, [paths[::2], paths[1::2]]))


def problem_of(folder: Path) -> Problem:
    from resnet_cert.problem.problem import Distribution, GivenFeatures, Point, Problem
    from resnet_cert.problem.shards import open_shards
    from resnet_cert.problem.targets import with_loss

    rows = open_shards(folder.parent, folder.name, {"x": "x", "y": "y", "f": "f"})
    data, loss = with_loss(Distribution(rows["x"], rows["y"]), "squared", 1)
    return Problem(data, loss, GivenFeatures(rows["f"]), Point(np.ones((1, D)) / D, np.ones((D, K)) / K))


def our_pass(folder: Path, workers: int) -> tuple[float, float]:
    from resnet_cert.moments.executors import cluster, on_cluster
    from resnet_cert.moments.one_pass import observe

    problem = problem_of(folder)
    if not workers:
        return timed(lambda: observe(problem, 1.0))
    with cluster(f"local:{workers}") as client:
        problem = on_cluster(problem, client)
        return timed(lambda: observe(problem, 1.0))


def part_of_pass(folder: Path, part: int, of: int) -> object:
    from resnet_cert.moments.executors import Needs, summed_rows
    from resnet_cert.moments.one_pass import observed_sums

    problem = problem_of(folder)
    size = -(-problem.n // problem.chunk_rows // of) * problem.chunk_rows
    rows = part * size, min((part + 1) * size, problem.n)
    return summed_rows(problem, partial(observed_sums, b=1.0), *rows, Needs())


def in_plain_processes(folder: Path, count: int) -> tuple[float, float]:
    """Seconds of processes that stand ready."""
    from multiprocessing import get_context

    few = [(folder, i, 64) for i in range(count)]
    with get_context("spawn").Pool(count) as pool:
        pool.starmap(part_of_pass, few, chunksize=1)  # all code is loaded
        parts = [(folder, i, count) for i in range(count)]
        return timed(lambda: pool.starmap(part_of_pass, parts, chunksize=1))


def timed(task: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and those of this process's processor time."""
    started, used = time.perf_counter(), time.process_time()
    task()
    return time.perf_counter() - started, time.process_time() - used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=int)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "resnet-cert-shards")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--heads", choices=("softmax", "squared", "logistic"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    loss = arguments.heads
    rows = arguments.rows or (10**5 if loss else 10**7)
    folder = arguments.folder / (f"{loss}-{rows}" if loss else str(rows))
    if arguments.one:
        if arguments.one == "products":
            taken = timed(lambda: products(folder, loss))
        elif loss:
            taken = pass_of_heads(folder, loss)
        elif arguments.one == "numpy":
            taken = timed(lambda: numpy_pass(folder))
        elif arguments.one == "halves":
            taken = in_halves(folder)
        elif arguments.one.startswith("plain"):
            taken = in_plain_processes(folder, int(arguments.one.partition(":")[2]))
        else:
            taken = our_pass(folder, int(arguments.one.partition(":")[2] or 0))
        who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        peak = max(resource.getrusage(one).ru_maxrss for one in who) / 1024.0
        sys.stdout.write(f"{taken[0]} {taken[1]} {peak}\n")
        return
    if not folder.exists():
        make_heads(folder, rows, loss) if loss else make(folder, rows)
    two, apart = f"local:{arguments.workers}", f"plain:{arguments.workers}"
    from resnet_cert.moments.executors import KEEPS_MEMORY

    pairs = [("ours", "products")]
    turn = ("products", "ours")
    if not loss:
        pairs = [("ours", "numpy"), (two, "local:1"), (apart, "plain:1"), ("halves", "numpy")]
        turn = ("numpy", "ours", "plain:1", "local:1", apart, two, "halves")
    taken_by: dict[str, list[float]] = {one: [] for one in turn}
    for one in turn * arguments.rounds:
        command = [sys.executable, __file__, "--rows", str(rows), "--folder", str(arguments.folder)]
        command += ["--one", one, *(["--heads", loss] if loss else [])]
        alone = loss or one.startswith(("plain", "halves"))
        environment = os.environ | ({"OPENBLAS_NUM_THREADS": "1"} if alone else {})
        if one.startswith("plain"):
            environment |= {name: str(size) for name, size in KEEPS_MEMORY.items()}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        seconds, used, peak = map(float, done.stdout.split())
        taken_by[one].append(seconds)
        sys.stdout.write(f"{one:8} {seconds:8.2f} s  {used:8.2f} s cpu  {peak:8.0f} MB\n")
        sys.stdout.flush()
    for one, other in pairs:
        ratios = np.divide(taken_by[one], taken_by[other])
        sys.stdout.write(
            f"{one} / {other}: {np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})\n"
        )


if __name__ == "__main__":
    main()
