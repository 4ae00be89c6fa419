"""Features from another device: f is data, so it may come from anywhere, once.

Sums that are enclosed stay on the processor: their bounds are about IEEE 754 in round to nearest, and what a
device's matrix units do (reduced precision, other orders, flushed subnormals) is not known well enough to be
bounded.  A device may also compute f differently a second time: so it is asked once, and its answer kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from resnet_cert.numerics.jax64 import float64_scope, jax
from resnet_cert.outcomes import RequestError
from resnet_cert.problem.problem import GivenFeatures, MappedRows, Problem


@contextmanager
def device(kind: str) -> Iterator[None]:
    """Inside, JAX computes on the first device of a kind: "cpu" or "gpu".

    Raises:
        RequestError: there is none.
    """
    with float64_scope():
        try:
            found = jax.devices(kind)[0]
        except RuntimeError:
            there = ", ".join(sorted({d.platform for d in jax.devices()}))
            wanted = f"expected a device of the kind {kind}, JAX has {there} here: leave the device out"
            raise RequestError(wanted, "environment") from None
    with float64_scope(found):
        yield


def with_features_on(problem: Problem, kind: str, folder: Path) -> Problem:
    """The same problem with a network's features computed on a device and kept in a file of the folder."""
    with device(kind):
        pass  # it is there
    features = problem.features
    if isinstance(features, GivenFeatures):
        if features.network is None:  # they came with the data
            return problem
        problem = replace(problem, features=features.network)
    if kind == "cpu":
        return problem.with_features_held()
    path = folder / "features.npy"
    f = open_memmap(path, mode="w+", dtype=np.float64, shape=(problem.n, problem.k))
    with device(kind):
        for start in range(0, problem.n, problem.chunk_rows):
            rows = slice(start, min(start + problem.chunk_rows, problem.n))
            f[rows] = problem.chunk(rows).f
    f.flush()
    kept = MappedRows(path, f.dtype, f.shape, f.offset)
    return replace(problem, features=GivenFeatures(kept, problem.features))
