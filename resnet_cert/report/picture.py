"""The picture of a landscape: contours of the objective, its critical points, the level of linear predictors.

Lightness alone tells the levels and shape alone the kinds of critical points, so that the picture reads in
print and for the colour-blind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_cert.report.contour_map import levels
from resnet_cert.report.numbers import given, plain

if TYPE_CHECKING:
    from resnet_cert.search.landscape import Landscape

BANDS = 12
SIMILAR = 1.5
"""Up to this ratio of the sides a unit is as long in both directions, and a circle is round."""
INK, PAPER = "#111111", "#ffffff"
MARKERS: dict[str, dict[str, Any]] = {
    "spurious minimum": {"marker": "*", "s": 230},
    "minimum": {"marker": "o", "s": 75},
    "saddle": {"marker": "X", "s": 95},
    "maximum": {"marker": "^", "s": 85},
}


def landscape_figure(landscape: Landscape) -> Any:
    """A matplotlib figure of G over the plane."""
    from matplotlib.colors import BoundaryNorm
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 6.2), layout="constrained")
    axes = figure.subplots()
    s, t, G = landscape.s, landscape.t, np.ma.masked_invalid(landscape.values)
    bounds = levels(landscape.inside(), BANDS)
    norm = BoundaryNorm(bounds, 256)
    shades = axes.contourf(s, t, G, levels=bounds, cmap="cividis_r", norm=norm, extend="max")
    axes.contour(s, t, G, levels=bounds[1:-1], colors=INK, linewidths=0.4, alpha=0.6)
    bar = figure.colorbar(shades, ax=axes, ticks=bounds[::2], shrink=0.9, label=landscape.objective)
    bar.ax.set_yticklabels([plain(level, 3) for level in bounds[::2]])

    least = landscape.objective_lin_min.value
    saddles = [point.objective for point in landscape.critical_points if point.kind == "saddle"]
    best = f"the best at V = 0: {plain(least, 4)}"
    _level_lines(axes, s, t, G, [least], "dashed", 1.6, best)
    if least <= min([float(G.min()), *(point.objective for point in landscape.critical_points)]):
        axes.plot([], [], " ", label=f"{best}, nowhere less")
    _level_lines(axes, s, t, G, saddles, "dotted", 1.0, "level of a saddle")
    for number, curve in enumerate(landscape.curves):
        label = None if number else "not isolated"
        axes.plot(curve[:, 0], curve[:, 1], ".", color=INK, markersize=2.2, label=label)
    _circle(axes, landscape)
    for name, style in MARKERS.items():
        places = [point.at for point in landscape.critical_points if point.name == name]
        if places:
            outline = {"facecolor": PAPER, "edgecolor": INK, "linewidth": 1.3}
            axes.scatter(*zip(*places, strict=True), label=name, zorder=5, **style, **outline)
    if not landscape.plane.whole:
        axes.scatter([0.0], [0.0], label="the point", zorder=6, marker="+", s=120, color=INK, linewidth=1.4)
    name = landscape.name.replace("$", r"\$")  # a dollar begins a formula
    axes.set(xlim=(s[0], s[-1]), ylim=(t[0], t[-1]), title=name)
    if 1.0 / SIMILAR < (s[-1] - s[0]) / (t[-1] - t[0]) < SIMILAR:
        axes.set_aspect("equal")
    axes.set_xlabel(landscape.plane.names[0])
    axes.set_ylabel(landscape.plane.names[1])
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _level_lines(
    axes: Any, s: Any, t: Any, G: Any, values: list[float], dashes: str, width: float, label: str
) -> None:
    """The lines on which G has one of the values, with one entry in the legend."""
    seen = sorted({value for value in values if G.min() < value < G.max()})
    if seen:
        axes.contour(s, t, G, levels=seen, colors=INK, linewidths=width, linestyles=dashes)
        axes.plot([], [], color=INK, linewidth=width, linestyle=dashes, label=label)


def _circle(axes: Any, landscape: Landscape) -> None:
    """The boundary of the ball; what lies outside fades."""
    radius, (x, y) = landscape.plane.radius, landscape.plane.center
    if radius is None:
        return
    distance = np.hypot(landscape.s - x, landscape.t[:, None] - y)
    axes.contourf(landscape.s, landscape.t, distance, levels=[radius, np.inf], colors=[PAPER], alpha=0.5)
    around = np.linspace(0.0, 2.0 * np.pi, 721)
    label = f"‖(w, V)‖ = {given(landscape.norm)}"
    axes.plot(x + radius * np.cos(around), y + radius * np.sin(around), color=INK, linewidth=1.8, label=label)
