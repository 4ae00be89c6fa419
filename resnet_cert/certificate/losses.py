"""The four losses and their derivatives, written out: ℓ, ℓ', ℓ'' in p, and the suprema of |ℓ''|, |ℓ'''|.

The arguments are balls; those of `squared` may be rationals too, and its values are then exact.  Each
loss is convex, so ℓ'' ≥ 0 holds without computation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flint import arb

Derivatives = tuple[Any, Any, Any]


def squared(p: Any, y: Any) -> Derivatives:
    """ℓ = (p−y)²/2."""
    r = p - y
    return r * r / 2, r, 1


def logistic(p: arb, y: arb) -> Derivatives:
    """ℓ = log(1 + e^{−z}) with z = yp, y = ±1; each branch is an identity that holds for every z."""
    z = y * p
    e = (-abs(z)).exp()
    curvature = e / (1 + e) ** 2  # σ(z)σ(−z), even in z
    if z > 0:
        return e.log1p(), -y * e / (1 + e), curvature
    growing = z.exp()
    return growing.log1p() - z, -y / (1 + growing), curvature


def pseudo_huber(p: arb, y: arb) -> Derivatives:
    """ℓ = √(1+r²) − 1 = r²/(1+√(1+r²)) with r = p − y."""
    r = p - y
    q = (1 + r * r).sqrt()
    return r * r / (1 + q), r / q, 1 / q**3


def poisson(p: arb, y: arb) -> Derivatives:
    """ℓ = e^p − yp."""
    growth = p.exp()
    return growth - y * p, growth - y, growth


def squared_suprema(reach: arb, y: arb) -> tuple[arb, arb]:
    return arb(1), arb(0)


def logistic_suprema(reach: arb, y: arb) -> tuple[arb, arb]:
    """ℓ'' is largest at 0; |ℓ'''| grows up to 1/(6√3) at |p| = log(2+√3)."""
    e = (-reach).exp()
    third = 1 / (6 * arb(3).sqrt())
    return arb(0.25), e * (1 - e) / (1 + e) ** 3 if reach < (2 + arb(3).sqrt()).log() else third


def pseudo_huber_suprema(reach: arb, y: arb) -> tuple[arb, arb]:
    """ℓ'' = (1+r²)^{−3/2} falls with |r|; |ℓ'''| = 3|r|(1+r²)^{−5/2} is largest at |r| = 1/2."""
    nearest, farthest = (abs(y) - reach).max(arb(0)), abs(y) + reach
    peak = nearest if nearest > 0.5 else farthest if farthest < 0.5 else arb(0.5)
    return 1 / (1 + nearest**2).sqrt() ** 3, 3 * peak / (1 + peak**2).sqrt() ** 5


def poisson_suprema(reach: arb, y: arb) -> tuple[arb, arb]:
    growth = reach.exp()
    return growth, growth


DERIVATIVES: dict[str, Callable[[Any, Any], Derivatives]] = {
    "squared": squared,
    "logistic": logistic,
    "pseudo_huber": pseudo_huber,
    "poisson": poisson,
}

SUPREMA: dict[str, Callable[[arb, arb], tuple[arb, arb]]] = {
    "squared": squared_suprema,
    "logistic": logistic_suprema,
    "pseudo_huber": pseudo_huber_suprema,
    "poisson": poisson_suprema,
}
"""Upper bounds of |ℓ''| and |ℓ'''| over |p| ≤ reach."""
