"""The oracle against JAX's autodiff: two ways to the same derivatives that share nothing."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from heads import CORNERS, LOSSES, draw
from selections import first


@pytest.mark.parametrize(
    "loss", first(3, ["weighted_squared", "softmax", "poisson", "logistic", "pseudo_huber", "squared"])
)
def test_the_oracle_agrees_with_autodiff(loss: str):
    head = draw(LOSSES.index(loss), CORNERS[0], loss, q=2, d1=2, d2=1, bias=True, l2=0.25)
    truth, problem = head.truth, head.problem()
    with jax.enable_x64(True):
        inputs, f, targets = map(jax.numpy.asarray, (head.inputs, head.f, head.y))
        omega = None if head.omega is None else jax.numpy.asarray(head.omega)
        shape, d1 = head.head.shape, head.x.shape[1]

        def G(z: jax.Array) -> jax.Array:
            W, V = z[: head.head.size].reshape(shape), z[head.head.size :].reshape(head.V.shape)
            h = jax.numpy.concatenate([inputs[:, :d1] + f @ V.T, inputs[:, d1:]], axis=1)
            fit = jax.numpy.mean(problem.loss.value(h @ W.T, targets, omega))
            return fit + head.l2 * jax.numpy.sum(jax.numpy.asarray(head.decayed) * z**2)

        z = jax.numpy.asarray(np.concatenate([head.head.ravel(), head.V.ravel()]))
        gradient, hessian = map(np.asarray, jax.jit(lambda z: (jax.grad(G)(z), jax.hessian(G)(z)))(z))
    np.testing.assert_allclose([float(g) for g in truth.gradient_G], gradient, rtol=1e-11, atol=1e-12)
    ours = [[float(entry) for entry in row] for row in truth.hessian_G]
    np.testing.assert_allclose(ours, hessian, rtol=1e-10, atol=1e-11)
    assert float(truth.lambda_min) == pytest.approx(np.linalg.eigvalsh(hessian)[0], abs=1e-10)
