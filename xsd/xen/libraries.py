"""Xen's libraries, found and opened at run time by their sonames.

So one build runs on several versions of Xen, and a loader path can put others in their place.
All but libxenctrl have a stable interface and one soname; libxenctrl's carries the version of
Xen, and only the one that belongs to the running Xen can talk to it.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from cffi import FFI

Handle = Any
"""What a library's ``open`` gives and its other functions take: a pointer of cffi."""

ffi: Final = FFI()
ffi.cdef("""
void *xenevtchn_open(void *logger, unsigned int flags);
int xenevtchn_close(void *handle);
int xenevtchn_fd(void *handle);
int xenevtchn_notify(void *handle, uint32_t port);
int xenevtchn_bind_interdomain(void *handle, uint32_t domid, uint32_t remote);
int xenevtchn_bind_virq(void *handle, unsigned int virq);
int xenevtchn_unbind(void *handle, uint32_t port);

void *xengnttab_open(void *logger, unsigned int flags);
int xengnttab_close(void *handle);
void *xengnttab_map_grant_ref(void *handle, uint32_t domid, uint32_t ref, int prot);
int xengnttab_unmap(void *handle, void *address, uint32_t count);

void *xenforeignmemory_open(void *logger, unsigned int flags);
int xenforeignmemory_close(void *handle);
void *xenforeignmemory_map(void *handle, uint32_t domid, int prot, size_t count,
                           const uint64_t *frames, int *errors);
int xenforeignmemory_unmap(void *handle, void *address, size_t count);

void *xc_interface_open(void *logger, void *dombuild_logger, unsigned int flags);
int xc_interface_close(void *handle);
int xc_domain_getinfolist(void *handle, uint32_t first, unsigned int count, void *info);

void *xenmanage_open(void *logger, unsigned int flags);
int xenmanage_close(void *handle);
int xenmanage_get_domain_info(void *handle, unsigned int domid, unsigned int *state,
                              unsigned int *capabilities, uint64_t *unique);
int xenmanage_poll_changed_domain(void *handle, unsigned int *domid, unsigned int *state,
                                  unsigned int *capabilities, uint64_t *unique);

void *mmap(void *address, size_t size, int prot, int flags, int fd, long offset);
int munmap(void *address, size_t size);
""")

CTRL: Final = "libxenctrl.so."
VERSION_DIRECTORY: Final = "/sys/hypervisor/version"


class NoXenError(OSError):
    """Xen cannot be reached; the message is one sentence: what was tried, what would help."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}: {remedy}, or start with --no-xen to serve the unix socket alone")


def no_device(what: str, path: str, module: str) -> NoXenError:
    """Says that a library could not open its device, with the error of the last call."""
    denied = ffi.errno in (errno.EACCES, errno.EPERM)
    return NoXenError(
        f"{what} through {path} ({last_error()})",
        "start as root" if denied else f"load its driver (modprobe {module}) in a domain of Xen",
    )


def last_error() -> str:
    """What the last call into a library says that went wrong."""
    return os.strerror(ffi.errno)


def open_library(soname: str, package: str) -> Handle:
    """A library by its soname. Raises :class:`NoXenError`; ``package`` is Debian's name for it."""
    try:
        return load(soname)
    except OSError as failure:
        raise NoXenError(str(failure), f"install Xen's libraries (Debian: {package})") from None


def load(name: str) -> Handle:
    """A library by its soname or path. Raises OSError, which names it and says why."""
    try:
        return ffi.dlopen(name)
    except OSError as failure:
        # The loader says the name first; cffi may put it before that, or tell more behind it.
        why = str(failure).partition(".  Additionally,")[0].rpartition(f"{name}: ")[2]
        raise OSError(f"{name} cannot be loaded ({why})") from None


def control_libraries() -> Iterator[str]:
    """Names of every libxenctrl there may be, sonames or paths, in the order to try them.

    That of the running Xen comes first, then what the loader's directories hold, one directory
    after the other, the newest first.
    """
    running = running_version()
    if running:
        yield CTRL + running
    for directory in library_directories():
        found = (str(path) for path in Path(directory).glob(f"{CTRL}[0-9]*"))
        # Of one version the short name first: it is the soname, the longer one what it leads to.
        yield from sorted(found, key=lambda name: ([-n for n in version_of(name)], len(name)))


def version_of(name: str) -> tuple[int, ...]:
    """The version in a name, as (4, 17): what comes behind it does not change the interface."""
    return tuple(int(n) for n in re.findall(r"\d+", name.rpartition(CTRL)[2])[:2])


def running_version(directory: str = VERSION_DIRECTORY) -> str:
    """The version of the running Xen, as "4.17"; empty when the kernel does not say."""
    try:
        return ".".join(Path(directory, part).read_text().strip() for part in ("major", "minor"))
    except OSError:
        return ""


def library_directories() -> list[str]:
    """Where libraries can lie: what LD_LIBRARY_PATH names, then the usual places."""
    given = re.split("[:;]", os.environ.get("LD_LIBRARY_PATH", ""))
    # sysconfig would say it as well, with all else about the interpreter: half a megabyte.
    triplet = getattr(sys.implementation, "_multiarch", "")
    roots = ["/usr/local/lib", "/lib", "/usr/lib"]
    usual = [f"{root}/{triplet}" for root in roots if triplet]
    usual += ["/lib64", "/usr/lib64", *roots]
    versioned = [str(path) for path in Path("/usr/lib").glob("xen-*/lib")]
    versioned += [f"{path}/{triplet}" for path in versioned if triplet]
    return [path for path in [*given, *usual, *sorted(versioned, reverse=True)] if path]
