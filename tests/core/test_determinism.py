"""The engine is a function of its events: nothing else decides what it answers."""

from __future__ import annotations

import os
import subprocess
import sys
import trace as traces
from pathlib import Path

import pytest

from xsd.core import engine as core

STEPS = int(os.environ.get("XSD_STEPS", "2000"))
SEEDS = range(int(os.environ.get("XSD_SEED", "1")), int(os.environ.get("XSD_SEED", "1")) + 4)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_trace_replays_in_the_same_process(seed: int) -> None:
    """Every answer, every byte, every effect and the state are the same, twice."""
    recorded = traces.generate(seed, STEPS)
    recorded.engine.check()
    expected = traces.digest(recorded)
    for _ in range(2):
        again = traces.replay(recorded.lines)
        assert again.results == recorded.results
        assert traces.digest(again) == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_the_seed_of_the_index_is_invisible(seed: int) -> None:
    """It decides where in the tables a watch stands, never what anybody is told."""
    recorded = traces.generate(seed, STEPS)
    assert traces.replay(recorded.lines, seed=12345).results == recorded.results


def test_a_trace_replays_in_other_processes(tmp_path: Path) -> None:
    """Nor does it matter where memory lies or how Python hashes."""
    recorded = traces.generate(SEEDS[0], STEPS)
    file = tmp_path / "trace"
    file.write_text("\n".join(recorded.lines) + "\n")
    program = Path(traces.__file__)
    modules = str(Path(core.__file__).parents[2])  # the same build as here
    for hash_seed in ("0", "4242"):
        done = subprocess.run(
            [sys.executable, str(program), str(file)],
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": modules},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == traces.digest(recorded)


def test_another_event_gives_another_digest() -> None:
    """The comparison can fail: a trace that lacks one write of many is told apart."""
    recorded = traces.generate(SEEDS[0], 300)
    feeds = [i for i, line in enumerate(recorded.lines) if line.startswith('["feed"')]
    shorter = [line for i, line in enumerate(recorded.lines) if i != feeds[len(feeds) // 2]]
    assert traces.digest(traces.replay(shorter)) != traces.digest(recorded)


def test_wandering_meets_most_of_what_there_is() -> None:
    """The traces are worth something: they reach commits, events and errors."""
    counters = traces.generate(SEEDS[0], STEPS).engine.counters()
    assert counters["commits_swap"] + counters["commits_merge"] > 0
    assert counters["events_queued"] > 100
    assert counters["errors"].keys() >= {"EINVAL", "EACCES", "ENOENT"}
    assert sum(counters["requests"].values()) > STEPS / 2
