"""A daemon that does as it is told: calls Xen's libraries, found by their sonames.

As a program it reads one JSON list a line, the name of a method of :class:`Strings` and its
arguments, and answers with ``[true, result]`` or ``[false, "NAME OF THE ERROR"]``.
:class:`Puppet` is the other end of that.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import select
import struct
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SECONDS = 20.0
_VIRQ_DOM_EXC = 3
_INFO_BYTES = 112
_PROTECTION = mmap.PROT_READ | mmap.PROT_WRITE


class Strings:
    """What can be pulled: each method is a call or two of a library."""

    def __init__(self) -> None:
        self._evtchn = _library("libxenevtchn.so.1")
        self._gnttab = _library("libxengnttab.so.1")
        self._foreign = _library("libxenforeignmemory.so.1")
        self._ctrl = _library("libxenctrl.so.4.17")
        self._handles: dict[str, int] = {}
        self._frames: list[Any] = []

    def open(self, name: str) -> None:
        """Opens "evtchn", "gnttab", "foreign", "ctrl" or "manage"."""
        if name == "ctrl":
            made = self._ctrl.xc_interface_open(None, None, 0)
        elif name == "manage":
            self._manage = _library("libxenmanage.so.1")
            made = self._manage.xenmanage_open(None, 0)
        else:
            full = {"foreign": "xenforeignmemory"}.get(name, f"xen{name}")
            made = getattr(getattr(self, f"_{name}"), f"{full}_open")(None, 0)
        self._handles[name] = _pointer(made)

    def close(self, name: str) -> None:
        """Closes it."""
        full = {"foreign": "xenforeignmemory", "ctrl": "xc_interface"}.get(name, f"xen{name}")
        close = getattr(getattr(self, f"_{name}"), f"{full}_close")
        _number(close(ctypes.c_void_p(self._handles.pop(name))))

    def bind(self, domid: int, port: int) -> int:
        """Binds a domain's port; ours."""
        return _number(self._evtchn.xenevtchn_bind_interdomain(self._h("evtchn"), domid, port))

    def bind_virq(self) -> int:
        """Binds VIRQ_DOM_EXC; our port."""
        return _number(self._evtchn.xenevtchn_bind_virq(self._h("evtchn"), _VIRQ_DOM_EXC))

    def unbind(self, port: int) -> None:
        """Gives a port back."""
        _number(self._evtchn.xenevtchn_unbind(self._h("evtchn"), port))

    def notify(self, port: int) -> None:
        """Sends an event."""
        _number(self._evtchn.xenevtchn_notify(self._h("evtchn"), port))

    def ports(self) -> list[int]:
        """Up to 64 ports that have events, with one read; does not wait."""
        fd = self._evtchn.xenevtchn_fd(self._h("evtchn"))
        os.set_blocking(fd, False)
        try:
            data = os.read(fd, 64 * 4)
        except BlockingIOError:
            return []
        return list(struct.unpack(f"={len(data) // 4}I", data))

    def unmask(self, ports: list[int]) -> int:
        """Unmasks them with one write; how many bytes that took."""
        fd = self._evtchn.xenevtchn_fd(self._h("evtchn"))
        return os.write(fd, struct.pack(f"={len(ports)}I", *ports))

    def map_grant(self, domid: int, reference: int) -> int:
        """Maps by grant reference; the address."""
        function = self._gnttab.xengnttab_map_grant_ref
        return _pointer(function(self._h("gnttab"), domid, reference, _PROTECTION))

    def unmap_grant(self, address: int) -> None:
        """Unmaps one page."""
        function = self._gnttab.xengnttab_unmap
        _number(function(self._h("gnttab"), ctypes.c_void_p(address), 1))

    def map_frame(self, domid: int, frame: int) -> tuple[int, int]:
        """Maps by frame: the address, and what is said of the frame."""
        frames, errors = (ctypes.c_ulong * 1)(frame), (ctypes.c_int * 1)(77)
        function = self._foreign.xenforeignmemory_map
        size = ctypes.c_size_t(1)
        address = function(self._h("foreign"), domid, _PROTECTION, size, frames, errors)
        return _pointer(address), errors[0]

    def unmap_frame(self, address: int) -> None:
        """Unmaps one page."""
        function = self._foreign.xenforeignmemory_unmap
        _number(function(self._h("foreign"), ctypes.c_void_p(address), ctypes.c_size_t(1)))

    def peek(self, address: int, size: int) -> str:
        """Bytes of our memory, in hexadecimal."""
        return ctypes.string_at(address, size).hex()

    def poke(self, address: int, data: str) -> None:
        """Writes bytes, given in hexadecimal."""
        ctypes.memmove(address, bytes.fromhex(data), len(data) // 2)

    def domains(self, first: int, most: int) -> list[list[object]]:
        """What libxenctrl lists: domid, flags, nanoseconds, handle."""
        room = ctypes.create_string_buffer(_INFO_BYTES * most)
        count = _number(self._ctrl.xc_domain_getinfolist(self._h("ctrl"), first, most, room))
        found: list[list[object]] = []
        for index in range(count):
            domid, flags, ran_ns, handle = struct.unpack_from(
                "=H2xI48xQ12x16s", room, index * _INFO_BYTES
            )
            found.append([domid, flags, ran_ns, handle.hex()])
        return found

    def state(self, domid: int) -> list[int]:
        """What libxenmanage says of one domain: state, capabilities, unique number."""
        state, caps, unique = ctypes.c_uint(), ctypes.c_uint(), ctypes.c_uint64()
        function = self._manage.xenmanage_get_domain_info
        rest = [ctypes.byref(one) for one in (state, caps, unique)]
        _number(function(self._h("manage"), domid, *rest))
        return [state.value, caps.value, unique.value]

    def changed(self) -> list[int]:
        """The next domain that has changed: domid, state."""
        domid, state = ctypes.c_uint(), ctypes.c_uint()
        function = self._manage.xenmanage_poll_changed_domain
        references = [ctypes.byref(domid), ctypes.byref(state)]
        _number(function(self._h("manage"), *references, None, None))
        return [domid.value, state.value]

    def own_ring(self) -> list[object]:
        """Our kernel's ring: its port from the device and the file, four bytes of the page."""
        fd = os.open("/dev/xen/xenbus_backend", os.O_RDWR)
        with open("/proc/xen/xsd_port", "rb") as file, mmap.mmap(fd, 4096) as page:
            said = fcntl.ioctl(fd, 0x4200), int(file.read()), page[:4].hex()
        os.close(fd)
        return list(said)

    def _h(self, name: str) -> ctypes.c_void_p:
        return ctypes.c_void_p(self._handles[name])


def _library(soname: str) -> ctypes.CDLL:
    loaded = ctypes.CDLL(soname, use_errno=True)
    for name in (
        "xenevtchn_open", "xengnttab_open", "xenforeignmemory_open", "xc_interface_open",
        "xenmanage_open", "xengnttab_map_grant_ref", "xenforeignmemory_map",
    ):  # fmt: skip
        if hasattr(loaded, name):
            getattr(loaded, name).restype = ctypes.c_void_p
    return loaded


def _pointer(got: int | None) -> int:
    if got is None:
        raise OSError(ctypes.get_errno(), "")
    return got


def _number(got: int) -> int:
    if got < 0:
        raise OSError(ctypes.get_errno(), "")
    return got


def _serve() -> None:
    strings = Strings()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        answer: list[object]
        try:
            answer = [True, getattr(strings, name)(*arguments)]
        except OSError as failure:
            answer = [False, errno.errorcode.get(failure.errno or 0, str(failure))]
        print(json.dumps(answer), flush=True)


class Puppet:
    """Pulls the strings: ``puppet("bind", 5, 3)``."""

    def __init__(self, environ: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ,
        )  # fmt: skip

    def __call__(self, name: str, *arguments: object) -> Any:
        """The result; raises OSError with the error's number, TimeoutError when none comes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, *arguments]).encode() + b"\n")
        self._process.stdin.flush()
        readable, _, _ = select.select([self._process.stdout], [], [], SECONDS)
        if not readable:
            raise TimeoutError(f"no answer to {name} within {SECONDS} s")
        line = self._process.stdout.readline()
        if not line:
            raise EOFError(f"ended at {name}")
        good, result = json.loads(line)
        if not good:
            raise OSError(getattr(errno, result, 0), result)
        return result

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends it."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(SECONDS)


if __name__ == "__main__":
    _serve()
