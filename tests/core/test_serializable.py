"""Every history that the engine commits is that of some serial order: the order of the commits.

Several connections, privileged ones and guests, run random transactions and immediate writes over
a small tree, a request at a time, in random order. A plain dict, with the rules of the store told
once more in a few lines, follows them:

- inside a transaction each answer is that of the tree at its start, with its own changes;
- when it commits, it is done once more on the dict, alone: each answer must be the same again;
- when it fails, at least one answer would not have been the same: no conflict is made up;
- at any time, and in the end, the trees are equal.

XSD_TRANSACTIONS sets how many transactions there are in total, XSD_SERIAL_SEEDS how many runs they
are spread over.
"""

from __future__ import annotations

import os
import random
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from arena import MS, Arena
from world import OK, Msg

TRANSACTIONS = int(os.environ.get("XSD_TRANSACTIONS", "20000"))
SEEDS = int(os.environ.get("XSD_SERIAL_SEEDS", "4"))
TOP = b"/t"
GUESTS = (1, 2, 3)
OPEN_MOST = 3
LOOK_EVERY = 500  # transactions between two looks at the whole tree

Perms = tuple[tuple[str, int], ...]
Node = tuple[bytes, Perms]
Tree = dict[bytes, Node]
Request = tuple[int, bytes, bytes, Perms]  # kind, path, value, permissions
Answer = tuple[int, bytes]


def paths() -> list[bytes]:
    found = []
    for a in (b"a", b"b", b"c"):
        found.append(b"/t/" + a)
        for b in (b"x", b"y"):
            found.append(b"/t/" + a + b"/" + b)
            found.append(b"/t/" + a + b"/" + b + b"/z")
    return found


PATHS = paths()


# ---- the rules, once more ----------------------------------------------------------------------


def rights(perms: Perms, domid: int) -> str:
    if domid in (0, perms[0][1]):
        return "rwo"
    letter = next((letter for letter, who in perms[1:] if who == domid), perms[0][0])
    return {"n": "", "r": "r", "w": "w", "b": "rw"}[letter]


def failed(name: bytes) -> Answer:
    return Msg.ERROR, name + b"\0"


def text_of(perms: Perms) -> bytes:
    return b"".join(b"%s%d\0" % (letter.encode(), domid) for letter, domid in perms)


def perform(tree: Tree, domid: int, request: Request) -> Answer:
    """Does one request on a tree, in place."""
    kind, path, value, perms = request
    node, near = tree.get(path), path
    while near not in tree:
        near = near[: near.rindex(b"/")]
    allowed = rights(tree[near][1], domid)
    if kind in (Msg.READ, Msg.DIRECTORY, Msg.GET_PERMS):
        if "r" not in allowed:
            return failed(b"EACCES")
        if node is None:
            return failed(b"ENOENT")
        if kind == Msg.READ:
            return kind, node[0]
        if kind == Msg.GET_PERMS:
            return kind, text_of(node[1])
        start = len(path) + 1
        names = {p[start:] for p in tree if p.startswith(path + b"/")}
        return kind, b"".join(name + b"\0" for name in sorted(names) if b"/" not in name)
    if "w" not in allowed:
        return failed(b"EACCES")
    if kind == Msg.SET_PERMS:
        if node is None:
            return failed(b"ENOENT")
        if "o" not in allowed:
            return failed(b"EACCES")
        if domid != 0 and perms[0][1] != node[1][0][1]:
            return failed(b"EPERM")
        tree[path] = (node[0], perms)
    elif kind == Msg.RM:
        if node is None:
            return (kind, OK) if near == path[: path.rindex(b"/")] else failed(b"ENOENT")
        for gone in [p for p in tree if p == path or p.startswith(path + b"/")]:
            del tree[gone]
    elif node is None:
        inherited = tree[near][1]
        if domid != 0:
            inherited = ((inherited[0][0], domid), *inherited[1:])
        while near != path:
            end = path.find(b"/", len(near) + 1)
            near = path if end < 0 else path[:end]
            tree[near] = (b"", inherited)
        tree[path] = (value, inherited)
    elif kind == Msg.WRITE:
        tree[path] = (value, node[1])
    return kind, OK


def payload_of(request: Request) -> bytes:
    kind, path, value, perms = request
    if kind == Msg.WRITE:
        return path + b"\0" + value
    if kind == Msg.SET_PERMS:
        return path + b"\0" + text_of(perms)
    return path + b"\0"


# ---- what is checked ---------------------------------------------------------------------------


@dataclass(slots=True)
class Transaction:
    view: Tree
    left: int
    done: list[tuple[Request, Answer]] = field(default_factory=list)
    changed: bool = False


class HistoryError(AssertionError):
    """The engine and the dict do not agree."""


@dataclass(slots=True)
class Checker:
    """The dict, and what has happened to it."""

    live: Tree
    seen: Counter[str] = field(default_factory=Counter)
    perform: Callable[[Tree, int, Request], Answer] = perform

    def expect(self, actual: object, expected: object, what: str) -> None:
        if actual != expected:
            raise HistoryError(f"{what}: {actual!r} instead of {expected!r}")

    def immediate(self, domid: int, request: Request, answer: Answer) -> None:
        self.seen["immediate"] += 1
        self.expect(answer, self.perform(self.live, domid, request), "immediate")

    def inside(self, domid: int, tx: Transaction, request: Request, answer: Answer) -> None:
        before = dict(tx.view)
        self.expect(answer, self.perform(tx.view, domid, request), "inside")
        tx.done.append((request, answer))
        kind = request[0]
        if answer[0] == Msg.ERROR or kind in (Msg.READ, Msg.DIRECTORY, Msg.GET_PERMS):
            return
        # Making what is there and removing what is not are no changes; setting anew is one.
        tx.changed |= kind in (Msg.WRITE, Msg.SET_PERMS) or before != tx.view

    def again(self, domid: int, tx: Transaction) -> Tree | None:
        """The tree that the transaction makes of the live one, or None: not with its answers."""
        tree = dict(self.live)
        for request, answer in tx.done:
            if self.perform(tree, domid, request) != answer:
                return None
        return tree

    def end(self, domid: int, tx: Transaction, answer: Answer) -> None:
        after = self.again(domid, tx)
        if not tx.changed:
            self.seen["read only"] += 1
            self.expect(answer, (Msg.TRANSACTION_END, OK), "end of a read-only transaction")
        elif after is None:
            self.seen["conflicts"] += 1
            self.expect(answer, failed(b"EAGAIN"), "a commit whose answers have changed")
        else:
            self.seen["commits"] += 1
            self.expect(
                answer, (Msg.TRANSACTION_END, OK), "a commit whose answers are as they were"
            )
            self.live = after


# ---- who plays ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Player:
    """A connection; at most one request of it is unanswered."""

    cid: int
    domid: int
    open: dict[int, Transaction] = field(default_factory=dict)
    asked: tuple[int, Request | None] | None = None  # transaction, request; None: its end
    verdict: bytes = b""


NO_PERMS: Perms = ()
START: Request = (Msg.TRANSACTION_START, b"", b"", NO_PERMS)


@dataclass(slots=True)
class Play:
    """One run; `random` decides everything."""

    random: random.Random
    arena: Arena
    players: list[Player]
    checker: Checker
    transactions: int = 0

    def request(self, player: Player) -> Request:
        draw = self.random.random
        path = PATHS[int(draw() * len(PATHS))]
        dice = draw()
        if dice < 0.25:
            return Msg.READ, path, b"", NO_PERMS
        if dice < 0.35:
            return Msg.DIRECTORY, path, b"", NO_PERMS
        if dice < 0.40:
            return Msg.GET_PERMS, path, b"", NO_PERMS
        if dice < 0.75:
            return Msg.WRITE, path, b"%d" % int(draw() * 4), NO_PERMS
        if dice < 0.83:
            return Msg.MKDIR, path, b"", NO_PERMS
        if dice < 0.93:
            return Msg.RM, path, b"", NO_PERMS
        owner = player.domid if player.domid else int(draw() * 4)
        others = tuple(("nrwb"[int(draw() * 4)], int(draw() * 4)) for _ in range(int(draw() * 3)))
        return Msg.SET_PERMS, path, b"", (("nrbb"[int(draw() * 4)], owner), *others)

    def step(self) -> None:
        """One request of somebody who has none unanswered, and a moment passes."""
        arena = self.arena
        player = self.random.choice(self.players)
        if player.asked is None:
            self.send(player)
        arena.now += 20_000
        if arena.deadline is not None and arena.deadline <= arena.now:
            arena.deadline = arena.engine.tick(arena.now)
            self.go_on()

    def send(self, player: Player) -> None:
        draw = self.random.random
        dice = draw()
        kind: int = Msg.TRANSACTION_START
        payload, tx_id = b"\0", 0
        if not player.open or (dice < 0.05 and len(player.open) < OPEN_MOST):
            if dice > 0.9:
                request = self.request(player)
                kind, payload, player.asked = request[0], payload_of(request), (0, request)
            else:
                player.asked = (0, START)
        else:
            tx_id = self.random.choice(list(player.open))
            tx = player.open[tx_id]
            tx.left -= 1
            if tx.left <= 0:
                player.verdict = b"F\0" if draw() < 0.05 else b"T\0"
                kind, payload, player.asked = Msg.TRANSACTION_END, player.verdict, (tx_id, None)
            else:
                request = self.request(player)
                kind, payload, player.asked = request[0], payload_of(request), (tx_id, request)
        self.feed(player, struct.pack("=4I", kind, 0, tx_id, len(payload)) + payload)
        self.go_on()

    def go_on(self) -> None:
        """Those who had to wait, one after the other."""
        engine = self.arena.engine
        while (cid := engine.next_runnable()) >= 0:
            self.feed(next(player for player in self.players if player.cid == cid), b"")

    def feed(self, player: Player, data: bytes) -> None:
        arena = self.arena
        if arena.engine.feed(arena.now, player.cid, data) & arena.tick_bit:
            arena.deadline = arena.engine.tick(arena.now)
        reply = arena.engine.take(player.cid)
        if reply:
            self.answered(player, (struct.unpack_from("=I", reply)[0], reply[16:]))

    def answered(self, player: Player, answer: Answer) -> None:
        assert player.asked is not None
        (tx_id, request), player.asked = player.asked, None
        if request is START:
            assert answer[0] == Msg.TRANSACTION_START, answer
            length = 2 + int(self.random.expovariate(0.25))
            player.open[int(answer[1][:-1])] = Transaction(dict(self.checker.live), length)
        elif tx_id == 0:
            assert request is not None
            self.checker.immediate(player.domid, request, answer)
        elif request is not None:
            self.checker.inside(player.domid, player.open[tx_id], request, answer)
        else:
            tx = player.open.pop(tx_id)
            self.transactions += 1
            if player.verdict == b"F\0":
                self.checker.seen["aborts"] += 1
                self.checker.expect(answer, (Msg.TRANSACTION_END, OK), "abort")
            else:
                self.checker.end(player.domid, tx, answer)
            if self.transactions % LOOK_EVERY == 0:
                self.look()

    def look(self) -> None:
        tree = {path: node for path, node in self.arena.tree().items() if path.startswith(TOP)
                and path[2:3] in (b"", b"/")}  # fmt: skip
        live = {path: (value, text_of(perms)) for path, (value, perms) in self.checker.live.items()}
        self.checker.expect(tree, live, "the tree")


def stage(seed: int, checker: Checker | None = None, **settings: Any) -> Play:
    """Two sockets, the privileged domain and three guests before an almost empty tree."""
    arena = Arena(quota=False, **settings)
    dom0 = arena.socket()
    entries = (("b", 0), *(("b", domid) for domid in GUESTS))
    assert dom0.mkdir(TOP) == OK
    assert dom0.setperms(TOP, *text_of(entries).split(b"\0")[:-1]) == OK
    clients = [(dom0, 0), (arena.socket(), 0), (arena.guest(0), 0)]
    clients += [(arena.guest(domid), domid) for domid in GUESTS]
    players = [Player(client.link.cid, domid) for client, domid in clients]  # type: ignore[attr-defined]
    checker = checker or Checker({})
    checker.live = {TOP: (b"", entries)}
    return Play(random.Random(seed), arena, players, checker)


def run(play: Play, transactions: int) -> Counter[str]:
    while play.transactions < transactions:
        play.step()
    play.look()
    play.arena.check()
    return play.checker.seen


SETTINGS: dict[str, dict[str, Any]] = {
    "unprotected": {"conflict": False, "priority_after": 0},
    "protected": {"burst_limit": 2.0, "period_ns": 1 * MS, "priority_after": 3,
                  "priority_hold_ns": 10 * MS},
    "without merging": {"merge": False, "conflict": False},
    "write rate": {"write_rate": True, "writes_per_second": 50_000, "write_burst": 20},
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_what_commits_is_serializable(name: str) -> None:
    """And nothing fails that need not."""
    each = max(1, TRANSACTIONS // (len(SETTINGS) * SEEDS))
    total: Counter[str] = Counter()
    for seed in range(SEEDS):
        play = stage(seed, **SETTINGS[name])
        total += run(play, each)
        counters = play.arena.engine.counters()
        for kind in ("commits_swap", "commits_merge", "commits_replay", "requests_held"):
            total[kind] += counters[kind]
    print(name, dict(total))
    # All ways of committing have been gone, and conflicts have not been rare.
    ways = {"commits_swap", "commits_replay", "conflicts", "read only", "aborts", "immediate"}
    ways |= set() if name == "without merging" else {"commits_merge"}
    ways |= {"requests_held"} if name == "protected" else set()
    assert {way for way in ways if total[way] == 0} == set() or each < 1000


# ---- canaries: a wrong rule is found -----------------------------------------------------------


def removing_nothing_fails(tree: Tree, domid: int, request: Request) -> Answer:
    if request[0] == Msg.RM and request[1] not in tree:
        return failed(b"ENOENT")
    return perform(tree, domid, request)


def owner_is_inherited(tree: Tree, domid: int, request: Request) -> Answer:
    before = dict(tree)
    answer = perform(tree, domid, request)
    for path in set(tree) - set(before):
        value, perms = tree[path]
        tree[path] = (value, ((perms[0][0], 0), *perms[1:]))
    return answer


@dataclass(slots=True)
class LosesUpdates(Checker):
    """Takes the view of a transaction for the tree after it, whatever others have done."""

    def again(self, domid: int, tx: Transaction) -> Tree | None:
        return None if Checker.again(self, domid, tx) is None else tx.view


@dataclass(slots=True)
class NeverConflicts(Checker):
    """Believes that what a transaction saw does not matter."""

    def again(self, domid: int, tx: Transaction) -> Tree | None:
        tree = dict(self.live)
        for request, _answer in tx.done:
            self.perform(tree, domid, request)
        return tree


@dataclass(slots=True)
class AlwaysConflicts(Checker):
    """Believes that any change since the start is a conflict, if only of the parent's children."""

    def again(self, domid: int, tx: Transaction) -> Tree | None:
        touched = {request[1] for request, _answer in tx.done}
        touched |= {path[: path.rindex(b"/")] for path in touched}
        changed = any(
            {p for p in self.live if p.startswith(path)}
            != {p for p in tx.view if p.startswith(path)}
            for path in touched
        )
        return None if changed else Checker.again(self, domid, tx)


@pytest.mark.parametrize(
    "wrong",
    [
        Checker({}, perform=removing_nothing_fails), Checker({}, perform=owner_is_inherited),
        LosesUpdates({}), NeverConflicts({}), AlwaysConflicts({}),
    ],
    ids=["rm", "owner", "lost updates", "never", "always"],
)  # fmt: skip
def test_a_wrong_rule_is_found(wrong: Checker) -> None:
    """The check fails when the rules it follows are not those of the engine."""
    play = stage(1, wrong, **SETTINGS["unprotected"])
    with pytest.raises(HistoryError):
        run(play, 3000)
