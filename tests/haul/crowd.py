"""Clients on sockets and guests on rings that come, do anything and go; a seed says what.

Nobody in the crowd ever waits for the daemon, but for the toolstack, who must get good answers.
What they do is of all kinds at once: some of them read what they get, some nap for a while, some
hang up in the middle of a message or with transactions open; guests write, watch, break their
rings, are paused, die at once or slowly, and their ids are given to others.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from peer import HEADER, Peer, message
from xen.hypervisor import CRASH, DYING, POWEROFF, REQ_CONS, REQ_PROD, RSP_CONS, Guest

from haul.house import HaulError, House
from xsd.client.wire import Op

OK = b"OK\0"
NAP_STEPS = 400
DOMIDS = range(1, 41)
"""Those of guests; the same as in the C client's loads, so that they are used again there."""
MISSING = range(200, 240)
"""Ids of no domain."""

Maker = Callable[[], bytes]


def _path(chance: random.Random, top: bytes) -> bytes:
    """A path out of few, so that clients meet."""
    return top + b"".join(b"/n%d" % chance.randrange(5) for _ in range(chance.randrange(5)))


def _tree_request(chance: random.Random, path: bytes, tx: int, other: int) -> bytes:
    """A request that reads or changes the tree; it may be refused."""
    makers: tuple[tuple[int, Maker], ...] = (
        (8, lambda: message(Op.WRITE, path + b"\0" + b"v" * chance.randrange(1500), tx)),
        (6, lambda: message(Op.READ, path + b"\0", tx)),
        (2, lambda: message(Op.MKDIR, path + b"\0", tx)),
        (2, lambda: message(Op.RM, path + b"\0", tx)),
        (3, lambda: message(Op.DIRECTORY, path + b"\0", tx)),
        (1, lambda: message(Op.DIRECTORY_PART, path + b"\x000\0", tx)),
        (2, lambda: message(Op.GET_PERMS, path + b"\0", tx)),
        (2, lambda: message(Op.SET_PERMS, path + b"\0b%d\0r0\0" % other, tx)),
    )
    return _drawn(chance, makers)


def _other_request(chance: random.Random, path: bytes, tx: int) -> bytes:
    """A watch, a transaction, or nonsense."""
    makers: tuple[tuple[int, Maker], ...] = (
        (4, lambda: message(Op.WATCH, path + b"\0" + b"t" * chance.randrange(40) + b"\0")),
        (1, lambda: message(Op.WATCH, path + b"\0deep\0%d\0" % chance.randrange(4))),
        (1, lambda: message(Op.WATCH, b"@releaseDomain\0out\0")),
        (1, lambda: message(Op.WATCH, b"@introduceDomain\0in\0")),
        (2, lambda: message(Op.UNWATCH, path + b"\0" + b"t" * chance.randrange(40) + b"\0")),
        (1, lambda: message(Op.RESET_WATCHES, b"\0")),
        (4, lambda: message(Op.TRANSACTION_START, b"\0")),
        (3, lambda: message(Op.TRANSACTION_END, chance.choice([b"T\0", b"T\0", b"F\0"]), tx)),
        (1, lambda: message(Op.GET_DOMAIN_PATH, b"%d\0" % chance.choice(DOMIDS))),
        (1, lambda: message(Op.IS_DOMAIN_INTRODUCED, b"%d\0" % chance.choice(DOMIDS))),
        (1, lambda: message(Op.GET_QUOTA, b"nodes\0")),
        (1, lambda: message(chance.randrange(40, 90), chance.randbytes(chance.randrange(30)))),
    )
    return _drawn(chance, makers)


def _drawn(chance: random.Random, makers: tuple[tuple[int, Maker], ...]) -> bytes:
    (maker,) = chance.choices([make for _, make in makers], [weight for weight, _ in makers])
    return maker()


@dataclass(slots=True)
class Player:
    """A client on a socket: the crowd's, with a nap that ends at some step."""

    peer: Peer
    wakes: int = 0
    part: bytes = b""
    """What is left of a message of which a piece was sent; a client sends on or hangs up."""


class Crowd:
    """All of them; ``guests`` says whether there are domains too."""

    def __init__(self, house: House, chance: random.Random, *, sockets: int, guests: int) -> None:
        self._house = house
        self._chance = chance
        self._sockets = sockets
        self._most_guests = guests
        self._toolstack = Peer(house.socket)
        self._players: list[Player] = []
        self._guests: dict[int, Guest] = {}
        self._wakes: dict[int, int] = {}
        self._step = 0
        self.births = 0

    def step(self) -> None:
        """Somebody does something."""
        self._step += 1
        chance = self._chance
        if self._most_guests and chance.random() < 0.5:
            self._guest_acts()
        elif chance.random() < 0.02:
            self._operator_acts()
        else:
            self._player_acts()

    def wake(self) -> None:
        """Those who nap hang up, before a load is waited for.

        A guest may have 20 requests whose events somebody has not taken: several who watch
        everything and read nothing hold all guests up, for as long as they like.
        """
        for player in [one for one in self._players if one.wakes]:
            self._close(player)

    def hang_up(self) -> None:
        """All sockets are closed, with whatever is under way on them."""
        for player in self._players:
            player.peer.close()
        self._players.clear()
        self._toolstack.close()

    def die(self) -> None:
        """All guests are gone at once, without a word to the daemon but the hypervisor's."""
        for domid in list(self._guests):
            self._bury(domid)
            self._house.xen.destroy(domid, virq=False)
        self._house.xen.virq()

    # -- sockets

    def _player_acts(self) -> None:
        chance = self._chance
        if len(self._players) < self._sockets:
            fresh = Player(Peer(self._house.socket))
            fresh.peer.sock.setblocking(False)
            self._players.append(fresh)
        player = chance.choice(self._players)
        actions: tuple[tuple[int, Callable[[Player], None]], ...] = (
            (50, self._send), (35, self._receive), (6, self._close), (2, self._half_close),
            (1, self._oversize), (3, self._pipeline), (2, self._piece), (2, self._nap),
        )  # fmt: skip
        (act,) = chance.choices([act for _, act in actions], [weight for weight, _ in actions])
        try:
            act(player)
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            self._close(player)

    def _request(self) -> bytes:
        chance = self._chance
        tx = chance.choice([0, 0, 0, 1, 2, 3])
        path = _path(chance, b"/haul")
        if chance.random() < 0.7:
            return _tree_request(chance, path, tx, chance.choice([0, 0, *DOMIDS]))
        return _other_request(chance, path, tx)

    def _put(self, player: Player, data: bytes) -> None:
        if player.part:
            data, player.part = player.part + data, b""
        sent = player.peer.sock.send(data)
        if sent < len(data):  # somewhere in a message: the rest must come first next time
            player.part = data[sent:][:65536]

    def _send(self, player: Player) -> None:
        count = self._chance.choice([1, 1, 1, 5, 20])
        self._put(player, b"".join(self._request() for _ in range(count)))

    def _receive(self, player: Player) -> None:
        if player.wakes > self._step:
            return
        if not player.peer.sock.recv(self._chance.choice([1, 100, 65536, 65536])):
            self._close(player)

    def _close(self, player: Player) -> None:
        self._players.remove(player)
        player.peer.close()

    def _half_close(self, player: Player) -> None:
        player.peer.sock.shutdown(socket.SHUT_WR)

    def _oversize(self, player: Player) -> None:
        self._put(player, HEADER.pack(Op.READ, 0, 0, self._chance.randrange(4097, 2**32)))

    def _pipeline(self, player: Player) -> None:
        path = _path(self._chance, b"/haul")
        self._put(player, message(Op.READ, path + b"\0") * 500)

    def _piece(self, player: Player) -> None:
        data = self._request()
        cut = self._chance.randrange(1, len(data))
        self._put(player, data[:cut])
        player.part = data[cut:] + player.part

    def _nap(self, player: Player) -> None:
        """Watches everything, and does not read for a while."""
        self._put(player, message(Op.WATCH, b"/\0nap%d\0" % self._step))
        player.wakes = self._step + NAP_STEPS

    # -- the operator

    def _operator_acts(self) -> None:
        house, chance = self._house, self._chance
        words = chance.choice(
            (
                ("check",), ("help",), ("metrics",), ("quota",), ("quota", "0"), ("quota-soft",),
                ("quota", "max"), ("quota", "max", "-r"), ("watches",), ("txn", "0"), ("trim",),
                ("txn", "1"), ("conflicts",), ("conflicts", "explain"), ("conflicts", "settings"),
                ("log",), ("log", "on" if house.access_log else "off"), ("log", "off"),
                ("log", "+wrl"), ("log", "-wrl"),
                ("print", "hello"), ("memreport", str(house.directory / "memreport")),
                ("SIGHUP",),
            )
        )  # fmt: skip
        if words == ("SIGHUP",):
            house.reopen_logs()
        else:
            house.control(*words)

    # -- guests

    def _guest_acts(self) -> None:
        chance = self._chance
        if len(self._guests) < self._most_guests and chance.random() < 0.3:
            self._birth(chance.choice([d for d in DOMIDS if d not in self._guests]))
            return
        if not self._guests:
            return
        guest = chance.choice(list(self._guests.values()))
        actions: tuple[tuple[int, Callable[[Guest], None]], ...] = (
            (60, self._talk), (40, self._listen), (3, self._sleep), (2, self._reconnect),
            (2, self._break), (1, self._pause), (1, self._resume), (2, self._end),
            (1, self._end_slowly), (1, self._released), (1, self._reborn), (1, self._target),
            (1, self._introduced_again), (1, self._stranger),
        )  # fmt: skip
        (act,) = chance.choices([act for _, act in actions], [weight for weight, _ in actions])
        act(guest)

    def _ask(self, op: int, payload: bytes, *allowed: str) -> str | bytes:
        """The toolstack asks; anything but OK or these answers is a failure."""
        answer = self._toolstack.ask(op, payload)
        if answer != OK and answer not in allowed:
            raise HaulError(f"{Op(op).name} {payload!r}: {answer!r}")
        return answer

    def _birth(self, domid: int) -> None:
        """A domain, introduced, with a home where it owns a directory."""
        self.births += 1
        self._guests[domid] = guest = self._house.xen.create(domid)
        self._wakes[domid] = 0
        if not self._introduced(guest):  # the daemon has not heard of its predecessor's end
            self._house.xen.virq()
            self._house.until(lambda: self._introduced(guest), f"an end of the other {domid}")
        home = b"/local/domain/%d" % domid
        self._ask(Op.MKDIR, home + b"\0")
        self._ask(Op.SET_PERMS, home + b"\0n0\0r%d\0" % domid)
        self._ask(Op.MKDIR, home + b"/data\0")
        self._ask(Op.SET_PERMS, home + b"/data\0n%d\0r0\0" % domid)

    def _introduced(self, guest: Guest) -> bool:
        payload = b"%d\0%d\0%d\0" % (guest.domid, guest.gfn, guest.port)
        return self._ask(Op.INTRODUCE, payload, "EBUSY") == OK

    def _introduced_again(self, guest: Guest) -> None:
        """As a toolstack does for one that broke its ring; too late for one that is dying."""
        if not self._house.xen.flags(guest.domid) & DYING:
            self._introduced(guest)

    def _bury(self, domid: int) -> None:
        self._guests.pop(domid).close()

    def _talk(self, guest: Guest) -> None:
        """Requests, as far as the ring has room; the last may be cut."""
        chance = self._chance
        if not 0 <= guest.room() <= 1024:
            return
        tx = chance.choice([0, 0, 0, 1, 2])
        for _ in range(chance.choice([1, 1, 4])):
            path = _path(chance, b"data")
            if chance.random() < 0.75:
                data = _tree_request(chance, path, tx, chance.choice(DOMIDS))
            else:
                data = _other_request(chance, path, tx)
            if len(data) > guest.room():
                break
            guest.put(data)
        guest.kick()

    def _listen(self, guest: Guest) -> None:
        if self._wakes[guest.domid] <= self._step and guest.available() <= 1024:
            guest.get()
            guest.kick()

    def _sleep(self, guest: Guest) -> None:
        """It watches all that it may, and reads nothing for a while."""
        data = message(Op.WATCH, b"data\0sleep%d\0" % self._step)
        if len(data) <= guest.room() <= 1024:
            guest.put(data)
            guest.kick()
        self._wakes[guest.domid] = self._step + 4 * NAP_STEPS

    def _reconnect(self, guest: Guest) -> None:
        guest.request_reconnect()

    def _break(self, guest: Guest) -> None:
        """Indices that cannot be, or a message that is too long."""
        chance = self._chance
        kind = chance.randrange(4)
        if kind == 0:
            guest.set_word(REQ_PROD, guest.word(REQ_CONS) + 1025 + chance.randrange(1 << 20))
        elif kind == 1:
            guest.set_word(REQ_CONS, chance.randrange(1 << 32))
        elif kind == 2:
            guest.set_word(RSP_CONS, chance.randrange(1 << 32))
        elif 16 <= guest.room() <= 1024:
            guest.put(struct.pack("=IIII", Op.READ, 0, 0, chance.randrange(4097, 1 << 32)))
        guest.kick()

    def _pause(self, guest: Guest) -> None:
        self._house.xen.shutdown(guest.domid, self._chance.choice([POWEROFF, CRASH]))

    def _resume(self, guest: Guest) -> None:
        self._house.xen.resume(guest.domid)
        self._ask(Op.RESUME, b"%d\0" % guest.domid, "ENOENT", "EINVAL")

    def _end(self, guest: Guest) -> None:
        """It is destroyed, and cleans up nothing."""
        self._bury(guest.domid)
        self._house.xen.destroy(guest.domid)

    def _end_slowly(self, guest: Guest) -> None:
        """It is dying for a while; somebody still holds its memory."""
        self._house.xen.start_dying(guest.domid, dead=self._chance.random() < 0.5)

    def _released(self, guest: Guest) -> None:
        """Its toolstack lets it go first, and destroys it."""
        self._ask(Op.RELEASE, b"%d\0" % guest.domid, "ENOENT", "EINVAL")
        self._end(guest)

    def _reborn(self, guest: Guest) -> None:
        """Its id is used again before anybody has told the daemon of its death."""
        self._bury(guest.domid)
        self._house.xen.destroy(guest.domid, virq=False)
        self._birth(guest.domid)

    def _target(self, guest: Guest) -> None:
        other = self._chance.choice(list(self._guests))
        self._ask(Op.SET_TARGET, b"%d\0%d\0" % (guest.domid, other), "EINVAL", "ENOENT")

    def _stranger(self, guest: Guest) -> None:
        """A domain that does not exist is introduced, or gets rights."""
        domid = self._chance.choice(MISSING)
        self._ask(Op.INTRODUCE, b"%d\x001\x002\0" % domid, "ENOENT", "EINVAL")
