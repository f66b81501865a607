"""Ours beside Debian's two daemons, on random requests; and that the runner finds what is wrong."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from serving import absent

from witness.house import House, Shown
from witness.judge import Tally
from witness.line import EVENT, Packet
from witness.run import Court, Finding, Session, bursts, court, shrink
from witness.steps import TIGHT, WIDE, Ask, Draw, Step, from_text, to_text
from witness.table import ROWS
from xsd.client.wire import Op

REQUESTS = int(os.environ.get("XSD_WITNESS_REQUESTS", "3000"))
SEED = 2


# -- what is drawn, and the table ----------------------------------------------------------------


@pytest.mark.parametrize("rules", [WIDE, TIGHT], ids=lambda rules: rules.name)
def test_script_is_text(rules: object) -> None:
    """What is printed can be played again, and a seed says it all."""
    assert rules in (WIDE, TIGHT)
    one = WIDE if rules == WIDE else TIGHT
    for seed in range(40):
        script = Draw(seed, one).steps(100)
        assert from_text(to_text(one, script)) == (one, script)
        assert Draw(seed, one).steps(100) == script


def test_bursts_are_the_script() -> None:
    """Cut into bursts, nothing is lost, and each is of one connection."""
    for seed in range(40):
        script = Draw(seed, WIDE).steps(100)
        parts = [steps for _, steps in bursts(script)]
        assert [step for steps in parts for step in steps] == script
        assert all(len({step.conn for step in steps}) == 1 for steps in parts)


def test_rows_have_reasons() -> None:
    """Each row is of a peer, says why, has a name of its own and says how it is recognised."""
    names = Counter((peer, row.name) for row in ROWS for peer in row.peers)
    assert set(names.values()) == {1}
    by_name = {"another order"}  # counted by whoever compares trees
    for row in ROWS:
        assert row.peers and set(row.peers) <= set("co"), row.name
        assert len(row.why) > 7, row.name
        assert row.said or row.told or row.name in by_name, row.name


# -- against the peers ---------------------------------------------------------------------------


@pytest.mark.slow
def test_witnesses(tmp_path: Path) -> None:
    """Ours shows what both peers show, but for what the table says."""
    try:
        session = Session(("xsd", "c", "o"), SEED, tmp_path)
    except FileNotFoundError as missing:
        absent(str(missing))
    try:
        while min(session.requests().values()) < REQUESTS:
            finding, where, draw, script = session.next()
            if finding is not None:
                small, last = shrink(where, script, draw.peers, finding)
                pytest.fail(f"{to_text(where.rules, small)}\n{last.peer}: {last.text}")
        assert min(session.tally.compared.values()) > REQUESTS / 2
        assert min(session.tally.events.values()) > 0
        assert min(session.tally.trees.values()) > 0
        ours = [line for one in session.courts.values() for line in one.restarts if "xsd:" in line]
        assert ours == []
    finally:
        session.close()


# -- planted bugs --------------------------------------------------------------------------------


def replies(change: Callable[[Ask, Packet], Packet]) -> Callable[..., Shown]:
    """Changes single replies."""

    def spoil(_: House, asks: Sequence[Ask], shown: Shown) -> Shown:
        left = iter(asks)
        own = [one if one[0] == EVENT else change(next(left), one) for one in shown.own]
        return Shown(own, shown.others)

    return spoil


def wrong_error(ask: Ask, packet: Packet) -> Packet:
    wrong = ask.op == Op.WATCH and packet[1] == b"EEXIST\0"
    return (packet[0], b"EINVAL\0") if wrong else packet


def wrong_perms(ask: Ask, packet: Packet) -> Packet:
    if ask.op == Op.GET_PERMS and packet[0] == Op.GET_PERMS and packet[1].count(b"\0") > 1:
        return packet[0], packet[1].replace(b"\0w", b"\0b")
    return packet


def wrong_value(ask: Ask, packet: Packet) -> Packet:
    """The value from before the transaction."""
    wrong = ask.op == Op.READ and ask.slot and packet == (Op.READ, b"3")
    return (packet[0], b"2") if wrong else packet


def lost_event(_: House, asks: Sequence[Ask], shown: Shown) -> Shown:
    if not any(ask.op == Op.RM for ask in asks):
        return shown
    return Shown(shown.own, {conn: told[1:] for conn, told in shown.others.items()})


def event_too_many(_: House, asks: Sequence[Ask], shown: Shown) -> Shown:
    if not any(ask.op == Op.WRITE for ask in asks):
        return shown
    others = {conn: [*told, told[0]] for conn, told in shown.others.items()}
    return Shown(shown.own, others)


def late_event(_: House, asks: Sequence[Ask], shown: Shown) -> Shown:
    """An own event that comes after the reply of the request that caused it."""
    kinds = [kind == EVENT for kind, _ in shown.own]
    if kinds == [True, False] and asks[0].op == Op.WRITE:
        return Shown(shown.own[::-1], shown.others)
    return shown


BUGS = {
    "wrong-error": replies(wrong_error),
    "wrong-perms": replies(wrong_perms),
    "wrong-value": replies(wrong_value),
    "lost-event": lost_event,
    "event-too-many": event_too_many,
    "late-event": late_event,
}


CASES = [(peer, bug) for peer in "co" for bug in BUGS if (peer, bug) != ("o", "late-event")]
"""The own events of oxenstored come late."""


@pytest.fixture
def two(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Court]:
    """Ours and one of the others."""
    try:
        opened = court(("xsd", request.param), WIDE, tmp_path)
    except FileNotFoundError as missing:
        absent(str(missing))
    try:
        yield opened
    finally:
        opened.close()


@pytest.mark.slow
@pytest.mark.parametrize(("two", "bug"), CASES, indirect=["two"])
def test_canary(two: Court, bug: str) -> None:
    """A daemon of ours that is wrong in one way is found out, and by a few requests."""
    peer = two.stores[1]
    finding: Finding | None = None
    script: list[Step] = []
    two.wrap = BUGS[bug]
    for seed in range(200):
        draw = Draw(seed, WIDE)
        if peer in draw.peers:
            script = draw.steps(200)
            finding = two.play(script, peer, Tally())
            if finding is not None:
                break
    assert finding is not None, "not found"
    small, last = shrink(two, script, peer, finding)
    assert (last.peer, last.sort) == (finding.peer, finding.sort)
    assert len(small) <= 6, to_text(WIDE, small)
    _, again = from_text(to_text(WIDE, small))
    assert two.play(again, peer, Tally()) is not None
    two.wrap = None
    assert two.play(again, peer, Tally()) is None
