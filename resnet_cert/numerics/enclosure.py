"""Numbers and arrays with proven bounds, rounded outward.

Every scalar operation on an `Enclosure` is carried out exactly, by error-free transformations and far from 1
in rational arithmetic, and rounded outward once: its soundness needs no word about rounding modes.  Arrays
come as a `Ball`: a float64 centre and a `Radius` in the norm that its user names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from resnet_cert.numerics.radius import NOTHING, UNBOUNDED, Array, Radius, U, gamma

QUIET = np.errstate(over="ignore", invalid="ignore", divide="ignore")
"""What overflows becomes infinite or NaN, and an enclosure of it unknown: it is no news on standard error."""


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
        if type(self.value) is type(self.lower) is type(self.upper) is float and (
            self.lower <= self.value <= self.upper
        ):
            return
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
    def around(x: float, radius: Radius) -> Enclosure:
        """[x − radius, x + radius], rounded outward; everything if either is not finite."""
        x, reach = float(x), float(radius)
        if not (math.isfinite(x) and math.isfinite(reach)):
            return Enclosure(x, -math.inf, math.inf)
        return Enclosure(x, _sum(x, -reach, -math.inf), _sum(x, reach, math.inf))

    @staticmethod
    def up_to(radius: Radius) -> Enclosure:
        """[0, radius]: a number ≥ 0 of which an upper bound is known."""
        return Enclosure(float(radius), 0.0, float(radius))

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
            return Enclosure(
                self.value * that.value,
                _product(self.lower, that.lower, -math.inf),
                _product(self.upper, that.upper, math.inf),
            )
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
        if self.lower >= 0.0 and that.lower > 0.0:
            return Enclosure(
                value,
                _ratio(self.lower, that.upper, -math.inf),
                _ratio(self.upper, that.lower, math.inf),
            )
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

    @property
    def magnitude(self) -> float:
        """The largest |x|."""
        return max(-self.lower, self.upper)

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

    Vectors: Euclidean norm.  Matrices: Frobenius norm, where nothing else is said.  The radius is infinite
    where nothing is known.
    """

    center: Array
    radius: Radius

    @staticmethod
    def exact(center: Array) -> Ball:
        """The float64 array itself."""
        return Ball(center, NOTHING)

    @property
    def known(self) -> bool:
        """The radius is finite, and so is the center."""
        return self.radius.known and bool(np.isfinite(self.center).all())

    @property
    def T(self) -> Ball:
        return Ball(self.center.T, self.radius)

    def __getitem__(self, index: Any) -> Ball:
        """Some of the rows and columns: they lie within the same radius."""
        return Ball(self.center[index], self.radius)

    def __neg__(self) -> Ball:
        return Ball(-self.center, self.radius)

    def norm(self) -> Enclosure:
        """‖·‖ of the true vector, Frobenius' of a matrix."""
        center = norm(self.center)
        if self.radius.exact:
            return center
        return (center + Enclosure.around(0.0, self.radius)).intersect(lower=0.0)

    def size(self) -> Radius:
        """An upper bound of ‖·‖, cheaper and a little wider than that of `norm`."""
        return Radius.norm(self.center) + self.radius


def norm(v: Array) -> Enclosure:
    """Euclidean (Frobenius) norm of a float64 array, scaled against overflow and underflow."""
    scale = 1.0
    if not 2.0**-800 < float(np.vdot(v, v)) < 2.0**1000:
        largest = float(np.max(np.abs(v), initial=0.0))
        if largest == 0.0 or not math.isfinite(largest):
            return Enclosure.exact(0.0) if largest == 0.0 else UNKNOWN
        scale = 2.0 ** min(math.frexp(largest)[1], 1023)
        v = v / scale  # exactly
    squares = np.square(v)  # what underflows is worth less than one rounding
    total = float((squares if v.ndim == 1 else squares.reshape(len(v), -1).sum(axis=1)).sum())  # by rows
    error = Radius.of(total) * gamma(sum(v.shape) + 2) + Radius.underflow(2 * v.size)
    length = Enclosure.around(total, error).sqrt()
    return length if scale == 1.0 else length * scale


def compared(v: Array, limit: Fraction) -> int:
    """The sign of ‖v‖ − limit, limit > 0: in rational numbers where rounding leaves it open."""
    length = norm(v)
    if length.lower > limit or length.upper < limit:
        return 1 if length.lower > limit else -1
    square, other = sum(Fraction(x) ** 2 for x in v.ravel().tolist()), limit**2
    return (square > other) - (square < other)


def inner(u: Ball, v: Ball) -> Enclosure:
    """⟨u, v⟩ = Σ u_i v_i for two vectors, or two matrices, each known to within a ball."""
    a, b = u.center, v.center
    u_norm, v_norm = Radius.norm(a), Radius.norm(b)
    error = u.radius * (v_norm + v.radius) + u_norm * v.radius + u_norm * v_norm * gamma(sum(a.shape))
    if not error.exact:
        error = error + Radius.underflow(a.size)
    products = a @ b if a.ndim == 1 else np.einsum("ij,ij->i", a, b).sum()  # by rows: fewer roundings
    return Enclosure.around(float(products), error)


def product(M: Ball | Array, N: Ball | Array) -> Ball:
    """M N for a matrix (m, k) and a matrix (k, l), or a vector (k,); radii in Frobenius norm.

    An entry is a sum of k products: off by γ_k Σ_j |M_ij||N_jl|, of Frobenius norm ≤ γ_k ‖M‖_F ‖N‖_F.
    """
    M, N = _ball(M), _ball(N)
    M_norm, N_norm = Radius.norm(M.center), Radius.norm(N.center)
    error = M.radius * (N_norm + N.radius) + M_norm * N.radius + M_norm * N_norm * gamma(M.center.shape[1])
    if not error.exact:
        error = error + Radius.underflow(M.center.size * (N.center.size // max(len(N.center), 1)))
    return _finite(np.asarray(M.center @ N.center), error)


def added(u: Ball | Array, v: Ball | Array) -> Ball:
    """u + v."""
    u, v = _ball(u), _ball(v)
    return _summed(u, v, u.center + v.center)


def difference(u: Ball | Array, v: Ball | Array) -> Ball:
    """u − v."""
    u, v = _ball(u), _ball(v)
    return _summed(u, v, u.center - v.center)


def scaled(u: Ball | Array, factor: Enclosure | float) -> Ball:
    """factor·u."""
    u, c = _ball(u), _lift(factor)
    if c.lower == c.upper == 0.0:
        return Ball.exact(np.zeros_like(u.center))
    center = c.value * u.center
    spread = Radius.of((c - c.value).magnitude) if c.lower < c.upper else NOTHING
    error = u.radius * Radius.size(c.magnitude) + (Radius.norm(u.center) * spread)
    if c.value not in (1.0, -1.0):
        error = error + Radius.norm(center) * U + _underflow_of(center, u.center)
    return _finite(center, error)


def _underflow_of(result: Array, operand: Array) -> Radius:
    """What entrywise products can lose: nothing where the operand is 0."""
    return Radius.underflow(result.size) if operand.any() else NOTHING


def _summed(u: Ball, v: Ball, center: Array) -> Ball:
    error = u.radius + v.radius
    if u.center.any() and v.center.any():  # a sum with zeros is exact
        error = error + Radius.norm(center) * U
    return _finite(center, error)


def _finite(center: Array, radius: Radius) -> Ball:
    return Ball(center, radius if np.isfinite(center).all() else UNBOUNDED)


def _ball(M: Ball | Array) -> Ball:
    return M if isinstance(M, Ball) else Ball.exact(M)
