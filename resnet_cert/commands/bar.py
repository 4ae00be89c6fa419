"""What a terminal shows of work that lasts: what it is, how far, how fast, how long it took and will take.

Loaded on terminals only.
"""

from __future__ import annotations

import threading
import time
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from resnet_cert.outcomes import printable

PATIENCE = 1.0
"""Seconds of which nothing is shown."""


class _Count(ProgressColumn):
    """How many are done, of how many, and how many a second."""

    def render(self, task: Task) -> Text:
        if not task.completed:
            return Text("")
        of = "" if task.total is None else f"/{int(task.total)}"
        rate = "" if not task.speed else f", {task.speed:.3g}/s"
        return Text(f"{int(task.completed)}{of} {task.fields['what']}{rate}")


class _OfAll(ProgressColumn):
    """A column that says something where it is known how many there are."""

    def __init__(self, column: ProgressColumn) -> None:
        super().__init__()
        self.column = column

    def render(self, task: Task) -> RenderableType:
        return Text("") if task.total is None else self.column.render(task)


class _Elapsed(ProgressColumn):
    """How long all of the work has taken, over every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.start = time.monotonic()

    def render(self, task: Task) -> Text:
        seconds = int(time.monotonic() - self.start)
        return Text(f"{seconds // 60}:{seconds % 60:02d}")


class Bar:
    """One line at the foot of the terminal, gone when the work is done."""

    def __init__(self, doing: str) -> None:
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            _OfAll(BarColumn(bar_width=20)),
            _Count(),
            _OfAll(TimeRemainingColumn()),
            _Elapsed(),
            console=Console(stderr=True, highlight=False, markup=False),
            transient=True,
        )
        self.doing = printable(doing)
        self.task = self.progress.add_task(self.doing, total=None, what="")
        self.what: tuple[str, int | None] = ("", None)
        self.done = 0
        self.shown = threading.Timer(PATIENCE, self.show)
        self.shown.daemon = True
        self.lock = threading.Lock()
        self.ended = False

    def __enter__(self) -> Self:
        self.shown.start()
        return self

    def show(self) -> None:
        with self.lock:
            if not self.ended:
                self.progress.start()

    def __exit__(self, *exception: object) -> None:
        self.shown.cancel()
        with self.lock:
            self.ended = True
            self.progress.stop()

    def say(self, doing: str) -> None:
        self.doing = printable(doing)
        self.progress.update(self.task, description=self.doing)

    def step(self, what: str, done: int, total: int | None) -> None:
        """A `numerics.progress.Watch`: another thing that is counted, or a new pass, begins from 0."""
        if (what, total) != self.what or done < self.done:
            self.what = (what, total)
            self.progress.remove_task(self.task)  # for rich, a total of None is the one from before
            self.task = self.progress.add_task(self.doing, total=total, what=what)
        self.done = done
        self.progress.update(self.task, completed=done)
