"""Walking a tree with many requests in flight.

The children of a node are known only after its DIRECTORY reply, so a walk that waits for each
reply spends its time in round trips. Here all nodes known and not yet asked for lie on a stack in
depth-first order, and the window is kept full from its top::

    to ask:   [ /c  /b  /a/2 ]  ->  window: READ /a/1, DIRECTORY /a/1, READ /a/2 ...
    to give:  [ /c  /b  /a/2  /a/1 ]  the top is given out as soon as its replies are in

Nodes come out in depth-first order, children in the order the server lists them. Memory is
proportional to the nodes asked for and not given out yet, about the window's size, plus the
names of their siblings. A tree has many nodes and few permission lists: each list is made once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from functools import lru_cache

from xsd.client import requests
from xsd.client.errors import ProtocolError, XenstoreError
from xsd.client.perms import Permission
from xsd.client.sync import Client, Survey, list_by_parts, list_children
from xsd.client.wire import Op


class Node:
    """A node on the walk: ``value`` is None if it may not be read; ``depth`` 0 is the start."""

    __slots__ = ("children", "depth", "gone", "name", "path", "perms", "ready", "value")

    def __init__(self, path: str, name: str, depth: int) -> None:
        self.path = path
        self.name = name
        self.depth = depth
        self.value: bytes | None = None
        self.perms: tuple[Permission, ...] | None = None
        self.children: Sequence[Node] = ()
        self.ready = False
        self.gone = False

    def adopt(self, names: list[str]) -> Sequence[Node]:
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
    survey = Survey(
        client, [Op.READ] * values + [Op.GET_PERMS] * perms + [Op.DIRECTORY], tx_id=tx_id
    )
    root = Node(start, start, 0)
    ask, give = [*reversed(root.adopt(list_children(client, start, tx_id)))], [root]
    asked: deque[Node] = deque()
    long: list[Node] = []
    try:
        while give:
            while give and give[-1].ready:
                node = give.pop()
                if node.children:
                    give.extend(reversed(node.children))
                    node.children = ()
                if not node.gone:
                    yield node
            if ask and not long and (room := survey.room) > 0:
                batch = ask[: -room - 1 : -1]
                del ask[-room:]
                survey.ask([node.path for node in batch])
                asked.extend(batch)
            if asked:
                for answer in survey.answers():
                    node = asked.popleft()
                    if values:
                        node.value = _granted(node, answer[0])
                    if perms and (entries := _granted(node, answer[-2])) is not None:
                        node.perms = _permissions(entries)
                    listing = answer[-1]
                    if not listing:
                        node.ready = True
                    elif isinstance(listing, bytes):
                        ask.extend(reversed(node.adopt(_names(listing))))
                    elif listing == "ENOENT":
                        node.gone = node.ready = True
                    elif listing == "E2BIG":
                        long.append(node)
                    else:
                        raise XenstoreError(listing, Op.DIRECTORY.name, node.path)
            # What comes in parts is asked for one by one, and only with nothing else under way.
            while long and not asked:
                node = long.pop()
                ask.extend(reversed(node.adopt(list_by_parts(client, node.path, tx_id))))
    finally:
        if client.fileno() >= 0:
            survey.drain()


def _granted(node: Node, answer: bytes | str) -> bytes | None:
    if isinstance(answer, bytes):
        return answer
    node.gone = node.gone or answer == "ENOENT"
    return None


def _names(payload: bytes) -> list[str]:
    try:
        return requests.decode_names(payload)
    except ValueError as malformed:
        raise ProtocolError(f"malformed reply to DIRECTORY: {malformed}") from malformed


@lru_cache(maxsize=1024)
def _permissions(payload: bytes) -> tuple[Permission, ...]:
    try:
        return tuple(requests.decode_permissions(payload))
    except ValueError as malformed:
        raise ProtocolError(f"malformed reply to GET_PERMS: {malformed}") from malformed
