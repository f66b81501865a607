"""The guest's side of a ring: a page in memory, and what a well-behaved guest does with it."""

from __future__ import annotations

import ctypes
import struct

SIZE = 1024
MASK = 0xFFFFFFFF
PLACES = {"req_cons": 2048, "req_prod": 2052, "rsp_cons": 2056, "rsp_prod": 2060}
STATE, ERROR, FEATURES = 2068, 2072, 2064

_indices = struct.Struct("=4I")
_word = struct.Struct("=I")


class Page:
    """A page of a domain: 4096 bytes that both sides may write at any time."""

    __slots__ = ("address", "bytes", "memory")

    def __init__(self) -> None:
        self.bytes = bytearray(4096)
        self.memory = (ctypes.c_char * 4096).from_buffer(self.bytes)
        self.address = ctypes.addressof(self.memory)

    def word(self, at: int) -> int:
        value: int = _word.unpack_from(self.bytes, at)[0]
        return value

    def put_word(self, at: int, value: int) -> None:
        _word.pack_into(self.bytes, at, value & MASK)

    def send(self, data: bytes) -> int:
        """Puts in as much as there is room for; how much."""
        cons, prod, _, _ = _indices.unpack_from(self.bytes, 2048)
        room = SIZE - (prod - cons & MASK)
        if room <= 0:
            return 0
        data = data[:room]
        at = prod % SIZE
        first = data[: SIZE - at]
        self.bytes[at : at + len(first)] = first
        self.bytes[: len(data) - len(first)] = data[len(first) :]
        self.put_word(2052, prod + len(data))
        return len(data)

    def requests(self) -> bytes | None:
        """What stands in the request ring; None if the indices cannot be."""
        cons, prod, _, _ = _indices.unpack_from(self.bytes, 2048)
        return self.between(0, cons, prod)

    def responses(self) -> bytes | None:
        _, _, cons, prod = _indices.unpack_from(self.bytes, 2048)
        return self.between(SIZE, cons, prod)

    def between(self, base: int, cons: int, prod: int) -> bytes | None:
        count = prod - cons & MASK
        if count == 0:
            return b""
        if count > SIZE:
            return None
        at = cons % SIZE
        whole = self.bytes[base : base + SIZE]
        return bytes((whole + whole)[at : at + count])

    def fetched(self, count: int) -> None:
        """The guest has taken so many bytes of responses."""
        self.put_word(2056, self.word(2056) + count)
