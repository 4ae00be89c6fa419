"""A residual block of Keras 3 as a `Problem`, on any backend."""

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
    import keras
except ImportError as error:
    fault = "this needs Keras: pip install 'resnet-cert[keras]'"
    if error.name != "keras":
        fault = f"Keras does not start: {error}; KERAS_BACKEND=jax takes the JAX that is here"
    raise RequestError(fault, id="needs-package") from None

CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)


def capture(
    model: keras.Model,
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

    A layer is given by its name or itself; a head is a Dense without activation, V that or a convolution.  In
    a functional model, where a block is no layer of its own, name as `skip` the layer whose output is x.  The
    model is called with training=False.
    """
    parts = Parts(block, head, V, skip, norm, compare)
    return captured_arrays(model, loader, parts).problem(loss, **options)


def captured_arrays(model: keras.Model, loader: Any, parts: Parts) -> Captured:
    """The arrays (x, f, W, V, c) themselves, and how near they come to the model's outputs."""
    return captured(_Keras(model), loader, parts)


class _Keras(Network):
    def __init__(self, model: Any) -> None:
        self.model = model
        self.dtype = model.compute_dtype
        finest = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
        self.roundoff = finest[self.dtype]

    def layers(self) -> Mapping[str, Any]:
        named: dict[str, Any] = {}
        for layer in self.model._flatten_layers():
            named.setdefault(layer.name, layer)
        return named

    def affine(self, layer: Any) -> Affine | None:
        if getattr(layer, "activation", None) not in (None, keras.activations.linear):
            return None
        if isinstance(layer, keras.layers.Dense):
            return Affine(_numbers(layer.kernel).T, _bias(layer))
        if not isinstance(layer, CONVOLUTIONS) or isinstance(layer, TRANSPOSED) or layer.groups != 1:
            return None
        stride, dilation = tuple(layer.strides), tuple(layer.dilation_rate)
        if layer.padding not in ("same", "valid"):
            return None
        pads: Any = "same" if layer.padding == "same" else ((0, 0),) * len(stride)
        weight = np.moveaxis(_numbers(layer.kernel), (-1, -2), (0, 1))
        return Affine(weight, _bias(layer), Window(stride, pads, dilation))

    def scaling(self, layer: Any) -> Scaling | None:
        if not isinstance(layer, keras.layers.BatchNormalization):
            return None
        mean, variance = _numbers(layer.moving_mean), _numbers(layer.moving_variance)
        scale, bias = _optional(layer.gamma), _optional(layer.beta)
        return Scaling.of_statistics(mean, variance, layer.epsilon, scale, bias)

    def channels_last(self, layer: Any) -> bool:
        return getattr(layer, "data_format", "channels_last") == "channels_last"

    def run(self, inputs: Any, watch: Sequence[str]) -> tuple[Array, dict[str, Seen]]:
        layers = self.layers()
        with recording({name: layers[name] for name in watch}) as calls:
            output = self.model(keras.tree.map_structure(self._placed, inputs), training=False)
        kept = {name: pair for name, pair in calls.items() if all(keras.ops.is_tensor(part) for part in pair)}
        seen = {name: Seen(_numbers(given), _numbers(gave)) for name, (given, gave) in kept.items()}
        return _numbers(output), seen

    def _placed(self, a: Any) -> Any:
        tensor: Any = keras.ops.convert_to_tensor(a)
        floating = "float" in keras.backend.standardize_dtype(tensor.dtype)
        return keras.ops.cast(tensor, self.dtype) if floating else tensor

    def to_array(self, data: Any) -> npt.NDArray[Any]:
        return np.asarray(keras.ops.convert_to_numpy(data))


def _bias(layer: Any) -> Array | None:
    return _numbers(layer.bias) if layer.use_bias else None


def _numbers(a: Any) -> Array:
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(a)), dtype=np.float64)


def _optional(a: Any) -> Array | None:
    return None if a is None else _numbers(a)
