"""Losses as users write them, each twice: in JAX, and as a power series in p over Arb balls.

The series of a loss is differentiated by Arb, not by us: its coefficients are ℓ, ℓ', ℓ''/2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flint import arb, arb_series, ctx

BITS = 2500
"""e^{−710} beside 1 takes 1,024 bits."""


@dataclass(frozen=True)
class UserLoss:
    """function in JAX; series(p, y, at) with p the series at + t, where `at` and y decide branches."""

    function: Callable[[Any, Any], Any]
    series: Callable[[Any, Any, float], Any]


def truth(loss: UserLoss, p: Any, y: float) -> tuple[arb, arb, arb]:
    """ℓ, ℓ', ℓ'' at (p, y) as balls; p a float or an exact rational."""
    with ctx.workprec(BITS):
        value = loss.series(arb_series([arb(p), 1], prec=3), arb(y), float(p))
        coefficients = [*arb_series(value, prec=3).coeffs(), arb(0), arb(0), arb(0)]
        return coefficients[0], coefficients[1], 2 * coefficients[2]


def _softplus(x: Any, positive: bool) -> Any:
    """log(1 + e^x), so written that nothing is lost for large |x|."""
    return x + (1 + (-x).exp()).log() if positive else (1 + x.exp()).log()


def _logistic(p: Any, y: Any, at: float) -> Any:
    return _softplus(-y * p, float(y) * at < 0)


def _log_cosh(p: Any, y: Any, at: float) -> Any:
    r = p - y if arb(at) > y else y - p
    return r + (1 + (-2 * r).exp()).log() - arb(2).log()


def _huber(p: Any, y: Any, at: float) -> Any:
    r = p - y if arb(at) > y else y - p
    return r * r / 2 if abs(arb(at) - y) < 1 else r - arb("0.5")


def _power(exponent: float) -> Callable[[Any, Any, float], Any]:
    return lambda p, y, at: (p - y if arb(at) > y else y - p) ** arb(exponent)


def _smooth_hinge(p: Any, y: Any, at: float) -> Any:
    """0, (1 − m)²/2 or ½ − m on the margins m = yp > 1, in between, < 0."""
    m, margin = y * p, y * arb(at)
    return 0 * m if margin > 1 else (1 - m) ** 2 / 2 if margin > 0 else arb("0.5") - m


LOSSES = {
    "softplus": UserLoss(lambda p, y: jax.nn.softplus(-y * p), _logistic),
    "logaddexp": UserLoss(lambda p, y: jnp.logaddexp(0.0, -y * p), _logistic),
    "log1p_exp": UserLoss(lambda p, y: jnp.log1p(jnp.exp(-y * p)), _logistic),
    "log_sigmoid": UserLoss(lambda p, y: -jax.nn.log_sigmoid(y * p), _logistic),
    "softplus_by_hand": UserLoss(
        lambda p, y: jnp.maximum(-y * p, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(y * p))), _logistic
    ),
    "cross_entropy": UserLoss(
        lambda p, y: jax.nn.logsumexp(jnp.stack([jnp.zeros_like(p), -y * p]), axis=0), _logistic
    ),
    "pseudo_huber": UserLoss(
        lambda p, y: jnp.sqrt(1.0 + (p - y) ** 2) - 1.0, lambda p, y, at: (1 + (p - y) ** 2).sqrt() - 1
    ),
    "steep_pseudo_huber": UserLoss(
        lambda p, y: jnp.sqrt(1e-12 + jnp.square(p - y)), lambda p, y, at: (arb(1e-12) + (p - y) ** 2).sqrt()
    ),
    "quartic": UserLoss(
        lambda p, y: (p - y) ** 4 + 0.5 * (p - y) ** 2, lambda p, y, at: (p - y) ** 4 + (p - y) ** 2 / 2
    ),
    "log_cosh": UserLoss(lambda p, y: jnp.log(jnp.cosh(p - y)), _log_cosh),
    "log_cosh_by_logaddexp": UserLoss(
        lambda p, y: jnp.logaddexp(p - y, y - p) - jnp.log(2.0),
        lambda p, y, at: _log_cosh(p, y, at) + arb(2).log() - arb(float(jnp.log(2.0))),
    ),
    "poisson": UserLoss(lambda p, y: jnp.exp(p) - y * p, lambda p, y, at: p.exp() - y * p),
    "exponential": UserLoss(lambda p, y: jnp.exp(-y * p), lambda p, y, at: (-y * p).exp()),
    "huber": UserLoss(
        lambda p, y: jnp.where(jnp.abs(p - y) < 1.0, 0.5 * (p - y) ** 2, jnp.abs(p - y) - 0.5), _huber
    ),
    "softplus_of_hinge": UserLoss(
        lambda p, y: jax.nn.softplus(8.0 * (1.0 - y * p)) / 8.0,
        lambda p, y, at: _softplus(8 * (1 - y * p), arb(at) * y < 1) / 8,
    ),
    "smooth_hinge": UserLoss(
        lambda p, y: jnp.select([y * p > 1.0, y * p > 0.0], [0.0 * p, 0.5 * (1.0 - y * p) ** 2], 0.5 - y * p),
        _smooth_hinge,
    ),
    "squared_hinge": UserLoss(
        lambda p, y: jax.nn.relu(1.0 - y * p) ** 2,
        lambda p, y, at: (1 - y * p) ** 2 if arb(at) * y < 1 else 0 * p,
    ),
    "power_2.5": UserLoss(lambda p, y: jnp.abs(p - y) ** 2.5, _power(2.5)),
    "power_3": UserLoss(lambda p, y: jnp.power(jnp.abs(p - y), 3.0), _power(3.0)),
    "power_of_square": UserLoss(
        lambda p, y: (1.0 + (p - y) ** 2) ** 0.75, lambda p, y, at: (1 + (p - y) ** 2) ** arb(0.75)
    ),
    "arctan": UserLoss(
        lambda p, y: (p - y) * jnp.arctan(p - y) - 0.5 * jnp.log1p((p - y) ** 2),
        lambda p, y, at: (p - y) * (p - y).atan() - (1 + (p - y) ** 2).log() / 2,
    ),
    "probit": UserLoss(
        lambda p, y: -jnp.log(0.5 * jax.lax.erfc(-y * p / 2.0**0.5)),
        lambda p, y, at: -((-y * p / arb(2.0**0.5)).erfc() / 2).log(),
    ),
    "branch": UserLoss(
        lambda p, y: jax.lax.cond(p > y, lambda: (p - y) ** 2, lambda: 0.5 * (p - y) ** 2),
        lambda p, y, at: (p - y) ** 2 / (1 if arb(at) > y else 2),
    ),
    "jitted_linex": UserLoss(
        jax.jit(lambda p, y: jnp.expm1(p - y) - (p - y)), lambda p, y, at: (p - y).exp() - 1 - (p - y)
    ),
}
