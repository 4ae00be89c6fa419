"""What is left of the comparison where Assumption 1 is not known to hold: what rests on convexity is open.

F_lin at a predictor is an upper bound of its minimum for any loss.  That it is not far above the minimum, the
gap's upper end, its bounds and the theorems rest on ℓ lying above its tangents.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TypeVar

from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.results import Assumption1, Comparator, GapBounds, Theorem1, Theorem2, Theorem3

T = TypeVar("T", Theorem1, Theorem2, Theorem3)


def open_bounds(bounds: GapBounds) -> GapBounds:
    """No bound of the gap."""
    opened = (
        Enclosure(x.value, -math.inf, math.inf)
        for x in (bounds.linear_functional, bounds.first_order, bounds.local)
    )
    return GapBounds(*opened)


def open_theorem(theorem: T, about: Assumption1) -> T:
    """The theorem without a word on whether it holds."""
    why = "the loss is not known to be convex and smooth"
    why = f"{why}: {about.reason}" if about.reason else why
    return replace(theorem, holds=None, reason=theorem.reason or why)


def open_comparator(other: Comparator) -> Comparator:
    """The comparison with the predictor that was found alone."""
    F, gap = other.F_lin_min, other.gap
    return replace(
        other,
        F_lin_min=Enclosure(F.value, -math.inf, F.upper),
        gap=Enclosure(gap.value, gap.lower, math.inf),
        attained=None,
    )
