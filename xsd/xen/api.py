"""What the daemon asks of a hypervisor, as one small protocol.

Implemented by :mod:`xsd.xen.fake` in memory. Nothing above this seam knows which it talks to.
"""

from __future__ import annotations

from collections.abc import Callable
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
        """The domain has shut down and still exists."""


class Host(Protocol):
    """A hypervisor with its domains."""

    def exists(self, domid: int) -> bool:
        """Whether there is a domain of this id."""

    def introduce(self, domid: int, gfn: int, port: int) -> None:
        """Maps the domain's ring and binds its event channel, or binds it anew.

        ``gfn`` is the guest frame of the ring, ``port`` the domain's end of the channel.
        Raises :class:`HostError`.
        """

    def release(self, domid: int) -> None:
        """Unmaps and unbinds; nothing happens when there is nothing to undo."""

    def listen(self, listener: HostListener) -> None:
        """Tells ``listener`` of every death and shutdown from now on."""


Clock = Callable[[], int]
"""Monotonic time in nanoseconds."""
