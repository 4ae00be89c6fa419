"""Losses ℓ(p; y), convex and twice differentiable in p (Shamir 2018, Assumption 1).

A built-in loss is written once in JAX, as its definition, for autodiff; once as ℓ, ℓ', ℓ'' in
NumPy with a bound of every error, for proofs.  Elementary functions (exp, expm1, log1p, hypot) are taken
to be within `ULPS` units in the last place, which is four times the worst error seen on any platform; the
four operations and the square root are correctly rounded.  A third time it is written for balls and
rational numbers, where nothing is assumed.  Adding a loss is one block of formulas and one
line in `LOSSES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from resnet_cert.numerics.enclosure import TINY, Array, U, upper_product
from resnet_cert.outcomes import RequestError

ULPS = 8
ELEMENTARY = 2 * ULPS * U  # relative error of one elementary function: one ulp is at most 2u


class Derivatives(NamedTuple):
    """ℓ, ℓ', ℓ'' at n predictions, each (n,), and bounds (n,) of their absolute errors."""

    value: Array
    value_error: Array
    first: Array
    first_error: Array
    second: Array
    second_error: Array


class Loss(Protocol):
    """One loss: ℓ(p; y) in JAX, and what is proven about it."""

    @property
    def name(self) -> str:
        """As in the report."""
        ...

    @property
    def nonnegative(self) -> bool:
        """ℓ ≥ 0 for every p and every allowed y."""
        ...

    def value(self, p: Any, y: Any) -> Any:
        """ℓ(p; y) elementwise on JAX arrays of one shape: the definition, for autodiff."""
        ...

    def derivatives(self, p: Array, error: Array, y: Array) -> Derivatives:
        """ℓ, ℓ', ℓ'' at predictions known to lie within `error` (n,) of p (n,), enclosed."""
        ...

    def suprema(self, reach: Array, y: Array) -> tuple[Array, Array, Array] | None:
        """|ℓ'|, |ℓ''|, |ℓ'''| at most over |p| ≤ reach (n,), up to 2^-40 relative; None where not known."""
        ...

    def flat_side(self, y: Array) -> Array:
        """(n,): +1 (−1) where ℓ(·; y) stays bounded as p → +∞ (−∞), 0 where it grows on both sides."""
        ...

    def target_fault(self, y: Array) -> tuple[int, str] | None:
        """(index, message) of the first target that this loss does not allow."""
        ...


@dataclass(frozen=True)
class Elementary:
    """The functions that need the assumption of `ULPS`; `ball.elementary` has some that need none."""

    exp: Callable[[Array], Array]
    expm1: Callable[[Array], Array]
    log1p: Callable[[Array], Array]
    hypot1: Callable[[Array], Array]  # √(1 + r²)


def _hypot1(r: Array) -> Array:
    return np.hypot(1.0, r)


NUMPY = Elementary(np.exp, np.expm1, np.log1p, _hypot1)


class Formulas(NamedTuple):
    """One loss at scale 1; the fields are the methods of `Loss`.

    ball: ℓ, ℓ', ℓ'' in numbers of python-flint.
    """

    value: Callable[[Any, Any], Any]
    derivatives: Callable[[Elementary, Array, Array, Array], Derivatives]
    suprema: Callable[[Elementary, Array, Array], tuple[Array, Array, Array]]
    ball: Callable[[Any, Any], tuple[Any, Any, Any]]
    nonnegative: bool = True
    flat_side: Callable[[Array], Array] = np.zeros_like
    allowed: Callable[[Array], npt.NDArray[np.bool_]] = np.isfinite
    targets: str = "a finite target"


@dataclass(frozen=True)
class BuiltinLoss:
    """scale · ℓ for a loss of `LOSSES`."""

    kind: str
    scale: float = 1.0
    functions: Elementary = NUMPY

    @property
    def formulas(self) -> Formulas:
        return LOSSES[self.kind]

    @property
    def name(self) -> str:
        return self.kind if self.scale == 1.0 else f"{self.scale:g}·{self.kind}"

    @property
    def nonnegative(self) -> bool:
        return self.formulas.nonnegative

    def value(self, p: Any, y: Any) -> Any:
        return self.scale * self.formulas.value(p, y)

    @np.errstate(over="ignore")  # what overflows is infinite, and its enclosure unknown
    def derivatives(self, p: Array, error: Array, y: Array) -> Derivatives:
        plain = self.formulas.derivatives(self.functions, p, error, y)
        if self.scale == 1.0:
            return plain
        scaled = [self.scale * part for part in plain]
        for value, bound in ((0, 1), (2, 3), (4, 5)):
            scaled[bound] = scaled[bound] + U * np.abs(scaled[value]) + TINY
        return Derivatives(*scaled)

    @np.errstate(over="ignore")
    def suprema(self, reach: Array, y: Array) -> tuple[Array, Array, Array]:
        first, second, third = self.formulas.suprema(self.functions, reach, y)
        scale = self.scale
        return upper_product(scale, first), upper_product(scale, second), upper_product(scale, third)

    def ball(self, p: Any, y: Any, number: Callable[[float], Any]) -> tuple[Any, Any, Any]:
        """ℓ, ℓ', ℓ'' at one prediction, in the field of `number`."""
        scale = number(self.scale)
        value, first, second = self.formulas.ball(p, y)
        return scale * value, scale * first, scale * second

    def flat_side(self, y: Array) -> Array:
        return self.formulas.flat_side(y)

    def target_fault(self, y: Array) -> tuple[int, str] | None:
        wrong = np.flatnonzero(~self.formulas.allowed(y))
        if not wrong.size:
            return None
        i = int(wrong[0])
        return i, f"expected {self.formulas.targets} for the {self.kind} loss, got {float(y[i])!r}"


def named_loss(kind: str, scale: float = 1.0) -> BuiltinLoss:
    """A built-in loss by its name in `LOSSES`, times a positive factor.

    Raises:
        RequestError: an unknown name, or a scale that is not positive and finite.
    """
    require_loss(kind, scale, LOSSES, "losses")
    return BuiltinLoss(kind, float(scale))


def require_loss(kind: str, scale: float, known: Iterable[str], what: str) -> None:
    """Refuse a name that is not known, and a scale that is not positive and finite."""
    if kind not in known:
        raise RequestError(f"expected one of the {what} {', '.join(known)}, got {kind!r}")
    if not (scale > 0.0 and math.isfinite(scale)):
        raise RequestError(f"expected a positive finite scale, got {scale!r}")


# squared: ½(p − y)²


def _squared(p: Any, y: Any) -> Any:
    return 0.5 * (p - y) ** 2


def _squared_derivatives(_: Elementary, p: Array, error: Array, y: Array) -> Derivatives:
    r = p - y
    e = error + U * np.abs(r)
    value = 0.5 * r * r
    return Derivatives(
        value, np.abs(r) * e + 0.5 * e * e + 3 * U * value + TINY, r, e, np.ones_like(r), np.zeros_like(r)
    )


def _squared_suprema(_: Elementary, reach: Array, y: Array) -> tuple[Array, Array, Array]:
    return reach + np.abs(y), np.ones_like(y), np.zeros_like(y)


def _squared_ball(p: Any, y: Any) -> tuple[Any, Any, Any]:
    r = p - y
    return r * r / 2, r, r * 0 + 1


# logistic: log(1 + e^{−yp}), y ∈ {−1, 1}


def _logistic(p: Any, y: Any) -> Any:
    from resnet_cert.numerics.jax64 import jnp

    return jnp.logaddexp(0.0, -y * p)


def _drift(fn: Elementary, error: Array) -> Array:
    """e^δ − 1: the relative change, over a distance δ, of a function whose logarithm is 1-Lipschitz."""
    return fn.expm1(error) * (1.0 + 2.0**-40)


def _off_by(value: Array, relative: Array) -> Array:
    """|value|·relative; a value that underflowed stands for one of at most TINY, which grows as well."""
    return (np.abs(value) + TINY) * relative + TINY


def _logistic_derivatives(fn: Elementary, p: Array, error: Array, y: Array) -> Derivatives:
    # With z = yp and e = e^{−|z|}: σ(−|z|) = e/(1+e), σ(|z|) = 1/(1+e).  Nothing cancels, so every relative
    # error is below 2·ELEMENTARY + 7u.  |ℓ'''| ≤ ℓ'' ≤ |ℓ'| ≤ ℓ: all three logarithms are 1-Lipschitz in p.
    z = y * p
    e = fn.exp(-np.abs(z))
    large = 1.0 / (1.0 + e)
    small = e * large
    value = np.maximum(-z, 0.0) + fn.log1p(e)
    first = -y * np.where(z > 0.0, small, large)
    second = small * large
    relative = _drift(fn, error) + (2 * ELEMENTARY + 8 * U)
    value_error, first_error, second_error = (_off_by(at, relative) for at in (value, first, second))
    return Derivatives(value, value_error, first, first_error, second, second_error)


def _logistic_ball(p: Any, y: Any) -> tuple[Any, Any, Any]:
    grown, shrunk = (y * p).exp(), (-y * p).exp()
    away = 1 / (1 + grown)  # σ(−yp)
    return shrunk.log1p(), -y * away, away / (1 + shrunk)


_LOGISTIC_THIRD = math.log(2.0 + math.sqrt(3.0))  # where |ℓ'''| is largest: 1/(6√3)


def _logistic_suprema(fn: Elementary, reach: Array, y: Array) -> tuple[Array, Array, Array]:
    e = fn.exp(-np.minimum(reach, _LOGISTIC_THIRD))
    third = -fn.expm1(-np.minimum(reach, _LOGISTIC_THIRD)) * e / ((1.0 + e) * (1.0 + e) * (1.0 + e))
    return 1.0 / (1.0 + fn.exp(-reach)), np.full_like(y, 0.25), third


# pseudo_huber: √(1 + (p − y)²) − 1


def _pseudo_huber(p: Any, y: Any) -> Any:
    from resnet_cert.numerics.jax64 import jnp

    return jnp.sqrt(1.0 + (p - y) ** 2) - 1.0


_PSEUDO_HUBER_THIRD = 0.8587  # sup |ℓ'''| = 3·½/(5/4)^{5/2} = 0.85865..., at |r| = ½


def _pseudo_huber_derivatives(fn: Elementary, p: Array, error: Array, y: Array) -> Derivatives:
    # s − 1 = r²/(1 + s) without cancellation; 1/s³ meets three errors of s and five roundings.
    r = p - y
    e = error + U * np.abs(r)
    s = fn.hypot1(r)
    value = r * (r / (1.0 + s))
    first = r / s
    inverse = 1.0 / s
    second = inverse * inverse * inverse
    relative = ELEMENTARY + 4 * U
    return Derivatives(
        value,
        np.minimum(np.abs(r) + e, 1.0) * e + value * relative + TINY,
        first,
        e + np.abs(first) * relative + TINY,
        second,
        _PSEUDO_HUBER_THIRD * e + second * (3 * ELEMENTARY + 6 * U) + TINY,
    )


def _pseudo_huber_suprema(fn: Elementary, reach: Array, y: Array) -> tuple[Array, Array, Array]:
    farthest = reach + np.abs(y)
    nearest = np.maximum(np.abs(y) - reach, 0.0)
    at = np.clip(0.5, nearest, farthest)
    near, s = fn.hypot1(nearest), fn.hypot1(at)
    return (
        farthest / fn.hypot1(farthest),
        np.maximum(1.0 / near / near / near, TINY),
        np.maximum(3.0 * at / s / s / s / s / s, TINY),
    )


def _pseudo_huber_ball(p: Any, y: Any) -> tuple[Any, Any, Any]:
    r = p - y
    s = (1 + r * r).sqrt()
    return r * r / (1 + s), r / s, 1 / (s * s * s)


# poisson: e^p − yp, y ≥ 0


def _poisson(p: Any, y: Any) -> Any:
    from resnet_cert.numerics.jax64 import jnp

    return jnp.exp(p) - y * p


def _poisson_derivatives(fn: Elementary, p: Array, error: Array, y: Array) -> Derivatives:
    rate = fn.exp(p)
    rate_error = _off_by(rate, _drift(fn, error) + (ELEMENTARY + U))
    value, first = rate - y * p, rate - y
    return Derivatives(
        value,
        rate_error + y * error + U * (np.abs(y * p) + np.abs(value)) + TINY,
        first,
        rate_error + U * np.abs(first),
        rate,
        rate_error,
    )


def _poisson_suprema(fn: Elementary, reach: Array, y: Array) -> tuple[Array, Array, Array]:
    rate = fn.exp(reach)
    # The last term pays for the cancellation in rate − y.
    first = np.maximum(rate - y, y - fn.exp(-reach)) + 2 * ELEMENTARY * (rate + y)
    return first, rate, rate


def _poisson_ball(p: Any, y: Any) -> tuple[Any, Any, Any]:
    rate = p.exp()
    return rate - y * p, rate - y, rate


LOSSES: dict[str, Formulas] = {
    "squared": Formulas(_squared, _squared_derivatives, _squared_suprema, _squared_ball),
    "logistic": Formulas(
        _logistic,
        _logistic_derivatives,
        _logistic_suprema,
        _logistic_ball,
        flat_side=np.asarray,
        allowed=lambda y: np.abs(y) == 1.0,
        targets="a label −1 or 1",
    ),
    "pseudo_huber": Formulas(
        _pseudo_huber, _pseudo_huber_derivatives, _pseudo_huber_suprema, _pseudo_huber_ball
    ),
    "poisson": Formulas(
        _poisson,
        _poisson_derivatives,
        _poisson_suprema,
        _poisson_ball,
        nonnegative=False,
        flat_side=lambda y: np.where(y == 0.0, -1.0, 0.0),
        allowed=lambda y: np.isfinite(y) & (y >= 0.0),
        targets="a target y ≥ 0",
    ),
}
