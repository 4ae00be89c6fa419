"""μ0, μ1, μ2: Lipschitz constants of F, ∇F and ∇²F in (w, V) on {‖w‖ ≤ b, ‖V‖ ≤ b}.

There |p| ≤ P = b(‖x‖ + b‖f‖) for each sample.  With L1, L2, L3 the suprema of |ℓ'|, |ℓ''|, |ℓ'''| over
|p| ≤ P and J² = (‖x‖ + b‖f‖)² + b²‖f‖², a bound of ‖∇p‖²:

    μ0 = E[L1 J],   μ1 = E[L2 J² + L1 ‖f‖],   μ2 = E[L3 J³ + 3 L2 J ‖f‖],

because ∇²p has norm at most ‖f‖ (2‖u‖‖U‖ ≤ 1 for a unit (u, U)) and ∇³p = 0.  Every larger number is a
Lipschitz constant too, so all roundings go upward.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from resnet_cert.numerics.enclosure import Array, gamma, upper_product
from resnet_cert.problem.losses import Loss
from resnet_cert.problem.problem import Chunk

FORMULA_ROUNDINGS = 256
"""More than the roundings of one summand, an elementary function counted as 16 (`losses.ELEMENTARY`)."""


class LipschitzConstants(NamedTuple):
    """Upper bounds of μ0, μ1, μ2."""

    mu0: float
    mu1: float
    mu2: float


def lipschitz_terms(loss: Loss, chunk: Chunk, x_norm: Array, f_norm: Array, b: float) -> Array | None:
    """Σ π (μ0, μ1, μ2 of one sample) over a chunk, rounded up: (3,); None where the loss has no suprema.

    Args:
        x_norm, f_norm: (m,) upper bounds of the row norms ‖x‖, ‖f‖.
    """
    suprema = loss.suprema(largest_prediction(x_norm, f_norm, b), chunk.y)
    return None if suprema is None else weighted_terms(suprema, chunk.weight, x_norm, f_norm, b)


def largest_prediction(x_norm: Array, f_norm: Array, b: float) -> Array:
    """P = b(‖x‖ + b‖f‖), rounded up."""
    return upper_product(b, x_norm + upper_product(b, f_norm)) * (1.0 + 2.0**-48)


def weighted_terms(
    suprema: tuple[Array, Array, Array], weight: Array | None, x_norm: Array, f_norm: Array, b: float
) -> Array:
    """Σ π (μ0, μ1, μ2 of one sample), rounded up: (3,), from L1, L2, L3 (m,) over |p| ≤ b(‖x‖ + b‖f‖)."""
    L1, L2, L3 = suprema
    pi = np.ones_like(x_norm) if weight is None else weight
    V_f = upper_product(b, f_norm)
    h = x_norm + V_f
    share = np.divide(V_f, h, out=np.zeros_like(h), where=h > 0.0)
    J = h * np.sqrt(1.0 + share * share)  # no square of a norm that over- or underflows
    terms = np.stack(
        [
            upper_product(L1, J, pi),
            upper_product(L2, J, J, pi) + upper_product(L1, f_norm, pi),
            upper_product(L3, J, J, J, pi) + upper_product(3.0, L2, J, f_norm, pi),
        ]
    )
    return terms.sum(axis=1) * (1.0 + 2.0 * gamma(len(J) + FORMULA_ROUNDINGS))


def lipschitz_constants(terms: Array, total_weight: float, merges: int) -> LipschitzConstants:
    """μ0, μ1, μ2 from the sums over all chunks, added in so many steps, and a lower bound of Σ π."""
    mus = terms * (1.0 + gamma(merges + 4)) / total_weight
    return LipschitzConstants(*(float(np.nextafter(mu, np.inf)) if mu else 0.0 for mu in mus))
