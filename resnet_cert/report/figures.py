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


def plain_name(name: str) -> str:
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
    on = f"$\\Vert{ball}\\Vert \\leq {report.constants.b:.3g}$"
    axes.set_title(
        f"{plain_name(report.name)}: ${model}$, $\\theta$ {theta}, {on}",
        fontsize=10,
    )
    axes.grid(alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False, columnspacing=1.2)
    return figure
