"""A character device that leads to a daemon's socket, as the kernel's device leads to its ring.

A pseudo terminal in raw mode: what a tool writes to one side is passed to the daemon with numbers
of our own, and the replies get theirs back. As some kernels do, it answers WATCH and UNWATCH
without numbers, and sets none in events. It cannot refuse a write, so what the daemon refuses is a
reply.
"""

from __future__ import annotations

import os
import pty
import socket
import threading
import tty
from collections import deque
from types import TracebackType
from typing import Self

from xsd.client.wire import Decoder, Op, Packet, pack

SECONDS = 20.0
_NUMBERLESS = (Op.WATCH, Op.UNWATCH)
_RUBBISH = 0xA5A5A5A5


class CharacterDevice:
    """Stands at ``path`` for whoever opens it first; used with ``with``."""

    def __init__(self, server: str) -> None:
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(server)
        self._sent: deque[Packet] = deque()
        #: Operations that came through.
        self.seen: list[int] = []
        self._threads = [
            threading.Thread(target=run, daemon=True) for run in (self._upwards, self._downwards)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._slave)  # the last one: the terminal hangs up
        for thread in self._threads:
            thread.join(SECONDS)
        assert not any(thread.is_alive() for thread in self._threads)
        self._server.close()
        os.close(self._master)

    def _upwards(self) -> None:
        decoder = Decoder()
        number = 1000
        while data := self._read():
            decoder.feed(data)
            while (packet := decoder.next()) is not None:
                number += 1
                self.seen.append(packet.type)
                self._sent.append(packet)
                self._server.sendall(pack(packet._replace(req_id=number)))
        self._server.shutdown(socket.SHUT_RDWR)

    def _read(self) -> bytes:
        try:
            return os.read(self._master, 65536)
        except OSError:  # hung up
            return b""

    def _downwards(self) -> None:
        decoder = Decoder()
        while data := self._server.recv(65536):
            decoder.feed(data)
            while (packet := decoder.next()) is not None:
                self._write(pack(self._readdressed(packet)))

    def _readdressed(self, packet: Packet) -> Packet:
        if packet.type == Op.WATCH_EVENT:
            return packet._replace(req_id=_RUBBISH, tx_id=_RUBBISH)
        asked = self._sent.popleft()
        if packet.type in _NUMBERLESS:
            return packet._replace(req_id=0, tx_id=0)
        return packet._replace(req_id=asked.req_id)

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._master, data) :]
