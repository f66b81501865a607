"""How a tool says what went wrong: what it tried, what was wrong, what was expected."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from xsd.client.errors import XenstoreError

_PATH_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-/_@")
_PATH_LIMIT = 3072


class ToolError(Exception):
    """A tool gives up: a message for stderr and the exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class UsageError(ToolError):
    """The command line is wrong; the usage line is shown after the message."""


def refused(attempt: str, error: XenstoreError) -> ToolError:
    """The failure of an attempt ("couldn't read path /a") that the server refused."""
    return ToolError(f"{attempt}: {reason(error)}")


@contextmanager
def attempting(attempt: str) -> Iterator[None]:
    """Turn a refusal in the block into the failure of ``attempt``; a conflict passes through."""
    try:
        yield
    except XenstoreError as error:
        if error.name == "EAGAIN":
            raise
        raise refused(attempt, error) from error


def reason(error: XenstoreError) -> str:
    """Why the server refused, with the symbolic name and, for a bad path, what is bad about it."""
    if error.name == "EINVAL" and (flaw := path_flaw(error.path)):
        return f"not a valid path, {flaw} ({error.name})"
    return f"{error.meaning} ({error.name})"


def path_flaw(path: str) -> str | None:
    """What is wrong with a path, with what was expected; None if nothing is."""
    if not path:
        return "it is empty, expected / or names separated by /"
    for position, character in enumerate(path):
        if character not in _PATH_CHARACTERS:
            return f"character {position + 1} is {character!r}, expected A-Z a-z 0-9 - / _ or @"
    if "//" in path:
        return "it contains //, expected one / between names"
    if path.endswith("/") and path != "/":
        return "it ends with /, expected a name"
    if len(path) > _PATH_LIMIT:
        return f"it has {len(path)} characters, expected at most {_PATH_LIMIT}"
    return None
