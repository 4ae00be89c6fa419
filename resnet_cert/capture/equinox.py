"""A residual block of Equinox as a `Problem`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    import equinox as eqx
    import jax
    import jax.numpy as jnp
except ImportError:
    raise RequestError("this needs Equinox: pip install 'resnet-cert[equinox]'", id="needs-package") from None

Call = Callable[[Any, Any], Any]
"""(model, x) to the prediction of one sample x."""


def capture(
    model: eqx.Module,
    loader: Any,
    *,
    loss: Any,
    block: Layer | None = None,
    head: Layer | None = None,
    V: Layer | Sequence[Layer] | None = None,
    skip: Layer | None = None,
    norm: Layer | None = None,
    compare: Sequence[Layer] | Mapping[str, Layer] = (),
    state: eqx.nn.State | None = None,
    call: Call | None = None,
    **options: Any,
) -> Problem:
    """The problem of a residual block x ↦ x + V f(x) and the head that reads it; see `capture.torch.capture`.

    A layer is an `eqx.Module` of the model or its path, such as "blocks.2.proj"; a head is an eqx.nn.Linear,
    V that or an eqx.nn.Conv.  The model, in inference mode, predicts one sample at a time, under jax.vmap.

    Args:
        state: of the model, which then is model(x, state); an eqx.nn.BatchNorm has its statistics there.
        call: how it predicts, where `model(x)`, or `model(x, state)[0]` with a state, is not all.
    """
    parts = Parts(block, head, V, skip, norm, compare)
    return captured_arrays(model, loader, parts, state, call).problem(loss, **options)


def captured_arrays(
    model: eqx.Module,
    loader: Any,
    parts: Parts,
    state: eqx.nn.State | None = None,
    call: Call | None = None,
) -> Captured:
    """The arrays (x, f, W, V, c) themselves, and how near they come to the model's outputs."""
    network = _Equinox(model, state, call or (_called if state is None else _with(state)))
    return captured(network, loader, parts)


def _called(model: Any, x: Any) -> Any:
    return model(x)


def _with(state: Any) -> Call:
    return lambda model, x: model(x, state)[0]


class _Equinox(Network):
    def __init__(self, model: eqx.Module, state: Any, call: Call) -> None:
        self.model, self.state, self.call = model, state, call
        self.copy = eqx.nn.inference_mode(model)
        self.running = dict(_layers(self.copy, ""))
        leaves = [leaf for leaf in jax.tree.leaves(model) if eqx.is_inexact_array(leaf)]
        self.dtype = leaves[0].dtype if leaves else jnp.dtype("float32")
        self.roundoff = float(jnp.finfo(self.dtype).eps) / 2.0

    def layers(self) -> Mapping[str, Any]:
        return dict(_layers(self.model, ""))

    def affine(self, layer: Any) -> Affine | None:
        if isinstance(layer, eqx.nn.Linear):
            return Affine(_numbers(layer.weight), _optional(layer.bias))
        if not isinstance(layer, eqx.nn.Conv) or layer.groups != 1 or layer.padding_mode != "ZEROS":
            return None
        bias = None if layer.bias is None else _numbers(layer.bias).reshape(-1)
        padding = layer.padding
        if isinstance(padding, str):
            pads: Any = "same" if padding == "SAME" else ((0, 0),) * len(layer.stride)
        else:
            pads = tuple((int(low), int(high)) for low, high in padding)
        return Affine(_numbers(layer.weight), bias, Window(tuple(layer.stride), pads, tuple(layer.dilation)))

    def scaling(self, layer: Any) -> Scaling | None:
        """By the statistics that the layer uses in inference, in the arithmetic in which it has them."""
        if not isinstance(layer, eqx.nn.BatchNorm):
            return None
        if self.state is None:
            raise RequestError(
                "expected state=..., the eqx.nn.State in which a BatchNorm has its statistics, got none",
                id="model",
            )
        if layer.mode == "ema":
            mean, variance = self.state.get(layer.ema_state_index)
        else:
            count = self.state.get(layer.batch_counter)
            seen = jnp.where(count == 0, 1, 1 - layer.momentum**count)
            mean, variance = (a / seen for a in self.state.get(layer.batch_state_index))
        weight, bias = _optional(layer.weight), _optional(layer.bias)
        return Scaling.of_statistics(_numbers(mean), _numbers(variance), layer.eps, weight, bias)

    def channels_last(self, layer: Any) -> bool:
        return False

    def run(self, inputs: Any, watch: Sequence[str]) -> tuple[Array, dict[str, Seen]]:
        watched = {name: self.running[name] for name in watch}
        order: list[str] = []

        def probe(x: Any) -> tuple[Any, dict[str, tuple[Any, Any]]]:
            with recording(watched) as calls:
                output = self.call(self.copy, x)
            order[:] = calls
            pairs = {name: (given, _first(gave)) for name, (given, gave) in calls.items()}
            return output, {name: pair for name, pair in pairs.items() if _are_arrays(pair)}

        output, calls = jax.vmap(probe)(jax.tree.map(self._placed, inputs))
        seen = {name: Seen(*map(_numbers, calls[name])) for name in order if name in calls}
        return _numbers(output), seen

    def _placed(self, a: Any) -> jax.Array:
        array = jnp.asarray(a)
        return array.astype(self.dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array

    def to_array(self, data: Any) -> npt.NDArray[Any]:
        return np.asarray(data)


def _first(gave: Any) -> Any:
    """What a layer gave, without the state that came with it."""
    return gave[0] if isinstance(gave, tuple) and gave else gave


def _are_arrays(pair: tuple[Any, Any]) -> bool:
    return all(isinstance(a, jax.Array) for a in pair)


def _layers(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """A module before its parts."""
    if isinstance(node, eqx.Module):
        yield path or "model", node
        parts: Any = ((field.name, getattr(node, field.name, None)) for field in dataclasses.fields(node))
    elif isinstance(node, list | tuple):
        parts = enumerate(node)
    elif isinstance(node, dict):
        parts = node.items()
    else:
        return
    for name, part in parts:
        yield from _layers(part, f"{path}.{name}" if path else str(name))


def _numbers(a: Any) -> Array:
    return np.asarray(a, dtype=np.float64)


def _optional(a: Any) -> Array | None:
    return None if a is None else _numbers(a)
