"""One daemon with its guests: carries steps out, shows its tree, is swept clean."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import serving
from livestore import node_count
from xen import build, daemons
from xen.daemons import Running
from xen.hypervisor import BOUND, Guest

from witness.line import SECONDS, HungUpError, Line, Packet, RingEnd, SocketEnd
from witness.steps import GUESTS, SOCKETS, SPECIAL, Ask, Fate, Rules, home
from xsd.client.wire import Op

STORES = ("xsd", "c", "o")
OURS = "xsd"

NO_SUCH_ID = 0x1FFFFFF7
OK = b"OK\0"
KEPT = (b"tool", *(name.encode() for name in SPECIAL))
"""What the root may have in one daemon and not in another."""

Node = tuple[bytes, tuple[bytes, ...], frozenset[bytes]]
Tree = dict[bytes, Node]
"""Value, permissions and names of children by path."""


class Shown:
    """What a burst or a fate showed: all that came on the own line, in order, and on others."""

    __slots__ = ("others", "own")

    def __init__(self, own: list[Packet], others: dict[int, list[bytes]]) -> None:
        self.own = own
        self.others = others


def faster_clock() -> Path:
    """The compiled library; raises FileNotFoundError without gcc."""
    source, made = Path(__file__).with_name("fastclock.c"), build.CACHE / "fastclock.so"
    build.CACHE.mkdir(parents=True, exist_ok=True)
    if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
        compiler = shutil.which("gcc")
        if compiler is None:
            raise FileNotFoundError("gcc is not installed")
        fresh = made.with_suffix(f".{os.getpid()}")
        flags = ("-std=gnu11", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror")
        subprocess.run([compiler, *flags, "-o", fresh, source, "-ldl"], check=True)
        os.replace(fresh, made)
    return made


def start_ours(directory: Path, rules: Rules) -> Running:
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "xsd.toml"
    config.write_text(
        "[conflict]\nactive = false\n"  # being paused for conflicts is a matter of time
        "[timeout]\nwatch-event = 0\n"
        '[log]\nlevel = "warn"\n'
        "[quota]\n"
        f"nodes = {rules.nodes}\nwatches = {rules.watches}\n"
        f"transactions = {rules.transactions}\nnode-permissions = {rules.permissions}\n"
        f"path-max = {rules.path}\nnode-size = {rules.node_size}\n"
    )
    rundir = directory / "xsd"
    command = [str(serving.program()), "daemon", "--no-fork", "--rundir", str(rundir)]
    command += ["--config", str(config)]
    return daemons.start(directory, command, socket_path=rundir / "socket")


def start_c(directory: Path, rules: Rules) -> Running:
    # Its header of a node is 24 bytes, not 16, and the limit itself is not reached; one watch and
    # one transaction more are had than the number says.
    options = {
        "-E": rules.nodes,
        "-W": rules.watches - 1,
        "-t": rules.transactions - 1,
        "-A": rules.permissions,
        "-M": rules.path,
        "-S": rules.node_size + 9,
        "-w": "watch-event=0",
    }
    preload = f"LD_PRELOAD={build.library()}:{faster_clock()}"
    command = ["env", "-u", "LD_LIBRARY_PATH", preload, daemons.find("xenstored"), "-N"]
    command += ["--pid-file", "/run/xenstored/xenstored.pid"]
    command += [str(word) for pair in options.items() for word in pair]
    return daemons.start(directory, command)


def start_o(directory: Path, rules: Rules) -> Running:
    settings = {
        "conflict-burst-limit": "1000000.0",
        "conflict-max-history-seconds": "0.001",
        "quota-maxentity": str(rules.nodes),
        "quota-maxwatch": str(rules.watches - 1),
        "quota-transaction": str(rules.transactions - 1),
        "quota-path-max": str(rules.path),
        "quota-maxsize": "5000",
    }
    return daemons.start_o(directory, settings=settings)


STARTS: dict[str, Callable[[Path, Rules], Running]] = {
    "xsd": start_ours,
    "c": start_c,
    "o": start_o,
}


class House:
    """A daemon, three sockets, three guests, and the chief, who prepares and cleans up.

    The chief is another socket, and no part of the story.
    """

    def __init__(self, name: str, directory: Path, rules: Rules) -> None:
        self.name, self.rules = name, rules
        self.running = STARTS[name](directory, rules)
        self.xen = self.running.xen
        self.lines: dict[int, Line] = {}
        self.slots: dict[tuple[int, int], int] = {}
        self.worn: set[int] = set()
        """Guests that must be born again before the next script."""
        self.requests = 0
        self.chief = self.connect()
        self.sweep()

    # -- a script

    def prepare(self) -> None:
        """What there is when a script begins."""
        for conn in SOCKETS:
            if conn not in self.lines:
                self.lines[conn] = self.connect()
        for domid in GUESTS:
            if domid in self.lines:
                self.make_home(domid)
            else:
                self.birth(domid)
        asks: list[tuple[int, bytes, int]] = []
        for path, perms in (
            (b"/local/domain/0/a", (b"n0",)),
            (b"/shared", (b"n0", b"b1", b"r2")),
            (b"/shared/a", (b"n1", b"w2", b"r12")),
            (b"/open", (b"b0",)),
            (b"/x/y", (b"r0",)),
        ):
            asks.append((Op.WRITE, path + b"\0", 0))
            asks.append((Op.SET_PERMS, b"\0".join((path, *perms, b"")), 0))
        self.command(asks)

    def play(self, asks: Sequence[Ask]) -> Shown:
        """Requests of one connection that is there, sent together as far as possible."""
        conn = asks[0].conn
        line, slots = self.lines[conn], self.slots
        pending: list[tuple[int, bytes, int]] = []
        for ask in asks:
            tx = slots.get((conn, ask.slot), NO_SUCH_ID) if ask.slot else 0
            pending.append((ask.op, ask.payload, tx))
            if ask.op == Op.WATCH:
                line.watchful = True
            elif ask.op == Op.SET_TARGET and conn < 0:
                self.worn |= {int(ask.payload.split(b"\0")[0])} & self.lines.keys()
            elif ask.into and not tx:
                line.ask_all(pending)
                pending = []
                kind, payload = line.got[line.answers[-1][0]]
                if kind == Op.TRANSACTION_START:
                    slots[conn, ask.into] = int(payload[:-1])
        if pending:
            line.ask_all(pending)
        self.requests += len(asks)
        self.barrier()
        return Shown(line.fetch(), self.others(conn))

    def fate(self, fate: Fate) -> Shown | None:
        """None where there is nobody whom it could happen to."""
        conn, there = fate.conn, fate.conn in self.lines
        if there == (fate.what == "birth"):
            return None
        if fate.what == "birth":
            self.birth(conn)
        elif fate.what == "death":
            self.xen.destroy(conn, virq=False)
            self.tell()
            self.until_gone(conn)
            self.drop(conn)
        elif fate.what == "release":
            self.command([(Op.RELEASE, b"%d\0" % conn, 0)])
            self.xen.destroy(conn, virq=False)
            self.tell()  # others may have been resumed, and be shut down still
            self.drop(conn)
        elif fate.what == "shutdown":
            self.xen.shutdown(conn, virq=False)
            self.tell()
            self.worn.add(conn)
        elif fate.what == "again":
            line, guest = self.lines[conn], self.guest_of(conn)
            self.command([(Op.INTRODUCE, b"%d\0%d\0%d\0" % (conn, guest.gfn, guest.port), 0)])
            line.fetch()
            line.data = b""
            self.forget(conn)
        elif fate.what == "hangup":
            self.drop(conn)
            self.lines[conn] = self.connect()
        self.barrier()
        return Shown([], self.others(None))

    def tree(self) -> Tree:
        """All there is; what the daemons have of their own is left out."""
        found: Tree = {}
        level = [b"/"]
        while level:
            asks = [
                (op, path + b"\0", 0)
                for path in level
                for op in (Op.READ, Op.GET_PERMS, Op.DIRECTORY)
            ]
            got = iter(self.question(asks))
            below = []
            for path in level:
                value, perms, names = next(got), next(got), next(got)
                assert (value[0], perms[0], names[0]) == (2, 3, 1), (path, value, perms, names)
                children = names[1].split(b"\0")[:-1]
                if path == b"/":
                    children = [name for name in children if name not in KEPT]
                entries = tuple(perms[1].split(b"\0")[:-1])
                found[path] = (value[1], entries, frozenset(children))
                below += [path.rstrip(b"/") + b"/" + name for name in children]
            level = below
        return found

    # -- the chief

    def question(self, asks: Sequence[tuple[int, bytes, int]]) -> list[Packet]:
        """What the chief is told."""
        self.chief.ask_all(list(asks))
        return self.chief.fetch()

    def command(self, asks: Sequence[tuple[int, bytes, int]]) -> None:
        """What the chief wants, and gets."""
        for ask, (_, payload) in zip(asks, self.question(asks), strict=True):
            assert payload == OK, (self.name, ask, payload)

    def barrier(self) -> None:
        """Returns when everybody has been told of all that was done."""
        watchful = [line for line in self.lines.values() if line.watchful]
        for line in watchful:
            line.ask_barrier()
        for line in watchful:
            line.await_barrier()

    def others(self, conn: int | None) -> dict[int, list[bytes]]:
        """The events of all other lines."""
        return {
            other: [payload for _, payload in line.fetch()]
            for other, line in self.lines.items()
            if other != conn and line.got
        }

    # -- connections and domains

    def connect(self) -> Line:
        return Line(SocketEnd(self.running.socket), self.look_after_all)

    def look_after_all(self) -> None:
        """Reads whatever there is for anybody."""
        for line in self.lines.values():
            line.read()

    def guest_of(self, domid: int) -> Guest:
        end = self.lines[domid].end
        assert isinstance(end, RingEnd)
        return end.guest

    def make_home(self, domid: int) -> None:
        path = home(domid).encode()
        perms = b"%s\0n%d\0" % (path, domid)
        self.command([(Op.MKDIR, path + b"\0", 0), (Op.SET_PERMS, perms, 0)])

    def birth(self, domid: int) -> None:
        guest = self.xen.create(domid)
        self.make_home(domid)
        self.command([(Op.INTRODUCE, b"%d\0%d\0%d\0" % (domid, guest.gfn, guest.port), 0)])
        self.lines[domid] = Line(RingEnd(guest), self.look_after_all)

    def drop(self, conn: int) -> None:
        """The line of one that is gone."""
        self.lines.pop(conn).close()
        self.worn.discard(conn)
        self.forget(conn)

    def forget(self, conn: int) -> None:
        for key in [key for key in self.slots if key[0] == conn]:
            del self.slots[key]

    def tell(self) -> None:
        """News of some domain, and waits until it has been heard."""
        self.xen.virq()
        port = self.xen.virq_port()
        self.await_that(lambda: self.xen.port_state(port) == BOUND)

    def until_gone(self, domid: int) -> None:
        ask = [(int(Op.IS_DOMAIN_INTRODUCED), b"%d\0" % domid, 0)]
        self.await_that(lambda: self.question(ask) == [(17, b"F\0")])

    def await_that(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not holds():
            assert time.monotonic() < deadline, "nothing comes of it"
            self.question([(Op.GET_DOMAIN_PATH, b"0\0", 0)])
            self.look_after_all()

    # -- between scripts

    def sweep(self) -> None:
        """As it was at the start; AssertionError if it cannot be made so."""
        for domid in sorted(self.worn):
            self.xen.destroy(domid, virq=False)
            self.tell()
            self.until_gone(domid)
            self.drop(domid)
        for conn, line in self.lines.items():
            line.ask_all([(Op.RESET_WATCHES, b"\0", 0)])
            line.fetch()
            line.watchful = False
            self.forget(conn)
        names = self.question([(Op.DIRECTORY, b"/\0", 0)])[0][1].split(b"\0")[:-1]
        asks = [(int(Op.RM), b"/%s\0" % name, 0) for name in names if name not in KEPT]
        asks += [(Op.WRITE, b"/\0", 0), (Op.SET_PERMS, b"/\0n0\0", 0)]
        asks += [(Op.SET_PERMS, f"{name}\0n0\0".encode(), 0) for name in SPECIAL]
        self.command(asks)
        counts = {domid: self.nodes_of(domid) for domid in GUESTS}
        assert not any(counts.values()), f"nodes that are not there are counted: {counts}"
        assert self.tree() == {b"/": (b"", (b"n0",), frozenset())}, self.tree()

    def nodes_of(self, domid: int) -> int:
        """How many nodes the daemon thinks that a domain has."""
        ((kind, text),) = self.question([(Op.CONTROL, b"quota\0%d\0" % domid, 0)])
        return 0 if kind == Op.ERROR else node_count(text.rstrip(b"\0").decode())

    def close(self) -> None:
        """Ends the daemon."""
        for line in [*self.lines.values(), self.chief]:
            line.close()
        self.lines.clear()
        self.running.stop(signal.SIGTERM if self.name == OURS else signal.SIGKILL)

    def is_alive(self) -> bool:
        return self.running.is_alive()


def replies_of(packets: Sequence[Packet]) -> Iterator[Packet]:
    return (packet for packet in packets if packet[0] != 15)


__all__ = ["OURS", "STORES", "House", "HungUpError", "Node", "Shown", "Tree", "replies_of"]
