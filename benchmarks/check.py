"""The whole of `check` against the linear algebra that no check can do without.

    python benchmarks/check.py [--size n,d,k] [--repetitions R]

Logistic loss, in process and warm, in seconds of the processor; by default n, d, k = 20000, 64, 128, where
the goal is a ratio of 2; that of 20000, 128, 512 is 1.5.  Unavoidable are h = x + V f, the weighted
Gram matrix of (h, f) at (w, V) and that of h at (0, V), one weighted Gram matrix of x for each Newton step
towards min F_lin, and the eigenproblem of size 2d + k − 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from timing import interleaved_medians, random_logistic_problem

from resnet_cert import Problem, check


def newton_steps(x: np.ndarray, y: np.ndarray) -> int:
    """How many Newton steps bring the gradient of the logistic F_lin from w = 0 to rounding."""
    w = np.zeros(x.shape[1])
    for step in range(50):
        sigmoid = 1.0 / (1.0 + np.exp(y * (x @ w)))
        gradient = -x.T @ (y * sigmoid) / len(y)
        if np.linalg.norm(gradient) < 1e-14:
            return step
        w -= np.linalg.solve((x.T * (sigmoid * (1.0 - sigmoid))) @ x / len(y), gradient)
    return 50


def unavoidable(x: np.ndarray, f: np.ndarray, V: np.ndarray, weight: np.ndarray, steps: int) -> float:
    """The matrix products and the eigenproblem, with any weights."""
    h = x + f @ V.T
    Z = np.hstack([h, f])
    gram = (Z.T * weight) @ Z
    (h.T * weight) @ h
    for _ in range(steps):
        (x.T * weight) @ x
    size = 2 * V.shape[0] + V.shape[1] - 1
    padded = np.zeros((size, size))
    padded[: len(gram), : len(gram)] = gram
    return float(np.linalg.eigh(padded)[0][0])


def main() -> None:
    parser = argparse.ArgumentParser(description="Time `check` against its matrix products.")
    parser.add_argument("--size", default="20000,64,128")
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    n, d, k = map(int, arguments.size.split(","))
    problem: Problem = random_logistic_problem(n, d, k)
    rows = slice(0, problem.n)
    x, y = problem.distribution.x[rows], problem.distribution.y[rows]
    f = problem.features.rows(rows, x, problem.n)
    steps = newton_steps(x, y)
    weight = np.full(problem.n, 0.25)
    tasks = {
        "check": lambda: check(replace(problem)),  # without what a problem keeps of itself
        "unavoidable": lambda: unavoidable(x, f, problem.point.V, weight, steps),
    }
    whole, least = interleaved_medians(tasks, arguments.repetitions, time.process_time).values()
    sys.stdout.write(
        f"n, d, k = {n}, {d}, {k}: check {whole:.3f} s, products ({steps} Newton steps) and eigenproblem "
    )
    sys.stdout.write(f"{least:.3f} s, ratio {whole / least:.2f}\n")


if __name__ == "__main__":
    main()
