"""The mathematics of the verifier, in a field: balls of midpoint and radius (Arb), or rational numbers.

Everything is a function of the sums over the rows z = (x, f), whose entries are floats and so exact:

    p = zᵀq with q = (w, Vᵀw),      (h, f) = Kᵀz with K = [[I, 0], [Vᵀ, I]],
    (g_w, a) = Kᵀ E[ℓ' z],          [[A, B], [Bᵀ, C]] = Kᵀ E[ℓ'' z zᵀ] K.

What a function returns as True is proven; False says only that it is not (not at this precision).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from flint import arb, arb_mat, fmpq, fmpq_mat

from resnet_cert.certificate.losses import DERIVATIVES, SUPREMA
from resnet_cert.certificate.reading import Array, Certificate, Interval

BLOCK_ROWS = 4096
ELIMINATED, ELIMINATED_AT_MOST = 64, 256
"""Sizes up to which a matrix is eliminated entry by entry: at once, or where its float factor is no proof."""

COMPUTED = 1e-6
"""How far b and μ2 may be off, relatively, where the spec leaves them open."""

Rows = list[list[Any]]


class Field(NamedTuple):
    """Where the arithmetic takes place: an exact number from a float, matrices over these numbers, and the
    root of a nonnegative fraction, None where it is not in the field."""

    number: Callable[[float], Any]
    matrix: Callable[..., Any]
    root: Callable[[Fraction], Any | None]

    def of(self, array: Array) -> Any:
        """A float array as a matrix of numbers, a vector as one column."""
        rows = array.reshape(len(array), -1)
        return self.matrix(*rows.shape, [self.number(v) for v in rows.ravel().tolist()])


def _rational_root(square: Fraction) -> fmpq | None:
    root = Fraction(math.isqrt(square.numerator), math.isqrt(square.denominator))
    return fmpq(root.numerator, root.denominator) if root**2 == square else None


BALLS = Field(arb, arb_mat, lambda square: arb(fmpq(square.numerator, square.denominator)).sqrt())
RATIONALS = Field(lambda v: fmpq(*v.as_integer_ratio()), fmpq_mat, _rational_root)


@dataclass(frozen=True)
class Facts:
    """F, (g_w, a), Q = [[A, B], [Bᵀ, C]] and the point (w, V) with ω = ‖w‖², all in one field."""

    field: Field
    F: Any
    g_w: list[Any]
    a: list[Any]
    Q: Rows
    w: list[Any]
    omega: Any

    @property
    def gradient_squared(self) -> Any:
        """‖∇F‖² = ‖g_w‖² + ‖w‖²‖a‖²."""
        return _squares(self.g_w) + self.omega * _squares(self.a)


def evaluate(field: Field, certificate: Certificate, data: dict[str, Array]) -> Facts:
    """The facts at the point, by one pass over the rows."""
    d, k, number = certificate.d, certificate.k, field.number
    w, V = field.of(data["w"]), field.of(data["V"])
    K = field.matrix(d + k, d + k, [number(float(i == j)) for i in range(d + k) for j in range(d + k)])
    for i in range(d):
        for j in range(k):
            K[d + j, i] = V[i, j]
    embedded = field.matrix(d + k, 1, [*w.entries(), *[number(0.0)] * k])
    q, derivatives = K * embedded, DERIVATIVES[certificate.loss]
    value = total = number(0.0)
    first, second = field.matrix(d + k, 1), field.matrix(d + k, d + k)
    for start in range(0, certificate.n, BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        z = field.of(np.hstack([data["x"][rows], data["f"][rows]]))
        targets = [number(v) for v in data["y"][rows].tolist()]
        weights = (
            [number(v) for v in data["probabilities"][rows].tolist()]
            if "probabilities" in data
            else [number(1.0)] * len(targets)
        )
        samples = [derivatives(p, y) for p, y in zip((z * q).entries(), targets, strict=True)]
        value += sum((pi * s[0] for pi, s in zip(weights, samples, strict=True)), number(0.0))
        total += sum(weights, number(0.0))
        zt = z.transpose()
        slopes = [pi * s[1] for pi, s in zip(weights, samples, strict=True)]
        curvatures = [pi * s[2] for pi, s in zip(weights, samples, strict=True)]
        weighted = [c * entry for c, row in zip(curvatures, z.tolist(), strict=True) for entry in row]
        first += zt * field.matrix(len(targets), 1, slopes)
        second += zt * field.matrix(len(targets), d + k, weighted)
    factor, Kt = number(certificate.scale) / total, K.transpose()
    gradient = [factor * entry for entry in (Kt * first).entries()]
    Q = [[factor * entry for entry in row] for row in (Kt * second * K).tolist()]
    entries = w.entries()
    return Facts(field, factor * value, gradient[:d], gradient[d:], Q, entries, _squares(entries))


def encloses(interval: Interval, true: Any, number: Callable[[float], Any]) -> bool:
    """lower ≤ true ≤ upper."""
    above = interval.lower is None or true >= number(interval.lower)
    return bool(above and (interval.upper is None or true <= number(interval.upper)))


def encloses_root(interval: Interval, square: Any, number: Callable[[float], Any]) -> bool:
    """lower ≤ √square ≤ upper."""
    lower, upper = interval.lower, interval.upper
    above = lower is None or lower <= 0.0 or square >= number(lower) ** 2
    return bool(above and (upper is None or (upper >= 0.0 and square <= number(upper) ** 2)))


def curvature_at_least(facts: Facts, t: Any) -> bool:
    """λ_min(∇²F) ≥ −t.

    The term 2uᵀUa of D²F(u,U) is the only one that is ever negative, since ℓ'' ≥ 0: a = 0 is enough for
    every t ≥ 0.  Unless d = 1 and w ≠ 0, some directions (0, dV) with dV ⊥ w have curvature 0, so t < 0 is
    false, and t = 0 needs a = 0.  For t > 0 the Schur complement of their block tI leaves

        S(t) = [[A + tI − (‖a‖²/t)P, ωB + waᵀ], [·, ω²C + tωI]] ⪰ 0,    P = I − wwᵀ/ω,

    or A + (t − ‖a‖²/t)I ⪰ 0 at w = 0.  At d = 1, w ≠ 0 there are none: P = 0, and every t is allowed.
    """
    field, w, a, omega, d = facts.field, facts.w, facts.a, facts.omega, len(facts.w)
    zero = field.number(0.0)
    at_zero = omega == 0
    if not at_zero and not omega > 0:
        return False
    if t >= 0 and all(entry == 0 for entry in a):
        return True
    if (d > 1 or at_zero) and not t > 0:
        return False
    coupling = zero if d == 1 and not at_zero else _squares(a) / t
    if at_zero:
        return semidefinite(
            [[facts.Q[i][j] + (t - coupling if i == j else zero) for j in range(d)] for i in range(d)]
        )
    S = [
        [facts.Q[i][j] * (1 if i < d else omega) * (1 if j < d else omega) for j in range(len(facts.Q))]
        for i in range(len(facts.Q))
    ]
    for i in range(d):
        for j in range(d):
            S[i][j] += coupling * w[i] * w[j] / omega + (t - coupling if i == j else zero)
        for j in range(len(a)):
            S[i][d + j] += w[i] * a[j]
            S[d + j][i] += w[i] * a[j]
    for j in range(d, len(S)):
        S[j][j] += t * omega
    return semidefinite(S)


def curvature_along(facts: Facts, dw: Array, dV: Array) -> tuple[Any, Any]:
    """D²F(u,U) and ‖u‖² + ‖U‖² at (u,U) = (dw, dV): their quotient is at least λ_min(∇²F)."""
    field = facts.field
    u, U, a = field.of(dw), field.of(dV), field.matrix(len(facts.a), 1, facts.a)
    along = [*u.entries(), *(U.transpose() * field.matrix(len(facts.w), 1, facts.w)).entries()]
    image = field.matrix(len(along), len(along), [entry for row in facts.Q for entry in row])
    gram = _dot(along, (image * field.matrix(len(along), 1, along)).entries())
    form = gram + 2 * _dot(u.entries(), (U * a).entries())
    return form, _squares(u.entries()) + _squares(U.entries())


def lipschitz_is(certificate: Certificate, data: dict[str, Array]) -> bool:
    """E[L3 J³ + 3 L2 J‖f‖] ≤ μ2, which makes μ2 a Lipschitz constant of ∇²F on ‖w‖, ‖V‖ ≤ b.

    J² = (‖x‖ + b‖f‖)² + b²‖f‖², and L2, L3 bound |ℓ''|, |ℓ'''| over |p| ≤ b(‖x‖ + b‖f‖).  Where a
    spec leaves μ2 open it is this number, to COMPUTED, or one too small for floats: a larger one is a
    Lipschitz constant as well, but makes more points stationary than the spec does.
    """
    b, suprema = arb(certificate.b), SUPREMA[certificate.loss]
    weights = data.get("probabilities", np.ones(certificate.n))
    bound = total = arb(0)
    for x, y, f, weight in zip(data["x"], data["y"], data["f"], weights, strict=True):
        norm_f = _squares([arb(v) for v in f.tolist()]).sqrt()
        reach = _squares([arb(v) for v in x.tolist()]).sqrt() + b * norm_f
        J = (reach**2 + (b * norm_f) ** 2).sqrt()
        second, third = suprema(b * reach, arb(float(y)))
        bound += arb(float(weight)) * (third * J**3 + 3 * second * J * norm_f)
        total += arb(float(weight))
    if certificate.mu2 is None:
        return False
    least, claimed = certificate.scale * bound, arb(certificate.mu2) * total
    most = least * (1 + arb(COMPUTED)) + arb(2) ** -900 * total
    return bool(least <= claimed) and (certificate.spec is None or bool(claimed <= most))


def inside(b: float, w: Array, V: Array) -> bool:
    """‖w‖ < b and ‖V‖ < b (spectral norm): b²I − VᵀV ≻ 0."""
    if not _squares(BALLS.of(w).entries()) < arb(b) ** 2:
        return False
    tall = BALLS.of(V if V.shape[0] >= V.shape[1] else V.T)
    gram = (tall.transpose() * tall).tolist()
    S = [[arb(b) ** 2 * int(i == j) - entry for j, entry in enumerate(row)] for i, row in enumerate(gram)]
    return semidefinite(S, strictly=True)


def semidefinite(S: Rows, *, strictly: bool = False) -> bool:
    """S ⪰ 0 (S ≻ 0): S = LDLᵀ with D ≥ 0, a zero pivot allowed where its column has become zero."""
    size = len(S)
    if size > ELIMINATED and _near_identity(S):
        return True
    if size > ELIMINATED_AT_MOST:
        return False
    S = [list(row[: i + 1]) for i, row in enumerate(S)]
    for j in range(size):
        pivot = S[j][j]
        if not pivot > 0:
            if not strictly and all(S[i][j] == 0 for i in range(j, size)):
                continue
            return False
        for i in range(j + 1, size):
            factor = S[i][j] / pivot
            for l in range(j + 1, i + 1):
                S[i][l] -= factor * S[l][j]
    return True


def _near_identity(S: Rows) -> bool:
    """S ≻ 0, since T = GSGᵀ has dominant positive diagonal entries, hence T ≻ 0, for some G.

    Any G is a proof: Gᵀv = 0 contradicts vᵀTv > 0, so every z ≠ 0 is some Gᵀv and zᵀSz = vᵀTv > 0.  This
    G is the inverse of a floating-point Cholesky factor of S, about which nothing need be known.
    """
    size = len(S)
    diagonal = [S[i][i] for i in range(size)]
    if not all(isinstance(entry, arb) and entry > 0 for entry in diagonal):
        return False
    scale = [float(entry.rsqrt().mid()) for entry in diagonal]
    scaled = np.array(
        [[float(scale[i] * S[i][j].mid() * scale[j]) for j in range(size)] for i in range(size)]
    )
    try:
        inverse = np.linalg.inv(np.linalg.cholesky(scaled))
    except np.linalg.LinAlgError:
        return False
    G = arb_mat(size, size, (inverse * scale).ravel().tolist())
    T = (G * arb_mat(S) * G.transpose()).tolist()
    return all(row[i] > sum((abs(row[j]) for j in range(size) if j != i), arb(0)) for i, row in enumerate(T))


def _squares(v: list[Any]) -> Any:
    return _dot(v, v)


def _dot(u: list[Any], v: list[Any]) -> Any:
    return sum((a * b for a, b in zip(u, v, strict=True)), 0 * u[0])
