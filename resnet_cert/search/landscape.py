"""The landscape of an objective on a plane of (W, V): its critical points, and its values for a picture.

The objective is G = F + l2·‖(W, V)‖², on the ball ‖(W, V)‖ ≤ norm if there is one.  Where the head and the
block are one number each, the plane is all of R²; otherwise what is found are the critical points of the
restriction of G to a plane through the point.

plain F     of a loss that is convex for every p has its critical points in closed form (`critical_points`),
            over all (W, V), and no minimum of it is spurious.
else        branch and bound with interval Newton (`krawczyk`) proves every critical point in the range, on
the
            rim of the ball as well, and that there are no others, up to boxes that it lists.  With weight
            decay and one output the search is in d + k unknowns, whatever the plane (`decayed`).

kind        by the signs of the enclosed eigenvalues of ∇²G on the plane.  On the rim a point counts if its
            multiplier μ is positive, and its one eigenvalue is that of ∇²G + μI along the rim: positive, it
            is a minimum on the ball; negative, a saddle.  A critical point that may lie on either side of the
            rim is touching it: where ∇²G is positive definite around, there is one minimum near it all the
            same.
spurious    a minimum whose objective is proven to exceed the least one at V = 0, over all W.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from resnet_cert.compare.minimum_on_ball import best_linear_predictor
from resnet_cert.compare.regularized import least_of_objective
from resnet_cert.moments.one_pass import observe
from resnet_cert.numerics import algebra
from resnet_cert.numerics.balls import QUIET, Balls, Bools
from resnet_cert.numerics.eigenvalues import is_positive_definite, smallest_eigenvalue
from resnet_cert.numerics.enclosure import UNKNOWN, Enclosure
from resnet_cert.numerics.krawczyk import System, Zeros, refined, zeros
from resnet_cert.numerics.radius import NOTHING, Array, Radius, U, hypot
from resnet_cert.numerics.selftest import require_sound_arithmetic
from resnet_cert.numerics.threads import small_algebra_within
from resnet_cert.outcomes import RequestError
from resnet_cert.problem.losses import BuiltinLoss
from resnet_cert.problem.problem import Direction, Domain, Point, Problem
from resnet_cert.problem.ranges import inverse_slope
from resnet_cert.problem.span import span
from resnet_cert.search.critical_points import (
    ClosedForm,
    CriticalSet,
    closed_form,
    data_rank,
    judged,
    why_not_listed,
)
from resnet_cert.search.derivatives import Objective
from resnet_cert.search.enclosed import (
    InFeatures,
    OneSampleGradient,
    OnSphere,
    PlaneGradient,
    PredictionGradient,
    RateGradient,
)
from resnet_cert.search.equations import equations
from resnet_cert.search.plane import Plane, PlaneObjective, plane_of, powers, restricted
from resnet_cert.search.rims import BesideRim, beside_rim, sign_of_multiplier
from resnet_cert.search.solve import trust_region

MOST_PIXELS, LEAST_PIXELS, PIXEL_WORK = 401, 61, 2**24
"""Points of the picture in each direction: √(PIXEL_WORK/n) of them, within these."""
MARGIN = 1.2
"""The picture goes so much beyond what it must show,"""
LEAST_RANGE = 3.0
"""and in (w, v) at least so far from 0: the pictures of the paper."""
BOX_WORK = 1.5e7
"""Boxes times samples that a search may examine, within these:"""
LEAST_BOXES, MOST_BOXES = 250, 200_000
COUPLED = 4
"""A sample of softmax counts so many times for each output."""
BATCH_WORK = 2**17
NEAR = 1e-3
"""Relative size of the box in which a critical point in closed form is enclosed."""
NEAR_MINIMUM = 1e-9
"""Relative distance from a computed minimum of ℓ at which ℓ' has a sign."""
TIGHT = 1e-5
"""Boxes that are not decided are listed together where they are closer than this, in sizes of the range."""
MOST_LISTED = 200
MOST_PARAMETERS = 100
"""With so many at most a Hessian is enclosed entry by entry where a Lipschitz constant leaves a kind open."""
SEEN = 201
"""Points in each direction among which a curve of minima is looked for."""
STARTS = (-1.0, 1.0)
EVERYWHERE, IN_PART, MULTI_START = "d + k unknowns", "d + k unknowns, in part", "multi-start"
IN_SPACE = (EVERYWHERE, IN_PART, MULTI_START)
"""Searches that are not of the plane of the picture."""


@dataclass(frozen=True)
class CriticalPoint:
    """A critical point.  at: its place (s, t) on the plane; within: how far the exact one is from it at most.

    kind: on the plane, or in all of the space where the search is there; kind_in_space: in all of the space,
    of a point on a plane, where it is one of its critical points; else None.
    """

    point: Point
    at: tuple[float, float] | None
    within: float
    kind: str
    objective: Enclosure
    F: Enclosure
    eigenvalues: tuple[float, ...]
    multiplier: float | None = None
    spurious: bool = False
    proven: bool = True
    on_rim: bool = False
    touching: bool = False
    kind_in_space: str | None = None

    @property
    def name(self) -> str:
        """The kind, and whether it is spurious."""
        return "spurious minimum" if self.spurious else self.kind

    def document(self) -> dict[str, Any]:
        """As in the JSON document."""
        head = {"w": self.point.W[0]} if len(self.point.W) == 1 else {"W": self.point.W}
        bias = {} if self.point.c is None else {"c": self.point.c}
        arrays = {name: array.tolist() for name, array in {**head, "V": self.point.V, **bias}.items()}
        return {
            **arrays,
            "kind": self.kind,
            "objective": self.objective.value,
            "F": self.F.value,
            "eigenvalues": list(self.eigenvalues),
            "multiplier": self.multiplier,
            "spurious": self.spurious,
            "isolated": True,
            "proven": self.proven,
            "on_rim": self.on_rim,
            "touching": self.touching,
        }


@dataclass(frozen=True)
class Undecided:
    """A box of the plane of which nothing is known."""

    s: tuple[float, float]
    t: tuple[float, float]


@dataclass(frozen=True)
class UndecidedInSpace:
    """A box of (w, V) of which nothing is known: lower and upper ends, w (d,) and V (d1, k)."""

    w: tuple[Array, Array]
    V: tuple[Array, Array]

    def document(self) -> dict[str, Any]:
        return {name: np.stack(ends, axis=-1).tolist() for name, ends in (("w", self.w), ("V", self.V))}


@dataclass(frozen=True)
class Landscape:
    """What a picture shows.  values: G at the crossings of s (a,) and t (b,): (b, a).

    complete: every critical point of the range is listed, proven.  sets: those that are not isolated, over
    all (W, V).  searched: "closed form", "plane", "d + k unknowns", "d + k unknowns, in part" (some of the
    range is undecided), or "multi-start" (descents from many points: nothing says that they find all).
    undecided: on the plane; of a search in d + k unknowns where the plane meets what is left.
    undecided_in_space: all of that, in at most `MOST_LISTED` boxes.  undecided_boxes: of the search, in all.
    curves: (m, 2) places of sets on the plane.  why_open: why plain F has no closed form, where that is for
    the loss.
    """

    name: str
    l2: float
    norm: float | None
    F_lin_min: Enclosure
    objective_lin_min: Enclosure
    critical_points: tuple[CriticalPoint, ...]
    critical_sets: tuple[CriticalSet, ...]
    undecided: tuple[Undecided, ...]
    complete: bool
    searched: str
    closed_form: ClosedForm | None
    plane: Plane
    s: Array
    t: Array
    values: Array
    curves: tuple[Array, ...] = ()
    reach: dict[str, float] = field(default_factory=dict)
    grid: bool = False
    undecided_in_space: tuple[UndecidedInSpace, ...] = ()
    undecided_boxes: int = 0
    why_open: str | None = None

    @property
    def range(self) -> tuple[float, float, float, float]:
        """(s0, s1, t0, t1)."""
        return float(self.s[0]), float(self.s[-1]), float(self.t[0]), float(self.t[-1])

    def inside(self) -> Array:
        """The values of G on the ball, or all if there is none in the picture."""
        if self.plane.radius is None:
            return self.values.ravel()
        s, t = self.s - self.plane.center[0], self.t[:, None] - self.plane.center[1]
        values = self.values[np.hypot(s, t) <= self.plane.radius]
        return values if len(values) else self.values.ravel()

    def __str__(self) -> str:
        """The text report, with a map."""
        from resnet_cert.report import Style, formatter

        return formatter("text").landscape(self, Style(), None).rstrip("\n")

    def save(self, path: str | Path) -> None:
        """The JSON document (.json), or the picture (.png, .svg, .pdf)."""
        from resnet_cert.problem.files import write_whole
        from resnet_cert.report import Style, formatter
        from resnet_cert.report.figures import rendered

        name = str(path)
        if name.endswith(".json"):
            write_whole(name, formatter("json").landscape(self, Style(), None).encode())
        else:
            from resnet_cert.report.picture import landscape_figure

            write_whole(name, rendered(landscape_figure(self), name))

    def _repr_html_(self) -> str:
        """What a notebook shows: the picture, and what is proven."""
        from resnet_cert.report import Style, formatter
        from resnet_cert.report.figures import rendered
        from resnet_cert.report.picture import landscape_figure

        picture = rendered(landscape_figure(self), "x.svg").decode()
        text = formatter("text").landscape(self, Style(), "above").rstrip("\n")
        return f"{picture[picture.index('<svg') :]}<pre>{html.escape(text)}</pre>"

    def to_dict(self) -> dict[str, Any]:
        """The document resnet-cert/landscape/1."""
        points = []
        for point in self.critical_points:
            listed = point.document()
            if not self.plane.whole and point.at is not None:
                listed |= {"plane": list(point.at), "kind_in_space": point.kind_in_space}
            points.append(listed)
        s0, s1, t0, t1 = self.range
        found: dict[str, Any] = {
            "schema": "resnet-cert/landscape/1",
            "name": self.name,
            "restricted_to_plane": not self.plane.whole,
            "searched": self.searched,
            "range": {"w": [s0, s1], "v": [t0, t1]},
            "F_lin_min": self.F_lin_min.value,
            "objective_lin_min": self.objective_lin_min.value,
            "complete": self.complete,
            "critical_points": points,
            "critical_sets": [_set_document(found) for found in self.critical_sets],
            "undecided": [{"w": list(box.s), "v": list(box.t)} for box in self.undecided],
            "undecided_boxes": self.undecided_boxes,
        }
        if self.searched in IN_SPACE:
            found["range"] = {"w": self.reach["w"], "V": self.reach["V"]}
            found["picture"] = {"w": [s0, s1], "v": [t0, t1]}
            found["undecided"] = [box.document() for box in self.undecided_in_space]
        if self.closed_form is not None:
            found["attained"] = self.closed_form.attained
            found["infimum"] = _ends(self.closed_form.infimum)
        if self.grid:
            values = np.where(np.isfinite(self.values), self.values, np.nan)
            rows = [[None if math.isnan(v) else v for v in row] for row in values.tolist()]
            found["grid"] = {"w": self.s.tolist(), "v": self.t.tolist(), "values": rows}
        return found


def _ends(x: Enclosure) -> dict[str, float | None]:
    known = {"value": x.value, "lower": x.lower, "upper": x.upper}
    return {name: end if math.isfinite(end) else None for name, end in known.items()}


def _set_document(found: CriticalSet) -> dict[str, Any]:
    def arrays(of: Direction | Point) -> dict[str, Any]:
        if isinstance(of, Point):
            W, V = of.head, of.V
        else:
            W, V = of.dW, of.dV
        return {"w": W[0].tolist(), "V": V.tolist()} if len(W) == 1 else {"W": W.tolist(), "V": V.tolist()}

    return {
        "kind": found.kind,
        "dimension": found.dimension,
        "value": _ends(found.value),
        "lambda_min": None if found.lambda_min is None else _ends(found.lambda_min),
        "through": arrays(found.through),
        "directions": [arrays(direction) for direction in found.directions],
        "proven": found.dimension is not None,
    }


@small_algebra_within
def landscape(
    problem: Problem,
    *,
    box: tuple[float, float, float, float] | None = None,
    directions: tuple[Direction, Direction] | None = None,
) -> Landscape:
    """The landscape of a problem's objective.

    Args:
        box: (s0, s1, t0, t1), the part of the plane that is searched and drawn; by default around 0 and the
            point, the best linear predictor, the lowest level that is found, and the ball.
        directions: the plane, in place of gradient and lowest curvature.
    Raises:
        RequestError: the box is empty, the directions span no plane, or nothing is proven of the loss.
    """
    if box is not None and not (box[0] < box[1] and box[2] < box[3] and np.isfinite(box).all()):
        raise RequestError(
            f"expected a range W0:W1,V0:V1 with W0 < W1 and V0 < V1, got {tuple(box)}", id="wrong-value"
        )
    require_sound_arithmetic()
    problem = problem.with_features_held()
    size = max(float(np.linalg.norm(problem.W, 2)), float(np.linalg.norm(problem.V, 2)))
    linear = best_linear_predictor(problem, problem.domain.r, problem.domain.b or 1.01 * size or 1.0)
    least = least_of_objective(problem)
    plane = plane_of(problem, linear.W_star.center, directions)
    G = restricted(problem, plane)
    missing = why_not_listed(problem)
    listed = closed_form(problem) if missing is None and problem.objective.l2 == 0.0 else None
    frame = box or default_range(problem, plane, linear.W_star.center, listed)
    found = _Search(problem, plane, G, frame, least, listed).run()

    pixels = min(MOST_PIXELS, max(LEAST_PIXELS, math.isqrt(int(PIXEL_WORK / (problem.n * problem.q)))))
    s, t = np.linspace(frame[0], frame[1], pixels), np.linspace(frame[2], frame[3], pixels)
    grid = np.stack(np.meshgrid(s, t), axis=-1).reshape(-1, 2)
    return Landscape(
        name=problem.name,
        l2=problem.objective.l2,
        norm=problem.objective.norm,
        F_lin_min=linear.F_min,
        objective_lin_min=least,
        critical_points=tuple(sorted(found.points, key=lambda point: point.objective.value)),
        critical_sets=tuple(found.sets),
        undecided=tuple(found.undecided),
        complete=found.complete,
        searched=found.searched,
        closed_form=listed if problem.is_plain else None,
        plane=plane,
        s=s,
        t=t,
        values=G.values(grid).reshape(pixels, pixels),
        curves=tuple(found.curves),
        reach=found.reach,
        undecided_in_space=tuple(found.in_space),
        undecided_boxes=found.boxes,
        why_open=missing if problem.is_plain and problem.d1 >= span(problem) else None,
    )


# --- What the picture must show -----------------------------------------------------------------------------


def default_range(
    problem: Problem, plane: Plane, best_linear: Array, listed: ClosedForm | None
) -> tuple[float, float, float, float]:
    """(s0, s1, t0, t1) around what a picture must show."""
    ball = 0.0 if plane.radius is None else plane.radius
    if plane.whole:
        reach = [[abs(float(problem.W[0, 0])), abs(float(best_linear[0, 0]))], [abs(float(problem.V[0, 0]))]]
        lowest = [found.through for found in listed.sets if found.kind == "minimum"] if listed else []
        if problem.objective.norm is None and not problem.is_plain:
            lowest.append(lowest_found(problem, best_linear))
        for point in lowest:
            reach[0].append(abs(float(point.W[0, 0])))
            reach[1].append(abs(float(point.V[0, 0])))
        s, t = (max(LEAST_RANGE, MARGIN * max(*ends, ball)) for ends in reach)
        return -s, s, -t, t
    size = math.hypot(float(np.linalg.norm(problem.W)), float(np.linalg.norm(problem.V)))
    reach_all = MARGIN * max(size, float(np.linalg.norm(best_linear)), 0.0 if size else 1.0)
    s, t = (MARGIN * (abs(c) + ball) for c in plane.center)
    s, t = max(reach_all, s), max(reach_all, t)
    return -s, s, -t, t


def lowest_found(problem: Problem, best_linear: Array) -> Point:
    """The lowest point that a few descents come to, the problem's own where no start has a finite objective;
    nothing is proven of it."""
    function = Objective(problem)
    starts = [function.flat(problem.point)]
    starts += [
        np.array([sign * float(np.abs(best_linear).max() or 1.0), v]) for sign in STARTS for v in STARTS
    ]
    starts.append(function.flat(Point(best_linear, np.full_like(problem.V, 0.1))))
    ends = []
    with np.errstate(all="ignore"):
        for start in starts:
            if math.isfinite(function.at(start)[0]):
                ends.append(trust_region(function, start, 1e-9, lambda z: None, most=100))
        return function.point(min(ends, key=lambda z: function.at(z)[0], default=starts[0]))


# --- The search ---------------------------------------------------------------------------------------------


class _Search:
    """What is found on a plane."""

    def __init__(
        self,
        problem: Problem,
        plane: Plane,
        G: PlaneObjective,
        frame: tuple[float, float, float, float],
        least: Enclosure,
        listed: ClosedForm | None,
    ) -> None:
        self.problem, self.plane, self.G, self.least, self.listed = problem, plane, G, least, listed
        self.lower, self.upper = np.array([frame[0], frame[2]]), np.array([frame[1], frame[3]])
        self.gradient: PlaneGradient = G.gradient
        samples, size, l2 = G.gradient.samples, G.gradient.size, G.gradient.l2
        self.rates = None if samples.rates is None else RateGradient(samples, size, l2)
        self.norm = problem.objective.norm
        self.sphere = None if self.norm is None else OnSphere(self.gradient, self.norm)
        self.points: list[CriticalPoint] = []
        self.sets: list[CriticalSet] = []
        self.undecided: list[Undecided] = []
        self.curves: list[Array] = []
        self.complete = True
        self.searched = "plane"
        self.reach: dict[str, float] = {}
        self.in_space: list[UndecidedInSpace] = []
        self.boxes = 0
        self.prediction: PredictionGradient | None = None
        self.beside: list[BesideRim] = []

    def run(self) -> _Search:
        if self.listed is not None and (self.problem.is_plain or self.plane.whole):
            self.sets = list(self.listed.sets)
            if self.problem.is_plain:
                self.searched = "closed form"
            if self.plane.whole:
                self.from_closed_form()
            else:
                self.complete = self.is_all()
        elif self._in_fewer_unknowns():
            return self
        else:
            self.of_one_sample()
            for at, reach in self.on_plane():
                self.critical(at, reach)
        if self.sphere is not None:
            self.on_rim()
        return self

    def on_plane(self) -> list[tuple[Array, Array]]:
        """The zeros of ∇G; where w and v leave boxes, those that w and b = v/w decide."""
        from resnet_cert.search import decayed

        found = self.zeros(self.systems(), outside=True)
        # Inside of a ball the critical points are those without it.
        free = replace(self.problem, objective=replace(self.problem.objective, norm=None))
        if self.complete or not (self.plane.whole and decayed.applies(free)):
            return found
        other = decayed.search(free, self.lower, self.upper)
        if not other.complete:
            return found
        self.complete, self.boxes = True, 0
        self.undecided.clear()
        places = [(np.array([w[0], w[0] * b[0]]), np.full(2, radius)) for w, b, radius in other.points]
        return [
            refined(self.systems(), at, reach)
            for at, reach in places
            if ((at + reach >= self.lower) & (at - reach <= self.upper)).all()
        ]

    @QUIET
    def of_one_sample(self) -> None:
        """The curve ℓ'(p) = 0 of global minima where F is the loss of one prediction, if it is seen here."""
        problem, samples = self.problem, self.gradient.samples
        loss = problem.loss
        if samples.y.size > 1 or samples.slopes is None or not isinstance(loss, BuiltinLoss):
            return
        if problem.objective.l2 or self.plane.whole or self.plane.radius is None:
            return
        inverse = inverse_slope(loss)
        assert inverse is not None
        least = float(inverse(np.zeros(1), samples.y)[0])
        if not math.isfinite(least):  # ℓ' has no zero
            self.prediction = PredictionGradient(samples, self.gradient.size, 0.0)
            return
        p = samples.coefficients.center[0]
        at = self.crossing(p, least)
        if at is None:
            return
        self.prediction = PredictionGradient(samples, self.gradient.size, 0.0)
        value = least_loss(loss, least, samples.y, self.G.omega)
        if value is None:
            return
        through = self.plane.point(at)
        self.sets.append(CriticalSet("minimum", problem.parameters - 1, value, through))
        self.draw_level(p, least)

    def crossing(self, p: Array, level: float) -> Array | None:
        """A point of the plane, in the range and on the ball, where the polynomial p takes this value."""
        assert self.plane.radius is not None
        ends = (np.linspace(self.lower[i], self.upper[i], SEEN) for i in (0, 1))
        at = np.stack(np.meshgrid(*ends), axis=-1).reshape(-1, 2)
        at = at[np.hypot(*(at - self.plane.center).T) < self.plane.radius]
        above = powers(at) @ p > level
        if above.all() or not above.any():
            return None
        high, low = at[above][0], at[~above][0]
        for _ in range(200):  # the ball is convex
            middle = 0.5 * (low + high)
            high, low = (middle, low) if powers(middle[None])[0] @ p > level else (high, middle)
        return low

    def draw_level(self, p: Array, level: float) -> None:
        """The curve p = level, in two branches over s."""
        assert self.plane.radius is not None
        s = np.linspace(self.lower[0], self.upper[0], 4001)
        a, b, c = p[5], p[2] + p[4] * s, p[0] + p[1] * s + p[3] * s * s - level
        root = np.sqrt(b * b - 4.0 * a * c)
        for sign in (-1.0, 1.0):
            t = -2.0 * c / (b + sign * root)
            inside = np.isfinite(t) & (t >= self.lower[1]) & (t <= self.upper[1])
            inside &= np.hypot(s - self.plane.center[0], t - self.plane.center[1]) <= self.plane.radius
            runs = np.split(np.arange(len(s)), np.flatnonzero(np.diff(inside.astype(int))) + 1)
            kept = [run for run in runs if inside[run[0]] and len(run) > 1]
            self.curves += [np.stack([s[run], t[run]], axis=1) for run in kept]

    def systems(self) -> list[System]:
        if self.prediction is not None:
            return [self.prediction]
        samples, l2 = self.gradient.samples, self.gradient.l2
        if not (self.plane.whole and l2 > 0.0 and samples.slopes is not None):
            plain: list[PlaneGradient] = (
                [self.gradient] if self.rates is None else [self.gradient, self.rates]
            )
            is_one = l2 > 0.0 and samples.slopes is not None and samples.y.size == 1
            return [*plain, *(OneSampleGradient(gradient) for gradient in plain if is_one)]
        z = samples.coefficients.center[:, [1, 4]]
        rows = algebra.eigh((z * samples.weight.center[:, None]).T @ z)[1].T
        return [self.gradient, InFeatures(samples, rows, l2)]

    def zeros(self, systems: Sequence[System], *, outside: bool) -> list[tuple[Array, Array]]:
        """The zeros in the range, and what is not decided; outside: without what lies outside of the ball."""
        samples = self.gradient.samples
        entries = max(1, samples.y.size * (1 if samples.slopes else COUPLED))
        budget = int(min(MOST_BOXES, max(LEAST_BOXES, BOX_WORK / entries)))
        found = zeros(
            systems,
            self.lower,
            self.upper,
            excluded=self.outside if outside and self.sphere is not None else None,
            most_boxes=budget,
            batch=max(16, BATCH_WORK // entries),
        )
        self.leave(found)
        return list(zip(found.center, found.radius, strict=True))

    def outside(self, center: Array, reach: Array) -> Bools:
        N, _, _ = self.gradient.norm_squared(center, reach)
        return np.asarray(N.lower > self.norm_squared().upper)

    def norm_squared(self) -> Balls:
        assert self.norm is not None
        return Balls.exact(self.norm).square()

    def leave(self, found: Zeros) -> None:
        """List what is not decided."""
        center, reach = found.undecided
        if len(center):
            self.complete = False
            self.boxes += len(center)
            merged = hulls(center - reach, center + reach, TIGHT * (self.upper - self.lower))
            self.undecided += [_undecided(low, high) for low, high in zip(*merged, strict=True)]

    def open(self, at: Array, reach: Array) -> None:
        """One more box that is not decided."""
        self.complete = False
        self.boxes += 1
        self.undecided.append(_undecided(at - reach, at + reach))

    # Interior points

    @QUIET
    def critical(self, at: Array, reach: Array) -> None:
        """A proven zero of ∇G on the plane."""
        _, H = self.gradient.derivatives(at[None], reach[None])
        low, high = eigenvalues(H[0])
        touching = False
        if self.norm is not None:
            N, _, _ = self.gradient.norm_squared(at[None], reach[None])
            if N.lower[0] > self.norm_squared().upper:
                return
            touching = not N.upper[0] < self.norm_squared().lower
        kind = kind_of(low, high)
        if touching and kind not in (None, "minimum") and self.plane.whole:
            assert self.norm is not None
            beside = beside_rim(self.problem, H[0], self.norm, at, reach)
            if beside is not None:
                self.beside.append(beside)
                if not beside.inside:
                    return
                touching = False
        if kind is None or (touching and kind != "minimum"):
            self.open(at, reach)
            return
        F, G = self.G.enclosed(at, reach)
        self.add(at, reach, kind, (low.value, high.value), F, G, 0.0 if touching else None, touching)

    def add(
        self,
        at: Array,
        reach: Array,
        kind: str,
        eigenvalues: tuple[float, ...],
        F: Enclosure,
        G: Enclosure,
        multiplier: float | None,
        touching: bool = False,
    ) -> None:
        place = self.plane.point(at)
        spurious = kind == "minimum" and G.above(self.least)
        in_space = None
        if not self.plane.whole:
            in_space = kind_in_space(self.problem, place)
            spurious = spurious and in_space == "minimum"
        if self.problem.is_plain and self.listed is not None:
            spurious = False  # by the theorem: G.above(least) holds for no minimum of F
        self.points.append(
            CriticalPoint(
                point=place,
                at=(float(at[0]), float(at[1])),
                within=float(np.linalg.norm(reach)),
                kind=kind,
                objective=G,
                F=F,
                eigenvalues=eigenvalues,
                multiplier=multiplier,
                spurious=spurious,
                on_rim=multiplier is not None,
                touching=touching,
                kind_in_space=in_space,
            )
        )

    # The rim

    @QUIET
    def on_rim(self) -> None:
        assert self.sphere is not None
        gradients = [self.gradient] if self.rates is None else [self.gradient, self.rates]
        spheres = [OnSphere(gradient, self.sphere.norm) for gradient in gradients]
        # Where G is critical on the sphere F is, on which decay is constant.
        alone = [OnSphere(replace(gradient, l2=0.0), self.sphere.norm) for gradient in gradients]
        if self.prediction is not None:
            alone = [OnSphere(self.prediction, self.sphere.norm)]
        for at, reach in self.zeros(alone, outside=False):
            mus = [sphere.multiplier(at[None], reach[None]) for sphere in spheres]
            known = {sign_of_multiplier(near, self.gradient, mus[0], at, reach) for near in self.beside}
            if any(mu.upper[0] < 0.0 for mu in mus) or -1 in known:
                continue
            if not (any(mu.lower[0] > 0.0 for mu in mus) or 1 in known):
                if not (self.is_listed(at, reach) or self.is_on_curve(at, reach)):
                    self.open(at, reach)
                continue
            # Divided by a rate h they are those of G/h: of the same sign, ∇G having no part along the rim.
            bents = [sphere.curvature(at[None], reach[None]) for sphere in spheres]
            sure = [bent for bent in bents if bent.has_no_zero[0]]
            if not sure:
                self.open(at, reach)
                continue
            F, G = self.G.enclosed(at, reach)
            kind = "minimum" if sure[0].center[0] > 0.0 else "saddle"
            self.add(at, reach, kind, (float(bents[0].center[0]),), F, G, max(float(mus[0].center[0]), 0.0))

    def is_listed(self, at: Array, reach: Array) -> bool:
        """The same point as one that touches the rim."""
        return any(
            point.touching
            and point.at is not None
            and math.dist(point.at, at) <= 4.0 * (point.within + float(np.linalg.norm(reach))) + 1e-12
            for point in self.points
        )

    def is_on_curve(self, at: Array, reach: Array) -> bool:
        """The curve of global minima crosses the rim here: the one zero near is a point of it."""
        line = self.line()
        if line is None or self.sphere is None or self.norm is None:
            return False
        crossing = Crossing(self.gradient, self.norm, *line)
        wide = 64.0 * reach + 1e-9 * (self.upper - self.lower)
        there = zeros([crossing], at - wide, at + wide, most_boxes=4_000)
        alone = zeros([self.sphere], at - wide, at + wide, most_boxes=4_000)
        return len(there.center) == 1 and len(alone.center) == 1 and alone.complete and there.complete

    # The closed form

    def line(self) -> tuple[float, float, Balls] | None:
        """x·u + f·z = c, all of argmin Φ where the data lie on one line; None where they do not, or not
        proven."""
        listed = self.listed
        if listed is None or not (self.plane.whole and listed.attained) or data_rank(self.problem) != 1:
            return None
        chunk = self.problem.chunk(slice(0, self.problem.n))
        rows = np.concatenate([chunk.x, chunk.f], axis=1)
        x, f = (float(a) for a in rows[np.abs(rows).sum(axis=1).argmax()])
        best = listed.best.W_star
        u, z = best.center[0]
        c = Balls.exact(np.array([x])) * Balls.exact(u) + Balls.exact(np.array([f])) * Balls.exact(z)
        return x, f, c.widened(float(best.radius * hypot(Radius.size(x), Radius.size(f))))

    def from_closed_form(self) -> None:
        """For one w and one v: the isolated points among the sets, enclosed on the plane, and the curves."""
        assert self.listed is not None
        rest: list[CriticalSet] = []
        for found in self.sets:
            if found.dimension != 0:
                rest.append(found)
                if found.kind == "minimum":
                    self.draw(found)
                continue
            at = np.array([float(found.through.W[0, 0]), float(found.through.V[0, 0])])
            wide = NEAR * np.maximum(1e-3, np.abs(at))
            near = None
            for _ in range(12):
                there = zeros([self.gradient], at - wide, at + wide, most_boxes=2_000)
                if there.complete and len(there.center) == 1:
                    near = there
                    break
                wide = wide / 4.0
            if near is None:
                self.open(at, wide)
            else:
                self.critical(near.center[0], near.radius[0])
        self.sets = rest
        self.complete = self.complete and self.is_all()

    def is_all(self) -> bool:
        """Are the sets in closed form all critical points?  With several outputs there are further saddles,
        where W_1 is neither 0 nor of full row rank."""
        assert self.listed is not None
        saddles = [found for found in self.listed.sets if found.kind == "saddle"]
        known = all(found.dimension is not None for found in self.listed.sets)
        listed = bool(saddles) or self.has_no_saddle()
        return span(self.problem) == 1 and self.listed.attained is not None and listed and known

    def has_no_saddle(self) -> bool:
        """a_0 = 0 exactly, as for f = 0."""
        chunk = self.problem.chunk(slice(0, self.problem.n))
        return not chunk.f.any()

    def draw(self, found: CriticalSet) -> None:
        """The curve w·(x + f·v) = c, where it is one."""
        line = self.line()
        if line is None:
            return
        x, f, c = line
        w = np.linspace(self.lower[0], self.upper[0], 4001)
        with np.errstate(all="ignore"):
            v = (float(c.center[0]) / w - x) / f
        inside = np.isfinite(v) & (v >= self.lower[1]) & (v <= self.upper[1])
        if self.norm is not None:
            inside &= np.hypot(w, v) <= self.norm
        runs = np.split(np.arange(len(w)), np.flatnonzero(np.diff(inside.astype(int))) + 1)
        self.curves += [np.stack([w[run], v[run]], axis=1) for run in runs if inside[run[0]] and len(run) > 1]

    # All of (w, V) by d + k unknowns

    def _in_fewer_unknowns(self) -> bool:
        from resnet_cert.search import decayed

        if not decayed.applies(self.problem) or self.plane.whole:
            return False
        found = decayed.search(self.problem, self.lower, self.upper)
        self.searched = EVERYWHERE if found.complete else IN_PART if found.everywhere else MULTI_START
        self.complete = found.complete
        self.reach = {"w": found.reach_w, "V": found.reach_V}
        self.left_in_space(*found.left)
        for w, b, radius in found.points:
            self.add_in_space(w, b, radius)
        if found.sphere is not None:
            at = decayed.placed(self.problem, found.sphere.at, found.sphere.radius)
            near = self.near(*at)
            self.sets.append(CriticalSet("minimum", found.sphere.dimension, near.G, near.problem.point))
        return True

    def left_in_space(self, low: Array, high: Array) -> None:
        """Boxes (w, V) that are not decided; on the plane, where their shadows lie."""
        if not len(low):
            return
        problem, plane, function = self.problem, self.plane, Objective(self.problem)
        self.boxes = len(low)
        d, shape = problem.d, (problem.d1, problem.k)
        low[:, d:], high[:, d:] = (
            np.clip(end[:, d:], -self.reach["V"], self.reach["V"]) for end in (low, high)
        )
        if len(low) > MOST_LISTED:
            low, high = hulls(low, high, TIGHT * np.maximum(high.max(axis=0) - low.min(axis=0), 1e-300))
        for a, b in zip(low, high, strict=True):
            ends = a[d:].reshape(shape), b[d:].reshape(shape)
            self.in_space.append(UndecidedInSpace((a[:d], b[:d]), ends))
        # s = ⟨z − origin, first⟩ over a box, and is the plane near to it at all?
        origin = function.flat(plane.origin)
        middle, reach = 0.5 * (low + high) - origin, 0.5 * (high - low)
        axes = np.stack([function.flat(plane.first), function.flat(plane.second)])
        center, spread = middle @ axes.T, reach @ np.abs(axes).T
        off = np.abs(middle - center @ axes) > (reach + spread @ np.abs(axes)) * (1.0 + 1e-9) + 1e-12
        inside = (center - spread <= self.upper) & (center + spread >= self.lower)
        for i in np.flatnonzero(inside.all(axis=1) & ~off.any(axis=1)):
            ends = (
                np.maximum(center[i] - spread[i], self.lower),
                np.minimum(center[i] + spread[i], self.upper),
            )
            self.undecided.append(_undecided(*ends))

    def near(self, w: Array, b: Array, radius: float) -> _Near:
        """What is known of a critical point z* within a radius ρ of z = (w, w_1bᵀ).

        With ‖∇²G‖ ≤ M in between, G(z) − G(z*) is at most Mρ²/2, for ∇G(z*) = 0; and F(z*) is within
        (‖∇F(z)‖ + Mρ)ρ of F(z), where ‖∇F‖ ≤ ‖∇G‖ + 2·l2‖z‖.
        """
        problem = self.problem
        V = np.outer(w[: problem.d1], b)
        point = Point(w[None, :-1], V, w[-1:]) if problem.has_bias else Point(w[None], V)
        there = replace(problem, point=point, domain=Domain())
        seen = judged(there)
        reach, lengths = Radius.of(radius), (Radius.norm(w), Radius.norm(V))
        around = observe(there, max(float(length + reach) for length in lengths) or 1.0)
        mu2 = math.inf if around.lipschitz is None else float(around.lipschitz.mu2)
        mu1 = math.inf if around.lipschitz is None else float(around.lipschitz.mu1)
        F = around.here.F
        from resnet_cert.decide.lagrangian import objective

        G = objective(there, F)
        if math.isfinite(mu1):
            bend = Radius.of(problem.objective.l2) * 2.0
            moved = (Radius.of(mu1) + bend) * reach
            steep = Radius.of(seen.gradient_norm.upper) + hypot(*lengths) * bend + moved
            G = G + Enclosure.around(0.0, moved * reach)
            F = F + Enclosure.around(0.0, steep * reach)
        return _Near(there, seen.lambda_min, mu2, F, G)

    def add_in_space(self, w: Array, b: Array, radius: float) -> None:
        near = self.near(w, b, radius)
        lowest, F, G, point = near.lambda_min, near.F, near.G, near.problem.point
        around = UNKNOWN
        if math.isfinite(near.mu2):
            around = lowest + Enclosure.around(0.0, Radius.of(near.mu2) * Radius.of(radius))
        if around.lower <= 0.0 <= around.upper and self.problem.parameters <= MOST_PARAMETERS:
            H = equations(self.problem).hessian(point.head[0], point.V, radius)
            around = smallest_eigenvalue(H)
            if is_positive_definite(H.center, H.radius):  # λ_min is found to a factor
                around = around.intersect(lower=math.ulp(0.0))
        proven = not around.lower <= 0.0 <= around.upper
        kind = "minimum" if (around if proven else lowest).value > 0.0 else "saddle"
        self.points.append(
            CriticalPoint(
                point=point,
                at=self.place(point),
                within=radius,
                kind=kind,
                objective=G,
                F=F,
                eigenvalues=(lowest.value,),
                spurious=proven and kind == "minimum" and G.above(self.least),
                proven=proven,
                kind_in_space=kind,
            )
        )

    def place(self, point: Point) -> tuple[float, float] | None:
        """Where a point lies on the plane; None where it is not on it."""
        function = Objective(self.problem)
        z = function.flat(point) - function.flat(self.plane.origin)
        first, second = function.flat(self.plane.first), function.flat(self.plane.second)
        s, t = float(z @ first), float(z @ second)
        off = float(np.linalg.norm(z - s * first - t * second))
        return (s, t) if off <= 1e-6 * (1.0 + float(np.linalg.norm(z))) else None


class _Near(NamedTuple):
    """problem: at the middle of a ball with a critical point in it;  lambda_min: there;  mu2: a Lipschitz
    constant of ∇²F on the ball;  F, G: at the critical point."""

    problem: Problem
    lambda_min: Enclosure
    mu2: float
    F: Enclosure
    G: Enclosure


@dataclass(frozen=True)
class Crossing:
    """‖(w, v)‖ = norm and x·w + f·wv = c: a `krawczyk.System`."""

    gradient: PlaneGradient
    norm: float
    x: float
    f: float
    c: Balls

    def __call__(self, center: Array, reach: Array) -> Any:
        from resnet_cert.numerics.krawczyk import Enclosed

        at, _ = self._equations(center, np.zeros_like(reach))
        over, jacobian = self._equations(center, reach)
        return Enclosed(at, over, jacobian)

    def _equations(self, center: Array, reach: Array) -> tuple[Balls, Balls]:
        from resnet_cert.numerics.balls import stacked

        N, n, _ = self.gradient.norm_squared(center, reach)
        w, v = Balls(center[:, 0], reach[:, 0]), Balls(center[:, 1], reach[:, 1])
        slope = v.times(self.f) + Balls.exact(np.full(len(center), self.x))
        on = N - Balls.exact(self.norm).square()
        return (
            stacked([on, w * slope - self.c]),
            stacked([n, stacked([slope, w.times(self.f)])], axis=1),
        )


def eigenvalues(H: Balls) -> tuple[Enclosure, Enclosure]:
    """Of a symmetric matrix (2, 2) in a ball."""
    center = (H.center + H.center.T) / 2.0
    if not np.isfinite(center).all():
        unknown = Enclosure(math.nan, -math.inf, math.inf)
        return unknown, unknown
    # Half the trace ∓ √(((a − c)/2)² + b²), with one rounding each of sizes up to Σ|H_ij|.
    rounding = Radius.size(center).sum() * (16.0 * U) + Radius.underflow(8)
    middle, half = (center[0, 0] + center[1, 1]) / 2.0, (center[0, 0] - center[1, 1]) / 2.0
    root = float(np.hypot(half, center[0, 1]))
    low, high = float(middle) - root, float(middle) + root
    ends = [Enclosure.around(end, Radius.norm(H.radius) + rounding) for end in (low, high)]
    # Beside a large one the other is known better from the determinant, their product.
    small = int(abs(low) > abs(high))
    large, det = ends[1 - small], H[0, 0] * H[1, 1] - H[0, 1] * H[1, 0]
    if large.lower > 0.0 or large.upper < 0.0:
        other = Enclosure.around(float(det.center), Radius(det.radius)) / large
        ends[small] = other.intersect(ends[small].lower, ends[small].upper)
    return ends[0], ends[1]


def least_loss(loss: BuiltinLoss, p: float, y: Array, omega: Array | None) -> Enclosure | None:
    """min ℓ(·; y) of one sample, y (1, 1), with its place near p; None where that is not proven.

    Where ℓ' changes its sign within 2h of p, ℓ(p) − 2h|ℓ'(p)| ≤ min ℓ ≤ ℓ(p), for ℓ is convex.
    """
    h = NEAR_MINIMUM * (1.0 + abs(p))
    weights = None if omega is None else np.repeat(omega, 3, axis=0)
    at = loss.derivatives(np.array([[p - h], [p], [p + h]]), NOTHING, np.repeat(y, 3, axis=0), weights)
    value_error, first_error = (np.broadcast_to(error.upper, 3) for error in (at.value_error, at.first_error))
    left, slope, right = (
        Enclosure.around(float(first), Radius(error))
        for first, error in zip(at.first[:, 0], first_error, strict=True)
    )
    if not left.upper < 0.0 < right.lower:
        return None
    fall = Radius.of(slope.magnitude) * Radius.of(h) * 2.0
    return Enclosure.around(float(at.value[1]), Radius(value_error[1])) + Enclosure(0.0, -float(fall), 0.0)


def kind_of(low: Enclosure, high: Enclosure) -> str | None:
    """By the signs of the eigenvalues; None where one may be 0."""
    if low.lower > 0.0:
        return "minimum"
    if high.upper < 0.0:
        return "maximum"
    return "saddle" if low.upper < 0.0 < high.lower else None


def kind_in_space(problem: Problem, point: Point) -> str | None:
    """Of a critical point of all of (W, V) that is proven to lie near; None where there is none, or not
    proven."""
    size = max(float(Radius.norm(point.head)), float(Radius.norm(point.V)), 1e-300)
    there = replace(problem, point=point, domain=Domain())
    try:
        seen = judged(there)
    except RequestError:
        return None
    around = observe(there, size * (1.0 + 1e-3))
    if around.lipschitz is None:
        return None
    mu1, mu2 = float(around.lipschitz.mu1), float(around.lipschitz.mu2)
    eta, lam = seen.gradient_norm.upper, seen.lambda_min.lower
    if not (lam > 0.0 and all(map(math.isfinite, (eta, mu1, mu2, seen.rho.upper)))):
        return None
    on_rim = seen.slope.multiplier is not None
    if not on_rim:
        # G − G(z) ≥ −ηδ + ½λδ² − μ2δ³/6 on the sphere of radius δ = 4η/λ: a minimum lies inside.
        far, curved = 4 * Fraction(eta), Fraction(lam)
        near = 2 * Fraction(mu2) * far <= 3 * curved**2 and 2000 * far <= Fraction(size) * curved
        return "minimum" if near else None
    mu = seen.slope.multiplier
    assert mu is not None
    if not mu.lower > 0.0 or not problem.decayed.all():
        return None
    R = problem.objective.norm
    assert R is not None
    steepest = Fraction(mu1) + Fraction(seen.rho.upper)
    known = (Fraction(eta), Fraction(lam), Fraction(mu.lower), steepest, Fraction(mu2), Fraction(R))
    return "minimum" if minimum_on_rim(*known) else None


def minimum_on_rim(eta: Fraction, lam: Fraction, mu: Fraction, M: Fraction, K: Fraction, R: Fraction) -> bool:
    """A minimum on the ball of radius R lies near a point of its rim.

    With ∇²L ≥ λ on the tangent space, ‖∇²L‖ ≤ M, Hessians K-Lipschitz and ‖∇L‖ ≤ η there, a point of
    the ball at the distance δ, by ν inwards and τ along the rim, has

        G − G_0 ≥ −ηδ − Kδ³/6 + ½λτ² − Mτν − ½Mν² + μ(Rν − δ²/2),   Rν ≥ δ²/2.

    Far in, Rν ≥ δ²: the last term is at least μRν/2, and 1.5Mδ ≤ μR/4 makes the rest at least ½λτ² + μRν/4 −
    ηδ − Kδ³/6 ≥ min(⅜λδ², μRδ/8) − ….  Near the rim, ν ≤ δ²/R: at least ½λ(δ² − δ⁴/R²) − 1.5Mδ³/R − ….
    """
    for power in range(4, 40):
        delta = R / 2**power
        lost = eta * delta + K * delta**3 / 6
        far = 6 * M * delta <= mu * R and min(3 * lam * delta**2, mu * R * delta) > 8 * lost
        near = lam * (delta**2 - delta**4 / R**2) - 3 * M * delta**3 / R > 2 * lost
        if far and near:
            return True
    return False


def _undecided(low: Array, high: Array) -> Undecided:
    return Undecided((float(low[0]), float(high[0])), (float(low[1]), float(high[1])))


def hulls(low: Array, high: Array, gap: Array) -> tuple[Array, Array]:
    """Boxes (u, m), put together where they are within a gap of each other: at most `MOST_LISTED`; one where
    a range has no finite size, for no gap grows to it."""
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (gap > 0.0).all()):
        return low.min(axis=0, keepdims=True), high.max(axis=0, keepdims=True)
    merged = _joined(low, high, gap)
    while len(merged[0]) > MOST_LISTED:
        gap = gap * 4.0
        merged = _joined(*merged, gap)
    return merged


def _joined(low: Array, high: Array, gap: Array) -> tuple[Array, Array]:
    """One pass: boxes whose centres share a cell of a grid four gaps wide, as one."""
    cells = np.floor((low / 2.0 + high / 2.0) / (4.0 * gap))
    _, group = np.unique(cells, axis=0, return_inverse=True)
    group = group.ravel()
    shape = int(group.max()) + 1, low.shape[1]
    lows, highs = np.full(shape, np.inf), np.full(shape, -np.inf)
    np.minimum.at(lows, group, low)
    np.maximum.at(highs, group, high)
    return lows, highs
