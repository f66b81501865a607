"""The xenstore wire protocol without any I/O: packets in, packets out.

A packet is a header of sixteen bytes and a payload of at most 4096::

     0        4        8        12       16
    +--------+--------+--------+--------+----------------------+
    |  type  | req_id | tx_id  | length | payload ...          |
    +--------+--------+--------+--------+----------------------+
      four unsigned 32-bit numbers in the byte order of the host

A reply repeats type, req_id and tx_id of its request, or has type ``ERROR`` and a symbolic error
name as payload. Replies come in the order of the requests; a ``WATCH_EVENT`` may come between any
two of them. Strings in payloads end with a NUL; the value of READ and WRITE is raw. A kernel that
passes requests on answers WATCH and UNWATCH itself, and not every one repeats req_id and tx_id:
zeros will do there.

``Decoder`` cuts packets from a byte stream however it is fragmented, ``Session`` pairs replies
with requests. What the requests mean is in ``requests``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntEnum
from struct import Struct
from typing import Any, Generic, NamedTuple, TypeVar

from .errors import ProtocolError, XenstoreError

T_co = TypeVar("T_co", covariant=True)

#: Most bytes a payload may have, in both directions.
PAYLOAD_MAX = 4096
#: Most characters of an absolute path that any server accepts.
PATH_MAX = 3072

HEADER = Struct("=IIII")


class Op(IntEnum):
    """Message types by their number on the wire."""

    CONTROL = 0
    DIRECTORY = 1
    READ = 2
    GET_PERMS = 3
    WATCH = 4
    UNWATCH = 5
    TRANSACTION_START = 6
    TRANSACTION_END = 7
    INTRODUCE = 8
    RELEASE = 9
    GET_DOMAIN_PATH = 10
    WRITE = 11
    MKDIR = 12
    RM = 13
    SET_PERMS = 14
    WATCH_EVENT = 15
    ERROR = 16
    IS_DOMAIN_INTRODUCED = 17
    RESUME = 18
    SET_TARGET = 19
    RESTRICT = 20
    RESET_WATCHES = 21
    DIRECTORY_PART = 22
    GET_FEATURE = 23
    SET_FEATURE = 24
    GET_QUOTA = 25
    SET_QUOTA = 26
    INVALID = 65535


_ERROR = int(Op.ERROR)
_WATCH_EVENT = int(Op.WATCH_EVENT)
_ANSWERED_BY_KERNELS = frozenset({Op.WATCH, Op.UNWATCH})


class Packet(NamedTuple):
    """One message: header fields and payload. ``type`` is any number, known or not."""

    type: int
    req_id: int
    tx_id: int
    payload: bytes


class WatchEvent(NamedTuple):
    """Something changed at ``path``; ``token`` says which of the caller's watches saw it."""

    path: str
    token: bytes


class Request(NamedTuple, Generic[T_co]):
    """What to send, and how to understand the payload of a success reply.

    ``path`` is only for error messages. ``decode`` raises ``ValueError`` if the payload has not
    the form the operation promises.
    """

    op: Op
    payload: bytes
    decode: Callable[[bytes], T_co]
    path: str = ""


def pack(packet: Packet) -> bytes:
    """Encode a packet; ``ValueError`` if its payload is longer than 4096 bytes."""
    length = len(packet.payload)
    if length > PAYLOAD_MAX:
        raise ValueError(f"payload has {length} bytes, at most {PAYLOAD_MAX} fit in a packet")
    return HEADER.pack(packet.type, packet.req_id, packet.tx_id, length) + packet.payload


def encode_text(text: str) -> bytes:
    """Encode a path, name or other string; bytes that came in undecodable go out unchanged."""
    return text.encode("utf-8", "surrogateescape")


def decode_text(raw: bytes) -> str:
    """Decode a path, name or other string; the inverse of ``encode_text``."""
    return raw.decode("utf-8", "surrogateescape")


def join_strings(*strings: bytes) -> bytes:
    """Concatenate strings, each with its NUL; ``ValueError`` if one contains a NUL."""
    for string in strings:
        if b"\0" in string:
            raise ValueError(f"{string!r} contains a NUL byte, which ends a string on the wire")
    return b"".join(string + b"\0" for string in strings)


def split_strings(payload: bytes) -> list[bytes]:
    """Cut a payload into its strings; ``ValueError`` unless it is empty or ends with NUL."""
    if not payload:
        return []
    if payload[-1]:
        raise ValueError("the last string has no terminating NUL")
    return payload[:-1].split(b"\0")


class Decoder:
    """Cuts a byte stream into packets.

    Feed any fragments; ``next`` gives the packets that are complete. A header that announces more
    than 4096 bytes raises ``ProtocolError``, and raises it again on every later call, because
    from there on nobody knows where the next packet starts.
    """

    __slots__ = ("_buffer", "_start")

    def __init__(self) -> None:
        self._buffer = b""
        self._start = 0

    def feed(self, data: bytes) -> None:
        """Append bytes of the stream."""
        self._buffer = self._buffer[self._start :] + data
        self._start = 0

    def next(self) -> Packet | None:
        """The next complete packet, or None until more bytes arrive."""
        start = self._start
        body = start + HEADER.size
        if len(self._buffer) < body:
            return None
        kind, req_id, tx_id, length = HEADER.unpack_from(self._buffer, start)
        if length > PAYLOAD_MAX:
            raise ProtocolError(
                f"a header announces {length} bytes of payload, at most {PAYLOAD_MAX} are allowed"
            )
        end = body + length
        if len(self._buffer) < end:
            return None
        self._start = end
        return Packet(kind, req_id, tx_id, self._buffer[body:end])

    @property
    def partial(self) -> int:
        """Bytes received that do not make a packet yet."""
        return len(self._buffer) - self._start


def decode_event(payload: bytes) -> WatchEvent:
    """Decode the payload of a WATCH_EVENT; ``ProtocolError`` if it is not two strings."""
    strings = payload.split(b"\0")
    if len(strings) != 3 or strings[-1]:
        raise ProtocolError(f"a watch event must be a path and a token, got {payload!r}")
    return WatchEvent(decode_text(strings[0]), strings[1])


class Pending(NamedTuple):
    """A request that was sent and has no reply yet; ``tag`` is the caller's."""

    req_id: int
    tx_id: int
    request: Request[Any]
    tag: Any


class Session:
    """One connection's protocol state: bytes to send, requests in flight, events received.

    Whoever does the I/O takes bytes from ``outgoing``, gives what arrives to ``received`` and asks
    ``next_reply``. Everything a peer can do wrong raises ``ProtocolError``, after which the
    connection has to be closed.
    """

    __slots__ = ("_decoder", "_next_id", "_pending", "_refusal", "events", "outgoing")

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._pending: deque[Pending] = deque()
        self._next_id = 1
        self._refusal = ""
        #: Encoded requests that were not written yet.
        self.outgoing = bytearray()
        #: Watch events in the order of arrival.
        self.events: deque[WatchEvent] = deque()

    @property
    def in_flight(self) -> int:
        """Number of requests without a reply."""
        return len(self._pending)

    def send(self, request: Request[Any], tx_id: int = 0, tag: object = None) -> None:
        """Queue a request; ``XenstoreError`` E2BIG if it does not fit in a packet."""
        op, payload, _, path = request
        length = len(payload)
        if length > PAYLOAD_MAX:
            raise XenstoreError("E2BIG", op.name, path)
        req_id = self._next_id
        self._next_id = (req_id + 1) & 0xFFFFFFFF
        self.outgoing += HEADER.pack(op, req_id, tx_id, length)
        self.outgoing += payload
        self._pending.append(Pending(req_id, tx_id, request, tag))

    def received(self, data: bytes) -> None:
        """Hand over bytes from the peer."""
        self._decoder.feed(data)

    def refused(self, name: str) -> None:
        """The request that ``outgoing`` starts with cannot leave; that error is its reply.

        Only when all requests before it have their replies.
        """
        del self.outgoing[: HEADER.size + HEADER.unpack_from(self.outgoing)[3]]
        self._refusal = name

    def next_reply(self) -> tuple[Any, Any] | None:
        """The next reply as (tag, value or ``XenstoreError``), None until more bytes arrive.

        Watch events met on the way are appended to ``events``.
        """
        if self._refusal:
            name, self._refusal = self._refusal, ""
            _, _, request, tag = self._pending.popleft()
            return tag, XenstoreError(name, request.op.name, request.path)
        while (packet := self._decoder.next()) is not None:
            if packet.type == _WATCH_EVENT:
                self.events.append(decode_event(packet.payload))
                continue
            return self._settle(packet)
        return None

    def next_event(self) -> WatchEvent | None:
        """The oldest watch event; None if there is none.

        Only for times when no request is in flight: a reply without a request is an error.
        """
        if not self.events and not self._pending:
            self.next_reply()
        return self.events.popleft() if self.events else None

    def forget(self, path: str, token: bytes) -> None:
        """Drop the events that a removed watch left behind."""
        below = path if path.endswith("/") else path + "/"
        self.events = deque(
            event
            for event in self.events
            if event.token != token or not (event.path + "/").startswith(below)
        )

    def _settle(self, packet: Packet) -> tuple[Any, Any]:
        if not self._pending:
            raise ProtocolError(f"a reply of type {packet.type} arrived without a request")
        req_id, tx_id, request, tag = self._pending.popleft()
        op = request.op
        ids = packet.req_id, packet.tx_id
        if ids != (req_id, tx_id) and (any(ids) or op not in _ANSWERED_BY_KERNELS):
            raise ProtocolError(
                f"expected the reply to request {req_id} in transaction {tx_id}, "
                f"got one to request {packet.req_id} in transaction {packet.tx_id}"
            )
        if packet.type == op:
            try:
                return tag, request.decode(packet.payload)
            except ValueError as malformed:
                raise ProtocolError(f"malformed reply to {op.name}: {malformed}") from malformed
        if packet.type == _ERROR:
            name = decode_text(packet.payload.rstrip(b"\0"))
            return tag, XenstoreError(name, op.name, request.path)
        raise ProtocolError(f"expected a reply of type {op.value} ({op.name}), got {packet.type}")
