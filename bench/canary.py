"""`python -m bench canary`: the report must be able to fail, and must not fail for nothing.

Flights of the same program: one to compare with, one more, one with a slowdown planted into our
daemon, and some with a load beside that slows everything. A report on each shows what it makes of
it. As root, all but the last run ahead of whatever else there is on the machine.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from rich import box
from rich.table import Table

from bench.build import OUTPUT
from bench.flight import record, text
from bench.flight.record import Flight
from bench.flight.verdict import Judgement, judge
from bench.flight.words import percent
from bench.fly import estimate, fly, wanted
from bench.options import Options, parse
from bench.progress import telling
from bench.rows import rows

ROWS = "B1-read,B1-write,B5t-own,B15-read-16"
PERCENT = 10
MINUTES = "2"
"""Of each flight."""
FINE = "20"
"""Noise lasts longer than a short sample: only many of them know the median well enough."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One flight."""

    name: str
    plant_percent: int = 0
    background_load: bool = False
    ahead: bool = True
    """Whether it may run ahead of everything else, if that is how all others run."""


def conditions(plant_percent: int) -> tuple[Condition, ...]:
    """What is flown beside the first flight."""
    return (
        Condition("quiet, once more"),
        Condition(f"{plant_percent} % planted into ours", plant_percent),
        Condition("load beside on all CPUs", background_load=True),
        Condition("load that takes its turn", background_load=True, ahead=False),
    )


def _fly(options: Options, condition: Condition, output: Path) -> Flight:
    options = replace(
        options,
        plant_percent=condition.plant_percent,
        background_load=condition.background_load,
        realtime=options.realtime and condition.ahead,
    )
    chosen = wanted(rows(options.scale), options)
    with telling(len(chosen), options.quiet) as teller:
        flight = fly(options, chosen, estimate(chosen, 2 + len(options.peers), None), teller)
    record.save(flight, output)
    return flight


def _judged(base: Flight, flight: Flight) -> list[Judgement]:
    """The verdicts of CPU figures: those are what a slowdown is planted into."""
    report = judge(flight, base, (), date.today())
    kinds = {case.id: case.kind for case in flight.cases}
    return [j for j in report.judgements if kinds[j.case] == "cpu"]


def main(argv: Sequence[str]) -> int:
    """Exit code 0 when the planted slowdown is found in most rows, and nothing where there is
    none; 1 otherwise. Options are those of a flight."""
    parser = argparse.ArgumentParser(prog="python -m bench canary", add_help=False)
    parser.add_argument("--percent", type=int, default=PERCENT)
    parser.add_argument("--out", type=Path, default=OUTPUT / "canary")
    given, rest = parser.parse_known_args(argv)
    if "--rows" not in rest:
        rest += ["--rows", ROWS]
    if not {"--repeats", "--minutes", "--tiny"} & set(rest):
        rest += ["--minutes", MINUTES]
    if not {"--fine", "--tiny"} & set(rest):
        rest += ["--fine", FINE]
    if "--realtime" not in rest and not os.geteuid():
        rest.append("--realtime")
    options, _ = parse(rest)
    base = _fly(options, Condition("baseline"), given.out / "baseline.json")
    shown = Table(box=box.SIMPLE_HEAD)
    for head in ("condition", "case", "verdict", "change", "drift", "corrected", "tolerance"):
        shown.add_column(head)
    wrong = []
    for number, condition in enumerate(conditions(given.percent), 1):
        flight = _fly(options, condition, given.out / f"flight{number}.json")
        judged = _judged(base, flight)
        found = [j for j in judged if j.verdict == "regression"]
        for judgement in sorted(judged, key=lambda j: j.case):
            change = judgement.change
            shown.add_row(
                condition.name,
                judgement.case,
                judgement.verdict,
                *(
                    ("-",) * 4
                    if change is None
                    else (
                        percent(change.change),
                        percent(change.drift),
                        percent(change.corrected),
                        f"{change.tolerance:.1%}",
                    )
                ),
            )
        if condition.plant_percent and 2 * len(found) <= len(judged):
            wrong.append(f"{condition.name}: found in {len(found)} of {len(judged)} cases only")
        if not condition.plant_percent and found:
            wrong.append(
                f"{condition.name}: {', '.join(j.case for j in found)} called a regression"
            )
    out = text.console()
    out.print(shown)
    for line in wrong:
        print(f"bench canary: {line}", file=sys.stderr)
    out.print("The report is right." if not wrong else "The report is WRONG.")
    return 1 if wrong else 0
