"""A loss given by its user as a JAX function, its derivatives enclosed.

What is known of its claim to Assumption 1 (Shamir 2018) is `convexity`'s.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, NoReturn

import numpy as np

from resnet_cert.numerics.jax64 import float64_scope, jax, jnp
from resnet_cert.numerics.jaxpr import Interval, UnsupportedPrimitive, enclose
from resnet_cert.numerics.libm import require_accurate_functions
from resnet_cert.numerics.radius import Array, Radius
from resnet_cert.outcomes import Diagnostic, RequestError
from resnet_cert.problem.losses import Derivatives, FirstDerivatives, Recession, Suprema, quadratic_form

Function = Callable[[Any, Any], Any]


class Enclosed(NamedTuple):
    """Numbers (m,) and bounds (m,) of their errors."""

    value: Array
    error: Radius

    @property
    def interval(self) -> Interval:
        return Interval.around(self.value, self.error.upper)


@dataclass(frozen=True)
class CustomLoss:
    """ℓ(p; y) as JAX code, of one output; it implements `Loss`.

    function: my_loss(p, y) on scalars, or on arrays elementwise.  convex: its user claims that Assumption 1
    holds, for every p, or it is proven.  proven_in_range: it is proven for the predictions of the domain,
    which says nothing of those beyond (`convexity.with_assumption1`).  nonnegative: not known, so False.

    Raises:
        RequestError: the function raises, does not return one float64 for float64 p and y, mixes samples, or
            has no derivatives in forward mode; with the place in the user's file where that is known.
    """

    function: Function
    name: str
    convex: bool = False
    nonnegative: bool = False
    sum_free: bool = False
    proven_in_range: bool = False

    @float64_scope()
    def __post_init__(self) -> None:
        p, y = np.array([-0.75, 0.5, 1.25]), np.ones(3)
        scalar, vector = (jax.ShapeDtypeStruct(shape, jnp.float64) for shape in ((), (3,)))
        self._expect_float64(self._attempt(lambda: jax.eval_shape(self.function, scalar, scalar)), ())
        for derivative in self.derivative_functions[1:]:
            self._attempt(
                lambda derivative=derivative: jax.eval_shape(derivative, scalar, scalar),
                "has no derivative by jax.jvp (a custom_vjp would have to be a custom_jvp):",
            )
        try:
            shaped = jax.eval_shape(self.function, vector, vector)
        except Exception:  # code for scalars alone, which is mapped over the samples, is welcome
            return
        self._expect_float64(shaped, (3,))
        together, apart = (
            self._attempt(lambda: jax.jit(self.function)(jnp.asarray(p), jnp.asarray(y))),
            self._compiled[0](p, y),
        )
        if not np.allclose(together, apart, rtol=1e-9, atol=1e-9, equal_nan=True):
            raise RequestError(
                f"loss {self.name}: expected an elementwise function of (p, y), got one that mixes samples: "
                f"{together} for p = {p}, y = {y} together, {apart} one by one",
                id="code-result",
            )

    @property
    def convex_in_range(self) -> bool:
        return self.convex or self.proven_in_range

    def with_range(self, proven: bool, everywhere: bool = False) -> CustomLoss:
        """The same loss with what is proven on the domain, and for every p: nothing is traced or compiled
        anew."""
        other = copy(self)
        object.__setattr__(other, "proven_in_range", proven)
        object.__setattr__(other, "convex", self.convex or everywhere)
        return other

    def targets(self, y: Array, q: int) -> Array:
        return y.reshape(len(y), -1)

    def value(self, p: Any, y: Any, omega: Any = None) -> Any:
        return self.elementwise(p, y)[..., 0]

    def elementwise(self, p: Any, y: Any) -> Any:
        """ℓ(p; y) on JAX arrays of one shape."""
        return jnp.vectorize(self.function)(p, y)

    @cached_property
    def derivative_functions(self) -> tuple[Function, ...]:
        """ℓ, ℓ', ℓ'', ℓ''' of scalars.  Forward mode: its `where` selects derivatives, tight at a tie."""
        first = _derivative(self.function)
        second = _derivative(first)
        return self.function, first, second, _derivative(second)

    def derivatives(self, p: Array, error: Radius, y: Array, omega: Array | None = None) -> Derivatives:
        """Where ℓ'' jumps inside, both sides are enclosed.  Where nothing is known the error is infinite and
        the value that of JAX."""
        value, first, second = self.enclosed(p[:, 0], np.broadcast_to(error.upper, len(p)), y[:, 0], 2)
        size = Radius.size(second.value) + second.error
        return Derivatives(
            *value, first.value[:, None], first.error, second.value[:, None], second.error, size
        )

    def first_derivatives(
        self, p: Array, error: Radius, y: Array, omega: Array | None = None
    ) -> FirstDerivatives:
        value, first = self.enclosed(p[:, 0], np.broadcast_to(error.upper, len(p)), y[:, 0], 1)
        return FirstDerivatives(*value, first.value[:, None], first.error)

    def quadratic(
        self, p: Array, error: Radius, y: Array, omega: Array | None, delta: Array, delta_error: Radius
    ) -> tuple[Array, Radius]:
        return quadratic_form(self.derivatives(p, error, y), delta, delta_error)

    def enclosed(self, p: Array, error: Array, y: Array, orders: int) -> list[Enclosed]:
        """ℓ and its derivatives up to that order at predictions within `error` (m,) of p (m,)."""
        found: list[Enclosed] = []
        around = Interval.around(p, error)
        for order, function in enumerate(self.derivative_functions[: orders + 1]):
            middle, radius = p, np.full_like(p, np.inf)
            if self.why_unknown() is None:
                middle, radius = _middle_and_radius(enclose(function, around, Interval.exact(y)))
            known = np.isfinite(radius)
            if not known.all():
                with float64_scope():
                    middle = np.where(known, middle, np.asarray(self._compiled[order](p, y)))
            found.append(Enclosed(middle, Radius.of(radius)))
        return found

    @float64_scope()
    def approximate(self, p: Array, y: Array) -> list[Array]:
        """ℓ, ℓ', ℓ'' (m,) by plain JAX, for searches: nothing is proven of them."""
        return [np.asarray(function(p, y)) for function in self._compiled[:3]]

    def why_unknown(self) -> str | None:
        """Why no derivative of this loss is enclosed; None if they are."""
        return self._why_unknown

    @cached_property
    def _why_unknown(self) -> str | None:
        require_accurate_functions()
        one = Interval.exact(np.ones(1))
        try:
            for function in self.derivative_functions:
                enclose(function, one, one)
        except UnsupportedPrimitive as unsupported:
            return f"loss {self.name} uses the JAX operation {unsupported}, which has no proven bounds here"
        return None

    def suprema(self, reach: Radius, y: Array, omega: Array | None = None) -> Suprema | None:
        if self.why_unknown() is not None:
            return None
        from resnet_cert.problem.convexity import suprema

        first, second, third = suprema(self, np.broadcast_to(reach.upper, len(y)), y[:, 0])
        return Suprema(Radius.of(first), Radius.of(second), Radius.of(third))

    suprema_in_units = suprema

    @property
    def concordance(self) -> None:
        """None: no bound of |ℓ‴|/ℓ″ is known."""
        return None

    def recession(self, y: Array) -> Recession | None:
        """Not known: nothing is concluded from how the loss grows."""
        return None

    @float64_scope()
    def target_fault(self, y: Array) -> tuple[int, str] | None:
        """The first target at which ℓ(0; y), the loss of the predictor 0, is not finite."""
        values = np.asarray(self._compiled[0](np.zeros(np.shape(y)), np.asarray(y)))
        for index in np.flatnonzero(~np.isfinite(values))[:1]:
            return int(index), f"loss {self.name} is {values[index]} at p = 0, y = {y[index]:.6g}"
        return None

    @cached_property
    def _compiled(self) -> list[Function]:
        """ℓ, ℓ', ℓ'' (n,) by plain JAX."""
        return [jax.jit(jnp.vectorize(function)) for function in self.derivative_functions]

    def _attempt(self, call: Callable[[], Any], fault: str = "raised") -> Any:
        """What the user's code returns; what it raises becomes the request's fault."""
        try:
            return call()
        except Exception as error:
            self._refuse(error, fault)

    def _refuse(self, error: Exception, fault: str) -> NoReturn:
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [frame for frame in frames if code is not None and frame.filename == code.co_filename]
        first_line = str(error).strip().partition("\n")[0]
        message = f"loss {self.name} {fault} {type(error).__name__}: {first_line}"
        if theirs:
            raise RequestError([Diagnostic(message, theirs[-1].filename, theirs[-1].lineno)]) from error
        raise RequestError(message, id="code-result") from error

    def _expect_float64(self, result: Any, shape: tuple[int, ...]) -> None:
        kind = (getattr(result, "shape", None), str(getattr(result, "dtype", None)))
        if kind != (shape, "float64"):
            raise RequestError(
                f"loss {self.name}: expected float64 of shape {shape} for p and y of shape {shape}, "
                f"got {result if kind[0] is None else f'{kind[1]} of shape {kind[0]}'}",
                id="code-result",
            )


def _derivative(function: Function) -> Function:
    def derivative(p: Any, y: Any) -> Any:
        return jax.jvp(lambda q: function(q, y), (p,), (jnp.ones_like(p),))[1]

    return derivative


def _middle_and_radius(x: Interval) -> tuple[Array, Array]:
    """m and r with [lower, upper] inside [m − r, m + r]; r is infinite where an end is."""
    with np.errstate(all="ignore"):
        middle = 0.5 * x.lower + 0.5 * x.upper
        radius = np.nextafter(np.maximum(x.upper - middle, middle - x.lower), np.inf)
    return middle, np.where(np.isnan(radius), np.inf, radius)
