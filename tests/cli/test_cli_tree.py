"""How ls lays out a line, and how it walks a tree."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from xsd.cli.tree import line
from xsd.cli.walk import Node, walk
from xsd.client.errors import XenstoreError
from xsd.client.perms import Permission
from xsd.client.sync import Client
from xsd.client.wire import Op, Packet, pack


def node(value: bytes | None, *, depth: int = 1, name: str = "name") -> Node:
    made = Node(f"/dir/{name}", name, depth)
    made.value = value
    made.perms = (Permission("n", 0), Permission("r", 5))
    return made


def lay(made: Node, width: int | None, *, flat: bool = False, perms: bool = False) -> str:
    return line(made, flat=flat, perms=perms, width=width)


def test_plain() -> None:
    """Name and value; a tree is indented by one blank per level."""
    assert lay(node(b"v"), 80) == 'name = "v"\n'
    assert lay(node(b"v", depth=3), 80) == '  name = "v"\n'
    assert lay(node(b"v", depth=3), None, flat=True) == '/dir/name = "v"\n'


def test_unreadable() -> None:
    """A value that may not be read is a colon."""
    assert lay(node(None, depth=2), 80, perms=True) == " name:\n"


def test_cut() -> None:
    """A value is cut when it has more bytes than there is room for, in its escaped form."""
    assert lay(node(b"x" * 68), 80) == f'name = "{"x" * 68}"\n'
    assert lay(node(b"x" * 69), 80) == f'name = "{"x" * 68}\\..."\n'
    escaped = "\\001" * 17
    assert lay(node(b"\x01" * 69), 80) == f'name = "{escaped}\\..."\n'
    assert lay(node(b"x" * 500), None) == f'name = "{"x" * 500}"\n'


def test_cut_without_room() -> None:
    """A name is cut to the width too; beyond the last column nothing is."""
    assert lay(node(b"v", name="n" * 40), 30) == f'{"n" * 22} = "\\..."\n'
    assert lay(node(b"v" * 9, depth=60), 30) == f'{" " * 59}name = "{"v" * 9}\\..."\n'


def test_permissions() -> None:
    """Permissions follow dots up to column 60 or the terminal's width, or three blanks."""
    assert lay(node(b"v"), 80, perms=True) == 'name = "v"' + " ." * 25 + "  (n0,r5)\n"
    assert lay(node(b"vv"), 80, perms=True) == 'name = "vv" ' + " ." * 24 + "  (n0,r5)\n"
    assert lay(node(b"v"), 20, perms=True) == 'name = "v"' + " ." * 5 + "  (n0,r5)\n"
    assert lay(node(b"x" * 60), 80, perms=True) == f'name = "{"x" * 60}"   (n0,r5)\n'
    assert lay(node(b"x" * 90), 80, perms=True) == f'name = "{"x" * 68}\\..."  (n0,r5)\n'
    assert lay(node(b"v"), None, flat=True, perms=True) == '/dir/name = "v"   (n0,r5)\n'


Script = list[tuple[Op, bytes]]


@contextmanager
def scripted(script: Script) -> Iterator[Client]:
    """A client whose server has already given these replies."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for number, (op, payload) in enumerate(script, 1):
        theirs.sendall(pack(Packet(op, number, 0, payload)))
    with theirs, Client(ours, timeout=20) as client:
        yield client


ENOENT = (Op.ERROR, b"ENOENT\0")
LEAF = (Op.DIRECTORY, b"")


def visit(script: Script, *, values: bool = True, perms: bool = False) -> list[tuple[str, object]]:
    with scripted(script) as client:
        return [(each.path, each.value) for each in walk(client, "/", values=values, perms=perms)]


def test_walk_is_depth_first() -> None:
    """Parents before children, children in the server's order, whatever order replies come in."""
    script = [
        (Op.DIRECTORY, b"b\0a\0"),
        (Op.READ, b"1"),
        (Op.DIRECTORY, b"z\0"),
        (Op.READ, b"2"),
        LEAF,
        (Op.READ, b"3"),
        LEAF,
    ]
    assert visit(script) == [("/", None), ("/b", b"1"), ("/b/z", b"3"), ("/a", b"2")]


@pytest.mark.parametrize("vanished", [[ENOENT, ENOENT], [(Op.READ, b"1"), ENOENT], [ENOENT, LEAF]])
def test_walk_skips_what_vanishes(vanished: Script) -> None:
    """A node that goes away between being listed and being read is left out."""
    script = [(Op.DIRECTORY, b"a\0b\0"), *vanished, (Op.READ, b"2"), LEAF]
    assert visit(script) == [("/", None), ("/b", b"2")]


def test_walk_shows_unreadable_values() -> None:
    """A value that may not be read does not end the walk."""
    script = [(Op.DIRECTORY, b"a\0"), (Op.ERROR, b"EACCES\0"), LEAF]
    assert visit(script) == [("/", None), ("/a", None)]


def test_walk_long_directory() -> None:
    """A directory too long for one reply is fetched in parts amid everything else."""
    script = [
        (Op.DIRECTORY, b"a\0b\0"),
        (Op.READ, b"1"),
        (Op.ERROR, b"E2BIG\0"),
        (Op.READ, b"2"),
        LEAF,
        (Op.DIRECTORY_PART, b"7\0x\0"),
        (Op.DIRECTORY_PART, b"7\0y\0\0"),
        (Op.READ, b"3"),
        LEAF,
        (Op.READ, b"4"),
        LEAF,
    ]
    expected = [("/", None), ("/a", b"1"), ("/a/x", b"3"), ("/a/y", b"4"), ("/b", b"2")]
    assert visit(script) == expected


@pytest.mark.parametrize(
    ("script", "path"),
    [
        ([ENOENT], "/"),
        ([(Op.DIRECTORY, b"a\0"), (Op.READ, b""), (Op.ERROR, b"EACCES\0")], "/a"),
        (
            [
                (Op.DIRECTORY, b"a\0"),
                (Op.READ, b""),
                (Op.ERROR, b"E2BIG\0"),
                (Op.ERROR, b"ENOSYS\0"),
            ],
            "/a",
        ),
    ],
)
def test_walk_fails(script: Script, path: str) -> None:
    """A start that is missing and children that cannot be listed are errors with their path."""
    with pytest.raises(XenstoreError) as caught:
        visit(script)
    assert caught.value.path == path


def test_walk_can_be_left() -> None:
    """Leaving a walk early leaves the client in step."""
    script = [
        (Op.DIRECTORY, b"a\0b\0"),
        (Op.DIRECTORY, b""),
        (Op.DIRECTORY, b""),
        (Op.READ, b"mine"),
    ]
    with scripted(script) as client:
        nodes = walk(client, "/")
        assert [next(nodes).path, next(nodes).path] == ["/", "/a"]
        nodes.close()
        assert client.read("/x") == b"mine"
