"""Eigenvalues of symmetric matrices with proof, and no trust in an eigen-solver.

Below: a floating-point Cholesky factorisation that completes proves a matrix positive definite, with margins
for its own roundings and for the error of the matrix.  Above: a Rayleigh quotient.  The solver only suggests
where to try.  Matrices are scaled to 1 by powers of two first, so that their scale does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from resnet_cert.numerics import algebra
from resnet_cert.numerics.enclosure import UNKNOWN, Array, Ball, Enclosure, norm
from resnet_cert.numerics.radius import NOTHING, UNBOUNDED, Radius, U, exponent, gamma
from resnet_cert.numerics.threads import small_algebra
from resnet_cert.outcomes import InternalError

SUBSET_SIZE = 1000
"""From this size on a single eigenpair is worth the import of SciPy: it costs a third of all of them."""


def is_positive_definite(S: Array, margin: Radius = NOTHING) -> bool:
    """Proven: S + E ≻ 0 for every symmetric E with |xᵀEx| ≤ Σ_i margin_i x_i².

    One floating-point Cholesky factorisation of S − diag(shift) that completes, T = RᵀR + ΔT with
    |ΔT_ij| ≤ γ/(1−γ)·√(T_ii T_jj), γ = γ_{m+3} (Rump 2006, BIT 46), so that xᵀΔTx ≥ −m·γ/(1−γ)·Σ T_ii x_i².
    Nothing is claimed where S is not finite, for LAPACK's dpotrf succeeds on NaN.

    Args:
        S: (m, m).  margin: one number, or (m,).
    """
    m = len(S)
    if m == 0:
        return True
    if not (np.isfinite(S).all() and margin.known and float(np.min(np.diagonal(S))) > 0.0):
        return False
    # What underflows here, and in the products and quotients of a matrix of scale 1, is below m²·2^-1000.
    e = exponent(np.diagonal(S))
    # LAPACK reads one triangle: that of xᵀSx counts, whose mean rounds once more, |T_ij| ≤ √(T_ii T_jj).
    T = np.ldexp(S, -e - 1)
    T = T + T.T
    diagonal = np.diagonal(T).copy()
    relative = m * gamma(m + 4) * (1.0 + 4 * gamma(m + 4)) + 4 * U
    shift = margin * 2.0 ** min(-e, 1023) * 2.0 ** max(-e - 1023, 0)
    shift = shift + Radius.of(diagonal) * relative + Radius.of(2.0**-900)
    T.flat[:: m + 1] = diagonal - shift.upper
    if not float(np.min(np.diagonal(T))) > 0.0:
        return False
    try:
        with small_algebra(m):
            R = np.asarray(np.linalg.cholesky(T), dtype=np.float64)
    except np.linalg.LinAlgError:
        return False
    if not (np.isfinite(R).all() and float(np.min(np.diagonal(R))) > 0.0):
        return False
    _confirm_factor(R, T)
    return True


def is_block_positive_definite(
    blocks: tuple[Array, Array, Array], errors: tuple[Radius, Radius, Radius]
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
    margins = first_error + cross_error * theta, last_error + cross_error / theta
    S = np.block([[first, cross], [cross.T, last]])
    return is_positive_definite(
        S, Radius.of(np.repeat([float(margin) for margin in margins], [len(first), len(last)]))
    )


def _confirm_factor(R: Array, T: Array) -> None:
    """A factor that a faulty LAPACK got wrong anywhere fails R(Rᵀv) = Tv to rounding."""
    v = np.cos(np.arange(1.0, len(T) + 1.0))
    defect = float(Radius.norm(R @ (R.T @ v) - T @ v))
    allowed = Radius.of(float(np.trace(T))) * (4.0 * gamma(3 * len(T) + 3)) * Radius.norm(v)
    if defect > float(allowed + Radius.of(2.0**-900)):
        raise InternalError(f"a Cholesky factor of size {len(T)} is wrong by {defect:.1e}")


def smallest_eigenvalue(M: Ball) -> Enclosure:
    """λ_min of a symmetric matrix (m, m) known to within a spectral-norm radius."""
    return _extreme_eigenvalue(M, sign=1.0)


def largest_eigenvalue(M: Ball) -> Enclosure:
    """λ_max of a symmetric matrix (m, m) known to within a spectral-norm radius."""
    return -_extreme_eigenvalue(M, sign=-1.0)


def eigenvalue_bound(M: Ball) -> Radius:
    """An upper bound of λ_max of a positive semidefinite matrix (m, m), a relative 2^-30 or so above it.

    One factorisation, where `largest_eigenvalue` takes a dozen; the trace where it fails.
    """
    m = len(M.center)
    if not M.known:
        return UNBOUNDED
    trace = Radius.of(max(float(np.trace(M.center)), 0.0)) * (1.0 + 2.0 * gamma(m)) + M.radius * float(m)
    if m == 1 or not M.center.any():
        return trace
    e = min(max(exponent(M.center), -1000), 1000)
    S = np.ldexp(M.center, -e)
    value = float(algebra.eigvalsh(S)[-1])
    t = value * (1.0 + 2.0**-30) + 2.0 * float(M.radius * 2.0**-e)
    margin = M.radius * 2.0**-e + Radius.norm(S) * (4.0 * U) + Radius.underflow(S.size)
    if not (t > 0.0 and is_positive_definite(t * np.eye(m) - S, margin)):
        return trace
    return (Radius.size(t) * 2.0**e).capped(trace.upper)


def spectral_norm(V: Array) -> Enclosure:
    """‖V‖, the largest singular value of a float64 matrix: √λ_max of the smaller of VVᵀ and VᵀV."""
    if not V.any() or min(V.shape) == 1:
        return norm(V)
    if not np.isfinite(V).all():
        return Enclosure(math.nan, 0.0, math.inf)
    e = min(exponent(V), 1023)
    G = np.ldexp(V, -e)
    inside = max(V.shape)
    G = G @ G.T if G.shape[0] <= G.shape[1] else G.T @ G
    error = Radius.of(float(np.trace(G))) * gamma(inside) + Radius.underflow(4 * V.size * inside)
    return (largest_eigenvalue(Ball(G, error)).intersect(lower=0.0).sqrt() * 2.0**e).intersect(
        upper=norm(V).upper
    )


def smallest_eigenpair(S: Array) -> tuple[float, Array]:
    """λ_min of a finite symmetric matrix (m, m) and its eigenvector (m,) in float64, unproven.

    Where LAPACK's iteration does not converge: NaN, and a unit vector.
    """
    eigenvalues, vectors = algebra.eigh(S) if len(S) < SUBSET_SIZE else algebra.lowest(S)
    value, vector = float(eigenvalues[0]), vectors[:, 0]
    return (value, vector) if np.isfinite(vector).all() else (math.nan, np.eye(len(S))[0])


def _extreme_eigenvalue(M: Ball, sign: float) -> Enclosure:
    if not M.known:
        return UNKNOWN
    if not M.center.any():
        return Enclosure.around(0.0, M.radius)
    e = min(max(exponent(M.center), -1000), 1000)
    S = sign * np.ldexp(M.center, -e)
    radius = M.radius * 2.0**-e
    if e > 0:
        radius = radius + Radius.underflow(S.size)
    value, v = smallest_eigenpair(S)
    if not (math.isfinite(value) and np.isfinite(v).all() and v.any()):
        v, value = np.eye(len(S))[0], float(S[0, 0])
    size = Radius.norm(S)
    length = Radius.norm(v)
    quotient = Enclosure.around(float(v @ S @ v), size * length * length * gamma(2 * len(v) + 2))
    upper = (quotient / norm(v).square() + Enclosure.up_to(radius)).upper

    def exceeds(t: float) -> bool:
        return is_positive_definite(S + t * np.eye(len(S)), radius + (Radius.size(t) + size) * (2 * U))

    start = max(float(size) * len(S), float(radius) / U)
    lower = first_proven(exceeds, value, start, positive=False)
    return Enclosure(value, lower, max(math.nextafter(upper, math.inf), lower)) * 2.0**e


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
