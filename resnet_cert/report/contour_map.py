"""A landscape in a terminal: its levels as characters, darker where the objective is larger."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from resnet_cert.numerics.enclosure import Array
from resnet_cert.report.numbers import plain

if TYPE_CHECKING:
    from resnet_cert.search.landscape import Landscape

COLUMNS, ROWS = 69, 29
MARGIN = 9
"""Columns of the labels on the left."""
SHADES = ".:-=+*#%@"
OUTSIDE = " "
EXCEEDED_BY_FEW = 0.98
MOST_UNEVEN = 6.0
HUGE = 1e200
"""Values so large have no level of their own."""
MARKS = {"minimum": "o", "spurious minimum": "S", "saddle": "x", "maximum": "^"}
POINT = "P"


def levels(values: Array, bands: int) -> Array:
    """(bands + 1,) levels that rise from the least value to one that few exceed.

    low + (high − low)·x^p for even x in [0, 1], with p such that half of the bands lie below the median.
    """
    finite = values[np.isfinite(values) & (np.abs(values) < HUGE)]
    if not len(finite):
        return np.linspace(0.0, 1.0, bands + 1)
    low, middle, high = (float(q) for q in np.quantile(finite, (0.0, 0.5, EXCEEDED_BY_FEW)))
    if not high - low > 1e-12 * abs(low):
        return low + max(abs(low), 1.0) * np.linspace(0.0, 1.0, bands + 1)
    power = math.log2((high - low) / max(middle - low, 1e-12 * (high - low)))
    return low + (high - low) * np.linspace(0.0, 1.0, bands + 1) ** min(max(power, 1.0), MOST_UNEVEN)


def contour_map(landscape: Landscape) -> list[str]:
    """Lines of at most MARGIN + COLUMNS characters: the map, its axes and its legend."""
    s = np.linspace(landscape.s[0], landscape.s[-1], COLUMNS)
    t = np.linspace(landscape.t[-1], landscape.t[0], ROWS)
    columns = np.abs(landscape.s[:, None] - s).argmin(axis=0)
    rows = np.abs(landscape.t[:, None] - t).argmin(axis=0)
    values = landscape.values[np.ix_(rows, columns)]
    bounds = levels(landscape.inside(), len(SHADES))
    bands = np.clip(np.searchsorted(bounds, values, side="right") - 1, 0, len(SHADES) - 1)
    cells = np.array(list(SHADES))[bands]
    if landscape.plane.radius is not None:
        center = landscape.plane.center
        cells[np.hypot(s - center[0], t[:, None] - center[1]) > landscape.plane.radius] = OUTSIDE
    found = reversed(landscape.critical_points)
    marked = [(point.at, MARKS[point.name]) for point in found if point.at is not None]
    if not landscape.plane.whole:
        marked.append(((0.0, 0.0), POINT))
    for at, mark in marked:
        cells[np.abs(t - at[1]).argmin(), np.abs(s - at[0]).argmin()] = mark

    lines = []
    for number, row in enumerate(cells):
        label = plain(float(t[number]), 3) if number % 7 == 0 else ""
        lines.append(f"{label:>{MARGIN - 2}} |{''.join(row)}")
    ends = [plain(float(end), 3) for end in (s[0], (s[0] + s[-1]) / 2.0, s[-1])]
    middle = f"{ends[1]:^{COLUMNS - len(ends[0]) - len(ends[2])}}"
    names = landscape.plane.names
    lines += [
        f"{'':{MARGIN - 1}}+{'-' * COLUMNS}",
        f"{'':{MARGIN}}{ends[0]}{middle}{ends[2]}",
        f"{'':{MARGIN}}{names[0]} to the right, {names[1]} upwards",
    ]
    kinds = sorted({point.name for point in landscape.critical_points})
    legend = [f"{SHADES} from low to high", *(f"{MARKS[kind]} {kind}" for kind in kinds)]
    legend += [] if landscape.plane.whole else [f"{POINT} the point"]
    return [*lines, f"{'':{MARGIN}}{', '.join(legend)}"]
