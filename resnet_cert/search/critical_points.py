"""Where the gradient of a function of two numbers vanishes: Newton's method from many starts.

Nothing is proven here; `landscape` proves what each of them is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from resnet_cert.numerics.enclosure import Array
from resnet_cert.search.plane import PlaneObjective

STEPS = 60
POLISH_STEPS = 12
STATIONARY = 1e-10
"""max|∇G| over max|∇²G| and the size of the box, at a point that counts as found."""
DEGENERATE = 1e-6
"""The ratio of the curvatures of a point that is not isolated."""
SAME = 1e-6
"""Distance of two points that are one, in sizes of the box."""
LINK = 0.2
"""Distance of neighbours on a curve of critical points, in sizes of the box."""
FOLLOWED = 0.005
"""Distance of the points on a curve that is followed, in sizes of the box;"""
LONGEST = 5.0
"""how long it may be, and"""
CORRECTIONS = 3
"""the Newton steps back onto it."""
CIRCLE_POINTS = 2048

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Box:
    """s in [s0, s1], t in [t0, t1]."""

    s0: float
    s1: float
    t0: float
    t1: float

    @property
    def size(self) -> float:
        return math.hypot(self.s1 - self.s0, self.t1 - self.t0)

    def at(self, unit: Array) -> Array:
        """Points of the unit square (m, 2) in the box."""
        return np.array([self.s0, self.t0]) + unit * np.array([self.s1 - self.s0, self.t1 - self.t0])

    def holds(self, at: Array) -> Mask:
        """Which of the points (m, 2) lie in the box."""
        s, t = at[:, 0], at[:, 1]
        return (self.s0 <= s) & (s <= self.s1) & (self.t0 <= t) & (t <= self.t1)


def halton(count: int) -> Array:
    """(count, 2) points of the unit square, of low discrepancy (Halton 1960)."""
    points = np.zeros((count, 2))
    for axis, base in enumerate((2, 3)):
        index, weight = np.arange(1, count + 1), 1.0
        while index.any():
            weight /= base
            points[:, axis] += weight * (index % base)
            index //= base
    return points


def critical_points(G: PlaneObjective, box: Box, starts: int) -> tuple[Array, list[Array]]:
    """The critical points in the box: isolated ones (m, 2), and for each curve of them those found on it.

    One half of the runs descends to minima first, the other goes to a critical point of any kind.
    """
    start = box.at(halton(starts))
    at = np.concatenate([_descended(G, start, box), start])
    for _ in range(STEPS):
        at = _newton_step(G, at, reach=0.2 * box.size)
    for _ in range(POLISH_STEPS):
        at = _newton_step(G, at, reach=1e-3 * box.size)
    critical, isolated = _examined(G, at, box)
    curves = [_followed(G, group, box) for group in _linked(at[critical & ~isolated], box)]
    return _merged(at[critical & isolated], SAME * box.size), curves


def _examined(G: PlaneObjective, at: Array, box: Box) -> tuple[Mask, Mask]:
    """Which points (m, 2) are critical, to rounding, and in the box; which of them are isolated."""
    value, gradient, hessian = G.derivatives(at)
    size = np.abs(hessian).max(axis=(1, 2))
    small = np.abs(gradient).max(axis=1) <= STATIONARY * size * box.size
    critical = small & box.holds(at) & np.isfinite(value) & np.isfinite(size) & (size > 0.0)
    curvatures = np.abs(np.linalg.eigvalsh(np.where(critical[:, None, None], hessian, 0.0)))
    return critical, curvatures.min(axis=1) > DEGENERATE * curvatures.max(axis=1)


def _followed(G: PlaneObjective, group: Array, box: Box) -> Array:
    """The curve of critical points through a group of them (m, 2), and what of the group lies off it.

    It goes from the first one in both directions, each step along the flat direction and back onto the curve,
    to the end of the box or around.
    """
    step = FOLLOWED * box.size
    at = np.repeat(group[:1], 2, axis=0)
    flat, _, _ = _flat_and_steep(G, at)
    along, path = flat * np.array([[1.0], [-1.0]]), [group[:1]]
    for _ in range(int(LONGEST / FOLLOWED)):
        moved = at + step * along
        for _ in range(CORRECTIONS):
            _, steep, newton = _flat_and_steep(G, moved)
            moved = moved - newton[:, None] * steep
        critical, isolated = _examined(G, moved, box)
        length = np.linalg.norm(moved - at, axis=1)
        far = np.linalg.norm(moved - group[0], axis=1) > step / 2.0  # or else around a closed curve
        on = critical & ~isolated & far & (length > step / 2.0) & (length < 2.0 * step)
        if not on.any():
            break
        path.append(moved[on])
        flat, _, _ = _flat_and_steep(G, moved[on])
        turned = np.sum(flat * along[on], axis=1, keepdims=True) < 0.0
        at, along = moved[on], np.where(turned, -flat, flat)
    walked = np.concatenate(path)
    gaps = np.linalg.norm(group[:, None] - walked[None], axis=2).min(axis=1)
    return np.concatenate([walked, group[gaps > step]])


def _flat_and_steep(G: PlaneObjective, at: Array) -> tuple[Array, Array, Array]:
    """Unit vectors of least and of largest curvature (m, 2), and Newton's step along the latter (m,)."""
    _, gradient, hessian = G.derivatives(at)
    finite = np.asarray(np.isfinite(hessian).all(axis=(1, 2)) & np.isfinite(gradient).all(axis=1))
    eigenvalues, Q = np.linalg.eigh(np.where(finite[:, None, None], hessian, 0.0))
    steepest = np.abs(eigenvalues).argmax(axis=1)
    rows = np.arange(len(at))
    steep, curvature = Q[rows, :, steepest], eigenvalues[rows, steepest]
    slope = np.where(finite, np.sum(steep * gradient, axis=1), 0.0)
    return (
        Q[rows, :, 1 - steepest],
        steep,
        np.divide(slope, curvature, out=0.0 * slope, where=curvature != 0.0),
    )


def critical_angles(G: PlaneObjective, center: Array, radius: float) -> Array:
    """(m,) angles at which the slope of G along the circle changes its sign, to rounding."""
    if not radius > 0.0:
        return np.zeros(0)

    def slope(angles: Array) -> Array:
        around = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        _, gradient, _ = G.derivatives(center + radius * around)
        return gradient[:, 1] * around[:, 0] - gradient[:, 0] * around[:, 1]

    # No float64 multiple of π/n is critical by symmetry with this offset.
    grid = 2.0 * np.pi * (np.arange(CIRCLE_POINTS + 1) + 0.3183) / CIRCLE_POINTS
    there = slope(grid)
    [changes] = np.nonzero(there[:-1] * there[1:] < 0.0)
    low, high, below = grid[changes], grid[changes + 1], there[changes]
    if not len(low):
        return low
    for _ in range(60):
        middle = (low + high) / 2.0
        at_middle = slope(middle)
        left = at_middle * below > 0.0
        low, high = np.where(left, middle, low), np.where(left, high, middle)
    return (low + high) / 2.0


def _descended(G: PlaneObjective, at: Array, box: Box) -> Array:
    """Newton steps on |∇²G|, halved until G falls."""
    value, gradient, hessian = G.derivatives(at)
    for _ in range(STEPS):
        step = _limited(-_solved(hessian, gradient, absolute=True), 0.2 * box.size)
        size, open_ = np.ones(len(at)), np.ones(len(at), dtype=bool)
        for _ in range(12):
            lower = G.values(at + size[:, None] * step) < value
            open_ &= ~lower
            if not open_.any():
                break
            size = np.where(open_, size / 4.0, size)
        at = np.where(open_[:, None], at, at + size[:, None] * step)
        if open_.all():
            break
        value, gradient, hessian = G.derivatives(at)
    return at


def _newton_step(G: PlaneObjective, at: Array, reach: float) -> Array:
    _, gradient, hessian = G.derivatives(at)
    return at - _limited(_solved(hessian, gradient, absolute=False), reach)


def _solved(hessian: Array, gradient: Array, *, absolute: bool) -> Array:
    """H⁺g for every point, |H|⁺g if absolute; 0 where a number is not finite."""
    numbers = np.concatenate([hessian.reshape(-1, 4), gradient], axis=1)
    finite = np.asarray(np.isfinite(numbers).all(axis=1))
    hessian = np.where(finite[:, None, None], hessian, 0.0)
    gradient = np.where(finite[:, None], gradient, 0.0)
    eigenvalues, Q = np.linalg.eigh(hessian)
    largest = np.abs(eigenvalues).max(axis=1, keepdims=True)
    kept = np.abs(eigenvalues) > 1e-10 * largest
    divisor = np.abs(eigenvalues) if absolute else eigenvalues
    along = np.einsum("mij,mi->mj", Q, gradient)
    along = np.divide(along, divisor, out=np.zeros_like(along), where=kept)
    return np.einsum("mij,mj->mi", Q, along)


def _limited(step: Array, reach: float) -> Array:
    length = np.linalg.norm(step, axis=1, keepdims=True)
    return step * np.minimum(1.0, reach / np.maximum(length, reach))


def _merged(at: Array, distance: float) -> Array:
    """The points without those within a distance of an earlier one."""
    kept: list[Array] = []
    while len(at):
        kept.append(at[0])
        at = at[np.linalg.norm(at - at[0], axis=1) > distance]
    return np.array(kept).reshape(-1, 2)


def _linked(at: Array, box: Box) -> list[Array]:
    """The points in groups whose neighbours are at most LINK apart."""
    groups: list[Array] = []
    left = _merged(at, 1e-3 * box.size)
    while len(left):
        group, left = left[:1], left[1:]
        while len(left):
            gaps = np.linalg.norm(left[:, None] - group[None], axis=2).min(axis=1)
            near = np.asarray(gaps <= LINK * box.size)
            if not near.any():
                break
            group, left = np.concatenate([group, left[near]]), left[~near]
        groups.append(group)
    return groups
