"""The program as a whole: exit codes, what goes to which stream, and every way in which it can go wrong."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from reports import leave_out_crosscheck, verify_here
from selections import first

from resnet_cert import Verdict, __version__
from resnet_cert.cli import cli
from resnet_cert.outcomes import InternalError, RequestError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
BY_VERDICT = {
    Verdict.CERTIFIED: str(CONFIGS / "example-1.yaml"),
    Verdict.REFUTED: str(CONFIGS / "example-1-refuted.yaml"),
    Verdict.UNDECIDED: str(CONFIGS / "too-close.yaml"),
}
CERTIFIED, REFUTED, UNDECIDED = BY_VERDICT.values()
CONSTANTS = ["--b", "1", "--r", "1", "--mu0", "1", "--mu1", "1", "--mu2", "1"]
PROGRAM = [sys.executable, "-m", "resnet_cert"]


@pytest.fixture(autouse=True)
def _without_crosscheck(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_crosscheck(monkeypatch)


def run(*arguments: str, stdin: str | None = None, **environment: str) -> Result:
    """The program in this process; an exception that it lets through fails the test."""
    result = CliRunner().invoke(cli, arguments, input=stdin, env=environment)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def of_module(name: str) -> Any:
    """The module itself, where the package offers a function of its name."""
    return importlib.import_module(name)


@pytest.fixture
def failing_check(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Make every check raise that exception."""

    def install(error: BaseException) -> None:
        def check(*arguments: Any, **named: Any) -> None:
            raise error

        monkeypatch.setattr(of_module("resnet_cert.check"), "examine", check)

    return install


@pytest.fixture
def wrong_spec(tmp_path: Path) -> str:
    path = tmp_path / "wrong.yaml"
    path.write_text(Path(CERTIFIED).read_text().replace("epsilon:", "epsilom:").replace("squared", "square"))
    return str(path)


# --- verdicts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("verdict", "spec"), BY_VERDICT.items(), ids=[v.value for v in BY_VERDICT])
def test_exit_code_json_and_last_line_say_the_same(verdict: Verdict, spec: str):
    as_text, as_json = run("check", spec), run("check", spec, "--format", "json")
    document = json.loads(as_json.stdout)
    assert as_text.exit_code == as_json.exit_code == document["exit_code"] == verdict.exit_code
    assert as_text.stdout.splitlines()[-1] == document["verdict"] == verdict.value
    assert document["reports"][0]["verdict"] == verdict.value
    assert run("check", spec, "-q").stdout == f"{verdict.value}\n"


@pytest.mark.parametrize(
    ("specs", "verdict"),
    [
        ([CERTIFIED, CERTIFIED], Verdict.CERTIFIED),
        ([CERTIFIED, UNDECIDED], Verdict.UNDECIDED),
        ([REFUTED, UNDECIDED, CERTIFIED], Verdict.REFUTED),
    ],
)
def test_several_specs_get_the_worst_verdict(specs: list[str], verdict: Verdict):
    as_text, as_json = run("check", "-q", *specs), run("check", *specs, "--format", "json")
    assert as_text.exit_code == as_json.exit_code == verdict.exit_code
    assert as_text.stdout.splitlines()[-1] == json.loads(as_json.stdout)["verdict"] == verdict.value
    assert len(json.loads(as_json.stdout)["reports"]) == len(specs)


def test_a_report_names_its_spec():
    import hashlib

    [report] = json.loads(run("check", CERTIFIED, "--format", "json").stdout)["reports"]
    assert report["name"] == "example-1"
    assert report["spec"] == {
        "path": CERTIFIED,
        "sha256": hashlib.sha256(Path(CERTIFIED).read_bytes()).hexdigest(),
    }
    assert report["versions"]["resnet_cert"] == __version__


def test_eps_goes_before_the_spec():
    assert run("check", CERTIFIED, "--eps", "0.01").exit_code == Verdict.REFUTED.exit_code
    assert run("check", REFUTED, "--eps", "2e-1").exit_code == Verdict.CERTIFIED.exit_code


def test_set_changes_the_spec():
    changed = run("check", CERTIFIED, "--set", "epsilon=0.01", "--set", "name=other", "--format", "json")
    assert changed.exit_code == Verdict.REFUTED.exit_code
    assert json.loads(changed.stdout)["reports"][0]["name"] == "other"


def test_standard_input_is_a_spec():
    read = run("check", "-", "-q", stdin=Path(REFUTED).read_text())
    assert (read.exit_code, read.stdout) == (Verdict.REFUTED.exit_code, "REFUTED\n")


# --- wrong requests --------------------------------------------------------------------------------------


def assert_refused(result: Result, *messages: str) -> None:
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for message in messages:
        assert message in result.stderr


def test_every_fault_of_every_spec_is_a_line_and_nothing_is_computed(
    wrong_spec: str, failing_check: Callable[[BaseException], None]
):
    failing_check(AssertionError("computed"))
    result = run("check", CERTIFIED, wrong_spec, "nowhere.yaml", wrong_spec)
    assert_refused(result)
    lines = result.stderr.splitlines()
    assert len(lines) == 2 * len(run("check", wrong_spec).stderr.splitlines()) + 1
    assert all(": error: " in line for line in lines)
    assert sum(line.startswith(f"{wrong_spec}:") for line in lines) == len(lines) - 1
    assert sum(line.startswith("nowhere.yaml:") for line in lines) == 1
    assert any("epsilon" in line and "epsilom" in line for line in lines)


def test_a_fault_found_while_checking_is_a_wrong_request(failing_check: Callable[[BaseException], None]):
    failing_check(RequestError("expected a convex loss, got one that is not"))
    assert_refused(run("check", CERTIFIED), "error: expected a convex loss, got one that is not\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check"], "Missing argument"),
        (["chekc"], "chekc"),
        (["check", CERTIFIED, "--format", "yaml"], "'yaml'"),
        (["check", CERTIFIED, "--eps", "-1"], "expected a finite number >= 0, got '-1'"),
        (["check", CERTIFIED, "--eps", "nan"], "expected a finite number >= 0, got 'nan'"),
        (["check", CERTIFIED, "--eps", "inf"], "expected a finite number >= 0, got 'inf'"),
        (["check", CERTIFIED, "--eps", "many"], "expected a finite number >= 0, got 'many'"),
        (["check", CERTIFIED, "--set", "epsilon"], "expected KEY=VALUE, got 'epsilon'"),
        (["check", CERTIFIED, "--set", "=1"], "got '=1'"),
        (["check", "-", "-"], "expected standard input once"),
        (["bound", *CONSTANTS], "expected --eps, --target-gap or a SPEC"),
        (["bound", "--b", "1", "--mu1", "1", "--eps", "1"], "missing --r, --mu0, --mu2"),
        (["bound", *CONSTANTS, "--eps", "1,two"], "'two'"),
        (["bound", *CONSTANTS, "--eps", "1", "--d", "0"], "0 is not in the range"),
    ],
)
def test_a_wrong_usage_says_what_was_expected(arguments: list[str], message: str):
    assert_refused(run(*arguments), message)


def test_an_unknown_setting_is_refused():
    assert_refused(run("check", CERTIFIED, "--set", "epsilom=1"), "epsilom", "epsilon")


# --- output ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "json"])
def test_output_takes_the_payload(tmp_path: Path, form: str):
    target = tmp_path / "report"
    result = run("check", REFUTED, "--format", form, "--output", str(target))
    assert (result.exit_code, result.stdout) == (10, "")
    assert result.stderr.startswith(f"{REFUTED}: REFUTED: ")  # what a log shows
    assert result.stderr.count("\n") == 1
    assert run("check", REFUTED, "-q", "--output", str(target)).stderr == ""
    assert run("check", REFUTED, "--format", form, "--output", str(target)).exit_code == 10
    assert os.listdir(tmp_path) == ["report"]
    shown = run("check", REFUTED, "--format", form).stdout
    without_time = [
        [line for line in text.splitlines() if "total" not in line] for text in (shown, target.read_text())
    ]
    assert without_time[0] == without_time[1]


@pytest.mark.parametrize(
    "error", [RuntimeError("broken"), KeyboardInterrupt(), RequestError("wrong")], ids=["70", "130", "2"]
)
def test_a_failure_writes_nothing(
    tmp_path: Path, failing_check: Callable[[BaseException], None], error: BaseException
):
    failing_check(error)
    target = tmp_path / "report.json"
    target.write_text("as it was")
    assert run("check", CERTIFIED, "--output", str(target)).exit_code in {70, 130, 2}
    assert os.listdir(tmp_path) == ["report.json"]
    assert target.read_text() == "as it was"


def test_an_interrupt_while_writing_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(*paths: Any) -> None:
        raise KeyboardInterrupt

    target = tmp_path / "report.json"
    target.write_text("as it was")
    monkeypatch.setattr(os, "replace", interrupted)
    assert run("check", CERTIFIED, "--output", str(target)).exit_code == 130
    assert os.listdir(tmp_path) == ["report.json"]
    assert target.read_text() == "as it was"


def test_a_place_that_cannot_be_written_to_is_refused_before_the_work(
    tmp_path: Path, failing_check: Callable[[BaseException], None]
):
    failing_check(AssertionError("computed"))
    assert_refused(run("check", CERTIFIED, "--output", str(tmp_path)), "got a folder")
    assert_refused(
        run("check", CERTIFIED, "--output", str(tmp_path / "no" / "file")), "expected an existing folder"
    )


def test_output_through_a_link_and_to_a_device(tmp_path: Path):
    target, link = tmp_path / "report", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    assert run("check", CERTIFIED, "-q", "--output", str(link)).exit_code == 0
    assert link.is_symlink()
    assert target.read_text() == "CERTIFIED\n"
    assert run("check", CERTIFIED, "-q", "--output", os.devnull).exit_code == 0
    assert Path(os.devnull).is_char_device()


# --- internal errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InternalError("two results differ"), "internal error: two results differ\n"),
        (ZeroDivisionError("division\nby zero"), "internal error: ZeroDivisionError: division by zero\n"),
        (EOFError("a file ends"), "internal error: EOFError: a file ends\n"),
        (SystemExit(0), "internal error: SystemExit: 0\n"),
        (click.exceptions.Exit(0), "internal error: Exit raised\n"),
        (click.ClickException("no"), "internal error: ClickException raised\n"),
    ],
)
@pytest.mark.parametrize("form", ["text", "json"])
def test_an_exception_is_never_a_verdict(
    failing_check: Callable[[BaseException], None], error: BaseException, line: str, form: str
):
    failing_check(error)
    result = run("check", CERTIFIED, "--format", form)
    assert (result.exit_code, result.stdout, result.stderr) == (70, "", line)


def test_a_traceback_is_shown_on_request(failing_check: Callable[[BaseException], None]):
    failing_check(InternalError("two results differ"))
    for result in (run("check", CERTIFIED, "-v"), run("check", CERTIFIED, RESNET_CERT_DEBUG="1")):
        assert result.exit_code == 70
        assert "Traceback" in result.stderr
        assert result.stderr.splitlines()[-1] == "internal error: two results differ"


def test_an_interrupt_is_quiet(failing_check: Callable[[BaseException], None]):
    failing_check(KeyboardInterrupt())
    result = run("check", CERTIFIED)
    assert (result.exit_code, result.output) == (130, "")


def test_what_the_users_code_prints_stays_out_of_the_document(monkeypatch: pytest.MonkeyPatch):
    module = of_module("resnet_cert.check")
    examine = module.examine

    def talkative(*arguments: Any, **named: Any) -> Any:
        print("epoch 1")
        return examine(*arguments, **named)

    monkeypatch.setattr(module, "examine", talkative)
    result = run("check", CERTIFIED, "--format", "json")
    assert json.loads(result.stdout)["verdict"] == "CERTIFIED"
    assert result.stderr == "epoch 1\n"


# --- certificates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("verdict", "spec"), first(1, BY_VERDICT.items()), ids=[v.value for v in BY_VERDICT])
def test_a_certificate_is_verified_to_the_same_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: Verdict, spec: str
):
    verify_here(monkeypatch)
    certificate = str(tmp_path / "certificate.json")
    assert run("check", spec, "-q", "--certificate", certificate).exit_code == verdict.exit_code
    as_text, as_json = run("verify", certificate), run("verify", certificate, "--format", "json")
    assert as_text.exit_code == as_json.exit_code
    assert as_text.stdout.startswith(f"{json.loads(as_json.stdout)['verdict']}, ε = ")
    if verdict is not Verdict.UNDECIDED:  # the verifier may decide what the check could not
        assert as_text.exit_code == verdict.exit_code


def test_the_settings_of_a_check_are_in_its_certificate(tmp_path: Path):
    certificate = str(tmp_path / "certificate.json")
    arguments = ("--set", "name=other", "--eps", "0.25", "--arithmetic", "ball")
    assert run("check", CERTIFIED, *arguments, "--certificate", certificate).exit_code == 0
    written = json.loads(Path(certificate).read_text())
    assert written["spec"]["overrides"] == ["name=other", "epsilon=0.25"]
    assert float.fromhex(written["claim"]["epsilon"]) == 0.25
    assert len(written["assumptions"]) == 1  # none about exp and log
    assert run("verify", certificate).exit_code == 0


def test_a_changed_certificate_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    verify_here(monkeypatch)
    certificate = tmp_path / "certificate.json"
    run("check", REFUTED, "-q", "--certificate", str(certificate))
    certificate.write_text(certificate.read_text().replace("REFUTED", "CERTIFIED"))
    as_text, as_json = run("verify", str(certificate)), run("verify", str(certificate), "--format", "json")
    assert as_text.exit_code == as_json.exit_code == 30
    assert as_text.stdout.startswith("REJECTED")
    document = json.loads(as_json.stdout)
    assert (document["schema"], document["accepted"], document["verdict"]) == (
        "resnet-cert/verify/1",
        False,
        None,
    )


def test_one_certificate_is_for_one_spec(tmp_path: Path):
    assert_refused(
        run("check", CERTIFIED, REFUTED, "--certificate", str(tmp_path / "c")), "expected one SPEC"
    )
    assert_refused(run("check", CERTIFIED, "--certificate", str(tmp_path)), "got a folder")
    assert_refused(run("verify", str(tmp_path / "nowhere")), "nowhere")
    assert os.listdir(tmp_path) == []


def test_verify_says_what_it_needs(monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in sys.modules if name.startswith(("resnet_cert.certificate.", "flint"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "flint", None)
    assert_refused(run("verify", "certificate.json"), "pip install 'resnet-cert[verify]'")


# --- bound and schema ------------------------------------------------------------------------------------


def test_bound_gives_a_row_for_every_epsilon():
    result = run("bound", *CONSTANTS, "--eps", "1e-4,0.01", "--format", "json")
    document = json.loads(result.stdout)
    assert result.exit_code == 0
    constants = {"b": 1.0, "r": 1.0, "mu0": 1.0, "mu1": 1.0, "mu2": 1.0, "d": 2}
    assert document["constants"].items() >= constants.items()
    assert [row["eps"] for row in document["rows"]] == [1e-4, 0.01]
    first = document["rows"][0]
    assert first["refined_form"] == pytest.approx(0.100698756, abs=1e-9)
    assert first["threshold_form"] == pytest.approx(0.107101770, abs=1e-9)
    assert first["threshold"] == pytest.approx(9.33693e-4, rel=1e-5)
    # One dimension costs the refined form its constant 1; then the threshold form is the smaller one.
    scalar = json.loads(run("bound", *CONSTANTS, "--d", "1", "--eps", "1e-4", "--format", "json").stdout)
    assert scalar["rows"][0]["refined_form"] == pytest.approx(0.242825460, abs=1e-9)
    assert scalar["rows"][0]["bound"]["value"] == pytest.approx(0.107101770, abs=1e-9)


def test_bound_finds_the_epsilon_for_a_gap():
    result = run("bound", *CONSTANTS, "--target-gap", "0.1", "--format", "json")
    document = json.loads(result.stdout)
    eps = document["target_eps"]
    assert document["rows"] == []
    there = json.loads(
        run("bound", *CONSTANTS, "--eps", f"{eps!r},{1.0001 * eps!r}", "--format", "json").stdout
    )
    assert [row["bound"]["upper"] <= 0.1 for row in there["rows"]] == [True, False]


def test_bound_of_a_spec_is_the_bound_of_its_check():
    [report] = json.loads(run("check", CERTIFIED, "--format", "json").stdout)["reports"]
    document = json.loads(run("bound", CERTIFIED, "--eps", "0.2", "--format", "json").stdout)
    constants = {name: report["constants"][name] for name in ("b", "r", "mu0", "mu1", "mu2")}
    assert document["constants"].items() >= {**constants, "d": 1}.items()
    assert document["F_lin_min"] == report["objective"]["F_lin_min"]
    [row] = document["rows"]
    assert row["bound"] == report["theorem3"]["bound"]
    assert row["F_upper"] == report["theorem3"]["F_upper"]


def test_bound_takes_the_epsilon_of_its_spec():
    document = json.loads(run("bound", CERTIFIED, "--format", "json").stdout)
    assert [row["eps"] for row in document["rows"]] == [0.2]


def test_an_option_of_bound_overrides_its_entry_of_the_spec():
    narrow = json.loads(run("bound", CERTIFIED, "--r", "0.5", "--eps", "0.2", "--format", "json").stdout)
    assert narrow["constants"]["r"] == 0.5
    # The best linear predictor in that ball is w = 1/2, at ½(½ − 1)² = 1/8.
    assert narrow["F_lin_min"]["lower"] <= 0.125 <= narrow["F_lin_min"]["upper"]
    assert narrow["F_lin_min"]["value"] == pytest.approx(0.125, abs=1e-12)
    assert (
        json.loads(
            run("bound", CERTIFIED, "--d", "3", "--mu2", "9", "--eps", "1", "--format", "json").stdout
        )["constants"].items()
        >= {"d": 3, "mu2": 9.0}.items()
    )


def test_schema_is_a_json_schema_of_the_spec():
    result = run("schema")
    document = json.loads(result.stdout)
    assert result.exit_code == 0
    assert {"data", "loss", "network", "point", "epsilon"} <= set(document["properties"])


# --- the process -----------------------------------------------------------------------------------------


def process(*arguments: str, **named: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, timeout=60, **named)


def test_help_and_version_load_nothing_heavy():
    script = """
import sys
from resnet_cert.cli import cli
for arguments in (["--help"], ["check", "--help"], ["bound", "--help"], ["explain", "sopsp"], ["--version"]):
    cli(arguments, standalone_mode=False)
heavy = {"numpy", "jax", "scipy", "rich", "pydantic", "yaml"} & set(sys.modules)
sys.exit(f"loaded {heavy}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Exit codes" in done.stdout
    assert f"version {__version__}" in done.stdout


pytestmark = pytest.mark.drift


def test_the_process_ends_with_the_exit_code_and_one_document():
    done = process("check", REFUTED, "--format", "json")
    assert done.returncode == json.loads(done.stdout)["exit_code"] == 10
    assert done.stderr == ""


def test_a_reader_that_leaves_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*PROGRAM, "bound", *CONSTANTS, "--eps", "1"], stdout=writer, stderr=subprocess.PIPE, timeout=60
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", first(1, ["", "1"]))
def test_a_result_that_is_not_written_is_no_success(unbuffered):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PROGRAM, "bound", *CONSTANTS, "--eps", "1"],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert done.returncode == 70
    assert done.stderr.count(b"\n") == 1


def written_to(master: int) -> str:
    """What comes out of a pseudo-terminal until its other end is closed."""
    written = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:  # Linux: the other end is closed
            piece = b""
        if not piece:
            os.close(master)
            return written.decode()
        written += piece


def test_colour_is_for_terminals_without_no_color(monkeypatch: pytest.MonkeyPatch):
    coloured = []
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in (("TERM", "xterm"), ("NO_COLOR", "1"), ("NO_COLOR", ""), ("TERM", "dumb")):
        monkeypatch.setenv(name, value)
        master, terminal = pty.openpty()
        with ThreadPoolExecutor(1) as pool:
            read = pool.submit(written_to, master)
            with open(terminal, "w") as stream, contextlib.redirect_stdout(stream):
                cli(["check", CERTIFIED, "-v"], standalone_mode=False)
        assert "CERTIFIED" in read.result()
        coloured.append("\x1b[" in read.result())
    assert coloured == [True, False, True, False]
