"""∇L and λ_min(∇²L) of regularised and constrained heads against 60 digits, and on z^⊥."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from curvature import Exact, constrained
from families import CORNERS, draw
from heads import Head

from resnet_cert import Problem
from resnet_cert.decide.hessian import hessian_exceeds, reduction
from resnet_cert.decide.lagrangian import (
    Lagrangian,
    decayed,
    lagrangian,
    length,
    objective,
    on_boundary,
    shift_of,
    slope,
)
from resnet_cert.moments.one_pass import observe
from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.problem.problem import BOUNDARY_WIDTH
from resnet_cert.problem.span import gradient_basis


def judged(problem: Problem) -> Lagrangian:
    here = observe(problem, 1.0).here
    N = None if on_boundary(problem) else gradient_basis(problem)
    return lagrangian(problem, slope(problem, here), reduction(here, problem.W, problem.d1, N))


def head_of(seed: int, corner: str, l2: float) -> Head:
    head = draw(seed, corner, l2=l2)
    return replace(head, loss="squared") if head.loss == "softmax" and head.q == 1 else head


def assert_held(found: Lagrangian, truth: Exact, width: float = 1e-9) -> None:
    size = max(1.0, truth.size)
    assert truth.holds(found.lambda_min.lower, found.lambda_min.upper), (truth.lambda_min, found.lambda_min)
    assert found.lambda_min.upper - found.lambda_min.lower <= width * size
    assert found.gradient_norm.lower <= truth.norm + 1e-50 * size
    assert truth.norm - 1e-50 * size <= found.gradient_norm.upper
    assert found.gradient_norm.upper - found.gradient_norm.lower <= width * size
    if truth.multiplier is not None:
        assert found.slope.multiplier is not None
        assert found.slope.multiplier.lower <= truth.multiplier <= found.slope.multiplier.upper


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_a_regularised_head_is_enclosed(corner: str, l2: float, longer: int) -> None:
    for seed in range(longer):
        head = head_of(seed, corner, l2)
        assert_held(judged(head.problem()), Exact(head))


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_a_head_on_the_boundary_of_its_ball_is_enclosed(corner: str, l2: float, longer: int) -> None:
    for seed in range(longer):
        head = head_of(seed, corner, l2)
        truth = Exact(head, constrained=True)
        if truth.multiplier is None or len(truth.z) == 1:
            continue
        problem = constrained(head)
        assert on_boundary(problem)
        found = judged(problem)
        assert_held(found, truth)
        assert found.slope.tangent is truth.tangent
        below = -float(truth.lambda_min) - 1e-9 * truth.size
        here = observe(problem, 1.0).here
        sphere = decayed(problem) if truth.tangent else None
        parts = reduction(here, problem.W, problem.d1)
        assert not hessian_exceeds(parts, below, shift_of(problem, found.slope), sphere)


@pytest.mark.long
@pytest.mark.parametrize("corner", CORNERS)
def test_many_heads_on_the_boundary_are_enclosed(corner: str) -> None:
    for seed in range(100, 200):
        head = head_of(seed, corner, [0.0, 0.3][seed % 2])
        truth = Exact(head, constrained=True)
        if truth.multiplier is not None and len(truth.z) > 1:
            assert_held(judged(constrained(head)), truth)


def test_where_the_sign_of_the_multiplier_is_open_both_curvatures_are_enclosed() -> None:
    """At a minimum of F on the sphere of its norm μ = 0, up to rounding."""
    problem = Problem.from_arrays(
        x=[[1.0], [2.0]], y=[0.3, 0.6], f=[[0.1], [0.7]], w=[0.3], V=[[0.0]], norm=0.3
    )
    found = judged(problem)
    assert found.slope.tangent is None
    here = observe(problem, 1.0).here
    parts = reduction(here, problem.W, problem.d1)
    whole, on_sphere = (lagrangian(problem, replace(found.slope, tangent=t), parts) for t in (False, True))
    assert found.lambda_min.lower <= min(whole.lambda_min.value, on_sphere.lambda_min.value)
    assert found.lambda_min.upper >= max(whole.lambda_min.value, on_sphere.lambda_min.value) - 1e-12


def test_inside_the_ball_the_constraint_changes_nothing() -> None:
    head = draw(1, "generic", "squared", q=2)
    free, inside = judged(head.problem()), judged(head.problem(norm=1e3))
    assert (free.gradient_norm, free.lambda_min) == (inside.gradient_norm, inside.lambda_min)
    assert inside.slope.multiplier is None


@pytest.mark.parametrize("scale", [1.0 - 0.9 * BOUNDARY_WIDTH, 1.0, 1.0 + 0.9 * BOUNDARY_WIDTH])
def test_a_point_near_the_boundary_is_on_it(scale: float) -> None:
    problem = draw(1, "generic", "squared", q=2).problem(norm=1e3)
    size = length(problem).value
    assert on_boundary(replace(problem, objective=replace(problem.objective, norm=size * scale)))
    assert not on_boundary(replace(problem, objective=replace(problem.objective, norm=size * 1.001)))


def test_a_bias_that_is_not_decayed_is_no_part_of_the_norm() -> None:
    head = replace(draw(1, "generic", "squared", q=2, bias=True, l2=0.5), decay_bias=False)
    problem = head.problem()
    size = float(np.sum(head.W**2) + np.sum(head.V**2))
    assert length(problem).square().value == pytest.approx(size)
    assert objective(problem, Enclosure.exact(1.0)).value == pytest.approx(1.0 + 0.5 * size)
    assert not decayed(problem).dW[:, -1].any()


def test_the_tangent_direction_is_orthogonal_to_the_point() -> None:
    for seed in range(6):
        head = head_of(seed, "generic", 0.0)
        problem = constrained(head)
        found = judged(problem)
        if not found.slope.tangent:
            continue
        z, u = decayed(problem), found.direction
        across = float(np.sum(z.dW * u.dW) + np.sum(z.dV * u.dV))
        assert abs(across) <= 1e-12 * length(problem).value
