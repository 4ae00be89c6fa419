"""λ_min(∇²F) from the moments, exactly reduced to size 2d + k − 1, and enclosed from both sides.

With s = ‖w‖, e = w/s, α = ‖a‖, a direction (dw, dV) enters D²F only through dw, v = dVᵀe and
u = (dV − e vᵀ) a/α ⊥ e; everything else is an exact eigenvector of eigenvalue 0.  On (dw, v, u) it is

    [ A            sB + e aᵀ    α P ]
    [ (sB + eaᵀ)ᵀ  s²C          0   ]      P: the inclusion of e^⊥ in R^d
    [ α Pᵀ         0            0   ]

Eliminating u, for t > 0 (for d = 1, where there is no u, for every t):

    ∇²F + tI ≻ 0   ⇔   S(t) = [ A + tI − (α²/t)(I − eeᵀ)   sB + e aᵀ ]  ≻ 0,
                              [ ·                            s²C + tI  ]

a matrix of size d + k whose Cholesky factorisation decides.  At w = 0 the spectrum is known: with the
eigenvalues β_i of A, (β_i ± √(β_i² + 4α²))/2, and 0 with multiplicity d(k − 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from resnet_cert.moments.moments import Moments
from resnet_cert.numerics.eigenvalues import (
    first_proven,
    is_block_positive_definite,
    smallest_eigenpair,
    smallest_eigenvalue,
)
from resnet_cert.numerics.enclosure import TINY, Array, Ball, Enclosure, U, frobenius, gamma, inflate, norm
from resnet_cert.theory.theorems import lambda_min_at_origin


@dataclass(frozen=True)
class Direction:
    """A direction in the space of (w, V): dw (d,), dV (d, k)."""

    dw: Array
    dV: Array


@dataclass(frozen=True)
class Curvature:
    """λ_min(∇²F), a direction that attains it numerically, and how many eigenvalues are 0 by structure."""

    lambda_min: Enclosure
    direction: Direction
    zero_multiplicity: int


def curvature(moments: Moments, w: Array) -> Curvature:
    """λ_min(∇²F(w, V)) enclosed.

    Above: the Rayleigh quotient of the computed eigenvector, and 0 wherever the Hessian has a zero diagonal
    block (d ≥ 2 or w = 0).  Below: −t for a t with S(t) ≻ 0, proven by `is_block_positive_definite`.
    """
    d, k = len(w), len(moments.a.center)
    value, direction = _smallest_eigenpair(moments, w)
    if not w.any():
        beta = smallest_eigenvalue(moments.A).intersect(lower=0.0)
        return Curvature(lambda_min_at_origin(beta, moments.a.norm()), direction, d * (k - 1))
    upper = rayleigh_quotient(moments, w, direction).upper
    if d >= 2:
        upper, value = min(upper, 0.0), min(value, 0.0)
    lower = first_proven(lambda t: hessian_exceeds(moments, w, t), value, _scale(moments, w), positive=d >= 2)
    return Curvature(Enclosure(value, lower, max(upper, lower)), direction, (d - 1) * (k - 1))


def reduced_hessian(moments: Moments, w: Array) -> tuple[Array, Array]:
    """The reduced matrix (2d + k − 1, 2d + k − 1) over (dw, v, u) and the basis P (d, d − 1) of e^⊥.

    At w = 0 any unit vector serves as e; the first one is taken.
    """
    e, s = unit_vector(w)
    a, A = moments.a.center, moments.A.center
    d, k = len(w), len(a)
    P = orthogonal_complement(e)
    H = np.zeros((2 * d + k - 1, 2 * d + k - 1))
    H[:d, :d] = A
    H[:d, d : d + k] = np.outer(e, a)
    if s:
        H[:d, d : d + k] += s * moments.B.center
        H[d : d + k, d : d + k] = s * s * moments.C.center
    H[:d, d + k :] = frobenius(a) * P
    H[d:, :d] = H[:d, d:].T
    return H, P


def _smallest_eigenpair(moments: Moments, w: Array) -> tuple[float, Direction]:
    """λ_min in float64 and its eigenvector lifted to (dw, dV), both unproven."""
    if not w.any():
        return _smallest_eigenpair_at_origin(moments)
    H, P = reduced_hessian(moments, w)
    a = moments.a.center
    d, k = len(w), len(a)
    if not np.isfinite(H).all():
        return math.nan, Direction(np.zeros(d), np.zeros((d, k)))
    value, vector = smallest_eigenpair(H)
    dw, v, u = np.split(vector, [d, d + k])
    dV = np.outer(unit_vector(w)[0], v)
    if a.any():
        dV += np.outer(P @ u, unit_vector(a)[0])
    return value, Direction(dw, dV)


def _smallest_eigenpair_at_origin(moments: Moments) -> tuple[float, Direction]:
    """At w = 0, D²F(dw, z tᵀ) = dwᵀA dw + 2α dwᵀz, t = a/α.

    On dw and z along an eigenvector of A with eigenvalue β this is [[β, α], [α, 0]].
    """
    A, a = moments.A.center, moments.a.center
    nothing = Direction(np.zeros(len(A)), np.zeros((len(A), len(a))))
    if not (np.isfinite(A).all() and np.isfinite(a).all()):
        return math.nan, nothing
    beta, q = smallest_eigenpair(A)
    t, alpha = unit_vector(a)
    if not alpha:
        return 0.0, Direction(nothing.dw, np.outer(q, t))
    ratio = max(beta, 0.0) / alpha
    value = -alpha * (2.0 / (ratio + math.hypot(ratio, 2.0)))
    length = math.hypot(value, alpha)
    return value, Direction(value / length * q, np.outer(alpha / length * q, t))


def refuting_direction(moments: Moments, w: Array, threshold: float) -> Direction:
    """A direction that shows λ_min(∇²F) < −threshold, if that is so: for moments good to the last place.

    The computed eigenvector; but for threshold 0, and d ≥ 2 or w = 0, any a ≠ 0 makes λ_min negative, though
    it may be as little as −‖a‖²/‖A‖.  With e ⊥ w and the unit vector t of the largest entry of a,

        D²F(τe, −e tᵀ) = τ(τ eᵀAe − 2‖e‖²|tᵀa|) < 0   for 0 < τ ≤ ‖e‖²|tᵀa|/eᵀAe.

    e is orthogonal to w, and the direction a multiple of e, without rounding.
    """
    d, a, A = len(w), moments.a.center, moments.A.center
    if threshold > 0.0 or (d == 1 and w.any()) or not a.any():
        return curvature(moments, w).direction
    e = np.zeros(d)
    if w.all():
        scale = 2.0 ** min(math.frexp(float(np.max(np.abs(w[:2]))))[1], 1023)
        e[0], e[1] = w[1] / scale, -w[0] / scale
    else:
        e[int(np.argmin(np.abs(w)))] = 1.0
    l = int(np.argmax(np.abs(a)))
    gain, bend = float(e @ e) * abs(float(a[l])), float(e @ A @ e)
    tau = 1.0
    if bend > 0.0 and gain > 0.0:
        tau = 2.0 ** min(max(math.frexp(gain)[1] - math.frexp(bend)[1] - 2, -1000), 1000)
    dV = np.zeros((d, len(a)))
    dV[:, l] = -math.copysign(1.0, a[l]) * e
    return Direction(tau * e, dV)


def rayleigh_quotient(moments: Moments, w: Array, direction: Direction) -> Enclosure:
    """D²F(u, U)/(‖u‖² + ‖U‖²) for a direction (u, U), with q = Uᵀw:

    D²F = uᵀAu + 2 uᵀBq + qᵀCq + 2 uᵀU a.  An upper bound of λ_min(∇²F) for every direction but 0.
    """
    u, V = direction.dw, direction.dV
    length = norm(u).square() + norm(V).square()
    if not length.lower > 0.0:
        return Enclosure(math.nan, -math.inf, math.inf)
    A, B, C, a = moments.A, moments.B, moments.C, moments.a
    u_norm, V_norm, w_norm = frobenius(u), frobenius(V), frobenius(w)
    roundings = gamma(2 * (len(u) + V.shape[1]) + 4)
    value = float(u @ A.center @ u) + 2.0 * float(u @ (V @ a.center))
    error = A.radius * u_norm * u_norm + 2.0 * a.radius * u_norm * V_norm
    size = frobenius(A.center) * u_norm * u_norm + 2.0 * frobenius(a.center) * u_norm * V_norm
    if w_norm:
        q = V.T @ w
        q_norm, q_error = frobenius(q), roundings * V_norm * w_norm + V.size * TINY
        reach = q_norm + q_error
        B_norm, C_norm = frobenius(B.center) + B.radius, frobenius(C.center) + C.radius
        value += 2.0 * float(u @ (B.center @ q)) + float(q @ C.center @ q)
        error += 2.0 * u_norm * (B.radius * reach + B_norm * q_error) + C.radius * reach * reach
        error += C_norm * (2.0 * q_norm + q_error) * q_error
        size += 2.0 * u_norm * B_norm * q_norm + C_norm * q_norm * q_norm
    return Enclosure.around(value, inflate(error + roundings * size + (u.size + V.size) ** 2 * TINY)) / length


def hessian_exceeds(moments: Moments, w: Array, t: float) -> bool:
    """Proven: ∇²F(w, V) ≻ −tI at w ≠ 0, by S(t) ≻ 0.  t > 0, or any t if d = 1.

    False says nothing: the point may fail it, or the proof may not reach.
    """
    d = len(w)
    if d > 1 and not t > 0.0:
        return False
    A, B, C, a = moments.A, moments.B, moments.C, moments.a
    e, s = unit_vector(w)
    turn = gamma(d + 4)  # relative error of s, and ‖e − w/‖w‖‖, each
    alpha = a.norm()
    eliminated = (alpha.square() / t).upper if d > 1 else 0.0
    blocks = (
        A.center - eliminated * (np.eye(d) - np.outer(e, e)) + t * np.eye(d),
        s * B.center + np.outer(e, a.center),
        s * s * C.center + t * np.eye(len(a.center)),
    )

    A_norm, B_norm, C_norm, a_norm = (frobenius(m.center) for m in (A, B, C, a))
    first = (
        A.radius + 4 * U * (A_norm + eliminated + abs(t)) + eliminated * (2.0 * turn + turn * turn + 4 * U)
    )
    cross = s * B.radius + a.radius + (turn + 4 * U) * (s * B_norm + a_norm)
    last = s * s * C.radius + (2.0 * turn + 6 * U) * (s * s * C_norm) + 2 * U * abs(t)
    return is_block_positive_definite(blocks, (first, cross, last))


def decided(bent: Curvature, limit: Enclosure | None, exceeds: Callable[[float], bool]) -> Curvature:
    """The same curvature, its lower end raised to −threshold where one factorisation at it proves that."""
    lambda_min = bent.lambda_min
    if limit is None or not lambda_min.lower < -limit.lower <= lambda_min.upper:
        return bent
    if not exceeds(limit.lower):
        return bent
    return replace(bent, lambda_min=lambda_min.intersect(lower=-limit.lower))


def curvature_off(M: Ball, w: Array) -> Enclosure:
    """β = min{eᵀMe : ‖e‖ = 1, e ⊥ w}, for d ≥ 2 (w = 0: λ_min(M))."""
    if not w.any():
        return smallest_eigenvalue(M)
    P = orthogonal_complement(unit_vector(w)[0])
    d = len(w)
    # The computed basis is within `turn` of an exact orthonormal basis of w^⊥.
    turn = gamma(8 * d + 40)
    size = frobenius(M.center)
    radius = M.radius + size * (turn * (2.0 + turn) + d * gamma(2 * d))
    projected = P.T @ M.center @ P
    return smallest_eigenvalue(Ball((projected + projected.T) / 2.0, inflate(radius)))


def _scale(moments: Moments, w: Array) -> float:
    s = frobenius(w)
    return frobenius(moments.A.center) + s * s * frobenius(moments.C.center)


def unit_vector(w: Array) -> tuple[Array, float]:
    """(e, s): s = ‖w‖ and e = w/s; the first unit vector at w = 0."""
    if not w.any():
        return np.eye(len(w))[0], 0.0
    scale = 2.0 ** min(math.frexp(float(np.max(np.abs(w))))[1], 1023)
    s = float(np.linalg.norm(w / scale))
    return w / scale / s, s * scale


def orthogonal_complement(e: Array) -> Array:
    """(d, d − 1) orthonormal basis of e^⊥ for a unit vector e: the Householder reflection of e to ∓e_1."""
    v = e.copy()
    v[0] += math.copysign(1.0, e[0])
    return (np.eye(len(e)) - np.outer(v, v) * (2.0 / float(v @ v)))[:, 1:]
