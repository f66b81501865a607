"""Advisories about what goes over the wire: lengths, indices, one reply to each request."""

from __future__ import annotations

import pytest
from stores import EVERYBODY, Store, frame, home, on, owner
from world import OK, Client, Msg, strings

# --- 72: replies that do not fit


@on(*EVERYBODY)
def test_xsa_72_a_reply_that_does_not_fit_is_e2big(store: Store) -> None:
    """4096 bytes are sent, 4097 are not; the connection goes on."""
    dom0, guest = store.socket(), owner(store, 1)
    names = [b"%0255d" % i for i in range(16)]
    for name in names:
        assert dom0.mkdir(b"/wide/" + name) == OK
    assert dom0.setperms(b"/wide", b"n0", b"r1") == OK
    tx = guest.start()
    for tx_id in (0, tx):
        listed = guest.ls(b"/wide", tx_id)
        assert isinstance(listed, list)
        assert sorted(listed) == names
    assert guest.end(tx) == OK
    assert dom0.rm(b"/wide/" + names[0]) == OK
    assert dom0.mkdir(b"/wide/" + b"y" * 256) == OK
    tx = guest.start()
    for tx_id in (0, tx):
        assert guest.ls(b"/wide", tx_id) == "E2BIG"
        assert guest.read(b"/wide", tx_id) == b""
    assert guest.end(tx) == OK
    for i in range(300):
        assert dom0.mkdir(b"/wide/%0100d" % i) == OK
    assert guest.ls(b"/wide") == "E2BIG"
    assert guest.write(b"x", b"v") == OK


# --- 324: events that do not fit


@on(*EVERYBODY)
@pytest.mark.parametrize("absolute", [False, True])
def test_xsa_324_an_event_that_does_not_fit_is_no_event(store: Store, absolute: bool) -> None:
    """A long token and a long path together are too much for one message; others still come."""
    guest = owner(store, 1)
    watched = home(1) + b"/x" if absolute else b"x"
    token = b"t" * (4096 - len(watched) - 2)
    assert guest.watch(watched, token) == OK
    assert guest.watch(b"x", b"short") == OK
    longer = b"x/" + b"y" * 200

    def events(path: bytes) -> list[bytes]:
        """Tokens of the events of a write."""
        guest.send(Msg.WRITE, path + b"\0v", req=9)
        packets = guest.drain()
        packets += guest.drain()  # one of them replies first
        replies = [packet for packet in packets if packet.req_id == 9]
        assert [(reply.type, reply.payload) for reply in replies] == [(Msg.WRITE, OK)]
        assert all(len(packet.payload) <= 4096 for packet in packets)
        # One of the others says with an error that nobody asked for that an event did not fit.
        return [
            packet.payload.split(b"\0")[1] for packet in packets if packet.type == Msg.WATCH_EVENT
        ]

    for _ in range(3):
        assert events(longer) == [b"short"]
        assert sorted(events(b"x")) == [b"short", token]
    assert guest.read(longer) == b"v"


# --- 420: lengths that are negative for somebody


@on(*EVERYBODY)
@pytest.mark.parametrize(
    "size", [4097, 2**30 - 1, 2**30, 2**31 - 1, 2**31, 2**31 + 16, 2**32 - 16, 2**32 - 1]
)
@pytest.mark.parametrize("kind", [Msg.WRITE, Msg.READ])
def test_xsa_420_absurd_lengths_harm_nobody_else(store: Store, kind: int, size: int) -> None:
    """Who sends such a header gets no service by it; all others do, and it can be got rid of."""
    dom0, guest, other = store.socket(), owner(store, 1), owner(store, 2)
    header = frame(kind)[:12] + size.to_bytes(4, "little")
    assert store.push(guest, header) == 16
    for i in range(10):
        store.push(guest, home(1) + b"/x\0" + b"v" * 200)
        store.turn()
        assert dom0.write(b"/alive", b"%d" % i) == OK
        assert other.write(b"alive", b"%d" % i) == OK
    assert dom0.read(home(1) + b"/x") == "ENOENT"
    store.kill(1)
    again = owner(store, 1)
    assert again.write(b"x", b"v") == OK


# --- 481: exactly one reply to each request, whatever the path


@on(*EVERYBODY)
@pytest.mark.parametrize("who", ["dom0", "guest"])
@pytest.mark.parametrize(
    "path", [b"/local/domain/", b"/local/domain//", b"/local/domain/1/", b"/local/domain//x"]
)
def test_xsa_481_odd_paths_get_one_reply(store: Store, path: bytes, who: str) -> None:
    """The prefix of homes without a domain, or without anything behind it, is no path."""
    guest = owner(store, 1)
    client: Client = guest if who == "guest" else store.socket()
    tx = client.start()
    for tx_id in (0, tx):
        for kind in (Msg.READ, Msg.DIRECTORY, Msg.GET_PERMS, Msg.MKDIR, Msg.RM):
            assert client.ask(kind, path + b"\0", tx_id) == "EINVAL"
        assert client.write(path, b"v", tx_id) == "EINVAL"
        assert client.setperms(path, b"n1", tx=tx_id) == "EINVAL"
    assert client.ask(Msg.WATCH, strings(path, b"t")) == "EINVAL"
    # Whether it is no path, or nobody watches it, does not matter.
    assert client.ask(Msg.UNWATCH, strings(path, b"t")) in ("EINVAL", "ENOENT")
    assert client.end(tx) == OK
    assert guest.write(b"x", b"v") == OK
    assert guest.events() == []
