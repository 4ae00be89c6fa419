"""Autodiff of F as the paper writes it against closed forms, differences and exact derivatives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from families import LOSSES, gaussian, to_problem
from flint import ctx
from oracle import BITS, Sample, Truth
from oracle_algebra import dot, smallest_eigenvalue

from resnet_cert.decide import objective as objective_module
from resnet_cert.decide.hessian import Direction
from resnet_cert.decide.objective import Autodiff, autodiff, objective
from resnet_cert.numerics.jax64 import jnp
from resnet_cert.problem import problem as problem_module
from resnet_cert.problem.losses import BuiltinLoss
from resnet_cert.problem.problem import Problem, Regularizer

Array = np.ndarray


@pytest.fixture(autouse=True)
def _precision():
    with ctx.workprec(BITS):
        yield


def random_direction(rng: np.random.Generator, sample: Sample) -> Direction:
    return Direction(rng.normal(size=sample.w.shape), rng.normal(size=sample.V.shape))


def F(sample: Sample, w: Array, V: Array) -> float:
    """Σ_i ℓ_i / n by the definition."""
    weight = np.full(len(sample.y), 1.0 / len(sample.y))
    return float(objective(w, V, sample.x, sample.f, sample.y, weight, BuiltinLoss(sample.loss)))


def agrees(ours: Autodiff, other: Autodiff, tolerance: float = 1e-13) -> bool:
    numbers = [(ours.gradient_norm, other.gradient_norm), (ours.curvature, other.curvature)]
    if ours.lambda_min is None or other.lambda_min is None:
        assert ours.lambda_min is other.lambda_min
    else:
        numbers.append((ours.lambda_min, other.lambda_min))
    return all(abs(one - two) <= tolerance * (1.0 + abs(two)) for one, two in numbers)


# --- The objective itself ---------------------------------------------------------------------------------


def test_example_1_is_half_a_square():
    eps, one = 0.1, np.ones((1, 1))
    for w, v in ((0.0, -10.0), (1.0, 0.0), (0.7, 2.0)):
        value = objective(
            jnp.array([w]), v * one, one, eps * one, np.ones(1), np.ones(1), BuiltinLoss("squared")
        )
        assert float(value) == pytest.approx(0.5 * (w * (1.0 + eps * v) - 1.0) ** 2, rel=1e-15)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_objective_is_the_expected_loss(loss):
    sample = gaussian(np.random.default_rng(1), n=6, d=3, k=2, losses=(loss,))
    assert F(sample, sample.w, sample.V) == pytest.approx(float(Truth(sample).F.mid()), rel=1e-13)


# --- Its derivatives --------------------------------------------------------------------------------------


def exact(sample: Sample, direction: Direction) -> Autodiff:
    truth = Truth(sample)
    z = [truth.number(e) for e in np.concatenate([direction.dw, direction.dV.ravel()])]
    along = dot(z, [dot(row, z) for row in truth.hessian]) / dot(z, z)
    return Autodiff(*(float(x.mid()) for x in (truth.norm, along, smallest_eigenvalue(truth.hessian))))


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_curvature_and_lambda_min_are_the_exact_ones(loss):
    rng = np.random.default_rng(2)
    sample = gaussian(rng, n=6, d=3, k=2, losses=(loss,))
    weights = np.arange(1.0, 7.0) / 21.0
    for changes in ({}, {"w": np.zeros(3)}, {"V": np.zeros((3, 2))}, {"probabilities": weights}):
        changed, direction = replace(sample, **changes), random_direction(rng, sample)
        assert agrees(autodiff(to_problem(changed), direction), exact(changed, direction))


def exact_derivatives(sample: Sample) -> tuple[Array, Array, Array]:
    """(w, V) in one vector, ∇F and ∇²F."""
    truth = Truth(sample)
    gradient = np.array([float(entry.mid()) for entry in truth.gradient])
    H = np.array([[float(entry.mid()) for entry in row] for row in truth.hessian])
    return np.concatenate([sample.w, sample.V.ravel()]), gradient, H


def test_a_regulariser_adds_a_multiple_of_the_point_and_of_the_identity():
    rng = np.random.default_rng(11)
    sample = gaussian(rng, n=6, d=3, k=2, losses=("squared",))
    z, gradient, H = exact_derivatives(sample)
    gradient, H = gradient + 0.5 * z, H + 0.5 * np.eye(len(z))
    direction = random_direction(rng, sample)
    u = np.concatenate([direction.dw, direction.dV.ravel()])
    expected = Autodiff(float(np.linalg.norm(gradient)), u @ H @ u / (u @ u), float(np.linalg.eigvalsh(H)[0]))
    problem = replace(to_problem(sample), regularizer=Regularizer(0.25))
    assert agrees(autodiff(problem, direction), expected)


@pytest.mark.parametrize("outward", [True, False])
def test_on_the_boundary_of_a_ball_the_lagrangian_is_differentiated(outward):
    rng = np.random.default_rng(12)
    sample = gaussian(rng, n=6, d=3, k=2, losses=("squared",))
    p = (sample.x + sample.f @ sample.V.T) @ sample.w
    along = p + sample.f @ sample.V.T @ sample.w  # the derivative of p along (w, V)
    sample = replace(sample, y=p + along if outward else p - along)
    z, gradient, H = exact_derivatives(sample)
    assert (gradient @ z < 0.0) is np.bool_(outward)
    direction = random_direction(rng, sample)
    u = np.concatenate([direction.dw, direction.dV.ravel()])
    mu = -float(gradient @ z) / float(z @ z) if outward else 0.0
    gradient, H = gradient + mu * z, H + mu * np.eye(len(z))
    off = np.linalg.svd(z[None, :])[2][1:].T  # an orthonormal basis of z^⊥
    for tangent, M in ((False, H), (True, off.T @ H @ off)):
        length, along, least = np.linalg.norm(gradient), u @ H @ u / (u @ u), np.linalg.eigvalsh(M)[0]
        ours = autodiff(to_problem(sample), direction, on_boundary=True, tangent=tangent)
        assert agrees(ours, Autodiff(float(length), float(along), float(least)), 1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_and_curvature_are_the_limits_of_differences(loss):
    rng = np.random.default_rng(3)
    sample = gaussian(rng, n=6, d=3, k=2, losses=(loss,))
    direction, h = random_direction(rng, sample), 1e-4
    length = float(np.sqrt(np.sum(direction.dw**2) + np.sum(direction.dV**2)))

    def along(t: float) -> float:
        return F(sample, sample.w + t * direction.dw / length, sample.V + t * direction.dV / length)

    second = (along(h) - 2.0 * along(0.0) + along(-h)) / h**2
    ours = autodiff(to_problem(sample), direction)
    assert ours.curvature == pytest.approx(second, abs=1e-5 * (1.0 + abs(second)))
    partial = []
    for j in range(3):
        e = h * np.eye(3)[j]
        partial.append((F(sample, sample.w + e, sample.V) - F(sample, sample.w - e, sample.V)) / (2 * h))
    for j in range(3):
        for l in range(2):
            E = np.zeros((3, 2))
            E[j, l] = h
            partial.append((F(sample, sample.w, sample.V + E) - F(sample, sample.w, sample.V - E)) / (2 * h))
    assert ours.gradient_norm == pytest.approx(float(np.linalg.norm(partial)), rel=1e-6)


def test_the_length_of_the_direction_does_not_matter():
    rng = np.random.default_rng(4)
    sample = gaussian(rng, n=6, d=3, k=2, losses=("squared",))
    direction = random_direction(rng, sample)
    longer = Direction(direction.dw * 1e6, direction.dV * 1e6)
    problem = to_problem(sample)
    assert agrees(autodiff(problem, longer), autodiff(problem, direction))


def test_along_no_direction_there_is_no_curvature():
    sample = gaussian(np.random.default_rng(5), n=6, d=3, k=2, losses=("squared",))
    assert autodiff(to_problem(sample), Direction(np.zeros(3), np.zeros((3, 2)))).curvature == 0.0


# --- Rows, weights and sizes ------------------------------------------------------------------------------


def test_chunks_and_padding_do_not_change_the_results(monkeypatch):
    rng = np.random.default_rng(6)
    sample = gaussian(rng, n=700, d=2, k=1, losses=("logistic",))
    problem, direction = to_problem(sample), random_direction(rng, sample)
    whole = autodiff(problem, direction)
    monkeypatch.setattr(problem_module, "CHUNK_BYTES", 1)
    assert problem.chunk_rows == 512  # so that the last rows are padded
    assert agrees(autodiff(problem, direction), whole, 1e-11)
    monkeypatch.setattr(objective_module, "TANGENT_ENTRIES", 4 * 2 * 100)  # 100 rows at a time
    assert agrees(autodiff(problem, direction), whole, 1e-11)


def _wide(d: int, k: int, n: int = 1) -> Problem:
    rng = np.random.default_rng(8)
    return Problem.from_arrays(
        x=rng.normal(size=(n, d)),
        y=rng.normal(size=n),
        f=rng.normal(size=(n, k)),
        w=rng.normal(size=d),
        V=rng.normal(size=(d, k)),
    )


@pytest.mark.parametrize(
    ("d", "k", "dense"), [(8, 63, True), (512, 0, True), (27, 18, False), (1, 512, False)]
)
def test_the_hessian_is_dense_for_up_to_512_parameters(d, k, dense):
    if k == 0:
        d, k = d // 2, 1  # d(1 + k) = 512
    assert (d * (1 + k) <= 512) is dense
    direction = Direction(np.ones(d), np.ones((d, k)))
    ours = autodiff(_wide(d, k), direction)
    assert (ours.lambda_min is not None) is dense
    assert np.isfinite([ours.gradient_norm, ours.curvature]).all()


def test_the_hessian_is_not_dense_where_that_takes_too_long(monkeypatch):
    rng = np.random.default_rng(10)
    sample = gaussian(rng, n=6, d=3, k=2, losses=("squared",))
    problem, direction = to_problem(sample), random_direction(rng, sample)
    whole = autodiff(problem, direction)
    monkeypatch.setattr(objective_module, "DENSE_WORK", 6 * 81 - 1)
    without = autodiff(problem, direction)
    assert without.lambda_min is None
    assert without.gradient_norm == pytest.approx(whole.gradient_norm, rel=1e-13)
    assert without.curvature == pytest.approx(whole.curvature, rel=1e-13)


def test_a_hessian_that_overflows_has_no_lambda_min():
    sample = gaussian(np.random.default_rng(9), n=6, d=3, k=2, losses=("poisson",))
    w = 1e3 * sample.x[0] / float(sample.x[0] @ sample.x[0])  # e^1000
    problem = to_problem(replace(sample, w=w, V=np.zeros((3, 2))))
    ours = autodiff(problem, Direction(np.ones(3), np.ones((3, 2))))
    assert ours.lambda_min is None
    assert not np.isfinite(ours.gradient_norm)
