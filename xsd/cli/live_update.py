"""Replacing the running daemon by another program, step by step over CONTROL."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from xsd.client.sync import Client

from .control import BAD_USAGE, COMMAND_FAILED, ask
from .failure import ToolError

_COMMAND = "live-update"
_DONE = "OK"
_BUSY = "BUSY"
#: How long the daemon may wait for open transactions, unless told otherwise.
_SECONDS = 60
#: A daemon that answers BUSY is asked again after this time.
_PAUSE_SECONDS = 1.0


class Update(NamedTuple):
    """A live update: the program, its new arguments if any, how long to wait, whether to force."""

    binary: str
    arguments: str | None
    seconds: int
    force: bool


def parse(words: Sequence[str]) -> Update:
    """Parse ``[-c arguments] [-F] [-t seconds] file``."""
    arguments, seconds, force = None, _SECONDS, False
    rest = list(words)
    while rest and rest[0] in ("-c", "-F", "-t"):
        option = rest.pop(0)
        if option == "-F":
            force = True
        elif not rest:
            missing = "command line" if option == "-c" else "timeout"
            raise ToolError(f"Missing {missing} value", BAD_USAGE)
        elif option == "-c":
            arguments = rest.pop(0)
        else:
            seconds = _seconds(rest.pop(0))
    if not rest:
        raise ToolError("Missing binary specification", BAD_USAGE)
    if len(rest) > 1 or rest[0].startswith("-"):
        text = " ".join(rest)
        raise ToolError(f"expected [-c arguments] [-F] [-t seconds] file, got '{text}'", BAD_USAGE)
    return Update(rest[0], arguments, seconds, force)


def perform(client: Client, update: Update) -> None:
    """Run the update to its end; ``ToolError`` with the daemon's words if it refuses."""
    _step(client, "Setting update binary", "-f", update.binary)
    if update.arguments is not None:
        _step(client, "Setting update parameters", "-c", update.arguments)
    start = ["-s", "-t", str(update.seconds), *(["-F"] if update.force else [])]
    while not _step(client, "Starting live update", *start):
        time.sleep(_PAUSE_SECONDS)


def _step(client: Client, what: str, *arguments: str) -> bool:
    answer = ask(client, _COMMAND, arguments)
    if answer not in (_DONE, _BUSY):
        raise ToolError(f"{what} failed:\n{answer}", COMMAND_FAILED)
    return answer == _DONE


def _seconds(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ToolError(f"expected a timeout in seconds, got '{text}'", BAD_USAGE)
    return int(text)
