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

from resnet_cert.spec.faults import describe, suggestion

EXPECTED = "expected"  # an error whose message says what should be there, and not yet what is
SAID = "said"  # an error whose message is complete
UNKNOWN_KIND = "unknown_kind"  # the same, for the key that decides what the others mean


def expected(what: str) -> PydanticCustomError:
    """The error of a value that is not what it should be."""
    return PydanticCustomError(EXPECTED, "{what}", {"what": what, "id": "wrong-value"})


def said(message: str, id: str, kind: LiteralString = SAID) -> PydanticCustomError:
    return PydanticCustomError(kind, "{what}", {"what": message, "id": id})


def several(errors: list[tuple[tuple[str | int, ...], PydanticCustomError, Any]]) -> ValidationError:
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


def is_text(value: Any) -> bool:
    return type(value) is str and bool(value.strip())


def ends(*suffixes: str) -> Callable[[Any], bool]:
    return lambda value: is_text(value) and value.lower().endswith(suffixes)


def suffix_pattern(suffix: str) -> str:
    """As an ECMA 262 regular expression, in which there are no flags."""
    return "".join(f"[{c}{c.upper()}]" if c.isalpha() else f"\\{c}" for c in suffix) + "$"


def _file(suffixes: tuple[str, ...], others: tuple[str, ...], hint: str) -> Any:
    """The annotation of a file's name: this form of the spec has `suffixes`, other forms have the others."""
    *names, last = sorted({*suffixes, *others})
    what = f"the name of a {', '.join(names)} or {last} file{hint}"
    pattern = "|".join(f"({suffix_pattern(suffix)})" for suffix in suffixes)
    return _value(ends(*suffixes, *others), what, type="string", pattern=pattern)


_NPY_HINT = (
    " (.npy files are given as x: x.npy, y: y.npy, .parquet ones as shards: NAME.parquet; save others as one "
    "of these)"
)
_FUNCTION = r"^.+\.py:[A-Za-z_][A-Za-z0-9_]*$"

Text = Annotated[str, *_value(is_text, "a word", type="string", minLength=1)]
Column = Annotated[
    str, *_value(is_text, "the name of a column (numbers in quotes)", type="string", minLength=1)
]
ArrayName = Annotated[str, *_value(is_text, "the name of an array", type="string", minLength=1)]
ArrayFile = Annotated[
    str,
    *_value(
        ends(".npz", ".safetensors"),
        "the name of a .npz or .safetensors file (from PyTorch: safetensors.torch.save_file)",
        type="string",
        pattern=f"({suffix_pattern('.npz')})|({suffix_pattern('.safetensors')})",
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
