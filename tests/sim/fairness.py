"""Whoever makes others wait, or fail, or has to wait because of them: three rules together."""

from __future__ import annotations

from model import Connection, Model, Transaction
from model_tree import Tree

from sim.blame import Blame
from sim.priority import Priority
from sim.settings import Settings
from sim.writerate import WriteRate


class Fairness:
    """Hears of what happens in the oracle, and tells the rules of it in the order of the engine."""

    def __init__(self, oracle: Model, settings: Settings) -> None:
        self.oracle = oracle
        self.settings = settings
        self.blame = Blame(oracle, settings)
        self.priority = Priority(oracle)
        self.priority.take(settings)
        self.writes = WriteRate(oracle, settings)

    def admit(self, author: Connection, before: Tree, after: Tree) -> None:
        self.priority.admit(author, before, after)

    def committed(
        self, author: Connection | None, ending: Transaction | None, before: Tree, after: Tree
    ) -> None:
        self.blame.committed(author, ending, before, after)
        self.writes.committed(author, ending is not None, before, after)

    def failed(self, connection: Connection, tx: Transaction) -> None:
        if self.blame.failed(connection, tx):
            self.priority.failed(connection, tx)

    def succeeded(self, connection: Connection) -> None:
        self.priority.succeeded(connection)

    def began(self, connection: Connection, tx: Transaction) -> None:
        self.priority.began(connection, tx)

    def ended(self, connection: Connection, tx: Transaction) -> None:
        self.priority.ended(connection, tx)
        self.blame.trim()

    def begun_afresh(self, connection: Connection) -> None:
        self.priority.begun_afresh(connection)

    def joined(self, domid: int) -> None:
        self.writes.joined(domid)

    def forget(self, domid: int) -> None:
        self.blame.forget(domid)
        self.writes.forget(domid)

    def tune(self, settings: Settings) -> None:
        """The daemon is told something else while it runs."""
        old, self.settings = self.settings, settings
        self.blame.take(settings)
        names = ("conflict", "burst_limit", "period_ns", "aggregate")
        if any(getattr(old, name) != getattr(settings, name) for name in names):
            self.blame.begin_anew()
        self.priority.take(settings)
        self.writes.settings = settings

    # ---- what the stage asks -----------------------------------------------------------------

    def has_no_credit(self, domid: int) -> bool:
        """Whether a guest is neither read nor written."""
        blame = self.blame  # most of the time nobody has lost a point
        return bool(blame.credit) and domid != self.oracle.priv_domid and blame.is_paused(domid)

    def makes_wait(self, connection: Connection) -> bool:
        """Whether the requests of a connection have to wait for others, or for credit."""
        if self.priority.held and connection in self.priority.held:
            return True
        if not (self.blame.credit or self.writes.waiting) or not self.oracle.limited(connection):
            return False
        return self.has_no_credit(connection.domid) or self.writes.waits(connection.domid)

    def tick(self) -> None:
        """Time has passed."""
        self.blame.trim()
        self.priority.let_go()
        self.blame.tick()
        self.writes.tick()

    def due(self) -> int | None:
        """When the daemon has to be woken up at the latest."""
        dues = (self.blame.next_point(), self.priority.due(), self.writes.due())
        return min((due for due in dues if due is not None), default=None)
