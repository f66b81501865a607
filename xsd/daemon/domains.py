"""Domains: what the hypervisor, the engine and the rings have to be told of each other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from xsd.xen.api import Clock, Host, HostError

if TYPE_CHECKING:
    from xsd.core.engine import Engine
    from xsd.io.rings import Rings

_logger = logging.getLogger("xsd.daemon.domains")


class Domains:
    """Keeps hypervisor, engine and rings of one mind about which domains there are."""

    def __init__(self, engine: Engine, host: Host, clock: Clock) -> None:
        self._engine = engine
        self._host = host
        self._clock = clock
        self.rings: Rings | None = None
        """Who serves the rings; None when there is no hypervisor that has any."""
        self.changed: Callable[[], None] = lambda: None
        """Called when the engine was told something from outside of a turn."""

    def start(self, own_domid: int, own_ring: bool) -> None:
        """Takes over the domains there are: our own by the ring that its kernel offers, others
        whose page names an event channel.

        Raises HostError when our own domain's ring cannot be had; others only miss theirs.
        """
        self._host.start(self)
        if self.rings is None:
            return
        if own_ring and (ring := self._host.own_ring()) is not None:
            self._engine.introduce(self._clock(), own_domid)
            self.rings.attach(own_domid, ring.address, ring.port)
            _logger.info("domain %d introduced, our own", own_domid)
        for domid in self._host.domains():
            if domid != own_domid:
                self._take_over(domid)
        self.changed()

    def _take_over(self, domid: int) -> None:
        try:
            ring = self._host.introduce(domid, 0, 0)
        except HostError as failure:
            # As good as all domains that a toolstack introduces in its own time.
            _logger.debug("domain %d waits to be introduced: %s", domid, failure)
            return
        if ring is not None and self.rings is not None:
            self._engine.introduce(self._clock(), domid)
            self.rings.attach(domid, ring.address, ring.port)
            _logger.info("domain %d introduced, found running", domid)

    def exists(self, domid: int) -> bool:
        """Whether the hypervisor knows the domain."""
        return self._host.exists(domid)

    def introduce(self, effect: int, domid: int, gfn: int, port: int) -> None:
        """Maps a ring for INTRODUCE and completes the effect; from then on it is served.

        Raises HostError when it cannot be mapped, or there is no memory for it.
        """
        rings = self.rings
        try:
            ring = self._host.introduce(domid, gfn, port)
            if ring is not None and rings is not None:
                rings.reserve(domid, ring.port)
        except (HostError, MemoryError) as failure:
            if rings is not None:
                rings.unbound(domid)
            if isinstance(failure, HostError):
                raise
            if self._engine.domain_conn(domid) < 0:
                self.release(domid)
            raise HostError("ENOMEM", f"domain {domid}: no memory for its ring") from None
        level = logging.INFO if self._engine.domain_conn(domid) < 0 else logging.DEBUG
        self._engine.complete(self._clock(), effect)
        if ring is not None and rings is not None and self._engine.domain_conn(domid) >= 0:
            rings.attach(domid, ring.address, ring.port)
        _logger.log(level, "domain %d introduced", domid)

    def release(self, domid: int) -> None:
        """A domain is no longer a client: its page goes."""
        if self._engine.domain_conn(domid) >= 0:
            return  # introduced again meanwhile: what is mapped by now belongs to the new one
        if self.rings is not None:
            self.rings.detach(domid)
        self._host.release(domid)
        _logger.info("domain %d released", domid)

    def domain_died(self, domid: int) -> None:
        """A domain is gone."""
        _logger.info("domain %d is gone", domid)
        self._engine.domain_died(self._clock(), domid)
        self.changed()

    def domain_shutdown(self, domid: int) -> None:
        """A domain has shut down."""
        if self._engine.domain_shutdown(self._clock(), domid):
            _logger.info("domain %d has shut down", domid)
            self.changed()
