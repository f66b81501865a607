"""Rounds one after the other on one daemon; after each, what it holds is what it held at first."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from peer import Peer
from xen.hypervisor import Guest

from haul.acts import Size, acts, play
from haul.crowd import DOMIDS, OK, Crowd
from haul.figures import (
    EXACT,
    GROWING,
    MEBIBYTE,
    WARM_ROUNDS,
    Bound,
    Figures,
    bounds,
    grown,
    kept,
    rising,
    thirds,
)  # fmt: skip
from haul.house import HaulError, House
from xsd.client.wire import Op

BREAKAGES = ("watch", "connection", "transaction", "node", "domain", "permission")
MOST_PAUSE = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done; ``load`` is the share of time in which anything is asked of the daemon.

    It goes on for ``seconds``, or ``rounds`` rounds if that is not 0.
    """

    seed: int
    size: Size
    seconds: float
    rounds: int = 0
    first: int = 0
    load: float = 0.5
    access_log: bool = False
    patience: float = 10.0
    """Seconds that the daemon has to come to rest after a round."""
    breakage: str = ""


@dataclass(frozen=True, slots=True)
class Round:
    """One round: what was played, how long it took, and what the daemon held afterwards."""

    number: int
    acts: tuple[str, ...]
    seconds: float
    births: int
    figures: Figures


@dataclass(slots=True)
class Haul:
    """A run: its rounds so far, and the greatest figures seen while something was going on."""

    plan: Plan
    house: House
    rounds: list[Round] = field(default_factory=list)
    most: dict[str, int] = field(default_factory=dict)
    number: int = -1
    """Of the round that is being played, or was the last."""
    compacted: Figures = field(default_factory=dict)
    """What the daemon held in the end, told to give back what it does not need."""
    _left: list[object] = field(default_factory=list)
    """What a planted fault keeps alive."""

    def round(self, number: int) -> Round:
        """Plays one; raises HaulError with the first thing that did not hold."""
        house, plan = self.house, self.plan
        self.number = number
        chance = random.Random(f"{plan.seed}/{number}")
        began = time.monotonic()
        full = number < WARM_ROUNDS
        played = acts(house, chance, plan.size, full=full)
        births = 0
        crowd = Crowd(house, chance, sockets=20, guests=12)
        beside_guests = False
        try:
            for act in played:
                if act.rings and not beside_guests:
                    beside_guests = True
                    crowd.die()
                    crowd.hang_up()
                    births = crowd.births
                    crowd = Crowd(house, chance, sockets=20, guests=0)
                play(house, act, crowd, plan.size.steps, lambda: self._note(house.figures()))
            crowd.die()
        finally:
            crowd.hang_up()
        house.sweep()
        if plan.breakage:
            self._left.append(leave_behind(house, plan.breakage))
        figures, wrong = house.back(plan.patience)
        house.control("check")  # what it finds stands in the log
        house.reopen_logs()
        house.judge_access_log()
        self._note(figures)
        made = Round(number, tuple(act.name for act in played), time.monotonic() - began,
                     max(births, crowd.births), figures)  # fmt: skip
        self.rounds.append(made)
        if paths := set(house.walk()) ^ house.tree:
            wrong.append(f"paths: {sorted(paths)[:5]}")
        wrong += self._unbounded(grown)
        if wrong:
            raise HaulError("; ".join(wrong))
        return made

    def _unbounded(self, test: Callable[[str, Bound, Sequence[int]], str]) -> list[str]:
        """What a test finds wrong with the bounded figures; rounds played again prove nothing."""
        if self.plan.first:
            return []
        found = (test(name, bound, self.series(name)) for name, bound in self.bounds.items())
        return [text for text in found if text]

    @property
    def bounds(self) -> Mapping[str, Bound]:
        """The bounded figures of this run."""
        return bounds(self.plan.access_log)

    def series(self, name: str) -> list[int]:
        """A figure after each round."""
        return [one.figures[name] for one in self.rounds]

    def finish(self) -> None:
        """The daemon is told to compact, judged, and ended; raises HaulError."""
        house = self.house
        wrong = self._unbounded(rising)
        house.control("compact")
        self.compacted, differs = house.back(self.plan.patience)
        kept_back = (kept(n, b, house.start, self.compacted) for n, b in self.bounds.items())
        wrong += [*differs, *filter(None, kept_back)]
        house.finish()
        if wrong:
            raise HaulError("; ".join(wrong))

    def _note(self, figures: Figures) -> None:
        for name, value in figures.items():
            self.most[name] = max(value, self.most.get(name, 0))

    def close(self) -> None:
        """Lets go of what a planted fault kept."""
        for left in self._left:
            if isinstance(left, Peer):
                left.close()


def leave_behind(house: House, what: str) -> Peer | Guest | None:
    """Leaves something, as if the daemon had forgotten it; returns what keeps it."""
    client = house.operator
    match what:
        case "watch":
            assert client.ask(Op.WATCH, b"/left\0behind\0") == OK
            client.event()
        case "connection":
            return Peer(house.socket)
        case "transaction":
            client.start()
        case "node":
            assert client.ask(Op.WRITE, b"/tool/left\0behind") == OK
        case "permission":
            assert client.ask(Op.SET_PERMS, b"/tool\0n0\0w0\0") == OK
        case "domain":
            guest = house.xen.create(DOMIDS[-1] + 1)
            payload = b"%d\0%d\0%d\0" % (guest.domid, guest.gfn, guest.port)
            assert client.ask(Op.INTRODUCE, payload) == OK
            return guest
        case _:
            raise ValueError(what)
    return None


def haul(plan: Plan, say: Callable[[str], None]) -> tuple[Haul | None, str]:
    """A whole run; what did not hold, or "". ``say`` gets a line for each round."""
    directory = Path(tempfile.mkdtemp(prefix="xsd-haul-", dir=_in_memory()))
    run: Haul | None = None
    number = plan.first
    try:
        run = Haul(plan, House(directory, access_log=plan.access_log))
        say(_line("start", run.house.start))
        deadline = time.monotonic() + plan.seconds
        try:
            while _goes_on(plan, number, deadline):
                made = run.round(number)
                say(_line(f"round {number:4}", made.figures, made))
                number += 1
                time.sleep(min(MOST_PAUSE, made.seconds * (1 / plan.load - 1)))
            run.finish()
        except BaseException:
            run.house.kill()
            raise
        return run, ""
    except (HaulError, AssertionError, OSError) as failure:
        text = str(failure) if isinstance(failure, HaulError) else repr(failure)
        if run is not None:
            text += "".join(f"\n  {line}" for line in run.house.last_words())
        return run, f"seed {plan.seed}, round {number}: {text}"
    finally:
        if run is not None:
            run.close()
        shutil.rmtree(directory, ignore_errors=True)


def _goes_on(plan: Plan, number: int, deadline: float) -> bool:
    if plan.rounds:
        return number < plan.first + plan.rounds
    return time.monotonic() < deadline


def _in_memory() -> str | None:
    """Where ring pages and logs can be files that no disk ever sees; None: the usual place."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None


def _line(what: str, figures: Figures, made: Round | None = None) -> str:
    text = (
        f"{what}: rss {figures['rss_bytes'] / MEBIBYTE:.2f} MiB, "
        f"accounted {figures['total_bytes']} B in {figures['total_blocks']}, "
        f"maps {figures['mappings']}, fds {figures['descriptors']}, "
        f"nodes {figures['nodes']}, watches {figures['watches']}, "
        f"domains {figures['domains']}, requests {figures['requests']}, "
        f"cpu {figures['cpu_ms'] / 1000:.1f} s"
    )
    if made is not None:
        text += f"; {made.seconds:.1f} s, {made.births} births: {' '.join(made.acts)}"
    return text


def table(run: Haul) -> list[str]:
    """Each figure at the start, after the last round, compacted, and the most that was seen."""
    start = run.house.start
    end = run.rounds[-1].figures if run.rounds else start
    columns = ("start", "end", "compacted", "most seen")
    lines = ["".join([f"{'figure':<20}", *(f"{column:>14}" for column in columns)])]
    for name in (*EXACT, *run.bounds, *GROWING):
        values = (start[name], end[name], run.compacted.get(name, "-"), run.most.get(name, "-"))
        lines.append("".join([f"{name:<20}", *(f"{value:>14}" for value in values)]))
    for name in run.bounds:
        values_later = run.series(name)[WARM_ROUNDS:]
        if len(values_later) >= 3:
            medians = ", ".join(f"{median:.0f}" for median in thirds(values_later))
            lines.append(f"{name}: medians of the thirds after the warm rounds {medians}")
    return lines


def as_json(run: Haul, wrong: str) -> dict[str, object]:
    """The run as plain data."""
    return {
        "seed": run.plan.seed,
        "access_log": run.plan.access_log,
        "wrong": wrong,
        "start": dict(run.house.start),
        "compacted": dict(run.compacted),
        "most": run.most,
        "log_lines": run.house.log_lines,
        "rounds": [
            {"number": one.number, "acts": one.acts, "seconds": round(one.seconds, 2),
             "births": one.births, "figures": dict(one.figures)}
            for one in run.rounds
        ],
    }  # fmt: skip
