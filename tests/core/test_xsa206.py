"""Transactions that nobody can starve: the steps of the 2017 series, one test for each.

The series gave one store conflict credit with blame, the other a limit on writing; this engine
has both. Each test is named for the change that it shows.
"""

from __future__ import annotations

import pytest
from arena import MS, Arena, S, conflict, home
from world import OK, Client, Msg

X1, X2 = home(1) + b"/x", home(2) + b"/x"


def two_guests(**settings: object) -> tuple[Arena, Client, Client, Client]:
    """A toolstack and two guests, each with a node of its own that the other may write."""
    arena = Arena(**settings)
    dom0, one, two = arena.socket(), arena.owner(1), arena.owner(2)
    for path in (X1, X2):
        assert dom0.write(path, b"0") == OK
        assert dom0.setperms(path, b"n0", b"b1", b"b2") == OK
    return arena, dom0, one, two


# --- the limit on writing -----------------------------------------------------------------------


def test_write_rate_limit() -> None:
    """While a transaction is open, writing costs; who has nothing left is not read until it has."""
    arena, dom0, one, two = two_guests(write_rate=True, conflict=False)
    for i in range(100):
        assert one.write(X1, b"%d" % i) == OK  # nobody can be hurt by it
    tx = dom0.start()
    # Ten saved, the eleventh on credit.
    for _ in range(11):
        assert one.write(X1, b"v") == OK
    one.send(Msg.WRITE, X1 + b"\0v")
    assert one.drain() == []
    assert two.write(X2, b"v") == OK
    assert dom0.write(X1, b"by the toolstack") == OK
    # Two guests share 200 writes a second: a debt of one is paid in 10 ms.
    arena.sleep(10 * MS - 1)
    assert one.drain() == []
    arena.sleep(1)
    assert [packet.type for packet in one.drain()] == [Msg.WRITE]
    assert dom0.end(tx) == OK
    arena.sleep(10 * MS)
    assert one.write(X1, b"v") == OK


def test_write_rate_limit_is_logged_when_it_bites() -> None:
    """Once per domain, once when it comes again after quiet times, and once when it is over."""
    arena, dom0, one, _two = two_guests(write_rate=True, conflict=False, write_burst=0)
    arena.log.clear()
    dom0.start()

    def bite() -> None:
        for _ in range(3):
            assert one.write(X1, b"v") == OK  # on credit
            arena.sleep(S)

    bite()
    assert arena.log == ["write rate limit: domain 1 is affected"]
    arena.sleep(118 * S)
    assert len(arena.log) == 1
    arena.sleep(S)
    assert arena.log[1:] == ["write rate limit: not in force recently"]
    arena.log.clear()
    for _ in range(3):
        bite()
    assert arena.log == ["write rate limit: rate limiting restarts"]


# --- conflict credit ----------------------------------------------------------------------------


def test_conflict_credit_per_domain() -> None:
    """A point for each conflict that a domain has caused; it ends at one below nothing."""
    arena, dom0, one, _two = two_guests(burst_limit=3.0)
    assert [arena.credit(1), arena.credit(2)] == [3.0, 3.0]
    for left in (2.0, 1.0, 0.0):
        conflict(arena, dom0, X1, (one, b"%f" % left))
        assert [arena.credit(1), arena.credit(2)] == [left, 3.0]
    assert [arena.paused(1), arena.paused(2)] == [True, False]
    assert arena.caused() == {1: 3}
    assert arena.figures(0)["suffered"] == 3


def test_credit_ends_at_one_below_nothing() -> None:
    """Conflicts that come to light while a domain is paused cost it one more point at most."""
    arena, dom0, one, _two = two_guests(burst_limit=1.0)
    open_ones = [dom0.start() for _ in range(4)]
    for tx in open_ones:
        assert dom0.read(X1, tx) == b"0"
        assert dom0.write(b"/mark", b"", tx) == OK
    assert one.write(X1, b"1") == OK
    credits = []
    for tx in open_ones:
        assert dom0.end(tx) == "EAGAIN"
        credits.append(arena.credit(1))
    assert credits == [0.0, -1.0, -1.0, -1.0]
    assert arena.caused() == {1: 4}


def test_domains_without_credit_are_ignored_and_replenished() -> None:
    """Their requests wait where they are; a point comes with each period; the others go on."""
    arena, dom0, one, two = two_guests(burst_limit=2.0)
    for value in (b"1", b"2"):
        conflict(arena, dom0, X1, (one, value))
    one.send(Msg.READ, X1 + b"\0")
    assert one.drain() == []
    assert two.read(X1) == b"2"
    arena.sleep(50 * MS - 1)
    assert one.drain() == []
    arena.sleep(1)
    assert [packet.payload for packet in one.drain()] == [b"2"]
    assert (arena.credit(1), arena.figures(1)["paused_ns"]) == (1.0, 50 * MS)
    arena.sleep(50 * MS)
    assert arena.credit(1) == 2.0
    arena.sleep(S)
    assert arena.credit(1) == 2.0


# --- history ------------------------------------------------------------------------------------


def test_original_store_and_commit_count_are_kept_in_the_transaction() -> None:
    """It is asked again from the tree of its start, and blames nobody for what was before it."""
    arena, dom0, one, two = two_guests()
    other = dom0.start()  # so that all that follows is kept
    assert one.write(X1, b"before") == OK
    tx = dom0.start()
    assert dom0.read(X1, tx) == b"before"
    assert dom0.write(b"/mark", b"", tx) == OK
    assert arena.records == 1
    assert two.write(X1, b"after") == OK
    assert (arena.records, dom0.read(X1, tx)) == (2, b"before")
    assert dom0.end(tx) == "EAGAIN"
    assert arena.caused() == {2: 1}
    assert dom0.end(other) == OK


def test_history_of_commits_is_supported() -> None:
    """Each knows the tree before and after it: who broke what another had repaired is found."""
    arena, dom0, one, two = two_guests()
    tx = dom0.start()
    assert dom0.read(X1, tx) == b"0"
    assert dom0.write(b"/mark", b"", tx) == OK
    for guest, value in ((one, b"1"), (two, b"0"), (one, b"0"), (two, b"2")):
        assert guest.write(X1, value) == OK
    assert arena.records == 4
    assert dom0.end(tx) == "EAGAIN"
    assert arena.caused() == {1: 1, 2: 1}


def test_only_side_effects_are_recorded() -> None:
    """Reading, failing, and doing what is done already leave no trace."""
    arena, dom0, one, _two = two_guests()
    dom0.start()
    assert one.read(X1) == b"0"
    assert one.ls(home(1)) == [b"x"]
    assert one.getperms(X1) == [b"n0", b"b1", b"b2"]
    assert one.write(b"/no", b"") == "EACCES"
    assert one.setperms(X1, b"n0") == "EACCES"
    assert one.rm(b"none") == OK
    assert one.rm(b"none/x") == "ENOENT"
    assert one.mkdir(X1) == OK
    reading = one.start()
    assert one.read(X1, reading) == b"0"
    assert one.write(b"/no", b"", reading) == "EACCES"
    assert one.end(reading) == OK
    aborted = one.start()
    assert one.write(X1, b"v", aborted) == OK
    assert one.end(aborted, commit=False) == OK
    assert arena.records == 0
    assert one.write(X1, b"1") == OK
    assert arena.records == 1


def test_history_is_discarded_at_the_end_of_transactions() -> None:
    """Of what happened before the oldest open one started nothing is kept, of the rest all."""
    arena, dom0, one, two = two_guests()
    first = dom0.start()
    assert one.write(X1, b"1") == OK
    second = dom0.start()
    assert one.write(X1, b"2") == OK
    assert two.write(X1, b"3") == OK
    third = dom0.start()
    assert arena.records == 3
    assert dom0.end(second, commit=False) == OK
    assert arena.records == 3
    assert dom0.end(first) == OK
    assert arena.records == 0  # the third has seen it all
    assert one.write(X1, b"4") == OK
    assert arena.records == 1
    arena.close(dom0)
    assert arena.records == 0
    assert third == 3


def test_history_is_tracked() -> None:
    """Writes and commits of guests are, while somebody may ask; privileged ones are free."""
    arena, dom0, one, two = two_guests()
    ring0 = arena.guest(0)
    assert one.write(X1, b"1") == OK
    assert arena.records == 0
    watching = dom0.start()
    assert one.write(X1, b"2") == OK
    assert arena.records == 1
    tx = two.start()
    assert two.write(X1, b"3", tx) == OK
    assert two.write(X2, b"3", tx) == OK
    assert arena.records == 1
    assert two.end(tx) == OK
    assert arena.records == 2
    assert dom0.write(X1, b"4") == OK
    assert ring0.write(X1, b"5") == OK
    assert arena.records == 2
    # Commits in a row with nothing between them share a record.
    for i in range(50):
        assert one.write(X1, b"%d" % i) == OK
    assert arena.records == 3
    assert dom0.end(watching) == OK
    assert arena.records == 0


def test_history_is_trimmed_with_time() -> None:
    """Who takes longer than the period is not protected, and nothing is kept for him."""
    arena, dom0, one, _two = two_guests()
    tx = dom0.start()
    assert dom0.read(X1, tx) == b"0"
    assert dom0.write(b"/mark", b"", tx) == OK
    arena.sleep(30 * MS)
    assert one.write(X1, b"1") == OK
    assert arena.records == 1
    arena.sleep(20 * MS)
    assert arena.records == 1
    arena.sleep(1)
    assert arena.records == 0
    for i in range(5):
        assert one.write(X1, b"%d" % i) == OK
        assert arena.records == 0
    assert dom0.end(tx) == "EAGAIN"
    assert arena.caused() == {}


def test_the_end_of_a_transaction_does_not_protect_it_any_more() -> None:
    """Neither does that of an older one, whose time has run out meanwhile."""
    arena, dom0, one, _two = two_guests()
    dom0.start()
    arena.sleep(40 * MS)
    younger = dom0.start()
    arena.sleep(20 * MS)
    assert dom0.end(younger) == OK
    assert one.write(X1, b"1") == OK
    assert arena.records == 0
    dom0.end(dom0.start())
    arena.check()


# --- blame --------------------------------------------------------------------------------------


def test_all_culprits_are_blamed() -> None:
    """Everybody whose commit made the difference at some time, once for each failure."""
    arena, dom0, one, two = two_guests()
    three = arena.owner(3)
    conflict(
        arena, dom0, X1,
        (one, b"1"), (dom0, b"0"), (two, b"2"), (dom0, b"0"), (one, b"3"), (dom0, b"0"),
        (two, b"4"),
    )  # fmt: skip
    assert arena.caused() == {1: 1, 2: 1}
    assert three.write(b"x", b"") == OK
    (explained,) = arena.engine.conflicts()
    assert (explained["path"], explained["seen"]) == (X1, ["self"])
    assert (explained["domid"], explained["by_domid"], explained["charged"]) == (0, 2, True)


def test_self_conflicts_are_allowed() -> None:
    """Who gets in his own way fails, and pays nothing."""
    arena, _dom0, one, two = two_guests()
    tx = one.start()
    assert one.read(X1, tx) == b"0"
    assert one.write(b"mark", b"", tx) == OK
    assert one.write(X1, b"1") == OK
    assert two.write(X2, b"1") == OK
    assert one.end(tx) == "EAGAIN"
    assert arena.caused() == {}
    assert [arena.credit(1), arena.credit(2)] == [5.0, 5.0]


def test_read_only_transactions_are_not_committed() -> None:
    """They succeed whatever has happened, nobody is told, and the history knows nothing."""
    arena, dom0, one, two = two_guests()
    watching = dom0.start()
    assert dom0.watch(b"/local", b"t") == OK
    tx = one.start()
    assert one.read(X1, tx) == b"0"
    assert one.ls(home(1), tx) == [b"x"]
    assert two.write(X1, b"1") == OK
    assert dom0.events() == [(X1, b"t")]
    commits = arena.counter("commits")
    assert one.end(tx) == OK
    assert (arena.counter("commits"), arena.counter("conflicts"), arena.records) == (commits, 0, 1)
    assert dom0.events() == []
    assert arena.caused() == {}
    assert dom0.end(watching) == OK


# --- quiet --------------------------------------------------------------------------------------


@pytest.mark.parametrize("aggregate", [True, False])
@pytest.mark.parametrize("limit", [1.0, 5.0])
def test_no_wake_up_without_need(aggregate: bool, limit: float) -> None:
    """As many as points are missing, then none; one more tells the log, two minutes later."""
    arena, dom0, one, _two = two_guests(aggregate=aggregate, burst_limit=limit)
    assert one.write(X1, b"v") == OK
    arena.engine.collect()
    arena.deadline = arena.engine.tick(arena.now)
    assert arena.deadline is None
    dom0.end(dom0.start())
    arena.sleep(10 * S)
    assert arena.wake_ups == 0
    conflict(arena, dom0, X1, (one, b"1"))
    arena.engine.collect()
    arena.sleep(60 * S)
    assert arena.credit(1) == limit
    points = arena.wake_ups
    assert 1 <= points <= 3  # what died with the transaction may want one to be freed
    arena.sleep(60 * S)
    assert arena.wake_ups == points + 1
    arena.sleep(3600 * S)
    assert arena.wake_ups == points + 1
    assert arena.deadline is None


def test_quiet_logging() -> None:
    """Details only when wanted; else a summary, at most one in two minutes."""
    arena, dom0, one, two = two_guests(period_ns=1000 * MS)
    for i in range(4):
        conflict(arena, dom0, X1, (one, b"%d" % (i + 1)))
    conflict(arena, dom0, X1, (two, b"x"))
    conflict(arena, dom0, X1, (dom0, b"y"))
    assert (arena.log, arena.details) == ([], [])
    arena.sleep(119 * S)
    assert arena.log == []
    arena.sleep(S)
    headline, *rest = arena.log
    assert headline == (
        "conflicts of the last 120 s: 6 transactions failed, 1 of them without a culprit"
    )
    assert sorted(rest) == ["Dom1 caused 4 conflicts", "Dom2 caused 1 conflicts"]
    arena.sleep(600 * S)
    assert len(arena.log) == 3
    arena.engine.configure(log_debug=True)
    conflict(arena, dom0, X1, (one, b"z"))
    assert [line.split(":")[0] for line in arena.details] == [
        "connection 0", "domain 1 is to blame, commit 7", "domain 1",
    ]  # fmt: skip
    assert len(arena.log) == 3
