"""What one daemon showed beside what ours showed; asks the table about differences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from witness.house import KEPT, House, Node, Shown, Tree
from witness.line import EVENT, Packet
from witness.steps import CHANGES, Ask, Fate, Rules, Step, as_line
from witness.table import (
    OK,
    ROWS,
    Answer,
    Journal,
    Row,
    Said,
    Then,
    Told,
    absolute,
    is_foreign,
    less_dead,
    lineage,
)
from xsd.client.wire import Op

CHANGING = (*CHANGES, Op.SET_PERMS)
WITHIN = (
    *CHANGING,
    Op.READ,
    Op.DIRECTORY,
    Op.DIRECTORY_PART,
    Op.GET_PERMS,
    Op.TRANSACTION_END,
)
TREE = (*CHANGING, Op.READ, Op.DIRECTORY, Op.GET_PERMS, Op.WATCH, Op.UNWATCH, Op.TRANSACTION_END)


class UnexplainedError(Exception):
    """A difference that is in no row: of which peer, of what sort, in words."""

    def __init__(self, peer: str, sort: str, text: str) -> None:
        super().__init__(peer, sort, text)
        self.peer, self.sort, self.text = peer, sort, text

    def __str__(self) -> str:
        return self.text


@dataclass(slots=True)
class Tally:
    """How often each row applied, and how much was compared with each peer."""

    rows: Counter[tuple[str, str]] = field(default_factory=Counter)
    compared: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    trees: Counter[str] = field(default_factory=Counter)
    parted: Counter[str] = field(default_factory=Counter)


def answer(packet: Packet, op: int) -> Answer:
    """A reply without what means nothing."""
    kind, payload = packet
    if kind == Op.ERROR:
        return payload[:-1].decode() if payload[-1:] == b"\0" else repr(payload)
    if kind != op:
        return f"type {kind}"
    if op == Op.DIRECTORY:
        names = [name for name in payload.split(b"\0") if name not in KEPT]
        return b"\0".join(sorted(names))
    if op == Op.DIRECTORY_PART:  # a count that is its own business, and names
        return b"\0".join(sorted(payload.split(b"\0")[1:]))
    if op == Op.TRANSACTION_START:
        return b"id" if payload[:-1].isdigit() and int(payload[:-1]) else payload
    return payload


class Story:
    """What all daemons have in common: the transactions, and who has changed what."""

    def __init__(self) -> None:
        self.journals: dict[tuple[int, int], Journal] = {}
        self.dead: set[int] = set()
        self.again = False
        self.shut_down = False
        self.huge = False
        self.targets = False
        self.given = False
        """Whether permissions have been set, so that guests may own what is below others."""

    def follow(self, ask: Ask, ours: Answer) -> tuple[Journal | None, bool]:
        """Notes what a request did; its transaction, and whether it changed the tree."""
        journal = self.journals.get((ask.conn, ask.slot)) if ask.slot else None
        changed = False
        self.targets |= ask.op == Op.SET_TARGET and ours == OK
        self.huge |= ask.op in CHANGES and len(ask.payload) > 1000
        if journal:
            journal.mixed |= ask.op not in TREE
            journal.mixed |= ask.op == Op.TRANSACTION_END and ours == "EINVAL"
            journal.denied |= ours == "EACCES"
            journal.failed |= isinstance(ours, str)
        if journal and ask.op in CHANGING:
            journal.tried = True
            journal.refused |= ours == "ENOSPC"
            if ask.op == Op.SET_PERMS and ours == "ENOENT":
                journal.missed.append(ask)
        if ask.op == Op.TRANSACTION_START:
            if ask.into and ours == b"id":
                self.journals[ask.conn, ask.into] = Journal(ask.conn)
        elif ask.op == Op.TRANSACTION_END:
            if journal and ask.payload[:1] in (b"T", b"F"):
                del self.journals[ask.conn, ask.slot]
                changed = ask.payload[:1] == b"T" and ours == OK and bool(journal.changes)
        elif ask.op == Op.RESET_WATCHES:
            self.forget(ask.conn)
        elif ask.op in CHANGING and ours == OK and (journal or not ask.slot):
            self.given |= ask.op == Op.SET_PERMS
            if journal:
                journal.changes.append(ask)
                if ask.op == Op.RM:
                    journal.removed.append(absolute(ask))
            else:
                changed = True
        if changed:
            self.moved(journal)
        return journal, changed

    def moved(self, but: Journal | None = None) -> None:
        for journal in self.journals.values():
            if journal is not but:
                journal.moved = True

    def forget(self, conn: int) -> None:
        for key in [key for key in self.journals if key[0] == conn]:
            del self.journals[key]


class Judge:
    """Compares one peer with ours through one script."""

    def __init__(self, peer: str, rules: Rules, tally: Tally, story: Story) -> None:
        self.story = story
        self.peer, self.rules, self.tally = peer, rules, tally
        self.rows = [row for row in ROWS if peer in row.peers]
        self.parted = False
        self.suspect = False
        """Whether a commit may rightly have led to another tree."""
        self.doubtful: set[bytes] = set()
        """Paths created where the owner may differ."""

    def count(self, row: Row) -> None:
        self.tally.rows[self.peer, row.name] += 1

    # -- replies

    def replies(
        self, asks: Sequence[Ask], ours: Sequence[Answer], theirs: Sequence[Answer],
        journals: Sequence[Journal | None],
    ) -> None:  # fmt: skip
        """Raises UnexplainedError."""
        self.doubtful.clear()
        for ask, mine, other, journal in zip(asks, ours, theirs, journals, strict=True):
            if self.parted:
                return
            self.tally.compared[self.peer] += 1
            if journal is not None and self.peer in journal.doubtful and ask.op in WITHIN:
                if ask.op == Op.TRANSACTION_END and journal.tried and OK in (mine, other):
                    self.part()
                continue
            if mine != other:
                story = self.story
                self.differ(
                    Said(
                        self.peer, ask, mine, other, journal, self.rules, story.dead,
                        story.targets, story.given, story.huge,
                    )
                )  # fmt: skip
            elif (
                ask.op == Op.TRANSACTION_END and mine == OK and ask.payload == b"T\0"
                and journal is not None and journal.moved and journal.tried
            ):  # fmt: skip
                self.suspect = True
            if self.peer == "o" and mine == OK and ask.conn > 0:
                self.note_owner(ask, journal)

    def note_owner(self, ask: Ask, journal: Journal | None) -> None:
        """Remembers where a guest may have made nodes whose owner differs."""
        made = [ask] if ask.op in (Op.WRITE, Op.MKDIR) and not journal else []
        if ask.op == Op.TRANSACTION_END and journal:
            made = [one for one in journal.changes if one.op in (Op.WRITE, Op.MKDIR)]
        for one in made:
            if not is_foreign(one) and not self.story.given:
                continue
            self.doubtful.update(lineage(absolute(one)))

    def differ(self, said: Said) -> None:
        for row in self.rows:
            if row.said is not None and row.said(said):
                self.count(row)
                if row.then is Then.PART:
                    self.part()
                if row.then is Then.DOUBT:
                    if said.journal is not None:
                        said.journal.doubtful.add(self.peer)
                    else:
                        self.doubtful.update(lineage(said.path))
                return
        name = as_line(said.ask)
        raise UnexplainedError(
            self.peer,
            f"reply {said.ask.op} {shape(said.ours)} {shape(said.theirs)}",
            f"{name}\n  xsd: {said.ours!r}\n  {self.peer}:   {said.theirs!r}",
        )

    def part(self) -> None:
        self.parted = True
        self.tally.parted[self.peer] += 1

    # -- events

    def events(
        self, step: Step, ours: Shown, theirs: Shown, asks: Sequence[Ask],
        answers: Sequence[Answer], journals: Sequence[Journal | None],
    ) -> None:  # fmt: skip
        """Raises UnexplainedError."""
        if self.parted:
            return
        single = len(asks) == 1 and asks[0].op != Op.WATCH
        if asks:
            conn = asks[0].conn
            if self.peer == "c":
                for mine, other in zip(segments(ours.own), segments(theirs.own), strict=True):
                    self.compare(conn, mine, other, step, asks, answers, journals)
            else:
                mine = {payload for kind, payload in ours.own if kind == EVENT}
                other = {payload for kind, payload in theirs.own if kind == EVENT}
                self.compare(conn, mine, other, step, asks, answers, journals)
            if single:
                self.once(conn, ours.own, "xsd", step)
                if self.peer == "c":
                    self.once(conn, theirs.own, "c", step)
        for other_conn in ours.others.keys() | theirs.others.keys():
            one, two = ours.others.get(other_conn, []), theirs.others.get(other_conn, [])
            if one != two:
                self.compare(other_conn, set(one), set(two), step, asks, answers, journals)
            self.tally.events[self.peer] += len(one)
            if single:
                self.once(other_conn, [(EVENT, payload) for payload in one], "xsd", step)

    def once(self, conn: int, packets: Sequence[Packet], name: str, step: Step) -> None:
        told = [p for kind, p in packets if kind == EVENT and p[:1] != b"@"]
        if len(told) != len(set(told)):
            text = f"{as_line(step)}\n  {name} tells {conn} twice: {sorted(told)}"
            raise UnexplainedError(self.peer, f"twice {name}", text)

    def compare(
        self, conn: int, ours: set[bytes], theirs: set[bytes], step: Step, asks: Sequence[Ask],
        answers: Sequence[Answer], journals: Sequence[Journal | None],
    ) -> None:  # fmt: skip
        if ours == theirs:
            return
        changed: list[tuple[int, bytes]] = []
        removed: list[bytes] = []
        committed = moved = False
        for ask, said, journal in zip(asks, answers, journals, strict=True):
            if said != OK:
                continue
            if ask.op in CHANGING and journal is None:
                changed.append((ask.op, absolute(ask)))
            elif ask.op == Op.TRANSACTION_END and journal is not None:
                committed = True
                moved |= journal.moved
                changed += [(one.op, absolute(one)) for one in journal.changes]
        removed = [path for op, path in changed if op == Op.RM]
        fate = step.what if isinstance(step, Fate) else ""
        for payload in ours ^ theirs:
            path, token, _ = payload.split(b"\0")
            told = Told(
                self.peer, conn, absolute(Ask(conn, 0, path)), token, payload in ours, changed,
                removed, committed, moved, fate, self.doubtful, self.story.again,
                self.story.dead, self.story.targets, self.story.shut_down,
            )  # fmt: skip
            for row in self.rows:
                if row.told is not None and row.told(told):
                    self.count(row)
                    break
            else:
                lines = [
                    as_line(ask) + f" -> {said!r}" for ask, said in zip(asks, answers, strict=True)
                ]
                whose = "only xsd" if told.missing else f"only {self.peer}"
                raise UnexplainedError(
                    self.peer,
                    f"event {told.missing} {fate} {committed} {conn > 0}",
                    "\n".join(lines or [as_line(step)])
                    + f"\n  {whose} tells {conn}: {path!r} {token!r}"
                    + f"\n  xsd: {sorted(ours)}\n  {self.peer}: {sorted(theirs)}",
                )

    # -- trees

    def trees(self, ours: Tree, theirs: Tree) -> None:
        """Raises UnexplainedError."""
        if not self.parted:
            self.tally.trees[self.peer] += 1
        if self.parted or ours == theirs:
            return
        lines = []
        for path in sorted(ours.keys() | theirs.keys()):
            mine, other = ours.get(path), theirs.get(path)
            if mine != other and not self.alike(mine, other):
                lines.append(f"{path.decode()}\n  xsd: {mine}\n  {self.peer}:   {other}")
        if lines:
            raise UnexplainedError(self.peer, f"tree {kinds(ours, theirs)}", "\n".join(lines))

    def may_part(self, ours: Tree, theirs: Tree) -> None:
        """The trees after a commit of what has seen others' changes."""
        self.suspect = False
        if any(
            not self.alike(ours.get(path), theirs.get(path))
            for path in ours.keys() | theirs.keys()
            if ours.get(path) != theirs.get(path)
        ):
            self.count(row_named({"c": "another moment", "o": "another order"}[self.peer]))
            self.part()

    def alike(self, ours: Node | None, theirs: Node | None) -> bool:
        """Whether only entries of dead domains make two nodes differ."""
        if ours is None or theirs is None or self.peer != "c":
            return False
        dead = self.story.dead
        if (ours[0], ours[2]) != (theirs[0], theirs[2]):
            return False
        if less_dead(ours[1], dead) != less_dead(theirs[1], dead):
            return False
        self.count(row_named("entries of dead domains"))
        return True

    def mend(self, ours: House, theirs: House) -> None:
        """Gives nodes whose owner differs for a known reason the owner that they have in ours."""
        if not self.doubtful or self.parted:
            return
        paths = sorted(path for path in self.doubtful if path != b"/")
        self.doubtful.clear()
        asks = [(int(Op.GET_PERMS), path + b"\0", 0) for path in paths]
        row = row_named("owner of a created node")
        mended = False
        for path, mine, other in zip(
            paths, ours.question(asks), theirs.question(asks), strict=True
        ):
            if mine == other or other[0] != Op.GET_PERMS:
                continue
            if mine == (16, b"ENOENT\0"):
                theirs.question([(int(Op.RM), path + b"\0", 0)])
                mended = True
                continue
            if mine[0] != Op.GET_PERMS:
                continue
            first, *rest = mine[1].split(b"\0")[:-1]
            also, *more = other[1].split(b"\0")[:-1]
            if first[:1] == also[:1] and rest == more:
                theirs.command([(int(Op.SET_PERMS), path + b"\0" + mine[1], 0)])
                self.count(row)
                mended = True
        if mended:
            self.story.moved()
            theirs.barrier()
            for line in theirs.lines.values():
                line.fetch()


def row_named(name: str) -> Row:
    (row,) = [row for row in ROWS if row.name == name]
    return row


def segments(packets: Sequence[Packet]) -> list[set[bytes]]:
    """The events before each reply and after the last, each only where it came first."""
    found: list[set[bytes]] = [set()]
    seen: set[bytes] = set()
    for kind, payload in packets:
        if kind != EVENT:
            found.append(set())
        elif payload not in seen:
            seen.add(payload)
            found[-1].add(payload)
    return found


def shape(said: Answer) -> str:
    return said if isinstance(said, str) else "OK" if said == OK else "data"


def kinds(ours: Tree, theirs: Tree) -> str:
    """In what two trees differ: the sort of it."""
    found = set()
    for path in ours.keys() | theirs.keys():
        mine: Node | None = ours.get(path)
        other: Node | None = theirs.get(path)
        if mine is None or other is None:
            found.add("missing" if other is None else "extra")
        elif mine != other:
            found |= {str(at) for at in range(3) if mine[at] != other[at]}
    return " ".join(sorted(found))


__all__ = ["Judge", "Story", "Tally", "UnexplainedError", "answer", "is_foreign"]
