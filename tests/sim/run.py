"""Seeds: from the first step to the last, played again, made smaller, written down."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sim.stage import Stage
from sim.steps import Draw, Step, as_line, from_line

CORPUS = Path(__file__).parent.parent / "corpus" / "sim"

Plant = Callable[[Stage], None]
"""Changes something in a new world: a bug, for the tests of the simulator itself."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong: after how many steps, at which, and how it showed."""

    steps: int
    step: Step | None
    kind: str
    text: str

    @property
    def sort(self) -> str:
        """What it has in common with others of its sort."""
        return f"{self.kind} {self.text[:9]}"

    def __str__(self) -> str:
        last = "the end" if self.step is None else as_line(self.step)
        return f"after {self.steps} steps, at {last}\n{self.kind}: {self.text}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trace went: steps played, a digest of all that clients got, and the failure if any."""

    steps: int
    digest: str
    failure: Failure | None


def trace(seed: int, steps: int) -> Iterable[Step]:
    return islice(Draw(seed), steps)


def play(
    seed: int, steps: Iterable[Step], plant: Plant | None = None, compare_every: int | None = None
) -> Outcome:
    """Plays steps in the world of a seed, and ends it well."""
    stage = Stage(seed)
    if compare_every is not None:
        stage.compare_every = compare_every
    if plant is not None:
        plant(stage)
    step: Step | None = None
    failure = None
    try:
        for step in steps:
            stage.play(step)
        step = None
        stage.judge.finish()
    except Exception as problem:
        failure = Failure(stage.steps, step, type(problem).__name__, str(problem))
    state = (stage.digest, stage.engine.state_hash(), stage.now)
    return Outcome(stage.steps, hashlib.sha256(repr(state).encode()).hexdigest()[:16], failure)


def shrink(
    seed: int, steps: Sequence[Step], plant: Plant | None = None, seconds: float = 120
) -> list[Step]:
    """A short list of steps that still fails: whatever can be left out has been, in `seconds`."""
    limit = time.monotonic() + seconds
    kept = list(steps)

    wanted = ""

    def fails(some: list[Step]) -> int:
        """After how many steps it fails in the same way, or 0."""
        failure = play(seed, some, plant, compare_every=1).failure
        return 0 if failure is None or failure.sort != wanted else max(1, failure.steps)

    first = play(seed, kept, plant, compare_every=1).failure
    if first is None:
        return kept
    wanted = first.sort
    last = fails(kept)
    if not last:
        return kept
    kept = kept[:last]
    size = max(1, len(kept) // 2)
    while time.monotonic() < limit:
        at, before = 0, len(kept)
        while at < len(kept) and time.monotonic() < limit:
            fewer = kept[:at] + kept[at + size :]
            last = fails(fewer) if fewer else 0
            if last:
                kept = fewer[:last]
            else:
                at += size
        if size == 1 and len(kept) == before:
            break
        size = max(1, size // 2)
    return simpler(kept, fails)


def simpler(kept: list[Step], fails: Callable[[list[Step]], int]) -> list[Step]:
    """Bursts as single requests, where that fails as well."""
    at = 0
    while at < len(kept):
        step = kept[at]
        if step[0] == "burst":
            singles: list[Step] = [("ask", step[1], ask) for ask in step[2]]
            other = kept[:at] + singles + kept[at + 1 :]
            if fails(other):
                kept = other
                continue
            for gone in range(len(step[2])):
                fewer = step[2][:gone] + step[2][gone + 1 :]
                other = [*kept[:at], (*step[:2], fewer, *step[3:]), *kept[at + 1 :]]
                if fewer and fails(other):
                    kept = other
                    break
            else:
                at += 1
            continue
        at += 1
    for at in range(len(kept) - 1, -1, -1):
        fewer = kept[:at] + kept[at + 1 :]
        if fewer and fails(fewer):
            kept = fewer
    return kept


def to_text(seed: int, steps: Iterable[Step], about: str) -> str:
    """A trace as it is kept: what it is about, the seed of the world, and a step a line."""
    lines = [f"# {line}" for line in about.splitlines()]
    return "\n".join([*lines, f"seed {seed}", *map(as_line, steps)]) + "\n"


def from_text(text: str) -> tuple[int, list[Step]]:
    seed, steps = 0, []
    for line in text.splitlines():
        if line.startswith("seed "):
            seed = int(line.split()[1])
        elif line and not line.startswith("#"):
            steps.append(from_line(line))
    return seed, steps
