"""A report does not depend on how many threads worked on the data."""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
from dataclasses import replace

import numpy as np
import pytest
from selections import each_once
from threadpoolctl import threadpool_info, threadpool_limits

from resnet_cert import Monitor, Problem, check, landscape, profile, sgd, solve
from resnet_cert.numerics.sums import BLOCK_ROWS
from resnet_cert.problem.problem import Chunk
from resnet_cert.results import Report

N = 5 * BLOCK_ROWS + 77


def report(problem: Problem, count: int) -> Report:
    with threadpool_limits(count, user_api="blas"):
        return replace(check(problem, break_even=False), seconds=None, _made_from=None)


@pytest.mark.parametrize(("loss", "hessian"), each_once(["softmax", "squared"], ["exact", "bound"]))
def test_the_report_of_many_threads_is_that_of_one(
    loss: str, hessian: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(4)
    problem = Problem.from_arrays(
        x=rng.normal(size=(N, 3)), y=rng.integers(0, 3, N) if loss == "softmax" else rng.normal(size=(N, 3)),
        f=rng.normal(size=(N, 2)), W=rng.normal(size=(3, 3)), V=rng.normal(size=(3, 2)),
        loss=loss, hessian=hessian,
    )  # fmt: skip
    monkeypatch.setattr("resnet_cert.problem.problem.CHUNK_BYTES", 2**17)
    monkeypatch.setattr("resnet_cert.compare.design.HELD_BYTES", 0)
    monkeypatch.setattr("resnet_cert.compare.linear_objective.HELD_BENDS", 0)
    assert problem.chunk_rows == BLOCK_ROWS
    assert problem.chunk_is_small(second=True)
    started: list[int] = []
    pool = futures.ThreadPoolExecutor

    def counted(workers: int, name: str) -> object:
        started.append(workers)
        return pool(workers, name)

    monkeypatch.setattr(futures, "ThreadPoolExecutor", counted)
    one = report(problem, 1)
    assert not started
    assert report(problem, 3) == one
    assert set(started) == {3}


@pytest.mark.parametrize(
    "task",
    [
        check,
        solve,
        profile,
        lambda problem: sgd(problem, 10),
        lambda problem: landscape(problem, box=(-1.0, 1.0, -1.0, 1.0)),
        lambda problem: Monitor([[1.0], [2.0]], [1.0, -1.0], f=lambda x: x)([[1.0]], [[0.5]]),
    ],
    ids=["check", "solve", "profile", "sgd", "landscape", "Monitor"],
)
def test_small_problems_are_worked_on_with_one_thread_from_python(
    task: Callable[[Problem], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()
    chunk = Problem.chunk

    def seen(problem: Problem, rows: slice, **options: bool) -> Chunk:
        threads.update(i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas")
        return chunk(problem, rows, **options)

    monkeypatch.setattr(Problem, "chunk", seen)
    one_each = {"x": [[1.0], [2.0]], "f": [[1.0], [1.5]], "y": [1.0, -1.0], "w": [1.0], "V": [[0.5]]}
    with threadpool_limits(2, user_api="blas"):
        task(Problem.from_arrays(**one_each))
    assert threads == {1}
