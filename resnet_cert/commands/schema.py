"""The command `schema`."""

from __future__ import annotations

import json

import click

from resnet_cert.commands.common import always_quiet, write
from resnet_cert.commands.program import Strict


@click.command(cls=Strict)
@always_quiet
def schema() -> None:
    """Print the JSON Schema of the spec."""
    from resnet_cert.spec import spec_schema

    write(json.dumps(spec_schema(), indent=2) + "\n", None)
