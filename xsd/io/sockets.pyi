"""The sockets as Python sees them; the docstrings stand in sockets.pyx."""

import asyncio
import socket
from collections.abc import Callable

from xsd.core.engine import Engine

class Sockets:
    @property
    def accepted(self) -> int: ...
    @property
    def wakeups(self) -> int: ...
    def __init__(
        self,
        engine: Engine,
        loop: asyncio.AbstractEventLoop,
        effects: Callable[[], object],
        settled: Callable[[], object] | None = None,
        domid: int = 0,
    ) -> None: ...
    def listen(self, sock: socket.socket) -> None: ...
    def stop_accepting(self) -> None: ...
    def shut(self) -> None: ...
    def settle(self) -> None: ...
