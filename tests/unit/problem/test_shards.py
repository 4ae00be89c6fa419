"""Rows in many files: the same numbers however they are cut, and no shard that is half read."""

from __future__ import annotations

import io
import os
import pickle
import signal
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnet_cert.outcomes import RequestError
from resnet_cert.problem import shards
from resnet_cert.problem.shards import ShardedRows, open_shards

Array = np.ndarray
WANTED = {"x": "x", "y": "y", "f": "f"}
N = 3000


@pytest.fixture
def arrays() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(size=(N, 3)),
        "y": rng.integers(0, 5, N),
        "f": rng.normal(size=(N, 2)).astype(np.float32),
    }


def save_npz(path: Path, part: dict[str, Array]) -> None:
    np.savez(path.with_suffix(".npz"), allow_pickle=False, **part)


def save_packed(path: Path, part: dict[str, Array]) -> None:
    np.savez_compressed(path.with_suffix(".npz"), allow_pickle=False, **part)


def save_folder(path: Path, part: dict[str, Array]) -> None:
    path.mkdir()
    for name, array in part.items():
        np.save(path / f"{name}.npy", array)


def save_parquet(path: Path, part: dict[str, Array], *, lists: bool = False) -> None:
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    import pyarrow.parquet as parquet

    columns = {}
    for name, array in part.items():
        flat = arrow.array(array.reshape(-1))
        if array.ndim == 1:
            columns[name] = flat
        elif lists:
            columns[name] = arrow.array(array.tolist(), arrow.list_(flat.type))
        else:
            columns[name] = arrow.FixedSizeListArray.from_arrays(flat, array.shape[1])
    parquet.write_table(arrow.table(columns), path.with_suffix(".parquet"), row_group_size=300)


def save_lists(path: Path, part: dict[str, Array]) -> None:
    save_parquet(path, part, lists=True)


SAVES = [save_npz, save_packed, save_folder, save_parquet, save_lists]


def write(folder: Path, arrays: dict[str, Array], save: Any, cuts: list[int]) -> None:
    folder.mkdir(exist_ok=True)
    for i, (start, stop) in enumerate(zip([0, *cuts], [*cuts, N], strict=True)):
        save(folder / f"part-{i:03}", {name: array[start:stop] for name, array in arrays.items()})


def ending(save: Any) -> str:
    return {"save_npz": ".npz", "save_packed": ".npz", "save_folder": ""}.get(save.__name__, ".parquet")


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("cuts", [[], [1, 2, 1999], [512, 513, 2900]])
def test_rows_do_not_depend_on_how_they_are_cut(
    tmp_path: Path, arrays: dict[str, Array], save: Any, cuts: list[int]
) -> None:
    write(tmp_path / "data", arrays, save, cuts)
    for pattern in ("data", f"data/part-*{ending(save)}"):
        rows = open_shards(tmp_path, pattern, WANTED)
        for name, array in arrays.items():
            assert rows[name].shape == array.shape
        for start, stop in [(0, 700), (700, 1400), (1400, N), (5, 6), (0, N), (2998, N + 5), (10, 10)]:
            for name, array in arrays.items():
                np.testing.assert_array_equal(rows[name][start:stop], array[start:stop])


def test_shards_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, value in (("b", 2.0), ("a", 1.0), ("c", 3.0)):
        np.savez(tmp_path / f"{name}.npz", x=np.full((2, 1), value))
    assert open_shards(tmp_path, "*.npz", {"x": "x"})["x"][:].ravel().tolist() == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    "pattern", ["rows/*.npz", "rows", "r*/*.npz", "**/*.npz", "rows/a.npz", "rows/[a].npz"]
)
def test_a_folder_of_any_name_has_shards(tmp_path: Path, pattern: str) -> None:
    """The pattern begins behind the spec's folder."""
    (tmp_path / "run[1]*?" / "rows").mkdir(parents=True)
    np.savez(tmp_path / "run[1]*?" / "rows" / "a.npz", x=np.ones((2, 1)))
    assert len(open_shards(tmp_path / "run[1]*?", pattern, {"x": "x"})["x"][:]) == 2


def test_a_shard_that_is_named_as_it_is_is_no_pattern(tmp_path: Path) -> None:
    for name, value in (("a[1].npz", 1.0), ("a1.npz", 2.0)):
        np.savez(tmp_path / name, x=np.full((1, 1), value))
    assert open_shards(tmp_path, "a[1].npz", {"x": "x"})["x"][:].tolist() == [[1.0]]


def test_two_stars_stand_for_folders_of_any_depth(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b/c", 2.0), ("b/d/e", 3.0)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        np.savez(tmp_path / f"{name}.npz", x=np.full((1, 1), value))
    for pattern in ("**/*.npz", "**/**/*.npz"):
        assert open_shards(tmp_path, pattern, {"x": "x"})["x"][:].ravel().tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("pattern", ["rows", "rows/*", "**/*"])
def test_what_is_hidden_is_no_shard(tmp_path: Path, pattern: str) -> None:
    """As macOS leaves beside every file that it copies, and tools beside theirs."""
    (tmp_path / "rows").mkdir()
    save_folder(tmp_path / "rows" / "a", {"x": np.ones((2, 1))})
    np.savez(tmp_path / "rows" / "b.npz", x=np.ones((2, 1)))
    (tmp_path / "rows" / "._b.npz").write_bytes(b"no archive")
    (tmp_path / "rows" / "a" / "._x.npy").write_bytes(b"no array")
    save_folder(tmp_path / "rows" / ".kept", {"x": np.ones((2, 1))})
    assert len(open_shards(tmp_path, pattern, {"x": "x"})["x"][:]) == 4


def test_shards_of_different_kinds_stand_in_one_row(tmp_path: Path, arrays: dict[str, Array]) -> None:
    for i, save in enumerate([save_packed, save_folder, save_npz]):
        part = {name: array[1000 * i : 1000 * (i + 1)] for name, array in arrays.items()}
        save(tmp_path / f"part-{i}", part)
    rows = open_shards(tmp_path, ".", WANTED)
    for start, stop in ((0, 1), (900, 2100), (0, N)):
        np.testing.assert_array_equal(rows["x"][start:stop], arrays["x"][start:stop])


@pytest.mark.parametrize("save", [save_npz, save_packed, save_parquet])
def test_columns_stand_beside_each_other(tmp_path: Path, arrays: dict[str, Array], save: Any) -> None:
    write(tmp_path, {"a": arrays["x"][:, 0], "b": arrays["x"][:, 1], "t": arrays["y"]}, save, [1000])
    rows = open_shards(tmp_path, ".", {"x": ["a", "b"], "y": "t"})
    assert rows["x"].shape == (N, 2)
    np.testing.assert_array_equal(rows["x"][900:1100], arrays["x"][900:1100, :2])


def test_nested_lists_are_laid_flat_as_images_are(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    import pyarrow.parquet as parquet

    images = np.arange(24).reshape(2, 3, 4)
    parquet.write_table(arrow.table({"x": images.tolist()}), tmp_path / "a.parquet")
    np.testing.assert_array_equal(
        open_shards(tmp_path, "*.parquet", {"x": "x"})["x"][:], images.reshape(2, 12)
    )


@pytest.mark.parametrize("save", [save_npz, save_packed, save_folder])
def test_images_of_arrays_are_laid_flat_as_lists_are(tmp_path: Path, save: Any) -> None:
    images = np.arange(48.0).reshape(4, 3, 2, 2)
    save(tmp_path / "a", {"x": images[:3]})
    save(tmp_path / "b", {"x": images[3:]})
    rows = open_shards(tmp_path, ".", {"x": "x"})["x"]
    assert rows.shape == (4, 12)
    np.testing.assert_array_equal(rows[1:4], images[1:4].reshape(3, 12))


@pytest.mark.parametrize("save", [save_npz, save_packed, save_folder])
def test_rows_are_those_of_an_array_in_the_order_of_fortran(tmp_path: Path, save: Any) -> None:
    x = np.arange(120.0).reshape(10, 3, 4)
    save(tmp_path / "a", {"x": np.asfortranarray(x[:7])})
    save(tmp_path / "b", {"x": np.ascontiguousarray(x[7:])})
    rows = open_shards(tmp_path, ".", {"x": "x"})["x"]
    for start, stop in ((0, 10), (2, 5), (6, 8)):
        np.testing.assert_array_equal(rows[start:stop], x[start:stop].reshape(-1, 12))


@pytest.mark.parametrize("save", SAVES)
def test_a_list_of_one_name_is_a_column_and_a_name_is_not(
    tmp_path: Path, arrays: dict[str, Array], save: Any
) -> None:
    write(tmp_path, arrays, save, [1000])
    rows = open_shards(tmp_path, ".", {"one": ["y"], "bare": "y", "wide": ["x"]})
    assert (rows["one"].shape, rows["bare"].shape, rows["wide"].shape) == ((N, 1), (N,), (N, 3))
    np.testing.assert_array_equal(rows["one"][990:1010], arrays["y"][990:1010, None])
    np.testing.assert_array_equal(rows["bare"][990:1010], arrays["y"][990:1010])


@pytest.mark.parametrize("save", SAVES)
def test_shards_without_rows_are_passed_over(tmp_path: Path, arrays: dict[str, Array], save: Any) -> None:
    write(tmp_path, arrays, save, [0, 1000, 1000, N])
    rows = open_shards(tmp_path, ".", WANTED)
    np.testing.assert_array_equal(rows["x"][900:1100], arrays["x"][900:1100])
    np.testing.assert_array_equal(rows["y"][:], arrays["y"])


def test_what_may_be_absent_is_left_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((3, 2)))
    wanted = {"x": "x", "z": ["x"], "t": "t"}
    assert set(open_shards(tmp_path, ".", wanted, optional={"z", "t"})) == {"x", "z"}


class Doubled:
    """What labels are made of: `two` is 4."""

    def __call__(self, word: str) -> float:
        numbers = {"one": 2.0, "two": 4.0, "1": 2.0, "2": 4.0}
        if word not in numbers:
            raise ValueError(f"no number {word}")
        return numbers[word]


def save_dictionary(path: Path, part: dict[str, Array]) -> None:
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    import pyarrow.parquet as parquet

    columns = {name: arrow.array(array).dictionary_encode() for name, array in part.items()}
    parquet.write_table(arrow.table(columns), path.with_suffix(".parquet"), row_group_size=300)


@pytest.mark.parametrize("save", [save_npz, save_packed, save_folder, save_parquet, save_dictionary])
@pytest.mark.parametrize("words", [["one", "two"], [1, 2]])
def test_labels_have_their_numbers(tmp_path: Path, save: Any, words: list[Any]) -> None:
    y = np.array(words)[np.random.default_rng(0).integers(0, 2, N)]
    write(tmp_path, {"y": y}, save, [1000])
    rows = open_shards(tmp_path, ".", {"y": "y"}, labels={"y": Doubled()})["y"]
    again: ShardedRows = pickle.loads(pickle.dumps(rows))
    for found in (rows, again):
        np.testing.assert_array_equal(found[900:1100], np.where(y == words[0], 2.0, 4.0)[900:1100])


@pytest.mark.parametrize("save", [save_npz, save_packed, save_folder, save_parquet])
def test_a_label_without_a_number_is_named_with_its_row(tmp_path: Path, save: Any) -> None:
    y = np.array(["one"] * N)
    y[1500] = "six"
    write(tmp_path, {"y": y}, save, [1000])
    rows = open_shards(tmp_path, ".", {"y": "y"}, labels={"y": Doubled()})["y"]
    message = refusal(lambda: rows[1400:1600])
    where = f"array 'y' in shard part-001{ending(save)}"
    if save is save_parquet:
        where = "column 'y' of shard part-001.parquet"
    assert message == f"error: {where}, row 501: no number six"


def test_tensors_of_arrow_are_laid_flat_whatever_the_order_of_their_axes(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    import pyarrow.parquet as parquet

    images = np.arange(24.0).reshape(4, 2, 3)
    tensors = arrow.FixedShapeTensorArray.from_numpy_ndarray(images)
    turned = arrow.FixedShapeTensorArray.from_numpy_ndarray(images.transpose(0, 2, 1))
    assert turned.type.permutation == [1, 0]
    parquet.write_table(arrow.table({"x": tensors, "turned": turned}), tmp_path / "a.parquet")
    rows = open_shards(tmp_path, ".", {"x": "x", "turned": "turned"})
    np.testing.assert_array_equal(rows["x"][:], images.reshape(4, 6))
    np.testing.assert_array_equal(rows["turned"][:], images.transpose(0, 2, 1).reshape(4, 6))


def test_views_of_lists_are_read_as_lists_are(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    import pyarrow.parquet as parquet

    x = np.arange(24.0).reshape(4, 6)
    try:
        view = arrow.array(x.tolist(), arrow.list_view(arrow.float64()))
        parquet.write_table(arrow.table({"x": view}), tmp_path / "a.parquet")
    except arrow.ArrowNotImplementedError:
        pytest.skip("this pyarrow writes no views")
    np.testing.assert_array_equal(open_shards(tmp_path, ".", {"x": "x"})["x"][1:], x[1:])


@pytest.mark.parametrize("save", [save_npz, save_packed, save_parquet])
def test_rows_travel_to_other_processes(tmp_path: Path, arrays: dict[str, Array], save: Any) -> None:
    write(tmp_path, arrays, save, [1234])
    rows = open_shards(tmp_path, ".", WANTED)
    np.testing.assert_array_equal(rows["x"][:100], arrays["x"][:100])
    again: dict[str, ShardedRows] = pickle.loads(pickle.dumps(rows))
    np.testing.assert_array_equal(again["x"][1200:1300], arrays["x"][1200:1300])


# What is refused, by name.


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(RequestError) as error:
        call()
    return str(error.value)


def disguise(path: Path, seen: os.stat_result, like: os.stat_result | None = None) -> None:
    """The time of the contents is set back; the clock of inodes may stand for some milliseconds."""
    while path.stat().st_ctime_ns == seen.st_ctime_ns:
        os.utime(path, ns=(seen.st_atime_ns, (like or seen).st_mtime_ns))


@pytest.mark.parametrize("save", SAVES)
def test_a_truncated_shard_is_named(tmp_path: Path, arrays: dict[str, Array], save: Any) -> None:
    write(tmp_path, arrays, save, [1000, 2000])
    victim = next((tmp_path / "part-001").glob("x.npy"), None) or tmp_path / f"part-001{ending(save)}"
    victim.write_bytes(victim.read_bytes()[:-5000])
    assert "part-001" in refusal(lambda: open_shards(tmp_path, ".", WANTED)["x"][:])


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("harm", ["cut", "gone", "other", "disguised"])
def test_a_shard_that_changes_between_two_reads_is_named(
    tmp_path: Path, arrays: dict[str, Array], save: Any, harm: str
) -> None:
    write(tmp_path, arrays, save, [1000, 2000])
    rows = open_shards(tmp_path, ".", WANTED)
    np.testing.assert_array_equal(rows["x"][:100], arrays["x"][:100])
    victim = next((tmp_path / "part-002").glob("x.npy"), None) or tmp_path / f"part-002{ending(save)}"
    contents, seen = victim.read_bytes(), victim.stat()
    victim.unlink()
    if harm != "gone":
        victim.write_bytes(contents[: len(contents) // 2] if harm == "cut" else contents[:-1] + b"?")
    if harm == "disguised":
        disguise(victim, seen)
    assert "part-002" in refusal(lambda: rows["x"][2000:])


def test_each_process_holds_a_shard_to_the_time_that_it_saw(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(6.0).reshape(3, 2))
    rows, seen = open_shards(tmp_path, ".", {"x": "x"}), path.stat()
    sent = pickle.dumps(rows)
    disguise(path, seen)  # as if another machine told another time of the same file
    there: dict[str, ShardedRows] = pickle.loads(sent)
    assert there["x"][:].tolist() == [[0, 1], [2, 3], [4, 5]]
    np.savez(path, x=np.ones((3, 2)))
    disguise(path, path.stat(), seen)
    assert path.stat().st_size == seen.st_size
    assert "a.npz changed while it was in use" in refusal(lambda: there["x"][:])


@pytest.mark.parametrize("save", [save_npz, save_packed])
def test_a_flipped_bit_is_found_wherever_it_is(tmp_path: Path, save: Any) -> None:
    part = {"x": np.arange(1.0, 3001.0).reshape(1000, 3), "y": np.arange(2000, 3000)}
    path, told = tmp_path / "a.npz", []
    save(path, part)
    whole = path.read_bytes()
    for place in [*range(0, 300, 7), *range(300, len(whole), 997), *range(len(whole) - 300, len(whole), 7)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            rows = open_shards(tmp_path, ".", {"x": "x", "y": "y"})
            read = {name: rows[name][:] for name in part}
        except RequestError as error:
            told.append(str(error))
        else:
            for name, array in part.items():
                np.testing.assert_array_equal(read[name], array)
    assert len(told) > 60
    assert all("a.npz" in message for message in told)


def test_a_packed_array_is_held_to_its_checksum_behind_its_last_row(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.save(file, np.arange(6000.0).reshape(2000, 3))
    right = file.getvalue()
    wrong = right.replace(b"(2000, 3)", b"(1000, 3)")
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", wrong)
    sums = tuple(zlib.crc32(contents).to_bytes(4, "little") for contents in (wrong, right))
    contents = (tmp_path / "a.npz").read_bytes()
    assert contents.count(sums[0]) == 2
    (tmp_path / "a.npz").write_bytes(contents.replace(sums[0], sums[1]))
    assert "a.npz: Bad CRC-32" in refusal(lambda: open_shards(tmp_path, ".", {"x": "x"})["x"][:5])


def test_every_array_with_a_flipped_bit_is_named_before_any_is_read(tmp_path: Path) -> None:
    x = np.arange(1e6).reshape(-1, 4)
    for name in ("a", "b", "c"):
        np.savez(tmp_path / f"{name}.npz", x=x, spare=x[:9])
    for name, place in (("a", -100), ("c", 100)):
        path = tmp_path / f"{name}.npz"
        contents = bytearray(path.read_bytes())
        contents[contents.find(x[place].tobytes()) + 3] ^= 16
        path.write_bytes(contents)
    message = refusal(lambda: open_shards(tmp_path, ".", {"x": "x"}))
    assert [shard in message for shard in ("a.npz", "b.npz", "c.npz")] == [True, False, True]
    assert "array 'x'" in message


def test_arrays_that_nobody_asks_for_are_not_looked_at(tmp_path: Path) -> None:
    x = np.arange(12.0).reshape(4, 3)
    spare = {"turned": np.asfortranarray(x), "words": np.array([None, "a" * 999], dtype=object)}
    for name, array in {"x": x, **spare}.items():
        (tmp_path / "b").mkdir(exist_ok=True)
        np.save(tmp_path / "b" / f"{name}.npy", array)
    (tmp_path / "b" / "broken.npy").write_bytes(b"no array")
    np.savez(tmp_path / "a.npz", x=x, broken=x + 100)
    contents = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(contents.replace((x[2] + 100).tobytes(), x[2].tobytes()))
    np.testing.assert_array_equal(open_shards(tmp_path, ".", {"x": "x"})["x"][:], np.vstack([x, x]))
    assert "a.npz" in refusal(lambda: open_shards(tmp_path, ".", {"x": "broken"}))
    assert "array 'words' in shard b" in refusal(lambda: open_shards(tmp_path, "b", {"x": "words"}))


def test_parquet_pages_are_held_to_their_checksums(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    import pyarrow.parquet as parquet

    x, path = np.arange(1.0, 2001.0), tmp_path / "a.parquet"
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    parquet.write_table(arrow.table({"x": x}), path, write_page_checksum=True, **plain)
    contents = path.read_bytes()
    path.write_bytes(contents.replace(x[1000:1001].tobytes(), x[1:2].tobytes()))
    assert "cannot read shard a.parquet" in refusal(lambda: open_shards(tmp_path, ".", {"x": ["x"]})["x"][:])


def test_parquet_takes_memory_of_a_row_group_and_not_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "BATCH_BYTES", 2**20)
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    import pyarrow.parquet as parquet

    rng = np.random.default_rng(0)
    groups, rows = 24, 2**15
    columns = {name: rng.normal(size=groups * rows) for name in "xy"}
    parquet.write_table(arrow.table(columns), tmp_path / "a.parquet", row_group_size=rows)
    found = open_shards(tmp_path, ".", {"x": ["x", "y"]})["x"]
    held = []
    before = arrow.total_allocated_bytes()
    for start in range(0, groups * rows, rows):
        np.testing.assert_array_equal(found[start : start + rows][:9, 0], columns["x"][start : start + 9])
        held.append(arrow.total_allocated_bytes() - before)
    assert max(held) < 16 * rows * groups / 2  # all of it where pyarrow fetches ahead as it does by itself


def test_every_shard_that_does_not_fit_is_named_at_once(tmp_path: Path, arrays: dict[str, Array]) -> None:
    write(tmp_path, arrays, save_npz, [1000, 1500, 2000])
    np.savez(tmp_path / "part-001.npz", x=np.ones((3, 4)), y=np.ones(3), f=np.ones((3, 2)))
    np.savez(tmp_path / "part-002.npz", x=np.ones((3, 3)), y=np.ones(4), f=np.ones((3, 2)))
    np.savez(tmp_path / "part-003.npz", x=np.ones((3, 3)), y=np.array(["a", "b", "c"]), f=np.ones((3, 2)))
    message = refusal(lambda: open_shards(tmp_path, "*.npz", WANTED))
    assert "part-001.npz: expected x of the shape (·, 3) as in part-000.npz" in message
    assert "part-002.npz: expected as many rows" in message
    assert "array 'y' in shard part-003.npz" in message


def test_a_missing_array_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", inputs=np.ones((3, 4)))
    assert "no array 'x' in shard a.npz; there are 'inputs'" in refusal(
        lambda: open_shards(tmp_path, "*.npz", {"x": "x"})
    )


def test_shards_without_any_row_are_a_fault(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((0, 4)))
    assert "no rows in the shards under *.npz" in refusal(lambda: open_shards(tmp_path, "*.npz", {"x": "x"}))


def test_words_without_numbers_say_what_to_write(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", y=np.array(["cat", "dog"]))
    message = refusal(lambda: open_shards(tmp_path, "*.npz", {"y": "y"}))
    assert "array 'y' in shard a.npz: expected real numbers, got words; data.labels" in message


@pytest.mark.parametrize("name", ["b.npz", "b.parquet", "b/x.npy"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    def late(*_: Any) -> None:
        pytest.fail("it waits for somebody to write")

    np.savez(tmp_path / "a.npz", x=np.ones((3, 1)))
    (tmp_path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / name)
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(5)
    try:
        told = refusal(lambda: open_shards(tmp_path, ".", {"x": "x"}))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert f"{name}: expected an ordinary file" in told


def test_no_shards_at_all_are_a_fault(tmp_path: Path) -> None:
    def told(pattern: str) -> str:
        return refusal(lambda: open_shards(tmp_path, pattern, WANTED))

    assert "no shards under data/*.npz" in told("data/*.npz")
    assert "got nothing of this name: a pattern begins in the spec's folder" in told("data/*.npz")
    (tmp_path / "data" / "deep").mkdir(parents=True)
    assert "got a folder without any" in told("data/deep")
    for name in ("a.csv", "b.csv", "c.csv", "d.csv"):
        (tmp_path / "data" / "deep" / name).touch()
    assert "got a.csv, b.csv, c.csv and 1 more: save their arrays as one of these" in told("data/deep")
    assert "got a.csv: save" in told("data/*/a.*")
    for pattern in ("data", "data/*"):
        assert "got deep: name those further down as data/**/*.npz" in told(pattern)


@pytest.mark.parametrize("values", [[[1.0], [1.0, 2.0]], [[1.0], None], [["a"], ["b"]], [[1.0], [None]]])
def test_columns_that_are_no_rows_of_numbers_are_refused(tmp_path: Path, values: list[Any]) -> None:
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(arrow.table({"x": arrow.array(values)}), tmp_path / "a.parquet")
    assert "column 'x' of shard a.parquet" in refusal(lambda: open_shards(tmp_path, "*.parquet", {"x": "x"}))


@pytest.mark.parametrize(
    ("values", "row"),
    [
        ([1.0, 2.0, None], 3),
        ([[1.0, 2.0], [3.0, None]], 2),
        ([[[1, 2], [3, 4]], [[5, 6], None], [[7, 8], [9, 0]]], 2),
        ([[[1], [2]], [[3], [4]], [[5], [None]]], 3),
        ([[1, 2], [3, 4], [5]], 3),
        ([[[1, 2]], [[3, 4]], [[5]]], 3),
    ],
)
def test_an_entry_that_is_no_number_is_named_with_its_row(
    tmp_path: Path, values: list[Any], row: int
) -> None:
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(arrow.table({"x": arrow.array(values)}), tmp_path / "a.parquet")
    assert f"row {row}" in refusal(lambda: open_shards(tmp_path, "*.parquet", {"x": "x"}))


@pytest.mark.parametrize("save", [save_packed, save_parquet])
def test_a_lack_of_memory_is_no_damage(
    tmp_path: Path, arrays: dict[str, Array], monkeypatch: pytest.MonkeyPatch, save: Any
) -> None:
    def full(*given: Any, **named: Any) -> Any:
        raise MemoryError("full")

    write(tmp_path, arrays, save, [1000])
    rows = open_shards(tmp_path, ".", WANTED)
    if save is save_packed:
        monkeypatch.setattr("resnet_cert.problem.shards.npy.read_array", full)
    else:
        monkeypatch.setattr("pyarrow.parquet.ParquetFile.iter_batches", full)
    with pytest.raises(MemoryError, match="full"):
        rows["x"][:]
    if save is save_parquet:
        monkeypatch.setattr("pyarrow.parquet.ParquetFile.__init__", full)
        with pytest.raises(MemoryError, match="full"):
            open_shards(tmp_path, ".", WANTED)
