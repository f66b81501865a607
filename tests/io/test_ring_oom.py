"""Memory running out at every allocation that a ring's event leads to.

In a fresh world the first allocation fails, then the second, and so on until there are no more;
once it alone, once with all after it until the daemon has come to rest. When memory is back,
every request is answered, in order, once: as always, or with ENOMEM. Nobody else notices.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from ringworld import MS, STATE, Guest, RingWorld, S, frame, home
from world import OK, Msg, Packet, strings

NTH_MAX = 2000
NOMEM = b"ENOMEM\0"


def nothing(_world: RingWorld, _guest: Guest) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Case:
    """Requests, numbered from 1, in the pieces that are kicked for; domid 0 is dom0's kernel."""

    name: str
    requests: list[tuple[int, bytes]]
    domid: int = 3
    piece: int = 1024
    build: Callable[[RingWorld, Guest], None] = nothing

    @property
    def data(self) -> bytes:
        return b"".join(
            frame(kind, payload, 0, number)
            for number, (kind, payload) in enumerate(self.requests, 1)
        )


def large_node(_world: RingWorld, guest: Guest) -> None:
    assert guest.client.write(b"v", b"v" * 1000) == OK


def a_seventh_domain(world: RingWorld, _guest: Guest) -> None:
    world.create(7)


def a_known_seventh_domain(world: RingWorld, _guest: Guest) -> None:
    assert world.guest(7).client.write(b"v", b"v") == OK


CASES = [
    Case("read", [(Msg.READ, b"v\0")], build=large_node),
    Case("write", [(Msg.WRITE, b"a/b/c\0value")]),
    Case("in pieces", [(Msg.WRITE, b"v\0" + b"v" * 300), (Msg.READ, b"v\0")], piece=50),
    Case("byte by byte", [(Msg.WRITE, b"v\0v"), (Msg.READ, b"v\0")], piece=1),
    Case("large", [(Msg.WRITE, b"v\0" + b"v" * 2000)], piece=700),
    Case("many", [(Msg.WRITE, b"n%d\0" % i) for i in range(15)]),
    Case("with half of one", [(Msg.WRITE, b"n%d\0" % i + b"v" * 70) for i in range(20)]),
    Case("outstanding", [(Msg.READ, b"v\0")] * 30, build=large_node),
    Case("watch", [(Msg.WATCH, strings(b"v", b"t")), (Msg.WRITE, b"v\0")]),
    Case("of a domain", [(Msg.SET_PERMS, strings(b"v", b"n3", b"r77"))], build=large_node),
    Case("transactions", [(Msg.TRANSACTION_START, b"\0"), (Msg.TRANSACTION_START, b"\0")]),
    Case("errors", [(Msg.READ, b"absent\0"), (99, b""), (Msg.INTRODUCE, b"")]),
    Case("control", [(Msg.CONTROL, b"print\0x\0"), (Msg.READ, b"/tool\0")], 0),
    Case(
        "introduce",
        [(Msg.INTRODUCE, strings(b"7", b"1", b"1")), (Msg.IS_DOMAIN_INTRODUCED, b"7\0")],
        0,
        build=a_seventh_domain,
    ),
    Case("release", [(Msg.RELEASE, b"7\0"), (Msg.READ, b"/tool\0")], 0,
         build=a_known_seventh_domain),
]  # fmt: skip


@dataclass(slots=True)
class Scene:
    world: RingWorld
    guest: Guest
    other: Guest

    def innocent(self) -> None:
        """Another guest, dom0's socket and who watches lose nothing and are served."""
        world = self.world
        assert self.other.error == 0
        client = self.other.client
        assert client.write(b"alive", b"1") == OK
        assert client.read(b"alive") == b"1"
        assert world.dom0.write(b"/seen", b"") == OK
        assert (b"/seen", b"other") in client.events()
        assert (b"/seen", b"dom0") in world.dom0.events()


def scene(case: Case) -> Scene:
    world = RingWorld()
    other = world.guest(5)
    assert world.dom0.write(b"/seen", b"") == OK
    assert world.dom0.setperms(b"/seen", b"n0", b"r5") == OK
    assert other.client.watch(b"/seen", b"other") == OK
    assert world.dom0.watch(b"/seen", b"dom0") == OK
    guest = world.own() if case.domid == 0 else world.guest(case.domid)
    case.build(world, guest)
    world.advance(S)
    return Scene(world, guest, other)


def push(guest: Guest, case: Case) -> bytes:
    """The requests go in, and nothing is fetched; gives back what was not taken."""
    return guest.offer(case.data, case.piece)


def replies(world: RingWorld, guest: Guest, left: bytes) -> list[Packet]:
    """Everything that is answered with memory back and time passing, events left out."""
    packets: list[Packet] = []
    for _ in range(200):
        world.advance(100 * MS)
        left = guest.offer(left)
        found = guest.fetch()
        packets += [packet for packet in found if packet.type != Msg.WATCH_EVENT]
        if not found and not left and not guest.unread:
            break
    assert guest.left == b""
    return packets


@pytest.mark.parametrize("sticky", [False, True], ids=["one", "all"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_request_is_answered_whatever_fails(case: Case, sticky: bool) -> None:
    """Once, in order, as always or with ENOMEM; and the ring goes on working."""
    first = scene(case)
    expected = replies(first.world, first.guest, push(first.guest, case))
    assert [packet.req_id for packet in expected] == list(range(1, len(case.requests) + 1))
    first.world.close()
    refused = 0
    for nth in range(1, NTH_MAX):
        now = scene(case)
        world, guest = now.world, now.guest
        before = world.engine.memory()["failures"]
        world.engine.fail_allocation(nth, sticky=sticky)
        left = push(guest, case)
        failed = world.engine.memory()["failures"] > before
        world.engine.fail_allocation()
        found = replies(world, guest, left)
        assert guest.error == 0, f"allocation {nth}: the ring is ignored"
        assert [packet.req_id for packet in found] == [packet.req_id for packet in expected], nth
        whole = True
        for packet, usual in zip(found, expected, strict=True):
            if packet != usual and packet.payload == NOMEM:
                refused += 1
                whole = False
            # What was refused may be missing in answers that come after it.
            assert packet == usual or not whole, f"allocation {nth}: {packet}"
        guest.offer(frame(Msg.GET_DOMAIN_PATH, b"9\0", req=77))
        assert [packet.req_id for packet in guest.fetch()] == [77]
        now.innocent()
        world.close()
        if not failed:
            break
    else:
        raise AssertionError("there is no end of allocations")


@pytest.mark.parametrize("sticky", [False, True], ids=["one", "all"])
@pytest.mark.parametrize("way", ["afresh", "indices", "request"])
def test_what_a_guest_is_told_needs_no_memory(way: str, sticky: bool) -> None:
    """A fresh start, and each of the errors, with everything under way that can be."""
    for nth in itertools.count(1):
        now = scene(Case("", []))
        world, guest = now.world, now.guest
        assert guest.client.write(b"v", b"v" * 1000) == OK
        assert guest.client.watch(b"v", b"t") == OK
        assert guest.client.write(b"w", b"", guest.client.start()) == OK
        guest.offer(frame(Msg.READ, b"v\0") * 2)
        guest.told()
        before = world.engine.memory()["failures"]
        world.engine.fail_allocation(nth, sticky=sticky)
        if way == "afresh":
            guest.reconnect()
            assert guest.word(STATE) == 0
        elif way == "indices":
            guest.set_word(2052, 1 << 30)
            guest.kick()
            world.settle()
            assert guest.error == 2
        else:
            guest.offer(b"\xff" * 16)
            assert guest.error == 3
        assert guest.told() == 1
        failed = world.engine.memory()["failures"] > before
        world.engine.fail_allocation()
        assert world.engine.transactions() == []
        now.innocent()
        world.close()
        if not failed:
            break
        assert nth < NTH_MAX


@pytest.mark.parametrize("sticky", [False, True], ids=["one", "all"])
def test_events_reach_rings_whatever_fails(sticky: bool) -> None:
    """A write of dom0 that succeeds is told to every ring that watches; one that fails to none."""
    for nth in itertools.count(1):
        world = RingWorld()
        guests = [world.guest(domid) for domid in (3, 4, 5)]
        for guest in guests:
            assert guest.client.watch(b"@introduceDomain", b"special") == OK
            assert guest.client.watch(home(guest.domid), b"t") == OK
        assert world.dom0.setperms(home(3), b"n3", b"r4", b"r5") == OK
        for guest in guests[1:]:
            assert guest.client.watch(home(3), b"t3") == OK
            guest.client.events()
        guests[0].client.events()
        before = world.engine.memory()["failures"]
        world.engine.fail_allocation(nth, sticky=sticky)
        guests[0].put(frame(Msg.WRITE, b"v\0v", req=1))
        guests[0].kick()
        world.settle()
        failed = world.engine.memory()["failures"] > before
        world.engine.fail_allocation()
        world.advance(100 * MS)
        packets = guests[0].fetch()
        (answer,) = [packet for packet in packets if packet.type != Msg.WATCH_EVENT]
        count = 1 if answer.payload == OK else 0
        assert count == 1 or answer.payload == NOMEM
        assert len(packets) == 1 + count
        assert world.dom0.read(home(3) + b"/v") == (b"v" if count else "ENOENT")
        for guest in guests[1:]:
            assert guest.client.events() == [(home(3) + b"/v", b"t3")] * count
        world.close()
        if not failed:
            break
        assert nth < NTH_MAX


@pytest.mark.parametrize("sticky", [False, True], ids=["one", "all"])
@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
def test_an_introduction_happens_or_does_not(known: bool, sticky: bool) -> None:
    """The domain is introduced and has a ring that works, or neither; and later it can be."""
    for nth in itertools.count(1):
        world = RingWorld()
        guest = world.guest(3) if known else world.create(3)
        client = world.socket()
        before = world.engine.memory()["failures"]
        world.engine.fail_allocation(nth, sticky=sticky)
        client.send(Msg.INTRODUCE, strings(b"3", b"1", b"1"))
        world.settle()
        failed = world.engine.memory()["failures"] > before
        world.engine.fail_allocation()
        world.advance(100 * MS)
        client.drain()
        introduced = world.dom0.ask(Msg.IS_DOMAIN_INTRODUCED, b"3\0") == b"T\0"
        assert introduced == (3 in world.host.mapped) == (world.rings.count() == 1)
        assert introduced or not known
        if introduced:
            assert guest.client.read(b"v") in ("ENOENT", "EACCES")
        assert world.introduce(3) == OK
        assert guest.client.read(b"v") in ("ENOENT", "EACCES")
        world.close()
        if not failed:
            break
        assert nth < NTH_MAX


@pytest.mark.parametrize("messages", [15, 23])
def test_an_effect_that_ends_without_memory_does_not_cost_dom0_its_ring(messages: int) -> None:
    """The queue is full to the last record when the answer to CONTROL is due."""
    world = RingWorld()
    own = world.own()
    assert world.dom0.mkdir(home(3)) == OK
    assert own.client.watch(home(3), b"t" * 100) == OK
    world.hold_effects = True
    own.offer(frame(Msg.CONTROL, b"print\0x\0", 0, 5))
    for i in range(messages):  # events that its kernel is slow to fetch
        assert world.dom0.write(home(3) + b"/m%d" % i, b"") == OK
    world.engine.fail_allocation(1, sticky=True)
    world.let_go()
    world.engine.fail_allocation()
    world.advance(100 * MS)
    assert own.error == 0
    answers = [packet for packet in own.fetch() if packet.type != Msg.WATCH_EVENT]
    assert [packet.req_id for packet in answers] == [5]
    world.close()
