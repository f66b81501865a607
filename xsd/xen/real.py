"""The hypervisor: domains, their rings and event channels, through Xen's own libraries."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from xsd.xen.api import Channels, HostError, HostListener, Ring
from xsd.xen.census import FIRST_RESERVED_DOMID, DomainInfo, open_census
from xsd.xen.channels import EventChannels
from xsd.xen.libraries import last_error
from xsd.xen.pages import MAX_PORT, GuestPages, Page, kernel_page, kernel_port

_logger = logging.getLogger("xsd.xen")


@dataclass(frozen=True, slots=True)
class XenAccess:
    """How Xen is reached: the domain we run in, and what its kernel offers for its own ring.

    ``event_channel`` 0 means "ask ``port_file``".  ``early``: open now what may be needed later,
    when it will no longer be allowed.
    """

    domid: int
    kva_file: str
    port_file: str
    event_channel: int
    early: bool = False


@dataclass(slots=True)
class _Held:
    """A ring that we have mapped, ``orphan`` when its domain's end was told.

    ``port`` is 0 while its event channel is not bound.
    """

    page: Page
    port: int = 0
    orphan: bool = False


class RealHost:
    """A :class:`xsd.xen.api.Host` on Xen. Raises :class:`xsd.xen.libraries.NoXenError`.

    It remembers the domains that somebody asked about, and looks at them again whenever the
    hypervisor has news; there are never more of them than domains that live.
    """

    def __init__(self, access: XenAccess) -> None:
        self._access = access
        self._listener: HostListener | None = None
        self._rings: dict[int, _Held] = {}
        self._seen: dict[int, DomainInfo] = {}
        with ExitStack() as undo:
            self._events = EventChannels()
            undo.callback(self._events.close)
            self._pages = GuestPages()
            undo.callback(self._pages.close)
            if access.early:
                with suppress(OSError):  # whoever needs it is told why it cannot be
                    self._pages.open_frames()
            self._census = open_census()
            undo.callback(self._census.close)
            self._undo = undo.pop_all()

    @property
    def channels(self) -> Channels | None:
        """The event channels, for who serves the rings."""
        return self._events.seam

    def start(self, listener: HostListener) -> None:
        """Tells ``listener`` from now on, beginning with what has happened since we looked."""
        self._listener = listener
        self._look_again(list(self._seen))

    def close(self) -> None:
        """Gives everything back; nothing happens the second time."""
        for domid in list(self._rings):
            self.release(domid)
        self._seen.clear()
        self._undo.close()

    # -- domains ---------------------------------------------------------------------------------

    def exists(self, domid: int) -> bool:
        """Whether there is a domain of this id that is not dying. Raises HostError EIO."""
        return self._look(domid) is not None

    def domains(self) -> Iterable[int]:
        """All domains there are now that are not dying. Raises HostError EIO."""
        return [info.domid for info in self._census.all() if not info.dying]

    def event(self, port: int) -> None:
        """Finds out what is new when the port is that of the hypervisor's news.

        An event of a ring that has been released since says nothing.
        """
        if port == self._events.virq:
            changed = self._census.changed()
            self._look_again(list(self._seen) if changed is None else changed)

    def _look(self, domid: int) -> DomainInfo | None:
        """A domain that is not dying, whose end we shall tell."""
        if not 0 <= domid < FIRST_RESERVED_DOMID:
            return None
        info = self._census.look(domid)
        if info is None or info.dying:
            return None
        # An earlier domain of this id must have its end told first: it stays the one we know.
        self._seen.setdefault(domid, info)
        return info

    def _look_again(self, domids: Iterable[int]) -> None:
        """Tells what became of domains, as far as we know them.

        One that stays shut down is told each time: only the listener knows of resumed ones.
        """
        if self._listener is None:
            return  # It will look at all when it starts.
        for domid in sorted(domids):
            earlier = self._seen.get(domid)
            if earlier is None:
                continue
            try:
                info = self._census.look(domid)
            except HostError as failure:
                # No answer is not the answer "gone". The next news is another chance.
                _logger.warning("%s", failure)
                continue
            if info is None or info.dying or info.succeeds(earlier):
                del self._seen[domid]
                if (held := self._rings.get(domid)) is not None:
                    held.orphan = True
                self._listener.domain_died(domid)
            else:
                self._seen[domid] = info
                if info.shut_down:
                    self._listener.domain_shutdown(domid)

    # -- rings -----------------------------------------------------------------------------------

    def own_ring(self) -> Ring | None:
        """The ring that our kernel offers. Raises HostError EINVAL."""
        return self._take_own(self._access.event_channel)

    def introduce(self, domid: int, gfn: int, port: int) -> Ring | None:
        """Maps a ring and binds its event channel, or binds that of a known ring anew.

        Raises HostError: ENOENT no such domain, EBUSY the id's earlier domain has not been
        cleared away, EINVAL all else, EIO Xen gives no answer.
        """
        if not 0 <= domid < FIRST_RESERVED_DOMID:
            raise HostError("EINVAL", f"domain {domid}: no domain can have this id")
        if domid == self._access.domid:
            return self._take_own(port)
        held = self._rings.get(domid)
        if held is not None:
            self._unbind(held)
        earlier = self._seen.get(domid)
        info = self._look(domid)
        if info is None:
            raise HostError("ENOENT", f"domain {domid}: there is none, or it is dying")
        if info.succeeds(earlier or info) or (held is not None and held.orphan):
            raise HostError("EBUSY", f"domain {domid}: the earlier domain of this id is not gone")
        return self._take(
            domid, lambda: self._pages.map(domid, gfn), lambda page: page.port() or port
        )

    def release(self, domid: int) -> None:
        """Unbinds and unmaps; the domain's end is told nevertheless."""
        held = self._rings.pop(domid, None)
        if held is not None:
            self._unbind(held)
            self._unmap(domid, held)

    def _take_own(self, port: int) -> Ring:
        """Our own domain's ring, which no grant leads to."""
        return self._take(
            self._access.domid,
            lambda: kernel_page(self._access.kva_file),
            lambda page: port or kernel_port(self._access.port_file),
        )

    def _take(self, domid: int, mapped: Callable[[], Page], remote: Callable[[Page], int]) -> Ring:
        """A ring with its channel: one that is mapped stays so, a channel is bound anew."""
        held = self._rings.get(domid)
        new = held is None
        if held is None:
            held = _Held(mapped())
        else:
            self._unbind(held)
        try:
            port = remote(held.page)
            if not 0 < port < MAX_PORT:
                raise HostError("EINVAL", f"domain {domid}: there is no event channel {port}")
            held.port = self._events.bind(domid, port)
        except HostError:
            if new:
                self._unmap(domid, held)
            raise
        self._rings[domid] = held
        return Ring(held.page.address, held.port)

    def _unbind(self, held: _Held) -> None:
        if held.port:
            port, held.port = held.port, 0
            self._events.unbind(port)

    def _unmap(self, domid: int, held: _Held) -> None:
        if held.page.unmap():
            _logger.warning("domain %d: its ring cannot be unmapped: %s", domid, last_error())
