"""What nobody can ask for any more is forgotten in portions, and all of it in the end."""

from __future__ import annotations

from arena import MS, OK, Arena
from world import Client

PORTION = 256
MANY = 1000


def filled() -> tuple[Arena, Client, int]:
    """A guest with an open transaction, and many records since that began."""
    arena = Arena()
    victim, *writers = (arena.owner(domid) for domid in (1, 2, 3))
    tx = victim.start()
    for number in range(MANY):
        assert writers[number % 2].write(b"w", b"%d" % number) == OK
    assert arena.records == MANY
    return arena, victim, tx


def test_a_portion_at_an_end_the_rest_by_the_clock() -> None:
    """The end of the last transaction pays for one portion, each pace of the clock for one more."""
    arena, victim, tx = filled()
    victim.end(tx, False)
    # The request that ended it is followed by a tick, since there is more.
    assert arena.records == MANY - 2 * PORTION
    arena.sleep(MS)
    assert arena.records == MANY - 3 * PORTION
    arena.sleep(MS)
    assert arena.records == 0
    arena.quiet()
    arena.engine.check()


def test_what_is_left_blames_nobody() -> None:
    """A later transaction that fails is not the fault of whom old records name."""
    arena, victim, tx = filled()
    victim.end(tx, False)
    assert arena.records > 0
    culprit = arena.owner(4)
    tx = victim.start()
    victim.read(b"w", tx)
    dom0 = arena.socket()
    assert dom0.setperms(b"/local/domain/1", b"b1") == OK
    assert culprit.write(b"/local/domain/1/w", b"5") == OK
    assert victim.write(b"x", b"", tx) == OK
    assert victim.end(tx, True) != OK
    assert arena.caused() == {4: 1}
    arena.quiet()
    assert arena.records == 0
    arena.engine.check()
