"""The same numbers from one process and from a cluster, however the rows are cut, whoever is killed."""

from __future__ import annotations

import functools
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from resnet_cert import check
from resnet_cert.compare.minimum_on_ball import best_linear_predictor
from resnet_cert.decide.objective import Objective, flat
from resnet_cert.moments import executors
from resnet_cert.moments.executors import DaskExecutor, cluster, summed
from resnet_cert.moments.gradient import curvature_along, first_moments
from resnet_cert.moments.one_pass import observe, observe_first
from resnet_cert.numerics.progress import watched
from resnet_cert.numerics.sums import BLOCK_ROWS, Blocks, Sum
from resnet_cert.outcomes import RequestError
from resnet_cert.problem import problem as problems
from resnet_cert.problem.devices import with_features_on
from resnet_cert.problem.networks import Layer, NetworkFeatures
from resnet_cert.problem.problem import Chunk, Direction, Distribution, Problem, Support
from resnet_cert.problem.shards import open_shards

distributed = pytest.importorskip("distributed", reason="a cluster needs the package distributed")
N = 5 * BLOCK_ROWS + 77


def made(**parts: Any) -> Problem:
    rng = np.random.default_rng(4)
    arrays: dict[str, Any] = {
        "x": rng.normal(size=(N, 3)),
        "y": rng.integers(0, 4, N),
        "f": rng.normal(size=(N, 2)),
        "W": rng.normal(size=(4, 3)),
        "V": rng.normal(size=(3, 2)),
        "c": rng.normal(size=4),
    }
    return Problem.from_arrays(**(arrays | parts), loss="softmax")


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with cluster("local:2") as client:
        yield client


def everything(problem: Problem) -> list[Any]:
    """What the passes give, as plain data."""
    direction = Direction(np.ones_like(problem.W), np.ones_like(problem.V))
    found = [observe(problem, 1.0), observe_first(problem, 1.0), first_moments(problem)]
    return [plain(part) for part in (*found, curvature_along(problem, direction))]


def plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value.tolist() if isinstance(value, np.ndarray) else value


def require_near(found: Any, expected: Any) -> None:
    """The same, but for the roundings of a BLAS that has more threads here than on a worker."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        found, expected = [*found.values()], [*expected.values()]
    if isinstance(expected, list | tuple):
        for one, other in zip(found, expected, strict=True):
            require_near(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    else:
        assert found == expected


def in_small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnet_cert.problem.problem.CHUNK_BYTES", 1)


def test_a_cluster_gives_the_floats_of_one_process(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_chunks(monkeypatch)
    problem = made()
    assert everything(replace(problem, executor=DaskExecutor(client))) == everything(problem)


def small_chunks() -> None:
    problems.CHUNK_BYTES = 1


def test_the_second_opinion_is_that_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_chunks(monkeypatch)
    problem = made()
    direction = Direction(np.ones_like(problem.W), np.ones_like(problem.V))
    with cluster("local:2") as client:
        client.run(small_chunks)
        there = Objective(replace(problem, executor=DaskExecutor(client))).along(direction)
    here = Objective(problem).along(direction)
    for one, other in ((there.gradient, here.gradient), (there.product, here.product)):
        np.testing.assert_allclose(flat(one), flat(other), rtol=1e-12)
    assert there.value == pytest.approx(here.value, rel=1e-14)


@pytest.mark.parametrize("loss", ["squared", "softmax", "logistic"])
def test_the_best_linear_predictor_is_that_of_one_process(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the rows are too many to be kept, each pass of the search is spread over the workers."""
    in_small_chunks(monkeypatch)
    monkeypatch.setattr("resnet_cert.compare.design.HELD_BYTES", 0)
    monkeypatch.setattr("resnet_cert.compare.linear_objective.HELD_BENDS", 0)
    rng = np.random.default_rng(2)
    y = {
        "softmax": rng.integers(0, 3, N),
        "logistic": rng.choice([-1.0, 1.0], N),
        "squared": rng.normal(size=N),
    }
    q = 3 if loss == "softmax" else 1
    problem = Problem.from_arrays(
        x=rng.normal(size=(N, 3)),
        y=y[loss],
        f=np.ones((N, 1)),
        W=np.ones((q, 3)),
        V=np.ones((3, 1)),
        loss=loss,
    )
    with cluster("local:2") as client:
        client.run(small_chunks)
        there = best_linear_predictor(replace(problem, executor=DaskExecutor(client)), None, 4.0)
    here = best_linear_predictor(problem, None, 4.0)
    assert (plain(there.F_min), plain(there.W_star), there.attained) == (
        plain(here.F_min),
        plain(here.W_star),
        here.attained,
    )


def test_shards_give_the_floats_of_arrays(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_small_chunks(monkeypatch)
    problem = made()
    data = problem.distribution
    for i, (start, stop) in enumerate([(0, 700), (700, 701), (701, N)]):
        parts = {"x": data.x[start:stop], "y": data.y[start:stop], "f": problem.features.f[start:stop]}  # pyright: ignore
        np.savez(tmp_path / f"{i}.npz", **parts)
    rows = open_shards(tmp_path, "*.npz", {"x": "x", "y": "y", "f": "f"})
    sharded = replace(
        problem,
        distribution=Distribution(rows["x"], rows["y"]),
        features=replace(problem.features, f=rows["f"]),  # pyright: ignore[reportArgumentType]
    )
    assert everything(sharded) == everything(problem)
    assert everything(replace(sharded, executor=DaskExecutor(client))) == everything(problem)


def test_features_from_a_device_are_those_of_workers_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processor stands for the GPU."""
    in_small_chunks(monkeypatch)
    processors = jax.devices("cpu")
    monkeypatch.setattr(jax, "devices", lambda kind=None: processors)
    monkeypatch.delenv("JAX_PLATFORMS")
    network = NetworkFeatures((Layer(np.ones((2, 3)), np.ones(2)),))
    problem = with_features_on(replace(made(), features=network), "gpu", tmp_path)
    with cluster("local:1") as client:
        assert everything(replace(problem, executor=DaskExecutor(client))) == everything(problem)
        assert set(client.run(os.environ.get, "JAX_PLATFORMS").values()) == {"cpu"}


def test_features_are_computed_once_where_their_rows_are(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_small_chunks(monkeypatch)
    network = NetworkFeatures((Layer(np.ones((2, 3)), np.ones(2)),))
    problem = replace(made(), features=network)
    executor = DaskExecutor(client)
    assert everything(replace(problem, executor=executor)) == everything(problem)
    assert len(executor._sent) == 1


@pytest.mark.parametrize(("n", "threads"), [(10**9, 100), (10**9, 3200), (10**7, 2), (N, 2), (N, 64), (1, 4)])
def test_pieces_end_where_subtrees_do_and_are_alike(n: int, threads: int) -> None:
    """What a piece sends is a sum for each complete subtree of its blocks."""
    chunk = min(BLOCK_ROWS, n)
    pieces = executors.cut(n, chunk, threads)
    assert [pieces[0][0], pieces[-1][1]] == [0, n]
    assert all(one[1] == other[0] for one, other in pairwise(pieces))
    sizes = [stop - start for start, stop in pieces]
    assert len(pieces) == min(-(-n // chunk), 4 * threads)
    assert max(sizes) - min(sizes[:-1], default=0) <= max(max(sizes) / 8.0, chunk)
    first, last, some = pieces[0], pieces[-1], pieces[len(pieces) // 3]
    roots = [
        len(Blocks(start // BLOCK_ROWS, stop - start).count_rows().nodes) for start, stop in (first, some)
    ]
    assert max(roots) <= 8
    assert last[0] < n


@dataclass(frozen=True)
class Steps:
    """What was done on a worker, and when."""

    steps: tuple[tuple[str, float], ...]

    def __add__(self, other: Steps) -> Steps:
        return Steps((*self.steps, *other.steps, ("sum", time.monotonic())))


def slowly(problem: Problem, chunk: Chunk, blocks: Blocks) -> Steps:
    time.sleep(0.05)
    return Steps((("piece", time.monotonic()),))


def test_sums_are_added_before_there_are_more_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else a worker holds those of all its pieces in the end."""
    in_small_chunks(monkeypatch)
    monkeypatch.setattr(executors, "PIECES_A_THREAD", 24)
    n = 48 * BLOCK_ROWS
    many = made(x=np.ones((n, 3)), y=np.zeros(n), f=np.ones((n, 2)))
    with cluster("local:2") as client:
        # as where there are so many that Dask has begun with the first before it knows of the last
        monkeypatch.setattr(client, "submit", functools.partial(client.submit, fifo_timeout=0))
        done = summed(replace(many, executor=DaskExecutor(client)), slowly).steps
    held, most = 0, 0
    for what, _ in sorted(done, key=lambda step: step[1]):
        held += 1 if what == "piece" else -1
        most = max(most, held)
    assert len(done) == 95
    assert most <= 32


def dies_once(problem: Problem, chunk: Chunk, blocks: Blocks, marker: Path) -> Sum:
    """Kills the process that computes it, the first time."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return blocks.count_rows()


def always_dies(problem: Problem, chunk: Chunk, blocks: Blocks) -> Sum:
    os.kill(os.getpid(), signal.SIGKILL)
    return blocks.count_rows()


def test_a_killed_worker_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_chunks(monkeypatch)
    with cluster("local:2") as client:
        problem = replace(made(), executor=DaskExecutor(client))
        counted = summed(problem, functools.partial(dies_once, marker=tmp_path / "died"))
        assert (tmp_path / "died").exists()
        assert counted.total().center == N
        assert everything(problem) == everything(replace(problem, executor=None))


def test_workers_that_always_die_are_a_clear_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_chunks(monkeypatch)
    with cluster("local:1") as client:
        problem = replace(made(), executor=DaskExecutor(client))
        with pytest.raises(RequestError, match="lost its workers"):
            summed(problem, always_dies)


def test_statements_on_the_distribution_are_those_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_chunks(monkeypatch)
    problem, support = made(), Support(confidence=0.9, x=9.0, f=9.0, y=1.0)
    here = check(problem, population=support).population
    with cluster("local:2") as client:
        client.run(small_chunks)
        assert check(problem, population=support, client=client).population == here
        with pytest.raises(RequestError, match=r"row \d+: expected ‖f‖ ≤ 2\.0"):
            check(problem, population=replace(support, f=2.0), client=client)


def test_workers_that_do_not_come_back_are_a_clear_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_chunks(monkeypatch)
    monkeypatch.setattr("resnet_cert.moments.executors.PATIENCE", "1s")
    with cluster("local:1") as client:
        problem = replace(made(), executor=DaskExecutor(client))
        client.retire_workers(list(client.scheduler_info()["workers"]), close_workers=True, remove=True)
        with pytest.raises(RequestError, match="none came back"):
            first_moments(problem)


def test_a_worker_that_stands_still_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_chunks(monkeypatch)
    network = NetworkFeatures((Layer(np.ones((2, 3)), np.ones(2)),))
    with cluster("local:2") as client:
        problem = replace(made(), features=network, executor=DaskExecutor(client))
        slow = min(client.run(os.getpid).values())
        os.kill(slow, signal.SIGSTOP)
        goes_on = threading.Timer(3.0, os.kill, (slow, signal.SIGCONT))
        goes_on.start()
        found = everything(problem)
        assert not goes_on.is_alive(), "it was waited for"
    require_near(found, everything(replace(problem, executor=None)))


def no_room() -> None:
    """From now on this process can write no file: a disk that is full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def in_files(dask_worker: Any) -> tuple[int, int]:
    """How many values are on the disk of a worker, and how many it has."""
    return len(dask_worker.data.disk), len(dask_worker.data)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_workers_that_must_spill_change_nothing(full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features stay on the workers: on disks where memory is short, and in memory where these are full."""
    import dask

    in_small_chunks(monkeypatch)
    network = NetworkFeatures((Layer(np.ones((64, 3)), np.ones(64)),))
    problem = replace(made(f=np.ones((N, 64)), V=np.ones((3, 64))), features=network)
    no_memory = {f"distributed.worker.memory.{name}": 1e-9 for name in ("target", "spill")}
    with (
        dask.config.set({**no_memory, "distributed.worker.memory.pause": False}),
        cluster("local:2") as client,
    ):
        if full:
            client.run(no_room)
        executor = DaskExecutor(client)
        require_near(everything(replace(problem, executor=executor)), everything(problem))
        held = client.run(in_files).values()
        assert any(whole for _, whole in held)
        assert all(on_disk == (0 if full else whole) for on_disk, whole in held), held


@contextmanager
def one_scheduler() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a cluster of one worker, and the process of its scheduler."""
    start = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard"]
    scheduler = subprocess.Popen(start, stderr=subprocess.PIPE, text=True)
    assert scheduler.stderr is not None
    address = next(found[0] for line in scheduler.stderr if (found := re.search(r"tcp://[\d.:]+", line)))
    start = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny"]
    worker = subprocess.Popen([*start, "--no-dashboard"], stderr=subprocess.DEVNULL)
    try:
        yield address, scheduler
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()
        scheduler.stderr.close()


def ends(problem: Problem, chunk: Chunk, blocks: Blocks, pid: int) -> Sum:
    """Ends the scheduler in the middle of its work."""
    os.kill(pid, signal.SIGKILL)
    time.sleep(1.0)
    return blocks.count_rows()


@pytest.mark.filterwarnings("ignore")
def test_a_scheduler_that_is_lost_is_a_clear_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_chunks(monkeypatch)
    monkeypatch.setattr("resnet_cert.moments.executors.PATIENCE", "5s")
    with one_scheduler() as (address, scheduler), cluster(address) as client:
        client.wait_for_workers(1, timeout=60)
        problem = replace(made(), executor=DaskExecutor(client))
        lost = f"lost the scheduler of the cluster at {address}.* see what ended it"
        with pytest.raises(RequestError, match=lost):
            summed(problem, functools.partial(ends, pid=scheduler.pid))
        with pytest.raises(RequestError, match=lost):  # nor does it come back for the next pass
            first_moments(problem)


def versions_of_who_dies(marker: Path, versions: dict[str, str]) -> dict[str, str]:
    """Kills the process that is asked first."""
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return versions
    os.kill(os.getpid(), signal.SIGKILL)
    return versions


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_dies_when_it_is_asked_for_its_versions_is_of_no_concern(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_small_chunks(monkeypatch)
    asked = functools.partial(versions_of_who_dies, tmp_path / "died", executors._versions())
    monkeypatch.setattr(executors, "_versions", asked)
    with cluster(f"local:{workers}") as client:
        problem = replace(made(), executor=DaskExecutor(client))
        assert (tmp_path / "died").exists()
        assert everything(problem) == everything(replace(problem, executor=None))


def no_versions() -> dict[str, str]:
    raise ModuleNotFoundError("No module named 'resnet_cert'")


def test_workers_without_our_packages_are_refused(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "_versions", no_versions)
    with pytest.raises(
        RequestError, match=r"worker tcp:.*: expected resnet_cert .* as here, got .*No module"
    ):
        DaskExecutor(client)


def test_workers_that_never_answer_are_refused(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def unanswered(*_: Any, **__: Any) -> dict[str, Any]:
        return {"tcp://there:1": OSError("closed")}

    monkeypatch.setattr(client, "run", unanswered)
    with pytest.raises(RequestError, match=r"worker tcp://there:1 of the cluster .* does not answer: closed"):
        DaskExecutor(client)


@pytest.mark.parametrize("address", ["local:2", "tcp://127.0.0.1:8786"])
def test_an_address_in_place_of_a_client_is_told_what_to_write(address: str) -> None:
    with pytest.raises(
        RequestError, match=rf"expected a distributed\.Client, got '{address}': write"
    ) as error:
        check(made(), client=address)
    assert ("n_workers=2" in str(error.value)) == (address == "local:2")


def test_what_is_no_client_that_runs_is_refused() -> None:
    with cluster("local:1") as client:
        pass
    for gone in (client, 3):
        with pytest.raises(RequestError, match=r"expected a distributed\.Client that runs, got (3|<Client)"):
            check(made(), client=gone)


def test_progress_is_told_piece_by_piece(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_chunks(monkeypatch)
    told: list[tuple[str, int, int | None]] = []
    with watched(lambda *step: told.append(step)):
        first_moments(replace(made(), executor=DaskExecutor(client)))
    assert told == [("pieces", i, 6) for i in range(1, 7)]


@pytest.mark.parametrize("address", ["local:", "local:x", "local:0"])
def test_a_wrong_local_cluster_is_refused(address: str) -> None:
    with pytest.raises(RequestError, match="expected local:N"), cluster(address):
        pass


def test_a_cluster_that_does_not_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnet_cert.moments.executors.PATIENCE", "1s")
    with (
        pytest.raises(RequestError, match=r"no cluster at tcp://127\.0\.0\.1:9"),
        cluster("tcp://127.0.0.1:9"),
    ):
        pass


def test_workers_of_another_version_are_refused(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnet_cert.moments.executors._here", lambda: {"numpy": "0.1"})
    with pytest.raises(RequestError, match=r"expected numpy 0\.1 as here"):
        DaskExecutor(client)
