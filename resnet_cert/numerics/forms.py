"""Bounds of a JAX program over wide boxes: interval arithmetic that remembers where its numbers come from.

Plain intervals forget that x − x = 0, and that 1 − e^{−t} is positive where it rounds to 0; so the second
derivative σ(p)(1 − σ(p)) of the logistic loss could not be seen to be ≥ 0 beyond p = 36, however narrow the
box.  Here a number carries, beside its bounds, two ways to write it, over symbols that stand for earlier
numbers of the program:

    x = Σ_s slope_s · s + rest,        x = ± exp(Σ_s slope_s · s + rest).

In a sum equal symbols cancel exactly, and of terms of opposite sign a common exponential is taken out,
e^u − e^v = −e^u expm1(v − u), which has the accuracy of v − u.  Every form holds for every number of the
box, so the bounds that a form gives may be intersected with those that the operation gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, reduce
from typing import Any

import numpy as np

from resnet_cert.numerics import intervals as ia
from resnet_cert.numerics.enclosure import Array
from resnet_cert.numerics.intervals import Interval
from resnet_cert.numerics.jaxpr import (
    CALLS,
    apply,
    called,
    constant,
    is_literal,
    live_equations,
    may_be_undefined,
    of_one_rank,
    trace,
    where_defined,
)

ZERO, ONE = Interval.exact(np.zeros(1)), Interval.exact(np.ones(1))
log = ia.increasing(np.log, root=1.0)
log1p = ia.increasing(np.log1p, root=0.0)
expm1 = ia.increasing(np.expm1, root=0.0, least=-1.0)


def enclose_forms(function: Callable[..., Any], *arguments: Interval) -> Interval:
    """`jaxpr.enclose`, with forms: narrower over wide boxes, and several times as slow."""
    program = trace(function, len(arguments))
    with np.errstate(all="ignore"):
        symbols = [Symbol(Interval(x.lower, x.upper)) for x in arguments]
        numbers = [Number(symbol.bounds, Linear({symbol: ONE}, ZERO)) for symbol in symbols]
        (result,) = _Run().outputs(program.jaxpr, program.consts, numbers)
        bounds = where_defined(result.bounds)
    shape = np.broadcast_shapes(*(argument.lower.shape for argument in arguments))
    return Interval(np.broadcast_to(bounds.lower, shape), np.broadcast_to(bounds.upper, shape))


@dataclass(frozen=True, eq=False)
class Linear:
    """Σ_s slope_s · s + rest, for each sample; a symbol s is any object that has bounds."""

    slopes: Mapping[Any, Interval]
    rest: Interval

    def __add__(self, other: Linear) -> Linear:
        slopes = dict(self.slopes)
        for symbol, slope in other.slopes.items():
            total = slopes[symbol] + slope if symbol in slopes else slope
            slopes[symbol] = total
            if not total.lower.any() and not total.upper.any():
                del slopes[symbol]
        return Linear(slopes, self.rest + other.rest)

    def times(self, factor: Interval) -> Linear:
        return Linear(
            {s: _product(slope, factor) for s, slope in self.slopes.items()}, _product(self.rest, factor)
        )

    def __neg__(self) -> Linear:
        return Linear({s: -slope for s, slope in self.slopes.items()}, -self.rest)

    @cached_property
    def bounds(self) -> Interval:
        return reduce(lambda total, s: total + self.slopes[s] * s.bounds, self.slopes, self.rest)


def _product(x: Interval, y: Interval) -> Interval:
    """x·y, exact where the product of two floats is one: else slopes that cancel would leave a rounding."""
    product, p = x * y, x.lower * y.lower
    remainder = _product_error(x.lower, y.lower, p)
    points = (x.lower == x.upper) & (y.lower == y.upper)
    safe = (np.abs(p) > 2.0**-400) & (np.maximum(np.abs(x.lower), np.abs(y.lower)) < 2.0**400)
    exact = points & safe & (remainder == 0.0)
    return Interval(np.where(exact, p, product.lower), np.where(exact, p, product.upper))


def _product_error(x: Array, y: Array, p: Array) -> Array:
    """x·y − p, exactly, for p = fl(x·y) far from over- and underflow (Dekker 1971)."""
    t = x * 134217729.0  # 2^27 + 1 splits x into two halves of 26 bits
    x_high = t - (t - x)
    t = y * 134217729.0
    y_high = t - (t - y)
    x_low, y_low = x - x_high, y - y_high
    return x_low * y_low - (((p - x_high * y_high) - x_low * y_high) - x_high * y_low)


UNKNOWN = Interval(np.array([-np.inf]), np.array([np.inf]))


@dataclass(frozen=True, eq=False)
class Exponential:
    """sign · e^exponent; for a sample whose sign is nan, nothing is said."""

    sign: Array
    exponent: Linear

    def __mul__(self, other: Exponential) -> Exponential:
        return Exponential(self.sign * other.sign, self.exponent + other.exponent)

    @property
    def negative(self) -> Exponential:
        return Exponential(-self.sign, self.exponent)

    def power(self, n: float) -> Exponential:
        """The n-th power; of a negative number for whole n alone."""
        odd = self.sign if n % 2 == 1 else self.sign * self.sign
        sign = odd if float(n).is_integer() else np.where(self.sign > 0.0, 1.0, np.nan)
        return Exponential(sign, self.exponent.times(Interval.exact(np.array([n]))))

    @cached_property
    def bounds(self) -> Interval:
        return _signed(self.sign, ia.exp(self.exponent.bounds))


@dataclass(frozen=True, eq=False)
class Number:
    """A number of the program: bounds, and its forms if they are more than itself.

    sums: the linear form.  products: makes the exponential form, once it is asked for.  mirror: a number
    without one, of which this is the negative.
    """

    bounds: Interval
    sums: Linear | None = None
    products: Callable[[], Exponential] | None = field(default=None, repr=False)
    mirror: Number | None = field(default=None, repr=False)

    @cached_property
    def linear(self) -> Linear:
        if self.sums is not None:
            return self.sums
        return Linear({}, self.bounds) if _is_point(self.bounds) else Linear({self: ONE}, ZERO)

    @cached_property
    def exponential(self) -> Exponential:
        if self.products is not None:
            return self.products()
        if self.mirror is not None:
            return self.mirror.exponential.negative
        low, high = self.bounds.lower, self.bounds.upper
        if low.size == 1 and low == high and np.isfinite(low) and low:
            return _of_constant(float(low.flat[0]))
        sign = np.where(low > 0.0, 1.0, np.where(high < 0.0, -1.0, np.nan))
        size = log(Interval(np.where(low > 0.0, low, -high), np.where(low > 0.0, high, -low)))
        size = _where(np.isnan(sign), UNKNOWN, size)
        return Exponential(sign, Linear({Symbol(size): ONE}, ZERO))


@dataclass(frozen=True, eq=False)
class Symbol:
    """A number that has no other form."""

    bounds: Interval


@lru_cache
def _logarithm_symbol(value: float) -> Symbol:
    return Symbol(log(Interval.exact(np.array([value]))))


def _of_constant(value: float) -> Exponential:
    """± m 2ⁿ as the exponential of log m + n log 2: powers of two cancel."""
    mantissa, n = math.frexp(abs(value))
    mantissa, n = 2.0 * mantissa, n - 1
    symbols = {_logarithm_symbol(mantissa): ONE} if mantissa != 1.0 else {}
    if n:
        symbols[_logarithm_symbol(2.0)] = Interval.exact(np.array([float(n)]))
    return Exponential(np.array([math.copysign(1.0, value)]), Linear(symbols, ZERO))


def _is_point(x: Interval, value: float | None = None) -> bool:
    return bool((x.lower == x.upper).all() and (value is None or (x.lower == value).all()))


def _both(x: Interval, y: Interval) -> Interval:
    """What is known to lie in both."""
    return Interval(np.maximum(x.lower, y.lower), np.minimum(x.upper, y.upper))


def _where(first: Any, x: Interval, y: Interval) -> Interval:
    return Interval(np.where(first, x.lower, y.lower), np.where(first, x.upper, y.upper))


def _signed(sign: Array, size: Interval) -> Interval:
    """sign · size; unknown where the sign is."""
    return _where(np.isnan(sign), UNKNOWN, _where(sign > 0.0, size, -size))


def _exact(value: float) -> Number:
    return Number(Interval.exact(np.array([value])))


def add(x: Number, y: Number) -> Number:
    for one, other in ((x, y), (y, x)):
        if _is_point(one.bounds, 0.0):
            return other
    bounds, linear = x.bounds + y.bounds, x.linear + y.linear
    if len(linear.slopes) < len(x.linear.slopes) + len(y.linear.slopes):
        bounds = _both(bounds, linear.bounds)
    if x.products is None and y.products is None:
        return Number(bounds, linear)
    whole, tighter = _sum_of_exponentials(x.exponential, y.exponential)
    return Number(_both(bounds, tighter), linear, lambda: whole)


def _sum_of_exponentials(x: Exponential, y: Exponential) -> tuple[Exponential, Interval]:
    """s e^u + t e^v = s e^u (1 + st e^{v−u}), u the larger exponent where that is known; and its bounds where
    the signs differ (where they are equal, those of a plain sum are as good)."""
    forth, back = (y.exponent + -x.exponent).bounds, (x.exponent + -y.exponent).bounds
    first = forth.upper <= 0.0
    gap = _where(first, forth, back)
    sign, leading = np.where(first, x.sign, y.sign), _chosen(first, x.exponent, y.exponent)
    same, decided = x.sign == y.sign, gap.upper < 0.0
    falls = -expm1(gap)
    remains = _both(log(falls), log1p(-ia.exp(gap)))  # the one is good near 0, the other far from it
    rest = _where(same, log1p(ia.exp(gap)), _where(decided, remains, UNKNOWN))
    known = ~np.isnan(x.sign * y.sign)
    whole = Exponential(
        np.where(known & (same | decided), sign, np.nan), leading + Linear({Symbol(rest): ONE}, ZERO)
    )
    tighter = _signed(sign, ia.exp(leading.bounds) * falls)
    return whole, _where(known & ~same, tighter, UNKNOWN)


def _chosen(first: Any, x: Linear, y: Linear) -> Linear:
    """x where `first`, else y."""
    slopes = {s: _where(first, x.slopes.get(s, ZERO), y.slopes.get(s, ZERO)) for s in (*x.slopes, *y.slopes)}
    return Linear(slopes, _where(first, x.rest, y.rest))


def negative(x: Number) -> Number:
    if x.products is None:
        return Number(-x.bounds, -x.linear, mirror=x)
    return Number(-x.bounds, -x.linear, lambda: x.exponential.negative)


def subtract(x: Number, y: Number) -> Number:
    return _exact(0.0) if x is y else add(x, negative(y))


def multiply(x: Number, y: Number) -> Number:
    for one, other in ((x, y), (y, x)):
        if _is_point(one.bounds, 1.0):
            return other
        if _is_point(one.bounds, 0.0):
            return _exact(0.0)
        if _is_point(one.bounds, -1.0):
            return negative(other)
    linear = next((o.linear.times(one.bounds) for one, o in ((x, y), (y, x)) if _is_point(one.bounds)), None)
    product = x.exponential * y.exponential
    return Number(_both(x.bounds * y.bounds, product.bounds), linear, lambda: product)


def divide(x: Number, y: Number) -> Number:
    if x is y:  # where it is 0 the program has no value
        return _exact(1.0)
    if _is_point(y.bounds, 1.0):
        return x
    quotient = x.exponential * y.exponential.power(-1.0)
    return Number(_both(x.bounds / y.bounds, quotient.bounds), None, lambda: quotient)


def power(x: Number, exponent: float, bounds: Interval) -> Number:
    raised = x.exponential.power(exponent)
    return Number(_both(bounds, raised.bounds), None, lambda: raised)


def exponential(x: Number) -> Number:
    return Number(ia.exp(x.bounds), None, lambda: Exponential(np.ones(1), x.linear))


def logarithm(x: Number) -> Number:
    written = x.exponential
    exponent = _chosen(written.sign > 0.0, written.exponent, Linear({}, UNKNOWN))
    linear = exponent if (written.sign > 0.0).all() else None
    return Number(_both(log(x.bounds), exponent.bounds), linear)


def _known(x: Number, bounds: Interval) -> Number:
    """x, known besides to lie in `bounds`."""
    return Number(_both(x.bounds, bounds), x.linear, x.products)


def _half_sum(x: Number, sign: float) -> Number:
    there = exponential(x)
    back = multiply(_exact(sign), exponential(negative(x)))
    return multiply(_exact(0.5), add(there, back))


def logistic(x: Number) -> Number:
    return _known(divide(_exact(1.0), add(_exact(1.0), exponential(negative(x)))), ia.logistic(x.bounds))


def larger(x: Number, y: Number, bounds: Interval) -> Number:
    """max(x, y): the form of the one that is known to be larger."""
    linear = _chosen(x.bounds.lower >= y.bounds.upper, x.linear, y.linear)
    decided = (x.bounds.lower >= y.bounds.upper) | (y.bounds.lower >= x.bounds.upper)
    return Number(bounds, _chosen(decided, linear, Linear({}, bounds)))


def smaller(x: Number, y: Number, bounds: Interval) -> Number:
    flipped = larger(negative(x), negative(y), -bounds)
    return Number(bounds, -flipped.linear)


def absolute(x: Number) -> Number:
    return larger(x, negative(x), ia.absolute(x.bounds))


def select(which: Number, cases: Sequence[Number], bounds: Interval) -> Number:
    if _is_point(which.bounds) and len({*which.bounds.lower.flat}) == 1:
        return cases[int(which.bounds.lower.flat[0])]
    linear = Linear({}, bounds)
    for index, case in enumerate(cases):
        certain = (which.bounds.lower == index) & (which.bounds.upper == index)
        linear = _chosen(certain, case.linear, linear)
    return Number(bounds, linear)


RULES: Mapping[str, Callable[..., Number]] = {
    "neg": negative,
    "add": add,
    "add_any": add,
    "sub": subtract,
    "mul": multiply,
    "div": divide,
    "exp": exponential,
    "log": logarithm,
    "log1p": lambda x: _known(logarithm(add(_exact(1.0), x)), log1p(x.bounds)),
    "expm1": lambda x: _known(subtract(exponential(x), _exact(1.0)), expm1(x.bounds)),
    "logistic": logistic,
    "cosh": lambda x: _known(_half_sum(x, 1.0), ia.cosh(x.bounds)),
    "sinh": lambda x: _known(_half_sum(x, -1.0), ia.increasing(np.sinh, root=0.0)(x.bounds)),
    "abs": absolute,
}


OUTSIDE: Mapping[str, Callable[..., Any]] = {
    "log": lambda x: ~(x.exponential.sign > 0.0),
    "log1p": lambda x: ~(add(_exact(1.0), x).exponential.sign > 0.0),
    "rsqrt": lambda x: ~(x.exponential.sign > 0.0),
    "div": lambda _, y: np.isnan(y.exponential.sign),
}
"""`jaxpr.OUTSIDE`, where forms know more: e^u is positive, though it may round to 0."""


@dataclass
class _Run:
    """One reading of a program; what it computes twice is one number."""

    seen: dict[Any, Sequence[Number]] = field(default_factory=dict)
    constants: dict[float, Number] = field(default_factory=dict)

    def outputs(self, jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Number]) -> list[Number]:
        known = dict(zip(jaxpr.constvars, map(self._constant, consts), strict=True))
        known |= dict(zip(jaxpr.invars, arguments, strict=True))

        def read(variable: Any) -> Number:
            return self._constant(variable.val) if is_literal(variable) else known[variable]

        for equation in live_equations(jaxpr):
            inputs = [read(variable) for variable in equation.invars]
            known |= dict(zip(equation.outvars, self._once(equation, inputs), strict=True))
        return [read(variable) for variable in jaxpr.outvars]

    def _constant(self, value: Any) -> Number:
        if np.ndim(value):
            return Number(constant(value))
        return self.constants.setdefault(float(value), Number(constant(value)))

    def _once(self, equation: Any, inputs: Sequence[Number]) -> Sequence[Number]:
        if equation.primitive.name in CALLS:
            return self.outputs(*called(equation), inputs)
        key = (equation.primitive.name, str(equation.params), *map(id, inputs))
        if key not in self.seen:
            outside = {name: lambda _, f=f: f(*inputs) for name, f in OUTSIDE.items()}
            bounds = of_one_rank(equation, [number.bounds for number in inputs])
            undefined = may_be_undefined(equation, bounds, outside)
            outputs = self._apply(equation, inputs)
            if undefined is not None:
                outputs = [replace(x, bounds=replace(x.bounds, undefined=undefined)) for x in outputs]
            self.seen[key] = outputs
        return self.seen[key]

    def _apply(self, equation: Any, inputs: Sequence[Number]) -> Sequence[Number]:
        name, params = equation.primitive.name, equation.params
        if name in ("stop_gradient", "copy"):
            return inputs
        scalar = all(v.aval.shape == () and v.aval.dtype.name == "float64" for v in equation.outvars)
        if scalar and name in RULES:
            return [RULES[name](*inputs)]
        bounds = apply(equation, [number.bounds for number in inputs])
        if not scalar:
            return [Number(b) for b in bounds]
        x = inputs[0]
        match name:
            case "integer_pow":
                return [power(x, params["y"], bounds[0])]
            case "square":
                return [power(x, 2.0, bounds[0])]
            case "sqrt" | "rsqrt":
                return [power(x, 0.5 if name == "sqrt" else -0.5, bounds[0])]
            case "pow" if _is_point(inputs[1].bounds) and inputs[1].bounds.lower.size == 1:
                return [power(x, float(inputs[1].bounds.lower.flat[0]), bounds[0])]
            case "max":
                return [larger(x, inputs[1], bounds[0])]
            case "min":
                return [smaller(x, inputs[1], bounds[0])]
            case "select_n":
                return [select(x, inputs[1:], bounds[0])]
            case _:
                return [Number(b) for b in bounds]
