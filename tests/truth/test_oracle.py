"""The oracle against closed forms, exact rationals, automatic differentiation and mpmath."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import mpmath
import numpy as np
import oracle_theorems
import pytest
from families import FAMILIES, SCALAR, draw, margin
from flint import arb, ctx, fmpq, fmpq_mat
from heads import BITS, LOSSES, RATIONAL, Head, HeadTruth, balls, derivatives, rationals
from linear_heads import attained, minimum
from oracle_algebra import (
    dot,
    is_positive_semidefinite,
    largest_eigenvalue,
    mean_free,
    norm,
    root,
    shifted,
    singular_values,
    smallest_eigenvalue,
    spectral_norm,
)
from oracle_theorems import gap_bounds, lipschitz, local_lemma, suprema, theorem1, theorem2, theorem3
from selections import first

from resnet_cert.numerics.jax64 import float64_scope, jax, jnp


@pytest.fixture(autouse=True)
def _precision() -> Iterator[None]:
    with ctx.workprec(BITS):
        yield


def head_of(x: Any, y: Any, f: Any, w: Any, V: Any, loss: str = "squared", **options: Any) -> Head:
    """One output; targets as the formulas know them."""
    arrays = (
        np.array(part, dtype=np.float64) for part in (x, np.reshape(y, (-1, 1)), f, np.atleast_2d(w), V)
    )
    return Head(*arrays, loss=loss, **options)


def agree(ball: arb, value: Any, digits: int = 50) -> bool:
    """The ball is narrow, and within 10^−digits of the value, relative to max(1, |value|)."""
    value = arb(value)
    return bool(abs(ball - value) < arb(10) ** -digits * (1 + abs(value)))


def number(x: arb) -> mpmath.mpf:
    """The midpoint of a ball."""
    mantissa, exponent = x.mid().man_exp()
    return mpmath.mpf(int(mantissa)) * mpmath.mpf(2) ** int(exponent)


def flat(M: Any) -> list[arb]:
    return [entry for row in M for entry in row]


def difference(P: list[list[arb]], Q: list[list[arb]]) -> list[list[arb]]:
    """P − Q, row by row."""
    return [[p - q for p, q in zip(u, v, strict=True)] for u, v in zip(P, Q, strict=True)]


def sharp(a: float) -> Head:
    """Signs y, z; x = ay, f = −ay + z; w = 0, V = 1: ∇F = 0 and the gap is of order √|λ_min|."""
    y, z = np.array([1.0, 1.0, -1.0, -1.0]), np.array([1.0, -1.0, 1.0, -1.0])
    return head_of((a * y)[:, None], y, (-a * y + z)[:, None], [0.0], [[1.0]])


def any_family(seed: int) -> Head:
    """The families, numbers of outputs and losses by turns; without decay."""
    q = 1 + seed % 3
    return draw(seed, FAMILIES[seed % len(FAMILIES)], q=q, d2=seed // 2 % 2, n=12 if q == 1 else None)


# Closed forms.


@pytest.mark.parametrize("eps", [0.5, 2.0**-10, 2.0**-40])
def test_example_1_has_a_saddle_of_value_one_half(eps: float):
    truth = head_of([[1.0]], [1.0], [[eps]], [0.0], [[-1.0 / eps]]).truth
    assert truth.F == 0.5
    assert truth.norm == 0
    assert truth.hessian == [[0, -eps], [-eps, 0]]
    assert agree(truth.lambda_min, -eps)
    assert agree(minimum(truth, 2.0).value, 0)
    assert agree(minimum(truth, 2.0).W[0][0], 1, 30)


def test_a_tie_with_the_threshold_is_decided_exactly():
    eps = 0.5
    truth = head_of([[1.0]], [1.0], [[eps]], [0.0], [[-1.0 / eps]]).truth
    assert truth.curvature_at_least(arb(eps)) is True
    assert truth.curvature_at_least(arb(math.nextafter(eps, 0.0))) is False
    assert truth.is_stationary(eps, eps) is True  # ε* = λ²/μ2 = ε
    assert truth.is_stationary(math.nextafter(eps, 0.0), eps) is False
    assert agree(truth.smallest_epsilon(eps), eps)


def test_the_figure_has_a_saddle_with_eigenvalues_minus_and_plus_two():
    truth = head_of([[1.0]], [1.0], [[1.0]], [0.0], [[-1.0]], scale=2.0).truth
    assert truth.F == 1
    assert agree(truth.lambda_min, -2)
    assert agree(largest_eigenvalue(truth.hessian), 2)


def test_with_fewer_inputs_than_outputs_there_is_a_strict_minimum_above_the_best_linear_predictor():
    """The counterexample of d = 1 < q = 2, weighted squared loss."""
    data = {"x": [[1.0], [0.0]], "f": [[-1.0], [1.0]], "y": [[1.0, 0.0], [0.0, 0.5]]}
    omega = np.array([[1.0, 3.0], [3.0, 1.0]])
    arrays = {name: np.array(a) for name, a in (data | {"W": [[0.0], [0.5]], "V": [[1.0]]}).items()}
    head = Head(**arrays, loss="weighted_squared", omega=omega)
    truth = head.truth
    assert (truth.F, truth.norm) == (0.25, 0)
    assert agree(truth.lambda_min, arb("0.14158384"), 8)
    assert agree(largest_eigenvalue(truth.hessian), arb("1.71488085"), 8)
    assert agree(minimum(truth).value, arb(1) / 16)
    assert all(agree(a, b, 30) for a, b in zip(flat(minimum(truth).W), [1, 0], strict=True))


@pytest.mark.parametrize("a", [0.25, 2.0**-20])
def test_the_sharp_family_has_its_known_curvature_and_gap(a: float):
    truth = sharp(a).truth
    least = minimum(truth, 1.0)
    assert truth.norm == 0
    assert agree(-truth.lambda_min, ((1 + 4 * arb(a) ** 2).sqrt() - 1) / 2)
    assert agree(oracle_theorems.gap(truth, least), arb(a) - arb(a) ** 2 / 2)
    assert least.active
    assert agree(least.W[0][0], 1, 30)


@pytest.mark.parametrize("seed", range(8))
def test_at_W_zero_the_spectrum_is_that_of_A_split_by_the_feature_gradient(seed: int):
    truth = draw(seed, "W = 0", q=1, d2=0, bias=False).truth
    A = [row[: truth.d] for row in truth.hessian[: truth.d]]
    length2 = 4 * dot(truth.A_f[0], truth.A_f[0])
    beta, top = smallest_eigenvalue(A), largest_eigenvalue(A)
    assert agree(truth.lambda_min, (beta - root(beta**2 + length2)) / 2)
    assert agree(largest_eigenvalue(truth.hessian), (top + root(top**2 + length2)) / 2)


def test_decay_adds_twice_l2_to_every_eigenvalue_where_everything_decays():
    head = replace(draw(3, q=2, bias=True), decay_bias=True)
    plain, decayed = head.truth, replace(head, l2=0.25).truth
    assert agree(decayed.lambda_min, plain.lambda_min + 0.5)
    moved = zip(decayed.gradient_G, plain.gradient, plain.parameters, strict=True)
    assert all(agree(g, h + z / 2) for g, h, z in moved)


# Derivatives.


def objective_in_fractions(head: Head, z: list[Fraction]) -> Fraction:
    """scale·E[½Σ ω(Wh − y)²] at (W, V) = z, row by row."""
    exactly = np.vectorize(Fraction, otypes=[object])
    inputs, y, f = (exactly(part) for part in (head.inputs, head.y, head.f))
    W, V = np.array(z[: head.head.size]).reshape(head.head.shape), np.array(z[head.head.size :])
    inputs[:, : head.x.shape[1]] += f @ V.reshape(head.V.shape).T
    pi = exactly(np.ones(len(y)) if head.probabilities is None else head.probabilities)
    omega = exactly(np.ones(y.shape) if head.omega is None else head.omega)
    return Fraction(head.scale) * (pi @ (omega * (inputs @ W.T - y) ** 2)).sum() / pi.sum() / 2


@pytest.mark.parametrize("family", ["generic", "weights", "scaled loss", "one feature"])
@pytest.mark.parametrize(("loss", "q"), [("squared", 1), ("weighted_squared", 2)])
def test_the_derivatives_of_the_squared_losses_are_those_of_their_polynomial(family: str, loss: str, q: int):
    head = draw(1, family, loss, q=q, d1=2, d2=q - 1, k=1 if q == 2 else 2)
    truth, size = head.truth, head.head.size + head.V.size
    z = [Fraction(value) for value in [*head.head.ravel(), *head.V.ravel()]]

    def along(direction: list[int]) -> tuple[Fraction, Fraction]:
        """φ'(0), φ''(0) of the polynomial φ(t) = F(z + t·direction) of degree 4, from five exact values."""
        m2, m1, at, p1, p2 = (
            objective_in_fractions(head, [zi + t * ui for zi, ui in zip(z, direction, strict=True)])
            for t in (-2, -1, 0, 1, 2)
        )
        return (m2 - 8 * m1 + 8 * p1 - p2) / 12, (-m2 + 16 * m1 - 30 * at + 16 * p1 - p2) / 12

    def unit(*indices: int) -> list[int]:
        return [int(i in indices) for i in range(size)]

    def as_fraction(q: fmpq) -> Fraction:
        return Fraction(int(q.p), int(q.q))

    slopes = [along(unit(i)) for i in range(size)]
    assert as_fraction(truth.rational.F) == objective_in_fractions(head, z)
    assert [as_fraction(g) for g in truth.rational.gradient] == [slope for slope, _ in slopes]
    for i in range(size):
        assert truth.gradient[i].overlaps(arb(truth.rational.gradient[i]))
        for j in range(i + 1):
            second = along(unit(i, j))[1]
            expected = second if i == j else (second - slopes[i][1] - slopes[j][1]) / 2
            assert as_fraction(truth.rational.hessian[i][j]) == expected
            assert truth.hessian[i][j].overlaps(arb(truth.rational.hessian[i][j]))


JAX: dict[str, Callable[[Any, Any, Any], Any]] = {
    "squared": lambda p, y, omega: 0.5 * ((p - y) ** 2).sum(axis=1),
    "weighted_squared": lambda p, y, omega: 0.5 * (omega * (p - y) ** 2).sum(axis=1),
    "logistic": lambda p, y, omega: (jnp.log1p(jnp.exp(p)) - y * p).sum(axis=1),
    "softmax": lambda p, y, omega: (y * (jax.nn.logsumexp(p, axis=1, keepdims=True) - p)).sum(axis=1),
    "pseudo_huber": lambda p, y, omega: (jnp.sqrt(1.0 + (p - y) ** 2) - 1.0).sum(axis=1),
    "poisson": lambda p, y, omega: (jnp.exp(p) - y * p).sum(axis=1),
}


@pytest.mark.parametrize("loss", first(2, sorted(LOSSES, reverse=True)))
@float64_scope()
def test_gradient_and_hessian_agree_with_automatic_differentiation(loss: str):
    head = draw(LOSSES.index(loss), "weights", loss, n=6, q=2, d1=2, d2=1, k=3, bias=True)
    size, shape, d1 = head.head.size, head.head.shape, head.x.shape[1]

    def G(z: Any, mask: Any, scale: Any) -> Any:
        W, V = z[:size].reshape(shape), z[size:].reshape(head.V.shape)
        h = jnp.concatenate([head.inputs[:, :d1] + head.f @ V.T, head.inputs[:, d1:]], axis=1)
        fit = jnp.average(JAX[loss](h @ W.T, head.y, head.omega), weights=head.probabilities)
        return scale * fit + head.l2 * (mask * z**2).sum()

    of_G = jax.jit(lambda *at: (G(*at), jax.grad(G)(*at), jax.hessian(G)(*at)))
    for number, W in enumerate((np.zeros_like(head.W), head.W, head.W * [[1e-3], [0.0]])):
        at = replace(head, W=W, scale=1.0 + number, decay_bias=number == 1)
        truth = at.truth
        z = np.concatenate([at.head.ravel(), at.V.ravel()])
        value, gradient, hessian = of_G(z, at.decayed, at.scale)
        np.testing.assert_allclose(float(truth.F), value, rtol=1e-12)
        np.testing.assert_allclose([float(g) for g in truth.gradient_G], gradient, rtol=1e-10, atol=1e-11)
        H = [[float(entry) for entry in row] for row in truth.hessian_G]
        np.testing.assert_allclose(H, hessian, rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(float(truth.lambda_min), np.linalg.eigvalsh(hessian)[0], atol=1e-10)


MPMATH: dict[str, Callable[[Any, Any], Any]] = {
    "squared": lambda p, y: sum((a - b) ** 2 / 2 for a, b in zip(p, y, strict=True)),
    "logistic": lambda p, y: sum(mpmath.log(1 + mpmath.exp(a)) - b * a for a, b in zip(p, y, strict=True)),
    "softmax": lambda p, y: sum(
        b * (mpmath.log(sum(map(mpmath.exp, p))) - a) for a, b in zip(p, y, strict=True)
    ),
    "pseudo_huber": lambda p, y: sum(mpmath.sqrt(1 + (a - b) ** 2) - 1 for a, b in zip(p, y, strict=True)),
    "poisson": lambda p, y: sum(mpmath.exp(a) - b * a for a, b in zip(p, y, strict=True)),
}


@pytest.mark.parametrize("loss", MPMATH)
@pytest.mark.parametrize("p", [(0.3, -0.7), (0.0, 0.0), (40.0, -60.0), (1e-9, 300.0)])
@pytest.mark.parametrize("y", first(1, [((0.25, 0.75),), ((1.0, 0.0),)]))
def test_derivatives_of_losses_are_limits_of_differences(loss: str, p: Any, y: Any):
    """In 400 digits, and to 40 digits of their own size."""
    value, slope, bend = derivatives(loss, *(balls(np.array(a)) for a in (p, y, (1.0, 1.0))))
    ours = {(1, 0): slope[0], (0, 1): slope[1], (2, 0): bend[0][0], (1, 1): bend[0][1], (0, 2): bend[1][1]}
    with mpmath.workdps(400):
        at = [mpmath.mpf(e) for e in p]
        pairs = [(value, MPMATH[loss](at, y))]
        for orders, derivative in ours.items():
            pairs.append((derivative, mpmath.diff(lambda *p: MPMATH[loss](p, y), at, orders)))
        for one, true in pairs:
            assert abs(number(one) - true) <= abs(true) * mpmath.mpf(10) ** -40 + mpmath.mpf(10) ** -150


@pytest.mark.parametrize("seed", range(6))
def test_the_moments_are_blocks_of_gradient_and_hessian(seed: int):
    truth = draw(seed, q=1 + seed % 3, d2=seed % 2).truth
    W, cut = balls(truth.head.head), truth.q * truth.d
    assert all(a.overlaps(b) for a, b in zip(truth.gradient, flat(truth.g_W), strict=False))
    for j in range(truth.d1):
        for l in range(truth.k):
            of_V = dot([row[j] for row in W], [row[l] for row in truth.A_f])
            assert truth.gradient[cut + j * truth.k + l].overlaps(of_V)
    of_W, of_V = norm(truth.gradient[:cut]), norm(truth.gradient[cut:])
    assert agree(of_W**2 + of_V**2, truth.norm**2)


# Eigenvalues and decisions.


@pytest.mark.parametrize("seed", range(6))
def test_eigenvalues_and_singular_values_agree_with_mpmath(seed: int):
    truth = draw(seed, q=2).truth
    with mpmath.workdps(60):
        H = mpmath.matrix([[number(e) for e in row] for row in truth.hessian])
        expected = min(mpmath.eigsy(H, eigvals_only=True))
        assert agree(truth.lambda_min, arb(mpmath.nstr(expected, 55)), 45)
        svd = mpmath.svd_r(mpmath.matrix([[number(e) for e in row] for row in truth.g_W]), compute_uv=False)
        for ours, its in zip(singular_values(truth.g_W), sorted(svd, reverse=True), strict=True):
            assert agree(ours, arb(mpmath.nstr(its, 55)), 30)


@pytest.mark.parametrize("spectrum", [[-1e-6, 0, 0, 0, 1], [0, 0, 3], [-2, -2, -2, 1], [1e-20, 1, 1e6], [5]])
def test_the_smallest_eigenvalue_of_a_matrix_of_known_spectrum_is_found(spectrum: list[float]):
    v = [arb(i + 1) for i in range(len(spectrum))]
    length2 = dot(v, v)
    Q = [[(i == j) - 2 * v[i] * v[j] / length2 for j in range(len(v))] for i in range(len(v))]
    H = [[dot([arb(s) * q for s, q in zip(spectrum, qi, strict=True)], qj) for qj in Q] for qi in Q]
    assert agree(smallest_eigenvalue(H), min(spectrum), 40 if len(v) == 3 else 55)
    assert agree(largest_eigenvalue(H) / max(spectrum), 1, 40)


def test_positive_semidefiniteness_is_exact_on_rationals():
    low_rank = [[1, 2, -1], [3, 0, 2]]
    gram = [[fmpq(dot(u, v)) for v in zip(*low_rank, strict=True)] for u in zip(*low_rank, strict=True)]
    assert is_positive_semidefinite(gram) is True
    assert fmpq_mat(gram).det() == 0
    assert is_positive_semidefinite(shifted(gram, fmpq(-1, 10**40))) is False
    assert is_positive_semidefinite([[fmpq(0), fmpq(1)], [fmpq(1), fmpq(5)]]) is False
    assert is_positive_semidefinite([[fmpq(0), fmpq(0)], [fmpq(0), fmpq(5)]]) is True
    assert is_positive_semidefinite([[fmpq(0), fmpq(0)], [fmpq(0), fmpq(-5)]]) is False


def test_a_ball_around_zero_decides_nothing():
    unknown = arb(0, 1e-50)
    assert is_positive_semidefinite([[unknown]]) is None
    assert is_positive_semidefinite([[arb(1), arb(0)], [arb(0), unknown]]) is None


def test_interpolation_has_lambda_min_exactly_zero():
    for seed in range(10):
        truth = draw(seed, "interpolating").truth
        assert truth.F == 0
        assert truth.norm == 0
        assert truth.is_stationary(0.0, 1.0) is True
        if truth.d1 * truth.k > truth.n * truth.q:
            assert truth.lambda_min == 0


def test_near_minima_have_many_zeros_and_a_slightly_negative_eigenvalue():
    negative = [draw(seed, "near minimum", q=1 + seed % 2).truth.lambda_min for seed in range(40)]
    assert all(lam < 0 for lam in negative)
    assert any(-1e-5 < lam < -1e-8 for lam in negative)


@pytest.mark.parametrize("seed", first(15, range(0, 120, 3)))
def test_decisions_agree_with_the_smallest_epsilon(seed: int):
    truth, rng = any_family(seed).truth, np.random.default_rng(seed)
    epsilon, mu2 = margin(truth, rng)
    least = truth.smallest_epsilon(mu2)
    decided = truth.is_stationary(epsilon, mu2)
    assert decided is not None
    assert not (decided and least > epsilon)
    assert decided or not least < epsilon


def test_margins_fall_on_both_sides_and_near():
    decided, distances = [], []
    for seed in range(60):
        truth = draw(seed, q=1).truth
        epsilon, mu2 = margin(truth, np.random.default_rng(seed))
        decided.append(truth.is_stationary(epsilon, mu2))
        distances.append(abs(float(truth.smallest_epsilon(mu2) / epsilon - 1)))
    assert 10 < sum(decided) < 50
    assert min(distances) < 1e-11


# The best linear predictor.


@pytest.mark.parametrize(
    "family", ["generic", "dependent inputs", "uneven columns", "nearly dependent inputs"]
)
@pytest.mark.parametrize("loss", RATIONAL)
def test_least_squares_solves_the_normal_equations_with_least_norm(family: str, loss: str):
    for seed in range(2):
        head = draw(seed, family, loss, q=1 + seed, n=12)
        truth, least = head.truth, minimum(head.truth)
        omega = balls(np.ones(head.y.shape) if head.omega is None else head.omega)
        value = arb(0)
        for a, row in enumerate(least.W):
            missed = [dot(x, row) - y[a] for x, y in zip(truth.inputs, balls(head.y), strict=True)]
            weighted = [w[a] * e for w, e in zip(omega, missed, strict=True)]
            for column in zip(*truth.inputs, strict=True):
                scale = norm(column)
                assert scale == 0 or agree(dot(column, weighted) / scale, 0, 20)
            value += dot(weighted, missed) / (2 * truth.n)
            if family == "dependent inputs":  # the last column is a multiple of the first
                first, last = truth.inputs[0][0], truth.inputs[0][head.x.shape[1] - 1]
                assert agree(first * row[head.x.shape[1] - 1], last * row[0], 20)
        assert agree(least.value, value, 20)


def test_decayed_least_squares_solve_their_equations():
    """(XᵀX/n + 2·l2·D)W = XᵀY/n, D without the bias where that does not decay."""
    for seed, decay_bias in ((0, True), (1, False)):
        head = replace(draw(seed, loss="squared", q=2, n=5, bias=True, l2=0.1), decay_bias=decay_bias)
        least, X = minimum(head.truth, decay=True), head.truth.inputs
        for a, row in enumerate(least.W):
            missed = [dot(x, row) - y[a] for x, y in zip(X, balls(head.y), strict=True)]
            for j, column in enumerate(zip(*X, strict=True)):
                decay = 2 * arb(head.l2) * row[j] if decay_bias or j < len(row) - 1 else 0
                assert agree(dot(column, missed) / head.truth.n + decay, 0, 20)


def test_one_dimensional_minima_have_closed_forms():
    def one(y: list[float], loss: str, r: float, x: float = 1.0) -> Any:
        return minimum(head_of([[x]] * len(y), y, [[1.0]] * len(y), [1.0], [[1.0]], loss).truth, r)

    assert agree(one([1.0], "logistic", 3.0).value, (1 + arb(-3).exp()).log())
    assert agree(one([1.0, 3.0], "poisson", 5.0).W[0][0], arb(2).log(), 30)
    assert agree(one([1.0, 3.0], "poisson", 5.0).value, 2 - 2 * arb(2).log())
    assert agree(one([0.0, 0.0], "poisson", 5.0).value, arb(-5).exp())
    assert agree(one([1.0, 3.0], "squared", 1.5).value, arb(5) / 8)
    assert agree(one([4.0], "pseudo_huber", 1.0).value, arb(10).sqrt() - 1)
    assert agree(one([4.0], "pseudo_huber", 5.0, x=2.0).W[0][0], 2, 30)


def test_two_classes_are_one_label_whose_predictor_is_longer_by_the_root_of_two():
    head = draw(4, loss="logistic", q=1, n=6, d2=1)
    both = np.concatenate([head.y, 1.0 - head.y], axis=1)
    classes = replace(head, y=both, loss="softmax", W=np.tile(head.W, (2, 1)), c=None)
    for r in (0.3, 3.0):
        one = minimum(replace(head, c=None).truth, math.sqrt(2.0) * r)
        two = minimum(classes.truth, r)
        assert agree(one.value, two.value, 15)
        assert agree(two.W[0][0] - two.W[1][0], one.W[0][0], 15)
        assert agree(two.W[0][0] + two.W[1][0], 0, 20)


def test_the_least_norm_minimiser_of_one_equation():
    head = head_of([[1.0, 2.0, 0.0]], [5.0], [[1.0]], [1.0, 1.0, 1.0], [[1.0]] * 3)
    found = flat(minimum(head.truth).W)
    assert all(agree(entry, expected, 30) for entry, expected in zip(found, [1, 2, 0], strict=True))


@pytest.mark.parametrize("seed", first(10, range(60)))
def test_no_feasible_point_is_below_the_minimum_and_optimality_conditions_hold(seed: int):
    truth, rng = any_family(seed).truth, np.random.default_rng(seed)
    r = float(10.0 ** rng.uniform(-2, 0) / np.max(np.abs(truth.head.inputs), initial=1e-9))
    least, shape = minimum(truth, r), truth.head.head.shape
    assert least.norm < arb(r) * (1 + arb(10) ** -20)
    at_star, at_zero = (truth.linear(U)[0] for U in (least.W, balls(np.zeros(shape))))
    assert abs(at_star - least.value) <= abs(at_zero) * arb(10) ** -20
    for _ in range(20):
        U = rng.normal(size=shape)
        U *= r * rng.random() / np.linalg.norm(U) * (1.0 - 1e-12)
        assert not truth.linear(balls(U))[0] < least.value
    near = np.array([[float(entry.mid()) for entry in row] for row in least.W]) * (1.0 + 1e-6)
    again = minimum(truth, r, near=near, multiplier=1.0 if least.active else 0.0)
    assert again.value.overlaps(least.value)


def test_a_minimum_is_attained_unless_the_data_are_separable():
    x = [[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]

    def found(loss: str, x: Any, y: Any) -> bool:
        y = np.array(y) if np.ndim(y) == 2 else np.array(y)[:, None]
        n, d = np.shape(x)
        W, f, V = np.ones((y.shape[1], d)), np.ones((n, 1)), np.ones((d, 1))
        return attained(Head(np.array(x), y.astype(float), f, W, V, loss))

    def logistic(x: Any, y: Any) -> bool:
        return found("logistic", x, y)

    assert logistic(x, [1, 1, 1])
    assert not logistic(x, [1, 1, 0])
    assert not logistic(x[:2], [1, 0])
    assert not logistic([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], [1, 1, 1])  # separable in x_2 alone
    assert logistic([[1.0, 1.0], [-1.0, -1.0]], [1, 1])  # of rank one, and balanced there
    assert not logistic([[1.0, 1.0], [-2.0, -2.0]], [1, 0])
    assert logistic([[1.0], [2.0]], [1, 0.5])  # what is not sure holds the line
    assert not logistic([[1.0, 0.0], [0.0, 2.0]], [1, 0.5])
    assert not logistic(x, [[1, 1], [1, 1], [1, 0]])  # the second output alone
    poisson = [found("poisson", x[:2], y) for y in ([1, 2], [0, 2], [0, 0])]
    assert poisson == [True, False, False]
    assert found("poisson", [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0]], [0, 1, 0, 0])
    classes = np.eye(3)
    assert not found("softmax", x, classes)
    assert found("softmax", [[1.0], [2.0], [3.0]], np.eye(2)[[0, 1, 0]])
    assert found("softmax", [[1.0], [2.0]], [[0.5, 0.5, 0.0], [1, 0, 0]]) is False  # the third class recedes
    assert not any(attained(draw(seed, "separable", q=2 + seed % 2)) for seed in range(20))


def test_a_minimum_that_is_attained_is_a_stationary_point():
    for seed in range(30):
        head = draw(seed, ("counts of 0", "one feature", "hard labels")[seed % 3])
        if attained(head):
            slopes = head.truth.linear(minimum(head.truth).W)[1]
            assert all(agree(entry, 0, 25) for entry in slopes)


# The theorems.


@pytest.mark.parametrize("seed", first(len(FAMILIES), range(6 * len(FAMILIES))))
def test_every_theorem_holds(seed: int):
    head = any_family(seed)
    truth, r = head.truth, float(1.3 / np.max(np.abs(head.inputs), initial=1e-9))
    least, slack = minimum(truth, r), arb(10) ** -20
    distance, bounds = oracle_theorems.gap(truth, least), gap_bounds(truth, least, r)
    size = slack * (abs(truth.F) + abs(least.value) + abs(bounds.first_order))
    chain = (distance, bounds.linear_functional, bounds.first_order)
    assert all(not left > right + size for left, right in pairwise(chain))
    assert not distance > bounds.linear_functional_ball + size
    along, bound = local_lemma(truth)
    assert not along > bound + slack * norm(flat(truth.A_f))
    left, right = theorem2(truth, least)
    assert not right > left * (1 + slack) + slack * abs(right)
    sides = theorem1(truth, least)
    if head.W.any() and sides is not None:
        size = size * abs(sides[1]) / abs(distance) + slack
        assert not any(side.mid() > truth.norm + size for side in sides)


def test_theorem_3_takes_its_known_values():
    ones = theorem3(1e-4, 1, 1, 1, 1, 1)
    assert agree(ones.refined_form, arb("0.100698756"), 9)
    assert agree(theorem3(1e-4, 1, 1, 1, 1, 1, d=1).refined_form, arb("0.242825460"), 9)
    assert agree(ones.threshold_form, arb("0.107101770"), 9)
    assert agree(ones.threshold, arb("9.33693e-4"), 8)
    assert agree(ones.polynomial_form, arb("0.85085"), 5)
    assert agree(ones.refined_polynomial_form, arb("0.4004"), 5)
    primes = theorem3(1e-2, 2, 1, 3, 5, 7)
    assert agree(primes.refined_form, arb("2.390403063"), 9)
    assert agree(theorem3(1e-2, 2, 1, 3, 5, 7, d=1).refined_form, arb("5.728517089"), 9)
    assert agree(primes.threshold_form, arb("2.666851925"), 9)
    assert agree(primes.threshold, arb("7.49995e-3"), 7)
    assert agree(primes.polynomial_form, arb("16.637616067"), 9)
    assert agree(primes.refined_polynomial_form, arb("6.524555320"), 9)
    assert ones.threshold.rel_accuracy_bits() > 150


def test_theorem_3_of_several_outputs_takes_its_known_values_at_extreme_constants():
    """μ0 = μ1 = μ2 = 0: ε(b + r), or ε√((b + r)² + r²b²/t²) at t = b; √min(q, k) beside every br."""
    flat_ = theorem3(0.25, 2.0, 3.0, 0.0, 0.0, 0.0, d=3, span=3, k=2, whole=False)
    assert flat_.refined_form == 1.25
    assert agree(flat_.threshold_form, arb("1.25"))
    bent = theorem3(1.0, 1.0, 1.0, 0.0, 0.0, 1.0, d=4, span=3, k=2, whole=False)
    assert agree(bent.refined_form, 2 + arb(2).sqrt())
    spanned = theorem3(1.0, 1.0, 1.0, 0.0, 0.0, 1.0, d=3, span=3, k=2, whole=False)
    assert agree(spanned.refined_form, 2 + arb(2).sqrt() * (1 + arb(2).sqrt()))
    assert agree(bent.refined_polynomial_form, 2 * (2 + arb(2).sqrt() * 3 / 2))
    assert agree(bent.polynomial_form, 2 * (3 + arb(2).sqrt() * 3))


def test_the_basis_of_what_sums_to_zero_is_orthonormal():
    for q in (2, 3, 5):
        columns = list(zip(*mean_free(q), strict=True))
        for i, u in enumerate(columns):
            assert agree(sum(u, arb(0)), 0)
            assert all(agree(dot(u, v), int(i == j)) for j, v in enumerate(columns))


# Lipschitz constants.


def derivative_in_mpmath(loss: str, order: int, p: float, y: float) -> Any:
    return mpmath.diff(lambda at: MPMATH[loss]([at], [y]), p, order)


@pytest.mark.parametrize("loss", SCALAR)
@pytest.mark.parametrize("reach", first(2, [0.0, 2.5, 0.2, 1.0]))
def test_suprema_are_those_of_a_dense_grid(loss: str, reach: float):
    for y in (1.0, 0.0, 0.3) if loss == "logistic" else (0.0, 0.3, 1.1, 4.0):
        for order, bound in enumerate(suprema(loss, arb(reach), y), start=1):
            values = [abs(derivative_in_mpmath(loss, order, p, y)) for p in np.linspace(-reach, reach, 41)]
            highest = float(max(values))
            assert highest <= float(bound) * (1 + 1e-9) + 1e-9
            assert float(bound) <= highest * 1.01 + 1e-9


@pytest.mark.parametrize("seed", range(12))
def test_lipschitz_constants_bound_the_change_of_each_derivative(seed: int):
    head, rng, b = draw(seed, loss=SCALAR[seed % 4], q=1), np.random.default_rng(seed), 1.5
    constants = lipschitz(head, b)

    def inside() -> HeadTruth:
        W, V = rng.normal(size=head.head.shape), rng.normal(size=head.V.shape)
        W *= 0.99 * b * rng.random() / np.linalg.norm(W)
        V *= 0.99 * b * rng.random() / np.linalg.norm(V, 2)
        c = None if head.c is None else W[:, -1]
        return replace(head, W=W if c is None else W[:, :-1], V=V, c=c).truth

    for _ in range(4):
        here, there = inside(), inside()
        step = norm([z - s for z, s in zip(here.parameters, there.parameters, strict=True)])
        for mu0, mu1, mu2 in constants:  # by single samples and by matrices
            assert abs(here.F - there.F) < mu0 * step
            assert norm(*difference([here.gradient], [there.gradient])) < mu1 * step
            assert spectral_norm(difference(here.hessian, there.hessian)) < mu2 * step


# The families are what they say.


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_makes_finite_heads_of_one_shape(family: str, longer: int):
    for seed in range(5 * longer):
        head = draw(seed, family)
        (n, d1), k, q, d = head.x.shape, head.f.shape[1], head.q, head.head.shape[1]
        shapes = [part.shape for part in (head.y, head.f, head.V, head.inputs)]
        assert shapes == [(n, q), (n, k), (d1, k), (n, d)]
        assert n <= 12
        assert max(d1, k, q) <= 4
        assert all(np.isfinite(part).all() for part in (head.inputs, head.y, head.f, head.head, head.V))
        assert head.truth.F.is_finite()


def test_families_have_the_properties_that_they_are_named_for():
    for seed in range(10):
        for family in ("A_f = 0", "A_f = 0 at W = 0"):
            assert all(entry.contains(0) for entry in flat(draw(seed, family).truth.A_f))
        assert not draw(seed, "W = 0").W.any()
        assert not draw(seed, "V = 0").V.any()
        saddle = draw(seed, "saddle", q=1).truth
        assert saddle.norm < 1e-9
        assert saddle.lambda_min < 0
        assert draw(seed, "strict minimum", q=1 + seed % 3).truth.lambda_min > 0
        assert 0 < np.linalg.norm(draw(seed, "tiny W").W) < 1e-7
        x = fmpq_mat(rationals(draw(seed, "dependent inputs").x))
        assert x.rank() < x.ncols()
        nearly = fmpq_mat(rationals(draw(seed, "nearly dependent inputs").x))
        assert nearly.rank() == nearly.ncols()
