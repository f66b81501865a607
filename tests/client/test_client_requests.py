"""The payload of every request and the meaning of every reply."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xsd.client import requests as rq
from xsd.client.errors import WIRE_ERRORS, XenstoreError
from xsd.client.perms import Permission
from xsd.client.requests import ChildListing, DirectoryPart
from xsd.client.wire import Request

P = Permission

#: Request, type number, payload, a success payload, what it means.
GOLDEN: list[tuple[Request[Any], int, bytes, bytes, Any]] = [
    (rq.control("quota", "7"), 0, b"quota\x007\0", b"text\nmore\0", "text\nmore"),
    (rq.control("check"), 0, b"check\0", b"\0", ""),
    (rq.directory("/a"), 1, b"/a\0", b"b\0c\0", ["b", "c"]),
    (rq.directory("/a"), 1, b"/a\0", b"", []),
    (rq.read("rel/a"), 2, b"rel/a\0", b"x\0\xff", b"x\0\xff"),
    (rq.get_perms("/a"), 3, b"/a\0", b"n0\0r5\0", [P("n", 0), P("r", 5)]),
    (rq.watch("/a", b"t\xff"), 4, b"/a\0t\xff\0", b"OK\0", None),
    (rq.watch("/a", b"t", 3), 4, b"/a\0t\x003\0", b"OK\0", None),
    (rq.unwatch("/a", b""), 5, b"/a\0\0", b"OK\0", None),
    (rq.transaction_start(), 6, b"\0", b"42\0", 42),
    (rq.transaction_end(commit=True), 7, b"T\0", b"OK\0", None),
    (rq.transaction_end(commit=False), 7, b"F\0", b"OK\0", None),
    (rq.introduce(5, 1048575, 3), 8, b"5\x001048575\x003\0", b"OK\0", None),
    (rq.release(5), 9, b"5\0", b"OK\0", None),
    (rq.get_domain_path(5), 10, b"5\0", b"/local/domain/5\0", "/local/domain/5"),
    (rq.write("/a", b"x\0y"), 11, b"/a\0x\0y", b"OK\0", None),
    (rq.write("/a", b""), 11, b"/a\0", b"OK\0", None),
    (rq.mkdir("/a"), 12, b"/a\0", b"OK\0", None),
    (rq.rm("/a"), 13, b"/a\0", b"OK\0", None),
    (rq.set_perms("/a", [P("n", 0), P("b", 9)]), 14, b"/a\0n0\0b9\0", b"OK\0", None),
    (rq.is_domain_introduced(5), 17, b"5\0", b"T\0", True),
    (rq.is_domain_introduced(5), 17, b"5\0", b"F\0", False),
    (rq.resume(5), 18, b"5\0", b"OK\0", None),
    (rq.set_target(5, 6), 19, b"5\x006\0", b"OK\0", None),
    (rq.reset_watches(), 21, b"\0", b"OK\0", None),
    (
        rq.directory_part("/a", 17),
        22,
        b"/a\x0017\0",
        b"99\0b\0c\0",
        DirectoryPart(99, b"b\0c\0", last=False),
    ),
    (
        rq.directory_part("/a", 0),
        22,
        b"/a\x000\0",
        b"99\0b\0\0",
        DirectoryPart(99, b"b\0", last=True),
    ),
    (rq.directory_part("/a", 4), 22, b"/a\x004\0", b"9\0\0", DirectoryPart(9, b"", last=True)),
    (rq.get_feature(), 23, b"", b"15\0", 15),
    (rq.get_feature(5), 23, b"5\0", b"15\0", 15),
    (rq.set_feature(5, 3), 24, b"5\x003\0", b"OK\0", None),
    (rq.quota_names(), 25, b"", b"nodes watches\0", ["nodes", "watches"]),
    (rq.get_quota("nodes"), 25, b"nodes\0", b"1000\0", 1000),
    (rq.get_quota("nodes", 5), 25, b"5\0nodes\0", b"1000\0", 1000),
    (rq.set_quota("nodes", 7), 26, b"nodes\x007\0", b"OK\0", None),
    (rq.set_quota("nodes", 7, 5), 26, b"5\0nodes\x007\0", b"OK\0", None),
]


@pytest.mark.parametrize(("request_", "kind", "payload", "answer", "meaning"), GOLDEN)
def test_golden(
    request_: Request[Any], kind: int, payload: bytes, answer: bytes, meaning: object
) -> None:
    """Type and payload are what the protocol says, and the reply is understood."""
    assert (int(request_.op), request_.payload) == (kind, payload)
    assert request_.decode(answer) == meaning


def test_golden_is_complete() -> None:
    """Every type that a client can send is in the table."""
    assert {kind for _, kind, *_ in GOLDEN} == {*range(15), *range(17, 20), *range(21, 27)}


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (rq.directory("/a"), b"b"),
        (rq.get_perms("/a"), b"n0"),
        (rq.get_perms("/a"), b"x0\0"),
        (rq.transaction_start(), b"\0"),
        (rq.transaction_start(), b"one\0"),
        (rq.directory_part("/a", 0), b""),
        (rq.directory_part("/a", 0), b"7"),
        (rq.directory_part("/a", 0), b"7\0"),
        (rq.directory_part("/a", 0), b"x\0b\0\0"),
        (rq.directory_part("/a", 0), b"7\0b"),
    ],
)
def test_malformed_reply(request_: Request[Any], answer: bytes) -> None:
    """A payload without the promised form is refused, not guessed at."""
    with pytest.raises(ValueError, match=r"."):
        request_.decode(answer)


def test_nul_is_refused() -> None:
    """A NUL in a string argument would silently become another argument."""
    for make in (
        lambda: rq.read("/a\0b"),
        lambda: rq.watch("/a", b"t\0"),
        lambda: rq.write("/a\0", b""),
        lambda: rq.control("print", "a\0b"),
    ):
        with pytest.raises(ValueError, match="NUL"):
            make()


NAMES = st.lists(st.text("abcdef0123-_", min_size=1, max_size=12), max_size=60)


@given(NAMES, st.integers(14, 200))
def test_child_listing_reassembles(names: list[str], space: int) -> None:
    """Whatever the size of the parts, the whole list comes out in order."""
    listing = ChildListing("/a")
    whole = b"".join(name.encode() + b"\0" for name in names)
    result = None
    for _ in range(len(whole) + 1):
        offset = int(listing.request().payload.split(b"\0")[1])
        end = min(len(whole), offset + space)
        end = whole.rfind(b"\0", offset, end) + 1 if end > offset else end
        part = DirectoryPart(5, whole[offset:end], last=end == len(whole))
        result = listing.received(part)
        if result is not None:
            break
    assert result == names


def test_child_listing_restarts() -> None:
    """A change of the node between two parts discards what was read before it."""
    listing = ChildListing("/a")
    assert listing.received(DirectoryPart(1, b"old\0", last=False)) is None
    assert listing.request().payload == b"/a\x004\0"
    assert listing.received(DirectoryPart(2, b"mixed\0", last=True)) is None
    assert listing.request().payload == b"/a\x000\0"
    assert listing.received(DirectoryPart(2, b"new\0mixed\0", last=True)) == ["new", "mixed"]


def test_child_listing_gives_up() -> None:
    """A node that never rests is not listed for ever."""
    listing = ChildListing("/a")
    parts = [DirectoryPart(n, b"x\0", last=False) for n in range(2 * ChildListing.RESTARTS_MAX + 2)]
    with pytest.raises(XenstoreError) as caught:
        [listing.received(part) for part in parts]
    assert (caught.value.name, caught.value.path) == ("EAGAIN", "/a")


@pytest.mark.parametrize("text", ["n0", "r5", "w65535", "b32757"])
def test_permission_round_trip(text: str) -> None:
    """An entry prints as it was written."""
    assert str(Permission.parse(text)) == text


@pytest.mark.parametrize("text", ["", "n", "x0", "5", "n-1", "r 5", "r65536", "r5x", "R5", "r²"])
def test_permission_refused(text: str) -> None:
    """Anything but a letter and a domid says what was expected."""
    with pytest.raises(ValueError, match="expected a letter n, r, w or b and a domid"):
        Permission.parse(text)


def test_error_names() -> None:
    """The protocol's sixteen names; any other is EINVAL with its spelling kept."""
    assert len(WIRE_ERRORS) == 16
    strange = XenstoreError("EQUOTA", "WRITE", "/a")
    assert (strange.name, strange.errno) == ("EQUOTA", 22)


def test_error_text() -> None:
    """The text names operation, path, meaning and symbol."""
    assert str(XenstoreError("ENOENT", "READ", "/a")) == "READ /a: no such node (ENOENT)"
    assert (
        str(XenstoreError("ENOENT", "TRANSACTION_END"))
        == "TRANSACTION_END: no such transaction (ENOENT)"
    )
