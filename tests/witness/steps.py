"""What may happen, and the random choice of it; a list of steps is a script.

Each step can be left out of a script and the rest still means something: a transaction that was
never started has an id that nobody knows, a domain that was never born asks nothing.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from xsd.client.wire import Op

SOCKETS = (-1, -2, -3)
GUESTS = (1, 2, 12)
NEVER = 77
"""A domain that there never is."""

SLOTS = 3
UNKNOWN = 9
"""The slot of a transaction that was never started."""

SET_QUOTA = 26
VALUE_MAX = 4096


class Ask(NamedTuple):
    """A request on a connection: a guest's domid, or a negative number for a socket.

    ``slot`` says in which transaction, 0 for none; a started one goes into slot ``into``.
    """

    conn: int
    op: int
    payload: bytes
    slot: int = 0
    into: int = 0


class Fate(NamedTuple):
    """What happens to a connection or a domain: ``birth``, ``death``, ``release``, ``shutdown``,
    ``again`` (introduced once more), ``hangup`` (a socket is closed and opened anew)."""

    what: str
    conn: int


Step = Ask | Fate
Script = Sequence[Step]


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits of a world, the same number for all daemons."""

    name: str
    nodes: int = 1000
    watches: int = 128
    transactions: int = 10
    permissions: int = 5
    path: int = 2048
    node_size: int = 2048


WIDE = Rules("wide")
TIGHT = Rules("tight", nodes=16, watches=5, transactions=2, permissions=3, path=120)

NAMES = ("a", "b", "ab", "a-b", "c_1", "d@e", "0", "A")
TOKENS = ("t", "u", "", "t t/\xff", "x" * 60)
PLACES = ("/shared", "/open", "/shared/a", "/open/b", "/x", "/x/y", "/local/domain", "/local", "/")
SPECIAL = ("@introduceDomain", "@releaseDomain")
INVALID = (
    "", "//", "/a/", "a/", "/a//b", "a b", "/a.b", "/é", "/local/domain/", "a\n", "/a/%", "/*",
    "/local//domain/1", "@", "@nonesuch", "@releaseDomain/", "/@x", "..", "/open/b/", "-", "/-/_",
)  # fmt: skip
ENTRIES = "nrwb"
SHAPES = (
    b"%s", b"", b"\0", b"\0\0", b"%s\0\0", b"\0%s\0", b"%s\0x", b"%s\0%t", b"%s\0%t\0x",
    b"%s\0%t\0x\0", b"%s\0%t\0x\0y\0",
)  # fmt: skip
CHANGES = (Op.WRITE, Op.MKDIR, Op.RM)
SHAPED = (Op.WRITE, Op.WATCH, Op.UNWATCH, Op.SET_PERMS)
SHAPED_ALONE = (*SHAPED, Op.READ, Op.DIRECTORY, Op.GET_PERMS, Op.MKDIR, Op.RM, Op.GET_DOMAIN_PATH)


def home(domid: int) -> str:
    return f"/local/domain/{domid}"


@dataclass(frozen=True, slots=True)
class Mood:
    """What a script is mostly about: weights of what is drawn."""

    look: int = 30
    write: int = 20
    make: int = 8
    remove: int = 6
    perms: int = 6
    watch: int = 10
    unwatch: int = 5
    reset: int = 1
    start: int = 8
    admin: int = 2
    odd: int = 2
    huge: int = 1
    fate: int = 1
    inside: float = 0.6
    """How often a connection that has a transaction uses it."""
    foreign: float = 0.25
    """How often a path is not of the connection's own."""
    stay: float = 0.8
    """How often the next request is of the same connection."""
    lonely: bool = False
    """Whether nobody else speaks while a transaction is open."""
    peers: str = "co"
    """Who is compared with ours."""


MOODS = (
    Mood(),
    Mood(),
    Mood(lonely=True, start=14, inside=0.85),
    Mood(start=20, watch=4, unwatch=2, inside=0.8, foreign=0.4),
    Mood(start=0, perms=20, foreign=0.6),
    Mood(start=1, watch=30, unwatch=18, reset=4, write=25, remove=12),
    Mood(start=2, odd=20),
    Mood(start=2, odd=30, peers="o"),
    Mood(foreign=0.5, fate=5, peers="c"),
    Mood(start=1, make=25, remove=12, write=30, huge=2),
    Mood(start=3, fate=8, admin=8),
    Mood(start=0, perms=0, watch=25, foreign=0.5, stay=0.5),
)


class Draw:
    """Draws the steps of one script."""

    def __init__(self, seed: int | str, rules: Rules) -> None:
        self.random = random.Random(seed)
        self.rules = rules
        self.mood = self.random.choice(MOODS)
        self.peers = self.mood.peers
        self.targets = False
        self.mute: set[int] = set()
        self.open: dict[int, list[int]] = {}
        self.watched: dict[int, list[bytes]] = {}
        self.conn = self.random.choice((*SOCKETS, *GUESTS))
        # A few paths only, so that connections meet.
        self.names = self.random.sample(NAMES, 4)
        drawers: dict[str, Callable[[], Step]] = {
            "look": self.look,
            "write": self.write,
            "make": self.make,
            "remove": self.remove,
            "perms": self.perms,
            "watch": self.watch,
            "unwatch": self.unwatch,
            "reset": self.reset,
            "start": self.start,
            "admin": self.admin,
            "odd": self.odd,
            "huge": self.huge,
            "fate": self.fate,
        }
        self.drawers = list(drawers.values())
        total, self.weights = 0, []
        for name in drawers:
            total += getattr(self.mood, name)
            self.weights.append(total)

    def steps(self, count: int) -> list[Step]:
        return [self.step() for _ in range(count)]

    def step(self) -> Step:
        draw = self.random.random
        slots = self.open.get(self.conn)
        alone = self.mood.lonely and slots
        if not alone and draw() > self.mood.stay:
            self.conn = self.random.choice([*SOCKETS, *(d for d in GUESTS if d not in self.mute)])
            slots = self.open.get(self.conn)
        if slots and draw() < 0.15:
            return self.end(slots)
        (drawer,) = self.random.choices(self.drawers, cum_weights=self.weights)
        return drawer()

    # -- pieces

    def relative(self) -> str:
        depth = self.random.choice((1, 1, 1, 2, 2, 3, 4))
        return "/".join(self.random.choice(self.names) for _ in range(depth))

    def path(self) -> str:
        chance = self.random.random
        mine = self.conn if self.conn > 0 else self.random.choice(GUESTS)
        if chance() > self.mood.foreign:
            if self.conn > 0 and chance() < 0.5:
                return self.relative()
            if chance() < 0.08:
                return home(mine)
            return f"{home(mine)}/{self.relative()}"
        drawn = chance()
        if drawn < 0.3:
            return f"{home(self.random.choice((0, *GUESTS)))}/{self.relative()}"
        if drawn < 0.5:
            return self.random.choice(PLACES)
        if drawn < 0.9:
            return f"{self.random.choice(('/shared', '/open', '/x'))}/{self.relative()}"
        if drawn < 0.93:
            return self.random.choice(SPECIAL)
        if drawn < 0.96:
            return self.random.choice(INVALID)
        return self.long()

    def long(self) -> str:
        """A path as long as one may be, or about so; the longest ones are for guests."""
        limit = self.rules.path
        if self.conn < 0:
            return f"/open/{'l' * self.random.choice((50, limit // 2))}"
        size = limit + self.random.choice((-40, -1, 0, 1, 30))
        if self.random.random() < 0.5:
            size -= 1
        if self.random.random() < 0.5:  # what names a domain does not count
            return f"{home(self.conn)}/" + "p" * max(1, size)
        return "/open/" + "p" * max(1, size - 6)

    def value(self) -> bytes:
        drawn = self.random.random()
        if drawn < 0.7:
            return b"%d" % self.random.randrange(4)
        if drawn < 0.8:
            return b""
        if drawn < 0.9:
            return self.random.randbytes(self.random.randrange(1, 40))
        return b"v" * self.random.choice((100, 400, 1000))

    def ask(self, op: int, payload: bytes) -> Ask:
        if payload[:1] == b"@" and op in CHANGES and "o" in self.peers:
            payload = b"x" + payload[1:]  # where these are nodes like others they could be lost
        if not payload and "o" in self.peers:
            payload = b"\0"
        slots, slot = self.open.get(self.conn), 0
        if slots and self.random.random() < self.mood.inside:
            slot = self.random.choice(slots)
        if self.random.random() < 0.004:
            slot = UNKNOWN
        return Ask(self.conn, int(op), payload, slot)

    def on_path(self, op: int, *more: str) -> Ask:
        text = "\0".join((self.path(), *more)) + "\0"
        return self.ask(op, text.encode("latin-1"))

    # -- steps

    def look(self) -> Step:
        if self.random.random() < 0.04:
            return self.on_path(Op.DIRECTORY_PART, self.random.choice(("0", "0", "0", "4000", "")))
        op = self.random.choice((Op.READ, Op.READ, Op.DIRECTORY, Op.DIRECTORY, Op.GET_PERMS))
        return self.on_path(op)

    def write(self) -> Step:
        text = self.path().encode("latin-1") + b"\0"
        return self.ask(Op.WRITE, (text + self.value())[:VALUE_MAX])

    def make(self) -> Step:
        return self.on_path(Op.MKDIR)

    def remove(self) -> Step:
        drawn = self.on_path(Op.RM)
        tops = (b"/\0" if "o" in self.peers else b"", b"/local\0", b"/local/domain\0")
        if drawn.payload in tops and (drawn.conn < 0 or self.targets):
            # Too much would be over at once; a device model may have its target's rights.
            return drawn._replace(payload=b"/x\0")
        return drawn

    def perms(self) -> Step:
        some = (0, *GUESTS, *GUESTS, *GUESTS)
        count = self.random.choice((1, 1, 2, 2, 3, 4, 6) if self.conn < 0 else (1, 1, 2, 2, 3))
        owner = self.conn if self.conn > 0 and self.random.random() < 0.9 else None
        domids = [self.random.choice(some) for _ in range(count)]
        if self.random.random() < 0.01:
            domids[-1] = NEVER
        if owner is not None:
            domids[0] = owner
        entries = [f"{self.random.choice(ENTRIES)}{domid}" for domid in domids]
        if self.random.random() < 0.02:
            entries[-1] = self.random.choice(("x1", "r", "", "1", "R1", "r-1", "b1 ", "rw1"))
        drawn = self.on_path(Op.SET_PERMS, *entries)
        path, _, rest = drawn.payload.partition(b"\0")
        if path[:1] == b"@":
            if drawn.conn > 0 and "c" in self.peers:
                return drawn._replace(payload=b"/shared\0" + rest)
            if drawn.conn < 0 and path.decode() in SPECIAL:  # they stay with domain 0
                return drawn._replace(payload=path + b"\0n0\0" + rest)
        if path == b"/" or (path[:1] == b"@" and path.decode() not in SPECIAL):
            return drawn._replace(payload=b"/open\0" + rest)
        return drawn

    def watch(self) -> Step:
        drawn = self.on_path(Op.WATCH, self.random.choice(TOKENS))
        if self.random.random() < 0.4:  # where much happens
            tops = (*map(home, GUESTS), "/", "/shared", "/open", "/x", "/local", self.names[0])
            text = f"{self.random.choice(tops)}\0{self.random.choice(TOKENS)}\0"
            drawn = self.ask(Op.WATCH, text.encode("latin-1"))
        if self.random.random() < 0.12:
            name = self.random.choice(SPECIAL)
            drawn = self.ask(Op.WATCH, f"{name}\0{self.random.choice(TOKENS)}\0".encode("latin-1"))
        self.watched.setdefault(self.conn, []).append(drawn.payload)
        return drawn

    def unwatch(self) -> Step:
        known = self.watched.get(self.conn)
        if known and self.random.random() < 0.8:
            payload = known.pop(self.random.randrange(len(known)))
            if self.conn > 0 and self.random.random() < 0.2 and payload[:1] not in (b"/", b"@"):
                payload = f"{home(self.conn)}/".encode() + payload
            return self.ask(Op.UNWATCH, payload)
        return self.on_path(Op.UNWATCH, self.random.choice(TOKENS))

    def reset(self) -> Step:
        self.watched.pop(self.conn, None)
        self.open.pop(self.conn, None)
        return Ask(self.conn, Op.RESET_WATCHES, b"\0")

    def start(self) -> Step:
        slots = self.open.setdefault(self.conn, [])
        if slots and self.random.random() < 0.1:
            return Ask(self.conn, Op.TRANSACTION_START, b"\0", self.random.choice(slots))
        free = [slot for slot in range(1, SLOTS + 1) if slot not in slots]
        if not free:
            return self.end(slots)
        slots.append(free[0])
        return Ask(self.conn, Op.TRANSACTION_START, b"\0", 0, free[0])

    def end(self, slots: list[int]) -> Step:
        slot = self.random.choice(slots)
        drawn = self.random.random()
        if drawn < 0.02:
            return Ask(self.conn, Op.TRANSACTION_END, b"X\0", slot)
        slots.remove(slot)
        return Ask(self.conn, Op.TRANSACTION_END, b"F\0" if drawn < 0.2 else b"T\0", slot)

    def admin(self) -> Step:
        domid = self.random.choice((*GUESTS, NEVER))
        text = b"%d\0" % domid
        drawn = self.random.random()
        if drawn < 0.35:
            return self.ask(Op.GET_DOMAIN_PATH, text)
        if drawn < 0.7:
            return self.ask(Op.IS_DOMAIN_INTRODUCED, text)
        if drawn < 0.76:
            return self.ask(Op.RESUME, text)
        if drawn < 0.8:
            if self.random.random() < 0.5:
                return self.ask(Op.GET_FEATURE, text)
            return self.ask(Op.GET_QUOTA, b"nodes\0")
        if drawn < 0.9 and self.conn > 0:
            op = self.random.choice((Op.INTRODUCE, Op.RELEASE, Op.SET_TARGET))
            return self.ask(op, text + b"1\0001\0" if op == Op.INTRODUCE else text * 2)
        if self.conn > 0:
            return self.ask(self.random.choice((77, 16, 20, 65535)), text)
        # A device model acts for the domain that it serves; that one does not go before it.
        model = self.random.randrange(len(GUESTS) - 1)
        target = self.random.choice(GUESTS[model + 1 :])
        self.targets = True
        return Ask(self.conn, Op.SET_TARGET, b"%d\0%d\0" % (GUESTS[model], target))

    def odd(self) -> Step:
        """Payloads that are not what they should be."""
        op = self.random.choice(SHAPED if "c" in self.mood.peers else SHAPED_ALONE)
        path = self.path().encode("latin-1")
        token = self.random.choice(TOKENS).encode("latin-1")
        shape = self.random.choice(SHAPES)
        return self.ask(op, shape.replace(b"%s", path).replace(b"%t", token))

    def huge(self) -> Step:
        """Values and listings at the limits."""
        path = self.path().encode("latin-1") + b"\0"
        if self.conn < 0:
            room = VALUE_MAX - len(path)
            size = self.random.choice((room, room - 1, 3000))
        else:
            size = self.rules.node_size - self.random.choice((400, 600, 1200))
        return self.ask(Op.WRITE, path + b"w" * size)

    def fate(self) -> Step:
        what = self.random.choice(
            ("birth", "birth", "death", "release", "shutdown", "again", "hangup", "hangup")
        )
        if what == "again" and "o" in self.peers:
            what = "birth"  # where it is a change of the port alone
        if self.targets and what in ("death", "release"):
            what = "hangup"
        conn = self.random.choice(SOCKETS if what == "hangup" else GUESTS)
        if what in ("death", "release") and "c" in self.peers:
            self.mute.add(conn)  # whoever comes after it is only seen
            if self.conn == conn:
                self.conn = SOCKETS[0]
        if what != "shutdown":
            self.open.pop(conn, None)
            self.watched.pop(conn, None)
        return Fate(what, conn)


# -- scripts as text -----------------------------------------------------------------------------


def who(conn: int) -> str:
    return f"guest {conn}" if conn > 0 else f"socket {-conn}"


def as_line(step: Step) -> str:
    """One step as it is printed, which `from_line` reads again."""
    if isinstance(step, Fate):
        return f"{who(step.conn)}: {step.what}"
    name = Op(step.op).name if step.op in Op.__members__.values() else str(step.op)
    where = f" in {step.slot}" if step.slot else ""
    into = f" into {step.into}" if step.into else ""
    return f"{who(step.conn)}: {name}{where}{into} {step.payload!r}"


def from_line(line: str) -> Step:
    """The step of a printed line; ValueError for anything else."""
    whom, _, rest = line.partition(": ")
    kind, _, number = whom.partition(" ")
    conn = int(number) * (1 if kind == "guest" else -1)
    name, _, rest = rest.partition(" ")
    if not rest:
        return Fate(name, conn)
    numbers = {"in": 0, "into": 0}
    while rest.startswith(("in ", "into ")):
        word, number, rest = rest.split(" ", 2)
        numbers[word] = int(number)
    op = int(name) if name.isdigit() else Op[name]
    payload = ast.literal_eval(rest)
    assert isinstance(payload, bytes)
    return Ask(conn, int(op), payload, numbers["in"], numbers["into"])


def to_text(rules: Rules, script: Script) -> str:
    return "\n".join([f"rules {rules.name}", *map(as_line, script)]) + "\n"


def from_text(text: str) -> tuple[Rules, list[Step]]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    (rules,) = [one for one in (WIDE, TIGHT) if f"rules {one.name}" == lines[0]]
    return rules, [from_line(line) for line in lines[1:]]
