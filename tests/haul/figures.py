"""What a daemon holds at a moment, as numbers, and which of them must come back to the start.

Three kinds. *Exact*: what clients and domains have; the same after every round as before the
first. *Bounded*: what allocators and tables may keep; near what it was when all kinds of load had
been there, without a trend, and near the start once the daemon was told to compact. *Growing*:
totals that only say how much was done.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Figures = Mapping[str, int]

EXACT: Mapping[str, str] = {
    "connections": "connections, of sockets and rings",
    "watches": "watches",
    "transactions": "open transactions",
    "nodes": "nodes, special ones too",
    "domains": "domains that are known",
    "domains_introduced": "domains that have a ring",
    "history_records": "commits recorded for open transactions",
    "ring_pages": "ring pages in the daemon's maps",
    "xen_pages": "pages that the hypervisor says are mapped",
    "xen_ports": "event channels that the hypervisor says are bound",
    "descriptors": "open files and sockets",
    "threads": "threads",
    "permission_lists": "permission lists",
    "tree_blocks": "nodes and blocks of the tree",
    "dom0_memory": "what domain 0 is charged with, in bytes",
    "failures": "allocations that failed",
}
"""The names, and what they count."""

MEBIBYTE = 1 << 20
WARM_ROUNDS = 3
"""Rounds at full size with every kind of load, after which nothing greater comes."""


@dataclass(frozen=True, slots=True)
class Bound:
    """How far a figure may be above the greatest value of the warm rounds, and its trend.

    The trend is the median of the last third of the rounds beside that of the middle third.
    ``above_start`` is how far it may be above the start in the end, once the daemon has been told
    to give back what it does not need.
    """

    growth: int
    trend: int
    above_start: int
    why: str


_BOUNDED: Mapping[str, Bound] = {
    "rss_bytes": Bound(
        4 * MEBIBYTE, MEBIBYTE, 4 * MEBIBYTE, "allocators keep pages between what lives on"
    ),
    "tree_bytes": Bound(4096, 1024, 4096, "a directory keeps room for the children it had"),
    "total_bytes": Bound(
        MEBIBYTE, MEBIBYTE // 4, 2 * MEBIBYTE,
        "tables double when they are full and keep their size: connections, watches, the events "
        "of one change",
    ),
    "total_blocks": Bound(64, 16, 256, "tables not needed before; a leak shows here"),
    "mappings": Bound(32, 8, 32, "those of the allocators come and go"),
}  # fmt: skip

_LOGGED: Mapping[str, Bound] = {
    "rss_bytes": Bound(
        24 * MEBIBYTE, 3 * MEBIBYTE, 32 * MEBIBYTE,
        "8 MiB of records may wait for the thread that writes the access log; as objects of "
        "Python they need three times as much, and Python gives back only whole pieces of a MiB",
    ),
    "total_bytes": Bound(
        2 * MEBIBYTE, MEBIBYTE // 2, 3 * MEBIBYTE, "besides, a MiB of records of a turn of the loop"
    ),
}  # fmt: skip


def bounds(access_log: bool) -> Mapping[str, Bound]:
    """The bounded figures, with an access log or without.

    A sanitizer keeps what was freed, to see whether it is used: there memory is not judged.
    """
    found = {**_BOUNDED, **_LOGGED} if access_log else dict(_BOUNDED)
    if os.environ.get("XSD_FLAVOUR") == "asan":
        del found["rss_bytes"], found["mappings"]
    return found


GROWING = ("requests", "cpu_ms", "commits", "conflicts", "aborts", "events_queued",
           "events_dropped", "events_expired", "nodes_swept", "soft_quota_hits",
           "requests_held", "bytes_in", "bytes_out")  # fmt: skip
"""Totals since the start."""

TREND_ROUNDS = 9
"""Fewer rounds than these behind the warm ones have no trend worth the name."""


def changed(start: Figures, now: Figures) -> list[str]:
    """What has not come back, in words; nothing when all has."""
    return [
        f"{name}: {start[name]} at the start, {now[name]} now"
        for name in EXACT
        if now[name] != start[name]
    ]


def grown(name: str, bound: Bound, values: Sequence[int]) -> str:
    """What is wrong with a bounded figure, given all rounds of a run so far; "" if nothing is."""
    warm, later = values[:WARM_ROUNDS], values[WARM_ROUNDS:]
    if later and later[-1] > max(warm) + bound.growth:
        return f"{name}: {max(warm)} when warm, {later[-1]} now, {bound.growth} more is allowed"
    return ""


def rising(name: str, bound: Bound, values: Sequence[int]) -> str:
    """Whether a bounded figure has a trend in the rounds behind the warm ones; "" if not."""
    later = values[WARM_ROUNDS:]
    if len(later) < TREND_ROUNDS:
        return ""
    _, middle, last = thirds(later)
    if last > middle + bound.trend:
        return f"{name}: rises, median {middle:.0f} in the middle third, {last:.0f} in the last"
    return ""


def thirds(values: Sequence[int]) -> tuple[float, float, float]:
    """The medians of the thirds of at least three values."""
    third = len(values) // 3
    parts = values[:third], values[third : 2 * third], values[2 * third :]
    first, middle, last = (statistics.median(part) for part in parts)
    return first, middle, last


def kept(name: str, bound: Bound, start: Figures, end: Figures) -> str:
    """What a daemon has not given back although it was told to; "" if that is little."""
    if end[name] > start[name] + bound.above_start:
        return (
            f"{name}: {start[name]} at the start, {end[name]} in the end, "
            f"{bound.above_start} more is allowed"
        )
    return ""
