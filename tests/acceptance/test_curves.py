"""`profile` and `bound` by the command line: the table, the document and the picture say the same."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from selections import first

import resnet_cert
from resnet_cert.cli import cli
from resnet_cert.report.curves import bound_figure, profile_figure
from resnet_cert.theory.bound import with_curve

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = str(ROOT / "configs" / "example-1.yaml")
"""E[ℓ(wx)] = ½(w − 1)², and F = ½: every r from 0 on breaks even."""
TRAINED = Path(__file__).parent / "trained"
CONSTANTS = ["--b", "2", "--r", "1", "--mu0", "3", "--mu1", "5", "--mu2", "7"]
SHARP = ("refined_form", "threshold_form")
MAGIC = {"png": b"\x89PNG\r\n", "pdf": b"%PDF", "svg": b"<?xml"}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def document(*arguments: str) -> dict[str, Any]:
    result = run(*arguments, "--format", "json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def drawn(figure: Any, label: str) -> list[float]:
    [axes] = figure.axes
    [line] = [line for line in axes.lines if line.get_label() == label]
    return list(line.get_ydata())


# --- profile ----------------------------------------------------------------------------------------------


def test_a_profile_encloses_the_minima_of_a_parabola():
    found = document("profile", EXAMPLE, "--points", "7")
    assert (found["schema"], len(found["rows"])) == ("resnet-cert/profile/1", 7)
    assert found["F"]["lower"] <= 0.5 <= found["F"]["upper"]
    meeting = found["break_even_radius"]
    assert meeting["infinite"] is False
    assert (meeting["value"], meeting["lower"]) == (0.0, 0.0)
    assert meeting["upper"] < 1e-12
    r = [row["r"] for row in found["rows"]]
    assert np.allclose(np.diff(np.log10(r)), 1.0 / 3.0)  # 7 points over two decades
    for row in found["rows"]:
        least, true = row["F_lin_min"], max(1.0 - row["r"], 0.0) ** 2 / 2.0
        assert least["lower"] <= true <= least["upper"]
        assert least["upper"] - least["lower"] < 1e-12


def test_the_middle_of_a_profile_is_its_break_even_radius(tmp_path: Path):
    """½E(wx − y)² = ½(w − 1)² for x = y = 1, w = ¼, V = 0: F = 9/32, and r° = ¼, the network's own size."""
    problem = resnet_cert.Problem.from_arrays(
        x=[[1.0]], y=[1.0], f=[[1.0]], w=[0.25], V=[[0.0]], compare={"twice": [[2.0]]}
    )
    found = resnet_cert.profile(problem, points=3)
    meeting = found.break_even_radius
    assert meeting.value == pytest.approx(0.25, rel=1e-9)
    assert meeting.upper is not None
    assert meeting.lower <= 0.25 <= meeting.upper
    assert found.rows[1].r == pytest.approx(0.25, rel=1e-9)
    assert found.norm_W == 0.25
    assert [other.name for other in found.comparators] == ["twice"]
    saved = tmp_path / "profile.json"
    found.save(saved)
    assert json.loads(saved.read_text()) == found.to_dict()
    figure = profile_figure(found)
    [axes] = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert "break-even, $r = 0.25$" in [text.get_text() for text in figure.legends[0].get_texts()]
    with pytest.raises(resnet_cert.RequestError, match="ends in"):
        found.save(tmp_path / "profile.bmp")


def test_an_option_goes_before_the_spec():
    spec = str(TRAINED / "softmax.yaml")
    found = document("bound", spec, "--d", "9", "--k", "1", "--b", "0.5", "--s", "2", "--eps", "1")
    assert found["constants"].items() >= {"d": 9, "k": 1, "q": 3, "span": 2, "b": 0.5, "s": 2.0}.items()


def test_the_document_carries_the_curve_of_the_picture(tmp_path: Path):
    picture = tmp_path / "bound.svg"
    found = document("bound", *CONSTANTS, "--s", "1", "--eps", "1e-3", "--output", str(picture))
    eps = [row["eps"] for row in found["curve"]]
    assert [row["eps"] for row in found["rows"]] == [1e-3]
    assert np.allclose([eps[0], eps[-1]], [1e-5, 1e-1])
    assert np.allclose(np.diff(np.log10(eps)), 4.0 / (len(eps) - 1))
    assert "curve" not in document("bound", *CONSTANTS, "--eps", "1e-3")
    numbers = dict(zip(("b", "r", "mu0", "mu1", "mu2"), map(float, CONSTANTS[1::2]), strict=True))
    table = with_curve(resnet_cert.bound(1e-3, **numbers, s=1.0))
    figure = bound_figure(table)
    [axes] = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert drawn(figure, "refined") == [row["refined_form"] for row in found["curve"]]
    assert drawn(figure, "threshold") == [row["threshold_form"] for row in found["curve"]]
    assert drawn(figure, "refined, polynomial") == [row["refined_polynomial_form"] for row in found["curve"]]
    assert drawn(figure, "threshold, polynomial") == [row["polynomial_form"] for row in found["curve"]]
    assert drawn(figure, "augmented") == [row["augmented_form"]["upper"] for row in found["curve"]]
    assert drawn(figure, "the bound: the least") == [row["bound"]["upper"] for row in found["curve"]]
    assert table.to_dict() == found


@pytest.mark.parametrize(
    "eps", first(2, ["--eps 1e-300,1e300", "--target-gap 0.1", "--eps 0", "--eps 1e-3:1:5"])
)
def test_every_request_has_a_curve(tmp_path: Path, eps: str):
    picture = tmp_path / "bound.png"
    found = document("bound", *CONSTANTS, *eps.split(), "--output", str(picture))
    curve = [row["eps"] for row in found["curve"]]
    assert all(a < b for a, b in pairwise(curve))
    assert curve[-1] / curve[0] >= 0.999e4
    assert picture.read_bytes().startswith(MAGIC["png"])


@pytest.mark.parametrize("ending", MAGIC)
@pytest.mark.parametrize("command", first(1, ["profile", "bound"]))
def test_a_picture_is_of_the_kind_of_its_name(tmp_path: Path, command: str, ending: str):
    picture = tmp_path / f"picture.{ending}"
    assert run(command, EXAMPLE, "--output", str(picture)).exit_code == 0
    assert picture.read_bytes().startswith(MAGIC[ending])


@pytest.mark.parametrize("command", ["profile", "bound"])
def test_a_picture_that_cannot_be_is_refused_before_the_work(tmp_path: Path, command: str):
    wrong = run(command, EXAMPLE, "--output", str(tmp_path / "picture.bmp"))
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert ".png or .svg or .pdf" in wrong.stderr
    nowhere = run(command, EXAMPLE, "--output", str(tmp_path / "none" / "picture.png"))
    assert (nowhere.exit_code, nowhere.stdout) == (2, "")
    assert "expected an existing folder" in nowhere.stderr
