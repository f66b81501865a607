"""Engine and oracle side by side: carries out a step on both, and compares what comes of it.

The engine is driven as the daemon drives it: sockets are fed and taken from, rings go through
xsd.io.rings with pages in memory. Whenever the engine does something (serves a connection that
had to wait, asks the hypervisor, lets time pass), the oracle does the same at that moment; what
the engine may do then, and must not leave undone, is checked against the rules that stand here:
`blocked` says who is not read, `serve` what happens on a ring, `ask` what must be asked.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any
from zlib import crc32

import model
from model_tree import (
    OK,
    PAYLOAD_MAX,
    RING,
    Msg,
    Packet,
    RequestError,
)

from sim.actions import Actions
from sim.fairness import Fairness
from sim.judge import Judge
from sim.page import ERROR, FEATURES, STATE, Page
from sim.page import SIZE as RING_SIZE
from sim.peer import Peer, cut, masked, wire
from sim.scarcity import Scarcity
from sim.settings import Settings
from sim.steps import DOMIDS, GUEST_SLOTS, KERNEL_SLOT, SLOTS, S, Step
from sim.verdict import DifferenceError, expect
from xsd.core.engine import CLOSE, PAUSE, Engine
from xsd.io.rings import Rings
from xsd.io.turn import Turn

NEVER = 1 << 80
STEP_NS = 10_000
OUTPUT_HIGH = 256 * 1024
RING_OUTPUT_HIGH = 2 * 1024
BUDGET = 256  # more than a ring holds: a pass is one step
FIRST_RESERVED = 0x7FF0
BAD_INDICES, BAD_REQUEST = 2, 3
COMPARE_EVERY = 64
"""Steps between two comparisons of tree and counts."""
CHECK_EVERY = 2048
"""Steps between two calls of the engine's own check, which looks at everything."""
ROUNDS_MAX = 10_000

_header = struct.Struct("=4I")


class Loop:
    """The turn's loop: nobody calls back, the stage does all that itself."""

    def call_soon(self, callback: Callable[..., object], *args: object) -> None:
        pass


class Effect:
    """What the engine has asked for and not been told yet."""

    __slots__ = ("domid", "kind", "number", "peer")

    def __init__(self, number: int, kind: str, domid: int, peer: Peer | None) -> None:
        self.number = number
        self.kind = kind
        self.domid = domid
        self.peer = peer


class Stage:
    """One world."""

    def __init__(self, seed: int) -> None:
        self.now = S
        self.engine = Engine(seed=seed)
        self.settings = Settings()
        self.fairness: Fairness | None = None
        self.turn = Turn(self.engine, Loop(), lambda: None)  # type: ignore[arg-type]
        self.rings = Rings(self.turn, -1, 0, 0, self.stray, BUDGET)
        self.oracle = model.Model()
        self.oracle.now = self.now
        self.oracle.ask = self.ask
        self.host = self.oracle.host
        self.set_up(self.settings)
        self.slots: list[Peer | None] = [None] * SLOTS
        self.by_cid: dict[int, Peer] = {}
        self.by_link: dict[model.Connection, Peer] = {}
        self.paused: set[Peer] = set()
        self.pushing: set[Peer] = set()  # have more to send
        self.fresh: set[Peer] = set()  # have output that may be fetched
        self.effects: list[Effect] = []
        self.late = False
        self.taken: tuple[Any, ...] | None = None
        self.moved: set[int] = set()  # ports whose guests must be notified
        self.notifications = 0
        self.retry_at = 0  # when who had no memory may go on
        self.faults: dict[Peer, int] = {}  # rings that have just been given up
        self.pages: dict[int, Page] = {0: Page()}
        self.generation = 0
        self.deadline: int | None = None
        self.expiry = 0  # no event of a guest is older than it may be before this time
        self.digest = 0
        self.steps = 0
        self.compare_every = COMPARE_EVERY
        self.actions = Actions(self)
        self.scarcity = Scarcity(self)
        self.judge = Judge(self)
        self.table = {**self.actions.table(), **self.scarcity.table()}

    def set_up(self, settings: Settings) -> None:
        """The daemon is set up, before anything has happened."""
        self.settings = settings
        settings.configure(self.engine)
        self.oracle.quotas.update(settings.quotas)
        self.oracle.event_timeout = settings.event_timeout_ns
        self.fairness = Fairness(self.oracle, settings) if settings.fair else None
        self.oracle.observer = self.fairness

    def stray(self, port: int) -> None:
        raise DifferenceError(f"an event on port {port}, which is no ring's")

    # ---- a step ------------------------------------------------------------------------------

    def play(self, step: Step) -> None:
        """Carries out one step. Raises DifferenceError, or whatever the engine raises."""
        self.steps += 1
        self.pass_time(STEP_NS)
        self.table[step[0]](*step[1:])
        self.settle()
        if self.steps % self.compare_every == 0:
            self.judge.compare()
        if self.steps % CHECK_EVERY == 0:
            self.engine.check()

    def pass_time(self, nanoseconds: int) -> None:
        self.now += nanoseconds
        self.oracle.now = self.now
        self.turn.set_time(self.now)

    def settle(self) -> None:
        """Until nothing moves: output fetched, effects carried out, who had to wait resumed."""
        engine = self.engine
        for _ in range(ROUNDS_MAX):
            if (cid := engine.next_dirty()) >= 0:
                self.dirty(cid)
            elif (effect := engine.next_effect()) is not None:
                self.take_effect(effect)
            elif (cid := engine.next_runnable()) >= 0:
                self.resume(cid)
            elif self.fresh:
                self.fetch_all()
            elif self.pushing and self.push_all():
                pass
            elif self.tick():
                break
        else:
            raise DifferenceError("it never comes to rest")
        for peer in self.paused:
            expect(self.blocked(peer), "a connection was not woken up", peer.name)
        if self.moved or self.rings.notifications != self.notifications:
            self.notifications = self.rings.notifications
            self.check_rings()

    def tick(self) -> bool:
        """Tells the engine the time; whether nobody has anything to do because of that."""
        self.deadline = self.engine.tick(self.now)
        if self.now >= self.expiry:
            self.expire()
        if self.fairness is not None:
            self.fairness.tick()
        return not self.fresh and self.quiet_engine()

    def quiet_engine(self) -> bool:
        engine = self.engine
        if (cid := engine.next_dirty()) >= 0:
            self.dirty(cid)
        elif (effect := engine.next_effect()) is not None:
            self.take_effect(effect)
        elif (cid := engine.next_runnable()) >= 0:
            self.resume(cid)
        else:
            return True
        return False

    def expire(self) -> None:
        self.oracle.advance(0)
        soon = self.now + (self.oracle.event_timeout or NEVER)
        self.expiry = min(self.next_expiry(), soon)

    def next_expiry(self) -> int:
        """When the oldest event that may be lost will be."""
        oldest = NEVER
        for connection in self.oracle.connections:
            if self.oracle.limited(connection):
                for item in connection.queue[connection.begun > 0 :]:
                    if item.packet.type == Msg.WATCH_EVENT:
                        oldest = min(oldest, item.since)
        return oldest + (self.oracle.event_timeout or NEVER)

    # ---- who is read -------------------------------------------------------------------------

    def blocked(self, peer: Peer) -> bool:
        """Whether the requests of a connection have to wait."""
        link = peer.link
        if peer.asked is not None or link.ignored or peer.closing:
            return True
        if peer.starved and self.now < self.retry_at:
            return True
        if peer.page is not None and link.queue and peer.waiting_bytes() > RING_OUTPUT_HIGH:
            return True
        if self.fairness is not None and self.fairness.makes_wait(link):
            return True
        oracle = self.oracle
        if not oracle.limited(link):
            return peer.waiting_bytes() > OUTPUT_HIGH
        limit = oracle.limit(link, "outstanding")
        if limit != 0 and oracle.outstanding(link) >= limit:
            return True
        return oracle.is_tight(peer.domid) and self.is_full(link)

    def is_full(self, link: model.Connection) -> bool:
        """A guest has more than its memory quota. What its transactions need does not count: it
        must be able to end them."""
        self.oracle.accounted = self.oracle.live
        return not self.oracle.fits(link.domid, -link.recorded)

    def has_no_credit(self, peer: Peer) -> bool:
        """A ring that is neither read nor written: its domain has caused too many conflicts."""
        return self.fairness is not None and self.fairness.has_no_credit(peer.domid)

    def pause(self, peer: Peer) -> None:
        peer.paused = True
        self.paused.add(peer)

    def run(self, peer: Peer) -> None:
        """The oracle handles what has been received of a connection."""
        data, at = peer.received, 0
        oracle, link = self.oracle, peer.link
        peer.paused = False
        self.paused.discard(peer)
        while len(data) - at >= 16:
            if self.blocked(peer):
                break
            kind, req, tx, length = _header.unpack_from(data, at)
            if length > PAYLOAD_MAX:
                self.give_up(peer, BAD_REQUEST)
                return
            end = at + 16 + length
            if len(data) < end:
                break
            try:
                oracle.request(link, kind, req, tx, data[at + 16 : end])
            except model.NotYetError as wait:
                if wait.kind == "held":
                    break
                peer.asked = wait.kind, wait.domid
                if wait.kind == "domain":
                    break
                peer.pending = Packet(kind, req, tx, data[at + 16 : end])
            else:
                peer.answers.clear()
                if self.fairness is not None:
                    self.fairness.priority.answered(link)
            at = end
        peer.received = data[at:]
        if self.blocked(peer):
            self.pause(peer)

    def give_up(self, peer: Peer, error: int) -> None:
        """It cannot be served any more: a socket is closed, a ring is told and ignored."""
        if peer.page is None:
            peer.closing = True
            peer.received = b""
            self.pause(peer)
            return
        self.oracle.misframed(peer.link)
        self.forget_input(peer)
        if error == BAD_REQUEST:  # found while it was read
            self.pause(peer)
        self.moved.add(peer.port)
        if self.oracle.features(peer.link) & 2:
            self.faults[peer] = error

    def forget_input(self, peer: Peer) -> None:
        peer.received = b""
        peer.asked = peer.pending = None
        peer.answers.clear()
        for effect in self.effects:
            if effect.peer is peer:
                effect.peer = None

    # ---- questions to the hypervisor -----------------------------------------------------------

    def ask(self, connection: model.Connection, kind: str, domid: int) -> bool:
        """What the oracle is told when it asks, as the engine would be: or it has to wait."""
        if kind == "domain":
            if domid in (self.oracle.priv_domid, self.oracle.store_domid):
                return True
            if domid in self.oracle.domains and self.oracle.domains[domid].exists:
                return True
            if domid >= FIRST_RESERVED or self.oracle.replaying:
                return False
        peer = self.by_link[connection]
        answer = peer.answers.get((kind, domid))
        if answer is None:
            raise model.NotYetError(kind, domid)
        if kind != "domain" and answer:
            raise RequestError(answer)
        return not answer

    def take_effect(self, found: tuple[Any, ...]) -> None:
        """The engine asks for something."""
        number, kind, cid, args = found
        if kind == "release":
            self.release(args[0])
        if kind not in ("domain", "introduce", "control"):
            return
        peer = self.by_cid.get(cid)  # who asked may have gone, or begun afresh, before this
        domid = 0 if kind == "control" else args[0]
        asked = peer.asked if peer is not None else (kind, domid)
        expect(asked == (kind, domid), "an effect", found, asked)
        effect = Effect(number, kind, domid, peer)
        if self.late:
            self.effects.append(effect)
        else:
            self.complete(effect, True)

    def complete(self, effect: Effect, well: bool) -> None:
        """The hypervisor answers, as things are now."""
        kind, domid, peer = effect.kind, effect.domid, effect.peer
        error = ""
        if kind != "control" and domid not in self.host:
            error = "ENOENT"
        elif kind == "introduce" and not well:
            error = "EIO"
        self.engine.complete(self.now, effect.number, error, OK if kind == "control" else b"")
        if kind == "domain" and not error:
            self.found(domid)
        if peer is None:
            if kind == "introduce" and not error:
                self.oracle.begin_change()
                self.oracle.introduce(domid)
                self.attach(domid)
            return
        peer.asked = None
        if error or kind != "domain":  # that it exists stands in the record, until it dies
            peer.answers[kind, domid] = error
        if peer.pending is not None:
            request, peer.pending = peer.pending, None
            self.oracle.request(peer.link, *request)
            peer.answers.clear()
            self.fresh.add(peer)
        if kind == "introduce" and not error:
            self.attach(domid)

    def found(self, domid: int) -> None:
        """The engine has been told that a domain exists."""
        self.oracle.domain(domid).exists = True
        self.oracle.rules += 1

    # ---- rings -------------------------------------------------------------------------------

    def attach(self, domid: int) -> None:
        """A domain has been introduced, perhaps again."""
        link = self.oracle.ring_of(domid)
        expect(link is not None, "no ring", domid)
        assert link is not None
        self.found(domid)
        peer = self.by_link.get(link)
        if peer is None:
            slot = self.slot_of(domid)
            peer = Peer(slot, link, self.engine.domain_conn(domid), domid)
            self.by_link[link] = self.by_cid[peer.cid] = peer
            if slot >= 0:
                self.slots[slot] = peer
        self.generation += 1
        peer.page = self.pages[domid]
        peer.port = 8 + 4 * (domid % 64) + self.generation % 4
        peer.event = struct.pack("=I", peer.port)
        self.rings.attach(domid, peer.page.address, peer.port)
        self.forget_input(peer)
        self.reset_ring(peer)

    def reset_ring(self, peer: Peer) -> None:
        page = peer.page
        assert page is not None
        peer.unsent = peer.expected = b""
        self.moved.add(peer.port)
        self.faults.pop(peer, None)
        peer.reconnecting = False
        peer.starved = peer.garbled = False
        self.fresh.add(peer)
        self.pushing.discard(peer)
        words = (
            bytes(page.bytes[2048:2064]),
            page.word(STATE),
            page.word(ERROR),
            page.word(FEATURES),
        )
        right = bytes(16), 0, 0, self.oracle.features(peer.link)
        expect(words == right, "a ring after its reset", peer.name, words, right)

    def slot_of(self, domid: int) -> int:
        if domid == 0:
            return KERNEL_SLOT
        return GUEST_SLOTS[DOMIDS.index(domid)] if domid in DOMIDS else -1

    def release(self, domid: int) -> None:
        """The engine wants the ring of a domain unmapped."""
        self.rings.detach(domid)
        for peer in [peer for peer in self.by_cid.values() if peer.page and peer.domid == domid]:
            expect(not peer.link.alive, "released, but it lives", domid)
            self.forget(peer)

    def forget(self, peer: Peer) -> None:
        self.forget_input(peer)
        del self.by_cid[peer.cid], self.by_link[peer.link]
        if self.fairness is not None:
            self.fairness.priority.closed(peer.link)
        for peers in (self.paused, self.pushing, self.fresh):
            peers.discard(peer)
        if peer.slot >= 0 and self.slots[peer.slot] is peer:
            self.slots[peer.slot] = None

    def kick(self, peer: Peer) -> None:
        """The guest sends an event; the daemon looks at its ring."""
        page = peer.page
        assert page is not None
        waiting = page.requests()
        cons, room = page.word(2048), page.responses()
        self.rings.handle(peer.event)
        self.serve(peer, waiting, room)
        if not peer.link.ignored and waiting and not peer.paused and not peer.starved:
            expect(page.requests() == b"", "a ring was not emptied", peer.name, cons)
        self.put_out_others(peer)

    def serve(self, peer: Peer, waiting: bytes | None, room: bytes | None) -> None:
        """What happens on a ring; `waiting` and `room` are what stood in its page before."""
        link = peer.link
        if link.ignored:
            return
        if peer.reconnecting and self.oracle.features(link) & 1:
            self.oracle.begin_afresh(link)
            link.last_tx = 0
            self.forget_input(peer)
            self.reset_ring(peer)
            waiting = room = b""
        if link.queue and not self.has_no_credit(peer):
            if room is None:
                self.give_up(peer, BAD_INDICES)
                return
            self.put_out(peer)
        if not peer.paused and self.blocked(peer):
            self.pause(peer)
        if not peer.paused:
            if waiting is None:
                self.give_up(peer, BAD_INDICES)
            elif waiting:
                peer.received += waiting
                self.moved.add(peer.port)
                self.run(peer)
        if not link.ignored and link.queue and not self.has_no_credit(peer):
            if room is None:
                self.give_up(peer, BAD_INDICES)
            else:
                self.put_out(peer)

    def put_out(self, peer: Peer) -> None:
        """What has room of a ring's output stands in its page afterwards."""
        room = RING_SIZE - len(peer.expected)
        if room <= 0:
            return
        queue, begun = peer.link.queue, peer.link.begun
        out, length = [], -begun
        for item in queue:
            piece = wire(item.packet)
            out.append(piece)
            length += len(piece)
            if length >= room:
                break
        data = b"".join(out)[begun : begun + room]
        self.oracle.fetch(peer.link, len(data))
        if data:
            peer.expected += data
            self.moved.add(peer.port)
            self.fresh.add(peer)

    def put_out_others(self, peer: Peer) -> None:
        """Rings with output for which nobody has asked."""
        for connection in self.oracle.connections:
            if connection.kind == RING and connection.queue and not connection.ignored:
                other = self.by_link.get(connection)
                if other is not None and other is not peer:
                    if self.has_no_credit(other):
                        continue
                    if other.garbled:
                        self.give_up(other, BAD_INDICES)
                    else:
                        self.put_out(other)

    def dirty(self, cid: int) -> None:
        """The engine says that a connection has output."""
        peer = self.by_cid.get(cid)
        expect(peer is not None, "output of nobody", cid)
        assert peer is not None
        if peer.page is None:
            self.fresh.add(peer)
        else:
            self.kick(peer)

    def resume(self, cid: int) -> None:
        """The engine says that a connection which had to wait may go on."""
        peer = self.by_cid.get(cid)
        expect(peer is not None and peer.paused, "woken up without having slept", cid)
        assert peer is not None
        peer.starved = False
        data, peer.unsent = (peer.unsent, b"") if peer.page is None else (b"", peer.unsent)
        flags = self.engine.feed(self.now, cid, data)
        self.after_feed(peer, data, flags)
        if peer.page is not None and not peer.paused:
            self.kick(peer)

    def after_feed(self, peer: Peer, data: bytes, flags: int) -> None:
        peer.received += data
        self.run(peer)
        if flags & CLOSE:
            expect(peer.closing, "closed without a reason", peer.name)
        elif peer.closing:
            raise DifferenceError("not closed", peer.name)
        if peer.closing:
            self.take(peer)
            self.disconnect(peer)

    # ---- sending and fetching ----------------------------------------------------------------

    def send(self, peer: Peer, data: bytes) -> None:
        peer.unsent += data
        self.push(peer)

    def push(self, peer: Peer) -> bool:
        """Hands over what can be handed over; whether anything was."""
        if peer.page is None:
            if peer.paused:
                return False
            self.pushing.discard(peer)
            data, peer.unsent = peer.unsent, b""
            flags = self.engine.feed(self.now, peer.cid, data)
            self.after_feed(peer, data, flags)
            if not peer.closing:
                expect(bool(flags & PAUSE) == peer.paused, "paused or not", peer.name, flags)
            return True
        if peer.link.ignored and not peer.reconnecting:
            peer.unsent = b""
            self.pushing.discard(peer)
        sent = peer.page.send(peer.unsent)
        peer.unsent = peer.unsent[sent:]
        if peer.unsent:
            self.pushing.add(peer)
        else:
            self.pushing.discard(peer)
        if sent:
            self.kick(peer)
        return sent > 0

    def push_all(self) -> bool:
        """Until something was moved: what follows from that for others comes first."""
        return any(map(self.push, sorted(self.pushing, key=lambda peer: peer.slot)))

    def fetch_all(self) -> None:
        """Until a ring was looked at: what follows from that for others comes first."""
        for peer in sorted(self.fresh, key=lambda peer: (peer.slot, peer.domid)):
            self.fresh.discard(peer)
            if not peer.slow and peer.link.alive:
                self.take(peer)
                if peer.page is not None:
                    return

    def take(self, peer: Peer, most: int = 1 << 30) -> None:
        """The client fetches up to so many bytes; they must be those that the oracle has."""
        if peer.page is not None:
            self.read_page(peer, most)
            return
        link = peer.link
        data = self.engine.take(peer.cid, most)
        self.digest = crc32(data, self.digest)
        if most >= 1 << 30:
            self.compare_output(peer, data)
            return
        right = b"".join(wire(item.packet) for item in link.queue)[link.begun :][:most]
        self.oracle.fetch(link, most)
        expect(data == right, f"output of {peer.name}", data, right)

    def compare_output(self, peer: Peer, data: bytes) -> None:
        """All that waits for a socket has been taken."""
        link = peer.link
        packets, begun = [item.packet for item in link.queue], link.begun
        self.oracle.throw_away(link)
        right = b"".join(map(wire, packets))[begun:]
        if data != right:
            same = begun == 0 and masked(cut(data)) == masked(packets)
            expect(same, f"output of {peer.name}", cut(data), packets)

    def read_page(self, peer: Peer, most: int) -> None:
        page = peer.page
        assert page is not None
        if peer.garbled:
            return
        data = page.responses()
        expect(data == peer.expected, f"output of {peer.name}", data, peer.expected)
        if not data:
            return
        data, peer.expected = data[:most], peer.expected[most:]
        self.digest = crc32(data, self.digest)
        page.fetched(len(data))
        if peer.link.queue:
            self.kick(peer)

    def check_rings(self) -> None:
        """Whose ring has moved was notified, nobody else, and who broke the rules was told."""
        told = set(self.rings.take_notified())
        expect(self.moved == told, "whom to notify", sorted(told), sorted(self.moved))
        self.moved.clear()
        for peer, error in self.faults.items():
            if peer.page is not None and peer.link.alive:
                found = peer.page.word(ERROR)
                expect(found == error, "the error word of a ring", peer.name, found, error)
        self.faults.clear()

    def disconnect(self, peer: Peer) -> None:
        self.engine.close(self.now, peer.cid)
        self.oracle.close(peer.link)
        self.forget(peer)
