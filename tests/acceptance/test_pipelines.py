"""In a pipeline and at the beginning: formats to files, exit codes, the hook, the action, init, doctor."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner, Result
from reports import leave_out_crosscheck

from resnet_cert import check, load_problem
from resnet_cert.cli import cli
from resnet_cert.commands.init import EDITOR_LINE, SCHEMA, names
from resnet_cert.report import CHECK_FORMATS

ROOT = Path(__file__).resolve().parents[2]
CERTIFIED, REFUTED = (str(ROOT / "configs" / f"{name}.yaml") for name in ("example-1", "saddle"))
UNDECIDED = str(ROOT / "configs" / "too-close.yaml")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def without_expect(spec: str, folder: Path) -> str:
    """The spec without the verdict that it must get."""
    lines = Path(spec).read_text(encoding="utf-8").splitlines()
    copy = folder / Path(spec).name
    copy.write_text("\n".join(line for line in lines if not line.startswith("expect:")), encoding="utf-8")
    return str(copy)


def test_one_run_serves_people_and_machines(tmp_path: Path) -> None:
    names = {"json": "r.json", "markdown": "r.md", "html": "r.html", "sarif": "r.sarif", "gitlab": "r.gl"}
    asked = [f"--format={name}:{tmp_path / file}" for name, file in names.items()]
    result = run("check", without_expect(CERTIFIED, tmp_path), "--format", "text", *asked)
    assert result.exit_code == 0
    assert result.stdout.endswith("\nCERTIFIED\n")
    assert json.loads((tmp_path / "r.json").read_text())["verdict"] == "CERTIFIED"
    assert (tmp_path / "r.md").read_text().startswith("## CERTIFIED: example-1")
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
    assert json.loads((tmp_path / "r.sarif").read_text())["version"] == "2.1.0"
    assert json.loads((tmp_path / "r.gl").read_text()) == []


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            ["--format", "xml"],
            f"expected one of {', '.join(CHECK_FORMATS)}, got 'xml'",
        ),
        (["--format", "html:"], "expected a file after the colon"),
        (["--format", "text", "--format", "json"], "expected one --format without a file, got text and json"),
    ],
)
def test_a_wrong_format_is_refused_before_anything_is_computed(asked: list[str], message: str) -> None:
    result = run("check", CERTIFIED, *asked)
    assert result.exit_code == 2
    assert message in result.stderr


def test_two_formats_never_share_a_file(tmp_path: Path) -> None:
    file = tmp_path / "report"
    result = run("check", CERTIFIED, "--format", f"json:{file}", "--format", f"html:{file}")
    assert result.exit_code == 2
    assert not file.exists()


def test_a_missing_junitparser_is_told_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "junitparser", None)
    monkeypatch.delitem(sys.modules, "resnet_cert.report.junit", raising=False)
    result = run("check", CERTIFIED, "--format", "junit")
    assert result.exit_code == 2
    assert "pip install 'resnet-cert[junit]'" in result.stderr


@pytest.mark.parametrize(
    ("spec", "fail_on", "code"),
    [
        (REFUTED, "undecided", 10),
        (UNDECIDED, "undecided", 20),
        (UNDECIDED, "refuted", 0),
        (REFUTED, "refuted", 10),
        (REFUTED, "never", 0),
    ],
)
def test_fail_on_decides_the_exit_code_and_the_verdict_stays(
    spec: str, fail_on: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out_crosscheck(monkeypatch)
    asked = ["--fail-on", fail_on, "--format", "json", "--no-escalate"]
    result = run("check", without_expect(spec, tmp_path), *asked)
    document = json.loads(result.stdout)
    assert (result.exit_code, document["exit_code"]) == (code, code)
    assert document["verdict"] == load_and_check(spec)


def load_and_check(spec: str) -> str:
    return check(load_problem(spec), escalate=False).verdict.value


@pytest.mark.parametrize(("expect", "code"), [("REFUTED", 0), ("CERTIFIED", 10), ("[REFUTED, UNDECIDED]", 0)])
def test_a_spec_that_names_its_verdict_passes_with_that_alone(expect: str, code: int) -> None:
    result = run("check", REFUTED, "--set", f"expect={expect}", "--fail-on", "never")
    assert result.exit_code == code
    assert ("Not as expected" in result.stdout) == bool(code)


def test_a_wrong_spec_fails_whatever_fail_on_says(tmp_path: Path) -> None:
    spec = tmp_path / "bad.yaml"
    spec.write_text("version: 1\n")
    assert run("check", str(spec), "--fail-on", "never").exit_code == 2


def test_a_run_whose_formats_all_go_to_files_still_says_its_verdict(tmp_path: Path) -> None:
    result = run("check", REFUTED, "--format", f"json:{tmp_path / 'r.json'}")
    assert result.stdout.endswith("REFUTED\n")


# --- the hook and the action ------------------------------------------------------------------------------


def test_the_hook_runs_what_pre_commit_gives_it() -> None:
    [hook] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert {"id", "name", "entry", "language", "files"} <= hook.keys()
    program, *arguments = hook["entry"].split()
    assert program == "resnet-cert"
    assert run(*arguments, CERTIFIED).exit_code == 0
    assert run(*arguments, CERTIFIED, REFUTED, "--set", "expect=CERTIFIED").exit_code == 10


def action() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))


def test_every_input_of_the_action_is_used_and_none_stands_inside_a_script() -> None:
    found = action()
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    for name in found["inputs"]:
        assert f"${{{{ inputs.{name} }}}}" in text
    for step in found["runs"]["steps"]:
        assert "${{" not in step["run"]  # an input is data: it must not become a part of the script
        assert step["shell"] == "bash"


PLAYER = """\
#!/bin/sh
printf '%s\\n' "$@" > "$PLAYED/arguments"
cat "$PLAYED/stdout"
exit $(cat "$PLAYED/code")
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("specs", "code", "verdict"), [("a.yaml", 0, "CERTIFIED"), ("*.yaml", 10, "REFUTED")]
)
def test_the_check_of_the_action_annotates_summarises_and_fails(
    specs: str, code: int, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script runs twice: its command is run here, and a program of that name plays it back."""
    work, temp = tmp_path / "work", tmp_path / "temp"
    program = temp / "resnet-cert" / "bin" / "resnet-cert"
    work.mkdir()
    program.parent.mkdir(parents=True)
    program.write_text(PLAYER)
    program.chmod(0o755)
    for name, spec in (("a", CERTIFIED), ("b", REFUTED)):
        shutil.copy(without_expect(spec, tmp_path), work / f"{name}.yaml")
    [step] = [step for step in action()["runs"]["steps"] if step["id"] == "check"]
    inputs = {name: entry.get("default", "") for name, entry in action()["inputs"].items()} | {"specs": specs}
    environment = {
        name: inputs[value.split()[1].removeprefix("inputs.")] for name, value in step["env"].items()
    }
    summary, outputs = tmp_path / "summary.md", tmp_path / "outputs"
    outputs.touch()
    files = {
        "RUNNER_TEMP": temp,
        "GITHUB_STEP_SUMMARY": summary,
        "GITHUB_OUTPUT": outputs,
        "PLAYED": tmp_path,
    }
    given = os.environ | environment | {k: str(v) for k, v in files.items()}

    def script(stdout: str, code: int) -> subprocess.CompletedProcess[str]:
        (tmp_path / "stdout").write_text(stdout, encoding="utf-8")
        (tmp_path / "code").write_text(str(code))
        bash = ["bash", "-e", "-c", step["run"]]
        return subprocess.run(bash, cwd=work, env=given, capture_output=True, text=True)

    assert script("", 2).returncode == 2
    assert outputs.read_text() == ""  # no report was written
    monkeypatch.chdir(work)
    result = run(*(tmp_path / "arguments").read_text().splitlines())
    assert result.exit_code == code, result.stderr
    done = script(result.stdout, result.exit_code)
    assert done.returncode == code, done.stderr
    assert done.stdout.startswith("::notice file=a.yaml")
    assert ("::error file=b.yaml" in done.stdout) == bool(code)
    assert verdict in summary.read_text(encoding="utf-8").splitlines()[0]
    assert outputs.read_text().splitlines() == [f"report={temp / 'resnet-cert.json'}", f"verdict={verdict}"]


# --- init, doctor, completion -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", names())
def test_every_example_of_init_runs_with_the_verdict_that_it_names(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out_crosscheck(monkeypatch)
    spec = tmp_path / "spec.yaml"
    wrote = run("init", name, "--output", str(spec))
    assert wrote.exit_code == 0
    assert wrote.stdout == ""
    assert spec.read_text(encoding="utf-8") == run("init", name).stdout
    assert spec.read_text(encoding="utf-8").startswith(EDITOR_LINE)
    schema = json.loads((tmp_path / SCHEMA).read_text(encoding="utf-8"))
    jsonschema.validate(yaml.safe_load(spec.read_text(encoding="utf-8").replace("1e-", "1.0e-")), schema)
    assert run("check", str(spec)).exit_code == 0


def test_init_lists_its_examples_and_begins_with_the_smallest() -> None:
    listed = run("init", "--list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == names()
    assert run("init").stdout == run("init", "start").stdout


def test_init_never_writes_over_a_file(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("mine")
    assert run("init", "--output", str(spec)).exit_code == 2
    assert spec.read_text() == "mine"
    assert run("init", "strat").exit_code == 2


def test_doctor_says_what_a_bug_report_needs() -> None:
    result = run("doctor")
    assert result.exit_code == 0
    found = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert {
        "resnet-cert",
        "python",
        "platform",
        "packages",
        "devices",
        "threads",
        "environment",
    } <= found.keys()
    assert found["self-test"].split() == ["self-test", "passed"]
    assert "subnormal numbers" in found["XLA"]


def test_doctor_fails_where_the_self_test_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    result = run("doctor")
    assert result.exit_code in (2, 70)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shells_are_given_their_completion(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    complete = kind(cli, {}, "resnet-cert", "_RESNET_CERT_COMPLETE")
    assert "check" in [item.value for item in complete.get_completions([], "ch")]
    assert "--fail-on" in [item.value for item in complete.get_completions(["check"], "--fail")]
    found = [item.value for item in complete.get_completions(["check", "--format"], "ma")]
    assert found == ["markdown"]
    found = [item.value for item in complete.get_completions(["init"], "cl")]
    assert found == ["classes"]
    for words in (["check"], ["solve"], ["verify"], ["check", "--certificate"], ["landscape", "--output"]):
        assert [item.type for item in complete.get_completions(words, "con")] == ["file"]


@pytest.mark.parametrize("command", list(cli.commands))
def test_every_command_can_be_quiet(command: str) -> None:
    assert "--quiet" in run(command, "--help").stdout


def test_init_and_doctor_say_no_more_than_they_must(tmp_path: Path) -> None:
    made = run("init", "-q", "--output", str(tmp_path / "spec.yaml"))
    assert (made.exit_code, made.stdout, made.stderr) == (0, "", "")
    assert run("doctor", "-q").stdout == "self-test     passed\n"
