"""Truth for any head: q outputs, bypass inputs, a bias, decay, from the definition of the loss, in balls.

F(W, V) = E[ℓ(W h; y)] with h = (x + V f, bypass, 1) is evaluated as it is written.  ∇ℓ and ∇²ℓ at a
prediction are coefficients of the power series of ℓ along coordinate directions; p is bilinear in (W, V), so
that ∇F and ∇²F are entry by entry sums of products.  No formula of a derivative of a loss is used, and no
reduction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from flint import arb, arb_series, ctx
from oracle_algebra import Matrix, Vector, dot, norm, shifted, smallest_eigenvalue

from resnet_cert import Problem

BITS = 256
Array = npt.NDArray[np.float64]
LOSSES = ("squared", "weighted_squared", "logistic", "softmax", "pseudo_huber", "poisson")


@dataclass(frozen=True)
class Head:
    """One problem as arrays: x (n, d1), y (n, q), f (n, k), W (q, d1 + d2), V (d1, k), and what else it has.

    y: what the formulas of the losses below take; logistic with one output is given to `Problem` as ±1.
    """

    x: Array
    y: Array
    f: Array
    W: Array
    V: Array
    loss: str = "squared"
    c: Array | None = None
    bypass: Array | None = None
    omega: Array | None = None
    probabilities: Array | None = None
    l2: float = 0.0
    decay_bias: bool = True

    @cached_property
    def truth(self) -> HeadTruth:
        return HeadTruth(self)

    @property
    def q(self) -> int:
        return len(self.W)

    @property
    def head(self) -> Array:
        """(q, d): all columns, the bias last."""
        return self.W if self.c is None else np.column_stack([self.W, self.c])

    @property
    def inputs(self) -> Array:
        """(n, d): all that the head reads, before the block adds to the first d1 columns."""
        parts = [self.x] + ([] if self.bypass is None else [self.bypass])
        return np.concatenate(parts + ([] if self.c is None else [np.ones((len(self.x), 1))]), axis=1)

    @property
    def decayed(self) -> Array:
        """1 for each parameter (W, bias, V) that decays."""
        W = np.ones_like(self.head)
        if self.c is not None and not self.decay_bias:
            W[:, -1] = 0.0
        return np.concatenate([W.ravel(), np.ones(self.V.size)])

    def problem(self, **options: Any) -> Problem:
        y = self.y
        if self.loss == "logistic" and self.q == 1:
            y = 2.0 * y[:, 0] - 1.0
        return Problem.from_arrays(
            x=self.x,
            y=y,
            f=self.f,
            W=self.W,
            V=self.V,
            c=self.c,
            bypass=self.bypass,
            loss=self.loss,
            omega=self.omega,
            probabilities=self.probabilities,
            l2=self.l2 or None,
            decay_bias=self.decay_bias,
            **options,
        )


def total(terms: Sequence[Any]) -> Any:
    whole = terms[0]
    for term in terms[1:]:
        whole = whole + term
    return whole


def _each(one: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda p, y, omega: total([c * one(a, b) for a, b, c in zip(p, y, omega, strict=True)])


def _softmax(p: Sequence[Any], y: Sequence[Any], omega: Sequence[Any]) -> Any:
    log_sum = total([a.exp() for a in p]).log()
    return total([b * (log_sum - a) for a, b in zip(p, y, strict=True)])


DEFINITIONS: dict[str, Callable[..., Any]] = {
    "squared": _each(lambda p, y: (p - y) * (p - y) / 2),
    "weighted_squared": _each(lambda p, y: (p - y) * (p - y) / 2),
    "logistic": _each(lambda p, y: (1 + p.exp()).log() - y * p),
    "pseudo_huber": _each(lambda p, y: (1 + (p - y) * (p - y)).sqrt() - 1),
    "poisson": _each(lambda p, y: p.exp() - y * p),
    "softmax": _softmax,
}
"""ℓ(p; y) as it is defined, of numbers or of power series."""


def derivatives(loss: str, p: Vector, y: Vector, omega: Vector) -> tuple[arb, Vector, Matrix]:
    """ℓ, ∇ℓ, ∇²ℓ at p, from second-order power series along e_a and e_a + e_b."""
    q, zero, one = len(p), arb(0), arb(1)

    def along(*places: int) -> arb_series:
        return DEFINITIONS[loss](
            [arb_series([p_a, one if a in places else zero], 3) for a, p_a in enumerate(p)],
            [arb_series([b], 3) for b in y],
            [arb_series([c], 3) for c in omega],
        )

    series = [along(a) for a in range(q)]
    second: Matrix = [[2 * series[a][2] if a == b else zero for b in range(q)] for a in range(q)]
    for a in range(q):
        for b in range(a):
            second[a][b] = second[b][a] = along(a, b)[2] - series[a][2] - series[b][2]
    return series[0][0], [s[1] for s in series], second


def balls(M: Array) -> Any:
    """The same array of balls, as nested lists."""
    return [balls(row) for row in M] if np.ndim(M) else arb(float(M))


class HeadTruth:
    """F, ∇F, ∇²F, and G = F + l2‖·‖² at a head's point, with 256 bits."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.n, self.d1 = head.x.shape
        self.k, self.q, self.d = head.f.shape[1], head.q, head.head.shape[1]

    @cached_property
    def weights(self) -> Vector:
        pi = np.ones(self.n) if self.head.probabilities is None else self.head.probabilities
        with ctx.workprec(BITS):
            whole = total(balls(pi))
            return [entry / whole for entry in balls(pi)]

    @cached_property
    def h(self) -> Matrix:
        """(n, d)."""
        with ctx.workprec(BITS):
            V, rows = balls(self.head.V), []
            for z, f in zip(balls(self.head.inputs), balls(self.head.f), strict=True):
                moved = [z[j] + dot(V[j], f) for j in range(self.d1)]
                rows.append(moved + z[self.d1 :])
            return rows

    def at(self, rows: Matrix, W: Matrix) -> list[tuple[arb, Vector, Matrix]]:
        """ℓ, ∇ℓ, ∇²ℓ of each sample at the predictions W·row."""
        with ctx.workprec(BITS):
            return [
                derivatives(self.head.loss, [dot(w, row) for w in W], y, c)
                for row, y, c in zip(rows, *self._targets, strict=True)
            ]

    @cached_property
    def _targets(self) -> tuple[Matrix, Matrix]:
        """y and ω, (n, q)."""
        ones = np.ones((self.n, self.q))
        return balls(self.head.y), balls(ones if self.head.omega is None else self.head.omega)

    @cached_property
    def _inputs(self) -> Matrix:
        """(n, d)."""
        return balls(self.head.inputs)

    @cached_property
    def parts(self) -> list[tuple[arb, Vector, Matrix]]:
        return self.at(self.h, balls(self.head.head))

    @cached_property
    def F(self) -> arb:
        with ctx.workprec(BITS):
            return dot(self.weights, [value for value, _, _ in self.parts])

    @cached_property
    def gradient(self) -> Vector:
        """∇F as one vector: the entries of W row by row, then those of V."""
        with ctx.workprec(BITS):
            whole = [arb(0)] * (self.q * self.d + self.d1 * self.k)
            for i, (pi, (_, slope, _)) in enumerate(zip(self.weights, self.parts, strict=True)):
                for a, of_p in enumerate(self._of_prediction(i)):
                    whole = [t + pi * slope[a] * g for t, g in zip(whole, of_p, strict=True)]
            return whole

    @cached_property
    def hessian(self) -> Matrix:
        with ctx.workprec(BITS):
            size = self.q * self.d + self.d1 * self.k
            H = [[arb(0)] * size for _ in range(size)]
            features = balls(self.head.f)
            for i, (pi, (_, slope, bend)) in enumerate(zip(self.weights, self.parts, strict=True)):
                J = self._of_prediction(i)
                BJ = [
                    [dot(bend[a], [J[b][s] for b in range(self.q)]) for s in range(size)]
                    for a in range(self.q)
                ]
                for r in range(size):
                    for s in range(size):
                        H[r][s] += pi * dot(
                            [J[a][r] for a in range(self.q)], [BJ[a][s] for a in range(self.q)]
                        )
                # ∂²p_a / ∂W_aj ∂V_jl = f_l
                for a in range(self.q):
                    for j in range(self.d1):
                        for l in range(self.k):
                            term = pi * slope[a] * features[i][l]
                            r, s = a * self.d + j, self.q * self.d + j * self.k + l
                            H[r][s] += term
                            H[s][r] += term
            return H

    def _of_prediction(self, i: int) -> Matrix:
        """∂p_a/∂W_bj = δ_ab h_j and ∂p_a/∂V_jl = W_aj f_l, one row for each a."""
        W, f, h, rows = balls(self.head.head), balls(self.head.f)[i], self.h[i], []
        for a in range(self.q):
            of_W = [h[j] if a == b else arb(0) for b in range(self.q) for j in range(self.d)]
            rows.append(of_W + [W[a][j] * fl for j in range(self.d1) for fl in f])
        return rows

    @property
    def parameters(self) -> Vector:
        return balls(np.concatenate([self.head.head.ravel(), self.head.V.ravel()]))

    @cached_property
    def gradient_G(self) -> Vector:
        c = 2 * arb(self.head.l2)
        with ctx.workprec(BITS):
            mask = balls(self.head.decayed)
            return [g + c * on * z for g, on, z in zip(self.gradient, mask, self.parameters, strict=True)]

    @cached_property
    def norm(self) -> arb:
        """‖∇G‖, which is ‖∇F‖ without decay."""
        with ctx.workprec(BITS):
            return norm(self.gradient_G)

    @cached_property
    def hessian_G(self) -> Matrix:
        with ctx.workprec(BITS):
            if self.head.decayed.all():
                return shifted(self.hessian, 2 * arb(self.head.l2))
            H = [list(row) for row in self.hessian]
            for i, on in enumerate(self.head.decayed):
                H[i][i] += 2 * arb(self.head.l2) * int(on)
            return H

    @cached_property
    def lambda_min(self) -> arb:
        """Of ∇²G."""
        with ctx.workprec(BITS):
            return smallest_eigenvalue(self.hessian_G)

    @cached_property
    def g_W(self) -> Matrix:
        flat = self.gradient[: self.q * self.d]
        return [flat[a * self.d : (a + 1) * self.d] for a in range(self.q)]

    @cached_property
    def A_f(self) -> Matrix:
        """E[∇ℓ fᵀ]."""
        with ctx.workprec(BITS):
            features = balls(self.head.f)
            whole = [[arb(0)] * self.k for _ in range(self.q)]
            for pi, (_, slope, _), f in zip(self.weights, self.parts, features, strict=True):
                for a in range(self.q):
                    for l in range(self.k):
                        whole[a][l] += pi * slope[a] * f[l]
            return whole

    @cached_property
    def at_zero(self) -> HeadTruth:
        """The point (0, V)."""
        head = self.head
        c = None if head.c is None else np.zeros_like(head.c)
        return replace(head, W=np.zeros_like(head.W), c=c).truth

    def linear(self, W: Matrix, extra: Array | None = None) -> tuple[arb, Vector, Matrix]:
        """E[ℓ(W z; y)], its gradient and its Hessian in the entries of W, z the inputs of the head
        (and what else is given)."""
        rows, products = self._inputs, self._squares
        if extra is not None:
            rows = [[*row, *more] for row, more in zip(rows, balls(extra), strict=True)]
            products = _products(rows)
        m, columns = len(rows[0]), list(zip(*rows, strict=True))
        with ctx.workprec(BITS):
            parts = self.at(rows, W)
            value = dot(self.weights, [ell for ell, _, _ in parts])
            g: Vector = []
            H = [[arb(0)] * (self.q * m) for _ in range(self.q * m)]
            for a in range(self.q):
                slopes = [pi * slope[a] for pi, (_, slope, _) in zip(self.weights, parts, strict=True)]
                g += [dot(slopes, column) for column in columns]
                for b in range(a + 1):
                    bends = [pi * bend[a][b] for pi, (_, _, bend) in zip(self.weights, parts, strict=True)]
                    if a != b and all(entry == 0 for entry in bends):
                        continue
                    for j in range(m):
                        for l in range(m):
                            entry = dot(bends, products[j][l])
                            H[a * m + j][b * m + l] = H[b * m + l][a * m + j] = entry
            return value, g, H

    @cached_property
    def _squares(self) -> list[Matrix]:
        with ctx.workprec(BITS):
            return _products(self._inputs)


def _products(rows: Matrix) -> list[Matrix]:
    """z_j z_l over the samples, for each j and l."""
    columns = list(zip(*rows, strict=True))
    return [[[x * y for x, y in zip(u, v, strict=True)] for v in columns] for u in columns]


CORNERS = (
    "generic",
    "W = 0",
    "W_1 = 0",
    "V = 0",
    "rank 1",
    "a row of zeros",
    "rows that sum to 0",
    "rows that nearly sum to 0",
    "A_f = 0",
    "f = 0",
    "one sample",
    "weights",
    "hard labels",
)


def draw(
    seed: int,
    corner: str = "generic",
    loss: str | None = None,
    *,
    q: int | None = None,
    d1: int | None = None,
    d2: int | None = None,
    n: int | None = None,
    k: int | None = None,
    bias: bool | None = None,
    l2: float = 0.0,
) -> Head:
    """A random problem of small dimensions with one of the corners."""
    rng = np.random.default_rng([seed, CORNERS.index(corner)])
    n, d1, k, q, d2 = (
        int(rng.integers(low, high)) if size is None else size
        for size, low, high in ((n, 1, 7), (d1, 1, 4), (k, 1, 4), (q, 1, 4), (d2, 0, 2))
    )
    bias = bool(rng.random() < 0.5) if bias is None else bias
    n = 1 if corner == "one sample" else n
    loss = str(rng.choice(LOSSES)) if loss is None else loss
    W, V = rng.normal(size=(q, d1 + d2)), rng.normal(size=(d1, k))
    x, f, y = rng.normal(size=(n, d1)), rng.normal(size=(n, k)), rng.normal(size=(n, q))
    if loss == "logistic":
        y = rng.uniform(size=(n, q)) if q > 1 else rng.integers(0, 2, (n, 1)).astype(float)
    if loss == "softmax":
        y = rng.dirichlet(np.ones(q), size=n)
    if loss == "poisson":
        y = rng.poisson(1.5, (n, q)).astype(float)
    if corner == "hard labels" and loss in ("logistic", "softmax"):
        y = np.eye(q)[rng.integers(0, q, n)]
    head = Head(
        x,
        y,
        f,
        W,
        V,
        loss,
        c=rng.normal(size=q) if bias else None,
        bypass=rng.normal(size=(n, d2)) if d2 else None,
        omega=rng.uniform(0.0, 3.0, size=(n, q)) if loss == "weighted_squared" else None,
        l2=l2,
        decay_bias=bool(rng.random() < 0.5),
    )
    c = head.c
    match corner:
        case "W = 0":
            return replace(head, W=np.zeros_like(W), c=None if c is None else np.zeros_like(c))
        case "W_1 = 0":
            return replace(head, W=np.where(np.arange(d1 + d2) < d1, 0.0, W))
        case "V = 0":
            return replace(head, V=np.zeros_like(V))
        case "rank 1":
            return replace(head, W=np.outer(rng.integers(-3, 4, q), rng.integers(1, 4, d1 + d2)) / 2.0)
        case "a row of zeros":
            return replace(head, W=np.where(np.arange(q)[:, None] == 0, 0.0, W))
        case "rows that sum to 0" | "rows that nearly sum to 0":
            W = np.round(W * 8.0) / 8.0
            W[-1] = -W[:-1].sum(axis=0)
            if corner == "rows that nearly sum to 0":
                W[-1] += 10.0 ** rng.uniform(-17, -4) * rng.normal(size=d1 + d2)
            return replace(head, W=W)
        case "A_f = 0":  # every sample comes with f and with −f, at V = 0
            twice = {
                name: np.concatenate([array, array])
                for name, array in (("x", x), ("y", y), ("omega", head.omega), ("bypass", head.bypass))
                if array is not None
            }
            return replace(head, **twice, f=np.concatenate([f, -f]), V=np.zeros_like(V))
        case "f = 0":
            return replace(head, f=np.zeros_like(f))
        case "weights":
            return replace(head, probabilities=rng.dirichlet(np.ones(n)))
    return head
