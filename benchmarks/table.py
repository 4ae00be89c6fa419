"""λ_min(∇²F) by us and by what a user would reach for instead: time, error, right or not, proved or not.

    python benchmarks/table.py [--only CASE[,CASE...]] [--methods WORD[,...]] [--limit SECONDS] [--markdown]

One table in one run.  Every entry is a process of its own, with one thread, a limit of time and of memory:
what exceeds one says so.  Times are the processor's, medians of warm calls; the first one, which compiles, is
not counted.
The truth is our enclosure; "right" means within 1e-3 of it, or within its width where that is more.
With --markdown the table has a row for each method and a column for each case: the time, and the error, or
the half width of an enclosure; in bold where it is wrong.

Cases: D = 420, 2080, 8256, 65664 parameters of a logistic loss at a random point; `near`, D = 420 next to a
stationary point (λ_min = −4e-7 beside (d − 1)(k − 1) exact zeros); `minimum`, at one (λ_min = 0); `digits`,
ten classes with a bias (needs scikit-learn).  Methods that are not installed say so: matfree,
curvlinops-for-pytorch, hessian-eigenthings, torch.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402  (its threads are capped first)

CASES = ("420", "2080", "8256", "65664", "near", "minimum", "digits")
SIZES = {
    "420": (2000, 20, 20),
    "2080": (5000, 32, 64),
    "8256": (20000, 64, 128),
    "65664": (20000, 128, 512),
    "near": (2000, 20, 20),
    "minimum": (2000, 20, 20),
}
TOLERANCE = 1e-3
LANCZOS_STEPS = 100
REPETITIONS = 5
MEMORY = 12 * 2**30


@dataclass(frozen=True)
class Data:
    """p = W(x + EVf) of a head W (q, d), d1 = rows of V; y: ±1 (n,), or labels (n,) for q > 1."""

    x: np.ndarray
    f: np.ndarray
    y: np.ndarray
    W: np.ndarray
    V: np.ndarray

    @property
    def q(self) -> int:
        return len(self.W)


def data_of(case: str) -> Data:
    if case == "digits":
        return digits()
    from timing import random_logistic_problem

    n, d, k = SIZES[case]
    off = {"near": 1e-3, "minimum": 0.0}.get(case)
    problem = random_logistic_problem(n, d, k, trained=off is not None, off=off or 0.0)
    everything = slice(0, n)
    x, y = problem.distribution.x[everything], problem.distribution.y[everything]
    return Data(x, problem.features.rows(everything, x, n), y, problem.point.W, problem.point.V)


def digits() -> Data:
    """8×8 digits with a column of ones, 128 random ReLU features, and a head trained by gradient descent."""
    from sklearn.datasets import load_digits

    images, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    x = np.column_stack([images / 16.0, np.ones(len(images))])
    f = np.maximum(x @ rng.normal(size=(65, 128)) / 8.0, 0.0)
    W, V = 0.1 * rng.normal(size=(10, 65)), 0.1 * rng.normal(size=(65, 128))
    onehot = np.eye(10)[y]
    for _ in range(300):
        h = x + f @ V.T
        p = h @ W.T
        slope = np.exp(p - p.max(axis=1, keepdims=True))
        slope = (slope / slope.sum(axis=1, keepdims=True) - onehot) / len(y)
        W, V = W - 0.5 * slope.T @ h, V - 0.5 * W.T @ (slope.T @ f)
    return Data(x, f, y, W, V)


# --- Ours -------------------------------------------------------------------------------------------------


def ours(data: Data, method: str) -> Callable[[], tuple[float, float, float]]:
    """λ_min enclosed, from the arrays on: (value, lower, upper)."""
    from resnet_cert import Problem
    from resnet_cert.decide.decision import slope
    from resnet_cert.decide.first_order import bounded
    from resnet_cert.decide.hessian import curvature, reduction
    from resnet_cert.moments.executors import summed
    from resnet_cert.moments.gradient import first_moments
    from resnet_cert.moments.moments import moment_sums, residual
    from resnet_cert.problem.span import gradient_basis

    loss = "softmax" if data.q > 1 else "logistic"
    problem = Problem.from_arrays(x=data.x, y=data.y, f=data.f, W=data.W, V=data.V, loss=loss)

    def contribution(problem: Problem, chunk: Any, blocks: Any) -> Any:
        at = residual(chunk, problem.V, blocks)
        return moment_sums(problem.loss, chunk, at, problem.W, blocks)

    def exact() -> tuple[float, float, float]:
        here = summed(problem, contribution).expectation()
        found = curvature(reduction(here, problem.W, problem.d1, gradient_basis(problem))).lambda_min
        return found.value, found.lower, found.upper

    def bound() -> tuple[float, float, float]:
        here = first_moments(problem)
        found = bounded(problem, here, slope(problem, here), None, open_=True).lambda_min
        return found.value, found.lower, found.upper

    return exact if method == "exact" else bound


# --- JAX --------------------------------------------------------------------------------------------------


def in_jax(data: Data, *, split: bool) -> tuple[Callable[..., Any], Any, tuple[Any, ...]]:
    """The objective of a flat point, that point, and the arrays."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    (q, d), (d1, k) = data.W.shape, data.V.shape

    def objective(z: Any, x: Any, f: Any, y: Any) -> Any:
        W, V = z[: q * d].reshape(q, d), z[q * d :].reshape(d1, k)
        p = x @ W.T + f @ (W[:, :d1] @ V).T if split else (x + f @ V.T) @ W.T
        if q == 1:
            return jnp.mean(jnp.logaddexp(0.0, -y * p[:, 0]))
        return jnp.mean(jax.nn.logsumexp(p, axis=1) - jnp.take_along_axis(p, y[:, None], axis=1)[:, 0])

    point = jnp.concatenate([jnp.asarray(data.W).ravel(), jnp.asarray(data.V).ravel()])
    return objective, point, (jnp.asarray(data.x), jnp.asarray(data.f), jnp.asarray(data.y))


def dense(data: Data, *, split: bool) -> Callable[[], float]:
    import jax

    objective, point, arrays = in_jax(data, split=split)
    hessian = jax.jit(jax.hessian(objective))
    return lambda: float(np.linalg.eigvalsh(np.asarray(hessian(point, *arrays)))[0])


def product(data: Data) -> tuple[Callable[[Any], Any], int]:
    """A compiled Hessian-vector product of the objective that is written for it."""
    import jax

    objective, point, arrays = in_jax(data, split=True)
    gradient = jax.grad(objective)
    along = jax.jit(lambda v, *arrays: jax.jvp(lambda z: gradient(z, *arrays), (point,), (v,))[1])
    return lambda v: along(v, *arrays), point.size


def scipy_eigsh(data: Data, tolerance: float) -> Callable[[], float]:
    from scipy.sparse.linalg import LinearOperator

    along, size = product(data)
    operator = LinearOperator((size, size), matvec=lambda v: np.asarray(along(v.ravel())), dtype=np.float64)
    return lambda: _smallest(operator, tolerance)


def _smallest(operator: Any, tolerance: float) -> float:
    from scipy.sparse.linalg import ArpackNoConvergence, eigsh

    start = np.random.default_rng(1).normal(size=operator.shape[0])
    try:
        found = eigsh(operator, k=1, which="SA", tol=tolerance, v0=start, return_eigenvectors=False)
    except ArpackNoConvergence:
        return float("nan")
    return float(found[0])


def matfree(data: Data) -> Callable[[], float]:
    import jax
    import jax.numpy as jnp
    from matfree import decomp

    along, size = product(data)
    steps = min(LANCZOS_STEPS, size - 1)
    tridiagonal = decomp.tridiag_sym(steps, materialize=True, reortho="full")
    start = jax.random.normal(jax.random.PRNGKey(1), (size,), dtype=jnp.float64)
    return lambda: float(jnp.linalg.eigvalsh(tridiagonal(along, start).J_small)[0])


# --- PyTorch ----------------------------------------------------------------------------------------------


def in_torch(data: Data) -> tuple[Any, Any, Any, Any]:
    """Model, loss, inputs (x, f) side by side, and targets, in float64."""
    import torch

    torch.set_num_threads(1)
    d, d1 = data.W.shape[1], data.V.shape[0]

    class Head(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.W = torch.nn.Parameter(torch.tensor(data.W))
            self.V = torch.nn.Parameter(torch.tensor(data.V))

        def forward(self, z: Any) -> Any:
            x, f = z[:, :d], z[:, d:]
            p = x @ self.W.T + f @ (self.W[:, :d1] @ self.V).T
            return p[:, 0] if data.q == 1 else p

    z = torch.tensor(np.hstack([data.x, data.f]))
    if data.q == 1:
        return Head(), torch.nn.BCEWithLogitsLoss(), z, torch.tensor((1.0 + data.y) / 2.0)
    return Head(), torch.nn.CrossEntropyLoss(), z, torch.tensor(data.y)


def curvlinops(data: Data) -> Callable[[], float]:
    from curvlinops import HessianLinearOperator

    model, loss, z, y = in_torch(data)
    operator = HessianLinearOperator(
        model, loss, list(model.parameters()), [(z, y)], check_deterministic=False
    )
    scipy_operator = operator.to_scipy()
    return lambda: _smallest(scipy_operator, TOLERANCE)


def eigenthings(data: Data) -> Callable[[], float]:
    from hessian_eigenthings import HessianOperator, lanczos

    model, loss, z, y = in_torch(data)
    operator = HessianOperator(model, [(z, y)], lambda model, batch: loss(model(batch[0]), batch[1]))

    def smallest() -> float:
        found = lanczos(operator, k=1, max_iter=LANCZOS_STEPS, which="SA", reorthogonalize=True, seed=1)
        return float(found.eigenvalues[0])

    return smallest


METHODS: dict[str, Callable[[Data], Callable[[], Any]]] = {
    "resnet-cert, exact": lambda data: ours(data, "exact"),
    "resnet-cert, bound": lambda data: ours(data, "bound"),
    "jax.hessian + eigvalsh": lambda data: dense(data, split=False),
    "jax.hessian + eigvalsh, p = Wx + (WV)f": lambda data: dense(data, split=True),
    "scipy eigsh, JAX HVP, tol 0": lambda data: scipy_eigsh(data, 0.0),
    "scipy eigsh, JAX HVP, tol 1e-3": lambda data: scipy_eigsh(data, TOLERANCE),
    "curvlinops + eigsh, tol 1e-3": curvlinops,
    "hessian-eigenthings, 100 steps": eigenthings,
    "matfree, 100 steps": matfree,
}


# --- One entry, and the table -----------------------------------------------------------------------------


def one(method: str, case: str, limit: float) -> None:
    """The entry as JSON, from a process of its own."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 5))
    task = METHODS[method](data_of(case))
    value = task()  # compiles
    seconds = []
    for _ in range(REPETITIONS):
        started = time.process_time()
        value = task()
        seconds.append(time.process_time() - started)
        if sum(seconds) > 10.0:
            break
    values = value if isinstance(value, tuple) else (value, None, None)
    sys.stdout.write(json.dumps({"seconds": statistics.median(seconds), "values": values}) + "\n")


def entry(method: str, case: str, limit: float) -> dict[str, Any]:
    command = [sys.executable, __file__, "--limit", str(limit), "--one", method, case]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == -signal.SIGXCPU:
        return {"failed": f"> {limit:g} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["killed"])[-1]
        if "ModuleNotFoundError" in last:
            return {"failed": "not installed"}
        return {"failed": "out of memory" if "emory" in done.stderr or done.returncode < 0 else last[:40]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def truth_of(entries: dict[str, dict[str, Any]]) -> tuple[float, float]:
    """λ_min, and how much an answer may be off to be right."""
    exact = entries.get("resnet-cert, exact", {}).get("values")
    if exact is None:
        return float("nan"), 0.0
    value, lower, upper = exact
    return value, max(TOLERANCE * abs(value), upper - lower, 1e-12)


def took(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1.0 else f"{seconds:.3g} s"


def is_right(found: dict[str, Any], truth: float, slack: float) -> bool:
    """An enclosure says how far off it may be, and is right where it holds the truth."""
    value, lower, upper = found["values"]
    return abs(value - truth) <= slack if lower is None else lower - slack <= truth <= upper + slack


def cells(found: dict[str, Any], truth: float, slack: float) -> list[str]:
    """Of the long table: time, λ_min, right, proved."""
    if "failed" in found:
        return [found["failed"], "", "", ""]
    value, lower, upper = found["values"]
    right = "yes" if is_right(found, truth, slack) else "no"
    if lower is not None:
        return [took(found["seconds"]), f"[{lower:.4g}, {upper:.4g}]", right, "proved"]
    return [took(found["seconds"]), f"{value:.4g}", right, "no"]


def cell(found: dict[str, Any], truth: float, slack: float) -> str:
    """Of the short one: time, and the error, or the width of an enclosure; bold where it is wrong."""
    if "failed" in found:
        return found["failed"]
    value, lower, upper = found["values"]
    off = f"{value - truth:+.0e}" if lower is None else f"± {(upper - lower) / 2.0:.0e}"
    text = f"{took(found['seconds'])}, {off if math.isfinite(value) else 'no answer'}"
    return text if is_right(found, truth, slack) else f"**{text}**"


def is_proved(entries: dict[str, dict[str, Any]]) -> bool:
    """All that a method says are enclosures."""
    values = [found["values"] for found in entries.values() if "values" in found]
    return bool(values) and all(lower is not None for _, lower, _ in values)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--methods", default="")
    parser.add_argument("--limit", type=float, default=120.0)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "CASE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        return one(*arguments.one, arguments.limit)
    chosen = [
        m for m in METHODS if not arguments.methods or any(w in m for w in arguments.methods.split(","))
    ]
    sys.stdout.write(
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} processors, one thread each; "
        f"Python {platform.python_version()}, NumPy {np.__version__}\n\n"
    )
    cases = arguments.only.split(",")
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for case in cases:
        table[case] = {}
        for method in chosen:
            table[case][method] = entry(method, case, arguments.limit)
            row = [case, method, *cells(table[case][method], *truth_of(table[case]))]
            line = "{:8}{:42}{:>14}  {:>26}  {:>5}  {}".format(*row).rstrip()
            sys.stderr.write(line + "\n") if arguments.markdown else sys.stdout.write(line + "\n")
            sys.stdout.flush()
    if arguments.markdown:
        names = [f"D = {case}" if case.isdigit() else case for case in cases]
        sys.stdout.write("| " + " | ".join(["", *names, "proved"]) + " |\n")
        sys.stdout.write("|" + "---|" * (len(names) + 2) + "\n")
        for method in chosen:
            entries = {case: table[case][method] for case in cases}
            row = [cell(entries[case], *truth_of(table[case])) for case in cases]
            proved = "yes" if is_proved(entries) else "no"
            sys.stdout.write("| " + " | ".join([method, *row, proved]) + " |\n")
    return None


if __name__ == "__main__":
    main()
