"""μ0, μ1, μ2: Lipschitz constants of F, ∇F and ∇²F in (W, V) on {‖W‖ ≤ b, ‖V‖ ≤ b}, in spectral norms.

There ‖p‖ ≤ P = b(‖x‖ + b‖f‖) for each sample.  L1, L2, L3 are the suprema of ‖∇ℓ‖, ‖∇²ℓ‖, ‖∇³ℓ‖ over ‖p‖ ≤ P.
Along a unit direction (dW, dV), δp = dW h + W_1 dV f has norm at most J, J² = (‖x‖ + b‖f‖)² + b²‖f‖², and
δ²p = 2 dW_1 dV f one of at most ‖f‖, as 2‖dW‖‖dV‖ ≤ 1; δ³p = 0.  The chain rule gives, **per sample**,

    μ0 = E[L1 J],   μ1 = E[L2 J² + L1 ‖f‖],   μ2 = E[L3 J³ + 3 L2 J ‖f‖],

for the norm of a symmetric multilinear form is its largest value on unit vectors (Banach 1938).

All samples together, δp = M z for z = (x, f) and M = (dW, dW EV + W_1 dV), of ‖M‖_F² ≤ κ² =
λ_max [[1 + b², b²], [b², b²]], and E[c‖Mz‖²] ≤ ‖M‖_F² λ_max(E[c zzᵀ]).  With Cauchy and Schwarz that is the
**matrix** form,

    μ0 ≤ κ √(E L1²) √λ_max(E zzᵀ),
    μ1 ≤ κ² λ_max(E[L2 zzᵀ]) + min(E[L1 ‖f‖], √(E L1²) √λ_max(E ffᵀ)),
    μ2 ≤ κ² λ_max(E[L3 J zzᵀ]) + 3κ √λ_max(E[L2 zzᵀ]) √λ_max(E[L2 ffᵀ]),

and the trace stands for λ_max where the matrix would cost too much.  Every larger number is a Lipschitz
constant too, so all roundings go upward, and the least of both forms is taken.

x, f, J, L1, L2, L3 are in units of their own, powers of two near their largest: no product of them meets an
underflow or overflows, and what rounding adds to E[c ffᵀ] is relative to that, not to E[c xxᵀ].
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from resnet_cert.numerics.eigenvalues import eigenvalue_bound
from resnet_cert.numerics.enclosure import QUIET, Ball, Enclosure
from resnet_cert.numerics.radius import FLOOR, NOTHING, Array, Radius, Scaled, gamma, hypot
from resnet_cert.numerics.sums import Blocks, Node, Sum
from resnet_cert.problem.losses import Bools, Loss
from resnet_cert.problem.problem import Chunk

Form = Literal["per-sample", "matrix"]
Powers = npt.NDArray[np.int64]

GRAM_WORK = 2**27
"""Up to so many multiplications the matrices are formed: some milliseconds."""
MODERATE, POWER_STEP = 32, 16
"""Where all sizes are within 2^±32 there is no other unit than 1; beyond, powers of two, multiples of 16."""
ROOM = 200
"""In their units bounds are near 2^200 at most then: no product of four of them overflows, and what
underflows is nothing beside the largest."""
LEAST_FACTOR = -1000
"""Of what is made smaller by more no less is left: a bound stays one, and is nothing beside the largest."""
NO_POWER = -6000
"""That of zeros: below the smallest bound, so that any other one counts."""

UNITS = ("x", "f", "J", "L1", "L2", "L3")
TERMS = (
    *("L1 J", "L2 J J", "L1 f", "L3 J J J", "L2 J f", "L1 L1"),
    *("x x", "f f", "L2 x x", "L2 f f", "L3 J x x", "L3 J f f"),
)
"""What is summed: those of the per-sample forms, L1², and the traces."""
COUNTS = np.array([[term.split().count(unit) for unit in UNITS] for term in TERMS])
"""(terms, units): which units a term is in."""
WEIGHTS = np.array([[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 1, 0, 0, 1]])
"""The same of the weights of the matrices, 1, L2 and L3 J."""


@dataclass(frozen=True)
class LipschitzConstants:
    """Upper bounds of μ0, μ1, μ2, and the form that each is from."""

    mu0: float
    mu1: float
    mu2: float
    forms: tuple[Form, Form, Form] = ("per-sample", "per-sample", "per-sample")


@dataclass(frozen=True)
class LipschitzSums:
    """Unnormalised sums over some samples, mergeable.

    units: the powers of two in which the `UNITS` are.
    terms: Σ π of the `TERMS`.  zeros: which of these are 0 themselves.
    grams: Σ π c zzᵀ for c = 1, L2, L3 J, or the last two, or None where they would cost too much; a single 0
    for c = 0.
    d: columns of x.  wide: there are other units than 1.
    """

    units: Powers
    terms: Sum
    zeros: Bools
    grams: tuple[Sum, ...] | None
    d: int
    wide: bool

    def __add__(self, other: LipschitzSums) -> LipschitzSums:
        units = np.maximum(self.units, other.units)
        one, two = self.in_units(units), other.in_units(units)
        grams = None
        if one.grams is not None and two.grams is not None:
            grams = tuple(a + b for a, b in zip(one.grams, two.grams, strict=True))
        terms, wide = one.terms + two.terms, self.wide or other.wide
        return LipschitzSums(units, terms, self.zeros & other.zeros, grams, self.d, wide)

    def in_units(self, units: Powers) -> LipschitzSums:
        """The same in larger units."""
        down = self.units - units
        if not down.any():
            return self
        factors = np.exp2(np.maximum(COUNTS @ down, LEAST_FACTOR), dtype=np.float64)
        terms = Sum(tuple(replace(node, radius=node.radius * factors) for node in self.terms.nodes))
        grams = self.grams
        if grams is not None:
            grams = tuple(
                Sum(tuple(_smaller_matrix(node, down[:2], int(c @ down), self.d) for node in gram.nodes))
                for gram, c in zip(grams, WEIGHTS[-len(grams) :], strict=True)
            )
        return replace(self, units=units, terms=terms, grams=grams)


def _smaller_matrix(node: Node, down: Powers, of_weight: int, d: int) -> Node:
    """2^of_weight·DMD with D = 2^down of x and of f, all ≤ 0."""
    if len(node.value) == 1:  # a single 0
        return node
    factor = 2.0 ** float(of_weight)
    radius = node.radius * factor + Radius.underflow(2 * node.value.size)
    return replace(node, value=_between(node.value, down, d) * factor, radius=radius)


def _between(M: Array, down: Powers, d: int) -> Array:
    """DMD, D = diag(2^down_x, …, 2^down_f, …)."""
    factors = np.exp2(np.repeat(down, [d, len(M) - d]), dtype=np.float64)
    return M * factors * factors[:, None]


def forms_matrices(n: int, m: int) -> bool:
    """Is E[c zzᵀ], z ∈ R^m, worth its cost?"""
    return n * m * m <= GRAM_WORK


@QUIET
def lipschitz_sums(
    loss: Loss,
    chunk: Chunk,
    x_norm: Radius,
    f_norm: Radius,
    b: float,
    blocks: Blocks,
    *,
    matrices: bool,
    only_mu2: bool = False,
) -> LipschitzSums | None:
    """The sums of a chunk; None where the loss has no suprema.

    Args:
        x_norm, f_norm: (m,) the row norms ‖x‖, ‖f‖.
        only_mu2: without the matrix that μ0 and μ1 alone need.
    """
    bound = Radius.of(b)
    suprema = loss.suprema_in_units(bound * (x_norm + bound * f_norm), chunk.y, chunk.omega)
    if suprema is None:
        return None
    (mantissa, e_b), known = math.frexp(b), np.array(suprema.powers)
    p_x, p_f = power(x_norm), power(f_norm)
    p_L = [power(size, int(p)) for size, p in zip(suprema[:3], known, strict=True)]
    p_J = max(p_x, p_f + e_b)
    p_J = 0 if abs(p_J) <= MODERATE else POWER_STEP * round(max(p_J, NO_POWER) / POWER_STEP)
    units = np.array([p_x, p_f, p_J, *p_L])
    wide = any(p not in (0, NO_POWER) for p in units.tolist())
    units -= ROOM * wide
    x, f = x_norm.shifted(-int(units[0])), f_norm.shifted(-int(units[1]))
    L1, L2, L3 = (size.shifted(int(p)) for size, p in zip(suprema[:3], known - units[3:], strict=True))
    V_f = f.shifted(p_f + e_b - p_J) * mantissa
    J = hypot(x.shifted(p_x - p_J) + V_f, V_f)
    x2, f2, L2J, L3J = x * x, f * f, L2 * J, L3 * J
    terms = [(L1, J), (L2J, J), (L1, f), (L3J * J, J), (L2J, f), (L1, L1)]
    terms += [(x, x), (f, f), (L2, x2), (L2, f2), (L3J, x2), (L3J, f2)]
    pi = 1.0 if chunk.weight is None else chunk.weight
    bounds = blocks.bounds(*(blocks.inner(a if chunk.weight is None else a * pi, b) for a, b in terms))
    zeros = np.array([a.exact or b.exact for a, b in terms])
    grams = None
    if matrices:
        z = np.concatenate([_down(chunk.x, int(units[0])), _down(chunk.f, int(units[1]))], axis=1)
        weights, z2 = (Radius.of(np.ones(len(z))), L2, L3J), x2 + f2
        grams = tuple(_gram(c if c.exact else c * pi, z, z2, blocks) for c in weights[only_mu2:])
    return LipschitzSums(units, bounds, zeros, grams, chunk.x.shape[1], wide)


def power(size: Radius, known: int = 0) -> int:
    """A power of two near the largest of these bounds, times 2^known, as a unit of them; 0 where they are
    moderate."""
    if size.exact:
        return NO_POWER
    largest = max(float(np.max(size.upper)), FLOOR)
    if not largest < math.inf:
        return 0
    e = math.frexp(largest)[1] + known
    return 0 if abs(e) <= MODERATE else POWER_STEP * round(e / POWER_STEP)


def _down(a: Array, power: int) -> Array:
    """The same of an array, exactly but for what underflows."""
    return np.ldexp(a, -power) if power else a


def _gram(c: Radius, z: Array, z2: Radius, blocks: Blocks) -> Sum:
    """Σ c zzᵀ for numbers c (m,) that are as they are: they bound what they stand for."""
    if c.exact:
        zeros = Radius(np.zeros(blocks.count), exact=True)
        return blocks.sum_of_blocks(np.zeros((blocks.count, 1, 1)), zeros, zeros)
    root = np.sqrt(np.broadcast_to(c.upper, len(z)))[:, None] * z
    lost = (z2 + Radius.of(1.0)) * Radius.underflow(4 * z.shape[1])
    return blocks.sum_of_products(root, root, lost + c * lost, c * z2, roundings=8)


def lipschitz_constants(sums: LipschitzSums, weight: Enclosure, b: float, k: int) -> LipschitzConstants:
    """μ0, μ1, μ2 from the sums over all samples, the total weight Σ π, and the number k of features."""
    bounds, powers = sums.terms.total().radius / weight.lower, COUNTS @ sums.units
    found = [Scaled.of(NOTHING if zero else bounds[i], int(powers[i])) for i, zero in enumerate(sums.zeros)]
    L1J, L2JJ, L1_f, L3JJJ, L2Jf, L1_square, xx, ff, L2_xx, L2_ff, L3J_xx, L3J_ff = found
    zz, L2_zz, L3J_zz = xx + ff, L2_xx + L2_ff, L3J_xx + L3J_ff
    if sums.grams is not None:
        *ones, seconds, thirds = (
            _Gram(gram.total(), sums.units[:2], int(c @ sums.units), weight, sums.d, sums.wide)
            for gram, c in zip(sums.grams, WEIGHTS[-len(sums.grams) :], strict=True)
        )
        for gram in ones:
            zz, ff = gram.at_most(zz), gram.at_most(ff, of_features=True)
        L2_zz, L2_ff = seconds.at_most(L2_zz), seconds.at_most(L2_ff, of_features=True)
        L3J_zz = thirds.at_most(L3J_zz)
    kappa2, slope, three = _kappa_square(b), L1_square.sqrt(), Scaled.of(Radius.of(3.0))
    kappa = kappa2.sqrt()
    crossed = slope * ff.sqrt()
    per_sample = L1J, L2JJ + L1_f, L3JJJ + three * L2Jf
    matrix = (
        kappa * slope * zz.sqrt(),
        kappa2 * L2_zz + (crossed if crossed < L1_f else L1_f),
        kappa2 * L3J_zz + three * kappa * L2_zz.sqrt() * L2_ff.sqrt(),
    )
    chosen = [_smaller(mine, other) for mine, other in zip(per_sample, matrix, strict=True)]
    (first, first_form), (second, second_form), (third, third_form) = chosen
    return LipschitzConstants(first, second, third, (first_form, second_form, third_form))


def _smaller(per_sample: Scaled, matrix: Scaled) -> tuple[float, Form]:
    return (float(matrix), "matrix") if matrix < per_sample else (float(per_sample), "per-sample")


def _kappa_square(b: float) -> Scaled:
    """λ_max [[1 + b², b²], [b², b²]] = ½ + b² + √(¼ + b⁴)."""
    size, half = Scaled.of(Radius.of(b)), Scaled.of(Radius.of(0.5))
    square = size * size
    return half + square + (half * half + square * square).sqrt()


@dataclass(frozen=True)
class _Gram:
    """Σ c zzᵀ in units of 2^of_weight·2^(units of x, f)², and Σπ."""

    gram: Ball
    units: Powers
    of_weight: int
    weight: Enclosure
    d: int
    wide: bool

    def at_most(self, trace: Scaled, *, of_features: bool = False) -> Scaled:
        """λ_max of E[c zzᵀ], or E[c ffᵀ], at most its trace.

        An entry is a sum over n of products of two columns, with 8 more roundings of each, in blocks of 512
        and a tree of at most 64 levels; so the matrix, or the part of it that is f's alone, is off by
        γ_1024 Σ c‖z‖² in Frobenius' norm, and by what underflows in n m ≤ 2^27 products, magnified by entries
        of zzᵀ < 2^66 and a weight < 2^66, or < 2^436 and < 2^418 in other units than 1.
        """
        if trace.bound.exact:
            return trace
        unit = int(self.units[1] if of_features else self.units.max())
        part = self.gram[self.d :, self.d :] if of_features else self.gram
        center = part.center if of_features else _between(part.center, self.units - unit, self.d)
        whole = Radius.of(float(Scaled(trace.bound, trace.power - self.of_weight - 2 * unit)))
        radius = whole * (self.weight.upper * gamma(1024)) + Radius.underflow(1) * 2.0 ** (
            890 if self.wide else 170
        )
        bound = eigenvalue_bound(Ball(center, radius if part.known else part.radius)) / self.weight.lower
        found = Scaled.of(bound, self.of_weight + 2 * unit)
        return found if found < trace else trace
