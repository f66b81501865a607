"""The stores that advisories are tested on."""

from __future__ import annotations

from collections.abc import Iterator

import livestore
import pytest
from livestore import LiveStore
from stores import EngineStore, Store


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, LiveStore]]:
    """The daemons that were started so far, by name."""
    started: dict[str, LiveStore] = {}
    yield started
    for one in started.values():
        one.stop()


@pytest.fixture
def store(
    request: pytest.FixtureRequest,
    running: dict[str, LiveStore],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Store]:
    """A store with nobody in it; afterwards nothing of the test is left in it.

    The daemons serve one test after the other; one that did not come clean is replaced.
    """
    name: str = request.param
    if name == "engine":
        engine = EngineStore()
        yield engine
        engine.finish()
        return
    if name not in running:
        running[name] = livestore.start(name, tmp_path_factory.mktemp(name))
    live = running[name]
    yield live
    try:
        live.finish()
    except BaseException:
        running.pop(name).stop()
        raise
