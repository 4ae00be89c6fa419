"""The objective, its gradient and Hessian-vector products for an optimiser: by JAX, and nothing proven."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from resnet_cert.decide.hessian import unit_vector
from resnet_cert.numerics.enclosure import Array
from resnet_cert.numerics.jax64 import jax
from resnet_cert.problem.losses import Loss
from resnet_cert.problem.problem import BOUNDARY_WIDTH, HELD_BYTES, Problem


class Derivatives:
    """G(z) = F(w, V) + l2·‖z‖² and its derivatives, z = (w, V) ∈ R^{d(1+k)} with V row by row.

    An optimiser moves coordinates y, with z = `z(y)` and y = `coordinates(z)`; here they are z itself.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._value_and_gradient, self._product = _compiled(problem.loss, problem.d, problem.k)
        fits = problem.n * (problem.d + problem.k + 2) * 8 <= HELD_BYTES
        self._held = [jax.device_put(part) for part in self._parts()] if fits else None
        self._total = sum(float(part[3].sum()) for part in self._held or self._parts())
        self._last: tuple[Array, tuple[float, Array]] | None = None

    def coordinates(self, z: Array) -> Array:
        """y with z(y) = z, or the point of the ball nearest to z."""
        return z

    def z(self, y: Array) -> Array:
        """(w, V) at the coordinates y."""
        return y

    def at(self, y: Array) -> tuple[float, Array]:
        """G, infinite where it overflows, and ∇G (d(1+k),)."""
        if self._last is None or not np.array_equal(self._last[0], y):
            l2 = self._problem.l2
            F, gradient = self._mean(self._value_and_gradient, y)
            G = float(F) + l2 * float(y @ y)
            self._last = y.copy(), (math.inf if math.isnan(G) else G, gradient + 2.0 * l2 * y)
        return self._last[1]

    def hessian_product(self, y: Array, tangent: Array) -> Array:
        """∇²G(y)·tangent."""
        [product] = self._mean(self._product, y, tangent)
        return product + 2.0 * self._problem.l2 * tangent

    def _mean(self, program: Any, *arguments: Array) -> list[Any]:
        total: list[Any] = []
        for part in self._held or self._parts():
            values = [np.asarray(value) for value in program(*arguments, *part)]
            total = [a + b for a, b in zip(total, values, strict=True)] if total else values
        return [value / self._total for value in total]

    def _parts(self) -> Iterator[tuple[Array, ...]]:
        """x, f, y, π of every chunk; the last one filled up with copies of its last row, of weight 0."""
        for chunk in self._problem.chunks():
            weight = np.ones(len(chunk.x)) if chunk.weight is None else chunk.weight
            more = self._problem.chunk_rows - len(weight)
            columns = (
                np.concatenate([a, np.repeat(a[-1:], more, axis=0)]) for a in (chunk.x, chunk.f, chunk.y)
            )
            yield (*columns, np.concatenate([weight, np.zeros(more)]))


class DerivativesOnBall(Derivatives):
    """G on the ball ‖z‖ ≤ ρ, as φ(y) = G(z(y)), z(y) = ρ·(y without its last entry)/‖y‖, and its derivatives.

    The ball is the shadow of a sphere of one dimension more, so that φ has no constraint.  Its stationary
    points of second order are those of G on the ball: inside, z ↦ y is a change of coordinates; on the rim
    the last entry is 0, and the curvature of φ along it is the multiplier μ of the constraint.

    With s = ‖y‖, u = y/s and P = I − uuᵀ, and up to the last entry, Dz(y) = (ρ/s)P and
    D²z(y)[η, ξ] = −(ρ/s²)((u·η)Pξ + (u·ξ)Pη + ⟨Pη, ξ⟩u).
    """

    def __init__(self, problem: Problem, norm: float) -> None:
        super().__init__(problem)
        self._norm = norm

    def coordinates(self, z: Array) -> Array:
        u, length = unit_vector(z)
        if length >= self._norm * (1.0 - BOUNDARY_WIDTH):
            return np.append(u * self._norm, 0.0)
        return np.append(z, math.sqrt(self._norm - length) * math.sqrt(self._norm + length))

    def z(self, y: Array) -> Array:
        return unit_vector(y)[0][:-1] * self._norm

    def at(self, y: Array) -> tuple[float, Array]:
        G, gradient = super().at(self.z(y))
        u, s = unit_vector(y)
        return G, self._norm / s * _off(u, np.append(gradient, 0.0))

    def hessian_product(self, y: Array, tangent: Array) -> Array:
        z, (u, s) = self.z(y), unit_vector(y)
        factor = self._norm / s
        along, across = float(u @ tangent), _off(u, tangent)
        g = np.append(super().at(z)[1], 0.0)
        bent = np.append(super().hessian_product(z, factor * across[:-1]), 0.0)
        turned = along * _off(u, g) + float(g @ across) * u + float(g @ u) * across
        return factor * (_off(u, bent) - turned / s)


def _off(u: Array, v: Array) -> Array:
    """The part of v that is orthogonal to a unit vector u."""
    return v - float(u @ v) * u


@lru_cache(maxsize=32)
def _compiled(loss: Loss, d: int, k: int) -> tuple[Any, Any]:
    """(F, ∇F) and (∇²F·tangent,) of some samples, unnormalised, as compiled functions of z, tangent, samples.

    wᵀx + (Vᵀw)ᵀf is the prediction for O(d + k) a sample, where wᵀ(x + Vf) costs O(dk).
    """

    def F(z: Any, x: Any, f: Any, y: Any, weight: Any) -> Any:
        w, V = z[:d], z[d:].reshape(d, k)
        return (weight * loss.value(x @ w + f @ (V.T @ w), y)).sum()

    def product(z: Any, tangent: Any, *part: Any) -> Any:
        return (jax.jvp(lambda z: jax.grad(F)(z, *part), (z,), (tangent,))[1],)

    return jax.jit(jax.value_and_grad(F)), jax.jit(product)
