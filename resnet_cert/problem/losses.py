"""Losses ℓ(p; y) of predictions p ∈ R^q, convex and twice differentiable in p (Shamir 2018, Assumption 1).

A built-in loss is written once in JAX, as its definition, for autodiff; once as ℓ, ∇ℓ, ∇²ℓ in NumPy with a
bound of every error, for proofs; and once for balls and rational numbers, where nothing is assumed.  In
NumPy, elementary functions (exp, expm1, log1p, hypot) are taken to be within `ULPS` units in the last place,
which is four times the worst error seen on any platform; the four operations and the square root are
correctly rounded.

Errors are one number a sample: of ∇ℓ in Euclidean norm, of ∇²ℓ in spectral norm, given that of p in Euclidean
norm.  Most losses are sums over the outputs (`Separable`): of those only scalar formulas are written.
Adding one is one block of formulas and one line in `LOSSES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from resnet_cert.numerics.radius import FLOOR, NOTHING, Array, Radius, U, gamma, hypot, squared_norms, total
from resnet_cert.numerics.sums import CACHED
from resnet_cert.outcomes import RequestError

Bools = npt.NDArray[np.bool_]

ULPS = 8
ELEMENTARY = 2 * ULPS * U
"""Relative error of one elementary function: one ulp is at most 2u."""
SUPREMUM = 1.0 + 2.0**-40
"""Pays for the elementary functions and the roundings in a supremum."""
PROBABILITY_TOLERANCE = 2.0**-20
"""Of the sum of a row of class probabilities, which decimals and float32 do not hit exactly."""


class Derivatives(NamedTuple):
    """ℓ (m,), ∇ℓ (m, q), ∇²ℓ at m predictions, and bounds (m,) of their errors.

    second: (m,) for c·I; (m, q) for a diagonal; (m, q, q) for a matrix.
    second_size: bounds (m,) of ‖ |∇²ℓ| ‖, the spectral norm of the matrix of absolute values.
    """

    value: Array
    value_error: Radius
    first: Array
    first_error: Radius
    second: Array
    second_error: Radius
    second_size: Radius


class FirstDerivatives(NamedTuple):
    """ℓ (m,) and ∇ℓ (m, q) alone, which cost O(mq) for every loss, with bounds (m,) of their errors.

    first_size: bounds (m,) of the norms of `first`, where they are known.
    """

    value: Array
    value_error: Radius
    first: Array
    first_error: Radius
    first_size: Radius | None = None


class Suprema(NamedTuple):
    """‖∇ℓ‖, ‖∇²ℓ‖, ‖∇³ℓ‖ at most over ‖p‖ ≤ reach, (m,) each, in units of 2^powers."""

    first: Radius
    second: Radius
    third: Radius
    powers: tuple[int, int, int] = (0, 0, 0)

    def map(self, change: Callable[[Radius], Radius]) -> Suprema:
        return Suprema(change(self.first), change(self.second), change(self.third), self.powers)

    @property
    def plain(self) -> Suprema:
        """In units of 1."""
        first, second, third, (one, two, three) = self
        return Suprema(first.shifted(one), second.shifted(two), third.shifted(three))


class Rays(NamedTuple):
    """Vectors v_j ∈ R^q (j, q), each of one sample: its index (j,)."""

    sample: npt.NDArray[np.intp]
    vector: Array


class Recession(NamedTuple):
    """A change u of the predictions leaves a sample's loss bounded forever iff v·u ≥ 0 for its helping v and
    v·u = 0 for its fixed v, and lowers it for ever iff v·u > 0 for one of the helping."""

    helping: Rays
    fixed: Rays


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

    @property
    def sum_free(self) -> bool:
        """1ᵀ∇ℓ = 0: the gradients span 1^⊥ ⊂ R^q at most, and ℓ(p + c·1; y) = ℓ(p; y)."""
        ...

    @property
    def convex(self) -> bool:
        """It is known that ℓ(·; y) is convex for every p: what is said of all W or (W, V) rests on it."""
        ...

    @property
    def convex_in_range(self) -> bool:
        """It is known for the predictions of the domain (`convexity`): what is said of it rests on that."""
        ...

    def targets(self, y: Array, q: int) -> Array:
        """(m, q): the targets as the formulas know them, from y (m,), (m, 1) or (m, q) as they are given."""
        ...

    def value(self, p: Any, y: Any, omega: Any = None) -> Any:
        """ℓ (m,) of p, y (m, q) and omega (m, q) or None, all JAX arrays: the definition, for autodiff."""
        ...

    def derivatives(self, p: Array, error: Radius, y: Array, omega: Array | None = None) -> Derivatives:
        """ℓ, ∇ℓ, ∇²ℓ at predictions known to lie within `error` (m,) of p (m, q), enclosed."""
        ...

    def first_derivatives(
        self, p: Array, error: Radius, y: Array, omega: Array | None = None
    ) -> FirstDerivatives:
        """ℓ and ∇ℓ alone."""
        ...

    def quadratic(
        self, p: Array, error: Radius, y: Array, omega: Array | None, delta: Array, delta_error: Radius
    ) -> tuple[Array, Radius]:
        """δᵀ∇²ℓδ (m,) for δ known to lie within `delta_error` (m,) of delta (m, q), enclosed, in O(mq)."""
        ...

    def suprema(self, reach: Radius, y: Array, omega: Array | None = None) -> Suprema | None:
        """Over ‖p‖ ≤ reach (m,), in units of 1; None where not known."""
        ...

    def suprema_in_units(self, reach: Radius, y: Array, omega: Array | None = None) -> Suprema | None:
        """The same in units that hold what is no float."""
        ...

    @property
    def concordance(self) -> float | None:
        """M with ∇²ℓ(p + δ) ⪰ e^{−M‖δ‖}∇²ℓ(p) for all p, δ and y; None: not known."""
        ...

    def recession(self, y: Array) -> Recession | None:
        """None: inf F_lin is attained for every data."""
        ...


def quadratic_form(at: Derivatives, delta: Array, error: Radius) -> tuple[Array, Radius]:
    """δᵀ∇²ℓδ (m,) and its error, for δ within `error` (m,) of delta (m, q), and ∇²ℓ = c·I or a diagonal.

    ‖H̃‖(2‖δ‖ + e)e for the error e of δ, ‖H − H̃‖(‖δ‖ + e)² for that of H, and γ‖H̃‖‖δ‖² for rounding.
    """
    c = at.second if at.second.ndim == 2 else at.second[:, None]
    length = Radius.row_norms(delta)
    reach = length + error
    wrong = total(
        at.second_error * reach * reach,
        at.second_size * (length * 2.0 + error) * error,
        at.second_size * length * length * gamma(delta.shape[1] + 3),
        Radius.underflow(3 * delta.shape[1]) * (reach + at.second_size + Radius.of(1.0)),
    )
    return np.einsum("ij,ij->i", c * delta, delta), wrong


class Ball(NamedTuple):
    """ℓ, ∇ℓ (q) and ∇²ℓ (q rows of q) at one prediction, in a field of numbers."""

    value: Any
    first: list[Any]
    second: list[list[Any]]


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


class Formulas(Protocol):
    """One loss at scale 1, of targets y (m, q) and weights omega (m, q) or None; its methods are those of
    `Loss`, with the elementary functions as an argument.

    labels: y may be class labels too, and its rows are probabilities of sum 1.  weighted: needs omega.
    allowed: which entries (m, q) a target may have; `wanted` says it in words.
    """

    @property
    def nonnegative(self) -> bool: ...

    @property
    def sum_free(self) -> bool: ...

    @property
    def concordance(self) -> float: ...

    @property
    def labels(self) -> bool: ...

    @property
    def weighted(self) -> bool: ...

    @property
    def wanted(self) -> str: ...

    def allowed(self, y: Array) -> Bools: ...

    def value(self, p: Any, y: Any, omega: Any) -> Any: ...

    def derivatives(
        self, fn: Elementary, p: Array, error: Radius, y: Array, omega: Array | None
    ) -> Derivatives: ...

    def first_derivatives(
        self, fn: Elementary, p: Array, error: Radius, y: Array, omega: Array | None
    ) -> FirstDerivatives: ...

    def approximate_first(
        self, fn: Elementary, p: Array, y: Array, omega: Array | None
    ) -> tuple[Array, Array]:
        """ℓ (m,) and ∇ℓ, nothing proven."""
        ...

    def quadratic(
        self,
        fn: Elementary,
        p: Array,
        error: Radius,
        y: Array,
        omega: Array | None,
        delta: Array,
        delta_error: Radius,
    ) -> tuple[Array, Radius]: ...

    def suprema(self, fn: Elementary, reach: Radius, y: Array, omega: Array | None) -> Suprema: ...

    def recession(self, y: Array) -> Recession | None: ...

    def infimum(self, y: Array, omega: Array | None) -> Array:
        """(m,): at most inf_p ℓ(p; y)."""
        ...

    def ball(self, p: Sequence[Any], y: Sequence[Any], omega: Sequence[Any] | None) -> Ball: ...


@dataclass(frozen=True)
class BuiltinLoss:
    """scale · ℓ for a loss of `LOSSES`.

    called: another name for it, as frameworks have it.
    signed: with one output, targets are labels −1, 1 (logistic only); else numbers in [0, 1].
    """

    kind: str
    scale: float = 1.0
    called: str | None = None
    signed: bool = True
    functions: Elementary = NUMPY

    @property
    def formulas(self) -> Formulas:
        return LOSSES[self.kind]

    @property
    def name(self) -> str:
        if self.called is not None:
            return self.called
        return self.kind if self.scale == 1.0 else f"{self.scale:g}·{self.kind}"

    @property
    def nonnegative(self) -> bool:
        return self.formulas.nonnegative

    @property
    def sum_free(self) -> bool:
        return self.formulas.sum_free

    @property
    def concordance(self) -> float:
        return self.formulas.concordance

    @property
    def convex(self) -> bool:
        """By its formula."""
        return True

    @property
    def convex_in_range(self) -> bool:
        return True

    def has_signs(self, q: int) -> bool:
        """Targets are given as labels −1, 1."""
        return self.kind == "logistic" and self.signed and q == 1

    def targets(self, y: Array, q: int) -> Array:
        if self.formulas.labels and (y.ndim == 1 or (y.shape[1] == 1 and q > 1)):
            return _indicators(y.reshape(-1), q)
        y = y.reshape(len(y), -1)
        return (1.0 + y) / 2.0 if self.has_signs(q) else y

    def value(self, p: Any, y: Any, omega: Any = None) -> Any:
        return self.scale * self.formulas.value(p, y, omega)

    @np.errstate(over="ignore")  # what overflows is infinite, and its enclosure unknown
    def derivatives(self, p: Array, error: Radius, y: Array, omega: Array | None = None) -> Derivatives:
        at = self.formulas.derivatives(self.functions, p, error, y, omega)
        if self.scale == 1.0:
            return at
        c = self.scale
        value, first, second = c * at.value, c * at.first, c * at.second
        size = at.second_size * c
        return Derivatives(
            value,
            at.value_error * c + _rounded(value, at.value, 2.0 * U),
            first,
            at.first_error * c + _norms(_rounded(first, at.first, 2.0 * U)),
            second,
            at.second_error * c + size * (2.0 * U),
            size,
        )

    @np.errstate(over="ignore")
    def first_derivatives(
        self, p: Array, error: Radius, y: Array, omega: Array | None = None
    ) -> FirstDerivatives:
        at = self.formulas.first_derivatives(self.functions, p, error, y, omega)
        if self.scale == 1.0:
            return at
        c = self.scale
        value, first = c * at.value, c * at.first
        return FirstDerivatives(
            value,
            at.value_error * c + _rounded(value, at.value, 2.0 * U),
            first,
            at.first_error * c + _norms(_rounded(first, at.first, 2.0 * U)),
        )

    @np.errstate(over="ignore")
    def quadratic(
        self, p: Array, error: Radius, y: Array, omega: Array | None, delta: Array, delta_error: Radius
    ) -> tuple[Array, Radius]:
        form, wrong = self.formulas.quadratic(self.functions, p, error, y, omega, delta, delta_error)
        if self.scale == 1.0:
            return form, wrong
        return self.scale * form, wrong * self.scale + _rounded(self.scale * form, form, 2.0 * U)

    @np.errstate(over="ignore")
    def approximate(self, p: Array, y: Array, omega: Array | None = None) -> tuple[Array, ...]:
        """ℓ (m,), ∇ℓ and ∇²ℓ or its diagonal, for searches: nothing is proven of them."""
        if not isinstance(self.formulas, Separable):
            at = self.derivatives(p, NOTHING, y, omega)
            return at.value, at.first, at.second
        return tuple(self.scale * part for part in self.formulas.approximate(self.functions, p, y, omega))

    @np.errstate(over="ignore")
    def approximate_first(self, p: Array, y: Array, omega: Array | None = None) -> tuple[Array, Array]:
        """ℓ (m,) and ∇ℓ in O(mq), for searches: nothing is proven of them."""
        value, first = self.formulas.approximate_first(self.functions, p, y, omega)
        return self.scale * value, self.scale * first

    def suprema(self, reach: Radius, y: Array, omega: Array | None = None) -> Suprema:
        return self.suprema_in_units(reach, y, omega).plain

    @np.errstate(over="ignore")
    def suprema_in_units(self, reach: Radius, y: Array, omega: Array | None = None) -> Suprema:
        bounds = self.formulas.suprema(self.functions, reach, y, omega)
        return bounds.map(lambda bound: bound * self.scale)

    def recession(self, y: Array) -> Recession | None:
        return self.formulas.recession(y)

    @property
    def reaches_zero(self) -> bool:
        """inf_p ℓ(p; y) = 0 for every target."""
        return isinstance(self.formulas, Separable) and self.formulas.one.infimum is np.zeros_like

    def infimum(self, y: Array, omega: Array | None = None) -> Array:
        """(m,): at most inf_p ℓ(p; y), up to a relative 2^-40 that is taken off."""
        return self.scale * self.formulas.infimum(y, omega)

    def ball(
        self, p: Sequence[Any], y: Sequence[Any], omega: Sequence[Any] | None, number: Callable[[float], Any]
    ) -> Ball:
        """ℓ, ∇ℓ, ∇²ℓ at one prediction, in the field of `number`."""
        at = self.formulas.ball(p, y, omega)
        if self.scale == 1.0:
            return at
        c = number(self.scale)
        return Ball(c * at.value, [c * g for g in at.first], [[c * H for H in row] for row in at.second])


def _indicators(label: Array, q: int) -> Array:
    """(m, q): 1 at each label 0, …, q − 1, rows of 0 for what is none."""
    sample = np.flatnonzero((label >= 0.0) & (label < q) & (label == np.floor(label)))
    y = np.zeros((len(label), q))
    y[sample, label[sample].astype(np.intp)] = 1.0
    return y


def named_loss(kind: str, scale: float = 1.0) -> BuiltinLoss:
    """A built-in loss by its name in `LOSSES`, times a positive factor.

    Raises:
        RequestError: an unknown name, or a scale that is not positive and finite.
    """
    if kind not in LOSSES:
        raise RequestError(f"loss: expected one of {', '.join(LOSSES)}, got {kind!r}", id="unknown-name")
    if not (scale > 0.0 and math.isfinite(scale)):
        raise RequestError(f"loss.scale: expected a positive finite number, got {scale!r}", id="wrong-value")
    return BuiltinLoss(kind, float(scale))


# --- Sums over the outputs --------------------------------------------------------------------------------


class Scalars(NamedTuple):
    """ℓ, ℓ', ℓ'' of each output (m, q), with bounds of their roundings at the p that is given, and of |ℓ''|
    and |ℓ'''| over the numbers that close to it."""

    value: Array
    value_rounding: Radius
    first: Array
    first_rounding: Radius
    second: Array
    second_rounding: Radius
    second_near: Radius
    third_near: Radius


class At(NamedTuple):
    """ℓ, ℓ', ℓ'' of each output (m, q) in float64, nothing proven; terms: what their rounding goes by."""

    value: Array
    first: Array
    second: Array
    terms: Array


class Row(NamedTuple):
    """Over the outputs of each row: Σ ℓ, the largest ℓ'', and the root of what the square of the norm of the
    terms that ℓ' is made of has more than that of ℓ' (m,)."""

    value: Array
    second: Array
    more: Array | None


class RowFormulas(NamedTuple):
    """One loss of several outputs y (m, q) together, for what costs less than output by output.

    at: of p (m, q), or (1, 1) for all of them; ∇ℓ (m, q) goes into the last argument.  roundings: of Σ ℓ and
    of ∇ℓ, from what `at` found, bounds of ‖∇ℓ‖, and q.  suprema: over ‖p‖ ≤ reach (m,).
    """

    at: Callable[[Elementary, Array, Array, Array], Row]
    roundings: Callable[[Row, Radius, int], tuple[Radius, Radius]]
    suprema: Callable[[Elementary, Radius, Array], Suprema]


class ScalarFormulas(NamedTuple):
    """One loss of one output; every function is elementwise on (m, q).

    at: what a search needs; derivatives: the same with its errors.  concordance: |ℓ‴|/ℓ″ at most.  suprema:
    over |p| ≤ reach.  flat_side: +1 (−1) where ℓ(·; y) stays bounded as p → +∞ (−∞), else 0; None: it grows
    on both sides for every y.
    """

    value: Callable[[Any, Any], Any]
    at: Callable[[Elementary, Array, Array], At]
    derivatives: Callable[[Elementary, Array, Radius, Array], Scalars]
    suprema: Callable[[Elementary, Radius, Array], Suprema]
    ball: Callable[[Any, Any], tuple[Any, Any, Any]]
    concordance: float
    infimum: Callable[[Array], Array] = np.zeros_like
    nonnegative: bool = True
    flat_side: Callable[[Array], Array] | None = None
    allowed: Callable[[Array], Bools] = np.isfinite
    wanted: str = "a finite target"
    row: RowFormulas | None = None


@dataclass(frozen=True)
class Separable:
    """Σ_i ω_i ℓ(p_i; y_i), ω = 1 unless the loss is weighted.

    With a prediction off by δ ∈ R^q, the mean value theorem gives |Δℓ| ≤ ‖∇ℓ‖‖δ‖ + ½L‖δ‖², ‖Δ∇ℓ‖ ≤ L‖δ‖ and
    ‖Δ∇²ℓ‖ ≤ T‖δ‖, L and T the largest ω_i|ℓ''|, ω_i|ℓ'''| nearby: ∇²ℓ and ∇³ℓ are diagonal.
    """

    one: ScalarFormulas
    weighted: bool = False
    sum_free = False
    labels = False

    @property
    def nonnegative(self) -> bool:
        return self.one.nonnegative

    @property
    def concordance(self) -> float:
        return self.one.concordance

    @property
    def wanted(self) -> str:
        return self.one.wanted

    def allowed(self, y: Array) -> Bools:
        return self.one.allowed(y)

    def value(self, p: Any, y: Any, omega: Any) -> Any:
        each = self.one.value(p, y)
        return (omega * each if self.weighted else each).sum(axis=-1)

    def approximate(self, fn: Elementary, p: Array, y: Array, omega: Array | None) -> tuple[Array, ...]:
        """ℓ (m,), ∇ℓ and the diagonal of ∇²ℓ (m, q), nothing proven."""
        found = self.one.at(fn, p, y)[:3]
        value, first, second = [_present(omega) * part for part in found] if self.weighted else found
        return value.sum(axis=1) if p.shape[1] > 1 else value[:, 0], first, second

    def approximate_first(
        self, fn: Elementary, p: Array, y: Array, omega: Array | None
    ) -> tuple[Array, Array]:
        value, first, _ = self.approximate(fn, p, y, omega)
        return value, first

    def derivatives(
        self, fn: Elementary, p: Array, error: Radius, y: Array, omega: Array | None
    ) -> Derivatives:
        at = self.one.derivatives(fn, p, _column(error), y)
        value, first, second = at.value, at.first, at.second
        roundings = [at.value_rounding, at.first_rounding, at.second_rounding]
        near = [at.second_near, at.third_near]
        if self.weighted:
            weights = _present(omega)
            value, first, second = weights * value, weights * first, weights * second
            weight = Radius.size(weights)
            scaled = zip(roundings, (value, first, second), (at.value, at.first, at.second), strict=True)
            roundings = [weight * r + _rounded(v, v_1, 2.0 * U) for r, v, v_1 in scaled]
            near = [weight * bound for bound in near]
        L, T = _largest(near[0]), _largest(near[1])
        slope = Radius.row_norms(first)
        value_rounding, first_rounding, second_rounding = roundings
        q = p.shape[1]
        return Derivatives(
            value=value.sum(axis=1) if q > 1 else value[:, 0],
            value_error=total(
                (slope + L * error * 0.5 + _norms(first_rounding)) * error,
                _sums(value_rounding),
                _sums(Radius.size(value)) * gamma(q) if q > 1 else NOTHING,
            ),
            first=first,
            first_error=L * error + _norms(first_rounding),
            second=second,
            second_error=T * error + _largest(second_rounding),
            second_size=_largest(Radius.size(second)),
        )

    def first_derivatives(
        self, fn: Elementary, p: Array, error: Radius, y: Array, omega: Array | None
    ) -> FirstDerivatives:
        # As `derivatives`, where log ℓ'' is M-Lipschitz, M the concordance, so that ℓ'' grows by a factor of
        # e^{Mδ} at most over a distance δ.
        m, q = y.shape
        if self.one.row is None or self.weighted or q == 1:
            return FirstDerivatives(*self.derivatives(fn, p, error, y, omega)[:4])
        first, parts = np.empty((m, q)), []
        alike = not any(p.strides)  # one number, as at W = 0
        for some in _pieces(m, q):
            parts.append(self.one.row.at(fn, p[:1, :1] if alike else p[some], y[some], first[some]))
        value, second, more = (
            None if part[0] is None else np.concatenate(part) for part in zip(*parts, strict=True)
        )
        at, norms = Row(_present(value), _present(second), more), Radius.row_norms(first)
        value_rounding, first_rounding = self.one.row.roundings(at, norms, q)
        near = Radius.of(at.second + FLOOR)
        near = near + near * ((error * self.concordance).expm1() + Radius.of(2 * ELEMENTARY + gamma(10)))
        return FirstDerivatives(
            at.value,
            (norms + near * error * 0.5 + first_rounding) * error + value_rounding,
            first,
            near * error + first_rounding,
            norms,
        )

    def quadratic(
        self,
        fn: Elementary,
        p: Array,
        error: Radius,
        y: Array,
        omega: Array | None,
        delta: Array,
        delta_error: Radius,
    ) -> tuple[Array, Radius]:
        return quadratic_form(self.derivatives(fn, p, error, y, omega), delta, delta_error)

    def suprema(self, fn: Elementary, reach: Radius, y: Array, omega: Array | None) -> Suprema:
        if self.one.row is not None and not self.weighted and y.shape[1] > 1:
            return self.one.row.suprema(fn, reach, y)
        bounds = self.one.suprema(fn, _column(reach), y)
        if self.weighted:
            bounds = bounds.map(lambda bound: Radius.size(_present(omega)) * bound)
        first, second, third, powers = bounds.map(lambda bound: _broadcast(bound, y.shape))
        return Suprema(_norms(first), _largest(second), _largest(third), powers)

    def recession(self, y: Array) -> Recession | None:
        """An output that is flat on a side may move there forever; any other one has to stay."""
        if self.one.flat_side is None:
            return None
        side, unit = self.one.flat_side(y), np.eye(y.shape[1])
        (i, a), (j, c) = np.nonzero(side), np.nonzero(side == 0.0)
        return Recession(Rays(i, side[i, a, None] * unit[a]), Rays(j, unit[c]))

    def infimum(self, y: Array, omega: Array | None) -> Array:
        each = self.one.infimum(y)
        return (_present(omega) * each if self.weighted else each).sum(axis=1)

    def ball(self, p: Sequence[Any], y: Sequence[Any], omega: Sequence[Any] | None) -> Ball:
        each = [self.one.ball(p_i, y_i) for p_i, y_i in zip(p, y, strict=True)]
        if self.weighted:
            weights = _present(omega)
            each = [tuple(w * part for part in at) for w, at in zip(weights, each, strict=True)]
        value, first, second = zip(*each, strict=True)
        zero = value[0] * 0
        rows = [[second[i] if i == j else zero for j in range(len(p))] for i in range(len(p))]
        return Ball(sum(value[1:], value[0]), list(first), rows)


def _pieces(m: int, q: int) -> Iterator[slice]:
    """Of m rows, so many at a time that what is computed for q outputs of each stays near the processor."""
    size = max(1, CACHED // q)
    return (slice(start, min(start + size, m)) for start in range(0, m, size))


def _present(omega: Any) -> Any:
    if omega is None:
        raise ValueError("expected weights omega of the outputs, got none")
    return omega


def _rounded(result: Array, factor: Array, relative: float) -> Radius:
    """|result|·relative, for the roundings of a product with `factor`: one that underflowed is not exact,
    but where all factors are 0."""
    return Radius.of(np.abs(result)) * relative if factor.any() else NOTHING


def _column(error: Radius) -> Radius:
    """(m, 1), or one number for all."""
    if error.exact:
        return NOTHING
    return error if np.ndim(error.upper) == 0 else Radius(error.upper[:, None])


def _broadcast(bound: Radius, shape: tuple[int, ...]) -> Radius:
    return Radius(np.broadcast_to(bound.upper, shape), bound.exact)


def _largest(each: Radius) -> Radius:
    """(m,) the largest of (m, q)."""
    return Radius(np.max(each.upper, axis=1), each.exact) if np.ndim(each.upper) == 2 else each


def _norms(each: Radius) -> Radius:
    """(m,) the Euclidean norm of (m, q)."""
    if each.exact:
        return NOTHING
    if np.ndim(each.upper) < 2:
        return each
    if each.upper.shape[1] == 1:
        return Radius(each.upper[:, 0])
    return Radius.of(Radius.row_norms(each.upper).upper)


def _sums(each: Radius) -> Radius:
    """(m,) the sum of (m, q)."""
    if each.exact:
        return NOTHING
    if np.ndim(each.upper) < 2:
        return each
    if each.upper.shape[1] == 1:
        return Radius(each.upper[:, 0])
    return Radius.of(each.upper.sum(axis=1)) * (1.0 + 2.0 * gamma(each.upper.shape[1]))


# squared: ½(p − y)²


def _squared(p: Any, y: Any) -> Any:
    return 0.5 * (p - y) ** 2


def _squared_at(_: Elementary, p: Array, y: Array) -> At:
    r = p - y
    return At(0.5 * r * r, r, np.ones_like(r), r)


def _squared_derivatives(fn: Elementary, p: Array, error: Radius, y: Array) -> Scalars:
    at = _squared_at(fn, p, y)
    size = Radius.size(at.first)
    return Scalars(
        value=at.value,
        value_rounding=size * size * (3.0 * U),
        first=at.first,
        first_rounding=size * U,
        second=at.second,
        second_rounding=NOTHING,
        second_near=Radius(np.ones_like(at.second)),
        third_near=NOTHING,
    )


def _squared_suprema(_: Elementary, reach: Radius, y: Array) -> Suprema:
    return Suprema(reach + Radius.size(y), Radius(np.ones_like(y)), NOTHING)


def _squared_row(_: Elementary, p: Array, y: Array, into: Array) -> Row:
    np.subtract(p, y, out=into)
    return Row(0.5 * squared_norms(into), np.ones(len(y)), None)


def _squared_row_roundings(at: Row, norms: Radius, q: int) -> tuple[Radius, Radius]:
    return norms * norms * gamma(q + 3), norms * U


def _squared_row_suprema(_: Elementary, reach: Radius, y: Array) -> Suprema:
    return Suprema(reach + Radius.row_norms(y), Radius(np.ones(len(y))), NOTHING)


def _squared_ball(p: Any, y: Any) -> tuple[Any, Any, Any]:
    r = p - y
    return r * r / 2, r, r * 0 + 1


# logistic: log(1 + e^p) − yp, y ∈ [0, 1]


def _logistic(p: Any, y: Any) -> Any:
    from resnet_cert.numerics.jax64 import jnp

    return jnp.logaddexp(0.0, p) - y * p


def _logistic_at(fn: Elementary, p: Array, y: Array) -> At:
    # With e = e^{−|p|}: σ(|p|) = 1/(1+e), σ(−|p|) = e/(1+e).  ℓ' = σ(p) − y is written (1−y)σ(p) − yσ(−p) and
    # ℓ as log1p(e) + (1−y)max(p,0) + y·max(−p,0), so that nothing cancels where y is 0 or 1.
    e = fn.exp(-np.abs(p))
    large = 1.0 / (1.0 + e)
    small = e * large
    rest = 1.0 - y
    up, down = rest * np.where(p > 0.0, large, small), y * np.where(p > 0.0, small, large)
    value = fn.log1p(e) + (rest * np.maximum(p, 0.0) + y * np.maximum(-p, 0.0))
    return At(value, up - down, small * large, up + down)


def _logistic_derivatives(fn: Elementary, p: Array, error: Radius, y: Array) -> Scalars:
    # Relative errors of what is added are below 2·ELEMENTARY and the roundings counted.  |ℓ‴| ≤ ℓ'', whose
    # logarithm is 1-Lipschitz.
    at = _logistic_at(fn, p, y)
    relative = 2 * ELEMENTARY + gamma(10)
    near = Radius.of(at.second + FLOOR)
    near = near + near * (error.expm1() + Radius.of(relative))
    return Scalars(
        value=at.value,
        value_rounding=Radius.of(at.value) * relative,
        first=at.first,
        first_rounding=Radius.of(at.terms + FLOOR) * relative,
        second=at.second,
        second_rounding=Radius.of(at.second + FLOOR) * relative,
        second_near=near,
        third_near=near,
    )


_LOGISTIC_THIRD = math.log(2.0 + math.sqrt(3.0))
"""Where |ℓ'''| is largest: 1/(6√3)."""


def _logistic_suprema(fn: Elementary, reach: Radius, y: Array) -> Suprema:
    # |σ(p) − y| ≤ σ(R) − min(y, 1 − y) for |p| ≤ R: the sum of (1 − e^{−R})/(2(1 + e^{−R})) ≥ 0 and of
    # ½ − min(y, 1 − y) ≥ 0.
    R = np.broadcast_to(reach.upper, y.shape)
    e = fn.exp(-np.minimum(R, _LOGISTIC_THIRD))
    third = -fn.expm1(-np.minimum(R, _LOGISTIC_THIRD)) * e / ((1.0 + e) * (1.0 + e) * (1.0 + e))
    slope = -fn.expm1(-R) / (2.0 * (1.0 + fn.exp(-R))) + (0.5 - np.minimum(y, 1.0 - y))
    return Suprema(
        Radius.of(slope + FLOOR) * SUPREMUM,
        Radius(np.full_like(y, 0.25)),
        Radius.of(third + FLOOR) * SUPREMUM,
    )


def _logistic_row(fn: Elementary, p: Array, y: Array, into: Array) -> Row:
    # As `_logistic_at`: with e = e^{−|p|}, σ(p) is max([p > 0], e)/(1 + e), and ℓ'' = e/(1 + e)² grows with
    # e.  ∇ℓ is up − down, and (up + down)² = (up − down)² + 4·up·down, where one of both is 0 if y is 0 or 1,
    # as (1 − y)y is then and nowhere else.
    e, rest, side = fn.exp(-np.abs(p)), 1.0 - y, (p > 0.0).astype(np.float64)
    inverse, ahead = 1.0 / (1.0 + e), np.maximum(p, 0.0)
    up, down = np.maximum(side, e), np.maximum(1.0 - side, e)
    up *= inverse
    down *= inverse
    np.multiply(up, rest, out=into)
    down = np.multiply(down, y, out=down if down.shape == y.shape else None)
    more, between = np.zeros(len(y)), np.vecdot(rest, y) > 0.0
    if between.any():  # 2^-500: for products that underflow
        more = np.where(between, 2.0 * np.sqrt(np.vecdot(into, down)) + 2.0**-500, 0.0)
    into -= down
    one, all_of = e.max(axis=1), np.broadcast_to(e, (len(e), y.shape[1]))
    behind = np.broadcast_to(ahead - p, y.shape)
    value = (
        np.vecdot(rest, np.broadcast_to(ahead, y.shape)) + np.vecdot(y, behind) + _sums_of_log1p(fn, all_of)
    )
    return Row(value, np.broadcast_to(one / (1.0 + one) / (1.0 + one), len(y)), more)


def _sums_of_log1p(fn: Elementary, e: Array) -> Array:
    """(m,) Σ_j log(1 + e_j) of e (m, q) in [0, 1], as the logarithms of products, within a relative γ_3q and
    those of e and log1p.

    Errors ε of e_j move log(1 + e_j) by ε e_j/(1 + e_j) ≤ ε log(1 + e_j).  The 2q roundings of Π(1 + e_j)
    move its logarithm by γ_2q, less than γ_3q log 2.  Where the logarithm is less than log 2, it is that of
    1 + t = Π(1 + e_j): t of two factors is a + b + ab, within γ_3, and log(1 + t) is concave in t and 0 at 0,
    so that it moves by no more than t, relatively.  512 factors are at most 2^512.
    """
    if e.shape[1] > 512:
        return _sums_of_log1p(fn, e[:, :512]) + _sums_of_log1p(fn, e[:, 512:])
    t = np.multiply.reduce(1.0 + e, axis=1) - 1.0
    small = np.flatnonzero(t < 1.0)
    if small.size:
        t[small] = _compound(e[small])
    return fn.log1p(t)


def _compound(e: Array) -> Array:
    """Π_j (1 + e_j) − 1, without cancellation."""
    while e.shape[1] > 1:
        half = (e.shape[1] + 1) // 2
        t, b = e[:, :half].copy(), e[:, half:]
        a = t[:, : b.shape[1]]
        a += b + a * b
        e = t
    return e[:, 0]


def _logistic_row_roundings(at: Row, norms: Radius, q: int) -> tuple[Radius, Radius]:
    # Every term of ℓ and of ∇ℓ is ≥ 0 before the difference.
    terms = hypot(norms, Radius.of(_present(at.more)) * (1.0 + gamma(q + 4))) + Radius.underflow(q)
    return Radius.of(at.value) * (2 * ELEMENTARY + gamma(4 * q + 16)), terms * (2 * ELEMENTARY + gamma(10))


def _logistic_row_suprema(fn: Elementary, reach: Radius, y: Array) -> Suprema:
    # As `_logistic_suprema`, entry by entry: with y = 1/2 there is only the first of its two terms.
    at = _logistic_suprema(fn, Radius(np.broadcast_to(reach.upper, len(y))), np.full(len(y), 0.5))
    each = at.first.upper[:, None]
    slopes = (each[i] + (0.5 - np.minimum(y[i], 1.0 - y[i])) for i in _pieces(*y.shape))
    first = Radius.stacked([Radius.row_norms(part) for part in slopes])
    return Suprema(first * (1.0 + 4 * U), at.second, at.third)


def _logistic_ball(p: Any, y: Any) -> tuple[Any, Any, Any]:
    # Each form of the value is an identity for every p.
    up, down = 1 / (1 + (-p).exp()), 1 / (1 + p.exp())
    value = (-p).exp().log1p() + (1 - y) * p if p > 0 else p.exp().log1p() - y * p
    return value, (1 - y) * up - y * down, up * down


def _logistic_infimum(y: Array) -> Array:
    """−y·log y − (1−y)·log(1−y), rounded down."""
    inside = (y > 0.0) & (y < 1.0)
    t = np.where(inside, y, 0.5)
    entropy = -(t * np.log(t) + (1.0 - t) * np.log1p(-t))
    return np.where(inside, np.maximum(entropy * (1.0 - 2.0**-40) - 2.0**-60, 0.0), 0.0)


def _logistic_flat_side(y: Array) -> Array:
    """An output with y = 1 (0) may grow (fall) forever; one with a target in between has to stay."""
    return np.where(y == 1.0, 1.0, np.where(y == 0.0, -1.0, 0.0))


# pseudo_huber: √(1 + (p − y)²) − 1


def _pseudo_huber(p: Any, y: Any) -> Any:
    from resnet_cert.numerics.jax64 import jnp

    return jnp.sqrt(1.0 + (p - y) ** 2) - 1.0


_PSEUDO_HUBER_THIRD = 0.8587
"""sup |ℓ'''| = 3·½/(5/4)^{5/2} = 0.85865..., at |r| = ½."""


def _pseudo_huber_at(fn: Elementary, p: Array, y: Array) -> At:
    # s − 1 = r²/(1 + s) without cancellation.
    r = p - y
    s = fn.hypot1(r)
    inverse = 1.0 / s
    return At(r * (r / (1.0 + s)), r / s, inverse * inverse * inverse, r)


def _pseudo_huber_derivatives(fn: Elementary, p: Array, error: Radius, y: Array) -> Scalars:
    # 1/s³ meets three errors of s and five roundings.  The rounding of r, u|r|, moves ℓ by |ℓ'|u|r| ≤ 2uℓ,
    # for |ℓ'||r| = r²/s ≤ 2(s − 1), and ℓ' and ℓ'' by at most u and 3u of themselves.
    value, first, second, r = _pseudo_huber_at(fn, p, y)
    third = Radius.of(_PSEUDO_HUBER_THIRD)
    at = Radius.of(second) * (1.0 + 3 * ELEMENTARY + 12 * U)
    return Scalars(
        value=value,
        value_rounding=_rounded(value, r, 2 * ELEMENTARY + 8 * U),
        first=first,
        first_rounding=_rounded(first, r, ELEMENTARY + 4 * U),
        second=second,
        second_rounding=Radius.of(second) * (3 * ELEMENTARY + 10 * U),
        second_near=(at + third * error).capped(1.0),
        third_near=_broadcast(third, p.shape),
    )


def _pseudo_huber_suprema(fn: Elementary, reach: Radius, y: Array) -> Suprema:
    farthest = (reach + Radius.size(y)).upper
    nearest = np.maximum(np.abs(y) * (1.0 - 4 * U) - reach.upper, 0.0)
    at = np.clip(0.5, nearest, farthest)
    near, s = fn.hypot1(nearest), fn.hypot1(at)
    # Far from all targets, at = nearest, ℓ″ and ℓ‴ are no floats: s is in units of 2^e, about the least.
    e = max(0, math.frexp(float(np.min(near)))[1] // 16 * 16 - 64)
    root = at / s
    near, s = np.ldexp(near, -e), np.ldexp(s, -e)
    return Suprema(
        Radius.of(farthest / fn.hypot1(farthest) + FLOOR) * SUPREMUM,
        Radius.of(1.0 / near / near / near + FLOOR) * SUPREMUM,
        Radius.of(3.0 * root / s / s / s / s + FLOOR) * SUPREMUM,
        (0, -3 * e, -4 * e),
    )


def _pseudo_huber_ball(p: Any, y: Any) -> tuple[Any, Any, Any]:
    r = p - y
    s = (1 + r * r).sqrt()
    return r * r / (1 + s), r / s, 1 / (s * s * s)


# poisson: e^p − yp, y ≥ 0


def _poisson(p: Any, y: Any) -> Any:
    from resnet_cert.numerics.jax64 import jnp

    return jnp.exp(p) - y * p


def _poisson_at(fn: Elementary, p: Array, y: Array) -> At:
    rate, linear = fn.exp(p), y * p
    return At(rate - linear, rate - y, rate, linear)


def _poisson_derivatives(fn: Elementary, p: Array, error: Radius, y: Array) -> Scalars:
    value, first, rate, linear = _poisson_at(fn, p, y)
    size = Radius.of(rate + FLOOR)
    rounding = size * (ELEMENTARY + U)
    near = size + size * (error.expm1() + Radius.of(ELEMENTARY + U))
    return Scalars(
        value=value,
        value_rounding=rounding + (Radius.size(linear) + Radius.size(value)) * U,
        first=first,
        first_rounding=rounding + Radius.size(first) * U,
        second=rate,
        second_rounding=rounding,
        second_near=near,
        third_near=near,
    )


def _poisson_suprema(fn: Elementary, reach: Radius, y: Array) -> Suprema:
    R = np.broadcast_to(reach.upper, y.shape)
    # max(e^R − y, y − e^{−R}), in which only the lesser one cancels: the larger is at least |y − 1|, and half
    # of (e^R − 1) + (1 − e^{−R}), so that it is off by a small multiple of ELEMENTARY, relatively.
    first = np.maximum(fn.expm1(R) + (1.0 - y), (y - 1.0) - fn.expm1(-R))
    bound = Radius.of(fn.exp(R)) * SUPREMUM
    return Suprema(Radius.of(first + FLOOR) * SUPREMUM, bound, bound)


def _poisson_ball(p: Any, y: Any) -> tuple[Any, Any, Any]:
    rate = p.exp()
    return rate - y * p, rate - y, rate


def _poisson_infimum(y: Array) -> Array:
    """y − y·log y, rounded down."""
    t = np.where(y > 0.0, y, 1.0)
    least = t - t * np.log(t)
    return np.where(y > 0.0, least - 2.0**-40 * (t + np.abs(t * np.log(t))), 0.0)


# softmax: Σ_c y_c(log Σ_j e^{p_j} − p_c), y a class or a row of class probabilities


def _drift(distance: Radius, factor: float) -> Radius:
    """e^{factor·δ} − 1: the relative change, over δ, of what has a factor-Lipschitz logarithm."""
    return (distance * factor).expm1()


_SOFTMAX_THIRD = math.sqrt(6.0) / 9.0 * SUPREMUM
"""‖∇³ℓ‖ ≤ √6/9 for Y = 1.  Along a unit v it is the third central moment of v under s, of a variable of range
L ≤ √2.  Centred and in [α, β], β − α = L, its third moment is at most β³/4 (from E(β − X)(X + β/2)² ≥ 0), and
at most −αβ(α + β) if α ≥ −β/2 (from E(β − X)(X − α)² ≥ 0 with E X² ≤ −αβ).  In either case, by −X as well, it
is at most L³/(6√3)."""


class SoftmaxAt(NamedTuple):
    """s, o (m, q) and Y (m,) at m predictions.

    error: of p, its shift included;  relative: of s and o, apart from that;  size: of ‖ |∇²ℓ| ‖;
    underflow: what may be lost besides.
    """

    s: Array
    o: Array
    Y: Array
    error: Radius
    relative: Radius
    size: Radius
    underflow: Radius


@dataclass(frozen=True)
class Softmax:
    """Cross-entropy Σ_c y_c(log Σ_j e^{p_j} − p_c).

    With s = softmax(p), o = 1 − s, Y = Σ y: ∇ℓ = Ys − y = s·(Y − y) − y·o, ∇²ℓ = Y(diag(s) − ssᵀ).
    omega (m, q), where it is given, is 0 for the classes that a sample does without (y = 0 there): then
    log Σ_j e^{p_j} is over the others.
    """

    nonnegative = True
    sum_free = True
    concordance = 1.4143  # |E[(u − Eu)²(v − Ev)]| ≤ max|v_j − Ev|·Var u, a range of at most √2‖v‖
    labels = True
    weighted = False
    wanted = "a probability ≥ 0"

    def allowed(self, y: Array) -> Bools:
        return np.isfinite(y) & (y >= 0.0)

    def value(self, p: Any, y: Any, omega: Any) -> Any:
        from resnet_cert.numerics.jax64 import jax

        return (y * (jax.nn.logsumexp(p, axis=-1, keepdims=True) - p)).sum(axis=-1)

    def derivatives(
        self, fn: Elementary, p: Array, error: Radius, y: Array, omega: Array | None
    ) -> Derivatives:
        at = self._at(fn, p, error, y, omega)
        q, s, Y = p.shape[1], at.s, at.Y
        second = -Y[:, None, None] * s[:, :, None] * s[:, None, :]
        second[:, range(q), range(q)] = Y[:, None] * s * at.o
        return Derivatives(
            *self.first_derivatives(fn, p, error, y, omega)[:4],
            second=second,
            second_error=at.size * (_drift(at.error, 3.0) + at.relative * 2.0) + at.underflow * float(q),
            second_size=at.size,
        )

    def first_derivatives(
        self, fn: Elementary, p: Array, error: Radius, y: Array, omega: Array | None
    ) -> FirstDerivatives:
        # With c the likeliest class, l that of the largest target, and every other j:
        #     ∇ℓ_j = s_j Σ_{i≠j} y_i − y_j o_j = Y s_j − y_j,
        # where s_j ≤ ½ and y_j ≤ Y/2, so that Y s_j + y_j is at most twice the terms of the former.  At c and
        # l, where the latter may cancel, Σ_{i≠j} y_i and o_j are sums without j, or a whole less a part that
        # is at most half of it.  Errors are relative to these terms, whose norm is `magnitude`, as in `_at`.
        # max_j s_j o_j = s_c o_c, for x(1 − x) is concave and symmetric about ½, and s_c is between any other
        # s_j and 1 − s_j.
        if omega is None:
            label, has_one = unit_vectors(y)
            if has_one.all():
                return self._first_of_classes(fn, p, error, label)
            if has_one.any():  # a row's floats depend on no other row
                return self._first_by_row(fn, p, error, y, has_one)
        value, first, tail, Y, shifted, magnitude = self._slopes(fn, p, y, omega)
        error = error + Radius.row_norms(shifted) * U
        return self._first(value, first, tail, Y, error, Radius.row_norms(first), Radius.row_norms(magnitude))

    def approximate_first(
        self, fn: Elementary, p: Array, y: Array, omega: Array | None
    ) -> tuple[Array, Array]:
        """ℓ (m,) and ∇ℓ, nothing proven: the floats of `first_derivatives`, but where labels are beside
        other targets."""
        label, has_one = unit_vectors(y) if omega is None else (None, None)
        if label is not None and has_one is not None and has_one.all():
            value, first, *_ = self._slopes_of_classes(fn, p, label)
        else:
            value, first, *_ = self._slopes(fn, p, y, omega)
        return value, first

    @staticmethod
    def _slopes(fn: Elementary, p: Array, y: Array, omega: Array | None) -> tuple[Array, ...]:
        """ℓ, ∇ℓ, Σ e^{p_j − p_c} over j ≠ c, Y, p − p_c, and the terms of ∇ℓ added up."""
        each = np.arange(len(p))
        c, l = (p if omega is None else np.where(omega > 0.0, p, -np.inf)).argmax(axis=1), y.argmax(axis=1)
        shifted = p - p[each, c][:, None]
        if omega is not None:
            shifted = np.where(omega > 0.0, shifted, 0.0)
        below = np.einsum("ij,ij->i", y, shifted)
        e = fn.exp(shifted)
        if omega is not None:
            e *= omega > 0.0
        e[each, c] = 0.0
        tail = e.sum(axis=1)  # log Σ e^{p_j} − max p = log(1 + tail)
        magnitude, y_c, y_l, e_l = y.copy(), y[each, c], y[each, l], e[each, l]
        magnitude[each, l] = 0.0
        rest = magnitude.sum(axis=1)
        magnitude[each, l] = y_l
        whole, Y = 1.0 + tail, rest + y_l
        e *= (Y / whole)[:, None]
        first = e - y
        magnitude += e
        for at, gains, falls in (
            (l, e_l / whole * rest, y_l * (whole - e_l) / whole),
            (c, np.where(c == l, rest, Y - y_c) / whole, y_c * tail / whole),  # the last word where c = l
        ):
            first[each, at], magnitude[each, at] = gains - falls, gains + falls
        return Y * fn.log1p(tail) - below, first, tail, Y, shifted, magnitude

    def _first_by_row(
        self, fn: Elementary, p: Array, error: Radius, y: Array, has_one: Bools
    ) -> FirstDerivatives:
        """Of samples with one class, and of others, each as they are by themselves."""
        each = Radius(np.broadcast_to(error.upper, len(p)), error.exact)
        one, other = (
            self.first_derivatives(fn, p[some], each[some], y[some], None) for some in (has_one, ~has_one)
        )
        back = np.argsort(np.concatenate([np.flatnonzero(has_one), np.flatnonzero(~has_one)]))
        return FirstDerivatives(
            np.concatenate([one.value, other.value])[back],
            Radius.stacked([one.value_error, other.value_error])[back],
            np.concatenate([one.first, other.first])[back],
            Radius.stacked([one.first_error, other.first_error])[back],
        )

    def _first_of_classes(
        self, fn: Elementary, p: Array, error: Radius, label: npt.NDArray[np.intp]
    ) -> FirstDerivatives:
        value, first, tail, squares = self._slopes_of_classes(fn, p, label)
        norms, error = Radius.row_norms(first), error + Radius.roots(squares, p.shape[1]) * U
        return self._first(value, first, tail, np.ones(len(p)), error, norms, norms)

    @staticmethod
    def _slopes_of_classes(fn: Elementary, p: Array, label: npt.NDArray[np.intp]) -> tuple[Array, ...]:
        """ℓ, ∇ℓ, Σ e^{p_j − p_c} over j ≠ c, ‖p − p_c‖²."""
        # As `_slopes` for y = e_l: Σ_{i≠j} y_i is 1 for j ≠ l and 0 for l, so that
        #     ∇ℓ_j = s_j (j ≠ l),   ∇ℓ_l = −o_l,   ℓ = log(1 + tail) − (p_l − p_c),
        # each entry is its own `magnitude`.
        m, q = p.shape
        first, squares = np.empty((m, q)), np.empty(m)
        tail, below, e_l = np.empty(m), np.empty(m), np.empty(m)
        leader = p.argmax(axis=1)
        for some in _pieces(m, q):
            into, c, l = first[some], leader[some], label[some]
            each = np.arange(len(l))
            np.subtract(p[some], p[some][each, c][:, None], out=into)
            squares[some], below[some] = squared_norms(into), into[each, l]
            e = fn.exp(into)
            e_l[some] = e[each, l]
            e[each, c] = 0.0
            tail[some] = e.sum(axis=1)
            np.multiply(e, (1.0 / (1.0 + tail[some]))[:, None], out=into)
        each, whole = np.arange(m), 1.0 + tail
        first[each, leader] = 1.0 / whole
        first[each, label] = np.where(leader == label, 0.0 - tail, e_l - whole) / whole
        return fn.log1p(tail) - below, first, tail, squares

    def _first(
        self, value: Array, first: Array, tail: Array, Y: Array, error: Radius, norms: Radius, largest: Radius
    ) -> FirstDerivatives:
        """With the errors.

        Args:
            tail: Σ e^{p_j − p_c} over j ≠ c, c the likeliest class.  error: of p, its shift included.
            norms, largest: of ∇ℓ, and of the `magnitude` of its entries.
        """
        q, whole = first.shape[1], 1.0 + tail
        relative, underflow = self._relative(q), self._underflow(q, Y)
        first_error = (_drift(error, 1.5) + relative) * (largest + underflow) + underflow
        size = Radius.of(2.0 * Y * tail / whole / whole + FLOOR) * (1.0 + 2.0**-30) + underflow
        bent = size + size * _drift(error, 3.0)
        value_error = total(
            (norms + first_error + bent * error) * error,
            Radius.of(value) * relative,
            underflow,
        )
        return FirstDerivatives(value, value_error, first, first_error, norms)

    def quadratic(
        self,
        fn: Elementary,
        p: Array,
        error: Radius,
        y: Array,
        omega: Array | None,
        delta: Array,
        delta_error: Radius,
    ) -> tuple[Array, Radius]:
        # δᵀ∇²ℓδ = Y(Σ s δ² − (Σ s δ)²), and the same with δ − m for δ, for any m; with m = Σ s δ nothing
        # cancels: the first term is the whole up to rounding, the second, squared, is rounding itself.
        # For s off by a relative ρ, both terms together are off by less than 4ρ(1 + ρ)² of the first (Cauchy
        # and Schwarz).  An error e of δ moves the root of the form by √‖∇²ℓ‖ e; ‖∇²ℓ‖ grows by (1 + ρ)².
        at = self._at(fn, p, error, y, omega)
        s, q = at.s, p.shape[1]
        centered = delta - (s * delta).sum(axis=1, keepdims=True)
        spread = np.einsum("ij,ij->i", s * centered, centered)
        form = at.Y * (spread - np.square((s * centered).sum(axis=1)))
        whole = Radius.of(at.Y * spread) * (1.0 + 2 * gamma(q + 4)) + at.underflow
        length = Radius.row_norms(centered)
        relative = _drift(at.error, 1.5) + at.relative + Radius.of(gamma(2 * q + 8))
        away = delta_error + length * (2.0 * U)  # δ − m is rounded
        growth = (1.0 + float(relative.max())) ** 2 * (1.0 + 2.0**-40)
        size = at.size * growth
        wrong = total(
            whole * relative * (4.0 * growth),
            (whole * size).sqrt() * away * (2.0 * growth),
            size * away * away,
            at.underflow * (length * length + Radius.of(1.0)) * 4.0,
        )
        return form, wrong

    def _at(self, fn: Elementary, p: Array, error: Radius, y: Array, omega: Array | None) -> SoftmaxAt:
        # o and Y − y are sums over the other classes, so that nothing cancels for a single class: within
        # γ_{2q+4}, and s, o, products of one of them with Y − y and sums of those within γ_{3q+16}.  p is
        # shifted by its largest entry; the roundings U|p_j − max| of that are counted as errors of p.  Then
        # e^{p_j} is off by ELEMENTARY, s, o and log1p by twice that, and by the roundings counted.
        # log s_j and log o_j are √2-Lipschitz: their gradients e_j − s and −s_j(e_j − s)/o_j are at most √2
        # long, for ‖e_j − s‖ ≤ √2·o_j.  So s, o change by at most e^{1.5δ} − 1 over a distance δ, and
        # ∇²ℓ, with entries ±Y s_a s_b and Y s_a o_a, by e^{3δ} − 1, relatively;
        # |Δℓ| ≤ ‖∇ℓ‖δ + ½‖∇²ℓ‖e^{3δ}δ².
        # The absolute row sums of ∇²ℓ are 2Y s_a o_a.
        q = p.shape[1]
        largest = (p if omega is None else np.where(omega > 0.0, p, -np.inf)).argmax(axis=1)[:, None]
        shifted = p - np.take_along_axis(p, largest, axis=1)
        if omega is not None:
            shifted = np.where(omega > 0.0, shifted, 0.0)
        e = fn.exp(shifted)
        if omega is not None:
            e = np.where(omega > 0.0, e, 0.0)
        rest = _others(e, largest)
        whole = e.sum(axis=1, keepdims=True)
        s, o, Y = e / whole, rest / whole, y.sum(axis=1)
        underflow = self._underflow(q, Y)
        return SoftmaxAt(
            s=s,
            o=o,
            Y=Y,
            error=error + Radius.row_norms(shifted) * U,
            relative=self._relative(q),
            size=Radius.of(2.0 * Y * (s * o).max(axis=1) + FLOOR) + underflow,
            underflow=underflow,
        )

    @staticmethod
    def _relative(q: int) -> Radius:
        return Radius.of(2 * ELEMENTARY + gamma(3 * q + 16))

    @staticmethod
    def _underflow(q: int, Y: Array) -> Radius:
        """What underflowed may grow."""
        return Radius.of(q * FLOOR * (1.0 + Y))

    def suprema(self, fn: Elementary, reach: Radius, y: Array, omega: Array | None) -> Suprema:
        # ‖e_c − s‖ ≤ √2(1 − s_c) and p_j − p_c ≤ √2‖p‖; ∇ℓ is the mean of these over c.  A variable of
        # range √2 has at most the variance ½.
        Y, others = Radius.of(y.sum(axis=1)) * (1.0 + 2 * gamma(y.shape[1])), y.shape[1] - 1.0
        first = math.sqrt(2.0) * others / (others + fn.exp(-1.42 * np.broadcast_to(reach.upper, len(y))))
        return Suprema(Y * Radius.of(first) * SUPREMUM, Y * 0.5, Y * _SOFTMAX_THIRD)

    def recession(self, y: Array) -> Recession:
        """The classes that a sample may have must stay equally ahead of, or gain on, the others."""
        q = y.shape[1]
        unit = np.eye(q)
        leader = np.argmax(y > 0.0, axis=1)
        i, c = np.nonzero(np.arange(q) != leader[:, None])
        vectors = unit[leader[i]] - unit[c]
        helps = y[i, c] == 0.0
        return Recession(Rays(i[helps], vectors[helps]), Rays(i[~helps], vectors[~helps]))

    def infimum(self, y: Array, omega: Array | None) -> Array:
        """Σ_c y_c log(Y/y_c), rounded down."""
        Y = y.sum(axis=1, keepdims=True)
        t = np.where(y > 0.0, y, Y)
        entropy = (y * np.log(Y / t)).sum(axis=1)
        return np.maximum(entropy * (1.0 - 2.0**-40) - 2.0**-45 * Y[:, 0], 0.0)

    def ball(self, p: Sequence[Any], y: Sequence[Any], omega: Sequence[Any] | None) -> Ball:
        q = len(p)
        top = max(range(q), key=lambda j: float(p[j].mid()))
        e = [(p_j - p[top]).exp() if j != top else p[top] * 0 + 1 for j, p_j in enumerate(p)]
        rest: list[Any] = [sum((e[l] for l in range(q) if l != j), p[0] * 0) for j in range(q)]
        whole: Any = 1 + rest[top]
        s, o = [e_j / whole for e_j in e], [r_j / whole for r_j in rest]
        tail, Y = rest[top].log1p(), sum(y[1:], y[0])
        value: Any = sum((y[j] * (tail - (p[j] - p[top])) for j in range(q) if j != top), y[top] * tail)
        Y_rest = [sum((y[l] for l in range(q) if l != j), y[0] * 0) for j in range(q)]
        first = [s[j] * Y_rest[j] - y[j] * o[j] for j in range(q)]
        second = [[Y * s[a] * o[a] if a == b else -Y * s[a] * s[b] for b in range(q)] for a in range(q)]
        return Ball(value, first, second)


def unit_vectors(y: Array) -> tuple[npt.NDArray[np.intp], Bools]:
    """(m,) the largest target of each sample, and whether its row of y (m, q) is 1 there and 0 elsewhere."""
    label = y.argmax(axis=1)
    is_unit = y[np.arange(len(y)), label] == 1.0
    if is_unit.any() and not (is_unit.all() and np.count_nonzero(y) == len(y)):
        is_unit &= np.count_nonzero(y, axis=1) == 1
    return label, is_unit


def _others(a: Array, largest: npt.NDArray[np.intp]) -> Array:
    """Σ_{l≠j} a_l for each j, a (m, q) ≥ 0, within a relative γ_{2q+4}.

    largest: (m, 1) where each row has its largest entry, up to a relative 2^-20.  The sum that leaves that
    one out is formed without it; any other a_j is at most half of the sum of all, for the largest is in there
    as well, so that taking a_j off no more than doubles the relative error γ_q of that sum.
    """
    whole = a.sum(axis=1, keepdims=True)
    sums = whole - a
    rest = a.copy()
    np.put_along_axis(rest, largest, 0.0, axis=1)
    np.put_along_axis(sums, largest, rest.sum(axis=1, keepdims=True), axis=1)
    return sums


_SQUARED = ScalarFormulas(
    _squared,
    _squared_at,
    _squared_derivatives,
    _squared_suprema,
    _squared_ball,
    concordance=0.0,
    row=RowFormulas(_squared_row, _squared_row_roundings, _squared_row_suprema),
)

LOSSES: dict[str, Formulas] = {
    "squared": Separable(_SQUARED),
    "logistic": Separable(
        ScalarFormulas(
            _logistic,
            _logistic_at,
            _logistic_derivatives,
            _logistic_suprema,
            _logistic_ball,
            concordance=1.0,
            infimum=_logistic_infimum,
            flat_side=_logistic_flat_side,
            allowed=lambda y: (y >= 0.0) & (y <= 1.0),
            wanted="a target in [0, 1]",
            row=RowFormulas(_logistic_row, _logistic_row_roundings, _logistic_row_suprema),
        )
    ),
    "pseudo_huber": Separable(
        ScalarFormulas(
            _pseudo_huber,
            _pseudo_huber_at,
            _pseudo_huber_derivatives,
            _pseudo_huber_suprema,
            _pseudo_huber_ball,
            concordance=1.5,  # 3|r|/(1 + r²)
        )
    ),
    "poisson": Separable(
        ScalarFormulas(
            _poisson,
            _poisson_at,
            _poisson_derivatives,
            _poisson_suprema,
            _poisson_ball,
            concordance=1.0,
            infimum=_poisson_infimum,
            nonnegative=False,
            flat_side=lambda y: np.where(y == 0.0, -1.0, 0.0),
            allowed=lambda y: np.isfinite(y) & (y >= 0.0),
            wanted="a target y ≥ 0",
        )
    ),
    "softmax": Softmax(),
    "weighted_squared": Separable(_SQUARED, weighted=True),
}


def weighted_losses() -> Iterable[str]:
    """The losses that need weights omega of the outputs."""
    return [kind for kind, loss in LOSSES.items() if loss.weighted]
