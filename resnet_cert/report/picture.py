"""The picture of a landscape: contours of the objective, its critical points, the level of linear predictors.

Lightness alone tells the levels and shape alone the kinds of critical points, so that the picture reads in
print and for the colour-blind.  Nothing lies on the contours but what belongs there: the legend is below.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_cert.numerics.radius import Array
from resnet_cert.report.contour_map import levels
from resnet_cert.report.numbers import given, plain

if TYPE_CHECKING:
    from resnet_cert.search.landscape import CriticalPoint, Landscape

BANDS = 12
SIMILAR = 1.5
"""Up to this ratio of the sides a unit is as long in both directions, and a circle is round."""
INK, PAPER = "#111111", "#ffffff"
MARKERS: dict[str, dict[str, Any]] = {
    "spurious minimum": {"marker": "*", "s": 200},
    "minimum": {"marker": "o", "s": 65},
    "saddle": {"marker": "X", "s": 85},
    "maximum": {"marker": "^", "s": 75},
}
OVERLAP = 0.035
"""Marks closer than this share of the picture are set apart."""
SPREAD = 0.03
"""and drawn so far from where they belong, with a line to it."""
SHARP = 1e-3
"""A number is shown whose enclosure is no wider than so much of the picture; of another one its upper end."""
LARGE = 1e4
"""Levels beyond are written as powers of ten."""


def landscape_figure(landscape: Landscape) -> Any:
    """A matplotlib figure of the objective over the plane."""
    from matplotlib.colors import BoundaryNorm
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 5.6), layout="constrained")
    axes = figure.subplots()
    s, t, G = landscape.s, landscape.t, np.ma.masked_invalid(landscape.values)
    bounds = round_levels(levels(landscape.inside(), BANDS))
    norm = BoundaryNorm(bounds, 256)
    below = "both" if float(G.min()) < bounds[0] else "max"
    shades = axes.contourf(s, t, G, levels=bounds, cmap="cividis_r", norm=norm, extend=below)
    axes.contour(s, t, G, levels=bounds[1:-1], colors=INK, linewidths=0.4, alpha=0.6)
    bar = figure.colorbar(shades, ax=axes, ticks=bounds, shrink=0.85, pad=0.02, label=objective(landscape))
    bar.ax.set_yticklabels([_level(level) for level in bounds])
    bar.ax.tick_params(labelsize=7)

    least = landscape.objective_lin_min.value
    saddles = [point.objective.value for point in landscape.critical_points if point.kind == "saddle"]
    at_zero = landscape.objective_lin_min
    wide = at_zero.upper - at_zero.lower > SHARP * float(np.ptp(G))
    shown = rf"\leq {plain(at_zero.upper, 4)}" if wide else plain(least, 4)
    best = f"best at $V = 0$: ${shown}$"
    _level_lines(axes, s, t, G, [least], "dashed", 1.6, best)
    if least <= min([float(G.min()), *(p.objective.value for p in landscape.critical_points)]):
        axes.plot([], [], " ", label=f"{best}, nowhere less")
    _level_lines(axes, s, t, G, saddles, "dotted", 1.0, "level of a saddle")
    for number, curve in enumerate(landscape.curves):
        label = None if number else "minima, a curve"
        axes.plot(curve[:, 0], curve[:, 1], "-", color=PAPER, linewidth=3.2)
        axes.plot(curve[:, 0], curve[:, 1], "-", color=INK, linewidth=1.6, label=label)
    _undecided(axes, landscape)
    _circle(axes, landscape)
    _marks(axes, landscape)
    if not landscape.plane.whole:
        axes.scatter([0.0], [0.0], label="the point", zorder=6, marker="+", s=100, color=INK, linewidth=1.4)
    name = landscape.name.replace("$", r"\$")  # a dollar begins a formula
    axes.set(xlim=(s[0], s[-1]), ylim=(t[0], t[-1]))
    axes.set_title(name, fontsize=10)
    if 1.0 / SIMILAR < (s[-1] - s[0]) / (t[-1] - t[0]) < SIMILAR:
        axes.set_aspect("equal")
    for set_label, symbol, words in zip(
        (axes.set_xlabel, axes.set_ylabel), landscape.plane.names, landscape.plane.words, strict=True
    ):
        set_label(f"${symbol}$  ({words})", fontsize=9)
    axes.tick_params(labelsize=8)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False, columnspacing=1.2)
    return figure


def objective(landscape: Landscape) -> str:
    """G as a formula."""
    return f"$F + {given(landscape.l2)}\\,(\\|W\\|^2 + \\|V\\|^2)$" if landscape.l2 else "$F$"


def round_levels(bounds: Array) -> Array:
    """Rising levels as numbers of few digits, each told from the next one by its last digit."""
    rounded = []
    for i, bound in enumerate(bounds):
        gap = float(np.min(np.abs(np.delete(bounds, i) - bound)))
        if not gap > 0.0:
            rounded.append(float(bound))
            continue
        step = 10.0 ** math.floor(math.log10(gap))
        step = step * (5.0 if gap / step >= 5.0 else 2.0 if gap / step >= 2.0 else 1.0) / 2.0
        rounded.append(float(np.round(round(float(bound) / step) * step, 14)))
    rising = sorted(set(rounded))
    return np.asarray(rising) if len(rising) > 2 else bounds


def _level(level: float) -> str:
    if level and (abs(level) >= LARGE or abs(level) < 1.0 / LARGE):
        power = math.floor(math.log10(abs(level)))
        return f"${plain(level / 10.0**power, 3)} \\cdot 10^{{{power}}}$"
    return f"${plain(level, 4)}$"


def _level_lines(
    axes: Any, s: Array, t: Array, G: Any, values: list[float], dashes: str, width: float, label: str
) -> None:
    """The lines on which G has one of the values, with one entry in the legend."""
    seen = sorted({value for value in values if G.min() < value < G.max()})
    if seen:
        axes.contour(s, t, G, levels=seen, colors=INK, linewidths=width, linestyles=dashes)
        axes.plot([], [], color=INK, linewidth=width, linestyle=dashes, label=label)


def _marks(axes: Any, landscape: Landscape) -> None:
    """The critical points by their kinds; those that would cover each other with a line to where they are."""
    points = [point for point in landscape.critical_points if point.at is not None]
    shown = _apart([point.at for point in points if point.at is not None], landscape)
    for place, point in zip(shown, points, strict=True):
        if point.at is not None and not np.allclose(place, point.at):
            axes.plot(*zip(place, point.at, strict=True), color=INK, linewidth=0.7, zorder=4)
            axes.plot(*point.at, ".", color=INK, markersize=3, zorder=4)
    for name, style in MARKERS.items():
        places = [place for place, point in zip(shown, points, strict=True) if point.name == name]
        if places:
            outline = {"facecolor": PAPER, "edgecolor": INK, "linewidth": 1.2}
            axes.scatter(
                *zip(*places, strict=True), label=_plural(points, name), zorder=5, **style, **outline
            )


def _plural(points: list[CriticalPoint], name: str) -> str:
    count = sum(point.name == name for point in points)
    if count == 1:
        return name
    return f"{count} " + (
        name.replace("minimum", "minima").replace("maximum", "maxima") if "imum" in name else f"{name}s"
    )


def _apart(places: list[tuple[float, float]], landscape: Landscape) -> list[tuple[float, float]]:
    """The places, those that are close to an earlier one moved around it."""
    size = np.array([landscape.s[-1] - landscape.s[0], landscape.t[-1] - landscape.t[0]])
    shown: list[Array] = []
    for place in places:
        unit = np.array(place) / size
        trials = [unit] + [
            unit + SPREAD * (1.0 + turn // 8) * np.array([math.cos(angle), math.sin(angle)])
            for turn in range(24)
            for angle in [math.pi * (0.25 + turn / 4.0)]
        ]
        free = (u for u in trials if all(float(np.linalg.norm(u - other)) >= OVERLAP for other in shown))
        shown.append(next(free, unit))
    moved = [u * size for u in shown]
    return [(float(x), float(y)) for x, y in moved]


def _undecided(axes: Any, landscape: Landscape) -> None:
    """What is not decided, hatched; at least as large as can be seen."""
    from matplotlib.patches import Rectangle

    least_s = (landscape.s[-1] - landscape.s[0]) / 150.0
    least_t = (landscape.t[-1] - landscape.t[0]) / 150.0
    for number, box in enumerate(landscape.undecided):
        width, height = max(box.s[1] - box.s[0], least_s), max(box.t[1] - box.t[0], least_t)
        corner = (sum(box.s) / 2.0 - width / 2.0, sum(box.t) / 2.0 - height / 2.0)
        label = None if number else "not decided here"
        axes.add_patch(
            Rectangle(
                corner,
                width,
                height,
                fill=False,
                hatch="////",
                edgecolor=INK,
                linewidth=0.6,
                label=label,
                zorder=3,
            )
        )


def _circle(axes: Any, landscape: Landscape) -> None:
    """The boundary of the ball; what lies outside fades."""
    radius, (x, y) = landscape.plane.radius, landscape.plane.center
    if radius is None:
        return
    distance = np.hypot(landscape.s - x, landscape.t[:, None] - y)
    if float(distance.max()) > radius:
        axes.contourf(landscape.s, landscape.t, distance, levels=[radius, np.inf], colors=[PAPER], alpha=0.5)
    around = np.linspace(0.0, 2.0 * np.pi, 721)
    label = f"$\\|(W, V)\\| = {given(landscape.norm)}$"
    axes.plot(x + radius * np.cos(around), y + radius * np.sin(around), color=INK, linewidth=1.8, label=label)
