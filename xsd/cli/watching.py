"""The tool watch."""

from __future__ import annotations

import os

from xsd.client.errors import XenstoreError

from .failure import refused
from .invocation import Invocation
from .output import flush, put


def run(call: Invocation) -> int:
    """Print the path of each event as it happens."""
    remaining = call.number("number")
    depth = call.number("depth")
    with call.connect() as client:
        for path in call.arguments:
            try:
                client.watch(path, os.fsencode(path), depth)
            except XenstoreError as error:
                failure = refused(f"Unable to add watch on {path}", error)
                if depth is not None and error.name == "EINVAL":
                    failure.message += "; it may be too old to know --depth"
                raise failure from error
        if remaining is None or remaining < 0:
            while True:
                _show(client.next_event().path)
        for _ in range(remaining):
            _show(client.next_event().path)
    return 0


def _show(path: str) -> None:
    # Whoever reads this waits for it, so nothing may stay in a buffer.
    put(path + "\n")
    flush()
