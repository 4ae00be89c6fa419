"""What is written where: nothing that a command reads is ever lost, and what it writes is there whole."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from click.testing import CliRunner, Result
from reports import leave_out_crosscheck

from resnet_cert.cli import cli

PROGRAM = [sys.executable, "-m", "resnet_cert"]
OUTPUTS = {
    "output": "check {spec} --output {file}",
    "format": "check {spec} --format json:{file}",
    "certificate": "check {spec} --certificate {file}",
    "witness": "check {spec} --witness {file}",
    "solve": "solve {spec} --output {file}",
    "sgd": "sgd {spec} --steps 3 --output {file}",
    "landscape": "landscape {spec} --output {file}",
    "profile": "profile {spec} --output {file}",
    "bound": "bound {spec} --output {file}",
    "bundle": "check {spec} --certificate {file}",
}
ENDINGS = {"witness": ".npz", "solve": ".npz", "bundle": ".zip"} | dict.fromkeys(
    ("sgd", "landscape", "profile", "bound"), ".png"
)
SPEC = """\
version: 1
data: {data}
loss: squared
network: {network}
point: {point}
epsilon: 0.1
"""


def run(command: str) -> Result:
    result = CliRunner().invoke(cli, [*command.split()])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a spec and every kind of file that a spec names."""
    leave_out_crosscheck(monkeypatch)
    monkeypatch.chdir(tmp_path)
    x, y = np.array([[1.0], [2.0], [-1.0]]), np.array([1.0, 0.0, 1.0])
    np.savez("data.npz", x=x, y=y, f=x)
    np.save("x.npy", x)
    np.savez("point.npz", w=np.array([0.5]), V=np.array([[0.25]]))
    np.savez("theta.npz", w=np.array([[1.0]]))
    Path("table.csv").write_text("a,b\n1,0\n2,1\n")
    Path("nets.py").write_text("from helper import twice\ndef f(x):\n    return twice(x)\n")
    Path("helper.py").write_text("def twice(x):\n    return 2.0 * x\n")
    Path("shards").mkdir()
    np.savez("shards/0.npz", x=x, y=y)
    Path("folders/0").mkdir(parents=True)
    np.save("folders/0/x.npy", x)
    np.save("folders/0/y.npy", y)
    Path("deep/er").mkdir(parents=True)
    np.savez("deep/er/0.npz", x=x, y=y)
    point, layers = "{w: [0.5], V: [[0.25]]}", "[{weight: w}]"
    specs = {
        "data.npz": ("{file: data.npz}", "{kind: given}", point),
        "x.npy": ("{x: x.npy, y: [1, 0, 1]}", "{kind: identity}", point),
        "point.npz": ("{x: x.npy, y: [1, 0, 1]}", "{kind: identity}", "{file: point.npz}"),
        "theta.npz": (
            "{x: x.npy, y: [1, 0, 1]}",
            f"{{kind: mlp, activation: relu, file: theta.npz, layers: {layers}}}",
            point,
        ),
        "table.csv": ("{file: table.csv, x: [a], y: b}", "{kind: identity}", point),
        "nets.py": ("{x: x.npy, y: [1, 0, 1]}", "{python: 'nets.py:f'}", point),
        "helper.py": ("{x: x.npy, y: [1, 0, 1]}", "{python: 'nets.py:f'}", point),
        "shards/0.npz": ("{shards: 'shards/*.npz'}", "{kind: identity}", point),
        "folders/0/x.npy": ("{shards: folders}", "{kind: identity}", point),
        "deep/er/0.npz": ("{shards: 'deep/**/*.npz'}", "{kind: identity}", point),
    }
    for read, (data, network, at) in specs.items():
        spec = SPEC.format(data=data, network=network, point=at)
        Path(f"reads-{read.replace('/', '-')}.yaml").write_text(spec)
    return tmp_path


SIMPLE = "reads-x.npy.yaml"
READS = ["data.npz", "x.npy", "point.npz", "theta.npz", "table.csv", "nets.py", "helper.py", "shards/0.npz"]
READS += ["folders/0/x.npy", "deep/er/0.npz"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_not_lost(result: Result, before: dict[str, bytes], folder: Path) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "expected another file, not one which is read" in result.stderr
    assert contents(folder) == before


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("output", OUTPUTS)
def test_no_output_takes_the_place_of_a_file_that_the_spec_reads(output: str, read: str, folder: Path):
    ending = ENDINGS.get(output, "")
    spec = f"reads-{read.replace('/', '-')}.yaml"
    names = {"soft": f"soft{ending}", "hard": f"hard{ending}"}
    os.symlink(os.path.abspath(read), names["soft"])
    os.link(read, names["hard"])
    spelled = [os.path.abspath(read), f"./{read}", f"shards/../{read}"] if read.endswith(ending) else []
    before = contents(folder)
    for file in (*spelled, *names.values()):
        assert_not_lost(run(OUTPUTS[output].format(spec=spec, file=file)), before, folder)


@pytest.mark.parametrize("output", ["output", "format", "certificate"])
def test_no_output_takes_the_place_of_a_spec(output: str, folder: Path):
    before = contents(folder)
    for file in ("reads-x.npy.yaml", "./reads-x.npy.yaml", "shards/../reads-x.npy.yaml"):
        command = OUTPUTS[output].format(spec="reads-x.npy.yaml", file=file)
        assert_not_lost(run(command), before, folder)


def test_a_file_named_by_a_setting_is_read_too(folder: Path):
    before = contents(folder)
    setting = "point={file: point.npz}"
    result = CliRunner().invoke(cli, ["check", SIMPLE, "--set", setting, "--output", "point.npz"])
    assert_not_lost(result, before, folder)


def test_the_data_beside_a_certificate_are_an_output_too(folder: Path):
    Path("report.data").write_bytes(Path("point.npz").read_bytes())
    os.link("x.npy", "c.data")
    before = contents(folder)
    assert_not_lost(run("check reads-x.npy.yaml --certificate c"), before, folder)


# --- How a file is written ----------------------------------------------------------------------------------


def program(*arguments: str, **named: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, timeout=100, **named)  # type: ignore[call-overload]


def test_the_mode_of_a_file_stays_and_a_new_one_has_the_users(folder: Path):
    Path("old").write_text("old")
    os.chmod("old", 0o640)
    umask = os.umask(0o027)
    try:
        for name in ("old", "new"):
            run(f"check {SIMPLE} --output {name}")
    finally:
        os.umask(umask)
    assert stat.S_IMODE(os.stat("old").st_mode) == 0o640
    assert stat.S_IMODE(os.stat("new").st_mode) == 0o640
    assert Path("old").read_text() != "old"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_of_a_file_stays(folder: Path):
    Path("old").write_text("old")
    os.chown("old", 12345, 54321)
    run(f"check {SIMPLE} --output old")
    found = os.stat("old")
    assert (found.st_uid, found.st_gid) == (12345, 54321)
    assert Path("old").read_text() != "old"


def test_a_file_with_another_name_stays_one_file(folder: Path):
    Path("one").write_text("old")
    os.link("one", "two")
    run(f"check {SIMPLE} --output one")
    assert os.path.samefile("one", "two")
    assert Path("two").read_text() != "old"


def test_a_link_stays_a_link_dangling_or_not(folder: Path):
    for name in ("there", "dangling"):
        os.symlink(f"{name}-target", name)
    Path("there-target").write_text("old")
    for name in ("there", "dangling"):
        run(f"check {SIMPLE} --output {name}")
        assert os.path.islink(name)
        assert Path(f"{name}-target").read_text() not in ("", "old")


@pytest.mark.parametrize("length", [249, 255])
def test_names_as_long_as_they_may_be(length: int, folder: Path):
    before = set(os.listdir())
    run(f"check {SIMPLE} --output {'x' * length}")
    assert set(os.listdir()) - before == {"x" * length}
    run(f"solve {SIMPLE} --output {'y' * (length - 4)}.npz")
    assert set(os.listdir()) - before == {"x" * length, f"{'y' * (length - 4)}.npz"}


def test_a_name_that_is_too_long_is_refused_before_the_work(folder: Path):
    result = run(f"check {SIMPLE} --output {'x' * 256}")
    assert result.exit_code == 2
    assert "File name too long" in result.stderr


def test_a_pipe_and_a_device_are_written_into(folder: Path):
    os.mkfifo("pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(Path("pipe").read_bytes()))
    reader.start()
    run(f"check {SIMPLE} --format json --output pipe")
    reader.join(timeout=60)
    assert json.loads(read[0])["schema"] == "resnet-cert/check/1"
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)
    assert run(f"check {SIMPLE} --output /dev/null").exit_code in (0, 10)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@contextlib.contextmanager
def as_descriptor_1(file: IO[bytes]) -> Iterator[None]:
    """The file in the place of this process's standard output, as a shell's `>` puts it there."""
    kept = os.dup(1)
    os.dup2(file.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@pytest.mark.parametrize("device", ["/dev/stdout", "out", "/dev/fd/1", "/proc/self/fd/1"])
def test_an_open_descriptor_is_written_as_it_is_open(device: str, folder: Path):
    """`--output /dev/stdout >> log` appends, and `> log` goes on where the log is."""
    os.symlink("/dev/stdout", "out")
    Path("log").write_text("before\n")
    with open("log", "ab") as log, as_descriptor_1(log):
        done = run(f"check {SIMPLE} --format json --output {device}")
    assert done.exit_code in (0, 10), done.stderr
    first, _, document = Path("log").read_text().partition("\n")
    assert first == "before"
    assert json.loads(document)["schema"] == "resnet-cert/check/1"
    assert os.path.islink("out")


def test_a_descriptor_that_is_a_file_that_is_read_is_refused(folder: Path):
    before = contents(folder)
    with open("x.npy", "ab") as file, as_descriptor_1(file):
        done = run(f"check {SIMPLE} --output /dev/stdout")
    assert done.exit_code == 2
    assert contents(folder) == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told(folder: Path):
    before = contents(folder)
    for command in (f"check {SIMPLE} --output /dev/full", f"check {SIMPLE} --format json:/dev/full"):
        result = run(command)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "/dev/full: error: cannot write: No space left on device\n" in result.stderr
    assert contents(folder) == before


def test_a_working_directory_that_was_deleted(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    gone, out = tmp_path / "gone", tmp_path / "out"
    script = f'mkdir {gone}; cd {gone}; rmdir {gone}; exec "$@"'
    certificate = tmp_path / "certificate.json"
    run(f"check {folder / SIMPLE} -q --certificate {certificate}")
    command = ["sh", "-c", script, "sh", *PROGRAM, "verify", str(certificate)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))}
    done = subprocess.run(command, capture_output=True, timeout=100, env=environment)
    assert done.returncode in (0, 10), done.stderr
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    done = run(f"check {folder / SIMPLE} -q --output {out}")
    assert done.exit_code in (0, 10), done.stderr
    assert out.read_text() in ("CERTIFIED\n", "REFUTED\n")
    done = run(f"check {folder / SIMPLE} -q --output out")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "out: error: expected a place to write to: No such file or directory\n"
    done = run("verify ../c.json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "../c.json: error: cannot be found from here: the working directory was deleted\n"
