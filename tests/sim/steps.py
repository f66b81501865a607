"""What may happen in a world, and the random choice of it.

A step is a tuple of a name and plain values. It says what is tried, not what comes of it: clients
are slots, transactions are picked from those that are open then, so that any list of steps makes
sense and a trace can be shortened by leaving steps out.
"""

from __future__ import annotations

import json
import re
from bisect import bisect
from collections.abc import Callable, Iterator
from itertools import accumulate
from random import Random
from typing import Any

from model_tree import Msg

from sim import settings

Step = tuple[Any, ...]
Ask = tuple[int, bytes, int]
"""A request: type, payload, and which open transaction it is made in (see `Peer.pick`)."""

SOCKETS = 6
DOMIDS = (1, 2, 3, 4, 5, 6)
GUEST_SLOTS = tuple(range(SOCKETS, SOCKETS + len(DOMIDS)))
KERNEL_SLOT = SOCKETS + len(DOMIDS)  # dom0's own ring
SLOTS = KERNEL_SLOT + 1
BYSTANDERS = (7, 8)  # domains that are born and die, and are introduced seldom

MS = 1_000_000
S = 1_000_000_000

RESERVED = ("live update", "restart")
"""Steps that have their place here and are not drawn yet: there is nothing to carry them out."""

HOT = (
    b"/a", b"/a/b", b"/a/b/c", b"/a/x", b"/d", b"/d/e", b"k", b"k/l", b"/s/1", b"/s/2",
    b"/local/domain/1", b"/local/domain/1/k", b"/local/domain/2/k", b"/local/domain/3/k/l",
)  # fmt: skip
ODD = (
    b"", b"/", b"/a/", b"//", b"a b", b"/local/domain/", b"@", b"@x", b"@releaseDomain",
    b"@introduceDomain", b"@releaseDomain/1", b"/a/b/c/d/e/f/g/h", b"/a/b/c/d", b"/a-", b"/d/f/g",
    b"k-", b"k/m", b"k" * 40, b"/" + b"k" * 40, b"/" + b"p" * 2100, b"/tool", b"/local",
)  # fmt: skip
VALUES = (b"", b"v", b"w", b"1", b"w\0w", b"v" * 20, b"x" * 300, b"y" * 2000)
TOKENS = (b"", b"t", b"u", b"token")
DEPTHS = (b"", b"0", b"1", b"2", b"x", b"-1", b"70000")
LETTERS = (b"n", b"r", b"w", b"b", b"b", b"b")
NAMED = (b"0", b"1", b"1", b"2", b"2", b"3", b"4", b"7", b"8", b"9", b"32757", b"0x2", b"01", b"")
ODD_DOMIDS = (b"0", b"1", b"2", b"3", b"7", b"9", b"32757", b"32752", b"65536", b"", b"x")
PORT = b"7"
SPECIALS = (
    b"@releaseDomain", b"@introduceDomain", b"@releaseDomain/1", b"@introduceDomain/2",
    b"@releaseDomain/3",
)  # fmt: skip
QUOTAS = (
    (b"nodes", (2, 3, 5, 9, 0, 1000)), (b"watches", (1, 2, 4, 128)), (b"transactions", (1, 2, 10)),
    (b"transaction-nodes", (3, 6, 1024)), (b"transaction-requests", (2, 5, 1024)),
    (b"node-permissions", (2, 5)), (b"node-size", (36, 44, 80, 2048)),
    (b"path-max", (3, 8, 0, 2048)), (b"watch-events", (1, 3, 1024)), (b"outstanding", (1, 3, 20)),
    (b"soft-nodes", (3, 0)), (b"permissions", (3,)), (b"bogus", (1,)), (b"nodes", (-1,)),
)  # fmt: skip
MEMORY_QUOTAS = (b"memory", (0, 150, 300, 500, 800, 1500, 3000, 2621440))
"""In worlds in which guests have little."""


def strings(*texts: bytes) -> bytes:
    return b"".join(text + b"\0" for text in texts)


class Choice:
    """A weighted table that is drawn from with one random number."""

    def __init__(self, *rows: tuple[float, Any]) -> None:
        self.sums = list(accumulate(weight for weight, _ in rows))
        self.values = [value for _, value in rows]

    def draw(self, random: Random) -> Any:
        return self.values[bisect(self.sums, random.random() * self.sums[-1])]


class Requests:
    """Requests over small alphabets, so that clients get in each other's way."""

    def __init__(self, random: Random, tight: bool) -> None:
        self.random = random
        self.quotas = (*QUOTAS, *(MEMORY_QUOTAS,) * 6) if tight else QUOTAS
        width = random.choice((5, 40, 140))
        self.wide = [b"/wide/%03d" % number for number in range(width)]
        self.kinds = Choice(
            (14, self.write), (5, self.mkdir), (5, self.rm), (6, self.set_perms), (8, self.read),
            (6, self.directory), (4, self.get_perms), (2, self.part), (7, self.watch),
            (3, self.unwatch), (8, self.start), (8, self.end), (2, self.quota), (1.5, self.target),
            (1, self.introduce), (0.4, self.release), (0.6, self.resume), (1.5, self.about),
            (0.6, self.features), (0.4, self.reset), (0.5, self.control), (1, self.nonsense),
        )  # fmt: skip

    def tree(self) -> tuple[int, bytes]:
        """One that looks at the tree or changes it."""
        kinds = (self.write, self.write, self.mkdir, self.rm, self.read, self.directory)
        return self.random.choice(kinds)()

    def one(self) -> Ask:
        kind, payload = self.kinds.draw(self.random)()
        inside = self.random.random()
        if kind == Msg.TRANSACTION_END:
            return kind, payload, 7 if inside < 0.03 else 1 + int(inside * 6)
        tx = 0 if inside < 0.55 else 7 if inside < 0.56 else 1 + int(inside * 6)
        return kind, payload, tx

    def path(self) -> bytes:
        kind = self.random.random()
        if kind < 0.8:
            return self.random.choice(HOT)
        return self.random.choice(self.wide if kind < 0.92 else ODD)

    def write(self) -> tuple[int, bytes]:
        return Msg.WRITE, self.path() + b"\0" + self.random.choice(VALUES)

    def mkdir(self) -> tuple[int, bytes]:
        return Msg.MKDIR, self.path() + b"\0"

    def rm(self) -> tuple[int, bytes]:
        if self.random.random() < 0.03:
            return Msg.RM, b"/wide\0"
        return Msg.RM, self.path() + b"\0"

    def set_perms(self) -> tuple[int, bytes]:
        choice = self.random.choice
        owner = choice(LETTERS) + choice((b"0", b"1", b"2", b"3"))
        if self.random.random() < 0.05:
            owner = choice(LETTERS) + choice(NAMED)
        more = [choice(LETTERS) + choice(NAMED) for _ in range(choice((0, 1, 1, 2, 3)))]
        path = choice(SPECIALS[:3]) if self.random.random() < 0.05 else self.path()
        return Msg.SET_PERMS, strings(path, owner, *more)

    def read(self) -> tuple[int, bytes]:
        return Msg.READ, self.path() + b"\0"

    def directory(self) -> tuple[int, bytes]:
        path = b"/wide" if self.random.random() < 0.1 else self.path()
        return Msg.DIRECTORY, path + b"\0"

    def get_perms(self) -> tuple[int, bytes]:
        return Msg.GET_PERMS, self.path() + b"\0"

    def part(self) -> tuple[int, bytes]:
        path = b"/wide" if self.random.random() < 0.3 else self.path()
        return Msg.DIRECTORY_PART, strings(path, self.random.choice((b"0", b"2", b"99", b"x")))

    def watch(self) -> tuple[int, bytes]:
        choice, kind = self.random.choice, self.random.random()
        path = self.path() if kind < 0.7 else choice(SPECIALS) if kind < 0.85 else b"/"
        if self.random.random() < 0.3:
            return Msg.WATCH, strings(path, choice(TOKENS), choice(DEPTHS))
        return Msg.WATCH, strings(path, choice(TOKENS))

    def unwatch(self) -> tuple[int, bytes]:
        path = self.random.choice(SPECIALS) if self.random.random() < 0.2 else self.path()
        return Msg.UNWATCH, strings(path, self.random.choice(TOKENS))

    def start(self) -> tuple[int, bytes]:
        return Msg.TRANSACTION_START, b"\0"

    def end(self) -> tuple[int, bytes]:
        verdict = self.random.random()
        return (
            Msg.TRANSACTION_END,
            b"T\0" if verdict < 0.8 else b"F\0" if verdict < 0.98 else b"X\0",
        )

    def quota(self) -> tuple[int, bytes]:
        name, values = self.random.choice(self.quotas)
        domid = b"%d" % self.random.choice(DOMIDS)
        if self.random.random() < 0.3:
            asked = self.random.choice(((), (name,), (domid, name)))
            return Msg.GET_QUOTA, strings(*asked)
        value = b"%d" % self.random.choice(values)
        if self.random.random() < 0.03:
            return Msg.SET_QUOTA, strings(name, value)
        return Msg.SET_QUOTA, strings(domid, name, value)

    def target(self) -> tuple[int, bytes]:
        pick = self.random.choice
        return Msg.SET_TARGET, strings(pick(ODD_DOMIDS[:5]), pick(ODD_DOMIDS))

    def introduce(self) -> tuple[int, bytes]:
        port = PORT if self.random.random() < 0.9 else b"0"
        return Msg.INTRODUCE, strings(self.random.choice(ODD_DOMIDS), b"1", port)

    def release(self) -> tuple[int, bytes]:
        return Msg.RELEASE, strings(self.random.choice(ODD_DOMIDS))

    def resume(self) -> tuple[int, bytes]:
        return Msg.RESUME, strings(self.random.choice(ODD_DOMIDS))

    def about(self) -> tuple[int, bytes]:
        kind = self.random.choice((Msg.GET_DOMAIN_PATH, Msg.IS_DOMAIN_INTRODUCED))
        return kind, strings(self.random.choice(ODD_DOMIDS))

    def features(self) -> tuple[int, bytes]:
        domid = self.random.choice(ODD_DOMIDS)
        if self.random.random() < 0.5:
            return Msg.GET_FEATURE, self.random.choice((b"", strings(domid)))
        return Msg.SET_FEATURE, strings(
            domid, self.random.choice((b"3", b"7", b"15", b"11", b"16"))
        )

    def reset(self) -> tuple[int, bytes]:
        return Msg.RESET_WATCHES, b"\0"

    def control(self) -> tuple[int, bytes]:
        return Msg.CONTROL, self.random.choice((b"", b"help\0", b"print\0x\0"))

    def nonsense(self) -> tuple[int, bytes]:
        kind = self.random.choice((*(k for k in Msg if k != Msg.RELEASE), 20, 27, 65535))
        junk = (b"", b"\0", b"/a", b"/a\0\0", b"1\0", b"k\0t\0junk", b"/a\0\xff\xfe")
        return kind, self.random.choice(junk)


# ---- the table -------------------------------------------------------------------------------

POOL = 2048
"""Requests that a world draws from: making them up one by one would cost more than serving."""

WAITS = (1000, 1000, 100_000, MS, 11 * MS, 60 * MS, 300 * MS, 5 * S, 12 * S, 21 * S, 130 * S)
INDICES = ("req_cons", "req_prod", "rsp_cons", "rsp_prod")
STARTED: tuple[Ask, ...] = ((Msg.TRANSACTION_START, b"\0", 0),)


class Draw:
    """An endless choice of steps, by one seed."""

    def __init__(self, seed: int) -> None:
        self.settings = settings.draw(Random(f"settings of {seed}"))
        self.random = random = Random(seed)
        self.requests = requests = Requests(random, self.settings.tight)
        self.pool = [requests.one() for _ in range(POOL)]
        # Some worlds are mostly sockets, some mostly guests, some quiet, some hostile.
        guests, hostile = random.choice((0.3, 1.0, 3.0)), random.choice((0.0, 1.0, 1.0, 4.0))
        late, memory = random.choice((0.0, 1.0, 4.0)), random.choice((0.0, 1.0, 3.0))
        self.whos = Choice(
            *((1.0, slot) for slot in range(SOCKETS)),
            *((guests, slot) for slot in GUEST_SLOTS),
            (0.2 * guests, KERNEL_SLOT),
        )
        self.table = Choice(
            (100, self.ask), (12, self.burst), (6, self.start), (9, self.commit), (4, self.bring),
            (1, self.birth), (1.0, self.kill), (0.7, self.shutdown), (0.6, self.close),
            (3, self.wait),
            (1.5, self.slow), (4, self.fetch), (0.8, self.reconnect), (0.3, self.kick),
            (0.5 * late, self.late), (4 * late, self.complete), (2 * memory, self.no_memory),
            (0.1 * memory, self.no_memory_for_death), (0.4 * hostile, self.garbage),
            (2, self.tighten), (0.2 * hostile, self.oversize), (0.4 * hostile, self.flood),
            (0.4, self.tune),
        )  # fmt: skip

    def __iter__(self) -> Iterator[Step]:
        table, random = self.table, self.random
        yield "settings", self.settings.as_plain()
        yield from self.furnish()
        while True:
            drawn: Callable[[], Step] = table.draw(random)
            step = drawn()
            yield step
            if step[0] == "bring":
                yield from self.home(step[1])
            elif step[2:] == STARTED:
                yield from (self.siege if random.random() < 0.12 else self.race)(step[1])

    def furnish(self) -> Iterator[Step]:
        """Homes for the first guests, and something that they share."""
        for slot in range(3):
            yield "open", slot
        for domid in (1, 2, 3):
            yield "bring", domid
            yield from self.home(domid)
        for path, *entries in (
            (b"/a", b"n0", b"b1", b"b2", b"b3"),
            (b"/s", b"b0"),
            (b"/wide", b"b0"),
        ):
            yield "ask", 0, (Msg.MKDIR, path + b"\0", 0)
            yield "ask", 0, (Msg.SET_PERMS, strings(path, *entries), 0)
        for slot in (1, *GUEST_SLOTS[:3]):
            for path in self.random.sample((b"/", b"/a", b"/s", b"/wide", b"k"), 2):
                yield "ask", slot, (Msg.WATCH, strings(path, b"token"), 0)

    def home(self, domid: int) -> Iterator[Step]:
        home = b"/local/domain/%d" % domid
        yield "ask", 0, (Msg.MKDIR, home + b"\0", 0)
        yield "ask", 0, (Msg.SET_PERMS, strings(home, b"n%d" % domid, b"b2"), 0)

    def race(self, slot: int) -> Iterator[Step]:
        """What is done in a new transaction; others may meddle with it before it ends."""
        some = tuple((*self.requests.tree(), 6) for _ in range(self.random.choice((1, 2, 4))))
        yield "burst", slot, some, -1
        if self.random.random() < 0.5:
            return
        for kind, payload, _ in some:
            path = payload.partition(b"\0")[0]
            change = self.random.choice((Msg.WRITE, Msg.WRITE, Msg.RM, kind))
            value = self.random.choice(VALUES[:4]) if change == Msg.WRITE else b""
            yield "ask", self.guest(), (change, path + b"\0" + value, 0)
            if self.random.random() < 0.3:
                yield "ask", self.who(), self.request()
        yield "ask", slot, (Msg.TRANSACTION_END, b"T\0", 6)

    def siege(self, slot: int) -> Iterator[Step]:
        """Others meddle with one transaction after the other; in the end they may be held back."""
        choice = self.random.choice
        path = choice((b"/s/1", b"/s/2", b"/a/b", b"/local/domain/1/k"))
        some = (Msg.READ, path + b"\0", 6), (Msg.WRITE, choice((b"/s/mark\0", b"k\0v")), 6)
        for _ in range(choice((2, 3, 3, 10))):
            yield "burst", slot, some, -1
            for value in self.random.sample(VALUES[:6], choice((1, 2, 3))):
                who = self.guest() if self.random.random() < 0.8 else self.who()
                yield "ask", who, (Msg.WRITE, path + b"\0" + value, 0)
            if self.random.random() < 0.3:
                yield "wait", choice((1000, MS, 60 * MS, 200 * MS, 2 * S))
            yield "ask", slot, (Msg.TRANSACTION_END, b"T\0", 6)
            yield "ask", slot, *STARTED

    def request(self) -> Ask:
        return self.pool[int(self.random.random() * POOL)]

    def who(self) -> int:
        slot: int = self.whos.draw(self.random)
        return slot

    def guest(self) -> int:
        return self.random.choice(GUEST_SLOTS)

    def ask(self) -> Step:
        return "ask", self.who(), self.request()

    def burst(self) -> Step:
        """Several requests in one wake-up, and perhaps a part of one more."""
        some = tuple(self.request() for _ in range(self.random.choice((1, 2, 3, 8))))
        cut = int(self.random.random() * 40) if self.random.random() < 0.5 else -1
        return "burst", self.who(), some, cut

    def start(self) -> Step:
        return "ask", self.who(), *STARTED

    def commit(self) -> Step:
        return "ask", self.who(), (Msg.TRANSACTION_END, b"T\0", 1 + int(self.random.random() * 6))

    def bring(self) -> Step:
        return "bring", self.random.choice(DOMIDS if self.random.random() < 0.95 else BYSTANDERS)

    def birth(self) -> Step:
        return "birth", self.random.choice((*DOMIDS, *BYSTANDERS))

    def kill(self) -> Step:
        return "kill", self.random.choice((*DOMIDS, *BYSTANDERS))

    def shutdown(self) -> Step:
        return "shutdown", self.random.choice((*DOMIDS, *BYSTANDERS))

    def close(self) -> Step:
        return "close", int(self.random.random() * SOCKETS)

    def wait(self) -> Step:
        return "wait", self.random.choice(WAITS)

    def tighten(self) -> Step:
        """A quota of a guest becomes small, or as it was."""
        return "ask", 0, (*self.requests.quota(), 0)

    def tune(self) -> Step:
        return "tune", *settings.draw_one(self.random)

    def slow(self) -> Step:
        return "slow", self.who(), self.random.random() < 0.6

    def fetch(self) -> Step:
        return "fetch", self.who(), self.random.choice((1, 7, 16, 30, 100, 700, 5000, 1 << 20))

    def reconnect(self) -> Step:
        return "reconnect", self.guest()

    def kick(self) -> Step:
        return "kick", self.guest()

    def late(self) -> Step:
        return "late", self.random.random() < 0.6

    def complete(self) -> Step:
        return "complete", int(self.random.random() * 8), self.random.random() < 0.85

    def no_memory(self) -> Step:
        return "no memory", 1 + int(self.random.random() ** 2 * 14), self.who(), self.request()

    def no_memory_for_death(self) -> Step:
        return "no memory for death", 1 + int(self.random.random() * 10), self.kill()[1]

    def garbage(self) -> Step:
        far = self.random.choice((0, 1, 5, 1023, 1024, 1025, 4096, 1 << 31, (1 << 32) - 1))
        return "garbage", self.guest(), self.random.choice(INDICES), far

    def oversize(self) -> Step:
        return "oversize", self.who(), self.random.choice((4097, 65536, (1 << 32) - 1))

    def flood(self) -> Step:
        some = tuple(self.request() for _ in range(30))
        return "burst", self.guest(), some, -1


# ---- as text ----------------------------------------------------------------------------------

RUN = re.compile(r"(.)\1{39,}", re.DOTALL)


def as_line(step: Step) -> str:
    """A step as a JSON array; bytes are "b:" and one character each, long runs are counted."""
    return json.dumps(to_plain(step))


def from_line(line: str) -> Step:
    step: Step = to_step(json.loads(line))
    return step


def to_plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    if not isinstance(value, bytes):
        return int(value) if isinstance(value, Msg) else value
    text, pieces, at = value.decode("latin-1"), [], 0
    for run in RUN.finditer(text):
        pieces += [text[at : run.start()], [run[1], len(run[0])]]
        at = run.end()
    return {"b": [*pieces, text[at:]]} if pieces else "b:" + text


def to_step(value: Any) -> Any:
    if isinstance(value, dict):
        pieces = [piece if isinstance(piece, str) else piece[0] * piece[1] for piece in value["b"]]
        return "".join(pieces).encode("latin-1")
    if isinstance(value, str) and value.startswith("b:"):
        return value[2:].encode("latin-1")
    return tuple(to_step(item) for item in value) if isinstance(value, list) else value
