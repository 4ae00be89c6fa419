"""A pass over shards against one plain NumPy pass that reads the same files and forms the same Gram matrix.

    python benchmarks/streaming.py [--rows N] [--folder DIR] [--workers 2]

Makes shards of n rows, d = k = 16, one output, where there are none, and times in processes of their own:

    numpy      np.load of each shard, and ZᵀZ of z = (x, f), 64k rows at a time
    ours       one pass of ours: moments with radii at the point and at the origin, and the constants' sums
    local:1    the same on a worker, a process with one thread
    local:2    the same on so many
    halves     two plain NumPy processes at once, half of the files each: what two processes can gain here

with the peak of memory (of the largest process).  The first two take the threads that NumPy's BLAS may take.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

D = K = 16
SHARD_ROWS = 250_000
NUMPY_ROWS = 65_536


def make(folder: Path, rows: int) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for i, start in enumerate(range(0, rows, SHARD_ROWS)):
        m = min(SHARD_ROWS, rows - start)
        x, f = rng.normal(size=(m, D)), rng.normal(size=(m, K))
        y = x[:, 0] + 0.1 * rng.normal(size=m)
        np.savez(folder / f"{i:05}.npz", x=x, f=f, y=y)


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


def in_halves(folder: Path) -> float:
    """Seconds of two processes that stand ready."""
    from multiprocessing import get_context

    paths = sorted(folder.glob("*.npz"))
    with get_context("spawn").Pool(2) as pool:
        pool.map(numpy_pass_over, [paths[:1], paths[:1]])  # NumPy is loaded, and the first file read
        return timed(lambda: pool.map(numpy_pass_over, [paths[::2], paths[1::2]]))


def our_pass(folder: Path, workers: int) -> float:
    from resnet_cert.moments.executors import cluster, on_cluster
    from resnet_cert.moments.one_pass import observe
    from resnet_cert.problem.problem import Distribution, GivenFeatures, Point, Problem
    from resnet_cert.problem.shards import open_shards
    from resnet_cert.problem.targets import with_loss

    rows = open_shards(folder.parent, folder.name, {"x": "x", "y": "y", "f": "f"})
    data, loss = with_loss(Distribution(rows["x"], rows["y"]), "squared", 1)
    point = Point(np.ones((1, D)) / D, np.ones((D, K)) / K)
    problem = Problem(data, loss, GivenFeatures(rows["f"]), point)
    if not workers:
        return timed(lambda: observe(problem, 1.0))
    with cluster(f"local:{workers}") as client:
        problem = on_cluster(problem, client)
        small = replace(problem, executor=problem.executor)
        return timed(lambda: observe(small, 1.0))


def timed(task: object) -> float:
    started = time.perf_counter()
    task()  # type: ignore[operator]
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=10**7)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "resnet-cert-shards")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.folder / str(arguments.rows)
    if arguments.one:
        if arguments.one == "numpy":
            seconds = timed(lambda: numpy_pass(folder))
        elif arguments.one == "halves":
            seconds = in_halves(folder)
        else:
            seconds = our_pass(folder, int(arguments.one.partition(":")[2] or 0))
        who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        peak = max(resource.getrusage(one).ru_maxrss for one in who) / 1024.0
        sys.stdout.write(f"{seconds} {peak} {time.process_time()}\n")
        return
    if not folder.exists():
        make(folder, arguments.rows)
    first = None
    for one in ("numpy", "ours", "local:1", f"local:{arguments.workers}", "halves"):
        command = [sys.executable, __file__, "--rows", str(arguments.rows), "--folder", str(arguments.folder)]
        command += ["--one", one]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, peak, processor = map(float, done.stdout.split())
        first = seconds if first is None else first
        ratio = f"{seconds / first:6.2f} × numpy"
        sys.stdout.write(f"{one:8} {seconds:8.2f} s  {ratio}  {peak:8.0f} MB  {processor:8.2f} s cpu\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
