"""The program around the commands: the one place where exceptions become messages and exit codes."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections import Counter
from itertools import pairwise
from typing import Any, NoReturn

import click

from resnet_cert.commands import surroundings
from resnet_cert.outcomes import MOST_TOLD, InternalError, RequestError

INTERRUPTED = 130  # as a shell reports a program ended by SIGINT, by SIGPIPE and by SIGTERM
READER_GONE = 141
TERMINATED = 143
VERBOSE, AS_JSON = "verbose", "json"  # in a context's meta


class Terminated(KeyboardInterrupt):
    """SIGTERM: whatever is to be left behind at an interrupt is left behind."""


class Strict(click.Command):
    """A command that does not take the last of two `--output` and forget the first, and whose exit code is
    what its function returns (0 for None): nothing that is raised inside can be one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[AS_JSON], ctx.meta[VERBOSE] = _as_typed(args)  # what is refused before they are read
        _, _, given = self.make_parser(ctx).parse_args(list(args))
        for option, count in Counter(given).items():
            if isinstance(option, click.Option) and count > 1 and not (option.multiple or option.is_flag):
                raise click.UsageError(f"expected {option.opts[0]} once, got it {count} times", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> None:
        ctx.meta[AS_JSON] = _is_json(ctx.params)
        try:
            code = super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException) as error:
            if isinstance(error, click.UsageError) and error.exit_code == RequestError.exit_code:
                raise
            raise InternalError(f"{type(error).__name__} raised") from error
        ctx.exit(code or 0)


class Program(click.Group):
    """The way out of everything that is no result.

    Even `SystemExit` is an internal error: code that a spec names must not exit with a verdict's code.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[AS_JSON], ctx.meta[VERBOSE] = _as_typed(args)
        try:
            return super().parse_args(ctx, args)
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            _refuse_usage(ctx, error)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            _refuse_usage(ctx, error)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except RequestError as error:
            _refuse(ctx, error)
        except Terminated:
            ctx.exit(TERMINATED)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            # What is left in the buffer of standard output is written once more at the end: to nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(READER_GONE)
        except BaseException as error:
            of_surroundings = None if isinstance(error, InternalError) else surroundings.fault(error)
            if of_surroundings is not None:
                _refuse(ctx, of_surroundings)
            _tell(error, ctx.meta.get(VERBOSE) or os.environ.get("RESNET_CERT_DEBUG"))
            ctx.exit(InternalError.exit_code)


def _is_json(params: dict[str, Any]) -> bool:
    """Whether standard output is to hold a JSON document."""
    if "formats" in params:
        printed = [to.format for to in params["formats"] if to.file is None]
        return printed == ["json"] and params["output"] is None
    return params.get("format_name") == "json"


def _as_typed(args: list[str]) -> tuple[bool, bool]:
    """Whether arguments that may not be as they should ask for JSON on standard output, and for -v."""
    formats = [after for word, after in pairwise(args) if word == "--format"]
    formats += [word.partition("=")[2] for word in args if word.startswith("--format=")]
    printed = [name for name in formats if ":" not in name]
    to_file = any(word == "--output" or word.startswith("--output=") for word in args)
    return printed == ["json"] and not to_file, bool({"-v", "--verbose"} & set(args))


def _refuse_usage(ctx: click.Context, error: click.UsageError) -> NoReturn:
    """An argument that a command does not take: how it is called, then the fault as every other one."""
    within = error.ctx or ctx
    click.echo(within.get_usage(), err=True)
    click.echo(f"Try '{within.command_path} --help' for help.\n", err=True)
    _refuse(ctx, RequestError(error.format_message(), id="usage"))


def _refuse(ctx: click.Context, error: RequestError) -> NoReturn:
    """Every fault a line of standard error; with --format json a document of them too."""
    for line in error.lines(ids=bool(ctx.meta.get(VERBOSE))):
        click.echo(line, err=True)
    if ctx.meta.get(AS_JSON):
        document = {
            "schema": "resnet-cert/errors/1",
            "exit_code": error.exit_code,
            "errors": [diagnostic.to_dict() for diagnostic in error.diagnostics[:MOST_TOLD]],
            "more": max(0, len(error.diagnostics) - MOST_TOLD),
        }
        click.echo(json.dumps(document, indent=2))
    ctx.exit(error.exit_code)


def _tell(error: BaseException, with_traceback: object) -> None:
    if with_traceback:
        traceback.print_exception(error)
    kind = "" if isinstance(error, InternalError) else f"{type(error).__name__}: "
    click.echo(f"internal error: {kind}{' '.join(str(error).split())}", err=True)


def _terminate(signum: int, frame: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not cut short what the first one began
    raise Terminated


def run_to_the_end(program: click.Group, name: str) -> NoReturn:
    """Run the program as this process, and end it."""
    with open(os.devnull, "w") as nowhere:
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere  # None if closed
        signal.signal(signal.SIGTERM, _terminate)
        try:
            program.main(prog_name=name)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else InternalError.exit_code
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:  # what is left in its buffer could not be written, and cannot be now
                code = InternalError.exit_code
        os._exit(code)  # at once: taking XLA down first can take longer than the check
