"""λ_min against dense Hessians, exact rationals and known spectra."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from families import FAMILIES, gaussian, make, to_problem
from flint import arb, ctx
from oracle import BITS, Sample, Truth
from oracle_algebra import (
    complement,
    dot,
    is_positive_semidefinite,
    matrix_product,
    rational,
    shifted,
    smallest_eigenvalue,
)
from scipy.linalg import hadamard

from resnet_cert.decide import hessian
from resnet_cert.decide.hessian import (
    Direction,
    curvature,
    curvature_off,
    hessian_exceeds,
    rayleigh_quotient,
    reduced_hessian,
)
from resnet_cert.moments.moments import Moments, merged, moment_sums, residual
from resnet_cert.numerics import eigenvalues
from resnet_cert.numerics.enclosure import Ball, Enclosure
from resnet_cert.numerics.jax64 import jax, jnp
from resnet_cert.problem.losses import named_loss

Array = np.ndarray


@pytest.fixture(autouse=True)
def _precision():
    with ctx.workprec(BITS):
        yield


def moments_of(sample: Sample) -> Moments:
    problem = to_problem(sample)
    return merged(
        moment_sums(problem.loss, chunk, residual(chunk, sample.V), sample.w) for chunk in problem.chunks()
    ).expectation()


def holds(enclosure: Enclosure, truth: arb) -> bool:
    return bool(arb(enclosure.lower) <= truth <= arb(enclosure.upper))


# --- Against a dense Hessian by automatic differentiation -------------------------------------------------

SHAPES = [(1, 1, 1), (8, 1, 1), (10, 1, 4), (10, 4, 1), (2, 3, 4), (20, 3, 2), (6, 5, 3)]
POINTS = ["any", "w = 0", "V = 0", "a = 0"]


@cache
def _compiled(loss: str, d: int, k: int) -> Callable[..., Array]:
    """∇²F over (w, V row by row), by jax.hessian of the definition of F."""
    value = named_loss(loss).value

    def F(z, x, f, y):
        w, V = z[:d], z[d:].reshape(d, k)
        return jnp.mean(value((x + f @ V.T) @ w, y))

    return jax.jit(jax.hessian(F))


@cache
def problem_and_hessian(i: int, point: str) -> tuple[Sample, Array, float]:
    """A problem for each shape and kind of point, its dense Hessian and the norm of that.

    The losses take turns.
    """
    n, d, k = SHAPES[i]
    loss = ("squared", "logistic", "pseudo_huber", "poisson")[i % 4]
    sample = gaussian(np.random.default_rng(100 + i), n=n, d=d, k=k, losses=(loss,))
    if point == "w = 0":
        sample = replace(sample, w=np.zeros(d))
    if point == "V = 0":
        sample = replace(sample, V=np.zeros((d, k)))
    if point == "a = 0":  # samples come with f and with −f, and V = 0 gives both the same prediction
        m = n // 2
        rows = [*range(m), *range(m), *range(2 * m, n)]
        f = np.concatenate([sample.f[:m], -sample.f[:m], np.zeros((n - 2 * m, k))])
        sample = replace(sample, x=sample.x[rows], y=sample.y[rows], f=f, V=np.zeros((d, k)))
    z = np.concatenate([sample.w, sample.V.ravel()])
    H = np.asarray(_compiled(loss, d, k)(z, sample.x, sample.f, sample.y))
    return sample, H, float(np.linalg.norm(H, 2)) or 1.0


every_problem = pytest.mark.parametrize(
    ("shape", "point"),
    [pytest.param(i, point, id=f"{SHAPES[i]} {point}") for i in range(len(SHAPES)) for point in POINTS],
)


@every_problem
def test_lambda_min_is_that_of_the_dense_hessian(shape, point):
    sample, H, size = problem_and_hessian(shape, point)
    bent = curvature(moments_of(sample), sample.w)
    lambda_min = float(np.linalg.eigvalsh(H)[0])
    assert abs(bent.lambda_min.value - lambda_min) <= 1e-10 * size
    assert bent.lambda_min.lower - 1e-10 * size <= lambda_min <= bent.lambda_min.upper + 1e-10 * size
    assert bent.lambda_min.upper - bent.lambda_min.lower <= 1e-10 * size


@every_problem
def test_the_reduced_spectrum_and_the_structural_zeros_are_the_dense_spectrum(shape, point):
    sample, H, size = problem_and_hessian(shape, point)
    d, k = sample.V.shape
    reduced, P = reduced_hessian(moments_of(sample), sample.w)
    assert P.shape == (d, d - 1)
    assert np.allclose(P.T @ P, np.eye(d - 1), atol=1e-14)
    assert np.allclose(P.T @ sample.w, 0.0, atol=1e-14 * (1.0 + np.linalg.norm(sample.w)))
    spectrum = np.concatenate([np.linalg.eigvalsh(reduced), np.zeros((d - 1) * (k - 1))])
    assert np.allclose(np.sort(spectrum), np.linalg.eigvalsh(H), rtol=0.0, atol=1e-10 * size)


@every_problem
def test_as_many_eigenvalues_are_zero_as_are_said_to_be(shape, point):
    sample, H, size = problem_and_hessian(shape, point)
    d, k = sample.V.shape
    said = curvature(moments_of(sample), sample.w).zero_multiplicity
    assert said == (d * (k - 1) if not sample.w.any() else (d - 1) * (k - 1))
    assert np.count_nonzero(np.abs(np.linalg.eigvalsh(H)) <= 1e-10 * size) >= said


@every_problem
def test_the_direction_attains_lambda_min_on_the_dense_hessian(shape, point):
    sample, H, size = problem_and_hessian(shape, point)
    bent = curvature(moments_of(sample), sample.w)
    z = np.concatenate([bent.direction.dw, bent.direction.dV.ravel()])
    assert z @ H @ z / (z @ z) == pytest.approx(np.linalg.eigvalsh(H)[0], abs=1e-10 * size)


def test_a_dense_hessian_is_what_the_moments_say():
    sample, H, _ = problem_and_hessian(5, "any")
    assert np.allclose(dense_from(moments_of(sample), sample.w), H, rtol=0.0, atol=1e-12 * np.abs(H).max())


# --- Against exact numbers --------------------------------------------------------------------------------


def dense_from(at: Moments, w: Array) -> Array:
    """∇²F over (w, V row by row) as its moments give it: D²F = uᵀAu + 2uᵀBq + qᵀCq + 2uᵀUa, q = Uᵀw."""
    d, k = len(w), len(at.a.center)
    B = at.B.center if w.any() else np.zeros((d, k))
    C = at.C.center if w.any() else np.zeros((k, k))
    cross = np.einsum("il,j->ijl", B, w) + np.einsum("ij,l->ijl", np.eye(d), at.a.center)
    last = np.einsum("i,j,lm->iljm", w, w, C).reshape(d * k, d * k)
    cross = cross.reshape(d, d * k)
    return np.block([[at.A.center, cross], [cross.T, last]])


def exact_dense(at: Moments, w: Array) -> list[list]:
    """The same in rationals."""
    d, k = len(w), len(at.a.center)
    A, B, C = ([[rational(e) for e in row] for row in m.center] for m in (at.A, at.B, at.C))
    a, s = [rational(e) for e in at.a.center], [rational(e) for e in w]
    H = [[rational(0.0)] * (d + d * k) for _ in range(d + d * k)]
    for i in range(d):
        H[i][:d] = A[i]
        for j in range(d):
            for l in range(k):
                H[i][d + j * k + l] = H[d + j * k + l][i] = B[i][l] * s[j] + (a[l] if i == j else 0)
                for m in range(k):
                    H[d + i * k + l][d + j * k + m] = s[i] * s[j] * C[l][m]
    return H


def known_moments(rng: np.random.Generator, d: int, k: int, *, bits: int = 53) -> tuple[Moments, Array]:
    """Exact moments (radius 0) at some w ≠ 0, C and A Gram matrices of numbers with few bits."""

    def entries(*shape: int) -> Array:
        return np.ldexp(rng.integers(-(2**bits), 2**bits, size=shape).astype(np.float64), -bits)

    G = np.hstack([entries(d + k + 1, d), entries(d + k + 1, k)])
    gram = G.T @ G
    gram = np.tril(gram) + np.tril(gram, -1).T
    exact = (gram[:d, :d], gram[:d, d:], gram[d:, d:])
    A, B, C = (Ball(np.ascontiguousarray(part), 0.0) for part in exact)
    return Moments(Enclosure.exact(1.0), Ball(entries(d), 0.0), Ball(entries(k), 0.0), A, B, C), entries(d)


SIZES = [(1, 1), (1, 3), (2, 1), (2, 2), (3, 2)]


@pytest.mark.parametrize(("d", "k"), SIZES)
def test_lambda_min_of_exact_moments_is_held_and_narrow(d, k):
    rng = np.random.default_rng(1)
    for _ in range(6):
        at, w = known_moments(rng, d, k)
        dense = [[arb(entry) for entry in row] for row in exact_dense(at, w)]
        ours = curvature(at, w).lambda_min
        assert holds(ours, smallest_eigenvalue(dense))
        assert ours.upper - ours.lower <= 1e-12 * float(np.trace(at.A.center) + np.trace(at.C.center))


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_lambda_min_of_a_problem_is_held(family):
    for seed in range(3):
        sample = make(family, 200 + seed)
        at = moments_of(sample)
        if not math.isfinite(at.A.radius):
            continue
        truth = Truth(sample, 2 * BITS).lambda_min
        ours = curvature(at, sample.w).lambda_min
        assert not truth < arb(ours.lower), seed  # an exact zero is known to 1e-300 only
        assert not truth > arb(ours.upper), seed


def test_lambda_min_is_held_for_all_moments_within_their_radii():
    rng = np.random.default_rng(2)
    for _ in range(40):
        d, k = (int(size) for size in rng.integers(1, 4, size=2))
        at, w = known_moments(rng, d, k)
        radius = 10.0 ** rng.uniform(-6, -1)

        def moved(ball: Ball, radius: float = radius) -> tuple[Ball, Ball]:
            E = rng.normal(size=ball.center.shape)
            E = E + E.T if E.shape == (len(E), len(E)) else E
            return Ball(ball.center + 0.999 * radius * E / np.linalg.norm(E), 0.0), Ball(ball.center, radius)

        pairs = [moved(ball) for ball in (at.g_w, at.a, at.A, at.B, at.C)]
        true = Moments(at.F, *(pair[0] for pair in pairs))
        known = Moments(at.F, *(pair[1] for pair in pairs))
        truth = float(np.linalg.eigvalsh(dense_from(true, w))[0])
        bent = curvature(known, w)
        assert bent.lambda_min.lower <= truth + 1e-12
        assert bent.lambda_min.upper >= truth - 1e-12
        for direction in (bent.direction, Direction(rng.normal(size=d), rng.normal(size=(d, k)))):
            z = np.concatenate([direction.dw, direction.dV.ravel()])
            quotient = rayleigh_quotient(known, w, direction)
            exact = z @ dense_from(true, w) @ z / (z @ z)
            assert quotient.lower - 1e-12 <= exact <= quotient.upper + 1e-12


def worst_within(part: str, at: Moments, w: Array, radius: float) -> Moments:
    """The moments with one of them moved by `radius` so that λ_min falls as far as it can, to first order."""
    d, k = len(w), len(at.a.center)
    z = np.linalg.eigh(dense_from(at, w))[1][:, 0]
    u, U = z[:d], z[d:].reshape(d, k)
    q = U.T @ w
    along = {"a": U.T @ u, "A": np.outer(u, u), "B": np.outer(u, q), "C": np.outer(q, q)}[part]
    center = getattr(at, part).center - 0.999999 * radius * along / (np.linalg.norm(along) or 1.0)
    return replace(at, **{part: Ball(center, 0.0)})


@pytest.mark.parametrize("part", ["a", "A", "B", "C"])
def test_the_worst_moments_within_one_radius_are_reckoned_with(part):
    rng = np.random.default_rng(20)
    for _ in range(60):
        d, k = (int(size) for size in rng.integers(1, 4, size=2))
        at, w = known_moments(rng, d, k)
        w = w * 10.0 ** rng.uniform(-1, 1)
        radius = 10.0 ** rng.uniform(-6, 0)
        known = replace(at, **{part: Ball(getattr(at, part).center, radius)})
        true = worst_within(part, at, w, radius)
        eigenvalues, vectors = np.linalg.eigh(dense_from(true, w))
        lowest, z = float(eigenvalues[0]), vectors[:, 0]
        assert curvature(known, w).lambda_min.lower <= lowest + 1e-12
        assert not hessian_exceeds(known, w, -lowest - 1e-9 * (1.0 + abs(lowest)))
        for other in (at, true):
            quotient = rayleigh_quotient(known, w, Direction(z[:d], z[d:].reshape(d, k)))
            exact = float(z @ dense_from(other, w) @ z)
            assert quotient.lower - 1e-12 <= exact <= quotient.upper + 1e-12


def test_a_rayleigh_quotient_of_exact_moments_is_held_and_narrow():
    rng = np.random.default_rng(3)
    for _ in range(40):
        d, k = (int(size) for size in rng.integers(1, 4, size=2))
        at, w = known_moments(rng, d, k)
        w = w * rng.choice([0.0, 1.0])
        H, size = exact_dense(at, w), np.trace(at.A.center) + np.trace(at.C.center) + 1.0
        directions = np.linalg.eigh(dense_from(at, w))[1].T  # where the terms cancel, too
        for floats in (*directions, rng.normal(size=d + d * k) * 10.0 ** rng.uniform(-3, 3)):
            z = [rational(e) for e in floats]
            exact = dot(z, [dot(row, z) for row in H]) / dot(z, z)
            ours = rayleigh_quotient(at, w, Direction(floats[:d], floats[d:].reshape(d, k)))
            assert rational(ours.lower) <= exact <= rational(ours.upper)
            assert ours.upper - ours.lower <= 1e-13 * (1.0 + np.linalg.norm(w)) ** 2 * size


def test_a_direction_of_length_zero_has_no_rayleigh_quotient():
    at, w = known_moments(np.random.default_rng(4), 2, 2)
    quotient = rayleigh_quotient(at, w, Direction(np.zeros(2), np.zeros((2, 2))))
    assert (quotient.lower, quotient.upper) == (-math.inf, math.inf)


@pytest.mark.parametrize("size", [1e-120, 1e-60, 1e60, 1e120])
def test_lambda_min_scales_with_the_moments(size):
    sample = gaussian(np.random.default_rng(5), n=8, d=3, k=2, losses=("squared",))
    at = moments_of(sample)
    scaled = Moments(
        at.F, *(Ball(m.center * size, m.radius * size) for m in (at.g_w, at.a, at.A, at.B, at.C))
    )
    one, other = curvature(at, sample.w).lambda_min, curvature(scaled, sample.w).lambda_min
    assert other.value == pytest.approx(one.value * size, rel=1e-12)
    assert other.upper - other.lower <= 4.0 * (one.upper - one.lower) * size


def test_the_enclosure_is_narrow_in_two_thousand_samples_of_twenty_inputs_and_features():
    rng = np.random.default_rng(6)
    for loss in ("squared", "logistic"):
        sample = gaussian(rng, n=2000, d=20, k=20, losses=(loss,))
        sample = replace(sample, w=sample.w / 5.0, V=sample.V / 5.0)
        at = moments_of(sample)
        ours = curvature(at, sample.w).lambda_min
        assert ours.upper - ours.lower <= 1e-9 * float(np.linalg.norm(reduced_hessian(at, sample.w)[0], 2))


# --- Definition against a threshold -----------------------------------------------------------------------


@pytest.mark.parametrize(("d", "k"), SIZES)
def test_the_hessian_exceeds_minus_t_only_if_it_does_and_always_with_room(d, k):
    rng = np.random.default_rng(7)
    proven = 0
    for _ in range(25):
        at, w = known_moments(rng, d, k)
        H = exact_dense(at, w)
        lambda_min = float(np.linalg.eigvalsh(dense_from(at, w))[0])
        size = float(np.trace(at.A.center) + np.trace(at.C.center))
        off = size * 10.0 ** rng.uniform(-17, -1) * rng.choice([-1.0, 1.0])
        t = -lambda_min + off
        if hessian_exceeds(at, w, t):
            proven += 1
            assert is_positive_semidefinite(shifted(H, rational(t)))
        else:
            assert off < 1e-10 * size
    assert proven


def test_for_two_inputs_or_more_nothing_is_proven_of_a_negative_t():
    at, w = known_moments(np.random.default_rng(8), 2, 2)
    assert not hessian_exceeds(at, w, -1.0)
    assert not hessian_exceeds(at, w, 0.0)
    at = replace(at, a=Ball(np.zeros(2), 0.0))  # a Gram matrix with structural zeros: λ_min = 0
    assert not hessian_exceeds(at, w, 0.0)
    assert hessian_exceeds(at, w, 1e-9)


def test_for_one_input_a_positive_lambda_min_is_proven():
    rng = np.random.default_rng(9)
    at, w = known_moments(rng, 1, 2)
    at = replace(at, a=Ball(np.zeros(2), 0.0))  # ∇²F is a Gram matrix
    lambda_min = float(np.linalg.eigvalsh(dense_from(at, w))[0])
    assert lambda_min > 0.0
    assert hessian_exceeds(at, w, -lambda_min * (1.0 - 1e-9))
    assert hessian_exceeds(at, w, 0.0)
    assert not hessian_exceeds(at, w, -lambda_min * (1.0 + 1e-9))
    assert curvature(at, w).lambda_min.lower > 0.0


def _without_margins(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (hessian, eigenvalues):
        monkeypatch.setattr(module, "gamma", lambda k: 0.0)
        monkeypatch.setattr(module, "U", 0.0)
    monkeypatch.setattr(eigenvalues, "_confirm_factor", lambda R, T: None)


def last_that_fails(at: Moments, w: Array) -> float:
    """The largest float t at which ∇²F + tI is not positive semidefinite, by bisection in rationals."""
    H, low = exact_dense(at, w), -float(np.linalg.eigvalsh(dense_from(at, w))[0])
    low, high = low - abs(low) * 1e-13, low + abs(low) * 1e-13
    while math.nextafter(low, math.inf) < high:
        middle = low + (high - low) / 2.0
        low, high = (
            (low, middle) if is_positive_semidefinite(shifted(H, rational(middle))) else (middle, high)
        )
    return low


def test_at_the_very_threshold_it_is_proven_only_without_margins(monkeypatch):
    rng = np.random.default_rng(10)
    cases = [known_moments(rng, d, k) for d, k in SIZES for _ in range(6)]
    fails = [(at, w, last_that_fails(at, w)) for at, w in cases]
    assert not any(hessian_exceeds(*case) for case in fails)
    _without_margins(monkeypatch)
    assert any(hessian_exceeds(*case) for case in fails)


@pytest.mark.parametrize("w_is_zero", [False, True])
def test_a_millionth_below_zero_is_seen_among_thousands_of_exact_zeros(w_is_zero):
    d, k, alpha = 40, 100, 2.0**-10
    a = np.zeros(k)
    a[7] = alpha
    w = np.zeros(d) if w_is_zero else hadamard(64)[5, :d].astype(np.float64)
    nothing = Ball(np.zeros((d, k)), 0.0), Ball(np.zeros((k, k)), 0.0)
    at = Moments(Enclosure.exact(1.0), Ball(np.zeros(d), 0.0), Ball(a, 0.0), Ball(np.eye(d), 0.0), *nothing)
    bent = curvature(at, w)
    exact = (1 - (1 + 4 * arb(alpha) ** 2).sqrt()) / 2  # the smaller eigenvalue of [[1, α], [α, 0]]
    assert -1e-6 < float(exact.mid()) < -0.9e-6
    assert bent.zero_multiplicity >= 3861
    assert holds(bent.lambda_min, exact)
    assert bent.lambda_min.upper - bent.lambda_min.lower < 1e-12
    assert -1e-6 < bent.lambda_min.upper < -0.9e-6


@pytest.mark.parametrize(("d", "k"), [(1, 1), (1, 3), (4, 1), (3, 5)])
@pytest.mark.parametrize("alpha", [0.0, 1e-200, 1e-12, 1.0, 1e6])
def test_at_w_zero_the_direction_has_the_least_curvature(d, k, alpha):
    rng = np.random.default_rng(16)
    G, a = rng.normal(size=(d, d)), alpha * rng.normal(size=k)
    nothing = Ball(np.zeros((d, k)), 0.0), Ball(np.zeros((k, k)), 0.0)
    at = Moments(Enclosure.exact(1.0), Ball(np.zeros(d), 0.0), Ball(a, 0.0), Ball(G @ G.T, 0.0), *nothing)
    bent = curvature(at, np.zeros(d))
    along = rayleigh_quotient(at, np.zeros(d), bent.direction)
    assert along.upper - bent.lambda_min.lower <= 1e-12 * abs(bent.lambda_min.lower) + 1e-300
    assert bent.lambda_min.value == pytest.approx(along.value, rel=1e-12, abs=1e-300)


def test_a_curvature_that_is_not_known_has_no_lower_end():
    at, w = known_moments(np.random.default_rng(14), 2, 2)
    for part in ("a", "A", "B", "C"):
        bent = curvature(replace(at, **{part: Ball(getattr(at, part).center, math.inf)}), w)
        assert bent.lambda_min.lower == -math.inf
        assert bent.lambda_min.upper == 0.0
    bent = curvature(replace(at, A=Ball(np.full((2, 2), math.nan), math.inf)), w)
    assert (bent.lambda_min.lower, bent.lambda_min.upper) == (-math.inf, 0.0)
    assert math.isnan(bent.lambda_min.value)


# --- The curvature off w ----------------------------------------------------------------------------------


def test_the_curvature_off_w_is_held_and_narrow():
    rng = np.random.default_rng(16)
    for _ in range(40):
        d = int(rng.integers(2, 6))
        G = rng.normal(size=(int(rng.integers(1, 7)), d))
        A = G.T @ G
        A = np.tril(A) + np.tril(A, -1).T
        w = rng.normal(size=d) * 10.0 ** rng.uniform(-120, 120)
        w[rng.random(d) < 0.3] = 0.0
        if not w.any():
            w[0] = -1.0
        steep = float(rng.choice([0.0, 1e6, 1e12]))  # along w, where it must not be seen
        A += steep * np.outer(w, w) / (w @ w)
        A = np.tril(A) + np.tril(A, -1).T
        basis = complement([arb(entry) for entry in w])
        exact_A = [[arb(entry) for entry in row] for row in A]
        image = [[dot(row, q) for row in exact_A] for q in basis]
        projected = matrix_product(list(zip(*basis, strict=True)), list(zip(*image, strict=True)))
        ours = curvature_off(Ball(A, 0.0), w)
        assert holds(ours, smallest_eigenvalue(projected))
        assert ours.upper - ours.lower <= 1e-11 * float(np.trace(A))


def test_the_curvature_off_an_eigenvector_is_the_least_of_the_other_eigenvalues():
    Q = hadamard(8).astype(np.float64)
    A = (Q * [-5.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]) @ Q.T / 8.0
    for column, exact in ((0, 1.0), (3, -5.0)):
        off = curvature_off(Ball(A, 0.0), Q[:, column])
        assert off.lower <= exact <= off.upper
        assert off.upper - off.lower <= 1e-11
    whole = curvature_off(Ball(A, 0.0), np.zeros(8))
    assert whole.lower <= -5.0 <= whole.upper
