"""A flight: rows over servers, within a budget, with what looks bad run once more."""

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from pathlib import Path

from bench import engine, machine, schedule
from bench.build import Programs, build
from bench.flight import disturb, figures, record
from bench.flight.record import OURS, SCHEMA, Case, Flight, Settings
from bench.flight.verdict import judge
from bench.listing import AbsentError as NoToolError
from bench.options import BASELINE, LIMIT_S, QUICK, Options
from bench.progress import Teller
from bench.rows import Row, Scale
from bench.sampling import Conditions, LoadError, Result, Runner, SlowError
from bench.servers import (
    FLOOR,
    AbsentError,
    Server,
    ServerError,
    attach,
    has_ended,
    named,
    pin,
    prefer,
    revive,
    rss_bytes,
    start_floor,
    start_other,
    start_ours,
    start_peer,
    stop,
    unthrottled,
)

RERUNS = 2
# The engine in process has nobody beside it to take turns with.
IN_PROCESS = 5
# A row of which nothing is known, for each server: making ready, warming up, measuring.
GUESS_S = 0.7
# What a rerun of everything that might look bad may take, of the budget.
SPARE = 0.04


def choose(all_rows: Sequence[Row], scale: Scale, chosen: Sequence[str]) -> list[Row]:
    """The rows named: by id, else by the part before a '-' or by a pattern; without names all that
    fit the scale.

    Raises ValueError for a name that fits no row.
    """
    if not chosen:
        return [row for row in all_rows if scale == "full" or not row.extra]

    ids = {row.id for row in all_rows}

    def fits(row: Row, name: str) -> bool:
        if name in ids:
            return row.id == name
        return row.id.startswith(f"{name}-") or fnmatchcase(row.id, name)

    for name in chosen:
        if not any(fits(row, name) for row in all_rows):
            raise ValueError(f"no row '{name}'; --list shows them")
    return [row for row in all_rows if any(fits(row, name) for name in chosen)]


def wanted(all_rows: Sequence[Row], options: Options) -> list[Row]:
    """The rows of a flight; raises ValueError."""
    names = options.chosen
    if options.quick and not names:
        names = tuple(n for n in QUICK if any(fnmatchcase(row.id, n) for row in all_rows))
    return [row.finer(options.parts) for row in choose(all_rows, options.scale, names)]


def _in_memory() -> str | None:
    """Where ring pages can be files that no disk ever sees; None: wherever temporary files are."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None


def settle(server: Server, options: Options) -> None:
    """What a server that has just started is told and asked: its CPU, its priority, its memory."""
    pin(server, options.server_cpu)
    server.rss_at_start = rss_bytes(server.pid)
    if options.realtime:
        prefer(server)


@contextlib.contextmanager
def running(
    options: Options, programs: Programs, need_floor: bool
) -> Iterator[tuple[list[Server], dict[str, str]]]:
    """Our daemon, the floor and the others, pinned; those that we started end at the end.

    Besides, the peers that are not installed, with what is missing.
    """
    with (
        tempfile.TemporaryDirectory(prefix="xsd-bench-", dir=_in_memory()) as name,
        contextlib.ExitStack() as undo,
    ):
        servers: list[Server] = []
        absent: dict[str, str] = {}

        def keep(server: Server) -> None:
            undo.callback(stop, server)
            servers.append(server)

        if options.program is not None:
            program = options.program
            if options.plant_percent and program.exists():
                program = disturb.slowed(program, options.plant_percent)
            keep(start_ours(program, Path(name) / "ours"))
        if need_floor:
            keep(start_floor(programs.echo, Path(name) / "floor"))
        for number, peer in enumerate(options.peers):
            try:
                keep(start_peer(peer, Path(name) / f"peer{number}"))
            except AbsentError as error:
                absent[peer] = str(error)
        for number, command in enumerate(options.daemons):
            try:
                keep(start_other(command, Path(name) / f"other{number}"))
            except AbsentError as error:
                absent[named(command)[0]] = str(error)
        for address in options.sockets:
            keep(attach(address))
        for server in servers:
            settle(server, options)
        if options.realtime:
            undo.enter_context(unthrottled())
            # The load client inherits it.
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
            undo.callback(os.sched_setscheduler, 0, os.SCHED_OTHER, os.sched_param(0))
        yield servers, absent


@dataclass(slots=True)
class Flown:
    """A row that was measured."""

    result: Result
    took_s: dict[str, float] = field(default_factory=dict)
    """Seconds of one repeat, by server."""


@dataclass(slots=True)
class _Turns:
    """One row, turn by turn."""

    runner: Runner
    row: Row
    servers: Sequence[Server]
    teller: Teller
    most: int
    slice_s: float | None
    flown: Flown = field(init=False)

    def __post_init__(self) -> None:
        self.flown = Flown(Result(self.row))

    def _left_out(self, server: Server) -> bool:
        result = self.flown.result
        return server.name in result.errors or server.name in result.not_run

    def _measure(self, server: Server, turn: int) -> None:
        result = self.flown.result
        self.teller.server(server.name)
        try:
            if turn == 0:
                self.runner.prepare(server, self.row)
            begun = time.monotonic()
            sample = self.runner.sample(server, self.row)
            self.flown.took_s.setdefault(server.name, time.monotonic() - begun)
        except NoToolError as error:
            result.not_run[server.name] = str(error)
        except SlowError as error:
            result.not_run[server.name] = str(error)
            self._give_up(server)
        except (LoadError, ServerError, OSError) as error:
            result.errors[server.name] = str(error)
            self._give_up(server)
        else:
            sample[figures.TURN] = turn
            result.samples.setdefault(server.name, []).append(sample)

    def _give_up(self, server: Server) -> None:
        """What others were asked in vain they may still be at: the next row starts them anew."""
        if server.running is not None and server.name not in (OURS, FLOOR):
            with contextlib.suppress(subprocess.TimeoutExpired):  # it will be seen to be there
                server.running.stop()

    def _repeats(self) -> dict[str, int]:
        """How often each is measured, now that it is known what it takes."""
        costs = self.flown.took_s
        if self.slice_s is None:
            return dict.fromkeys(costs, self.most)
        return schedule.repeats(costs, self.slice_s, self.most)

    def fly(self) -> Flown:
        """All turns."""
        result = self.flown.result
        taking_part = [s for s in self.servers if self.row.floor or s.name != FLOOR]
        if self.row.rings:
            for server in taking_part:
                if server.xen is None:
                    result.not_run[server.name] = "not on a fake Xen of ours"
        for server in taking_part:
            if not self._left_out(server):
                self._measure(server, 0)
        repeats = self._repeats()
        turns = max(repeats.values(), default=1)
        for turn in range(1, turns):
            for server in taking_part:
                if not self._left_out(server) and schedule.takes_part(
                    turn, turns, repeats[server.name]
                ):
                    self._measure(server, turn)
        return self.flown


@dataclass(slots=True)
class Pilot:
    """Flies rows."""

    options: Options
    programs: Programs
    servers: Sequence[Server]
    absent: dict[str, str]
    teller: Teller
    interrupted: bool = False
    """Whether somebody wanted the flight to end early."""

    def row(self, row: Row, slice_s: float | None, late: bool = False) -> Flown:
        """One row, in so many seconds if possible; of ours and the floor only when it is late."""
        servers = [s for s in self.servers if not late or s.name in (OURS, FLOOR)]
        most = min(row.repeats or self.options.repeats, self.options.repeats) * row.parts
        if row.kind in ("engine", "count"):
            most = min(most, IN_PROCESS)
        runner = Runner(
            self.programs,
            Conditions(self.options.client_cpu, LIMIT_S[self.options.scale], most),
        )
        if row.kind in ("engine", "count"):
            begun = time.monotonic()
            flown = Flown(runner.row(row, servers, self.teller.server))
            done = len(flown.result.samples.get(OURS, ()))
            flown.took_s[OURS] = (time.monotonic() - begun) / max(1, done)
        else:
            lost = self.revive(servers, row.fresh)
            there = [server for server in servers if server.name not in lost]
            flown = _Turns(runner, row, there, self.teller, most, slice_s).fly()
            flown.result.not_run.update(self.absent | lost)
            for server in self.servers:
                if server not in servers:
                    flown.result.not_run[server.name] = "no time was left"
        return flown

    def revive(self, servers: Sequence[Server], fresh: bool) -> dict[str, str]:
        """Those of others that ended in the row before are started again, and for a row that wants
        them fresh all but the floor; who does not start, and why.

        Raises ServerError when that is ours.
        """
        lost: dict[str, str] = {}
        for server in servers:
            if server.start is None or server.name == FLOOR:
                continue
            if not fresh and (server.name == OURS or not has_ended(server)):
                continue
            try:
                revive(server)
                settle(server, self.options)
            except (ServerError, AbsentError, OSError, subprocess.TimeoutExpired) as error:
                if server.name == OURS:
                    raise ServerError(str(error)) from error
                lost[server.name] = f"it did not start again: {error}"
        return lost

    def rows(self, rows: Sequence[Row], least: Sequence[float]) -> list[Flown]:
        """All rows, or those before it was interrupted.

        `least` is what each takes when every server is measured once.
        """
        begun = time.monotonic()
        done: list[Flown] = []
        for place, row in enumerate(rows):
            slice_s = None
            left_s = sum(least[place:])
            if self.options.budget_s is not None:
                left_s = self.options.budget_s * (1 - SPARE) - (time.monotonic() - begun)
                slice_s = schedule.slice_s(left_s, least[place:])
            self.teller.row(row.id, len(rows) - place, left_s)
            late = self.options.budget_s is not None and left_s <= 0
            try:
                done.append(self.row(row, slice_s, late))
            except KeyboardInterrupt:
                self.interrupted = True
                break
        return done


def estimate(rows: Sequence[Row], servers: int, known: Flight | None) -> list[float]:
    """Seconds that each row takes when every server is measured once, by the baseline if it has
    the row, else by guessing."""
    before = {} if known is None else {row.id: row for row in known.rows}
    return [
        sum(before[row.id].took_s.values())
        if row.id in before and before[row.id].load == list(row.load)
        else GUESS_S * (1 if row.kind != "load" else servers)
        for row in rows
    ]


def known_flight() -> Flight | None:
    """The baseline, if there is one that can be read."""
    try:
        return record.load(BASELINE)
    except record.BrokenError:
        return None


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _assemble(
    options: Options,
    names: Sequence[str],
    rows: Sequence[Row],
    done: Sequence[Flown],
    before: tuple[str, record.Machine],
) -> Flight:
    rows = rows[: len(done)]
    results = [(row, flown.result) for row, flown in zip(rows, done, strict=True)]
    return Flight(
        schema=SCHEMA,
        started=before[0],
        finished=now(),
        software=machine.software(),
        machine=before[1],
        settings=Settings(
            scale=options.scale,
            repeats=options.repeats,
            server_cpu=options.server_cpu,
            client_cpu=options.client_cpu,
            realtime=options.realtime,
            unmoved=bool(engine.unmoved()),
            planted_percent=options.plant_percent,
            background_load=options.background_load,
        ),
        servers=list(names),
        rows=[
            figures.row(row, flown.result, flown.took_s)
            for row, flown in zip(rows, done, strict=True)
        ],
        cases=figures.cases(results),
    )


def _both(row: record.Row, again: record.Row) -> record.Row:
    """A row with what went wrong when it was run again: a wrong answer is one whenever it comes."""
    sums = {
        name: sorted({*row.checksums.get(name, ()), *again.checksums.get(name, ())})
        for name in row.checksums.keys() | again.checksums.keys()
    }
    agree = len({sum_ for found in sums.values() for sum_ in found}) <= 1
    errors = {name: f"when run again: {error}" for name, error in again.errors.items()}
    return replace(row, checksums=sums, checksums_agree=agree, errors=errors | row.errors)


def _again(flight: Flight, pilot: Pilot, rows: Sequence[Row], base: Flight) -> Flight:
    """Runs the rows again that look like a regression; what came out is kept beside."""
    for _ in range(RERUNS):
        report = judge(flight, base, (), date.today())
        bad = {j.row for j in report.judgements if j.verdict == "regression"}
        if not bad:
            break
        cases: list[Case] = []
        fresh: dict[str, Case] = {}
        found: dict[str, record.Row] = {}
        chosen = [row for row in rows if row.id in bad]
        for place, row in enumerate(chosen):
            pilot.teller.row(f"{row.id} again", len(chosen) - place, 0)
            flown = pilot.row(row, sum(flight.row(row.id).took_s.values()) * 5)
            fresh |= {case.id: case for case in figures.cases([(row, flown.result)])}
            again = figures.row(row, flown.result, flown.took_s)
            found[row.id] = _both(found.get(row.id, flight.row(row.id)), again)
        for case in flight.cases:
            if case.id in fresh and OURS in fresh[case.id].values:
                case = replace(case, reruns=[*case.reruns, fresh[case.id].values])
            cases.append(case)
        flight = replace(flight, cases=cases, rows=[found.get(row.id, row) for row in flight.rows])
    return flight


def fly(
    options: Options,
    rows: Sequence[Row],
    least: Sequence[float],
    teller: Teller,
    beside: Flight | None = None,
) -> Flight:
    """Starts the servers, flies the rows, and runs again what looks worse than `beside`.

    Raises ServerError when ours or the floor does not start, CalledProcessError when a program
    does not compile.
    """
    programs = build()
    before = now(), machine.machine(options.server_cpu)
    with contextlib.ExitStack() as around:
        if options.background_load:  # before the servers: it is not to inherit their priority
            around.enter_context(disturb.background_load(os.sched_getaffinity(0)))
        servers, absent = around.enter_context(
            running(options, programs, any(row.floor and row.kind == "load" for row in rows))
        )
        pilot = Pilot(options, programs, servers, absent, teller)
        done = pilot.rows(rows, least)
        names = [*(server.name for server in servers), *absent]
        flight = _assemble(options, names, rows, done, before)
        if beside is None or pilot.interrupted:
            return flight
        return _again(flight, pilot, rows, beside)
