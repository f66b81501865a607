"""Every difference that is meant: whose, why, how it is recognised, and what follows from it.

A row is one place where a daemon of Debian's rightly shows something else than ours does. What is
in no row is a bug of one side. Some differences cannot be seen at all, because what is compared
leaves them out:

- children are compared as sets: xenstored lists them in the order of their creation, ours by name;
- generation counts and ids of transactions are mapped: they mean nothing but their equality;
- events of one burst of requests are compared as sets, and of a single request as multisets:
  equal events that still wait are merged by ours and by xenstored, not by oxenstored;
- the place of a connection's own events among its own replies is compared with xenstored only,
  for oxenstored sends the reply first;
- a reply repeats the transaction of its request, with oxenstored not for WATCH and UNWATCH;
- the order of the events of one request among each other is nobody's promise;
- the two special nodes, which oxenstored lists below the root, and what the daemons keep in /tool
  are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from witness.steps import CHANGES, NEVER, Ask, Rules, home
from xsd.client.wire import Op

OK = b"OK\0"
RELEASE = b"@releaseDomain"
Answer = bytes | str
"""The payload of a reply, or the name of an error."""


class Then(Enum):
    """What follows from a difference."""

    NOTHING = "both go on in the same state"
    DOUBT = "the transaction is another one from here on: nothing in it is compared any more"
    PART = "the trees are different: the rest of the script is not compared"


@dataclass(slots=True)
class Journal:
    """A transaction, as far as what happens to it must be known."""

    conn: int
    moved: bool = False
    """Whether anybody has changed anything since its start."""
    changes: list[Ask] = field(default_factory=list)
    removed: list[bytes] = field(default_factory=list)
    missed: list[Ask] = field(default_factory=list)
    """Permissions that it would have set, had there been a node."""
    denied: bool = False
    """Whether it was denied something."""
    failed: bool = False
    """Whether it was told of an error."""
    mixed: bool = False
    """Whether other things than the tree were asked for in it."""
    refused: bool = False
    """Whether a quota has refused it something."""
    tried: bool = False
    """Whether it was asked for any change, granted or not."""
    doubtful: set[str] = field(default_factory=set)
    """The peers to whom it is another transaction than to ours."""


@dataclass(frozen=True, slots=True)
class Said:
    """A request that two daemons answered differently."""

    peer: str
    ask: Ask
    ours: Answer
    theirs: Answer
    journal: Journal | None
    """The transaction that it was made in."""
    rules: Rules
    dead: set[int]
    """Domains that have died or were released."""
    targets: bool
    """Whether a device model acts for another domain."""
    given: bool
    """Whether anybody has set permissions in this script."""
    huge: bool
    """Whether a large value was written in this script."""

    @property
    def words(self) -> tuple[Answer, Answer]:
        return self.ours, self.theirs

    @property
    def path(self) -> bytes:
        return absolute(self.ask)

    @property
    def is_guest(self) -> bool:
        return self.ask.conn > 0


@dataclass(frozen=True, slots=True)
class Told:
    """An event that only one of two daemons sent, after a burst or a fate."""

    peer: str
    conn: int
    path: bytes
    """Absolute."""
    token: bytes
    missing: bool
    """Whether it is ours alone that sent it."""
    changed: list[tuple[int, bytes]]
    """What was changed and where: types of requests, with absolute paths."""
    removed: list[bytes]
    committed: bool
    moved: bool
    """Whether others had changed something since the start of what was committed."""
    fate: str
    doubtful: set[bytes]
    again: bool
    """Whether a domain has been introduced again in this script."""
    dead: set[int]
    targets: bool
    shut_down: bool
    """Whether there has been a domain that is shut down."""


@dataclass(slots=True)
class Row:
    """A difference."""

    name: str
    peers: str
    why: str
    said: Callable[[Said], bool] | None = None
    then: Then = Then.NOTHING
    told: Callable[[Told], bool] | None = None


def absolute(ask: Ask) -> bytes:
    path = ask.payload.partition(b"\0")[0]
    if path.startswith((b"/", b"@")):
        return path
    return f"{home(max(0, ask.conn))}/".encode() + path


def is_below(path: bytes, top: bytes) -> bool:
    return path.startswith(top + b"/") or top == b"/"


def lineage(path: bytes) -> Iterator[bytes]:
    """The path and all above it but the root, from the top."""
    parts = path.split(b"/")
    for count in range(2, len(parts) + 1):
        yield b"/".join(parts[:count])


def is_foreign(ask: Ask) -> bool:
    """Whether a guest speaks of what is not below its own home."""
    return ask.conn > 0 and not is_below(absolute(ask), home(ask.conn).encode())


def words(ours: Answer, theirs: Answer) -> Callable[[Said], bool]:
    pair = (ours, theirs)
    return lambda said: said.words == pair


def in_moved(said: Said) -> bool:
    """Whether it was asked in a transaction since whose start something has changed."""
    return said.journal is not None and said.journal.moved and said.ask.op in WITHIN


def asked_so_far(said: Said) -> list[Ask]:
    """The request, after those that changed something in its transaction."""
    return [*(said.journal.changes if said.journal else ()), said.ask]


def first_owner(ask: Ask) -> int:
    """The domid of the first entry in a request to set permissions."""
    entry = ask.payload.split(b"\0")[1]
    return int(entry[1:]) if entry[1:].isdigit() else -1


def at_end(said: Said, *either: Answer) -> bool:
    """Whether that is what a transaction came to, since whose start something has changed."""
    return (
        said.ask.op == Op.TRANSACTION_END
        and said.journal is not None
        and said.journal.moved
        and set(said.words) == set(either)
    )


def is_special(said: Said) -> bool:
    return said.ask.payload[:1] == b"@"


def less_dead(entries: Sequence[bytes], dead: set[int]) -> list[bytes]:
    """Permission entries without those of domains that are gone."""
    return [*entries[:1], *(one for one in entries[1:] if int(one[1:]) not in dead)]


def names_dead(said: Said) -> bool:
    if said.ask.op != Op.GET_PERMS or not all(isinstance(word, bytes) for word in said.words):
        return False
    ours, theirs = (word.split(b"\0")[:-1] for word in said.words if isinstance(word, bytes))
    return less_dead(ours, said.dead) == less_dead(theirs, said.dead)


WITHIN = (*CHANGES, Op.READ, Op.DIRECTORY, Op.DIRECTORY_PART, Op.GET_PERMS, Op.SET_PERMS)
LOOKS = (Op.READ, Op.DIRECTORY, Op.GET_PERMS, Op.SET_PERMS)

ROWS: list[Row] = [
    Row(
        "another moment",
        "c",
        "a transaction of ours sees the tree as it was at its start, one of xenstored each "
        "node as it was when it was first asked for",
        in_moved,
        Then.DOUBT,
    ),
    Row(
        "reading fails",
        "c",
        "a transaction that changes nothing has nothing that could conflict",
        lambda said: (
            at_end(said, OK, "EAGAIN") and said.journal is not None and not said.journal.changes
        ),
    ),
    Row(
        "conflict",
        "c",
        "a transaction of ours fails if it would have been told something else, one of "
        "xenstored if a node that it has touched was touched",
        lambda said: at_end(said, OK, "EAGAIN"),
        Then.PART,
    ),
    Row(
        "entries of dead domains",
        "c",
        "entries of a domain that is gone go, too; xenstored 4.17 ignores them from then on",
        names_dead,
    ),
    Row(
        "size of entries of dead domains",
        "c",
        "they do not count where they are not kept",
        lambda said: (
            said.is_guest and said.huge and bool(said.dead) and said.words == (OK, "ENOSPC")
        ),
        Then.PART,
    ),
    Row(
        "unwatch of no path",
        "co",
        "what is no path is said to be none, as by newer ones",
        lambda said: said.ask.op == Op.UNWATCH and said.words == ("EINVAL", "ENOENT"),
    ),
    Row(
        "quota at commit",
        "c",
        "ours refuses what would be too many nodes at once, xenstored when it is committed, "
        "and counts there what the tree has got meanwhile as well",
        lambda said: (
            said.is_guest
            and said.journal is not None
            and said.words == ("ENOSPC", OK)
            and said.ask.op in (Op.WRITE, Op.MKDIR)
        ),
        Then.DOUBT,
    ),
    Row(
        "quota before conflict",
        "co",
        "as above: what cannot be committed for either reason",
        lambda said: at_end(said, "ENOSPC", "EAGAIN"),
    ),
    Row(
        "quota instead of success",
        "c",
        "as above: it allows one node less there, and counts what was made meanwhile twice",
        lambda said: (
            said.ask.op == Op.TRANSACTION_END
            and said.words == (OK, "ENOSPC")
            and said.is_guest
            and said.rules.nodes < 1000
        ),
        Then.PART,
    ),
    Row(
        "quota at another moment",
        "c",
        "as above: what was made or removed since its start is seen by a transaction, or not",
        lambda said: (
            at_end(said, "ENOSPC", OK)
            and said.ours == "ENOSPC"
            and said.is_guest
            and said.rules.nodes < 1000
        ),
        Then.PART,
    ),
    Row(
        "quota of what was removed inside",
        "c",
        "what a transaction removes makes room for what it makes",
        lambda said: (
            said.is_guest
            and said.journal is not None
            and bool(said.journal.removed)
            and said.ask.op in (Op.WRITE, Op.MKDIR)
            and said.words == (OK, "ENOSPC")
        ),
        Then.DOUBT,
    ),
    Row(
        "told of what a transaction removed",
        "c",
        "who may read the directory is told of it, inside a transaction as outside",
        told=lambda told: (
            told.missing
            and told.committed
            and any(told.path == path or is_below(told.path, path) for path in told.removed)
        ),
    ),
    Row(
        "rights that a transaction changed",
        "c",
        "who may be told is a matter of the rights after a commit as a whole, not of one node "
        "after the other",
        told=lambda told: (
            told.committed
            and any(
                op == Op.SET_PERMS and told.path.rpartition(b"/")[0] == path
                for op, path in told.changed
            )
        ),
    ),
    Row(
        "quota of watches",
        "c",
        "one error for all quotas",
        lambda said: said.ask.op == Op.WATCH and said.words == ("ENOSPC", "E2BIG"),
    ),
    Row(
        "permissions of special nodes",
        "c",
        "they can be asked for, as with newer ones",
        lambda said: said.ask.op == Op.GET_PERMS and is_special(said) and said.theirs == "EINVAL",
    ),
    Row(
        "a death meanwhile",
        "c",
        "what is written once more becomes that of whoever owns what is above",
        lambda said: (
            said.ask.op == Op.TRANSACTION_END
            and said.theirs == "ENOMEM"
            and said.ours in (OK, "EAGAIN")
            and bool(said.dead)
        ),
        Then.PART,
    ),
    Row(
        "depth of watches",
        "c",
        "new in 4.22",
        lambda said: (
            said.ask.op == Op.WATCH
            and said.ask.payload.count(b"\0") == 3
            and said.ours in (OK, "ENOSPC", "EEXIST")
            and said.theirs == "EINVAL"
        ),
        Then.PART,
    ),
    Row(
        "numbers in entries",
        "co",
        "a domid that is none is an error, as with newer ones",
        lambda said: (
            said.ask.op == Op.SET_PERMS
            and b"-1\0" in said.ask.payload
            and said.ours == "EINVAL"
            and said.theirs in (OK, "ENOENT", "EACCES")
        ),
        Then.PART,
    ),
    Row(
        "poisoned",
        "c",
        "a request that was refused has changed nothing, and the rest can be committed",
        lambda said: (
            said.ask.op == Op.TRANSACTION_END
            and said.journal is not None
            and said.journal.refused
            and said.words in ((OK, "ENOMEM"), ("EAGAIN", "ENOMEM"))
        ),
        Then.PART,
    ),
    Row(
        "special paths that are none",
        "co",
        "a path does not end in a slash, wherever it begins",
        lambda said: (
            said.ask.op == Op.WATCH
            and is_special(said)
            and said.path.endswith(b"/")
            and said.ours == "EINVAL"
            and said.theirs in (OK, "E2BIG", "EEXIST")
        ),
        Then.PART,
    ),
    Row(
        "new requests",
        "co",
        "xenstored 4.17 does not know of features and quotas, oxenstored of DIRECTORY_PART neither",
        lambda said: (
            said.theirs == "ENOSYS"
            and said.ask.op in (Op.DIRECTORY_PART, Op.GET_FEATURE, Op.GET_QUOTA)
        ),
    ),
    Row(
        "unknown transaction",
        "o",
        "the name that the protocol has",
        lambda said: said.ask.slot != 0 and said.words == ("ENOENT", "EIO"),
    ),
    Row(
        "quota",
        "o",
        "EQUOTA is none of the errors that the protocol has",
        lambda said: said.words == ("ENOSPC", "EQUOTA") and said.ask.op not in CHANGES,
    ),
    Row(
        "quota half way",
        "o",
        "all or nothing: oxenstored keeps ancestors that it made before it met the quota; outside "
        "of transactions they are removed before the script goes on",
        lambda said: said.words == ("ENOSPC", "EQUOTA") and said.ask.op in CHANGES,
        Then.DOUBT,
    ),
    Row(
        "quota of the owner above",
        "o",
        "whoever creates a node is charged for it, not the owner of its parent",
        lambda said: (
            said.is_guest
            and (said.given or any(map(is_foreign, asked_so_far(said))))
            and said.ask.op in (Op.WRITE, Op.MKDIR, Op.TRANSACTION_END)
            and set(said.words) < {"ENOSPC", "EQUOTA", OK}
        ),
        Then.PART,
    ),
    Row(
        "quota of nodes",
        "o",
        "the nodes that are there are what counts, in each request as at a commit",
        lambda said: (
            said.is_guest
            and said.rules.nodes < 1000
            and said.ask.op in (Op.WRITE, Op.MKDIR)
            and said.words == (OK, "EQUOTA")
        ),
        Then.PART,
    ),
    Row(
        "size of a node",
        "o",
        "it is names, permissions and value together, not the value alone",
        lambda said: said.is_guest and said.huge and said.words == ("ENOSPC", OK),
        Then.PART,
    ),
    Row(
        "quota while others create",
        "o",
        "what is made or removed meanwhile counts at once, not at the end of the transaction",
        lambda said: (
            said.is_guest
            and said.journal is not None
            and said.journal.moved
            and said.ask.op in (Op.WRITE, Op.MKDIR)
            and said.words in (("ENOSPC", OK), (OK, "EQUOTA"))
        ),
        Then.DOUBT,
    ),
    Row(
        "bytes behind the last string",
        "o",
        "they are ignored, as by xenstored",
        lambda said: (
            said.ask.op in (Op.WATCH, Op.UNWATCH)
            and said.ask.payload[-1:] != b"\0"
            and said.theirs == "EINVAL"
            and said.ours != OK
        ),
    ),
    Row(
        "bytes behind the last string, after which there is a watch or not",
        "o",
        "as above",
        lambda said: (
            said.ask.op in (Op.WATCH, Op.UNWATCH)
            and said.ask.payload[-1:] != b"\0"
            and said.words == (OK, "EINVAL")
        ),
        Then.PART,
    ),
    Row(
        "depth of watches",
        "o",
        "new in others",
        lambda said: (
            said.ask.op == Op.WATCH
            and said.ask.payload.count(b"\0") == 3
            and said.ours in (OK, "ENOSPC", "EEXIST")
            and said.theirs == "EINVAL"
        ),
        Then.PART,
    ),
    Row(
        "owner that does not exist",
        "o",
        "permissions for a domain that is not there would be those of whoever gets its domid",
        lambda said: (
            said.ask.op == Op.SET_PERMS
            and said.words == ("ENOENT", OK)
            and first_owner(said.ask) in {*said.dead, NEVER}
        ),
        Then.PART,
    ),
    Row(
        "length of watched paths",
        "o",
        "the limit is one for all paths",
        lambda said: (
            said.is_guest
            and said.ask.op == Op.WATCH
            and said.words == ("EINVAL", OK)
            and len(said.ask.payload) > said.rules.path
        ),
        Then.PART,
    ),
    Row(
        "removing the root",
        "o",
        "it cannot be removed, and whoever asks for that is told so",
        lambda said: said.ask.op == Op.RM and said.path == b"/" and said.words == ("EINVAL", OK),
        Then.PART,
    ),
    Row(
        "making the root",
        "o",
        "it exists, and is then as any node that does: it takes the right to write it",
        lambda said: (
            said.is_guest
            and said.ask.op == Op.MKDIR
            and said.path == b"/"
            and said.words == ("EACCES", OK)
        ),
    ),
    Row(
        "told of nothing removed",
        "o",
        "who watches below what is removed is told by ours of nodes that were there",
        told=lambda told: (
            not told.missing and any(is_below(told.path, path) for path in told.removed)
        ),
    ),
    Row(
        "changed, then removed",
        "o",
        "what is changed and then removed in a transaction was there, and is told; what is made "
        "and then removed is not",
        told=lambda told: (
            told.committed
            and any(told.path == path or is_below(told.path, path) for path in told.removed)
        ),
    ),
    Row(
        "making the root in a transaction",
        "o",
        "it changes nothing, and so nothing conflicts",
        lambda said: (
            at_end(said, OK, "EAGAIN")
            and said.ours == OK
            and said.journal is not None
            and any(one.op == Op.MKDIR and absolute(one) == b"/" for one in said.journal.changes)
        ),
        Then.PART,
    ),
    Row(
        "owner that does not exist any more",
        "o",
        "setting permissions is ENOENT where there is no such node, and where no such domain: "
        "when the node has come meanwhile and the domain has gone, the answer is the same again",
        lambda said: (
            at_end(said, OK, "EAGAIN")
            and said.ours == OK
            and said.journal is not None
            and any(first_owner(one) in said.dead for one in said.journal.missed)
        ),
        Then.PART,
    ),
    Row(
        "other requests in a transaction",
        "o",
        "only what has to do with the tree is asked again",
        lambda said: (
            said.ask.op == Op.TRANSACTION_END
            and said.ours in (OK, "EAGAIN")
            and said.theirs in ("EAGAIN", "EINVAL")
            and said.journal is not None
            and said.journal.moved
            and said.journal.mixed
        ),
        Then.PART,
    ),
    Row(
        "missing below what may not be read",
        "o",
        "whether a node exists is for those who may read the nearest one that does",
        lambda said: said.is_guest and said.ask.op in LOOKS and said.words == ("EACCES", "ENOENT"),
    ),
    Row(
        "rights of a device model",
        "o",
        "the first entry that is for it or for its target counts, as with xenstored; oxenstored "
        "looks for each by itself",
        lambda said: (
            said.is_guest
            and said.targets
            and said.ours == "EACCES"
            and not isinstance(said.theirs, str)
        ),
        Then.PART,
    ),
    Row(
        "removing what is missing",
        "o",
        "whoever may not remove a node is not told whether there is one",
        lambda said: (
            said.is_guest
            and said.ask.op == Op.RM
            and said.ours == "EACCES"
            and said.theirs in (OK, "ENOENT")
        ),
    ),
    Row(
        "giving a node away",
        "o",
        "it is not permitted to anybody, whatever the rights",
        lambda said: (
            said.is_guest and said.ask.op == Op.SET_PERMS and said.words == ("EPERM", "EACCES")
        ),
    ),
    Row(
        "special nodes",
        "o",
        "they are no nodes of the tree, and there is nothing but them",
        lambda said: (
            is_special(said) and said.ours == "EINVAL" and said.ask.op in (*CHANGES, *LOOKS)
        ),
    ),
    Row(
        "giving it to nobody",
        "o",
        "both are true",
        lambda said: (
            said.ask.op == Op.SET_PERMS
            and said.ours == "ENOENT"
            and said.theirs in ("EACCES", "EINVAL")
            and first_owner(said.ask) in {*said.dead, NEVER}
        ),
    ),
    Row(
        "numbers of domains",
        "o",
        "a domid is decimal, and nothing else",
        lambda said: (
            said.ask.op == Op.GET_DOMAIN_PATH
            and said.ours == "EINVAL"
            and not isinstance(said.theirs, str)
        ),
    ),
    Row(
        "owner of a node created inside",
        "o",
        "as above, in a transaction",
        lambda said: (
            said.is_guest
            and said.journal is not None
            and said.ask.op in WITHIN
            and ("EACCES" in said.words or said.ask.op == Op.GET_PERMS)
            and any(
                is_foreign(one) or said.given
                for one in said.journal.changes
                if one.op in (Op.WRITE, Op.MKDIR) and said.path in lineage(absolute(one))
            )
        ),
        Then.DOUBT,
    ),
    Row(
        "rights of an earlier domain",
        "o",
        "an entry that was set while there was no such domain is nobody's, as with xenstored",
        lambda said: said.ask.conn in said.dead and "EACCES" in said.words,
        Then.PART,
    ),
    Row(
        "rights of an earlier domain to be told",
        "o",
        "as above",
        told=lambda told: told.conn in told.dead,
    ),
    Row(
        "permissions of special nodes",
        "o",
        "that these have changed is no news of a domain",
        told=lambda told: not told.missing and told.path[:2] == b"/@",
    ),
    Row(
        "another order",
        "o",
        "two transactions that do not hinder each other may be committed in either order: "
        "ours does what was asked for again, after the other; oxenstored grafts what changed",
    ),
    Row(
        "rights of a device model to be told",
        "o",
        "as above",
        told=lambda told: told.targets and told.conn > 0,
    ),
    Row(
        "target that is not there",
        "o",
        "an unknown target is an error, as with xenstored",
        lambda said: said.ask.op == Op.SET_TARGET and said.words == ("ENOENT", OK),
        Then.PART,
    ),
    Row(
        "no word of the root",
        "o",
        "a change of the root is told like others",
        told=lambda told: told.missing and told.path == b"/",
    ),
    Row(
        "done otherwise the second time",
        "o",
        "what a commit has changed in the end is told, if it was done again on another tree",
        told=lambda told: told.committed and told.moved,
    ),
    Row(
        "rights before transactions",
        "o",
        "what cannot be asked at all, or not by a guest, is said first, as by xenstored",
        lambda said: (
            said.ask.slot != 0 and said.theirs == "EIO" and said.ours in ("EACCES", "ENOSYS")
        ),
    ),
    Row(
        "unknown domain",
        "o",
        "the error of newer ones: the number is well formed",
        lambda said: said.ask.op == Op.RESUME and said.words == ("ENOENT", "EINVAL"),
    ),
    Row(
        "quota before rights",
        "o",
        "as above; and the quota is that of the owner of the parent",
        lambda said: (
            said.is_guest
            and said.ask.op in (Op.WRITE, Op.MKDIR)
            and said.words == ("EACCES", "EQUOTA")
        ),
        Then.DOUBT,
    ),
    Row(
        "quota before all else",
        "o",
        "what is wrong with a request is said first",
        lambda said: (
            said.ask.op == Op.WATCH
            and said.theirs == "EQUOTA"
            and said.ours in ("EINVAL", "EEXIST")
        ),
    ),
    Row(
        "conflict over what may not be seen",
        "o",
        "whether a node exists that may not be read is not told, and so cannot conflict",
        lambda said: (
            at_end(said, OK, "EAGAIN")
            and said.ours == OK
            and said.journal is not None
            and said.journal.denied
        ),
        Then.PART,
    ),
    Row(
        "what was not found",
        "o",
        "that a node is missing is seen as well, and is a conflict once there is one",
        lambda said: (
            at_end(said, OK, "EAGAIN")
            and said.theirs == OK
            and said.journal is not None
            and said.journal.failed
        ),
        Then.PART,
    ),
    Row(
        "silent funerals",
        "o",
        "the nodes of a dead domain are removed as by RM, with events",
        told=lambda told: (
            told.missing and told.fate in ("death", "release") and told.path[:1] != b"@"
        ),
    ),
    Row(
        "told of a shutdown again",
        "o",
        "once is enough",
        told=lambda told: (
            not told.missing
            and told.path == RELEASE
            and told.shut_down
            and told.fate in ("shutdown", "death", "release")
        ),
    ),
    Row(
        "owner of a created node",
        "o",
        "who creates a node owns it; oxenstored leaves it to the owner of its parent, and is "
        "told to give it to the creator before the script goes on",
        told=lambda told: told.path in told.doubtful,
    ),
]
