"""The simulator in smoke size: no world shows a difference between engine and oracle.

XSD_SIM_SEEDS and XSD_SIM_STEPS set how many worlds there are and how long they live,
XSD_SIM_SEED chooses others.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from random import Random

import pytest

from sim import settings
from sim.__main__ import main
from sim.run import play, trace
from sim.stage import Stage
from sim.steps import RESERVED, Draw, as_line, from_line

FIRST = int(os.environ.get("XSD_SIM_SEED", "1"))
SEEDS = int(os.environ.get("XSD_SIM_SEEDS", "20"))
STEPS = int(os.environ.get("XSD_SIM_STEPS", "1000"))
TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_engine_and_oracle_agree(seed: int) -> None:
    """Replies, events, tree, counts and memory are what the oracle says, to the end."""
    outcome = play(seed, trace(seed, STEPS))
    assert outcome.failure is None, f"make sim SEED={seed} STEPS={STEPS}\n{outcome.failure}"
    assert outcome.steps == STEPS


def test_every_kind_of_step_is_drawn() -> None:
    """Nothing of the table is left out by chance, and what is reserved is not drawn."""
    drawn = {step[0] for seed in range(12) for step in trace(seed, 4000)}
    assert drawn == {
        "settings", "tune", "ask", "burst", "open", "close", "bring", "birth", "kill", "shutdown",
        "wait", "slow", "fetch", "reconnect", "kick", "late", "complete", "no memory",
        "no memory for death", "garbage", "oversize",
    }  # fmt: skip
    assert not drawn & set(RESERVED)


def test_every_setting_is_drawn_in_more_than_one_way() -> None:
    """Worlds differ in whatever the daemon can be set up with."""
    worlds = [settings.draw(Random(seed)) for seed in range(200)]
    for field in fields(settings.Settings):
        assert len({getattr(world, field.name) for world in worlds}) > 1, field.name
    assert {name for world in worlds for name, _ in world.quotas} == set(settings.QUOTAS)


def test_what_a_world_is_about_happens() -> None:
    """Requests are held back, writes are paid for, memory is short: not only in canaries."""
    held = waited = full = 0
    for seed in range(1, 25):
        stage = Stage(seed)
        for step in trace(seed, 1500):
            stage.play(step)
            fairness = stage.fairness
            waited += fairness is not None and bool(fairness.writes.waiting)
            full += any(
                stage.oracle.is_tight(link.domid) and stage.is_full(link)
                for link in stage.oracle.connections
            )
        held += stage.engine.counters()["requests_held"]
    assert min(held, waited, full) > 10


def test_a_seed_is_one_world() -> None:
    """The same seed gives the same bytes in another process, another seed does not."""
    code = "from sim.run import play, trace; print(play(7, trace(7, 3000)).digest)"
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "99"}
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == play(7, trace(7, 3000)).digest
    assert play(8, trace(8, 3000)).digest != told.stdout.strip()


def test_steps_survive_being_written_down() -> None:
    """A trace says all there is to say."""
    for step in trace(5, 3000):
        assert from_line(as_line(step)) == step


def test_a_draw_does_not_depend_on_what_happens() -> None:
    """Steps come from the seed alone, so a failure is played again without its history."""
    first, second = iter(Draw(3)), iter(Draw(3))
    play(3, trace(3, 500))
    assert [next(first) for _ in range(500)] == [next(second) for _ in range(500)]


def test_the_command_line_plays_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    """It tells how many steps it has played."""
    assert main(["--seed", "3", "--seeds", "2", "--steps", "200"]) == 0
    assert "2 seeds, 400 steps" in capsys.readouterr().out
