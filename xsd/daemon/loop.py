"""The event loop: uvloop, without OpenSSL.

A xenstored speaks no TLS, but uvloop and asyncio import ``ssl``, and OpenSSL would be a seventh of
all the memory that the daemon has. While they are imported a stand-in has that name: its constants
are 0, its other attributes exceptions that nobody raises, which are also classes that nothing is
an instance of. Who imports ``ssl`` later gets the real one.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uvloop import Loop


class _NoTls(ModuleType):
    """A module in which all names are there."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        absent: object = 0
        if not name.isupper():
            absent = type(name, (OSError,), {"__module__": "ssl"})
        setattr(self, name, absent)
        return absent


def new_event_loop() -> Loop:
    """A loop of uvloop."""
    if "ssl" in sys.modules or "asyncio" in sys.modules:
        import uvloop
    else:
        sys.modules["ssl"] = _NoTls("ssl")
        try:
            import uvloop
        finally:
            del sys.modules["ssl"]
    return uvloop.new_event_loop()
