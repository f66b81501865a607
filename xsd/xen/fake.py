"""A hypervisor in memory: domains that exist because somebody says so.

With ``everybody`` it also says yes to every ordinary domain id it is asked about, which is what
a daemon without Xen needs: there is nobody else who could say which domains there are.

With ``rings`` it has pages for them as well, for a simulator that is both sides: it finds a
domain's page and port here and tells whoever serves the rings of events itself.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterable
from dataclasses import dataclass, field

from xsd.xen.api import Channels, HostError, HostListener, Ring

FIRST_RESERVED_DOMID = 0x7FF0
PAGE_BYTES = 4096


@dataclass(slots=True)
class FakeDomain:
    """A domain, and whether it has shut down."""

    shut_down: bool = False


@dataclass(slots=True)
class FakeRing:
    """A page and the number of the port that means it."""

    page: mmap.mmap
    port: int


@dataclass(slots=True)
class FakeHost:
    """Domains by id; 0 is always there. Ports have numbers that are never used again."""

    everybody: bool = False
    rings: bool = False
    known: dict[int, FakeDomain] = field(default_factory=lambda: {0: FakeDomain()})
    _mapped: dict[int, FakeRing] = field(default_factory=dict)
    _last_port: int = 0
    _listeners: list[HostListener] = field(default_factory=list)

    @property
    def channels(self) -> Channels | None:
        """None: events do not come through a descriptor."""
        return None

    def start(self, listener: HostListener) -> None:
        """Tells ``listener`` of every death and shutdown from now on."""
        self._listeners.append(listener)

    def close(self) -> None:
        """Forgets all rings."""
        self._mapped.clear()

    def exists(self, domid: int) -> bool:
        """Whether there is a domain of this id."""
        return domid in self.known or (self.everybody and 0 <= domid < FIRST_RESERVED_DOMID)

    def domains(self) -> Iterable[int]:
        """The domains that somebody has named, in order."""
        return sorted(self.known)

    def own_ring(self) -> Ring | None:
        """The ring of domain 0, when there are rings."""
        return self.introduce(0, 0, 0)

    def introduce(self, domid: int, gfn: int, port: int) -> Ring | None:
        """Makes a page of zeros, or finds the one there is, with a new port, when there are rings.

        Raises HostError ENOENT when there is no such domain.
        """
        if not self.exists(domid):
            raise HostError("ENOENT", f"domain {domid} does not exist")
        self.known.setdefault(domid, FakeDomain())
        if not self.rings:
            return None
        mapped = self._mapped.get(domid)
        self._last_port += 1
        if mapped is None:
            mapped = self._mapped[domid] = FakeRing(mmap.mmap(-1, PAGE_BYTES), self._last_port)
        mapped.port = self._last_port
        # The page is where it is for as long as the mmap lives; ctypes only tells where.
        return Ring(ctypes.addressof(ctypes.c_char.from_buffer(mapped.page)), mapped.port)

    def release(self, domid: int) -> None:
        """Forgets the ring; its page goes when nobody looks at it any more."""
        self._mapped.pop(domid, None)

    def event(self, port: int) -> None:
        """Nothing: what happens to domains is told at once."""

    def page(self, domid: int) -> memoryview:
        """The ring of a domain as the domain sees it. Raises KeyError when there is none."""
        return memoryview(self._mapped[domid].page)

    def port(self, domid: int) -> int:
        """The port that means the domain's ring. Raises KeyError when there is none."""
        return self._mapped[domid].port

    def create(self, domid: int) -> None:
        """A domain comes into being. Raises ValueError when there is one of that id."""
        if domid in self.known:
            raise ValueError(f"domain {domid} exists")
        self.known[domid] = FakeDomain()

    def shutdown(self, domid: int) -> None:
        """A domain shuts down, once. Raises KeyError when there is none."""
        domain = self.known[domid]
        if not domain.shut_down:
            domain.shut_down = True
            for listener in self._listeners:
                listener.domain_shutdown(domid)

    def destroy(self, domid: int) -> None:
        """A domain dies; its ring stays until released. Raises KeyError when there is none."""
        del self.known[domid]
        for listener in self._listeners:
            listener.domain_died(domid)
