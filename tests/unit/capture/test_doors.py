"""The same weights get the same verdict through every door: a spec, arrays in a file, each framework."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_cert import Problem, check, load_problem

os.environ.setdefault("KERAS_BACKEND", "jax")
N, D, K, Q = 25, 4, 3, 3
RNG = np.random.default_rng(5)
X = RNG.normal(size=(N, D)).astype(np.float32)
Y = RNG.integers(Q, size=N)
WEIGHTS = {
    name: (0.5 * RNG.normal(size=shape)).astype(np.float32)
    for name, shape in {"A": (K, D), "a": (K,), "V": (D, K), "W": (Q, D), "c": (Q,)}.items()
}
"""p = W(x + V tanh(Ax + a)) + c."""
OPTIONS: dict[str, Any] = {"loss": "cross_entropy", "weight_decay": 0.1, "epsilon": 1e-3}


@pytest.fixture(autouse=True)
def _a_users_jax() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def from_spec(folder: Path) -> Problem:
    A, a, V, W, c = (array.astype(float).tolist() for array in WEIGHTS.values())
    spec = {
        "version": 1,
        "data": {"x": X.astype(float).tolist(), "y": Y.tolist()},
        "loss": "cross_entropy",
        "network": {"kind": "mlp", "activation": "tanh", "layers": [{"weight": A, "bias": a}, EYE]},
        "point": {"W": W, "V": V, "c": c},
        "regularizer": {"weight_decay": 0.1},
        "epsilon": 1e-3,
    }
    (folder / "s.yaml").write_text(json.dumps(spec))
    return load_problem(folder / "s.yaml")


EYE = {"weight": np.eye(K).tolist()}
"""The last layer of an mlp has no activation."""


def from_file(folder: Path) -> Problem:
    return load_problem(from_spec(folder).save(folder / "run.npz").with_suffix(".yaml"))


def from_torch(folder: Path) -> Problem:
    torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed", exc_type=ImportError)
    from resnet_cert.capture.torch import capture

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.V = torch.nn.Linear(D, K), torch.nn.Linear(K, D, bias=False)
            self.head = torch.nn.Linear(D, Q)

        def forward(self, x: Any) -> Any:
            return self.head(x + self.V(torch.tanh(self.inner(x))))

    net = Net()
    names = ("inner.weight", "inner.bias", "V.weight", "head.weight", "head.bias")
    net.load_state_dict(dict(zip(names, map(torch.from_numpy, WEIGHTS.values()), strict=True)))
    return capture(net, (torch.from_numpy(X), torch.from_numpy(Y)), **OPTIONS)


def from_flax(folder: Path) -> Problem:
    nnx: Any = pytest.importorskip("flax.nnx", reason="Flax is not installed", exc_type=ImportError)
    from resnet_cert.capture.flax import capture

    class Net(nnx.Module):
        def __init__(self) -> None:
            rngs = nnx.Rngs(0)
            self.inner, self.V = nnx.Linear(D, K, rngs=rngs), nnx.Linear(K, D, use_bias=False, rngs=rngs)
            self.head = nnx.Linear(D, Q, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.head(x + self.V(jnp.tanh(self.inner(x))))

    net = Net()
    for layer, kernel, bias in ((net.inner, "A", "a"), (net.V, "V", None), (net.head, "W", "c")):
        layer.kernel[...] = jnp.asarray(WEIGHTS[kernel].T)
        if bias is not None:
            layer.bias[...] = jnp.asarray(WEIGHTS[bias])
    return capture(net, (X, Y), **OPTIONS)


def from_equinox(folder: Path) -> Problem:
    eqx: Any = pytest.importorskip("equinox", reason="Equinox is not installed", exc_type=ImportError)
    from resnet_cert.capture.equinox import capture

    class Net(eqx.Module):
        inner: Any
        V: Any
        head: Any

        def __init__(self) -> None:
            key = jax.random.key(0)
            self.inner = eqx.nn.Linear(D, K, key=key, dtype=jnp.float32)
            self.V = eqx.nn.Linear(K, D, use_bias=False, key=key, dtype=jnp.float32)
            self.head = eqx.nn.Linear(D, Q, key=key, dtype=jnp.float32)

        def __call__(self, x: Any) -> Any:
            return self.head(x + self.V(jnp.tanh(self.inner(x))))

    def places(net: Any) -> list[Any]:
        return [net.inner.weight, net.inner.bias, net.V.weight, net.head.weight, net.head.bias]

    net = eqx.tree_at(places, Net(), [jnp.asarray(array) for array in WEIGHTS.values()])
    return capture(net, (X, Y), **OPTIONS)


def from_keras(folder: Path) -> Problem:
    keras: Any = pytest.importorskip("keras", reason="Keras is not installed", exc_type=ImportError)
    from resnet_cert.capture.keras import capture

    layers = keras.layers
    given = layers.Input((D,))
    inner, V = layers.Dense(K, activation="tanh"), layers.Dense(D, use_bias=False)
    head = layers.Dense(Q)
    model = keras.Model(given, head(layers.Add()([given, V(inner(given))])))
    inner.set_weights([WEIGHTS["A"].T, WEIGHTS["a"]])
    V.set_weights([WEIGHTS["V"].T])
    head.set_weights([WEIGHTS["W"].T, WEIGHTS["c"]])
    return capture(model, (X, Y), **OPTIONS)


def from_onnx(folder: Path) -> Problem:
    onnx: Any = pytest.importorskip("onnx", reason="ONNX is not installed", exc_type=ImportError)
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed", exc_type=ImportError)
    from resnet_cert.capture.onnx import capture

    node, tensor = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    weights = WEIGHTS | {"Vt": WEIGHTS["V"].T}
    graph = onnx.helper.make_graph(
        [
            node("Gemm", ["x", "A", "a"], ["inner"], transB=1),
            node("Tanh", ["inner"], ["f"]),
            node("MatMul", ["f", "Vt"], ["Vf"]),
            node("Add", ["x", "Vf"], ["h"]),
            node("Gemm", ["h", "W", "c"], ["p"], transB=1),
        ],
        "net",
        [tensor("x", onnx.TensorProto.FLOAT, ["n", D])],
        [tensor("p", onnx.TensorProto.FLOAT, ["n", Q])],
        [onnx.numpy_helper.from_array(np.ascontiguousarray(a), name) for name, a in weights.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    return capture(model, (X, Y), **OPTIONS)


DOORS: list[Callable[[Path], Problem]] = [
    from_file,
    from_torch,
    from_flax,
    from_equinox,
    from_keras,
    from_onnx,
]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_every_door_leads_to_the_same_verdict(door: Callable[[Path], Problem], tmp_path: Path) -> None:
    """And to the same numbers, up to the float32 of a framework's features."""
    wanted, found = check(from_spec(tmp_path)), check(door(tmp_path))
    assert found.verdict is wanted.verdict
    assert found.problem.outputs == wanted.problem.outputs
    assert found.problem.bias == wanted.problem.bias
    least, also = wanted.smallest_epsilon, found.smallest_epsilon
    assert least is not None
    assert also is not None
    pairs = [
        (also, least),
        (found.objective.F, wanted.objective.F),
        (found.gradient.norm, wanted.gradient.norm),
    ]
    pairs += [(found.hessian.lambda_min, wanted.hessian.lambda_min)]
    pairs += [(found.objective.gap, wanted.objective.gap)]
    for a, b in pairs:
        assert a.value == pytest.approx(b.value, rel=1e-5, abs=1e-6)
