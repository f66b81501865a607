"""What the daemon asks of a hypervisor, as one small protocol.

Implemented by :mod:`xsd.xen.real` with Xen's libraries and by :mod:`xsd.xen.fake` in memory.
Nothing above this seam knows which it talks to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol


class HostError(Exception):
    """Something could not be done; ``errno`` is the name of the error on the wire."""

    def __init__(self, errno: str, why: str) -> None:
        super().__init__(why)
        self.errno = errno


class HostListener(Protocol):
    """Who is told what happens to domains."""

    def domain_died(self, domid: int) -> None:
        """The domain is gone."""

    def domain_shutdown(self, domid: int) -> None:
        """The domain has shut down and still exists; may be told again while it stays so."""


@dataclass(frozen=True, slots=True)
class Ring:
    """A domain's ring as the daemon holds it."""

    address: int
    """Of the mapped page, 4096 bytes, readable and writable until the domain is released."""
    port: int
    """Our end of its event channel; events of this port mean this ring."""


@dataclass(frozen=True, slots=True)
class Channels:
    """How events come and go, for who serves the rings without the interpreter."""

    fd: int
    """Non-blocking. Reading gives the ports that have events, an unsigned 32-bit number each,
    and masks them; writing such numbers unmasks them."""
    notify: int
    """Address of ``int notify(void *handle, uint32_t port)``, which sends an event."""
    handle: int
    """Its first argument."""


class Host(Protocol):
    """A hypervisor with its domains."""

    @property
    def channels(self) -> Channels | None:
        """The event channels; None when there are no rings to serve."""

    def start(self, listener: HostListener) -> None:
        """Tells ``listener`` of every death and shutdown from now on. Called once."""

    def close(self) -> None:
        """Gives everything back; rings must not be touched any more."""

    def exists(self, domid: int) -> bool:
        """Whether there is a domain of this id that is not dying. Raises :class:`HostError`."""

    def domains(self) -> Iterable[int]:
        """All domains there are now, in order of their ids, our own included.

        Raises :class:`HostError`. May ask about every id there can be: for the start only.
        """

    def own_ring(self) -> Ring | None:
        """The ring of the domain that we run in, whose kernel offers it to us; None: no rings.

        Raises :class:`HostError`.
        """

    def introduce(self, domid: int, gfn: int, port: int) -> Ring | None:
        """Maps the domain's ring and binds its event channel, or binds a known one anew.

        ``gfn`` is the guest frame of the ring, ``port`` the domain's end of the channel; a port
        that stands in the page is taken instead, and with 0 there must be one. The port of an
        earlier :class:`Ring` of this domain is no longer ours afterwards, also in case of
        failure. None when there are no rings. Raises :class:`HostError`: EBUSY means that the
        earlier domain of this id has not been cleared away.
        """

    def release(self, domid: int) -> None:
        """Unmaps and unbinds; nothing happens when there is nothing to undo."""

    def event(self, port: int) -> None:
        """An event on a port that is no ring's: the hypervisor has news of some domain."""


Clock = Callable[[], int]
"""Monotonic time in nanoseconds."""
