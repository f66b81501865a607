"""Event channels: the daemon's end of them, through libxenevtchn."""

from __future__ import annotations

import errno
import logging
import os
from typing import Final

from xsd.xen.api import Channels, HostError
from xsd.xen.libraries import NoXenError, ffi, last_error, no_device, open_library

_logger = logging.getLogger("xsd.xen")

SONAME: Final = "libxenevtchn.so.1"
VIRQ_DOM_EXC: Final = 3
"""Raised when a domain shuts down or dies; one domain can have it, once."""


class EventChannels:
    """A handle of the event channel driver, and the ports bound through it.

    Raises :class:`NoXenError` without the library, the driver or the virtual interrupt.
    """

    def __init__(self) -> None:
        self._lib = open_library(SONAME, "libxenevtchn1")
        self._handle = self._lib.xenevtchn_open(ffi.NULL, 0)
        if not self._handle:
            raise no_device("event channels cannot be used", "/dev/xen/evtchn", "xen-evtchn")
        try:
            fd = self._lib.xenevtchn_fd(self._handle)
            os.set_blocking(fd, False)
            os.set_inheritable(fd, False)
            self.virq = self._bind_virq()
        except BaseException:
            self.close()
            raise
        self.seam = Channels(
            fd,
            int(ffi.cast("uintptr_t", self._lib.xenevtchn_notify)),
            int(ffi.cast("uintptr_t", self._handle)),
        )

    def _bind_virq(self) -> int:
        port: int = self._lib.xenevtchn_bind_virq(self._handle, VIRQ_DOM_EXC)
        if port >= 0:
            return port
        raise NoXenError(
            f"news of domains (VIRQ_DOM_EXC) cannot be had ({last_error()})",
            "stop the other xenstored"
            if ffi.errno == errno.EEXIST
            else "run in the control domain, without another xenstored",
        )

    def bind(self, domid: int, remote: int) -> int:
        """Our end of the channel whose other end is ``remote``. Raises HostError EINVAL."""
        port: int = self._lib.xenevtchn_bind_interdomain(self._handle, domid, remote)
        if port < 0:
            raise HostError(
                "EINVAL",
                f"domain {domid}: its event channel {remote} cannot be bound: {last_error()}",
            )
        return port

    def unbind(self, port: int) -> None:
        """Gives a port back."""
        if self._lib.xenevtchn_unbind(self._handle, port) != 0:
            # The driver refuses only what it does not know, so there is nothing left to undo.
            _logger.warning("event channel %d cannot be unbound: %s", port, last_error())

    def close(self) -> None:
        """Gives everything back, ports included; once."""
        self._lib.xenevtchn_close(self._handle)
