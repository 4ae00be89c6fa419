"""Sums over many rows, with proven radii: a function of the rows alone, however they are cut into pieces.

Rows are numbered, and cut into blocks of `BLOCK_ROWS` from row 0 on.  A product-sum Σ_i l_i r_iᵀ over a
block is off by at most γ_N Σ_i |l_i||r_i|, N its rows, for every order of summation, with or without fused
multiply-add, on any number of threads (Higham 2002, section 3.1).  Blocks are added along one binary tree
over their numbers, in which each addition costs one unit roundoff of its result.  A `Sum` of some blocks
holds the largest complete subtrees that they make, so that `+` merges those of disjoint sets of blocks in any
order, to the same floats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from resnet_cert.numerics.enclosure import Ball, Enclosure
from resnet_cert.numerics.radius import FLOOR, NOTHING, UNBOUNDED, Array, Radius, U, gamma, of_sum, total
from resnet_cert.outcomes import InternalError

CACHED = 2**15
"""Numbers that stay near the processor from one operation to the next."""
BLOCK_ROWS = 512
"""Rows of one product-sum: an inner product meets at most 512 roundings before the tree takes over."""


@dataclass(frozen=True)
class Node:
    """The sum over the 2^level blocks from block index·2^level on (fewer at the end of the data).

    size: a bound of Σ‖·‖ of all summands, in the norm of the radius.
    """

    level: int
    index: int
    value: Array
    radius: Radius
    size: Radius

    @property
    def start(self) -> int:
        return self.index << self.level

    def __add__(self, other: Node) -> Node:
        radius, size = of_sum((self.radius, other.radius), (self.size, other.size))
        return Node(self.level + 1, self.index // 2, self.value + other.value, radius, size)

    def is_left_of(self, other: Node) -> bool:
        """They are the two halves of one node."""
        return self.level == other.level and self.index % 2 == 0 and other.index == self.index + 1


@dataclass(frozen=True)
class Sum:
    """Σ_i over the rows of some blocks, as the roots of complete subtrees, in order."""

    nodes: tuple[Node, ...]

    def __add__(self, other: Sum) -> Sum:
        done: list[Node] = []
        for node in sorted((*self.nodes, *other.nodes), key=lambda node: node.start):
            if done and done[-1].start + (1 << done[-1].level) > node.start:
                raise ValueError(f"block {node.start} is summed twice")
            while done and done[-1].is_left_of(node):
                node = done.pop() + node
            done.append(node)
        return Sum(tuple(done))

    def total(self) -> Ball:
        """The whole sum, once all blocks are there."""
        *others, whole = self.nodes
        for node in reversed(others):
            whole = node + whole
        finite = np.isfinite(whole.value).all()
        return Ball(whole.value, whole.radius if finite else UNBOUNDED)

    def corner(self, m: int) -> Sum:
        """The first m rows and columns of each matrix; what bounds a matrix bounds a part of it."""
        return Sum(tuple(replace(node, value=node.value[..., :m, :m]) for node in self.nodes))


@dataclass(frozen=True)
class Blocks:
    """Some consecutive rows from the beginning of a block on, and how they are cut.

    Sums of products over a block are confirmed: one that a faulty BLAS got wrong anywhere fails against
    Lᵀ(Rv), for the two differ by rounding alone (Freivalds 1977).
    """

    first: int
    rows: int

    @property
    def count(self) -> int:
        return -(-self.rows // BLOCK_ROWS)

    def _starts(self) -> npt.NDArray[np.intp]:
        return np.arange(0, self.rows, BLOCK_ROWS)

    def each(self) -> Iterator[tuple[Blocks, slice]]:
        """The blocks by themselves, and their rows."""
        for i, start in enumerate(range(0, self.rows, BLOCK_ROWS)):
            stop = min(start + BLOCK_ROWS, self.rows)
            yield Blocks(self.first + i, stop - start), slice(start, stop)

    def all_of(self, test: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """(count,) whether it holds for all rows of each block."""
        return np.logical_and.reduceat(test, self._starts())

    def roundings(self, extra: int) -> Array:
        """(count,) γ of the rows of each block, and of some more roundings of each summand."""
        rest = self.rows - (self.count - 1) * BLOCK_ROWS
        each = np.full(self.count, gamma(BLOCK_ROWS + extra))
        each[-1] = gamma(rest + extra)
        return each

    def radii(self, each: Radius) -> Radius:
        """(count,) the sums over each block of numbers ≥ 0, one a row (or one for all)."""
        if each.exact:
            return Radius(np.zeros(self.count), exact=True)
        bounds = np.broadcast_to(each.upper, self.rows) if np.ndim(each.upper) == 0 else each.upper
        sums = np.add.reduceat(bounds, self._starts(), axis=0)
        return Radius.of(sums) * (1.0 + 2.0 * gamma(BLOCK_ROWS))

    def inner(self, a: Radius, b: Radius) -> Radius:
        """(count,) the sums of a·b over each block, for numbers ≥ 0, one a row (or one for all)."""
        if a.exact or b.exact:
            return Radius(np.zeros(self.count), exact=True)
        x, y = (
            np.broadcast_to(each, self.rows) if np.ndim(each) == 0 else each for each in (a.upper, b.upper)
        )
        pairs = zip(self.stacks(x), self.stacks(y), strict=True)
        parts = [Radius(x).inner(Radius(y)) for (_, x), (_, y) in pairs]
        return parts[0] if len(parts) == 1 else Radius.stacked(parts)

    def stacks(self, a: Array) -> Iterator[tuple[slice, Array]]:
        """Whole blocks (·, BLOCK_ROWS, ...), then the rest (1, ·, ...), and which blocks these are."""
        whole = self.rows // BLOCK_ROWS
        cut = whole * BLOCK_ROWS
        if whole:
            yield slice(0, whole), a[:cut].reshape(whole, BLOCK_ROWS, *a.shape[1:])
        if cut < self.rows:
            yield slice(whole, whole + 1), a[cut:][None]

    def times(self, a: Array, b: Array) -> Array:
        """a b for a (rows, k) and b (k, l), block by block: a row's floats depend on its block alone."""
        result = np.empty((self.rows, b.shape[1]))
        for (_, part), (_, into) in zip(self.stacks(a), self.stacks(result), strict=True):
            np.matmul(part, b, out=into)
        return result

    def add_times(self, result: Array, a: Array, b: Array) -> None:
        """result += a b, as `times`, for so few blocks at once that their products stay in a cache."""
        at_once = BLOCK_ROWS * max(1, CACHED // (BLOCK_ROWS * b.shape[1]))
        for start in range(0, self.rows, at_once):
            some = Blocks(0, min(at_once, self.rows - start))
            into = result[start : start + some.rows]
            into += some.times(a[start : start + some.rows], b)

    def sums_by_class(self, a: Array, weight: Array | None, label: npt.NDArray[np.intp], q: int) -> Array:
        """(count, q, l): Σ weight·a over the rows of a (rows, l) with each label in 0, …, q − 1, over each
        block, in the order of the rows."""
        from scipy.sparse import csc_array

        key = label + q * (np.arange(self.rows) // BLOCK_ROWS)
        entries = np.ones(self.rows) if weight is None else weight
        choice = csc_array((entries, key, np.arange(self.rows + 1)), shape=(self.count * q, self.rows))
        return (choice @ a).reshape(self.count, q, a.shape[1])

    def sum(self, values: Array, error: Radius, size: Radius) -> Sum:
        """Σ values (rows,), each known to within `error` and, rounded, at most `size`."""
        sums = np.add.reduceat(values, self._starts())
        sizes = self.radii(size)
        return self._sum(sums, self.radii(error) + sizes * self.roundings(1), sizes)

    def sum_of_products(
        self, left: Array, right: Array, error: Radius, size: Radius, roundings: int = 8
    ) -> Sum:
        """Σ l_i r_iᵀ of left (rows, a) and right (rows, b), in Frobenius norm.

        Args:
            error: how far each l_i r_iᵀ is from what it stands for, but for `roundings` of each entry.
            size: a bound of each ‖l_i‖‖r_i‖.
        """
        part = right.shape[1], self.radii(error), self.radii(size)
        return self.sums_of_products(left, right, [part], roundings)[0]

    def sums_of_products(
        self,
        left: Array,
        right: Array,
        parts: Sequence[tuple[int, Radius, Radius]],
        roundings: int = 8,
        probe: Array | None = None,
    ) -> list[Sum]:
        """The same for consecutive columns of the right factor: how many, and the sums of their `error` and
        `size` over each block (count,)."""
        values = self.products(left, right, total(*(size for _, _, size in parts)), probe=probe)
        found, start = [], 0
        for columns, error, size in parts:
            radius = error + size * self.roundings(roundings)
            if not radius.exact:
                radius = radius + Radius.underflow(4 * BLOCK_ROWS * left.shape[1] * columns)
            found.append(self._sum(values[:, :, start : start + columns], radius, size))
            start += columns
        return found

    def products(
        self, left: Array, right: Array, sizes: Radius, out: Array | None = None, probe: Array | None = None
    ) -> Array:
        """(count, a, b): Σ l_i r_iᵀ over each block, confirmed.

        Args:
            sizes: (count,) bounds of Σ‖l_i‖‖r_i‖.
            probe: `probe(right)`, where it is known.
        """
        values = np.empty((self.count, left.shape[1], right.shape[1])) if out is None else out
        v, Rv = _direction(right.shape[1]), self.probe(right) if probe is None else probe
        length = Radius.norm(v)
        stacks = zip(self.stacks(left), self.stacks(right), self.stacks(Rv), strict=True)
        for (blocks, L), (_, R), (_, along) in stacks:
            np.matmul(L.transpose(0, 2, 1), R, out=values[blocks])
            found = (L.transpose(0, 2, 1) @ along[:, :, None])[:, :, 0]
            defect = np.sqrt(np.square(values[blocks] @ v - found).sum(axis=1))
            allowed = sizes[blocks] * length * (2.0 * gamma(L.shape[1] + len(v) + 16))
            wrong = defect > allowed.upper
            if wrong.any() and not self._is_underflow(defect, allowed, L, R):
                raise InternalError(
                    f"a matrix product over {L.shape[1]} rows is wrong by {float(np.max(defect[wrong])):.1e}"
                )
        return values

    @staticmethod
    def probe(right: Array) -> Array:
        """(rows,) Rv, by which products with R are confirmed."""
        return right @ _direction(right.shape[1])

    @staticmethod
    def _is_underflow(defect: Array, allowed: Radius, left: Array, right: Array) -> bool:
        """What is wrong is not known to be (it overflows), or is no more than products can lose."""
        each = Radius.of(FLOOR * right.shape[2] * left.shape[1] * (left.shape[2] + 1.0))
        lost = each * (Radius.norm(left) + Radius.norm(right) + Radius.of(1.0))
        return not bool((np.isfinite(defect) & (defect > (allowed + lost).upper)).any())

    def _sum(self, values: Array, radius: Radius, size: Radius) -> Sum:
        return Sum(tuple(_roots(values, radius, size, self.first)))

    def sum_of_blocks(self, values: Array, radius: Radius, size: Radius) -> Sum:
        """Of values (count, ...), one a block, with their radii and sizes (count,)."""
        return self._sum(values, radius, size)

    def whole(self, value: Array, rows: int) -> Sum:
        """A number or an array of all these rows, of which nothing is proven, as a leaf of the tree over
        pieces of `rows` rows each: they add up to the same floats in any order."""
        return Sum((Node(0, self.first * BLOCK_ROWS // rows, value, NOTHING, NOTHING),))

    def bounds(self, *each: Radius) -> Sum:
        """The sums of t upper bounds from those over each block (count,): a value of 0, the bounds as its
        radius (t,)."""
        nothing = Radius(np.zeros(self.count), exact=True)
        radii = Radius(np.stack([bounds.upper for bounds in each], axis=1))
        return self._sum(np.zeros(self.count), radii, nothing)

    def count_rows(self) -> Sum:
        """How many rows there are, exactly."""
        rows = np.minimum(BLOCK_ROWS, self.rows - self._starts()).astype(np.float64)
        zeros = Radius(np.zeros(self.count), exact=True)
        return self._sum(rows, zeros, zeros)


def _direction(columns: int) -> Array:
    """v: no pattern that an error could hide behind."""
    return np.cos(np.arange(1.0, columns + 1.0))


def _roots(values: Array, radius: Radius, size: Radius, first: int) -> Iterator[Node]:
    """The complete subtrees that values (count, ...) of the blocks first, first + 1, ... make, in order."""
    last: list[Node] = []
    level = 0
    while len(values):
        if first % 2:
            yield Node(level, first, _alone(values, 0), radius[0], size[0])
            values, radius, size, first = values[1:], radius[1:], size[1:], first + 1
        if len(values) % 2:
            last.append(Node(level, first + len(values) - 1, _alone(values, -1), radius[-1], size[-1]))
            values, radius, size = values[:-1], radius[:-1], size[:-1]
        if len(values):
            values = values[::2] + values[1::2]
            radius, size = of_sum((radius[::2], radius[1::2]), (size[::2], size[1::2]))
        first, level = first // 2, level + 1
    yield from reversed(last)


def _alone(values: Array, i: int) -> Array:
    """One of the values, which keeps no memory of others."""
    return values[i] if len(values) == 1 and values.base is None else values[i].copy()


def quotient(part: Ball, total: Enclosure) -> Ball:
    """part / total, for total > 0: part's own error, that of the total, and the division's roundings."""
    if total.lower == total.upper == 1.0:
        return part
    center = part.center / total.value
    spread = NOTHING if total.lower == total.upper else Radius.of(total.upper - total.lower) / total.lower
    error = part.radius / total.lower + Radius.norm(center) * (spread * (1.0 + 4 * U) + Radius.of(2 * U))
    if part.center.any():
        error = error + Radius.underflow(center.size)
    return Ball(center, error if np.isfinite(center).all() else UNBOUNDED)
