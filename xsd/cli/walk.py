"""Walking a tree with many requests in flight.

The children of a node are known only after its DIRECTORY reply, so a walk that waits for each
reply spends its time in round trips. Here all nodes known and not yet asked for lie on a stack in
depth-first order, and the window is kept full from its top::

    to ask:   [ /c  /b  /a/2 ]  ->  window: READ /a/1, DIRECTORY /a/1, READ /a/2 ...
    to give:  [ /c  /b  /a/2  /a/1 ]  the top is given out as soon as its replies are in

Nodes come out in depth-first order, children in the order the server lists them. Memory is
proportional to the nodes asked for and not given out yet, about the window's size, plus the
names of their siblings.
"""

from __future__ import annotations

from collections.abc import Generator

from xsd.client import requests
from xsd.client.errors import XenstoreError
from xsd.client.perms import Permission
from xsd.client.sync import Client, Pipeline

#: Requests for one node: value, permissions, children.
_PER_NODE = 3

#: What a reply is about; a part of a long list of children has its ``ChildListing`` instead.
_VALUE, _PERMS, _CHILDREN = "value", "perms", "children"


class Node:
    """A node on the walk: ``value`` is None if it may not be read; ``depth`` 0 is the start."""

    __slots__ = ("children", "depth", "gone", "name", "path", "perms", "ready", "value")

    def __init__(self, path: str, name: str, depth: int) -> None:
        self.path = path
        self.name = name
        self.depth = depth
        self.value: bytes | None = None
        self.perms: list[Permission] | None = None
        self.children: list[Node] = []
        self.ready = False
        self.gone = False

    def adopt(self, names: list[str]) -> list[Node]:
        """Make the children, after which the node is complete."""
        base = self.path if self.path.endswith("/") else self.path + "/"
        depth = self.depth + 1
        self.children = [Node(base + name, name, depth) for name in names]
        self.ready = True
        return self.children


def walk(
    client: Client, start: str, *, values: bool = False, perms: bool = False, tx_id: int = 0
) -> Generator[Node, None, None]:
    """Every node from ``start`` on, it included, parents before children.

    With ``values`` and ``perms`` the nodes below the start carry those. A node that vanishes
    meanwhile is left out. Raises ``XenstoreError`` if the start is missing or the children of a
    node cannot be listed. The client is busy until the iterator ends or is closed.
    """
    line = Pipeline(client, tx_id=tx_id)
    root = Node(start, start, 0)
    ask, give = [root], [root]
    try:
        while give:
            while ask and line.room >= _PER_NODE:
                node = ask.pop()
                if values and node.depth:
                    line.add(requests.read(node.path), (node, _VALUE))
                if perms and node.depth:
                    line.add(requests.get_perms(node.path), (node, _PERMS))
                line.add(requests.directory(node.path), (node, _CHILDREN))
            while give and give[-1].ready:
                node = give.pop()
                give.extend(reversed(node.children))
                node.children = []
                if not node.gone:
                    yield node
            if line.in_flight:
                (node, what), outcome = line.next()
                if isinstance(outcome, XenstoreError):
                    _failed(line, node, what, outcome)
                elif what is _VALUE:
                    node.value = outcome
                elif what is _PERMS:
                    node.perms = outcome
                elif what is _CHILDREN:
                    ask.extend(reversed(node.adopt(outcome)))
                elif (names := what.received(outcome)) is None:
                    line.add(what.request(), (node, what))
                else:
                    ask.extend(reversed(node.adopt(names)))
    finally:
        if client.fileno() >= 0:
            line.drain()


def _failed(line: Pipeline, node: Node, what: object, error: XenstoreError) -> None:
    listing = what is _CHILDREN or isinstance(what, requests.ChildListing)
    if error.name == "ENOENT" and node.depth:
        node.gone = True
        node.ready = node.ready or listing
    elif what is _CHILDREN and error.name == "E2BIG":
        parts = requests.ChildListing(node.path)
        line.add(parts.request(), (node, parts))
    elif listing:
        raise error
