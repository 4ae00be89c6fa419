"""One pass over the data: the moments that hold F, ∇F and ∇²F, each with a proven radius.

With h = x + Vf, p = wᵀh and c' = ℓ'(p; y), c'' = ℓ''(p; y):

    F = E[ℓ],  g_w = E[c' h],  a = E[c' f],  A = E[c'' h hᵀ],  B = E[c'' h fᵀ],  C = E[c'' f fᵀ].

Where the radii come from.  Every per-sample quantity carries one scalar error (of h in Euclidean norm, of
p, of ℓ, ℓ', ℓ''), and a product-sum Σ_i c_i g_i q_iᵀ of at most N = 512 terms is off by at most
γ_{N+4} Σ_i |c_i| ‖g_i‖ ‖q_i‖ in Frobenius norm, for every order of summation, with or without fused
multiply-add, on any number of threads (Higham 2002, section 3.1).  Blocks are added in pairs; each addition
costs one unit roundoff of its result.  So |A||B| is never formed, and the proof costs O(n(d + k)).
Underflow, flushed or not, costs at most TINY a product.  The bounds themselves are sums and products of
nonnegative floats, inflated once (`enclosure.inflate`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import numpy as np

from resnet_cert.numerics.enclosure import (
    INFLATION,
    TINY,
    Array,
    Ball,
    Enclosure,
    U,
    frobenius,
    gamma,
    inflate,
    row_norms,
)
from resnet_cert.outcomes import InternalError
from resnet_cert.problem.losses import Loss
from resnet_cert.problem.problem import BLOCK_ROWS, Chunk


@dataclass(frozen=True)
class Sum:
    """Σ_i of an array-valued quantity: its float64 value and a radius (Frobenius norm).  Mergeable."""

    value: Array
    radius: float

    def __add__(self, other: Sum) -> Sum:
        value = self.value + other.value
        return Sum(value, (self.radius + other.radius + U * frobenius(value)) * INFLATION)


@dataclass(frozen=True)
class MomentSums:
    """Unnormalised moments of some samples.  `+` merges those of disjoint sets of samples, in any order."""

    weight: Sum
    F: Sum
    g_w: Sum
    a: Sum
    A: Sum
    B: Sum
    C: Sum

    def __add__(self, other: MomentSums) -> MomentSums:
        return MomentSums(*(mine + theirs for mine, theirs in zip(_parts(self), _parts(other), strict=True)))

    def expectation(self) -> Moments:
        """The moments: every sum over the total weight."""
        total = Enclosure.around(float(self.weight.value), self.weight.radius)
        F, *arrays = (quotient(part, total) for part in _parts(self)[1:])
        return Moments(Enclosure.around(float(F.center), F.radius), *arrays)


@dataclass(frozen=True)
class Moments:
    """F, g_w (d,), a (k,), A (d, d), B (d, k), C (k, k): expectations with proven radii.

    Radii are Frobenius (hence also spectral) norms.  At w = 0 the Hessian needs neither B nor C, and they
    may be left out (empty).
    """

    F: Enclosure
    g_w: Ball
    a: Ball
    A: Ball
    B: Ball
    C: Ball


@dataclass(frozen=True)
class Residual:
    """h = x + Vf of a chunk: h (m, d), its Euclidean norms and their errors (m,), and ‖f‖ (m,)."""

    h: Array
    norm: Array
    error: Array
    f_norm: Array


def residual(chunk: Chunk, V: Array) -> Residual:
    """h = x + Vf for each row, with |h − exact| ≤ error in Euclidean norm."""
    f_norm = row_norms(chunk.f)
    V_norm = frobenius(V)
    if V_norm == 0.0:
        return Residual(chunk.x, row_norms(chunk.x), np.zeros(len(chunk.x)), f_norm)
    h = chunk.x + chunk.f @ V.T
    h_norm = row_norms(h)
    # Entry j: k products and k − 1 sums, then one more sum; Σ_l |V_jl||f_l| has norm ≤ ‖V‖_F ‖f‖.
    error = U * h_norm + gamma(V.shape[1] + 1) * V_norm * f_norm + V.size * TINY
    return Residual(h, h_norm, error, f_norm)


def moment_sums(loss: Loss, chunk: Chunk, at: Residual, w: Array) -> MomentSums:
    """The moments of one chunk at (w, V), where `at` is its residual for V.

    At w = 0 the sums for B and C are empty: ∇²F does not need them there.
    """
    w_norm = frobenius(w)
    h, f, pi = at.h, chunk.f, 1.0 if chunk.weight is None else chunk.weight
    p = h @ w
    # fl(wᵀh) is off by γ_d ‖w‖‖h‖, and h itself by at.error.
    p_error = gamma(len(w)) * (at.norm * w_norm) + at.error * w_norm + (len(w) * TINY if w_norm else 0.0)
    loss_at = loss.derivatives(p, p_error, chunk.y)
    value, first, second = pi * loss_at.value, pi * loss_at.first, pi * loss_at.second
    value_error, first_error, second_error = (
        pi * loss_at.value_error,
        pi * loss_at.first_error,
        pi * loss_at.second_error,
    )

    h_norm, f_norm, e = at.norm, at.f_norm, at.error
    rounding = gamma(min(BLOCK_ROWS, len(p)) + 8)
    # One TINY for every product; πc' may underflow beside an h that is large, πc'' beside its square.
    largest = 1.0 + float(np.max(h_norm + f_norm))
    floor = (h.shape[1] + f.shape[1] + 1.0) ** 2 * len(p) * TINY * largest

    def total(left: Array, right: Array | None, data: Array, size: Array, floor: float = floor) -> Sum:
        """leftᵀ·right, where `data` is wrong with the summands, and rounding adds γ times their `size`."""
        whole = float(np.sum(size))
        radius = inflate(float(np.sum(data)) + rounding * whole + floor)
        return sum_of(left, radius) if right is None else sum_of_products(left, right, radius, whole)

    first_size, second_size = np.abs(first) + first_error, np.abs(second) + second_error
    # √c'' on both sides makes A, B, C one symmetric product; its roundings are within the 8 above.
    root = np.sqrt(np.maximum(second, 0.0))[:, None]
    second_error = second_error + np.maximum(-second, 0.0)
    error_h, size_h, size_f = second_error * h_norm, second_size * h_norm, second_size * f_norm
    floor_second = floor * largest
    weighted_h = root * h
    data = error_h * h_norm + second_size * (2.0 * h_norm + e) * e
    A = total(weighted_h, weighted_h, data, size_h * h_norm, floor_second)
    B = C = Sum(np.zeros((0, 0)), 0.0)
    if w_norm:
        weighted_f = root * f
        data = (error_h + second_size * e) * f_norm
        B = total(weighted_h, weighted_f, data, size_h * f_norm, floor_second)
        C = total(weighted_f, weighted_f, second_error * f_norm * f_norm, size_f * f_norm, floor_second)
    return MomentSums(
        weight=total_weight(chunk),
        F=total(value, None, value_error, np.abs(value)),
        g_w=total(first, h, first_error * h_norm + first_size * e, np.abs(first) * h_norm),
        a=total(first, f, first_error * f_norm, np.abs(first) * f_norm),
        A=A,
        B=B,
        C=C,
    )


class Mergeable(Protocol):
    def __add__(self, other: Self, /) -> Self: ...


Part = TypeVar("Part", bound=Mergeable)


def merged(parts: Iterable[Part]) -> Part:
    """The sum of many parts as a pairwise tree over their order, holding log2(count) of them at a time."""
    stack: list[tuple[int, Part]] = []
    for part in parts:
        size = 1
        while stack and stack[-1][0] == size:
            size, part = 2 * size, stack.pop()[1] + part
        stack.append((size, part))
    _, total = stack.pop()
    while stack:
        total = stack.pop()[1] + total
    return total


def _parts(sums: MomentSums) -> tuple[Sum, ...]:
    return (sums.weight, sums.F, sums.g_w, sums.a, sums.A, sums.B, sums.C)


def sum_of(values: Array, radius: float) -> Sum:
    """Σ_i values_i, where `radius` bounds all errors but those of adding blocks."""
    return _added(_blocks(values), radius, float(np.sum(row_norms(values.reshape(len(values), -1)))))


def sum_of_products(left: Array, right: Array, radius: float, size: float | None = None) -> Sum:
    """leftᵀ·right, confirmed; `radius` bounds all errors but those of adding blocks.

    A product that a faulty BLAS got wrong anywhere fails against leftᵀ·(right·v): the two differ by at most
    γ·size·‖v‖, γ for the roundings of both (Freivalds 1977).

    Args:
        size: Σ_i ‖left_i‖‖right_i‖, computed if it is not given.
    """
    if size is None:
        size = float(np.sum(row_norms(left.reshape(len(left), -1)) * row_norms(right)))
    total = _added(_blocks(left, right), radius, size)
    if left.ndim == 1:  # a gradient: autodiff confirms it
        return total
    v = np.cos(np.arange(1.0, right.shape[1] + 1.0))  # no pattern that an error could hide behind
    defect = frobenius(total.value @ v - left.T @ (right @ v))
    allowed = inflate(2.0 * gamma(len(left) + right.shape[1] + 16) * size * frobenius(v))
    underflow = left.size * right.size * TINY
    if defect > allowed + underflow and defect > allowed + underflow * (1.0 + float(np.max(np.abs(left)))):
        raise InternalError(f"a matrix product over {len(left)} rows is wrong by {defect:.1e}")
    return total


def _added(stacks: Iterable[Array], radius: float, size: float) -> Sum:
    """The sum over all blocks, in pairs.

    All sums of one level together are at most `size`, the sum of the norms of all summands, so that a level
    of additions costs at most u·size.
    """
    total, levels = None, 0
    for stack in stacks:
        while len(stack) > 1:
            pairs = len(stack) // 2
            stack = np.concatenate([stack[: 2 * pairs : 2] + stack[1 : 2 * pairs : 2], stack[2 * pairs :]])
            levels += 1
        total, levels = (stack[0], levels) if total is None else (total + stack[0], levels + 1)
    assert total is not None
    return Sum(np.asarray(total), (radius + levels * U * size) * INFLATION)


def _blocks(left: Array, right: Array | None = None) -> Iterator[Array]:
    """Stacks of leftᵀ·right over blocks of BLOCK_ROWS rows, then the rest; without a right: plain sums."""
    blocks = len(left) // BLOCK_ROWS
    whole = blocks * BLOCK_ROWS
    for rows, count in ((slice(0, whole), blocks), (slice(whole, None), int(whole < len(left)))):
        if not count:
            continue
        one = left[rows]
        one = one.reshape(count, len(one) // count, *left.shape[1:])
        if right is None:
            yield one.sum(axis=1)
        else:
            other = right[rows].reshape(*one.shape[:2], right.shape[1])
            yield (one[:, None, :] @ other)[:, 0] if one.ndim == 2 else one.transpose(0, 2, 1) @ other


def total_weight(chunk: Chunk) -> Sum:
    if chunk.weight is None:
        return Sum(np.asarray(float(len(chunk.x))), 0.0)
    total = float(np.sum(chunk.weight))
    return Sum(np.asarray(total), inflate(gamma(len(chunk.weight)) * total))


def quotient(part: Sum, total: Enclosure) -> Ball:
    """part / total: the radius pays for part's own error, for that of the total and for the division."""
    center = part.value / total.value
    relative = (total.upper - total.lower) / total.lower + 2 * U
    radius = inflate(part.radius / total.lower + relative * frobenius(center) + center.size * TINY)
    return Ball(center, radius if np.isfinite(radius) and np.isfinite(center).all() else np.inf)
