"""The way to a verdict: cheap proofs first, dearer ones where they decide more.

1. The gradient, and with it A_f: for heads of any size.
2. λ_min by S(t) where that takes a moment; else by ‖A_f‖_2 from below and along a direction from above.
3. Where that leaves the curvature open: S(t) after all, if it takes seconds (`hessian: auto`).
4. Where float64 leaves the verdict open, or loses numbers to their scale: ball arithmetic, and rational
   numbers, if they take seconds.

What decided, and what would decide more and at what cost, is a part of the decision.
"""

from __future__ import annotations

import importlib.util
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, cast

import numpy as np

from resnet_cert.decide.definition1 import (
    Stationarity,
    curvature_verdict,
    definition1,
    gradient_verdict,
    threshold,
)
from resnet_cert.decide.first_order import bounded
from resnet_cert.decide.hessian import (
    Curvature,
    decided,
    hessian_exceeds,
    hessian_size,
    reduction,
    refuting_direction,
)
from resnet_cert.decide.lagrangian import (
    Lagrangian,
    Slope,
    lagrangian,
    on_boundary,
    shift_of,
    slope,
    sphere_of,
)
from resnet_cert.moments.gradient import FirstMoments
from resnet_cert.moments.moments import Moments
from resnet_cert.moments.one_pass import Observed, observe, observe_first
from resnet_cert.numerics.enclosure import QUIET, Ball, Enclosure
from resnet_cert.numerics.radius import Radius
from resnet_cert.numerics.threads import small_algebra
from resnet_cert.outcomes import RequestError, Verdict
from resnet_cert.problem.custom_loss import CustomLoss
from resnet_cert.problem.losses import BuiltinLoss, Loss
from resnet_cert.problem.problem import Problem
from resnet_cert.problem.span import gradient_basis, span

if TYPE_CHECKING:
    from resnet_cert.decide import ball

Arithmetic = Literal["float64", "ball"]

RATE = 1e10
"""Operations a second that the estimates of this module count on."""
MOMENT_OPERATIONS = 3e9
"""S(t) is taken at once where it needs no more,"""
PASS_OPERATIONS = 256.0
"""or no more than this for each of the n·q(d + k) numbers of a pass over the data, for the other way, without
the matrix, takes some passes more;"""
SECONDS_OPERATIONS = 1.5e11
"""and where the bound leaves the curvature open if it needs no more than this."""
MOST_ROWS = 20000
"""Rows of S(t) that are asked for at most: several arrays of 3 GB."""
BALL_WORK = 5 * 10**7
"""Products of the moments for which an undecided check goes on in ball arithmetic by itself: some seconds,"""
BALL_ROWS = 256
"""if also S(t) has at most so many rows: its factorisation takes their cube."""
BISECTED_ROWS = 32
"""Rows of S(t) up to which λ_min is bracketed by at most 64 such factorisations,"""
WIDTH = 1e-9
"""until its enclosure is as narrow as this, relatively."""
KNOWN = 1e-3
"""A number that is known to this, relatively, is not lost to the scale of the data,"""
EXTREME = 2.0**300
"""of which no entry is beyond this, or below its inverse."""


class FirstOrder(Protocol):
    """The moments of one pass over the data: F, and what ∇F is made of."""

    @property
    def F(self) -> Enclosure: ...

    @property
    def g_W(self) -> Ball: ...

    @property
    def A_f(self) -> Ball: ...


@dataclass(frozen=True)
class Decision:
    """What is decided at a point, and by what.

    F: the objective without decay.  lagrangian: ∇L and λ_min(∇²L) that Definition 1 speaks of, λ_min(∇²F).
    moments: those of the Hessian too, where they were formed; of the finest arithmetic that was used.
    vacuous: √(μ2 ε) is at least an upper bound of ‖∇²F‖, so that every point would pass; informative_below:
    the ε under which it is not.  reasons: of the verdict, then what may decide more.
    """

    F: Enclosure
    lagrangian: Lagrangian
    verdicts: Stationarity
    moments: Moments | None
    arithmetic: Arithmetic
    vacuous: bool | None
    informative_below: float | None
    reasons: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        return self.verdicts.verdict

    @property
    def slope(self) -> Slope:
        return self.lagrangian.slope

    @property
    def curvature(self) -> Curvature:
        """Of L."""
        return self.lagrangian.curvature

    @property
    def of_F(self) -> Curvature:
        return self.lagrangian.of_F


@QUIET
def decide(
    problem: Problem,
    here: FirstOrder,
    mu2: float | None,
    *,
    second_moments: Callable[[], Moments],
    arithmetic: Arithmetic = "float64",
    escalate: bool = True,
    mu1: float | None = None,
) -> Decision:
    """Is the problem's point an ε-SOPSP?

    Args:
        here: the moments at the point; `Moments` where `takes_second_moments`.
        second_moments: one more pass, where here are those of the gradient only.
        mu1: an upper bound of ‖∇²F‖ on the domain, if one was computed.
        arithmetic: "ball" decides in Arb whatever float64 says; escalate: where float64 leaves it open.
    Raises:
        RequestError: the exact method is asked for and too large; ball arithmetic cannot be had.
    """
    eps, limit = problem.epsilon, threshold(mu2, problem.epsilon)
    at = slope(problem, here)
    moments = here if isinstance(here, Moments) else None
    judged: Lagrangian | None = None
    if not takes_second_moments(problem):
        refuted = gradient_verdict(at.norm, eps) is Verdict.REFUTED
        judged = by_bound(problem, here, at, limit, open_=not refuted)
        undecided = curvature_verdict(judged.lambda_min, limit) is Verdict.UNDECIDED
        affordable = problem.hessian == "auto" and operations(problem) <= SECONDS_OPERATIONS
        if undecided and not refuted and affordable:
            judged = None
    if judged is None:
        moments = second_moments() if moments is None else moments
        at = slope(problem, moments)
        judged = by_hessian(problem, moments, at, limit)
    opaque = isinstance(problem.loss, CustomLoss) and problem.loss.why_unknown() is not None
    verdicts = definition1(judged.gradient_norm, judged.lambda_min, eps, mu2, opaque=opaque)
    F = here.F
    open_ = verdicts.verdict is Verdict.UNDECIDED
    lost = not all(map(is_known, (F, judged.gradient_norm, judged.lambda_min))) and is_extreme(problem)
    if arithmetic == "ball" or ((open_ or lost) and escalate and ball_is_affordable(problem)):
        from resnet_cert.decide.ball import decide as decide_in_balls

        arithmetic, before = "ball", verdicts.curvature
        finer = decide_in_balls(problem, require_ball(problem.loss), mu2)
        verdicts = definition1(judged.gradient_norm, judged.lambda_min, eps, mu2, finer.proven)
        moments, F = finer.moments, F.intersect(finer.F.lower, finer.F.upper)
        judged = refined(problem, judged, finer, verdicts, before)
    size = None if mu1 is None else Radius.of(mu1)
    if moments is not None:
        of_moments = hessian_size(moments, problem.W, problem.d1)
        size = of_moments if size is None else of_moments.capped(size.upper)
    vacuous, below = informative(limit, size, mu2)
    reasons = (*verdicts.reasons, *next_steps(problem, verdicts, judged.curvature.method, arithmetic))
    return Decision(F, judged, verdicts, moments, arithmetic, vacuous, below, reasons)


# --- The two methods ----------------------------------------------------------------------------------------


def observed(problem: Problem, b: float) -> Observed[Moments] | Observed[FirstMoments]:
    """One pass over the data: moments for the Hessian where it is wanted, else for the gradient."""
    return observe(problem, b) if takes_second_moments(problem) else observe_first(problem, b)


def takes_second_moments(problem: Problem) -> bool:
    """The Hessian's moments are wanted at once.

    Raises:
        RequestError: the exact method is asked for where it is too large.
    """
    if problem.hessian == "exact":
        if rows_of_hessian(problem) > MOST_ROWS:
            raise RequestError(
                f"hessian: exact takes a matrix of {rows_of_hessian(problem)} rows, more than {MOST_ROWS}; "
                "expected auto or bound",
                id="unfit-part",
            )
        return True
    passes = PASS_OPERATIONS * problem.n * problem.q * (problem.d + problem.k)
    return problem.hessian == "auto" and operations(problem) <= max(MOMENT_OPERATIONS, passes)


def by_hessian(problem: Problem, here: Moments, at: Slope, limit: Enclosure | None) -> Lagrangian:
    """λ_min by S(t); one factorisation at the threshold where the enclosure leaves that open."""
    N = None if on_boundary(problem) else gradient_basis(problem)
    with small_algebra(rows_of_hessian(problem)):
        parts = replace(reduction(here, problem.W, problem.d1, N), convex=problem.loss.convex_in_range)
        judged = lagrangian(problem, at, parts)
        if at.tangent is None:
            return judged
        shift, sphere = shift_of(problem, at), sphere_of(problem, at)
        curvature = decided(judged.curvature, limit, lambda t: hessian_exceeds(parts, t, shift, sphere))
    of_F = curvature if problem.is_plain else judged.of_F
    return replace(judged, curvature=curvature, of_F=of_F)


def by_bound(
    problem: Problem, here: FirstOrder, at: Slope, limit: Enclosure | None, *, open_: bool
) -> Lagrangian:
    """λ_min by ‖A_f‖_2 and along a direction."""
    curvature = bounded(problem, here, at, limit, open_=open_)
    if problem.is_plain:
        return Lagrangian(at, curvature, curvature)
    lambda_min = curvature.lambda_min
    if not at.tangent and at.tangent is not None and problem.decayed.all():
        return Lagrangian(at, curvature, replace(curvature, lambda_min=lambda_min - at.rho))
    # Of F itself only the lower end is known, without one more pass.
    least = -here.A_f.size().upper if problem.loss.convex_in_range else -math.inf
    of_F = replace(curvature, lambda_min=Enclosure(math.nan, least, math.inf))
    return Lagrangian(at, curvature, of_F)


def refined(
    problem: Problem, judged: Lagrangian, finer: ball.Decision, verdicts: Stationarity, before: Verdict
) -> Lagrangian:
    """The same, from moments that are known to the last place, and with what ball arithmetic decides."""
    moments, limit = finer.moments, verdicts.threshold
    at = slope(problem, moments)
    at = replace(
        at, norm=finer.gradient_norm, rho=finer.rho, multiplier=finer.multiplier, tangent=finer.tangent
    )
    rows = rows_of_hessian(problem)
    if rows <= BALL_ROWS:
        again = by_hessian(problem, moments, at, limit)
        if finer.tangent is judged.slope.tangent:
            again = replace(again, curvature=_met(again.curvature, judged.lambda_min))
        judged = replace(again, of_F=_met(again.of_F, judged.of_F.lambda_min))
    lambda_min = narrowed(judged.lambda_min, verdicts.curvature, limit)
    if rows <= BISECTED_ROWS:
        lambda_min = bisected(finer.at_least, lambda_min)
    curvature = replace(judged.curvature, lambda_min=lambda_min)
    if before is not verdicts.curvature is Verdict.REFUTED and limit is not None:
        direction = refuting_direction(moments, problem.W, problem.d1, limit.upper, curvature.direction)
        curvature = replace(curvature, direction=direction)
    of_F = replace(judged.of_F, lambda_min=lambda_min) if problem.is_plain else judged.of_F
    return Lagrangian(at, curvature, of_F)


def bisected(at_least: Callable[[float], bool | None], known: Enclosure) -> Enclosure:
    """A number between its bounds, found by halving the floats between them as long as that is decided."""
    low, high = _order(known.lower), _order(known.upper)
    while high - low > 1:
        x, y = _float(low), _float(high)
        if math.isfinite(x + y) and y - x <= WIDTH * max(abs(x), abs(y)):
            break
        middle = (low + high) // 2
        more = at_least(_float(middle))
        if more is None:
            break
        low, high = (middle, high) if more else (low, middle)
    lower, upper = _float(low), _float(high)
    inside = lower <= known.value <= upper
    return Enclosure(known.value if inside else lower / 2.0 + upper / 2.0, lower, upper)


def _order(x: float) -> int:
    """The place of a float among all floats."""
    (bits,) = struct.unpack("<q", struct.pack("<d", x + 0.0))
    return bits if bits >= 0 else -(bits & (2**63 - 1))


def _float(place: int) -> float:
    (x,) = struct.unpack("<d", struct.pack("<q", abs(place)))
    return x if place >= 0 else -x


def _met(curvature: Curvature, other: Enclosure) -> Curvature:
    """The same curvature, known besides to lie in another enclosure."""
    return replace(curvature, lambda_min=curvature.lambda_min.intersect(other.lower, other.upper))


def narrowed(lambda_min: Enclosure, verdict: Verdict, limit: Enclosure | None) -> Enclosure:
    """λ_min, known besides to lie above or below −threshold."""
    if limit is None or verdict is Verdict.UNDECIDED:
        return lambda_min
    if verdict is Verdict.CERTIFIED:
        return lambda_min.intersect(lower=0.0 - limit.upper)
    return lambda_min.intersect(upper=0.0 - limit.lower)


def informative(
    limit: Enclosure | None, size: Radius | None, mu2: float | None
) -> tuple[bool | None, float | None]:
    """(vacuous, informative_below); None where they are not known."""
    if limit is None or size is None or not mu2 or not size.known:
        return None, None
    bound = Enclosure.exact(float(size))
    return limit.lower >= bound.upper, (bound.square() / mu2).upper


# --- What a method costs ------------------------------------------------------------------------------------


def rows_of_hessian(problem: Problem) -> int:
    """Rows of the reduced Hessian: q'd + ρk + (d1 − ρ)·min(q', k)."""
    q, d1, k = span(problem), problem.d1, problem.k
    rho = min(int(np.count_nonzero(problem.W[:, :d1].any(axis=1))), q, d1)
    return q * problem.d + rho * k + (d1 - rho) * min(q, k)


def operations(problem: Problem) -> float:
    """Of the exact method: the moments, an eigenpair, and the factorisations that prove it."""
    q = problem.q
    blocks = q * (q + 1) / 2 if problem.loss.sum_free else q
    moments = 2.0 * problem.n * (problem.d + problem.k) ** 2 * blocks
    return moments + 12.0 * rows_of_hessian(problem) ** 3


def ball_is_affordable(problem: Problem) -> bool:
    """Ball arithmetic is there and takes seconds only."""
    q = problem.q
    blocks = q * (q + 1) / 2 if problem.loss.sum_free else q
    work = problem.n * (problem.d + problem.k) ** 2 * blocks
    small = work <= BALL_WORK and rows_of_hessian(problem) <= BALL_ROWS
    return small and isinstance(problem.loss, BuiltinLoss) and has_flint()


def next_steps(
    problem: Problem, verdicts: Stationarity, method: str, arithmetic: Arithmetic
) -> tuple[str, ...]:
    """What may decide an undecided point, and what it costs."""
    if verdicts.verdict is not Verdict.UNDECIDED:
        return ()
    if verdicts.curvature is Verdict.UNDECIDED and method == "bound" and verdicts.threshold is not None:
        rows, seconds = rows_of_hessian(problem), operations(problem) / RATE
        if rows <= MOST_ROWS:
            cost = "a second" if seconds < 1.5 else f"some {seconds:.0f} s"
            return (f"--hessian exact may decide: a factorisation of {rows} rows, in about {cost}",)
        return (f"the exact Hessian may decide, but has {rows} rows, too many to form",)
    if isinstance(problem.loss, CustomLoss):
        why = problem.loss.why_unknown()
        more = "convex: true and lipschitz are believed, but enclose nothing; written with other operations"
        return (f"{why}: {more} it may be decided",) if why else ()
    if arithmetic == "ball":
        return ()
    if not has_flint():
        return ("ball arithmetic decides finer margins: pip install 'resnet-cert[verify]'",)
    return ("--arithmetic ball decides finer margins",)


def is_known(x: Enclosure) -> bool:
    """To about three digits; 0 counts, if it is exact."""
    return x.upper - x.lower <= KNOWN * max(abs(x.lower), abs(x.upper)) < math.inf


def is_extreme(problem: Problem) -> bool:
    """Some number of a problem that is small enough for balls is beyond `EXTREME`, or below its inverse."""
    if not ball_is_affordable(problem):
        return False
    arrays = [problem.W, problem.V, np.array([getattr(problem.loss, "scale", 1.0), problem.objective.l2])]
    for chunk in problem.chunks():
        arrays += [
            part for part in (chunk.x, chunk.f, chunk.y, chunk.omega, chunk.weight) if part is not None
        ]
    sizes = (np.abs(array[array != 0.0]) for array in arrays)
    return any(bool(np.any((size > EXTREME) | (size < 1.0 / EXTREME))) for size in sizes)


# --- Ball arithmetic ----------------------------------------------------------------------------------------


def has_flint() -> bool:
    return importlib.util.find_spec("flint") is not None


def require_ball(loss: Loss) -> BuiltinLoss:
    """The loss, if it can be evaluated in balls.

    Raises:
        RequestError: the loss is a custom one, or python-flint is not installed.
    """
    if not isinstance(loss, BuiltinLoss):
        raise RequestError(f"expected a built-in loss for ball arithmetic, got {loss.name}", id="unfit-part")
    if not has_flint():
        raise RequestError(
            "ball arithmetic needs python-flint: pip install 'resnet-cert[verify]'", id="needs-package"
        )
    return loss


def with_ball_functions(loss: Loss) -> Loss:
    """The same loss with its elementary functions evaluated in ball arithmetic."""
    known = require_ball(loss)
    from resnet_cert.decide.ball import elementary

    return cast(Loss, replace(known, functions=elementary()))
