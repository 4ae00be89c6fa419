"""The sphere of global minima that weight decay leaves where the inputs of the block do not span R^{d1}.

Let x_1 have rank r < d1, and w_0 be the part of w_1 that is orthogonal to every x_1.  The equations of
`decayed` on it are 2·l2 (1 − t) w_0 = 0, t = ‖b‖²: at a critical point w_0 = 0 or t = 1.  With z = Vᵀw_1

    ‖w_1‖² + ‖V‖_F² ≥ 2‖w_1‖‖V‖_F ≥ 2‖z‖,   so   G ≥ Ψ(w, z) = E[ℓ(wᵀx + zᵀf)] + l2 (w_2ᵀDw_2 + 2‖z‖),

which is convex.  At a critical point with t = 1, where z = ‖w_1‖²b and ‖z‖ = ‖w_1‖², both are the same, and
∇Ψ = 0: it is a global minimum of G.  With it all w_0 of the same length are: a sphere of dimension d1 − r −
1.

One of its points is a zero of as many equations as unknowns where the sphere is cut: d1 − r − 1 entries of
w_1 are held, and of E[ℓ' x_1] = 0 those r equations are kept whose columns of x_1 are independent, beside t =
1 and the others.  Where Krawczyk's operator proves such a zero, its Jacobian is regular: near it there is one
critical point with t = 1 for each place of the held entries.  The minimisers of Ψ are a convex set, of which
there is then but one: the critical points with t = 1 are that sphere alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from resnet_cert.numerics.balls import Balls, Bools
from resnet_cert.numerics.krawczyk import Enclosed, zero_near
from resnet_cert.numerics.radius import FLOOR, Array, U
from resnet_cert.problem.losses import BuiltinLoss
from resnet_cert.problem.problem import Problem
from resnet_cert.search.critical_points import exactly_reduced
from resnet_cert.search.equations import HeadAndRatio, times
from resnet_cert.search.shells import Ints

OFF = 1e-3
"""‖b‖² is so near to 1 at the ends of descents that are tried."""


@dataclass(frozen=True)
class SphereOfMinima:
    """The critical points with w_0 ≠ 0: a sphere of global minima.

    at: (w, b) (m,) near one of them, within radius (m,).  null: (d1 − r, d1) vectors orthogonal to every x_1.
    """

    at: Array
    radius: Array
    null: Balls

    @property
    def dimension(self) -> int:
        return len(self.null.center) - 1

    def excludes(self, center: Array, reach: Array) -> Bools:
        """w_0 ≠ 0 everywhere in boxes (w, b), (B, m)."""
        return _is_off(self.null, center, reach)


def sphere_of_minima(problem: Problem, system: HeadAndRatio, ends: list[Array]) -> SphereOfMinima | None:
    """That sphere, if it has a dimension and is proven near one of some points (w, b)."""
    if problem.d1 < 2 or not isinstance(problem.loss, BuiltinLoss):  # that ℓ is convex must be known
        return None
    found = null_space(system.z[:, : problem.d1])
    if found is None or len(found[1].center) < 2:
        return None
    columns, null = found
    rest = [j for j in range(problem.d1) if j not in columns]
    for end in ends:
        w, b = end[: problem.d], end[problem.d :]
        if abs(float(b @ b) - 1.0) > OFF or not _is_off(null, end[None], np.zeros((1, len(end))))[0]:
            continue
        for free in sorted(rest, key=lambda j: -abs(w[j])):
            cut = _Cut.of(system, end, columns, [j for j in rest if j != free])
            near = cut.proven()
            if near is not None:
                return SphereOfMinima(*near, null)
    return None


def null_space(x: Array) -> tuple[list[int], Balls] | None:
    """Columns of x that are a basis of all, and a basis of the vectors orthogonal to all rows, (d − r, d), by
    rational arithmetic; None where that would take long."""
    reduced, d = exactly_reduced(x), x.shape[1]
    if reduced is None:
        return None
    free = [j for j in range(d) if j not in reduced]
    null = np.zeros((len(free), d))
    for i, j in enumerate(free):
        null[i, j] = 1.0
        for column, row in reduced.items():
            null[i, column] = float(-row[j])
    return sorted(reduced), Balls(null, U * np.abs(null) + FLOOR)


def _is_off(null: Balls, center: Array, reach: Array) -> Bools:
    d1 = null.center.shape[1]
    along = times(Balls(center[:, :d1], reach[:, :d1]), null.center)
    spread = (np.abs(center[:, :d1]) + reach[:, :d1]) @ null.radius.T
    return np.asarray(along.widened(spread * (1.0 + 1e-9)).has_no_zero.any(axis=1))


@dataclass(frozen=True)
class _Cut:
    """The equations of the critical points with t = 1 and some entries of w_1 held: a `krawczyk.System`.

    held: (m,) the place of all;  free, kept: which unknowns and which equations there are besides t = 1.
    """

    system: HeadAndRatio
    held: Array
    free: Ints
    kept: Ints

    @staticmethod
    def of(system: HeadAndRatio, at: Array, columns: list[int], held: list[int]) -> _Cut:
        m = len(at)
        plain = replace(system, rows=np.eye(m), turned=Balls.exact(system.z))
        free = np.array([j for j in range(m) if j not in held])
        return _Cut(plain, at, free, np.array([*columns, *range(system.d1, m)]))

    def __call__(self, center: Array, reach: Array) -> Enclosed:
        whole, around = np.tile(self.held, (len(center), 1)), np.zeros((len(center), len(self.held)))
        whole[:, self.free], around[:, self.free] = center, reach
        found, d = self.system(whole, around), self.system.d
        b, there = Balls.exact(whole[:, d:]), Balls(whole[:, d:], around[:, d:])
        slope = np.zeros_like(whole), np.zeros_like(whole)
        slope[0][:, d:], slope[1][:, d:] = 2.0 * there.center, 2.0 * there.radius
        jacobian = found.jacobian[:, self.kept]
        return Enclosed(
            _beside(found.at[:, self.kept], _less_1(b)),
            _beside(found.over[:, self.kept], _less_1(there)),
            Balls(
                np.concatenate([jacobian.center, slope[0][:, None]], axis=1)[:, :, self.free],
                np.concatenate([jacobian.radius, slope[1][:, None]], axis=1)[:, :, self.free],
            ),
        )

    def proven(self) -> tuple[Array, Array] | None:
        """A zero (m,) within a radius (m,), in a box around the held place."""
        found = zero_near(self, self.held[self.free])
        if found is None:
            return None
        center, radius = self.held.copy(), np.zeros_like(self.held)
        center[self.free], radius[self.free] = found
        return center, radius


def _less_1(b: Balls) -> Balls:
    """‖b‖² − 1."""
    return b.square().sum() - Balls.exact(np.ones(len(b.center)))


def _beside(equations: Balls, last: Balls) -> Balls:
    return Balls(
        np.concatenate([equations.center, last.center[:, None]], axis=1),
        np.concatenate([equations.radius, last.radius[:, None]], axis=1),
    )
