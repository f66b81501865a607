"""What carries a client's bytes: a unix socket, or the device of the kernel's own ring.

The device serves all programs of a domain over the one ring the domain has, so the kernel stands
between: it numbers requests anew, gives replies their own numbers back, and each open file gets
the events of the watches it asked for. Closing the file ends its watches and transactions. For
who writes to it::

    request   [ header | payload ]      handed over whole or in pieces, which are put together
    write(2)  [ . . . . . . . . . ]     ends with the request at the latest: what follows is lost
              fails                     the whole request is forgotten, and gets no reply
    read(2)   [ reply | event | re      whatever is there, cut anywhere; waits if there is nothing

Linux puts requests together in 4096 bytes, header included, so that the longest value the protocol
allows does not fit. It waits within write(2) until a WATCH or UNWATCH is done, whatever timeout
the client has, and answers it itself: UNWATCH is always right, and a watch has no depth.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
from typing import Protocol

from .address import DEVICES
from .errors import WIRE_ERRORS
from .wire import HEADER, Op

_RECEIVE_BYTES = 256 * 1024
#: A program may have the default action for SIGPIPE; a dead server is an exception all the same.
_SEND = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
#: What kernels put requests together in, as far as known.
_KERNEL_BYTES = 4096
#: Errors of a write that are about the request. EIO is not: it is what a dead device says.
_REFUSALS = WIRE_ERRORS.keys() - {"EIO"}


class RefusedError(Exception):
    """A request was not accepted and gets no reply; ``name`` is an error of the protocol."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Stream(Protocol):
    """A connection that carries requests one way, replies and events the other."""

    @property
    def serial(self) -> bool:
        """Whether a request may be sent only when all before it have their replies."""

    def send(self, data: bytearray) -> int:
        """Write from the start of ``data``; how many bytes were taken.

        Raises ``BlockingIOError`` if there is no room, ``ConnectionError`` if there never will
        be, ``RefusedError`` about the request that ``data`` starts with.
        """

    def receive(self, *, wait: bool) -> bytes:
        """Read what is there, nothing at the end; ``BlockingIOError`` if only waiting helps."""

    def fileno(self) -> int:
        """The descriptor, to wait for; -1 when closed."""

    def close(self) -> None:
        """Hang up; more than once is harmless."""


class SocketStream:
    """A connected socket, which it owns."""

    __slots__ = ("_socket",)

    serial = False

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(True)
        self._socket = connected

    def send(self, data: bytearray) -> int:
        """See ``Stream``."""
        return self._socket.send(data, _SEND)

    def receive(self, *, wait: bool) -> bytes:
        """See ``Stream``."""
        return self._socket.recv(_RECEIVE_BYTES, 0 if wait else socket.MSG_DONTWAIT)

    def fileno(self) -> int:
        """See ``Stream``."""
        return self._socket.fileno()

    def close(self) -> None:
        """See ``Stream``."""
        self._socket.close()


class DeviceStream:
    """The kernel's device by its descriptor, which is blocking and which it owns.

    Serial, since what the kernel answers itself would overtake what it has passed on.
    """

    __slots__ = ("_fd", "_path")

    serial = True

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._path = path

    def send(self, data: bytearray) -> int:
        """See ``Stream``; takes exactly one request."""
        kind, _, _, length = HEADER.unpack_from(data)
        size: int = HEADER.size + length
        self._check(kind, data[HEADER.size : size])
        # A kernel that has no room for it all says so about the header; about all of it at once it
        # would say that it is malformed.
        first = HEADER.size if size > _KERNEL_BYTES else size
        for piece in (data[:first], data[first:size]):
            while piece:
                del piece[: self._write(piece)]
        return size

    def receive(self, *, wait: bool) -> bytes:
        """See ``Stream``."""
        if not wait:
            poll = select.poll()
            poll.register(self._fd, select.POLLIN)
            if not poll.poll(0):
                raise BlockingIOError
        try:
            return os.read(self._fd, _RECEIVE_BYTES)
        except OSError as failure:
            raise self._broken(failure) from failure

    def fileno(self) -> int:
        """See ``Stream``."""
        return self._fd

    def close(self) -> None:
        """See ``Stream``."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _check(self, kind: int, payload: bytearray) -> None:
        """Refuse what a kernel takes and makes something else of."""
        if kind == Op.RESET_WATCHES:
            raise RefusedError("EPERM")
        if kind == Op.WATCH and payload.count(0) > 2:
            raise RefusedError("ENOSYS")

    def _write(self, piece: bytearray) -> int:
        try:
            taken = os.write(self._fd, piece)
        except OSError as failure:
            name = errno.errorcode.get(failure.errno or 0, "")
            if name == "EILSEQ":  # what Linux says to strings without an end
                name = "EINVAL"
            if name in _REFUSALS and name != "EAGAIN":
                raise RefusedError(name) from failure
            raise self._broken(failure) from failure
        if not taken:
            raise ConnectionError(f"{self._path}: takes nothing")
        return taken

    def _broken(self, failure: OSError) -> ConnectionError:
        return ConnectionError(f"{self._path}: {failure.strerror}")


def connect(path: str) -> Stream:
    """Connect to the socket or open the device at ``path``; OSError says why that fails."""
    return _open(path) if path in DEVICES or _is_character_device(path) else _call(path)


def _is_character_device(path: str) -> bool:
    try:
        return stat.S_ISCHR(os.stat(path).st_mode)
    except OSError:
        return False


def _open(path: str) -> DeviceStream:
    return DeviceStream(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY), path)


def _call(path: str) -> SocketStream:
    connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connecting.connect(path)
    except OSError:
        connecting.close()
        raise
    return SocketStream(connecting)
