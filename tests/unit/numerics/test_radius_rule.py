"""No error bound is made of bare floats, in any module of the package: read from the source.

The type checker refuses a float where a `Radius` is expected, but not what NumPy gives, whose type is `Any`.
What it cannot see is refused here (`bare_floats`): a float that may have underflowed, or was rounded to
nearest, where it becomes a `Radius`, the radius of a ball or the end of an enclosure, or multiplies a
`Radius`; and exactness that is inferred from an error that came out as 0.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from bare_floats import Types, offences

import resnet_cert

PACKAGE = Path(resnet_cert.__file__).parent
TREES = {path: ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
TYPES = Types.of(TREES.values())
MAKER = PACKAGE / "numerics" / "radius.py"
"""Where the operations of `Radius` themselves are."""


def found_in(source: str) -> list[tuple[int, str]]:
    return list(offences(ast.parse(source), TYPES))


def test_no_error_bound_is_made_of_floats():
    assert MAKER in TREES
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {text}"
        for path, tree in TREES.items()
        if path != MAKER
        for line, text in offences(tree, TYPES)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "Ball(x, 0.0)",
        "Ball(x, float(r))",
        "Ball(x, radius=0.0)",
        "Ball(center=x, radius=a * b)",
        "Ball(x, a.upper * b.upper)",
        "Ball(x, gamma(3) * size.upper * n.upper)",
        "Enclosure.around(x, 1e-12)",
        "Enclosure.around(x, 2 * 1e-12)",
        "Enclosure.around(x, a * b)",
        "Enclosure.around(x, radius=1e-12)",
        "Enclosure.up_to(0.0)",
        "Enclosure(v - a * b, v + a * b)",
        "Enclosure(v, v - a * b, v + a * b)",
        "Enclosure(v, v - s, v + s)",
        "Enclosure(v, lower=v - a * b, upper=w)",
    ],
)
def test_the_rule_sees_a_radius_or_an_end_that_is_a_float(source: str):
    assert found_in(source)


@pytest.mark.parametrize(
    "source",
    [
        "Radius.of(a * b) * c",
        "Radius.of(np.sqrt(a * b))",
        "Radius(a / b)",
        "Radius.of(np.abs(x) ** 2)",
        "Radius.of(U * x)",
        "Radius.of(a + b)",
        "Radius.of(bound=a * b)",
        "Radius.of(a * b + FLOOR * 0)",
        "Radius.of(m * V)",
        "Radius.of(k * size)",
        "Radius.size(a * b)",
        "Radius.norm(a * b)",
        "Scaled.of(a * b)",
        "r.capped(a * b)",
        "r.at_least(least=a * b)",
        *(f"Radius.of(np.{name}(a, b))" for name in ("dot", "multiply", "vdot", "matmul", "einsum", "power")),
        *(f"Radius.of(np.{name}(a))" for name in ("square", "prod", "exp", "linalg.norm")),
        "Radius.of(np.ldexp(a, -2000))",
        "Radius.of(float(np.sum(np.square(a))))",
        "R = Radius.of\nR(a * b)",
        "list(map(Radius.of, products))",
    ],
)
def test_the_rule_sees_a_bound_that_may_underflow(source: str):
    assert found_in(source)


@pytest.mark.parametrize(
    "source",
    [
        "s = a * b\nRadius.of(s)",
        "s, t = a * b, c\nRadius.of(s)",
        "s = a * b\nt = 2.0 * s\nBall(x, t)",
        "s = 1.0\ns *= a * b\nRadius.of(s)",
        "for s in [a * b, c]:\n    Radius.of(s)",
        "def f(a: float, b: float):\n    s = a * b\n    return lambda: Radius.of(s)",
        "s = Radius.norm(a)\nt = s.upper * s.upper\nRadius.of(t)",
    ],
)
def test_the_rule_follows_a_number_through_names(source: str):
    assert found_in(source)


@pytest.mark.parametrize(
    "source",
    [
        "def f(r: Radius, a: float, b: float):\n    return r * (a * b)",
        "def f(r: Radius, V: Array):\n    s = gamma(3) * np.linalg.norm(V)\n    return s * r",
        "def f(x: Ball, a: float, b: float):\n    return x.radius * (a / b)",
        "Radius.norm(v) * (a * b)",
        "(Radius.of(a) + Radius.of(b)) * (a * b)",
    ],
)
def test_the_rule_sees_a_product_that_underflows_before_it_multiplies_a_radius(source: str):
    assert found_in(source)


@pytest.mark.parametrize(
    "source",
    [
        "exact = error == 0.0",
        "np.where(error == 0.0, 0.0, error)",
        "Radius(x, exact=float(r) == 0.0)",
        "Radius(x, exact=off == 0.0)",
        "def f(r: Radius):\n    return NOTHING if r.upper == 0 else r",
        "if float(x.radius) != 0.0: pass",
    ],
)
def test_the_rule_sees_exactness_that_is_inferred(source: str):
    assert found_in(source)


@pytest.mark.parametrize(
    "source",
    [
        "def f(r: Radius):\n    return Ball(x, r)",
        "def f(r: Radius):\n    return Ball(x, r * 2.0)",
        "Ball(x, NOTHING)",
        "Radius.of(2.0 * x)",
        "Radius.of((1.0 + x) * y)",
        "Radius.of(a * b + FLOOR)",
        "Radius.of(a * b + 4 * FLOOR)",
        "Radius.of(gamma(k.size) * 2)",
        "n = len(v)\nRadius.of(n * U)",
        "def f(n: int):\n    return Radius.of(n * FLOOR)",
        "m, k = V.shape\nRadius.of(m * gamma(k + 2))",
        "def f(a: Radius, b: Radius):\n    s = a * b\n    return Enclosure.around(x, s * gamma(3))",
        "Enclosure(v, low, high)",
        "Enclosure(v, -math.inf, math.inf)",
        "Radius.of(a) * b",
        "product = a * b\nBall(product, Radius.norm(product) * U + Radius.underflow(product.size))",
        "total = np.sum(np.square(v))\nRadius.of(total) * gamma(3) + Radius.underflow(v.size)",
        "Radius.of(a * b) * gamma(3) + Radius.of(2.0**-900)",
        "s = Radius.of(high - low)\nc * (s * (1.0 + 4 * U))",
        "exact = np.array_equal(a, b)",
        "radius = Fraction(a) - Fraction(b)\nradius == 0",
        "if a.any() and total.lower == total.upper: pass",
    ],
)
def test_the_rule_allows_what_is_sound(source: str):
    assert not found_in(source)
