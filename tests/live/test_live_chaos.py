"""Many clients that do everything badly at once, at random, beside one that does not."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable

import pytest
from peer import HEADER, Neighbour, Peer, message
from serving import Daemon

from xsd.client.wire import Op

STEPS = 1500
PEERS = 24
LIMIT = 65536
Meet = Callable[[str], Neighbour]


def name(chance: random.Random) -> bytes:
    """A path out of few, so that clients meet."""
    return b"/chaos" + b"".join(b"/n%d" % chance.randrange(4) for _ in range(chance.randrange(4)))


def request(chance: random.Random) -> bytes:
    """A request that may be good; transactions are those that the first STARTs give."""
    path = name(chance)
    tx = chance.choice([0, 0, 0, 1, 2, 3])
    domid = b"%d" % chance.randrange(90, 93)
    kinds: list[Callable[[], bytes]] = [
        lambda: message(Op.WRITE, path + b"\0" + b"v" * chance.randrange(2000), tx),
        lambda: message(Op.READ, path + b"\0", tx),
        lambda: message(Op.MKDIR, path + b"\0", tx),
        lambda: message(Op.RM, path + b"\0", tx),
        lambda: message(Op.DIRECTORY, path + b"\0", tx),
        lambda: message(Op.GET_PERMS, path + b"\0", tx),
        lambda: message(Op.SET_PERMS, path + b"\0n" + domid + b"\0r0\0", tx),
        lambda: message(Op.WATCH, path + b"\0" + b"t" * chance.randrange(900) + b"\0"),
        lambda: message(Op.WATCH, b"@releaseDomain\0out\0"),
        lambda: message(Op.UNWATCH, path + b"\0\0"),
        lambda: message(Op.RESET_WATCHES, b"\0", tx),
        lambda: message(Op.TRANSACTION_START, b"\0"),
        lambda: message(Op.TRANSACTION_END, chance.choice([b"T\0", b"F\0"]), tx),
        lambda: message(Op.INTRODUCE, domid + b"\x001\x002\0"),
        lambda: message(Op.RELEASE, domid + b"\0"),
        lambda: message(Op.SET_TARGET, domid + b"\x0091\0"),
        lambda: message(Op.CONTROL, chance.choice([b"check\0", b"print\0hello\0", b"metrics\0"])),
        lambda: message(chance.randrange(40), chance.randbytes(chance.randrange(30))),
    ]  # fmt: skip
    return chance.choice(kinds)()


class Crowd:
    """Clients that come, misbehave and go; none of them ever waits."""

    def __init__(self, path: str, seed: int) -> None:
        self._path = path
        self.chance = random.Random(seed)
        self.peers: list[Peer] = []

    def step(self) -> None:
        """One client does one thing."""
        if len(self.peers) < PEERS:
            fresh = Peer(self._path)
            fresh.sock.setblocking(False)
            self.peers.append(fresh)
        peer = self.chance.choice(self.peers)
        actions: list[tuple[int, Callable[[Peer], None]]] = [
            (60, self._send), (25, self._receive), (2, self._half_close), (6, self._close),
            (2, self._oversize), (3, self._flood), (2, self._piece),
        ]  # fmt: skip
        weights = [weight for weight, _ in actions]
        (action,) = self.chance.choices([act for _, act in actions], weights)
        try:
            action(peer)
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            self._close(peer)

    def leave(self) -> None:
        """Everybody goes."""
        while self.peers:
            self._close(self.peers[-1])

    def _send(self, peer: Peer) -> None:
        count = self.chance.choice([1, 1, 1, 5, 40])
        peer.sock.send(b"".join(request(self.chance) for _ in range(count)))

    def _receive(self, peer: Peer) -> None:
        if not peer.sock.recv(self.chance.choice([1, 16, 1000, 65536])):
            self._close(peer)

    def _half_close(self, peer: Peer) -> None:
        peer.sock.shutdown(socket.SHUT_WR)

    def _close(self, peer: Peer) -> None:
        self.peers.remove(peer)
        peer.close()

    def _oversize(self, peer: Peer) -> None:
        peer.sock.send(HEADER.pack(Op.READ, 0, 0, self.chance.randrange(4097, 2**32)))

    def _flood(self, peer: Peer) -> None:
        peer.sock.send(message(Op.READ, name(self.chance) + b"\0") * 3000)

    def _piece(self, peer: Peer) -> None:
        data = request(self.chance)
        peer.sock.send(data[: self.chance.randrange(1, len(data))])


@pytest.mark.parametrize("seed", range(6))
def test_crowd(
    meet: Meet, seed: int, start: Callable[..., Daemon], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever a crowd does, its neighbour is served and the daemon stays consistent."""
    config = tmp_path_factory.mktemp("config") / "xsd.toml"
    config.write_text(f'[socket]\noutput-limit = {LIMIT}\n[access-log]\nfile = "/dev/full"\n')
    daemon = start("--config", str(config), "--log-level", "error")
    other = meet(daemon.socket)
    alone = daemon.descriptors()
    crowd = Crowd(daemon.socket, seed)
    try:
        for number in range(STEPS):
            crowd.step()
            if number % 10 == 0:
                other.works()
    finally:
        crowd.leave()
    other.peer.until(lambda: daemon.descriptors() <= alone)
    other.leaves()
