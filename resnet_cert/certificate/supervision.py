"""`verify`: the verifier at work in a process of its own, and an answer whatever becomes of it."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import resnet_cert
from resnet_cert.certificate.verification import Verification
from resnet_cert.outcomes import Diagnostic, InternalError, RequestError, Verdict

BUDGET = 600.0
"""Seconds that the work may take."""
MEMORY = 2.0e9
"""Bytes of address space that it may take."""
GRACE = 5.0
"""Seconds after the budget in which the process may still come to its end."""


def verify(path: str | Path, *, arrays: bool = False, budget: float = BUDGET) -> Verification:
    """Decides again what the certificate or the bundle at `path` claims, from the files that it names.

    Args:
        arrays: for the stored arrays alone, whatever spec is named.
        budget: seconds that it may take; beyond it the answer is UNDECIDED.
    Raises:
        RequestError: a file that is needed is missing or cannot be read, with all of them.
        InternalError: the verifier itself failed.
    """
    if not (budget > 0.0 and math.isfinite(budget)):
        raise RequestError(
            f"expected a positive number of seconds as the budget, got {budget!r}", id="wrong-value"
        )
    if importlib.util.find_spec("flint") is None:
        raise RequestError(
            "expected python-flint to verify with: pip install 'resnet-cert[verify]'", id="needs-package"
        )
    path = Path(path)
    with tempfile.TemporaryDirectory(prefix="resnet-cert-") as folder:
        lines, ending = _run(path, folder, arrays, budget)
        for line in reversed(lines):
            ((kind, content),) = line.items()
            if kind == "answer":
                return _shown(Verification.of(content), folder, path)
            if kind == "request":
                raise RequestError([_diagnostic(place, folder, path) for place in content])
            if kind == "internal":
                raise InternalError(f"the verifier failed: {content}")
    known = [Verification.of(line["so far"]) for line in lines if "so far" in line]
    so_far = known[-1] if known else Verification(True, Verdict.UNDECIDED, (), arrays_only=arrays)
    if any("memory" in line for line in lines):
        ending = f"the verifier came to the end of its {MEMORY / 1e9:.1f} GB of memory"
    return _shown(so_far.undecided(f"nothing is decided: {ending}"), folder, path)


def _run(path: Path, folder: str, arrays: bool, budget: float) -> tuple[list[dict[str, Any]], str]:
    """What the process said, and how it ended."""
    roots = [str(Path(resnet_cert.__file__).parents[1]), *filter(None, sys.path)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(roots),
        "PYTHONSAFEPATH": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
        "ARROW_DEFAULT_MEMORY_POOL": "system",  # another reserves a gigabyte of addresses at once
    }
    what = "arrays" if arrays else "spec"
    command = [sys.executable, "-m", "resnet_cert.certificate.child"]
    command += [_absolute(path), folder, repr(budget), repr(MEMORY), what]
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    late = False
    try:
        said, _ = child.communicate(timeout=budget + GRACE)
    except subprocess.TimeoutExpired:
        late = True
        child.kill()
        said, _ = child.communicate()
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    lines = []
    for line in said.decode("utf-8", "replace").splitlines(keepends=True):
        if line.endswith("\n"):  # a part of a line is nothing that was said
            lines.append(json.loads(line))
    return lines, f"it takes longer than the budget of {budget:g} s" if late else _ended(child.returncode)


def _absolute(path: Path) -> str:
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        fault = "cannot be found from here: the working directory was deleted"
        raise RequestError([Diagnostic(fault, str(path), id="environment")]) from None


def _ended(code: int) -> str:
    if code < 0:
        return f"the verifier's process was ended by {signal.Signals(-code).name}"
    return f"the verifier's process ended without an answer, with exit code {code}"


def _shown(answer: Verification, folder: str, path: Path) -> Verification:
    """The answer with the names that the user knows: of what is in a bundle, the bundle's."""
    reasons = tuple(_named(reason, folder, path) for reason in answer.reasons)
    spec = answer.spec
    if spec is not None:
        spec = replace(spec, path=_named(spec.path, folder, path))
    return replace(answer, reasons=reasons, spec=spec)


def _named(text: str, folder: str, path: Path) -> str:
    return text.replace(f"{folder}{os.sep}", f"{path}:")


def _diagnostic(place: list[Any], folder: str, path: Path) -> Diagnostic:
    message, file, line, column, identity = place
    shown = None if file is None else _named(file, folder, path)
    return Diagnostic(_named(message, folder, path), shown, line, column, identity)
