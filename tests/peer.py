"""A client that can misbehave: raw messages over the socket, and a neighbour that does not."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

from xsd.client.wire import Op

SECONDS = 30.0
HEADER = struct.Struct("=IIII")

_ROUNDS = 20000


class Packet(NamedTuple):
    """A message as it came."""

    type: int
    req_id: int
    tx_id: int
    payload: bytes


def message(op: int, payload: bytes = b"", tx_id: int = 0, req_id: int = 0) -> bytes:
    """A message as it goes over the wire; the payload may be longer than allowed."""
    return HEADER.pack(op, req_id, tx_id, len(payload)) + payload


class Peer:
    """A connection on which anything can be sent; receiving is bounded by a timeout."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # With a timeout of Python's a connect would not wait when the listening queue is full.
        bound = struct.pack("ll", int(SECONDS), 0)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, bound)
        try:
            self.sock.connect(path)
        except BaseException:
            self.sock.close()
            raise
        self.sock.settimeout(SECONDS)
        self.events: list[tuple[bytes, ...]] = []
        self._ids = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hangs up."""
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Sends all bytes."""
        self.sock.sendall(data)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.sock.recv(size - len(data))
            if not part:
                raise ConnectionResetError("closed by the daemon")
            data += part
        return data

    def packet(self) -> Packet:
        """The next message of any kind; ConnectionResetError when there will be none."""
        op, req_id, tx_id, size = HEADER.unpack(self._exactly(HEADER.size))
        return Packet(op, req_id, tx_id, self._exactly(size))

    def reply(self) -> Packet:
        """The next message that is no event; events on the way go to ``events``."""
        while (packet := self.packet()).type == Op.WATCH_EVENT:
            self._note(packet)
        return packet

    def event(self) -> tuple[bytes, ...]:
        """The oldest event that was not fetched yet: path and token."""
        if not self.events:
            packet = self.packet()
            assert packet.type == Op.WATCH_EVENT
            self._note(packet)
        return self.events.pop(0)

    def _note(self, packet: Packet) -> None:
        assert (packet.req_id, packet.tx_id) == (0, 0)
        self.events.append(tuple(packet.payload.split(b"\0")[:-1]))

    def ask(self, op: int, payload: bytes = b"", tx_id: int = 0) -> str | bytes:
        """One request and its reply: the payload, or the name of the error as a string.

        Asserts that the reply repeats what it has to repeat.
        """
        self._ids += 1
        self.send(message(op, payload, tx_id, self._ids))
        packet = self.reply()
        assert packet[1:3] == (self._ids, tx_id)
        if packet.type == Op.ERROR:
            assert packet.payload.endswith(b"\0")
            return packet.payload[:-1].decode()
        assert packet.type == op
        return packet.payload

    def is_closed(self) -> bool:
        """Whether the daemon closes the connection without another word; waits for it."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def start(self) -> int:
        """Starts a transaction; its id."""
        answer = self.ask(Op.TRANSACTION_START, b"\0")
        assert isinstance(answer, bytes) and answer.endswith(b"\0")
        return int(answer[:-1])

    def until(self, holds: Callable[[], bool]) -> None:
        """Keeps the daemon's loop turning by requests until something holds, a bounded time."""
        for _ in range(_ROUNDS):
            if holds():
                return
            assert self.ask(Op.DIRECTORY, b"/tool\0") == b"xenstored\0"
        raise TimeoutError(f"not after {_ROUNDS} requests")


class Neighbour:
    """A well-behaved client with a node, a watch and a transaction of its own.

    ``works`` does a round of everything and asserts that each answer is right and that nothing
    comes that it did not ask for.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.peer = Peer(path)
        self._round = 0
        ask = self.peer.ask
        ask(Op.RM, b"/neighbour\0")
        assert ask(Op.WRITE, b"/neighbour/value\0" + b"0") == b"OK\0"
        self._tx = self.peer.start()
        assert ask(Op.WRITE, b"/neighbour/committed\0yes", self._tx) == b"OK\0"
        assert ask(Op.WATCH, b"/neighbour/value\0my token\0") == b"OK\0"
        assert self.peer.event() == (b"/neighbour/value", b"my token")

    def works(self) -> None:
        """One round."""
        peer = self.peer
        self._round += 1
        value = b"%d" % self._round
        assert peer.ask(Op.WRITE, b"/neighbour/value\0" + value) == b"OK\0"
        assert peer.event() == (b"/neighbour/value", b"my token")
        assert peer.ask(Op.READ, b"/neighbour/value\0") == value
        assert peer.ask(Op.READ, b"/neighbour/none\0") == "ENOENT"
        assert peer.ask(Op.READ, b"/neighbour/committed\0", self._tx) == b"yes"
        assert peer.ask(Op.DIRECTORY, b"/neighbour\0") == b"value\0"
        assert peer.events == []

    def leaves(self) -> None:
        """A last round; then its transaction commits, and the daemon finds itself consistent."""
        self.works()
        peer = self.peer
        assert peer.ask(Op.TRANSACTION_END, b"T\0", self._tx) == b"OK\0"
        assert peer.ask(Op.READ, b"/neighbour/committed\0") == b"yes"
        assert peer.ask(Op.CONTROL, b"check\0") == b"OK\0"
        assert peer.ask(Op.UNWATCH, b"/neighbour/value\0my token\0") == b"OK\0"
        assert peer.ask(Op.RM, b"/neighbour\0") == b"OK\0"
        assert peer.events == []
        peer.close()
