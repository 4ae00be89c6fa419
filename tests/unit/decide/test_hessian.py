"""The reduced Hessian of any head against dense ones, and λ_min against 60 digits."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
from curvature import Exact
from families import CORNERS, draw
from heads import LOSSES, Head
from selections import first

from resnet_cert import Problem
from resnet_cert.decide.hessian import (
    Curvature,
    Reduction,
    SecondOrder,
    Shift,
    Structure,
    curvature,
    decided,
    gauss_newton_bound,
    hessian_exceeds,
    hessian_size,
    rayleigh_quotient,
    reduced_hessian,
    reduction,
    refuting_direction,
    second_derivative,
)
from resnet_cert.moments.one_pass import observe
from resnet_cert.numerics.enclosure import Ball, Enclosure
from resnet_cert.numerics.radius import NOTHING, Radius
from resnet_cert.problem.problem import Direction
from resnet_cert.problem.span import gradient_basis, sum_free_basis

SEEDS = first(1, range(3))


@dataclass(frozen=True)
class Given:
    """Moments that are given."""

    A_f: Ball
    Q: Ball


def parts_of(problem: Problem, *, quotient: bool = True) -> Reduction:
    N = gradient_basis(problem) if quotient else None
    return reduction(observe(problem, 1.0).here, problem.W, problem.d1, N)


def heads(seed: int, corner: str) -> Head:
    head = draw(seed, corner, l2=[0.0, 0.25][seed % 2])
    return replace(head, loss="squared") if head.loss == "softmax" and head.q == 1 else head


def dense(head: Head) -> np.ndarray:
    return np.array([[float(entry) for entry in row] for row in head.truth.hessian])


# --- The reduction ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_reduced_spectrum_and_its_zeros_are_the_dense_spectrum(corner: str, seed: int) -> None:
    head = heads(seed, corner)
    truth = np.linalg.eigvalsh(dense(head))
    for quotient in (True, False):
        parts = parts_of(head.problem(), quotient=quotient)
        reduced = np.linalg.eigvalsh(reduced_hessian(parts)[0])
        ours = np.sort(np.concatenate([reduced, np.zeros(parts.zero_multiplicity)]))
        np.testing.assert_allclose(ours, truth, atol=1e-10 * max(1.0, np.abs(truth).max()))


@pytest.mark.parametrize("loss", LOSSES)
def test_zeros_by_structure_are_zeros_of_the_dense_hessian(loss: str) -> None:
    for q, d1, d2 in ((2, 3, 1), (3, 2, 0), (2, 1, 0)):
        head = draw(8, "generic", loss, q=q, d1=d1, d2=d2, bias=True)
        parts = parts_of(head.problem())
        spectrum = np.linalg.eigvalsh(dense(head))
        zeros = int(np.sum(np.abs(spectrum) <= 1e-12 * np.abs(spectrum).max()))
        assert zeros >= parts.structure.zero_multiplicity


def test_the_count_of_zeros_is_that_of_the_paper_for_one_output() -> None:
    d, k = 5, 4
    w = np.ones((1, d))
    assert Structure.of(w, d, k, sum_free=False).zero_multiplicity == (d - 1) * (k - 1)
    assert Structure.of(0.0 * w, d, k, sum_free=False).zero_multiplicity == d * (k - 1)
    assert Structure.of(np.ones((3, d)), d, k, sum_free=False).zero_multiplicity == (d - 3) * (k - 3)
    assert Structure.of(np.ones((3, d)), d, k, sum_free=True).zero_multiplicity == (d - 2) * (k - 2) + d


@pytest.mark.parametrize("q", [2, 3, 10, 100])
def test_the_basis_of_vectors_of_sum_0(q: int) -> None:
    N = sum_free_basis(q)
    assert N.center.shape == (q, q - 1)
    size = 4.0 * math.sqrt(q) * 2.0**-53
    assert float(np.abs(N.center.T @ N.center - np.eye(q - 1)).max()) <= q * size
    assert float(np.abs(N.center.sum(axis=0)).max()) <= q * size
    assert float(N.radius) <= size


# --- λ_min --------------------------------------------------------------------------------------------------


def assert_sound(head: Head, width: float = 1e-9) -> Curvature:
    """λ_min lies in its enclosure, and S(t) proves no t below −λ_min."""
    truth, problem = Exact(head), head.problem()
    shift = Shift(Enclosure.exact(2.0 * head.l2), problem.decayed)
    for quotient in (True, False):
        parts = parts_of(problem, quotient=quotient)
        found = curvature(parts, shift)
        assert truth.holds(found.lambda_min.lower, found.lambda_min.upper), (
            truth.lambda_min,
            found.lambda_min,
        )
        assert found.lambda_min.upper - found.lambda_min.lower <= width * max(1.0, truth.size)
        if parts.N is None:
            for factor in (1e-14, 1e-9, 1e-3):
                assert not hessian_exceeds(parts, -float(truth.lambda_min) - factor * truth.size, shift)
    return found


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("seed", SEEDS)
def test_lambda_min_lies_in_its_enclosure(corner: str, seed: int) -> None:
    assert_sound(heads(20 + seed, corner))


@pytest.mark.long
@pytest.mark.parametrize("corner", CORNERS)
def test_many_smallest_eigenvalues_lie_in_their_enclosures(corner: str) -> None:
    for seed in range(200, 300):
        assert_sound(heads(seed, corner))


@pytest.mark.parametrize("gap", [1e-4, 1e-9, 1e-15, 1e-17])
def test_nearly_dependent_rows_change_nothing(gap: float) -> None:
    head = draw(3, "generic", "weighted_squared", q=2, d1=3, d2=1)
    W = np.array([[1.0, 2.0, -1.0, 0.5], [1.0, 2.0, -1.0, 0.5 + gap]])
    W[1, 0] += gap
    assert_sound(replace(head, W=W))


@pytest.mark.parametrize("scale", [1e-150, 1e-60, 1e-8, 1e8, 1e40])
def test_scales_of_w_do_not_matter(scale: float) -> None:
    head = draw(4, "generic", "squared", q=2, d1=3, d2=0, bias=False)
    assert_sound(replace(head, W=head.W * scale, y=head.y * scale), 1e-8 * max(1.0, scale))


def test_one_row_costs_no_accuracy() -> None:
    """λ_min of one output is as narrow as if its row were the first unit vector."""
    head = draw(5, "generic", "squared", q=1, d1=3, d2=0, bias=False)
    assert_sound(head, 1e-13)
    assert_sound(replace(head, W=head.W * np.array([1.0, 0.0, 0.0])), 1e-13)


def test_a_positive_definite_hessian_is_proven_to_be() -> None:
    rng = np.random.default_rng(0)
    d, k, q = 2, 2, 3
    A = np.eye(d + k)
    parts = reduction(
        Given(Ball.exact(np.zeros((q, k))), Ball.exact(A)), np.vstack([np.eye(2), rng.normal(size=(1, 2))]), d
    )
    assert curvature(parts).lambda_min.lower > 0.5


def test_at_the_origin_the_spectrum_is_known() -> None:
    """(β − √(β² + 4‖A_f‖²))/2 for ∇²ℓ = I and W = 0: with β = 3 and ‖A_f‖ = 2, −1."""
    moments = Given(Ball.exact(np.array([[2.0, 0.0], [0.0, 1.0]])), Ball.exact(np.diag([3.0, 5.0, 7.0])))
    found = curvature(reduction(moments, np.zeros((2, 3)), 3))
    assert found.lambda_min.lower <= -1.0 <= found.lambda_min.upper
    assert found.lambda_min.upper - found.lambda_min.lower <= 1e-14
    attained = second_derivative(moments, np.zeros((2, 3)), 3, found.direction)
    assert attained.value == pytest.approx(-1.0, abs=1e-14)
    assert found.zero_multiplicity == 0


def test_the_gauss_newton_part_is_never_negative() -> None:
    A_f = Ball.exact(np.array([[0.0, 3e-9], [0.0, 0.0]]))
    assert gauss_newton_bound(A_f, Shift.none(2)) == pytest.approx(-3e-9)
    decayed = Shift(Enclosure.exact(1.0), np.array([1.0, 0.0]))
    assert gauss_newton_bound(A_f, decayed) == 0.0
    moments = Given(A_f, Ball(np.diag([1.0, 1.0, 1.0, 1.0]), Radius.of(1e-3)))
    lower = curvature(reduction(moments, np.eye(2), 2)).lambda_min.lower
    assert lower >= -3.1e-9  # though Q is known to 1e-3 only


def test_without_convexity_nothing_rests_on_it() -> None:
    """At W = 0 with A = −1, ∇²F = [[−1, α], [α, 0]]: λ_min = −(1 + √(1 + 4α²))/2, below −α."""
    moments = Given(Ball.exact(np.array([[0.25]])), Ball.exact(np.array([[-1.0]])))
    truth = -(1.0 + math.sqrt(1.25)) / 2.0
    for W in (np.zeros((1, 1)), np.zeros((1, 2))):
        wide = Given(moments.A_f, Ball.exact(-np.eye(W.shape[1])))
        parts = replace(reduction(wide, W, 1), convex=False)
        found = curvature(parts).lambda_min
        assert found.lower <= truth <= found.upper
        assert found.upper - found.lower <= 1e-12
    sphere = Direction(np.zeros((1, 1)), np.ones((1, 1)))
    parts = replace(reduction(moments, np.zeros((1, 1)), 1), convex=False)
    assert curvature(parts, None, sphere).lambda_min.lower <= -1.0


@pytest.mark.parametrize("corner", ["generic", "rank 1", "W_1 = 0", "rows that nearly sum to 0"])
@pytest.mark.parametrize("seed", SEEDS)
def test_radii_of_the_moments_are_paid_for(corner: str, seed: int) -> None:
    """Of all moments within the radii, the worst: along the lowest eigenvector."""
    head = heads(40 + seed, corner)
    problem = head.problem()
    here = observe(problem, 1.0).here
    for radius in (1e-12, 1e-6, 1e-3):
        loose = Given(Ball(here.A_f.center, Radius.of(radius)), Ball(here.Q.center, Radius.of(radius)))
        found = curvature(reduction(loose, problem.W, problem.d1))
        worst = perturbed(here, found.direction, problem, radius)
        below = curvature(reduction(worst, problem.W, problem.d1)).lambda_min
        assert found.lambda_min.lower <= below.upper


def perturbed(here: SecondOrder, u: Direction, problem: Problem, radius: float) -> Given:
    """Moments at the distance `radius` from the given ones that bend down along u."""
    W_1, d1 = problem.W[:, : problem.d1], problem.d1
    A = u.dW[:, :d1] @ u.dV
    A_f = here.A_f.center - radius * A / (np.linalg.norm(A) or 1.0)
    B = u.dW if here.Q.center.shape[-1] == problem.d else np.concatenate([u.dW, W_1 @ u.dV], axis=1)
    Q, b = here.Q.center, B / (np.linalg.norm(B) or 1.0)
    if Q.ndim == 4:
        Q = Q - radius * np.einsum("aj,bl->abjl", b, b)
    elif Q.ndim == 2 and len(B) == 1:
        Q = Q - radius * np.outer(b, b)
    return Given(Ball.exact(A_f), Ball.exact(Q))


@pytest.mark.parametrize("off", [1e-12, 1e-6, 1e-2])
def test_a_basis_that_misses_the_rows_proves_less_but_nothing_wrong(
    off: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = draw(6, "generic", "squared", q=2, d1=3, d2=1)
    right = np.linalg.qr

    def turned(a: np.ndarray, mode: str = "reduced") -> tuple[np.ndarray, np.ndarray]:
        Q, R = right(a, mode=mode)
        tilt = off * np.cos(np.arange(Q.size, dtype=float)).reshape(Q.shape)
        return (Q if mode == "complete" else right(Q + tilt)[0]), R

    monkeypatch.setattr(np.linalg, "qr", turned)
    assert_sound(head, math.inf)


def test_a_skewed_basis_proves_nothing_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    head = draw(6, "generic", "squared", q=2, d1=3, d2=1)
    right = np.linalg.qr

    def skewed(a: np.ndarray, mode: str = "reduced") -> tuple[np.ndarray, np.ndarray]:
        Q, R = right(a, mode=mode)
        return (Q if mode == "complete" else Q * (1.0 + 1e-5)), R

    monkeypatch.setattr(np.linalg, "qr", skewed)
    assert_sound(head, math.inf)


def test_a_threshold_just_met_is_proven_by_one_factorisation() -> None:
    head = draw(9, "generic", "squared", q=2, d1=3)
    parts = parts_of(head.problem())
    found = curvature(parts)
    wide = replace(found, lambda_min=replace(found.lambda_min, lower=-1e9))
    limit = Enclosure.exact(-found.lambda_min.lower * (1.0 + 1e-6) + 1e-12)
    assert decided(wide, limit, lambda t: hessian_exceeds(parts, t)).lambda_min.lower == -limit.lower
    below = Enclosure.exact(-found.lambda_min.upper * (1.0 - 1e-6) - 1e-12)
    assert decided(wide, below, lambda t: hessian_exceeds(parts, t)) == wide
    assert decided(wide, None, lambda t: True) == wide


# --- Along a direction --------------------------------------------------------------------------------------


@pytest.mark.parametrize("corner", CORNERS)
def test_a_rayleigh_quotient_holds_its_value(corner: str) -> None:
    head = heads(50, corner)
    problem, rng = head.problem(), np.random.default_rng(1)
    moments = observe(problem, 1.0).here
    u = Direction(rng.normal(size=problem.W.shape), rng.normal(size=problem.V.shape))
    flat = np.concatenate([u.dW.ravel(), u.dV.ravel()])
    exact = float(flat @ dense(head) @ flat / (flat @ flat))
    found = rayleigh_quotient(moments, problem.W, problem.d1, u)
    assert found.lower - 1e-12 <= exact <= found.upper + 1e-12
    assert found.upper - found.lower <= 1e-10 * max(
        1.0, abs(exact), float(hessian_size(moments, problem.W, problem.d1))
    )


def test_a_direction_of_length_zero_has_no_rayleigh_quotient() -> None:
    problem = draw(1, "generic", "squared").problem()
    nothing = Direction(np.zeros_like(problem.W), np.zeros_like(problem.V))
    assert not rayleigh_quotient(observe(problem, 1.0).here, problem.W, problem.d1, nothing).known


@pytest.mark.parametrize("corner", CORNERS)
def test_the_size_of_the_hessian_is_an_upper_bound(corner: str) -> None:
    head = heads(60, corner)
    problem = head.problem()
    size = hessian_size(observe(problem, 1.0).here, problem.W, problem.d1)
    assert np.linalg.norm(dense(head), 2) <= float(size) * (1.0 + 1e-12)


def test_what_is_not_finite_proves_nothing() -> None:
    rng = np.random.default_rng(0)
    A_f, Q = rng.normal(size=(2, 3)), np.full((5, 5), np.inf)
    found = curvature(
        reduction(Given(Ball.exact(A_f), Ball(Q, Radius.of(np.inf))), rng.normal(size=(2, 2)), 2)
    )
    assert found.lambda_min.lower <= -np.linalg.norm(A_f, 2) + 1e-12
    assert found.lambda_min.upper == math.inf
    unknown = Given(Ball(A_f * np.nan, Radius.of(np.inf)), Ball(Q, Radius.of(np.inf)))
    assert not curvature(reduction(unknown, rng.normal(size=(2, 2)), 2)).lambda_min.known


def test_a_tiny_slope_of_the_features_is_refuted_at_threshold_zero() -> None:
    """A_f ≠ 0 where W_1 has a kernel makes λ_min < 0, however small it is."""
    for W in (np.array([[3.0, 7.0]]), np.array([[3.0, 0.0]]), np.array([[0.0, 0.0], [1.0, 0.0]])):
        q = len(W)
        moments = Given(Ball.exact(np.full((q, 2), 1e-160)), Ball.exact(np.eye(4)))
        nothing = Direction(np.zeros((q, 2)), np.zeros((2, 2)))
        u = refuting_direction(moments, W, 2, 0.0, nothing)
        assert exact_second_derivative(np.full((q, 2), 1e-160), W, u) < 0


def exact_second_derivative(A_f: np.ndarray, W: np.ndarray, u: Direction) -> Fraction:
    """D²F along u, with Q = I, in rational numbers."""
    exact = np.vectorize(Fraction)
    dW, dV, A_f, W = (exact(a) for a in (u.dW, u.dV, A_f, W))
    return (dW**2).sum() + ((W @ dV) ** 2).sum() + 2 * ((dW @ dV) * A_f).sum()


def test_exactness_is_a_fact_that_is_carried() -> None:
    """A basis of one row or of all of R^d1 misses nothing; that of several rows, and an N, do by rounding."""
    rng = np.random.default_rng(0)
    moments = Given(Ball.exact(np.zeros((3, 4))), Ball.exact(np.eye(8)))
    W = rng.normal(size=(3, 4))
    assert not reduction(moments, W, 4).missed.exact
    assert reduction(moments, W, 2).missed is NOTHING
    assert reduction(moments, W * np.array([[1.0], [0.0], [0.0]]), 4).missed is NOTHING
    assert reduction(moments, W, 2).T.radius is NOTHING
    assert not reduction(moments, W, 2, sum_free_basis(3)).T.radius.exact


# --- Without the margins ------------------------------------------------------------------------------------


def false_proofs() -> int:
    """How many t are proven at which S(t) is singular or worse, of moments that are exact in floats."""
    wrong = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        q, d, k = 2, 2, 2
        z = rng.integers(-9, 10, (q * d, d + k)).astype(float)
        Q = z.T @ z / 16.0  # in floats, exactly
        W = rng.integers(-9, 10, (q, d)) / 8.0
        parts = reduction(Given(Ball.exact(np.zeros((q, k))), Ball.exact(Q)), W, d)
        S = np.block([[parts.first.center, parts.cross.center], [parts.cross.center.T, parts.last.center]])
        vectors = np.linalg.eigh(S)[1]
        # λ_min of the float matrix is at most this Rayleigh quotient, rounded up.
        v = [Fraction(x) for x in vectors[:, 0].tolist()]
        rows = [[Fraction(x) for x in row] for row in S.tolist()]
        top = sum(a * sum(s * b for s, b in zip(row, v, strict=True)) for a, row in zip(v, rows, strict=True))
        t = -math.nextafter(float(top / sum(a * a for a in v)), math.inf)
        wrong += hessian_exceeds(parts, t)
    return wrong


def test_without_its_margins_the_proof_would_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from resnet_cert.decide import hessian
    from resnet_cert.numerics import eigenvalues

    assert false_proofs() == 0
    for module in (hessian, eigenvalues):
        monkeypatch.setattr(module, "gamma", lambda k: 0.0)
        monkeypatch.setattr(module, "U", 0.0)
    monkeypatch.setattr(eigenvalues, "_confirm_factor", lambda R, T: None)
    assert false_proofs() > 0
