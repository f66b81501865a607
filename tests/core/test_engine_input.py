"""What comes in: cut anywhere, of any length, of any bytes."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_tree import RING, SOCKET
from world import OK, EngineWorld, Msg, strings

from xsd.core import engine as core

WORD = set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-/_@")


def frame(kind: int, payload: bytes = b"", tx: int = 0, req: int = 0) -> bytes:
    return struct.pack("=4I", kind, req, tx, len(payload)) + payload


# ---- cutting ---------------------------------------------------------------------------------

PATHS = st.sampled_from([b"/", b"/a", b"/a/b", b"/tool", b"rel", b"/bad//", b"@releaseDomain", b""])
MESSAGES = st.one_of(
    st.builds(
        frame,
        st.sampled_from([Msg.READ, Msg.DIRECTORY, Msg.MKDIR, Msg.RM, Msg.GET_PERMS]),
        PATHS.map(lambda path: path + b"\0"),
        st.sampled_from([0, 0, 1, 2]),
        st.integers(0, 99),
    ),
    st.builds(
        lambda path, value, tx: frame(Msg.WRITE, path + b"\0" + value, tx),
        PATHS,
        st.binary(max_size=40),
        st.sampled_from([0, 1]),
    ),
    st.builds(lambda path: frame(Msg.WATCH, path + b"\0t\0"), PATHS),
    st.builds(lambda path: frame(Msg.SET_PERMS, path + b"\0n0\0r1\0"), PATHS),
    st.just(frame(Msg.TRANSACTION_START, b"\0")),
    st.just(frame(Msg.TRANSACTION_END, b"T\0", 1)),
    st.builds(frame, st.integers(0, 40), st.binary(max_size=30)),
)


def carry_out(engine: Any) -> None:
    """Answers what the engine asks for, in one manner."""
    while (effect := engine.next_effect()) is not None:
        number, kind, *_ = effect
        if kind in ("domain", "introduce", "control"):
            engine.complete(0, number, "ENOENT")


def everything_of(pieces: list[bytes]) -> tuple[bytes, int]:
    """Output and state after feeding one connection."""
    engine: Any = core.Engine()
    cid = engine.open(0, SOCKET, 0)
    closed = False
    for piece in pieces:
        closed = closed or bool(engine.feed(0, cid, piece) & core.CLOSE)
        carry_out(engine)
        while not closed and engine.next_runnable() >= 0:
            closed = bool(engine.feed(0, cid, b"") & core.CLOSE)
            carry_out(engine)
        if closed:
            break
    engine.check()
    return engine.take(cid), engine.state_hash()


@settings(deadline=None, max_examples=60)
@given(st.lists(MESSAGES, max_size=20), st.data())
def test_where_input_is_cut_does_not_matter(messages: list[bytes], data: st.DataObject) -> None:
    """Whole, byte by byte, or cut anywhere: the same output and the same state."""
    stream = b"".join(messages)
    whole = everything_of([stream])
    assert everything_of([stream[i : i + 1] for i in range(len(stream))]) == whole
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    edges = [0, *cuts, len(stream)]
    assert everything_of([stream[a:b] for a, b in pairwise(edges)]) == whole


@settings(deadline=None, max_examples=150)
@given(st.lists(st.one_of(st.binary(max_size=200), MESSAGES), max_size=12), st.booleans())
def test_garbage_breaks_nothing(pieces: list[bytes], ring: bool) -> None:
    """Whatever a peer sends, the engine stays consistent and serves others."""
    engine: Any = core.Engine()
    cid = engine.open(0, RING if ring else SOCKET, 5 if ring else 0)
    other = engine.open(0, SOCKET, 0)
    for piece in pieces:
        if engine.feed(0, cid, piece) & core.CLOSE:
            break
        carry_out(engine)
        engine.next_runnable()
    engine.check()
    engine.take(other)
    engine.feed(0, other, frame(Msg.GET_DOMAIN_PATH, b"5\0"))
    assert engine.take(other)[16:] == b"/local/domain/5\0"
    engine.close(0, cid)
    engine.check()


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 27), st.binary(max_size=64), st.sampled_from([0, 1, 7]), st.booleans())
def test_any_payload_of_any_type_is_answered(
    kind: int, payload: bytes, tx: int, guest: bool
) -> None:
    """Once, with the ids of the request."""
    world = EngineWorld()
    client = world.guest(1) if guest else world.socket()
    client.start()
    assert client.call(kind, payload, tx).req_id == 2
    world.check()


@pytest.mark.parametrize("kind", [SOCKET, RING])
def test_every_announced_length(kind: int) -> None:
    """0 to 4096 is a request, answered when it is complete; 4097 ends the connection."""
    for size in [*range(40), 100, 1000, 4094, 4095, 4096]:
        engine: Any = core.Engine()
        cid = engine.open(0, kind, 0)
        request = frame(Msg.READ, b"a" * (size - 1) + b"\0" if size else b"", req=7)
        assert len(request) == 16 + size
        assert not engine.feed(0, cid, request[:-1]) & (core.CLOSE | core.DIRTY)
        assert engine.feed(0, cid, request[-1:]) & core.DIRTY
        assert struct.unpack_from("=4I", engine.take(cid))[:2] == (Msg.ERROR, 7)
    for size in (4097, 65535, 1 << 31, (1 << 32) - 1):
        engine = core.Engine()
        cid = engine.open(0, kind, 0)
        header = struct.pack("=4I", Msg.READ, 0, 0, size)
        assert not engine.feed(0, cid, header[:-1]) & core.CLOSE
        flags = engine.feed(0, cid, header[-1:])
        assert bool(flags & core.CLOSE) == (kind == SOCKET)
        assert flags & core.PAUSE
        assert engine.take(cid) == b""


def test_what_was_asked_before_a_broken_header_is_answered() -> None:
    """A reply that waits is still to be sent before the connection is closed."""
    engine: Any = core.Engine()
    cid = engine.open(0, SOCKET, 0)
    data = frame(Msg.GET_PERMS, b"/tool\0") + struct.pack("=4I", 2, 0, 0, 9999)
    assert engine.feed(0, cid, data) & core.CLOSE
    assert engine.take(cid)[16:] == b"n0\0"


def test_more_than_a_buffer_at_once() -> None:
    """A megabyte of requests in one call; a paused connection does not take that much."""
    engine: Any = core.Engine()
    cid = engine.open(0, SOCKET, 0)
    request = frame(Msg.WRITE, b"/x\0" + b"v" * 1000)
    engine.feed(0, cid, request * 1000)
    assert engine.take(cid) == frame(Msg.WRITE, b"OK\0") * 1000
    engine.feed(0, cid, frame(Msg.CONTROL, b"help\0"))
    with pytest.raises(BlockingIOError):
        engine.feed(0, cid, request * 1000)


# ---- bytes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", [b"/%c", b"/a%cb", b"/a/%c", b"%c", b"a%c"])
def test_every_byte_in_a_path(pattern: bytes) -> None:
    """Letters, digits, "-", "_", "@" and "/" where a name can begin; else EINVAL."""
    world = EngineWorld()
    client = world.socket()
    for byte in range(1, 256):
        path = pattern % byte
        good = byte in WORD and b"//" not in path and not (len(path) > 1 and path.endswith(b"/"))
        if path.startswith(b"@"):
            good = False  # outside of the tree
        answer = client.write(path, b"v")
        assert answer == (OK if good else "EINVAL"), path
        if good:
            assert client.read(path) == b"v"
    # A NUL ends the path: what follows is the value.
    assert client.ask(Msg.WRITE, b"/nul\0rest\0more\0") == OK
    assert client.read(b"/nul") == b"rest\0more\0"
    world.check()


def test_every_byte_in_a_value_and_a_token() -> None:
    """Both are passed on as they are; a token ends at its NUL."""
    world = EngineWorld()
    client, writer = world.socket(), world.socket()
    value = bytes(range(256))
    assert client.write(b"/v", value) == OK
    assert client.read(b"/v") == value
    token = bytes(range(1, 256))
    assert client.watch(b"/v", token) == OK
    assert writer.write(b"/v", b"") == OK
    assert client.events() == [(b"/v", token)]
    assert client.unwatch(b"/v", token[:-1]) == "ENOENT"
    assert client.unwatch(b"/v", token) == OK


def test_tokens_of_four_kilobytes() -> None:
    """The first event fits, as path and token came in one payload; longer events are lost."""
    world = EngineWorld()
    client, writer = world.socket(), world.socket()
    token = b"\xfe" * (4096 - 5)
    assert client.watch(b"/ab", token) == OK
    assert client.ask(Msg.WATCH, b"/a\0" + token + b"\0") == OK
    assert client.events() == [(b"/a", token)]
    assert writer.write(b"/ab", b"") == OK
    assert client.events() == [(b"/ab", token)]
    assert writer.write(b"/ab/c", b"") == OK
    assert client.events() == []
    assert world.engine.counters()["events_dropped"] == 1
    assert client.ask(Msg.UNWATCH, strings(b"/ab", token)) == OK
    world.check()


def test_empty_tokens_and_values() -> None:
    """Nothing is something."""
    world = EngineWorld()
    client = world.socket()
    assert client.write(b"/e", b"") == OK
    assert client.read(b"/e") == b""
    assert client.watch(b"/e", b"") == OK
    assert client.unwatch(b"/e", b"") == OK
