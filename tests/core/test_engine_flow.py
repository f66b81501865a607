"""Who is served when: budgets, waiting for effects, output that nobody fetches, quotas."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest
from model_tree import RING, SOCKET
from world import OK, Client, EngineWorld, Msg, strings

from xsd.core import engine as core

FAR = 1 << 40


def frame(kind: int, payload: bytes = b"", tx: int = 0, req: int = 0) -> bytes:
    return struct.pack("=4I", kind, req, tx, len(payload)) + payload


def reads(*numbers: int) -> bytes:
    return b"".join(frame(Msg.READ, b"/\0", req=number) for number in numbers)


def packets(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, request id and payload of each message."""
    while data:
        kind, req, _, size = struct.unpack_from("=4I", data)
        yield kind, req, data[16 : 16 + size]
        data = data[16 + size :]


def answered(engine: Any, cid: int) -> list[int]:
    """Request ids of the replies that wait, in order."""
    return [req for kind, req, _ in packets(engine.take(cid)) if kind != Msg.WATCH_EVENT]


def cid_of(client: Client) -> int:
    link: Any = client.link
    cid: int = link.cid
    return cid


def runnable(engine: Any) -> list[int]:
    found = []
    while (cid := engine.next_runnable()) >= 0:
        found.append(cid)
    return found


# ---- budgets -----------------------------------------------------------------------------


def test_a_budget_ends_and_the_rest_is_told_as_runnable() -> None:
    """MORE says that input is left; each turn handles one budget of it, in order."""
    engine: Any = core.Engine()
    cid = engine.open(0, SOCKET, 0)
    flags = engine.feed(0, cid, reads(*range(10)), 4)
    assert flags & core.MORE
    assert not flags & core.PAUSE
    assert answered(engine, cid) == [0, 1, 2, 3]
    assert runnable(engine) == [cid]
    assert engine.feed(0, cid, b"", 4) & core.MORE
    assert answered(engine, cid) == [4, 5, 6, 7]
    assert runnable(engine) == [cid]
    assert not engine.feed(0, cid, b"", 4) & core.MORE
    assert answered(engine, cid) == [8, 9]
    assert runnable(engine) == []


def test_connections_take_turns() -> None:
    """Those with input left are told one after the other, not the first one again."""
    engine: Any = core.Engine()
    cids = [engine.open(0, SOCKET, 0) for _ in range(3)]
    for cid in cids:
        engine.feed(0, cid, reads(*range(9)), 1)
    turns = []
    while (cid := engine.next_runnable()) >= 0:
        turns.append(cid)
        engine.feed(0, cid, b"", 1)
    assert turns == cids * 8


def test_a_budget_that_is_just_enough_leaves_nothing() -> None:
    """No empty turn follows."""
    engine: Any = core.Engine()
    cid = engine.open(0, SOCKET, 0)
    flags = engine.feed(0, cid, reads(1, 2, 3), 3)
    assert not flags & (core.MORE | core.PAUSE)
    assert runnable(engine) == []


def test_each_connection_with_output_is_told_once() -> None:
    """Until it gains more after that."""
    engine: Any = core.Engine()
    first, second = engine.open(0, SOCKET, 0), engine.open(0, SOCKET, 0)
    assert engine.feed(0, second, reads(1, 2)) & core.DIRTY
    engine.feed(0, first, reads(1))
    assert [engine.next_dirty() for _ in range(3)] == [second, first, -1]
    engine.feed(0, first, reads(2))
    assert [engine.next_dirty() for _ in range(2)] == [first, -1]


# ---- effects -----------------------------------------------------------------------------


def test_requests_behind_an_effect_wait_in_order() -> None:
    """What follows a CONTROL is answered after it; others are served meanwhile."""
    engine: Any = core.Engine()
    cid, other = engine.open(0, SOCKET, 0), engine.open(0, SOCKET, 0)
    flags = engine.feed(
        0, cid, reads(1) + frame(Msg.CONTROL, b"print\0x\0", req=2) + reads(3) + reads(4)[:9]
    )
    assert flags & core.PAUSE
    assert flags & core.EFFECTS
    assert answered(engine, cid) == [1]
    engine.feed(0, cid, reads(4)[9:])
    assert answered(engine, cid) == []
    engine.feed(0, other, reads(9))
    assert answered(engine, other) == [9]

    number, kind, conn, args = engine.next_effect()
    assert (kind, conn, args) == ("control", cid, (b"print\0x\0",))
    assert engine.next_effect() is None
    assert runnable(engine) == []
    engine.complete(0, number, "", b"done")
    assert runnable(engine) == [cid]
    engine.feed(0, cid, b"")
    assert [(req, data) for _, req, data in packets(engine.take(cid))] == [
        (2, b"done"),
        (3, b""),
        (4, b""),
    ]


def test_a_mapping_that_cannot_be_used_is_released_for_nobody() -> None:
    """No memory for a domain whose ring is mapped: the ring goes, and nobody waits for that."""
    engine: Any = core.Engine()
    cid = engine.open(0, SOCKET, 0)
    engine.feed(0, cid, frame(Msg.INTRODUCE, strings(b"5", b"9", b"3")))
    number, kind, conn, args = engine.next_effect()
    assert (kind, conn, args[0]) == ("introduce", cid, 5)
    engine.fail_allocation(1, sticky=True)
    engine.complete(0, number)
    engine.fail_allocation(0)
    assert engine.next_effect()[1:] == ("release", -1, (5,))
    assert engine.next_effect() is None
    assert engine.domain_conn(5) == -1


def test_an_effect_is_taken_once_and_completed_once() -> None:
    """A second completion is nobody's."""
    engine: Any = core.Engine()
    cid = engine.open(0, SOCKET, 0)
    engine.feed(0, cid, frame(Msg.CONTROL, b"print\0x\0"))
    number, *_ = engine.next_effect()
    engine.complete(0, number, "EBUSY")
    assert [data for _, _, data in packets(engine.take(cid))] == [b"EBUSY\0"]
    try:
        engine.complete(0, number, "")
    except KeyError:
        return
    raise AssertionError("a second completion was taken")


def test_the_answer_to_a_question_about_domains_is_not_asked_twice() -> None:
    """Each unknown domid of a request costs one question, and the request then goes on."""
    engine: Any = core.Engine()
    cid = engine.open(0, SOCKET, 0)
    names = [b"r%d" % domid for domid in (7, 8, 7, 9)]
    engine.feed(0, cid, frame(Msg.SET_PERMS, strings(b"/tool", b"n0", *names), req=5))
    asked = []
    while (effect := engine.next_effect()) is not None:
        number, kind, _, args = effect
        assert kind == "domain"
        asked.append(args[0])
        engine.complete(0, number, "" if args[0] == 8 else "ENOENT")
        assert runnable(engine) == [cid]
        engine.feed(0, cid, b"")
    assert asked == [7, 8, 9]
    assert answered(engine, cid) == [5]
    # An answer of "no" holds for the one request only.
    engine.feed(0, cid, frame(Msg.SET_PERMS, strings(b"/tool", b"n0", b"r7"), req=6))
    assert engine.next_effect()[3] == (7,)


def test_more_unknown_domains_than_are_remembered_end() -> None:
    """A request that names a thousand unknown domains is answered after some questions."""
    engine: Any = core.Engine()
    cid = engine.open(0, SOCKET, 0)
    names = [b"r%d" % domid for domid in range(100, 700)]
    engine.feed(0, cid, frame(Msg.SET_PERMS, strings(b"/tool", b"n0", *names), req=5))
    questions = 0
    while (effect := engine.next_effect()) is not None:
        questions += 1
        engine.complete(0, effect[0], "ENOENT")
        engine.feed(0, cid, b"")
    assert 0 < questions <= 32
    assert answered(engine, cid) == [5]


def test_a_connection_introduced_anew_is_served_again() -> None:
    """Whatever its ring waited for has been forgotten with its requests."""
    world = EngineWorld()
    engine = world.engine
    guest = world.guest(1)
    dom0 = world.socket()
    dom0.write(b"/local/domain/1", b"")
    dom0.setperms(b"/local/domain/1", b"n1")
    payload = strings(b"/local/domain/1", b"n1", b"r7")
    assert engine.feed(0, cid_of(guest), frame(Msg.SET_PERMS, payload)) & core.PAUSE
    engine.feed(0, cid_of(dom0), frame(Msg.INTRODUCE, strings(b"1", b"1", b"7")))
    pending = [engine.next_effect() for _ in range(2)]
    assert [effect[1] for effect in pending] == ["domain", "introduce"]
    engine.complete(0, pending[1][0], "")
    assert cid_of(guest) in runnable(engine)
    assert not engine.feed(0, cid_of(guest), b"") & core.PAUSE
    assert guest.read(b"/local/domain/1") == b""
    engine.complete(0, pending[0][0], "ENOENT")  # nobody waits for it any more
    assert guest.read(b"/local/domain/1") == b""
    world.check()


# ---- output that is not fetched ------------------------------------------------------------


def test_a_socket_that_does_not_read_is_not_read_either() -> None:
    """Beyond a quarter of a megabyte its requests stay where they are until it has read."""
    world = EngineWorld()
    engine, client = world.engine, world.socket()
    assert client.write(b"/big", b"v" * 4000) == OK
    cid, sent, flags = cid_of(client), 0, 0
    while not flags & core.PAUSE:
        sent += 1
        flags = engine.feed(0, cid, frame(Msg.READ, b"/big\0", req=sent))
        assert sent < 1000
    assert 256 * 1024 < sent * 4016 < 256 * 1024 + 2 * 4016
    engine.feed(0, cid, frame(Msg.READ, b"/big\0", req=sent + 1))
    assert runnable(engine) == []
    engine.take(cid, 8000)
    assert runnable(engine) == [cid]
    engine.feed(0, cid, b"")
    rest = engine.take(cid)
    assert rest.endswith(b"v" * 4000)
    assert struct.unpack_from("=4I", rest[-4016:])[1] == sent + 1
    assert engine.memory()["total_bytes"] < 1 << 20


def test_a_client_that_reads_nothing_gets_all_its_events_once_it_does() -> None:
    """Sockets lose no events; equal ones that wait are told once."""
    world = EngineWorld()
    writer, watcher = world.socket(), world.socket()
    assert watcher.watch(b"/e", b"t") == OK
    for i in range(3000):
        assert writer.write(b"/e/%d" % (i % 1500), b"") == OK
    events = watcher.events()
    assert events == [(b"/e/%d" % i, b"t") for i in range(1500)]


# ---- quotas of guests ----------------------------------------------------------------------


def limited(**quotas: int) -> tuple[EngineWorld, Client, Client]:
    """A world with one guest that may write below its home."""
    world = EngineWorld()
    dom0 = world.socket()
    guest = world.guest(1)
    assert dom0.mkdir(b"/local/domain/1") == OK
    assert dom0.setperms(b"/local/domain/1", b"n1") == OK
    for name, value in quotas.items():
        payload = strings(b"1", name.replace("_", "-").encode(), b"%d" % value)
        assert dom0.ask(Msg.SET_QUOTA, payload) == OK
    return world, dom0, guest


def test_outstanding_requests_stall_a_guest_until_it_fetches() -> None:
    """The quota counts requests whose reply has not gone; each that goes lets one in."""
    world, _, guest = limited(outstanding=3)
    engine, cid = world.engine, cid_of(guest)
    assert engine.feed(0, cid, reads(*range(1, 8))) & core.PAUSE
    assert world.engine.counts()[1]["outstanding"] == 3
    assert answered(engine, cid) == [1, 2, 3]
    assert runnable(engine) == [cid]
    engine.feed(0, cid, b"")
    assert answered(engine, cid) == [4, 5, 6]
    world.settle()
    assert answered(engine, cid) == [7]
    assert "outstanding" not in engine.counts().get(1, {})


def test_a_request_is_outstanding_until_others_have_fetched_its_events() -> None:
    """What a guest makes us hold for a sleepy watcher counts as the guest's."""
    world, dom0, guest = limited(outstanding=2)
    engine, cid = world.engine, cid_of(guest)
    watcher = world.guest(2)
    assert dom0.setperms(b"/local/domain/1", b"r1") == OK
    assert watcher.watch(b"/local/domain/1", b"t") == OK
    writes = [frame(Msg.WRITE, b"a%d\0" % i, req=i) for i in range(3)]
    assert engine.feed(0, cid, b"".join(writes)) & core.PAUSE
    assert answered(engine, cid) == [0, 1]
    assert runnable(engine) == []  # replies have gone, events have not
    assert engine.counts()[1]["outstanding"] == 2
    watcher.drain()
    assert runnable(engine) == [cid]
    engine.feed(0, cid, b"")
    assert answered(engine, cid) == [2]
    world.close(watcher)
    world.check()


def test_a_watcher_that_goes_frees_those_it_kept_waiting() -> None:
    """Its events are gone with it."""
    world, dom0, guest = limited(outstanding=1)
    engine, cid = world.engine, cid_of(guest)
    watcher = world.socket()
    assert watcher.watch(b"/local/domain/1", b"t") == OK
    assert engine.feed(0, cid, frame(Msg.WRITE, b"a\0") + reads(1)) & core.PAUSE
    engine.take(cid)
    assert runnable(engine) == []
    world.close(watcher)
    assert runnable(engine) == [cid]
    assert dom0.ask(Msg.IS_DOMAIN_INTRODUCED, b"1\0") == b"T\0"


def test_unfetched_events_expire_and_free_their_causes() -> None:
    """After twenty seconds, told by tick(), a guest loses them; sockets never do."""
    world, dom0, guest = limited(outstanding=1)
    engine, cid = world.engine, cid_of(guest)
    sleepy, socket = world.guest(2), world.socket()
    dom0.setperms(b"/local/domain/1", b"r1")
    assert sleepy.watch(b"/local/domain/1", b"t") == OK
    assert socket.watch(b"/local/domain/1/b", b"t") == OK
    start = 5_000_000_000
    world.now = start
    engine.feed(start, cid, frame(Msg.WRITE, b"a\0") + reads(1))
    engine.take(cid)
    assert engine.tick(start + 1) == start + 20_000_000_000
    assert runnable(engine) == []
    deadline = engine.tick(start + 20_000_000_000)
    assert deadline is None or deadline <= start + 20_000_000_001
    engine.tick(start + 20_000_000_001)
    assert runnable(engine) == [cid]
    engine.feed(start + FAR, cid, b"")
    assert answered(engine, cid) == [1]
    assert sleepy.events() == []
    guest.write(b"b", b"")
    engine.tick(start + 2 * FAR)
    assert socket.events() == [(b"/local/domain/1/b", b"t")]
    assert engine.tick(start + 3 * FAR) is None
    world.check()


def test_an_event_that_is_half_sent_does_not_expire() -> None:
    """The stream of a connection is never torn."""
    world, dom0, _ = limited()
    engine, sleepy = world.engine, world.guest(2)
    dom0.setperms(b"/local/domain/1", b"r1")
    assert sleepy.watch(b"/local/domain/1", b"t") == OK
    dom0.write(b"/local/domain/1/first", b"")
    dom0.write(b"/local/domain/1/second", b"")
    head = engine.take(cid_of(sleepy), 7)
    engine.tick(FAR)
    rest = engine.take(cid_of(sleepy))
    assert [data for _, _, data in packets(head + rest)] == [b"/local/domain/1/first\0t\0"]
    world.check()


def test_events_over_the_quota_are_dropped_and_counted() -> None:
    """A guest that fetches nothing keeps the oldest; everybody else gets all."""
    world, dom0, guest = limited(watch_events=5)
    dom0.setperms(b"/local/domain/1", b"r1")
    assert guest.watch(b"/local/domain/1", b"t") == OK
    before = world.engine.counters()["events_dropped"]
    for i in range(20):
        assert dom0.write(b"/local/domain/1/%02d" % i, b"") == OK
    assert world.engine.counters()["events_dropped"] == before + 15
    assert guest.events() == [(b"/local/domain/1/%02d" % i, b"t") for i in range(5)]
    assert dom0.write(b"/local/domain/1/x", b"") == OK
    assert guest.events() == [(b"/local/domain/1/x", b"t")]


def stalled_by_memory() -> tuple[EngineWorld, Client, Client]:
    """The guest has been given more nodes than its memory quota allows."""
    world, dom0, guest = limited(memory=3000)
    for i in range(4):
        assert dom0.write(b"/local/domain/1/%d" % i, b"v" * 900) == OK
    engine = world.engine
    assert engine.counts()[1]["memory"] > 3000
    assert engine.feed(world.now, cid_of(guest), reads(1)) & core.PAUSE
    assert answered(engine, cid_of(guest)) == []
    assert runnable(engine) == []
    return world, dom0, guest


def test_memory_over_the_quota_stalls_a_guest_until_its_nodes_are_removed() -> None:
    """Whoever removes them."""
    world, dom0, guest = stalled_by_memory()
    for i in range(4):
        assert dom0.rm(b"/local/domain/1/%d" % i) == OK
    assert answered(world.engine, cid_of(guest)) == [1]


def test_a_transaction_that_removes_its_nodes_frees_a_guest() -> None:
    """A commit counts like the changes in it."""
    world, dom0, guest = stalled_by_memory()
    tx = dom0.start()
    for i in range(4):
        assert dom0.rm(b"/local/domain/1/%d" % i, tx) == OK
    assert answered(world.engine, cid_of(guest)) == []
    assert dom0.end(tx) == OK
    assert answered(world.engine, cid_of(guest)) == [1]


def test_a_raised_quota_frees_a_guest() -> None:
    """SET_QUOTA takes effect at once."""
    world, dom0, guest = stalled_by_memory()
    assert dom0.ask(Msg.SET_QUOTA, strings(b"1", b"memory", b"100000")) == OK
    assert answered(world.engine, cid_of(guest)) == [1]


def test_quotas_switched_off_free_a_guest() -> None:
    """So does switching all quotas off."""
    world, _, guest = stalled_by_memory()
    world.engine.configure(quota=False)
    world.settle()
    assert answered(world.engine, cid_of(guest)) == [1]


def test_events_that_expire_free_a_guest() -> None:
    """Its memory was what waited for itself."""
    world, dom0, guest = limited(memory=4000)
    engine, cid = world.engine, cid_of(guest)
    assert guest.watch(b"x", b"t" * 500) == OK
    for i in range(5):
        dom0.write(b"/local/domain/1/x/%d" % i, b"")
    dom0.write(b"/local/domain/1/y", b"v" * 900)
    assert engine.counts()[1]["memory"] > 4000
    assert engine.feed(world.now, cid, reads(1)) & core.PAUSE
    engine.tick(FAR)
    assert runnable(engine) == [cid]
    engine.feed(FAR, cid, b"")
    assert answered(engine, cid) == [1]


def test_crossing_a_soft_quota_all_the_time_does_not_flood_the_log() -> None:
    """A guest decides how often it crosses; the log hears of it once in ten seconds."""
    world, _, guest = limited(soft_nodes=3)
    engine, notices = world.engine, []

    def settle() -> None:
        while (effect := engine.next_effect()) is not None:
            notices.append(effect[1])

    world.settle = settle  # type: ignore[method-assign]
    for _ in range(50):
        for path in (b"a", b"b", b"c", b"d"):
            assert guest.write(path, b"") == OK
        for path in (b"b", b"c", b"d"):
            assert guest.rm(path) == OK
    assert engine.counters()["soft_quota_hits"] == 50
    assert notices == ["notice", "notice"]


def test_soft_quotas_are_told_once_each_way() -> None:
    """Over and back again: two notices, and a counter; nothing is refused."""
    world, dom0, guest = limited(soft_nodes=3)
    engine, notices = world.engine, []

    def settle() -> None:
        while (effect := engine.next_effect()) is not None:
            notices.append(effect[1:2] + effect[3:])

    world.settle = settle  # type: ignore[method-assign]
    for i in range(5):
        assert guest.write(b"n%d" % i, b"") == OK
    assert notices == [("notice", (1, "nodes", True))]
    assert engine.counters()["soft_quota_hits"] == 1
    for i in range(5):
        assert dom0.rm(b"/local/domain/1/n%d" % i) == OK
    assert guest.write(b"n", b"") == OK
    assert notices == [("notice", (1, "nodes", True)), ("notice", (1, "nodes", False))]


def test_the_privileged_ring_is_not_limited() -> None:
    """Quotas bind guests; a ring of the privileged domain is held back by its output only."""
    engine: Any = core.Engine()
    cid = engine.open(0, RING, 0)
    assert not engine.feed(0, cid, reads(*range(100))) & core.PAUSE
    assert answered(engine, cid) == list(range(100))


# ---- a guest must not be able to stall itself for good -----------------------------------------


def test_the_log_of_a_transaction_stays_within_the_memory_quota() -> None:
    """Changes beyond it are ENOMEM; the transaction can still be ended."""
    world, _, guest = limited(memory=20_000)
    tx = guest.start()
    answers = {guest.write(b"same", b"%03d" % i + b"v" * 900, tx) for i in range(60)}
    assert answers == {OK, "ENOMEM"}
    assert world.engine.counts()[1]["memory"] <= 20_000
    assert guest.end(tx, commit=False) == OK
    assert guest.write(b"same", b"v") == OK


def test_what_a_transaction_saw_stays_within_the_memory_quota() -> None:
    """The same for paths that were only looked at."""
    world, _, guest = limited(memory=20_000)
    tx = guest.start()
    answers = {guest.read(b"%03d" % i + b"p" * 500, tx) for i in range(60)}
    assert answers == {"ENOENT", "ENOMEM"}
    assert world.engine.counts()[1]["memory"] <= 20_000
    assert guest.end(tx, commit=False) == OK
    assert guest.write(b"same", b"v") == OK


@pytest.mark.parametrize("merge", [False, True])
def test_a_commit_stays_within_the_memory_quota(merge: bool) -> None:
    """Each of two transactions is allowed, both are not: the second fails as a whole.

    The nodes weigh much more than the records of what made them: they inherit a long list.
    """
    world, dom0, guest = limited(memory=45_000)
    entries = [b"r%d" % domid for domid in range(200)]
    assert dom0.setperms(b"/local/domain/1", b"n1", *entries) == OK
    first, second = guest.start(), guest.start()
    for i in range(20):
        assert guest.write(b"a%d" % i, b"", first) == OK
        assert guest.write(b"b%d" % i, b"", second) == OK
    assert guest.end(first) == OK
    if not merge:  # nobody has written in between
        assert guest.end(second, commit=False) == OK
        second = guest.start()
        assert guest.write(b"b", b"", second) == OK
        assert dom0.ask(Msg.SET_QUOTA, strings(b"1", b"memory", b"36000")) == OK
    before = world.tree()
    assert guest.end(second) == "ENOMEM"
    assert world.tree() == before
    assert guest.rm(b"a0") == OK
    world.check()
