"""In process: what a failed commit costs, by the number of commits it has to look at.

The victim reads a node, many guests in turn commit something else, one of them changes the node,
and the victim's commit fails. The clock stands around that one request: replay, blame, charge.
"""

import statistics
import time
from dataclasses import dataclass

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import frames
from bench.frames import frame
from xsd.core.engine import Engine

INTRODUCE = 8
SET_PERMS = 14
ROUNDS = 15
GUESTS = 40
REQUESTS = 20


@dataclass(slots=True)
class Arena:
    """An engine with a toolstack and guests, on a clock that stands still."""

    engine: Engine
    toolstack: int
    guests: list[int]

    def ask(self, conn: int, *messages: bytes) -> list[frames.Frame]:
        """Sends requests and plays the hypervisor; the replies."""
        self.engine.feed(0, conn, b"".join(messages))
        while (effect := self.engine.next_effect()) is not None:
            if effect[1] in ("domain", "introduce"):
                self.engine.complete(0, effect[0])
                while (ready := self.engine.next_runnable()) >= 0:
                    self.engine.feed(0, ready, b"")
        return list(frames.cut(self.engine.take(conn)))

    def write(self, conn: int, path: bytes, value: bytes, tx: int = 0) -> None:
        (reply,) = self.ask(conn, frame(frames.WRITE, path + b"\0" + value, tx_id=tx))
        assert reply.payload == b"OK\0"


def arena() -> Arena:
    engine = Engine()
    # Credit and history would end with time; here they are to last.
    engine.configure(period_ns=1 << 60, burst_limit=1e9, priority_after=0)
    made = Arena(engine, engine.open(0, 0, 0), [])
    for domid in range(1, GUESTS + 1):
        home = b"/local/domain/%d" % domid
        made.write(made.toolstack, home + b"/data", b"")
        for path in (home, home + b"/data"):
            (reply,) = made.ask(made.toolstack, frame(SET_PERMS, path + b"\0n%d\0" % domid))
            assert reply.payload == b"OK\0"
        (reply,) = made.ask(made.toolstack, frame(INTRODUCE, b"%d\0%d\0%d\0" % ((domid,) * 3)))
        assert reply.payload == b"OK\0"
        made.guests.append(engine.domain_conn(domid))
    return made


@pytest.mark.benchmark(group="a failed commit, by commits since its start")
@pytest.mark.parametrize("commits", [10, 100, 1000])
def test_failed_commit(benchmark: BenchmarkFixture, commits: int) -> None:
    """END of a transaction of 20 requests that lost to one of many commits."""
    world = arena()
    target = b"/local/domain/1/data"
    times: list[int] = []
    rounds = 0

    def prepare() -> tuple[tuple[int], dict[str, object]]:
        nonlocal rounds
        rounds += 1
        (reply,) = world.ask(world.toolstack, frame(frames.TRANSACTION_START, b"\0"))
        tx = int(reply.payload.rstrip(b"\0"))
        for i in range(REQUESTS - 2):
            path = b"/local/domain/%d/data\0" % (2 + i)
            world.ask(world.toolstack, frame(frames.READ, path, tx_id=tx))
        world.ask(world.toolstack, frame(frames.READ, target + b"\0", tx_id=tx))
        world.write(world.toolstack, b"/vm/answer", b"x", tx)
        for i in range(commits):
            domid = 2 + i % (GUESTS - 1)
            world.write(world.guests[domid - 1], b"/local/domain/%d/data/n" % domid, b"v")
        world.write(world.guests[0], target, b"%d" % rounds)
        return (tx,), {}

    def end(tx: int) -> None:
        message = frame(frames.TRANSACTION_END, b"T\0", tx_id=tx)
        begin = time.perf_counter_ns()
        world.engine.feed(0, world.toolstack, message)
        times.append(time.perf_counter_ns() - begin)
        (reply,) = frames.cut(world.engine.take(world.toolstack))
        assert reply.payload == b"EAGAIN\0"

    benchmark.pedantic(end, setup=prepare, rounds=ROUNDS, warmup_rounds=1)  # type: ignore[no-untyped-call]
    benchmark.extra_info["us_per_failed_commit"] = statistics.median(times) / 1000
    figures = world.engine.conflict_figures()
    assert figures[1]["caused"] == rounds
    assert sum(f["caused"] for f in figures.values()) == rounds
