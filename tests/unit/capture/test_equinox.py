"""Equinox's networks are captured with their own numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from frameworks import assert_predicts, images, samples

from resnet_cert import RequestError

eqx: Any = pytest.importorskip("equinox", reason="Equinox is not installed", exc_type=ImportError)


@pytest.fixture(autouse=True)
def _a_users_jax() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


class Block(eqx.Module):
    inner: Any
    drop: Any
    proj: Any

    def __init__(self, d: int, k: int, bias: bool, key: Any) -> None:
        keys = jax.random.split(key)
        self.inner = eqx.nn.Linear(d, k, key=keys[0], dtype=jnp.float32)
        self.drop = eqx.nn.Dropout(0.5)
        self.proj = eqx.nn.Linear(k, d, use_bias=bias, key=keys[1], dtype=jnp.float32)

    def __call__(self, x: Any) -> Any:
        return x + self.proj(self.drop(jnp.tanh(self.inner(x))))


class Net(eqx.Module):
    stem: Any
    blocks: list[Any]
    head: Any
    after: bool = False

    def __init__(self, bias: bool = True, after: bool = False, q: Any = 3) -> None:
        keys = jax.random.split(jax.random.key(0), 4)
        self.stem = eqx.nn.Linear(7, 5, key=keys[0], dtype=jnp.float32)
        self.blocks = [Block(5, 4, bias, keys[1]), Block(5, 6, bias, keys[2])]
        self.head = eqx.nn.Linear(5, q, use_bias=bias, key=keys[3], dtype=jnp.float32)
        self.after = after

    def __call__(self, x: Any) -> Any:
        x = jnp.tanh(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(jax.nn.relu(x) if self.after else x)


def arrays(model: Any, loader: Any, state: Any = None, call: Any = None, **parts: Any) -> Any:
    from resnet_cert.capture.equinox import captured_arrays
    from resnet_cert.capture.walk import Parts

    return captured_arrays(model, loader, Parts(**parts), state, call)


@pytest.mark.parametrize("q", [3, "scalar"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("named", ["by path", "by object"])
def test_a_block_and_its_head_are_captured(q: Any, bias: bool, named: str) -> None:
    model = Net(bias, q=q)
    x, y = samples()
    found = arrays(model, (x, y), block="blocks.1" if named == "by path" else model.blocks[1])
    assert found.f.shape == (40, 6 + bias)
    assert_predicts(found, jax.vmap(eqx.nn.inference_mode(model))(jnp.asarray(x)))


class Convolutional(eqx.Module):
    stem: Any
    conv1: Any
    conv2: Any
    fc: Any

    def __init__(self, padding: Any, size: int) -> None:
        keys = jax.random.split(jax.random.key(0), 4)
        self.stem = eqx.nn.Conv2d(1, 4, 3, padding=1, key=keys[0], dtype=jnp.float32)
        self.conv1 = eqx.nn.Conv2d(4, 6, 3, padding=1, key=keys[1], dtype=jnp.float32)
        self.conv2 = eqx.nn.Conv2d(6, 4, size, padding=padding, key=keys[2], dtype=jnp.float32)
        self.fc = eqx.nn.Linear(4, 3, key=keys[3], dtype=jnp.float32)

    def __call__(self, image: Any) -> Any:
        x = self.stem(image)
        return self.fc((x + self.conv2(jax.nn.relu(self.conv1(x)))).mean(axis=(1, 2)))


@pytest.mark.parametrize(("padding", "size"), [(1, 3), ("SAME", 2), (0, 1)])
def test_a_convolutional_block_is_captured_through_the_mean_of_its_positions(padding: Any, size: int) -> None:
    model = Convolutional(padding, size)
    x, y = images()
    x = x.transpose(0, 3, 1, 2)
    found = arrays(model, (x, y), skip="stem")
    assert found.V.shape == (4, 6 * size**2 + 1)
    assert_predicts(found, jax.vmap(model)(jnp.asarray(x)))


def test_what_is_not_of_the_form_is_refused() -> None:
    with pytest.raises(RequestError, match="the head reads"):
        arrays(Net(after=True), samples(), block="blocks.1")


def test_a_model_that_needs_more_than_x_is_called_as_one_says() -> None:
    class Stateful(eqx.Module):
        net: Net

        def __call__(self, x: Any, state: Any) -> tuple[Any, Any]:
            return self.net(x), state

    model = Stateful(Net())
    x, y = samples()
    found = arrays(model, (x, y), block="net.blocks.1", call=lambda model, x: model(x, None)[0])
    assert_predicts(found, jax.vmap(eqx.nn.inference_mode(model.net))(jnp.asarray(x)))


class Normalised(eqx.Module):
    """A stem, a convolutional block that ends in a BatchNorm, another one before the head."""

    stem: Any
    conv1: Any
    conv2: Any
    bn: Any
    last: Any
    fc: Any

    def __init__(self, mode: str) -> None:
        keys = jax.random.split(jax.random.key(0), 4)
        self.stem = eqx.nn.Conv2d(1, 4, 3, padding=1, key=keys[0], dtype=jnp.float32)
        self.conv1 = eqx.nn.Conv2d(4, 6, 3, padding=1, key=keys[1], dtype=jnp.float32)
        self.conv2 = eqx.nn.Conv2d(6, 4, 3, padding=1, key=keys[2], dtype=jnp.float32)
        self.bn = eqx.nn.BatchNorm(4, "batch", mode=mode, dtype=jnp.float32)
        self.last = eqx.nn.BatchNorm(4, "batch", mode=mode, channelwise_affine=False, dtype=jnp.float32)
        self.fc = eqx.nn.Linear(4, 3, key=keys[3], dtype=jnp.float32)

    def __call__(self, image: Any, state: Any) -> tuple[Any, Any]:
        x = self.stem(image)
        inner, state = self.bn(self.conv2(jax.nn.relu(self.conv1(x))), state)
        pooled, state = self.last((x + inner).mean(axis=(1, 2)), state)
        return self.fc(pooled), state


@pytest.mark.parametrize("mode", ["ema", "batch"])
def test_batch_norms_are_folded_by_the_statistics_of_the_state(mode: str) -> None:
    model, state = eqx.nn.make_with_state(Normalised)(mode)
    x, y = images()
    x = x.transpose(0, 3, 1, 2)
    for _ in range(2):  # training steps, which leave statistics
        _, state = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(
            jnp.asarray(x, jnp.float32), state
        )
    found = arrays(model, (x, y), skip="stem", V=["conv2", "bn"], norm="last", state=state)
    inferring = eqx.nn.inference_mode(model)
    assert_predicts(found, jax.vmap(lambda x: inferring(x, state)[0])(jnp.asarray(x, jnp.float32)))
    with pytest.raises(RequestError, match="expected state="):
        arrays(model, (x, y), skip="stem", V=["conv2", "bn"], norm="last", call=lambda m, x: m(x, state)[0])
