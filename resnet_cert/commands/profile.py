"""The command `profile`."""

from __future__ import annotations

import click

from resnet_cert.commands.common import (
    format_option,
    load,
    progress,
    require_picture,
    spec_options,
    stdout_as_stderr,
    style,
    write,
)
from resnet_cert.commands.program import Strict
from resnet_cert.report import formatter
from resnet_cert.report.files import write_whole


@click.command(cls=Strict, short_help="How large must a linear predictor be to do as well?")
@click.argument("spec")
@click.option(
    "--points",
    type=click.IntRange(min=2, max=1000),
    default=13,
    show_default=True,
    metavar="N",
    help="How many r, log-spaced around the break-even radius.",
)
@click.option("--output", metavar="FILE.png", help="Draw min F_lin against r; .svg and .pdf as well.")
@spec_options
@format_option
def profile(
    spec: str,
    points: int,
    output: str | None,
    settings: tuple[str, ...],
    allow_code: bool,
    format_name: str,
) -> None:
    """Draw up min F_lin over ‖W‖ ≤ r against r, and enclose the r from which on it is at most F.

    That break-even radius says how large a linear predictor must be to do as well as the network.
    """
    if output is not None:
        require_picture(output)
    with stdout_as_stderr():
        [loaded] = load([spec], allow_code, settings, [output])
        from resnet_cert.compare.profile import profile

        with progress(f"profiling {loaded.path}", 0):
            found = profile(loaded.problem, points)
        if output is not None:
            from resnet_cert.report.figures import profile_figure, rendered

            write_whole(output, rendered(profile_figure(found), output))
    write(formatter(format_name).profile(found, style(None, 0)), None)
