"""From the point of a problem to an ε-second-order partial stationary point.

Plain F, with at least as many block inputs as outputs: F(W, V) = Φ(W, W_1V), and Φ(U, Z) = E[ℓ(Ux + Zf; y)]
is convex.  Newton's method goes down Φ from (W, W_1V), through heads W = U with W_1V = Z, which exist
wherever W_1 has full row rank: to a global minimum of F over all (W, V), or along a way down that has no end.

All else (weight decay, a ball, fewer block inputs than outputs): trust-region Newton steps, by dense algebra
or conjugate gradients (Steihaug 1983), on Hessian-vector products that cost O(nq(d + k)) each; where the
gradient is small and the lowest curvature negative, along that direction.  On a ball ‖(W, V)‖ ≤ norm the
search goes along a sphere whose shadow the ball is (`OnBall`).

Nothing here is proven; what is reached is for `check` to say.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from resnet_cert.decide.decision import decide, observed
from resnet_cert.moments.one_pass import observe
from resnet_cert.numerics import algebra
from resnet_cert.numerics.radius import Array, Radius, U
from resnet_cert.numerics.selftest import require_sound_arithmetic
from resnet_cert.numerics.threads import small_algebra_within
from resnet_cert.outcomes import RequestError, Verdict
from resnet_cert.problem.files import write_whole
from resnet_cert.problem.problem import BOUNDARY_WIDTH, Direction, Point, Problem
from resnet_cert.problem.problem import Objective as Sought
from resnet_cert.problem.span import span
from resnet_cert.results import ShownAsText
from resnet_cert.search.derivatives import (
    RANK,
    Augmented,
    Decayed,
    Function,
    Objective,
    OnBall,
    basis,
    dense_hessian,
    lowest_curvature,
)

MARGIN = 16.0
"""The search ends at an ε/16-SOPSP by its own numbers, so that enclosures prove one for ε."""
ROUNDS = 30
RUNS = 3
"""A search goes on from where it ended, as a user would, while it still gets lower."""
NEWTON_STEPS = 2000
"""e^p falls by a factor of e a step."""
TRUST_STEPS, VALLEY_STEPS, LONG_STEPS = 1000, 400, 40
FLAT = 16.0 * U
"""Relative: F that falls by less is flat to rounding, and then the gradient decides."""
STALLED = 6
HALVINGS = 60
DENSE_NEWTON = 700
"""Up to so many unknowns the Hessian of Φ is formed;"""
DENSE_STEP = 160
"""and that of G."""
NULL = 1e-13
"""Curvatures that small, relative to the largest of scaled unknowns: directions of which Φ knows nothing."""
FAR = 1e6
"""A ball so many times as large as the point is left out at first."""
NEARBY = 30.0
"""From a point of at most this length the search is for a minimum nearby."""
QUARTERS = 24
"""From a longer one it goes by as many factors of 4 towards 0 as lead down."""
SHORTER = 0.7
"""A point that is no better is taken for another one when its length is at most this share."""


@dataclass(frozen=True)
class Step:
    """Where the search is: the objective and the norm of its gradient in float64, λ_min as last looked at."""

    iteration: int
    point: Point
    objective: float
    gradient_norm: float
    lambda_min: float | None


@dataclass(frozen=True)
class Solution(ShownAsText):
    """The last point and the number of steps to it; stopped: why the search ended short of ε, or None.

    attained: is the infimum of the objective, over all points?  None where that is not known.
    descent: where it is not, a direction along which the objective falls without end.  why: of `attained`.
    """

    point: Point
    iterations: int
    stopped: str | None
    attained: bool | None = None
    descent: Direction | None = None
    why: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the point, and how the search ended."""
        bias = {} if self.point.c is None else {"c": self.point.c.tolist()}
        point = {"W": self.point.W.tolist(), "V": self.point.V.tolist(), **bias}
        descent = None
        if self.descent is not None:
            descent = {"dW": self.descent.dW.tolist(), "dV": self.descent.dV.tolist()}
        return {
            "point": point,
            "iterations": self.iterations,
            "stopped": self.stopped,
            "attained": self.attained,
            "descent": descent,
            "why": self.why,
        }

    def save(self, path: str | Path) -> None:
        """The point, as `write_point` writes it."""
        write_point(str(path), self.point)

    def __str__(self) -> str:
        """How the search ended."""
        sizes = f"‖W‖ = {np.linalg.norm(self.point.W):.6g}, ‖V‖ = {np.linalg.norm(self.point.V):.6g}"
        end = self.stopped or "an ε-second-order stationary point, by float64's own word"
        return f"{self.iterations} iterations: {end}; {sizes}"


@small_algebra_within
def solve(problem: Problem, watch: Callable[[Step], None] = lambda step: None) -> Solution:
    """A point where ‖∇F‖ ≤ ε and λ_min(∇²F) ≥ −√(μ2 ε), with a margin, sought from the problem's own point.

    The objective never rises from one step to the next, as far as float64 can tell.

    Args:
        watch: called at the start and after every step; what it raises ends the search.

    Raises:
        RequestError: F or ∇F overflows at the problem's point.
    """
    with np.errstate(all="ignore"):
        require_sound_arithmetic()
        return _Search(problem.with_features_held(), watch).run()


def perturbed(problem: Problem, seed: int) -> Point:
    """A random start: (W, V) plus a normal vector of about the length of the point, at least about 1."""
    rng = np.random.default_rng(seed)
    objective = Objective(problem)
    z = objective.flat(problem.point)
    scale = max(1.0, float(Radius.norm(z))) / math.sqrt(z.size)
    return objective.point(z + scale * rng.standard_normal(z.size))


def write_point(path: str, point: Point) -> None:
    """The arrays w (or W), V and c as an .npz file, whole or not at all: `point: {file: ...}` of a spec."""
    content = io.BytesIO()
    head = {"w": point.W[0]} if len(point.W) == 1 else {"W": point.W}
    bias = {} if point.c is None else {"c": point.c}
    np.savez(content, allow_pickle=False, **head, V=point.V, **bias)
    write_whole(path, content.getvalue())


def read_point(path: str) -> Point:
    """The point of `write_point`, to the bit."""
    with np.load(path, allow_pickle=False) as arrays:
        W = arrays["w"][None] if "w" in arrays else arrays["W"]
        return Point(W, arrays["V"], arrays.get("c"))


class _Search:
    """The state of one search: where it is and how many steps it took."""

    def __init__(self, problem: Problem, watch: Callable[[Step], None]) -> None:
        self.problem = problem
        self.watch = watch
        self.objective = Objective(problem)
        self.z = self.objective.flat(problem.point)
        self.iterations = 0
        self.lambda_min: float | None = None
        self.aim = problem.epsilon / MARGIN
        self.ball: OnBall | None = None
        if problem.objective.norm is not None:
            held = np.append(np.tile(problem.decayed, problem.q), np.ones(problem.d1 * problem.k)) > 0.0
            self.ball = OnBall(self.objective, problem.objective.norm, np.asarray(held))

    def run(self) -> Solution:
        G, gradient = self.objective.at(self.z)
        if not (math.isfinite(G) and np.isfinite(gradient).all()):
            raise RequestError(
                "expected a point to start from where F and ∇F are finite, got one where they overflow",
                id="unfit-part",
            )
        if self.ball is not None:
            length = float(np.linalg.norm(self.z[self.ball.held]))
            if length > self.ball.norm * (1.0 + BOUNDARY_WIDTH):
                self.z = self.ball.z(self.ball.coordinates(self.z))
        self.arrive(self.z, new=False)
        if self.is_there():
            return self.ended()
        far = float(np.linalg.norm(self.z)) > NEARBY
        if far and self.without_ball():
            return self.ended()
        ball, start = self.ball, self.z
        if ball is not None and ball.norm > FAR * max(1.0, float(np.linalg.norm(start))):
            self.ball = None  # it is too far away to matter, unless the search goes there
        self.search()
        if ball is not None and self.ball is None:
            self.ball = ball
            if float(np.linalg.norm(self.z[ball.held])) > ball.norm:
                self.z = start
                self.search()
        if not (far or self.is_there()):
            self.without_ball()
        return self.ended()

    def without_ball(self) -> bool:
        """Go where F alone leads to, or to the point of the ball in that direction, if that is lower; true
        where nothing is left to do.  From far away that is shorter than the way along the sphere."""
        problem, ball = self.problem, self.ball
        if ball is None or problem.objective.l2 > 0.0 or problem.d1 < span(problem):
            return False
        plain = replace(problem, point=self.objective.point(self.z), objective=Sought())
        free = _Search(plain, lambda step: None)
        _BlockSearch(free).run()
        z = free.z
        if float(np.linalg.norm(z[ball.held])) > ball.norm:
            z = ball.z(ball.coordinates(z))
        if not self.objective.at(z)[0] < self.objective.at(self.z)[0]:
            return False
        self.arrive(z)
        return self.is_there()

    def search(self) -> None:
        """By the convex function of the block where that is F, else step by step."""
        plain = self.ball is None and self.problem.objective.l2 == 0.0
        if plain and self.problem.d1 >= span(self.problem):
            _BlockSearch(self).run()
            if self.iterations:
                return
        for _ in range(RUNS):
            before = self.objective.at(self.z)[0]
            if self.is_there():
                break
            self.descend()
            if self.gradient_norm(self.z) <= self.aim or not self.objective.at(self.z)[0] < before:
                break

    def ended(self) -> Solution:
        from resnet_cert.search.critical_points import attainment

        point = self.objective.point(self.z)
        attained, descent, why = attainment(self.problem, point)
        reached = self.gradient_norm(self.z) <= self.problem.epsilon
        if attained is False and self.problem.epsilon == 0.0:
            reached = False  # whatever underflowed
        stopped = None
        if not reached:
            W, V = self.objective.head(self.z)
            where = f"‖W‖ = {np.linalg.norm(W):.3g}, ‖V‖ = {np.linalg.norm(V):.3g}"
            reason = "rounding hides any further descent"
            if attained is False:
                reason = "the infimum is not attained, and the objective falls on without end"
            stopped = f"{reason}; {where}"
        elif self.problem.epsilon > 0.0 and not math.isfinite(self.mu2()) and not self.is_bent_up():
            stopped = (
                f"λ_min ≥ −√(μ2 ε) is not decided: λ_min, about {self.lambda_min:.1e}, is not proven to be "
                "at least 0, and no finite μ2 is known on the domain; a smaller domain.b or lipschitz.mu2 "
                "may do"
            )
        return Solution(point, self.iterations, stopped, attained, descent, why)

    def arrive(self, z: Array, *, new: bool = True) -> None:
        G, _ = self.objective.at(z)
        self.iterations += new
        self.z = z
        point = self.objective.point(z)
        self.watch(Step(self.iterations, point, G, self.gradient_norm(z), self.lambda_min))

    def gradient_norm(self, z: Array) -> float:
        """‖∇G‖; on a ball that of its projection onto the tangent cone."""
        _, gradient = self.objective.at(z)
        if self.ball is not None:
            held = self.ball.held
            u = z[held]
            length = float(np.linalg.norm(u))
            outward = float(gradient[held] @ u)
            if length >= self.ball.norm * (1.0 - BOUNDARY_WIDTH) and outward < 0.0:
                gradient = gradient.copy()
                gradient[held] -= outward / length**2 * u
        return float(np.linalg.norm(gradient))

    def is_there(self) -> bool:
        """An ε/16-SOPSP, by float64's own word; for μ2 the bound of the samples one by one."""
        if not self.gradient_norm(self.z) <= self.aim:
            return False
        function, y = self.coordinates()
        self.lambda_min, _ = lowest_curvature(function, y)
        return self.lambda_min >= -self.allowed()

    def coordinates(self) -> tuple[Function, Array]:
        if self.ball is None:
            return self.objective, self.z
        return self.ball, self.ball.coordinates(self.z)

    def allowed(self) -> float:
        """√(μ2 ε)/MARGIN, and no less than rounding."""
        mu2 = self.mu2()
        limit = math.sqrt(mu2 * self.problem.epsilon) / MARGIN if math.isfinite(mu2) else 0.0
        return max(limit, 1e-12 * max(1.0, abs(self.lambda_min or 0.0)))

    def mu2(self) -> float:
        """As stated, or the bound of the samples one by one; infinite where that overflows."""
        if self.problem.lipschitz.mu2 is not None:
            return self.problem.lipschitz.mu2
        return _third_derivative(self.problem, *self.objective.head(self.z))

    def is_bent_up(self) -> bool:
        """λ_min ≥ 0 as `check` proves it, which then needs no μ2."""
        there = replace(self.problem, point=self.objective.point(self.z))
        here = observed(there, 1.0).here
        decision = decide(there, here, None, second_moments=lambda: observe(there, 1.0).here)
        self.lambda_min = decision.curvature.lambda_min.value
        return decision.verdicts.curvature is Verdict.CERTIFIED

    def descend(self) -> None:
        """Trust-region steps, and the lowest curvature where they end at a saddle.

        G is convex in V alone and in W alone: from afar, where all unknowns together bend too much, these
        come first, the larger one before the other.
        """
        split = self.objective.split
        if self.ball is None:
            self.come_nearer()
            W, V = self.z[:split], self.z[split:]
            parts = [slice(0, split), slice(split, None)]
            for part in parts if np.linalg.norm(W) >= np.linalg.norm(V) else reversed(parts):
                block = _Block(self.objective, self.z, part)
                trust_region(block, self.z[part], self.aim, lambda y, block=block: self.moved(block.whole(y)))
        for _ in range(ROUNDS):
            if self.ball is None and self.problem.d1 >= span(self.problem) and not self.problem.is_plain:
                self.along_valleys()
            function, y = self.coordinates()
            trust_region(function, y, self.aim, self.moved)
            if not self.escape():
                break

    def come_nearer(self) -> None:
        """From afar, to the lowest point on the way to 0: where the loss is straight that way is long."""
        if float(np.linalg.norm(self.z)) <= NEARBY:
            return
        values = [self.objective.at(self.z / 4.0**power)[0] for power in range(QUARTERS)]
        lowest = int(np.argmin(np.where(np.isfinite(values), values, np.inf)))
        if lowest:
            self.arrive(self.z / 4.0**lowest)

    def along_valleys(self) -> None:
        """Down G with the least V for every (W, W_1V)."""
        problem, N = self.problem, basis(self.problem)
        d, d1 = problem.d, problem.d1
        W, V = self.objective.head(self.z)
        U = N.T @ W

        def lifted(A: Array) -> Array:
            both = A.reshape(N.shape[1], d + problem.k)
            V = algebra.lstsq(both[:, :d1], both[:, d:])
            return np.asarray(np.concatenate([(N @ both[:, :d]).ravel(), V.ravel()]), dtype=np.float64)

        A = np.concatenate([U, U[:, :d1] @ V], axis=1).ravel()
        sizes = algebra.svd(U[:, :d1])[1]
        if not sizes[-1] > RANK * sizes[0] or not np.isfinite(lifted(A)).all():
            return
        before = self.objective.at(self.z)[0]
        if self.objective.at(lifted(A))[0] <= before * (1.0 + 1e-12):
            trust_region(
                Decayed(problem), A, self.aim / 4.0, lambda A: self.arrive(lifted(A)), most=VALLEY_STEPS
            )

    def moved(self, y: Array) -> None:
        self.arrive(y if self.ball is None else self.ball.z(y))

    def escape(self) -> bool:
        """Along ± the direction of lowest curvature to the lowest of the points seen."""
        function, start = self.coordinates()
        self.lambda_min, direction = lowest_curvature(function, start)
        if not self.lambda_min < -self.allowed():
            return False
        value, _ = function.at(start)
        best, lowest = start, value - FLAT * abs(value)
        length = max(1.0, float(np.linalg.norm(start)))
        for _ in range(HALVINGS):
            found = False
            for trial in (start + length * direction, start - length * direction):
                there, _ = function.at(trial)
                if there < lowest:
                    best, lowest, found = trial, there, True
            if best is not start and not found:
                break
            length /= 2.0
        if best is start:
            return False
        self.moved(best)
        return True


@dataclass
class _Block:
    """A function of some coordinates, the others held."""

    function: Function
    start: Array
    part: slice

    @property
    def entries(self) -> int:
        return self.function.entries

    def whole(self, y: Array) -> Array:
        z = self.start.copy()
        z[self.part] = y
        return z

    def at(self, y: Array) -> tuple[float, Array]:
        value, gradient = self.function.at(self.whole(y))
        return value, gradient[self.part]

    def hessian_product(self, y: Array, tangent: Array) -> Array:
        step = np.zeros((*tangent.shape[:-1], len(self.start)))
        step[..., self.part] = tangent
        return self.function.hessian_product(self.whole(y), step)[..., self.part]


def _third_derivative(problem: Problem, W: Array, V: Array) -> float:
    """E[L3 J³ + 3 L2 J‖f‖] on the domain, in float64."""
    b = problem.domain.b or 1.01 * float(max(np.linalg.norm(W, 2), np.linalg.norm(V, 2))) or 1.0
    total = weight = 0.0
    for chunk in problem.chunks():
        size_x, size_f = np.linalg.norm(chunk.x, axis=1), np.linalg.norm(chunk.f, axis=1)
        h = size_x + b * size_f
        suprema = problem.loss.suprema(Radius.size(h) * b, chunk.y, chunk.omega)
        if suprema is None:
            return math.inf
        J = np.hypot(h, b * size_f)
        each = suprema.third.upper * J**3 + 3.0 * suprema.second.upper * J * size_f
        total += float(chunk.weights @ np.broadcast_to(each, len(h)))
        weight += float(np.sum(chunk.weights))
    return total / weight


# --- Plain F: the convex Φ and the heads above it -----------------------------------------------------------


class _BlockSearch:
    """Newton's method on Φ from (W, W_1V), and V from Z along the way."""

    def __init__(self, search: _Search) -> None:
        self.search = search
        self.problem = search.problem
        self.Phi = Augmented(self.problem)
        W, V = search.objective.head(search.z)
        self.W, self.V = W, V
        d1 = self.problem.d1
        self.A = np.concatenate([W, W[:, :d1] @ V], axis=1).ravel()

    def run(self) -> None:
        zero = np.zeros_like(self.A)
        if float(np.linalg.norm(self.A)) > NEARBY and self.Phi.at(zero)[0] < self.Phi.at(self.A)[0]:
            self.A = zero  # Φ is convex: from 0, which is lower, the way is the shorter one
        for _ in range(ROUNDS):
            newton(self.Phi, self.A, self.after)
            value, slope = self.Phi.at(self.A)
            if not np.linalg.norm(slope) > max(self.search.aim, 1e-14 * (1.0 + abs(value))):
                break
            # Where the losses are straight to rounding, Newton's method has no step.
            before = self.A
            trust_region(self.Phi, self.A, self.search.aim, self.after_step, most=LONG_STEPS)
            if np.array_equal(before, self.A):
                break
        self.shorten()
        if self.search.gradient_norm(self.search.z) <= self.search.aim or self.raised is None:
            return
        # W_1 goes to a matrix without full row rank: hold its least singular value above 0.
        A = self.A.copy()
        for size in (1e-3, 1e-5, 1e-7):
            fixed, value = self.raised
            B = A + (size * self.scale - value) * fixed
            newton(self.Phi, B, lambda A: None, fixed=fixed, end=self.keep)
            if self.search.gradient_norm(self.search.z) <= self.search.aim:
                return

    raised: tuple[Array, float] | None = None
    scale = 1.0

    def shorten(self) -> None:
        """Leave out what the data do not see of (U, Z), and of V, where that is most of it: Φ stays the same,
        and the domain, with its Lipschitz constants, becomes as small as it can be."""
        seen = self.A
        if len(self.A) <= DENSE_NEWTON:
            H = self.Phi.hessian(self.A)
            if np.isfinite(H).all():
                eigenvalues, Q = algebra.eigh(H)
                Q = Q[:, eigenvalues > NULL * float(eigenvalues[-1])]
                seen = Q @ (Q.T @ self.A)
        self.V = np.zeros_like(self.V)
        before = float(np.linalg.norm(self.search.z))
        for A in (seen, self.A):
            lifted = self.lift(A)
            if lifted is not None and float(np.linalg.norm(lifted)) < SHORTER * before:
                newton(self.Phi, A, lambda A: None, end=self.keep)
                break

    def after_step(self, A: Array) -> None:
        self.after(A)

    def after(self, A: Array) -> bool:
        """Move to a head above A; true where it is an ε-stationary point already."""
        self.A = A
        lifted = self.lift(A)
        if lifted is None:
            return False
        self.search.arrive(lifted)
        return self.search.gradient_norm(lifted) <= self.search.aim and self.search.aim > 0.0

    def keep(self, A: Array) -> None:
        """Take the head above A where it is flatter, or shorter and flat enough, and no higher."""
        lifted = self.lift(A)
        if lifted is None:
            return
        search = self.search
        value, before = search.objective.at(lifted)[0], search.objective.at(search.z)[0]
        flatness = search.gradient_norm(lifted)
        # What a long point has for F is rounding of its predictions.
        noise = 64.0 * FLAT * max(abs(before), abs(self.Phi.at(np.zeros_like(A))[0]))
        if value <= before + noise and (flatness < search.gradient_norm(search.z) or flatness <= search.aim):
            self.A = A
            search.arrive(lifted)

    def lift(self, A: Array) -> Array | None:
        """(W, V) with W = U and W_1V = Z (softmax: up to 1cᵀ), V near to the last one."""
        problem = self.problem
        d, d1 = problem.d, problem.d1
        both = A.reshape(problem.q, d + problem.k)
        U_, Z = both[:, :d], both[:, d:]
        N = basis(problem)
        U_1, Z = N.T @ U_[:, :d1], N.T @ Z
        left, s, right = algebra.svd(U_1)
        self.scale = float(s[0]) or 1.0
        if not s[-1] > RANK * s[0]:
            direction = np.zeros_like(both)
            direction[:, :d1] = N @ np.outer(left[:, -1], right[-1])
            self.raised = direction.ravel(), float(s[-1])
        if not s[-1] > 1e-150:
            return None
        inverse = right.T @ (left.T / s[:, None])
        least = inverse @ Z
        near = self.V + inverse @ (Z - U_1 @ self.V)
        V = near if np.linalg.norm(near) <= 10.0 * (1.0 + np.linalg.norm(least)) else least
        if not np.isfinite(V).all():
            return None
        self.V = V
        return np.concatenate([U_.ravel(), V.ravel()])


def newton(
    function: Augmented,
    z: Array,
    after: Callable[[Array], bool | None],
    *,
    fixed: Array | None = None,
    end: Callable[[Array], None] = lambda z: None,
) -> None:
    """Damped Newton steps down a convex function, to where float64 knows no lower point and no flatter one.

    Args:
        after: called with every point; true ends the search.  end: called with the last point.
        fixed: a direction that z keeps its place along.
    """
    value, gradient = function.at(z)
    if fixed is not None:
        fixed = fixed / float(np.linalg.norm(fixed))
    stalled = 0
    for _ in range(NEWTON_STEPS):
        step = _newton_step(function, z, gradient, fixed)
        slope = float(gradient @ step)
        if not slope < 0.0:
            break
        size, moved, trial, there, steeper = 1.0, False, z, value, gradient
        for _ in range(HALVINGS):
            trial = z + size * step
            there, steeper = function.at(trial)
            flat = there <= value + FLAT * abs(value)
            if there <= value + 1e-4 * size * slope or (
                flat and _length(steeper, fixed) < 0.9 * _length(gradient, fixed)
            ):
                moved = True
                break
            size /= 2.0
        if not moved:
            break
        stalled = 0 if there < value - FLAT * abs(value) else stalled + 1
        still = np.array_equal(trial, z)
        z, value, gradient = trial, there, steeper
        if after(z) or still or stalled == STALLED:
            break
    end(z)


def _length(gradient: Array, fixed: Array | None) -> float:
    return float(np.linalg.norm(gradient if fixed is None else gradient - float(gradient @ fixed) * fixed))


def _newton_step(function: Augmented, z: Array, gradient: Array, fixed: Array | None) -> Array:
    """−H⁺g in unknowns scaled to unit curvature, off a fixed direction."""
    if len(z) > DENSE_NEWTON:
        return _conjugate_gradients(lambda t: function.hessian_product(z, t), gradient, math.inf)
    H = function.hessian(z)
    if not np.isfinite(H).all():
        return -gradient
    if fixed is not None:
        P = np.eye(len(z)) - np.outer(fixed, fixed)
        H, gradient = P @ H @ P, P @ gradient
    diagonal = np.sqrt(np.maximum(np.diagonal(H), 0.0))
    D = 1.0 / np.where(diagonal > 0.0, diagonal, 1.0)
    scaled = H * np.outer(D, D)
    if not np.isfinite(scaled).all():
        return -gradient
    eigenvalues, Q = algebra.eigh(scaled)
    kept = eigenvalues > NULL * max(float(eigenvalues[-1]), 0.0)
    along = Q.T @ (D * gradient)
    step = -D * (Q @ np.divide(along, eigenvalues, out=np.zeros_like(along), where=kept))
    return step if fixed is None else step - float(step @ fixed) * fixed


# --- Trust regions ------------------------------------------------------------------------------------------


def trust_region(
    function: Function, z: Array, aim: float, moved: Callable[[Array], None], *, most: int = TRUST_STEPS
) -> Array:
    """Newton steps within a trust region until ‖∇G‖ ≤ aim, or until neither G nor ‖∇G‖ falls any more."""
    value, gradient = function.at(z)
    unit = float(np.linalg.norm(z)) if isinstance(function, OnBall) else max(1.0, float(np.linalg.norm(z)))
    radius, largest, stalled = unit, 1e8 * unit, 0
    for _ in range(most):
        size = float(np.linalg.norm(gradient))
        if not size > aim:
            break
        step, model = _trust_step(function, z, gradient, radius)
        trial = z + step
        there, steeper = function.at(trial)
        length = float(np.linalg.norm(step))
        flat = abs(model) <= 64.0 * FLAT * abs(value)
        if flat:
            good = there <= value + 64.0 * FLAT * abs(value) and float(np.linalg.norm(steeper)) < size
            ratio = 1.0 if good else -1.0
        else:
            ratio = (value - there) / -model if math.isfinite(there) else -1.0
        if ratio < 0.25:
            radius = length / 4.0
        elif ratio > 0.75 and length > 0.8 * radius:
            radius = min(2.0 * radius, largest)
        if ratio > 1e-4:
            halved = float(np.linalg.norm(steeper)) <= size / 2.0
            stalled = 0 if there < value - FLAT * abs(value) or halved else stalled + 1
            z, value, gradient = trial, there, steeper
            moved(z)
        if stalled == STALLED or not radius > 1e-17 * max(unit, float(np.linalg.norm(z))):
            break
    return z


def _trust_step(function: Function, z: Array, gradient: Array, radius: float) -> tuple[Array, float]:
    """A minimiser of the quadratic model in a ball, and the model's value there."""

    def product(t: Array) -> Array:
        return function.hessian_product(z, t)

    step = None
    if len(z) <= DENSE_STEP:
        H = dense_hessian(function, z)
        if np.isfinite(H).all():
            step = _exact_step(H, gradient, radius)
    if step is None:
        step = _conjugate_gradients(product, gradient, radius)
    model = float(gradient @ step) + 0.5 * float(step @ product(step))
    if not model < 0.0:  # what overflows, or rounding
        step = -gradient * (radius / float(np.linalg.norm(gradient)))
        model = float(gradient @ step)
    return step, model


def _exact_step(H: Array, gradient: Array, radius: float) -> Array:
    """argmin gᵀs + ½sᵀHs over ‖s‖ ≤ radius (Moré & Sorensen 1983), by the eigenvalues of H."""
    eigenvalues, Q = algebra.eigh(H)
    g = Q.T @ gradient
    least = float(eigenvalues[0])

    def at(shift: float) -> Array:
        bent = eigenvalues + shift
        return -np.divide(g, bent, out=np.zeros_like(g), where=bent > 0.0)

    tiny = 1e-14 * max(float(np.abs(eigenvalues).max()), 1e-300)
    if least > tiny:
        step = at(0.0)
        if float(np.linalg.norm(step)) <= radius:
            return Q @ step
    low = max(0.0, -least) + tiny
    step = at(low)
    if (
        float(np.linalg.norm(step)) <= radius
    ):  # the hard case: what is missing goes along the lowest direction
        if least < 0.0:
            missing = math.sqrt(max(radius**2 - float(step @ step), 0.0))
            step[0] += missing if step[0] >= 0.0 else -missing
        return Q @ step
    high = low + float(np.linalg.norm(g)) / radius
    for _ in range(200):
        middle = math.sqrt(low * high) if low > 0.0 else 0.5 * high
        if float(np.linalg.norm(at(middle))) > radius:
            low = middle
        else:
            high = middle
        if high <= low * (1.0 + 1e-3):
            break
    return Q @ at(high)


def _conjugate_gradients(product: Callable[[Array], Array], gradient: Array, radius: float) -> Array:
    """Steihaug's: to the rim of the region where a direction bends down or the minimiser lies outside."""
    step, residual = np.zeros_like(gradient), -gradient
    direction, size = residual, float(residual @ residual)
    start = math.sqrt(size)
    enough = min(0.1, math.sqrt(start)) * start
    for _ in range(max(50, 3 * min(len(gradient), 1000))):
        bent = product(direction)
        curve = float(direction @ bent)
        if not math.isfinite(curve):
            break
        length = size / curve if curve > 0.0 else math.inf
        moved = step + length * direction if curve > 0.0 else step
        if curve <= 0.0 or float(np.linalg.norm(moved)) >= radius:
            if not math.isfinite(radius):
                return step if step.any() else residual
            return step + _to_rim(step, direction, radius) * direction
        step, residual = moved, residual - length * bent
        before, size = size, float(residual @ residual)
        if math.sqrt(size) <= enough:
            break
        direction = residual + size / before * direction
    return step if step.any() else -gradient * (min(radius, 1.0) / start)


def _to_rim(step: Array, direction: Array, radius: float) -> float:
    """t ≥ 0 with ‖step + t·direction‖ = radius."""
    a, b, c = float(direction @ direction), float(step @ direction), float(step @ step) - radius**2
    return (-b + math.sqrt(max(b * b - a * c, 0.0))) / a
