"""The oracle against closed forms, exact rationals, automatic differentiation and mpmath."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import mpmath
import numpy as np
import oracle_linear
import pytest
from families import FAMILIES, LOSSES, gaussian, make, margin, random_sample
from flint import arb, ctx, fmpq, fmpq_mat
from heads import Head, HeadTruth
from linear_heads import minimum
from oracle import BITS, Sample, Truth
from oracle_algebra import (
    dot,
    is_positive_semidefinite,
    largest_eigenvalue,
    norm,
    rational,
    root,
    shifted,
    smallest_eigenvalue,
    spectral_norm,
)
from oracle_linear import attained, linear_minimum
from oracle_theorems import (
    feature_gradient_bound,
    gap,
    gap_bounds,
    lipschitz,
    suprema,
    theorem1,
    theorem2,
    theorem3,
)
from selections import first

from resnet_cert.numerics.jax64 import float64_scope, jax, jnp


@pytest.fixture(autouse=True)
def _precision():
    with ctx.workprec(BITS):
        yield


def sample_of(x, y, f, w, V, loss="squared", scale=1.0, probabilities=None) -> Sample:
    return Sample(*(np.array(part, dtype=np.float64) for part in (x, y, f, w, V)), loss, scale, probabilities)


def agree(ball: arb, value, digits: int = 50) -> bool:
    """The ball is narrow, and within 10^−digits of the value, relative to max(1, |value|)."""
    value = arb(value)
    return bool(abs(ball - value) < arb(10) ** -digits * (1 + abs(value)))


def difference(P: list[list[arb]], Q: list[list[arb]]) -> list[list[arb]]:
    """P − Q, row by row."""
    return [[p - q for p, q in zip(u, v, strict=True)] for u, v in zip(P, Q, strict=True)]


def sharp(a: float) -> Sample:
    """Signs y, z; x = ay, f = −ay + z; w = 0, V = 1: ∇F = 0 and the gap is of order √|λ_min|."""
    y, z = np.array([1.0, 1.0, -1.0, -1.0]), np.array([1.0, -1.0, 1.0, -1.0])
    return sample_of((a * y)[:, None], y, (-a * y + z)[:, None], [0.0], [[1.0]])


# Closed forms.


@pytest.mark.parametrize("eps", [0.5, 2.0**-10, 2.0**-40])
def test_example_1_has_a_saddle_of_value_one_half(eps):
    truth = Truth(sample_of([[1.0]], [1.0], [[eps]], [0.0], [[-1.0 / eps]]))
    assert truth.F == 0.5
    assert truth.norm == 0
    assert truth.hessian == [[0, -eps], [-eps, 0]]
    assert agree(truth.lambda_min, -eps)
    assert agree(linear_minimum(truth, 2.0).value, 0)
    assert agree(linear_minimum(truth, 2.0).w_star[0], 1, 30)


def test_a_tie_with_the_threshold_is_decided_exactly():
    eps = 0.5
    truth = Truth(sample_of([[1.0]], [1.0], [[eps]], [0.0], [[-1.0 / eps]]))
    assert truth.curvature_at_least(arb(eps)) is True
    assert truth.curvature_at_least(arb(math.nextafter(eps, 0.0))) is False
    assert truth.is_stationary(eps, eps) is True  # ε* = λ²/μ2 = ε
    assert truth.is_stationary(math.nextafter(eps, 0.0), eps) is False
    assert agree(truth.smallest_epsilon(eps), eps)


def test_the_figure_has_a_saddle_with_eigenvalues_minus_and_plus_two():
    truth = Truth(sample_of([[1.0]], [1.0], [[1.0]], [0.0], [[-1.0]], scale=2.0))
    assert truth.F == 1
    assert agree(truth.lambda_min, -2)
    assert agree(largest_eigenvalue(truth.hessian), 2)


@pytest.mark.parametrize("a", [0.25, 2.0**-20])
def test_the_sharp_family_has_its_known_curvature_and_gap(a):
    truth = Truth(sharp(a))
    minimum = linear_minimum(truth, 1.0)
    assert truth.norm == 0
    assert agree(-truth.lambda_min, ((1 + 4 * arb(a) ** 2).sqrt() - 1) / 2)
    assert agree(gap(truth, minimum), arb(a) - arb(a) ** 2 / 2)
    assert minimum.active
    assert agree(minimum.w_star[0], 1, 30)


@pytest.mark.parametrize("seed", range(8))
def test_at_w_zero_the_spectrum_is_that_of_A_split_by_the_feature_gradient(seed):
    truth = Truth(make("zero_w", seed))
    length2 = 4 * dot(truth.a, truth.a)
    beta, top = smallest_eigenvalue(truth.A), largest_eigenvalue(truth.A)
    assert agree(truth.lambda_min, (beta - root(beta**2 + length2)) / 2)
    assert agree(largest_eigenvalue(truth.hessian), (top + root(top**2 + length2)) / 2)


# Derivatives.


def objective_in_fractions(sample: Sample, z: list[Fraction]) -> Fraction:
    """E[½(wᵀ(x + Vf) − y)²]·scale at (w, V) = z, V row by row."""
    x, y, f = (np.vectorize(Fraction)(part) for part in (sample.x, sample.y, sample.f))
    d, k = sample.V.shape
    w, V = np.array(z[:d]), np.array(z[d:]).reshape(d, k)
    pi = np.vectorize(Fraction)(np.ones(len(y)) if sample.probabilities is None else sample.probabilities)
    residual = (x + f @ V.T) @ w - y
    return Fraction(sample.scale) * (pi @ residual**2) / pi.sum() / 2


@pytest.mark.parametrize("family", ["gaussian", "weighted", "scaled_loss", "one_feature"])
def test_the_derivatives_of_the_squared_loss_are_those_of_its_polynomial(family):
    seed = next(s for s in range(100) if make(family, s).loss == "squared" and make(family, s).V.size < 9)
    sample = make(family, seed)
    truth, size = Truth(sample), sample.w.size + sample.V.size
    z = [Fraction(value) for value in [*sample.w, *sample.V.ravel()]]

    def along(direction: list[int]) -> tuple[Fraction, Fraction]:
        """φ'(0), φ''(0) of the polynomial φ(t) = F(z + t·direction) of degree 4, from five exact values."""
        m2, m1, at, p1, p2 = (
            objective_in_fractions(sample, [zi + t * ui for zi, ui in zip(z, direction, strict=True)])
            for t in (-2, -1, 0, 1, 2)
        )
        return (m2 - 8 * m1 + 8 * p1 - p2) / 12, (-m2 + 16 * m1 - 30 * at + 16 * p1 - p2) / 12

    def unit(*indices: int) -> list[int]:
        return [int(i in indices) for i in range(size)]

    def as_fraction(q: fmpq) -> Fraction:
        return Fraction(int(q.p), int(q.q))

    derivatives = [along(unit(i)) for i in range(size)]
    assert as_fraction(truth.rational.F) == objective_in_fractions(sample, z)
    assert [as_fraction(g) for g in truth.rational.gradient] == [first for first, _ in derivatives]
    for i in range(size):
        for j in range(i + 1):
            second = along(unit(i, j))[1]
            expected = second if i == j else (second - derivatives[i][1] - derivatives[j][1]) / 2
            assert as_fraction(truth.rational.hessian[i][j]) == expected
            assert truth.hessian[i][j].contains(arb(truth.rational.hessian[i][j]))


@pytest.mark.parametrize("loss", LOSSES)
@float64_scope()
def test_gradient_and_hessian_agree_with_automatic_differentiation(loss):

    definitions = {
        "squared": lambda p, y: 0.5 * (p - y) ** 2,
        "logistic": lambda p, y: jnp.log1p(jnp.exp(-y * p)),
        "pseudo_huber": lambda p, y: jnp.sqrt(1.0 + (p - y) ** 2) - 1.0,
        "poisson": lambda p, y: jnp.exp(p) - y * p,
    }
    n, d, k = 6, 2, 3

    def F(z, x, y, f, pi, scale):
        p = (x + f @ z[d:].reshape(d, k).T) @ z[:d]
        return scale * jnp.average(definitions[loss](p, y), weights=pi)

    derivatives = jax.jit(lambda z, *data: (F(z, *data), jax.grad(F)(z, *data), jax.hessian(F)(z, *data)))
    for seed, w in enumerate(([0.0, 0.0], [0.7, -1.2], [1e-3, 0.0])):
        rng = np.random.default_rng(seed)
        sample = gaussian(rng, n=n, d=d, k=k, losses=(loss,))
        sample = replace(sample, w=np.array(w), probabilities=rng.random(n), scale=1.0 + seed)
        truth = Truth(sample)
        z = np.concatenate([sample.w, sample.V.ravel()])
        value, gradient, hessian = derivatives(
            z, sample.x, sample.y, sample.f, sample.probabilities, sample.scale
        )
        np.testing.assert_allclose(float(truth.F), value, rtol=1e-12)
        np.testing.assert_allclose([float(g) for g in truth.gradient], gradient, rtol=1e-10, atol=1e-11)
        H = [[float(entry) for entry in row] for row in truth.hessian]
        np.testing.assert_allclose(H, hessian, rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(float(truth.lambda_min), np.linalg.eigvalsh(hessian)[0], atol=1e-10)


@pytest.mark.parametrize("family", ["gaussian", "zero_w", "rank_deficient", "weighted", "duplicated_rows"])
def test_the_oracle_of_any_head_says_the_same_of_one_output(family, longer):
    """It knows no derivative of a loss, but power series; and goes another way to min F_lin."""
    for seed in range(longer):
        sample = make(family, seed)
        truth, y = Truth(sample), sample.y if sample.loss != "logistic" else (1.0 + sample.y) / 2.0
        head = HeadTruth(
            Head(
                x=sample.x,
                y=y[:, None],
                f=sample.f,
                W=sample.w[None],
                V=sample.V,
                loss=sample.loss,
                probabilities=sample.probabilities,
            )
        )
        assert agree(head.F, truth.F)
        assert all(agree(a, b) for a, b in zip(head.gradient, truth.gradient, strict=True))
        for row, its_row in zip(head.hessian, truth.hessian, strict=True):
            assert all(agree(a, b) for a, b in zip(row, its_row, strict=True))
        assert agree(head.lambda_min, truth.lambda_min, 40)
        r = 0.5 / float(np.max(np.abs(sample.x)))
        assert minimum(head, r).value.overlaps(linear_minimum(truth, r).value)
        assert agree(minimum(head, r).value, linear_minimum(truth, r).value, 20)


@pytest.mark.parametrize("seed", range(6))
def test_the_moments_are_blocks_of_gradient_and_hessian(seed):
    truth = Truth(make("gaussian", seed))
    d, k = truth.d, truth.k
    for j in range(d):
        assert truth.gradient[j].overlaps(truth.g_w[j])
        for l in range(k):
            at = d + j * k + l
            assert truth.gradient[at].overlaps(truth.w[j] * truth.a[l])
            assert truth.hessian[0][at].overlaps(truth.w[j] * truth.B[0][l] + (truth.a[l] if j == 0 else 0))
            assert truth.hessian[d + l][at].overlaps(truth.w[0] * truth.w[j] * truth.C[l][l])
    assert agree(truth.norm_w**2 + truth.norm_V**2, truth.norm**2)


# Eigenvalues and decisions.


@pytest.mark.parametrize("seed", range(6))
def test_the_smallest_eigenvalue_agrees_with_mpmath(seed):
    truth = Truth(make("gaussian", seed))
    with mpmath.workdps(60):
        size = len(truth.hessian)
        H = mpmath.matrix(size, size)
        for i in range(size):
            for j in range(size):
                mantissa, exponent = truth.hessian[i][j].mid().man_exp()
                H[i, j] = mpmath.mpf(int(mantissa)) * mpmath.mpf(2) ** int(exponent)
        expected = min(mpmath.eigsy(H, eigvals_only=True))
        assert agree(truth.lambda_min, arb(mpmath.nstr(expected, 55)), 45)


@pytest.mark.parametrize("spectrum", [[-1e-6, 0, 0, 0, 1], [0, 0, 3], [-2, -2, -2, 1], [1e-20, 1, 1e6], [5]])
def test_the_smallest_eigenvalue_of_a_matrix_of_known_spectrum_is_found(spectrum):
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
        truth = Truth(make("interpolating", seed))
        assert truth.F == 0
        assert truth.norm == 0
        assert truth.is_stationary(0.0, 1.0) is True
        if truth.d * truth.k > truth.n:
            assert truth.lambda_min == 0


def test_near_minima_have_many_zeros_and_a_slightly_negative_eigenvalue():
    negative = [Truth(make("near_minimum", seed)).lambda_min for seed in range(40)]
    assert all(lam < 0 for lam in negative)
    assert any(-1e-5 < lam < -1e-8 for lam in negative)


@pytest.mark.parametrize("seed", first(15, range(40)))
def test_decisions_agree_with_the_smallest_epsilon(seed):
    truth, rng = Truth(random_sample(seed)), np.random.default_rng(seed)
    epsilon, mu2 = margin(truth, rng)
    least = truth.smallest_epsilon(mu2)
    decided = truth.is_stationary(epsilon, mu2)
    assert decided is not None
    assert not (decided and least > epsilon)
    assert decided or not least < epsilon


def test_margins_fall_on_both_sides_and_near():
    decided, distances = [], []
    for seed in range(60):
        truth = Truth(make("gaussian", seed))
        epsilon, mu2 = margin(truth, np.random.default_rng(seed))
        decided.append(truth.is_stationary(epsilon, mu2))
        distances.append(abs(float(truth.smallest_epsilon(mu2) / epsilon - 1)))
    assert 10 < sum(decided) < 50
    assert min(distances) < 1e-11


# The best linear predictor.


@pytest.mark.parametrize("family", ["gaussian", "rank_deficient", "uneven_columns", "nearly_rank_deficient"])
def test_least_squares_solves_the_normal_equations_with_least_norm(family):
    for seed in [s for s in range(40) if make(family, s).loss == "squared"][:4]:
        truth = Truth(make(family, seed))
        minimum = linear_minimum(truth)
        residual = [dot(row, minimum.w_star) - y for row, y in zip(truth.x, truth.y, strict=True)]
        for column in zip(*truth.x, strict=True):
            scale = norm(column)
            assert scale == 0 or agree(dot(column, residual) / scale, 0, 20)
        assert agree(minimum.value, dot(residual, residual) / (2 * truth.n), 20)
        if family == "rank_deficient":  # the last column is a multiple of the first
            first, last = truth.x[0][0], truth.x[0][-1]
            assert agree(first * minimum.w_star[-1], last * minimum.w_star[0], 20)


def test_one_dimensional_minima_have_closed_forms():
    def one(y, loss, r, x=1.0):
        return linear_minimum(Truth(sample_of([[x]] * len(y), y, [[1.0]] * len(y), [1.0], [[1.0]], loss)), r)

    assert agree(one([1.0], "logistic", 3.0).value, (1 + arb(-3).exp()).log())
    assert agree(one([1.0, 3.0], "poisson", 5.0).w_star[0], arb(2).log(), 30)
    assert agree(one([1.0, 3.0], "poisson", 5.0).value, 2 - 2 * arb(2).log())
    assert agree(one([0.0, 0.0], "poisson", 5.0).value, arb(-5).exp())
    assert agree(one([1.0, 3.0], "squared", 1.5).value, arb(5) / 8)
    assert agree(one([4.0], "pseudo_huber", 1.0).value, arb(10).sqrt() - 1)
    assert agree(one([4.0], "pseudo_huber", 5.0, x=2.0).w_star[0], 2, 30)


def test_the_least_norm_minimiser_of_one_equation():
    sample = sample_of([[1.0, 2.0, 0.0]], [5.0], [[1.0]], [1.0, 1.0, 1.0], [[1.0]] * 3)
    minimum = linear_minimum(Truth(sample))
    assert all(agree(entry, expected, 30) for entry, expected in zip(minimum.w_star, [1, 2, 0], strict=True))


@pytest.mark.parametrize("seed", first(10, range(0, 60, 3)))
def test_no_feasible_point_is_below_the_minimum_and_optimality_conditions_hold(seed):
    truth, rng = Truth(random_sample(seed)), np.random.default_rng(seed)
    r = float(10.0 ** rng.uniform(-2, 0) / np.max(np.abs(truth.sample.x), initial=1e-9))
    minimum = linear_minimum(truth, r)
    assert norm(minimum.w_star) < arb(r) * (1 + arb(10) ** -20)
    at_star, at_zero = (oracle_linear.F_lin(truth, u) for u in (minimum.w_star, [arb(0)] * truth.d))
    assert abs(at_star - minimum.value) <= abs(at_zero) * arb(10) ** -20
    for _ in range(20):
        u = rng.normal(size=truth.d)
        u *= r * rng.random() / np.linalg.norm(u) * (1.0 - 1e-12)
        assert not oracle_linear.F_lin(truth, [arb(float(entry)) for entry in u]) < minimum.value


def test_a_minimum_is_attained_unless_the_data_are_separable():
    f, w, V = [[1.0]] * 3, [1.0, 1.0], [[1.0], [1.0]]
    x = [[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]

    def logistic(x, y):
        return attained(sample_of(x, y, f[: len(x)], w, V, "logistic"))

    assert logistic(x, [1.0, 1.0, 1.0])
    assert not logistic(x, [1.0, 1.0, -1.0])
    assert not logistic(x[:2], [1.0, -1.0])
    assert not logistic([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], [1.0, 1.0, 1.0])  # separable in x_2 alone
    assert logistic([[1.0, 1.0], [-1.0, -1.0]], [1.0, 1.0])  # of rank one, and balanced there
    assert not logistic([[1.0, 1.0], [-2.0, -2.0]], [1.0, -1.0])

    def poisson(x, y):
        return attained(sample_of(x, y, [[1.0]] * len(x), w, V, "poisson"))

    assert [poisson(x[:2], y) for y in ([1.0, 2.0], [0.0, 2.0], [0.0, 0.0])] == [True, False, False]
    assert poisson([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0]], [0.0, 1.0, 0.0, 0.0])
    assert not any(attained(make("separable", seed)) for seed in range(20))


def test_a_minimum_that_is_attained_is_a_stationary_point():
    for seed in range(30):
        sample = make("silent_poisson" if seed % 2 else "one_feature", seed)
        if attained(sample):
            truth = Truth(sample)
            star = linear_minimum(truth).w_star
            first = [truth.loss(dot(row, star), y)[1] for row, y in zip(truth.x, truth.y, strict=True)]
            assert all(agree(dot(first, column), 0, 25) for column in zip(*truth.x, strict=True))


# The theorems.


@pytest.mark.parametrize("seed", first(20, range(60)))
def test_every_theorem_holds(seed):
    truth = Truth(random_sample(seed))
    r = float(1.3 / np.max(np.abs(truth.sample.x), initial=1e-9))
    minimum = linear_minimum(truth, r)
    slack = arb(10) ** -20
    distance = gap(truth, minimum)
    bounds = gap_bounds(truth, minimum, r)
    size = slack * (abs(truth.F) + abs(minimum.value) + abs(bounds.first_order))
    chain = (distance, bounds.linear_functional, bounds.first_order)
    assert all(not left > right + size for left, right in pairwise(chain))
    assert not distance > bounds.linear_functional_ball + size
    assert not norm(truth.a) > feature_gradient_bound(truth) + slack * norm(truth.a)
    left, right = theorem2(truth, minimum)
    assert not right > left * (1 + slack) + slack * abs(right)
    if truth.sample.w.any():
        paper, refined = theorem1(truth, minimum)
        assert not max(paper.mid(), refined.mid()) > truth.norm + size * abs(refined) / abs(distance) + slack


def test_theorem_3_takes_its_known_values():
    ones = theorem3(1e-4, 1, 1, 1, 1, 1, d=2)
    assert agree(ones.refined_form, arb("0.100698756"), 9)
    assert agree(theorem3(1e-4, 1, 1, 1, 1, 1, d=1).refined_form, arb("0.242825460"), 9)
    assert agree(ones.threshold_form, arb("0.107101770"), 9)
    assert agree(ones.threshold, arb("9.33693e-4"), 8)
    assert agree(ones.polynomial_form, arb("0.85085"), 5)
    assert agree(ones.refined_polynomial_form, arb("0.4004"), 5)
    primes = theorem3(1e-2, 2, 1, 3, 5, 7, d=2)
    assert agree(primes.refined_form, arb("2.390403063"), 9)
    assert agree(theorem3(1e-2, 2, 1, 3, 5, 7, d=1).refined_form, arb("5.728517089"), 9)
    assert agree(primes.threshold_form, arb("2.666851925"), 9)
    assert agree(primes.threshold, arb("7.49995e-3"), 7)
    assert agree(primes.polynomial_form, arb("16.637616067"), 9)
    assert agree(primes.refined_polynomial_form, arb("6.524555320"), 9)
    assert ones.threshold.rel_accuracy_bits() > 150


# Lipschitz constants.


def derivative_in_mpmath(loss: str, order: int, p, y):
    definitions = {
        "squared": lambda p: (p - y) ** 2 / 2,
        "logistic": lambda p: mpmath.log(1 + mpmath.exp(-y * p)),
        "pseudo_huber": lambda p: mpmath.sqrt(1 + (p - y) ** 2) - 1,
        "poisson": lambda p: mpmath.exp(p) - y * p,
    }
    return mpmath.diff(definitions[loss], p, order)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("reach", [0.0, 0.2, 1.0, 2.5])
def test_suprema_are_those_of_a_dense_grid(loss, reach):
    for y in (1.0, -1.0) if loss == "logistic" else (0.0, 0.3, 1.1, 4.0):
        found = suprema(loss, arb(reach), arb(y))
        for order, bound in enumerate(found, start=1):
            values = [abs(derivative_in_mpmath(loss, order, p, y)) for p in np.linspace(-reach, reach, 41)]
            highest = float(max(values))
            assert highest <= float(bound) * (1 + 1e-9) + 1e-9
            assert float(bound) <= highest * 1.01 + 1e-9


@pytest.mark.parametrize("seed", range(12))
def test_lipschitz_constants_bound_the_change_of_each_derivative(seed):
    sample, rng = make("gaussian", seed), np.random.default_rng(seed)
    d, k = sample.V.shape
    b = 1.5
    mu = lipschitz(Truth(sample), b)

    def inside() -> Truth:
        w, V = rng.normal(size=d), rng.normal(size=(d, k))
        w *= 0.99 * b * rng.random() / np.linalg.norm(w)
        V *= 0.99 * b * rng.random() / np.linalg.norm(V, 2)
        return Truth(sample_of(sample.x, sample.y, sample.f, w, V, sample.loss))

    for _ in range(4):
        here, there = inside(), inside()
        step = norm([norm(row) for row in difference([here.w, *here.V], [there.w, *there.V])])
        assert abs(here.F - there.F) < mu.mu0 * step
        assert norm(*difference([here.gradient], [there.gradient])) < mu.mu1 * step
        assert spectral_norm(difference(here.hessian, there.hessian)) < mu.mu2 * step


# The families are what they say.


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_makes_finite_problems_of_one_shape(family):
    for seed in range(20):
        sample = make(family, seed)
        n, d = sample.x.shape
        k = sample.f.shape[1]
        shapes = [part.shape for part in (sample.y, sample.f, sample.w, sample.V)]
        assert shapes == [(n,), (n, k), (d,), (d, k)]
        assert n <= 12
        assert max(d, k) <= 4
        arrays = (sample.x, sample.y, sample.f, sample.w, sample.V)
        assert all(np.isfinite(part).all() for part in arrays)
        assert Truth(sample).F.is_finite()
        assert sample.description == f"{family}, seed {seed}"


def test_families_have_the_properties_that_they_are_named_for():
    for seed in range(10):
        assert all(entry.contains(0) for entry in Truth(make("cancelling_features", seed)).a)
        assert not make("zero_w", seed).w.any()
        assert not make("zero_V", seed).V.any()
        assert Truth(make("saddle", seed)).norm < 1e-9
        assert Truth(make("saddle", seed)).lambda_min < 0
        assert Truth(make("strict_minimum", seed)).lambda_min > 0
        assert 0 < np.linalg.norm(make("tiny_w", seed).w) < 1e-7
        x = fmpq_mat([[rational(entry) for entry in row] for row in make("rank_deficient", seed).x])
        assert x.rank() < x.ncols()
