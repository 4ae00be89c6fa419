"""A residual block of PyTorch as a `Problem`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from resnet_cert.capture.affine import Affine, Scaling, Window
from resnet_cert.capture.assemble import Captured
from resnet_cert.capture.walk import Layer, Network, Parts, Seen, captured
from resnet_cert.numerics.radius import Array
from resnet_cert.outcomes import RequestError
from resnet_cert.problem.problem import Problem

try:
    import torch
    from torch import nn
except ImportError:
    raise RequestError("this needs PyTorch: pip install 'resnet-cert[torch]'", id="needs-package") from None

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def capture(
    model: nn.Module,
    loader: Any,
    *,
    loss: Any,
    block: str | nn.Module | None = None,
    head: str | nn.Module | None = None,
    V: str | nn.Module | Sequence[str | nn.Module] | None = None,
    skip: str | nn.Module | None = None,
    norm: str | nn.Module | None = None,
    compare: Sequence[Layer] | Mapping[str, Layer] = (),
    **options: Any,
) -> Problem:
    """The problem of a residual block x ↦ x + V f(x) and the head that reads it, p = W h + c.

    The model runs on its own device, in eval mode, without gradients, and is left as it was.  Its outputs
    must be those of the captured arrays up to the rounding of its arithmetic.

    Args:
        loader: an iterable of batches (inputs, targets), or two arrays.
        loss: as in `Problem.from_arrays`.
        block: the module whose input is x, by its name or itself; by default x is the model's own input.
        head: the last Linear (by default the last one that is called).
        V: the last Linear or convolution of the block (by default the last one called in it), or that and
            the BatchNorm after it, which is folded into V.  A bias becomes a column of V, with f = 1 there.
        skip: the shortcut, where it is a module of its own: then x is what it gives.
        norm: a BatchNorm between the block and the head, folded into the head.
        compare: modules whose outputs are further inputs for linear predictors; "input" is the model's own.
        options: as in `Problem.from_arrays`: epsilon, weight_decay, name, ...

    A convolutional block that the head reads through its mean over all positions is captured exactly: f is
    the mean of each tap's window.

    Raises:
        RequestError: the model is not of that form; the message says where, and by how much.
    """
    parts = Parts(block, head, V, skip, norm, compare)
    return captured_arrays(model, loader, parts).problem(loss, **options)


def captured_arrays(model: nn.Module, loader: Any, parts: Parts) -> Captured:
    """The arrays (x, f, W, V, c) themselves, and how near they come to the model's outputs."""
    with _in_eval_mode(model):
        return captured(_Torch(model), loader, parts)


@contextmanager
def _in_eval_mode(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


class _Torch(Network):
    def __init__(self, model: nn.Module) -> None:
        self.model = model
        parameter = next(model.parameters(), torch.zeros(0))
        self.device, self.dtype = parameter.device, parameter.dtype
        self.roundoff = float(torch.finfo(self.dtype).eps) / 2.0

    def layers(self) -> Mapping[str, nn.Module]:
        return {name or "model": module for name, module in self.model.named_modules(remove_duplicate=False)}

    def affine(self, layer: nn.Module) -> Affine | None:
        if isinstance(layer, nn.Linear):
            return Affine(_numbers(layer.weight), _optional(layer.bias))
        if not isinstance(layer, CONVOLUTIONS) or layer.groups != 1 or layer.padding_mode != "zeros":
            return None
        return Affine(_numbers(layer.weight), _optional(layer.bias), _window(layer))

    def scaling(self, layer: nn.Module) -> Scaling | None:
        if not isinstance(layer, NORMS) or layer.running_mean is None or layer.running_var is None:
            return None
        mean, variance = _numbers(layer.running_mean), _numbers(layer.running_var)
        weight, bias = _optional(layer.weight), _optional(layer.bias)
        return Scaling.of_statistics(mean, variance, layer.eps, weight, bias)

    def channels_last(self, layer: nn.Module) -> bool:
        return isinstance(layer, nn.Linear)

    def run(self, inputs: Any, watch: Sequence[str]) -> tuple[Array, dict[str, Seen]]:
        seen: dict[str, Seen] = {}
        layers = self.layers()

        def take(name: str, module: nn.Module) -> Any:
            def hook(_: nn.Module, given: tuple[Any, ...], gave: Any) -> None:
                if given and isinstance(gave, torch.Tensor):
                    seen[name] = Seen(_numbers(given[0]), _numbers(gave))

            return module.register_forward_hook(hook)

        handles = [take(name, layers[name]) for name in watch]
        try:
            output = self._called(inputs)
        finally:
            for handle in handles:
                handle.remove()
        if not isinstance(output, torch.Tensor):
            raise RequestError(
                f"expected a model that gives one tensor, got {type(output).__name__}", id="model"
            )
        return _numbers(output), seen

    def _called(self, inputs: Any) -> Any:
        if isinstance(inputs, Mapping):
            return self.model(**{name: self._placed(a) for name, a in inputs.items()})
        if isinstance(inputs, tuple | list):
            return self.model(*(self._placed(a) for a in inputs))
        return self.model(self._placed(inputs))

    def _placed(self, a: Any) -> torch.Tensor:
        tensor = torch.as_tensor(a, device=self.device)
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def to_array(self, data: Any) -> npt.NDArray[Any]:
        return data.detach().cpu().numpy() if isinstance(data, torch.Tensor) else np.asarray(data)


def _window(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> Window:
    stride, dilation = tuple(layer.stride), tuple(layer.dilation)
    if layer.padding == "same":
        return Window(stride, "same", dilation)
    pads = [0] * len(stride) if layer.padding == "valid" else [int(pad) for pad in layer.padding]
    return Window(stride, tuple((pad, pad) for pad in pads), dilation)


def _numbers(tensor: torch.Tensor) -> Array:
    return tensor.detach().to("cpu", torch.float64).numpy()


def _optional(tensor: torch.Tensor | None) -> Array | None:
    return None if tensor is None else _numbers(tensor)
