"""The failures a client can meet: an error reply, a broken peer, no peer at all."""

from __future__ import annotations

import errno as _errno

#: Error names the protocol defines. A reply with any other name counts as ``EINVAL``.
WIRE_ERRORS: dict[str, int] = {
    name: getattr(_errno, name)
    for name in (
        "EINVAL",
        "EACCES",
        "EEXIST",
        "EISDIR",
        "ENOENT",
        "ENOMEM",
        "ENOSPC",
        "EIO",
        "ENOTEMPTY",
        "ENOSYS",
        "EROFS",
        "EBUSY",
        "EAGAIN",
        "EISCONN",
        "E2BIG",
        "EPERM",
    )
}

#: What each name means here, in words that name the expectation.
_MEANING: dict[str, str] = {
    "EINVAL": "the server rejects the request as malformed",
    "EACCES": "permission denied",
    "EEXIST": "it exists already",
    "ENOENT": "no such node",
    "ENOMEM": "the server is out of memory",
    "ENOSPC": "a quota of this domain is used up",
    "EIO": "the server met an internal error",
    "ENOSYS": "the server does not know this operation",
    "EBUSY": "busy",
    "EAGAIN": "the transaction conflicts with another change and must be repeated",
    "E2BIG": "too large: a packet carries at most 4096 bytes",
    "EPERM": "only the owner's toolstack may do this",
}

#: Where the operation makes the same name mean something else.
_MEANING_FOR: dict[tuple[str, str], str] = {
    ("ENOENT", "RM"): "neither it nor its parent exists",
    ("ENOENT", "SET_PERMS"): "no such node, or the owner is no such domain",
    ("ENOENT", "UNWATCH"): "no such watch",
    ("ENOENT", "TRANSACTION_END"): "no such transaction",
    ("ENOENT", "CONTROL"): "no such domain",
    ("ENOENT", "RELEASE"): "no such domain",
    ("ENOENT", "RESUME"): "no such domain",
    ("ENOENT", "SET_TARGET"): "no such domain",
    ("ENOENT", "GET_FEATURE"): "no such domain",
    ("ENOENT", "SET_FEATURE"): "no such domain",
    ("ENOENT", "GET_QUOTA"): "no such domain",
    ("ENOENT", "SET_QUOTA"): "no such domain",
    ("EINVAL", "RM"): "the server rejects the request; the root cannot be removed",
    ("E2BIG", "WRITE"): "too large: path and value together may have 4095 bytes",
    ("ENOSPC", "SET_PERMS"): "more permissions than the quota allows",
    ("ENOSYS", "WATCH"): "watches through the kernel's device have no depth",
    ("EPERM", "RESET_WATCHES"): "through the kernel's device it would end the kernel's watches too",
}


class XenstoreError(Exception):
    """An error reply, with its number, symbolic name, the operation and the path it concerned.

    ``errno`` is the number this host gives to ``name``; a name outside the protocol keeps its
    spelling in ``name`` and has the number of ``EINVAL``. ``path`` is empty for operations
    without one.
    """

    __slots__ = ("errno", "name", "operation", "path")

    def __init__(self, name: str, operation: str, path: str = "") -> None:
        super().__init__(name, operation, path)
        self.name = name
        self.errno = WIRE_ERRORS.get(name, _errno.EINVAL)
        self.operation = operation
        self.path = path

    @property
    def meaning(self) -> str:
        """What the name says about this operation, in words."""
        special = _MEANING_FOR.get((self.name, self.operation))
        return special or _MEANING.get(self.name, "the server refused the request")

    def __str__(self) -> str:
        where = f" {self.path}" if self.path else ""
        return f"{self.operation}{where}: {self.meaning} ({self.name})"


class ProtocolError(Exception):
    """The peer sent something that is not the xenstore protocol; the connection is unusable."""

    __slots__ = ()


class ConnectError(Exception):
    """No server can be reached; ``tried`` has each address with the operating system's error."""

    __slots__ = ("tried",)

    def __init__(self, *tried: tuple[str, OSError]) -> None:
        super().__init__(*tried)
        self.tried = tried

    def __str__(self) -> str:
        reasons = [f"{address}: {error.strerror or error}" for address, error in self.tried]
        if len(reasons) == 1:
            return f"cannot connect to xenstored at {reasons[0]}"
        return f"cannot connect to xenstored, tried {'; '.join(reasons)}"
