"""The servers under load: ours, the echo floor, Debian's two, and any that already runs.

Those that are started here run on a fake Xen of their own, all alike: a row over sockets and a
row over rings measure the same process.
"""

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.xen import daemons

OURS = "ours"
FLOOR = "floor"
PEERS = ("C", "O", "O*")
"""C xenstored, oxenstored as Debian ships it, and oxenstored without access log."""


class ServerError(Exception):
    """A server did not start, or an address of one is not understood."""


class AbsentError(Exception):
    """A server is not installed."""


@dataclass(slots=True)
class Server:
    """A process that answers on a unix socket; `running` is None when somebody else started it."""

    name: str
    socket: Path
    pid: int
    running: daemons.Running | None = None
    xen: Path | None = None
    """Directory of the fake Xen that it runs on; None: it has no rings that we could use."""
    leaves: int | None = None
    """Leaves of the tree that stands in it; None: unknown."""
    rss_at_start: int = 0
    affinity: dict[int, set[int]] = field(default_factory=dict)
    """CPUs of each thread before it was pinned."""
    policy: dict[int, int] = field(default_factory=dict)
    """How each thread was scheduled before it was preferred."""


def _threads(pid: int) -> list[int]:
    return [int(entry) for entry in os.listdir(f"/proc/{pid}/task")]


def pin(server: Server, cpu: int) -> None:
    """Let every thread of the server run on `cpu` only."""
    for thread in _threads(server.pid):
        server.affinity.setdefault(thread, os.sched_getaffinity(thread))
        os.sched_setaffinity(thread, {cpu})


def prefer(server: Server) -> None:
    """Let every thread of the server run ahead of all ordinary processes; raises OSError.

    Taking turns with the client: a server that never rests would keep it out otherwise.
    """
    for thread in _threads(server.pid):
        server.policy.setdefault(thread, os.sched_getscheduler(thread))
        os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(1))


def release(server: Server) -> None:
    """Undo `pin` and `prefer` for a server that goes on living."""
    for thread, cpus in server.affinity.items():
        try:
            os.sched_setaffinity(thread, cpus)
            if thread in server.policy:
                os.sched_setscheduler(thread, server.policy[thread], os.sched_param(0))
        except ProcessLookupError:
            continue


def rss_bytes(pid: int) -> int:
    """Resident memory of process `pid` in bytes, summed over its mappings (exact, not cached)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise ServerError(f"no Rss of process {pid}")


def _start(name: str, start: Callable[[], daemons.Running]) -> Server:
    try:
        running = start()
    except FileNotFoundError as error:
        raise AbsentError(f"{name}: {error}") from error
    except subprocess.CalledProcessError as error:
        raise ServerError(f"{name}: the fake Xen does not compile: {error}") from error
    except (OSError, EOFError, ValueError) as error:
        raise ServerError(f"{name}: {error}") from error
    return Server(
        name=name,
        socket=Path(running.socket),
        pid=running.pid,
        running=running,
        xen=running.xen.directory,
    )


def start_ours(program: Path, directory: Path) -> Server:
    """Our daemon; `program` is the installed `xsd`. Raises ServerError when it does not start."""
    if not program.exists():
        raise ServerError(f"{OURS}: no program {program}")
    rundir = directory / "xsd"
    command = [str(program), "daemon", "--no-fork", "--rundir", str(rundir)]
    return _start(OURS, lambda: daemons.start(directory, command, socket_path=rundir / "socket"))


def start_floor(program: Path, directory: Path) -> Server:
    """The echo server that does nothing but input and output; raises ServerError."""
    socket = directory / "floor"
    command = [str(program), str(socket)]
    return _start(FLOOR, lambda: daemons.start(directory, command, socket_path=socket))


def start_peer(name: str, directory: Path) -> Server:
    """One of `PEERS`, from Debian's packages.

    Raises AbsentError when they are not installed, ServerError when it does not start.
    """
    start: dict[str, Callable[[], daemons.Running]] = {
        "C": lambda: daemons.start_c(directory),
        "O": lambda: daemons.start_o(directory, access_log=True),
        "O*": lambda: daemons.start_o(directory),
    }
    return _start(name, start[name])


def attach(address: str) -> Server:
    """A running server given as NAME=SOCKET:PID; raises ServerError when it is not one."""
    name, equals, rest = address.partition("=")
    socket, colon, pid = rest.rpartition(":")
    if not (name and equals and socket and colon and pid.isdecimal()):
        raise ServerError(f"'{address}' is not of the form NAME=SOCKET:PID")
    if name in (OURS, FLOOR, *PEERS):
        raise ServerError(f"the name '{name}' is taken")
    if not Path(socket).is_socket():
        raise ServerError(f"{name}: no socket {socket}")
    if not Path(f"/proc/{pid}").is_dir():
        raise ServerError(f"{name}: no process {pid}")
    return Server(name=name, socket=Path(socket), pid=int(pid))


def stop(server: Server) -> None:
    """End a server that we started; leave any other as it was found."""
    if server.running is None:
        release(server)
    else:
        server.running.stop()
