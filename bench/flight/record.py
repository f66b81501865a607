"""What a flight leaves behind: one JSON file, checked against these types when it is read.

A *row* is one pattern of load, a *case* is one figure of a row. Times of a case are in its unit,
histograms are in nanoseconds.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

SCHEMA = "xsd-bench/1"

OURS = "ours"
FLOOR = "floor"

Kind = Literal["cpu", "latency", "memory", "ratio", "count", "instructions"]
"""What a figure is made of: it says whether a slower machine changes it, and how exact it is."""


class BrokenError(Exception):
    """A file is not a flight, or cannot be read; the message says which and where."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a flight took place."""

    cpu: str
    architecture: str
    cores: int
    governor: str | None
    virtualised: str | None
    """The hypervisor's name, "none" on bare metal, None when nobody knows."""
    kernel: str
    load_average: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Software:
    """What was measured, and on what it stands; a package that is absent has None."""

    commit: str | None
    dirty: bool | None
    """Whether files differed from the commit."""
    python: str
    packages: dict[str, str | None]
    debian: dict[str, str | None]


@dataclass(frozen=True, slots=True)
class Settings:
    """How it was measured."""

    scale: str
    repeats: int
    server_cpu: int
    client_cpu: int
    realtime: bool
    unmoved: bool = False
    """Whether addresses were held still, so that instructions repeat exactly."""
    planted_percent: int = 0
    """A slowdown that was planted into our daemon on purpose."""
    background_load: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """A figure of one server over its repeats."""

    median: float
    low: float
    high: float
    spread: float
    """(high - low) / median."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Latencies of all repeats of a row on one server together, in ns."""

    count: int
    p50: int
    p99: int
    p999: int
    max: int
    buckets: list[tuple[int, int]] = field(default_factory=list)
    """(largest value, how many), ascending, without the empty ones; eight for each power of two."""


@dataclass(frozen=True, slots=True)
class Row:
    """One pattern of load: who took part, and whether all gave the same answers."""

    id: str
    what: str
    load: list[str]
    curve: str
    n: float | None
    """Rows of one curve differ in n only; "" stands for none."""
    checksums: dict[str, list[str]]
    checksums_agree: bool
    errors: dict[str, str]
    not_run: dict[str, str]
    """Servers that did not take part, with the reason."""
    cut_short: list[str]
    """Servers that the time limit stopped."""
    took_s: dict[str, float]
    """Seconds of one repeat, what prepares it included."""
    latency: dict[str, Latency] = field(default_factory=dict)
    samples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """All that the load client said; left out of a baseline."""


@dataclass(frozen=True, slots=True)
class Case:
    """One figure of one row. Lower is better, always."""

    id: str
    row: str
    what: str
    unit: str
    kind: Kind
    goal: str | None
    limit: float | None
    """What the goal came to in this flight."""
    met: bool | None
    values: dict[str, list[float | None]]
    """By server, one for each turn: the n-th of all were measured side by side. None where a
    server took no part, because it is slow or done."""
    summary: dict[str, Summary]
    bounds: list[str] = field(default_factory=list)
    """Servers that were stopped by the time limit: their figure is a lower bound."""
    reruns: list[dict[str, list[float | None]]] = field(default_factory=list)
    """The same figure when the row was run again because it looked like a regression."""


@dataclass(frozen=True, slots=True)
class Flight:
    """A run of the benchmarks."""

    schema: str
    started: str
    finished: str
    software: Software
    machine: Machine
    settings: Settings
    servers: list[str]
    rows: list[Row]
    cases: list[Case]

    def row(self, name: str) -> Row:
        """The row of that id; KeyError."""
        for row in self.rows:
            if row.id == name:
                return row
        raise KeyError(name)


def summary(values: Sequence[float]) -> Summary:
    """Median and extremes of at least one value."""
    median = statistics.median(values)
    low, high = min(values), max(values)
    return Summary(median, low, high, (high - low) / median if median else 0.0)


def load(path: Path) -> Flight:
    """A flight from its file; raises BrokenError."""
    try:
        flight = msgspec.json.decode(path.read_bytes(), type=Flight)
    except OSError as error:
        raise BrokenError(f"{path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise BrokenError(f"{path}: not a flight: {error}") from error
    if flight.schema != SCHEMA:
        raise BrokenError(f"{path}: schema '{flight.schema}', expected '{SCHEMA}'")
    return flight


def save(flight: Flight, path: Path) -> None:
    """Writes it as JSON that a person can read too; directories are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.fresh")
    fresh.write_bytes(msgspec.json.format(msgspec.json.encode(flight), indent=1) + b"\n")
    fresh.replace(path)


def together(flights: Sequence[Flight]) -> Flight:
    """Partial flights of one build on one machine as one: a row is that of the last that has it.

    Raises BrokenError when they were not made alike.
    """
    first = flights[0]

    def made(flight: Flight) -> tuple[object, ...]:
        machine = replace(flight.machine, load_average=(0, 0, 0))
        return machine, flight.software, flight.settings, flight.servers

    for other in flights[1:]:
        if made(other) != made(first):
            raise BrokenError(
                f"the flights of {first.started} and {other.started} differ in machine, software, "
                "settings or servers"
            )
    last = {row.id: flight for flight in flights for row in flight.rows}
    return replace(
        first,
        finished=flights[-1].finished,
        rows=[flight.row(name) for name, flight in last.items()],
        cases=[case for name, flight in last.items() for case in flight.cases if case.row == name],
    )


def baseline(flight: Flight) -> Flight:
    """The flight without what only its own day needs: a twentieth of the size."""
    return replace(flight, rows=[replace(row, samples={}) for row in flight.rows])
