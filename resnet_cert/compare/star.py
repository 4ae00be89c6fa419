"""W*, the best linear predictor, as seen from the point (W, V)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from resnet_cert.compare.linear_minimum import LinearMinimum
from resnet_cert.numerics.enclosure import Array, Ball, Enclosure, difference, norm, product
from resnet_cert.numerics.matrices import least_solution, nuclear_norm, smallest_singular_value
from resnet_cert.numerics.radius import Radius, gamma
from resnet_cert.problem.problem import Problem
from resnet_cert.problem.span import gradient_basis, span

ZERO = Enclosure.exact(0.0)


@dataclass(frozen=True)
class Star:
    """A predictor Ux + Zf, Z = 0 for W*, known to lie within a ball, as seen from (W, V).

    In the span of the loss's gradients (`problem.span`), q' its dimension: distance, ‖W − U‖_F; turned,
    U_1V − Z (q', k), with its Frobenius and nuclear norms; sigma, the least singular value of W_1 (q', d1);
    X = W_1⁺(U_1V − Z) (d1, k), known where W_1 has full row rank, and where U_1V − Z = 0.
    U: (q, d).  norm: ‖(U, Z)‖_F.  norm_V: ‖V‖.
    """

    U: Ball
    norm: Enclosure
    distance: Enclosure
    turned: Ball
    turned_norm: Enclosure
    turned_nuclear: Enclosure
    sigma: Enclosure
    X: Ball | None
    norm_X: Enclosure
    norm_V: Enclosure
    q: int

    @property
    def is_turned(self) -> bool:
        """U_1V − Z is not known to be 0."""
        return bool(self.turned.center.any()) or not self.turned.radius.exact


def seen_from(problem: Problem, linear: LinearMinimum) -> Star:
    """W* from the problem's point."""
    norm_V = problem.norm_V
    turned = product(linear.W_star[:, : problem.d1], problem.V)
    reach = norm_V * linear.norm
    if not np.isfinite(linear.r):
        reach = norm_V * linear.W_star.norm()
    return star(problem, linear.W_star, turned, linear.norm, reach, norm_V)


def star(
    problem: Problem, U: Ball, turned: Ball, length: Enclosure, reach: Enclosure, norm_V: Enclosure
) -> Star:
    """(U, Z) from the problem's point.

    Args:
        turned: U_1V − Z.  length: ‖(U, Z)‖_F.  reach: ‖U_1V − Z‖_F at most.
    """
    W, outputs = problem.W, span(problem)
    turned, W_1 = within_span(problem, turned), within_span(problem, W[:, : problem.d1])
    rank = Enclosure.exact(float(min(outputs, problem.d1, problem.k))).sqrt()
    sigma = smallest_singular_value(W_1)
    distance = within_span(problem, difference(W, U)).norm()
    turned_norm = _at_most(turned.norm(), reach)
    X, norm_X = None, Enclosure(float("nan"), 0.0, float("inf"))
    if not turned.center.any() and turned.radius.exact:
        X, norm_X = Ball.exact(np.zeros((problem.d1, problem.k))), ZERO
    elif sigma.lower > 0.0:
        X = least_solution(W_1, turned, sigma)
        norm_X = _at_most(X.norm(), turned_norm / sigma.lower)
    return Star(
        U,
        length,
        _at_most(distance, norm(W) + length),
        turned,
        turned_norm,
        turned_norm if min(turned.center.shape) == 1 else _at_most(nuclear_norm(turned), rank * turned_norm),
        sigma,
        X,
        norm_X,
        norm_V,
        outputs,
    )


def within_span(problem: Problem, M: Ball | Array) -> Ball:
    """NᵀM for M (q, ·), N a basis of the span of the loss's gradients."""
    N = gradient_basis(problem)
    if N is None:
        return M if isinstance(M, Ball) else Ball.exact(M)
    return product(N.T, M)


def _at_most(x: Enclosure, most: Enclosure) -> Enclosure:
    """x ≥ 0, known besides to be at most `most`."""
    return x.intersect(0.0, max(most.upper, x.lower))


def quadratic_form(Q: Ball, B: Ball | Array) -> Enclosure:
    """⟨B, Q B⟩ = E[(Bz)ᵀ∇²ℓ(Bz)] for B (q, m) and the Q of `Moments`."""
    B = B if isinstance(B, Ball) else Ball.exact(B)
    b = B.center
    match Q.center.ndim:
        case 2:
            image = b @ Q.center
        case 3:
            image = np.einsum("aij,aj->ai", Q.center, b)
        case _:
            image = np.einsum("abij,bj->ai", Q.center, b)
    Q_norm = Radius.norm(Q.center.reshape(1, -1)) * (float(len(b)) ** 0.5 if Q.center.ndim == 2 else 1.0)
    size, reach = Radius.norm(b), Radius.norm(b) + B.radius
    error = Q.radius * reach * reach + Q_norm * (size + reach) * B.radius
    rounding = Q_norm * size * size * gamma(2 * b.size + 4) + Radius.underflow(b.size**2)
    return Enclosure.around(float(np.sum(b * image)), error + rounding)
