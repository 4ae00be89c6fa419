"""λ_min of the Hessian, for any number of outputs and any rank of W_1, exactly reduced and enclosed.

With z = (h, f), the moment Q = E[∇²ℓ ⊗ zzᵀ] and B = (dW, W_1 dV),

    D²F(dW, dV) = ⟨B, Q B⟩ + 2⟨dW_1 dV, A_f⟩,

and what is decided is λ_min of ∇²L = ∇²F + D, where D = diag(c) holds what a regulariser and a multiplier add
to each column of dW and to dV (`Shift`; D = 0 for F itself).

**The reduced matrix.**  Let E (d1, ρ) and R (k, r) be orthonormal bases of spaces that contain the rows of
W_1 and of A_f, E_⊥ one of the complement of E, T = W_1E and dV = E M + E_⊥ Z.  D²F depends on dV through M
and Y = Z R alone, for W_1 dV = T M and ⟨dW_1 dV, A_f⟩ = ⟨dW_1 E M, A_f⟩ + ⟨dW_1 E_⊥ Y, A_f R⟩.  All else are
exact eigenvectors of ∇²F of eigenvalue 0, of multiplicity (d1 − ρ)(k − r).

**S(t).**  Eliminating Z, for c_V + t > 0 (where ρ = d1, and there is no Z, for every t):

    ∇²L + tI ≻ 0   ⇔   S(t) = [ Q_hh + c + t − A_fA_fᵀ/(c_V + t) ⊗ P    Q_hf(I ⊗ T) + A_f ⊗ E ]  ≻ 0,
                              [ ·                                       TᵀQ_ff T + c_V + t     ]

P = I − EEᵀ on the first d1 columns and 0 on the others.  S(t) holds neither R nor a rank: any E will do whose
columns span the rows of W_1, so that no rank is ever decided.  One row of W_1 is normalised; several are
orthonormalised, and what the computed E misses of them is a perturbation of ∇²F with a proven bound.

**On a sphere.**  λ_min on z^⊥ for z = (z_W, z_V) is above −t iff ∇²L + tI + κzzᵀ ≻ 0 for a large κ (Finsler).
Eliminating Z again, and letting κ → ∞,

    ∇²L + tI ≻ 0 on z^⊥   ⇐   S(t) + g ζζᵀ ≻ 0,   g < (c_V + t)/‖P z_V‖²,
    ζ = (z_W − A_f(P z_V)ᵀ/(c_V + t), Eᵀz_V),

for Σ over Z of (c_V + t)‖Z‖² + 2⟨G, Z⟩ + κ(σ + ⟨Pz_V, Z⟩)² has the minimum −‖G‖²/(c_V + t) + (σ − ⟨G,
Pz_V⟩/(c_V + t))²/(1/κ + ‖Pz_V‖²/(c_V + t)), with G = P dW_1ᵀA_f.  Where P z_V = 0, S(t) is taken on ζ^⊥.

**Losses whose gradients sum to 0** (softmax): with an orthonormal basis N of 1^⊥, F depends on NᵀW alone, and
all of this is done for NᵀW, NᵀA_f and NᵀQN; the d directions 1eᵀ are exact eigenvectors of eigenvalue 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from resnet_cert.numerics.eigenvalues import (
    first_proven,
    is_block_positive_definite,
    smallest_eigenpair,
    smallest_eigenvalue,
)
from resnet_cert.numerics.enclosure import (
    QUIET,
    UNKNOWN,
    Array,
    Ball,
    Enclosure,
    difference,
    inner,
    norm,
    product,
)
from resnet_cert.numerics.matrices import largest_singular_value, skewness
from resnet_cert.numerics.radius import NOTHING, Radius, U, gamma, hypot, total
from resnet_cert.problem.problem import Direction
from resnet_cert.theory.theorems import lambda_min_at_origin

ZERO = Enclosure.exact(0.0)


class SecondOrder(Protocol):
    """The moments that ∇²F is made of: A_f (q, k), and Q with ∇²ℓ = c·I (m, m), diagonal (q, m, m) or any
    (q, q, m, m); m = d + k, or m = d at W = 0.  The radius of Q is that of the operator on R^{q×m}."""

    @property
    def A_f(self) -> Ball: ...

    @property
    def Q(self) -> Ball: ...


@dataclass(frozen=True)
class Shift:
    """D = diag(c): ρ on dV and on the columns of dW that are decayed, 0 on the others; decayed (d,) of 0,
    1."""

    rho: Enclosure
    decayed: Array

    @staticmethod
    def none(d: int) -> Shift:
        return Shift(ZERO, np.ones(d))

    def least(self, t: float) -> tuple[Array, float]:
        """c + t for the columns of dW (d,), and for dV, rounded down."""
        shifted = math.nextafter(t + self.rho.lower, -math.inf) if self.rho.lower else t
        return np.where(self.decayed == 1.0, shifted, t), shifted

    def smallest(self) -> Enclosure:
        """min c, of the columns of dW."""
        return self.rho if self.decayed.all() else ZERO

    def along(self, direction: Direction) -> Enclosure:
        """⟨D(dW, dV), (dW, dV)⟩."""
        return self.rho * (norm(direction.dW * self.decayed).square() + norm(direction.dV).square())


@dataclass(frozen=True)
class Curvature:
    """λ_min, a direction that attains it numerically, and how many eigenvalues are 0 by structure (before D).

    method: how it was found, as in the report.
    """

    lambda_min: Enclosure
    direction: Direction
    zero_multiplicity: int
    method: str = "reduced"


@dataclass(frozen=True)
class Structure:
    """What ∇²F has by the shape of the head alone, whatever the data.

    rows: a bound of the rank of W_1, or of NᵀW_1.  q: outputs, less one with an N.  nulls: the d directions
    1eᵀ.
    """

    q: int
    d: int
    d1: int
    k: int
    rows: int
    nulls: int

    @staticmethod
    def of(W: Array, d1: int, k: int, *, sum_free: bool) -> Structure:
        q, d = W.shape
        rows = int(np.count_nonzero(W[:, :d1].any(axis=1)))
        q -= sum_free
        return Structure(q, d, d1, k, min(rows, q), d if sum_free else 0)

    @property
    def zero_multiplicity(self) -> int:
        """Eigenvalues that are 0: (d1 − ρ)(k − r), with the ranks ρ of W_1 and r of A_f at most, and those of
        1eᵀ."""
        return max(self.d1 - self.rows, 0) * (self.k - min(self.q, self.k)) + self.nulls

    def ceiling(self, shift: Shift, *, on_sphere: bool) -> Enclosure | None:
        """λ_min is at most this: on {(0, dV): W_1dV = 0} and on the 1eᵀ D²F vanishes, and D is c.

        A space of two dimensions holds a direction on z^⊥.
        """
        least = 2 if on_sphere else 1
        found = None
        if max(self.d1 - self.rows, 0) * self.k >= least:
            found = shift.rho
        if self.nulls >= least and not on_sphere:
            found = shift.smallest()
        return found


@dataclass(frozen=True)
class Reduction:
    """What S(t) and the reduced Hessian are made of; q counts the rows of NᵀW where there is an N.

    moments: as they were, before N.  W (q, d), d1, N.
    A_f (q, k).  E (d1, ρ): within its radius of an exactly orthonormal E_0.  T (q, ρ): W_1E_0.
    P (d1, d1): I − E_0E_0ᵀ; None where ρ = d1, and E = I.
    first, cross, last: the blocks of D²F over (dW, M), within radii in spectral norm.
    missed: ‖∇²F − H‖ at most, where H has W_1E_0E_0ᵀ in place of W_1.
    convex: the loss is known to be, so that the Gauss–Newton part is positive semidefinite.
    """

    moments: SecondOrder
    W: Array
    d1: int
    N: Array | None
    A_f: Ball
    E: Ball
    T: Ball
    P: Ball | None
    first: Ball
    cross: Ball
    last: Ball
    missed: Radius
    structure: Structure
    convex: bool = True

    @property
    def q(self) -> int:
        return len(self.A_f.center)

    @property
    def d(self) -> int:
        return self.W.shape[1]

    @property
    def k(self) -> int:
        return self.A_f.center.shape[1]

    @property
    def rho(self) -> int:
        return self.E.center.shape[1]

    @property
    def zero_multiplicity(self) -> int:
        """Eigenvalues of ∇²F that the reduced matrix leaves out: all are 0."""
        zeros = 0 if self.P is None else (self.d1 - self.rho) * (self.k - min(self.q, self.k))
        return zeros + (0 if self.N is None else self.d)

    def lifted(self, dW: Array, dV: Array) -> Direction:
        return Direction(dW if self.N is None else self.N @ dW, dV)


@QUIET
def reduction(moments: SecondOrder, W: Array, d1: int, N: Ball | None = None) -> Reduction:
    """The parts of the reduced Hessian at (W, V), W (q, d), of which the first d1 columns are W_1.

    Args:
        N: (q, q − 1) an orthonormal basis of 1^⊥, where 1ᵀ∇ℓ = 0 for every prediction.
    """
    A_f, Q, head = moments.A_f, moments.Q, Ball.exact(W)
    if N is not None:
        A_f, head, Q = product(N.T, A_f), product(N.T, W), _in_coordinates(Q, N)
    q, d = head.center.shape
    k, W_1 = A_f.center.shape[1], head[:, :d1]
    E, T, P, missed = _row_space(W_1, k)
    dense, m = _dense(Q, q), Q.center.shape[-1]
    blocks = dense.center.reshape(q, m, q, m)
    Q_hh, Q_hf, Q_ff = blocks[:, :d, :, :d], blocks[:, :d, :, d:], blocks[:, d:, :, d:]
    hf, ff = Radius.norm(Q_hf), Radius.norm(Q_ff)
    rho, size = E.center.shape[1], q * d

    # A_f ⊗ E, E with rows of 0 for what goes round the block: ‖A_f ⊗ E − A ⊗ E_0‖ ≤ ‖A_f − A‖ + ‖A_f‖‖E −
    # E_0‖.
    wide = np.zeros((d, rho))
    wide[:d1] = E.center
    cross = np.einsum("jr,al->ajrl", wide, A_f.center).reshape(size, rho * k)
    A_norm, T_norm = Radius.norm(A_f.center), Radius.norm(T.center)
    cross_error = A_f.radius + A_norm * (E.radius + Radius.norm(E.center) * U)
    last, last_error = np.zeros((rho * k, rho * k)), NOTHING
    if T.center.any() or not T.radius.exact:
        # Q_hf(I ⊗ T): the error of Q, of at most its spectral norm in each block, meets ‖T‖ + its radius,
        # ‖Q_hf‖ the radius of T, and each entry is a sum of q products, rounded once more when A_f ⊗ E is
        # added.
        turned = np.einsum("ajbl,br->ajrl", Q_hf, T.center, optimize=True).reshape(size, rho * k)
        cross_error = total(
            cross_error,
            dense.radius * (T_norm + T.radius),
            hf * T.radius,
            hf * T_norm * gamma(q + 2) + A_norm * Radius.norm(E.center) * U,
            Radius.underflow(turned.size * (q + 1)),
        )
        cross = cross + turned
        # TᵀQ_ff T: twice the same, with a factor more of ‖T‖; 2q products and their sums.
        inside = np.einsum("ajbl,br->ajrl", Q_ff, T.center, optimize=True)
        last = np.einsum("as,ajrl->sjrl", T.center, inside, optimize=True).reshape(rho * k, rho * k)
        reach = T_norm + T.radius
        last_error = total(
            dense.radius * reach * reach,
            ff * (T_norm + reach) * T.radius,
            ff * T_norm * T_norm * gamma(2 * q + 4),
            Radius.underflow(inside.size * q) * (T_norm + Radius.of(1.0)) + Radius.underflow(last.size * q),
        )
    # B = (dW, W_1dV) of a unit vector changes by at most τ = ‖W_1 − W_1E_0E_0ᵀ‖ in its part on f, and has at
    # most the norm max(1, ‖W_1‖) before and after: |⟨B, QB⟩ − ⟨B', QB'⟩| = |⟨B − B', Q(B + B')⟩| ≤ τ‖(Q_hf,
    # Q_ff)‖·2max(1, ‖W_1‖).
    bound = (Radius.norm(W_1.center) + W_1.radius).at_least(1.0) * 2.0
    return Reduction(
        moments,
        W,
        d1,
        None if N is None else N.center,
        A_f,
        E,
        T,
        P,
        Ball(Q_hh.reshape(size, size), dense.radius),
        Ball(cross, cross_error),
        Ball(last, last_error),
        missed * bound * (hypot(hf, ff) + dense.radius),
        Structure.of(W, d1, k, sum_free=N is not None),
    )


def _row_space(W_1: Ball, k: int) -> tuple[Ball, Ball, Ball | None, Radius]:
    """(E, T, P, τ): see `Reduction`, and a bound τ of ‖W_1 − W_1E_0E_0ᵀ‖."""
    center, d1 = W_1.center, W_1.center.shape[1]
    rows = int(np.count_nonzero(center.any(axis=1)))
    if (d1 - rows) * k <= 1:  # nothing to gain
        return Ball.exact(np.eye(d1)), W_1, None, NOTHING
    if rows == 0:
        nothing = Ball.exact(np.zeros((len(center), 0)))
        return Ball.exact(np.zeros((d1, 0))), nothing, Ball.exact(np.eye(d1)), W_1.radius
    w = center[center.any(axis=1)]
    length = norm(w)
    if rows == 1 and (W_1.radius.exact or len(center) == 1) and 2.0**20 * float(W_1.radius) <= length.lower:
        # E_0 = w/‖w‖ and T = ‖w‖ in its row, exactly.  fl(w/s) is off by γ_{d1+4}; for w' within r of w,
        # ‖w/‖w‖ − w'/‖w'‖‖ ≤ 2r/‖w‖ and |‖w‖ − ‖w'‖| ≤ r.
        e, _ = unit_vector(w[0])
        turn = Radius.of(gamma(d1 + 4)) + W_1.radius * 2.0 / length.lower
        T = np.where(center.any(axis=1), length.value, 0.0)[:, None]
        E = Ball(e[:, None], turn)
        T_ball = Ball(T, Radius.of((length - length.value).magnitude) + W_1.radius)
        return E, T_ball, difference(np.eye(d1), product(E, E.T)), NOTHING
    # E_0 is the orthogonal factor of E: ‖E − E_0‖ ≤ ‖EᵀE − I‖, for |σ − 1| ≤ |σ² − 1|.
    columns = np.ldexp(w.T, -min(int(np.frexp(np.max(np.abs(w)))[1]), 1000))
    basis = np.asarray(np.linalg.qr(columns)[0], dtype=np.float64)
    E = Ball(basis, skewness(basis))
    T = product(W_1, E)
    return E, T, difference(np.eye(d1), product(E, E.T)), difference(W_1, product(T, E.T)).size()


def _in_coordinates(Q: Ball, N: Ball) -> Ball:
    """NᵀQN on the outputs, Q (q, q, m, m) or less: 2q products, and ‖N‖ ≤ 1 for the exact N."""
    center, q = Q.center, len(N.center)
    n_norm, size = Radius.norm(N.center), Radius.norm(center)
    if center.ndim == 2:  # c·I stays c·I
        return Q
    if center.ndim == 3:
        turned = np.einsum("ax,ajl,ay->xyjl", N.center, center, N.center, optimize=True)
    else:
        turned = np.einsum("ax,abjl,by->xyjl", N.center, center, N.center, optimize=True)
    error = total(
        Q.radius,
        size * N.radius * (n_norm + Radius.of(1.0)),
        size * n_norm * n_norm * gamma(2 * q + 2),
        Radius.underflow(2 * q * turned.size * q),
    )
    return Ball(turned, error)


def _dense(Q: Ball, q: int) -> Ball:
    """Q as a symmetric matrix (q·m, q·m) over R^{q×m}, row by row."""
    blocks, m = Q.center, Q.center.shape[-1]
    if q == 1:
        matrix = blocks.reshape(m, m)
    elif blocks.ndim == 2:
        matrix = np.asarray(np.kron(np.eye(q), blocks), dtype=np.float64)
    else:
        full = np.zeros((q, m, q, m))
        for a in range(q):
            if blocks.ndim == 4:
                full[a] = blocks[a].transpose(1, 0, 2)
            else:
                full[a, :, a] = blocks[a]
        matrix = full.reshape(q * m, q * m)
    if not np.array_equal(matrix, matrix.T):
        matrix = matrix / 2.0 + matrix.T / 2.0  # the nearest symmetric one is not further from the true one
        return Ball(matrix, Q.radius + Radius.norm(matrix) * (2 * U) + Radius.underflow(matrix.size))
    return Ball(matrix, Q.radius)


# --- λ_min --------------------------------------------------------------------------------------------------


@QUIET
def curvature(parts: Reduction, shift: Shift | None = None, sphere: Direction | None = None) -> Curvature:
    """λ_min(∇²F + D) enclosed, on the whole space or on z^⊥ for z = `sphere`.

    Above: the Rayleigh quotient of the computed eigenvector, and c wherever D²F vanishes by structure.
    Below: −t for a t with S(t) ≻ 0, proven by `is_block_positive_definite`, and min(ρ − ‖A_f‖, min c), for
    the Gauss–Newton part is positive semidefinite and 2|⟨dW_1dV, A_f⟩| ≤ ‖A_f‖(‖dW_1‖² + ‖dV‖²).
    """
    shift = Shift.none(parts.d) if shift is None else shift
    closed = _at_origin(parts, shift) if sphere is None else None
    if closed is not None:
        return closed
    value, direction = _smallest_eigenpair(parts, shift, sphere)
    upper = rayleigh_quotient(
        parts.moments, parts.W, parts.d1, direction, shift, sphere, convex=parts.convex
    ).upper
    ceiling = parts.structure.ceiling(shift, on_sphere=sphere is not None)
    if ceiling is not None:
        upper, value = min(upper, ceiling.upper), min(value, ceiling.value)
    lower = first_proven(
        lambda t: hessian_exceeds(parts, t, shift, sphere), value, _scale(parts), positive=False
    )
    if parts.N is not None and sphere is None:  # 1eᵀ is no direction of the reduced space
        lower = min(lower, shift.smallest().lower)
    if parts.convex:
        lower = max(lower, gauss_newton_bound(parts.moments.A_f, shift))
    zeros = max(parts.structure.zero_multiplicity - (sphere is not None), 0)
    return Curvature(Enclosure(value, lower, max(upper, lower)), direction, zeros)


def gauss_newton_bound(A_f: Ball, shift: Shift) -> float:
    """min(ρ − ‖A_f‖_2, min c) ≤ λ_min(∇²F + D) (THEORY: the Gauss–Newton part is positive semidefinite)."""
    least = (shift.rho - largest_singular_value(A_f)).lower
    return least if shift.decayed.all() else min(least, 0.0)


def _at_origin(parts: Reduction, shift: Shift) -> Curvature | None:
    """At W = 0, where ∇²ℓ = c·I and all inputs go through the block, D²F = Σ_a dW_aᵀA dW_a + 2⟨dW dV, A_f⟩:
    the pairs of singular vectors of A_f decouple, and λ_min = (β − √(β² + 4‖A_f‖²))/2, β = λ_min(A)."""
    Q, d = parts.moments.Q, parts.d
    scalar = parts.q == 1 and parts.N is None
    if parts.W.any() or d != parts.d1 or not (scalar or Q.center.ndim == 2):
        return None
    if not (parts.convex and shift.decayed.all()):
        return None
    A = Ball(Q.center.reshape(Q.center.shape[-2:])[:d, :d], Q.radius)
    lambda_min = lambda_min_at_origin(
        smallest_eigenvalue(A).intersect(lower=0.0), largest_singular_value(parts.moments.A_f)
    )
    direction = _lowest_at_origin(A.center, parts.moments.A_f.center, lambda_min)
    return Curvature(lambda_min + shift.rho, direction, parts.structure.zero_multiplicity)


def _lowest_at_origin(A: Array, A_f: Array, lambda_min: Enclosure) -> Direction:
    """On u eᵀ and −e vᵀ, e along the eigenvector of A with eigenvalue β and (u, v) the top singular pair of
    A_f, ∇²F is [[β, −α], [−α, 0]]: (λ, −α) is its lowest eigenvector."""
    (q, k), d = A_f.shape, len(A)
    if not (np.isfinite(A).all() and np.isfinite(A_f).all()):
        return Direction(np.zeros((q, d)), np.zeros((d, k)))
    _, e = smallest_eigenpair(A)
    u, alpha, v = top_singular_pair(A_f)
    if not alpha:
        return Direction(np.zeros((q, d)), np.outer(e, v))
    bend, length = lambda_min.value, math.hypot(lambda_min.value, alpha)
    return Direction(np.outer(u, e) * (bend / length), np.outer(e, v) * (alpha / length))


def top_singular_pair(M: Array) -> tuple[Array, float, Array]:
    """(u, ‖M‖, v) in float64, unproven: M v = ‖M‖u; unit vectors at M = 0."""
    if not M.any():
        return np.eye(len(M))[0], 0.0, np.eye(M.shape[1])[0]
    if len(M) == 1:
        v, alpha = unit_vector(M[0])
        return np.ones(1), alpha, v
    e = min(int(np.frexp(np.max(np.abs(M)))[1]), 1023)
    scaled = np.ldexp(M, -e)
    wide = M.shape[0] <= M.shape[1]
    gram = scaled @ scaled.T if wide else scaled.T @ scaled
    x = -smallest_eigenpair(-gram)[1]
    y, s = unit_vector(scaled.T @ x if wide else scaled @ x)
    return (x, math.ldexp(s, e), y) if wide else (y, math.ldexp(s, e), x)


def decided(found: Curvature, threshold: Enclosure | None, exceeds: Callable[[float], bool]) -> Curvature:
    """The same curvature, its lower end raised to −threshold where one factorisation at it proves that."""
    lambda_min = found.lambda_min
    if threshold is None or not lambda_min.lower < -threshold.lower <= lambda_min.upper:
        return found
    if not exceeds(threshold.lower):
        return found
    return replace(found, lambda_min=lambda_min.intersect(lower=-threshold.lower))


def reduced_hessian(parts: Reduction) -> tuple[Array, Array, Array]:
    """The reduced matrix over (dW, M, Y), row by row each, and the bases E_⊥ (d1, d1 − ρ) and R (k, r)."""
    q, d, d1, rho, k, A_f = parts.q, parts.d, parts.d1, parts.rho, parts.k, parts.A_f.center
    across = np.zeros((d1, 0))
    if parts.P is not None:
        across = np.linalg.qr(parts.E.center, mode="complete")[0][:, rho:] if rho else np.eye(d1)
    R = np.linalg.qr(A_f.T)[0] if q < k else np.eye(k)
    size, inner_size = q * d, rho * k
    H = np.zeros((size + inner_size + across.shape[1] * R.shape[1],) * 2)
    H[:size, :size] = parts.first.center
    H[:size, size : size + inner_size] = parts.cross.center
    H[size : size + inner_size, size : size + inner_size] = parts.last.center
    wide = np.zeros((d, across.shape[1]))
    wide[:d1] = across
    H[:size, size + inner_size :] = np.einsum("jp,as->ajps", wide, A_f @ R).reshape(size, -1)
    H[size:, :size] = H[:size, size:].T
    return H, across, R


def _smallest_eigenpair(parts: Reduction, shift: Shift, sphere: Direction | None) -> tuple[float, Direction]:
    """λ_min in float64 and its eigenvector lifted to (dW, dV), both unproven.

    On z^⊥: z lies in the reduced space and one more direction, along the part of z_V that it has outside, on
    which ∇²F is 0.
    """
    q, d, d1, rho, k = parts.q, parts.d, parts.d1, parts.rho, parts.k
    H, across, R = reduced_hessian(parts)
    nothing = Direction(np.zeros(parts.W.shape), np.zeros((d1, k)))
    if not np.isfinite(H).all():
        return math.nan, nothing
    H[np.diag_indices(len(H))] += shift.rho.value
    left_out = np.tile(np.where(shift.decayed == 1.0, 0.0, shift.rho.value), q)
    H[np.diag_indices(q * d)] -= left_out
    if sphere is None:
        value, vector = smallest_eigenpair(H)
        far = np.zeros((d1, k))
    else:
        E, V = parts.E.center, sphere.dV
        z = np.concatenate([sphere.dW.ravel(), (E.T @ V).ravel(), (across.T @ V @ R).ravel()])
        far = np.zeros((d1, k))
        if across.shape[1] and R.shape[1] < k:
            rest = across @ (across.T @ V)
            rest = rest - rest @ R @ R.T
            length = float(Radius.norm(rest))
            if not length:  # then z has no part outside, and any direction there will do
                rest = np.outer(across[:, 0], np.linalg.qr(R, mode="complete")[0][:, -1])
            far = rest / float(Radius.norm(rest))
            z = np.append(z, length)
            H = np.pad(H, (0, 1))
            H[-1, -1] = shift.rho.value
        basis = orthogonal_complement(unit_vector(z)[0])
        projected = basis.T @ H @ basis
        value, vector = smallest_eigenpair((projected + projected.T) / 2.0)
        vector = basis @ vector
        if far.any():
            far, vector = vector[-1] * far, vector[:-1]
    if not math.isfinite(value):
        return math.nan, nothing
    dW, M, Y = np.split(vector, [q * d, q * d + rho * k])
    dV = parts.E.center @ M.reshape(rho, k) + across @ Y.reshape(across.shape[1], R.shape[1]) @ R.T + far
    return value, parts.lifted(dW.reshape(q, d), dV)


@QUIET
def hessian_exceeds(
    parts: Reduction, t: float, shift: Shift | None = None, sphere: Direction | None = None
) -> bool:
    """Proven: ∇²F + D ≻ −tI, on z^⊥ for z = `sphere`, by S(t) ≻ 0.  Where ρ < d1, only for c_V + t > 0.

    With an N: on the directions off 1eᵀ, and not on a sphere.  False says nothing.
    """
    shift = Shift.none(parts.d) if shift is None else shift
    if not parts.missed.exact:
        t = math.nextafter(t - float(parts.missed), -math.inf)
    # S grows with c + t: what is proven for less is proven.
    columns, level = shift.least(t)
    if not (float(parts.E.radius) < 0.5 and math.isfinite(t) and (level > 0.0 or parts.P is None)):
        return False
    q, d1 = parts.q, parts.d1
    diagonal, size = np.tile(columns, q), Radius.norm(parts.first.center)
    first = parts.first.center + np.diag(diagonal)
    first_error = parts.first.radius + (size + Radius.size(diagonal).max()) * (2 * U)
    last = parts.last.center + level * np.eye(len(parts.last.center))
    last_error = parts.last.radius + (Radius.norm(parts.last.center) + Radius.size(level)) * (2 * U)
    slope = None
    if parts.P is not None:
        # A_fA_fᵀ/level as that of A_f/√level, so that nothing underflows before it is divided: √ and ÷ round
        # once each.
        root = math.sqrt(level)
        center = parts.A_f.center / root
        slope = Ball(
            center, parts.A_f.radius / (root * (1.0 - 4 * U)) + Radius.norm(center) * (4 * U) + _lost(center)
        )
        square, P = product(slope, slope.T), parts.P
        # ‖AA ⊗ P − (AA)_0 ⊗ P_0‖ ≤ ‖AA − (AA)_0‖‖P_0‖ + ‖AA‖‖P − P_0‖, and ‖P_0‖ ≤ 1; then two roundings.
        wide = np.zeros((parts.d, parts.d))
        wide[:d1, :d1] = P.center
        eliminated = np.asarray(np.kron(square.center, wide), dtype=np.float64)
        first = first - eliminated
        spread = Radius.norm(square.center) * Radius.norm(P.center)
        first_error = total(
            first_error,
            square.radius + Radius.norm(square.center) * P.radius,
            (spread * 2.0 + size + Radius.size(diagonal).max()) * (2 * U),
            _lost(eliminated),
        )
    errors = first_error, parts.cross.radius, last_error
    if sphere is None:
        return is_block_positive_definite((first, parts.cross.center, last), errors)
    S = np.block([[first, parts.cross.center], [parts.cross.center.T, last]])
    return _exceeds_on_sphere(parts, S, total(*errors), sphere, slope, level)


def _lost(products: Array) -> Radius:
    """What entrywise products and quotients can lose by underflow."""
    return Radius.underflow(products.size)


def _exceeds_on_sphere(
    parts: Reduction, S: Array, error: Radius, z: Direction, slope: Ball | None, level: float
) -> bool:
    """Proven: S' + g ζζᵀ ≻ 0 for every S' within `error` of S; see the head of this module.

    Args:
        slope: A_f/√(c_V + t), where there is a P.
    """
    z_W, g = Ball.exact(z.dW), math.inf
    if slope is not None:
        assert parts.P is not None
        outside = product(parts.P, z.dV)
        root = math.sqrt(level)
        center = outside.center / root
        scaled = Ball(
            center, outside.radius / (root * (1.0 - 4 * U)) + Radius.norm(center) * (4 * U) + _lost(center)
        )
        pulled = product(slope, scaled.T)
        wide = np.zeros(parts.W.shape)
        wide[:, : parts.d1] = pulled.center
        z_W = difference(z_W, Ball(wide, pulled.radius))
        # g < level/‖P z_V‖² = 1/‖scaled‖²
        most = scaled.size() * scaled.size()
        g = math.inf if most.exact else (1.0 - 8 * U) / float(most)
    inside = product(parts.E.T, z.dV)
    zeta = np.concatenate([z_W.center.ravel(), inside.center.ravel()])
    off = hypot(z_W.radius, inside.radius)
    j = int(np.argmax(np.abs(zeta)))
    pivot = abs(float(zeta[j])) - 2.0 * float(off)
    if not (pivot > 0.0 and np.isfinite(zeta).all() and off.known):
        return False
    # With x_j = y − rᵀx_-, r = ζ_-/ζ_j, ζᵀx = ζ_j y: a congruence by a matrix of norm at most 1 + ‖r‖.  The
    # exact r is within (1 + ‖r‖)·off/(|ζ_j| − off) and a rounding of the computed one.
    keep = np.arange(len(zeta)) != j
    r = zeta[keep] / zeta[j]
    r_norm = Radius.norm(r)
    stretch = r_norm + Radius.of(1.0)
    bend = stretch * off / pivot + r_norm * (2 * U) + _lost(r)
    size = Radius.norm(S)
    s, corner = S[keep, j], float(S[j, j])
    inner_block = S[np.ix_(keep, keep)] - np.outer(r, s) - np.outer(s, r) + corner * np.outer(r, r)
    error = total(
        error * (stretch + bend) * (stretch + bend),
        size * bend * (stretch + bend) * 2.0,
        size * stretch * stretch * (8 * U),
        Radius.underflow(4 * S.size) * stretch,
    )
    if math.isinf(g):
        empty = np.zeros((len(r), 0))
        return is_block_positive_definite((inner_block, empty, np.zeros((0, 0))), (error, NOTHING, NOTHING))
    lifted = np.array([[corner + min(g * pivot * pivot * (1.0 - 8 * U), 2.0**400 * max(1.0, float(size)))]])
    lift_error = error + Radius.size(lifted[0, 0]) * (2 * U)
    return is_block_positive_definite(
        (inner_block, (s - corner * r)[:, None], lifted), (error, error, lift_error)
    )


def _scale(parts: Reduction) -> float:
    """The size of ∇²F, or a number below any that matters where it vanishes."""
    size = Radius.norm(parts.first.center) + Radius.norm(parts.last.center)
    return max(float(size), 2.0**-800)


# --- Along a direction --------------------------------------------------------------------------------------


@QUIET
def rayleigh_quotient(
    moments: SecondOrder,
    W: Array,
    d1: int,
    direction: Direction,
    shift: Shift | None = None,
    sphere: Direction | None = None,
    *,
    convex: bool = True,
) -> Enclosure:
    """D²L(u)/‖u‖² for a direction u = (dW, dV), or for what is left of it off z = `sphere`."""
    shift = Shift.none(W.shape[1]) if shift is None else shift
    if not (moments.Q.known and moments.A_f.known):
        return UNKNOWN
    return quotient(
        lambda u: second_derivative(moments, W, d1, u),
        moments.A_f.size(),
        direction,
        shift,
        sphere,
        convex=convex,
    )


def quotient(
    second: Callable[[Direction], Enclosure],
    alpha: Radius,
    direction: Direction,
    shift: Shift,
    sphere: Direction | None,
    *,
    convex: bool = True,
) -> Enclosure:
    """D²L(u)/‖u‖² of what is left of u off z; not known on a sphere for a loss that may not be convex.

    With τ = ⟨u, z⟩/‖z‖²,  D²L(u − τz) = D²L(u) − 2τD²L(u, z) + τ²D²L(z).  D²L is a positive semidefinite form
    and 2⟨dW_1dV, A_f⟩, so |D²L(u, z)| ≤ √((D²L(u) + α‖u‖²)(D²L(z) + α‖z‖²)) + α‖u‖‖z‖ with α ≥ ‖A_f‖.

    Args:
        second: D²F along a direction.
    """

    def L(u: Direction) -> tuple[Enclosure, Enclosure]:
        return second(u) + shift.along(u), norm(u.dW).square() + norm(u.dV).square()

    value, length = L(direction)
    if not length.lower > 0.0 or (sphere is not None and not convex):
        return UNKNOWN
    if sphere is not None:
        of_z, z_length = L(sphere)
        along = inner(Ball.exact(direction.dW), Ball.exact(sphere.dW)) + inner(
            Ball.exact(direction.dV), Ball.exact(sphere.dV)
        )
        tau, a = along / z_length, Enclosure.exact(float(alpha))
        definite = (value + a * length).positive_part() * (of_z + a * z_length).positive_part()
        mixed = abs(tau) * 2.0 * (definite.sqrt() + a * (length * z_length).sqrt())
        value = value + Enclosure(0.0, -mixed.upper, mixed.upper) + tau.square() * of_z
        length = length - along.square() / z_length
    return value / length if length.lower > 0.0 else UNKNOWN


def second_derivative(moments: SecondOrder, W: Array, d1: int, direction: Direction) -> Enclosure:
    """D²F(dW, dV) = ⟨B, Q B⟩ + 2⟨dW_1 dV, A_f⟩, B = (dW, W_1dV)."""
    dW, dV = direction.dW, direction.dV
    B = _on_h(moments.Q, dW)
    if W.any():
        image = product(W[:, :d1], dV)
        B = Ball(np.concatenate([dW, image.center], axis=1), image.radius)
    return gauss_newton(moments.Q, B) + 2.0 * inner(product(dW[:, :d1], dV), moments.A_f)


def gauss_newton(Q: Ball, B: Ball) -> Enclosure:
    """⟨B, Q B⟩ = E[(Bz)ᵀ∇²ℓ(Bz)] for B (q, m) known to within a Frobenius norm.

    ‖|Q|‖ as an operator is at most ‖Q‖_F of what is stored of it, and a sum has 2qm products.
    """
    b, blocks = B.center, Q.center
    if blocks.ndim == 2:
        turned = b @ blocks
    elif blocks.ndim == 3:
        turned = np.matmul(b[:, None, :], blocks)[:, 0]
    else:
        turned = np.einsum("abjl,bl->aj", blocks, b, optimize=True)
    Q_norm, b_norm = Radius.norm(blocks.reshape(len(blocks), -1)), Radius.norm(b)
    reach = b_norm + B.radius
    error = total(
        Q.radius * reach * reach,
        Q_norm * (b_norm + reach) * B.radius,
        Q_norm * b_norm * b_norm * gamma(2 * b.size + 2),
        Radius.underflow(b.size * b.size) * (b_norm + Radius.of(1.0)),
    )
    return Enclosure.around(float(np.sum(b * turned)), error)


def hessian_size(moments: SecondOrder, W: Array, d1: int) -> Radius:
    """‖∇²F‖ at most: ‖Q‖max(1, ‖W_1‖)² + ‖A_f‖, by Frobenius norms."""
    reach = Radius.norm(W[:, :d1]).at_least(1.0)
    blocks = moments.Q.center
    Q_norm = Radius.norm(blocks.reshape(len(blocks), -1)) + moments.Q.radius
    return Q_norm * reach * reach + moments.A_f.size()


def refuting_direction(
    moments: SecondOrder, W: Array, d1: int, threshold: float, found: Direction
) -> Direction:
    """A direction that shows λ_min(∇²F) < −threshold, if that is so: for moments good to the last place.

    The one that was found; but for threshold 0 and W_1 with a kernel, any A_f ≠ 0 makes λ_min negative,
    though it may be as little as −‖A_f‖²/‖Q‖.  With W_1e = 0 and the unit vectors u, v of the largest entry
    of A_f,

        D²F(τ u eᵀ, −e vᵀ) = τ(τ E[(eᵀh)²uᵀ∇²ℓu] − 2‖e‖²|uᵀA_f v|) < 0   for 0 < τ ≤ ‖e‖²|uᵀA_f
        v|/E[(eᵀh)²uᵀ∇²ℓu].

    With one output e is orthogonal to w_1, and the direction a multiple of e, without rounding.
    """
    A_f = moments.A_f.center
    W_1 = W[:, :d1]
    if threshold > 0.0 or not A_f.any() or (d1 == 1 and W.any()):
        return found
    free = np.flatnonzero(~W_1.any(axis=0))
    e = np.zeros(d1)
    if free.size:
        e[free[0]] = 1.0
    elif len(W) == 1:
        scale = 2.0 ** min(math.frexp(float(np.max(np.abs(W_1[0, :2]))))[1], 1023)
        e[0], e[1] = W_1[0, 1] / scale, -W_1[0, 0] / scale
    else:
        return found
    a, l = np.unravel_index(int(np.argmax(np.abs(A_f))), A_f.shape)
    u = np.zeros(W.shape)
    u[a, :d1] = e
    gain = float(e @ e) * abs(float(A_f[a, l]))
    bend = gauss_newton(moments.Q, _on_h(moments.Q, u)).value
    tau = 1.0
    if bend > 0.0 and gain > 0.0:
        tau = 2.0 ** min(max(math.frexp(gain)[1] - math.frexp(bend)[1] - 2, -1000), 1000)
    dV = np.zeros((d1, A_f.shape[1]))
    dV[:, l] = -math.copysign(1.0, A_f[a, l]) * e
    return Direction(tau * u, dV)


def _on_h(Q: Ball, dW: Array) -> Ball:
    """(dW, 0), or dW where Q speaks of h alone."""
    extra = Q.center.shape[-1] - dW.shape[1]
    return Ball.exact(np.pad(dW, ((0, 0), (0, extra))))


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
