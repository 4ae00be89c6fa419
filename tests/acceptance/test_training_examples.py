"""The training examples on a few steps: from a framework's network to a certified head."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from resnet_cert import check, load_problem

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(autouse=True)
def _examples_on_the_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import jax

    monkeypatch.syspath_prepend(str(EXAMPLES))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def example(name: str, *packages: str) -> ModuleType:
    for package in ("sklearn", *packages):
        pytest.importorskip(package, reason=f"{package} is not installed", exc_type=ImportError)
    return importlib.import_module(name)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("name", "packages"), [("train_pytorch", ["torch"]), ("train_flax", ["flax", "optax"])]
)
def test_a_network_is_trained_captured_polished_and_certified(
    name: str, packages: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example(name, *packages).main(["breast-cancer", str(tmp_path)], epochs=3)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1].split()[0] for line in printed] == ["REFUTED", "CERTIFIED"]
    for stem, verdict in (("breast-cancer", "REFUTED"), ("breast-cancer-polished", "CERTIFIED")):
        assert check(load_problem(tmp_path / f"{stem}.yaml")).verdict.value == verdict


@pytest.mark.filterwarnings("default")
def test_the_last_of_three_blocks_is_compared_with_every_earlier_layer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example("three_blocks", "torch").main([str(tmp_path)], epochs=1)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed] == ["pixels", "stem", "block1", "block2"]
    names = ["pixels", "stem", "block1", "block2"]
    for number in (1, 2, 3):
        block = load_problem(tmp_path / f"block{number}.yaml")
        assert list(block.comparators) == names[: number + 1]


@pytest.mark.filterwarnings("default")
def test_a_training_run_is_watched_and_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    picture = tmp_path / "progress.png"
    example("watch_training", "torch").main([str(picture)], epochs=2)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_an_example_names_what_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in ("train_pytorch", "three_blocks"):
        module: Any = importlib.import_module(name)
        arguments = ["digits", str(tmp_path)] if name == "train_pytorch" else [str(tmp_path)]
        with pytest.raises(SystemExit, match="pip install torch"):
            module.main(arguments)
