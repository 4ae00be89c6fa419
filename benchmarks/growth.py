"""How a pass over very many rows would grow on a cluster: a simulation with constants that are measured here.

    python benchmarks/growth.py [--rows 1e9] [--outputs 1000] [--width 2048] [--threads 1] [--pieces 4]

Measures, in seconds, on this machine: the time of a block in the gradient's pass with its radii, of reading
its bytes from a file that the system holds, of handing a task to a local worker, of adding two sums, and of
sending one through a local socket.  Times are the processor's, so that a busy machine counts as little as it
can.  A cluster's file system and network are slower than a machine's own memory: what counts is at most
--disk and --network bytes a second for each worker.

Then simulates the pass, event by event, for each number of workers: the pieces that `executors.cut` makes go
to whoever is free, one after the other through one scheduler; their sums, as large as their complete subtrees
make them, are added in pairs where the left one lies, before further pieces; one worker in twenty takes
twice as long.  What is not simulated: a file system that all workers share, and links between racks.

The last table is the radius of the mean over so many rows, by the sums' own recursion from a measured block.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import os
import socket
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from resnet_cert.moments import executors
from resnet_cert.moments.executors import Needs, cluster, cut, summed_rows
from resnet_cert.moments.one_pass import first_observed_sums, head
from resnet_cert.numerics.radius import Radius
from resnet_cert.numerics.sums import BLOCK_ROWS, Blocks, Node
from resnet_cert.problem.problem import Problem

SLOW, SLOWER = 0.05, 2.0
"""One worker in twenty takes twice as long."""
SINGLE = 4
"""Bytes of a number in the shards."""
MEASURED, TASKS = 3, 1000
"""Blocks, and tasks, that are timed together."""


@dataclass(frozen=True)
class Machine:
    """Seconds of a block's arithmetic, and of a task; bytes a second of the rest, for each worker."""

    block: float
    task: float
    reading: float
    network: float
    adding: float


@dataclass(frozen=True)
class Work:
    """A pass of the gradient at the point and at W = 0, over rows in chunks of one block."""

    rows: int
    outputs: int
    width: int

    @property
    def block_bytes(self) -> int:
        return SINGLE * BLOCK_ROWS * 2 * self.width

    @property
    def sum_bytes(self) -> int:
        """Of one subtree's sums: E[∇ℓ xᵀ] and A_f, at two points."""
        return 2 * 8 * self.outputs * 2 * self.width


@dataclass(frozen=True)
class Part:
    """The sum of some blocks, and the worker that holds it."""

    first: int
    stop: int
    at: int

    @property
    def subtrees(self) -> int:
        """How many complete ones the blocks make: with so many sums it is held and sent."""
        first, count = self.first, 0
        while first < self.stop:
            free = (self.stop - first).bit_length() - 1
            aligned = (first & -first).bit_length() - 1 if first else free
            first, count = first + (1 << min(free, aligned)), count + 1
        return count


@dataclass(frozen=True)
class Passed:
    """What a simulated pass took: seconds, bytes from worker to worker, the most bytes of sums at one."""

    seconds: float
    pieces: int
    moved: float
    held: float


class Pass:
    """One pass, event by event: a thread that is free adds two sums that lie at its worker, or takes the next
    piece; a sum is added where the one on its left lies, once it has got there."""

    def __init__(self, work: Work, machine: Machine, workers: int, threads: int = 1, seed: int = 0) -> None:
        self.work, self.machine = work, machine
        slow = np.random.default_rng(seed).random(workers) < (SLOW if workers > 1 else 0.0)
        self.pace = np.where(slow, SLOWER, 1.0)
        self.block = max(machine.block, threads * work.block_bytes / machine.reading)
        ends = [(start // BLOCK_ROWS, -(-stop // BLOCK_ROWS)) for start, stop in self.cut(workers * threads)]
        self.pieces, self.todo = [Part(*blocks, 0) for blocks in ends], deque(range(len(ends)))
        self.widths = [len(ends)]  # of the tree over the pieces, from its leaves on
        while self.widths[-1] > 1:
            self.widths.append(-(-self.widths[-1] // 2))
        self.lone: dict[tuple[int, int], Part] = {}
        self.pairs = [deque[tuple[Part, Part, float, int]]() for _ in range(workers)]
        self.idle = [threads] * workers
        self.held, self.most, self.moved, self.scheduler = [0] * workers, 0, 0, 0.0
        self.order = itertools.count()
        self.events: list[tuple[float, int, int, Part, list[Part], int, int]] = []

    def cut(self, threads: int) -> list[tuple[int, int]]:
        return cut(self.work.rows, BLOCK_ROWS, threads)

    def run(self) -> Passed:
        now = 0.0
        for worker in list(range(len(self.idle))) * self.idle[0]:
            self.begin(now, worker)
        while self.events:
            now, _, worker, part, parts, level, index = heapq.heappop(self.events)
            self.holds(worker, part.subtrees - sum(each.subtrees for each in parts))
            for each in parts:
                if each.at != worker:
                    self.holds(each.at, -each.subtrees)
            self.idle[worker] += 1
            self.meet(now, part, level, index)
            self.begin(now, worker)
        deepest = max((piece.stop - piece.first).bit_length() for piece in self.pieces)
        at_work = self.idle[0] * deepest * self.work.sum_bytes  # a thread holds a sum for each level
        return Passed(now, len(self.pieces), self.moved, self.most * self.work.sum_bytes + at_work)

    def holds(self, worker: int, subtrees: int) -> None:
        self.held[worker] += subtrees
        self.most = max(self.most, self.held[worker])

    def meet(self, now: float, part: Part, level: int, index: int) -> None:
        """A sum is there: it waits for the one beside it, or both are added."""
        while index % 2 == 0 and index == self.widths[level] - 1 and level + 1 < len(self.widths):
            level, index = level + 1, index // 2  # none is beside it
        other = self.lone.pop((level, index ^ 1), None)
        if other is None:
            self.lone[level, index] = part
            return
        left, right = (part, other) if index % 2 == 0 else (other, part)
        if left.at != right.at:
            self.moved += right.subtrees * self.work.sum_bytes
            self.holds(left.at, right.subtrees)
            now += right.subtrees * self.work.sum_bytes / self.machine.network
        self.pairs[left.at].append((left, right, now, level + 1, index // 2))
        self.begin(now, left.at)

    def begin(self, now: float, worker: int) -> None:
        """The next task of a worker that has a free thread, if there is one."""
        if not self.idle[worker]:
            return
        if self.pairs[worker]:
            left, right, ready, level, index = self.pairs[worker].popleft()
            part, parts = Part(left.first, right.stop, worker), [left, right]
            seconds = (
                (left.subtrees + right.subtrees - part.subtrees) * self.work.sum_bytes / self.machine.adding
            )
        elif self.todo:
            ready, level, index, parts = now, 0, self.todo.popleft(), []
            piece = self.pieces[index]
            part = Part(piece.first, piece.stop, worker)
            seconds = (part.stop - part.first) * self.block
        else:
            return
        self.idle[worker] -= 1
        self.scheduler = max(self.scheduler, now) + self.machine.task
        ended = max(self.scheduler, ready) + seconds * self.pace[worker]
        heapq.heappush(self.events, (ended, next(self.order), worker, part, parts, level, index))


# --- What is measured ---------------------------------------------------------------------------------------


def seconds_of(task: Callable[[], object], rounds: int = 3) -> float:
    """Of the processor, for this process: the median of some rounds, after one that does not count."""
    taken = []
    for _ in range(rounds + 1):
        started = time.process_time()
        task()
        taken.append(time.process_time() - started)
    return float(np.median(taken[1:]))


def problem_of(work: Work, blocks: int) -> Problem:
    rng = np.random.default_rng(0)
    n, d, q = blocks * BLOCK_ROWS, work.width, work.outputs
    return Problem.from_arrays(
        x=rng.normal(size=(n, d)),
        f=rng.normal(size=(n, d)),
        y=rng.integers(0, q, n),
        W=rng.normal(size=(q, d)) / d,
        V=rng.normal(size=(d, d)) / d,
        loss="softmax",
        hessian="bound",
    )


def measured_block(work: Work) -> tuple[float, Node]:
    """Seconds of a block in the pass, and its sum for A_f."""
    problem = problem_of(work, MEASURED)
    contribution = partial(first_observed_sums, b=1.0, p=head(problem))
    taken = seconds_of(lambda: summed_rows(problem, contribution, 0, problem.n, Needs(second=False)), 2)
    found = contribution(problem, problem.chunk(slice(0, BLOCK_ROWS)), Blocks(0, BLOCK_ROWS)).here
    assert found is not None
    return taken / MEASURED, found.A_f.nodes[0]


def measured_reading() -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        np.save(path, np.ones(2**24))
        return 2**27 / seconds_of(lambda: np.load(path))


def measured_adding(work: Work) -> float:
    a, b = np.ones((2, work.sum_bytes // 8))
    return work.sum_bytes / seconds_of(lambda: a + b)


def measured_network(work: Work) -> float:
    """Of a local socket, both ends on this machine."""
    data, (one, other) = bytes(work.sum_bytes), socket.socketpair()

    def send() -> None:
        thread = threading.Thread(target=one.sendall, args=(data,))
        thread.start()
        left = len(data)
        while left:
            left -= len(other.recv(min(left, 2**20)))
        thread.join()

    with one, other:
        return work.sum_bytes / seconds_of(send)


def measured_task() -> float:
    """Of the scheduler and its client, which are in this process."""
    with cluster("local:1") as client:
        return seconds_of(lambda: client.gather(client.map(abs, range(TASKS), pure=False)), 1) / TASKS


def measured(work: Work, disk: float, network: float) -> tuple[Machine, Node]:
    """The constants, told as they are found, and a block's sum."""
    block, leaf = measured_block(work)
    operations = 4 * BLOCK_ROWS * work.outputs * 2 * work.width
    say(
        f"a block of {BLOCK_ROWS} rows  {block:.3f} s, {operations / block / 1e9:.1f} GFlop/s of its products"
    )
    reading, sending, adding = measured_reading(), measured_network(work), measured_adding(work)
    say(f"reading              {reading / 1e9:.1f} GB/s here, simulated {min(reading, disk) / 1e9:.2f}")
    say(f"sending              {sending / 1e9:.1f} GB/s here, simulated {min(sending, network) / 1e9:.2f}")
    say(f"adding two sums      {adding / 1e9:.1f} GB/s")
    task = measured_task()
    say(f"a task               {task * 1e3:.2f} ms\n")
    return Machine(block, task, min(reading, disk), min(sending, network), adding), leaf


# --- What is told -------------------------------------------------------------------------------------------


def table(work: Work, machine: Machine, counts: list[int], threads: int, seed: int) -> None:
    say("| workers | pieces | time | efficiency | read in all | moved | held by a worker |")
    say("|---|---|---|---|---|---|---|")
    alone = Pass(work, machine, 1).run().seconds
    for workers in counts:
        done = Pass(work, machine, workers, threads, seed).run()
        efficiency = alone / (workers * threads * done.seconds)
        reading = work.rows / BLOCK_ROWS * work.block_bytes / done.seconds
        say(
            f"| {workers:,} | {done.pieces:,} | {readable(done.seconds)} | {efficiency:.0%} "
            f"| {reading / 1e9:.2g} GB/s | {done.moved / 1e9:,.0f} GB | {done.held / 1e9:.1f} GB |"
        )
    limit = (alone / (2 * executors.PIECES_A_THREAD * machine.task)) ** 0.5  # pieces, and additions
    say(f"\nThe scheduler takes as long as the work from {limit:,.0f} threads on.\n")


def radii(work: Work, leaf: Node) -> None:
    """Of the mean, relative to E‖∇ℓ‖‖f‖, whose bound the sums carry along."""
    say("| rows | radius of A_f, relative to E‖∇ℓ‖‖f‖ | of it, in the tree |")
    say("|---|---|---|")
    size = float(leaf.size.upper)
    of_block = float(leaf.radius) / size
    for rows in sorted({BLOCK_ROWS, 10**6, work.rows}):
        count = -(-rows // BLOCK_ROWS)
        blocks = Blocks(0, count * BLOCK_ROWS)
        radius, sizes = Radius(np.full(count, float(leaf.radius))), Radius(np.full(count, size))
        found = blocks.sum_of_blocks(np.zeros(count), radius, sizes).total().radius
        relative = float(found) / (count * size)
        say(f"| {rows:,} | {relative:.2e} | {relative - of_block:.1e} |")


def readable(seconds: float) -> str:
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    shown = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=shown)
    parser.add_argument("--rows", type=float, default=1e9)
    parser.add_argument("--outputs", type=int, default=1000)
    parser.add_argument("--width", type=int, default=2048, help="d and k")
    parser.add_argument("--threads", type=int, default=1, help="of a worker, each of which has a piece")
    parser.add_argument("--disk", type=float, default=1e9, help="most bytes a second that a worker reads")
    parser.add_argument("--network", type=float, default=1.25e9, help="most bytes a second that it receives")
    parser.add_argument("--pieces", type=int, default=executors.PIECES_A_THREAD, help="for each thread")
    parser.add_argument("--workers", default="1,10,100,1000,10000,100000", help="how many, between commas")
    parser.add_argument("--seed", type=int, default=0, help="of who is slow")
    arguments = parser.parse_args()
    work = Work(int(arguments.rows), arguments.outputs, arguments.width)
    machine, leaf = measured(work, arguments.disk, arguments.network)
    executors.PIECES_A_THREAD = arguments.pieces
    table(work, machine, list(map(int, arguments.workers.split(","))), arguments.threads, arguments.seed)
    radii(work, leaf)


if __name__ == "__main__":
    main()
