"""Pictures by matplotlib, for screen and print; every line can be told by its dashes alone."""

from __future__ import annotations

import importlib.util
import io
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_cert.outcomes import RequestError

if TYPE_CHECKING:
    from resnet_cert.results import BoundTable, Profile
    from resnet_cert.search.sgd import SgdRun

ENDINGS = (".png", ".svg", ".pdf")
BLUE, DARK_BLUE, VERMILLION = "#56B4E9", "#0072B2", "#D55E00"  # Okabe & Ito: told apart by the colour-blind
LOG_SCALE = (8.0, 1e4)
"""A bound so many times the smallest value makes a logarithmic scale; a smaller value is as good as 0."""


def require_matplotlib() -> None:
    """Find out before the work that nothing can be drawn; and load matplotlib as it comes, where nobody has
    yet: a file matplotlibrc of the user's, in the current folder perhaps, may be broken, or change a picture.

    Raises:
        RequestError: if matplotlib is not installed, or does not start.
    """
    if importlib.util.find_spec("matplotlib") is None:
        fault = "expected matplotlib to draw with: pip install 'resnet-cert[plot]'"
        raise RequestError(fault, id="needs-package")
    if "matplotlib" in sys.modules:
        return
    here, given = os.open(".", getattr(os, "O_PATH", os.O_RDONLY)), os.environ.get("MATPLOTLIBRC")
    os.environ["MATPLOTLIBRC"] = os.devnull
    try:
        os.chdir(os.sep)
        importlib.import_module("matplotlib")
    except Exception as error:
        raise RequestError(f"matplotlib does not start: {error}", id="environment") from error
    finally:
        os.fchdir(here)
        os.close(here)
        del os.environ["MATPLOTLIBRC"]
        if given is not None:
            os.environ["MATPLOTLIBRC"] = given


def rendered(figure: Any, path: str) -> bytes:
    """The picture in the format that the name of the file says."""
    from matplotlib import rc_context

    content = io.BytesIO()
    with rc_context({"svg.hashsalt": "resnet-cert"}):  # names inside an SVG are random without it
        figure.savefig(content, format=path.rpartition(".")[2], dpi=200, metadata=_undated(path))
    return content.getvalue()


def _undated(path: str) -> dict[str, None]:
    """Without the date that matplotlib puts into it."""
    return {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path[-4:], {})


def profile_figure(found: Profile) -> Any:
    """min F_lin over ‖W‖ ≤ r against r, F, where they meet, and the point's own ‖W‖."""
    r = [row.r for row in found.rows]
    values = [row.F_lin_min.value for row in found.rows]
    figure, axes = _axes()
    axes.plot(r, values, color=BLUE, linewidth=2.0, label="$\\min F_{lin}$, $\\Vert W\\Vert \\leq r$")
    axes.axhline(found.F.value, color="black", linestyle=(0, (5, 3)), linewidth=1.3, label="F, the network")
    styles = ((0, (1, 1)), (0, (3, 1, 1, 1)), (0, (7, 2)))
    for style, other in zip(styles, found.comparators, strict=False):
        label = f"{_plain(other.name)}, $r = {other.radius:.3g}$"
        axes.axhline(other.F_lin_min.value, color=DARK_BLUE, linestyle=style, linewidth=1.0, label=label)
    meeting = found.break_even_radius
    if meeting.value:
        axes.plot([meeting.value], [found.F.value], "o", color=VERMILLION, label=f"r° = {meeting.value:.4g}")
    if r[0] <= found.norm_W <= r[-1]:
        label = f"the network's $\\Vert W\\Vert = {found.norm_W:.3g}$"
        axes.axvline(found.norm_W, color=VERMILLION, linestyle=(0, (5, 2, 1, 2)), linewidth=1.2, label=label)
    axes.set_xscale("log")
    if min(*values, found.F.value) > 0.0:
        axes.set_yscale("log")
    axes.set_xlabel("r")
    axes.set_title(f"{_plain(found.name)}: the best linear predictor of each size", fontsize=10.5)
    axes.legend(frameon=False, fontsize=9, loc="best")
    return figure


def bound_figure(table: BoundTable) -> Any:
    """Every form of Theorem 3 against ε, both on logarithmic scales."""
    rows = [row for row in table.rows if row.eps > 0.0]
    if len(rows) < 2:
        raise RequestError("expected two values of epsilon > 0 or more to draw")
    eps = [row.eps for row in rows]
    forms = {
        "refined form": ([row.refined_form for row in rows], DARK_BLUE, "-"),
        "threshold form": ([row.threshold_form for row in rows], VERMILLION, (0, (5, 2, 1, 2))),
        "refined polynomial": ([row.refined_polynomial_form for row in rows], BLUE, (0, (5, 3))),
        "threshold polynomial": ([row.polynomial_form for row in rows], "black", (0, (1, 1))),
    }
    if all(row.augmented_form is not None for row in rows):
        augmented = [row.augmented_form.upper for row in rows if row.augmented_form is not None]
        forms[f"augmented, s = {table.constants.s:g}"] = (augmented, "grey", (0, (7, 2)))
    figure, axes = _axes()
    for label, (values, color, style) in forms.items():
        axes.plot(eps, values, color=color, linestyle=style, linewidth=1.6, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("$\\varepsilon$")
    axes.set_ylabel("$F - \\min F_{lin}$ at most")
    axes.set_title("Theorem 3 at every $\\varepsilon$-second-order stationary point", fontsize=10.5)
    axes.legend(frameon=False, fontsize=9, loc="best")
    return figure


def _axes() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _plain(name: str) -> str:
    """A name as it is: a dollar begins a formula."""
    return name.replace("$", r"\$")


def sgd_figure(run: SgdRun) -> Any:
    """F(z_t, θ_t) over the steps against min F_lin and the bound of Theorem 4; the legend is below.

    Of several runs everything is the median of all of them, and a band says where 90 % lie.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    report, at, curve = run.report, run.at, run.curve
    figure = Figure(figsize=(5.2, 4.0), layout="constrained")
    axes = figure.subplots()
    low, middle, high = np.quantile(curve, (0.05, 0.5, 0.95), axis=1)
    runs = curve.shape[1]
    of_runs = "" if runs == 1 else f", median of {runs} runs"
    if runs > 1:
        axes.fill_between(
            at, low, high, color=BLUE, alpha=0.35, linewidth=0, label=f"$F$, 90 % of {runs} runs"
        )
    axes.plot(at, middle, color=BLUE, linewidth=1.0, label=f"$F(z_t, \\theta_t)${of_runs}")
    average = np.median(run.average, axis=1)
    axes.plot(at, average, color=DARK_BLUE, linewidth=2.0, label=f"its average up to $t${of_runs}")
    axes.axhline(
        report.F_lin_min, color="black", linestyle=(0, (5, 3)), linewidth=1.3, label="best linear predictor"
    )
    label = f"bound of Theorem 4, probability {1.0 - report.delta:g}"
    axes.axhline(report.bound, color=VERMILLION, linestyle=(0, (5, 2, 1, 2)), linewidth=1.6, label=label)
    lowest = min(float(low.min()), report.F_lin_min)
    if lowest > 0.0 and LOG_SCALE[0] < report.bound / lowest < LOG_SCALE[1]:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(1, max(report.steps, 2))
    axes.set_xlabel("step $t$")
    axes.set_ylabel("objective $F$")
    theta = "frozen" if report.theta == "frozen" else "trained"
    model, ball = "w^T x + v^T f_\\theta(x)", "(w, v)"
    if report.outputs > 1:
        model, ball = "U x + Z f_\\theta(x)", "(U, Z)"
    axes.set_title(
        f"{_plain(report.name)}: ${model}$, $\\theta$ {theta}, $\\Vert{ball}\\Vert \\leq {report.constants.b:.3g}$",
        fontsize=10,
    )
    axes.grid(alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False, columnspacing=1.2)
    return figure
