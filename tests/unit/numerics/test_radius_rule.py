"""No error bound is made of bare floats, in any module of the package: read from the source.

The type checker refuses a float where a `Radius` is expected.  What it cannot see is refused here: a float
expression that multiplies or divides, and so may underflow, before it becomes a `Radius`, unless `FLOOR` is
added inside; and a `Radius` unpacked to floats that bounds something again.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import resnet_cert

PACKAGE = Path(resnet_cert.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "radius.py")
BOUNDS = {"Ball": 1, "Enclosure.around": 1, "Enclosure.up_to": 0}
"""Which argument is a radius."""
MAKERS = ("Radius.of", "Radius")


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


DIMENSIONS = set("mnqkdr") | {"d1", "d2"}
FUNCTIONS = {"gamma", "len", "float", "max", "min", "math.sqrt", "np.sqrt"}


def is_constant(node: ast.expr) -> bool:
    """Made of literals, and of sizes and constants of the module."""
    if isinstance(node, ast.UnaryOp):
        return is_constant(node.operand)
    if isinstance(node, ast.BinOp):
        return is_constant(node.left) and is_constant(node.right)
    if isinstance(node, ast.Call):
        return dotted(node.func) == "len" or (
            dotted(node.func) in FUNCTIONS and all(is_constant(argument) for argument in node.args)
        )
    if isinstance(node, ast.Subscript):
        return dotted(node.value).endswith(".shape")
    if isinstance(node, ast.Attribute):
        return node.attr in {"size", "shape"} | DIMENSIONS or node.attr.isupper()
    if isinstance(node, ast.Name):
        return node.id in DIMENSIONS or (node.id.strip("_").isupper() and len(node.id) > 1) or node.id == "U"
    return isinstance(node, ast.Constant)


def may_underflow(node: ast.AST) -> bool:
    """A product, quotient or power of numbers of which more than one is not a constant."""
    for part in _outside_of_radii(node):
        if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Mult | ast.Div | ast.Pow | ast.MatMult):
            operands = [part.left, part.right]
            if isinstance(part.op, ast.Mult) and any(is_constant(operand) for operand in operands):
                continue
            if isinstance(part.op, ast.Div) and is_constant(part.right):
                continue
            if not is_constant(part):
                return True
    return False


def _outside_of_radii(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of an expression, but for what is a `Radius` of which `.upper` is taken."""
    yield node
    if not (isinstance(node, ast.Attribute) and node.attr == "upper"):
        for child in ast.iter_child_nodes(node):
            yield from _outside_of_radii(child)


def offences(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = dotted(node.func)
        if called in BOUNDS and len(node.args) > BOUNDS[called]:
            radius = node.args[BOUNDS[called]]
            bare = isinstance(radius, ast.Constant) or dotted(getattr(radius, "func", radius)) == "float"
            if bare:
                yield node.lineno, f"{ast.unparse(node)}: the radius is a float"
        if (
            called in MAKERS
            and node.args
            and may_underflow(node.args[0])
            and "FLOOR" not in names(node.args[0])
        ):
            yield node.lineno, f"{ast.unparse(node)}: may underflow before it is a radius"


def test_no_error_bound_is_made_of_floats():
    assert MODULES
    called = {name.partition(".")[0] for name in (*BOUNDS, *MAKERS)}
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {text}"
        for path in MODULES
        if any(name in path.read_text("utf-8") for name in called)
        for line, text in offences(ast.parse(path.read_text("utf-8")))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "Ball(x, 0.0)",
        "Ball(x, float(r))",
        "Enclosure.around(x, 1e-12)",
        "Radius.of(a * b) * c",
        "Radius.of(np.sqrt(a * b))",
        "Radius(a / b)",
        "Radius.of(np.abs(x) ** 2)",
    ],
)
def test_the_rule_sees_what_it_forbids(source):
    assert list(offences(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "Ball(x, r)",
        "Ball(x, r * 2.0)",
        "Radius.of(2.0 * x)",
        "Radius.of(a * b + FLOOR)",
        "Radius.of(gamma(k) * 2)",
    ],
)
def test_the_rule_allows_what_is_sound(source):
    assert not list(offences(ast.parse(source)))
