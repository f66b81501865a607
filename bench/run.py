"""Runs the rows over all servers, interleaved, and reports: `python -m bench`."""

import subprocess
import sys
from collections.abc import Sequence

from bench.flight import record, text
from bench.flight.record import FLOOR, OURS, BrokenError
from bench.fly import estimate, fly, known_flight, name_of, wanted
from bench.options import Options, parse
from bench.progress import clock, telling
from bench.rows import Row, rows
from bench.servers import ServerError


def _plan(options: Options, chosen: Sequence[Row], least: Sequence[float]) -> str:
    others = map(name_of, (*options.daemons, *options.sockets))
    names = [OURS, FLOOR, *options.peers, *others]
    if options.program is None:
        names.remove(OURS)
    once = f"every server measured once should take {clock(sum(least))}"
    said = f"{len(chosen)} rows over {', '.join(names)}; {once}"
    if options.budget_s is None:
        return f"{said}; {options.repeats} repeats"
    said += f"; repeats until {clock(options.budget_s)}, {options.repeats} at most"
    if sum(least) > options.budget_s:
        said += ". That will not be enough"
    return said


def _explain(options: Options) -> str:
    said = f"Medians; servers on CPU {options.server_cpu}, client on CPU {options.client_cpu}"
    if options.server_cpu == options.client_cpu:
        said += " (the same: no wake-up across CPUs is measured)"
    return f"{said}{'; ahead of all other processes' if options.realtime else ''}."


def run(options: Options) -> int:
    """Measure, print, write; 1 when a server failed a row or two servers answered differently."""
    chosen = wanted(rows(options.scale), options)
    beside = None if options.rerun is None else record.load(options.rerun)
    servers = 2 + len(options.peers) + len(options.daemons) + len(options.sockets)
    least = estimate(chosen, servers, known_flight() if options.scale == "normal" else None)
    if not options.quiet:
        print(_plan(options, chosen, least), file=sys.stderr)
    with telling(len(chosen), options.quiet) as teller:
        flight = fly(options, chosen, least, teller, beside)
    out = text.console()
    out.print(text.figures(flight))
    out.print()
    for line in (_explain(options), *text.remarks(flight)):
        out.print(line, markup=False, soft_wrap=True)
    record.save(flight, options.output)
    out.print(f"Written: {options.output}", markup=False, soft_wrap=True)
    wrong = any(row.errors or not row.checksums_agree for row in flight.rows)
    return 1 if wrong else 0


def main(argv: Sequence[str]) -> int:
    """The command; exit code 0 all rows measured, 1 something failed, 2 wrong usage."""
    options, listing = parse(argv)
    if listing:
        for row in rows(options.scale):
            print(f"{row.id:<20} {'full only' if row.extra else '':<10} {row.what}")
        return 0
    try:
        return run(options)
    except (ServerError, BrokenError, ValueError, subprocess.CalledProcessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
