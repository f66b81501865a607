"""pyxs, the client library in plain Python that talks to the socket by itself."""

from __future__ import annotations

import errno
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from peer import Neighbour
from serving import Daemon, absent

try:
    pyxs: Any = importlib.import_module("pyxs")
except ImportError:
    pyxs = None


@pytest.fixture
def connect(daemon: Daemon) -> Iterator[Callable[[], Any]]:
    """Opens clients, and closes them at the end."""
    if pyxs is None:
        absent("pyxs is not installed")
    clients: list[Any] = []

    def open_one() -> Any:
        client = pyxs.Client(unix_socket_path=daemon.socket)
        client.connect()
        clients.append(client)
        return client

    yield open_one
    for client in clients:
        client.close()


@pytest.fixture
def client(connect: Callable[[], Any], neighbour: Neighbour) -> Iterator[Any]:
    """A client with a tree of its own below /p, while somebody else is there."""
    one = connect()
    one.mkdir(b"/p")
    yield one
    one.delete(b"/p")
    neighbour.works()


def number(failure: Any) -> int:
    """The errno of a failed call."""
    return int(failure.value.args[0])


def test_nodes(client: Any) -> None:
    """read, write, mkdir, exists, list, walk, delete."""
    client.write(b"/p/a", b"one")
    client.write(b"/p/a", b"two")
    # This library cannot write an empty value.
    client.mkdir(b"/p/empty")
    client.mkdir(b"/p/b/c")
    client.mkdir(b"/p/b/c")
    assert client.read(b"/p/a") == b"two"
    assert client.read(b"/p/empty") == b""
    assert client.list(b"/p") == [b"a", b"b", b"empty"]
    assert client.list(b"/p/a") == []
    assert (client.exists(b"/p/b/c"), client.exists(b"/p/none")) == (True, False)
    assert list(client.walk(b"/p")) == [
        (b"/p", b"", [b"a", b"b", b"empty"]),
        (b"/p/a", b"two", []),
        (b"/p/b", b"", [b"c"]),
        (b"/p/b/c", b"", []),
        (b"/p/empty", b"", []),
    ]
    client.delete(b"/p/b")
    assert not client.exists(b"/p/b/c")
    client.delete(b"/p/none")


def test_errors(client: Any) -> None:
    """Errors come as what they are, and the client goes on."""
    with pytest.raises(pyxs.PyXSError) as failure:
        client.read(b"/p/none")
    assert number(failure) == errno.ENOENT
    assert client.read(b"/p/none", b"default") == b"default"
    with pytest.raises(pyxs.PyXSError) as failure:
        client.delete(b"/")
    assert number(failure) == errno.EINVAL
    with pytest.raises(pyxs.PyXSError) as failure:
        client.list(b"/p/none")
    assert number(failure) == errno.ENOENT


def test_permissions(client: Any) -> None:
    """What is set is told."""
    client.mkdir(b"/p/a")
    assert client.get_perms(b"/p/a") == [b"n0"]
    client.set_perms(b"/p/a", [b"b0", b"r3", b"w4", b"n5"])
    assert client.get_perms(b"/p/a") == [b"b0", b"r3", b"w4", b"n5"]


def test_relative_path(client: Any) -> None:
    """A path without leading slash is below the daemon's own domain."""
    client.write(b"p-relative", b"x")
    assert client.read(b"/local/domain/0/p-relative") == b"x"
    client.delete(b"p-relative")


def test_transactions(client: Any, connect: Callable[[], Any]) -> None:
    """Commit shows all at once, rollback nothing; a second one at a time is the client's error."""
    other = connect()
    client.transaction()
    client.write(b"/p/a", b"1")
    client.write(b"/p/b", b"2")
    assert client.list(b"/p") == [b"a", b"b"]
    assert other.list(b"/p") == []
    assert client.commit() is True
    assert other.list(b"/p") == [b"a", b"b"]
    client.transaction()
    client.delete(b"/p/a")
    client.rollback()
    assert other.list(b"/p") == [b"a", b"b"]


def test_conflict(client: Any, connect: Callable[[], Any]) -> None:
    """Who read what has changed since is told to try again; the second try succeeds."""
    other = connect()
    client.write(b"/p/counter", b"1")
    tries = 0
    while True:
        tries += 1
        client.transaction()
        value = int(client.read(b"/p/counter"))
        if tries == 1:
            other.write(b"/p/counter", b"10")
        client.write(b"/p/counter", b"%d" % (value + 1))
        if client.commit():
            break
        assert tries < 5
    assert (tries, other.read(b"/p/counter")) == (2, b"11")


def test_transaction_without_conflict(client: Any, connect: Callable[[], Any]) -> None:
    """Two transactions that create different children of one node both succeed."""
    other = connect()
    client.transaction()
    other.transaction()
    client.write(b"/p/mine", b"1")
    other.write(b"/p/theirs", b"2")
    assert (client.commit(), other.commit()) == (True, True)
    assert client.list(b"/p") == [b"mine", b"theirs"]


def test_monitor(client: Any, connect: Callable[[], Any]) -> None:
    """Watches fire at once, then for changes at and below the path, not after UNWATCH."""
    other = connect()
    monitor = client.monitor()
    monitor.watch(b"/p/watched", b"token")
    events = monitor.wait()
    assert next(events) == (b"/p/watched", b"token")
    other.write(b"/p/watched", b"1")
    assert next(events) == (b"/p/watched", b"token")
    other.write(b"/p/watched/below", b"1")
    assert next(events) == (b"/p/watched/below", b"token")
    other.transaction()
    other.write(b"/p/watched/in-transaction", b"1")
    other.rollback()
    other.transaction()
    other.write(b"/p/watched/committed", b"1")
    assert other.commit()
    assert next(events) == (b"/p/watched/committed", b"token")
    other.delete(b"/p/watched")
    assert next(events) == (b"/p/watched", b"token")
    monitor.unwatch(b"/p/watched", b"token")
    other.write(b"/p/watched", b"2")
    monitor.watch(b"/p/last", b"last")
    assert next(events) == (b"/p/last", b"last")
    monitor.close()


def test_special_watches(client: Any) -> None:
    """The special paths can be watched; an introduction and a release fire."""
    monitor = client.monitor()
    monitor.watch(b"@introduceDomain", b"in")
    monitor.watch(b"@releaseDomain", b"out")
    events = monitor.wait()
    assert sorted([next(events), next(events)]) == [
        (b"@introduceDomain", b"in"),
        (b"@releaseDomain", b"out"),
    ]
    client.introduce_domain(81, 1, 2)
    assert next(events) == (b"@introduceDomain", b"in")
    assert client.is_domain_introduced(81) is True
    # This library wants Xen's own files before it sends a RELEASE.
    client.ack(pyxs.client.Op.RELEASE, b"81\0")
    assert next(events) == (b"@releaseDomain", b"out")
    assert client.is_domain_introduced(81) is False
    monitor.close()


def test_domains(client: Any) -> None:
    """Paths of domains, known or not, and who is introduced."""
    assert client.get_domain_path(0) == b"/local/domain/0"
    assert client.get_domain_path(999) == b"/local/domain/999"
    assert client.is_domain_introduced(999) is False


def test_uncommitted_transaction(connect: Callable[[], Any], neighbour: Neighbour) -> None:
    """A client that leaves in a transaction leaves nothing behind."""
    one = connect()
    one.transaction()
    one.write(b"/p/left", b"x")
    one.close()
    other = connect()
    assert not other.exists(b"/p/left")
