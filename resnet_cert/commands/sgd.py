"""The command `sgd`."""

from __future__ import annotations

from typing import Literal

import click

from resnet_cert.commands.common import (
    FILE,
    Number,
    format_option,
    load,
    progress,
    quiet_option,
    require_picture,
    spec_options,
    stdout_as_stderr,
    style,
    write,
)
from resnet_cert.commands.program import Strict
from resnet_cert.problem.files import write_whole
from resnet_cert.report import formatter


@click.command(cls=Strict)
@click.argument("spec", type=FILE)
@click.option("--steps", type=click.IntRange(min=1), required=True, metavar="T", help="Number of steps.")
@click.option(
    "--delta",
    type=Number(above=0.0, below=1.0),
    default=0.05,
    show_default=True,
    metavar="X",
    help="The bound may fail with probability X.",
)
@click.option(
    "--radius",
    type=Number(above=0.0),
    metavar="B",
    help="The ball ‖(w, v)‖ ≤ B; by default the r of SPEC's domain, or 1.01·‖argmin F_lin‖.",
)
@click.option(
    "--theta",
    type=click.Choice(["frozen", "sgd"]),
    default="frozen",
    show_default=True,
    help="sgd: θ takes a gradient step of the same size, no layer's norm growing.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N")
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Run N times, with different draws.",
)
@click.option(
    "--output",
    type=FILE,
    metavar="FILE.png",
    help="Draw the objective over the steps; .svg and .pdf as well.",
)
@spec_options
@format_option
@quiet_option
def sgd(
    spec: str,
    steps: int,
    delta: float,
    radius: float | None,
    theta: Literal["frozen", "sgd"],
    seed: int,
    repeat: int,
    output: str | None,
    settings: tuple[str, ...],
    allow_code: bool,
    format_name: str,
    quiet: bool,
) -> None:
    """Run SGD on wᵀx + vᵀf_θ(x) from 0 and hold it against Theorem 4; with several outputs on Ux + Zf_θ(x).

    The point of SPEC is not used.  The theorem bounds the average of the objective over all steps, with
    probability at least 1 − delta.
    """
    if output is not None:
        require_picture(output)
    with stdout_as_stderr():
        [loaded] = load([spec], allow_code, settings, [output])
        from resnet_cert.numerics.progress import told
        from resnet_cert.search.sgd import sgd

        with progress("running SGD", quiet=quiet):
            run = sgd(
                loaded.problem,
                steps,
                delta=delta,
                radius=radius,
                theta=theta,
                seed=seed,
                repeat=repeat,
                watch=lambda step: told("steps", step, steps),
            )
        if output is not None:
            from resnet_cert.report.figures import rendered, sgd_figure

            write_whole(output, rendered(sgd_figure(run), output))
    write(formatter(format_name).sgd(run.report, style(None, -quiet)), None)
