"""The reduced Hessian of several outputs against dense ones, and its enclosures against ball arithmetic."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from flint import arb, ctx
from vector_autodiff import derivatives
from vector_families import CORNERS, LOSSES, draw
from vector_oracle import BITS, VectorSample, VectorTruth

from resnet_cert.decide.hessian import Curvature, Direction
from resnet_cert.numerics.enclosure import Ball, Enclosure
from resnet_cert.numerics.matrices import (
    largest_singular_value,
    least_solution,
    nuclear_norm,
    smallest_singular_value,
)
from resnet_cert.vector.hessian import (
    Reduction,
    curvature,
    hessian_exceeds,
    rayleigh_quotient,
    reduced_hessian,
    reduction,
)
from resnet_cert.vector.moments import observe


@pytest.fixture(autouse=True)
def _precision():
    with ctx.workprec(BITS):
        yield


def parts_of(sample: VectorSample) -> Reduction:
    return reduction(observe(sample.problem(), 1.0).here, sample.W)


def holds(ours: Enclosure, truth: arb) -> bool:
    return not truth < arb(ours.lower) and not truth > arb(ours.upper)


# --- The reduction ------------------------------------------------------------------------------------------


def spectrum_error(sample: VectorSample) -> float:
    """How far the reduced spectrum and its zeros are from the dense one, by the largest eigenvalue."""
    parts = parts_of(sample)
    zeros = np.zeros(curvature(parts).zero_multiplicity)
    ours = np.sort(np.concatenate([np.linalg.eigvalsh(reduced_hessian(parts)[0]), zeros]))
    dense = np.linalg.eigvalsh(derivatives(sample, sample.W, sample.V)[2])
    assert len(ours) == len(dense) == sample.W.size + sample.V.size
    return float(np.max(np.abs(ours - dense))) / max(1.0, float(np.max(np.abs(dense))))


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize(("d", "k", "q"), [(3, 4, 2), (2, 3, 4), (1, 2, 3), (4, 1, 1), (3, 2, 3)])
def test_the_reduced_spectrum_is_that_of_the_dense_hessian(corner: str, d: int, k: int, q: int) -> None:
    loss = LOSSES[CORNERS.index(corner) % len(LOSSES)]
    assert spectrum_error(draw(5, corner, loss, d=d, k=k, q=q, n=6)) <= 1e-10


@pytest.mark.parametrize("loss", LOSSES)
def test_the_reduced_spectrum_is_that_of_the_dense_hessian_for_every_loss(loss: str) -> None:
    assert spectrum_error(draw(6, "generic", loss, d=4, k=3, q=2, n=8)) <= 1e-10
    assert spectrum_error(draw(6, "hard labels", loss, d=2, k=3, q=3, n=8)) <= 1e-10


@pytest.mark.long
@pytest.mark.parametrize("corner", CORNERS)
def test_many_reduced_spectra_are_those_of_dense_hessians(corner: str) -> None:
    for seed in range(100, 140):
        assert spectrum_error(draw(seed, corner)) <= 1e-10


def test_the_size_of_the_reduced_matrix_and_its_zeros() -> None:
    parts = parts_of(draw(7, "generic", "squared", d=5, k=4, q=2, n=5))
    assert parts.rho == 2
    assert len(reduced_hessian(parts)[0]) == 2 * 5 + 2 * 4 + 3 * 2
    assert curvature(parts).zero_multiplicity == 3 * 2
    none = parts_of(draw(7, "W = 0", "squared", d=5, k=4, q=2, n=5))
    assert none.rho == 0
    assert len(reduced_hessian(none)[0]) == 2 * 5 + 5 * 2
    assert curvature(none).zero_multiplicity == 5 * 2


# --- λ_min --------------------------------------------------------------------------------------------------


def assert_sound(sample: VectorSample, width: float = 1e-9) -> Curvature:
    """λ_min lies in its enclosure, and S(t) proves no t below −λ_min."""
    truth, parts = VectorTruth(sample), parts_of(sample)
    found = curvature(parts)
    assert holds(found.lambda_min, truth.lambda_min)
    size = max(1.0, float(sum(abs(entry) for row in truth.hessian for entry in row).mid()))
    assert found.lambda_min.upper - found.lambda_min.lower <= width * size
    for factor in (1e-14, 1e-9, 1e-3):
        t = -float(truth.lambda_min.mid()) - factor * size
        assert not hessian_exceeds(parts, t)
    return found


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("seed", range(3))
def test_lambda_min_lies_in_its_enclosure(corner: str, seed: int) -> None:
    assert_sound(draw(20 + seed, corner, n=4))


@pytest.mark.long
@pytest.mark.parametrize("corner", CORNERS)
def test_many_smallest_eigenvalues_lie_in_their_enclosures(corner: str) -> None:
    for seed in range(200, 240):
        assert_sound(draw(seed, corner))


@pytest.mark.parametrize("gap", [1e-3, 1e-8, 1e-13, 1e-16, 1e-18, 0.0])
def test_nearly_dependent_rows_of_W_change_nothing(gap: float) -> None:
    sample = draw(9, "generic", "squared", d=3, k=2, q=2, n=4)
    W = np.array([[0.7, -0.2, 0.4], [0.7, -0.2, 0.4 + gap]])
    W[1] *= 3.0
    assert_sound(replace(sample, W=W))


@pytest.mark.parametrize("scale", [1e-100, 1e-8, 1e5, 1e60])
def test_scales_of_W_do_not_matter(scale: float) -> None:
    sample = draw(10, "generic", "squared", d=3, k=2, q=2, n=4)
    assert_sound(replace(sample, W=sample.W * scale), width=1e-7)


def test_lambda_min_is_not_positive_where_rows_of_W_miss_a_direction() -> None:
    assert parts_of(draw(3, "generic", d=3, q=2)).rho == 2
    for corner, q in (("generic", 2), ("W = 0", 3), ("a row of zeros", 3)):
        assert curvature(parts_of(draw(3, corner, d=3, q=q))).lambda_min.upper <= 0.0


def test_a_positive_definite_hessian_is_proven_to_be() -> None:
    sample = VectorSample(
        x=np.array([[1.0], [0.0]]),
        y=np.array([[1.0, 0.0], [0.0, 0.5]]),
        f=np.array([[-1.0], [1.0]]),
        W=np.array([[0.0], [0.5]]),
        V=np.array([[1.0]]),
        loss="weighted_squared",
        omega=np.array([[1.0, 3.0], [3.0, 1.0]]),
    )
    found = assert_sound(sample)
    eigenvalues = np.linalg.eigvalsh(reduced_hessian(parts_of(sample))[0])
    assert eigenvalues == pytest.approx([0.14158384, 0.64353531, 1.71488085], abs=5e-9)
    assert found.lambda_min.lower > 0.1415


@pytest.mark.parametrize("off", [1e-12, 1e-6, 1e-2])
def test_a_basis_that_misses_the_rows_of_W_proves_less_but_nothing_wrong(off: float, monkeypatch) -> None:
    exact = np.linalg.qr
    rng = np.random.default_rng(11)

    def inexact(M: np.ndarray, *arguments: str, **named: str):
        Q, R = exact(M, *arguments, **named)
        return exact(Q + off * rng.normal(size=Q.shape), *arguments, **named)[0], R

    samples = [draw(seed, "generic", "squared", d=4, k=2, q=2, n=4) for seed in range(4)]
    monkeypatch.setattr(np.linalg, "qr", inexact)
    overstated = False
    for sample in samples:
        truth, parts = VectorTruth(sample), parts_of(sample)
        assert parts.missed >= 0.1 * off
        assert arb(curvature(parts).lambda_min.lower) <= truth.lambda_min
        trusting = curvature(replace(parts, missed=0.0))
        overstated = overstated or arb(trusting.lambda_min.lower) > truth.lambda_min
    assert overstated or off < 1e-3


def test_a_skewed_basis_proves_nothing_wrong(monkeypatch) -> None:
    exact = np.linalg.qr

    def skewed(M: np.ndarray, *arguments: str, **named: str):
        Q, R = exact(M, *arguments, **named)
        return (Q if arguments or named else 1.02 * Q), R

    samples = [draw(seed, "generic", "squared", d=4, k=2, q=2, n=4) for seed in range(4)]
    monkeypatch.setattr(np.linalg, "qr", skewed)
    for sample in samples:
        parts = parts_of(sample)
        assert 0.04 < parts.turn < 0.06
        assert arb(curvature(parts).lambda_min.lower) <= VectorTruth(sample).lambda_min


def test_a_rayleigh_quotient_holds_its_value() -> None:
    rng = np.random.default_rng(12)
    for seed in range(6):
        sample = draw(seed, "generic", n=3)
        truth, parts = VectorTruth(sample), parts_of(sample)
        dW, dV = rng.normal(size=sample.W.shape), rng.normal(size=sample.V.shape)
        v = [arb(float(entry)) for entry in np.concatenate([dW.ravel(), dV.ravel()])]
        form = sum((v[i] * v[j] * truth.hessian[i][j] for i in range(len(v)) for j in range(len(v))), arb(0))
        assert holds(rayleigh_quotient(parts, Direction(dW, dV)), form / sum((c * c for c in v), arb(0)))


def test_what_is_not_finite_proves_nothing() -> None:
    sample = draw(13, "generic", "squared", d=2, k=2, q=2, n=3)
    parts = parts_of(sample)
    unknown = replace(parts, Q=Ball(parts.Q.center, math.inf))
    assert not hessian_exceeds(unknown, 1e6)
    assert curvature(unknown).lambda_min.lower == -math.inf


# --- Norms and solutions ------------------------------------------------------------------------------------


def exact_singular_values(M: np.ndarray) -> list[arb]:
    """The singular values from the eigenvalues of the smaller Gram matrix, with 256 bits."""
    from flint import acb_mat, arb_mat

    rows = (M if M.shape[0] <= M.shape[1] else M.T).tolist()
    gram = [[sum((arb(a) * arb(b) for a, b in zip(u, v, strict=True)), arb(0)) for v in rows] for u in rows]
    found = acb_mat(arb_mat(gram)).eig(algorithm="approx")
    return sorted((abs(value.real).sqrt() for value in found), key=float, reverse=True)


def near(ours: Enclosure, truth: arb, width: float) -> bool:
    """Holds the truth, computed to 60 digits or so, and is no wider than `width`."""
    slack = arb(10) ** -40
    inside = truth > arb(ours.lower) - slack and truth < arb(ours.upper) + slack
    return bool(inside) and ours.upper - ours.lower <= width


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 2), (4, 4)])
def test_norms_of_matrices_hold_their_values(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(14)
    for scale in (1.0, 1e-9, 1e8):
        M = rng.normal(size=shape) * scale
        values = exact_singular_values(M)
        assert near(nuclear_norm(Ball(M, 0.0)), sum(values, arb(0)), 1e-12 * scale)
        assert near(largest_singular_value(Ball(M, 0.0)), values[0], 1e-12 * scale)
        sigma = smallest_singular_value(M)
        if shape[0] <= shape[1]:
            assert near(sigma, values[-1], 1e-12 * scale)
            assert sigma.lower > 0.0
        else:
            assert sigma == Enclosure.exact(0.0)
        moved = M + 0.01 * scale * rng.normal(size=shape) / math.sqrt(M.size) / 3.0
        wide = nuclear_norm(Ball(moved, 0.01 * scale))
        assert wide.lower < float(sum(values, arb(0)).mid()) < wide.upper


def test_singular_values_near_zero_are_positive_only_if_proven() -> None:
    for gap in (1e-6, 1e-12):
        W = np.array([[1.0, 1.0], [1.0, 1.0 + gap]])
        sigma = smallest_singular_value(W)
        assert near(sigma, exact_singular_values(W)[-1], 1e-2 * gap)
        assert sigma.lower > 0.0
    for W in (np.array([[1.0, 1.0], [1.0, 1.0]]), np.array([[0.1, 0.3], [0.3, 0.9]]), np.zeros((1, 2))):
        sigma = smallest_singular_value(W)
        truth = exact_singular_values(W)[-1]
        assert arb(sigma.lower) <= truth + arb(10) ** -40
        assert sigma.lower == 0.0 or truth > 1e-18


@pytest.mark.parametrize("scale", [2.0**-1070, 2.0**-1000, 2.0**1000, 2.0**1023])
def test_singular_values_at_the_ends_of_float64_hold_theirs(scale: float) -> None:
    W = np.array([[1.5, 0.0], [0.0, -1.25]]) * scale
    sigma = smallest_singular_value(W)
    assert sigma.lower <= 1.25 * scale <= sigma.upper
    assert sigma.lower > 0.0 or scale < 1e-300


def test_the_least_solution_holds_that_of_exact_arithmetic() -> None:
    from fractions import Fraction

    rng = np.random.default_rng(15)
    for _ in range(10):
        W, M = rng.integers(-9, 10, size=(2, 3)) / 4.0, rng.normal(size=(2, 2))
        sigma = smallest_singular_value(W)
        if not sigma.lower > 0.0:
            continue
        w = [[Fraction(float(e)) for e in row] for row in W]
        a, b, c = (sum(u * v for u, v in zip(w[i], w[j], strict=True)) for i, j in ((0, 0), (0, 1), (1, 1)))
        m = [[Fraction(float(e)) for e in row] for row in M]
        det = a * c - b * b
        Y = [
            [(c * m[0][l] - b * m[1][l]) / det for l in range(2)],
            [(a * m[1][l] - b * m[0][l]) / det for l in range(2)],
        ]
        exact = [[w[0][j] * Y[0][l] + w[1][j] * Y[1][l] for l in range(2)] for j in range(3)]
        X = least_solution(W, Ball(M, 0.0), sigma)
        error = sum((Fraction(float(X.center[j, l])) - exact[j][l]) ** 2 for j in range(3) for l in range(2))
        assert error <= Fraction(X.radius) ** 2
        assert X.radius <= 1e-10 * (1.0 + float(np.linalg.norm(X.center)))
