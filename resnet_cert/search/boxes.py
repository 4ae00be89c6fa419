"""Branch and bound over boxes that an examiner makes smaller."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from resnet_cert.numerics.krawczyk import RESOLUTION, Excluded
from resnet_cert.numerics.progress import told
from resnet_cert.numerics.radius import Array
from resnet_cert.search.shells import MORE, Examined, Ints

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


def searched(
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
