"""The first derivatives in one pass of O(nq(d + k)), and the curvature along one direction in another.

    p = Wx + Zf,  Z = W_1V,   A_f = E[∇ℓ fᵀ],   E[∇ℓ xᵀ],   g_W = E[∇ℓ xᵀ] + A_f(EV)ᵀ,

so that neither h nor a matrix with q(d + k) columns is formed.  Along (dW, dV),

    D²F = E[δpᵀ∇²ℓ δp] + 2⟨dW_1 dV, A_f⟩,   δp = dW x + T f,  T = dW_1V + W_1dV.

Radii as in `moments.moments`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from resnet_cert.moments.executors import merged, summed
from resnet_cert.moments.lipschitz import (
    LipschitzSums,
    forms_matrices,
    lipschitz_constants,
    lipschitz_sums,
)
from resnet_cert.moments.moments import MeanSums, Slopes, total_weight, value_sum, weight_sum
from resnet_cert.numerics.enclosure import QUIET, Ball, Enclosure, added, inner, product
from resnet_cert.numerics.radius import NOTHING, Array, Radius, U, gamma
from resnet_cert.numerics.sums import BLOCK_ROWS, Blocks, Sum, quotient
from resnet_cert.problem.losses import unit_vectors
from resnet_cert.problem.problem import Chunk, Direction, Problem

FEWEST_CLASSES = 16
"""From so many on sums over each class are quicker than a product."""


@dataclass(frozen=True)
class FirstMoments:
    """F, g_W (q, d), A_f (q, k) and E[∇ℓ xᵀ] (q, d): expectations with proven radii (Frobenius norms)."""

    F: Enclosure
    g_W: Ball
    A_f: Ball
    slope_x: Ball


@dataclass(frozen=True)
class FirstSums:
    """The same, unnormalised and of some chunks only.  `+` merges those of disjoint sets of rows, in any
    order, to the same floats."""

    weight: Sum
    F: Sum
    slope_x: Sum
    A_f: Sum

    def __add__(self, other: FirstSums) -> FirstSums:
        return FirstSums(
            self.weight + other.weight,
            self.F + other.F,
            self.slope_x + other.slope_x,
            self.A_f + other.A_f,
        )

    def expectation(self, V: Array) -> FirstMoments:
        whole = total_weight(self.weight)
        F, slope_x, A_f = (quotient(part.total(), whole) for part in (self.F, self.slope_x, self.A_f))
        d1 = len(V)
        turned = product(A_f, V.T)
        first = added(slope_x[:, :d1], turned)
        g_W = Ball(
            np.concatenate([first.center, slope_x.center[:, d1:]], axis=1),
            # slope_x may be off anywhere within its radius: not twice in two places.
            slope_x.radius + turned.radius + Radius.norm(first.center) * U,
        )
        return FirstMoments(Enclosure.around(float(F.center), F.radius), g_W, A_f, slope_x)


@dataclass(frozen=True)
class Linear:
    """x, f ↦ Mx + Nf, of a matrix M (q, d) that is given and one N (q, k) that is computed."""

    M: Array
    N: Ball

    def zero(self) -> Linear:
        """The map of the same shape that is 0."""
        return Linear(np.zeros_like(self.M), Ball(np.zeros_like(self.N.center), NOTHING))

    def at(self, chunk: Chunk, norms: tuple[Radius, Radius], blocks: Blocks) -> tuple[Array, Radius]:
        """The values (m, q) and their error (m,) in Euclidean norm; norms: ‖x‖ and ‖f‖."""
        (x_norm, f_norm), M_norm, N_norm = norms, Radius.norm(self.M), Radius.norm(self.N.center)
        if M_norm.exact and N_norm.exact and self.N.radius.exact:
            return np.broadcast_to(0.0, (len(chunk.x), len(self.M))), NOTHING
        values = np.zeros((len(chunk.x), len(self.M))) if M_norm.exact else blocks.times(chunk.x, self.M.T)
        of_x, of_f = M_norm * gamma(self.M.shape[1]), N_norm * gamma(chunk.f.shape[1]) + self.N.radius
        error = of_x * x_norm + of_f * f_norm
        if not N_norm.exact:
            blocks.add_times(values, chunk.f, self.N.center.T)
            error = error + Radius.row_norms(values) * U
        if not error.exact:
            error = error + Radius.underflow(self.M.size + self.N.center.size)
        return values, error


def head(problem: Problem) -> Linear:
    """x, f ↦ p."""
    return Linear(problem.W, product(problem.W[:, : problem.d1], problem.V))


def row_norms(chunk: Chunk) -> tuple[Radius, Radius]:
    """(m,) ‖x‖ and ‖f‖."""
    return Radius.row_norms(chunk.x), Radius.row_norms(chunk.f)


@QUIET
def first_moments(problem: Problem) -> FirstMoments:
    """One pass over the data, a chunk at a time."""
    return summed(problem, functools.partial(_sums_here, p=head(problem)), second=False).expectation(
        problem.V
    )


def _sums_here(problem: Problem, chunk: Chunk, blocks: Blocks, p: Linear) -> FirstSums:
    return first_sums(problem, chunk, blocks, p, row_norms(chunk))


def first_sums(
    problem: Problem, chunk: Chunk, blocks: Blocks, p: Linear, norms: tuple[Radius, Radius]
) -> FirstSums:
    """What some rows contribute, which begin with a block; p: `head` of the problem; norms: `row_norms`."""
    x_norm, f_norm = norms
    at = problem.loss.first_derivatives(*p.at(chunk, norms, blocks), chunk.y, chunk.omega)
    slopes = Slopes.of(at.first, at.first_error, chunk.weight, at.first_size)
    return FirstSums(
        weight=weight_sum(chunk, blocks),
        F=value_sum(at.value, at.value_error, chunk.weight, blocks),
        slope_x=slopes.times(chunk.x, x_norm, NOTHING, blocks),
        A_f=slopes.times(chunk.f, f_norm, NOTHING, blocks),
    )


def first_sums_at_0(
    problem: Problem, chunk: Chunk, blocks: Blocks, p: Linear, norms: tuple[Radius, Radius]
) -> FirstSums:
    """The same at W = 0; with one class a sample by sums over each class, without a product with q rows.

    There ∇ℓ(0; e_l) = α(1, …, 1) + (β − α)e_l for all samples alike, α and β to within the error of one of
    them, and Σ π∇ℓ zᵀ = α·1(Σ πz)ᵀ + (β − α)C, C the sums Σ πz over each class, row by row.  Sample i adds
    at most (|α|√q + |α| + |β|)π‖z‖, with the roundings of a weight, 512 samples, q classes, and a few more.
    """
    if problem.q < FEWEST_CLASSES or chunk.omega is not None:
        return first_sums(problem, chunk, blocks, p.zero(), norms)
    label, has_one = unit_vectors(chunk.y)
    if not has_one.all():
        if not blocks.all_of(has_one).any():
            return first_sums(problem, chunk, blocks, p.zero(), norms)
        return merged(  # what a block adds depends on no other block
            first_sums_at_0(problem, chunk[rows], part, p, (norms[0][rows], norms[1][rows]))
            for part, rows in blocks.each()
        )
    one = problem.loss.first_derivatives(np.zeros((1, problem.q)), NOTHING, chunk.y[:1], None)
    beta, alpha = (float(one.first[0, (label[0] + i) % problem.q]) for i in (0, 1))
    value, error = np.full(len(label), one.value[0]), np.full(len(label), one.value_error.upper[0])
    root = math.sqrt(problem.q) * (1.0 + 2.0 * U)
    off, size = one.first_error[0] * root, Radius.of(abs(alpha)) * (root + 1.0) + Radius.of(abs(beta))

    def times(z: Array, norm: Radius) -> Sum:
        each = norm if chunk.weight is None else norm * chunk.weight
        values = blocks.sums_by_class(z, chunk.weight, label, problem.q)
        together = alpha * values.sum(axis=1, keepdims=True)
        values *= beta - alpha
        values += together
        sizes = blocks.radii(each * size)
        radius = blocks.radii(each * off) + sizes * blocks.roundings(problem.q + 16)
        if not radius.exact:
            lost = Radius.underflow(4 * BLOCK_ROWS * problem.q * z.shape[1])
            radius = radius + lost * (size + Radius.of(1.0))
        return blocks.sum_of_blocks(values, radius, sizes)

    return FirstSums(
        weight=weight_sum(chunk, blocks),
        F=value_sum(value, Radius(error, one.value_error.exact), chunk.weight, blocks),
        slope_x=times(chunk.x, norms[0]),
        A_f=times(chunk.f, norms[1]),
    )


@QUIET
def mu2_pass(problem: Problem, b: float) -> float | None:
    """μ2 on the domain of radius b by a pass over the data; None where the loss has no suprema."""
    found = summed(problem, functools.partial(constants_sums, b=b), second=False)
    if found.lipschitz is None:
        return None
    return lipschitz_constants(found.lipschitz, total_weight(found.weight), b, problem.k).mu2


@dataclass(frozen=True)
class ConstantsSums:
    """What μ2 is made of, if it is bounded, and Σ π.  Mergeable."""

    weight: Sum
    lipschitz: LipschitzSums | None

    def __add__(self, other: ConstantsSums) -> ConstantsSums:
        lipschitz = None
        if self.lipschitz is not None and other.lipschitz is not None:
            lipschitz = self.lipschitz + other.lipschitz
        return ConstantsSums(self.weight + other.weight, lipschitz)


def constants_sums(problem: Problem, chunk: Chunk, blocks: Blocks, b: float) -> ConstantsSums:
    """What some rows contribute, which begin with a block."""
    matrices = forms_matrices(problem.n, problem.d + problem.k)
    norms = row_norms(chunk)
    sums = lipschitz_sums(problem.loss, chunk, *norms, b, blocks, matrices=matrices, only_mu2=True)
    return ConstantsSums(weight_sum(chunk, blocks), sums)


@QUIET
def curvature_along(problem: Problem, direction: Direction, A_f: Ball | None = None) -> Enclosure:
    """D²F along a direction: one pass, or two where A_f is not known.  (Not divided by ‖direction‖².)"""
    d1 = problem.d1
    dW_1, W_1 = direction.dW[:, :d1], problem.W[:, :d1]
    p = head(problem)
    step = Linear(direction.dW, added(product(dW_1, problem.V), product(W_1, direction.dV)))
    form = summed(problem, functools.partial(form_sums, p=p, step=step)).expectation()
    bent = Enclosure.around(float(form.center), form.radius)
    if problem.loss.convex_in_range:
        bent = bent.intersect(lower=0.0)
    A_f = first_moments(problem).A_f if A_f is None else A_f
    return bent + 2.0 * inner(product(dW_1, direction.dV), A_f)


def form_sums(problem: Problem, chunk: Chunk, blocks: Blocks, p: Linear, step: Linear) -> MeanSums:
    """δpᵀ∇²ℓ δp of some rows, which begin with a block."""
    norms = row_norms(chunk)
    at, error = p.at(chunk, norms, blocks)
    form, wrong = problem.loss.quadratic(at, error, chunk.y, chunk.omega, *step.at(chunk, norms, blocks))
    return MeanSums(weight_sum(chunk, blocks), value_sum(form, wrong, chunk.weight, blocks))
