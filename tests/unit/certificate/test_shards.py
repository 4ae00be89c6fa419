"""Certificates of data in shards: verified wherever they lie, and a shard that is not the same is named."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forger
import numpy as np
import pytest
from click.testing import CliRunner
from families import draw
from reports import leave_out_crosscheck, verify_here
from selections import first

from resnet_cert import Problem, RequestError, Verdict, verify
from resnet_cert.certificate import bundle, supervision
from resnet_cert.certificate.decision import decide
from resnet_cert.certificate.writing import write_certificate
from resnet_cert.check import check, examine
from resnet_cert.cli import cli
from resnet_cert.spec import load_spec

Arrays = dict[str, np.ndarray]
N, CUTS = 40, (0, 13, 26, 40)
RUN = supervision._run  # as it is: in a process of its own


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_crosscheck(monkeypatch)
    verify_here(monkeypatch)


def save_npz(path: Path, part: Arrays) -> None:
    np.savez(path.with_suffix(".npz"), allow_pickle=False, **part)


def save_packed(path: Path, part: Arrays) -> None:
    np.savez_compressed(path.with_suffix(".npz"), allow_pickle=False, **part)


def save_folder(path: Path, part: Arrays) -> None:
    path.mkdir(exist_ok=True)
    for name, array in part.items():
        np.save(path / f"{name}.npy", array)


def save_parquet(path: Path, part: Arrays) -> None:
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    import pyarrow.parquet as parquet

    columns = {name: arrow.array(array.tolist()) for name, array in part.items()}
    parquet.write_table(arrow.table(columns), path.with_suffix(".parquet"))


Save = Callable[[Path, Arrays], None]
SHARDS: dict[str, tuple[Save, str]] = {
    "npz": (save_npz, "rows/*.npz"),
    "packed": (save_packed, "rows"),
    "folders": (save_folder, "rows/p*"),
    "folder of folders": (save_folder, "rows"),
    "parquet": (save_parquet, "rows/*.parquet"),
    "one parquet": (save_parquet, "rows/p1.parquet"),
}


def numbers(seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    x, f = rng.normal(size=(N, 3)), np.tanh(rng.normal(size=(N, 2)))
    return {"x": x, "y": x @ [1.0, -1.0, 0.5] + 0.3 * f[:, 0] + 0.1 * rng.normal(size=N), "f": f}


def rows_of(arrays: Arrays, i: int) -> Arrays:
    return {name: array[CUTS[i] : CUTS[i + 1]] for name, array in arrays.items()}


def spec(folder: Path, kind: str) -> Path:
    """A spec of shards p0, p1, p2."""
    save, pattern = SHARDS[kind]
    (folder / "rows").mkdir(parents=True)
    for i in range(3):
        save(folder / "rows" / f"p{i}", rows_of(numbers(), i))
    path = folder / "problem.yaml"
    path.write_text(
        f"version: 1\ndata: {{shards: '{pattern}'}}\nloss: squared\nnetwork: {{kind: given}}\n"
        "point: {w: [1.0, -1.0, 0.5], V: [[0.3, 0], [0, 0], [0, 0]]}\nepsilon: 0.5\n"
    )
    return path


def certify(of: Path, path: Path) -> None:
    """What `check --certificate` does."""
    loaded = load_spec(of, writes=[str(path), f"{path}.data"])
    made = examine(loaded.problem, spec=loaded.source, break_even=False)
    assert isinstance(made.problem, Problem)
    write_certificate(path, made.problem, made.report, direction=made.decision.curvature.direction)


def shard(folder: Path, kind: str, i: int) -> Path:
    ending = "" if "folder" in kind else ".parquet" if "parquet" in kind else ".npz"
    return folder / "rows" / f"p{i}{ending}"


def refusal(path: Path) -> str:
    with pytest.raises(RequestError) as raised:
        verify(path)
    return "\n".join(map(str, raised.value.diagnostics))


@pytest.mark.parametrize("kind", SHARDS)
def test_certificates_of_shards_are_verified_anywhere(tmp_path: Path, kind: str) -> None:
    of = spec(tmp_path / "here", kind)
    for name in ("c.json", "c.zip"):
        certify(of, tmp_path / "here" / name)
    away = (tmp_path / "here").rename(tmp_path / "away")
    (tmp_path / "bundle").mkdir()
    shutil.copy(away / "c.zip", tmp_path / "bundle")
    found = [verify(away / "c.json"), verify(tmp_path / "bundle" / "c.zip")]
    shutil.rmtree(away)
    found.append(verify(tmp_path / "bundle" / "c.zip"))
    assert [(one.verdict, one.features) for one in found] == 3 * [(Verdict.CERTIFIED, "bitwise")]


@pytest.mark.parametrize("kind", ["npz", "packed", "folders", "parquet"])
def test_every_shard_that_is_missing_is_named_as_such(tmp_path: Path, kind: str) -> None:
    certify(spec(tmp_path, kind), tmp_path / "c.json")
    for i in (0, 2):
        gone = shard(tmp_path, kind, i)
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    told = refusal(tmp_path / "c.json")
    for i, missing in enumerate([True, False, True]):
        assert (str(shard(tmp_path, kind, i)) in told) is missing
    shutil.rmtree(tmp_path / "rows")
    assert str(tmp_path / SHARDS[kind][1]) in refusal(tmp_path / "c.json")


def test_an_array_that_is_missing_in_a_folder_is_a_missing_file(tmp_path: Path) -> None:
    certify(spec(tmp_path, "folders"), tmp_path / "c.json")
    (tmp_path / "rows" / "p1" / "f.npy").unlink()
    assert "rows/p1" in refusal(tmp_path / "c.json")
    for file in (tmp_path / "rows" / "p1").iterdir():
        file.unlink()
    assert "rows/p1/*.npy: error: a file that the certificate needs" in refusal(tmp_path / "c.json")


def test_a_folder_without_shards_is_named(tmp_path: Path) -> None:
    certify(spec(tmp_path, "packed"), tmp_path / "c.json")
    for file in (tmp_path / "rows").iterdir():
        file.unlink()
    assert f"{tmp_path}/rows/*: error: a file that the certificate needs: it is not there" in refusal(
        tmp_path / "c.json"
    )


def test_comparators_may_have_the_names_of_keys(tmp_path: Path) -> None:
    of = spec(tmp_path, "npz")
    compare = "compare: {shards: x, python: [f], file: f}"
    of.write_text(of.read_text().replace("rows/*.npz'", f"rows/*.npz', {compare}"))
    certify(of, tmp_path / "c.json")
    assert verify(tmp_path / "c.json").verdict is Verdict.CERTIFIED


def test_a_package_that_is_missing_is_no_fault_of_the_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certify(spec(tmp_path, "parquet"), tmp_path / "c.json")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert "resnet-cert[parquet]" in refusal(tmp_path / "c.json")


@pytest.mark.parametrize("memory", first(1, [1.45e9, 1.475e9, 0.55e9]))
def test_parquet_takes_no_gigabyte_of_the_verifiers_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: float
) -> None:
    """As one of Arrow's allocators reserves it where there is one, and leaves no room for a thread."""
    certify(spec(tmp_path, "parquet"), tmp_path / "c.json")
    monkeypatch.setattr(supervision, "MEMORY", memory)
    monkeypatch.setattr(supervision, "_run", RUN)
    assert verify(tmp_path / "c.json").verdict is Verdict.CERTIFIED


def test_a_thread_that_finds_no_memory_is_no_fault_of_the_verifier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*given: Any) -> Any:
        raise RuntimeError("can't start new thread")

    certify(spec(tmp_path, "packed"), tmp_path / "c.json")
    monkeypatch.setattr("threading.Thread.start", none)
    found = verify(tmp_path / "c.json")
    assert found.verdict is Verdict.UNDECIDED
    assert "memory" in found.reasons[-1]


@pytest.mark.parametrize("kind", ["npz", "packed", "folders", "parquet"])
def test_a_shard_that_cannot_be_read_is_no_fault_of_the_certificate(tmp_path: Path, kind: str) -> None:
    certify(spec(tmp_path, kind), tmp_path / "c.json")
    one = shard(tmp_path, kind, 1)
    one = one / "x.npy" if one.is_dir() else one
    one.write_bytes(one.read_bytes()[:-50])
    assert f"rows/p1{'/x.npy' if kind == 'folders' else one.suffix}" in refusal(tmp_path / "c.json")


@pytest.mark.parametrize("kind", ["npz", "packed", "folder of folders", "parquet"])
def test_a_shard_that_is_another_is_named(tmp_path: Path, kind: str) -> None:
    of = spec(tmp_path, kind)
    certify(of, tmp_path / "c.json")
    save, one = SHARDS[kind][0], shard(tmp_path, kind, 1)

    def rejected(names: str) -> None:
        found = decide(tmp_path / "c.json")
        assert found.exit_code == 30
        assert names in found.reasons[0], found.reasons

    for key in ("x", "y", "f"):
        changed = {name: array.copy() for name, array in rows_of(numbers(), 1).items()}
        changed[key][5] += 2.0**-40
        save(one.with_suffix(""), changed)
        rejected(one.name)
    save(one.with_suffix(""), {name: array[:-1] for name, array in rows_of(numbers(), 1).items()})
    rejected(f"expected 13 rows in rows/{one.name}, got 12")
    save(one.with_suffix(""), {name: np.concatenate([a, a]) for name, a in rows_of(numbers(), 1).items()})
    rejected(f"expected 13 rows in rows/{one.name}, got 26")
    save(one.with_suffix(""), rows_of(numbers(), 1))
    assert decide(tmp_path / "c.json").verdict is Verdict.CERTIFIED

    save(tmp_path / "rows" / "p3", rows_of(numbers(), 1))
    rejected(shard(tmp_path, kind, 3).name)
    shard(tmp_path, kind, 3).rename(tmp_path / "p3")
    one.rename(shard(tmp_path, kind, 7))
    assert str(one) in refusal(tmp_path / "c.json")


@pytest.mark.parametrize("kind", ["npz", "folders"])
def test_shards_that_are_swapped_are_found(tmp_path: Path, kind: str) -> None:
    certify(spec(tmp_path, kind), tmp_path / "c.json")
    first, second = shard(tmp_path, kind, 0), shard(tmp_path, kind, 1)
    first.rename(tmp_path / "kept")
    second.rename(first)
    (tmp_path / "kept").rename(second)
    found = decide(tmp_path / "c.json")
    assert found.exit_code == 30
    assert f"shard rows/{first.name}" in found.reasons[0]


MUTANTS: dict[str, Callable[[list[Any]], Any]] = {
    "none": lambda shards: [],
    "null": lambda shards: None,
    "fewer": lambda shards: shards[:-1],
    "swapped": lambda shards: [shards[1], shards[0], shards[2]],
    "twice": lambda shards: [*shards, shards[0]],
    "more": lambda shards: [*shards, {"path": "problem.yaml", "rows": 1}],
    "renamed": lambda shards: [{**shards[0], "path": "rows/../rows/p0.npz"}, *shards[1:]],
    "moved": lambda shards: [
        {**shards[0], "rows": shards[0]["rows"] + 1},
        {**shards[1], "rows": shards[1]["rows"] - 1},
        shards[2],
    ],
    "negative": lambda shards: [{**shards[0], "rows": -1}, *shards[1:]],
    "a word": lambda shards: [{**shards[0], "rows": "13"}, *shards[1:]],
    "true": lambda shards: [{**shards[0], "rows": True}, *shards[1:]],
    "another key": lambda shards: [{**shards[0], "x": 1}, *shards[1:]],
    "no path": lambda shards: [{"rows": 13}, *shards[1:]],
}


@pytest.mark.parametrize("change", MUTANTS.values(), ids=MUTANTS)
def test_a_forger_names_no_other_shards(tmp_path: Path, change: Callable[[list[Any]], Any]) -> None:
    certify(spec(tmp_path, "npz"), tmp_path / "c.json")
    document = json.loads((tmp_path / "c.json").read_text())
    shards = document["spec"]["shards"]
    assert shards == [{"path": f"rows/p{i}.npz", "rows": CUTS[i + 1] - CUTS[i]} for i in range(3)]
    mutant = forger.sealed(forger.changed(document, ("spec", "shards"), change(shards)))
    (tmp_path / "c.json").write_text(json.dumps(mutant))
    assert decide(tmp_path / "c.json").exit_code == 30


def test_a_spec_of_one_file_has_no_shards(tmp_path: Path) -> None:
    of = spec(tmp_path, "npz")
    of.write_text(of.read_text().replace("shards: 'rows/*.npz'", "file: rows/p0.npz"))
    certify(of, tmp_path / "c.json")
    document = json.loads((tmp_path / "c.json").read_text())
    assert "shards" not in document["spec"]
    for shards in ([{"path": "rows/p0.npz", "rows": CUTS[1]}], []):
        mutant = forger.changed(document, ("spec", "shards"), shards)
        (tmp_path / "c.json").write_text(json.dumps(forger.sealed(mutant)))
        assert decide(tmp_path / "c.json").exit_code == 30


def test_the_first_format_lists_no_shards(tmp_path: Path) -> None:
    case = forger.at_threshold(draw(0, "generic", "squared", q=1, d2=0, bias=False), 1.5)
    document, arrays = forger.as_format_1(*forger.certified(case))
    named = forger.named(forger.spec(tmp_path, case))
    for extra, code in (({}, 0), ({"shards": [{"path": "data.npz", "rows": 1}]}, 30)):
        first = forger.sealed({**document, "spec": {**named, **extra}})
        assert decide(forger.write(tmp_path, first, arrays)).exit_code == code


def test_a_certificate_that_lists_no_shards_is_still_held_to_their_numbers(tmp_path: Path) -> None:
    """As they were written before."""
    certify(spec(tmp_path, "npz"), tmp_path / "c.json")
    document = json.loads((tmp_path / "c.json").read_text())
    del document["spec"]["shards"]
    (tmp_path / "c.json").write_text(json.dumps(forger.sealed(document)))
    assert decide(tmp_path / "c.json").verdict is Verdict.CERTIFIED
    save_npz(tmp_path / "rows" / "p1", rows_of(numbers(1), 1))
    found = decide(tmp_path / "c.json")
    assert found.exit_code == 30
    assert "shard rows/p1.npz" in found.reasons[0]


def test_shards_named_by_an_absolute_path_stay_where_they_are(tmp_path: Path) -> None:
    of = spec(tmp_path / "data", "npz")
    (tmp_path / "specs").mkdir()
    text = of.read_text().replace("rows/*.npz", str(tmp_path / "data" / "rows" / "*.npz"))
    (tmp_path / "specs" / "problem.yaml").write_text(text)
    certify(tmp_path / "specs" / "problem.yaml", tmp_path / "specs" / "c.json")
    (tmp_path / "a").mkdir()
    (tmp_path / "specs").rename(tmp_path / "a" / "specs")
    assert decide(tmp_path / "a" / "specs" / "c.json").verdict is Verdict.CERTIFIED


# Bundles


def test_a_bundle_has_the_names_of_the_spec_wherever_links_lead(tmp_path: Path) -> None:
    """Shards that lie on another disk."""
    of = spec(tmp_path / "here", "npz")
    (tmp_path / "here" / "rows").rename(tmp_path / "disk")
    (tmp_path / "here" / "rows").symlink_to(tmp_path / "disk")
    (tmp_path / "link").symlink_to(tmp_path / "here")
    for place in ("here", "link"):
        certify(tmp_path / place / of.name, tmp_path / f"{place}.zip")
    shutil.rmtree(tmp_path / "here")
    shutil.rmtree(tmp_path / "disk")
    for place in ("here", "link"):
        assert verify(tmp_path / f"{place}.zip").verdict is Verdict.CERTIFIED


def test_a_path_that_leads_nowhere_from_a_bundle_is_refused(tmp_path: Path) -> None:
    of = spec(tmp_path, "npz")
    of.write_text(of.read_text().replace("rows/*", f"{tmp_path}/rows/*"))
    with pytest.raises(RequestError, match=r"p0\.npz.*relative to the spec for a bundle"):
        certify(of, tmp_path / "c.zip")
    assert not (tmp_path / "c.zip").exists()


@pytest.mark.parametrize(("limit", "words"), [("MOST_MEMBERS", "3 files"), ("MOST_BYTES", "5 bytes")])
def test_a_bundle_that_could_not_be_unpacked_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, words: str
) -> None:
    monkeypatch.setattr(bundle, limit, 5)
    with pytest.raises(RequestError, match=rf"{words}.*\.json"):
        certify(spec(tmp_path, "npz"), tmp_path / "c.zip")
    assert not (tmp_path / "c.zip").exists()


def test_what_no_bundle_can_hold_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "MOST_MEMBERS", 5)
    began = sys.modules["resnet_cert.check"]
    monkeypatch.setattr(began, "examine", lambda *given, **named: pytest.fail("it began"))
    command = ["check", str(spec(tmp_path, "npz")), "--certificate", str(tmp_path / "c.zip")]
    done = CliRunner().invoke(cli, command)
    assert (done.exit_code, done.stdout) == (2, ""), done.output


@pytest.mark.parametrize("name", ["rows/p1.npz", "problem.yaml"])
@pytest.mark.parametrize("ending", ["", ".data"])
def test_a_report_writes_its_certificate_over_nothing_that_it_was_read_from(
    tmp_path: Path, name: str, ending: str
) -> None:
    of = spec(tmp_path, "npz")
    loaded = load_spec(of)
    report = check(loaded.problem, spec=loaded.source)
    before = (tmp_path / name).read_bytes()
    if ending:
        (tmp_path / "c.data").hardlink_to(tmp_path / name)
    with pytest.raises(RequestError, match="which is read"):
        report.certificate(tmp_path / ("c" if ending else name))
    assert (tmp_path / name).read_bytes() == before
