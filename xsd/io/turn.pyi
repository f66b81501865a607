"""The turn as Python sees it; the docstrings stand in turn.pyx."""

import asyncio
from collections.abc import Callable

from xsd.core.engine import Engine

class Transport: ...

class Turn:
    def __init__(
        self,
        engine: Engine,
        loop: asyncio.AbstractEventLoop,
        effects: Callable[[], object],
        settled: Callable[[], object] | None = None,
    ) -> None: ...
    def set_time(self, now: int) -> None: ...
    def settle(self) -> None: ...
    def stop(self) -> None: ...
