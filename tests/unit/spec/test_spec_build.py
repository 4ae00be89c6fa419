"""A spec to a problem: files, overrides, code of the user's, and every fault with its place."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spec_cases import BASE, spec_with, wrong_specs

from resnet_cert.numerics.jax64 import float64_scope
from resnet_cert.numerics.radius import Radius
from resnet_cert.outcomes import RequestError
from resnet_cert.problem.problem import MappedRows, Problem
from resnet_cert.spec import load_problem, load_spec
from resnet_cert.spec.sampling import INPUTS, TEACHERS, draw

Faults = Callable[..., list[str]]


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Problem]:
    """The problem of a spec in tmp_path with the given parts."""

    def load(*, allow_code: bool = False, overrides: tuple[str, ...] = (), **parts: str) -> Problem:
        spec = tmp_path / "s.yaml"
        spec.write_text(spec_with(**parts), encoding="utf-8")
        return load_problem(spec, allow_code=allow_code, overrides=overrides)

    return load


@pytest.fixture
def faults(load: Callable[..., Problem], tmp_path: Path) -> Faults:
    """LINE:COLUMN id of every fault of a spec in tmp_path with the given parts."""

    def faults(**parts: Any) -> list[str]:
        with pytest.raises(RequestError) as raised:
            load(**parts)
        assert {d.file for d in raised.value.diagnostics} == {str(tmp_path / "s.yaml")}
        return [f"{d.line}:{d.column} {d.id}" for d in raised.value.diagnostics]

    return faults


@pytest.fixture
def told(load: Callable[..., Problem]) -> Faults:
    """The message of every fault, where it is the words that matter."""

    def told(**parts: Any) -> list[str]:
        with pytest.raises(RequestError) as raised:
            load(**parts)
        return [d.message for d in raised.value.diagnostics]

    return told


def test_a_spec_becomes_its_problem(tmp_path: Path) -> None:
    spec = tmp_path / "example.yaml"
    spec.write_text(spec_with(domain="{b: 2}", lipschitz="{mu1: 3, mu2: auto}"), encoding="utf-8")
    loaded = load_spec(spec)
    problem = loaded.problem
    assert loaded.path == str(spec)
    assert loaded.sha256 == hashlib.sha256(spec.read_bytes()).hexdigest()
    np.testing.assert_array_equal(problem.distribution.x[:], [[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(problem.distribution.y[:], [1.0, -1.0])
    assert problem.distribution.probabilities is None
    assert (problem.n, problem.d, problem.k, problem.name) == (2, 2, 2, "example")
    assert problem.loss.name == "squared"
    assert problem.epsilon == 0.1
    assert (problem.domain.b, problem.domain.r) == (2.0, None)
    assert (problem.lipschitz.mu0, problem.lipschitz.mu1, problem.lipschitz.mu2) == (None, 3.0, None)
    (chunk,) = problem.chunks()
    np.testing.assert_array_equal(chunk.f, chunk.x)
    assert all(
        array.dtype == np.float64 for array in (chunk.x, chunk.y, chunk.f, problem.point.W, problem.point.V)
    )


def test_the_name_of_the_spec_wins_over_its_file(load: Callable[..., Problem]) -> None:
    assert load(name="my problem").name == "my problem"


def test_a_scaled_loss_is_scaled(load: Callable[..., Problem]) -> None:
    p, y, exact = np.array([[0.5]]), np.array([[2.0]]), Radius.of(np.zeros(1))
    plain = load().loss.derivatives(p, exact, y)
    scaled = load(loss="{kind: squared, scale: 2.0}").loss.derivatives(p, exact, y)
    assert (scaled.value[0], scaled.first[0, 0]) == (2 * plain.value[0], 2 * plain.first[0, 0])


# files


def test_csv_columns_are_found_by_name(load: Callable[..., Problem], tmp_path: Path) -> None:
    text = '\ufeffid, body mass ,y,"a,b",p\nu_1,1,2,3e0,0.25\n\n"u""2",-1.5, +.5 ,"4",0.75\n'
    (tmp_path / "d.csv").write_text(text, encoding="utf-8")
    problem = load(data='{file: d.csv, x: ["a,b", body mass], y: y, probabilities: p}')
    np.testing.assert_array_equal(problem.distribution.x[:], [[3.0, 1.0], [4.0, -1.5]])
    np.testing.assert_array_equal(problem.distribution.y[:], [2.0, 0.5])
    assert problem.distribution.probabilities is not None
    np.testing.assert_array_equal(problem.distribution.probabilities[:], [0.25, 0.75])


def test_csv_columns_may_be_the_features(load: Callable[..., Problem], tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("a,b,y,f\n1,2,3,4\n5,6,7,8\n", encoding="utf-8")
    problem = load(
        data="{file: d.csv, x: [a, b], y: y, f: [f]}",
        network="{kind: given}",
        point="{w: [0, 0], V: [[0], [0]]}",
    )
    (chunk,) = problem.chunks()
    np.testing.assert_array_equal(chunk.f, [[4.0], [8.0]])


CSV = "{file: d.csv, x: [a, b], y: c}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ["2:14 csv-header"]),
        ("a,b,c\n", ["2:14 csv-header"]),
        ("a;b;c\n1;2;3\n", ["2:14 csv-delimiter"]),
        ("a\tb\tc\n1\t2\t3\n", ["2:14 csv-delimiter"]),
        ("a,B,c\n1,2,3\n", ["2:28 column-missing"]),
        ("one,two\n1,2\n", ["2:25 column-missing", "2:28 column-missing", "2:35 column-missing"]),
        ("a,b,c,b\n1,2,3,4\n", ["2:28 column-repeated"]),
        (
            "a,b,c\n1,x,3\n\n1,2\n1,,nan\n1,1_0,1e400\n1,2,3,4\n",
            ["2:14 csv-row"] * 2 + ["2:28 csv-number"] * 3 + ["2:35 csv-number"] * 2,
        ),
        ('a,b,c\n1,"2,3\n', ["2:14 csv-syntax"]),
        ("a,b,c\n1,2,\udcff\n", ["2:14 not-utf8"]),
        ("a,b,c\n1,low,0\n2,high,1\n", ["2:28 csv-text"]),
        ("a,b,c\n1,2,no\n2,3,yes\n", ["2:35 labels"]),
        ("a,b,c\n1,2,no\n2,,yes\n3,4,\n5,6,no\n", ["2:28 csv-number", "2:35 labels", "2:35 csv-number"]),
        ("a,b,c\n1,2%,1\n2,3.5%,1\n", ["2:28 csv-number"]),
        ("a,b,c\n1,2020-01-01,1\n2,2020-01-02,1\n", ["2:28 csv-number"]),
        ("a,b,c\n1,1%,1\n2,2020-01-02,1\n", ["2:28 csv-number"] * 2),
        ("a,B,c\n1,2,no\n2,3,yes\n", ["2:28 column-missing", "2:35 labels"]),
        ("a,b,c\nTrue,2,3\n0,3,4\n", ["2:25 csv-number"]),
        ("a,b,c\n0,2,3\nTrue,3,4\n", ["2:25 csv-number"]),
    ],
)
def test_a_wrong_csv_file_is_told_at_the_name_in_the_spec(
    text: str, found: list[str], faults: Faults, tmp_path: Path
) -> None:
    (tmp_path / "d.csv").write_text(text, encoding="utf-8", errors="surrogateescape")
    assert faults(data=CSV) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a;b;c\n1;2;3\n", "expected columns separated by commas in d.csv, got the one column 'a;b;c': write "
         "data.delimiter: semicolon"),
        # The quote opens in line 3, and what it swallows ends with the file.
        ('a,b,c\n1,2,3\n4,"5,6\n7,8,9\n', 'd.csv, line 3: a quote " opens here and does not close'),
        # A quote that closes: the next one opens two lines below.
        ('a,b,c\n1,"2\n3",4\n"5\n6","7,8\n', 'd.csv, line 5: a quote " opens here and does not close'),
        ("a,b,c\n1,x,3\n2,5,6\n", "d.csv, row 1 (line 2), column 'b': expected a finite number, got 'x'"),
        ("a,b,c\n1,'1,5',3\n", "d.csv, row 1 (line 2): expected 3 cells as in the header, got 4"),
        ('a,b,c\n1,"1,234",3\n', "(a decimal comma: write a point; thousands: no comma)"),
        ("a,b,c\n1,,3\n", "got nothing (fill it in, or leave the row out)"),
        ("a,b,c\n1,12%,3\n1,5%,3\n", "got '12%', '5%' (write it without %), in every row"),
        ("a,b,c\n1,2020-01-01,3\n", "(a date: write a number, such as days since a first one)"),
        ('a,b,c\n1,"1,5",3\n', "expected a finite number, got '1,5' (a decimal comma: write a point)"),
        (f"a,b,c\n1,{'9' * 200}x,3\n1,2,3\n", f"got '{'9' * 79}…'"),
        ('a,b,c\n1,"2\n\n",3,4\n', "d.csv, row 1 (lines 2 to 4, in quotes): expected 3 cells"),
        ("a,b,c\n1,low,0\n2,high,1\n", "'b': expected numbers, got 'low', 'high': write one column of 0"),
        ("a,b,c\n1,2,3\n1,\udce92,3\n", "line 3, column 3: expected UTF-8 text, got the byte 0xe9 (é in "),
        ("\ufeffa,b,Gr\udcf6\udcdfe\n", "line 1, column 7: expected UTF-8 text, got the byte 0xf6 (ö in"),
        ("\udcff\udcfea\0", "d.csv, line 1: expected UTF-8 text, got UTF-16: save it as UTF-8"),
        ("a,b,c\n1,2,no\n2,3,yes\n", "data.labels: {no: 0, yes: 1} (for logistic −1 and 1)"),
        (",".join(f"column{i}" for i in range(1000)) + "\n", "expected one of column0, "),
    ],
)  # fmt: skip
def test_the_words_about_a_wrong_csv_file(text: str, words: str, told: Faults, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(text, encoding="utf-8", errors="surrogateescape")
    messages = told(data=CSV)
    assert any(words in message for message in messages), messages
    assert max(map(len, messages)) < 450


def test_labels_without_numbers_are_told_beside_other_faults_of_the_data(faults: Faults) -> None:
    data = "{x: [[1, 2], [3]], y: [spam, ham]}"
    assert faults(data=data) == ["2:20 ragged-rows", "2:29 labels"]


def test_a_thousand_wrong_cells_are_told_in_a_few_lines(faults: Faults, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("a,b,c\n1,2,3\n" + "1,x,3\n" * 1000, encoding="utf-8")
    assert faults(data=CSV) == ["2:14 csv-number"] + ["2:28 csv-number"] * 20


def test_a_column_of_words_is_told_in_one_line(faults: Faults, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("a,b,c\n" + "1,red,3\n1,blue,3\n" * 1000, encoding="utf-8")
    assert faults(data=CSV) == ["2:28 csv-text"]


def test_booleans_and_labels_of_a_csv_file_are_numbers(load: Callable[..., Problem], tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("a;b;c\nTrue;false;yes\nFALSE;true; no\n", encoding="utf-8")
    problem = load(data="{file: d.csv, x: [a, b], y: c, delimiter: semicolon, labels: {no: -1, yes: 1}}")
    np.testing.assert_array_equal(problem.distribution.x[:], [[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_array_equal(problem.distribution.y[:], [1.0, -1.0])


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        ("0 1", "{0: -1, 1: 1}"),
        ("0.0 1", "{0: -1, 1: 1}"),
        ("False True", "{false: -1, true: 1}"),
        ("False True", "{0: -1, 1: 1}"),
    ],
)
def test_labels_may_be_numbers_and_booleans(
    cells: str, labels: str, load: Callable[..., Problem], tmp_path: Path
) -> None:
    first, second = cells.split()
    (tmp_path / "d.csv").write_text(f"a,b,c\n1,2,{first}\n3,4,{second}\n", encoding="utf-8")
    problem = load(data=f"{{file: d.csv, x: [a, b], y: c, labels: {labels}}}", loss="logistic")
    np.testing.assert_array_equal(problem.distribution.y[:], [-1.0, 1.0])


def test_a_label_that_the_loss_does_not_take_names_its_column(told: Faults, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("a,b,churn\n1,2,0\n3,4,1\n", encoding="utf-8")
    [message] = told(data="{file: d.csv, x: [a, b], y: churn}", loss="logistic")
    assert message.startswith("data.y row 1, column 'churn': expected a label −1 or 1 for the logistic loss")
    assert message.endswith("write data.labels: {0: -1, 1: 1}, or loss: bce_with_logits (in Python 2*y - 1)")


def test_labels_of_arrays_are_numbers(load: Callable[..., Problem], tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.ones((2, 2)), y=np.array(["no", "yes"]), z=np.array([False, True]))
    for data in (
        "{file: d.npz, labels: {no: -1, yes: 1}}",
        "{file: d.npz, y: z, labels: {false: -1, true: 1}}",
        "{x: [[1, 1], [1, 1]], y: [no, yes], labels: {no: -1, yes: 1}}",
        "{x: [[1, 1], [1, 1]], y: [0, 1], labels: {0: -1, 1: 1}}",
    ):
        np.testing.assert_array_equal(load(data=data).distribution.y[:], [-1.0, 1.0])


@pytest.mark.parametrize("packed", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_is_held_to_its_checksum_behind_the_last_row(
    told: Faults, tmp_path: Path, packed: int
) -> None:
    file = io.BytesIO()
    np.save(file, np.ones((2000, 2)))
    right = file.getvalue()
    wrong = right.replace(b"(2000, 2)", b"(1000, 2)")
    with zipfile.ZipFile(tmp_path / "d.npz", "w", packed) as archive:
        archive.writestr("x.npy", wrong)
    sums = tuple(zlib.crc32(contents).to_bytes(4, "little") for contents in (wrong, right))
    contents = (tmp_path / "d.npz").read_bytes()
    (tmp_path / "d.npz").write_bytes(contents.replace(sums[0], sums[1]))
    np.savez(tmp_path / "y.npz", y=np.ones(1000))
    with zipfile.ZipFile(tmp_path / "y.npz") as other, zipfile.ZipFile(tmp_path / "d.npz", "a") as archive:
        archive.writestr("y.npy", other.read("y.npy"))
    (message,) = told(data="{file: d.npz}")
    assert "cannot read d.npz: array 'x': Bad CRC-32 for file 'x.npy'" in message


def save_parquet(path: Path, arrays: dict[str, np.ndarray]) -> None:
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    import pyarrow.parquet as parquet

    columns = {name: array.tolist() if array.ndim > 1 else array for name, array in arrays.items()}
    parquet.write_table(arrow.table(columns), path)


def save_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(path, allow_pickle=False, **arrays)


SAVES = [("npz", save_npz), ("parquet", save_parquet)]


@pytest.mark.parametrize(("ending", "save"), SAVES)
@pytest.mark.parametrize(
    ("words", "labels"),
    [(["no", "yes"], "{no: -1, yes: 1}"), ([0, 1], "{0: -1, 1: 1}"), ([False, True], "{false: -1, true: 1}")],
)
def test_labels_of_shards_are_numbers(
    load: Callable[..., Problem],
    told: Faults,
    faults: Faults,
    tmp_path: Path,
    ending: str,
    save: Callable[..., None],
    words: list[Any],
    labels: str,
) -> None:
    x, y = np.array([[1.0, 2.0], [0.5, -1.0], [1.0, 1.0]]), np.array(words)[[0, 1, 0]]
    save(tmp_path / f"a.{ending}", {"x": x[:2], "y": y[:2]})
    save(tmp_path / f"b.{ending}", {"x": x[2:], "y": y[2:]})
    data = f"shards: '*.{ending}'"
    problem = load(data=f"{{{data}, labels: {labels}}}", loss="logistic")
    np.testing.assert_array_equal(problem.distribution.y[:], [-1, 1, -1])
    few = {"data": f"{{{data}, labels: {{maybe: 1, {words[0]}: 0}}}}", "loss": "logistic"}
    (message,) = told(**few)
    assert f"a.{ending}, row 2: expected one of maybe" in message
    assert faults(**few) == ["2:16 labels"]


@pytest.mark.parametrize(("ending", "save"), SAVES)
def test_shards_have_the_comparators_of_a_file(
    load: Callable[..., Problem], tmp_path: Path, ending: str, save: Callable[..., None]
) -> None:
    arrays = {"x": np.arange(8.0).reshape(4, 2), "y": np.ones(4), "age": np.arange(4.0)}
    arrays["inputs"] = arrays["x"][::-1] + 1.0
    folder = tmp_path / "data"
    folder.mkdir()
    save_npz(tmp_path / "all.npz", arrays)
    for i, rows in enumerate((slice(0, 3), slice(3, 4))):
        save(folder / f"{i}.{ending}", {name: array[rows] for name, array in arrays.items()})
    point = "{w: [1, 1, 1, 1], V: [[1, 0], [0, 1]]}"
    compare = "compare: {age: age, both: [age, inputs], x: x, bypass: bypass}"
    for named in ("x: inputs, bypass: x", "x: x, bypass: inputs"):
        whole = load(data=f"{{file: all.npz, {named}, {compare}}}", point=point).comparators
        found = load(data=f"{{shards: data, {named}, {compare}}}", point=point).comparators
        assert set(found) == set(whole) == {"age", "both", "x", "bypass"}
        for name, rows in whole.items():
            np.testing.assert_array_equal(found[name][:], rows[:])


def test_a_column_in_place_of_rows_is_told_as_a_list(told: Faults, faults: Faults, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones(3), y=np.ones(3))
    data = "{shards: '*.npz', bypass: y}"
    wanted = "expected an array of rows (n, ·), got the column"
    assert told(data=data) == [
        f"data.shards: {wanted} 'x': write x: [x]",
        f"data.bypass: {wanted} 'y': write bypass: [y]",
    ]
    assert faults(data=data) == ["2:16 shape", "2:33 shape"]


def test_labels_without_numbers_are_told(faults: Faults, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.ones((2, 2)), y=np.array(["no", "yes"]))
    assert faults(data="{file: d.npz}") == ["2:14 labels"]
    assert faults(data="{x: [[1, 1], [1, 1]], y: [no, yes]}") == ["2:32 labels"]
    assert faults(data="{file: d.npz, labels: {no: 1}}") == ["2:14 labels"]
    assert faults(data="{file: d.npz, labels: {no: x}}") == ["2:34 wrong-value"]


def test_csv_numbers_are_read_to_the_last_bit_and_quickly(
    load: Callable[..., Problem], tmp_path: Path
) -> None:
    x = np.random.default_rng(0).standard_normal((5_000, 30))
    lines = [",".join(f"c{j}" for j in range(30)), *(",".join(map(repr, row)) for row in x.tolist())]
    (tmp_path / "d.csv").write_text("\n".join(lines), encoding="utf-8")
    columns = ", ".join(f"c{j}" for j in range(29))
    V = "[" + ", ".join(["[0]"] * 29) + "]"
    started = time.process_time()
    problem = load(
        data=f"{{file: d.csv, x: [{columns}], y: c29}}",
        point=f"{{w: {[0] * 29}, V: {V}}}",
        network=f"{{kind: linear, weight: {[[0] * 29]}}}",
    )
    assert time.process_time() - started < 4.0  # 0.1 s on an idle core
    np.testing.assert_array_equal(problem.distribution.x[:], x[:, :29])
    np.testing.assert_array_equal(problem.distribution.y[:], x[:, 29])


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", "<f2", "<i8", "|u1"])
def test_npy_files_are_mapped_and_widened(dtype: str, load: Callable[..., Problem], tmp_path: Path) -> None:
    x = np.arange(10).reshape(5, 2).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.arange(5).astype(dtype))
    problem = load(data="{x: x.npy, y: y.npy}")
    assert isinstance(problem.distribution.x, MappedRows)
    assert isinstance(problem.distribution.y, MappedRows)
    (chunk,) = problem.chunks()
    assert chunk.x.dtype == np.float64
    np.testing.assert_array_equal(chunk.x, x.astype(np.float64))
    np.testing.assert_array_equal(problem.distribution.x[1:3], x[1:3])


def test_a_fortran_ordered_npy_file_is_read(load: Callable[..., Problem], tmp_path: Path) -> None:
    x = np.arange(10.0).reshape(5, 2)
    np.save(tmp_path / "x.npy", np.asfortranarray(x))
    problem = load(data="{x: x.npy, y: [1, 2, 3, 4, 5]}")
    np.testing.assert_array_equal(problem.distribution.x[:], x)


def test_npz_arrays_are_found_by_name(load: Callable[..., Problem], tmp_path: Path) -> None:
    x, y, f = np.arange(6, dtype=np.float32).reshape(3, 2), np.arange(3), np.ones((3, 1))
    np.savez(tmp_path / "d.npz", x=np.asfortranarray(x), y=y, f=f)
    np.savez_compressed(tmp_path / "e.npz", X=x, Y=y, F=f, P=[0.25, 0.25, 0.5])
    for data in ("{file: d.npz}", "{file: e.npz, x: X, y: Y, f: F, probabilities: P}"):
        problem = load(data=data, network="{kind: given}", point="{w: [0, 0], V: [[0], [0]]}")
        (chunk,) = problem.chunks()
        np.testing.assert_array_equal(chunk.x, x)
        np.testing.assert_array_equal(chunk.y[:, 0], y)
        np.testing.assert_array_equal(chunk.f, f)


def test_a_point_from_a_file(load: Callable[..., Problem], tmp_path: Path) -> None:
    w, V = np.array([1.0, 2.0], np.float32), np.arange(4).reshape(2, 2)
    np.savez(tmp_path / "p.npz", w=w, V=V)
    problem = load(point="{file: p.npz}")
    np.testing.assert_array_equal(problem.point.W, [w])
    np.testing.assert_array_equal(problem.point.V, V)


ARRAYS: dict[str, Any] = {
    "x": np.ones((2, 2)),
    "object": np.array([{}], dtype=object),
    "complex": np.ones(2, dtype=complex),
    "bool": np.array([True, False]),
    "text": np.array(["a", "b"]),
    "scalar": np.array(3.0),
    "column": np.ones((2, 1)),
    "flat": np.ones(2),
    "empty": np.ones((0, 2)),
    "nan": np.array([1.0, np.nan]),
}
WRONG_FILES = """
data: {x: x.npy, y: z.npy}
  2:21 file-missing

data: {x: sub/x.npy, y: flat.npy}
  2:11 file-missing

data: {x: folder.npy, y: flat.npy}
  2:11 file-missing

data: {x: x.npy, y: object.npy}
  2:21 file-unreadable

data: {x: x.npy, y: complex.npy}
  2:21 array-type

data: {x: x.npy, y: bool.npy}
  2:21 array-type

data: {x: x.npy, y: text.npy}
  2:21 array-type

data: {x: x.npy, y: scalar.npy}
  2:21 shape

data: {x: flat.npy, y: flat.npy}
  2:11 shape

data: {x: empty.npy, y: []}
  2:25 wrong-value

data: {x: empty.npy, y: y}
  2:25 wrong-value

data: {x: empty.npy, y: [1]}
  2:11 shape
  2:25 shape

data: {x: x.npy, y: nan.npy}
  2:21 not-finite

data: {x: x.npy, y: torn.npy}
  2:21 file-unreadable

data: {x: x.npy, y: short.npy}
  2:21 file-unreadable

data: {x: x.npy, y: hello.npy}
  2:21 file-unreadable

data: {file: all.npz, y: flt}
  2:26 array-missing

data: {file: all.npz}
  2:14 array-missing

data: {file: all.npz, y: object}
  2:26 file-unreadable

data: {file: all.npz, x: bool, y: complex}
  2:26 array-type
  2:35 array-type

data: {file: all.npz, y: nan}
  2:26 not-finite

data: {file: torn.npz}
  2:14 file-unreadable

data: {file: hello.npz}
  2:14 file-unreadable

data: {file: one.npz}
  2:14 file-unreadable

data: {file: other.npz, y: a.txt}
  2:14 array-missing
  2:28 array-type

data: {file: all.csv, x: [a], y: b}
  2:14 file-missing
"""


@pytest.mark.parametrize(("parts", "found"), wrong_specs(WRONG_FILES))
def test_a_wrong_file_is_told_at_its_name_in_the_spec(
    parts: dict[str, str], found: list[str], faults: Faults, tmp_path: Path
) -> None:
    for name, array in ARRAYS.items():
        np.save(tmp_path / f"{name}.npy", array, allow_pickle=True)
    np.savez(tmp_path / "all.npz", **ARRAYS)
    (tmp_path / "torn.npz").write_bytes((tmp_path / "all.npz").read_bytes()[:-30])
    (tmp_path / "torn.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-8])
    (tmp_path / "short.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:20])
    (tmp_path / "one.npz").write_bytes((tmp_path / "x.npy").read_bytes())
    for name in ("hello.npy", "hello.npz"):
        (tmp_path / name).write_bytes(b"hello " * 40)
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("a.txt", "hello")
    (tmp_path / "folder.npy").mkdir()
    assert faults(**parts) == found


@given(data=st.data(), name=st.sampled_from(["d.npy", "d.npz", "c.npz", "d.csv"]))
def test_no_damage_of_a_file_does_anything_but_load_or_be_refused(
    data: st.DataObject, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    whole = io.BytesIO()
    if name.endswith(".npy"):
        np.save(whole, np.ones((3, 2)))
        parts = {"data": f"{{x: {name}, y: [1, 2, 3]}}"}
    elif name.endswith(".npz"):
        (np.savez if name == "d.npz" else np.savez_compressed)(whole, x=np.ones((3, 2)), y=np.ones(3))
        parts = {"data": f"{{file: {name}}}"}
    else:
        whole.write(b'a,b,y\n1,2,3\n"4",5e-1,6\n')
        parts = {"data": f"{{file: {name}, x: [a, b], y: y}}"}
    content = bytearray(whole.getvalue())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / name).write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, about headers of Python 2
        assert_loads_or_is_refused(folder / "s.yaml", spec_with(**parts))


def assert_loads_or_is_refused(path: Path, text: str | bytes) -> None:
    try:
        load_problem(path, text=text)
        diagnostics = None
    except RequestError as error:
        diagnostics = error.diagnostics
    if diagnostics is not None:
        assert diagnostics
        for diagnostic in diagnostics:
            assert diagnostic.file == str(path)
            assert diagnostic.line
            assert diagnostic.column
            assert "\n" not in str(diagnostic)


RICH = """\
version: 1
name: fuzz
data:
  x: [[1.0, 2.0], [3.0, -4.5e-1]]
  y: [1.0, -1.0]
  probabilities: [0.25, 0.75]
loss: {kind: logistic, scale: 2.0}
network: {kind: linear, weight: &w [[0.1, 0.2]], bias: [0.5]}
point: {w: [0.0, 1.0], V: [[-10.0], [2]]}
epsilon: 0.2
domain: {b: auto, r: 2}
lipschitz: {mu0: auto, mu1: 3, mu2: auto}
"""


@given(data=st.data())
def test_no_change_of_a_spec_does_anything_but_load_or_be_refused(data: st.DataObject) -> None:
    text = list(RICH)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        change = data.draw(st.sampled_from(["cut", "insert", "swap", "double"]))
        length = data.draw(st.integers(1, 12))
        if change == "cut" and len(text) > length:
            del text[at : at + length]
        elif change == "insert":
            text[at:at] = data.draw(
                st.text(st.characters(codec="utf-8") | st.sampled_from(":-[]{}#&*!|>'\",?\n 0"), max_size=5)
            )
        elif change == "swap":
            other = data.draw(st.integers(0, len(text) - 1))
            text[at], text[other] = text[other], text[at]
        else:
            text[at:at] = text[at : at + length]
        if not text:
            return
    assert_loads_or_is_refused(Path("s.yaml"), "".join(text))


@given(st.integers(0, len(RICH)))
def test_no_truncation_of_a_spec_does_anything_but_load_or_be_refused(length: int) -> None:
    assert_loads_or_is_refused(Path("s.yaml"), RICH[:length])


def test_a_file_whose_name_is_too_long_is_told(faults: Faults) -> None:
    name = "x" * 300 + ".npy"
    assert faults(data=f"{{x: {name}, y: [1]}}") == ["2:11 file-unreadable"]


def test_an_array_beyond_all_memory_is_told(faults: Faults, tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (2**44, 2)}
    )
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(64))
        archive.writestr("y.npy", header.getvalue()[:20])
    assert faults(data="{file: d.npz}") == ["2:14 too-large", "2:14 file-unreadable"]


def test_an_array_that_is_twice_in_a_file_is_told(faults: Faults, tmp_path: Path) -> None:
    array = io.BytesIO()
    np.save(array, np.ones((2, 2)))
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("x.npy", "y.npy", "x.npy"):
            archive.writestr(name, array.getvalue())
    assert faults(data="{file: d.npz}") == ["2:14 array-repeated"]


def test_a_file_that_is_not_there_comes_first_whatever_else_is_wrong(faults: Faults) -> None:
    found = faults(version="2", data="{file: diabets.csv, x: age, y: progression}", point="{file: p.npz}")
    assert found == ["2:14 file-missing", "5:15 file-missing", "1:10 wrong-value", "2:30 wrong-value"]


# shapes and values


UNFIT = """
data: {x: [[1, 2], [3, 4]], y: [1]}
  2:32 shape

data: {x: [[1, 2], [3, 4]], y: [1, 2], probabilities: [1]}
  2:55 shape

data: {x: [[1, 2], [3, 4]], y: [1, 2], probabilities: [0.5, 0.6]}
  2:55 probability-sum

data: {x: [[1, 2], [3, 4]], y: [1, 2], probabilities: [1.5, -0.5]}
  2:61 probability

loss: logistic
data: {x: [[1, 2], [3, 4]], y: [1, 0]}
  2:36 target

loss: logistic
data: {sample: {n: 4, d: 2, y: {teacher: relu}}}
  2:32 target

point: {w: [0], V: [[0, 0], [0, 0]]}
  5:12 shape

point: {w: [0, 0], V: [[0, 0]]}
  5:23 shape

point: {w: [0, 0], V: [[0, 1]]}
network: {kind: linear, weight: [[1, 2]]}
  5:23 shape

point: {w: [3, 4], V: [[0, 0], [0, 0]]}
domain: {b: 5}
  5:12 domain

point: {w: [0, 0], V: [[3, 0], [0, 4]]}
domain: {b: 4}
  5:23 domain

network: {kind: linear, weight: [[1]]}
  4:33 shape

network: {kind: linear, weight: [[1], [2]]}
  4:33 shape

network: {kind: linear, weight: [[1, 2]], bias: [1, 2]}
  4:49 shape

network: {kind: mlp, activation: tanh, layers: [{weight: [[1, 2]], bias: [1, 2]}, {weight: [[1, 2]]}]}
  4:74 shape
  4:92 shape

network: {kind: mlp, activation: tanh, widths: [1000000000]}
  4:48 too-large

data: {sample: {n: 1000000000, d: 2, y: {teacher: linear}}}
  2:20 too-large

network: {kind: linear, weight: [[1e308, 1e308]]}
point: {w: [0, 0], V: [[0], [0]]}
  4:10 not-finite

network: {kind: given}
  2:1 missing-key

network: {kind: given}
data: {sample: {n: 4, d: 2, y: {teacher: linear}}}
  2:8 unfit-part

data: {x: [[1, 2], [3, 4]], y: [1, 2], f: [[1], [2]]}
  2:40 unfit-part

network: {kind: given}
data: {x: [[1, 2], [3, 4]], y: [1, 2], f: [[1]]}
  2:43 shape
  5:27 shape

data: {x: x.npy, y: [1]}
network: {kind: mlp, activation: tanh, widths: [1]}
epsilon: x
  2:11 file-missing
  6:10 wrong-value

data: {x: x.npy, y: [1]}
network: {kind: identity}
  2:11 file-missing

data: {x: x.npy, y: [1]}
loss: sqared
network: {python: n.py:f}
point: {file: p.npz}
epsilon: -1
  2:11 file-missing
  5:15 file-missing
  3:7 unknown-name
  4:19 code-not-allowed
  6:10 wrong-value
"""


@pytest.mark.parametrize(("parts", "found"), wrong_specs(UNFIT))
def test_what_does_not_fit_is_told_at_its_place(
    parts: dict[str, str], found: list[str], faults: Faults
) -> None:
    assert faults(**parts) == found


def test_a_domain_between_the_spectral_and_the_frobenius_norm_holds_the_point(
    load: Callable[..., Problem],
) -> None:
    load(point="{w: [0, 0], V: [[3, 0], [0, 4]]}", domain="{b: 4.5}")


def test_a_fault_of_the_text_silences_only_what_stands_there(faults: Faults) -> None:
    assert faults(epsilon=".nan", domain="{b: 1, b: 2}", loss="huge") == [
        "3:7 unknown-name",
        "6:10 not-finite",
        "7:16 duplicate-key",
    ]


def test_a_spec_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    for path, reason in (("none.yaml", "No such file or directory"), (".", "Is a directory")):
        with pytest.raises(RequestError) as raised:
            load_problem(tmp_path / path)
        assert str(raised.value) == f"{tmp_path / path}:1:1: error: cannot read the spec: {reason}"


# standard input and overrides


def test_standard_input_is_read_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "p.npz", w=np.zeros(2), V=np.zeros((2, 2)))
    monkeypatch.chdir(tmp_path)
    text = spec_with(point="{file: p.npz}")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    loaded = load_spec("-")
    assert (loaded.path, loaded.problem.name) == ("<stdin>", "stdin")
    assert loaded.sha256 == hashlib.sha256(text.encode()).hexdigest()
    with pytest.raises(RequestError, match=r"^<stdin>:1:1: error: expected a mapping with "):
        load_spec("-", text="")


def test_overrides_change_the_spec(load: Callable[..., Problem]) -> None:
    problem = load(overrides=("domain.b=3", "point.w=[1, 1e0]", "epsilon=0", "network={kind: identity}"))
    assert (problem.domain.b, problem.epsilon) == (3.0, 0.0)
    np.testing.assert_array_equal(problem.point.W, [[1.0, 1.0]])


def test_overrides_may_be_a_mapping() -> None:
    problem = load_problem("s.yaml", text=BASE, overrides={"epsilon": "0.5", "name": "other"})
    assert (problem.epsilon, problem.name) == (0.5, "other")


def test_faults_of_overrides_come_after_those_of_the_file() -> None:
    settings = ["point.w=[1]", "domian.b=3", "epsilon='1'", "loss.scale=2", "lipschitz={mu0: x}"]
    with pytest.raises(RequestError) as raised:
        load_problem("s.yaml", text=spec_with(name="3"), overrides=settings)
    assert [str(diagnostic) for diagnostic in raised.value.diagnostics] == [
        "s.yaml:7:7: error: name: expected a word, got 3",
        "--set point.w=[1]:1:9: error: point.w: expected the shape (d,) = (2,), got (1,)",
        "--set domian.b=3:1:1: error: unknown key 'domian'; did you mean 'domain'?",
        "--set epsilon='1':1:9: error: epsilon: expected a number ≥ 0, got '1'",
        "--set lipschitz={mu0: x}:1:17: error: lipschitz.mu0: expected a number ≥ 0 or auto, got 'x'",
        "--set loss.scale=2:1:6: error: expected a mapping at loss to set 'scale' in, got 'squared'",
    ]


# drawn samples


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("teacher", TEACHERS)
def test_a_seed_fixes_every_drawn_number(inputs: str, teacher: str) -> None:
    first, again, other = (
        draw(n=50, d=3, inputs=inputs, teacher=teacher, noise=0.5, seed=seed) for seed in (7, 7, 8)
    )
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
        assert a.dtype == np.float64
        assert np.isfinite(a).all()


def test_inputs_have_the_distribution_they_name() -> None:
    x = {name: draw(n=20_000, d=3, inputs=name, teacher="linear", noise=0, seed=1)[0] for name in INPUTS}
    for name, variance in (("gaussian", 1.0), ("uniform", 1 / 3), ("sphere", 1 / 3), ("rademacher", 1.0)):
        np.testing.assert_allclose(np.cov(x[name].T), variance * np.eye(3), atol=0.04)
        np.testing.assert_allclose(x[name].mean(axis=0), 0.0, atol=0.04)
    assert np.abs(x["uniform"]).max() <= 1.0
    np.testing.assert_allclose(np.linalg.norm(x["sphere"], axis=1), 1.0, rtol=1e-15)
    assert set(np.unique(x["rademacher"])) == {-1.0, 1.0}


def test_teachers_make_the_targets_they_name() -> None:
    def sample(teacher: str, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        return draw(n=20_000, d=3, inputs="gaussian", teacher=teacher, noise=noise, seed=1)

    x, t = sample("linear")
    u, *_ = np.linalg.lstsq(x, t, rcond=None)
    assert np.linalg.norm(u) == pytest.approx(1.0)
    np.testing.assert_allclose(x @ u, t, atol=1e-12)
    np.testing.assert_array_equal(sample("relu")[1], np.maximum(t, 0))
    np.testing.assert_array_equal(sample("constant")[1], 1.0)
    np.testing.assert_array_equal(sample("sign")[1], np.where(t >= 0, 1.0, -1.0))
    assert np.std(sample("linear", 0.5)[1] - t) == pytest.approx(0.5, rel=0.03)
    labels = sample("logistic")[1]
    counts = sample("poisson")[1]
    assert set(np.unique(labels)) == {-1.0, 1.0}
    for low in (-1.0, 0.0, 1.0):
        near = (t > low) & (t < low + 0.5)
        assert np.mean(labels[near] == 1.0) == pytest.approx(np.mean(1 / (1 + np.exp(-t[near]))), abs=0.03)
        assert np.mean(counts[near]) == pytest.approx(np.mean(np.exp(t[near])), rel=0.05)


def test_a_logistic_teacher_suits_the_logistic_loss(load: Callable[..., Problem]) -> None:
    for teacher in ("sign", "logistic"):
        problem = load(
            data=f"{{sample: {{n: 30, d: 2, x: sphere, y: {{teacher: {teacher}, noise: 0.1}}, seed: 3}}}}",
            loss="logistic",
        )
        assert problem.n == 30


# code of the user's


CODE = """\
import jax.numpy as jnp
import numpy as np
from helper import SCALE
print("this is printed by the user's code")
value = 3
def loss(p, y):
    return SCALE * (p - y) ** 2
def features(x):
    return jnp.stack([x[:, 0] ** 2, jnp.sin(x[:, 1])], axis=1)
def too_wide(x):
    return x @ jnp.ones((5, 3))
def flat(x):
    return x[:, 0]
def centred(x):
    return x - x.mean(axis=0, keepdims=True)
def in_numpy(x):
    return np.linalg.svd(np.asarray(x))[0]
def complex_values(x):
    return x.astype(complex)
def infinite(x):
    return 1 / (x - 1.0)
def leaves(x):
    raise SystemExit(0)
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "code.py").write_text(CODE, encoding="utf-8")
    (tmp_path / "helper.py").write_text("SCALE = 3.0\n", encoding="utf-8")
    (tmp_path / "broken.py").write_text("def loss(p, y):\n    return (\n", encoding="utf-8")
    (tmp_path / "failing.py").write_text("a = 1\nb = a / 0\n", encoding="utf-8")
    return tmp_path


@pytest.mark.usefixtures("code")
def test_a_loss_and_a_network_of_the_users(
    load: Callable[..., Problem], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = list(sys.path)
    problem = load(loss="{python: code.py:loss}", network="{python: code.py:features}", allow_code=True)
    assert problem.loss.name == "code.py:loss"
    with float64_scope():
        np.testing.assert_allclose(problem.loss.value(np.array([[2.0]]), np.array([[1.0]])), 3.0)
    (chunk,) = problem.chunks()
    np.testing.assert_allclose(chunk.f, [[1.0, np.sin(2.0)], [9.0, np.sin(4.0)]], rtol=1e-15)
    out, err = capsys.readouterr()
    assert out == ""
    assert "printed by the user's code" in err
    assert sys.path == path
    assert not any("code" in entry.name for entry in tmp_path.glob("__pycache__/*"))


@pytest.mark.usefixtures("code")
@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ({"loss": "{python: code.py:lss}"}, "no function 'lss' in code.py; did you mean 'loss'?"),
        ({"loss": "{python: code.py:value}"}, "expected a function 'value' in code.py, got int"),
        ({"loss": "{python: coed.py:loss}"}, "no such file: coed.py; did you mean 'code.py'?"),
        ({"loss": "{python: broken.py:loss}"}, "broken.py:2: SyntaxError: '(' was never closed"),
        ({"loss": "{python: failing.py:loss}"}, "failing.py:2: ZeroDivisionError: division by zero"),
        ({"loss": "{python: code.py:features}"}, ""),
        ({"network": "{python: code.py:too_wide}"}, "code.py:11: TypeError: "),
        ({"network": "{python: code.py:in_numpy}"}, "code.py:17: TracerArrayConversionError: "),
        ({"network": "{python: code.py:leaves}"}, "code.py:23: SystemExit: 0"),
        (
            {"network": "{python: code.py:flat}"},
            "expected code.py:flat to map x (3, 2) to (3, k), got the shape (3,)",
        ),
        (
            {"network": "{python: code.py:complex_values}"},
            "expected code.py:complex_values to return real numbers, got complex128",
        ),
        (
            {"network": "{python: code.py:centred}"},
            "expected code.py:centred to map row by row, got features that change with the other rows",
        ),
        ({"network": "{python: code.py:infinite}"}, "f row 1, column 1: expected a finite number, got inf"),
        ({"network": "{python: code.py:loss}"}, "code.py: TypeError: loss() missing 1 required"),
    ],
)
def test_code_that_fails_is_told_with_its_line(parts: dict[str, str], found: str, told: Faults) -> None:
    (message,) = told(**parts, allow_code=True)
    assert found in message


def test_two_folders_may_have_modules_of_one_name(tmp_path: Path) -> None:
    values = []
    for scale in (2.0, 5.0):
        folder = tmp_path / str(scale)
        folder.mkdir()
        (folder / "helper.py").write_text(f"SCALE = {scale}\n", encoding="utf-8")
        (folder / "code.py").write_text(CODE, encoding="utf-8")
        text = spec_with(loss="{python: code.py:loss}")
        problem = load_problem(folder / "s.yaml", text=text, allow_code=True)
        with float64_scope():
            values.append(float(problem.loss.value(np.array([[2.0]]), np.array([[1.0]]))[0]))
    assert values == [2.0, 5.0]


@pytest.mark.usefixtures("code")
def test_code_is_run_for_its_faults_even_if_there_are_no_data(faults: Faults) -> None:
    assert faults(data="{x: x.npy, y: [1]}", network="{python: code.py:features}", allow_code=True) == [
        "2:11 file-missing"
    ]
    assert faults(data="{x: x.npy, y: [1]}", network="{python: failing.py:f}", allow_code=True) == [
        "2:11 file-missing",
        "4:19 code-failed",
    ]


@pytest.mark.usefixtures("code")
def test_code_is_not_run_unless_that_is_allowed(faults: Faults, capsys: pytest.CaptureFixture[str]) -> None:
    assert faults(loss="{python: code.py:loss}", network="{python: failing.py:f}") == [
        "3:16 code-not-allowed",
        "4:19 code-not-allowed",
    ]
    assert capsys.readouterr() == ("", "")


# networks from specs


def test_an_mlp_is_the_same_inline_and_from_a_file(load: Callable[..., Problem], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    theta = {"l1.w": rng.normal(size=(3, 2)), "l1.b": rng.normal(size=3), "w2": rng.normal(size=(2, 3))}
    np.savez(tmp_path / "theta.npz", **theta)
    lists = {name: array.tolist() for name, array in theta.items()}
    inline = f"{{weight: {lists['l1.w']}, bias: {lists['l1.b']}}}, {{weight: {lists['w2']}}}"
    (a,) = load(network=f"{{kind: mlp, activation: relu, layers: [{inline}]}}").chunks()
    named = "[{weight: l1.w, bias: l1.b}, {weight: w2}]"
    (b,) = load(network=f"{{kind: mlp, activation: relu, file: theta.npz, layers: {named}}}").chunks()
    np.testing.assert_array_equal(a.f, b.f)
    expected = np.maximum(a.x @ theta["l1.w"].T + theta["l1.b"], 0.0) @ theta["w2"].T
    np.testing.assert_allclose(a.f, expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ("[{weight: w, bias: c}]", ["4:80 array-missing"]),
        ("[{weight: b}]", ["4:71 shape"]),
        ("[{weight: w}, {weight: w}]", ["4:84 shape"]),
        ("[{weight: bad}]", ["4:71 not-finite"]),
    ],
)
def test_wrong_layers_of_a_file_are_told_at_their_names(
    layers: str, found: list[str], faults: Faults, tmp_path: Path
) -> None:
    np.savez(tmp_path / "t.npz", w=np.ones((3, 2)), b=np.ones(3), bad=np.array([[1.0, np.inf]]))
    assert faults(network=f"{{kind: mlp, activation: tanh, file: t.npz, layers: {layers}}}") == found


def test_loading_a_spec_without_a_network_in_jax_loads_no_jax() -> None:
    program = (
        "import sys\n"
        "from resnet_cert.spec import load_problem\n"
        f"load_problem('s.yaml', text={BASE!r})\n"
        "assert 'jax' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=dict(os.environ))
