"""The attack: guests that rewrite, as fast as they can, what a toolstack's transaction reads.

On a simulated clock: each step of the toolstack takes a millisecond, and between any two steps
every attacker writes as often as it is let. Without protection the toolstack never commits. With
it, it does after a number of tries that can be told beforehand, and an innocent guest beside them
does not even notice.

The bound. A try takes STEPS milliseconds, T seconds; the period is P. Every try that fails costs
one of the k attackers a point at least, and they have k times L of them at first; during n tries
n T / P periods pass, each of which brings one point, or one for each attacker. An attacker
without points is not served. So the number of failures in a row n satisfies n <= k L + a (n T / P
+ 1), with a = 1 or a = k; and with priority after 8 failures it is 8 at most.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from arena import MS, Arena, S, Writer, conflict, frames, home
from world import OK, Client, Msg, strings

VICTIMS = [b"/local/domain/9/a", b"/local/domain/9/b"]
STEP = 1 * MS
STEPS = 5
PERIOD = 50 * MS
BURST = 40  # writes of each attacker between two steps; enough to hide among 32 trials
NEAR = 512  # looked at one by one
FAR = 700  # more than these


def bound(attackers: int, limit: float, aggregate: bool, priority: bool) -> int:
    """Tries after which the toolstack has committed at the latest."""
    rate = (1 if aggregate else attackers) * STEPS * STEP / PERIOD
    assert rate < 1
    failures = (attackers * math.ceil(limit) + (1 if aggregate else attackers)) / (1 - rate)
    return min(math.floor(failures), 8 if priority else 10**9) + 1


@dataclass(slots=True)
class Innocent:
    """A guest that minds its own business: a write and a transaction each time, and all served."""

    client: Client
    domid: int
    every: int
    due: int = 0
    rounds: int = 0

    def live(self, now: int) -> None:
        if now < self.due:
            return
        self.due = now + self.every
        self.rounds += 1
        assert self.client.write(b"alive", b"%d" % self.rounds) == OK
        tx = self.client.start()
        assert self.client.read(b"alive", tx) == b"%d" % self.rounds
        assert self.client.write(b"done", b"%d" % self.rounds, tx) == OK
        assert self.client.end(tx) == OK


@dataclass(slots=True)
class Siege:
    """A toolstack, attackers, and an innocent guest."""

    arena: Arena
    toolstack: Client
    attackers: list[Writer]
    innocent: Innocent
    turns: bool = False  # one attacker at a time
    step_count: int = 0

    def step(self) -> None:
        """A millisecond passes, in which everybody does what he can."""
        self.arena.sleep(STEP)
        self.step_count += 1
        self.innocent.live(self.arena.now)
        if self.turns:
            for _ in range(BURST):
                for attacker in self.attackers:
                    attacker.go(1)
            return
        for attacker in self.attackers:
            attacker.go(BURST)

    def attempt(self) -> bytes | str:
        """One transaction of the toolstack, with a step after each of its requests."""
        client = self.toolstack
        tx = client.start()
        self.step()
        for path in VICTIMS:
            assert isinstance(client.read(path, tx), bytes)
            self.step()
        assert client.write(b"/vm/new", b"v", tx) == OK
        self.step()
        self.step()
        return client.end(tx)

    def tries(self, most: int) -> int | None:
        """How many it takes to commit; None if it does not in so many."""
        for count in range(1, most + 1):
            if self.attempt() == OK:
                return count
        return None


def besiege(
    attackers: int = 1, in_transactions: bool = False, turns: bool = False, **settings: object
) -> Siege:
    arena = Arena(period_ns=PERIOD, **settings)
    toolstack = arena.socket()
    guests = [arena.owner(domid) for domid in range(1, attackers + 1)]
    entries = [b"n0", *(b"b%d" % domid for domid in range(1, attackers + 1))]
    for path in VICTIMS:
        assert toolstack.write(path, b"0") == OK
        assert toolstack.setperms(path, *entries) == OK
    writers = [
        Writer(guest, VICTIMS[i % len(VICTIMS)], in_transactions) for i, guest in enumerate(guests)
    ]
    every = 80 * MS if settings.get("write_rate") else STEP
    siege = Siege(arena, toolstack, writers, Innocent(arena.owner(50), 50, every), turns)
    siege.step()
    return siege


def unharmed(siege: Siege) -> None:
    """The innocent has lost nothing, and everything comes to rest."""
    arena = siege.arena
    assert siege.innocent.rounds > 0
    assert arena.figures(50)["paused_ns"] == 0
    assert arena.figures(50)["caused"] == 0
    assert siege.innocent.domid not in arena.caused()
    limit = max(one["credit"] for one in arena.engine.conflict_figures().values())
    arena.quiet()
    assert arena.credit(1) == limit
    assert arena.records == 0
    for attacker in siege.attackers:
        attacker.collect()
        attacker.collect()  # a START that was let in late has had its END only now
        assert attacker.waiting == []  # whatever it had asked for has been answered
    arena.check()


COMBINATIONS = list(itertools.product([True, False], [1.0, 5.0], [True, False], [True, False]))


@pytest.mark.parametrize("in_transactions", [False, True], ids=["writes", "commits"])
@pytest.mark.parametrize("write_rate", [False, True], ids=["free", "write rate"])
def test_without_protection_the_toolstack_never_commits(
    in_transactions: bool, write_rate: bool
) -> None:
    """The attack works: not once in 200 tries, and nobody pays for it."""
    siege = besiege(
        in_transactions=in_transactions, conflict=False, priority_after=0, write_rate=write_rate,
        # A rate that would be enough for anybody.
        writes_per_second=10**6, write_burst=1000,
    )  # fmt: skip
    assert siege.tries(200) is None
    assert siege.attackers[0].served > 10_000
    assert siege.arena.figures(1)["paused_ns"] == 0
    unharmed(siege)


@pytest.mark.parametrize(("aggregate", "limit", "priority", "write_rate"), COMBINATIONS)
@pytest.mark.parametrize("attackers", [1, 3])
@pytest.mark.parametrize("in_transactions", [False, True], ids=["writes", "commits"])
def test_the_toolstack_commits_within_the_bound(
    attackers: int, in_transactions: bool, aggregate: bool, limit: float, priority: bool,
    write_rate: bool,
) -> None:  # fmt: skip
    """In tries, and so in time, again and again; the innocent loses nothing."""
    siege = besiege(
        attackers, in_transactions, aggregate=aggregate, burst_limit=limit,
        priority_after=8 if priority else 0, write_rate=write_rate,
    )  # fmt: skip
    most = bound(attackers, limit, aggregate, priority)
    counts: list[int] = []
    for _ in range(10):
        before = siege.arena.now
        count = siege.tries(most)
        assert count is not None, f"not in {most} tries; before: {counts}"
        assert siege.arena.now - before <= most * STEPS * STEP
        counts.append(count)
    assert counts[0] > 1 or write_rate, "the attack did not even begin"
    unharmed(siege)


@pytest.mark.parametrize("aggregate", [True, False])
@pytest.mark.parametrize("attackers", [2, 4])
def test_attackers_taking_turns_cannot_hide_behind_each_other(
    attackers: int, aggregate: bool
) -> None:
    """Thousands of commits by turns: every failure finds somebody, without any priority."""
    siege = besiege(attackers, turns=True, aggregate=aggregate, priority_after=0)
    count = siege.tries(bound(attackers, 5.0, aggregate, False))
    assert count is not None
    # None of the failures was without a culprit.
    assert sum(siege.arena.caused().values()) >= count - 1
    unharmed(siege)


@pytest.mark.parametrize("guests", [1, 2, 3])
@pytest.mark.parametrize("seen", [False, True], ids=["noise elsewhere", "noise in sight"])
def test_nobody_hides_behind_the_number_of_commits(guests: int, seen: bool) -> None:
    """One commit that hurts, hundreds after it, by turns with an accomplice: it is found."""
    arena = Arena()
    dom0 = arena.socket()
    clients = [arena.owner(domid) for domid in range(1, guests + 1)]
    path = home(1) + b"/x"
    assert clients[0].write(b"x", b"0") == OK
    assert dom0.setperms(path, b"n1", *(b"b%d" % d for d in range(2, guests + 1))) == OK
    tx = dom0.start()
    assert dom0.read(path, tx) == b"0"
    assert dom0.write(b"/mark", b"", tx) == OK
    assert clients[0].write(b"x", b"hurts") == OK
    for i in range(FAR):
        for client in clients[::-1]:
            assert client.write(path if seen else b"noise", b"n%d" % i) == OK
    assert dom0.end(tx) == "EAGAIN"
    assert arena.caused() == {1: 1}


@pytest.mark.parametrize(("later", "guilty"), [(NEAR - 1, 1), (NEAR, 2)])
def test_as_many_commits_as_promised_are_looked_at_one_by_one(later: int, guilty: int) -> None:
    """Among the last 512 who hurts is seen; beyond them one is found, here the oldest."""
    arena = Arena()
    dom0 = arena.socket()
    one, two, *noisy = (arena.owner(domid) for domid in (1, 2, 3, 4))
    path = b"/shared"
    assert dom0.write(path, b"0") == OK
    assert dom0.setperms(path, b"n0", b"b1", b"b2", b"b3") == OK
    tx = dom0.start()
    assert dom0.read(path, tx) == b"0"
    assert dom0.write(b"/mark", b"", tx) == OK
    for client, value in ((two, b"hurts"), (noisy[0], b"0"), (one, b"hurts")):
        assert client.write(path, value) == OK
    for i in range(later):  # by turns: what one guest does in a row is one record
        assert noisy[i % 2].write(b"noise", b"n%d" % i) == OK
    assert dom0.end(tx) == "EAGAIN"
    assert arena.caused() == {guilty: 1}


# --- blame: all culprits, and nobody else -------------------------------------------------------


def shared(arena: Arena, domids: Sequence[int]) -> tuple[Client, list[Client], bytes]:
    """Guests that may all write one node of nobody's."""
    dom0 = arena.socket()
    guests = [arena.owner(domid) for domid in domids]
    path = b"/shared"
    assert dom0.write(path, b"0") == OK
    assert dom0.setperms(path, b"n0", *(b"b%d" % domid for domid in domids)) == OK
    return dom0, guests, path


def test_who_started_before_a_conflict_and_committed_after_it_is_not_blamed() -> None:
    """A commit is judged by the trees right before and right after it, not by its start."""
    arena = Arena()
    dom0, (one, two), path = shared(arena, [1, 2])
    innocent = two.start()
    assert two.write(b"mine", b"v", innocent) == OK
    tx = dom0.start()
    assert dom0.read(path, tx) == b"0"
    assert dom0.write(b"/mark", b"", tx) == OK
    assert one.write(path, b"1") == OK
    assert two.end(innocent) == OK
    assert dom0.end(tx) == "EAGAIN"
    assert arena.caused() == {1: 1}


def test_who_only_comes_later_is_not_blamed() -> None:
    """When all was lost already, further changes made no difference."""
    arena = Arena()
    dom0, (one, two, three), path = shared(arena, [1, 2, 3])
    conflict(arena, dom0, path, (one, b"1"), (two, b"2"), (three, b"3"), (two, b"4"))
    assert arena.caused() == {1: 1}


def test_who_touches_what_was_seen_without_changing_the_answer_is_not_blamed() -> None:
    """Stamps only tell whom to try."""
    arena = Arena()
    dom0, (one, two), path = shared(arena, [1, 2])
    conflict(arena, dom0, path, (two, b"0"), (one, b"1"))
    assert arena.caused() == {1: 1}


def test_a_victims_own_commits_are_never_blamed() -> None:
    """Neither writes nor other transactions of the same connection; others still are."""
    arena = Arena()
    _dom0, (one, two), path = shared(arena, [1, 2])
    for by_two in (False, True):
        tx, other = one.start(), one.start()
        before = one.read(path, tx)
        assert one.write(b"mark", b"", tx) == OK
        assert one.write(path, b"own", other) == OK
        assert one.end(other) == OK
        if by_two:
            assert one.write(path, before if isinstance(before, bytes) else b"") == OK
            assert two.write(path, b"two") == OK
        else:
            assert one.write(path, b"own again") == OK
        assert one.end(tx) == "EAGAIN"
        assert arena.caused() == ({2: 1} if by_two else {})


def test_sockets_and_the_privileged_domain_are_never_blamed() -> None:
    """They are free to conflict, and are served whatever happens."""
    arena = Arena(burst_limit=1.0)
    dom0, (one,), path = shared(arena, [1])
    ring0, other = arena.guest(0), arena.socket()
    for culprit in (ring0, other):
        conflict(arena, dom0, path, (culprit, b"%d" % culprit.link.cid))  # type: ignore[attr-defined]
        assert dom0.write(path, b"0") == OK
    assert arena.caused() == {}
    assert not arena.paused(0)
    assert one.read(path) == b"0"


# --- pauses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("aggregate", [True, False])
@pytest.mark.parametrize("ending", ["dies", "is released"])
def test_a_paused_domain_that_goes_leaves_the_counters_right(aggregate: bool, ending: str) -> None:
    """No wake-up is left for it, and a later domain of its id begins anew."""
    arena = Arena(aggregate=aggregate, burst_limit=1.0)
    dom0, (one, two), path = shared(arena, [1, 2])
    conflict(arena, dom0, path, (one, b"1"))
    assert arena.paused(1)
    one.send(Msg.READ, path + b"\0")
    if ending == "dies":
        arena.kill(1)
    else:
        assert dom0.ask(Msg.RELEASE, b"1\0") == OK
    assert 1 not in arena.engine.conflict_figures()
    arena.engine.collect()
    arena.deadline = arena.engine.tick(arena.now)
    assert arena.deadline == 120 * S  # the summary for the log
    arena.sleep(100 * S)
    assert arena.wake_ups == 0
    conflict(arena, dom0, path, (two, b"2"))
    assert arena.paused(2)
    arena.engine.collect()
    arena.sleep(50 * MS)
    assert not arena.paused(2)
    again = arena.guest(1)
    assert (arena.credit(1), again.ask(Msg.GET_DOMAIN_PATH, b"1\0")) == (1.0, home(1) + b"\0")
    arena.quiet()
    arena.check()


def test_requests_of_a_paused_domain_wait_and_keep_their_order() -> None:
    """Nothing is lost, nothing is refused."""
    arena = Arena(burst_limit=1.0)
    dom0, (one,), path = shared(arena, [1])
    conflict(arena, dom0, path, (one, b"1"))
    writes = [(Msg.WRITE, path + b"\0%d" % i, 0) for i in range(2, 12)]
    arena.feed(one.link.cid, frames(*writes, (Msg.READ, path + b"\0", 0)))  # type: ignore[attr-defined]
    assert dom0.watch(path, b"t") == OK
    arena.sleep(PERIOD - 1)
    assert (one.drain(), dom0.read(path)) == ([], b"1")
    arena.sleep(1)
    replies = one.drain()
    assert [packet.req_id for packet in replies] == list(range(1, 12))
    assert replies[-1].payload == b"11"


@pytest.mark.parametrize("aggregate", [True, False])
@pytest.mark.parametrize("first_dies", [False, True])
def test_a_pause_lasts_at_least_a_period(aggregate: bool, first_dies: bool) -> None:
    """Whoever was paused before, and whatever has become of him."""
    arena = Arena(aggregate=aggregate, burst_limit=1.0)
    dom0, (one, two), path = shared(arena, [1, 2])
    conflict(arena, dom0, path, (one, b"1"))
    arena.sleep(PERIOD - MS)
    conflict(arena, dom0, path, (two, b"2"))
    if first_dies:
        arena.kill(1)
    since = arena.now
    while arena.paused(2):
        assert arena.now < since + 3 * PERIOD
        arena.sleep(MS)
    assert PERIOD <= arena.now - since <= 2 * PERIOD
    arena.quiet()


@pytest.mark.parametrize("aggregate", [True, False])
def test_one_below_nothing_needs_two_points(aggregate: bool) -> None:
    """Exactly nothing is still without credit."""
    arena = Arena(aggregate=aggregate, burst_limit=1.0)
    dom0, (one,), path = shared(arena, [1])
    open_ones = [dom0.start(), dom0.start()]
    for tx in open_ones:
        assert dom0.read(path, tx) == b"0"
        assert dom0.write(b"/mark", b"", tx) == OK
    assert one.write(path, b"1") == OK
    assert [dom0.end(tx) for tx in open_ones] == ["EAGAIN"] * 2
    assert arena.credit(1) == -1.0
    arena.sleep(PERIOD)
    assert (arena.credit(1), arena.paused(1)) == (0.0, True)
    arena.sleep(PERIOD)
    assert (arena.credit(1), arena.paused(1)) == (1.0, False)
    assert arena.figures(1)["paused_ns"] == 2 * PERIOD


def test_paused_domains_take_turns() -> None:
    """An aggregate rate is one point a period, to who has waited longest; then the others."""
    arena = Arena(burst_limit=1.0)
    dom0, guests, path = shared(arena, [1, 2, 3])
    for i, guest in enumerate(guests):
        conflict(arena, dom0, path, (guest, b"%d" % (i + 1)))
        arena.sleep(MS)
    resumed = []
    for _ in range(3):
        arena.sleep(PERIOD)
        resumed.append([not arena.paused(domid) for domid in (1, 2, 3)])
    assert resumed == [[True, False, False], [True, True, False], [True, True, True]]


@pytest.mark.parametrize("limit", [1.0, 5.0], ids=["paused", "short of credit"])
@pytest.mark.parametrize("gone", [(1,), (2,), (3,), (2, 3), (3, 2), (1, 2, 3)])
def test_turns_are_kept_when_domains_go(gone: tuple[int, ...], limit: float) -> None:
    """Whoever dies, first, last or between, the others get their points in order, new ones last."""
    arena = Arena(burst_limit=limit)
    dom0, guests, path = shared(arena, [1, 2, 3, 4])
    for i, guest in enumerate(guests[:3]):
        conflict(arena, dom0, path, (guest, b"%d" % (i + 1)))
    for domid in gone:
        arena.kill(domid)
    conflict(arena, dom0, path, (guests[3], b"4"))
    left = [domid for domid in (1, 2, 3, 4) if domid not in gone]
    for i in range(len(left)):
        assert [arena.credit(domid) for domid in left] == [limit] * i + [limit - 1] * (
            len(left) - i
        )
        arena.sleep(PERIOD)
    assert [arena.credit(domid) for domid in left] == [limit] * len(left)
    arena.quiet()


# --- priority -----------------------------------------------------------------------------------


def exhausted(arena: Arena, dom0: Client, path: bytes, culprit: Client, times: int = 8) -> None:
    for i in range(times):
        conflict(arena, dom0, path, (culprit, b"c%d" % (i + arena.counter("conflicts"))))


def test_after_failures_in_a_row_others_are_held_back_and_nobody_is_charged() -> None:
    """The ninth transaction commits although writers never stop; their requests wait for it."""
    arena = Arena(conflict=False)
    dom0, (one, two), path = shared(arena, [1, 2])
    exhausted(arena, dom0, path, one)
    caused = arena.caused()
    tx = dom0.start()
    one.send(Msg.WRITE, path + b"\0held")  # it has not been read yet, but was last time
    assert one.drain() == []
    value = dom0.read(path, tx)
    assert isinstance(value, bytes)
    assert dom0.write(b"/mark", b"done", tx) == OK
    assert two.write(b"elsewhere", b"v") == OK
    holding = two.start()
    assert two.write(path, b"held, too", holding) == OK
    two.send(Msg.TRANSACTION_END, b"T\0", holding)
    assert two.drain() == []
    assert arena.counter("requests_held") >= 2
    assert dom0.end(tx) == OK
    arena.settle()
    assert [packet.payload for packet in one.drain() + two.drain()] == [OK, OK]
    assert dom0.read(path) == b"held, too"
    assert arena.caused() == caused
    conflict(arena, dom0, path, (one, b"the row begins anew"))
    arena.quiet()


def test_a_commit_ends_a_row_of_failures() -> None:
    """Seven failures, a commit, seven failures: none of them was the eighth, nobody is held."""
    arena = Arena(conflict=False)
    dom0, (one,), path = shared(arena, [1])
    exhausted(arena, dom0, path, one, 7)
    tx = dom0.start()
    assert isinstance(dom0.read(path, tx), bytes)
    assert dom0.write(b"/mark", b"done", tx) == OK
    assert dom0.end(tx) == OK
    exhausted(arena, dom0, path, one, 7)
    arena.quiet()


def test_holding_back_ends_in_time() -> None:
    """After 200 ms the others go on, and the transaction takes its chance."""
    arena = Arena(conflict=False)
    dom0, (one,), path = shared(arena, [1])
    exhausted(arena, dom0, path, one)
    tx = dom0.start()
    dom0.read(path, tx)
    assert dom0.write(b"/mark", b"", tx) == OK
    arena.sleep(20 * MS)
    one.send(Msg.WRITE, path + b"\0at last")
    arena.sleep(180 * MS - 1)
    assert one.drain() == []
    arena.sleep(1)
    assert [packet.payload for packet in one.drain()] == [OK]
    assert dom0.end(tx) == "EAGAIN"
    arena.quiet()


def test_reading_in_between_does_not_end_a_row_of_failures() -> None:
    """A transaction that only looks always succeeds, and says nothing about the others."""
    arena = Arena(conflict=False)
    dom0, (one,), path = shared(arena, [1])
    for _ in range(8):
        exhausted(arena, dom0, path, one, 1)
        tx = dom0.start()
        dom0.read(path, tx)
        assert dom0.end(tx) == OK
    tx = dom0.start()
    one.send(Msg.WRITE, path + b"\0held")
    assert one.drain() == []
    assert dom0.end(tx) == OK
    arena.settle()
    assert [packet.payload for packet in one.drain()] == [OK]


def test_ones_own_doing_earns_no_priority() -> None:
    """Or else a guest could hold back others at will."""
    arena = Arena(conflict=False)
    _dom0, (one, two), path = shared(arena, [1, 2])
    for i in range(20):
        own_conflict(one, path, i)
    one.start()
    assert two.write(path, b"not held") == OK


def own_conflict(guest: Client, path: bytes, serial: int) -> None:
    tx = guest.start()
    guest.read(path, tx)
    assert guest.write(b"mark", b"", tx) == OK
    assert guest.write(path, b"own %d" % serial) == OK
    assert guest.end(tx) == "EAGAIN"


def conflict_among_guests(victim: Client, path: bytes, culprit: Client, serial: int) -> None:
    tx = victim.start()
    victim.read(path, tx)
    assert victim.write(b"mark", b"", tx) == OK
    assert culprit.write(path, b"by %d" % serial) == OK
    assert victim.end(tx) == "EAGAIN"


def favoured_guest(arena: Arena) -> tuple[Client, list[Client], bytes]:
    """A guest whose transactions have failed often enough, and three more."""
    dom0, guests, path = shared(arena, [1, 2, 3])
    for i in range(8):
        conflict_among_guests(guests[0], path, guests[1], i)
    return dom0, guests, path


def test_nobody_waits_for_somebody_less_privileged() -> None:
    """A guest's priority holds back guests only."""
    arena = Arena(conflict=False)
    dom0, (one, two, _), path = favoured_guest(arena)
    ring0 = arena.guest(0)
    tx = one.start()
    one.read(path, tx)
    two.send(Msg.WRITE, path + b"\0held")
    assert two.drain() == []
    assert ring0.write(path, b"a") == OK
    assert dom0.write(path, b"b") == OK
    outside = dom0.start()
    assert dom0.write(path, b"c", outside) == OK
    assert dom0.end(outside) == OK
    assert two.drain() == []
    assert one.end(tx) == OK
    arena.settle()
    assert [packet.payload for packet in two.drain()] == [OK]


@pytest.mark.parametrize("ending", ["dies", "is reset", "is introduced again"])
def test_a_holder_that_goes_releases_the_held(ending: str) -> None:
    """Whoever waits for it goes on at once."""
    arena = Arena(conflict=False)
    dom0, (one, two, _), path = favoured_guest(arena)
    one.start()
    two.send(Msg.WRITE, path + b"\0held")
    assert two.drain() == []
    if ending == "dies":
        arena.kill(1)
    elif ending == "is reset":
        assert one.ask(Msg.RESET_WATCHES, b"\0") == OK
    else:
        assert dom0.ask(Msg.INTRODUCE, strings(b"1", b"1", b"7")) == OK
    arena.settle()
    assert [packet.payload for packet in two.drain()] == [OK]
    arena.quiet()
    arena.check()


def test_who_hangs_up_while_held_is_forgotten() -> None:
    """What it asked never happens, and the holder commits."""
    arena = Arena(conflict=False)
    dom0, (one,), path = shared(arena, [1])
    exhausted(arena, dom0, path, one)
    other, tx = arena.socket(), dom0.start()
    value = dom0.read(path, tx)
    assert dom0.write(b"/mark", b"done", tx) == OK
    before = arena.counter("requests_held")
    other.send(Msg.WRITE, path + b"\0held")
    assert other.drain() == []
    assert arena.counter("requests_held") == before + 1
    arena.close(other)
    assert dom0.end(tx) == OK
    assert dom0.read(path) == value
    arena.quiet()
    arena.check()


def test_a_held_domain_that_dies_is_forgotten() -> None:
    """And the holder commits as if it had never been."""
    arena = Arena(conflict=False)
    dom0, (one, two, _), path = favoured_guest(arena)
    tx = one.start()
    one.read(path, tx)
    assert one.write(b"mark", b"2", tx) == OK
    two.send(Msg.WRITE, path + b"\0held")
    arena.kill(2)
    assert one.end(tx) == OK
    arena.quiet()
    arena.check()
    assert dom0.getperms(path) == [b"n0", b"b1", b"b3"]


def test_priority_cannot_be_kept_from_others_by_doing_nothing() -> None:
    """Neither by a guest, whom a toolstack follows at once, nor for longer than its time."""
    arena = Arena(conflict=False)
    dom0, (one, two, three), path = favoured_guest(arena)
    one.start()  # and nothing else, for ever
    other = arena.socket()
    exhausted(arena, dom0, path, other)
    tx = dom0.start()
    dom0.read(path, tx)
    assert dom0.write(b"/mark", b"", tx) == OK
    for guest in (two, three):
        guest.send(Msg.WRITE, path + b"\0held")
        assert guest.drain() == []
    assert dom0.end(tx) == OK
    arena.settle()
    assert [packet.payload for packet in two.drain() + three.drain()] == [OK, OK]
    assert other.read(path) == b"held"


def test_a_request_is_held_back_once_not_by_one_after_the_other() -> None:
    """A guest that starts and gives up all the time delays others by 200 ms, and no more."""
    arena = Arena(conflict=False)
    _dom0, (one, two, _), path = favoured_guest(arena)
    tx = one.start()
    two.send(Msg.WRITE, path + b"\0held")
    since = arena.now
    while not (answers := two.drain()):
        assert arena.now - since <= 200 * MS
        arena.sleep(7 * MS)
        # In one go, so that nobody comes between the end and the next beginning.
        tx += 1
        arena.feed(one.link.cid, frames(  # type: ignore[attr-defined]
            (Msg.TRANSACTION_END, b"F\0", tx - 1), (Msg.TRANSACTION_START, b"\0", 0)))  # fmt: skip
        one.drain()
    assert [packet.payload for packet in answers] == [OK]
    arena.quiet()


# --- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting",
    [
        {"writes_per_second": 0}, {"period_ns": 0}, {"burst_limit": 0.0}, {"burst_limit": -1.0},
        {"burst_limit": math.nan}, {"priority_hold_ns": -1}, {"write_burst": -1},
    ],
)  # fmt: skip
def test_figures_that_cannot_be_are_refused(setting: dict[str, float]) -> None:
    """And nothing is set then."""
    arena = Arena()
    before = arena.credit(0)
    with pytest.raises(ValueError, match=next(iter(setting))):
        arena.engine.configure(**setting)
    assert arena.credit(0) == before


def test_switching_conflict_credit_off_ends_all_pauses() -> None:
    """Whoever was paused is served at once, and the time until then counts."""
    arena = Arena(burst_limit=1.0)
    dom0, (one,), path = shared(arena, [1])
    conflict(arena, dom0, path, (one, b"1"))
    one.send(Msg.READ, path + b"\0")
    arena.sleep(10 * MS)
    assert one.drain() == []
    arena.engine.tick(arena.now)
    arena.engine.configure(conflict=False)
    arena.settle()
    assert [packet.payload for packet in one.drain()] == [b"1"]
    assert arena.figures(1)["paused_ns"] == 10 * MS
    arena.quiet()
