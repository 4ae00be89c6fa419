"""A residual block in an ONNX file as a `Problem`, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from resnet_cert.capture.affine import Affine, Scaling, Window
from resnet_cert.capture.assemble import Captured
from resnet_cert.capture.walk import Network, Parts, Seen, captured
from resnet_cert.numerics.radius import Array
from resnet_cert.outcomes import RequestError
from resnet_cert.problem.problem import Problem

try:
    import onnx
    import onnxruntime
    from onnx import numpy_helper
except ImportError:
    raise RequestError(
        "this needs ONNX and its runtime: pip install 'resnet-cert[onnx]'", id="needs-package"
    ) from None

FLOATS: dict[int, type] = {onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.DOUBLE: np.float64}

PASSES_ON = ("BatchNormalization", "Dropout", "Identity")
"""Nodes that may stand between V and the addition."""


def capture(
    model: str | Path | onnx.ModelProto,
    loader: Any,
    *,
    loss: Any,
    block: str | None = None,
    head: str | None = None,
    V: str | Sequence[str] | None = None,
    norm: str | None = None,
    compare: Sequence[str] | Mapping[str, str] = (),
    **options: Any,
) -> Problem:
    """The problem of a residual block x ↦ x + V f(x) and the head that reads it; see `capture.torch.capture`.

    Args:
        model: the file, or the model itself.
        block: what x is: a tensor by its name in the graph, or a node, whose output x then is; by default
            what the graph adds to the output of V.
        head, V, norm: nodes, by their names, by those of their weights, or by those of the modules that had
            these ("head" for "head.weight"); a head is a Gemm, or a MatMul with the Add after it, V that or a
            Conv.
        compare: tensors of the graph.
    """
    parts = Parts(block=block, head=head, V=V, norm=norm, compare=compare)
    return captured_arrays(model, loader, parts).problem(loss, **options)


def captured_arrays(model: str | Path | onnx.ModelProto, loader: Any, parts: Parts) -> Captured:
    """The arrays (x, f, W, V, c) themselves, and how near they come to the model's outputs."""
    network = _Onnx(onnx.load(str(model)) if isinstance(model, str | Path) else model)
    named = None if parts.block is None else network.layers().get(parts.block)
    if isinstance(named, onnx.NodeProto):
        parts = replace(parts, block=network.output(named))
    return captured(network, loader, parts, network.shortcut)


class _Onnx(Network):
    naming_x = "block=... names the tensor that is x, or the node that gives it"

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        graph = model.graph
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant":
                value = next((a for a in node.attribute if a.name == "value"), None)
                if value is not None:
                    self.constants[node.output[0]] = numpy_helper.to_array(value.t)
        self.inputs = [entry for entry in graph.input if entry.name not in self.constants]
        shape = self.inputs[0].type.tensor_type.shape.dim
        self.batch = shape[0].dim_value if shape else 0
        """Samples that the graph takes at a time; 0: any number."""
        kind = self.inputs[0].type.tensor_type.elem_type
        self.dtype = FLOATS.get(kind, np.float32)
        self.roundoff = float(np.finfo(self.dtype).eps) / 2.0
        self.sessions: dict[tuple[str, ...], onnxruntime.InferenceSession] = {}

    def layers(self) -> Mapping[str, Any]:
        """Nodes by their names and by those of their weights, and tensors."""
        named: dict[str, Any] = {entry.name: entry.name for entry in self.inputs}
        for node in self.model.graph.node:
            for output in node.output:
                named[output] = output
        for node in self.model.graph.node:
            weights = [name for name in node.input if name in self.constants]
            modules = [name.removesuffix(".weight") for name in weights if name.endswith(".weight")]
            for name in (*modules, *weights, node.name):
                if name:
                    named[name] = node
        return named

    def output(self, node: onnx.NodeProto) -> str:
        """The tensor that it gives, with the bias that is added after it."""
        if node.op_type == "MatMul" and self._added(node) is not None:
            return next(other.output[0] for other in self.model.graph.node if node.output[0] in other.input)
        return node.output[0]

    def shortcut(self, layer: Any) -> str | None:
        """The tensor that is added to what V gives; None where there is none."""
        gives = self.output(layer)
        for node in self.model.graph.node:  # in the order of their calls
            if gives in node.input and node.op_type in PASSES_ON:
                gives = node.output[0]
            elif gives in node.input and node.op_type == "Add":
                others = [name for name in node.input if name != gives and name not in self.constants]
                return others[0] if others else None
        return None

    def affine(self, layer: Any) -> Affine | None:
        if not isinstance(layer, onnx.NodeProto) or len(layer.input) < 2:
            return None
        weight = self.constants.get(layer.input[1])
        if weight is None:
            return None
        weight, options = np.asarray(weight, np.float64), _options(layer)
        bias = self.constants.get(layer.input[2]) if len(layer.input) > 2 else None
        if layer.op_type == "Gemm":
            if (
                options.get("transA", 0)
                or options.get("alpha", 1.0) != 1.0
                or options.get("beta", 1.0) != 1.0
            ):
                return None
            return Affine(weight if options.get("transB", 0) else weight.T, _vector(bias))
        if layer.op_type == "MatMul" and weight.ndim == 2:
            return Affine(weight.T, _vector(self._added(layer)))
        if layer.op_type == "Conv" and options.get("group", 1) == 1:
            window = _window(options, weight.ndim - 2)
            return None if window is None else Affine(weight, _vector(bias), window)
        return None

    def _added(self, layer: onnx.NodeProto) -> npt.NDArray[Any] | None:
        """The constant vector that the only reader of a MatMul adds to it."""
        readers = [node for node in self.model.graph.node if layer.output[0] in node.input]
        if len(readers) != 1 or readers[0].op_type != "Add":
            return None
        added = [self.constants[name] for name in readers[0].input if name in self.constants]
        return added[0] if added and added[0].ndim == 1 else None

    def scaling(self, layer: Any) -> Scaling | None:
        if not isinstance(layer, onnx.NodeProto) or layer.op_type != "BatchNormalization":
            return None
        scale, bias, mean, variance = (
            np.asarray(self.constants[name], np.float64) for name in layer.input[1:5]
        )
        return Scaling.of_statistics(mean, variance, _options(layer).get("epsilon", 1e-5), scale, bias)

    def channels_last(self, layer: Any) -> bool:
        return layer.op_type != "Conv"

    def run(self, inputs: Any, watch: Sequence[str]) -> tuple[Array, dict[str, Seen]]:
        """In pieces where the graph takes a fixed number of samples, the last one filled up."""
        fed = self._fed(inputs)
        if not self.batch:
            return self._run(fed, watch)
        m, size, pieces = len(next(iter(fed.values()))), self.batch, []
        for start in range(0, m, size):
            piece = {name: a[start : start + size] for name, a in fed.items()}
            short = size - len(next(iter(piece.values())))
            filled = {name: np.concatenate([a, *[a[-1:]] * short]) for name, a in piece.items()}
            pieces.append(self._run(filled, watch))

        def joined(parts: Iterable[Array]) -> Array:
            return np.concatenate(list(parts))[:m]

        def seen(name: str) -> Seen:
            each = [part[name] for _, part in pieces]
            return Seen(joined(part.given for part in each), joined(part.gave for part in each))

        return joined(p for p, _ in pieces), {name: seen(name) for name in pieces[0][1]}

    def _run(self, fed: dict[str, npt.NDArray[Any]], watch: Sequence[str]) -> tuple[Array, dict[str, Seen]]:
        layers = self.layers()
        nodes = {name: layers[name] for name in watch}
        order = {id(node): number for number, node in enumerate(self.model.graph.node)}
        called = sorted(nodes, key=lambda name: order.get(id(nodes[name]), -1))
        tensors = {
            name: (node, node) if isinstance(node, str) else (node.input[0], node.output[0])
            for name, node in nodes.items()
        }
        wanted = dict.fromkeys(name for pair in tensors.values() for name in pair if name not in fed)
        output = self.model.graph.output[0].name
        session = self._session(tuple(wanted))
        found = dict(zip(wanted, session.run(list(wanted), fed), strict=True)) if wanted else {}
        values = {**fed, **found}
        seen = {
            name: Seen(*(np.asarray(values[part], np.float64) for part in tensors[name])) for name in called
        }
        return np.asarray(session.run([output], fed)[0], np.float64), seen

    def _session(self, wanted: tuple[str, ...]) -> onnxruntime.InferenceSession:
        if wanted not in self.sessions:
            wider = onnx.ModelProto()
            wider.CopyFrom(self.model)
            there = {entry.name for entry in wider.graph.output}
            wider.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in there)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            self.sessions[wanted] = onnxruntime.InferenceSession(
                wider.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        return self.sessions[wanted]

    def _fed(self, inputs: Any) -> dict[str, npt.NDArray[Any]]:
        if isinstance(inputs, Mapping):
            given = dict(inputs)
        else:
            parts = inputs if isinstance(inputs, tuple | list) else [inputs]
            given = dict(zip((entry.name for entry in self.inputs), parts, strict=True))
        return {name: self._placed(np.asarray(a)) for name, a in given.items()}

    def _placed(self, a: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return a.astype(self.dtype) if np.issubdtype(a.dtype, np.floating) else a

    def to_array(self, data: Any) -> npt.NDArray[Any]:
        return np.asarray(data)


def _options(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _window(options: Mapping[str, Any], axes: int) -> Window | None:
    stride = tuple(options.get("strides", [1] * axes))
    dilation = tuple(options.get("dilations", [1] * axes))
    auto = options.get("auto_pad", b"NOTSET").decode()
    if auto == "SAME_UPPER":
        return Window(stride, "same", dilation)
    if auto not in ("NOTSET", "VALID"):
        return None
    pads = options.get("pads", [0] * 2 * axes)
    return Window(stride, tuple(zip(pads[:axes], pads[axes:], strict=True)), dilation)


def _vector(a: npt.NDArray[Any] | None) -> Array | None:
    return None if a is None else np.asarray(a, np.float64).reshape(-1)
