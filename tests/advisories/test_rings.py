"""Advisories about the ring page, which the guest can write while the store reads it."""

from __future__ import annotations

import pytest
from livestore import LiveStore, RingWire, link_of
from stores import DAEMONS, frame, on, owner
from world import OK, Client, Msg, strings
from xen.hypervisor import BOUND, ERROR, REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD, Guest

RELEASE = b"@releaseDomain"
LAST = 2**32 - 1

REQUESTS = ((0, 1025), (0, 2**31), (0, LAST), (1, 0), (2**31, 0), (LAST, 1024), (5, 4))
RESPONSES = ((1, 0), (2**31, 0), (0, 1025), (0, LAST), (LAST, 1024))


def ring(client: Client) -> Guest:
    wire = link_of(client).wire
    assert isinstance(wire, RingWire)
    return wire.guest


def quiet(store: LiveStore, guest: Guest) -> None:
    """Waits until no event of the guest is being dealt with any more.

    Whoever takes a reply sends one. A store that looks at the page for it while half of it has been
    changed may find indices that can be, and go on from there.
    """
    xen = store.running.xen
    port = xen.local_port(guest.domid)
    store.await_that(lambda: xen.port_state(port) == BOUND, "an answer to the guest's event")
    store.turn()


def set_indices(guest: Guest, request: tuple[int, int], response: tuple[int, int]) -> None:
    """Consumer and producer of both halves."""
    guest.set_word(REQ_CONS, request[0])
    guest.set_word(RSP_CONS, response[0])
    guest.set_word(RSP_PROD, response[1])
    guest.set_word(REQ_PROD, request[1])
    guest.kick()


BAD = pytest.mark.parametrize(
    ("request_words", "response_words"),
    [*((pair, (0, 0)) for pair in REQUESTS), *(((0, 0), pair) for pair in RESPONSES)],
)


# --- 38: indices


@on(*DAEMONS)
@BAD
def test_xsa_38_bad_indices_harm_nobody_else(
    store: LiveStore, request_words: tuple[int, int], response_words: tuple[int, int]
) -> None:
    """Indices that cannot be are the guest's own loss; others are served, its end is told."""
    dom0, guest, other = store.socket(), owner(store, 1), owner(store, 2)
    assert dom0.watch(RELEASE, b"t") == OK
    quiet(store, ring(guest))
    set_indices(ring(guest), request_words, response_words)
    # Something to write to it, where that is what cannot be done.
    assert dom0.write(b"/local/domain/1/x", b"v") == OK
    for i in range(5):
        ring(guest).kick()
        store.turn()
        assert other.write(b"x", b"%d" % i) == OK
        assert dom0.ask(Msg.IS_DOMAIN_INTRODUCED, b"1\0") == b"T\0"
    assert dom0.events() == []
    store.kill(1)
    assert dom0.events() == [(RELEASE, b"t")]
    assert owner(store, 1).write(b"x", b"v") == OK


@on("xsd")
@BAD
def test_xsa_38_a_ring_with_bad_indices_is_marked_until_introduced(
    store: LiveStore, request_words: tuple[int, int], response_words: tuple[int, int]
) -> None:
    """The error word says so; nothing of the page is looked at; INTRODUCE makes it good."""
    dom0, guest = store.socket(), owner(store, 1)
    assert guest.watch(b"x", b"t") == OK
    page = ring(guest)
    quiet(store, page)
    set_indices(page, request_words, response_words)
    assert dom0.write(b"/local/domain/1/x", b"v") == OK  # an event that cannot be delivered
    store.await_that(lambda: page.word(ERROR) == 2, "the error word")
    set_indices(page, (0, 0), (0, 0))
    page.put(frame(Msg.READ, b"x\0", req=7))
    page.kick()
    store.turn()
    assert page.available() == 0
    words = strings(b"1", b"%d" % page.gfn, b"%d" % page.port)
    assert dom0.ask(Msg.INTRODUCE, words) == OK
    assert page.word(ERROR) == 0
    assert guest.read(b"x") == b"v"
    assert guest.events() == []


@on(*DAEMONS)
def test_xsa_38_indices_run_freely(store: LiveStore) -> None:
    """They pass 2**32 like any other number."""
    guest = owner(store, 1)
    start = 2**32 - 700
    quiet(store, ring(guest))
    set_indices(ring(guest), (start, start), (start, start))
    for i in range(20):
        assert guest.write(b"x", b"%d" % i + b"v" * 90) == OK
        assert guest.read(b"x") == b"%d" % i + b"v" * 90
    assert ring(guest).word(REQ_PROD) < start
    assert ring(guest).word(RSP_PROD) < start


@on(*DAEMONS)
def test_xsa_38_indices_that_change_while_they_are_read(store: LiveStore) -> None:
    """Between one look and the next there may stand something else: others notice nothing."""
    dom0, guest, other = store.socket(), owner(store, 1), owner(store, 2)
    page = ring(guest)
    consumer = page.word(REQ_CONS)
    for i in range(300):
        page.kick()
        for producer in (consumer + 1, consumer + 1024, consumer + 2**31, consumer + 2000):
            page.set_word(REQ_PROD, producer)
        if i % 20 == 0:
            assert dom0.write(b"/alive", b"%d" % i) == OK
            assert other.write(b"x", b"%d" % i) == OK
    store.kill(1)
    assert owner(store, 1).write(b"x", b"v") == OK
