"""Rings that must wait: what is in them stays there, and goes on when the reason has gone.

Without another event: a guest that has sent one owes no second.
"""

from __future__ import annotations

from ringworld import MS, RING, Guest, RingWorld, S, frame, home
from world import OK, Client, Msg, strings

PERIOD = 50 * MS


def requests(count: int, path: bytes = b"v", first: int = 1) -> bytes:
    return b"".join(frame(Msg.READ, path + b"\0", req=first + i) for i in range(count))


def conflict(world: RingWorld, client: Client, path: bytes) -> None:
    """A transaction of dom0 fails by a write of this guest."""
    tx = world.dom0.start()
    assert isinstance(world.dom0.read(path, tx), bytes)
    assert world.dom0.write(b"/mark", b"", tx) == OK
    assert client.write(path, b"c%d" % world.counter("conflicts")) == OK
    assert world.dom0.end(tx) == "EAGAIN"


def pauper() -> tuple[RingWorld, Guest]:
    """A guest whose credit one conflict has used up."""
    world = RingWorld(burst_limit=1, period_ns=PERIOD)
    guest = world.guest(3)
    assert guest.client.write(b"v", b"0") == OK
    world.advance(S)
    conflict(world, guest.client, home(3) + b"/v")
    assert world.engine.conflict_figures()[3]["paused"]
    guest.told()
    return world, guest


def paused(world: RingWorld, domid: int) -> bool:
    return bool(world.engine.conflict_figures()[domid]["paused"])


# ---- credit ------------------------------------------------------------------------------


def test_without_credit_a_ring_is_not_read() -> None:
    """Not a byte, however often it asks, nor by a scan; when the period is over it is."""
    world, guest = pauper()
    with world:
        data = requests(3)
        guest.put(data)
        for _ in range(3):
            guest.kick()
            world.settle()
            world.rings.scan()
            world.settle()
        assert guest.unread == len(data)
        assert guest.told() == 0
        assert world.masked == set()
        world.advance(PERIOD - 1)
        assert guest.unread == len(data)
        world.advance(1)
        assert guest.unread == 0
        assert [packet.req_id for packet in guest.fetch()] == [1, 2, 3]


def test_without_credit_a_ring_is_not_written() -> None:
    """Events wait in the queue, and arrive when the period is over."""
    world, guest = pauper()
    with world:
        world.advance(PERIOD)
        assert guest.client.watch(home(3), b"t") == OK
        conflict(world, guest.client, home(3) + b"/v")
        guest.told()
        guest.fetch()
        assert paused(world, 3)
        assert world.dom0.write(home(3) + b"/w", b"") == OK
        assert guest.indices[2] == guest.indices[3]
        assert guest.told() == 0
        guest.kick()
        world.settle()
        assert guest.indices[2] == guest.indices[3]
        world.advance(PERIOD)
        assert guest.told() == 1
        assert [packet.type for packet in guest.fetch()] == [Msg.WATCH_EVENT]


def test_half_a_request_survives_the_pause() -> None:
    """Its second half was sent meanwhile."""
    world = RingWorld(burst_limit=1, period_ns=PERIOD)
    with world:
        guest = world.guest(3)
        assert guest.client.write(b"v", b"0") == OK
        tx = world.dom0.start()
        assert world.dom0.read(home(3) + b"/v", tx) == b"0"
        assert world.dom0.write(b"/mark", b"", tx) == OK
        request = frame(Msg.READ, b"v\0", req=9)
        guest.offer(frame(Msg.WRITE, b"v\0guilty") + request[:9])
        assert world.dom0.end(tx) == "EAGAIN"
        assert paused(world, 3)
        guest.put(request[9:])
        guest.kick()
        world.settle()
        assert guest.unread == len(request) - 9
        world.advance(PERIOD)
        assert [packet.payload for packet in guest.fetch()][-1] == b"guilty"


def test_others_do_not_wait_with_it() -> None:
    """A guest without credit is alone with that, and dom0's own ring never is."""
    world, guest = pauper()
    with world:
        other, own = world.guest(4), world.own()
        guest.put(requests(1))
        for one in (guest, other, own):
            one.kick()
        world.settle()
        assert other.client.write(b"v", b"") == OK
        assert own.client.read(home(4) + b"/v") == b""
        assert guest.unread > 0
        assert world.dom0.read(home(3) + b"/v") != "ENOENT"


def test_switching_protection_off_lets_it_go_on() -> None:
    """At once: nobody waits for a point that will not come."""
    world, guest = pauper()
    with world:
        guest.put(requests(2))
        guest.kick()
        world.settle()
        assert guest.unread > 0
        world.engine.configure(conflict=False)
        world.turn.settle()
        world.settle()
        assert len(guest.fetch()) == 2


def test_a_pause_of_many_rings_ends_for_all() -> None:
    """One after the other, a period each; the queue forgets nobody."""
    world = RingWorld(burst_limit=1, period_ns=PERIOD)
    with world:
        guests = [world.guest(domid) for domid in range(1, 6)]
        for guest in guests:
            assert guest.client.write(b"v", b"0") == OK
        for guest in guests:
            conflict(world, guest.client, home(guest.domid) + b"/v")
        waiting = [guest for guest in guests if paused(world, guest.domid)]
        assert len(waiting) == 5
        for guest in guests:
            guest.put(requests(1))
            guest.kick()
        world.settle()
        assert all(guest.unread for guest in guests)
        for left in range(4, -1, -1):
            world.advance(PERIOD)
            assert sum(guest.unread > 0 for guest in guests) == left
        assert all(len(guest.fetch()) == 1 for guest in guests)


# ---- the write-rate limit ----------------------------------------------------------------


def test_a_guest_in_debt_is_not_read_but_written() -> None:
    """Until it has earned its way out."""
    world = RingWorld(
        write_rate=True, conflict=False, writes_per_second=10, write_burst=0, write_reserve=0,
        write_newcomers=0,
    )  # fmt: skip
    with world:
        guest = world.guest(3)
        world.advance(S)
        assert guest.client.watch(home(3), b"t") == OK
        tx = world.dom0.start()
        world.dom0.read(b"/tool", tx)
        guest.offer(frame(Msg.WRITE, b"v\x001", req=1) + frame(Msg.WRITE, b"v\x002", req=2))
        assert world.dom0.read(home(3) + b"/v") == b"1"
        guest.put(requests(1, first=3))
        guest.kick()
        world.settle()
        assert guest.unread > 0
        guest.fetch()
        assert world.dom0.write(home(3) + b"/w", b"") == OK
        assert [packet.type for packet in guest.fetch()] == [Msg.WATCH_EVENT]
        assert world.dom0.end(tx) == OK
        world.advance(S)
        assert guest.unread == 0
        replies = [packet for packet in guest.fetch() if packet.type != Msg.WATCH_EVENT]
        assert [(packet.req_id, packet.payload) for packet in replies] == [(2, OK), (3, b"2")]


# ---- quotas ------------------------------------------------------------------------------


def test_too_many_outstanding_requests_leave_the_rest_in_the_ring(rings: RingWorld) -> None:
    """A guest that does not read its replies can ask for so much, and no more."""
    guest = rings.guest(3)
    assert guest.client.write(b"v", b"v" * 60) == OK
    data = requests(500)
    left = guest.offer(data)
    assert 0 < len(left) < len(data)
    assert guest.unread == RING
    assert rings.engine.counts()[3]["outstanding"] == 20
    before = guest.page[:]
    for _ in range(3):
        guest.kick()
        rings.settle()
        rings.rings.scan()
        rings.settle()
    assert guest.page[:] == before
    packets = []
    for _ in range(500):
        packets += guest.fetch()
        if not left and not guest.unread:
            break
        left = guest.offer(left)
    assert [packet.req_id for packet in packets] == list(range(1, 501))
    assert all(packet.payload == b"v" * 60 for packet in packets)
    assert "outstanding" not in rings.engine.counts()[3]


def test_requests_stay_in_the_ring_while_much_waits_to_be_read(rings: RingWorld) -> None:
    """Without any quota too: 2 KiB, twice what the ring can hold."""
    guest = rings.guest(3)
    assert rings.dom0.ask(Msg.SET_QUOTA, strings(b"3", b"outstanding", b"0")) == OK
    assert guest.client.write(b"v", b"v" * 1000) == OK
    left = guest.offer(requests(500))
    assert guest.unread == RING
    assert rings.engine.counts()[3]["outstanding"] in (3, 4)
    packets = []
    for _ in range(1000):
        packets += guest.fetch()
        if not left and not guest.unread:
            break
        left = guest.offer(left)
    assert [packet.req_id for packet in packets] == list(range(1, 501))


def test_what_others_have_not_fetched_is_outstanding_too(rings: RingWorld) -> None:
    """And ends with their fetching it, their beginning anew, or their going."""
    for way in ("fetched", "afresh", "died"):
        guest, slow = rings.guest(3), rings.guest(4)
        client = guest.client
        assert client.write(b"v", b"") == OK
        assert client.setperms(home(3) + b"/v", b"n3", b"r4") == OK
        for i in range(25):
            assert client.write(b"v/%d" % i, b"") == OK
            assert client.setperms(b"v/%d" % i, b"n3", b"r4") == OK
        assert slow.client.watch(home(3) + b"/v", b"t" * 900) == OK
        data = b"".join(frame(Msg.WRITE, b"v/%d\0" % i, req=1 + i) for i in range(25))
        assert guest.offer(data) == b""
        assert [packet.req_id for packet in guest.fetch()] == list(range(1, 22))
        assert rings.engine.counts()[3]["outstanding"] == 20
        if way == "fetched":
            assert len(slow.fetch()) == 25
        elif way == "afresh":
            slow.reconnect()
        else:
            rings.kill(4)
        assert [packet.req_id for packet in guest.fetch()] == list(range(22, 26))
        for domid in list(rings.guests):
            rings.kill(domid)
        rings.engine.check()


def test_a_guest_over_its_memory_is_not_read_until_there_is_less(rings: RingWorld) -> None:
    """By a greater quota, or because somebody removes what it owns."""
    for way in ("quota", "removed"):
        guest = rings.guest(3)
        assert guest.client.write(b"v", b"v" * 1000) == OK
        assert rings.dom0.ask(Msg.SET_QUOTA, strings(b"3", b"memory", b"500")) == OK
        guest.put(requests(1, b"w"))
        guest.kick()
        rings.settle()
        assert guest.unread > 0
        if way == "quota":
            assert rings.dom0.ask(Msg.SET_QUOTA, strings(b"3", b"memory", b"5000")) == OK
        else:
            assert rings.dom0.rm(home(3) + b"/v") == OK
        assert guest.unread == 0
        assert len(guest.fetch()) == 1
        rings.kill(3)


# ---- effects -----------------------------------------------------------------------------


def test_a_question_to_the_hypervisor_stops_one_ring_only(rings: RingWorld) -> None:
    """What comes behind it waits in the ring, in order."""
    rings.create(77)
    guest, other = rings.guest(3), rings.guest(4)
    assert guest.client.write(b"v", b"") == OK
    rings.hold_effects = True
    asked = frame(Msg.SET_PERMS, strings(b"v", b"n3", b"r77"), req=1)
    assert guest.offer(asked + requests(1, first=2)) == b""
    guest.put(requests(1, first=3))
    guest.kick()
    rings.settle()
    assert guest.unread > 0
    assert guest.fetch() == []
    assert other.client.write(b"v", b"") == OK
    rings.let_go()
    assert [(packet.req_id, packet.type) for packet in guest.fetch()] == [
        (1, Msg.SET_PERMS), (2, Msg.READ), (3, Msg.READ),
    ]  # fmt: skip


# ---- scans -------------------------------------------------------------------------------


def test_a_scan_finds_rings_that_forgot_to_tell(rings: RingWorld) -> None:
    """Requests that nobody kicked for, and room that nobody told of."""
    guests = [rings.guest(domid) for domid in range(1, 5)]
    for guest in guests:
        assert guest.client.write(b"v", b"v" * 600) == OK
        guest.told()
    rings.rings.listen(20)
    guests[0].put(requests(1))
    guests[1].offer(requests(3))
    first = guests[1].get()
    assert len(first) == RING
    guests[1].told()
    guests[2].set_word(2052, 1 << 31)
    rings.advance(20 * S - 1)
    assert guests[0].indices[2] == guests[0].indices[3]
    rings.advance(1)
    assert [guest.told() for guest in guests] == [1, 1, 1, 0]
    assert guests[2].error == 2
    guests[1].left = first
    assert len(guests[1].fetch()) == 3
    guests[0].fetch()
    guests[0].told()
    guests[0].put(requests(1))
    rings.advance(20 * S)  # again and again
    assert guests[0].told() == 1
    rings.rings.shut()
    assert rings.rings.count() == 0
    assert rings.loop.readers == {}
    guests[0].put(requests(1))
    rings.advance(100 * S)
    assert guests[0].unread > 0
    # A scan is all that would have kept the loop awake.
    assert [timer for timer in rings.loop.timers if not timer.cancelled] == []


def test_no_scan_when_none_is_wanted(rings: RingWorld) -> None:
    """A negative interval."""
    guest = rings.guest(3)
    rings.rings.listen(-1)
    guest.put(requests(1))
    rings.advance(1000 * S)
    assert guest.unread > 0
