"""``python -m haul --minutes N --seed S``: with the checkout and ``tests`` on the path."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from haul.acts import SIZES
from haul.run import BREAKAGES, Plan, as_json, haul, table


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when everything came back, 1 when something did not, 2 for a wrong command line."""
    parser = argparse.ArgumentParser(
        prog="python -m haul",
        description="Puts rounds of mixed load on one daemon; after each, all that it holds must "
        "be as it was at the start.",
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="how long [60]")
    parser.add_argument("--rounds", type=int, default=0, help="so many rounds, however long")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first round [0]")
    parser.add_argument(
        "--load", type=float, default=0.5, help="share of the time that is not paused [0.5]"
    )
    parser.add_argument("--access-log", action="store_true", help="the daemon keeps one")
    parser.add_argument(
        "--patience",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="what the daemon has to come to rest after a round [10]",
    )
    parser.add_argument("--size", choices=SIZES, default="normal")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures of all rounds")
    parser.add_argument(
        "--break",
        dest="breakage",
        choices=BREAKAGES,
        default="",
        help="leave something behind on purpose: the run must fail",
    )
    options = parser.parse_args(arguments)
    if not 0 < options.load <= 1:
        parser.error("--load is a share: above 0, at most 1")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))  # so that the daemon is ended as well
    plan = Plan(
        options.seed,
        SIZES[options.size],
        options.minutes * 60,
        rounds=options.rounds,
        first=options.first,
        load=options.load,
        access_log=options.access_log,
        patience=options.patience,
        breakage=options.breakage,
    )
    run, wrong = haul(plan, lambda line: print(line, flush=True))
    if run is not None:
        print("\n".join(table(run)))
        if options.json is not None:
            options.json.write_text(json.dumps(as_json(run, wrong), indent=1) + "\n")
    if wrong:
        number = options.first if run is None else run.number
        print(f"FAILED: {wrong}")
        print(f"again: make soak SEED={options.seed} ARGS='--first {number} --rounds 1'")
        return 1
    assert run is not None
    print(f"PASSED: {len(run.rounds)} rounds, {run.house.log_lines} lines of log judged")
    return 0


if __name__ == "__main__":
    sys.exit(main())
