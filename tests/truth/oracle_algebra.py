"""Linear algebra for the oracle, on lists of exact rationals (`flint.fmpq`) or proven balls (`flint.arb`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flint import acb_mat, arb, arb_mat, ctx, fmpq

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
    eigenvalues = acb_mat(arb_mat([[mid(entry) for entry in row] for row in H])).eig(algorithm="approx")
    center = -mid(largest([-z.real for z in eigenvalues]))
    radius = mid(size * arb(2) ** (-(3 * ctx.prec) // 4))
    while not (
        is_positive_semidefinite(shifted(H, radius - center)) is True
        and is_positive_semidefinite(shifted(H, -radius - center)) is False
    ):
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


def solve(H: Matrix, g: Sequence[arb]) -> list[arb]:
    """H⁻¹g for a positive definite H, on midpoints (not proven), by LDLᵀ without pivoting."""
    S, v, size = [[mid(entry) for entry in row] for row in H], [mid(entry) for entry in g], len(H)
    for i in range(size):
        for j in range(i + 1, size):
            factor = mid(S[j][i] / S[i][i])
            for l in range(i, size):
                S[j][l] = mid(S[j][l] - factor * S[i][l])
            v[j] = mid(v[j] - factor * v[i])
    for i in reversed(range(size)):
        for l in range(i + 1, size):
            v[i] = mid(v[i] - S[i][l] * v[l])
        v[i] = mid(v[i] / S[i][i])
    return v
