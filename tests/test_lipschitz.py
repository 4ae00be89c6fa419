"""μ0, μ1, μ2 against their formulas in 50 digits and against difference quotients of F, ∇F, ∇²F."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from families import LOSSES, gaussian, to_problem
from flint import arb, ctx
from hypothesis import given
from hypothesis import strategies as st
from oracle import BITS, Sample, Truth
from oracle_algebra import norm
from oracle_theorems import lipschitz as exact_lipschitz

from resnet_cert.check import with_ball_functions
from resnet_cert.moments.lipschitz import LipschitzConstants, lipschitz_constants, lipschitz_terms
from resnet_cert.moments.one_pass import observe
from resnet_cert.numerics.enclosure import upper_row_norms
from resnet_cert.numerics.jax64 import jax, jnp
from resnet_cert.problem import problem as problem_module
from resnet_cert.problem.losses import BuiltinLoss, named_loss
from resnet_cert.problem.problem import Chunk

Array = np.ndarray


@pytest.fixture(autouse=True)
def _precision():
    with ctx.workprec(BITS):
        yield


def exact_constants(sample: Sample, b: float) -> tuple[arb, arb, arb]:
    exact = exact_lipschitz(Truth(sample), b)
    return exact.mu0, exact.mu1, exact.mu2


def constants(sample: Sample, b: float) -> LipschitzConstants:
    bounds = observe(to_problem(sample), b).lipschitz
    assert bounds is not None
    return bounds


# --- They bound difference quotients ----------------------------------------------------------------------


@cache
def derivatives(loss: str, d: int, k: int) -> tuple[Callable[..., Array], ...]:
    """F, ∇F and ∇²F as functions of (w, V) in one vector."""
    value = named_loss(loss).value

    def F(z, x, f, y):
        w, V = z[:d], z[d:].reshape(d, k)
        return jnp.mean(value((x + f @ V.T) @ w, y))

    return tuple(jax.jit(jax.vmap(g, (0, None, None, None))) for g in (F, jax.grad(F), jax.hessian(F)))


def points_in_the_domain(rng: np.random.Generator, count: int, d: int, k: int, b: float) -> Array:
    """(count, d + dk) points with ‖w‖ ≤ b and ‖V‖ ≤ b, many of them on both boundaries."""
    w, V = rng.normal(size=(count, d)), rng.normal(size=(count, d, k))
    w *= (b * rng.choice([1.0, 0.3], count) / np.linalg.norm(w, axis=1))[:, None]
    V *= (b * rng.choice([1.0, 0.3], count) / np.linalg.norm(V, 2, axis=(1, 2)))[:, None, None]
    return np.concatenate([w, V.reshape(count, -1)], axis=1)


def steepest(loss: str, sample: Sample, b: float, rng: np.random.Generator) -> list[float]:
    """The largest quotient of F, ∇F, ∇²F over random pairs of points, far apart and close together."""
    d, k = sample.V.shape
    z = points_in_the_domain(rng, 300, d, k, b)
    nearby = z * (1.0 - 1e-4 * rng.random((300, 1)))  # towards 0: in the domain, and almost a derivative
    others = (points_in_the_domain(rng, 300, d, k, b), nearby)
    largest = []
    for i, function in enumerate(derivatives(loss, d, k)):
        at = np.asarray(function(z, sample.x, sample.f, sample.y))
        quotients = []
        for other in others:
            change = at - np.asarray(function(other, sample.x, sample.f, sample.y))
            size = np.linalg.norm(change, 2, axis=(1, 2)) if i == 2 else np.abs(change)
            size = np.linalg.norm(change, axis=1) if i == 1 else size
            quotients.append(float(np.max(size / np.linalg.norm(z - other, axis=1))))
        largest.append(max(quotients))
    return largest


@pytest.mark.parametrize("loss", LOSSES)
def test_they_bound_the_difference_quotients_of_F_its_gradient_and_its_hessian(loss):
    rng = np.random.default_rng(1)
    for b in (0.1, 1.0, 3.0):
        for n in (1, 5):  # n = 1 comes closest
            sample = gaussian(rng, n=n, d=2, k=2, losses=(loss,))
            bounds = constants(sample, b)
            for quotient, bound in zip(steepest(loss, sample, b, rng), bounds, strict=True):
                assert quotient <= bound * (1.0 + 1e-7)


def test_in_one_dimension_they_are_nearly_attained():
    """x = y = f = 1, ½(p − y)² at w = b, V = b: |∂F/∂(w, V)| = |ℓ'|J with p = b(1 + b) on the boundary."""
    b, one = 2.0, np.ones((1, 1))
    sample = Sample(one, -np.ones(1), one, np.array([b]), np.array([[b]]))
    gradient = derivatives("squared", 1, 1)[1](np.array([[b, b]]), sample.x, sample.f, sample.y)
    assert constants(sample, b).mu0 == pytest.approx(float(np.linalg.norm(gradient)), rel=1e-12)


# --- They are their formulas ------------------------------------------------------------------------------


@pytest.mark.parametrize("b", [1e-3, 0.5, 2.0])
@pytest.mark.parametrize("loss", LOSSES)
def test_they_are_their_formulas_rounded_up(loss, b):
    rng = np.random.default_rng(2)
    for _ in range(5):
        sample = replace(gaussian(rng, losses=(loss,)), scale=float(rng.choice([1.0, 0.3])))
        for ours, exact in zip(constants(sample, b), exact_constants(sample, b), strict=True):
            assert exact <= arb(ours)
            assert arb(ours) <= exact * (1 + arb(10) ** -9) + arb(10) ** -300


def test_they_are_rounded_up_where_an_exponential_magnifies_every_rounding():
    rng = np.random.default_rng(8)
    for _ in range(300):
        sample = gaussian(rng, n=1, d=3, k=2, losses=("poisson",))
        reach = float(np.linalg.norm(sample.x) + np.linalg.norm(sample.f))
        reach /= 600.0  # b = 1 and w = 0: |p| ≤ 600 on the domain
        scaled = replace(sample, x=sample.x / reach, f=sample.f / reach, w=np.zeros(3))
        for ours, exact in zip(constants(scaled, 1.0), exact_constants(scaled, 1.0), strict=True):
            assert exact <= arb(ours) <= exact * (1 + arb(10) ** -9)


def test_they_are_rounded_up_where_most_squares_of_a_norm_are_lost_one_by_one():
    x = np.full((1, 40_000), 600.0 * math.sqrt(0.9 * 2.0**-54))
    x[0, 0] = 600.0
    chunk = Chunk(x, np.zeros(1), np.zeros((1, 1)), None)
    terms = lipschitz_terms(BuiltinLoss("poisson"), chunk, upper_row_norms(x), np.zeros(1), 1.0)
    assert terms is not None
    length = norm([arb(float(entry)) for entry in x[0]])
    for i, mu in enumerate(lipschitz_constants(terms, 1.0, 1)):  # f = 0 and y = 0: L = e^{‖x‖}, J = ‖x‖
        exact = length.exp() * length ** (i + 1)
        assert exact <= arb(mu) <= exact * (1 + arb(10) ** -8)


@pytest.mark.parametrize(
    ("loss", "scale", "x", "y", "f", "b"),
    [
        ("squared", 1.0, 1e-170, 1.0, 1e10, 1e-180),  # J² underflows, J does not
        ("squared", 1.0, 1e-200, 1.0, 1e-200, 1.0),  # all that is in μ2 underflows
        ("squared", 1e300, 0.0, 1.0, 1e-150, 1e-200),  # b‖f‖ underflows, beside a large scale
        ("squared", 1.0, 1e110, 1.0, 1.0, 1.0),  # J³ overflows, and has the factor 0
        ("poisson", 1.0, 1e-110, 1.0, 0.0, 6e112),  # J³ underflows, beside a large e^P
        ("logistic", 1e-320, 1e100, 1.0, 0.0, 1.0),  # scale·L3 has few bits, beside a large J³
        ("pseudo_huber", 1.0, 1e150, 1e120, 0.0, 1e-40),  # L2 and L3 underflow, beside a large J
    ],
)
def test_no_underflow_takes_them_below_their_formulas(loss, scale, x, y, f, b):
    one = Sample(
        np.array([[x]]), np.array([y]), np.array([[f]]), np.zeros(1), np.zeros((1, 1)), loss, scale=scale
    )
    with np.errstate(over="ignore"):
        bounds = constants(one, b)
    for ours, exact in zip(bounds, exact_constants(one, b), strict=True):
        assert exact <= arb(ours)
        assert math.isfinite(ours)


@pytest.mark.parametrize("loss", LOSSES)
def test_in_ball_arithmetic_they_assume_nothing_of_numpys_elementary_functions(loss, monkeypatch):
    def forbidden(*_: object) -> None:
        raise AssertionError("an elementary function of NumPy")

    problem = to_problem(gaussian(np.random.default_rng(9), losses=(loss,)))
    problem = replace(problem, loss=with_ball_functions(problem.loss))
    for name in ("exp", "expm1", "log1p", "hypot", "power"):
        monkeypatch.setattr(np, name, forbidden)
    assert observe(problem, 0.5).lipschitz is not None


def test_weights_count():
    rng = np.random.default_rng(3)
    weights = np.arange(1.0, 9.0) / 36.0
    sample = replace(gaussian(rng, n=8, losses=("logistic",)), probabilities=weights)
    for ours, exact in zip(constants(sample, 1.5), exact_constants(sample, 1.5), strict=True):
        assert exact <= arb(ours) <= exact * (1 + arb(10) ** -9)


def test_chunks_do_not_change_them_by_more_than_roundings(monkeypatch):
    sample = gaussian(np.random.default_rng(4), n=3000, d=2, k=2, losses=("pseudo_huber",))
    whole = constants(sample, 1.0)
    monkeypatch.setattr(problem_module, "CHUNK_BYTES", 1)
    assert constants(sample, 1.0) == pytest.approx(whole, rel=1e-11)


@given(b=st.floats(0.01, 3.0), more=st.floats(1.0, 2.0))
def test_a_larger_domain_never_has_smaller_constants(b, more):
    sample = gaussian(np.random.default_rng(5), n=4, losses=("logistic",))
    assert all(x <= y for x, y in zip(constants(sample, b), constants(sample, b * more), strict=True))


def test_without_features_and_inputs_they_are_zero():
    sample = gaussian(np.random.default_rng(6), n=3, d=2, k=2, losses=("squared",))
    nothing = replace(sample, x=np.zeros((3, 2)), f=np.zeros((3, 2)))
    assert constants(nothing, 1.0) == (0.0, 0.0, 0.0)


def test_a_loss_without_suprema_has_none():
    class Unknown:
        def suprema(self, reach: Array, y: Array) -> None:
            return None

    chunk = next(to_problem(gaussian(np.random.default_rng(7), n=3, d=1, k=1)).chunks())
    assert lipschitz_terms(Unknown(), chunk, np.ones(3), np.ones(3), 1.0) is None


def test_they_are_sums_over_the_total_weight_rounded_up():
    mus = lipschitz_constants(np.array([1.0, 0.0, 3.0]), 3.0, 1)
    assert 1.0 / 3.0 <= mus.mu0 <= 1.0 / 3.0 * (1 + 1e-14)
    assert mus.mu1 == 0.0
    assert 1.0 <= mus.mu2 <= 1.0 + 1e-14
