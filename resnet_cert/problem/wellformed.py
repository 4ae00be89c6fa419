"""Is a problem one?  Shapes that fit each other, finite numbers, probabilities, a point in its domain.

Arrays of samples are read some rows at a time, so that this takes the memory of one chunk.  Rows and columns
count from 1 in messages and from 0 in paths.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from resnet_cert.numerics.eigenvalues import spectral_norm
from resnet_cert.numerics.enclosure import Array, norm
from resnet_cert.problem.problem import BOUNDARY_WIDTH, CHUNK_BYTES, Fault, GivenFeatures, Rows

if TYPE_CHECKING:
    from resnet_cert.problem.problem import AnyProblem, Problem

PROBABILITY_SUM_TOLERANCE = 1e-9  # decimals do not sum to 1 exactly; expectations are normalised

Path = tuple[str | int, ...]


def input_faults(x: Rows) -> list[Fault]:
    """What is wrong with the shape of x (n, d)."""
    shape = tuple(x.shape)
    if len(shape) != 2:
        hint = f": reshape it to ({shape[0]}, 1)" if len(shape) == 1 else ""
        return [(("data", "x"), f"x: expected the shape (n, d), got {shape}{hint}")]
    if 0 in shape:
        return [(("data", "x"), f"x: expected at least one row and one column, got the shape {shape}")]
    return []


def shape_faults(problem: Problem) -> list[Fault]:
    """The arrays whose shapes do not fit, as (path in the spec, message)."""
    data, point = problem.distribution, problem.point
    x, y = tuple(data.x.shape), tuple(data.y.shape)
    faults = input_faults(data.x)
    n, d = x[0] if x else None, x[1] if len(x) == 2 else None
    several = len(y) == 2 and y[0] == n and y[1] > 1
    hint = ": several outputs take a matrix W in place of w" if several else ""
    faults += expect(("data", "y"), "y", y, (n,), "(n,)", hint)
    k, unfit = features_and_probabilities(problem, n)
    faults += unfit
    faults += expect(("point", "w"), "w", point.w.shape, (d,), "(d,)")
    faults += expect(("point", "V"), "V", point.V.shape, (d, k), "(d, k)")
    return faults


def features_and_probabilities(problem: AnyProblem, n: int | None) -> tuple[int | None, list[Fault]]:
    """k, if it is known, and what is wrong with the shapes of the two."""
    faults: list[Fault] = []
    probabilities, features = problem.distribution.probabilities, problem.features
    if probabilities is not None:
        faults += expect(("data", "probabilities"), "probabilities", probabilities.shape, (n,), "(n,)")
    if isinstance(features, GivenFeatures):
        f = tuple(features.f.shape)
        k = f[1] if len(f) == 2 else None
        faults += expect(("data", "f"), "f", f, (n, k), "(n, k)")
    else:
        k = features.k
    if k == 0:
        faults.append((("network",), "expected at least one feature, got k = 0"))
    return k, faults


def expect(
    path: Path,
    name: str,
    shape: tuple[int, ...],
    wanted: tuple[int | None, ...],
    letters: str,
    hint: str = "",
) -> list[Fault]:
    """A fault unless the shape is as wanted; None stands for a size that is not known."""
    shape = tuple(shape)
    if len(shape) == len(wanted) and all(w in (None, s) for s, w in zip(shape, wanted, strict=True)):
        return []
    sizes = letters if None in wanted else f"{letters} = {wanted}"
    if shape == (*wanted, 1):
        hint = ": drop its last axis"
    elif len(shape) == 2 and shape[::-1] == wanted:
        hint = ": transpose it"
    return [(path, f"{name}: expected the shape {sizes}, got {shape}{hint}")]


def value_faults(problem: Problem, *, evaluate: bool) -> list[Fault]:
    """The values that do not fit, as (path in the spec, message); with evaluate, those of a network too."""
    data, point = problem.distribution, problem.point
    faults = not_finite(("data", "x"), chunks_of(data.x))
    faults += not_finite(("data", "y"), chunks_of(data.y)) or _target_faults(problem)
    faults += sample_faults(problem, evaluate=evaluate)
    sound, unsound = finite_arrays(w=(point.w, 1), V=(point.V, 2))
    return [*faults, *unsound, *number_faults(problem, sound), *_objective_faults(problem, sound)]


def sample_faults(problem: AnyProblem, *, evaluate: bool) -> list[Fault]:
    """Those of the probabilities and of the features."""
    faults: list[Fault] = []
    if problem.distribution.probabilities is not None:
        faults += probability_faults(problem.distribution.probabilities)
    if isinstance(problem.features, GivenFeatures):
        faults += not_finite(("data", "f"), chunks_of(problem.features.f))
    elif evaluate:
        faults += not_finite(("data", "f"), (chunk.f for chunk in problem.chunks()))
    return faults


def finite_arrays(**point: tuple[Array, int]) -> tuple[dict[str, Array], list[Fault]]:
    """Those arrays of a point that are finite and have so many axes, and what is wrong with their values."""
    sound: dict[str, Array] = {}
    faults: list[Fault] = []
    for name, (array, axes) in point.items():
        found = not_finite(("point", name), chunks_of(array))
        faults += found
        if not found and array.ndim == axes:
            sound[name] = array
    return sound, faults


def not_finite(path: Path, chunks: Iterator[Array]) -> list[Fault]:
    return entries(path, chunks, np.isfinite, "a finite number")


def entries(
    path: Path, chunks: Iterator[Array], accepts: Callable[[Array], npt.NDArray[np.bool_]], what: str
) -> list[Fault]:
    """One fault for the entries that are not accepted: the first of them and how many there are."""
    first, value, count, start = None, math.nan, 0, 0
    for chunk in chunks:
        refused = ~accepts(chunk)
        if first is None and refused.any():
            i, *others = (int(index) for index in np.argwhere(refused)[0])
            first, value = (start + i, *others), float(chunk[i, *others])
        count += int(np.count_nonzero(refused))
        start += len(chunk)
    if first is None:
        return []
    where = f"row {first[0] + 1}" + (f", column {first[1] + 1}" if len(first) == 2 else "")
    more = f" (the first of {count})" if count > 1 else ""
    return [((*path, *first), f"{path[-1]} {where}: expected {what}, got {value!r}{more}")]


def _target_faults(problem: Problem) -> list[Fault]:
    start = 0
    for chunk in chunks_of(problem.distribution.y):
        fault = problem.loss.target_fault(chunk) if chunk.ndim == 1 else None
        if fault is not None:
            i, message = fault
            return [(("data", "y", start + i), f"y row {start + i + 1}: {message}")]
        start += len(chunk)
    return []


def probability_faults(probabilities: Rows) -> list[Fault]:
    path = ("data", "probabilities")
    positive = "a finite number > 0"
    faults = entries(path, chunks_of(probabilities), lambda p: (p > 0.0) & (p < math.inf), positive)
    if faults:
        return faults
    total = math.fsum(float(np.sum(chunk)) for chunk in chunks_of(probabilities))
    if abs(total - 1.0) <= PROBABILITY_SUM_TOLERANCE:
        return []
    return [(path, f"probabilities: expected the sum 1 up to {PROBABILITY_SUM_TOLERANCE:g}, got {total!r}")]


def number_faults(problem: AnyProblem, point: dict[str, Array]) -> list[Fault]:
    """ε, b, r, the μ's, and whether the finite arrays of the point lie in the domain: those of a vector in
    Euclidean norm, those of a matrix in spectral norm."""
    faults: list[Fault] = []
    limits: list[tuple[Path, float | None]] = [
        (("epsilon",), problem.epsilon),
        (("domain", "r"), problem.domain.r),
        (("lipschitz", "mu0"), problem.lipschitz.mu0),
        (("lipschitz", "mu1"), problem.lipschitz.mu1),
        (("lipschitz", "mu2"), problem.lipschitz.mu2),
    ]
    for path, number in limits:
        if number is not None and not 0.0 <= number < math.inf:
            faults.append((path, f"{path[-1]}: expected a finite number ≥ 0, got {number!r}"))
    b = problem.domain.b
    if b is None:
        return faults
    if not 0.0 < b < math.inf:
        return [*faults, (("domain", "b"), f"b: expected a finite number > 0, got {b!r}")]
    for name, array in point.items():
        length = norm(array)
        if length.upper >= b and array.ndim == 2:  # the Frobenius norm is an upper bound, and cheap
            length = spectral_norm(array)
        if length.upper >= b:
            message = f"{name}: expected ‖{name}‖ < b = {b!r}, got ‖{name}‖ = {length.value!r}"
            faults.append((("point", name), message))
    return faults


def _objective_faults(problem: Problem, point: dict[str, Array]) -> list[Fault]:
    """The regulariser and the constraint, and whether the finite arrays of the point keep to it."""
    faults: list[Fault] = []
    if not 0.0 <= problem.l2 < math.inf:
        faults.append((("regularizer", "l2"), f"l2: expected a finite number ≥ 0, got {problem.l2!r}"))
    if problem.constraint is None:
        return faults
    limit = problem.constraint.norm
    if not 0.0 < limit < math.inf:
        return [*faults, (("constraint", "norm"), f"norm: expected a finite number > 0, got {limit!r}")]
    if {"w", "V"} <= set(point):
        length = (norm(point["w"]).square() + norm(point["V"]).square()).sqrt()
        if length.lower > limit * (1.0 + BOUNDARY_WIDTH):
            message = f"point: expected ‖(w, V)‖ ≤ norm = {limit!r}, got ‖(w, V)‖ = {length.value!r}"
            faults.append((("point",), message))
    return faults


def chunks_of(rows: Rows) -> Iterator[Array]:
    """The array in float64, some rows at a time."""
    shape = tuple(rows.shape)
    if not shape or 0 in shape:
        return
    size = max(1, CHUNK_BYTES // (8 * math.prod(shape[1:])))
    for start in range(0, shape[0], size):
        yield np.asarray(rows[start : min(start + size, shape[0])], dtype=np.float64)
