"""The commands: parse, call, print, exit.  What they call is imported when it is called, so that `--help`
answers at once."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import click

from resnet_cert import __version__
from resnet_cert.errors import Diagnostic, RequestError
from resnet_cert.output import require_writable, write_whole
from resnet_cert.program import VERBOSE, Program, run_to_the_end
from resnet_cert.report import FORMATS, Style, formatter

if TYPE_CHECKING:
    from resnet_cert.enclosure import Enclosure
    from resnet_cert.problem import Problem
    from resnet_cert.report.model import Report
    from resnet_cert.spec import LoadedProblem

STDIN = "-"


class Number(click.ParamType):
    """A finite number ≥ 0."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0.0 <= number < math.inf:
            self.fail(f"expected a finite number >= 0, got {value!r}", param, ctx)
        return number


def _verbose(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    ctx.meta[VERBOSE] = value
    return value


Command = Callable[..., Any]


def spec_options(command: Command) -> Command:
    """How a spec is read."""
    allow = click.option("--allow-code", is_flag=True, help="Run Python code that the spec names.")
    change = click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="Change an entry of the spec, e.g. --set domain.b=2.  May be repeated.",
    )
    return change(allow(command))


def format_option(command: Command) -> Command:
    return click.option(
        "--format",
        "format_name",
        type=click.Choice(list(FORMATS)),
        default="text",
        show_default=True,
        help="How the result is written.",
    )(command)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="resnet-cert")
def cli() -> None:
    """Check second-order stationary points of residual networks, and what the theory says about them.

    Exit codes of check: 0 CERTIFIED, 10 REFUTED, 20 UNDECIDED, 2 wrong request, 70 internal error.
    """
    # Both before numpy and jax are loaded.  Two BLAS threads make small matrices slower, many times so on a
    # busy machine; and looking for an accelerator costs seconds that a check in float64 never wins back.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")


@cli.command()
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@click.option("--eps", type=Number(), metavar="X", help="ε in place of the spec's epsilon.")
@spec_options
@format_option
@click.option("--output", metavar="FILE", help="Write the result there, whole or not at all.")
@click.option("--certificate", metavar="FILE", help="Write there what `verify` decides again.")
@click.option(
    "--arithmetic",
    type=click.Choice(["float64", "ball"]),
    default="float64",
    show_default=True,
    help="ball: evaluate the loss in Arb and decide there.",
)
@click.option("-q", "--quiet", is_flag=True, help="Only the verdicts.")
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    callback=_verbose,
    help="Also constants, cross-check, versions, all digits.",
)
@click.pass_context
def check(
    ctx: click.Context,
    specs: tuple[str, ...],
    eps: float | None,
    settings: tuple[str, ...],
    allow_code: bool,
    format_name: str,
    output: str | None,
    certificate: str | None,
    arithmetic: Literal["float64", "ball"],
    quiet: bool,
    verbose: bool,
) -> None:
    """Is the point of each SPEC an ε-second-order stationary point?  `-` is standard input."""
    from resnet_cert.verdict import Verdict

    verbosity = verbose - quiet
    if eps is not None:
        settings = (*settings, f"epsilon={eps!r}")
    if certificate is not None and len(specs) > 1:
        raise click.UsageError(f"expected one SPEC for a certificate, got {len(specs)}")
    for path in filter(None, (output, certificate)):
        require_writable(path)
    with _stdout_as_stderr():
        problems = _load(specs, allow_code, settings)
        reports = [_checked(loaded, arithmetic, verbosity) for loaded in problems]
        if certificate is not None:
            from resnet_cert.certificate import write_certificate

            [problem], [report] = problems, reports
            write_certificate(certificate, problem.problem, report, overrides=settings, arithmetic=arithmetic)
    _write(formatter(format_name).check(reports, _style(output, verbosity)), output)
    ctx.exit(Verdict.all_of(report.verdict for report in reports).exit_code)


def _checked(loaded: LoadedProblem, arithmetic: Literal["float64", "ball"], verbosity: int) -> Report:
    from resnet_cert.check import check
    from resnet_cert.report.model import Source

    with _progress(f"checking {loaded.path}", verbosity):
        return check(loaded.problem, spec=Source(loaded.path, loaded.sha256), arithmetic=arithmetic)


@cli.command()
@click.argument("certificate", metavar="FILE")
@format_option
@click.pass_context
def verify(ctx: click.Context, certificate: str, format_name: str) -> None:
    """Decide a certificate again, by code that shares nothing with `check`.

    Exit codes: 0 CERTIFIED, 10 REFUTED, 20 UNDECIDED if it is accepted, 30 REJECTED.
    """
    try:
        from resnet_cert.verify import verify
    except ModuleNotFoundError as error:
        if error.name != "flint":
            raise
        raise RequestError(
            "expected python-flint to verify with: pip install 'resnet-cert[verify]'"
        ) from None
    with _stdout_as_stderr(), _progress(f"verifying {certificate}", 0):
        verification = verify(certificate)
    _write(formatter(format_name).verify(verification, _style(None, 0)), None)
    ctx.exit(verification.exit_code)


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


@cli.command()
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

    The constants are those of SPEC or of the options; an option goes before SPEC.
    """
    if eps is None and target_gap is None:
        raise click.UsageError("expected --eps or --target-gap")
    given = {name: value for name, value in constants.items() if value is not None}
    missing = [f"--{name}" for name in CONSTANTS if name not in given]
    if spec is None and missing:
        raise click.UsageError(f"expected a SPEC or all constants, missing {', '.join(missing)}")
    with _stdout_as_stderr():
        from resnet_cert.bound import bound, parse_epsilons

        epsilons = [] if eps is None else parse_epsilons(eps)
        known: dict[str, Any] = {**given, "d": 2}
        F_lin_min = None
        if spec is not None:
            [loaded] = _load([spec], allow_code, settings)
            with _progress(f"bounding {loaded.path}", 0):
                known, F_lin_min = _constants_of(loaded.problem, given)
        if d is not None:
            known["d"] = d
        table = bound(epsilons, **known, F_lin_min=F_lin_min, target_gap=target_gap)
    _write(formatter(format_name).bound(table, _style(None, 0)), None)


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


@cli.command()
def schema() -> None:
    """Print the JSON Schema of the spec."""
    from resnet_cert.spec import spec_schema

    _write(json.dumps(spec_schema(), indent=2) + "\n", None)


def _load(specs: Sequence[str], allow_code: bool, settings: tuple[str, ...]) -> list[LoadedProblem]:
    """All specs, or every fault of all of them: nothing is computed if one is wrong."""
    from resnet_cert.spec import load_spec

    if list(specs).count(STDIN) > 1:
        raise click.UsageError("expected standard input once, got - twice")
    loaded: list[LoadedProblem] = []
    faults: list[Diagnostic] = []
    for path in specs:
        try:
            loaded.append(load_spec(path, allow_code=allow_code, overrides=settings))
        except RequestError as error:
            faults.extend(error.diagnostics)
    if faults:
        raise RequestError(faults)
    return loaded


@contextlib.contextmanager
def _stdout_as_stderr() -> Iterator[None]:
    """Standard output is for the result alone: what code of the user's prints goes to standard error."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _progress(doing: str, verbosity: int) -> contextlib.AbstractContextManager[Any]:
    """A spinner, where somebody is looking."""
    if verbosity < 0 or not sys.stderr.isatty():
        return contextlib.nullcontext()
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False).status(doing)


def _style(output: str | None, verbosity: int) -> Style:
    if output is not None or not sys.stdout.isatty():
        return Style(verbosity)
    color = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Style(verbosity, color, width=min(Style.width, max(80, shutil.get_terminal_size().columns)))


def _write(text: str, output: str | None) -> None:
    """The result, to the file or to standard output; what its encoding cannot say becomes `?`."""
    if output is not None:
        write_whole(output, text.encode())
    else:
        encoding = sys.stdout.encoding
        click.echo(text.encode(encoding, "replace").decode(encoding), nl=False)


def main() -> NoReturn:
    """The command `resnet-cert`."""
    run_to_the_end(cli, "resnet-cert")
