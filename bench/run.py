"""Runs the rows over all servers, interleaved, and reports: `python -m bench`."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.flight import record, text
from bench.flight.record import FLOOR, OURS, BrokenError, Flight
from bench.fly import estimate, fly, known_flight, wanted
from bench.options import Options, parse
from bench.progress import clock, telling
from bench.rows import Row, rows
from bench.servers import ServerError, named

INTERRUPTED = 130
LAST = "last.json"


def _plan(options: Options, chosen: Sequence[Row], least: Sequence[float]) -> str:
    others = (named(text)[0] for text in (*options.daemons, *options.sockets))
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


def _check_output(path: Path) -> None:
    """Before anything is measured; raises OSError or ValueError if nothing could be written."""
    if path.exists() and not path.is_file():
        raise ValueError(f"--json {path}: it exists, and is no regular file")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent):
        pass


def _save(flight: Flight, path: Path) -> Path:
    """Where the flight has been written: elsewhere, if it cannot be where it should.

    What was the last flight is the previous one then: some rows may follow on half an hour of all.
    """
    try:
        if path.name == LAST and path.exists():
            path.replace(path.with_name("previous.json"))
        record.save(flight, path)
    except OSError as error:
        print(f"bench: {error}", file=sys.stderr)
        path = Path(tempfile.mkdtemp(prefix="xsd-flight-")) / LAST
        record.save(flight, path)
    return path


def run(options: Options) -> int:
    """Measure, print, write.

    1 when a server failed a row or two servers answered differently, 130 when it was interrupted.
    """
    _check_output(options.output)
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
    out.print(f"Written: {_save(flight, options.output)}", markup=False, soft_wrap=True)
    if len(flight.rows) < len(chosen):
        print(f"bench: interrupted after {len(flight.rows)} of {len(chosen)} rows", file=sys.stderr)
        return INTERRUPTED
    wrong = any(row.errors or not row.checksums_agree for row in flight.rows)
    return 1 if wrong else 0


def main(argv: Sequence[str]) -> int:
    """The command; exit code 0 all rows measured, 1 something failed, 2 wrong usage.

    130: it was interrupted, or told to terminate.
    """
    options, listing = parse(argv)
    if listing:
        for row in rows(options.scale):
            print(f"{row.id:<20} {'full only' if row.extra else '':<10} {row.what}")
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is ended then too
    try:
        return run(options)
    except (ServerError, BrokenError, ValueError, OSError, subprocess.CalledProcessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: interrupted, and nothing was written", file=sys.stderr)
        return INTERRUPTED
