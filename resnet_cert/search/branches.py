"""Branch and bound for the critical points with weight decay of `decayed`: three ways to halve.

Where t = ‖b‖² is so small that the sum of `shells` is convex, (s, t) alone are halved, and (w, z) follow;
where it is not, w is (`heads`), and b follows.  With few samples (s, t) are enough for all t, and what
multiplies the samples follows (`representers`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from resnet_cert.numerics.balls import QUIET
from resnet_cert.numerics.krawczyk import Excluded, Zeros, distinct
from resnet_cert.numerics.radius import FLOOR, Array, U
from resnet_cert.search import representers
from resnet_cert.search.boxes import searched
from resnet_cert.search.heads import Heads
from resnet_cert.search.shells import MORE, SQUARES, Shells

SOON = 30_000
"""So many boxes of w are tried first where samples are fewer than unknowns, else as many as of others,"""
MORE_HEADS = 6
"""and so many times as many at last: one takes less time."""
Part = tuple[list[tuple[Array, Array, Array]], tuple[Array, Array]]
"""The zeros that are alone in a box, and the ends of the boxes (w, b) that are left."""


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
    s, t = (float(np.sum(far[part] ** 2)) * MORE + FLOOR for part in (slice(0, shells.d1), slice(d, m)))
    z = np.fmin(s * far[d:] * MORE + FLOOR, shells.reach_v[d:])
    parts: list[Part] = []
    by_shells = d > 1
    few = representers.applies(shells)
    if by_shells and (shells.is_bent or not few):  # where ℓ' is linear few samples need nothing convex
        low = np.concatenate([lower[:d], -z, lower[d:], [0.0, 0.0]])
        high = np.concatenate([upper[:d], z, upper[d:], [s, min(t, shells.edge)]])
        parts.append(searched(shells, low, high, m, excluded, most_boxes // 2, batch))
    least_t = shells.edge if parts else 0.0

    def by_numbers() -> Part | None:
        rest = representers.all_with(shells, least_t, *given, excluded, most_boxes // 2)
        # They are alone in boxes of other unknowns, and so nowhere in one of (w, b) that is known.
        nowhere = np.full((2, m), -1.0)
        return None if rest is None else ([(*zero, nowhere) for zero in rest[0]], rest[1])

    def by_heads(most: int) -> Part:
        low, high = lower.copy(), upper.copy()
        if parts and np.isfinite(z).all():  # s√t = ‖z‖
            size = float((np.sqrt(np.sum(z**2)) + SQUARES) / np.sqrt(least_t)) * MORE
            far = np.sqrt(size) * MORE
            d1 = shells.d1
            low[:d1], high[:d1] = np.maximum(low[:d1], -far), np.minimum(high[:d1], far)
        return searched(Heads(shells, least_t), low, high, shells.k, excluded, most, batch)

    if t > least_t or not parts:
        ways: list[Callable[[], Part | None]] = [lambda: by_heads(MORE_HEADS * most_boxes)]
        if few:  # w is enough as long as l2 is not small, and what that costs is little
            soon = SOON if len(shells.system.y) < m else most_boxes
            ways = [lambda: by_heads(soon), by_numbers, *ways]
        tried: list[Part] = []
        for way in ways:
            if (rest := way()) is not None:
                tried.append(rest)
                if not len(rest[1][0]):
                    break
        parts.append(min(tried, key=lambda part: len(part[1][0])))
    found = [zero for some, _ in parts for zero in some]
    at, radius = distinct([shells.system], found, *given, m)
    left_low, left_high = (np.concatenate([box[i] for _, box in parts]) for i in (0, 1))
    center = 0.5 * left_low + 0.5 * left_high
    reach = np.maximum(left_high - center, center - left_low) * (1.0 + 4.0 * U) + FLOOR
    return Zeros(at, radius, (center, reach))
