"""A hypervisor in memory: domains that exist because somebody says so.

With ``everybody`` it also says yes to every ordinary domain id it is asked about, which is what
a daemon without Xen needs: there is nobody else who could say which domains there are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from xsd.xen.api import HostError, HostListener

FIRST_RESERVED_DOMID = 0x7FF0


@dataclass(slots=True)
class FakeDomain:
    """A domain: whether its ring is mapped, with what, and whether it has shut down."""

    ring: tuple[int, int] | None = None
    shut_down: bool = False


@dataclass(slots=True)
class FakeHost:
    """Domains by id; 0 is always there."""

    everybody: bool = False
    domains: dict[int, FakeDomain] = field(default_factory=lambda: {0: FakeDomain()})
    _listeners: list[HostListener] = field(default_factory=list)

    def exists(self, domid: int) -> bool:
        """Whether there is a domain of this id."""
        return domid in self.domains or (self.everybody and 0 <= domid < FIRST_RESERVED_DOMID)

    def introduce(self, domid: int, gfn: int, port: int) -> None:
        """Notes the ring. Raises HostError ENOENT when there is no such domain."""
        if not self.exists(domid):
            raise HostError("ENOENT", f"domain {domid} does not exist")
        self.domains.setdefault(domid, FakeDomain()).ring = (gfn, port)

    def release(self, domid: int) -> None:
        """Forgets the ring."""
        if domid in self.domains:
            self.domains[domid].ring = None

    def listen(self, listener: HostListener) -> None:
        """Tells ``listener`` of every death and shutdown from now on."""
        self._listeners.append(listener)

    def create(self, domid: int) -> None:
        """A domain comes into being. Raises ValueError when there is one of that id."""
        if domid in self.domains:
            raise ValueError(f"domain {domid} exists")
        self.domains[domid] = FakeDomain()

    def shutdown(self, domid: int) -> None:
        """A domain shuts down, once. Raises KeyError when there is none."""
        domain = self.domains[domid]
        if not domain.shut_down:
            domain.shut_down = True
            for listener in self._listeners:
                listener.domain_shutdown(domid)

    def destroy(self, domid: int) -> None:
        """A domain dies. Raises KeyError when there is none."""
        del self.domains[domid]
        for listener in self._listeners:
            listener.domain_died(domid)
