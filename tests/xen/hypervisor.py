"""The hypervisor's side of a fake Xen: domains are created and die, guests use their rings.

    xen = Hypervisor(directory)
    guest = xen.create(5)
    client.introduce(guest.domid, guest.gfn, guest.port)
    guest.ask(Op.READ, b"domid\\0")
    xen.destroy(5)

What the daemon holds of each domain is counted: ``xen.held(5)``, ``xen.totals()``.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from xsd.client.wire import HEADER, Op

from .build import library

SECONDS = 20.0
"""How long a guest waits for the daemon unless told otherwise."""

PAGE = 4096
RING = 1024
_REQUEST, _RESPONSE = 0, RING
_WORDS = 2 * RING // 4
REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD, FEATURES, STATE, ERROR, PORT = range(_WORDS, _WORDS + 8)
"""The words of a ring page, by their number."""

CONNECTED, RECONNECT = 0, 1

EXISTS, DYING, SHUTDOWN, DEAD, HVM, NO_GRANT, NO_FOREIGN = (1 << bit for bit in range(7))
"""Flags of a domain."""

POWEROFF, REBOOT, SUSPEND, CRASH = range(4)
"""Why a domain has shut down."""

BOUND, MASKED, PENDING = 1, 2, 4
"""State of a port of the daemon."""

FOREVER = 0xFFFFFFFF

_DOMAINS, _PORTS, _RULES, _BITMAP = 0x7FF0, 0x8000, 16, 0x7FF0 // 64 + 1
_WRAP = 1 << 32


class _Domain(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint32),
        ("shutdown_reason", ctypes.c_uint32),
        ("unique", ctypes.c_uint64),
        ("handle", ctypes.c_uint8 * 16),
        ("gfn", ctypes.c_uint64),
        ("port", ctypes.c_uint32),
        ("local", ctypes.c_uint32),
        ("mailbox", ctypes.c_uint32),
        ("waiting", ctypes.c_uint32),
        ("capabilities", ctypes.c_uint32),
        ("granted", ctypes.c_uint32),
        ("foreign", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
        ("kicks", ctypes.c_uint64),
        ("notifications", ctypes.c_uint64),
        ("cpu_ns", ctypes.c_uint64),
        ("unused", ctypes.c_uint8 * 32),
    )


class _Port(ctypes.Structure):
    _fields_ = (
        ("state", ctypes.c_uint32),
        ("domid", ctypes.c_uint32),
        ("unique", ctypes.c_uint64),
    )


class _Rule(ctypes.Structure):
    _fields_ = (
        ("call", ctypes.c_char * 48),
        ("error", ctypes.c_int32),
        ("after", ctypes.c_uint32),
        ("times", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
    )


class _Shared(ctypes.Structure):
    _fields_ = (
        ("magic", ctypes.c_uint32),
        ("owner", ctypes.c_uint32),
        ("virq", ctypes.c_uint32),
        ("ports_bound", ctypes.c_uint32),
        ("handles", ctypes.c_uint32 * 5),
        ("overflows", ctypes.c_uint32),
        ("last_unique", ctypes.c_uint64),
        ("notifications", ctypes.c_uint64),
        ("unmask_calls", ctypes.c_uint64),
        ("unmasked_ports", ctypes.c_uint64),
        ("pages_mapped", ctypes.c_uint32),
        ("rules_set", ctypes.c_uint32),
        ("rules", _Rule * _RULES),
        ("present", ctypes.c_uint64 * _BITMAP),
        ("changed", ctypes.c_uint64 * _BITMAP),
        ("ports", _Port * _PORTS),
        ("domains", _Domain * _DOMAINS),
    )


@cache
def _functions() -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(library()), use_errno=True)
    handle, number = ctypes.c_void_p, ctypes.c_uint32
    signatures: dict[str, tuple[object, list[object]]] = {
        "open": (handle, [ctypes.c_char_p]),
        "close": (None, [handle]),
        "shared": (ctypes.POINTER(_Shared), [handle]),
        "shared_size": (ctypes.c_size_t, []),
        "create": (ctypes.c_int, [handle, number, number, ctypes.c_uint64, number]),
        "set_flags": (None, [handle, number, number]),
        "destroy": (None, [handle, number]),
        "raise": (ctypes.c_int, [handle, number]),
        "kick": (ctypes.c_int, [handle, number]),
        "virq": (ctypes.c_int, [handle]),
        "mailbox": (ctypes.c_int, [handle, number]),
        "take": (ctypes.c_int, [handle, ctypes.c_int, ctypes.POINTER(number), ctypes.c_size_t]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(loaded, f"hypervisor_{name}")
        function.restype, function.argtypes = result, arguments
    assert loaded.hypervisor_shared_size() == ctypes.sizeof(_Shared)
    return loaded


def _good(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


class Held(NamedTuple):
    """What the daemon holds of one domain at the moment."""

    granted: int
    """Pages mapped by grant reference."""
    foreign: int
    """Pages mapped by frame; not those that are mapped by ``xc_map_foreign_range``."""
    bound: bool
    """Whether its event channel is bound."""


NOTHING = Held(0, 0, False)


class Totals(NamedTuple):
    """What the daemon holds in all."""

    pages: int
    ports: int
    """Bound ports, that of the virtual interrupt included."""
    handles: dict[str, int]
    """Open handles by library; only those that are open."""


class Counters(NamedTuple):
    """What the daemon did with its event channels since the directory was made."""

    notifications: int
    unmask_calls: int
    """Writes to the device, each of which unmasks any number of ports."""
    unmasked_ports: int


class Hypervisor:
    """A directory as a hypervisor; several objects and processes can share one."""

    def __init__(self, directory: Path) -> None:
        """Makes whatever is missing, domain 0 included; raises OSError."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory.absolute()
        self._functions = _functions()
        self._handle: int | None = self._functions.hypervisor_open(os.fsencode(self.directory))
        if self._handle is None:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(directory))
        self._shared: _Shared = self._functions.hypervisor_shared(self._handle).contents
        self._guests: list[Guest] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the directory and of its guests' pages."""
        for guest in self._guests:
            guest.close()
        self._guests.clear()
        if self._handle is not None:
            self._functions.hypervisor_close(self._handle)
            self._handle = None

    # -- domains --------------------------------------------------------------------------------

    def create(
        self,
        domid: int,
        *,
        port: int = 3,
        gfn: int | None = None,
        flags: int = 0,
        virq: bool = False,
    ) -> Guest:
        """A new domain that has an empty page; also one that takes the domid of another.

        ``flags`` are such as NO_GRANT and HVM. ``virq`` tells the daemon, as newer hypervisors do.
        """
        frame = 1000 + domid if gfn is None else gfn
        _good(self._functions.hypervisor_create(self._handle, domid, port, frame, domid + 1))
        if flags:
            self.set_flags(domid, EXISTS | flags)
        if virq:
            self.virq()
        return self.guest(domid)

    def guest(self, domid: int) -> Guest:
        """Plays a domain that is there, domain 0 for example."""
        domain = self._domain(domid)
        domain.mailbox = domid + 1
        guest = Guest(self, domid)
        domain.waiting = 0  # what an earlier reader of the mailbox left is not in it any more
        self._guests.append(guest)
        return guest

    def shutdown(self, domid: int, reason: int = POWEROFF, *, virq: bool = True) -> None:
        """The domain stops and still exists."""
        self._domain(domid).shutdown_reason = reason
        self.set_flags(domid, self.flags(domid) | SHUTDOWN)
        if virq:
            self.virq()

    def resume(self, domid: int) -> None:
        """The domain runs again; nobody is told by the hypervisor."""
        self.set_flags(domid, self.flags(domid) & ~SHUTDOWN)

    def start_dying(self, domid: int, *, dead: bool = False, virq: bool = True) -> None:
        """The domain is being destroyed; ``dead``: all of it that nobody else holds is gone."""
        self.set_flags(domid, self.flags(domid) | DYING | (DEAD if dead else 0))
        if virq:
            self.virq()

    def destroy(self, domid: int, *, virq: bool = True) -> None:
        """The domain is gone at once."""
        self._functions.hypervisor_destroy(self._handle, domid)
        if virq:
            self.virq()

    def flags(self, domid: int) -> int:
        """What is known of a domain: EXISTS, DYING and so on."""
        return int(self._domain(domid).flags)

    def set_flags(self, domid: int, flags: int) -> None:
        """Sets all flags; the daemon is not told."""
        self._functions.hypervisor_set_flags(self._handle, domid, flags)

    def set_port(self, domid: int, port: int) -> None:
        """The domain offers another port, not bound yet; the daemon's end of the old one is dead.

        For example after it was suspended and resumed.
        """
        domain = self._domain(domid)
        domain.local, domain.port = 0, port

    def set_gfn(self, domid: int, gfn: int) -> None:
        """The page gets another frame number."""
        self._domain(domid).gfn = gfn

    def set_capabilities(self, domid: int, bits: int) -> None:
        """1: control, 2: hardware, 4: xenstore."""
        self._domain(domid).capabilities = bits

    def set_cpu_ns(self, domid: int, nanoseconds: int) -> None:
        """How long the domain has run; 0 at its creation."""
        self._domain(domid).cpu_ns = nanoseconds

    def handle(self, domid: int) -> bytes:
        """The 16 bytes by which toolstacks know the domain."""
        return bytes(self._domain(domid).handle)

    def set_handle(self, domid: int, handle: bytes) -> None:
        """A toolstack gives the domain another handle, of 16 bytes."""
        self._domain(domid).handle[:] = handle

    def unique(self, domid: int) -> int:
        """The number that no other domain ever had."""
        return int(self._domain(domid).unique)

    def virq(self) -> None:
        """Tells the daemon that there is news of some domain."""
        _good(self._functions.hypervisor_virq(self._handle))

    # -- what the daemon does -------------------------------------------------------------------

    def held(self, domid: int) -> Held:
        """What the daemon holds of the domain that has this domid now, or had it last."""
        domain = self._domain(domid)
        ports = [(port.domid, port.unique) for port in self._bound_ports()]
        return Held(domain.granted, domain.foreign, (domid, domain.unique) in ports)

    def _bound_ports(self) -> Iterator[_Port]:
        """The ports are given out from the lowest on: no need to look at all there can be."""
        left = self._shared.ports_bound
        for port in self._shared.ports:
            if left == 0:
                return
            if port.state:
                left -= 1
                yield port

    def totals(self) -> Totals:
        """What the daemon holds of everybody."""
        names = ("evtchn", "gnttab", "foreign", "ctrl", "manage")
        return Totals(
            pages=self._shared.pages_mapped,
            ports=self._shared.ports_bound,
            handles={
                name: count
                for name, count in zip(names, self._shared.handles, strict=True)
                if count
            },
        )

    def counters(self) -> Counters:
        """What the daemon did so far."""
        shared = self._shared
        assert shared.overflows == 0
        return Counters(shared.notifications, shared.unmask_calls, shared.unmasked_ports)

    def notifications(self, domid: int) -> int:
        """How many events the daemon sent to a domain in its life."""
        return int(self._domain(domid).notifications)

    def local_port(self, domid: int) -> int:
        """The daemon's end of a domain's event channel, 0 while it is not bound."""
        return int(self._domain(domid).local)

    def virq_port(self) -> int:
        """The daemon's port of the virtual interrupt, 0 while it is not bound."""
        return int(self._shared.virq)

    def port_state(self, port: int) -> int:
        """BOUND, MASKED, PENDING of a port of the daemon."""
        return int(self._shared.ports[port].state)

    def raise_port(self, port: int) -> None:
        """An event on a port of the daemon, whoever is at the other end."""
        _good(self._functions.hypervisor_raise(self._handle, port))

    def fail(self, call: str, error: int, *, times: int = FOREVER, after: int = 0) -> None:
        """From now on a function of the libraries fails: ``times`` times, ``after`` good ones.

        ``call`` is its name, for example "xengnttab_map_grant_ref", or "open" for the devices and
        files whose path is fixed; ``error`` an errno. Raises IndexError when there is no room.
        """
        rule = self._free_rule()
        rule.call, rule.error, rule.after, rule.times = call.encode(), error, after, times
        self._shared.rules_set = 1

    def _free_rule(self) -> _Rule:
        for rule in self._shared.rules:
            assert isinstance(rule, _Rule)
            if rule.times == 0:
                return rule
        raise IndexError("all rules are in use")

    def fail_no_more(self) -> None:
        """Everything works again, but for what the environment of the daemon says."""
        self._shared.rules_set = 0
        for rule in self._shared.rules:
            rule.times, rule.call = 0, b""

    # -- for guests -----------------------------------------------------------------------------

    def kick(self, domid: int) -> None:
        """The domain sends an event on its port."""
        _good(self._functions.hypervisor_kick(self._handle, domid))

    def mailbox(self, number: int) -> int:
        """A descriptor that is readable while a notification waits; to be closed."""
        return _good(self._functions.hypervisor_mailbox(self._handle, number))

    def set_mailbox(self, domid: int, number: int) -> None:
        """A domain's notifications go to this mailbox from now on; it must be open already.

        Its :class:`Guest` does not hear them any more.
        """
        self._domain(domid).mailbox = number

    def take(self, mailbox: int) -> list[int]:
        """The domids that have notifications, which counts as having seen them."""
        room = (ctypes.c_uint32 * 64)()
        return list(room[: _good(self._functions.hypervisor_take(self._handle, mailbox, room, 64))])

    def port_of(self, domid: int) -> int:
        """The domain's end of its event channel."""
        return int(self._domain(domid).port)

    def gfn_of(self, domid: int) -> int:
        """The frame of its page."""
        return int(self._domain(domid).gfn)

    def _domain(self, domid: int) -> _Domain:
        assert self._handle is not None, "closed"
        domain = self._shared.domains[domid]
        assert isinstance(domain, _Domain)
        return domain


class Message(NamedTuple):
    """A message as it came out of a ring."""

    op: int
    req_id: int
    tx_id: int
    payload: bytes


def message(op: int, payload: bytes = b"", tx_id: int = 0, req_id: int = 0) -> bytes:
    """A message as it goes over a ring; the payload may be longer than allowed."""
    return HEADER.pack(op, req_id, tx_id, len(payload)) + payload


class Guest:
    """A domain's use of its ring: as the protocol wants it, or in whatever way a test wants.

    A well-behaved guest calls ``ask`` and ``event``. ``send`` and ``receive`` move bytes as far as
    they go. Everything below that is ``words``, ``request_bytes``, ``response_bytes`` and ``kick``:
    nothing there checks, waits or notifies by itself.
    """

    def __init__(self, xen: Hypervisor, domid: int) -> None:
        self.domid = domid
        self.port = xen.port_of(domid)
        self.gfn = xen.gfn_of(domid)
        self.events: list[tuple[bytes, ...]] = []
        self._xen = xen
        self._mailbox = xen.mailbox(domid + 1)
        with open(xen.directory / "pages", "r+b") as file:
            where = (xen.unique(domid) - 1) * PAGE
            self._page = mmap.mmap(file.fileno(), PAGE, offset=where)
        self.bytes = memoryview(self._page)
        """The whole page, to be read and written at will."""
        # A store to a word is one store of four bytes, which struct.pack_into would not be.
        self.words = self.bytes.cast("I")
        """The page as 32-bit words: ``guest.words[REQ_PROD] += 5``."""
        self._buffer = bytearray()
        self._ids = 0
        self._poll = select.poll()
        self._poll.register(self._mailbox, select.POLLIN)

    def close(self) -> None:
        """Lets go of the page and the descriptor; the domain stays what it is."""
        if self._mailbox >= 0:
            self.words.release()
            self.bytes.release()
            self._page.close()
            os.close(self._mailbox)
            self._mailbox = -1

    # -- nothing is checked here ----------------------------------------------------------------

    @property
    def request_bytes(self) -> memoryview:
        """The 1024 bytes of the request ring."""
        return self.bytes[_REQUEST : _REQUEST + RING]

    @property
    def response_bytes(self) -> memoryview:
        """The 1024 bytes of the response ring."""
        return self.bytes[_RESPONSE : _RESPONSE + RING]

    def word(self, number: int) -> int:
        """One word of the page, for example ERROR."""
        return self.words[number]

    def set_word(self, number: int, value: int) -> None:
        """Sets one word, modulo 2**32."""
        self.words[number] = value % _WRAP

    def kick(self) -> None:
        """Sends an event to the daemon."""
        self._xen.kick(self.domid)

    def notified(self) -> bool:
        """Whether the daemon sent an event since the last look; does not wait."""
        return bool(self._xen.take(self._mailbox))

    def wait(self, seconds: float = SECONDS) -> bool:
        """Waits for an event of the daemon; False after that time."""
        return bool(self._poll.poll(max(seconds, 0) * 1000)) and self.notified()

    def until(self, condition: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
        """Waits until something holds, looking again after each event and now and then.

        Raises TimeoutError.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"domain {self.domid}: not within {seconds} s: {what}")
            self.wait(min(left, 0.02))

    # -- bytes ----------------------------------------------------------------------------------

    def room(self) -> int:
        """How many bytes the request ring has room for."""
        return RING - (self.words[REQ_PROD] - self.words[REQ_CONS]) % _WRAP

    def available(self) -> int:
        """How many bytes stand in the response ring."""
        return (self.words[RSP_PROD] - self.words[RSP_CONS]) % _WRAP

    def put(self, data: bytes) -> int:
        """Puts as much as there is room for into the request ring; returns how much. No kick."""
        producer = self.words[REQ_PROD]
        count = min(self.room(), len(data))
        first = min(count, RING - producer % RING)
        start = _REQUEST + producer % RING
        self.bytes[start : start + first] = data[:first]
        self.bytes[_REQUEST : _REQUEST + count - first] = data[first:count]
        self.set_word(REQ_PROD, producer + count)
        return count

    def get(self, most: int = RING) -> bytes:
        """Takes what stands in the response ring, at most that many bytes. No kick."""
        consumer = self.words[RSP_CONS]
        count = min(self.available(), most)
        assert count <= RING, "the daemon broke the response ring"
        first = min(count, RING - consumer % RING)
        start = _RESPONSE + consumer % RING
        data = bytes(self.bytes[start : start + first])
        data += bytes(self.bytes[_RESPONSE : _RESPONSE + count - first])
        self.set_word(RSP_CONS, consumer + count)
        return data

    def send(self, data: bytes, seconds: float = SECONDS) -> None:
        """Sends all, in as many portions as the ring demands; raises TimeoutError.

        Does not read responses meanwhile: a daemon that waits for that never gets on.
        """
        deadline = time.monotonic() + seconds
        while True:
            data = data[self.put(data) :]
            self.kick()
            if not data:
                return
            left = deadline - time.monotonic()
            self.until(lambda: self.room() > 0, "room in the request ring", left)

    def receive(self, size: int, seconds: float = SECONDS) -> bytes:
        """Exactly that many bytes of the response stream; raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while len(self._buffer) < size:
            self.until(lambda: self.available() > 0, "a response", deadline - time.monotonic())
            self._buffer += self.get()
            self.kick()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    # -- messages -------------------------------------------------------------------------------

    def next_message(self, seconds: float = SECONDS) -> Message:
        """The next message of any kind; raises TimeoutError."""
        op, req_id, tx_id, size = HEADER.unpack(self.receive(HEADER.size, seconds))
        return Message(op, req_id, tx_id, self.receive(size, seconds))

    def reply(self, seconds: float = SECONDS) -> Message:
        """The next message that is no event; events on the way go to ``events``."""
        while (got := self.next_message(seconds)).op == Op.WATCH_EVENT:
            self._note(got)
        return got

    def event(self, seconds: float = SECONDS) -> tuple[bytes, ...]:
        """The oldest event that was not fetched yet: path and token."""
        if not self.events:
            got = self.next_message(seconds)
            assert got.op == Op.WATCH_EVENT, got
            self._note(got)
        return self.events.pop(0)

    def _note(self, got: Message) -> None:
        assert (got.req_id, got.tx_id) == (0, 0), got
        self.events.append(tuple(got.payload.split(b"\0")[:-1]))

    def ask(
        self, op: int, payload: bytes = b"", tx_id: int = 0, seconds: float = SECONDS
    ) -> str | bytes:
        """One request and its reply: the payload, or the name of the error as a string.

        Asserts that the reply repeats what it has to repeat; raises TimeoutError.
        """
        self._ids += 1
        self.send(message(op, payload, tx_id, self._ids), seconds)
        got = self.reply(seconds)
        assert (got.req_id, got.tx_id) == (self._ids, tx_id), got
        if got.op == Op.ERROR:
            assert got.payload.endswith(b"\0"), got
            return got.payload[:-1].decode()
        assert got.op == op, got
        return got.payload

    def read(self, path: str) -> str | bytes:
        """The value of a node, or the name of an error."""
        return self.ask(Op.READ, path.encode() + b"\0")

    def write(self, path: str, value: bytes) -> str | bytes:
        """Sets the value of a node; ``b"OK\\0"`` or the name of an error."""
        return self.ask(Op.WRITE, path.encode() + b"\0" + value)

    def watch(self, path: str, token: str) -> str | bytes:
        """Sets a watch; its first event is not fetched."""
        return self.ask(Op.WATCH, f"{path}\0{token}\0".encode())

    def unwatch(self, path: str, token: str) -> str | bytes:
        """Removes a watch."""
        return self.ask(Op.UNWATCH, f"{path}\0{token}\0".encode())

    # -- reconnecting ---------------------------------------------------------------------------

    def request_reconnect(self) -> None:
        """Writes the state word and kicks; what was half received is forgotten."""
        self._buffer.clear()
        self.events.clear()
        self.set_word(STATE, RECONNECT)
        self.kick()

    def reconnect(self, seconds: float = SECONDS) -> None:
        """Asks for a new connection and waits for it; raises TimeoutError."""
        self.request_reconnect()
        self.until(lambda: self.words[STATE] == CONNECTED, "the new connection", seconds)
