"""The command `profile`."""

from __future__ import annotations

import click

from resnet_cert.commands.common import (
    FILE,
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


@click.command(cls=Strict, short_help="How large must a linear predictor be to do as well as the network?")
@click.argument("spec", type=FILE)
@click.option(
    "--output", type=FILE, metavar="FILE.png", help="Draw the picture there; .svg and .pdf as well."
)
@click.option(
    "--points",
    type=click.IntRange(min=2, max=1000),
    default=25,
    show_default=True,
    metavar="N",
    help="So many r, log-spaced around the break-even radius, from the network's own size on.",
)
@spec_options
@format_option
@quiet_option
def profile(
    spec: str,
    output: str | None,
    points: int,
    settings: tuple[str, ...],
    allow_code: bool,
    format_name: str,
    quiet: bool,
) -> None:
    """How large must a linear predictor be to do as well as the network?  min F_lin over ‖W‖_F ≤ r against r.

    The break-even radius is the r from which on it is at most F, the network's own value: 0 where the
    predictor 0 does as well, infinite where no linear predictor of any size does.
    """
    if output is not None:
        require_picture(output)
    with stdout_as_stderr():
        [loaded] = load([spec], allow_code, settings, [output])
        from resnet_cert.compare.profile import profile as profile_of

        with progress(f"comparing {loaded.path}", quiet=quiet):
            found = profile_of(loaded.problem, points)
        if output is not None:
            from resnet_cert.report.curves import profile_figure
            from resnet_cert.report.figures import rendered

            write_whole(output, rendered(profile_figure(found), output))
    write(formatter(format_name).profile(found, style(None, -quiet), output), None)
