"""Bytes that are no requests, requests in pieces, and connections that end at odd moments."""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import socket
import struct

import pytest
from peer import HEADER, Neighbour, Packet, Peer, message
from serving import Daemon

from xsd.client.wire import Op

OK = b"OK\0"


@pytest.mark.parametrize("size", [4097, 4112, 65536, 2**31 - 1, 2**31, 2**32 - 16, 2**32 - 1])
@pytest.mark.parametrize("op", [Op.READ, Op.WRITE, Op.CONTROL, 65535])
def test_oversize(size: int, op: int, peer: Peer, neighbour: Neighbour, daemon: Daemon) -> None:
    """A header that announces more than 4096 bytes ends the connection, with a line in the log.

    What was asked before it is answered first.
    """
    since = len(daemon.stderr)
    peer.send(message(Op.READ, b"/neighbour/value\0", req_id=5) + HEADER.pack(op, 6, 0, size))
    assert peer.reply() == Packet(Op.READ, 5, 0, b"0")
    assert peer.is_closed()
    neighbour.works()
    assert "closed: " in daemon.await_log("4096", since)


def test_oversize_with_its_payload(peer: Peer, neighbour: Neighbour) -> None:
    """The bytes behind such a header are not taken for requests."""
    inner = message(Op.WRITE, b"/smuggled\0x")
    data = HEADER.pack(Op.WRITE, 0, 0, 5000) + inner * 200
    # The daemon may be gone before all is sent.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        peer.send(data)
    assert peer.is_closed()
    assert neighbour.peer.ask(Op.READ, b"/smuggled\0") == "ENOENT"
    neighbour.works()


def test_longest_request(peer: Peer, neighbour: Neighbour) -> None:
    """4096 bytes of payload are allowed: a value of what the path leaves."""
    value = b"v" * (4096 - len(b"/longest\0"))
    assert peer.ask(Op.WRITE, b"/longest\0" + value) == OK
    assert peer.ask(Op.READ, b"/longest\0") == value
    assert peer.ask(Op.RM, b"/longest\0") == OK
    neighbour.works()


@pytest.mark.parametrize("size", range(1, 16))
def test_incomplete_header(size: int, peer: Peer, neighbour: Neighbour, daemon: Daemon) -> None:
    """A part of a header waits for the rest as long as it takes; others go on."""
    data = message(Op.READ, b"/neighbour/value\0", req_id=9)
    peer.send(data[:size])
    for _ in range(3):
        neighbour.works()
    peer.send(data[size:])
    assert peer.reply() == Packet(Op.READ, 9, 0, b"3")
    peer.send(data[:size])
    before = daemon.descriptors()
    peer.close()
    neighbour.peer.until(lambda: daemon.descriptors() < before)


def test_incomplete_payload(peer: Peer, neighbour: Neighbour) -> None:
    """A payload that never completes harms nobody, however many do that."""
    head = HEADER.pack(Op.WRITE, 0, 0, 4096) + b"/never\0" + b"x" * 4000
    others = [Peer(neighbour.path) for _ in range(50)]
    for other in (peer, *others):
        other.send(head)
    neighbour.works()
    for other in others:
        other.close()
    neighbour.works()
    assert neighbour.peer.ask(Op.READ, b"/never\0") == "ENOENT"
    peer.send(b"y" * (4096 - 4007))
    assert peer.reply().payload == OK
    assert peer.ask(Op.RM, b"/never\0") == OK


def test_byte_by_byte(peer: Peer, neighbour: Neighbour) -> None:
    """Requests that come in single bytes are answered like others."""
    requests = [(Op.WRITE, b"/bytewise\0v"), (Op.READ, b"/bytewise\0"), (Op.RM, b"/bytewise\0")]
    data = b"".join(message(op, payload, req_id=op) for op, payload in requests)
    for byte in data:
        peer.send(bytes([byte]))
        if byte == data[40]:
            neighbour.works()
    assert [peer.reply().payload for _ in requests] == [OK, b"v", OK]


def test_every_split(peer: Peer, neighbour: Neighbour) -> None:
    """Two requests cut anywhere, with somebody else's requests between the pieces."""
    data = message(Op.WRITE, b"/split\0v", req_id=1) + message(Op.READ, b"/split\0", req_id=2)
    for cut in range(1, len(data)):
        peer.send(data[:cut])
        neighbour.works()
        peer.send(data[cut:])
        assert peer.reply() == Packet(Op.WRITE, 1, 0, OK)
        assert peer.reply() == Packet(Op.READ, 2, 0, b"v")
    assert peer.ask(Op.RM, b"/split\0") == OK


@pytest.mark.parametrize("count", [1, 200, 257, 5000])
def test_pipelined(count: int, peer: Peer, neighbour: Neighbour) -> None:
    """Many requests at once are answered completely and in order."""
    peer.sock.setblocking(False)
    ids = iter(range(count))
    waiting = b""
    got: list[int] = []
    data = b""
    # Reads while it sends, as the daemon need not buffer for ever.
    while len(got) < count:
        for number in itertools.islice(ids, 100):
            waiting += message(Op.WRITE, b"/pipelined\0%d" % number, req_id=number)
        with contextlib.suppress(BlockingIOError):
            waiting = waiting[peer.sock.send(waiting) :] if waiting else b""
        try:
            data += peer.sock.recv(65536)
        except BlockingIOError:
            continue
        whole = len(data) // 19 * 19
        for op, req_id, tx_id, size, text in struct.iter_unpack("=IIII3s", data[:whole]):
            assert (op, tx_id, size, text) == (Op.WRITE, 0, 3, OK)
            got.append(req_id)
        data = data[whole:]
    assert got == list(range(count))
    neighbour.works()
    peer.sock.settimeout(30)
    assert peer.ask(Op.READ, b"/pipelined\0") == b"%d" % (count - 1)
    assert peer.ask(Op.RM, b"/pipelined\0") == OK


@pytest.mark.parametrize("count", [1, 10, 300, 1000, 5000])
@pytest.mark.parametrize("op", ["write", "control"])
def test_half_close(op: str, count: int, neighbour: Neighbour, daemon: Daemon) -> None:
    """Who says "no more requests" after many gets all the replies, then the end."""
    payload = b"/half\0v" if op == "write" else b"print\0half closed\0"
    number = Op.WRITE if op == "write" else Op.CONTROL
    before = daemon.descriptors()
    with Peer(neighbour.path) as peer:
        # Fits into the socket's buffer, or the daemon reads it while we send.
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        peer.send(b"".join(message(number, payload, req_id=i) for i in range(count)))
        peer.sock.shutdown(socket.SHUT_WR)
        replies = [peer.reply() for _ in range(count)]
        assert replies == [Packet(number, i, 0, OK) for i in range(count)]
        assert peer.is_closed()
    neighbour.works()
    neighbour.peer.until(lambda: daemon.descriptors() <= before)
    neighbour.peer.ask(Op.RM, b"/half\0")


def test_half_close_with_large_replies(neighbour: Neighbour, daemon: Daemon) -> None:
    """More replies than any buffer holds, fetched only after the end was said."""
    count = 3000
    value = b"v" * 4000
    before = daemon.descriptors()
    assert neighbour.peer.ask(Op.WRITE, b"/large\0" + value) == OK
    with Peer(neighbour.path) as peer:
        peer.send(b"".join(message(Op.READ, b"/large\0", req_id=i) for i in range(count)))
        peer.sock.shutdown(socket.SHUT_WR)
        neighbour.works()
        for number in range(count):
            assert peer.reply() == Packet(Op.READ, number, 0, value)
        assert peer.is_closed()
    assert neighbour.peer.ask(Op.RM, b"/large\0") == OK
    neighbour.peer.until(lambda: daemon.descriptors() <= before)


def test_half_close_inside_a_request(neighbour: Neighbour) -> None:
    """What is complete is answered, the incomplete rest is dropped, and that is the end."""
    with Peer(neighbour.path) as peer:
        peer.send(message(Op.READ, b"/neighbour/value\0") + message(Op.RM, b"/neighbour\0")[:-1])
        peer.sock.shutdown(socket.SHUT_WR)
        assert peer.reply().payload == b"0"
        assert peer.is_closed()
    neighbour.works()


def test_requests_of_one_who_leaves_at_once(neighbour: Neighbour) -> None:
    """Requests that were sent completely before a hang-up are carried out."""
    names = [b"/left/n%d" % number for number in range(1000)]
    with Peer(neighbour.path) as peer:
        peer.send(b"".join(message(Op.MKDIR, name + b"\0") for name in names[:100]))
        peer.sock.shutdown(socket.SHUT_RDWR)
    # Only those: with nobody to read the replies a daemon may stop when it notices.
    neighbour.peer.until(lambda: neighbour.peer.ask(Op.READ, names[0] + b"\0") == b"")
    neighbour.works()
    assert neighbour.peer.ask(Op.RM, b"/left\0") == OK


def test_close_in_the_middle_of_a_reply(neighbour: Neighbour, daemon: Daemon) -> None:
    """Clients that hang up inside a reply of which the rest still waits leave nothing behind."""
    value = b"v" * 4000
    assert neighbour.peer.ask(Op.WRITE, b"/large\0" + value) == OK
    before = daemon.descriptors()
    for taken in (0, 1, 15, 16, 17, 2000, 4015, 4016, 9000):
        with Peer(neighbour.path) as peer:
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.send(message(Op.READ, b"/large\0") * 500)
            assert len(peer.sock.recv(taken, socket.MSG_WAITALL)) == taken
        neighbour.works()
    neighbour.peer.until(lambda: daemon.descriptors() <= before)
    assert neighbour.peer.ask(Op.RM, b"/large\0") == OK


@pytest.mark.parametrize("busy", [False, True])
def test_half_a_request_beside_an_unread_reply(
    busy: bool, neighbour: Neighbour, daemon: Daemon
) -> None:
    """A client that goes with a request begun and a reply unread is noticed.

    The daemon learns of both in one wake-up and of nothing later; also while it has other work
    to do, as freeing what was removed.
    """
    ask = neighbour.peer.ask
    before = daemon.descriptors()
    peers = [Peer(neighbour.path) for _ in range(5)]
    for peer in peers:
        peer.send(message(Op.READ, b"/neighbour/value\0"))
        assert peer.sock.recv(1) != b""
    if busy:
        for number in range(3000):
            assert ask(Op.MKDIR, b"/busy/n%d\0" % number) == OK
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        if busy:
            neighbour.peer.send(message(Op.RM, b"/busy\0"))
        for size, peer in enumerate(peers, 1):
            peer.send(message(Op.READ, b"/neighbour/value\0")[: size * 5])
            peer.close()
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    if busy:
        assert neighbour.peer.reply().payload == OK
    neighbour.peer.until(lambda: daemon.descriptors() <= before)


def test_close_while_an_answer_is_worked_out(neighbour: Neighbour, daemon: Daemon) -> None:
    """Clients that ask for something slow and hang up leave nothing behind."""
    before = daemon.descriptors()
    for request in (message(Op.CONTROL, b"check\0"), message(Op.INTRODUCE, b"9\x001\x002\0")):
        for _ in range(50):
            with Peer(neighbour.path) as peer:
                peer.send(request)
    neighbour.works()
    neighbour.peer.until(lambda: daemon.descriptors() <= before)
    assert neighbour.peer.ask(Op.RELEASE, b"9\0") in (OK, "ENOENT")


def test_transaction_and_watches_end_with_their_connection(
    neighbour: Neighbour, daemon: Daemon
) -> None:
    """Nothing of an unfinished transaction is seen, and nobody gets its events."""
    before = daemon.descriptors()
    with Peer(neighbour.path) as peer:
        tx = peer.start()
        assert peer.ask(Op.WRITE, b"/unfinished\0x", tx) == OK
        assert peer.ask(Op.WATCH, b"/neighbour\0my token\0") == OK
        assert peer.event() == (b"/neighbour", b"my token")
    neighbour.peer.until(lambda: daemon.descriptors() <= before)
    assert neighbour.peer.ask(Op.READ, b"/unfinished\0") == "ENOENT"
    report = neighbour.peer.ask(Op.CONTROL, b"watches\0")
    assert isinstance(report, bytes)
    assert report.count(b"my token") == 1


@pytest.mark.parametrize("seed", range(20))
def test_noise(seed: int, neighbour: Neighbour, daemon: Daemon) -> None:
    """Random bytes end the connection or are answered; nobody else notices."""
    chance = random.Random(seed)
    before = daemon.descriptors()
    with Peer(neighbour.path) as peer:
        data = b""
        for _ in range(200):
            kind = chance.randrange(20)
            # Everything but writing, so that the tree is what it was; a few sizes that lie.
            op = chance.choice([1, 2, 3, 4, 5, 6, 7, 10, 17, 21, 22, 23, 25, 99, 65535])
            payload = chance.randbytes(chance.randrange(40)).replace(b"/", b"\0")
            size = len(payload) if kind else chance.randrange(2**32)
            data += HEADER.pack(op, chance.randrange(2**32), chance.randrange(3), size) + payload
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            peer.send(data)
        neighbour.works()
    neighbour.peer.until(lambda: daemon.descriptors() <= before)
