"""The values of a spec: numbers, words, arrays of numbers, names of files, each with its JSON Schema.

Nothing is converted on the way in: "1" and true are no numbers, 1.0 is no count.  A value that does not fit
raises what was expected; what was found is added where the message is made.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, LiteralString

from pydantic import GetJsonSchemaHandler, PlainValidator, ValidationError, WithJsonSchema
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from resnet_cert.outcomes import Verdict
from resnet_cert.spec.faults import describe, suggestion

MAX_REPORTED = 20  # faults of one array that are reported one by one

EXPECTED = "expected"  # an error whose message says what should be there, and not yet what is
SAID = "said"  # an error whose message is complete
UNKNOWN_KIND = "unknown_kind"  # the same, for the key that decides what the others mean


def expected(what: str) -> PydanticCustomError:
    """The error of a value that is not what it should be."""
    return PydanticCustomError(EXPECTED, "{what}", {"what": what, "id": "wrong-value"})


def said(message: str, id: str, kind: LiteralString = SAID) -> PydanticCustomError:
    return PydanticCustomError(kind, "{what}", {"what": message, "id": id})


def _several(errors: list[tuple[tuple[str | int, ...], PydanticCustomError, Any]]) -> ValidationError:
    return ValidationError.from_exception_data(
        "array", [InitErrorDetails(type=error, loc=loc, input=found) for loc, error, found in errors]
    )


def _checked(accepts: Callable[[Any], bool], what: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not accepts(value):
            raise expected(what)
        return value

    return check


def _value(accepts: Callable[[Any], bool], what: str, **schema: Any) -> Any:
    """The annotation of a value that must pass `accepts`."""
    return PlainValidator(_checked(accepts, what)), WithJsonSchema(schema)


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_text(value: Any) -> bool:
    return type(value) is str and bool(value.strip())


def _ends(*suffixes: str) -> Callable[[Any], bool]:
    return lambda value: _is_text(value) and value.lower().endswith(suffixes)


def _suffix_pattern(suffix: str) -> str:
    """As an ECMA 262 regular expression, in which there are no flags."""
    return "".join(f"[{c}{c.upper()}]" if c.isalpha() else f"\\{c}" for c in suffix) + "$"


def _file(suffixes: tuple[str, ...], others: tuple[str, ...], hint: str) -> Any:
    """The annotation of a file's name: this form of the spec has `suffixes`, other forms have the others."""
    *names, last = sorted({*suffixes, *others})
    what = f"the name of a {', '.join(names)} or {last} file{hint}"
    pattern = "|".join(f"({_suffix_pattern(suffix)})" for suffix in suffixes)
    return _value(_ends(*suffixes, *others), what, type="string", pattern=pattern)


_NPY_HINT = " (.npy files are given as x: x.npy, y: y.npy)"
_FUNCTION = r"^.+\.py:[A-Za-z_][A-Za-z0-9_]*$"

Text = Annotated[str, *_value(_is_text, "a word", type="string", minLength=1)]
Column = Annotated[
    str, *_value(_is_text, "the name of a column (numbers in quotes)", type="string", minLength=1)
]
ArrayName = Annotated[str, *_value(_is_text, "the name of an array", type="string", minLength=1)]
ArrayFile = Annotated[
    str,
    *_value(
        _ends(".npz", ".safetensors"),
        "the name of a .npz or .safetensors file (from PyTorch: safetensors.torch.save_file)",
        type="string",
        pattern=f"({_suffix_pattern('.npz')})|({_suffix_pattern('.safetensors')})",
    ),
]
_ARRAYS, _TABLE = (".npz", ".safetensors"), (".csv",)
NpzTable = Annotated[str, *_file(_ARRAYS, _TABLE, _NPY_HINT)]
CsvTable = Annotated[str, *_file(_TABLE, _ARRAYS, _NPY_HINT)]
Function = Annotated[
    str,
    *_value(
        lambda value: type(value) is str and re.match(_FUNCTION, value) is not None,
        "FILE.py:FUNCTION",
        type="string",
        pattern=_FUNCTION,
    ),
]
NonNegative = Annotated[
    float, *_value(lambda value: is_number(value) and value >= 0, "a number ≥ 0", type="number", minimum=0)
]
Positive = Annotated[
    float,
    *_value(lambda value: is_number(value) and value > 0, "a number > 0", type="number", exclusiveMinimum=0),
]
Count = Annotated[
    int, *_value(lambda value: type(value) is int and value >= 1, "an integer ≥ 1", type="integer", minimum=1)
]
Seed = Annotated[
    int, *_value(lambda value: type(value) is int and value >= 0, "an integer ≥ 0", type="integer", minimum=0)
]
Flag = Annotated[bool, *_value(lambda value: type(value) is bool, "true or false", type="boolean")]
Share = Annotated[
    float,
    *_value(
        lambda value: is_number(value) and 0 <= value < 1,
        "a number ≥ 0 and < 1",
        type="number",
        minimum=0,
        exclusiveMaximum=1,
    ),
]
Probability = Annotated[
    float,
    *_value(
        lambda value: is_number(value) and 0 < value < 1,
        "a number > 0 and < 1",
        type="number",
        exclusiveMinimum=0,
        exclusiveMaximum=1,
    ),
]
Convex = Annotated[
    Literal["auto", True],
    *_value(lambda value: value == "auto" or value is True, "auto or true", enum=["auto", True]),
]
DELIMITERS = {"comma": ",", "tab": "\t", "semicolon": ";", "space": " ", "bar": "|"}
_SEPARATING = [*DELIMITERS, *DELIMITERS.values()]
Delimiter = Annotated[
    str,
    *_value(
        lambda value: isinstance(value, str) and value in _SEPARATING,
        f"{', '.join(DELIMITERS)}, or the character itself",
        enum=_SEPARATING,
    ),
]
Version = Annotated[
    int, *_value(lambda value: type(value) is int and value == 1, "1, the only version there is", const=1)
]


def _auto(accepts: Callable[[float], bool], what: str, **schema: Any) -> Any:
    """The annotation of a number that is computed where the spec says `auto`."""
    return (
        PlainValidator(
            _checked(lambda value: value == "auto" or (is_number(value) and accepts(value)), what)
        ),
        WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "number", **schema}]}),
    )


Auto = Literal["auto"]
AutoNonNegative = Annotated[float | Auto, *_auto(lambda value: value >= 0, "a number ≥ 0 or auto", minimum=0)]
AutoPositive = Annotated[
    float | Auto, *_auto(lambda value: value > 0, "a number > 0 or auto", exclusiveMinimum=0)
]


@dataclass(frozen=True)
class OneOf:
    """The annotation of a name from a table of the program, which is looked up when it is needed."""

    what: str
    names: Callable[[], Iterable[str]]
    error: LiteralString = SAID
    only: Callable[[], Iterable[str]] | None = None  # those that this form of the spec is chosen by
    words: Mapping[str, str] = field(
        default_factory=dict, hash=False
    )  # the field's own words, and what is meant here

    def check(self, value: Any) -> str:
        names = list(self.names())
        if not isinstance(value, str):
            wanted = f"expected one of {', '.join(names)}, got {describe(value)}"
            raise said(wanted, "wrong-value", self.error)
        if value not in names:
            meant = self.words.get(re.sub(r"[\s_-]|loss$", "", value.lower().rpartition(".")[2]))
            hint = f"; did you mean {meant}?" if meant else suggestion(value, names)
            raise said(f"unknown {self.what} {describe(value)}{hint}", "unknown-name", self.error)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        names = list((self.only or self.names)())
        return {"const": names[0]} if len(names) == 1 else {"type": "string", "enum": names}


def _vector(value: Any) -> list[float]:
    if not isinstance(value, list) or not value:
        raise expected("a list of numbers")
    if {int, float}.issuperset(map(type, value)):
        return value
    wrong = [((j,), expected("a number"), entry) for j, entry in enumerate(value) if not is_number(entry)]
    raise _several(_shortlist(wrong))


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
        raise _several(_shortlist(wrong))
    return {word: float(number) for word, number in value.items()}


def _compared(value: Any) -> dict[str, str | list[str]]:
    """Names of comparators and the arrays or columns that each is made of."""
    if not isinstance(value, dict) or not value:
        raise expected("a mapping of names to arrays, such as {pixels: x0} or {all: [x, f]}")
    for name, arrays in value.items():
        names = arrays if isinstance(arrays, list) and arrays else [arrays]
        if not all(map(_is_text, names)):
            raise _several([((name,), expected("the name of an array or a list of names"), arrays)])
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
    wrong = [((j,), expected(what), name) for j, name in enumerate(names) if not _is_text(name)]
    if wrong and names is not value:
        raise expected(what)
    if wrong:
        raise _several(_shortlist(wrong))
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
        raise _several(_shortlist(wrong))
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
_NPY = {"type": "string", "pattern": _suffix_pattern(".npy")}

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
        if not _ends(".npy")(value):
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
