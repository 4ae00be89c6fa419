"""The samples of any form of `data`: one function for each, and one line in their table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from resnet_cert.numerics.radius import Array
from resnet_cert.outcomes import RequestError, printable
from resnet_cert.problem.problem import Features, GivenFeatures, Rows
from resnet_cert.spec import data_models
from resnet_cert.spec.arrays import inline, load_npy, open_arrays, read_npy, readable
from resnet_cert.spec.context import Context, Samples, require_drawable
from resnet_cert.spec.faults import Fault, Faults, Refused, below, listed, shortened
from resnet_cert.spec.faults import Path as Place
from resnet_cert.spec.sampling import draw
from resnet_cert.spec.table import EXAMPLES, Column, labelled, labels_hint, read_csv, read_header

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


def words_fault(data: Any) -> Fault | None:
    """Labels in y without their numbers, in data that have other faults and so are not loaded."""
    if not isinstance(data, dict) or "labels" in data or not _are_words(data.get("y")):
        return None
    return Fault(("y",), _unnumbered(list(dict.fromkeys(map(str, data["y"])))), "labels")


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
    return Samples(**arrays, compare=compare, column=data.y if isinstance(data.y, str) else None)


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
    own: set[str] = set()
    for name, parts in _comparators(data):
        wanted |= {f"{name}[{i}]": [part] for i, part in enumerate(parts)}
        own |= {f"{name}[{i}]" for i, part in enumerate(parts) if part in OWN}
    labels = None if data.labels is None else {"y": Label(data.labels)}
    with below("shards"), readable(data.shards):
        try:
            opened = open_shards(context.folder, data.shards, wanted, labels=labels, optional=own)
            rows: dict[str, Any] = dict(opened)
        except RequestError as error:
            raise Refused(Fault((), fault.message, fault.id) for fault in error.diagnostics) from None
    faults = Faults()
    for key in ("x", "f", "bypass", "omega"):
        if key in rows and len(rows[key].shape) == 1:
            got = f"got the column {wanted[key]!r}: write {key}: [{wanted[key]}]"
            faults.append(Fault((key,), f"expected an array of rows (n, ·), {got}", "shape"))
    faults.refuse()
    compare = {
        name: tuple(rows.pop(f"{name}[{i}]", part) for i, part in enumerate(parts))
        for name, parts in _comparators(data)
    }
    return Samples(**rows, compare=compare)


def _drawn_samples(data: data_models.SampleData, context: Context) -> Samples:
    sample = data.sample
    if context.stored is not None:
        context.stored.require({"n": sample.n, "d": sample.d}, ("sample",))
    require_drawable(sample.n * sample.d, ("sample", "n"))
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
    return bool(values) and isinstance(values, list) and all(isinstance(e, (str, bool)) for e in values)


def _unnumbered(distinct: list[str]) -> str:
    shown = ", ".join(repr(shortened(word)) for word in distinct[:EXAMPLES])
    return f"expected numbers, got {shown}: {labels_hint(distinct)}"


def numbered(values: np.ndarray[Any, Any], labels: Mapping[str, float] | None) -> Array:
    """The numbers of an array of labels.

    Raises:
        Refused: a label has no number.
    """
    words = np.array([str(word) for word in values.ravel().tolist()], dtype=object)
    distinct = list(dict.fromkeys(words))
    if labels is None:
        raise Refused(_unnumbered(distinct), "labels")
    try:
        numbers = {word: Label(labels)(word) for word in distinct}
    except ValueError as error:
        raise Refused(str(error), "labels") from None
    return np.array([numbers[word] for word in words], dtype=np.float64).reshape(values.shape)


@dataclass(frozen=True)
class Label:
    """The number of a label as `data.labels` has it; a part of rows that travel to other processes."""

    labels: Mapping[str, float]

    def __call__(self, word: str) -> float:
        """Raises: ValueError, for a word that is none of them."""
        try:
            return labelled(self.labels)(word)
        except (KeyError, ValueError):
            got = f"got {shortened(word)!r}"
            raise ValueError(f"expected one of {listed(self.labels)} as in data.labels, {got}") from None
