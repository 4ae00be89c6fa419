"""The commands `profile` and `bound`: tables, documents and pictures, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import resnet_cert
from resnet_cert.cli import cli
from resnet_cert.compare.profile import profile
from resnet_cert.outcomes import RequestError

SPEC = """\
version: 1
data:
  x: [[1, 0.2], [0.8, -0.1], [-1, 0.3], [-0.7, -0.4], [0.3, 1.0], [-0.2, -0.9]]
  y: [1, 1, -1, -1, 1, -1]
  f: [[0.1], [0.4], [-0.3], [-0.2], [0.2], [0.3]]
loss: logistic
network: {kind: given}
point: {w: [2.0, 1.0], V: [[0.3], [0.5]]}
epsilon: 0.1
"""
ONES = ["--b", "1", "--r", "1", "--mu0", "1", "--mu1", "1", "--mu2", "1"]


@pytest.fixture
def spec(tmp_path: Path) -> str:
    path = tmp_path / "separable.yaml"
    path.write_text(SPEC)
    return str(path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def test_a_profile_as_text_says_where_they_meet(spec: str):
    shown = run("profile", spec, "--points", "3")
    assert shown.exit_code == 0, shown.output
    assert "a linear predictor does as well from ‖W‖_F = 2.385555" in shown.stdout
    assert "‖W‖_F = 2.23607" in shown.stdout


def test_a_profile_as_json_is_the_document_of_the_contract(spec: str):
    document = json.loads(run("profile", spec, "--points", "5", "--format", "json").stdout)
    assert document["schema"] == "resnet-cert/profile/1"
    meeting = document["break_even_radius"]
    assert set(meeting) == {"value", "lower", "upper", "infinite"}
    assert meeting["infinite"] is False
    assert meeting["lower"] <= meeting["value"] <= meeting["upper"]
    assert len(document["rows"]) == 5
    assert set(document["rows"][0]) == {"r", "F_lin_min"}
    assert document["rows"][2]["r"] == pytest.approx(meeting["value"])
    r = [row["r"] for row in document["rows"]]
    assert r[1] / r[0] == pytest.approx(r[4] / r[3])


def test_an_infinite_radius_has_no_value(tmp_path: Path):
    path = tmp_path / "fit.yaml"
    path.write_text(
        "version: 1\ndata: {x: [[1.0], [-1.0], [2.0]], y: [1.0, 1.0, 0.0], f: [[1.0], [1.0], [0.0]]}\n"
        "loss: squared\nnetwork: {kind: given}\npoint: {w: [1.0], V: [[1.0]]}\nepsilon: 0.1\n"
    )
    document = json.loads(run("profile", str(path), "--points", "2", "--format", "json").stdout)
    if document["break_even_radius"]["infinite"]:
        assert document["break_even_radius"]["value"] is None
        assert "infinite" in run("profile", str(path), "--points", "2").stdout
    else:
        assert document["break_even_radius"]["value"] is not None


def test_a_picture_is_not_written_over_the_spec(spec: str):
    refused = run("profile", spec, "--output", spec)
    assert refused.exit_code == 2
    assert Path(spec).read_text() == SPEC


def test_a_bound_for_softmax_heads_and_against_the_best_block(spec: str):
    arguments = ["--eps", "0.71", "--b", "3", "--r", "0.61", "--mu0", "1", "--mu1", "4", "--mu2", "100"]
    shape = ["--d", "3", "--q", "3", "--k", "2", "--loss", "softmax"]
    document = json.loads(run("bound", *arguments, *shape, "--format", "json").stdout)
    assert document["rows"][0]["refined_form"] == pytest.approx(29.0449893549, abs=1e-9)
    assert document["constants"]["span"] == 2
    text = run("bound", *arguments, *shape, "--s", "1").stdout
    assert "augmented" in text
    few = run("bound", "--eps", "0.1", *ONES, "--d", "1", "--q", "3")
    assert few.exit_code == 2
    assert "even a strict local minimum" in few.stderr


def test_for_one_output_the_document_has_the_constants_of_the_paper():
    document = json.loads(run("bound", "--eps", "0.1", *ONES, "--format", "json").stdout)
    assert document["constants"] == {"b": 1.0, "r": 1.0, "mu0": 1.0, "mu1": 1.0, "mu2": 1.0, "d": 2}


def test_an_option_overrides_the_shape_of_a_spec(spec: str):
    document = json.loads(run("bound", spec, "--d", "1", "--format", "json").stdout)
    assert document["constants"]["d"] == 1
    whole = json.loads(run("bound", spec, "--format", "json").stdout)
    assert document["rows"][0]["refined_form"] > whole["rows"][0]["refined_form"]  # C = 1 + √2


def test_results_in_python_are_saved_by_the_ending_of_a_file(spec: str, tmp_path: Path):
    found = profile(resnet_cert.load_problem(spec), 3)
    for name in ("p.json", "p.svg"):
        found.save(tmp_path / name)
    assert json.loads((tmp_path / "p.json").read_text()) == found.to_dict()
    table = resnet_cert.bound([1e-3, 1e-2], b=1, r=1, mu0=1, mu1=1, mu2=1)
    table.save(tmp_path / "b.png")
    with pytest.raises(RequestError, match=r"ends in \.json"):
        table.save(tmp_path / "b.doc")
