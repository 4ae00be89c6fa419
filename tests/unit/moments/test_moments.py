"""The moments of any head against balls, however the rows are cut, ordered and weighted, at every scale."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import heads
import numpy as np
import pytest
import stages
from families import CORNERS, draw
from flint import ctx
from heads import LOSSES, Head
from selections import first
from stages import extreme, missed, true_form

from resnet_cert import Problem
from resnet_cert.moments import gradient, moments, one_pass
from resnet_cert.moments.executors import merged
from resnet_cert.moments.gradient import FirstMoments, curvature_along, first_moments
from resnet_cert.moments.moments import Moments, MomentSums, moment_sums, residual
from resnet_cert.moments.one_pass import observe, observe_first, observed_sums
from resnet_cert.numerics import sums as sums_module
from resnet_cert.numerics.radius import Radius, U
from resnet_cert.numerics.sums import BLOCK_ROWS, Blocks
from resnet_cert.outcomes import InternalError
from resnet_cert.problem import problem as problem_module
from resnet_cert.problem.losses import Derivatives, named_loss
from resnet_cert.problem.problem import Chunk, Direction

Array = np.ndarray
HEADS = list(itertools.product((1, 2, 3), (0, 1)))


# --- The truth lies within the radii --------------------------------------------------------------------


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize(("q", "d2"), HEADS)
def test_every_stage_holds_the_truth(corner, q, d2, longer):
    for seed in range(longer):
        assert not missed(draw(seed, corner, q=q, d2=d2)), seed


@pytest.mark.parametrize("loss", LOSSES)
def test_every_stage_holds_the_truth_from_5e_324_to_1e300(loss, longer):
    for seed in range(6 * longer):
        assert not missed(extreme(seed, loss), bits=4000), seed


@pytest.mark.long
@pytest.mark.parametrize("loss", LOSSES)
def test_every_stage_holds_the_truth_at_every_scale_for_long(loss):
    for seed in range(2000):
        assert not missed(extreme(1000 + seed, loss), bits=4000), seed


def form_misses(head: Head, seed: int, bits: int) -> bool:
    """Is the curvature along a random direction, balanced or not, outside of its enclosure?"""
    rng, problem = np.random.default_rng(seed), head.problem()
    dW, dV = (rng.normal(size=a.shape) * rng.choice([1.0, 1e-3]) for a in (problem.W, problem.V))
    if rng.random() < 0.5:  # as large as the point itself
        dW, dV = dW * problem.W, dV * problem.V
    with ctx.workprec(bits):
        ours = curvature_along(problem, Direction(dW, dV))
        return not stages.holds(ours, true_form(head.truth, dW, dV))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_curvature_along_a_direction_holds_the_truth(loss, monkeypatch, longer):
    for seed in range(6 * longer):
        assert not form_misses(draw(seed, "generic", loss), seed, heads.BITS), seed
    monkeypatch.setattr(heads, "BITS", 4000)
    for seed in range(6 * longer):
        assert not form_misses(extreme(seed, loss), seed, 4000), seed


def test_the_curvature_of_softmax_along_equal_steps_is_nearly_nothing():
    """∇²ℓ·1 = 0: a step that is the same for all outputs changes nothing but by 2⟨dW_1 dV, A_f⟩ = 0."""
    problem = draw(3, "generic", "softmax", q=3, d1=2).problem()
    step = Direction(np.ones((3, 1)) @ np.full((1, problem.d), 1e3), np.zeros_like(problem.V))
    ours = curvature_along(problem, step)
    assert ours.lower <= 0.0 <= ours.upper <= 1e-7


@pytest.mark.parametrize("loss", LOSSES)
def test_the_radii_are_a_few_roundings_for_moderate_numbers(loss):
    for seed in range(4):
        head = draw(seed, "generic", loss)
        seen, first = observe(head.problem(), 1.0), first_moments(head.problem())
        z = np.abs(head.inputs).max() + np.abs(head.f).max() * (1.0 + np.abs(head.V).max()) * 3.0
        p = 3.0 * z * np.abs(head.head).max()
        steep = (1.0 + np.abs(head.y).max() + p) * (1.0 + 3.0 * z) ** 2 * 3.0
        steep *= math.exp(p) if loss == "poisson" else 1.0
        for at in (seen.here, first):
            for ball in (at.g_W, at.A_f):
                assert float(ball.radius) <= 1e-13 * steep
        assert float(seen.here.Q.radius) <= 1e-13 * steep * (1.0 + p)


@pytest.mark.parametrize(
    ("loss", "scale", "x", "f", "w", "y", "probability"),
    [
        ("squared", 1e-5, 1e150, 0.0, 0.0, 0.0, 1e-320),  # πc'' underflows beside x²
        ("poisson", 1.0, 1e-170, 0.0, 6.9e172, 1.0, 0.5),  # x² underflows beside e^p
        ("squared", 1.0, 5e-310, 1e300, 1e300, 5e-310 * 1e300, 0.5),  # u·x underflows beside w
        ("logistic", 1.0, 1e3, 1e300, 1.0, 1.0, 0.5),  # e^{−p} underflows beside f
        ("pseudo_huber", 1.0, 1e-200, 1e300, 1.0, 0.0, 0.5),  # ℓ' = r is tiny beside f
    ],
)
def test_what_underflows_beside_something_large_is_paid_for(loss, scale, x, f, w, y, probability):
    data = Head(
        x=np.array([[0.0], [x]]),
        y=np.array([[0.0], [y]]),
        f=np.array([[0.0], [f]]),
        W=np.array([[w]]),
        V=np.zeros((1, 1)),
        loss=loss,
        probabilities=np.array([1.0 - probability, probability]),
    )
    assert not missed(data, bits=4000)


class Bent:
    """ℓ'' = −3 ± 1, as a loss known only to within its errors may come out."""

    def derivatives(self, p: Array, error: Radius, y: Array, omega: Array | None) -> Derivatives:
        m = len(p)
        one, none = np.ones(m), Radius.of(np.zeros(m))
        return Derivatives(one, none, one[:, None], none, -3.0 * one, Radius.of(one), Radius.of(3.0 * one))


def test_a_second_derivative_that_comes_out_negative_is_paid_for():
    chunk, blocks = Chunk(np.array([[2.0]]), np.array([[5.0]]), np.zeros((1, 1))), Blocks(0, 1)
    at = residual(chunk, np.zeros((1, 1)), blocks)
    ours = moment_sums(Bent(), chunk, at, np.ones((1, 1)), blocks).expectation()  # type: ignore[arg-type]
    for (i, j), size in {(0, 0): 4.0, (0, 1): 10.0, (1, 1): 25.0}.items():
        assert ours.Q.center[i, j] - float(ours.Q.radius) <= -4.0 * size
        assert ours.Q.center[i, j] + float(ours.Q.radius) >= -2.0 * size


@pytest.mark.filterwarnings("error")
def test_what_overflows_is_unknown_and_no_warning():
    problem = Problem.from_arrays(x=[[1e200], [1.0]], y=[0.0, 0.0], f=[[1.0], [1.0]], w=[1e200], V=[[0.0]])
    ours = observe(problem, 1e200)
    assert ours.here.F.upper == math.inf
    assert not ours.here.Q.known
    assert first_moments(problem).F.upper == math.inf
    assert ours.lipschitz is not None


# --- The margins are needed -----------------------------------------------------------------------------


def exact_head(seed: int, n: int) -> Head:
    """Squared loss and V = 0: h = x and ℓ'' = 1 are exact, products and sums are not."""
    head = draw(seed, "V = 0", "squared", q=1, d1=2, d2=0, bias=False)
    rng = np.random.default_rng(seed)
    x, f, y = rng.normal(size=(n, 2)), rng.normal(size=(n, head.f.shape[1])), rng.normal(size=(n, 1))
    return replace(head, x=x, f=f, y=y)


def test_without_gamma_the_sums_are_missed(monkeypatch):
    samples = [exact_head(seed, 500) for seed in range(2)]
    assert not any(missed(sample) for sample in samples)

    def unconfirmed(self, left, right, sizes, out=None, probe=None):
        return np.stack([left.T @ right])

    monkeypatch.setattr(Blocks, "products", unconfirmed)
    monkeypatch.setattr(sums_module, "gamma", lambda k: 0.0)
    monkeypatch.setattr(sums_module, "U", 0.0)
    assert {name for sample in samples for name in missed(sample)} >= {"Q", "Q at 0"}


def test_without_the_error_of_h_all_that_depends_on_it_is_missed(monkeypatch):
    rng = np.random.default_rng(12)
    f, V = rng.normal(size=(3, 20)), rng.normal(size=(3, 20))
    head = Head(  # h is rounding only
        x=-f @ V.T, y=np.zeros((3, 1)), f=f, W=rng.normal(size=(1, 3)), V=V, loss="pseudo_huber"
    )
    assert not missed(head)
    with_error = residual

    def without_error(*arguments):
        return replace(with_error(*arguments), error=Radius.of(0.0))

    monkeypatch.setattr(one_pass, "residual", without_error)
    assert set(missed(head)) >= {"F", "g_W", "A_f", "Q at 0"}


@pytest.mark.parametrize(("module", "name"), [(moments, "g_W"), (gradient, "first A_f")])
def test_without_the_roundings_of_p_the_gradient_is_missed(module, name, monkeypatch):
    rng = np.random.default_rng(13)
    samples = []
    for _ in range(6):  # one sample, f = 1: A_f is the residual, which cancels
        x, W = rng.normal(size=(1, 40)), rng.normal(size=(1, 40))
        samples.append(Head(x=x, y=x @ W.T, f=np.ones((1, 1)), W=W, V=np.zeros((40, 1))))
    assert not any(missed(sample) for sample in samples)
    monkeypatch.setattr(module, "gamma", lambda k: 0.0)
    assert name in {name for sample in samples for name in missed(sample)}


# --- Blocks, chunks, and the order of rows --------------------------------------------------------------


def integers(n: int, seed: int = 0, weights: Array | None = None) -> Problem:
    """Small integers: every product and every sum of them is an integer below 2^53, and float64 is exact."""
    rng = np.random.default_rng(seed)
    x, f, y, W, V = (rng.integers(-9, 10, size=s) for s in ((n, 3), (n, 2), (n, 2), (2, 3), (3, 2)))
    return Problem.from_arrays(x=x, y=y, f=f, W=W, V=V, probabilities=weights)


def exact_sums(problem: Problem) -> dict[str, Array]:
    chunk = problem.chunk(slice(None))
    h = chunk.x + chunk.f @ problem.V.T
    r, z = h @ problem.W.T - chunk.y, np.hstack([h, chunk.f])
    return {"F": np.sum(r * r) / 2.0, "g_W": r.T @ h, "A_f": r.T @ chunk.f, "Q": z.T @ z}


def sums_of(problem: Problem, chunk_blocks: int):
    """The parts of the pass, so many blocks at a time."""
    rows = chunk_blocks * BLOCK_ROWS
    for start in range(0, problem.n, rows):
        chunk = problem.chunk(slice(start, min(start + rows, problem.n)))
        yield observed_sums(problem, chunk, Blocks(start // BLOCK_ROWS, len(chunk.x)), 1.0)


@pytest.mark.parametrize("n", [1, 2, 511, 512, 513, 1023, 1024, 1025, 5000])
def test_no_row_is_lost_or_counted_twice_at_the_edges_of_blocks(n):
    problem = integers(n)
    seen = merged(sums_of(problem, 3)).here
    assert seen is not None
    assert seen.weight.total().center == n
    assert seen.weight.total().radius.exact
    for name, exact in exact_sums(problem).items():
        assert np.array_equal(getattr(seen, name).total().center, exact), name
        ball = getattr(seen.expectation(), name) if name != "F" else None
        if ball is not None:
            off = zip(ball.center.ravel(), exact.ravel(), strict=True)
            off2 = sum((Fraction(float(mine)) - Fraction(int(e), n)) ** 2 for mine, e in off)
            assert off2 <= Fraction(float(ball.radius)) ** 2


def floats_of(seen: one_pass.Observed) -> list[float]:
    numbers = []
    for at in (seen.here, seen.origin):
        numbers += [at.F.lower, at.F.upper]
        for ball in (at.g_W, at.A_f, at.Q):
            numbers += [*ball.center.ravel().tolist(), float(ball.radius)]
    assert seen.lipschitz is not None
    return [*numbers, seen.lipschitz.mu0, seen.lipschitz.mu1, seen.lipschitz.mu2]


@pytest.mark.parametrize("loss", LOSSES)
def test_any_cut_and_any_order_of_merging_give_the_same_floats(loss):
    rng = np.random.default_rng(3)
    n, head = 4000, draw(4, "generic", loss, q=2, d1=3)
    rows = rng.integers(0, len(head.x), n)
    names = ("x", "y", "f", "bypass", "omega")
    arrays = {name: getattr(head, name)[rows] for name in names if getattr(head, name) is not None}
    arrays["x"] = arrays["x"] + rng.normal(size=arrays["x"].shape)
    problem = replace(head, **arrays).problem()

    def floats(parts):
        return floats_of(merged(parts).observed(problem, 1.0, MomentSums.expectation))

    expected = floats(sums_of(problem, 8))
    for blocks in (1, 2, 3, 5):
        parts = list(sums_of(problem, blocks))
        order = rng.permutation(len(parts))
        assert (
            floats_of(merged(parts[i] for i in order).observed(problem, 1.0, MomentSums.expectation))
            == expected
        )
    assert floats_of(observe(problem, 1.0)) == expected


def test_chunks_of_any_size_give_the_same_first_moments(monkeypatch):
    def floats(first: FirstMoments) -> list:
        return [first.F, first.g_W.center.tolist(), float(first.g_W.radius), first.A_f.center.tolist()]

    problem = integers(3000, seed=6)
    whole = floats(first_moments(problem))
    for chunk_bytes in (1, 2**15, 2**17):
        monkeypatch.setattr(problem_module, "CHUNK_BYTES", chunk_bytes)
        assert floats(first_moments(problem)) == whole


@pytest.mark.parametrize("loss", ["softmax", "logistic", "squared"])
def test_chunks_of_any_size_give_the_same_slopes_of_targets_of_which_some_are_classes(loss, monkeypatch):
    rng, n, q = np.random.default_rng(7), 2600, 20
    y = rng.dirichlet(np.ones(q), size=n)
    y[512:1700] = np.eye(q)[rng.integers(0, q, 1188)]  # two whole blocks, and a part of one
    problem = Problem.from_arrays(
        x=rng.normal(size=(n, 3)), y=y, f=rng.normal(size=(n, 2)), W=rng.normal(size=(q, 3)),
        V=rng.normal(size=(3, 2)), loss=loss, hessian="bound",
    )  # fmt: skip

    def floats() -> list:
        seen, found = observe_first(problem, 1.0), []
        for part in (seen.here, seen.origin):
            for ball in (part.g_W, part.A_f, part.slope_x):
                found += [ball.center.tolist(), float(ball.radius)]
            found += [part.F]
        return [*found, seen.lipschitz]

    whole = floats()
    for chunk_bytes in (1, 2**19, 2**20):
        monkeypatch.setattr(problem_module, "CHUNK_BYTES", chunk_bytes)
        assert floats() == whole


def test_a_block_is_summed_once():
    problem = integers(600)
    part = next(sums_of(problem, 1))
    with pytest.raises(ValueError, match="block 0 is summed twice"):
        part + part


def test_the_radius_is_that_of_a_block_and_does_not_grow_with_the_number_of_rows():
    rng = np.random.default_rng(5)
    for n in (8192, 40_960):
        x, f, V = rng.normal(size=(n, 3)), rng.normal(size=(n, 2)), rng.normal(size=(3, 2))
        problem = Problem.from_arrays(x=x, y=rng.normal(size=n), f=f, w=np.ones(3), V=V)
        z2 = float(np.mean(np.sum(np.hstack([x + f @ V.T, f]) ** 2, axis=1)))
        assert float(observe(problem, 1.0).here.Q.radius) <= 2.0 * 512 * U * z2


@pytest.mark.parametrize("loss", ["squared", "logistic", "softmax"])
@pytest.mark.parametrize("entry", [(0, 0), (1, 1), (0, 2)])
def test_a_product_that_is_wrong_in_one_entry_is_an_internal_error(loss, entry, monkeypatch):
    head = draw(7, "generic", loss, q=3, d1=3, d2=0)
    honest = np.matmul

    def faulty(a, b, out=None):
        result = honest(a, b, out=out)
        if out is not None and b.ndim == 3 and min(out.shape[1:]) > 3:  # a second moment
            result[0, *entry] += 1e-6 * max(1.0, abs(result[0, *entry]))
        return result

    monkeypatch.setattr(np, "matmul", faulty)
    with pytest.raises(InternalError, match=r"a matrix product over \d rows is wrong by"):
        observe(head.problem(), 1.0)


# --- Weights --------------------------------------------------------------------------------------------


def overlap(one: Moments, other: Moments) -> bool:
    near = max(one.F.lower, other.F.lower) <= min(one.F.upper, other.F.upper)
    for name in ("g_W", "A_f", "Q"):
        mine, theirs = getattr(one, name), getattr(other, name)
        off = float(np.linalg.norm(mine.center - theirs.center))
        near = near and off <= (float(mine.radius) + float(theirs.radius)) * (1 + 1e-12)
    return near


def test_integer_weights_are_repeated_rows():
    rng, problem = np.random.default_rng(8), integers(700, seed=8)
    counts = rng.integers(1, 5, size=700)
    chunk = problem.chunk(slice(None))
    rows = np.repeat(np.arange(700), counts)
    repeated = Problem.from_arrays(
        x=chunk.x[rows], y=chunk.y[rows], f=chunk.f[rows], W=problem.W, V=problem.V
    )
    weighted = integers(700, seed=8, weights=counts / counts.sum())
    assert overlap(observe(weighted, 1.0).here, observe(repeated, 1.0).here)
    assert float(observe(weighted, 1.0).here.Q.radius) <= 1e-9


def test_the_total_weight_lies_within_its_radius():
    rng = np.random.default_rng(18)
    for n in (1, 3, 700):
        weights = 10.0 ** rng.uniform(-3, 3, n)
        chunk = Chunk(np.ones((n, 1)), np.ones((n, 1)), np.ones((n, 1)), weight=weights)
        total = moments.weight_sum(chunk, Blocks(0, n)).total()
        exact = sum(map(Fraction, weights.tolist()), Fraction(0))
        assert abs(exact - Fraction(float(total.center))) <= Fraction(float(total.radius))
        assert float(total.radius) <= 3.0 * n * U * float(exact)


# --- h = x + EVf, W = 0, V = 0 --------------------------------------------------------------------------


def test_without_V_the_residual_is_x_itself():
    x = np.random.default_rng(11).normal(size=(5, 3))
    at = residual(Chunk(x, np.ones((5, 2)), np.zeros((5, 1))), np.zeros((3, 2)), Blocks(0, 5))
    assert np.array_equal(at.h, x)
    assert at.error.exact


def test_at_W_zero_the_second_moments_of_f_are_left_out():
    head = draw(2, "W = 0", "logistic", q=2)
    ours = observe(head.problem(), 1.0).here
    assert ours.Q.center.shape[-1] == head.head.shape[1]


def test_without_features_the_gradient_in_V_is_exactly_nothing():
    head = draw(2, "f = 0", "logistic", q=2)
    for at in (observe(head.problem(), 1.0).here, first_moments(head.problem())):
        assert not at.A_f.center.any()
        assert at.A_f.radius.exact


@pytest.mark.parametrize(
    ("loss", "weighted"), first(2, [("softmax", True), ("squared", True), ("softmax", False)])
)
def test_slopes_at_zero_by_classes_are_those_of_the_samples(loss: str, weighted: bool):
    """Against rational sums, over three blocks, with classes that no sample has."""
    rng = np.random.default_rng(len(loss) + weighted)
    n, d, k, q = 1100, 3, 2, 20
    x, f = rng.normal(size=(n, d)) * 10.0 ** rng.uniform(-8, 8, (n, 1)), rng.normal(size=(n, k))
    label, pi = rng.integers(0, 12, n), rng.integers(1, 9, n) / 2.0**13
    problem = Problem.from_arrays(
        x=x,
        f=f,
        y=label.astype(float) if loss == "softmax" else np.eye(q)[label],
        W=rng.normal(size=(q, d)),
        V=np.zeros((d, k)),
        loss=named_loss(loss, 0.3),
        probabilities=pi / pi.sum() if weighted else None,
    )
    origin = observe_first(problem, 1.0).origin
    weights = [Fraction(w) for chunk in problem.chunks() for w in chunk.weights.tolist()]
    total = sum(weights)
    for found, data in ((origin.slope_x, x), (origin.A_f, f)):
        exact = np.zeros((q, data.shape[1]), dtype=object) + Fraction(0)
        for w, l, row in zip(weights, label, data.tolist(), strict=True):
            for j, e in enumerate(row):
                exact[:, j] += w * Fraction(e) * (Fraction(1, q) if loss == "softmax" else 0)
                exact[l, j] -= w * Fraction(e)
        pairs = zip(found.center.ravel().tolist(), exact.ravel(), strict=True)
        off = [Fraction(c) - Fraction(0.3) * e / total for c, e in pairs]
        distance, size = float(sum(e * e for e in off)) ** 0.5, float(np.abs(data).max())
        assert distance <= float(found.radius) <= 1e-11 * size
