"""A store with rings for each test; what is left of it at the end is checked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ringworld import RingWorld


@pytest.fixture
def rings() -> Iterator[RingWorld]:
    """A world with no guests yet."""
    world = RingWorld()
    yield world
    world.close()
