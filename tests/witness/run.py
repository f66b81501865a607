"""Scripts one after the other; a difference that is not in the table, made small."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from witness.house import OURS, House, HungUpError, Shown
from witness.judge import Judge, Story, Tally, UnexplainedError, answer
from witness.line import SilenceError
from witness.steps import TIGHT, WIDE, Ask, Draw, Fate, Rules, Script, Step
from xsd.client.wire import Op

BURST = 12
TREE_EVERY = 12
"""How many bursts go by between looks at the whole tree."""
STEPS = 240

TROUBLE = (AssertionError, HungUpError, SilenceError, OSError)

Wrap = Callable[[House, Sequence[Ask], Shown], Shown]
"""Spoils what ours showed, for the tests of the runner."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A difference, how many steps had been played, and the script."""

    peer: str
    sort: str
    text: str
    steps: int


def bursts(script: Script) -> Iterator[tuple[int, list[Step]]]:
    """Runs of requests of one connection, and fates one by one, with where they begin."""
    at = 0
    while at < len(script):
        first = script[at]
        end = at + 1
        if isinstance(first, Ask) and not ends_burst(first):
            while end < len(script) and end - at < BURST:
                after = script[end]
                if isinstance(after, Fate) or after.conn != first.conn:
                    break
                end += 1
                if ends_burst(after):
                    break
        yield at, list(script[at:end])
        at = end


def ends_burst(ask: Ask) -> bool:
    """Where something may have to be mended before anybody goes on."""
    made = ask.conn > 0 and ask.op in (Op.WRITE, Op.MKDIR) and not ask.slot
    return ask.op == Op.TRANSACTION_END or made


class Court:
    """Daemons under the same rules, one of them ours."""

    def __init__(self, stores: Sequence[str], rules: Rules, directory: Path) -> None:
        self.stores, self.rules, self.directory = tuple(stores), rules, directory
        self.houses: dict[str, House] = {}
        self.wrap: Wrap | None = None
        self.starts = 0
        self.restarts: list[str] = []
        """Why daemons were started anew."""
        self.requests: dict[str, int] = {}

    def open(self) -> None:
        for name in self.stores:
            self.open_house(name)

    def open_house(self, name: str) -> None:
        self.starts += 1
        where = self.directory / f"{self.starts}{name}"
        self.houses[name] = House(name, where, self.rules)

    def close(self) -> None:
        for house in self.houses.values():
            house.close()
        self.houses.clear()

    def afresh(self) -> None:
        self.close()
        self.open()

    def sweep(self) -> Finding | None:
        """Cleans up; who cannot be made clean is started anew, which ours must never need."""
        finding = None
        for name, house in list(self.houses.items()):
            try:
                house.sweep()
            except TROUBLE as problem:
                if name == OURS:
                    finding = Finding(
                        OURS, "not clean", f"{type(problem).__name__}: {problem}", 1 << 30
                    )
                self.restarts.append(f"{name}: {type(problem).__name__} {problem}")
                self.requests[name] = self.requests.get(name, 0) + house.requests
                house.close()
                self.open_house(name)
        return finding

    def play(self, script: Script, peers: str, tally: Tally) -> Finding | None:
        """Plays a script from a clean start, up to the first difference that is in no row."""
        story = Story()
        judges = {
            name: Judge(name, self.rules, tally, story) for name in self.houses if name in peers
        }
        finding = self.play_all(script, judges, story)
        return self.sweep() or finding

    def play_all(self, script: Script, judges: dict[str, Judge], story: Story) -> Finding | None:
        at = 0
        try:
            for name in (OURS, *judges):
                self.houses[name].prepare()
            for count, (start, steps) in enumerate(bursts(script), 1):
                at = start
                self.play_burst(steps, judges, story)
                if judges and all(judge.parted for judge in judges.values()):
                    return None
                if count % TREE_EVERY == 0:
                    self.compare_trees(judges)
            at = len(script)
            self.compare_trees(judges)
        except UnexplainedError as found:
            return Finding(found.peer, found.sort, found.text, at + BURST)
        except TROUBLE as problem:
            gone = [one for one, house in self.houses.items() if not house.is_alive()]
            text = f"{type(problem).__name__}: {problem}; ended: {gone}"
            return Finding(
                ",".join(gone) or "?", f"trouble {type(problem).__name__}", text, at + BURST
            )
        return None

    def compare_trees(self, judges: dict[str, Judge]) -> None:
        tree = self.houses[OURS].tree()
        for name, judge in judges.items():
            if not judge.parted:
                judge.trees(tree, self.houses[name].tree())

    def play_burst(self, steps: list[Step], judges: dict[str, Judge], story: Story) -> None:
        first, ours = steps[0], self.houses[OURS]
        if isinstance(first, Fate):
            shown = ours.fate(first)
            if shown is None:
                return
            story.moved()
            story.again |= first.what == "again"
            story.shut_down |= first.what == "shutdown"
            if first.what in ("death", "release"):
                story.dead.add(first.conn)
            if first.what != "shutdown":
                story.forget(first.conn)
            for name, judge in judges.items():
                if not judge.parted:
                    theirs = self.houses[name].fate(first)
                    assert theirs is not None
                    judge.events(first, shown, theirs, (), (), ())
            return
        if first.conn not in ours.lines:
            return
        asks = [step for step in steps if isinstance(step, Ask)]
        shown = ours.play(asks)
        if self.wrap is not None:
            shown = self.wrap(ours, asks, shown)
        said = answers(asks, shown)
        journals = [story.follow(ask, mine)[0] for ask, mine in zip(asks, said, strict=True)]
        for name, judge in judges.items():
            if judge.parted:
                continue
            theirs = self.houses[name].play(asks)
            judge.replies(asks, said, answers(asks, theirs), journals)
            if judge.suspect and not judge.parted:
                judge.may_part(ours.tree(), self.houses[name].tree())
            judge.events(first, shown, theirs, asks, said, journals)
            judge.mend(ours, self.houses[name])


def answers(asks: Sequence[Ask], shown: Shown) -> list[bytes | str]:
    packets = [packet for packet in shown.own if packet[0] != 15]
    return [answer(packet, ask.op) for ask, packet in zip(asks, packets, strict=True)]


def shrink(
    court: Court, script: Script, peers: str, finding: Finding, seconds: float = 120.0
) -> tuple[list[Step], Finding]:
    """A short script that shows the same difference: what can be left out has been."""
    limit = time.monotonic() + seconds
    best, last = list(script[: finding.steps]), finding

    def shows(some: Script) -> Finding | None:
        found = court.play(some, peers, Tally())
        return found if found and (found.peer, found.sort) == (finding.peer, finding.sort) else None

    size = max(1, len(best) // 2)
    while time.monotonic() < limit:
        at, before = 0, len(best)
        while at < len(best) and time.monotonic() < limit:
            fewer = best[:at] + best[at + size :]
            found = shows(fewer)
            if found:
                best, last = fewer[: found.steps], found
            else:
                at += size
        if size == 1 and len(best) == before:
            break
        size = max(1, size // 2)
    return best, last


def court(stores: Sequence[str], rules: Rules, directory: Path) -> Court:
    found = Court(stores, rules, directory)
    try:
        found.open()
    except BaseException:
        found.close()
        raise
    return found


def rules_of(number: int) -> Rules:
    return TIGHT if number % 3 == 2 else WIDE


class Session:
    """Many scripts from one seed."""

    def __init__(self, stores: Sequence[str], seed: int, directory: Path | None = None) -> None:
        self.seed, self.tally = seed, Tally()
        self.made = Path(tempfile.mkdtemp(prefix="witness-")) if directory is None else None
        where = self.made or directory
        assert where is not None
        self.courts: dict[str, Court] = {}
        self.number = 0
        try:
            for rules in (WIDE, TIGHT):
                self.courts[rules.name] = court(stores, rules, where / rules.name)
        except BaseException:
            self.close()
            raise

    def script(self, number: int) -> tuple[Court, Draw, list[Step]]:
        rules = rules_of(number)
        draw = Draw(f"{self.seed}/{number}", rules)
        return self.courts[rules.name], draw, draw.steps(STEPS)

    def next(self) -> tuple[Finding | None, Court, Draw, list[Step]]:
        court, draw, steps = self.script(self.number)
        self.number += 1
        return court.play(steps, draw.peers, self.tally), court, draw, steps

    def requests(self) -> dict[str, int]:
        """How many requests each daemon was sent in all, the chief's not counted."""
        found: dict[str, int] = {}
        for court in self.courts.values():
            for name, house in court.houses.items():
                before = court.requests.get(name, 0)
                found[name] = found.get(name, 0) + before + house.requests
        return found

    def close(self) -> None:
        for court in self.courts.values():
            court.close()
        if self.made is not None:
            shutil.rmtree(self.made, ignore_errors=True)
