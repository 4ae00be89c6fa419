"""What the proofs cost: `check` against the same numbers in plain float64, without a single error bound.

    python benchmarks/proofs.py [--repetitions R]

Logistic loss, in process and warm, at (n, d, k) = (20000, 64, 128) and (100000, 20, 64).  Plain are F, g_w,
a, A, B, C at (w, V) and (0, V) by matrix products of the whole data, Newton's method for min F_lin, the
reduced eigenproblem and the one at the origin, μ0, μ1, μ2, and the same cross-check by autodiff.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from timing import interleaved_medians, random_logistic_problem

from resnet_cert import Problem, check
from resnet_cert.decide.hessian import Direction
from resnet_cert.decide.objective import autodiff

SIZES = ((20000, 64, 128), (100000, 20, 64))


def moments(h: np.ndarray, f: np.ndarray, y: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, ...]:
    n = len(y)
    p = h @ w
    sigmoid = 1.0 / (1.0 + np.exp(y * p))
    first, second = -y * sigmoid / n, sigmoid * (1.0 - sigmoid) / n
    F = np.mean(np.logaddexp(0.0, -y * p))
    weighted = np.sqrt(second)[:, None]
    wh, wf = weighted * h, weighted * f
    if not w.any():
        return F, first @ h, first @ f, wh.T @ wh
    return F, first @ h, first @ f, wh.T @ wh, wh.T @ wf, wf.T @ wf


def linear_minimum(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    w = np.zeros(x.shape[1])
    none = np.empty((len(x), 0))
    for _ in range(50):
        _, gradient, _, A, *_ = moments(x, none, y, w)
        if np.linalg.norm(gradient) < 1e-14:
            break
        w = w - np.linalg.solve(A, gradient)
    return w


def lipschitz(x: np.ndarray, f: np.ndarray, b: float) -> np.ndarray:
    x_norm, f_norm = np.linalg.norm(x, axis=1), np.linalg.norm(f, axis=1)
    h = x_norm + b * f_norm
    reach, J = b * h, np.sqrt(h**2 + (b * f_norm) ** 2)
    L1, L2 = 1.0 / (1.0 + np.exp(-reach)), 0.25
    e = np.exp(-np.minimum(reach, 1.3169578969248166))
    L3 = e * (1.0 - e) / (1.0 + e) ** 3
    return np.mean([L1 * J, L2 * J**2 + L1 * f_norm, L3 * J**3 + 3.0 * L2 * J * f_norm], axis=1)


def plain_check(problem: Problem) -> float:
    """The numbers of a report, none of them proven: λ_min."""
    rows = slice(0, problem.n)
    x, y = problem.distribution.x[rows], problem.distribution.y[rows]
    f = problem.features.rows(rows, x, problem.n)
    w, V = problem.point.w, problem.point.V
    linear_minimum(x, y)
    h = x + f @ V.T
    _, _, a, A, B, C = moments(h, f, y, w)
    origin = moments(h, f, y, np.zeros_like(w))
    np.linalg.eigvalsh(origin[3])
    lipschitz(x, f, 1.01 * max(np.linalg.norm(w), np.linalg.norm(V, 2)))
    s = np.linalg.norm(w)
    e, (d, k) = w / s, V.shape
    basis = np.linalg.qr(np.column_stack([e, np.eye(d)]))[0][:, 1:]
    reduced = np.zeros((2 * d + k - 1,) * 2)
    reduced[:d, :d], reduced[:d, d : d + k] = A, s * B + np.outer(e, a)
    reduced[:d, d + k :] = np.linalg.norm(a) * basis
    reduced[d:, :d] = reduced[:d, d:].T
    reduced[d : d + k, d : d + k] = s * s * C
    eigenvalues, vectors = np.linalg.eigh(reduced)
    dw, v, u = np.split(vectors[:, 0], [d, d + k])
    direction = Direction(dw, np.outer(e, v) + np.outer(basis @ u, a / np.linalg.norm(a)))
    autodiff(problem, direction)
    return float(eigenvalues[0])


def main() -> None:
    parser = argparse.ArgumentParser(description="Time `check` against plain float64.")
    parser.add_argument("--repetitions", type=int, default=7)
    repetitions = parser.parse_args().repetitions
    for size in SIZES:
        problem: Problem = random_logistic_problem(*size)
        tasks = {"proven": lambda p=problem: check(p), "plain": lambda p=problem: plain_check(p)}
        proven, plain = interleaved_medians(tasks, repetitions).values()
        sys.stdout.write(
            f"n, d, k = {size}: proven {proven:.3f} s, plain {plain:.3f} s, {proven / plain:.2f}\n"
        )


if __name__ == "__main__":
    main()
