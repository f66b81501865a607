"""Guests that break the rules of their ring: told why, then ignored, and nobody else is touched."""

from __future__ import annotations

import os

import pytest
from ringworld import (
    BAD_CHANNEL,
    BAD_INDICES,
    BAD_REQUEST,
    ERROR,
    FEATURES,
    REQ_CONS,
    REQ_PROD,
    RSP_CONS,
    RSP_PROD,
    STATE,
    Guest,
    RingWorld,
    S,
    frame,
    home,
)
from world import OK, Msg, strings

# What stands in consumer and producer; the difference is what counts.
IMPOSSIBLE = [
    (0, 1025),
    (1, 0),
    (0, 0xFFFFFFFF),
    (0xFFFFFFFF, 1024),
    (0x80000000, 0),
    (0, 0x80000000),
    (0xFFFFFC00, 1),
    (500, 499),
]
MOST = [(0, 1024), (0xFFFFFFFF, 1023), (0x7FFFFFFF, 0x800003FF)]


def oversize(length: int = 4097) -> bytes:
    return frame(Msg.WRITE, b"")[:12] + length.to_bytes(4, "little")


def set_pair(guest: Guest, at: int, pair: tuple[int, int]) -> None:
    guest.set_word(at, pair[0])
    guest.set_word(at + 4, pair[1])


def break_request_indices(guest: Guest) -> int:
    set_pair(guest, REQ_CONS, (0, 1025))
    guest.kick()
    return BAD_INDICES


def break_reply_indices(guest: Guest) -> int:
    set_pair(guest, RSP_CONS, (1, 0))
    guest.put(frame(Msg.READ, b"x\0"))
    guest.kick()
    return BAD_INDICES


def announce_too_much(guest: Guest) -> int:
    guest.put(oversize())
    guest.kick()
    return BAD_REQUEST


BREAKS = [break_request_indices, break_reply_indices, announce_too_much]


def ignored(world: RingWorld, guest: Guest) -> None:
    """Nothing that it does moves anything; the port is masked from the first event on."""
    guest.kick()
    world.settle()
    assert guest.port in world.masked
    before = guest.page[:]
    state = world.engine.state_hash()
    guest.told()
    for at in (REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD, STATE):
        guest.set_word(at, 0 if at != STATE else 1)
    guest.put(frame(Msg.WRITE, b"v\0v"))
    kept = guest.page[:]
    assert kept != before
    for _ in range(3):
        guest.kick()
        world.settle()
        world.rings.scan()
        world.settle()
    world.advance(10**9)
    assert guest.page[:] == kept
    assert guest.told() == 0
    assert world.engine.state_hash() == state
    assert guest.domid in world.connections()


# ---- features ----------------------------------------------------------------------------


@pytest.mark.parametrize("mask", range(16))
def test_what_a_page_offers_is_what_the_toolstack_lets_it(rings: RingWorld, mask: int) -> None:
    """The error word and the fresh start are used only if they were offered."""
    guest = rings.create(3, b"\xff")
    assert rings.dom0.ask(Msg.SET_FEATURE, strings(b"3", b"%d" % mask)) == OK
    assert rings.introduce(3) == OK
    assert guest.word(FEATURES) == mask
    assert guest.client.watch(b"@releaseDomain", b"t") == OK
    guest.told()
    guest.set_word(STATE, 1)
    guest.kick()
    rings.settle()
    assert guest.word(STATE) == (0 if mask & 1 else 1)
    assert guest.told() == (1 if mask & 1 else 0)
    assert len(rings.engine.watches()) == (0 if mask & 1 else 1)
    guest.set_word(STATE, 0)
    guest.set_word(ERROR, 77)
    code = break_request_indices(guest)
    rings.settle()
    assert guest.error == (code if mask & 2 else 77)
    assert guest.told() == 1
    ignored(rings, guest)
    assert rings.introduce(3) == OK
    assert (guest.word(FEATURES), guest.error) == (mask, 0)


@pytest.mark.parametrize("state", [2, 3, 0x01000000, 0xFFFFFFFF])
def test_only_one_value_asks_for_a_fresh_start(rings: RingWorld, state: int) -> None:
    """Anything else in the state word means nothing."""
    guest = rings.guest(3)
    guest.set_word(STATE, state)
    assert guest.client.watch(b"@releaseDomain", b"t") == OK
    assert guest.word(STATE) == state
    assert len(rings.engine.watches()) == 1


# ---- faults ------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", IMPOSSIBLE)
def test_request_indices_that_cannot_be(rings: RingWorld, pair: tuple[int, int]) -> None:
    """Nothing is taken from such a ring."""
    guest = rings.guest(3)
    guest.page[:1024] = (frame(Msg.WRITE, b"v\0v") * 60)[:1024]
    set_pair(guest, REQ_CONS, pair)
    guest.kick()
    rings.settle()
    assert (guest.error, guest.told()) == (BAD_INDICES, 1)
    assert guest.indices[:2] == pair
    assert rings.dom0.ls(home(3)) == []
    assert rings.rings.faults == 1
    ignored(rings, guest)


@pytest.mark.parametrize("pair", IMPOSSIBLE)
def test_reply_indices_that_cannot_be(rings: RingWorld, pair: tuple[int, int]) -> None:
    """Noticed when there is something to write; not a byte is."""
    guest = rings.guest(3)
    set_pair(guest, RSP_CONS, pair)
    guest.kick()
    rings.settle()
    assert (guest.error, guest.told()) == (0, 0)
    before = guest.page[1024:2048]
    guest.put(frame(Msg.READ, b"x\0"))
    guest.kick()
    rings.settle()
    assert (guest.error, guest.told()) == (BAD_INDICES, 1)
    assert guest.indices[2:] == pair
    assert guest.page[1024:2048] == before
    ignored(rings, guest)


def test_reply_indices_are_checked_before_an_event_is_written(rings: RingWorld) -> None:
    """Which comes without the guest having sent anything."""
    guest = rings.guest(3)
    assert guest.client.watch(home(3), b"t") == OK
    set_pair(guest, RSP_CONS, (9, 0))
    guest.told()
    assert rings.dom0.write(home(3) + b"/v", b"") == OK
    assert (guest.error, guest.told()) == (BAD_INDICES, 1)
    assert rings.engine.watches() == []
    ignored(rings, guest)


@pytest.mark.parametrize("pair", MOST)
def test_a_full_ring_is_within_the_rules(rings: RingWorld, pair: tuple[int, int]) -> None:
    """As full as it can be, both ways."""
    guest = rings.guest(3)
    guest.start_at(pair[0])
    request = frame(Msg.READ, b"x" * 48)
    assert guest.put(request * 16) == 1024
    assert guest.indices[:2] == pair
    set_pair(guest, RSP_CONS, pair)
    guest.kick()
    rings.settle()
    assert (guest.error, guest.unread) == (0, 0)
    assert guest.indices[2:] == pair
    guest.set_word(RSP_CONS, pair[1])
    guest.kick()
    rings.settle()
    assert len(guest.fetch()) == 16


@pytest.mark.parametrize("length", [4097, 5000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF])
def test_a_request_that_announces_too_much(rings: RingWorld, length: int) -> None:
    """What came before it is done; nothing is answered any more, and nothing more is taken."""
    guest = rings.guest(3)
    good = frame(Msg.WRITE, b"good\0", req=1)
    guest.put(good + oversize(length) + frame(Msg.WRITE, b"bad\0", req=2))
    guest.kick()
    rings.settle()
    assert (guest.error, guest.told()) == (BAD_REQUEST, 1)
    assert rings.dom0.ls(home(3)) == [b"good"]
    ignored(rings, guest)


def test_a_header_is_judged_when_it_is_whole(rings: RingWorld) -> None:
    """Sixteen bytes suffice, however they come."""
    guest = rings.guest(3)
    for i, byte in enumerate(oversize()):
        assert guest.error == 0, i
        guest.put(bytes([byte]))
        guest.kick()
        rings.settle()
    assert guest.error == BAD_REQUEST


@pytest.mark.parametrize("act", BREAKS)
def test_a_fault_costs_the_guest_all_it_had_but_its_nodes(rings: RingWorld, act: object) -> None:
    """Watches, transactions, half a request, and replies that wait; others lose nothing."""
    assert callable(act)
    guest, other = rings.guest(3), rings.guest(4)
    rings.dom0.watch(home(3), b"of dom0")
    assert other.client.watch(b"@releaseDomain", b"t") == OK
    client = guest.client
    assert client.write(b"v", b"v" * 900) == OK
    before = rings.memory_of(3)
    assert client.watch(b"v", b"t") == OK
    for _ in range(3):
        assert client.write(b"in", b"", client.start()) == OK
    for _ in range(3):
        guest.offer(frame(Msg.READ, b"v\0"))
    guest.offer(frame(Msg.READ, b"h" * 11 + b"\0")[:12])
    code = act(guest)
    rings.settle()
    if code == BAD_REQUEST:  # its first part was the end of the half request
        guest.fetch()
        guest.offer(oversize())
    assert guest.error == code
    assert rings.memory_of(3) == before
    assert rings.engine.transactions() == []
    assert [token for _, _, token in rings.engine.watches()] == [b"of dom0", b"t"]
    ignored(rings, guest)
    assert other.client.ask(Msg.UNWATCH, strings(b"@releaseDomain", b"t")) == OK
    assert rings.dom0.events()[0] == (home(3) + b"/v", b"of dom0")
    rings.engine.check()


@pytest.mark.parametrize("act", BREAKS)
def test_only_introducing_it_again_revives_a_ring(rings: RingWorld, act: object) -> None:
    """By a new port, with empty rings and without the error; not by failing to."""
    assert callable(act)
    guest = rings.guest(3)
    act(guest)
    rings.settle()
    assert guest.error != 0
    old = guest.port
    assert rings.introduce(3) == OK
    assert guest.port != old
    assert (guest.error, guest.indices, guest.word(STATE)) == (0, (0, 0, 0, 0), 0)
    assert guest.told() == 2
    assert guest.client.write(b"again", b"") == OK
    assert rings.masked <= {old}
    rings.engine.check()


@pytest.mark.parametrize("act", BREAKS)
def test_a_ring_that_is_ignored_goes_with_its_domain(rings: RingWorld, act: object) -> None:
    """Watchers are told when the domain dies, not when it misbehaves."""
    assert callable(act)
    guest, other = rings.guest(3), rings.guest(4)
    assert other.client.watch(b"@releaseDomain", b"t") == OK
    act(guest)
    rings.settle()
    assert other.client.events() == []
    assert rings.dom0.ask(Msg.IS_DOMAIN_INTRODUCED, b"3\0") == b"T\0"
    rings.kill(3)
    assert other.client.events() == [(b"@releaseDomain", b"t")]
    assert rings.connections() == {4}
    rings.guest(3).client.write(b"v", b"")


# ---- event channels ------------------------------------------------------------------------


@pytest.mark.parametrize("offered", [True, False])
def test_a_channel_that_cannot_be_bound_again(rings: RingWorld, offered: bool) -> None:
    """The page says so, if that was offered; a later INTRODUCE makes it good."""
    guest = rings.create(3)
    if not offered:
        assert rings.dom0.ask(Msg.SET_FEATURE, strings(b"3", b"13")) == OK
    assert rings.introduce(3) == OK
    old = guest.port
    rings.host.unbindable.add(3)
    assert rings.introduce(3) == "EINVAL"
    assert guest.error == (BAD_CHANNEL if offered else 0)
    guest.put(frame(Msg.READ, b"x\0"))
    rings.event(old)
    rings.settle()
    assert rings.others == [old]  # means nothing any more
    assert rings.dom0.ask(Msg.IS_DOMAIN_INTRODUCED, b"3\0") == b"T\0"
    rings.host.unbindable.clear()
    assert rings.introduce(3) == OK
    assert guest.error == 0
    assert guest.client.read(b"x") == "EACCES"
    rings.engine.check()


def test_a_domain_that_never_had_a_channel(rings: RingWorld) -> None:
    """Its page is not touched, and it is no client."""
    guest = rings.create(3, b"\xff")
    rings.host.unbindable.add(3)
    before = guest.page[:]
    assert rings.introduce(3) == "EINVAL"
    assert guest.page[:] == before
    assert rings.connections() == set()
    assert rings.dom0.ask(Msg.IS_DOMAIN_INTRODUCED, b"3\0") == b"F\0"


def test_a_guest_without_a_channel_still_gets_what_was_asked_for(rings: RingWorld) -> None:
    """Events go into its page, though nobody can tell it."""
    guest = rings.guest(3)
    assert guest.client.watch(home(3), b"t") == OK
    rings.host.unbindable.add(3)
    assert rings.introduce(3) == "EINVAL"
    guest.told()
    assert rings.dom0.write(home(3) + b"/v", b"") == OK
    assert guest.told() == 0
    assert [packet.type for packet in guest.fetch()] == [Msg.WATCH_EVENT]


def test_without_events_rings_are_looked_at_anyway(
    rings: RingWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """A descriptor that cannot be read is told once, and guests are served all the same."""
    guest = rings.guest(3)
    rings.rings.listen()
    events = rings.daemon_end.fileno()
    unreadable = os.open(os.devnull, os.O_WRONLY)
    os.dup2(unreadable, events)
    os.close(unreadable)
    rings.loop.readers[events]()
    assert events not in rings.loop.readers
    assert guest.put(frame(Msg.READ, b"x\0", req=5)) == 18
    rings.advance(2 * S)
    assert [packet.req_id for packet in guest.fetch()] == [5]
    assert caplog.text.count("cannot read events") == 1
