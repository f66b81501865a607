"""The servers under load: ours, the echo floor, Debian's two, and any that already runs.

Those that are started here run on a fake Xen of their own, all alike: a row over sockets and a
row over rings measure the same process.
"""

import contextlib
import os
import re
import resource
import shlex
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.xen import daemons
from xsd.client.errors import XenstoreError
from xsd.client.sync import Client

OURS = "ours"
FLOOR = "floor"
OTHER = "other"
"""A server that was given without a name."""
PEERS = ("C", "O", "O*")
"""C xenstored, oxenstored as Debian ships it, and oxenstored without access log."""


PATIENCE_S = 10.0
"""How long somebody else's server may take for an answer beside what is measured."""
FILES = 65536
"""Open files that a server is allowed, where the machine allows as many."""
RT_RUNTIME = Path("/proc/sys/kernel/sched_rt_runtime_us")


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
    start: Callable[[], daemons.Running] | None = None
    """How it was started, if it was."""
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


@contextlib.contextmanager
def unthrottled(limit: Path = RT_RUNTIME) -> Iterator[None]:
    """Lets what runs ahead of all ordinary processes do so without a pause.

    Else the kernel stops all of it for the last 50 ms of each second in which it did not rest, and
    every server seems to have kept somebody waiting so long. Where that cannot be changed, or there
    is no other processor for whoever wants to end it, it stays.
    """
    if os.cpu_count() == 1:
        yield
        return
    try:
        before = limit.read_text()
        limit.write_text("-1")
    except OSError:
        yield
        return
    try:
        yield
    finally:
        limit.write_text(before)


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
    """Resident memory of process `pid` in bytes, summed over its own mappings.

    What it shares with the hypervisor, here in files, is not counted: on a real Xen guests' pages
    are not either. Raises ServerError when the process has gone.
    """
    total, own = 0, False
    try:
        lines = Path(f"/proc/{pid}/smaps").read_text().splitlines()
    except OSError as failure:
        raise ServerError(f"no memory of process {pid}: {failure.strerror}") from None
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "Rss:":
            total += int(rest.split()[0]) * 1024 * own
        elif not word.endswith(":"):
            own = "s" not in rest[:4]
    return total


def _raise_file_limit() -> None:
    """Let what is started open as many files as it may: there are rows of 10 000 connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, FILES), hard))


def _start(name: str, start: Callable[[], daemons.Running]) -> Server:
    _raise_file_limit()
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
        start=start,
        xen=running.xen.directory,
    )


def has_ended(server: Server) -> bool:
    """Whether a server that we started is no more."""
    return server.running is not None and not server.running.is_alive()


def revive(server: Server) -> None:
    """Start a server that we started once more: empty, and neither pinned nor preferred.

    Raises ServerError.
    """
    assert server.running is not None
    assert server.start is not None
    server.running.stop()
    again = _start(server.name, server.start)
    server.pid, server.running, server.leaves = again.pid, again.running, None
    server.affinity.clear()
    server.policy.clear()


def start_ours(program: Path, directory: Path) -> Server:
    """Our daemon; `program` is the installed `xsd`. Raises ServerError when it does not start."""
    if not program.exists():
        raise ServerError(f"{OURS}: no program {program}")
    rundir = directory / "xsd"
    command = [str(program), "daemon", "--no-fork", "--rundir", str(rundir)]
    return _start(OURS, lambda: daemons.start(directory, command, socket_path=rundir / "socket"))


def start_floor(program: Path, directory: Path) -> Server:
    """The echo server that does nothing but input and output; raises ServerError."""
    listening = directory / "floor"
    command = [str(program), str(listening)]
    return _start(FLOOR, lambda: daemons.start(directory, command, socket_path=listening))


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


def named(text: str) -> tuple[str, str]:
    """What stands before "=", or "other", and what stands behind; raises ServerError."""
    found = re.match(r"(?:([A-Za-z0-9*_.-]+)=)?(.+)", text, re.DOTALL)
    name, rest = (found[1] or OTHER, found[2]) if found else ("", "")
    if not rest:
        raise ServerError(f"'{text}' names nothing")
    if name in (OURS, FLOOR, *PEERS):
        raise ServerError(f"the name '{name}' is taken")
    return name, rest


def start_other(daemon: str, directory: Path) -> Server:
    """Any other xenstored, given as [NAME=]COMMAND, which must stay in the foreground.

    XENSTORED_RUNDIR is in its environment, and in XENSTORED_PATH the socket "socket" therein; what
    it opens in /run/xenstored is led there too. It may be linked with Xen's libraries or open them
    at run time. Raises AbsentError when there is no such program, ServerError when it does not
    start.
    """
    name, text = named(daemon)
    command = shlex.split(text)
    program = shutil.which(command[0]) if command else None
    if program is None:
        raise AbsentError(f"{name}: there is no program '{text.split(None, 1)[0]}'")
    rundir = directory / "run"
    listening = rundir / "socket"
    rundir.mkdir(parents=True, exist_ok=True)
    more = {"XENSTORED_RUNDIR": str(rundir), "XENSTORED_PATH": str(listening)}

    def start(linked: bool) -> daemons.Running:
        words = [program, *command[1:]]
        return daemons.start(directory, words, socket_path=listening, linked=linked, more=more)

    try:
        return _start(name, lambda: start(linked=False))
    except ServerError:
        return _start(name, lambda: start(linked=True))


def _listener(socket_path: str) -> int:
    """Process id of who listens at a unix socket; raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(socket_path)
        size = struct.calcsize("3i")
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


def attach(address: str) -> Server:
    """A server that runs, given as [NAME=]SOCKET[:PID]; raises ServerError when it is not one.

    Without PID it is the process that listens. What is measured is done in /bench, which goes again
    at the end: a server that has one already is refused.
    """
    name, rest = named(address)
    path, colon, pid = rest.rpartition(":")
    if not (path and colon and pid.isdecimal()):
        path, pid = rest, ""
    if not Path(path).is_socket():
        raise ServerError(f"{name}: no socket {path}")
    try:
        number = int(pid) if pid else _listener(path)
    except OSError as error:
        raise ServerError(f"{name}: {path}: {error.strerror}") from error
    # 0: a process that this one may not see, as in another container.
    if number == 0 or not Path(f"/proc/{number}").is_dir():
        raise ServerError(f"{name}: no process {number} to measure; SOCKET:PID names one")
    try:
        with Client.connect(path, timeout=PATIENCE_S) as client:
            if client.exists("/bench"):
                raise ServerError(f"{name}: there is a /bench in it, which would be lost")
    except (XenstoreError, OSError) as error:
        raise ServerError(f"{name}: {path}: {error}") from error
    return Server(name=name, socket=Path(path), pid=number)


def stop(server: Server) -> None:
    """End a server that we started; leave any other as it was found, as far as it answers."""
    if server.running is None:
        release(server)
        with (
            contextlib.suppress(XenstoreError, OSError),
            Client.connect(str(server.socket), timeout=PATIENCE_S) as client,
        ):
            client.rm("/bench")
    else:
        server.running.stop()
