"""Peak resident memory of `check` on samples that lie in .npy files: it must not grow with their number.

    python benchmarks/memory.py [--rows N] [--directory DIR]

d = k = 8, given features: 4 million rows are 0.5 GiB on disk.  A check of configs/example-1.yaml shows what
the program takes without any data.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
D = K = 8
ROWS_AT_ONCE = 100_000
SPEC = """\
version: 1
data: {x: x.npy, y: y.npy, f: f.npy}
loss: logistic
network: {kind: given}
point: {file: point.npz}
epsilon: 0.1
"""


def write_problem(directory: Path, n: int) -> None:
    """many-rows.yaml with Gaussian x, f = tanh x, noisy labels; written some rows at a time."""
    rng = np.random.default_rng(0)
    shapes = {"x": (n, D), "y": (n,), "f": (n, K)}
    files = {
        name: np.lib.format.open_memmap(directory / f"{name}.npy", mode="w+", dtype=np.float64, shape=shape)
        for name, shape in shapes.items()
    }
    for start in range(0, n, ROWS_AT_ONCE):
        rows = slice(start, min(start + ROWS_AT_ONCE, n))
        x = rng.normal(size=files["x"][rows].shape)
        files["x"][rows], files["f"][rows] = x, np.tanh(x)
        files["y"][rows] = np.where(x[:, 0] + rng.normal(size=len(x)) > 0.0, 1.0, -1.0)
    for file in files.values():
        file.flush()
    np.savez(directory / "point.npz", w=np.full(D, 0.1), V=np.full((D, K), 0.01))
    (directory / "many-rows.yaml").write_text(SPEC, encoding="utf-8")


def peak(spec: Path) -> tuple[float, float, int]:
    """(peak resident MiB, seconds, exit code) of one check."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "resnet_cert", "check", str(spec)], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss / 1024, time.perf_counter() - started, process.returncode


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory of `check` on mapped files.")
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument(
        "--directory", type=Path, help="where to write the samples (a temporary one by default)"
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.directory) as directory:
        # In a process of its own: what a parent has resident counts in the peak of its later children.
        writer = multiprocessing.get_context("spawn").Process(
            target=write_problem, args=(Path(directory), chosen.rows)
        )
        writer.start()
        writer.join()
        specs = {
            "example-1": ROOT / "configs" / "example-1.yaml",
            f"{chosen.rows} rows": Path(directory) / "many-rows.yaml",
        }
        for name, spec in specs.items():
            resident, seconds, code = peak(spec)
            sys.stdout.write(f"{name:>16}: {resident:7.0f} MiB, {seconds:6.1f} s, exit {code}\n")


if __name__ == "__main__":
    main()
