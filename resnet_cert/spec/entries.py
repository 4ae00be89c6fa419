"""Arrays of numbers in a spec, and mappings of names: how each is written, with its JSON Schema."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from resnet_cert.outcomes import Verdict
from resnet_cert.spec.values import ends, expected, is_number, is_text, said, several, suffix_pattern

MAX_REPORTED = 20  # faults of one array that are reported one by one


def _vector(value: Any) -> list[float]:
    if not isinstance(value, list) or not value:
        raise expected("a list of numbers")
    if {int, float}.issuperset(map(type, value)):
        return value
    wrong = [((j,), expected("a number"), entry) for j, entry in enumerate(value) if not is_number(entry)]
    raise several(_shortlist(wrong))


def _targets(value: list[Any]) -> list[Any]:
    """Numbers, or rows of them where the first one is a row; or words, which data.labels gives numbers."""
    if value and isinstance(value[0], list):
        return _matrix(value)
    if value and all(isinstance(entry, (str, bool)) for entry in value):
        return value
    return _vector(value)


def _numbers(value: Any) -> list[float]:
    """One number is a list of one."""
    return [value] if is_number(value) else _vector(value)


def _head(value: Any) -> list[list[float]]:
    """The weights of one output: numbers, or one row of them."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        rows = _matrix(value)
        if len(rows) != 1:
            raise said(f"expected d numbers or one row of them, got {len(rows)} rows: write W", "shape")
        return rows
    return [_vector(value)]


def _labels(value: Any) -> dict[str, float]:
    """Words and the numbers that they stand for."""
    what = "a mapping of labels to numbers, such as {no: -1, yes: 1}"
    if not isinstance(value, dict) or not value:
        raise expected(what)
    wrong = [
        ((word,), expected("a number"), number) for word, number in value.items() if not is_number(number)
    ]
    if wrong:
        raise several(_shortlist(wrong))
    return {word: float(number) for word, number in value.items()}


def _compared(value: Any) -> dict[str, str | list[str]]:
    """Names of comparators and the arrays or columns that each is made of."""
    if not isinstance(value, dict) or not value:
        raise expected("a mapping of names to arrays, such as {pixels: x0} or {all: [x, f]}")
    for name, arrays in value.items():
        names = arrays if isinstance(arrays, list) and arrays else [arrays]
        if not all(map(is_text, names)):
            raise several([((name,), expected("the name of an array or a list of names"), arrays)])
    return value


def _verdicts(value: Any) -> list[str]:
    """One verdict or a list of them."""
    names = [verdict.value for verdict in Verdict]
    listed = value if isinstance(value, list) else [value]
    if not listed or any(type(name) is not str or name not in names for name in listed):
        raise expected(f"{', '.join(names)} or a list of them")
    return listed


def _columns(value: Any) -> str | list[str]:
    """The name of a column, or a list of names."""
    what = "the name of a column (numbers in quotes)"
    names = value if isinstance(value, list) and value else [value]
    wrong = [((j,), expected(what), name) for j, name in enumerate(names) if not is_text(name)]
    if wrong and names is not value:
        raise expected(what)
    if wrong:
        raise several(_shortlist(wrong))
    return value


def _matrix(value: Any) -> list[list[float]]:
    if not isinstance(value, list) or not value:
        raise expected("a list of rows of numbers, such as [[1.0, 2.0], [3.0, 4.0]]")
    wrong: list[tuple[tuple[str | int, ...], PydanticCustomError, Any]] = []
    width = next((len(row) for row in value if isinstance(row, list) and row), 1)
    for i, row in enumerate(value):
        if not isinstance(row, list):
            wrong.append(((i,), expected("a row of numbers, such as [1.0]"), row))
        elif len(row) != width:
            count = f"{width} number{'s' if width > 1 else ''}"
            like = "" if i == 0 else " as in the rows before"
            wrong.append(
                ((i,), said(f"row {i + 1}: expected {count}{like}, got {len(row)}", "ragged-rows"), row)
            )
        elif not {int, float}.issuperset(map(type, row)):
            wrong += [
                ((i, j), expected("a number"), entry) for j, entry in enumerate(row) if not is_number(entry)
            ]
    if wrong:
        raise several(_shortlist(wrong))
    return value


def _shortlist(wrong: list[Any]) -> list[Any]:
    """Not every one of many faults of an array: the first ones and how many more there are."""
    if len(wrong) <= MAX_REPORTED:
        return wrong
    loc, _, found = wrong[MAX_REPORTED]
    more = len(wrong) - MAX_REPORTED
    return [
        *wrong[:MAX_REPORTED],
        (loc, said(f"and {more} more such fault{'s' if more > 1 else ''} from here", "wrong-value"), found),
    ]


_NUMBERS = {"type": "array", "minItems": 1, "items": {"type": "number"}}
_ROWS = {"type": "array", "minItems": 1, "items": _NUMBERS}
_WORDS = {"type": "array", "minItems": 1, "items": {"type": ["string", "boolean"]}}
_NPY = {"type": "string", "pattern": suffix_pattern(".npy")}

_TEXT = {"type": "string", "minLength": 1}

_NAMES = {"anyOf": [_TEXT, {"type": "array", "minItems": 1, "items": _TEXT}]}

ColumnOrColumns = Annotated[str | list[str], PlainValidator(_columns), WithJsonSchema(_NAMES)]
Vector = Annotated[list[float], PlainValidator(_vector), WithJsonSchema(_NUMBERS)]
Numbers = Annotated[
    list[float],
    PlainValidator(_numbers),
    WithJsonSchema({"anyOf": [{"type": "number"}, _NUMBERS]}),
]
Head = Annotated[
    list[list[float]],
    PlainValidator(_head),
    WithJsonSchema({"anyOf": [_NUMBERS, {**_ROWS, "maxItems": 1}]}),
]
Labels = Annotated[
    dict[str, float],
    PlainValidator(_labels),
    WithJsonSchema({"type": "object", "minProperties": 1, "additionalProperties": {"type": "number"}}),
]
Compared = Annotated[
    dict[str, str | list[str]],
    PlainValidator(_compared),
    WithJsonSchema({"type": "object", "minProperties": 1, "additionalProperties": _NAMES}),
]
_VERDICT = {"enum": [verdict.value for verdict in Verdict]}
Verdicts = Annotated[
    list[str],
    PlainValidator(_verdicts),
    WithJsonSchema({"anyOf": [_VERDICT, {"type": "array", "minItems": 1, "items": _VERDICT}]}),
]
Matrix = Annotated[list[list[float]], PlainValidator(_matrix), WithJsonSchema(_ROWS)]


def _or_file(check: Callable[[Any], Any], what: str) -> Callable[[Any], Any]:
    def check_either(value: Any) -> Any:
        if isinstance(value, list):
            return check(value)
        if not ends(".npy")(value):
            raise expected(f"{what} or the name of a .npy file")
        return value

    return check_either


VectorOrFile = Annotated[
    list[float] | str,
    PlainValidator(_or_file(_vector, "a list of numbers")),
    WithJsonSchema({"anyOf": [_NUMBERS, _NPY]}),
]
TargetsOrFile = Annotated[
    list[float] | list[list[float]] | str,
    PlainValidator(_or_file(_targets, "a list of numbers")),
    WithJsonSchema({"anyOf": [_NUMBERS, _ROWS, _WORDS, _NPY]}),
]
MatrixOrFile = Annotated[
    list[list[float]] | str,
    PlainValidator(_or_file(_matrix, "a list of rows of numbers")),
    WithJsonSchema({"anyOf": [_ROWS, _NPY]}),
]
