"""Advisories about who may see, change and give away what."""

from __future__ import annotations

import pytest
from stores import EVERYBODY, SPECIAL, Store, fill, home, on, owned, owner
from world import OK, Msg, strings

# --- 115: watch events without a look at permissions


@on(*EVERYBODY)
def test_xsa_115_events_are_for_those_who_may_read(store: Store) -> None:
    """The node or its parent must be readable, before or after the change, for an event."""
    dom0, guest = store.socket(), owner(store, 1)
    assert dom0.write(b"/top/x", b"") == OK
    assert guest.watch(b"/top", b"t") == OK
    assert guest.watch(b"/top/x", b"x") == OK

    assert dom0.write(b"/top/x", b"secret") == OK
    assert dom0.mkdir(b"/top/y") == OK
    assert dom0.rm(b"/top/y") == OK
    assert guest.events() == []

    both = [(b"/top/x", b"t"), (b"/top/x", b"x")]
    assert dom0.setperms(b"/top/x", b"n0", b"r1") == OK
    assert sorted(guest.events()) == both
    assert dom0.write(b"/top/x", b"shared") == OK
    assert sorted(guest.events()) == both
    assert dom0.setperms(b"/top/x", b"n0") == OK  # it may know that it lost the right
    assert sorted(guest.events()) == both
    assert dom0.write(b"/top/x", b"secret") == OK
    assert guest.events() == []

    assert dom0.setperms(b"/top", b"n0", b"r1") == OK
    assert guest.events() == [(b"/top", b"t")]
    assert dom0.write(b"/top/x", b"of a readable parent") == OK
    assert sorted(guest.events()) == both
    assert dom0.rm(b"/top/x") == OK
    assert sorted(guest.events()) == both
    assert guest.read(b"/top/x") in ("EACCES", "ENOENT")


@on(*EVERYBODY)
def test_xsa_115_events_of_a_commit_are_for_those_who_may_read(store: Store) -> None:
    """A transaction tells each guest of the nodes it may read, and of no other."""
    dom0, guest = store.socket(), owner(store, 1)
    for name in (b"open", b"closed"):
        assert dom0.write(b"/top/" + name, b"") == OK
    assert dom0.setperms(b"/top/open", b"n0", b"r1") == OK
    assert guest.watch(b"/top", b"t") == OK
    tx = dom0.start()
    for name in (b"open", b"closed", b"new"):
        assert dom0.write(b"/top/" + name, b"v", tx) == OK
    assert dom0.end(tx) == OK
    assert guest.events() == [(b"/top/open", b"t")]


@on(*EVERYBODY)
@pytest.mark.parametrize("watched", [b"domid", b"/", b"/local/domain/2"])
def test_xsa_115_guests_do_not_hear_of_each_other(store: Store, watched: bytes) -> None:
    """Whatever a guest watches, what happens in another's home is not told to it."""
    one, two = owner(store, 1), owner(store, 2)
    assert one.watch(watched, b"t") == OK
    for _ in range(3):
        assert two.write(b"state", b"4") == OK
        assert two.setperms(b"state", b"n2", b"r0") == OK
        assert two.rm(b"state") == OK
    assert one.events() == []


@on(*EVERYBODY)
@pytest.mark.parametrize("commit", [True, False])
def test_xsa_115_watches_do_not_depend_on_transactions(store: Store, commit: bool) -> None:
    """WATCH and UNWATCH act at once, whatever transaction id comes with them."""
    guest = owner(store, 1)

    def ask(kind: int, token: bytes, tx: int) -> bytes:
        # The transaction id of the reply is not looked at: not all repeat it.
        guest.collect()
        guest.send(kind, strings(b"x", token), tx, 5)
        (reply,) = [packet for packet in guest.drain() if packet.type != Msg.WATCH_EVENT]
        assert (reply.type, reply.req_id) == (kind, 5)
        return reply.payload

    tx = guest.start()
    assert ask(Msg.WATCH, b"in", tx) == OK
    assert ask(Msg.WATCH, b"none", tx + 7) == OK
    assert guest.end(tx, commit) == OK
    guest.events()
    assert guest.write(b"x", b"1") == OK
    assert sorted(guest.events()) == [(b"x", b"in"), (b"x", b"none")]
    tx = guest.start()
    assert ask(Msg.UNWATCH, b"in", tx) == OK
    assert ask(Msg.UNWATCH, b"none", tx + 7) == OK
    assert guest.end(tx, commit) == OK
    assert guest.write(b"x", b"2") == OK
    assert guest.events() == []
    assert guest.unwatch(b"x", b"in") == "ENOENT"


@on(*EVERYBODY)
def test_xsa_115_what_is_the_toolstacks_is_refused_to_guests(store: Store) -> None:
    """Nobody but the toolstack may ask who is introduced, or introduce, or release."""
    dom0, guest = store.socket(), owner(store, 1)
    owner(store, 2)
    for kind in (Msg.IS_DOMAIN_INTRODUCED, Msg.RELEASE, Msg.RESUME):
        for domid in (b"0\0", b"1\0", b"2\0", b"3\0"):
            assert guest.ask(kind, domid) == "EACCES"
    assert guest.ask(Msg.INTRODUCE, strings(b"1", b"1", b"7")) == "EACCES"
    assert guest.ask(Msg.SET_TARGET, strings(b"1", b"2")) == "EACCES"
    assert dom0.ask(Msg.IS_DOMAIN_INTRODUCED, b"2\0") == b"T\0"


@on(*EVERYBODY)
def test_xsa_115_special_watches_ask_for_permission(store: Store) -> None:
    """A guest hears of other domains coming and going only as far as dom0 permits."""
    dom0, guest = store.socket(), owner(store, 1)
    for path in SPECIAL:
        assert guest.watch(path, b"g") == OK
        assert dom0.watch(path, b"0") == OK

    def life() -> list[bytes]:
        store.guest(2)
        store.kill(2)
        assert set(dom0.events()) == {(path, b"0") for path in SPECIAL}
        return sorted(path for path, _ in guest.events())

    # All but one refuse both at first; ours lets everybody hear of a release.
    assert life() == ([SPECIAL[1]] if store.manners.sees_releases else [])
    for path in SPECIAL:
        assert dom0.setperms(path, b"n0", b"r1") == OK
    guest.events()
    assert life() == list(SPECIAL)
    for path in SPECIAL:
        assert dom0.setperms(path, b"n0") == OK
    guest.events()
    assert life() == []


@on("engine", "xsd", "o")  # not run against c
def test_xsa_115_special_nodes_are_not_the_guests_to_open(store: Store) -> None:
    """A guest cannot give itself the right to hear of other domains."""
    guest = owner(store, 1)
    for path in SPECIAL:
        assert guest.watch(path, b"g") == OK
        for perms in ([b"n1"], [b"r0"], [b"n0", b"r1"]):
            assert guest.setperms(path, *perms) in ("EACCES", store.manners.give_away)
    store.guest(2)
    assert guest.events() == []


@on(*EVERYBODY)
def test_xsa_115_what_was_not_made_is_not_charged(store: Store) -> None:
    """After making nodes has failed, in whatever depth, the guest's count is what it was."""
    guest = owner(store, 1)
    before = store.nodes(1)
    for depth in (1, 2, 5):
        path = b"/".join([b"d"] * depth)
        assert guest.write(path, b"v" * 3000) == store.manners.too_big
        if store.manners.keeps_ancestors:
            assert guest.rm(b"d") == OK
        assert store.nodes(1) == before
    made, why = fill(guest)
    assert (before + made, why) == (1000, store.manners.over_nodes)
    assert guest.write(b"e/f/g", b"v") == store.manners.over_nodes
    assert guest.read(b"e/f/g") == "ENOENT"
    assert store.nodes(1) == owned(store.socket(), 1) == 1000


# --- 322: what was given to a domain is not for the next one of its id


@on(*EVERYBODY)
@pytest.mark.parametrize("released", [False, True])
def test_xsa_322_a_reused_domid_inherits_nothing(store: Store, released: bool) -> None:
    """Neither entries of other nodes nor of special nodes, nor nodes that it owned."""
    dom0, guest = store.socket(), owner(store, 1)
    for name, *perms in [
        (b"/r", b"n0", b"r1"), (b"/w", b"n0", b"w1"), (b"/b", b"n0", b"r0", b"b1"),
        (b"/own", b"b1"),
    ]:  # fmt: skip
        assert dom0.write(name, b"v") == OK
        assert dom0.setperms(name, *perms) == OK
    for path in SPECIAL:
        assert dom0.setperms(path, b"n0", b"r1") == OK
    assert [guest.read(b"/r"), guest.read(b"/b"), guest.read(b"/own")] == [b"v", b"v", b"v"]
    assert guest.write(b"/w", b"w") == OK
    if released:
        assert dom0.ask(Msg.RELEASE, b"1\0") == OK
    store.kill(1)
    assert dom0.read(b"/own") == "ENOENT"
    assert dom0.read(home(1)) == "ENOENT"

    guest = owner(store, 1)
    assert [guest.read(path) for path in (b"/r", b"/b")] == ["EACCES"] * 2
    assert [guest.write(path, b"x") for path in (b"/r", b"/w", b"/b")] == ["EACCES"] * 3
    for path in (*SPECIAL, b"/r", b"/b"):
        assert guest.watch(path, b"t") == OK
    store.guest(2)
    store.kill(2)
    for path in (b"/r", b"/w", b"/b"):
        assert dom0.write(path, b"new") == OK
    assert guest.events() == []
    # A node that is written later, and had the old entry, has not become readable by that.
    assert [guest.read(path) for path in (b"/r", b"/b")] == ["EACCES"] * 2
    assert dom0.setperms(b"/r", b"n0", b"r1") == OK
    assert guest.read(b"/r") == b"new"


# --- 352: nodes are not to be given away


@on(*EVERYBODY)
def test_xsa_352_an_owner_cannot_give_its_nodes_away(store: Store) -> None:
    """Only the toolstack changes who is charged for a node, in transactions as outside."""
    dom0, guest = store.socket(), owner(store, 1)
    owner(store, 2)
    assert guest.write(b"x", b"v") == OK
    counts = [store.nodes(domid) for domid in (0, 1, 2)]
    for entry in (b"n0", b"b0", b"n2", b"w2"):
        assert guest.setperms(b"x", entry) == store.manners.give_away
        assert guest.setperms(b"x", entry, b"b1") == store.manners.give_away
        tx = guest.start()
        assert guest.setperms(b"x", entry, b"b1", tx=tx) == store.manners.give_away
        guest.end(tx, commit=False)
        assert guest.getperms(b"x") == [b"n1"]
    assert [store.nodes(domid) for domid in (0, 1, 2)] == counts
    assert guest.setperms(b"x", b"r1", b"w2") == OK
    assert dom0.setperms(home(1) + b"/x", b"n2", b"b1") == OK
    assert [store.nodes(domid) for domid in (1, 2)] == [counts[1] - 1, counts[2] + 1]
    assert guest.setperms(b"x", b"n1") == "EACCES"


# --- 353: the root is a node like others


@on(*EVERYBODY)
def test_xsa_353_the_root_is_no_special_case(store: Store) -> None:
    """A guest may neither look at the root, nor change, own or empty it."""
    dom0, guest = store.socket(), owner(store, 1)
    assert dom0.write(b"/keep", b"k") == OK
    assert dom0.watch(b"/", b"t") == OK
    before = (dom0.ls(b"/"), dom0.getperms(b"/"), dom0.read(b"/"))
    tx = guest.start()
    for tx_id in (0, tx):
        assert guest.read(b"/", tx_id) == "EACCES"
        assert guest.ls(b"/", tx_id) == "EACCES"
        assert guest.getperms(b"/", tx_id) == "EACCES"
        assert guest.write(b"/", b"v", tx_id) == "EACCES"
        assert guest.mkdir(b"/new", tx_id) == "EACCES"
        assert guest.setperms(b"/", b"n1", tx=tx_id) == "EACCES"
        assert guest.setperms(b"/", b"b0", b"b1", tx=tx_id) == "EACCES"
        assert guest.rm(b"/", tx_id) in ("EACCES", "EINVAL")
        assert guest.rm(b"/keep", tx_id) == "EACCES"
    assert guest.end(tx) == OK
    assert dom0.events() == []
    assert (dom0.ls(b"/"), dom0.getperms(b"/"), dom0.read(b"/")) == before
    # What dom0 permits holds for the root as well.
    assert dom0.setperms(b"/", b"r0") == OK
    assert guest.read(b"/") == b""
    assert guest.write(b"/", b"v") == "EACCES"
    assert dom0.setperms(b"/", b"n0") == OK
    assert guest.read(b"/") == "EACCES"


# --- 417: an entry is valid only for a domain that is known to be the one meant


@on("engine", "xsd", "c")  # not run against o
def test_xsa_417_entries_for_domains_to_come_are_not_valid(store: Store) -> None:
    """What is given to a domid that nobody has yet is not for who gets it."""
    dom0 = store.socket()
    assert dom0.write(b"/x", b"v") == OK
    assert dom0.setperms(b"/x", b"n0", b"r5", b"b6") == OK
    assert dom0.write(b"/y", b"v") == OK
    assert dom0.setperms(b"/y", b"n5") == "ENOENT"
    guests = [owner(store, 5), owner(store, 6)]
    assert [guest.read(b"/x") for guest in guests] == ["EACCES"] * 2
    assert dom0.write(b"/x", b"w") == OK
    assert [guest.read(b"/x") for guest in guests] == ["EACCES"] * 2
    assert guests[1].write(b"/x", b"") == "EACCES"
    assert dom0.setperms(b"/x", b"n0", b"r5") == OK
    assert [guest.read(b"/x") for guest in guests] == [b"w", "EACCES"]


@on("engine", "xsd")  # not run against c and o
def test_xsa_417_entries_for_domains_without_a_connection_end_with_them(store: Store) -> None:
    """A domain that dies before it was introduced leaves no rights to the next of its id."""
    dom0 = store.socket()
    store.create(5)
    assert dom0.write(b"/x", b"v") == OK
    assert dom0.setperms(b"/x", b"n0", b"r5") == OK
    assert store.guest(5).read(b"/x") == b"v"
    store.kill(5)
    store.create(5)
    assert dom0.write(b"/y", b"v") == OK
    assert dom0.setperms(b"/y", b"n0", b"r5") == OK
    store.kill(5)
    guest = store.guest(5)
    assert [guest.read(b"/x"), guest.read(b"/y")] == ["EACCES"] * 2
