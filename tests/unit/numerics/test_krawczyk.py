"""Interval Newton against polynomials with known zeros, and balls against rational and 50-digit numbers."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from resnet_cert.numerics.balls import Balls, product, stacked
from resnet_cert.numerics.krawczyk import Enclosed, krawczyk, zeros


def variables(center: np.ndarray, reach: np.ndarray) -> tuple[Balls, ...]:
    u = Balls(center, reach)
    return tuple(u[:, j] for j in range(center.shape[1]))


class Polynomial:
    """Σ c_k x^k in one unknown."""

    def __init__(self, coefficients: list[float]) -> None:
        self.coefficients = coefficients

    def value(self, x: Balls, coefficients: list[float]) -> Balls:
        total = Balls.exact(np.zeros_like(x.center))
        for c in reversed(coefficients):
            total = total * x + Balls.exact(np.full_like(x.center, c))
        return total

    def __call__(self, center: np.ndarray, reach: np.ndarray) -> Enclosed:
        slopes = [k * c for k, c in enumerate(self.coefficients)][1:]
        (at,), (over,) = variables(center, 0.0 * reach), variables(center, reach)
        return Enclosed(
            self.value(at, self.coefficients)[:, None],
            self.value(over, self.coefficients)[:, None],
            self.value(over, slopes)[:, None, None],
        )


def circle_and_line(shift: float):
    """x² + y² = 1, x = y + shift."""

    def system(center: np.ndarray, reach: np.ndarray) -> Enclosed:
        def values(x: Balls, y: Balls) -> Balls:
            one = Balls.exact(np.ones_like(x.center))
            return stacked([x.square() + y.square() - one, x - y - one.times(shift)])

        at, over = variables(center, 0.0 * reach), variables(center, reach)
        one = Balls.exact(np.ones(len(center)))
        J = stacked([stacked([over[0].times(2.0), over[1].times(2.0)]), stacked([one, -one])], axis=1)
        return Enclosed(values(*at), values(*over), J)

    return system


@pytest.mark.parametrize(
    "roots", [[0.0], [-2.0, 0.0, 1.0], [0.25, 0.25 + 2.0**-20], [-1.0, -0.5, 0.0, 0.5, 1.0]]
)
def test_every_zero_is_found_once_and_enclosed(roots: list[float]) -> None:
    coefficients = [float(c) for c in np.polynomial.polynomial.polyfromroots(roots)]
    found = zeros([Polynomial(coefficients)], np.array([-4.0]), np.array([4.0]))
    assert found.complete
    order = np.argsort(found.center[:, 0])
    center, radius = found.center[order, 0], found.radius[order, 0]
    assert len(center) == len(roots)
    assert (np.abs(center - roots) <= radius).all()
    assert radius.max() < 1e-6


def test_a_double_zero_is_not_decided_and_nothing_else_is_left() -> None:
    found = zeros([Polynomial([0.25, -1.0, 1.0])], np.array([-4.0]), np.array([4.0]))  # (x − ½)²
    assert not len(found.center)
    assert not found.complete
    assert np.abs(found.undecided[0] - 0.5).max() < 1e-3


def test_no_zero_is_a_proof_too() -> None:
    found = zeros([Polynomial([1.0, 0.0, 1.0])], np.array([-1e6]), np.array([1e6]))
    assert found.complete
    assert not len(found.center)


def test_zeros_on_the_common_side_of_boxes_and_on_the_end_of_the_range() -> None:
    found = zeros([circle_and_line(1.0)], np.array([-1.0, -1.0]), np.array([1.0, 1.0]))
    assert found.complete
    assert sorted(map(tuple, found.center.round(12).tolist())) == [(0.0, -1.0), (1.0, 0.0)]


def test_a_budget_that_is_spent_leaves_boxes_that_cover_the_zeros() -> None:
    found = zeros([circle_and_line(0.1)], np.full(2, -2.0), np.full(2, 2.0), most_boxes=12, batch=4)
    assert not found.complete
    center, reach = found.undecided
    for sign in (1.0, -1.0):
        x = 0.05 + sign * math.sqrt(0.5 - 0.0025)
        zero = np.array([x, x - 0.1])
        in_left = (np.abs(center - zero) <= reach).all(axis=1).any()
        in_found = any(
            (np.abs(at - zero) <= radius + 1e-12).all()
            for at, radius in zip(found.center, found.radius, strict=True)
        )
        assert in_left or in_found


def test_a_singular_jacobian_decides_nothing() -> None:
    f = Enclosed(*(Balls.exact(a) for a in (np.zeros((1, 2)), np.zeros((1, 2)), np.zeros((1, 2, 2)))))
    with np.errstate(all="ignore"):
        assert not (np.abs(krawczyk(f, np.zeros((1, 2)), np.ones((1, 2))).radius) < np.inf).any()


@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e150])
def test_balls_hold_exact_results(scale: float) -> None:
    rng = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        for _ in range(200):
            a, b = (
                Balls(scale * rng.normal(size=3), abs(scale * rng.normal()) * np.ones(3) * 1e-3) for _ in "ab"
            )
            x, y = (z.center + z.radius * rng.uniform(-1.0, 1.0, 3) for z in (a, b))
            pairs = (
                (a + b, [Fraction(p) + Fraction(q) for p, q in zip(x, y, strict=True)]),
                (a - b, [Fraction(p) - Fraction(q) for p, q in zip(x, y, strict=True)]),
                (a * b, [Fraction(p) * Fraction(q) for p, q in zip(x, y, strict=True)]),
                (a.square(), [Fraction(p) ** 2 for p in x]),
                (a.times(0.3), [Fraction(p) * Fraction(0.3) for p in x]),
                (a.reciprocal(), [1 / Fraction(p) for p in x]),
            )
            for ball, exact in pairs:
                for center, radius, true in zip(ball.center, ball.radius, exact, strict=True):
                    if math.isfinite(radius) and math.isfinite(center):
                        assert abs(Fraction(float(center)) - true) <= Fraction(float(radius))


def test_sums_and_products_of_balls_hold_exact_results() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(size=(4, 50)) * 10.0 ** rng.integers(-12, 12, size=(4, 50))
    w = rng.normal(size=50)
    sums, weighted = Balls.exact(a).sum(), Balls.exact(a).weighted(Balls.exact(w))
    for i, row in enumerate(a):
        true = sum(map(Fraction, row), Fraction(0))
        assert abs(Fraction(sums.center[i]) - true) <= Fraction(sums.radius[i])
        true = sum((Fraction(p) * Fraction(q) for p, q in zip(row, w, strict=True)), Fraction(0))
        assert abs(Fraction(weighted.center[i]) - true) <= Fraction(weighted.radius[i])
    A, B = rng.normal(size=(2, 3, 3))
    C = product(Balls.exact(A), Balls.exact(B))
    with mpmath.workdps(50):
        true = mpmath.matrix(A.tolist()) * mpmath.matrix(B.tolist())
        for i in range(3):
            for j in range(3):
                assert abs(mpmath.mpf(C.center[i, j]) - true[i, j]) <= C.radius[i, j]


def test_where_a_jacobian_overflows_every_unknown_is_halved() -> None:
    system = circle_and_line(0.25)

    def overflowing(center: np.ndarray, reach: np.ndarray) -> Enclosed:
        found = system(center, reach)
        for part in found:
            part.radius[reach.max(axis=1) > 4.0] = np.inf
        return found

    found = zeros([overflowing], np.full(2, -60.0), np.full(2, 60.0), most_boxes=100_000)
    assert found.complete
    assert len(found.center) == 2
