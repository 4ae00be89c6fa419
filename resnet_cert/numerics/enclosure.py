"""Numbers with proven bounds: rounding outward, and the bound gamma_k of a floating-point sum.

Every scalar operation on an `Enclosure` is carried out exactly, by error-free transformations and far from 1
in rational arithmetic, and rounded outward once: its soundness needs no word about rounding modes.  Arrays
come as a `Ball`: a float64 centre and a radius in the norm that its user names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

U = 2.0**-53  # unit roundoff of float64, round to nearest
TINY = 2.0**-1021  # twice the smallest normal number: more than one underflowing product can lose
INFLATION = 1.0 + 2.0**-30
"""Sums and products of at most 2^21 nonnegative floats are below their exact value by a factor of at most
1/(1 − γ_{2^21}) < 1 + 2^−31; a bound computed in plain float64 and multiplied by INFLATION is a bound."""

QUIET = np.errstate(over="ignore", invalid="ignore", divide="ignore")
"""What overflows becomes infinite or NaN, and an enclosure of it unknown: it is no news on standard error."""


def gamma(k: int) -> float:
    """γ_k = ku/(1 − ku), rounded up: the relative error of k roundings (Higham 2002, Lemma 3.1)."""
    if k >= 2**21:
        raise ValueError(f"expected fewer than 2^21 roundings, got {k}")
    return k * U * INFLATION


def inflate(bound: float) -> float:
    """An upper bound of a nonnegative quantity that was computed with at most 2^21 roundings."""
    return float(bound) * INFLATION + TINY


def upper_product(*factors: Array | float) -> Array:
    """The product of numbers ≥ 0, up to a rounding each: 0 where one of them is, and else at least TINY,
    whatever underflows on the way."""
    total = np.asarray(factors[0], dtype=np.float64)
    for factor in factors[1:]:
        total = np.where((total == 0.0) | (factor == 0.0), 0.0, np.maximum(total * factor, TINY))
    return total


def _outward(exact: Fraction, towards: float) -> float:
    """The nearest float to a rational number on the side of `towards` (±inf)."""
    try:
        rounded = float(exact)
    except OverflowError:
        rounded = math.inf if exact > 0 else -math.inf
        return rounded if rounded == towards else math.nextafter(rounded, -rounded)
    inside = Fraction(rounded) < exact if towards > 0 else Fraction(rounded) > exact
    return math.nextafter(rounded, towards) if inside else rounded


SAFE_LEAST, SAFE_MOST = 2.0**-400, 2.0**400
"""Between these magnitudes the error of an operation is itself computed without error (Dekker 1971)."""


def _is_safe(x: float) -> bool:
    return SAFE_LEAST < x < SAFE_MOST or SAFE_LEAST < -x < SAFE_MOST


def _moved(rounded: float, error: float, towards: float) -> float:
    """rounded + error, for an error of less than one unit in the last place, on the side of `towards`."""
    return math.nextafter(rounded, towards) if (error > 0.0 if towards > 0.0 else error < 0.0) else rounded


def _product_error(x: float, y: float, p: float) -> float:
    """x·y − p, exactly, for p = fl(x·y) and safe x, y (Dekker 1971)."""
    t = x * 134217729.0  # 2^27 + 1 splits x into two halves of 26 bits
    x_high = t - (t - x)
    t = y * 134217729.0
    y_high = t - (t - y)
    x_low, y_low = x - x_high, y - y_high
    return x_low * y_low - (((p - x_high * y_high) - x_low * y_high) - x_high * y_low)


def _sum(a: float, b: float, towards: float) -> float:
    """a + b rounded towards `towards`; the error of a sum is a float (Møller, Knuth)."""
    s = a + b
    t = s - a
    error = (a - (s - t)) + (b - t)
    if math.isfinite(error):
        return _moved(s, error, towards)
    # The sum overflows, or, next to the largest float, its error does.
    return _outward(Fraction(a) + Fraction(b), towards) if math.isfinite(a) and math.isfinite(b) else s


def _product(a: float, b: float, towards: float) -> float:
    """a·b rounded towards `towards`; an infinite end stands for "some finite number": 0 times it is 0."""
    if a == 0.0 or b == 0.0:
        return 0.0
    if _is_safe(a) and _is_safe(b):
        p = a * b
        return _moved(p, _product_error(a, b, p), towards)
    return a * b if math.isinf(a) or math.isinf(b) else _outward(Fraction(a) * Fraction(b), towards)


def _ratio(a: float, b: float, towards: float) -> float:
    """a/b rounded towards `towards`, b ≠ 0; an infinite end as in `_product`."""
    if a == 0.0 or math.isinf(b):
        return 0.0
    if math.isinf(a):
        return math.copysign(a, a * b)
    q = a / b
    if _is_safe(a) and _is_safe(b) and _is_safe(q):
        p = q * b
        remainder = (a - p) - _product_error(q, b, p)  # rounded once, so of the right sign
        return _moved(q, math.copysign(remainder, remainder * b) if remainder else 0.0, towards)
    return _outward(Fraction(a) / Fraction(b), towards)


def _root(x: float, towards: float) -> float:
    if x <= 0.0 or math.isinf(x):
        return max(x, 0.0)
    root = math.sqrt(x)
    if _is_safe(root) and _is_safe(x):
        p = root * root
        return _moved(root, (x - p) - _product_error(root, root, p), towards)
    inside = Fraction(root) ** 2 < Fraction(x) if towards > 0 else Fraction(root) ** 2 > Fraction(x)
    return math.nextafter(root, towards) if inside else root


@dataclass(frozen=True, slots=True)
class Enclosure:
    """A real number known to lie in [lower, upper], with its float64 approximation `value` in between.

    An end that is not known is infinite.  Arithmetic with plain floats takes them as exact.
    """

    value: float
    lower: float
    upper: float

    def __post_init__(self) -> None:
        lower = -math.inf if math.isnan(self.lower) else float(self.lower)
        upper = math.inf if math.isnan(self.upper) else float(self.upper)
        if lower > upper:
            raise ValueError(f"expected lower <= upper, got [{lower!r}, {upper!r}]")
        object.__setattr__(self, "lower", lower)
        object.__setattr__(self, "upper", upper)
        if not math.isnan(self.value):
            object.__setattr__(self, "value", float(min(max(self.value, lower), upper)))

    @staticmethod
    def exact(x: float) -> Enclosure:
        """The float x itself."""
        return Enclosure(x, x, x)

    @staticmethod
    def around(x: float, radius: float) -> Enclosure:
        """[x − radius, x + radius], rounded outward; everything if either is not finite."""
        x, radius = float(x), float(radius)
        if not (math.isfinite(x) and math.isfinite(radius)):
            return Enclosure(x, -math.inf, math.inf)
        return Enclosure(x, _sum(x, -radius, -math.inf), _sum(x, radius, math.inf))

    @property
    def known(self) -> bool:
        """Both ends are finite."""
        return math.isfinite(self.lower) and math.isfinite(self.upper)

    def __add__(self, other: Enclosure | float) -> Enclosure:
        that = _lift(other)
        return Enclosure(
            self.value + that.value,
            _sum(self.lower, that.lower, -math.inf),
            _sum(self.upper, that.upper, math.inf),
        )

    def __neg__(self) -> Enclosure:
        return Enclosure(-self.value, -self.upper, -self.lower)

    def __sub__(self, other: Enclosure | float) -> Enclosure:
        return self + -_lift(other)

    def __rsub__(self, other: Enclosure | float) -> Enclosure:
        return _lift(other) + -self

    def __mul__(self, other: Enclosure | float) -> Enclosure:
        that = _lift(other)
        if self.lower >= 0.0 and that.lower >= 0.0:
            pairs = [(self.lower, that.lower), (self.upper, that.upper)]
        else:
            pairs = [(a, b) for a in (self.lower, self.upper) for b in (that.lower, that.upper)]
        return Enclosure(
            self.value * that.value,
            min(_product(a, b, -math.inf) for a, b in pairs),
            max(_product(a, b, math.inf) for a, b in pairs),
        )

    __radd__ = __add__
    __rmul__ = __mul__

    def __truediv__(self, other: Enclosure | float) -> Enclosure:
        that = _lift(other)
        value = self.value / that.value if that.value != 0.0 else math.nan
        if that.lower <= 0.0 <= that.upper:
            return Enclosure(value, -math.inf, math.inf)
        pairs = [(a, b) for a in (self.lower, self.upper) for b in (that.lower, that.upper)]
        return Enclosure(
            value,
            min(_ratio(a, b, -math.inf) for a, b in pairs),
            max(_ratio(a, b, math.inf) for a, b in pairs),
        )

    def __rtruediv__(self, other: Enclosure | float) -> Enclosure:
        return _lift(other) / self

    def square(self) -> Enclosure:
        """x², which is never negative."""
        magnitude = abs(self)
        return magnitude * magnitude

    def sqrt(self) -> Enclosure:
        """√x for an x that is known to be nonnegative: a negative lower end stands for 0."""
        if self.upper < 0.0:
            raise ValueError(f"expected a nonnegative number, got one below {self.upper!r}")
        return Enclosure(
            math.sqrt(max(self.value, 0.0)),
            _root(self.lower, -math.inf),
            _root(self.upper, math.inf),
        )

    def __abs__(self) -> Enclosure:
        if self.lower >= 0.0:
            return self
        if self.upper <= 0.0:
            return -self
        return Enclosure(abs(self.value), 0.0, max(-self.lower, self.upper))

    def positive_part(self) -> Enclosure:
        """max(0, x)."""
        return maximum(self, Enclosure.exact(0.0))

    def at_most(self, other: Enclosure | float) -> bool:
        """Proven: self ≤ other."""
        return self.upper <= _lift(other).lower

    def above(self, other: Enclosure | float) -> bool:
        """Proven: self > other."""
        return self.lower > _lift(other).upper

    def intersect(self, lower: float = -math.inf, upper: float = math.inf) -> Enclosure:
        """The same number, known besides to lie in [lower, upper]."""
        return Enclosure(self.value, max(self.lower, lower), min(self.upper, upper))


UNKNOWN = Enclosure(math.nan, -math.inf, math.inf)


def _lift(x: Enclosure | float) -> Enclosure:
    return x if isinstance(x, Enclosure) else Enclosure.exact(float(x))


def minimum(*xs: Enclosure) -> Enclosure:
    """min(x1, x2, ...)."""
    return Enclosure(min(x.value for x in xs), min(x.lower for x in xs), min(x.upper for x in xs))


def maximum(*xs: Enclosure) -> Enclosure:
    """max(x1, x2, ...)."""
    return Enclosure(max(x.value for x in xs), max(x.lower for x in xs), max(x.upper for x in xs))


@dataclass(frozen=True)
class Ball:
    """An array known to lie within `radius` of `center`.

    Vectors: Euclidean norm.  Matrices: spectral norm.  The radius is infinite where nothing is known.
    """

    center: Array
    radius: float

    def norm(self) -> Enclosure:
        """‖·‖ of the true vector (for a matrix: its Frobenius norm, of which the radius must be a bound)."""
        center = norm(self.center)
        if not self.radius:
            return center
        return (center + Enclosure(0.0, -self.radius, self.radius)).intersect(lower=0.0)


def norm(v: Array) -> Enclosure:
    """Euclidean (Frobenius) norm of a float64 array, scaled against overflow and underflow."""
    largest = float(np.max(np.abs(v), initial=0.0))
    if largest == 0.0 or not math.isfinite(largest):
        return Enclosure.exact(0.0) if largest == 0.0 else UNKNOWN
    scale = 2.0 ** min(math.frexp(largest)[1], 1023)
    squares = np.square(v / scale)  # exact division; squares that underflow are worth less than one rounding
    total = float(np.sum(squares.reshape(len(v), -1).sum(axis=1)))  # by rows: fewer roundings
    error = gamma(sum(v.shape) + 2) * total + v.size * TINY
    return Enclosure.around(total, error).sqrt() * scale


def frobenius(v: Array) -> float:
    """‖v‖_F, once inflated an upper bound; 0 only for v = 0, and free of overflow and underflow."""
    return float(row_norms(v.reshape(1, -1))[0])


def row_norms(v: Array) -> Array:
    """(m,) Euclidean norms of the rows of v (m, q), once inflated upper bounds.

    Squares that underflow are worth less than 2^-500 of the largest entry (or of 1, if that is larger than
    2^-400), which is added.
    """
    squares = np.einsum("ij,ij->i", v, v)
    if 2.0**-760 < float(np.max(squares, initial=0.0)) < 2.0**1000:  # the largest entry is above 2^-400
        return np.sqrt(squares) + 2.0**-500
    if not v.any():
        return np.zeros(len(v))
    scale = 2.0 ** min(max(math.frexp(float(np.max(np.abs(v))))[1], -1000), 1000)
    scaled = v / scale
    return (np.sqrt(np.einsum("ij,ij->i", scaled, scaled)) + 2.0**-500) * scale


def upper_row_norms(v: Array) -> Array:
    """(m,) upper bounds of the Euclidean norms of the rows of v (m, q)."""
    return row_norms(v) * norm_roundings(v)


def norm_roundings(v: Array) -> float:
    """The factor that makes `row_norms` of v (m, q) upper bounds."""
    return 1.0 + 2.0 * gamma(v.shape[1] + 4)


def inner(u: Ball, v: Ball) -> Enclosure:
    """⟨u, v⟩ for two vectors, each known to within a ball."""
    u_norm, v_norm = frobenius(u.center), frobenius(v.center)
    error = u.radius * (v_norm + v.radius) + u_norm * v.radius + gamma(u.center.size) * u_norm * v_norm
    exact = error == 0.0 and (u_norm == 0.0 or v_norm == 0.0)
    return Enclosure.around(
        float(u.center @ v.center), 0.0 if exact else inflate(error) + u.center.size * TINY
    )


def product(V: Array, v: Ball) -> Ball:
    """V v for an exact matrix V (m, q) and a vector v known to within a ball."""
    V_norm, v_norm = frobenius(V), frobenius(v.center)
    if not V_norm:
        return Ball(np.zeros(len(V)), 0.0)
    error = V_norm * (v.radius + gamma(V.shape[1]) * v_norm)
    return Ball(V @ v.center, inflate(error) + V.size * TINY)


def difference(u: Ball, v: Ball) -> Ball:
    """u − v."""
    center = u.center - v.center
    error = u.radius + v.radius + U * frobenius(center)
    return Ball(center, inflate(error) if error else 0.0)
