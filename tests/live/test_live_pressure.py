"""Clients that take more than they should: unread output, many connections, descriptors."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from peer import Neighbour, Peer, message
from serving import Daemon

from xsd.client.wire import Op

OK = b"OK\0"
Meet = Callable[[str], Neighbour]
MIB = 1 << 20
LIMIT = 1 * MIB
SLACK = 24 * MIB
"""Memory a daemon may gain beside the output that waits, whatever the allocator does."""

MEMORY_IS_MEASURABLE = "asan" not in os.environ.get("LD_PRELOAD", "")
"""A sanitizer keeps freed memory, so there resident size says nothing."""


@pytest.fixture
def strict(start: Callable[..., Daemon], tmp_path_factory: pytest.TempPathFactory) -> Daemon:
    """A daemon that lets 1 MiB of output wait for a client."""
    config = tmp_path_factory.mktemp("config") / "xsd.toml"
    config.write_text(f"[socket]\noutput-limit = {LIMIT}\n")
    return start("--config", str(config))


def assert_memory(daemon: Daemon, before: int) -> None:
    grown = daemon.rss_bytes() - before
    assert grown < SLACK or not MEMORY_IS_MEASURABLE


def flood(peer: Peer, data: bytes, neighbour: Neighbour) -> int:
    """Sends until the daemon takes no more; returns how many bytes it took.

    It takes no more when the socket stays full although it has had many turns.
    """
    peer.sock.setblocking(False)
    sent = 0
    refused = 0
    while refused < 50:
        try:
            sent += peer.sock.send(data[sent % len(data) :])
            refused = 0
        except BlockingIOError:
            refused += 1
            neighbour.works()
        assert sent < 512 * MIB
    peer.sock.settimeout(30)
    return sent


def test_flood_of_requests(meet: Meet, strict: Daemon) -> None:
    """A client that sends requests and never reads is read no further; once it reads, all is there.

    What waits for it is bounded, nobody else notices, no reply is lost.
    """
    other = meet(strict.socket)
    assert other.peer.ask(Op.WRITE, b"/large\0" + b"v" * 4000) == OK
    before = strict.rss_bytes()
    requests = 4096
    one = message(Op.READ, b"/large\0")
    with Peer(strict.socket) as greedy:
        sent = flood(greedy, one * requests, other)
        # More was asked than may wait, or this tests nothing.
        asked = sent // len(one)
        assert asked * 4016 > LIMIT
        assert_memory(strict, before)
        for _ in range(asked):
            assert greedy.reply().payload == b"v" * 4000
        if sent % len(one):
            greedy.send(one[sent % len(one) :])
            assert greedy.reply().payload == b"v" * 4000
        assert greedy.ask(Op.READ, b"/neighbour/committed\0") == "ENOENT"
    other.leaves()


def test_flood_by_many(meet: Meet, strict: Daemon) -> None:
    """Twenty such clients at once are bounded as one is."""
    other = meet(strict.socket)
    assert other.peer.ask(Op.WRITE, b"/large\0" + b"v" * 4000) == OK
    before = strict.rss_bytes()
    descriptors = strict.descriptors()
    with ExitStack() as stack:
        for _ in range(20):
            greedy = stack.enter_context(Peer(strict.socket))
            flood(greedy, message(Op.READ, b"/large\0") * 4096, other)
        assert_memory(strict, before + 20 * LIMIT)
    other.peer.until(lambda: strict.descriptors() <= descriptors)
    other.leaves()


def test_watcher_that_never_reads(meet: Meet, strict: Daemon) -> None:
    """Events wait for a client up to the limit; then it is disconnected, and the log says who.

    The one whose writes cause the events never waits for it.
    """
    other = meet(strict.socket)
    before = strict.rss_bytes()
    descriptors = strict.descriptors()
    since = len(strict.stderr)
    with Peer(strict.socket) as lazy:
        assert lazy.ask(Op.WATCH, b"/watched\0" + b"t" * 3000 + b"\0") == OK
        # Every path once, as the same event twice would be merged.
        for number in range(3000):
            assert other.peer.ask(Op.WRITE, b"/watched/n%d\0x" % number) == OK
            if number % 100 == 0:
                other.works()
        text = strict.await_log("bytes wait for it to be read", since)[since:]
        assert f"(pid {os.getpid()}) closed: " in text
        assert_memory(strict, before)
        # It still gets what was written before, then the end.
        with pytest.raises(ConnectionResetError):
            for _ in range(3000):
                lazy.event()
    other.peer.until(lambda: strict.descriptors() < descriptors + 1)
    assert other.peer.ask(Op.RM, b"/watched\0") == OK
    other.leaves()


def test_watcher_that_reads_late(meet: Meet, strict: Daemon) -> None:
    """Who reads before the limit is reached loses nothing."""
    other = meet(strict.socket)
    with Peer(strict.socket) as late:
        assert late.ask(Op.WATCH, b"/watched\0token\0") == OK
        assert late.event() == (b"/watched", b"token")
        names = [b"/watched/n%d" % number for number in range(10000)]
        for name in names:
            assert other.peer.ask(Op.WRITE, name + b"\0x") == OK
        assert [late.event() for _ in names] == [(name, b"token") for name in names]
    other.leaves()


def test_own_events_that_are_not_read(meet: Meet, strict: Daemon) -> None:
    """A client that floods itself with events is bounded like any other."""
    other = meet(strict.socket)
    before = strict.rss_bytes()
    with Peer(strict.socket) as greedy:
        assert greedy.ask(Op.WATCH, b"/own\0" + b"t" * 3000 + b"\0") == OK
        data = b"".join(message(Op.MKDIR, b"/own/n%d\0" % number) for number in range(20000))
        greedy.sock.setblocking(False)
        sent = refused = 0
        while refused < 50 and sent < len(data):
            try:
                sent += greedy.sock.send(data[sent:])
            except BlockingIOError:
                refused += 1
                other.works()
            except (BrokenPipeError, ConnectionResetError):
                break
        assert_memory(strict, before)
    other.leaves()


def test_many_connections_in_a_row(neighbour: Neighbour, daemon: Daemon) -> None:
    """10 000 clients one after the other, with and without a word, leave nothing behind."""
    for _ in range(200):  # what grows once has grown
        Peer(daemon.socket).close()
    neighbour.works()
    before, descriptors = daemon.rss_bytes(), daemon.descriptors()
    for number in range(10_000):
        with Peer(daemon.socket) as peer:
            if number % 10 == 0:
                assert peer.ask(Op.READ, b"/neighbour/committed\0") == "ENOENT"
            if number % 100 == 1:
                peer.send(b"half a header"[:12])
            if number % 1000 == 0:
                neighbour.works()
    neighbour.peer.until(lambda: daemon.descriptors() <= descriptors)
    grown = daemon.rss_bytes() - before
    assert grown < 4 * MIB or not MEMORY_IS_MEASURABLE


def test_many_connections_at_once(neighbour: Neighbour, daemon: Daemon) -> None:
    """1000 clients that are open at once are all served, in any order."""
    descriptors = daemon.descriptors()
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer(daemon.socket)) for _ in range(1000)]
        neighbour.works()
        for number, peer in enumerate(peers):
            assert peer.ask(Op.WRITE, b"/at-once/n%d\0%d" % (number, number)) == OK
        for number, peer in reversed(list(enumerate(peers))):
            assert peer.ask(Op.READ, b"/at-once/n%d\0" % number) == b"%d" % number
        # All of them ask before anybody reads.
        for peer in peers:
            peer.send(message(Op.CONTROL, b"print\0all at once\0"))
        assert [peer.reply().payload for peer in peers] == [OK] * len(peers)
        # An event for each of them out of one write.
        for peer in peers:
            assert peer.ask(Op.WATCH, b"/at-once/all\0token\0") == OK
            assert peer.event() == (b"/at-once/all", b"token")
        assert neighbour.peer.ask(Op.WRITE, b"/at-once/all\0x") == OK
        for peer in peers:
            assert peer.event() == (b"/at-once/all", b"token")
    neighbour.works()
    neighbour.peer.until(lambda: daemon.descriptors() <= descriptors)
    assert neighbour.peer.ask(Op.RM, b"/at-once\0") == OK


def test_no_descriptors_left(meet: Meet, start: Callable[..., Daemon]) -> None:
    """When descriptors run out clients go on, and once some are free others get in again."""
    daemon = start()
    daemon.expected.append("cannot accept a connection")
    other = meet(daemon.socket)
    room = 10
    limit = daemon.descriptors() + room
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (limit, limit))
    with ExitStack() as stack:
        # connect() succeeds for those who wait to be accepted, too.
        peers = [stack.enter_context(Peer(daemon.socket)) for _ in range(2 * room)]
        daemon.await_log("cannot accept a connection: Too many open files")
        served = peers[: room - 1]
        for peer in served:
            assert peer.ask(Op.READ, b"/neighbour/value\0") == b"0"
        for peer in peers[room:]:
            peer.send(message(Op.READ, b"/neighbour/value\0", req_id=3))
        other.works()
        for peer in served:
            peer.close()
        # As many as have left get in; their requests were not lost.
        for peer in peers[room : 2 * room - 2]:
            assert peer.reply().payload == b"1"
        other.works()
    with Peer(daemon.socket) as late:
        assert late.ask(Op.READ, b"/neighbour/value\0") == b"2"
    other.leaves()


def test_listening_queue_that_is_full(meet: Meet, start: Callable[..., Daemon]) -> None:
    """More clients than can wait are refused for the moment, and served when they ask again."""
    daemon = start()
    other = meet(daemon.socket)
    with ExitStack() as stack:
        for _ in range(2000):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.setblocking(False)
            # EAGAIN when the queue is full; that is the client's to repeat.
            sock.connect_ex(daemon.socket)
        other.works()
    with Peer(daemon.socket) as late:
        assert late.ask(Op.READ, b"/neighbour/value\0") == b"1"
    other.leaves()
