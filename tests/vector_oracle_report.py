"""Every number of a report on several outputs once more, in 60 digits, by the formulas of the theorems.

F, ∇F, ∇²F are those of `vector_oracle`, W* is that of `vector_oracle_linear`, and singular values come from
mpmath's decomposition.
"""

from __future__ import annotations

from functools import cached_property

import mpmath
import numpy as np
from flint import arb
from mpmath import mpf
from oracle_algebra import largest_eigenvalue
from vector_oracle import VectorSample, VectorTruth
from vector_oracle_linear import linear_terms, minimum_on_ball, regularised_minimiser

TOWARDS_LEAST = mpf(10) ** -45
"""λ of F_lin + λ/2‖W‖² whose minimiser stands for the least one of F_lin."""


def number(x: arb) -> mpf:
    """The midpoint of a ball."""
    mantissa, exponent = x.mid().man_exp()
    return mpf(int(mantissa)) * mpf(2) ** int(exponent)


def matrix(M: np.ndarray) -> mpmath.matrix:
    return mpmath.matrix([[mpf(float(entry)) for entry in row] for row in M])


def of_balls(M: list[list[arb]]) -> mpmath.matrix:
    return mpmath.matrix([[number(entry) for entry in row] for row in M])


def frobenius(M: mpmath.matrix) -> mpf:
    return mpmath.sqrt(sum(entry**2 for entry in M))


def singular_values(M: mpmath.matrix) -> list[mpf]:
    """In descending order."""
    return list(mpmath.svd_r(M, compute_uv=False))


def inner(M: mpmath.matrix, N: mpmath.matrix) -> mpf:
    return sum(a * b for a, b in zip(M, N, strict=True))


class ReportTruth:
    """The numbers of a report at a sample; r: the ball of the linear predictors, None where it holds W*."""

    def __init__(self, sample: VectorSample, r: float | None = None) -> None:
        self.truth = VectorTruth(sample)
        self.sample, self.q, self.d = sample, *sample.W.shape
        self.W, self.V = matrix(sample.W), matrix(sample.V)
        if r is None:
            flat = regularised_minimiser(sample, TOWARDS_LEAST)
            self.F_lin_min = linear_terms(sample, flat)[0]
        else:
            self.F_lin_min, flat = minimum_on_ball(sample, r)
        self.W_star = mpmath.matrix(self.q, self.d)
        for i, entry in enumerate(flat):
            self.W_star[i // self.d, i % self.d] = entry
        self.F, self.lambda_min = number(self.truth.F), number(self.truth.lambda_min)
        self.gap = self.F - self.F_lin_min
        self.g_W, self.A_f = of_balls(self.truth.g_W), of_balls(self.truth.A_f)
        self.norm_W, self.norm_W_star = frobenius(self.W), frobenius(self.W_star)
        self.norm_V = singular_values(self.V)[0]
        self.gradient_W, self.gradient_V = frobenius(self.g_W), frobenius(self.W.T * self.A_f)
        self.gradient_norm = mpmath.hypot(self.gradient_W, self.gradient_V)
        self.m = max(mpf(0), -self.lambda_min)
        self.distance, self.turned = frobenius(self.W - self.W_star), self.W_star * self.V

    @cached_property
    def nuclear(self) -> mpf:
        """‖W*V‖_*."""
        return sum(singular_values(self.turned))

    @cached_property
    def theorem1(self) -> tuple[mpf, mpf]:
        """The right side and the refined one, for W of full row rank."""
        sigma = singular_values(self.W)[-1]
        root = 2 * self.norm_W**2 + self.norm_W_star**2 * (2 + self.norm_V**2 / sigma**2)
        X = self.W.T * mpmath.inverse(self.W * self.W.T) * self.turned
        return self.gap / mpmath.sqrt(root), self.gap / mpmath.hypot(self.distance, frobenius(X))

    @cached_property
    def theorem2(self) -> tuple[mpf, mpf]:
        """Both sides at (0, V)."""
        zero = self.truth.at_zero
        size = self.q * self.d
        bend = number(largest_eigenvalue([row[:size] for row in zero.hessian[:size]]))
        m = max(mpf(0), -number(zero.lambda_min))
        rank = min(self.q, self.d, self.V.cols)
        gradient = mpmath.sqrt(sum(number(entry) ** 2 for entry in zero.gradient))
        left = gradient + mpmath.sqrt(rank) * self.norm_V * mpmath.sqrt(m * bend + m**2)
        return left, (number(zero.F) - self.F_lin_min) / self.norm_W_star

    @cached_property
    def linear_functional(self) -> mpf:
        return inner(self.W - self.W_star, self.g_W) + inner(self.turned, self.A_f)

    @cached_property
    def first_order(self) -> mpf:
        by_frobenius = frobenius(self.turned) * frobenius(self.A_f)
        return self.distance * self.gradient_W + min(by_frobenius, self.nuclear * self.top)

    @cached_property
    def top(self) -> mpf:
        """‖A_f‖."""
        return singular_values(self.A_f)[0]
