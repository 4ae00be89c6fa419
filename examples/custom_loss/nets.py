"""Features of one's own: any function of x (n, d) with values (n, k)."""

import jax.numpy as jnp


def waves(x):
    """f(x) = (sin πx_1, cos πx_1), (n, 2)."""
    return jnp.stack([jnp.sin(jnp.pi * x[:, 0]), jnp.cos(jnp.pi * x[:, 0])], axis=1)
