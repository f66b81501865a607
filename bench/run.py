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
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench import machine, report
from bench.build import OUTPUT, Programs, build
from bench.rows import Row, Scale, create, rows
from bench.servers import (
    FLOOR,
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
# What a call of the load client may take beside what it measures: setting up, draining, resting.
SLACK_S = 180


class LoadError(Exception):
    """The load client found a wrong reply, or none."""


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


@dataclass(slots=True)
class Result:
    """All samples of one row, by server, and what went wrong."""

    row: Row
    samples: dict[str, list[dict[str, object]]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)
    """Servers that could not take part, and why."""

    def checksums(self) -> dict[str, list[object]]:
        """Checksums of the replies by server; every server must have the same one, once."""
        found: dict[str, list[object]] = {}
        for name, samples in self.samples.items():
            sums = {sample.get("checksum") for sample in samples} - {None}
            if sums:
                found[name] = sorted(sums, key=str)
        return found

    def agree(self) -> bool:
        """Whether all repeats on all servers were answered alike."""
        return len({str(sum_) for sums in self.checksums().values() for sum_ in sums}) <= 1


class Runner:
    """Knows the load client and puts one load after the other on the servers."""

    def __init__(self, programs: Programs, options: Options) -> None:
        self._programs = programs
        self._options = options

    def load(self, server: Server, args: Sequence[str]) -> dict[str, object]:
        """One call of the load client; raises LoadError when a reply was wrong."""
        limit = LIMIT_S[self._options.scale]
        command = [
            str(self._programs.load),
            *args,
            *("--socket", str(server.socket)),
            *("--pid", str(server.pid)),
            *("--cpu", str(self._options.client_cpu)),
            *("--limit", str(limit)),
            *(("--xen", str(server.xen)) if server.xen is not None else ()),
            *(("--floor",) if server.name == FLOOR else ()),
        ]
        try:
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, timeout=limit + SLACK_S
            )
        except subprocess.TimeoutExpired as error:
            raise LoadError(f"{args[0]}: still running after {error.timeout} s") from error
        try:
            sample = json.loads(done.stdout)
        except ValueError as error:
            raise LoadError(f"{args[0]}: {done.stderr.strip() or error}") from error
        if not isinstance(sample, dict) or "error" in sample or done.returncode != 0:
            raise LoadError(str(sample))
        return sample

    def _unmeasured(self, server: Server, args: Sequence[str]) -> None:
        if self.load(server, args)["truncated"]:
            raise LoadError(f"{args[0]}: not done in time")

    def prepare(self, server: Server, row: Row) -> None:
        """Bring the server's tree into the state that the row wants."""
        if server.name == FLOOR:
            return
        if row.leaves is not None and row.leaves != server.leaves:
            server.leaves = None
            self._unmeasured(server, ("rm", "--path", "/bench", "--ops", "1"))
            if row.leaves > 0:
                self._unmeasured(server, create(row.leaves))
            server.leaves = row.leaves
        for args in row.prepare:
            self._unmeasured(server, args)

    def sample(self, server: Server, row: Row) -> dict[str, object]:
        """One repeat: the load client's figures, and the server's memory around them."""
        if server.name != FLOOR:
            for args in row.before:
                self._unmeasured(server, args)
        if row.before or (row.load and row.load[0] in ("create", "rm")):
            server.leaves = None
        before = rss_bytes(server.pid)
        sample = self.load(server, row.load) if row.load else {}
        after = rss_bytes(server.pid)
        sample["rss_bytes"] = after
        sample["rss_growth_bytes"] = after - before
        sample["rss_above_start_bytes"] = after - server.rss_at_start
        leaves = sample.get("nodes")
        if isinstance(leaves, int):
            # The leaves, their directories, those above, and the two at the top.
            sample["tree_nodes"] = leaves + -(-leaves // 32) + -(-leaves // 1024) + 2
        return sample

    def row(self, row: Row, servers: Sequence[Server]) -> Result:
        """All repeats of a row, the servers taking turns."""
        result = Result(row)
        taking_part = [s for s in servers if row.floor or s.name != FLOOR]
        if row.rings:
            for server in taking_part:
                if server.xen is None:
                    result.not_run[server.name] = "not on a fake Xen of ours"
            taking_part = [s for s in taking_part if s.xen is not None]
        for turn in range(row.repeats or self._options.repeats):
            for server in taking_part:
                if server.name in result.errors:
                    continue
                try:
                    if turn == 0:
                        self.prepare(server, row)
                    result.samples.setdefault(server.name, []).append(self.sample(server, row))
                except (LoadError, ServerError, OSError) as error:
                    result.errors[server.name] = str(error)
        return result


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
        runner = Runner(programs, options)
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
