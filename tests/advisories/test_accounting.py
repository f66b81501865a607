"""Advisories about what is counted for a domain: that it is, that it ends, that nothing is lost."""

from __future__ import annotations

import pytest
from stores import EVERYBODY, EngineStore, Store, fill, home, on, owned, owner, walk
from world import OK, Client, Msg, strings

MOST = 1000


def settled(store: Store, dom0: Client, *domids: int) -> None:
    """Asserts that what is counted is what is there, and that all that is there is listed."""
    for domid in domids:
        assert store.nodes(domid) == owned(dom0, domid)
    store.check()


# --- 272: the number of nodes


@on(*EVERYBODY)
@pytest.mark.parametrize("in_transaction", [False, True])
def test_xsa_272_the_quota_of_nodes_really_bites(store: Store, in_transaction: bool) -> None:
    """A guest has a thousand nodes, its home among them, and not one more, in any way."""
    dom0, guest = store.socket(), owner(store, 1)
    made, why = fill(guest)
    assert (1 + made, why) == (MOST, store.manners.over_nodes)
    tx = guest.start() if in_transaction else 0
    for kind in (Msg.WRITE, Msg.MKDIR):
        for path in (b"more", b"fill0/more", b"a/b/c"):
            assert guest.ask(kind, path + b"\0", tx) == store.manners.over_nodes
    # What is there can be changed and removed, and room that was made is room.
    assert guest.write(b"fill0/1", b"v") == OK
    assert guest.rm(b"fill1/1") == OK
    if in_transaction:
        guest.end(tx, commit=False)
    assert guest.mkdir(b"instead") == OK
    assert guest.mkdir(b"more") == store.manners.over_nodes
    settled(store, dom0, 1)
    assert store.nodes(1) == MOST


@on(*EVERYBODY)
def test_xsa_272_the_quota_bites_at_the_commit(store: Store) -> None:
    """What a transaction made before the room was gone does not become more than the quota."""
    dom0, guest = store.socket(), owner(store, 1)
    made, _ = fill(guest)
    for i in range(3):
        assert guest.rm(b"fill0/%d" % (i + 1)) == OK
    tx = guest.start()
    for i in range(3):
        assert guest.mkdir(b"in%d" % i, tx) == OK
    for i in range(3):
        assert guest.mkdir(b"out%d" % i) == OK
    assert guest.end(tx) in (store.manners.over_nodes, "EAGAIN")
    settled(store, dom0, 1)
    assert store.nodes(1) == 1 + made == MOST


# --- 323: a length that is tested before the path has its prefix


@on(*EVERYBODY)
def test_xsa_323_what_can_be_made_can_be_reached(store: Store) -> None:
    """However long a relative path may be: it can be read, listed and removed by its whole path."""
    dom0, guest = store.socket(), owner(store, 1)
    longest = 2048

    def path_of(size: int) -> bytes:
        return (b"abcdefg/" * 400)[:size].rstrip(b"/").ljust(size, b"x")

    for size in (longest - 30, *range(longest - 9, longest + 10), longest + 500, 3000):
        path = path_of(size)
        answer = guest.write(path, b"v")
        assert answer == (OK if size <= longest else "EINVAL"), size
        if answer == OK:
            whole = home(1) + b"/" + path
            assert guest.read(whole) == b"v"
            assert dom0.read(whole) == b"v"
            assert any(found == whole for found, _ in walk(dom0, home(1)))
            assert guest.getperms(whole) == [b"n1"]
            assert guest.rm(whole) == OK
            assert guest.read(path) == "ENOENT"
        assert guest.rm(path[:7]) == OK
    settled(store, dom0, 1)
    assert store.nodes(1) == 1


# --- 354: what a guest keeps in the store is bounded, as others copy all of it


@on(*EVERYBODY)
def test_xsa_354_values_are_bounded(store: Store) -> None:
    """A value beyond the quota is refused, and the one before it stays."""
    dom0, guest = store.socket(), owner(store, 1)
    assert guest.write(b"x", b"v" * 2000) == OK
    tx = guest.start()
    for size in (2049, 3000, 4000):
        assert guest.write(b"x", b"w" * size) == store.manners.too_big
        assert guest.write(b"x", b"w" * size, tx) == store.manners.too_big
        assert guest.write(b"new", b"w" * size) == store.manners.too_big
    guest.end(tx, commit=False)
    assert guest.read(b"x") == b"v" * 2000
    assert guest.read(b"new") == "ENOENT"
    settled(store, dom0, 1)


@on("engine", "xsd")  # the others of this age have no quotas of single domains
def test_xsa_354_the_bounds_are_the_toolstacks_to_choose(store: Store) -> None:
    """A lower quota of one domain holds for what it does next, and for no other domain."""
    dom0, guest, other = store.socket(), owner(store, 1), owner(store, 2)
    for name, value in ((b"nodes", b"10"), (b"node-size", b"200"), (b"path-max", b"50")):
        assert dom0.ask(Msg.SET_QUOTA, strings(b"1", name, value)) == OK
    for one, bounded in ((guest, True), (other, False)):
        assert one.write(b"big", b"v" * 300) == ("ENOSPC" if bounded else OK)
        assert one.mkdir(b"l" * 60) == ("EINVAL" if bounded else OK)
        answers = [one.mkdir(b"n%d" % i) for i in range(20)]
        assert answers.count(OK) == (9 if bounded else 20)
    assert store.nodes(1) == 10


# --- 414: taking back at once what was made, when the rest cannot be made


@on(*EVERYBODY)
@pytest.mark.parametrize("in_transaction", [False, True])
def test_xsa_414_a_failed_creation_is_undone_at_once(store: Store, in_transaction: bool) -> None:
    """Of a path that cannot be made to its end nothing is there, for whoever asks next."""
    dom0, guest = store.socket(), owner(store, 1)
    fill(guest)
    for i in range(4):
        assert guest.rm(b"fill0/%d" % (i + 1)) == OK  # room for four of the five
    before = store.nodes(1)
    names = dom0.ls(home(1))
    for i in range(10):
        tx = guest.start() if in_transaction else 0
        answer = guest.write(b"a/b/c/d/e%d" % i, b"v", tx)
        if in_transaction and store.manners.counts_at_commit:
            assert answer == OK
            assert guest.end(tx) == store.manners.over_nodes
        else:
            assert answer == store.manners.over_nodes
            assert guest.read(b"a/b/c/d/e%d" % i, tx) in ("ENOENT", "ENOSPC")
            assert dom0.ls(home(1) + b"/fill1") != []
        if in_transaction:
            guest.end(tx, commit=False)
        elif store.manners.keeps_ancestors:
            assert guest.rm(b"a") == OK
        assert dom0.ls(home(1)) == names
        assert store.nodes(1) == before
    settled(store, dom0, 1)


@on("engine")  # where memory can be made to run out
@pytest.mark.parametrize("in_transaction", [False, True])
def test_xsa_414_a_creation_without_memory_is_undone_at_once(
    store: EngineStore, in_transaction: bool
) -> None:
    """Wherever memory runs out while a path is made, all of it is there or nothing."""
    dom0, guest = store.socket(), owner(store, 1)
    engine = store.world.engine
    answers = []
    for nth in range(1, 200):
        tx = guest.start() if in_transaction else 0
        engine.fail_allocation(nth)
        guest.send(Msg.WRITE, b"a/b/c/d\0v", tx, 5)
        calls_left = guest.drain()
        engine.fail_allocation(0)
        store.world.advance(1)
        (reply,) = calls_left or guest.drain()
        answers.append(reply.payload)
        done = reply.payload == OK
        assert guest.read(b"a/b/c/d", tx) == (b"v" if done else "ENOENT")
        assert guest.read(b"a", tx) == (b"" if done else "ENOENT")
        if in_transaction:
            assert guest.end(tx, commit=False) == OK
        else:
            assert guest.rm(b"a") == OK
        settled(store, dom0, 1)
        if answers[-3:] == [OK] * 3:
            break
    assert b"ENOMEM\0" in answers


# --- 415: a failed creation in a transaction leaves no orphans


@on(*EVERYBODY)
@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("why", ["size", "nodes"])
def test_xsa_415_a_failed_creation_leaves_no_orphans(store: Store, why: str, commit: bool) -> None:
    """A transaction in which making a node failed commits the rest or nothing, never a part."""
    dom0, guest = store.socket(), owner(store, 1)
    if why == "nodes":
        fill(guest)
        for i in range(4):
            assert guest.rm(b"fill0/%d" % (i + 1)) == OK
    before = store.nodes(1)
    for i in range(5):
        tx = guest.start()
        assert guest.write(b"good", b"v", tx) == OK
        late = why == "nodes" and store.manners.counts_at_commit
        if late:
            assert guest.write(b"a/b/c/d/e", b"v", tx) == OK
        elif why == "nodes":
            assert guest.write(b"a/b/c/d/e", b"v", tx) == store.manners.over_nodes
        else:
            assert guest.write(b"a/b/c/d/e", b"v" * 3000, tx) == store.manners.too_big
        answer = guest.end(tx, commit)
        if not commit:
            assert answer == OK
        assert answer in (OK, "ENOMEM", "ENOSPC", "EQUOTA")
        assert not (commit and late and answer == OK)
        there = commit and answer == OK
        assert guest.read(b"good") == (b"v" if there else "ENOENT")
        assert guest.read(b"a/b/c/d/e") == "ENOENT"
        settled(store, dom0, 1)
        for name in (b"good", b"a"):
            assert guest.rm(name) == OK
        assert store.nodes(1) == before, i


# --- 419: what a dead domain owned goes with it


@on(*EVERYBODY)
@pytest.mark.parametrize("released", [False, True])
def test_xsa_419_nodes_of_dead_domains_do_not_become_dom0s(store: Store, released: bool) -> None:
    """Wherever they are they go, with what is below; those of others stay; nobody else pays."""
    dom0, guest, other = store.socket(), owner(store, 1), owner(store, 2)
    for path, who in ((b"/s/one", b"b1"), (b"/s/two", b"n2")):
        assert dom0.mkdir(path) == OK
        assert dom0.setperms(path, who) == OK
    before = store.nodes(0)
    made, _ = fill(guest)
    assert guest.mkdir(b"/s/one/more") == store.manners.over_nodes
    assert guest.rm(b"fill0") == OK
    assert guest.mkdir(b"/s/one/deep/er") == OK
    assert store.nodes(0) == before
    if released:
        assert dom0.ask(Msg.RELEASE, b"1\0") == OK
        assert store.nodes(1) == 0
    store.kill(1)
    assert store.nodes(1) == 0
    assert b"1" not in {who for _, who in walk(dom0)}
    assert dom0.ls(b"/s") == [b"two"]
    assert other.read(b"/s/two") == b""
    assert store.nodes(0) == before
    assert store.nodes(2) == owned(dom0, 2) == 2
    assert made > 900
    store.check()


@on("engine", "xsd", "c")  # not run against o
def test_xsa_419_what_is_below_goes_too_and_its_owner_pays_no_more(store: Store) -> None:
    """A node of somebody else below that of a dead domain is removed, and counted no more."""
    dom0 = store.socket()
    owner(store, 1)
    owner(store, 2)
    for path, who in ((b"/s/one", b"b1"), (b"/s/one/two", b"n2")):
        assert dom0.mkdir(path) == OK
        assert dom0.setperms(path, who) == OK
    settled(store, dom0, 1, 2)
    store.kill(1)
    assert dom0.ls(b"/s") == []
    settled(store, dom0, 1, 2)
    assert store.nodes(2) == 1


# --- 421: making and removing a node in one transaction


@on(*EVERYBODY)
def test_xsa_421_create_and_delete_in_one_transaction(store: Store) -> None:
    """The commit does all of the rest, and what is counted afterwards is what is there."""
    dom0, guest = store.socket(), owner(store, 1)
    assert guest.write(b"old/x", b"v") == OK
    assert guest.write(b"last", b"v") == OK
    for i in range(20):
        tx = guest.start()
        assert guest.write(b"first", b"%d" % i, tx) == OK
        assert guest.write(b"brief/a/b", b"v", tx) == OK
        assert guest.rm(b"brief", tx) == OK
        assert guest.rm(b"old", tx) == OK
        assert guest.write(b"old/y%d" % i, b"v", tx) == OK
        assert guest.write(b"again", b"v", tx) == OK
        assert guest.rm(b"again", tx) == OK
        assert guest.write(b"again", b"w%d" % i, tx) == OK
        assert guest.write(b"last", b"%d" % i, tx) == OK
        assert guest.end(tx) == OK
        assert [guest.read(name) for name in (b"first", b"again", b"last")] == [
            b"%d" % i, b"w%d" % i, b"%d" % i,
        ]  # fmt: skip
        assert guest.ls(b"old") == [b"y%d" % i]
        assert guest.read(b"brief") == "ENOENT"
        assert store.nodes(1) == 6
    settled(store, dom0, 1)


@on(*EVERYBODY)
def test_xsa_421_what_was_undone_in_a_transaction_is_not_charged(store: Store) -> None:
    """It neither makes the count grow until the quota is reached, nor shrink."""
    dom0, guest = store.socket(), owner(store, 1)
    made, _ = fill(guest)
    assert guest.rm(b"fill0") == OK
    before = store.nodes(1)
    for _ in range(10):
        tx = guest.start()
        for name in range(15):
            assert guest.mkdir(b"tmp/%d" % name, tx) == OK
        assert guest.rm(b"tmp", tx) == OK
        assert guest.write(b"fill1/1", b"v", tx) == OK
        assert guest.end(tx) == OK
        assert store.nodes(1) == before
    assert fill(guest, b"new") == (1 + made - before, store.manners.over_nodes)
    settled(store, dom0, 1)


# --- 440: counts that are negative in between


@on(*EVERYBODY)
@pytest.mark.parametrize("outside", ["guest", "dom0"])
def test_xsa_440_nodes_removed_inside_and_outside(store: Store, outside: str) -> None:
    """A transaction that removes what has gone meanwhile ends with an answer and right counts."""
    dom0, guest = store.socket(), owner(store, 1)
    for _ in range(5):
        for i in range(30):
            assert guest.mkdir(b"x/%d" % i) == OK
        tx = guest.start()
        assert guest.rm(b"x", tx) == OK
        assert guest.write(b"y", b"v", tx) == OK
        assert (guest.rm(b"x") if outside == "guest" else dom0.rm(home(1) + b"/x")) == OK
        assert guest.write(b"z", b"v", tx) == OK
        answer = guest.end(tx)
        assert answer in (OK, "EAGAIN")
        assert guest.read(b"y") == (b"v" if answer == OK else "ENOENT")
        settled(store, dom0, 1)
        for name in (b"x", b"y", b"z"):
            assert guest.rm(name) == OK
        assert store.nodes(1) == 1


@on(*EVERYBODY)
def test_xsa_440_a_domain_dies_while_its_nodes_are_in_transactions(store: Store) -> None:
    """Somebody else's transaction that removed or made nodes of it ends, and counts are right."""
    dom0 = store.socket()
    assert dom0.mkdir(home(0)) == OK
    before = store.nodes(0)
    for _ in range(3):
        guest = owner(store, 1)
        for i in range(30):
            assert guest.mkdir(b"x/%d" % i) == OK
        removing, making = dom0.start(), dom0.start()
        assert dom0.rm(home(1) + b"/x", removing) == OK
        assert dom0.write(home(1) + b"/x/new", b"v", making) == OK
        store.kill(1)
        # Not all of them see a mere conflict in it, but neither is ever committed by half.
        for tx in (removing, making):
            assert dom0.end(tx) in (OK, "EAGAIN", "ENOMEM")
        assert dom0.rm(home(1)) == OK
        assert (store.nodes(0), store.nodes(1)) == (before, 0)
        store.check()


# --- 483: counts end with the domain


@on(*EVERYBODY)
@pytest.mark.parametrize("released", [False, True])
def test_xsa_483_counts_are_not_inherited(store: Store, released: bool) -> None:
    """Each domain of an id may have as much as the first one."""
    dom0 = store.socket()
    for _ in range(3):
        guest = owner(store, 1)
        assert store.nodes(1) == 1
        made, why = fill(guest)
        assert (1 + made, why) == (MOST, store.manners.over_nodes)
        watches = [guest.watch(b"w", b"%d" % i) for i in range(150)].count(OK)
        assert watches == store.manners.most_watches
        opened = sum(isinstance(guest.ask(Msg.TRANSACTION_START, b"\0"), bytes) for _ in range(15))
        assert opened == store.manners.most_transactions
        if released:
            assert dom0.ask(Msg.RELEASE, b"1\0") == OK
        store.kill(1)
        assert store.nodes(1) == 0
