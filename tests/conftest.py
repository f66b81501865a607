"""Fixtures shared by all tests, and what makes a run of them repeatable."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, settings
from world import EngineWorld, ModelWorld, World, engine_is_built

# How long an example takes says nothing here: builds with sanitizers are ten times slower.
settings.register_profile(
    "xsd", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("quick", settings.get_profile("xsd"), max_examples=15)
settings.register_profile("thorough", settings.get_profile("xsd"), max_examples=2000)
settings.load_profile("xsd")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--seed`` repeats the random choices of a run."""
    parser.addoption("--seed", type=int, help="repeat the random choices of an earlier run")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Every run has a seed: the one given, or a new one."""
    if config.getoption("--hypothesis-seed") is None:
        seed = config.getoption("--seed")
        config.option.hypothesis_seed = (
            random.SystemRandom().randrange(2**32) if seed is None else seed
        )


def pytest_report_header(config: pytest.Config) -> str:
    """The seed stands at the top of each run."""
    return f"random choices: --seed {config.getoption('--hypothesis-seed')} repeats them"


@pytest.fixture(params=["model", "engine"])
def world(request: pytest.FixtureRequest) -> World:
    """A fresh store: the same tests hold for the oracle and for the engine."""
    if request.param == "model":
        return ModelWorld()
    if not engine_is_built():
        pytest.skip("the engine is not built")
    return EngineWorld()
