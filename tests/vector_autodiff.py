"""F, ∇F and ∇²F for several outputs by JAX, from the loss as it is written."""

from __future__ import annotations

import functools

import numpy as np
from vector_oracle import VectorSample

from resnet_cert.numerics.jax64 import jax, jnp
from resnet_cert.vector.losses import named_loss


def derivatives(sample: VectorSample, W: np.ndarray, V: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """F, ∇F (N,) and ∇²F (N, N) at (W, V), N = d(q + k), the entries of W first, both row by row."""
    omega = np.ones_like(sample.y) if sample.omega is None else sample.omega
    n = len(sample.x)
    weight = np.full(n, 1.0 / n) if sample.probabilities is None else sample.probabilities
    flat = np.concatenate([W.ravel(), V.ravel()])
    found = _compiled(sample.loss, W.shape, V.shape)(flat, sample.x, sample.f, sample.y, omega, weight)
    return float(found[0]), np.asarray(found[1]), np.asarray(found[2])


@functools.cache
def _compiled(loss: str, W_shape: tuple[int, int], V_shape: tuple[int, int]):
    ell = named_loss(loss)
    size = W_shape[0] * W_shape[1]

    def F(flat, x, f, y, omega, weight):
        W, V = flat[:size].reshape(W_shape), flat[size:].reshape(V_shape)
        p = (x + f @ V.T) @ W.T
        return jnp.sum(weight * ell.value(p, y, omega)) / jnp.sum(weight)

    return jax.jit(lambda *a: (F(*a), jax.grad(F)(*a), jax.hessian(F)(*a)))
