"""Where log lines go: a file that rotates, or the local syslog daemon.

A sink takes whole lines and either keeps them or says how many it lost.  It never leaves half
a line behind in a file, never keeps lines in memory, and tries again at the next call.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Sequence
from typing import Protocol

SYSLOG_PREFIX = "syslog:"
SYSLOG_SOCKET = "/dev/log"
SYSLOG_INFO = 6

FILE_MODE = 0o600
"""Logs show what guests store, so they are for the administrator only."""


NOT_OURS = "a link, or a file of somebody else"


class LinesLostError(Exception):
    """Some lines were not kept: how many, and why."""

    def __init__(self, lost: int, reason: str) -> None:
        super().__init__(reason)
        self.lost = lost
        self.reason = reason


class Sink(Protocol):
    """A place for lines, each ending in a newline; all but ``write`` are quick and never fail."""

    def write(self, lines: Sequence[bytes]) -> None:
        """Keeps the lines, or raises :class:`LinesLostError`."""

    def reopen(self) -> str:
        """Goes on in whatever now has the file's name; else says why not, and goes on as before."""

    def hand_over(self, uid: int, gid: int) -> None:
        """Gives what it writes to a user, who is to go on; raises OSError."""

    def close(self) -> None:
        """Gives up the file."""


def open_append(path: str) -> int:
    """A descriptor at the end of a file, made if it is not there; raises OSError.

    A FIFO that nobody reads is an error rather than a wait. So is a link in a directory of another
    user than root and ourselves, who could have us make or open any file.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    with contextlib.suppress(OSError):
        if os.stat(os.path.dirname(path) or ".").st_uid not in (0, os.geteuid()):
            flags |= os.O_NOFOLLOW
    fd = os.open(path, flags, FILE_MODE)
    os.set_blocking(fd, True)
    return fd


class FileSink:
    """A file; after ``max_lines`` lines it becomes ``path.1``, which becomes ``path.2`` ….

    ``max_files`` counts all of them, 0 lines means never.  What is no regular file (a device, a
    FIFO) is never renamed.  Raises OSError if the file cannot be opened at first; later that is
    a loss of lines like any other.
    """

    def __init__(self, path: str, max_lines: int = 0, max_files: int = 1) -> None:
        self.path = path
        self._max_lines = max_lines
        self._max_files = max_files
        self._lines = 0
        self._is_old = False
        try:
            self._fd: int | None = open_append(path)
        except OSError as failure:
            if failure.errno != errno.ELOOP:
                raise
            raise PermissionError(f"{path}: {NOT_OURS}") from None

    def write(self, lines: Sequence[bytes]) -> None:
        """Appends the lines; see :class:`Sink`."""
        begin = 0
        while begin < len(lines):
            if self._is_old:
                self.reopen()
            room = len(lines) - begin
            if self._max_lines:
                room = min(room, max(1, self._max_lines - self._lines))
            part = lines[begin : begin + room]
            kept, failure = self._append(b"".join(part))
            self._lines += kept
            if failure is not None:
                reason = f"{self.path}: {failure.strerror}"
                raise LinesLostError(len(lines) - begin - kept, reason)
            begin += room
            if self._max_lines and self._lines >= self._max_lines:
                self._rotate()

    def reopen(self) -> str:
        """Opens the name again; the line counter goes on if it is still the same file.

        If that cannot be done the next write tries it again.
        """
        before = self._identity()
        try:
            fresh = open_append(self.path)
        except OSError as failure:
            self._is_old = True
            if self._fd is not None and os.fstat(self._fd).st_nlink == 0:
                self.close()  # nobody could read what goes there: better it counts as lost
            return f"{self.path}: {failure.strerror}"
        self.close()
        self._fd = fresh
        self._is_old = False
        if self._identity() != before:
            self._lines = 0
        return ""

    def hand_over(self, uid: int, gid: int) -> None:
        """Changes the file's owner; what is no file of root's alone is left as it is.

        Whoever may write to its directory could have put another file there, by a link.  Raises
        OSError if it is such a one.
        """
        if self._fd is None:
            return
        opened = os.fstat(self._fd)
        named = os.stat(self.path, follow_symlinks=False)
        if not os.path.samestat(opened, named):  # also a device: it was opened with root's rights
            raise PermissionError(f"{self.path}: {NOT_OURS}")
        if not stat.S_ISREG(opened.st_mode) or opened.st_uid == uid:
            return
        if opened.st_uid != 0 or opened.st_nlink != 1:
            raise PermissionError(f"{self.path}: {NOT_OURS}")
        try:
            os.fchown(self._fd, uid, gid)
        except OSError as failure:
            raise PermissionError(
                f"{self.path}: cannot be given to user {uid}: {failure.strerror}"
            ) from None

    def close(self) -> None:
        """Closes the file; a later write opens it again."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            with contextlib.suppress(OSError):
                os.close(fd)

    def _identity(self) -> tuple[int, int] | None:
        if self._fd is None:
            return None
        status = os.fstat(self._fd)
        return status.st_dev, status.st_ino

    def _append(self, data: bytes) -> tuple[int, OSError | None]:
        """How many lines of ``data`` were kept, and why not all."""
        view = memoryview(data)
        done = 0
        try:
            if self._fd is None:
                self._fd = open_append(self.path)
            while done < len(data):
                done += os.write(self._fd, view[done:])
        except OSError as failure:
            complete = data.rfind(b"\n", 0, done) + 1
            self._drop_tail(done - complete)
            return data.count(b"\n", 0, complete), failure
        return data.count(b"\n"), None

    def _drop_tail(self, size: int) -> None:
        """Takes back the part of a line that was written before the disk was full."""
        if not size or self._fd is None:
            return
        with contextlib.suppress(OSError):
            status = os.fstat(self._fd)
            if stat.S_ISREG(status.st_mode):
                os.ftruncate(self._fd, status.st_size - size)

    def _rotate(self) -> None:
        """Renames the files; if that is not possible the lines go on where they went."""
        self._lines = 0
        if self._fd is None or not stat.S_ISREG(os.fstat(self._fd).st_mode):
            return
        try:
            for number in range(self._max_files - 1, 0, -1):
                older = f"{self.path}.{number}"
                newer = f"{self.path}.{number - 1}" if number > 1 else self.path
                with contextlib.suppress(FileNotFoundError):
                    os.replace(newer, older)
            if self._max_files == 1:
                os.unlink(self.path)
        except OSError:
            return
        self._is_old = True


class SyslogSink:
    """The local syslog daemon.  It is never waited for: what it does not take is lost."""

    def __init__(self, target: str, severity: int, address: str = SYSLOG_SOCKET) -> None:
        from logging.handlers import SysLogHandler  # not small, and most log to files

        facility = SysLogHandler.facility_names[target.removeprefix(SYSLOG_PREFIX)]
        self._facility = facility
        self._severity = severity
        self._address = address
        self._socket: socket.socket | None = None

    def write(self, lines: Sequence[bytes]) -> None:
        """Sends one message per line; see :class:`Sink`."""
        self.write_as(lines, self._severity)

    def write_as(self, lines: Sequence[bytes], severity: int) -> None:
        """The same with another severity, as syslog numbers them (3 error … 7 debug)."""
        head = b"<%d>xenstored[%d]: " % (self._facility * 8 + severity, os.getpid())
        for number, line in enumerate(lines):
            try:
                self._send(head + line.rstrip(b"\n"))
            except OSError as failure:
                raise LinesLostError(len(lines) - number, f"syslog: {failure.strerror}") from None

    def _send(self, message: bytes) -> None:
        if self._socket is not None:
            try:
                self._socket.send(message)
                return
            except BlockingIOError:
                raise
            except OSError:
                # The syslog daemon was started anew: its old socket is gone.
                self.close()
        fresh = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            fresh.connect(self._address)
            fresh.send(message)
        except OSError:
            fresh.close()
            raise
        self._socket = fresh

    def reopen(self) -> str:
        """Connects anew at the next line."""
        self.close()
        return ""

    def hand_over(self, uid: int, gid: int) -> None:
        """Does nothing: everybody may talk to the syslog daemon."""

    def close(self) -> None:
        """Closes the connection; a later write makes a new one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class StderrSink:
    """Standard error, as it is now; nothing to reopen."""

    def write(self, lines: Sequence[bytes]) -> None:
        """Writes the lines; see :class:`Sink`."""
        data = memoryview(b"".join(lines))
        try:
            while data:
                data = data[os.write(2, data) :]
        except OSError as failure:
            raise LinesLostError(len(lines), f"stderr: {failure.strerror}") from None

    def reopen(self) -> str:
        """Does nothing."""
        return ""

    def hand_over(self, uid: int, gid: int) -> None:
        """Does nothing: the descriptor is open."""

    def close(self) -> None:
        """Does nothing: the descriptor is not ours."""
