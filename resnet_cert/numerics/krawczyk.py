"""All zeros of a system of m equations in m unknowns in a box: interval Newton and branch and bound.

For a box X = c ± ρ, the values f(c), the Jacobian J over X, both enclosed, and any matrix Y (here the inverse
of the centre of J), Krawczyk's operator is

    K(X) = c − Y f(c) + (I − Y J)(X − c).

Every zero in X lies in K(X), so there is none where X ∩ K(X) is empty; where K(X) lies in the interior of X
there is exactly one (Krawczyk 1969; Moore 1977; Neumaier 1990, section 5.1: J encloses all slopes).  A box is
also free of zeros where one equation has no zero over it: by its own enclosure, or by f(c) + J(X − c).

What is neither is halved, the largest boxes first, many at once.  A box is examined a little larger than it
is, so that a zero on the common side of two boxes is inside of both; of such pairs one is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from resnet_cert.numerics.balls import QUIET, Balls, Bools, product
from resnet_cert.numerics.progress import told
from resnet_cert.numerics.radius import FLOOR, Array, U

LARGER = 1.125
"""A box is examined so much larger;"""
SHRUNK = 0.7
"""one that loses less than this share of its volume is halved,"""
RESOLUTION = 2.0**-40
"""until it is so small, relative to the range and to where it lies."""
MOST_BOXES = 200_000
"""Beyond, what is left is not decided."""
REFINEMENTS = 48
"""So often a box with one zero is made smaller at most, as long as it loses this share of a side."""
LOST = 0.01
NEAR, NEARER = 2.0**-12, 8
"""Relative size of the largest box in which a zero near a place is looked for, and how many boxes, each a
quarter of the one before."""


class Enclosed(NamedTuple):
    """f over B boxes: at their centres (B, m), anywhere in them (B, m), its Jacobian in them (B, m, m).

    over may have more columns: equations that follow from f = 0.
    """

    at: Balls
    over: Balls
    jacobian: Balls


class System(Protocol):
    """m equations in m unknowns, over the boxes center ± reach, (B, m) each."""

    def __call__(self, center: Array, reach: Array) -> Enclosed: ...


@dataclass(frozen=True)
class Zeros:
    """What is known of the zeros in a range.

    center, radius: (z, m) each: in each of these boxes lies exactly one, and none elsewhere but in
    undecided: (u, m) centres and reaches of boxes of which nothing is known.
    """

    center: Array
    radius: Array
    undecided: tuple[Array, Array]

    @property
    def complete(self) -> bool:
        return not len(self.undecided[0])


Excluded = Callable[[Array, Array], Bools]
"""center, reach (B, m) ↦ (B,) True where the box need not be searched."""


@QUIET
def zeros(
    systems: Sequence[System],
    lower: Array,
    upper: Array,
    *,
    excluded: Excluded | None = None,
    most_boxes: int = MOST_BOXES,
    batch: int = 4096,
) -> Zeros:
    """All zeros with lower ≤ x ≤ upper, (m,) each.

    Args:
        systems: with the same zeros, wherever they say anything: any of them may decide a box.
        excluded: boxes to leave out.
        batch: boxes that are examined at once.
    """
    m = len(lower)
    span = upper - lower
    center, reach = _covering(lower[None], upper[None])
    found: list[tuple[Array, Array, Array]] = []
    stuck: list[tuple[Array, Array]] = []
    examined = 0
    while len(center):
        if examined + min(len(center), batch) > most_boxes:
            stuck.append((center, reach))
            break
        largest = np.arange(len(center))
        if len(center) > batch:
            largest = np.argpartition(-np.sum(np.log2(reach / span), axis=1), batch)[:batch]
        c, r = center[largest], reach[largest]
        left = np.ones(len(center), dtype=bool)
        left[largest] = False
        following = [(center[left], reach[left])]
        examined += len(c)
        told("boxes at most", examined, most_boxes)
        if excluded is not None:
            kept = ~excluded(c, r)
            c, r = c[kept], r[kept]
        if len(c):
            some = _examined(systems, c, r, span)
            found += some.found
            c, r = some.center, some.reach
            small = (r <= RESOLUTION * (span + np.abs(c))).all(axis=1) & some.split
            stuck.append((c[small], r[small]))
            again, halved = ~some.split & ~small, some.split & ~small
            following.append((c[again], r[again]))
            following += _halves(c[halved], r[halved], some.smear[halved])
        center = np.concatenate([c for c, _ in following])
        reach = np.concatenate([r for _, r in following])
    at, radius = distinct(systems, found, lower, upper, m)
    empty = np.zeros((0, m))
    undecided = [np.concatenate([empty, *parts]) for parts in zip((empty, empty), *stuck, strict=True)]
    return Zeros(at, radius, (undecided[0], undecided[1]))


def zero_near(system: System, at: Array) -> tuple[Array, Array] | None:
    """The one zero in a box around `at` (m,), and its radius (m,); None where no box around it has one."""
    for power in range(NEARER):
        wide = NEAR * 4.0**-power * np.maximum(np.abs(at), 1e-3)
        found = zeros([system], at - wide, at + wide, most_boxes=500)
        if found.complete and len(found.center) == 1:
            return found.center[0], found.radius[0]
    return None


class _Examined(NamedTuple):
    """found: (zero's centre, radius, reach in which it is alone); the boxes left, how their equations depend
    on each unknown, or where that overflows how wide they are, and whether they have to be halved."""

    found: list[tuple[Array, Array, Array]]
    center: Array
    reach: Array
    smear: Array
    split: Bools


def _examined(systems: Sequence[System], c: Array, r: Array, span: Array) -> _Examined:
    open_ = np.ones(len(c), dtype=bool)
    found: list[tuple[Array, Array, Array]] = []
    pad = 2.0 * U * np.abs(c)
    low, high = c - r - pad, c + r + pad
    smear, known = np.zeros_like(r), np.zeros(len(c), dtype=bool)
    larger = r * LARGER + 4.0 * U * np.abs(c)
    for system in systems:
        index = np.flatnonzero(open_)
        if not len(index):
            break
        x, rho = c[index], larger[index]
        f = system(x, rho)
        none = f.over.has_no_zero.any(axis=1)
        none |= (np.abs(f.at.center) > (f.at.radius + _applied(f.jacobian.size, rho)) * (1.0 + 4.0 * U)).any(
            axis=1
        )
        K = krawczyk(f, x, rho)
        apart = np.abs(K.center - x) - K.radius > rho * (1.0 + 4.0 * U) + 4.0 * U * np.abs(x)
        none |= apart.any(axis=1)
        gap = np.abs(K.center - x) + K.radius
        unique = (gap < rho * (1.0 - 8.0 * U)).all(axis=1) & ~none
        for i in np.flatnonzero(unique):
            found.append((K.center[i], K.radius[i], np.stack([x[i], rho[i]])))
        open_[index[none | unique]] = False
        # Both ends are those of the box itself: the larger one has been searched for nothing else.
        low[index] = np.fmax(low[index], K.lower)
        high[index] = np.fmin(high[index], K.upper)
        weight = f.jacobian.size * rho[:, None, :]
        share = weight / np.sum(weight, axis=2, keepdims=True)
        finite = np.isfinite(weight).all(axis=(1, 2))
        smear[index[finite]] = np.fmax(smear[index], np.nansum(share, axis=1))[finite]
        known[index[finite]] = True
    open_ &= ~(low > high).any(axis=1)
    center, reach = _covering(low[open_], high[open_])
    shrunk = np.prod(reach / r[open_], axis=1) < SHRUNK
    smear = np.where(known[:, None], smear, r / span)
    return _Examined(found, center, reach, smear[open_], np.asarray(~shrunk))


def krawczyk(f: Enclosed, center: Array, reach: Array) -> Balls:
    """K(X) for the boxes center ± reach; unknown where the centre of J cannot be inverted."""
    Y_exact = Balls.exact(inverses(f.jacobian.center))
    step = product(Y_exact, f.at[:, :, None])[:, :, 0]
    rest = Balls.exact(np.eye(center.shape[1])) - product(Y_exact, f.jacobian)
    return (Balls.exact(center) - step).widened(_applied(rest.size, reach))


def inverses(J: Array) -> Array:
    """J⁻¹ (B, m, m) to rounding, if J is scaled badly as well; NaN where there is none."""
    usable = np.asarray(np.isfinite(J).all(axis=(1, 2)))
    J = np.where(usable[:, None, None], J, np.eye(J.shape[1]))
    sizes = np.maximum(np.abs(J).max(axis=2, keepdims=True), FLOOR)
    scaled = J / sizes
    columns = np.maximum(np.abs(scaled).max(axis=1, keepdims=True), FLOOR)
    scaled = scaled / columns
    singular = np.asarray(~(np.abs(np.linalg.det(scaled)) > 1e-300))
    scaled[singular] = np.eye(J.shape[1])
    Y = np.linalg.inv(scaled) / np.swapaxes(columns, 1, 2) / np.swapaxes(sizes, 1, 2)
    Y[singular | ~usable] = np.nan
    return Y


def _applied(sizes: Array, reach: Array) -> Array:
    """Σ_j sizes_ij reach_j (B, m), rounded up."""
    return np.einsum("bij,bj->bi", sizes, reach) * (1.0 + 64.0 * U) + FLOOR


def _covering(lower: Array, upper: Array) -> tuple[Array, Array]:
    """Centres and reaches of boxes that hold [lower, upper]."""
    center = 0.5 * lower + 0.5 * upper
    reach = np.maximum(upper - center, center - lower) * (1.0 + 4.0 * U) + FLOOR
    return center, reach


def _halves(center: Array, reach: Array, smear: Array) -> list[tuple[Array, Array]]:
    """Every box in two, across the unknown on which its equations depend most."""
    rows, across = np.arange(len(center)), np.argmax(smear, axis=1)
    low, high = center - reach, center + reach
    middle = center[rows, across]
    left, right = high.copy(), low.copy()
    left[rows, across] = middle
    right[rows, across] = middle
    pad = 2.0 * U * np.abs(center)
    return [_covering(low - pad, left + pad), _covering(right - pad, high + pad)]


def distinct(
    systems: Sequence[System], found: list[tuple[Array, Array, Array]], lower: Array, upper: Array, m: int
) -> tuple[Array, Array]:
    """The zeros once each, as narrow as iterating K makes them, without those outside of the range."""
    kept: list[tuple[Array, Array, Array]] = []
    for at, radius, alone in found:
        at, radius = refined(systems, at, radius)
        if ((at + radius < lower) | (at - radius > upper)).any():
            continue
        if any(_is_same(at, radius, alone, other) for other in kept):
            continue
        kept.append((at, radius, alone))
    if not kept:
        return np.zeros((0, m)), np.zeros((0, m))
    return np.stack([at for at, _, _ in kept]), np.stack([radius for _, radius, _ in kept])


def _is_same(at: Array, radius: Array, alone: Array, other: tuple[Array, Array, Array]) -> bool:
    """Two enclosures that meet hold one zero, if either lies where the other's is alone."""
    there, reach, others = other
    if (np.abs(at - there) > radius + reach).any():
        return False
    return bool(
        (np.abs(at - others[0]) + radius <= others[1]).all()
        or (np.abs(there - alone[0]) + reach <= alone[1]).all()
    )


def refined(systems: Sequence[System], at: Array, radius: Array) -> tuple[Array, Array]:
    """A smaller box with the one zero that center ± radius, (m,) each, is known to hold."""
    for _ in range(REFINEMENTS):
        before = radius
        for system in systems:
            K = krawczyk(system(at[None], radius[None]), at[None], radius[None])
            low = np.fmax(at - radius, K.lower[0])
            high = np.fmin(at + radius, K.upper[0])
            if (low <= high).all():
                center, reach = _covering(low, high)
                if (reach <= radius).all():
                    at, radius = center, reach
        if not (radius < (1.0 - LOST) * before).any():
            break
    return at, radius
