"""Domains that put anything into their pages at any moment, beside others that must not notice.

XSD_RING_PAGES says how many pages are tried, XSD_SEED names the first of the random sequences.
A well-behaved guest and a client of dom0 work all the time; each of their replies and events is
compared with what it must be, and so is every node that is not a hostile domain's.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

import pytest
from ringworld import (
    MS,
    PAGE,
    REQ_CONS,
    REQ_PROD,
    RING,
    RSP_CONS,
    RSP_PROD,
    STATE,
    Guest,
    RingWorld,
    S,
    frame,
    home,
)
from world import OK, Client, Msg, strings

PAGES = int(os.environ.get("XSD_RING_PAGES", "20000"))
SEED = int(os.environ.get("XSD_SEED", "1"))
QUOTA = 12_000  # of memory, for each guest
SMALL = 20 * 32  # short replies are given in any case: as many as there are requests under way
HELD = 4 * QUOTA  # most that the daemon may hold for a guest that has so much
HOSTILE = (11, 12, 13, 14)
SILENT = 14  # never takes a reply out of its ring by the rules
GOOD = 5
INDICES = (REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD)
EDGES = (0, 1, RING - 1, RING, RING + 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFC00, 0xFFFFFFFF)
M32 = 0xFFFFFFFF


# ---- what hostile domains send ---------------------------------------------------------------


def paths(domid: int) -> list[bytes]:
    """Their own, of others, special ones, and such as are none."""
    return [
        b"v", b"a/b/c", b"a", b"", b"/", b"//", b"a/", b"@introduceDomain", b"@releaseDomain", b"@",
        home(domid), home(domid) + b"/v", home(GOOD), home(GOOD) + b"/k1", home(HOSTILE[0]) + b"/v",
        b"/local/domain", b"/local", b"/tool/xenstored", b"n" * 255, b"n" * 257, b"d/" * 60 + b"e",
        b"x" * 2050, b"\xff\xfe", b"sp ace", b"%",
    ]  # fmt: skip


def any_request(rng: Random, domid: int) -> bytes:
    """One that makes sense, more or less."""
    kind = rng.choice((Msg.READ, Msg.WRITE, Msg.WRITE, Msg.MKDIR, Msg.RM, Msg.WATCH, Msg.UNWATCH,
                       Msg.DIRECTORY, Msg.SET_PERMS, Msg.GET_PERMS, Msg.TRANSACTION_START,
                       Msg.TRANSACTION_END, Msg.WATCH, Msg.DIRECTORY_PART, Msg.INTRODUCE,
                       Msg.RELEASE, Msg.CONTROL, Msg.SET_TARGET, Msg.GET_DOMAIN_PATH,
                       rng.randrange(140)))  # fmt: skip
    path = rng.choice(paths(domid))
    if kind == Msg.RM:
        path = rng.choice((b"a", b"a/b", b"v", b"w7", path))
    elif rng.random() < 0.3:
        path = b"w%d/x" % rng.randrange(300)
    payloads: dict[int, bytes] = {
        Msg.WRITE: path + b"\0" + rng.randbytes(rng.choice((0, 3, 100, 900, 2048))),
        Msg.WATCH: strings(path, b"t%d" % rng.randrange(200)),
        Msg.UNWATCH: strings(path, b"t%d" % rng.randrange(200)),
        Msg.SET_PERMS: strings(path, rng.choice((b"n%d" % domid, b"n0", b"r", b"")), b"r77"),
        Msg.TRANSACTION_START: b"\0",
        Msg.TRANSACTION_END: rng.choice((b"T\0", b"F\0", b"")),
        Msg.INTRODUCE: strings(b"%d" % domid, b"1", b"1"),
        Msg.RELEASE: strings(b"%d" % GOOD),
        Msg.CONTROL: strings(b"help"),
        Msg.SET_TARGET: strings(b"%d" % domid, b"0"),
        Msg.RESET_WATCHES: b"\0",
        Msg.GET_DOMAIN_PATH: b"0\0",
    }
    payload = payloads.get(kind, path + b"\0")
    tx = rng.choice((0, 0, 0, 1, 2, 3, rng.getrandbits(32)))
    return frame(kind, payload, tx, rng.getrandbits(32))


def bent(rng: Random, data: bytes) -> bytes:
    """A request that is none any more."""
    how = rng.randrange(4)
    if how == 0:
        return data[: rng.randrange(len(data) + 1)]
    if how == 1:
        length = rng.choice((0, 1, 4096, 4097, 65535, 0x7FFFFFFF, M32, len(data)))
        return data[:12] + struct.pack("=I", length) + data[16:]
    at = rng.randrange(len(data))
    if how == 2:
        return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
    return data[:at] + rng.randbytes(rng.randrange(1, 20)) + data[at:]


@dataclass(slots=True)
class Arsenal:
    """What there is to choose from, made beforehand: choosing must be fast."""

    rng: Random
    noise: bytes = b""
    requests: dict[int, list[bytes]] = field(default_factory=dict)
    bent: dict[int, list[bytes]] = field(default_factory=dict)
    empty: list[bytes] = field(default_factory=list)
    streams: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = self.rng
        self.noise = rng.randbytes(1 << 18)
        for domid in HOSTILE:
            self.requests[domid] = [any_request(rng, domid) for _ in range(1500)]
            self.bent[domid] = [bent(rng, data) for data in rng.sample(self.requests[domid], 500)]
        self.empty = [struct.pack("=4I", kind, kind, tx, 0) for kind in range(140) for tx in (0, 1)]
        self.streams = [struct.pack("=4I", *[rng.choice(EDGES)] * 4) for _ in range(50)]

    def some_noise(self, n: int) -> bytes:
        at = self.rng.randrange(len(self.noise) - n)
        return self.noise[at : at + n]


Attack = Callable[[Arsenal, Guest], None]


def whole_page(arms: Arsenal, guest: Guest) -> None:
    guest.page[:] = arms.some_noise(PAGE)


def noise_in_order(arms: Arsenal, guest: Guest) -> None:
    """Random bytes with indices that can be."""
    guest.page[:RING] = arms.some_noise(RING)
    start = arms.rng.choice(EDGES)
    guest.set_word(REQ_CONS, start)
    guest.set_word(REQ_PROD, start + arms.rng.randrange(RING + 1))


def requests(arms: Arsenal, guest: Guest) -> None:
    """Several, as much as there is room for; the last one may be there in part."""
    if guest.unread <= RING:
        k = arms.rng.randrange(1, 12)
        guest.put(b"".join(arms.rng.choices(arms.requests[guest.domid], k=k)))


def whole_requests(arms: Arsenal, guest: Guest) -> None:
    """What a guest would send that knows what it does."""
    data = b""
    for request in arms.rng.choices(arms.requests[guest.domid], k=8):
        if guest.unread + len(data) + len(request) <= RING:
            data += request
    guest.put(data)


def bent_requests(arms: Arsenal, guest: Guest) -> None:
    if guest.unread <= RING:
        guest.put(arms.rng.choice(arms.bent[guest.domid]))


def empty_requests(arms: Arsenal, guest: Guest) -> None:
    if guest.unread <= RING:
        guest.put(b"".join(arms.rng.choices(arms.empty, k=40)))


def one_index(arms: Arsenal, guest: Guest) -> None:
    """Of any of the four; a small step, a great one, or an edge."""
    at = arms.rng.choice(INDICES)
    guest.set_word(at, guest.word(at) + arms.rng.choice((1, -1, 16, 1024, -1024, 1 << 31)))


def edge_of_index(arms: Arsenal, guest: Guest) -> None:
    guest.set_word(arms.rng.choice(INDICES), arms.rng.choice(EDGES))


def sequence(arms: Arsenal, guest: Guest) -> None:
    """All four indices at once, both rings empty."""
    guest.page[REQ_CONS : REQ_CONS + 16] = arms.rng.choice(arms.streams)


def fetch(arms: Arsenal, guest: Guest) -> None:
    """All replies are taken out, or some."""
    if guest.domid == SILENT:
        return
    there = (guest.word(RSP_PROD) - guest.word(RSP_CONS)) & M32
    if there <= RING:
        guest.set_word(RSP_CONS, guest.word(RSP_CONS) + arms.rng.choice((there, there // 2)))


def afresh(arms: Arsenal, guest: Guest) -> None:
    guest.set_word(STATE, 1)


def other_words(arms: Arsenal, guest: Guest) -> None:
    guest.page[2064:PAGE] = arms.some_noise(PAGE - 2064)


def reply_bytes(arms: Arsenal, guest: Guest) -> None:
    guest.page[RING : 2 * RING] = arms.some_noise(RING)


def nothing(arms: Arsenal, guest: Guest) -> None:
    pass


WILD: list[tuple[Attack, int]] = [
    (whole_page, 2), (noise_in_order, 2), (requests, 6), (whole_requests, 6), (bent_requests, 2),
    (empty_requests, 2), (one_index, 2), (edge_of_index, 1), (sequence, 1), (fetch, 5), (afresh, 2),
    (other_words, 1), (reply_bytes, 1), (nothing, 1),
]  # fmt: skip
# Faults forget everything: without quiet times nothing would ever come together.
QUIET: list[tuple[Attack, int]] = [(whole_requests, 6), (fetch, 5), (nothing, 1), (reply_bytes, 1)]
MOODS = [[attack for attack, weight in mood for _ in range(weight)] for mood in (WILD, QUIET)]
MOOD_PAGES = 400


# ---- those who must not notice ---------------------------------------------------------------


class Innocents:
    """A guest and a client of dom0, and what they know to be so."""

    def __init__(self, world: RingWorld, rng: Random) -> None:
        self.world = world
        self.rng = rng
        self.guest = world.guest(GOOD)
        self.client = self.guest.client
        self.dom0 = world.dom0
        self.values: dict[bytes, bytes] = {}
        for i in range(5):
            self.values[b"k%d" % i] = b""
            assert self.client.write(b"k%d" % i, b"") == OK
        assert self.client.watch(b"k0", b"mine") == OK
        assert self.dom0.watch(home(GOOD), b"all") == OK
        assert self.dom0.watch(b"/local", b"wide") == OK
        self.rounds = 0

    def live(self) -> None:
        """A write, a read and a transaction, seen by both."""
        self.rounds += 1
        name, value = b"k%d" % self.rng.randrange(5), b"%d" % self.rounds * 30
        path = home(GOOD) + b"/" + name
        who, key = (self.client, name) if self.rng.random() < 0.5 else (self.dom0, path)
        assert self.client.read(name) == self.values[name]
        assert who.write(key, value) == OK
        self.values[name] = value
        assert self.client.read(name) == value
        assert self.dom0.read(path) == value
        mine = [(name, b"mine")] if name == b"k0" else []
        assert self.client.events() == mine
        assert [event for event in self.dom0.events() if event[1] == b"all"] == [(path, b"all")]
        if self.rounds % 4 == 0:
            self.transact(self.client, b"k1", b"k2")
            self.transact(self.dom0, home(GOOD) + b"/k3", home(GOOD) + b"/k4")
        assert self.guest.error == 0

    def transact(self, who: Client, one: bytes, two: bytes) -> None:
        tx = who.start()
        assert who.read(one, tx) == self.values[one[-2:]]
        value = b"t%d" % self.rounds
        assert who.write(two, value, tx) == OK
        assert who.end(tx) == OK
        self.values[two[-2:]] = value
        assert self.client.events() == []
        expected = home(GOOD) + b"/" + two[-2:]
        assert [event for event in self.dom0.events() if event[1] == b"all"] == [(expected, b"all")]

    def nodes(self) -> dict[bytes, tuple[bytes, bytes]]:
        """Every node that is not a hostile domain's, as the store has it."""
        theirs = tuple(home(domid) + b"/" for domid in HOSTILE)
        homes = {home(domid) for domid in HOSTILE}
        return {
            path: node
            for path, node in self.world.engine.tree().items()
            if path not in homes and not path.startswith(theirs)
        }


class Siege:
    """Hostile domains around the innocent."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.arms = Arsenal(self.rng)
        self.world = RingWorld(period_ns=5 * MS)
        self.world.engine.set_quota("memory", QUOTA)
        self.innocents = Innocents(self.world, self.rng)
        self.hostile = {domid: self.world.guest(domid) for domid in HOSTILE}
        self.before = self.innocents.nodes()
        self.moods = dict.fromkeys(HOSTILE, MOODS[0])
        self.toolstack = self.world.socket()
        self.tx = self.toolstack.start()
        self.failed = 0
        self.most = self.held = 0

    def manage(self) -> None:
        """What a toolstack does with such a domain: its transaction may fail, nothing else."""
        client, where = self.toolstack, home(self.rng.choice(HOSTILE))
        answer = client.end(self.tx)
        assert answer in (OK, "EAGAIN")
        self.failed += answer != OK
        assert client.mkdir(where) == OK  # it may have removed its home
        assert client.setperms(where, b"n" + where[-2:]) == OK
        assert client.write(where + b"/told", b"") == OK
        self.tx = client.start()
        for name in (b"/v", b"/a", b"/w7"):
            client.read(where + name, self.tx)
        assert client.write(where + b"/told", b"", self.tx) == OK

    def attack(self, domid: int) -> Guest:
        """Changes a page in some way."""
        guest = self.hostile[domid]
        self.rng.choice(self.moods[domid])(self.arms, guest)
        return guest

    def step(self, page: int) -> None:
        """One page: changed, told of, and changed again while the daemon is at it."""
        rng, world = self.rng, self.world
        if page % MOOD_PAGES == 0:
            self.moods[rng.choice(HOSTILE)] = rng.choice(MOODS)
        domid = rng.choice(HOSTILE)
        guest = self.attack(domid)
        guest.kick()
        if rng.random() < 0.2:
            self.attack(rng.choice(HOSTILE)).kick()
        world.deliver()
        if rng.random() < 0.3:  # between its event and what follows from it
            self.attack(domid)
        if rng.random() < 0.3 and world.loop.soon:
            world.step()
            self.attack(domid)
        if guest.port in world.masked:
            self.after_a_fault(guest)

    def after_a_fault(self, guest: Guest) -> None:
        """It is introduced again, mostly; also by who does not know the state it is in."""
        world, domid, dice = self.world, guest.domid, self.rng.random()
        if dice < 0.5:
            ring = world.host.introduce(domid, 1, 1)
            assert ring is not None
            world.engine.introduce(world.now, domid)
            world.rings.attach(domid, ring.address, ring.port)
            world.turn.settle()
        elif dice < 0.6:
            assert world.introduce(domid) == OK
        elif dice < 0.62:
            self.replace(domid)

    def replace(self, domid: int) -> None:
        """By a domain of the same id."""
        world = self.world
        if self.rng.random() < 0.5:
            assert world.dom0.ask(Msg.RELEASE, b"%d\0" % domid) == OK
            assert world.engine.account(domid) == (0, 0)
            assert world.introduce(domid) == OK
        else:
            world.kill(domid)
            assert world.engine.account(domid) == (0, 0)
            self.hostile[domid] = world.create(domid)
            assert world.introduce(domid) == OK
        assert self.tell(Msg.MKDIR, home(domid) + b"\0") == OK
        assert self.tell(Msg.SET_PERMS, home(domid) + b"\0n%d\0" % domid) == OK

    def tell(self, kind: int, payload: bytes) -> bytes:
        """The answer to dom0, whom a transaction with priority may hold back for a while."""
        client = self.world.dom0
        client.collect()
        client.req += 1
        client.send(kind, payload, req=client.req)
        for _ in range(3):
            for packet in client.drain():
                if packet.type != Msg.WATCH_EVENT:
                    return packet.payload
            self.world.advance(250 * MS)
        raise AssertionError("held back for longer than anybody may be")

    def look(self) -> None:
        """What does not belong to the hostile is as it was, or as the innocent made it."""
        expected = dict(self.before)
        for name, value in self.innocents.values.items():
            path = home(GOOD) + b"/" + name
            expected[path] = (value, expected[path][1])
        assert self.innocents.nodes() == expected
        self.most = max(self.most, self.world.engine.peaks()["memory"])
        for domid in HOSTILE:
            self.held = max(self.held, self.world.engine.account(domid)[0])
            assert self.world.memory_of(domid) <= QUOTA + SMALL
            assert self.held <= HELD
        assert {GOOD, *HOSTILE} == self.world.connections()
        assert self.world.control == []


@contextmanager
def siege(seed: int) -> Iterator[Siege]:
    found = Siege(seed)
    yield found
    found.world.close()


def test_pages_of_hostile_domains_harm_nobody_else() -> None:
    """Any content, any indices, any order of events: all others live as if they were not there."""
    with siege(SEED) as now:
        for page in range(PAGES):
            now.step(page)
            if page % 10 == 0:
                now.world.settle()
            if page % 50 == 0:
                now.world.advance(MS)
                now.innocents.live()
                now.manage()
            if page % 1000 == 0:
                now.look()
            if page % 5000 == 0:
                now.world.engine.check()
        for domid in HOSTILE:
            assert now.world.introduce(domid) == OK
        now.world.advance(S)
        now.innocents.live()
        now.look()
        if PAGES >= 20_000:
            # It did not stay outside: every kind of request was understood, every fault found.
            assert now.world.counter("commits") > 1000
            assert now.world.rings.faults > 100
            assert now.failed > 10
            assert now.most > 0.9 * QUOTA


HAMMER = """
import mmap, os, random, struct, sys
pages = [mmap.mmap(int(fd), 4096) for fd in sys.argv[2:]]
rng = random.Random(int(sys.argv[1]))
os.write(1, b"ready")
words = (2048, 2052, 2056, 2060, 2068)
edges = (0, 1, 1023, 1024, 1025, 0x7fffffff, 0x80000000, 0xffffffff)
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(2000):
        page = rng.choice(pages)
        at, dice = rng.choice(words), rng.random()
        if dice < 0.3:
            struct.pack_into("=I", page, at, rng.choice(edges))
        elif dice < 0.7:
            (index,) = struct.unpack_from("=I", page, at)
            struct.pack_into("=I", page, at, (index + rng.randrange(-20, 60)) & 0xffffffff)
        else:
            place = rng.randrange(2000)
            struct.pack_into("=I", page, place, rng.choice((0, 2, 11, 4096, 4097, 0xffffffff)))
"""


@contextmanager
def hammer(world: RingWorld, domids: tuple[int, ...]) -> Iterator[None]:
    """Another process writes into these pages all the time, as a domain's other processors do."""
    fds = [world.host.fds[domid] for domid in domids]
    command = [sys.executable, "-c", HAMMER, str(SEED), *map(str, fds)]
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    process = subprocess.Popen(command, pass_fds=fds, stdout=subprocess.PIPE, env=env)
    try:
        assert process.stdout is not None
        assert process.stdout.read(5) == b"ready"
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_pages_that_change_while_they_are_looked_at() -> None:
    """By another processor, at every moment: what was checked is what is used."""
    with siege(SEED + 1) as now, hammer(now.world, HOSTILE):
        for page in range(PAGES // 4):
            guest = now.hostile[now.rng.choice(HOSTILE)]
            requests(now.arms, guest)
            guest.kick()
            now.world.deliver()
            if guest.port in now.world.masked:
                assert now.world.introduce(guest.domid) == OK
            if page % 20 == 0:
                now.world.advance(MS)
                now.innocents.live()
            if page % 1000 == 0:
                now.look()
                now.world.engine.check()
        assert now.world.rings.faults > 0


def test_a_ring_whose_replies_are_never_read_costs_its_quota_and_no_more() -> None:
    """Whatever it asks for and whatever others write: memory is bounded, and nobody waits."""
    with siege(SEED) as now:
        world, guest = now.world, now.hostile[SILENT]
        assert guest.client.write(b"v", b"v" * 2000) == OK
        for i in range(30):  # what dom0 adds is charged to the owner, and not refused
            assert world.dom0.write(home(SILENT) + b"/%d" % i, b"x" * 100) == OK
        for i in range(40):
            assert guest.client.watch(home(SILENT), b"t%d" % i) == OK
        most = 0
        for i in range(500):
            guest.offer(frame(Msg.READ, b"v\0") * 50)
            assert world.dom0.write(home(SILENT) + b"/%d" % (i % 30), b"x" * 100) == OK
            most = max(most, world.engine.account(SILENT)[0])
            assert world.memory_of(SILENT) <= QUOTA + SMALL
        assert QUOTA // 4 < most <= HELD
        assert world.counter("events_dropped") > 0
        assert world.engine.counts()[SILENT]["outstanding"] <= 20
        now.innocents.live()
        now.look()


@pytest.mark.parametrize("index", EDGES)
def test_indices_that_jump_between_two_steps(index: int) -> None:
    """Each of the four, after every event, while requests are under way."""
    with siege(SEED) as now:
        guest = now.hostile[HOSTILE[0]]
        for at in INDICES:
            for _ in range(3):
                guest.offer(frame(Msg.WRITE, b"v\0" + b"v" * 50)[:40])
                guest.set_word(at, index)
                guest.kick()
                now.world.deliver()
                guest.set_word(at, index)
                now.world.settle()
                now.innocents.live()
            assert guest.error in (0, 2, 3)
            assert now.world.introduce(guest.domid) == OK
            guest.left = b""
            assert guest.client.write(b"v", b"new") == OK
        now.look()
