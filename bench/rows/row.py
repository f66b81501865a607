"""What a row is: data that says what is measured, in which tree, with which goal."""

from dataclasses import dataclass, replace
from typing import Literal

from bench.goals import Goal

Scale = Literal["tiny", "normal", "full"]
Kind = Literal["load", "listing", "engine", "count"]

LEAST = 20
"""Operations of each client at least, however finely a row is measured."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number taken from a sample: `field` * `scale` / `per`; dots in a field go one level down.

    Suffix "" makes the row's own id the figure's id, any other is appended after a colon.
    `whole`: it is of the whole load, so that a sample which the time limit cut short is a lower
    bound, and to be shown as one.
    """

    unit: str
    field: str
    per: str | None = None
    scale: float = 1.0
    suffix: str = ""
    goal: Goal | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One pattern of load, and the figures taken from it.

    `load` is the arguments of what `kind` names:

    - load: the load client; without arguments memory is measured only
    - listing: a tool that lists a tree, `bench.listing`
    - engine: our engine in process, `bench.inprocess`; servers take no part
    - count: the same under valgrind, which counts instructions

    `leaves`: size of the tree that must stand before, 0 for none, None for any. `prepare` runs
    once for each server, `before` ahead of every repeat, `after` behind it; all unmeasured.
    `curve` and `n`: rows of the same curve differ in n only, and are drawn as growth with it.
    `limit_s`: seconds for what is measured, where the scale's own limit would be too long.
    `fresh`: the servers start anew before it, since some keep memory for the next row and some do
    not. `extra` rows run in full mode or when named.
    """

    id: str
    what: str
    figures: tuple[Figure, ...]
    load: tuple[str, ...] = ()
    leaves: int | None = None
    prepare: tuple[tuple[str, ...], ...] = ()
    before: tuple[tuple[str, ...], ...] = ()
    after: tuple[tuple[str, ...], ...] = ()
    floor: bool = True
    repeats: int | None = None
    extra: bool = False
    kind: Kind = "load"
    curve: str = ""
    n: float | None = None
    limit_s: int | None = None
    fresh: bool = False
    parts: int = 1
    """How many samples make one repeat, each of a part of the operations."""

    @property
    def changes_tree(self) -> bool:
        """Whether the tree is another one afterwards, so that the next row must build its own."""
        loads = (*self.before, self.load, *self.after)
        return any(load and load[0] in ("create", "grow", "rm") for load in loads)

    def finer(self, parts: int) -> "Row":
        """The same pattern in samples of about a `parts`-th of the operations; itself where what is
        measured is a whole."""
        if parts == 1 or self.kind != "load" or self.changes_tree or "--ops" not in self.load:
            return self
        if self.repeats is not None or any(figure.whole for figure in self.figures):
            return self
        at_once = self._word("--connections") * self._word("--depth")
        words = list(self.load)
        for name, least in (("--ops", LEAST * at_once), ("--warm", 2 * at_once)):
            if name in words:
                place = words.index(name) + 1
                whole = int(words[place])
                words[place] = str(min(whole, max(whole // parts, least)))
        return replace(self, load=tuple(words), parts=parts)

    def _word(self, name: str) -> int:
        """The number behind an option of the load client, 1 without it."""
        return int(self.load[self.load.index(name) + 1]) if name in self.load else 1

    @property
    def rings(self) -> bool:
        """Whether guests on rings take part, so that a server must be on a fake Xen."""
        return "--rings" in self.load


def cpu(goal: Goal | None, per: str = "requests", unit: str = "us/req") -> Figure:
    """Server CPU time in microseconds for each of what `per` counts."""
    return Figure(unit, "server_cpu_ns", per, 1e-3, goal=goal)


def total(goal: Goal | None = None, suffix: str = "") -> Figure:
    """Server CPU time in milliseconds for all of it."""
    return Figure("ms", "server_cpu_ns", None, 1e-6, suffix, goal, whole=True)


def latencies(p99: Goal | None = None) -> tuple[Figure, ...]:
    """Percentiles of what a client waits for one operation, in microseconds."""
    return (
        Figure("us", "latency_ns.p50", scale=1e-3, suffix="p50"),
        Figure("us", "latency_ns.p99", scale=1e-3, suffix="p99", goal=p99),
        Figure("us", "latency_ns.p999", scale=1e-3, suffix="p99.9"),
    )


def args(text: str) -> tuple[str, ...]:
    """Words as arguments."""
    return tuple(text.split())


def create(leaves: int) -> tuple[str, ...]:
    """Arguments of the load client that build the tree of `leaves` leaves."""
    return args(f"create --ops {leaves} --nodes {leaves} --depth 32")


EMPTY = args("rm --path /bench --ops 1")
"""Removes all that was ever built."""
