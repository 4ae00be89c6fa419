"""The moments against exact rationals and balls, however the rows are cut, ordered and weighted."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from families import BENIGN, FAMILIES, LOSSES, gaussian, make, to_problem
from flint import arb, ctx, fmpq
from oracle import BITS, Sample, Truth
from oracle_algebra import dot, norm

from resnet_cert.moments import moments
from resnet_cert.moments.moments import Moments, MomentSums, Residual, Sum, merged, moment_sums, residual
from resnet_cert.numerics.enclosure import Ball, U, inflate
from resnet_cert.outcomes import InternalError
from resnet_cert.problem import problem as problem_module
from resnet_cert.problem.losses import BuiltinLoss, Derivatives
from resnet_cert.problem.problem import Chunk, Distribution, GivenFeatures, MappedRows, Problem

Array = np.ndarray
PARTS = ("g_w", "a", "A", "B", "C")


def sums(problem: Problem, rows: slice | Array = slice(None)) -> MomentSums:
    """The moments of some rows, as one chunk."""
    whole = next(problem.chunks())
    chunk = Chunk(
        whole.x[rows], whole.y[rows], whole.f[rows], None if whole.weight is None else whole.weight[rows]
    )
    return moment_sums(problem.loss, chunk, residual(chunk, problem.point.V), problem.point.w)


def moments_of(problem: Problem) -> Moments:
    return merged(
        moment_sums(problem.loss, chunk, residual(chunk, problem.point.V), problem.point.w)
        for chunk in problem.chunks()
    ).expectation()


# --- The truth lies within the radii ----------------------------------------------------------------------


def distance(center: Array, truth: list) -> arb:
    """The Frobenius distance of a float array from exact numbers or narrow balls."""
    entries = [entry for row in truth for entry in (row if isinstance(row, list) else [row])]
    exact = [arb(entry) if isinstance(entry, fmpq) else entry for entry in entries]
    assert len(exact) == center.size
    off = [arb(float(mine)) - entry for mine, entry in zip(center.ravel(), exact, strict=True)]
    return norm(off) if off else arb(0)


def misses(sample: Sample, problem: Problem | None = None) -> list[str]:
    """The moments whose ball does not hold the true ones."""
    ours = moments_of(problem or to_problem(sample))
    with ctx.workprec(2 * BITS):
        truth = Truth(sample, 2 * BITS, in_rationals=sample.loss == "squared")
        F = arb(truth.F)
        missed = [] if arb(ours.F.lower) <= F <= arb(ours.F.upper) else ["F"]
        for name in PARTS:
            ball = getattr(ours, name)
            if name in "BC" and not sample.w.any():
                assert ball.center.size == 0
            elif (
                math.isfinite(ball.radius) and not distance(ball.center, getattr(truth, name)) <= ball.radius
            ):
                missed.append(name)
    return missed


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_exact_moments_lie_within_the_radii(family):
    for seed in range(8):
        assert not misses(make(family, 100 + seed)), seed


@pytest.mark.parametrize("family", BENIGN)
def test_the_radii_are_a_few_roundings_for_moderate_numbers(family):
    for seed in range(4):
        sample = make(family, seed)
        ours = moments_of(to_problem(sample))
        size = float(np.max(np.abs(sample.x)) + np.max(np.abs(sample.f)) * (1.0 + np.max(np.abs(sample.V))))
        h = np.linalg.norm(sample.x + sample.f @ sample.V.T, axis=1) + size
        steep = max(1.0, sample.scale) * float(np.exp(max(0.0, np.max(h) * np.linalg.norm(sample.w))))
        for name in PARTS:
            assert getattr(ours, name).radius <= 1e-13 * (1.0 + float(np.max(h)) ** 3) * steep
        assert ours.F.upper - ours.F.lower <= 1e-13 * (1.0 + float(np.max(h)) ** 2) * steep


def test_a_prediction_that_cancels_is_held():
    rng = np.random.default_rng(14)
    for _ in range(20):
        sample = gaussian(rng, n=1, d=40, k=1, losses=("squared",))
        sample = replace(sample, V=np.zeros((40, 1)), y=sample.x @ sample.w)  # r = p − y is rounding only
        assert not misses(sample)


def test_products_that_underflow_are_held():
    rng = np.random.default_rng(15)
    for _ in range(5):
        sample = gaussian(rng, n=5, d=2, k=2, losses=("squared",))
        plain = to_problem(sample)
        sample = replace(sample, x=sample.x * 1e-160, f=sample.f * 1e-160)
        small = replace(
            plain, distribution=Distribution(sample.x, sample.y), features=GivenFeatures(sample.f)
        )
        assert not misses(sample, small)


@pytest.mark.parametrize(
    ("loss", "scale", "x", "f", "w", "y", "probability"),
    [
        ("squared", 1e-5, 1e150, 0.0, 0.0, 0.0, 1e-320),  # πc'' underflows beside x²
        ("poisson", 1.0, 1e-170, 0.0, 6.9e172, 1.0, 0.5),  # x² underflows beside e^p
        ("squared", 1.0, 5e-310, 1e300, 1e300, 5e-310 * 1e300, 0.5),  # u·x underflows beside w
    ],
)
def test_what_underflows_beside_something_large_is_paid_for(loss, scale, x, f, w, y, probability):
    sample = Sample(
        np.array([[0.0], [x]]),
        np.array([0.0, y]),
        np.array([[0.0], [f]]),
        np.array([w]),
        np.zeros((1, 1)),
        loss,
        scale,
        np.array([1.0 - probability, probability]),
    )
    with np.errstate(over="ignore", invalid="ignore"):
        assert not misses(sample)


class Bent:
    """ℓ'' = −3 ± 1, as a loss known only to within its errors may come out."""

    def derivatives(self, p: Array, error: Array, y: Array) -> Derivatives:
        one = np.ones_like(p)
        return Derivatives(one, 0.0 * one, one, 0.0 * one, -3.0 * one, one)


def test_a_second_derivative_that_comes_out_negative_is_paid_for():
    chunk = Chunk(np.array([[2.0]]), np.zeros(1), np.array([[5.0]]), None)
    at = moment_sums(Bent(), chunk, residual(chunk, np.zeros((1, 1))), np.ones(1)).expectation()
    for ball, size in ((at.A, 4.0), (at.B, 10.0), (at.C, 25.0)):
        assert ball.center[0, 0] - ball.radius <= -4.0 * size
        assert ball.center[0, 0] + ball.radius >= -2.0 * size


def unconfirmed(left, right, radius, size):
    """`moments.sum_of_products` without the confirmation, which would notice a margin of 0."""
    return moments._added(moments._blocks(left, right), radius, size)


def test_without_gamma_the_second_moments_are_missed(monkeypatch):
    rng = np.random.default_rng(11)
    samples = [gaussian(rng, n=100, d=2, k=2, losses=("squared",)) for _ in range(8)]
    # With V = 0, h = x and ℓ'' = 1 are exact: products and sums are not.
    samples = [replace(sample, V=np.zeros((2, 2))) for sample in samples]
    assert not any(misses(sample) for sample in samples)
    monkeypatch.setattr(moments, "sum_of_products", unconfirmed)
    monkeypatch.setattr(moments, "gamma", lambda k: 0.0)
    assert {name for sample in samples for name in misses(sample)} >= {"A", "B", "C"}


def test_without_the_error_of_h_all_that_depends_on_it_is_missed(monkeypatch):
    sample = gaussian(np.random.default_rng(12), n=3, d=3, k=20, losses=("squared",))
    sample = replace(sample, x=-sample.f @ sample.V.T, y=np.zeros(3))  # h = x + Vf is rounding only
    assert not misses(sample)
    with_error = residual

    def without_error(chunk: Chunk, V: Array) -> Residual:
        at = with_error(chunk, V)
        return replace(at, error=np.zeros_like(at.error))

    monkeypatch.setitem(globals(), "residual", without_error)
    assert set(misses(sample)) >= {"F", "g_w", "a", "A", "B"}


# --- Sums and their quotients -----------------------------------------------------------------------------


def test_a_merged_sum_holds_the_sum_of_all_members():
    rng = np.random.default_rng(16)
    for _ in range(100):
        (u, v), radii = rng.normal(size=(2, 1)), rng.choice([0.0, 1e-17, 0.3], size=2)
        total = Sum(u, radii[0]) + Sum(v, radii[1])
        off = abs(Fraction(u[0]) + Fraction(v[0]) - Fraction(total.value[0]))
        assert off + Fraction(radii[0]) + Fraction(radii[1]) <= Fraction(total.radius)
        assert total.radius <= sum(radii) * (1 + 2e-9) + 2 * U * abs(total.value[0])


def test_blocks_added_in_pairs_hold_their_exact_sum():
    rng = np.random.default_rng(17)
    for count in (1, 2, 3, 8, 21):
        stacks = [rng.normal(size=(count, 1)), rng.normal(size=(1, 1))]
        total = moments._added(stacks, 0.0, sum(float(np.abs(stack).sum()) for stack in stacks))
        exact = sum((Fraction(float(entry)) for stack in stacks for entry in stack[:, 0]), Fraction(0))
        assert abs(exact - Fraction(float(total.value[0]))) <= Fraction(total.radius)
        assert total.radius <= 2.0 * count * U * float(np.abs(stacks[0]).sum() + 1.0)


def test_an_expectation_holds_the_quotients_by_every_total_weight():
    one, none = Sum(np.array([1.0]), 0.0), Sum(np.zeros((0, 0)), 0.0)
    at = MomentSums(
        Sum(np.asarray(3.0), 0.1), Sum(np.asarray(1.0), 0.0), one, one, none, none, none
    ).expectation()
    for quotient in (Fraction(1) / (3 - Fraction(0.1)), Fraction(1) / (3 + Fraction(0.1))):
        assert Fraction(at.F.lower) <= quotient <= Fraction(at.F.upper)
        assert abs(quotient - Fraction(float(at.a.center[0]))) <= Fraction(at.a.radius)


def test_the_total_weight_lies_within_its_radius():
    rng = np.random.default_rng(18)
    for n in (1, 3, 700):
        weights = 10.0 ** rng.uniform(-3, 3, n)
        chunk = Chunk(np.ones((n, 1)), np.ones(n), np.ones((n, 1)), weights)
        at = moment_sums(BuiltinLoss("squared"), chunk, residual(chunk, np.ones((1, 1))), np.ones(1))
        exact = sum(map(Fraction, weights.tolist()), Fraction(0))
        assert abs(exact - Fraction(float(at.weight.value))) <= Fraction(at.weight.radius)
        assert 0.0 < at.weight.radius <= 1.1 * n * U * float(exact)


# --- Blocks, chunks, and the order of rows ----------------------------------------------------------------


@dataclass(frozen=True)
class Integers:
    """Small integers: every product and every sum of them is an integer below 2^53, and float64 is exact."""

    x: Array
    y: Array
    f: Array
    w: Array
    V: Array

    @staticmethod
    def random(n: int, seed: int = 0) -> Integers:
        rng = np.random.default_rng(seed)
        shapes = ((n, 3), (n,), (n, 2), (3,), (3, 2))
        return Integers(*(rng.integers(-9, 10, size=shape) for shape in shapes))

    def problem(self, weights: Array | None = None) -> Problem:
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        return Problem.from_arrays(**arrays, probabilities=weights)

    def exact_sums(self) -> dict[str, Array]:
        h = self.x + self.f @ self.V.T
        r = h @ self.w - self.y
        squares = {"A": h.T @ h, "B": h.T @ self.f, "C": self.f.T @ self.f}
        return {"F": r @ r / 2.0, "g_w": r @ h, "a": r @ self.f, **squares}


BLOCK_EDGES = [1, 2, 511, 512, 513, 1023, 1024, 1025, 5000]


@pytest.mark.parametrize("n", BLOCK_EDGES)
def test_no_row_is_lost_or_counted_twice_at_the_edges_of_blocks(n):
    data = Integers.random(n)
    ours = sums(data.problem())
    assert ours.weight.value == n
    assert ours.weight.radius == 0.0
    for name, exact in data.exact_sums().items():
        assert np.array_equal(getattr(ours, name).value, exact), name


@pytest.mark.parametrize("n", BLOCK_EDGES)
def test_the_expectation_holds_the_exact_one_at_the_edges_of_blocks(n):
    data = Integers.random(n, seed=1)
    ours = moments_of(data.problem())
    for name, exact in data.exact_sums().items():
        if name == "F":
            assert Fraction(ours.F.lower) <= Fraction(float(exact)) / n <= Fraction(ours.F.upper)
        else:
            ball = getattr(ours, name)
            off = zip(ball.center.ravel(), exact.ravel(), strict=True)
            off2 = sum((Fraction(float(mine)) - Fraction(int(e), n)) ** 2 for mine, e in off)
            assert off2 <= Fraction(ball.radius) ** 2, name


def test_many_rows_of_floats_lie_within_the_radii():
    rng = np.random.default_rng(2)
    x, f, y = rng.normal(size=(1500, 1)), rng.normal(size=(1500, 1)), rng.normal(size=1500)
    x[:750] *= 1e6  # the sums cancel and are dominated by a few rows
    y[::2] *= 1e-3
    sample = Sample(x, y, f, np.array([0.7]), np.array([[-1.3]]))
    assert not misses(sample)


@pytest.mark.parametrize("kind", LOSSES)
def test_merging_any_split_in_any_order_gives_balls_that_overlap_and_are_as_narrow(kind):
    rng = np.random.default_rng(3)
    problem = to_problem(gaussian(rng, n=2000, d=3, k=2, losses=(kind,)))
    whole = sums(problem).expectation()
    for _ in range(8):
        cuts = np.sort(rng.integers(0, 2001, size=int(rng.integers(1, 9))))
        pieces = [rows for rows in np.split(rng.permutation(2000), cuts) if len(rows)]
        again = merged(sums(problem, rows) for rows in pieces).expectation()
        assert max(whole.F.lower, again.F.lower) <= min(whole.F.upper, again.F.upper)
        for name in PARTS:
            one, other = getattr(whole, name), getattr(again, name)
            off = float(np.linalg.norm(one.center - other.center))
            assert off <= (one.radius + other.radius) * (1 + 1e-12)
            assert other.radius <= 1.5 * one.radius


@pytest.mark.parametrize("kind", LOSSES)
def test_the_radius_does_not_grow_with_the_number_of_rows(kind):
    rng = np.random.default_rng(4)
    problem = to_problem(gaussian(rng, n=40_000, d=2, k=2, losses=(kind,)))
    few, many = sums(problem, slice(0, 2000)).expectation(), sums(problem).expectation()
    for name in PARTS:
        assert getattr(many, name).radius <= 2.0 * getattr(few, name).radius


def test_the_radius_is_that_of_a_block_of_512_roundings():
    rng = np.random.default_rng(5)
    problem = to_problem(gaussian(rng, n=8192, d=3, k=2, losses=("squared",)))
    data = next(problem.chunks())
    h2 = float(np.mean(np.sum((data.x + data.f @ problem.point.V.T) ** 2, axis=1)))
    assert moments_of(problem).A.radius <= 2.0 * 512 * U * h2


def test_chunks_of_any_size_give_the_same_moments(monkeypatch):
    data = Integers.random(3000, seed=6)
    whole = moments_of(data.problem())
    for chunk_bytes in (1, 2**15, 2**17):
        monkeypatch.setattr(problem_module, "CHUNK_BYTES", chunk_bytes)
        again = moments_of(data.problem())
        assert again.F.value == whole.F.value
        for name in PARTS:
            assert np.array_equal(getattr(again, name).center, getattr(whole, name).center)


@pytest.mark.parametrize("n", [1, 7, 512, 5000])
@pytest.mark.parametrize("kind", LOSSES)
def test_A_and_C_are_symmetric(kind, n):
    problem = to_problem(gaussian(np.random.default_rng(7), n=n, d=5, k=4, losses=(kind,)))
    ours = moments_of(problem)
    for ball in (ours.A, ours.C):
        assert np.linalg.norm(ball.center - ball.center.T) <= ball.radius
        assert np.linalg.eigvalsh(ball.center)[0] >= -ball.radius


@pytest.mark.parametrize("entry", [(0, 0), (2, 1), (0, 2)])
def test_a_product_that_is_wrong_in_one_entry_is_an_internal_error(entry, monkeypatch):
    problem = to_problem(gaussian(np.random.default_rng(13), n=1500, d=3, k=3, losses=("squared",)))
    exact = moments._blocks

    def faulty(left: Array, right: Array | None = None) -> Iterator[Array]:
        for stack in exact(left, right):
            if stack.ndim == 3:
                stack[0, *entry] *= 1.0 + 1e-6
            yield stack

    monkeypatch.setattr(moments, "_blocks", faulty)
    with pytest.raises(InternalError, match="a matrix product over 1500 rows is wrong by"):
        moments_of(problem)


# --- Weights ------------------------------------------------------------------------------------------------


def test_integer_weights_are_repeated_rows():
    data, rng = Integers.random(700, seed=8), np.random.default_rng(8)
    counts = rng.integers(1, 5, size=700)
    rows = np.repeat(np.arange(700), counts)
    repeated = replace(data, x=data.x[rows], y=data.y[rows], f=data.f[rows])
    weighted = sums(data.problem(counts.astype(float) / counts.sum()))
    one, other = weighted.expectation(), moments_of(repeated.problem())
    assert max(one.F.lower, other.F.lower) <= min(one.F.upper, other.F.upper)
    for name in PARTS:
        mine, theirs = getattr(one, name), getattr(other, name)
        assert np.linalg.norm(mine.center - theirs.center) <= (mine.radius + theirs.radius) * (1 + 1e-12)
        assert mine.radius <= 1e-11 * (1.0 + np.linalg.norm(mine.center))


def test_only_the_ratios_of_the_weights_matter():
    rng = np.random.default_rng(9)
    x, y, f = rng.normal(size=(900, 2)), rng.normal(size=900), rng.normal(size=(900, 2))
    weights = rng.uniform(0.1, 3.0, 900)

    def moments_with(weights: Array) -> Moments:
        problem = Problem.from_arrays(x=x, y=y, f=f, w=[1.0, -0.5], V=np.eye(2))
        return moments_of(replace(problem, distribution=Distribution(x, y, weights)))

    one, other = moments_with(weights), moments_with(weights * 2.0**20)
    assert one.F.value == other.F.value
    assert all(np.array_equal(getattr(one, n).center, getattr(other, n).center) for n in PARTS)


# --- h = x + Vf, w = 0, V = 0 -------------------------------------------------------------------------------


def test_the_residual_is_within_its_error():
    rng = np.random.default_rng(10)
    for _ in range(60):
        d, k = (int(size) for size in rng.integers(1, 6, size=2))
        x, f = rng.normal(size=(3, d)) * 10.0 ** rng.uniform(-9, 9), rng.normal(size=(3, k))
        V = rng.normal(size=(d, k)) * 10.0 ** rng.uniform(-9, 9)
        x[0] = -(f[0] @ V.T)  # cancels
        at = residual(Chunk(x, np.zeros(3), f, None), V)
        for i in range(3):
            row = [Fraction(float(e)) for e in f[i]]
            exact = [
                Fraction(float(x[i, j])) + dot([Fraction(float(e)) for e in V[j]], row) for j in range(d)
            ]
            off2 = sum((e - Fraction(float(mine))) ** 2 for e, mine in zip(exact, at.h[i], strict=True))
            assert off2 <= Fraction(inflate(at.error[i])) ** 2
            assert inflate(at.norm[i]) >= np.linalg.norm(at.h[i]) >= at.norm[i] * (1 - 1e-9) - 1e-150
            assert inflate(at.f_norm[i]) >= np.linalg.norm(f[i])


def test_without_V_the_residual_is_x_itself():
    x = np.random.default_rng(11).normal(size=(5, 3))
    at = residual(Chunk(x, np.zeros(5), np.ones((5, 2)), None), np.zeros((3, 2)))
    assert at.h is x
    assert not at.error.any()


def test_at_w_zero_B_and_C_are_left_out_and_the_rest_stays():
    data = Integers.random(600, seed=12)
    ours = moments_of(replace(data, w=np.zeros(3, dtype=int)).problem())
    exact = replace(data, w=np.zeros(3, dtype=int)).exact_sums()
    assert ours.B.center.size == ours.C.center.size == 0
    for name in ("g_w", "a", "A"):
        assert np.allclose(getattr(ours, name).center * 600, exact[name], rtol=1e-15)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid:RuntimeWarning")
def test_what_overflows_is_unknown():
    problem = Problem.from_arrays(x=[[1e200], [1.0]], y=[0.0, 0.0], f=[[1.0], [1.0]], w=[1e200], V=[[0.0]])
    ours = moments_of(problem)
    assert ours.F.upper == math.inf
    assert ours.g_w.radius == math.inf
    assert ours.g_w.norm() == Ball(np.full(1, np.nan), math.inf).norm() or ours.g_w.norm().upper == math.inf


# --- Merging and memory -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Word:
    letters: str
    depth: int = 0

    def __add__(self, other: Word) -> Word:
        return Word(self.letters + other.letters, 1 + max(self.depth, other.depth))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 100, 129])
def test_parts_are_merged_in_order_as_a_tree(count):
    letters = "".join(chr(ord("a") + i % 26) for i in range(count))
    whole = merged(map(Word, letters))
    assert whole.letters == letters
    assert whole.depth <= math.ceil(math.log2(count)) + 1


def _mapped(folder: Path, n: int) -> Problem:
    """n rows of (x, y, f) in a raw file, d = k = 1, with a header before them."""
    header, rows = b"header..", np.arange(3 * n, dtype=np.float64) % 7.0
    file = folder / f"{n}.raw"
    file.write_bytes(header + rows.tobytes())
    x, y, f = (
        MappedRows(file, np.dtype(np.float64), shape, len(header) + 8 * n * part)
        for part, shape in enumerate([(n, 1), (n,), (n, 1)])
    )
    plain = Problem.from_arrays(x=[[1.0]], y=[1.0], f=[[1.0]], w=[0.5], V=[[-0.5]])
    return replace(plain, distribution=Distribution(x, y), features=GivenFeatures(f))


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(problem_module, "CHUNK_BYTES", 2**18)
    peaks = []
    for n in (30_000, 600_000):
        problem = _mapped(tmp_path, n)
        tracemalloc.start()
        ours = moments_of(problem)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert ours.C.radius < 1e-11
    assert peaks[1] < 1.05 * peaks[0] + 2**16
