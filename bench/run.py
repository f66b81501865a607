"""Runs the rows over all servers, interleaved, and reports: `python -m bench`."""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import machine, report
from bench.build import OUTPUT, Programs, build
from bench.rows import Row, Scale, rows
from bench.sampling import Conditions, Result, Runner
from bench.servers import (
    PEERS,
    AbsentError,
    Server,
    ServerError,
    attach,
    pin,
    prefer,
    rss_bytes,
    start_floor,
    start_ours,
    start_peer,
    stop,
)

REPEATS: Mapping[Scale, int] = {"tiny": 1, "normal": 3, "full": 5}
LIMIT_S: Mapping[Scale, int] = {"tiny": 5, "normal": 20, "full": 120}


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    scale: Scale
    chosen: tuple[str, ...]
    repeats: int
    sockets: tuple[str, ...]
    peers: tuple[str, ...]
    """Debian's daemons that are to be started too."""
    program: Path | None
    """Our `xsd`; None: others only."""
    server_cpu: int
    client_cpu: int
    realtime: bool
    """Whether servers and client run ahead of everything else on the machine."""
    output: Path


def choose(all_rows: Sequence[Row], scale: Scale, chosen: Sequence[str]) -> list[Row]:
    """The rows named, by id or by the part before a '-'; without names all that fit the scale.

    Raises ValueError for a name that fits no row.
    """
    if not chosen:
        return [row for row in all_rows if scale == "full" or not row.extra]
    for name in chosen:
        if not any(row.id == name or row.id.startswith(f"{name}-") for row in all_rows):
            raise ValueError(f"no row '{name}'; --list shows them")
    return [
        row
        for row in all_rows
        if any(row.id == name or row.id.startswith(f"{name}-") for name in chosen)
    ]


def _in_memory() -> str | None:
    """Where ring pages can be files that no disk ever sees; None: wherever temporary files are."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None


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
            keep(start_ours(options.program, Path(name) / "ours"))
        if need_floor:
            keep(start_floor(programs.echo, Path(name) / "floor"))
        for number, peer in enumerate(options.peers):
            try:
                keep(start_peer(peer, Path(name) / f"peer{number}"))
            except AbsentError as error:
                absent[peer] = str(error)
        for address in options.sockets:
            keep(attach(address))
        for server in servers:
            pin(server, options.server_cpu)
            server.rss_at_start = rss_bytes(server.pid)
        if options.realtime:
            for server in servers:
                prefer(server)
            # The load client inherits it.
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
            undo.callback(os.sched_setscheduler, 0, os.SCHED_OTHER, os.sched_param(0))
        yield servers, absent


def parse(argv: Sequence[str]) -> tuple[Options, bool]:
    """The command line; the second result says that only a list is wanted."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="CPU time per request of our daemon beside an echo floor and other xenstoreds.",
    )
    parser.add_argument("--tiny", action="store_true", help="toy sizes: does it all still run?")
    parser.add_argument("--full", action="store_true", help="also the rows that take minutes")
    parser.add_argument("--rows", default="", help="only these, as B1,B2i-1000")
    parser.add_argument("--list", action="store_true", help="list the rows and end")
    parser.add_argument("--repeats", type=int, help="samples of each row")
    parser.add_argument(
        "--socket",
        action="append",
        default=[],
        metavar="NAME=PATH:PID",
        help="a xenstored that runs already; may be given several times",
    )
    parser.add_argument(
        "--peers",
        nargs="?",
        const=",".join(PEERS),
        default="",
        metavar="NAMES",
        help=f"also Debian's daemons, started here; all of {','.join(PEERS)} or those named",
    )
    parser.add_argument(
        "--xsd",
        type=Path,
        default=Path(sys.executable).parent / "xsd",
        help="our program (default: beside the Python that runs this)",
    )
    parser.add_argument("--without-ours", action="store_true", help="measure the others only")
    parser.add_argument("--cpu", type=int, help="CPU of all servers (default: the last)")
    parser.add_argument("--client-cpu", type=int, help="CPU of the client (default: the same)")
    parser.add_argument(
        "--realtime",
        action="store_true",
        help="run ahead of other processes: latencies on a machine that has other work (root)",
    )
    parser.add_argument("--json", type=Path, default=OUTPUT / "last.json", help="written here")
    given = parser.parse_args(argv)
    scale: Scale = "tiny" if given.tiny else "full" if given.full else "normal"
    cpus = os.sched_getaffinity(0)
    server_cpu = max(cpus) if given.cpu is None else given.cpu
    client_cpu = server_cpu if given.client_cpu is None else given.client_cpu
    repeats = REPEATS[scale] if given.repeats is None else given.repeats
    if given.tiny and given.full:
        parser.error("--tiny and --full exclude each other")
    peers = tuple(name for name in given.peers.split(",") if name)
    if not set(peers) <= set(PEERS):
        parser.error(f"--peers: there are {', '.join(PEERS)}")
    if repeats < 1:
        parser.error("--repeats must be at least 1")
    if not {server_cpu, client_cpu} <= cpus:
        parser.error(f"this process may use the CPUs {sorted(cpus)} only")
    options = Options(
        scale=scale,
        chosen=tuple(name for name in given.rows.split(",") if name),
        repeats=repeats,
        sockets=tuple(given.socket),
        peers=peers,
        program=None if given.without_ours else given.xsd,
        server_cpu=server_cpu,
        client_cpu=client_cpu,
        realtime=given.realtime,
        output=given.json,
    )
    return options, given.list


def _document(
    options: Options, servers: Sequence[str], results: Sequence[Result], made: Sequence[report.Line]
) -> dict[str, object]:
    return {
        **machine.describe(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "scale": options.scale,
        "repeats": options.repeats,
        "server_cpu": options.server_cpu,
        "client_cpu": options.client_cpu,
        "realtime": options.realtime,
        "servers": list(servers),
        "figures": [{**asdict(line), "goal": line.goal and line.goal.text()} for line in made],
        "rows": [
            {
                "id": result.row.id,
                "what": result.row.what,
                "load": result.row.load,
                "checksums": result.checksums(),
                "checksums_agree": result.agree(),
                "errors": result.errors,
                "not_run": result.not_run,
                "samples": result.samples,
            }
            for result in results
        ],
    }


def _explain(options: Options, results: Sequence[Result]) -> list[str]:
    where = (
        f"Server CPU time, medians of {options.repeats}; servers on CPU {options.server_cpu}, "
        f"client on CPU {options.client_cpu}"
    )
    if options.server_cpu == options.client_cpu:
        where += " (the same: no wake-up across CPUs is measured)"
    if options.realtime:
        where += "; ahead of all other processes"
    said = [where + "."]
    if options.scale == "tiny":
        said.append("Toy sizes: this shows that every row runs, the figures mean nothing.")
    missing = {f"{n}: not run: {why}" for r in results for n, why in r.not_run.items()}
    said += sorted(missing)
    for result in results:
        said += [f"{result.row.id}: {name} FAILED: {e}" for name, e in result.errors.items()]
        if not result.agree():
            said.append(f"{result.row.id}: REPLIES DIFFER: {result.checksums()}")
        cut = [n for n, s in result.samples.items() if any(one.get("truncated") for one in s)]
        if cut:
            said.append(f"{result.row.id}: cut short by the time limit: {', '.join(cut)}")
    return said


def _progress(row: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{row:<24}\r", end="", file=sys.stderr, flush=True)


def run(options: Options) -> int:
    """Measure, print, write; 1 when a server failed a row or two servers answered differently."""
    chosen = choose(rows(options.scale), options.scale, options.chosen)
    programs = build()
    with running(options, programs, any(row.floor for row in chosen)) as (
        servers,
        absent,
    ):
        names = [server.name for server in servers] + list(absent)
        for reason in absent.values():
            print(f"bench: not run: {reason}", file=sys.stderr)
        conditions = Conditions(options.client_cpu, LIMIT_S[options.scale], options.repeats)
        runner = Runner(programs, conditions)
        results = []
        for row in chosen:
            _progress(row.id)
            results.append(runner.row(row, servers))
            results[-1].not_run.update(absent)
    _progress("")
    made = report.lines([(r.row, r.samples, r.not_run) for r in results])
    print(report.table(made, names))
    print("\n".join(["", *_explain(options, results)]))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    document = _document(options, names, results, made)
    options.output.write_text(json.dumps(document, indent=1) + "\n")
    print(f"Written: {options.output}")
    wrong = any(result.errors or not result.agree() for result in results)
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
    except (ServerError, ValueError, subprocess.CalledProcessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
