"""Arrays of real numbers, each known to within a radius of its own of a float64 centre.

Thousands of boxes are cheaper in this form than with two ends (`intervals`): a product rounds once, and a sum
over samples is one matrix product with a bound γ of its roundings.  Every radius is computed in round to
nearest and made an upper bound by `_up`, which pays for its own few roundings and for underflow.  A number
that overflowed has an infinite or no radius: what is concluded from it must be of the form "a < b", which NaN
never makes true.  Callers run under `QUIET`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from resnet_cert.numerics.radius import FLOOR, Array, U, gamma

Bools = npt.NDArray[np.bool_]

_PAYS = 1.0 + 32.0 * U
"""For a radius made of at most 14 operations with numbers ≥ 0; one made of many has their γ besides."""
QUIET = np.errstate(all="ignore")


def _up(bound: Array) -> Array:
    return bound * _PAYS + FLOOR


@dataclass(frozen=True, slots=True, eq=False)
class Balls:
    """Numbers in [center − radius, center + radius], elementwise; radius ≥ 0 of the same shape."""

    center: Array
    radius: Array

    @staticmethod
    def exact(x: Array | float) -> Balls:
        """The floats x themselves."""
        center = np.asarray(x, dtype=np.float64)
        return Balls(center, np.zeros_like(center))

    @staticmethod
    def between(lower: Array, upper: Array) -> Balls:
        """All numbers in [lower, upper]."""
        center = 0.5 * lower + 0.5 * upper
        return Balls(center, _up(np.maximum(upper - center, center - lower) + U * np.abs(center)))

    @property
    def lower(self) -> Array:
        return np.nextafter(self.center - self.radius, -np.inf)

    @property
    def upper(self) -> Array:
        return np.nextafter(self.center + self.radius, np.inf)

    @property
    def size(self) -> Array:
        """Upper bounds of the absolute values."""
        return _up(np.abs(self.center) + self.radius)

    @property
    def has_no_zero(self) -> Bools:
        """Where 0 is excluded."""
        return np.asarray(np.abs(self.center) > self.radius)

    def __getitem__(self, index: Any) -> Balls:
        return Balls(self.center[index], self.radius[index])

    def __neg__(self) -> Balls:
        return Balls(-self.center, self.radius)

    def __add__(self, other: Balls) -> Balls:
        center = self.center + other.center
        return Balls(center, _up(self.radius + other.radius + U * np.abs(center)))

    def __sub__(self, other: Balls) -> Balls:
        return self + -other

    def __mul__(self, other: Balls) -> Balls:
        center = self.center * other.center
        spread = self.radius * (np.abs(other.center) + other.radius) + np.abs(self.center) * other.radius
        return Balls(center, _up(spread + U * np.abs(center)))

    def times(self, factor: Array | float) -> Balls:
        """By exact numbers."""
        center = self.center * factor
        return Balls(center, _up(self.radius * np.abs(factor) + U * np.abs(center)))

    def square(self) -> Balls:
        """x², never below 0."""
        low, high = np.maximum(np.abs(self.center) - self.radius, 0.0), np.abs(self.center) + self.radius
        low, high = low * low * (1.0 - 8.0 * U), _up(high * high)
        return Balls.between(low, high)

    def reciprocal(self) -> Balls:
        """1/x; unknown where x may be 0."""
        size = np.abs(self.center)
        center = 1.0 / self.center
        spread = self.radius / (size * (size - self.radius) * (1.0 - 8.0 * U)) + 4.0 * U * np.abs(center)
        return Balls(center, np.where(size > self.radius, _up(spread), np.inf))

    def widened(self, more: Array | float) -> Balls:
        """Numbers within `more` of these."""
        return Balls(self.center, _up(self.radius + more))

    def sum(self, axis: int = -1) -> Balls:
        """The sum along an axis."""
        few = gamma(self.center.shape[axis] + 2)
        spread = np.sum(self.radius + few * np.abs(self.center), axis=axis)
        return Balls(np.sum(self.center, axis=axis), _up(spread * (1.0 + few)))

    def weighted(self, weight: Balls) -> Balls:
        """Σ_i weight_i x_i along the last axis, weight (N,)."""
        few = gamma(self.center.shape[-1] + 4)
        size = np.abs(weight.center)
        spread = self.radius @ (size + weight.radius) + np.abs(self.center) @ (few * size + weight.radius)
        return Balls(self.center @ weight.center, _up(spread * (1.0 + few)))


def product(a: Balls, b: Balls) -> Balls:
    """The matrix product of stacks of small matrices (..., i, j), (..., j, l)."""
    few = gamma(a.center.shape[-1] + 4)
    size_a, size_b = np.abs(a.center), np.abs(b.center)
    spread = a.radius @ (size_b + b.radius) + size_a @ (b.radius + few * size_b)
    return Balls(a.center @ b.center, _up(spread * (1.0 + few)))


def transposed(x: Balls) -> Balls:
    """Of stacks of matrices (..., i, j): (..., j, i)."""
    return Balls(np.swapaxes(x.center, -1, -2), np.swapaxes(x.radius, -1, -2))


def stacked(parts: list[Balls], axis: int = -1) -> Balls:
    return Balls(
        np.stack([part.center for part in parts], axis=axis),
        np.stack([part.radius for part in parts], axis=axis),
    )
