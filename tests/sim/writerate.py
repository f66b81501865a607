"""The write-rate limit: the rule, written down naively.

Guests share a rate of writes. Each saves up to a burst, what is beyond goes to a reserve that they
have in common, and the reserve helps those in debt. While transactions are open a write costs, and
who is in debt is not read until time has paid for it. Credit is in thousandths of a write, time in
whole milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from model import Connection, Model
from model_tree import Tree

from sim.settings import MS, Settings

WRITE = 1000


@dataclass(slots=True)
class Purse:
    """Of a guest."""

    credit: int
    looked: int  # when time was last counted, in ms


@dataclass(eq=False)
class WriteRate:
    oracle: Model
    settings: Settings
    reserve: int = 0
    purses: dict[int, Purse] = field(default_factory=dict)
    waiting: list[int] = field(default_factory=list)  # who began last comes first

    @property
    def burst(self) -> int:
        return self.settings.write_burst * WRITE

    def millisecond(self) -> int:
        return self.oracle.now // MS

    def joined(self, domid: int) -> None:
        """A newcomer is equipped from the reserve, which may go into debt for that."""
        floor = -self.settings.write_newcomers * self.burst
        given = max(0, min(self.reserve - floor, self.burst))
        self.reserve -= given
        self.purses[domid] = Purse(given, self.millisecond())

    def forget(self, domid: int) -> None:
        """What somebody has saved who goes is for the reserve, up to a burst."""
        if (purse := self.purses.pop(domid, None)) is not None:
            self.reserve += max(0, min(purse.credit, self.burst - self.reserve))
        if domid in self.waiting:
            self.waiting.remove(domid)

    def update(self, purse: Purse) -> None:
        """What has been earned since the last look."""
        spent = self.millisecond() - purse.looked
        earned = spent * self.settings.writes_per_second // len(self.purses)
        if earned > 0:
            purse.credit += earned
            purse.looked += spent
        if purse.credit < 0:
            given = max(0, min(self.reserve, -purse.credit))
            self.reserve -= given
            purse.credit += given
        over = purse.credit - self.burst
        if over > 0:
            purse.credit = self.burst
            full = self.settings.write_reserve * WRITE
            self.reserve += max(0, min(over, full - self.reserve))

    def committed(self, author: Connection | None, ending: bool, before: Tree, after: Tree) -> None:
        """A write costs if it could hurt anybody: as many as nodes are made or removed, and one."""
        if author is None or not (self.settings.write_rate and self.oracle.limited(author)):
            return
        if not any(connection.transactions for connection in self.oracle.connections):
            return
        purse = self.purses[author.domid]
        self.update(purse)
        purse.credit -= WRITE * (1 if ending else 1 + abs(len(after) - len(before)))
        if purse.credit < 0 and author.domid not in self.waiting:
            self.waiting.insert(0, author.domid)

    def waits(self, domid: int) -> bool:
        return self.settings.write_rate and domid in self.waiting

    def tick(self) -> None:
        """Lets those go on who are out of debt."""
        for domid in list(self.waiting):
            purse = self.purses[domid]
            self.update(purse)
            if purse.credit >= 0 or not self.settings.write_rate:
                self.waiting.remove(domid)

    def due(self) -> int | None:
        """When somebody can be out of debt, if all that he earns is for that."""
        wanted = [-self.purses[domid].credit for domid in self.waiting]
        if not wanted:
            return None
        rate = self.settings.writes_per_second
        return self.oracle.now + -(min(wanted) * len(self.purses) // -rate) * MS
