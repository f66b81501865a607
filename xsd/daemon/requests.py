"""Records of requests, as the engine notes them, for the access log.

The engine appends a fixed header and the payload per request to one block of bytes. Once a turn
the main loop hands the block over as it is: the access log's thread cuts it into records.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xsd.daemon.accesslog import Record

_HEADER = struct.Struct("=q8I")
_RING = 1

# How the access log names operations; index is the type on the wire.
_WORDS = {
    0: "debug", 1: "directory", 2: "read", 3: "getperms", 4: "watch", 5: "unwatch", 6: "t start",
    7: "t end", 8: "introduce", 9: "release", 10: "getdomain", 11: "write", 12: "mkdir", 13: "rm",
    14: "setperms", 17: "is introduced", 18: "resume", 19: "settarget", 21: "reset watches",
    22: "directory",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Block:
    """The requests of a turn; ``errors`` are the names of results by number."""

    data: bytes
    errors: tuple[str, ...]
    offset_ns: int

    def __iter__(self) -> Iterator[Record]:
        return _records(self.data, self.errors, self.offset_ns)


def block(data: bytes, errors: tuple[str, ...]) -> Block:
    """What the engine has just noted."""
    # Requests carry monotonic time; people read the other one.
    return Block(data, errors, time.time_ns() - time.monotonic_ns())


def _records(block: bytes, errors: tuple[str, ...], offset: int) -> Iterator[Record]:
    """The records of a block. A request that failed is followed by a record of its error."""
    at = 0
    while at < len(block):
        when, conn, kind, domid, op, tx, result, length, _ = _HEADER.unpack_from(block, at)
        at += _HEADER.size
        payload = block[at : at + length]
        at += length
        who = f"D{domid}" if kind == _RING else f"A{conn}"
        yield when + offset, who, tx, _WORDS.get(op, "invalid"), payload
        if 0 < result < len(errors):
            yield when + offset, who, tx, "error", errors[result].encode()
