"""One store for a test, whoever keeps it: the engine in process, or a daemon with guests on rings.

A test that takes ``store`` says with `on` whose rules it states. All are driven through the same
few calls, so a test body knows of differences only what `Manners` lists.
"""

from __future__ import annotations

import importlib
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest
from world import OK, Client, EngineLink, EngineWorld, Packet

SPECIAL = (b"@introduceDomain", b"@releaseDomain")
EVERYBODY = ("engine", "xsd", "c", "o")
DAEMONS = ("xsd", "c", "o")
OUR_OWN = ("engine", "xsd")


def on(*names: str) -> pytest.MarkDecorator:
    """The stores a test runs against; what is not ours is left out of a quick run.

    So it is where our code is built anew with sanitizers or counters, which see nothing of theirs.
    """
    assert set(names) <= set(EVERYBODY)
    if os.environ.get("XSD_FLAVOUR", "release") != "release":
        names = tuple(one for one in names if one in OUR_OWN)
    stores = [pytest.param(one, marks=[pytest.mark.slow] * (one in "co")) for one in names]
    return pytest.mark.parametrize("store", stores, indirect=True)


@dataclass(frozen=True, slots=True)
class Manners:
    """Where stores that all keep the rule differ in words or numbers."""

    over_nodes: str = "ENOSPC"
    over_watches: str = "ENOSPC"
    over_transactions: str = "ENOSPC"
    too_big: str = "ENOSPC"
    """A value beyond the quota of its node's size."""
    give_away: str = "EPERM"
    no_transaction: str = "ENOENT"
    sees_releases: bool = True
    """Whether @releaseDomain is for every domain, unless dom0 says otherwise."""
    most_watches: int = 128
    most_transactions: int = 10
    counts_at_commit: bool = False
    """Whether a request in a transaction may make more nodes than its commit will allow."""
    keeps_ancestors: bool = False
    """Whether implicitly made ancestors stay when making the last node fails."""


OURS = Manners()
C_OF_4_17 = Manners(
    over_watches="E2BIG",
    sees_releases=False,
    most_watches=129,
    most_transactions=11,
    counts_at_commit=True,
)
O_OF_4_17 = Manners(
    over_nodes="EQUOTA",
    over_watches="EQUOTA",
    over_transactions="EQUOTA",
    too_big="E2BIG",
    give_away="EACCES",
    no_transaction="EIO",
    sees_releases=False,
    most_watches=101,
    most_transactions=11,
    keeps_ancestors=True,
)


class Store(Protocol):
    """What a test needs of a store and of the host around it."""

    name: str
    manners: Manners

    def socket(self) -> Client:
        """A connection of the toolstack."""

    def guest(self, domid: int) -> Client:
        """The domain is created and introduced; its connection."""

    def create(self, domid: int) -> None:
        """The domain exists, and nobody introduces it."""

    def kill(self, *domids: int) -> None:
        """These domains die together; returns when the store has dealt with it."""

    def vanish(self, *domids: int) -> None:
        """The hypervisor has these domains no more, and nobody tells the store; `kill` does."""

    def close(self, client: Client) -> None:
        """Hangs up."""

    def push(self, client: Client, data: bytes) -> int:
        """Gives bytes to a connection as they are, as many as it takes; how many those were."""

    def got(self, client: Client) -> list[Packet]:
        """What has come for a connection that may not be served; waits for nothing of it."""

    def turn(self) -> None:
        """A short time passes, in which everybody who may be served is."""

    def footprint(self) -> int:
        """Bytes of memory that the store uses, for whatever."""

    def nodes(self, domid: int) -> int:
        """How many nodes the store thinks that the domain owns."""

    def check(self) -> None:
        """Asserts that the store finds itself consistent."""


def home(domid: int) -> bytes:
    return b"/local/domain/%d" % domid


def owner(store: Store, domid: int) -> Client:
    """A guest with a home of its own, as a toolstack makes one."""
    guest, dom0 = store.guest(domid), store.socket()
    assert dom0.mkdir(home(domid)) == OK
    assert dom0.setperms(home(domid), b"n%d" % domid) == OK
    store.close(dom0)
    return guest


def frame(kind: int, payload: bytes = b"", tx: int = 0, req: int = 0) -> bytes:
    return struct.pack("=4I", kind, req, tx, len(payload)) + payload


def walk(dom0: Client, top: bytes = b"/") -> Iterator[tuple[bytes, bytes]]:
    """Path and owner of all nodes below and with ``top``; asserts that what is listed is there."""
    todo = [top]
    while todo:
        path = todo.pop()
        names, perms = dom0.ls(path), dom0.getperms(path)
        assert isinstance(names, list), (path, names)
        assert isinstance(perms, list), (path, perms)
        yield path, perms[0][1:]
        todo += [path.rstrip(b"/") + b"/" + name for name in names]


def owned(dom0: Client, domid: int) -> int:
    """How many nodes a domain owns, counted by looking at all."""
    return sum(who == b"%d" % domid for _, who in walk(dom0))


def until(store: Store, holds: Callable[[], bool], turns: int = 400) -> None:
    """Lets time pass until something holds; AssertionError if it never does."""
    for _ in range(turns):
        if holds():
            return
        store.turn()
    raise AssertionError(f"not within {turns} turns")


def fill(client: Client, top: bytes = b"fill", tx: int = 0) -> tuple[int, str]:
    """Makes nodes until the store refuses; how many were made, and with which error it ended.

    Twenty in each directory, as the size of a node may count the names of its children.
    """
    for made in range(3000):
        path = b"%s%d" % (top, made // 20)
        answer = client.mkdir(path if made % 20 == 0 else b"%s/%d" % (path, made % 20), tx)
        if answer != OK:
            assert isinstance(answer, str)
            return made, answer
    raise AssertionError("3000 nodes, and no end")


# --- the engine ---------------------------------------------------------------------------------


@dataclass(slots=True)
class EngineStore:
    """The engine in process; its guests are connections without a ring."""

    world: EngineWorld = field(default_factory=EngineWorld)
    name: str = "engine"
    manners: Manners = OURS
    born: set[int] = field(default_factory=set)

    def socket(self) -> Client:
        return self.world.socket()

    def guest(self, domid: int) -> Client:
        self.born.add(domid)
        return self.world.guest(domid)

    def create(self, domid: int) -> None:
        self.born.add(domid)
        self.world.domains.add(domid)

    def vanish(self, *domids: int) -> None:
        self.world.domains -= set(domids)

    def kill(self, *domids: int) -> None:
        self.vanish(*domids)
        for domid in domids:
            self.world.engine.domain_died(self.world.now, domid)
        self.world.settle()
        for domid in domids:
            assert self.world.engine.account(domid) == (0, 0)
            assert domid not in self.world.engine.counts()
        self.check()

    def close(self, client: Client) -> None:
        self.world.close(client)

    def push(self, client: Client, data: bytes) -> int:
        assert isinstance(client.link, EngineLink)
        cid = client.link.cid
        if cid not in self.world.open_cids:
            return 0
        # As the owner of a ring does: nothing is taken from it while the engine wants nothing.
        if self.world.engine.feed(self.world.now, cid, b"") & self.pause_bit:
            return 0
        self.world.feed(cid, data)
        return len(data)

    def got(self, client: Client) -> list[Packet]:
        return client.drain()

    def turn(self) -> None:
        self.world.advance(0.05)

    def footprint(self) -> int:
        self.world.engine.collect()
        found: int = self.world.engine.memory()["total_bytes"]
        return found

    def nodes(self, domid: int) -> int:
        counts: dict[str, int] = self.world.engine.counts().get(domid, {})
        return counts.get("nodes", 0)

    def check(self) -> None:
        self.world.check()

    # -- only of the engine

    def held(self, domid: int) -> int:
        """Bytes that the domain pays for."""
        size: int = self.world.engine.account(domid)[0]
        return size

    @property
    def pause_bit(self) -> int:
        """The flag that says: no more input for now."""
        bit: int = importlib.import_module("xsd.core.engine").PAUSE
        return bit

    def finish(self) -> None:
        """Everybody goes; asserts that nothing is left of them."""
        engine: Any = self.world.engine
        self.kill(*sorted(self.born))
        for cid in sorted(self.world.open_cids):
            engine.close(self.world.now, cid)
        self.world.settle()
        assert engine.connections() == []
        assert engine.watches() == []
        assert engine.transactions() == []
        last = self.world.socket()
        names = last.ls(b"/")
        assert isinstance(names, list)
        for name in set(names) - {b"tool"}:
            assert last.rm(b"/" + name) == OK
        untouched = EngineWorld()
        for path in SPECIAL:
            _, perms = untouched.tree()[path]
            assert last.setperms(path, *perms.split(b"\0")[:-1]) == OK
        self.world.close(last)
        assert engine.account(0) == untouched.engine.account(0)
        assert engine.counts() == untouched.engine.counts()
        assert self.world.tree() == untouched.tree()
        self.check()
