"""The command `bound`."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from resnet_cert.commands.common import (
    Command,
    Number,
    format_option,
    load,
    one_output,
    progress,
    spec_options,
    stdout_as_stderr,
    style,
    write,
)
from resnet_cert.commands.program import Strict
from resnet_cert.report import formatter

if TYPE_CHECKING:
    from resnet_cert.numerics.enclosure import Enclosure
    from resnet_cert.problem.problem import Problem

CONSTANTS = {
    "b": "The domain: ‖w‖, ‖V‖ < b.",
    "r": "The linear predictors: ‖w*‖ ≤ r.",
    "mu0": "Lipschitz constant of F.",
    "mu1": "Lipschitz constant of ∇F.",
    "mu2": "Lipschitz constant of ∇²F.",
}


def constant_options(command: Command) -> Command:
    """The constants of Theorem 3."""
    for name, meaning in reversed(CONSTANTS.items()):
        command = click.option(f"--{name}", type=Number(), metavar="X", help=meaning)(command)
    return command


@click.command(cls=Strict, short_help="Theorem 3 over ε: how far above the best linear predictor?")
@click.argument("spec", required=False)
@click.option("--eps", metavar="X[,X...]|A:B:N", help="Values of ε; A:B:N are N from A to B, log-spaced.")
@constant_options
@click.option("--d", type=click.IntRange(min=1), metavar="N", help="Dimension of x; 2 by default.")
@click.option("--target-gap", type=Number(), metavar="X", help="Find the largest ε whose bound is at most X.")
@spec_options
@format_option
def bound(
    spec: str | None,
    eps: str | None,
    d: int | None,
    target_gap: float | None,
    settings: tuple[str, ...],
    allow_code: bool,
    format_name: str,
    **constants: float | None,
) -> None:
    """How far above the best linear predictor can an ε-second-order stationary point be?  Theorem 3 over ε.

    The constants, and ε where no option says it, are those of SPEC; an option overrides its entry of SPEC.
    """
    if eps is None and target_gap is None and spec is None:
        raise click.UsageError("expected --eps, --target-gap or a SPEC")
    given = {name: value for name, value in constants.items() if value is not None}
    missing = [f"--{name}" for name in CONSTANTS if name not in given]
    if spec is None and missing:
        raise click.UsageError(f"expected a SPEC or all constants, missing {', '.join(missing)}")
    with stdout_as_stderr():
        from resnet_cert.theory.bound import bound, parse_epsilons

        epsilons = [] if eps is None else parse_epsilons(eps)
        known: dict[str, Any] = {**given, "d": 2}
        F_lin_min = None
        if spec is not None:
            [loaded] = load([spec], allow_code, settings)
            problem = one_output(loaded)
            if eps is None and target_gap is None:
                epsilons = [problem.epsilon]
            with progress(f"bounding {loaded.path}", 0):
                known, F_lin_min = _constants_of(problem, given)
        if d is not None:
            known["d"] = d
        table = bound(epsilons, **known, F_lin_min=F_lin_min, target_gap=target_gap)
    write(formatter(format_name).bound(table, style(None, 0)), None)


def _constants_of(problem: Problem, given: dict[str, float]) -> tuple[dict[str, Any], Enclosure]:
    """The constants of Theorem 3, computed where they are not given: b and r have a say in the others."""
    from resnet_cert.check import bound_constants

    domain = {name: value for name, value in given.items() if name in ("b", "r")}
    lipschitz = {name: value for name, value in given.items() if name not in domain}
    problem = replace(
        problem, domain=replace(problem.domain, **domain), lipschitz=replace(problem.lipschitz, **lipschitz)
    )
    constants, F_lin_min = bound_constants(problem)
    return asdict(constants), F_lin_min
