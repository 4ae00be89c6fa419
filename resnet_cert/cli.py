"""The program `resnet-cert`: its commands in one table.

A command imports what it calls when it is called, so that `--help` answers at once.
"""

from __future__ import annotations

from typing import NoReturn

import click

from resnet_cert import __version__
from resnet_cert.commands import surroundings
from resnet_cert.commands.bound import bound
from resnet_cert.commands.check import check
from resnet_cert.commands.doctor import doctor
from resnet_cert.commands.explain import explain
from resnet_cert.commands.init import init
from resnet_cert.commands.landscape import landscape
from resnet_cert.commands.profile import profile
from resnet_cert.commands.program import Program, run_to_the_end
from resnet_cert.commands.schema import schema
from resnet_cert.commands.sgd import sgd
from resnet_cert.commands.solve import solve
from resnet_cert.commands.verify import verify


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="resnet-cert")
def cli() -> None:
    """Check second-order stationary points of residual networks, and what the theory says about them.

    Exit codes of check: 0 CERTIFIED, 10 REFUTED, 20 UNDECIDED, 2 wrong request, 70 internal error.
    """
    surroundings.prepare()


for command in (check, bound, profile, solve, sgd, landscape, verify, init, schema, explain, doctor):
    cli.add_command(command)


def main() -> NoReturn:
    """The command `resnet-cert`."""
    run_to_the_end(cli, "resnet-cert")
