"""The command `check`."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from resnet_cert.commands import surroundings
from resnet_cert.commands.common import (
    FILE,
    Destination,
    FormatAndFile,
    Number,
    load,
    progress,
    require_name,
    spec_options,
    stdout_as_stderr,
    style,
    write,
)
from resnet_cert.commands.program import VERBOSE, Strict
from resnet_cert.outcomes import Diagnostic, FailOn, RequestError, Verdict, printable
from resnet_cert.report import CHECK_FORMATS, Style, formatter, run_code

if TYPE_CHECKING:
    from resnet_cert.check import Examination
    from resnet_cert.moments.executors import DaskExecutor
    from resnet_cert.results import Descent, Report
    from resnet_cert.spec import LoadedProblem

DESCENT_WORK = 10**9
"""Multiplications of a pass over the data up to which a lower point is looked for: it takes some passes."""


def _verbose(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    ctx.meta[VERBOSE] = value
    return value


@click.command(cls=Strict, short_help="Is the point of each SPEC an ε-second-order stationary point?")
@click.argument("specs", type=FILE, nargs=-1, required=True, metavar="SPEC...")
@click.option("--eps", type=Number(), metavar="X", help="ε in place of the spec's epsilon.")
@spec_options
@click.option(
    "--format",
    "formats",
    type=FormatAndFile(),
    multiple=True,
    metavar="FORMAT[:FILE]",
    help=f"{', '.join(CHECK_FORMATS)}.  May be repeated: text for people and FORMAT:FILE for machines.",
)
@click.option(
    "--fail-on",
    type=click.Choice([fail_on.value for fail_on in FailOn]),
    default=FailOn.UNDECIDED.value,
    show_default=True,
    help="The mildest verdict with an exit code other than 0.",
)
@click.option("--output", type=FILE, metavar="FILE", help="Write the result there, whole or not at all.")
@click.option("--certificate", type=FILE, metavar="FILE", help="Write there what `verify` decides again.")
@click.option(
    "--arithmetic",
    type=click.Choice(["float64", "ball"]),
    default="float64",
    show_default=True,
    help="ball: evaluate the loss in Arb and decide there.",
)
@click.option("--no-escalate", is_flag=True, help="Do not go on in ball arithmetic by itself.")
@click.option(
    "--witness", type=FILE, metavar="FILE.npz", help="If refuted, write there a direction and a lower point."
)
@click.option("--augmented", is_flag=True, help="Compare with the best linear predictor on (x, f(x)) too.")
@click.option(
    "--break-even/--no-break-even",
    default=None,
    help="How large a linear predictor must be to do as well, and how much better any (W, V) can do; by "
    "default where that takes a moment.",
)
@click.option(
    "--hessian",
    type=click.Choice(["auto", "exact", "bound"]),
    help="λ_min by S(t), by ‖A_f‖_2, or by what the size permits; in place of the spec's hessian.",
)
@click.option("--cluster", metavar="ADDRESS|local:N", help="Add up on a Dask cluster, or on N processes.")
@click.option(
    "--device",
    type=click.Choice(["cpu", "gpu"]),
    default="cpu",
    show_default=True,
    help="Where a network's features are computed; all sums stay on processors.",
)
@click.option("-q", "--quiet", is_flag=True, help="Only the verdicts.")
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    callback=_verbose,
    help="Also constants, cross-check, versions, all digits.",
)
def check(
    specs: tuple[str, ...],
    eps: float | None,
    settings: tuple[str, ...],
    allow_code: bool,
    formats: tuple[Destination, ...],
    fail_on: str,
    output: str | None,
    certificate: str | None,
    arithmetic: Literal["float64", "ball"],
    no_escalate: bool,
    witness: str | None,
    augmented: bool,
    break_even: bool | None,
    hessian: str | None,
    cluster: str | None,
    device: str,
    quiet: bool,
    verbose: bool,
) -> int:
    """Is the point of each SPEC an ε-second-order stationary point?  `-` is standard input."""
    verbosity = verbose - quiet
    if device != "cpu":
        _require_near(device, cluster)
        surroundings.look_for_devices()
    printed, files = _destinations(formats)
    if eps is not None:
        settings = (*settings, f"epsilon={eps!r}")
    if hessian is not None:
        settings = (*settings, f"hessian={hessian}")
    if (certificate or witness) and len(specs) > 1:
        raise click.UsageError(f"expected one SPEC for a certificate or a witness, got {len(specs)}")
    if witness is not None:
        require_name(witness, ".npz")
    bundled = certificate is None or certificate.endswith(".zip")
    data = None if bundled else f"{certificate}.data"
    other = (to.file for to in files)
    writes = (output, *other, certificate, data, witness)
    with stdout_as_stderr():
        problems = load(specs, allow_code, settings, writes)
        if certificate is not None:
            _require_nameable(problems[0], bundled=certificate.endswith(".zip"))
        with contextlib.ExitStack() as open_:
            problems = [_with_features_on(device, loaded, open_) for loaded in problems]
            workers = None if cluster is None else _workers(cluster, verbosity, open_)
            checked = [
                _checked(loaded, arithmetic, not no_escalate, augmented, break_even, verbosity, workers)
                for loaded in problems
            ]
        reports = [examined.report for examined in checked]
        only = checked[0]
        if certificate is not None:
            from resnet_cert.certificate.writing import write_certificate

            write_certificate(
                certificate,
                only.problem,
                only.report,
                arithmetic=only.decision.arithmetic,
                direction=only.decision.curvature.direction,
            )
        if witness is not None:
            from resnet_cert.search.witness import find_witness, write_witness

            found = find_witness(only)
            if isinstance(found, str):
                click.echo(f"no witness: {found}", err=True)
            else:
                write_witness(witness, found)
                click.echo(f"the witness is in {witness}", err=True)
    for to in files:
        write(formatter(to.format).check(reports, Style(verbosity, fail_on=FailOn(fail_on))), to.file)
    how = replace(style(output, verbosity), fail_on=FailOn(fail_on))
    write(formatter(printed.format).check(reports, how), output)
    if output is not None and not quiet:
        click.echo(_summary(reports), err=True)
    return run_code(reports, FailOn(fail_on))


def _require_nameable(loaded: LoadedProblem, *, bundled: bool) -> None:
    """A certificate names the files that it is about, and a bundle holds them: a path that no text says could
    not be found again."""
    if bundled and Path(loaded.path).is_file():
        from resnet_cert.certificate.bundle import require_packable

        require_packable(loaded.source)
    for path in loaded.reads:
        if not path.isprintable():
            fault = "expected a path of printable characters for a certificate to name: rename it"
            raise RequestError([Diagnostic(fault, path)])


def _require_near(device: str, cluster: str | None) -> None:
    """Features from a device lie in a file here, which workers elsewhere do not see."""
    if cluster is not None and not cluster.startswith("local:"):
        raise click.UsageError(
            f"expected --cluster local:N beside --device {device}, whose features are kept in a file of this "
            f"machine, got {cluster!r}: leave --device out, and the workers compute them"
        )


def _with_features_on(device: str, loaded: LoadedProblem, open_: contextlib.ExitStack) -> LoadedProblem:
    """Features from another device, in a file that lasts as long as the work."""
    if device == "cpu":
        return loaded
    from resnet_cert.problem.devices import with_features_on

    folder = open_.enter_context(tempfile.TemporaryDirectory(prefix="resnet-cert-"))
    return replace(loaded, problem=with_features_on(loaded.problem, device, Path(folder)))


def _workers(address: str, verbosity: int, open_: contextlib.ExitStack) -> DaskExecutor:
    from resnet_cert.moments.executors import DaskExecutor, cluster

    client = open_.enter_context(cluster(address))
    if verbosity >= 0:
        click.echo(f"cluster: {len(client.nthreads())} workers, dashboard {client.dashboard_link}", err=True)
    return DaskExecutor(client)


def _summary(reports: Sequence[Report]) -> str:
    """A line for each report: what a log shows where the reports themselves go to files."""
    lines = []
    for report in reports:
        reasons = "" if report.verdict is Verdict.CERTIFIED else f": {'; '.join(report.reasons)}"
        lines.append(f"{printable(report.spec.path or report.name)}: {report.verdict.value}{reasons}")
    return "\n".join(lines)


def _destinations(formats: tuple[Destination, ...]) -> tuple[Destination, list[Destination]]:
    """What goes where the command writes its result, and what goes to files of its own."""
    printed = [to for to in formats if to.file is None]
    if len(printed) > 1:
        names = " and ".join(to.format for to in printed)
        raise click.UsageError(f"expected one --format without a file, got {names}; FORMAT:FILE names one")
    for to in formats:
        formatter(to.format)  # one that lacks its package is refused before the work
    return (*printed, Destination("text"))[0], [to for to in formats if to.file is not None]


def _checked(
    loaded: LoadedProblem,
    arithmetic: Literal["float64", "ball"],
    escalate: bool,
    augmented: bool,
    break_even: bool | None,
    verbosity: int,
    workers: DaskExecutor | None = None,
) -> Examination:
    """The report, and what a certificate or a witness is made from."""
    from resnet_cert.check import examine

    problem = loaded.problem
    with progress(f"checking {loaded.path}", quiet=verbosity < 0):
        examined = examine(
            problem,
            spec=loaded.source,
            arithmetic=arithmetic,
            escalate=escalate,
            augmented=augmented,
            break_even=break_even,
            population=loaded.population,
            client=workers,
        )
    return replace(
        examined, report=replace(examined.report, expect=loaded.expect, descent=_descent(examined))
    )


def _descent(examined: Examination) -> Descent | None:
    """How far the objective falls from a refuted point, where that takes a moment."""
    problem = examined.problem
    if examined.report.verdict is not Verdict.REFUTED or problem.n * problem.parameters > DESCENT_WORK:
        return None
    from resnet_cert.search.witness import descent

    return descent(examined)
