"""Flax's networks are captured with their own numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frameworks import assert_predicts, images, samples

from resnet_cert import RequestError

nnx: Any = pytest.importorskip("flax.nnx", reason="Flax is not installed", exc_type=ImportError)


@pytest.fixture(autouse=True)
def _a_users_jax() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


class Block(nnx.Module):
    def __init__(self, d: int, k: int, bias: bool, rngs: Any) -> None:
        self.inner = nnx.Linear(d, k, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.proj = nnx.Linear(k, d, use_bias=bias, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return x + self.proj(self.drop(jnp.tanh(self.inner(x))))


class Net(nnx.Module):
    def __init__(self, bias: bool = True, after: bool = False) -> None:
        rngs = nnx.Rngs(0)
        self.stem = nnx.Linear(7, 5, rngs=rngs)
        self.blocks = nnx.List([Block(5, 4, bias, rngs), Block(5, 6, bias, rngs)])
        self.head = nnx.Linear(5, 3, use_bias=bias, rngs=rngs)
        self.after = after

    def __call__(self, x: Any) -> Any:
        x = jnp.tanh(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(jax.nn.relu(x) if self.after else x)


def arrays(model: Any, loader: Any, **parts: Any) -> Any:
    from resnet_cert.capture.flax import captured_arrays
    from resnet_cert.capture.walk import Parts

    return captured_arrays(model, loader, Parts(**parts))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("named", ["by path", "by object", "by default"])
def test_a_block_and_its_head_are_captured(bias: bool, named: str) -> None:
    model = Net(bias)
    x, y = samples()
    parts = {
        "by path": {"block": "blocks.1", "V": "blocks.1.proj", "head": "head"},
        "by object": {"block": model.blocks[1]},
        "by default": {"block": "blocks.1"},
    }[named]
    found = arrays(model, (x, y), **parts)
    assert found.f.shape == (40, 6 + bias)
    assert model.blocks[1].drop.deterministic is False  # left as it was
    model.eval()
    assert_predicts(found, model(jnp.asarray(x)))


class Convolutional(nnx.Module):
    def __init__(self, padding: Any, stride: int, size: int) -> None:
        rngs = nnx.Rngs(0)
        self.stem = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.conv1 = nnx.Conv(4, 6, (3, 3), strides=stride, rngs=rngs)
        self.bn1 = nnx.BatchNorm(6, rngs=rngs)
        self.conv2 = nnx.Conv(6, 4, (size, size), padding=padding, rngs=rngs)
        self.bn2 = nnx.BatchNorm(4, rngs=rngs)
        self.shortcut = nnx.Conv(4, 4, (1, 1), strides=stride, rngs=rngs)
        self.fc = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, image: Any) -> Any:
        x = jax.nn.relu(self.stem(image))
        f = jax.nn.relu(self.bn1(self.conv1(x)))
        return self.fc((self.shortcut(x) + self.bn2(self.conv2(f))).mean(axis=(1, 2)))


@pytest.mark.parametrize(("padding", "stride", "size"), [("SAME", 1, 3), ("SAME", 2, 2), (1, 2, 3)])
def test_a_convolutional_block_is_captured_through_the_mean_of_its_positions(
    padding: Any, stride: int, size: int
) -> None:
    model = Convolutional(padding, stride, size)
    x, y = images()
    model.train()
    for _ in range(3):
        model(jnp.asarray(x))
    found = arrays(model, (x, y), skip="shortcut", V=["conv2", "bn2"])
    assert found.V.shape == (4, 6 * size**2 + 1)
    model.eval()
    assert_predicts(found, model(jnp.asarray(x)))


def test_what_is_not_of_the_form_is_refused() -> None:
    with pytest.raises(RequestError, match="the head reads"):
        arrays(Net(after=True), samples(), block="blocks.1")


def test_a_model_that_compiles_its_layers_is_refused() -> None:
    model = Net()
    compiled = nnx.jit(lambda m, x: m(x))

    class Compiled(nnx.Module):
        def __init__(self) -> None:
            self.net = model

        def __call__(self, x: Any) -> Any:
            return compiled(self.net, x)

    with pytest.raises(RequestError):
        arrays(Compiled(), samples(), block="net.blocks.1")


def test_capture_makes_the_problem_of_the_trained_head() -> None:
    from resnet_cert.capture.flax import capture

    problem = capture(Net(), samples(), loss="cross_entropy", block="blocks.1", compare=["input", "blocks.0"])
    assert (problem.n, problem.d1, problem.k, problem.q, problem.has_bias) == (40, 5, 7, 3, True)
    assert {name: rows.shape[1] for name, rows in problem.comparators.items()} == {"input": 7, "blocks.0": 5}
    assert np.isfinite(problem.chunk(slice(0, 40)).f).all()
