"""Bundles, the verifier's own process and its limits, the command: an answer whatever comes."""

from __future__ import annotations

import json
import os
import resource
import stat
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import forger
import numpy as np
import pytest
from click.testing import CliRunner, Result
from families import draw
from heads import Head
from reports import verify_here
from selections import first

from resnet_cert import RequestError
from resnet_cert.certificate import bundle, decision, supervision
from resnet_cert.certificate.supervision import verify
from resnet_cert.cli import cli
from resnet_cert.outcomes import Verdict

here = pytest.fixture(verify_here)
ONE = np.ones((1, 1))
SPEC = (
    "version: 1\ndata: {x: [[1]], y: [1]}\nloss: squared\nnetwork: {kind: identity}\n"
    "point: {w: [0.0], V: [[0.0]]}\nepsilon: 2.0\ndomain: {b: 1.0}\nlipschitz: {mu2: 4.0}\n"
)


def of_spec(folder: Path, text: str) -> Path:
    """A certificate that names this spec; it is true of SPEC."""
    head = Head(ONE, ONE, ONE, 0.0 * ONE, 0.0 * ONE)
    document, arrays = forger.certified(forger.Case(head, 2.0, 4.0, b=1.0))
    (folder / "problem.yaml").write_text(text)
    named = forger.named(folder / "problem.yaml")
    return forger.write(folder, forger.sealed({**document, "spec": named}, arrays), arrays)


def packed(folder: Path, path: Path) -> Path:
    """A bundle by hand of a certificate that names ./problem.yaml."""
    target = folder / "bundle.zip"
    with zipfile.ZipFile(target, "w") as archive:
        for name in (path.name, f"{path.name}.data", "problem.yaml", "data.npz", "point.npz"):
            if (path.parent / name).exists():
                archive.write(path.parent / name, name)
    return target


# Bundles


@pytest.mark.usefixtures("here")
def test_a_bundle_needs_nothing_else(tmp_path: Path) -> None:
    case = forger.at_threshold(draw(0, "generic", "softmax", q=3, bias=True), 1.1)
    (tmp_path / "made").mkdir()
    path = packed(tmp_path, forger.bound(tmp_path / "made", case, forger.certified(case)))
    for left in (tmp_path / "made").iterdir():
        left.unlink()
    found = verify(path)
    assert (found.verdict, found.features) == (Verdict.CERTIFIED, "bitwise")
    assert found.spec is not None
    assert found.spec.path == f"{path}:problem.yaml"
    assert list(tmp_path.iterdir()) in ([path, tmp_path / "made"], [tmp_path / "made", path])


def member(name: str, **attributes: Any) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    for key, value in attributes.items():
        setattr(made, key, value)
    return made


LINK = {"external_attr": (stat.S_IFLNK | 0o777) << 16}


@pytest.mark.parametrize(
    "bad",
    [
        member("../outside.txt"),
        member("files/../../outside.txt"),
        member("/tmp/outside.txt"),
        member("C:outside.txt"),
        member("a\\b"),
        member("./a"),
        member("a//b"),
        member("a\n"),
        member("folder/"),
        member("link", **LINK),
        member("pipe", external_attr=(stat.S_IFIFO | 0o644) << 16),
        member("CERTIFICATE.json"),
    ],
    ids=lambda made: ascii(made.filename),
)
@pytest.mark.usefixtures("here")
def test_what_no_bundle_has_is_rejected_and_nothing_is_unpacked(tmp_path: Path, bad: zipfile.ZipInfo) -> None:
    path = packed(tmp_path, of_spec(tmp_path, SPEC))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(bad, "/etc/passwd")
    (tmp_path / "into").mkdir()
    with pytest.raises(bundle.Rejected, match="bundle"):
        bundle.unpack(path, tmp_path / "into")
    assert not list((tmp_path / "into").iterdir())
    assert verify(path).exit_code == 30


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path, of_spec(tmp_path, SPEC))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10**7))
    assert path.stat().st_size < 10**5
    (tmp_path / "into").mkdir()
    with pytest.raises(bundle.Undecided, match="unpacks to"):
        bundle.unpack(path, tmp_path / "into", most=10**6)
    assert not list((tmp_path / "into").iterdir())
    raw = path.read_bytes()
    path.write_bytes(raw.replace((10**7).to_bytes(4, "little"), (10**3).to_bytes(4, "little")))
    with pytest.raises((RequestError, bundle.Rejected)):  # it says that it is small
        bundle.unpack(path, tmp_path / "into", most=10**6)
    assert not (tmp_path / "into" / "zeros").exists() or (tmp_path / "into" / "zeros").stat().st_size <= 10**6


@pytest.mark.parametrize("raw", first(2, [b"", b"PK", b"no archive", bytes(1000)]))
@pytest.mark.usefixtures("here")
def test_what_is_no_archive_is_a_wrong_request(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "bundle.zip").write_bytes(raw)
    with pytest.raises(RequestError, match="bundle"):
        verify(tmp_path / "bundle.zip")


@pytest.mark.usefixtures("here")
def test_an_incomplete_bundle_names_what_it_lacks(tmp_path: Path) -> None:
    case = forger.at_threshold(draw(0), 1.1)
    made = forger.bound(tmp_path, case, forger.certified(case))
    (tmp_path / "point.npz").unlink()
    with pytest.raises(RequestError, match=r"bundle\.zip:point\.npz"):
        verify(packed(tmp_path, made))


# The process and its limits


@pytest.mark.usefixtures("here")
def test_the_arrays_alone_are_verified_without_a_spec(tmp_path: Path) -> None:
    path = of_spec(tmp_path, SPEC)
    (tmp_path / "problem.yaml").unlink()
    found = verify(path, arrays=True)
    assert (found.verdict, found.spec, found.features) == (Verdict.CERTIFIED, None, "as stored")
    assert found.headline.startswith("ARRAYS ONLY: CERTIFIED, ε = 2.0, for the stored arrays")


HUGE = {
    "a drawn sample": (
        "data: {x: [[1]], y: [1]}",
        "data: {sample: {n: 268435456, d: 1, y: {teacher: linear}}}",
    ),
    "a deep network": ("kind: identity", f"kind: mlp, activation: tanh, widths: [{', '.join(['1'] * 3000)}]"),
    "a wide network": ("kind: identity", "kind: mlp, activation: tanh, widths: [268435455, 1]"),
    "a number": ("epsilon: 2.0", "epsilon: 0x" + "f" * 256),
    "aliases": ("version: 1", "version: 1\nname: &a [" + "x, " * 1000 + "]\nz: [" + "*a, " * 1000 + "]"),
}


@pytest.mark.parametrize("change", first(1, [(change,) for change in HUGE.values()]), ids=HUGE)
def test_what_would_take_gigabytes_or_hours_is_answered_at_once(
    tmp_path: Path, change: tuple[str, str]
) -> None:
    started = time.monotonic()
    found = verify(of_spec(tmp_path, SPEC.replace(*change)), budget=20.0)
    assert found.verdict in (None, Verdict.UNDECIDED)
    assert time.monotonic() - started < 30.0


def sparse(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(6 * 10**9)


@pytest.mark.parametrize("name", ["problem.yaml", forger.NAME, f"{forger.NAME}.data"])
@pytest.mark.usefixtures("here")
def test_a_sparse_file_is_not_read(tmp_path: Path, name: str) -> None:
    path = of_spec(tmp_path, SPEC)
    sparse(tmp_path / name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert verify(path, budget=20.0).exit_code in (20, 30)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 10**6  # KiB: 1 GB


@pytest.mark.parametrize("name", ["problem.yaml", forger.NAME, f"{forger.NAME}.data"])
@pytest.mark.usefixtures("here")
def test_what_is_no_ordinary_file_is_not_waited_for(tmp_path: Path, name: str) -> None:
    path = of_spec(tmp_path, SPEC)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(RequestError):
        verify(path, budget=20.0)


def tall(d: int, k: int, epsilon: float, mu2: float) -> tuple[forger.Document, forger.Arrays]:
    """One sample of many inputs, with a claim that says next to nothing."""
    rng = np.random.default_rng(0)
    small = Head(ONE, ONE, ONE, 0.0 * ONE, 0.0 * ONE)
    document, _ = forger.certificate(forger.Case(small, epsilon, mu2, b=1.0), "CERTIFIED")
    head = Head(rng.normal(size=(1, d)), ONE, rng.normal(size=(1, k)), np.zeros((1, d)), np.zeros((d, k)))
    document["claim"] |= {"d": d, "k": k}
    unknown = {"lower": None, "upper": None}
    document["bounds"] = dict.fromkeys(document["bounds"], unknown)
    arrays = forger.arrays_of(head)
    return forger.sealed(document, arrays), arrays


def test_thousands_of_inputs_are_no_abort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verify(forger.write(tmp_path, *tall(8000, 2, 1e6, 1.0))).verdict is Verdict.CERTIFIED
    verify_here(monkeypatch)
    found = verify(forger.write(tmp_path, *tall(8000, 2, 100.0, 1e-12)))
    assert found.verdict is Verdict.UNDECIDED
    assert "left of the budget" in found.reasons[-1]


CRASHES: dict[str, str] = {
    "SIGABRT": "os.abort()",
    "SIGSEGV": "ctypes.string_at(0)",
    "SIGBUS": "os.kill(os.getpid(), signal.SIGBUS)",
    "exit code 3": "os._exit(3)",
    "GB of memory": "bytearray(10**10)",
    "longer than the budget": "time.sleep(60)",
}


@pytest.mark.parametrize(("words", "crash"), first(1, CRASHES.items()), ids=CRASHES)
def test_whatever_ends_the_process_there_is_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, crash: str
) -> None:
    """Where the work is to begin, something below Python ends it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import ctypes, os, signal, time\n"
        "import resnet_cert.certificate.decision as decision\n"
        f"decision.Facts = lambda *arguments: {crash}\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(supervision, "GRACE", 1.0)
    found = verify(of_spec(tmp_path, SPEC), budget=5.0 if "budget" in words else 60.0)
    assert (found.verdict, found.exit_code) == (Verdict.UNDECIDED, 20)
    assert words in found.reasons[-1]
    assert found.claim is not None
    assert found.headline.startswith("UNDECIDED, ε = 2.0, for ")


@pytest.mark.usefixtures("here")
def test_a_fault_of_the_verifier_is_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision, "Facts", lambda *arguments: 1 / 0)
    with pytest.raises(Exception, match="ZeroDivisionError"):
        verify(of_spec(tmp_path, SPEC))


@pytest.mark.parametrize("change", first(1, ["flip", "cut"]))
def test_a_file_that_changes_meanwhile_is_never_accepted_for_what_it_was_not(
    tmp_path: Path, change: str, longer: int
) -> None:
    """A .npy file of the spec, which is mapped, alternates between the stored numbers and others."""
    n = 200
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 2))
    head = Head(x, rng.normal(size=(n, 1)), x, np.zeros((1, 2)), np.zeros((2, 2)))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", head.y[:, 0])
    text = SPEC.replace("x: [[1]], y: [1]", "x: x.npy, y: y.npy").replace(
        "w: [0.0], V: [[0.0]]", "w: [0, 0], V: [[0, 0], [0, 0]]"
    )
    (tmp_path / "problem.yaml").write_text(text.replace("epsilon: 2.0", "epsilon: 50.0"))
    case = forger.Case(head, 50.0, 4.0, b=1.0)
    document, arrays = forger.certificate(case, "CERTIFIED")
    arrays["x"] = x + 1.0  # not the spec's
    named = forger.named(tmp_path / "problem.yaml")
    path = forger.write(tmp_path, forger.sealed({**document, "spec": named}, arrays), arrays)
    right, wrong = (tmp_path / "x.npy").read_bytes(), bytearray((tmp_path / "x.npy").read_bytes())
    wrong[-8 * 2 * n :] = arrays["x"].tobytes()
    stop = threading.Event()

    def meddle() -> None:
        while not stop.is_set():
            with (tmp_path / "x.npy").open("r+b") as file:
                if change == "cut":
                    file.truncate(200)
                file.write(right)
                file.seek(0)
                file.write(bytes(wrong) if change == "flip" else right[:200])
            time.sleep(1e-3)

    thread = threading.Thread(target=meddle)
    thread.start()
    try:
        for _ in range(2 * longer):
            try:
                found = verify(path, budget=30.0)
            except RequestError:
                continue
            assert found.verdict in (None, Verdict.UNDECIDED), found
    finally:
        stop.set()
        thread.join()


# The command


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["verify", *arguments], env={"COLUMNS": "200"})


@pytest.mark.usefixtures("here")
def test_the_first_line_says_it_all_and_the_json_document_says_the_same(tmp_path: Path) -> None:
    path = of_spec(tmp_path, SPEC)
    text, document = run(str(path)), run(str(path), "--format", "json")
    assert (text.exit_code, document.exit_code) == (0, 0)
    assert text.stdout.splitlines()[0] == f"CERTIFIED, ε = 2.0, for {tmp_path / 'problem.yaml'}"
    said = json.loads(document.stdout)
    assert (said["schema"], said["verdict"], said["features"]) == (
        "resnet-cert/verify/1",
        "CERTIFIED",
        "bitwise",
    )
    assert said["spec"] == {**forger.named(tmp_path / "problem.yaml"), "path": str(tmp_path / "problem.yaml")}
    assert run(str(path), "--arrays").stdout.startswith("ARRAYS ONLY: CERTIFIED")
    (tmp_path / "problem.yaml").unlink()
    gone = run(str(path))
    assert (gone.exit_code, gone.stdout) == (2, "")
    assert "problem.yaml" in gone.stderr
    assert run(str(path), "--budget", "0").exit_code == 2


def test_the_documentation_has_the_answers_sentences() -> None:
    from resnet_cert.certificate import verification

    page = (Path(__file__).parents[3] / "docs" / "certificate.md").read_text()
    sentences = [
        value for name, value in vars(verification).items() if name.isupper() and isinstance(value, str)
    ]
    for sentence in [*sentences, *verification.PROVEN.values()]:
        if " " in sentence and sentence != verification.AS_STORED:
            assert sentence in page, sentence
