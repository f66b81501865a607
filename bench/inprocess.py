"""Our engine in a process of its own: operations that are counted or timed, without a socket.

`python -m bench.inprocess count OPS` does each operation of `COUNTED` OPS times, then five times as
often, and marks the places between by a call of `Engine.allocations`, which does nothing: valgrind
writes a file there. `python -m bench.inprocess blame RECORDS` times failed commits. Both print one
JSON object. `bench.engine` starts them.
"""

import gc
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bench import frames
from bench.frames import Frame, frame
from xsd.core.engine import SOCKET, Engine

LEAVES = 2048
LONGER = 5
"""How many times as many operations the second of two runs does."""
ROUNDS = 15
GUESTS = 40
REQUESTS = 20
_FIRST = b"/local/domain/1/data"


@dataclass(slots=True)
class World:
    """An engine with connections of domain 0, on a clock that stands still."""

    engine: Engine
    conn: int
    requests: int = 0
    watchers: list[int] = field(default_factory=list)
    heard: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def ask(self, type_: int, payload: bytes, tx: int = 0, conn: int | None = None) -> Frame:
        """One request and its reply."""
        conn = self.conn if conn is None else conn
        self.engine.feed(0, conn, frame(type_, payload, tx_id=tx))
        reply = next(frames.cut(self.engine.take(conn)))
        self.requests += 1
        if type_ != frames.TRANSACTION_START:
            self.heard.update(frame(reply.type, reply.payload))
        return reply

    def start(self) -> int:
        """The id of a new transaction."""
        return int(self.ask(frames.TRANSACTION_START, b"\0").payload.rstrip(b"\0"))

    def end(self, tx: int, how: bytes = b"T\0") -> bytes:
        """Ends it; what was answered."""
        return self.ask(frames.TRANSACTION_END, how, tx).payload

    def hear(self) -> None:
        """Takes the events of all watchers."""
        for watcher in self.watchers:
            self.heard.update(self.engine.take(watcher))


def world() -> World:
    """A tree of `LEAVES` leaves."""
    engine = Engine(seed=0)
    made = World(engine, engine.open(0, SOCKET, 0))
    for leaf in range(LEAVES):
        made.ask(frames.WRITE, frames.leaf_path(leaf) + b"\0" + frames.leaf_value(leaf))
    return made


def watch(place: World, watchers: int) -> None:
    """Further connections, until so many watch the whole tree."""
    for number in range(len(place.watchers), watchers):
        conn = place.engine.open(0, SOCKET, 0)
        place.ask(frames.WATCH, b"/bench/t\0%d\0" % number, conn=conn)
        place.engine.take(conn)
        place.watchers.append(conn)


Operation = Callable[[World, int], None]


def _leaf(i: int) -> bytes:
    """Leaves in an order that has nothing to do with the tree's."""
    return frames.leaf_path(i * 797 % LEAVES) + b"\0"


def _value(i: int) -> bytes:
    return frames.leaf_value(i * 797 % LEAVES)


def _read(w: World, i: int) -> None:
    assert w.ask(frames.READ, _leaf(i)).payload == _value(i)


def _write(w: World, i: int) -> None:
    assert w.ask(frames.WRITE, _leaf(i) + _value(i)).payload == b"OK\0"
    w.hear()


def _directory(w: World, i: int) -> None:
    path = frames.leaf_directory(i * 797 % LEAVES)
    assert w.ask(frames.DIRECTORY, path + b"\0").payload.count(b"\0") == 32


def _perms(w: World, i: int) -> None:
    assert w.ask(frames.GET_PERMS, _leaf(i)).payload == b"n0\0"


def _mkdir_rm(w: World, i: int) -> None:
    path = frames.leaf_directory(i * 797 % LEAVES) + b"/new\0"
    assert w.ask(frames.MKDIR, path).payload == b"OK\0"
    assert w.ask(frames.RM, path).payload == b"OK\0"


def _abort(w: World, i: int) -> None:
    assert w.end(w.start(), b"F\0") == b"OK\0"


def _body(w: World, i: int) -> int:
    """A transaction of two reads and two writes, not yet ended."""
    tx = w.start()
    for n in (0, 1):
        assert w.ask(frames.READ, _leaf(4 * i + n), tx).payload == _value(4 * i + n)
    for n in (2, 3):
        w.ask(frames.WRITE, _leaf(4 * i + n) + _value(4 * i + n), tx)
    return tx


def _commit(w: World, i: int) -> None:
    assert w.end(_body(w, i)) == b"OK\0"


def _commit_moved(w: World, i: int) -> None:
    tx = _body(w, i)
    w.ask(frames.WRITE, _leaf(4 * i + 100) + _value(4 * i + 100))
    assert w.end(tx) == b"OK\0"


def _commit_replayed(w: World, i: int) -> None:
    tx = _body(w, i)
    # What it read is written again, with the same value: only asking again can tell.
    w.ask(frames.WRITE, _leaf(4 * i) + _value(4 * i))
    assert w.end(tx) == b"OK\0"


def _conflict(w: World, i: int) -> None:
    tx = _body(w, i)
    w.ask(frames.WRITE, _leaf(4 * i) + b"another")
    assert w.end(tx) == b"EAGAIN\0"
    w.ask(frames.WRITE, _leaf(4 * i) + _value(4 * i))


COUNTED: Mapping[str, tuple[int, Operation]] = {
    "read": (0, _read),
    "write": (0, _write),
    "directory": (0, _directory),
    "perms": (0, _perms),
    "mkdir-rm": (0, _mkdir_rm),
    "abort": (0, _abort),
    "commit": (0, _commit),
    "commit-moved": (0, _commit_moved),
    "commit-replayed": (0, _commit_replayed),
    "conflict": (0, _conflict),
    "watched-1": (1, _write),
    "watched-10": (10, _write),
    "watched-100": (100, _write),
}
"""What is counted, by name: how many watch the tree meanwhile, and one operation."""


def count(ops: int) -> dict[str, object]:
    """Each operation, `ops` times and `LONGER` times that; marks before, between and after."""
    said: dict[str, object] = {}
    place = world()
    for name, (watchers, operation) in COUNTED.items():
        watch(place, watchers)
        for i in range(ops):  # whatever is done once is done before
            operation(place, i)
        place.heard = hashlib.sha256()
        requests = []
        place.engine.allocations()
        for times in (ops, ops * LONGER):
            place.requests = 0
            for i in range(times):
                operation(place, i)
            place.engine.allocations()
            requests.append(place.requests)
        said[name] = {
            "ops": ops * (LONGER - 1),
            "requests": requests[1] - requests[0],
            "checksum": place.heard.hexdigest()[:16],
        }
    place.engine.check()
    return said


# ---- a failed commit ---------------------------------------------------------------------------


@dataclass(slots=True)
class Arena:
    """An engine with a toolstack and guests, on a clock that stands still."""

    engine: Engine
    toolstack: int
    guests: list[int]

    def ask(self, conn: int, *messages: bytes) -> list[Frame]:
        """Sends requests and plays the hypervisor; the replies."""
        self.engine.feed(0, conn, b"".join(messages))
        while (effect := self.engine.next_effect()) is not None:
            if effect[1] in ("domain", "introduce"):
                self.engine.complete(0, effect[0])
                while (ready := self.engine.next_runnable()) >= 0:
                    self.engine.feed(0, ready, b"")
        return list(frames.cut(self.engine.take(conn)))

    def write(self, conn: int, path: bytes, value: bytes, tx: int = 0) -> None:
        """A WRITE that succeeds."""
        (reply,) = self.ask(conn, frame(frames.WRITE, path + b"\0" + value, tx_id=tx))
        assert reply.payload == b"OK\0"


def arena() -> Arena:
    """Guests with a home each; credit and history do not end with time."""
    engine = Engine()
    engine.configure(period_ns=1 << 60, burst_limit=1e9, priority_after=0)
    made = Arena(engine, engine.open(0, SOCKET, 0), [])
    for domid in range(1, GUESTS + 1):
        home = b"/local/domain/%d" % domid
        made.write(made.toolstack, home + b"/data", b"")
        for path in (home, home + b"/data"):
            (reply,) = made.ask(made.toolstack, frame(frames.SET_PERMS, path + b"\0n%d\0" % domid))
            assert reply.payload == b"OK\0"
        introduce = frame(frames.INTRODUCE, b"%d\0%d\0%d\0" % ((domid,) * 3))
        (reply,) = made.ask(made.toolstack, introduce)
        assert reply.payload == b"OK\0"
        made.guests.append(engine.domain_conn(domid))
    return made


def losing(place: Arena, commits: int, turn: int) -> int:
    """A transaction of the toolstack that lost to the last of so many commits of guests."""
    (reply,) = place.ask(place.toolstack, frame(frames.TRANSACTION_START, b"\0"))
    tx = int(reply.payload.rstrip(b"\0"))
    for i in range(REQUESTS - 2):
        path = b"/local/domain/%d/data\0" % (2 + i)
        place.ask(place.toolstack, frame(frames.READ, path, tx_id=tx))
    place.ask(place.toolstack, frame(frames.READ, _FIRST + b"\0", tx_id=tx))
    place.write(place.toolstack, b"/vm/answer", b"x", tx)
    for i in range(commits):
        domid = 2 + i % (GUESTS - 1)
        place.write(place.guests[domid - 1], b"/local/domain/%d/data/n" % domid, b"v")
    place.write(place.guests[0], _FIRST, b"%d" % turn)
    return tx


def lose(place: Arena, tx: int) -> int:
    """Ends that transaction; how many nanoseconds it took to fail."""
    message = frame(frames.TRANSACTION_END, b"T\0", tx_id=tx)
    begin = time.perf_counter_ns()
    place.engine.feed(0, place.toolstack, message)
    spent = time.perf_counter_ns() - begin
    (reply,) = frames.cut(place.engine.take(place.toolstack))
    assert reply.payload == b"EAGAIN\0"
    return spent


def blame(records: int) -> dict[str, object]:
    """Failed commits, each after `records` commits of others."""
    place = arena()
    gc.disable()
    times = [lose(place, losing(place, records, turn)) for turn in range(ROUNDS + 1)][1:]
    figures = place.engine.conflict_figures()
    assert figures[1]["caused"] == ROUNDS + 1 == sum(f["caused"] for f in figures.values())
    return {
        "ops": ROUNDS,
        "records": records,
        "ns": statistics.median(times),
        "latency_ns": {"count": ROUNDS, "max": max(times)},
    }


def main(words: list[str]) -> int:
    """The command of the module's docstring."""
    job = {"count": count, "blame": blame}[words[0]]
    print(json.dumps(job(int(words[1]))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
