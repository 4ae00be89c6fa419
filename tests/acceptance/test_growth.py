"""The simulation behind docs/growth.md: what it says where the answer is known."""

from __future__ import annotations

import random
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from resnet_cert.numerics.sums import BLOCK_ROWS, Blocks

PLACE = Path(__file__).resolve().parents[2] / "benchmarks" / "growth.py"
AT_ONCE = {"task": 0.0, "reading": float("inf"), "network": float("inf"), "adding": float("inf")}


@pytest.fixture(scope="module")
def growth() -> ModuleType:
    spec = spec_from_file_location("growth", PLACE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["growth"] = module
    spec.loader.exec_module(module)
    return module


def passed(
    growth: ModuleType, blocks: int, workers: int, threads: int = 1, **constants: float
) -> tuple[Any, Any]:
    """What a pass over so many blocks of a second each takes, and the pass."""
    machine = growth.Machine(**({"block": 1.0} | AT_ONCE | constants))
    work = growth.Work(blocks * BLOCK_ROWS, outputs=1, width=1)
    simulation = growth.Pass(work, machine, workers, threads)
    return simulation.run(), simulation


def test_a_sum_is_as_large_as_its_subtrees(growth: ModuleType) -> None:
    draw = random.Random(0)
    for first, stop in [(0, 1), (0, 7), (5, 6), *(sorted(draw.sample(range(3000), 2)) for _ in range(100))]:
        real = Blocks(first, (stop - first) * BLOCK_ROWS).count_rows()
        assert growth.Part(first, stop, 0).subtrees == len(real.nodes)


@pytest.mark.parametrize(("workers", "threads"), [(1, 1), (3, 1), (16, 4), (1, 64)])
def test_all_is_added_and_no_time_is_lost_where_nothing_else_takes_any(
    workers: int, threads: int, growth: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "SLOW", 0.0)
    blocks = 64 * workers * threads
    took, simulation = passed(growth, blocks, workers, threads)
    assert took.seconds == 64.0
    ((_, whole),) = simulation.lone.items()
    assert (whole.first, whole.stop) == (0, blocks)
    assert (took.moved == 0.0) == (workers == 1)


def test_slow_workers_a_scheduler_a_disk_and_a_network_take_their_time(
    growth: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "SLOW", 1.0)
    assert passed(growth, 640, 10)[0].seconds == 128.0
    monkeypatch.setattr(growth, "SLOW", 0.0)
    assert passed(growth, 640, 10, task=10.0)[0].seconds >= 10.0 * (40 + 39)
    one_block = 4 * BLOCK_ROWS * 2
    assert passed(growth, 640, 10, reading=one_block / 2.0)[0].seconds == 128.0
    assert passed(growth, 640, 10, 1, network=1.0)[0].seconds > 64.0 + 32.0  # a sum of 32 bytes, at the least


def test_constants_are_measured_and_tables_printed(
    growth: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(growth, "measured_task", lambda: 1e-3)
    monkeypatch.setattr(sys, "argv", ["growth", "--rows", "1e6", "--outputs", "3", "--width", "8"])
    growth.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.count("|") for line in lines if line.startswith("|")] == [8] * 8 + [4] * 4
