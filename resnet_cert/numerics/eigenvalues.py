"""Eigenvalues of symmetric matrices with proof, and no trust in an eigen-solver.

Below: a floating-point Cholesky factorisation that completes proves a matrix positive definite, with margins
for its own roundings and for the error of the matrix.  Above: a Rayleigh quotient.  The solver only suggests
where to try.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from resnet_cert.numerics.enclosure import TINY, Array, Ball, Enclosure, U, frobenius, gamma, inflate, norm
from resnet_cert.outcomes import InternalError

SUBSET_SIZE = 1000
"""From this size on a single eigenpair is worth the import of SciPy: it costs a third of all of them."""


def is_positive_definite(S: Array, margin: Array | float = 0.0) -> bool:
    """Proven: S + E ≻ 0 for every symmetric E with |xᵀEx| ≤ Σ_i margin_i x_i².

    One floating-point Cholesky factorisation of S − diag(shift) that completes, T = RᵀR + ΔT with
    |ΔT_ij| ≤ γ/(1−γ)·√(T_ii T_jj), γ = γ_{m+3} (Rump 2006, BIT 46), so that xᵀΔTx ≥ −m·γ/(1−γ)·Σ T_ii x_i².
    Nothing is claimed where S is not finite, for LAPACK's dpotrf succeeds on NaN.
    """
    m = len(S)
    if m == 0:
        return True
    diagonal = np.diagonal(S)
    largest = float(np.max(diagonal))
    if not (np.isfinite(S).all() and np.isfinite(margin).all() and float(np.min(diagonal)) > 0.0):
        return False
    if not 2.0**-900 < largest < 2.0**900:
        return False
    relative = m * gamma(m + 3) * (1.0 + 4 * gamma(m + 3)) + 4 * U
    # Underflow, in the products and quotients of a matrix scaled to 1, is below m²·2^-1000.
    shift = (np.asarray(margin) + relative * diagonal + 2.0**-900 * largest) * (1.0 + 8 * U)
    T = S.copy()
    T[np.diag_indices(m)] = diagonal - shift
    scale = 2.0 ** (math.frexp(largest)[1] // 2 * 2)
    T /= scale
    if not float(np.min(np.diagonal(T))) > 0.0:
        return False
    try:
        R = np.asarray(np.linalg.cholesky(T), dtype=np.float64)
    except np.linalg.LinAlgError:
        return False
    if not (np.isfinite(R).all() and float(np.min(np.diagonal(R))) > 0.0):
        return False
    _confirm_factor(R, T)
    return True


def is_block_positive_definite(
    blocks: tuple[Array, Array, Array], errors: tuple[float, float, float]
) -> bool:
    """Proven: [[A, B], [Bᵀ, C]] + E ≻ 0 for every symmetric E whose blocks have at most these spectral norms.

    2|xᵀEy| ≤ ‖E‖(θ‖x‖² + ‖y‖²/θ) shares the error of the off-diagonal block between the other two.

    Args:
        blocks: A (m, m), B (m, l), C (l, l);  errors: in the same order.
    """
    (first, cross, last), (first_error, cross_error, last_error) = blocks, errors
    scales = [float(np.trace(block)) / max(len(block), 1) for block in (first, last)]
    theta = 1.0
    if min(scales) > 0.0:
        theta = min(max(math.sqrt(scales[0]) / math.sqrt(scales[1]), 2.0**-500), 2.0**500)
    shares = cross_error * theta * (1.0 + 4 * U), cross_error / theta * (1.0 + 4 * U)
    margins = inflate(first_error + shares[0]), inflate(last_error + shares[1])
    S = np.block([[first, cross], [cross.T, last]])
    return is_positive_definite(S, np.repeat(margins, [len(first), len(last)]))


def _confirm_factor(R: Array, T: Array) -> None:
    """A factor that a faulty LAPACK got wrong anywhere fails R(Rᵀv) = Tv to rounding."""
    v = np.cos(np.arange(1.0, len(T) + 1.0))
    defect = frobenius(R @ (R.T @ v) - T @ v)
    allowed = 4.0 * gamma(3 * len(T) + 3) * float(np.trace(T)) * frobenius(v)
    if defect > inflate(allowed):
        raise InternalError(f"a Cholesky factor of size {len(T)} is wrong by {defect:.1e}")


def smallest_eigenvalue(M: Ball) -> Enclosure:
    """λ_min of a symmetric matrix (m, m) known to within a spectral-norm radius."""
    return _extreme_eigenvalue(M, sign=1.0)


def largest_eigenvalue(M: Ball) -> Enclosure:
    """λ_max of a symmetric matrix (m, m) known to within a spectral-norm radius."""
    return -_extreme_eigenvalue(M, sign=-1.0)


def spectral_norm(V: Array) -> Enclosure:
    """‖V‖, the largest singular value of a float64 matrix."""
    if not V.any():
        return Enclosure.exact(0.0)
    scale = 2.0 ** min(math.frexp(float(np.max(np.abs(V))))[1], 1023)
    G = V / scale
    G = G @ G.T if G.shape[0] <= G.shape[1] else G.T @ G
    gram = Ball(G, inflate(gamma(max(V.shape)) * float(np.trace(G)) + V.size * max(V.shape) * TINY))
    return largest_eigenvalue(gram).intersect(lower=0.0).sqrt() * scale


def smallest_eigenpair(S: Array) -> tuple[float, Array]:
    """λ_min of a finite symmetric matrix (m, m) and its eigenvector (m,) in float64, unproven."""
    if len(S) < SUBSET_SIZE:
        eigenvalues, vectors = np.linalg.eigh(S)
    else:
        from scipy.linalg import eigh

        eigenvalues, vectors = eigh(S, subset_by_index=[0, 0])
    return float(eigenvalues[0]), vectors[:, 0]


def _extreme_eigenvalue(M: Ball, sign: float) -> Enclosure:
    S = sign * M.center
    if not (np.isfinite(S).all() and math.isfinite(M.radius)):
        return Enclosure(math.nan, -math.inf, math.inf)
    value, v = smallest_eigenpair(S)
    size = frobenius(S)
    numerator = Enclosure.around(float(v @ S @ v), inflate(gamma(2 * len(v) + 2) * size * frobenius(v) ** 2))
    upper = (numerator / norm(v).square()).upper + M.radius

    def exceeds(t: float) -> bool:
        return is_positive_definite(S + t * np.eye(len(S)), inflate(M.radius + 2 * U * (abs(t) + size)))

    lower = first_proven(exceeds, value, max(size * len(S), M.radius / U), positive=False)
    return Enclosure(value, lower, max(math.nextafter(upper, math.inf), lower))


def first_proven(exceeds: Callable[[float], bool], value: float, size: float, *, positive: bool) -> float:
    """−t for about the first t = −value + slack with exceeds(t), of slacks size·u·4^j; or −∞.

    Most tries fail, and each is a factorisation: j leaps by 4, and is then halved in between.
    """
    least = max(size, abs(value)) * U
    if not (math.isfinite(value) and 0.0 < least < math.inf):
        return -math.inf
    start = max(-value, 0.0) if positive else -value

    def t(j: int) -> float:
        return start + least * 4.0**j

    found = next((j for j in range(0, 40, 4) if exceeds(t(j))), None)
    if found is None:
        return -math.inf
    for back in (2, 1):
        if found >= back and exceeds(t(found - back)):
            found -= back
    return -t(found)
