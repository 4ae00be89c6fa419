"""Proven bounds of a JAX program: its jaxpr, read in interval arithmetic.

The program stands for a real function: its constants are the exact floats that they are, its operations
those of real numbers.  `enclose` bounds that function over a box, so neither XLA's rounding nor its
elementary functions (log1p is off by more than 100 ulp, subnormals are flushed) enter a proof.

A function that has no value somewhere, such as log, leaves that possibility with all that is computed from
its result, and a comparison of that may come out either way.  A comparison that the box does not decide gives
the hull of both branches.  JAX's derivative of a program made of analytic pieces is the true one almost
everywhere (Lee, Yu, Rival, Yang, "On correctness of automatic differentiation for non-differentiable
functions", NeurIPS 2020), whatever it does at ties: so bounds of it over a neighbourhood of p bound every
difference quotient inside, hence the derivative at p.
"""

from __future__ import annotations

import functools
import operator
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from resnet_cert.numerics import intervals as ia
from resnet_cert.numerics.intervals import Interval, Mask, increasing
from resnet_cert.numerics.jax64 import float64_scope, jax, jnp

__all__ = ["Interval", "UnsupportedPrimitive", "enclose"]


class UnsupportedPrimitive(Exception):
    """A JAX primitive that has no interval rule."""


Watch = Callable[[Any, Sequence[Interval]], None]
"""Sees every equation of a program, with its inputs, before it is applied."""


def enclose(function: Callable[..., Any], *arguments: Interval, watch: Watch | None = None) -> Interval:
    """Bounds (n,) of function(x1, x2, ...) over all x1, x2, ... in the given intervals (n,), elementwise.

    Args:
        function: JAX-traceable, from scalars to one scalar.  JAX remembers the program of a function
            object, so that it is traced once.

    Raises:
        UnsupportedPrimitive: the program uses an operation that has no interval rule.
        ValueError: the function does not return one scalar.
    """
    program = trace(function, len(arguments))
    arguments = tuple(Interval(x.lower, x.upper) for x in arguments)  # one object twice is two variables
    with np.errstate(all="ignore"):
        (result,) = _run(program.jaxpr, program.consts, arguments, watch)
        result = where_defined(result)
    shape = np.broadcast_shapes(*(argument.lower.shape for argument in arguments))
    return Interval(np.broadcast_to(result.lower, shape), np.broadcast_to(result.upper, shape))


@functools.lru_cache(maxsize=64)
@float64_scope()
def trace(function: Callable[..., Any], count: int) -> Any:
    program = jax.make_jaxpr(function)(*[jax.ShapeDtypeStruct((), jnp.float64)] * count)
    if [value.shape for value in program.out_avals] != [()]:
        raise ValueError(f"expected one scalar, got {', '.join(map(str, program.out_avals)) or 'nothing'}")
    return program


def _run(
    jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Interval], watch: Watch | None = None
) -> list[Interval]:
    """The outputs of a jaxpr.  A variable of shape s is held as (n, *s), or (1, *s) if all samples agree."""
    known = dict(zip(jaxpr.constvars, map(constant, constants), strict=True))
    known |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(variable: Any) -> Interval:
        return constant(variable.val) if is_literal(variable) else known[variable]

    for equation in live_equations(jaxpr):
        outputs = apply(equation, [read(variable) for variable in equation.invars], watch)
        known |= dict(zip(equation.outvars, outputs, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def constant(value: Any) -> Interval:
    return Interval.exact(np.asarray(value, dtype=np.float64)[np.newaxis])


def is_literal(variable: Any) -> bool:
    """A number in the program: other than a variable it has a value.  (To import JAX's class takes long.)"""
    return hasattr(variable, "val")


def live_equations(jaxpr: Any) -> list[Any]:
    """The equations that the outputs depend on, in order."""
    needed = {variable for variable in jaxpr.outvars if not is_literal(variable)}
    live = []
    for equation in reversed(jaxpr.eqns):
        if needed.intersection(equation.outvars):
            needed.update(variable for variable in equation.invars if not is_literal(variable))
            live.append(equation)
    return live[::-1]


def apply(equation: Any, inputs: list[Interval], watch: Watch | None = None) -> Sequence[Interval]:
    """The outputs of one equation.  Arithmetic must be on float64: integers wrap around, float32 rounds."""
    name, params = equation.primitive.name, equation.params
    inputs = of_one_rank(equation, inputs)
    if watch is not None:
        watch(equation, inputs)
    if name in CALLS:
        return _run(*called(equation), inputs, None if is_smooth_call(equation) else watch)
    if name == "cond":
        branches = [_run(branch.jaxpr, branch.consts, inputs[1:], watch) for branch in params["branches"]]
        chosen = [[inputs[0], *cases] for cases in zip(*branches, strict=True)]
        return [replace(ia.select(*cases), undefined=_undefined_choice(cases)) for cases in chosen]
    outputs, undefined = _applied(equation, inputs), may_be_undefined(equation, inputs)
    return outputs if undefined is None else [replace(output, undefined=undefined) for output in outputs]


def _applied(equation: Any, inputs: list[Interval]) -> Sequence[Interval]:
    """The numbers themselves, where they are defined."""
    name, params = equation.primitive.name, equation.params
    if name == "unstack":
        return _slices(inputs[0], params["axis"])
    types = {variable.aval.dtype.name for variable in equation.outvars}
    if name in REAL and types == {"float64"}:
        return [REAL[name](*inputs, **{key: params[key] for key in ("y", "axes") if key in params})]
    if name in LOGICAL and types == {"bool"}:
        return [_open_where(_is_open(name, inputs), LOGICAL[name](*inputs))]
    if name in ANY and types <= {"float64", "bool", "int32", "int64"}:
        return [ANY[name](params, *inputs)]
    if name == "convert_element_type" and _is_exact(equation.invars[0].aval.dtype.name, *types):
        return inputs
    raise UnsupportedPrimitive(f"{name} to {', '.join(sorted(types))}")


def of_one_rank(equation: Any, inputs: list[Interval]) -> list[Interval]:
    """A number beside an array is a number for each of its entries."""
    ranks = [variable.aval.ndim for variable in equation.invars]
    rank = max(ranks, default=0)
    if equation.primitive.name not in ELEMENTWISE or min(ranks, default=0) == rank:
        return inputs
    return [
        x if r == rank else _reshape(x, (*x.lower.shape[1:], *(1,) * (rank - r)))
        for x, r in zip(inputs, ranks, strict=True)
    ]


def may_be_undefined(
    equation: Any, inputs: Sequence[Interval], outside: Mapping[str, Callable[..., Mask]] | None = None
) -> Mask | None:
    """(n,), or (1,): for which samples an equation's outputs may have no value; None: for none.

    A truth value always has one.

    Args:
        inputs: `of_one_rank`.  outside: what is known better than `OUTSIDE`, of its operations.
    """
    if {variable.aval.dtype.name for variable in equation.outvars} == {"bool"}:
        return None
    name = equation.primitive.name
    if name == "select_n":
        return _undefined_choice(inputs)
    masks = [x.undefined for x in inputs if x.undefined is not None]
    if name in OUTSIDE:
        masks.append(_by_sample(OUTSIDE[name](equation.params, *inputs)))
        if outside is not None and name in outside and masks[-1].any():
            masks[-1] = _by_sample(outside[name](equation.params))
    return _any(masks)


def _undefined_choice(inputs: Sequence[Interval]) -> Mask | None:
    """The same of cases[which]: of those that may be chosen."""
    which, *cases = inputs
    masks = [] if which.undefined is None else [which.undefined]
    for i, case in enumerate(cases):
        if case.undefined is not None:
            masks.append(case.undefined & _by_sample((which.lower <= i) & (i <= which.upper)))
    return _any(masks)


def _by_sample(mask: Mask) -> Mask:
    return np.any(mask.reshape(len(mask) if mask.ndim else 1, -1), axis=1)


def _any(masks: Sequence[Mask]) -> Mask | None:
    found = functools.reduce(np.logical_or, masks) if masks else None
    return found if found is not None and found.any() else None


def where_defined(x: Interval) -> Interval:
    """What is known of a result that has to have a value."""
    if x.undefined is None:
        return x
    mask = x.undefined.reshape(-1, *(1,) * (x.lower.ndim - 1))
    return Interval(np.where(mask, -np.inf, x.lower), np.where(mask, np.inf, x.upper))


def _is_open(name: str, inputs: Sequence[Interval]) -> Any:
    """(n, ...), or False: where a comparison may come out either way, whatever the bounds are.

    What has no value is NaN to a program, and so may be what overflowed.
    """
    shape = (-1, *(1,) * (max(x.lower.ndim for x in inputs) - 1))
    found: Any = False
    for x in inputs:
        if x.undefined is not None:
            found = found | x.undefined.reshape(shape)
    if name in SAME and inputs[0] is inputs[1]:  # how a program asks for NaN
        found = found | inputs[0].unknown
    return found


def _open_where(mask: Any, truth: Interval) -> Interval:
    if not np.any(mask):
        return truth
    return Interval(np.where(mask, 0.0, truth.lower), np.where(mask, 1.0, truth.upper))


def called(equation: Any) -> tuple[Any, Sequence[Any]]:
    """The program that an equation of `CALLS` calls, and its constants."""
    keys = ("jaxpr", "call_jaxpr", "fun_jaxpr")
    program = next(equation.params[key] for key in keys if key in equation.params)
    return getattr(program, "jaxpr", program), getattr(program, "consts", ())


def has_own_rule(equation: Any) -> bool:
    """A call whose derivative is what somebody wrote, not what its program says."""
    return equation.primitive.name.startswith("custom_")


def _of_jax(equation: Any) -> str | None:
    """The name of the function with a rule of its own that an equation calls, if it stands in JAX itself."""
    if equation.primitive.name != "custom_jvp_call":
        return None
    name, _, place = str(equation.params["call_jaxpr"].jaxpr.debug_info.func_src_info).partition(" at ")
    home = Path(str(sys.modules["jax"].__file__)).parent
    return name if place.startswith(f"{home}{os.sep}") else None


def is_smooth_call(equation: Any) -> bool:
    """JAX's own log(e^x + e^y): analytic, though its program goes through a maximum."""
    return _of_jax(equation) == "logaddexp"


def is_jax_call(equation: Any) -> bool:
    """A rule of JAX's own, such as that of relu."""
    return _of_jax(equation) is not None


def undecided(equation: Any, inputs: Sequence[Interval]) -> Any:
    """For which samples an operation of several pieces may meet two of them: a mask, or False."""
    name = equation.primitive.name
    if name in JOINTS:
        x, y = inputs[0], inputs[1] if len(inputs) > 1 else Interval.exact(0.0)
        return (False if x is y else _may_meet(x, y)) | _is_open(name, inputs)
    if name == "is_finite":
        (x,) = inputs
        return ~(np.isfinite(x.lower) & np.isfinite(x.upper)) | _is_open(name, inputs)
    if name == "clamp":
        least, x, greatest = inputs
        return _may_meet(x, least) | _may_meet(x, greatest) | _is_open(name, inputs)
    if name == "argmax":
        first = ia.first_largest(*_slices(inputs[0], equation.params["axes"][0]))
        return first.lower < first.upper
    return name in ("reduce_max", "reduce_min", "argmin", "stop_gradient")


def _may_meet(x: Interval, y: Interval) -> Mask:
    """Two numbers that are not both the same all over the box."""
    fixed = (x.lower == x.upper) & (y.lower == y.upper)
    return (x.lower <= y.upper) & (y.lower <= x.upper) & ~fixed


def _is_exact(source: str, target: str) -> bool:
    return source == target or source == "bool" or target == "float64"


# Axis 0 numbers the samples, so axis a of the program is axis a + 1 here.


def _reshape(x: Interval, shape: Sequence[int]) -> Interval:
    full = (len(x.lower), *shape)
    return Interval(x.lower.reshape(full), x.upper.reshape(full))


def _broadcast(x: Interval, shape: Sequence[int], axes: Sequence[int]) -> Interval:
    sizes = dict(zip(axes, x.lower.shape[1:], strict=True))
    x = _reshape(x, [sizes.get(axis, 1) for axis in range(len(shape))])
    full = (len(x.lower), *shape)
    return Interval(np.broadcast_to(x.lower, full), np.broadcast_to(x.upper, full))


def _slices(x: Interval, axis: int) -> list[Interval]:
    lower, upper = np.moveaxis(x.lower, axis + 1, 0), np.moveaxis(x.upper, axis + 1, 0)
    return [Interval(*ends) for ends in zip(lower, upper, strict=True)]


def _stack(parts: Sequence[Interval], axis: int) -> Interval:
    lower = np.broadcast_arrays(*(part.lower for part in parts))
    upper = np.broadcast_arrays(*(part.upper for part in parts))
    return Interval(np.stack(lower, axis + 1), np.stack(upper, axis + 1))


def _fold(operation: Callable[[Interval, Interval], Interval], x: Interval, axes: Sequence[int]) -> Interval:
    for axis in sorted(axes, reverse=True):
        x = functools.reduce(operation, _slices(x, axis))
    return x


SAME = {"eq", "ne", "le", "ge"}
"""Comparisons that hold, or do not, of a number and itself, unless it is NaN."""
JOINTS = {"max", "min", "abs", "sign", "lt", "gt", "le", "ge", "eq", "ne"}

CALLS = {"jit", "pjit", "closed_call", "core_call", "checkpoint", "remat"}
CALLS |= {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}

REAL: Mapping[str, Callable[..., Interval]] = {
    "neg": operator.neg,
    "add": operator.add,
    "add_any": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "square": lambda x: ia.integer_power(x, 2),
    "sqrt": ia.square_root,
    "rsqrt": lambda x: ia.reciprocal(ia.square_root(x)),
    "pow": ia.power,
    "integer_pow": lambda x, y: ia.integer_power(x, y),
    "reduce_sum": lambda x, axes: _fold(operator.add, x, axes),
    "abs": ia.absolute,
    "sign": lambda x: Interval(np.sign(x.lower), np.sign(x.upper)),
    "exp": ia.exp,
    "exp2": increasing(np.exp2, least=0.0),
    "expm1": increasing(np.expm1, root=0.0, least=-1.0),
    "log": increasing(np.log, root=1.0),
    "log1p": increasing(np.log1p, root=0.0),
    "logistic": ia.logistic,
    "tanh": increasing(np.tanh, root=0.0, least=-1.0, greatest=1.0),
    "sinh": increasing(np.sinh, root=0.0),
    "cosh": ia.cosh,
    "asinh": increasing(np.arcsinh, root=0.0),
    "atan": increasing(np.arctan, root=0.0),
    "cbrt": increasing(np.cbrt, root=0.0),
    "sin": ia.sine,
    "cos": ia.cosine,
    "tan": lambda x: ia.sine(x) / ia.cosine(x),
    "erf": ia.erf,
    "erfc": ia.erfc,
}
OUTSIDE: Mapping[str, Callable[..., Mask]] = {
    "log": lambda _, x: x.lower <= 0.0,
    "log1p": lambda _, x: x.lower <= -1.0,
    "sqrt": lambda _, x: x.lower < 0.0,
    "rsqrt": lambda _, x: x.lower <= 0.0,
    "div": lambda _, x, y: (y.lower <= 0.0) & (y.upper >= 0.0),
    "tan": lambda _, x: ia.cosine(x).lower * ia.cosine(x).upper <= 0.0,
    "pow": lambda _, x, y: ia.outside_of_powers(x, y),
    "integer_pow": lambda params, x: (params["y"] < 0) & (x.lower <= 0.0) & (x.upper >= 0.0),
}
"""Where functions of real numbers may have no value: outside of their domains."""
LOGICAL: Mapping[str, Callable[..., Interval]] = {
    "lt": ia.less,
    "gt": lambda x, y: ia.less(y, x),
    "le": lambda x, y: ia.negation(ia.less(y, x)),
    "ge": lambda x, y: ia.negation(ia.less(x, y)),
    "eq": ia.equal,
    "ne": lambda x, y: ia.negation(ia.equal(x, y)),
    "not": ia.negation,
    "and": ia.minimum,
    "or": ia.maximum,
    "is_finite": ia.is_finite,
}
ANY: Mapping[str, Callable[..., Interval]] = {
    "max": lambda _, x, y: ia.maximum(x, y),
    "min": lambda _, x, y: ia.minimum(x, y),
    "clamp": lambda _, least, x, greatest: ia.minimum(ia.maximum(x, least), greatest),
    "select_n": lambda _, which, *cases: ia.select(which, *cases),
    "argmax": lambda params, x: ia.first_largest(*_slices(x, params["axes"][0])),
    "stop_gradient": lambda _, x: x,
    "copy": lambda _, x: x,
    "empty2": lambda _: constant(0.0),  # fills the branch of a cond that nobody reads: any number will do
    "broadcast_in_dim": lambda params, x: _broadcast(x, params["shape"], params["broadcast_dimensions"]),
    "reshape": lambda params, x: _reshape(x, params["new_sizes"]),
    "squeeze": lambda params, x: Interval(
        np.squeeze(x.lower, tuple(axis + 1 for axis in params["dimensions"])),
        np.squeeze(x.upper, tuple(axis + 1 for axis in params["dimensions"])),
    ),
    "stack": lambda params, *parts: _stack(parts, params["axis"]),
    "concatenate": lambda params, *parts: _stack(
        [piece for part in parts for piece in _slices(part, params["dimension"])], params["dimension"]
    ),
    "reduce_max": lambda params, x: _fold(ia.maximum, x, params["axes"]),
}
ELEMENTWISE = {*LOGICAL, *REAL, "max", "min", "clamp"} - {"reduce_sum"}
