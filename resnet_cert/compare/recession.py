"""Is inf F_lin over all W attained?

It is not iff along some U no loss ever grows, and some falls: v·Ux_i ≥ 0 for all helping rays v of all
samples (`losses.Recession`), = 0 for the fixed ones, and not all 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from resnet_cert.numerics.radius import Array, Radius, gamma
from resnet_cert.problem.losses import BuiltinLoss
from resnet_cert.problem.problem import Problem


@dataclass(frozen=True)
class Recedes:
    """possible: the loss of some sample has a helping ray.  known: the rays of the loss are known at all."""

    problem: Problem
    possible: bool
    known: bool

    def decided(self, W: Array) -> bool | None:
        """Attained, proven either way, where Newton's method ended at W; None where it is not proven."""
        if not self.known:
            return None
        return False if separates(self.problem, W) else None


def recedes(problem: Problem) -> Recedes:
    loss = problem.loss
    if not isinstance(loss, BuiltinLoss):
        return Recedes(problem, possible=True, known=False)
    for chunk in problem.chunks(features=False):
        rays = loss.recession(chunk.y)
        if rays is not None and len(rays.helping.sample):
            return Recedes(problem, possible=True, known=True)
    return Recedes(problem, possible=False, known=True)


def separates(problem: Problem, W: Array) -> bool:
    """Proven: v·Wx_i > 0 for all helping rays of a loss that has some, and there are no fixed ones."""
    size = Radius.norm(W) * gamma(sum(W.shape) + 4)
    for chunk in problem.chunks(features=False):
        rays = problem.loss.recession(chunk.y)
        if rays is None or len(rays.fixed.sample):
            return False
        helping = rays.helping
        margins = np.einsum("ij,ij->i", helping.vector, (chunk.x @ W.T)[helping.sample])
        least = size * Radius.row_norms(chunk.x)[helping.sample] * Radius.row_norms(helping.vector)
        if not bool(np.all(margins > least.upper)):
            return False
    return True
