"""Heads as people train them: what their reports must say, and what they must not say."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from reports import leave_out_crosscheck

from resnet_cert import Report, check
from resnet_cert.cli import cli
from resnet_cert.report.page import page
from resnet_cert.spec import load_spec

TRAINED = Path(__file__).parent / "trained"
SAYS = {
    "softmax-decay": [
        "(W, c, V) is an ε-second-order stationary point of G for ε = 0.0001.",
        "Weight decay can have cost at most 0 here: no linear predictor of any size has a G that is lower",
        "G is lower at the network than at every linear predictor of any size, by at least 0.0656.",
        "From ε = 0.0001 alone Theorem 3 says nothing",
        "The network does better than every linear predictor, by at least 0.057.",  # not of one size: 0.092
        "With these features no (W, c, V) has an F that is lower by more than 0.0345.",
        "for every ε ≥ 2.51e-9",
    ],
    "dead-features": [  # a linear predictor itself
        "Weight decay can have cost at most 1.59e-17 here",
        "The network does better than every linear predictor with ‖(W, c)‖_F < 3.148.",
        "A linear predictor needs ‖(W, c)‖_F ≥ 3.148 to do as well; the network's own ‖(W, c)‖_F is 3.14801.",
        "With these features no (W, c, V) has an F that is lower by more than 0.0801.",
    ],
    "softmax": [
        "(W, c, V) is an ε-second-order stationary point for ε = 0.0001.",
        "for d = 4 ≥ q − 1 = 2 every second-order stationary point of F has F ≤ inf F_lin",
        "The network does better than every linear predictor, by at least 0.0242.",
        "With these features no (W, c, V) does better by more than",
    ],
    "two-classes": [
        "At ε = 0.0001 Theorem 3 says nothing",
        "The network does better than every linear predictor, by at least 0.017.",
        "With these features no (w, c, V) does better by more than",
        "for every ε ≥ 4.6e-11",
    ],
    "regression": [
        "The network does better than every linear predictor, by at least 0.00439.",
        "With these features no (w, c, V) does better by more than",
    ],
}
NEVER = ["not apply", "not stated", "regularised", "default", "unknown", "undecided", "r = "]
"""None of these heads has a corner that a theorem leaves out, and no sentence hangs on a radius."""
LEFT = {"softmax-decay": 0.035, "dead-features": 0.081}
"""What decay leaves to gain in F; the others are global minima to rounding."""


@pytest.fixture(autouse=True)
def _without_crosscheck(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_crosscheck(monkeypatch)


@functools.cache
def report(name: str) -> Report:
    loaded = load_spec(TRAINED / f"{name}.yaml")
    return check(loaded.problem)


@pytest.mark.parametrize("name", SAYS)
def test_a_trained_head_is_told_what_it_is(name: str):
    said = page(report(name))
    words = "\n".join([*said.sentences, *said.next_steps])
    assert [part for part in SAYS[name] if part not in words] == []
    assert [word for word in NEVER if word in words] == []


@pytest.mark.parametrize("name", SAYS)
def test_what_is_left_to_gain_is_known_to_rounding(name: str):
    left = report(name).objective.block_gap
    assert left is not None
    assert left.upper <= LEFT.get(name, 1e-13)
    assert left.upper - left.lower < 1e-12


def document(name: str) -> dict[str, Any]:
    result = CliRunner().invoke(cli, ["bound", str(TRAINED / f"{name}.yaml"), "--format", "json"])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("name", ["softmax", "regression", "two-classes"])
def test_the_bound_of_a_trained_head_is_that_of_its_check(name: str):
    found, checked = document(name), report(name)
    [row] = found["rows"]
    assert row["eps"] == checked.epsilon
    if checked.problem.outputs > 1:  # of one output the document has the paper's constants
        assert found["constants"].items() >= {"q": 3, "k": 3, "span": 2}.items()
    assert found["F_lin_min"]["value"] == checked.objective.F_lin_min.value
    assert checked.theorem3.bound is not None
    assert row["bound"]["upper"] == checked.theorem3.bound.upper


def test_the_bound_of_a_decayed_head_is_that_of_its_check():
    about = report("dead-features").regularized
    assert about is not None
    assert about.theorem3 is not None
    assert about.theorem3.bound is not None
    assert about.theorem3.G_upper is not None
    found = document("dead-features")
    [row] = found["rows"]
    assert row["form"] == "decayed"
    assert row["bound"]["upper"] == pytest.approx(about.theorem3.bound.upper, rel=1e-12)
    assert row["G_upper"]["upper"] == pytest.approx(about.theorem3.G_upper.upper, rel=1e-12)
    assert (row["threshold_form"], row["polynomial_form"], found["F_lin_min"]) == (None, None, None)
