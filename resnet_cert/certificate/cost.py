"""What the verifier's steps take, in seconds and bytes, from the sizes alone and before they are begun.

The rates were measured on one core with python-flint 0.9, and then doubled: an estimate is for saying no to
what takes hours, not for planning.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resnet_cert.certificate.constants import MATRIX_WORK
from resnet_cert.certificate.files import Undecided

if TYPE_CHECKING:
    from resnet_cert.certificate.reading import Certificate

MULTIPLICATION = 1e-8
"""Seconds of one multiplication in a product of matrices of balls."""
OPERATION = 4e-7
"""Seconds of one operation on single balls, from Python; and of making one."""
LOSS = 6e-6
"""Seconds of ℓ, ∇ℓ, ∇²ℓ for one output of one sample."""
ENTRY_BYTES = 64
"""Bytes of an entry of a matrix of balls."""
BASE_BYTES = 3 * 10**8
"""Bytes of Python, NumPy and FLINT, and of a block of rows."""


@dataclass(frozen=True)
class Cost:
    """seconds and bytes of memory of a step."""

    seconds: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, max(self.bytes, other.bytes))

    def excess(self, seconds: float, memory: float) -> str | None:
        """Why the step is not begun; None where it fits."""
        if self.seconds > seconds:
            left = f"the {max(seconds, 0.0):.0f} s left of the budget"
            return f"would take about {self.seconds:.0f} s, more than {left}"
        if self.bytes > memory:
            allowed = f"the {memory / 1e9:.1f} GB of memory allowed"
            return f"would take about {self.bytes / 1e9:.1f} GB, more than {allowed}"
        return None


@dataclass(frozen=True)
class Limits:
    """Until when, by `time.monotonic`, and with how many bytes the work has to be done."""

    until: float
    memory: float

    @staticmethod
    def within(seconds: float = 600.0, memory: float = 2.0e9) -> Limits:
        return Limits(time.monotonic() + seconds, memory)

    def excess(self, step: Cost) -> str | None:
        """Why a step would not end in time or not fit."""
        return step.excess(self.until - time.monotonic(), self.memory)

    def require(self, what: str, step: Cost) -> None:
        """Raises Undecided in that case."""
        excess = self.excess(step)
        if excess:
            raise Undecided(f"{what} {excess}")


def data_bytes(certificate: Certificate) -> float:
    """The stored arrays and the copies that NumPy makes of them."""
    return BASE_BYTES + 3 * 8 * certificate.numbers


def first_pass(certificate: Certificate) -> Cost:
    """F, the gradient and ‖A_f‖: one pass over the rows."""
    c, z = certificate, certificate.columns + certificate.k
    seconds = (
        c.n * z * (OPERATION + 2 * c.q * MULTIPLICATION)
        + c.n * c.q * LOSS
        + c.d * c.k * (OPERATION + 2 * c.q * MULTIPLICATION)
        + _definite(min(c.q, c.k)).seconds
    )
    return Cost(seconds, data_bytes(c) + ENTRY_BYTES * (3 * c.q * z + 2 * c.d * c.k))


def domain(certificate: Certificate) -> Cost:
    """‖W‖, ‖V‖ < b, and b as computed."""
    c = certificate
    small = min(c.d, c.k)
    product = c.d * c.k * small + c.q**2 * c.columns
    both = Cost(2 * product * MULTIPLICATION, ENTRY_BYTES * c.d * c.k) + _definite(small)
    return both + _definite(min(c.q, c.columns))


def constants(certificate: Certificate) -> Cost:
    """μ2 by its formulas."""
    c, z = certificate, certificate.columns + certificate.k
    matrix = 3 * c.n * z * z * MULTIPLICATION if c.n * z * z <= MATRIX_WORK else 0.0
    seconds = c.n * (5 * z * OPERATION + 10 * c.q * OPERATION) + matrix
    definite = _definite(z) + _definite(z) if matrix else Cost()
    return Cost(seconds, data_bytes(c) + 600 * c.n) + definite


def exact(certificate: Certificate, tangent: bool) -> Cost:
    """S(t) formed and proven definite; of all of (W, V) where a constraint binds."""
    c, z = certificate, certificate.columns + certificate.k
    pairs = {"squared": 1, "softmax": c.q * (c.q + 1) // 2}.get(c.loss, c.q)
    rank = c.d if tangent else min(c.q, c.d)
    size = c.q * c.columns + rank * c.k
    moments = pairs * (c.n * z * (OPERATION + z * MULTIPLICATION) + 2 * z**3 * MULTIPLICATION)
    blocks = c.q * c.q * (rank * c.columns * c.k + rank * rank * c.k**2) * 6e-8 + size**2 * 2e-6
    memory = data_bytes(c) + ENTRY_BYTES * (2 * pairs * z * z + size**2)
    return Cost(moments + blocks, memory) + _definite(size)


def direction(certificate: Certificate) -> Cost:
    """The Rayleigh quotient of a direction: one more pass."""
    c, z = certificate, certificate.columns + certificate.k
    return Cost(c.n * z * (OPERATION + 2 * c.q * MULTIPLICATION) + c.n * c.q * (LOSS + 6 * OPERATION))


def _definite(size: int) -> Cost:
    """A symmetric matrix proven definite."""
    elimination = min(size, 256) ** 3 * OPERATION / 6
    return Cost(2 * size**3 * MULTIPLICATION + elimination + size**2 * 1e-6, 6 * ENTRY_BYTES * size**2)
