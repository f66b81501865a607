"""Flights that never took place: what a report makes of them is known beforehand."""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from bench.flight.record import (
    SCHEMA,
    Case,
    Flight,
    Kind,
    Latency,
    Machine,
    Row,
    Settings,
    Software,
    summary,
)

SPEEDS = {"ours": 5.0, "floor": 4.0, "C": 11.0, "O": 14.0, "O*": 13.0}
"""What each server takes for a request on a machine that is as fast as ever."""

Turns = Sequence[float | None]


def measured(
    chance: random.Random,
    *,
    repeats: int = 9,
    sigma: float = 0.02,
    machine: float = 1.0,
    ours: float = 1.0,
    servers: Sequence[str] = tuple(SPEEDS),
    outliers: float = 0.0,
) -> dict[str, list[float | None]]:
    """Values of each server, with normal noise; some repeats are three times as slow by chance."""
    return {
        name: [
            SPEEDS[name]
            * machine
            * (ours if name == "ours" else 1.0)
            * max(0.2, chance.gauss(1.0, sigma))
            * (3.0 if chance.random() < outliers else 1.0)
            for _ in range(repeats)
        ]
        for name in servers
    }


def case(
    values: Mapping[str, Turns],
    name: str = "B1-read",
    *,
    kind: Kind = "cpu",
    limit: float | None = None,
    reruns: Sequence[Mapping[str, Turns]] = (),
) -> Case:
    """A case with these values; with a limit it has a goal."""
    known = {n: [v for v in turns if v is not None] for n, turns in values.items()}
    mine = known.get("ours")
    return Case(
        id=name,
        row=name.partition(":")[0],
        what="one synchronous client",
        unit="us/req",
        kind=kind,
        goal=None if limit is None else f"<= {limit:g}",
        limit=limit,
        met=None if limit is None or not mine else statistics.median(mine) <= limit,
        values={n: list(turns) for n, turns in values.items()},
        summary={n: summary(turns) for n, turns in known.items() if turns},
        reruns=[{n: list(turns) for n, turns in rerun.items()} for rerun in reruns],
    )


def row(name: str, servers: Sequence[str], n: float | None = None) -> Row:
    """A row in which all was well."""
    buckets = [(1000 * 2**i, 100 >> i) for i in range(6)]
    count = sum(many for _, many in buckets)
    return Row(
        id=name,
        what="one synchronous client",
        load=["read", "--ops", "100"],
        curve="" if n is None else name.partition("-")[0],
        n=n,
        checksums={server: ["c0ffee"] for server in servers if server != "floor"},
        checksums_agree=True,
        errors={},
        not_run={},
        cut_short=[],
        took_s=dict.fromkeys(servers, 0.5),
        latency={s: Latency(count, 2000, 16000, 32000, 32000, buckets) for s in servers},
    )


def flight(*cases: Case, started: str = "2026-11-20T10:00:00Z", **rows: Row) -> Flight:
    """A flight of these cases, on a machine like any other."""
    names = dict.fromkeys(c.row for c in cases)
    servers = list(dict.fromkeys(server for c in cases for server in c.values))
    return Flight(
        schema=SCHEMA,
        started=started,
        finished=started,
        software=Software("0123456789abcdef", False, "3.11.2", {"xsd": "0.1.0"}, {}),
        machine=Machine("Some CPU", "x86_64", 2, None, "kvm", "6.1.0", (0.5, 0.5, 0.5)),
        settings=Settings("normal", 9, 1, 1, False, unmoved=True),
        servers=servers,
        rows=[rows.get(name) or row(name, servers) for name in names],
        cases=list(cases),
    )


def with_row(made: Flight, name: str, **changes: object) -> Flight:
    """The flight with a row changed."""
    rows = [replace(r, **changes) if r.id == name else r for r in made.rows]  # type: ignore[arg-type]
    return replace(made, rows=rows)
