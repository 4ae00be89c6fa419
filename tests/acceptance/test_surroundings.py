"""What people's shells, files and notebooks do to the program: a clear line and the right exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from reports import leave_out_crosscheck
from selections import first

from resnet_cert import Monitor, landscape, profile, sgd, solve
from resnet_cert.check import bound_constants
from resnet_cert.cli import cli
from resnet_cert.outcomes import FAULTS, InternalError, RequestError, printable
from resnet_cert.problem.files import require_writable, write_whole
from resnet_cert.spec import load_problem

CASES = Path(__file__).parent / "cases"
PROGRAM = [sys.executable, "-m", "resnet_cert"]
SPEC = """\
version: 1
data: {x: [[1.0]], y: [1.0]}
loss: squared
network: {kind: identity}
point: {w: [1.0], V: [[1.0]]}
epsilon: 0.01
"""
FLAGS_OF_XLA = "--xla_cpu_enable_fast_math=true"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    leave_out_crosscheck(monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(SPEC)
    return tmp_path


def run(*arguments: str, stdin: str | None = None) -> Result:
    result = CliRunner().invoke(cli, arguments, input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def process(*arguments: str, closed: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM, *arguments]
    if closed:
        command = ["sh", "-c", 'exec "$@" <&-', "sh", *command]
    return subprocess.run(
        command, capture_output=True, timeout=120, env={**os.environ, **environment}, encoding="utf-8"
    )


# --- Cases ------------------------------------------------------------------------------------------------


def test_a_name_prints_no_verdict_of_its_own():
    result = run("check", str(CASES / "false-verdict-name.yaml"))
    assert result.exit_code == 10
    lines = result.stdout.splitlines()
    assert lines[0].startswith(r"run 7\nCERTIFIED\x1b[8m (")
    assert lines[-1] == "REFUTED"
    assert "CERTIFIED" not in lines
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize("form", ["text", "json", "markdown", "html", "github", "gitlab", "sarif"])
def test_no_format_obeys_a_name(form: str):
    result = run("check", str(CASES / "false-verdict-name.yaml"), "--format", form)
    assert result.exit_code == 10
    assert "\x1b" not in result.stdout
    assert r"run 7\nCERTIFIED\x1b[8m" in re.sub(r"\\(?=[\\\[])", "", result.stdout)


def test_probabilities_of_float32_are_told_what_to_write():
    spec = str(CASES / "float32-probabilities.yaml")
    result = run("check", spec, "-v")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    for words in ("1.0000000199999999", "1e-09", "data.normalise: true", "[probability-sum]"):
        assert words in result.stderr
    assert run("check", spec, "--set", "data.normalise=true").exit_code in (0, 10)


def test_a_quote_that_does_not_close_is_told_where_it_opened():
    result = run("check", str(CASES / "open-quote.yaml"), "-v")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "open-quote.csv, line 3: a quote" in result.stderr
    assert "[csv-syntax]" in result.stderr


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_a_spec_without_end_is_read_up_to_a_stated_size():
    result = run("check", "/dev/zero", "-v")
    assert result.exit_code == 2
    assert "expected a spec of at most 16 MiB, got more" in result.stderr
    assert "[spec-size]" in result.stderr


@pytest.mark.parametrize("count", [2_000, pytest.param(200_000, marks=pytest.mark.long)])
def test_very_many_faults_are_a_hundred_lines(count: int, tmp_path: Path):
    (tmp_path / "s.yaml").write_text("".join(f"key{i}: {i}\n" for i in range(count)) + SPEC)
    result = run("check", "s.yaml", "--format", "json")
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert len(lines) == 101
    assert lines[-1] == f"error: and {count - 100} more errors"
    document = json.loads(result.stdout)
    assert (len(document["errors"]), document["more"]) == (100, count - 100)


# --- Ids --------------------------------------------------------------------------------------------------


def test_every_fault_has_an_id_with_v_and_in_json():
    arguments = ("check", "s.yaml", "--set", "epsilom=1", "--set", "loss=huber")
    plain, verbose, document = run(*arguments), run(*arguments, "-v"), run(*arguments, "--format", "json")
    assert [r.exit_code for r in (plain, verbose, document)] == [2, 2, 2]
    ids = ["unknown-key", "unknown-name"]
    assert [f"{line} [{id}]" for line, id in zip(plain.stderr.splitlines(), ids, strict=True)] == (
        verbose.stderr.splitlines()
    )
    errors = json.loads(document.stdout)
    assert (errors["schema"], errors["exit_code"]) == ("resnet-cert/errors/1", 2)
    assert [error["id"] for error in errors["errors"]] == ids
    assert errors["errors"][0]["file"] == "--set epsilom=1"
    assert {error["id"] for error in errors["errors"]} <= set(FAULTS)
    assert document.stderr == plain.stderr


def test_the_document_of_faults_stays_out_of_files():
    result = run("check", "s.yaml", "--set", "epsilom=1", "--format", "json", "--output", "report.json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert not Path("report.json").exists()


# --- Names and paths --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", first(2, ["a\udcffb.yaml", "two\nlines.yaml", "esc\x1b[8m.yaml", "\u202eyaml.txt", "ä ö.yaml"])
)
def test_paths_of_every_byte_are_read_and_written(name: str):
    Path(name).write_text(SPEC)
    text, document = run("check", name), run("check", name, "--format", "json")
    assert text.exit_code == document.exit_code == 10
    assert text.stdout.splitlines()[0] == f"{printable(Path(name).stem)} ({printable(name)})"
    assert json.loads(document.stdout)["reports"][0]["spec"]["path"] == name
    assert run("check", name, "--output", f"out-{name}").exit_code == 10
    assert Path(f"out-{name}").exists()
    assert run("check", name, "--format", "html:page.html").exit_code == 10
    missing = run("check", f"no-{name}")
    assert missing.exit_code == 2
    assert (
        missing.stderr
        == f"{printable(f'no-{name}')}:1:1: error: cannot read the spec: No such file or directory\n"
    )


def test_a_certificate_names_its_spec_by_characters_that_can_be_read():
    for name in ("a\udcffb.yaml", "two\nlines.yaml"):
        Path(name).write_text(SPEC)
        for certificate in ("c.json", "c.zip"):
            result = run("check", name, "--certificate", certificate)
            assert (result.exit_code, result.stdout) == (2, "")
            assert result.stderr.startswith(
                f"{printable(name)}: error: expected a path of printable characters"
            )
    assert not any(path.name.startswith("c.") for path in Path().iterdir())


@pytest.mark.parametrize("setting", ["name=\udcff", "\udcff=1", "a.\udcff=1", "name=\x07", "\x1b=1"])
def test_a_setting_is_text(setting: str):
    result = run("check", "s.yaml", "--set", setting, "-v")
    assert result.exit_code == 2
    assert "[not-text]" in result.stderr


def test_surrogates_of_json_are_told_with_their_place():
    Path("s.yaml").write_text('{"version": 1, "name": "\\ud800"}')
    result = run("check", "s.yaml")
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("s.yaml:1:")


def test_a_null_byte_is_no_path():
    with pytest.raises(RequestError, match="null byte"):
        load_problem("a\0b.yaml")
    for refuse in (require_writable, lambda path: write_whole(path, b"")):
        with pytest.raises(RequestError, match="null byte"):
            refuse("a\0b")


# --- The process ------------------------------------------------------------------------------------------


def test_closed_streams():
    read = process("check", "-", closed=True)
    assert (read.returncode, read.stdout) == (2, "")
    assert read.stderr == "<stdin>:1:1: error: cannot read the spec: standard input is closed\n"


@pytest.mark.parametrize(
    ("environment", "words"),
    first(1, [
        ({"JAX_PLATFORMS": "cuda"}, "error: JAX does not start with JAX_PLATFORMS=cuda"),
        ({"JAX_ENABLE_X64": "maybe"}, "invalid truth value 'maybe' for environment 'JAX_ENABLE_X64'"),
        ({"JAX_PLATFORMS": "abacus"}, "Backend 'abacus' is not in the list"),
        ({"XLA_FLAGS": "--xla_nonsense=1"}, "XLA does not take XLA_FLAGS=--xla_nonsense=1: Unknown flag"),
        ({"XLA_FLAGS": "nowhere", "JAX_DISABLE_JIT": "1"}, 'XLA_FLAGS=nowhere: Could not open file'),
    ]),
)  # fmt: skip
def test_what_jax_and_xla_refuse_is_a_wrong_request(environment: dict[str, str], words: str):
    done = process("check", "s.yaml", "--format", "json", **environment)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert [error["id"] for error in json.loads(done.stdout)["errors"]] == ["environment"]


@pytest.mark.parametrize("flags", first(1, ["flags.txt", FLAGS_OF_XLA]))
def test_fast_math_is_refused_wherever_it_is_switched_on(flags: str, monkeypatch: pytest.MonkeyPatch):
    Path("flags.txt").write_text(FLAGS_OF_XLA + "\n")
    monkeypatch.setenv("XLA_FLAGS", flags)
    done = run("check", "s.yaml")
    assert done.exit_code == 70
    assert done.stdout == ""
    assert "float64 arithmetic cannot be trusted here" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "job",
    [
        landscape, profile, solve, bound_constants, lambda problem: sgd(problem, 5),
        lambda problem: Monitor(np.ones((2, 1)), np.ones(2)),
    ],
)  # fmt: skip
def test_nothing_is_computed_with_fast_math(job: Callable[..., object], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XLA_FLAGS", FLAGS_OF_XLA)
    with pytest.raises(InternalError, match="take it out"):
        job(load_problem(Path("s.yaml")))


def test_what_is_no_hindrance():
    environment = {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "OPENBLAS_NUM_THREADS": "many",
        "COLUMNS": "0",
        "TERM": "nonsense",
        "LC_ALL": "xx_YY",
        "JAX_DEBUG_NANS": "1",
        "PYTHONWARNINGS": "error",
        "PYTHONIOENCODING": "ascii",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    done = process("check", "s.yaml", closed=True, **environment)
    assert (done.returncode, done.stderr) == (10, "")
    assert done.stdout.endswith("REFUTED\n")


@pytest.mark.parametrize(
    "command",
    first(
        1,
        [
            "bound --b 1 --r 1 --mu0 1 --mu1 1 --mu2 1 --eps 0.01:1:9",
            "landscape s.yaml",
            "sgd s.yaml --steps 3",
        ],
    ),
)
def test_a_picture_is_the_same_with_a_broken_matplotlibrc_and_a_notebooks_backend(command: str):
    pytest.importorskip("matplotlib")
    assert run(*command.split(), "--output", "a.svg").exit_code == 0
    Path("matplotlibrc").write_bytes(b"\xff\xfe nonsense : : :\nfont.size: 40\n")
    done = process(*command.split(), "--output", "b.svg", MPLBACKEND="nonsense", MATPLOTLIBRC="nowhere")
    assert (done.returncode, done.stderr) == (0, "")
    assert Path("a.svg").read_bytes() == Path("b.svg").read_bytes()


def test_memory_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch):
    import importlib

    import numpy as np

    def greedy(*arguments: object, **named: object) -> None:
        wanted = np.empty((3, 4))
        np.empty((2**20, 2**30, len(wanted)))

    monkeypatch.setattr(importlib.import_module("resnet_cert.check"), "examine", greedy)
    result = run("check", "s.yaml", "-v")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "not enough memory" in result.stderr
    assert "(1048576, 1073741824, 3)" in result.stderr
    assert "[too-large]" in result.stderr
