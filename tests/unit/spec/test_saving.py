"""A saved problem is read back as the same problem."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnet_cert import Problem, RequestError, load_problem


def problem(**changes: Any) -> Problem:
    rng = np.random.default_rng(0)
    arrays = {
        "x": rng.normal(size=(12, 3)),
        "f": rng.normal(size=(12, 2)),
        "y": rng.integers(4, size=12),
        "W": rng.normal(size=(4, 3)),
        "V": rng.normal(size=(3, 2)),
        "loss": "softmax",
        "epsilon": 0.1 + 0.2,
    }
    return Problem.from_arrays(**{**arrays, **changes})


def one_output(**changes: Any) -> Problem:
    rng = np.random.default_rng(1)
    changes = {"W": None, "w": rng.normal(size=3), "y": rng.normal(size=12), "loss": "squared", **changes}
    return problem(**changes)


rng = np.random.default_rng(2)
PROBLEMS = {
    "classes": problem(),
    "bias and bypass": problem(
        c=rng.normal(size=4), bypass=rng.normal(size=(12, 2)), W=rng.normal(size=(4, 5))
    ),
    "decay": problem(c=rng.normal(size=4), weight_decay=0.3, decay_bias=False, loss="cross_entropy"),
    "smoothed": problem(
        loss={"kind": "cross_entropy", "label_smoothing": 0.1, "class_weights": [1.0, 2.0, 3.0, 4.0]}
    ),
    "one output": one_output(loss="mse", name="a: name #1"),
    "scaled": one_output(loss={"kind": "pseudo_huber", "scale": 1.0 / 3.0}, b=5.0, r=7.0, mu2=11.0),
    "signs": one_output(y=np.sign(rng.normal(size=12)), loss="logistic", norm=50.0),
    "probabilities": one_output(
        y=rng.uniform(size=12), loss="bce_with_logits", probabilities=np.arange(1.0, 13.0) / 78.0
    ),
    "weighted": problem(y=rng.normal(size=(12, 4)), omega=rng.uniform(size=(12, 4)), loss="weighted_squared"),
    "compared": problem(compare={"pixels": rng.normal(size=(12, 5)), "layer 1": rng.normal(size=(12, 2))}),
    "bound": problem(hessian="bound"),
}


def assert_same(a: Problem, b: Problem) -> None:
    assert (a.epsilon, a.objective, a.domain, a.lipschitz, a.hessian, a.loss.name) == (
        b.epsilon,
        b.objective,
        b.domain,
        b.lipschitz,
        b.hessian,
        b.loss.name,
    )
    np.testing.assert_array_equal(a.W, b.W)
    np.testing.assert_array_equal(a.V, b.V)
    for mine, other in zip(a.chunks(), b.chunks(), strict=True):
        for name in ("x", "f", "y"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(other, name))
        np.testing.assert_allclose(
            mine.weights / mine.weights.sum(), other.weights / other.weights.sum(), 1e-15
        )
        assert (mine.omega is None) == (other.omega is None)
    assert {name: rows[:].tolist() for name, rows in a.comparators.items()} == {
        name: rows[:].tolist() for name, rows in b.comparators.items()
    }


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_a_saved_problem_is_read_back(name: str, ending: str, tmp_path: Path) -> None:
    if ending == "safetensors":
        pytest.importorskip("safetensors", reason="safetensors is not installed")
    spec = PROBLEMS[name].save(tmp_path / f"run.{ending}")
    assert spec == tmp_path / "run.yaml"
    saved, read = PROBLEMS[name], load_problem(spec)
    assert read.name == ("run" if saved.name == "problem" else saved.name)
    assert_same(saved, read)


def test_a_name_of_another_kind_is_refused_and_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"ends in \.npz or \.safetensors, got 'run.pt'"):
        problem().save(tmp_path / "run.pt")
    assert list(tmp_path.iterdir()) == []


def test_no_shard_that_the_problem_is_read_from_is_overwritten(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", x=rng.normal(size=(5, 1)), y=np.ones(5))
    (tmp_path / "problem.yaml").write_text(
        "version: 1\ndata: {shards: '[ab].npz'}\nloss: squared\nnetwork: {kind: identity}\n"
        "point: {w: [0.5], V: [[0.25]]}\nepsilon: 1.0\n"
    )
    read = load_problem(tmp_path / "problem.yaml")
    (tmp_path / "c.npz").symlink_to(tmp_path / "b.npz")
    before = (tmp_path / "b.npz").read_bytes()
    for name in ("b.npz", "c.npz"):
        with pytest.raises(RequestError, match="which is read"):
            read.save(tmp_path / name)
    assert (tmp_path / "b.npz").read_bytes() == before
    assert load_problem(read.save(tmp_path / "d.npz")).n == 10
