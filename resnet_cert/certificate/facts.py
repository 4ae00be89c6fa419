"""The mathematics of the verifier: what is true at a point, by passes over the rows z = (x, f).

With h = (x_1 + Vf, x_2, 1) all that the head reads, W_1 the columns of W for x_1 + Vf and A_f = E[∇ℓ fᵀ],

    p = Wh = Qz with Q = (W, W_1V),   ∇_W F = E[∇ℓ xᵀ] + (A_f Vᵀ, 0),   ∇_V F = W_1ᵀA_f,
    D²F(dW, dV) = E[δpᵀ∇²ℓ δp] + 2⟨dW_1 dV, A_f⟩,   δp = (dW, dW_1 V + W_1 dV)z.

The objective is L = F + (ρ/2)‖(W, V)‖², ρ = 2·l2 + max(0, μ), where μ is the multiplier of a constraint that
the point lies on; a bias that is not decayed is no part of that norm.  Its conditions are ‖∇L‖ ≤ ε and
λ_min(∇²L) ≥ −t, on the tangent space of the sphere where μ > 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from flint import arb, fmpq, fmpq_mat

from resnet_cert.certificate.fields import (
    Field,
    Matrix,
    indefinite,
    semidefinite,
    spectral_norm_at_most,
    squares,
)
from resnet_cert.certificate.losses import LOSSES, Derivatives

Array = npt.NDArray[np.float64]

BLOCK_ENTRIES = 2**18
"""About so many numbers of a block of rows are held as balls."""
BOUNDARY_WIDTH = 1e-6
"""A point whose norm is that of the constraint to this relative accuracy lies on its boundary."""


@dataclass(frozen=True)
class Data:
    """The numbers of a problem: x (n, d) with a column of ones for a bias, y (n, q), f (n, k), W (q, d),
    V (d1, k).

    radius: (n, k): the features are known to lie within it of f; None: f are the features themselves.
    predictor: U (q, d), a linear one to compare with, if there is one.
    direction: (dW, dV), if there is one.  decayed: (d,) 1 for the columns of W that the objective sees.
    """

    loss: str
    scale: float
    x: Array
    y: Array
    f: Array
    W: Array
    V: Array
    omega: Array | None = None
    weights: Array | None = None
    direction: tuple[Array, Array] | None = None
    l2: float = 0.0
    norm: float | None = None
    decayed: Array | None = None
    radius: Array | None = None
    predictor: Array | None = None

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """n, d, d1, k, q."""
        return (*self.x.shape, *self.V.shape, self.W.shape[0])

    @property
    def seen_W(self) -> Array:
        """W without the columns that the objective's norm does not see."""
        return self.W if self.decayed is None else self.W * self.decayed

    def blocks(self) -> Iterator[slice]:
        n, d, _, k, q = self.sizes
        size = max(1, BLOCK_ENTRIES // (d + k + q))
        return (slice(start, min(start + size, n)) for start in range(0, n, size))

    def rows(self, field: Field, rows: slice) -> Matrix:
        """z (m, d + k) of some rows."""
        x, f = self.x[rows], self.f[rows]
        if self.radius is None:
            return field.of(np.hstack([x, f]))
        near = [list(map(arb, *pair)) for pair in zip(f.tolist(), self.radius[rows].tolist(), strict=True)]
        return field.matrix([[*map(arb, row), *ball] for row, ball in zip(x.tolist(), near, strict=True)])


class Facts:
    """What is true at the point of some data, in a field; what is not asked for is not computed."""

    def __init__(self, field: Field, data: Data) -> None:
        self.field, self.data = field, data
        _, d, d1, k, q = data.sizes
        self.W, self.V = field.of(data.W), field.of(data.V)
        self.W1 = field.of(np.ascontiguousarray(data.W[:, :d1]))
        self.Q = _beside(self.W, self.W1 * self.V)
        self.zero = field.number(0.0)
        value, first = self.zero, field.zeros(q, d + k)
        for z, weights, samples in self._samples():
            value += sum((pi * s.value for pi, s in zip(weights, samples, strict=True)), self.zero)
            slopes = [pi * g for pi, s in zip(weights, samples, strict=True) for g in s.first]
            first += field.matrix(len(samples), q, slopes).transpose() * z
        self.F = self.factor * value
        g = self.factor * first
        self.A = _columns(g, d, d + k)
        self.g_W = _columns(g, 0, d) + _wide(self.A * self.V.transpose(), d)

    # Passes over the rows

    @cached_property
    def factor(self) -> Any:
        """scale/Σπ."""
        weights, number = self.data.weights, self.field.number
        if weights is None:
            return number(self.data.scale) / number(float(len(self.data.x)))
        return number(self.data.scale) / sum(map(number, weights.tolist()), self.zero)

    def _samples(self) -> Iterator[tuple[Matrix, list[Any], list[Derivatives]]]:
        """z, π and the derivatives at p = Qz, some rows at a time."""
        data, at = self.data, LOSSES[self.data.loss].at
        turned = self.Q.transpose()
        for rows in data.blocks():
            z = data.rows(self.field, rows)
            samples = [at(p, *of) for p, of in zip((z * turned).tolist(), self._targets(rows), strict=True)]
            yield z, self._weights(rows), samples

    def _targets(self, rows: slice) -> list[tuple[list[Any], list[Any] | None]]:
        """y and ω of some rows."""
        number, data = self.field.number, self.data
        y = [list(map(number, row)) for row in data.y[rows].tolist()]
        if data.omega is None:
            return [(row, None) for row in y]
        omega = [list(map(number, row)) for row in data.omega[rows].tolist()]
        return list(zip(y, omega, strict=True))

    def _weights(self, rows: slice) -> list[Any]:
        """π of some rows."""
        if self.data.weights is None:
            return [self.field.number(1.0)] * len(self.data.y[rows])
        return list(map(self.field.number, self.data.weights[rows].tolist()))

    @cached_property
    def moments(self) -> dict[tuple[int, int], Matrix]:
        """E[(∇²ℓ)_ab (h,f)(h,f)ᵀ] for a ≤ b, those that are not 0."""
        data, field = self.data, self.field
        _, d, d1, k, q = data.sizes
        pairs = [(a, a) for a in range(q)]
        if data.loss == "softmax":
            pairs += [(a, b) for a in range(q) for b in range(a + 1, q)]
        elif data.loss == "squared":
            pairs = [(0, 0)]
        sums = {pair: field.zeros(d + k, d + k) for pair in pairs}
        for z, weights, samples in self._samples():
            rows, turned = z.tolist(), z.transpose()
            for a, b in pairs:
                bent = [pi * _entry(s, a, b) for pi, s in zip(weights, samples, strict=True)]
                scaled = [c * entry for c, row in zip(bent, rows, strict=True) for entry in row]
                sums[a, b] += turned * field.matrix(len(rows), d + k, scaled)
        K = field.identity(d + k)  # (h, f) = Kᵀz
        for i in range(d1):
            for j in range(k):
                K[d + j, i] = self.V[i, j]
        turned = K.transpose()
        found = {pair: self.factor * (turned * total * K) for pair, total in sums.items()}
        if data.loss == "squared":  # ∇²ℓ = I
            found = {(a, a): found[0, 0] for a in range(q)}
        return found

    # The objective

    @cached_property
    def multiplier(self) -> Any | None:
        """μ = −⟨∇F, z⟩/‖z‖² − 2·l2 on the boundary of the constraint, z = (W, V); None inside and without."""
        norm = self.data.norm
        if norm is None:
            return None
        square, limit = self.size_squared, self.field.number(norm)
        if square < (limit * self.field.number(1.0 - BOUNDARY_WIDTH)) ** 2:
            return None
        slope = _inner(self.g_W, self._seen_W, self.zero) + _inner(self.A, self.W1 * self.V, self.zero)
        return -slope / square - 2 * self.field.number(self.data.l2)

    @cached_property
    def rho(self) -> Any:
        """ρ = 2·l2 + max(0, μ)."""
        least = 2 * self.field.number(self.data.l2)
        return least if self.multiplier is None else least + _positive_part(self.multiplier, self.zero)

    @cached_property
    def _seen_W(self) -> Matrix:
        """W without a bias that the objective's norm does not see."""
        return self.field.of(self.data.seen_W)

    @cached_property
    def size_squared(self) -> Any:
        """‖(W, V)‖² as the objective sees it."""
        return squares(self._seen_W.entries(), self.zero) + squares(self.V.entries(), self.zero)

    @cached_property
    def gradient_squared(self) -> Any:
        """‖∇L‖², the part of V some rows of V at a time."""
        plain = self.data.norm is None and self.data.l2 == 0.0
        gradient = self.g_W if plain else self.g_W + self.rho * self._seen_W
        total = squares(gradient.entries(), self.zero)
        d1, k = self.data.V.shape
        size = max(1, BLOCK_ENTRIES // k)
        for start in range(0, d1, size):
            rows = slice(start, min(start + size, d1))
            part = _columns(self.W1, rows.start, rows.stop).transpose() * self.A
            if not plain:
                part += self.rho * self.field.of(self.data.V[rows])
            total += squares(part.entries(), self.zero)
        return total

    # Curvature

    def curvature_at_least(self, t: Any, *, exact: bool = True) -> bool:
        """λ_min(∇²L) ≥ −t.

        E[δpᵀ∇²ℓ δp] ≥ 0 and 2⟨dW_1 dV, A_f⟩ ≥ −‖A_f‖_2(‖dW_1‖² + ‖dV‖²), so t ≥ 0 and t + ρ ≥ ‖A_f‖_2 are
        enough.  Otherwise the matrix `_reduced` decides, and where a constraint binds its like on the
        tangent space.  With exact=False only the first is tried.
        """
        if t >= 0 and spectral_norm_at_most(self.A, t + self.rho, self.field):
            return True
        if not exact:
            return False
        mu = self.multiplier
        if mu is not None and not mu <= 0:
            # Where the sign of μ is not known, ρ counts for what it is at least, and the whole space.
            return self._tangent_curvature_at_least(t) if mu > 0 else self._definite(t, self._least_rho)
        return self._definite(t, self.rho)

    @property
    def _least_rho(self) -> Any:
        return 2 * self.field.number(self.data.l2)

    def curvature_below(self, t: Any) -> bool:
        """λ_min(∇²L) < −t, with no direction: the matrix that would prove the opposite has a negative pivot.

        Where W_1 dV = 0 and dW = 0, D²L is ρ‖dV‖².
        """
        mu = self.multiplier
        if mu is not None and not mu <= 0:
            return bool(mu > 0) and indefinite(self._on_tangent_space(t))
        B, c = self.row_basis, t + self.rho
        if B is None or (B.ncols() < len(self.data.V) and not c > 0):
            return B is not None and bool(c < 0)
        return indefinite(self._reduced(t, self.rho, B, self._across(B)))

    def _definite(self, t: Any, rho: Any) -> bool:
        B, c = self.row_basis, t + rho
        if B is None:
            return False
        if B.ncols() < len(self.data.V) and not c > 0:
            return False  # some dV with W_1 dV = 0 couples to dW through A_f alone
        return semidefinite(self._reduced(t, rho, B, self._across(B)))

    def _across(self, B: Matrix) -> Matrix | None:
        """The projector P onto the kernel of W_1; None where that is {0}."""
        d1 = len(self.data.V)
        if B.ncols() == d1:
            return None
        P = self.field.identity(d1)
        return P - B * (B.transpose() * B).inv() * B.transpose() if B.ncols() else P

    def _reduced(self, t: Any, rho: Any, B: Matrix, P: Matrix | None) -> Matrix:
        """∇²F + tI + ρ·(its part), on (dW, N) with dV = BN + dV_⊥, B of the row space of W_1.

        dV_⊥, with W_1 dV_⊥ = 0, couples through 2⟨dW_1 dV_⊥, A_f⟩ only.  The Schur complement of its block
        cI, c = t + ρ > 0, leaves −(1/c)·A_fA_fᵀ ⊗ P, P the projector onto the kernel of W_1 (None: 0).
        """
        field, data = self.field, self.data
        _, d, d1, k, q = data.sizes
        rank, moments = B.ncols(), self.moments
        size = q * d + rank * k
        S = field.zeros(size, size)

        def put(i: int, j: int, block: Matrix) -> None:
            """A block and, off the diagonal, its transpose."""
            for r, row in enumerate(block.tolist()):
                for s, entry in enumerate(row):
                    S[i + r, j + s] = entry
                    S[j + s, i + r] = entry

        c = t + rho
        decayed = np.ones(d) if data.decayed is None else data.decayed
        shift = [t + rho * int(seen) for seen in decayed.tolist()]
        AA = self.A * self.A.transpose()
        for a in range(q):
            for b in range(a, q):
                moment = moments.get((a, b))
                block = field.zeros(d, d) if moment is None else _part(moment, (0, d), (0, d))
                if a == b:
                    for i in range(d):
                        block[i, i] += shift[i]
                if P is not None:
                    coupling = AA[a, b] / c
                    for i in range(d1):
                        for j in range(d1):
                            block[i, j] -= coupling * P[i, j]
                put(a * d, b * d, block)
        if rank:
            C = self.W1 * B
            mixed = {pair: _part(moment, (0, d), (d, d + k)) for pair, moment in moments.items()}
            inner = {pair: _part(moment, (d, d + k), (d, d + k)) for pair, moment in moments.items()}
            for a in range(q):
                for r in range(rank):
                    block = field.zeros(d, k)
                    for b in range(q):
                        moment = _symmetric(mixed, a, b)
                        if moment is not None:
                            block += C[b, r] * moment
                    for i in range(d1):
                        for l in range(k):
                            block[i, l] += B[i, r] * self.A[a, l]
                    put(a * d, q * d + r * k, block)
            gram = B.transpose() * B
            for r in range(rank):
                for s in range(r, rank):
                    block = field.zeros(k, k)
                    for (a, b), moment in inner.items():
                        factor = C[a, r] * C[b, s]
                        block += (factor if a == b else factor + C[b, r] * C[a, s]) * moment
                    for l in range(k):
                        block[l, l] += c * gram[r, s]
                    put(q * d + r * k, q * d + s * k, block)
        return S

    @cached_property
    def row_basis(self) -> Matrix | None:
        """B (d1, ρ) whose columns are a basis of the row space of W_1, ρ its exact rank; None: not found.

        In balls B = W_1ᵀZ is nearly orthonormal, with Z found by Gram and Schmidt's way at this precision:
        whatever it is, the columns lie in the row space, and BᵀB ≻ 0 says that they are independent.
        """
        q, d1 = self.W1.nrows(), self.W1.ncols()
        exact = fmpq_mat(q, d1, [fmpq(*v.as_integer_ratio()) for v in self.data.W[:, :d1].ravel().tolist()])
        reduced, rank = exact.transpose().rref()
        if self.field.exact:
            pivots = [next(j for j in range(q) if reduced[i, j] != 0) for i in range(rank)]
            return fmpq_mat(d1, rank, [exact[r, i] for i in range(d1) for r in pivots])
        if rank == 0:
            return self.field.zeros(d1, 0)
        rest = [[entry.mid() for entry in row] for row in self.W1.tolist()]
        combined = [[arb(int(i == j)) for j in range(q)] for i in range(q)]
        chosen: list[list[arb]] = []
        for _ in range(rank):
            lengths = [squares(row, arb(0)).mid() for row in rest]
            leader = max(range(q), key=lambda i: lengths[i])
            if not lengths[leader] > 0:
                return None
            factor = lengths[leader].rsqrt().mid()
            unit, coefficients = ([(factor * v).mid() for v in row[leader]] for row in (rest, combined))
            chosen.append(coefficients)
            for i in range(q):
                along = sum((a * b for a, b in zip(rest[i], unit, strict=True)), arb(0)).mid()
                rest[i] = [(a - along * b).mid() for a, b in zip(rest[i], unit, strict=True)]
                combined[i] = [(a - along * b).mid() for a, b in zip(combined[i], coefficients, strict=True)]
        B = self.W1.transpose() * self.field.matrix(chosen).transpose()
        return B if semidefinite(B.transpose() * B, strictly=True) else None

    def _tangent_curvature_at_least(self, t: Any) -> bool:
        """λ_min(∇²L) ≥ −t on z^⊥, z = (W, V): of the whole matrix, seen from a basis of z^⊥."""
        return self._definite(t, self.rho) or semidefinite(self._on_tangent_space(t))  # or on the whole space

    def _on_tangent_space(self, t: Any) -> Matrix:
        """∇²L + tI in a basis of z^⊥."""
        H = self._reduced(t, self.rho, self.field.identity(len(self.data.V)), None)
        z = [*self._seen_W.entries(), *self.V.entries()]
        sizes = np.abs(np.concatenate([self.data.seen_W.ravel(), self.data.V.ravel()]))
        # The columns z_l e_i − z_i e_l, i ≠ l, are a basis of z^⊥ where z_l ≠ 0.
        l = int(np.argmax(sizes))
        T = self.field.zeros(len(z), len(z) - 1)
        for column, i in enumerate(j for j in range(len(z)) if j != l):
            T[i, column] = z[l]
            T[l, column] = -z[i]
        return T.transpose() * H * T

    @cached_property
    def least_curvature(self) -> Any:
        """λ_min(∇²L) ≥ ρ − ‖A_f‖_F, or 0 if that is less, for a bias that is not decayed."""
        bound = self.rho - squares(self.A.entries(), self.zero).sqrt()
        return bound if self.data.decayed is None else bound.min(self.zero)

    @cached_property
    def form(self) -> tuple[Any, Any]:
        """D²L(dW, dV) and ‖(dW, dV)‖² at the direction, whose quotient is at least λ_min(∇²L).

        Where a constraint binds, or may, at the direction's part that is orthogonal to (W, V).
        """
        data, field = self.data, self.field
        if data.direction is None:
            raise ValueError("expected a direction, got none")
        dW, dV = map(field.of, data.direction)
        mu = self.multiplier
        if mu is not None and not mu <= 0:
            z = self._seen_W, self.V
            along = (_inner(dW, z[0], self.zero) + _inner(dV, z[1], self.zero)) / self.size_squared
            dW, dV = dW - along * z[0], dV - along * z[1]
        dW1 = _columns(dW, 0, len(data.V))
        D = _beside(dW, dW1 * self.V + self.W1 * dV).transpose()
        total = self.zero
        for z, weights, samples in self._samples():
            changes = (z * D).tolist()
            total += sum(
                (pi * s.form(v) for pi, s, v in zip(weights, samples, changes, strict=True)), self.zero
            )
        bent = self.factor * total + 2 * _inner(dW1 * dV, self.A, self.zero)
        seen = dW if data.decayed is None else _masked(dW, data.decayed)
        length = squares(dV.entries(), self.zero)
        decayed = squares(seen.entries(), self.zero) + length
        return bent + self.rho * decayed, squares(dW.entries(), self.zero) + length

    def breaks_even_between(self, lower: float | None, upper: float | None) -> bool:
        """lower ≤ r° ≤ upper, r° = inf{r : min F_lin over ‖W‖_F ≤ r is at most F}, shown by a predictor U.

        F_lin(U) ≤ F gives r° ≤ ‖U‖.  F_lin is convex: where F_lin(U) − ⟨g, U⟩ − r‖g‖ ≥ F, g = ∇F_lin(U), no
        W in the ball ‖W‖_F < r has F_lin(W) < F, and so r° ≥ r, for g = 0 too.
        """
        data, field, number = self.data, self.field, self.field.number
        if data.predictor is None:
            raise ValueError("expected a predictor, got none")
        _, d, _, _, q = data.sizes
        U, at = field.of(data.predictor), LOSSES[data.loss].at
        turned, value, first = U.transpose(), self.zero, field.zeros(q, d)
        for rows in data.blocks():
            x = field.of(data.x[rows])
            samples = [at(p, *of) for p, of in zip((x * turned).tolist(), self._targets(rows), strict=True)]
            weights = self._weights(rows)
            value += sum((pi * s.value for pi, s in zip(weights, samples, strict=True)), self.zero)
            slopes = [pi * g for pi, s in zip(weights, samples, strict=True) for g in s.first]
            first += field.matrix(len(samples), q, slopes).transpose() * x
        value, g = self.factor * value, self.factor * first
        if upper is not None:
            reached = upper >= 0.0 and squares(U.entries(), self.zero) <= number(upper) ** 2
            if not (reached and value <= self.F):
                return False
        if lower is None:
            return True
        room = value - _inner(g, U, self.zero) - self.F
        steep = squares(g.entries(), self.zero)
        return bool(lower <= 0.0 or (room > 0 and number(lower) ** 2 * steep < room * room))


def _entry(at: Derivatives, a: int, b: int) -> Any:
    """(∇²ℓ)_ab."""
    if at.spread is None:
        return at.diagonal[a]
    outer = at.mass * at.spread[a] * at.spread[b]
    return at.diagonal[a] - outer if a == b else -outer


def _inner(A: Matrix, B: Matrix, zero: Any) -> Any:
    """⟨A, B⟩ of matrices of one shape."""
    return sum((a * b for a, b in zip(A.entries(), B.entries(), strict=True)), zero)


def _positive_part(x: Any, zero: Any) -> Any:
    if isinstance(x, arb):
        return x.max(arb(0))
    return x if x > 0 else zero


def _symmetric(blocks: dict[tuple[int, int], Matrix], a: int, b: int) -> Matrix | None:
    """Moments are symmetric matrices, so that the pairs (a, b) and (b, a) have one."""
    return blocks.get((min(a, b), max(a, b)))


def _part(M: Matrix, rows: tuple[int, int], columns: tuple[int, int]) -> Matrix:
    entries = [M[i, j] for i in range(*rows) for j in range(*columns)]
    return type(M)(rows[1] - rows[0], columns[1] - columns[0], entries)


def _columns(M: Matrix, start: int, stop: int) -> Matrix:
    return _part(M, (0, M.nrows()), (start, stop))


def _beside(left: Matrix, right: Matrix) -> Matrix:
    rows = [one + two for one, two in zip(left.tolist(), right.tolist(), strict=True)]
    return type(left)(left.nrows(), left.ncols() + right.ncols(), [entry for row in rows for entry in row])


def _wide(M: Matrix, columns: int) -> Matrix:
    """M with columns of zeros after its own."""
    result = type(M)(M.nrows(), columns)
    for i, row in enumerate(M.tolist()):
        for j, entry in enumerate(row):
            result[i, j] = entry
    return result


def _masked(M: Matrix, columns: Array) -> Matrix:
    seen = columns.tolist()
    entries = [e * int(s) for row in M.tolist() for e, s in zip(row, seen, strict=True)]
    return type(M)(M.nrows(), M.ncols(), entries)
