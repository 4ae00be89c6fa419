"""The span of a loss's gradients, as orthonormal coordinates: where it is not all of R^q, W counts through
them.

For softmax 1ᵀ∇ℓ = 0, so that g_W, A_f and every gradient live on 1^⊥ ⊂ R^q, and F depends on NᵀW alone.
"""

from __future__ import annotations

import math

import numpy as np

from resnet_cert.numerics.enclosure import Ball
from resnet_cert.numerics.radius import Radius, U
from resnet_cert.problem.problem import Problem


def gradient_basis(problem: Problem) -> Ball | None:
    """N (q, q'), orthonormal columns whose span holds ∇ℓ for every prediction; None for all of R^q."""
    return sum_free_basis(problem.q) if problem.loss.sum_free and problem.q > 1 else None


def span(problem: Problem) -> int:
    """q', the dimension of the span of the loss's gradients: q, or q − 1 where they sum to 0."""
    return problem.q - (problem.loss.sum_free and problem.q > 1)


def sum_free_basis(q: int) -> Ball:
    """Helmert's basis (q, q − 1) of 1^⊥: column j is (1, …, 1, −j, 0, …)/√(j(j + 1)), j = 1, …, q − 1.

    Every entry is one root and one quotient, each rounded once: within 2u of itself, and ‖N‖_F = √(q − 1).
    """
    N = np.zeros((q, q - 1))
    for j in range(1, q):
        root = math.sqrt(j * (j + 1.0))
        N[:j, j - 1] = 1.0 / root
        N[j, j - 1] = -j / root
    return Ball(N, Radius.norm(N) * (3 * U))
