"""Linear algebra for the oracle, on lists of exact rationals (`flint.fmpq`) or proven balls (`flint.arb`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flint import acb_mat, arb, arb_mat, ctx, fmpq, fmpq_mat

Number = Any  # arb or fmpq: the formulas of the definitions hold in both
Vector = list[Number]
Matrix = list[list[Number]]


def rational(x: float) -> fmpq:
    """The float itself."""
    return fmpq(*float(x).as_integer_ratio())


def exact(t: arb) -> fmpq:
    """The midpoint of a ball."""
    mantissa, exponent = t.mid().man_exp()
    return fmpq(mantissa) * fmpq(2) ** int(exponent)


def mid(x: arb) -> arb:
    """The midpoint of a ball, as an exact number."""
    return x.mid()


def largest(xs: Sequence[arb]) -> arb:
    """max(x1, x2, ...)."""
    result = xs[0]
    for x in xs[1:]:
        result = result.max(x)
    return result


def root(x: arb) -> arb:
    """√x of a number known to be nonnegative, whose ball may reach below zero."""
    return x.nonnegative_part().sqrt()


def dot(u: Sequence[Number], v: Sequence[Number]) -> Number:
    """Σ u_i v_i."""
    total = u[0] * v[0]
    for a, b in zip(u[1:], v[1:], strict=True):
        total += a * b
    return total


def norm(v: Sequence[arb]) -> arb:
    """Euclidean norm."""
    return root(dot(v, v))


def matrix_product(P: Sequence[Sequence[Number]], Q: Sequence[Sequence[Number]]) -> Matrix:
    """PᵀQ of matrices given by their rows."""
    columns = list(zip(*Q, strict=True))
    return [[dot(u, v) for v in columns] for u in zip(*P, strict=True)]


def shifted(H: Matrix, t: Number) -> Matrix:
    """H + t·I."""
    return [[entry + t if i == j else entry for j, entry in enumerate(row)] for i, row in enumerate(H)]


def is_positive_semidefinite(H: Matrix) -> bool | None:
    """Whether a symmetric matrix is positive semidefinite, by the signs of the pivots of LDLᵀ.

    A negative pivot disproves it; so does a zero pivot in a column that is not zero.  None: a ball that
    contains zero decides nothing.  With rationals the answer is never None.
    """
    S = [row[:] for row in H]
    for i in range(len(S)):
        pivot = S[i][i]
        if pivot < 0:
            return False
        if pivot > 0:
            for j in range(i + 1, len(S)):
                factor = S[j][i] / pivot
                for l in range(i + 1, j + 1):
                    S[j][l] -= factor * S[l][i]
            continue
        column = [S[j][i] for j in range(i + 1, len(S))]
        if pivot == 0 and any(entry != 0 for entry in column):
            return False
        if not (pivot == 0 and all(entry == 0 for entry in column)):
            return None
    return True


def smallest_eigenvalue(H: Matrix) -> arb:
    """λ_min of a symmetric matrix of balls, proven: H − (λ−δ)I is positive definite, H − (λ+δ)I is not.

    δ is about 2^(−3/4 of the working bits) times the norm of H.
    """
    if len(H) == 1:
        return H[0][0]
    size = mid(sum((abs(mid(entry)) for row in H for entry in row), arb(0)))
    if size == 0:
        return arb(0)
    radius = mid(size * arb(2) ** (-(3 * ctx.prec) // 4))

    def lies_at(center: arb, radius: arb) -> bool:
        above = is_positive_semidefinite(shifted(H, radius - center))
        return above is True and is_positive_semidefinite(shifted(H, -radius - center)) is False

    center, middle = arb(0), acb_mat(arb_mat([[mid(entry) for entry in row] for row in H]))
    for bits in (ctx.prec, 2 * ctx.prec):  # the iteration for the eigenvalues may fail at one of them
        with ctx.workprec(bits):
            center = -mid(largest([-z.real for z in middle.eig(algorithm="approx")]))
        if lies_at(center, radius):
            return arb(center, radius)
    while not lies_at(center, radius):
        radius = mid(radius * 2**16)
        if radius > size:
            raise ArithmeticError("expected a matrix of narrow finite balls")
    return arb(center, radius)


def largest_eigenvalue(H: Matrix) -> arb:
    """λ_max of a symmetric matrix of balls, proven."""
    return -smallest_eigenvalue([[-entry for entry in row] for row in H])


def spectral_norm(V: Matrix) -> arb:
    """‖V‖ = √λ_max(V Vᵀ)."""
    return root(largest_eigenvalue([[dot(u, v) for v in V] for u in V]))


def complement(w: Sequence[arb]) -> Matrix:
    """An orthonormal basis of w^⊥: the other columns of the reflection that maps w to a multiple of e_1."""
    length = norm(w)
    unit = [wj / length for wj in w]
    v = [unit[0] + (1 if unit[0] >= 0 else -1), *unit[1:]]
    length2 = dot(v, v)
    reflection = [[(i == j) - 2 * v[i] * v[j] / length2 for i in range(len(v))] for j in range(len(v))]
    return reflection[1:]


def mean_free(q: int) -> Matrix:
    """Helmert's orthonormal basis of 1^⊥, as the columns of a (q, q − 1) matrix."""
    columns = [
        [(-1 if i < j else j if i == j else 0) / arb(j * (j + 1)).sqrt() for i in range(q)]
        for j in range(1, q)
    ]
    return [[column[i] for column in columns] for i in range(q)]


def singular_values(M: Matrix) -> Vector:
    """In descending order; not proven, to 2^(−3/4 of the working bits) of ‖M‖."""
    rows, columns = len(M), len(M[0])
    size = mid(norm([entry for row in M for entry in row]))
    if size == 0:
        return [arb(0)] * min(rows, columns)
    both = [[arb(0)] * rows + [mid(entry) for entry in row] for row in M]
    both += [[mid(row[j]) for row in M] + [arb(0)] * columns for j in range(columns)]
    found = sorted((z.real.mid() for z in acb_mat(arb_mat(both)).eig(algorithm="approx")), reverse=True)
    error = size * arb(2) ** (-(3 * ctx.prec) // 4)
    return [arb(value, mid(error)).nonnegative_part() for value in found[: min(rows, columns)]]


def pivots(M: Matrix) -> list[int]:
    """The first columns of a matrix of rationals that are independent of those before them."""
    reduced, rank = fmpq_mat(M).rref()
    return [next(j for j in range(len(M[0])) if reduced[i, j] != 0) for i in range(rank)]


def kernel(M: Matrix, columns: int) -> Matrix:
    """A basis of the vectors that the rows of a matrix of rationals, of so many columns, map to 0."""
    if not M:
        return [[fmpq(i == j) for j in range(columns)] for i in range(columns)]
    reduced, basis, bound = fmpq_mat(M).rref()[0], [], pivots(M)
    for free in sorted(set(range(columns)) - set(bound)):
        z = [fmpq(j == free) for j in range(columns)]
        for i, pivot in enumerate(bound):
            z[pivot] = -reduced[i, free]
        basis.append(z)
    return basis


def orthonormal(rows: Matrix) -> Matrix:
    """A basis of the span of independent rows of rationals, by Gram and Schmidt, not proven."""
    basis: Matrix = []
    for row in ([arb(entry) for entry in row] for row in rows):
        for _ in range(2):  # the second pass removes what cancellation left
            for q in basis:
                along = dot(row, q)
                row = [mid(entry - along * qj) for entry, qj in zip(row, q, strict=True)]
        length = norm(row)
        basis.append([mid(entry / length) for entry in row])
    return basis


def row_space(rows: Matrix) -> Matrix:
    """An orthonormal basis of the span of rows of rationals, whose dimension is found exactly."""
    return orthonormal([rows[i] for i in pivots([list(column) for column in zip(*rows, strict=True)])])


def solve(H: Matrix, g: Sequence[arb]) -> list[arb]:
    """H⁻¹g on midpoints, not proven."""
    columns = arb_mat([[mid(entry)] for entry in g])
    return arb_mat([[mid(entry) for entry in row] for row in H]).solve(columns, algorithm="approx").entries()
