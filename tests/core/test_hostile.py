"""What a hostile guest must not be able to do to the store or to others."""

from __future__ import annotations

from arena import MS, Arena, frames, home
from world import OK, Client, EngineLink, EngineWorld, Msg, strings

DEEP = b"/".join([b"d"] * 900)
QUOTA = 2_621_440


def test_making_and_removing_does_not_outrun_the_freeing_of_what_is_dead() -> None:
    """However many nodes are made and removed in a row, memory stays within a bound."""
    arena = Arena()
    guest = arena.owner(1)
    assert isinstance(guest.link, EngineLink)
    pair = frames((Msg.MKDIR, DEEP + b"\0", 0), (Msg.RM, b"d\0", 0))
    most = 0
    for _ in range(100):
        arena.engine.feed(arena.now, guest.link.cid, pair * 8)
        guest.drain()
        most = max(most, arena.engine.memory()["tree_bytes"])
    assert most < 2_000_000


def test_the_events_of_one_commit_stay_within_the_memory_quota() -> None:
    """Many changes, each seen by many watches, do not fill a queue beyond its owner's quota."""
    arena = Arena()
    guest = arena.owner(1)
    for i in range(100):
        assert guest.watch(home(1), b"t%d" % i) == OK
    tx = guest.start()
    for i in range(300):
        assert guest.write(b"p%d/" % i + b"a" * 1500, b"", tx) == OK
    guest.send(Msg.TRANSACTION_END, b"T\0", tx)
    assert arena.engine.counts()[1]["memory"] <= QUOTA
    assert arena.counter("events_dropped") > 0


def favoured() -> tuple[Arena, Client, Client]:
    """A guest with priority and another one, each with a node of its own."""
    arena = Arena(conflict=False)
    guest, other, dom0 = arena.owner(1), arena.owner(2), arena.socket()
    assert dom0.mkdir(b"/shared") == OK
    assert dom0.setperms(b"/shared", b"n0", b"b1", b"b2") == OK
    assert guest.write(b"x", b"") == OK
    assert other.write(b"own", b"") == OK
    for i in range(8):
        tx = guest.start()
        guest.read(b"/shared", tx)
        assert guest.write(b"x", b"", tx) == OK
        assert other.write(b"/shared", b"%d" % i) == OK
        assert guest.end(tx) == "EAGAIN"
    return arena, guest, other


def test_nobody_is_held_back_for_what_the_holder_may_not_see() -> None:
    """Asking for private nodes of others with priority does not slow them down."""
    _, guest, other = favoured()
    tx = guest.start()
    assert guest.read(home(2) + b"/own", tx) == "EACCES"
    assert other.write(b"own", b"1") == OK


def test_priority_that_was_not_used_to_commit_must_be_earned_anew() -> None:
    """Holding others back and giving up works once."""
    arena, guest, other = favoured()
    tx = guest.start()
    guest.read(b"/shared", tx)
    other.send(Msg.WRITE, b"/shared\0a")
    assert other.drain() == []
    arena.sleep(200 * MS)
    assert len(other.drain()) == 1
    assert guest.end(tx, commit=False) == OK
    tx = guest.start()
    guest.read(b"/shared", tx)
    assert other.write(b"/shared", b"b") == OK


def test_what_is_asked_in_a_transaction_counts_against_the_memory_quota() -> None:
    """Records of requests and of changes together stay within it."""
    world = EngineWorld()
    guest, dom0 = world.guest(1), world.socket()
    assert dom0.mkdir(home(1)) == OK
    assert dom0.setperms(home(1), b"n1") == OK
    assert dom0.ask(Msg.SET_QUOTA, strings(b"1", b"memory", b"20000")) == OK
    tx = guest.start()
    answers = {guest.write(b"same", b"%03d" % i + b"v" * 900, tx) for i in range(60)}
    assert answers == {OK, "ENOMEM"}
    assert world.engine.counts()[1]["memory"] <= 20_000
