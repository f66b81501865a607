"""The oracle: a whole xenstored in plain Python, naive on purpose.

The tree is a dict from path to node, a snapshot is a copy of that dict, and who watches a path is
found by asking at each path above it. A write is tried on a copy of the tree, the copy is judged
against the quotas, and then it either becomes the tree or is thrown away. There is nothing here
to be clever about, so that what it answers can be checked by reading.

It knows no bytes on a wire, no rings and no back-pressure: whole requests go in, whole packets
come out of each connection's queue. What the hypervisor says is asked of `ask`, which may put a
request off by raising NotYetError: it has then changed nothing, and is to be made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from model_tree import (
    ANY_DOMAIN,
    EVENT_TIMEOUT_NS,
    FEATURE_ANY_DOMAIN,
    FEATURE_DEPTH,
    FEATURES,
    HARD_QUOTAS,
    INTRODUCE_NODE,
    OK,
    PAYLOAD_MAX,
    PRIVILEGED_TYPES,
    QUOTA_NAMES,
    QUOTA_SPELLINGS,
    RELEASE_NODE,
    RING,
    ROOT,
    SELF_DOMID,
    SOCKET,
    Entry,
    Msg,
    Node,
    Op,
    Packet,
    Perms,
    RequestError,
    Tree,
    arguments,
    below,
    count_nodes,
    exceeds,
    is_special,
    is_well_formed,
    levels,
    lineage,
    name_of,
    nearest,
    node_size,
    one_argument,
    parent,
    parse_domid,
    parse_entry,
    parse_lenient,
    perms_text,
    portable_length,
    rights_of,
)

SEEN_BYTES, ASKED_BYTES = 16, 24
"""What a transaction's records hold beside their text: of a path that was seen, of a request or
change."""

PLENTY = 1 << 20
"""A memory quota that nobody in a test comes near: what counts against it is not added up."""

TREE_TYPES = frozenset(
    {
        Msg.READ,
        Msg.WRITE,
        Msg.MKDIR,
        Msg.RM,
        Msg.DIRECTORY,
        Msg.DIRECTORY_PART,
        Msg.GET_PERMS,
        Msg.SET_PERMS,
    }
)
"""What a transaction keeps, to be asked again at its commit."""


@dataclass(slots=True)
class Transaction:
    """A snapshot, the changed copy of it, what was asked, changed and looked at."""

    base: Tree
    view: Tree
    rules: int = 0  # what its connection may do, as it was at the start
    since: int = 0  # when it started
    number: int = 0  # of the last commit before
    asked: list[tuple[int, bytes, bytes]] = field(default_factory=list)
    log: list[Op] = field(default_factory=list)
    seen_self: set[bytes] = field(default_factory=set)
    seen_kids: set[bytes] = field(default_factory=set)
    seen_below: set[bytes] = field(default_factory=set)
    looked: dict[bytes, None] = field(default_factory=dict)  # in the order of the first look
    requests: int = 0
    poisoned: bool = False
    doomed: bool = False
    records: int = 0  # bytes that all these count for
    created: bool = False  # some node
    charges: dict[int, None] = field(default_factory=dict)  # domains, in order
    hold_until: int = 0  # of one with priority
    held_others: bool = False
    failed: bool = False  # through others


def padded(size: int) -> int:
    return size + 7 & ~7


def is_whole(kind: int, payload: bytes) -> bool:
    """Whether a request about the tree has the strings that it must have."""
    strings = payload.count(b"\0")
    if kind == Msg.WRITE:
        return strings > 0
    if kind == Msg.SET_PERMS:
        return strings >= 2
    if kind == Msg.DIRECTORY_PART:
        return strings == 2
    return strings == 1 and payload.endswith(b"\0")


def timeless(reply: Packet) -> bytes:
    """What a reply says, without the number in a part of a directory that tells when."""
    said = reply.payload
    if reply.type == Msg.DIRECTORY_PART:
        said = said.partition(b"\0")[2]
    return bytes([reply.type]) + said


def is_full(reply: Packet) -> bool:
    """Whether a request was refused for want of memory: it is not asked again."""
    return reply.type == Msg.ERROR and reply.payload == b"ENOMEM\0"


class NotYetError(Exception):
    """A request cannot be answered yet; says what is asked of the hypervisor, and of whom."""

    def __init__(self, kind: str, domid: int) -> None:
        super().__init__(kind, domid)
        self.kind = kind
        self.domid = domid


@dataclass(slots=True, eq=False)
class Cause:
    """A request of a guest; outstanding as long as a packet that it caused is waiting."""

    waiting: int = 0


class Queued(NamedTuple):
    """A packet waiting to be drained; ``since`` is the time in ns at which it was queued."""

    packet: Packet
    since: int
    cause: Cause | None = None


@dataclass(slots=True, eq=False)
class Connection:
    """A client of the daemon, over a socket or over the ring of a domain."""

    kind: int
    domid: int
    target: int | None = None
    alive: bool = True
    ignored: bool = False
    queue: list[Queued] = field(default_factory=list)
    transactions: dict[int, Transaction] = field(default_factory=dict)
    last_tx: int = 0
    first_event: bytes | None = None
    begun: int = 0  # bytes of the first packet that have been fetched
    waiting: int = 0  # events queued before the change of this number
    counted: int = 0
    had: int = 0  # memory that counted before it
    reserved: int = 0  # bytes of the events of that change
    recorded: int = 0  # bytes of the records of its transactions
    causes: list[Cause] = field(default_factory=list)

    @property
    def base(self) -> bytes:
        return b"/local/domain/%d/" % self.domid


@dataclass(slots=True)
class Domain:
    """What the daemon remembers of a domain that was named or introduced.

    ``exists``: the hypervisor has said so, and need not be asked again.
    """

    quotas: dict[str, int]
    features: int = FEATURES
    connection: Connection | None = None
    shut_down: bool = False
    exists: bool = False


class Watch(NamedTuple):
    """A registered watch; ``depth`` is None for unlimited, ``text`` is the path as spelled."""

    connection: Connection
    path: bytes
    text: bytes
    token: bytes
    depth: int | None


class Request(NamedTuple):
    """One request being served: who asks, in which transaction, with what payload."""

    connection: Connection
    payload: bytes
    transaction: Transaction | None


class Observer(Protocol):
    """Who is told of commits, and may put them off: on blame for conflicts and on who must wait
    because of them the oracle itself has no opinion."""

    def admit(self, author: Connection, before: Tree, after: Tree) -> None:
        """The live tree is about to change. Raises NotYetError if that must wait."""

    def committed(
        self, author: Connection | None, ending: Transaction | None, before: Tree, after: Tree
    ) -> None:
        """The live tree has changed."""

    def failed(self, connection: Connection, tx: Transaction) -> None:
        """A transaction would have been told something else."""

    def succeeded(self, connection: Connection) -> None:
        """A transaction with changes has been committed."""

    def began(self, connection: Connection, tx: Transaction) -> None:
        """A transaction has started."""

    def ended(self, connection: Connection, tx: Transaction) -> None:
        """A transaction has ended, one way or another."""

    def begun_afresh(self, connection: Connection) -> None:
        """A connection is as new, or has gone."""

    def joined(self, domid: int) -> None:
        """A domain has been introduced for the first time."""

    def forget(self, domid: int) -> None:
        """A domain has gone."""


class Model:
    """The daemon. `host` holds the domids that the hypervisor knows; `now` is in ns."""

    def __init__(self, priv_domid: int = 0, store_domid: int = 0) -> None:
        self.priv_domid = priv_domid
        self.store_domid = store_domid
        self.host = {priv_domid, store_domid}
        self.now = 0
        self.stamp = 0
        self.quotas = {name: HARD_QUOTAS.get(name, 0) for name in QUOTA_NAMES.split(" ")}
        self.quotas["soft-memory"] = 2097152
        self.domains: dict[int, Domain] = {}
        self.watches: dict[bytes, list[Watch]] = {}
        self.changes = 0
        self.commits = 0
        self.observer: Observer | None = None
        self.rules = 0  # of the times at which what somebody may do has changed
        self.cause: Cause | None = None
        self.replaying = False
        self.ask: Callable[[Connection, str, int], bool] = self.ask_at_once
        self.connections: list[Connection] = []
        for domid in self.host:
            self.domain(domid)
        private = Entry("n", priv_domid)
        self.live: Tree = {
            path: self.new_node((private,), kids=kids)
            for path, kids in (
                (ROOT, (b"tool",)),
                (b"/tool", (b"xenstored",)),
                (b"/tool/xenstored", ()),
                (INTRODUCE_NODE, ()),
            )
        }
        self.live[RELEASE_NODE] = self.new_node((private, Entry("r", ANY_DOMAIN)))
        self.event_timeout = EVENT_TIMEOUT_NS
        self.accounted = self.live  # the tree that domains are charged with
        self.weighed: list[tuple[Tree, dict[int, int]]] = []
        self.operations: dict[int, Callable[[Request], bytes]] = {
            Msg.CONTROL: self.do_control,
            Msg.DIRECTORY: self.do_directory,
            Msg.READ: self.do_read,
            Msg.GET_PERMS: self.do_get_perms,
            Msg.WATCH: self.do_watch,
            Msg.UNWATCH: self.do_unwatch,
            Msg.TRANSACTION_START: self.do_transaction_start,
            Msg.TRANSACTION_END: self.do_transaction_end,
            Msg.INTRODUCE: self.do_introduce,
            Msg.RELEASE: self.do_release,
            Msg.GET_DOMAIN_PATH: self.do_get_domain_path,
            Msg.WRITE: self.do_write,
            Msg.MKDIR: self.do_mkdir,
            Msg.RM: self.do_rm,
            Msg.SET_PERMS: self.do_set_perms,
            Msg.IS_DOMAIN_INTRODUCED: self.do_is_domain_introduced,
            Msg.RESUME: self.do_resume,
            Msg.SET_TARGET: self.do_set_target,
            Msg.RESET_WATCHES: self.do_reset_watches,
            Msg.DIRECTORY_PART: self.do_directory_part,
            Msg.GET_FEATURE: self.do_get_feature,
            Msg.SET_FEATURE: self.do_set_feature,
            Msg.GET_QUOTA: self.do_get_quota,
            Msg.SET_QUOTA: self.do_set_quota,
        }

    # --- what happens to the daemon ---------------------------------------------------------

    def open(self, kind: int, domid: int) -> Connection:
        connection = Connection(kind, domid)
        self.connections.append(connection)
        return connection

    def close(self, connection: Connection) -> None:
        self.begin_afresh(connection)
        connection.alive = False
        if connection in self.connections:
            self.connections.remove(connection)

    def begin_afresh(self, connection: Connection) -> None:
        """Nothing is left of what a connection had."""
        self.reset(connection)
        self.throw_away(connection)
        if self.observer is not None:
            self.observer.begun_afresh(connection)

    def begin_change(self) -> None:
        """Whatever happens until the next call is one change."""
        self.changes += 1
        self.accounted = self.live

    def request(
        self, connection: Connection, kind: int, req_id: int, tx_id: int, payload: bytes
    ) -> None:
        """Serve one whole request; the answer and any events land in the queues."""
        if not connection.alive or connection.ignored:
            return
        if len(payload) > PAYLOAD_MAX:
            self.misframed(connection)
            return
        self.begin_change()
        transaction = connection.transactions.get(tx_id)
        self.cause = Cause() if self.limited(connection) else None
        try:
            reply = self.reply(connection, kind, req_id, tx_id, payload)
        except NotYetError:
            if transaction and kind != Msg.TRANSACTION_END:
                transaction.requests -= 1  # it comes again, and is one request
            self.cause = None
            raise
        if transaction and kind in TREE_TYPES and not (transaction.poisoned or is_full(reply)):
            transaction.asked.append((kind, payload, timeless(reply)))
        self.queue(connection, reply)
        if self.cause is not None:
            connection.causes.append(self.cause)
            self.cause = None
        if connection.first_event is not None:
            # Every watch gets it, even if one like it still waits; it counts as nobody's doing.
            self.queue(connection, Packet(Msg.WATCH_EVENT, 0, 0, connection.first_event))
            connection.first_event = None

    def reply(
        self, connection: Connection, kind: int, req_id: int, tx_id: int, payload: bytes
    ) -> Packet:
        try:
            answer = self.serve(connection, kind, tx_id, payload)
            return Packet(kind, req_id, tx_id, answer)
        except RequestError as failure:
            return Packet(Msg.ERROR, req_id, tx_id, failure.name.encode() + b"\0")

    def replay(
        self, connection: Connection, transaction: Transaction, root: Tree | None = None
    ) -> Transaction | None:
        """The same requests asked on another tree, the live one if none is given.

        None if any is answered otherwise. Raises RequestError without memory to ask them.
        """
        tree = self.live if root is None else root
        again = Transaction(dict(tree), dict(tree))
        saved = connection.transactions
        connection.transactions = {1: again}
        self.replaying = True
        try:
            for kind, payload, answer in transaction.asked:
                reply = self.reply(connection, kind, 0, 1, payload)
                if is_full(reply):
                    raise RequestError("ENOMEM")
                if timeless(reply) != answer:
                    return None
        finally:
            connection.transactions = saved
            self.replaying = False
        return again

    def domain_died(self, domid: int) -> None:
        """The hypervisor no longer knows the domain."""
        self.host.discard(domid)
        self.begin_change()
        if domid in self.domains:
            self.bury(domid)

    def domain_shutdown(self, domid: int) -> None:
        """The domain has shut down; told once until it is resumed."""
        domain = self.domains.get(domid)
        if domain is not None and domain.connection is not None and not domain.shut_down:
            domain.shut_down = True
            self.begin_change()
            self.fire_special(RELEASE_NODE, domid)

    def advance(self, nanoseconds: int) -> None:
        """Let time pass; events that an unprivileged domain did not fetch in time are lost."""
        self.now += nanoseconds
        for connection in self.connections:
            if self.limited(connection):
                kept, connection.queue = connection.queue, []
                for place, item in enumerate(kept):
                    begun = place == 0 and connection.begun > 0
                    if begun or item.packet.type != Msg.WATCH_EVENT or not self.is_old(item):
                        connection.queue.append(item)
                    else:
                        self.is_gone(item)

    def is_old(self, item: Queued) -> bool:
        return self.event_timeout > 0 and item.since + self.event_timeout <= self.now

    def fetch(self, connection: Connection, most: int) -> list[Packet]:
        """Up to so many bytes leave the queue; the packets whose last byte did."""
        whole = []
        while most > 0 and connection.queue:
            item = connection.queue[0]
            left = 16 + len(item.packet.payload) - connection.begun
            if left > most:
                connection.begun += most
                break
            most -= left
            connection.begun = 0
            del connection.queue[0]
            self.is_gone(item)
            whole.append(item.packet)
        return whole

    def throw_away(self, connection: Connection) -> None:
        """Whatever waits for a connection is not sent."""
        for item in connection.queue:
            self.is_gone(item)
        connection.queue = []
        connection.begun = 0

    def is_gone(self, item: Queued) -> None:
        if item.cause is not None:
            item.cause.waiting -= 1

    def outstanding(self, connection: Connection) -> int:
        """How many requests of a guest have caused something that still waits."""
        connection.causes = [cause for cause in connection.causes if cause.waiting > 0]
        return len(connection.causes)

    def counts(self) -> dict[int, dict[str, int]]:
        """What each domain is charged with, memory without queues."""
        found: dict[int, dict[str, int]] = {}

        def add(domid: int, name: str, amount: int) -> None:
            charged = found.setdefault(domid, {})
            charged[name] = charged.get(name, 0) + amount

        for path, node in self.live.items():
            add(node.owner, "nodes", 1)
            add(node.owner, "memory", node_size(self.live, path) + len(path))
        for watch in self.all_watches():
            add(watch.connection.domid, "watches", 1)
            add(watch.connection.domid, "memory", len(watch.text) + len(watch.token))
        for connection in self.connections:
            if connection.transactions:
                add(connection.domid, "transactions", len(connection.transactions))
                add(connection.domid, "memory", connection.recorded)
        return found

    # --- memory -----------------------------------------------------------------------------

    def weigh(self, tree: Tree) -> dict[int, int]:
        """How many bytes the nodes of each domain count for."""
        for known, sums in self.weighed:
            if known is tree:
                return sums
        sums = {}
        for path, node in tree.items():
            owner = node.perms[0].domid
            sums[owner] = sums.get(owner, 0) + node_size(tree, path) + len(path)
        self.weighed = [(tree, sums), *self.weighed[:3]]
        return sums

    def memory(self, domid: int) -> int:
        """What counts against the memory quota of a domain, in bytes."""
        total = self.weigh(self.accounted).get(domid, 0)
        for watches in self.watches.values():
            for watch in watches:
                if watch.connection.domid == domid:
                    total += len(watch.text) + len(watch.token)
        for connection in self.connections:
            if connection.domid == domid:
                total += connection.recorded
                total += sum(16 + len(item.packet.payload) for item in connection.queue)
        return total

    def memory_limit(self, domid: int) -> int:
        """In bytes, 0: so much that nobody may come to have it."""
        domain = self.domains.get(domid)
        limit = (domain.quotas if domain is not None else self.quotas)["memory"]
        return limit if limit < PLENTY else 0

    def is_tight(self, domid: int) -> bool:
        """Whether the memory of a domain is limited to less than it may come to have."""
        return domid in self.domains and self.memory_limit(domid) > 0

    def fits(self, domid: int, more: int) -> bool:
        """Whether a domain may have so many bytes more than it has."""
        if domid == self.priv_domid:
            return True
        return not exceeds(self.memory(domid) + more, self.memory_limit(domid))

    def affords(self, connection: Connection, transaction: Transaction, more: int) -> bool:
        """Whether the records of a transaction may grow; those of a trial are not charged yet."""
        trial = transaction.records if self.replaying else 0
        return not self.limited(connection) or self.fits(connection.domid, trial + more)

    def keep(self, connection: Connection, transaction: Transaction, size: int) -> None:
        """The records of a transaction grow."""
        transaction.records += size
        if not self.replaying:
            connection.recorded += size

    # --- before the operation ---------------------------------------------------------------

    def serve(self, connection: Connection, kind: int, tx_id: int, payload: bytes) -> bytes:
        if kind not in self.operations:
            raise RequestError("ENOSYS")
        if kind in PRIVILEGED_TYPES and not self.privileged(connection):
            raise RequestError("EACCES")
        transaction = None
        if tx_id != 0 and kind not in (Msg.WATCH, Msg.UNWATCH):
            transaction = connection.transactions.get(tx_id)
            if transaction is None:
                raise RequestError("ENOENT")
            if kind != Msg.TRANSACTION_END:
                transaction.requests += 1
                limit = self.limit(connection, "transaction-requests")
                if exceeds(transaction.requests, limit):
                    transaction.poisoned = True
                    raise RequestError("ENOSPC")
        kept = 0
        if transaction is not None and kind in TREE_TYPES and not self.replaying:
            kept = padded(ASKED_BYTES + len(payload)) if is_whole(kind, payload) else 0
            self.keep(connection, transaction, kept)
        try:
            if kept and not self.affords(connection, transaction, 0):  # type: ignore[arg-type]
                raise RequestError("ENOMEM")
            answer = self.operations[kind](Request(connection, payload, transaction))
            self.check_answer(connection, answer)
            return answer
        except (NotYetError, RequestError) as problem:
            again = isinstance(problem, NotYetError) or problem.name == "ENOMEM"
            if kept and again:
                assert transaction is not None
                self.keep(connection, transaction, -kept)
            raise

    def check_answer(self, connection: Connection, answer: bytes) -> None:
        """For a short one there is always room."""
        size = len(answer)
        if size > PAYLOAD_MAX:
            raise RequestError("E2BIG")
        if size > 16 and self.limited(connection) and not self.fits(connection.domid, 16 + size):
            raise RequestError("ENOMEM")

    def misframed(self, connection: Connection) -> None:
        """A socket is closed; a ring is not looked at again until it is introduced anew."""
        if connection.kind == SOCKET:
            self.close(connection)
        else:
            self.begin_afresh(connection)
            connection.ignored = True

    def all_watches(self) -> list[Watch]:
        return [watch for watches in self.watches.values() for watch in watches]

    def reset(self, connection: Connection) -> None:
        for path in {w.path for w in self.all_watches() if w.connection is connection}:
            self.watches[path] = [w for w in self.watches[path] if w.connection is not connection]
        open_ones, connection.transactions = connection.transactions, {}
        connection.recorded = 0
        if self.observer is not None:
            for transaction in open_ones.values():
                self.observer.ended(connection, transaction)

    def privileged(self, connection: Connection) -> bool:
        return connection.domid == self.priv_domid

    def limited(self, connection: Connection) -> bool:
        """Quotas bind guests: neither sockets nor the privileged domain."""
        return connection.kind == RING and connection.domid != self.priv_domid

    def limit(self, connection: Connection, name: str) -> int:
        """The hard quota that binds a connection; 0 is none."""
        if not self.limited(connection):
            return 0
        return self.domain(connection.domid).quotas[name]

    def domain(self, domid: int) -> Domain:
        """The record of a domain; made, with the quotas of the day, when it is first named."""
        if domid not in self.domains:
            self.domains[domid] = Domain(dict(self.quotas))
        return self.domains[domid]

    def ask_at_once(self, connection: Connection, kind: str, domid: int) -> bool:
        """A hypervisor that answers at once, and can introduce every domain that it knows."""
        return kind == "control" or domid in self.host

    def known(self, connection: Connection, domid: int) -> Domain:
        if not self.ask(connection, "domain", domid):
            raise RequestError("ENOENT")
        return self.domain(domid)

    def ring_of(self, domid: int) -> Connection | None:
        domain = self.domains.get(domid)
        return domain.connection if domain else None

    def features(self, connection: Connection) -> int:
        return FEATURES if connection.kind == SOCKET else self.domain(connection.domid).features

    def new_stamp(self) -> int:
        self.stamp += 1
        return self.stamp

    def new_node(self, perms: Perms, kids: tuple[bytes, ...] = ()) -> Node:
        return Node(b"", perms, self.new_stamp(), self.new_stamp(), kids)

    # --- paths and permissions --------------------------------------------------------------

    def path(self, connection: Connection, text: bytes, special: bool = False) -> bytes:
        """The absolute path, or EINVAL; special paths only where `special` allows them."""
        if is_special(text) and not special:
            raise RequestError("EINVAL")
        if not is_well_formed(text):
            raise RequestError("EINVAL")
        path = text if text.startswith((b"/", b"@")) else connection.base + text
        if exceeds(portable_length(path), self.limit(connection, "path-max")):
            raise RequestError("EINVAL")
        return path

    def rights(self, connection: Connection, perms: Perms) -> str:
        """A subset of ``rwo``: read, write, ownership."""
        if self.privileged(connection):
            return "rwo"
        return rights_of(perms, connection.domid, connection.target)

    def get(self, connection: Connection, tree: Tree, path: bytes, right: str) -> Node:
        """The node; EACCES without the right on it or on its nearest ancestor, else ENOENT."""
        if path not in tree:
            at = nearest(tree, path)
            # Special nodes are not children of the root; only who acts for the privileged domain
            # learns which ones there are.
            nowhere = is_special(path) and at == ROOT
            perms = (Entry("n", self.priv_domid),) if nowhere else tree[at].perms
            above = self.rights(connection, perms)
            raise RequestError("ENOENT" if right.replace("o", "w") in above else "EACCES")
        if right not in self.rights(connection, tree[path].perms):
            raise RequestError("EACCES")
        return tree[path]

    # --- transactions: what was looked at ---------------------------------------------------

    def tree(self, request: Request) -> Tree:
        return request.transaction.view if request.transaction else self.live

    def look(self, request: Request, path: bytes, kids: bool = False) -> Tree:
        """Note that an operation depends on `path`; returns the tree it works on."""
        tree, transaction = self.tree(request), request.transaction
        if transaction is None:
            return tree
        self.note(request, path)
        transaction.seen_self.add(path)
        if kids:
            transaction.seen_kids.add(path)
        at = nearest(tree, path)
        if at != path and not (is_special(path) and at == ROOT):
            # What is answered for a missing node depends on which ancestor is the nearest.
            for other in (at, next(p for p in lineage(path) if p not in tree)):
                self.note(request, other)
                transaction.seen_self.add(other)
        self.charge_looks(request)
        return tree

    def note(self, request: Request, path: bytes) -> None:
        """Keep that a transaction has looked somewhere; ENOMEM without memory for it."""
        transaction, connection = request.transaction, request.connection
        if transaction is None or path in transaction.looked:
            return
        if not self.affords(connection, transaction, SEEN_BYTES + len(path) + 7):
            raise RequestError("ENOMEM")
        transaction.looked[path] = None
        self.keep(connection, transaction, padded(SEEN_BYTES + len(path)))

    def charge_looks(self, request: Request, *paths: bytes) -> None:
        """These count as looked at as well; ENOSPC if they have become too many."""
        transaction, connection = request.transaction, request.connection
        if transaction is None:
            return
        for path in paths:
            self.note(request, path)
        if exceeds(len(transaction.looked), self.limit(connection, "transaction-nodes")):
            transaction.poisoned = True
            raise RequestError("ENOSPC")
        if not self.replaying and not self.affords(connection, transaction, 0):
            raise RequestError("ENOMEM")

    def conflicts(self, transaction: Transaction) -> bool:
        base, live = transaction.base, self.live

        def moved(path: bytes, with_kids: bool) -> bool:
            old, new = base.get(path), live.get(path)
            if old is None or new is None:
                return old is not new
            if old.self_stamp != new.self_stamp:
                return True
            return with_kids and old.kids_stamp != new.kids_stamp

        whole = set(transaction.seen_kids)
        for top in transaction.seen_below:
            whole |= {top, *below(base, top), *below(live, top)}
        return any(moved(path, path in whole) for path in transaction.seen_self | whole)

    # --- changing a tree --------------------------------------------------------------------

    def apply(self, tree: Tree, op: Op) -> None:
        """Carry out one change; everything has been checked before."""
        if op.kind == Msg.RM:
            for path in [*below(tree, op.path), op.path]:
                del tree[path]
            self.rename_kids(tree, parent(op.path), without=name_of(op.path))
            self.touch_kids(tree, parent(op.path))
            return
        for path in lineage(op.path):
            if path not in tree:
                perms = tree[parent(path)].perms
                if op.creator is not None:
                    perms = (Entry(perms[0].letter, op.creator), *perms[1:])
                tree[path] = self.new_node(perms)
                self.rename_kids(tree, parent(path), also=name_of(path))
                self.touch_kids(tree, parent(path))
        node = tree[op.path]
        if op.kind == Msg.WRITE:
            tree[op.path] = node._replace(value=op.value, self_stamp=self.new_stamp())
        if op.kind == Msg.SET_PERMS:
            tree[op.path] = node._replace(perms=op.perms, self_stamp=self.new_stamp())

    def rename_kids(
        self, tree: Tree, path: bytes, also: bytes | None = None, without: bytes | None = None
    ) -> None:
        names = {*tree[path].kids} - {without}
        if also is not None:
            names.add(also)
        tree[path] = tree[path]._replace(kids=tuple(sorted(names)))

    def touch_kids(self, tree: Tree, path: bytes) -> None:
        tree[path] = tree[path]._replace(kids_stamp=self.new_stamp())

    def change(self, request: Request, op: Op) -> bytes:
        """Try `op` on a copy, check quotas, then keep the copy; fires events when not deferred."""
        old, transaction = self.tree(request), request.transaction
        new = dict(old)
        self.apply(new, op)
        created = {path for path in lineage(op.path) if path not in old}
        if op.kind == Msg.RM:
            self.charge_looks(request, parent(op.path))
        else:
            self.check_sizes(request, op, new, created)
        record = ASKED_BYTES + len(op.path) + len(op.value) + 4 * len(op.perms)
        if transaction and not self.affords(request.connection, transaction, record + 7):
            raise RequestError("ENOMEM")
        charged = self.charged(op, old, new)
        if op.kind != Msg.RM:
            self.check_quotas(request, old, new, charged)
        if transaction is None:
            self.publish(request.connection, None, new)
            self.fire(op, before=old, after=new)
        else:
            transaction.view = new
            transaction.log.append(op)
            transaction.created = transaction.created or (op.kind != Msg.RM and bool(created))
            transaction.charges |= dict.fromkeys(charged)
            self.keep(request.connection, transaction, padded(record))
        return OK

    def charged(self, op: Op, old: Tree, new: Tree) -> list[int]:
        """Who pays for a change, or is given something back: domains, in order."""
        if op.kind == Msg.RM:
            gone = [op.path, *below(old, op.path)[::-1], parent(op.path)]
            return list(dict.fromkeys(old[path].owner for path in gone))
        return list(dict.fromkeys((new[op.path].owner, old[nearest(old, op.path)].owner)))

    def publish(self, author: Connection | None, ending: Transaction | None, new: Tree) -> None:
        """A new tree becomes the live one."""
        if self.observer is not None and author is not None:
            self.observer.admit(author, self.live, new)
        before, self.live = self.live, new
        self.commits += 1
        if self.observer is not None:
            self.observer.committed(author, ending, before, new)

    def check_sizes(self, request: Request, op: Op, new: Tree, created: set[bytes]) -> None:
        """No node that grows may become too big."""
        limit = self.limit(request.connection, "node-size")
        if limit:
            for path in created | {op.path} | {parent(path) for path in created}:
                if exceeds(node_size(new, path), limit):
                    raise RequestError("ENOSPC")

    def check_quotas(self, request: Request, old: Tree, new: Tree, charged: list[int]) -> None:
        """No domain that pays may get more nodes or bytes than it can have."""
        connection, transaction = request.connection, request.transaction
        if not self.limited(connection):
            return
        base = transaction.base if transaction else self.live
        for domid in charged:
            if domid == connection.domid and len(new) > len(old):
                total = self.projected(base, new, domid)
                if exceeds(total, self.limit(connection, "nodes")):
                    raise RequestError("ENOSPC")
            if not self.is_tight(domid) or self.rise(old, new, domid) <= 0:
                continue
            if not self.fits(domid, self.rise(base, new, domid)):
                raise RequestError("ENOMEM")

    def rise(self, base: Tree, view: Tree, domid: int) -> int:
        """How many bytes the nodes of a domain have become more."""
        return self.weigh(view).get(domid, 0) - self.weigh(base).get(domid, 0)

    def projected(self, base: Tree, view: Tree, domid: int) -> int:
        """How many nodes the domain would own if the change from base to view went live."""
        if base is self.live:
            return count_nodes(view, domid)
        live = count_nodes(self.live, domid)
        return live + count_nodes(view, domid) - count_nodes(base, domid)

    def creator(self, connection: Connection) -> int | None:
        return None if self.privileged(connection) else connection.domid

    # --- events -----------------------------------------------------------------------------

    def queue(self, connection: Connection, packet: Packet) -> None:
        if connection.alive and not connection.ignored:
            connection.queue.append(Queued(packet, self.now, self.cause))
            if self.cause is not None:
                self.cause.waiting += 1

    def events_before(self, connection: Connection) -> int:
        """The events that waited before what is happening now: those of one change are let
        through or dropped together."""
        if connection.counted != self.changes:
            kinds = [item.packet.type for item in connection.queue]
            connection.waiting = kinds.count(Msg.WATCH_EVENT)
            connection.counted = self.changes
            connection.reserved = 0
            if self.is_tight(connection.domid):
                connection.had = self.memory(connection.domid)
        return connection.waiting

    def tell(self, watch: Watch, path: bytes) -> None:
        """Queue the event of a watch, with the path in the manner of its registration."""
        connection, base = watch.connection, watch.connection.base
        relative = not watch.text.startswith((b"/", b"@"))
        payload = (path[len(base) :] if relative else path) + b"\0" + watch.token + b"\0"
        if self.may_tell(connection, 16 + len(payload)):
            self.queue_event(connection, payload)

    def may_tell(self, connection: Connection, size: int) -> bool:
        """Whether quotas leave room for an event. All of one change need room at once, also those
        that turn out to be waiting already."""
        if not self.limited(connection) or size > 16 + PAYLOAD_MAX:
            return True  # if it is too long, nobody gets it anyway
        waiting, limit = self.events_before(connection), self.limit(connection, "watch-events")
        if self.is_tight(connection.domid):
            room = self.limit(connection, "memory") - connection.had - connection.reserved
            if size > room:
                return False
        if exceeds(waiting + 1, limit):
            return False
        connection.reserved += size
        return True

    def queue_event(self, connection: Connection, payload: bytes) -> None:
        """Queue an event, unless it is too long or the same one is still waiting."""
        event = Packet(Msg.WATCH_EVENT, 0, 0, payload)
        if len(payload) > PAYLOAD_MAX:
            return
        waiting = connection.queue[1:] if connection.begun else connection.queue
        if not is_special(payload) and any(item.packet == event for item in waiting):
            return
        self.queue(connection, event)

    def matching(self, path: bytes, exact: bool = False) -> Iterator[Watch]:
        """Watches that want to know about `path`: from the root down, oldest first per path."""
        for at in (path,) if exact else lineage(path):
            for watch in self.watches.get(at, ()):
                if watch.depth is None or watch.depth >= levels(path) - levels(at):
                    yield watch

    def fire(self, op: Op, before: Tree, after: Tree) -> None:
        """Tell who may know of `op`; before and after are the live trees around the change."""
        if is_special(op.path):
            return  # An event on a special node means that a domain came or went, nothing else.

        def tell_all(tree: Tree, path: bytes, exact: bool) -> None:
            if path not in tree or not self.watches:
                return
            witnesses = [tree[path].perms, tree[parent(path)].perms]
            if path in before:
                witnesses.append(before[path].perms)
            for watch in self.matching(path, exact):
                if any("r" in self.rights(watch.connection, perms) for perms in witnesses):
                    self.tell(watch, path)

        if op.kind == Msg.RM:
            # Whoever could read what has gone with it is told, whatever may have come instead.
            for path in below(before, op.path):
                tell_all(before, path, exact=True)
        tell_all(after if op.path in after else before, op.path, exact=False)

    def fire_special(self, node: bytes, domid: int) -> None:
        """First the event that names the domain, then the plain one."""
        named = node + b"/%d" % domid
        permitted = (self.live[node].perms, self.live[ROOT].perms)

        def may_know(watch: Watch) -> bool:
            return any("r" in self.rights(watch.connection, perms) for perms in permitted)

        for watch in self.matching(named):
            if (watch.path == named or watch.depth is not None) and may_know(watch):
                self.tell(watch, named)
        for watch in self.matching(node):
            if watch.depth is None and may_know(watch):
                self.tell(watch, node)

    # --- domains that go away ---------------------------------------------------------------

    def bury(self, domid: int, requester: Connection | None = None) -> None:
        """A domain is gone: so are its watches, connection, nodes and rights; then it is told."""
        ring = self.domains.pop(domid).connection
        self.rules += 1
        if self.observer is not None:
            self.observer.forget(domid)
        if ring is not None:
            self.close(ring)
        for connection in self.connections:
            for transaction in connection.transactions.values():
                named = {entry.domid for op in transaction.log for entry in op.perms}
                transaction.doomed = transaction.doomed or domid in named
        before = self.live  # it is one change: what could be read before is what counts
        for path in sorted(self.live, key=lambda p: p.split(b"/") if p != ROOT else [b""]):
            if path not in self.live or self.live[path].owner != domid:
                continue
            if path == ROOT or is_special(path):
                owner, *others = self.live[path].perms
                self.set_perms_of(path, (Entry(owner.letter, self.priv_domid), *others))
                continue
            self.live = dict(self.live)
            self.apply(self.live, Op(Msg.RM, path))
            self.fire(Op(Msg.RM, path), before, self.live)
        for path, node in list(self.live.items()):
            kept = (node.perms[0], *(e for e in node.perms[1:] if e.domid != domid))
            if kept != node.perms:
                self.set_perms_of(path, kept)
        if self.observer is not None and self.live is not before:
            self.observer.committed(requester, None, before, self.live)
        if ring is not None:
            self.fire_special(RELEASE_NODE, domid)
        for connection in self.connections:
            if connection.target == domid:
                connection.target = None

    def set_perms_of(self, path: bytes, perms: Perms) -> None:
        self.live = dict(self.live)
        node = self.live[path]
        self.live[path] = node._replace(perms=perms, self_stamp=self.new_stamp())

    # --- operations on the tree -------------------------------------------------------------

    def do_read(self, request: Request) -> bytes:
        path = self.path(request.connection, one_argument(request.payload))
        tree = self.look(request, path)
        return self.get(request.connection, tree, path, "r").value

    def list_names(self, request: Request, path: bytes) -> bytes:
        tree = self.look(request, path, kids=True)
        self.get(request.connection, tree, path, "r")
        return b"".join(name + b"\0" for name in tree[path].kids)

    def do_directory(self, request: Request) -> bytes:
        path = self.path(request.connection, one_argument(request.payload))
        return self.list_names(request, path)

    def do_directory_part(self, request: Request) -> bytes:
        """The count in front is the sum of the stamps here; only its equality means anything."""
        text, offset = arguments(request.payload, 2, 2)
        path = self.path(request.connection, text)
        names = self.list_names(request, path)
        node = self.tree(request)[path]
        head = b"%d\0" % (node.self_stamp + node.kids_stamp)
        rest = names[max(0, parse_lenient(offset)) :]
        room = PAYLOAD_MAX - len(head) - 1
        if len(rest) <= room:
            return head + rest + b"\0"
        return head + rest[: rest.rindex(b"\0", 0, room) + 1]

    def do_get_perms(self, request: Request) -> bytes:
        path = self.path(request.connection, one_argument(request.payload), special=True)
        tree = self.look(request, path)
        return perms_text(self.get(request.connection, tree, path, "r").perms)

    def may_put(self, request: Request, path: bytes) -> bool:
        """Whether the node exists; EACCES unless it, or its nearest ancestor, may be written."""
        tree = self.look(request, path)
        at = nearest(tree, path)
        if "w" not in self.rights(request.connection, tree[at].perms):
            raise RequestError("EACCES")
        # Ancestors are created along with the node, and count as looked at.
        self.charge_looks(request, *(above for above in lineage(path) if above not in tree))
        return at == path

    def do_write(self, request: Request) -> bytes:
        text, nul, value = request.payload.partition(b"\0")
        if not nul:
            raise RequestError("EINVAL")
        path = self.path(request.connection, text)
        self.may_put(request, path)
        creator = self.creator(request.connection)
        return self.change(request, Op(Msg.WRITE, path, value=value, creator=creator))

    def do_mkdir(self, request: Request) -> bytes:
        path = self.path(request.connection, one_argument(request.payload))
        if self.may_put(request, path):
            return OK
        return self.change(request, Op(Msg.MKDIR, path, creator=self.creator(request.connection)))

    def do_rm(self, request: Request) -> bytes:
        path = self.path(request.connection, one_argument(request.payload))
        tree = self.look(request, path)
        try:
            self.get(request.connection, tree, path, "w")
        except RequestError as failure:
            if failure.name == "ENOENT" and parent(path) in tree:
                return OK
            raise
        if path == ROOT:
            raise RequestError("EINVAL")
        if request.transaction:
            request.transaction.seen_below.add(path)
        return self.change(request, Op(Msg.RM, path))

    def do_set_perms(self, request: Request) -> bytes:
        connection = request.connection
        text, *texts = arguments(request.payload, 2)
        entries = [parse_entry(entry) for entry in texts]
        if exceeds(len(entries), self.limit(connection, "node-permissions")):
            raise RequestError("ENOSPC")
        self.known(connection, entries[0].domid)
        perms = (entries[0], *(self.resolve(connection, entry) for entry in entries[1:]))
        path = self.path(connection, text, special=True)
        node = self.get(connection, self.look(request, path), path, "o")
        if not self.privileged(connection) and perms[0].domid != node.owner:
            raise RequestError("EPERM")
        return self.change(request, Op(Msg.SET_PERMS, path, perms=perms))

    def resolve(self, connection: Connection, entry: Entry) -> Entry:
        """An entry for a domain that does not exist must not help a later one with its domid."""
        if entry.domid == ANY_DOMAIN:
            return entry._replace(ignored=not self.features(connection) & FEATURE_ANY_DOMAIN)
        if not self.ask(connection, "domain", entry.domid):
            return entry._replace(ignored=True)
        self.domain(entry.domid)
        return entry

    # --- watches ----------------------------------------------------------------------------

    def do_watch(self, request: Request) -> bytes:
        connection = request.connection
        with_depth = bool(self.features(connection) & FEATURE_DEPTH)
        text, token, *rest = arguments(request.payload, 2, 3 if with_depth else 2)
        depth = None
        if rest:
            depth = parse_lenient(rest[0])
            if depth < 0:
                raise RequestError("EINVAL")
        path = self.path(connection, text, special=True)
        same = [w for w in self.watches.get(path, ()) if w.connection is connection]
        if any(w.token == token for w in same):
            raise RequestError("EEXIST")
        limit = self.limit(connection, "watches")
        if limit != 0 and self.count_watches(connection.domid) + 1 > limit:
            raise RequestError("ENOSPC")
        if self.limited(connection) and not self.fits(connection.domid, len(text) + len(token)):
            raise RequestError("ENOMEM")
        watch = Watch(connection, path, text, token, depth)
        self.watches[path] = [*self.watches.get(path, ()), watch]
        connection.first_event = text + b"\0" + token + b"\0"
        return OK

    def count_watches(self, domid: int) -> int:
        return sum(watch.connection.domid == domid for watch in self.all_watches())

    def do_unwatch(self, request: Request) -> bytes:
        connection = request.connection
        text, token = arguments(request.payload, 2, 2)
        path = self.path(connection, text, special=True)
        for watch in self.watches.get(path, ()):
            if watch.connection is connection and watch.token == token:
                self.watches[path] = [w for w in self.watches[path] if w is not watch]
                return OK
        raise RequestError("ENOENT")

    def do_reset_watches(self, request: Request) -> bytes:
        self.reset(request.connection)
        return OK

    # --- transactions -----------------------------------------------------------------------

    def do_transaction_start(self, request: Request) -> bytes:
        connection = request.connection
        if request.transaction:
            raise RequestError("EBUSY")
        if exceeds(len(connection.transactions) + 1, self.limit(connection, "transactions")):
            raise RequestError("ENOSPC")
        connection.last_tx += 1
        transaction = Transaction(self.live, dict(self.live), self.rules, self.now, self.commits)
        connection.transactions[connection.last_tx] = transaction
        if self.observer is not None:
            self.observer.began(connection, transaction)
        return b"%d\0" % connection.last_tx

    def do_transaction_end(self, request: Request) -> bytes:
        verdict, transaction = one_argument(request.payload), request.transaction
        if verdict not in (b"T", b"F"):
            raise RequestError("EINVAL")
        if transaction is None:
            raise RequestError("ENOENT")
        open_ones = request.connection.transactions
        request.connection.transactions = {
            tx_id: tx for tx_id, tx in open_ones.items() if tx is not transaction
        }
        try:
            if verdict == b"T":
                self.commit(request.connection, transaction)
        except NotYetError:
            request.connection.transactions = open_ones
            raise
        except RequestError:
            self.end(request.connection, transaction)
            raise
        self.end(request.connection, transaction)
        return OK

    def end(self, connection: Connection, transaction: Transaction) -> None:
        """A transaction has ended, one way or another."""
        connection.recorded -= transaction.records
        if self.observer is not None:
            self.observer.ended(connection, transaction)

    def commit(self, connection: Connection, transaction: Transaction) -> None:
        """Repeat the changes on the live tree and fire their events; all or nothing."""
        if transaction.poisoned:
            raise RequestError("ENOMEM")
        if not transaction.log:
            return
        if transaction.doomed:
            raise RequestError("EAGAIN")
        ending, before = transaction, self.live
        self.check_rises(connection, transaction, transaction.records)
        if self.conflicts(transaction):
            # Something that was seen has moved: what counts is whether it would be answered
            # otherwise now.
            again = self.replay(connection, transaction)
            if again is None:
                if self.observer is not None:
                    self.observer.failed(connection, transaction)
                raise RequestError("EAGAIN")
            self.check_rises(connection, again, transaction.records)
            transaction = again
        elif not self.limited(connection) and transaction.rules == self.rules:
            # Quotas are another matter: they depend on more than a transaction can see.
            moved = "stamps say that nothing has moved, and yet it has"
            assert self.replay(connection, transaction) is not None, moved
        after = dict(before)
        for op in transaction.log:
            self.apply(after, op)
        self.publish(connection, ending, after)
        for op in transaction.log:
            self.fire(op, before, after)
        if self.observer is not None:
            self.observer.succeeded(connection)

    def check_rises(self, connection: Connection, transaction: Transaction, freed: int) -> None:
        """No domain may get more nodes or bytes than it can have; a guest's commits are tested.
        Its own records, so many bytes, go with the transaction."""
        base, view = transaction.base, transaction.view
        if not self.limited(connection) or not transaction.created:
            return
        for domid in transaction.charges:
            if domid == self.priv_domid:
                continue
            rises = count_nodes(view, domid) > count_nodes(base, domid)
            domain = self.domains.get(domid)
            limit = (domain.quotas if domain else self.quotas)["nodes"]
            if rises and exceeds(self.projected(base, view, domid), limit):
                raise RequestError("ENOSPC")
            # Also for one that has died meanwhile, as if it were about to come.
            rise = self.rise(base, view, domid) if self.memory_limit(domid) else 0
            own = freed if domid == connection.domid else 0
            if rise > 0 and not self.fits(domid, rise - own):
                raise RequestError("ENOMEM")

    # --- domains ----------------------------------------------------------------------------

    def do_control(self, request: Request) -> bytes:
        """What the verbs do is no concern of the core; any well-formed one is acknowledged."""
        arguments(request.payload, 1)
        self.ask(request.connection, "control", 0)
        return OK

    def do_introduce(self, request: Request) -> bytes:
        name, _gfn, port, *_ = arguments(request.payload, 3)
        domid = parse_domid(name)
        if parse_lenient(port) <= 0:
            raise RequestError("EINVAL")
        if not self.ask(request.connection, "introduce", domid):
            raise RequestError("ENOENT")
        self.introduce(domid)
        return OK

    def introduce(self, domid: int) -> None:
        """The ring of a domain is served from now on, or gets a fresh start."""
        domain = self.domain(domid)
        if domain.connection is None:
            domain.connection = self.open(RING, domid)
            if domid != self.priv_domid:
                self.fire_special(INTRODUCE_NODE, domid)
                if self.observer is not None:
                    self.observer.joined(domid)
        else:
            self.begin_afresh(domain.connection)
            domain.connection.ignored = False

    def is_introduced(self, domid: int) -> bool:
        """The store's own domain and the privileged one count as such without a ring."""
        return domid in (self.store_domid, self.priv_domid) or self.ring_of(domid) is not None

    def guest_domid(self, text: bytes) -> int:
        """The domid of an introduced domain other than the store's own and the privileged one."""
        domid = parse_domid(text)
        if domid in (self.store_domid, self.priv_domid):
            raise RequestError("EINVAL")
        if not self.is_introduced(domid):
            raise RequestError("ENOENT")
        return domid

    def do_release(self, request: Request) -> bytes:
        self.bury(self.guest_domid(one_argument(request.payload)), request.connection)
        return OK

    def do_resume(self, request: Request) -> bytes:
        domid = self.guest_domid(one_argument(request.payload))
        self.domains[domid].shut_down = False
        return OK

    def do_set_target(self, request: Request) -> bytes:
        subject, target = (parse_domid(text) for text in arguments(request.payload, 2)[:2])
        if not self.is_introduced(subject) or not self.is_introduced(target):
            raise RequestError("ENOENT")
        ring = self.ring_of(subject)
        if ring is None:
            raise RequestError("EINVAL")
        ring.target = target
        self.rules += 1
        return OK

    def do_is_domain_introduced(self, request: Request) -> bytes:
        domid = parse_domid(one_argument(request.payload))
        return b"T\0" if domid == SELF_DOMID or self.is_introduced(domid) else b"F\0"

    def do_get_domain_path(self, request: Request) -> bytes:
        return b"/local/domain/%d\0" % parse_domid(one_argument(request.payload))

    # --- features and quotas ----------------------------------------------------------------

    def do_get_feature(self, request: Request) -> bytes:
        connection = request.connection
        strings = arguments(request.payload, 0, 1)
        if not strings:
            return b"%d\0" % self.features(connection)
        if not self.privileged(connection):
            raise RequestError("EACCES")
        return b"%d\0" % self.known(connection, parse_domid(strings[0])).features

    def do_set_feature(self, request: Request) -> bytes:
        name, value = arguments(request.payload, 2, 2)
        domid = parse_domid(name)
        domain = self.known(request.connection, domid)
        if self.is_introduced(domid):
            raise RequestError("EBUSY")
        if parse_lenient(value) & ~FEATURES:
            raise RequestError("EINVAL")
        domain.features = parse_lenient(value)
        return OK

    def quota_name(self, text: bytes) -> str:
        name = text.decode("latin-1")
        soft = "soft-" if name.startswith("soft-") else ""
        plain = name.removeprefix("soft-")
        name = soft + QUOTA_SPELLINGS.get(plain, plain)
        if name not in self.quotas:
            raise RequestError("EINVAL")
        return name

    def do_get_quota(self, request: Request) -> bytes:
        strings = arguments(request.payload, 0, 2)
        if not strings:
            return QUOTA_NAMES.encode() + b"\0"
        name = self.quota_name(strings[-1])
        if len(strings) == 1:
            return b"%d\0" % self.quotas[name]
        domain = self.known(request.connection, parse_domid(strings[0]))
        return b"%d\0" % domain.quotas[name]

    def do_set_quota(self, request: Request) -> bytes:
        strings = arguments(request.payload, 2, 3)
        name, value = self.quota_name(strings[-2]), parse_lenient(strings[-1])
        quotas = self.quotas
        if len(strings) == 3:
            quotas = self.known(request.connection, parse_domid(strings[0])).quotas
        if not 0 <= value < 2**32 - 1:
            raise RequestError("EINVAL")
        quotas[name] = value
        self.rules += 1
        return OK
