"""Our tools beside Debian's, on the same tree: same output, same exit status.

Deliberate differences are not compared: what is written to stderr, the exit status of ``-h``, a
lone backslash at the end of a value, ``list -p /``, ``chmod`` with a malformed permission, and
unknown options, after which Debian's tools go on.
"""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import struct
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from xsd.client import requests
from xsd.client.perms import Permission
from xsd.client.sync import Client

SECONDS = 30.0
TOOLS = ["read", "write", "rm", "exists", "list", "ls", "chmod", "watch"]
MISSING = [tool for tool in TOOLS if shutil.which(f"xenstore-{tool}") is None]

pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"Debian's package xenstore-utils is not installed: {MISSING}"
)

Outcome = tuple[int, bytes]


class Pair(NamedTuple):
    """Both sets of tools: each is called with a tool's name and words, gives (status, stdout)."""

    theirs: Callable[..., Outcome]
    ours: Callable[..., Outcome]


@pytest.fixture
def pair(programs: Path, xenstored_socket: str) -> Pair:
    """Debian's tools and ours, on the live server."""
    environ = {**os.environ, "XENSTORED_PATH": xenstored_socket}

    def run(program: str, words: tuple[str, ...]) -> Outcome:
        result = subprocess.run(
            [program, *words], capture_output=True, env=environ, timeout=SECONDS, check=False
        )
        return result.returncode, result.stdout

    return Pair(
        lambda tool, *words: run(f"xenstore-{tool}", words),
        lambda tool, *words: run(str(programs / f"xenstore-{tool}"), words),
    )


def on_terminal(columns: int, command: list[str], environ: dict[str, str]) -> bytes:
    """What a command writes to a terminal of this width."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    modes = termios.tcgetattr(slave)
    modes[1] &= ~termios.OPOST
    termios.tcsetattr(slave, termios.TCSANOW, modes)
    process = subprocess.Popen(command, stdout=slave, env=environ)
    os.close(slave)
    out = bytearray()
    try:
        while data := os.read(master, 65536):
            out += data
    except OSError:  # the last one to write has closed its end
        pass
    finally:
        os.close(master)
        assert process.wait(SECONDS) == 0
    return bytes(out)


@pytest.fixture
def rich(store: Client) -> Client:
    """A tree with every kind of value, name and permission."""
    nodes = {
        "/t/empty": b"",
        "/t/all": bytes(range(256)),
        "/t/quotes": b"\"'\\",
        "/t/digits-after-escapes": b"\x001\x012\x7f3\xe9a\x01g",
        "/t/utf8": "grüße".encode(),
        "/t/huge": b"z" * 1900,
        f"/t/{'N' * 70}": b"v",
        f"/t/{'M' * 75}/child": b"v" * 30,
        f"/t/{'L' * 90}": b"v" * 30,
        f"/t/deep/{'/'.join(f'd{level}' for level in range(40))}": b"bottom",
    }
    for size in (*range(0, 30, 3), *range(44, 72), 86, 87, 88, 130):
        nodes[f"/t/length/v{size}"] = b"x" * size
        nodes[f"/t/escaped/e{size}"] = b"x" * size + b"\n\x01\xff"
    outcomes = list(store.pipeline(requests.write(path, value) for path, value in nodes.items()))
    assert outcomes == [None] * len(nodes)
    store.mkdir("/t/permissions")
    store.set_perms("/t/permissions", list(map(Permission.parse, ("r0", "n1", "w2", "b65535"))))
    return store


@pytest.mark.parametrize("options", [(), ("-f",), ("-p",), ("-fp",)])
def test_ls(options: tuple[str, ...], rich: Client, pair: Pair) -> None:
    """A tree that does not go to a terminal."""
    expected = pair.theirs("ls", *options, "/t")
    assert pair.ours("ls", *options, "/t") == expected
    assert expected[1] != b""


@pytest.mark.parametrize("columns", [0, 1, 2, 5, 20, 61, 62, 81, 100])
def test_ls_on_a_terminal(
    columns: int, rich: Client, programs: Path, xenstored_socket: str
) -> None:
    """A tree cut to every kind of width, absurd ones included."""
    environ = {**os.environ, "XENSTORED_PATH": xenstored_socket}
    for options in ("-p", "-fp"):
        expected = on_terminal(columns, ["xenstore-ls", options, "/t"], environ)
        actual = on_terminal(columns, [str(programs / "xenstore-ls"), options, "/t"], environ)
        assert actual == expected


@pytest.mark.parametrize("words", [("/t", "/t/length"), ("/t/none",), ("/t/",), ("",), ("t-none",)])
def test_ls_arguments(words: tuple[str, ...], rich: Client, pair: Pair) -> None:
    """Several trees, none, and paths that cannot be."""
    assert pair.ours("ls", *words) == pair.theirs("ls", *words)


@pytest.mark.parametrize(
    "words",
    [
        ("/t/all",),
        ("-R", "/t/all"),
        ("--raw", "/t/all", "/t/empty"),
        ("-p", "/t/quotes", "/t/empty"),
        ("/t/quotes", "-pR", "/t/utf8"),
        ("-s", "/t/digits-after-escapes"),
        ("/t/quotes", "/t/none", "/t/utf8"),
        ("/t//quotes",),
        (),
    ],
)
def test_read(words: tuple[str, ...], rich: Client, pair: Pair) -> None:
    """Values in every form; the first missing one ends it."""
    assert pair.ours("read", *words) == pair.theirs("read", *words)


@pytest.mark.parametrize(
    "words",
    [
        ("list", "/t"),
        ("list", "-p", "/t/length"),
        ("list", "/t", "/t/none"),
        ("list", "/t/empty"),
        ("list", "/"),
        ("list",),
        ("exists", "/t/all", "/t/empty"),
        ("exists", "/t/all", "/t/none"),
        ("exists", "/t//"),
        ("exists",),
        ("watch", "-n", "1", "/t"),
        ("watch", "-n", "2", "/t", "t-relative"),
        ("watch", "-n", "0", "/t"),
        ("watch", "-n", "1", "@releaseDomain"),
        ("watch", "-n", "1", "/t/"),
        ("watch", "-n", "1"),
        ("rm", "/t/none"),
        ("rm", "/t/none/none"),
        ("rm", "/"),
        ("rm",),
        ("write", "/t/a"),
        ("write", "/t/a", "1", "/t/b"),
        ("write", "/t//a", "1"),
        ("chmod", "/t/none", "n0"),
        ("chmod", "-r", "/t/none", "n0"),
        ("chmod", "/t"),
    ],
)
def test_the_others(words: tuple[str, ...], rich: Client, pair: Pair) -> None:
    """Lists, checks, watches and failures, none of which changes the tree."""
    before = dump(rich)
    assert pair.ours(*words) == pair.theirs(*words)
    assert dump(rich) == before


def dump(store: Client, path: str = "/t") -> list[tuple[str, bytes, list[Permission]]]:
    found = [(path, store.read(path), store.get_perms(path))]
    for name in store.ls(path):
        found += dump(store, f"{path}/{name}")
    return found


@pytest.mark.parametrize(
    "words",
    [
        ("write", "@/a", "x\\x41\\n\\101\\0\\x4z\\q\\777\\xzz"),
        ("write", "-R", "@/a", "x\\n"),
        ("write", "@/a", "1", "@/new/b/c", ""),
        ("write", "@/a", "1", "@//b", "2"),
        ("rm", "@/d/e"),
        ("rm", "@/a", "@/none", "@/d/e/f"),
        ("rm", "@/a", "@/none/none"),
        ("rm", "-t", "@/d/e/f/g"),
        ("rm", "--tidy", "@/v/x/y", "@/d/e/h"),
        ("chmod", "@/d/e", "n0", "r5"),
        ("chmod", "-r", "@/d", "n0", "b7", "w8"),
        ("chmod", "-u", "@/d/e/f", "r0"),
        ("chmod", "-ru", "@/d/e", "w0"),
    ],
)
def test_changes(words: tuple[str, ...], store: Client, pair: Pair) -> None:
    """Both change the tree in the same way."""
    seen = []
    for tools in pair:
        store.rm("/t")
        for path in ("/a", "/d/e/f/g", "/d/e/h", "/v/x/y"):
            store.write("/t" + path, b"")
        store.write("/t/v", b"value")
        outcome = tools(*(word.replace("@", "/t") for word in words))
        seen.append((outcome, dump(store)))
    assert seen[1] == seen[0]


CONTROL = Path("/usr/lib/xen-4.17/bin/xenstore-control")


@pytest.mark.skipif(not CONTROL.exists(), reason=f"Debian's {CONTROL} is not installed")
@pytest.mark.parametrize(
    "words", [("check",), ("help",), ("quota",), ("no-such-command",), ("live-update",), ()]
)
def test_control(words: tuple[str, ...], pair: Pair, xenstored_socket: str) -> None:
    """Answers, and the exit status of each kind of failure."""
    environ = {**os.environ, "XENSTORED_PATH": xenstored_socket}
    expected = subprocess.run(
        [CONTROL, *words], capture_output=True, env=environ, timeout=SECONDS, check=False
    )
    assert pair.ours("control", *words) == (expected.returncode, expected.stdout)
