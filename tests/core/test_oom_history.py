"""Memory running out in whatever protects transactions: replay, blame, history, priority.

For each case the first allocation fails, in a fresh store, then the second, and so on until the
operation asks for no more; then from each on all fail. A commit is made or not, as a whole; nobody
is charged who is innocent; nobody waits for ever; nothing leaks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from arena import MS, Arena, S
from world import OK, Client, Msg, strings

NTH_MAX = 3000
SHARED = b"/shared"


@dataclass(slots=True)
class Scene:
    """A toolstack, a guest in its way, and another one that is not."""

    arena: Arena
    dom0: Client
    guest: Client
    innocent: Client
    tx: int = 0
    answers: list[bytes] = field(default_factory=list)


Step = Callable[[Scene], None]


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    build: Step
    act: Step
    result: bytes  # of the reply, when there is memory
    who: str = "dom0"
    charged: bool = False


def furnish() -> Scene:
    arena = Arena(period_ns=1000 * MS)
    scene = Scene(arena, arena.socket(), arena.owner(1), arena.owner(2))
    assert scene.dom0.write(SHARED, b"0") == OK
    assert scene.dom0.setperms(SHARED, b"n0", b"b1", b"b2") == OK
    assert scene.dom0.watch(b"/", b"t") == OK
    return scene


def started(who: str) -> Step:
    def build(scene: Scene) -> None:
        client: Client = getattr(scene, who)
        scene.tx = client.start()
        assert client.read(SHARED, scene.tx) == b"0"
        assert client.write(SHARED + b"/mine", b"v", scene.tx) == OK
        assert client.rm(SHARED + b"/none", scene.tx) == OK

    return build


def removing(scene: Scene) -> None:
    """Below what it removes something has changed."""
    assert scene.dom0.write(SHARED + b"/dir/leaf", b"0") == OK
    started("dom0")(scene)
    assert scene.dom0.rm(SHARED + b"/dir", scene.tx) == OK
    assert scene.guest.write(SHARED + b"/dir/leaf", b"1") == OK


def disturbed_in_vain(scene: Scene) -> None:
    assert scene.guest.write(SHARED, b"0") == OK
    scene.dom0.events()


def disturbed(scene: Scene) -> None:
    assert scene.innocent.write(b"x", b"1") == OK
    assert scene.guest.write(SHARED, b"1") == OK
    assert scene.innocent.write(b"x", b"2") == OK
    scene.dom0.events()


def disturbed_often(scene: Scene) -> None:
    """More often than is looked at one by one, so that halving begins."""
    assert scene.guest.write(SHARED, b"1") == OK
    for i in range(300):
        assert scene.innocent.write(b"x", b"%d" % i) == OK
        assert scene.guest.write(b"x", b"%d" % i) == OK
    scene.dom0.events()


def watching(scene: Scene) -> None:
    assert scene.dom0.start() == 1


def favoured(scene: Scene) -> None:
    """The toolstack's next transaction has priority."""
    scene.arena.engine.configure(conflict=False)
    for i in range(8):
        tx = scene.dom0.start()
        scene.dom0.read(SHARED, tx)
        assert scene.dom0.write(b"/mark", b"", tx) == OK
        assert scene.guest.write(SHARED, b"%d" % (i + 1)) == OK
        assert scene.dom0.end(tx) == "EAGAIN"
    scene.dom0.events()


def favoured_and_started(scene: Scene) -> None:
    favoured(scene)
    scene.tx = scene.dom0.start()
    scene.dom0.read(SHARED, scene.tx)
    assert scene.dom0.write(b"/mark", b"2", scene.tx) == OK


def guest_commit(scene: Scene) -> None:
    scene.tx = scene.guest.start()
    assert scene.guest.write(SHARED, b"held", scene.tx) == OK


def together(*steps: Step) -> Step:
    def build(scene: Scene) -> None:
        for step in steps:
            step(scene)

    return build


def send(who: str, kind: int, payload: bytes, in_tx: bool = False) -> Step:
    def act(scene: Scene) -> None:
        client: Client = getattr(scene, who)
        client.send(kind, payload, scene.tx if in_tx else 0)

    return act


def held_until_the_end(kind: int, payload: bytes, in_tx: bool = False) -> Step:
    """A guest's request has to wait until the toolstack's transaction, number 9, has ended."""

    def act(scene: Scene) -> None:
        scene.guest.send(kind, payload, scene.tx if in_tx else 0)
        scene.dom0.send(Msg.TRANSACTION_END, b"T\0", 9)
        scene.arena.settle()

    return act


END = (Msg.TRANSACTION_END, b"T\0", True)
CASES = [
    Case("replay commits", together(started("dom0"), disturbed_in_vain), send("dom0", *END), OK),
    Case("replay commits, of a guest", together(started("innocent"), disturbed_in_vain),
         send("innocent", *END), OK, "innocent"),
    Case("replay fails", together(started("dom0"), disturbed), send("dom0", *END), b"EAGAIN\0",
         charged=True),
    Case("replay fails, with details in the log",
         together(started("dom0"), lambda s: s.arena.engine.configure(log_debug=True), disturbed),
         send("dom0", *END), b"EAGAIN\0", charged=True),
    Case("replay fails, of a guest", together(started("innocent"), disturbed),
         send("innocent", *END), b"EAGAIN\0", "innocent", charged=True),
    Case("replay fails, long history", together(started("dom0"), disturbed_often),
         send("dom0", *END), b"EAGAIN\0", charged=True),
    Case("replay fails, after a removal", together(removing, disturbed), send("dom0", *END),
         b"EAGAIN\0", charged=True),
    Case("recorded write", watching, send("guest", Msg.WRITE, SHARED + b"/new\0v"), OK, "guest"),
    Case("recorded removal", together(lambda s: disturbed(s), watching),
         send("guest", Msg.RM, b"none\0"), OK, "guest"),
    Case("recorded commit", together(watching, started("guest")), send("guest", *END), OK, "guest"),
    Case("start with priority", favoured, send("dom0", Msg.TRANSACTION_START, b"\0"), b"9\0"),
    Case("read with priority", favoured_and_started, send("dom0", Msg.READ, SHARED + b"\0", True),
         b"8"),
    Case("commit with priority", favoured_and_started, send("dom0", *END), OK),
    Case("write held back", favoured_and_started,
         held_until_the_end(Msg.WRITE, SHARED + b"\0held"), OK, "guest"),
    Case("commit held back", together(favoured_and_started, guest_commit),
         held_until_the_end(*END), OK, "guest"),
    Case("eighth failure", together(lambda s: s.arena.engine.configure(priority_after=1),
                                    started("dom0"), disturbed),
         send("dom0", *END), b"EAGAIN\0", charged=True),
]  # fmt: skip


def outcome(scene: Scene, who: str) -> bytes | None:
    """The reply, after waiting if need be; None: the connection is closed, or its ring ignored."""
    client: Client = getattr(scene, who)
    scene.arena.engine.fail_allocation(0)
    for _ in range(3):
        replies = [packet for packet in client.drain() if packet.type != Msg.WATCH_EVENT]
        if replies:
            (reply,) = replies
            return reply.payload
        scene.arena.deadline = scene.arena.now
        scene.arena.sleep(300 * MS)  # longer than anything is held back
    scene.dom0.drain()
    if client.link.cid in scene.arena.open_cids:  # type: ignore[attr-defined]
        domid = {"guest": b"1", "innocent": b"2"}[who]
        assert scene.dom0.ask(Msg.INTRODUCE, strings(domid, b"1", b"7")) == OK
        assert client.ask(Msg.GET_DOMAIN_PATH, b"9\0") == b"/local/domain/9\0"
    return None


def tree_without_time(scene: Scene) -> dict[bytes, tuple[bytes, bytes]]:
    return scene.arena.tree()


def tear_down(scene: Scene) -> int:
    """Everybody goes. Blocks of memory left."""
    arena = scene.arena
    for domid in (1, 2):
        arena.kill(domid)
    arena.close(scene.dom0)
    last = arena.socket()
    for path in (SHARED, b"/mark", b"/local"):
        last.rm(path)
    for cid in sorted(arena.open_cids):
        arena.engine.close(arena.now, cid)
    arena.open_cids.clear()
    arena.deadline = arena.now
    arena.sleep(500 * S)
    arena.engine.collect()
    arena.check()
    assert arena.records == 0
    assert arena.engine.account(0) == (0, 0)
    blocks: int = arena.engine.memory()["total_blocks"]
    return blocks


def undisturbed(case: Case) -> tuple[dict[bytes, tuple[bytes, bytes]], set[int]]:
    scene = furnish()
    case.build(scene)
    case.act(scene)
    assert outcome(scene, case.who) == case.result
    tree = tree_without_time(scene)
    if case.charged:
        assert set(scene.arena.caused()) == {1}
    blocks = set()
    # What is made once and kept: the list of explanations and scratch space.
    blocks.add(tear_down(scene))
    return tree, blocks


@pytest.mark.parametrize("sticky", [False, True], ids=["one", "all from there"])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_each_allocation_may_fail(case: Case, sticky: bool) -> None:
    """All or nothing, nobody innocent pays, nobody waits for ever, and nothing leaks."""
    after, kept = undisturbed(case)
    for nth in range(1, NTH_MAX):
        scene = furnish()
        case.build(scene)
        before = tree_without_time(scene)
        caused = scene.arena.caused()
        failures = scene.arena.engine.memory()["failures"]
        scene.arena.engine.fail_allocation(nth, sticky=sticky)
        case.act(scene)
        failed = scene.arena.engine.memory()["failures"] - failures
        result = outcome(scene, case.who)
        scene.arena.check()
        tree = tree_without_time(scene)
        assert result in (case.result, b"ENOMEM\0", None), f"allocation {nth}"
        if result == case.result:
            assert tree == after or failed, f"allocation {nth}"
        elif "held" not in case.name:
            assert failed, f"allocation {nth}"
            assert tree == before, f"allocation {nth}"
        blamed = {domid for domid, count in scene.arena.caused().items()
                  if count != caused.get(domid, 0)}  # fmt: skip
        assert blamed <= {1}, f"allocation {nth}"
        if not failed:
            assert (result, tree) == (case.result, after)
            assert blamed == ({1} if case.charged else set())
        assert tear_down(scene) <= max(kept), f"allocation {nth}"
        if not failed:
            return
    raise AssertionError(f"more than {NTH_MAX} allocations")


def test_what_was_read_counts_for_the_commit_whatever_memory_failed() -> None:
    """A read in a transaction is remembered, or it fails: a commit never forgets what was seen."""
    arena = Arena(priority_after=0)
    dom0, other = arena.socket(), arena.socket()
    names = [b"/r%02d" % i for i in range(24)]
    for name in names:
        assert dom0.write(name, b"0") == OK
    failed = 0
    for last, name in enumerate(names):
        for nth in range(1, 5):
            tx = dom0.start()
            for before in names[:last]:
                assert dom0.read(before, tx) == b"0"
            arena.engine.fail_allocation(nth)
            answer = dom0.read(name, tx)
            arena.engine.fail_allocation(0)
            failed += answer == "ENOMEM"
            if answer == b"0":
                assert dom0.write(b"/mark", b"", tx) == OK
                assert other.write(name, b"1") == OK
                assert dom0.end(tx) == "EAGAIN"
                assert other.write(name, b"0") == OK
            else:
                assert dom0.end(tx, commit=False) == OK
    assert failed > 2  # the sets grew
