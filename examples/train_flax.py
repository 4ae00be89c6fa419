"""Train a residual network in Flax, capture its last block, check it, polish it, certify it.

python examples/train_flax.py digits DIRECTORY        # or breast-cancer; needs flax, optax, scikit-learn
resnet-cert check DIRECTORY/digits-polished.yaml
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import datasets
import finish
import jax
import jax.numpy as jnp
import numpy as np

from resnet_cert import Problem

DECAY = 1e-2
WIDTH = 16


def network(nnx: Any, d: int, q: int) -> Any:
    """x ↦ W(x + V f(x)) + c, f a small network."""

    class Residual(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.inner = nnx.Linear(d, WIDTH, rngs=rngs)
            self.V = nnx.Linear(WIDTH, d, use_bias=False, rngs=rngs)
            self.head = nnx.Linear(d, q, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.head(x + self.V(jax.nn.relu(self.inner(x))))

    return Residual(nnx.Rngs(0))


def trained(nnx: Any, optax: Any, data: datasets.Dataset, epochs: int) -> Any:
    """The network after some epochs of Adam on cross-entropy with weight decay of V and the head."""
    model = network(nnx, data.x.shape[1], data.q)
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any, x: Any, y: Any) -> None:
        def objective(model: Any) -> Any:
            losses = optax.softmax_cross_entropy_with_integer_labels(model(x), y)
            decayed = (model.V.kernel, model.head.kernel, model.head.bias)
            return losses.mean() + DECAY / 2.0 * sum(jnp.sum(p[...] ** 2) for p in decayed)

        optimizer.update(model, nnx.grad(objective)(model))

    rng = np.random.default_rng(0)
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(len(data.x)), len(data.x) // 256):
            step(model, optimizer, jnp.asarray(data.x[rows]), jnp.asarray(data.y[rows]))
    return model


def captured(model: Any, data: datasets.Dataset) -> Problem:
    """The problem of the trained block and head."""
    from resnet_cert.capture.flax import capture

    return capture(
        model,
        (data.x, data.y),
        loss="cross_entropy",
        V="V",
        head="head",
        weight_decay=DECAY,
        epsilon=1e-8,
        name=data.name,
    )


def main(arguments: list[str], epochs: int = 60) -> None:
    if len(arguments) != 2:
        sys.exit("usage: python examples/train_flax.py digits|breast-cancer DIRECTORY")
    try:
        import optax
        from flax import nnx
    except ImportError:
        sys.exit("this example trains with Flax and Optax: pip install flax optax")
    data = datasets.load(arguments[0])
    finish.finish(captured(trained(nnx, optax, data, epochs), data), Path(arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
