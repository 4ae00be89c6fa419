"""JAX in float64 on a processor, whatever the caller's flags are: the one place that sets its precision and
its device.

Import `jax` and `jnp` from here, and use them inside `float64_scope`, a context and a decorator:

    @float64_scope()
    def gradient(p):
        return jax.grad(loss)(p)

The scope sets JAX's thread-local flags and gives them back, so that a float32 training loop around it stays
what it is, bit for bit, and where it is.  Outside of a scope `jax` and `jnp` refuse to be touched: nothing is
ever computed in float32 by oversight.  JAX itself is imported at the first use.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from resnet_cert.outcomes import InternalError, RequestError

if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp

__all__ = ["float64_scope", "jax", "jnp"]


_DEVICE: ContextVar[Any] = ContextVar("device", default=None)


@contextmanager
def float64_scope(device: Any = None) -> Iterator[None]:
    """Inside, on this thread, JAX computes in float64, on a processor, and does not stop at a NaN.  Python
    threads that are started inside need a scope of their own.

    Args:
        device: another one of JAX's, to which the scopes inside keep as well.
    Raises:
        RequestError: JAX has devices, and no processor among them.
    """
    import jax as real

    place = device or _DEVICE.get() or _processor(real)
    before = _DEVICE.set(device or _DEVICE.get())
    try:
        with _enable_x64(real), real.debug_nans(False), real.default_device(place):
            yield
    finally:
        _DEVICE.reset(before)


def _processor(real: Any) -> Any:
    try:
        return real.local_devices(backend="cpu")[0]
    except RuntimeError:
        there = real.default_backend()  # raises anew where JAX does not start at all
        raise RequestError(
            f"expected a processor among JAX's devices, got {there} alone: unset JAX_PLATFORMS, or set it to "
            f"{there},cpu",
            "environment",
        ) from None


def _enable_x64(real: Any) -> Any:
    enable = getattr(real, "enable_x64", None)  # JAX 0.8 and later
    if enable is None:
        enable = importlib.import_module("jax.experimental").enable_x64
    return enable(True)


class _Float64Only:
    """A module of JAX that can be used in float64 alone."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        import jax as real

        config: Any = real.config
        if not config.jax_enable_x64:
            raise InternalError(f"{self._name}.{attribute} is used outside of float64_scope")
        return getattr(importlib.import_module(self._name), attribute)


if not TYPE_CHECKING:
    jax, jnp = _Float64Only("jax"), _Float64Only("jax.numpy")
