"""The command `solve`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from resnet_cert.commands.common import (
    FILE,
    Number,
    format_option,
    load,
    progress,
    quiet_option,
    require_name,
    spec_options,
    stdout_as_stderr,
    style,
    write,
)
from resnet_cert.commands.program import Strict
from resnet_cert.report import formatter

if TYPE_CHECKING:
    from resnet_cert.commands.bar import Bar
    from resnet_cert.problem.problem import Direction, Problem
    from resnet_cert.results import Report, Source
    from resnet_cert.search.solve import Solution, Step


@click.command(cls=Strict, short_help="Go from a point to an ε-second-order stationary point.")
@click.argument("spec", type=FILE)
@click.option(
    "--output",
    required=True,
    type=FILE,
    metavar="POINT.npz",
    help="Write the point there: arrays w (or W), V, and c.",
)
@click.option("--eps", type=Number(), metavar="X", help="ε in place of the spec's epsilon.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    metavar="N",
    help="Start at the spec's point plus normal noise as long as the point is (at least about 1).",
)
@spec_options
@format_option
@quiet_option
def solve(
    spec: str,
    output: str,
    eps: float | None,
    seed: int | None,
    settings: tuple[str, ...],
    allow_code: bool,
    format_name: str,
    quiet: bool,
) -> int:
    """Go from the point of SPEC to an ε-second-order stationary point, and check that.

    Exit codes as of check, for the point that was written.  Interrupted: the best point so far is written.
    """
    require_name(output, ".npz")
    if eps is not None:
        settings = (*settings, f"epsilon={eps!r}")
    with stdout_as_stderr():
        [loaded] = load([spec], allow_code, settings, [output])
        from resnet_cert.outcomes import Verdict
        from resnet_cert.results import Solved
        from resnet_cert.search.solve import perturbed, read_point, write_point

        problem = loaded.problem
        if seed is not None:
            problem = replace(problem, point=perturbed(problem, seed))
        solution = _solved(problem, output, quiet)
        write_point(output, solution.point)
        with progress(f"checking {output}", quiet=quiet):
            start, report = _on_one_domain(problem, replace(problem, point=read_point(output)), loaded.source)
    if solution.stopped is not None and report.verdict is not Verdict.CERTIFIED and not quiet:
        click.echo(f"stopped short of ε: {solution.stopped}", err=True)
    solved = Solved(
        solution.iterations,
        output,
        report,
        solution.attained,
        None if solution.descent is None else _arrays(solution.descent),
        solution.why,
        start,
    )
    write(formatter(format_name).solve(solved, style(None, -quiet)), None)
    return report.verdict.exit_code


def _on_one_domain(before: Problem, after: Problem, source: Source) -> tuple[Report, Report]:
    """The reports of two points by the same μ0, μ1, μ2: b: auto is the larger of their two."""
    from resnet_cert.check import check

    reports = [check(problem, spec=source) for problem in (before, after)]
    if before.domain.b is None:
        b = max(report.constants.b for report in reports)
        for i, problem in enumerate((before, after)):
            if reports[i].constants.b < b:
                report = check(replace(problem, domain=replace(problem.domain, b=b)), spec=source)
                computed = {**report.constants.source, "b": "computed"}
                reports[i] = replace(report, constants=replace(report.constants, source=computed))
    return reports[0], reports[1]


def _arrays(direction: Direction) -> dict[str, Any]:
    """dw (or dW) and dV, as in the JSON document."""
    dW = direction.dW
    head = {"dw": dW[0].tolist()} if len(dW) == 1 else {"dW": dW.tolist()}
    return {**head, "dV": direction.dV.tolist()}


def _solved(problem: Problem, output: str, quiet: bool) -> Solution:
    """Where the search ends; interrupted, it leaves the best point so far."""
    from resnet_cert.search.solve import solve, write_point

    latest: Step | None = None
    with progress("solving", quiet=quiet) as bar:
        show = _shown(problem, bar)

        def watch(step: Step) -> None:
            nonlocal latest
            latest = step
            show(step)

        try:
            return solve(problem, watch)
        except KeyboardInterrupt:
            if latest is not None:
                write_point(output, latest.point)
                click.echo(
                    f"interrupted after {latest.iteration} iterations: the best point so far is in {output}, "
                    f"objective {latest.objective:.6g}, gradient norm {latest.gradient_norm:.3g}",
                    err=True,
                )
            raise


def _shown(problem: Problem, bar: Bar | None) -> Callable[[Step], None]:
    """Keep the line of the terminal, where there is one, up to date."""
    if bar is None:
        return lambda step: None
    from resnet_cert.compare.regularized import least_of_objective

    least = least_of_objective(problem).value
    G = "F" if problem.is_plain else "G"

    def show(step: Step) -> None:
        parts = [f"step {step.iteration}", f"{G} {step.objective:.8g}", f"‖∇{G}‖ {step.gradient_norm:.2e}"]
        if step.lambda_min is not None:
            parts += [f"λ_min {step.lambda_min:.2e}"]
        bar.say("  ".join([*parts, f"{G} − {G}_lin {step.objective - least:.2e}"]))

    return show
