"""The scripts in examples/ do what they say."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest
from reports import leave_out_crosscheck

from resnet_cert import check, load_problem

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(autouse=True)
def _precision_given_back() -> Iterator[None]:
    """A script may set JAX's precision for itself."""
    before = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", before)


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_check_from_python_finds_the_least_squares_point_and_not_its_neighbour() -> None:
    stationary, moved = example("check_from_python").reports()
    assert (stationary.verdict.value, moved.verdict.value) == ("CERTIFIED", "REFUTED")


def test_a_loss_and_a_network_in_python_are_certified_with_allow_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leave_out_crosscheck(monkeypatch)
    report = check(load_problem(EXAMPLES / "custom_loss" / "spec.yaml", allow_code=True))
    assert report.verdict.value == "CERTIFIED"
    assert report.objective.F.value == pytest.approx(0.00463596091789, rel=1e-9)
    assert report.objective.F_lin_min.value == pytest.approx(0.146640632859, rel=1e-6)


def test_the_trained_points_are_fixed_points_of_the_polishing(longer: int) -> None:
    training = example("train_residual_block")
    for task in training.TASKS[:longer]:
        x, y = training.read(task)
        with np.load(training.DATA / f"{task.name}.npz") as stored:
            trained = dict(stored)
        with training.jax.numpy_rank_promotion("allow"):
            polished = training.polish(task, trained, x, y)
        for name in (task.weight, "V"):
            np.testing.assert_allclose(polished[name], trained[name], atol=1e-9)


def test_the_csv_files_are_what_scikit_learn_ships(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    writer = example("write_data")
    shipped = writer.DATA
    monkeypatch.setattr(writer, "DATA", tmp_path)
    writer.main()
    for name in ("diabetes.csv", "breast-cancer.csv", "wine.csv"):
        written, kept = (folder / name for folder in (tmp_path, shipped))
        assert written.read_text().splitlines()[0] == kept.read_text().splitlines()[0]
        numbers = [np.loadtxt(path, delimiter=",", skiprows=1) for path in (written, kept)]
        np.testing.assert_allclose(*numbers, rtol=0, atol=1e-12)
