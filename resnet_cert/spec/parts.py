"""The parts of a problem from the models of the spec: samples, loss, features, point.

One function for each form of a part; a new form is one function and one line in the table of its part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_cert.numerics.enclosure import Array
from resnet_cert.problem.problem import Features, GivenFeatures, Point, Rows
from resnet_cert.spec import data_models, models
from resnet_cert.spec.arrays import inline, load_npy, open_npz
from resnet_cert.spec.code import load_function, running
from resnet_cert.spec.faults import Fault, Faults, Refused, below
from resnet_cert.spec.faults import Path as Place
from resnet_cert.spec.sampling import draw
from resnet_cert.spec.table import Column, read_csv
from resnet_cert.vector.problem import VectorPoint

if TYPE_CHECKING:
    from resnet_cert.problem.losses import Loss
    from resnet_cert.problem.networks import Layer
    from resnet_cert.vector.losses import VectorLoss

MAX_DRAWN = 2**28  # numbers, 2 GiB


@dataclass(frozen=True)
class Context:
    """What the parts of a spec need to know beside themselves.

    given: whether the features come with the data; None where the spec does not say what they are.
    weighted: whether the loss takes weights of the outputs from the data; None where it is not known.
    """

    folder: Path
    allow_code: bool
    given: bool | None
    weighted: bool | None = None


@dataclass(frozen=True)
class Samples:
    """The arrays of the data; nothing is known yet about their shapes."""

    x: Rows
    y: Rows
    f: Rows | None = None
    probabilities: Rows | None = None
    omega: Rows | None = None


# data


def load_samples(data: Any, context: Context) -> Samples:
    """The samples of any form of `data`.

    Raises:
        Refused: every fault of the section and of its files; paths start at `data`.
    """
    return _SAMPLES[type(data)](data, context)


def features_fault(data: Any, given: bool | None) -> Fault | None:
    """What is wrong with the features in `data`, or with their absence; `given`: the network takes them."""
    f = getattr(data, "f", None)
    if given is False and f is not None:
        return Fault(("f",), "expected f only with network: {kind: given}", "unfit-part", at_key=True)
    if given and isinstance(data, data_models.SampleData):
        needs = "network: {kind: given} needs features, got a drawn sample"
        return Fault(("sample",), needs, "unfit-part", at_key=True)
    if given and f is None and not isinstance(data, data_models.NpzData):
        missing = "missing key 'f', the features for network: {kind: given}"
        return Fault((), missing, "missing-key", at_key=True)
    return None


def weights_fault(data: Any, weighted: bool | None) -> Fault | None:
    """What is wrong with the weights of the outputs in `data`, or with their absence."""
    omega = getattr(data, "omega", None)
    if weighted is False and omega is not None:
        return Fault(("omega",), "expected omega only with a loss of weights: omega", "unfit-part", at_key=True)
    if weighted and isinstance(data, data_models.SampleData):
        needs = "a loss of weights: omega needs them, got a drawn sample"
        return Fault(("sample",), needs, "unfit-part", at_key=True)
    if weighted and omega is None and not isinstance(data, data_models.NpzData):
        missing = "missing key 'omega', the weights of the outputs for the loss"
        return Fault((), missing, "missing-key", at_key=True)
    return None


def _inline_samples(data: data_models.InlineData, context: Context) -> Samples:
    faults, arrays = Faults(), {}
    for key in data_models.InlineData.model_fields:
        value = getattr(data, key)
        with faults.under(key):
            if value is not None:
                arrays[key] = load_npy(context.folder, value) if isinstance(value, str) else inline(value)
    faults.refuse()
    return Samples(**arrays)


def _csv_samples(data: data_models.CsvData, context: Context) -> Samples:
    columns: list[Column] = []
    places: dict[str, int | slice] = {}
    for key in ("x", "f", "y", "probabilities", "omega"):
        names = getattr(data, key)
        if isinstance(names, str):
            places[key] = len(columns)
            columns.append(Column(names, (key,)))
        elif names is not None:
            places[key] = slice(len(columns), len(columns) + len(names))
            columns += [Column(name, (key, i)) for i, name in enumerate(names)]
    table = read_csv(context.folder, data.file, columns)
    return Samples(**{key: np.ascontiguousarray(table[:, place]) for key, place in places.items()})


def _npz_samples(data: data_models.NpzData, context: Context) -> Samples:
    names = {"x": data.x, "y": data.y, "f": data.f or ("f" if context.given else None)}
    names["probabilities"] = data.probabilities
    names["omega"] = data.omega or ("omega" if context.weighted else None)
    faults, arrays = Faults(), {}
    with faults.under("file"), open_npz(context.folder, data.file) as array:
        for key, name in names.items():
            with faults.under(key):
                if name is not None:
                    arrays[key] = array(name)
    faults.refuse()
    return Samples(**arrays)


def _drawn_samples(data: data_models.SampleData, context: Context) -> Samples:
    sample = data.sample
    _require_drawable(sample.n * sample.d, ("sample", "n"))
    x, y = draw(
        n=sample.n,
        d=sample.d,
        inputs=sample.x,
        teacher=sample.y.teacher,
        noise=sample.y.noise,
        seed=sample.seed,
    )
    return Samples(x, y)


_SAMPLES: dict[type, Callable[[Any, Context], Samples]] = {
    data_models.InlineData: _inline_samples,
    data_models.CsvData: _csv_samples,
    data_models.NpzData: _npz_samples,
    data_models.SampleData: _drawn_samples,
}


def _require_drawable(count: int, place: Place) -> None:
    if count > MAX_DRAWN:
        raise Refused([Fault(place, f"expected at most {MAX_DRAWN} drawn numbers, got {count}", "too-large")])


# loss


def load_loss(loss: Any, context: Context) -> Loss:
    """The loss of one output of any form of `loss`.

    Raises:
        Refused: for a loss of several outputs, and for one in Python that may not run or fails; paths start
            at `loss`.
    """
    from resnet_cert.problem.losses import LOSSES, named_loss

    if isinstance(loss, models.PythonLoss):
        return _python_loss(loss, context)
    return named_loss(*_kind_and_scale(loss, LOSSES, "one output, point: {w: ..., V: ...}"))


def load_vector_loss(loss: Any) -> VectorLoss:
    """The loss of several outputs of any form of `loss`.

    Raises:
        Refused: for a loss of one output only; paths start at `loss`.
    """
    from resnet_cert.vector.losses import LOSSES, named_loss

    outputs = "several outputs, point: {W: ..., V: ...}"
    if isinstance(loss, models.PythonLoss):
        raise Refused(
            [Fault(("python",), f"expected one of the losses {', '.join(LOSSES)} of {outputs}", at_key=True)]
        )
    return named_loss(*_kind_and_scale(loss, LOSSES, outputs))


def _kind_and_scale(loss: Any, known: Iterable[str], outputs: str) -> tuple[str, float]:
    """A loss by name or by kind and scale, if it is one of those `known` for so many outputs."""
    kind, scale, place = (loss, 1.0, ()) if isinstance(loss, str) else (loss.kind, loss.scale, ("kind",))
    if kind not in known:
        raise Refused([Fault(place, f"expected one of {', '.join(known)} for {outputs}, got {kind!r}")])
    return kind, scale


@below("python")
def _python_loss(loss: models.PythonLoss, context: Context) -> Loss:
    from resnet_cert.problem.custom_loss import CustomLoss

    function = load_function(context.folder, loss.python, allow_code=context.allow_code)
    with running(context.folder, loss.python):
        return CustomLoss(function, loss.python)


# network


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

    layer = Layer(inline(network.weight), _optional(network.bias))
    return NetworkFeatures(_fitting([layer], [()], d))


def _mlp_features(network: models.MlpNetwork, context: Context, d: int | None) -> Features:
    from resnet_cert.problem.networks import Layer, NetworkFeatures

    layers = [Layer(inline(layer.weight), _optional(layer.bias)) for layer in network.layers]
    places = [("layers", i) for i in range(len(layers))]
    return NetworkFeatures(_fitting(layers, places, d), network.activation)


def _file_features(network: models.MlpFileNetwork, context: Context, d: int | None) -> Features:
    from resnet_cert.problem.networks import Layer, NetworkFeatures

    faults, layers = Faults(), []
    with faults.under("file"), open_npz(context.folder, network.file) as array:
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
    inputs = (d, *network.widths)
    _require_drawable(sum(map(math.prod, zip(inputs, network.widths, strict=False))), ("widths",))
    return NetworkFeatures(draw_layers(d, network.widths, network.seed), network.activation)


@below("python")
def _python_features(network: models.PythonNetwork, context: Context, d: int | None) -> Features | None:
    from resnet_cert.problem.networks import CustomFeatures, feature_shape

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


def _optional(numbers: list[float] | None) -> Array | None:
    return None if numbers is None else inline(numbers)


def _finite(array: Array) -> Array:
    if not np.isfinite(array).all():
        raise Refused("expected finite numbers in this array, got NaN or Inf", "not-finite")
    return array


# point


def load_point(point: Any, context: Context) -> Point | VectorPoint:
    """The point of any form of `point`: that of several outputs where it has a W.

    Raises:
        Refused: every fault of the section and of its file; paths start at `point`.
    """
    if isinstance(point, models.InlinePoint):
        return Point(inline(point.w), inline(point.V))
    if isinstance(point, models.InlineMatrices):
        return VectorPoint(inline(point.W), inline(point.V))
    faults, arrays, kind = Faults(), {}, Point
    with faults.under("file"), open_npz(context.folder, point.file) as array:
        if {"w", "W"} <= set(array.names):
            raise Refused(f"expected an array w or W in {point.file}, got both")
        first, kind = ("W", VectorPoint) if "W" in array.names else ("w", Point)
        for key in (first, "V"):
            with faults.under(key):
                arrays[key] = array(key)
    faults.refuse()
    return kind(**arrays)
