"""μ0, μ1, μ2 against their formulas in balls and against difference quotients of F, ∇F, ∇²F."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from families import SCALAR, draw
from flint import arb, ctx
from heads import LOSSES, Head
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_algebra import norm
from oracle_theorems import lipschitz as exact_constants
from selections import each_once, first

from resnet_cert import Problem
from resnet_cert.moments import lipschitz
from resnet_cert.moments.lipschitz import LipschitzConstants, lipschitz_constants, lipschitz_sums
from resnet_cert.moments.one_pass import observe
from resnet_cert.numerics.enclosure import Enclosure
from resnet_cert.numerics.radius import NOTHING, Radius
from resnet_cert.numerics.sums import Blocks
from resnet_cert.problem import problem as problems
from resnet_cert.problem.losses import named_loss
from resnet_cert.problem.problem import Chunk

Array = np.ndarray
BITS = 256


@pytest.fixture(autouse=True)
def _precision():
    with ctx.workprec(BITS):
        yield


def constants(problem: Problem, b: float) -> LipschitzConstants:
    bounds = observe(problem, b).lipschitz
    assert bounds is not None
    return bounds


def mus(bounds: LipschitzConstants) -> tuple[float, float, float]:
    return bounds.mu0, bounds.mu1, bounds.mu2


# --- They bound difference quotients --------------------------------------------------------------------


def derivatives(head: Head, z: Array) -> tuple[float, Array, Array]:
    """F, ∇F and ∇²F at a point (W, V) in one vector."""
    (n, d), (d1, k), q = head.inputs.shape, head.V.shape, head.q
    W, V = z[: q * d].reshape(q, d), z[q * d :].reshape(d1, k)
    h = head.inputs.copy()
    h[:, :d1] += head.f @ V.T
    at = named_loss(head.loss).derivatives(h @ W.T, NOTHING, head.y, head.omega)
    bend = at.second if at.second.ndim == 3 else at.second[:, :, None] * np.eye(q)
    of_W = np.einsum("ab,nj->nabj", np.eye(q), h).reshape(n, q, -1)
    of_V = np.einsum("aj,nl->najl", W[:, :d1], head.f).reshape(n, q, -1)
    J = np.concatenate([of_W, of_V], axis=2)
    H = np.einsum("nar,nab,nbs->rs", J, bend, J) / n
    crossed = np.einsum("na,nl,ji->ajil", at.first, head.f, np.eye(d, d1)).reshape(q * d, d1 * k) / n
    H[: q * d, q * d :] += crossed
    H[q * d :, : q * d] += crossed.T
    return float(at.value.mean()), np.einsum("na,nar->r", at.first, J) / n, H


def points_in_the_domain(rng: np.random.Generator, count: int, head: Head, b: float) -> Array:
    """(count, ·) points with ‖W‖ ≤ b and ‖V‖ ≤ b, many of them on both boundaries and of rank one."""
    parts = []
    for shape in (head.head.shape, head.V.shape):
        M = rng.normal(size=(count, *shape))
        M[::2] = rng.normal(size=(len(M[::2]), shape[0], 1)) * rng.normal(size=(len(M[::2]), 1, shape[1]))
        M *= (b * rng.choice([1.0, 0.3], count) / np.linalg.norm(M, 2, axis=(1, 2)))[:, None, None]
        parts.append(M.reshape(count, -1))
    return np.concatenate(parts, axis=1)


def steepest(head: Head, b: float, rng: np.random.Generator, pairs: int = 200) -> list[float]:
    """The largest quotient of F, ∇F, ∇²F over random pairs of points, far apart and close together."""
    z = points_in_the_domain(rng, pairs, head, b)
    nearby = z * (1.0 - 1e-4 * rng.random((pairs, 1)))  # towards 0: in the domain, and almost a derivative
    largest = [0.0, 0.0, 0.0]
    for one, *others in zip(z, points_in_the_domain(rng, pairs, head, b), nearby, strict=True):
        at = derivatives(head, one)
        for other in others:
            changes = [np.atleast_1d(a - c) for a, c in zip(at, derivatives(head, other), strict=True)]
            sizes = [np.linalg.norm(change, 2) / np.linalg.norm(one - other) for change in changes]
            largest = [max(old, float(new)) for old, new in zip(largest, sizes, strict=True)]
    return largest


@pytest.mark.parametrize(
    "loss", first(4, ["softmax", "logistic", "poisson", "squared", "weighted_squared", "pseudo_huber"])
)
def test_they_bound_the_difference_quotients_of_F_its_gradient_and_its_hessian(loss, longer):
    rng = np.random.default_rng(1)
    for seed, b in enumerate((0.1, 3.0)):
        for corner in ("one sample", "generic")[:longer]:  # one sample comes closest
            head = draw(seed, corner, loss, q=2, d1=2, d2=1, bias=False)
            bounds = mus(constants(head.problem(), b))
            for quotient, bound in zip(steepest(head, b, rng, 80 * longer), bounds, strict=True):
                assert quotient <= bound * (1.0 + 1e-7)


def test_in_one_dimension_they_are_nearly_attained():
    """x = y = f = 1, ½(p − y)² at w = b, V = b: |∂F/∂(w, V)| = |ℓ'|J with p = b(1 + b) on the boundary."""
    b, one = 2.0, np.ones((1, 1))
    problem = Problem.from_arrays(x=one, y=-one[0], f=one, w=[b], V=[[b]])
    gradient = (b * (1.0 + b) + 1.0) * math.hypot(1.0 + b, b)
    assert constants(problem, b).mu0 == pytest.approx(gradient, rel=1e-12)


def test_matrices_beat_single_samples_where_data_spread_in_many_directions():
    rng = np.random.default_rng(3)
    n, d = 1000, 20
    x, f, y = rng.normal(size=(n, d)), rng.normal(size=(n, d)), np.where(rng.random(n) < 0.5, 1.0, -1.0)
    problem = Problem.from_arrays(x=x, y=y, f=f, w=np.zeros(d), V=np.zeros((d, d)), loss="logistic")
    ours = constants(problem, 1.0)
    assert ours.forms == ("matrix", "matrix", "matrix")
    assert ours.mu2 < 7.0  # 55 by single samples
    assert ours.mu1 < 2.1


# --- They are their formulas ----------------------------------------------------------------------------


@pytest.mark.parametrize(("loss", "b"), each_once(SCALAR, [1e-3, 0.5, 2.0]))
def test_they_are_the_least_of_both_formulas_rounded_up(loss, b):
    for seed in range(6):
        head = draw(seed, "weights" if seed % 2 else "generic", loss, q=1)
        head = replace(head, scale=0.3 if seed % 3 == 0 else 1.0)
        ours = constants(head.problem(), b)
        for mu, form, sample, matrix in zip(mus(ours), ours.forms, *exact_constants(head, b), strict=True):
            least = sample if form == "per-sample" else matrix
            assert least * (1 - arb(10) ** -11 * (form == "matrix")) <= arb(mu)
            assert arb(mu) <= sample.min(matrix) * (1 + arb(10) ** -8) + arb(10) ** -300


@pytest.mark.parametrize(
    ("size", "features"), each_once([1.0, 1e-3, 1e-9, 1e-120, 1e120], [1e-170, 1.0, 1e-3, 1e-9])
)
def test_features_count_by_themselves_beside_inputs_of_any_other_size(size, features):
    rng, n, d, k = np.random.default_rng(1), 120, 6, 6
    x, f = size * rng.normal(size=(n, d)), size * features * rng.normal(size=(n, k))
    y, zero = rng.integers(0, 2, (n, 1)).astype(float), np.zeros((1, d))
    head = Head(x=x, y=y, f=f, W=zero, V=np.zeros((d, k)), loss="squared")
    ours, b = constants(head.problem(), 0.1), 0.1
    assert ours.forms[2] == "matrix"
    exact = exact_constants(head, b)[1][2]
    assert exact * (1 - arb(10) ** -11) <= arb(ours.mu2) <= exact * (1 + arb(10) ** -8) + arb(1e-323)


def test_sums_of_pieces_of_different_sizes_are_those_of_the_whole():
    rng, n, d, k = np.random.default_rng(2), 1024, 3, 2
    x, f = rng.normal(size=(n, d)), rng.normal(size=(n, k)) * 1e-40
    x[512:] *= 1e-50
    loss = named_loss("squared")

    def sums(rows: slice):
        part = Chunk(x[rows], f[rows], np.zeros((rows.stop - rows.start, 1)))
        norms = Radius.row_norms(part.x), Radius.row_norms(part.f)
        blocks = Blocks(rows.start // 512, rows.stop - rows.start)
        found = lipschitz_sums(loss, part, *norms, 1.0, blocks, matrices=True)
        assert found is not None
        return found

    apart = lipschitz_constants(sums(slice(0, 512)) + sums(slice(512, n)), Enclosure.exact(float(n)), 1.0, k)
    whole = lipschitz_constants(sums(slice(0, n)), Enclosure.exact(float(n)), 1.0, k)
    assert mus(apart) == pytest.approx(mus(whole), rel=1e-12)
    assert apart.forms == whole.forms


def test_they_are_rounded_up_where_an_exponential_magnifies_every_rounding():
    for seed in range(60):
        head = draw(seed, "one sample", "poisson", q=1, d1=3, bias=False)
        reach = float(np.linalg.norm(head.inputs) + np.linalg.norm(head.f)) / 600.0  # |p| ≤ 600 there
        bypass = None if head.bypass is None else head.bypass / reach
        scaled = replace(head, x=head.x / reach, f=head.f / reach, W=np.zeros_like(head.W), bypass=bypass)
        for mu, exact in zip(
            mus(constants(scaled.problem(), 1.0)), exact_constants(scaled, 1.0)[0], strict=True
        ):
            assert exact <= arb(mu) <= exact * (1 + arb(10) ** -8)


def test_they_are_rounded_up_where_most_squares_of_a_norm_are_lost_one_by_one():
    x = np.full((1, 40_000), 600.0 * math.sqrt(0.9 * 2.0**-54))
    x[0, 0] = 600.0
    chunk, nothing = Chunk(x, np.zeros((1, 1)), np.zeros((1, 1))), Radius.size(np.zeros(1))
    sums = lipschitz_sums(
        named_loss("poisson"), chunk, Radius.row_norms(x), nothing, 1.0, Blocks(0, 1), matrices=False
    )
    assert sums is not None
    length = norm([arb(float(entry)) for entry in x[0]])
    ours = lipschitz_constants(sums, Enclosure.exact(1.0), 1.0, 1)
    for i, mu in enumerate(mus(ours)):  # f = 0 and y = 0: L = e^{‖x‖}, J = ‖x‖
        exact = length.exp() * length ** (i + 1)
        assert exact <= arb(mu) <= exact * (1 + arb(10) ** -8)


@pytest.mark.parametrize(
    ("loss", "scale", "x", "y", "f", "b"),
    [
        ("squared", 1.0, 1e-170, 1.0, 1e10, 1e-180),  # J² underflows, J does not
        ("squared", 1.0, 1e-200, 1.0, 1e-200, 1.0),  # all that is in μ2 underflows
        ("squared", 1e300, 0.0, 1.0, 1e-150, 1e-200),  # b‖f‖ underflows, beside a large scale
        ("squared", 1.0, 1e110, 1.0, 1.0, 1.0),  # J³ overflows, and has the factor 0
        ("squared", 1.0, 5e-324, 1e300, 0.0, 1.0),  # the norm of x is subnormal, beside a large y
        ("poisson", 1.0, 1e-110, 1.0, 0.0, 6e112),  # J³ underflows, beside a large e^P
        ("logistic", 1e-320, 1e100, 1.0, 0.0, 1.0),  # scale·L3 has few bits, beside a large J³
        ("pseudo_huber", 1.0, 1e150, 1e120, 0.0, 1e-40),  # L2 and L3 underflow, beside a large J
    ],
)
def test_no_underflow_takes_them_below_their_formulas(loss, scale, x, y, f, b):
    zero = np.zeros((1, 1))
    data = {"x": [[x]], "y": [[y]], "f": [[f]]}
    one = Head(**{name: np.array(a) for name, a in data.items()}, W=zero, V=zero, loss=loss, scale=scale)
    for mu, exact in zip(mus(constants(one.problem(), b)), exact_constants(one, b)[0], strict=True):
        assert exact <= arb(mu)


@pytest.mark.parametrize(
    ("loss", "x", "y", "f", "b"),
    [
        ("poisson", [[1e-9, 3e-10]], [1.0], 1e-9, 0.5),  # e^P − y cancels
        ("poisson", [[1e-30, 3e-10], [1e-9, 2e-12]], [1.0, 1.0 + 2.0**-40], 1e-12, 2.0),
        ("poisson", [[1e-3, 3e-4]], [0.999], 1e-3, 0.5),
        ("logistic", [[1e-9, 3e-10]], [0.5], 1e-9, 0.5),  # so does σ(P) − ½
        ("logistic", [[1e-20, 3e-10]], [0.5 - 2.0**-45], 1e-9, 0.5),
        ("pseudo_huber", [[1e100, 3e99]], [1e110], 1e-200, 0.5),  # ℓ'' is no float
        ("pseudo_huber", [[1e150, 3e150], [1e152, 0.0]], [1e160, -1e170], 1e-150, 0.01),
        ("pseudo_huber", [[1e200, 3e200], [1e-3, 0.0]], [1e301, -1e300], 1e-110, 1e-3),
        ("pseudo_huber", [[1e290, 0.0]], [1e301], 0.0, 1.0),
    ],
)
def test_no_cancellation_and_no_end_of_floats_makes_them_larger(
    loss: str, x: list[list[float]], y: list[float], f: float, b: float
):
    features, zero = np.full((len(x), 1), f), np.zeros((1, 2))
    head = Head(x=np.array(x), y=np.array(y)[:, None], f=features, W=zero, V=zero.T, loss=loss)
    problem = Problem.from_arrays(
        x=head.x, y=head.y, f=head.f, W=head.W, V=head.V, loss=replace(named_loss(loss), signed=False)
    )
    ours, (sample, matrix) = constants(problem, b), exact_constants(head, b)
    for mu, form, one, other in zip(mus(ours), ours.forms, sample, matrix, strict=True):
        least = one if form == "per-sample" else other
        assert least * (1 - arb(10) ** -11 * (form == "matrix")) <= arb(mu)
        assert arb(mu) <= one.min(other) * (1 + arb(10) ** -8) + arb(10) ** -305


def test_a_norm_of_subnormal_numbers_is_not_rounded_down():
    """‖∇F‖ = 6.987e-24 at the origin: x = (5e-324, 5e-324), y = 1e300."""
    problem = Problem.from_arrays(x=[[5e-324, 5e-324]], y=[1e300], f=[[0.0]], w=[0.0, 0.0], V=[[0.0], [0.0]])
    assert constants(problem, 1.0).mu0 >= 6.987e-24


@settings(max_examples=25)
@given(b=st.floats(0.01, 3.0), more=st.floats(1.0, 2.0))
def test_a_larger_domain_never_has_smaller_constants(b, more):
    problem = draw(5, "generic", "logistic", q=1).problem()
    small, large = mus(constants(problem, b)), mus(constants(problem, b * more))
    assert all(x <= y * (1 + 1e-9) for x, y in zip(small, large, strict=True))


def test_without_features_and_inputs_they_are_exactly_zero():
    zeros, ones, point = np.zeros((3, 2)), np.ones((3, 2)), {"w": [1.0, 2.0], "V": np.eye(2)}
    nothing = Problem.from_arrays(x=zeros, y=np.ones(3), f=zeros, **point)
    assert mus(constants(nothing, 1.0)) == (0.0, 0.0, 0.0)
    linear = Problem.from_arrays(x=ones, y=np.ones(3), f=zeros, **point)
    assert constants(linear, 1.0).mu2 == 0.0


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("q", [1, 2])
def test_where_nothing_is_fed_in_they_are_zero_for_every_loss(loss, q):
    head = draw(2, "generic", loss, q=max(q, 1 + (loss == "softmax")), d2=0, bias=False)
    nothing = replace(head, x=np.zeros_like(head.x), f=np.zeros_like(head.f))
    assert mus(constants(nothing.problem(), 2.0)) == (0.0, 0.0, 0.0)


def test_large_data_form_no_matrix_and_small_ones_do(monkeypatch):
    problem = draw(1, "generic", "logistic", q=1).problem()
    with_matrices = mus(constants(problem, 1.0))
    monkeypatch.setattr(lipschitz, "GRAM_WORK", 0)
    without = mus(constants(problem, 1.0))
    assert all(x <= y * (1 + 1e-12) for x, y in zip(with_matrices, without, strict=True))
    assert with_matrices != without


def test_a_loss_without_suprema_has_none():
    class Unknown:
        def __getattr__(self, name: str) -> object:
            return getattr(named_loss("squared"), name)

        def suprema(self, reach: Radius, y: Array, omega: Array | None = None) -> None:
            return None

        suprema_in_units = suprema

    problem = replace(draw(1, "generic", "squared", q=1).problem(), loss=Unknown())
    assert observe(problem, 1.0).lipschitz is None


@pytest.mark.parametrize("far", [1.0, 2.0**300, 2.0**900])
def test_pieces_of_very_different_units_are_bounded_together(far: float, monkeypatch: pytest.MonkeyPatch):
    """‖∇F‖ at (1, 0) is attained: inputs of one half are 0 where targets are `far`, tiny in the other."""
    monkeypatch.setattr(problems, "CHUNK_BYTES", 1)
    tiny = 2.0**-500
    x, y = np.repeat([0.0, tiny], 512)[:, None], np.repeat([far, 0.0], 512)
    problem = Problem.from_arrays(x=x, f=x, y=y, w=[1.0], V=[[0.0]])
    assert problem.chunk_rows == 512
    assert constants(problem, 2.0).mu0 >= 0.5 * tiny * tiny
