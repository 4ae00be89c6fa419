"""λ_min(∇²F) of a logistic loss from given features: the exact reduction against what one writes first.

    python benchmarks/lambda_min.py [--repetitions R] [--sizes COUNT] [--trained]

Side by side in one process, interleaved, medians:

    reduced        moments with proven radii in one pass, λ_min enclosed (moments/, decide/hessian)
    dense          jax.hessian of E[ℓ(wᵀ(x + V f))] and eigvalsh
    dense, split   the same with the prediction written as x·w + f·(Vᵀw)
    eigsh          scipy's Lanczos for the smallest eigenvalue (SA) over a compiled Hessian-vector product of
                   the split form, tol = 0 (machine precision) and tol = 1e-3; at most 100 restarts, nan
                   where it has not converged by then

Dense Hessians are left out where their tangents would not fit into DENSE_BYTES.  "right": within 1e-3
(relative) of the enclosed λ_min.  --trained: near a stationary point, where one wants to know.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from timing import interleaved_medians, random_logistic_problem, write_table

from resnet_cert import Enclosure, Problem
from resnet_cert.decide.hessian import curvature
from resnet_cert.moments.moments import merged, moment_sums, residual
from resnet_cert.numerics.jax64 import jax, jnp

SIZES = [(2000, 20, 20), (5000, 32, 64), (20000, 64, 128), (20000, 128, 512)]
DENSE_BYTES = 2**32
LANCZOS_RESTARTS = 100
TOLERANCE = 1e-3


def reduced(problem: Problem) -> Enclosure:
    """λ_min enclosed, from one pass over the data."""
    w, V = problem.point.w, problem.point.V
    parts = (moment_sums(problem.loss, chunk, residual(chunk, V), w) for chunk in problem.chunks())
    return curvature(merged(parts).expectation(), w).lambda_min


def arrays(problem: Problem) -> tuple[Any, Any, Any]:
    """x (n, d), f (n, k), y (n,)."""
    (data, rows) = (problem.distribution, slice(0, problem.n))
    return data.x[rows], problem.features.rows(rows, data.x[rows], problem.n), data.y[rows]


def objective(point: Any, x: Any, f: Any, y: Any, split: bool) -> Any:
    """F at the flat point (w, V): the prediction as wᵀ(x + V f), or as x·w + f·(Vᵀw)."""
    d, k = x.shape[1], f.shape[1]
    w, V = point[:d], point[d:].reshape(d, k)
    p = x @ w + f @ (V.T @ w) if split else (x + f @ V.T) @ w
    return jnp.mean(jnp.logaddexp(0.0, -y * p))


def dense(problem: Problem, split: bool) -> Callable[[], float]:
    """The smallest eigenvalue of the whole Hessian."""
    point, data = flat_point(problem), tuple(map(jnp.asarray, arrays(problem)))
    hessian = jax.jit(jax.hessian(partial(objective, split=split)))
    return lambda: float(np.linalg.eigvalsh(np.asarray(hessian(point, *data)))[0])


def lanczos(problem: Problem, tolerance: float) -> Callable[[], float]:
    """The smallest eigenvalue by eigsh over a Hessian-vector product; NaN where it does not converge."""
    point, data = flat_point(problem), tuple(map(jnp.asarray, arrays(problem)))
    gradient = jax.grad(partial(objective, split=True))
    along = jax.jit(lambda v, *data: jax.jvp(lambda z: gradient(z, *data), (point,), (v,))[1])
    size = point.size
    start = np.random.default_rng(1).normal(size=size)

    def matvec(v: np.ndarray) -> np.ndarray:
        return np.asarray(along(v.ravel(), *data))

    def smallest() -> float:
        operator = LinearOperator((size, size), matvec=matvec, dtype=np.float64)
        try:
            return float(
                eigsh(
                    operator,
                    k=1,
                    which="SA",
                    tol=tolerance,
                    v0=start,
                    maxiter=LANCZOS_RESTARTS,
                    return_eigenvectors=False,
                )[0]
            )
        except ArpackNoConvergence:
            return float("nan")

    return smallest


def flat_point(problem: Problem) -> Any:
    return jnp.concatenate([problem.point.w, problem.point.V.ravel()])


def compare(n: int, d: int, k: int, repetitions: int, trained: bool) -> None:
    """One size: a table of medians, ratios to `reduced`, and whether each is right."""
    problem = random_logistic_problem(n, d, k, trained=trained)
    parameters = d * (1 + k)
    tasks: dict[str, Callable[[], Any]] = {"reduced": partial(reduced, problem)}
    if max(n * d, parameters) * parameters * 8 <= DENSE_BYTES:
        tasks["dense"] = dense(problem, split=False)
    if max(n, parameters) * parameters * 8 <= DENSE_BYTES:
        tasks["dense, split"] = dense(problem, split=True)
    tasks["eigsh, tol 0"] = lanczos(problem, 0.0)
    tasks["eigsh, tol 1e-3"] = lanczos(problem, TOLERANCE)

    found: dict[str, Any] = {}
    keep = {name: partial(_keep, found, name, task) for name, task in tasks.items()}
    medians = interleaved_medians(keep, repetitions)
    truth = found["reduced"]
    rows = [["", "median s", "ratio", "λ_min", "right"]]
    for name, seconds in medians.items():
        value = found[name].value if name == "reduced" else found[name]
        right = "yes" if abs(value - truth.value) <= TOLERANCE * abs(truth.value) else "no"
        rows.append([name, f"{seconds:.4f}", f"{seconds / medians['reduced']:.1f}", f"{value:.6e}", right])
    sys.stdout.write(f"\nn = {n}, d = {d}, k = {k}: {parameters} parameters, reduced to {2 * d + k - 1}; ")
    sys.stdout.write(f"λ_min in [{truth.lower!r}, {truth.upper!r}]\n")
    write_table(rows)


def _keep(found: dict[str, Any], name: str, task: Callable[[], Any]) -> None:
    found[name] = task()


def compare_with_matrix_products(n: int, d: int, k: int, repetitions: int) -> None:
    """Our λ_min against three products ZᵀY of n×(d+k) matrices, what the moments cost at the least."""
    problem = random_logistic_problem(n, d, k)
    x, f, _ = arrays(problem)
    Z = np.hstack([x, f])
    Y = 0.25 * Z
    tasks: dict[str, Callable[[], Any]] = {
        "reduced": partial(reduced, problem),
        "three products": lambda: [Z.T @ Y for _ in range(3)],
    }
    medians = interleaved_medians(tasks, repetitions)
    ours, products = medians.values()
    sys.stdout.write(
        f"\nn = {n}, d = {d}, k = {k}: reduced {ours:.4f} s, three products of the data {products:.4f} s, "
    )
    sys.stdout.write(f"ratio {ours / products:.2f}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time λ_min from given features.")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--sizes", type=int, default=len(SIZES), help="how many sizes, the smallest first")
    parser.add_argument("--trained", action="store_true", help="near a stationary point")
    chosen = parser.parse_args()
    for size in SIZES[: chosen.sizes]:
        compare(*size, repetitions=chosen.repetitions, trained=chosen.trained)
    compare_with_matrix_products(*SIZES[chosen.sizes - 1], repetitions=chosen.repetitions)


if __name__ == "__main__":
    main()
