"""One call of a tool: its command line parsed, its connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from getopt import GetoptError, getopt, gnu_getopt
from typing import NamedTuple

from xsd.client.sync import Client

from .catalogue import COMMON, Tool
from .failure import UsageError


class Invocation(NamedTuple):
    """What the user asked for; ``options`` has the long names that were given."""

    tool: Tool
    options: Mapping[str, str]
    arguments: Sequence[str]

    def connect(self) -> Client:
        """Connect to the server that was named, or that the environment names."""
        return Client.connect(self.options.get("socket"), socket_only="socket-only" in self.options)

    def number(self, option: str) -> int | None:
        """The value of a numeric option, None if it was not given."""
        text = self.options.get(option)
        if text is None:
            return None
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()):
            raise UsageError(f"--{option} expects a whole number, got '{text}'")
        return int(text)


def parse(tool: Tool, words: Sequence[str]) -> Invocation:
    """Parse a tool's command line; ``UsageError`` says what is wrong with it.

    With ``help`` among the options nothing else is checked.
    """
    options = (*tool.options, *COMMON)
    letters = "".join(o.short + (":" if o.metavar else "") for o in options if o.short)
    names: dict[str, str] = {}
    longs: list[str] = []
    for option in options:
        if option.short:
            names[f"-{option.short}"] = option.long
        for long in (option.long, *option.aliases):
            if long:
                names[f"--{long}"] = option.long
                longs.append(f"{long}=" if option.metavar else long)
    try:
        cut = getopt if tool.verbatim else gnu_getopt
        given, arguments = cut(list(words), letters, longs)
    except GetoptError as error:
        hint = " (put -- before arguments that start with -)" if error.opt[:1].isdigit() else ""
        raise UsageError(f"{error.msg}{hint}") from None
    chosen = {names[name]: value for name, value in given}
    if "help" not in chosen and len(arguments) < tool.least:
        raise UsageError(f"expected {tool.arguments}, got {len(arguments) or 'nothing'}")
    return Invocation(tool, chosen, arguments)
