"""What can be seen from outside: counters, access records, memory, figures, settings."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest
from model_tree import SOCKET
from world import OK, EngineWorld, Msg, strings

from xsd.core import engine as core


def frame(kind: int, payload: bytes = b"", tx: int = 0, req: int = 0) -> bytes:
    return struct.pack("=4I", kind, req, tx, len(payload)) + payload


def records(data: bytes) -> Iterator[tuple[Any, ...]]:
    """Time, connection, kind, domid, type, transaction, result, payload."""
    while data:
        when, cid, kind, domid, op, tx, result, size, zero = struct.unpack_from("=q8I", data)
        assert zero == 0
        yield when, cid, kind, domid, op, tx, result, data[40 : 40 + size]
        data = data[40 + size :]


def test_access_records_tell_each_request() -> None:
    """When, who, what, and how it ended; nothing when it is switched off."""
    engine: Any = core.Engine()
    cid = engine.open(0, SOCKET, 0)
    engine.feed(1, cid, frame(Msg.READ, b"/tool\0"))
    assert engine.take_access() == b""
    engine.configure(access_log=True)
    engine.feed(2, cid, frame(Msg.WRITE, b"/a\0value"))
    engine.feed(3, cid, frame(Msg.READ, b"/none\0") + frame(Msg.READ, b"/a\0", tx=9))
    engine.feed(4, cid, frame(99, b""))
    failed = {name: number for number, name in enumerate(core.ERROR_NAMES)}
    assert list(records(engine.take_access())) == [
        (2, cid, SOCKET, 0, Msg.WRITE, 0, 0, b"/a\0value"),
        (3, cid, SOCKET, 0, Msg.READ, 0, failed["ENOENT"], b"/none\0"),
        (3, cid, SOCKET, 0, Msg.READ, 9, failed["ENOENT"], b"/a\0"),
        (4, cid, SOCKET, 0, 99, 0, failed["ENOSYS"], b""),
    ]
    assert engine.take_access() == b""
    engine.configure(access_log=False)
    engine.feed(5, cid, frame(Msg.READ, b"/a\0"))
    assert engine.take_access() == b""


def test_access_records_are_bounded() -> None:
    """Those that nobody fetches are counted as lost; requests are served nevertheless."""
    engine: Any = core.Engine()
    engine.configure(access_log=True)
    cid = engine.open(0, SOCKET, 0)
    for _ in range(400):
        engine.feed(0, cid, frame(Msg.WRITE, b"/a\0" + b"v" * 4000))
        assert engine.take(cid)[16:] == b"OK\0"
    lost = engine.counters()["access_records_lost"]
    data = engine.take_access()
    assert lost > 0
    assert len(data) <= 1 << 20
    assert len(list(records(data))) + lost == 400
    engine.feed(0, cid, frame(Msg.READ, b"/a\0"))
    assert len(list(records(engine.take_access()))) == 1


def test_an_access_record_may_fail_for_want_of_memory() -> None:
    """The request does not."""
    engine: Any = core.Engine()
    engine.configure(access_log=True)
    cid = engine.open(0, SOCKET, 0)
    engine.feed(0, cid, frame(Msg.READ, b"/tool\0"))
    engine.take_access()
    engine.take(cid)
    request = frame(Msg.WRITE, b"/a\0" + b"v" * 3000)
    nth = 1
    while True:
        engine.fail_allocation(nth)
        engine.feed(0, cid, request)
        engine.fail_allocation(0)
        reply = engine.take(cid)[16:]
        if reply == b"OK\0":
            break
        nth += 1
    assert engine.counters()["access_records_lost"] <= 1


def test_counters_count() -> None:
    """Requests by type, errors by name, connections, watches, commits, bytes."""
    world = EngineWorld()
    client = world.socket()
    before = world.engine.counters()
    client.write(b"/a", b"1")
    client.read(b"/a")
    client.read(b"/none")
    client.read(b"/none")
    client.watch(b"/a", b"t")
    client.ask(77, b"")
    tx = client.start()
    client.write(b"/b", b"", tx)
    client.end(tx)
    client.end(client.start(), commit=False)
    first, second = client.start(), client.start()
    for tx in (first, second):
        client.read(b"/a", tx)
        client.write(b"/a", b"2", tx)
        client.end(tx)
    after = world.engine.counters()

    def gained(name: str) -> int:
        difference: int = after[name] - before[name]
        return difference

    assert after["requests"]["READ"] == 5
    assert after["requests"]["WRITE"] == 4
    assert after["requests"]["TRANSACTION_END"] == 4
    assert after["requests"]["unknown"] == 1
    assert after["errors"] == {"ENOENT": 2, "ENOSYS": 1, "EAGAIN": 1}
    assert gained("connections") == 0
    assert gained("watches") == 1
    assert gained("transactions") == 0
    assert gained("conflicts") == 1
    assert gained("aborts") == 1
    assert gained("commits_swap") == 2
    assert gained("commits") == 3
    assert gained("events_queued") == 2
    assert after["bytes_in"] > 300
    assert after["bytes_out"] > 300


def test_what_there_is_is_counted() -> None:
    """Nodes of everybody, special ones too; domains that are known, and those introduced."""
    world = EngineWorld()

    def now() -> tuple[int, int, int]:
        counters = world.engine.counters()
        return counters["nodes"], counters["domains"], counters["domains_introduced"]

    dom0 = world.socket()
    nodes, domains, introduced = now()
    assert nodes == len(world.engine.tree())
    world.guest(1)
    dom0.write(b"/a/b", b"")
    dom0.setperms(b"/a/b", b"n1")
    assert now() == (nodes + 2, domains + 1, introduced + 1)
    world.kill(1)
    assert now() == (nodes + 1, domains, introduced)
    dom0.rm(b"/a")
    assert now() == (nodes, domains, introduced)


def test_expired_events_are_counted() -> None:
    """Beside those dropped and merged."""
    world = EngineWorld()
    dom0, guest = world.socket(), world.guest(1)
    dom0.write(b"/local/domain/1/a", b"")
    dom0.setperms(b"/local/domain/1/a", b"n1")
    assert guest.watch(b"a", b"t") == OK
    for _ in range(3):
        dom0.write(b"/local/domain/1/a", b"")
    counters = world.engine.counters()
    assert (counters["events_merged"], counters["events_expired"]) == (2, 0)
    world.advance(30)
    assert world.engine.counters()["events_expired"] == 1
    assert guest.events() == []


def test_connections_watches_and_transactions_are_listed() -> None:
    """With what a control command shows of them."""
    engine: Any = core.Engine()
    cid = engine.open(0, SOCKET, 0, 1234, 42)
    engine.feed(5, cid, frame(Msg.WATCH, b"a/b\0token\0") + frame(Msg.TRANSACTION_START, b"\0"))
    engine.feed(6, cid, frame(Msg.MKDIR, b"/x\0", tx=1))
    assert engine.connections() == [(cid, "socket", 0, 1234, 42, 3)]
    assert engine.watches() == [(cid, b"a/b", b"token")]
    assert engine.transactions() == [(cid, 0, 1, 5, [("MKDIR", b"/x")], False)]


def test_peaks_are_kept_and_reset() -> None:
    """The greatest figure among guests, per quota."""
    world = EngineWorld()
    dom0, guest = world.socket(), world.guest(1)
    dom0.mkdir(b"/local/domain/1")
    dom0.setperms(b"/local/domain/1", b"n1")
    for i in range(4):
        guest.write(b"%d" % i, b"")
    guest.rm(b"0")
    assert world.engine.peaks()["nodes"] == 5
    assert world.engine.domain_peaks(1)["nodes"] == 5
    world.engine.peaks(reset=True)
    assert world.engine.peaks()["nodes"] == 0


def test_quotas_of_a_domain_are_copied_when_it_is_first_seen() -> None:
    """Later changes of the defaults are for later domains; names in both spellings."""
    world = EngineWorld()
    dom0 = world.socket()
    world.guest(1)
    world.engine.set_quota("nodes", 7)
    world.engine.set_quota("permissions", 3)
    world.guest(2)
    assert world.engine.domain_quotas(1)["nodes"] == 1000
    assert world.engine.domain_quotas(2)["nodes"] == 7
    assert world.engine.quotas()["node-permissions"] == 3
    assert dom0.ask(Msg.GET_QUOTA, strings(b"2", b"path-length")) == b"2048\0"
    assert dom0.ask(Msg.SET_QUOTA, strings(b"2", b"nodes", b"4294967295")) == "EINVAL"
    assert dom0.ask(Msg.SET_QUOTA, strings(b"2", b"nodes", b"4294967294")) == OK
    with pytest.raises(KeyError):
        world.engine.set_quota("nothing", 1)
    with pytest.raises(KeyError):
        world.engine.domain_quotas(77)


def test_the_hash_sees_what_clients_see() -> None:
    """Equal states have equal hashes, however they came about; each difference shows."""

    def fresh() -> tuple[Any, int]:
        engine = core.Engine()
        return engine, engine.open(0, SOCKET, 0)

    def after(*requests: bytes) -> int:
        engine, cid = fresh()
        for request in requests:
            engine.feed(0, cid, request)
        engine.take(cid)
        found: int = engine.state_hash()
        return found

    one, two = frame(Msg.WRITE, b"/a\0one"), frame(Msg.WRITE, b"/a\0two")
    assert after(two, one) == after(one)
    assert after(frame(Msg.MKDIR, b"/b\0"), frame(Msg.RM, b"/b\0"), one) == after(one)
    different = [
        after(),
        after(one),
        after(two),
        after(one, frame(Msg.SET_PERMS, b"/a\0b0\0")),
        after(one, frame(Msg.WATCH, b"/a\0t\0")),
        after(one, frame(Msg.WATCH, b"/a\0u\0")),
        after(one, frame(Msg.TRANSACTION_START, b"\0")),
        after(one, frame(Msg.TRANSACTION_START, b"\0"), frame(Msg.RM, b"/a\0", tx=1)),
        after(one, frame(Msg.READ, b"/a\0")[:5]),
    ]
    assert len(set(different)) == len(different)


def test_memory_is_charged_to_whom_it_is_held_for() -> None:
    """A guest's watches, queue and transactions are in its account, and leave it again."""
    world = EngineWorld()
    guest = world.guest(1)
    bare = world.engine.account(1)
    assert guest.watch(b"x", b"t" * 100) == OK
    watching = world.engine.account(1)
    assert watching[0] > bare[0] + 100
    tx = guest.start()
    guest.read(b"/tool", tx)
    assert world.engine.account(1)[1] > watching[1]
    guest.end(tx)
    guest.ask(Msg.RESET_WATCHES, b"\0")
    assert world.engine.account(1)[0] < watching[0] + 4096
    world.kill(1)
    assert world.engine.account(1) == (0, 0)
