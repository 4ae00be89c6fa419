"""What the process finds around it: settings under which the work cannot be done are the user's to change,
and so they are told."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

from resnet_cert.numerics.threads import have_threads
from resnet_cert.outcomes import Diagnostic, RequestError

HARMLESS = ("--xla_force_host_platform_device_count", "--xla_cpu_multi_thread_eigen")
"""Flags of XLA that are not tried out first: that costs a second."""
SECONDS = 60
WATCHED = ("JAX_", "XLA_", "CUDA_")


def prepare() -> None:
    """Set what must be set before numpy, jax and matplotlib are loaded.

    Two BLAS threads make small matrices slower, many times so on a busy machine, so they are left to pieces
    of large data, unless the user has named a number; looking for an accelerator costs seconds that a check
    in float64 never wins back; a backend of matplotlib's for a screen or notebook is not wanted where files
    are drawn.
    """
    if not {"OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"} & os.environ.keys():
        ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        have_threads(len(ours))
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ["MPLBACKEND"] = "agg"
    _keep_compilations()


def look_for_devices() -> None:
    """Have JAX look for accelerators after all, before it is loaded: who asks for one by an option means it,
    whatever JAX_PLATFORMS says.  All that runs elsewhere is what is put there (`problem.devices`)."""
    os.environ.pop("JAX_PLATFORMS", None)


def _keep_compilations() -> None:
    """What JAX compiles is kept for the next process, in the user's cache directory, by machine.

    JAX's own settings go first: JAX_COMPILATION_CACHE_DIR names another place, and
    JAX_ENABLE_COMPILATION_CACHE=false keeps nothing.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    home = Path(os.path.expanduser("~"))
    if sys.platform == "darwin":
        caches = home / "Library" / "Caches"
    elif sys.platform == "win32":
        caches = Path(os.environ.get("LOCALAPPDATA", home))
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    place = caches / "resnet-cert" / f"jax-{platform.machine()}-{platform.node()}"
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:  # no place to keep anything: then everything is compiled anew
        return
    if not os.access(place, os.W_OK):
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(place)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def require_flags() -> None:
    """XLA ends the process at a flag that it does not know: find out in another one.

    Raises:
        RequestError: XLA does not take its flags.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if all(flag.partition("=")[0] in HARMLESS for flag in flags.split()):
        return
    trial = "import jax.numpy as jnp; (jnp.ones(2) + 1.0).block_until_ready()"
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
        given = [
            f"{name}={value}"
            for name, value in os.environ.items()
            if name.startswith(WATCHED) and "_CACHE_" not in name
        ]
        told = f"JAX does not start with {', '.join(given)}: {reason}"
        return RequestError(
            f"{told}; JAX_PLATFORMS=cpu is enough" if "PLATFORMS" in told else told, id="environment"
        )
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
    """Why JAX does not start here; None if it does."""
    try:
        import jax

        jax.devices()
    except Exception as error:  # whatever JAX raises: it is looked at because something else failed
        return " ".join(str(error).split())[:200] or "no such device is here"
    return None
