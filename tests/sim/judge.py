"""The whole state of a world, compared now and then and at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_tree import Msg, levels, perms_text

from sim.fairness import Fairness
from sim.verdict import DifferenceError, expect

if TYPE_CHECKING:
    from sim.stage import Stage

TREE_BLOCKS = 7
"""Of a tree with nothing but the root and the special nodes, and its tables."""
SPARE_BLOCKS = 16
"""Tables that grow with what there is at a time, and are kept: a block each."""
SPARE_BYTES = 256 * 1024


class Judge:
    """Compares all there is, whoever has noticed it or not."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def compare(self) -> None:
        """Tree and counts are equal."""
        right = {
            p: (node.value, perms_text(node.perms)) for p, node in self.stage.oracle.live.items()
        }
        found = self.stage.engine.tree()
        if found != right:
            paths = sorted({*found, *right})
            unlike = [p for p in paths if found.get(p) != right.get(p)]
            raise DifferenceError(
                "the tree" + "".join(f"\n    {p!r} {found.get(p)} {right.get(p)}" for p in unlike)
            )
        self.compare_counts()

    def compare_counts(self) -> None:
        """Everybody is charged with what he has."""
        engine, oracle = self.stage.engine.counts(), self.stage.oracle.counts()
        queued: dict[int, int] = {}
        for connection in self.stage.oracle.connections:
            size = sum(16 + len(item.packet.payload) for item in connection.queue)
            queued[connection.domid] = queued.get(connection.domid, 0) + size
        for domid in {*engine, *oracle}:
            figures, right = engine.get(domid, {}), oracle.get(domid, {})
            right["memory"] = right.get("memory", 0) + queued.get(domid, 0)
            for name in ("nodes", "watches", "transactions", "memory"):
                expect(
                    figures.get(name, 0) == right.get(name, 0),
                    f"{name} of domain {domid}", figures, right,
                )  # fmt: skip
        if self.stage.fairness is not None:
            self.compare_credit(self.stage.fairness)
            self.check_bounds(self.stage.fairness)
        transactions = sum(len(peer.link.transactions) for peer in self.stage.by_cid.values())
        expect(len(self.stage.engine.transactions()) == transactions, "transactions", transactions)

    def compare_credit(self, fairness: Fairness) -> None:
        """Everybody is charged with the conflicts that were caused, and has the credit left."""
        blame = fairness.blame
        for domid, figures in self.stage.engine.conflict_figures().items():
            caused, credit = blame.caused.get(domid, 0), blame.credit.get(domid, blame.limit)
            right = (caused, credit, blame.is_paused(domid))
            found = (figures["caused"], figures["credit"], figures["paused"])
            expect(found == right, f"conflict credit of domain {domid}", found, right)
            well = -1 <= found[1] <= blame.limit
            expect(well, f"conflict credit of domain {domid} out of bounds", found)

    def check_bounds(self, fairness: Fairness) -> None:
        """Nobody waits longer than he may, or for whom he need not wait."""
        priority, now, oracle = fairness.priority, self.stage.now, self.stage.oracle
        for link in priority.held:
            owner, until = priority.owner, priority.past(link).hold_until
            expect(owner is not None and owner is not link, "held back for nobody", link.domid)
            assert owner is not None
            lower = oracle.limited(owner) and not oracle.limited(link)
            expect(not lower, "held back for somebody less privileged", link.domid, owner.domid)
            well = now < until <= now + priority.longest
            expect(well, "held back for too long", link.domid, now, until)

    def finish(self) -> None:
        """Everybody goes; everything must have been given back."""
        self.stage.actions.do_late(False)
        self.stage.settle()
        self.compare()
        for domid in sorted(self.stage.host - {0}):
            self.stage.actions.do_kill(domid)
            self.stage.settle()
            account = self.stage.engine.account(domid)
            expect(account == (0, 0), "a dead domain holds memory", domid, account)
        self.compare()
        for peer in list(self.stage.by_cid.values()):
            if peer.page is not None:
                self.stage.rings.detach(peer.domid)
            self.stage.disconnect(peer)
        self.compare()
        self.empty_the_tree()
        self.check_memory()

    def empty_the_tree(self) -> None:
        """A last client removes what is left, and goes as well."""
        self.stage.actions.do_open(0)
        for path in [path for path in self.stage.oracle.live if levels(path) == 1]:
            if not path.startswith(b"@"):
                self.stage.actions.do_ask(0, (Msg.RM, path + b"\0", 0))
                self.stage.settle()
        peer = self.stage.slots[0]
        assert peer is not None
        self.stage.disconnect(peer)
        self.compare()

    def check_memory(self) -> None:
        """Nobody is charged any more, and what is left does not depend on what has been."""
        engine = self.stage.engine
        engine.collect()
        engine.check()
        left = engine.connections(), engine.watches(), engine.transactions(), engine.account(0)
        expect(left == ([], [], [], (0, 0)), "something is left", left)
        memory = engine.memory()
        expect(memory["tree_blocks"] == TREE_BLOCKS, "the tree holds memory", memory)
        blocks = memory["total_blocks"] - memory["tree_blocks"]
        blocks -= len(engine.conflict_figures())  # records of domains
        blocks -= sum(1 for conflict in engine.conflicts() if conflict["path"])
        well = blocks <= SPARE_BLOCKS and memory["total_bytes"] <= SPARE_BYTES
        expect(well, "memory is held for nobody", blocks, memory)
