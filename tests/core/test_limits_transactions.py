"""Big, old and many transactions: what they need is bounded, stated here, and given back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from arena import MS, Arena, S, frames, home
from world import OK, Client, Msg

REQUESTS = 100_000
OPEN = 10_000
BYTES_PER_TRANSACTION = 512  # of one that has done nothing
BYTES_PER_REQUEST = 64  # beside what was sent, kept twice at most: as asked, and as a change


def total(arena: Arena) -> int:
    """Bytes asked for, without what is only waiting to be freed."""
    arena.engine.collect()
    size: int = arena.engine.memory()["total_bytes"]
    return size


def held(arena: Arena, domid: int) -> tuple[int, int]:
    """Bytes and blocks that a domain pays for."""
    account: tuple[int, int] = arena.engine.account(domid)
    return account


def cid(client: Client) -> int:
    found: int = client.link.cid  # type: ignore[attr-defined]
    return found


def send_all(
    arena: Arena, client: Client, requests: Sequence[tuple[int, bytes, int]]
) -> list[bytes]:
    """Sends many requests in portions; what was answered."""
    answers = []
    for i in range(0, len(requests), 500):
        arena.feed(cid(client), frames(*requests[i : i + 500]))
        answers += [packet.payload for packet in client.drain()]
    return answers


def warmed_up(arena: Arena, client: Client) -> None:
    """Tables and queues have the size that they keep."""
    for _ in range(2):
        tx = client.start()
        send_all(arena, client, [(Msg.WRITE, b"/warm\0" + b"v" * 20, tx)] * 2000)
        assert client.end(tx, commit=False) == OK
    client.write(b"/warm", b"")
    arena.quiet()


@pytest.mark.parametrize("commit", [True, False], ids=["commit", "abort"])
@pytest.mark.parametrize("disturbed", [False, True])
def test_a_hundred_thousand_requests(commit: bool, disturbed: bool) -> None:
    """Memory in proportion to what was asked; all of it is back when the transaction has gone."""
    arena = Arena()
    dom0, other = arena.socket(), arena.socket()
    for i in range(1000):
        assert dom0.write(b"/many/%d" % i, b"%020d" % 0) == OK
    warmed_up(arena, dom0)
    before, account = total(arena), held(arena, 0)[0]
    tx = dom0.start()
    requests = [
        (Msg.READ, b"/many/%d\0" % (i % 1000), tx) if i % 4 else
        (Msg.WRITE, b"/many/%d\0%020d" % (i % 1000, i), tx)
        for i in range(REQUESTS)
    ]  # fmt: skip
    answers = send_all(arena, dom0, requests)
    assert len(answers) == REQUESTS
    assert answers[3999] == b"%020d" % 0
    assert answers[4001] == b"%020d" % 0
    sent = sum(len(payload) for _kind, payload, _tx in requests)
    most = 2 * (2 * sent + BYTES_PER_REQUEST * REQUESTS)  # tables grow by doubling
    assert sent < held(arena, 0)[0] - account < most
    if disturbed:  # so that everything is asked again
        assert other.write(b"/many/3", b"%020d" % 0) == OK
    assert dom0.end(tx, commit=commit) == OK
    if disturbed and commit:
        assert arena.counter("commits_replay") == 1
    assert held(arena, 0)[0] - account < 4096
    assert total(arena) - before < 4096
    arena.check()


def test_a_guests_transaction_is_bounded_by_the_number_of_its_requests() -> None:
    """1024; of what comes after them nothing is kept, and an end is always possible."""
    arena = Arena()
    guest = arena.owner(1)
    before = held(arena, 1)
    tx = guest.start()
    answers = [guest.write(b"x", b"v" * 200, tx) for _ in range(1025)]
    assert (answers[1023:], set(answers[:1023])) == ([OK, "ENOSPC"], {OK})
    full = held(arena, 1)[0]
    for _ in range(1000):
        assert guest.write(b"x", b"v" * 200, tx) == "ENOSPC"
    assert held(arena, 1)[0] - full < 4096
    assert guest.end(tx) == "ENOMEM"
    assert held(arena, 1)[0] - before[0] < 4096
    arena.check()


@pytest.mark.parametrize("kind", [Msg.WRITE, Msg.READ])
@pytest.mark.parametrize("commit", [True, False])
def test_a_guests_transaction_is_bounded_by_its_memory(kind: int, commit: bool) -> None:
    """Requests beyond it are refused, one by one; the guest is served all the same."""
    arena = Arena()
    guest = arena.owner(1)
    quota = arena.engine.quotas()["memory"]
    before = held(arena, 1)
    tx = guest.start()
    # Many long paths, or long values: both are remembered.
    tails = [b"/" + b"p" * 1500 + b"%d" % i for i in range(1000)]
    payloads = [b"y" + tail + b"\0" for tail in tails]
    if kind == Msg.WRITE:
        payloads = [b"x\0" + b"v" * 1900] * 1000
    answers = [guest.ask(kind, payload, tx) for payload in payloads]
    assert answers[0] in (OK, "ENOENT")
    assert answers[-1] == "ENOMEM"
    assert arena.engine.counts()[1]["memory"] <= quota + 4096
    assert held(arena, 1)[0] - before[0] < 2 * quota  # tables grow by doubling
    assert guest.end(tx, commit) == OK
    assert held(arena, 1)[0] - before[0] < 8192
    assert arena.engine.counts()[1]["memory"] < 8192
    arena.check()


def test_an_hour_open_while_others_write() -> None:
    """It keeps the tree of its start, and nothing of what has come and gone since."""
    arena = Arena()
    dom0, guest = arena.socket(), arena.owner(1)
    for i in range(200):
        assert guest.write(b"n%d" % i, b"v" * 50) == OK
    warmed_up(arena, dom0)
    arena.engine.collect()
    before, tree = total(arena), arena.engine.memory()["tree_bytes"]
    tx = dom0.start()
    assert dom0.read(home(1) + b"/n7", tx) == b"v" * 50
    sizes = []
    for second in range(3600):
        for i in range(5):
            assert guest.write(b"n%d" % ((second * 5 + i) % 200), b"w" * 50) == OK
        arena.sleep(S)
        assert arena.records == 0
        if second in (100, 1000, 3599):
            sizes.append(total(arena) - before)
    # The old tree and the new one, and no more however long it takes.
    assert max(sizes) <= 1.1 * tree
    assert max(sizes) - min(sizes) < 1024
    assert dom0.read(home(1) + b"/n7", tx) == b"v" * 50
    assert dom0.end(tx) == OK
    assert total(arena) - before < 1024


def test_a_short_one_among_writers_keeps_the_period_at_most() -> None:
    """What is recorded for it goes as soon as it is no longer protected, though it stays open."""
    arena = Arena()
    dom0 = arena.socket()
    guests = [arena.owner(domid) for domid in (1, 2)]
    dom0.start()
    most = 0
    for _ in range(200):
        for guest in guests:
            for i in range(5):
                assert guest.write(b"x", b"%d" % i) == OK
        most = max(most, arena.records)
        arena.sleep(1 * MS)
    assert 100 <= most <= 2 * 52  # one for each turn; what one writes in a row shares a record
    assert arena.records == 0


@pytest.mark.parametrize("clients", [1, 100])
@pytest.mark.parametrize("ending", ["commit", "abort", "close"])
def test_ten_thousand_open_at_once(clients: int, ending: str) -> None:
    """Less than half a KB each, all of it back at the end, whichever way it comes."""
    arena = Arena()
    sockets = [arena.socket() for _ in range(clients)]
    each = OPEN // clients
    for client in sockets:
        warmed_up(arena, client)
        send_all(arena, client, [(Msg.READ, b"/tool\0", 0)] * each)
    before, account = total(arena), held(arena, 0)
    ids = {}
    for client in sockets:
        started = send_all(arena, client, [(Msg.TRANSACTION_START, b"\0", 0)] * each)
        ids[cid(client)] = [int(answer[:-1]) for answer in started]
    assert arena.counter("transactions") == OPEN
    assert all(len(set(found)) == each for found in ids.values())
    grown = held(arena, 0)[0] - account[0]
    assert grown <= OPEN * BYTES_PER_TRANSACTION
    assert total(arena) - before <= OPEN * BYTES_PER_TRANSACTION + 65536
    if ending == "close":
        for client in sockets:
            arena.close(client)
        assert held(arena, 0) == (0, 0)
    else:
        verdict = b"T\0" if ending == "commit" else b"F\0"
        for client in sockets:
            requests = [(Msg.TRANSACTION_END, verdict, tx) for tx in ids[cid(client)]]
            assert set(send_all(arena, client, requests)) == {OK}
        assert held(arena, 0) == account
    assert arena.counter("transactions") == 0
    assert total(arena) <= before
    arena.check()


def test_ten_thousand_of_guests_are_bounded_by_their_quota() -> None:
    """Ten each: a thousand guests have ten thousand, and pay for them themselves."""
    arena = Arena()
    guests = [arena.guest(domid) for domid in range(1, 1001)]
    for guest in guests:
        guest.start()
        assert guest.ask(Msg.RESET_WATCHES, b"\0") == OK
    before = [held(arena, domid) for domid in range(1, 1001)]
    for guest in guests:
        for _ in range(10):
            guest.start()
        assert guest.ask(Msg.TRANSACTION_START, b"\0") == "ENOSPC"
    assert arena.counter("transactions") == OPEN
    for domid in range(1, 1001):
        assert held(arena, domid)[0] - before[domid - 1][0] <= 10 * BYTES_PER_TRANSACTION
    for guest in guests:
        assert guest.ask(Msg.RESET_WATCHES, b"\0") == OK
    assert [held(arena, domid) for domid in range(1, 1001)] == before
    assert arena.counter("transactions") == 0
