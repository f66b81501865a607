"""A real host in a process of its own, told what to do line by line.

The loader looks at its environment when a process starts, so whoever wants other libraries needs
another process. A request is a line of JSON, the name of a method of :class:`Driver` and its
arguments; so is the answer: what came back, or the class, errno and text of the exception.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import struct
import sys

from xsd.xen.api import HostError, Ring
from xsd.xen.libraries import NoXenError
from xsd.xen.real import RealHost, XenAccess

PORT = struct.Struct("=I")


class Driver:
    """The methods that can be called."""

    def __init__(self) -> None:
        self._host: RealHost | None = None
        self._news: list[tuple[str, int]] = []

    @property
    def host(self) -> RealHost:
        """The host that is open."""
        assert self._host is not None
        return self._host

    # -- the listener

    def domain_died(self, domid: int) -> None:
        """Kept for ``news``."""
        self._news.append(("died", domid))

    def domain_shutdown(self, domid: int) -> None:
        """Kept for ``news``."""
        self._news.append(("shutdown", domid))

    def news(self) -> list[tuple[str, int]]:
        """What the listener was told since the last call."""
        news, self._news = self._news, []
        return news

    # -- the host

    def open(self, domid: int, kva_file: str, port_file: str, event_channel: int) -> None:
        """Makes the host."""
        self._host = RealHost(XenAccess(domid, kva_file, port_file, event_channel))

    def start(self) -> None:
        """Listens."""
        self.host.start(self)

    def close(self) -> None:
        """Gives everything back."""
        self.host.close()

    def exists(self, domid: int) -> bool:
        """As the host's."""
        return self.host.exists(domid)

    def domains(self) -> list[int]:
        """As the host's."""
        return list(self.host.domains())

    def own_ring(self) -> tuple[int, int] | None:
        """As the host's."""
        return _pair(self.host.own_ring())

    def introduce(self, domid: int, gfn: int, port: int) -> tuple[int, int] | None:
        """As the host's."""
        return _pair(self.host.introduce(domid, gfn, port))

    def release(self, domid: int) -> None:
        """As the host's."""
        self.host.release(domid)

    def event(self, port: int) -> None:
        """As the host's."""
        self.host.event(port)

    # -- what the daemon does with rings and channels

    def flags(self) -> tuple[bool, bool]:
        """Whether the channels' descriptor blocks, and whether other programs inherit it."""
        fd = self._fd()
        return os.get_blocking(fd), not fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC

    def ports(self, seconds: float) -> list[int]:
        """Waits for events and takes them."""
        poll = select.poll()
        poll.register(self._fd(), select.POLLIN)
        if not poll.poll(seconds * 1000):
            return []
        return [port for (port,) in PORT.iter_unpack(os.read(self._fd(), 64 * PORT.size))]

    def notify(self, port: int) -> int:
        """Sends an event by the address, as compiled code does."""
        channels = self.host.channels
        assert channels is not None
        prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32)
        return int(prototype(channels.notify)(channels.handle, port))

    def peek(self, address: int, size: int) -> str:
        """Bytes of memory."""
        return ctypes.string_at(address, size).decode("latin-1")

    def poke(self, address: int, text: str) -> None:
        """Writes to memory."""
        ctypes.memmove(address, text.encode("latin-1"), len(text))

    def is_mapped(self, address: int) -> bool:
        """Whether there is memory at an address."""
        with open("/proc/self/maps", encoding="ascii") as maps:
            ranges = [line.split()[0].split("-") for line in maps]
        return any(int(low, 16) <= address < int(high, 16) for low, high in ranges)

    def descriptors(self) -> int:
        """How many files are open."""
        return len(os.listdir("/proc/self/fd"))

    def _fd(self) -> int:
        channels = self.host.channels
        assert channels is not None
        return channels.fd


def _pair(ring: Ring | None) -> tuple[int, int] | None:
    return None if ring is None else (ring.address, ring.port)


def main() -> None:
    """Serves until its input ends."""
    driver = Driver()
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = {"good": getattr(driver, name)(*arguments)}
        except HostError as failure:
            answer = {"bad": ("HostError", failure.errno, str(failure))}
        except NoXenError as failure:
            answer = {"bad": ("NoXenError", "", str(failure))}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
