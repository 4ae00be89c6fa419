"""The layers that the theory has a place for: affine maps, also at every window of an image, and what may
stand between a block and its head.

Arrays have the channels second, (m, channels, *positions): no positions for vectors.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from resnet_cert.numerics.radius import Array

Pool = Callable[[Array], Array]
"""(m, channels, *positions) to (m, channels), linear and the same for every channel."""


def _mean(a: Array) -> Array:
    return a.mean(axis=tuple(range(2, a.ndim)), dtype=np.float64)


POOLS: dict[str, Pool] = {
    "the mean over all positions": _mean,
    "the first position": lambda a: a.reshape(*a.shape[:2], -1)[:, :, 0],
    "the last position": lambda a: a.reshape(*a.shape[:2], -1)[:, :, -1],
}
"""What a head may read of the positions of a block.  Each commutes with an affine map of the channels."""
AS_IT_IS: dict[str, Pool] = {"the block's output": lambda a: a}


@dataclass(frozen=True)
class Window:
    """Where the windows of a convolution lie, a number for each axis; padding with zeros before and after.

    same: as many as leave ⌈length/stride⌉ windows, one more after than before where they are odd.
    """

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...] | Literal["same"]
    dilation: tuple[int, ...]

    def pads(self, lengths: tuple[int, ...], reach: list[int]) -> list[tuple[int, int]]:
        if self.padding != "same":
            return list(self.padding)
        pads = []
        for length, step, far in zip(lengths, self.stride, reach, strict=True):
            missing = max((-(-length // step) - 1) * step + far + 1 - length, 0)
            pads.append((missing // 2, missing - missing // 2))
        return pads


@dataclass(frozen=True)
class Scaling:
    """z ↦ scale·z + shift for each channel: a normalisation by stored statistics.

    size: the sum of the magnitudes of the terms of the shift, for bounds of its rounding.
    """

    scale: Array
    shift: Array
    size: Array

    @staticmethod
    def of_statistics(
        mean: Array, variance: Array, epsilon: float, scale: Array | None, bias: Array | None
    ) -> Scaling:
        """z ↦ (z − mean)/√(variance + ε)·scale + bias."""
        factor = (1.0 if scale is None else scale) / np.sqrt(variance + epsilon)
        shift = np.zeros_like(mean) if bias is None else bias
        return Scaling(factor, shift - factor * mean, np.abs(factor * mean) + np.abs(shift))


@dataclass(frozen=True)
class Affine:
    """z ↦ weight·z + bias; with a window, of the window at every position.

    weight: (out, in) or (out, in, *kernel).  bias: (out,) or None.  size: of the terms of the bias.
    """

    weight: Array
    bias: Array | None = None
    window: Window | None = None
    size: Array | None = None

    @property
    def matrix(self) -> Array:
        """(out, in·taps)."""
        return self.weight.reshape(len(self.weight), -1)

    @property
    def bias_size(self) -> Array | float:
        return self.size if self.size is not None else 0.0 if self.bias is None else np.abs(self.bias)

    def then(self, norm: Scaling | None) -> Affine:
        """The same followed by a scaling of its outputs: one affine map."""
        if norm is None:
            return self
        weight = self.weight * norm.scale.reshape(-1, *[1] * (self.weight.ndim - 1))
        bias = norm.shift if self.bias is None else norm.scale * self.bias + norm.shift
        return replace(self, weight=weight, bias=bias, size=np.abs(norm.scale) * self.bias_size + norm.size)

    def after(self, norm: Scaling | None, columns: int) -> Affine:
        """The same after a scaling of its first inputs."""
        if norm is None:
            return self
        weight = self.weight.copy()
        weight[:, :columns] *= norm.scale
        shift = self.weight[:, :columns] @ norm.shift
        return replace(self, weight=weight, bias=shift if self.bias is None else self.bias + shift)

    def inputs(self, f: Array, pool: Pool) -> Array:
        """(m, in·taps): what `matrix` multiplies after the pooling, from f (m, in, *positions)."""
        if self.window is None:
            return pool(f)
        taps = [pool(tap) for tap in self._taps(f, self.window)]
        return np.stack(taps, axis=2).reshape(len(f), -1)

    def _taps(self, f: Array, window: Window) -> Iterator[Array]:
        """What each tap of the kernel sees: (m, in, *positions of the output)."""
        kernel = self.weight.shape[2:]
        reach = [dilation * (size - 1) for size, dilation in zip(kernel, window.dilation, strict=True)]
        padded = np.pad(f, ((0, 0), (0, 0), *window.pads(f.shape[2:], reach)))
        counts = [
            (length - far - 1) // step + 1
            for length, far, step in zip(padded.shape[2:], reach, window.stride, strict=True)
        ]
        for tap in itertools.product(*map(range, kernel)):
            starts = [i * dilation for i, dilation in zip(tap, window.dilation, strict=True)]
            cut = [
                slice(start, start + step * (count - 1) + 1, step)
                for start, step, count in zip(starts, window.stride, counts, strict=True)
            ]
            yield padded[:, :, *cut]
