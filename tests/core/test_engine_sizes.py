"""Great sizes: deep paths, wide directories, removals of much at once."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable
from typing import Any

import pytest
from model_tree import SOCKET
from world import OK, Client, EngineWorld, Msg, strings

from xsd.core import engine as core

NODES = max(50_000, int(os.environ.get("XSD_STEPS", "0")))


def frame(kind: int, payload: bytes = b"", tx: int = 0, req: int = 0) -> bytes:
    return struct.pack("=4I", kind, req, tx, len(payload)) + payload


def part(client: Client, path: bytes, offset: int) -> tuple[int, list[bytes], bool]:
    """Generation, names, and whether the list ended there."""
    answer = client.ask(Msg.DIRECTORY_PART, strings(path, b"%d" % offset))
    assert isinstance(answer, bytes), answer
    generation, rest = answer.split(b"\0", 1)
    end = rest == b"\0" or rest.endswith(b"\0\0")
    names = rest[:-1] if end else rest
    return int(generation), names.split(b"\0")[:-1], end


def whole(client: Client, path: bytes) -> list[bytes]:
    """A directory, as clients fetch one that does not fit into a reply."""
    found: list[bytes] = []
    offset = 0
    while True:
        _, names, end = part(client, path, offset)
        found += names
        offset += sum(len(name) + 1 for name in names)
        if end:
            return found
        assert names


# ---- depth -----------------------------------------------------------------------------------


def test_a_path_of_1500_names() -> None:
    """Made, read, listed, watched, committed, removed, all by one request each."""
    world = EngineWorld()
    client, watcher = world.socket(), world.socket()
    path = b"/d" * 1500
    blocks = world.engine.memory()["total_blocks"]
    assert watcher.watch(b"/d", b"t") == OK
    assert watcher.watch(path, b"deep") == OK
    assert client.write(path, b"bottom") == OK
    assert watcher.events() == [(path, b"t"), (path, b"deep")]
    assert client.read(path) == b"bottom"
    assert client.ls(b"/d" * 1499) == [b"d"]
    tx = client.start()
    assert client.write(path + b"/e", b"below", tx) == OK
    assert client.write(path, b"changed", tx) == OK
    assert client.end(tx) == OK
    assert watcher.events() == [
        (path + b"/e", b"t"),
        (path + b"/e", b"deep"),
        (path, b"t"),
        (path, b"deep"),
    ]
    world.check()
    assert world.engine.counts()[0]["nodes"] == 1501 + len(world.tree()) - 1501
    assert client.rm(b"/d") == OK
    assert watcher.events() == [(path, b"deep"), (b"/d", b"t")]
    assert watcher.ask(Msg.RESET_WATCHES, b"\0") == OK
    world.engine.collect()
    world.check()
    assert world.engine.memory()["total_blocks"] <= blocks + 16


def test_the_longest_path() -> None:
    """4095 bytes fill a payload; a relative one becomes longer still behind its home."""
    world = EngineWorld()
    client = world.socket()
    assert client.mkdir(b"/" + b"x" * 4094) == OK
    assert client.ask(Msg.READ, b"/" + b"x" * 4094 + b"\0") == b""
    assert client.ls(b"/") == "E2BIG" or len(client.ls(b"/")) > 1
    assert client.mkdir(b"y" * 4095) == OK
    assert client.read(b"/local/domain/0/" + b"y" * 4079) == "ENOENT"
    assert client.rm(b"y" * 4095) == OK
    assert client.mkdir(b"/z" * 2047) == OK
    assert client.getperms(b"/z" * 2047) == [b"n0"]
    world.check()


def test_guests_have_shorter_paths() -> None:
    """The limit does not count the home, however it is spelt."""
    world = EngineWorld()
    dom0, guest = world.socket(), world.guest(1)
    dom0.mkdir(b"/local/domain/1")
    dom0.setperms(b"/local/domain/1", b"n1")
    assert dom0.ask(Msg.SET_QUOTA, strings(b"1", b"node-size", b"4096")) == OK
    assert guest.mkdir(b"x" * 2048) == OK
    assert guest.mkdir(b"y" * 2049) == "EINVAL"
    assert guest.mkdir(b"/local/domain/1/" + b"z" * 2049) == "EINVAL"
    assert guest.read(b"/local/domain/1/" + b"x" * 2048) == b""
    world.check()


# ---- width -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [b"child%d", b"sharedbytes%04d", b"%d"])
def test_3000_children_from_every_offset(form: bytes) -> None:
    """DIRECTORY is too big; each offset gives what stands there, whole names to the end."""
    world = EngineWorld()
    client = world.socket()
    names = sorted(form % i for i in range(3000))
    for i in range(3000):
        assert client.write(b"/w/" + form % i, b"") == OK
    world.check()
    assert client.ls(b"/w") == "E2BIG"
    assert whole(client, b"/w") == names
    text = b"".join(name + b"\0" for name in names)
    generation, _, _ = part(client, b"/w", 0)
    head = b"%d\0" % generation
    for offset in range(0, len(text) + 3, 7):
        answer = client.ask(Msg.DIRECTORY_PART, strings(b"/w", b"%d" % offset))
        assert isinstance(answer, bytes)
        assert answer.startswith(head)
        body = answer[len(head) :]
        rest = text[offset:]
        if len(rest) + len(head) + 1 <= 4096:
            assert body == rest + b"\0"
        else:
            assert rest.startswith(body)
            assert len(body) > 4096 - len(head) - 20
            assert body.endswith(b"\0")


def test_generations_change_with_what_is_listed() -> None:
    """A new or removed child and a new value move the number; reading does not."""
    world = EngineWorld()
    client = world.socket()
    assert client.mkdir(b"/g") == OK
    seen = [part(client, b"/g", 0)[0]]
    acts: list[Callable[[], bytes | str]] = [
        lambda: client.write(b"/g/a", b""),
        lambda: client.write(b"/g", b"v"),
        lambda: client.setperms(b"/g", b"n0", b"r1"),
        lambda: client.rm(b"/g/a"),
    ]
    for act in acts:
        assert act() == OK
        seen.append(part(client, b"/g", 0)[0])
    assert len(set(seen)) == len(seen)
    client.ls(b"/g")
    client.write(b"/elsewhere", b"")
    assert part(client, b"/g", 0)[0] == seen[-1]
    tx = client.start()
    client.write(b"/g/b", b"", tx)
    assert part(client, b"/g", 0)[0] == seen[-1]
    assert client.end(tx) == OK
    assert part(client, b"/g", 0)[0] not in seen


def test_names_that_share_eight_bytes_are_found_when_neighbours_go() -> None:
    """A block of a directory may lose the name that bounds it, and that name's first bytes.

    What stands in the block before it, and begins with them too, is still found.
    """
    world = EngineWorld()
    client = world.socket()
    names = [b"/w/sharedby%03d" % i for i in range(40)] + [
        b"/w/sharedbz%02d" % i for i in range(24)
    ]
    for name in [*names, b"/w/sharedby019x"]:  # which splits the full block in the middle
        assert client.write(name, b"v") == OK
    world.check()
    for name in names[32:40]:  # with which the second block began
        assert client.rm(name) == OK
    for name in names[:32] + names[40:]:
        assert client.read(name) == b"v"
    assert client.write(names[31], b"again") == OK
    assert len(client.ls(b"/w")) == 57
    world.check()


# ---- freeing -----------------------------------------------------------------------------------


def fill(engine: core.Engine, cid: int, count: int) -> None:
    for i in range(0, count, 100):
        data = [frame(Msg.WRITE, b"/many/%d/%d\0v" % (k % 200, k)) for k in range(i, i + 100)]
        engine.feed(0, cid, b"".join(data))
        engine.take(cid)


def test_removing_much_frees_in_portions() -> None:
    """RM answers at once; tick() says when to come again until all memory is back."""
    engine: Any = core.Engine()
    cid = engine.open(0, SOCKET, 0)
    before = engine.memory()
    fill(engine, cid, NODES)
    full = engine.memory()["tree_blocks"]
    assert full >= before["tree_blocks"] + NODES
    calls = engine.allocations()
    flags = engine.feed(0, cid, frame(Msg.RM, b"/many\0"))
    assert engine.take(cid)[16:] == b"OK\0"
    assert engine.allocations() - calls < 20  # nothing is gone through
    assert flags & core.TICK
    assert engine.memory()["tree_blocks"] > full - 1000
    assert engine.counts()[0]["nodes"] < 10
    now, ticks = 0, 0
    while (deadline := engine.tick(now)) is not None:
        assert now <= deadline <= now + 10_000_000
        assert engine.memory()["tree_blocks"] > full - (ticks + 2) * 5000
        now, ticks = deadline, ticks + 1
        assert ticks < NODES
    assert ticks > 5
    assert engine.memory()["tree_blocks"] <= before["tree_blocks"] + 2
    engine.check()


@pytest.mark.parametrize("others", [1_000, 100_000])
def test_the_end_of_a_domain_looks_at_little_else(others: int) -> None:
    """In a tree of any size: its own nodes, those that name it, and their neighbours in a block."""
    engine: Any = core.Engine()
    engine.configure(quota=False)
    cid = engine.open(0, SOCKET, 0)
    for domid in (1, 2):
        engine.introduce(0, domid)
    fill(engine, cid, others)  # dom0's
    requests = [(Msg.SET_PERMS, b"/many", b"n2")]
    for i in range(20):
        path = b"/local/domain/1/device/%d" % i
        requests += [(Msg.WRITE, path, b"x"), (Msg.SET_PERMS, path, b"n1")]
    requests.append((Msg.SET_PERMS, b"/many/7", b"n2\0r1"))
    for kind, path, rest in requests:
        end = b"" if kind == Msg.WRITE else b"\0"
        engine.feed(0, cid, frame(kind, path + b"\0" + rest + end))
        assert engine.take(cid)[16:] == OK
    engine.domain_died(1, 1)
    assert 20 < engine.counters()["nodes_swept"] < 500
    assert not [path for path in engine.tree() if path.startswith(b"/local/domain/1/device/")]
    engine.check()


def test_a_transaction_keeps_what_was_removed() -> None:
    """Its snapshot is whole until it ends; then all is freed."""
    engine: Any = core.Engine()
    cid, other = engine.open(0, SOCKET, 0), engine.open(0, SOCKET, 0)
    before = engine.memory()["tree_blocks"]
    fill(engine, cid, 5000)
    engine.feed(0, other, frame(Msg.TRANSACTION_START, b"\0"))
    engine.feed(0, cid, frame(Msg.RM, b"/many\0"))
    engine.collect()
    assert engine.memory()["tree_blocks"] > before + 5000
    engine.take(other)
    engine.feed(0, other, frame(Msg.READ, b"/many/7/7\0", tx=1))
    assert engine.take(other)[16:] == b"v"
    engine.feed(0, other, frame(Msg.TRANSACTION_END, b"F\0", tx=1))
    engine.collect()
    assert engine.memory()["tree_blocks"] <= before + 2
    engine.check()


def test_removed_nodes_are_freed_while_requests_come() -> None:
    """Also without a tick: each batch of requests frees some."""
    engine: Any = core.Engine()
    cid = engine.open(0, SOCKET, 0)
    before = engine.memory()["tree_blocks"]
    fill(engine, cid, 5000)
    engine.feed(0, cid, frame(Msg.RM, b"/many\0"))
    for _ in range(200):
        if not engine.feed(0, cid, frame(Msg.READ, b"/tool\0")) & core.TICK:
            break
        engine.take(cid)
    assert engine.memory()["tree_blocks"] <= before + 2


def test_a_million_bytes_of_values_come_and_go() -> None:
    """Values that change their length leave nothing behind."""
    world = EngineWorld()
    client = world.socket()
    client.write(b"/v", b"")
    start = world.engine.memory()["tree_bytes"]
    for size in [*range(0, 4000, 97), 17, 0]:
        assert client.write(b"/v", b"x" * size) == OK
        assert client.read(b"/v") == b"x" * size
    assert world.engine.memory()["tree_bytes"] == start
    world.check()


class Blocks(ctypes.Structure):
    """What malloc says of itself: mallinfo2(3)."""

    _fields_ = (
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")),
        *((name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks")),
        ("keepcost", ctypes.c_size_t),
    )


@pytest.mark.skipif(os.environ.get("XSD_FLAVOUR") == "asan", reason="sanitizers have a malloc")
def test_no_later_allocation_pays_for_a_removal() -> None:
    """Blocks freed are joined one by one, not all by the next who asks for a large one."""
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = Blocks
    engine: Any = core.Engine()
    cid = engine.open(0, SOCKET, 0)
    before = engine.memory()["tree_blocks"]
    fill(engine, cid, NODES // 10)
    waiting = mallinfo().smblks
    engine.feed(0, cid, frame(Msg.RM, b"/many\0"))
    for turn in range(1000):
        engine.tick(turn * 1_000_000)
    assert engine.memory()["tree_blocks"] <= before + 2
    assert mallinfo().smblks <= waiting
