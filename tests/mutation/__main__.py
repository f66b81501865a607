"""``python -m mutation --count 50 --seed 1 --jobs 2``: with ``tests`` on the path.

Draws mutants, tries each by the quick tests and, if it survives them, by the simulator. What has
been found stands in build/mutation/seed-N.jsonl, and a second call goes on from there; --again
tries mutants anew, after a test was added. Status 1: too many survived, or the control failed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mutation.sources import ROOT, Mutant, draws, sources
from mutation.tree import BIN, OUT, copy

CONTROL = -1
"""In place of a number: nothing is changed, and everything must pass."""
WANTED = 0.9
SIM_FIRST = 5000
"""The first seed of the simulator; the quick tests and the daily check take smaller ones."""


@dataclass(slots=True)
class Fate:
    """What is known of one mutant: its rows, oldest first."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def row(self, stage: str, round_: int | None = None) -> dict[str, Any] | None:
        """The last row of a stage, or that of a round."""
        rows = [r for r in self.rows if r["stage"] == stage and round_ in (None, r["round"])]
        return rows[-1] if rows else None


class Book:
    """Results as they come, in a file that is only added to."""

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.fates: dict[int, Fate] = {}
        if path.exists():
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            if lines[0] != header:
                raise SystemExit(f"{path} is about other sources: move it away")
            for row in lines[1:]:
                self.fates.setdefault(row["draw"], Fate()).rows.append(row)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(header) + "\n")

    def add(self, row: dict[str, Any]) -> None:
        with self.lock, self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
            self.fates.setdefault(row["draw"], Fate()).rows.append(row)


class Check:
    """Draws, one after the other, until there are as many mutants as were asked for."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.mutants = draws(options.seed, sources())
        every = json.dumps([asdict(mutant) for mutant in self.mutants])
        header = {"seed": options.seed, "draws": hashlib.sha256(every.encode()).hexdigest()[:16]}
        self.book = Book(OUT / f"seed-{options.seed}.jsonl", header)
        self.again: list[int] = options.again
        self.lock = threading.Lock()
        self.next = 0
        self.busy = 0
        self.trees: list[str] = []
        rounds = [row["round"] for fate in self.book.fates.values() for row in fate.rows]
        self.round = max(rounds, default=0) + bool(self.again)

    def valid(self, draw: int) -> bool | None:
        """Whether a draw counts; None while nobody knows."""
        fate = self.book.fates.get(draw)
        row = fate.row("quick") if fate else None
        return None if row is None else row["result"] in ("killed", "survived")

    def counted(self) -> list[int]:
        """The mutants of this check: the first that count."""
        found = [draw for draw in sorted(self.book.fates) if draw >= 0 and self.valid(draw)]
        return found[: self.options.count]

    def job(self, tree: str, draw: int, stage: str) -> dict[str, Any]:
        """Has a process of its own carry out a job, and writes down how it went."""
        mutant = self.mutants[draw] if draw >= 0 else None
        about = asdict(mutant) if mutant else None
        job = {"tree": tree, "mutant": about, "stage": stage}
        job |= {"seconds": self.options.seconds, "first": SIM_FIRST}
        done = subprocess.run(
            [BIN / "python", "-m", "mutation.job"],
            cwd=ROOT,
            input=json.dumps(job),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        row = {"draw": draw, "stage": stage, "round": self.round, **json.loads(done.stdout)}
        row |= {"mutant": about}
        self.book.add(row)
        print(line(row), flush=True)
        return row

    def claim(self) -> int | None:
        """The next draw to try; None when those that are known or being tried will do."""
        with self.lock:
            while True:
                known = sum(self.valid(i) is True for i in range(self.next))
                if known + self.busy >= self.options.count or self.next >= len(self.mutants):
                    return None
                draw, self.next = self.next, self.next + 1
                if self.valid(draw) is None:
                    self.busy += 1
                    return draw

    def try_all(self, tree: str) -> None:
        """A worker's life in the first stage: the quick tests."""
        while True:
            draw = self.claim()
            if draw is not None:
                try:
                    self.job(tree, draw, "quick")
                finally:
                    with self.lock:
                        self.busy -= 1
            elif self.busy:
                time.sleep(1)  # it may turn out not to count
            else:
                return

    def some(self, tree: str, draws_: list[int], stage: str) -> None:
        """A worker's life with a list that all take from."""
        while True:
            with self.lock:
                if not draws_:
                    return
                draw = draws_.pop(0)
            self.job(tree, draw, stage)

    def workers(self, *arguments: Any) -> None:
        work = self.some if arguments else self.try_all
        with ThreadPoolExecutor(len(self.trees)) as pool:
            for future in [pool.submit(work, tree, *arguments) for tree in self.trees]:
                future.result()

    def control(self, stage: str) -> bool:
        """Whether everything passes when nothing is changed, by the same route."""
        fate = self.book.fates.get(CONTROL)
        row = fate.row(stage, self.round) if fate else None
        row = row or self.job(self.trees[0], CONTROL, stage)
        return bool(row["result"] == "survived")

    def run(self) -> bool:
        """All stages, as far as they are not done. Whether the controls passed."""
        self.trees = [f"tree-{number}" for number in range(self.options.jobs)]
        copy(self.trees[0])
        if not self.control("quick"):
            return False
        for name in self.trees[1:]:
            copy(name, like=self.trees[0])
        if self.again:
            self.workers(list(self.again), "quick")
        else:
            self.workers()
        if not self.options.sim:
            return True
        todo = [draw for draw in self.counted() if self.wants_sim(draw)]
        if todo and not self.again:
            control = self.book.fates[CONTROL].row("sim")
            todo = todo if control else [CONTROL, *todo]
        self.workers(todo, "sim")
        control = self.book.fates[CONTROL].row("sim")
        return control is None or control["result"] == "survived"

    def wants_sim(self, draw: int) -> bool:
        """Whether a mutant has survived the quick tests, and the simulator has not had it yet."""
        fate = self.book.fates[draw]
        row = fate.row("quick")
        return row is not None and row["result"] == "survived" and not fate.row("sim")

    # -- the report

    def killer(self, draw: int, round_: int | None = None) -> dict[str, Any] | None:
        """The row that tells of its end, if it has found one; in a round, or by now."""
        for stage in ("quick", "sim"):
            row = self.book.fates[draw].row(stage, round_)
            if row and row["result"] == "killed":
                return row
        return None

    def report(self) -> float:
        """Prints and writes what has become of each mutant; the share that was killed."""
        counted = self.counted()
        rows = [row for fate in self.book.fates.values() for row in fate.rows]
        redrawn = [r for r in rows if r["result"] in ("invalid", "equivalent")]
        now = [draw for draw in counted if self.killer(draw)]
        first = [draw for draw in counted if self.killer(draw, 0)]
        text = [
            f"{len(counted)} mutants of seed {self.options.seed}, "
            f"{sum(r['result'] == 'invalid' for r in redrawn)} more did not compile, "
            f"{sum(r['result'] == 'equivalent' for r in redrawn)} gave the same object code"
        ]
        for draw in counted:
            end = self.killer(draw)
            mutant = self.mutants[draw]
            text.append(f"\n#{draw} {mutant.file}:{mutant.line} {mutant.kind}")
            text += [f"  - {mutant.original.strip()}", f"  + {mutant.mutated.strip()}"]
            text.append(f"  {end['seconds']:.0f} s, {end['by']}" if end else "  SURVIVED")
            if end and end["round"]:
                text.append("  by a test that was added, or another seed")
        share = len(now) / max(1, len(counted))
        text.append(f"\nkilled: {len(first)} at first, {len(now)} now, of {len(counted)}")
        name = OUT / f"report-{self.options.seed}"
        name.with_suffix(".txt").write_text("\n".join(text) + "\n")
        mutants = [
            {"draw": draw, **asdict(self.mutants[draw]), "killed": self.killer(draw)}
            for draw in counted
        ]
        whole = {"seed": self.options.seed, "killed_at_first": len(first), "killed": len(now)}
        name.with_suffix(".json").write_text(json.dumps({**whole, "mutants": mutants}, indent=1))
        print("\n".join(text))
        return share


def line(row: dict[str, Any]) -> str:
    """One result, as it is told while others are awaited."""
    mutant = Mutant(**row["mutant"]) if row["mutant"] else None
    where = f"#{row['draw']} {mutant.file}:{mutant.line}" if mutant else "control"
    change = f"\n    {mutant.original.strip()}  ->  {mutant.mutated.strip()}" if mutant else ""
    by = f" {row['by'][:160]}" if row["by"] else ""
    return f"{where}: {row['stage']} {row['result']} in {row['seconds']:.0f} s{by}{change}"


def main(argv: Sequence[str] | None = None) -> int:
    """0 when enough were killed and the control was not."""
    parser = argparse.ArgumentParser(prog="python -m mutation", description=__doc__)
    parser.add_argument("--count", type=int, default=50, help="mutants that compile [50]")
    parser.add_argument("--seed", type=int, default=1, help="of the draw [1]")
    parser.add_argument("--jobs", type=int, default=1, help="copies of the checkout [1]")
    parser.add_argument("--seconds", type=float, default=300, help="of simulator for each [300]")
    parser.add_argument("--no-sim", dest="sim", action="store_false", help="quick tests only")
    parser.add_argument(
        "--again",
        type=lambda text: [int(part) for part in text.split(",")],
        default=[],
        metavar="N,N",
        help="try these numbers anew",
    )
    options = parser.parse_args(argv)
    check = Check(options)
    if not check.run():
        print("the control failed: what is in the checkout does not pass its tests")
        return 1
    return int(check.report() < WANTED)


if __name__ == "__main__":
    sys.exit(main())
