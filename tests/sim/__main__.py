"""Runs the simulator: ``python -m sim --seed 1 --steps 10000 --seeds 100 --jobs 2``.

Every seed is a world of its own. A failure is told with the command that plays it again; then it
is made smaller and written to the corpus. The exit status says whether there was one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sim.run import CORPUS, Outcome, from_text, play, shrink, to_text, trace


@dataclass(frozen=True, slots=True)
class Job:
    """Some seeds, one after the other."""

    seed: int
    steps: int


def work(job: Job) -> tuple[int, Outcome]:
    return job.seed, play(job.seed, trace(job.seed, job.steps))


def outcomes(jobs: list[Job], processes: int) -> Iterator[tuple[int, Outcome]]:
    if processes == 1:
        yield from map(work, jobs)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(work, jobs, chunksize=4)


def report(seed: int, outcome: Outcome, arguments: argparse.Namespace) -> None:
    """How to play it again, and the smallest trace that shows it."""
    failure = outcome.failure
    assert failure is not None
    print(f"seed {seed}: {failure}")
    print(f"again:  make sim SEED={seed} STEPS={arguments.steps}")
    if arguments.shrink <= 0:
        return
    steps = list(trace(seed, arguments.steps))[: outcome.steps + (failure.step is None)]
    small = shrink(seed, steps, seconds=arguments.shrink)
    shown = play(seed, small, compare_every=1).failure
    arguments.corpus.mkdir(parents=True, exist_ok=True)
    place = arguments.corpus / f"seed-{seed}.trace"
    place.write_text(to_text(seed, small, f"found by seed {seed}\n{shown}"))
    print(f"{len(small)} steps are enough: {place}\n{place.read_text()}")


def replay(files: Sequence[Path]) -> int:
    """Plays traces of the corpus; how many fail."""
    failed = 0
    for file in files:
        failure = play(*from_text(file.read_text()), compare_every=1).failure
        print(f"{file}: {failure or 'well'}")
        failed += failure is not None
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    """Plays seeds, or traces from files; the number of failures, at most 1."""
    parser = argparse.ArgumentParser(prog="sim", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many of them")
    parser.add_argument("--steps", type=int, default=10_000, help="of each")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--shrink", type=float, default=120, help="seconds for a failure; 0: not")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="where failures go")
    parser.add_argument("traces", type=Path, nargs="*", help="play these instead")
    arguments = parser.parse_args(argv)
    if arguments.traces:
        return min(1, replay(arguments.traces))
    start = shown = time.monotonic()
    played = 0
    jobs = [Job(arguments.seed + i, arguments.steps) for i in range(arguments.seeds)]
    for count, (seed, outcome) in enumerate(outcomes(jobs, arguments.jobs), 1):
        played += outcome.steps
        now = time.monotonic()
        if outcome.failure is not None:
            report(seed, outcome, arguments)
            return 1
        if count == len(jobs) or now - shown > 30:
            shown = now
            rate = played / max(now - start, 1e-9)
            print(f"{count} seeds, {played} steps, {rate:.0f} a second", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
