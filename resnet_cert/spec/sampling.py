"""Samples drawn from a distribution; the data of a check are then the drawn numbers, exactly.

NumPy's PCG64 draws in the order u (the teacher's direction), x, the noise, and what else the targets need,
so that a seed fixes every number.  Adding a distribution or a teacher is one function in one table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from resnet_cert.numerics.enclosure import Array

if TYPE_CHECKING:
    from numpy.random import Generator

LARGEST_LOG_MEAN = 30.0  # of a Poisson target


def _sphere(rng: Generator, n: int, d: int) -> Array:
    x = rng.standard_normal((n, d))
    return x / np.sqrt(np.sum(x * x, axis=1, keepdims=True))


INPUTS: dict[str, Callable[[Generator, int, int], Array]] = {
    "gaussian": lambda rng, n, d: rng.standard_normal((n, d)),
    "uniform": lambda rng, n, d: rng.uniform(-1.0, 1.0, (n, d)),
    "sphere": _sphere,
    "rademacher": lambda rng, n, d: rng.choice([-1.0, 1.0], (n, d)),
}
"""x (n, d) by the name of its distribution."""

TEACHERS: dict[str, Callable[[Generator, Array, Array], Array]] = {
    "linear": lambda rng, t, e: t + e,
    "relu": lambda rng, t, e: np.maximum(t, 0.0) + e,
    "constant": lambda rng, t, e: 1.0 + e,
    "sign": lambda rng, t, e: np.where(t + e >= 0.0, 1.0, -1.0),
    "logistic": lambda rng, t, e: np.where(rng.logistic(size=t.shape) <= t + e, 1.0, -1.0),
    "poisson": lambda rng, t, e: rng.poisson(np.exp(np.minimum(t + e, LARGEST_LOG_MEAN))).astype(np.float64),
}
"""y (n,) by the teacher's name, from t = uᵀx (n,) and the noise e (n,)."""


def draw(*, n: int, d: int, inputs: str, teacher: str, noise: float, seed: int) -> tuple[Array, Array]:
    """x (n, d) and y (n,): n independent samples with targets made from uᵀx, u uniform on the unit sphere.

    Args:
        inputs: a name in `INPUTS`.  teacher: a name in `TEACHERS`.
        noise: the standard deviation of e.
    """
    rng = np.random.default_rng(seed)
    u = rng.standard_normal(d)
    u /= math.sqrt(math.fsum(u * u))
    x = INPUTS[inputs](rng, n, d)
    e = noise * rng.standard_normal(n)
    t = np.sum(x * u, axis=1)  # not a BLAS product: the same bits with every number of threads
    return x, TEACHERS[teacher](rng, t, e)
