"""An engine under a simulated clock that keeps its contract: ticked when it asks, and only then.

Beside what every world does, it collects what goes to the log, counts the wake-ups that the
engine asked for, and knows guests that write without pause.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

from world import OK, Client, EngineWorld, Msg

MS = 1_000_000
S = 1_000_000_000


def home(domid: int) -> bytes:
    return b"/local/domain/%d" % domid


class Arena(EngineWorld):
    """A world whose time passes from deadline to deadline."""

    def __init__(self, **settings: object) -> None:
        super().__init__()
        self.deadline: int | None = None
        self.wake_ups = 0
        self.log: list[str] = []
        self.details: list[str] = []
        self.engine.configure(**settings)

    def pass_on(self, cid: int, data: bytes) -> None:
        flags = self.bring(cid, data)
        if flags & self.closed_bit:
            self.open_cids.discard(cid)
            self.engine.close(self.now, cid)
        if flags & self.tick_bit:
            self.deadline = self.engine.tick(self.now)

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
            self.open_cids.discard(self.rings.pop(args[0], -1))
        elif kind == "log":
            (self.details if args[1] else self.log).append(args[0])
        elif kind == "control":
            self.engine.complete(self.now, effect, "", OK)
        elif kind != "notice":
            known = args[0] in self.domains
            self.engine.complete(self.now, effect, "" if known else "ENOENT", b"")

    def sleep(self, nanoseconds: int) -> None:
        """Time passes; the engine is woken exactly when it asked to be."""
        end = self.now + nanoseconds
        while self.deadline is not None and self.deadline <= end:
            before, self.now = self.now, max(self.now, self.deadline)
            self.deadline = self.engine.tick(self.now)
            self.wake_ups += 1
            assert self.deadline is None or self.deadline > before, "it asks for the past"
            self.settle()
        self.now = end

    def advance(self, seconds: float) -> None:
        self.sleep(int(seconds * S))

    def quiet(self) -> None:
        """Lets everything end that has a deadline, the summary for the log included."""
        self.engine.collect()
        self.sleep(200 * S)
        assert self.deadline is None

    # -- people

    def owner(self, domid: int) -> Client:
        """A guest with a home of its own."""
        guest = self.guest(domid)
        dom0 = self.socket()
        assert dom0.mkdir(home(domid)) == OK
        assert dom0.setperms(home(domid), b"n%d" % domid) == OK
        self.close(dom0)
        return guest

    # -- looking

    def figures(self, domid: int) -> dict[str, Any]:
        found: dict[str, Any] = self.engine.conflict_figures()[domid]
        return found

    def caused(self) -> dict[int, int]:
        """Conflicts per culprit; the innocent are left out."""
        found = self.engine.conflict_figures()
        return {domid: one["caused"] for domid, one in found.items() if one["caused"]}

    def credit(self, domid: int) -> float:
        credit: float = self.figures(domid)["credit"]
        return credit

    def paused(self, domid: int) -> bool:
        paused: bool = self.figures(domid)["paused"]
        return paused

    def counter(self, name: str) -> int:
        value: int = self.engine.counters()[name]
        return value

    @property
    def records(self) -> int:
        return self.counter("history_records")


def conflict(arena: Arena, victim: Client, path: bytes, *culprits: tuple[Client, bytes]) -> None:
    """A transaction of the victim that reads `path` fails, as the culprits write the values."""
    tx = victim.start()
    victim.read(path, tx)
    assert victim.write(b"/mark", b"", tx) == OK
    for culprit, value in culprits:
        assert culprit.write(path, value) == OK
    assert victim.end(tx) == "EAGAIN"


@dataclass(slots=True)
class Writer:
    """A guest that has its next request ready as soon as the last is answered."""

    client: Client
    path: bytes
    in_transactions: bool = False
    served: int = 0
    waiting: list[int] = field(default_factory=list)
    serial: int = 0

    def go(self, times: int) -> None:
        """Up to so many requests; it stops where one is not answered at once."""
        for _ in range(times):
            self.collect()
            if self.waiting:
                return
            if self.in_transactions:
                self.commit()
            else:
                self.serial += 1
                self.send(Msg.WRITE, self.path + b"\0%d" % self.serial)
        self.collect()

    def send(self, kind: int, payload: bytes, tx: int = 0) -> None:
        self.waiting.append(kind)
        self.client.send(kind, payload, tx, len(self.waiting))

    def commit(self) -> None:
        """A whole transaction in one go: three requests, of which the last may have to wait."""
        self.client.send(Msg.TRANSACTION_START, b"\0")
        packets = self.client.drain()
        if not packets:
            self.waiting.append(Msg.TRANSACTION_START)
            return
        (start,) = packets
        if start.type == Msg.ERROR:
            return
        tx = int(start.payload[:-1])
        self.serial += 1
        self.send(Msg.WRITE, self.path + b"\0%d" % self.serial, tx)
        self.send(Msg.TRANSACTION_END, b"T\0", tx)

    def collect(self) -> None:
        for packet in self.client.drain():
            kind = self.waiting.pop(0)
            if kind == Msg.TRANSACTION_START:
                # It was let in late: the transaction is given up, another will do.
                self.send(Msg.TRANSACTION_END, b"F\0", int(packet.payload[:-1]))
                continue
            assert packet.type == kind, packet
            self.served += 1


def frames(*requests: tuple[int, bytes, int]) -> bytes:
    """Requests as they stand on the wire; their numbers count from 1."""
    return b"".join(
        struct.pack("=4I", kind, number, tx, len(payload)) + payload
        for number, (kind, payload, tx) in enumerate(requests, 1)
    )
