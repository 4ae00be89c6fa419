"""Is a problem with several outputs one?  Shapes that fit each other, and values that are allowed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from resnet_cert.numerics.enclosure import Array
from resnet_cert.problem.problem import Fault
from resnet_cert.problem.wellformed import (
    chunks_of,
    entries,
    expect,
    features_and_probabilities,
    finite_arrays,
    input_faults,
    not_finite,
    number_faults,
    sample_faults,
)
from resnet_cert.vector.losses import PROBABILITY_TOLERANCE

if TYPE_CHECKING:
    from resnet_cert.vector.problem import VectorProblem

LARGEST_MOMENT = 2**13
"""Rows of the moment Q, which is held as a matrix, and factorised in cubic time."""


def shape_faults(problem: VectorProblem) -> list[Fault]:
    """The arrays whose shapes do not fit, as (path in the spec, message)."""
    data, point, loss = problem.distribution, problem.point, problem.loss.formulas
    x, y, W = tuple(data.x.shape), tuple(data.y.shape), tuple(point.W.shape)
    faults = input_faults(data.x)
    n, d = x[0] if x else None, x[1] if len(x) == 2 else None
    q = W[0] if len(W) == 2 else None
    if loss.labels and (len(y) == 1 or (y[1:] == (1,) and q != 1)):
        faults += expect(("data", "y"), "y", y, (n,), "(n,)")
    else:
        faults += expect(("data", "y"), "y", y, (n, q), "(n, q)")
    if problem.omega is not None and not loss.weighted:
        faults.append((("data", "omega"), f"omega: expected none for the loss {problem.loss.kind}"))
    elif problem.omega is not None:
        faults += expect(("data", "omega"), "omega", tuple(problem.omega.shape), (n, q), "(n, q)")
    elif loss.weighted:
        faults.append(
            (("data",), f"expected weights omega (n, q) for the loss {problem.loss.kind}, got none")
        )
    k, unfit = features_and_probabilities(problem, n)
    faults += unfit
    faults += expect(("point", "W"), "W", W, (q, d), "(q, d)")
    if q == 0:
        faults.append((("point", "W"), "W: expected at least one row, got q = 0"))
    faults += expect(("point", "V"), "V", tuple(point.V.shape), (d, k), "(d, k)")
    if not faults and problem.q * (problem.d + problem.k) > LARGEST_MOMENT:
        size = f"q(d + k) ≤ {LARGEST_MOMENT} for several outputs"
        faults.append((("point", "W"), f"W: expected {size}, got {problem.q * (problem.d + problem.k)}"))
    return faults


def value_faults(problem: VectorProblem, *, evaluate: bool) -> list[Fault]:
    """The values that do not fit, as (path in the spec, message); with evaluate, those of a network too."""
    data, point = problem.distribution, problem.point
    faults = not_finite(("data", "x"), chunks_of(data.x))
    faults += not_finite(("data", "y"), chunks_of(data.y)) or _target_faults(problem)
    if problem.omega is not None:
        weights = chunks_of(problem.omega)
        faults += entries(
            ("data", "omega"), weights, lambda w: (w >= 0.0) & (w < math.inf), "a finite number ≥ 0"
        )
    faults += sample_faults(problem, evaluate=evaluate)
    sound, unsound = finite_arrays(W=(point.W, 2), V=(point.V, 2))
    return [*faults, *unsound, *number_faults(problem, sound)]


def _target_faults(problem: VectorProblem) -> list[Fault]:
    """The first target that the loss does not allow: a label, an entry, or the sum of a row."""
    y, loss = problem.distribution.y, problem.loss
    wanted = f"for the {loss.kind} loss"
    if len(y.shape) == 1:
        if not loss.formulas.labels or problem.point.W.ndim != 2:
            return []
        q = problem.q
        what = f"a class label 0, ..., {q - 1} {wanted}" if q > 1 else f"the class label 0 {wanted}"
        return entries(("data", "y"), chunks_of(y), lambda c: np.isin(c, np.arange(float(q))), what)
    if len(y.shape) != 2 or y.shape[1:] != problem.point.W.shape[:1]:
        return []
    faults = entries(("data", "y"), chunks_of(y), loss.formulas.allowed, f"{loss.formulas.targets} {wanted}")
    return faults or (_sum_faults(chunks_of(y), wanted) if loss.formulas.labels else [])


def _sum_faults(chunks: Iterator[Array], wanted: str) -> list[Fault]:
    """The first row of class probabilities whose sum is not 1."""
    start = 0
    for chunk in chunks:
        sums = chunk.sum(axis=1)
        wrong = np.flatnonzero(np.abs(sums - 1.0) > PROBABILITY_TOLERANCE)
        if wrong.size:
            i = int(wrong[0])
            message = f"y row {start + i + 1}: expected probabilities of sum 1 {wanted}"
            return [(("data", "y", start + i), f"{message}, got the sum {float(sums[i])!r}")]
        start += len(chunk)
    return []
