"""Singular values, nuclear norms and least solutions against balls of 400 bits, at every scale."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from flint import acb_mat, arb, arb_mat, ctx

from resnet_cert.numerics import matrices
from resnet_cert.numerics.enclosure import Ball, Enclosure
from resnet_cert.numerics.matrices import (
    largest_singular_value,
    least_solution,
    nuclear_norm,
    smallest_singular_value,
)
from resnet_cert.numerics.radius import UNBOUNDED, Radius

Array = np.ndarray
SCALES = [5e-324, 1e-310, 1e-200, 1e-100, 1.0, 1e100, 1e200, 1e307]
SHAPES = [(1, 1), (1, 4), (4, 1), (2, 2), (2, 5), (5, 2), (4, 4)]
BITS = 400


@pytest.fixture(autouse=True)
def _precision() -> Iterator[None]:
    with ctx.workprec(BITS):
        yield


def holds(ours: Enclosure, truth: arb) -> bool:
    return not (truth < arb(ours.lower) or truth > arb(ours.upper))


def singular_values(M: arb_mat) -> list[arb]:
    """All of them, in ascending order, from the eigenvalues of the smaller Gram matrix."""
    size = sum((abs(entry) for entry in M.entries()), arb(0)).mid()
    rows, columns = M.nrows(), M.ncols()
    if size == 0:
        return [arb(0)] * min(rows, columns)
    scaled = M * (1 / size)
    gram = scaled * scaled.transpose() if rows <= columns else scaled.transpose() * scaled
    entries = acb_mat(arb_mat([[gram[i, j].mid() for j in range(gram.ncols())] for i in range(gram.nrows())]))
    eigenvalues = sorted((z.real.mid() for z in entries.eig(algorithm="approx")), key=float)
    return [size * arb(t.max(arb(0)).mid(), arb(2) ** -300).sqrt() for t in eigenvalues]


def exact(M: Array) -> arb_mat:
    return arb_mat([[arb(float(entry)) for entry in row] for row in M])


def matrices_of(rng: np.random.Generator, shape: tuple[int, int]) -> Iterator[Array]:
    M = rng.normal(size=shape)
    yield M
    yield np.outer(M[:, 0], rng.integers(1, 5, shape[1]))  # rank one, up to rounding
    yield np.outer(rng.integers(1, 9, shape[0]), rng.integers(1, 9, shape[1])).astype(float)  # rank one
    yield M * 10.0 ** rng.uniform(-18, 0, shape)
    yield np.where(rng.random(shape) < 0.5, 0.0, M)


def cases() -> Iterator[Array]:
    rng = np.random.default_rng(1)
    for scale in SCALES:
        for shape in SHAPES:
            for M in matrices_of(rng, shape):
                yield np.clip(M, -8.0, 8.0) * scale


def test_singular_values_hold_the_truth_at_every_scale():
    for M in cases():
        values = singular_values(exact(M))
        assert holds(largest_singular_value(M), values[-1]), M
        assert holds(nuclear_norm(M), sum(values, arb(0))), M
        smallest = values[0] if M.shape[0] <= M.shape[1] else arb(0)
        assert holds(smallest_singular_value(M), smallest), M


@pytest.mark.parametrize("scale", [1e-250, 1e-100, 1.0, 1e100, 1e250])
def test_they_are_narrow(scale):
    rng = np.random.default_rng(2)
    for shape in SHAPES:
        M = rng.normal(size=shape) * scale
        for ours in (largest_singular_value(M), nuclear_norm(M)):
            assert ours.upper - ours.lower <= 1e-12 * ours.upper
        if shape[0] <= shape[1]:
            ours = smallest_singular_value(M)
            assert ours.upper - ours.lower <= 1e-10 * float(np.linalg.norm(M, 2))
            assert ours.lower > 0.0


def test_the_largest_of_a_head_of_ten_classes_is_known_to_twelve_digits():
    A = np.random.default_rng(3).normal(size=(10, 128))
    ours = largest_singular_value(A)
    assert ours.upper - ours.lower <= 1e-12 * ours.upper


def members(rng: np.random.Generator, ball: Ball) -> Iterator[arb_mat]:
    """Matrices in the ball, most of them on its surface and of rank one."""
    center = exact(ball.center)
    X, _, Yt = np.linalg.svd(ball.center)
    shape = ball.center.shape
    for direction in (
        np.outer(X[:, 0], Yt[0]),
        np.outer(X[:, -1], Yt[len(X) - 1 if len(X) <= len(Yt) else -1]),
    ):
        for sign in (1.0, -1.0):
            E = exact(direction * sign)
            size = sum((entry * entry for entry in E.entries()), arb(0)).sqrt()
            yield center + E * (arb(float(ball.radius)) / size * (1 - arb(2) ** -200))
    E = exact(rng.normal(size=shape))
    size = sum((entry * entry for entry in E.entries()), arb(0)).sqrt()
    yield center + E * (arb(float(ball.radius)) / size * (1 - arb(2) ** -200))


def test_singular_values_of_a_ball_hold_those_of_all_members():
    rng = np.random.default_rng(4)
    for shape in ((2, 2), (2, 4), (3, 3)):
        for radius in (1e-13, 1e-3, 10.0):
            ball = Ball(rng.normal(size=shape), Radius.of(radius))
            for M in members(rng, ball):
                values = singular_values(M)
                assert holds(largest_singular_value(ball), values[-1])
                assert holds(nuclear_norm(ball), sum(values, arb(0)))
                assert holds(smallest_singular_value(ball), values[0])


def test_what_is_not_finite_has_a_size_that_is_not_known():
    for M in (Ball(np.eye(2), UNBOUNDED), Ball.exact(np.full((2, 2), math.nan))):
        for ours in (largest_singular_value(M), nuclear_norm(M), smallest_singular_value(M)):
            assert (ours.lower, ours.upper) == (0.0, math.inf)


def test_zero_is_zero_and_a_tall_matrix_has_no_full_row_rank():
    zero = np.zeros((2, 3))
    for ours in (largest_singular_value(zero), nuclear_norm(zero), smallest_singular_value(zero)):
        assert (ours.lower, ours.upper) == (0.0, 0.0)
    assert smallest_singular_value(np.ones((3, 2))) == Enclosure.exact(0.0)
    around_zero = nuclear_norm(Ball(zero, Radius.of(1.0)))
    assert around_zero.lower == 0.0
    assert math.sqrt(2.0) <= around_zero.upper <= math.sqrt(2.0) * (1 + 1e-12)


def test_a_decomposition_that_does_not_converge_claims_little(monkeypatch):
    def fails(*_: object, **__: object) -> None:
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr(np.linalg, "svd", fails)
    M = np.diag([3.0, 4.0])
    assert nuclear_norm(M).lower == 0.0
    assert nuclear_norm(M).upper >= 7.0
    assert smallest_singular_value(M).lower == 0.0
    assert smallest_singular_value(M).upper >= 3.0


# --- W⁺M ------------------------------------------------------------------------------------------------


def true_least_solution(W: arb_mat, M: arb_mat) -> arb_mat:
    """Wᵀ(WWᵀ)⁻¹M."""
    return W.transpose() * (W * W.transpose()).solve(M)


@pytest.mark.parametrize("scale", [1e-200, 1e-100, 1.0, 1e100])
def test_a_least_solution_is_held_for_all_members(scale):
    rng = np.random.default_rng(5)
    for q, d, k in ((1, 1, 1), (1, 3, 2), (2, 2, 3), (2, 4, 1), (3, 5, 2)):
        for radius in (0.0, 1e-12, 1e-4):
            W = Ball(rng.normal(size=(q, d)) * scale, Radius.of(radius * scale))
            M = Ball(rng.normal(size=(q, k)), Radius.of(radius))
            X = least_solution(W, M, smallest_singular_value(W))
            assert X.known
            assert (
                float(X.radius) * scale
                <= 1e-10 + 100.0 * radius * max(1.0, 1.0 / np.linalg.svd(W.center / scale)[1][-1]) ** 2
            )
            for one, other in zip(members(rng, W), members(rng, M), strict=True):
                off = true_least_solution(one, other) - exact(X.center)
                length = sum((entry * entry for entry in off.entries()), arb(0)).sqrt()
                assert not length > arb(float(X.radius))


def test_without_the_residue_a_least_solution_is_missed(monkeypatch):
    rng = np.random.default_rng(6)
    W, M = rng.normal(size=(3, 5)), rng.normal(size=(3, 2))
    sigma = smallest_singular_value(W)
    monkeypatch.setattr(matrices, "difference", lambda u, v: Ball.exact(np.zeros_like(u.center)))
    X = least_solution(W, M, sigma)
    monkeypatch.undo()
    proper = least_solution(W, M, sigma)
    assert float(X.radius) < float(proper.radius)


def test_nothing_is_claimed_without_full_row_rank():
    W = np.outer([1.0, 2.0], [3.0, 1.0, 2.0])
    assert not least_solution(W, np.ones((2, 1)), smallest_singular_value(W)).known
