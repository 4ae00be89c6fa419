"""Losses ℓ(p; y), convex and twice differentiable in p (Shamir 2018, Assumption 1)."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from resnet_cert.enclosure import Array


class Derivatives(NamedTuple):
    """ℓ, ℓ', ℓ'' at n predictions, each (n,), and bounds (n,) of their absolute errors."""

    value: Array
    value_error: Array
    first: Array
    first_error: Array
    second: Array
    second_error: Array


class Loss(Protocol):
    """One loss: ℓ(p; y) in JAX, and what is proven about it.

    name: as in the report.  nonnegative: ℓ ≥ 0 everywhere.
    """

    name: str
    nonnegative: bool

    def value(self, p: Any, y: Any) -> Any:
        """ℓ(p; y) elementwise on JAX arrays of one shape: the definition, for autodiff."""
        ...

    def derivatives(self, p: Array, error: Array, y: Array) -> Derivatives:
        """ℓ, ℓ', ℓ'' at predictions known to lie within `error` (n,) of p (n,), enclosed."""
        ...

    def suprema(self, reach: Array, y: Array) -> tuple[Array, Array, Array] | None:
        """Upper bounds (n,) of |ℓ'|, |ℓ''|, |ℓ'''| over |p| ≤ reach (n,); None where none are known."""
        ...

    def flat_side(self, y: Array) -> Array:
        """(n,): +1 (−1) where ℓ(·; y) stays bounded as p → +∞ (−∞), 0 where it grows on both sides."""
        ...

    def target_fault(self, y: Array) -> tuple[int, str] | None:
        """(index, message) of the first target that this loss does not allow."""
        ...
