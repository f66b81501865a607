"""One set for all descriptors: who is ready is served at once, and nobody else is looked at.

The daemon's inside on uvloop, stepped by the test; clients are sockets of the test itself.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from xsd.core.engine import Engine
from xsd.io.listener import listen
from xsd.io.poll import Poll
from xsd.io.sockets import Sockets
from xsd.io.turn import Turn

SECONDS = 20.0
READ, WATCH, WRITE, WATCH_EVENT, ERROR = 2, 4, 11, 15, 16
HEADER = struct.Struct("=4I")


def request(kind: int, *words: bytes, req: int = 1, last: bytes = b"") -> bytes:
    payload = b"".join(word + b"\0" for word in words) + last
    return HEADER.pack(kind, req, 0, len(payload)) + payload


def replies(data: bytes) -> list[tuple[int, int]]:
    """Type and request id of each whole message."""
    found = []
    while len(data) >= HEADER.size:
        kind, req, _, size = HEADER.unpack_from(data)
        if len(data) < HEADER.size + size:
            break
        found.append((kind, req))
        data = data[HEADER.size + size :]
    return found


class World:
    """Engine, turn, set and sockets; the loop runs only in `until`."""

    def __init__(self, path: Path, stay_ns: int) -> None:
        self.path = str(path)
        self.loop = uvloop.new_event_loop()
        self.engine = Engine()
        self.turn = Turn(self.engine, self.loop, lambda: None)
        self.poll = Poll(self.turn, stay_ns)
        self.sockets = Sockets(self.turn)
        self.listener = listen(self.path)
        self.sockets.listen(self.listener.sock)
        self.clients: list[socket.socket] = []

    def client(self) -> socket.socket:
        """A client; nothing has been accepted yet."""
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(SECONDS)
        made.connect(self.path)
        made.setblocking(False)
        self.clients.append(made)
        return made

    def until(self, condition: Callable[[], object]) -> None:
        """Runs the loop until it is so; fails after some seconds."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline
            self.loop.call_later(0.001, self.loop.stop)
            self.loop.run_forever()

    def answer(self, client: socket.socket, size: int = 1) -> bytes:
        """What a client gets, at least so many bytes of it."""
        data = bytearray()

        def come() -> bool:
            try:
                data.extend(client.recv(1 << 20))
            except BlockingIOError:
                return False
            return len(data) >= size

        self.until(come)
        return bytes(data)

    def connections(self) -> int:
        return len(self.engine.connections())

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.sockets.shut()
        self.turn.stop()
        self.listener.close()
        self.loop.close()


@pytest.fixture(params=[0, 5_000_000], ids=["not staying", "staying"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "socket", request.param)
    yield made
    made.close()


def test_all_who_are_ready_are_served_in_one_callback(world: World) -> None:
    """Fifty requests that wait are one call of the loop and one look at the set."""
    clients = [world.client() for _ in range(50)]
    world.until(lambda: world.sockets.accepted == 50)
    for number, client in enumerate(clients):
        client.sendall(request(READ, b"/", req=number))
    callbacks, rounds, served = world.poll.wakeups, world.poll.rounds, world.sockets.wakeups
    world.until(lambda: world.sockets.wakeups == served + 50)
    # When it stays there are also alarms: of this stay, and of one before that ended sooner.
    assert world.poll.wakeups - callbacks <= 2
    assert world.poll.rounds - rounds <= 3
    for number, client in enumerate(clients):
        assert replies(world.answer(client)) == [(READ, number)]


def test_the_idle_cost_nothing(world: World) -> None:
    """Beside 100 connections that say nothing, one that speaks is the only one looked at."""
    for _ in range(100):
        world.client()
    active = world.client()
    world.until(lambda: world.sockets.accepted == 101)
    before = world.sockets.wakeups
    for number in range(20):
        active.sendall(request(READ, b"/", req=number))
        assert replies(world.answer(active)) == [(READ, number)]
    assert world.sockets.wakeups - before == 20


def test_who_comes_with_a_request_is_answered_and_may_leave(world: World) -> None:
    """Connect, ask, close: also when all has happened before anybody looks."""
    for number in range(30):
        client = world.client()
        client.sendall(request(WRITE, b"/n", last=b"%d" % number))
        client.close()
    world.until(lambda: world.sockets.accepted == 30 and world.connections() == 0)
    last = world.client()
    last.sendall(request(READ, b"/n"))
    assert world.answer(last).endswith(b"29")


def test_a_number_that_is_used_again_is_another_connection(world: World) -> None:
    """One leaves and one comes in the same round; the new one has nothing of the old one."""
    for turn in range(20):
        old = world.client()
        old.sendall(request(READ, b"/", req=turn) + b"half")
        assert replies(world.answer(old)) == [(READ, turn)]
        old.close()
        new = world.client()
        new.sendall(request(READ, b"/", req=100 + turn))
        assert replies(world.answer(new)) == [(READ, 100 + turn)]
        new.close()
    world.until(lambda: world.connections() == 0)


def test_half_a_request_and_unread_replies_do_not_keep_a_connection(world: World) -> None:
    """Its peer has gone with an error pending: that is noticed, whatever waits."""
    client = world.client()
    client.sendall(request(READ, b"/") + request(READ, b"/")[:7])
    world.until(lambda: world.sockets.wakeups + world.sockets.accepted >= 1)
    client.close()
    world.until(lambda: world.connections() == 0)


def fill(world: World, client: socket.socket) -> None:
    """Asks and does not read, until the daemon's output waits and it reads no more."""
    value = request(WRITE, b"/big", last=b"x" * 4000)
    client.sendall(value)
    world.answer(client)
    asking = request(READ, b"/big") * 64
    full = 0
    while full < 3:
        try:
            client.send(asking)
            full = 0
        except BlockingIOError:
            full += 1
            beside = world.client()  # once it is answered the daemon has seen what there was
            beside.sendall(request(READ, b"/"))
            world.answer(beside)
            beside.close()


def at_rest(world: World) -> int:
    """Rounds that are made while nothing happens."""
    before = world.poll.rounds
    ended: list[bool] = []
    world.loop.call_later(0.05, ended.append, True)
    world.until(lambda: ended)
    return world.poll.rounds - before


def test_a_client_that_does_not_read_wakes_nobody(world: World) -> None:
    """Neither its requests nor its end make the daemon go round in circles."""
    client = world.client()
    fill(world, client)
    world.until(lambda: world.connections() == 1)
    assert at_rest(world) <= 3
    client.close()
    world.until(lambda: world.connections() == 0)
    assert at_rest(world) <= 3


def test_what_waited_arrives_when_it_is_read(world: World) -> None:
    """Each request of a client that was slow is answered once, in order."""
    client = world.client()
    client.sendall(request(WRITE, b"/big", last=b"x" * 4000))
    world.answer(client)
    asked = b"".join(request(READ, b"/big", req=number) for number in range(500))
    sent, got = 0, bytearray()
    while len(got) < 500 * (HEADER.size + 4000):
        if sent < len(asked):
            try:
                sent += client.send(asked[sent : sent + 5000])
            except BlockingIOError:
                got += world.answer(client)
        else:
            got += world.answer(client)
    assert replies(bytes(got)) == [(READ, number) for number in range(500)]


def test_a_client_that_sends_no_more_gets_its_replies(world: World) -> None:
    """It has shut its sending half down: all answers, then the end."""
    client = world.client()
    client.sendall(b"".join(request(READ, b"/", req=number) for number in range(300)))
    client.shutdown(socket.SHUT_WR)
    got = bytearray()
    while piece := world.answer(client, 0 if world.connections() == 0 else 1):
        got += piece
        if len(replies(bytes(got))) == 300:
            break
    assert [req for _, req in replies(bytes(got))] == list(range(300))
    world.until(lambda: world.connections() == 0)


def test_events_reach_others_in_the_same_stay(world: World) -> None:
    """A watcher that says nothing itself is told of each write."""
    watcher, writer = world.client(), world.client()
    watcher.sendall(request(WATCH, b"/w", b"token"))
    world.answer(watcher)
    for number in range(20):
        writer.sendall(request(WRITE, b"/w/%d" % number))
        assert replies(world.answer(writer)) == [(WRITE, 1)]
        kinds = {kind for kind, _ in replies(world.answer(watcher))}
        assert WATCH_EVENT in kinds


def test_a_client_that_never_rests_keeps_nobody_out(world: World) -> None:
    """While one sends without end, the loop's timers and signals and other clients have turns."""
    flood = world.client()
    flood.setblocking(True)
    flood.settimeout(SECONDS)
    stop = threading.Event()

    def storm() -> None:
        while not stop.is_set():
            flood.sendall(request(READ, b"/"))
            flood.recv(1 << 16)

    thread = threading.Thread(target=storm)
    ticks: list[str] = []
    world.loop.add_signal_handler(signal.SIGUSR2, ticks.append, "signal")
    thread.start()
    try:
        world.until(lambda: world.sockets.wakeups > 100)
        for number in range(10):
            world.loop.call_later(0.001, ticks.append, "timer")
            other = world.client()
            other.sendall(request(READ, b"/", req=number))
            assert replies(world.answer(other)) == [(READ, number)]
        world.loop.call_later(0.001, os.kill, os.getpid(), signal.SIGUSR2)
        world.until(lambda: ticks.count("timer") == 10 and "signal" in ticks)
    finally:
        stop.set()
        world.until(lambda: not thread.is_alive())
        thread.join()


def test_what_cannot_be_a_request_is_said_and_ends_the_connection(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """One line in the log with the peer's process; at level debug also who comes and goes."""
    with caplog.at_level(logging.DEBUG, "xsd.io"):
        world.turn.settle()  # from then on the level is known
        world.loop.call_soon(world.loop.stop)
        world.loop.run_forever()
        first = world.client()
        first.sendall(request(READ, b"/"))
        world.answer(first)
        client = world.client()
        client.sendall(HEADER.pack(READ, 0, 0, 5000))
        world.until(lambda: world.connections() == 1)
        first.close()
        world.until(lambda: world.connections() == 0)
    lines = [record.getMessage() for record in caplog.records]
    assert sum("more than 4096 bytes announced" in line for line in lines) == 1
    assert sum("has gone" in line for line in lines) == 1


# ---- what must not run away ----------------------------------------------------------------------


class Counting:
    """A loop that counts who waits to be called soon."""

    def __init__(self, loop: uvloop.Loop) -> None:
        self.loop = loop
        self.waiting = self.most = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.loop, name)

    def call_soon(self, what: Callable[[], None]) -> object:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        return self.loop.call_soon(self.called, what)

    def called(self, what: Callable[[], None]) -> None:
        self.waiting -= 1
        what()


def test_work_without_end_waits_once(tmp_path: Path) -> None:
    """Who always leaves more to do is called once a turn of the loop, beside busy clients too."""
    loop = uvloop.new_event_loop()
    counting = Counting(loop)
    engine = Engine()
    turn = Turn(engine, counting, lambda: turn.settle())
    Poll(turn)
    sockets = Sockets(turn)
    listener = listen(str(tmp_path / "socket"))
    sockets.listen(listener.sock)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "socket"))
        client.setblocking(False)
        turn.settle()
        for number in range(1, 30):
            client.sendall(request(READ, b"/", req=number))
            loop.call_later(0.001, loop.stop)
            loop.run_forever()
        assert len(replies(client.recv(1 << 20))) == 29
    assert counting.most == 1
    sockets.shut()
    turn.stop()
    listener.close()
    loop.close()


def test_a_full_buffer_is_no_end(world: World) -> None:
    """A client of which 64 KiB wait for another's transaction is neither read nor sent away."""
    world.engine.configure(priority_after=1)
    holder, held = world.client(), world.client()

    def ask(client: socket.socket, kind: int, payload: bytes, tx: int, size: int) -> bytes:
        client.sendall(HEADER.pack(kind, 1, tx, len(payload)) + payload)
        return world.answer(client, 16 + size)

    start, end = 6, 7
    ask(held, WRITE, b"/x\x00", 0, 3)
    ask(holder, start, b"\0", 0, 2)
    ask(holder, READ, b"/x\0", 1, 0)
    ask(holder, WRITE, b"/y\x00", 1, 3)
    ask(held, WRITE, b"/x\x001", 0, 3)
    assert ask(holder, end, b"T\0", 1, 7)[16:] == b"EAGAIN\0"
    ask(holder, start, b"\0", 0, 2)
    ask(holder, READ, b"/x\0", 2, 1)
    # Its end comes only when it has had its turns, which others have as well.
    holder.sendall(request(READ, b"/z") * 300 + HEADER.pack(end, 1, 2, 2) + b"T\0")
    one = request(WRITE, b"/x", last=b"v" * 45)
    sent = held.send(one * 1400) // len(one)
    assert sent * len(one) > 65536
    answers = bytearray()
    while len(answers) < 19 * sent:
        answers += world.answer(held)
    assert replies(bytes(answers)) == [(WRITE, 1)] * sent


def test_an_accept_that_never_works_is_not_tried_without_pause(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the reason is, the log tells it, and the set is left alone for a while."""
    world.sockets.stop_accepting()
    with socket.socket(socket.AF_UNIX) as deaf:  # listens to nobody, and is ready all the time
        deaf.setblocking(False)
        with caplog.at_level(logging.ERROR, "xsd.io"):
            world.sockets.listen(deaf)
            world.until(lambda: "cannot accept a connection" in caplog.text)
            rounds = world.poll.rounds
            for _ in range(20):
                world.loop.call_later(0.001, world.loop.stop)
                world.loop.run_forever()
        assert world.poll.rounds - rounds < 5
        world.sockets.stop_accepting()
