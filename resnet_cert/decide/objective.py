"""F(W, V) = E[ℓ(W(x + V f); y)] exactly as the paper writes it, and its derivatives by JAX.

Nothing here is used to decide: it is the second opinion, and a compass.  The moments and the reduced Hessian
come from formulas; jax.grad and a Hessian-vector product come from this definition alone.

One function is compiled for each kind of loss and size, and sizes are rounded up: samples with rows of weight
0, inputs and features with columns of 0, which change neither F nor any derivative.  Bypass inputs and the
bias are columns of x whose rows of V are 0 and stay it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from resnet_cert.moments.executors import summed
from resnet_cert.numerics.enclosure import Array
from resnet_cert.numerics.jax64 import float64_scope, jax, jnp
from resnet_cert.numerics.sums import Blocks, Sum
from resnet_cert.problem.losses import NUMPY, BuiltinLoss, Loss
from resnet_cert.problem.problem import Chunk, Direction, Problem

DENSE_PARAMETERS = 512
"""Largest number of parameters whose Hessian is put together, a column for each,"""
DENSE_WORK = 2**27
"""if also n(d + k) times that number is at most this: a fraction of a second."""
BATCH = 16
"""Directions at a time, where a dense Hessian may be wanted: one compiled function serves one and many."""
ROWS, COLUMNS, COLUMN_STEP = 64, 8, 32
"""The smallest numbers of rows and columns that are compiled for.  Columns are powers of two up to the last,
and multiples of it beyond."""
QUICKLY = {"xla_backend_optimization_level": 0}
"""Compiled in half the time; a pass then takes a tenth longer, which one piece of data never makes up for."""


@dataclass(frozen=True)
class Autodiff:
    """G, ∇G and ∇²G·u at the problem's point, for G = F + l2·(‖W‖² + ‖V‖²): float64, unproven."""

    value: float
    gradient: Direction
    product: Direction


def objective(W: Any, V: Any, x: Any, f: Any, y: Any, omega: Any, loss: Loss) -> Any:
    """ℓ(W(x + V f); y) for the rows of x (m, d), f (m, k), y (m, q); V (d, k).

    As Wx + (WV)f: for few outputs that is a fraction of the products.
    """
    return loss.value(x @ W.T + f @ (V.T @ W.T), y, omega)


@dataclass(frozen=True)
class Objective:
    """G at the problem's point, or F, ready to be differentiated along any number of directions."""

    problem: Problem
    regularized: bool = True

    def along(self, direction: Direction) -> Autodiff:
        """One pass over the data."""
        return self.along_each([direction])[0]

    def along_each(self, directions: list[Direction]) -> list[Autodiff]:
        """The same for several directions at once: each chunk is read and padded once."""
        problem = self.problem
        d, d1, k, q = problem.d, problem.d1, problem.k, problem.q
        D, K = _columns(d), _columns(k)
        batch = BATCH if self.is_small else 1
        count = -(-len(directions) // batch) * batch
        dW, dV = np.zeros((count, q, D)), np.zeros((count, D, K))
        for i, u in enumerate(directions):
            dW[i, :, :d], dV[i, :d1, :k] = u.dW, u.dV
        W, V = _wide(problem.W, D), np.pad(problem.V, ((0, D - d1), (0, K - k)))
        decay = problem.objective.l2 if self.regularized else 0.0, _wide(problem.decayed[None, :], D)[0]
        rows = min(_rows(problem.n), max(problem.chunk_rows, ROWS))
        sums = summed(
            problem,
            partial(_derivative_sums, rows=rows, batch=batch, point=(W, V), along=(dW, dV), decay=decay),
        )
        total, value, *parts = np.split(sums.total().center, np.cumsum([1, 1, W.size, V.size, dW.size]))
        gW, gV, hW, hV = (
            part.reshape(like.shape) / total for part, like in zip(parts, (W, V, dW, dV), strict=True)
        )

        def direction(of_W: Array, of_V: Array) -> Direction:
            return Direction(of_W[:, :d], of_V[:d1, :k])

        F, slope = float((value / total)[0]), direction(gW, gV)
        return [Autodiff(F, slope, direction(hW[i], hV[i])) for i in range(len(directions))]

    @property
    def is_small(self) -> bool:
        """A dense Hessian takes no more than a moment."""
        problem = self.problem
        size = problem.parameters
        return size <= DENSE_PARAMETERS and problem.n * (problem.d + problem.k) * size <= DENSE_WORK

    def dense_hessian(self) -> Array | None:
        """∇²G over the entries of W, then those of V, row by row each; None where that takes more than a
        moment."""
        if not self.is_small:
            return None
        sizes = self.problem.W.shape, self.problem.V.shape
        units = [unflat(unit, *sizes) for unit in np.eye(self.problem.parameters)]
        H = np.stack([flat(column.product) for column in self.along_each(units)])
        return (H + H.T) / 2.0


@float64_scope()
def _derivative_sums(
    problem: Problem,
    chunk: Chunk,
    blocks: Blocks,
    *,
    rows: int,
    batch: int,
    point: tuple[Array, Array],
    along: tuple[Array, Array],
    decay: tuple[float, Array],
) -> Sum:
    """Σπ, ΣπG, its gradient and its Hessian along directions, of some samples, as one vector.

    rows: to which they are filled up;  batch: directions at a time;  point: (W, V);  along: (dW, dV), one
    after the other;  decay: l2 and the columns of W that it is about.
    """
    loss, scale = plain(problem.loss)
    compiled, (dW, dV) = _compiled(loss, problem.n <= problem.chunk_rows), along
    omega = np.ones_like(chunk.y) if chunk.omega is None else chunk.omega
    columns = (*(part.shape[1] for part in point), problem.q, problem.q)
    data = [_wide(a, m, rows) for a, m in zip((chunk.x, chunk.f, chunk.y, omega), columns, strict=True)]
    data.append(np.concatenate([chunk.weights, np.zeros(rows - len(chunk.x))]))
    arrays = [jnp.asarray(a) for a in data]
    found = [
        compiled(*point, dW[start : start + batch], dV[start : start + batch], *decay, scale, *arrays)
        for start in range(0, len(dW), batch)
    ]
    value, gW, gV = found[0][:3]
    products = [np.asarray(part[i]) for i in (3, 4) for part in found]
    parts = [np.sum(chunk.weights), value, gW, gV, *products]
    return blocks.whole(np.concatenate([np.ravel(part) for part in parts]), problem.chunk_rows)


def flat(direction: Direction) -> Array:
    """The entries of dW, then those of dV, row by row each."""
    return np.concatenate([direction.dW.ravel(), direction.dV.ravel()])


def unflat(vector: Array, W_shape: tuple[int, ...], V_shape: tuple[int, ...]) -> Direction:
    size = math.prod(W_shape)
    return Direction(vector[:size].reshape(W_shape), vector[size:].reshape(V_shape))


def plain(loss: Loss) -> tuple[Loss, float]:
    """The loss as the compiled function knows it, and the factor that is left out of it; whatever evaluates
    the loss's proofs is no part of either."""
    if not isinstance(loss, BuiltinLoss):
        return loss, 1.0
    return replace(loss, scale=1.0, functions=NUMPY, called=None), loss.scale


def _rows(count: int) -> int:
    """A power of four up to 1024, of two beyond."""
    exponent = math.ceil(math.log2(count))
    return max(2 ** (exponent + exponent % 2 if exponent < 10 else exponent), ROWS)


def _columns(count: int) -> int:
    if count > COLUMN_STEP:
        return -(-count // COLUMN_STEP) * COLUMN_STEP
    return max(2 ** math.ceil(math.log2(max(count, 1))), COLUMNS)


def _wide(a: Array, columns: int, rows: int | None = None) -> Array:
    """a with columns of 0, and with its last row repeated up to `rows`: a loss is finite there as before."""
    if a.shape == (rows or len(a), columns):
        return a
    padded = np.zeros((len(a) if rows is None else rows, columns))
    padded[: len(a), : a.shape[1]] = a
    if rows is not None:
        padded[len(a) :, : a.shape[1]] = a[-1]
    return padded


@lru_cache(maxsize=32)
def _compiled(loss: Loss, quickly: bool) -> Callable[..., Any]:
    """One compiled function a loss, and one compilation a size: ΣπG, its gradient, and its Hessian along
    directions dW (b, q, d), dV (b, d, k), where the loss is `scale` times this one."""

    def derivatives(
        W: Any,
        V: Any,
        dW: Any,
        dV: Any,
        l2: Any,
        decayed: Any,
        scale: Any,
        x: Any,
        f: Any,
        y: Any,
        omega: Any,
        weight: Any,
    ) -> Any:
        def G(W: Any, V: Any) -> Any:
            penalty = l2 * (jnp.sum(decayed * jnp.sum(W**2, axis=0)) + jnp.sum(V**2))
            each = scale * objective(W, V, x, f, y, omega, loss)
            return jnp.sum(weight * each) + jnp.sum(weight) * penalty

        gradient = jax.grad(G, argnums=(0, 1))
        slope, along = jax.linearize(gradient, W, V)
        products = along(dW[0], dV[0]) if len(dW) == 1 else jax.vmap(along)(dW, dV)
        if len(dW) == 1:
            products = (products[0][None], products[1][None])
        return G(W, V), *slope, *products

    return jax.jit(derivatives, compiler_options=QUICKLY if quickly else None)
