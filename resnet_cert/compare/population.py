"""From the sample to the distribution that it was drawn from: statistical statements, not proven ones.

θ, (W, V) and û are fixed, and then the samples are drawn, independently (a hold-out set); x, f and y of the
whole distribution lie within bounds that the user states.  By convexity, for every U,

    F − F_lin(U) ≤ E[ℓ(p; y) − ℓ(ûx; y)] + ⟨û − U, E[∇ℓ(ûx; y) xᵀ]⟩ ≤ E D + (‖U‖_F + ‖û‖_F)‖g‖_F,

so two means decide for all linear predictors at once, and no uniform convergence is needed.  û comes from the
first half of the samples and D, g from the second; ∇F and A_f, at the point, from all of them.

E D ≤ the smaller of D̄ + √(2V̂ ln(2/δ)/m) + 7(hi − lo)ln(2/δ)/(3(m − 1)), V̂ the sample variance (Maurer and
Pontil 2009), and a betting bound (Waudby-Smith and Ramdas 2024).  A mean of m independent vectors of norm at
most B is within (B/√m)(1 + √(2 ln(1/δ))) of its expectation (bounded differences: McDiarmid 1989).  Each of
the six statements has a sixth of 1 − confidence to fail.  `theory.bound` and THEORY's §11: ‖∇F‖ ≤ ε and
‖A_f‖_2 ≤ √(μ2 ε) make an ε-SOPSP, μ2 by the stated bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np

from resnet_cert.compare.minimum_on_ball import best_linear_predictor
from resnet_cert.moments.executors import summed
from resnet_cert.moments.gradient import FirstMoments, Linear, first_moments, head
from resnet_cert.moments.lipschitz import lipschitz_constants, lipschitz_sums
from resnet_cert.numerics.enclosure import Ball, Enclosure, difference, norm, product
from resnet_cert.numerics.radius import Array, Radius
from resnet_cert.numerics.sums import BLOCK_ROWS, Blocks, Sum
from resnet_cert.outcomes import RequestError
from resnet_cert.problem.losses import BuiltinLoss
from resnet_cert.problem.problem import Chunk, Distribution, GivenFeatures, Point, Problem, Rows, Support
from resnet_cert.results import Population

STATEMENTS = 6
"""E D from above (twice) and from below, g, ∇F, A_f: 1 − confidence is shared among them."""
MOST_BETS = 2**24
"""Samples that a betting bound is made of: they are held in memory."""
ROUNDING = 1.0 + 2.0**-30
"""Pays for the roundings of sums of at most MOST_BETS nonnegative numbers."""


def population_here(problem: Problem, support: Support, here: FirstMoments, r: float, b: float) -> Population:
    """What the sample says of its distribution, against linear predictors with ‖U‖_F ≤ r.

    Args:
        here: the first moments at the point, over all samples.  b: the radius of the domain.
    Raises:
        RequestError: a sample lies outside of the stated bounds; there are probabilities, or a loss whose
            slopes are not bounded on them.
    """
    _require_sample(problem, support)
    delta = (1.0 - support.confidence) / STATEMENTS
    half = problem.n // 2
    if half == 0:
        raise RequestError("population: expected at least two samples, got one")
    reach = _Reach.of(problem, support)
    u = best_linear_predictor(_rows_of(problem, 0, half), r, b).W_star.center
    u_norm = norm(u).upper

    rest = _rows_of(problem, half, problem.n)
    far = (difference(Ball.exact(problem.W), Ball.exact(u)).norm() * reach.x).upper + reach.moved
    width = _slope(problem, support, max(reach.p, u_norm * reach.x)) * far  # |D| at most
    D, slope = _against(rest, u)
    upper = min(
        _bernstein(D.mean, D.variance, D.count, width, delta),
        math.inf if D.values is None else _betting(D.values, width, delta),
    )
    lower = -_bernstein(D.slack - D.mean, D.variance, D.count, width, delta)
    steepest = _slope(problem, support, u_norm * reach.x) * reach.x
    g = slope + _deviation(steepest, D.count, delta)

    at_point = _slope(problem, support, reach.p)
    gradient = _deviation(at_point * math.hypot(reach.h, reach.W * support.f), problem.n, delta)
    G = _gradient_norm(problem, here) + gradient
    A = here.A_f.norm().upper + _deviation(at_point * support.f, problem.n, delta)
    other = (r + u_norm) * g
    gap = upper + other + 2.0**-30 * (abs(upper) + other)
    return Population(
        confidence=support.confidence,
        gap_upper=gap,
        gradient_norm_upper=G,
        A_f_norm_upper=A,
        better_than_linear=True if gap <= 0.0 else False if lower > 0.0 and u_norm <= r else None,
        smallest_epsilon=_smallest_epsilon(problem, support, G, A, b),
    )


# --- The samples, and the bounds on them ------------------------------------------------------------------


def _require_sample(problem: Problem, support: Support) -> None:
    """The data are a sample of a distribution with that support."""
    if problem.distribution.probabilities is not None:
        raise RequestError("population: expected samples of equal weight, got probabilities")
    if not isinstance(problem.loss, BuiltinLoss) or problem.loss.formulas.weighted:
        raise RequestError(f"population: expected a loss without weights or code, got {problem.loss.name}")
    if support.y is None and not problem.loss.formulas.labels:
        raise RequestError(f"population.bounds.y: expected a bound of |y| for {problem.loss.name}, got none")
    outside = summed(problem, partial(_outside, support=support))
    if outside.row is not None:
        raise RequestError(f"population: row {outside.row + 1}: {outside.words}")


@dataclass(frozen=True)
class _Outside:
    """The first sample that lies outside of the stated bounds, if there is one, and what is wrong with it."""

    row: int | None = None
    words: str = ""

    def __add__(self, other: _Outside) -> _Outside:
        found = [one for one in (self, other) if one.row is not None]
        return min(found, key=lambda one: one.row or 0, default=self)


def _outside(problem: Problem, chunk: Chunk, blocks: Blocks, *, support: Support) -> _Outside:
    x = chunk.x[:, :-1] if problem.has_bias else chunk.x
    read = "‖(x, bypass)‖" if problem.d2 else "‖x‖"
    bounds = [(read, x, support.x), ("‖f‖", chunk.f, support.f)]
    if support.y is not None and not cast(BuiltinLoss, problem.loss).formulas.labels:
        bounds.append(("|y|", chunk.y, support.y))
    for name, rows, bound in bounds:
        lengths = Radius.row_norms(rows).upper
        beyond = np.flatnonzero(lengths * (1.0 - 2.0**-40) > bound)
        if beyond.size:
            row = int(beyond[0])
            words = f"expected {name} ≤ {bound!r}, got {lengths[row]:.9g}"
            return _Outside(blocks.first * BLOCK_ROWS + row, words)
    return _Outside()


@dataclass(frozen=True)
class _Reach:
    """How far things go under the stated bounds: ‖x‖ with the bias, ‖h‖, ‖p‖, ‖W_1Vf‖, and ‖W‖_2."""

    x: float
    h: float
    p: float
    moved: float
    W: float

    @staticmethod
    def of(problem: Problem, support: Support) -> _Reach:
        x = math.hypot(support.x, 1.0) * ROUNDING if problem.has_bias else support.x
        Z = product(problem.W[:, : problem.d1], Ball.exact(problem.V)).norm()
        W, V = problem.norm_W, problem.norm_V
        h = (V * support.f + x).upper
        return _Reach(x, h, (W * h).upper, (Z * support.f).upper, W.upper)


def _slope(problem: Problem, support: Support, reach: float) -> float:
    """sup ‖∇ℓ‖ over ‖p‖ ≤ reach and every target of the distribution."""
    far = Radius.of(np.array([reach]))
    bounds = [problem.loss.suprema(far, y) for y in _extreme_targets(problem, support)]
    return max(float(bound.first.upper.max()) for bound in bounds if bound is not None)


def _extreme_targets(problem: Problem, support: Support) -> list[Array]:
    """Targets (1, q) at which a derivative's size is largest: each is convex in y, but for that of
    pseudo_huber, which is largest at 0 and falls."""
    q = problem.q
    formulas = problem.loss.formulas if isinstance(problem.loss, BuiltinLoss) else None
    if support.y is None or (formulas is not None and formulas.labels):
        return [np.eye(q)[:1]]
    ends = [y for y in (0.0, 1.0, support.y, -support.y) if abs(y) <= support.y]
    allowed = [y for y in ends if formulas is None or bool(np.all(formulas.allowed(np.array([[y]]))))]
    return [np.full((1, q), y) for y in allowed]


# --- Means ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Differences:
    """D of the samples, rounded up: their mean, sample variance and number, and all of them if they are few;
    slack: how far the mean is rounded up, at most."""

    mean: float
    slack: float
    variance: float
    count: int
    values: Array | None


def _against(problem: Problem, u: Array) -> tuple[_Differences, float]:
    """D = ℓ(p; y) − ℓ(ux; y) over the samples, and an upper bound of the norm of the mean of ∇ℓ(ux; y) xᵀ."""
    kept = problem.n <= MOST_BETS
    at_u = Linear(u, Ball.exact(np.zeros((problem.q, problem.k))))
    sums = summed(problem, partial(_difference_sums, lines=(head(problem), at_u), kept=kept))
    total, squares, slack = sums.floats.total().center.tolist()
    n = problem.n
    values = np.concatenate(sums.values) if kept else None
    mean = total / n
    spread = squares - n * mean * mean if values is None else float(np.sum(np.square(values - mean)))
    bias = u[:, -1] if problem.has_bias else None
    columns = u.shape[1] - problem.has_bias
    predictor = replace(problem, point=Point(u[:, :columns], np.zeros_like(problem.V), bias))
    g = first_moments(predictor).slope_x.norm().upper
    return _Differences(mean, slack / n, max(spread, 0.0) / max(n - 1, 1), n, values), g


@dataclass(frozen=True)
class _DifferenceSums:
    """Σ D, Σ D² and a bound of how far Σ D is rounded up, as one vector; and the D, if they are kept.

    `+` appends the rows that follow.
    """

    floats: Sum
    values: list[Array]

    def __add__(self, other: _DifferenceSums) -> _DifferenceSums:
        return _DifferenceSums(self.floats + other.floats, self.values + other.values)


def _difference_sums(
    problem: Problem, chunk: Chunk, blocks: Blocks, *, lines: tuple[Linear, Linear], kept: bool
) -> _DifferenceSums:
    norms = Radius.row_norms(chunk.x), Radius.row_norms(chunk.f)
    ours, theirs = (
        problem.loss.first_derivatives(*line.at(chunk, norms, blocks), chunk.y, chunk.omega) for line in lines
    )
    error = (ours.value_error + theirs.value_error).upper
    D = (ours.value - theirs.value) + error * ROUNDING
    sums = np.array([np.sum(D), np.sum(np.square(D)), 2.0 * ROUNDING * np.sum(error)])
    return _DifferenceSums(blocks.whole(sums, problem.chunk_rows), [D] if kept else [])


def _bernstein(mean: float, variance: float, n: int, width: float, delta: float) -> float:
    """E D at most, with probability ≥ 1 − δ, for D in [−width, width] (Maurer and Pontil 2009, Theorem 4)."""
    if n < 2:
        return width
    log = math.log(2.0 / delta)
    return mean + (math.sqrt(2.0 * variance * log / n) + 7.0 * 2.0 * width * log / (3.0 * (n - 1))) * ROUNDING


def _betting(values: Array, width: float, delta: float) -> float:
    """E D at most, with probability ≥ 1 − δ, for D in [−width, width] (Waudby-Smith and Ramdas 2024).

    For X = (D/width + 1)/2 in [0, 1] and m = E X the wealth Π(1 + λ_i(m − X_i)) is a martingale from 1, if
    λ_i ≤ 1 depends on X_1, …, X_{i−1} alone: it reaches 1/δ with probability at most δ (Ville).  It rises
    with m, so E X lies below the m at which it does.
    """
    if not width:
        return 0.0
    X = np.clip(0.5 * (values / width + 1.0), 0.0, 1.0)
    n, steps = len(X), np.arange(1.0, len(X) + 1.0)
    means = (0.5 + np.cumsum(X)) / (steps + 1.0)
    variances = (0.25 + np.cumsum(np.square(X - means))) / (steps + 1.0)
    before = np.concatenate([[0.25], variances[:-1]])
    bets = np.minimum(np.sqrt(2.0 * math.log(1.0 / delta) / (n * before)), 1.0)
    goal = math.log(1.0 / delta) + 2.0**-40 * n

    def is_refused(m: float) -> bool:
        return float(np.sum(np.log1p(np.maximum(bets * (m - X), -1.0)))) >= goal

    low, high = 0.0, 1.0
    if not is_refused(high):
        return width
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if is_refused(middle) else (middle, high)
    return (2.0 * high - 1.0) * width + 2.0**-40 * width


def _deviation(size: float, n: int, delta: float) -> float:
    """‖mean − expectation‖ at most, with probability ≥ 1 − δ, for n independent vectors of norm ≤ size."""
    return size / math.sqrt(n) * (1.0 + math.sqrt(2.0 * math.log(1.0 / delta))) * ROUNDING


# --- Definition 1 on the distribution ---------------------------------------------------------------------


def _gradient_norm(problem: Problem, here: FirstMoments) -> float:
    slope_V = product(problem.W[:, : problem.d1].T, here.A_f).norm()
    return (here.g_W.norm().square() + slope_V.square()).sqrt().upper


def _smallest_epsilon(problem: Problem, support: Support, G: float, A: float, b: float) -> float | None:
    """max(‖∇F‖, ‖A_f‖²/μ2), both from above, μ2 of a sample at the bounds; None for another objective."""
    if not problem.is_plain:
        return None
    x, f = (Radius.of(np.array([bound])) for bound in (_Reach.of(problem, support).x, support.f))
    mu2 = 0.0
    for y in _extreme_targets(problem, support):
        farthest = Chunk(np.zeros((1, problem.d)), np.zeros((1, problem.k)), y)
        sums = lipschitz_sums(problem.loss, farthest, x, f, b, Blocks(0, 1), matrices=False)
        if sums is None:
            return None
        mu2 = max(mu2, lipschitz_constants(sums, Enclosure.exact(1.0), b, problem.k).mu2)
    if not math.isfinite(mu2) or (A and not mu2):
        return None
    return max(G, A * A / mu2 * ROUNDING) if A else G


# --- Parts of the sample ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class PartOfRows:
    """The rows start, ..., stop − 1 of others."""

    rows: Rows
    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.stop - self.start, *self.rows.shape[1:])

    def __getitem__(self, rows: slice, /) -> Any:
        first, last, _ = rows.indices(self.stop - self.start)
        return self.rows[self.start + first : self.start + last]


@dataclass(frozen=True)
class PartOfFeatures:
    """The features of the rows from `start` on."""

    features: Any
    start: int

    @property
    def k(self) -> int:
        return self.features.k

    def rows(self, rows: slice, x: Array, pad_to: int) -> Array:
        return self.features.rows(slice(self.start + rows.start, self.start + rows.stop), x, pad_to)


def _rows_of(problem: Problem, start: int, stop: int) -> Problem:
    """The same problem on some of its samples."""
    data, features = problem.distribution, problem.features
    parts: dict[str, Any] = {
        name: None if rows is None else PartOfRows(rows, start, stop) for name, rows in vars(data).items()
    }
    if isinstance(features, GivenFeatures):
        taken: Any = GivenFeatures(PartOfRows(features.f, start, stop), features.network)
    else:
        taken = PartOfFeatures(features, start)
    return replace(problem, distribution=Distribution(**parts), features=taken, comparators={})
