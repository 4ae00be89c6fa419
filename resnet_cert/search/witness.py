"""Why a point is refuted, in a form that one can use: a direction of descent, and a lower point along it."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from resnet_cert.check import Examination
from resnet_cert.decide.lagrangian import length, objective, on_boundary
from resnet_cert.moments.gradient import first_moments
from resnet_cert.numerics.enclosure import QUIET, Ball, Enclosure, inner, norm
from resnet_cert.numerics.radius import Array, U, exponent
from resnet_cert.numerics.threads import small_algebra_within
from resnet_cert.outcomes import Verdict
from resnet_cert.problem.files import write_whole
from resnet_cert.problem.problem import Direction, Domain, Point, Problem
from resnet_cert.results import Descent
from resnet_cert.search.derivatives import Objective

HALVINGS = 64
"""Steps 2^-j of the size of the point are tried,"""
SMALLER = 2.0**-8
LEAST_STEP = 2.0**-1000
LARGEST_STEP = 2.0**500
"""then larger ones and smaller ones by this factor, within these."""
TRIED = 6
"""Steps at which float64 sees a fall that are enclosed before the search goes on to smaller ones."""


@dataclass(frozen=True)
class Witness:
    """A direction (dW, dV) of length 1 to rounding, along which the objective falls.

    condition: the condition of Definition 1 that the point violates.
    rate: the slope along the direction for "gradient"; its Rayleigh quotient for "curvature".
    objective: at the point.  lower_point: the point plus step times the direction, in float64 and back onto
    the ball if there is one, where the objective is proven to be lower; None (and step 0) if rounding hides
    the descent.
    """

    condition: Literal["gradient", "curvature"]
    direction: Direction
    rate: Enclosure
    objective: Enclosure
    step: float = 0.0
    lower_point: Point | None = None
    objective_there: Enclosure | None = None


def find_witness(examination: Examination) -> Witness | str:
    """The witness of a REFUTED report; why there is none of another, or of a gradient that underflows."""
    report, problem, decision = examination.report, examination.problem, examination.decision
    if report.verdict is not Verdict.REFUTED:
        return f"the verdict is {report.verdict.value}"
    slope = decision.slope
    here = objective(problem, decision.F)
    if report.gradient.verdict is Verdict.REFUTED:
        direction = unit(Direction(-slope.of_W.center, -slope.of_V.center))
        if direction is None:
            return "the gradient underflows or overflows: float64 has no direction of it"
        rate = _along(slope.of_W, slope.of_V, direction)
        witness = Witness("gradient", direction, rate / _length(direction), here)
    else:
        direction = unit(decision.curvature.direction)
        if direction is None:
            return "float64 has no direction of the lowest curvature"
        if _along(slope.of_W, slope.of_V, direction).value > 0.0:
            direction = Direction(-direction.dW, -direction.dV)
        lambda_min = decision.curvature.lambda_min
        witness = Witness("curvature", direction, lambda_min, here)
    return _descended(problem, witness)


def descent(examination: Examination) -> Descent | None:
    """How far the objective falls along the witness; None where it is not refuted, or nothing is proven."""
    found = find_witness(examination)
    if isinstance(found, str) or found.objective_there is None:
        return None
    kind = "slope" if found.condition == "gradient" else "saddle"
    return Descent(kind, found.objective - found.objective_there, found.step)


def unit(direction: Direction) -> Direction | None:
    """The direction at length 1 to rounding, whatever its scale; None for 0."""
    flat = np.concatenate([direction.dW.ravel(), direction.dV.ravel()])
    if not (flat.any() and np.isfinite(flat).all()):
        return None
    power = exponent(flat)
    # In two steps, for 2^power may not be a float.
    halves = -power // 2, -power - (-power // 2)
    dW, dV = (np.ldexp(np.ldexp(part, halves[0]), halves[1]) for part in (direction.dW, direction.dV))
    size = math.hypot(float(np.linalg.norm(dW)), float(np.linalg.norm(dV)))
    return Direction(dW / size, dV / size)


def write_witness(path: str, witness: Witness) -> None:
    """An .npz file, whole or not at all.

    condition, dW (q, d), dV (d1, k), rate and objective (lower, upper); if a lower point was found, step,
    W, V (and c) and objective_there too.  With one output dw and w beside dW and W, as in a spec.
    """
    dW = witness.direction.dW
    arrays: dict[str, Array | np.ndarray] = {
        "condition": np.array(witness.condition),
        "dW": dW,
        "dV": witness.direction.dV,
        "rate": _ends(witness.rate),
        "F": _ends(witness.objective),
        "objective": _ends(witness.objective),
    }
    if len(dW) == 1:
        arrays["dw"] = dW[0]
    there = witness.lower_point
    if there is not None and witness.objective_there is not None:
        arrays |= {
            "step": np.array(witness.step),
            "W": there.W,
            "V": there.V,
            "F_there": _ends(witness.objective_there),
            "objective_there": _ends(witness.objective_there),
        }
        if there.c is not None:
            arrays["c"] = there.c
        if len(there.W) == 1:
            arrays["w"] = there.W[0]
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_whole(path, content.getvalue())


@QUIET
def objective_at(problem: Problem, point: Point) -> Enclosure:
    """The objective at another point of the problem, enclosed."""
    there = replace(problem, point=point, domain=Domain())
    return objective(there, first_moments(there).F)


@QUIET
@small_algebra_within
def _descended(problem: Problem, witness: Witness) -> Witness:
    """The lowest of the first steps at which the objective is proven to be lower."""
    function = Objective(problem)
    start, along = function.flat(problem.point), function.flat(witness.direction)
    limit = None
    if problem.objective.norm is not None:
        limit = problem.objective.norm
        if on_boundary(problem):
            limit = max(limit, length(problem).lower)

    def there(step: float) -> Array:
        z = start + step * along
        return z if limit is None else _inside(problem, function, z, limit)

    value = function.at(start)[0]
    tried = 0
    for step in _steps(float(np.linalg.norm(start))):
        z = there(step)
        if not function.at(z)[0] < value:
            continue
        point = function.point(z)
        lower = objective_at(problem, point)
        if lower.upper < witness.objective.lower:
            return replace(witness, step=step, lower_point=point, objective_there=lower)
        tried += 1
        if tried == TRIED:
            break
    return witness


def _steps(size: float) -> list[float]:
    steps = [max(1.0, size) * 2.0**-power for power in range(HALVINGS)]
    longer = steps[0] / SMALLER
    while longer < LARGEST_STEP:  # tiny data: F changes far away alone
        steps.append(longer)
        longer /= SMALLER
    steps.append(steps[HALVINGS - 1] * SMALLER)
    while steps[-1] > LEAST_STEP:
        steps.append(steps[-1] * SMALLER)
    return steps


def _inside(problem: Problem, function: Objective, z: Array, limit: float) -> Array:
    """z, or the nearest point of the ball."""
    held = np.append(np.tile(problem.decayed, problem.q), np.ones(problem.d1 * problem.k)) > 0.0
    size = float(np.linalg.norm(z[held]))
    if not size > limit * (1.0 - 8.0 * U):
        return z
    return np.where(held, z * (limit * (1.0 - 16.0 * U * len(z)) / size), z)


def _along(of_W: Ball, of_V: Ball, direction: Direction) -> Enclosure:
    """⟨∇L, (dW, dV)⟩."""
    return inner(of_W, Ball.exact(direction.dW)) + inner(of_V, Ball.exact(direction.dV))


def _length(direction: Direction) -> Enclosure:
    return (norm(direction.dW).square() + norm(direction.dV).square()).sqrt()


def _ends(x: Enclosure) -> Array:
    return np.array([x.lower, x.upper])
