"""The landscape of an objective on a plane of (w, V): its critical points, and its values for a picture.

The objective is G = F + l2·‖(w, V)‖², under a constraint on the ball ‖(w, V)‖ ≤ norm.  For d = k = 1 the
plane is all of R²; otherwise the critical points are those of the restriction of G to a plane through the
point.  They are found by Newton's method from many starts and examined one by one with enclosures:

kind        by the signs of the enclosed eigenvalues of ∇²G on the plane.  On the circle of the constraint a
            point counts if its multiplier μ is positive, and its one eigenvalue is that of ∇²G + μI along the
            circle: positive, it is a minimum on the ball; negative, a saddle.
isolated    no eigenvalue may be 0.  Of every curve of critical points one stands for all, that nearest to 0.
proven      an exact critical point of that kind lies within a distance δ.  With η ≥ ‖∇G‖ here, every
            eigenvalue at least λ > 0 in absolute value and δ = 2η/λ: if 4 μ2 η ≤ λ², z ↦ z − H⁻¹∇G(z), H
            the Hessian here, maps the ball of radius δ into itself and contracts it by ½; there the Hessian
            changes by at most λ/2.  On the circle ψ(θ) = F(z(θ)) has |D³ψ| ≤ K = ρ³μ2 + 3ρ²μ1 + ρμ0, and if
            δ = 2|Dψ|/|D²ψ| has Kδ ≤ |D²ψ|/2, Dψ has a zero within δ.
spurious    a minimum whose objective is proven to exceed the least one at V = 0.  On a plane that is not all,
            it is one of G in the whole space: ∇²G is positive definite there and an exact minimum is near.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from resnet_cert.compare.minimum_on_ball import best_linear_predictor
from resnet_cert.decide.hessian import Direction, curvature, rayleigh_quotient
from resnet_cert.decide.lagrangian import lagrangian, objective, objective_lin_min
from resnet_cert.moments.domain import domain_radius
from resnet_cert.moments.moments import Moments
from resnet_cert.moments.one_pass import Observed, observe
from resnet_cert.numerics.eigenvalues import largest_eigenvalue, smallest_eigenvalue, spectral_norm
from resnet_cert.numerics.enclosure import (
    QUIET,
    Array,
    Ball,
    Enclosure,
    U,
    frobenius,
    inflate,
    inner,
    norm,
    product,
)
from resnet_cert.outcomes import RequestError
from resnet_cert.problem.problem import BOUNDARY_WIDTH, Domain, Problem
from resnet_cert.report.numbers import given
from resnet_cert.search.critical_points import Box, critical_angles, critical_points
from resnet_cert.search.plane import Plane, plane_of, restricted
from resnet_cert.theory.theorems import hypot, shift_of_critical_point

MOST_STARTS, LEAST_STARTS, START_WORK = 512, 64, 2**17
"""Starts of Newton's method: START_WORK/n of them, within these."""
MOST_PIXELS, LEAST_PIXELS, PIXEL_WORK = 401, 61, 2**24
"""Points of the picture in each direction: √(PIXEL_WORK/n) of them, within these."""
MARGIN = 1.2
"""The picture goes so much beyond what it must show,"""
LEAST_RANGE = 3.0
"""and in (w, v) at least so far from 0: the pictures of the paper."""
ROOM = 1e-3
"""How far beyond the point, relative to its size, the Lipschitz constants of a proof hold."""


@dataclass(frozen=True)
class CriticalPoint:
    """A critical point as in the JSON document; at: its place (s, t) on the plane."""

    w: tuple[float, ...]
    V: tuple[tuple[float, ...], ...]
    kind: str
    objective: float
    F: float
    eigenvalues: tuple[float, ...]
    multiplier: float | None
    spurious: bool
    isolated: bool
    proven: bool
    at: tuple[float, float]

    @property
    def name(self) -> str:
        """The kind, and whether it is spurious."""
        return "spurious minimum" if self.spurious else self.kind


@dataclass(frozen=True)
class Landscape:
    """What a picture shows.  values: G at the crossings of s (q,) and t (p,): (p, q)."""

    name: str
    l2: float
    norm: float | None
    F_lin_min: Enclosure
    objective_lin_min: Enclosure
    critical_points: tuple[CriticalPoint, ...]
    curves: tuple[Array, ...]
    plane: Plane
    s: Array
    t: Array
    values: Array

    @property
    def objective(self) -> str:
        """G in words."""
        return f"F + {given(self.l2)}·(‖w‖² + ‖V‖²)" if self.l2 else "F"

    def inside(self) -> Array:
        """The values of G on the ball, or all if there is none in the picture."""
        if self.plane.radius is None:
            return self.values.ravel()
        s, t = self.s - self.plane.center[0], self.t[:, None] - self.plane.center[1]
        values = self.values[np.hypot(s, t) <= self.plane.radius]
        return values if len(values) else self.values.ravel()

    def document(self) -> dict[str, Any]:
        """The document resnet-cert/landscape/1."""
        members = [field for field in CriticalPoint.__dataclass_fields__ if field != "at"]
        points = []
        for point in self.critical_points:
            listed = {name: getattr(point, name) for name in members}
            points.append(listed if self.plane.whole else {**listed, "plane": point.at})
        return {
            "schema": "resnet-cert/landscape/1",
            "name": self.name,
            "restricted_to_plane": not self.plane.whole,
            "F_lin_min": self.F_lin_min.value,
            "objective_lin_min": self.objective_lin_min.value,
            "critical_points": points,
        }


@QUIET
def landscape(
    problem: Problem,
    *,
    box: Sequence[float] | None = None,
    directions: tuple[Direction, Direction] | None = None,
) -> Landscape:
    """The landscape of a problem's objective.

    Args:
        box: (s0, s1, t0, t1), the part of the plane that is searched and drawn; by default around 0 and the
            point, the best linear predictor and the ball.
        directions: the plane, in place of gradient and lowest curvature.
    Raises:
        RequestError: the box is empty, or the directions span no plane.
    """
    problem = problem.with_features_held()
    plane = plane_of(problem, directions)
    G = restricted(problem, plane)
    linear = best_linear_predictor(problem, problem.domain.r, domain_radius_of(problem))
    least = objective_lin_min(problem, linear.r, linear.F_min)
    if box is not None and not (box[0] < box[1] and box[2] < box[3] and np.isfinite(box).all()):
        raise RequestError(
            f"expected a range W0:W1,V0:V1 with W0 < W1 and V0 < V1, got {tuple(box)}", id="wrong-value"
        )
    frame = Box(*box) if box is not None else default_box(problem, plane, linear.norm.value)

    starts = min(MOST_STARTS, max(LEAST_STARTS, START_WORK // problem.n))
    isolated, curves = critical_points(G, frame, starts)
    center = np.array(plane.center)
    if plane.radius is not None:
        inside = plane.radius * (1.0 - BOUNDARY_WIDTH)
        isolated = isolated[np.linalg.norm(isolated - center, axis=1) < inside]
        curves = [curve[np.linalg.norm(curve - center, axis=1) < inside] for curve in curves]
        curves = [curve for curve in curves if len(curve)]
    examined = [_examined(problem, plane, at, least) for at in isolated]
    for curve in curves:
        nearest = min(curve, key=lambda at: float(np.linalg.norm(at)))
        examined.append(_examined(problem, plane, nearest, least, isolated=False))
    if plane.radius is not None:
        for angle in critical_angles(G, center, plane.radius):
            at = center + plane.radius * np.array([math.cos(angle), math.sin(angle)])
            if frame.holds(at[None]).all():
                examined.append(_on_circle(problem, plane, at, least))
    points = sorted((point for point in examined if point is not None), key=lambda point: point.objective)

    pixels = min(MOST_PIXELS, max(LEAST_PIXELS, math.isqrt(PIXEL_WORK // problem.n)))
    s, t = np.linspace(frame.s0, frame.s1, pixels), np.linspace(frame.t0, frame.t1, pixels)
    grid = np.stack(np.meshgrid(s, t), axis=-1).reshape(-1, 2)
    return Landscape(
        problem.name,
        problem.l2,
        None if problem.constraint is None else problem.constraint.norm,
        linear.F_min,
        least,
        tuple(points),
        tuple(curves),
        plane,
        s,
        t,
        G.values(grid).reshape(pixels, pixels),
    )


def domain_radius_of(problem: Problem) -> float:
    """b of the domain, for the linear predictors where inf F_lin is not attained."""
    return domain_radius(problem, norm(problem.point.w), spectral_norm(problem.point.V))


def default_box(problem: Problem, plane: Plane, norm_w_star: float) -> Box:
    """Around what a picture must show."""
    ball = 0.0 if plane.radius is None else plane.radius
    if plane.whole:
        w, v = abs(float(problem.point.w[0])), abs(float(problem.point.V[0, 0]))
        s = max(LEAST_RANGE, MARGIN * max(w, norm_w_star, ball))
        t = max(LEAST_RANGE, MARGIN * max(v, ball))
        return Box(-s, s, -t, t)
    size = hypot(norm(problem.point.w), norm(problem.point.V)).value
    reach = MARGIN * max(size, norm_w_star, 1.0 if not size else 0.0)
    s, t = (MARGIN * (abs(c) + ball) for c in plane.center)
    return Box(-max(reach, s), max(reach, s), -max(reach, t), max(reach, t))


# --- One critical point, enclosed -------------------------------------------------------------------------


@dataclass(frozen=True)
class OnPlane:
    """F at a point: ∇F (2,) and ∇²F (2, 2) on the plane, enclosed; μ0, μ1, μ2 within `room` of the point."""

    problem: Problem
    here: Moments
    gradient: tuple[Enclosure, Enclosure]
    hessian: Ball
    room: float
    seen: Observed[Moments]


def _on_plane(problem: Problem, plane: Plane, at: Array) -> OnPlane:
    there = replace(problem, point=plane.point(at), domain=Domain())
    w, V = there.point.w, there.point.V
    largest = max(norm(w).upper, norm(V).upper)
    room = ROOM * (largest or 1.0)
    seen = observe(there, largest + room)
    here, directions = seen.here, (plane.first, plane.second)
    both = Direction(plane.first.dw + plane.second.dw, plane.first.dV + plane.second.dV)
    first, second, sum_of_both = (_form(here, w, direction) for direction in (*directions, both))
    mixed = (sum_of_both - first - second) * 0.5
    return OnPlane(
        there,
        here,
        (_slope(here, w, plane.first), _slope(here, w, plane.second)),
        _symmetric(first, mixed, second),
        room,
        seen,
    )


def _form(here: Moments, w: Array, direction: Direction) -> Enclosure:
    """D²F along a direction."""
    length = norm(direction.dw).square() + norm(direction.dV).square()
    return rayleigh_quotient(here, w, direction) * length


def _slope(here: Moments, w: Array, direction: Direction) -> Enclosure:
    """⟨∇F, direction⟩ = g_wᵀdw + aᵀdVᵀw."""
    turned = product(direction.dV.T, Ball(w, 0.0))
    return inner(here.g_w, Ball(direction.dw, 0.0)) + inner(here.a, turned)


def _symmetric(first: Enclosure, mixed: Enclosure, second: Enclosure) -> Ball:
    """The matrix [[first, mixed], [mixed, second]]."""
    entries = (first, mixed, mixed, second)
    width = math.hypot(*(max(e.upper - e.value, e.value - e.lower) for e in entries))
    center = np.array([e.value for e in entries]).reshape(2, 2)
    return Ball(center, inflate(width) if math.isfinite(width) else math.inf)


def _examined(
    problem: Problem, plane: Plane, at: Array, least: Enclosure, *, isolated: bool = True
) -> CriticalPoint | None:
    """A point where ∇G on the plane vanishes to rounding, inside the ball."""
    on = _on_plane(problem, plane, at)
    w, V = on.problem.point.w, on.problem.point.V
    c = Enclosure.exact(problem.l2) * 2.0
    z_along = [
        inner(Ball(w, 0.0), Ball(direction.dw, 0.0))
        + inner(Ball(V.ravel(), 0.0), Ball(direction.dV.ravel(), 0.0))
        for direction in (plane.first, plane.second)
    ]
    eta = hypot(*(g + c * z for g, z in zip(on.gradient, z_along, strict=True)))
    # z_1 and z_2 are orthonormal to rounding: their Gram matrix is within 8u of I.
    H = Ball(
        on.hessian.center + c.value * np.eye(2),
        inflate(on.hessian.radius + 16 * U * (c.upper + frobenius(on.hessian.center))),
    )
    low, high = smallest_eigenvalue(H), largest_eigenvalue(H)
    kind = _kind(low, high)
    curved = min(abs(low).lower, abs(high).lower)
    shift = _shift_of_exact_point(eta, curved, on) if isolated else None
    minimum = kind == "minimum" and low.lower > 0.0
    if not plane.whole:
        minimum, shift_of_all = _minimum_of_all(on)
        spurious = minimum and _exceeds(on, least, shift_of_all)
    else:
        spurious = minimum and _exceeds(on, least, shift)
    return _listed(on, at, kind, (low.value, high.value), None, spurious, isolated, shift is not None)


def _kind(low: Enclosure, high: Enclosure) -> str:
    """By signs; of an eigenvalue that may be 0, by the other one."""
    if low.upper < 0.0 < high.lower:
        return "saddle"
    return "maximum" if high.upper <= 0.0 or (low.upper < 0.0 and high.value <= 0.0) else "minimum"


def _shift_of_exact_point(eta: Enclosure, curved: float, on: OnPlane) -> float | None:
    """δ = 2η/λ where an exact critical point is proven to lie within it; else None."""
    if on.seen.lipschitz is None:
        return None
    delta = shift_of_critical_point(eta, curved, on.seen.lipschitz.mu2)
    return delta if delta is not None and delta < on.room else None


def _minimum_of_all(on: OnPlane) -> tuple[bool, float | None]:
    """Is the point one of the whole space's minima?  With the distance of the exact one."""
    judged = lagrangian(on.problem, on.here, curvature(on.here, on.problem.point.w))
    if judged.multiplier is not None or not judged.lambda_min.lower > 0.0:
        return False, None
    shift = _shift_of_exact_point(judged.gradient_norm, judged.lambda_min.lower, on)
    return shift is not None, shift


def _exceeds(on: OnPlane, least: Enclosure, shift: float | None) -> bool:
    """G at the exact critical point, at most `shift` away, is proven to be above the least value at V = 0."""
    value = objective(on.problem, on.here.F)
    if shift is not None and on.seen.lipschitz is not None:
        # Between the two ‖∇G‖ ≤ δ·sup‖∇²G‖, for it vanishes at one of them.
        delta = Enclosure.exact(shift)
        value = value - delta.square() * (on.seen.lipschitz.mu1 + 2.0 * on.problem.l2)
    return value.above(least)


def _on_circle(problem: Problem, plane: Plane, at: Array, least: Enclosure) -> CriticalPoint | None:
    """A point of the circle where G along it is stationary; None unless its multiplier is positive."""
    on = _on_plane(problem, plane, at)
    out = at - np.array(plane.center)
    rho = norm(out)
    x, y = (Enclosure.exact(float(component)) / rho for component in out)
    along = on.gradient[1] * x - on.gradient[0] * y
    multiplier_F = -(on.gradient[0] * x + on.gradient[1] * y) / rho
    multiplier = multiplier_F - Enclosure.exact(problem.l2) * 2.0
    H = on.hessian
    first, mixed, second = (Enclosure.around(float(H.center[i]), H.radius) for i in ((0, 0), (0, 1), (1, 1)))
    eigenvalue = first * y.square() - mixed * x * y * 2.0 + second * x.square() + multiplier_F
    # ψ' = ρ·along and ψ'' = ρ²·eigenvalue, with F in place of G: ‖z‖ is constant on the circle.
    proven, constants = False, on.seen.lipschitz
    shift, held = 0.0, multiplier
    if constants is not None and abs(eigenvalue).lower > 0.0:
        bend = rho.square() * abs(eigenvalue)
        angle = abs(along) * rho * 2.0 / bend
        K = rho * rho.square() * constants.mu2 + rho.square() * 3.0 * constants.mu1 + rho * constants.mu0
        shift = (angle * rho).upper
        proven = (K * angle).at_most(bend * 0.5) and shift < on.room
        held = multiplier - angle * (constants.mu1 + constants.mu0 / rho)
    if not held.lower > 0.0:  # at 0, a curve of critical points may end on the circle
        return None
    kind = "saddle" if eigenvalue.upper < 0.0 else "minimum"
    spurious = plane.whole and kind == "minimum" and eigenvalue.lower > 0.0
    spurious = spurious and _exceeds_on_circle(on, least, shift if proven else 0.0)
    return _listed(
        on, at, kind, (eigenvalue.value,), multiplier.value, spurious, abs(eigenvalue).lower > 0.0, proven
    )


def _exceeds_on_circle(on: OnPlane, least: Enclosure, shift: float) -> bool:
    value = objective(on.problem, on.here.F)
    if on.seen.lipschitz is not None:
        value = value - Enclosure.exact(shift) * on.seen.lipschitz.mu0
    return value.above(least)


def _listed(
    on: OnPlane,
    at: Array,
    kind: str,
    eigenvalues: tuple[float, ...],
    multiplier: float | None,
    spurious: bool,
    isolated: bool,
    proven: bool,
) -> CriticalPoint:
    w, V = on.problem.point.w, on.problem.point.V
    return CriticalPoint(
        w=tuple(w.tolist()),
        V=tuple(tuple(row) for row in V.tolist()),
        kind=kind,
        objective=objective(on.problem, on.here.F).value,
        F=on.here.F.value,
        eigenvalues=eigenvalues,
        multiplier=multiplier,
        spurious=spurious,
        isolated=isolated,
        proven=proven,
        at=(float(at[0]), float(at[1])),
    )
