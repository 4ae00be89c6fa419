"""The monitor in the loops of others: one that calls as Lightning does, and Keras' own `fit`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from frameworks import samples

from resnet_cert import Monitor
from resnet_cert.capture.callbacks import EpochMonitor


class Module:
    """What Lightning's modules have that the callback uses."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.W, self.V, self.f = rng.normal(size=(3, 7)), rng.normal(size=(7, 2)), rng.normal(size=(40, 2))
        self.logged: list[dict[str, float]] = []

    def log_dict(self, numbers: dict[str, float]) -> None:
        self.logged.append(numbers)


def test_a_loop_like_lightnings_logs_every_epoch() -> None:
    x, y = samples()
    module = Module()
    callback = EpochMonitor(
        Monitor(x, y, loss="cross_entropy", r=2.0), lambda m: {"W": m.W, "V": m.V, "f": m.f}
    )
    for hook in ("setup", "on_fit_start", "on_train_epoch_start", "on_train_batch_end"):
        getattr(callback, hook)(None, module)
    assert callback.state_dict() == {}
    for _ in range(2):
        module.W *= 0.5
        callback.on_train_epoch_end(None, module)
    assert [progress.F.value for progress in callback.history] == [
        numbers["resnet_cert/F"] for numbers in module.logged
    ]
    assert callback.history[0].b == callback.history[1].b
    with pytest.raises(AttributeError):
        _ = callback.something_else


@pytest.fixture
def _a_users_jax() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.usefixtures("_a_users_jax")
def test_keras_fit_puts_the_numbers_into_its_history() -> None:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras: Any = pytest.importorskip("keras", reason="Keras is not installed", exc_type=ImportError)
    keras.utils.set_random_seed(0)
    given = keras.layers.Input((7,))
    f = keras.layers.Dense(4, activation="tanh")(given)
    h = keras.layers.Add()([given, keras.layers.Dense(7, use_bias=False, name="V")(f)])
    model = keras.Model(given, keras.layers.Dense(3, name="head")(h))
    features = keras.Model(given, f)
    x, y = samples()

    def numbers(tensor: Any) -> Any:
        return keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(tensor))

    def point(model: Any) -> dict[str, Any]:
        head, V = model.get_layer("head"), model.get_layer("V")
        return {
            "W": numbers(head.kernel).T,
            "V": numbers(V.kernel).T,
            "c": numbers(head.bias),
            "f": numbers(features(x)),
        }

    callback = EpochMonitor(Monitor(x, y, loss="cross_entropy", r=2.0), point)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = model.fit(x, y, epochs=3, batch_size=40, verbose=0, callbacks=[callback]).history
    assert history["resnet_cert/epsilon"] == [p.epsilon.upper for p in callback.history if p.epsilon]
    assert len(callback.history) == 3
    assert callback.history[2].F.upper < callback.history[0].F.lower
