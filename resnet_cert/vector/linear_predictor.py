"""min F_lin over ‖W‖_F ≤ r, F_lin(W) = E[ℓ(Wx; y)], as a convex function of the qd entries of W.

The search and its proofs are those of one output.  For a loss with ℓ(p + c·1; y) = ℓ(p; y), F_lin does not
change when all rows of W move together.  There F_lin + (c/2)‖ΠW‖_F² is minimised, where Π puts the mean of
the rows in place of each: it has the same minimum on the ball, attained at those minimisers with ΠW = 0, for
removing ΠW shortens W and leaves F_lin as it is; and it may be curved where F_lin is flat.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from resnet_cert.compare.linear_predictor import (
    SEPARATION_ENTRIES,
    LinearMinimum,
    Sketch,
    is_located,
    mean_third_moment,
    minimum_on_ball,
    some_direction_helps,
)
from resnet_cert.compare.row_space import Unseen, unseen_directions
from resnet_cert.moments.moments import Moments, merged, residual
from resnet_cert.numerics.enclosure import (
    Array,
    Ball,
    Enclosure,
    U,
    frobenius,
    gamma,
    inflate,
    row_norms,
    upper_product,
    upper_row_norms,
)
from resnet_cert.vector.losses import Rays
from resnet_cert.vector.moments import VectorMoments, moment_sums
from resnet_cert.vector.problem import VectorChunk, VectorProblem

NOTHING = Ball(np.zeros((0, 0)), 0.0)


def best_linear_predictor(problem: VectorProblem, r: float | None, b: float) -> LinearMinimum:
    """min F_lin on ‖W‖_F ≤ r; r=None: 1.01·‖argmin F_lin‖_F if inf F_lin is attained, else b.

    w_star holds W* row by row (q·d,); of several minimisers it is the one of least norm.
    """
    return minimum_on_ball(linear_objective(problem), r, b)


def linear_objective(problem: VectorProblem) -> LinearObjective:
    """F_lin, where it needs one with a penalty on the mean of the rows, as curved as F_lin at 0."""
    plain = LinearObjective(problem)
    if not problem.loss.formulas.invariant:
        return plain
    trace = float(np.trace(plain.at(np.zeros(plain.size)).A.center))
    exponent = min(math.frexp(trace / plain.size)[1], 1023) if trace > 0.0 else 0
    return LinearObjective(problem, 2.0**exponent)


@dataclass(frozen=True)
class LinearObjective:
    """F_lin(W) + (c/2)‖ΠW‖_F² of a problem, as a function of the entries of W row by row.

    c: a power of two, or 0.
    """

    problem: VectorProblem
    c: float = 0.0

    @property
    def size(self) -> int:
        return self.problem.q * self.problem.d

    @property
    def nonnegative(self) -> bool:
        return True

    def at(self, w: Array) -> Moments:
        """The function, its gradient (as g_w) and its Hessian (as A), enclosed."""
        problem, V = self.problem, np.zeros((self.problem.d, 0))
        W = w.reshape(problem.q, problem.d)
        sums = (moment_sums(problem.loss, chunk, residual(chunk, V), W) for chunk in self._chunks())
        plain: VectorMoments = merged(sums).expectation()
        F, g, A = plain.F, Ball(plain.g_W.center.ravel(), plain.g_W.radius), plain.dense()
        if self.c:
            q = problem.q
            mean = W.mean(axis=0)
            mean_norm, error = frobenius(mean), inflate(gamma(q + 1) * frobenius(W))
            farthest = mean_norm + error
            penalty = 0.5 * self.c * q * mean_norm * mean_norm
            F = F + Enclosure(penalty, 0.0, inflate(0.5 * self.c * q * farthest * farthest))
            pull = np.tile(self.c * mean, q)
            added = g.center + pull
            g = Ball(added, inflate(g.radius + self.c * math.sqrt(q) * error + 2 * U * frobenius(added)))
            bent = A.center + self.c * np.kron(np.full((q, q), 1.0 / q), np.eye(problem.d))
            A = Ball(bent, inflate(A.radius + U * (frobenius(bent) + self.c * math.sqrt(problem.d))))
        return Moments(F, g, Ball(np.zeros(0), 0.0), A, NOTHING, NOTHING)

    def sketch(self, w: Array) -> Sketch:
        at = self.at(w)
        return Sketch(at.F.value, at.F.upper - at.F.lower, at.g_w.center, at.A.center)

    def third_moment(self, r: float) -> float:
        """E[sup_{‖p‖ ≤ r‖x‖} ‖∇³ℓ‖ · ‖x‖³]."""

        def parts() -> Iterator[tuple[Array, Array, Array | None]]:
            for chunk in self._chunks():
                x_norm = upper_row_norms(chunk.x)
                reach = upper_product(r, x_norm) * (1.0 + 2.0**-48)
                yield self.problem.loss.suprema(reach, chunk.y, chunk.omega)[2], x_norm, chunk.weight

        return mean_third_moment(parts())

    def unseen(self) -> Unseen | None:
        found = unseen_directions(lambda: (chunk.x for chunk in self._chunks()))
        if found is None:
            return None
        Z = np.kron(np.eye(self.problem.q), found.Z)
        return Unseen(np.asarray(Z, dtype=np.float64), found.sine)

    def may_be_unattained(self) -> bool:
        return any(len(helping.sample) for _, helping, _ in self._rays())

    def is_attained(self, w: Array, at: Moments) -> bool:
        """It is if the minimiser is located near w.

        It is not if some direction U never hurts and sometimes helps: v·Ux_i ≥ 0 for all helping rays v of
        all samples, = 0 for the fixed ones, and not all 0.  Such a direction is sought at w, then by a linear
        programme.
        """
        if not self.may_be_unattained() or is_located(self, w, at):
            return True
        if self.decreases_along(w):
            return False
        rows = sum(len(helping.sample) + len(fixed.sample) for _, helping, fixed in self._rays())
        if rows * self.size > SEPARATION_ENTRIES:
            return True
        helping, fixed = (np.concatenate(parts) for parts in zip(*self._recession(), strict=True))
        return not some_direction_helps(helping, fixed)

    def _chunks(self) -> Iterator[VectorChunk]:
        return self.problem.chunks(features=False)

    def _rays(self) -> Iterator[tuple[Array, Rays, Rays]]:
        """x of each chunk with the helping and the fixed rays of its samples."""
        recession = self.problem.loss.formulas.recession
        if recession is None:
            return
        for chunk in self._chunks():
            yield chunk.x, *recession(chunk.y)

    def _recession(self) -> Iterator[tuple[Array, Array]]:
        """v xᵀ/‖x‖, row by row, for the helping and for the fixed rays of each chunk."""
        for x, *rays in self._rays():
            unit = x / (row_norms(x) + 1e-300)[:, None]
            helping, fixed = (
                (ray.vector[:, :, None] * unit[ray.sample][:, None, :]).reshape(-1, self.size) for ray in rays
            )
            yield helping, fixed

    def decreases_along(self, w: Array) -> bool:
        """Proven: v·Wx_i > 0 for all helping rays of a loss that has them, and there are no fixed ones."""
        if self.problem.loss.formulas.recession is None:
            return False
        W = w.reshape(self.problem.q, self.problem.d)
        slack = gamma(sum(W.shape) + 2) * inflate(frobenius(W))
        for x, helping, fixed in self._rays():
            margins = np.einsum("ij,ij->i", helping.vector, (x @ W.T)[helping.sample])
            least = 1.5 * slack * row_norms(x)[helping.sample] * row_norms(helping.vector)
            if len(fixed.sample) or not bool(np.all(margins > least)):
                return False
        return True
