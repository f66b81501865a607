"""The parts of a round: a load of the C client, or one of our own, each beside a crowd.

The C client's guests have the same domids as the crowd's, and it destroys whatever domain it finds
when it begins: so a round plays what has no guests of the C client first, beside guests of the
crowd, and then has these die and plays the rest.
"""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from peer import Peer, message

from bench.build import build
from haul.crowd import Crowd
from haul.house import HaulError, House
from xsd.client.wire import Op

LOAD_SECONDS = 120
STEPS_AT_ONCE = 25
STEP_PAUSE = 0.005
HOSTILE = ("flood", "deaf", "indices", "watches")
FLOOD_CLIENTS, FLOOD_WATCHES = 12, 60


@dataclass(frozen=True, slots=True)
class Size:
    """How large things are at most; the warm rounds have everything at its largest."""

    machines: int
    guests: int
    hostile_ops: int
    watches: int
    leaves: int
    wide: int
    writes: int
    churn: int
    bursts: int
    """Of each agent, ten a second."""
    steps: int
    """Of a crowd beside one act."""


NORMAL = Size(machines=200, guests=40, hostile_ops=2000, watches=5000, leaves=50_000, wide=8000,
              writes=2000, churn=400, bursts=20, steps=1500)  # fmt: skip
TINY = Size(machines=6, guests=6, hostile_ops=60, watches=200, leaves=2000, wide=300,
            writes=60, churn=20, bursts=3, steps=250)  # fmt: skip
SIZES = {"normal": NORMAL, "tiny": TINY}


@dataclass(frozen=True, slots=True)
class Act:
    """A load: the C client's arguments, or a function; ``rings``: its guests need all domids."""

    name: str
    loads: Sequence[Sequence[str]] = ()
    own: Callable[[], None] | None = None
    rings: bool = False


def acts(house: House, chance: random.Random, most: Size, *, full: bool) -> list[Act]:
    """The acts of a round, those with guests of the C client last; full: all, at full size."""

    def size(limit: int) -> int:
        return limit if full else chance.randrange(limit // 2, limit + 1)

    machines, guests, leaves = size(most.machines), size(most.guests), size(most.leaves)
    wide = size(most.wide)
    agents = ["--rings", "--connections", str(guests), "--every", "100", "--burst", "4"]
    hostile = ["--rings", "--connections", "10", "--every", "50", "--burst", "2", "--probe"]
    free = [
        Act("storm", [["storm", "--depth", str(machines), "--ops", str(machines), "--window"]]),
        Act("tree", own=partial(_tree, house, leaves)),
        Act(
            "wide",
            [
                ["flat", "--ops", str(wide), "--depth", "16"],
                ["list", "--ops", "3"],
                ["mkdir-rm", "--depth", "16", "--ops", str(wide // 8)],
                ["rm", "--path", "/bench/w", "--ops", "1"],
            ],
        ),
        Act("flood", own=partial(_flood, house, chance.randrange(1 << 30), size(most.writes))),
        Act(
            "watches",
            [
                ["create", "--ops", "2000", "--nodes", "2000", "--depth", "16"],
                ["write", "--nodes", "2000", "--ops", str(most.writes), "--watches",
                 str(size(most.watches))],
            ],
        ),
        Act("churn", [["churn", "--ops", str(size(most.churn)), "--watches", "100"]]),
        Act(
            "contention",
            [
                ["create", "--ops", "2000", "--nodes", "2000", "--depth", "16"],
                ["commit", "--connections", "16", "--keys", "same", "--nodes", "2000",
                 "--ops", str(size(most.writes) // 4)],
                ["siblings", "--connections", "16", "--ops", "64"],
            ],
        ),
    ]  # fmt: skip
    rings = [
        Act("agents", [["write", *agents, "--ops", str(guests * 4 * most.bursts)]], rings=True),
        Act(
            "transactions",
            [["commit", *agents, "--idle", "10", "--keys", "own",
              "--ops", str(guests * 2 * most.bursts)]],
            rings=True,
        ),
    ]  # fmt: skip
    mean = [
        Act(f"hostile-{kind}", [["write", *hostile, "--quiet", "10", "--hostile", kind,
                                 "--ops", str(size(most.hostile_ops))]], rings=True)
        for kind in HOSTILE
    ]  # fmt: skip
    if not full:
        free = chance.sample(free, 4)
        rings = chance.sample(rings, 1)
        mean = chance.sample(mean, 1)
    rings += mean
    chance.shuffle(free)
    chance.shuffle(rings)
    return free + rings


def play(house: House, act: Act, crowd: Crowd, steps: int, look: Callable[[], None]) -> None:
    """The act from its beginning to its end, and so many steps of the crowd beside it.

    ``look`` is called when the crowd has done its steps and the load may still be there.
    """
    if act.own is not None:
        act.own()
        _steps(crowd, steps)
        look()
        return
    for number, words in enumerate(act.loads):
        with _started(house, words) as load:
            try:
                if number == 0:
                    _steps(crowd, steps)
                    look()
                _judged(words, load)
            except BaseException:
                load.kill()
                raise


def _started(house: House, words: Sequence[str]) -> subprocess.Popen[str]:
    command = [
        str(build().load), *words, "--socket", house.socket, "--pid", str(house.running.pid),
        "--limit", str(LOAD_SECONDS),
    ]  # fmt: skip
    if "--rings" in words:  # or it would take the domains of the crowd for its own
        command += ["--xen", str(house.xen.directory)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _judged(words: Sequence[str], load: subprocess.Popen[str]) -> None:
    """Waits for a load; raises HaulError when an answer was wrong, or did not come."""
    try:
        said, _ = load.communicate(timeout=2 * LOAD_SECONDS)
    except subprocess.TimeoutExpired:
        raise HaulError(
            f"load {' '.join(words)}: still running after {2 * LOAD_SECONDS} s"
        ) from None
    try:
        sample = json.loads(said)
    except ValueError:
        raise HaulError(f"load {' '.join(words)}: {said[-400:]}") from None
    if load.returncode != 0 or "error" in sample or sample["truncated"]:
        raise HaulError(f"load {' '.join(words)}: {sample.get('error', 'not done in time')}")


def _steps(crowd: Crowd, steps: int) -> None:
    """Steps of the crowd, at a pace that leaves the machine to others too."""
    for number in range(steps):
        crowd.step()
        if number % STEPS_AT_ONCE == 0:
            time.sleep(STEP_PAUSE)
    crowd.wake()


def _tree(house: House, leaves: int) -> None:
    """A big tree is built, kept as it was by a transaction, removed, and let go of."""
    create = ["create", "--ops", str(leaves), "--nodes", str(leaves), "--depth", "32"]
    for words in (create, ["read", "--ops", "500", "--nodes", str(leaves)]):
        with _started(house, words) as load:
            _judged(words, load)
    with Peer(house.socket) as client:
        tx = client.start()
        before = client.ask(Op.DIRECTORY, b"/bench/t\0", tx)
        if client.ask(Op.RM, b"/bench/t\0") != b"OK\0":
            raise HaulError("the big tree cannot be removed")
        if client.ask(Op.DIRECTORY, b"/bench/t\0", tx) != before:
            raise HaulError("a transaction does not see the tree as it was")
        if client.ask(Op.WRITE, b"/bench/t/0/0/1\0other", tx) != b"OK\0":
            raise HaulError("a transaction cannot write into the tree as it was")
    # The client has hung up, and left its transaction open.


def _flood(house: House, seed: int, writes: int) -> None:
    """Everybody watches all that is written; half of them take their events."""
    chance = random.Random(seed)
    watchers = [Peer(house.socket) for _ in range(FLOOD_CLIENTS)]
    try:
        for number, watcher in enumerate(watchers):
            watcher.send(
                b"".join(
                    message(Op.WATCH, b"/flood\0token-%d-%d\0" % (number, one))
                    for one in range(FLOOD_WATCHES)
                )
            )
        with Peer(house.socket) as writer:
            for number in range(writes):
                path = b"/flood/%d/%d" % (chance.randrange(100), number % 50)
                answer = writer.ask(Op.WRITE, path + b"\0" + b"x" * chance.randrange(200))
                if answer != b"OK\0":
                    raise HaulError(f"a write among watches: {answer!r}")
                if number % 20 == 0:
                    _fetch(watchers[::2])
            _fetch(watchers[::2])
            writer.ask(Op.RM, b"/flood\0")
    finally:
        for watcher in watchers:
            watcher.close()


def _fetch(watchers: Sequence[Peer]) -> None:
    for watcher in watchers:
        watcher.sock.setblocking(False)
        try:
            while len(watcher.sock.recv(1 << 16)) == 1 << 16:
                pass
        except BlockingIOError:
            pass
