"""The command `verify`."""

from __future__ import annotations

import click

from resnet_cert.commands.common import (
    FILE,
    Number,
    format_option,
    progress,
    quiet_option,
    stdout_as_stderr,
    style,
    write,
)
from resnet_cert.commands.program import Strict
from resnet_cert.report import formatter


@click.command(cls=Strict, short_help="Decide a certificate again, by other code.")
@click.argument("certificate", type=FILE, metavar="FILE")
@click.option("--arrays", is_flag=True, help="Of the stored arrays alone, whatever spec is named.")
@click.option(
    "--budget",
    type=Number(above=0.0),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="What takes longer is UNDECIDED.",
)
@format_option
@quiet_option
def verify(certificate: str, arrays: bool, budget: float, format_name: str, quiet: bool) -> int:
    """Decide a certificate, or a bundle that ends in .zip, again, by code that shares nothing with `check`.

    Exit codes: 0 CERTIFIED, 10 REFUTED, 20 UNDECIDED if it is accepted; 30 REJECTED; 2 a file is missing.
    """
    from resnet_cert.certificate.supervision import verify

    with stdout_as_stderr(), progress(f"verifying {certificate}", quiet=quiet):
        verification = verify(certificate, arrays=arrays, budget=budget)
    write(formatter(format_name).verify(verification, style(None, -quiet)), None)
    return verification.exit_code
