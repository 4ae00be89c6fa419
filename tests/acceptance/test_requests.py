"""Nonsense in every flag of every command: exit 2, what was expected, nothing written and nothing lost."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from reports import verify_here

from resnet_cert.cli import cli

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CONSTANTS = "--b 1 --r 1 --mu0 1 --mu1 1 --mu2 1"
OUTPUTS = {
    "check": ("json", "check s.yaml --output {}"),
    "certificate": ("json", "check s.yaml --certificate {}"),
    "witness": ("npz", "check s.yaml --witness {}"),
    "solve": ("npz", "solve s.yaml --output {}"),
    "sgd": ("png", "sgd s.yaml --steps 10 --output {}"),
    "landscape": ("svg", "landscape s.yaml --output {}"),
}
"""Every flag that names a file to write, with the ending of the file."""

NONSENSE = {
    # an argument too few, too many, or of the wrong kind
    "check": "Missing argument",
    "solve": "Missing argument",
    "solve s.yaml": "--output",
    "solve s.yaml s.yaml --output p.npz": "extra argument",
    "sgd s.yaml": "--steps",
    "sgd s.yaml s.yaml --steps 10": "extra argument",
    "landscape": "Missing argument",
    "landscape s.yaml s.yaml": "extra argument",
    "bound s.yaml s.yaml --eps 1": "extra argument",
    "bound --eps 1": "missing --b, --r, --mu0, --mu1, --mu2",
    "bound": "expected --eps, --target-gap or a SPEC",
    "verify": "Missing argument",
    "schema extra": "extra argument",
    "explain theorem1 theorem2": "unknown topic 'theorem1 theorem2'",
    "explain theorem5": "did you mean 'theorem4'",
    "nonsense": "No such command",
    "check s.yaml --nonsense": "No such option",
    "verify nowhere.json": "nowhere.json",
    "verify folder": "folder",
    "check s.yaml nowhere.yaml": "nowhere.yaml:1:1: error",
    "solve folder --output p.npz": "folder:1:1: error",
    "landscape empty.yaml": "empty.yaml:1:1: error",
    "check - -": "standard input once",
    # an option given twice
    "check s.yaml --eps 1 --eps 2": "expected --eps once",
    "check s.yaml --output a --output b": "expected --output once",
    "solve s.yaml --output a.npz --output b.npz": "expected --output once",
    "sgd s.yaml --steps 2 --steps 3": "expected --steps once",
    "landscape s.yaml --range -1:1,-1:1 --range -2:2,-2:2": "expected --range once",
    f"bound --eps 1 {CONSTANTS} --b 2": "expected --b once",
    # a file of the wrong ending, or one that would be lost
    "landscape s.yaml --output p.jpg": "ends in .png or .svg or .pdf",
    "sgd s.yaml --steps 10 --output p": "ends in .png or .svg or .pdf",
    "solve s.yaml --output p.npy": "ends in .npz",
    "check s.yaml --witness p.json": "ends in .npz",
    "check s.yaml --output s.yaml": "s.yaml: error: expected another file, not one which is read",
    "check s.yaml --certificate folder/../s.yaml": "which is read",
    "check s.yaml --output p --certificate p": "which is written too",
    "check s.yaml --output p.data --certificate p": "which is written too",
    "check s.yaml --certificate p.npz --witness p.npz": "which is written too",
    "landscape s.yaml --directions d.png --output d.png": "which is read",
    # numbers
    **{f"check s.yaml --eps {x}": "--eps" for x in ("-1", "inf", "nan", "x", "''")},
    **{f"solve s.yaml --output p.npz --eps {x}": "--eps" for x in ("-1", "inf", "nan", "x")},
    **{f"solve s.yaml --output p.npz --seed {x}": "--seed" for x in ("-1", "1.5", "x")},
    **{f"sgd s.yaml --steps {x}": "--steps" for x in ("0", "-1", "1.5", "x")},
    "sgd s.yaml --steps 1000000000001": "from 1 to 1000000000000 for steps",
    **{f"sgd s.yaml --steps 10 --delta {x}": "--delta" for x in ("0", "1", "2", "-1", "nan", "x")},
    **{f"sgd s.yaml --steps 10 --radius {x}": "--radius" for x in ("0", "-1", "inf", "nan", "x")},
    **{f"sgd s.yaml --steps 10 --seed {x}": "--seed" for x in ("-1", "1.5", "x")},
    **{f"sgd s.yaml --steps 10 --repeat {x}": "--repeat" for x in ("0", "-1", "1.5", "x")},
    **{
        f"landscape s.yaml --range {x}": "W0:W1,V0:V1"
        for x in ("1", "1:2", "3:-3,3:-3", "0:0,0:1", "nan:1,0:1", "-inf:1,0:1", "0:1,0:1,0:1", "a:b,c:d")
    },
    **{
        f"bound {CONSTANTS} --eps {x}": "--eps"
        for x in ("-1", "nan", "inf", "x", "1,,2", "1:2", "1:2:0", "0:1:3", "1:2:1000000", "1:2:x")
    },
    **{
        f"bound --eps 1 {CONSTANTS.replace(f'--{name} 1', f'--{name} {x}')}": name
        for name in ("b", "r", "mu0", "mu1", "mu2")
        for x in ("-1", "nan", "inf", "x")
    },
    f"bound --eps 1 {CONSTANTS.replace('--b 1', '--b 0')}": "expected a finite number > 0 for b",
    f"bound --eps 1 {CONSTANTS} --d 0": "--d",
    f"bound {CONSTANTS} --target-gap -1": "--target-gap",
    # choices
    "check s.yaml --format xml": "--format",
    "check s.yaml --arithmetic float32": "--arithmetic",
    "sgd s.yaml --steps 10 --theta thawed": "--theta",
    # what is there, but not for this
    "sgd s.yaml --steps 10 --theta sgd": "a network with parameters",
    "sgd s.yaml --steps 10 --set regularizer.l2=1": "without regularizer",
    "sgd s.yaml --steps 10 --set constraint.norm=2": "constraint",
    "bound s.yaml --eps 1 --set constraint.norm=2": "Theorem 3 does not apply",
    "landscape s.yaml --directions nowhere.npz": "nowhere.npz: error",
    "landscape s.yaml --directions empty.yaml": "empty.yaml: error",
    "landscape s.yaml --directions folder": "folder: error",
    # the spec
    **{
        f"check s.yaml --set constraint.norm={x}": f"norm={x}:1:17: error: constraint.norm: expected a number"
        for x in ("0", "-1", "inf", "nan", "x", "[1]", "true", "")
    },
    **{
        f"check s.yaml --set regularizer.l2={x}": f"l2={x}:1:16: error: regularizer.l2: expected a number ≥ 0"
        for x in ("-1", "inf", "nan", "x", "[1]", "true", "")
    },
    "check s.yaml --set constraint.norm=0.5": "s.yaml:10:8: error: point: expected ‖(w, V)‖ ≤ norm = 0.5",
    "check s.yaml --set constraint=3": "expected a mapping with norm",
    "check s.yaml --set regularizer=3": "expected a mapping with l2",
    "check s.yaml --set constraint={}": "missing key 'norm'",
    "check s.yaml --set regularizer={}": "missing key 'l2'",
    "check s.yaml --set regularizer.weight_decay=-1": "regularizer.weight_decay: expected a number ≥ 0",
    "check s.yaml --set constraint.nrm=1": "did you mean 'norm'",
    "check s.yaml --set regulariser.l2=1": "did you mean 'regularizer'",
    "check s.yaml --set regularizer": "expected KEY=VALUE",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    verify_here(monkeypatch)
    (tmp_path / "s.yaml").write_text((CONFIGS / "saddle.yaml").read_text())
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "d.png").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for ending, _ in OUTPUTS.values():
        (tmp_path / f"folder.{ending}").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")}


def assert_refused(command: str, message: str, folder: Path) -> None:
    before = contents(folder)
    result = CliRunner().invoke(cli, shlex.split(command))
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert contents(folder) == before


@pytest.mark.parametrize("command", NONSENSE)
def test_nonsense_is_refused(command: str, folder: Path) -> None:
    assert_refused(command, NONSENSE[command], folder)


@pytest.mark.parametrize(
    "command",
    [
        "check",
        "check s.yaml --nonsense",
        "check s.yaml --hessian dense",
        "check s.yaml --eps",
        "check s.yaml --eps x",
        "solve s.yaml",
        "sgd s.yaml --steps 1.5",
        "bound s.yaml s.yaml",
        "verify",
        "nonsense",
        "--nonsense check s.yaml",
    ],
)
def test_what_no_command_takes_has_an_id_and_a_document(command: str) -> None:
    """An option that there is not, one without its value, a missing argument, a wrong choice."""
    plain, verbose, document = (
        CliRunner().invoke(cli, shlex.split(f"{command} {more}"))
        for more in ("", "--format=text -v", "--format json")
    )
    assert (plain.exit_code, document.exit_code) == (2, 2)
    last = plain.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert plain.stderr.startswith("Usage: ")
    if "bound" not in command and command[-5:] != "--eps":
        assert verbose.stderr.splitlines()[-1].endswith(" [usage]")
    [error] = json.loads(document.stdout)["errors"]
    assert error["id"] == "usage"
    assert error["message"]


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_place_where_no_file_can_be_is_refused(output: str, folder: Path) -> None:
    ending, command = OUTPUTS[output]
    assert_refused(command.format(f"folder.{ending}"), "got a folder", folder)
    assert_refused(command.format(f"nowhere/p.{ending}"), "expected an existing folder", folder)
    assert_refused(command.format(f"s.yaml/p.{ending}"), "expected an existing folder", folder)


@pytest.mark.parametrize(
    "command", ["sgd s.yaml --steps 10 --output p.png", "landscape s.yaml --output p.pdf"]
)
def test_a_picture_without_matplotlib_is_refused_before_the_work(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name)
    )
    assert_refused(command, "pip install 'resnet-cert[plot]'", folder)


@pytest.mark.parametrize("command", ["verify d.png", "check s.yaml --arithmetic ball"])
def test_balls_without_flint_are_refused(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_flint = ("resnet_cert.certificate.", "resnet_cert.decide.ball")
    for name in [name for name in sys.modules if name.startswith(of_flint)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "flint", None)
    assert_refused(command, "python-flint", folder)
