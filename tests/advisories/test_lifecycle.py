"""Advisories about connections and domains that come, misbehave and go."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from stores import EVERYBODY, Store, frame, home, on, owner, until
from world import OK, Client, Msg, strings

RELEASE = b"@releaseDomain"

# --- 206: transactions that others' writes make fail for ever


@dataclass(slots=True)
class Writer:
    """A guest that has its next write ready as soon as the last is answered."""

    store: Store
    client: Client
    path: bytes
    sent: int = 0
    answered: int = 0

    def go(self) -> bool:
        """Whether a request could be sent, as none was waiting."""
        self.listen()
        if self.sent != self.answered:
            return False
        number = self.sent + 1
        data = frame(Msg.WRITE, self.path + b"\0%d" % number, req=number)
        taken = self.store.push(self.client, data)
        assert taken in (0, len(data))
        self.sent += taken > 0
        return taken > 0

    def listen(self) -> None:
        for packet in self.store.got(self.client):
            assert (packet.type, packet.req_id) == (Msg.WRITE, self.answered + 1)
            self.answered += 1

    def is_served(self) -> bool:
        self.listen()
        return self.sent == self.answered


@on("engine", "xsd", "c")  # not run against o
def test_xsa_206_a_writing_guest_does_not_starve_transactions(store: Store) -> None:
    """A toolstack's transaction gets through; the guest is served again when it has; nobody dies.

    The guest rewrites what each transaction reads, as often as it is let.
    """
    dom0, guest = store.socket(), owner(store, 1)
    path = home(1) + b"/x"
    assert guest.write(b"x", b"0") == OK
    writer = Writer(store, guest, b"x")
    answers: list[bytes | str] = []
    for i in range(3000):  # a store may let guests save up credit
        tx = dom0.start()
        assert isinstance(dom0.read(path, tx), bytes)
        if writer.go():
            if i == 0:  # the first one is served, if not at once
                until(store, writer.is_served)
            for _ in range(20 if i < 100 else 2):  # short turns: credit may come with the time
                assert dom0.ls(b"/", tx) != []
                if writer.is_served():
                    break
        assert dom0.write(b"/vm/%d" % i, b"", tx) == OK
        answers.append(dom0.end(tx))
        if answers[-1] == OK:
            break
    assert answers[0] == "EAGAIN"  # the attack works as such
    assert answers[-1] == OK
    until(store, writer.go)  # what it sends now is served, sooner or later
    until(store, writer.is_served)
    assert guest.read(b"x") == b"%d" % writer.sent


# --- 233: a domain and its stub domain end together


@on(*EVERYBODY)
@pytest.mark.parametrize("together", [(1, 2), (2, 1)])
def test_xsa_233_domain_and_stub_domain_end(store: Store, together: tuple[int, ...]) -> None:
    """Both at once: each goes once, and the next ones of these ids have no target."""
    end_together(store, [together], both_ways=False)


@on("engine", "xsd")  # not run against c and o
@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("deaths", [[(1,), (2,)], [(2,), (1,)], [(1, 2)]], ids=str)
def test_xsa_233_domain_and_stub_domain_end_in_any_order(
    store: Store, deaths: list[tuple[int, ...]], both_ways: bool
) -> None:
    """One after the other, or each being the target of the other: nobody keeps anybody."""
    end_together(store, deaths, both_ways)


def end_together(store: Store, deaths: list[tuple[int, ...]], both_ways: bool) -> None:
    dom0 = store.socket()
    assert dom0.watch(RELEASE, b"t") == OK
    for _ in range(2):
        stub, guest = owner(store, 1), owner(store, 2)
        assert guest.write(b"private", b"p") == OK
        path = home(2) + b"/private"
        assert stub.read(path) == "EACCES"
        assert dom0.ask(Msg.SET_TARGET, strings(b"1", b"2")) == OK
        if both_ways:
            assert dom0.ask(Msg.SET_TARGET, strings(b"2", b"1")) == OK
        assert stub.read(path) == b"p"
        assert stub.watch(path, b"w") == OK
        assert guest.watch(b"private", b"w") == OK
        stub.start()
        guest.start()
        for together in deaths:
            store.kill(*together)
            assert set(dom0.events()) == {(RELEASE, b"t")}
            assert dom0.write(b"/alive", b"") == OK
        for domid in (b"1\0", b"2\0"):
            assert dom0.ask(Msg.IS_DOMAIN_INTRODUCED, domid) == b"F\0"
        store.check()
    stub, guest = owner(store, 1), owner(store, 2)
    assert guest.write(b"private", b"q") == OK
    assert stub.read(home(2) + b"/private") == "EACCES"


# --- 325: a client that breaks the protocol is kept until its domain is gone


@on(*EVERYBODY)
@pytest.mark.parametrize("size", [4097, 65536, 2**32 - 1])
def test_xsa_325_the_end_of_a_bad_guest_is_told(store: Store, size: int) -> None:
    """It stays introduced while it lives; when it dies, that is told once, as of any other."""
    dom0, guest, other = store.socket(), owner(store, 1), owner(store, 2)
    assert dom0.setperms(RELEASE, b"r0") == OK
    assert dom0.watch(RELEASE, b"t") == OK
    assert other.watch(RELEASE, b"t") == OK
    header = frame(Msg.READ)[:12] + size.to_bytes(4, "little")
    assert store.push(guest, header) == 16
    for _ in range(5):
        store.push(guest, frame(Msg.READ, b"x\0"))
        store.turn()
        assert dom0.ask(Msg.IS_DOMAIN_INTRODUCED, b"1\0") == b"T\0"
        assert other.write(b"x", b"v") == OK
    assert (dom0.events(), other.events()) == ([], [])
    store.kill(1)
    assert dom0.ask(Msg.IS_DOMAIN_INTRODUCED, b"1\0") == b"F\0"
    assert (dom0.events(), other.events()) == ([(RELEASE, b"t")], [(RELEASE, b"t")])
    assert owner(store, 1).write(b"x", b"v") == OK


# --- 330: RESET_WATCHES leaves no watch behind


@on(*EVERYBODY)
def test_xsa_330_reset_watches_removes_them_all(store: Store) -> None:
    """None fires any more, none stands in the way of a new one, none is counted."""
    dom0, guest = store.socket(), owner(store, 1)
    assert dom0.setperms(b"@introduceDomain", b"r0") == OK
    paths = (b"x", b"x/y", home(1), b"/", b"@introduceDomain")
    for _ in range(3):
        for path in paths:
            assert guest.watch(path, b"t") == OK
            assert guest.watch(path, b"t") == "EEXIST"
        made = 0
        while (answer := guest.watch(b"more", b"%d" % made)) == OK:
            made += 1
            assert made < 500
        assert answer == store.manners.over_watches
        assert made + len(paths) == store.manners.most_watches
        assert guest.ask(Msg.RESET_WATCHES, b"\0") == OK
        assert guest.write(b"x/y", b"v") == OK
        assert guest.rm(b"x") == OK
        store.guest(2)
        store.kill(2)
        assert guest.events() == []
        assert guest.unwatch(b"x", b"t") == "ENOENT"
    assert guest.watch(b"x", b"t") == OK
    store.kill(1)
    for path in (home(1) + b"/x", home(1)):
        assert dom0.write(path, b"v") == OK
    store.check()


# --- 425: other connections end while all of them are gone through


@on(*EVERYBODY)
@pytest.mark.parametrize("released", [1, 2, 3, 4])
def test_xsa_425_a_release_while_others_end(store: Store, released: int) -> None:
    """Whoever is released, whoever else has vanished unnoticed: the rest is served."""
    dom0 = store.socket()
    assert dom0.setperms(RELEASE, b"r0") == OK
    for _ in range(2):
        guests = {domid: owner(store, domid) for domid in (1, 2, 3, 4, 5)}
        for domid, guest in guests.items():
            assert guest.watch(RELEASE, b"t") == OK
            assert guest.watch(home(released), b"w") == OK
            guest.start()
            assert guest.write(b"x", b"%d" % domid) == OK
        for pair in ((b"1", b"2"), (b"3", b"2"), (b"4", b"1")):
            assert dom0.ask(Msg.SET_TARGET, strings(*pair)) == OK
        gone = {1, 2, 3, 4} - {released}
        store.vanish(*gone)
        assert dom0.ask(Msg.RELEASE, b"%d\0" % released) == OK
        store.kill(*gone, released)
        assert (RELEASE, b"t") in guests[5].events()
        assert guests[5].read(b"x") == b"5"
        for domid in (1, 2, 3, 4):
            assert dom0.ask(Msg.IS_DOMAIN_INTRODUCED, b"%d\0" % domid) == b"F\0"
        store.kill(5)
        store.check()


# --- 484: RESET_WATCHES inside of a transaction


@on(*EVERYBODY)
def test_xsa_484_reset_watches_inside_a_transaction(store: Store) -> None:
    """It is answered, ends that transaction like all others, and nothing of them is committed."""
    dom0, guest = store.socket(), owner(store, 1)
    for _ in range(3):
        assert guest.watch(b"x", b"t") == OK
        inside, other = guest.start(), guest.start()
        assert guest.write(b"x", b"in", inside) == OK
        assert guest.write(b"y", b"in", other) == OK
        assert guest.ask(Msg.RESET_WATCHES, b"\0", inside) == OK
        for tx in (inside, other):
            assert guest.read(b"x", tx) == store.manners.no_transaction
            assert guest.end(tx) in (store.manners.no_transaction, "ENOENT")
        assert guest.read(b"x") == "ENOENT"
        assert guest.read(b"y") == "ENOENT"
        assert guest.events() == []
        assert guest.unwatch(b"x", b"t") == "ENOENT"
        opened = [guest.start() for _ in range(store.manners.most_transactions)]
        assert guest.ask(Msg.TRANSACTION_START, b"\0") == store.manners.over_transactions
        assert guest.ask(Msg.RESET_WATCHES, b"\0", opened[3]) == OK
        store.check()
    assert store.nodes(1) == 1
    tx = dom0.start()
    assert dom0.watch(b"/", b"t") == OK
    assert dom0.ask(Msg.RESET_WATCHES, b"\0", tx) == OK
    assert dom0.write(b"/x", b"v") == OK
    assert dom0.events() == []
