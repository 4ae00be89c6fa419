"""The losses and their derivatives, written out in balls: ℓ(p; y), ∇ℓ, ∇²ℓ for predictions p ∈ R^q.

The arguments are lists of balls; those of the squared losses may be rationals too, and their values are then
exact.  Every loss is convex, so ∇²ℓ ⪰ 0 holds without computation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flint import arb

Numbers = list[Any]


@dataclass(frozen=True)
class Derivatives:
    """ℓ, ∇ℓ and ∇²ℓ = diag(diagonal) − mass·s sᵀ with s = spread; None: no second term."""

    value: Any
    first: Numbers
    diagonal: Numbers
    mass: Any = None
    spread: Numbers | None = None

    def form(self, v: Numbers) -> Any:
        """vᵀ∇²ℓ v, for any v."""
        squares = sum((c * a * a for c, a in zip(self.diagonal, v, strict=True)), 0 * v[0])
        if self.spread is None:
            return squares
        along = sum((s * a for s, a in zip(self.spread, v, strict=True)), 0 * v[0])
        return squares - self.mass * along * along


@dataclass(frozen=True)
class Loss:
    """One loss at scale 1, of predictions p, targets y and weights ω of the outputs (None without).

    suprema: bounds of ‖∇²ℓ‖ and ‖∇³ℓ‖ over ‖p‖ ≤ reach.  allowed: may y be a target?  words: which may.
    rational: its derivatives are rational.  outputs: one, several, or either.
    """

    at: Callable[[Numbers, Numbers, Numbers | None], Derivatives]
    suprema: Callable[[arb, list[float], list[float] | None], tuple[arb, arb]]
    allowed: Callable[[float], bool] = lambda y: True
    words: str = "any target"
    rational: bool = False


# ½ Σ ω_i(p_i − y_i)², with ω_i = 1 for `squared`


def _squared(p: Numbers, y: Numbers, omega: Numbers | None) -> Derivatives:
    r = [a - b for a, b in zip(p, y, strict=True)]
    weights = [0 * p[0] + 1] * len(p) if omega is None else omega
    first = [c * a for c, a in zip(weights, r, strict=True)]
    return Derivatives(sum((a * b for a, b in zip(first, r, strict=True)), 0 * p[0]) / 2, first, weights)


def _squared_suprema(reach: arb, y: list[float], omega: list[float] | None) -> tuple[arb, arb]:
    return arb(1 if omega is None else max(omega)), arb(0)


# Sums over the outputs of a function of one of them.

Scalar = Callable[[arb, arb], tuple[arb, arb, arb]]


def _separable(scalar: Scalar) -> Callable[[Numbers, Numbers, Numbers | None], Derivatives]:
    def at(p: Numbers, y: Numbers, omega: Numbers | None) -> Derivatives:
        values, first, second = zip(*map(scalar, p, y), strict=True)
        return Derivatives(sum(values, arb(0)), list(first), list(second))

    return at


def _logistic(p: arb, y: arb) -> tuple[arb, arb, arb]:
    """log(1 + e^p) − yp, 0 ≤ y ≤ 1, with e = e^{−|p|}, so that nothing is lost where y is 0 or 1.

    Each branch is an identity that holds for every p.
    """
    e = (-abs(p)).exp()
    curvature = e / (1 + e) ** 2  # σ(p)σ(−p), even in p
    if p > 0:
        return e.log1p() + (1 - y) * p, (1 - y) - e / (1 + e), curvature
    growing = p.exp()
    return growing.log1p() - y * p, growing / (1 + growing) - y, curvature


def _pseudo_huber(p: arb, y: arb) -> tuple[arb, arb, arb]:
    """√(1+r²) − 1 = r²/(1+√(1+r²)) with r = p − y."""
    r = p - y
    root = (1 + r * r).sqrt()
    return r * r / (1 + root), r / root, 1 / root**3


def _poisson(p: arb, y: arb) -> tuple[arb, arb, arb]:
    """e^p − yp."""
    growth = p.exp()
    return growth - y * p, growth - y, growth


def _logistic_suprema(reach: arb, y: list[float], omega: list[float] | None) -> tuple[arb, arb]:
    """σ' is largest at 0; |σ''| grows up to 1/(6√3) at |p| = log(2+√3)."""
    e = (-reach).exp()
    third = 1 / (6 * arb(3).sqrt())
    return arb(0.25), e * (1 - e) / (1 + e) ** 3 if reach < (2 + arb(3).sqrt()).log() else third


def _pseudo_huber_suprema(reach: arb, y: list[float], omega: list[float] | None) -> tuple[arb, arb]:
    """ℓ'' = (1+r²)^{−3/2} falls with |r|; |ℓ'''| = 3|r|(1+r²)^{−5/2} is largest at |r| = 1/2."""
    second = third = arb(0)
    for target in y:
        nearest, farthest = (abs(arb(target)) - reach).max(arb(0)), abs(arb(target)) + reach
        peak = nearest if nearest > 0.5 else farthest if farthest < 0.5 else arb(0.5)
        second = second.max(1 / (1 + nearest**2).sqrt() ** 3)
        third = third.max(3 * peak / (1 + peak**2).sqrt() ** 5)
    return second, third


def _poisson_suprema(reach: arb, y: list[float], omega: list[float] | None) -> tuple[arb, arb]:
    growth = reach.exp()
    return growth, growth


# softmax: Σ_c y_c(log Σ_j e^{p_j} − p_c), y ≥ 0 of mass Y


def _softmax(p: Numbers, y: Numbers, omega: Numbers | None) -> Derivatives:
    """With s_j = e^{p_j}/Σe^p: ∇ℓ = Ys − y, ∇²ℓ = Y(diag(s) − ssᵀ).

    The predictions are taken from one of them, exactly as balls: no other than their differences matter.
    """
    leader = max(range(len(p)), key=lambda j: float(p[j].mid()))
    shifted = [a - p[leader] if j != leader else arb(0) for j, a in enumerate(p)]
    e = [a.exp() for a in shifted]
    rest = sum((a for j, a in enumerate(e) if j != leader), arb(0))
    total, mass = 1 + rest, sum(y, arb(0))
    s = [a / total for a in e]
    logarithm = rest.log1p()
    value = sum((target * (logarithm - a) for target, a in zip(y, shifted, strict=True)), arb(0))
    first = [mass * a - target for a, target in zip(s, y, strict=True)]
    first[leader] = (mass - y[leader]) - mass * rest / total
    return Derivatives(value, first, [mass * a for a in s], mass, s)


def _softmax_suprema(reach: arb, y: list[float], omega: list[float] | None) -> tuple[arb, arb]:
    """A variable of range √2 has variance ≤ ½ and third central moment ≤ √2³/(6√3) = √6/9."""
    mass = sum((arb(target) for target in y), arb(0))
    return mass / 2, mass * arb(6).sqrt() / 9


LOSSES: dict[str, Loss] = {
    "squared": Loss(_squared, _squared_suprema, rational=True),
    "weighted_squared": Loss(_squared, _squared_suprema, rational=True),
    "logistic": Loss(
        _separable(_logistic), _logistic_suprema, lambda y: 0.0 <= y <= 1.0, "a target from 0 to 1"
    ),
    "pseudo_huber": Loss(_separable(_pseudo_huber), _pseudo_huber_suprema),
    "poisson": Loss(_separable(_poisson), _poisson_suprema, lambda y: y >= 0.0, "a nonnegative target"),
    "softmax": Loss(_softmax, _softmax_suprema, lambda y: y >= 0.0, "a nonnegative target"),
}
