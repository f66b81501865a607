"""Requests and replies as bytes, for benchmarks that hand them to the engine in process."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

DIRECTORY = 1
READ = 2
GET_PERMS = 3
WATCH = 4
TRANSACTION_START = 6
TRANSACTION_END = 7
INTRODUCE = 8
WRITE = 11
MKDIR = 12
RM = 13
SET_PERMS = 14
ERROR = 16

_HEADER = struct.Struct("=IIII")


@dataclass(frozen=True, slots=True)
class Frame:
    """One message, cut out of a stream."""

    type: int
    req_id: int
    tx_id: int
    payload: bytes


def frame(type_: int, payload: bytes, req_id: int = 0, tx_id: int = 0) -> bytes:
    """A whole message: 16 bytes of header in host byte order, then the payload."""
    return _HEADER.pack(type_, req_id, tx_id, len(payload)) + payload


def cut(stream: bytes) -> Iterator[Frame]:
    """The whole messages at the start of `stream`; an unfinished one at its end is left out."""
    at = 0
    while len(stream) - at >= _HEADER.size:
        type_, req_id, tx_id, length = _HEADER.unpack_from(stream, at)
        begin = at + _HEADER.size
        if len(stream) - begin < length:
            return
        at = begin + length
        yield Frame(type_, req_id, tx_id, stream[begin:at])


def leaf_directory(leaf: int) -> bytes:
    """Path of the directory that holds leaf number `leaf`; 32 leaves share one."""
    return b"/bench/t/%d/%d" % (leaf >> 10, leaf >> 5 & 31)


def leaf_path(leaf: int) -> bytes:
    """Path of leaf number `leaf`: the same tree as the load client builds."""
    return b"%s/%d" % (leaf_directory(leaf), leaf & 31)


def leaf_value(leaf: int) -> bytes:
    """Value of leaf number `leaf`: 16 bytes."""
    return (b"%d" % leaf).ljust(16, b"x")[:16]
