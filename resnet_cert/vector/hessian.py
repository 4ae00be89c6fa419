"""λ_min(∇²F) for several outputs, exactly reduced and enclosed from both sides.

With z = (h, f), the moment Q and B = (dW, W dV), D²F(dW, dV) = ⟨B, Q B⟩ + 2⟨dW dV, A_f⟩.  Let E (d, ρ) and
R (k, r) be orthonormal bases of spaces that contain the rows of W and of A_f, and E_⊥ one of the complement
of E.  Write dV = E C + E_⊥ Z: D²F depends on dV through C and Y = Z R alone, for W dV = WE C and
⟨dW dV, A_f⟩ = ⟨dW E C, A_f⟩ + ⟨dW E_⊥ Y, A_f R⟩.  All else are exact eigenvectors of eigenvalue 0, of
multiplicity (d − ρ)(k − r); the other eigenvalues are those of a matrix over (dW, C, Y), of size
qd + ρk + (d − ρ)r.  Eliminating Y, for t > 0 (for ρ = d, where there is no Y, for every t):

    ∇²F + tI ≻ 0   ⇔   S(t) = [ Q_hh + tI − (1/t)(A_f A_fᵀ) ⊗ (I − EEᵀ)   Q_hf(I ⊗ WE) + A_f ⊗ E ]  ≻ 0,
                              [ ·                                         (WE)ᵀQ_ff(WE) + tI      ]

which holds neither R nor a rank: any E will do whose columns span the rows of W, so no rank is ever decided.
E is the orthogonal factor of Wᵀ (I for q ≥ d, empty for W = 0).  It contains the rows of W to rounding only,
and what it misses is a perturbation of ∇²F with a proven bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from resnet_cert.decide.hessian import Curvature, Direction
from resnet_cert.numerics.eigenvalues import first_proven, is_block_positive_definite, smallest_eigenpair
from resnet_cert.numerics.enclosure import TINY, Array, Ball, Enclosure, U, frobenius, gamma, inflate, norm
from resnet_cert.numerics.matrices import matrix_inner, minus, skewness, times
from resnet_cert.vector.moments import VectorMoments


@dataclass(frozen=True)
class Reduction:
    """What S(t) and the reduced Hessian are made of.

    Q: the moment as a matrix (q·m, q·m), m = d + k or, at W = 0, m = d.
    E (d, ρ): within `turn` of an exactly orthonormal E_0 with the same span, as is EEᵀ of E_0E_0ᵀ.
    WE (q, ρ): W E_0 to within its radius.
    first, cross, last: the blocks of D²F over (dW, C).
    sizes: the Frobenius norms of Q_hh, Q_hf and Q_ff.
    missed: ‖∇²F − H‖ at most, where H has W E_0E_0ᵀ in place of W.
    """

    W: Array
    A_f: Ball
    Q: Ball
    E: Array
    WE: Ball
    turn: float
    first: Array
    cross: Array
    last: Array
    sizes: tuple[float, float, float]
    missed: float

    @property
    def rho(self) -> int:
        return self.E.shape[1]


def reduction(moments: VectorMoments, W: Array) -> Reduction:
    """The parts of the reduced Hessian at (W, V)."""
    (q, d), rows = W.shape, W[W.any(axis=1)]
    A_f, dense, exact = moments.A_f, moments.dense(), Ball(W, 0.0)
    E, WE, turn, tau = np.eye(d), exact, 0.0, 0.0
    if len(rows) < d:
        E = np.asarray(np.linalg.qr(rows.T)[0], dtype=np.float64)
        turn, W_norm, image = skewness(E), frobenius(W), times(exact, E)
        WE = Ball(image.center, inflate(image.radius + W_norm * turn))
        tau = inflate(minus(exact, times(image, E.T)).norm().upper + W_norm * turn) if len(rows) else 0.0

    m, rho = len(dense.center) // q, E.shape[1]
    Q = dense.center.reshape(q, m, q, m)
    Q_hh, Q_hf, Q_ff = Q[:, :d, :, :d], Q[:, :d, :, d:], Q[:, d:, :, d:]
    size, inner = q * d, rho * A_f.center.shape[1]
    cross, last = np.zeros((size, inner)), np.zeros((inner, inner))
    if rho:
        at = np.einsum("ajbl,br->ajrl", Q_hf, WE.center, optimize=True)
        cross = (at + np.einsum("jr,al->ajrl", E, A_f.center)).reshape(size, inner)
        at = np.einsum("ajbl,br->ajrl", Q_ff, WE.center, optimize=True)
        last = np.einsum("as,ajrl->sjrl", WE.center, at, optimize=True).reshape(inner, inner)
    hh, hf, ff = (frobenius(block) for block in (Q_hh, Q_hf, Q_ff))
    # B = (dW, W dV) changes by at most tau in its part on f, and has at most the norm max(1, ‖W‖).
    missed = tau * (2.0 * max(1.0, frobenius(W)) + tau) * (math.hypot(hf, ff) + dense.radius)
    return Reduction(
        W=W,
        A_f=A_f,
        Q=dense,
        E=E,
        WE=WE,
        turn=turn,
        first=Q_hh.reshape(size, size),
        cross=cross,
        last=last,
        sizes=(hh, hf, ff),
        missed=inflate(missed) if tau else 0.0,
    )


def curvature(parts: Reduction) -> Curvature:
    """λ_min(∇²F(W, V)) enclosed.

    Above: the Rayleigh quotient of the computed eigenvector, and 0 wherever some e ⊥ all rows of W exists,
    for D²F(0, e tᵀ) = 0.  Below: −t for a t with S(t) ≻ 0, proven by `is_block_positive_definite`.
    """
    (q, d), rho, k = parts.W.shape, parts.rho, parts.A_f.center.shape[1]
    value, direction = _smallest_eigenpair(parts)
    upper = rayleigh_quotient(parts, direction).upper
    if rho < d:
        upper, value = min(upper, 0.0), min(value, 0.0)
    lower = first_proven(lambda t: hessian_exceeds(parts, t), value, _scale(parts), positive=rho < d)
    zeros = (d - rho) * (k - min(q, k))
    return Curvature(Enclosure(value, lower, max(upper, lower)), direction, zeros)


def reduced_hessian(parts: Reduction) -> tuple[Array, Array, Array]:
    """The reduced matrix over (dW, C, Y), row by row each, and the bases E_⊥ (d, d − ρ) and R (k, r)."""
    (q, d), rho, A_f = parts.W.shape, parts.rho, parts.A_f.center
    k = A_f.shape[1]
    across = np.linalg.qr(parts.E, mode="complete")[0][:, rho:] if rho < d else np.zeros((d, 0))
    R = np.linalg.qr(A_f.T)[0] if q < k else np.eye(k)
    size, inner = q * d, rho * k
    H = np.zeros((size + inner + across.shape[1] * R.shape[1],) * 2)
    H[:size, :size] = parts.first
    H[:size, size : size + inner] = parts.cross
    H[size : size + inner, size : size + inner] = parts.last
    H[:size, size + inner :] = np.einsum("jp,as->ajps", across, A_f @ R).reshape(size, -1)
    H[size:, :size] = H[:size, size:].T
    return H, across, R


def _smallest_eigenpair(parts: Reduction) -> tuple[float, Direction]:
    """λ_min in float64 and its eigenvector lifted to (dW, dV), both unproven."""
    (q, d), rho, k = parts.W.shape, parts.rho, parts.A_f.center.shape[1]
    H, across, R = reduced_hessian(parts)
    if not np.isfinite(H).all():
        return math.nan, Direction(np.zeros((q, d)), np.zeros((d, k)))
    value, vector = smallest_eigenpair(H)
    dW, C, Y = np.split(vector, [q * d, q * d + rho * k])
    dV = parts.E @ C.reshape(rho, k) + across @ Y.reshape(d - rho, R.shape[1]) @ R.T
    return value, Direction(dW.reshape(q, d), dV)


def gauss_newton(parts: Reduction, B: Ball) -> Enclosure:
    """⟨B, Q B⟩ = E[(Bz)ᵀ∇²ℓ(Bz)] for B (q, m) known to within a Frobenius norm."""
    b, Q = B.center.ravel(), parts.Q
    Q_norm, b_norm = frobenius(Q.center), frobenius(b)
    reach = b_norm + B.radius
    error = Q.radius * reach * reach + Q_norm * (b_norm + reach) * B.radius
    rounding = gamma(2 * len(b) + 2) * Q_norm * b_norm * b_norm + len(b) ** 2 * TINY
    return Enclosure.around(float(b @ (Q.center @ b)), inflate(error + rounding))


def rayleigh_quotient(parts: Reduction, direction: Direction) -> Enclosure:
    """D²F(dW, dV)/(‖dW‖² + ‖dV‖²): an upper bound of λ_min(∇²F) for every direction but 0."""
    dW, dV = Ball(direction.dw, 0.0), direction.dV
    length = norm(direction.dw).square() + norm(dV).square()
    if not (length.lower > 0.0 and math.isfinite(parts.Q.radius)):
        return Enclosure(math.nan, -math.inf, math.inf)
    B = dW
    if parts.W.any():
        image = times(Ball(parts.W, 0.0), dV)
        B = Ball(np.concatenate([direction.dw, image.center], axis=1), image.radius)
    return (gauss_newton(parts, B) + 2.0 * matrix_inner(times(dW, dV), parts.A_f)) / length


def hessian_exceeds(parts: Reduction, t: float) -> bool:
    """Proven: ∇²F ≻ −tI, by S(t) ≻ 0.  t > 0, or any t where ρ = d.  False says nothing."""
    (q, d), E, turn = parts.W.shape, parts.E, parts.turn
    t = math.nextafter(t - parts.missed, -math.inf) if parts.missed else t
    if not (turn < 0.5 and (t > 0.0 or parts.rho == d)):
        return False
    A_f, A_norm, A_radius = parts.A_f.center, frobenius(parts.A_f.center), parts.A_f.radius
    Q_radius, W_norm, WE_radius = parts.Q.radius, frobenius(parts.WE.center), parts.WE.radius
    (hh, hf, ff), reach = parts.sizes, W_norm + WE_radius

    first = parts.first + t * np.eye(q * d)
    first_error = Q_radius + 4 * U * (hh + abs(t))
    if parts.rho < d:
        AA, P = A_f @ A_f.T, np.eye(d) - E @ E.T
        first -= np.kron(AA, P) / t
        P_norm = frobenius(P)
        P_error = turn + gamma(parts.rho + 2) * (frobenius(E) ** 2 + P_norm)
        AA_error = A_radius * (2.0 * A_norm + A_radius) + gamma(A_f.shape[1] + 2) * A_norm * A_norm
        first_error += (AA_error * (1.0 + P_error) + A_norm * A_norm * (P_error + 8 * U * P_norm)) / t
    cross_error = Q_radius * reach + hf * WE_radius + (gamma(q + 2) + 4 * U) * hf * W_norm
    cross_error += A_radius * (1.0 + turn) + A_norm * (turn + 4 * U * frobenius(E))
    last = parts.last + t * np.eye(len(parts.last))
    last_error = Q_radius * reach * reach + ff * (2.0 * W_norm + WE_radius) * WE_radius
    last_error += (gamma(2 * q + 4) + 4 * U) * ff * W_norm * W_norm + 4 * U * abs(t)

    errors = first_error, cross_error, last_error
    return is_block_positive_definite((first, parts.cross, last), errors)


def _scale(parts: Reduction) -> float:
    """The size of ∇²F, or a number below any that matters where it vanishes."""
    (hh, _, ff), W_norm = parts.sizes, frobenius(parts.WE.center)
    return max(hh + W_norm * W_norm * ff, 2.0**-800)
