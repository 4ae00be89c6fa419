"""What the producer writes, the verifier accepts, with the same verdict; and it writes all or nothing."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import families
import numpy as np
import pytest
from oracle import Sample, Truth

import resnet_cert.certificate.writing
from resnet_cert import Problem, RequestError, Verdict, check
from resnet_cert.certificate.decision import verify
from resnet_cert.certificate.writing import write_certificate
from resnet_cert.check import examine
from resnet_cert.problem.problem import Constraint, Regularizer
from resnet_cert.results import Report, Source


def checked(sample: Sample, epsilon: float, mu2: float | None = None) -> tuple[Problem, Report]:
    problem = families.to_problem(sample, epsilon=epsilon, mu2=mu2)
    return problem, check(problem)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_verifier_accepts_what_the_check_decides(tmp_path: Path, family: str) -> None:
    """With ε and μ2 close to the point's own thresholds."""
    sample = families.make(family, 0)
    epsilon, mu2 = families.margin(Truth(sample), np.random.default_rng(0))
    problem, report = checked(sample, epsilon, mu2)
    write_certificate(tmp_path / "certificate.json", problem, report)
    found = verify(tmp_path / "certificate.json")
    assert found.accepted, found.reasons
    assert found.verdict is report.verdict


@pytest.mark.parametrize("family", families.BENIGN)
def test_the_verifier_accepts_a_computed_mu2_and_domain(tmp_path: Path, family: str) -> None:
    problem, report = checked(families.make(family, 0), 1e-2)
    assert report.constants.source["mu2"] == "computed"
    write_certificate(tmp_path / "certificate.json", problem, report)
    assert verify(tmp_path / "certificate.json").verdict is report.verdict


def test_each_verdict_claims_what_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    saddle, slope = families.make("saddle", 0), families.make("gaussian", 0)
    m, gradient = float(Truth(saddle).m.mid()), float(Truth(slope).norm.mid())
    for sample, epsilon, mu2, verdict, ends in (
        (saddle, m / 10, 20 * m, Verdict.CERTIFIED, (True, False)),
        (saddle, m / 10, m, Verdict.REFUTED, (False, True)),
        (slope, gradient / 2, 1e-9, Verdict.REFUTED, (False, False)),
    ):
        write_certificate(path, *checked(sample, epsilon, mu2))
        document = read(path)
        assert document["claim"]["verdict"] == verdict.value
        claimed = document["bounds"]["lambda_min"]
        assert (claimed["lower"] is not None, claimed["upper"] is not None) == ends
        assert verify(path).verdict is verdict


@pytest.mark.parametrize("w", [[0.0, 0.0], [0.0, 0.7], [0.3, -0.7]])
@pytest.mark.parametrize("given", [True, False])
def test_a_curvature_that_only_rational_numbers_see_is_shown_by_a_direction(
    tmp_path: Path, w: list[float], given: bool
) -> None:
    """E[ℓ' f] = (2^−60, 0)/4 comes out as 0 in float64, and with it λ_min, which is −‖a‖²/‖A‖ or so."""
    x = np.array([[1.0, 0.5], [1.0, 0.5], [-1.0, 0.25], [-1.0, 0.25]])
    residuals = np.array([-1.0, 1.0, 0.5, -0.5])
    f = np.array([[1.0, 2.0], [1.0 + 2.0**-52, 2.0], [-1.0, 1.0], [-1.0, 1.0]])
    problem = Problem.from_arrays(
        x=x, y=x @ w - residuals, f=f, w=w, V=np.zeros((2, 2)), epsilon=1.0, mu2=0.0
    )
    examination = examine(problem)
    assert examination.curvature.lambda_min.upper == 0.0
    assert examination.report.gradient.verdict is Verdict.CERTIFIED
    assert examination.report.hessian.verdict is Verdict.REFUTED
    direction = examination.curvature.direction if given else None
    write_certificate(tmp_path / "c.json", problem, examination.report, direction=direction)
    assert verify(tmp_path / "c.json").verdict is Verdict.REFUTED


def test_the_certificate_names_its_spec_from_its_own_folder(tmp_path: Path) -> None:
    spec = tmp_path / "specs" / "problem.yaml"
    spec.parent.mkdir()
    spec.write_text("version: 1\n")
    (tmp_path / "out").mkdir()
    problem, report = checked(families.make("gaussian", 0), 0.5)
    named = replace(report, spec=Source(str(spec), hashlib.sha256(spec.read_bytes()).hexdigest()))
    path = tmp_path / "out" / "certificate.json"
    write_certificate(path, problem, named, overrides=["epsilon=0.5"])
    assert read(path)["spec"] == {
        "path": "../specs/problem.yaml",
        "sha256": named.spec.sha256,
        "overrides": ["epsilon=0.5"],
    }
    write_certificate(path, problem, replace(report, spec=Source("-", named.spec.sha256)))
    assert read(path)["spec"] is None


def test_a_mapped_distribution_is_written_as_it_is_read(tmp_path: Path) -> None:
    """Rows that come in several chunks, and probabilities."""
    rng = np.random.default_rng(0)
    n, d, k = 1500, 2, 1
    arrays = {"x": rng.normal(size=(n, d)), "y": rng.normal(size=n), "f": rng.normal(size=(n, k))}
    w, V, probabilities = rng.normal(size=d), rng.normal(size=(d, k)), rng.uniform(1, 2, n)
    probabilities /= probabilities.sum()
    problem = Problem.from_arrays(**arrays, w=w, V=V, probabilities=probabilities, epsilon=1.0)
    write_certificate(tmp_path / "certificate.json", problem, check(problem))
    stored = np.fromfile(tmp_path / "certificate.json.data", "<f8")
    parts = [arrays["x"], arrays["y"], probabilities, arrays["f"], w, V]
    np.testing.assert_array_equal(stored, np.concatenate([part.ravel() for part in parts]))


def test_what_the_bounds_rest_on_is_written(tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    problem, report = checked(families.make("gaussian", 0), 0.5)
    write_certificate(path, problem, report)
    assert any("8 units in the last place" in assumption for assumption in read(path)["assumptions"])
    write_certificate(path, problem, report, arithmetic="ball")
    assert not any("units in the last place" in assumption for assumption in read(path)["assumptions"])


class Foreign:
    """A loss that is not one of ours."""

    name = "foreign"


def test_no_certificate_for_a_loss_that_the_verifier_does_not_know(tmp_path: Path) -> None:
    problem, report = checked(families.make("gaussian", 0), 0.5)
    foreign: Any = Foreign()
    with pytest.raises(RequestError, match="built-in loss"):
        write_certificate(tmp_path / "certificate.json", replace(problem, loss=foreign), report)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", [{"regularizer": Regularizer(0.25)}, {"constraint": Constraint(100.0)}])
def test_no_certificate_for_another_objective(tmp_path: Path, part: dict[str, Any]) -> None:
    problem, report = checked(families.make("gaussian", 0), 0.5)
    with pytest.raises(RequestError, match="no regularizer"):
        write_certificate(tmp_path / "certificate.json", replace(problem, **part), report)
    assert not list(tmp_path.iterdir())


def test_no_certificate_where_no_file_can_be(tmp_path: Path) -> None:
    problem, report = checked(families.make("gaussian", 0), 0.5)
    for path in (tmp_path, tmp_path / "none" / "certificate.json"):
        with pytest.raises(RequestError, match="expected an ordinary file"):
            write_certificate(path, problem, report)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("at", ["_write_arrays", "_claim", "_ends"])
def test_an_interrupt_leaves_nothing_behind_and_the_old_certificate_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    path = tmp_path / "certificate.json"
    problem, report = checked(families.make("gaussian", 0), 0.5)
    other, other_report = checked(families.make("gaussian", 1), 0.5)

    def interrupted(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(resnet_cert.certificate.writing, at, interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_certificate(path, problem, report)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    write_certificate(path, problem, report)
    monkeypatch.setattr(resnet_cert.certificate.writing, at, interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_certificate(path, other, other_report)
    assert sorted(os.listdir(tmp_path)) == ["certificate.json", "certificate.json.data"]
    assert verify(path).accepted
