"""The features f_θ of any form of `network`: one function for each, and one line in their table."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_cert.numerics.radius import Array
from resnet_cert.problem.problem import Features, GivenFeatures
from resnet_cert.spec import network_models as models
from resnet_cert.spec.arrays import inline, open_arrays
from resnet_cert.spec.code import load_function, running
from resnet_cert.spec.faults import Fault, Faults, Refused, below
from resnet_cert.spec.faults import Path as Place

if TYPE_CHECKING:
    from resnet_cert.problem.networks import Layer

from resnet_cert.spec.arrays import optional
from resnet_cert.spec.context import MAX_DRAWN, Context, Samples, require_drawable


def load_features(network: Any, context: Context, samples: Samples | None) -> Features | None:
    """f_θ of any form of `network`; None where it depends on samples that there are not.

    Raises:
        Refused: every fault of the section and of its files; paths start at `network`.
    """
    d = None
    if samples is not None and len(samples.x.shape) == 2:
        d = samples.x.shape[1]
    if isinstance(network, models.GivenNetwork):
        return None if samples is None or samples.f is None else GivenFeatures(samples.f)
    return _FEATURES[type(network)](network, context, d)


def _identity_features(network: models.IdentityNetwork, context: Context, d: int | None) -> Features | None:
    from resnet_cert.problem.networks import IdentityFeatures

    return None if d is None else IdentityFeatures(d)


def _linear_features(network: models.LinearNetwork, context: Context, d: int | None) -> Features:
    from resnet_cert.problem.networks import Layer, NetworkFeatures

    layer = Layer(inline(network.weight), optional(network.bias))
    return NetworkFeatures(_fitting([layer], [()], d))


def _mlp_features(network: models.MlpNetwork, context: Context, d: int | None) -> Features:
    from resnet_cert.problem.networks import Layer, NetworkFeatures

    layers = [Layer(inline(layer.weight), optional(layer.bias)) for layer in network.layers]
    places = [("layers", i) for i in range(len(layers))]
    return NetworkFeatures(_fitting(layers, places, d), network.activation)


def _file_features(network: models.MlpFileNetwork, context: Context, d: int | None) -> Features:
    from resnet_cert.problem.networks import Layer, NetworkFeatures

    faults, layers = Faults(), []
    with faults.under("file"), open_arrays(context.folder, network.file) as array:
        for i, names in enumerate(network.layers):
            arrays = {}
            for key, name in (("weight", names.weight), ("bias", names.bias)):
                with faults.under("layers", i, key):
                    if name is not None:
                        arrays[key] = _finite(array(name))
            if "weight" in arrays:
                layers.append(Layer(**arrays))
    faults.refuse()
    places = [("layers", i) for i in range(len(layers))]
    return NetworkFeatures(_fitting(layers, places, d), network.activation)


def _drawn_features(network: models.DrawnMlpNetwork, context: Context, d: int | None) -> Features | None:
    from resnet_cert.problem.networks import NetworkFeatures, draw_layers

    if d is None:
        return None
    inputs, most = (d, *network.widths), MAX_DRAWN
    if context.stored is not None:
        context.stored.require({"k": network.widths[-1]}, ("widths",))
        most = min(most, context.stored.drawable)
    require_drawable(sum(map(math.prod, zip(inputs, network.widths, strict=False))), ("widths",), most)
    return NetworkFeatures(draw_layers(d, network.widths, network.seed), network.activation)


@below("python")
def _python_features(network: models.PythonNetwork, context: Context, d: int | None) -> Features | None:
    from resnet_cert.problem.networks import CustomFeatures, feature_shape

    if context.stored is not None:
        return GivenFeatures(context.stored.f)
    function = load_function(context.folder, network.python, allow_code=context.allow_code)
    if d is None:
        return None
    m = 3  # any number of rows shows the shape
    with running(context.folder, network.python):
        shape, dtype = feature_shape(function, m, d)
    if len(shape) != 2 or shape[0] != m:
        wanted = f"expected {network.python} to map x ({m}, {d}) to ({m}, k)"
        raise Refused(f"{wanted}, got the shape {shape}", "code-result")
    if dtype.kind not in "iuf":
        raise Refused(f"expected {network.python} to return real numbers, got {dtype}", "code-result")
    return CustomFeatures(function, shape[1])


_FEATURES: dict[type, Callable[[Any, Context, int | None], Features | None]] = {
    models.IdentityNetwork: _identity_features,
    models.LinearNetwork: _linear_features,
    models.MlpNetwork: _mlp_features,
    models.MlpFileNetwork: _file_features,
    models.DrawnMlpNetwork: _drawn_features,
    models.PythonNetwork: _python_features,
}


def _fitting(layers: list[Layer], places: list[Place], d: int | None) -> tuple[Layer, ...]:
    """The layers, if each takes what the one before gives, the first one x ∈ R^d."""
    faults = Faults()
    inputs, whose = d, "the dimension of x"
    for layer, place in zip(layers, places, strict=True):
        weight = layer.weight.shape
        if len(weight) != 2:
            wanted = f"expected a weight (outputs, inputs), got the shape {weight}"
            faults.append(Fault((*place, "weight"), wanted, "shape"))
            inputs = None
            continue
        if inputs is not None and weight[1] != inputs:
            message = f"expected {inputs} column{'s' if inputs > 1 else ''}, {whose}, got {weight[1]}"
            hint = ": transpose it" if weight[0] == inputs else ""
            faults.append(Fault((*place, "weight"), message + hint, "shape"))
        if layer.bias is not None and layer.bias.shape != weight[:1]:
            message = (
                f"expected a bias of shape {weight[:1]}, as the rows of its weight, got {layer.bias.shape}"
            )
            faults.append(Fault((*place, "bias"), message, "shape"))
        inputs, whose = weight[0], "the rows of the weight before"
    faults.refuse()
    return tuple(layers)


def _finite(array: Array) -> Array:
    if not np.isfinite(array).all():
        raise Refused("expected finite numbers in this array, got NaN or Inf", "not-finite")
    return array
