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
from collections.abc import Callable, Iterable
from enum import IntEnum
from itertools import cycle, islice
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


_pack, _unpack = HEADER.pack, HEADER.unpack_from
_ID_MAX = 0xFFFFFFFF
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

    def replies(self, ops: Iterable[int], req_id: int, tx_id: int) -> list[bytes | str]:
        """The packets up to the first that is incomplete or not expected; that one stays.

        Expected is a reply to each of ``ops``, with ids from ``req_id`` on. A success is its
        payload, an error its name. One loop, since a call for each packet takes twice as long.
        """
        buffer, end = self._buffer, self._start
        size = len(buffer)
        found: list[bytes | str] = []
        for op in ops:
            start = end + 16
            if start > size:
                break
            kind, number, transaction, length = _unpack(buffer, end)
            stop = start + length
            if number != req_id or transaction != tx_id or length > PAYLOAD_MAX or stop > size:
                break
            if kind == op:
                found.append(buffer[start:stop])
            elif kind == _ERROR:
                found.append(decode_text(buffer[start:stop].rstrip(b"\0")))
            else:
                break
            req_id = (req_id + 1) & _ID_MAX
            end = stop
        self._start = end
        return found

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


class Series(NamedTuple):
    """The same few operations about many paths, all in one transaction."""

    ops: tuple[Op, ...]
    tx_id: int


_NO_SERIES = Series((), 0)


class Session:
    """One connection's protocol state: bytes to send, requests in flight, events received.

    Whoever does the I/O takes bytes from ``outgoing``, gives what arrives to ``received`` and asks
    ``next_reply``. Everything a peer can do wrong raises ``ProtocolError``, after which the
    connection has to be closed.
    """

    __slots__ = (
        "_decoder",
        "_next_id",
        "_pending",
        "_refusal",
        "_series",
        "_series_in_flight",
        "events",
        "outgoing",
    )

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._pending: deque[Pending] = deque()
        self._next_id = 1
        self._refusal = ""
        self._series = _NO_SERIES
        self._series_in_flight = 0
        #: Encoded requests that were not written yet.
        self.outgoing = bytearray()
        #: Watch events in the order of arrival.
        self.events: deque[WatchEvent] = deque()

    @property
    def in_flight(self) -> int:
        """Number of requests without a reply."""
        return len(self._pending) + self._series_in_flight

    def send(self, request: Request[Any], tx_id: int = 0, tag: object = None) -> None:
        """Queue a request; ``XenstoreError`` E2BIG if it does not fit in a packet."""
        op, payload, _, path = request
        length = len(payload)
        if length > PAYLOAD_MAX:
            raise XenstoreError("E2BIG", op.name, path)
        req_id = self._next_id
        self._next_id = (req_id + 1) & _ID_MAX
        self.outgoing += HEADER.pack(op, req_id, tx_id, length)
        self.outgoing += payload
        self._pending.append(Pending(req_id, tx_id, request, tag))

    def send_series(self, series: Series, paths: Iterable[bytes]) -> None:
        """Queue the operations of a series for each path, which ends with its NUL.

        Only when nothing is in flight that is not of this series; ``next_replies`` has the
        outcomes. ``XenstoreError`` E2BIG if a path does not fit in a packet.
        """
        ops, tx_id = series
        kinds = tuple(map(int, ops))
        req_id = self._next_id
        packets: list[bytes] = []
        for path in paths:
            if (length := len(path)) > PAYLOAD_MAX:
                raise XenstoreError("E2BIG", ops[0].name, decode_text(path[:-1]))
            for kind in kinds:
                packets += _pack(kind, req_id, tx_id, length), path
                req_id = (req_id + 1) & _ID_MAX
        self._next_id = req_id
        self._series = series
        self._series_in_flight += len(packets) // 2
        self.outgoing += b"".join(packets)

    def next_replies(self) -> list[bytes | str] | None:
        """The replies to a series that are here, None until more bytes arrive.

        A success is its payload, an error its name; the paths' replies follow each other in
        order, but any number of them may come at a time.
        """
        ops, tx_id = self._series
        left = self._series_in_flight
        if self._refusal:
            found: list[bytes | str] = [self._refusal]
            self._refusal = ""
        else:
            while True:
                # A series ends with the last of its operations: so the oldest one is known.
                place = -left % len(ops)
                req_id = (self._next_id - left) & _ID_MAX
                expected = islice(cycle(ops), place, place + left)
                found = self._decoder.replies(expected, req_id, tx_id)
                if found:
                    break
                if (packet := self._decoder.next()) is None:
                    return None
                if packet.type != _WATCH_EVENT:
                    raise ProtocolError(
                        f"expected the reply of type {ops[place].value} ({ops[place].name}) to "
                        f"request {req_id} in transaction {tx_id}, got one of type {packet.type} "
                        f"to request {packet.req_id} in transaction {packet.tx_id}"
                    )
                self.events.append(decode_event(packet.payload))
        self._series_in_flight = left - len(found)
        return found

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
