"""Branch and bound for the critical points with weight decay of `decayed`: two ways to halve.

Where t = ‖b‖² is so small that the sum of `shells` is convex, (s, t) alone are halved, and (w, z) follow;
where it is not, w is (`heads`), and b follows.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from resnet_cert.numerics.balls import QUIET
from resnet_cert.numerics.krawczyk import RESOLUTION, Excluded, Zeros, distinct
from resnet_cert.numerics.progress import told
from resnet_cert.numerics.radius import FLOOR, Array, U
from resnet_cert.search.heads import Heads
from resnet_cert.search.shells import MORE, Examined, Ints, Shells

SHRUNK = 0.7
"""A box of which less than this share of one side is left is made smaller again before it is halved,"""
LITTLE = 1e-3
"""if that is at least this share of the longest one."""


class Examiner(Protocol):
    """Makes boxes smaller.  of: where (w, b) is in them;  widths, middle: across which unknown they are
    halved, and where."""

    of: Ints

    def __call__(self, low: Array, high: Array, start: Array) -> Examined: ...
    def widths(self, low: Array, high: Array) -> Array: ...
    def middle(self, low: Array, high: Array, across: Ints) -> Array: ...


@QUIET
def all_zeros(
    shells: Shells, lower: Array, upper: Array, excluded: Excluded, most_boxes: int, batch: int
) -> Zeros:
    """All zeros (w, b) with lower ≤ (w, b) ≤ upper, (m,) each.

    Args:
        excluded: center, reach (B, m) ↦ True where a box (w, b) need not be searched.
    """
    m, d = shells.m, shells.d
    given = lower, upper
    lower, upper = lower.copy(), upper.copy()
    lower[:d], upper[:d] = (
        np.maximum(lower[:d], -shells.reach_v[:d]),
        np.minimum(upper[:d], shells.reach_v[:d]),
    )
    far = np.maximum(np.abs(lower), np.abs(upper))
    s, t = (float(np.sum(far[part] ** 2)) * MORE for part in (slice(0, shells.d1), slice(d, m)))
    z = np.fmin(s * far[d:] * MORE, shells.reach_v[d:])
    parts = []
    by_shells = d > 1
    if by_shells:
        low = np.concatenate([lower[:d], -z, lower[d:], [0.0, 0.0]])
        high = np.concatenate([upper[:d], z, upper[d:], [s, min(t, shells.edge)]])
        parts.append(_search(shells, low, high, m, excluded, most_boxes // 2, batch))
    if t > shells.edge or not by_shells:
        heads = Heads(shells, shells.edge if by_shells else 0.0)
        if by_shells and np.isfinite(z).all():  # s√t = ‖z‖
            size = float(np.sqrt(np.sum(z**2)) / np.sqrt(shells.edge)) * MORE
            far = np.sqrt(size) * MORE
            d1 = shells.d1
            lower[:d1], upper[:d1] = np.maximum(lower[:d1], -far), np.minimum(upper[:d1], far)
        parts.append(_search(heads, lower, upper, shells.k, excluded, most_boxes, batch))
    found = [zero for some, _ in parts for zero in some]
    at, radius = distinct([shells.system], found, *given, m)
    left_low, left_high = (np.concatenate([box[i] for _, box in parts]) for i in (0, 1))
    center = 0.5 * left_low + 0.5 * left_high
    reach = np.maximum(left_high - center, center - left_low) * (1.0 + 4.0 * U) + FLOOR
    return Zeros(at, radius, (center, reach))


def _search(
    examine: Examiner, lower: Array, upper: Array, starts: int, excluded: Excluded, most: int, batch: int
) -> tuple[list[tuple[Array, Array, Array]], tuple[Array, Array]]:
    """The zeros that are alone in a box, and the boxes (w, b) that are left."""
    of = examine.of
    low, high, start = lower[None], upper[None], np.zeros((1, starts))
    span = upper - lower
    found: list[tuple[Array, Array, Array]] = []
    stuck: list[tuple[Array, Array]] = []
    examined = 0
    while len(low):
        if examined + min(len(low), batch) > most:
            stuck.append((low, high))
            break
        order = np.arange(len(low))
        if len(low) > batch:
            order = np.argpartition(-np.sum(np.log2((high - low) / span + 1e-300), axis=1), batch)
        now, later = order[:batch], order[batch:]
        examined += len(now)
        told("boxes at most", examined, most)
        seen = examine(low[now], high[now], start[now])
        found += seen.found
        middle, reach = 0.5 * (seen.low + seen.high)[:, of], 0.5 * (seen.high - seen.low)[:, of] * MORE
        alive = seen.alive & ~excluded(middle, reach)
        a, z, at, score = seen.low[alive], seen.high[alive], seen.at[alive], seen.score[alive]
        small = (z - a <= RESOLUTION * (span + np.abs(a))).all(axis=1)
        stuck.append((a[small], z[small]))
        before, after = (examine.widths(*ends) for ends in ((low[now][alive], high[now][alive]), (a, z)))
        matters = before > LITTLE * before.max(axis=1, keepdims=True, initial=0.0)
        again = ((after < SHRUNK * before) & matters).any(axis=1) & ~small
        halved = ~again & ~small
        following = [
            (low[later], high[later], start[later]),
            (a[again], z[again], at[again]),
            *_halves(examine, a[halved], z[halved], at[halved], score[halved]),
        ]
        low, high, start = (np.concatenate(parts) for parts in zip(*following, strict=True))
    empty = np.zeros((0, len(of)))
    left = [np.concatenate([empty, *[part[i][:, of] for part in stuck]]) for i in (0, 1)]
    return found, (left[0], left[1])


def _halves(
    examine: Examiner, low: Array, high: Array, at: Array, score: Array
) -> list[tuple[Array, Array, Array]]:
    """Every box in two, across the largest score."""
    if not len(low):
        return []
    rows, across = np.arange(len(low)), np.argmax(score, axis=1)
    middle = examine.middle(low[rows, across], high[rows, across], across)
    middle = np.clip(middle, low[rows, across], high[rows, across])
    left, right = high.copy(), low.copy()
    left[rows, across] = middle
    right[rows, across] = middle
    return [(low, left, at), (right, high, at)]
