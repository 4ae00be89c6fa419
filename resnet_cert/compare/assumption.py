"""What is left of the comparison where Assumption 1 is not known to hold: what rests on convexity is open.

F_lin at a predictor is an upper bound of its minimum for any loss.  That it is not far above the minimum, the
gap's upper end, its bounds and the theorems rest on ℓ lying above its tangents.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TypeVar

from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.results import (
    Assumption1,
    Comparator,
    Corollary1,
    GapBounds,
    Regularized,
    RegularizedTheorem3,
    Theorem1,
    Theorem2,
    Theorem3,
)

T = TypeVar("T", Theorem1, Theorem2, Theorem3, RegularizedTheorem3)


def open_bounds(bounds: GapBounds) -> GapBounds:
    """No bound of the gap."""
    opened = (
        Enclosure(x.value, -math.inf, math.inf)
        for x in (bounds.linear_functional, bounds.first_order, bounds.local)
    )
    return GapBounds(*opened)


def open_theorem(theorem: T, about: Assumption1) -> T:
    """The theorem without a word on whether it holds."""
    return replace(theorem, holds=None, reason=theorem.reason or why_open(about))


def open_corollary(corollary: Corollary1, about: Assumption1) -> Corollary1:
    """Corollary 1 as one that says nothing of the point, whether or not its hypothesis is met."""
    return corollary if corollary.hypothesis == "not met" else replace(corollary, reason=why_open(about))


def open_regularized(regularized: Regularized, about: Assumption1) -> Regularized:
    """The objective with decay, or on a ball, without a bound of what it is above min G_lin."""
    third = regularized.theorem3
    third = None if third is None else open_theorem(third, about)
    return replace(regularized, proposition_R=None, gap_bound=None, theorem3=third)


def why_open(about: Assumption1) -> str:
    """Why the theorems say nothing."""
    why = "the loss is not known to be convex and smooth"
    return f"{why}: {about.reason}" if about.reason else why


def open_comparator(other: Comparator) -> Comparator:
    """The comparison with the predictor that was found alone."""
    F, gap = other.F_lin_min, other.gap
    return replace(
        other,
        F_lin_min=Enclosure(F.value, -math.inf, F.upper),
        gap=Enclosure(gap.value, gap.lower, math.inf),
        attained=None,
    )
