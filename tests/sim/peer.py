"""A client as both sides have it: the engine's connection, the oracle's, and what is between."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from model import Connection
from model_tree import Msg, Packet

from sim.page import Page

_header = struct.Struct("=4I")


def wire(packet: Packet) -> bytes:
    kind, req, tx, payload = packet
    return _header.pack(kind, req, tx, len(payload)) + payload


def frame(kind: int, payload: bytes, tx: int, req: int) -> bytes:
    return _header.pack(kind, req, tx, len(payload)) + payload


def cut(data: bytes) -> list[Packet]:
    """The whole messages in some bytes; a part of one at the end is left out."""
    packets = []
    at = 0
    while len(data) - at >= 16:
        kind, req, tx, length = _header.unpack_from(data, at)
        if len(data) - at < 16 + length:
            break
        packets.append(Packet(kind, req, tx, data[at + 16 : at + 16 + length]))
        at += 16 + length
    return packets


def masked(packets: list[Packet]) -> list[Packet]:
    """The generation in front of a DIRECTORY_PART reply is the server's own business."""
    return [
        packet._replace(payload=b"#\0" + packet.payload.partition(b"\0")[2])
        if packet.type == Msg.DIRECTORY_PART
        else packet
        for packet in packets
    ]


@dataclass(slots=True, eq=False)
class Peer:
    """One client. ``link`` is the oracle's connection, ``cid`` the engine's.

    Bytes on their way in: ``unsent`` has not been handed over yet, ``received`` has been, and
    waits to be handled. On their way out, of a ring: ``expected`` stands in its page.
    """

    slot: int
    link: Connection
    cid: int
    domid: int = 0
    page: Page | None = None
    port: int = 0
    event: bytes = b""
    unsent: bytes = b""
    received: bytes = b""
    expected: bytes = b""
    paused: bool = False
    closing: bool = False
    starved: bool = False
    slow: bool = False
    garbled: bool = False  # where its responses are is nonsense
    asked: tuple[str, int] | None = None  # what it waits for
    pending: Packet | None = None  # the request that is answered with it
    answers: dict[tuple[str, int], str] = field(default_factory=dict)
    reconnecting: bool = False
    serial: int = 0

    @property
    def name(self) -> str:
        return f"slot {self.slot}" if self.page is None else f"guest {self.domid}"

    def pick(self, pick: int) -> int:
        """An open transaction, the last one (6), none (0), or one that does not exist (7)."""
        if pick == 0:
            return 0
        if pick == 7:
            return 77777
        known = self.link.transactions
        return sorted(known)[-1 - pick % 6 % len(known)] if known else 0

    def message(self, ask: tuple[int, bytes, int]) -> bytes:
        """A request as bytes, numbered."""
        kind, payload, pick = ask
        if kind == Msg.DIRECTORY_PART and (self.slow or self.page is not None):
            kind = Msg.DIRECTORY  # its answer has a number in front whose length is not known
            payload = payload.partition(b"\0")[0] + b"\0"
        self.serial = self.serial + 1 & 0xFFFF
        return frame(kind, payload, self.pick(pick), self.serial)

    def waiting_bytes(self) -> int:
        """Of output that nobody has fetched, as far as it may be too much."""
        queue = self.link.queue
        if self.page is None and len(queue) < 60:  # 60 of the longest make less than the limit
            return 0
        return sum(16 + len(item.packet.payload) for item in queue) - self.link.begun
