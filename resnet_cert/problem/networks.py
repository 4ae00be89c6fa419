"""The features f_θ: networks in JAX, evaluated on batches of one shape, so that one program is compiled.

θ is fixed in everything that is proven, so a network enters the mathematics as its values f_θ(x_i) in float64
and nothing else.  Adding an activation is one line in `ACTIVATIONS`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from resnet_cert.numerics.jax64 import float64_scope, jax, jnp
from resnet_cert.numerics.radius import Array
from resnet_cert.problem.problem import BLOCK_ROWS, CHUNK_BYTES

ACTIVATIONS: dict[str, Callable[[Any], Callable[[Any], Any]]] = {
    "tanh": lambda nn: nn.tanh,
    "relu": lambda nn: nn.relu,
    "softplus": lambda nn: nn.softplus,
    "sigmoid": lambda nn: nn.sigmoid,
    "gelu": lambda nn: functools.partial(nn.gelu, approximate=False),  # x·Φ(x)
    "gelu_tanh": lambda nn: functools.partial(
        nn.gelu, approximate=True
    ),  # ½x(1 + tanh(√(2/π)(x + 0.044715x³)))
    "silu": lambda nn: nn.silu,
    "mish": lambda nn: nn.mish,  # x·tanh(softplus(x))
    "leaky_relu": lambda nn: functools.partial(nn.leaky_relu, negative_slope=0.01),
    "elu": lambda nn: functools.partial(nn.elu, alpha=1.0),
    "selu": lambda nn: nn.selu,
}
"""By name, with PyTorch's defaults, each taken from `jax.nn` when a network is compiled."""


@dataclass(frozen=True)
class Layer:
    """weight·x + bias: weight (outputs, inputs), bias (outputs,) or None for 0."""

    weight: Array
    bias: Array | None = None


def draw_layers(d: int, widths: Sequence[int], seed: int) -> tuple[Layer, ...]:
    """Layers of random θ for x ∈ R^d: weights N(0, 1/fan_in), biases 0, drawn in order by NumPy's PCG64.

    With this variance a layer keeps the mean square of what it is given.
    """
    rng = np.random.default_rng(seed)
    inputs = (d, *widths)
    return tuple(
        Layer(rng.standard_normal((fan_out, fan_in)) / math.sqrt(fan_in), np.zeros(fan_out))
        for fan_in, fan_out in zip(inputs, widths, strict=False)
    )


@dataclass(frozen=True)
class IdentityFeatures:
    """f(x) = x, x ∈ R^d."""

    d: int

    @property
    def k(self) -> int:
        return self.d

    def rows(self, rows: slice, x: Array, pad_to: int) -> Array:
        return x


@dataclass(frozen=True)
class NetworkFeatures:
    """A multilayer perceptron: its layers in order, the activation between them and not after the last one.

    A linear network is one layer, and its activation is never used.
    """

    layers: tuple[Layer, ...]
    activation: str = "tanh"

    @property
    def k(self) -> int:
        return self.layers[-1].weight.shape[0]

    @property
    def theta(self) -> list[tuple[Array, Array | None]]:
        """θ: the weight and the bias of each layer."""
        return [(layer.weight, layer.bias) for layer in self.layers]

    @property
    def forward(self) -> Callable[[Any, Any], Any]:
        """θ, x (n, d) ↦ f_θ(x) (n, k), compiled."""
        return _perceptron(self.activation)

    def rows(self, rows: slice, x: Array, pad_to: int) -> Array:
        widest = max(max(layer.weight.shape) for layer in self.layers)
        batch = min(pad_to, max(BLOCK_ROWS, CHUNK_BYTES // (8 * widest)))
        with float64_scope():
            return _in_batches(functools.partial(self.forward, self.theta), x, batch)


@dataclass(frozen=True)
class CustomFeatures:
    """A function of x (n, d) with values (n, k) that JAX can trace, row by row."""

    function: Callable[[Any], Any]
    k: int

    def rows(self, rows: slice, x: Array, pad_to: int) -> Array:
        with float64_scope():
            return _in_batches(_jitted(self.function), x, pad_to)


@float64_scope()
def feature_shape(function: Callable[[Any], Any], n: int, d: int) -> tuple[tuple[int, ...], Any]:
    """The shape and dtype of function(x) for x (n, d), found by tracing and without computing anything."""
    values = jax.eval_shape(function, jax.ShapeDtypeStruct((n, d), jnp.float64))
    return values.shape, values.dtype


def _in_batches(apply: Callable[[Any], Any], x: Array, size: int) -> Array:
    """apply(x) in float64, `size` rows at a time; the last batch is filled up with its last row."""
    parts = []
    for start in range(0, len(x), size):
        part = x[start : start + size]
        filled = np.pad(part, ((0, size - len(part)), (0, 0)), mode="edge")
        parts.append(np.asarray(apply(filled)[: len(part)], dtype=np.float64))
    return np.concatenate(parts)


@functools.cache
def _jitted(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(function)


@functools.cache
def _perceptron(activation: str) -> Callable[[Any, Any], Any]:
    """θ, x ↦ f_θ(x), compiled; θ is an argument, so that networks of one architecture share one program."""
    between = ACTIVATIONS[activation](jax.nn)

    def forward(theta: Any, x: Any) -> Any:
        for i, (weight, bias) in enumerate(theta):
            x = jnp.dot(between(x) if i else x, weight.T)
            x = x if bias is None else x + bias[None, :]
        return x

    return jax.jit(forward)
