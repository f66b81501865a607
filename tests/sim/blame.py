"""Who is to blame for a conflict, and what it costs: the rule, written down naively.

While a transaction is open that is young enough to be protected, commits of guests are kept, with
the tree before and after; commits of one guest that follow each other are one. Of a transaction
that fails, those are looked at from the newest back: whoever changed something that was seen, so
that the answers were the same right before and were not right after, loses a point. Without points
a guest is neither read nor written until time gives one back.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from model import Connection, Model, Transaction
from model_tree import RequestError, Tree, nearest

from sim.seen import sees_change
from sim.settings import Settings

RECORDS_MAX = 512
TRIALS_MAX = 32
MOVED_MAX = 16
AUTHORS_MAX = 4096


@dataclass(slots=True)
class Record:
    """Commits of one guest that nobody could tell apart."""

    number: int
    author: Connection
    before: Tree
    after: Tree


class Trial:
    """One failed commit that is being looked into."""

    def __init__(self, oracle: Model, connection: Connection, tx: Transaction) -> None:
        self.oracle = oracle
        self.connection = connection
        self.tx = tx
        self.seen = tx.seen_self | tx.seen_kids | tx.seen_below
        self.moved = {p for p in self.seen if sees_change(tx, p, tx.base, oracle.live)}
        self.guilty: list[Connection] = []
        self.count = 0
        self.tried = oracle.live
        self.result: bool | None = False  # None: without memory nobody knows

    def touched_by(self, record: Record) -> bool:
        paths = self.seen if len(self.moved) > MOVED_MAX else self.moved
        return any(sees_change(self.tx, path, record.before, record.after) for path in paths)

    def alike(self, root: Tree) -> bool | None:
        """Whether it would have been answered on this tree as it was; None if nobody knows."""
        if self.tried is not root:
            self.count += 1
            self.tried = root
            try:
                self.result = self.oracle.replay(self.connection, self.tx, root) is not None
            except RequestError:
                self.result = None
        return self.result

    def judge(self, record: Record) -> None:
        author = record.author
        if author is self.connection or author in self.guilty or not self.touched_by(record):
            return
        if self.alike(record.after) is False and self.alike(record.before):
            self.guilty.append(author)

    def halve(self, records: list[Record]) -> None:
        """Too many to look at: finds one, oldest first in `records`, that made a difference."""
        if self.alike(records[-1].after) is not False:
            return
        while len(records) > 1:
            half = len(records) // 2
            records = records[half:] if self.alike(records[half].before) else records[:half]
        self.judge(records[0])


class Blame:
    """The recent commits, and the credit of guests."""

    def __init__(self, oracle: Model, settings: Settings) -> None:
        self.oracle = oracle
        self.take(settings)
        self.stamps: list[int] = []  # the last one of each commit, and whose it was
        self.authors: list[Connection | None] = []
        self.records: list[Record] = []
        self.horizon = 0  # who has started before is not protected any more
        self.credit: dict[int, float] = {}
        self.caused: dict[int, int] = {}
        self.since: dict[int, int] = {}  # when a pause began
        self.paused: list[int] = []  # queues, who waits longest first
        self.penalised: list[int] = []
        self.due = 0

    def take(self, settings: Settings) -> None:
        self.on = settings.conflict
        self.limit = settings.burst_limit
        self.period = settings.period_ns
        self.aggregate = settings.aggregate

    def begin_anew(self) -> None:
        """What credit is has changed: everybody has all of it."""
        for known in (self.credit, self.paused, self.penalised):
            known.clear()

    # ---- the recent commits ------------------------------------------------------------------

    def open_ones(self) -> list[Transaction]:
        return [tx for c in self.oracle.connections for tx in c.transactions.values()]

    def protected(self, tx: Transaction) -> bool:
        return tx.since >= self.horizon

    def committed(
        self, author: Connection | None, ending: Transaction | None, before: Tree, after: Tree
    ) -> None:
        """The live tree has changed."""
        if ending is not None or any(c.transactions for c in self.oracle.connections):
            self.stamps.append(self.oracle.stamp)
            self.authors.append(author)
        if author is None or not self.oracle.limited(author):
            return
        others = self.open_ones()
        if not any(map(self.protected, others)):
            return
        number = self.oracle.commits
        newest = max(tx.number for tx in [*others, *([ending] if ending else [])])
        last = self.records[-1] if self.records else None
        if last and last.author is author and last.after is before and newest < last.number:
            last.number, last.after = number, after
        else:
            self.records.append(Record(number, author, before, after))

    def trim(self) -> None:
        """Forgets what no protected transaction can ask for."""
        self.horizon = max(self.horizon, self.oracle.now - self.period)
        if self.records:
            young = [tx.number for tx in self.open_ones() if self.protected(tx)]
            first = min(young, default=self.oracle.commits)
            self.records = [record for record in self.records if record.number > first]

    def last_author(self, tx: Transaction) -> Connection | None:
        """Who was the last, as far as is known, to change the first thing that is not as seen."""
        base, live = tx.base, self.oracle.live
        seen = tx.seen_self | tx.seen_kids | tx.seen_below
        moved = [p for p in tx.looked if p in seen and sees_change(tx, p, base, live)]
        if not moved:
            return None
        path = moved[0]
        node = live.get(path)
        if node is None:  # what has gone left its mark on what remains
            stamp = live[nearest(live, path)].kids_stamp
        elif path in tx.seen_kids or path in tx.seen_below:
            stamp = max(node.self_stamp, node.kids_stamp)
        else:
            stamp = node.self_stamp
        oldest = max(0, len(self.stamps) - AUTHORS_MAX)
        at = bisect_left(self.stamps, stamp, oldest)
        known = at < len(self.stamps) and not 0 < at == oldest
        return self.authors[at] if known else None

    def failed(self, connection: Connection, tx: Transaction) -> bool:
        """A transaction could not be committed; whether others were in its way."""
        # It is still open now, and may be the one for which records are kept.
        connection.transactions[0] = tx
        self.trim()
        del connection.transactions[0]
        others = self.last_author(tx) is not connection
        trial = Trial(self.oracle, connection, tx)
        records = [record for record in self.records if record.number > tx.number]
        looked = 0
        while records and looked < RECORDS_MAX and trial.count < TRIALS_MAX:
            looked += 1
            trial.judge(records.pop())
        if records:
            trial.halve(records)
        for author in trial.guilty:
            if self.oracle.ring_of(author.domid) is author:
                self.charge(author.domid)
        return others or bool(trial.guilty)

    # ---- credit ------------------------------------------------------------------------------

    def is_paused(self, domid: int) -> bool:
        return self.on and self.credit.get(domid, self.limit) <= 0

    def count_paused(self) -> int:
        return sum(credit <= 0 for credit in self.credit.values())

    def charge(self, domid: int) -> None:
        """A point less, at most one in debt; a pause lasts a whole period."""
        before = self.credit.get(domid, self.limit)
        after = max(before - 1, -1.0)
        now, starting = self.oracle.now, before > 0 >= after
        self.caused[domid] = self.caused.get(domid, 0) + 1
        if not self.on:
            return
        if not (self.paused or self.penalised) or (starting and self.count_paused() == 0):
            self.due = now + self.period
        self.credit[domid] = after
        if starting:
            self.since[domid] = now
            if self.aggregate and domid not in self.paused:
                self.paused.append(domid)
        if (after > 0 or not self.aggregate) and domid not in self.penalised:
            self.penalised.append(domid)

    def tick(self) -> None:
        """One point a period, to who has waited longest, the paused first; or to everybody."""
        if self.paused:
            self.due = max(self.due, self.since[self.paused[0]] + self.period)
        if not (self.paused or self.penalised) or self.oracle.now < self.due:
            return
        if not self.aggregate:
            self.give_each()
            self.due = self.oracle.now + self.period
            return
        was_paused = bool(self.paused)
        domid = (self.paused or self.penalised).pop(0)
        credit = self.credit[domid] = min(self.credit[domid] + 1, self.limit)
        if credit <= 0:
            self.paused.append(domid)
        elif credit < self.limit and (domid not in self.penalised or not was_paused):
            self.penalised.append(domid)
        self.due = self.oracle.now + self.period

    def give_each(self) -> None:
        """A point for everybody whose pause, if there is one, has lasted a period."""
        for domid in list(self.penalised):
            paused = self.credit[domid] <= 0
            if not paused or self.oracle.now >= self.since[domid] + self.period:
                self.credit[domid] = min(self.credit[domid] + 1, self.limit)
            if self.credit[domid] >= self.limit:
                self.penalised.remove(domid)

    def next_point(self) -> int | None:
        """When somebody is given one."""
        return self.due if self.paused or self.penalised else None

    def forget(self, domid: int) -> None:
        """A domain has gone."""
        for known in (self.credit, self.caused, self.since):
            known.pop(domid, None)
        for queue in (self.paused, self.penalised):
            if domid in queue:
                queue.remove(domid)
