"""Norms and solutions of small matrices, enclosed.  A `Ball` of matrices has its radius in Frobenius norm."""

from __future__ import annotations

import math

import numpy as np

from resnet_cert.numerics import algebra
from resnet_cert.numerics.eigenvalues import spectral_norm
from resnet_cert.numerics.enclosure import Array, Ball, Enclosure, difference, inner, norm, product
from resnet_cert.numerics.radius import NOTHING, UNBOUNDED, Radius, U, exponent, gamma

ANY_SIZE = Enclosure(math.nan, 0.0, math.inf)
"""A size of which nothing is known."""


def exact(M: Ball | Array) -> Ball:
    return M if isinstance(M, Ball) else Ball.exact(M)


def largest_singular_value(M: Ball | Array) -> Enclosure:
    """‖M‖, the spectral norm."""
    M = exact(M)
    if not M.known:
        return ANY_SIZE
    center = spectral_norm(M.center)
    return center if M.radius.exact else (center + Enclosure.around(0.0, M.radius)).intersect(lower=0.0)


def nuclear_norm(M: Ball | Array) -> Enclosure:
    """‖M‖_*, the sum of the singular values.

    With a computed decomposition M = XSYᵀ + R, whatever it is worth: ‖M‖_* ≤ ‖X‖‖Y‖ Σ S + √rank ‖R‖_F, and
    ‖M‖_* ≥ ⟨M, XYᵀ⟩/(‖X‖‖Y‖), for the spectral norm of XYᵀ is at most ‖X‖‖Y‖.
    """
    M = exact(M)
    if not M.known:
        return ANY_SIZE
    off = M.radius * (math.sqrt(min(M.center.shape)) * (1.0 + 4 * U))  # ‖E‖_* ≤ √rank ‖E‖_F
    if not M.center.any():
        return Enclosure.up_to(off)
    e = min(exponent(M.center), 1023)
    decomposition = _svd(np.ldexp(M.center, -e))
    if decomposition is None:
        return Enclosure.up_to(M.size() * (math.sqrt(min(M.center.shape)) * (1.0 + 4 * U)))
    X, S, Yt = decomposition
    center = Ball(np.ldexp(M.center, -e), _shift_error(M.center, e))
    columns = X * S
    scaled = Ball(columns, Radius.norm(columns) * U + Radius.underflow(X.size))
    residue = difference(center, product(scaled, Yt)).norm() * Enclosure.exact(
        math.sqrt(len(S)) * (1.0 + 4 * U)
    )
    stretch = ((1.0 + Enclosure.up_to(skewness(X))) * (1.0 + Enclosure.up_to(skewness(Yt.T)))).sqrt().upper
    trace = Radius.of(float(np.sum(S)))
    upper = Enclosure.around(float(trace), trace * gamma(len(S))) * stretch + residue
    lower = inner(center, product(X, Yt)) / stretch
    value = Enclosure(float(trace), max(lower.lower, 0.0), max(upper.upper, 0.0)) * 2.0**e
    return value if off.exact else (value + Enclosure.around(0.0, off)).intersect(lower=0.0)


def _shift_error(M: Array, e: int) -> Radius:
    """Of M/2^e: 0, but for entries that underflow."""
    return NOTHING if e <= 0 else Radius.underflow(M.size)


def _svd(M: Array) -> tuple[Array, Array, Array] | None:
    """A thin singular value decomposition in float64, unproven; None where LAPACK finds none."""
    parts = algebra.svd(M)
    return parts if all(np.isfinite(part).all() for part in parts) else None


def skewness(X: Array) -> Radius:
    """‖XᵀX − I‖."""
    defect = X.T @ X - np.eye(X.shape[1])
    size = Radius.norm(X)
    return Radius.norm(defect) + size * size * (gamma(len(X)) + 2 * U) + Radius.underflow(X.size)


def smallest_singular_value(W: Ball | Array) -> Enclosure:
    """σ_q(W) of W (q, d): positive if proven to have full row rank; 0 for d < q.

    Below, for any Y (d, q): uᵀWYu ≥ (1 − ‖I − WY‖)‖u‖², so ‖Wᵀu‖ ≥ (1 − ‖I − WY‖)/‖Y‖ for every unit u.
    Above: ‖Wᵀu‖/‖u‖ for a computed u.  An error of W moves every singular value by no more than its norm.
    """
    W = exact(W)
    q, d = W.center.shape
    if d < q:
        return Enclosure.exact(0.0)
    if not W.known:
        return ANY_SIZE
    center = _smallest_of_center(W.center)
    return center if W.radius.exact else (center + Enclosure.around(0.0, W.radius)).intersect(lower=0.0)


def _smallest_of_center(W: Array) -> Enclosure:
    if not W.any():
        return Enclosure.exact(0.0)
    e = min(exponent(W), 1023)
    scaled = Ball(np.ldexp(W, -e), _shift_error(W, e))
    decomposition = _svd(scaled.center)
    if decomposition is None:
        return Enclosure.up_to(Radius.norm(W))
    X, S, Zt = decomposition
    u = X[:, -1]
    above = product(scaled.T, u).norm() / norm(u)
    lower = 0.0
    if S[-1] > 0.0:
        Y = (Zt.T / S) @ X.T
        if np.isfinite(Y).all():
            defect = difference(np.eye(len(W)), product(scaled, Y)).norm()
            lower = max(((1.0 - defect) / spectral_norm(Y)).lower, 0.0)
    return Enclosure(float(S[-1]), lower, max(above.upper, lower)) * 2.0**e


def least_solution(W: Ball | Array, M: Ball | Array, sigma: Enclosure) -> Ball:
    """W⁺M, the X of least norm with WX = M, for W (q, d) of full row rank: 0 < sigma.lower ≤ σ_q(W).

    For any computed Y (q, k) and X = W_cᵀY + E, E its rounding errors and W_c the center of W = W_c + D:
    W⁺M − X = W⁺(M − WX) − (I − W⁺W)(E − DᵀY), of norm ≤ ‖M − WX‖/σ + ‖E‖ + ‖D‖‖Y‖, for (I − W⁺W)Wᵀ = 0.
    """
    W, M = exact(W), exact(M)
    if not (W.known and M.known and sigma.lower > 0.0):
        return Ball(np.full((W.center.shape[1], M.center.shape[1]), math.nan), UNBOUNDED)
    e = min(max(exponent(W.center), -1000), 1000)  # W = 2^e W', and W⁺ = 2^-e W'⁺
    W = Ball(np.ldexp(W.center, -e), W.radius * 2.0**-e + _shift_error(W.center, e))
    Y = algebra.lstsq(W.center.T, algebra.lstsq(W.center, M.center))
    if not np.isfinite(Y).all():
        Y = np.zeros_like(Y)  # a guess as good as any
    X = product(W.T, Y)
    residue = difference(M, product(W, X.center)).size() / (sigma * 2.0**-e).lower
    center = np.ldexp(X.center, -e)
    if not np.isfinite(center).all():
        return Ball(center, UNBOUNDED)
    return Ball(center, (residue + X.radius) * 2.0**-e + Radius.underflow(center.size))
