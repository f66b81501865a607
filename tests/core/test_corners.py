"""Corners that the mixtures of other tests do not reach: each is a promise of its own."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from arena import MS, Arena, S, conflict, home
from model_tree import RING, SOCKET
from world import OK, Client, EngineWorld, Msg, strings

from xsd.core import engine as core

CLOSE, PAUSE = core.CLOSE, core.PAUSE
NTH_MAX = 200
SHARED = b"/shared"


def frame(kind: int, payload: bytes = b"", tx: int = 0, req: int = 0) -> bytes:
    return struct.pack("=4I", kind, req, tx, len(payload)) + payload


def cid_of(client: Client) -> int:
    cid: int = client.link.cid  # type: ignore[attr-defined]
    return cid


def each_failure(attempt: Callable[[int], bool]) -> int:
    """Tries with the first allocation failing, then the second, until none does; how many did."""
    for nth in range(1, NTH_MAX):
        if not attempt(nth):
            return nth - 1
    raise AssertionError(f"more than {NTH_MAX} allocations")


# ---- opening, introducing, looking -----------------------------------------------------------


@pytest.mark.parametrize(("kind", "domid"), [(SOCKET, 0), (RING, 5)])
def test_a_connection_for_which_there_is_no_memory_does_not_come(kind: int, domid: int) -> None:
    """MemoryError, nothing is left behind, and the next one comes."""

    def attempt(nth: int) -> bool:
        engine: Any = core.Engine()
        engine.fail_allocation(nth)
        try:
            engine.open(0, kind, domid)
        except MemoryError:
            engine.fail_allocation(0)
            assert engine.connections() == []
            assert engine.account(domid) == (0, 0)
            engine.check()
            assert engine.open(0, kind, domid) == 0
            return True
        return False

    assert each_failure(attempt) >= 3


def test_a_ring_for_which_there_is_no_memory_is_not_introduced() -> None:
    """MemoryError; no watcher is told; with memory it works. Reserved domids are refused."""

    def attempt(nth: int) -> bool:
        world = EngineWorld()
        watcher = world.socket()
        assert watcher.watch(b"@introduceDomain", b"t") == OK
        world.engine.fail_allocation(nth)
        try:
            world.engine.introduce(0, 5)
        except MemoryError:
            world.engine.fail_allocation(0)
            assert watcher.events() == []
            assert world.engine.domain_conn(5) == -1
            world.engine.check()
            world.engine.introduce(0, 5)
            assert watcher.events() == [(b"@introduceDomain", b"t")]
            return True
        return False

    assert each_failure(attempt) >= 3
    with pytest.raises(ValueError, match="32752"):
        core.Engine().introduce(0, 0x7FF0)


def test_looking_without_memory_says_so() -> None:
    """The hash, the tree and the check need memory; without it none of them says a thing."""

    def build() -> Any:
        world = EngineWorld()
        client = world.socket()
        assert client.write(b"/a" + b"/d" * 30, b"v") == OK
        tx = client.start()
        assert client.write(b"/b" + b"/d" * 30, b"v", tx) == OK
        return world.engine

    engine = build()
    expected, tree = engine.state_hash(), engine.tree()
    looks: list[tuple[Callable[[], object], type[BaseException]]] = [
        (engine.state_hash, MemoryError),
        (engine.tree, MemoryError),
        (engine.check, AssertionError),
    ]
    for look, error in looks:

        def attempt(
            nth: int, look: Callable[[], object] = look, error: type[BaseException] = error
        ) -> bool:
            engine.fail_allocation(nth)
            try:
                look()
            except error:
                return True
            finally:
                engine.fail_allocation(0)
            return False

        assert each_failure(attempt) >= 2
    assert (engine.state_hash(), engine.tree()) == (expected, tree)
    engine.check()


def test_peaks_of_nobody() -> None:
    """A domain that is not known has none: KeyError."""
    with pytest.raises(KeyError, match="77"):
        core.Engine().domain_peaks(77)


def test_the_clock_of_the_benchmarks() -> None:
    """It counts the requests that were handled, and refuses more than fits in one read."""
    engine: Any = core.Engine()
    cid = engine.open(0, SOCKET, 0)
    assert engine.bench_feed(cid, frame(Msg.GET_DOMAIN_PATH, b"1\0") * 3, 10) > 0
    assert engine.counters()["requests"]["GET_DOMAIN_PATH"] == 30
    assert engine.bench_feed(cid, b"", 1) == 0.0
    with pytest.raises(ValueError, match="at most 65536"):
        engine.bench_feed(cid, b"x" * 65537, 1)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [(Msg.TRANSACTION_START, b"\0"), (Msg.WATCH, strings(b"/w", b"t"))],
)
def test_however_full_a_queue_is_a_reply_has_room_or_nothing_happens(
    kind: int, payload: bytes
) -> None:
    """What is queued already decides which allocation fails: none leaves half a thing behind."""
    failed = 0
    for queued in range(185, 215):

        def attempt(nth: int, queued: int = queued) -> bool:
            world = EngineWorld()
            client, engine = world.socket(), world.engine
            assert client.write(b"/v", b"v" * queued) == OK
            client.send(Msg.READ, b"/v\0")  # and nobody fetches the answer
            engine.fail_allocation(nth)
            client.send(kind, payload)
            engine.fail_allocation(0)
            replies = client.drain()[1:]
            engine.check()
            if replies and replies[0].type == kind:
                assert len(engine.transactions()) + len(engine.watches()) == 1
                return bool(engine.memory()["failures"])
            assert engine.transactions() == engine.watches() == []
            world.advance(0.02)  # it may have waited for memory
            return True

        failed += each_failure(attempt)
    assert failed >= 30


# ---- effects, and no memory to tell of them --------------------------------------------------


def test_what_dom0s_ring_is_owed_comes_when_there_is_memory() -> None:
    """INTRODUCE succeeds while there is no room to say so; that comes later, once and in order.

    The room that there was for it has gone to events that came meanwhile.
    """
    owed = 0
    for events in range(40):
        world = EngineWorld()
        engine, ring, writer = world.engine, world.guest(0), world.socket()
        world.domains.add(5)
        cid = cid_of(ring)
        assert ring.watch(b"/e", b"token") == OK
        engine.feed(world.now, cid, frame(Msg.INTRODUCE, strings(b"5", b"1", b"7"), 0, 9))
        effect, *_ = engine.next_effect()
        engine.feed(world.now, cid, frame(Msg.GET_DOMAIN_PATH, b"8\0", 0, 10))
        for i in range(events):
            assert writer.write(b"/e/%03d" % i, b"") == OK
        engine.fail_allocation(1)
        engine.complete(world.now, effect)
        engine.fail_allocation(1, sticky=True)
        engine.tick(world.now + 20 * MS)  # still none
        engine.fail_allocation(0)
        before = [packet.req_id for packet in ring.drain()]
        world.advance(0.04)
        world.settle()
        packets = ring.drain()
        after = [packet.req_id for packet in packets]
        assert [number for number in before + after if number] == [9, 10]
        if 9 in after:
            owed += 1
            assert packets[0].payload == OK
            assert engine.domain_conn(5) >= 0
        engine.check()
    assert owed > 0


def test_nobody_is_answered_who_is_about_to_be_closed() -> None:
    """A socket that lost input for want of memory waits for INTRODUCE: the domain comes."""
    engine: Any = core.Engine()
    cid = engine.open(0, SOCKET, 0)
    engine.feed(0, cid, frame(Msg.INTRODUCE, strings(b"5", b"1", b"7")))
    effect, *_ = engine.next_effect()
    engine.fail_allocation(1, sticky=True)
    assert engine.feed(0, cid, frame(Msg.READ, b"/\0")) & CLOSE
    engine.fail_allocation(0)
    engine.complete(0, effect)
    assert engine.domain_conn(5) >= 0
    assert engine.take(cid) == b""
    engine.close(0, cid)
    engine.check()


def test_a_domain_that_could_not_be_buried_is_buried_before_the_next_of_its_id() -> None:
    """Without memory the old one stays; a new one of that id never meets what was the old one's."""
    world = EngineWorld()
    engine, dom0, guest = world.engine, world.socket(), world.guest(5)
    assert dom0.write(b"/old", b"v") == OK
    assert dom0.setperms(b"/old", b"n5") == OK
    engine.fail_allocation(1, sticky=True)
    engine.domain_died(0, 5)
    assert engine.tick(0) == 10_000_000  # tried again soon
    with pytest.raises(MemoryError):
        engine.introduce(0, 5)
    assert engine.tick(1) == 10_000_001
    engine.fail_allocation(0)
    assert dom0.getperms(b"/old") == [b"n5"]
    engine.introduce(1, 5)
    assert dom0.getperms(b"/old") == "ENOENT"
    assert engine.domain_conn(5) >= 0
    assert engine.tick(2) is None
    assert guest is not None
    engine.check()


def test_a_shutdown_for_which_there_is_no_memory_is_told_later() -> None:
    """To watchers of both forms, to all or to none, and once."""

    def attempt(nth: int) -> bool:
        world = EngineWorld()
        engine, watcher = world.engine, world.socket()
        world.guest(5)
        assert watcher.watch(b"@releaseDomain", b"plain") == OK
        other = world.socket()
        assert other.watch(b"@releaseDomain", b"each", b"1") == OK
        engine.fail_allocation(nth)
        told = engine.domain_shutdown(0, 5)
        engine.fail_allocation(0)
        if not told:
            assert watcher.events() == other.events() == []
            assert engine.domain_shutdown(0, 5)
        assert watcher.events() == [(b"@releaseDomain", b"plain")]
        assert other.events() == [(b"@releaseDomain/5", b"each")]
        assert not engine.domain_shutdown(0, 5)
        engine.check()
        return not told

    assert each_failure(attempt) >= 1


# ---- transactions ----------------------------------------------------------------------------


def test_many_transactions_of_a_connection_end_in_any_order() -> None:
    """Each is found by its id, also where ids meet in a table; without memory for one, too."""
    world = EngineWorld()
    client, engine = world.socket(), world.engine
    first = [client.start() for _ in range(40)]
    for tx in first[1:30]:
        assert client.end(tx) == OK
    for _ in range(400):  # ids go on, until some meet the old ones
        tx = client.start()
        assert client.read(b"/tool", tx) == b""
        assert client.end(tx) == OK
    late = [client.start() for _ in range(40)]
    for tx in [first[0], *first[30:], *late[::-1]]:
        assert client.write(b"/t%d" % tx, b"v", tx) == OK
    for tx in [*first[30:], first[0], *late]:
        assert client.end(tx, commit=False) == OK
    assert engine.transactions() == []

    def attempt(nth: int) -> bool:
        world = EngineWorld()
        client, engine = world.socket(), world.engine
        opened: list[int] = []
        engine.fail_allocation(nth)
        for _ in range(20):
            client.send(Msg.TRANSACTION_START, b"\0")
            world.advance(0.02)  # it may have waited for memory
            (reply,) = client.drain()
            if reply.type == Msg.TRANSACTION_START:
                opened.append(int(reply.payload[:-1]))
        engine.fail_allocation(0)
        assert len(opened) >= 19
        assert {client.end(tx) for tx in opened} == {OK}
        engine.check()
        return bool(engine.memory()["failures"])

    assert each_failure(attempt) > 20


def test_one_commit_in_three_fails_when_clients_are_to_be_tested() -> None:
    """The same seed fails the same ones; nobody is blamed, and reading never fails."""

    def answers(seed: int) -> list[bytes | str]:
        engine: Any = core.Engine(seed=seed)
        engine.configure(test_eagain=True)
        world = EngineWorld()
        world.engine = engine
        client = world.socket()
        found = []
        for i in range(300):
            tx = client.start()
            assert client.read(b"/tool", tx) == b""
            assert client.end(tx) == OK
            tx = client.start()
            assert client.write(b"/n%d" % i, b"v", tx) == OK
            found.append(client.end(tx))
            assert (client.read(b"/n%d" % i) == b"v") == (found[-1] == OK)
        assert engine.conflicts() == []
        return found

    one, two = answers(1), answers(2)
    assert one == answers(1) != two
    for found in (one, two):
        assert set(found) == {OK, "EAGAIN"}
        assert 70 < found.count("EAGAIN") < 130


def test_a_guest_writes_in_its_view_what_a_dead_domain_owned() -> None:
    """Nobody is there to be charged; at the end it has to be asked again, and is refused."""
    arena = Arena()
    dom0, guest, _ = arena.socket(), arena.owner(1), arena.owner(2)
    assert dom0.write(b"/x", b"1") == OK
    assert dom0.setperms(b"/x", b"n2", b"b1") == OK
    tx = guest.start()
    assert guest.read(b"/x", tx) == b"1"
    arena.kill(2)
    assert guest.write(b"/x", b"longer", tx) == OK
    assert 2 not in arena.engine.counts()
    assert guest.end(tx) == "EAGAIN"
    assert dom0.read(b"/x") == "ENOENT"
    arena.check()


def limited(quota: bytes, value: int) -> tuple[Arena, Client]:
    """A guest with a home and a quota of its own."""
    arena = Arena()
    guest, dom0 = arena.owner(1), arena.socket()
    assert dom0.ask(Msg.SET_QUOTA, strings(b"1", quota, b"%d" % value)) == OK
    return arena, guest


def test_a_commit_keeps_to_the_nodes_that_there_are_by_then() -> None:
    """What was within the quota when it was asked for may be beyond it at the end."""
    arena, guest = limited(b"nodes", 5)  # of which its home is one
    tx = guest.start()
    for name in (b"a", b"b", b"c"):
        assert guest.write(name, b"", tx) == OK
    assert guest.write(b"d", b"") == OK
    assert guest.write(b"e", b"") == OK
    assert guest.end(tx) == "ENOSPC"
    assert guest.ls(home(1)) == [b"d", b"e"]
    arena.check()


def test_a_commit_that_has_to_create_more_than_before_is_counted_anew() -> None:
    """Somebody has removed the directory: asked again it takes two nodes, and is refused one."""
    arena, guest = limited(b"nodes", 4)
    dom0 = arena.socket()
    assert guest.mkdir(b"dir") == OK
    tx = guest.start()
    assert guest.write(b"dir/leaf", b"", tx) == OK
    assert dom0.rm(home(1) + b"/dir") == OK
    for name in (b"x", b"y"):
        assert guest.write(name, b"") == OK
    # Home, x and y: there is room for one more, as it was counted, but not for two.
    assert guest.end(tx) == "EAGAIN"
    assert guest.ls(home(1)) == [b"x", b"y"]
    arena.check()


def test_a_limit_that_has_become_lower_holds_when_a_transaction_is_asked_again() -> None:
    """What would be refused now is a different answer."""
    arena, guest = limited(b"transaction-requests", 10)
    dom0 = arena.socket()
    assert guest.write(b"x", b"1") == OK
    tx = guest.start()
    assert guest.read(b"x", tx) == b"1"
    assert guest.write(b"y", b"", tx) == OK
    assert dom0.ask(Msg.SET_QUOTA, strings(b"1", b"transaction-requests", b"1")) == OK
    assert dom0.write(home(1) + b"/x", b"1") == OK  # another stamp: it has to be asked again
    assert guest.end(tx) == "EAGAIN"
    assert guest.read(b"y") == "ENOENT"
    arena.check()


def test_a_conflict_with_nothing_that_was_seen() -> None:
    """Asked again, a write is refused for the size of a node whose names nobody looked at.

    Only without merging does that matter; nothing is there to be told as the reason.
    """
    arena = Arena(merge=False)
    guest = arena.owner(1)
    tx = guest.start()
    assert guest.write(b"n1", b"", tx) == OK
    for length in (200, 20, 2, 1):
        for i in range(100):
            if guest.write((b"%02d" % i).ljust(length, b"x")[:length], b"") != OK:
                break
    assert guest.end(tx) == "EAGAIN"
    (found,) = arena.engine.conflicts()
    assert (found["path"], found["seen"], found["known"]) == (b"", [], False)
    arena.check()


# ---- who is to blame -------------------------------------------------------------------------


def shared(arena: Arena, domids: list[int]) -> tuple[Client, list[Client]]:
    """A node that all of them may write."""
    dom0 = arena.socket()
    guests = [arena.owner(domid) for domid in domids]
    assert dom0.write(SHARED, b"0") == OK
    assert dom0.setperms(SHARED, b"n0", *(b"b%d" % domid for domid in domids)) == OK
    return dom0, guests


def test_who_changed_it_last_is_forgotten_after_4096_commits() -> None:
    """It is told which node it was, but not by whom."""
    arena = Arena()
    dom0, (guest,) = shared(arena, [1])
    other = arena.socket()
    tx = dom0.start()
    assert dom0.read(SHARED, tx) == b"0"
    assert dom0.write(b"/mark", b"", tx) == OK
    assert guest.write(SHARED, b"1") == OK
    for i in range(4100):
        assert other.write(b"/busy", b"%d" % i) == OK
    assert dom0.end(tx) == "EAGAIN"
    (found,) = arena.engine.conflicts()
    assert (found["path"], found["known"]) == (SHARED, False)
    arena.quiet()


def test_the_last_64_conflicts_are_told_oldest_first() -> None:
    """Whatever came before them is forgotten."""
    arena = Arena(priority_after=0)
    dom0, (guest,) = shared(arena, [1])
    for i in range(70):
        arena.sleep(300 * MS)
        conflict(arena, dom0, SHARED, (guest, b"%d" % (i + 1)))
    found = arena.engine.conflicts()
    assert [one["tx"] for one in found] == list(range(7, 71))
    times = [one["when_ns"] for one in found]
    assert times == sorted(times)
    arena.quiet()


def test_a_conflict_that_cannot_be_told_in_full_is_told_in_part() -> None:
    """Without memory for the path, or for the list, the commit fails all the same."""
    paths = set()

    def attempt(nth: int) -> bool:
        arena = Arena()
        dom0, (guest,) = shared(arena, [1])
        tx = dom0.start()
        assert dom0.read(SHARED, tx) == b"0"
        assert dom0.write(b"/mark", b"", tx) == OK
        assert guest.write(SHARED, b"1") == OK
        arena.engine.fail_allocation(nth)
        answer = dom0.end(tx)
        arena.engine.fail_allocation(0)
        if answer == "EAGAIN":
            paths.update(one["path"] for one in arena.engine.conflicts())
        arena.check()
        return bool(arena.engine.memory()["failures"])

    each_failure(attempt)
    assert paths == {SHARED, b""}


@pytest.mark.parametrize("ending", ["dies", "is cut off", "comes again"])
def test_a_culprit_that_has_gone_is_known_but_charges_nobody(ending: str) -> None:
    """Least of all the next domain of its id."""
    arena = Arena()
    dom0, (guest, _) = shared(arena, [1, 2])
    tx = dom0.start()
    assert dom0.read(SHARED, tx) == b"0"
    assert dom0.write(b"/mark", b"", tx) == OK
    assert guest.write(SHARED, b"1") == OK
    if ending == "is cut off":
        arena.engine.close(arena.now, cid_of(guest))
        arena.open_cids.discard(cid_of(guest))
    else:
        arena.kill(1)
    if ending == "comes again":
        arena.owner(1)
    assert dom0.end(tx) == "EAGAIN"
    assert arena.caused() == {}
    arena.quiet()
    arena.check()


def test_blame_among_more_nodes_than_are_listed() -> None:
    """A transaction saw forty nodes that have changed since: who changed the answer is found."""
    arena = Arena()
    dom0, (guest, other) = shared(arena, [1, 2])
    paths = [SHARED + b"/%02d" % i for i in range(40)]
    for path in paths:
        assert guest.write(path, b"0") == OK
    tx = dom0.start()
    for path in paths:
        assert dom0.read(path, tx) == b"0"
    assert dom0.write(b"/mark", b"", tx) == OK
    for path in paths:
        assert guest.write(path, b"0") == OK  # touched, and says the same
    assert other.write(b"x", b"") == OK
    assert guest.write(paths[-1], b"1") == OK
    assert other.write(b"x", b"") == OK
    assert dom0.end(tx) == "EAGAIN"
    assert arena.caused() == {1: 1}
    arena.quiet()


# ---- credit ----------------------------------------------------------------------------------


def test_credit_is_bounded_on_both_sides_also_where_the_limit_is_no_whole_number() -> None:
    """It never falls below minus one, and never rises above the limit."""
    arena = Arena(burst_limit=1.5, priority_after=0)
    dom0, (guest,) = shared(arena, [1])
    conflict(arena, dom0, SHARED, (guest, b"1"))
    assert arena.credit(1) == 0.5
    arena.sleep(50 * MS)
    assert arena.credit(1) == 1.5  # and not 1.5 with something left over
    conflict(arena, dom0, SHARED, (guest, b"2"))
    # Two transactions that one commit makes fail, so that it falls below nothing.
    other = arena.socket()
    first, second = dom0.start(), other.start()
    for client, tx in ((dom0, first), (other, second)):
        assert client.read(SHARED, tx) == b"2"
        assert client.write(b"/mark", b"", tx) == OK
    assert guest.write(SHARED, b"3") == OK
    assert (dom0.end(first), other.end(second)) == ("EAGAIN", "EAGAIN")
    assert arena.credit(1) == -1.0
    arena.quiet()
    assert arena.credit(1) == 1.5


def test_a_pause_ends_also_for_a_domain_whose_ring_has_gone() -> None:
    """And its next ring is served."""
    arena = Arena(burst_limit=1.0)
    dom0, (guest,) = shared(arena, [1])
    conflict(arena, dom0, SHARED, (guest, b"1"))
    assert arena.paused(1)
    arena.engine.close(arena.now, cid_of(guest))
    arena.open_cids.discard(cid_of(guest))
    arena.quiet()
    assert not arena.paused(1)
    assert arena.figures(1)["paused_ns"] == 50 * MS
    assert arena.guest(1).read(SHARED) == b"1"
    arena.check()


def test_of_several_paused_domains_one_dies() -> None:
    """Whichever place it had in the queue: the others are served in their turn."""
    for dead in (1, 2, 3):
        arena = Arena(burst_limit=1.0, priority_after=0)
        dom0, guests = shared(arena, [1, 2, 3])
        for i, guest in enumerate(guests):
            conflict(arena, dom0, SHARED, (guest, b"by %d" % i))
        assert all(arena.paused(domid) for domid in (1, 2, 3))
        arena.kill(dead)
        for domid in {1, 2, 3} - {dead}:
            guests[domid - 1].send(Msg.READ, SHARED + b"\0")
        arena.quiet()
        for domid in {1, 2, 3} - {dead}:
            assert [packet.payload for packet in guests[domid - 1].drain()] == [b"by 2"]
        arena.check()


def test_new_settings_give_everybody_full_credit() -> None:
    """Those below it, too, who are not paused."""
    arena = Arena(burst_limit=3.0, priority_after=0)
    dom0, (guest,) = shared(arena, [1])
    conflict(arena, dom0, SHARED, (guest, b"1"))
    assert arena.credit(1) == 2.0
    arena.engine.configure(burst_limit=7.0)
    assert arena.credit(1) == 7.0
    conflict(arena, dom0, SHARED, (guest, b"2"))
    assert arena.credit(1) == 6.0
    arena.quiet()
    assert arena.credit(1) == 7.0


# ---- priority --------------------------------------------------------------------------------


def favoured(arena: Arena, client: Client, culprit: Client) -> None:
    """Its transactions have failed eight times in a row."""
    for i in range(8):
        conflict(arena, client, SHARED, (culprit, b"%d of %d" % (i, cid_of(client))))


def test_of_two_that_wait_the_second_dies() -> None:
    """The first goes on waiting, and is served when the transaction with priority has ended."""
    arena = Arena(conflict=False)
    dom0, (one, two) = shared(arena, [1, 2])
    favoured(arena, dom0, one)
    tx = dom0.start()
    for guest in (one, two):
        guest.send(Msg.WRITE, SHARED + b"\0held")
        assert guest.drain() == []
    arena.kill(2)
    assert one.drain() == []
    assert dom0.end(tx) == OK
    arena.settle()
    assert [packet.payload for packet in one.drain()] == [OK]
    arena.quiet()
    arena.check()


def test_priority_passes_on_when_its_time_is_over() -> None:
    """Whoever does nothing with it loses it to the next one that has waited long enough."""
    arena = Arena(conflict=False)
    idle, (guest,) = shared(arena, [1])
    waiting = arena.socket()
    favoured(arena, idle, guest)
    favoured(arena, waiting, guest)
    idle.start()
    arena.sleep(200 * MS)
    tx = waiting.start()
    assert isinstance(waiting.read(SHARED, tx), bytes)
    guest.send(Msg.WRITE, SHARED + b"\0held")
    assert guest.drain() == []
    assert waiting.write(b"/mark", b"", tx) == OK
    assert waiting.end(tx) == OK
    arena.settle()
    assert [packet.payload for packet in guest.drain()] == [OK]
    arena.quiet()


def test_time_spent_waiting_for_one_counts_when_the_next_has_priority() -> None:
    """Two toolstacks, one after the other: a write waits 200 ms in all, not for each."""
    arena = Arena(conflict=False)
    first, (guest,) = shared(arena, [1])
    second = arena.socket()
    favoured(arena, first, guest)
    favoured(arena, second, guest)
    tx = first.start()
    since = arena.now
    guest.send(Msg.WRITE, SHARED + b"\0held")
    assert guest.drain() == []
    arena.sleep(50 * MS)
    # Nobody comes between the end of one and the beginning of the other.
    arena.engine.feed(arena.now, cid_of(first), frame(Msg.TRANSACTION_END, b"T\0", tx))
    arena.engine.feed(arena.now, cid_of(second), frame(Msg.TRANSACTION_START, b"\0"))
    arena.settle()
    arena.deadline = arena.engine.tick(arena.now)
    assert arena.deadline == since + 200 * MS
    assert guest.drain() == []
    arena.sleep(150 * MS - 1)
    assert guest.drain() == []
    arena.sleep(1)
    assert [packet.payload for packet in guest.drain()] == [OK]
    arena.quiet()
    arena.check()


# ---- the limit of writes ---------------------------------------------------------------------


def writes_at_once(arena: Arena, guest: Client) -> int:
    """How many writes of a guest are answered before it has to wait."""
    done = 0
    while done < 2000:
        guest.send(Msg.WRITE, b"x\0%d" % done)
        if not guest.drain():
            return done
        done += 1
    return done


def test_nobody_saves_more_than_the_burst_however_long_it_was_quiet() -> None:
    """Neither in a second nor in weeks."""
    saved = []
    for quiet in (1, 12 * 24 * 3600):
        arena = Arena(write_rate=True, write_burst=10, write_reserve=0)
        guest, dom0 = arena.owner(1), arena.socket()
        dom0.start()  # writes count while a transaction is open
        arena.sleep(quiet * S)
        saved.append(writes_at_once(arena, guest))
        arena.quiet()
        assert len(guest.drain()) == 1
    assert saved[0] == saved[1]
    assert 5 <= saved[0] <= 20


def test_of_those_in_debt_one_goes() -> None:
    """The others pay on; whoever's ring has gone is forgiven, and a later ring is served."""
    for ending in ("dies", "is cut off"):
        arena = Arena(write_rate=True, write_burst=2, write_reserve=0)
        dom0 = arena.socket()
        guests = [arena.owner(domid) for domid in (1, 2, 3)]
        dom0.start()
        for guest in guests:
            assert writes_at_once(arena, guest) < 100
        if ending == "dies":
            arena.kill(1)
        else:
            arena.engine.close(arena.now, cid_of(guests[0]))
            arena.open_cids.discard(cid_of(guests[0]))
        arena.quiet()
        for guest in guests[1:]:
            assert [packet.payload for packet in guest.drain()] == [OK]
        assert isinstance(arena.guest(1).ls(home(2)), str)
        arena.check()


def test_a_ring_that_was_never_introduced_earns_nothing() -> None:
    """Nobody shares the rate yet; that is no reason to divide by their number."""
    arena = Arena(write_rate=True)
    engine, dom0 = arena.engine, arena.socket()
    assert dom0.mkdir(home(9)) == OK
    arena.domains.add(9)
    assert dom0.setperms(home(9), b"n9") == OK
    dom0.start()
    cid = engine.open(arena.now, RING, 9)
    arena.sleep(10 * S)
    engine.feed(arena.now, cid, frame(Msg.WRITE, b"x\0v"))
    assert engine.take(cid)[16:] == OK
    engine.feed(arena.now, cid, frame(Msg.WRITE, b"x\0w"))
    assert engine.take(cid) == b""  # in debt with the first, and without an income
    engine.check()
