"""A real daemon as a process of its own, for tests: started, looked at, ended and judged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest

READY = "xenstored is ready"
READY_SECONDS = 30.0
LOG_SECONDS = 20.0
STOP_SECONDS = 20.0


def absent(what: str) -> NoReturn:
    """Skips, or fails where somebody vouches that everything is installed."""
    if os.environ.get("XSD_REQUIRE_CLIENTS") == "1":
        pytest.fail(f"{what}, but XSD_REQUIRE_CLIENTS is 1")
    pytest.skip(what)


def program() -> Path:
    """The installed program that belongs to the interpreter of this test run."""
    return Path(sys.executable).with_name("xsd")


def clean_environ(**more: str) -> dict[str, str]:
    """This process's environment without what directs a daemon or a tool elsewhere."""
    foreign = ("XENSTORED_", "NOTIFY_SOCKET")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(foreign)}
    return kept | more


class Drain:
    """Reads a pipe to its end in a thread, so that its writer never waits."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._text = b""
        self._ended = False
        self._grown = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while data := os.read(self._pipe, 65536):
            with self._grown:
                self._text += data
                self._grown.notify_all()
        with self._grown:
            self._ended = True
            self._grown.notify_all()

    def text(self) -> str:
        """What has come so far."""
        with self._grown:
            return self._text.decode(errors="replace")

    def await_text(self, wanted: str, seconds: float, since: int = 0) -> str:
        """All text, once it has ``wanted`` behind character ``since``.

        Raises TimeoutError, or EOFError when the writer ended without having said it.
        """
        with self._grown:
            needle = wanted.encode()
            self._grown.wait_for(lambda: self._ended or needle in self._text[since:], seconds)
            if needle in self._text[since:]:
                return self._text.decode(errors="replace")
            said = self._text.decode(errors="replace")
            if self._ended:
                raise EOFError(f"ended without {wanted!r}: {said}")
            raise TimeoutError(f"no {wanted!r} within {seconds} s: {said}")

    def finish(self, seconds: float) -> None:
        """Waits for the end of the pipe."""
        self._thread.join(seconds)


@dataclass(slots=True)
class Daemon:
    """A daemon that runs in the foreground and is ready; ``socket`` is where it listens.

    ``expected`` are pieces of lines of level error that the test provokes; any other such line
    is a failure at the end.
    """

    process: subprocess.Popen[bytes]
    rundir: Path
    socket: str
    log: Drain
    expected: list[str] = field(default_factory=list)

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        return self.process.pid

    @property
    def stderr(self) -> str:
        """What it has written to stderr so far."""
        return self.log.text()

    def await_log(self, wanted: str, since: int = 0) -> str:
        """Waits until stderr has ``wanted`` behind character ``since``; returns all of it."""
        return self.log.await_text(wanted, LOG_SECONDS, since)

    def rss_bytes(self) -> int:
        """Resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def environ(self) -> dict[str, str]:
        """An environment in which tools talk to this daemon."""
        return clean_environ(XENSTORED_PATH=self.socket)

    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    def end(self) -> int:
        """Asks it to stop, kills it if it does not; returns its exit status."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_SECONDS)
        self.log.finish(STOP_SECONDS)
        if self.process.stderr is not None:
            self.process.stderr.close()
        return self.process.returncode

    def stop(self) -> None:
        """Ends it and asserts that it did so in good order, and had nothing to regret."""
        status = self.end()
        text = self.stderr
        assert (status, "Traceback" in text) == (0, False), text
        errors = [
            line
            for line in text.splitlines()
            if "|error|" in line and not any(piece in line for piece in self.expected)
        ]
        assert errors == []
        assert not os.path.exists(self.socket)


def start(
    rundir: Path,
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    basic: Sequence[str] = ("--no-fork", "--no-xen"),
    socket: Path | None = None,
) -> Daemon:
    """Starts a daemon and waits until it is ready.

    ``socket`` is where the arguments or the environment put it, if not into ``rundir``, which is
    passed as an option only then.  Raises TimeoutError or EOFError if it does not get ready.
    """
    where = [] if socket is not None else ["--rundir", str(rundir)]
    process = subprocess.Popen(
        [str(program()), "daemon", *basic, *where, *arguments],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=clean_environ() if environ is None else dict(environ),
    )
    assert process.stderr is not None
    log = Drain(process.stderr.fileno())
    daemon = Daemon(process, rundir, str(socket or rundir / "socket"), log)
    try:
        log.await_text(READY, READY_SECONDS)
    except BaseException:
        daemon.end()
        raise
    return daemon


def hang_up(daemon: Daemon) -> None:
    """Sends SIGHUP."""
    daemon.process.send_signal(signal.SIGHUP)
