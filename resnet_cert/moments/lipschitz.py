"""μ0, μ1, μ2: Lipschitz constants of F, ∇F and ∇²F in (W, V) on {‖W‖ ≤ b, ‖V‖ ≤ b}, in spectral norms.

There ‖p‖ ≤ P = b(‖x‖ + b‖f‖) for each sample.  L1, L2, L3 are the suprema of ‖∇ℓ‖, ‖∇²ℓ‖, ‖∇³ℓ‖ over ‖p‖ ≤ P.
Along a unit direction (dW, dV), δp = dW h + W_1 dV f has norm at most J, J² = (‖x‖ + b‖f‖)² + b²‖f‖², and
δ²p = 2 dW_1 dV f one of at most ‖f‖, as 2‖dW‖‖dV‖ ≤ 1; δ³p = 0.  The chain rule gives, **per sample**,

    μ0 = E[L1 J],   μ1 = E[L2 J² + L1 ‖f‖],   μ2 = E[L3 J³ + 3 L2 J ‖f‖],

for the norm of a symmetric multilinear form is its largest value on unit vectors (Banach 1938).

All samples together, δp = M z for z = (x, f) and M = (dW, dW EV + W_1 dV), of ‖M‖_F² ≤ κ² =
λ_max [[1 + b², b²], [b², b²]], and E[c‖Mz‖²] ≤ ‖M‖_F² λ_max(E[c zzᵀ]).  With Cauchy and Schwarz that is the
**matrix** form,

    μ0 ≤ κ √(E L1²) √λ_max(E zzᵀ),
    μ1 ≤ κ² λ_max(E[L2 zzᵀ]) + min(E[L1 ‖f‖], √(E L1²) √λ_max(E ffᵀ)),
    μ2 ≤ κ² λ_max(E[L3 J zzᵀ]) + 3κ √λ_max(E[L2 zzᵀ]) √λ_max(E[L2 ffᵀ]),

and the trace stands for λ_max where the matrix would cost too much.  Every larger number is a Lipschitz
constant too, so all roundings go upward, and the least of both forms is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from resnet_cert.numerics.eigenvalues import eigenvalue_bound
from resnet_cert.numerics.enclosure import QUIET, Ball, Enclosure
from resnet_cert.numerics.radius import NOTHING, Array, Radius, hypot, total
from resnet_cert.numerics.sums import Blocks, Sum
from resnet_cert.problem.losses import Bools, Loss
from resnet_cert.problem.problem import Chunk

Form = Literal["per-sample", "matrix"]

GRAM_WORK = 2**27
"""Up to so many multiplications the matrices are formed: some milliseconds."""


@dataclass(frozen=True)
class LipschitzConstants:
    """Upper bounds of μ0, μ1, μ2, and the form that each is from."""

    mu0: float
    mu1: float
    mu2: float
    forms: tuple[Form, Form, Form] = ("per-sample", "per-sample", "per-sample")


@dataclass(frozen=True)
class LipschitzSums:
    """Unnormalised sums over some samples, mergeable.

    terms: Σ π of the summands of the per-sample forms (3), of L1², of L1‖f‖, then ‖z‖² and ‖f‖² times each of
        1, L2 and L3 J (as traces).
    zeros: which of these are 0 themselves.
    grams: Σ π c zzᵀ for c = 1, L2, L3 J, or None where they would cost too much; a single 0 for c = 0.
    """

    terms: Sum
    zeros: Bools
    grams: tuple[Sum, Sum, Sum] | None

    def __add__(self, other: LipschitzSums) -> LipschitzSums:
        grams = None
        if self.grams is not None and other.grams is not None:
            first, second, third = (a + b for a, b in zip(self.grams, other.grams, strict=True))
            grams = first, second, third
        return LipschitzSums(self.terms + other.terms, self.zeros & other.zeros, grams)


def forms_matrices(n: int, m: int) -> bool:
    """Is E[c zzᵀ], z ∈ R^m, worth its cost?"""
    return n * m * m <= GRAM_WORK


@QUIET
def lipschitz_sums(
    loss: Loss, chunk: Chunk, x_norm: Radius, f_norm: Radius, b: float, blocks: Blocks, *, matrices: bool
) -> LipschitzSums | None:
    """The sums of a chunk; None where the loss has no suprema.

    Args:
        x_norm, f_norm: (m,) the row norms ‖x‖, ‖f‖.
    """
    bound = Radius.of(b)
    V_f = bound * f_norm
    h = x_norm + V_f
    suprema = loss.suprema(bound * h, chunk.y, chunk.omega)
    if suprema is None:
        return None
    L1, L2, L3 = suprema
    J = hypot(h, V_f)
    z2, f2 = x_norm * x_norm + f_norm * f_norm, f_norm * f_norm
    L3J = L3 * J
    terms = [
        L1 * J,
        L2 * J * J + L1 * f_norm,
        L3J * J * J + L2 * J * f_norm * 3.0,
        L1 * L1,
        L1 * f_norm,
        z2,
        f2,
        L2 * z2,
        L2 * f2,
        L3J * z2,
    ]
    pi = 1.0 if chunk.weight is None else chunk.weight
    bounds = blocks.bounds(*(term if chunk.weight is None else term * chunk.weight for term in terms))
    zeros = np.array([term.exact for term in terms])
    grams = None
    if matrices:
        z = np.concatenate([chunk.x, chunk.f], axis=1)
        first, second, third = (
            _gram(c if c.exact else c * pi, z, z2, blocks) for c in (Radius.of(np.ones(len(z))), L2, L3J)
        )
        grams = first, second, third
    return LipschitzSums(bounds, zeros, grams)


def _gram(c: Radius, z: Array, z2: Radius, blocks: Blocks) -> Sum:
    """Σ c zzᵀ for numbers c (m,) that are as they are: they bound what they stand for."""
    if c.exact:
        zeros = Radius(np.zeros(blocks.count), exact=True)
        return blocks.sum_of_blocks(np.zeros((blocks.count, 1, 1)), zeros, zeros)
    root = np.sqrt(np.broadcast_to(c.upper, len(z)))[:, None] * z
    lost = (z2 + Radius.of(1.0)) * Radius.underflow(4 * z.shape[1])
    return blocks.sum_of_products(root, root, lost + c * lost, c * z2, roundings=8)


def lipschitz_constants(sums: LipschitzSums, weight: Enclosure, b: float, k: int) -> LipschitzConstants:
    """μ0, μ1, μ2 from the sums over all samples, the total weight Σ π, and the number k of features."""
    bounds = sums.terms.total().radius / weight.lower
    means = [NOTHING if zero else bounds[i] for i, zero in enumerate(sums.zeros)]
    mu0, mu1, mu2, L1_square, L1_f, zz, ff, L2_zz, L2_ff, L3J_zz = means
    if sums.grams is not None:
        ones, seconds, thirds = (gram.total() for gram in sums.grams)
        zz, ff = _least(zz, ones, weight), _least(ff, _of_features(ones, k), weight)
        L2_zz, L2_ff = _least(L2_zz, seconds, weight), _least(L2_ff, _of_features(seconds, k), weight)
        L3J_zz = _least(L3J_zz, thirds, weight)
    kappa2 = _kappa_square(b)
    kappa = kappa2.sqrt()
    slope = L1_square.sqrt()
    crossed = slope * ff.sqrt()
    others = (
        kappa * slope * zz.sqrt(),
        kappa2 * L2_zz + (L1_f if float(L1_f) <= float(crossed) else crossed),
        kappa2 * L3J_zz + kappa * L2_zz.sqrt() * L2_ff.sqrt() * 3.0,
    )
    chosen = [_smaller(mine, other) for mine, other in zip((mu0, mu1, mu2), others, strict=True)]
    (first, first_form), (second, second_form), (third, third_form) = chosen
    return LipschitzConstants(first, second, third, (first_form, second_form, third_form))


def _smaller(per_sample: Radius, matrix: Radius) -> tuple[float, Form]:
    mine, other = float(per_sample), float(matrix)
    return (other, "matrix") if other < mine else (mine, "per-sample")


def _kappa_square(b: float) -> Radius:
    """λ_max [[1 + b², b²], [b², b²]] = ½ + b² + √(¼ + b⁴)."""
    square = Radius.of(b) * Radius.of(b)
    return total(Radius.of(0.5), square, hypot(Radius.of(0.5), square))


def _of_features(gram: Ball, k: int) -> Ball:
    m = len(gram.center)
    return gram[m - k :, m - k :] if m > 1 else gram


def _least(trace: Radius, gram: Ball, weight: Enclosure) -> Radius:
    """λ_max(gram)/Σπ, at most the trace."""
    if trace.exact:
        return trace
    bound = eigenvalue_bound(gram) / weight.lower
    return bound if float(bound) < float(trace) else trace
