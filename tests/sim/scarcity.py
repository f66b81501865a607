"""Steps in which the engine runs out of memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import model
from model_tree import Msg, Packet

from sim.page import ERROR
from sim.page import SIZE as RING_SIZE
from sim.peer import Peer, cut, frame
from xsd.core.engine import CLOSE

if TYPE_CHECKING:
    from sim.stage import Stage

RETRY_NS = 10_000_000
BAD_REQUEST = 3


class Scarcity:
    """One allocation fails; what the engine may make of that, and nothing else."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def table(self) -> dict[str, Callable[..., None]]:
        """Who carries out which step."""
        return {
            "no memory": self.do_no_memory,
            "no memory for death": self.do_no_memory_for_death,
        }

    def do_no_memory(self, nth: int, slot: int, ask: tuple[int, bytes, int]) -> None:
        """One allocation fails while a request is handled.

        It is answered as ever, or with ENOMEM and nothing has changed, or later, or its
        connection is given up and nothing has changed.
        """
        peer = self.stage.slots[slot]
        if peer is None or not self.is_idle(peer) or self.is_involved(peer, ask):
            self.stage.actions.do_ask(slot, ask)
            return
        engine, data = self.stage.engine, peer.message(ask)
        if peer.page is not None and len(data) > RING_SIZE:
            self.stage.send(peer, data)
            return
        failures = engine.memory()["failures"]
        engine.fail_allocation(nth)
        flags = 0
        if peer.page is None:
            flags = engine.feed(self.stage.now, peer.cid, data)
        else:
            peer.page.send(data)
            self.stage.rings.handle(peer.event)
        engine.fail_allocation(0)
        failed = engine.memory()["failures"] - failures
        raw = engine.take(peer.cid) if peer.page is None else peer.page.responses() or b""
        verdict = self.verdict(peer, flags, cut(raw)) if failed else "done"
        if verdict == "done":
            self.take_in(peer, data)
        elif verdict == "refused":
            self.refuse(peer, cut(data)[0])
        elif verdict == "given up":
            self.stage.give_up(peer, BAD_REQUEST)
        else:
            peer.received, peer.starved = data, True
            self.stage.pause(peer)
        if peer.page is None:
            self.stage.compare_output(peer, raw)
        else:
            left = peer.page.requests() or b""  # could not be kept: it is read again
            peer.received = peer.received.removesuffix(left)
            self.stage.moved.add(peer.port)
            self.stage.put_out(peer)
            self.stage.put_out_others(peer)
        if peer.closing:
            self.stage.disconnect(peer)
        elif peer.starved:
            self.stage.retry_at = self.stage.now + RETRY_NS
            self.stage.settle()
            self.stage.pass_time(RETRY_NS)

    def is_involved(self, peer: Peer, ask: tuple[int, bytes, int]) -> bool:
        """What comes of it would depend on more than the request: without memory nobody is
        charged, whoever might break a transaction with priority waits, and what a transaction
        has noted counts against a small quota."""
        fairness, oracle = self.stage.fairness, self.stage.oracle
        if fairness is not None and ask[0] == Msg.TRANSACTION_END:
            return True
        if fairness is not None and fairness.priority.tx is not None:
            return True
        return ask[2] != 0 and oracle.limited(peer.link) and oracle.is_tight(peer.domid)

    def is_idle(self, peer: Peer) -> bool:
        """Nothing is on its way in or out."""
        if (
            self.stage.blocked(peer)
            or peer.slow
            or peer.paused
            or peer.unsent
            or peer.received
            or peer.link.queue
        ):
            return False
        if peer.page is None:
            return True
        mute = peer.expected or peer.garbled or peer.link.ignored
        return not mute and self.stage.oracle.features(peer.link) & 2 != 0

    def verdict(self, peer: Peer, flags: int, packets: list[Packet]) -> str:
        """What the engine has made of a request for which there was no memory."""
        if flags & CLOSE or (peer.page is not None and peer.page.word(ERROR) == BAD_REQUEST):
            return "given up"
        replies = [packet for packet in packets if packet.type != Msg.WATCH_EVENT]
        if replies:
            nomem = replies[0].type == Msg.ERROR and replies[0].payload == b"ENOMEM\0"
            return "refused" if nomem else "done"
        # It waits: for the hypervisor, or for memory.
        while (effect := self.stage.engine.next_effect()) is not None:
            if effect[1] in ("domain", "introduce", "control"):
                self.stage.taken = effect
                return "done"
        return "starved"

    def take_in(self, peer: Peer, data: bytes) -> None:
        peer.received = data
        self.stage.run(peer)
        if self.stage.taken is not None:
            effect, self.stage.taken = self.stage.taken, None
            self.stage.take_effect(effect)

    def refuse(self, peer: Peer, request: Packet) -> None:
        """The oracle answers as if there were no memory, which ends a transaction."""
        kind, req, tx, payload = request
        link, known = peer.link, tx in peer.link.transactions
        oracle = self.stage.oracle
        if known and kind == Msg.TRANSACTION_END and payload in (b"T\0", b"F\0"):
            oracle.end(link, link.transactions.pop(tx))
        if oracle.limited(link):
            oracle.cause = model.Cause()
            link.causes.append(oracle.cause)
        oracle.queue(link, Packet(Msg.ERROR, req, tx, b"ENOMEM\0"))
        oracle.cause = None
        if self.stage.blocked(peer):
            self.stage.pause(peer)
        if tx in link.transactions:  # what it has noted of the request is not known: it ends here
            peer.unsent = frame(Msg.TRANSACTION_END, b"F\0", tx, 0)
            self.stage.pushing.add(peer)

    def do_no_memory_for_death(self, nth: int, domid: int) -> None:
        """One allocation fails while the engine cleans up after a domain: it tries again."""
        if domid not in self.stage.host:
            return
        heard = self.stage.actions.has_heard_of(domid)
        self.stage.engine.fail_allocation(nth)
        self.stage.engine.domain_died(self.stage.now, domid)
        self.stage.engine.fail_allocation(0)
        self.stage.actions.death_of(domid, heard)
        self.stage.tick()
