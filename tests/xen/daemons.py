"""Daemons on a fake Xen: Debian's xenstored and oxenstored, or any other.

running = start_c(directory)
client = Client.connect(running.socket)
guest = running.xen.create(5)
...
running.stop()
"""

from __future__ import annotations

import glob
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xsd.client.wire import Op

from .build import library, loader_path
from .hypervisor import Hypervisor, message

READY_SECONDS = 30.0
STOP_SECONDS = 20.0
KILL_SECONDS = 10.0
_PAUSE = 0.01

_SOCKET_PATH_MAX = 107

OXENSTORED = {
    "pid-file": "/var/run/xen/xenstored.pid",
    "persistent": "false",
    "xenstored-kva": "/proc/xen/xsd_kva",
    "xenstored-port": "/proc/xen/xsd_port",
}
"""Its configuration; all else has the values that it has of itself."""


def find(name: str) -> str:
    """Where one of Debian's Xen programs is; raises FileNotFoundError."""
    for found in sorted(glob.glob(f"/usr/lib/xen-*/bin/{name}")):
        if os.access(found, os.X_OK):
            return found
    raise FileNotFoundError(f"Debian's {name} is not installed")


@dataclass(slots=True)
class Running:
    """A daemon that answers; ``socket`` is where it listens, ``xen`` what it runs on."""

    process: subprocess.Popen[bytes]
    socket: str
    xen: Hypervisor

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        return self.process.pid

    @property
    def output(self) -> str:
        """What it has written to its standard output and error."""
        return _output(self.xen.directory).read_text(errors="replace")

    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def stop(self, sig: int = signal.SIGTERM) -> int:
        """Asks it to end, kills it if it does not, lets go of the hypervisor.

        Returns the exit status, negative for a signal.
        """
        status = _end(self.process, sig)
        self.xen.close()
        return status


def environ(
    directory: Path, *, manage: bool = False, fail: str = "", more: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment in which a program runs on the fake Xen of ``directory``.

    ``manage``: the library of newer hypervisors is there. ``fail``: "call:ERROR[:times[:after]]",
    separated by commas. A library that is preloaded already, as sanitizers want it, stays first.
    """
    omit = () if manage else ("libxenmanage.so.1",)
    links = loader_path(directory / ("lib-new" if manage else "lib-old"), omit)
    kept = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith(("XENSTORED_", "XSD_FAKEXEN_", "NOTIFY_SOCKET"))
    }
    preload = [part for part in (kept.get("LD_PRELOAD"), str(library())) if part]
    path = [part for part in (str(links), kept.get("LD_LIBRARY_PATH")) if part]
    ours = {
        "XSD_FAKEXEN_DIR": str(directory),
        "LD_PRELOAD": " ".join(preload),
        "LD_LIBRARY_PATH": ":".join(path),
    }
    if fail:
        ours["XSD_FAKEXEN_FAIL"] = fail
    return kept | ours | dict(more or {})


def start_c(directory: Path, *options: str, fail: str = "") -> Running:
    """Starts Debian's xenstored; raises FileNotFoundError when it is not installed."""
    command = [find("xenstored"), "-N", "--pid-file", "/run/xenstored/xenstored.pid", *options]
    return _start(directory, command, peer=True, fail=fail)


def start_o(
    directory: Path,
    *options: str,
    access_log: bool = False,
    settings: Mapping[str, str] | None = None,
    fail: str = "",
) -> Running:
    """Starts Debian's oxenstored; raises FileNotFoundError when it is not installed.

    ``settings`` go into its configuration file.
    """
    program = find("oxenstored")
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "oxenstored.conf"
    values = OXENSTORED | dict(settings or {})
    config.write_text("".join(f"{name} = {value}\n" for name, value in values.items()))
    command = [program, "--no-fork", "--config-file", str(config), *options]
    if not access_log:
        command.append("--no-access-log")
    return _start(directory, command, peer=True, fail=fail)


def start(
    directory: Path,
    command: Sequence[str],
    *,
    socket_path: Path | None = None,
    linked: bool = False,
    manage: bool = False,
    fail: str = "",
    more: Mapping[str, str] | None = None,
) -> Running:
    """Starts a daemon that opens Xen's libraries at run time, or, if ``linked``, brings them.

    It listens at ``socket_path``, else where /run/xenstored/socket leads to. ``manage``, ``fail``
    and ``more`` are as for :func:`environ`.
    """
    return _start(
        directory,
        command,
        peer=linked,
        socket_path=socket_path,
        manage=manage,
        fail=fail,
        more=more,
    )


def _start(
    directory: Path,
    command: Sequence[str],
    *,
    peer: bool = False,
    socket_path: Path | None = None,
    manage: bool = False,
    fail: str = "",
    more: Mapping[str, str] | None = None,
) -> Running:
    directory = directory.absolute()
    xen = Hypervisor(directory)
    listening = str(socket_path or directory / "run" / "socket")
    if len(os.fsencode(listening)) > _SOCKET_PATH_MAX:
        xen.close()
        raise ValueError(f"{listening} is too long for a socket's address")
    Path(listening).unlink(missing_ok=True)
    environment = environ(directory, manage=manage, fail=fail, more=more)
    if peer:  # linked with the real libraries, which are all but replaced by the preloaded one
        del environment["LD_LIBRARY_PATH"]
        environment["LD_PRELOAD"] = str(library())  # sanitizers are for what we built
    with open(_output(directory), "wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
    running = Running(process, listening, xen)
    try:
        _await_answer(running)
    except BaseException:
        running.stop()
        raise
    return running


def _await_answer(running: Running) -> None:
    """Until it answers a request; raises TimeoutError or EOFError with what it had to say."""
    deadline = time.monotonic() + READY_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        if not running.is_alive():
            raise EOFError(f"ended with {running.process.returncode}: {running.output}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(left)
            try:
                probe.connect(running.socket)
                probe.sendall(message(Op.DIRECTORY, b"/\0"))
                if probe.recv(1):
                    return
            except OSError:  # not there yet, or not listening yet
                pass
        time.sleep(_PAUSE)
    raise TimeoutError(f"no answer after {READY_SECONDS} s: {running.output}")


def _output(directory: Path) -> Path:
    return directory / "log" / "output"


def _end(process: subprocess.Popen[bytes], sig: int) -> int:
    if process.poll() is None:
        process.send_signal(sig)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(KILL_SECONDS)
    return process.returncode
