"""The tool control: commands to the daemon itself."""

from __future__ import annotations

from collections.abc import Sequence

from xsd.client.errors import XenstoreError
from xsd.client.sync import Client

from .failure import ToolError, UsageError
from .invocation import Invocation
from .output import put

#: Exit statuses beside 0 and 1.
BAD_USAGE = 2
COMMAND_FAILED = 3


def run(call: Invocation) -> int:
    """Send a command and print the answer."""
    if not call.arguments:
        raise UsageError("expected a command; 'help' lists what the daemon knows", BAD_USAGE)
    command, *arguments = call.arguments
    if command == "live-update":
        from . import live_update

        update = live_update.parse(arguments)
        with call.connect() as client:
            live_update.perform(client, update)
        return 0
    with call.connect() as client:
        answer = ask(client, command, arguments)
    if answer:
        put(answer + "\n")
    return 0


def ask(client: Client, command: str, arguments: Sequence[str]) -> str:
    """The daemon's answer; ``ToolError`` tells what commands there are if it knows no such."""
    try:
        return client.control(command, *arguments)
    except XenstoreError as error:
        if error.name != "EINVAL":
            message = f"Error {error.errno} when trying to execute command: {error.meaning}"
            raise ToolError(f"{message} ({error.name})", COMMAND_FAILED) from error
    try:
        known = client.control("help")
    except XenstoreError as error:
        raise ToolError(f"Command not supported: {command}", COMMAND_FAILED) from error
    raise ToolError(f"Command not supported. Valid commands are:\n{known}", COMMAND_FAILED)
