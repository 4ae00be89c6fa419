"""Why a point is refuted, in a form that one can use: a direction of descent, and a lower point along it."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from resnet_cert.check import Examination
from resnet_cert.decide.hessian import Direction, rayleigh_quotient
from resnet_cert.moments.moments import merged, moment_sums, residual
from resnet_cert.numerics.enclosure import Array, Ball, Enclosure, inner, norm, product
from resnet_cert.outcomes import RequestError, Verdict
from resnet_cert.problem.problem import Point, Problem
from resnet_cert.report.files import write_whole

HALVINGS = 60


@dataclass(frozen=True)
class Witness:
    """A direction (dw, dV) of length 1 to rounding, along which F falls.

    condition: the condition of Definition 1 that the point violates.
    rate: the slope along the direction, −‖∇F‖ for "gradient"; its Rayleigh quotient of ∇²F for "curvature".
    lower_point: (w + step·dw, V + step·dV) in float64, where F is proven to be lower than F here; None (and
        step 0) if rounding hides the descent.
    """

    condition: Literal["gradient", "curvature"]
    direction: Direction
    rate: Enclosure
    F: Enclosure
    step: float = 0.0
    lower_point: Point | None = None
    F_there: Enclosure | None = None


def find_witness(examination: Examination) -> Witness | None:
    """The witness of a REFUTED report; None for any other, and for a gradient that underflows.

    Raises:
        RequestError: the problem is regularised or constrained.
    """
    report, problem, moments = examination.report, examination.problem, examination.moments
    if not problem.is_plain:
        raise RequestError("expected no regularizer and no constraint for a witness", id="unfit-part")
    if report.verdict is not Verdict.REFUTED:
        return None
    w = problem.point.w
    if report.gradient.verdict is Verdict.REFUTED:
        downhill = Direction(-moments.g_w.center, -np.outer(w, moments.a.center))
        if not _length(downhill).value > 0.0:
            return None
        direction = _unit(downhill)
        rate = _slope(examination, direction) / _length(direction)
        witness = Witness("gradient", direction, rate, report.objective.F)
    else:
        direction = _unit(examination.curvature.direction)
        if _slope(examination, direction).value > 0.0:
            direction = Direction(-direction.dw, -direction.dV)
        rate = rayleigh_quotient(moments, w, direction)
        witness = Witness("curvature", direction, rate, report.objective.F)
    return _descended(problem, witness)


def write_witness(path: str, witness: Witness) -> None:
    """An .npz file, whole or not at all.

    condition, dw, dV, rate and F (lower, upper); if a lower point was found, step, w, V and F_there too.
    """
    arrays = {
        "condition": np.array(witness.condition),
        "dw": witness.direction.dw,
        "dV": witness.direction.dV,
        "rate": _ends(witness.rate),
        "F": _ends(witness.F),
    }
    if witness.lower_point is not None and witness.F_there is not None:
        arrays |= {
            "step": np.array(witness.step),
            "w": witness.lower_point.w,
            "V": witness.lower_point.V,
            "F_there": _ends(witness.F_there),
        }
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_whole(path, content.getvalue())


def _descended(problem: Problem, witness: Witness) -> Witness:
    """The first of the steps 1, 1/2, 1/4, ... (times the size of the point) at which F is proven lower."""
    w, V, direction = problem.point.w, problem.point.V, witness.direction
    step = max(1.0, norm(w).value, norm(V).value)
    for _ in range(HALVINGS):
        point = Point(w + step * direction.dw, V + step * direction.dV)
        there = objective_at(problem, point)
        if there.upper < witness.F.lower:
            return replace(witness, step=step, lower_point=point, F_there=there)
        step /= 2.0
    return witness


def objective_at(problem: Problem, point: Point) -> Enclosure:
    """F at another point of the problem, enclosed."""
    with np.errstate(over="ignore", invalid="ignore"):  # far away F may overflow: then nothing is known of it
        sums = (
            moment_sums(problem.loss, chunk, residual(chunk, point.V), point.w) for chunk in problem.chunks()
        )
        return merged(sums).expectation().F


def _slope(examination: Examination, direction: Direction) -> Enclosure:
    """⟨∇F, (dw, dV)⟩ = g_wᵀdw + wᵀdV a."""
    moments, w = examination.moments, examination.problem.point.w
    turned = product(direction.dV.T, Ball(w, 0.0))
    return inner(moments.g_w, Ball(direction.dw, 0.0)) + inner(moments.a, turned)


def _length(direction: Direction) -> Enclosure:
    return (norm(direction.dw).square() + norm(direction.dV).square()).sqrt()


def _unit(direction: Direction) -> Direction:
    length = _length(direction).value
    return Direction(direction.dw / length, direction.dV / length)


def _ends(x: Enclosure) -> Array:
    return np.array([x.lower, x.upper])
