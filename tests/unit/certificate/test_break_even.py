"""The break-even radius in a certificate: what `check` found is shown again, and nothing beyond it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import forger
import numpy as np
import pytest
from families import draw
from flint import arb
from heads import LOSSES, Head, balls
from reports import leave_out_crosscheck

from resnet_cert.certificate.decision import decide
from resnet_cert.certificate.writing import write_certificate
from resnet_cert.check import examine


@pytest.fixture(autouse=True)
def _without_crosscheck(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_crosscheck(monkeypatch)


def fitted(loss: str, seed: int) -> Head:
    """A head that does better than the predictor 0: a part of the way to the least squares on its own h."""
    rng, n = np.random.default_rng(seed), 20
    head = draw(seed, "generic", loss, q=2 if loss == "softmax" else None)
    x, f = rng.normal(size=(n, head.x.shape[1])), rng.normal(size=(n, head.f.shape[1]))
    y = {
        "logistic": rng.integers(0, 2, (n, head.q)).astype(float),
        "softmax": np.eye(head.q)[rng.integers(0, head.q, n)],
        "poisson": rng.poisson(1.5, (n, head.q)).astype(float),
    }.get(loss, rng.normal(size=(n, head.q)))
    omega = None if head.omega is None else rng.uniform(0.5, 2.0, (n, head.q))
    bypass = None if head.bypass is None else rng.normal(size=(n, head.bypass.shape[1]))
    head = replace(head, x=x, f=f, y=y, omega=omega, bypass=bypass)
    h = head.inputs.copy()
    h[:, : x.shape[1]] += f @ head.V.T
    W = 0.3 * np.linalg.lstsq(h, y - y.mean(axis=0), rcond=None)[0].T
    columns = head.W.shape[1]
    return replace(head, W=W[:, :columns], c=None if head.c is None else W[:, columns])


def forged(path: Path, end: str, value: float | None) -> None:
    document = json.loads(path.read_text())
    text = None if value is None else value.hex()
    path.write_text(
        json.dumps(forger.sealed(forger.changed(document, ("bounds", "break_even_radius", end), text)))
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_the_radius_is_shown_from_both_sides_and_no_further(tmp_path: Path, loss: str, longer: int) -> None:
    head, path = fitted(loss, 1), tmp_path / "c.json"
    made = examine(head.problem(epsilon=1e3, mu2=1.0), break_even=True)
    found = made.report.objective.break_even_radius
    assert found is not None
    assert found.lower > 0.0
    write_certificate(path, made.problem, made.report)
    answer = decide(path)
    assert answer.verdict is made.report.verdict
    assert answer.claim is not None
    lower, upper = answer.claim.break_even_radius.lower, answer.claim.break_even_radius.upper
    assert lower is not None
    if found.upper is not None and math.isfinite(found.upper):
        assert found.upper * (1.0 - 1e-6) < lower <= found.upper
    assert any("no linear predictor" in said for said in answer.statements)
    for end, others in (("lower", (1.0 + 1e-6, 2.0)), ("upper", (1.0 - 1e-5, 0.5))):
        before, honest = path.read_text(), lower if end == "lower" else upper
        if honest is not None:
            for factor in () if found.infinite else others[:longer]:
                forged(path, end, honest * factor)
                assert "break_even_radius" in decide(path).reasons[0], (end, factor)
                path.write_text(before)
            forged(path, end, honest * (0.5 if end == "lower" else 2.0))  # less, and as true
            assert decide(path).verdict is made.report.verdict
            path.write_text(before)


def test_the_predictor_that_shows_it_is_as_good_by_the_oracle(tmp_path: Path) -> None:
    head, path = fitted("logistic", 1), tmp_path / "c.json"
    made = examine(head.problem(epsilon=1e3, mu2=1.0), break_even=True)
    write_certificate(path, made.problem, made.report)
    size = head.head.size
    U = np.frombuffer(path.with_name("c.json.data").read_bytes())[-size:].reshape(head.head.shape)
    truth = head.truth
    value, _, _ = truth.linear(balls(U))
    assert value <= truth.F
    upper = json.loads(path.read_text())["bounds"]["break_even_radius"]["upper"]
    assert sum((arb(u) ** 2 for u in U.ravel().tolist()), arb(0)) <= arb(float.fromhex(upper)) ** 2


def test_a_radius_needs_a_predictor(tmp_path: Path) -> None:
    document, arrays = forger.certified(forger.at_threshold(draw(0), 1.1))
    for end in ("lower", "upper"):
        mutant = forger.changed(document, ("bounds", "break_even_radius", end), (1.0).hex())
        found = decide(forger.write(tmp_path, forger.sealed(mutant), arrays))
        assert "expected a linear predictor" in found.reasons[0]
