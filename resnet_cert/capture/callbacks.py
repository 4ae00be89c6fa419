"""A `Monitor` in training loops that call back, PyTorch Lightning's and Keras', without importing them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from resnet_cert.compare.monitor import Monitor, Progress


class EpochMonitor:
    """Calls the monitor at the end of every epoch, keeps what it says and logs it as "resnet_cert/...".

    Args:
        monitor: the `Monitor`.
        point: model ↦ its arguments {"W": ..., "V": ..., "c": ..., "f": ...} as arrays that NumPy can read.

    Lightning's Trainer calls `on_train_epoch_end`, Keras' `fit` calls `on_epoch_end`; every other hook
    of theirs is there and does nothing.
    """

    def __init__(self, monitor: Monitor, point: Callable[[Any], Mapping[str, Any]]) -> None:
        self.monitor, self.point = monitor, point
        self.history: list[Progress] = []
        self.model: Any = None

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Lightning's hook: the numbers go to the module's own `log_dict`."""
        numbers = self._numbers(module)
        if hasattr(module, "log_dict"):
            module.log_dict(numbers)

    def set_model(self, model: Any) -> None:
        """Keras' hook."""
        self.model = model

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keras' hook: the numbers join the epoch's logs, and so its History."""
        numbers = self._numbers(self.model)
        if logs is not None:
            logs.update(numbers)

    def _numbers(self, model: Any) -> dict[str, float]:
        progress = self.monitor(**self.point(model))
        self.history.append(progress)
        return {
            f"resnet_cert/{name}": value for name, value in progress.to_dict().items() if value is not None
        }

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_") or name in (
            "set_params",
            "setup",
            "teardown",
            "state_dict",
            "load_state_dict",
        ):
            return lambda *args, **kwargs: {} if name == "state_dict" else None
        raise AttributeError(name)
