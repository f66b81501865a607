"""Why some branches are never taken, and whether that is still true.

``unreached.toml`` holds reasons, each with the branches that it explains:

    [[unreached]]
    why = "a tree that deep needs 64^11 names"
    [unreached.branches]
    "csrc/dir.c raise_root: if (old->level + 1 >= XS_DIR_LEVELS)" = 1

A branch is named by its file, its function and the text of its line, so that it may move; the
number says how many branches of such lines are explained. More unreached ones than that are
unexplained; an explanation of more than there are is stale.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from branches.counts import Line


@dataclass(frozen=True, slots=True)
class Tally:
    """Branches of one file, or of several."""

    all: int
    reached: int
    explained: int

    @property
    def unexplained(self) -> int:
        return self.all - self.reached - self.explained

    @property
    def share(self) -> float:
        """Reached, of all, in percent."""
        return 100 * self.reached / self.all if self.all else 100.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.all + other.all, self.reached + other.reached, self.explained + other.explained
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the counts say: figures per file, lines with unexplained branches, stale reasons."""

    files: Mapping[str, Tally]
    unexplained: list[Line]
    stale: list[str]


def load(path: Path) -> dict[str, int]:
    """How many branches are explained at each place. Raises ValueError for a reason without why."""
    found: Counter[str] = Counter()
    for reason in tomllib.loads(path.read_text()).get("unreached", []):
        if not reason.get("why") or not reason.get("branches"):
            raise ValueError(f"{path}: an entry needs why and branches: {reason}")
        found.update(reason["branches"])
    return dict(found)


def judge(lines: Iterable[Line], explained: Mapping[str, int]) -> Verdict:
    """Compares what was counted with what is explained."""
    files: dict[str, Tally] = {}
    unexplained = []
    left = dict(explained)
    for line in lines:
        missing = line.unreached
        excused = min(missing, left.get(line.place, 0))
        if excused:
            left[line.place] -= excused
        if missing > excused:
            unexplained.append(line)
        tally = Tally(len(line.taken), len(line.taken) - missing, excused)
        files[line.file] = files.get(line.file, Tally(0, 0, 0)) + tally
    stale = [f"{place} ({n} too many)" for place, n in left.items() if n > 0]
    return Verdict(files, unexplained, stale)
