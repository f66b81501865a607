"""A tool that lists a whole tree: what it costs the server, and how long a person waits."""

import hashlib
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.servers import Server, ServerError

LIMIT_S = 120
XENSTORE_LS = "xenstore-ls"
OURS = "xsd"


class AbsentError(Exception):
    """The tool is not installed."""


def _command(tool: str, path: str) -> list[str]:
    if tool == OURS:
        return [str(Path(sys.executable).parent / "xsd"), "ls", "-fp", path]
    found = shutil.which(tool)
    if found is None:
        raise AbsentError(f"{tool} is not installed (Debian's package xenstore-utils)")
    return [found, "-fp", path]


def cpu_ns(pid: int) -> int:
    """CPU time of all threads of process `pid` so far, those that ended included."""
    # The kernel's way to name the clock of another process: clock_getcpuclockid(3).
    return time.clock_gettime_ns(~pid << 3 | 2)


def measure(server: Server, args: Sequence[str], cpu: int) -> dict[str, object]:
    """One run of the tool `args[0]` over the path `args[1]`, on processor `cpu`.

    The checksum is over the lines, sorted: the order of children is the server's choice. Raises
    AbsentError, and ServerError when the tool fails.
    """
    command = _command(args[0], args[1])
    environment = {name: text for name, text in os.environ.items() if name[:9] != "XENSTORED"}
    environment["XENSTORED_PATH"] = str(server.socket)
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})  # the tool inherits it
    try:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        server_ns, begun = cpu_ns(server.pid), time.monotonic_ns()
        done = subprocess.run(
            command, check=False, capture_output=True, env=environment, timeout=LIMIT_S
        )
        wall_ns, server_ns = time.monotonic_ns() - begun, cpu_ns(server.pid) - server_ns
        since = resource.getrusage(resource.RUSAGE_CHILDREN)
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"{args[0]}: still running after {LIMIT_S} s") from error
    finally:
        os.sched_setaffinity(0, mine)
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        raise ServerError(f"{args[0]}: {done.returncode}: {done.stderr.decode()!r}")
    client = since.ru_utime + since.ru_stime - used.ru_utime - used.ru_stime
    return {
        "tool": args[0],
        "ops": 1,
        "lines": len(lines),
        "wall_ns": wall_ns,
        "client_cpu_ns": round(client * 1e9),
        "work_ns": round(client * 1e9) + server_ns,
        "server_cpu_ns": server_ns,
        "checksum": hashlib.sha256(b"\n".join(sorted(lines))).hexdigest()[:16],
    }
