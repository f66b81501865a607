"""`python -m bench baseline FLIGHT`, `table` and `beside FLIGHT...`: what the documents show."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.build import ROOT
from bench.flight import record, table
from bench.flight.record import OURS, BrokenError, Flight
from bench.options import BASELINE, RESULTS

PICTURES = ("row-B2-us-req", "growth-B2i", "growth-B4", "growth-B15i", "latency-B15-write-256")
"""Plots of the baseline that are kept beside it, as far as it has them."""


def _tables(flight: Flight) -> None:
    for path, made in table.documents(flight, ROOT).items():
        path.write_text(made)


def _pictures(flight: Flight) -> None:
    from bench.flight import plots

    scratch = ROOT / "build" / "bench" / "plots"
    scratch.mkdir(parents=True, exist_ok=True)
    for path in plots.write_all([flight], None, scratch, ["svg"]):
        if path.stem in PICTURES:
            path.replace(RESULTS / path.name)


def _check(flight: Flight) -> None:
    """Raises BrokenError for a flight that nothing should be compared with."""
    settings = flight.settings
    if settings.scale == "tiny" or settings.planted_percent or settings.background_load:
        raise BrokenError("toy sizes, a planted slowdown or a load beside make no baseline")
    for row in flight.rows:
        if OURS in row.errors or not row.checksums_agree:
            why = row.errors.get(OURS, "replies differ")
            raise BrokenError(f"{row.id} failed, which makes no baseline: {why}")


def baseline(argv: Sequence[str]) -> int:
    """Makes a flight the baseline, and the tables and pictures of the documents from it.

    Of several, which must be alike, a row is that of the last that has it.
    """
    parser = argparse.ArgumentParser(prog="python -m bench baseline", description=baseline.__doc__)
    parser.add_argument("flights", type=Path, nargs="+", metavar="FLIGHT")
    given = parser.parse_args(argv)
    try:
        flight = record.baseline(record.together([record.load(path) for path in given.flights]))
        _check(flight)
        record.save(flight, BASELINE)
        _tables(flight)
        _pictures(flight)
    except BrokenError as error:
        print(f"bench baseline: {error}", file=sys.stderr)
        return 2
    return 0


def tables(argv: Sequence[str]) -> int:
    """Writes the tables of the documents anew, from the baseline."""
    parser = argparse.ArgumentParser(prog="python -m bench table", description=tables.__doc__)
    parser.parse_args(argv)
    try:
        _tables(record.load(BASELINE))
    except BrokenError as error:
        print(f"bench table: {error}", file=sys.stderr)
        return 2
    return 0


def beside(argv: Sequence[str]) -> int:
    """Prints the main figures of several flights in Markdown: ours, floor and best peer."""
    parser = argparse.ArgumentParser(prog="python -m bench beside", description=beside.__doc__)
    parser.add_argument("flights", type=Path, nargs="+", metavar="FLIGHT")
    given = parser.parse_args(argv)
    try:
        print(table.beside([record.load(path) for path in given.flights]), end="")
    except BrokenError as error:
        print(f"bench beside: {error}", file=sys.stderr)
        return 2
    return 0
