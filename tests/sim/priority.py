"""Who is held back for whom: the rule, written down naively.

A connection whose transactions have failed so many times in a row through others has priority for
its next one. Until that ends, and for a bounded time at most, what others would change of what it
saw, now or when it failed last, waits. One has priority at a time; a guest's gives way to dom0,
and dom0 does not wait for a guest's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from model import Connection, Model, NotYetError, Transaction
from model_tree import ROOT, Entry, Tree, is_special, nearest

from sim.seen import sees_change
from sim.settings import Settings


@dataclass(slots=True)
class Past:
    """What is remembered of a connection."""

    failures: int = 0  # in a row
    foreseen: Transaction | None = None  # the one that failed last
    hold_until: int = 0  # its request is not held back longer; 0: it has not been yet


@dataclass(eq=False)
class Priority:
    """Of one connection at a time."""

    oracle: Model
    after: int = 0  # failures in a row
    hold: int = 0
    owner: Connection | None = None
    tx: Transaction | None = None
    held: list[Connection] = field(default_factory=list)
    pasts: dict[Connection, Past] = field(default_factory=dict)
    longest: int = 0  # hold there has been

    def take(self, settings: Settings) -> None:
        self.after, self.hold = settings.priority_after, settings.priority_hold_ns
        self.longest = max(self.longest, self.hold)

    def past(self, connection: Connection) -> Past:
        return self.pasts.setdefault(connection, Past())

    # ---- who has it --------------------------------------------------------------------------

    def began(self, connection: Connection, tx: Transaction) -> None:
        if 0 < self.after <= self.past(connection).failures and self.is_free(connection):
            self.held.clear()
            self.owner, self.tx = connection, tx
            tx.hold_until = self.oracle.now + self.hold

    def is_free(self, connection: Connection) -> bool:
        if self.tx is None or self.owner is None or self.oracle.now >= self.tx.hold_until:
            return True
        return self.oracle.limited(self.owner) and not self.oracle.limited(connection)

    def failed(self, connection: Connection, tx: Transaction) -> None:
        """Others have made a transaction fail."""
        if self.after > 0:
            past = self.past(connection)
            past.failures += 1
            past.foreseen = tx if past.failures >= self.after else None
            tx.failed = True

    def succeeded(self, connection: Connection) -> None:
        past = self.past(connection)
        past.failures, past.foreseen = 0, None

    def ended(self, connection: Connection, tx: Transaction) -> None:
        if self.tx is tx:
            self.owner = self.tx = None
            self.held.clear()
        if tx.held_others and (self.oracle.now >= tx.hold_until or not tx.failed):
            self.past(connection).failures = 0  # it has had its turn

    # ---- who waits for it --------------------------------------------------------------------

    def admit(self, author: Connection, before: Tree, after: Tree) -> None:
        """Puts a change off that would break the transaction with priority."""
        if not self.breaks(author, before, after):
            return
        assert self.tx is not None
        past = self.past(author)
        self.tx.held_others = True
        if past.hold_until == 0:
            past.hold_until = self.oracle.now + self.hold
        self.held.append(author)
        raise NotYetError("held", 0)

    def breaks(self, author: Connection, before: Tree, after: Tree) -> bool:
        oracle, owner, tx = self.oracle, self.owner, self.tx
        if tx is None or owner is None or owner is author or oracle.now >= tx.hold_until:
            return False
        if not self.waits_for(author, owner):
            return False
        if 0 < self.past(author).hold_until <= oracle.now:
            return False
        foreseen = self.past(owner).foreseen
        return any(
            self.loses(owner, one, before, after) for one in (tx, foreseen) if one is not None
        )

    def waits_for(self, author: Connection, owner: Connection) -> bool:
        """Nobody waits for somebody less privileged."""
        return self.oracle.limited(author) or not self.oracle.limited(owner)

    def loses(self, owner: Connection, tx: Transaction, before: Tree, after: Tree) -> bool:
        """Whether anything changes that was seen and that its owner has a right to."""
        return any(
            (self.has_rights(owner, path, before) or self.has_rights(owner, path, after))
            for path in tx.seen_self | tx.seen_kids | tx.seen_below
            if sees_change(tx, path, before, after)
        )

    def has_rights(self, owner: Connection, path: bytes, tree: Tree) -> bool:
        at = nearest(tree, path)
        if is_special(path) and at == ROOT:
            return self.oracle.rights(owner, (Entry("n", self.oracle.priv_domid),)) != ""
        return self.oracle.rights(owner, tree[at].perms) != ""

    def answered(self, connection: Connection) -> None:
        """Its request has been answered: the next one may be held back as long."""
        if connection in self.pasts:
            self.pasts[connection].hold_until = 0

    def begun_afresh(self, connection: Connection) -> None:
        """It waits until time is looked at, unless it has gone."""
        past = self.past(connection)
        past.failures = past.hold_until = 0

    def closed(self, connection: Connection) -> None:
        self.pasts.pop(connection, None)
        if connection in self.held:
            self.held.remove(connection)

    def let_go(self) -> None:
        """Those go on who have been held back long enough."""
        if not self.held:
            return
        if self.tx is None or self.oracle.now >= self.tx.hold_until:
            self.held.clear()
        self.held = [one for one in self.held if self.past(one).hold_until > self.oracle.now]

    def due(self) -> int | None:
        """When somebody must go on."""
        if self.tx is None or not self.held:
            return None
        return min(self.tx.hold_until, *(self.past(one).hold_until for one in self.held))
