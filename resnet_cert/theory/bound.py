"""Theorem 3 in numbers: how far above the best linear predictor an ε-SOPSP can be, for one ε or several."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal, TypedDict

from resnet_cert.numerics.enclosure import Enclosure, minimum
from resnet_cert.outcomes import Diagnostic, RequestError
from resnet_cert.problem.losses import named_loss
from resnet_cert.results import BoundConstants, BoundRow, BoundTable
from resnet_cert.theory.theorems import (
    ThresholdForm,
    decayed_form,
    last_float,
    polynomial_form,
    refined_form,
    refined_polynomial_form,
    threshold_form,
)

MOST_POINTS = 100_000
"""The most points of one A:B:N; a row takes about 2 ms."""
KINDS = {"cross_entropy": "softmax", "mse": "squared", "bce_with_logits": "logistic"}
"""The losses that frameworks call otherwise; a factor changes nothing here."""
CURVE_POINTS = 121
LEAST_DECADES = 4.0
FARTHEST_POWER = 100.0
"""Of ten, up or down: farther away nothing is drawn."""


def bound(
    eps: float | Iterable[float],
    *,
    b: float | None = None,
    r: float | None = None,
    mu0: float | None = None,
    mu1: float | None = None,
    mu2: float | None = None,
    d: int | None = None,
    q: int = 1,
    k: int = 1,
    loss: str | None = None,
    s: float | None = None,
    bypass: bool = False,
    l2: float = 0.0,
    norm_V: float | None = None,
    F_lin_min: Enclosure | None = None,
    target_gap: float | None = None,
) -> BoundTable:
    """Theorem 3: every ε-SOPSP with ‖W‖_F, ‖V‖ < b has F ≤ min_{‖W*‖_F≤r} F_lin(W*) + bound(ε).

    Args:
        eps: ε ≥ 0, one or several; one row each, in the same order.
        b, r: the domain, b > 0, and the ball of the linear predictors.
        mu0, mu1, mu2: Lipschitz constants of F, ∇F, ∇²F on the domain.  All five are needed.
        d: inputs of the block, rows of V; one more than is needed by default.
        q, k: outputs and features.
        loss: its name, where its gradients do not span R^q: softmax counts q − 1 outputs.
        s: also bound F against every predictor Ux + Zf with ‖U‖_F ≤ r, ‖Z‖_F ≤ s.
        bypass: the head reads more than the block's inputs, a bias for example.
        l2, norm_V: weight decay l2(‖W‖_F² + ‖V‖_F²) and a bound of ‖V‖_F; then G, G_lin stand for F, F_lin.
        F_lin_min: min F_lin over the ball, for the rows' F_upper.
        target_gap: also find the largest ε whose bound is at most this (see `largest_epsilon`).

    Raises:
        RequestError: some of these numbers are missing, negative or not finite; it names all of them.  Or
            d < q, where an ε-SOPSP may be worse than the best linear predictor whatever ε is.
    Source: Shamir 2018, Theorem 3, for q = 1.
    """
    span = q if loss is None else q - (named_loss(KINDS.get(loss, loss)).sum_free and q > 1)
    d = span + 1 if d is None else d
    epsilons = tuple(eps) if isinstance(eps, Iterable) else (eps,)
    faults = [
        _fault("b (--b or domain.b)", b, positive=True),
        _fault("r (--r or domain.r)", r),
        _fault("mu0 (--mu0 or lipschitz.mu0)", mu0),
        _fault("mu1 (--mu1 or lipschitz.mu1)", mu1),
        _fault("mu2 (--mu2 or lipschitz.mu2)", mu2),
        *(
            f"expected an integer >= 1 for {name} (--{name}), got {number!r}"
            for name, number in (("d", d), ("q", q), ("k", k))
            if number < 1
        ),
        None if s is None else _fault("s (--s)", s),
        _fault("l2 (regularizer.l2)", l2),
        _fault("norm_V", norm_V) if l2 else None,
        "expected no s (--s) with weight decay: Theorem 3 against Ux + Zf is one of F" if l2 and s else None,
        None if d >= span or d < 1 else not_stated(d, span),
        *(_fault("epsilon (--eps)", number) for number in epsilons),
        None if target_gap is None else _fault("the target gap (--target-gap)", target_gap),
    ]
    _refuse(faults)
    numbers = (float(x) for x in (b, r, mu0, mu1, mu2) if x is not None)
    constants = BoundConstants(
        *numbers,
        d=int(d),
        q=int(q),
        k=int(k),
        span=span,
        bypass=bypass,
        s=None if s is None else float(s),
        l2=float(l2),
        norm_V=norm_V,
    )
    return BoundTable(
        constants,
        F_lin_min,
        tuple(theorem3(constants, float(number), F_lin_min) for number in epsilons),
        target_gap,
        None if target_gap is None else largest_epsilon(constants, target_gap),
    )


def with_curve(table: BoundTable, points: int = CURVE_POINTS) -> BoundTable:
    """With `curve`: ε from the least to the largest that is asked for, over four decades at least."""
    asked = [eps for eps in (*(row.eps for row in table.rows), table.target_eps or 0.0) if eps > 0.0]
    asked = [eps for eps in asked if eps < math.inf]
    powers = [max(-FARTHEST_POWER, min(math.log10(eps), FARTHEST_POWER)) for eps in asked] or [-4.0]
    low, high = min(powers), max(powers)
    beyond = max(0.0, (LEAST_DECADES - (high - low)) / 2.0)
    low, high = low - beyond, high + beyond
    eps = (10.0 ** (low + (high - low) * i / (points - 1)) for i in range(points))
    return replace(table, curve=tuple(theorem3(table.constants, e, table.F_lin_min) for e in eps))


def not_stated(d: int, span: int) -> str:
    """Why there is no Theorem 3 for d1 < q."""
    return (
        f"expected d >= {span}, got d = {d}: with fewer inputs of the block than outputs even a strict local "
        "minimum may be worse than the best linear predictor"
    )


def theorem3(constants: BoundConstants, eps: float, F_lin_min: Enclosure | None = None) -> BoundRow:
    """All forms of Theorem 3 at one ε, each rounded up, and the least sharp one as an enclosure."""
    if constants.l2:
        return _decayed(constants, eps, F_lin_min)
    threshold, refined = _sharp(constants, eps)
    least = minimum(threshold.bound, refined)
    b, r, mu0, mu1, mu2, shape = _symbols(constants)
    augmented = None if constants.s is None else refined_form(eps, b, r, mu1, mu2, **shape, s=constants.s)
    return BoundRow(
        eps=eps,
        threshold_form=threshold.bound.upper,
        threshold=threshold.t,
        polynomial_form=polynomial_form(
            eps, b, r, mu0, mu1, mu2, rank=constants.rank, whole=constants.whole
        ).upper,
        refined_form=refined.upper,
        refined_polynomial_form=refined_polynomial_form(eps, b, r, mu1, mu2, **shape).upper,
        bound=least,
        F_upper=None if F_lin_min is None else F_lin_min + least,
        augmented_form=augmented,
    )


def _decayed(constants: BoundConstants, eps: float, G_lin_min: Enclosure | None) -> BoundRow:
    """Theorem 3 with weight decay, which is stated in one form."""
    least = _decayed_form(constants, eps)
    return BoundRow(
        eps,
        threshold_form=math.inf,
        threshold=math.nan,
        polynomial_form=math.inf,
        refined_form=least.upper,
        refined_polynomial_form=math.inf,
        bound=least,
        F_upper=None if G_lin_min is None else G_lin_min + least,
    )


def _decayed_form(constants: BoundConstants, eps: float) -> Enclosure:
    b, r, _, mu1, mu2, shape = _symbols(constants)
    norm_V = Enclosure.exact(constants.norm_V or 0.0)
    return decayed_form(eps, b, r, mu1, mu2, constants.l2, norm_V, **shape)


def _sharp(constants: BoundConstants, eps: float) -> tuple[ThresholdForm, Enclosure]:
    b, r, mu0, mu1, mu2, shape = _symbols(constants)
    threshold = threshold_form(eps, b, r, mu0, mu1, mu2, rank=constants.rank, whole=constants.whole)
    return threshold, refined_form(eps, b, r, mu1, mu2, **shape)


def binding_form(row: BoundRow) -> Literal["threshold", "refined"]:
    """Which sharp form gives the row's bound; refined where they agree, for it needs less."""
    return "threshold" if row.threshold_form < row.refined_form else "refined"


def largest_epsilon(constants: BoundConstants, target_gap: float) -> float | None:
    """The largest float ε whose bound is proven to be at most `target_gap` ≥ 0; infinite if every ε will do,
    None if with weight decay not even ε = 0 does.

    The bound increases with ε; bisection ends between neighbouring floats, on the side that is proven.
    """
    b, r, _, mu1, mu2, shape = _symbols(constants)

    def proven(eps: float) -> bool:
        if constants.l2:
            return _decayed_form(constants, eps).upper <= target_gap
        if refined_form(eps, b, r, mu1, mu2, **shape).upper <= target_gap:
            return True
        return _sharp(constants, eps)[0].bound.upper <= target_gap

    eps = last_float(proven, sys.float_info.max)
    if eps == sys.float_info.max:
        return math.inf
    if proven(eps):
        return eps
    return 0.0 if proven(0.0) else None


def parse_epsilons(text: str) -> tuple[float, ...]:
    """The values of --eps: "X[,X...]", or "A:B:N" for N of them from A to B, evenly spaced in log ε.

    Raises:
        RequestError: it is neither, or a number is negative, not finite, or 0 as an end of A:B:N.
    """
    if ":" not in text:
        return _numbers(text.split(","), "--eps X[,X...]")
    *ends, points = text.split(":")
    if len(ends) != 2:
        raise RequestError(f"expected --eps X[,X...] or A:B:N, got {text!r}", id="wrong-value")
    first, last = _numbers(ends, "--eps A:B:N", positive=True)
    n = int(points) if points.strip().isdecimal() else 0
    if not 2 <= n <= MOST_POINTS:
        raise RequestError(
            f"expected an integer N from 2 to {MOST_POINTS} in --eps A:B:N, got {points!r}", id="wrong-value"
        )
    start, step = math.log10(first), (math.log10(last) - math.log10(first)) / (n - 1)
    return (first, *(10.0 ** (start + i * step) for i in range(1, n - 1)), last)


def _numbers(parts: list[str], name: str, *, positive: bool = False) -> tuple[float, ...]:
    numbers, faults = [], []
    for part in parts:
        try:
            numbers.append(float(part))
            faults.append(_fault(name, numbers[-1], positive=positive))
        except ValueError:
            faults.append(f"expected a number in {name}, got {part.strip()!r}")
    _refuse(faults)
    return tuple(numbers)


def _fault(name: str, number: float | None, *, positive: bool = False) -> str | None:
    if number is not None and math.isfinite(number) and (number > 0.0 if positive else number >= 0.0):
        return None
    found = "none" if number is None else repr(float(number))
    return f"expected a finite number {'>' if positive else '>='} 0 for {name}, got {found}"


def _refuse(faults: Iterable[str | None]) -> None:
    """Raise a RequestError of all faults, if there are any."""
    diagnostics = [Diagnostic(fault) for fault in faults if fault]
    if diagnostics:
        raise RequestError(diagnostics)


class _Shape(TypedDict):
    spare: bool
    rank: int


def _symbols(constants: BoundConstants) -> tuple[float, float, float, float, float, _Shape]:
    shape = _Shape(spare=constants.d > constants.span, rank=constants.rank)
    return constants.b, constants.r, constants.mu0, constants.mu1, constants.mu2, shape
