"""Keras' networks are captured with their own numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from frameworks import assert_predicts, images, samples

from resnet_cert import RequestError

os.environ.setdefault("KERAS_BACKEND", "jax")
keras: Any = pytest.importorskip("keras", reason="Keras is not installed", exc_type=ImportError)
layers = keras.layers


@pytest.fixture(autouse=True)
def _a_users_jax() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def functional(bias: bool, activation: str | None = None) -> Any:
    given = layers.Input((7,))
    x = layers.Dense(5, activation="tanh", name="stem")(given)
    f = layers.Dropout(0.5)(layers.Dense(4, activation="tanh", name="inner")(x))
    h = layers.Add()([x, layers.Dense(5, use_bias=bias, name="proj")(f)])
    if activation is not None:
        h = layers.Activation(activation)(h)
    return keras.Model(given, layers.Dense(3, use_bias=bias, name="head")(h))


def arrays(model: Any, loader: Any, **parts: Any) -> Any:
    from resnet_cert.capture.keras import captured_arrays
    from resnet_cert.capture.walk import Parts

    return captured_arrays(model, loader, Parts(**parts))


@pytest.mark.parametrize("bias", [True, False])
def test_a_functional_model_is_captured_by_the_layer_whose_output_is_x(bias: bool) -> None:
    keras.utils.set_random_seed(0)
    model = functional(bias)
    x, y = samples()
    found = arrays(model, (x, y), skip="stem")
    assert found.f.shape == (40, 4 + bias)
    assert_predicts(found, keras.ops.convert_to_numpy(model(x, training=False)))


def test_a_model_of_ones_own_class_is_captured_by_its_block() -> None:
    class Block(layers.Layer):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.inner, self.proj = layers.Dense(4, activation="tanh"), layers.Dense(5, name="last")

        def call(self, x: Any) -> Any:
            return x + self.proj(self.inner(x))

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.block = layers.Dense(5), Block(name="block")
            self.head = layers.Dense(1)

        def call(self, x: Any) -> Any:
            return self.head(self.block(self.stem(x)))

    keras.utils.set_random_seed(0)
    model = Net()
    x, y = samples()
    outputs = keras.ops.convert_to_numpy(model(x, training=False))
    assert_predicts(arrays(model, (x, y), block="block", V="last"), outputs)
    assert_predicts(arrays(model, (x, y), block=model.block), outputs)


@pytest.mark.parametrize(("padding", "stride", "size"), [("same", 1, 3), ("same", 2, 2), ("valid", 1, 1)])
def test_a_convolutional_block_is_captured_through_the_mean_of_its_positions(
    padding: str, stride: int, size: int
) -> None:
    keras.utils.set_random_seed(0)
    given = layers.Input((6, 5, 1))
    x = layers.Conv2D(4, 3, padding="same", strides=stride, activation="relu", name="stem")(given)
    f = layers.Activation("relu")(layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same")(x)))
    V = layers.BatchNormalization(name="bn")(layers.Conv2D(4, size, padding=padding, name="conv")(f))
    h = layers.GlobalAveragePooling2D()(layers.Add()([x, V]))
    model = keras.Model(given, layers.Dense(3, name="head")(layers.BatchNormalization(name="last")(h)))
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            for weight in layer.weights:
                weight.assign(rng.uniform(0.5, 1.5, size=weight.shape))
    pictures, y = images()
    found = arrays(model, (pictures, y), skip="stem", V=["conv", "bn"], norm="last")
    assert found.V.shape == (4, 6 * size**2 + 1)
    assert_predicts(found, keras.ops.convert_to_numpy(model(pictures, training=False)))


def test_what_is_not_of_the_form_is_refused() -> None:
    keras.utils.set_random_seed(0)
    with pytest.raises(RequestError, match="the head reads"):
        arrays(functional(True, "relu"), samples(), skip="stem")
    with pytest.raises(RequestError, match="expected an affine layer, got another kind of layer: inner"):
        arrays(functional(True), samples(), skip="stem", V="inner")


def test_a_backend_that_is_missing_is_named() -> None:
    code = "import sys; sys.modules['tensorflow'] = None; import resnet_cert.capture.keras"
    environment = dict(os.environ) | {"KERAS_BACKEND": "tensorflow"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert "Keras does not start" in done.stderr
    assert "KERAS_BACKEND=jax" in done.stderr
