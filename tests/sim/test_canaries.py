"""The simulator must be able to fail: one planted bug of each class is found.

A bug is planted in the oracle, or between the engine and the stage, so that the compiled engine
stays what it is: for the simulator it makes no difference which of the two is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import model
import pytest
from model_tree import RING, Packet, RequestError
from world import Msg

from sim.__main__ import main
from sim.fairness import Fairness
from sim.run import play, shrink, trace
from sim.settings import Settings
from sim.stage import Stage

LIMIT = 40_000
"""Steps within which a planted bug must have been found: some worlds of 4000 steps each."""
WORLD = 4000

Plant = Callable[[Stage], None]


class Between:
    """The engine with one method replaced; the stage does not notice."""

    def __init__(self, real: Any, **methods: Callable[..., Any]) -> None:
        self.__dict__.update(methods)
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def put_between(stage: Stage, **methods: Callable[..., Any]) -> None:
    stage.engine = Between(stage.engine, **methods)  # type: ignore[assignment]


def wrong_reply(stage: Stage) -> None:
    """Reading an empty value fails."""
    read = stage.oracle.operations[Msg.READ]

    def wrong(request: model.Request) -> bytes:
        if (value := read(request)) == b"":
            raise RequestError("ENOENT")
        return value

    stage.oracle.operations[Msg.READ] = wrong


def lost_event(stage: Stage) -> None:
    """A watch with the token "u" is not told of removals."""
    tell, fire = stage.oracle.tell, stage.oracle.fire
    removing = [False]

    def firing(op: Any, *trees: Any, **more: Any) -> None:
        removing[0] = op.kind == Msg.RM
        fire(op, *trees, **more)
        removing[0] = False

    def telling(watch: model.Watch, path: bytes) -> None:
        if not (removing[0] and watch.token == b"u"):
            tell(watch, path)

    stage.oracle.fire, stage.oracle.tell = firing, telling  # type: ignore[method-assign]


def order_of_events(stage: Stage) -> None:
    """Watchers are told from the node up, not from the root down."""
    matching = stage.oracle.matching
    stage.oracle.matching = (  # type: ignore[method-assign]
        lambda path, exact=False: iter(list(matching(path, exact))[::-1])
    )


def wrong_permission(stage: Stage) -> None:
    """The second entry that matches counts, not the first."""
    rights = stage.oracle.rights

    def lenient(connection: model.Connection, perms: Any) -> str:
        own = [entry for entry in perms[1:] if entry.domid == connection.domid]
        return rights(connection, (perms[0], *own[::-1], *perms[1:]))

    stage.oracle.rights = lenient  # type: ignore[method-assign]


def lost_node(stage: Stage) -> None:
    """The end of a domain takes only the first of its nodes that is found."""
    bury = stage.oracle.bury

    def forgetful(domid: int, requester: model.Connection | None = None) -> None:
        kept = {p: n for p, n in stage.oracle.live.items() if n.owner == domid and b"/k/" in p}
        bury(domid, requester)
        stage.oracle.live = {**stage.oracle.live, **kept}

    stage.oracle.bury = forgetful  # type: ignore[method-assign]


def leaked_account(stage: Stage) -> None:
    """Some memory of a dead domain is still charged to it."""
    account = stage.engine.account
    put_between(stage, account=lambda domid: (64, 1) if domid == 2 else account(domid))


def quota_miscount(stage: Stage) -> None:
    """One watch more than allowed is let through."""
    count = stage.oracle.count_watches
    stage.oracle.count_watches = lambda domid: count(domid) - 1  # type: ignore[method-assign]


def node_miscount(stage: Stage) -> None:
    """One node more than allowed is let through."""
    projected = stage.oracle.projected
    stage.oracle.projected = (  # type: ignore[method-assign]
        lambda base, view, domid: projected(base, view, domid) - 1
    )


def no_isolation(stage: Stage) -> None:
    """A transaction sees what others have written to a value since it started."""
    look = stage.oracle.look

    def peeking(request: model.Request, path: bytes, kids: bool = False) -> Any:
        tree = look(request, path, kids)
        now = stage.oracle.live.get(path)
        if request.transaction and path in tree and now and now.value != tree[path].value:
            return {**tree, path: tree[path]._replace(value=now.value)}
        return tree

    stage.oracle.look = peeking  # type: ignore[method-assign]


def no_conflicts(stage: Stage) -> None:
    """A transaction commits whatever has become of what it saw."""
    stage.oracle.conflicts = lambda transaction: False  # type: ignore[method-assign]
    stage.oracle.replay = (  # type: ignore[method-assign]
        lambda connection, transaction, root=None: model.Transaction({}, {})
    )


def watch_after_death(stage: Stage) -> None:
    """The watches of a dead domain are forgotten to be removed, but one."""
    reset = stage.oracle.reset

    def forgetful(connection: model.Connection) -> None:
        kept = [w for w in stage.oracle.all_watches() if w.connection is connection][1:]
        reset(connection)
        for watch in kept if connection.kind == RING else ():
            stage.oracle.watches[watch.path] = [*stage.oracle.watches[watch.path], watch]

    stage.oracle.reset = forgetful  # type: ignore[method-assign]


def ring_byte_lost(stage: Stage) -> None:
    """A byte of the response ring is another one, now and then, at its very end."""
    handle = stage.rings.handle

    def losing(ports: bytes) -> None:
        handle(ports)
        for peer in stage.by_cid.values():
            if peer.page is not None:
                peer.page.bytes[2047] = 0x55

    rings: Any = Between(stage.rings, handle=losing)
    stage.rings = rings


def lost_wakeup(stage: Stage) -> None:
    """Nobody tells the transport of a connection that may go on, every third time."""
    seen = [0]
    runnable = stage.engine.next_runnable

    def deaf() -> int:
        cid = runnable()
        seen[0] += cid >= 0
        return -1 if cid >= 0 and seen[0] % 3 == 0 else cid

    put_between(stage, next_runnable=deaf)


def lost_notification(stage: Stage) -> None:
    """A guest is not told of responses, every hundredth time."""
    take, count = stage.rings.take_notified, [0]

    def silent() -> list[int]:
        count[0] += 1
        return take()[count[0] % 100 == 0 :]

    rings: Any = Between(stage.rings, take_notified=silent)
    stage.rings = rings


def old_events(stage: Stage) -> None:
    """Events of guests do not expire."""
    stage.oracle.is_old = lambda item: False  # type: ignore[method-assign]


def no_deadline(stage: Stage) -> None:
    """The engine does not ask to be woken up."""
    tick = stage.engine.tick

    def careless(now: int) -> None:
        tick(now)

    put_between(stage, tick=careless)


def no_merging(stage: Stage) -> None:
    """Every event is queued, although one like it is waiting."""

    def queue_event(connection: model.Connection, payload: bytes) -> None:
        stage.oracle.queue(connection, Packet(Msg.WATCH_EVENT, 0, 0, payload))

    stage.oracle.queue_event = queue_event  # type: ignore[method-assign]


def half_done_without_memory(stage: Stage) -> None:
    """A write that fails for want of memory has been done all the same."""
    refuse = stage.scarcity.refuse

    def done(peer: Any, request: Any) -> None:
        if request.type == Msg.WRITE and request.tx_id == 0:
            waiting = list(peer.link.queue)
            stage.oracle.request(peer.link, *request)
            peer.link.queue[:] = waiting
        refuse(peer, request)

    stage.scarcity.refuse = done  # type: ignore[method-assign]


def once_set_up(stage: Stage, change: Callable[[Fairness], None]) -> None:
    """Changes one of the rules by which clients wait for each other, in worlds that have them."""
    set_up = stage.set_up

    def planted(settings: Settings) -> None:
        set_up(settings)
        if stage.fairness is not None:
            change(stage.fairness)

    stage.set_up = planted  # type: ignore[method-assign]
    stage.set_up(stage.settings)


def innocent_charged(stage: Stage) -> None:
    """Whoever has committed last pays for a conflict, whatever it was."""

    def change(fairness: Fairness) -> None:
        blame = fairness.blame
        failed = blame.failed

        def unjust(connection: model.Connection, tx: model.Transaction) -> bool:
            last = [record.author for record in blame.records[-1:]]
            others = failed(connection, tx)
            for author in last:
                blame.charge(author.domid)
            return others

        blame.failed = unjust  # type: ignore[method-assign]

    once_set_up(stage, change)


def held_for_too_long(stage: Stage) -> None:
    """Who is held back goes on only when the transaction with priority has ended."""

    def change(fairness: Fairness) -> None:
        fairness.priority.let_go = lambda: None  # type: ignore[method-assign]

    once_set_up(stage, change)


def dom0_held_for_a_guest(stage: Stage) -> None:
    """Who is more privileged has to wait as well."""

    def change(fairness: Fairness) -> None:
        rule = fairness.priority
        rule.waits_for = lambda author, owner: True  # type: ignore[method-assign]

    once_set_up(stage, change)


def held_and_charged(stage: Stage) -> None:
    """Who is held back pays for the conflict that has been prevented."""

    def change(fairness: Fairness) -> None:
        admit = fairness.priority.admit

        def charging(author: model.Connection, before: Any, after: Any) -> None:
            try:
                admit(author, before, after)
            except model.NotYetError:
                fairness.blame.charge(author.domid)
                raise

        fairness.priority.admit = charging  # type: ignore[method-assign]

    once_set_up(stage, change)


def request_lost_while_held(stage: Stage) -> None:
    """What was held back is forgotten, not asked again."""
    request = stage.oracle.request

    def forgetful(
        connection: model.Connection, kind: int, req_id: int, tx_id: int, payload: bytes
    ) -> None:
        try:
            request(connection, kind, req_id, tx_id, payload)
        except model.NotYetError as wait:
            if wait.kind != "held":
                raise

    stage.oracle.request = forgetful  # type: ignore[method-assign]


def debts_are_paid_twice_as_fast(stage: Stage) -> None:
    """Guests that may write less than they want may write more than that."""

    def change(fairness: Fairness) -> None:
        writes = fairness.writes
        faster = 2 * writes.settings.writes_per_second
        writes.settings = replace(writes.settings, writes_per_second=faster)

    once_set_up(stage, change)


def writes_on_credit(stage: Stage) -> None:
    """The commit of a transaction costs nothing."""

    def change(fairness: Fairness) -> None:
        committed = fairness.writes.committed

        def free(author: Any, ending: bool, before: Any, after: Any) -> None:
            committed(None if ending else author, ending, before, after)

        fairness.writes.committed = free  # type: ignore[method-assign]

    once_set_up(stage, change)


def memory_miscount(stage: Stage) -> None:
    """Eight bytes more than allowed are let through."""
    fits = stage.oracle.fits
    stage.oracle.fits = (  # type: ignore[method-assign]
        lambda domid, more: fits(domid, more - 8)
    )


def events_beyond_the_memory_quota(stage: Stage) -> None:
    """Each event of a change is told if there is room for it alone."""
    may_tell = stage.oracle.may_tell

    def generous(connection: model.Connection, size: int) -> bool:
        connection.reserved = 0
        return may_tell(connection, size)

    stage.oracle.may_tell = generous  # type: ignore[method-assign]


def aggregate_for_everybody(stage: Stage) -> None:
    """Points come back to one guest at a time, however the daemon is set up."""

    def change(fairness: Fairness) -> None:
        take = fairness.blame.take

        def taking(settings: Settings) -> None:
            take(replace(settings, aggregate=True))

        fairness.blame.take = taking  # type: ignore[method-assign]
        taking(fairness.settings)

    once_set_up(stage, change)


def lost_setting(stage: Stage) -> None:
    """The daemon does not hear of how long events may wait."""
    configure = stage.engine.configure

    def deaf(**given: Any) -> None:
        given.pop("event_timeout_ns", None)
        configure(**given)

    put_between(stage, configure=deaf)


def right_of_the_dead(stage: Stage) -> None:
    """What was granted to a domain that died is there for the next one of its number."""
    put = stage.oracle.set_perms_of

    def keeping(path: bytes, perms: Any) -> None:
        if perms[0] != stage.oracle.live[path].perms[0]:
            put(path, perms)

    stage.oracle.set_perms_of = keeping  # type: ignore[method-assign]


def late_answer_lost(stage: Stage) -> None:
    """What has come late from the hypervisor counts as a refusal."""
    complete = stage.engine.complete

    def losing(now: int, number: int, error: str = "", data: bytes = b"") -> None:
        complete(now, number, "EIO" if stage.late and data else error, data)

    put_between(stage, complete=losing)


PLANTS = [
    wrong_reply, lost_event, order_of_events, wrong_permission, lost_node, leaked_account,
    quota_miscount, node_miscount, no_isolation, no_conflicts, watch_after_death, ring_byte_lost,
    lost_wakeup, lost_notification, old_events, no_deadline, no_merging, half_done_without_memory,
    innocent_charged, right_of_the_dead, late_answer_lost, held_for_too_long,
    dom0_held_for_a_guest, held_and_charged, request_lost_while_held,
    debts_are_paid_twice_as_fast, writes_on_credit, memory_miscount,
    events_beyond_the_memory_quota, aggregate_for_everybody, lost_setting,
]  # fmt: skip


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_bug_is_found(plant: Plant) -> None:
    """Within so many steps, whichever class it is of."""
    for seed in range(1, 1 + LIMIT // WORLD):
        failure = play(seed, trace(seed, WORLD), plant).failure
        if failure is not None:
            assert failure.kind == "DifferenceError", failure
            return
    pytest.fail(f"not found in {LIMIT} steps")


def test_a_failure_becomes_small() -> None:
    """What is left of a failing trace fails in the same way, and nothing more can go."""
    for seed in range(1, 1 + LIMIT // WORLD):
        steps = list(trace(seed, WORLD))
        first = play(seed, steps, quota_miscount).failure
        if first is not None:
            break
    assert first is not None
    small = shrink(seed, steps[: first.steps], quota_miscount, seconds=30)
    assert len(small) < 40
    last = play(seed, small, quota_miscount, compare_every=1).failure
    assert last is not None
    for gone in range(len(small)):
        fewer = small[:gone] + small[gone + 1 :]
        other = play(seed, fewer, quota_miscount, compare_every=1).failure
        assert other is None or other.sort != last.sort


def test_a_failure_is_told_with_its_command(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command line says how to play it again, and writes the trace."""
    monkeypatch.setattr(model, "exceeds", lambda amount, limit: amount > limit)
    arguments = ["--seed", "1", "--steps", "2000", "--shrink", "5", "--corpus", str(tmp_path)]
    assert main(arguments) == 1
    told = capsys.readouterr().out
    assert "again:  make sim SEED=1 STEPS=2000" in told
    (written,) = tmp_path.glob("*.trace")
    assert main([str(written)]) == 1
    monkeypatch.undo()
    assert main([str(written)]) == 0
