"""What the simulator has found once must not come back."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.run import CORPUS, from_text, play


@pytest.mark.parametrize("file", sorted(CORPUS.glob("*.trace")), ids=lambda file: file.stem)
def test_a_trace_of_the_corpus_plays_well(file: Path) -> None:
    """Engine and oracle agree after every step."""
    seed, steps = from_text(file.read_text())
    assert steps
    assert play(seed, steps, compare_every=1).failure is None


def test_there_is_a_corpus() -> None:
    """The test above is not empty by mistake."""
    assert list(CORPUS.glob("*.trace"))
