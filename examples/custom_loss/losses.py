"""A loss of one's own: any function of (p, y) that JAX can trace, convex and twice differentiable in p."""

import jax.numpy as jnp


def linex(p, y):
    """e^{p−y} − (p − y) − 1: predicting too much costs more than predicting too little (Varian 1975)."""
    return jnp.exp(p - y) - (p - y) - 1.0
