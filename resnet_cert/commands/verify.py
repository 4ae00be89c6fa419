"""The command `verify`."""

from __future__ import annotations

import click

from resnet_cert.commands.common import format_option, progress, stdout_as_stderr, style, write
from resnet_cert.commands.program import Strict
from resnet_cert.outcomes import RequestError
from resnet_cert.report import formatter


@click.command(cls=Strict, short_help="Decide a certificate again, by other code.")
@click.argument("certificate", metavar="FILE")
@format_option
def verify(certificate: str, format_name: str) -> int:
    """Decide a certificate again, by code that shares nothing with `check`.

    Exit codes: 0 CERTIFIED, 10 REFUTED, 20 UNDECIDED if it is accepted, 30 REJECTED.
    """
    try:
        from resnet_cert.certificate.decision import verify
    except ModuleNotFoundError as error:
        if error.name != "flint":
            raise
        raise RequestError(
            "expected python-flint to verify with: pip install 'resnet-cert[verify]'"
        ) from None
    with stdout_as_stderr(), progress(f"verifying {certificate}", 0):
        verification = verify(certificate)
    write(formatter(format_name).verify(verification, style(None, 0)), None)
    return verification.exit_code
