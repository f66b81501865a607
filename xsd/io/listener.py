"""The listening unix socket: making it safely, and removing only what is ours."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from dataclasses import dataclass

SOCKET_MODE = 0o600
DIRECTORY_MODE = 0o755

MAX_PATH = 107
"""Bytes of a unix socket's path: the address has 108, one of them for the NUL."""


class ListenError(Exception):
    """The socket cannot be made; the message says why and names the path."""


@dataclass(slots=True)
class Listener:
    """A listening, non-blocking socket and the file that stands for it."""

    sock: socket.socket
    path: str
    _device: int
    _inode: int

    def fileno(self) -> int:
        """The descriptor to wait on and accept from."""
        return self.sock.fileno()

    def close(self) -> None:
        """Stops listening and removes the file, unless another one has its name by now."""
        self.sock.close()
        with contextlib.suppress(OSError):
            status = os.stat(self.path, follow_symlinks=False)
            if (status.st_dev, status.st_ino) == (self._device, self._inode):
                os.unlink(self.path)


def listen(path: str, backlog: int = 128, mode: int = SOCKET_MODE) -> Listener:
    """Makes the socket and its directory (0755 if it is made).

    The file has its mode from its first moment.  A socket that nobody listens to any more is
    replaced.  Raises :class:`ListenError` if the path is too long, is taken by something else,
    or another daemon answers there.  Two daemons that start in the same instant are kept apart
    by the pid file, which is to be taken before.
    """
    size = len(os.fsencode(path))
    if size > MAX_PATH:
        raise ListenError(f"{path}: the path has {size} bytes, a socket's can have {MAX_PATH}")
    try:
        _make_directory(os.path.dirname(path) or "/")
        _remove_stale(path)
    except OSError as failure:
        raise ListenError(f"{path}: cannot be made: {failure.strerror}") from None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # Before bind: the file gets the mode of the descriptor, less the umask.
        os.fchmod(sock.fileno(), mode)
        sock.bind(path)
        status = os.stat(path, follow_symlinks=False)
        sock.listen(backlog)
    except OSError as failure:
        sock.close()
        raise ListenError(f"{path}: cannot listen: {failure.strerror}") from None
    return Listener(sock, path, status.st_dev, status.st_ino)


def _make_directory(directory: str) -> None:
    if os.path.isdir(directory):
        return
    os.makedirs(directory, exist_ok=True)
    # Whatever the umask was.
    os.chmod(directory, DIRECTORY_MODE)


def _remove_stale(path: str) -> None:
    """Removes a socket nobody listens to; raises :class:`ListenError` if it is anything else."""
    try:
        before = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(before.st_mode):
        raise ListenError(f"{path}: exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        code = probe.connect_ex(path)
    # EAGAIN: somebody listens and has a full queue.
    if code in (0, errno.EAGAIN, errno.EINPROGRESS):
        raise ListenError(f"{path}: another daemon answers there")
    if code == errno.ENOENT:
        return
    if code != errno.ECONNREFUSED:
        raise ListenError(f"{path}: cannot tell whether it is in use: {os.strerror(code)}")
    after = os.stat(path, follow_symlinks=False)
    if not os.path.samestat(before, after):
        raise ListenError(f"{path}: another daemon is starting there")
    os.unlink(path)
