"""Debian's own clients on our daemon: each tool, its output and its exit status."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest
from peer import Neighbour, Peer, message
from serving import Daemon, Drain

from xsd.client.wire import Op

OK = b"OK\0"
Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
THOROUGH = os.environ.get("XSD_REQUIRE_CLIENTS") == "1"


@pytest.fixture(params=["xenstore-", "xenstore "], ids=["own name", "first argument"])
def call(request: pytest.FixtureRequest, tool: Run) -> Callable[..., tuple[int, bytes]]:
    """Runs a mode in either form: ``call("read", "/a")`` gives exit status and output."""

    def run(mode: str, *words: str | bytes) -> tuple[int, bytes]:
        if request.param == "xenstore-":
            done = tool(f"xenstore-{mode}", *words)
        else:
            done = tool("xenstore", mode, *words)
        return done.returncode, done.stdout

    return run


Call = Callable[..., tuple[int, bytes]]


@pytest.fixture
def clean(peer: Peer) -> Iterator[Peer]:
    """A connection; what the test makes below /d goes afterwards."""
    yield peer
    assert peer.ask(Op.RM, b"/d\0") in (OK, "ENOENT")


def test_write_and_read(call: Call, clean: Peer) -> None:
    """What is written is read, escapes and several nodes included."""
    assert call("write", "/d/a", "one", "/d/b", "two\\n\\x01") == (0, b"")
    assert clean.ask(Op.READ, b"/d/b\0") == b"two\n\x01"
    assert call("read", "/d/a", "/d/b") == (0, b"one\ntwo\\n\\001\n")
    assert call("read", "-p", "/d/a") == (0, b"/d/a: one\n")
    assert call("read", "-R", "/d/b") == (0, b"two\n\x01")
    assert call("read", "/d/none") == (1, b"")
    assert call("write", "d-relative", "x") == (0, b"")
    assert clean.ask(Op.READ, b"/local/domain/0/d-relative\0") == b"x"
    assert clean.ask(Op.RM, b"d-relative\0") == OK
    assert call("write", "/d//a", "x") == (1, b"")
    assert call("write", "/d/a") == (1, b"")


def test_write_large(call: Call, clean: Peer) -> None:
    """Values near the longest that fit."""
    text = "v" * 4000
    assert call("write", "/d/a", text) == (0, b"")
    assert call("read", "/d/a") == (0, text.encode() + b"\n")
    # The library refuses what fits in no message before it is sent.
    assert call("write", "/d/a", "v" * 4096) == (1, b"")
    assert clean.ask(Op.READ, b"/d/a\0") == text.encode()


def test_rm(call: Call, clean: Peer) -> None:
    """A node goes with all below it; -t takes empty parents along."""
    assert call("write", "/d/a/b/c", "1", "/d/keep", "2") == (0, b"")
    assert call("rm", "/d/a/b") == (0, b"")
    assert call("list", "/d") == (0, b"a\nkeep\n")
    assert call("write", "/d/a/b/c", "1") == (0, b"")
    assert call("rm", "-t", "/d/a/b/c") == (0, b"")
    assert call("list", "/d") == (0, b"keep\n")
    # A missing leaf is no error, one below a missing node is.
    assert call("rm", "/d/none") == (0, b"")
    assert call("rm", "/") == (1, b"")


def test_exists(call: Call, clean: Peer) -> None:
    """The exit status says it, without output."""
    assert call("write", "/d/a", "1") == (0, b"")
    assert call("exists", "/d/a", "/d") == (0, b"")
    assert call("exists", "/d/a", "/d/none") == (1, b"")


def test_list(call: Call, clean: Peer) -> None:
    """One child per line, alphabetically; with -p as paths."""
    assert call("write", "/d/b", "", "/d/a", "", "/d/c/x", "") == (0, b"")
    assert call("list", "/d") == (0, b"a\nb\nc\n")
    assert call("list", "-p", "/d") == (0, b"/d/a\n/d/b\n/d/c\n")
    assert call("list", "/d/a") == (0, b"")
    assert call("list", "/d/none") == (1, b"")


def test_ls(call: Call, clean: Peer) -> None:
    """The tree with values, as tree and flat, with permissions."""
    assert call("write", "/d/a", "1", "/d/a/b", "two", "/d/c", "") == (0, b"")
    assert call("ls", "/d") == (0, b'a = "1"\n b = "two"\nc = ""\n')
    assert call("ls", "-f", "/d") == (0, b'/d/a = "1"\n/d/a/b = "two"\n/d/c = ""\n')
    status, out = call("ls", "-p", "/d")
    assert (status, out.count(b"(n0)")) == (0, 3)
    assert call("ls", "/d/none")[0] == 1


def test_chmod(call: Call, clean: Peer) -> None:
    """Permissions of a node, of all below it, of all above it."""
    assert call("write", "/d/a/b", "x", "/d/c", "y") == (0, b"")
    assert call("chmod", "/d/a", "n0", "r3") == (0, b"")
    assert clean.ask(Op.GET_PERMS, b"/d/a\0") == b"n0\0r3\0"
    assert clean.ask(Op.GET_PERMS, b"/d/a/b\0") == b"n0\0"
    assert call("chmod", "-r", "/d", "b7", "w9") == (0, b"")
    for path in (b"/d", b"/d/a", b"/d/a/b", b"/d/c"):
        assert clean.ask(Op.GET_PERMS, path + b"\0") == b"b7\0w9\0"
    assert call("chmod", "-u", "/d/a/b", "n0") == (0, b"")
    for path in (b"/d", b"/d/a", b"/d/a/b"):
        assert clean.ask(Op.GET_PERMS, path + b"\0") == b"n0\0"
    assert clean.ask(Op.GET_PERMS, b"/d/c\0") == b"b7\0w9\0"
    assert call("chmod", "/d/none", "n0") == (1, b"")


def test_watch(
    debian: Callable[[str], str], daemon: Daemon, clean: Peer, neighbour: Neighbour
) -> None:
    """The first event is for the watch itself, then one for each change at and below the path."""
    process = subprocess.Popen(
        [debian("xenstore-watch"), "-n", "4", "/d"],
        env=daemon.environ(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout:
        out = Drain(process.stdout.fileno())
        try:
            out.await_text("/d\n", 60)
            assert clean.ask(Op.WRITE, b"/d/a\0x") == OK
            assert clean.ask(Op.WRITE, b"/elsewhere\0x") == OK
            assert clean.ask(Op.SET_PERMS, b"/d/a\0n0\0r1\0") == OK
            neighbour.works()
            out.await_text("/d/a\n/d/a\n", 60)
            assert clean.ask(Op.RM, b"/d\0") == OK
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait(60)
            out.finish(60)
    assert out.text() == "/d\n/d/a\n/d/a\n/d\n"
    assert clean.ask(Op.RM, b"/elsewhere\0") == OK


def test_no_daemon(debian: Callable[[str], str], daemon: Daemon) -> None:
    """The tools do talk to the daemon of these tests, and to no other."""
    environ = daemon.environ() | {"XENSTORED_PATH": daemon.socket + "-none"}
    done = subprocess.run(
        [debian("xenstore-read"), "/tool"], env=environ, capture_output=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, b"")


def test_upstream_test_program(tool: Run, neighbour: Neighbour) -> None:
    """Every test of test-xenstore, a thousand times."""
    done = tool("test-xenstore", "-i", "1000")
    assert (done.returncode, done.stderr) == (0, b"")
    neighbour.works()


@pytest.mark.slow
def test_upstream_test_program_at_random(tool: Run, neighbour: Neighbour) -> None:
    """The same tests in random order, for a while."""
    done = tool("test-xenstore", "-r", "60" if THOROUGH else "5")
    assert (done.returncode, done.stderr) == (0, b"")
    neighbour.works()


def test_upstream_test_program_several_at_once(
    debian: Callable[[str], str], tool: Run, neighbour: Neighbour
) -> None:
    """Copies of it that disturb one another only as far as transactions are repeated.

    All of them use the same nodes, so a result other than 0 is allowed; ending is not optional.
    """
    debian("test-xenstore")  # skips here, not in a thread
    ended: list[int] = []

    def one() -> None:
        ended.append(tool("test-xenstore", "-i", "20").returncode)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(ended) == 4
    neighbour.works()


# -- large trees -----------------------------------------------------------------------------


def fill(peer: Peer, nodes: dict[bytes, bytes]) -> None:
    """Writes many nodes, some hundred requests at a time."""
    items = sorted(nodes.items())
    for begin in range(0, len(items), 500):
        batch = items[begin : begin + 500]
        peer.send(b"".join(message(Op.WRITE, path + b"\0" + value) for path, value in batch))
        assert [peer.reply().payload for _ in batch] == [OK] * len(batch)


def flat(nodes: dict[bytes, bytes]) -> list[bytes]:
    """What ls -f shows of them, in the order of the tree."""
    order = sorted(nodes, key=lambda path: path.split(b"/"))
    return [path + b' = "' + nodes[path] + b'"' for path in order]


@pytest.fixture
def with_parents() -> Callable[[dict[bytes, bytes], bytes], dict[bytes, bytes]]:
    """Adds the nodes between a top and the leaves, which have empty values."""

    def add(nodes: dict[bytes, bytes], top: bytes) -> dict[bytes, bytes]:
        every = dict(nodes)
        for path in nodes:
            while (path := path.rpartition(b"/")[0]) != top:
                every.setdefault(path, b"")
        return every

    return add


@pytest.mark.parametrize("program", ["debian", "xsd"])
@pytest.mark.parametrize("shape", ["domains", "wide"])
def test_large_tree(
    program: str,
    shape: str,
    tool: Run,
    xsd: Run,
    daemon: Daemon,
    clean: Peer,
    with_parents: Callable[[dict[bytes, bytes], bytes], dict[bytes, bytes]],
) -> None:
    """50 000 nodes, or a directory with 3000 children, are listed completely, line by line."""
    if shape == "wide":
        leaves = {b"/d/wide/child-%05d" % n: b"value %d" % n for n in range(3000)}
    else:
        leaves = {
            b"/d/local/domain/%d/device/vif/%d/%s" % (domid, device, key): b"%d" % (domid * device)
            for domid in range(500)
            for device in range(9)
            for key in (b"mac", b"state", b"backend", b"handle", b"queues", b"mtu", b"type",
                        b"bridge", b"script", b"online")
        }  # fmt: skip
    nodes = with_parents(leaves, b"/d")
    assert len(nodes) >= (3000 if shape == "wide" else 50_000)
    fill(clean, leaves)
    if program == "debian":
        done = tool("xenstore-ls", "-f", "/d")
    else:
        done = xsd("ls", "-f", "/d", environ=daemon.environ())
    lines = done.stdout.splitlines()
    assert (done.returncode, len(lines)) == (0, len(nodes))
    assert lines == flat(nodes)
