"""Theorem 4: with a skip connection to the output, stochastic gradient descent is no worse than linear.

The model is x ↦ Ux + Zf_θ(x), with one output wᵀx + vᵀf_θ(x), its objective F(z, θ) = E[ℓ(Ux + Zf_θ(x); y)]
with z = (U, Z) on the ball M1 = {‖z‖ ≤ B}, Frobenius.  Projected gradient steps, each from one fresh sample,
from z_1 = 0,

    z_{t+1} = Π(z_t − η ∇_z ℓ_t(z_t, θ_t)),   η = D/(l√T),   θ_{t+1} anything determined by the past,

have with probability at least 1 − δ

    min_t F(z_t, θ_t) ≤ (1/T) Σ_t F(z_t, θ_t) ≤ min_{‖U‖≤B} F_lin(U) + D l/√T + 2R √(2 ln(1/δ)/T),

R = min(r, B l), if every ℓ_t is l-Lipschitz in z and |ℓ_t| ≤ r on M1, for all θ_t, and D ≥ ‖z_1 − (U*, 0)‖.
The proof: online gradient descent has regret D l √T against the fixed (U*, 0), whose loss does not depend on
θ; the differences of sampled and expected losses are a martingale with steps in an interval of length 4R
(Azuma–Hoeffding).  It needs convexity in the prediction alone, whatever the number of outputs.  It speaks of
the average, hence of the best iterate; not of the last one, and not of averaged parameters unless θ is
frozen. Source: Shamir 2018, Theorem 4; Zinkevich 2003 for the regret.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from resnet_cert.numerics.enclosure import QUIET
from resnet_cert.numerics.radius import NOTHING, UNBOUNDED, Array, Radius, hypot
from resnet_cert.outcomes import RequestError
from resnet_cert.problem.convexity import prove_convex
from resnet_cert.problem.custom_loss import CustomLoss
from resnet_cert.problem.losses import Loss
from resnet_cert.problem.networks import NetworkFeatures
from resnet_cert.results import SgdConstants


@QUIET
def theorem4_constants(
    loss: Loss, x: Array, y: Array, omega: Array | None, f_norm: Array, b: float
) -> SgdConstants:
    """b = B, l, r and D of Theorem 4 over all samples.

    On M1 a prediction is at most p̄ = B·√(‖x‖² + ‖f‖²) long.  With one output, ℓ being convex, |ℓ'| ≤
    max|ℓ'(±p̄)| there and ℓ(0) − |ℓ'(0)|p̄ ≤ ℓ ≤ max ℓ(±p̄), whose larger end in absolute value is r; with
    several ‖∇ℓ‖ is at most its supremum L1 over that ball, and ℓ(0) − ‖∇ℓ(0)‖p̄ ≤ ℓ ≤ ℓ(0) + L1 p̄.  ℓ is
    l-Lipschitz in z for l = max L1·√(‖x‖² + ‖f‖²).  From z_1 = 0 no point of M1 is farther than D = B.

    Args:
        x: (n, d);  y: (n, q);  omega: (n, q) or None.
        f_norm: (n,) upper bounds of ‖f_θ(x)‖ for every θ that is met.
    Raises:
        RequestError: the loss contradicts Assumption 1, or l or r overflows.
    """
    size = hypot(Radius.row_norms(x), Radius.size(f_norm))
    reach = np.broadcast_to((size * b).upper, len(x))
    if isinstance(loss, CustomLoss):
        _require_convex(loss, reach, y[:, 0])
    middle = loss.derivatives(np.zeros_like(y), NOTHING, y, omega)
    slope = Radius.row_norms(middle.first) + middle.first_error
    lowest = middle.value - (middle.value_error + slope * size * b).upper
    if y.shape[1] == 1:
        ends = [loss.derivatives(p[:, None], NOTHING, y, omega) for p in (reach, -reach)]
        slopes = (Radius.size(end.first[:, 0]) + end.first_error for end in ends)
        steepest = Radius.of(np.maximum(*(slope.upper for slope in slopes)))
        highest = np.maximum(*(end.value + end.value_error.upper for end in ends))
    else:
        suprema = loss.suprema(Radius.of(reach), y, omega)
        steepest = UNBOUNDED if suprema is None else suprema.first
        highest = middle.value + (middle.value_error + steepest * size * b).upper
    if loss.nonnegative:
        lowest = np.maximum(lowest, 0.0)
    l = float((steepest * size).max())
    r = float(np.max(np.maximum(highest, -lowest)))
    if not (math.isfinite(l) and math.isfinite(r)):
        raise RequestError(
            f"expected a smaller radius, got {b:g}: |ℓ| or |∇ℓ| overflows on that ball", id="unfit-part"
        )
    return SgdConstants(b, l, r, b)


def require_enclosed(loss: Loss) -> None:
    """Refuse a loss whose values and derivatives have no proven bounds.

    Raises:
        RequestError: saying why.
    """
    fault = loss.why_unknown() if isinstance(loss, CustomLoss) else None
    if fault:
        raise RequestError(f"Theorem 4 needs bounds of |ℓ| and |ℓ'|: {fault}", id="theorem")


def _require_convex(loss: CustomLoss, reach: Array, y: Array) -> None:
    reason = prove_convex(loss, y, reach, np.arange(len(y)))
    if reason is not None and not loss.convex:
        claim = "loss.convex: true is your claim of it"
        raise RequestError(f"Theorem 4 needs a convex loss: {reason}; {claim}", id="not-convex")


def theorem4_terms(constants: SgdConstants, steps: int, delta: float) -> tuple[float, float]:
    """D l/√T, for the regret, and 2R√(2 ln(1/δ)/T), for the sampling: what is added to min F_lin."""
    R = min(constants.r, constants.b * constants.l)
    regret = constants.D * constants.l / math.sqrt(steps)
    return regret, 2.0 * R * math.sqrt(-2.0 * math.log(delta) / steps)


GROWTH: dict[str, Callable[[Array, int], Array]] = {
    "tanh": lambda size, width: np.minimum(size, math.sqrt(width)),
    "sigmoid": lambda size, width: np.full_like(size, math.sqrt(width)),
    "relu": lambda size, width: size,
    "gelu": lambda size, width: size,
    "gelu_tanh": lambda size, width: size,
    "silu": lambda size, width: size,
    "mish": lambda size, width: size,
    "leaky_relu": lambda size, width: size,
    "elu": lambda size, width: size,
    "selu": lambda size, width: 1.7581 * size,
    "softplus": lambda size, width: size + math.sqrt(width) * math.log(2.0),
}
"""‖σ(s)‖ at most, for s ∈ R^width with ‖s‖ ≤ size: |tanh s| ≤ min(|s|, 1), 0 ≤ sigmoid s ≤ 1,
0 ≤ softplus s ≤ max(s, 0) + ln 2, |selu s| ≤ 1.7581|s| (its slope at 0−), |σ(s)| ≤ |s| for the others."""


def layer_norms(network: NetworkFeatures) -> list[float]:
    """‖(weight, bias)‖_F of every layer: the radii of M2, in which θ may move."""
    return [
        math.sqrt(sum(float(np.sum(a * a)) for a in (layer.weight, layer.bias) if a is not None))
        for layer in network.layers
    ]


def largest_features(network: NetworkFeatures, x: Array) -> Array:
    """(n,) upper bounds of ‖f_θ(x)‖ over all θ in M2, where no layer's norm exceeds that in `network`.

    ‖Wh + c‖ ≤ ‖(W, c)‖_F·√(‖h‖² + 1) in every layer, and `GROWTH` between them.

    Raises:
        RequestError: an activation without a line in `GROWTH`.
    """
    if network.activation not in GROWTH:
        raise RequestError(
            f"expected an activation of {', '.join(GROWTH)}, got {network.activation}", id="unfit-part"
        )
    size = np.broadcast_to(Radius.row_norms(x).upper, len(x))
    for number, (layer, norm) in enumerate(zip(network.layers, layer_norms(network), strict=True)):
        if number:
            size = GROWTH[network.activation](size, layer.weight.shape[1])
        size = norm * (size if layer.bias is None else np.hypot(size, 1.0))
    return size
