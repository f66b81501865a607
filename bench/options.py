"""The command line of a flight."""

import argparse
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.build import OUTPUT, ROOT
from bench.rows import Scale
from bench.servers import PEERS, ServerError, named

RESULTS = ROOT / "bench" / "results"
BASELINE = RESULTS / "baseline.json"

MINUTES: Mapping[str, float] = {"normal": 38, "quick": 2.6}
"""Budgets; toy sizes and the full run have none."""
REPEATS: Mapping[Scale, int] = {"tiny": 1, "normal": 15, "full": 15}
"""At most; without a budget that is what is done."""
UNHURRIED = 5
LIMIT_S: Mapping[Scale, int] = {"tiny": 5, "normal": 20, "full": 120}

QUICK = (
    *("B1-read", "B1-write", "B2-read-16x16", "B2-write-16x16", "B2i-0", "B2i-100", "B4-10"),
    *("B5-50", "B5t-1e3-x16", "B5t-own", "B13-idle", "B15-read-16"),
    *("B15-write-16", "B15p-read-100x16", "B15t", "B16-1e3", "I-*"),
)
"""What a few minutes are best spent on."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to fly."""

    scale: Scale
    quick: bool
    chosen: tuple[str, ...]
    repeats: int
    parts: int
    """How many samples make one repeat, where a row can be divided."""
    budget_s: float | None
    sockets: tuple[str, ...]
    daemons: tuple[str, ...]
    peers: tuple[str, ...]
    """Debian's daemons that are to be started too."""
    program: Path | None
    """Our `xsd`; None: others only."""
    server_cpu: int
    client_cpu: int
    realtime: bool
    """Whether servers and client run ahead of everything else on the machine."""
    plant_percent: int
    """Share by which our daemon is slowed on purpose."""
    background_load: bool
    """Whether something else keeps the servers' CPU busy, on purpose."""
    rerun: Path | None
    """The baseline beside which rows that look like regressions are run again."""
    output: Path
    quiet: bool


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="CPU time per request of our daemon beside an echo floor and other xenstoreds.",
        epilog="Also: python -m bench report | baseline | table | beside | canary, with --help.",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--tiny", action="store_true", help="toy sizes: does it all still run?")
    size.add_argument("--quick", action="store_true", help="a few rows in three minutes")
    size.add_argument("--full", action="store_true", help="also the rows that take minutes")
    parser.add_argument("--rows", default="", help="only these, as B1,B2i-1000,B15*")
    parser.add_argument("--list", action="store_true", help="list the rows and end")
    parser.add_argument("--repeats", type=int, help="repeats of each row, whatever they take")
    parser.add_argument(
        "--fine",
        type=int,
        default=1,
        metavar="PARTS",
        help="so many short samples instead of each long one: finds smaller changes on a noisy"
        " machine, beside another flight that was as fine",
    )
    parser.add_argument("--minutes", type=float, help="what the flight may take")
    parser.add_argument(
        "--socket",
        action="append",
        default=[],
        metavar="[NAME=]PATH[:PID]",
        help="a xenstored that runs already and has no /bench, where it is measured; may be given "
        "several times",
    )
    parser.add_argument(
        "--daemon",
        action="append",
        default=[],
        metavar="[NAME=]COMMAND",
        help="a xenstored to start, which stays in the foreground and listens at $XENSTORED_PATH",
    )
    parser.add_argument(
        "--peers",
        nargs="?",
        const=",".join(PEERS),
        metavar="NAMES",
        help=f"Debian's daemons, started here: of {','.join(PEERS)}; all, but none with --tiny",
    )
    parser.add_argument("--no-peers", action="store_true", help="ours and the floor only")
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
        help="run ahead of other processes: latencies on a machine that has other work (root);"
        " meanwhile the kernel's limit on that, sched_rt_runtime_us, is lifted",
    )
    parser.add_argument(
        "--plant",
        type=int,
        default=0,
        metavar="PERCENT",
        help="slow our daemon by so much: would the report notice?",
    )
    parser.add_argument(
        "--background-load",
        action="store_true",
        help="keep the servers' CPU busy: would the report be deceived?",
    )
    parser.add_argument(
        "--rerun-regressions",
        type=Path,
        metavar="BASELINE",
        help="run what looks like a regression beside this flight again",
    )
    parser.add_argument(
        "--json",
        type=Path,
        help="written here (default: build/bench/last.json, and what was there is previous.json"
        " then; with --tiny tiny.json)",
    )
    return parser


def _peers(given: argparse.Namespace, scale: Scale) -> tuple[str, ...]:
    if given.no_peers or (given.peers is None and scale == "tiny"):
        return ()
    return PEERS if given.peers is None else tuple(n for n in given.peers.split(",") if n)


def _budget_s(given: argparse.Namespace, scale: Scale) -> float | None:
    if given.minutes is not None:
        return float(given.minutes) * 60
    if given.repeats is not None or scale != "normal":
        return None
    return MINUTES["quick" if given.quick else "normal"] * 60


def parse(argv: Sequence[str]) -> tuple[Options, bool]:
    """The command line; the second result says that only a list is wanted."""
    parser = _parser()
    given = parser.parse_args(argv)
    scale: Scale = "tiny" if given.tiny else "full" if given.full else "normal"
    cpus = os.sched_getaffinity(0)
    server_cpu = max(cpus) if given.cpu is None else given.cpu
    client_cpu = server_cpu if given.client_cpu is None else given.client_cpu
    peers = _peers(given, scale)
    budget_s = _budget_s(given, scale)
    repeats = given.repeats
    if repeats is None:
        repeats = UNHURRIED if budget_s is None and scale == "full" else REPEATS[scale]
    if not set(peers) <= set(PEERS):
        parser.error(f"--peers: there are {', '.join(PEERS)}")
    chosen = tuple(name for name in given.rows.split(",") if name)
    if given.rows and not chosen:
        parser.error("--rows names no row")
    if repeats < 1:
        parser.error("--repeats must be at least 1")
    if not 1 <= given.fine <= 100:
        parser.error("--fine takes 1 to 100 parts")
    if budget_s is not None and not (math.isfinite(budget_s) and budget_s > 0):
        parser.error("--minutes must be more than 0")
    if not {server_cpu, client_cpu} <= cpus:
        parser.error(f"--cpu, --client-cpu: this process may use the CPUs {sorted(cpus)} only")
    if not 0 <= given.plant <= 1000:
        parser.error("--plant takes 0 to 1000 percent")
    try:
        names = [*peers, *(named(text)[0] for text in (*given.daemon, *given.socket))]
    except ServerError as error:
        parser.error(str(error))
    if len(set(names)) < len(names):
        parser.error(f"two servers of one name among {', '.join(names)}; NAME=... gives another")
    output = given.json or OUTPUT / ("tiny.json" if scale == "tiny" else "last.json")
    options = Options(
        scale=scale,
        quick=given.quick,
        chosen=chosen,
        repeats=repeats,
        parts=given.fine,
        budget_s=budget_s,
        sockets=tuple(given.socket),
        daemons=tuple(given.daemon),
        peers=peers,
        program=None if given.without_ours else given.xsd,
        server_cpu=server_cpu,
        client_cpu=client_cpu,
        realtime=given.realtime,
        plant_percent=given.plant,
        background_load=given.background_load,
        rerun=given.rerun_regressions,
        output=output,
        quiet=scale == "tiny",
    )
    return options, given.list
