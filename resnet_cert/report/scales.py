"""The two pictures of a report, as places on a line from 0 to 100: the gap with its bounds, the conditions of
Definition 1 with their thresholds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.outcomes import Verdict
from resnet_cert.report.numbers import at_least, at_most, enclosed, plain
from resnet_cert.results import Report

FARTHEST = 20.0
"""A bound so many times the gap lies off the scale: with it, the gap would be a dot at zero."""
MARGIN = 1.1
DECADES = 6
"""Of value ÷ threshold on either side of 1."""


@dataclass(frozen=True)
class Bar:
    """A quantity from `left` to `right`.  kind: good, bad or open; of an upper bound `upto`, of one beyond
    the end `upto off`."""

    name: str
    value: str
    left: float
    right: float
    kind: str


@dataclass(frozen=True)
class Scale:
    """Bars above an axis with its two ends, and a mark that divides it."""

    caption: str
    bars: tuple[Bar, ...]
    mark: float
    ends: tuple[str, ...]


def gap_scale(report: Report) -> Scale | None:
    """F − min F_lin and every proven upper bound of it; the mark is 0, the best linear predictor."""
    gap, measured, third = report.objective.gap, report.gap_bounds, report.theorem3
    if not (math.isfinite(gap.lower) and math.isfinite(gap.upper)):
        return None
    bounds = [
        ("≤ linear functional", measured.linear_functional),
        ("≤ first-order bound", measured.first_order),
        ("≤ local second-order bound", measured.local),
    ]
    if third.applies and third.bound is not None:
        bounds += [("≤ Theorem 3", third.bound)]
    size = max(abs(gap.lower), abs(gap.upper)) or 1.0
    near = [bound.upper for _, bound in bounds if bound.upper <= FARTHEST * size]
    low, high = MARGIN * min(gap.lower, 0.0, *near), MARGIN * max(gap.upper, 0.0, *near)
    if not low:
        low = -0.05 * high
    if not high:
        high = -0.05 * low or 1.0

    def place(value: float) -> float:
        return 100.0 * min(max((value - low) / (high - low), 0.0), 1.0)

    kind = "good" if gap.upper <= 0.0 else "bad" if gap.lower > 0.0 else "open"
    bars = [Bar("gap F − min F_lin", enclosed(gap), place(gap.lower), place(gap.upper), kind)]
    for name, bound in bounds:
        off = bound.upper > high
        bars += [
            Bar(name, f"≤ {at_most(bound.upper)}", 0.0, place(bound.upper), "upto off" if off else "upto")
        ]
    caption = "The upright line is the best linear predictor; left of it the network does better."
    return Scale(caption, tuple(bars), place(0.0), (plain(low, 2), plain(high, 2)))


def threshold_scale(report: Report) -> Scale | None:
    """‖∇F‖ ÷ ε and −λ_min ÷ √(μ2 ε) by powers of ten; the mark is 1, beyond which a condition fails."""
    gradient, hessian = report.gradient, report.hessian
    descent = (-hessian.lambda_min).positive_part()
    bars = []
    if report.epsilon > 0.0:
        ratio = gradient.norm / report.epsilon
        bars += [_ratio_bar("length of the gradient ÷ ε", ratio, gradient.verdict)]
    if hessian.threshold is not None and hessian.threshold.lower > 0.0:
        bars += [_ratio_bar("negative curvature ÷ √(μ2 ε)", descent / hessian.threshold, hessian.verdict)]
    if not bars:
        return None
    caption = "Left of the upright line a condition holds, right of it it fails; the scale is logarithmic."
    return Scale(caption, tuple(bars), 50.0, (f"1e-{DECADES}", "1", f"1e{DECADES}"))


def _ratio_bar(name: str, ratio: Enclosure, verdict: Verdict) -> Bar:
    kind = {Verdict.CERTIFIED: "good", Verdict.REFUTED: "bad", Verdict.UNDECIDED: "open"}[verdict]
    value = f"≤ {at_most(ratio.upper)}" if verdict is not Verdict.REFUTED else f"≥ {at_least(ratio.lower)}"
    return Bar(name, value, _power(ratio.lower), _power(ratio.upper), kind)


def _power(ratio: float) -> float:
    power = math.log10(ratio) if ratio > 0.0 else -math.inf
    return 50.0 + 50.0 * min(max(power / DECADES, -1.0), 1.0)
