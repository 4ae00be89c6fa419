"""Proven eigenvalues against exact rationals, known spectra and ball arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
from flint import arb, ctx
from heads import BITS
from oracle_algebra import rational
from oracle_algebra import spectral_norm as exact_spectral_norm
from scipy.linalg import hadamard

from resnet_cert.numerics import eigenvalues
from resnet_cert.numerics.eigenvalues import (
    first_proven,
    is_positive_definite,
    largest_eigenvalue,
    smallest_eigenpair,
    smallest_eigenvalue,
    spectral_norm,
)
from resnet_cert.numerics.enclosure import Ball, Enclosure
from resnet_cert.numerics.radius import UNBOUNDED, Radius
from resnet_cert.outcomes import InternalError

Array = np.ndarray


@pytest.fixture(autouse=True)
def _precision():
    with ctx.workprec(BITS):
        yield


def holds(enclosure: Enclosure, truth: arb) -> bool:
    return bool(not truth < arb(enclosure.lower) and not truth > arb(enclosure.upper))


# --- Positive definiteness --------------------------------------------------------------------------------


def nearly_singular(rng: np.random.Generator) -> tuple[Array, Array]:
    """A symmetric matrix with an eigenvalue that is 0 to rounding or a little more or less, and a margin."""
    m = int(rng.integers(1, 7))
    G = rng.normal(size=(m, max(1, m - 1)))
    S = G @ G.T
    S = np.tril(S) + np.tril(S, -1).T
    scale = 10.0 ** rng.uniform(-100, 100)
    off = rng.choice([0.0, 1.0, -1.0]) * 10.0 ** rng.uniform(-18, -10) * float(np.trace(S))
    columns = 10.0 ** rng.uniform(-3, 3, m) if rng.random() < 0.5 else np.ones(m)
    S = (S + off * np.eye(m)) * scale * np.outer(columns, columns)
    margin = rng.choice([0.0, 1.0], m) * 10.0 ** rng.uniform(-17, -12, m) * np.diagonal(S)
    return (S + S.T) / 2.0, margin


def truly_positive_definite(S: Array, margin: Array) -> bool:
    """S − diag(margin) ≻ 0, in rationals: the least of all S + E."""
    exact = [[rational(entry) for entry in row] for row in S]
    for i in range(len(S)):
        exact[i][i] -= rational(margin[i])
    pivots = [row[:] for row in exact]
    for i in range(len(pivots)):
        if not pivots[i][i] > 0:
            return False
        for j in range(i + 1, len(pivots)):
            factor = pivots[j][i] / pivots[i][i]
            for l in range(i, len(pivots)):
                pivots[j][l] -= factor * pivots[i][l]
    return True


def wrongly_proven(seed: int, count: int) -> int:
    rng = np.random.default_rng(seed)
    cases = (nearly_singular(rng) for _ in range(count))
    return sum(
        is_positive_definite(S, Radius.of(margin)) and not truly_positive_definite(S, margin)
        for S, margin in cases
    )


def test_no_matrix_is_proven_positive_definite_that_is_not():
    assert wrongly_proven(11, 1500) == 0


def test_without_margins_some_are(monkeypatch):
    monkeypatch.setattr(eigenvalues, "gamma", lambda k: 0.0)
    monkeypatch.setattr(eigenvalues, "U", 0.0)
    monkeypatch.setattr(eigenvalues, "_confirm_factor", lambda R, T: None)
    assert wrongly_proven(11, 1500) > 5


def test_of_a_matrix_that_is_symmetric_but_for_rounding_both_triangles_count():
    S = np.array([[1.0, 1.5], [0.4, 1.0]])
    assert is_positive_definite(S)
    assert not is_positive_definite(S, Radius.of(0.06))
    assert not is_positive_definite(np.array([[1.0, 1.7], [0.4, 1.0]]))


def test_a_matrix_is_proven_positive_definite_with_a_little_room():
    rng = np.random.default_rng(12)
    for _ in range(100):
        m = int(rng.integers(1, 40))
        G = rng.normal(size=(m, m))
        S = G @ G.T
        S = (S + S.T) / 2.0 + (1e-12 * np.trace(S) - min(0.0, np.linalg.eigvalsh(S)[0])) * np.eye(m)
        assert is_positive_definite(S)
        assert not is_positive_definite(S, Radius.of(1.001 * float(np.linalg.eigvalsh(S)[0])))
        assert (
            is_positive_definite(S, Radius.of(0.9 * np.linalg.eigvalsh(S)[0] - 1e-12 * np.trace(S))) or m > 1
        )


@pytest.mark.parametrize(
    "S",
    [
        [[math.nan]],
        [[math.inf]],
        [[1.0, math.nan], [math.nan, 1.0]],
        [[1.0, 0.0], [0.0, math.inf]],
        [[0.0]],
        [[-1.0]],
        [[1.0, 0.0], [0.0, 0.0]],
        [[1.0, 1.0], [1.0, 1.0]],
        [[1.0, 2.0], [2.0, 1.0]],
    ],
)
def test_nothing_is_claimed_of_a_matrix_that_is_not_finite_or_not_definite(S):
    assert not is_positive_definite(np.array(S))


@pytest.mark.parametrize("margin", [math.nan, math.inf, np.array([0.0, math.nan])])
def test_nothing_is_claimed_for_a_margin_that_is_not_finite(margin):
    assert not is_positive_definite(np.eye(2), Radius.of(margin))


@pytest.mark.parametrize("entry", [5e-324, 1e-310, 1e-300, 1e300, 1.7e308])
def test_a_matrix_is_proven_positive_definite_at_any_scale(entry):
    S = np.diag([entry, entry])
    assert is_positive_definite(S)
    assert not is_positive_definite(S, Radius.of(entry))
    S[0, 1] = S[1, 0] = entry
    assert not is_positive_definite(S)


def test_an_empty_matrix_is_positive_definite():
    assert is_positive_definite(np.zeros((0, 0)))


def test_a_factor_that_is_wrong_in_one_entry_is_an_internal_error(monkeypatch):
    cholesky = np.linalg.cholesky

    def faulty(S: Array) -> Array:
        R = cholesky(S)
        R[3, 1] += 1e-6
        return R

    monkeypatch.setattr(np.linalg, "cholesky", faulty)
    with pytest.raises(InternalError, match="a Cholesky factor of size 5 is wrong by"):
        is_positive_definite(np.eye(5) + 0.1)


# --- Known spectra ----------------------------------------------------------------------------------------


def with_spectrum(spectrum: list[float]) -> Array:
    """A full matrix with exactly these eigenvalues, where they have few enough bits."""
    Q = hadamard(len(spectrum)).astype(np.float64)
    return (Q * np.array(spectrum)) @ Q.T / len(spectrum)


SPECTRA = [
    [1.0, 2.0],
    [0.0, 1.0, 1.0, 1.0],
    [-3.0, -3.0, 5.0, 7.0],
    [2.0**-40, 1.0, 2.0, 4.0],
    [-(2.0**-40), 0.0, 0.0, 4.0],
    [-(2.0**-20)] + [0.0] * 31,
    [1.0] * 16,
]


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_extreme_eigenvalues_of_a_known_spectrum_are_held_and_narrow(spectrum):
    M = Ball.exact(with_spectrum(spectrum))
    size = max(map(abs, spectrum)) * len(spectrum)
    for ours, exact in (
        (smallest_eigenvalue(M), min(spectrum)),
        (largest_eigenvalue(M), max(spectrum)),
    ):
        assert ours.lower <= exact <= ours.upper
        assert ours.upper - ours.lower <= 1e-12 * size


@pytest.mark.parametrize("m", [2, 3, 10, 60])
def test_extreme_eigenvalues_of_the_second_difference_are_held(m):
    M = 2.0 * np.eye(m) - np.eye(m, k=1) - np.eye(m, k=-1)
    step = arb.pi() / (m + 1)
    assert holds(smallest_eigenvalue(Ball.exact(M)), 2 - 2 * step.cos())
    assert holds(largest_eigenvalue(Ball.exact(M)), 2 + 2 * step.cos())


def test_extreme_eigenvalues_are_held_for_every_matrix_in_the_ball():
    rng = np.random.default_rng(13)
    for _ in range(50):
        m = int(rng.integers(1, 7))
        M = rng.normal(size=(m, m))
        M, radius = M + M.T, 10.0 ** rng.uniform(-12, 0)
        lowest, highest = np.linalg.eigvalsh(M)[[0, -1]]
        ours = smallest_eigenvalue(Ball(M, Radius.of(radius))), largest_eigenvalue(Ball(M, Radius.of(radius)))
        for enclosure, eigenvalue in zip(ours, (lowest, highest), strict=True):
            assert enclosure.lower <= eigenvalue - radius * (1 - 1e-3)
            assert eigenvalue + radius * (1 - 1e-3) <= enclosure.upper
            assert enclosure.upper - enclosure.lower <= 6.0 * radius + 1e-12 * np.linalg.norm(M)


@pytest.mark.parametrize(
    "M",
    [Ball(np.eye(2), UNBOUNDED), Ball.exact(np.full((2, 2), math.nan)), Ball.exact(np.diag([1.0, math.inf]))],
)
def test_extreme_eigenvalues_of_what_is_not_finite_are_unknown(M):
    for ours in (smallest_eigenvalue(M), largest_eigenvalue(M)):
        assert (ours.lower, ours.upper) == (-math.inf, math.inf)


# --- Spectral norm ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-250, 1e-100, 1.0, 1e100, 1e250])
def test_a_spectral_norm_is_held_and_narrow_at_every_scale(scale):
    rng = np.random.default_rng(15)
    for shape in ((1, 1), (1, 4), (4, 1), (3, 3), (2, 5), (5, 2)):
        V = rng.normal(size=shape) * scale
        if shape == (3, 3):
            V = np.outer(V[0], np.array([1.0, 2.0, -4.0]))  # rank one
        ours = spectral_norm(V)
        assert holds(ours, exact_spectral_norm([[arb(entry) for entry in row] for row in V]))
        assert ours.upper - ours.lower <= 1e-12 * ours.upper


def test_a_spectral_norm_is_held_where_most_squares_are_lost_one_by_one():
    V = np.full((1, 4000), math.sqrt(0.9 * 2.0**-54))
    V[0, 0] = 1.0
    assert holds(spectral_norm(V), exact_spectral_norm([[arb(entry) for entry in V[0]]]))


@pytest.mark.parametrize("entry", [5e-324, 1.7e308])
def test_a_spectral_norm_of_the_least_and_largest_floats_is_held(entry):
    ours = spectral_norm(np.array([[entry]]))
    assert ours.lower <= entry <= ours.upper


def test_a_spectral_norm_of_zero_is_zero():
    assert spectral_norm(np.zeros((3, 2))) == Enclosure.exact(0.0)


@pytest.mark.parametrize("limit", [1, 1000])
def test_the_smallest_eigenpair_is_one(limit, monkeypatch):
    monkeypatch.setattr(eigenvalues, "SUBSET_SIZE", limit)
    S = with_spectrum([-5.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    value, v = smallest_eigenpair(S)
    assert value == pytest.approx(-5.0, abs=1e-14)
    assert np.linalg.norm(v) == pytest.approx(1.0)
    assert np.allclose(S @ v, -5.0 * v, atol=1e-14)


def test_the_first_slack_that_is_proven_is_found_in_few_tries():
    for needed in range(37):
        tries = []

        def exceeds(t, needed=needed, tries=tries):
            tries.append(t)
            return t >= 4.0**needed

        assert first_proven(exceeds, 0.0, 2.0**53, positive=True) == -(4.0**needed)
        assert len(tries) <= needed / 4 + 4
    for value, size in ((0.0, 0.0), (math.nan, 1.0), (1.0, math.inf)):
        assert first_proven(lambda t: True, value, size, positive=False) == -math.inf
    assert first_proven(lambda t: False, 1.0, 1.0, positive=False) == -math.inf
