"""The parts of a problem from the models of the spec: samples, loss, features, point.

One function for each form of a part; a new form is one function and one line in the table of its part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_cert.numerics.radius import Array
from resnet_cert.outcomes import RequestError, printable
from resnet_cert.problem.problem import Distribution, Features, GivenFeatures, Point, Rows
from resnet_cert.spec import data_models, models
from resnet_cert.spec.arrays import inline, load_npy, open_arrays, read_npy, readable
from resnet_cert.spec.code import load_function, running
from resnet_cert.spec.faults import Fault, Faults, Refused, below, listed, shortened
from resnet_cert.spec.faults import Path as Place
from resnet_cert.spec.sampling import draw
from resnet_cert.spec.table import EXAMPLES, Column, labelled, labels_hint, read_csv, read_header

if TYPE_CHECKING:
    from resnet_cert.problem.losses import Loss
    from resnet_cert.problem.networks import Layer

MAX_DRAWN = 2**28  # numbers, 2 GiB


@dataclass(frozen=True)
class Stored:
    """What a verifier has already: nothing is drawn or built of another size, no network is evaluated, and no
    code is run.

    d: columns of x.  f: (n, k) the features.  drawable: how many numbers it may draw for a network.
    """

    d: int
    f: Rows
    drawable: int

    def require(self, sizes: dict[str, int], place: Place) -> None:
        """Refuses what would have other sizes."""
        known = {"n": self.f.shape[0], "d": self.d, "k": self.f.shape[1]}
        for name, size in sizes.items():
            if size != known[name]:
                raise Refused(
                    [Fault(place, f"expected {name} = {known[name]} as stored, got {size}", "shape")]
                )


@dataclass(frozen=True)
class Context:
    """What the parts of a spec need to know beside themselves.

    given: whether the features come with the data; None where the spec does not say what they are.
    weighted: whether the loss takes weights of the outputs from the data; None where it is not known.
    stored: what is known already, where nothing is to be evaluated.
    """

    folder: Path
    allow_code: bool
    given: bool | None
    weighted: bool | None = None
    stored: Stored | None = None


@dataclass(frozen=True)
class Samples:
    """The arrays of the data; nothing is known yet about their shapes.

    compare: of each comparator the arrays that stand side by side, or the names x, f, bypass of these here.
    """

    x: Rows
    y: Rows
    f: Rows | None = None
    probabilities: Rows | None = None
    omega: Rows | None = None
    bypass: Rows | None = None
    compare: Mapping[str, tuple[Rows | str, ...]] = field(default_factory=dict)


# data

OWN = ("x", "f", "bypass")
"""Inputs that a comparator may name, whatever the arrays of the file are called."""


def load_samples(data: Any, context: Context) -> Samples:
    """The samples of any form of `data`.

    Raises:
        Refused: every fault of the section and of its files; paths start at `data`.
    """
    samples = _SAMPLES[type(data)](data, context)
    if isinstance(data, data_models.ArrayData) and data.normalise:
        return replace(samples, probabilities=_normalised(samples.probabilities))
    return samples


@below("normalise")
def _normalised(probabilities: Rows | None) -> Rows:
    if probabilities is None:
        raise Refused("expected probabilities to normalise, got none", "unfit-part")
    pi = np.asarray(probabilities[slice(None)], dtype=np.float64)
    total = math.fsum(pi.ravel())
    return pi / total if 0.0 < total < math.inf else pi  # else their own fault says more


def features_fault(data: Any, given: bool | None) -> Fault | None:
    """What is wrong with the features in `data`, or with their absence; `given`: the network takes them."""
    f = getattr(data, "f", None)
    if given is False and f is not None:
        return Fault(("f",), "expected f only with network: {kind: given}", "unfit-part", at_key=True)
    if given and isinstance(data, data_models.SampleData):
        needs = "network: {kind: given} needs features, got a drawn sample"
        return Fault(("sample",), needs, "unfit-part", at_key=True)
    if given and f is None and not isinstance(data, _DEFAULT_NAMES):
        missing = "missing key 'f', the features for network: {kind: given}"
        return Fault((), missing, "missing-key", at_key=True)
    return None


def weights_fault(data: Any, weighted: bool | None) -> Fault | None:
    """What is wrong with the weights of the outputs in `data`, or with their absence."""
    omega = getattr(data, "omega", None)
    if weighted is False and omega is not None:
        return Fault(
            ("omega",), "expected omega only with a loss of weights: omega", "unfit-part", at_key=True
        )
    if weighted and isinstance(data, data_models.SampleData):
        needs = "a loss of weights: omega needs them, got a drawn sample"
        return Fault(("sample",), needs, "unfit-part", at_key=True)
    if weighted and omega is None and not isinstance(data, _DEFAULT_NAMES):
        missing = "missing key 'omega', the weights of the outputs for the loss"
        return Fault((), missing, "missing-key", at_key=True)
    return None


def _inline_samples(data: data_models.InlineData, context: Context) -> Samples:
    faults, arrays = Faults(), {}
    for key in ("x", "y", "f", "bypass", "probabilities", "omega"):
        value = getattr(data, key)
        with faults.under(key):
            if value is None:
                continue
            if key == "y" and (data.labels is not None or _are_words(value)):
                raw = read_npy(context.folder, value) if isinstance(value, str) else np.array(value, object)
                arrays[key] = numbered(raw, data.labels)
            else:
                arrays[key] = load_npy(context.folder, value) if isinstance(value, str) else inline(value)
    compare = {}
    for name, parts in _comparators(data):
        with faults.under("compare", name):
            compare[name] = tuple(
                part if part in OWN else _column(load_npy(context.folder, part)) for part in parts
            )
    faults.refuse()
    return Samples(**arrays, compare=compare)


def _csv_samples(data: data_models.CsvData, context: Context) -> Samples:
    columns: list[Column] = []
    places: dict[str, int | slice] = {}

    def add(key: str, names: list[str], place: Place, labels: Any = None) -> None:
        places[key] = slice(len(columns), len(columns) + len(names))
        columns.extend(Column(name, (*place, i), labels) for i, name in enumerate(names))

    for key in ("x", "f", "y", "bypass", "probabilities", "omega"):
        names, labels = getattr(data, key), data.labels if key == "y" else None
        if isinstance(names, str):
            places[key] = len(columns)
            columns.append(Column(names, (key,), labels))
        elif names is not None:
            add(key, names, (key,), labels)
    compared: dict[str, list[str]] = {}
    for name, parts in _comparators(data):
        header = read_header(context.folder, data.file, data.delimiter) if set(OWN) & set(parts) else ()
        compared[name] = []
        for i, part in enumerate(parts):
            own = part in OWN and part not in header
            compared[name].append(part if own else f"{name}[{i}]")
            if not own:
                add(f"{name}[{i}]", [part], ("compare", name))
    table = read_csv(context.folder, data.file, columns, data.delimiter)
    arrays = {key: np.ascontiguousarray(table[:, place]) for key, place in places.items()}
    compare = {
        name: tuple(part if part in OWN else arrays.pop(part) for part in parts)
        for name, parts in compared.items()
    }
    return Samples(**arrays, compare=compare)


def _npz_samples(data: data_models.NpzData, context: Context) -> Samples:
    names = {"x": data.x, "y": data.y, "f": data.f or ("f" if context.given else None)}
    names |= {"bypass": data.bypass, "probabilities": data.probabilities}
    names["omega"] = data.omega or ("omega" if context.weighted else None)
    faults, arrays, compare = Faults(), {}, {}
    with faults.under("file"), open_arrays(context.folder, data.file) as array:
        for key, name in names.items():
            with faults.under(key):
                if name is not None and key == "y":
                    raw = array.raw(name)
                    words = data.labels is not None or raw.dtype.kind in "USOb"
                    arrays[key] = numbered(raw, data.labels) if words else array(name)
                elif name is not None:
                    arrays[key] = array(name)
        for name, parts in _comparators(data):
            with faults.under("compare", name):
                compare[name] = tuple(
                    part if part in OWN and part not in array.names else _column(array(part))
                    for part in parts
                )
    faults.refuse()
    return Samples(**arrays, compare=compare)


def _shard_samples(data: data_models.ShardData, context: Context) -> Samples:
    from resnet_cert.problem.shards import open_shards

    names: dict[str, str | list[str] | None] = {
        "x": data.x,
        "y": data.y,
        "f": data.f or ("f" if context.given else None),
        "bypass": data.bypass,
        "probabilities": data.probabilities,
        "omega": data.omega or ("omega" if context.weighted else None),
    }
    wanted = {key: name for key, name in names.items() if name is not None}
    for name, parts in _comparators(data):
        wanted |= {f"{name}[{i}]": part for i, part in enumerate(parts) if part not in OWN}
    if data.labels is not None:
        raise Refused(
            [Fault(("labels",), "expected numbers in shards, no labels", "unfit-part", at_key=True)]
        )
    with below("shards"), readable(data.shards):
        try:
            rows = dict(open_shards(context.folder, data.shards, wanted))
        except RequestError as error:
            raise Refused(Fault((), fault.message, fault.id) for fault in error.diagnostics) from None
    compare = {
        name: tuple(rows.pop(f"{name}[{i}]", part) for i, part in enumerate(parts))
        for name, parts in _comparators(data)
    }
    return Samples(**rows, compare=compare)


def _drawn_samples(data: data_models.SampleData, context: Context) -> Samples:
    sample = data.sample
    if context.stored is not None:
        context.stored.require({"n": sample.n, "d": sample.d}, ("sample",))
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
    data_models.ShardData: _shard_samples,
    data_models.SampleData: _drawn_samples,
}
_DEFAULT_NAMES = (data_models.NpzData, data_models.ShardData)  # f and omega are found by their names


def _comparators(data: data_models.ArrayData) -> list[tuple[str, list[str]]]:
    """The names of comparators and of what each is made of."""
    return [(name, [p] if isinstance(p, str) else p) for name, p in (data.compare or {}).items()]


def _column(rows: Rows) -> Rows:
    """(n, 1) of (n,): one input is a column."""
    return np.asarray(rows[slice(None)])[:, None] if len(rows.shape) == 1 else rows


def load_comparators(samples: Samples, features: Features) -> dict[str, Rows]:
    """The comparators' inputs (n, ·); features that were evaluated may be among them.

    Raises:
        Refused: one is not there, or has no rows to stand beside the others; paths start at `data`.
    """
    faults, found = Faults(), {}
    f = features.f if isinstance(features, GivenFeatures) else None
    own = {"x": samples.x, "f": f, "bypass": samples.bypass}
    for name, parts in samples.compare.items():
        rows = [own[part] if isinstance(part, str) else part for part in parts]
        with faults.under("compare", name):
            absent = [str(part) for part, array in zip(parts, rows, strict=True) if array is None]
            if absent:
                raise Refused(f"no {listed(absent)} in the data, or too large to be kept", "array-missing")
            if len(rows) == 1:
                [found[printable(name)]] = rows
                continue
            arrays = [np.asarray(array[slice(None)], dtype=np.float64) for array in rows if array is not None]
            shapes = [array.shape for array in arrays]
            if any(len(shape) != 2 or shape[0] != shapes[0][0] for shape in shapes):
                raise Refused(
                    f"expected arrays (n, ·) of as many rows, got the shapes {listed(map(str, shapes))}",
                    "shape",
                )
            found[printable(name)] = np.concatenate(arrays, axis=1)
    faults.refuse()
    return found


def _are_words(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(entry, (str, bool)) for entry in values)


def numbered(values: np.ndarray[Any, Any], labels: Mapping[str, float] | None) -> Array:
    """The numbers of an array of labels.

    Raises:
        Refused: a label has no number.
    """
    words = np.array([str(word) for word in values.ravel().tolist()], dtype=object)
    distinct = list(dict.fromkeys(words))
    if labels is None:
        shown = ", ".join(repr(shortened(word)) for word in distinct[:EXAMPLES])
        raise Refused(f"expected numbers, got {shown}: {labels_hint(distinct)}", "labels")
    convert, numbers = labelled(labels), {}
    for word in distinct:
        try:
            numbers[word] = convert(word)
        except (KeyError, ValueError):
            got = f"got {shortened(word)!r}"
            raise Refused(f"expected one of {listed(labels)} as in data.labels, {got}", "labels") from None
    return np.array([numbers[word] for word in words], dtype=np.float64).reshape(values.shape)


def _require_drawable(count: int, place: Place, most: int = MAX_DRAWN) -> None:
    if count > most:
        raise Refused([Fault(place, f"expected at most {most} drawn numbers, got {count}", "too-large")])


# loss


def load_loss(
    loss: Any, context: Context, data: Distribution | None, q: int
) -> tuple[Distribution | None, Loss]:
    """The loss of any form of `loss`, and the data with the targets and weights that it stands for.

    A loss in Python needs no data.

    Raises:
        Refused: for one in Python that may not run or fails, and for one that does not fit the data; paths
            start at `loss`.
    """
    from resnet_cert.problem.targets import with_loss

    try:
        if isinstance(loss, models.PythonLoss) or data is None:
            return data, _python_loss(loss, context)
        named = loss if isinstance(loss, str) else {key: value for key, value in loss if value is not None}
        return with_loss(data, named, q)
    except RequestError as error:
        raise Refused(Fault((), fault.message, fault.id) for fault in error.diagnostics) from None


@below("python")
def _python_loss(loss: models.PythonLoss, context: Context) -> Loss:
    from resnet_cert.problem.custom_loss import CustomLoss

    function = load_function(context.folder, loss.python, allow_code=context.allow_code)
    with running(context.folder, loss.python):
        return CustomLoss(function, printable(loss.python), convex=loss.convex is True)


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
    _require_drawable(sum(map(math.prod, zip(inputs, network.widths, strict=False))), ("widths",), most)
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


def _optional(numbers: list[float] | None) -> Array | None:
    return None if numbers is None else inline(numbers)


def _finite(array: Array) -> Array:
    if not np.isfinite(array).all():
        raise Refused("expected finite numbers in this array, got NaN or Inf", "not-finite")
    return array


# point


def load_point(point: Any, context: Context) -> Point:
    """The point of any form of `point`.

    Raises:
        Refused: every fault of the section and of its file; paths start at `point`.
    """
    if isinstance(point, models.InlinePoint):
        return Point(inline(point.w), inline(point.V), _optional(point.c))
    if isinstance(point, models.InlineMatrices):
        return Point(inline(point.W), inline(point.V), _optional(point.c))
    faults, arrays = Faults(), {}
    with faults.under("file"), open_arrays(context.folder, point.file) as array:
        with faults.under("W"):
            key, name = _head_name(point, array.names)
            arrays["W"] = _row_of(array(name)) if key == "w" else _matrix(array(name), name)
        with faults.under("V"):
            if point.V == "V" and "V" not in array.names:
                raise Refused(_unnamed("V", "V", point.file, array.names), "array-missing")
            arrays["V"] = _matrix(array(point.V), point.V)
        bias = point.c or ("c" if "c" in array.names else None)
        with faults.under("c"):
            if bias is not None:
                arrays["c"] = np.atleast_1d(array(bias))
    faults.refuse()
    return Point(**arrays)


def _head_name(point: models.FilePoint, names: Sequence[str]) -> tuple[str, str]:
    """w or W, and the array that it is."""
    given = [(key, name) for key, name in (("w", point.w), ("W", point.W)) if name is not None]
    found = given or [(key, key) for key in ("w", "W") if key in names]
    if len(found) == 2:
        raise Refused(f"expected an array w or W in {point.file}, got both", "unfit-part")
    if not found:
        raise Refused(_unnamed("w or W", "W", point.file, names), "array-missing")
    return found[0]


def _unnamed(letter: str, key: str, file: str, names: Sequence[str]) -> str:
    """That a point has no array of a default name, and how to name the one that it is."""
    return f"no array {letter} in {file}: name yours, {key}: NAME, one of {listed(names)}"


def _row_of(w: Array) -> Array:
    """w (1, d) of (d,) or (1, d)."""
    if w.ndim == 1 or (w.ndim == 2 and len(w) == 1):
        return w.reshape(1, -1)
    raise Refused(f"w: expected the shape (d,) or (1, d), got {w.shape}; several outputs are W", "shape")


def _matrix(array: Array, name: str) -> Array:
    if array.ndim != 2:
        raise Refused(f"{name}: expected a matrix, got the shape {array.shape}", "shape")
    return array
