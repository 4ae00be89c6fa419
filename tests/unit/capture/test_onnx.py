"""Networks in ONNX files are captured with their own numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frameworks import assert_predicts, images, samples

from resnet_cert import RequestError

onnx: Any = pytest.importorskip("onnx", reason="ONNX is not installed", exc_type=ImportError)
runtime: Any = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed", exc_type=ImportError)
helper, F = onnx.helper, onnx.TensorProto.FLOAT


def model(nodes: list[Any], weights: dict[str, np.ndarray], shape: list[Any], q: int = 3) -> Any:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", F, shape)],
        [helper.make_tensor_value_info("output", F, ["n", q])],
        [onnx.numpy_helper.from_array(np.asarray(a, np.float32), name) for name, a in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made


def dense(gemm: bool, activation: str = "Identity") -> Any:
    rng = np.random.default_rng(0)
    weights = {
        "inner.weight": rng.normal(size=(4, 7)),
        "inner.bias": rng.normal(size=4),
        "V.weight": rng.normal(size=(7, 4)),
        "V.bias": rng.normal(size=7),
        "head.weight": rng.normal(size=(3, 7)),
        "head.bias": rng.normal(size=3),
    }
    node = helper.make_node

    def linear(name: str, given: str, gives: str) -> list[Any]:
        if gemm:
            return [node("Gemm", [given, f"{name}.weight", f"{name}.bias"], [gives], transB=1)]
        weights[f"{name}.weight"] = weights[f"{name}.weight"].T
        return [
            node("MatMul", [given, f"{name}.weight"], [f"{gives}.product"]),
            node("Add", [f"{gives}.product", f"{name}.bias"], [gives]),
        ]

    nodes = [
        *linear("inner", "input", "inner.out"),
        node("Tanh", ["inner.out"], ["f"]),
        *linear("V", "f", "V.out"),
        node("Add", ["input", "V.out"], ["sum"]),
        node(activation, ["sum"], ["h"]),
        *linear("head", "h", "output"),
    ]
    return model(nodes, weights, ["n", 7])


def outputs(made: Any, x: np.ndarray) -> np.ndarray:
    return runtime.InferenceSession(made.SerializeToString()).run(["output"], {"input": x})[0]


def arrays(model: Any, loader: Any, **parts: Any) -> Any:
    from resnet_cert.capture.onnx import captured_arrays
    from resnet_cert.capture.walk import Parts

    return captured_arrays(model, loader, Parts(**parts))


@pytest.mark.parametrize("gemm", [True, False])
@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"block": "input", "V": "V.weight", "head": "head.weight"},
        {"V": "V", "head": "head"},
        {"head": "head"},
        {"V": "V.weight"},
    ],
)
def test_a_graph_of_dense_layers_is_captured(gemm: bool, parts: dict[str, str], tmp_path: Path) -> None:
    made = dense(gemm)
    x, y = samples()
    onnx.save(made, tmp_path / "net.onnx")
    found = arrays(tmp_path / "net.onnx", (x, y), **parts)
    np.testing.assert_array_equal(found.x, x)
    assert found.f.shape == (40, 5)
    assert_predicts(found, outputs(made, x))


@pytest.mark.parametrize("size", [1, 7, 40])
def test_a_graph_that_takes_a_fixed_number_of_samples_is_run_in_pieces(size: int) -> None:
    made = dense(True)
    x, y = samples()
    found = arrays(made, (x, y))
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
    made.graph.output[0].type.tensor_type.shape.dim[0].dim_value = size
    pieces = arrays(made, (x, y))
    assert pieces.f.shape == found.f.shape
    np.testing.assert_allclose(pieces.f, found.f, rtol=1e-6, atol=1e-6)
    assert_predicts(pieces, outputs(dense(True), x))


def test_a_head_that_is_not_affine_is_named() -> None:
    with pytest.raises(RequestError, match="an affine layer as the head, got another kind of layer: f"):
        arrays(dense(True), samples(), head="f")


@pytest.mark.parametrize("gemm", [True, False])
@pytest.mark.parametrize("block", [None, "inner", "inner.weight", "inner.out"])
def test_x_is_what_is_added_to_V_f_or_named_by_what_gives_it(gemm: bool, block: str | None) -> None:
    """As an exported stem: the block adds to what it gives, its bias included."""
    rng = np.random.default_rng(0)
    weights = {"inner.weight": rng.normal(size=(4, 7)), "inner.bias": rng.normal(size=4)}
    weights |= {"V.weight": rng.normal(size=(4, 4)), "head.weight": rng.normal(size=(3, 4))}
    node = helper.make_node
    stem = [node("Gemm", ["input", "inner.weight", "inner.bias"], ["inner.out"], transB=1)]
    if not gemm:
        weights["inner.weight"] = weights["inner.weight"].T
        stem = [node("MatMul", ["input", "inner.weight"], ["product"])]
        stem += [node("Add", ["product", "inner.bias"], ["inner.out"])]
    nodes = [
        *stem,
        node("Tanh", ["inner.out"], ["f"]),
        node("Gemm", ["f", "V.weight"], ["Vf"], transB=1),
        node("Add", ["inner.out", "Vf"], ["h"]),
        node("Gemm", ["h", "head.weight"], ["output"], transB=1),
    ]
    made = model(nodes, weights, ["n", 7])
    x, y = samples()
    with pytest.raises(RequestError, match="x has 7; here x is the network's own input; block="):
        arrays(made, (x, y), block="input")
    found = arrays(made, (x, y), block=block)
    assert found.x.shape == (40, 4)
    assert_predicts(found, outputs(made, x))


def test_a_convolutional_graph_is_captured_through_the_mean_of_its_positions() -> None:
    rng = np.random.default_rng(0)
    weights = {
        "stem": rng.normal(size=(4, 1, 3, 3)),
        "conv1": rng.normal(size=(6, 4, 3, 3)),
        "conv2": rng.normal(size=(4, 6, 3, 3)),
        "gamma": rng.uniform(0.5, 1.5, size=4),
        "beta": rng.normal(size=4),
        "mean": rng.normal(size=4),
        "variance": rng.uniform(0.5, 1.5, size=4),
        "fc": rng.normal(size=(3, 4)),
        "fc.bias": rng.normal(size=3),
    }
    node, pads = helper.make_node, [1, 1, 1, 1]
    nodes = [
        node("Conv", ["input", "stem"], ["x"], pads=pads),
        node("Conv", ["x", "conv1"], ["inner"], pads=pads),
        node("Relu", ["inner"], ["f"]),
        node("Conv", ["f", "conv2"], ["Vf"], pads=pads),
        node("BatchNormalization", ["Vf", "gamma", "beta", "mean", "variance"], ["BNVf"], name="bn"),
        node("Add", ["x", "BNVf"], ["sum"]),
        node("GlobalAveragePool", ["sum"], ["pooled"]),
        node("Flatten", ["pooled"], ["h"]),
        node("Gemm", ["h", "fc", "fc.bias"], ["output"], transB=1),
    ]
    made = model(nodes, weights, ["n", 1, 6, 5])
    x, y = images()
    x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    found = arrays(made, (x, y), block="x", V=["conv2", "bn"], compare=["input", "x"])
    assert found.V.shape == (4, 6 * 9 + 1)
    assert found.readouts["input"].shape == (30, 30)
    assert_predicts(found, outputs(made, x))


def test_what_is_not_of_the_form_is_refused() -> None:
    with pytest.raises(RequestError, match="the head reads"):
        arrays(dense(True, "Relu"), samples())
