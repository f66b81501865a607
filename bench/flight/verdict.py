"""Verdicts: what a flight says about our daemon, beside a baseline flight.

    blocked         its correctness twin failed: wrong, different or no answers; figures say nothing
    untested        the baseline has no such figure
    regression      worse than the baseline and than the drift of peers and floor
    intermittent    looked like one, but not when the row was run again
    allowed         is one, and a line of the allow list says why
    improved        better than baseline and drift
    never reached   as before, and the goal was not met then either
    like baseline   as before

Only regressions and what is blocked make a flight bad.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from bench.flight.allow import Allowance
from bench.flight.change import TOLERANCE, UNKNOWN_NOISE, Change, compare
from bench.flight.record import OURS, Case, Flight, Kind, Row

Verdict = Literal[
    "blocked",
    "regression",
    "intermittent",
    "allowed",
    "improved",
    "never reached",
    "untested",
    "like baseline",
]
VERDICTS: tuple[Verdict, ...] = Verdict.__args__  # type: ignore[attr-defined]
"""What needs attention comes first."""

EXACT, MOVED = 0.01, 0.05
"""Instructions do not wobble: more than this is a change of the program. Where addresses could not
be held still they do, a little."""
UNKNOWN: Mapping[Kind, float] = {"instructions": 0.0, "memory": 0.03, "latency": 1.0, "ratio": 1.0}
"""What a single repeat may be wrong by: tails double when somebody else has work."""
DRIFTING: tuple[Kind, ...] = ("cpu", "latency", "ratio")
WAITING: tuple[Kind, ...] = ("latency", "ratio")
"""What other work on the machine shows in."""
PAGES_MB = 0.25
"""Memory that is nothing to speak of where the baseline has none."""

TOLERABLE, REGRESSIONS, BROKEN = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is said about one case."""

    case: str
    row: str
    what: str
    unit: str
    verdict: Verdict
    ours: float | None
    """Our median in this flight; None when it was not measured."""
    before: float | None
    """Our median in the baseline."""
    change: Change | None
    met: bool | None
    goal: str | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All that is said about a flight."""

    judgements: tuple[Judgement, ...]
    notes: tuple[str, ...]
    """Lines of the allow list that do nothing, rows that did not fly, and the like."""
    drift: float | None
    """Of the machine as a whole: the median over all CPU figures of peers and floor."""

    @property
    def exit_code(self) -> int:
        """0 tolerable, 1 regressions, 2 something is blocked."""
        found = self.count()
        if found["blocked"]:
            return BROKEN
        return REGRESSIONS if found["regression"] else TOLERABLE

    def count(self) -> dict[Verdict, int]:
        """How many there are of each."""
        found: dict[Verdict, int] = dict.fromkeys(VERDICTS, 0)
        for judgement in self.judgements:
            found[judgement.verdict] += 1
        return found


def _references(case: Case) -> dict[str, Sequence[float | None]]:
    """The figures that a comparison may use: a lower bound tells nothing about the machine."""
    return {n: v for n, v in case.values.items() if n == OURS or n not in case.bounds}


def drift(new: Flight, base: Flight, kind: Kind) -> float | None:
    """What the machine did to peers and floor, over all cases of a kind; None: nobody knows."""
    before = {case.id: case for case in base.cases}
    found = []
    for case in new.cases:
        old = before.get(case.id)
        if case.kind != kind or old is None:
            continue
        for server, values in case.summary.items():
            standard = old.summary.get(server)
            usable = server != OURS and server not in (*case.bounds, *old.bounds)
            if usable and standard is not None and standard.median > 0 and values.median > 0:
                found.append(values.median / standard.median)
    return statistics.median(found) if found else None


def _compare(
    case: Case,
    values: Mapping[str, Sequence[float | None]],
    old: Case,
    elsewhere: float | None,
    exact: float,
) -> Change:
    return compare(
        values,
        _references(old),
        ours=OURS,
        drifts=case.kind in DRIFTING,
        tolerance=exact if case.kind == "instructions" else TOLERANCE,
        unknown=UNKNOWN.get(case.kind, UNKNOWN_NOISE),
        elsewhere=elsewhere,
        least=PAGES_MB if case.unit == "MB" else 0.0,
    )


def _fault(row: Row, old: Row | None, took_part: bool) -> str:
    """Why the row's figures say nothing; "" when they do."""
    if OURS in row.errors:
        return row.errors[OURS]
    if not row.checksums_agree:
        return "replies differ: " + ", ".join(
            f"{n} {' '.join(s)}" for n, s in row.checksums.items()
        )
    if old is not None and old.load == row.load:
        mine, before = row.checksums.get(OURS), old.checksums.get(OURS)
        if before and took_part and mine != before:
            now = " ".join(mine) if mine else "not there"
            return f"replies are {now}, in the baseline {' '.join(before)}"
    return ""


@dataclass(slots=True)
class _Judge:
    new: Flight
    base: Flight | None
    allowances: Sequence[Allowance]
    today: date
    used: set[int]

    def exact(self) -> float:
        """By how much instructions may differ."""
        still = self.base is not None and self.base.settings.unmoved and self.new.settings.unmoved
        return EXACT if still else MOVED

    def ahead_in_one(self) -> bool:
        """Whether other work of the machine had to wait in one of the flights, not in both."""
        return self.base is not None and self.base.settings.realtime != self.new.settings.realtime

    def excuse(self, case: str) -> Allowance | None:
        """The first line that excuses this case today."""
        for allowance in self.allowances:
            if allowance.matches(case) and not allowance.expired(self.today):
                self.used.add(allowance.line)
                return allowance
        return None

    def worse(self, case: Case, old: Case, elsewhere: float | None) -> tuple[Verdict, str]:
        """Of a figure that is worse: whether anything excuses it."""
        for number, rerun in enumerate(case.reruns, 1):
            if OURS in rerun and not _compare(case, rerun, old, elsewhere, self.exact()).worse:
                return "intermittent", f"not so when run again ({number} of {len(case.reruns)})"
        if (allowance := self.excuse(case.id)) is not None:
            return "allowed", f"until {allowance.until}: {allowance.reason}"
        return "regression", ""

    def case(self, case: Case, row: Row, drifts: Mapping[Kind, float | None]) -> Judgement | None:
        """The verdict of one case; None when our daemon was not meant to give it."""
        old = None
        old_row = None
        if self.base is not None:
            old = next((c for c in self.base.cases if c.id == case.id), None)
            old_row = next((r for r in self.base.rows if r.id == case.row), None)
        mine = case.summary.get(OURS)
        before = None if old is None else old.summary.get(OURS)

        def say(verdict: Verdict, note: str = "", change: Change | None = None) -> Judgement:
            return Judgement(
                case=case.id,
                row=case.row,
                what=case.what,
                unit=case.unit,
                verdict=verdict,
                ours=None if mine is None else mine.median,
                before=None if before is None else before.median,
                change=change,
                met=case.met,
                goal=case.goal,
                note=note,
            )

        took_part = OURS in self.new.servers and OURS not in row.not_run
        if fault := _fault(row, old_row, took_part):
            return say("blocked", fault)
        if mine is None:
            if before is None:
                return None
            if took_part:
                return say("blocked", "no figure, and the baseline has one")
            return say("untested", row.not_run.get(OURS, "not measured"))
        if old is None or before is None:
            return say("untested", "not in the baseline")
        if old_row is not None and old_row.load != row.load:
            return say("untested", "the load is another one than in the baseline")
        if case.kind in WAITING and self.ahead_in_one():
            return say("untested", "one of the two flights was realtime")
        elsewhere = drifts.get(case.kind)
        change = _compare(case, _references(case), old, elsewhere, self.exact())
        if change.worse:
            verdict, note = self.worse(case, old, elsewhere)
            return say(verdict, note, change)
        if OURS in case.bounds:
            return say("untested", "cut short by the time limit", change)
        if change.better:
            return say("improved", "" if case.met is not False else "goal not met", change)
        if case.met is False and old.met is False:
            return say("never reached", f"goal {case.goal}", change)
        lost = case.met is False and old.met is True
        return say("like baseline", f"goal {case.goal} was met" if lost else "", change)

    def about_allowances(self) -> list[str]:
        """Lines that expired, or that nothing needs."""
        said = []
        for allowance in self.allowances:
            where = f"allow list, line {allowance.line} ({allowance.pattern})"
            if allowance.expired(self.today):
                said.append(f"{where} expired on {allowance.until} and excuses nothing")
            elif not any(allowance.matches(case.id) for case in self.new.cases):
                said.append(f"{where} is stale: it matches no case of this flight")
            elif allowance.line not in self.used:
                said.append(f"{where} is stale: nothing that it matches needs an excuse")
        return said


def judge(new: Flight, base: Flight | None, allowances: Sequence[Allowance], today: date) -> Report:
    """The verdict of every case of our daemon in `new`; without a baseline all are untested."""
    judge_ = _Judge(new, base, allowances, today, set())
    drifts: dict[Kind, float | None] = {}
    if base is not None:
        drifts = {kind: drift(new, base, kind) for kind in DRIFTING}
    rows = {row.id: row for row in new.rows}
    judgements = [
        judgement
        for case in new.cases
        if (judgement := judge_.case(case, rows[case.row], drifts)) is not None
    ]
    judgements.sort(key=lambda judgement: VERDICTS.index(judgement.verdict))
    notes = judge_.about_allowances()
    if base is not None:
        notes += _beside(new, base)
    return Report(tuple(judgements), tuple(notes), drifts.get("cpu"))


def _beside(new: Flight, base: Flight) -> list[str]:
    """What makes two flights less alike."""
    said = []
    flown = {row.id for row in new.rows}
    missing = [row.id for row in base.rows if row.id not in flown]
    if missing:
        said.append(f"{len(missing)} rows of the baseline did not fly")
    for what, now, then in (
        ("processor", new.machine.cpu, base.machine.cpu),
        ("kernel", new.machine.kernel, base.machine.kernel),
        ("Python", new.software.python, base.software.python),
        ("realtime", new.settings.realtime, base.settings.realtime),
        ("sizes", new.settings.scale, base.settings.scale),
        ("addresses held still", new.settings.unmoved, base.settings.unmoved),
        (
            "client and server on one CPU",
            new.settings.server_cpu == new.settings.client_cpu,
            base.settings.server_cpu == base.settings.client_cpu,
        ),
    ):
        if now != then:
            said.append(f"{what}: {now}, in the baseline {then}")
    there = {case.id for case in new.cases}
    said += [
        f"{case.id} is in the baseline, and no figure of its row any more"
        for case in base.cases
        if case.row in flown and case.id not in there
    ]
    for row in new.rows:
        said += [f"{row.id}: {n} failed: {e}" for n, e in row.errors.items() if n != OURS]
    if new.settings.planted_percent:
        said.append(f"a slowdown of {new.settings.planted_percent} % was planted")
    if new.settings.background_load:
        said.append("a background load ran beside")
    return said
