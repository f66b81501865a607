"""``xsd demo``: a daemon in a directory of its own, and a short tour of what it does.

Everything shown is really done, over the socket, by ordinary clients. The daemon then goes on
serving until it is interrupted; afterwards nothing of it is left.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from xsd.client import requests
from xsd.client.errors import ConnectError, ProtocolError, XenstoreError
from xsd.client.sync import Client, Transaction
from xsd.client.wire import Request

from .tree import line
from .walk import walk

USAGE = "Usage: xsd demo [-h] [--once]"
HELP = f"""{USAGE}

Start a daemon in a private directory, show what it does, and serve until interrupted.
  --once      end after the show
  -h, --help  show this and exit
"""

READY = b"xenstored is ready"
READY_SECONDS = 30.0
REPLY_SECONDS = 30.0
STOP_SECONDS = 20.0

#: What a socket's address has room for, less what the daemon calls its socket.
_DIRECTORY_MAX = 107 - len("/socket")
#: Long enough that the clock of the scheduler can be believed, short enough not to wait for.
BURST = 20_000
WINDOW = 32
_WIDTH = 72

GUEST = "/local/domain/7"
_TREE: tuple[tuple[str, bytes], ...] = (
    (f"{GUEST}/name", b"guest"),
    (f"{GUEST}/memory/target", b"524288"),
    (f"{GUEST}/device/vif/0/backend", b"/local/domain/0/backend/vif/7/0"),
    (f"{GUEST}/device/vif/0/mac", b"00:16:3e:00:00:07"),
    (f"{GUEST}/device/vif/0/state", b"4"),
)

# `xsd` may be run from its sources or installed: the daemon is to be the same.
_DAEMON = (
    "import sys; sys.path.insert(0, sys.argv[1]); from xsd.cli.main import main; "
    "sys.exit(main(['xsd', 'daemon', *sys.argv[2:]]))"
)
_PACKAGES = Path(__file__).parents[2]


class DaemonError(Exception):
    """The daemon did not start, or ended before it was told to; says what it said."""


def run(words: Sequence[str]) -> int:
    """Run the tour; returns the exit status, 0 also when interrupted."""
    once = False
    for word in words:
        if word in ("-h", "--help"):
            sys.stdout.write(HELP)
            return 0
        if word != "--once":
            sys.stderr.write(f"xsd: demo takes --once, got '{word}'\n{USAGE}\n")
            return 1
        once = True
    try:
        with interruption() as stopped, ExitStack() as stack:
            directory = _directory()
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            daemon = Daemon(directory)
            stack.callback(daemon.stop)
            if not daemon.await_ready(stopped) or not show(daemon, stopped):
                return 0
            if not once:
                _say(_how_to_go_on(daemon.socket))
                daemon.serve(stopped)
                _say("\nstopping")
    except BrokenPipeError:
        # Nobody reads on; what is still buffered must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (DaemonError, ConnectError, ProtocolError, XenstoreError, OSError) as failure:
        sys.stderr.write(f"xsd: demo: {failure}\n")
        return 1
    return 0


# -- the show ------------------------------------------------------------------------------------


def show(daemon: Daemon, stopped: Interruption) -> bool:
    """All scenes; False if it was interrupted between two of them."""
    _say(f"xenstored is up, pid {daemon.process.pid}, in {daemon.directory}")
    with (
        Client.connect(daemon.socket, timeout=REPLY_SECONDS) as one,
        Client.connect(daemon.socket, timeout=REPLY_SECONDS) as two,
    ):
        scenes: tuple[Callable[[], None], ...] = (
            lambda: _watching(one, two),
            lambda: _transaction(one, two),
            lambda: _tree(one),
            lambda: _cost(one, daemon),
        )
        for scene in scenes:
            if stopped.told:
                return False
            scene()
    return True


def _watching(one: Client, two: Client) -> None:
    _say("\nA write, and a watch that tells another client of it")
    two.watch(GUEST, b"my-token")
    two.next_event(REPLY_SECONDS)
    _step("watch", f"{GUEST}, as my-token")
    for path, value in _TREE[1:]:
        one.write(path, value)
        two.next_event(REPLY_SECONDS)
    path, value = _TREE[0]
    start = time.perf_counter_ns()
    one.write(path, value)
    event = two.next_event(REPLY_SECONDS)
    spent_us = (time.perf_counter_ns() - start) / 1000
    _step("write", f'{path} = "{value.decode()}"')
    _step("event", f"{event.path}, my-token, {spent_us:.0f} us after the write began")
    two.unwatch(GUEST, b"my-token")


def _transaction(one: Client, two: Client) -> None:
    _say("\nA transaction, and what happens when somebody is faster")
    path = f"{GUEST}/memory/target"
    seen: list[int] = []

    def add(tx: Transaction) -> None:
        seen.append(int(tx.read(path)))
        tx.write(path, b"%d" % (seen[-1] + 1024))
        _step("in it", f"read {seen[-1]}, write {seen[-1] + 1024}")
        if len(seen) == 1:
            two.write(path, b"262144")
            _step("meanwhile", "another client writes 262144")

    try:
        with one.transaction() as tx:
            add(tx)
    except XenstoreError as error:
        _step("commit", f"{error.name}: what it had read is no longer true")
    one.atomically(add)
    _step("commit", f"done, the value is {one.read(path).decode()}")


def _tree(one: Client) -> None:
    _say("\nThe tree, as xsd ls and xenstore-ls show it")
    for node in walk(one, "/", values=True):
        if node.depth:
            _say("  " + line(node, flat=False, perms=False, width=_WIDTH).rstrip("\n"))


def _cost(one: Client, daemon: Daemon) -> None:
    path, value = _TREE[0]
    batch: tuple[Request[bytes] | Request[None], ...] = (
        requests.read(path),
        requests.write(path, value),
    )
    before = daemon.cpu_ns()
    for outcome in one.pipeline((batch[i % 2] for i in range(BURST)), window=WINDOW):
        if isinstance(outcome, XenstoreError):
            raise outcome
    spent_us = (daemon.cpu_ns() - before) / 1000
    figures = dict(row.split() for row in one.control("metrics").splitlines())
    total = sum(int(n) for name, n in figures.items() if name.startswith("requests."))
    _say("\nWhat it cost")
    _step("requests", f"{total} so far, {BURST} of them reads and writes, {WINDOW} in flight")
    _step("CPU", f"{spent_us / BURST:.2f} us of the daemon for each of those")
    _step("memory", f"{daemon.resident_mib():.1f} MiB resident")


def _how_to_go_on(socket: str) -> str:
    program = Path(sys.executable).with_name("xsd")
    if shutil.which("xsd") is None and program.exists():
        name = os.path.relpath(program)
        name = name if not name.startswith("..") else str(program)
    else:
        name = "xsd"
    return f"""
Serving until Ctrl-C. From another terminal:
  export XENSTORED_PATH={socket}
  {name} ls
  {name} watch /local
  xenstore-ls        Debian's tools work too: apt-get install xenstore-utils"""


def _say(text: str) -> None:
    print(text, flush=True)


def _step(what: str, text: str) -> None:
    _say(f"  {what:<10} {text}")


# -- the daemon ----------------------------------------------------------------------------------


def _directory() -> str:
    """A new private directory whose name leaves room for a socket's."""
    made = tempfile.mkdtemp(prefix="xsd-")
    if len(os.fsencode(made)) > _DIRECTORY_MAX:
        os.rmdir(made)
        made = tempfile.mkdtemp(prefix="xsd-", dir="/tmp")
    return made


class Daemon:
    """A daemon of our own as a child process."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.socket = f"{directory}/socket"
        words = ("--no-fork", "--no-xen", "--rundir", directory)
        environ = {
            name: text
            for name, text in os.environ.items()
            if not name.startswith(("XENSTORED_", "NOTIFY_SOCKET"))
        }
        # In a session of its own: an interrupt from the terminal comes to us, and we stop it.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", _DAEMON, str(_PACKAGES), *words],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environ,
            start_new_session=True,
        )

    def await_ready(self, stopped: Interruption) -> bool:
        """Wait until it serves; False if interrupted meanwhile. Raises ``DaemonError``."""
        deadline = time.monotonic() + READY_SECONDS
        said = b""
        while READY not in said:
            left = deadline - time.monotonic()
            if left <= 0:
                raise DaemonError(f"the daemon was not ready within {READY_SECONDS:.0f} seconds")
            data = self._hear(stopped, left)
            if stopped.told:
                return False
            if data == b"":
                raise DaemonError(f"the daemon did not start: {_text(said)}")
            said += data or b""
        return True

    def serve(self, stopped: Interruption) -> None:
        """Pass on what it says until interrupted. Raises ``DaemonError`` if it ends first."""
        while not stopped.told:
            data = self._hear(stopped, None)
            if data == b"":
                raise DaemonError("the daemon has ended")
            if data:
                sys.stderr.write(_text(data) + "\n")

    def _hear(self, stopped: Interruption, seconds: float | None) -> bytes | None:
        """What it says next, b"" if it says nothing any more, None if that takes too long."""
        assert self.process.stderr is not None
        pipe = self.process.stderr.fileno()
        ready, _, _ = select.select([pipe, stopped.fd], [], [], seconds)
        return os.read(pipe, 65536) if pipe in ready else None

    def stop(self) -> None:
        """End it; raises ``DaemonError`` if it does not end well."""
        self.process.terminate()
        try:
            _, said = self.process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise DaemonError(f"the daemon did not stop within {STOP_SECONDS:.0f} s") from None
        if self.process.returncode not in (0, -signal.SIGTERM):
            raise DaemonError(f"the daemon ended with {self.process.returncode}: {_text(said)}")

    def cpu_ns(self) -> int:
        """Nanoseconds of CPU that all its threads have used so far."""
        about = Path("/proc") / str(self.process.pid)
        with suppress(OSError):
            tasks = about.glob("task/*/schedstat")
            if spent := sum(int(task.read_text().split()[0]) for task in tasks):
                return spent
        fields = (about / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")

    def resident_mib(self) -> float:
        """Memory it has resident now."""
        about = Path("/proc") / str(self.process.pid) / "statm"
        return int(about.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def _text(said: bytes) -> str:
    return said.decode(errors="replace").strip()


# -- interruption --------------------------------------------------------------------------------


class Interruption(NamedTuple):
    """Whether we were told to end; ``fd`` is readable from then on."""

    fd: int
    signals: list[int]

    @property
    def told(self) -> bool:
        """A signal has come."""
        return bool(self.signals)


@contextmanager
def interruption() -> Iterator[Interruption]:
    """Collect the signals that mean the end, instead of dying of them half way."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    stopped = Interruption(reading, [])

    def note(number: int, frame: FrameType | None) -> None:
        stopped.signals.append(number)
        with suppress(BlockingIOError):
            os.write(writing, b"!")

    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, note) for number in handled]
    try:
        with _foreground():
            yield stopped
    finally:
        for number, handler in zip(handled, before, strict=True):
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


@contextmanager
def _foreground() -> Iterator[None]:
    """Have the terminal's keys to ourselves, if somebody who started us shares them.

    Under make an interrupt would go to make too, which would call it a failure of its own.
    """
    terminal = 0
    try:
        shared = os.tcgetpgrp(terminal) == os.getpgrp() != os.getpid()
    except OSError:
        shared = False
    if not shared:
        yield
        return
    theirs = os.getpgrp()
    # Not stopped by handing the terminal over, nor by Ctrl-Z, which nobody would notice.
    ignored = (signal.SIGTTOU, signal.SIGTSTP)
    before = [signal.signal(number, signal.SIG_IGN) for number in ignored]
    try:
        os.setpgid(0, 0)
        os.tcsetpgrp(terminal, os.getpid())
        yield
    finally:
        with suppress(OSError):
            os.tcsetpgrp(terminal, theirs)
            os.setpgid(0, theirs)
        for number, handler in zip(ignored, before, strict=True):
            signal.signal(number, handler)
