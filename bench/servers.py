"""The servers under load: ours, the echo floor, and any xenstored that already runs."""

import collections
import os
import subprocess
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

OURS = "ours"
FLOOR = "floor"
START_S = 30.0
STOP_S = 10.0


class ServerError(Exception):
    """A server did not start, or an address of one is not understood."""


@dataclass(slots=True)
class Server:
    """A process that answers on a unix socket; `process` is None when somebody else started it."""

    name: str
    socket: Path
    pid: int
    process: subprocess.Popen[str] | None = None
    leaves: int | None = None
    """Leaves of the tree that stands in it; None: unknown."""
    rss_at_start: int = 0
    affinity: dict[int, set[int]] = field(default_factory=dict)
    """CPUs of each thread before it was pinned."""


def _threads(pid: int) -> list[int]:
    return [int(entry) for entry in os.listdir(f"/proc/{pid}/task")]


def pin(server: Server, cpu: int) -> None:
    """Let every thread of the server run on `cpu` only."""
    for thread in _threads(server.pid):
        server.affinity.setdefault(thread, os.sched_getaffinity(thread))
        os.sched_setaffinity(thread, {cpu})


def unpin(server: Server) -> None:
    """Undo `pin` for a server that goes on living."""
    for thread, cpus in server.affinity.items():
        try:
            os.sched_setaffinity(thread, cpus)
        except ProcessLookupError:
            continue


def rss_bytes(pid: int) -> int:
    """Resident memory of process `pid` in bytes, summed over its mappings (exact, not cached)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise ServerError(f"no Rss of process {pid}")


def start(name: str, command: Iterable[str], socket: Path, ready: str) -> Server:
    """Start `command` and wait until its standard error has said `ready`.

    Raises ServerError, with the last lines of that output, when it ends or stays silent for 30 s.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("XENSTORED_")}
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
        )
    except OSError as error:
        raise ServerError(f"{name}: {error}") from error
    said = threading.Event()
    ended = threading.Event()
    last: collections.deque[str] = collections.deque(maxlen=30)

    def listen() -> None:
        # Goes on after `ready`, or a talkative server would block on a full pipe.
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                last.append(line)
                if ready in line:
                    said.set()
        ended.set()
        said.set()

    threading.Thread(target=listen, name=f"{name}-stderr", daemon=True).start()
    server = Server(name=name, socket=socket, pid=process.pid, process=process)
    if not said.wait(START_S) or ended.is_set():
        stop(server)
        raise ServerError(f"{name} did not say '{ready}':\n{''.join(last)}")
    return server


def start_ours(program: Path, rundir: Path) -> Server:
    """Our daemon in a directory of its own; `program` is the installed `xsd`."""
    rundir.mkdir()
    command = [str(program), "daemon", "--no-fork", "--no-xen", "--rundir", str(rundir)]
    return start(OURS, command, rundir / "socket", "xenstored is ready")


def start_floor(program: Path, socket: Path) -> Server:
    """The echo server that does nothing but input and output."""
    return start(FLOOR, [str(program), str(socket)], socket, "echo is ready")


def attach(address: str) -> Server:
    """A running server given as NAME=SOCKET:PID; raises ServerError when it is not one."""
    name, equals, rest = address.partition("=")
    socket, colon, pid = rest.rpartition(":")
    if not (name and equals and socket and colon and pid.isdecimal()):
        raise ServerError(f"'{address}' is not of the form NAME=SOCKET:PID")
    if name in (OURS, FLOOR):
        raise ServerError(f"the name '{name}' is taken")
    if not Path(socket).is_socket():
        raise ServerError(f"{name}: no socket {socket}")
    if not Path(f"/proc/{pid}").is_dir():
        raise ServerError(f"{name}: no process {pid}")
    return Server(name=name, socket=Path(socket), pid=int(pid))


def stop(server: Server) -> None:
    """End a server that we started; leave any other as it was found."""
    if server.process is None:
        unpin(server)
        return
    server.process.terminate()
    try:
        server.process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait(STOP_S)
