"""Advisories about memory: that a guest cannot make the store hold much, and how deep it gets."""

from __future__ import annotations

import pytest
from stores import DAEMONS, EVERYBODY, EngineStore, Store, frame, home, on, owned, owner
from world import OK, Client, Msg, strings

MIB = 1 << 20

# --- 326: bounds for everything that a guest can make wait or grow


@on(*EVERYBODY)
def test_xsa_326_unread_replies_are_bounded(store: Store) -> None:
    """A guest that asks and does not read is not asked for more; what it asked is answered."""
    dom0, guest = store.socket(), owner(store, 1)
    assert guest.write(b"x", b"v" * 200) == OK
    before = store.footprint()
    request, sent, refused = frame(Msg.READ, b"x\0", req=3), 0, 0
    while refused < 20:
        taken = store.push(guest, request * 10)
        assert taken % len(request) == 0 or taken == 0
        sent += taken // len(request)
        refused = 0 if taken else refused + 1
        assert sent < 3000
        store.turn()
        assert dom0.write(b"/alive", b"") == OK
    assert store.footprint() - before < 4 * MIB
    answers: list[bytes] = []
    idle = 0
    while len(answers) < sent and idle < 400:
        came = [packet.payload for packet in store.got(guest)]
        answers += came
        idle = 0 if came else idle + 1
        if not came:
            store.turn()
    assert answers == [b"v" * 200] * sent
    assert guest.read(b"x") == b"v" * 200


@on("engine", "xsd", "c")  # not run against o
def test_xsa_326_unread_events_are_bounded(store: Store) -> None:
    """Events for a guest that does not read fill its quota and no more; nobody waits for it."""
    dom0, guest, other = store.socket(), owner(store, 1), owner(store, 2)
    assert dom0.mkdir(b"/shared") == OK
    assert dom0.setperms(b"/shared", b"r0") == OK
    for i in range(20):
        assert guest.watch(b"/shared", b"%d" % i) == OK
    before = store.footprint()
    for i in range(300):
        assert dom0.write(b"/shared/%03d/" % i + b"p" * 900, b"") == OK
    assert dom0.rm(b"/shared/000") == OK
    assert other.write(b"x", b"v") == OK
    # 6000 events of about a thousand bytes, of which a memory quota of 2.5 MiB is allowed.
    assert store.footprint() - before < 16 * MIB
    if isinstance(store, EngineStore):
        assert store.held(1) < 3 * MIB
    store.kill(1)
    assert other.write(b"x", b"w") == OK


@on(*EVERYBODY)
def test_xsa_326_transactions_are_bounded(store: Store) -> None:
    """So many may be open; ending one, whichever way, makes room for another."""
    guest = owner(store, 1)
    opened = []
    while isinstance(answer := guest.ask(Msg.TRANSACTION_START, b"\0"), bytes):
        opened.append(int(answer[:-1]))
        assert len(opened) <= store.manners.most_transactions
    assert (len(opened), answer) == (
        store.manners.most_transactions, store.manners.over_transactions,
    )  # fmt: skip
    for commit in (True, False):
        assert guest.end(opened.pop(), commit) == OK
        opened.append(guest.start())
    assert guest.ask(Msg.TRANSACTION_START, b"\0") == store.manners.over_transactions


@on(*EVERYBODY)
def test_xsa_326_what_a_transaction_looks_at_is_bounded(store: Store) -> None:
    """A thousand and some nodes; beyond that every request is refused, but giving up is not."""
    guest = owner(store, 1)
    before = store.footprint()
    tx = guest.start()
    answers = [guest.read(b"n%d" % i, tx) for i in range(1100)]
    assert store.manners.over_transactions in answers
    refused = answers.index(store.manners.over_transactions)
    assert set(answers[:refused]) == {"ENOENT"}
    assert 900 < refused <= 1024
    assert set(answers[refused:]) == {store.manners.over_transactions}
    guest.ask(Msg.RESET_WATCHES, b"\0")  # all of them can be got rid of by that
    assert guest.write(b"x", b"v") == OK
    assert store.footprint() - before < 4 * MIB


@on("engine", "xsd")  # where a single domain has a quota of memory that refuses requests
def test_xsa_326_nodes_times_transactions_are_bounded(store: Store) -> None:
    """As many big nodes as possible in as many transactions as possible: the memory quota bites."""
    dom0, guest = store.socket(), owner(store, 1)
    assert dom0.ask(Msg.SET_QUOTA, strings(b"1", b"memory", b"300000")) == OK
    before = store.footprint()
    opened = [guest.start() for _ in range(10)]
    answers = [
        guest.write(b"x%d" % i, b"v" * 1900, tx) for tx in opened for i in range(30)
    ]  # fmt: skip
    assert set(answers) == {OK, "ENOMEM"}
    assert answers.count(OK) * 1900 < 300_000
    if isinstance(store, EngineStore):
        assert store.footprint() - before < MIB
        assert store.held(1) < MIB
    for tx in opened:
        assert guest.end(tx, commit=False) == OK
    assert guest.write(b"x", b"v" * 1900) == OK
    assert store.nodes(1) == owned(dom0, 1) == 2


# --- 416: what a request needs for itself ends with it


def wide(dom0: Client) -> None:
    """A directory whose list nearly fills a reply, readable for domain 1."""
    for i in range(200):
        assert dom0.mkdir(b"/wide/a_rather_long%05d" % i) == OK
    assert dom0.setperms(b"/wide", b"n0", b"r1") == OK


@on("engine")
@pytest.mark.parametrize("fetched", [True, False])
def test_xsa_416_memory_of_a_request_ends_with_it(store: EngineStore, fetched: bool) -> None:
    """What the guest pays for is what it was before; unread replies alone are waiting."""
    dom0, guest = store.socket(), owner(store, 1)
    wide(dom0)
    assert guest.write(b"x", b"") == OK
    requests = [
        (Msg.DIRECTORY, b"/wide\0"), (Msg.GET_PERMS, b"/wide\0"), (Msg.READ, b"/wide/none\0"),
        (Msg.WRITE, b"x\0" + b"v" * 1500), (Msg.WRITE, b"a/b/c\0" + b"v" * 3000),
        (Msg.SET_PERMS, strings(b"x", b"n1", b"r2", b"r3")), (Msg.MKDIR, b"p/q/r/s\0"),
        (Msg.RM, b"p\0"), (Msg.WRITE, b"x\0"), (Msg.SET_PERMS, strings(b"x", b"n1")),
        (Msg.DIRECTORY_PART, strings(b"/wide", b"7")), (Msg.READ, b"//\0"),
        (Msg.DIRECTORY, b"/wide/" + b"y" * 2000 + b"\0"),
    ]  # fmt: skip
    for kind, payload in requests * 2:  # tables grow to their size, the domain's own is known
        guest.ask(kind, payload)
    store.footprint()
    held, nodes = store.held(1), store.nodes(1)
    for kind, payload in requests:
        guest.send(kind, payload, req=1)
        if not fetched:
            waiting = store.held(1) - held
            (reply,) = guest.drain()
            assert waiting <= 16 + len(reply.payload) + 4096
        else:
            guest.drain()
        assert store.held(1) == held, kind
    assert store.nodes(1) == nodes


@on(*DAEMONS)
def test_xsa_416_large_replies_leave_nothing_behind(store: Store) -> None:
    """A thousand of them, each of four kilobytes, do not make a daemon grow by as much."""
    dom0, guest = store.socket(), owner(store, 1)
    wide(dom0)
    listed = guest.ls(b"/wide")
    assert len(listed) == 200
    for _ in range(200):
        assert guest.ls(b"/wide") == listed
    before = store.footprint()
    for _ in range(1000):
        assert guest.ls(b"/wide") == listed
    assert store.footprint() - before < 2 * MIB


# --- 418: deep trees


@on(*EVERYBODY)
def test_xsa_418_deep_trees(store: Store) -> None:
    """A path of very many names is made, listed, committed and removed like any, and at a death."""
    dom0 = store.socket()
    depth = 990
    path = b"/".join([b"a"] * depth)
    whole = home(1) + b"/" + path
    for end in ("rm", "commit", "dom0", "death"):
        guest = owner(store, 1)
        assert guest.watch(b"a", b"t") == OK
        assert guest.write(path, b"deep") == OK
        assert guest.events() == [(path, b"t")]
        assert guest.read(path) == b"deep"
        assert store.nodes(1) == 1 + depth
        if end == "rm":
            assert owned(dom0, 1) == 1 + depth
        assert guest.setperms(path, b"n1", b"r0") == OK
        guest.events()
        store.check()
        if end == "rm":
            assert guest.rm(b"a") == OK
        elif end == "commit":
            tx = guest.start()
            assert guest.write(path + b"/b", b"deeper", tx) == OK
            assert guest.end(tx) == OK
            tx = guest.start()
            assert guest.read(path + b"/b", tx) == b"deeper"
            assert guest.rm(b"a", tx) == OK
            assert guest.end(tx) in (OK, store.manners.over_transactions)
        elif end == "dom0":
            assert dom0.rm(whole[: len(home(1)) + 2]) == OK
        if end in ("rm", "dom0"):
            assert (b"a", b"t") in guest.events()
            assert store.nodes(1) == 1
        store.kill(1)
        assert dom0.read(whole) == "ENOENT"
        assert dom0.read(home(1)) == "ENOENT"
        assert store.nodes(1) == 0
