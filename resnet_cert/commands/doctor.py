"""The command `doctor`."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata

import click

from resnet_cert import __version__
from resnet_cert.commands.common import quiet_option, write
from resnet_cert.commands.program import Strict
from resnet_cert.outcomes import InternalError

NEEDED = ("numpy", "scipy", "jax", "jaxlib", "click", "rich", "pyyaml", "pydantic", "threadpoolctl")
EXTRAS = {
    "verify": ("python-flint",),
    "plot": ("matplotlib",),
    "junit": ("junitparser",),
    "safetensors": ("safetensors",),
    "torch": ("torch",),
    "flax": ("flax",),
    "equinox": ("equinox",),
    "keras": ("keras",),
    "onnx": ("onnx", "onnxruntime"),
}
"""What each extra brings, by the names of the packages."""
SETTINGS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "JAX_", "XLA_", "RESNET_CERT_")
WIDTH = 14


@click.command(cls=Strict)
@quiet_option
def doctor(quiet: bool) -> int:
    """Versions, devices, threads, the float environment, a self-test: what a bug report needs.

    With -q the self-test alone.
    """
    for name, value in () if quiet else _surroundings():
        write(f"{name:<{WIDTH}}{value}\n", None)
    fault = _self_test()
    write(f"{'self-test':<{WIDTH}}{'passed' if fault is None else f'FAILED: {fault}'}\n", None)
    return 0 if fault is None else InternalError.exit_code


def _surroundings() -> Iterator[tuple[str, str]]:
    yield "resnet-cert", __version__
    yield "python", f"{platform.python_version()} ({platform.python_implementation()}) at {sys.executable}"
    yield "platform", platform.platform()
    yield "processor", f"{platform.machine()}, {_cores()} of {os.cpu_count()} cores"
    yield "packages", ", ".join(f"{name} {_version(name) or 'missing'}" for name in NEEDED)
    for extra, packages in EXTRAS.items():
        found = [f"{name} {version}" for name in packages if (version := _version(name))]
        missing = "not installed: pip install 'resnet-cert[" + extra + "]'"
        yield f"[{extra}]", ", ".join(found) if len(found) == len(packages) else missing
    yield "devices", _devices()
    yield "XLA", _xla()
    yield "threads", _threads()
    settings = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(SETTINGS)]
    yield "environment", ", ".join(settings) or "nothing set"
    stream = sys.stdout.encoding or "unknown"
    yield "terminal", f"{stream}, {'a terminal' if sys.stdout.isatty() else 'not a terminal'}"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> str:
    try:
        import jax

        return ", ".join(map(str, jax.devices()))
    except Exception as error:  # whatever it is, it is what the report is for
        return f"JAX does not start: {' '.join(str(error).split())}"


def _xla() -> str:
    """How XLA computes: what is proven does not rest on it, but features come out otherwise."""
    from resnet_cert.numerics.selftest import xla_keeps_subnormals

    try:
        kept = xla_keeps_subnormals()
    except Exception:  # as `_devices` says
        return "not known"
    if kept:
        return "keeps subnormal numbers"
    return "flushes subnormal numbers to zero, in features and cross-checks; nothing proven rests on it"


def _threads() -> str:
    import numpy  # noqa: F401  loads its BLAS
    import scipy.linalg  # noqa: F401  and SciPy's
    from threadpoolctl import threadpool_info

    found = [f"{pool['internal_api']} {pool['version']} {pool['num_threads']}" for pool in threadpool_info()]
    return ", ".join(found) or "no BLAS found"


def _self_test() -> str | None:
    """What is wrong, in the arithmetic or in a check whose exact numbers are known."""
    from resnet_cert.check import check
    from resnet_cert.numerics.selftest import require_sound_arithmetic, thorough_fault
    from resnet_cert.problem.problem import Problem

    try:
        require_sound_arithmetic()
        fault = thorough_fault()
        if fault is not None:
            return fault
        # Example 1 of Shamir 2018: at w = 0 and 1 + V/8 = 0, F = 1/2 and λ_min = −1/8.
        report = check(
            Problem.from_arrays(x=[[1.0]], y=[1.0], f=[[0.125]], w=[0.0], V=[[-8.0]], epsilon=0.1, mu2=1.0)
        )
    except Exception as error:  # whatever it is, it is what the report is for
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    known = {"F": (report.objective.F, 0.5), "λ_min": (report.hessian.lambda_min, -0.125)}
    for name, (found, exact) in known.items():
        if not (found.lower <= exact <= found.upper and found.upper - found.lower < 1e-9):
            return f"{name} = {exact} is not in [{found.lower}, {found.upper}]"
    return None
