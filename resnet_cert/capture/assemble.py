"""From what was seen in a network to (x, f, W, V, c), and the proof by its own outputs that these are it.

The block must be h = x + V f + b and the network p = W·(pool(h), bypass) + c.  With a constant 1 in f for
the bias b that is the theory's form, and the captured arrays must give the network's own numbers up to the
rounding of its arithmetic: a sum of m terms in arithmetic of unit roundoff u lies within
γ_m = m·u/(1 − m·u) of the exact one, relative to the sum of magnitudes, in whatever order it is taken
(Higham 2002, section 3.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from resnet_cert.capture.affine import AS_IT_IS, POOLS, Affine, Pool, Scaling
from resnet_cert.numerics.radius import Array
from resnet_cert.outcomes import RequestError
from resnet_cert.problem.problem import Problem

STEPS = 8
"""Roundings beside those of the sums: a normalisation, a mean, the addition of x, what is stored."""


@dataclass(frozen=True)
class Batch:
    """What was seen for m samples.

    x: (m, d1, *positions) the input of the block.  f: (m, k, *positions) that of V.  h: (m, d) that of the
    head.  p: (m, q) the network's outputs.  y: the targets.  readouts: (m, ·) arrays to compare, by name.
    """

    x: Array
    f: Array
    h: Array
    p: Array
    y: npt.NDArray[Any]
    readouts: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Captured:
    """A residual block with its head, p = W(x + V f) + c, as float64 arrays.

    x: (n, d1);  f: (n, k), its last column 1 where V has a bias;  W: (q, d1 + d2);  V: (d1, k);  c: (q,) or
    None;  bypass: (n, d2) or None;  y: the targets;  readouts: further inputs to compare with.
    difference: the largest one between W(x + V f) + c and the network's own outputs; tolerance: the bound of
    what rounding may do, there.
    """

    x: Array
    f: Array
    W: Array
    V: Array
    c: Array | None
    bypass: Array | None
    y: Array
    readouts: Mapping[str, Array]
    difference: float
    tolerance: float

    def problem(self, loss: Any, **options: Any) -> Problem:
        """The problem with that loss; options as in `Problem.from_arrays`."""
        point = {"W": self.W, "V": self.V, "c": self.c, "bypass": self.bypass}
        compare = {**self.readouts, **options.pop("compare", {})}
        return Problem.from_arrays(
            x=self.x, f=self.f, y=self.y, loss=loss, compare=compare or None, **point, **options
        )


AFTER = "a block that others follow needs a head of its own: resnet-cert explain deep"


def assembled(
    batches: Iterable[Batch], V: Affine, head: Affine, norm: Scaling | None, roundoff: float, about_x: str
) -> Captured:
    """The arrays of all batches.

    Args:
        V: the last layer of the block;  head: W and c;  norm: between the two, folded into the head.
        roundoff: the unit roundoff u of the network's arithmetic.
        about_x: what x is taken to be, and how another one is named, for messages.

    Raises:
        RequestError: the network's own numbers are not those of p = W(x + V f) + c.
    """
    pool: Pool | None = None
    d1 = len(V.matrix)
    parts: list[Batch] = []
    worst = (0.0, 0.0)
    folded = head.after(norm, d1)
    start = 0
    for batch in batches:
        if pool is None:
            pool = _pool(batch, V, norm, roundoff, about_x)
        x, f = pool(_float64(batch.x)), V.inputs(_float64(batch.f), pool)
        h, error = _block(batch, V, norm, roundoff, pool)
        _require_near(batch.h[:, :d1], h, error, start, "the head reads", "x + V f", f"{about_x}; {AFTER}")
        read = np.concatenate([h, _float64(batch.h[:, d1:])], axis=1)
        bias = 0.0 if head.bias is None else head.bias
        p = read @ head.weight.T + bias
        size = np.abs(read) @ np.abs(head.weight.T) + np.abs(bias)
        error = _gamma(read.shape[1], roundoff) * size + error @ np.abs(head.weight[:, :d1].T)
        _require_near(batch.p, p, error, start, "the network gives", "W h + c")
        difference = np.abs(_float64(batch.p) - p)
        at = np.unravel_index(difference.argmax(), p.shape)
        worst = max(worst, (float(difference[at]), float(error[at])))
        parts.append(Batch(x, f, read[:, d1:], p, batch.y, batch.readouts))
        start += len(x)
    if not parts:
        raise RequestError("expected samples, got an empty loader", id="model")
    f = _joined(part.f for part in parts)
    matrix = V.matrix
    if V.bias is not None:
        f, matrix = np.column_stack([f, np.ones(len(f))]), np.column_stack([matrix, V.bias])
    bypass = _joined(part.h for part in parts)
    return Captured(
        x=_joined(part.x for part in parts),
        f=f,
        W=folded.weight,
        V=matrix,
        c=folded.bias,
        bypass=bypass if bypass.shape[1] else None,
        y=_joined(part.y for part in parts),
        readouts={name: _joined(part.readouts[name] for part in parts) for name in parts[0].readouts},
        difference=worst[0],
        tolerance=worst[1],
    )


def _pool(batch: Batch, V: Affine, norm: Scaling | None, roundoff: float, about_x: str) -> Pool:
    """What the head reads of the positions of the block: the one of `POOLS` that gives its input."""
    d1 = len(V.matrix)
    if batch.x.shape[1] != d1:
        raise RequestError(
            f"expected a block that adds V f to its input x: V gives {d1} numbers, x has "
            f"{batch.x.shape[1]}; {about_x}",
            id="model",
        )
    if batch.h.ndim != 2 or batch.h.shape[1] < d1:
        raise RequestError(
            f"expected a head that reads the {d1} numbers of the block, or more, as one vector a sample, got "
            f"an input of shape {batch.h.shape[1:]}: a network that flattens positions is not of this form",
            id="model",
        )
    if batch.x.ndim == 2:
        return AS_IT_IS["the block's output"]
    for pool in POOLS.values():
        h, error = _block(batch, V, norm, roundoff, pool)
        if (np.abs(_float64(batch.h[:, :d1]) - h) <= error).all():
            return pool
    raise RequestError(
        f"expected a head that reads {' or '.join(POOLS)} of x + V f, and it reads none of them; {about_x}",
        id="model",
    )


def _block(batch: Batch, V: Affine, norm: Scaling | None, roundoff: float, pool: Pool) -> tuple[Array, Array]:
    """pool(x + V f + b), normalised, (m, d1), and a bound of what the network's rounding may do to it."""
    x, f = _float64(batch.x), _float64(batch.f)
    inputs, bias = V.inputs(f, pool), 0.0 if V.bias is None else V.bias
    h = pool(x) + inputs @ V.matrix.T + bias
    size = pool(np.abs(x)) + V.inputs(np.abs(f), pool) @ np.abs(V.matrix.T) + V.bias_size
    if norm is not None:
        h = norm.scale * h + norm.shift
        size = np.abs(norm.scale) * size + norm.size
    terms = V.matrix.shape[1] + int(np.prod(batch.x.shape[2:]))
    return h, _gamma(terms, roundoff) * size


def _gamma(terms: int, roundoff: float) -> float:
    m = (terms + STEPS) * roundoff
    return m / (1.0 - m) if m < 0.5 else float("inf")


def _require_near(
    seen: npt.NDArray[Any], ours: Array, error: Array, start: int, what: str, formula: str, about: str = ""
) -> None:
    """Refuse arrays that do not give the network's own numbers."""
    if seen.shape != ours.shape:
        raise RequestError(
            f"expected {formula} of shape {ours.shape[1:]}, but {what} {seen.shape[1:]}", id="model"
        )
    difference = np.abs(_float64(seen) - ours)
    if (difference <= error).all():
        return
    i, j = np.unravel_index(np.nan_to_num(difference - error, nan=np.inf).argmax(), ours.shape)
    raise RequestError(
        f"the network is not p = W(x + V f) + c: sample {start + i}, component {j}: {what} {seen[i, j]:.9g} "
        f"where {formula} is {ours[i, j]:.9g}; difference {difference[i, j]:.3g}, rounding explains "
        f"{error[i, j]:.3g}" + (f"; {about}" if about else ""),
        id="model",
    )


def _float64(a: npt.ArrayLike) -> Array:
    return np.asarray(a, dtype=np.float64)


def _joined(parts: Iterator[npt.NDArray[Any]] | Iterable[npt.NDArray[Any]]) -> Array:
    return np.concatenate([_float64(part) for part in parts])
