"""The features of a built-in network, evaluated by the verifier: in balls, with a bound for each entry of how
far a float64 evaluation of it can be off.

The layers are a_{l+1} = φ(a_l)·Wᵀ + b.  A float64 evaluation, in any order and with or without fused
operations, meets at most `inputs + 2` roundings an entry, and XLA may take subnormal numbers for 0; of the
activations it is assumed (`ACTIVATIONS`) that XLA evaluates them to so many units in the last place.  The
bound runs along with the layers.  An entry all of whose terms are multiples of one power of two, few enough
of it for 53 bits, has no rounding at all: that is known where it is made, and carried along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from flint import arb, arb_mat

from resnet_cert.certificate.fields import BALLS

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Layers = Sequence[tuple[Array, Array | None]]

U = 2.0**-53
SMALLEST = 2.0**-1022
BLOCK_ENTRIES = 2**18
EXACT_TERMS = 2 * 10**8
"""At most so many terms are looked at for being free of rounding."""


@dataclass(frozen=True)
class Activation:
    """φ in balls, and what is assumed of its float64 evaluation: an error of at most
    ulps·2u·|φ(x)| + (1 + |x|)·2^-1022, for a factor of φ(x) may underflow.

    lipschitz: a bound of |φ'|.  of_input: the error is relative to |x|, where φ(x) comes out by cancellation.
    """

    function: Callable[[arb], arb]
    lipschitz: float
    ulps: int
    of_input: bool = False


def _sigmoid(x: arb) -> arb:
    return 1 / (1 + (-x).exp())


def _softplus(x: arb) -> arb:
    """log(1 + e^x); each branch is an identity for every x."""
    return x + (-x).exp().log1p() if x > 0 else x.exp().log1p()


def _gelu(x: arb) -> arb:
    """x·Φ(x)."""
    return x * (-x / arb(2).sqrt()).erfc() / 2


def _gelu_tanh(x: arb) -> arb:
    return x * (1 + ((2 / arb.pi()).sqrt() * (x + arb(0.044715) * x**3)).tanh()) / 2


def _hull(negative: Callable[[arb], arb], x: arb, slope: arb) -> arb:
    """slope·x for x > 0, negative(x) for x < 0, both where the sign is not known: they meet at 0."""
    if x > 0:
        return slope * x
    return negative(x) if x < 0 else (slope * x).union(negative(x))


def _relu(x: arb) -> arb:
    return x.max(arb(0))


def _leaky_relu(x: arb) -> arb:
    return _hull(lambda t: arb(0.01) * t, x, arb(1))


def _elu(x: arb) -> arb:
    return _hull(lambda t: t.expm1(), x, arb(1))


_SELU_SCALE, _SELU_ALPHA = arb("1.0507009873554804934193349852946"), arb("1.6732632423543772848170429916717")


def _selu(x: arb) -> arb:
    return _hull(lambda t: _SELU_SCALE * _SELU_ALPHA * t.expm1(), x, _SELU_SCALE)


def _mish(x: arb) -> arb:
    return x * _softplus(x).tanh()


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(_relu, 1.0, 0),
    "tanh": Activation(lambda x: x.tanh(), 1.0, 32),
    "sigmoid": Activation(_sigmoid, 0.25, 32),
    "softplus": Activation(_softplus, 1.0, 512),
    "silu": Activation(lambda x: x * _sigmoid(x), 1.1, 32),
    "gelu": Activation(_gelu, 1.13, 2048),
    "gelu_tanh": Activation(_gelu_tanh, 1.13, 64, of_input=True),
    "leaky_relu": Activation(_leaky_relu, 1.0, 4),
    "elu": Activation(_elu, 1.0, 32),
    "selu": Activation(_selu, 1.76, 64),
    "mish": Activation(_mish, 1.09, 1024),
}
"""By name; ulps are at least four times the worst that was found over 10^5 points on jaxlib 0.10."""


def multiplications(n: int, d: int, layers: Layers) -> float:
    """Of an evaluation, for an estimate of its cost."""
    return float(n) * sum(weight.size for weight, _ in layers)


@dataclass(frozen=True)
class Evaluated:
    """f_θ in some of the rows.

    values: (m, k) in balls, the exact ones.  error: (m, k) bounds of what a float64 evaluation may be off.
    exact: (m, k) where every float64 evaluation is the exact value.
    """

    rows: slice
    values: arb_mat
    error: Array
    exact: Bools


def evaluate(layers: Layers, activation: str, x: Array) -> Iterator[Evaluated]:
    """f_θ some rows at a time."""
    widest = max(max(weight.shape) for weight, _ in layers)
    size = max(1, BLOCK_ENTRIES // widest)
    exact_terms = multiplications(len(x), x.shape[1], layers) <= EXACT_TERMS
    for start in range(0, len(x), size):
        rows = slice(start, min(start + size, len(x)))
        values, exact = BALLS.of(x[rows]), (np.abs(x[rows]) >= SMALLEST) | (x[rows] == 0.0)
        error = np.where(exact, 0.0, np.abs(x[rows]))
        floats: Array | None = x[rows]
        for i, (weight, bias) in enumerate(layers):
            if i:
                values, error, exact = _activated(ACTIVATIONS[activation], values, error, exact)
                floats = _floats(values) if exact_terms and exact.any() else None
            values, error, exact = _affine(
                weight, bias, values, error, exact, floats if exact_terms else None
            )
        yield Evaluated(rows, values, error, exact)


def _affine(
    weight: Array, bias: Array | None, values: arb_mat, error: Array, exact: Bools, floats: Array | None
) -> tuple[arb_mat, Array, Bools]:
    """weight·a + bias, and the bound: ‖error‖ through |weight|, the roundings, what may be flushed to 0."""
    m, out, inputs = values.nrows(), *weight.shape
    result = values * BALLS.of(np.ascontiguousarray(weight.T))
    if bias is not None:
        row = [arb(b) for b in bias.tolist()]
        result += arb_mat(m, out, row * m)
    size = np.array([float(abs(v).upper()) for v in values.entries()]).reshape(m, inputs)
    W = np.abs(weight).T
    b = np.zeros(out) if bias is None else np.abs(bias)
    through = _up(error @ W)
    rounding = _up((size + error) @ W + b) * (inputs + 2) * (2 * U)
    flushed = SMALLEST * (W.sum(axis=0) + (size + error).sum(axis=1)[:, None] + inputs + 2.0)
    bound = _up(through + rounding + flushed)
    if floats is None:
        return result, bound, np.zeros(bound.shape, dtype=bool)
    exact = _exact(weight, bias, floats, exact)
    return result, np.where(exact, 0.0, bound), exact


def _exact(weight: Array, bias: Array | None, x: Array, known: Bools) -> Bools:
    """(m, outputs): where no order of the operations meets a rounding, for x that are exact where `known`.

    With v = odd·2^lsb(v), a product is a multiple of 2^(lsb + lsb).  If every term of a sum is a multiple of
    2^L, and the sizes of all sum to at most 2^(L+53), then every product and every partial sum is a float.
    """
    m, out = len(x), len(weight)
    lowest = np.full((m, out), 10**6, dtype=np.int64)
    unknown = (~known).astype(np.float64) @ (weight != 0.0).T.astype(np.float64) > 0.0
    w_lsb, x_lsb = _lsb(weight), _lsb(x)
    for j in range(x.shape[1]):
        np.minimum(lowest, x_lsb[:, j, None] + w_lsb[:, j], out=lowest)
    total = np.abs(x) @ np.abs(weight).T
    if bias is not None:
        np.minimum(lowest, _lsb(bias), out=lowest)
        total = total + np.abs(bias)
    normal = (lowest >= -1021) & (lowest < 10**5)
    fits = total * (1.0 + 2.0**-30) <= np.ldexp(1.0, np.clip(lowest, -1021, 900).astype(np.intc) + 53)
    nothing = total == 0.0
    return ~unknown & ((normal & fits) | (nothing & (lowest >= 10**5)))


def _lsb(v: Array) -> npt.NDArray[np.int64]:
    """The exponent of the lowest bit that is set; beyond every other for 0."""
    mantissa, exponent = np.frexp(v)
    whole = np.abs(mantissa * 2.0**53).astype(np.int64)
    low = (whole & -whole).astype(np.float64)
    return np.where(v == 0.0, 10**6, exponent - 53 + np.round(np.log2(np.maximum(low, 1.0))).astype(np.int64))


def _activated(
    activation: Activation, values: arb_mat, error: Array, exact: Bools
) -> tuple[arb_mat, Array, Bools]:
    m, inputs = values.nrows(), values.ncols()
    results = [activation.function(v) for v in values.entries()]
    moved = _up(activation.lipschitz * error)
    if activation.ulps == 0:
        return arb_mat(m, inputs, results), moved, exact
    x, y = (
        np.array([float(abs(v).upper()) for v in entries]).reshape(m, inputs)
        for entries in (values.entries(), results)
    )
    own = activation.ulps * 2 * U * (x + error if activation.of_input else y + moved)
    return arb_mat(m, inputs, results), _up(moved + own + SMALLEST * (1.0 + x)), np.zeros_like(exact)


def _floats(values: arb_mat) -> Array:
    """The midpoints as floats."""
    return np.array([float(v.mid()) for v in values.entries()]).reshape(values.nrows(), -1)


def _up(bound: Array) -> Array:
    """More than the roundings of any of these sums of nonnegative numbers, in thousands of terms."""
    return bound * (1.0 + 2.0**-30)


def distances(values: arb_mat, stored: Array) -> Array:
    """|stored − value| of each entry, rounded up."""
    entries = zip(values.entries(), stored.ravel().tolist(), strict=True)
    return np.array([float(abs(v - arb(s)).upper()) for v, s in entries]).reshape(stored.shape)
