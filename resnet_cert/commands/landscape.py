"""The command `landscape`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

from resnet_cert.commands.common import (
    format_option,
    load,
    one_output,
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

if TYPE_CHECKING:
    from resnet_cert.decide.hessian import Direction
    from resnet_cert.problem.problem import Problem


class Range(click.ParamType):
    """Two intervals W0:W1,V0:V1."""

    name = "range"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        try:
            ends = [[float(end) for end in part.split(":")] for part in value.split(",")]
        except ValueError:
            ends = []
        sound = len(ends) == 2 and all(len(pair) == 2 and pair[0] < pair[1] for pair in ends)
        numbers = tuple(end for pair in ends for end in pair)
        if not (sound and all(map(math.isfinite, numbers))):
            self.fail(
                f"expected W0:W1,V0:V1 with W0 < W1 and V0 < V1, such as -3:3,-3:3, got {value!r}", param, ctx
            )
        return numbers


@click.command(cls=Strict, short_help="Find and draw the critical points on a plane of (w, V).")
@click.argument("spec")
@click.option(
    "--output", metavar="FILE.png", help="Draw the picture there; .svg and .pdf as well.  Else a map in text."
)
@click.option(
    "--range", "box", type=Range(), metavar="W0:W1,V0:V1", help="The part of the plane that is searched."
)
@click.option(
    "--directions",
    metavar="FILE.npz",
    help="Arrays dw1, dV1, dw2, dV2 that span the plane, in place of gradient and lowest curvature.",
)
@spec_options
@format_option
def landscape(
    spec: str,
    output: str | None,
    box: tuple[float, ...] | None,
    directions: str | None,
    settings: tuple[str, ...],
    allow_code: bool,
    format_name: str,
) -> None:
    """Find the critical points of the objective on a plane of (w, V), and draw it.

    For d = k = 1 the plane is all of (w, v).  Otherwise it is spanned at the point of SPEC by the gradient
    and the direction of lowest curvature, and the critical points are those of the restriction to it.
    """
    if output is not None:
        require_picture(output)
    with stdout_as_stderr():
        reads = [] if directions is None else [directions]
        [loaded] = load([spec], allow_code, settings, [output], reads)
        problem = one_output(loaded)
        plane = None if directions is None else _read_directions(directions, problem)
        from resnet_cert.search.landscape import landscape as landscape_of

        with progress(f"exploring {loaded.path}", 0):
            found = landscape_of(problem, box=box, directions=plane)
        if output is not None:
            from resnet_cert.report.figures import rendered
            from resnet_cert.report.picture import landscape_figure

            write_whole(output, rendered(landscape_figure(found), output))
    write(formatter(format_name).landscape(found, style(None, 0), output), None)


def _read_directions(path: str, problem: Problem) -> tuple[Direction, Direction]:
    """The directions (dw1, dV1) and (dw2, dV2).

    Raises:
        RequestError: the file or an array cannot be read, or a shape or a number does not fit.
    """
    from pathlib import Path

    import numpy as np

    from resnet_cert.decide.hessian import Direction
    from resnet_cert.outcomes import Diagnostic, RequestError
    from resnet_cert.spec.arrays import open_npz
    from resnet_cert.spec.faults import Refused

    arrays, faults = {}, []
    shapes = {"dw": (problem.d,), "dV": (problem.d, problem.k)}
    try:
        with open_npz(Path(), path) as array:
            for name in ("dw1", "dV1", "dw2", "dV2"):
                arrays[name] = np.asarray(array(name), dtype=np.float64)
                if arrays[name].shape != shapes[name[:2]]:
                    faults.append(
                        f"{name}: expected the shape {shapes[name[:2]]}, got the shape {arrays[name].shape}"
                    )
                elif not np.isfinite(arrays[name]).all():
                    faults.append(f"{name}: expected finite numbers, got NaN or infinity")
    except Refused as refused:
        faults += [fault.message for fault in refused.faults]
    if faults:
        raise RequestError([Diagnostic(fault, file=path) for fault in faults])
    return Direction(arrays["dw1"], arrays["dV1"]), Direction(arrays["dw2"], arrays["dV2"])
