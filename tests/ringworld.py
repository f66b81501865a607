"""A store with rings in one process: engine, turn, rings and domains, no hypervisor and no daemon.

A page stands in memory that is mapped twice, once for the daemon and once for the guest, so that
a page that was released is really gone from the daemon. Event channels behave like those of the
kernel: an event masks its port, and what comes by a masked port waits until it is unmasked.

    Guest.kick ──> event ──> Rings.handle ──> unmask    RingWorld.settle carries these on,
    Guest.told <── notification                         with the loop, until nothing moves

Nothing happens by itself: time stands still but in `RingWorld.advance`.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

from model_tree import SOCKET
from world import OK, Client, Msg, Packet, strings

from xsd.core.engine import CLOSE, Engine
from xsd.daemon.domains import Domains
from xsd.io.rings import Rings
from xsd.io.turn import Turn
from xsd.xen.api import Channels, HostError, HostListener, Ring

RING = 1024
REQ, RSP = 0, 1024
REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD = 2048, 2052, 2056, 2060
FEATURES, STATE, ERROR, PORT = 2064, 2068, 2072, 2076
PAGE = 4096
BAD_INDICES, BAD_REQUEST, BAD_CHANNEL = 2, 3, 1

MS = 1_000_000
S = 1_000_000_000
STEPS_MAX = 100_000
FIRST_PORT, PORTS = 11, 4000


def home(domid: int) -> bytes:
    return b"/local/domain/%d" % domid


def frame(kind: int, payload: bytes = b"", tx: int = 0, req: int = 0) -> bytes:
    """A request as it stands on the wire."""
    return struct.pack("=4I", kind, req, tx, len(payload)) + payload


def cut(data: bytes) -> tuple[list[Packet], bytes]:
    """The whole messages at the beginning of some bytes, and what is left."""
    packets = []
    while len(data) >= 16:
        kind, req, tx, length = struct.unpack_from("=4I", data)
        if len(data) < 16 + length:
            break
        packets.append(Packet(kind, req, tx, data[16 : 16 + length]))
        data = data[16 + length :]
    return packets, data


# ---- a loop, a hypervisor ------------------------------------------------------------------


@dataclass(slots=True)
class Timer:
    when: int
    callback: Callable[..., object]
    args: tuple[object, ...]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass(slots=True)
class Loop:
    """What the turn and the rings use of an event loop, stepped by hand."""

    now: int = S
    soon: deque[Callable[[], object]] = field(default_factory=deque)
    timers: list[Timer] = field(default_factory=list)
    readers: dict[int, Callable[[], object]] = field(default_factory=dict)

    def call_soon(self, callback: Callable[..., object], *args: object) -> None:
        self.soon.append(lambda: callback(*args))

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> Timer:
        timer = Timer(self.now + round(delay * S), callback, args)
        self.timers.append(timer)
        return timer

    def add_reader(self, fd: int, callback: Callable[..., object], *args: object) -> None:
        self.readers[fd] = lambda: callback(*args)

    def remove_reader(self, fd: int) -> bool:
        return self.readers.pop(fd, None) is not None

    def next_timer(self) -> Timer | None:
        self.timers = [timer for timer in self.timers if not timer.cancelled]
        return min(self.timers, key=lambda timer: timer.when, default=None)

    def run_due(self, end: int) -> bool:
        """Runs the next timer that is due by then; whether there was one."""
        timer = self.next_timer()
        if timer is None or timer.when > end:
            return False
        self.timers.remove(timer)
        self.now = max(self.now, timer.when)
        timer.callback(*timer.args)
        return True


class Mapping:
    """The daemon's view of a page: an address until it is unmapped."""

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, PAGE)
        self._anchor: Any = ctypes.c_char.from_buffer(self._memory)
        self.address = ctypes.addressof(self._anchor)

    def unmap(self) -> None:
        self._anchor = None
        self._memory.close()


@dataclass(slots=True)
class Hypervisor:
    """Domains with their pages. A binding gets another port than the last thousands had."""

    fds: dict[int, int] = field(default_factory=dict)  # of pages, by domid
    mapped: dict[int, Mapping] = field(default_factory=dict)
    ports: dict[int, int] = field(default_factory=dict)  # by domid
    owners: dict[int, int] = field(default_factory=dict)  # domid by port, also of the past
    masked: set[int] = field(default_factory=set)  # ports
    pending: set[int] = field(default_factory=set)
    unbindable: set[int] = field(default_factory=set)
    next_port: int = FIRST_PORT
    listener: HostListener | None = None

    @property
    def channels(self) -> Channels | None:
        return None

    def start(self, listener: HostListener) -> None:
        self.listener = listener

    def close(self) -> None:
        for domid in list(self.mapped):
            self.release(domid)
        for fd in self.fds.values():
            os.close(fd)
        self.fds.clear()

    def exists(self, domid: int) -> bool:
        return domid in self.fds

    def domains(self) -> Iterable[int]:
        return sorted(self.fds)

    def own_ring(self) -> Ring | None:
        return self.introduce(0, 0, 0)

    def introduce(self, domid: int, gfn: int, port: int) -> Ring | None:
        if domid not in self.fds:
            raise HostError("ENOENT", f"domain {domid} does not exist")
        self.ports.pop(domid, None)
        if domid in self.unbindable:
            raise HostError("EINVAL", f"domain {domid}: no such port")
        if domid not in self.mapped:
            self.mapped[domid] = Mapping(self.fds[domid])
        port = self.next_port
        while port in self.ports.values():
            port = FIRST_PORT + (port + 1 - FIRST_PORT) % PORTS
        self.next_port = FIRST_PORT + (port + 1 - FIRST_PORT) % PORTS
        self.ports[domid] = port
        self.owners[port] = domid
        self.masked.discard(port)
        self.pending.discard(port)
        return Ring(self.mapped[domid].address, port)

    def release(self, domid: int) -> None:
        self.ports.pop(domid, None)
        if domid in self.mapped:
            self.mapped.pop(domid).unmap()

    def event(self, port: int) -> None:
        raise AssertionError(f"an event on port {port}")


# ---- a guest -------------------------------------------------------------------------------


class Guest:
    """The other side of a ring: it may keep to the protocol, or change any byte."""

    def __init__(self, world: RingWorld, domid: int, fd: int) -> None:
        self.world = world
        self.domid = domid
        self.page = mmap.mmap(fd, PAGE)
        self.left = b""  # of a message that has come in part

    # -- anything

    def word(self, at: int) -> int:
        (value,) = struct.unpack_from("=I", self.page, at)
        return cast(int, value)

    def set_word(self, at: int, value: int) -> None:
        struct.pack_into("=I", self.page, at, value & 0xFFFFFFFF)

    @property
    def indices(self) -> tuple[int, int, int, int]:
        """Consumer and producer of requests, consumer and producer of replies."""
        return struct.unpack_from("=4I", self.page, REQ_CONS)

    def start_at(self, index: int) -> None:
        """Both rings stand empty at this index, as they may at any time."""
        struct.pack_into("=4I", self.page, REQ_CONS, *[index & 0xFFFFFFFF] * 4)

    @property
    def port(self) -> int:
        """The daemon's end of the event channel; 0 when there is none."""
        return self.world.host.ports.get(self.domid, 0)

    @property
    def error(self) -> int:
        return self.word(ERROR)

    @property
    def unread(self) -> int:
        """Bytes of requests that the store has not taken."""
        cons, prod, _, _ = self.indices
        return (prod - cons) & 0xFFFFFFFF

    # -- the protocol, step by step

    def put(self, data: bytes) -> int:
        """Puts in what there is room for, and tells nobody."""
        cons, prod, _, _ = self.indices
        data = data[: max(0, RING - ((prod - cons) & 0xFFFFFFFF))]
        at = prod % RING
        first = data[: RING - at]
        self.page[REQ + at : REQ + at + len(first)] = first
        self.page[REQ : REQ + len(data) - len(first)] = data[len(first) :]
        self.set_word(REQ_PROD, prod + len(data))
        return len(data)

    def get(self, most: int = RING) -> bytes:
        """Takes out what there is, and tells nobody."""
        _, _, cons, prod = self.indices
        ready = (prod - cons) & 0xFFFFFFFF
        assert ready <= RING
        at, n = cons % RING, min(ready, most)
        data = self.page[RSP + at : RSP + min(at + n, RING)]
        data += self.page[RSP : RSP + n - len(data)]
        self.set_word(RSP_CONS, cons + n)
        return data

    def kick(self) -> None:
        """Sends an event."""
        self.world.event(self.port)

    def told(self) -> int:
        """Notifications that have come since the last time."""
        return self.world.notified.pop(self.domid, 0)

    # -- whole

    def offer(self, data: bytes, piece: int = RING) -> bytes:
        """Puts in as much as is taken, piece by piece; what is not taken is given back."""
        while data:
            n = self.put(data[:piece])
            self.kick()
            self.world.settle()
            if n == 0 and self.unread >= RING:
                return data
            data = data[n:]
        return b""

    def fetch(self, piece: int = RING) -> list[Packet]:
        """All whole messages that have come, and come for the room that is made."""
        packets: list[Packet] = []
        while data := self.get(piece):
            found, self.left = cut(self.left + data)
            packets += found
            self.kick()
            self.world.settle()
        return packets

    def send(self, type: int, payload: bytes = b"", tx: int = 0, req: int = 0) -> None:
        left = self.offer(frame(type, payload, tx, req))
        assert not left, f"{len(left)} bytes were not taken"

    def drain(self) -> list[Packet]:
        return self.fetch()

    @property
    def client(self) -> Client:
        """The guest with its requests spelled out."""
        return Client(self)

    def reconnect(self) -> None:
        """Asks for a fresh start, and has it."""
        self.left = b""
        self.set_word(STATE, 1)
        self.kick()
        self.world.settle()


# ---- everything ----------------------------------------------------------------------------


class SocketLink:
    """A client of dom0, without a socket."""

    def __init__(self, world: RingWorld) -> None:
        self.world = world
        self.cid: int = world.engine.open(world.now, SOCKET, 0)
        self.closed = False
        self.left = b""

    def feed(self, data: bytes) -> bool:
        """Bytes come from the client; whether it is still there afterwards."""
        assert not self.closed
        flags = self.world.engine.feed(self.world.now, self.cid, data)
        if flags & CLOSE:
            self.closed = True
            self.world.engine.close(self.world.now, self.cid)
        self.world.turn.settle()
        self.world.settle()
        return not self.closed

    def send(self, type: int, payload: bytes = b"", tx: int = 0, req: int = 0) -> None:
        self.feed(frame(type, payload, tx, req))

    def drain(self) -> list[Packet]:
        if self.closed or not self.feed(b""):  # what had to wait
            return []
        packets, self.left = cut(self.left + self.world.engine.take(self.cid))
        return packets


class RingWorld:
    """A store that is reached by rings; `dom0` is a client of its by a socket."""

    def __init__(self, **settings: Any) -> None:
        self.engine = Engine(seed=0)
        self.engine.configure(**settings)
        self.loop = Loop()
        self.turn = Turn(self.engine, cast(Any, self.loop), self.run_effects, self.turned)
        self.turn.set_time(self.loop.now)
        self.daemon_end, self.device = socket.socketpair()
        for end in (self.daemon_end, self.device):
            end.setblocking(False)
            weakref.finalize(self, end.close)  # also when a test fails
        self.others: list[int] = []
        self.rings = Rings(self.turn, self.daemon_end.fileno(), 0, 0, self.others.append)
        self.host = Hypervisor()
        self.domains = Domains(self.engine, self.host, lambda: self.now)
        self.domains.rings = self.rings
        self.domains.changed = self.turn.settle
        self.host.start(self.domains)
        self.guests: dict[int, Guest] = {}
        self.notified: dict[int, int] = {}
        self.queue: deque[int] = deque()
        self.masked, self.pending = self.host.masked, self.host.pending
        self.control: list[tuple[int, bytes]] = []
        self.hold_effects = False  # as if they took long
        self.effects: deque[tuple[int, str, int, tuple[Any, ...]]] = deque()
        self.turns = 0
        self.dom0 = self.socket()

    @property
    def now(self) -> int:
        return self.loop.now

    def close(self) -> None:
        """Gives everything back, and checks that nothing of a domain is left."""
        self.let_go()
        for domid in list(self.guests):
            if domid != 0:
                self.kill(domid)
                assert self.engine.account(domid) == (0, 0)
        self.engine.check()
        self.rings.shut()
        self.turn.stop()
        self.host.close()
        self.daemon_end.close()
        self.device.close()

    def __enter__(self) -> RingWorld:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()

    # -- going on

    def run_effects(self) -> None:
        """What the daemon's effects do, with no log and no control commands."""
        while (effect := self.engine.next_effect()) is not None:
            self.effects.append(cast(tuple[int, str, int, tuple[Any, ...]], effect))
        while self.effects and not self.hold_effects:
            number, kind, cid, args = self.effects.popleft()
            error = ""
            try:
                if kind == "introduce":
                    self.domains.introduce(number, *args)
                elif kind == "release":
                    self.domains.release(args[0])
                elif kind == "domain":
                    error = "" if self.host.exists(args[0]) else "ENOENT"
                elif kind == "control":
                    self.control.append((cid, args[0]))
            except HostError as failure:
                error = failure.errno
            if kind in ("domain", "control") or error:
                self.engine.complete(self.now, number, error, OK if kind == "control" else b"")

    def let_go(self) -> None:
        """Effects that were held are carried out."""
        self.hold_effects = False
        self.turn.settle()
        self.settle()

    def turned(self) -> None:
        self.turns += 1

    def event(self, port: int) -> None:
        """An event comes by a port of the daemon's."""
        if port == 0:
            return
        if port in self.masked:
            self.pending.add(port)
        else:
            self.masked.add(port)
            self.queue.append(port)

    def deliver(self) -> bool:
        """Hands the daemon the events that are there, up to 64; whether there were any."""
        if not self.queue:
            return False
        ports = [self.queue.popleft() for _ in range(min(64, len(self.queue)))]
        self.rings.handle(struct.pack(f"={len(ports)}I", *ports))
        self.collect()
        return True

    def collect(self) -> None:
        """Sees which ports were unmasked and who was notified."""
        for port in self.rings.take_notified():
            domid = self.host.owners[port]
            self.notified[domid] = self.notified.get(domid, 0) + 1
        try:
            data = self.device.recv(65536)
        except BlockingIOError:
            return
        for (port,) in struct.iter_unpack("=I", data):
            assert port in self.masked, f"port {port} was not masked"
            self.masked.discard(port)
            if port in self.pending:
                self.pending.discard(port)
                self.event(port)

    def step(self) -> bool:
        """One thing happens that can; whether there was any."""
        if self.deliver():
            return True
        if self.loop.soon:
            self.loop.soon.popleft()()
            self.collect()
            return True
        if self.loop.run_due(self.now):
            self.collect()
            return True
        self.collect()
        return bool(self.queue)

    def settle(self) -> None:
        """Everything happens that does not take time."""
        for _ in range(STEPS_MAX):
            if not self.step():
                return
        raise AssertionError("it does not come to rest")

    def advance(self, nanoseconds: int) -> None:
        """Time passes, with everything that happens in it."""
        end = self.now + nanoseconds
        self.settle()
        while (timer := self.loop.next_timer()) is not None and timer.when <= end:
            self.loop.now = max(self.now, timer.when)
            self.turn.set_time(self.now)
            self.settle()
        self.loop.now = end
        self.turn.set_time(end)
        self.settle()

    # -- people

    def socket(self) -> Client:
        return Client(SocketLink(self))

    def create(self, domid: int, fill: bytes = b"\0") -> Guest:
        """A domain with a page that nobody knows of yet."""
        fd = os.memfd_create(f"domain-{domid}")
        os.ftruncate(fd, PAGE)
        self.host.fds[domid] = fd
        guest = self.guests[domid] = Guest(self, domid, fd)
        guest.page[:] = (fill * PAGE)[:PAGE]
        return guest

    def introduce(self, domid: int) -> bytes | str:
        """By a request of dom0."""
        return self.dom0.ask(Msg.INTRODUCE, strings(b"%d" % domid, b"1", b"1"))

    def guest(self, domid: int) -> Guest:
        """A domain that is introduced, with a home of its own."""
        guest = self.create(domid)
        assert self.introduce(domid) == OK
        assert self.dom0.mkdir(home(domid)) == OK
        assert self.dom0.setperms(home(domid), b"n%d" % domid) == OK
        guest.told()
        return guest

    def own(self) -> Guest:
        """Domain 0 by its ring, as its kernel has it."""
        guest = self.create(0)
        ring = self.host.own_ring()
        assert ring is not None
        self.engine.introduce(self.now, 0)
        self.rings.attach(0, ring.address, ring.port)
        self.turn.settle()
        self.settle()
        guest.told()
        return guest

    def kill(self, domid: int) -> None:
        """A domain dies."""
        os.close(self.host.fds.pop(domid))
        del self.guests[domid]
        self.domains.domain_died(domid)
        self.settle()

    # -- looking

    def connections(self) -> set[int]:
        """Domains that have a ring as far as the engine knows."""
        return {d for _, kind, d, *_ in self.engine.connections() if kind == "ring"}

    def counter(self, name: str) -> int:
        return cast(int, self.engine.counters()[name])

    def memory_of(self, domid: int) -> int:
        """What counts against the domain's memory quota."""
        return self.engine.counts().get(domid, {}).get("memory", 0)
