"""A residual block of Flax (NNX) as a `Problem`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from resnet_cert.capture.affine import Affine, Scaling, Window
from resnet_cert.capture.assemble import Captured
from resnet_cert.capture.calls import recording
from resnet_cert.capture.walk import Layer, Network, Parts, Seen, captured
from resnet_cert.numerics.radius import Array
from resnet_cert.outcomes import RequestError
from resnet_cert.problem.problem import Problem

try:
    import jax
    import jax.core
    import jax.numpy as jnp
    from flax import nnx
except ImportError:
    raise RequestError("this needs Flax: pip install 'resnet-cert[flax]'", id="needs-package") from None


def capture(
    model: nnx.Module,
    loader: Any,
    *,
    loss: Any,
    block: Layer | None = None,
    head: Layer | None = None,
    V: Layer | Sequence[Layer] | None = None,
    skip: Layer | None = None,
    norm: Layer | None = None,
    compare: Sequence[Layer] | Mapping[str, Layer] = (),
    **options: Any,
) -> Problem:
    """The problem of a residual block x ↦ x + V f(x) and the head that reads it; see `capture.torch.capture`.

    A layer is an `nnx.Module` of the model or its path, such as "blocks.2.proj"; a head is an nnx.Linear, V
    that or an nnx.Conv.  A copy of the model runs, in eval mode.
    """
    parts = Parts(block, head, V, skip, norm, compare)
    return captured_arrays(model, loader, parts).problem(loss, **options)


def captured_arrays(model: nnx.Module, loader: Any, parts: Parts) -> Captured:
    """The arrays (x, f, W, V, c) themselves, and how near they come to the model's outputs."""
    return captured(_Flax(model), loader, parts)


class _Flax(Network):
    def __init__(self, model: nnx.Module) -> None:
        self.model = model
        self.copy = nnx.clone(model)
        self.copy.eval()
        self.running = _layers(self.copy)
        leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
        self.dtype = leaves[0].dtype if leaves else jnp.dtype("float32")
        self.roundoff = float(jnp.finfo(self.dtype).eps) / 2.0

    def layers(self) -> Mapping[str, nnx.Module]:
        return _layers(self.model)

    def affine(self, layer: Any) -> Affine | None:
        if isinstance(layer, nnx.Linear):
            return Affine(_numbers(layer.kernel).T, _optional(layer.bias))
        if not isinstance(layer, nnx.Conv) or layer.feature_group_count != 1 or layer.mask is not None:
            return None
        axes = len(layer.kernel_size)
        window = _window(layer, axes)
        if window is None or _each(layer.input_dilation, axes) != (1,) * axes:
            return None
        weight = np.moveaxis(_numbers(layer.kernel), (-1, -2), (0, 1))
        return Affine(weight, _optional(layer.bias), window)

    def scaling(self, layer: Any) -> Scaling | None:
        if not isinstance(layer, nnx.BatchNorm):
            return None
        mean, variance = _numbers(layer.mean), _numbers(layer.var)
        scale, bias = _optional(layer.scale), _optional(layer.bias)
        return Scaling.of_statistics(mean, variance, layer.epsilon, scale, bias)

    def channels_last(self, layer: Any) -> bool:
        return True

    def run(self, inputs: Any, watch: Sequence[str]) -> tuple[Array, dict[str, Seen]]:
        with recording({name: self.running[name] for name in watch}) as calls:
            output = self._called(inputs)
        kept = {name: pair for name, pair in calls.items() if all(isinstance(a, jax.Array) for a in pair)}
        if any(isinstance(a, jax.core.Tracer) for pair in kept.values() for a in pair):
            raise RequestError(
                "expected a model whose layers run one by one, got one that calls jax.jit", id="model"
            )
        seen = {name: Seen(_numbers(given), _numbers(gave)) for name, (given, gave) in kept.items()}
        return _numbers(output), seen

    def _called(self, inputs: Any) -> Any:
        model: Any = self.copy
        if isinstance(inputs, Mapping):
            return model(**{name: self._placed(a) for name, a in inputs.items()})
        if isinstance(inputs, tuple | list):
            return model(*(self._placed(a) for a in inputs))
        return model(self._placed(inputs))

    def _placed(self, a: Any) -> jax.Array:
        array = jnp.asarray(a)
        return array.astype(self.dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array

    def to_array(self, data: Any) -> npt.NDArray[Any]:
        return np.asarray(data)


def _layers(model: nnx.Module) -> dict[str, nnx.Module]:
    named = {".".join(map(str, path)) or "model": layer for path, layer in nnx.iter_modules(model)}
    return dict(reversed(named.items()))  # a module before its parts


def _window(layer: nnx.Conv, axes: int) -> Window | None:
    stride, dilation = _each(layer.strides, axes), _each(layer.kernel_dilation, axes)
    padding = layer.padding
    if isinstance(padding, str):
        if padding.upper() == "SAME":
            return Window(stride, "same", dilation)
        return Window(stride, ((0, 0),) * axes, dilation) if padding.upper() == "VALID" else None
    if isinstance(padding, int):
        return Window(stride, ((padding, padding),) * axes, dilation)
    pairs = [(pad, pad) if isinstance(pad, int) else (int(pad[0]), int(pad[1])) for pad in padding]
    return Window(stride, tuple(pairs), dilation)


def _each(value: Any, axes: int) -> tuple[int, ...]:
    """A number for each axis: as they are given, the one for all, 1 where none is."""
    if isinstance(value, Sequence):
        return tuple(map(int, value))
    return (1 if value is None else int(value),) * axes


def _numbers(a: Any) -> Array:
    return np.asarray(a[...], dtype=np.float64)


def _optional(a: Any) -> Array | None:
    return None if a is None else _numbers(a)
