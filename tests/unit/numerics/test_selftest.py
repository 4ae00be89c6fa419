"""Where float64 arithmetic is not what the proofs assume, a check ends in an internal error."""

from __future__ import annotations

import ctypes
import math
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest

from resnet_cert import check, load_problem
from resnet_cert.numerics import libm
from resnet_cert.numerics.eigenvalues import is_positive_definite
from resnet_cert.numerics.selftest import require_sound_arithmetic, thorough_fault
from resnet_cert.outcomes import InternalError
from resnet_cert.problem.custom_loss import CustomLoss

ON_GLIBC_X86 = sys.platform == "linux" and platform.machine() == "x86_64"
needs_glibc_x86 = pytest.mark.skipif(not ON_GLIBC_X86, reason="the fault is made through glibc on x86-64")

ROUNDING = {"down": 0x400, "up": 0x800, "towards zero": 0xC00}
CORRECTLY_ROUNDED = {
    "multiply",
    "divide",
    "sqrt",
    "abs",
    "sign",
    "maximum",
    "minimum",
    "nextafter",
    "spacing",
}
CORRECTLY_ROUNDED |= {"logical_or", "logical_and", "isnan", "isfinite", "isinf"}
MXCSR_BITS = {"flush to zero": 0x8000, "denormals are zero": 0x40, "both": 0x8040}

SABOTAGED_CHECK = """
import ctypes, sys
from resnet_cert.cli import cli
import resnet_cert.check, numpy
libm = ctypes.CDLL("libm.so.6")
environment = (ctypes.c_uint8 * 32)()
libm.fegetenv(environment)
bits = int.from_bytes(bytes(environment[28:32]), "little") | {bits}
environment[28:32] = list(bits.to_bytes(4, "little"))
libm.fesetenv(environment)
cli(["check", "configs/example-1.yaml"])
"""


@contextmanager
def rounding_mode(mode: int) -> Iterator[None]:
    libm = ctypes.CDLL("libm.so.6")
    libm.fesetround(mode)
    try:
        yield
    finally:
        libm.fesetround(0)


@contextmanager
def mxcsr(bits: int) -> Iterator[None]:
    """Set bits of the SSE control register as a library built with -ffast-math does when it is loaded."""
    libm = ctypes.CDLL("libm.so.6")
    environment = (ctypes.c_uint8 * 32)()
    libm.fegetenv(environment)
    before = bytes(environment)
    changed = int.from_bytes(before[28:32], "little") | bits
    libm.fesetenv((ctypes.c_uint8 * 32)(*before[:28], *changed.to_bytes(4, "little")))
    try:
        yield
    finally:
        libm.fesetenv((ctypes.c_uint8 * 32)(*before))


def test_this_environment_is_sound():
    require_sound_arithmetic()
    assert thorough_fault() is None


def less_accurate(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A function off by 16 to 32 units in the last place."""
    home = math if name.startswith("erf") else np
    honest = getattr(home, name)
    monkeypatch.setattr(home, name, lambda *x: honest(*x) * (1.0 + 2.0**-48))


@pytest.mark.parametrize("name", libm.of_losses())
def test_a_function_of_the_losses_that_is_less_accurate_than_assumed_is_noticed(monkeypatch, name: str):
    less_accurate(monkeypatch, name)
    fault = libm.fault(libm.of_losses())
    assert fault is not None
    assert fault.startswith(f"{name}(")


@pytest.mark.parametrize("name", libm.of_intervals())
def test_a_function_of_the_intervals_that_is_less_accurate_than_assumed_is_noticed(monkeypatch, name: str):
    less_accurate(monkeypatch, name)
    fault = libm.fault(libm.of_intervals(libm.COARSE))
    assert fault is not None
    assert fault.startswith(f"{name}(")


@pytest.mark.parametrize("name", ["exp", "erfc"])
def test_the_thorough_test_looks_at_every_function(monkeypatch, name: str):
    less_accurate(monkeypatch, name)
    assert str(thorough_fault()).startswith(f"{name}(")


def test_every_function_that_the_interval_rules_call_is_looked_at():
    """Read from the source: the functions of NumPy that are not exact, nor rounded correctly by IEEE 754."""
    looked_at = libm.of_losses().keys() | libm.of_intervals().keys()
    folder = Path(libm.__file__).parent
    for module in ("intervals", "jaxpr", "forms"):
        source = (folder / f"{module}.py").read_text("utf-8")
        called = {
            name for name in re.findall(r"\bnp\.(\w+)", source) if isinstance(getattr(np, name), np.ufunc)
        }
        assert called - looked_at <= CORRECTLY_ROUNDED
        assert set(re.findall(r"\bmath\.(\w+)", source)) <= looked_at | {"inf", "nan", "copysign", "frexp"}


def test_bounds_of_a_loss_in_code_wait_for_accurate_functions(monkeypatch):
    less_accurate(monkeypatch, "tanh")
    libm.require_accurate_functions.cache_clear()
    loss = CustomLoss(lambda p, y: 0.5 * (p - y) ** 2, "of code")
    with pytest.raises(InternalError, match=r"tanh\(.* is off by more than 8 units in the last place"):
        loss.why_unknown()
    monkeypatch.undo()
    assert loss.why_unknown() is None


@needs_glibc_x86
@pytest.mark.parametrize("mode", ROUNDING.values(), ids=ROUNDING)
def test_a_changed_rounding_mode_is_noticed(mode: int):
    with rounding_mode(mode), pytest.raises(InternalError, match="rounding is not to nearest"):
        require_sound_arithmetic()


@needs_glibc_x86
@pytest.mark.parametrize("bits", MXCSR_BITS.values(), ids=MXCSR_BITS)
def test_flushed_subnormals_are_noticed(bits: int):
    with mxcsr(bits), pytest.raises(InternalError, match="subnormal numbers are flushed"):
        require_sound_arithmetic()


@needs_glibc_x86
@pytest.mark.parametrize("spoiled", [rounding_mode(0x800), mxcsr(0x8040)], ids=["rounding", "subnormals"])
def test_a_check_in_a_spoiled_environment_gives_no_report(spoiled: AbstractContextManager[None]):
    problem = load_problem(Path(__file__).parents[3] / "configs/example-1.yaml")
    with spoiled, pytest.raises(InternalError, match="cannot be trusted"):
        check(problem)


@needs_glibc_x86
def test_a_check_in_a_spoiled_process_exits_with_70():
    root = Path(__file__).parents[3]
    program = SABOTAGED_CHECK.format(bits=MXCSR_BITS["both"])
    ended = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert ended.returncode == 70
    assert ended.stdout == ""
    assert "cannot be trusted" in ended.stderr


@pytest.mark.parametrize("flags", ["--xla_cpu_enable_fast_math=true", "--a=1 --xla_cpu_enable_fast_math --b"])
def test_fast_math_flags_are_refused(monkeypatch: pytest.MonkeyPatch, flags: str):
    monkeypatch.setenv("XLA_FLAGS", flags)
    with pytest.raises(InternalError, match="fast_math"):
        require_sound_arithmetic()


@pytest.mark.parametrize("text", ["--xla_cpu_enable_fast_math=true", "--a=1\n--xla_cpu_enable_fast_math\n"])
def test_fast_math_in_a_file_of_flags_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str):
    (tmp_path / "flags").write_text(text)
    monkeypatch.setenv("XLA_FLAGS", str(tmp_path / "flags"))
    with pytest.raises(InternalError, match="flags of XLA_FLAGS has --xla_cpu_enable_fast_math: take it out"):
        require_sound_arithmetic()


def test_other_flags_in_a_file_are_allowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "flags").write_text("--xla_cpu_enable_fast_math=false --xla_cpu_multi_thread_eigen=true")
    for name in ("flags", "missing"):
        monkeypatch.setenv("XLA_FLAGS", str(tmp_path / name))
        require_sound_arithmetic()


def test_fast_math_switched_off_is_allowed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    require_sound_arithmetic()


def test_a_cholesky_that_never_fails_is_noticed(monkeypatch: pytest.MonkeyPatch):
    honest = np.linalg.cholesky

    def lying(S: np.ndarray) -> np.ndarray:
        try:
            return honest(S)
        except np.linalg.LinAlgError:
            return np.eye(len(S))

    monkeypatch.setattr(np.linalg, "cholesky", lying)
    with pytest.raises(InternalError, match="indefinite"):
        require_sound_arithmetic()
    with pytest.raises(InternalError, match="Cholesky factor"):
        is_positive_definite(np.diag([1.0, 1.0]) + np.array([[0.0, 2.0], [2.0, 0.0]]))


@pytest.mark.parametrize("entry", [(0, 0), (3, 1), (4, 4)])
def test_a_factor_with_one_wrong_entry_is_noticed(monkeypatch: pytest.MonkeyPatch, entry: tuple[int, int]):
    honest = np.linalg.cholesky

    def faulty(S: np.ndarray) -> np.ndarray:
        R = honest(S)
        R[entry] += 1e-6
        return R

    monkeypatch.setattr(np.linalg, "cholesky", faulty)
    with pytest.raises(InternalError, match="Cholesky factor"):
        is_positive_definite(np.eye(5) * 2.0 + 0.3)
