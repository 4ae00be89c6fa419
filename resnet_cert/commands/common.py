"""What the commands share: their options, the reading of specs, the writing of results."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from resnet_cert.commands import surroundings
from resnet_cert.outcomes import Diagnostic, InternalError, RequestError
from resnet_cert.problem.files import require_apart, require_writable, write_whole
from resnet_cert.report import CHECK_FORMATS, FORMATS, Style

if TYPE_CHECKING:
    from resnet_cert.commands.bar import Bar
    from resnet_cert.problem.problem import Problem
    from resnet_cert.spec import LoadedProblem

STDIN = "-"
NARROWEST = 60
"""Columns that a result takes on any terminal."""


class Number(click.ParamType):
    """A finite number ≥ 0; or greater than one number, or less than another."""

    name = "number"

    def __init__(self, *, above: float | None = None, below: float = math.inf) -> None:
        self.above, self.below = above, below

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        low = number >= 0.0 if self.above is None else number > self.above
        if not (low and number < self.below):
            least = ">= 0" if self.above is None else f"> {self.above:g}"
            most = "" if math.isinf(self.below) else f" and < {self.below:g}"
            self.fail(f"expected a finite number {least}{most}, got {value!r}", param, ctx)
        return number


class FileName(click.types.StringParamType):
    """The name of a file, which the shell completes."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


FILE = FileName()


@dataclass(frozen=True)
class Destination:
    """A format and the file that it is written to; None: where the command writes its result."""

    format: str
    file: str | None = None


class FormatAndFile(click.ParamType):
    """FORMAT, or FORMAT:FILE."""

    name = "format"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Destination:
        name, colon, file = str(value).partition(":")
        if name not in CHECK_FORMATS:
            from resnet_cert.spec.faults import nearest

            near = nearest(name, CHECK_FORMATS)
            hint = f"; did you mean {near!r}?" if near else ""
            self.fail(f"expected one of {', '.join(CHECK_FORMATS)}, got {name!r}{hint}", param, ctx)
        if colon and not file:
            self.fail(f"expected a file after the colon, got {value!r}", param, ctx)
        return Destination(name, file or None)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(name) for name in CHECK_FORMATS if name.startswith(incomplete)]


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


def quiet_option(command: Command) -> Command:
    return click.option(
        "-q", "--quiet", is_flag=True, help="The result alone: no progress, no notes on standard error."
    )(command)


def always_quiet(command: Command) -> Command:
    """Takes -q as every command does, and has nothing else to say anyway."""
    return click.option(
        "-q", "--quiet", is_flag=True, expose_value=False, help="As for every command: the result alone."
    )(command)


def load(
    specs: Sequence[str],
    allow_code: bool,
    settings: tuple[str, ...],
    writes: Sequence[str | None] = (),
    reads: Sequence[str] = (),
) -> list[LoadedProblem]:
    """All specs, or every fault of all of them: nothing is computed if one is wrong.

    writes: the files that the command will write, None where it will not; refused before anything is read if
        they cannot be written, or would be written over one another, a spec, what a spec names, or `reads`.
    """
    from resnet_cert.spec import load_spec

    surroundings.require_flags()
    if list(specs).count(STDIN) > 1:
        raise click.UsageError("expected standard input once, got - twice")
    paths = [path for path in writes if path is not None]
    for path in paths:
        require_writable(path)
    require_apart(paths, [*(spec for spec in specs if spec != STDIN), *reads])
    loaded: list[LoadedProblem] = []
    faults: list[Diagnostic] = []
    for path in specs:
        try:
            loaded.append(load_spec(path, allow_code=allow_code, overrides=settings, writes=paths))
        except RequestError as error:
            faults.extend(error.diagnostics)
    if faults:
        raise RequestError(faults)
    return loaded


def one_output(loaded: LoadedProblem, asked: str = "this command") -> Problem:
    """The problem, for what knows predictions p ∈ R only."""
    from resnet_cert.problem.problem import Problem

    problem = loaded.problem
    if not isinstance(problem, Problem):
        fault = f"expected one output, a point of w and V, for {asked}, got q = {problem.q} outputs"
        raise RequestError([Diagnostic(fault, *loaded.point_at)])
    return problem


@contextlib.contextmanager
def stdout_as_stderr() -> Iterator[None]:
    """Standard output is for the result alone: what code of the user's prints goes to standard error."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def require_name(path: str, *endings: str) -> None:
    """Refuse an output file whose name does not end as what is written into it."""
    if not path.endswith(endings):
        fault = f"expected a file name that ends in {' or '.join(endings)}"
        raise RequestError([Diagnostic(fault, file=path, id="output-name")])


def require_picture(path: str) -> None:
    """Refuse a picture that could not be drawn."""
    from resnet_cert.report.figures import ENDINGS, require_matplotlib

    require_name(path, *ENDINGS)
    require_matplotlib()


@contextlib.contextmanager
def progress(doing: str, *, quiet: bool) -> Iterator[Bar | None]:
    """How far the work in the block is, from its first second on, where somebody is looking."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from resnet_cert.commands.bar import Bar
    from resnet_cert.numerics.progress import watched

    with Bar(doing) as bar, watched(bar.step):
        yield bar


def style(output: str | None, verbosity: int) -> Style:
    if output is not None or not sys.stdout.isatty():
        return Style(verbosity)
    color = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Style(verbosity, color, width=min(Style.width, max(NARROWEST, shutil.get_terminal_size().columns)))


def write(text: str, output: str | None) -> None:
    """The result, to the file or to standard output; what its encoding cannot say becomes `?`."""
    if output is not None:
        write_whole(output, text.encode("utf-8", "backslashreplace"))
    else:
        encoding = sys.stdout.encoding
        errors = "backslashreplace" if encoding.lower().startswith("utf") else "replace"
        try:
            click.echo(text.encode(encoding, errors).decode(encoding), nl=False)
        except BrokenPipeError:  # the reader has gone: that is no fault
            raise
        except OSError as error:
            raise InternalError(f"cannot write to standard output: {error.strerror}") from error
