"""Is a problem one?  Shapes that fit each other, finite numbers, probabilities, a point in its domain.

Arrays of samples are read some rows at a time, so that this takes the memory of one chunk.  Rows and columns
count from 1 in messages and from 0 in paths.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from resnet_cert.numerics.eigenvalues import spectral_norm
from resnet_cert.numerics.enclosure import compared, norm
from resnet_cert.numerics.radius import Array
from resnet_cert.problem.losses import PROBABILITY_TOLERANCE, BuiltinLoss
from resnet_cert.problem.problem import BOUNDARY_WIDTH, CHUNK_BYTES, Fault, GivenFeatures, Rows

if TYPE_CHECKING:
    from resnet_cert.problem.custom_loss import CustomLoss
    from resnet_cert.problem.problem import Problem

PROBABILITY_SUM_TOLERANCE = 1e-9  # decimals do not sum to 1 exactly; expectations are normalised

ONE_CLASS = (
    "the class label 0 {}, as W has one row: one for each class (for two classes and one output there is "
    "bce_with_logits)"
)

Path = tuple[str | int, ...]


def faults(problem: Problem) -> list[Fault]:
    """Everything about shapes and values that makes this no problem."""
    unfit = shape_faults(problem)
    return unfit + value_faults(problem, evaluate=not unfit)


# --- Shapes -----------------------------------------------------------------------------------------------


def input_faults(x: Rows) -> list[Fault]:
    """What is wrong with the shape of x (n, d)."""
    shape = tuple(x.shape)
    if len(shape) != 2:
        hint = f": reshape it to ({shape[0]}, 1)" if len(shape) == 1 else ""
        return [Fault(("data", "x"), f"x: expected the shape (n, d), got {shape}{hint}", "shape")]
    if 0 in shape:
        wanted = f"x: expected at least one row and one column, got the shape {shape}"
        return [Fault(("data", "x"), wanted, "shape")]
    return []


def shape_faults(problem: Problem) -> list[Fault]:
    """The arrays whose shapes do not fit, as (path in the spec, message)."""
    data, point = problem.distribution, problem.point
    x, W = tuple(data.x.shape), tuple(point.W.shape)
    faults = input_faults(data.x)
    n, d1 = x[0] if x else None, x[1] if len(x) == 2 else None
    q = W[0] if len(W) == 2 else None
    faults += _target_shape_faults(problem, n, q)
    d2 = 0
    if data.bypass is not None:
        shape = tuple(data.bypass.shape)
        d2 = shape[1] if len(shape) == 2 else None
        faults += expect(("data", "bypass"), "bypass", shape, (n, d2), "(n, d2)")
    k, unfit = _feature_shape_faults(problem, n)
    faults += unfit
    for name, rows in problem.comparators.items():
        shape = tuple(rows.shape)
        wide = shape[1] if len(shape) == 2 else None
        faults += expect(("data", "compare", name), name, shape, (n, wide), "(n, ·)")
    d = None if d1 is None or d2 is None else d1 + d2
    letters = "(q, d)" if data.bypass is None else "(q, d1 + d2)"
    if q == 1:  # it was given as w
        faults += expect(("point", "w"), "w", W[1:], (d,), letters[4:-1].join(("(", ",)")))
    else:
        faults += expect(("point", "W"), "W", W, (q, d), letters)
    if q == 0:
        faults.append(Fault(("point", "W"), "W: expected at least one row, got q = 0", "shape"))
    faults += expect(("point", "V"), "V", tuple(point.V.shape), (d1, k), "(d, k)")
    if point.c is not None:
        faults += expect(("point", "c"), "c", tuple(point.c.shape), (q,), "(q,)")
    return faults


def _target_shape_faults(problem: Problem, n: int | None, q: int | None) -> list[Fault]:
    data, loss = problem.distribution, problem.loss
    y = tuple(data.y.shape)
    labels = isinstance(loss, BuiltinLoss) and loss.formulas.labels
    weighted = isinstance(loss, BuiltinLoss) and loss.formulas.weighted
    faults: list[Fault] = []
    if len(y) == 1 and (q == 1 or labels):
        faults += expect(("data", "y"), "y", y, (n,), "(n,)")
    elif not (labels and y[1:] == (1,) and y[0] == n):
        several = q == 1 and len(y) == 2 and y[0] == n and y[1] > 1
        hint = ": several outputs take a matrix W in place of w" if several else ""
        letters, wanted = ("(n,)", (n,)) if q == 1 and len(y) != 2 else ("(n, q)", (n, q))
        faults += expect(("data", "y"), "y", y, wanted, letters, hint)
    if q is not None and q > 1 and not isinstance(loss, BuiltinLoss):
        faults.append(Fault(("loss",), f"loss {loss.name}: expected one output, got q = {q}", "unfit-part"))
    if data.omega is not None and not weighted:
        wanted = f"omega: expected none for the loss {loss.name}"
        faults.append(Fault(("data", "omega"), wanted, "unfit-part"))
    elif data.omega is not None:
        omega = tuple(data.omega.shape)
        if not (q == 1 and omega == (n,)):
            faults += expect(("data", "omega"), "omega", omega, (n, q), "(n, q)")
    elif weighted:
        wanted = f"expected weights omega (n, q) for the loss {loss.name}, got none"
        faults.append(Fault(("data",), wanted, "unfit-part"))
    return faults


def _feature_shape_faults(problem: Problem, n: int | None) -> tuple[int | None, list[Fault]]:
    """k, if it is known, and what is wrong with the shapes of the probabilities and of the features."""
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
        faults.append(Fault(("network",), "expected at least one feature, got k = 0", "shape"))
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
    return [Fault(path, f"{name}: expected the shape {sizes}, got {shape}{hint}", "shape")]


# --- Values -----------------------------------------------------------------------------------------------


def value_faults(problem: Problem, *, evaluate: bool) -> list[Fault]:
    """The values that do not fit, as (path in the spec, message); with evaluate, those of a network too."""
    data, point = problem.distribution, problem.point
    faults = not_finite(("data", "x"), chunks_of(data.x))
    if data.bypass is not None:
        faults += not_finite(("data", "bypass"), chunks_of(data.bypass))
    faults += not_finite(("data", "y"), chunks_of(data.y)) or _target_faults(problem)
    if data.omega is not None:
        weights = chunks_of(data.omega)
        faults += entries(
            ("data", "omega"), weights, lambda w: (w >= 0.0) & (w < math.inf), "a finite number ≥ 0", "target"
        )
    if data.probabilities is not None:
        faults += probability_faults(data.probabilities)
    if isinstance(problem.features, GivenFeatures):
        faults += not_finite(("data", "f"), chunks_of(problem.features.f))
    elif evaluate:
        faults += not_finite(("data", "f"), (chunk.f for chunk in problem.chunks()))
    for name, rows in problem.comparators.items():
        faults += not_finite(("data", "compare", name), chunks_of(rows))
    sound: dict[str, Array] = {}
    head = "w" if len(point.W) == 1 else "W"
    given = {head: point.W, "V": point.V} | ({} if point.c is None else {"c": point.c})
    for name, array in given.items():
        rows = array[0] if name == "w" and array.ndim == 2 else array
        found = not_finite(("point", name), chunks_of(rows))
        faults += found
        if not found and array.ndim == 2:
            sound[name] = array
    return [
        *faults,
        *_number_faults(problem),
        *_domain_faults(problem, sound),
        *_objective_faults(problem, sound),
    ]


def not_finite(path: Path, chunks: Iterator[Array]) -> list[Fault]:
    return entries(path, chunks, np.isfinite, "a finite number", "not-finite")


def entries(
    path: Path, chunks: Iterator[Array], accepts: Callable[[Array], npt.NDArray[np.bool_]], what: str, id: str
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
    return [Fault((*path, *first), f"{path[-1]} {where}: expected {what}, got {value!r}{more}", id)]


def _target_faults(problem: Problem) -> list[Fault]:
    """The first target that the loss does not allow: a label, an entry, or the sum of a row."""
    y, loss = problem.distribution.y, problem.loss
    if problem.point.W.ndim != 2:
        return []
    q, path = problem.q, ("data", "y")
    if not isinstance(loss, BuiltinLoss):
        start = 0
        for chunk in chunks_of(y):
            fault = cast("CustomLoss", loss).target_fault(chunk.reshape(len(chunk), -1)[:, 0])
            if fault is not None:
                i, message = fault
                return [Fault((*path, start + i), f"y row {start + i + 1}: {message}", "target")]
            start += len(chunk)
        return []
    wanted = f"for the {loss.called or loss.kind} loss"
    if loss.formulas.labels and (len(y.shape) == 1 or (tuple(y.shape[1:]) == (1,) and q > 1)):
        what = f"a class label 0, ..., {q - 1} {wanted}" if q > 1 else ONE_CLASS.format(wanted)
        return entries(path, chunks_of(y), lambda c: np.isin(c, np.arange(float(q))), what, "target")
    if loss.has_signs(q):
        signs = entries(path, chunks_of(y), lambda c: np.abs(c) == 1.0, f"a label −1 or 1 {wanted}", "target")
        return [fault._replace(message=fault.message + _labels_hint(y)) for fault in signs]
    faults = entries(path, chunks_of(y), loss.formulas.allowed, f"{loss.formulas.wanted} {wanted}", "target")
    return faults or (_sum_faults(chunks_of(y), wanted) if loss.formulas.labels else [])


def _labels_hint(y: Rows) -> str:
    """What to write where two other labels stand in place of −1 and 1."""
    found: set[float] = set()
    for chunk in chunks_of(y):
        found.update(np.unique(chunk)[:3].tolist())
        if len(found) > 2:
            return ""
    if found <= {0.0, 1.0}:
        write = "data.labels: {0: -1, 1: 1}, or loss: bce_with_logits (in Python 2*y - 1)"
        return f"; for labels 0 and 1 write {write}"
    if len(found) < 2 or not all(label.is_integer() for label in found):
        return ""
    low, high = (f"{label:g}" for label in sorted(found))
    python = f"(in Python numpy.where(y == {high}, 1, -1))"
    return f"; for labels {low} and {high} write data.labels: {{{low}: -1, {high}: 1}} {python}"


def _sum_faults(chunks: Iterator[Array], wanted: str) -> list[Fault]:
    """The first row of class probabilities whose sum is not 1."""
    start = 0
    for chunk in chunks:
        sums = chunk.reshape(len(chunk), -1).sum(axis=1)
        wrong = np.flatnonzero(np.abs(sums - 1.0) > PROBABILITY_TOLERANCE)
        if wrong.size:
            i = int(wrong[0])
            message = f"y row {start + i + 1}: expected probabilities of sum 1 {wanted}"
            got = f"{message}, got the sum {float(sums[i])!r}"
            return [Fault(("data", "y", start + i), got, "probability-sum")]
        start += len(chunk)
    return []


def probability_faults(probabilities: Rows) -> list[Fault]:
    path = ("data", "probabilities")
    positive = "a finite number > 0"
    faults = entries(
        path, chunks_of(probabilities), lambda p: (p > 0.0) & (p < math.inf), positive, "probability"
    )
    if faults:
        return faults
    total = math.fsum(float(np.sum(chunk)) for chunk in chunks_of(probabilities))
    if abs(total - 1.0) <= PROBABILITY_SUM_TOLERANCE:
        return []
    wanted = f"probabilities: expected the sum 1 up to {PROBABILITY_SUM_TOLERANCE:g}, got {total!r}"
    hint = "; to divide them by it, write data.normalise: true (in Python pi / pi.sum())"
    return [Fault(path, wanted + hint, "probability-sum")]


def _number_faults(problem: Problem) -> list[Fault]:
    """ε, r, the μ's, l2."""
    faults: list[Fault] = []
    limits: list[tuple[Path, float | None]] = [
        (("epsilon",), problem.epsilon),
        (("domain", "r"), problem.domain.r),
        (("lipschitz", "mu0"), problem.lipschitz.mu0),
        (("lipschitz", "mu1"), problem.lipschitz.mu1),
        (("lipschitz", "mu2"), problem.lipschitz.mu2),
        (("regularizer", "l2"), problem.objective.l2),
    ]
    for path, number in limits:
        if number is not None and not 0.0 <= number < math.inf:
            wanted = f"{path[-1]}: expected a finite number ≥ 0, got {number!r}"
            faults.append(Fault(path, wanted, "domain"))
    return faults


def _domain_faults(problem: Problem, point: dict[str, Array]) -> list[Fault]:
    """Whether the finite arrays of the point lie in the domain, in spectral norm."""
    b = problem.domain.b
    if b is None:
        return []
    if not 0.0 < b < math.inf:
        return [Fault(("domain", "b"), f"b: expected a finite number > 0, got {b!r}", "domain")]
    faults: list[Fault] = []
    for name, array in point.items():
        if name in ("w", "W") and problem.has_bias:
            array = problem.W
        length = norm(array)
        if length.upper >= b and len(array) > 1:  # the Frobenius norm is an upper bound, and cheap
            length = spectral_norm(array)
        if length.upper >= b:
            message = f"{name}: expected ‖{name}‖ < b = {b!r}, got ‖{name}‖ = {length.value!r}"
            faults.append(Fault(("point", name), message, "domain"))
    return faults


def _objective_faults(problem: Problem, point: dict[str, Array]) -> list[Fault]:
    """The constraint, and whether the finite arrays of the point keep to it."""
    limit = problem.objective.norm
    if limit is None:
        return []
    if not 0.0 < limit < math.inf:
        wanted = f"norm: expected a finite number > 0, got {limit!r}"
        return [Fault(("constraint", "norm"), wanted, "domain")]
    if not {"V"} < set(point):
        return []
    z = np.concatenate([(problem.W * problem.decayed).ravel(), point["V"].ravel()])
    if compared(z, Fraction(limit) * Fraction(1.0 + BOUNDARY_WIDTH)) > 0:
        name = "w" if "w" in point else "W"
        message = f"point: expected ‖({name}, V)‖ ≤ norm = {limit!r}, got ‖({name}, V)‖ = {norm(z).value!r}"
        return [Fault(("point",), message, "domain")]
    return []


def chunks_of(rows: Rows) -> Iterator[Array]:
    """The array in float64, some rows at a time."""
    shape = tuple(rows.shape)
    if not shape or 0 in shape:
        return
    size = max(1, CHUNK_BYTES // (8 * math.prod(shape[1:])))
    for start in range(0, shape[0], size):
        yield np.asarray(rows[start : min(start + size, shape[0])], dtype=np.float64)
