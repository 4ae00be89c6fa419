"""Moments, losses and Lipschitz constants of several outputs against ball arithmetic and the definitions."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from flint import arb, ctx
from vector_families import CORNERS, LOSSES, draw
from vector_oracle import BITS, VectorSample, VectorTruth, loss_and_derivatives

from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.problem.problem import BLOCK_ROWS
from resnet_cert.vector import losses
from resnet_cert.vector import moments as vector_moments
from resnet_cert.vector.hessian import reduction
from resnet_cert.vector.losses import named_loss
from resnet_cert.vector.moments import VectorMoments, observe


@pytest.fixture(autouse=True)
def _precision():
    with ctx.workprec(BITS):
        yield


def holds(ours: Enclosure, truth: arb) -> bool:
    """Whether the truth, known to 70 digits, may lie inside."""
    return not truth < arb(ours.lower) and not truth > arb(ours.upper)


def off(center: np.ndarray, truth: list[list[arb]]) -> arb:
    """The Frobenius norm of center − truth, rounded down in its 70th digit."""
    total = arb(0)
    for row, exact in zip(center.tolist(), truth, strict=True):
        for entry, number in zip(row, exact, strict=True):
            total += abs(arb(entry) - number) * abs(arb(entry) - number)
    return total.abs_lower().sqrt()


def moments_of(sample: VectorSample) -> VectorMoments:
    return observe(sample.problem(), 1.0).here


# --- The losses ---------------------------------------------------------------------------------------------


def targets(rng: np.random.Generator, kind: str, q: int, hard: bool) -> tuple[np.ndarray, np.ndarray]:
    """y and omega (1, q)."""
    y = {"softmax": rng.dirichlet(np.ones(q)), "logistic": rng.uniform(size=q)}.get(kind, rng.normal(size=q))
    if hard and kind in ("softmax", "logistic"):
        y = np.eye(q)[rng.integers(q)]
    return y[None, :], rng.uniform(0.0, 3.0, size=(1, q))


def dense_second(second: np.ndarray, q: int) -> np.ndarray:
    """∇²ℓ of one sample as a matrix."""
    one = second[0]
    return np.eye(q) * one if one.ndim == 0 else np.diag(one) if one.ndim == 1 else one


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_losses_lie_within_their_errors_of_the_definition(kind: str, scale: float) -> None:
    rng = np.random.default_rng(LOSSES.index(kind))
    loss = named_loss(kind, scale)
    for size, hard, q in itertools.product((1e-3, 1.0, 30.0), (False, True), (1, 2, 3, 5)):
        y, omega = targets(rng, kind, q, hard)
        p = rng.normal(size=(1, q)) * size
        error = float(10.0 ** rng.uniform(-16, -3))
        step = rng.normal(size=q)
        step *= 0.99 * error / float(np.linalg.norm(step))
        at = loss.derivatives(p, np.array([error]), y, omega if kind == "weighted_squared" else None)
        true_p = [arb(float(a)) + arb(float(b)) for a, b in zip(p[0], step, strict=True)]
        value, slope, bend = loss_and_derivatives(
            kind, true_p, *([arb(float(e)) for e in row[0]] for row in (y, omega))
        )
        factor = arb(scale)
        assert off(at.value[None, :], [[factor * value]]) <= arb(float(at.value_error[0]))
        found = off(at.first, [[factor * s for s in slope]])
        assert found <= arb(float(at.first_error[0]))
        # The error of ∇²ℓ is bounded in spectral norm, which is at least 1/√q of Frobenius'.
        second = dense_second(at.second, q)
        gap = off(second, [[factor * b for b in row] for row in bend])
        assert gap <= arb(math.sqrt(q) * float(at.second_error[0]) * (1 + 1e-12) + 1e-300)
        assert np.linalg.norm(np.abs(second), 2) <= float(at.second_size[0]) * (1 + 1e-12)
        # ... and the errors are no larger than they need be.
        assert at.value_error[0] <= 1e3 * (error + 1e-15) * (1.0 + abs(at.value[0]) + np.abs(at.first).sum())
        assert at.first_error[0] <= 20.0 * (error + 1e-14) * (1.0 + np.abs(at.first).sum())


@pytest.mark.parametrize("kind", ["logistic", "softmax"])
def test_confident_predictions_keep_their_relative_accuracy(kind: str) -> None:
    y = np.array([[0.0, 1.0, 0.0]])
    p = np.array([[-40.0, 40.0, -45.0]])
    at = named_loss(kind).derivatives(p, np.array([1e-15]), y, None)
    assert 0.0 < at.value[0] < 1e-16
    for value, error in ((at.value, at.value_error), (np.linalg.norm(at.first), at.first_error)):
        assert float(np.max(error)) <= 1e-12 * float(np.max(value))


@pytest.mark.parametrize("kind", ["logistic", "softmax"])
def test_a_derivative_that_underflows_may_be_large_nearby(kind: str) -> None:
    """At a margin of 750 ∇ℓ and ∇²ℓ come out as 0; predictions are known to within 100 only."""
    p = 750.0 if kind == "logistic" else 375.0  # of softmax, p_1 − p_2 counts
    at = named_loss(kind).derivatives(np.array([[p, -p]]), np.array([100.0]), np.array([[1.0, 0.0]]), None)
    near = [arb(p - 70.0), arb(70.0 - p)]
    with ctx.workprec(8 * BITS):  # e^−610 beside 1
        _, slope, bend = loss_and_derivatives(kind, near, [arb(1), arb(0)], [arb(1), arb(1)])
        assert not at.first.any()
        assert off(at.first, [slope]) <= arb(float(at.first_error[0]))
        assert off(dense_second(at.second, 2), bend) <= arb(float(at.second_error[0]))


@pytest.mark.parametrize("kind", LOSSES)
def test_suprema_bound_the_derivatives_on_the_ball_and_are_nearly_reached(kind: str) -> None:
    rng = np.random.default_rng(5)
    loss = named_loss(kind)
    for q, reach in itertools.product((1, 2, 3), (0.1, 1.0, 4.0)):
        best = np.zeros(3)
        y, omega = targets(rng, kind, q, hard=True)
        weights = omega if kind == "weighted_squared" else None
        L = np.array([part[0] for part in loss.suprema(np.array([reach]), y, weights)])
        for _ in range(400):
            p, v = rng.normal(size=(2, q))
            p *= reach * rng.uniform() ** 0.1 / np.linalg.norm(p)
            v /= np.linalg.norm(v)
            at = loss.derivatives(p[None, :], np.zeros(1), y, weights)
            later, before = (
                loss.derivatives((p + s * v)[None, :], np.zeros(1), y, weights) for s in (1e-4, -1e-4)
            )
            third = v @ (dense_second(later.second, q) - dense_second(before.second, q)) @ v / 2e-4
            sizes = [np.linalg.norm(at.first), np.linalg.norm(dense_second(at.second, q), 2), abs(third)]
            best = np.maximum(best, sizes)
        assert np.all(best <= L * (1 + 1e-3) + 1e-7)
        if kind in ("squared", "weighted_squared") or (q == 2 and reach == 1.0):
            assert best[1] >= 0.7 * L[1]


def test_the_third_derivative_of_softmax_reaches_its_bound() -> None:
    s = 0.5 - math.sqrt(1.0 / 12.0)  # a variable of two values with the largest third moment
    gap = math.log(s / (1.0 - s))
    p, v = np.array([gap / 2.0, -gap / 2.0]), np.array([1.0, -1.0]) / math.sqrt(2.0)
    y, step = np.array([[1.0, 0.0]]), 1e-5
    later, before = (
        named_loss("softmax").derivatives((p + t * v)[None, :], np.zeros(1), y, None).second[0]
        for t in (step, -step)
    )
    third = abs(float(v @ (later - before) @ v)) / (2.0 * step)
    bound = float(named_loss("softmax").suprema(np.array([9.0]), y, None)[2][0])
    assert third == pytest.approx(math.sqrt(6.0) / 9.0, rel=1e-6)
    assert bound == pytest.approx(math.sqrt(6.0) / 9.0, rel=1e-13)


# --- The moments --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("seed", range(4))
def test_moments_lie_within_their_radii(corner: str, seed: int) -> None:
    sample = draw(seed, corner)
    assert misses(sample) == set()


def misses(sample: VectorSample) -> set[str]:
    """The moments that do not hold their true value."""
    truth, ours = VectorTruth(sample), moments_of(sample)
    found = set()
    if not holds(ours.F, truth.F):
        found.add("F")
    for name, ball, exact in (("g_W", ours.g_W, truth.g_W), ("A_f", ours.A_f, truth.A_f)):
        if not off(ball.center, exact) <= arb(ball.radius):
            found.add(name)
    # D²F on the directions (dW, 0) is the part of Q on h; on the others it is Q on f, twisted by W.
    q, d = sample.W.shape
    dense = reduction(ours, sample.W).Q
    m = len(dense.center) // q
    block = dense.center.reshape(q, m, q, m)[:, :d, :, :d].reshape(q * d, q * d)
    size = math.sqrt(q * d)  # the radius is a spectral norm
    exact = [row[: q * d] for row in truth.hessian[: q * d]]
    if not off(block, exact) <= arb(size * dense.radius):
        found.add("Q")
    return found


def test_without_the_error_of_the_predictions_the_gradient_is_missed(monkeypatch) -> None:
    def mirrored(seed: int) -> VectorSample:
        """Every sample twice, with residuals p − y of both signs: nearly all of ∇F cancels."""
        half = draw(seed, "V = 0", "squared", d=3, q=2)
        p = half.x @ half.W.T
        twice = {"x": [half.x, half.x], "f": [half.f, half.f], "y": [half.y, 2.0 * p - half.y]}
        return replace(half, **{name: np.concatenate(parts) for name, parts in twice.items()})

    samples = [mirrored(seed) for seed in range(8)]
    assert not any(misses(sample) for sample in samples)
    for module in (vector_moments, losses):
        monkeypatch.setattr(module, "gamma", lambda k: 0.0)
        monkeypatch.setattr(module, "U", 0.0)
    assert {name for sample in samples for name in misses(sample)} >= {"g_W", "A_f"}


@pytest.mark.parametrize("kind", LOSSES)
def test_moments_do_not_depend_on_how_the_rows_are_cut(kind: str, monkeypatch) -> None:
    sample = draw(3, "generic", kind, n=BLOCK_ROWS + 77, d=3, k=2, q=3)
    whole = moments_of(sample)
    monkeypatch.setattr("resnet_cert.problem.problem.CHUNK_BYTES", 1)
    monkeypatch.setattr("resnet_cert.problem.problem.BLOCK_ROWS", 100)
    assert len(list(sample.problem().chunks())) == 6
    cut = moments_of(sample)
    assert abs(whole.F.value - cut.F.value) <= 1e-13
    for mine, theirs in ((whole.g_W, cut.g_W), (whole.A_f, cut.A_f), (whole.Q, cut.Q)):
        assert mine.center.shape == theirs.center.shape
        assert np.linalg.norm(mine.center - theirs.center) <= mine.radius + theirs.radius


@pytest.mark.parametrize(("kind", "ndim"), [("squared", 2), ("logistic", 3), ("softmax", 4)])
def test_the_second_moment_is_as_small_as_the_loss_allows(kind: str, ndim: int) -> None:
    ours = moments_of(draw(0, "generic", kind, d=2, k=3, q=3))
    assert ours.Q.center.shape == (*(3,) * (ndim - 2), 5, 5)
    dense = ours.dense().center
    assert dense.shape == (15, 15)
    assert np.array_equal(dense, dense.T)


# --- Lipschitz constants ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LOSSES)
def test_lipschitz_constants_bound_difference_quotients(kind: str) -> None:
    rng = np.random.default_rng(8)
    sample = draw(1, "hard labels", kind, d=2, k=2, q=2, n=4)
    b = 0.8
    mu = observe(sample.problem(), b).lipschitz
    worst = np.zeros(3)
    for _ in range(60):
        places = []
        for _ in range(2):
            W, V = rng.normal(size=(2, 2)), rng.normal(size=(2, 2))
            places.append((W * b / np.linalg.norm(W, 2), V * b / np.linalg.norm(V, 2)))
        (W0, V0), (W1, V1) = places
        if rng.random() < 0.7:  # near by
            W1, V1 = W0 + 1e-3 * (W1 - W0), V0 + 1e-3 * (V1 - V0)
        distance = math.hypot(np.linalg.norm(W1 - W0), np.linalg.norm(V1 - V0))
        ends = [plain_derivatives(sample, W, V) for W, V in ((W0, V0), (W1, V1))]
        sizes = [
            abs(ends[0][0] - ends[1][0]),
            np.linalg.norm(ends[0][1] - ends[1][1]),
            np.linalg.norm(ends[0][2] - ends[1][2], 2),
        ]
        worst = np.maximum(worst, np.array(sizes) / distance)
    assert np.all(worst <= np.array(mu))
    assert np.all(worst >= 0.02 * np.array(mu))


def plain_derivatives(sample: VectorSample, W: np.ndarray, V: np.ndarray):
    """F, ∇F, ∇²F by autodiff of the definition."""
    from vector_autodiff import derivatives

    return derivatives(sample, W, V)
