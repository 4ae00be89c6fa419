"""Is float64 arithmetic here what the proofs assume?  Known answers, compared bit by bit, in milliseconds.

The bounds need IEEE 754 with gradual underflow, rounded to nearest, in NumPy and inside its BLAS, and a
dpotrf that fails where it must.  A library built with -ffast-math can switch subnormals off for a whole
process when it is loaded, and a rounding mode outlives the code that set it; so this runs before and after
every check.
"""

from __future__ import annotations

import contextlib
import math
import operator
import os
import re
import threading
from functools import cache
from pathlib import Path

import numpy as np

from resnet_cert.numerics import libm
from resnet_cert.numerics.radius import Array, gamma
from resnet_cert.outcomes import InternalError

SIZE = 96
"""Rows of the known-answer products: large enough for the blocked kernels of a BLAS."""


def require_sound_arithmetic() -> None:
    """Raises InternalError, with what is wrong, where float64 arithmetic is not what the proofs assume."""
    for fault in (_xla_flags(), _scalars(), _products(), _factorisations(), _dot_products()):
        if fault:
            raise InternalError(f"float64 arithmetic cannot be trusted here: {fault}")


def thorough_fault() -> str | None:
    """What is wrong, with what takes longer to see: after XLA has run, on other threads, in a product that
    many threads share, and in the elementary functions of losses and of intervals.  None: nothing."""
    on_thread: list[str | None] = []
    thread = threading.Thread(target=lambda: on_thread.extend((_scalars(), _products())))
    _run_xla()
    thread.start()
    thread.join()
    faults = [*on_thread, _xla_flags(), _scalars(), _products(), _shared_product(), _factorisations()]
    functions = libm.fault(libm.of_losses()), libm.fault(libm.of_intervals())
    return next(filter(None, [*faults, _dot_products(), *functions]), None)


def _run_xla() -> None:
    """XLA sets its own threads to flush subnormal numbers; it must not do so to others."""
    from resnet_cert.numerics.jax64 import float64_scope, jax, jnp

    with float64_scope():
        jax.jit(lambda A: jnp.tanh(A @ A.T).sum())(np.eye(SIZE)).block_until_ready()


def _shared_product() -> str | None:
    """2^-1065 everywhere, from a product large enough for all threads of a BLAS."""
    size = 8 * SIZE
    product = (np.eye(size) * 2.0**-540) @ np.full((size, size), 2.0**-525)
    if not _same_bits(product, np.broadcast_to(_subnormal(-1065), (size, size))):
        return "a matrix product on several threads flushes subnormal numbers to zero"
    return None


def xla_keeps_subnormals() -> bool:
    """Whether half of the smallest normal number is a number in a compiled program of XLA's."""
    from resnet_cert.numerics.jax64 import float64_scope, jax

    with float64_scope():
        halved = np.asarray(jax.jit(lambda x: 0.5 * x)(np.array([2.0**-1022])))
    return _same_bits(halved, _subnormal(-1023))


def _xla_flags() -> str | None:
    """XLA computes features and the cross-check; with fast-math it may also change the whole process."""
    flags, source = os.environ.get("XLA_FLAGS", "").strip(), "XLA_FLAGS"
    if flags and not flags.startswith("-"):  # then XLA takes it for the name of a file of flags
        source = f"the file {flags} of XLA_FLAGS"
        with contextlib.suppress(OSError):  # XLA has none from a file that cannot be read
            flags = Path(flags).read_text(encoding="utf-8", errors="replace")
    for flag, value in re.findall(r"--(xla\S*fast_math\S*?)(?:=(\S+))?(?:\s|$)", flags):
        if value.lower() not in ("false", "0"):
            return f"{source} has --{flag}: take it out"
    return None


def _same_bits(x: Array, y: Array) -> bool:
    """Under "denormals are zero" a comparison of numbers would call a subnormal equal to 0."""
    return np.array_equal(np.ascontiguousarray(x).view(np.uint64), np.ascontiguousarray(y).view(np.uint64))


def _subnormal(exponent: int) -> Array:
    """2^exponent, −1074 ≤ exponent < −1022, from its bits: nothing else makes one where they are flushed."""
    return np.array([1 << (exponent + 1074)], dtype=np.uint64).view(np.float64)


def _scalars() -> str | None:
    halved = np.concatenate([_subnormal(-1060), np.array([2.0**-1022])]) * np.array([0.5, 0.5])
    if not _same_bits(halved, np.concatenate([_subnormal(-1061), _subnormal(-1023)])):
        return "subnormal numbers are flushed to zero"
    one, tie, more = np.array([1.0, -1.0]), 2.0**-53, 2.0**-53 + 2.0**-60
    sums = np.concatenate([one + one * tie, one + one * more])
    if not _same_bits(sums, np.array([1.0, -1.0, 1.0 + 2.0**-52, -1.0 - 2.0**-52])):
        return "rounding is not to nearest"
    if not _same_bits(np.array([1.0]) / np.array([3.0]), np.array([float.fromhex("0x1.5555555555555p-2")])):
        return "division is not correctly rounded"
    if not _same_bits(np.sqrt(np.array([2.0])), np.array([float.fromhex("0x1.6a09e667f3bcdp+0")])):
        return "the square root is not correctly rounded"
    return None


@cache
def _integers() -> Array:
    """Small integers without a pattern that a transposed or shifted product could share."""
    i, j = np.indices((SIZE, SIZE))
    return ((7 * i + 11 * j + 3 * i * j) % 17 - 8).astype(np.float64)


@cache
def _exact_products() -> tuple[Array, Array]:
    """AᵀB and AᵀA for A = `_integers`, B = A upside down, in integers: what they must be, found once."""
    A = _integers().astype(np.int64)
    return (A.T @ A[::-1]).astype(np.float64), (A.T @ A).astype(np.float64)


@cache
def _upside_down() -> Array:
    return _integers()[::-1].copy()


@cache
def _factor() -> Array:
    """A lower triangle of integers with powers of two on its diagonal."""
    return np.tril(_integers() % 3.0, -1) + np.diag(2.0 ** (np.arange(SIZE) % 3))


def _products() -> str | None:
    A, B = _integers(), _upside_down()
    exact = _exact_products()
    if not (np.array_equal(A.T @ B, exact[0]) and np.array_equal(A.T @ A, exact[1])):
        return "a matrix product of integers is wrong"
    small = np.eye(SIZE) * 2.0**-540
    diagonal = np.diagonal(small @ (np.eye(SIZE) * 2.0**-525)).copy()
    if not _same_bits(diagonal, np.repeat(_subnormal(-1065), SIZE)):
        return "a matrix product flushes subnormal numbers to zero"
    # 1 + 2^-53 is 1, rounded to nearest.
    ones, ties = np.ones((SIZE, 1)), np.full((1, SIZE), 2.0**-53)
    sums = np.hstack([ones, ones * 2.0**-53]) @ np.vstack([np.ones((1, SIZE)), ones.T * 1.0])
    if not _same_bits(sums, np.ones((SIZE, SIZE))) or not _same_bits(
        ones @ ties, np.full((SIZE, SIZE), 2.0**-53)
    ):
        return "a matrix product does not round to nearest"
    return None


def _factorisations() -> str | None:
    """L Lᵀ for such an L: every step of the factorisation is exact."""
    L = _factor()
    indefinite = L @ L.T
    if not np.array_equal(np.linalg.cholesky(indefinite), L):
        return "a Cholesky factor of integers is wrong"
    indefinite[-1, -1] -= L[-1, -1] ** 2 + 1.0
    try:
        np.linalg.cholesky(indefinite)
    except np.linalg.LinAlgError:
        return None
    return "the Cholesky factorisation of an indefinite matrix succeeds"


@cache
def _sines() -> Array:
    """Full-precision numbers, (512, 4)."""
    return np.sin(np.arange(1.0, 2049.0)).reshape(512, 4)


@cache
def _exact_dot_products() -> Array:
    """AᵀA for A = `_sines`, in integers: exact before the division, whatever the rounding mode."""
    unit = 2**80  # of which every entry is a multiple of 1/unit: |sin| > 2^-27 up to 2048
    columns = [[int(math.ldexp(entry, 80)) for entry in column] for column in _sines().T.tolist()]
    return np.array([[sum(map(operator.mul, a, b)) / unit**2 for b in columns] for a in columns])


def _dot_products() -> str | None:
    """16 entries of a product of full-precision matrices against exactly rounded sums."""
    A = _sines()
    product = A.T @ A
    size = np.sqrt(np.outer(np.diagonal(product), np.diagonal(product)))
    if not (np.abs(product - _exact_dot_products()) <= gamma(513) * size).all():
        return "a dot product differs from the exact one"
    return None
