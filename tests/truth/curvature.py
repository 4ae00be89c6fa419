"""Eigenvalues of ∇²F and ∇²L from the oracle's Hessians; on z^⊥ too."""

from __future__ import annotations

from functools import cached_property

import mpmath as mp
import numpy as np
from flint import arb, ctx
from heads import BITS, Head, balls
from oracle_algebra import Matrix, complement, dot, matrix_product, norm, smallest_eigenvalue

from resnet_cert import Problem

DIGITS = 60


def number(x: arb) -> mp.mpf:
    """The midpoint of a ball."""
    mantissa, exponent = x.mid().man_exp()
    return mp.mpf(int(mantissa)) * mp.mpf(2) ** int(exponent)


class Exact:
    """∇L and ∇²L of a head's point, with the multiplier of ‖z‖ ≤ ‖z‖ if it is constrained."""

    def __init__(self, head: Head, *, constrained: bool = False) -> None:
        with ctx.workprec(BITS), mp.workdps(DIGITS):
            self.hessian, decayed = head.truth.hessian, balls(head.decayed)
            self.z = [on * v for on, v in zip(decayed, head.truth.parameters, strict=True)]
            rho, self.tangent, self.multiplier = 2 * arb(head.l2), False, None
            if constrained and any(v != 0 for v in self.z):
                multiplier = -dot(head.truth.gradient, self.z) / dot(self.z, self.z) - rho
                self.multiplier = number(multiplier)
                if self.multiplier > 0:
                    rho, self.tangent = rho + multiplier, True
            gradient = [g + rho * v for g, v in zip(head.truth.gradient, self.z, strict=True)]
            H = [list(row) for row in self.hessian]
            for i, on in enumerate(decayed):
                H[i][i] += rho * on
            self.norm = number(norm(gradient))
            self.size = float(norm([entry for row in H for entry in row]).mid()) or 1.0
            self.lambda_min = number(smallest_eigenvalue(_across(H, self.z) if self.tangent else H))

    @cached_property
    def lambda_min_of_F(self) -> mp.mpf:
        """Of ∇²F."""
        with ctx.workprec(BITS), mp.workdps(DIGITS):
            return number(smallest_eigenvalue(self.hessian))

    def holds(self, lower: float, upper: float, lambda_min: mp.mpf | None = None) -> bool:
        """λ_min lies between them, to the oracle's last digits; or that of another matrix of this size."""
        with mp.workdps(DIGITS):
            slack = mp.mpf(10) ** -35 * max(1.0, self.size)
            true = self.lambda_min if lambda_min is None else lambda_min
            return bool(lower - slack <= true <= upper + slack)


def _across(H: Matrix, z: list[arb]) -> Matrix:
    """H on z^⊥."""
    basis = complement(z)
    columns = list(zip(*basis, strict=True))
    return matrix_product(columns, matrix_product(H, columns))


def constrained(head: Head, **options: float) -> Problem:
    """The head's problem on the ball whose boundary it is on."""
    point = np.concatenate([head.head.ravel(), head.V.ravel()]) * head.decayed
    return head.problem(norm=float(np.linalg.norm(point)), **options)
