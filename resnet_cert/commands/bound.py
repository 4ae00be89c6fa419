"""The command `bound`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from resnet_cert.commands.common import (
    FILE,
    Command,
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
from resnet_cert.problem.files import require_writable, write_whole
from resnet_cert.report import formatter

if TYPE_CHECKING:
    from resnet_cert.numerics.enclosure import Enclosure
    from resnet_cert.problem.problem import Problem

CONSTANTS = {
    "b": "The domain: ‖W‖_F, ‖V‖ < b.",
    "r": "The linear predictors: ‖W*‖_F ≤ r.",
    "mu0": "Lipschitz constant of F.",
    "mu1": "Lipschitz constant of ∇F.",
    "mu2": "Lipschitz constant of ∇²F.",
}


COUNT = click.IntRange(min=1)


def constant_options(command: Command) -> Command:
    """The constants of Theorem 3."""
    for name, meaning in reversed(CONSTANTS.items()):
        command = click.option(f"--{name}", type=Number(), metavar="X", help=meaning)(command)
    return command


@click.command(cls=Strict, short_help="Theorem 3 over ε: how far above the best linear predictor?")
@click.argument("spec", type=FILE, required=False)
@click.option("--eps", metavar="X[,X...]|A:B:N", help="Values of ε; A:B:N are N from A to B, log-spaced.")
@constant_options
@click.option("--d", type=COUNT, metavar="N", help="Inputs of the block; one more than outputs by default.")
@click.option("--q", type=COUNT, metavar="N", help="Outputs; 1 by default.")
@click.option("--k", type=COUNT, metavar="N", help="Features of the block; 1 by default.")
@click.option("--loss", metavar="NAME", help="The loss; softmax counts one output less.")
@click.option(
    "--s", type=Number(), metavar="X", help="Also against predictors Ux + Zf, ‖U‖_F ≤ r and ‖Z‖_F ≤ s."
)
@click.option("--target-gap", type=Number(), metavar="X", help="Find the largest ε whose bound is at most X.")
@click.option(
    "--output", type=FILE, metavar="FILE.png", help="Draw every form against ε there; .svg and .pdf as well."
)
@spec_options
@format_option
@quiet_option
def bound(
    spec: str | None,
    eps: str | None,
    d: int | None,
    q: int | None,
    k: int | None,
    loss: str | None,
    s: float | None,
    target_gap: float | None,
    output: str | None,
    settings: tuple[str, ...],
    allow_code: bool,
    format_name: str,
    quiet: bool,
    **constants: float | None,
) -> None:
    """How far above the best linear predictor can an ε-second-order stationary point be?  Theorem 3 over ε.

    The constants, and ε where no option says it, are those of SPEC; an option overrides its entry of SPEC.
    The picture shows all ε around those that are asked for.
    """
    if eps is None and target_gap is None and spec is None:
        raise click.UsageError("expected --eps, --target-gap or a SPEC")
    given = {name: value for name, value in constants.items() if value is not None}
    missing = [f"--{name}" for name in CONSTANTS if name not in given]
    if spec is None and missing:
        raise click.UsageError(f"expected a SPEC or all constants, missing {', '.join(missing)}")
    if output is not None:
        require_picture(output)
    with stdout_as_stderr():
        from resnet_cert.theory.bound import bound, parse_epsilons, with_curve

        epsilons = [] if eps is None else parse_epsilons(eps)
        known: dict[str, Any] = {}
        F_lin_min = None
        if spec is not None:
            [loaded] = load([spec], allow_code, settings, [output])
            problem = loaded.problem
            if eps is None and target_gap is None:
                epsilons = [problem.epsilon]
            with progress(f"bounding {loaded.path}", quiet=quiet):
                known, F_lin_min = _constants_of(problem, given)
        elif output is not None:
            require_writable(output)
        shape = {"d": d, "q": q, "k": k, "loss": loss, "s": s}
        known |= {**given, **{name: value for name, value in shape.items() if value is not None}}
        table = bound(epsilons, **known, F_lin_min=F_lin_min, target_gap=target_gap)
        if output is not None:
            from resnet_cert.report.curves import bound_figure
            from resnet_cert.report.figures import rendered

            table = with_curve(table)
            write_whole(output, rendered(bound_figure(table), output))
    write(formatter(format_name).bound(table, style(None, -quiet)), None)


def _constants_of(problem: Problem, given: dict[str, float]) -> tuple[dict[str, Any], Enclosure]:
    """The constants of Theorem 3, computed where they are not given: b and r have a say in the others."""
    from resnet_cert.check import bound_constants

    domain = {name: value for name, value in given.items() if name in ("b", "r")}
    lipschitz = {name: value for name, value in given.items() if name not in domain}
    problem = replace(
        problem, domain=replace(problem.domain, **domain), lipschitz=replace(problem.lipschitz, **lipschitz)
    )
    constants, F_lin_min = bound_constants(problem)
    names = (*CONSTANTS, "d", "q", "k", "bypass", "l2", "norm_V")
    known = {name: getattr(constants, name) for name in names}
    return {**known, "loss": "softmax" if problem.loss.sum_free else None}, F_lin_min
