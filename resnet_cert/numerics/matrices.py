"""Norms and solutions of small matrices, enclosed.  A `Ball` of matrices has its radius in Frobenius norm."""

from __future__ import annotations

import math

import numpy as np

from resnet_cert.numerics.eigenvalues import spectral_norm
from resnet_cert.numerics.enclosure import (
    TINY,
    Array,
    Ball,
    Enclosure,
    U,
    frobenius,
    gamma,
    inflate,
    inner,
    norm,
)


def flat(M: Ball) -> Ball:
    """The matrix as a vector: the radius is the Euclidean norm."""
    return Ball(M.center.ravel(), M.radius)


def times(M: Ball, N: Array) -> Ball:
    """M N for an exact matrix N."""
    N_norm = frobenius(N)
    if not N_norm:
        return Ball(np.zeros((len(M.center), N.shape[1])), 0.0)
    error = (M.radius + gamma(len(N)) * frobenius(M.center)) * N_norm
    return Ball(M.center @ N, inflate(error) + len(M.center) * N.size * TINY)


def minus(M: Ball, N: Ball) -> Ball:
    """M − N."""
    center = M.center - N.center
    return Ball(center, inflate(M.radius + N.radius + U * frobenius(center)))


def matrix_inner(M: Ball, N: Ball) -> Enclosure:
    """⟨M, N⟩ = Σ_ij M_ij N_ij."""
    return inner(flat(M), flat(N))


def largest_singular_value(M: Ball) -> Enclosure:
    """‖M‖, the spectral norm."""
    if not math.isfinite(M.radius):
        return Enclosure(math.nan, 0.0, math.inf)
    return (spectral_norm(M.center) + Enclosure(0.0, -M.radius, M.radius)).intersect(lower=0.0)


def nuclear_norm(M: Ball) -> Enclosure:
    """‖M‖_*, the sum of the singular values.

    With a computed decomposition M = XSYᵀ + R, whatever it is worth: ‖M‖_* ≤ ‖X‖‖Y‖ Σ S + √rank ‖R‖_F, and
    ‖M‖_* ≥ ⟨M, XYᵀ⟩/(‖X‖‖Y‖), for the spectral norm of XYᵀ is at most ‖X‖‖Y‖.
    """
    center = M.center
    rank = math.sqrt(min(center.shape)) * (1.0 + 4 * U)
    if not (np.isfinite(center).all() and math.isfinite(M.radius)):
        return Enclosure(math.nan, 0.0, math.inf)
    if not center.any():
        return Enclosure(0.0, 0.0, inflate(rank * M.radius) if M.radius else 0.0)
    X, S, Yt = np.linalg.svd(center, full_matrices=False)
    total, size = float(np.sum(S)), frobenius(X) * frobenius(Yt)
    scaled = Ball(X * S, inflate(U * frobenius(X * S)) + X.size * TINY)
    residue = minus(Ball(center, 0.0), times(scaled, Yt)).norm()
    stretch = ((1.0 + Enclosure.exact(skewness(X))) * (1.0 + Enclosure.exact(skewness(Yt.T)))).sqrt().upper
    upper = Enclosure.around(total, gamma(len(S)) * total) * stretch + residue * rank
    turned = Ball(X @ Yt, inflate(gamma(len(S)) * size) + X.size * Yt.size * TINY)
    lower = matrix_inner(Ball(center, 0.0), turned) / stretch
    off = inflate(rank * M.radius)
    return Enclosure(total, max((lower - off).lower, 0.0), (upper + off).upper)


def skewness(X: Array) -> float:
    """An upper bound of ‖XᵀX − I‖."""
    defect = X.T @ X - np.eye(X.shape[1])
    return inflate(frobenius(defect) + (gamma(len(X)) + 2 * U) * frobenius(X) ** 2 + X.size * TINY)


def smallest_singular_value(W: Array) -> Enclosure:
    """σ_q(W) of W (q, d): positive if proven to have full row rank; 0 for d < q.

    Below, for any Y (d, q): uᵀWYu ≥ (1 − ‖I − WY‖)‖u‖², so ‖Wᵀu‖ ≥ (1 − ‖I − WY‖)/‖Y‖ for every unit u.
    Above: ‖Wᵀu‖/‖u‖ for a computed u.
    """
    q, d = W.shape
    if d < q or not W.any():
        return Enclosure.exact(0.0)
    scale = 2.0 ** min(math.frexp(float(np.max(np.abs(W))))[1], 1023)
    scaled = W / scale
    X, S, Zt = np.linalg.svd(scaled, full_matrices=False)
    u = X[:, -1]
    above = (times(Ball(u[None, :], 0.0), scaled).norm() / norm(u)) * scale
    lower = 0.0
    if S[-1] > 0.0:
        Y = (Zt.T / S) @ X.T
        if np.isfinite(Y).all():
            product = times(Ball(scaled, 0.0), Y)
            defect = minus(Ball(np.eye(q), 0.0), product).norm()
            lower = max(((1.0 - defect) / spectral_norm(Y) * scale).lower, 0.0)
    return Enclosure(float(S[-1]) * scale, lower, max(above.upper, lower))


def least_solution(W: Array, M: Ball, sigma: Enclosure) -> Ball:
    """W⁺M, the X of least norm with WX = M, for W (q, d) of full row rank: 0 < sigma.lower ≤ σ_q(W).

    For a computed Y (q, k) and X = WᵀY + E, E its rounding errors: W⁺M − X = W⁺(M − WX) − (I − W⁺W)E, of norm
    ≤ ‖M − WX‖/σ + ‖E‖.
    """
    Y = np.linalg.lstsq(W.T, np.linalg.lstsq(W, M.center, rcond=None)[0], rcond=None)[0]
    X = times(Ball(W.T, 0.0), np.asarray(Y, dtype=np.float64))
    residue = minus(M, times(Ball(W, 0.0), X.center)).norm()
    return Ball(X.center, inflate((residue / sigma.lower).upper + X.radius))
