"""``python -m witness --requests N --seed S [--stores c,o,xsd]``: with ``tests`` on the path."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence

from witness.house import OURS, STORES
from witness.run import Session, shrink
from witness.steps import from_text, to_text
from witness.table import ROWS

MOST_FINDINGS = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every difference was in the table, 1 when one was not, 2 for a wrong command line."""
    parser = argparse.ArgumentParser(
        prog="python -m witness",
        description="Sends the same random requests to ours and to Debian's two daemons and "
        "compares what comes back; a difference that is not in the table is made small.",
    )
    parser.add_argument("--requests", type=int, default=20_000, help="requests per daemon [20000]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first script [0]")
    parser.add_argument("--stores", default=",".join(STORES), help="[%(default)s]")
    parser.add_argument("--play", metavar="FILE", help="a script as it is printed here")
    options = parser.parse_args(arguments)
    stores = options.stores.split(",")
    if not set(stores) <= set(STORES) or not options.requests > 0:
        parser.error(f"--stores are some of {','.join(STORES)}")
    stores = [OURS, *(name for name in stores if name != OURS)]

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))  # so that the daemons are ended as well
    session = Session(stores, options.seed)
    session.number = options.first
    try:
        if options.play:
            return play(session, options.play)
        return search(session, options.requests)
    finally:
        session.close()


def play(session: Session, file: str) -> int:
    """One script, to its end or its first difference."""
    with open(file, encoding="utf-8") as text:
        rules, script = from_text(text.read())
    court = session.courts[rules.name]
    finding = court.play(script, "".join(set(court.stores) - {OURS}), session.tally)
    for (peer, row), count in sorted(session.tally.rows.items()):
        print(f"  {peer} {count:8} {row}")
    print(f"{finding.peer}: {finding.text}" if finding else "nothing that is in no row")
    return 1 if finding else 0


def search(session: Session, requests: int) -> int:
    """Scripts until each daemon was sent so many requests."""
    began = time.monotonic()
    seen: dict[tuple[str, str], int] = {}
    while min(session.requests().values()) < requests and len(seen) < MOST_FINDINGS:
        number = session.number
        finding, court, draw, script = session.next()
        if finding is None:
            continue
        sort = finding.peer, finding.sort
        seen[sort] = seen.get(sort, 0) + 1
        if seen[sort] == 1:
            small, last = shrink(court, script, draw.peers, finding)
            print(f"# script {number} of seed {session.seed}, {last.peer}: {last.sort}")
            print(to_text(court.rules, small), end="")
            print("".join(f"# {line}\n" for line in last.text.splitlines()), flush=True)
    report(session, time.monotonic() - began, seen)
    return 1 if seen else 0


def report(session: Session, seconds: float, seen: dict[tuple[str, str], int]) -> None:
    tally = session.tally
    print(f"{session.number} scripts of seed {session.seed} in {seconds:.0f} s")
    for name, sent in sorted(session.requests().items()):
        if name == OURS:
            print(f"  {name}: {sent} requests")
        else:
            print(
                f"  {name}: {sent} requests, {tally.compared[name]} replies and "
                f"{tally.events[name]} events compared, {tally.trees[name]} trees; "
                f"{tally.parted[name]} scripts ended where the trees may differ"
            )
    for court in session.courts.values():
        for name in court.stores:
            anew = sum(line.startswith(f"{name}:") for line in court.restarts)
            if anew:
                print(f"  {name}, {court.rules.name}: started anew {anew} times")
    for peer in sorted(tally.compared):
        for row in ROWS:
            if peer in row.peers:
                print(f"  {peer} {tally.rows[peer, row.name]:8} {row.name}")
    print(f"{sum(seen.values())} differences that are in no row, of {len(seen)} sorts")


if __name__ == "__main__":
    sys.exit(main())
