"""Losses ℓ(p; y) of several outputs, p ∈ R^q, convex and twice differentiable in p.

As with one output, a loss is written once in JAX, as its definition, for autodiff, and once as ℓ, ∇ℓ, ∇²ℓ in
NumPy with a bound of every error; elementary functions are taken to be within `losses.ULPS` units in the
last place.  Errors are one number a sample: of ∇ℓ in Euclidean norm, of ∇²ℓ in spectral norm, given that of
p in Euclidean norm.  Adding a loss is one block of formulas and one line in `LOSSES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from resnet_cert.numerics.enclosure import TINY, Array, U, gamma, row_norms, upper_product
from resnet_cert.problem.losses import ELEMENTARY, require_loss

Bools = npt.NDArray[np.bool_]

PROBABILITY_TOLERANCE = 1e-9  # of the sum of a row of class probabilities, which decimals do not hit exactly


class VectorDerivatives(NamedTuple):
    """ℓ (n,), ∇ℓ (n, q), ∇²ℓ at n predictions, and bounds (n,) of their errors.

    second: (n,) for c·I; (n, q) for a diagonal; (n, q, q) for a matrix.
    second_size: bounds (n,) of ‖ |∇²ℓ| ‖, the spectral norm of the matrix of absolute values.
    """

    value: Array
    value_error: Array
    first: Array
    first_error: Array
    second: Array
    second_error: Array
    second_size: Array


class Rays(NamedTuple):
    """Vectors v_j ∈ R^q (j, q), each of one sample: its index (j,)."""

    sample: npt.NDArray[np.intp]
    vector: Array


class VectorFormulas(NamedTuple):
    """One loss at scale 1, of targets y (n, q) and weights omega (n, q) or None.

    suprema: ‖∇ℓ‖, ‖∇²ℓ‖, ‖∇³ℓ‖ at most over ‖p‖ ≤ reach, (n,) each, up to rounding.
    recession: (helping, fixed), where a change u of the predictions leaves a sample's loss bounded forever
        iff v·u ≥ 0 for its helping v and v·u = 0 for its fixed v, and lowers it iff v·u > 0 for one; None:
        inf F_lin is attained for every data.
    allowed: which entries (n, q) a target may have; `targets` says it in words.
    invariant: ℓ(p + c·1; y) = ℓ(p; y).
    labels: y may be class labels too, and its rows are probabilities of sum 1.
    weighted: needs omega.
    """

    value: Callable[[Any, Any, Any], Any]
    derivatives: Callable[[Array, Array, Array, Array | None], VectorDerivatives]
    suprema: Callable[[Array, Array, Array | None], tuple[Array, Array, Array]]
    recession: Callable[[Array], tuple[Rays, Rays]] | None = None
    allowed: Callable[[Array], Bools] = np.isfinite
    targets: str = "a finite target"
    invariant: bool = False
    labels: bool = False
    weighted: bool = False


@dataclass(frozen=True)
class VectorLoss:
    """scale · ℓ for a loss of `LOSSES`.  All of them are nonnegative."""

    kind: str
    scale: float = 1.0

    @property
    def formulas(self) -> VectorFormulas:
        return LOSSES[self.kind]

    @property
    def name(self) -> str:
        return self.kind if self.scale == 1.0 else f"{self.scale:g}·{self.kind}"

    def value(self, p: Any, y: Any, omega: Any) -> Any:
        """ℓ (n,) of p, y (n, q) and omega (n, q) or None, all JAX arrays: the definition, for autodiff."""
        return self.scale * self.formulas.value(p, y, omega)

    def derivatives(self, p: Array, error: Array, y: Array, omega: Array | None) -> VectorDerivatives:
        """ℓ, ∇ℓ, ∇²ℓ at predictions known to lie within `error` (n,) of p (n, q), enclosed."""
        plain = self.formulas.derivatives(p, error, y, omega)
        if self.scale == 1.0:
            return plain
        at = VectorDerivatives(*(self.scale * part for part in plain))
        q = p.shape[1]
        return at._replace(
            value_error=at.value_error + U * np.abs(at.value) + TINY,
            first_error=at.first_error + U * row_norms(at.first) + q * TINY,
            second_error=at.second_error + U * at.second_size + q * TINY,
        )

    def suprema(self, reach: Array, y: Array, omega: Array | None) -> tuple[Array, Array, Array]:
        """‖∇ℓ‖, ‖∇²ℓ‖, ‖∇³ℓ‖ at most over ‖p‖ ≤ reach (n,), up to a few roundings."""
        first, second, third = self.formulas.suprema(reach, y, omega)
        scale = self.scale * (1.0 + 2.0 * gamma(y.shape[1] + 2))  # those of norms and sums over the outputs
        return upper_product(scale, first), upper_product(scale, second), upper_product(scale, third)


def named_loss(kind: str, scale: float = 1.0) -> VectorLoss:
    """A built-in loss of vectors by its name in `LOSSES`, times a positive factor.

    Raises:
        RequestError: an unknown name, or a scale that is not positive and finite.
    """
    require_loss(kind, scale, LOSSES, "losses of vector outputs")
    return VectorLoss(kind, float(scale))


# squared: ½‖p − y‖²


def _squared(p: Any, y: Any, omega: Any) -> Any:
    return 0.5 * ((p - y) ** 2).sum(axis=-1)


def _squared_derivatives(p: Array, error: Array, y: Array, omega: Array | None) -> VectorDerivatives:
    r = p - y
    r_norm = row_norms(r)
    e = error + U * r_norm
    value = 0.5 * np.einsum("ij,ij->i", r, r)
    q = p.shape[1]
    return VectorDerivatives(
        value=value,
        value_error=r_norm * e + 0.5 * e * e + gamma(q + 2) * value + q * TINY,
        first=r,
        first_error=e,
        second=np.ones(len(p)),
        second_error=np.zeros(len(p)),
        second_size=np.ones(len(p)),
    )


def _squared_suprema(reach: Array, y: Array, omega: Array | None) -> tuple[Array, Array, Array]:
    return reach + row_norms(y), np.ones_like(reach), np.zeros_like(reach)


# weighted_squared: ½Σ_i ω_i(p_i − y_i)², ω ≥ 0


def _weighted(p: Any, y: Any, omega: Any) -> Any:
    return 0.5 * (omega * (p - y) ** 2).sum(axis=-1)


def _weighted_derivatives(p: Array, error: Array, y: Array, omega: Array | None) -> VectorDerivatives:
    omega = _present(omega)
    r = p - y
    e = error + U * row_norms(r)
    first = omega * r
    first_norm, largest = row_norms(first), omega.max(axis=1)
    value = 0.5 * np.einsum("ij,ij->i", first, r)
    q = p.shape[1]
    return VectorDerivatives(
        value=value,
        value_error=first_norm * e + 0.5 * largest * e * e + gamma(q + 4) * value + q * TINY,
        first=first,
        first_error=largest * error + 2 * U * first_norm + q * TINY,
        second=omega,
        second_error=np.zeros(len(p)),
        second_size=largest,
    )


def _weighted_suprema(reach: Array, y: Array, omega: Array | None) -> tuple[Array, Array, Array]:
    omega = _present(omega)
    largest = omega.max(axis=1)
    return largest * reach + row_norms(omega * y), largest, np.zeros_like(reach)


def _present(omega: Array | None) -> Array:
    if omega is None:
        raise ValueError("expected weights omega of the outputs, got none")
    return omega


# logistic: Σ_i log(1 + e^{p_i}) − y_i p_i, y_i ∈ [0, 1]


def _logistic(p: Any, y: Any, omega: Any) -> Any:
    from resnet_cert.numerics.jax64 import jnp

    return (jnp.logaddexp(0.0, p) - y * p).sum(axis=-1)


def _drift(distance: Array) -> Array:
    """e^δ − 1, rounded up: the relative change, over δ, of what has a 1-Lipschitz logarithm."""
    return np.expm1(distance) * (1.0 + 2.0**-40)


def _logistic_derivatives(p: Array, error: Array, y: Array, omega: Array | None) -> VectorDerivatives:
    # With e = e^{−|p|}: σ(|p|) = 1/(1+e), σ(−|p|) = e/(1+e).  ℓ' = σ(p) − y is written (1−y)σ(p) − yσ(−p) and
    # ℓ as log1p(e) + (1−y)max(p,0) + y·max(−p,0), so that nothing cancels where y is 0 or 1: relative errors
    # are below 2·ELEMENTARY and the roundings counted.  Over a distance δ in p, with |σ''| ≤ σ':
    # |Δσ_i| ≤ σ'_i(e^{|δ_i|} − 1), whose Euclidean norm is ≤ max σ'_i·(e^{‖δ‖} − 1), for ‖δ^k‖ ≤ ‖δ‖^k; and
    # |Δℓ| ≤ ‖∇ℓ‖‖δ‖ + ½ max σ'_i e^{‖δ‖}‖δ‖².
    q = p.shape[1]
    relative = 2 * ELEMENTARY + gamma(q + 8)
    e = np.exp(-np.abs(p))
    large = 1.0 / (1.0 + e)
    small = e * large
    up, down, rest = np.where(p > 0.0, large, small), np.where(p > 0.0, small, large), 1.0 - y
    value = (np.log1p(e) + rest * np.maximum(p, 0.0) + y * np.maximum(-p, 0.0)).sum(axis=1)
    first = rest * up - y * down
    second = small * large
    steepest, drift = second.max(axis=1) + TINY, _drift(error)  # what underflowed may grow
    first_error = steepest * drift + relative * row_norms(rest * up + y * down) + q * TINY
    return VectorDerivatives(
        value=value,
        value_error=(row_norms(first) + first_error + steepest * (1.0 + drift) * error) * error
        + relative * value
        + q * TINY,
        first=first,
        first_error=first_error,
        second=second,
        second_error=steepest * (drift + relative) + TINY,
        second_size=steepest,
    )


_LOGISTIC_THIRD = math.log(2.0 + math.sqrt(3.0))  # where |ℓ'''| is largest: 1/(6√3)


def _logistic_suprema(reach: Array, y: Array, omega: Array | None) -> tuple[Array, Array, Array]:
    # |σ(p) − y| ≤ σ(R) − min(y, 1 − y) for |p| ≤ R; ∇²ℓ and ∇³ℓ are diagonal.
    e = np.exp(-np.minimum(reach, _LOGISTIC_THIRD))
    third = -np.expm1(-np.minimum(reach, _LOGISTIC_THIRD)) * e / ((1.0 + e) * (1.0 + e) * (1.0 + e))
    largest = 1.0 / (1.0 + np.exp(-reach))
    slopes = largest[:, None] - np.minimum(y, 1.0 - y) + 2 * ELEMENTARY  # pays for the cancellation
    return row_norms(slopes), np.full_like(reach, 0.25), third


def _logistic_recession(y: Array) -> tuple[Rays, Rays]:
    """An output with y = 1 (0) may grow (fall) forever; one with a target in between has to stay."""
    sign = np.where(y == 1.0, 1.0, -1.0)
    sure = (y == 0.0) | (y == 1.0)
    unit = np.eye(y.shape[1])
    (i, a), (j, c) = np.nonzero(sure), np.nonzero(~sure)
    return Rays(i, sign[i, a, None] * unit[a]), Rays(j, unit[c])


# softmax: Σ_c y_c(log Σ_j e^{p_j} − p_c), y a class or a row of class probabilities


def _softmax(p: Any, y: Any, omega: Any) -> Any:
    from resnet_cert.numerics.jax64 import jax

    return (y * (jax.nn.logsumexp(p, axis=-1, keepdims=True) - p)).sum(axis=-1)


def _softmax_derivatives(p: Array, error: Array, y: Array, omega: Array | None) -> VectorDerivatives:
    # With s = softmax(p), o = 1 − s, Y = Σ y: ∇ℓ = Ys − y = s·(Y − y) − y·o, ∇²ℓ = Y(diag(s) − ssᵀ).  o and
    # Y − y are sums over the other classes, so that nothing cancels for a single class.  p is shifted by its
    # largest entry; the roundings U|p_j − max| of that are counted as errors of p.  Then e^{p_j} is off by
    # ELEMENTARY, s, o and log1p by twice that, and by the roundings counted.
    # log s_j and log o_j are √2-Lipschitz: their gradients e_j − s and −s_j(e_j − s)/o_j are at most √2 long,
    # for ‖e_j − s‖ ≤ √2·o_j.  So s, o change by at most e^{1.5δ} − 1 over a distance δ, and ∇²ℓ, whose
    # entries are ±Y s_a s_b and Y s_a o_a, by e^{3δ} − 1, relatively; and |Δℓ| ≤ ‖∇ℓ‖δ + ½‖∇²ℓ‖e^{3δ}δ².
    # The absolute row sums of ∇²ℓ are 2Y s_a o_a.
    q = p.shape[1]
    relative = 2 * ELEMENTARY + gamma(2 * q + 12)
    largest = p.argmax(axis=1)[:, None]
    shifted = p - np.take_along_axis(p, largest, axis=1)
    error = error + U * row_norms(shifted)
    others = 1.0 - np.eye(q)
    e = np.exp(shifted)
    rest = e @ others
    total = e.sum(axis=1, keepdims=True)
    s, o = e / total, rest / total
    Y, Y_rest = y.sum(axis=1), y @ others
    tail = np.take_along_axis(rest, largest, axis=1)  # log Σ e^{p_j} − max p = log(1 + tail)
    value = (y * (np.log1p(tail) - shifted)).sum(axis=1)
    first = s * Y_rest - y * o
    underflow = q * TINY * (1.0 + Y)
    magnitude = row_norms(s * Y_rest + y * o) + underflow  # what underflowed may grow
    first_error = (_drift(1.5 * error) + relative) * magnitude + underflow
    second = -Y[:, None, None] * s[:, :, None] * s[:, None, :]
    second[:, range(q), range(q)] = Y[:, None] * s * o
    size, drift = 2.0 * Y * (s * o).max(axis=1) + underflow, _drift(3.0 * error)
    return VectorDerivatives(
        value=value,
        value_error=(row_norms(first) + first_error + size * (1.0 + drift) * error) * error
        + relative * value
        + underflow,
        first=first,
        first_error=first_error,
        second=second,
        second_error=size * (drift + 2 * relative) + q * underflow,
        second_size=size,
    )


_SOFTMAX_THIRD = math.sqrt(6.0) / 9.0
"""‖∇³ℓ‖ ≤ √6/9 for Y = 1.  Along a unit v it is the third central moment of v under s, of a variable of range
L ≤ √2.  Centred and in [α, β], β − α = L, its third moment is at most β³/4 (from E(β − X)(X + β/2)² ≥ 0), and
at most −αβ(α + β) if α ≥ −β/2 (from E(β − X)(X − α)² ≥ 0 with E X² ≤ −αβ).  In either case, by −X as well, it
is at most L³/(6√3)."""


def _softmax_suprema(reach: Array, y: Array, omega: Array | None) -> tuple[Array, Array, Array]:
    # ‖e_c − s‖ ≤ √2(1 − s_c) and p_j − p_c ≤ √2‖p‖; ∇ℓ is the mean of these over c.  A variable of range √2
    # has at most the variance ½.
    Y, others = y.sum(axis=1), y.shape[1] - 1.0
    first = math.sqrt(2.0) * others / (others + np.exp(-math.sqrt(2.0) * reach))
    return Y * first, 0.5 * Y, _SOFTMAX_THIRD * Y


def _softmax_recession(y: Array) -> tuple[Rays, Rays]:
    """The classes that a sample may have must stay equally ahead of, or gain on, those that it has not."""
    q = y.shape[1]
    unit = np.eye(q)
    leader = np.argmax(y > 0.0, axis=1)
    i, c = np.nonzero(np.arange(q) != leader[:, None])
    vectors = unit[leader[i]] - unit[c]
    helps = y[i, c] == 0.0
    return Rays(i[helps], vectors[helps]), Rays(i[~helps], vectors[~helps])


LOSSES: dict[str, VectorFormulas] = {
    "softmax": VectorFormulas(
        _softmax,
        _softmax_derivatives,
        _softmax_suprema,
        _softmax_recession,
        allowed=lambda y: np.isfinite(y) & (y >= 0.0),
        targets="a probability ≥ 0",
        invariant=True,
        labels=True,
    ),
    "squared": VectorFormulas(_squared, _squared_derivatives, _squared_suprema),
    "logistic": VectorFormulas(
        _logistic,
        _logistic_derivatives,
        _logistic_suprema,
        _logistic_recession,
        allowed=lambda y: (y >= 0.0) & (y <= 1.0),
        targets="a target in [0, 1]",
    ),
    "weighted_squared": VectorFormulas(_weighted, _weighted_derivatives, _weighted_suprema, weighted=True),
}
