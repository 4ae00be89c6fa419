"""Decompositions in float64, unproven: NaN where LAPACK finds none, and on one thread where that is best.

LAPACK is not asked about what is not finite: it raises, returns numbers, or writes to standard output.

Only suggestions come from here: what is claimed of a result is proven by whoever uses it.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from resnet_cert.numerics.radius import Array
from resnet_cert.numerics.threads import small_algebra


def eigh(S: Array) -> tuple[Array, Array]:
    """Eigenvalues (..., m), ascending, and eigenvectors (..., m, m) of symmetric matrices (..., m, m)."""
    if np.isfinite(S).all():
        with suppress(np.linalg.LinAlgError), small_algebra(S.shape[-1]):
            values, vectors = np.linalg.eigh(S)
            return values, vectors
    return np.full(S.shape[:-1], np.nan), np.full(S.shape, np.nan)


def eigvalsh(S: Array) -> Array:
    """Eigenvalues (..., m), ascending."""
    if np.isfinite(S).all():
        with suppress(np.linalg.LinAlgError), small_algebra(S.shape[-1]):
            return np.asarray(np.linalg.eigvalsh(S), dtype=np.float64)
    return np.full(S.shape[:-1], np.nan)


def lowest(S: Array) -> tuple[Array, Array]:
    """The least eigenvalue (1,) and its eigenvector (m, 1) of a symmetric matrix, by SciPy."""
    from scipy.linalg import eigh as some_eigenpairs

    if np.isfinite(S).all():
        with suppress(np.linalg.LinAlgError), small_algebra(len(S)):
            values, vectors = some_eigenpairs(S, subset_by_index=[0, 0])
            return values, vectors
    return np.full(1, np.nan), np.full((len(S), 1), np.nan)


def svd(M: Array, *, full_matrices: bool = False) -> tuple[Array, Array, Array]:
    """M (m, l) = X·diag(S)·Yᵀ: X, S descending, and Yᵀ."""
    m, l = M.shape
    if np.isfinite(M).all():
        with suppress(np.linalg.LinAlgError), small_algebra(max(m, l)):
            X, S, Yt = np.linalg.svd(M, full_matrices=full_matrices)
            return X, S, Yt
    k = min(m, l)
    shapes = ((m, m), (l, l)) if full_matrices else ((m, k), (k, l))
    return np.full(shapes[0], np.nan), np.full(k, np.nan), np.full(shapes[1], np.nan)


def lstsq(A: Array, B: Array, rcond: float | None = None) -> Array:
    """The X (l, k) of least norm that brings AX nearest to B, for A (m, l) and B (m, k).

    rcond: singular values below so many times the largest count as 0; by default what rounding makes of 0.
    """
    if np.isfinite(A).all() and np.isfinite(B).all():
        with suppress(np.linalg.LinAlgError), small_algebra(max(A.shape)):
            return np.asarray(np.linalg.lstsq(A, B, rcond=rcond)[0], dtype=np.float64)
    return np.full((A.shape[1], *B.shape[1:]), np.nan)


def pinv(A: Array) -> Array:
    """A⁺ (..., l, m) for A (..., m, l)."""
    if np.isfinite(A).all():
        with suppress(np.linalg.LinAlgError), small_algebra(max(A.shape[-2:])):
            return np.asarray(np.linalg.pinv(A), dtype=np.float64)
    return np.full((*A.shape[:-2], A.shape[-1], A.shape[-2]), np.nan)


def solve(A: Array, B: Array) -> Array:
    """A⁻¹B, or as near as it gets where A (m, m) is singular."""
    with suppress(np.linalg.LinAlgError), small_algebra(len(A)):
        return np.asarray(np.linalg.solve(A, B), dtype=np.float64)
    return lstsq(A, B)
