"""`python -m bench report`: what a flight says beside a baseline, for people and for machines."""

import argparse
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from bench.flight import allow, machines, record, text
from bench.flight.record import BrokenError, Flight
from bench.flight.verdict import BROKEN, Report, judge
from bench.options import BASELINE, RESULTS

ALLOWED = RESULTS / "allow.txt"
FORMATS = ("svg", "png", "pdf")


def _formats(text: str) -> list[str]:
    """Formats of plots, from a list with commas; raises ArgumentTypeError for any other."""
    given = text.split(",")
    for one in given:
        if one not in FORMATS:
            raise argparse.ArgumentTypeError(f"{one!r}: not one of {', '.join(FORMATS)}")
    return given


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench report",
        description="Exit code 0: tolerable, 1: regressions, 2: broken.",
    )
    parser.add_argument(
        "flights", nargs="+", type=Path, metavar="FLIGHT", help="the last one is judged"
    )
    parser.add_argument(
        "--baseline", type=Path, default=BASELINE, help="beside this flight (default: %(default)s)"
    )
    parser.add_argument("--allow", type=Path, help="the allow list (default: beside the baseline)")
    parser.add_argument("--out", type=Path, help="also JSON, JUnit and plots, into this directory")
    parser.add_argument("--no-plots", action="store_true", help="without plots")
    parser.add_argument(
        "--plots-in",
        type=_formats,
        default="svg,png",
        metavar="FORMATS",
        help="formats of the plots (default: %(default)s)",
    )
    parser.add_argument("--all", action="store_true", help="also list what is like the baseline")
    parser.add_argument("--today", type=date.fromisoformat, default=date.today(), help="YYYY-MM-DD")
    return parser


def _write(
    given: argparse.Namespace, flights: Sequence[Flight], base: Flight | None, report: Report
) -> list[Path]:
    out: Path = given.out
    out.mkdir(parents=True, exist_ok=True)
    new = flights[-1]
    machines.write_json(out / "report.json", new, base, report)
    machines.write_junit(out / "report.xml", new, report)
    with (out / "report.txt").open("w") as file:
        text.show(text.console(file), new, base, report, everything=True)
    written = [out / "report.json", out / "report.xml", out / "report.txt"]
    if not given.no_plots:
        # It takes a second to load, and only plots need it.
        from bench.flight import plots

        written += plots.write_all(flights, base, out, given.plots_in)
    return written


def main(argv: Sequence[str]) -> int:
    """The command; its exit code is the report's, 2 also when something cannot be read."""
    given = _parser().parse_args(argv)
    try:
        flights = [record.load(path) for path in given.flights]
        base = record.load(given.baseline)
        listed = given.allow or (ALLOWED if ALLOWED.exists() else None)
        allowances = [] if listed is None else allow.load(listed)
        report = judge(flights[-1], base, allowances, given.today)
        out = text.console()
        text.show(out, flights[-1], base, report, given.all)
        if given.out is not None:
            written = _write(given, flights, base, report)
            out.print(f"Written: {len(written)} files in {given.out}", markup=False)
    except (BrokenError, OSError) as error:
        print(f"bench report: {error}", file=sys.stderr)
        return BROKEN
    return report.exit_code
