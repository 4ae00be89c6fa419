"""Rows in many files: the same numbers however they are cut, and no shard that is half read."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnet_cert.outcomes import RequestError
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


@pytest.mark.parametrize("save", SAVES)
def test_a_truncated_shard_is_named(tmp_path: Path, arrays: dict[str, Array], save: Any) -> None:
    write(tmp_path, arrays, save, [1000, 2000])
    victim = next((tmp_path / "part-001").glob("x.npy"), None) or tmp_path / f"part-001{ending(save)}"
    victim.write_bytes(victim.read_bytes()[:-5000])
    assert "part-001" in refusal(lambda: open_shards(tmp_path, ".", WANTED)["x"][:])


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("harm", ["cut", "gone", "other"])
def test_a_shard_that_changes_between_two_reads_is_named(
    tmp_path: Path, arrays: dict[str, Array], save: Any, harm: str
) -> None:
    write(tmp_path, arrays, save, [1000, 2000])
    rows = open_shards(tmp_path, ".", WANTED)
    np.testing.assert_array_equal(rows["x"][:100], arrays["x"][:100])
    victim = next((tmp_path / "part-002").glob("x.npy"), None) or tmp_path / f"part-002{ending(save)}"
    contents = victim.read_bytes()
    victim.unlink()
    if harm != "gone":
        victim.write_bytes(contents[: len(contents) // 2] if harm == "cut" else contents[:-1] + b"?")
    assert "part-002" in refusal(lambda: rows["x"][2000:])


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
