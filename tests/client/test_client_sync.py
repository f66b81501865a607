"""The blocking client against a peer that says what the test wrote down.

The peer is the other end of a socket pair. Its replies are written before the client asks, which
needs neither a thread nor a turn-taking protocol; request numbers start at 1.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from xsd.client import requests
from xsd.client.errors import ConnectError, ProtocolError, XenstoreError
from xsd.client.sync import Client, Pipeline, Survey, Transaction
from xsd.client.wire import HEADER, Decoder, Op, Packet, WatchEvent, pack

LONG = 20.0


class Peer:
    """The scripted server: ``says`` queues packets, ``heard`` are the requests so far."""

    def __init__(self) -> None:
        ours, self.socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.client = Client(ours, timeout=LONG)
        self._decoder = Decoder()
        self._req_id = 0

    def says(self, op: Op, payload: bytes, tx_id: int = 0) -> None:
        if op is Op.WATCH_EVENT:
            self.socket.sendall(pack(Packet(op, 0, 0, payload)))
        else:
            self._req_id += 1
            self.socket.sendall(pack(Packet(op, self._req_id, tx_id, payload)))

    def heard(self) -> list[tuple[int, int, bytes]]:
        found = []
        with suppress(BlockingIOError):
            while data := self.socket.recv(1 << 20, socket.MSG_DONTWAIT):
                self._decoder.feed(data)
        while (packet := self._decoder.next()) is not None:
            found.append((packet.type, packet.tx_id, packet.payload))
        return found


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.client.close()
    made.socket.close()


def test_read(peer: Peer) -> None:
    """One request, one reply."""
    peer.says(Op.READ, b"value")
    assert peer.client.read("/a") == b"value"
    assert peer.heard() == [(Op.READ, 0, b"/a\0")]


def test_error_reply_leaves_the_client_usable(peer: Peer) -> None:
    """An error is raised for its own request only."""
    peer.says(Op.ERROR, b"EACCES\0")
    peer.says(Op.READ, b"value")
    with pytest.raises(XenstoreError) as caught:
        peer.client.read("/secret")
    assert (caught.value.name, caught.value.path) == ("EACCES", "/secret")
    assert peer.client.read("/a") == b"value"


def test_ls_falls_back_to_parts(peer: Peer) -> None:
    """E2BIG leads to DIRECTORY_PART, which starts again when the node changes between parts."""
    peer.says(Op.ERROR, b"E2BIG\0")
    peer.says(Op.DIRECTORY_PART, b"7\0a\0b\0")
    peer.says(Op.DIRECTORY_PART, b"8\0c\0\0")
    peer.says(Op.DIRECTORY_PART, b"8\0a\0")
    peer.says(Op.DIRECTORY_PART, b"8\0c\0\0")
    assert peer.client.ls("/d") == ["a", "c"]
    assert [payload for _, _, payload in peer.heard()] == [
        b"/d\0",
        b"/d\x000\0",
        b"/d\x004\0",
        b"/d\x000\0",
        b"/d\x002\0",
    ]


def test_ls_without_parts(peer: Peer) -> None:
    """A server that does not know DIRECTORY_PART leaves E2BIG as the answer."""
    peer.says(Op.ERROR, b"E2BIG\0")
    peer.says(Op.ERROR, b"ENOSYS\0")
    with pytest.raises(XenstoreError) as caught:
        peer.client.ls("/d")
    assert (caught.value.name, caught.value.operation) == ("E2BIG", "DIRECTORY")


def test_ls_malformed_part(peer: Peer) -> None:
    """A part that cannot be one closes the client."""
    peer.says(Op.ERROR, b"E2BIG\0")
    peer.says(Op.DIRECTORY_PART, b"nonsense")
    with pytest.raises(ProtocolError, match="DIRECTORY_PART"):
        peer.client.ls("/d")
    assert peer.client.fileno() == -1


def test_events_wait_their_turn(peer: Peer) -> None:
    """Events that arrive among replies are kept in order until asked for."""
    peer.says(Op.WATCH, b"OK\0")
    peer.says(Op.WATCH_EVENT, b"/w\0t\0")
    peer.says(Op.WATCH_EVENT, b"/w/x\0t\0")
    peer.says(Op.READ, b"")
    peer.client.watch("/w", b"t")
    peer.client.read("/a")
    events = [peer.client.next_event(LONG), peer.client.next_event(LONG)]
    assert events == [WatchEvent("/w", b"t"), WatchEvent("/w/x", b"t")]


def test_next_event_timeout(peer: Peer) -> None:
    """No event in time is a TimeoutError, and the client goes on."""
    with pytest.raises(TimeoutError, match="no watch event"):
        peer.client.next_event(0)
    peer.says(Op.WATCH_EVENT, b"/w\0t\0")
    assert peer.client.next_event(LONG) == WatchEvent("/w", b"t")


def test_unwatch_drops_left_over_events(peer: Peer) -> None:
    """After unwatch no event of that watch is delivered."""
    peer.says(Op.WATCH_EVENT, b"/w\0t\0")
    peer.says(Op.WATCH_EVENT, b"/w\0u\0")
    peer.says(Op.UNWATCH, b"OK\0")
    peer.client.unwatch("/w", b"t")
    assert peer.client.next_event(LONG) == WatchEvent("/w", b"u")


def test_transaction_commits(peer: Peer) -> None:
    """Operations carry the transaction's id; leaving the block commits."""
    peer.says(Op.TRANSACTION_START, b"3\0")
    peer.says(Op.WRITE, b"OK\0", 3)
    peer.says(Op.TRANSACTION_END, b"OK\0", 3)
    with peer.client.transaction() as tx:
        tx.write("/a", b"1")
    assert peer.heard() == [
        (Op.TRANSACTION_START, 0, b"\0"),
        (Op.WRITE, 3, b"/a\x001"),
        (Op.TRANSACTION_END, 3, b"T\0"),
    ]


def test_transaction_aborts(peer: Peer) -> None:
    """An exception in the block aborts, and is what the caller sees."""
    peer.says(Op.TRANSACTION_START, b"3\0")
    peer.says(Op.ERROR, b"ENOENT\0", 3)
    with pytest.raises(KeyError), peer.client.transaction():
        raise KeyError("mine")
    assert peer.heard()[-1] == (Op.TRANSACTION_END, 3, b"F\0")


def test_atomically_repeats(peer: Peer) -> None:
    """A conflict runs the work again, in a new transaction."""
    peer.says(Op.TRANSACTION_START, b"3\0")
    peer.says(Op.READ, b"1", 3)
    peer.says(Op.ERROR, b"EAGAIN\0", 3)
    peer.says(Op.TRANSACTION_START, b"4\0")
    peer.says(Op.READ, b"2", 4)
    peer.says(Op.TRANSACTION_END, b"OK\0", 4)
    assert peer.client.atomically(lambda tx: tx.read("/a")) == b"2"


def test_atomically_gives_up(peer: Peer) -> None:
    """With a number of attempts the last conflict is raised."""
    for number in (3, 4):
        peer.says(Op.TRANSACTION_START, b"%d\0" % number)
        peer.says(Op.ERROR, b"EAGAIN\0", number)
    tried: list[int] = []

    def work(tx: Transaction) -> None:
        tried.append(tx.id)

    with pytest.raises(XenstoreError) as caught:
        peer.client.atomically(work, attempts=2)
    assert (caught.value.name, tried) == ("EAGAIN", [3, 4])


def test_pipeline_yields_in_order(peer: Peer) -> None:
    """Outcomes come in the order of the requests, errors among them."""
    peer.says(Op.READ, b"1")
    peer.says(Op.ERROR, b"ENOENT\0")
    peer.says(Op.READ, b"3")
    outcomes = list(peer.client.pipeline(requests.read(path) for path in ("/a", "/b", "/c")))
    assert [getattr(outcome, "name", outcome) for outcome in outcomes] == [b"1", "ENOENT", b"3"]


def test_pipeline_closed_early(peer: Peer) -> None:
    """Abandoning the iterator discards what is in flight, and the client stays in step."""
    for value in (b"1", b"2", b"3"):
        peer.says(Op.READ, value)
    outcomes = peer.client.pipeline([requests.read("/a"), requests.read("/b")])
    assert next(outcomes) == b"1"
    with pytest.raises(RuntimeError, match="in flight"):
        peer.client.read("/c")
    outcomes.close()
    assert peer.client.read("/c") == b"3"


def test_pipeline_window(peer: Peer) -> None:
    """No more requests are in flight than the window allows."""
    line = Pipeline(peer.client, window=2)
    line.add(requests.read("/a"), "a")
    line.add(requests.read("/b"), "b")
    assert line.room == 0
    with pytest.raises(RuntimeError, match="2 requests are in flight"):
        line.add(requests.read("/c"))
    peer.says(Op.READ, b"1")
    assert line.next() == ("a", b"1")
    assert (line.room, line.in_flight) == (1, 1)
    peer.says(Op.READ, b"2")
    line.drain()
    with pytest.raises(RuntimeError, match="no request"):
        line.next()
    with pytest.raises(ValueError, match="window"):
        Pipeline(peer.client, window=0)


def test_survey(peer: Peer) -> None:
    """Answers come path by path, as many as there is room for, and the client is busy meanwhile."""
    survey = Survey(peer.client, [Op.READ, Op.DIRECTORY], window=2)
    survey.ask(["/a", "/b"])
    assert (survey.room, survey.in_flight) == (0, 4)
    with pytest.raises(RuntimeError, match="in flight"):
        peer.client.read("/c")
    peer.says(Op.READ, b"1")
    assert survey.answers() == []
    peer.says(Op.DIRECTORY, b"x\0")
    peer.says(Op.ERROR, b"EACCES\0")
    assert survey.answers() == [(b"1", b"x\0")]
    assert survey.room == 1
    peer.says(Op.DIRECTORY, b"")
    assert survey.answers() == [("EACCES", b"")]
    with pytest.raises(RuntimeError, match="nothing was asked"):
        survey.answers()
    peer.says(Op.READ, b"5")
    assert peer.client.read("/c") == b"5"
    with pytest.raises(ValueError, match="at least 1"):
        Survey(peer.client, [Op.READ], window=0)


def test_pipeline_with_a_peer_that_blocks() -> None:
    """Neither side locks up when both directions are full: the peer reads once its reply left."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    count = 400
    value = bytes(4000)

    def serve() -> None:
        decoder = Decoder()
        served = 0
        while served < count:
            data = theirs.recv(65536)
            if not data:
                return
            decoder.feed(data)
            while (packet := decoder.next()) is not None:
                theirs.sendall(pack(Packet(packet.type, packet.req_id, 0, value)))
                served += 1

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    with Client(ours, timeout=LONG) as client:
        batch = (requests.write("/a", value) for _ in range(count))
        outcomes = list(client.pipeline(batch, window=count))
    server.join(LONG)
    assert not server.is_alive()
    assert outcomes == [None] * count
    theirs.close()


def test_server_hangs_up(peer: Peer) -> None:
    """A server that closes is a ConnectionError; the client is closed then."""
    peer.socket.close()
    with pytest.raises(ConnectionError):
        peer.client.read("/a")
    assert peer.client.fileno() == -1


def test_server_hangs_up_inside_a_reply(peer: Peer) -> None:
    """Half a reply and the end is a ConnectionError, not a short value."""
    peer.socket.sendall(HEADER.pack(Op.READ, 1, 0, 10) + b"half")
    peer.socket.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionError, match="closed the connection"):
        peer.client.read("/a")


def test_reply_timeout() -> None:
    """A reply that does not come in time closes the client, since it might come later."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    client = Client(ours, timeout=0)
    with pytest.raises(TimeoutError, match="no reply within 0 seconds"):
        client.read("/a")
    assert client.fileno() == -1
    with pytest.raises(ConnectionError, match="closed"):
        client.read("/a")
    theirs.close()


def test_nobody_listens(tmp_path: Path) -> None:
    """The error names the socket path and the reason."""
    where = str(tmp_path / "socket")
    with pytest.raises(ConnectError) as caught:
        Client.connect(where)
    assert str(caught.value) == f"cannot connect to xenstored at {where}: No such file or directory"


def test_path_too_long_for_a_socket() -> None:
    """A path no socket can have is the same kind of error."""
    with pytest.raises(ConnectError, match="too long"):
        Client.connect("/" + "x" * 200)


def test_imports_nothing_of_the_daemon() -> None:
    """The client can be used where the daemon was never built."""
    import subprocess
    import sys

    code = "import xsd.client, sys; print(*(m for m in sys.modules if m.startswith('xsd.')))"
    root = str(Path(__file__).parents[2])
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    loaded = {name.split(".")[1] for name in result.stdout.split()}
    assert loaded == {"client"}
