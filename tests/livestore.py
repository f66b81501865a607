"""A daemon as a store for tests: ours or one of Debian's, with guests on the rings of a fake Xen.

One daemon serves many tests. After each, everybody goes, and what is left must be what was there
at the start.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import serving
from stores import C_OF_4_17, O_OF_4_17, OURS, SPECIAL, Manners, frame, walk
from world import OK, Client, Msg, Packet, strings
from xen import daemons
from xen.daemons import Running
from xen.hypervisor import BOUND, NOTHING, Guest, Totals

SECONDS = 10.0
TURN_SECONDS = 0.005
BARRIER = 0xFFFFFFF0
"""The request id of a question whose answer only shows that all before it was dealt with."""


class Wire(Protocol):
    """Bytes to and from a daemon."""

    def send(self, data: bytes) -> None:
        """All of them; raises TimeoutError."""

    def put(self, data: bytes) -> int:
        """All of them or nothing, without waiting; how many."""

    def take(self) -> bytes:
        """What is there."""

    def wait(self, seconds: float) -> None:
        """Until something may be there, but not longer."""

    def close(self) -> None: ...


class SocketWire:
    """The unix socket."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(SECONDS)
        self.sock.connect(path)
        self.poll = select.poll()  # select() knows no descriptor above a thousand
        self.poll.register(self.sock, select.POLLIN)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def put(self, data: bytes) -> int:
        self.sock.sendall(data)
        return len(data)

    def take(self) -> bytes:
        if not self.poll.poll(0):
            return b""
        data = self.sock.recv(1 << 16)
        if not data:
            raise ConnectionResetError("closed by the daemon")
        return data

    def wait(self, seconds: float) -> None:
        self.poll.poll(max(seconds, 0) * 1000)

    def close(self) -> None:
        self.sock.close()


@dataclass(slots=True)
class RingWire:
    """The ring of a guest."""

    guest: Guest

    def send(self, data: bytes) -> None:
        self.guest.send(data, SECONDS)

    def put(self, data: bytes) -> int:
        if self.guest.room() < len(data):
            return 0
        taken = self.guest.put(data)
        self.guest.kick()
        return taken

    def take(self) -> bytes:
        data = self.guest.get()
        if data:
            self.guest.kick()
        return data

    def wait(self, seconds: float) -> None:
        # A guest whose notification got lost looks by itself now and then.
        self.guest.wait(min(seconds, 0.02))

    def close(self) -> None:
        self.guest.close()


class LiveLink:
    """A connection to a daemon; `drain` waits for the replies to what was sent.

    With nothing to wait for it asks a question itself: what came before its answer is all that
    there is to hear of whatever has been answered to anybody.
    """

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.pending: list[int] = []
        self.data = b""
        self.is_open = True

    def send(self, type: int, payload: bytes = b"", tx: int = 0, req: int = 0) -> None:
        if self.is_open:
            self.wire.send(frame(type, payload, tx, req))
            self.pending.append(req)

    def drain(self) -> list[Packet]:
        if not self.is_open:
            return []
        if not self.pending:
            self.send(Msg.GET_DOMAIN_PATH, b"0\0", req=BARRIER)
        deadline = time.monotonic() + SECONDS
        packets: list[Packet] = []
        while self.pending:
            for packet in self.arrived():
                if packet.type != Msg.WATCH_EVENT and packet.req_id in self.pending:
                    self.pending.remove(packet.req_id)
                if packet.req_id != BARRIER:
                    packets.append(packet)
            if self.pending:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"no reply to {self.pending} within {SECONDS} s")
                self.wire.wait(left)
        return packets

    def arrived(self) -> list[Packet]:
        """The whole packets that are there."""
        self.data += self.wire.take()
        packets = []
        while len(self.data) >= 16:
            kind, req, tx, size = struct.unpack_from("=4I", self.data)
            if len(self.data) < 16 + size:
                break
            packets.append(Packet(kind, req, tx, self.data[16 : 16 + size]))
            self.data = self.data[16 + size :]
        return packets

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self.wire.close()


def link_of(client: Client) -> LiveLink:
    assert isinstance(client.link, LiveLink)
    return client.link


@dataclass(slots=True)
class LiveStore:
    """A daemon and the domains of the test that uses it."""

    name: str
    manners: Manners
    running: Running
    dom0: Client = field(init=False)
    links: list[LiveLink] = field(default_factory=list)
    guests: dict[int, Client] = field(default_factory=dict)
    born: dict[int, Guest] = field(default_factory=dict)
    dead: list[Guest] = field(default_factory=list)
    at_start: list[object] = field(default_factory=list)
    held_at_start: tuple[int, Totals] = field(init=False)

    def __post_init__(self) -> None:
        self.dom0 = Client(LiveLink(SocketWire(self.running.socket)))
        try:
            self.at_start = self.remains()
            self.held_at_start = self.held()
        except BaseException:
            link_of(self.dom0).close()
            raise

    # -- what tests use

    def socket(self) -> Client:
        link = LiveLink(SocketWire(self.running.socket))
        self.links.append(link)
        return Client(link)

    def guest(self, domid: int) -> Client:
        if domid not in self.guests:
            self.create(domid)
            guest = self.born[domid]
            link = LiveLink(RingWire(guest))
            self.links.append(link)
            self.guests[domid] = Client(link)
            payload = strings(b"%d" % domid, b"%d" % guest.gfn, b"%d" % guest.port)
            assert self.dom0.ask(Msg.INTRODUCE, payload) == OK
        return self.guests[domid]

    def create(self, domid: int) -> None:
        if domid not in self.born:
            self.born[domid] = self.running.xen.create(domid)

    def vanish(self, *domids: int) -> None:
        for domid in domids:
            if domid in self.born:
                self.dead.append(self.born.pop(domid))
                self.running.xen.destroy(domid, virq=False)

    def kill(self, *domids: int) -> None:
        xen = self.running.xen
        self.vanish(*domids)
        xen.virq()
        self.await_that(lambda: xen.port_state(xen.virq_port()) == BOUND, "an answer to the virq")
        for domid in domids:
            self.await_that(lambda domid=domid: self.is_gone(domid), "the end of a domain")
            self.turn()
            if (client := self.guests.pop(domid, None)) is not None:
                link_of(client).close()
        while self.dead:
            self.dead.pop().close()

    def close(self, client: Client) -> None:
        link_of(client).close()

    def push(self, client: Client, data: bytes) -> int:
        link = link_of(client)
        return link.wire.put(data) if link.is_open else 0

    def got(self, client: Client) -> list[Packet]:
        return link_of(client).arrived()

    def turn(self) -> None:
        for _ in range(2):
            assert self.dom0.ask(Msg.GET_DOMAIN_PATH, b"0\0") == b"/local/domain/0\0"
        # Credit comes back with time alone; whoever waits for it does so with a bound.
        time.sleep(TURN_SECONDS)

    def footprint(self) -> int:
        if self.name == "xsd" and os.environ.get("XSD_FLAVOUR") == "asan":
            return 0  # a sanitizer keeps what was freed, to see whether it is used
        pages = int(Path(f"/proc/{self.running.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def nodes(self, domid: int) -> int:
        answer = self.dom0.ask(Msg.CONTROL, strings(b"quota", b"%d" % domid))
        if answer == "ENOENT":
            return 0
        assert isinstance(answer, bytes), answer
        return node_count(answer.rstrip(b"\0").decode())

    def check(self) -> None:
        if self.name != "o":  # it has no such command
            assert self.dom0.ask(Msg.CONTROL, b"check\0") == OK
        assert self.running.is_alive()

    # -- around tests

    def is_gone(self, domid: int) -> bool:
        xen = self.running.xen
        answer = self.dom0.ask(Msg.IS_DOMAIN_INTRODUCED, b"%d\0" % domid)
        # Not all of them let go of a ring that early.
        return answer == b"F\0" and (self.name != "xsd" or xen.held(domid) == NOTHING)

    def await_that(self, holds: object, what: str) -> None:
        assert callable(holds)
        deadline = time.monotonic() + SECONDS
        while not holds():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {SECONDS} s")
            self.turn()

    def remains(self) -> list[object]:
        """What must be the same after each test."""
        return [sorted(walk(self.dom0)), self.nodes(0)]

    def held(self) -> tuple[int, Totals]:
        """Descriptors, and what the hypervisor gave."""
        return self.running.descriptors(), self.running.xen.totals()

    def finish(self) -> None:
        """Everybody goes; asserts that nothing is left of them."""
        self.kill(*sorted(self.born.keys() | self.guests.keys()))
        for link in self.links:
            link.close()
        self.links.clear()
        tree, _ = self.at_start
        assert isinstance(tree, list)
        known = {path for path, _ in tree}
        for path in sorted(known):
            names = self.dom0.ls(path)
            assert isinstance(names, list)
            for child in (path.rstrip(b"/") + b"/" + name for name in names):
                if child not in known:
                    assert self.dom0.rm(child) == OK
        for path in SPECIAL:
            anybody = (b"r32757",) if self.manners.sees_releases and path == SPECIAL[1] else ()
            assert self.dom0.setperms(path, b"n0", *anybody) == OK
        assert self.dom0.ask(Msg.RESET_WATCHES, b"\0") == OK
        assert self.remains() == self.at_start
        if self.name == "xsd":
            self.await_that(lambda: self.held() == self.held_at_start, "what the daemon holds")
        self.check()

    def stop(self) -> None:
        """Ends the daemon; ours must do so in good order and have nothing to regret."""
        for link in (*self.links, link_of(self.dom0)):
            link.close()
        status = self.running.stop()
        if self.name == "xsd":
            said = self.running.output
            assert (status, "Traceback" in said, "|error|" in said) == (0, False, False), said


def node_count(text: str) -> int:
    """The number of nodes in the answer of either form of the command ``quota``."""
    if text.startswith("dom"):
        figure = text.split(": ")[1].split("/")[0]
        return int(figure) if figure.isdigit() else 0
    (line,) = [line for line in text.splitlines() if line.startswith("nodes")]
    return int(line.split(":")[1].split()[0])


def start(name: str, directory: Path) -> LiveStore:
    """Starts the daemon of that name; a test that wants one that is not installed is skipped."""
    manners = {"xsd": OURS, "c": C_OF_4_17, "o": O_OF_4_17}[name]
    running = launch(name, directory)
    try:
        return LiveStore(name, manners, running)
    except BaseException:
        running.stop()
        raise


def launch(name: str, directory: Path) -> Running:
    rundir = directory / "xsd"
    command = [str(serving.program()), "daemon", "--no-fork", "--rundir", str(rundir)]
    try:
        if name == "c":
            return daemons.start_c(directory)
        if name == "o":
            return daemons.start_o(directory)
        return daemons.start(directory, command, socket_path=rundir / "socket")
    except FileNotFoundError as missing:
        serving.absent(str(missing))
