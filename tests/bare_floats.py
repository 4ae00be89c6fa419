"""Where a bound is made of bare floats: read from the source, by what each number is made of.

Numbers flow through a function from where they are made to where they become a bound.  What a name, an
attribute or a call is comes from annotations, what an expression is from its operands:

    constant   whole numbers, lengths and shapes; literals; what is made of these alone.  A whole one is at
               least 1: no product with it underflows
    at least 1 1 + x: the same, but no constant
    plain      a float that is given, and what is chosen from such or scaled up by what is at least 1
    bare       a product, quotient, power or sum of floats, rounded to nearest, that may have underflowed
    proven     `Radius`, `Enclosure`, …: types whose operations round outward
    unknown    what has no annotation here: the type checker refuses a float where it becomes a bound
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

COUNT, WHOLE, GREAT, PLAIN, BARE, UNKNOWN = "constant", "whole", "at least 1", "plain", "bare", "unknown"
CONSTANT, NUMBERS = {COUNT, WHOLE}, {COUNT, WHOLE, GREAT, PLAIN, BARE}
PROVEN = {"Radius", "Enclosure", "Ball", "Balls", "Interval", "Scaled", "Fraction", "arb"}
FLOATS = {"float", "Array", "Any", "np.ndarray"}
BOUNDS = {"Ball": (1, "radius"), "Enclosure.around": (1, "radius"), "Enclosure.up_to": (0, "radius")}
"""Which argument is a `Radius`."""
MAKERS = {"Radius.of", "Radius", "Scaled.of"}
AS_THEY_ARE = {"Radius.size", "Radius.norm", "Radius.row_norms"}
"""Sizes of floats as they are: of a result that has a name, not of one that stands for an exact number."""
CAPS = {"capped", "at_least"}
PRODUCTS = {"multiply", "dot", "vdot", "inner", "outer", "einsum", "vecdot", "matmul", "tensordot", "square"}
PRODUCTS |= {"prod", "cumprod", "power", "pow", "float_power", "divide", "true_divide", "reciprocal", "fma"}
PRODUCTS |= {"exp", "exp2", "expm1", "ldexp", "norm", "hypot"}
"""Functions whose results may have underflowed."""
CHOICES = {"abs", "fabs", "sqrt", "frexp", "max", "min", "maximum", "minimum", "fmax", "fmin", "amax", "amin"}
CHOICES |= {"nanmax", "sum", "fsum", "trace", "mean", "where", "clip", "sorted", "float", "item", "tolist"}
CHOICES |= {"asarray", "array", "copy", "full", "full_like", "repeat", "broadcast_to", "concatenate", "stack"}
CHOICES |= {"reshape", "ravel", "squeeze", "diagonal"}
"""Functions whose results are what their arguments are."""
SEQUENCES = {"tuple", "list", "Sequence", "Iterator", "Iterable"}
OUTWARD = "nextafter"
ERRORS = {"error", "errors", "radius", "radii", "bound", "slack", "spread", "rounding"}


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _is_constant_name(name: str) -> bool:
    return name == "U" or (len(name) > 1 and name.strip("_").isupper())


@dataclass(frozen=True)
class Types:
    """What the annotations of a package say: of attributes and methods by class, of functions by name."""

    attributes: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    functions: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    constants: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def of(trees: Iterable[ast.AST]) -> Types:
        types = Types()
        for node in (part for tree in trees for part in ast.walk(tree)):
            if isinstance(node, ast.ClassDef):
                for part in node.body:
                    if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                        types.attributes[part.target.id][node.name] = kind_of(part.annotation)
                    elif isinstance(part, ast.FunctionDef) and part.returns is not None:
                        types.attributes[part.name][node.name] = kind_of(part.returns)
            elif isinstance(node, ast.Module):
                for part in node.body:
                    if isinstance(part, ast.FunctionDef) and part.returns is not None:
                        types.functions[part.name].add(kind_of(part.returns))
                    elif isinstance(part, ast.Assign) and isinstance(part.value, ast.Call):
                        made = dotted(part.value.func).partition(".")[0]
                        if made in PROVEN:
                            types.constants.update((dotted(target), made) for target in part.targets)
        return types

    def attribute(self, owner: str, name: str) -> str:
        """The kind of owner.name; of all classes that have it, where the owner's is not known."""
        if owner in {"Radius", "Enclosure"} and name in {"upper", "lower", "value"}:
            return PLAIN
        known = self.attributes.get(name, {})
        if owner not in known and name in {"upper", "lower"}:
            return PLAIN
        found = {known[owner]} if owner in known else set(known.values())
        return found.pop() if len(found) == 1 else UNKNOWN

    def returned(self, name: str) -> str:
        kinds = self.functions.get(name, set())
        return next(iter(kinds)) if len(kinds) == 1 else UNKNOWN


def kind_of(annotation: ast.expr | None) -> str:
    """What an annotation says; of a sequence, what is in it."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    if isinstance(annotation, ast.BinOp):
        sides = [annotation.left, annotation.right]
        return _worst([kind_of(side) for side in sides if not _is_filler(side)])
    if isinstance(annotation, ast.Subscript) and dotted(annotation.value) in SEQUENCES:
        inside = annotation.slice
        parts = inside.elts if isinstance(inside, ast.Tuple) else [inside]
        return _worst([kind_of(part) for part in parts if not _is_filler(part)])
    name = "" if annotation is None else dotted(annotation)
    if name in {"int", "Count", "bool", "Powers"}:
        return COUNT
    return PLAIN if name in FLOATS else name or UNKNOWN


def _is_filler(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value in (None, ...)


class Scope:
    """The names of a function, or of a module, and what they are."""

    def __init__(
        self, node: ast.AST, types: Types, outer: Scope | None = None, owner: str | None = None
    ) -> None:
        self.node, self.types, self.outer = node, types, outer
        self.parameters: dict[str, str] = {}
        self.assigned: dict[str, list[ast.expr | None]] = defaultdict(list)
        self.known: dict[str, str] = {}
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            arguments = node.args
            for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
                self.parameters[argument.arg] = kind_of(argument.annotation)
            if owner is not None:
                self.parameters["self"] = owner
        for part in self.parts():
            if isinstance(part, ast.Assign):
                for target in part.targets:
                    self._assign(target, part.value)
            elif isinstance(part, ast.AnnAssign) and kind_of(part.annotation) in PROVEN:
                self.parameters[dotted(part.target)] = kind_of(part.annotation)
            elif isinstance(part, ast.AnnAssign | ast.AugAssign | ast.NamedExpr) and part.value is not None:
                grown = isinstance(part, ast.AugAssign)
                self._assign(
                    part.target, ast.BinOp(part.target, part.op, part.value) if grown else part.value
                )
            elif isinstance(part, ast.For | ast.comprehension):
                self._assign(part.target, part.iter)
            elif isinstance(part, ast.withitem) and part.optional_vars is not None:
                self._assign(part.optional_vars, None)

    def parts(self) -> Iterator[ast.AST]:
        """Everything inside, but for what is inside of an inner function."""
        waiting = list(ast.iter_child_nodes(self.node))
        while waiting:
            part = waiting.pop()
            yield part
            if not isinstance(part, ast.FunctionDef | ast.Lambda):
                waiting.extend(ast.iter_child_nodes(part))

    def _assign(self, target: ast.expr, value: ast.expr | None) -> None:
        if isinstance(target, ast.Name):
            self.assigned[target.id].append(value)
        elif isinstance(target, ast.Tuple | ast.List):
            parts: list[ast.expr | None] = [value] * len(target.elts)
            if isinstance(value, ast.Call) and dotted(value.func) == "zip" and len(value.args) == len(parts):
                parts = list(value.args)
            if isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(parts):
                parts = list(value.elts)
            elif isinstance(value, ast.Attribute) and value.attr == "shape":
                parts = [ast.Constant(1)] * len(parts)
            for part, of in zip(target.elts, parts, strict=True):
                self._assign(part, of)
        elif isinstance(target, ast.Starred):
            self._assign(target.value, None)

    def name(self, name: str) -> str:
        """What a name is: the worst of what is assigned to it."""
        if name in self.known:
            return self.known[name]
        unknown = name not in self.assigned and name not in self.parameters
        if self.outer is None and (_is_constant_name(name) or unknown):
            return self.types.constants.get(name, COUNT if _is_constant_name(name) else PLAIN)
        if self.outer is not None and unknown:
            return self.outer.name(name)
        self.known[name] = self.parameters.get(name, COUNT)  # of itself in x = 2*x
        given = self.parameters.get(name, UNKNOWN)
        kinds = [] if given == UNKNOWN and name in self.assigned else [given]
        kinds += [UNKNOWN if value is None else self.kind(value) for value in self.assigned.get(name, ())]
        self.known[name] = _worst(kinds)
        return self.known[name]

    def is_local(self, name: str) -> bool:
        """A variable, and no module."""
        if name in self.parameters or name in self.assigned:
            return True
        return self.outer is not None and self.outer.is_local(name)

    def kind(self, node: ast.AST) -> str:
        """What an expression is."""
        if isinstance(node, ast.Constant):
            number = isinstance(node.value, int | float) and not isinstance(node.value, bool)
            return WHOLE if number and abs(node.value) >= 1 else COUNT
        if isinstance(node, ast.Name):
            return self.name(node.id)
        if isinstance(node, ast.UnaryOp):
            return self.kind(node.operand)
        if isinstance(node, ast.IfExp):
            return _worst([self.kind(node.body), self.kind(node.orelse)])
        if isinstance(node, ast.NamedExpr):
            return self.kind(node.value)
        if isinstance(node, ast.Attribute):
            return self._attribute(node)
        if isinstance(node, ast.Subscript):
            return (
                COUNT
                if isinstance(node.value, ast.Attribute) and node.value.attr == "shape"
                else self.kind(node.value)
            )
        if isinstance(node, ast.BinOp):
            return self._operation(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.Tuple | ast.List):
            return _worst([self.kind(part) for part in node.elts])
        if isinstance(node, ast.GeneratorExp | ast.ListComp):
            return self.kind(node.elt)
        return COUNT if isinstance(node, ast.Compare | ast.BoolOp) else UNKNOWN

    def _attribute(self, node: ast.Attribute) -> str:
        if dotted(node) in {"math.inf", "np.inf", "math.nan", "np.nan", "math.pi", "np.pi"}:
            return WHOLE
        if _is_constant_name(node.attr):
            return COUNT
        owner = self.kind(node.value)
        if node.attr in {"size", "shape", "ndim"} and owner not in self.types.attributes.get(node.attr, {}):
            return WHOLE
        return self.types.attribute(owner, node.attr)

    def _operation(self, node: ast.BinOp) -> str:
        left, right = self.kind(node.left), self.kind(node.right)
        proven = next((kind for kind in (left, right) if kind in PROVEN), None)
        if proven is not None:
            return proven
        if left in CONSTANT and right in CONSTANT:
            if isinstance(node.op, ast.Add):
                return WHOLE if WHOLE in (left, right) else COUNT
            return WHOLE if left == right == WHOLE and not isinstance(node.op, ast.Sub | ast.Div) else COUNT
        if _has_floor(node):
            return PLAIN
        if BARE in (left, right):
            return BARE
        if UNKNOWN in (left, right):
            return UNKNOWN
        great = {left, right} & {WHOLE, GREAT}
        if isinstance(node.op, ast.Add):
            return GREAT if great else PLAIN if COUNT in (left, right) else BARE
        if isinstance(node.op, ast.Pow) and left == GREAT and right == WHOLE:
            return GREAT
        if isinstance(node.op, ast.Mult) and great:
            return GREAT if {left, right} <= {WHOLE, GREAT} else PLAIN
        return BARE

    def _call(self, node: ast.Call) -> str:
        called = dotted(node.func)
        last = called.rpartition(".")[2]
        kinds = [self.kind(argument) for argument in node.args]
        if last in {"len", "gamma", "int", "range", "eye", "zeros", "ones", "zeros_like", "ones_like"}:
            return COUNT
        if called in PROVEN or (called.partition(".")[0] in PROVEN and last not in {"upper"}):
            return called.partition(".")[0]
        if last == OUTWARD:
            return PLAIN
        if called == last and last in self.types.functions:
            return self.types.returned(last)
        method = isinstance(node.func, ast.Attribute) and dotted(node.func).partition(".")[0] not in {
            "np",
            "math",
        }
        if method:
            owner = self.kind(node.func.value)
            if owner in PROVEN:
                found = self.types.attribute(owner, last)
                return owner if found == UNKNOWN else found
            if last in CHOICES:
                return owner
            if self.is_local(dotted(node.func).partition(".")[0]):
                return self.types.attribute(owner, last)
        if last == "float" and kinds and kinds[0] in PROVEN:
            return PLAIN
        if last in PRODUCTS and not (kinds and all(kind in CONSTANT for kind in kinds)):
            return BARE
        if (
            last in {"max", "maximum"}
            and not set(kinds) <= CONSTANT
            and any(kind in CONSTANT and not _is_zero(of) for kind, of in zip(kinds, node.args, strict=True))
        ):
            return UNKNOWN if UNKNOWN in kinds else PLAIN
        if last in CHOICES:
            return _worst([kind for kind in kinds if kind in PROVEN] or kinds)
        return self.types.returned(last)


def _is_zero(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value in (0, 0.0)


def _worst(kinds: list[str]) -> str:
    for kind in (BARE, UNKNOWN):
        if kind in kinds:
            return kind
    if PLAIN in kinds:
        return UNKNOWN if PROVEN.intersection(kinds) else PLAIN
    proven = [kind for kind in kinds if kind not in CONSTANT]
    if proven:
        return proven[0] if len(set(proven)) == 1 else UNKNOWN
    return WHOLE if kinds and set(kinds) == {WHOLE} else COUNT


def offences(tree: ast.AST, types: Types | None = None) -> Iterator[tuple[int, str]]:
    """(line, what is wrong)."""
    types = Types.of([tree]) if types is None else types
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    others = {
        node.name: {dotted(part.target) for part in node.body if isinstance(part, ast.AnnAssign)}
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    waiting = [Scope(tree, types)]
    while waiting:
        scope = waiting.pop()
        for part in scope.parts():
            if isinstance(part, ast.FunctionDef | ast.Lambda):
                owner = parents[part]
                waiting.append(
                    Scope(part, types, scope, owner.name if isinstance(owner, ast.ClassDef) else None)
                )
            fault = _fault(part, scope, parents)
            named = dotted(part.func) if isinstance(part, ast.Call) else ""
            if fault and (named not in others or others[named] & {"radius", "upper"}):
                yield part.lineno, f"{ast.unparse(part)}: {fault}"


def _fault(node: ast.AST, scope: Scope, parents: dict[ast.AST, ast.AST]) -> str | None:
    if isinstance(node, ast.Attribute) and dotted(node) in MAKERS | BOUNDS.keys():
        call = parents.get(node)
        is_called = isinstance(call, ast.Call) and call.func is node
        return None if is_called else "a bound made under another name"
    if isinstance(node, ast.Compare):
        return _inferred(node, scope, parents)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return _multiplied(node, scope, parents)
    return _called(node, scope, parents) if isinstance(node, ast.Call) else None


def _multiplied(node: ast.BinOp, scope: Scope, parents: dict[ast.AST, ast.AST]) -> str | None:
    """A `Radius` times a float that may have underflowed."""
    for radius, other in ((node.left, node.right), (node.right, node.left)):
        if scope.kind(radius) != "Radius" or scope.kind(other) != BARE:
            continue
        if not (_has_floor(other) or _is_paid(node, scope, parents)):
            return f"{ast.unparse(other)} may underflow before it multiplies a radius"
    return None


def _called(node: ast.Call, scope: Scope, parents: dict[ast.AST, ast.AST]) -> str | None:
    """What becomes a bound by a call."""
    called = dotted(node.func)
    if called in BOUNDS and any(scope.kind(of) in NUMBERS for of in _given(node, *BOUNDS[called])):
        return "the radius is a float"
    if called == "Enclosure":
        for end in (*node.args[1:], *_given(node, len(node.args), "lower", "upper")):
            if scope.kind(end) == BARE:
                return f"{ast.unparse(end)} is not rounded outward"
    is_cap = isinstance(node.func, ast.Attribute) and node.func.attr in CAPS
    if called in MAKERS or is_cap:
        for bound in _given(node, 0, "bound", "upper", "most", "least"):
            if scope.kind(bound) != BARE or _has_floor(bound):
                continue
            if not (_is_paid(node, scope, parents) or _is_raised(bound, node, scope, parents)):
                return f"{ast.unparse(bound)} may underflow before it is a bound"
    if called in AS_THEY_ARE:
        for of in _given(node, 0):
            if isinstance(of, ast.BinOp) and scope.kind(of) == BARE:
                return "the size of a product that may underflow"
    return None


def _given(node: ast.Call, place: int, *names: str) -> list[ast.expr]:
    """The argument at a place, or of a name."""
    named = [keyword.value for keyword in node.keywords if keyword.arg in names]
    return [*node.args[place : place + 1], *named]


def _has_floor(node: ast.AST) -> bool:
    """x + FLOOR, or with more than one of it."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return any(_is_floor(side) or _has_floor(side) for side in (node.left, node.right))
    return _is_floor(node)


def _is_floor(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        sides = (node.left, node.right)
        return any(_is_floor(side) for side in sides) and not any(
            isinstance(side, ast.Constant) and not side.value >= 1 for side in sides
        )
    return dotted(node).rpartition(".")[2] == "FLOOR"


def _is_paid(node: ast.AST, scope: Scope, parents: dict[ast.AST, ast.AST]) -> bool:
    """Times constants at most, it is added to what underflow can take: `Radius.underflow`, or FLOOR."""
    while (above := parents.get(node)) is not None:
        if isinstance(above, ast.BinOp) and isinstance(above.op, ast.Mult):
            other = above.right if above.left is node else above.left
            if scope.kind(other) not in CONSTANT:
                return False
        elif isinstance(above, ast.BinOp) and isinstance(above.op, ast.Add):
            other = above.right if above.left is node else above.left
            if _pays(other, scope):
                return True
        else:
            return False
        node = above
    return False


def _pays(node: ast.AST, scope: Scope) -> bool:
    """A sum with what underflow can take, or with a constant."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mult):
        return any(_pays(side, scope) for side in (node.left, node.right))
    if isinstance(node, ast.Call) and dotted(node.func) == "Radius.of":
        return scope.kind(node.args[0]) in CONSTANT
    if isinstance(node, ast.Call):
        return dotted(node.func) == "Radius.underflow"
    return dotted(node).endswith("underflow")


def _is_raised(bound: ast.AST, node: ast.AST, scope: Scope, parents: dict[ast.AST, ast.AST]) -> bool:
    """A sum of two floats, which does not underflow, times 1 + … for its rounding wherever it is used."""
    if not (isinstance(bound, ast.BinOp) and isinstance(bound.op, ast.Add | ast.Sub)):
        return False
    if BARE in (scope.kind(bound.left), scope.kind(bound.right)):
        return False

    def meets_factor(part: ast.AST) -> bool:
        above = parents.get(part)
        if isinstance(above, ast.BinOp) and isinstance(above.op, ast.Mult):
            other = above.right if above.left is part else above.left
            return isinstance(other, ast.BinOp) and scope.kind(other) == WHOLE
        if isinstance(above, ast.IfExp) or (isinstance(above, ast.BinOp) and isinstance(above.op, ast.Div)):
            return meets_factor(above)
        if isinstance(above, ast.Assign) and isinstance(above.targets[0], ast.Name):
            uses = [
                use for use in scope.parts() if isinstance(use, ast.Name) and use.id == above.targets[0].id
            ]
            return all(meets_factor(use) for use in uses if isinstance(use.ctx, ast.Load))
        return False

    return meets_factor(node)


def _inferred(node: ast.Compare, scope: Scope, parents: dict[ast.AST, ast.AST]) -> str | None:
    """That something is exactly 0, concluded from a bound that came out as 0."""
    sides = [node.left, *node.comparators]
    zero = any(map(_is_zero, sides))
    if not (zero and all(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops)):
        return None
    for side in sides:
        inner = (
            side.args[0]
            if isinstance(side, ast.Call) and dotted(side.func) == "float" and side.args
            else side
        )
        words = set(dotted(inner).replace(".", "_").split("_"))
        of_radius = (
            isinstance(inner, ast.Attribute) and inner.attr == "upper" and scope.kind(inner.value) == "Radius"
        )
        if scope.kind(inner) == "Radius" or of_radius or (words & ERRORS and scope.kind(inner) != "Fraction"):
            return "exactness is carried along, not inferred from an error of 0"
    above = parents.get(node)
    if isinstance(above, ast.keyword) and above.arg == "exact":
        return "exactness is a fact of where a number is made"
    return None
