"""A flight and its report for people: tables that also stand in a log file."""

import os
import sys
from collections.abc import Sequence
from typing import IO

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.flight.record import FLOOR, OURS, Case, Flight
from bench.flight.verdict import Judgement, Report, Verdict
from bench.flight.words import cell, percent, short, verdict

# A line of a log has no end that anybody sees.
_WIDE = 200

STYLE: dict[Verdict, str] = {
    "blocked": "bold red",
    "regression": "red",
    "intermittent": "yellow",
    "allowed": "yellow",
    "improved": "green",
    "never reached": "magenta",
    "untested": "cyan",
    "like baseline": "",
}


def console(file: IO[str] | None = None) -> Console:
    """Writes to `file`, or stdout: as wide as the terminal, and wide where there is none."""
    stream = sys.stdout if file is None else file
    return Console(
        file=stream,
        width=None if stream.isatty() else int(os.environ.get("COLUMNS", _WIDE)),
        highlight=False,
    )


def _table(*columns: tuple[str, str]) -> Table:
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for head, justify in columns:
        made.add_column(head, justify="right" if justify == "r" else "left", no_wrap=justify != "w")
    return made


def where(flight: Flight) -> str:
    """In a line: when, what, on what."""
    machine, settings = flight.machine, flight.settings
    commit = (flight.software.commit or "unknown")[:10]
    pinned = f"server CPU {settings.server_cpu}, client CPU {settings.client_cpu}"
    return (
        f"{flight.started}, commit {commit}{' with changes' if flight.software.dirty else ''}, "
        f"{machine.cpu} x {machine.cores}, Linux {machine.kernel}, "
        f"Python {flight.software.python}; {pinned}{', realtime' if settings.realtime else ''}"
    )


def figures(flight: Flight) -> Table:
    """What was measured: ours, its spread, floor, the others, goal."""
    others = [name for name in flight.servers if name not in (OURS, FLOOR)]
    rows = {row.id: row for row in flight.rows}
    made = _table(
        *(("case", "l"), ("unit", "l"), (OURS, "r"), ("spread", "r"), (FLOOR, "r")),
        ("x floor", "r"),
        *((name, "r") for name in others),
        *(("goal", "l"), ("met", "r"), ("what", "w")),
    )
    for case in flight.cases:
        mine, floor = case.summary.get(OURS), case.summary.get(FLOOR)
        ratio = "-"
        if mine is not None and floor is not None and floor.median > 0:
            ratio = f"{mine.median / floor.median:.2f}"
        made.add_row(
            *(case.id, case.unit, _server(case, OURS, rows[case.row].not_run)),
            *("-" if mine is None else f"{mine.spread:.0%}", cell(floor), ratio),
            *(_server(case, name, rows[case.row].not_run) for name in others),
            *(case.goal or "-", verdict(case.met), escape(case.what)),
        )
    return made


def _server(case: Case, name: str, not_run: dict[str, str]) -> str:
    if name in not_run and name not in case.summary:
        return "not run"
    return cell(case.summary.get(name), name in case.bounds)


def remarks(flight: Flight) -> list[str]:
    """What the figures do not say: failures, what did not run, what was cut short."""
    said = [f"{n}: not run: {why}" for n, why in _reasons(flight)]
    for row in flight.rows:
        said += [f"{row.id}: {name} FAILED: {error}" for name, error in row.errors.items()]
        if not row.checksums_agree:
            said.append(f"{row.id}: REPLIES DIFFER: {row.checksums}")
        if row.cut_short:
            said.append(f"{row.id}: cut short by the time limit: {', '.join(row.cut_short)}")
    if flight.settings.scale == "tiny":
        said.append("Toy sizes: this shows that every row runs, the figures mean nothing.")
    return said


def _reasons(flight: Flight) -> list[tuple[str, str]]:
    """(server, why it did not run), with the rows where it was only some."""
    rows: dict[tuple[str, str], list[str]] = {}
    for row in flight.rows:
        for reason in row.not_run.items():
            rows.setdefault(reason, []).append(row.id)
    return [
        (name if len(some) == len(flight.rows) else f"{name} ({_some(some)})", why)
        for (name, why), some in sorted(rows.items())
    ]


def _some(names: Sequence[str]) -> str:
    return (
        ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:5])} and {len(names) - 5} more"
    )


def _judgement(judgement: Judgement) -> tuple[str, ...]:
    change = judgement.change
    style = STYLE[judgement.verdict]
    said = f"[{style}]{judgement.verdict}[/]" if style else judgement.verdict
    return (
        judgement.case,
        said,
        judgement.unit,
        "-" if judgement.ours is None else short(judgement.ours),
        "-" if judgement.before is None else short(judgement.before),
        percent(None if change is None else change.change),
        percent(None if change is None else change.drift),
        percent(None if change is None else change.corrected),
        "-" if change is None else f"{change.tolerance:.1%}",
        verdict(judgement.met),
        escape(judgement.note),
    )


def judgements(report: Report, everything: bool) -> Table:
    """The verdicts; without `everything` only those that say something."""
    made = _table(
        *(("case", "l"), ("verdict", "l"), ("unit", "l"), ("now", "r"), ("baseline", "r")),
        *(("change", "r"), ("drift", "r"), ("corrected", "r"), ("tolerance", "r")),
        *(("goal met", "r"), ("note", "w")),
    )
    for judgement in report.judgements:
        if everything or judgement.verdict != "like baseline" or judgement.note:
            made.add_row(*_judgement(judgement))
    return made


def summary(report: Report) -> str:
    """One line: how many of each verdict, and what the machine did."""
    counted = [f"{many} {verdict}" for verdict, many in report.count().items() if many]
    said = ", ".join(counted) or "nothing was judged"
    if report.drift is not None:
        said += f"; peers and floor {percent(report.drift - 1)} on this machine"
    closing = {0: "tolerable", 1: "REGRESSIONS", 2: "BROKEN"}[report.exit_code]
    return f"{closing}: {said}"


def show(
    out: Console, flight: Flight, base: Flight | None, report: Report, everything: bool
) -> None:
    """The whole report."""
    out.print(f"flight    {escape(where(flight))}", soft_wrap=True)
    if base is not None:
        out.print(f"baseline  {escape(where(base))}", soft_wrap=True)
    out.print()
    out.print(judgements(report, everything))
    for note in report.notes:
        out.print(f"note: {escape(note)}", soft_wrap=True)
    out.print(summary(report), soft_wrap=True)
