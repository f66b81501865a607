"""Connections and domains: coming, going in whatever state, ids, targets."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from model_tree import RING, SOCKET
from world import OK, Client, EngineWorld, Msg, strings

from xsd.core import engine as core


def frame(kind: int, payload: bytes = b"", tx: int = 0, req: int = 0) -> bytes:
    return struct.pack("=4I", kind, req, tx, len(payload)) + payload


def cid_of(client: Client) -> int:
    link: Any = client.link
    cid: int = link.cid
    return cid


def owned_home(world: EngineWorld, domid: int) -> Client:
    """A guest that may write below its home."""
    guest, dom0 = world.guest(domid), world.socket()
    home = b"/local/domain/%d" % domid
    assert dom0.mkdir(home) == OK
    assert dom0.setperms(home, b"n%d" % domid) == OK
    world.close(dom0)
    return guest


# ---- ids ---------------------------------------------------------------------------------


def test_ids_are_used_again() -> None:
    """They stay small, so that tables by id do."""
    engine: Any = core.Engine()
    cids = [engine.open(0, SOCKET, 0) for _ in range(5)]
    assert sorted(cids) == list(range(5))
    engine.close(0, 3)
    engine.close(0, 1)
    assert {engine.open(0, SOCKET, 0), engine.open(0, SOCKET, 0)} == {1, 3}
    assert engine.open(0, SOCKET, 0) == 5


def test_unknown_ids_raise() -> None:
    """Of connections that have gone, too."""
    engine: Any = core.Engine()
    cid = engine.open(0, SOCKET, 0)
    engine.close(0, cid)
    acts: list[Callable[[], object]] = [
        lambda: engine.close(0, cid),
        lambda: engine.feed(0, cid, b""),
        lambda: engine.take(cid),
        lambda: engine.take(1 << 31),
    ]
    for act in acts:
        with pytest.raises(KeyError):
            act()
    with pytest.raises(ValueError, match="65536"):
        engine.open(0, SOCKET, 65536)


def test_an_answer_does_not_reach_who_inherited_the_id() -> None:
    """A connection closes while an effect is under way; another gets its id."""
    engine: Any = core.Engine()
    cid = engine.open(0, SOCKET, 0)
    engine.feed(0, cid, frame(Msg.CONTROL, b"print\0x\0", req=1))
    number, *_ = engine.next_effect()
    engine.close(0, cid)
    assert engine.open(0, SOCKET, 0) == cid
    engine.feed(0, cid, frame(Msg.CONTROL, b"print\0y\0", req=2))
    engine.complete(0, number, "", b"for the dead")
    assert engine.take(cid) == b""
    engine.complete(0, engine.next_effect()[0], "", b"mine")
    assert engine.take(cid)[16:] == b"mine"
    assert engine.next_runnable() == cid
    engine.check()


def test_an_effect_not_taken_yet_outlives_its_connection() -> None:
    """INTRODUCE goes on: the domain is introduced though nobody hears of it."""
    engine: Any = core.Engine()
    cid = engine.open(0, SOCKET, 0)
    engine.feed(0, cid, frame(Msg.INTRODUCE, b"3\x001\x007\0"))
    engine.close(0, cid)
    number, kind, conn, args = engine.next_effect()
    assert (kind, conn, args) == ("introduce", -1, (3, 1, 7))
    engine.complete(0, number)
    assert engine.domain_conn(3) >= 0
    engine.check()


# ---- closing in every state ----------------------------------------------------------------


def idle(_world: EngineWorld, _client: Client) -> None:
    pass


def half_read(world: EngineWorld, client: Client) -> None:
    world.engine.feed(0, cid_of(client), frame(Msg.READ, b"/tool\0")[:19])


def reply_half_sent(world: EngineWorld, client: Client) -> None:
    world.engine.feed(0, cid_of(client), frame(Msg.READ, b"/tool\0"))
    world.engine.take(cid_of(client), 9)


def in_transactions(_world: EngineWorld, client: Client) -> None:
    for i in range(5):
        tx = client.start()
        assert client.write(b"/t/%d" % i, b"v", tx) == OK


def watching(world: EngineWorld, client: Client) -> None:
    assert client.watch(b"/", b"a") == OK
    assert client.watch(b"/w", b"b") == OK
    other = world.socket()
    other.write(b"/w/x", b"")  # whose events wait
    other.rm(b"/w")
    world.close(other)


def waiting_for_control(world: EngineWorld, client: Client) -> None:
    data = frame(Msg.CONTROL, b"help\0") + frame(Msg.READ, b"/tool\0")
    world.engine.feed(0, cid_of(client), data)


def waiting_for_a_domain(world: EngineWorld, client: Client) -> None:
    payload = strings(b"/tool", b"n0", b"r77")
    world.engine.feed(0, cid_of(client), frame(Msg.SET_PERMS, payload))


def runnable(world: EngineWorld, client: Client) -> None:
    data = frame(Msg.READ, b"/tool\0") * 5
    assert world.engine.feed(0, cid_of(client), data, 1) & core.MORE


def starved(world: EngineWorld, client: Client) -> None:
    world.engine.fail_allocation(1)
    world.engine.feed(0, cid_of(client), frame(Msg.READ, b"/tool\0"))
    world.engine.fail_allocation(0)


def broken(world: EngineWorld, client: Client) -> None:
    data = struct.pack("=4I", 2, 0, 0, 4097)
    assert world.engine.feed(0, cid_of(client), data) & core.CLOSE


def not_reading(world: EngineWorld, client: Client) -> None:
    flags = 0
    while not flags & core.PAUSE:
        flags = world.engine.feed(0, cid_of(client), frame(Msg.DIRECTORY, b"/\0") * 60)


STATES: list[Callable[[EngineWorld, Client], None]] = [
    idle,
    half_read,
    reply_half_sent,
    in_transactions,
    watching,
    waiting_for_control,
    waiting_for_a_domain,
    runnable,
    starved,
    broken,
    not_reading,
]


@pytest.mark.parametrize("state", STATES)
def test_a_closed_connection_leaves_nothing(state: Callable[[EngineWorld, Client], None]) -> None:
    """Memory, lists, effects, watches, transactions: as before; others notice nothing."""
    world = EngineWorld()
    engine, other = world.engine, world.socket()
    before = (engine.account(0), engine.counts()[0]["nodes"])
    for _ in range(2):
        client = world.socket()
        state(world, client)
        engine.check()
        engine.close(0, cid_of(client))
        world.open_cids.discard(cid_of(client))
        world.settle()
        engine.tick(1 << 40)
        engine.check()
        assert (engine.account(0), engine.counts()[0]["nodes"]) == before
        assert engine.watches() == []
        assert engine.transactions() == []
        while (dirty := engine.next_dirty()) >= 0:
            assert dirty == cid_of(other)
        assert engine.next_runnable() == -1
    assert other.read(b"/tool") == b""


@pytest.mark.parametrize("state", STATES)
def test_a_guest_dies_in_every_state(state: Callable[[EngineWorld, Client], None]) -> None:
    """The same for a ring; then a new domain of the same id starts from nothing."""
    world = EngineWorld()
    engine, dom0 = world.engine, world.socket()
    guest = owned_home(world, 1)
    dom0.setperms(b"/", b"b0")
    if state not in (in_transactions, watching, broken):
        state(world, guest)
    elif state is in_transactions:
        for _ in range(5):
            guest.start()
    elif state is watching:
        guest.watch(b"/", b"a")
    else:
        engine.feed(0, cid_of(guest), struct.pack("=4I", 2, 0, 0, 4097))
    engine.check()
    world.kill(1)
    engine.check()
    assert engine.account(1) == (0, 0)
    assert 1 not in engine.counts()
    assert engine.domain_conn(1) == -1
    assert dom0.read(b"/local/domain/1") == "ENOENT"
    again = owned_home(world, 1)
    assert again.read(b"/local/domain/1") == b""
    assert again.start() == 1


def test_ten_thousand_connections_come_and_go() -> None:
    """One after the other and all at once; memory is as before."""
    engine: Any = core.Engine()
    request = frame(Msg.READ, b"/tool\0") + frame(Msg.WATCH, b"/\0t\0")
    before = engine.account(0)
    for _ in range(10_000):
        cid = engine.open(0, SOCKET, 0)
        engine.feed(0, cid, request)
        assert len(engine.take(cid)) > 16
        engine.close(0, cid)
    assert cid == 0
    cids = [engine.open(0, SOCKET, 0) for _ in range(10_000)]
    for cid in cids:
        engine.feed(0, cid, request)
    assert engine.counters()["watches"] == 10_000
    for cid in cids[::2] + cids[1::2]:
        engine.close(0, cid)
    assert engine.account(0) == before
    assert engine.next_dirty() == -1
    engine.check()


# ---- domains -------------------------------------------------------------------------------


def test_every_connection_of_a_domain_ends_with_it() -> None:
    """Also those that were opened for it without an INTRODUCE."""
    engine: Any = core.Engine()
    cid = engine.open(0, RING, 9)
    engine.feed(0, cid, frame(Msg.WATCH, b"/\0t\0"))
    engine.domain_died(0, 9)
    with pytest.raises(KeyError):
        engine.take(cid)
    assert engine.connections() == []
    engine.check()


def test_news_of_unknown_domains_are_no_news() -> None:
    """The hypervisor tells of domains that have never had anything to do with us."""
    engine: Any = core.Engine()
    before = engine.state_hash()
    for domid in (0, 1, 65535):
        engine.domain_died(0, domid)
        engine.domain_shutdown(0, domid)
    assert engine.state_hash() == before
    assert engine.next_effect() is None


def test_a_ring_that_breaks_the_protocol_is_ignored_until_introduced() -> None:
    """Its domain stays known; nothing it sends is looked at; INTRODUCE revives it."""
    world = EngineWorld()
    dom0, guest = world.socket(), owned_home(world, 1)
    assert guest.watch(b"x", b"t") == OK
    guest.start()
    flags = world.engine.feed(0, cid_of(guest), struct.pack("=4I", 2, 0, 0, 5000))
    assert not flags & core.CLOSE
    guest.send(Msg.READ, b"/tool\0")
    assert guest.drain() == []
    assert dom0.ask(Msg.IS_DOMAIN_INTRODUCED, b"1\0") == b"T\0"
    assert world.engine.watches() == []
    assert world.engine.transactions() == []
    assert dom0.ask(Msg.INTRODUCE, strings(b"1", b"1", b"7")) == OK
    assert guest.read(b"/local/domain/1") == b""
    world.check()


def test_a_failed_introduce_leaves_no_domain() -> None:
    """The reply is the host's error; the next attempt may succeed."""
    world = EngineWorld()
    dom0 = world.socket()
    assert dom0.ask(Msg.INTRODUCE, strings(b"4", b"1", b"7")) == "ENOENT"
    assert dom0.ask(Msg.IS_DOMAIN_INTRODUCED, b"4\0") == b"F\0"
    world.domains.add(4)
    assert dom0.ask(Msg.INTRODUCE, strings(b"4", b"1", b"7")) == OK
    assert world.engine.domain_conn(4) >= 0


def test_set_target_gives_the_rights_of_another_until_that_dies() -> None:
    """What is readable for the target is readable for it; never more than that."""
    world = EngineWorld()
    dom0, stub = world.socket(), world.guest(1)
    target = owned_home(world, 2)
    assert target.write(b"secret", b"s") == OK
    path = b"/local/domain/2/secret"
    assert stub.read(path) == "EACCES"
    assert dom0.ask(Msg.SET_TARGET, strings(b"1", b"2")) == OK
    assert stub.read(path) == b"s"
    assert stub.write(path, b"t") == OK
    assert stub.watch(path, b"w") == OK
    assert target.write(b"secret", b"u") == OK
    assert stub.events() == [(path, b"w")]
    # Privilege comes from one's own id, never from the target's.
    assert dom0.ask(Msg.SET_TARGET, strings(b"1", b"0")) == OK
    assert stub.ask(Msg.CONTROL, b"help\0") == "EACCES"
    assert stub.read(path) == "EACCES"
    assert dom0.ask(Msg.SET_TARGET, strings(b"1", b"2")) == OK
    world.kill(2)
    owned_home(world, 2)
    dom0.write(path, b"new")
    dom0.setperms(path, b"n2")
    assert stub.read(path) == "EACCES"  # a later domain of the same id is not its target
    world.check()


def test_features_are_set_before_introduction() -> None:
    """EBUSY afterwards; unknown bits are EINVAL; one's own need no domid."""
    world = EngineWorld()
    dom0 = world.socket()
    world.domains.add(1)
    assert dom0.ask(Msg.GET_FEATURE, b"") == b"15\0"
    assert dom0.ask(Msg.SET_FEATURE, strings(b"1", b"1")) == OK
    assert dom0.ask(Msg.SET_FEATURE, strings(b"1", b"16")) == "EINVAL"
    assert dom0.ask(Msg.SET_FEATURE, strings(b"1", b"-1")) == "EINVAL"
    assert dom0.ask(Msg.GET_FEATURE, strings(b"1")) == b"1\0"
    assert dom0.ask(Msg.GET_FEATURE, strings(b"2")) == "ENOENT"
    guest = world.guest(1)
    assert guest.ask(Msg.GET_FEATURE, b"") == b"1\0"
    assert guest.ask(Msg.GET_FEATURE, strings(b"1")) == "EACCES"
    assert dom0.ask(Msg.SET_FEATURE, strings(b"1", b"15")) == "EBUSY"


def test_transaction_ids_are_counted_per_connection() -> None:
    """Each starts at one, and an id in use is skipped."""
    world = EngineWorld()
    first, second = world.socket(), world.socket()
    assert [first.start(), first.start(), second.start()] == [1, 2, 1]
    assert first.end(1) == OK
    assert first.start() == 3
    assert first.read(b"/tool", 1) == "ENOENT"
    assert second.read(b"/tool", 3) == "ENOENT"


def test_transaction_ids_wrap_around() -> None:
    """After 2^32 - 1 comes 1, never 0, which means no transaction; what is open is skipped."""
    world = EngineWorld()
    client = world.socket()
    assert [client.start(), client.start()] == [1, 2]
    assert client.end(1) == OK
    world.engine.set_last_transaction(cid_of(client), 0xFFFFFFFD)
    assert [client.start() for _ in range(4)] == [0xFFFFFFFE, 0xFFFFFFFF, 1, 3]
    assert client.write(b"/t", b"v", 0xFFFFFFFF) == OK
    assert client.end(0xFFFFFFFF) == OK
    assert client.read(b"/t") == b"v"


@pytest.mark.parametrize("how", ["commit", "abort", "close"])
def test_nothing_is_kept_of_a_domain_that_a_transaction_outlives(how: str) -> None:
    """It removes a node whose owner has died: at its end that domain is unknown again."""
    world = EngineWorld()
    dom0, other = world.socket(), world.socket()

    def known() -> int:
        count: int = world.engine.counters()["domains"]
        return count

    before = known()
    world.guest(4)
    assert (dom0.write(b"/a/b", b""), dom0.setperms(b"/a/b", b"n4")) == (OK, OK)
    tx = dom0.start()
    if how == "commit":  # the change is counted before the death, else after it
        assert dom0.rm(b"/a/b", tx) == OK
        world.kill(4)
        assert dom0.end(tx) == OK
    else:
        world.kill(4)
        assert dom0.rm(b"/a/b", tx) == OK
        assert other.read(b"/a/b") == "ENOENT"
        assert known() == before + 1
        if how == "abort":
            assert dom0.end(tx, commit=False) == OK
        else:
            world.close(dom0)
    world.engine.check()
    assert known() == before
