"""Train a residual block on real data and write it down for `resnet-cert check`: once done, once half-way.

    python examples/train_residual_block.py          # writes configs/data/{diabetes,breast-cancer,wine}*.npz

The model is wᵀ(x + V f_θ(x)) with f_θ(x) = W2·tanh(W1·x + b1) + b2.  L-BFGS moves θ, w and V together; the
iterate after `halfway` steps is kept as it is.  At the end θ stays and (w, V) alone is polished: with z = Vᵀw
the prediction wᵀx + zᵀf is linear in (w, z), so the best one is a convex problem that Newton's method solves
to rounding, and V + w(z − Vᵀw)ᵀ/‖w‖² is the nearest V with Vᵀw = z.  There E[ℓ'x] = 0 and E[ℓ'f] = 0: the
gradient in (w, V) vanishes, and the Hessian has no negative eigenvalue.

With several outputs w and z are the matrices Wᵀ and (WV)ᵀ, and w/‖w‖² is the pseudoinverse of W.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize

jax.config.update("jax_enable_x64", True)

DATA = Path(__file__).resolve().parent.parent / "configs" / "data"
Parameters = dict[str, jax.Array]


@dataclass(frozen=True)
class Task:
    """One data set: its columns, its loss ℓ(p; y), the sizes of the network, the length of the training."""

    name: str
    inputs: Sequence[str]
    target: str
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    hidden: int
    k: int
    steps: int
    halfway: int
    outputs: int | None = None  # None: one prediction, p a number and not a vector

    @property
    def weight(self) -> str:
        """The name of w, or of W."""
        return "w" if self.outputs is None else "W"


def softmax_cross_entropy(p: jax.Array, y: jax.Array) -> jax.Array:
    """log Σ_j e^{p_j} − p_y for class labels y."""
    of_class = jnp.take_along_axis(p, y[:, None].astype(int), axis=1)[:, 0]
    return jax.nn.logsumexp(p, axis=1) - of_class


TASKS = [
    Task(
        name="diabetes",
        inputs=["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6", "one"],
        target="progression",
        loss=lambda p, y: 0.5 * (p - y) ** 2,
        hidden=16,
        k=8,
        steps=60,
        halfway=30,
    ),
    Task(
        name="breast-cancer",
        # Six of the ten means, without the near copies of one another (radius, perimeter and area, ...).
        # All thirty columns separate the two classes: no linear predictor would be the best.
        inputs=[
            *("mean texture", "mean area", "mean smoothness"),
            *("mean concavity", "mean symmetry", "mean fractal dimension", "one"),
        ],
        target="benign",
        loss=lambda p, y: jnp.logaddexp(0.0, -y * p),
        hidden=8,
        k=4,
        steps=20,
        halfway=10,
    ),
    Task(
        name="wine",
        # Three of the thirteen measurements: all of them separate the three cultivars.
        inputs=["alcohol", "malic_acid", "color_intensity", "one"],
        target="cultivar",
        loss=softmax_cross_entropy,
        hidden=4,
        k=2,
        steps=40,
        halfway=20,
        outputs=3,
    ),
]


def read(task: Task) -> tuple[jax.Array, jax.Array]:
    """x (n, d), y (n,)."""
    with (DATA / f"{task.name}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    x = np.array([[float(row[name]) for name in task.inputs] for row in rows])
    return jnp.asarray(x), jnp.asarray([float(row[task.target]) for row in rows])


def features(parameters: Parameters, x: jax.Array) -> jax.Array:
    """f_θ(x), (n, k)."""
    hidden = jnp.tanh(x @ parameters["l1.w"].T + parameters["l1.b"])
    return hidden @ parameters["l2.w"].T + parameters["l2.b"]


def objective(task: Task, parameters: Parameters, x: jax.Array, y: jax.Array) -> jax.Array:
    """F(w, V, θ) = E[ℓ(wᵀ(x + V f_θ(x)); y)]."""
    h = x + features(parameters, x) @ parameters["V"].T
    return jnp.mean(task.loss(h @ parameters[task.weight].T, y))


def initial(task: Task, d: int, seed: int = 0) -> Parameters:
    """Small random w and V, the usual scaling for θ."""
    rng = np.random.default_rng(seed)
    shapes = {
        "l1.w": (task.hidden, d),
        "l1.b": (task.hidden,),
        "l2.w": (task.k, task.hidden),
        "l2.b": (task.k,),
        task.weight: (d,) if task.outputs is None else (task.outputs, d),
        "V": (d, task.k),
    }
    return {name: jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[-1])) for name, shape in shapes.items()}


def train(task: Task, x: jax.Array, y: jax.Array) -> tuple[Parameters, Parameters]:
    """The parameters after `halfway` and after `steps` iterations of L-BFGS on all of them."""
    start, unravel = ravel_pytree(initial(task, x.shape[1]))
    value_and_grad = jax.jit(jax.value_and_grad(lambda flat: objective(task, unravel(flat), x, y)))
    iterates: list[np.ndarray] = []
    minimize(
        value_and_grad,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": task.steps},
        callback=lambda flat: iterates.append(np.array(flat)),
    )
    return unravel(iterates[task.halfway - 1]), unravel(iterates[-1])


NEWTON_STEPS = 30


def polish(task: Task, parameters: Parameters, x: jax.Array, y: jax.Array) -> Parameters:
    """The best (w, V) for this θ: Newton's method, with halved steps, on E[ℓ(wᵀx + zᵀf; y)]."""
    inputs = jnp.concatenate([x, features(parameters, x)], axis=1)
    w, V = parameters[task.weight].T, parameters["V"]
    coefficients, unravel = ravel_pytree(jnp.concatenate([w, V.T @ w]))
    value = jax.jit(lambda c: jnp.mean(task.loss(inputs @ unravel(c), y)))
    gradient, hessian = jax.jit(jax.grad(value)), jax.jit(jax.hessian(value))
    for _ in range(NEWTON_STEPS):
        step = jnp.linalg.lstsq(hessian(coefficients), gradient(coefficients))[0]
        while value(coefficients - step) > value(coefficients) + 1e-12:
            step = step / 2.0
        coefficients = coefficients - step
    u, z = jnp.split(unravel(coefficients), [len(w)])
    columns = u.reshape(len(w), -1)  # Wᵀ, or w as its only column
    missing = (z - V.T @ u).reshape(task.k, -1)
    return parameters | {task.weight: u.T, "V": V + jnp.linalg.pinv(columns.T) @ missing.T}


def main() -> None:
    for task in TASKS:
        x, y = read(task)
        halfway, trained = train(task, x, y)
        for name, parameters in ((f"{task.name}-halfway", halfway), (task.name, polish(task, trained, x, y))):
            np.savez(DATA / f"{name}.npz", **{key: np.asarray(array) for key, array in parameters.items()})
            at = jax.grad(lambda p, task=task, x=x, y=y: objective(task, p, x, y))(parameters)
            norm = float(jnp.hypot(jnp.linalg.norm(at[task.weight]), jnp.linalg.norm(at["V"])))
            F = float(objective(task, parameters, x, y))
            sys.stdout.write(f"{name}: F = {F:.6f}, gradient in ({task.weight}, V) {norm:.2e}\n")


if __name__ == "__main__":
    main()
