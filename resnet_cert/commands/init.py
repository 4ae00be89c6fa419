"""The command `init`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from resnet_cert.commands.common import FILE, quiet_option, write
from resnet_cert.commands.program import Strict
from resnet_cert.problem.files import require_apart, require_writable

TEMPLATES = Path(__file__).resolve().parent / "templates"
FIRST = "start"
SCHEMA = "resnet-cert.schema.json"
EDITOR_LINE = f"# yaml-language-server: $schema={SCHEMA}\n"
"""What editors with YAML support (VS Code, Neovim, JetBrains) read: completion and errors as you type."""


def _completed(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in names() if name.startswith(incomplete)]


@click.command(cls=Strict)
@click.argument("example", required=False, metavar="[EXAMPLE]", shell_complete=_completed)
@click.option(
    "--output", type=FILE, metavar="FILE", help="Write the spec there, and its schema for editors beside it."
)
@click.option("--list", "lists", is_flag=True, help="List the examples.")
@quiet_option
def init(example: str | None, output: str | None, lists: bool, quiet: bool) -> None:
    """Write a commented spec that runs, to begin with."""
    if lists:
        width = max(map(len, names()))
        write("".join(f"{name:<{width}}  {about(name)}\n" for name in names()), None)
        return
    chosen = FIRST if example is None else example
    if chosen not in names():
        from resnet_cert.spec.faults import suggestion

        raise click.UsageError(f"unknown example {chosen!r}{suggestion(chosen, names())}")
    spec = EDITOR_LINE + template(chosen)
    if output is None:
        write(spec, None)
        return
    from resnet_cert.spec import spec_schema

    schema = str(Path(output).parent / SCHEMA)
    for path in (output, schema):
        require_writable(path)
    require_apart([output, schema], [])
    if Path(output).exists():
        raise click.UsageError(f"expected a new file, got {output}, which exists")
    write(json.dumps(spec_schema(), indent=2) + "\n", schema)
    write(spec, output)
    if not quiet:
        click.echo(f"wrote {output} and {schema}; now run: resnet-cert check {output}", err=True)


def names() -> list[str]:
    """The examples, the first one first."""
    found = sorted(path.stem for path in TEMPLATES.glob("*.yaml"))
    return [FIRST, *(name for name in found if name != FIRST)]


def template(name: str) -> str:
    return (TEMPLATES / f"{name}.yaml").read_text(encoding="utf-8")


def about(name: str) -> str:
    """The first line of an example."""
    return template(name).partition("\n")[0].removeprefix("# ")
