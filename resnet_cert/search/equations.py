"""The equations of a critical point with weight decay, in d + k unknowns: see `decayed`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from resnet_cert.numerics import algebra
from resnet_cert.numerics.balls import Balls, product, stacked, transposed
from resnet_cert.numerics.enclosure import Ball
from resnet_cert.numerics.krawczyk import Enclosed
from resnet_cert.numerics.radius import Array, Radius, U, gamma
from resnet_cert.problem.losses import BuiltinLoss
from resnet_cert.problem.problem import Problem
from resnet_cert.problem.ranges import Slopes, separable_slopes
from resnet_cert.search.enclosed import shares


@dataclass(frozen=True)
class HeadAndRatio:
    """The equations: a `krawczyk.System`.

    z: (n, d + k) rows (x, f);  turned: their products with `rows`, enclosed.
    """

    z: Array
    y: Array
    weight: Balls
    rows: Array
    turned: Balls
    d1: int
    d: int
    decayed: Array
    l2: float
    slopes: Callable[[Balls, Array], Slopes]

    def __call__(self, center: Array, reach: Array) -> Enclosed:
        at, _ = self._equations(center, np.zeros_like(reach))
        over, jacobian = self._equations(center, reach, more=True)
        return Enclosed(at, over, jacobian)

    def _equations(self, center: Array, reach: Array, *, more: bool = False) -> tuple[Balls, Balls]:
        """The equations and their Jacobian; with more, the equation that follows from them as well."""
        d, d1 = self.d, self.d1
        m = center.shape[1]
        u = Balls(center, reach)
        w_1, b = u[:, :d1], u[:, d:]
        s = w_1.square().sum()
        beta = times(b, self.z[:, d:])  # (B, n): bᵀf
        column = Balls(s.center[:, None], s.radius[:, None])
        p = times(u[:, :d], self.z[:, :d]) + column * beta
        at: Slopes = self.slopes(p, self.y)
        # ∂p/∂w_j = x_j + 2w_j βᵀf (j < d1), ∂p/∂b_l = s f_l
        moved = []
        for j in range(d):
            part = Balls.exact(np.broadcast_to(self.z[:, j], p.center.shape))
            if j < d1:
                twice = u[:, j].times(2.0)
                part = part + Balls(twice.center[:, None], twice.radius[:, None]) * beta
            moved.append(part)
        moved += [column.times(self.z[:, j]) for j in range(d, m)]
        # r = (Dw − ‖b‖² E w_1, b) and its Jacobian
        square = b.square().sum()
        r, R = [], []
        zero = Balls.exact(np.zeros(len(center)))
        one = Balls.exact(np.ones(len(center)))
        for j in range(d):
            own = u[:, j].times(float(self.decayed[j]))
            slope = one.times(float(self.decayed[j]))
            row = [zero] * m
            if j < d1:
                own, slope = own - square * u[:, j], slope - square
                for l in range(d, m):
                    row[l] = (u[:, l] * u[:, j]).times(-2.0)
            row[j] = slope
            r.append(own)
            R.append(stacked(row))
        for l in range(d, m):
            row = [zero] * m
            row[l] = one
            r.append(u[:, l])
            R.append(stacked(row))
        values, jacobians = [], []
        all_r, all_R = stacked(r), stacked(R, axis=1)
        for i, direction in enumerate(self.rows):
            zeta = self.turned[:, i]
            along = (all_r.times(direction)).sum().times(2.0 * self.l2)
            values.append((at.first * zeta).weighted(self.weight) + along)
            curved = at.second * zeta
            turned = all_R.times(direction[:, None]).sum(axis=1).times(2.0 * self.l2)
            jacobians.append(stacked([(curved * part).weighted(self.weight) for part in moved]) + turned)
        if more:
            norm = u[:, :d].square().times(self.decayed).sum()
            values.append((at.first * p).weighted(self.weight) + norm.times(2.0 * self.l2))
        return stacked(values), stacked(jacobians, axis=1)

    def hessian(self, w: Array, V: Array, radius: float) -> Ball:
        """∇²G (d + d1·k square) wherever (w, V), (d,) and (d1, k), are within a radius of these."""
        d, d1, (n, m) = self.d, self.d1, self.z.shape
        x, f = self.z[:, :d], self.z[:, d:]
        w_, V_ = (Balls(at, np.full_like(at, radius)) for at in (w, V))
        moved = product(Balls.exact(f), transposed(V_))
        beyond = (0, 0), (0, d - d1)
        h = Balls.exact(x) + Balls(np.pad(moved.center, beyond), np.pad(moved.radius, beyond))
        at = self.slopes((h * w_).sum()[None], self.y)
        first, second = at.first[0] * self.weight, at.second[0] * self.weight
        by_V = w_[None, :d1, None] * Balls.exact(f[:, None, :])
        J = Balls(
            np.concatenate([h.center, by_V.center.reshape(n, -1)], axis=1),
            np.concatenate([h.radius, by_V.radius.reshape(n, -1)], axis=1),
        )
        H = product(transposed(J * second[:, None]), J)
        pull = product(first[None], Balls.exact(f))[0]  # E[ℓ' f]
        rest = Balls(np.zeros_like(H.center), np.zeros_like(H.center))
        for j in range(d1):
            own = slice(d + j * (m - d), d + (j + 1) * (m - d))
            rest.center[j, own] = rest.center[own, j] = pull.center
            rest.radius[j, own] = rest.radius[own, j] = pull.radius
        diagonal = np.concatenate([self.decayed, np.ones(V.size)]) * (2.0 * self.l2)
        H = H + rest + Balls.exact(np.diag(diagonal))
        center = 0.5 * H.center + 0.5 * H.center.T
        return Ball(center, Radius.norm(H.radius) + Radius.norm(center) * (4.0 * U))


def times(u: Balls, z: Array) -> Balls:
    """u·zᵀ for boxes u (B, j) and rows z (n, j): (B, n)."""
    few = gamma(z.shape[1] + 4)
    size = np.abs(z).T
    spread = (u.radius * (1.0 + few) + few * np.abs(u.center)) @ size
    return Balls(u.center @ z.T, spread * (1.0 + 8.0 * U + few) + 1e-300)


def equations(problem: Problem) -> HeadAndRatio:
    chunks = list(problem.chunks())
    z = np.concatenate([np.concatenate([chunk.x, chunk.f], axis=1) for chunk in chunks])
    y = np.concatenate([chunk.y[:, 0] for chunk in chunks])
    weight = shares(np.concatenate([chunk.weights for chunk in chunks]))
    scale = problem.loss.scale if isinstance(problem.loss, BuiltinLoss) else 1.0
    slopes = separable_slopes(problem.loss)
    assert slopes is not None
    rows = algebra.eigh((z * weight.center[:, None]).T @ z)[1].T
    turned = Balls(z @ rows.T, gamma(z.shape[1] + 4) * (np.abs(z) @ np.abs(rows).T) + 1e-300)
    return HeadAndRatio(
        z,
        y,
        weight.times(scale),
        rows,
        turned,
        problem.d1,
        problem.d,
        problem.decayed,
        problem.objective.l2,
        slopes,
    )
