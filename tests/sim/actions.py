"""The steps, carried out."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from model_tree import SOCKET, Msg

from sim.page import FEATURES, PLACES, STATE, Page
from sim.peer import Peer
from sim.settings import from_plain
from sim.steps import SOCKETS
from sim.verdict import DifferenceError, expect

if TYPE_CHECKING:
    from sim.stage import Stage

NEVER = 1 << 80
ROUNDS_MAX = 10_000

_header = struct.Struct("=4I")


class Actions:
    """What people in a world do. Whoever is not there does nothing."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def table(self) -> dict[str, Callable[..., None]]:
        """Who carries out which step."""
        return {
            "settings": self.do_settings,
            "tune": self.do_tune,
            "ask": self.do_ask,
            "burst": self.do_burst,
            "open": self.do_open,
            "close": self.do_close,
            "bring": self.do_bring,
            "birth": self.do_birth,
            "kill": self.do_kill,
            "shutdown": self.do_shutdown,
            "wait": self.do_wait,
            "slow": self.do_slow,
            "fetch": self.do_fetch,
            "reconnect": self.do_reconnect,
            "kick": self.do_kick,
            "late": self.do_late,
            "complete": self.do_complete,
            "garbage": self.do_garbage,
            "oversize": self.do_oversize,
        }

    def client(self, slot: int) -> Peer | None:
        """Who is in a slot; nobody, or somebody who cannot be asked anything, is None."""
        return self.stage.slots[slot]

    def do_settings(self, pairs: tuple[tuple[str, Any], ...]) -> None:
        """The first thing to happen, or it does not happen."""
        if self.stage.steps == 1:
            self.stage.set_up(from_plain(pairs))

    def do_tune(self, name: str, value: Any) -> None:
        """One setting is changed while the daemon runs, in worlds in which anybody may wait."""
        stage = self.stage
        if stage.fairness is not None and getattr(stage.settings, name) != value:
            stage.settings = stage.settings.with_one(name, value)
            stage.engine.configure(**{name: value})
            stage.fairness.tune(stage.settings)

    def do_ask(self, slot: int, ask: tuple[int, bytes, int]) -> None:
        peer = self.stage.slots[slot]
        if peer is not None:
            self.stage.send(peer, peer.message(ask))

    def do_burst(self, slot: int, asks: tuple[tuple[int, bytes, int], ...], part: int) -> None:
        """All at once; of the last one only a part, and the rest with what is sent next."""
        peer = self.stage.slots[slot]
        if peer is None:
            return
        messages = [peer.message(ask) for ask in asks]
        data = b"".join(messages)
        if part >= 0 and part < len(messages[-1]) and not peer.paused:
            whole = len(data) - len(messages[-1]) + part
            self.stage.send(peer, data[:whole])
            self.stage.settle()
            if peer.link.alive and not peer.link.ignored:
                self.stage.send(peer, data[whole:])
        else:
            self.stage.send(peer, data)

    def do_open(self, slot: int) -> None:
        if self.stage.slots[slot] is None and slot < SOCKETS:
            link = self.stage.oracle.open(SOCKET, 0)
            peer = Peer(slot, link, self.stage.engine.open(self.stage.now, SOCKET, 0))
            self.stage.slots[slot] = self.stage.by_cid[peer.cid] = self.stage.by_link[link] = peer

    def do_close(self, slot: int) -> None:
        peer = self.stage.slots[slot]
        if peer is None:
            self.do_open(slot)
        elif peer.page is None:
            self.stage.disconnect(peer)

    def do_birth(self, domid: int) -> None:
        if domid not in self.stage.host:
            self.stage.host.add(domid)
            self.stage.pages[domid] = Page()

    def do_bring(self, domid: int) -> None:
        """Somebody in dom0 makes a domain and introduces it, or introduces it again."""
        self.do_birth(domid)
        for slot in range(SOCKETS):
            peer = self.stage.slots[slot]
            if peer is not None and not peer.paused and not peer.received:
                self.stage.send(peer, peer.message((Msg.INTRODUCE, b"%d\x001\x007\0" % domid, 0)))
                return
        self.do_open(0)

    def do_kill(self, domid: int) -> None:
        if domid in self.stage.host:
            heard = self.has_heard_of(domid)
            self.stage.engine.domain_died(self.stage.now, domid)
            self.death_of(domid, heard)

    def has_heard_of(self, domid: int) -> bool:
        """Whether the engine has a record of a domain: else its death is no news."""
        try:
            self.stage.engine.domain_quotas(domid)
        except KeyError:
            return False
        return True

    def death_of(self, domid: int, heard: bool) -> None:
        if heard:
            self.stage.oracle.domain(domid)
            self.stage.oracle.domain_died(domid)
            return
        expect(domid not in self.stage.oracle.counts(), "unheard of", domid)
        expect(self.stage.oracle.ring_of(domid) is None, "unheard of", domid)
        self.stage.host.discard(domid)
        self.stage.oracle.domains.pop(domid, None)

    def do_shutdown(self, domid: int) -> None:
        if domid in self.stage.host:
            self.stage.engine.domain_shutdown(self.stage.now, domid)
            self.stage.oracle.domain_shutdown(domid)

    def do_wait(self, nanoseconds: int) -> None:
        """Time passes from deadline to deadline."""
        end = self.stage.now + nanoseconds
        self.stage.settle()
        self.check_deadline()
        for _ in range(ROUNDS_MAX):
            if self.stage.deadline is None or self.stage.deadline > end:
                break
            self.stage.pass_time(max(1, self.stage.deadline - self.stage.now))
            self.stage.settle()
            self.check_deadline()
        else:
            raise DifferenceError("it wants to be woken up again and again")
        if end > self.stage.now:
            self.stage.pass_time(end - self.stage.now)

    def check_deadline(self) -> None:
        """Whoever waits for time goes on as soon as it is time."""
        due = self.stage.next_expiry()
        if due < NEVER:
            well = self.stage.deadline is not None and self.stage.deadline <= due
            expect(well, "no deadline for events that will be too old", self.stage.deadline, due)
        fairness = self.stage.fairness
        if fairness is not None and (soon := fairness.due()) is not None:
            well = self.stage.deadline is not None and self.stage.deadline <= soon
            expect(well, "no deadline for who has to wait", self.stage.deadline, soon)

    def do_slow(self, slot: int, slow: bool) -> None:
        peer = self.stage.slots[slot]
        if peer is not None and not peer.received and not peer.unsent:
            peer.slow = slow
            if not slow:
                self.stage.fresh.add(peer)

    def do_fetch(self, slot: int, most: int) -> None:
        peer = self.stage.slots[slot]
        if peer is not None:
            self.stage.take(peer, most)

    def do_reconnect(self, slot: int) -> None:
        peer = self.stage.slots[slot]
        if peer is not None and peer.page is not None and peer.page.word(FEATURES) & 1:
            peer.page.put_word(STATE, 1)
            peer.reconnecting = True
            self.stage.kick(peer)

    def do_kick(self, slot: int) -> None:
        peer = self.stage.slots[slot]
        if peer is not None and peer.page is not None:
            self.stage.kick(peer)

    def do_late(self, late: bool) -> None:
        self.stage.late = late
        while not late and self.stage.effects:
            self.stage.complete(self.stage.effects.pop(0), True)
            self.stage.settle()

    def do_complete(self, pick: int, well: bool) -> None:
        if self.stage.effects:
            self.stage.complete(self.stage.effects.pop(pick % len(self.stage.effects)), well)

    def do_oversize(self, slot: int, length: int) -> None:
        peer = self.stage.slots[slot]
        if peer is not None:
            self.stage.send(peer, _header.pack(Msg.WRITE, 1, 0, length))

    def do_garbage(self, slot: int, index: str, far: int) -> None:
        """A guest writes any number into one of the indices of its page, and kicks."""
        peer = self.stage.slots[slot]
        if peer is None or peer.page is None or peer.link.ignored:
            return
        page, at = peer.page, PLACES[index]
        page.put_word(at, page.word(at) + far)
        there = page.responses()
        peer.garbled = there is None
        peer.expected = there or b""
        self.stage.kick(peer)
