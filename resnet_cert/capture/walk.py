"""The way through a network that is the same in every framework: find the layers, run the samples, take what
passes through them, assemble."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from resnet_cert.capture.affine import Affine, Scaling
from resnet_cert.capture.assemble import Batch, Captured, assembled
from resnet_cert.numerics.radius import Array
from resnet_cert.numerics.threads import small_algebra
from resnet_cert.outcomes import RequestError

BATCH = 512
"""Samples of a batch, where arrays are given and not a loader."""

Layer = Any
"""A layer of some framework, or the name of one."""


@dataclass(frozen=True)
class Seen:
    """What went into a layer and what came out of it, in its framework's order of axes."""

    given: Array
    gave: Array


@dataclass(frozen=True)
class Parts:
    """The layers that a caller names, as `capture.torch.capture` has them."""

    block: Layer | None = None
    head: Layer | None = None
    V: Layer | Sequence[Layer] | None = None
    skip: Layer | None = None
    norm: Layer | None = None
    compare: Sequence[Layer] | Mapping[str, Layer] = ()


class Network(Protocol):
    """A model of one framework."""

    roundoff: float
    naming_x: str = "block=... names the layer whose input is x, skip=... the one whose output is x"
    """How a caller says what x is."""

    def layers(self) -> Mapping[str, Layer]:
        """Every layer by its name."""
        ...

    def affine(self, layer: Layer) -> Affine | None:
        """The layer as an affine map; None if it is none."""
        ...

    def scaling(self, layer: Layer) -> Scaling | None:
        """The layer as a normalisation by stored statistics; None if it is none."""
        ...

    def channels_last(self, layer: Layer) -> bool:
        """The layer takes (m, *positions, channels), not (m, channels, *positions)."""
        ...

    def run(self, inputs: Any, watch: Sequence[str]) -> tuple[Array, dict[str, Seen]]:
        """The outputs, and what passed through each of the layers in the order of their calls."""
        ...

    def to_array(self, data: Any) -> npt.NDArray[Any]: ...


@dataclass(frozen=True)
class Roles:
    """The names of the layers that play a part; None: there is none, or the network's own input."""

    V: str
    head: str
    block: str | None
    skip: str | None
    V_norm: str | None
    norm: str | None
    compare: Mapping[str, str]


def captured(
    network: Network, loader: Any, parts: Parts, shortcut: Callable[[Layer], str | None] | None = None
) -> Captured:
    """The arrays (x, f, W, V, c) themselves, and how near they come to the model's outputs.

    Args:
        shortcut: what finds `skip` from the layer of V, where neither it nor the block is named.

    Raises:
        RequestError: a layer is not there or not of its kind, or the network is not of that form.
    """
    layers = network.layers()
    batches = iter(_batches(loader))
    first = next(batches, None)
    if first is None:
        raise RequestError("expected samples, got an empty loader", id="model")
    V, skip = parts.V, parts.skip
    last, after = (V[0], V[1]) if isinstance(V, Sequence) and not isinstance(V, str) else (V, None)

    def name(layer: Layer | None) -> str | None:
        return None if layer is None or layer == INPUT else _name(layers, layer)

    block, found_head, found_V = name(parts.block), name(parts.head), name(last)
    if found_head is None or found_V is None:
        found_V, found_head = _defaults(network, layers, first[0], block, found_V, found_head)
    if shortcut is not None and parts.block is None and skip is None:
        skip = shortcut(layers[found_V])
    readouts = parts.compare
    if not isinstance(readouts, Mapping):
        readouts = {_label(layers, layer): layer for layer in readouts}
    roles = Roles(
        V=found_V,
        head=found_head,
        block=block,
        skip=name(skip),
        V_norm=name(after),
        norm=name(parts.norm),
        compare={
            label: INPUT if layer == INPUT else _name(layers, layer) for label, layer in readouts.items()
        },
    )
    affine = _require(network.affine(layers[roles.V]), roles.V, "an affine layer").then(
        _scaling(network, layers, roles.V_norm)
    )
    end = _require(network.affine(layers[roles.head]), roles.head, "an affine layer")
    if end.window is not None:
        raise RequestError(
            f"expected a head that is a dense layer, got a convolution: {roles.head}", id="model"
        )
    between = _scaling(network, layers, roles.norm)
    last = network.channels_last(layers[roles.V])
    samples = (_batch(network, roles, last, inputs, y) for inputs, y in _chain(first, batches))
    about_x = f"here x is {_origin(roles)}; {network.naming_x}"
    with small_algebra(max(affine.matrix.shape)):
        return assembled(samples, affine, end, between, network.roundoff, about_x)


INPUT = "input"
"""The network's own input, where the name of a layer is expected."""


def _origin(roles: Roles) -> str:
    if roles.skip is not None:
        return f"what {roles.skip} gives"
    return "the network's own input" if roles.block is None else f"that of {roles.block}"


def _batch(network: Network, roles: Roles, last: bool, inputs: Any, y: Any) -> Batch:
    watch = [roles.V, roles.head, *filter(None, (roles.block, roles.skip)), *roles.compare.values()]
    p, seen = network.run(inputs, [name for name in dict.fromkeys(watch) if name != INPUT])
    missing = [name for name in watch if name not in seen and name != INPUT]
    if missing:
        raise RequestError(f"expected the network to call {missing[0]}, and it does not", id="model")
    given = _float(network.to_array(_only(inputs)))
    if roles.skip is not None:
        x = seen[roles.skip].gave
    else:
        x = given if roles.block is None else seen[roles.block].given
    f, h = seen[roles.V].given, seen[roles.head].given
    if roles.block is None and x.ndim > f.ndim:
        x = x.reshape(len(x), -1)
    arrays = {label: given if name == INPUT else seen[name].gave for label, name in roles.compare.items()}
    return Batch(
        x=channels_second(x, last=last),
        f=channels_second(f, last=last),
        h=h,
        p=p.reshape(len(p), -1) if p.ndim == 1 else p,
        y=network.to_array(y),
        readouts={label: a.reshape(len(a), -1) for label, a in arrays.items()},
    )


def _defaults(
    network: Network,
    layers: Mapping[str, Layer],
    inputs: Any,
    block: str | None,
    V: str | None,
    head: str | None,
) -> tuple[str, str]:
    """V: the last affine layer that is called before the head, in the block; head: the last one of all."""
    known = {id(layer): name for name, layer in layers.items() if network.affine(layer) is not None}
    _, seen = network.run(inputs, list(known.values()))
    called = list(seen)
    if head is None:
        if not called:
            raise RequestError(
                "expected a dense layer as the head, and none is called; name it: head=...", id="model"
            )
        head = called[-1]
    _require(network.affine(layers[head]), head, "an affine layer as the head")
    if V is None:
        of_head = known[id(layers[head])]  # a layer may have several names
        before = called[: called.index(of_head)] if of_head in called else []
        inside = [name for name in before if block is None or f"{name}.".startswith(f"{block}.")]
        if not before:
            raise RequestError(
                "expected an affine layer before the head as V, and none is called; name it: V=...",
                id="model",
            )
        V = (inside or before)[-1]
    return V, head


def _name(layers: Mapping[str, Layer], layer: Layer) -> str:
    if isinstance(layer, str):
        if layer in layers:
            return layer
        from resnet_cert.spec.faults import suggestion

        raise RequestError(
            f"expected the name of a layer, got {layer!r}{suggestion(layer, layers)}", id="model"
        )
    for name, known in layers.items():
        if known is layer:
            return name
    raise RequestError(f"expected a layer of the network, got another {type(layer).__name__}", id="model")


def _label(layers: Mapping[str, Layer], layer: Layer) -> str:
    return layer if isinstance(layer, str) else _name(layers, layer)


def _require(affine: Affine | None, name: str, kind: str) -> Affine:
    if affine is None:
        raise RequestError(f"expected {kind}, got another kind of layer: {name}", id="model")
    return affine


def _scaling(network: Network, layers: Mapping[str, Layer], name: str | None) -> Scaling | None:
    if name is None:
        return None
    scaling = network.scaling(layers[name])
    if scaling is None:
        raise RequestError(
            f"expected a normalisation by stored statistics (BatchNorm), got another layer: {name}; "
            "one by the sample's own mean and variance is not affine",
            id="model",
        )
    return scaling


def _batches(loader: Any) -> Iterator[tuple[Any, Any]]:
    """(inputs, targets) of a loader, or of two arrays."""
    if isinstance(loader, tuple) and len(loader) == 2 and all(hasattr(part, "shape") for part in loader):
        x, y = loader
        if len(x) != len(y):
            raise RequestError(f"expected as many targets as samples, got {len(y)} for {len(x)}", id="model")
        for start in range(0, len(x), BATCH):
            yield x[start : start + BATCH], y[start : start + BATCH]
        return
    for batch in loader:
        if not isinstance(batch, Sequence) or len(batch) != 2:
            raise RequestError(
                "expected batches (inputs, targets) of the loader, got another form", id="model"
            )
        yield batch[0], batch[1]


def _chain(first: tuple[Any, Any], rest: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    yield first
    yield from rest


def _only(inputs: Any) -> Any:
    """The one that x is: the first of several."""
    if isinstance(inputs, Mapping):
        return next(iter(inputs.values()))
    return inputs[0] if isinstance(inputs, tuple | list) else inputs


def _float(a: npt.NDArray[Any]) -> Array:
    return np.asarray(a, dtype=np.float64)


def channels_second(a: Array, *, last: bool) -> Array:
    """(m, channels, *positions), from an array whose channels come last, or second already."""
    return np.moveaxis(a, -1, 1) if last and a.ndim > 2 else a
