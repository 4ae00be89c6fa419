"""From the point of a problem to an ε-second-order partial stationary point.

Three kinds of steps, each where the others are weak:

descent: trust-region Newton steps by conjugate gradients (Steihaug 1983; SciPy's trust-ncg) on JAX's gradient
    and Hessian-vector products, which cost O(n(d + k)) each.
escape: where the gradient is small and λ_min(∇²F) too negative, along the exact lowest direction of the
    reduced Hessian (`hessian`), to a point where F is proven to be lower.
polish: where F is flat to rounding, Newton steps in the reduced space that lower ‖∇F‖.

With a regularizer all of this is about G = F + l2·‖(w, V)‖².  On a ball ‖(w, V)‖ ≤ norm, descent goes along
a sphere whose shadow the ball is (`DerivativesOnBall`); every other step ends at the nearest point of the
ball, and polishing stays on the rim where the multiplier is positive.  What is reached is for `check` to say:
nothing here is proven but the decrease of an escape.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from resnet_cert.compare.augmented import joined
from resnet_cert.compare.minimum_on_ball import best_linear_predictor
from resnet_cert.decide.definition1 import threshold
from resnet_cert.decide.hessian import (
    Direction,
    curvature,
    orthogonal_complement,
    reduced_hessian,
    unit_vector,
)
from resnet_cert.decide.lagrangian import Lagrangian, lagrangian, length, objective
from resnet_cert.moments.domain import domain_radius
from resnet_cert.moments.moments import Moments
from resnet_cert.moments.one_pass import observe
from resnet_cert.numerics.eigenvalues import spectral_norm
from resnet_cert.numerics.enclosure import Array, Enclosure, U, norm
from resnet_cert.outcomes import RequestError
from resnet_cert.problem.problem import BOUNDARY_WIDTH, Point, Problem
from resnet_cert.report.files import write_whole
from resnet_cert.search.derivatives import Derivatives, DerivativesOnBall
from resnet_cert.search.witness import objective_at

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
    """Where the search is: the objective and the norm of its gradient in float64, λ_min as last looked at."""

    iteration: int
    point: Point
    objective: float
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

    The objective never rises from one step to the next, as far as float64 can tell.  With an automatic
    domain, b and hence μ2 follow the point.

    Args:
        watch: called at the start and after every step; what it raises ends the search.

    Raises:
        RequestError: F or ∇F overflows at the problem's point.
    """
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

    point: Point
    moments: Moments
    objective: Enclosure
    judged: Lagrangian
    allowed: float

    @property
    def gradient_norm(self) -> float:
        """Its upper end, for that is what a check certifies."""
        return self.judged.gradient_norm.upper

    @property
    def lambda_min(self) -> float:
        return self.judged.lambda_min.value

    @property
    def bends_down(self) -> bool:
        return -self.lambda_min > self.allowed

    def slope(self) -> Direction:
        """∇L = ∇F + ρ(w, V)."""
        w, V, rho = self.point.w, self.point.V, self.judged.rho.value
        g_w, a = self.moments.g_w.center, self.moments.a.center
        return Direction(g_w + rho * w, np.outer(w, a) + rho * V)


class _Search:
    """The state of one search: where it is and how many steps it took."""

    def __init__(self, problem: Problem, watch: Callable[[Step], None]) -> None:
        self.problem = problem
        self.watch = watch
        self.norm = None if problem.constraint is None else problem.constraint.norm
        self.derivatives = (
            Derivatives(problem) if self.norm is None else DerivativesOnBall(problem, self.norm)
        )
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
        start = self.derivatives.coordinates(_flat(self.point))
        F, gradient = self.derivatives.at(start)
        if not (math.isfinite(F) and np.isfinite(gradient).all()):
            raise RequestError(
                "expected a point to start from where F and ∇F are finite, got one where they overflow",
                id="unfit-part",
            )
        outside = self.norm is not None and length(self.problem).lower > self.norm * (1.0 + BOUNDARY_WIDTH)
        self.arrive(self.unflat(start) if outside else self.point, F, gradient, new=False)
        reason = f"no end after {ROUNDS} rounds"
        for _ in range(ROUNDS):
            self.descend()
            view = self.look(self.point)
            self.lambda_min = view.lambda_min
            if view.bends_down and self.escape(view):
                continue
            if not (view.gradient_norm > self.aim and self.polish(view)):
                reason = "rounding hides any further descent"
                break
        # What falls short of the margin alone, or a curvature that rounding hides, the check will judge.
        reached = self.look(self.point).gradient_norm <= self.problem.epsilon
        return Solution(self.point, self.iterations, None if reached else self.why_stopped(reason))

    def arrive(self, point: Point, F: float, gradient: Array, *, new: bool = True) -> None:
        gradient_norm = float(np.linalg.norm(gradient))
        self.iterations += new
        self.point, self.steepest = point, max(self.steepest, gradient_norm)
        self.watch(Step(self.iterations, point, F, gradient_norm, self.lambda_min))

    def descend(self) -> None:
        """Trust-region Newton steps until ‖∇F‖ ≤ aim or F is flat to rounding."""
        from scipy.optimize import minimize

        start = latest = self.derivatives.coordinates(_flat(self.point))
        F, gradient = self.derivatives.at(start)
        unit = float(np.linalg.norm(gradient))  # of F: SciPy's accuracy of a step depends on the size of ∇F
        if not unit > self.aim:
            return
        stalled = 0

        def scaled(z: Array) -> tuple[float, Array]:
            value, gradient = self.derivatives.at(z)
            return value / unit, gradient / unit

        def after(intermediate_result: Any) -> None:
            nonlocal F, latest, stalled
            x = intermediate_result.x
            there, gradient = self.derivatives.at(x)
            stalled = 0 if there < F - FLAT * abs(F) else stalled + 1
            if not np.array_equal(x, latest):
                F, latest = there, x
                self.arrive(self.unflat(x), there, gradient)
            if stalled == STALLED:
                raise StopIteration

        def product(z: Array, tangent: Array) -> Array:
            product = self.derivatives.hessian_product(z, tangent) / unit
            if not np.isfinite(product).all():
                raise FloatingPointError  # on which SciPy's conjugate gradients would never end
            return product

        most = math.inf if self.norm is None else self.norm
        size = min(max(1.0, float(np.linalg.norm(_flat(self.point)))), most / 2.0)
        with contextlib.suppress(FloatingPointError):
            minimize(
                scaled,
                start,
                jac=True,
                hessp=product,
                method="trust-ncg",
                callback=after,
                options={
                    "gtol": max(self.aim / unit, U),
                    "maxiter": DESCENT_STEPS,
                    "initial_trust_radius": size,
                    "max_trust_radius": min(1e6 * size, most),
                },
            )

    def look(self, point: Point) -> _View:
        here = replace(self.problem, point=point)
        b = domain_radius(here, norm(point.w), spectral_norm(point.V))
        seen = observe(here, b)
        mu2 = here.lipschitz.mu2
        if mu2 is None and seen.lipschitz is not None:
            mu2 = seen.lipschitz.mu2
        known = mu2 is not None and math.isfinite(mu2)
        limit = threshold(mu2 if known else None, here.epsilon)
        # Where μ2 is not known there is no threshold: then any descent that can be proven is taken.
        allowed = 0.0 if limit is None else limit.lower / math.sqrt(MARGIN)
        judged = lagrangian(here, seen.here, curvature(seen.here, point.w))
        return _View(
            point,
            seen.here,
            objective(here, seen.here.F),
            judged,
            allowed,
        )

    def escape(self, view: _View) -> bool:
        """Move along ± the lowest direction to the lowest of the points seen, if descent is proven there."""
        start = _flat(view.point)
        direction = _flat(Point(view.judged.direction.dw, view.judged.direction.dV))
        direction = direction / float(np.linalg.norm(direction))
        best = self.derivatives.coordinates(start)
        lowest, moved = self.derivatives.at(best)[0], False
        length = max(1.0, float(np.linalg.norm(start)))
        if self.norm is not None:
            length = min(length, 2.0 * self.norm)
        for _ in range(HALVINGS):
            found = False
            for trial in (start + length * direction, start - length * direction):
                y = self.derivatives.coordinates(trial)
                there = self.derivatives.at(y)[0]
                if there < lowest:
                    best, lowest, found = y, there, True
            if moved and not found:
                break
            moved |= found
            length /= 2.0
        point = self.unflat(best)
        there = objective(replace(self.problem, point=point), objective_at(self.problem, point))
        if not (moved and there.upper < view.objective.lower):
            return False
        self.arrive(point, *self.derivatives.at(best))
        return True

    def polish(self, view: _View) -> bool:
        """Damped Newton steps with the exact Hessian; false if none was any good.

        −(|H| + λI)⁻¹g is a descent direction.  With λ = O(‖g‖) it converges quadratically even where the
        solutions form a manifold, so that H is singular (Fan & Yuan 2005, for least squares).  A step is
        taken that is proven to lower the objective, or that halves ‖g‖ without a proven rise.
        """
        damping, failures, moved = 1.0, 0, False
        if not math.isfinite(view.lambda_min):  # the Hessian overflows
            return False
        for _ in range(POLISH_STEPS):
            there = self.look(self.inside(_newton_step(view, damping), rim=view.judged.tangent is True))
            halved = there.gradient_norm <= view.gradient_norm / 2.0
            if (halved and not there.objective.above(view.objective)) or view.objective.above(
                there.objective
            ):
                view, damping, failures, moved = there, damping / 16.0, 0, True
                y = self.derivatives.coordinates(_flat(view.point))
                self.arrive(view.point, *self.derivatives.at(y))
                if view.gradient_norm <= self.aim:
                    break
            else:
                damping, failures = damping * 16.0, failures + 1
                if failures == POLISH_FAILURES:
                    break
        return moved

    def why_stopped(self, reason: str) -> str:
        if self.problem.is_plain and not is_attained(self.problem):
            reason = "inf F is not attained: a linear function of (x, f) separates the data"
        return f"{reason}; ‖w‖ = {norm(self.point.w).value:.3g}, ‖V‖ = {norm(self.point.V).value:.3g}"

    def inside(self, point: Point, *, rim: bool) -> Point:
        """The nearest point of the ball; of its rim."""
        if self.norm is None:
            return point
        u, size = unit_vector(_flat(point))
        return self.as_point(u * self.norm) if rim or size > self.norm else point

    def unflat(self, y: Array) -> Point:
        return self.as_point(self.derivatives.z(y))

    def as_point(self, z: Array) -> Point:
        d, k = self.problem.d, self.problem.k
        return Point(z[:d].copy(), z[d:].reshape(d, k).copy())


def is_attained(problem: Problem) -> bool:
    """Is the infimum of F over all (w, V) attained, as far as the data decide?

    F(w, V) = E[ℓ(wᵀx + qᵀf)] with q = Vᵀw, and every (w, q) with w ≠ 0 has its V: inf F is that of the linear
    predictors on (x, f).
    """
    return best_linear_predictor(joined(problem), None, 1.0).attained


def _newton_step(view: _View, damping: float) -> Point:
    """The point −D(|DHD| + λI)⁻¹Dg away, λ = damping·‖Dg‖, for the H and g of the Lagrangian.

    Both live on the directions (dw, e vᵀ + P u tᵀ) of the reduced Hessian, t = a/‖a‖, and on the rest R of
    (w, V), where ∇²F vanishes.  D scales the diagonal of H to 1, so that the units of x and f do not matter.
    Where the point is held on a sphere the step is orthogonal to (w, V).
    """
    w, V, a = view.point.w, view.point.V, view.moments.a.center
    H, P = reduced_hessian(view.moments, w)
    e, t = unit_vector(w)[0], unit_vector(a)[0]

    def reduced(direction: Direction) -> Array:
        return np.concatenate([direction.dw, direction.dV.T @ e, P.T @ (direction.dV @ t)])

    def lifted(z: Array) -> Direction:
        dw, v, u = np.split(z, [len(w), len(w) + len(a)])
        return Direction(dw, np.outer(e, v) + np.outer(P @ u, t))

    z, rho = reduced(Direction(w, V)), view.judged.rho.value
    R = V - lifted(z).dV
    size = float(np.linalg.norm(R))
    z, g = np.append(z, size), np.append(reduced(view.slope()), rho * size)
    H = np.pad(H, (0, 1))
    H[np.diag_indices(len(H))] += rho
    diagonal = np.abs(np.diagonal(H))
    D = 1.0 / np.sqrt(np.where(diagonal > 0.0, diagonal, float(np.max(diagonal)) or 1.0))
    H, g = H * np.outer(D, D), D * g
    T = np.eye(len(g))
    if view.judged.tangent:
        T = orthogonal_complement(unit_vector(D * z)[0])
        H, g = T.T @ H @ T, T.T @ g
    eigenvalues, Q = np.linalg.eigh(H)
    bent = np.abs(eigenvalues) + damping * float(np.linalg.norm(g))
    step = -D * (T @ Q @ np.divide(Q.T @ g, bent, out=np.zeros_like(g), where=bent > 0.0))
    moved = lifted(step[:-1])
    return Point(w + moved.dw, V + moved.dV + (step[-1] / size if size else 0.0) * R)


def _flat(point: Point) -> Array:
    return np.concatenate([point.w, point.V.ravel()])
