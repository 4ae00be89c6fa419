"""Definition 1 for a regularised objective and on a ball: against balls, dense autodiff and closed forms."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import FAMILIES, make, to_problem
from flint import arb, ctx
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import BITS, Sample, Truth
from oracle_algebra import complement, dot, largest, norm, shifted, smallest_eigenvalue

from resnet_cert import Enclosure, Problem, RequestError, Verdict, check, load_problem
from resnet_cert.check import bound_constants, examine
from resnet_cert.compare.linear_predictor import minimum_on_ball
from resnet_cert.decide import lagrangian as regularized
from resnet_cert.decide.hessian import curvature
from resnet_cert.decide.lagrangian import (
    Lagrangian,
    lagrangian,
    objective_lin_min,
    on_boundary,
    tangent_curvature,
)
from resnet_cert.decide.objective import autodiff
from resnet_cert.moments.one_pass import observe
from resnet_cert.numerics.enclosure import Ball
from resnet_cert.problem.problem import BOUNDARY_WIDTH, Constraint, Point, Regularizer
from resnet_cert.theory.theorems import proposition_R

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
EDGES = (
    "one_input",
    "one_feature",
    "zero_w",
    "zero_V",
    "cancelling_features",
    "tiny_w",
    "saddle",
    "weighted",
)


def length(sample: Sample) -> float:
    return math.hypot(float(np.linalg.norm(sample.w)), float(np.linalg.norm(sample.V)))


def variants(sample: Sample, rng: np.random.Generator) -> list[dict[str, float | None]]:
    """A regulariser; a ball with the point inside; on its boundary; on it with a regulariser."""
    l2, at = float(10.0 ** rng.uniform(-3, 1)), length(sample)
    if not 1e-100 < at < 1e100:
        return [{"l2": l2, "norm": None}]
    on = at * (1.0 + rng.uniform(-1, 1) * 0.9 * BOUNDARY_WIDTH)
    return [
        {"l2": l2, "norm": None},
        {"l2": None, "norm": 2.0 * at},
        {"l2": None, "norm": on},
        {"l2": l2, "norm": on},
    ]


def judged(problem: Problem) -> Lagrangian:
    here = observe(problem, 1.0).here
    return lagrangian(problem, here, curvature(here, problem.point.w))


@functools.cache
def oracle(family: str, seed: int) -> Truth:
    return Truth(make(family, seed))


def truly(truth: Truth, problem: Problem) -> dict[str, Any]:
    """ρ, μ, ‖∇L‖ and λ_min by the definitions, dense and in balls."""
    with ctx.workprec(BITS):
        z = [*truth.w, *(entry for row in truth.V for entry in row)]
        c = 2 * arb(problem.l2)
        gradient = [g + c * x for g, x in zip(truth.gradient, z, strict=True)]
        hessian, mu = shifted(truth.hessian, c), None
        if on_boundary(problem):
            mu = -dot(gradient, z) / dot(z, z)
            held = largest([mu, arb(0)])
            gradient = [g + held * x for g, x in zip(gradient, z, strict=True)]
            if mu > 0:
                H, basis = shifted(hessian, held), complement(z)
                hessian = [[dot(u, [dot(row, v) for row in H]) for v in basis] for u in basis]
        return {"multiplier": mu, "gradient_norm": norm(gradient), "hessian": hessian}


def holds(enclosure: Enclosure, x: arb) -> bool:
    """The ball meets the enclosure, which is all that a ball can tell."""
    return bool(arb(enclosure.lower) <= x.upper()) and bool(x.lower() <= arb(enclosure.upper))


@pytest.mark.parametrize("family", ["gaussian", *EDGES])
@pytest.mark.parametrize("seed", range(2))
def test_every_number_lies_in_its_enclosure(family: str, seed: int) -> None:
    truth = oracle(family, seed)
    for options in variants(truth.sample, np.random.default_rng(seed)):
        problem = to_problem(truth.sample, **options)
        found, true = judged(problem), truly(truth, problem)
        with ctx.workprec(BITS):
            assert holds(found.gradient_norm, true["gradient_norm"]), options
            assert (found.multiplier is None) == (true["multiplier"] is None)
            if found.multiplier is not None:
                assert holds(found.multiplier, true["multiplier"]), options
            assert holds(found.lambda_min, smallest_eigenvalue(true["hessian"])), options


@pytest.mark.long
@given(st.sampled_from(sorted(FAMILIES)), st.integers(0, 10**6))
def test_every_number_lies_in_its_enclosure_in_every_family(family: str, seed: int) -> None:
    test_every_number_lies_in_its_enclosure(family, seed)


@pytest.mark.parametrize("seed", range(6))
def test_enclosures_are_narrow(seed: int) -> None:
    sample = make("gaussian", seed)
    for options in variants(sample, np.random.default_rng(seed)):
        problem = to_problem(sample, **options)
        found, here = judged(problem), observe(problem, 1.0).here
        scale = here.A.norm().value + (1.0 + float(sample.w @ sample.w)) * here.C.norm().value
        scale += here.a.norm().value + found.rho.value
        assert found.lambda_min.upper - found.lambda_min.lower < 1e-11 * scale
        size = here.g_w.norm().value + here.a.norm().value + found.rho.value * length(sample) + 1.0
        assert found.gradient_norm.upper - found.gradient_norm.lower < 1e-11 * size * (1.0 + length(sample))


def shaken(ball: Ball, rng: np.random.Generator) -> Ball:
    """An exact array on the sphere of a ball; symmetric, if the ball is."""
    noise = rng.normal(size=ball.center.shape)
    if noise.ndim == 2 and noise.size and np.array_equal(ball.center, ball.center.T):
        noise = noise + noise.T
    size = float(np.linalg.norm(noise)) or 1.0
    return Ball(ball.center + 0.999 * ball.radius / size * noise, 0.0)


@pytest.mark.parametrize("seed", range(10))
def test_radii_of_the_moments_are_paid_for(seed: int) -> None:
    """For moments known to 1e−3 only, the numbers of every moments in their balls lie in the enclosures."""
    rng = np.random.default_rng(seed)
    sample = make("gaussian", 200 + seed)
    for options in variants(sample, rng):
        problem = to_problem(sample, **options)
        exact = observe(problem, 1.0).here
        parts = {name: getattr(exact, name) for name in ("g_w", "a", "A", "B", "C")}
        wide = {name: Ball(part.center, 1e-3 * rng.uniform()) for name, part in parts.items()}
        fat = replace(exact, **wide)
        outer = lagrangian(problem, fat, curvature(fat, problem.point.w))
        for _ in range(20):
            here = replace(exact, **{name: shaken(part, rng) for name, part in wide.items()})
            inner = lagrangian(problem, here, curvature(here, problem.point.w))
            for name in ("gradient_norm", "gradient_w", "gradient_V", "lambda_min", "rho"):
                one, other = getattr(outer, name), getattr(inner, name)
                assert one.lower <= other.upper, name
                assert other.lower <= one.upper, name


def test_both_sides_of_an_open_sign_of_the_multiplier_are_enclosed() -> None:
    """At w(1 + v) = 1 a residual of either sign, and so a multiplier of either sign, is within the radii."""
    problem = hyperbola(0.8, 0.25, norm=math.hypot(0.8, 0.25))
    exact = observe(problem, 1.0).here
    fat = replace(exact, g_w=Ball(exact.g_w.center, 0.1), a=Ball(exact.a.center, 0.1))
    outer = lagrangian(problem, fat, curvature(fat, problem.point.w))
    assert outer.tangent is None
    seen = set()
    for residual in (-0.07, -0.01, 0.01, 0.07):
        here = replace(
            exact,
            g_w=Ball(exact.g_w.center + 1.25 * residual, 0.0),
            a=Ball(exact.a.center + residual, 0.0),
        )
        inner = lagrangian(problem, here, curvature(here, problem.point.w))
        seen.add(inner.tangent)
        assert outer.lambda_min.lower <= inner.lambda_min.lower
        assert inner.lambda_min.upper <= outer.lambda_min.upper
        assert outer.gradient_norm.lower <= inner.gradient_norm.upper
        assert inner.gradient_norm.upper <= outer.gradient_norm.upper
    assert seen == {True, False}


@pytest.mark.parametrize("family", ["gaussian", *EDGES])
def test_autodiff_of_the_whole_objective_agrees(family: str) -> None:
    sample = make(family, 5)
    for options in variants(sample, np.random.default_rng(5)):
        problem = to_problem(sample, **options)
        found = judged(problem)
        auto = autodiff(
            problem, found.direction, on_boundary=on_boundary(problem), tangent=found.tangent is True
        )
        scale = 1.0 + abs(found.lambda_min.value) + found.rho.value * (1.0 + length(sample))
        assert auto.gradient_norm == pytest.approx(found.gradient_norm.value, abs=1e-9 * scale)
        assert auto.lambda_min == pytest.approx(found.lambda_min.value, abs=1e-8 * scale)
        assert auto.curvature == pytest.approx(found.lambda_min.value, abs=1e-8 * scale)


@pytest.mark.parametrize("seed", range(8))
def test_the_tangent_direction_is_orthogonal_to_the_point(seed: int) -> None:
    sample = make("gaussian", seed)
    here = observe(to_problem(sample), 1.0).here
    direction = tangent_curvature(here, sample.w, sample.V).direction
    size = math.hypot(float(np.linalg.norm(direction.dw)), float(np.linalg.norm(direction.dV)))
    assert size == pytest.approx(1.0, abs=1e-12)
    along = float(direction.dw @ sample.w) + float(np.sum(direction.dV * sample.V))
    assert along == pytest.approx(0.0, abs=1e-12 * length(sample))


@pytest.mark.parametrize("seed", range(6))
def test_no_verdict_is_wrong_beside_its_threshold(seed: int) -> None:
    """ε at ‖∇L‖ or μ2 at λ_min²/ε, a relative 1e−13 to 1e−1 off."""
    rng = np.random.default_rng(seed)
    truth = oracle("gaussian", 100 + seed)
    for options in variants(truth.sample, rng):
        problem = to_problem(truth.sample, **options)
        found, true = judged(problem), truly(truth, problem)
        off = 1.0 + rng.choice([-1.0, 1.0]) * 10.0 ** rng.uniform(-13, -1)
        with ctx.workprec(BITS):
            eps = float(true["gradient_norm"].mid()) * (off if seed % 2 else 2.0)
            m = max(0.0, -float(smallest_eigenvalue(true["hessian"]).mid()))
            mu2 = m * m / eps * (2.0 if seed % 2 else off)
            limit = (arb(mu2) * arb(eps)).sqrt()
            gradient = bool(true["gradient_norm"] <= arb(eps))
            curved = bool(smallest_eigenvalue(true["hessian"]) >= -limit)
        report = check(replace(problem, epsilon=eps, lipschitz=replace(problem.lipschitz, mu2=mu2)))
        assert report.gradient.verdict in (Verdict.UNDECIDED, [Verdict.REFUTED, Verdict.CERTIFIED][gradient])
        if found.tangent is not None:
            assert report.hessian.verdict in (Verdict.UNDECIDED, [Verdict.REFUTED, Verdict.CERTIFIED][curved])
        if abs(off - 1.0) > 1e-8:
            assert report.gradient.verdict is not Verdict.UNDECIDED


# --- The ball: inside, on the boundary, released ----------------------------------------------------------


def hyperbola(w: float, v: float, **options: Any) -> Problem:
    """F(w, v) = (w(1 + v) − 1)²."""
    return Problem.from_arrays(x=[[1.0]], y=[1.0], f=[[1.0]], w=[w], V=[[v]], loss="squared", **options)


def test_inside_the_ball_the_constraint_changes_nothing() -> None:
    free, held = check(hyperbola(0.3, 0.4, epsilon=2.0)), check(hyperbola(0.3, 0.4, epsilon=2.0, norm=1.0))
    assert held.gradient == free.gradient
    assert held.hessian == free.hessian
    assert held.regularized is not None
    assert not held.regularized.active
    assert held.regularized.multiplier is None


def test_where_the_objective_falls_on_the_way_inside_the_whole_gradient_and_hessian_count() -> None:
    z = (2.0 * math.cos(0.3), 2.0 * math.sin(0.3))  # w(1 + v) > 1: towards 0 the residual shrinks
    free, held = judged(hyperbola(*z)), judged(hyperbola(*z, norm=2.0))
    assert held.multiplier is not None
    assert held.multiplier.upper < 0.0
    assert held.tangent is False
    assert held.rho == Enclosure.exact(0.0)
    assert held.gradient_norm.value == pytest.approx(free.gradient_norm.value, rel=1e-15)
    assert held.lambda_min == free.lambda_min


def test_where_the_sign_of_the_multiplier_is_open_both_curvatures_are_enclosed() -> None:
    # An interpolating point: ∇F = 0 up to the rounding of w(1 + v) − 1, so μ is 0 up to rounding.
    w = 0.7
    v = 1.0 / w - 1.0
    problem = hyperbola(w, v, norm=math.hypot(w, v))
    found, here = judged(problem), observe(problem, 1.0).here
    assert found.multiplier is not None
    assert found.multiplier.lower <= 0.0 <= found.multiplier.upper
    assert found.tangent is None
    everywhere = curvature(here, problem.point.w).lambda_min
    along = tangent_curvature(here, problem.point.w, problem.point.V).lambda_min
    assert found.lambda_min.lower <= everywhere.lower
    assert found.lambda_min.upper >= along.upper


def test_a_point_at_zero_is_inside_every_ball() -> None:
    problem = hyperbola(0.0, 0.0, norm=1e-3, epsilon=10.0)
    assert judged(problem).multiplier is None
    assert check(problem).regularized is not None


@pytest.mark.parametrize(
    ("scale", "where"), [(1 - 2e-6, "inside"), (1 - 1e-9, "on"), (1 + 1e-9, "on"), (1 + 2e-6, "outside")]
)
def test_a_point_near_the_boundary_is_on_it(scale: float, where: str) -> None:
    w, v = 2.0 * scale * 0.6, 2.0 * scale * 0.8
    if where == "outside":
        with pytest.raises(
            RequestError, match=r"point: expected ‖\(w, V\)‖ ≤ norm = 2.0, got ‖\(w, V\)‖ = 2.00000"
        ):
            hyperbola(w, v, norm=2.0)
    else:
        assert on_boundary(hyperbola(w, v, norm=2.0)) == (where == "on")


@pytest.mark.parametrize(("l2", "limit"), [(-1.0, None), (math.inf, None), (None, 0.0), (None, math.nan)])
def test_coefficients_that_make_no_sense_are_refused(l2: float | None, limit: float | None) -> None:
    with pytest.raises(RequestError, match="expected a finite number"):
        hyperbola(0.1, 0.1, l2=l2, norm=limit)


def test_a_coefficient_of_zero_is_no_regulariser() -> None:
    report = check(hyperbola(0.3, 0.4, epsilon=3.0, l2=0.0))
    assert report.regularized is None
    assert report.theorem1.applies


# --- Definition 1 and the theorems ------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"l2": 0.25}, {"norm": 5.0}])
def test_the_theorems_do_not_apply_and_say_why(options: dict[str, float]) -> None:
    report = check(hyperbola(0.3, 0.4, epsilon=3.0, **options))
    for theorem in (report.theorem1, report.theorem2, report.theorem3):
        assert theorem.applies is False
        assert theorem.reason
        assert theorem.holds is None
    with pytest.raises(RequestError, match="Theorem 3 does not apply"):
        bound_constants(hyperbola(0.3, 0.4, epsilon=3.0, **options))


def test_a_certified_stationary_point_of_the_regularised_objective_may_be_above_the_linear_predictor() -> (
    None
):
    report = check(replace(load_problem(CONFIGS / "figure-1b.yaml"), epsilon=0.0))
    assert report.objective.gap.lower > 0.1  # Corollary 1 is not applied to it


def test_corollary_1_is_not_applied_to_a_certified_point_of_another_objective() -> None:
    """x = −3, f = 2, y = 3/2, l2 = ¼: (1, 2) is exactly critical for G, and F = 1/8 where F_lin vanishes."""
    problem = Problem.from_arrays(x=[[-3.0]], y=[1.5], f=[[2.0]], w=[1.0], V=[[2.0]], l2=0.25)
    report = check(problem)
    assert report.verdict is Verdict.CERTIFIED
    assert report.objective.gap.lower == pytest.approx(0.125)
    assert report.corollary1.verdict is Verdict.REFUTED


def test_gap_bounds_stay_those_of_the_network_objective() -> None:
    free, held = check(hyperbola(0.3, 0.4, epsilon=3.0)), check(hyperbola(0.3, 0.4, epsilon=3.0, l2=0.25))
    assert held.gap_bounds == free.gap_bounds
    assert held.objective == free.objective
    assert held.corollary1 == free.corollary1


def test_ball_arithmetic_decides_a_tie_of_the_regularised_gradient() -> None:
    """At (0, 2) with l2 = 1, ∇G = (−h, 2·l2·V) = (−3, 4): its norm is 5 exactly."""
    tie = hyperbola(0.0, 2.0, l2=1.0, epsilon=5.0)
    assert check(tie, escalate=False).gradient.verdict is Verdict.UNDECIDED
    assert check(tie).verdict is Verdict.CERTIFIED
    assert check(replace(tie, epsilon=math.nextafter(5.0, 0.0))).verdict is Verdict.REFUTED


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("seed", range(2))
def test_ball_arithmetic_agrees_with_the_oracle_on_regularised_problems(loss: str, seed: int) -> None:
    sample = replace(make("gaussian", seed), loss=loss)
    if loss == "logistic":
        sample = replace(sample, y=np.where(sample.y > 0.0, 1.0, -1.0))
    truth = Truth(sample)
    problem = to_problem(sample, l2=0.125)
    true = truly(truth, problem)
    eps = float(true["gradient_norm"].mid())
    m = -float(smallest_eigenvalue(true["hessian"]).mid())
    for off in (1.0 - 1e-15, 1.0 + 1e-15):
        mu2 = (m * off) ** 2 / eps if m > 0.0 else 1.0
        there = replace(problem, epsilon=eps * off, lipschitz=replace(problem.lipschitz, mu2=mu2))
        report = check(there, arithmetic="ball")
        with ctx.workprec(BITS):
            within = true["gradient_norm"] <= arb(there.epsilon)
            curved = smallest_eigenvalue(true["hessian"]) >= -((arb(mu2) * arb(there.epsilon)).sqrt())
        assert report.gradient.verdict is (Verdict.CERTIFIED if within else Verdict.REFUTED)
        assert report.hessian.verdict is (Verdict.CERTIFIED if curved else Verdict.REFUTED)


def test_what_is_only_for_plain_problems_is_refused(tmp_path: Path) -> None:
    from resnet_cert.certificate.writing import write_certificate
    from resnet_cert.search.witness import find_witness

    held = hyperbola(0.3, 0.4, norm=5.0)
    with pytest.raises(RequestError, match="expected no constraint for ball arithmetic"):
        check(held, arithmetic="ball")
    examination = examine(held)
    assert examination.report.verdict is Verdict.REFUTED
    with pytest.raises(RequestError, match="expected no regularizer and no constraint for a witness"):
        find_witness(examination)
    with pytest.raises(RequestError, match="expected no regularizer and no constraint for a certificate"):
        write_certificate(tmp_path / "c.json", examination.problem, examination.report)
    assert not list(tmp_path.iterdir())


# --- The best linear predictor ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("l2", [1e-6, 0.25, 100.0])
def test_ridge_regression_has_the_value_of_its_normal_equations(seed: int, l2: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(9, 3)), rng.normal(size=9)
    problem = Problem.from_arrays(x=x, y=y, f=np.ones((9, 1)), w=np.ones(3), V=np.zeros((3, 1)), l2=l2)
    w = np.linalg.solve(x.T @ x / 9 + 2.0 * l2 * np.eye(3), x.T @ y / 9)
    value = 0.5 * np.mean((x @ w - y) ** 2) + l2 * float(w @ w)
    found = objective_lin_min(problem, 1.0, Enclosure.exact(0.0))
    assert found.lower <= value * (1.0 + 1e-14)
    assert found.upper >= value * (1.0 - 1e-14)
    assert found.upper - found.lower < 1e-13 * (1.0 + value)


def test_a_tiny_regularizer_leaves_the_best_value_at_v_0_enclosed() -> None:
    problem = Problem.from_arrays(x=[[1.0]], y=[1.0], f=[[1.0]], w=[0.0], V=[[-1.0]], l2=1e-300)
    found = objective_lin_min(problem, 1.0, Enclosure.exact(0.0))
    assert 0.0 <= found.lower <= 1e-300 <= found.upper < 1e-15


@pytest.mark.parametrize("l2", [None, 0.25])
def test_the_best_linear_predictor_on_the_ball_has_the_value_of_a_scan(l2: float | None) -> None:
    """F_lin(u) = ½(2u − 3)² on |u| ≤ 1: the minimum is at u = 1."""
    problem = Problem.from_arrays(x=[[2.0]], y=[3.0], f=[[1.0]], w=[0.1], V=[[0.1]], l2=l2, norm=1.0)
    found = objective_lin_min(problem, 1.0, Enclosure.exact(0.0))
    assert found.lower <= 0.5 + (l2 or 0.0) <= found.upper
    assert found.upper - found.lower < 1e-12


def test_wherever_the_optimiser_stops_the_lower_end_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """F_lin + ½u² = ½(u − 1)² + ½u² has the minimum ¼."""
    problem = Problem.from_arrays(x=[[1.0]], y=[1.0], f=[[1.0]], w=[0.1], V=[[0.1]], l2=0.5)

    def stopped_early(*arguments: Any) -> Any:
        found = minimum_on_ball(*arguments)
        return replace(found, w_star=Ball(found.w_star.center + 0.1, 0.0))

    monkeypatch.setattr(regularized, "minimum_on_ball", stopped_early)
    found = objective_lin_min(problem, 1.0, Enclosure.exact(0.0))
    assert found.lower <= 0.25 < found.upper
    assert found.lower == pytest.approx(0.25 + 0.1**2 - 0.2**2 / 2.0)


@pytest.mark.parametrize("loss", ["logistic", "poisson"])
def test_regularised_minima_of_separable_data_are_attained(loss: str) -> None:
    x, y = [[1.0], [2.0]], [1.0, 1.0] if loss == "logistic" else [0.0, 0.0]
    problem = Problem.from_arrays(x=x, y=y, f=[[1.0], [1.0]], w=[0.1], V=[[0.1]], loss=loss, l2=0.01)
    u = np.linspace(-20.0, 20.0, 400001)
    p = np.outer(x, u)
    values = (np.logaddexp(0.0, -p) if loss == "logistic" else np.exp(p)).mean(axis=0) + 0.01 * u**2
    found = objective_lin_min(problem, 1.0, Enclosure.exact(0.0))
    assert found.lower <= values.min()
    assert found.upper == pytest.approx(values.min(), abs=1e-8)
    assert found.upper - found.lower < 1e-10


# --- Proposition R ----------------------------------------------------------------------------------------


def descended(problem: Problem) -> Problem:
    """A critical point of the regularised objective near the problem's, by Newton steps on autodiff."""
    from resnet_cert.decide.objective import objective
    from resnet_cert.numerics.jax64 import jax

    chunk = next(problem.chunks())
    d, k, n = problem.d, problem.k, problem.n
    weight = np.full(n, 1.0 / n)

    def G(z: Any) -> Any:
        w, V = z[:d], z[d:].reshape(d, k)
        return objective(w, V, chunk.x, chunk.f, chunk.y, weight, problem.loss, problem.l2)

    gradient, hessian, value = jax.jit(jax.grad(G)), jax.jit(jax.hessian(G)), jax.jit(G)
    z = np.concatenate([problem.point.w, problem.point.V.ravel()])
    for _ in range(200):
        g, H = np.asarray(gradient(z)), np.asarray(hessian(z))
        eigenvalues, Q = np.linalg.eigh(H)
        step = -Q @ ((Q.T @ g) / np.maximum(np.abs(eigenvalues), 1e-6))
        size = 1.0
        while size > 1e-6 and float(value(z + size * step)) > float(value(z)):
            size /= 2.0
        z = z + size * step
        if np.linalg.norm(g) < 1e-14:
            break
    return replace(problem, point=Point(z[:d], z[d:].reshape(d, k)))


@pytest.mark.parametrize("seed", range(6))
def test_proposition_R_is_an_identity_at_critical_points(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, d, k = 7, int(rng.integers(1, 4)), int(rng.integers(1, 4))
    start = Problem.from_arrays(
        x=rng.normal(size=(n, d)),
        y=rng.normal(size=n),
        f=rng.normal(size=(n, k)),
        w=rng.normal(size=d),
        V=rng.normal(size=(d, k)),
        loss="pseudo_huber",
        l2=0.01,
    )
    at = descended(start)
    w, V, lam = at.point.w, at.point.V, 2.0 * 0.01
    assert judged(at).gradient_norm.upper < 1e-12
    assert np.linalg.norm(w) > 1e-3  # not the trivial critical point
    chunk = next(at.chunks())
    for w_star in rng.normal(size=(5, d)):
        p, q = (chunk.x + chunk.f @ V.T) @ w, chunk.x @ w_star

        def ell(p: Any, y: Any = chunk.y) -> Any:
            return np.sqrt(1.0 + (p - y) ** 2) - 1.0

        first = (p - chunk.y) / np.sqrt(1.0 + (p - chunk.y) ** 2)
        gap, D = np.mean(ell(p) - ell(q)), np.mean(ell(q) - ell(p) - first * (q - p))
        ratio = float(np.sum(V**2)) / float(w @ w)
        right = -lam * float(w @ w) + lam * float(w_star @ w) * (1.0 - ratio) - D
        assert gap == pytest.approx(right, abs=1e-10)


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_proposition_R_bounds_the_gap_at_every_point(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sample = make("gaussian", seed)
    truth, rho = Truth(sample), float(10.0 ** rng.uniform(-3, 2))
    w, V, w_star = sample.w, sample.V, rng.normal(size=len(sample.w))
    F = float(truth.F.mid())
    F_lin = float(Truth(replace(sample, w=w_star, V=np.zeros_like(V))).F.mid())
    z = np.concatenate([w, V.ravel()])
    gradient = np.array([float(g.mid()) for g in truth.gradient]) + rho * z
    numbers = (
        rho,
        np.linalg.norm(w),
        w_star @ w,
        (V.T @ w_star) @ (V.T @ w),
        np.linalg.norm(gradient),
        np.linalg.norm(w - w_star),
        np.linalg.norm(V.T @ w_star),
    )
    bound = proposition_R(*(Enclosure.exact(float(x)) for x in numbers))
    assert F - F_lin <= bound.upper + 1e-9 * (1.0 + abs(bound.upper) + abs(F) + abs(F_lin))


@pytest.mark.parametrize("name", ["figure-1b", "figure-1c"])
def test_proposition_R_bounds_the_gap_of_the_pictures(name: str) -> None:
    report = check(load_problem(CONFIGS / f"{name}.yaml"))
    assert report.regularized is not None
    assert report.regularized.proposition_R is not None
    # −ρ‖w‖² + ρ(w*w)(1 − v²/w²) at w* = 1, and E[D] = (w* − p)² closes it: gap = bound − r².
    r = report.objective.F
    assert (report.regularized.proposition_R - r).value == pytest.approx(
        report.objective.gap.value, abs=1e-12
    )


def test_proposition_R_does_not_speak_of_w_0() -> None:
    report = check(hyperbola(0.0, 1.0, epsilon=9.0, l2=0.5))
    assert report.regularized is not None
    assert report.regularized.proposition_R is None
    one = Enclosure.exact(1.0)
    with pytest.raises(ValueError, match="expected w != 0"):
        proposition_R(one, Enclosure.exact(0.0), one, one, one, one, one)


# --- The pictures of the paper: every digit that is shown -------------------------------------------------


def shown(enclosure: Enclosure | None, digits: str) -> bool:
    """The enclosed number, rounded to as many decimals, reads like that."""
    assert enclosure is not None
    places = len(digits.split(".")[1])
    return f"{enclosure.lower:.{places}f}" == digits == f"{enclosure.upper:.{places}f}"


def test_the_saddle_of_the_first_picture() -> None:
    report = check(load_problem(CONFIGS / "figure-1a.yaml"))
    assert shown(report.objective.F, "1.00000000")
    assert shown(report.hessian.lambda_min, "-2.00000000")
    assert report.verdict is Verdict.REFUTED


@pytest.mark.parametrize(
    ("w", "v", "objective", "F", "verdict"),
    [
        (0.65962771058362520, 0.327712943338325966, "0.15105269", "0.01542657", Verdict.CERTIFIED),
        (-0.27251826753944008, -1.06944376907882471, "1.26700280", "0.96250875", Verdict.REFUTED),
        (-0.98280626270813788, -1.60268225251807576, "1.04982771", "0.16620307", Verdict.CERTIFIED),
    ],
)
def test_the_critical_points_of_the_second_picture(
    w: float, v: float, objective: str, F: str, verdict: Verdict
) -> None:
    problem = load_problem(CONFIGS / "figure-1b.yaml")
    report = check(replace(problem, point=Point(np.array([w]), np.array([[v]]))))
    assert report.verdict is verdict
    assert report.gradient.norm.upper < 1e-13
    assert report.regularized is not None
    assert shown(report.regularized.objective, objective)
    assert shown(report.objective.F, F)
    assert shown(report.regularized.objective_lin_min, "0.20000000")


def test_the_constrained_minimum_of_the_third_picture() -> None:
    problem = load_problem(CONFIGS / "figure-1c.yaml")
    assert f"{problem.point.w[0]:.8f}, {problem.point.V[0, 0]:.8f}" == "-1.07560665, -1.68614066"
    report = check(problem)
    assert report.regularized is not None
    assert shown(report.objective.F, "0.06863485")
    assert shown(report.regularized.multiplier, "0.33424277")
    assert shown(report.regularized.objective_lin_min, "0.00000000")
    assert report.regularized.active


def test_a_regulariser_and_a_constraint_are_fields_of_the_problem() -> None:
    problem = hyperbola(0.1, 0.1, l2=0.5, norm=3.0)
    assert problem.regularizer == Regularizer(0.5)
    assert problem.constraint == Constraint(3.0)
    assert not problem.is_plain
    assert hyperbola(0.1, 0.1).is_plain
