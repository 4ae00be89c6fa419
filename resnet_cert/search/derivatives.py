"""Functions that a search goes down, with gradients and Hessian-vector products: float64, nothing proven.

Everything is NumPy, from the losses' own ℓ, ∇ℓ, ∇²ℓ: nothing has to be compiled for a problem.  A point is
one vector z; what it stands for, a head (W, V) or a predictor (U, Z) on (x, f), its function knows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from resnet_cert.numerics import algebra
from resnet_cert.numerics.balls import Bools
from resnet_cert.numerics.radius import NOTHING, Array
from resnet_cert.problem.problem import BOUNDARY_WIDTH, HELD_BYTES, Chunk, Direction, Point, Problem
from resnet_cert.problem.span import gradient_basis

RANK = 1e-9
"""A singular value of W_1 that small, relative to the largest one, is taken for 0."""


class Function(Protocol):
    """A smooth function of a vector.  entries: the numbers of all predictions."""

    @property
    def entries(self) -> int: ...

    def at(self, z: Array, /) -> tuple[float, Array]:
        """The value, infinite where it overflows, and the gradient."""
        ...

    def hessian_product(self, z: Array, tangent: Array, /) -> Array:
        """The Hessian times a vector, or times each row of a stack of them."""
        ...


class _Means:
    """Sums over the samples, E[ℓ] and what follows from ∇ℓ and ∇²ℓ; the last predictions are kept."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        fits = problem.n * (problem.d + problem.k + problem.q) * 8 <= HELD_BYTES
        self._held = list(problem.chunks()) if fits else None
        self._total = sum(float(np.sum(chunk.weights)) for chunk in self.chunks())
        self._last: tuple[Array, list[tuple[Array, Array]]] | None = None

    @property
    def entries(self) -> int:
        return self.problem.n * self.problem.q

    def chunks(self) -> list[Chunk]:
        return self._held if self._held is not None else list(self.problem.chunks())

    def share(self, chunk: Chunk) -> Array:
        """π_i/Σπ (m, 1)."""
        return (chunk.weights / self._total)[:, None]

    def losses(self, chunk: Chunk, p: Array) -> tuple[float, Array, Array]:
        """π·ℓ, π∇ℓ (m, q) and ∇²ℓ as the loss has it, of the samples of a chunk."""
        at = self.problem.loss.derivatives(p, NOTHING, chunk.y, chunk.omega)
        share = self.share(chunk)
        return float(share[:, 0] @ at.value), share * at.first, at.second

    def bent(self, chunk: Chunk, second: Array, moved: Array) -> Array:
        """π∇²ℓ·moved (..., m, q)."""
        if second.ndim == 3:
            return self.share(chunk) * np.einsum("mij,...mj->...mi", second, moved)
        return self.share(chunk) * (second if second.ndim == 2 else second[:, None]) * moved


class Objective(_Means):
    """G(z) = F(W, V) + l2·‖z‖², z = (W, V) row by row, without a ball.

    p = Wx + W_1V f costs O(q(d + k)) a sample, where W(x + EVf) costs O(d_1 k) more.  G and ∇G at the last z
    are kept.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.split = problem.q * problem.d
        decayed = np.tile(problem.decayed, problem.q)
        self.decay = problem.objective.l2 * np.append(decayed, np.ones(problem.d1 * problem.k))

    def head(self, z: Array) -> tuple[Array, Array]:
        """W (..., q, d) and V (..., d1, k)."""
        problem, stack = self.problem, z.shape[:-1]
        W, V = z[..., : self.split], z[..., self.split :]
        return W.reshape(*stack, problem.q, problem.d), V.reshape(*stack, problem.d1, problem.k)

    def at(self, z: Array) -> tuple[float, Array]:
        if self._last is None or not np.array_equal(self._last[0], z):
            self._here = self._evaluated(z)
        return self._here

    def _evaluated(self, z: Array) -> tuple[float, Array]:
        W, V = self.head(z)
        W_1 = W[:, : self.problem.d1]
        value, g_x, A_f, kept = 0.0, np.zeros_like(W), np.zeros((len(W), V.shape[1])), []
        Z = W_1 @ V
        for chunk in self.chunks():
            p = chunk.x @ W.T + chunk.f @ Z.T
            part, first, second = self.losses(chunk, p)
            value += part
            g_x += first.T @ chunk.x
            A_f += first.T @ chunk.f
            kept.append((first, second))
        g_x[:, : self.problem.d1] += A_f @ V.T
        self._last = (z.copy(), kept)
        self._A_f = A_f
        value += float(self.decay @ (z * z))
        gradient = np.concatenate([g_x.ravel(), (W_1.T @ A_f).ravel()]) + 2.0 * self.decay * z
        return (math.inf if math.isnan(value) else value), gradient

    def hessian_product(self, z: Array, tangent: Array) -> Array:
        if self._last is None or not np.array_equal(self._last[0], z):
            self.at(z)
        assert self._last is not None
        (W, V), (dW, dV) = self.head(z), self.head(tangent)
        d1 = self.problem.d1
        W_1, dW_1 = W[:, :d1], dW[..., :d1]
        moved_f = dW_1 @ V + W_1 @ dV
        by_x, by_f = np.zeros_like(dW), np.zeros_like(moved_f)
        for chunk, (_, second) in zip(self.chunks(), self._last[1], strict=True):
            bent = self.bent(chunk, second, chunk.x @ dW.mT + chunk.f @ moved_f.mT).mT
            by_x += bent @ chunk.x
            by_f += bent @ chunk.f
        by_x[..., :d1] += by_f @ V.T + self._A_f @ dV.mT
        by_V = W_1.T @ by_f + dW_1.mT @ self._A_f
        return _rows(by_x, by_V) + 2.0 * self.decay * tangent

    def flat(self, point: Point | Direction) -> Array:
        W, V = (point.dW, point.dV) if isinstance(point, Direction) else (point.head, point.V)
        return np.concatenate([W.ravel(), V.ravel()])

    def direction(self, z: Array) -> Direction:
        W, V = self.head(z)
        return Direction(W.copy(), V.copy())

    def point(self, z: Array) -> Point:
        W, V = self.head(z)
        if self.problem.has_bias:
            return Point(W[:, :-1].copy(), V.copy(), W[:, -1].copy())
        return Point(W.copy(), V.copy())


class Augmented(_Means):
    """Φ(U, Z) = E[ℓ(Ux + Zf; y)], z = (U, Z) ∈ R^{q×(d+k)} row by row: convex (THEORY: the best of a block).
    Φ(U, Z) = E[ℓ(Ux + Zf; y)], z = (U, Z) ∈ R^{q×(d+k)} row by row: convex (THEORY: the best of a block)."""

    def at(self, z: Array) -> tuple[float, Array]:
        problem = self.problem
        A = z.reshape(problem.q, problem.d + problem.k)
        value, gradient, kept = 0.0, np.zeros_like(A), []
        for chunk in self.chunks():
            part, first, second = self.losses(
                chunk, chunk.x @ A[:, : problem.d].T + chunk.f @ A[:, problem.d :].T
            )
            value += part
            gradient[:, : problem.d] += first.T @ chunk.x
            gradient[:, problem.d :] += first.T @ chunk.f
            kept.append((first, second))
        self._last = (z.copy(), kept)
        return (math.inf if math.isnan(value) else value), gradient.ravel()

    def hessian_product(self, z: Array, tangent: Array) -> Array:
        if self._last is None or not np.array_equal(self._last[0], z):
            self.at(z)
        assert self._last is not None
        d = self.problem.d
        dA = tangent.reshape(*tangent.shape[:-1], self.problem.q, -1)
        product = np.zeros_like(dA)
        for chunk, (_, second) in zip(self.chunks(), self._last[1], strict=True):
            moved = chunk.x @ dA[..., :d].mT + chunk.f @ dA[..., d:].mT
            bent = self.bent(chunk, second, moved).mT
            product[..., :d] += bent @ chunk.x
            product[..., d:] += bent @ chunk.f
        return product.reshape(tangent.shape)

    def hessian(self, z: Array) -> Array:
        """∇²Φ, dense."""
        if self._last is None or not np.array_equal(self._last[0], z):
            self.at(z)
        assert self._last is not None
        q, m = self.problem.q, self.problem.d + self.problem.k
        H = np.zeros((q, m, q, m))
        for chunk, (_, second) in zip(self.chunks(), self._last[1], strict=True):
            data, share = np.concatenate([chunk.x, chunk.f], axis=1), self.share(chunk)
            for i in range(q):
                for j in range(i, q) if second.ndim == 3 else (i,):
                    weight = (
                        second[:, i, j] if second.ndim == 3 else second if second.ndim == 1 else second[:, i]
                    )
                    block = (share * weight[:, None] * data).T @ data
                    H[i, :, j] += block
                    if j > i:
                        H[j, :, i] += block.T
        return H.reshape(q * m, q * m)


class Decayed:
    """min over V with U_1V = Z of G(NU, V), for U_1 of full row rank: with K = (U_1U_1ᵀ)⁻¹

        Φ(NU, NZ) + l2(‖U‖_F² + tr ZᵀKZ),   z = (U, Z) ∈ R^{q'×(d+k)} row by row.

    N (q, q') are orthonormal columns that span the gradients of the loss: decay leaves no more of W.  Valleys
    U_1V = const, along which G falls by l2 alone, are straight in these coordinates.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem, self.l2 = problem, problem.objective.l2
        self.Phi, self.N = Augmented(problem), basis(problem)
        self._last: Array | None = None

    @property
    def entries(self) -> int:
        return self.Phi.entries

    def _parts(self, z: Array) -> tuple[Array, Array, Array]:
        A = z.reshape(*z.shape[:-1], self.N.shape[1], -1)
        return A[..., : self.problem.d], A[..., : self.problem.d1], A[..., self.problem.d :]

    def _whole(self, z: Array) -> Array:
        """N(U, Z)."""
        A = self.N @ z.reshape(*z.shape[:-1], self.N.shape[1], -1)
        return A.reshape(*z.shape[:-1], -1)

    def _within(self, slope: Array) -> Array:
        """Nᵀ of derivatives in N(U, Z)."""
        A = self.N.T @ slope.reshape(*slope.shape[:-1], len(self.N), -1)
        return A.reshape(*slope.shape[:-1], -1)

    def at(self, z: Array) -> tuple[float, Array]:
        value, slope = self.Phi.at(self._whole(z))
        W, U_1, Z = self._parts(z)
        self._last, self._K = z.copy(), _inverse_of_square(U_1)
        self._B = B = self._K @ Z
        decayed = self.problem.decayed * W
        penalty = float(np.sum(decayed * W) + np.sum(Z * B))
        by_W = 2.0 * decayed
        by_W[:, : self.problem.d1] -= 2.0 * B @ (B.T @ U_1)
        gradient = self._within(slope) + self.l2 * np.concatenate([by_W, 2.0 * B], axis=1).ravel()
        return value + self.l2 * penalty if penalty >= 0.0 else math.inf, gradient

    def hessian_product(self, z: Array, tangent: Array) -> Array:
        if self._last is None or not np.array_equal(self._last, z):
            self.at(z)
        product = self._within(self.Phi.hessian_product(self._whole(z), self._whole(tangent)))
        (_, U_1, _), (dW, dU, dZ) = self._parts(z), self._parts(tangent)
        B = self._B
        dB = self._K @ (dZ - (dU @ U_1.T + U_1 @ dU.mT) @ B)
        by_W = 2.0 * self.problem.decayed * dW
        by_W[..., : self.problem.d1] -= 2.0 * (dB @ (B.T @ U_1) + B @ (dB.mT @ U_1) + B @ (B.T @ dU))
        return product + self.l2 * np.concatenate([by_W, 2.0 * dB], axis=-1).reshape(tangent.shape)


def basis(problem: Problem) -> Array:
    """(q, q') orthonormal to rounding: the space that ∇ℓ spans, all of R^q or 1^⊥."""
    N = gradient_basis(problem)
    return np.eye(problem.q) if N is None else N.center


def _rows(W: Array, V: Array) -> Array:
    """(W, V) row by row, (..., q·d + d1·k)."""
    stack = W.shape[:-2]
    return np.concatenate([W.reshape(*stack, -1), V.reshape(*stack, -1)], axis=-1)


def _inverse_of_square(A: Array) -> Array:
    """(AAᵀ)⁻¹ by the singular values of A; NaN where float64 knows none."""
    left, s, _ = algebra.svd(A)
    scaled = left / np.where(s > RANK * s[0], s, np.nan)
    return np.asarray(scaled @ scaled.T, dtype=np.float64)


@dataclass
class OnBall:
    """G on the ball ‖z‖ ≤ ρ, as φ(y) = G(z(y)), z(y) = ρ·(y without its last entry)/‖y‖.

    The ball is the shadow of a sphere of one dimension more, so that φ has no constraint.  Its stationary
    points of second order are those of G on the ball: inside, z ↦ y is a change of coordinates; on the rim
    the last entry is 0, and the curvature of φ along it is the multiplier μ of the constraint.

    With s = ‖y‖, u = y/s and P = I − uuᵀ, and up to the last entry, Dz(y) = (ρ/s)P and
    D²z(y)[η, ξ] = −(ρ/s²)((u·η)Pξ + (u·ξ)Pη + ⟨Pη, ξ⟩u).

    held: which coordinates of z the ball speaks of; the others follow the last entry of y unchanged.
    """

    inside: Objective
    norm: float
    held: Bools

    @property
    def entries(self) -> int:
        return self.inside.entries

    def coordinates(self, z: Array) -> Array:
        """y with z(y) = z, or the point of the ball nearest to z."""
        ball, free = z[self.held], z[~self.held]
        length = float(np.linalg.norm(ball))
        if length >= self.norm * (1.0 - BOUNDARY_WIDTH):
            ball, last = ball * (self.norm / length), 0.0
        else:
            last = math.sqrt(self.norm - length) * math.sqrt(self.norm + length)
        return np.concatenate([ball, [last], free])

    def z(self, y: Array) -> Array:
        u, _, free = self._parts(y)
        z = np.empty(len(self.held))
        z[self.held], z[~self.held] = u[:-1] * self.norm, free
        return z

    def _parts(self, y: Array) -> tuple[Array, float, Array]:
        m = int(np.sum(self.held)) + 1
        s = float(np.linalg.norm(y[:m]))
        return y[:m] / s, s, y[m:]

    def at(self, y: Array) -> tuple[float, Array]:
        G, gradient = self.inside.at(self.z(y))
        u, s, _ = self._parts(y)
        g = np.append(gradient[self.held], 0.0)
        return G, np.concatenate([self.norm / s * _off(u, g), gradient[~self.held]])

    def hessian_product(self, y: Array, tangent: Array) -> Array:
        z, (u, s, _) = self.z(y), self._parts(y)
        factor = self.norm / s
        m = len(u)
        turned, free = tangent[..., :m], tangent[..., m:]
        along, across = (turned @ u)[..., None], _off(u, turned)
        step = np.empty((*tangent.shape[:-1], len(z)))
        step[..., self.held], step[..., ~self.held] = factor * across[..., :-1], free
        g = np.append(self.inside.at(z)[1][self.held], 0.0)
        product = self.inside.hessian_product(z, step)
        bent = np.concatenate([product[..., self.held], np.zeros_like(along)], axis=-1)
        curved = along * _off(u, g) + (across @ g)[..., None] * u + float(g @ u) * across
        return np.concatenate([factor * (_off(u, bent) - curved / s), product[..., ~self.held]], axis=-1)


def _off(u: Array, v: Array) -> Array:
    """The part of v that is orthogonal to a unit vector u."""
    return v - (v @ u)[..., None] * u


def dense_hessian(function: Function, z: Array) -> Array:
    """∇² of a function at z (m,): (m, m), symmetric."""
    m = len(z)
    few = max(1, STACKED // function.entries)
    stacks = [function.hessian_product(z, np.eye(m)[i : i + few]) for i in range(0, m, few)]
    H = np.concatenate(stacks)
    return (H + H.T) / 2.0


def lowest_curvature(function: Function, z: Array, *, seed: int = 0, most: int = 60) -> tuple[float, Array]:
    """λ_min of the Hessian and its unit eigenvector, by dense algebra or by Lanczos's method."""
    m = len(z)
    if m <= DENSE:
        H = dense_hessian(function, z)
        if not np.isfinite(H).all():
            return math.nan, np.zeros(m)
        eigenvalues, Q = algebra.eigh(H)
        return float(eigenvalues[0]), Q[:, 0]
    v = np.random.default_rng(seed).standard_normal(m)
    v /= np.linalg.norm(v)
    basis, alphas, betas = [v], [], []
    for _ in range(most):
        w = function.hessian_product(z, basis[-1])
        if not np.isfinite(w).all():
            return math.nan, np.zeros(m)
        alphas.append(float(w @ basis[-1]))
        for _ in range(2):
            w = w - np.stack(basis).T @ (np.stack(basis) @ w)
        beta = float(np.linalg.norm(w))
        if beta <= 1e-12 * max(map(abs, alphas)):
            break
        betas.append(beta)
        basis.append(w / beta)
    T = np.diag(alphas) + np.diag(betas[: len(alphas) - 1], 1) + np.diag(betas[: len(alphas) - 1], -1)
    eigenvalues, Q = algebra.eigh(T)
    return float(eigenvalues[0]), np.stack(basis[: len(alphas)]).T @ Q[:, 0]


DENSE = 160
"""Up to so many coordinates a Hessian is formed,"""
STACKED = 2**20
"""and so many predictions at once are moved along its columns."""
