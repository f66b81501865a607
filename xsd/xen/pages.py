"""Ring pages: a guest's by grant or by frame, and the one that our own kernel offers."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from xsd.xen.api import HostError
from xsd.xen.libraries import Handle, ffi, last_error, load, no_device, open_library

PAGE_BYTES: Final = 4096
RESERVED_GRANT: Final = 1
"""The grant reference under which every domain offers its ring (GNTTAB_RESERVED_XENSTORE)."""
PORT_WORD: Final = 2076 // 4
"""Where the page names the domain's event channel; 0 unless it was set up without a toolstack."""
MAX_PORT: Final = 1 << 17
"""Event channels have numbers below this: what is not below it is no port but garbage."""

PROTECTION: Final = mmap.PROT_READ | mmap.PROT_WRITE
BACKEND: Final = "/dev/xen/xenbus_backend"
BACKEND_PORT: Final = 0x4200
"""The ioctl that gives the port of the ring behind that device."""
KVA_FILE: Final = "/proc/xen/xsd_kva"
PORT_FILE: Final = "/proc/xen/xsd_port"
REMEDY: Final = (
    "load the kernel's xenbus back end (modprobe xenfs; mount -t xenfs xenfs /proc/xen), "
    "or start with --no-domain-init"
)


@dataclass(frozen=True, slots=True)
class Page:
    """A mapped ring page and how to unmap it."""

    address: int
    unmap: Callable[[], object]

    def port(self) -> int:
        """The event channel that stands in the page, read once; 0: none."""
        # The other side can write at any time; what is read here is checked and used.
        port = int(ffi.cast("uint32_t *", self.address)[PORT_WORD])
        return port if port < MAX_PORT else 0


class GuestPages:
    """Maps pages of other domains. Raises NoXenError without library or device."""

    def __init__(self) -> None:
        self._grants = open_library("libxengnttab.so.1", "libxengnttab1")
        self._grant_handle = self._grants.xengnttab_open(ffi.NULL, 0)
        if not self._grant_handle:
            raise no_device("rings cannot be mapped", "/dev/xen/gntdev", "xen-gntdev")
        self._frames: Handle = None
        self._frame_handle: Handle = None

    def map(self, domid: int, gfn: int) -> Page:
        """The ring of a domain: by its grant, else, when ``gfn`` is above 0, by its frame.

        Raises HostError EINVAL.
        """
        address = self._grants.xengnttab_map_grant_ref(
            self._grant_handle, domid, RESERVED_GRANT, PROTECTION
        )
        if address:
            return Page(
                int(ffi.cast("uintptr_t", address)),
                lambda: self._grants.xengnttab_unmap(self._grant_handle, address, 1),
            )
        why = f"domain {domid}: its ring cannot be mapped: by grant: {last_error()}"
        if gfn <= 0:
            raise HostError("EINVAL", why)
        try:
            return self._foreign(domid, gfn)
        except OSError as failure:
            raise HostError("EINVAL", f"{why}; by frame {gfn:#x}: {failure}") from None

    def open_frames(self) -> None:
        """Opens what mapping by frame needs, unless it is open. Raises OSError.

        It is a library of its own, which nobody misses as long as every domain grants.
        """
        if self._frames is None:
            self._frames = load("libxenforeignmemory.so.1")
        if not self._frame_handle:
            self._frame_handle = self._frames.xenforeignmemory_open(ffi.NULL, 0)
        if not self._frame_handle:
            raise OSError(f"/dev/xen/privcmd: {last_error()}")

    def _foreign(self, domid: int, gfn: int) -> Page:
        self.open_frames()
        frames = ffi.new("uint64_t[1]", [gfn])
        # Without a place for errors of single frames, they are errors of the call.
        address = self._frames.xenforeignmemory_map(
            self._frame_handle, domid, PROTECTION, 1, frames, ffi.NULL
        )
        if not address:
            raise OSError(last_error())
        return Page(
            int(ffi.cast("uintptr_t", address)),
            lambda: self._frames.xenforeignmemory_unmap(self._frame_handle, address, 1),
        )

    def close(self) -> None:
        """Closes the devices; pages are to be unmapped before."""
        self._grants.xengnttab_close(self._grant_handle)
        if self._frame_handle:
            self._frames.xenforeignmemory_close(self._frame_handle)


def kernel_page(kva_file: str) -> Page:
    """The ring of our own domain, from its kernel. Raises HostError EINVAL.

    ``kva_file`` decides where it is mapped from, but for the usual one: then the device that
    newer kernels have for it is tried before.
    """
    tried = []
    for path in [BACKEND, kva_file] if kva_file == KVA_FILE else [kva_file]:
        try:
            return _map_file(path)
        except OSError as failure:
            tried.append(f"{path} ({failure.strerror})")
    raise HostError(
        "EINVAL", f"the kernel's ring cannot be mapped from {' or '.join(tried)}: {REMEDY}"
    )


def kernel_port(port_file: str) -> int:
    """The kernel's end of the event channel of that ring. Raises HostError EINVAL."""
    if port_file == PORT_FILE:
        try:
            with open(BACKEND, "rb", buffering=0) as backend:
                port = fcntl.ioctl(backend, BACKEND_PORT)
            if port > 0:
                return port
        except OSError:
            pass  # An older kernel: it has the file.
    try:
        with open(port_file, "rb") as file:
            text = file.read(32)
        port = int(text)
    except OSError as failure:
        why = failure.strerror
    except ValueError:
        why = f"{text!r} is no number"
    else:
        if 0 < port < MAX_PORT:
            return port
        why = f"{port} is no event channel"
    raise HostError(
        "EINVAL",
        f"the event channel of the kernel's ring cannot be read from {port_file} ({why}): {REMEDY}",
    )


def _map_file(path: str) -> Page:
    """Maps by the C library: Python's mmap looks at the size first, and /proc says it is 0."""
    libc: Handle = ffi.dlopen(None)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        address = libc.mmap(ffi.NULL, PAGE_BYTES, PROTECTION, mmap.MAP_SHARED, fd, 0)
        if address == ffi.cast("void *", -1):
            raise OSError(ffi.errno, last_error(), path)
    finally:
        os.close(fd)
    return Page(int(ffi.cast("uintptr_t", address)), lambda: libc.munmap(address, PAGE_BYTES))
