"""The attack on transactions, live: a toolstack on a real socket, a guest that never stops.

The guest's ring is in memory (there is no Xen here): each turn of the loop it sends as many
writes as its connection takes, to a node that the toolstack's transaction reads.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvloop

from xsd.client.errors import XenstoreError
from xsd.client.perms import Permission
from xsd.client.sync import Client
from xsd.core.engine import PAUSE, Engine
from xsd.daemon.control import ControlRegistry
from xsd.daemon.domains import Domains
from xsd.daemon.effects import Effects
from xsd.io.listener import listen
from xsd.io.poll import Poll
from xsd.io.sockets import Sockets
from xsd.io.turn import Turn
from xsd.xen.fake import FakeHost

GUEST = 7
TARGET = "/local/domain/7/data/state"
WRITES_A_TURN = 50
TRIES = 40


def write(path: str, value: bytes) -> bytes:
    payload = path.encode() + b"\0" + value
    return struct.pack("=4I", 11, 0, 0, len(payload)) + payload


class Attack:
    """A daemon's inside on a thread, with a guest that rewrites one node all the time."""

    def __init__(self, path: Path, **settings: object) -> None:
        self.path = str(path)
        self.turns = 0
        self.stop = False
        self._loop = uvloop.new_event_loop()
        self._engine = Engine()
        self._engine.configure(**settings)
        host = FakeHost(everybody=True)
        domains = Domains(self._engine, host, time.monotonic_ns)
        effects = Effects(self._engine, domains, ControlRegistry(), time.monotonic_ns)
        self._events = Turn(self._engine, self._loop, effects.run)
        # The guest acts between two turns of the loop, which is not to wait for sockets alone.
        Poll(self._events, stay_ns=0)
        self._sockets = Sockets(self._events)
        self._listener = listen(self.path)
        self._sockets.listen(self._listener.sock)
        self._thread = threading.Thread(target=self._loop.run_forever)

    def start(self) -> None:
        self._thread.start()

    def begin(self) -> None:
        self._loop.call_soon_threadsafe(self._turn)

    def end(self) -> None:
        self.stop = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._sockets.shut()
        self._events.stop()
        self._listener.close()
        self._loop.close()

    def figures(self) -> dict[str, object]:
        return dict(self._engine.conflict_figures()[GUEST])

    def _turn(self) -> None:
        """One burst of the guest, unless it is paused; then the next one is put on."""
        if self.stop:
            return
        conn = self._engine.domain_conn(GUEST)
        now = time.monotonic_ns()
        if not self._engine.conflict_figures()[GUEST]["paused"]:
            for _ in range(WRITES_A_TURN):
                self.turns += 1
                burst = write(TARGET, b"%d" % self.turns)
                if self._engine.feed(now, conn, burst) & PAUSE:
                    break
                self._engine.take(conn)
        self._events.settle()
        # As fast as it can, and yet the loop must see its sockets.
        self._loop.call_soon(self._turn)


@contextmanager
def attack(path: Path, **settings: object) -> Iterator[Attack]:
    world = Attack(path, **settings)
    world.start()
    try:
        yield world
    finally:
        world.end()


def tries_until_commit(path: str) -> int | None:
    """How often the toolstack had to try; None when it never succeeded."""
    with Client.connect(path) as toolstack:
        for tried in range(1, TRIES + 1):
            tx = toolstack.transaction()
            tx.read(TARGET)
            tx.write("/vm/answer", b"done")
            try:
                tx.commit()
            except XenstoreError as failure:
                assert failure.name == "EAGAIN"
            else:
                return tried
    return None


def prepare(world: Attack) -> None:
    with Client.connect(world.path) as toolstack:
        toolstack.write(TARGET, b"0")
        toolstack.set_perms(TARGET, [Permission("n", GUEST)])
        toolstack.introduce(GUEST, 1, 1)
    world.begin()


def test_without_protection_the_toolstack_never_commits(tmp_path: Path) -> None:
    """The attack works when nothing is done against it; else the other test would say nothing."""
    # However slow the machine is, every transaction is young enough for its culprit to be known.
    with attack(
        tmp_path / "s", conflict=False, priority_after=0, period_ns=60_000_000_000
    ) as world:
        prepare(world)
        assert tries_until_commit(world.path) is None
        assert world.figures()["caused"] == TRIES


@pytest.mark.parametrize("aggregate", [True, False])
@pytest.mark.parametrize("burst", [1.0, 5.0])
def test_with_credit_the_toolstack_commits(tmp_path: Path, aggregate: bool, burst: float) -> None:
    """The guest loses a point a conflict and is paused: one try more than it has points."""
    with attack(
        tmp_path / "s",
        priority_after=0,
        aggregate=aggregate,
        burst_limit=burst,
        period_ns=2_000_000_000,
    ) as world:
        prepare(world)
        tries = tries_until_commit(world.path)
        assert tries is not None
        assert tries <= burst + 2


def test_priority_alone_lets_the_toolstack_commit(tmp_path: Path) -> None:
    """After eight failures in a row the next transaction goes through, and nobody is charged."""
    with attack(
        tmp_path / "s", conflict=False, priority_after=8, priority_hold_ns=5_000_000_000
    ) as world:
        prepare(world)
        assert tries_until_commit(world.path) == 9
        assert world.figures()["paused_ns"] == 0
