"""The pid file: says who runs, and by a lock that outlives no process, whether it still does."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from dataclasses import dataclass

_logger = logging.getLogger("xsd.daemon")

_MODE = 0o600
_ATTEMPTS = 10
"""How often the file may vanish between opening and locking it before we give up."""


class AnotherRunsError(Exception):
    """Somebody else holds the pid file; ``pid`` is 0 if it is not known who."""

    def __init__(self, path: str, pid: int) -> None:
        who = f"another xenstored (pid {pid})" if pid else "another xenstored"
        super().__init__(f"{who} is running: it holds {path}")
        self.pid = pid


@dataclass(slots=True)
class PidFile:
    """A held pid file; held until :meth:`release` or the end of the process."""

    path: str
    _fd: int

    def release(self) -> None:
        """Removes the file if it is still ours, or empties it where that is not allowed.

        More than once is harmless.
        """
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        try:
            if _is_at(fd, self.path):
                os.unlink(self.path)
        except OSError as failure:
            _logger.debug("%s: emptied, for it cannot be removed: %s", self.path, failure.strerror)
            with contextlib.suppress(OSError):
                os.ftruncate(fd, 0)
        os.close(fd)


def acquire(path: str) -> PidFile:
    """Takes the file, writes our pid into it and keeps it locked.

    The lock is one of fcntl(2): it belongs to the process, survives exec and not fork, so this
    comes after going to the background.  The file is made, with mode 0600, and its directory
    with 0755.  Raises :class:`AnotherRunsError`, or OSError if the file cannot be used.
    """
    os.makedirs(os.path.dirname(path) or "/", mode=0o755, exist_ok=True)
    for _ in range(_ATTEMPTS):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
        try:
            _lock(fd, path)
            if _is_at(fd, path):
                os.fchmod(fd, _MODE)
                os.ftruncate(fd, 0)
                os.pwrite(fd, b"%d\n" % os.getpid(), 0)
                return PidFile(path, fd)
        except BaseException:
            os.close(fd)
            raise
        # Its holder ended and removed it meanwhile: ours is a file without a name.
        os.close(fd)
    raise OSError(f"{path}: somebody removes it again and again")


def _lock(fd: int, path: str) -> None:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        # Which of the two says "held" depends on the system.
        written = os.pread(fd, 32, 0).strip()
        raise AnotherRunsError(path, int(written) if written.isdigit() else 0) from None


def _is_at(fd: int, path: str) -> bool:
    """Whether the open file is the one that has this name now."""
    try:
        named = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), named)
