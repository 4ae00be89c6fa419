"""From the point of a problem to an ε-second-order partial stationary point.

Three kinds of steps, each where the others are weak:

descent: trust-region Newton steps by conjugate gradients (Steihaug 1983; SciPy's trust-ncg) on JAX's gradient
    and Hessian-vector products, which cost O(n(d + k)) each.
escape: where the gradient is small and λ_min(∇²F) too negative, along the exact lowest direction of the
    reduced Hessian (`hessian`), to a point where F is proven to be lower.
polish: where F is flat to rounding, Newton steps in the reduced space that lower ‖∇F‖.

What is reached is for `check` to say: nothing here is proven but the decrease of an escape.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from resnet_cert.check import domain_radius
from resnet_cert.derivatives import Derivatives
from resnet_cert.enclosure import Array, U, norm
from resnet_cert.errors import RequestError
from resnet_cert.hessian import Curvature, curvature, reduced_hessian, spectral_norm
from resnet_cert.linear_predictor import best_linear_predictor
from resnet_cert.moments import Moments, merged, moment_sums, residual
from resnet_cert.observation import observe
from resnet_cert.output import write_whole
from resnet_cert.problem import Distribution, GivenFeatures, Point, Problem
from resnet_cert.stationarity import threshold
from resnet_cert.theorems import hypot
from resnet_cert.witness import objective_at

MARGIN = 16.0
"""The search ends at an ε/16-SOPSP by its own numbers, so that enclosures prove one for ε."""
ROUNDS = 100
DESCENT_STEPS = 1000
STALLED = 8
"""Trust-region iterations in a row that lower F by no more than rounding: descent is over."""
FLAT = 8 * U
POLISH_STEPS, POLISH_FAILURES = 100, 6
HALVINGS = 60


@dataclass(frozen=True)
class Step:
    """Where the search is: the point, F and ‖∇F‖ in float64, and λ_min(∇²F) as last looked at."""

    iteration: int
    point: Point
    F: float
    gradient_norm: float
    lambda_min: float | None


@dataclass(frozen=True)
class Solution:
    """The last point and the number of steps to it; stopped: why the search ended short of ε, or None."""

    point: Point
    iterations: int
    stopped: str | None


def solve(problem: Problem, watch: Callable[[Step], None] = lambda step: None) -> Solution:
    """A point where ‖∇F‖ ≤ ε and λ_min(∇²F) ≥ −√(μ2 ε), with a margin, sought from the problem's own point.

    F never rises from one step to the next, as far as float64 can tell.  With an automatic domain, b and
    hence μ2 follow the point.

    Args:
        watch: called at the start and after every step; what it raises ends the search.

    Raises:
        RequestError: F or ∇F overflows at the problem's point, or there is a regularizer or a constraint.
    """
    if not problem.is_plain:
        raise RequestError("expected a problem without regularizer and constraint to solve")
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return _Search(problem.with_features_held(), watch).run()


def perturbed(point: Point, seed: int) -> Point:
    """A random start: (w, V) plus a normal vector of about the length of the point, at least about 1."""
    rng = np.random.default_rng(seed)
    w, V = point.w, point.V
    scale = max(1.0, math.hypot(norm(w).value, norm(V).value)) / math.sqrt(w.size + V.size)
    return Point(w + scale * rng.standard_normal(w.shape), V + scale * rng.standard_normal(V.shape))


def write_point(path: str, point: Point) -> None:
    """The arrays w and V as an .npz file, whole or not at all: `point: {file: ...}` of a spec."""
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, w=point.w, V=point.V)
    write_whole(path, content.getvalue())


def read_point(path: str) -> Point:
    """The point of `write_point`, to the bit."""
    with np.load(path, allow_pickle=False) as arrays:
        return Point(arrays["w"], arrays["V"])


@dataclass(frozen=True)
class _View:
    """The exact second-order picture of a point, and the √(μ2 ε/MARGIN) that λ_min is held against."""

    moments: Moments
    curvature: Curvature
    gradient_norm: float
    allowed: float

    @property
    def bends_down(self) -> bool:
        return -self.curvature.lambda_min.value > self.allowed


class _Search:
    """The state of one search: where it is and how many steps it took."""

    def __init__(self, problem: Problem, watch: Callable[[Step], None]) -> None:
        self.problem = problem
        self.watch = watch
        self.objective = Derivatives(problem)
        self.point = problem.point
        self.iterations = 0
        self.lambda_min: float | None = None
        self.steepest = 0.0

    @property
    def aim(self) -> float:
        """The ‖∇F‖ to reach: ε/MARGIN, and no less than U² of the largest that was met.

        That is far below rounding where F has a minimum, and an end where it has none.
        """
        return max(self.problem.epsilon / MARGIN, U * U * self.steepest)

    def run(self) -> Solution:
        F, gradient = self.objective.at(_flat(self.point))
        if not (math.isfinite(F) and np.isfinite(gradient).all()):
            raise RequestError(
                "expected a point to start from where F and ∇F are finite, got one where they overflow"
            )
        self.arrive(self.point, F, gradient, new=False)
        for _ in range(ROUNDS):
            self.descend()
            view = self.look()
            if view.bends_down and self.escape(view):
                continue
            if view.gradient_norm > self.aim and self.polish(view):
                continue
            # What falls short of the margin alone, or a curvature that rounding hides, the check will judge.
            reached = view.gradient_norm <= self.problem.epsilon
            return Solution(self.point, self.iterations, None if reached else self.why_stopped())
        return Solution(self.point, self.iterations, self.why_stopped(f"no end after {ROUNDS} rounds"))

    def arrive(self, point: Point, F: float, gradient: Array, *, new: bool = True) -> None:
        gradient_norm = float(np.linalg.norm(gradient))
        self.iterations += new
        self.point, self.steepest = point, max(self.steepest, gradient_norm)
        self.watch(Step(self.iterations, point, F, gradient_norm, self.lambda_min))

    def descend(self) -> None:
        """Trust-region Newton steps until ‖∇F‖ ≤ aim or F is flat to rounding."""
        from scipy.optimize import minimize

        start = _flat(self.point)
        F, gradient = self.objective.at(start)
        unit = float(np.linalg.norm(gradient))  # of F: SciPy's accuracy of a step depends on the size of ∇F
        if not unit > self.aim:
            return
        stalled = 0

        def scaled(z: Array) -> tuple[float, Array]:
            value, gradient = self.objective.at(z)
            return value / unit, gradient / unit

        def after(intermediate_result: Any) -> None:
            nonlocal F, stalled
            x = intermediate_result.x
            there, gradient = self.objective.at(x)
            stalled = 0 if there < F - FLAT * abs(F) else stalled + 1
            if not np.array_equal(x, _flat(self.point)):
                F = there
                self.arrive(self.unflat(x), there, gradient)
            if stalled == STALLED:
                raise StopIteration

        size = max(1.0, float(np.linalg.norm(start)))
        minimize(
            scaled,
            start,
            jac=True,
            hessp=lambda z, tangent: self.objective.hessian_product(z, tangent) / unit,
            method="trust-ncg",
            callback=after,
            options={
                "gtol": max(self.aim / unit, U),
                "maxiter": DESCENT_STEPS,
                "initial_trust_radius": size,
                "max_trust_radius": 1e6 * size,
            },
        )

    def look(self) -> _View:
        here = replace(self.problem, point=self.point)
        w, V = here.point.w, here.point.V
        b = domain_radius(here, norm(w), spectral_norm(V))
        seen = observe(here, b)
        mu2 = here.lipschitz.mu2
        if mu2 is None and seen.lipschitz is not None:
            mu2 = seen.lipschitz.mu2
        known = mu2 is not None and math.isfinite(mu2)
        limit = threshold(mu2 if known else None, here.epsilon)
        # Where μ2 is not known there is no threshold: then any descent that can be proven is taken.
        allowed = 0.0 if limit is None else limit.lower / math.sqrt(MARGIN)
        bent = curvature(seen.here, w)
        self.lambda_min = bent.lambda_min.value
        return _View(seen.here, bent, _gradient_norm(seen.here, w), allowed)

    def escape(self, view: _View) -> bool:
        """Move along ± the lowest direction to the lowest of the points seen, if F is proven to fall."""
        start = _flat(self.point)
        direction = _flat(Point(view.curvature.direction.dw, view.curvature.direction.dV))
        direction = direction / float(np.linalg.norm(direction))
        best, F = start, self.objective.at(start)[0]
        length = max(1.0, float(np.linalg.norm(start)))
        for _ in range(HALVINGS):
            found = False
            for trial in (start + length * direction, start - length * direction):
                there = self.objective.at(trial)[0]
                if there < F:
                    best, F, found = trial, there, True
            if best is not start and not found:
                break
            length /= 2.0
        if best is start or not objective_at(self.problem, self.unflat(best)).upper < view.moments.F.lower:
            return False
        self.arrive(self.unflat(best), *self.objective.at(best))
        return True

    def polish(self, view: _View) -> bool:
        """Damped Newton steps in the reduced space; false if none was any good.

        (|H| + λI)⁻¹g is a descent direction.  With λ = O(‖g‖) it converges quadratically even where the
        solutions form a manifold, so that H is singular (Fan & Yuan 2005, for least squares).  A step is
        taken that is proven to lower F, or that halves ‖∇F‖ without F being proven to rise.
        """
        moments, before = view.moments, view.gradient_norm
        damping, failures, moved = 1.0, 0, False
        for _ in range(POLISH_STEPS):
            trial = _newton_step(moments, self.point, damping)
            there = _moments_at(self.problem, trial)
            after = _gradient_norm(there, trial.w)
            halved = after <= before / 2.0 and not there.F.lower > moments.F.upper
            if halved or there.F.upper < moments.F.lower:
                moments, before, moved, failures = there, after, True, 0
                damping /= 16.0
                self.arrive(trial, *self.objective.at(_flat(trial)))
                if after <= self.aim:
                    break
            else:
                damping, failures = damping * 16.0, failures + 1
                if failures == POLISH_FAILURES:
                    break
        return moved

    def why_stopped(self, reason: str = "rounding hides any further descent") -> str:
        if not is_attained(self.problem):
            reason = "inf F is not attained: a linear function of (x, f) separates the data"
        return f"{reason}; ‖w‖ = {norm(self.point.w).value:.3g}, ‖V‖ = {norm(self.point.V).value:.3g}"

    def unflat(self, z: Array) -> Point:
        d, k = self.problem.d, self.problem.k
        return Point(z[:d].copy(), z[d:].reshape(d, k).copy())


def is_attained(problem: Problem) -> bool:
    """Is the infimum of F over all (w, V) attained, as far as the data decide?

    F(w, V) = E[ℓ(wᵀx + qᵀf)] with q = Vᵀw, and every (w, q) with w ≠ 0 has its V: inf F is that of the linear
    predictors on (x, f).
    """
    chunks = list(problem.chunks())
    x, y = np.concatenate([np.hstack([c.x, c.f]) for c in chunks]), np.concatenate([c.y for c in chunks])
    columns = x.shape[1]
    linear = replace(
        problem,
        distribution=Distribution(x, y, problem.distribution.probabilities),
        features=GivenFeatures(np.empty((len(x), 0))),
        point=Point(np.zeros(columns), np.zeros((columns, 0))),
    )
    return best_linear_predictor(linear, None, 1.0).attained


def _newton_step(moments: Moments, point: Point, damping: float) -> Point:
    """The point −(|H| + damping·‖g‖I)⁻¹g away, for the reduced Hessian H and gradient g = (g_w, ‖w‖a, 0)."""
    w, a = point.w, moments.a.center
    H, P = reduced_hessian(moments, w)
    s, alpha = float(np.linalg.norm(w)), float(np.linalg.norm(a))
    e = w / s if s else np.eye(len(w))[0]
    g = np.concatenate([moments.g_w.center, s * a, np.zeros(P.shape[1])])
    eigenvalues, Q = np.linalg.eigh(H)
    z = -Q @ ((Q.T @ g) / (np.abs(eigenvalues) + damping * float(np.linalg.norm(g))))
    dw, v, u = np.split(z, [len(w), len(w) + len(a)])
    dV = np.outer(e, v) + (np.outer(P @ u, a / alpha) if alpha else 0.0)
    return Point(w + dw, point.V + dV)


def _moments_at(problem: Problem, point: Point) -> Moments:
    sums = (moment_sums(problem.loss, chunk, residual(chunk, point.V), point.w) for chunk in problem.chunks())
    return merged(sums).expectation()


def _gradient_norm(moments: Moments, w: Array) -> float:
    """The upper end of ‖∇F‖, for that is what a check certifies."""
    return hypot(moments.g_w.norm(), norm(w) * moments.a.norm()).upper


def _flat(point: Point) -> Array:
    return np.concatenate([point.w, point.V.ravel()])
