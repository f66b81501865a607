"""Packets, strings and the pairing of replies with requests."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xsd.client import requests, wire
from xsd.client.errors import ProtocolError, XenstoreError
from xsd.client.wire import Decoder, Op, Packet, Session, WatchEvent


def header(kind: int, req_id: int, tx_id: int, length: int) -> bytes:
    """A header, spelled out independently of the code under test."""
    return b"".join(n.to_bytes(4, sys.byteorder) for n in (kind, req_id, tx_id, length))


def reply(kind: int, payload: bytes, req_id: int = 1, tx_id: int = 0) -> bytes:
    return header(kind, req_id, tx_id, len(payload)) + payload


#: The numbers are the protocol; none may ever move.
NUMBERS = {
    "CONTROL": 0,
    "DIRECTORY": 1,
    "READ": 2,
    "GET_PERMS": 3,
    "WATCH": 4,
    "UNWATCH": 5,
    "TRANSACTION_START": 6,
    "TRANSACTION_END": 7,
    "INTRODUCE": 8,
    "RELEASE": 9,
    "GET_DOMAIN_PATH": 10,
    "WRITE": 11,
    "MKDIR": 12,
    "RM": 13,
    "SET_PERMS": 14,
    "WATCH_EVENT": 15,
    "ERROR": 16,
    "IS_DOMAIN_INTRODUCED": 17,
    "RESUME": 18,
    "SET_TARGET": 19,
    "RESTRICT": 20,
    "RESET_WATCHES": 21,
    "DIRECTORY_PART": 22,
    "GET_FEATURE": 23,
    "SET_FEATURE": 24,
    "GET_QUOTA": 25,
    "SET_QUOTA": 26,
    "INVALID": 65535,
}


def test_message_type_numbers() -> None:
    """Every message type has its number of the protocol."""
    assert {op.name: op.value for op in Op} == NUMBERS


def test_pack() -> None:
    """A packet is four numbers in host byte order and the payload."""
    assert wire.pack(Packet(11, 7, 3, b"/a\0v")) == header(11, 7, 3, 4) + b"/a\0v"


def test_pack_limit() -> None:
    """4096 bytes of payload fit, one more does not."""
    assert len(wire.pack(Packet(2, 0, 0, bytes(4096)))) == 16 + 4096
    with pytest.raises(ValueError, match="4097 bytes, at most 4096"):
        wire.pack(Packet(2, 0, 0, bytes(4097)))


PACKETS = st.builds(
    Packet,
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=200) | st.just(bytes(4096)),
)


@given(st.lists(PACKETS, max_size=8), st.lists(st.integers(1, 300), max_size=60))
def test_decoder_does_not_depend_on_fragmentation(packets: list[Packet], cuts: list[int]) -> None:
    """However a stream is cut, the same packets come out."""
    stream = b"".join(wire.pack(packet) for packet in packets)
    decoder = Decoder()
    decoded = []
    for size in [*cuts, len(stream) + 1]:
        piece, stream = stream[:size], stream[size:]
        decoder.feed(piece)
        while (packet := decoder.next()) is not None:
            decoded.append(packet)
    assert decoded == packets
    assert decoder.partial == 0


def test_decoder_waits_for_the_rest() -> None:
    """Part of a header or of a payload is no packet yet."""
    data = reply(2, b"value")
    decoder = Decoder()
    for position in range(len(data) - 1):
        decoder.feed(data[position : position + 1])
        assert decoder.next() is None
        assert decoder.partial == position + 1
    decoder.feed(data[-1:])
    assert decoder.next() == Packet(2, 1, 0, b"value")


@pytest.mark.parametrize("length", [4097, 65536, 2**32 - 1])
def test_decoder_refuses_oversize(length: int) -> None:
    """A header that announces too much is an error before its payload arrives, and stays one."""
    decoder = Decoder()
    decoder.feed(header(2, 1, 0, length))
    for _ in range(2):
        with pytest.raises(ProtocolError, match=f"announces {length} bytes"):
            decoder.next()


def test_join_strings() -> None:
    """Each string gets its NUL; one inside is refused."""
    assert wire.join_strings(b"a", b"", b"bc") == b"a\0\0bc\0"
    with pytest.raises(ValueError, match="NUL"):
        wire.join_strings(b"a\0b")


def test_split_strings() -> None:
    """The inverse of joining; an unterminated string is refused."""
    assert wire.split_strings(b"") == []
    assert wire.split_strings(b"\0") == [b""]
    assert wire.split_strings(b"a\0\0bc\0") == [b"a", b"", b"bc"]
    with pytest.raises(ValueError, match="NUL"):
        wire.split_strings(b"a\0b")


@given(st.binary())
def test_text_keeps_all_bytes(raw: bytes) -> None:
    """Any bytes survive being text."""
    assert wire.encode_text(wire.decode_text(raw)) == raw


def test_decode_event() -> None:
    """An event is a path and a token, the token any bytes but NUL."""
    assert wire.decode_event(b"/a\0\xff\0") == WatchEvent("/a", b"\xff")
    assert wire.decode_event(b"a\0\0") == WatchEvent("a", b"")


@pytest.mark.parametrize("payload", [b"", b"/a", b"/a\0", b"/a\0tok", b"/a\0tok\0more\0"])
def test_decode_malformed_event(payload: bytes) -> None:
    """Anything else is an error of the peer."""
    with pytest.raises(ProtocolError, match="path and a token"):
        wire.decode_event(payload)


def started(*asked: wire.Request[object], tx_id: int = 0) -> Session:
    session = Session()
    for number, request in enumerate(asked):
        session.send(request, tx_id, number)
    return session


def test_session_sends() -> None:
    """Requests are numbered from 1, carry their transaction, and are queued in order."""
    session = started(requests.read("/a"), requests.mkdir("/b"), tx_id=9)
    assert session.outgoing == header(2, 1, 9, 3) + b"/a\0" + header(12, 2, 9, 3) + b"/b\0"
    assert session.in_flight == 2


def test_session_pairs_in_order() -> None:
    """Replies settle requests in order, with the tag that was given."""
    session = started(requests.read("/a"), requests.directory("/b"))
    session.received(reply(2, b"value", 1) + reply(1, b"x\0y\0", 2))
    assert session.next_reply() == (0, b"value")
    assert session.next_reply() == (1, ["x", "y"])
    assert session.next_reply() is None
    assert session.in_flight == 0


def test_session_error_reply() -> None:
    """An error reply becomes an exception with number, name, operation and path."""
    session = started(requests.read("/a"))
    session.received(reply(16, b"ENOENT\0"))
    settled = session.next_reply()
    assert settled is not None
    error = settled[1]
    assert isinstance(error, XenstoreError)
    assert (error.name, error.errno, error.operation, error.path) == ("ENOENT", 2, "READ", "/a")


def test_session_events_between_replies() -> None:
    """Events are collected wherever they come, and do not disturb the pairing."""
    session = started(requests.read("/a"), requests.read("/b"))
    event = reply(15, b"/w\0t\0", 0)
    session.received(event + reply(2, b"1", 1) + event + event + reply(2, b"2", 2) + event)
    assert session.next_reply() == (0, b"1")
    assert session.next_reply() == (1, b"2")
    assert [session.next_event() for _ in range(5)] == [WatchEvent("/w", b"t")] * 4 + [None]


def test_session_forgets_events_of_a_removed_watch() -> None:
    """Only events of that token at or below that path go."""
    session = started()
    seen = [b"/a\0t\0", b"/a/b\0t\0", b"/ab\0t\0", b"/a\0u\0"]
    session.received(b"".join(reply(15, payload, 0) for payload in seen))
    assert session.next_event() == WatchEvent("/a", b"t")
    session.forget("/a", b"t")
    assert list(session.events) == [WatchEvent("/ab", b"t"), WatchEvent("/a", b"u")]


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (reply(2, b"", 2), "expected the reply to request 1"),
        (reply(2, b"", 1, 5), "in transaction 5"),
        (reply(1, b"", 1), "expected a reply of type 2"),
        (reply(999, b"", 1), "expected a reply of type 2"),
        (header(2, 1, 0, 5000), "announces 5000 bytes"),
    ],
)
def test_session_malformed_reply(answer: bytes, complaint: str) -> None:
    """A reply that is not one to the oldest request is an error of the peer."""
    session = started(requests.read("/a"))
    session.received(answer)
    with pytest.raises(ProtocolError, match=complaint):
        session.next_reply()


def test_session_reply_without_request() -> None:
    """A reply that nobody asked for is an error of the peer."""
    session = started()
    session.received(reply(2, b"", 1))
    with pytest.raises(ProtocolError, match="without a request"):
        session.next_event()


def test_session_malformed_payload() -> None:
    """A success reply whose payload breaks its promise is an error of the peer."""
    session = started(requests.directory("/a"))
    session.received(reply(1, b"x\0y", 1))
    with pytest.raises(ProtocolError, match="malformed reply to DIRECTORY"):
        session.next_reply()


def test_session_request_too_big() -> None:
    """A request that does not fit is refused before anything is queued."""
    session = started()
    session.send(requests.write("/a", bytes(4093)))
    queued = bytes(session.outgoing)
    with pytest.raises(XenstoreError) as caught:
        session.send(requests.write("/a", bytes(4094)))
    assert (caught.value.name, caught.value.path) == ("E2BIG", "/a")
    assert session.outgoing == queued
    assert session.in_flight == 1


def surveyed(*paths: bytes) -> Session:
    session = Session()
    session.send_series(wire.Series((Op.READ, Op.DIRECTORY), 9), paths)
    return session


def test_series_sends() -> None:
    """Each path is asked all operations, numbered like any requests, in one transaction."""
    session = surveyed(b"/a\0", b"/bc\0")
    assert session.outgoing == (
        header(2, 1, 9, 3) + b"/a\0" + header(1, 2, 9, 3) + b"/a\0"
        + header(2, 3, 9, 4) + b"/bc\0" + header(1, 4, 9, 4) + b"/bc\0"
    )  # fmt: skip
    assert session.in_flight == 4


def test_series_replies_however_cut() -> None:
    """Replies come in order, successes and errors, wherever the stream is cut; events go aside."""
    stream = (
        reply(2, b"1", 1, 9) + reply(15, b"/w\0t\0", 0) + reply(16, b"ENOENT\0", 2, 9)
        + reply(2, b"", 3, 9) + reply(1, b"x\0", 4, 9)
    )  # fmt: skip
    for cut in range(len(stream) + 1):
        session = surveyed(b"/a\0", b"/b\0")
        found: list[bytes | str] = []
        for piece in (stream[:cut], stream[cut:]):
            session.received(piece)
            while session.in_flight and (some := session.next_replies()) is not None:
                found += some
        assert found == [b"1", "ENOENT", b"", b"x\0"]
        assert (session.in_flight, list(session.events)) == (0, [WatchEvent("/w", b"t")])


def test_series_takes_no_more_than_its_replies() -> None:
    """What follows the last reply is not part of it, even if it would be next in the series."""
    session = surveyed(b"/a\0")
    session.received(reply(2, b"1", 1, 9) + reply(1, b"", 2, 9) + reply(2, b"2", 3, 9))
    assert session.next_replies() == [b"1", b""]
    session.send(requests.read("/b"), 9)
    assert session.next_reply() == (None, b"2")


def test_series_over_the_last_id() -> None:
    """Request ids start again at 0 when they end."""
    session = Session()
    session._next_id = 0xFFFFFFFF
    session.send_series(wire.Series((Op.READ, Op.DIRECTORY), 0), [b"/a\0"])
    session.received(reply(2, b"1", 0xFFFFFFFF) + reply(1, b"", 0))
    assert session.next_replies() == [b"1", b""]


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (reply(2, b"", 2, 9), "to request 1 in transaction 9, got one of type 2 to request 2"),
        (reply(2, b"", 1, 5), "in transaction 5"),
        (reply(1, b"", 1, 9), r"expected the reply of type 2 \(READ\)"),
        (header(2, 1, 9, 5000), "announces 5000 bytes"),
    ],
)
def test_series_malformed_reply(answer: bytes, complaint: str) -> None:
    """A reply that is not one to the oldest request is an error of the peer."""
    session = surveyed(b"/a\0")
    session.received(answer)
    with pytest.raises(ProtocolError, match=complaint):
        session.next_replies()


def test_series_path_too_long() -> None:
    """A path that does not fit is refused before anything is queued."""
    session = Session()
    with pytest.raises(XenstoreError) as caught:
        session.send_series(wire.Series((Op.READ,), 0), [b"/a\0", bytes(4097)])
    assert (caught.value.name, session.in_flight, session.outgoing) == ("E2BIG", 0, b"")
