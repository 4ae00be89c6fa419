"""JAX in float64: the one place that sets its precision.  Import `jax` and `jnp` from here."""

from __future__ import annotations

import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)

__all__ = ["jax", "jnp"]
