"""One way to drive a whole store, whatever stands behind it: the oracle or the real engine.

A world has a (fake) hypervisor, a clock, and clients. Everything is synchronous: when a call
returns, the request has been served and whatever it caused is queued. So the same test runs
against both worlds, and a state machine can keep the two side by side.
"""

from __future__ import annotations

import importlib
import importlib.util
import struct
from collections.abc import Callable
from typing import Any, Protocol

import model
from model_tree import OK, SOCKET, Msg, Packet, parent, perms_text

__all__ = ["OK", "Client", "EngineWorld", "Link", "ModelWorld", "Msg", "Packet", "World", "strings"]

COUNTED = ("nodes", "watches", "transactions", "memory")
PORT = 7


class Link(Protocol):
    """One connection in a world."""

    def send(self, type: int, payload: bytes = b"", tx: int = 0, req: int = 0) -> None: ...

    def drain(self) -> list[Packet]:
        """Everything queued for this connection, in order."""


class Client:
    """A connection with the requests spelled out.

    Requests return the payload of the reply as bytes, or the errno name as str; listings return
    a list of bytes or the errno name. Events met on the way are kept for `events`.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self.seen: list[tuple[bytes, bytes]] = []
        self.req = 0

    def send(self, type: int, payload: bytes = b"", tx: int = 0, req: int = 0) -> None:
        self.link.send(type, payload, tx, req)

    def drain(self) -> list[Packet]:
        return self.link.drain()

    def call(self, type: int, payload: bytes = b"", tx: int = 0) -> Packet:
        """Send one request and return its reply packet; AssertionError if it is not the one."""
        self.collect()
        self.req += 1
        self.send(type, payload, tx, self.req)
        packets = self.drain()
        self.seen += [event_of(packet) for packet in packets if packet.type == Msg.WATCH_EVENT]
        (reply,) = [packet for packet in packets if packet.type != Msg.WATCH_EVENT]
        assert (reply.req_id, reply.tx_id) == (self.req, tx)
        assert reply.type in (type, Msg.ERROR)
        return reply

    def ask(self, type: int, payload: bytes = b"", tx: int = 0) -> bytes | str:
        """The payload of the reply, or the name of the error."""
        reply = self.call(type, payload, tx)
        if reply.type == Msg.ERROR:
            assert reply.payload.endswith(b"\0")
            return reply.payload[:-1].decode()
        return reply.payload

    def collect(self) -> None:
        packets = self.drain()
        assert all(packet.type == Msg.WATCH_EVENT for packet in packets)
        self.seen += [event_of(packet) for packet in packets]

    def events(self) -> list[tuple[bytes, bytes]]:
        """The (path, token) of every event since the last time, in order."""
        self.collect()
        seen, self.seen = self.seen, []
        return seen

    def read(self, path: bytes, tx: int = 0) -> bytes | str:
        return self.ask(Msg.READ, path + b"\0", tx)

    def write(self, path: bytes, value: bytes = b"", tx: int = 0) -> bytes | str:
        return self.ask(Msg.WRITE, path + b"\0" + value, tx)

    def mkdir(self, path: bytes, tx: int = 0) -> bytes | str:
        return self.ask(Msg.MKDIR, path + b"\0", tx)

    def rm(self, path: bytes, tx: int = 0) -> bytes | str:
        return self.ask(Msg.RM, path + b"\0", tx)

    def ls(self, path: bytes, tx: int = 0) -> list[bytes] | str:
        names = self.ask(Msg.DIRECTORY, path + b"\0", tx)
        return names if isinstance(names, str) else names.split(b"\0")[:-1]

    def getperms(self, path: bytes, tx: int = 0) -> list[bytes] | str:
        entries = self.ask(Msg.GET_PERMS, path + b"\0", tx)
        return entries if isinstance(entries, str) else entries.split(b"\0")[:-1]

    def setperms(self, path: bytes, *entries: bytes, tx: int = 0) -> bytes | str:
        return self.ask(Msg.SET_PERMS, strings(path, *entries), tx)

    def watch(self, path: bytes, token: bytes, depth: bytes | None = None) -> bytes | str:
        """Register a watch and put aside its first event, which is checked."""
        before = self.events()
        last = () if depth is None else (depth,)
        answer = self.ask(Msg.WATCH, strings(path, token, *last))
        if answer == OK:
            assert self.events() == [(path, token)]
        self.seen = before
        return answer

    def unwatch(self, path: bytes, token: bytes) -> bytes | str:
        return self.ask(Msg.UNWATCH, strings(path, token))

    def start(self) -> int:
        """Start a transaction; its id."""
        answer = self.ask(Msg.TRANSACTION_START, b"\0")
        assert isinstance(answer, bytes), answer
        assert answer.endswith(b"\0")
        return int(answer[:-1])

    def end(self, tx: int, commit: bool = True) -> bytes | str:
        return self.ask(Msg.TRANSACTION_END, b"T\0" if commit else b"F\0", tx)


def strings(*texts: bytes) -> bytes:
    return b"".join(text + b"\0" for text in texts)


def event_of(packet: Packet) -> tuple[bytes, bytes]:
    assert (packet.req_id, packet.tx_id) == (0, 0)
    path, token, rest = packet.payload.split(b"\0")
    assert rest == b""
    return path, token


class World(Protocol):
    """A store with its surroundings; `domains` are the domids the hypervisor knows."""

    domains: set[int]

    def socket(self) -> Client: ...

    def guest(self, domid: int) -> Client:
        """Create the domain if there is none and introduce it if it is not."""

    def kill(self, domid: int) -> None:
        """The domain dies in the hypervisor."""

    def shutdown(self, domid: int) -> None:
        """The domain shuts down, but stays."""

    def close(self, client: Client) -> None: ...

    def advance(self, seconds: float) -> None: ...

    def tree(self) -> dict[bytes, tuple[bytes, bytes]]:
        """Absolute path, special nodes included, to value and permissions as GET_PERMS has them."""

    def counts(self) -> dict[int, dict[str, int]]:
        """What each domid is charged with; entries that are not zero.

        The memory of a domid with open transactions is left out, as each world keeps those in
        its own way.
        """

    def check(self) -> None:
        """Raise AssertionError if the inner structures contradict each other."""


def engine_is_built() -> bool:
    try:
        return importlib.util.find_spec("xsd.core.engine") is not None
    except ModuleNotFoundError:
        return False


def introduce(world: World, domid: int) -> None:
    client = world.socket()
    assert client.ask(Msg.INTRODUCE, strings(b"%d" % domid, b"1", b"%d" % PORT)) == OK
    world.close(client)


def comparable(counts: dict[int, dict[str, int]]) -> dict[int, dict[str, int]]:
    kept = {
        domid: {
            name: by_name[name]
            for name in COUNTED
            if by_name.get(name) and not (name == "memory" and by_name.get("transactions"))
        }
        for domid, by_name in counts.items()
    }
    return {domid: by_name for domid, by_name in kept.items() if by_name}


class ModelLink:
    """A connection of the oracle."""

    def __init__(self, oracle: model.Model, connection: model.Connection) -> None:
        self.oracle = oracle
        self.connection = connection

    def send(self, type: int, payload: bytes = b"", tx: int = 0, req: int = 0) -> None:
        self.oracle.request(self.connection, type, req, tx, payload)

    def drain(self) -> list[Packet]:
        packets = [queued.packet for queued in self.connection.queue]
        self.connection.queue.clear()
        return packets


class ModelWorld:
    """The oracle as a world."""

    def __init__(self) -> None:
        self.oracle = model.Model()
        self.domains = self.oracle.host

    def socket(self) -> Client:
        return Client(ModelLink(self.oracle, self.oracle.open(SOCKET, 0)))

    def guest(self, domid: int) -> Client:
        self.domains.add(domid)
        if self.oracle.ring_of(domid) is None:
            introduce(self, domid)
        connection = self.oracle.ring_of(domid)
        assert connection is not None
        return Client(ModelLink(self.oracle, connection))

    def kill(self, domid: int) -> None:
        self.oracle.domain_died(domid)

    def shutdown(self, domid: int) -> None:
        self.oracle.domain_shutdown(domid)

    def close(self, client: Client) -> None:
        assert isinstance(client.link, ModelLink)
        self.oracle.close(client.link.connection)

    def advance(self, seconds: float) -> None:
        self.oracle.advance(int(seconds * 1e9))

    def tree(self) -> dict[bytes, tuple[bytes, bytes]]:
        return {
            path: (node.value, perms_text(node.perms)) for path, node in self.oracle.live.items()
        }

    def counts(self) -> dict[int, dict[str, int]]:
        return comparable(self.oracle.counts())

    def check(self) -> None:
        for path in self.oracle.live:
            assert parent(path) in self.oracle.live


class EngineLink:
    """A connection of the engine; frames go in as bytes and are cut again on the way out."""

    def __init__(self, world: EngineWorld, cid: int) -> None:
        self.world = world
        self.cid = cid
        self.partial = b""

    def send(self, type: int, payload: bytes = b"", tx: int = 0, req: int = 0) -> None:
        self.world.feed(self.cid, struct.pack("=4I", type, req, tx, len(payload)) + payload)

    def drain(self) -> list[Packet]:
        data = self.world.take(self.cid)
        packets: list[Packet] = []
        while data:
            kind, req, tx, length = struct.unpack_from("=4I", data)
            assert len(data) >= 16 + length
            packets.append(Packet(kind, req, tx, data[16 : 16 + length]))
            data = data[16 + length :]
        return packets


class EngineWorld:
    """The engine as a world: answers its questions to the hypervisor, owns its clock."""

    def __init__(self) -> None:
        # The engine is a compiled module without annotations for this process to check against.
        module: Any = importlib.import_module("xsd.core.engine")
        self.engine: Any = module.Engine(seed=0)
        self.closed_bit: int = module.CLOSE
        self.tick_bit: int = module.TICK
        self.domains = {0}
        self.now = 0
        self.open_cids: set[int] = set()
        self.rings: dict[int, int] = {}
        self.unread: dict[int, bytes] = {}

    def socket(self) -> Client:
        cid = self.engine.open(self.now, SOCKET, 0)
        self.open_cids.add(cid)
        return Client(EngineLink(self, cid))

    def guest(self, domid: int) -> Client:
        self.domains.add(domid)
        if self.engine.domain_conn(domid) < 0:
            introduce(self, domid)
        cid = self.engine.domain_conn(domid)
        self.open_cids.add(cid)
        self.rings[domid] = cid
        return Client(EngineLink(self, cid))

    def feed(self, cid: int, data: bytes) -> None:
        if cid in self.open_cids:
            self.pass_on(cid, data)
            self.settle()

    def bring(self, cid: int, data: bytes) -> int:
        """What the engine said of these bytes; what it had no memory for stays in the ring."""
        data = self.unread.pop(cid, b"") + data
        try:
            flags: int = self.engine.feed(self.now, cid, data)
        except BlockingIOError as blocked:
            self.unread[cid] = data[blocked.characters_written :]
            return self.tick_bit
        return flags

    def pass_on(self, cid: int, data: bytes) -> None:
        flags = self.bring(cid, data)
        if flags & self.closed_bit:
            self.open_cids.discard(cid)
            self.engine.close(self.now, cid)

    def take(self, cid: int) -> bytes:
        data: bytes = self.engine.take(cid) if cid in self.open_cids else b""
        return data

    def settle(self) -> None:
        """Play the hypervisor and the control plane until the engine asks for nothing."""
        answers: dict[str, Callable[[tuple[Any, ...]], tuple[str, bytes]]] = {
            "domain": lambda args: ("" if args[0] in self.domains else "ENOENT", b""),
            "introduce": lambda args: ("" if args[0] in self.domains else "ENOENT", b""),
            "control": lambda args: ("", OK),
        }
        while True:
            while (effect := self.engine.next_effect()) is not None:
                effect_id, kind, _cid, args = effect
                if kind == "release":
                    # The engine may give the id of the connection to another one.
                    self.open_cids.discard(self.rings.pop(args[0], -1))
                if kind in answers:
                    self.engine.complete(self.now, effect_id, *answers[kind](args))
            cid = self.engine.next_runnable()
            if cid < 0:
                return
            self.pass_on(cid, b"")

    def kill(self, domid: int) -> None:
        self.domains.discard(domid)
        self.engine.domain_died(self.now, domid)
        self.settle()

    def shutdown(self, domid: int) -> None:
        self.engine.domain_shutdown(self.now, domid)
        self.settle()

    def close(self, client: Client) -> None:
        assert isinstance(client.link, EngineLink)
        if client.link.cid in self.open_cids:
            self.open_cids.discard(client.link.cid)
            self.engine.close(self.now, client.link.cid)

    def advance(self, seconds: float) -> None:
        self.now += int(seconds * 1e9)
        self.engine.tick(self.now)
        self.settle()

    def tree(self) -> dict[bytes, tuple[bytes, bytes]]:
        tree: dict[bytes, tuple[bytes, bytes]] = self.engine.tree()
        return tree

    def counts(self) -> dict[int, dict[str, int]]:
        return comparable(self.engine.counts())

    def check(self) -> None:
        self.engine.check()
