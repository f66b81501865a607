"""In process: nanoseconds per request through the engine, without a socket.

`pytest bench/test_micro.py` prints a table; its times are per request and measured by the engine
around its own loop, inside nogil, so neither Python nor the harness is in them. Every stream of
requests is first fed once and all replies are checked: nobody gets faster by answering less.
"""

import hashlib
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import frames
from bench.frames import Frame, frame
from xsd.core.engine import Engine

LEAVES = 20_000
REQUESTS = 1_000
REPEATS = 20
ROUNDS = 15
# Requests handed over at once while building: their replies fit into any output queue.
CHUNK = 64


class Stopwatch:
    """A timer for pytest-benchmark that goes on only by the times the engine reports."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def read(self) -> float:
        return self._seconds

    def add_ns(self, ns: float) -> None:
        assert ns > 0
        self._seconds += ns * 1e-9


STOPWATCH = Stopwatch()
pytestmark = pytest.mark.benchmark(timer=STOPWATCH.read, group="engine, ns per request")


@dataclass(frozen=True, slots=True)
class Store:
    """An engine with the tree of `LEAVES` leaves, and one connection of domain 0."""

    engine: Engine
    conn: int

    def ask(self, requests: list[bytes]) -> list[Frame]:
        """Feed the requests, a few at a time; the replies, one for each, none of them an error."""
        replies: list[Frame] = []
        for begin in range(0, len(requests), CHUNK):
            self.engine.feed(0, self.conn, b"".join(requests[begin : begin + CHUNK]))
            replies += frames.cut(self.engine.take(self.conn))
        assert len(replies) == len(requests)
        assert [r for r in replies if r.type == frames.ERROR] == []
        return replies


@pytest.fixture(scope="module")
def store() -> Store:
    engine = Engine(seed=0)
    made = Store(engine, engine.open(0, 0, 0))
    made.ask(
        [
            frame(frames.WRITE, frames.leaf_path(leaf) + b"\0" + frames.leaf_value(leaf))
            for leaf in range(LEAVES)
        ]
    )
    return made


def _checksum(replies: list[Frame]) -> str:
    total = hashlib.sha256()
    for reply in replies:
        total.update(frame(reply.type, reply.payload))
    return total.hexdigest()


def _measure(
    benchmark: BenchmarkFixture,
    store: Store,
    make: Callable[[int], bytes],
    expected: Callable[[int], bytes],
) -> None:
    """Times `REQUESTS` requests for leaves chosen once; `expected` is the payload of each reply."""
    chosen = random.Random(0).choices(range(LEAVES), k=REQUESTS)
    requests = [make(leaf) for leaf in chosen]
    replies = store.ask(requests)
    assert [reply.payload for reply in replies] == [expected(leaf) for leaf in chosen]
    benchmark.extra_info["checksum"] = _checksum(replies)
    data = b"".join(requests)
    times: list[float] = []

    def feed() -> None:
        times.append(store.engine.bench_feed(store.conn, data, REPEATS))
        STOPWATCH.add_ns(times[-1])

    benchmark.pedantic(feed, rounds=ROUNDS, warmup_rounds=1)  # type: ignore[no-untyped-call]
    benchmark.extra_info["ns_per_request"] = statistics.median(times)


def test_read(benchmark: BenchmarkFixture, store: Store) -> None:
    """READ of a leaf of 16 bytes; goal 150 ns."""
    _measure(
        benchmark,
        store,
        lambda leaf: frame(frames.READ, frames.leaf_path(leaf) + b"\0"),
        frames.leaf_value,
    )


def test_write(benchmark: BenchmarkFixture, store: Store) -> None:
    """WRITE of a leaf that exists, 16 bytes; goal 250 ns."""
    _measure(
        benchmark,
        store,
        lambda leaf: frame(frames.WRITE, frames.leaf_path(leaf) + b"\0" + frames.leaf_value(leaf)),
        lambda leaf: b"OK\0",
    )


def test_directory(benchmark: BenchmarkFixture, store: Store) -> None:
    """DIRECTORY of 32 children."""
    names = b"".join(sorted(b"%d\0" % i for i in range(32)))
    _measure(
        benchmark,
        store,
        lambda leaf: frame(frames.DIRECTORY, frames.leaf_directory(leaf) + b"\0"),
        lambda leaf: names,
    )


def test_get_perms(benchmark: BenchmarkFixture, store: Store) -> None:
    """GET_PERMS of a leaf with one entry."""
    _measure(
        benchmark,
        store,
        lambda leaf: frame(frames.GET_PERMS, frames.leaf_path(leaf) + b"\0"),
        lambda leaf: b"n0\0",
    )


def _start(store: Store) -> int:
    """The id of a transaction that was started and aborted again."""
    (reply,) = store.ask([frame(frames.TRANSACTION_START, b"\0")])
    tx_id = int(reply.payload.rstrip(b"\0"))
    store.ask([frame(frames.TRANSACTION_END, b"F\0", tx_id=tx_id)])
    return tx_id


def _aborts(store: Store, pairs: int) -> list[bytes]:
    """START and abort, `pairs` times, with the ids that the engine will hand out next."""
    first, second = _start(store), _start(store)
    step = second - first
    return [
        message
        for i in range(1, pairs + 1)
        for message in (
            frame(frames.TRANSACTION_START, b"\0"),
            frame(frames.TRANSACTION_END, b"F\0", tx_id=second + i * step),
        )
    ]


def test_transaction_start_abort(benchmark: BenchmarkFixture, store: Store) -> None:
    """TRANSACTION_START and abort, per request; the cost must not depend on the tree."""
    replies = store.ask(_aborts(store, REQUESTS // 2))
    assert [r.payload for r in replies[1::2]] == [b"OK\0"] * (REQUESTS // 2)
    times: list[float] = []

    def prepare() -> tuple[tuple[bytes], dict[str, object]]:
        return (b"".join(_aborts(store, REQUESTS // 2)),), {}

    def feed(data: bytes) -> None:
        times.append(store.engine.bench_feed(store.conn, data, 1))
        STOPWATCH.add_ns(times[-1])

    benchmark.pedantic(  # type: ignore[no-untyped-call]
        feed, setup=prepare, rounds=ROUNDS, warmup_rounds=1
    )
    benchmark.extra_info["ns_per_request"] = statistics.median(times)
