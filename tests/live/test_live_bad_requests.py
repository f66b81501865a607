"""Requests that cannot be carried out: each gets its error, and nobody else notices."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from peer import Neighbour, Peer
from serving import Daemon

from xsd.client.wire import Op

OK = b"OK\0"
NO_TX = 0
UNKNOWN_TX = 987654321

Row = tuple[int, bytes, str | bytes]

ONE_STRING = {
    Op.DIRECTORY: b"/bad",
    Op.READ: b"/bad",
    Op.GET_PERMS: b"/bad",
    Op.MKDIR: b"/bad",
    Op.RM: b"/bad/none",
    Op.RELEASE: b"7",
    Op.GET_DOMAIN_PATH: b"7",
    Op.IS_DOMAIN_INTRODUCED: b"7",
    Op.RESUME: b"7",
    Op.TRANSACTION_END: b"T",
}
"""Operations whose payload is one string, and one they could work with."""

PATH_OPS: dict[Op, bytes] = {
    Op.DIRECTORY: b"%s\0",
    Op.READ: b"%s\0",
    Op.GET_PERMS: b"%s\0",
    Op.MKDIR: b"%s\0",
    Op.RM: b"%s\0",
    Op.WRITE: b"%s\0value",
    Op.SET_PERMS: b"%s\0n0\0",
    Op.DIRECTORY_PART: b"%s\0" + b"0\0",
    Op.WATCH: b"%s\0token\0",
    Op.UNWATCH: b"%s\0token\0",
}
"""Operations on a path, and their payloads around it."""

TREE_OPS = (Op.DIRECTORY, Op.READ, Op.MKDIR, Op.RM, Op.WRITE, Op.DIRECTORY_PART)
"""Those for which the special nodes do not exist."""

BAD_PATHS = (
    b"", b"/bad/", b"//", b"/bad//x", b"bad/", b"/bad x", b"/bad.x", b"/..", b"/bad\n",
    b"/b\xc3\xa4d", b"/local/domain/", b"/bad/*", b"/bad:x", b"/bad\\x", b"/~",
)  # fmt: skip


@pytest.fixture
def bad(peer: Peer, neighbour: Neighbour) -> Peer:
    """A connection with a node ``/bad`` of value ``kept``."""
    assert peer.ask(Op.WRITE, b"/bad\0kept") == OK
    return peer


def assert_kept(peer: Peer, neighbour: Neighbour) -> None:
    """Nothing was lost and nothing was made."""
    assert peer.ask(Op.READ, b"/bad\0") == b"kept"
    assert peer.ask(Op.DIRECTORY, b"/bad\0") == b""
    neighbour.works()


@pytest.mark.parametrize("op", [15, 16, 20, 27, 28, 31, 32, 255, 65535, 65536, 2**31, 2**32 - 1])
@pytest.mark.parametrize("tx_id", [NO_TX, UNKNOWN_TX])
def test_unknown_type(op: int, tx_id: int, bad: Peer, neighbour: Neighbour) -> None:
    """A type nobody can ask for is ENOSYS, before the transaction is looked at."""
    for payload in (b"", b"/bad\0", b"x" * 4096):
        assert bad.ask(op, payload, tx_id) == "ENOSYS"
    assert_kept(bad, neighbour)


@pytest.mark.parametrize("op", ONE_STRING)
def test_one_string(op: Op, bad: Peer, neighbour: Neighbour) -> None:
    """One string with its NUL and nothing else; all the rest is EINVAL."""
    text = ONE_STRING[op]
    missing = (b"", b"\0\0", text)
    surplus = (text + b"\0\0", text + b"\0x", b"\0" + text, b"\0" + text + b"\0")
    payloads = missing + surplus
    assert [bad.ask(op, payload) for payload in payloads] == ["EINVAL"] * len(payloads)
    assert_kept(bad, neighbour)


COUNTS: list[Row] = [
    (Op.WATCH, b"", "EINVAL"),
    (Op.WATCH, b"/bad", "EINVAL"),
    (Op.WATCH, b"/bad\0", "EINVAL"),
    (Op.WATCH, b"/bad\0token", "EINVAL"),
    (Op.WATCH, b"/bad\0token\x001\0x\0", "EINVAL"),
    (Op.WATCH, b"/bad\0token\0-1\0", "EINVAL"),
    (Op.UNWATCH, b"", "EINVAL"),
    (Op.UNWATCH, b"/bad\0", "EINVAL"),
    (Op.UNWATCH, b"/bad\0token\0x\0", "EINVAL"),
    (Op.INTRODUCE, b"", "EINVAL"),
    (Op.INTRODUCE, b"7\x001\0", "EINVAL"),
    (Op.INTRODUCE, b"7\x001\x002", "EINVAL"),
    (Op.SET_TARGET, b"", "EINVAL"),
    (Op.SET_TARGET, b"7\0", "EINVAL"),
    (Op.SET_TARGET, b"7\x008", "EINVAL"),
    (Op.SET_FEATURE, b"", "EINVAL"),
    (Op.SET_FEATURE, b"7\0", "EINVAL"),
    (Op.SET_FEATURE, b"7\x001\x002\0", "EINVAL"),
    (Op.GET_FEATURE, b"7\x008\0", "EINVAL"),
    (Op.GET_QUOTA, b"7\0nodes\0x\0", "EINVAL"),
    (Op.SET_QUOTA, b"", "EINVAL"),
    (Op.SET_QUOTA, b"nodes\0", "EINVAL"),
    (Op.SET_QUOTA, b"7\0nodes\x001000\x001\0", "EINVAL"),
    (Op.DIRECTORY_PART, b"", "EINVAL"),
    (Op.DIRECTORY_PART, b"/bad\0", "EINVAL"),
    (Op.DIRECTORY_PART, b"/bad\x000", "EINVAL"),
    (Op.DIRECTORY_PART, b"/bad\x000\x000\0", "EINVAL"),
    (Op.SET_PERMS, b"", "EINVAL"),
    (Op.SET_PERMS, b"/bad\0", "EINVAL"),
    (Op.SET_PERMS, b"/bad\0n0", "EINVAL"),
    (Op.WRITE, b"", "EINVAL"),
    (Op.WRITE, b"/bad", "EINVAL"),
    (Op.CONTROL, b"", "EINVAL"),
    (Op.CONTROL, b"check", "EINVAL"),
]


@pytest.mark.parametrize(("op", "payload", "error"), COUNTS)
def test_count_of_strings(
    op: int, payload: bytes, error: str, bad: Peer, neighbour: Neighbour
) -> None:
    """Operations that count their strings refuse too few and too many."""
    assert bad.ask(op, payload) == error
    assert_kept(bad, neighbour)


def test_bytes_behind_the_last_nul(bad: Peer, neighbour: Neighbour) -> None:
    """Where strings are counted, what stands behind the last NUL does not matter."""
    assert bad.ask(Op.WATCH, b"/bad\0tail\0surplus") == OK
    assert bad.event() == (b"/bad", b"tail")
    assert bad.ask(Op.UNWATCH, b"/bad\0tail\0surplus") == OK
    assert bad.ask(Op.SET_PERMS, b"/bad\0n0\0surplus") == OK
    assert bad.ask(Op.CONTROL, b"check\0surplus") == OK
    assert_kept(bad, neighbour)


def test_nul_in_value(bad: Peer, neighbour: Neighbour) -> None:
    """A value is everything behind the first NUL, NULs included."""
    value = bytes(range(256)) * 3 + b"\0\0"
    assert bad.ask(Op.WRITE, b"/bad\0" + value) == OK
    assert bad.ask(Op.READ, b"/bad\0") == value
    assert bad.ask(Op.WRITE, b"/bad\0kept") == OK
    assert_kept(bad, neighbour)


@pytest.mark.parametrize("path", BAD_PATHS)
@pytest.mark.parametrize("op", PATH_OPS)
def test_bad_path(op: Op, path: bytes, bad: Peer, neighbour: Neighbour) -> None:
    """What is no path is EINVAL for every operation."""
    assert bad.ask(op, PATH_OPS[op] % path) == "EINVAL"
    assert_kept(bad, neighbour)


@pytest.mark.parametrize("op", TREE_OPS)
def test_special_path(op: Op, bad: Peer, neighbour: Neighbour) -> None:
    """The special nodes are none of the tree's."""
    for path in (b"@releaseDomain", b"@introduceDomain", b"@", b"@x"):
        assert bad.ask(op, PATH_OPS[op] % path) == "EINVAL"
    assert_kept(bad, neighbour)


ALLOWED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-/_@")


@pytest.mark.parametrize("op", [Op.WRITE, Op.READ, Op.WATCH, Op.RM])
def test_every_byte_in_a_path(op: Op, bad: Peer, neighbour: Neighbour) -> None:
    """Bytes 0 to 255 in a path: those of the alphabet are taken, all others refused."""
    refused = set()
    for byte in range(256):
        path = b"/bytes/x" + bytes([byte]) + b"y"
        if bad.ask(op, PATH_OPS[op] % path) == "EINVAL":
            refused.add(byte)
    # With a NUL in its path a WRITE has a shorter path and a longer value, others too many
    # strings; for a WATCH they are a path, a token and a depth.
    short = set() if op in (Op.WRITE, Op.WATCH) else {0}
    assert refused == (set(range(1, 256)) - ALLOWED) | short
    bad.ask(Op.RESET_WATCHES, b"\0")
    assert bad.ask(Op.RM, b"/bytes\0") in (OK, "ENOENT")
    assert_kept(bad, neighbour)


def test_every_byte_in_a_token(bad: Peer, neighbour: Neighbour) -> None:
    """A token may have every byte but NUL and comes back unchanged."""
    tokens = [b"t" + bytes([byte]) + b"n" for byte in range(1, 256)] + [b"", bytes(range(1, 256))]
    for token in tokens:
        assert bad.ask(Op.WATCH, b"/bad\0" + token + b"\0") == OK
        assert bad.event() == (b"/bad", token)
    assert bad.ask(Op.WRITE, b"/bad\0kept") == OK
    assert sorted(token for _, token in bad.events) == sorted(tokens)
    bad.events.clear()
    assert bad.ask(Op.CONTROL, b"watches\0") not in ("EIO", b"")
    for token in tokens:
        assert bad.ask(Op.UNWATCH, b"/bad\0" + token + b"\0") == OK
    assert_kept(bad, neighbour)


def test_long_path(bad: Peer, neighbour: Neighbour) -> None:
    """A path of 3072 bytes, the longest there is, works for a privileged client."""
    path = (b"/long" + b"/" + b"n" * 3072)[:3072]
    assert bad.ask(Op.WRITE, path + b"\0v") == OK
    assert bad.ask(Op.READ, path + b"\0") == b"v"
    assert bad.ask(Op.WATCH, path + b"\0token\0") == OK
    assert bad.event() == (path, b"token")
    assert bad.ask(Op.DIRECTORY, b"/long\0") == path.removeprefix(b"/long/") + b"\0"
    assert bad.ask(Op.RM, b"/long\0") == OK
    assert bad.event() == (path, b"token")
    assert bad.ask(Op.UNWATCH, path + b"\0token\0") == OK
    assert_kept(bad, neighbour)


@pytest.mark.parametrize("size", [3073, 4000, 4095])
def test_path_that_is_too_long(size: int, bad: Peer, neighbour: Neighbour) -> None:
    """Longer paths are refused, or work in every respect; nothing in between."""
    path = (b"/long" + b"/" + b"n" * size)[:size]
    answer = bad.ask(Op.MKDIR, path + b"\0")
    assert answer in (OK, "EINVAL")
    assert bad.ask(Op.READ, path + b"\0") == (b"" if answer == OK else "EINVAL")
    if answer == OK:
        assert bad.ask(Op.RM, b"/long\0") == OK
    assert_kept(bad, neighbour)


def test_many_components(bad: Peer, neighbour: Neighbour) -> None:
    """A path of 1500 components can be made, watched, read in a transaction and removed."""
    top = b"/deep"
    path = top + b"/x" * 1499
    assert bad.ask(Op.WATCH, top + b"\0deep token\0") == OK
    assert bad.event() == (top, b"deep token")
    assert bad.ask(Op.WRITE, path + b"\0bottom") == OK
    assert bad.event() == (path, b"deep token")
    tx = bad.start()
    assert bad.ask(Op.READ, path + b"\0", tx) == b"bottom"
    assert bad.ask(Op.SET_PERMS, path + b"\0n0\0r7\0", tx) == OK
    assert bad.ask(Op.TRANSACTION_END, b"T\0", tx) == OK
    assert bad.event() == (path, b"deep token")
    assert bad.ask(Op.CONTROL, b"check\0") == OK
    assert bad.ask(Op.RM, top + b"\0") == OK
    assert bad.event() == (top, b"deep token")
    assert bad.ask(Op.UNWATCH, top + b"\0deep token\0") == OK
    assert_kept(bad, neighbour)


def test_long_token(bad: Peer, neighbour: Neighbour) -> None:
    """The longest token works as long as its event fits in a message; else it has no events."""
    fits = b"f" * (4096 - len(b"/bad\0\0"))
    assert bad.ask(Op.WATCH, b"/bad\0" + fits + b"\0") == OK
    assert bad.event() == (b"/bad", fits)
    # Fires below /bad too, but then path and token are more than a message can have.
    assert bad.ask(Op.WRITE, b"/bad/child\0x") == OK
    assert bad.ask(Op.WRITE, b"/bad\0kept") == OK
    assert bad.event() == (b"/bad", fits)
    assert bad.events == []
    assert bad.ask(Op.UNWATCH, b"/bad\0" + fits + b"\0") == OK
    # One byte more is no request.
    bad.send((4).to_bytes(4, "little") + bytes(8) + (4097).to_bytes(4, "little"))
    assert bad.is_closed()
    with Peer(neighbour.path) as other:
        assert other.ask(Op.RM, b"/bad/child\0") == OK
        assert_kept(other, neighbour)


def test_relative_watch_with_a_long_token(bad: Peer, neighbour: Neighbour) -> None:
    """A token of 4 KiB on a relative path: the event shows the path as it was given."""
    token = b"f" * (4096 - len(b"b\0\0"))
    assert bad.ask(Op.WATCH, b"b\0" + token + b"\0") == OK
    assert bad.event() == (b"b", token)
    assert bad.ask(Op.UNWATCH, b"b\0" + token + b"\0") == OK
    assert_kept(bad, neighbour)


ROWS: dict[str, Row] = {
    "read missing": (Op.READ, b"/none\0", "ENOENT"),
    "read below missing": (Op.READ, b"/none/x/y\0", "ENOENT"),
    "list missing": (Op.DIRECTORY, b"/none\0", "ENOENT"),
    "list part of missing": (Op.DIRECTORY_PART, b"/none\x000\0", "ENOENT"),
    "permissions of missing": (Op.GET_PERMS, b"/none\0", "ENOENT"),
    "mkdir of existing": (Op.MKDIR, b"/bad\0", OK),
    "rm of missing leaf": (Op.RM, b"/bad/none\0", OK),
    "rm below missing": (Op.RM, b"/none/x\0", "ENOENT"),
    "rm of the root": (Op.RM, b"/\0", "EINVAL"),
    "set permissions of missing": (Op.SET_PERMS, b"/none\0n0\0", "ENOENT"),
    "no such letter": (Op.SET_PERMS, b"/bad\0x0\0", "EINVAL"),
    "no domid": (Op.SET_PERMS, b"/bad\0n\0", "EINVAL"),
    "domid with a tail": (Op.SET_PERMS, b"/bad\0n0x\0", "EINVAL"),
    "domid below 0": (Op.SET_PERMS, b"/bad\0n-1\0", "EINVAL"),
    "domid too big": (Op.SET_PERMS, b"/bad\0n65536\0", "EINVAL"),
    "domid far too big": (Op.SET_PERMS, b"/bad\0n18446744073709551616\0", "EINVAL"),
    "empty entry": (Op.SET_PERMS, b"/bad\0\0", "EINVAL"),
    "second entry bad": (Op.SET_PERMS, b"/bad\0n0\0q1\0", "EINVAL"),
    "unwatch of none": (Op.UNWATCH, b"/bad\0never\0", "ENOENT"),
    "end without transaction": (Op.TRANSACTION_END, b"T\0", "ENOENT"),
    "end with another letter": (Op.TRANSACTION_END, b"X\0", "EINVAL"),
    "end with small letter": (Op.TRANSACTION_END, b"t\0", "EINVAL"),
    "introduce without number": (Op.INTRODUCE, b"x\x001\x002\0", "EINVAL"),
    "introduce too big": (Op.INTRODUCE, b"65536\x001\x002\0", "EINVAL"),
    "introduce without port": (Op.INTRODUCE, b"7\x001\x000\0", "EINVAL"),
    "release of itself": (Op.RELEASE, b"0\0", "EINVAL"),
    "release of unknown": (Op.RELEASE, b"7\0", "ENOENT"),
    "release without number": (Op.RELEASE, b"x\0", "EINVAL"),
    "release too big": (Op.RELEASE, b"65536\0", "EINVAL"),
    "resume of unknown": (Op.RESUME, b"7\0", "ENOENT"),
    "resume of itself": (Op.RESUME, b"0\0", "EINVAL"),
    "resume without number": (Op.RESUME, b"x\0", "EINVAL"),
    "target of unknown": (Op.SET_TARGET, b"7\x008\0", "ENOENT"),
    "target without number": (Op.SET_TARGET, b"x\x008\0", "EINVAL"),
    "introduced of no number": (Op.IS_DOMAIN_INTRODUCED, b"x\0", "EINVAL"),
    "introduced of unknown": (Op.IS_DOMAIN_INTRODUCED, b"7\0", b"F\0"),
    "path of no number": (Op.GET_DOMAIN_PATH, b"1x\0", "EINVAL"),
    "path of number too big": (Op.GET_DOMAIN_PATH, b"65536\0", "EINVAL"),
    "feature of no number": (Op.GET_FEATURE, b"x\0", "EINVAL"),
    "unknown feature": (Op.SET_FEATURE, b"7\x00256\0", "EINVAL"),
    "unknown quota": (Op.GET_QUOTA, b"bogus\0", "EINVAL"),
    "unknown quota to set": (Op.SET_QUOTA, b"bogus\x001\0", "EINVAL"),
    "quota too big": (Op.SET_QUOTA, b"nodes\x004294967295\0", "EINVAL"),
    "unknown command": (Op.CONTROL, b"bogus\0", "EINVAL"),
    "no command": (Op.CONTROL, b"\0", "EINVAL"),
    "command with wrong parameters": (Op.CONTROL, b"check\0now\0", "EINVAL"),
    "command with surplus NUL": (Op.CONTROL, b"check\0\0", "EINVAL"),
}


@pytest.mark.parametrize("row", ROWS)
def test_error_table(row: str, bad: Peer, neighbour: Neighbour) -> None:
    """Each operation's own errors."""
    op, payload, expected = ROWS[row]
    assert bad.ask(op, payload) == expected
    assert_kept(bad, neighbour)


IN_TX = (
    Op.READ, Op.WRITE, Op.MKDIR, Op.RM, Op.DIRECTORY, Op.DIRECTORY_PART, Op.GET_PERMS, Op.SET_PERMS,
)  # fmt: skip


def test_unknown_transaction(bad: Peer, neighbour: Neighbour) -> None:
    """An id that is not open here is ENOENT, another connection's too; watches ignore it."""
    with Peer(neighbour.path) as other:
        foreign = other.start()
        # Ids are counted per connection or for all; neither makes the foreign one ours.
        for tx_id in (UNKNOWN_TX, 2**32 - 1, foreign + 1000):
            for op in IN_TX:
                assert bad.ask(op, PATH_OPS[op] % b"/bad", tx_id) == "ENOENT"
            for op, payload in ((Op.TRANSACTION_START, b"\0"), (Op.TRANSACTION_END, b"T\0")):
                assert bad.ask(op, payload, tx_id) == "ENOENT"
            assert bad.ask(Op.WATCH, b"/bad\0token\0", tx_id) == OK
            assert bad.event() == (b"/bad", b"token")
            assert bad.ask(Op.UNWATCH, b"/bad\0token\0", tx_id) == OK
        assert other.ask(Op.TRANSACTION_END, b"F\0", foreign) == OK
    assert_kept(bad, neighbour)


def test_transaction_in_transaction(bad: Peer, neighbour: Neighbour) -> None:
    """EBUSY, and the open one goes on; a bad end does not end it; a second end finds none."""
    tx = bad.start()
    assert bad.ask(Op.TRANSACTION_START, b"\0", tx) == "EBUSY"
    assert bad.ask(Op.TRANSACTION_END, b"", tx) == "EINVAL"
    assert bad.ask(Op.TRANSACTION_END, b"maybe\0", tx) == "EINVAL"
    assert bad.ask(Op.READ, b"/bad\0", tx) == b"kept"
    assert bad.ask(Op.TRANSACTION_END, b"T\0", tx) == OK
    assert bad.ask(Op.TRANSACTION_END, b"T\0", tx) == "ENOENT"
    assert_kept(bad, neighbour)


def test_conflict(bad: Peer, neighbour: Neighbour) -> None:
    """A transaction that read what has changed since is EAGAIN and leaves no trace."""
    tx = bad.start()
    assert bad.ask(Op.READ, b"/bad\0", tx) == b"kept"
    assert bad.ask(Op.WRITE, b"/bad/from-transaction\0x", tx) == OK
    assert bad.ask(Op.WRITE, b"/bad\0other") == OK
    assert bad.ask(Op.READ, b"/bad\0", tx) == b"kept"
    assert bad.ask(Op.TRANSACTION_END, b"T\0", tx) == "EAGAIN"
    assert bad.ask(Op.TRANSACTION_END, b"T\0", tx) == "ENOENT"
    assert bad.ask(Op.READ, b"/bad\0") == b"other"
    assert bad.ask(Op.WRITE, b"/bad\0kept") == OK
    assert_kept(bad, neighbour)


def test_reset_inside_a_transaction(bad: Peer, neighbour: Neighbour) -> None:
    """RESET_WATCHES sent in a transaction ends that transaction and is still answered."""
    tx = bad.start()
    assert bad.ask(Op.WRITE, b"/bad\0lost", tx) == OK
    assert bad.ask(Op.RESET_WATCHES, b"\0", tx) == OK
    assert bad.ask(Op.READ, b"/bad\0", tx) == "ENOENT"
    assert_kept(bad, neighbour)


def test_duplicate_watch(bad: Peer, neighbour: Neighbour) -> None:
    """The same path and token twice is EEXIST; one UNWATCH then removes it."""
    assert bad.ask(Op.WATCH, b"/bad\0twice\0") == OK
    assert bad.event() == (b"/bad", b"twice")
    assert bad.ask(Op.WATCH, b"/bad\0twice\0") == "EEXIST"
    assert bad.ask(Op.UNWATCH, b"/bad\0twice\0") == OK
    assert bad.ask(Op.UNWATCH, b"/bad\0twice\0") == "ENOENT"
    assert_kept(bad, neighbour)


def test_reply_that_is_too_long(bad: Peer, neighbour: Neighbour) -> None:
    """A list of children that fits in no message is E2BIG; in parts it comes complete."""
    names = [b"child-%04d" % number for number in range(500)]
    for name in names:
        assert bad.ask(Op.MKDIR, b"/many/" + name + b"\0") == OK
    assert bad.ask(Op.DIRECTORY, b"/many\0") == "E2BIG"
    listed = b""
    while not listed.endswith(b"\0\0"):
        part = bad.ask(Op.DIRECTORY_PART, b"/many\0%d\0" % len(listed))
        assert isinstance(part, bytes)
        assert len(part) <= 4096
        listed += part.partition(b"\0")[2]
    assert listed.split(b"\0")[:-2] == names
    beyond = bad.ask(Op.DIRECTORY_PART, b"/many\x0010000000\0")
    assert isinstance(beyond, bytes)
    assert beyond.partition(b"\0")[2] == b"\0"
    assert bad.ask(Op.RM, b"/many\0") == OK
    assert_kept(bad, neighbour)


def test_domain_errors(bad: Peer, neighbour: Neighbour) -> None:
    """Errors that depend on a domain: busy features, unknown targets, a second release."""
    assert bad.ask(Op.INTRODUCE, b"71\x001\x002\0") == OK
    assert bad.ask(Op.IS_DOMAIN_INTRODUCED, b"71\0") == b"T\0"
    assert bad.ask(Op.SET_FEATURE, b"71\x001\0") == "EBUSY"
    assert bad.ask(Op.SET_TARGET, b"71\x0072\0") == "ENOENT"
    assert bad.ask(Op.RELEASE, b"71\0") == OK
    assert bad.ask(Op.RELEASE, b"71\0") == "ENOENT"
    assert bad.ask(Op.IS_DOMAIN_INTRODUCED, b"71\0") == b"F\0"
    assert_kept(bad, neighbour)


def test_unprivileged_socket(start: Callable[..., Daemon]) -> None:
    """Where the daemon's own domain is not the privileged one, its clients are guests."""
    daemon = start("--priv-domid", "1")
    with Peer(daemon.socket) as guest:
        privileged = {
            Op.CONTROL: b"check\0",
            Op.INTRODUCE: b"7\x001\x002\0",
            Op.RELEASE: b"7\0",
            Op.RESUME: b"7\0",
            Op.SET_TARGET: b"7\x008\0",
            Op.IS_DOMAIN_INTRODUCED: b"7\0",
            Op.SET_FEATURE: b"7\x001\0",
            Op.GET_QUOTA: b"nodes\0",
            Op.SET_QUOTA: b"nodes\x001\0",
        }
        for op, payload in privileged.items():
            # Before anything of the payload is looked at.
            assert (op, guest.ask(op, payload), guest.ask(op)) == (op, "EACCES", "EACCES")
        assert guest.ask(Op.GET_FEATURE, b"7\0") == "EACCES"
        assert guest.ask(Op.GET_FEATURE) == b"15\0"
        for op in (Op.READ, Op.DIRECTORY, Op.GET_PERMS, Op.MKDIR, Op.WRITE, Op.RM, Op.SET_PERMS):
            assert (op, guest.ask(op, PATH_OPS[op] % b"/tool")) == (op, "EACCES")
            # What may not be seen is not said to be missing.
            assert (op, guest.ask(op, PATH_OPS[op] % b"/none")) == (op, "EACCES")
        assert guest.ask(15) == "ENOSYS"
        assert guest.ask(Op.WATCH, b"/tool\0token\0") == OK
