"""Tells which branches of csrc and xsd/core the tests have not taken: ``make coverage``.

Exits with 1 if less than 95 % of the branches of either were, or if one that was not is explained
nowhere in ``unreached.toml``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from branches.counts import count
from branches.explained import Tally, Verdict, judge, load

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PARTS = ("csrc", "xsd/core")
LEAST = 95.0


def table(verdict: Verdict) -> dict[str, Tally]:
    """Prints the figures; those of whole parts come back."""
    print(f"{'':28} branches  reached      %  explained  unexplained")
    parts = {}
    for part in PARTS:
        files = {name: f for name, f in verdict.files.items() if name.startswith(part)}
        parts[part] = sum(files.values(), start=Tally(0, 0, 0))
        for name, f in [*sorted(files.items()), (f"{part}, all", parts[part])]:
            print(
                f"{name:28} {f.all:8} {f.reached:8} {f.share:6.1f} "
                f"{f.explained:10} {f.unexplained:12}"
            )
    return parts


def main(argv: Sequence[str] | None = None) -> int:
    """Reports; the exit status."""
    parser = argparse.ArgumentParser(prog="branches", description=__doc__)
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "coverage")
    parser.add_argument("--explained", type=Path, default=HERE / "unreached.toml")
    arguments = parser.parse_args(argv)
    verdict = judge(count(ROOT, arguments.build), load(arguments.explained))
    for line in verdict.unexplained:
        ways = "/".join(map(str, line.taken))
        print(f"{line.file}:{line.number}: taken {ways}\n    {line.place!r} = {line.unreached}")
    for place in verdict.stale:
        print(f"stale explanation: {place}")
    parts = table(verdict)
    poor = [part for part, f in parts.items() if f.share < LEAST]
    for part in poor:
        print(f"{part}: less than {LEAST:.0f} % of the branches were taken")
    if verdict.unexplained:
        print(f"{len(verdict.unexplained)} lines have branches that nothing explains")
    return 1 if poor or verdict.unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
