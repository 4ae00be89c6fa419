"""The text of a spec: YAML 1.2 scalars, places, and every text that is no spec."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from resnet_cert.outcomes import Diagnostic, RequestError
from resnet_cert.spec import source
from resnet_cert.spec.document import with_overrides
from resnet_cert.spec.faults import Fault
from resnet_cert.spec.source import parse, read

pytestmark = pytest.mark.drift


def diagnostics_of(text: str | bytes) -> tuple[Diagnostic, ...]:
    """Every fault of a text, whether it leaves a tree or not."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    try:
        return read(data, "s.yaml").faults
    except RequestError as error:
        return error.diagnostics


def faults_of(text: str | bytes) -> list[str]:
    return [str(diagnostic) for diagnostic in diagnostics_of(text)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E3", 1000.0),
        ("-1.5e+2", -150.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("+7", 7),
        ("-0", 0),
        ("007", 7),
        ("0o17", 15),
        ("0xfF", 255),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("12:30:45", "12:30:45"),
        ("1e", "1e"),
        ("e3", "e3"),
        (".", "."),
        ("0x", "0x"),
        ("-0x1", "-0x1"),
        ("0o8", "0o8"),
        ("infinity", "infinity"),
        ("nan", "nan"),
        ("2026-01-01", "2026-01-01"),
        ("<<", "<<"),
        ("'1'", "1"),
        ('"1e-3"', "1e-3"),
        ("!!str 1", "1"),
        ("!!float 1", 1),
        ("!!int 0o17", 15),
        ("!!null ''", None),
        ("!!bool true", True),
    ],
)
def test_scalars_follow_the_core_schema(text: str, value: object) -> None:
    found = parse(f"key: {text}", "s.yaml")
    assert found.faults == ()
    assert found.value == {"key": value}
    assert type(found.value["key"]) is type(value)


@pytest.mark.parametrize(
    "text", ["1e400", "-1e400", ".inf", "-.Inf", "+.INF", ".nan", ".NaN", "9" * 5000, "!!float .nan"]
)
def test_numbers_that_are_not_finite_are_refused_with_their_place(text: str) -> None:
    (fault,) = faults_of(f"a: 1\nb: [0.5, {text}]")
    assert fault.startswith("s.yaml:2:10: error: b entry 2: expected a finite number, got ")


def test_hexadecimal_numbers_beyond_float64_are_refused() -> None:
    (fault,) = faults_of("a: 0x1" + "0" * 256)
    assert fault.startswith("s.yaml:1:4: error: a: expected a finite number, got 0x1000")


def test_a_long_integer_with_leading_zeros_is_read() -> None:
    assert parse("a: " + "0" * 5000 + "7", "s.yaml").value == {"a": 7}


def test_every_key_and_value_keeps_its_place() -> None:
    text = "# a comment\npoint:\n  w: [0.5,\n      -1.5]\nname: ä\n'long key' :   {V: &v [[1]]}\nagain: *v\n"
    found = parse(text, "s.yaml")
    assert found.value == {
        "point": {"w": [0.5, -1.5]},
        "name": "ä",
        "long key": {"V": [[1]]},
        "again": [[1]],
    }
    places = {
        ("point",): ((2, 1), (3, 3)),
        ("point", "w"): ((3, 3), (3, 6)),
        ("point", "w", 1): ((4, 7), (4, 7)),
        ("name",): ((5, 1), (5, 7)),
        ("long key",): ((6, 1), (6, 16)),
        ("long key", "V"): ((6, 17), (6, 20)),
        ("long key", "V", 0, 0): ((6, 25), (6, 25)),
        ("again",): ((7, 1), (6, 20)),  # the value stands where its anchor is
        ("point", "w", 7): ((4, 7), (3, 6)),  # as far as the path goes
        ("point", "V"): ((2, 1), (3, 3)),
    }
    for path, (key, value) in places.items():
        assert found.place(path) == value, path
        if path not in {("point", "w", 7)}:
            assert found.place(path, key=True) == key, path


NUMBERS = st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=126))


def trees(words: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.recursive(
        NUMBERS | st.booleans() | st.none() | words,
        lambda parts: st.lists(parts, max_size=4) | st.dictionaries(words, parts, max_size=4),
        max_leaves=12,
    )


JSON = trees(WORDS)
# PyYAML writes YAML 1.1, where these words need no quotes; in YAML 1.2, which is read, they are numbers.
NEW_NUMBER = re.compile(r"[-+]?[0-9.]+[eE][-+]?[0-9]+|0o[0-7]+")
OLD_WORDS = WORDS.filter(lambda word: not NEW_NUMBER.fullmatch(word))


@given(tree=JSON, indent=st.sampled_from([None, 0, 2]))
def test_json_is_read_as_what_it_means_with_every_scalar_at_its_place(tree: Any, indent: int | None) -> None:
    text = json.dumps(tree, indent=indent)
    found = parse(text, "s.yaml")
    assert found.faults == ()
    assert found.value == tree

    def check(value: Any, path: tuple[str | int, ...]) -> None:
        line, column = found.place(path)
        here = "\n".join([text.split("\n")[line - 1][column - 1 :], *text.split("\n")[line:]])
        expected = {dict: "{", list: "["}.get(type(value)) or json.dumps(value)
        assert here.startswith(expected)
        for key, part in (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        ):
            check(part, (*path, key))
            if isinstance(key, str):
                line, column = found.place((*path, key), key=True)
                assert text.split("\n")[line - 1][column - 1 :].startswith(json.dumps(key))

    check(tree, ())


@given(tree=trees(OLD_WORDS))
def test_what_yaml_writes_is_read_back(tree: Any) -> None:
    assert parse(yaml.safe_dump(tree), "s.yaml").value == tree


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("a: 1\nb: 2\na: 3", ["3:1: error: duplicate key 'a', first given at line 1, column 1"]),
        ("p: {w: 1, V: 2, 'w': 3}", ["1:17: error: duplicate key 'w', first given at line 1, column 5"]),
        ("1: a\n'1': b", ["2:1: error: duplicate key '1', first given at line 1, column 1"]),
        ("true: a\n~: b", ["2:1: error: expected a word as a key, got nothing"]),
        ("? [a]\n: b", ["1:3: error: expected a word as a key, got a collection"]),
        (
            "? {a: b}\n: {c: .nan}",
            [
                "1:3: error: expected a word as a key, got a collection",
                "2:7: error: c: expected a finite number, got .nan",
            ],
        ),
        (
            "a: !!python/object:os.system [ls]",
            ["1:4: error: expected plain data, got the tag !!python/object:os.system"],
        ),
        (
            "a: !!python/name:os.system",
            ["1:4: error: expected plain data, got the tag !!python/name:os.system"],
        ),
        ("a: !mine {b: 1}", ["1:4: error: expected plain data, got the tag !mine"]),
        ("a: !!binary aGk=", ["1:4: error: expected plain data, got the tag !!binary"]),
        ("a: !!set {b}", ["1:4: error: expected plain data, got the tag !!set"]),
        ("a: !!int 1.5", ["1:4: error: expected plain data, got the tag !!int"]),
        ("a: !!seq {}", ["1:4: error: expected plain data, got the tag !!seq"]),
        ("a: *b", ["1:4: error: unknown alias *b"]),
        ("a: &a [1, *a]", ["1:11: error: alias *a refers to a value that it is a part of"]),
        ("a: 1\n---\nb: 2", ["2:1: error: expected one document, got a second one"]),
        (
            "a: .nan\n---\nb: 2",
            [
                "1:4: error: a: expected a finite number, got .nan",
                "2:1: error: expected one document, got a second one",
            ],
        ),
        ("a: b: c", ["1:5: error: mapping values are not allowed in this context"]),
        (
            "\ta: 1",
            ["1:1: error: found a tab, with which YAML does not indent: write spaces"],
        ),
        (
            "a: [1, 2",
            [
                "2:1: error: while parsing a flow sequence: did not find expected ',' or ']' "
                "(it began at line 1, column 4)"
            ],
        ),
        (
            "a: 1\nb: 'x",
            [
                "2:6: error: while scanning a quoted scalar: found unexpected end of stream "
                "(it began at line 2, column 4)"
            ],
        ),
        ("a: 1\nb: \x07", ["2:4: error: expected text, got the character U+0007 (a binary file?)"]),
    ],
)
def test_a_wrong_text_is_told_with_its_place(text: str, faults: list[str]) -> None:
    assert faults_of(text) == [f"s.yaml:{fault}" for fault in faults]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"a: 1\nb: \xff", "s.yaml:2:4: error: expected UTF-8 text, got the byte 0xff"),
        ("a: ä".encode("latin-1"), "s.yaml:1:4: error: expected UTF-8 text, got the byte 0xe4"),
        ("a: 1".encode("utf-16"), "s.yaml:1:1: error: expected UTF-8 text, got the byte 0xff"),
        (b"\x93NUMPY\x01\x00", "s.yaml:1:1: error: expected UTF-8 text, got the byte 0x93"),
        (b"PK\x03\x04", "s.yaml:1:3: error: expected text, got the character U+0003 (a binary file?)"),
        (b"a: \x00", "s.yaml:1:4: error: expected text, got the character U+0000 (a binary file?)"),
    ],
)
def test_what_is_no_text_is_told_with_its_place(data: bytes, fault: str) -> None:
    assert faults_of(data) == [fault]


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n...\n"])
def test_an_empty_text_is_nothing(text: str) -> None:
    assert parse(text, "s.yaml").value is None


def test_a_byte_order_mark_and_windows_lines_shift_nothing() -> None:
    found = read("\ufeffa: 1\r\nb: [2,\r\n 3]\r\n".encode(), "s.yaml")
    assert found.value == {"a": 1, "b": [2, 3]}
    assert found.place(("a",), key=True) == (1, 1)
    assert found.place(("b", 1)) == (3, 2)


@pytest.mark.parametrize("brackets", ["[", "{a: ", "- "])
def test_deep_nesting_is_refused_at_once(brackets: str) -> None:
    (fault,) = faults_of(brackets * 100)
    assert "expected at most 64 levels of nesting" in fault


@pytest.mark.parametrize("brackets", ["[", "{a: ", "- "])
def test_nesting_without_end_is_one_fault(brackets: str) -> None:
    """In whose words is open: above some depth the YAML library stops by itself."""
    assert len(faults_of(brackets * 100_000)) == 1


def test_an_alias_bomb_is_refused_before_it_unfolds() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    started = time.process_time()
    (fault,) = faults_of("\n".join(lines))
    assert fault.startswith("s.yaml:6:")  # a: 11 values, b: 111, ..., f: over a million
    assert "aliases unfold into more than 1000000 values" in fault
    assert time.process_time() - started < 4.0


def test_aliases_that_repeat_a_little_are_welcome() -> None:
    assert parse("a: &a [1, 2]\nb: [*a, *a]", "s.yaml").value == {"a": [1, 2], "b": [[1, 2], [1, 2]]}


def test_without_libyaml_the_result_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a: {b: [1, .nan, 'x'], b: 2}\nc: !x 1\n", "a: *b", "a: &a [{b: *a}]\n---"]
    fast = [faults_of(text) for text in texts]
    monkeypatch.setattr(source, "_PARSER", yaml.SafeLoader)
    assert [faults_of(text) for text in texts] == fast


PIECES = ["a", "b", ": ", "- ", "\n", "  ", "[", "]", "{", "}", ", ", "'", '"', "&a ", "*a", "!!int ", "!"]
PIECES += ["|", ">", "#", "? ", "1", ".nan", "---\n", "\t", "%", "@"]


@given(st.text() | st.binary() | st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_every_text_is_parsed_or_refused_with_a_place(text: str | bytes) -> None:
    for diagnostic in diagnostics_of(text):
        assert diagnostic.file == "s.yaml"
        assert diagnostic.line
        assert diagnostic.column


def test_many_inline_numbers_are_read_quickly() -> None:
    rows = ",\n".join(str([0.1234567890123456 * i + j for j in range(10)]) for i in range(4_000))
    text = f"x: [{rows}]"
    started = time.process_time()
    assert len(parse(text, "s.yaml").value["x"]) == 4_000
    assert time.process_time() - started < 4.0  # 0.1 s on an idle core


def test_overrides_set_values_and_keep_the_rest() -> None:
    base = parse("a: &d {b: 1, c: 2}\ne: *d\nnothing:", "s.yaml")
    document = with_overrides(base, ["a.b=[1, 2e3]", "new.x.y=true", "nothing.z=~", "a.d={k: v}"])
    assert document.faults == ()
    assert document.value == {
        "a": {"b": [1, 2000.0], "c": 2, "d": {"k": "v"}},
        "e": {"b": 1, "c": 2},
        "nothing": {"z": None},
        "new": {"x": {"y": True}},
    }
    assert base.value["a"] == {"b": 1, "c": 2}


def test_a_fault_is_placed_in_the_text_its_value_came_from() -> None:
    document = with_overrides(parse("domain: {b: 1, r: 2}", "s.yaml"), ["domain.b=[3, 4]", "dom.r=5"])
    places = {
        Fault(("domain", "r"), "m", "domain"): "s.yaml:1:19",
        Fault(("domain", "r"), "m", "domain", at_key=True): "s.yaml:1:16",
        Fault(("domain",), "m", "domain", at_key=True): "s.yaml:1:1",
        Fault(("domain", "b"), "m", "domain"): "--set domain.b=[3, 4]:1:10",
        Fault(("domain", "b"), "m", "domain", at_key=True): "--set domain.b=[3, 4]:1:8",
        Fault(("domain", "b", 1), "m", "domain"): "--set domain.b=[3, 4]:1:14",
        Fault(("dom",), "m", "domain", at_key=True): "--set dom.r=5:1:1",
        Fault(("dom",), "m", "domain"): "--set dom.r=5:1:1",
        Fault(("dom", "r"), "m", "domain"): "--set dom.r=5:1:7",
    }
    found = {fault: document.diagnostic(fault) for fault in places}
    assert {fault: f"{d.file}:{d.line}:{d.column}" for fault, d in found.items()} == places
    named = [d.message for fault, d in found.items() if not fault.at_key]
    assert named == ["domain.r: m", "domain.b: m", "domain.b entry 2: m", "dom: m", "dom.r: m"]


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        ("foo", "--set foo:1:1: error: expected KEY=VALUE, got 'foo'"),
        ("=1", "--set =1:1:1: error: expected KEY=VALUE, got '=1'"),
        ("a..b=1", "--set a..b=1:1:1: error: expected KEY=VALUE, got 'a..b=1'"),
        ("a.b.c=1", "--set a.b.c=1:1:5: error: expected a mapping at a.b to set 'c' in, got 'word'"),
        ("a=.nan", "--set a=.nan:1:3: error: expected a finite number, got .nan"),
        (
            "a={b: 1, b: 2}",
            "--set a={b: 1, b: 2}:1:10: error: duplicate key 'b', first given at line 1, column 4",
        ),
        (
            "a=}",
            "--set a=}:1:3: error: while parsing a block node: did not find expected node content",
        ),
        ("a=\x07", "--set a=\ufffd:1:3: error: expected text, got the character U+0007 (a binary file?)"),
    ],
)
def test_a_wrong_override_is_told_with_its_place(setting: str, fault: str) -> None:
    document = with_overrides(parse("a: {b: word}", "s.yaml"), [setting, "z=1"])
    assert [str(found) for found in document.faults] == [fault]
    assert document.value["z"] == 1
