"""The daemon as a process: going to the background, readiness, descriptor limit, signals.

The order for a composition root::

    process.open_standard_files()
    readiness = process.daemonise() if settings.daemon.fork else process.Foreground()
    try:
        held = pidfile.acquire(...)          # after the fork: the lock is the process's own
        ...                                  # listen, load, everything that can fail
    except pidfile.AnotherRunsError as other:
        readiness.unneeded(str(other))       # what was asked for is there: exit 0
    except Exception as failure:
        readiness.failed(str(failure))       # the command that started us prints it, exit 1
    process.notify(process.ready_state())    # systemd
    readiness.ready()                        # the command that started us exits 0

Nothing here changes the process's OOM score: whoever starts the daemon does that.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn, Protocol

_UMASK = 0o022

_STANDARD_FILES = (0, 1, 2)

_READY = b"ready"
_UNNEEDED = b"unneeded"
_MAX_MESSAGE = 65536


class Readiness(Protocol):
    """How the one who started the daemon learns what became of it."""

    def ready(self) -> None:
        """It serves; standard files may be closed now."""

    def unneeded(self, message: str) -> NoReturn:
        """Another one serves already; ends this process with status 0."""

    def failed(self, message: str) -> NoReturn:
        """It cannot serve; ends this process with status 1."""


class Foreground:
    """No fork: nobody waits, standard files stay open."""

    def ready(self) -> None:
        """Does nothing."""

    def unneeded(self, message: str) -> NoReturn:
        """Prints the message and raises SystemExit(0)."""
        print(f"xsd: {message}", file=sys.stderr, flush=True)
        raise SystemExit(0)

    def failed(self, message: str) -> NoReturn:
        """Prints the message and raises SystemExit(1)."""
        print(f"xsd: {message}", file=sys.stderr, flush=True)
        raise SystemExit(1)


class Background:
    """The end of a pipe to the parent, which waits until we are ready or gone."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def ready(self) -> None:
        """Turns the standard files to /dev/null and lets the parent exit with status 0."""
        _flush()
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for number in _STANDARD_FILES:
            os.dup2(null, number)
        if null not in _STANDARD_FILES:
            os.close(null)
        self._tell(_READY)

    def unneeded(self, message: str) -> NoReturn:
        """Lets the parent exit with status 0 and without a word; raises SystemExit(0).

        Start scripts, which are what starts a daemon in this way, may start one twice.
        """
        self._tell(_UNNEEDED)
        raise SystemExit(0)

    def failed(self, message: str) -> NoReturn:
        """Lets the parent print the message and exit with status 1; raises SystemExit(1)."""
        self._tell(message.encode(errors="replace") or b"failed")
        raise SystemExit(1)

    def _tell(self, text: bytes) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            # The parent may have been killed; then nobody wants to know.
            with contextlib.suppress(OSError):
                os.write(fd, text[:_MAX_MESSAGE])
            os.close(fd)


def open_standard_files() -> None:
    """Opens those of the standard files that are closed, to /dev/null.

    Otherwise the next socket would get their number, and what goes to stderr would go to a
    client.  Comes first of all.
    """
    while (null := os.open(os.devnull, os.O_RDWR)) in _STANDARD_FILES:
        pass
    os.close(null)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # None if the file was closed when Python started.
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()


def daemonise() -> Background:
    """Goes on in a new session in the background; returns there only.

    The calling process stays until the daemon says that it is ready or not needed (exit 0), or
    that it failed or ends without a word (exit 1, with the reason on stderr).  In the daemon the
    working directory is ``/`` and the umask 022, and the standard files are open until it is
    ready.  Has to run before any thread or event loop exists.
    """
    open_standard_files()
    reading, writing = os.pipe2(os.O_CLOEXEC)
    _flush()
    child = os.fork()
    if child:
        os.close(writing)
        _wait_for_daemon(reading, child)
    os.close(reading)
    try:
        os.setsid()
        # No leader of the session, so no terminal can become the controlling one.
        if os.fork():
            os._exit(0)
        os.chdir("/")
        os.umask(_UMASK)
    except OSError as failure:
        Background(writing).failed(f"cannot go to the background: {failure.strerror}")
    return Background(writing)


def _wait_for_daemon(reading: int, child: int) -> NoReturn:
    said = b""
    # Ends at the latest when the daemon ends, for it has the only other end.
    while part := os.read(reading, _MAX_MESSAGE):
        said += part
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0)
    if said in (_READY, _UNNEEDED):
        os._exit(0)
    text = said or b"the daemon ended before it was ready"
    os.write(2, b"xsd: " + text + b"\n")
    os._exit(1)


def notify(state: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Sends ``state`` to the service manager that $NOTIFY_SOCKET names.

    False if there is none or it does not listen; that is never a reason to stop.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    flags = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with socket.socket(socket.AF_UNIX, flags) as messenger:
        try:
            messenger.connect(address)
            messenger.send(state.encode())
        except OSError:
            return False
    return True


def ready_state() -> str:
    """What to :func:`notify` when ready; the pid is ours, not that of who was started."""
    return f"READY=1\nMAINPID={os.getpid()}"


STOPPING = "STOPPING=1"


def raise_descriptor_limit(nr_open_file: str = "/proc/sys/fs/nr_open") -> int:
    """Raises the limit of open files as far as permitted; returns the one in force.

    That is the system's maximum where we may raise the hard limit, else the hard limit.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wishes = [hard]
    with contextlib.suppress(OSError, ValueError), open(nr_open_file) as stream:
        wishes.append(int(stream.read()))
    for wish in sorted(wishes, reverse=True):
        # ValueError is what Python makes of EPERM.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wish, wish))
            break
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class SignalLoop(Protocol):
    """The part of an event loop that takes signals."""

    def add_signal_handler(self, sig: int, callback: Callable[..., object]) -> None:
        """Calls ``callback`` from the loop whenever the signal arrives."""

    def call_soon(self, callback: Callable[..., object], *args: object) -> object:
        """Calls ``callback`` when the loop runs."""


def install_signals(
    loop: SignalLoop,
    *,
    stop: Callable[[], object],
    reopen: Callable[[], object],
    dump: Callable[[], object] | None = None,
) -> None:
    """Directs signals into the loop.

    SIGTERM and SIGINT stop, SIGHUP reopens the logs, SIGUSR1 dumps the tree (ignored without
    ``dump``), SIGPIPE is ignored: a client that has gone is an error of its own connection.
    A signal that comes before the loop runs waits until it does.
    """
    # uvloop forgets a signal that arrives between add_signal_handler and the loop's start.
    held = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, held)
    loop.call_soon(signal.pthread_sigmask, signal.SIG_UNBLOCK, held)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    loop.add_signal_handler(signal.SIGTERM, stop)
    loop.add_signal_handler(signal.SIGINT, stop)
    loop.add_signal_handler(signal.SIGHUP, reopen)
    if dump is None:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    else:
        loop.add_signal_handler(signal.SIGUSR1, dump)
