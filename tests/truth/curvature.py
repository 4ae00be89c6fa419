"""Eigenvalues of ∇²F and ∇²L at 60 digits, from the oracle's Hessians; on z^⊥ too."""

from __future__ import annotations

import mpmath as mp
import numpy as np
from heads import Head, HeadTruth

from resnet_cert import Problem

DIGITS = 60


def number(x: object) -> mp.mpf:
    """The midpoint of a ball."""
    return mp.mpf(x.mid().str(DIGITS, radius=False))  # type: ignore[attr-defined]


class Exact:
    """∇L and ∇²L of a head's point, with the multiplier of ‖z‖ ≤ ‖z‖ if it is constrained."""

    def __init__(self, head: Head, *, constrained: bool = False) -> None:
        with mp.workdps(DIGITS):
            truth = HeadTruth(head)
            self.decayed = [float(on) for on in head.decayed]
            point = np.concatenate([head.head.ravel(), head.V.ravel()])
            self.z = mp.matrix([mp.mpf(float(v)) * on for v, on in zip(point, self.decayed, strict=True)])
            self.rho, self.tangent = 2 * mp.mpf(head.l2), False
            gradient = mp.matrix([number(g) for g in truth.gradient])
            size = sum(v * v for v in self.z)
            self.multiplier: mp.mpf | None = None
            if constrained and size:
                self.multiplier = -sum(g * v for g, v in zip(gradient, self.z, strict=True)) / size - self.rho
                if self.multiplier > 0:
                    self.rho, self.tangent = self.rho + self.multiplier, True
            self.norm = mp.norm(gradient + self.rho * self.z)
            self.hessian = mp.matrix([[number(entry) for entry in row] for row in truth.hessian])
            H = self.hessian.copy()
            for i, on in enumerate(self.decayed):
                H[i, i] += self.rho * mp.mpf(on)
            self.size = float(mp.mnorm(H, "f")) or 1.0
            self.lambda_min = smallest_eigenvalue(H, self.z if self.tangent else None)

    def holds(self, lower: float, upper: float) -> bool:
        """λ_min lies between them, to the oracle's last digits."""
        with mp.workdps(DIGITS):
            slack = mp.mpf(10) ** -35 * max(1.0, self.size)
            return bool(lower - slack <= self.lambda_min <= upper + slack)


def smallest_eigenvalue(H: mp.matrix, z: mp.matrix | None = None) -> mp.mpf:
    """Of a symmetric matrix, on z^⊥ if there is a z: the reflection that takes z to a coordinate."""
    with mp.workdps(DIGITS):
        if z is not None:
            v = z / mp.norm(z)
            v[0] += 1 if v[0] >= 0 else -1
            R = mp.eye(len(v)) - (2 / sum(c * c for c in v)) * v * v.T
            H = (R * H * R)[1:, 1:]
        return min(mp.eigsy(H, eigvals_only=True))


def constrained(head: Head, **options: float) -> Problem:
    """The head's problem on the ball whose boundary it is on."""
    point = np.concatenate([head.head.ravel(), head.V.ravel()]) * head.decayed
    return head.problem(norm=float(np.linalg.norm(point)), **options)
