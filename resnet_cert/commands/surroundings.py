"""What the process finds around it: settings under which the work cannot be done are the user's to change,
and so they are told."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

from resnet_cert.outcomes import Diagnostic, RequestError

HARMLESS = ("--xla_force_host_platform_device_count", "--xla_cpu_multi_thread_eigen")
"""Flags of XLA that are not tried out first: that costs a second."""
SECONDS = 60
WATCHED = ("JAX_", "XLA_", "MPL", "OPENBLAS_", "OMP_", "PYTHONWARNINGS")


def prepare() -> None:
    """Set what must be set before numpy, jax and matplotlib are loaded.

    Two BLAS threads make small matrices slower, many times so on a busy machine; looking for an accelerator
    costs seconds that a check in float64 never wins back; a backend of matplotlib's for a screen or notebook
    is not wanted where files are drawn.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ["MPLBACKEND"] = "agg"
    _require_flags()


def _require_flags() -> None:
    """XLA ends the process at a flag that it does not know: find out in another one."""
    flags = os.environ.get("XLA_FLAGS", "")
    if all(flag.partition("=")[0] in HARMLESS for flag in flags.split()):
        return
    trial = "import jax; jax.jit(lambda x: x + 1)(1)"
    try:
        done = subprocess.run([sys.executable, "-c", trial], capture_output=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return
    said = done.stderr.decode(errors="replace")
    if done.returncode and "XLA_FLAGS" in said:
        last = next((line for line in said.splitlines() if "XLA_FLAGS" in line), "")
        reason = last.partition("] ")[2] or last
        fault = f"XLA does not take XLA_FLAGS={shlex.quote(flags)}: {reason.strip()}; unset it"
        raise RequestError([Diagnostic(fault, id="environment")])


def fault(error: BaseException) -> RequestError | None:
    """What an exception says of the surroundings, if it comes from there: no memory, no device, no JAX."""
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return RequestError(f"not enough memory {_formed(error)}", id="too-large")
    if isinstance(error, OSError) and error.errno is not None and error.filename is None and _is_full(error):
        return RequestError(f"cannot write: {error.strerror}", id="output-place")
    reason = _jax_fault()
    if reason is not None:
        given = ", ".join(f"{name}={value}" for name, value in os.environ.items() if name.startswith(WATCHED))
        return RequestError(f"JAX does not start: {reason} (with {given})", id="environment")
    return None


def _is_full(error: OSError) -> bool:
    import errno

    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _formed(error: BaseException) -> str:
    """What was being formed, and how large it is, as far as that is known."""
    frames = []
    at = error.__traceback__
    while at is not None:
        frames.append(at.tb_frame)
        at = at.tb_next
    ours = [frame for frame in frames if frame.f_globals.get("__name__", "").startswith("resnet_cert.")]
    where = ""
    if ours:
        code = ours[-1].f_code
        where = f"in {ours[-1].f_globals['__name__'].removeprefix('resnet_cert.')}.{code.co_name}"
        sizes = [
            f"{name} {tuple(value.shape)}"
            for name, value in ours[-1].f_locals.items()
            if hasattr(value, "shape") and getattr(value, "shape", ())
        ]
        where += f", with {', '.join(sizes)}" if sizes else ""
    words = " ".join(str(error).split())[:200]
    return f"{where}: {words}" if words else where


def _jax_fault() -> str | None:
    """Why JAX does not start here; None if it does, or was not asked to."""
    if "jax" not in sys.modules:
        return None
    try:
        import jax

        jax.devices()
    except Exception as error:
        return " ".join(str(error).split())[:200] or type(error).__name__
    return None
