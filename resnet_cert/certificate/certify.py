"""`certify`: check a point, and write the certificate of what was found."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_cert.results import Report, Source

if TYPE_CHECKING:
    from resnet_cert.problem.problem import Problem


def certify(
    problem: Problem | str | Path,
    path: str | Path,
    *,
    overrides: Sequence[str] = (),
    allow_code: bool = False,
    **how: Any,
) -> Report:
    """`check`, with its certificate written to `path`, or into a bundle where that ends in .zip.

    Args:
        problem: a problem, or the path of a spec; then the certificate names it.
        overrides: settings "KEY=VALUE" that replace entries of the spec.
        allow_code: run the Python files that the spec names.
        how: as `check` takes it.
    Raises:
        RequestError: the spec is wrong, the loss is not a built-in one, or nothing can be written at `path`.
    """
    from resnet_cert.certificate.writing import write_certificate
    from resnet_cert.check import examine

    reads: tuple[str, ...] = ()
    if isinstance(problem, str | Path):
        from resnet_cert.spec import load_spec

        writes = [os.fspath(path), f"{os.fspath(path)}.data"]
        loaded = load_spec(problem, allow_code=allow_code, overrides=overrides, writes=writes)
        problem, reads = loaded.problem, loaded.reads
        examined = examine(problem, spec=Source(loaded.path, loaded.sha256), **how)
        examined = replace(examined, report=replace(examined.report, expect=loaded.expect))
    else:
        examined = examine(problem, **how)
    write_certificate(
        path,
        examined.problem,
        examined.report,
        overrides=overrides,
        arithmetic=examined.decision.arithmetic,
        direction=examined.decision.curvature.direction,
        reads=reads,
    )
    return examined.report
