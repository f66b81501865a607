"""What the hypervisor says of its domains: which there are, and which have changed.

Since Xen 4.21 libxenmanage says it through an interface that stays, with a number that no two
domains of one boot share. Before, it is libxenctrl, which must be of the running Xen's version.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass
from typing import Final, Protocol

from xsd.xen.api import HostError
from xsd.xen.libraries import (
    Handle,
    NoXenError,
    control_libraries,
    ffi,
    last_error,
    load,
    open_library,
    running_version,
    version_of,
)

FIRST_RESERVED_DOMID: Final = 0x7FF0

INFO_BYTES: Final = 4096
"""Room for one domain's information: its size differs between versions and is below 200."""
INFO: Final = struct.Struct("=H2xI48xQ12x16s")
"""Its beginning, which does not differ: domid, flags, nanoseconds on a CPU, handle."""
INFO_DYING, INFO_SHUTDOWN = 1 << 0, 1 << 2

STATE_SHUTDOWN, STATE_DYING, STATE_DEAD = 2, 4, 8


@dataclass(frozen=True, slots=True)
class DomainInfo:
    """A domain at one moment; what is not known of it is empty."""

    domid: int
    dying: bool
    shut_down: bool
    unique: int = 0
    handle: bytes = b""
    cpu_ns: int = 0

    def succeeds(self, earlier: DomainInfo) -> bool:
        """Whether this is another domain, which has the id of an earlier one.

        The handle alone proves nothing: toolstacks give new ones to domains that live, or are
        about to be destroyed. But time on a CPU never becomes less.
        """
        if self.unique or earlier.unique:
            return self.unique != earlier.unique
        younger = self.cpu_ns == 0 or self.cpu_ns < earlier.cpu_ns
        return self.handle != earlier.handle and younger


class Census(Protocol):
    """One way to ask. All but ``close`` raise HostError EIO when the question itself fails."""

    def look(self, domid: int) -> DomainInfo | None:
        """A domain as it is now, None when there is none of that id."""

    def all(self) -> list[DomainInfo]:
        """All domains, in order of their ids."""

    def changed(self) -> list[int] | None:
        """Ids of domains that are new, changed or gone since the last call, None: any may be."""

    def close(self) -> None:
        """Gives back what it holds; once."""


def open_census() -> Census:
    """The best way there is. Raises :class:`NoXenError`."""
    try:
        return ManageCensus()
    except OSError:
        return _control_census()


class ManageCensus:
    """Domains as libxenmanage knows them. Raises OSError if it, or the hypervisor, cannot."""

    def __init__(self) -> None:
        self._lib = open_library("libxenmanage.so.1", "libxenmanage1")
        self._handle = self._lib.xenmanage_open(ffi.NULL, 0)
        if not self._handle:
            raise OSError(last_error())
        self._domid = ffi.new("unsigned int *")
        self._state = ffi.new("unsigned int *")
        self._unique = ffi.new("uint64_t *")
        try:
            self.look(0)
        except HostError as failure:
            self.close()
            raise OSError(str(failure)) from None

    def look(self, domid: int) -> DomainInfo | None:
        """A domain as it is now."""
        if self._lib.xenmanage_get_domain_info(
            self._handle, domid, self._state, ffi.NULL, self._unique
        ):
            if ffi.errno in (errno.ENOENT, errno.ESRCH):
                return None
            raise HostError("EIO", f"domain {domid}: no information: {last_error()}")
        state = self._state[0]
        return DomainInfo(
            domid,
            dying=bool(state & (STATE_DYING | STATE_DEAD)),
            shut_down=bool(state & STATE_SHUTDOWN),
            unique=self._unique[0],
        )

    def all(self) -> list[DomainInfo]:
        """Asks for every id there can be: there is no other question that forgets nothing."""
        found = (self.look(domid) for domid in range(FIRST_RESERVED_DOMID))
        return [info for info in found if info is not None]

    def changed(self) -> list[int] | None:
        """Takes the news that the hypervisor has kept for us, which are at most one a domain."""
        found: list[int] = []
        for _ in range(2 * FIRST_RESERVED_DOMID):
            if self._lib.xenmanage_poll_changed_domain(
                self._handle, self._domid, self._state, ffi.NULL, self._unique
            ):
                return found if ffi.errno == errno.ENOENT else None
            found.append(self._domid[0])
        return None

    def close(self) -> None:
        """Closes the library's handle."""
        self._lib.xenmanage_close(self._handle)


class ControlCensus:
    """Domains as one libxenctrl knows them. Raises OSError if it does not work with this Xen."""

    def __init__(self, library: Handle) -> None:
        self._lib = library
        self._handle = library.xc_interface_open(ffi.NULL, ffi.NULL, 0)
        if not self._handle:
            raise OSError(ffi.errno, last_error())
        self._buffer = ffi.new("char[]", INFO_BYTES)
        try:
            self._next(0)
        except HostError:
            reason = ffi.errno
            self.close()
            raise OSError(reason, os.strerror(reason)) from None

    def _next(self, first: int) -> DomainInfo | None:
        """The domain with the lowest id from ``first`` on."""
        count = self._lib.xc_domain_getinfolist(self._handle, first, 1, self._buffer)
        if count < 0:
            if ffi.errno == errno.ESRCH:
                return None
            raise HostError("EIO", f"domain {first}: no information: {last_error()}")
        if count == 0:
            return None
        domid, flags, cpu_ns, handle = INFO.unpack_from(ffi.buffer(self._buffer, INFO.size))
        return DomainInfo(
            domid,
            dying=bool(flags & INFO_DYING),
            shut_down=bool(flags & INFO_SHUTDOWN),
            handle=handle,
            cpu_ns=cpu_ns,
        )

    def look(self, domid: int) -> DomainInfo | None:
        """A domain as it is now."""
        info = self._next(domid)
        return info if info is not None and info.domid == domid else None

    def all(self) -> list[DomainInfo]:
        """Walks from each domain to the next."""
        found: list[DomainInfo] = []
        first = 0
        while first < FIRST_RESERVED_DOMID:
            info = self._next(first)
            if info is None or not first <= info.domid < FIRST_RESERVED_DOMID:
                break
            found.append(info)
            first = info.domid + 1
        return found

    def changed(self) -> list[int] | None:
        """It does not know."""
        return None

    def close(self) -> None:
        """Closes the library's handle."""
        self._lib.xc_interface_close(self._handle)


def _control_census() -> ControlCensus:
    """By the first libxenctrl that works here. Raises :class:`NoXenError`."""
    tried: dict[tuple[int, ...], str] = {}
    loaded: dict[tuple[int, ...], int | None] = {}
    for name in control_libraries():
        version = version_of(name)
        if version in loaded:
            continue
        try:
            library = load(name)
        except OSError as failure:
            tried[version] = str(failure)
            continue
        try:
            return ControlCensus(library)
        except OSError as failure:
            tried[version] = f"{name} ({failure.strerror})"
            loaded[version] = failure.errno
    running = running_version()
    if set(loaded.values()) == {errno.ENOENT}:
        remedy = "load the driver of /dev/xen/privcmd (modprobe xen-privcmd)"
    elif running:
        remedy = f"install that of the running Xen {running} (Debian: libxenmisc{running})"
    else:
        remedy = (
            "run as root in the control domain of Xen, with its libraries (Debian: libxenmisc4.17)"
        )
    what = " or by ".join(tried.values()) or "libxenctrl, of which there is none"
    raise NoXenError(f"domains cannot be listed by {what}", remedy)
