"""The span of the gradients of a loss: all of R^q, or for a loss with 1ᵀ∇ℓ = 0 (softmax) the sums 0, 1^⊥.

N (q, q') has orthonormal columns that span it.  As ∇ℓ = NNᵀ∇ℓ, what theorems ask of W_1, full row rank, its
least singular value, a kernel, is asked of NᵀW_1 (q', d1), and q' counts the outputs.  It is the usual case
that they differ: weight decay draws 1ᵀW to 0, so that W_1 has rank q − 1 to rounding.
"""

from __future__ import annotations

import numpy as np

from resnet_cert.numerics.enclosure import Ball, product
from resnet_cert.numerics.radius import Array, Radius, U
from resnet_cert.problem.losses import Loss


def q_effective(loss: Loss, q: int) -> int:
    """q', the dimension of the span."""
    return q - 1 if loss.sum_free else q


def span_of_gradients(loss: Loss, q: int) -> Ball | None:
    """N (q, q'), enclosed in Frobenius norm; None for the identity.

    Column j of Helmert's matrix is (1, …, 1, −j, 0, …)/√(j(j + 1)).
    """
    if not loss.sum_free:
        return None
    N = np.zeros((q, q - 1))
    for j in range(1, q):
        N[:j, j - 1], N[j, j - 1] = 1.0, -j
        N[:, j - 1] /= np.sqrt(j * (j + 1.0))
    return Ball(N, Radius.norm(N) * (4.0 * U))


def within_span(N: Ball | None, M: Ball | Array) -> Ball:
    """NᵀM for M (q, ·); M itself where N is the identity."""
    if N is None:
        return M if isinstance(M, Ball) else Ball.exact(M)
    return product(N.T, M)
