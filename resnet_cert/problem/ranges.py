"""ℓ' and ℓ'' over ranges of predictions, as narrow as they are: what a search with proof evaluates.

`losses` encloses them near one prediction by Lipschitz constants.  Over wide ranges monotonicity says more:
ℓ' of a convex loss rises, and ℓ'' of each one here falls with the distance from where it is largest, or rises
with p.  Elementary functions carry the assumption of `losses`; `SLACK` pays for them and for the few
roundings beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from resnet_cert.numerics.balls import Balls, stacked
from resnet_cert.numerics.radius import FLOOR, Array, Radius, U
from resnet_cert.problem.custom_loss import CustomLoss
from resnet_cert.problem.losses import BuiltinLoss, Loss

SLACK = 128.0 * U
"""Relative: of a product of at most three elementary functions and ten roundings."""


class Slopes(NamedTuple):
    """ℓ' and ℓ'' of each output, of the shape of the predictions."""

    first: Balls
    second: Balls


def separable_slopes(loss: Loss) -> Callable[[Balls, Array], Slopes] | None:
    """p, y ↦ ℓ' and ℓ'' elementwise, at scale 1 and without omega; None where outputs are coupled or nothing
    is known of the loss."""
    if isinstance(loss, CustomLoss):
        return None if loss.why_unknown() else lambda p, y: _of_custom(loss, p, y)
    if isinstance(loss, BuiltinLoss):
        return _SEPARABLE.get("squared" if loss.kind == "weighted_squared" else loss.kind)
    return None


def _squared(p: Balls, y: Array) -> Slopes:
    return Slopes(p - Balls.exact(y), Balls.exact(np.ones_like(p.center)))


def _sigmoid(p: Array) -> Array:
    e = np.exp(-np.abs(p))
    return np.where(p > 0.0, 1.0, e) / (1.0 + e)


def _logistic(p: Balls, y: Array) -> Slopes:
    """ℓ' = (1 − y)σ(p) − yσ(−p), of which both terms rise;  ℓ'' = e/(1+e)², e = e^{−|p|}."""
    low, high = p.lower, p.upper
    first = Balls.between(
        (1.0 - y) * _sigmoid(low) * (1.0 - SLACK) - y * _sigmoid(-low) * (1.0 + SLACK),
        (1.0 - y) * _sigmoid(high) * (1.0 + SLACK) - y * _sigmoid(-high) * (1.0 - SLACK),
    ).widened(FLOOR)
    near, far = _distances(low, high)
    e_near, e_far = np.exp(-near), np.exp(-far)
    second = _rising(e_far / (1.0 + e_far) ** 2, e_near / (1.0 + e_near) ** 2, 0.25)
    return Slopes(first, second)


def _pseudo_huber(p: Balls, y: Array) -> Slopes:
    """ℓ' = r/√(1 + r²),  ℓ'' = (1 + r²)^{−3/2}, r = p − y."""
    r = p - Balls.exact(y)
    low, high = r.lower, r.upper
    ends = low / np.hypot(1.0, low), high / np.hypot(1.0, high)
    first = Balls.between(
        np.maximum(ends[0] - SLACK * np.abs(ends[0]), -1.0),
        np.minimum(ends[1] + SLACK * np.abs(ends[1]), 1.0),
    )
    near, far = _distances(low, high)
    return Slopes(first.widened(FLOOR), _rising(np.hypot(1.0, far) ** -3.0, np.hypot(1.0, near) ** -3.0, 1.0))


def exponential(p: Balls) -> Balls:
    """e^p."""
    return _rising(np.exp(p.lower), np.exp(p.upper), np.inf)


def _poisson(p: Balls, y: Array) -> Slopes:
    rate = exponential(p)
    return Slopes(rate - Balls.exact(y), rate)


def _rising(low: Array, high: Array, most: float) -> Balls:
    """A positive function between its values at two ends, as computed, that never exceeds `most`."""
    return Balls.between(low * (1.0 - SLACK), np.minimum(high * (1.0 + SLACK), most)).widened(FLOOR)


def _distances(low: Array, high: Array) -> tuple[Array, Array]:
    """The least and the largest absolute value in [low, high]."""
    return np.maximum(np.maximum(low, -high), 0.0), np.maximum(-low, high)


def _of_custom(loss: CustomLoss, p: Balls, y: Array) -> Slopes:
    shape = p.center.shape
    flat, targets = p.center.reshape(-1, 1), np.broadcast_to(y, shape).reshape(-1, 1)
    at = loss.derivatives(flat, Radius.of(p.radius.ravel()), targets)
    first_error, second_error = (np.asarray(e.upper).reshape(-1) for e in (at.first_error, at.second_error))
    second = np.asarray(at.second).reshape(-1)
    return Slopes(
        Balls(
            np.asarray(at.first).reshape(shape), np.broadcast_to(first_error, flat.shape[0]).reshape(shape)
        ),
        Balls(second.reshape(shape), np.broadcast_to(second_error, flat.shape[0]).reshape(shape)),
    )


_SEPARABLE: dict[str, Callable[[Balls, Array], Slopes]] = {
    "squared": _squared,
    "logistic": _logistic,
    "pseudo_huber": _pseudo_huber,
    "poisson": _poisson,
}


def inverse_slope(loss: BuiltinLoss) -> Callable[[Array, Array], Array] | None:
    """g, y ↦ the p with ℓ'(p; y) = g elementwise, at scale 1, in float64: NaN or infinite where none has.

    Returns:
        None where outputs are coupled.
    """
    return _INVERSE.get("squared" if loss.kind == "weighted_squared" else loss.kind)


_INVERSE: dict[str, Callable[[Array, Array], Array]] = {
    "squared": lambda g, y: y + g,
    "logistic": lambda g, y: np.log((y + g) / ((1.0 - y) - g)),
    "pseudo_huber": lambda g, y: y + g / np.sqrt((1.0 - g) * (1.0 + g)),
    "poisson": lambda g, y: np.log(y + g),
}


def softmax_shares(p: Balls) -> Balls:
    """s = softmax(p) over the last axis: s_j = 1/Σ_l e^{p_l − p_j} falls with every p_l − p_j."""
    low, high = p.lower, p.upper
    q = low.shape[-1]
    slack = SLACK + (q + 4.0 * np.maximum(np.abs(low), np.abs(high)).max(axis=-1)) * (2.0 * U)
    parts = []
    for j in range(q):
        others = [l for l in range(q) if l != j]
        most = 1.0 + np.exp(high[..., others] - low[..., j, None]).sum(axis=-1)
        least = 1.0 + np.exp(low[..., others] - high[..., j, None]).sum(axis=-1)
        parts.append(
            Balls.between((1.0 - slack) / most, np.minimum((1.0 + slack) / least, 1.0)).widened(FLOOR)
        )
    return stacked(parts)
