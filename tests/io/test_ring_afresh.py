"""Rings that begin anew, at every moment: by the guest's wish, by INTRODUCE, or with a new domain.

The moments are listed below; each leaves something under way. After each of the ways to begin
anew nothing of that is left, nothing of it is answered, and the ring works.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ringworld import ERROR, FEATURES, MS, RING, STATE, Guest, RingWorld, S, frame, home
from world import OK, Msg, strings

Moment = Callable[[RingWorld, Guest], None]

# ---- moments -----------------------------------------------------------------------------


def at_rest(_world: RingWorld, _guest: Guest) -> None:
    pass


def with_half_a_header(_world: RingWorld, guest: Guest) -> None:
    guest.offer(frame(Msg.WRITE, b"left\0over")[:7])


def with_half_a_payload(_world: RingWorld, guest: Guest) -> None:
    guest.offer(frame(Msg.WRITE, b"left\0over")[:-1])


def with_a_large_half(_world: RingWorld, guest: Guest) -> None:
    guest.offer(frame(Msg.WRITE, b"left\0" + b"o" * 4000)[:3500])


def with_requests_not_kicked(_world: RingWorld, guest: Guest) -> None:
    guest.put(b"\xff" * 100)


def with_indices_that_cannot_be(_world: RingWorld, guest: Guest) -> None:
    guest.set_word(2048, 77)
    guest.set_word(2060, 7777)


def with_replies_not_fetched(_world: RingWorld, guest: Guest) -> None:
    for _ in range(3):
        guest.offer(frame(Msg.READ, b"absent\0"))


def with_a_reply_half_written(_world: RingWorld, guest: Guest) -> None:
    for _ in range(5):
        guest.offer(frame(Msg.READ, b"v\0"))
    assert len(guest.get(100)) == 100
    assert guest.indices[3] - guest.indices[2] == RING - 100


def with_events_waiting(world: RingWorld, guest: Guest) -> None:
    assert guest.client.watch(home(guest.domid), b"t" * 500) == OK
    for i in range(20):
        assert world.dom0.write(home(guest.domid) + b"/e%d" % i, b"") == OK
    for i in range(20):
        assert world.dom0.rm(home(guest.domid) + b"/e%d" % i) == OK


def with_transactions(_world: RingWorld, guest: Guest) -> None:
    client = guest.client
    for i in range(5):
        tx = client.start()
        assert client.write(b"left%d" % i, b"over", tx) == OK
        client.read(b"v", tx)


def with_watches(_world: RingWorld, guest: Guest) -> None:
    for i in range(50):
        assert guest.client.watch(b"v", b"t%d" % i) == OK


def with_too_much_outstanding(_world: RingWorld, guest: Guest) -> None:
    guest.offer(frame(Msg.READ, b"v\0") * 50)
    assert guest.offer(frame(Msg.WRITE, b"left\0over") * 50) != b""
    assert guest.unread == RING


def waiting_for_an_effect(world: RingWorld, guest: Guest) -> None:
    world.hold_effects = True
    guest.offer(frame(Msg.SET_PERMS, strings(b"v", b"n%d" % guest.domid, b"r77"), req=5))
    guest.offer(frame(Msg.WRITE, b"left\0over"))


def without_credit(world: RingWorld, guest: Guest) -> None:
    world.engine.configure(burst_limit=1, period_ns=50 * MS)
    tx = world.dom0.start()
    assert world.dom0.read(home(guest.domid) + b"/v", tx) != "ENOENT"
    assert world.dom0.write(b"/mark", b"", tx) == OK
    assert guest.client.write(b"v", b"v" * 899) == OK
    assert guest.client.write(b"v", b"v" * 900) == OK
    assert guest.client.write(b"w", b"") == OK
    assert guest.client.rm(b"w") == OK
    guest.client.write(b"v", b"changed" * 128)
    assert world.dom0.end(tx) == "EAGAIN"
    assert world.engine.conflict_figures()[guest.domid]["paused"]
    guest.offer(frame(Msg.WRITE, b"left\0over"))


def held_back(world: RingWorld, guest: Guest) -> None:
    """For the sake of another guest's transaction with priority."""
    world.engine.configure(conflict=False)
    other = world.guest(90).client
    path = b"/shared"
    assert world.dom0.write(path, b"0") == OK
    assert world.dom0.setperms(path, b"n0", b"b90", b"b%d" % guest.domid) == OK
    for i in range(8):
        tx = other.start()
        other.read(path, tx)
        assert other.write(b"x", b"", tx) == OK
        assert guest.client.write(path, b"%d" % (i + 1)) == OK
        assert other.end(tx) == "EAGAIN"
    tx = other.start()
    assert other.read(path, tx) == b"8"
    guest.offer(frame(Msg.WRITE, path + b"\0left over"))
    assert world.dom0.read(path) == b"8"


def without_memory(world: RingWorld, guest: Guest) -> None:
    world.engine.fail_allocation(1, sticky=True)
    guest.offer(frame(Msg.WRITE, b"left\0over"))
    guest.offer(frame(Msg.WRITE, b"left\0over")[:10])
    world.engine.fail_allocation()


def after_a_fault(_world: RingWorld, guest: Guest) -> None:
    guest.set_word(2052, 5000)
    guest.kick()


MOMENTS: list[Moment] = [
    at_rest,
    with_half_a_header,
    with_half_a_payload,
    with_a_large_half,
    with_requests_not_kicked,
    with_indices_that_cannot_be,
    with_replies_not_fetched,
    with_a_reply_half_written,
    with_events_waiting,
    with_transactions,
    with_watches,
    with_too_much_outstanding,
    waiting_for_an_effect,
    without_credit,
    held_back,
    without_memory,
    after_a_fault,
]
HELD = {without_credit, held_back, waiting_for_an_effect, without_memory}

moments = pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.__name__)


def reach(world: RingWorld, moment: Moment) -> tuple[Guest, int]:
    """A guest at such a moment, and what its nodes count against its quota."""
    guest = world.guest(3)
    assert guest.client.write(b"v", b"v" * 900) == OK
    memory = world.memory_of(3)
    moment(world, guest)
    world.settle()
    return guest, memory


def as_new(world: RingWorld, guest: Guest) -> None:
    """Nothing is left: neither in the page nor of the connection."""
    assert guest.indices == (0, 0, 0, 0)
    assert (guest.word(FEATURES), guest.word(STATE), guest.word(ERROR)) == (15, 0, 0)
    assert guest.told() >= 1
    guest.left = b""
    cids = {cid for cid, kind, domid, *_ in world.engine.connections() if domid == 3}
    assert not [watch for watch in world.engine.watches() if watch[0] in cids]
    assert not [tx for tx in world.engine.transactions() if tx[0] in cids]


def works(world: RingWorld, guest: Guest, first: int | None = 1) -> None:
    """After a time in which every wait ends; what was asked before is not done."""
    world.advance(S)
    client = guest.client
    assert client.write(b"new", b"1") == OK
    assert client.read(b"new") == b"1"
    assert client.watch(b"new", b"token") == OK
    tx = client.start()
    assert first is None or tx == first
    assert client.end(tx) == OK
    names = world.dom0.ls(home(3))
    assert names in ([b"new", b"v"], [b"new"])
    assert client.rm(b"new") == OK
    assert client.events() == [(b"new", b"token")]
    if 90 in world.guests:
        assert world.dom0.read(b"/shared") == b"8"
    assert world.masked <= {0} or guest.port not in world.masked
    world.engine.check()


# ---- ways --------------------------------------------------------------------------------


@moments
def test_a_guest_begins_anew_when_it_wants(rings: RingWorld, moment: Moment) -> None:
    """Whatever is under way is forgotten, and transactions are counted from 1 again."""
    guest, memory = reach(rings, moment)
    if moment is after_a_fault:
        return  # it is ignored: see the faults
    guest.told()
    guest.reconnect()
    as_new(rings, guest)
    if moment is not without_credit:
        assert rings.memory_of(3) == memory
    rings.let_go()
    works(rings, guest)


@moments
def test_a_guest_may_ask_before_it_has_been_told(rings: RingWorld, moment: Moment) -> None:
    """With requests behind it already, of which none is looked at."""
    guest, _ = reach(rings, moment)
    if moment is after_a_fault:
        return
    guest.set_word(STATE, 1)
    guest.page[:1024] = (frame(Msg.WRITE, b"bad\0") * 60)[:1024]
    guest.set_word(2052, guest.word(2048) + 1000)
    guest.kick()
    rings.settle()
    as_new(rings, guest)
    rings.let_go()
    works(rings, guest)


@moments
def test_introduced_again(rings: RingWorld, moment: Moment) -> None:
    """By the toolstack, as after a migration; by another port."""
    guest, _ = reach(rings, moment)
    old = guest.port
    guest.told()
    guest.left = b""
    rings.dom0.send(Msg.INTRODUCE, strings(b"3", b"1", b"1"))
    rings.let_go()
    assert [packet.payload for packet in rings.dom0.drain()] == [OK]
    assert guest.port != old
    as_new(rings, guest)
    works(rings, guest, None)
    assert rings.rings.count() == len(rings.guests)


@moments
@pytest.mark.parametrize("way", ["released", "died"])
def test_gone_and_come_again(rings: RingWorld, moment: Moment, way: str) -> None:
    """The page is not touched any more, everything is given back, and a successor owes nothing."""
    other = rings.guest(5)
    assert other.client.watch(b"@releaseDomain", b"t") == OK
    guest, _ = reach(rings, moment)
    old = guest.port
    rings.event(old)  # comes when it is gone
    if way == "released":
        assert rings.dom0.ask(Msg.RELEASE, b"3\0") == OK
    else:
        rings.kill(3)
    rings.let_go()
    assert 3 not in rings.host.mapped
    assert 3 not in rings.connections()
    assert other.client.events() == [(b"@releaseDomain", b"t")]
    page = guest.page[:]
    rings.event(old)
    rings.settle()
    rings.rings.scan()
    rings.settle()
    rings.advance(S)
    assert guest.page[:] == page
    assert rings.engine.account(3) == (0, 0)
    assert rings.engine.counts().get(3) is None
    if way == "died":
        guest = rings.create(3, b"\xff")
    assert rings.introduce(3) == OK
    assert rings.dom0.mkdir(home(3)) == OK
    assert rings.dom0.setperms(home(3), b"n3") == OK
    as_new(rings, guest)
    works(rings, guest)


def test_a_release_between_an_introduction_and_its_mapping(rings: RingWorld) -> None:
    """Two clients of dom0 in one turn: in the end the domain is introduced, and is served."""
    guest = rings.guest(3)
    one, two = rings.socket(), rings.socket()
    rings.hold_effects = True
    one.send(Msg.INTRODUCE, strings(b"3", b"1", b"1"), 0, 1)
    two.send(Msg.RELEASE, b"3\0", 0, 2)
    rings.let_go()
    assert [packet.payload for packet in two.drain()] == [OK]
    assert [packet.payload for packet in one.drain()] == [OK]
    assert rings.dom0.ask(Msg.IS_DOMAIN_INTRODUCED, b"3\0") == b"T\0"
    assert 3 in rings.host.mapped
    guest.left = b""
    assert guest.client.read(b"x") == "EACCES"


def test_what_was_answered_between_two_fresh_starts(rings: RingWorld) -> None:
    """Again and again, with everything between them that a guest does."""
    guest = rings.guest(3)
    for i in range(50):
        guest.reconnect()
        as_new(rings, guest)
        client = guest.client
        assert client.watch(b"v", b"t") == OK
        assert client.start() == 1
        assert client.write(b"v", b"%d" % i) == OK
        assert client.events() == [(b"v", b"t")]
        guest.offer(frame(Msg.READ, b"v\0")[: i % 19])
    assert rings.engine.counts()[3].get("watches") == 1
    rings.engine.check()


def test_a_fresh_start_does_not_end_a_pause(rings: RingWorld) -> None:
    """Credit belongs to the domain: neither its own wish nor a kick gives it any."""
    guest, _ = reach(rings, without_credit)
    guest.reconnect()
    guest.put(frame(Msg.READ, b"v\0", req=9))
    guest.kick()
    rings.settle()
    assert guest.unread > 0
    rings.advance(50 * MS)
    assert guest.unread == 0
    assert [packet.req_id for packet in guest.fetch()] == [9]


def test_a_fresh_start_gives_back_what_is_outstanding(rings: RingWorld) -> None:
    """Requests whose events others have not fetched keep counting; its own replies do not."""
    guest = rings.guest(3)
    assert guest.client.write(b"v", b"v" * 60) == OK
    guest.offer(frame(Msg.READ, b"v\0") * 50)
    assert rings.engine.counts()[3]["outstanding"] == 20
    guest.reconnect()
    assert "outstanding" not in rings.engine.counts()[3]


def test_a_fresh_start_ends_what_was_kept_for_its_transactions(rings: RingWorld) -> None:
    """At once, without anybody else doing anything or time passing."""
    guest, other = rings.guest(3), rings.guest(4)
    tx = guest.client.start()
    assert guest.client.write(b"v", b"", tx) == OK
    assert other.client.write(b"v", b"") == OK
    assert rings.counter("history_records") == 1
    guest.reconnect()
    assert rings.counter("history_records") == 0
