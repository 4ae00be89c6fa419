"""The command `landscape`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from resnet_cert.problem.problem import Direction, Problem


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


@click.command(cls=Strict, short_help="Find, prove and draw the critical points on a plane of (W, V).")
@click.argument("spec", type=FILE)
@click.option(
    "--output",
    type=FILE,
    metavar="FILE.png",
    help="Draw the picture there; .svg and .pdf as well.  Else a map in text.",
)
@click.option(
    "--range",
    "box",
    type=Range(),
    metavar="W0:W1,V0:V1",
    help="The part of the plane that is searched and drawn: first to the right, then upwards.",
)
@click.option("--grid", is_flag=True, help="With --format json: the values that the picture shows, too.")
@click.option(
    "--directions",
    type=FILE,
    metavar="FILE.npz",
    help="Arrays dw1, dV1, dw2, dV2 (dW1, … for several outputs) that span the plane, in place of gradient "
    "and lowest curvature.",
)
@spec_options
@format_option
@quiet_option
def landscape(
    spec: str,
    output: str | None,
    box: tuple[float, float, float, float] | None,
    grid: bool,
    directions: str | None,
    settings: tuple[str, ...],
    allow_code: bool,
    format_name: str,
    quiet: bool,
) -> None:
    """Find the critical points of the objective on a plane of (W, V), prove them, and draw it.

    Where the head and the block are one number each, the plane is all there is: the head's weight w to the
    right, the block's weight v upwards.  Otherwise it goes through the point of SPEC: s, along the gradient,
    to the right, and t, along the direction of lowest curvature, upwards.  Plain F, of a loss that is convex
    for every p, and one output with weight decay have their critical points listed over all of (W, V),
    whatever the plane.
    """
    if output is not None:
        require_picture(output)
    with stdout_as_stderr():
        reads = [] if directions is None else [directions]
        [loaded] = load([spec], allow_code, settings, [output], reads)
        problem = loaded.problem
        plane = None if directions is None else _read_directions(directions, problem)
        from resnet_cert.search.landscape import landscape as landscape_of

        with progress(f"exploring {loaded.path}", quiet=quiet):
            found = replace(landscape_of(problem, box=box, directions=plane), grid=grid)
        if output is not None:
            from resnet_cert.report.figures import rendered
            from resnet_cert.report.picture import landscape_figure

            write_whole(output, rendered(landscape_figure(found), output))
    write(formatter(format_name).landscape(found, style(None, -quiet), output), None)


def _read_directions(path: str, problem: Problem) -> tuple[Direction, Direction]:
    """The directions (dW1, dV1) and (dW2, dV2); dw1 and dw2 for one output.

    Raises:
        RequestError: the file or an array cannot be read, or a shape or a number does not fit.
    """
    from pathlib import Path

    import numpy as np

    from resnet_cert.outcomes import Diagnostic, RequestError
    from resnet_cert.problem.problem import Direction
    from resnet_cert.spec.arrays import open_npz
    from resnet_cert.spec.faults import Refused

    head = "dw" if problem.q == 1 else "dW"
    shapes = {head: (problem.d,) if problem.q == 1 else problem.W.shape, "dV": problem.V.shape}
    arrays: dict[str, Any] = {}
    faults: list[Diagnostic] = []
    try:
        with open_npz(Path(), path) as array:
            for name in (f"{head}1", "dV1", f"{head}2", "dV2"):
                arrays[name] = np.asarray(array(name), dtype=np.float64)
                if arrays[name].shape != shapes[name[:2]]:
                    shape = arrays[name].shape
                    message = f"{name}: expected the shape {shapes[name[:2]]}, got the shape {shape}"
                    faults.append(Diagnostic(message, file=path, id="shape"))
                elif not np.isfinite(arrays[name]).all():
                    message = f"{name}: expected finite numbers, got NaN or infinity"
                    faults.append(Diagnostic(message, file=path, id="not-finite"))
    except Refused as refused:
        faults += [Diagnostic(fault.message, file=path, id=fault.id) for fault in refused.faults]
    if faults:
        raise RequestError(faults)
    first, second = (
        Direction(arrays[f"{head}{i}"].reshape(problem.W.shape), arrays[f"dV{i}"]) for i in (1, 2)
    )
    return first, second
