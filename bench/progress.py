"""What is measured just now, and what is left: a bar on a terminal, else a line for each row."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02}"


class Teller(Protocol):
    """Hears how a run goes on."""

    def row(self, name: str, left: int, left_s: float) -> None:
        """A row begins; so many are left, with it, and they should take so long."""

    def server(self, name: str) -> None:
        """A server is measured now."""


@dataclass(slots=True)
class Lines:
    """For a log: one line for each row."""

    rows: int
    begun: float = field(default_factory=time.monotonic)

    def row(self, name: str, left: int, left_s: float) -> None:
        """Says which of how many it is, and what is left."""
        place = f"{self.rows - left + 1:>3} of {self.rows}"
        elapsed = clock(time.monotonic() - self.begun)
        print(
            f"{elapsed:>6}  {place}  {name:<24} {clock(left_s)} left", file=sys.stderr, flush=True
        )

    def server(self, name: str) -> None:
        """Nothing: a log wants no more."""


@dataclass(slots=True)
class Bar:
    """For a terminal."""

    progress: Progress
    task: TaskID
    rows: int
    name: str = ""

    def row(self, name: str, left: int, left_s: float) -> None:
        """Moves the bar."""
        self.name = name
        self.progress.update(
            self.task,
            completed=self.rows - left,
            description=name,
            left=f"{left} rows, {clock(left_s)} left",
        )

    def server(self, name: str) -> None:
        """Shows who is measured."""
        self.progress.update(self.task, description=f"{self.name} {name}")


@contextmanager
def telling(rows: int, quiet: bool) -> Iterator[Teller]:
    """A teller for that many rows; `quiet` and without a terminal it says nothing."""
    out = Console(stderr=True)
    if not out.is_terminal:
        yield Silent() if quiet else Lines(rows)
        return
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=out, transient=True) as progress:
        yield Bar(progress, progress.add_task("starting", total=rows, left=""), rows)


class Silent:
    """Says nothing."""

    def row(self, name: str, left: int, left_s: float) -> None:
        """Nothing."""

    def server(self, name: str) -> None:
        """Nothing."""
