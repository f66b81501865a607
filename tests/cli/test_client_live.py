"""The blocking client against a running server."""

from __future__ import annotations

import pytest

from xsd.client import requests
from xsd.client.errors import XenstoreError
from xsd.client.perms import Permission
from xsd.client.sync import Client, Transaction
from xsd.client.wire import WatchEvent

SECONDS = 20.0


def test_nodes(store: Client) -> None:
    """Write, read, list, permissions, remove."""
    store.write("/t/a/b", b"\x00value\xff")
    store.mkdir("/t/a/c")
    assert store.read("/t/a/b") == b"\x00value\xff"
    assert [store.read("/t/a"), store.read("/t/a/c")] == [b"", b""]
    assert sorted(store.ls("/t/a")) == ["b", "c"]
    store.set_perms("/t/a", [Permission("n", 0), Permission("r", 1)])
    assert store.get_perms("/t/a") == [Permission("n", 0), Permission("r", 1)]
    store.rm("/t/a")
    assert store.exists("/t/a") is False


def test_wide_directory(store: Client) -> None:
    """A list of children longer than a reply is complete, in and out of a transaction."""
    names = [f"a-child-with-a-long-name-{number:05d}" for number in range(3000)]
    outcomes = list(store.pipeline(requests.mkdir(f"/t/w/{name}") for name in names))
    assert outcomes == [None] * 3000
    assert sorted(store.ls("/t/w")) == names
    with store.transaction() as tx:
        tx.mkdir("/t/w/zz")
        assert sorted(tx.ls("/t/w")) == [*names, "zz"]
    assert len(store.ls("/t/w")) == 3001


def test_watch(store: Client, xenstored_socket: str) -> None:
    """The first event is unconditional; others tell which node; unwatch ends them."""
    store.mkdir("/t")
    store.watch("/t", b"\xfftoken")
    assert store.next_event(SECONDS) == WatchEvent("/t", b"\xfftoken")
    with Client.connect(xenstored_socket) as other:
        other.write("/t/a", b"")
    assert store.next_event(SECONDS) == WatchEvent("/t/a", b"\xfftoken")
    store.unwatch("/t", b"\xfftoken")
    with pytest.raises(XenstoreError) as caught:
        store.unwatch("/t", b"\xfftoken")
    assert caught.value.name == "ENOENT"


def test_transaction_is_invisible_until_committed(store: Client, xenstored_socket: str) -> None:
    """Others see nothing before the commit, everything after it, nothing of an abort."""
    store.mkdir("/t")
    with Client.connect(xenstored_socket) as other:
        with store.transaction() as tx:
            tx.write("/t/a", b"1")
            assert [tx.exists("/t/a"), other.exists("/t/a")] == [True, False]
        assert other.exists("/t/a") is True
        tx = store.transaction()
        tx.rm("/t/a")
        tx.abort()
        assert other.exists("/t/a") is True


def test_atomically_counts_every_time(store: Client, xenstored_socket: str) -> None:
    """A read-modify-write that is disturbed is repeated and loses no update."""
    store.write("/t/n", b"0")
    runs: list[int] = []
    with Client.connect(xenstored_socket) as other:

        def increment(tx: Transaction) -> int:
            value = int(tx.read("/t/n")) + 1
            if not runs:
                other.write("/t/n", b"10")
            runs.append(value)
            tx.write("/t/n", b"%d" % value)
            return value

        assert store.atomically(increment) == 11
    assert (runs, store.read("/t/n")) == ([1, 11], b"11")


def test_pipeline_keeps_order(store: Client) -> None:
    """Thousands of requests in flight, every reply at its place, errors included."""
    batch = [requests.write(f"/t/{number}", b"%d" % number) for number in range(2000)]
    assert list(store.pipeline(batch)) == [None] * 2000
    asked = [requests.read(f"/t/{number}") for number in range(0, 4000, 2)]
    outcomes = list(store.pipeline(asked, window=1000))
    assert outcomes[:1000] == [b"%d" % number for number in range(0, 2000, 2)]
    assert {getattr(outcome, "name", None) for outcome in outcomes[1000:]} == {"ENOENT"}


def test_domains(store: Client) -> None:
    """What a toolstack asks about domains."""
    assert store.get_domain_path(7) == "/local/domain/7"
    assert store.is_domain_introduced(31000) is False
    with pytest.raises(XenstoreError) as caught:
        store.release(31000)
    assert caught.value.name == "ENOENT"


def test_reset_watches(store: Client) -> None:
    """All watches go at once."""
    store.mkdir("/t")
    store.watch("/t", b"1")
    store.watch("/t", b"2")
    store.reset_watches()
    store.watch("/t", b"1")
    assert store.next_event(SECONDS) == WatchEvent("/t", b"1")
    store.unwatch("/t", b"1")
