"""Fixtures shared by all tests."""

from __future__ import annotations

import pytest
from world import EngineWorld, ModelWorld, World, engine_is_built


@pytest.fixture(params=["model", "engine"])
def world(request: pytest.FixtureRequest) -> World:
    """A fresh store: the same tests hold for the oracle and for the engine."""
    if request.param == "model":
        return ModelWorld()
    if not engine_is_built():
        pytest.skip("the engine is not built")
    return EngineWorld()
