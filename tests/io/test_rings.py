"""Rings of guests that keep to the protocol: every byte arrives, however it is cut."""

from __future__ import annotations

import struct

import pytest
from ringworld import FEATURES, RING, STATE, Guest, RingWorld, frame, home
from world import OK, Msg, Packet, strings

WRAPS = [0, 1, 1023, 1024, 0x7FFFFFFF, 0x80000000, 0xFFFFFC00, 0xFFFFFFFF]


def script(domid: int) -> tuple[bytes, list[Packet]]:
    """Some requests, and what is answered, events included."""
    path = home(domid) + b"/a"
    value = bytes(range(256)) * 4
    data = b"".join(
        [
            frame(Msg.WATCH, strings(path, b"token"), req=1),
            frame(Msg.WRITE, path + b"\0" + value, req=2),
            frame(Msg.READ, b"a\0", req=3),
            frame(Msg.READ, b"b\0", req=0xFFFFFFFF),
            frame(Msg.GET_DOMAIN_PATH, b"7\0", req=5),
            frame(99, b"", req=6),
            frame(Msg.TRANSACTION_START, b"\0", req=7),
        ]
    )
    event = Packet(Msg.WATCH_EVENT, 0, 0, strings(path, b"token"))
    return data, [
        Packet(Msg.WATCH, 1, 0, OK),
        event,
        event,
        Packet(Msg.WRITE, 2, 0, OK),
        Packet(Msg.READ, 3, 0, value),
        Packet(Msg.ERROR, 0xFFFFFFFF, 0, b"ENOENT\0"),
        Packet(Msg.GET_DOMAIN_PATH, 5, 0, home(7)),
        Packet(Msg.ERROR, 6, 0, b"ENOSYS\0"),
        Packet(Msg.TRANSACTION_START, 7, 0, b"1\0"),
    ]


def with_nul(packets: list[Packet]) -> list[Packet]:
    """Whether a domain's path ends with a NUL is not the business of these tests."""
    return [
        Packet(p.type, p.req_id, p.tx_id, p.payload.rstrip(b"\0"))
        if p.type == Msg.GET_DOMAIN_PATH
        else p
        for p in packets
    ]


# ---- coming ------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"\x01"])
def test_an_introduced_domain_finds_an_empty_page_that_is_connected(
    rings: RingWorld, fill: bytes
) -> None:
    """Whatever stood there before; it is told once."""
    guest = rings.create(3, fill)
    assert rings.introduce(3) == OK
    assert guest.indices == (0, 0, 0, 0)
    assert (guest.word(FEATURES), guest.word(STATE), guest.error) == (15, 0, 0)
    assert guest.told() == 1
    assert guest.page[:2048] == fill * 2048


def test_a_domain_that_is_not_introduced_is_not_looked_at(rings: RingWorld) -> None:
    """Requests in the page of an unknown domain stay there."""
    guest = rings.create(3)
    guest.put(frame(Msg.READ, b"/\0"))
    before = guest.page[:]
    rings.event(99)
    rings.settle()
    rings.rings.scan()
    rings.settle()
    assert guest.page[:] == before
    assert rings.others == [99]
    assert rings.masked == set()


def test_domains_introduced_without_a_request_are_served(rings: RingWorld) -> None:
    """As those found running are when the daemon starts."""
    guests = [rings.create(domid) for domid in (0, 4, 7)]
    rings.domains.start(0, True)
    rings.settle()
    assert rings.rings.count() == 3
    for guest in guests:
        assert guest.told() >= 1
        expected = b"" if guest.domid == 0 else "EACCES"
        assert guest.client.read(b"/tool/xenstored") == expected


# ---- bytes -------------------------------------------------------------------------------


@pytest.mark.parametrize("out", [1, 7, 1024])
@pytest.mark.parametrize("piece", [1, 2, 3, 5, 15, 16, 17, 1000, 1023, 1024])
def test_messages_may_be_cut_anywhere(rings: RingWorld, piece: int, out: int) -> None:
    """Byte by byte in both directions as well as whole."""
    guest = rings.guest(3)
    data, expected = script(3)
    assert guest.offer(data, piece) == b""
    assert with_nul(guest.fetch(out)) == with_nul(expected)
    assert guest.left == b""
    assert guest.unread == 0


@pytest.mark.parametrize("piece", [1, 100, 1024])
@pytest.mark.parametrize("index", WRAPS)
def test_indices_run_through_32_bits(rings: RingWorld, index: int, piece: int) -> None:
    """And start wherever the rings happen to stand."""
    guest = rings.guest(3)
    guest.start_at(index)
    data, expected = script(3)
    assert guest.offer(data, piece) == b""
    assert with_nul(guest.fetch()) == with_nul(expected)
    taken, given = guest.indices[1], guest.indices[3]
    assert taken == (index + len(data)) & 0xFFFFFFFF
    assert given != index
    assert guest.indices == (taken, taken, given, given)


def test_messages_wrap_at_every_offset(rings: RingWorld) -> None:
    """Small ones, and those that fill the whole ring, both ways."""
    guest = rings.guest(3)
    client = guest.client
    small, big = b"0123456789", bytes(range(256)) * 4
    for offset in range(RING):
        guest.start_at(0xFFFFFFFF - RING // 2 + offset)
        for value in (small, big[: RING - 16 - 2], big):
            assert client.write(b"v", value) == OK
            assert client.read(b"v") == value


def test_messages_larger_than_the_ring(rings: RingWorld) -> None:
    """The largest that the protocol knows, in and out."""
    guest = rings.guest(3)
    assert rings.dom0.ask(Msg.SET_QUOTA, strings(b"3", b"node-size", b"0")) == OK
    value = bytes(range(256)) * 16
    client = guest.client
    assert client.write(b"v", value[: 4096 - 2]) == OK
    assert client.read(b"v") == value[: 4096 - 2]
    assert rings.dom0.write(home(3) + b"/v", value[: 4096 - len(home(3)) - 3]) == OK
    assert client.read(b"v") == value[: 4096 - len(home(3)) - 3]
    guest.offer(frame(Msg.WRITE, b"v\0" + value[: 4096 - 1]))  # one byte more than 4096
    assert guest.error == 3


def test_a_message_without_payload(rings: RingWorld) -> None:
    """Is answered like any other, of whatever kind."""
    guest = rings.guest(3)
    for kind in range(130):
        guest.send(kind, req=kind)
        (reply,) = guest.drain()
        assert reply.req_id == kind
        assert reply.type in (Msg.ERROR, kind)


def test_many_requests_come_with_one_event(rings: RingWorld) -> None:
    """All are answered in order, with few notifications."""
    guest = rings.guest(3)
    for count, told in (16, 1), (32, 2), (50, 3):
        data = b"".join(frame(Msg.READ, b"x\0", req=i) for i in range(count))
        assert guest.put(data) == len(data)
        guest.kick()
        rings.settle()
        assert guest.told() == told
        assert guest.unread == 0
        assert [packet.req_id for packet in guest.fetch()] == list(range(count))
        guest.told()


def test_a_ring_has_its_turn_and_no_more(rings: RingWorld) -> None:
    """A few requests of one are answered before all requests of the other."""
    many, few = rings.guest(3), rings.guest(4)
    assert many.put(frame(Msg.READ, b"x\0") * 50) == 50 * 18
    assert few.put(frame(Msg.READ, b"x\0")) == 18
    many.kick()
    few.kick()
    assert rings.deliver()
    answered = [guest.indices[3] // (16 + len(b"ENOENT\0")) for guest in (many, few)]
    assert answered == [16, 1]
    rings.settle()
    assert len(many.fetch()) == 50


def test_an_event_with_nothing_behind_it_is_no_reason_to_notify(rings: RingWorld) -> None:
    """Nor to change a byte of the page; the port may send again."""
    guest = rings.guest(3)
    guest.client.read(b"/")
    guest.told()
    before = guest.page[:]
    for _ in range(3):
        guest.kick()
        rings.settle()
    assert guest.page[:] == before
    assert guest.told() == 0
    assert rings.masked == set()


def test_replies_wait_for_room_and_go_on(rings: RingWorld) -> None:
    """A full ring is refilled as it is emptied, with an event for each time."""
    guest = rings.guest(3)
    value = b"v" * 1000
    assert guest.client.write(b"v", value) == OK
    for i in range(1, 6):
        guest.offer(frame(Msg.READ, b"v\0", req=i))
    _, _, cons, prod = guest.indices
    assert prod - cons == RING
    for room in (1, 15, 16, 500):
        guest.told()
        taken = guest.get(room)
        assert len(taken) == room
        guest.left += taken
        guest.kick()
        rings.settle()
        assert guest.told() == 1
        _, _, cons, prod = guest.indices
        assert prod - cons == RING
    packets = guest.fetch()
    assert [(p.req_id, p.payload) for p in packets] == [(i, value) for i in range(1, 6)]


def test_no_byte_of_the_page_changes_that_must_not(rings: RingWorld) -> None:
    """The store writes replies, its two indices, and nothing else."""
    guest = rings.guest(3)
    guest.start_at(100)
    for at in (FEATURES, STATE, 2072, 2076):
        guest.set_word(at, 0xA5A5A5A5)
    guest.page[2080:4096] = b"\x5a" * 2016
    before = guest.page[:]
    data = frame(Msg.READ, b"/nothing\0", req=1)
    assert guest.offer(data) == b""
    after = guest.page[:]
    assert struct.unpack_from("=4I", after, 2048) == (100 + len(data), 100 + len(data), 100, 123)
    assert after[100 : 100 + len(data)] == data
    assert after[:100] == before[:100]
    assert after[100 + len(data) : 1024] == before[100 + len(data) : 1024]
    assert after[1024:1124] == before[1024:1124]
    assert after[1147:2048] == before[1147:2048]
    assert after[2064:] == before[2064:]


# ---- several -----------------------------------------------------------------------------


def test_events_reach_many_rings_without_being_asked_for(rings: RingWorld) -> None:
    """A write of dom0 is told to all who watch, each with one notification."""
    assert rings.dom0.write(b"/shared", b"") == OK
    assert rings.dom0.setperms(b"/shared", b"r0") == OK
    guests = [rings.guest(domid) for domid in range(1, 6)]
    for guest in guests:
        assert guest.client.watch(b"/shared", b"t%d" % guest.domid) == OK
        guest.told()
    assert rings.dom0.write(b"/shared", b"1") == OK
    for guest in guests:
        assert guest.told() == 1
        assert guest.client.events() == [(b"/shared", b"t%d" % guest.domid)]


def test_what_one_ring_causes_reaches_another_at_once(rings: RingWorld) -> None:
    """Before the loop turns: rings have nothing to wait for."""
    writer, reader = rings.guest(1), rings.guest(2)
    assert writer.client.write(b"v", b"0") == OK
    assert writer.client.setperms(home(1) + b"/v", b"n1", b"r2") == OK
    assert reader.client.watch(home(1) + b"/v", b"t") == OK
    reader.told()
    writer.put(frame(Msg.WRITE, b"v\x001", req=1))
    writer.kick()
    turns = rings.turns
    assert rings.deliver()
    assert reader.told() == 1
    assert rings.turns == turns
    assert reader.client.events() == [(home(1) + b"/v", b"t")]


def test_a_plain_request_takes_no_turn_of_the_loop(rings: RingWorld) -> None:
    """Nothing follows from it, so nothing is scheduled; with an access log something does."""
    guest = rings.guest(3)
    rings.advance(10**9)
    turns = rings.turns
    for _ in range(5):
        assert guest.client.read(b"nothing") == "ENOENT"
    assert rings.turns == turns
    rings.engine.configure(access_log=True)
    guest.send(Msg.READ, b"nothing\0")
    assert rings.turns == turns + 1
    assert b"nothing\0" in rings.engine.take_access()


def test_more_events_than_are_read_at_once(rings: RingWorld) -> None:
    """Hundreds of rings at the same moment, through the descriptor that the loop watches."""
    guests = [rings.guest(domid) for domid in range(1, 201)]
    rings.rings.listen()
    readable = rings.loop.readers[rings.daemon_end.fileno()]
    for guest in guests:
        guest.put(frame(Msg.GET_DOMAIN_PATH, b"%d\0" % guest.domid, req=guest.domid))
    ports = [guest.port for guest in guests]
    before = rings.rings.wakeups
    rings.masked |= set(ports)
    rings.device.send(struct.pack("=200I", *ports))
    for _ in range(5):  # the last one finds nothing
        readable()
    assert rings.rings.wakeups == before + 4
    rings.settle()
    assert rings.masked == set()
    for guest in guests:
        assert guest.told() == 1
        (reply,) = guest.fetch()
        assert (reply.req_id, reply.payload.rstrip(b"\0")) == (guest.domid, home(guest.domid))


def test_events_of_nobodys_ports_are_passed_on_among_others(rings: RingWorld) -> None:
    """Also ports beyond all that were ever bound; all are unmasked."""
    guest = rings.guest(3)
    guest.put(frame(Msg.READ, b"x\0", req=1))
    for port in (1, guest.port, 5000, 0xFFFFFFFF):
        rings.event(port)
    rings.settle()
    assert rings.others == [1, 5000, 0xFFFFFFFF]
    assert rings.masked == set()
    assert len(guest.fetch()) == 1


@pytest.mark.parametrize("ports", [b"\0", b"\0" * 5, b"\0" * 260])
def test_events_are_whole_numbers_and_not_too_many(rings: RingWorld, ports: bytes) -> None:
    """Anything else is a mistake of the caller's."""
    with pytest.raises(ValueError, match="64"):
        rings.rings.handle(ports)


# ---- domain 0 ----------------------------------------------------------------------------


def test_dom0s_own_ring_is_privileged(rings: RingWorld) -> None:
    """It introduces and releases, and is asked by nobody for quotas or credit."""
    kernel = rings.own().client
    guest = rings.create(9)
    assert kernel.ask(Msg.INTRODUCE, strings(b"9", b"1", b"1")) == OK
    assert guest.told() == 1
    assert guest.client.read(b"/tool") == "EACCES"
    assert kernel.ask(Msg.IS_DOMAIN_INTRODUCED, b"9\0") == b"T\0"
    assert kernel.ask(Msg.CONTROL, strings(b"print", b"x")) == OK
    assert [payload for _, payload in rings.control] == [b"print\0x\0"]
    assert kernel.ask(Msg.RELEASE, b"9\0") == OK
    assert 9 not in rings.host.mapped
    for i in range(1200):
        assert kernel.write(b"/n/%d" % i, b"") == OK
    assert kernel.ask(Msg.RELEASE, b"0\0") == "EINVAL"


def test_dom0_may_introduce_itself_by_its_own_ring(rings: RingWorld) -> None:
    """The rings are emptied, it is served by the new port, and its request is answered."""
    own = rings.own()
    assert own.client.watch(b"/tool", b"t") == OK
    before = own.port
    own.send(Msg.INTRODUCE, strings(b"0", b"1", b"1"), req=7)
    assert own.port != before
    assert [(p.type, p.req_id, p.payload) for p in own.fetch()] == [(Msg.INTRODUCE, 7, OK)]
    assert own.client.write(b"/tool", b"1") == OK
    assert own.client.events() == []


def test_guests_have_no_privilege(rings: RingWorld) -> None:
    """Whatever domid they have and whatever they ask for."""
    rings.create(9)
    guest: Guest = rings.guest(3)
    asked = strings(b"9", b"1", b"1")
    assert guest.client.ask(Msg.INTRODUCE, asked) == "EACCES"
    assert guest.client.ask(Msg.RELEASE, b"3\0") == "EACCES"
    assert guest.client.ask(Msg.CONTROL, strings(b"print", b"x")) == "EACCES"
    assert rings.connections() == {3}
    assert rings.control == []
