"""Who adds up: this process, or the workers of a Dask cluster.

A pass over the data is a sum over rows of what some of them contribute, with its error radii
(`numerics.sums`): each worker adds up the rows of its pieces, and the pieces' sums are added in pairs.  The
result is that of one process, float for float where the workers' libraries are the same ones, and a proof for
any cutting, any number of workers and any order of arrival.

Features of a network are computed once, where their rows are, and stay there between passes.  Should a
worker be lost, they are computed anew elsewhere and held to the digest of the first time: another processor
may round differently, and then the numbers of two passes would not be about the same features.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import logging
import operator
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from textwrap import shorten
from typing import Any, NamedTuple, Protocol, Self, TypeVar, cast

import numpy as np

from resnet_cert.numerics.enclosure import QUIET
from resnet_cert.numerics.progress import is_watched, told
from resnet_cert.numerics.radius import Array
from resnet_cert.numerics.selftest import require_sound_arithmetic
from resnet_cert.numerics.sums import BLOCK_ROWS, Blocks
from resnet_cert.numerics.threads import in_order
from resnet_cert.outcomes import InternalError, RequestError
from resnet_cert.problem.problem import Chunk, GivenFeatures, Problem

PIECES_A_THREAD = 4
"""Pieces of the rows for each thread of the cluster: a slow worker holds up a quarter of its share."""


class Mergeable(Protocol):
    def __add__(self, other: Self, /) -> Self: ...


Part = TypeVar("Part", bound=Mergeable)
Contribution = Callable[[Problem, Chunk, Blocks], Part]
"""What a chunk, which begins with a block, contributes to a sum over all rows."""


class Needs(NamedTuple):
    """Of a contribution: whether it looks at f, and whether it forms ∇²ℓ."""

    features: bool = True
    second: bool = True


class Executor(Protocol):
    """Adds up somewhere else."""

    def summed(self, problem: Problem, contribution: Contribution[Part], needs: Needs) -> Part: ...


def summed(
    problem: Problem, contribution: Contribution[Part], *, features: bool = True, second: bool = True
) -> Part:
    """The sum of what all rows contribute.

    Args:
        contribution: a function of a module, or a `functools.partial` of one: it may travel.
        features: whether it needs f.
        second: whether it forms ∇²ℓ.
    """
    needs = Needs(features, second)
    if problem.executor is not None:
        return problem.executor.summed(problem, contribution, needs)
    return summed_rows(problem, contribution, 0, problem.n, needs)


@QUIET
def summed_rows(
    problem: Problem, contribution: Contribution[Part], start: int, stop: int, needs: Needs
) -> Part:
    """The sum over the rows from `start`, the first of a block, to `stop`, some at a time."""
    features, second = needs
    firsts = range(start, stop, problem.chunk_rows if second else problem.first_chunk_rows)

    def piece(first: int) -> tuple[int, Chunk]:
        return first, problem.chunk(slice(first, min(first + firsts.step, stop)), features=features)

    def part(piece: tuple[int, Chunk]) -> Part:
        first, chunk = piece
        return contribution(problem, chunk, Blocks(first // BLOCK_ROWS, len(chunk.x)))

    def parts() -> Iterator[Part]:
        at_once = len(firsts) if problem.chunk_is_small(second=second) else 1
        for i, done in enumerate(in_order(part, map(piece, firsts), at_once), 1):
            told("samples", min(i * firsts.step, stop - start), stop - start)
            yield done

    return merged(parts())


def merged(parts: Iterable[Part]) -> Part:
    """The sum of one part or more."""
    return functools.reduce(operator.add, parts)


@dataclass(frozen=True)
class AnyOf:
    """Whether it holds for some rows."""

    holds: bool

    def __add__(self, other: AnyOf) -> AnyOf:
        return AnyOf(self.holds or other.holds)


def some_rows(problem: Problem, test: Callable[[Problem, Chunk], bool]) -> bool:
    """Whether a chunk passes the test, which does not look at features: the first one ends the search where
    it is made here.

    Args:
        test: as a contribution, it may travel.
    """
    if problem.executor is None:
        few = problem.chunk(slice(0, BLOCK_ROWS), features=False)  # where most tests end
        return test(problem, few) or any(test(problem, chunk) for chunk in problem.chunks(features=False))
    return summed(problem, functools.partial(_tested, test=test), features=False).holds


def _tested(problem: Problem, chunk: Chunk, blocks: Blocks, test: Callable[[Problem, Chunk], bool]) -> AnyOf:
    return AnyOf(bool(test(problem, chunk)))


def on_cluster(problem: Problem, client: Any) -> Problem:
    """The same problem, its sums made by the workers of a `distributed.Client`, or by an executor.

    Raises: RequestError, for what is none: an address says nothing of how long its client is to live.
    """
    if hasattr(client, "summed"):
        return replace(problem, executor=client)
    if isinstance(client, str):
        count = client.removeprefix("local:")
        given = f"n_workers={count}, threads_per_worker=1" if count.isdigit() else repr(client)
        write = f"write `with Client({given}) as client:` around it"
        raise RequestError(f"expected a distributed.Client, got {client!r}: {write}", "environment")
    if not hasattr(client, "submit") or client.status == "closed":
        fault = f"expected a distributed.Client that runs, got {client!r}: connect to the cluster anew"
        raise RequestError(fault, "environment")
    return replace(problem, executor=DaskExecutor(client))


# The cluster.


def cut(n: int, chunk_rows: int, threads: int) -> list[tuple[int, int]]:
    """(start, stop) of each piece of n rows: several for each thread where there are as many chunks, alike to
    an eighth.

    What a piece sends is a sum for each complete subtree of its blocks: so it ends where large ones do.
    """
    chunks = -(-n // chunk_rows)
    pieces = min(chunks, PIECES_A_THREAD * max(threads, 1))
    subtree = 1 << max(0, (chunks // (8 * pieces)).bit_length() - 1)
    ends = [round(i * chunks / (pieces * subtree)) * subtree * chunk_rows for i in range(pieces)]
    return list(itertools.pairwise([*ends, n]))


@dataclass(frozen=True)
class PieceOfFeatures:
    """f of the rows from `first` on: the features of a network, computed once."""

    f: Array
    first: int

    @property
    def k(self) -> int:
        return self.f.shape[1]

    def rows(self, rows: slice, x: Array, pad_to: int) -> Array:
        return self.f[rows.start - self.first : rows.stop - self.first]


def _computed(problem: Problem, start: int, stop: int) -> PieceOfFeatures:
    """On a worker: the features of some rows."""
    size = problem.chunk_rows
    parts = [problem.chunk(slice(i, min(i + size, stop))).f for i in range(start, stop, size)]
    return PieceOfFeatures(np.concatenate(parts), start)


def _digest(features: PieceOfFeatures) -> str:
    return hashlib.blake2b(np.ascontiguousarray(features.f).tobytes(), digest_size=16).hexdigest()


def _piece(
    problem: Problem,
    features: PieceOfFeatures | None,
    digest: str | None,
    contribution: Contribution[Part],
    rows: tuple[int, int],
    needs: Needs,
) -> Part:
    """On a worker: the sum over some rows, by arithmetic that is tested there."""
    require_sound_arithmetic()
    if features is not None:
        if _digest(features) != digest:
            raise InternalError(
                f"the features of the rows {rows[0]} to {rows[1]} came out differently when a worker "
                "computed them anew: use workers of one kind, or features that come with the data"
            )
        problem = replace(problem, features=features)
    return summed_rows(problem, contribution, *rows, needs)


def _versions() -> dict[str, str]:
    import jax

    from resnet_cert import __version__
    from resnet_cert.moments import one_pass  # noqa: F401  (what a pass needs is there when the first one comes)

    return {"resnet_cert": __version__, "numpy": np.__version__, "jax": jax.__version__}


_here = _versions
PATIENCE, PATIENT = "20s", 3
"""How long nobody may answer, and how many times that without a worker is the end."""
AT_ONCE = {"scheduler.worker-saturation": "inf", "worker.profile.enabled": False}
"""A worker has its pieces before it is through with the one at hand, and its stack is not looked at a hundred
times a second, for which it would stop."""
KEEPS_MEMORY = {"MALLOC_TRIM_THRESHOLD_": 2**28, "MALLOC_MMAP_THRESHOLD_": 2**26}
"""Distributed has workers give freed memory back at once; a pass needs it again for the next piece, and
spends as long on getting it as on its own work."""
ON_PROCESSORS = {"JAX_PLATFORMS": "cpu"}
"""What a worker here finds where this process has left JAX to look for a GPU, for its own features."""
CARRIED_BYTES = 2**24
"""Data in memory of at most so many bytes go with the tasks."""


@dataclass
class DaskExecutor:
    """The workers of a `distributed.Client`."""

    client: Any
    _sent: dict[tuple[int, int], Any] = field(default_factory=dict, repr=False)
    _address: str = field(init=False)

    def __post_init__(self) -> None:
        """Raises: RequestError, for workers that are not there, or have other versions than this process."""
        self._address = self.client.scheduler.address
        with self._in_touch():
            if not self._workers():
                raise RequestError(f"the cluster at {self._address} has no workers", "environment")
            here = _here()
            for worker, there in self._answers().items():
                if isinstance(there, Exception):
                    wanted = ", ".join(f"{name} {version}" for name, version in here.items())
                    fault = f"worker {worker}: expected {wanted} as here, got {there}: install them there"
                    raise RequestError(fault, "environment")
                for name, version in here.items():
                    if version != there.get(name):
                        wanted = f"worker {worker}: expected {name} {version} as here"
                        raise RequestError(f"{wanted}, got {there.get(name)}", "environment")

    def _answers(self) -> dict[str, Any]:
        """What each worker says of its versions, or why it cannot; those who vanish meanwhile are let go, and
        whoever has come in their place is asked.

        Raises: RequestError, where somebody who is there does not answer, time and again.
        """
        vanished: dict[str, Any] = {}
        for _ in range(PATIENT):
            answers = self.client.run(_versions, on_error="return")
            vanished = {worker: error for worker, error in answers.items() if isinstance(error, OSError)}
            if answers and not vanished:
                return answers
            with suppress(TimeoutError):
                self.client.wait_for_workers(1, timeout=PATIENCE)
        who = "".join(f"worker {worker} of " for worker in list(vanished)[:1])
        why = "".join(f": {error}" for error in list(vanished.values())[:1])
        raise RequestError(
            f"{who}the cluster at {self._address} does not answer{why}; see its log, and check again",
            "environment",
        )

    @contextmanager
    def _in_touch(self) -> Iterator[None]:
        """Inside, what the cluster's own failures say is told, with what to do."""
        from distributed import KilledWorker  # pyright: ignore[reportMissingImports]
        from distributed.comm import CommClosedError  # pyright: ignore[reportMissingImports]
        from distributed.utils import CancelledError  # pyright: ignore[reportMissingImports]

        try:
            yield
        except KilledWorker as error:
            raise RequestError(
                f"the cluster lost its workers over one piece of the data, again and again: {error}; "
                "they may have too little memory",
                "environment",
            ) from None
        except (RequestError, InternalError):
            raise
        except Exception as error:
            if self.client.status == "running" and not isinstance(error, (CommClosedError, CancelledError)):
                raise
            raise RequestError(
                f"lost the scheduler of the cluster at {self._address}, or what it held "
                f"({shorten(str(error), 160)}): see what ended it, and check again",
                "environment",
            ) from None

    def summed(self, problem: Problem, contribution: Contribution[Part], needs: Needs) -> Part:
        with self._in_touch():
            return self._summed(problem, contribution, needs)

    def _summed(self, problem: Problem, contribution: Contribution[Part], needs: Needs) -> Part:
        sent, pieces, held = self._deployed(problem)
        parts = [
            self.client.submit(_piece, sent, f, digest, contribution, rows, needs, pure=False)
            for rows, (f, digest) in zip(
                pieces, held if needs.features else [(None, None)] * len(pieces), strict=True
            )
        ]
        if is_watched():
            self._wait(parts, "pieces")
        while len(parts) > 1:
            pairs = [
                # before further pieces: what a worker holds is a few sums, and not one for each piece
                self.client.submit(operator.add, *pair, pure=False, priority=1)
                for pair in zip(parts[::2], parts[1::2], strict=False)
            ]
            parts = [*pairs, *parts[2 * len(pairs) :]]
        self._wait(parts)
        return parts[0].result()

    def _wait(self, futures: list[Any], what: str | None = None) -> None:
        """Until all are done or have failed; `what` is told of as they are.

        Raises: RequestError, where no worker is left and none comes back.
        """
        from distributed import wait  # pyright: ignore[reportMissingImports]

        waiting, alone = set(futures), 0
        while waiting:
            before = len(waiting)
            try:
                with self.client.as_current():
                    waiting = wait(waiting, timeout=PATIENCE, return_when="FIRST_COMPLETED").not_done
                alone = 0
            except TimeoutError:
                alone = 0 if self._workers() else alone + 1
            if alone == PATIENT:
                raise RequestError(
                    f"the cluster at {self._address} lost its workers, and none came back",
                    "environment",
                )
            if what is not None:
                for left in range(before - 1, len(waiting) - 1, -1):
                    told(what, len(futures) - left, len(futures))

    def _workers(self) -> Any:
        return self.client.scheduler_info(n_workers=-1)["workers"]

    def _deployed(self, problem: Problem) -> tuple[Any, list[tuple[int, int]], list[tuple[Any, Any]]]:
        """The problem on the workers, its pieces, and the features of each with their digests."""
        key = id(problem.distribution), id(problem.features)
        _travel_by_value()
        alone = light(problem)
        if key not in self._sent:  # the data are sent once, for all passes and points
            rows = cut(problem.n, problem.chunk_rows, sum(self.client.nthreads().values()))
            data = self._sent_data(alone)
            held: list[tuple[Any, Any]] = [(None, None)] * len(rows)
            if not isinstance(problem.features, GivenFeatures):
                sent = self.client.submit(_with_data, alone, *data, pure=False)
                f = [self.client.submit(_computed, sent, *piece, pure=False) for piece in rows]
                digests = self.client.gather(self.client.map(_digest, f, pure=False))
                held = list(zip(f, digests, strict=True))
            self._sent[key] = problem, data, rows, held
        _, data, rows, held = self._sent[key]
        without_data: Any = replace(alone, distribution=cast(Any, None), features=cast(Any, None))
        return self.client.submit(_with_data, without_data, *data, pure=False), rows, held

    def _sent_data(self, problem: Problem) -> list[Any]:
        """The data and the features on the workers.  What is small, such as the names of shards, goes with
        the tasks: then it is not lost with the worker that has it."""
        import cloudpickle  # pyright: ignore[reportMissingImports]

        parts = [problem.distribution, problem.features]
        if _size(parts) > CARRIED_BYTES:
            return self.client.scatter(parts, broadcast=True, hash=False)
        return [self.client.submit(pickle.loads, cloudpickle.dumps(part), pure=False) for part in parts]


def _size(parts: list[Any]) -> int:
    """The bytes of all that is in memory, however it is nested, without a copy of it."""
    import cloudpickle  # pyright: ignore[reportMissingImports]

    arrays: list[pickle.PickleBuffer] = []
    rest = cloudpickle.dumps(parts, protocol=5, buffer_callback=arrays.append)
    return len(rest) + sum(array.raw().nbytes for array in arrays)


def _with_data(problem: Problem, distribution: Any, features: Any) -> Problem:
    return replace(problem, distribution=distribution, features=features)


def light(problem: Problem) -> Problem:
    """The problem without what cannot travel, or must not: the cluster, and compiled programs."""
    from resnet_cert.problem.custom_loss import CustomLoss

    loss = problem.loss
    return replace(
        problem,
        executor=None,
        loss=replace(loss) if isinstance(loss, CustomLoss) else loss,
        comparators={},
    )


def _travel_by_value() -> None:
    """Code of the user's own files, which no worker can import by their name."""
    import cloudpickle  # pyright: ignore[reportMissingImports]

    for name, module in list(sys.modules.items()):
        if name.startswith("_resnet_cert_user_"):
            cloudpickle.register_pickle_by_value(module)


@contextmanager
def cluster(address: str) -> Iterator[Any]:
    """A `distributed.Client` of the cluster at an address, or of local:N processes that end with it.

    Raises:
        RequestError: distributed is not installed, the address is none, or nobody answers there.
    """
    try:
        import dask  # pyright: ignore[reportMissingImports]
        from distributed import Client, LocalCluster  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        needs = "a cluster needs the package distributed: pip install 'resnet-cert[distributed]'"
        raise RequestError(needs, "needs-package") from None
    kind, _, count = address.partition(":")
    if kind != "local":
        try:
            client = Client(address, timeout=PATIENCE, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise RequestError(f"no cluster at {address}: {error}", "environment") from None
        with client:
            yield client
        return
    if not count.isdigit() or int(count) == 0:
        raise RequestError(
            f"expected local:N with a number of processes, or an address, got {address!r}", id="environment"
        )
    found_there = KEEPS_MEMORY | ON_PROCESSORS
    settings = AT_ONCE | {f"nanny.pre-spawn-environ.{name}": value for name, value in found_there.items()}
    with (
        dask.config.set({f"distributed.{name}": value for name, value in settings.items()}),
        LocalCluster(
            n_workers=int(count),
            threads_per_worker=1,
            dashboard_address=":0",
            silence_logs=logging.ERROR,
        ) as local,
        Client(local, set_as_default=False) as client,
    ):
        yield client
