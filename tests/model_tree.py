"""What the oracle is made of: message numbers, nodes, paths, numbers, permission texts.

Everything here is a plain value or a pure function over the dict that is the tree. What depends
on a text alone is remembered, as a simulation asks the same millions of times.
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple


class Msg(IntEnum):
    """The message types that mean something."""

    CONTROL = 0
    DIRECTORY = 1
    READ = 2
    GET_PERMS = 3
    WATCH = 4
    UNWATCH = 5
    TRANSACTION_START = 6
    TRANSACTION_END = 7
    INTRODUCE = 8
    RELEASE = 9
    GET_DOMAIN_PATH = 10
    WRITE = 11
    MKDIR = 12
    RM = 13
    SET_PERMS = 14
    WATCH_EVENT = 15
    ERROR = 16
    IS_DOMAIN_INTRODUCED = 17
    RESUME = 18
    SET_TARGET = 19
    RESET_WATCHES = 21
    DIRECTORY_PART = 22
    GET_FEATURE = 23
    SET_FEATURE = 24
    GET_QUOTA = 25
    SET_QUOTA = 26


SOCKET, RING = 0, 1
REMEMBERED = 1 << 14

OK = b"OK\0"
ROOT = b"/"
INTRODUCE_NODE, RELEASE_NODE = b"@introduceDomain", b"@releaseDomain"
PAYLOAD_MAX = 4096
ANY_DOMAIN = 32757
SELF_DOMID = 32752
FEATURES = 15
FEATURE_DEPTH, FEATURE_ANY_DOMAIN = 4, 8
EVENT_TIMEOUT_NS = 20_000_000_000

PRIVILEGED_TYPES = {
    Msg.CONTROL, Msg.INTRODUCE, Msg.RELEASE, Msg.IS_DOMAIN_INTRODUCED, Msg.RESUME, Msg.SET_TARGET,
    Msg.SET_FEATURE, Msg.GET_QUOTA, Msg.SET_QUOTA,
}  # fmt: skip

HARD_QUOTAS = {
    "nodes": 1000,
    "watches": 128,
    "outstanding": 20,
    "memory": 2621440,
    "transactions": 10,
    "transaction-nodes": 1024,
    "node-permissions": 5,
    "path-max": 2048,
    "node-size": 2048,
    "transaction-requests": 1024,
    "watch-events": 1024,
}
# The order in which GET_QUOTA lists the names: those every client knows, then our own.
QUOTA_NAMES = (
    "nodes watches outstanding memory soft-memory transactions transaction-nodes "
    "node-permissions path-max node-size "
    "soft-nodes soft-watches soft-outstanding soft-transactions soft-transaction-nodes "
    "soft-node-permissions soft-path-max soft-node-size transaction-requests "
    "soft-transaction-requests watch-events soft-watch-events"
)
QUOTA_SPELLINGS = {"path-length": "path-max", "permissions": "node-permissions"}


class RequestError(Exception):
    """A request that is answered with an error; carries the errno name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Packet(NamedTuple):
    """One message from the daemon."""

    type: int
    req_id: int
    tx_id: int
    payload: bytes


class Entry(NamedTuple):
    """One permission: a letter of ``nrwb``, whom it is for, whether it is void for ever."""

    letter: str
    domid: int
    ignored: bool = False


Perms = tuple[Entry, ...]


class Node(NamedTuple):
    """A node; ``self_stamp`` moves with value and permissions, ``kids_stamp`` with the children.

    ``kids`` are the names of its children in bytewise order.
    """

    value: bytes
    perms: Perms
    self_stamp: int
    kids_stamp: int
    kids: tuple[bytes, ...] = ()

    @property
    def owner(self) -> int:
        return self.perms[0].domid


Tree = dict[bytes, Node]


class Op(NamedTuple):
    """A change of the tree; ``creator`` is the unprivileged domain that will own new nodes."""

    kind: int
    path: bytes
    value: bytes = b""
    perms: Perms = ()
    creator: int | None = None


# --- paths ----------------------------------------------------------------------------------


def is_special(path: bytes) -> bool:
    return path.startswith(b"@")


@lru_cache(REMEMBERED)
def parent(path: bytes) -> bytes:
    """The path above; the root stands above itself and above the special nodes."""
    return path.rpartition(b"/")[0] or ROOT


@lru_cache(REMEMBERED)
def name_of(path: bytes) -> bytes:
    return path.rpartition(b"/")[2]


@lru_cache(REMEMBERED)
def levels(path: bytes) -> int:
    """How many names a path has."""
    return len([part for part in path.split(b"/") if part])


@lru_cache(REMEMBERED)
def lineage(path: bytes) -> tuple[bytes, ...]:
    """All paths from the root down to `path`; special paths do not stand below the root."""
    chain = [path]
    while parent(chain[0]) != chain[0]:
        chain.insert(0, parent(chain[0]))
    return tuple(chain[1:] if is_special(path) else chain)


@lru_cache(REMEMBERED)
def is_well_formed(text: bytes) -> bool:
    """Whether a path may be spelled like that."""
    if not re.fullmatch(rb"[A-Za-z0-9\-/_@]+", text) or b"//" in text:
        return False
    return text == ROOT or not text.endswith(b"/")


@lru_cache(REMEMBERED)
def portable_length(path: bytes) -> int:
    """What counts of a path: it must stay valid when its domain moves and gets a longer domid."""
    return len(re.sub(rb"^/local/domain/[0-9]{1,5}/", b"", path))


def children(tree: Tree, path: bytes) -> list[bytes]:
    """The paths of the direct children, in bytewise order of their names."""
    if path not in tree:
        return []
    above = b"" if path == ROOT else path
    return [above + b"/" + name for name in tree[path].kids]


def below(tree: Tree, path: bytes) -> list[bytes]:
    """Everything strictly below `path`, children before parents, siblings in bytewise order."""
    found: list[bytes] = []
    for child in children(tree, path):
        found += [*below(tree, child), child]
    return found


def nearest(tree: Tree, path: bytes) -> bytes:
    """The path itself or the closest ancestor of it that exists."""
    while path not in tree:
        path = parent(path)
    return path


# --- numbers, strings, permissions ----------------------------------------------------------


def one_argument(payload: bytes) -> bytes:
    if not payload or payload.find(b"\0") != len(payload) - 1:
        raise RequestError("EINVAL")
    return payload[:-1]


def arguments(payload: bytes, least: int, most: int | None = None) -> list[bytes]:
    """The NUL-terminated strings; bytes after the last NUL do not count."""
    strings = payload.split(b"\0")[:-1]
    if len(strings) < least or (most is not None and len(strings) > most):
        raise RequestError("EINVAL")
    return strings


def parse_domid(text: bytes) -> int:
    if not re.fullmatch(rb"[0-9]*", text) or int(text or b"0") > 65535:
        raise RequestError("EINVAL")
    return int(text or b"0")


def parse_lenient(text: bytes) -> int:
    """Blanks, a sign, digits; what follows is ignored, and without digits it is 0."""
    number = re.match(rb"[ \t\n\v\f\r]*([+-]?[0-9]+)", text)
    return int(number[1]) if number else 0


@lru_cache(REMEMBERED)
def parse_entry(text: bytes) -> Entry:
    letter, number = text[:1].decode("latin-1"), text[1:]
    if letter not in ("n", "r", "w", "b"):
        raise RequestError("EINVAL")
    if re.fullmatch(rb"0[xX][0-9a-fA-F]+", number):
        domid = int(number, 16)
    elif re.fullmatch(rb"0[0-7]*", number):
        domid = int(number, 8)
    elif re.fullmatch(rb"[1-9][0-9]*", number):
        domid = int(number)
    else:
        raise RequestError("EINVAL")
    if domid > 65535:
        raise RequestError("EINVAL")
    return Entry(letter, domid)


@lru_cache(REMEMBERED)
def rights_of(perms: Perms, domid: int, target: int | None) -> str:
    """What a list gives to a domain that also acts for its target: a subset of ``rwo``."""
    selves = (domid, target)
    if perms[0].domid in selves:
        return "rwo"
    letter = perms[0].letter
    for entry in perms[1:]:
        if not entry.ignored and (entry.domid in selves or entry.domid == ANY_DOMAIN):
            letter = entry.letter
            break
    return {"n": "", "r": "r", "w": "w", "b": "rw"}[letter]


@lru_cache(REMEMBERED)
def perms_text(perms: Perms) -> bytes:
    return b"".join(b"%s%d\0" % (entry.letter.encode(), entry.domid) for entry in perms)


def node_size(tree: Tree, path: bytes) -> int:
    """What the node-size quota measures, in bytes."""
    node = tree[path]
    return 16 + 8 * len(node.perms) + len(node.value) + sum(map(len, node.kids)) + len(node.kids)


def count_nodes(tree: Tree, domid: int) -> int:
    return sum(node.perms[0].domid == domid for node in tree.values())


def exceeds(amount: int, limit: int) -> bool:
    """A quota is the number one can have; 0 means no limit."""
    return limit != 0 and amount > limit
