"""Saddles and maxima so near to the rim of a ball that float64 does not tell on which side they lie.

Inside, z_0 is a critical point on the ball; outside, it is none.  And the rim may have one beside it, z with
∇G(z) + μz = 0, μ > 0: for a saddle with positive curvature along the rim there are both, or neither.  Ball
arithmetic tells the sides apart: with z_0 in c ± ρ, H̃ the slopes of ∇G there and Y about their inverse

    z_0 − c = −Y∇G(c) + (I − YH̃)(z_0 − c),

where ∇G(c) is known to any number of digits.  Then with h = z − z_0, H̃ the slopes between the two, and a =
zᵀadj(H̃)z

    h = −μH̃⁻¹z,   ⟨z, h⟩ = −μa/det H̃,   ‖z_0‖² − ‖z‖² = ‖h‖² − 2⟨z, h⟩.

Inside, ⟨z, h⟩ > 0.  Outside ⟨z, h⟩ < 0, or 0 < 2⟨z, h⟩ < ‖h‖², which is |μ|‖adj(H̃)z‖² > 2|a det H̃|.  Where
that is not so, the sign of μ is known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from resnet_cert.decide.decision import has_flint
from resnet_cert.numerics.balls import QUIET, Balls, product
from resnet_cert.numerics.krawczyk import inverses
from resnet_cert.numerics.radius import Array
from resnet_cert.problem.losses import BuiltinLoss
from resnet_cert.problem.problem import Point, Problem
from resnet_cert.search.enclosed import PlaneGradient

BITS = 256
MOST_SAMPLES = 2**14


@dataclass(frozen=True)
class BesideRim:
    """A critical point of G in at ± reach (2,), and whether it is inside of the ball."""

    at: Array
    reach: Array
    inside: bool


def beside_rim(problem: Problem, slopes: Balls, norm: float, at: Array, reach: Array) -> BesideRim | None:
    """The side of the one zero of ∇G in at ± reach; None where that is not known.

    Args:
        problem: of one w and one v.  slopes: (2, 2) of ∇G there.
    """
    if not (isinstance(problem.loss, BuiltinLoss) and problem.n <= MOST_SAMPLES and has_flint()):
        return None
    from flint import arb, ctx

    from resnet_cert.decide.ball import moments
    from resnet_cert.numerics.fields import BALLS

    Y = inverses(slopes.center[None])[0]
    rest = Balls.exact(np.eye(2)) - product(Balls.exact(Y), slopes)
    with ctx.workprec(BITS):
        w, v = (arb(float(entry)) for entry in at)
        here = moments(BALLS, replace(problem, point=Point(at[None, :1], at[None, 1:])), problem.loss)
        decay = 2 * arb(problem.objective.l2)
        g = [here.g_W[0, 0] + decay * w, w * here.A_f[0, 0] + decay * v]
        moved = []
        for i in (0, 1):
            step = BALLS.sum(-arb(float(Y[i, j])) * g[j] for j in (0, 1))
            spread = BALLS.sum(arb(float(rest.size[i, j])) * arb(float(reach[j])) for j in (0, 1))
            moved.append(step + arb(0, spread.upper()))
        w, v, most = w + moved[0], v + moved[1], arb(norm)
        beyond = w * w + v * v - most * most
        return BesideRim(at, reach, bool(beyond < 0)) if beyond < 0 or beyond > 0 else None


@QUIET
def sign_of_multiplier(
    found: BesideRim, gradient: PlaneGradient, mu: Balls, at: Array, reach: Array
) -> int | None:
    """That of μ at the point of the rim in at ± reach (2,), where the two are neighbours.

    Args:
        mu: encloses μ, (1,).
    """
    if (np.abs(at - found.at) > 2.0 * (reach + found.reach)).any():
        return None
    center, wide = at[None], (np.abs(at - found.at) + reach + found.reach)[None] * (1.0 + 1e-9)
    _, H = gradient.derivatives(center, wide)
    z = Balls(center, wide)
    a, b, c, d = H[:, 0, 0], H[:, 0, 1], H[:, 1, 0], H[:, 1, 1]
    det = a * d - b * c
    adj = [d * z[:, 0] - b * z[:, 1], a * z[:, 1] - c * z[:, 0]]
    across = z[:, 0] * adj[0] + z[:, 1] * adj[1]
    if not (det.has_no_zero[0] and across.has_no_zero[0]):
        return None
    bent = np.sign(det.center[0]) * np.sign(across.center[0])
    if found.inside:
        return int(-bent)
    most = mu.size[0], (adj[0].square() + adj[1].square()).upper[0]
    least = (np.nextafter(np.abs(x.center[0]) - x.radius[0], 0.0) for x in (det, across))
    ends = *most, *least
    if not np.isfinite(ends).all():
        return None
    far, square, of_det, of_across = (Fraction(float(end)) for end in ends)
    return int(bent) if far * square < 2 * of_det * of_across else None
