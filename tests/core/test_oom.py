"""Memory running out at every single allocation of every operation.

For each case the first allocation fails, in a fresh store, then the second, and so on until
the operation asks for no more. A request that fails has changed nothing, is answered ENOMEM
or stays where it is, and succeeds when memory is back. An allocation that is only convenient
may fail without anybody noticing.
"""

from __future__ import annotations

import os
import struct
import trace as traces
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from world import OK, Client, EngineWorld, Msg, strings

CLOSE = 16  # of the bits that feed() returns
DONE, NOMEM, WAITING, CLOSED = "done", "ENOMEM", "waiting", "closed"
NTH_MAX = 5000
GUESTS = (1, 2)


class MappingWorld(EngineWorld):
    """Remembers which rings are mapped: exactly those of the domains that are connected."""

    def __init__(self) -> None:
        super().__init__()
        self.mapped: set[int] = set()

    def settle(self) -> None:
        while True:
            while (effect := self.engine.next_effect()) is not None:
                self.carry_out(*effect)
            cid = self.engine.next_runnable()
            if cid < 0:
                return
            self.pass_on(cid, b"")

    def carry_out(self, effect: int, kind: str, _cid: int, args: tuple[Any, ...]) -> None:
        if kind == "release":
            self.mapped.discard(args[0])
            self.open_cids.discard(self.rings.pop(args[0], -1))
        elif kind == "control":
            self.engine.complete(self.now, effect, "", OK)
        elif kind != "notice":
            known = args[0] in self.domains
            if kind == "introduce" and known:
                self.mapped.add(args[0])
            self.engine.complete(self.now, effect, "" if known else "ENOENT", b"")

    def check(self) -> None:
        super().check()
        connected = {domid for domid in range(100) if self.engine.domain_conn(domid) >= 0}
        assert connected == self.mapped


@dataclass(slots=True)
class Scene:
    """A world with everybody who takes part."""

    world: MappingWorld
    dom0: Client
    watcher: Client
    guests: dict[int, Client]
    tx: int = 0
    spare: list[Client] = field(default_factory=list)
    log: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def engine(self) -> Any:
        return self.world.engine


Build = Callable[[Scene], None]
Act = Callable[[Scene], str]


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    act: Act
    build: Build = lambda scene: None
    again: Act | None = None  # when trying again is something else than doing it once more


# ---- what is done ----------------------------------------------------------------------


def outcome(client: Client, world: MappingWorld) -> tuple[str, list[tuple[str, bytes]]]:
    """What has become of a request, and what was sent about it."""
    link: Any = client.link
    closed = link.cid not in world.open_cids
    packets = client.drain()
    replies = [packet for packet in packets if packet.type != Msg.WATCH_EVENT]
    events = [("event", packet.payload) for packet in packets if packet.type == Msg.WATCH_EVENT]
    if closed:
        return CLOSED, []
    if not replies:
        return WAITING, events
    (reply,) = replies
    if reply.type == Msg.ERROR and reply.payload == b"ENOMEM\0":
        return NOMEM, events
    assert reply.type != Msg.ERROR, reply.payload
    return DONE, [("reply", reply.payload), *events]


def request(
    kind: int, payload: bytes, who: int | None = None, in_tx: bool = False, wide: bool = False
) -> Act:
    """One request of the privileged socket, or of a guest, and its outcome."""

    def act(scene: Scene) -> str:
        client = scene.dom0 if who is None else scene.guests[who]
        client.send(kind, payload, scene.tx if in_tx else 0, 77)
        result, log = outcome(client, scene.world)
        if result == WAITING:
            scene.engine.fail_allocation(0)
            scene.world.advance(0.02)
            result, more = outcome(client, scene.world)
            log += more
        if result == WAITING and who is not None:
            revive(scene, who)
            result = CLOSED
        if not wide:
            scene.log += log
        return result

    return act


def revive(scene: Scene, domid: int) -> None:
    """A ring that is ignored, as its input could not be kept, serves again when introduced."""
    guest = scene.guests[domid]
    guest.send(Msg.READ, b"data/x\0")
    assert guest.drain() == []
    assert scene.dom0.ask(Msg.INTRODUCE, strings(b"%d" % domid, b"1", b"7")) == OK
    assert guest.read(b"data/x") == b"1"


def event(tell: Callable[[Scene], None]) -> Act:
    """Something that nobody replies to: it must be done at the latest after the next tick."""

    def act(scene: Scene) -> str:
        try:
            tell(scene)
        except MemoryError:
            return NOMEM
        scene.engine.fail_allocation(0)
        scene.world.advance(0.02)
        return DONE

    return act


def everything(scene: Scene) -> tuple[object, ...]:
    """What a failed operation must leave as it was."""
    engine = scene.engine
    return (
        scene.world.tree(),
        scene.world.counts(),
        sorted(engine.watches()),
        sorted((cid, *rest) for cid, _domid, *rest in untimed(engine.transactions())),
        sorted(scene.world.open_cids),
        engine.quotas(),
        [engine.domain_conn(domid) for domid in range(8)],
        [(kind, domid) for _, kind, domid, *_ in engine.connections()],
    )


def untimed(transactions: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Without the time of their start."""
    return [(*found[:3], *found[4:]) for found in transactions]


# ---- the house ---------------------------------------------------------------------------


def furnish() -> Scene:
    world = MappingWorld()
    scene = Scene(world, world.socket(), world.socket(), {})
    dom0 = scene.dom0
    for domid in GUESTS:
        home = b"/local/domain/%d" % domid
        scene.guests[domid] = world.guest(domid)
        assert dom0.mkdir(home) == OK
        assert dom0.setperms(home, b"n%d" % domid, b"r2") == OK
    guest = scene.guests[1]
    assert guest.write(b"data/x", b"1") == OK
    assert guest.write(b"data/deep/er/y", b"22") == OK
    assert dom0.write(b"/mixed/a/b", b"b") == OK
    assert dom0.setperms(b"/mixed/a", b"n1") == OK
    assert dom0.setperms(b"/mixed/a/b", b"w2", b"r1") == OK
    assert dom0.write(b"/list/node", b"v") == OK
    assert dom0.setperms(b"/list/node", b"n0", b"r1", b"b2") == OK
    for path in (b"/", b"/local/domain/1/data/deep/er/y", b"/mixed/a/b", b"@releaseDomain"):
        assert scene.watcher.watch(path, b"token") == OK
    assert scene.watcher.watch(b"@introduceDomain", b"token", b"1") == OK
    assert scene.guests[2].watch(b"/local/domain/1/data", b"mine") == OK
    settle(scene)
    return scene


def settle(scene: Scene) -> None:
    """Fetches what waits for the onlookers."""
    for name, client in [("watcher", scene.watcher), *map(named, scene.guests.items())]:
        link: Any = client.link
        if link.cid in scene.world.open_cids:
            scene.log += [(name, packet.payload) for packet in client.drain()]


def named(item: tuple[int, Client]) -> tuple[str, Client]:
    return f"guest {item[0]}", item[1]


def transaction(scene: Scene) -> None:
    scene.tx = scene.dom0.start()


def busy_transaction(scene: Scene) -> None:
    """Something was seen, made, changed and removed in it."""
    tx = scene.tx = scene.dom0.start()
    assert scene.dom0.read(b"/list/node", tx) == b"v"
    assert scene.dom0.write(b"/tx/new/node", b"1", tx) == OK
    assert scene.dom0.write(b"/tx/new/other", b"2", tx) == OK
    assert scene.dom0.setperms(b"/tx/new/other", b"n1", b"r2", tx=tx) == OK
    assert scene.dom0.rm(b"/local/domain/1/data", tx) == OK


def somebody_writes(scene: Scene) -> None:
    assert scene.dom0.write(b"/elsewhere", b"x") == OK
    settle(scene)


def snapshot(scene: Scene) -> None:
    """The tree is shared with a transaction of another connection."""
    scene.spare.append(scene.world.socket())
    scene.spare[0].start()


def split_point(scene: Scene) -> None:
    for i in range(64):
        assert scene.dom0.write(b"/wide/%02d" % i, b"") == OK
    scene.dom0.drain()
    settle(scene)


def two_levels(scene: Scene) -> None:
    """The leaf that the name goes to is full, and the block above it is shared."""
    for i in range(64 + 56):
        assert scene.dom0.write(b"/wide/%03d" % i, b"") == OK
    settle(scene)
    snapshot(scene)


def many_watches(scene: Scene) -> None:
    """The tables of the watch index are full, and so are the tables of a queue."""
    for i in range(64 - 6):
        assert scene.watcher.watch(b"/many/%d" % i, b"t") == OK
    settle(scene)


def waiting_events(scene: Scene) -> None:
    for i in range(8 - 1):
        scene.dom0.write(b"/waiting/%d" % i, b"")


def longer_way(scene: Scene) -> None:
    """A directory has got a second level: the way to what is below it is longer than any before."""
    for i in range(70):
        assert scene.dom0.write(b"/local/domain/1/data/n%02d" % i, b"") == OK
    scene.dom0.drain()
    settle(scene)


def named_far_down(scene: Scene) -> None:
    assert scene.dom0.setperms(OLD, b"n1", b"r2") == OK


def transaction_on_the_way(scene: Scene) -> None:
    scene.tx = scene.dom0.start()
    assert scene.dom0.write(OLD, b"new", scene.tx) == OK


def transaction_on_what_a_dead_domain_owned(scene: Scene) -> None:
    """The node has gone with it, but not from the transaction's view."""
    scene.tx = scene.dom0.start()
    assert scene.dom0.write(b"/mixed/a/b", b"new", scene.tx) == OK
    scene.world.kill(2)


def permissions_twice(scene: Scene) -> None:
    """The first list is nobody's any more, and has to be made again."""
    tx = scene.tx = scene.dom0.start()
    assert scene.dom0.setperms(b"/list/node", b"n0", b"w2", tx=tx) == OK
    assert scene.dom0.setperms(b"/list/node", b"n0", b"r2", tx=tx) == OK


def removal_in_a_transaction(scene: Scene) -> None:
    """Somebody tries, but may not, to change what it removes: the trees are equal, not one."""
    scene.tx = scene.dom0.start()
    assert scene.dom0.rm(b"/local/domain/1/data", scene.tx) == OK
    assert scene.dom0.ask(Msg.SET_QUOTA, strings(b"1", b"nodes", b"1")) == OK
    assert scene.guests[1].write(b"data/deep/er/z", b"") == "ENOSPC"


def anew(build: Build) -> Act:
    """A failed commit is over as well: the transaction is made, and ended, once more."""

    def act(scene: Scene) -> str:
        build(scene)
        return request(Msg.TRANSACTION_END, b"T\0", in_tx=True)(scene)

    return act


def together(*builds: Build) -> Build:
    def build(scene: Scene) -> None:
        for one in builds:
            one(scene)

    return build


# ---- the operations ------------------------------------------------------------------------

DEEP = b"/deep" + b"/d" * 40
OLD = b"/local/domain/1/data/deep/er/y"
VALUES = {"shorter": b"", "longer": b"v" * 300}
TREE_REQUESTS: dict[str, tuple[int, bytes]] = {
    "read": (Msg.READ, b"/list/node\0"),
    "directory": (Msg.DIRECTORY, b"/local/domain/1/data\0"),
    "directory part": (Msg.DIRECTORY_PART, b"/local/domain/1/data\x000\0"),
    "get perms": (Msg.GET_PERMS, b"/list/node\0"),
    "write new": (Msg.WRITE, b"/local/domain/1/data/new\0value"),
    "write below a leaf": (Msg.WRITE, b"/list/node/first/child\0value"),
    "write deep": (Msg.WRITE, DEEP + b"\0value"),
    "write shorter": (Msg.WRITE, b"/local/domain/1/data/x\0"),
    "write longer": (Msg.WRITE, b"/local/domain/1/data/x\0" + b"v" * 300),
    "mkdir": (Msg.MKDIR, b"/local/domain/1/data/dir\0"),
    "mkdir again": (Msg.MKDIR, b"/local/domain/1/data\0"),
    "rm leaf": (Msg.RM, b"/local/domain/1/data/x\0"),
    "rm watched below": (Msg.RM, b"/local/domain/1/data\0"),
    "rm of several owners": (Msg.RM, b"/mixed\0"),
    "rm missing": (Msg.RM, b"/mixed/nothing\0"),
    "set perms": (Msg.SET_PERMS, strings(b"/local/domain/1/data", b"w2", b"r1", b"b0")),
    "set perms of an unknown domain": (Msg.SET_PERMS, strings(b"/list", b"n0", b"r99", b"r98")),
    "set perms of a special node": (Msg.SET_PERMS, strings(b"@releaseDomain", b"n0", b"r1")),
}
OTHER_REQUESTS: dict[str, tuple[int, bytes]] = {
    "watch": (Msg.WATCH, strings(b"/local", b"new token")),
    "watch a watched path": (Msg.WATCH, strings(b"/mixed/a/b", b"new token")),
    "watch with depth": (Msg.WATCH, strings(b"/local", b"new token", b"2")),
    "transaction start": (Msg.TRANSACTION_START, b"\0"),
    "introduce": (Msg.INTRODUCE, strings(b"3", b"1", b"7")),
    "introduce again": (Msg.INTRODUCE, strings(b"1", b"1", b"7")),
    "release": (Msg.RELEASE, strings(b"1")),
    "resume": (Msg.RESUME, strings(b"1")),
    "is introduced": (Msg.IS_DOMAIN_INTRODUCED, strings(b"1")),
    "get domain path": (Msg.GET_DOMAIN_PATH, strings(b"5")),
    "set target": (Msg.SET_TARGET, strings(b"1", b"2")),
    "get feature": (Msg.GET_FEATURE, strings(b"3")),
    "set feature": (Msg.SET_FEATURE, strings(b"3", b"1")),
    "get quota names": (Msg.GET_QUOTA, b""),
    "get quota": (Msg.GET_QUOTA, strings(b"3", b"nodes")),
    "set quota": (Msg.SET_QUOTA, strings(b"nodes", b"7")),
    "set quota of a domain": (Msg.SET_QUOTA, strings(b"3", b"nodes", b"7")),
    "control": (Msg.CONTROL, strings(b"print", b"hello")),
}
GUEST_REQUESTS: dict[str, tuple[int, bytes]] = {
    "write": (Msg.WRITE, b"data/new/er\0value"),
    "write below another's": (Msg.WRITE, b"data/deep/er/z\0value"),
    "mkdir": (Msg.MKDIR, b"data/dir\0"),
    "rm": (Msg.RM, b"data\0"),
    "set perms": (Msg.SET_PERMS, strings(b"data", b"n1", b"r50")),
    "watch": (Msg.WATCH, strings(b"data", b"token")),
    "read": (Msg.READ, b"data/x\0"),
    "directory": (Msg.DIRECTORY, b"data\0"),
    "transaction start": (Msg.TRANSACTION_START, b"\0"),
    "reset watches": (Msg.RESET_WATCHES, b"\0"),
}


def prepared(scene: Scene) -> None:
    """The watch and the transaction that are to go."""
    assert scene.dom0.watch(b"/going", b"token") == OK
    scene.tx = scene.dom0.start()
    assert scene.dom0.write(b"/going/in/tx", b"", scene.tx) == OK
    scene.world.domains.add(3)


def third_domain(scene: Scene) -> None:
    scene.world.domains.add(3)


def soft_limits(scene: Scene) -> None:
    for name in ("soft-nodes", "soft-memory", "soft-transactions", "soft-watches"):
        assert scene.dom0.ask(Msg.SET_QUOTA, strings(b"1", name.encode(), b"1")) == OK


def open_one(scene: Scene) -> None:
    scene.spare.append(scene.world.socket())


def close_one(scene: Scene) -> None:
    if scene.spare:
        scene.world.close(scene.spare.pop())


def cases() -> list[Case]:
    found = []
    for name, (kind, payload) in TREE_REQUESTS.items():
        plain, inside = request(kind, payload), request(kind, payload, in_tx=True)
        found += [
            Case(name, plain),
            Case(f"{name}, shared tree", plain, snapshot),
            Case(f"{name}, in a transaction", inside, transaction),
            Case(f"{name}, later in a transaction", inside, late_transaction),
        ]
    for name, (kind, payload) in OTHER_REQUESTS.items():
        found.append(Case(name, request(kind, payload), third_domain))
    for name, (kind, payload) in GUEST_REQUESTS.items():
        found.append(Case(f"guest: {name}", request(kind, payload, who=1)))
        found.append(Case(f"guest: {name}, soft", request(kind, payload, who=1), soft_limits))
    wide = request(Msg.WRITE, b"/wide/x\0value")
    middle = request(Msg.WRITE, b"/wide/060x\0value")
    end = request(Msg.TRANSACTION_END, b"T\0", in_tx=True)
    found += [
        Case("unwatch", request(Msg.UNWATCH, strings(b"/going", b"token")), prepared),
        Case("reset watches", request(Msg.RESET_WATCHES, b"\0"), prepared),
        Case("wide, split", wide, split_point),
        Case("wide, split, shared", wide, together(split_point, snapshot)),
        Case("wide, split in the middle", request(Msg.WRITE, b"/wide/3x\0"), split_point),
        Case("wide, two levels", wide, two_levels),
        Case("wide, two levels, in the middle", middle, two_levels),
        Case("wide, listed", request(Msg.DIRECTORY, b"/wide\0"), two_levels),
        Case("wide, removed", request(Msg.RM, b"/wide\0"), two_levels),
        Case("wide, one removed", request(Msg.RM, b"/wide/060\0"), two_levels),
        Case("watch, full tables", request(Msg.WATCH, strings(b"/w", b"t")), many_watches),
        Case("write, events wait", request(Msg.WRITE, b"/waiting/x\0"), waiting_events),
        Case("abort", request(Msg.TRANSACTION_END, b"F\0", in_tx=True), busy_transaction),
        Case("commit, nothing done", end, transaction),
        Case("commit, swap", end, busy_transaction, anew(busy_transaction)),
        Case("commit, merge", end, together(busy_transaction, somebody_writes),
             anew(busy_transaction)),
        Case("commit, merge, twice the permissions", end,
             together(permissions_twice, somebody_writes), anew(permissions_twice)),
        Case("commit, merge, removal", end, removal_in_a_transaction,
             anew(removal_in_a_transaction)),
        Case("commit, merge, longer way", end, together(transaction_on_the_way, longer_way),
             anew(transaction_on_the_way)),
        Case("longer way, read", request(Msg.READ, OLD + b"\0"), longer_way),
        Case("longer way, written", request(Msg.WRITE, OLD + b"\0new"), longer_way),
        Case("longer way, removed", request(Msg.RM, OLD + b"\0"), longer_way),
        Case("longer way, permissions", request(Msg.SET_PERMS, strings(OLD, b"n1", b"b2")),
             longer_way),
        Case("longer way to a dead domain", event(lambda scene: scene.world.kill(2)),
             together(named_far_down, longer_way)),
        Case("dead owner, written in a transaction",
             request(Msg.WRITE, b"/mixed/a/b\0", in_tx=True),
             together(transaction, lambda scene: scene.world.kill(2))),
        Case("dead owner, committed", end, transaction_on_what_a_dead_domain_owned,
             anew(transaction_on_what_a_dead_domain_owned)),
        Case("domain dies", event(lambda scene: scene.world.kill(1))),
        Case("domain dies, shared tree", event(lambda scene: scene.world.kill(1)), snapshot),
        Case("domain dies in a transaction", event(lambda scene: scene.world.kill(1)),
             busy_transaction),
        Case("domain shuts down", event(shut_down_until_told)),
        Case("open", event(open_one)),
        Case("close", event(close_one), together(open_one)),
        Case("close with transaction", event(close_one), snapshot),
        Case("tick", event(lambda scene: scene.world.advance(30)), waiting_events),
    ]  # fmt: skip
    return found


def late_transaction(scene: Scene) -> None:
    """Others have gone on since it started; it has made changes itself."""
    transaction(scene)
    assert scene.dom0.write(b"/tx/earlier", b"1", scene.tx) == OK
    somebody_writes(scene)


def shut_down_until_told(scene: Scene) -> None:
    """The hypervisor's news are looked at again with every later news."""
    scene.world.shutdown(1)
    scene.engine.fail_allocation(0)
    scene.world.shutdown(1)


CASES = cases()


def tear_down(scene: Scene) -> int:
    """Everybody goes. Blocks of memory left."""
    world, engine = scene.world, scene.engine
    for domid in (1, 2, 3, 99, 98, 50):
        world.kill(domid)
        assert engine.account(domid) == (0, 0)
    world.settle()
    last = world.socket()
    for path in (b"/mixed", b"/list", b"/tx", b"/wide", b"/deep", b"/waiting", b"/elsewhere"):
        assert last.rm(path) == OK
    for cid in sorted(world.open_cids):
        engine.close(world.now, cid)
    engine.collect()
    world.check()
    # What dom0 is still charged for is the blocks of nobody: no connection is left.
    assert engine.connections() == []
    assert engine.account(0) == (0, 0)
    blocks: int = engine.memory()["total_blocks"]
    return blocks


@dataclass(frozen=True, slots=True)
class Reference:
    picture: tuple[object, ...]
    hash: int
    log: list[tuple[str, bytes]]
    blocks: int


def undisturbed(case: Case) -> Reference:
    """How the operation goes when there is memory."""
    scene = furnish()
    case.build(scene)
    settle(scene)
    scene.log.clear()
    assert case.act(scene) == DONE
    settle(scene)
    return Reference(everything(scene), scene.engine.state_hash(), scene.log, tear_down(scene))


def events_of(log: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    return sorted(item for item in log if item[0] != "reply")


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_each_allocation_may_fail(case: Case) -> None:
    """One allocation fails: all or nothing, and nothing is lost, leaked or told too early."""
    reference = undisturbed(case)
    for nth in range(1, NTH_MAX):
        scene = furnish()
        engine = scene.engine
        case.build(scene)
        settle(scene)
        scene.log.clear()
        before, hash_before = everything(scene), engine.state_hash()
        failures = engine.memory()["failures"]
        engine.fail_allocation(nth)
        result = case.act(scene)
        failed = engine.memory()["failures"] - failures
        engine.fail_allocation(0)
        scene.world.check()
        if result == NOMEM:
            assert failed
            settle(scene)
            assert events_of(scene.log) == [], f"allocation {nth}"
            if case.again is None:
                assert everything(scene) == before, f"allocation {nth}"
                assert engine.state_hash() == hash_before, f"allocation {nth}"
            else:
                assert everything(scene)[0] == before[0], f"allocation {nth}"
            assert (case.again or case.act)(scene) == DONE, f"allocation {nth}"
            scene.world.check()
        elif result == CLOSED:  # what had been read of its input could not be kept
            assert failed
            assert everything(scene)[0] == before[0], f"allocation {nth}"
            assert events_of(scene.log) == [], f"allocation {nth}"
            assert tear_down(scene) == reference.blocks, f"allocation {nth}"
            continue
        else:
            assert result == DONE, f"allocation {nth}"
        settle(scene)
        assert events_of(scene.log) == events_of(reference.log), f"allocation {nth}"
        assert everything(scene) == reference.picture, f"allocation {nth}"
        assert engine.state_hash() == reference.hash or case.again, f"allocation {nth}"
        assert tear_down(scene) == reference.blocks, f"allocation {nth}"
        if not failed:
            return
    raise AssertionError(f"more than {NTH_MAX} allocations")


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_all_allocations_may_fail(case: Case) -> None:
    """Memory is out for good from some allocation on; when it is back all goes on."""
    for nth in range(1, NTH_MAX):
        scene = furnish()
        engine = scene.engine
        case.build(scene)
        settle(scene)
        before = everything(scene)[0]
        failures = engine.memory()["failures"]
        engine.fail_allocation(nth, sticky=True)
        result = case.act(scene)
        failed = engine.memory()["failures"] - failures
        engine.fail_allocation(0)
        scene.world.advance(0.02)
        scene.world.check()
        if result in (NOMEM, CLOSED):
            assert everything(scene)[0] == before, f"allocation {nth}"
        if result == NOMEM:
            assert (case.again or case.act)(scene) == DONE, f"allocation {nth}"
        scene.world.check()
        tear_down(scene)
        if not failed:
            return
    raise AssertionError(f"more than {NTH_MAX} allocations")


def test_an_answer_without_memory_ends_the_connection() -> None:
    """Nobody waits for ever for the answer to a CONTROL: it comes, or the end does.

    The room that there was for it has gone to events that came meanwhile.
    """
    fates = set()
    for events in range(40):
        world = EngineWorld()
        engine, writer, client = world.engine, world.socket(), world.socket()
        link: Any = client.link
        assert client.watch(b"/e", b"token") == OK
        engine.feed(0, link.cid, struct.pack("=4I", Msg.CONTROL, 0, 0, 5) + b"help\0")
        number, *_ = engine.next_effect()
        for i in range(events):
            assert writer.write(b"/e/%03d" % i, b"") == OK
        engine.fail_allocation(1, sticky=True)
        engine.complete(0, number, "", b"")
        engine.fail_allocation(0)
        assert engine.next_runnable() == link.cid
        closed = bool(engine.feed(0, link.cid, b"") & CLOSE)
        assert len(client.drain()) == events + (not closed)
        fates.add(closed)
        engine.close(0, link.cid)
        engine.check()
    assert fates == {False, True}


# ---- random work -----------------------------------------------------------------------------

STEPS = int(os.environ.get("XSD_STEPS", "2000"))
FIRST_SEED = int(os.environ.get("XSD_SEED", "1"))


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + 6))
def test_random_work_with_random_failures(seed: int) -> None:
    """Every invariant holds all along; at the end everything is given back."""
    recorder = traces.Recorder(traces.engine())
    wander = traces.Wander(recorder, Random(seed))
    engine = recorder.engine
    for step in range(STEPS):
        wander.step()
        if step % 20 == 0:
            engine.fail_allocation(0)
            engine.check()
    engine.fail_allocation(0)
    engine.tick(wander.now + 1)
    for cid, kind, *_ in engine.connections():
        if kind == "socket":
            engine.close(wander.now, cid)
    for domid in traces.GUESTS:
        engine.domain_died(wander.now, domid)
        assert engine.account(domid) == (0, 0)
    engine.collect()
    engine.check()
    assert engine.connections() == []
    assert engine.watches() == []
    assert engine.transactions() == []
    assert engine.account(0) == (0, 0)
