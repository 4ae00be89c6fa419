"""What the producer writes, the verifier accepts, with the same verdict; and it writes all or nothing."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import forger
import numpy as np
import pytest
from families import CORNERS, draw
from heads import LOSSES
from reports import leave_out_crosscheck, verify_here
from selections import first

from resnet_cert import Problem, Report, RequestError, Verdict, verify
from resnet_cert.certificate.decision import decide
from resnet_cert.certificate.verification import Verification
from resnet_cert.certificate.writing import write_certificate
from resnet_cert.check import check, examine
from resnet_cert.spec import load_spec


@pytest.fixture(autouse=True)
def _without_crosscheck(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_crosscheck(monkeypatch)


def certify(of: Path | Problem, path: Path) -> Report:
    """What `check --certificate` does with a spec, and Python with a problem."""
    source, problem = None, of
    if isinstance(of, Path):
        loaded = load_spec(of, writes=[str(path), f"{path}.data"])
        source, problem = loaded.source, loaded.problem
    assert isinstance(problem, Problem)
    made = examine(problem, spec=source, break_even=False)
    direction = made.decision.curvature.direction
    write_certificate(path, made.problem, made.report, direction=direction)
    return made.report


@pytest.mark.parametrize(
    "loss", first(4, sorted(LOSSES, key=lambda loss: loss in ("squared", "pseudo_huber")))
)
@pytest.mark.parametrize("seed", first(1, range(2)))
def test_the_verifier_accepts_what_check_decides(tmp_path: Path, loss: str, seed: int) -> None:
    """At random points of every kind, near their thresholds, with b and μ2 given and computed."""
    rng = np.random.default_rng([seed, LOSSES.index(loss)])
    corner = str(rng.choice(CORNERS))
    q = 2 if loss == "softmax" else None
    head = draw(seed, corner, loss, q=q, l2=float(rng.choice([0.0, 0.05])))
    epsilon = forger.smallest_epsilon(head.truth, 1.0) or 1.0
    for mu2, slack in ((1.0, 1.0 + 1e-9), (1.0, 1.0 - 1e-9), (None, 0.5)):
        spec = forger.spec(tmp_path, forger.Case(head, slack * epsilon, mu2))
        report = certify(spec, tmp_path / "c.json")
        found = decide(tmp_path / "c.json")
        assert (found.verdict, found.features) == (report.verdict, "bitwise"), found.reasons
        assert found.claim is not None
        assert found.claim.b_source == "computed"


@pytest.mark.parametrize("size", [0.5, 1.0, 2.0])
def test_points_on_a_sphere_and_inside_it(tmp_path: Path, size: float) -> None:
    head = draw(3, "generic", "squared", q=1, d1=2, d2=0, bias=False)
    norm = float(np.sqrt((head.W**2).sum() + (head.V**2).sum()))
    for epsilon in (1e-3, 10.0):
        case = forger.Case(head, epsilon, 1.0, extra=f"constraint: {{norm: {max(size, 1.0) * norm!r}}}")
        report = certify(forger.spec(tmp_path, case), tmp_path / "c.json")
        assert decide(tmp_path / "c.json").verdict is report.verdict


def test_a_bundle_of_check_is_verified_anywhere(tmp_path: Path) -> None:
    (tmp_path / "made" / "specs").mkdir(parents=True)
    case = forger.at_threshold(draw(0, "generic", "softmax", q=3, bias=True), 1.1)
    spec = forger.spec(tmp_path / "made" / "specs", case)
    (tmp_path / "made" / "specs" / "data.npz").rename(tmp_path / "made" / "data.npz")
    spec.write_text(spec.read_text().replace("data.npz", "../data.npz"))
    report = certify(spec, tmp_path / "bundle.zip")
    for file in (*(tmp_path / "made" / "specs").iterdir(), tmp_path / "made" / "data.npz"):
        file.unlink()
    found = verify(tmp_path / "bundle.zip")
    assert found.verdict is report.verdict is Verdict.CERTIFIED
    found.save(tmp_path / "answer.json")
    assert Verification.of(json.loads((tmp_path / "answer.json").read_text())) == found
    assert "CERTIFIED" in found._repr_html_()


def test_no_file_that_the_spec_reads_is_overwritten(tmp_path: Path) -> None:
    spec = forger.spec(tmp_path, forger.at_threshold(draw(0), 1.1))
    before = (tmp_path / "data.npz").read_bytes()
    for name in ("data.npz", "point.npz", "problem.yaml"):
        with pytest.raises(RequestError):
            certify(spec, tmp_path / name)
    assert (tmp_path / "data.npz").read_bytes() == before


def test_a_problem_made_in_python_names_no_spec(tmp_path: Path) -> None:
    head = draw(0, "weights", "squared", q=1, d2=0, bias=False)
    report = certify(head.problem(epsilon=1e3, mu2=1.0), tmp_path / "c.json")
    found = decide(tmp_path / "c.json")
    assert (found.verdict, found.spec) == (report.verdict, None)


def test_it_writes_both_files_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = draw(0).problem(epsilon=1e3, mu2=1.0)
    certify(problem, tmp_path / "c.json")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert set(before) == {"c.json", "c.json.data"}
    monkeypatch.setattr(os, "replace", lambda *names: 1 / 0)
    for name in ("c.json", "d.json", "d.zip"):
        with pytest.raises(ZeroDivisionError):
            certify(replace(problem, epsilon=2e3), tmp_path / name)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_report_of_a_spec_bundles_all_that_the_spec_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify_here(monkeypatch)
    (tmp_path / "here").mkdir()
    case = forger.Case(draw(1, "generic", "squared", q=1), 1e3)
    loaded = load_spec(forger.spec(tmp_path / "here", case), overrides=["epsilon=2e3"])
    check(loaded.problem, spec=loaded.source).certificate(tmp_path / "b.zip")
    shutil.rmtree(tmp_path / "here")
    found = verify(tmp_path / "b.zip")
    assert (found.verdict, found.features) == (Verdict.CERTIFIED, "bitwise"), found.reasons
    assert found.spec is not None
    assert found.spec.overrides == ("epsilon=2e3",)


def test_a_loss_of_ones_own_has_no_certificate(tmp_path: Path) -> None:
    one = np.ones((1, 1))
    head = {"x": one, "y": np.ones(1), "f": one, "w": np.zeros(1), "V": 0.0 * one}
    problem = Problem.from_arrays(**head, epsilon=10.0, mu2=1.0)
    with pytest.raises(RequestError, match="built-in loss"):
        write_certificate(
            tmp_path / "c.json",
            replace(problem, loss=SimpleNamespace(name="mine")),  # type: ignore[arg-type]
            certify(problem, tmp_path / "b.json"),
        )
    assert not (tmp_path / "c.json").exists()
