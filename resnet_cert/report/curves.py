"""The pictures of `profile` and `bound`: curves on logarithmic axes, legible in one column of a page.

Every line can be told by its dashes alone, every mark by its shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_cert.report.figures import BLUE, DARK_BLUE, VERMILLION, plain_name
from resnet_cert.report.numbers import given, plain
from resnet_cert.theory.bound import binding_form

if TYPE_CHECKING:
    from resnet_cert.results import BoundTable, Profile

SIZE = (4.4, 4.2)
"""Inches; three quarters of it are one column."""
DEEPEST = 1e-9
"""A value so many times smaller than the largest one is as good as 0 in a picture."""
FLAT, STEEP = 3.0, 1e3
"""Powers of ten mark a logarithmic axis well where values differ by the latter; round numbers, 1, 2, 5 and
so on, where they differ by less, and evenly spaced ones where by less than the former.
"""
MARKS = "sDv^<>ph"
DASHED, DOTTED, DASH_DOT, LONG = (0, (5, 3)), (0, (1, 1.5)), (0, (5, 2, 1, 2)), (0, (9, 3))


def profile_figure(profile: Profile) -> Any:
    """min F_lin over ‖W‖_F ≤ r against r, with F, where they meet, and the network's own ‖W‖_F."""
    figure, axes = _figure()
    r = np.array([row.r for row in profile.rows])
    lower, value, upper = np.array(
        [[row.F_lin_min.lower, row.F_lin_min.value, row.F_lin_min.upper] for row in profile.rows]
    ).T
    F, meeting = profile.F.value, profile.break_even_radius
    others = [other.F_lin_min.value for other in profile.comparators]
    low, high = _values(axes, [*value, *others, F])
    axes.fill_between(
        r, np.clip(lower, low, high), np.clip(upper, low, high), color=BLUE, alpha=0.3, linewidth=0
    )
    axes.plot(r, value, color=DARK_BLUE, linewidth=1.8, label=r"min $F_{\mathrm{lin}}$, $\|W\|_F \leq r$")
    axes.axhline(F, color="black", linestyle=DASHED, linewidth=1.3, label="$F$, the network")
    if meeting.value:
        label = f"break-even, $r = {plain(meeting.value, 4)}$"
        axes.axvline(meeting.value, color=VERMILLION, linestyle=DOTTED, linewidth=1.5, label=label)
    else:
        words = {True: "at no $r$", False: "at $r = 0$", None: "not decided"}
        axes.plot([], [], " ", label=f"break-even {words[meeting.infinite]}")
    if profile.norm_W > 0.0:
        label = rf"its own $\|W\|_F = {plain(profile.norm_W, 4)}$"
        axes.plot([profile.norm_W], [F], "o", color="black", markersize=6, zorder=5, label=label)
    for number, other in enumerate(profile.comparators):
        if other.radius > 0.0:
            mark = {"marker": MARKS[number % len(MARKS)], "color": "white", "markeredgecolor": "black"}
            label = f"on {plain_name(other.name)}"
            axes.plot([other.radius], [other.F_lin_min.value], linestyle="", label=label, **mark)
    places = [*r, profile.norm_W, *(other.radius for other in profile.comparators)]
    axes.set_xlim(min(x for x in places if x > 0.0), max(places))
    axes.margins(x=0.0)
    axes.set_xscale("log")
    axes.set_xlabel("size $r$ of the linear predictor", fontsize=9)
    axes.set_ylabel("objective", fontsize=9)
    return _titled(figure, axes, f"{plain_name(profile.name)}: linear predictors by their size")


def bound_figure(table: BoundTable) -> Any:
    """Every form of Theorem 3 against ε, the bound itself broad beneath them; dots where an ε is asked for.

    Args:
        table: with its curve.
    """
    figure, axes = _figure()
    rows = table.curve or table.rows
    eps = np.array([row.eps for row in rows])
    bound = np.array([row.bound.upper for row in rows])
    forms: list[tuple[str, list[float], str, Any, float]] = [
        ("refined", [row.refined_form for row in rows], DARK_BLUE, "-", 1.6),
        ("threshold", [row.threshold_form for row in rows], VERMILLION, DASHED, 1.6),
        ("refined, polynomial", [row.refined_polynomial_form for row in rows], DARK_BLUE, DOTTED, 1.4),
        ("threshold, polynomial", [row.polynomial_form for row in rows], VERMILLION, DASH_DOT, 1.4),
    ]
    decayed = bool(table.constants.l2)
    if decayed:  # one form, which is the bound
        forms = []
    augmented = [row.augmented_form.upper for row in rows if row.augmented_form is not None]
    if augmented:
        forms.append(("augmented", augmented, "black", LONG, 1.4))
    marked = [row for row in table.rows if eps.min() <= row.eps <= eps.max()]
    _values(axes, [*bound, *(x for _, values, *_ in forms for x in values)])
    least = "the bound" if decayed else "the bound: the least"
    axes.plot(eps, bound, color=BLUE, alpha=0.5, linewidth=6.0, solid_capstyle="butt", label=least)
    for name, values, color, dashes, width in forms:
        axes.plot(eps, values, color=color, linestyle=dashes, linewidth=width, label=name)
    if len(marked) == 1:
        [row] = marked
        form = "" if decayed else f"{binding_form(row)}, "
        label = f"$\\varepsilon$ = {plain(row.eps, 4)}: {form}{plain(row.bound.upper, 4)}"
        axes.plot([row.eps], [row.bound.upper], "o", color="black", markersize=6, zorder=5, label=label)
    if table.target_gap:
        label = f"target, ${given(table.target_gap)}$"
        axes.axhline(table.target_gap, color="black", linestyle=DASHED, linewidth=0.9, label=label)
    axes.set_xlim(eps.min(), eps.max())
    axes.set_xscale("log")
    axes.set_xlabel(r"$\varepsilon$", fontsize=9)
    G = "G" if decayed else "F"
    axes.set_ylabel(rf"${G} - \min {G}_{{\mathrm{{lin}}}}$ at most", fontsize=9)
    return _titled(figure, axes, "Theorem 3: the gap of an $\\varepsilon$-SOPSP")


def _figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.tick_params(labelsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _values(axes: Any, values: Sequence[float]) -> tuple[float, float]:
    """The upright axis for these values, logarithmic unless one is negative; its two ends."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    finite = [float(value) for value in values if math.isfinite(value)]
    high = max(finite, default=1.0)
    if min(finite, default=1.0) < 0.0 or high == 0.0:
        margin = 0.05 * (high - min(finite)) or 1.0
        low, high = min(finite) - margin, high + margin
        axes.set_ylim(low, high)
        return low, high
    low = min(value for value in finite if value >= DEEPEST * high)
    low, high = low / (high / low) ** 0.05 / 1.02, high * (high / low) ** 0.05 * 1.02
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(low, high)
    if high < STEEP * low:
        round_numbers = LogLocator(subs=(1.0, 2.0, 5.0))
        axes.yaxis.set_major_locator(MaxNLocator(6) if high < FLAT * low else round_numbers)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    return low, high


def _titled(figure: Any, axes: Any, title: str) -> Any:
    axes.set_title(title, fontsize=10)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8.5, frameon=False, columnspacing=1.2)
    return figure
