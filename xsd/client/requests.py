"""Every operation as a ``Request``: its payload, and the meaning of a success reply.

No I/O and no state, so that any kind of client can send them, one by one or many at once.
All functions raise ``ValueError`` if a string argument contains a NUL.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .errors import XenstoreError
from .perms import Permission
from .wire import Op, Request, decode_text, encode_text, join_strings, split_strings

_NUL = b"\0"


def _done(_payload: bytes) -> None:
    return None


def _raw(payload: bytes) -> bytes:
    return payload


def _string(payload: bytes) -> str:
    return decode_text(payload.removesuffix(_NUL))


def _number(payload: bytes) -> int:
    return int(payload.removesuffix(_NUL))


def decode_names(payload: bytes) -> list[str]:
    """The reply to DIRECTORY; ``ValueError`` unless it is empty or ends with NUL."""
    if not payload:
        return []
    if payload[-1]:
        raise ValueError("the last name has no terminating NUL")
    return payload[:-1].decode("utf-8", "surrogateescape").split("\0")


def decode_permissions(payload: bytes) -> list[Permission]:
    """The reply to GET_PERMS; ``ValueError`` if it is not a permission list."""
    return [Permission.parse(decode_text(entry)) for entry in split_strings(payload)]


def _truth(payload: bytes) -> bool:
    return not payload.startswith(b"F")


class DirectoryPart(NamedTuple):
    """Whole names, each with its NUL, as of a generation of the node; ``last`` ends the list."""

    generation: int
    names: bytes
    last: bool


def _part(payload: bytes) -> DirectoryPart:
    generation, nul, names = payload.partition(_NUL)
    if not nul or not generation.isdigit() or not names or names[-1]:
        raise ValueError("expected a generation and whole names")
    last = names == _NUL or names.endswith(b"\0\0")
    return DirectoryPart(int(generation), names[:-1] if last else names, last)


def _path(path: str) -> bytes:
    return join_strings(encode_text(path))


def _domid(domid: int) -> bytes:
    return b"%d\0" % domid


def read(path: str) -> Request[bytes]:
    """The value of a node."""
    return Request(Op.READ, _path(path), _raw, path)


def write(path: str, value: bytes) -> Request[None]:
    """Set the value of a node; it and missing ancestors are created."""
    return Request(Op.WRITE, _path(path) + value, _done, path)


def mkdir(path: str) -> Request[None]:
    """Create a node with an empty value, and missing ancestors; no change if it exists."""
    return Request(Op.MKDIR, _path(path), _done, path)


def rm(path: str) -> Request[None]:
    """Remove a node and everything below it."""
    return Request(Op.RM, _path(path), _done, path)


def directory(path: str) -> Request[list[str]]:
    """The names of a node's children; E2BIG if they do not fit in one reply."""
    return Request(Op.DIRECTORY, _path(path), decode_names, path)


def directory_part(path: str, offset: int) -> Request[DirectoryPart]:
    """A part of a node's children from a byte offset; see ``ChildListing``."""
    return Request(Op.DIRECTORY_PART, _path(path) + b"%d\0" % offset, _part, path)


def get_perms(path: str) -> Request[list[Permission]]:
    """The permission list of a node, the owner's entry first."""
    return Request(Op.GET_PERMS, _path(path), decode_permissions, path)


def set_perms(path: str, perms: Iterable[Permission]) -> Request[None]:
    """Replace the permission list of a node."""
    entries = (str(entry).encode() for entry in perms)
    return Request(Op.SET_PERMS, join_strings(encode_text(path), *entries), _done, path)


def watch(path: str, token: bytes, depth: int | None = None) -> Request[None]:
    """Ask for events at and below ``path``, at most ``depth`` components below it."""
    strings = [encode_text(path), token]
    if depth is not None:
        strings.append(b"%d" % depth)
    return Request(Op.WATCH, join_strings(*strings), _done, path)


def unwatch(path: str, token: bytes) -> Request[None]:
    """Remove the watch with this path and token."""
    return Request(Op.UNWATCH, join_strings(encode_text(path), token), _done, path)


def reset_watches() -> Request[None]:
    """Remove all watches and all transactions of this connection."""
    return Request(Op.RESET_WATCHES, _NUL, _done)


def transaction_start() -> Request[int]:
    """Start a transaction; the reply is its id, never 0."""
    return Request(Op.TRANSACTION_START, _NUL, _number)


def transaction_end(*, commit: bool) -> Request[None]:
    """Commit (EAGAIN if it conflicts) or abort a transaction."""
    return Request(Op.TRANSACTION_END, b"T\0" if commit else b"F\0", _done)


def introduce(domid: int, gfn: int, port: int) -> Request[None]:
    """Make a domain known: its ring page and its event channel."""
    return Request(Op.INTRODUCE, b"%d\0%d\0%d\0" % (domid, gfn, port), _done)


def release(domid: int) -> Request[None]:
    """Disconnect a domain."""
    return Request(Op.RELEASE, _domid(domid), _done)


def resume(domid: int) -> Request[None]:
    """Say that a suspended domain runs again."""
    return Request(Op.RESUME, _domid(domid), _done)


def set_target(domid: int, target: int) -> Request[None]:
    """Give a domain the rights of the domain it works for."""
    return Request(Op.SET_TARGET, b"%d\0%d\0" % (domid, target), _done)


def is_domain_introduced(domid: int) -> Request[bool]:
    """Whether the server knows a domain."""
    return Request(Op.IS_DOMAIN_INTRODUCED, _domid(domid), _truth)


def get_domain_path(domid: int) -> Request[str]:
    """The base path of a domain, to which its relative paths refer."""
    return Request(Op.GET_DOMAIN_PATH, _domid(domid), _string)


def get_feature(domid: int | None = None) -> Request[int]:
    """Feature bits offered to this connection or to a domain."""
    return Request(Op.GET_FEATURE, b"" if domid is None else _domid(domid), _number)


def set_feature(domid: int, value: int) -> Request[None]:
    """Set the feature bits offered to a domain that is not introduced yet."""
    return Request(Op.SET_FEATURE, b"%d\0%d\0" % (domid, value), _done)


def quota_names() -> Request[list[str]]:
    """The names of all quotas."""
    return Request(Op.GET_QUOTA, b"", lambda payload: _string(payload).split())


def get_quota(name: str, domid: int | None = None) -> Request[int]:
    """A quota of a domain, or the value for all domains; 0 is unlimited."""
    prefix = b"" if domid is None else _domid(domid)
    return Request(Op.GET_QUOTA, prefix + join_strings(encode_text(name)), _number)


def set_quota(name: str, value: int, domid: int | None = None) -> Request[None]:
    """Set a quota of a domain, or the value for all domains; 0 is unlimited."""
    prefix = b"" if domid is None else _domid(domid)
    payload = prefix + join_strings(encode_text(name), b"%d" % value)
    return Request(Op.SET_QUOTA, payload, _done)


def control(command: str, *arguments: str) -> Request[str]:
    """Ask the daemon something about itself; the reply is text."""
    strings = (encode_text(argument) for argument in (command, *arguments))
    return Request(Op.CONTROL, join_strings(*strings), _string, command)


class ChildListing:
    """Collects a list of children that is too long for one DIRECTORY reply.

    Send ``request``, give its reply to ``received``, repeat until that returns the names. Each
    reply carries a count that changes with the node; when it changes between two parts, the list
    starts again from the beginning. After ``RESTARTS_MAX`` of those ``received`` raises
    ``XenstoreError`` EAGAIN; inside a transaction there are none.
    """

    RESTARTS_MAX = 100

    __slots__ = ("_generation", "_parts", "_restarts", "_size", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._generation = 0
        self._parts: list[bytes] = []
        self._size = 0
        self._restarts = 0

    def request(self) -> Request[DirectoryPart]:
        """The request for the next part."""
        return directory_part(self.path, self._size)

    def received(self, part: DirectoryPart) -> list[str] | None:
        """Take a reply; the complete list of names, or None if ``request`` is to be sent again."""
        if self._parts and part.generation != self._generation:
            self._restart()
            return None
        self._generation = part.generation
        self._parts.append(part.names)
        self._size += len(part.names)
        return decode_names(b"".join(self._parts)) if part.last else None

    def _restart(self) -> None:
        self._restarts += 1
        if self._restarts > self.RESTARTS_MAX:
            raise XenstoreError("EAGAIN", Op.DIRECTORY_PART.name, self.path)
        self._parts = []
        self._size = 0
