"""One connection's end: bytes there and back, replies and events told apart.

A reply is kept as (type, payload), an event as its payload; what came between which replies can
be told afterwards, because everything stands in one list, events with type `EVENT`.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Protocol

from xen.hypervisor import RING, Guest

SECONDS = 20.0
GLANCE = 0.004
"""How long one connection is waited for before it is looked whether another one holds it up."""

EVENT = 15
HEADER = struct.Struct("=4I")
BARRIER = 0xFFFFFFF0
"""The request id of a question whose answer only shows that all before it was dealt with."""
QUESTION = HEADER.pack(10, BARRIER, 0, 2) + b"0\0"

Packet = tuple[int, bytes]


class SilenceError(Exception):
    """A daemon does not answer."""


class HungUpError(Exception):
    """A daemon has closed a socket."""


class End(Protocol):
    """The transport of a line."""

    def put(self, data: bytes) -> int:
        """As many bytes as it takes now."""

    def take(self) -> bytes:
        """What is there."""

    def wait(self, seconds: float) -> bool:
        """Until something may be there or may be put, but not longer; whether it was worth it."""

    def close(self) -> None: ...


class SocketEnd:
    """The unix socket."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(path)  # waits while too many others do
        self.sock.setblocking(False)
        self.poll = select.poll()
        self.poll.register(self.sock, select.POLLIN)

    def put(self, data: bytes) -> int:
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0
        except (BrokenPipeError, ConnectionResetError) as gone:
            raise HungUpError from gone

    def take(self) -> bytes:
        try:
            data = self.sock.recv(1 << 17)
        except BlockingIOError:
            return b""
        except ConnectionResetError as gone:
            raise HungUpError from gone
        if not data:
            raise HungUpError
        return data

    def wait(self, seconds: float) -> bool:
        return bool(self.poll.poll(seconds * 1000))

    def close(self) -> None:
        self.sock.close()


class RingEnd:
    """The ring of a guest."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest

    def put(self, data: bytes) -> int:
        taken = self.guest.put(data)
        if taken:
            self.guest.kick()
        return taken

    def take(self) -> bytes:
        data = self.guest.get()
        if len(data) >= RING // 2:  # somebody may wait for the room
            self.guest.kick()
        return data

    def wait(self, seconds: float) -> bool:
        if self.guest.wait(seconds):
            return True
        self.guest.kick()  # what either side may have missed
        return False

    def close(self) -> None:
        self.guest.close()


class Line:
    """A connection; ``got`` is what has come on it and was not fetched yet.

    ``stuck`` is called when nothing comes for a while: others may have to be read first.
    """

    def __init__(self, end: End, stuck: Callable[[], None]) -> None:
        self.end = end
        self.stuck = stuck
        self.data = b""
        self.got: list[Packet] = []
        self.answers: list[tuple[int, int, int]] = []  # index in `got`, request id, transaction
        self.number = 0
        self.watchful = False
        """Whether it may be told of something."""

    def ask_all(self, asks: list[tuple[int, bytes, int]]) -> None:
        """Sends requests (type, payload, transaction id) and waits for all the answers.

        Raises SilenceError, HungUpError, or AssertionError for an answer to another request.
        """
        first = self.number
        pack = HEADER.pack
        parts = []
        for number, (op, payload, tx) in enumerate(asks, first):
            parts.append(pack(op, number, tx, len(payload)))
            parts.append(payload)
        self.number = (first + len(asks)) % BARRIER
        seen = len(self.answers)
        self.exchange(b"".join(parts), seen + len(asks))
        for (_, number, tx), (op, _, sent), wanted in zip(
            self.answers[seen:], asks, range(first, first + len(asks)), strict=True
        ):
            # One daemon answers a request that ignores its transaction as if there were none.
            assert number == wanted, "an answer to another request"
            assert tx == sent or (tx == 0 and op in (4, 5)), "an answer for another transaction"

    def exchange(self, data: bytes, answers: int) -> None:
        """Sends, and reads until there are that many answers in all."""
        deadline = 0.0
        while data or len(self.answers) < answers:
            put = 0
            if data:
                put = self.end.put(data)
                data = data[put:] if put else data
            if not self.read() and not put and not self.end.wait(GLANCE):
                if not deadline:
                    deadline = time.monotonic() + SECONDS
                elif time.monotonic() > deadline:
                    raise SilenceError(f"{len(self.answers)} of {answers} answers")
                self.stuck()

    def read(self) -> bool:
        """Takes what is there; whether there was anything."""
        fresh = self.end.take()
        if not fresh:
            return False
        data = self.data + fresh if self.data else fresh
        at, end = 0, len(data)
        unpack, got = HEADER.unpack_from, self.got
        while at + 16 <= end:
            op, number, tx, size = unpack(data, at)
            if at + 16 + size > end:
                break
            if op != EVENT:
                self.answers.append((len(got), number, tx))
            got.append((op, data[at + 16 : at + 16 + size]))
            at += 16 + size
        self.data = data[at:]
        return True

    def ask_barrier(self) -> None:
        """Sends the question of a barrier, and does not wait."""
        self.barrier_at = len(self.answers) + 1
        self.unsent = QUESTION
        self.unsent = self.unsent[self.end.put(self.unsent) :]

    def await_barrier(self) -> None:
        """Waits for its answer, which is not kept."""
        self.exchange(self.unsent, self.barrier_at)
        where, number, _ = self.answers.pop()
        assert number == BARRIER, "an answer to another request"
        del self.got[where]

    def fetch(self) -> list[Packet]:
        """What has come, in order; it is forgotten here."""
        got = self.got
        self.got, self.answers = [], []
        return got

    def close(self) -> None:
        self.end.close()
